"""The view's data and figure as files."""

from __future__ import annotations

import base64
import html
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import plotly.graph_objects as go
import plotly.io as pio
from plotly.offline import get_plotlyjs

from helpers import storage
from helpers.chromium import find_browser, run_browser
from helpers.explore.explorer import NOTHING, Explorer
from helpers.figures.style import CONFIG

_WIDTH, _HEIGHT, _SECONDS = 1000, 480, 60
# Has plotly draw both pictures and leaves them in the page, which the browser then prints.
_DRAWING = """
<pre id="pictures"></pre><script>
const size = {width: figure.layout.width, height: figure.layout.height};
Promise.all([
  Plotly.toImage(figure, {format: "svg", ...size}), Plotly.toImage(figure, {format: "png", scale: 2, ...size})
]).then((pictures) => { document.getElementById("pictures").textContent = JSON.stringify(pictures); });
</script>"""


@dataclass(frozen=True)
class Exported:
    """What was written: the files, and a sentence where and what to mind."""

    files: tuple[Path, ...]
    message: str


def export_view(explorer: Explorer) -> Exported:
    """Write the view's data (CSV) and figure (HTML; with a Chromium SVG, PNG) to ``exports/``.

    The same view has the same name and replaces its former files. The HTML file is whole: it opens
    without a network.

    Raises
    ------
    SegfairError
        The folder cannot be written.
    """
    folder = explorer.study.folder / "exports"
    name = _name_view(explorer)
    figure = explorer.figure()
    written = [folder / f"{name}.csv", folder / f"{name}.html"]
    storage.write_table(explorer.tabulate(), written[0])
    page = pio.to_html(figure, config=CONFIG, include_plotlyjs=True, include_mathjax=False, full_html=True)
    storage.write_text(page, written[1])
    pictures = draw_pictures(figure)
    for suffix, content in pictures.items():
        path = folder / f"{name}.{suffix}"
        with storage.write_atomically(path) as temporary:
            temporary.write_bytes(content)
        written.append(path)
    kinds = ", ".join(path.suffix for path in written)
    message = (
        f"Written to {_shorten(folder, explorer.study.root)}: {name} ({kinds}). "
        "Each row and each dot is one person: protect them like any patient data."
    )
    if not pictures:
        message += " SVG and PNG need a local Chromium or Chrome; the camera above the figure saves one from this page."
    return Exported(tuple(written), message)


def draw_pictures(figure: go.Figure) -> dict[str, bytes]:
    """Draw a figure as SVG and PNG, by suffix, by a local Chromium without a network.

    Empty where there is no Chromium or it does not answer.
    """
    browser = find_browser()
    if browser is None:
        return {}
    sized = go.Figure(figure).update_layout(width=_WIDTH, height=figure.layout.height or _HEIGHT)
    drawn = sized.to_json().replace("</", "<\\/")
    with storage.open_scratch() as folder:
        page = folder / "figure.html"
        page.write_text(
            f"<meta charset=utf-8><script>{get_plotlyjs()}</script><script>const figure = {drawn};</script>{_DRAWING}",
            encoding="utf-8",
        )
        try:
            shown = run_browser(browser, page, "--virtual-time-budget=20000", "--dump-dom", seconds=_SECONDS)
        except (OSError, subprocess.SubprocessError):
            return {}
    return _read_pictures(shown.decode("utf-8"))


def _read_pictures(page: str) -> dict[str, bytes]:
    """Return the pictures that :data:`_DRAWING` left in a page; none where it did not end."""
    found = re.search(r'<pre id="pictures">(.+?)</pre>', page, re.DOTALL)
    if found is None:
        return {}
    svg, png = (unquote_to_bytes(url.partition(",")[2]) for url in json.loads(html.unescape(found.group(1))))
    return {"svg": svg, "png": base64.b64decode(png)}


def _name_view(explorer: Explorer) -> str:
    """Return a file name that says what is shown: ``planted-liver-dice-by-age-held-bmi``."""
    view = explorer.view
    words = [view.model, view.organ, view.metric, "by", view.across.replace(":", "-")]
    if view.colour not in (NOTHING, view.across):
        words += ["colour", view.colour.removeprefix("group:")]
    if view.adjusted:
        words += ["held", *view.covariates]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", "-".join(words))[:150]


def _shorten(folder: Path, root: Path) -> str:
    """Return a folder relative to the project's where it lies below: messages get shared."""
    return str(folder.relative_to(root)) if folder.is_relative_to(root) else str(folder)
