"""What figures of several panels share: their grid, what stands above and below it, and menus."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.style import style_figure
from helpers.vocabulary.measures import Measure
from helpers.vocabulary.words import name_scan

MARGIN_COLOUR = "rgba(120, 120, 120, 0.16)"
ZERO_LINE = {"color": "#444444", "width": 1}
QUIET = "#555555"
LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "itemsizing": "constant", "traceorder": "normal"}
MOST_DOTS = 500  # of a group: more cover one another, and 100,000 take 30 MB of a page
THINNED_OUT = f"{MOST_DOTS} dots at most per group, evenly by rank"
POINTED_AT = "%{customdata}<extra></extra>"  # for hover texts that are ready-made

_WIDTH, _RIGHT = 884, 40  # pixels: of a figure in a page 900 wide, and of its right margin and some
_NARROW_WIDTH, _NARROW_LEFT = 356, 56  # on a phone
_TITLE, _SUBTITLE, _MENU, _LEGEND_LINE = 44, 20, 42, 22  # pixels: heights of what is above panels
_NOTE_LINE = 17
_HIGHEST_MENU = 1.95  # plotly takes a menu's place up to 3 panel heights from below
_IS_NARROW: ContextVar[bool] = ContextVar("narrow", default=False)


@contextmanager
def draw_narrow() -> Iterator[None]:
    """Draw every figure made within for a screen as narrow as a phone's.

    Panels stand one below the other and names above their rows; the traces stay as they are, so
    that a page can take the layout alone.
    """
    token = _IS_NARROW.set(True)
    try:
        yield
    finally:
        _IS_NARROW.reset(token)


def is_narrow() -> bool:
    """Tell whether figures are being drawn by :func:`draw_narrow`."""
    return _IS_NARROW.get()


@dataclass(frozen=True)
class PanelGrid:
    """Panels of one figure, side by side in rows; `body` is the height of all, in pixels."""

    figure: go.Figure
    panels: int
    columns: int
    body: int
    names_above: bool = False  # whether the names of rows stand in the panels, with nothing on their left

    def frame(self, **options: Any) -> go.Figure:
        """Return the figure with what stands above and below its panels: :func:`frame_figure`."""
        return frame_figure(self.figure, body=self.body, **options | {"left": 12} if self.names_above else options)

    @property
    def places(self) -> list[dict[str, int]]:
        """Row and column of each panel, as plotly takes them."""
        return [{"row": n // self.columns + 1, "col": n % self.columns + 1} for n in range(self.panels)]

    def title_axes(self, across: str, down: str = "") -> None:
        """Write the title of x under the lowest panel of every column, that of y on the left."""
        across = break_words(across, 44 if is_narrow() else 90 // min(self.columns, 3))
        for place in self.places[-self.columns :]:
            self.figure.get_subplot(**place).xaxis.title = across or None
        for place in self.places[:: self.columns]:
            self.figure.get_subplot(**place).yaxis.title = down or None


def make_grid(
    titles: Sequence[str], panel: int, *, columns: int = 3, between: int = 66, across: float = 0.025, **axes: Any
) -> PanelGrid:
    """Return empty panels, one per title, `columns` side by side at most.

    `panel` and `between` are the height of a panel and of the space to the next row, in pixels;
    `across` is the space beside a panel, as a part of the width. All panels share their axes unless
    plotly's ``shared_xaxes`` or ``shared_yaxes`` say otherwise.
    """
    columns = 1 if is_narrow() else min(columns, len(titles))
    rows = -(-len(titles) // columns)
    body = panel * rows + between * (rows - 1)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=titles,
        horizontal_spacing=across,
        vertical_spacing=between / body if rows > 1 else 0,
        **({"shared_xaxes": "all", "shared_yaxes": "all"} | axes),
    )
    return PanelGrid(figure, len(titles), columns, body)


# With more models than these, figures and pages show what is surest and fold the rest.
MANY_MODELS = 6


def list_ticks(names: Sequence[str], *, down: bool = False, room: float = 0.6) -> dict[str, Any]:
    """Return an axis of names at 0, 1, 2 …, to the right or `down`, with `room` at both ends."""
    ends = [-room, len(names) - 1 + room]
    ticks = {"tickvals": list(range(len(names))), "ticktext": list(names), "range": ends[::-1] if down else ends}
    return ticks | {"zeroline": False, "automargin": down}


def frame_figure(
    figure: go.Figure,
    *,
    title: str,
    subtitle: str = "",
    body: int,
    menu: bool = False,
    below: int = 60,
    head: int = 30,
    left: int = 70,
    footnote: str = "",
) -> go.Figure:
    """Stack title, subtitle, menu and legend above the panels and a footnote beneath.

    The figure has its traces already: they decide how many lines the legend takes. `body` is the
    height of the panels, `below`, `head` and `left` the room for the axis beneath them, between
    legend and panels, and on the left, all in pixels; `menu` leaves room for :func:`offer_choices`.
    """
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is True]
    above_legend = _TITLE + _SUBTITLE * bool(subtitle) + _MENU * menu
    left = min(left, _NARROW_LEFT) if is_narrow() else left
    width = (_NARROW_WIDTH if is_narrow() else _WIDTH) - left - _RIGHT
    top = above_legend + _count_lines(names, width) * _LEGEND_LINE + head
    notes = wrap_note(footnote)
    bottom = below + _NOTE_LINE * len(notes) + (12 if notes else 0)
    above_menu = top - _TITLE - _SUBTITLE * bool(subtitle)
    if menu:
        body = max(body, math.ceil(above_menu / _HIGHEST_MENU))
    height = top + body + bottom
    style_figure(figure, title=f"{title}<br><sup>{subtitle}</sup>" if subtitle else title, height=height)
    figure.update_layout(
        margin={"t": top, "b": bottom, "l": left},
        title={"yref": "container", "y": 1 - 20 / height, "yanchor": "top"},
        showlegend=bool(names),
        legend=LEGEND | {"yanchor": "top", "yref": "container", "y": 1 - above_legend / height, "tracegroupgap": 0},
        # The place for the menu is in the panels' own coordinates: menus know no others.
        meta={"head": above_legend, "menu_y": 1 + above_menu / body},
    )
    write_beneath(figure, notes, below + 4)
    return figure


def offer_choices(figures: Mapping[str, go.Figure]) -> go.Figure:
    """Return one figure with a menu of several, which needs no kernel; the first is shown.

    `figures` are, by what the menu says, on the same grid and framed with room for a menu.
    """
    parts = list(figures.values())
    if len(parts) == 1:
        return parts[0]
    layouts = [_flatten(part.layout.to_plotly_json()) for part in parts]
    keys = dict.fromkeys(key for layout in layouts for key in layout)
    differing = [key for key in keys if any(layout.get(key) != layouts[0].get(key) for layout in layouts)]
    sizes = [len(part.data) for part in parts]
    layout = parts[0].layout.to_plotly_json()
    del layout["template"]  # that of every figure: plotly would check it once more
    figure = go.Figure([trace for part in parts for trace in part.data], layout)
    for trace in figure.data[sizes[0] :]:
        trace.visible = False
    buttons, start = [], 0
    for name, size, layout in zip(figures, sizes, layouts, strict=True):
        shown = [start <= place < start + size for place in range(sum(sizes))]
        # None takes away what another choice has set.
        changes = {key: layout.get(key, [] if key in ("annotations", "shapes") else None) for key in differing}
        buttons.append({"label": name, "method": "update", "args": [{"visible": shown}, changes]})
        start += size
    menu = {"x": 0.0, "xanchor": "left", "y": parts[0].layout.meta["menu_y"], "yanchor": "top", "bgcolor": "white"}
    figure.update_layout(updatemenus=[{"buttons": buttons, "pad": {"t": 0, "b": 0}, **menu}])
    return figure


def count_columns(groups: int, panels: int) -> int:
    """Return how many panels stand side by side so that the names of their groups fit beneath."""
    return min(panels, 3 if groups < 4 else 2 if groups < 6 else 1)


def put_first(names: Sequence[str], first: str | None) -> list[str]:
    """Return every name once, in order, `first` before the others."""
    return sorted(dict.fromkeys(names), key=lambda name: name != first)


def wrap_note(text: str) -> list[str]:
    """Return a footnote's lines: at most four, the last one "…" where that is not enough."""
    width, most = (52, 10) if is_narrow() else (130, 4)
    lines = textwrap.wrap(text, width)
    return lines if len(lines) <= most else [*lines[: most - 1], "…"]


