"""Still pictures of figures, for print and for where no script runs, by a local Chromium."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from plotly.offline import get_plotlyjs

from helpers import storage
from helpers.chromium import find_browser, run_browser
from helpers.report.escaping import dump_json
from helpers.report.live import PageFigure

# On 95 % of the 180 mm of an A4 page, and on half of it, letters of 12 pixels have 7 points.
_WIDE, _HALF = 820, 425
# A body is seen from four sides: one would hide what lies behind.
_SIDES, _SIDE_HEIGHT, _SIDE_ZOOM = ("Anterior", "Posterior", "Right", "Left"), 270, 1.7
_SECONDS = 600  # a busy machine takes minutes
_FLAGS = ("--enable-unsafe-swiftshader", "--virtual-time-budget=60000", "--dump-dom")
_PAGE = """\
<!DOCTYPE html><meta charset="utf-8"><body><script>{library}</script><script>
(async function () {{
  for (const figure of {figures}) {{
    const drawn = document.createElement("pre");
    drawn.textContent = await Plotly.toImage(
      {{data: figure.data, layout: figure.layout}},
      {{format: "svg", width: figure.width, height: figure.layout.height}});
    document.body.appendChild(drawn);
  }}
}})();
</script></body>
"""
_DRAWN = re.compile(rb"<pre>data:image/svg\+xml,([^<]+)</pre>")
_CHANCE = re.compile(r'id="(?:topdefs|defs)-([0-9a-f]+)"')  # what plotly calls a figure, another each time


def draw_stills(figures: Sequence[PageFigure]) -> list[list[tuple[str, str]]]:
    """Return each figure's pictures, as it is at first: the side that it is seen from, and address.

    A flat figure has one, without a side; addresses begin with ``data:image/svg+xml;base64,``. None
    at all where there is no Chromium on this machine, or where it fails: a page without stills
    shows its figures to scripts alone, and says so.
    """
    browser, views = find_browser(), [list_views(figure) for figure in figures]
    if browser is None or not figures:
        return []
    wanted = [view for part in views for _, view in part]
    with storage.open_scratch() as folder:
        page = folder / "stills.html"
        storage.write_text(_PAGE.format(library=get_plotlyjs(), figures=dump_json(wanted)), page)
        try:
            shown = run_browser(browser, page, *_FLAGS, seconds=_SECONDS)
        except (OSError, subprocess.SubprocessError):
            return []
    drawn = [unquote(found.decode()) for found in _DRAWN.findall(shown)]
    if len(drawn) != len(wanted):
        return []
    addresses = map(_write_address, drawn)
    return [[(side, next(addresses)) for side, _ in part] for part in views]


def list_views(figure: PageFigure) -> list[tuple[str, dict[str, Any]]]:
    """Return what is drawn of a figure, by the side that it is seen from."""
    told, layout = figure.data, figure.data["layout"]
    if "scene" not in layout:
        return [("", {"data": told["data"], "layout": layout, "width": _HALF if figure.half else _WIDE})]
    buttons = next(menu for menu in told["menus"] if menu["kind"] == "buttons")
    cameras = {option["label"]: option["args"][0] for option in buttons["options"]}
    layout = (told["narrow"] or layout) | {"height": _SIDE_HEIGHT, "margin": {"l": 0, "r": 0, "t": 24, "b": 0}}
    views = []
    for side in _SIDES:
        seen = {key.partition(".")[0]: {"camera": camera} for key, camera in cameras[side].items()}
        zoom = {"aspectratio": dict.fromkeys("xyz", _SIDE_ZOOM)}
        scenes = {name: layout[name] | zoom | camera for name, camera in seen.items() if name in layout}
        views.append((side, {"data": told["data"], "layout": layout | scenes, "width": _HALF}))
    return views


def _write_address(svg: str) -> str:
    for place, name in enumerate(dict.fromkeys(_CHANCE.findall(svg))):
        svg = svg.replace(name, f"f{place}")
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
