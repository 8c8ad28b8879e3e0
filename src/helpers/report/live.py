"""A plotly figure as a page draws it: its words and menus taken out, which HTML does better.

Titles wrap, menus are the browser's own, which the keyboard reaches, and a narrow screen is given a
layout of its own.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from helpers.report.escaping import clean_figure

_TAG = re.compile(r"<[^>]*>")
_HEIGHT = 450  # plotly's own, in pixels


@dataclass(frozen=True)
class PageFigure:
    """What a page needs to draw a figure."""

    heading: str  # plain text, as is `below`
    below: str  # what stands under the heading, a line each
    height: int  # in pixels, as is `narrow_height`
    narrow_height: int
    half: bool  # whether it takes half the width in print
    views: int  # how many its menus offer
    data: dict[str, Any]  # for the page's script: data, layout, narrow, frames, menus


def prepare_figure(figure: go.Figure, narrow: go.Figure, *, half: bool = False) -> PageFigure:
    """Take words and menus out of a figure; `narrow` is the same one, laid out for a phone.

    Raises
    ------
    ValueError
        The two do not hold the same traces, of which a page is given those of `figure` alone.
    """
    whole, other = clean_figure(figure), clean_figure(narrow)
    if other["data"] != whole["data"]:
        raise ValueError("a figure laid out for a phone must hold the traces of the wide one")
    drawn, small = _Menus(whole["layout"]), _Menus(other["layout"])
    menus = [drawn.read_menu(menu, small, place) for place, menu in enumerate(drawn.menus)]
    frames = [_read_frame(frame) for frame in whole.get("frames") or []]
    data = {
        "data": whole["data"],
        "layout": drawn.layout,
        "narrow": small.layout,
        "frames": frames,
        "menus": menus,
    }
    views = sum("menus" in frame for frame in frames) or max((len(menu["options"]) for menu in menus), default=1)
    heading, below = drawn.title
    return PageFigure(heading, below, drawn.layout["height"], small.layout["height"], half, views, data)


class _Menus:
    """A layout without title and menus, and what these were."""

    def __init__(self, layout: dict[str, Any]) -> None:
        self.layout = layout
        self.title = _split_title(layout.pop("title", {}).get("text") or "Figure")
        self.menus: list[dict[str, Any]] = layout.pop("updatemenus", [])
        meta = layout.pop("meta", {})
        self._head, self._foot = meta.get("head", 0), meta.get("foot", 0)
        margin = layout.setdefault("margin", {})
        layout["height"] = self._shorten("height", layout.get("height", _HEIGHT))
        margin.update({f"{side}": self._shorten(f"margin.{side}", margin.get(side, 80)) for side in "tb"})
        if "yref" in layout.get("legend", {}):
            layout["legend"]["y"] = 1.0

    def read_menu(self, menu: dict[str, Any], small: _Menus, place: int) -> dict[str, Any]:
        """Return a menu for the page's script, with what the narrow layout does instead."""
        options = [self._read_option(button) for button in menu["buttons"]]
        for option, button in zip(options, small.menus[place]["buttons"], strict=True):
            option["narrow"] = small._read_option(button)["args"]
        return {"kind": menu.get("type", "dropdown"), "active": menu.get("active", 0), "options": options}

    def _read_option(self, button: dict[str, Any]) -> dict[str, Any]:
        option = {"label": html.unescape(button["label"]), "method": button["method"], "args": button["args"]}
        if button["method"] == "update":
            traces, layout = button["args"]
            kept = {key: self._shorten(key, value) for key, value in layout.items() if not key.startswith("title.")}
            option["args"] = [traces, kept]
            if "title.text" in layout:
                option["title"] = _split_title(layout["title.text"])
        return option

    def _shorten(self, key: str, value: Any) -> Any:
        """Return a layout's number less what stood where words and menus were."""
        taken = {"height": self._head + self._foot, "margin.t": self._head, "margin.b": self._foot}
        return 1.0 if key == "legend.y" else value - taken[key] if key in taken else value


def _read_frame(frame: dict[str, Any]) -> dict[str, Any]:
    """Return a frame whose title and menus the page's script writes: [label, frame] per choice."""
    layout = dict(frame.get("layout", {}))
    title, menus = layout.pop("title", None), layout.pop("updatemenus", None)
    found = {key: value for key, value in frame.items() if key != "layout"} | ({"layout": layout} if layout else {})
    if title is not None:
        found["title"] = _split_title(title["text"])
    if menus is not None:
        choices = ([[html.unescape(b["label"]), b["args"][0][0]] for b in menu["buttons"]] for menu in menus)
        found["menus"] = [[menu["active"], options] for menu, options in zip(menus, choices, strict=True)]
    return found


def _split_title(text: str) -> tuple[str, str]:
    """Return the first line of a title and those below it, as plain text."""
    first, _, rest = text.partition("<br>")
    plain = [html.unescape(_TAG.sub("", part)).strip() for part in (first, rest.replace("<br>", " "))]
    return plain[0], plain[1]