def write_beneath(figure: go.Figure, lines: Sequence[str], pixels: int) -> None:
    """Write lines of a footnote so many pixels below the panels."""
    if lines:
        figure.add_annotation(
            text="<br>".join(lines), x=0, y=0, yshift=-pixels, xref="paper", yref="paper", xanchor="left",
            yanchor="top", align="left", showarrow=False, font={"size": 12, "color": QUIET},
        )  # fmt: skip


def draw_nothing(title: str, why: str) -> go.Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = style_figure(go.Figure(), title=title, height=180)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=why, x=0, y=0.5, xref="paper", yref="paper", xanchor="left", showarrow=False)
    return figure


def make_bars(value: pd.Series, low: pd.Series, high: pd.Series, colour: str) -> dict[str, Any]:
    """Return plotly's error bars from an interval's ends."""
    ends = {"array": (high - value).to_numpy(float), "arrayminus": (value - low).to_numpy(float)}
    return {"type": "data", "symmetric": False, **ends, "thickness": 1.6, "width": 3, "color": colour}


def shift_sideways(numbers: np.ndarray) -> np.ndarray:
    """Return a sideways shift per scan number, always the same: multiples of the golden ratio."""
    return (np.asarray(numbers, float) * 0.6180339887 % 1.0 - 0.5) * 0.5


