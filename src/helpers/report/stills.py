"""Still pictures of figures, for print and for where no script runs."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from helpers.figures.images import draw_images
from helpers.report.live import PageFigure

# On 95 % of the 180 mm of an A4 page, and on half of it, letters of 12 pixels have 7 points.
_WIDE, _HALF = 820, 425
# A body is seen from four sides: one would hide what lies behind.
_SIDES, _SIDE_HEIGHT, _SIDE_ZOOM = ("Anterior", "Posterior", "Right", "Left"), 270, 1.7
_SECONDS = 600  # a busy machine takes minutes
_CHANCE = re.compile(r'id="(?:topdefs|defs)-([0-9a-f]+)"')  # what plotly calls a figure, another each time


def draw_stills(figures: Sequence[PageFigure]) -> list[list[tuple[str, str]]]:
    """Return each figure's pictures, as it is at first: the side that it is seen from, and address.

    A flat figure has one, without a side; addresses begin with ``data:image/svg+xml;base64,``. None
    at all where there is no Chromium on this machine, or where it fails: a page without stills
    shows its figures to scripts alone, and says so.
    """
    views = [list_views(figure) for figure in figures]
    wanted = [
        (view, {"format": "svg", "width": view["width"], "height": view["layout"]["height"]})
        for part in views
        for _, view in part
    ]
    addresses = map(_write_address, draw_images(wanted, seconds=_SECONDS))
    stills = [[(side, address) for (side, _), address in zip(part, addresses, strict=False)] for part in views]
    return stills if all(stills) else []


def list_views(figure: PageFigure) -> list[tuple[str, dict[str, Any]]]:
    """Return what is drawn of a figure, by the side that it is seen from."""
    told, layout = figure.data, figure.data["layout"]
    if "scene" not in layout:
        return [("", {"data": told["data"], "layout": layout, "width": _HALF if figure.half else _WIDE})]
    buttons = next(menu for menu in told["menus"] if menu["kind"] == "buttons")
    cameras = {option["label"]: option["args"][0] for option in buttons["options"]}
    layout = told["narrow"] | {"height": _SIDE_HEIGHT, "margin": {"l": 0, "r": 0, "t": 24, "b": 0}}
    views = []
    for side in _SIDES:
        seen = {key.partition(".")[0]: {"camera": camera} for key, camera in cameras[side].items()}
        zoom = {"aspectratio": dict.fromkeys("xyz", _SIDE_ZOOM)}
        scenes = {name: layout[name] | zoom | camera for name, camera in seen.items() if name in layout}
        views.append((side, {"data": told["data"], "layout": layout | scenes, "width": _HALF}))
    return views


def _write_address(drawn: str) -> str:
    svg = unquote(drawn.partition(",")[2])
    for place, name in enumerate(dict.fromkeys(_CHANCE.findall(svg))):
        svg = svg.replace(name, f"f{place}")
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
