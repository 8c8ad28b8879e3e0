"""Every table saves as CSV and every figure as PNG and SVG: in the exported page without a network,
and in JupyterLab."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pandas as pd
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.figures.tables import style_table
from helpers.report import export_notebook
from tests.visiting import Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TABLE = pd.DataFrame({"group": ["Übergröße", "NA"], "gap": [0.123456789012345, 2.0]})
CODE = """\
import pandas as pd
import plotly.graph_objects as go
from helpers.figures.style import use_safe_renderer
from helpers.figures.tables import style_table, use_saved_tables
use_safe_renderer()
use_saved_tables()
"""


def save(page, link) -> tuple[str, str]:
    """Click and return the name and the text of the file that comes."""
    with page.expect_download(timeout=20_000) as download:
        link.click()
    return download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8-sig")


def test_an_exported_page_saves_tables_and_figures_without_a_network(browser, tmp_path):
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]), {"title": {"text": "Gap in Dice<br><sup>n = 12</sup>"}})
    cells = [
        new_markdown_cell("# 03 · Saved"),
        new_code_cell(
            "show", outputs=[new_output("execute_result", {"text/html": style_table(TABLE, file="gaps")._repr_html_()})]
        ),
        new_code_cell(
            "plot()",
            outputs=[
                new_output("display_data", {"text/html": "a link"}, metadata={"segfair_svg_link": True}),
                new_output("display_data", {"application/vnd.plotly.v1+json": json.loads(figure.to_json())}),
            ],
        ),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "03.ipynb")
    visit = Visit(browser, export_notebook(tmp_path / "03.ipynb", tmp_path / "03.html"))
    page = visit.page
    name, text = save(page, page.get_by_text("save as gaps.csv"))
    assert name == "gaps.csv"
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text), keep_default_na=False), TABLE, check_dtype=False)
    page.locator(".js-plotly-plot").hover()
    name, text = save(page, page.locator('.modebar-btn[data-title="Download plot as an SVG"]'))
    assert name == "Gap-in-Dice.svg" and text.startswith("<svg") and "Gap in Dice" in text
    with page.expect_download() as download:
        page.locator('.modebar-btn[data-title="Download plot as a PNG"]').click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    assert page.get_by_text("a link").count() == 0, "Lab's link is not needed here"
    assert page.locator('.modebar-btn[data-title^="Share"]').count() == 0
    assert [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert visit.complaints == []


def test_jupyterlab_saves_tables_and_figures(browser, tmp_path):
    cells = [
        new_code_cell(CODE),
        new_code_cell('style_table(pd.DataFrame({"gap": [0.123456789012345]}), file="gaps")'),
        new_code_cell('pd.DataFrame({"scan": ["001"]})'),
        new_code_cell('go.Figure(go.Bar(x=[1, 2], y=[3, 4]), {"title": {"text": "First figure"}})'),
        new_code_cell('go.Figure(go.Bar(x=[1, 2], y=[3, 4]), {"title": {"text": "Second figure"}})'),
    ]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nbformat.write(notebook, tmp_path / "saved.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tmp_path / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")} | {
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "spaces"),
    }
    server = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}",
            "--LabApp.expose_app_in_browser=True",
        ],
        env=os.environ | folders, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        for _ in range(150):
            try:
                with urllib.request.urlopen(f"{base}/api", timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        page = browser.new_context(viewport={"width": 1280, "height": 2400}).new_page()
        page.goto(f"{base}/lab/tree/saved.ipynb")
        page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget?.context?.isReady", timeout=60_000)
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
        page.locator(".js-plotly-plot .main-svg").nth(2).wait_for(state="attached", timeout=60_000)
        name, text = save(page, page.get_by_text("save as gaps.csv"))
        assert (name, text) == ("gaps.csv", "gap\n0.123456789012345\n")
        assert save(page, page.get_by_text("save as table.csv"))[1] == "scan\n001\n"
        links = page.get_by_text("save as SVG")
        for place, title in enumerate(("First figure", "Second figure")):
            name, text = save(page, links.nth(place))
            assert name.endswith(".svg") and title in text
        with page.expect_download() as download:
            page.locator(".js-plotly-plot").first.hover()
            page.locator('.modebar-btn[data-title="Download plot as a PNG"]').first.click()
        assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG"), "the camera still gives a PNG"
        assert page.locator('.modebar-btn[data-title^="Share"]').count() == 0
    finally:
        server.terminate()
        server.wait(timeout=20)
