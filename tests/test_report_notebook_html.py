"""Executed notebooks as offline HTML."""

from __future__ import annotations

import base64
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.errors import SegfairError
from helpers.figures.tables import link_csv
from helpers.report import export_notebook, find_leaks, make_scrubber
from tests import report_study as study

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:nbconvert", "ignore::DeprecationWarning:traitlets")


def make_figure(text: str = "liver") -> dict:
    return {"data": [{"type": "scatter", "x": [1, 2], "y": [3, 4], "text": [text, text]}], "layout": {"height": 333}}


def write_notebook(path, *cells):
    notebook = new_notebook(cells=list(cells))
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"x": "WIDGET-STATE" * 10}}}
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def page(tmp_path) -> str:
    source = write_notebook(
        tmp_path / "03_performance.ipynb",
        new_markdown_cell("# 03 · For <whom>?\n\nwords"),
        new_code_cell('params = "params/demo.yaml"', metadata={"tags": ["parameters"]}),
        new_code_cell('params = "/home/anna/x.yaml"', metadata={"tags": ["injected-parameters"]}),
        new_code_cell("show(table) < 3", outputs=[new_output("stream", text="12 scans\n")]),
        new_code_cell(
            "plot()",
            outputs=[new_output("display_data", {"application/vnd.plotly.v1+json": make_figure("<img src=x>")})],
        ),
        new_code_cell(
            "plot()",
            outputs=[
                new_output("execute_result", {"application/vnd.plotly.v1+json": make_figure(), "text/html": "old"})
            ],
        ),
        new_code_cell(
            "browse()",
            outputs=[
                new_output(
                    "display_data",
                    {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "VBox()"},
                )
            ],
        ),
    )
    target = tmp_path / "out" / "03.html"
    assert export_notebook(source, target) == target
    return target.read_text(encoding="utf-8")


def test_figures_live_on_with_plotly_once(page):
    assert page.count("Plotly.newPlot(") >= 2 and page.count("<script data-library") == 1
    assert 'id="figure-1"' in page and 'id="figure-2"' in page and "333px" in page
    assert "<img src=x>" not in page


def test_nothing_is_loaded(page):
    text = re.sub(r"<script data-library[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(script|img|iframe|source)\b[^>]*\bsrc=", text)
    assert not re.search(r"<link\b[^>]*href=[\"'](?!data:)", text)
    assert "require.js" not in text and "mathjax" not in text.lower().replace("mathjaxconfig", "")
    assert "import(" not in text and "default-src 'none'" in text


def test_code_is_folded_and_parameters_are_gone(page):
    assert '<details class="segfair-code"><summary>code</summary><pre>show(table) &lt; 3</pre></details>' in page
    assert "anna" not in page and "params/demo.yaml" not in page
    assert "12 scans" in page and "For &lt;whom&gt;?" in page


def test_widgets_leave_a_line(page):
    assert "needs a running notebook" in page and "WIDGET-STATE" not in page and "VBox" not in page


def test_a_notebook_without_figures_carries_no_library(tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", new_markdown_cell("words"), new_code_cell(""))
    text = export_notebook(source, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "data-library" not in text and "<title>a</title>" in text


def test_what_is_no_notebook_is_refused(tmp_path):
    with pytest.raises(SegfairError, match="no such notebook"):
        export_notebook(tmp_path / "none.ipynb", tmp_path / "x.html")
    (tmp_path / "bad.ipynb").write_text("not json", encoding="utf-8")
    with pytest.raises(SegfairError, match="is not a notebook"):
        export_notebook(tmp_path / "bad.ipynb", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_formulas_become_mathml_and_load_nothing(tmp_path):
    prose = "# F\n\nA shift of $\\delta$ costs\n\n$$\\frac{\\delta S}{2V}$$\n\nand *emphasis*, `code`, $5."
    source = write_notebook(tmp_path / "a.ipynb", new_markdown_cell(prose))
    page = export_notebook(source, tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.count("<math") == 2 and "<mfrac>" in page and 'display="block"' in page
    assert "<em>emphasis</em>" in page and "<code>code</code>" in page and "$5." in page
    assert "mathjax" not in page.lower()


def test_a_formula_that_cannot_be_translated_stays_as_it_was_written(tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", new_markdown_cell("$a^b^c$"))
    assert "<code>a^b^c</code>" in export_notebook(source, tmp_path / "a.html").read_text(encoding="utf-8")


def test_outputs_lose_ids_paths_machine_and_dates_of_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "ward7-pc")
    cohort = study.make_cohort(4)
    study.write_study(tmp_path / "study", cohort=cohort)
    person, scan, path = cohort.loc[1, ["subject", "scan", "reference"]]
    secrets = [person, scan, path, "secret_place", "ward7-pc", "1958-03-11", "anna"]
    words = f"{person} {scan} on ward7-pc born 1958-03-11 {path}"
    source = write_notebook(
        tmp_path / "a.ipynb",
        new_code_cell(
            "run()",
            outputs=[
                new_output("stream", text=f"comparing: 3/4 [00:01, {scan}]\n"),
                new_output("stream", name="stderr", text="comparing masks: 100%|████| 36/36 [00:04<00:00, scan 2]\n"),
            ],
        ),
        new_code_cell(
            "t", outputs=[new_output("execute_result", {"text/html": f"<td>{words}</td>", "text/plain": words})]
        ),
        new_code_cell(
            "table",
            outputs=[
                new_output("execute_result", {"text/html": link_csv(f'scan,note\n{scan},"{words}"\n', "failures")})
            ],
        ),
        new_code_cell(
            "boom()",
            outputs=[
                new_output(
                    "error", ename="VolumeError", evalue=f"{path}: truncated", traceback=[f"File /home/anna/{scan}.py"]
                )
            ],
        ),
        new_code_cell(
            "plot()", outputs=[new_output("display_data", {"application/vnd.plotly.v1+json": make_figure(words)})]
        ),
    )
    page = export_notebook(source, tmp_path / "a.html", scrub=make_scrubber(tmp_path / "study")).read_text("utf-8")
    assert find_leaks(page, secrets) == []
    assert "comparing masks: 100" not in page, "how far a stage had come is no result"
    assert "comparing: 3/4 [00:01, scan 002]" in page and "VolumeError: the file: truncated" in page
    assert page.count("the scan 002 on [machine] born [date] the file") >= 2
    saved = re.search(r"data:text/csv;charset=utf-8;base64,([^\"]+)\">save as failures.csv<", page)
    assert base64.b64decode(saved[1]).decode("utf-8-sig").startswith("scan,note\nscan 002,the scan 002 on [machine]")


def test_images_and_numbers_of_figures_are_left_as_they_are(tmp_path):
    figure = {
        "data": [
            {"type": "scatter", "x": {"dtype": "f8", "bdata": "AAAAAAAA8D8="}, "hovertemplate": "%{x}<extra></extra>"}
        ],
        "layout": {
            "images": [{"source": "data:image/png;base64,iVBO/Rw0/KGgo"}],
            "template": {"layout": {"font": {"family": "a/b/c/d"}}},
        },
        "frames": [{"name": "female", "data": []}],
    }
    source = write_notebook(
        tmp_path / "a.ipynb",
        new_code_cell("plot()", outputs=[new_output("display_data", {"application/vnd.plotly.v1+json": figure})]),
    )
    page = export_notebook(source, tmp_path / "a.html").read_text(encoding="utf-8")
    for kept in ("AAAAAAAA8D8=", "iVBO", "a/b/c/d", "female"):
        assert kept in page.replace("\\u002f", "/")
