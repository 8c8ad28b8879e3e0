"""Figures with more to show than fits: every view is a plotly frame, and menus lead to the others.

Frames can rest on other frames, so what views have in common is stored once. Such a figure needs no
kernel and no script of its own: it works wherever plotly draws it, if its frames are given along.
"""

from __future__ import annotations

import html
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

_SHOW_NOW = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}

Place = tuple[str, ...]


class StillFigure(go.Figure):
    """A figure whose frames are shown when a menu asks for one, never played by themselves."""

    def to_html(self, *args: Any, **kwargs: Any) -> str:
        """Return the figure as HTML, see plotly; without playing its frames unless asked."""
        return super().to_html(*args, **({"auto_play": False} | kwargs))

    def write_html(self, *args: Any, **kwargs: Any) -> None:
        """Write the figure as HTML, see plotly; without playing its frames unless asked."""
        super().write_html(*args, **({"auto_play": False} | kwargs))


@dataclass
class Frames:
    """The frames of a figure, by a key; equal content is made once."""

    kinds: tuple[str, ...]  # the type of each of the figure's traces
    _made: dict[str, dict[str, Any]] = field(default_factory=dict)
    _names: dict[Hashable, str] = field(default_factory=dict)

    def name(self, key: Hashable) -> str:
        """Return the name a frame has or will have: menus need it before the frame is made."""
        return self._names.setdefault(key, str(len(self._names)))

    def find(self, key: Hashable) -> str | None:
        """Return the name of the frame made for `key`, None when there is none yet."""
        name = self._names.get(key)
        return name if name in self._made else None

    def add(
        self,
        key: Hashable,
        traces: Mapping[int, dict[str, Any]],
        *,
        base: str | None = None,
        layout: dict[str, Any] | None = None,
    ) -> str:
        """Add a frame that changes `traces` (by place) and `layout` of `base`; return its name."""
        name = self.name(key)
        self._made[name] = {
            "name": name,
            "traces": list(traces),
            "data": [{"type": self.kinds[place], **trace} for place, trace in traces.items()],
            **({} if base is None else {"baseframe": base}),
            **({} if layout is None else {"layout": layout}),
        }
        return name

    def compose(self, name: str) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
        """Return traces (by place) and layout of a frame with all it rests on, merged."""
        frame = self._made[name]
        traces, layout = self.compose(frame["baseframe"]) if "baseframe" in frame else ({}, {})
        for place, trace in zip(frame["traces"], frame["data"], strict=True):
            traces[place] = _merge(traces.get(place, {}), trace)
        return traces, _merge(layout, frame.get("layout", {}))

    def draw(self, start: str) -> tuple[StillFigure, dict[str, Any]]:
        """Return the figure that starts with the frame `start`, and its layout, not yet applied."""
        traces, layout = self.compose(start)
        data = [traces[place] for place in sorted(traces)]
        return StillFigure(data=data, frames=list(self._made.values())), layout


def list_menus(
    place: Place, labels: Mapping[Place, Sequence[str]], nouns: Sequence[str], frames: Frames
) -> list[dict[str, Any]]:
    """Return the menus of a view: the choices that lead on from it, and which are active.

    `place` are the view's own choices, one per menu; `labels` has the text of each of a view's
    choices, for every view there is; `nouns` are what each menu chooses; the keys of `frames` are
    the places. The first two menus offer every choice there is; each later one, what there is under
    the choices before it. A choice leads to the view that keeps as much as possible of the others,
    the earlier menus first.
    """
    menus = []
    for level, noun in enumerate(nouns):
        within = [other for other in labels if level < 2 or other[:level] == place[:level]]
        buttons: list[dict[str, Any]] = []
        active, seen = 0, set()
        for other in within:
            choice = other[level]
            if choice in seen:
                continue
            seen.add(choice)
            active = len(buttons) if choice == place[level] else active
            found = _find_closest((*place[:level], choice, *place[level + 1 :]), level, within)
            label = escape(f"{noun}: {labels[found][level]}")
            buttons.append({"label": label, "method": "animate", "args": [[frames.name(found)], _SHOW_NOW]})
        menus.append({"buttons": buttons, "active": active})
    return menus


def dress_menus(menus: Sequence[dict[str, Any]], rows: Sequence[float]) -> list[dict[str, Any]]:
    """Give dropdown menus their places, two to a row, at the heights `rows` of the drawing area."""
    return [
        {
            **menu, "type": "dropdown", "direction": "down", "showactive": True, "bgcolor": "#FFFFFF",
            "x": 0.5 * (place % 2), "xanchor": "left", "y": rows[place // 2], "yanchor": "top",
        }
        for place, menu in enumerate(menus)
    ]  # fmt: skip


def escape(text: str) -> str:
    """Return `text` as plotly draws it character by character."""
    return html.escape(text, quote=False)


def _find_closest(wanted: Place, level: int, places: Sequence[Place]) -> Place:
    having = (place for place in places if place[level] == wanted[level])
    return max(having, key=lambda place: [one == other for one, other in zip(place, wanted, strict=True)])


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `under` with `over` laid on it, dictionaries within dictionaries too."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
