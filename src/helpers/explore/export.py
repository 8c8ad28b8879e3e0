"""The view's data and figure as files."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import plotly.graph_objects as go
import plotly.io as pio

from helpers import storage
from helpers.explore.explorer import NOTHING, Explorer
from helpers.figures.images import draw_images
from helpers.figures.style import CONFIG

_WIDTH, _HEIGHT, _SECONDS = 1000, 480, 60


@dataclass(frozen=True)
class Exported:
    """What was written: the files, and a sentence where and what to mind."""

    files: tuple[Path, ...]
    message: str


def export_view(explorer: Explorer) -> Exported:
    """Write the view's data (CSV) and figure (HTML; with a Chromium SVG, PNG) to ``exports/``.

    The same view has the same name and replaces its former files. The HTML file is whole: it opens
    without a network. Values of confounders are numbered.

    Raises
    ------
    SegfairError
        The folder cannot be written.
    """
    folder = explorer.study.folder / "exports"
    name = _name_view(explorer)
    explorer = explorer.number_values()
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
    """Draw a figure as SVG and PNG, by suffix; empty where :func:`draw_images` draws none."""
    size = {"width": _WIDTH, "height": figure.layout.height or _HEIGHT}
    drawn, looks = json.loads(figure.to_json()), ({"format": "svg"}, {"format": "png", "scale": 2})
    urls = draw_images([(drawn, look | size) for look in looks], seconds=_SECONDS)
    contents = [url.partition(",")[2] for url in urls]
    return {"svg": unquote_to_bytes(contents[0]), "png": base64.b64decode(contents[1])} if contents else {}


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