def thin_out(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return what of a group is drawn as dots: all rows, or :data:`MOST_DOTS`, evenly by rank.

    The lowest and the highest value of `column` are among them, and quantiles stay; without missing
    values.
    """
    if len(rows) <= MOST_DOTS:
        return rows
    ranks = np.linspace(0, len(rows) - 1, MOST_DOTS).round().astype(int)
    return rows.sort_values(column, kind="stable").iloc[ranks]


def name_person(number: int, scans: int) -> str:
    """Return a person's study-local name: never their own."""
    return name_scan(number) + (f" (mean of {scans} scans)" if scans > 1 else "")


def title_measure(measure: Measure) -> str:
    """Return the title of a vertical axis: the measure's name over its scale and direction."""
    return f"{measure.long_name}<br>({measure.remark})"


def break_words(text: str, width: int) -> str:
    """Break a name into lines of about `width` characters, between words."""
    return "<br>".join(textwrap.wrap(text.replace("_", "_\u200b"), width, break_long_words=False)) or text


def _count_lines(names: Sequence[str], width: int) -> int:
    """Estimate a legend's lines: one if all fit, else in columns as wide as the widest entry."""
    if not names:
        return 0
    # Symbol and spaces take 40 pixels, a letter 6.5; tags are not seen.
    wide = [40 + 6.5 * len(re.sub(r"<[^>]*>", "", name)) for name in names]
    return 1 if sum(wide) <= width else -(-len(names) // max(1, int(width // max(wide))))


def _flatten(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return a layout's leaves by dotted path, as plotly's ``update`` takes them."""
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        if key in ("template", "meta"):
            continue
        if isinstance(item, Mapping):
            leaves |= _flatten(item, f"{path}{key}.")
        else:
            leaves[f"{path}{key}"] = list(item) if isinstance(item, tuple) else item
    return leaves
