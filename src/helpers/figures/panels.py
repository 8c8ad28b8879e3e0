"""What the fairness figures share: panels, the lines above and below them, menus, words for numbers."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.style import METRIC_LABELS, SYMBOLS, name_for_people, style_figure

UNITS = {"hd95_mm": "mm", "assd_mm": "mm", "boundary_error_mm": "mm", "volume_error_ml": "ml"}
MARGIN_COLOUR = "rgba(120, 120, 120, 0.16)"
ZERO_LINE = {"color": "#444444", "width": 1}
QUIET = "#555555"
POOLED = "all"

_WIDTH, _RIGHT = 884, 40  # pixels: of a figure in a page 900 wide, and of its right margin with some to spare
_TITLE, _SUBTITLE, _MENU, _LEGEND_LINE = 44, 20, 42, 22  # heights in pixels of what stands above the panels
_GRID_COLUMNS = 3  # panels side by side
_HIGHEST_MENU = 1.95  # plotly takes a menu's place up to 3 panel heights from below: two above the panels


def make_panels(
    attributes: Sequence[str], organs: int, marks: int, *, columns: Sequence[str] = ("",)
) -> tuple[go.Figure, int]:
    """Return stacked panels, a row per attribute, tall enough for `marks` marks per organ, and the height."""
    panel = 40 + organs * max(42, 17 * marks)
    height = 200 + len(attributes) * panel + 46 * (len(attributes) - 1)
    gap = 46 / (height - 200) if len(attributes) > 1 else 0
    titles = [f"{name_for_people(name)}{f' · {column}' if column else ''}" for name in attributes for column in columns]
    return (
        make_subplots(
            rows=len(attributes),
            cols=len(columns),
            subplot_titles=titles,
            shared_xaxes="all",
            shared_yaxes=len(columns) > 1,
            vertical_spacing=gap,
            horizontal_spacing=0.03,
        ),
        height,
    )


def make_grid(attributes: Sequence[str], panel: int) -> tuple[go.Figure, int, int]:
    """Return panels, one per attribute, side by side, their height in pixels and the number of columns."""
    columns = min(_GRID_COLUMNS, len(attributes))
    lines, between = -(-len(attributes) // columns), 66
    body = panel * lines + between * (lines - 1)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        subplot_titles=[name_for_people(name) for name in attributes],
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.025,
        vertical_spacing=between / body if lines > 1 else 0,
    )
    return figure, body, columns


def finish_panels(figure: go.Figure, axis_title: str, rows: int, *, legend: bool) -> None:
    """Place title, legend and axis title of the panels of :func:`make_panels`, in pixels whatever the height."""
    height = figure.layout.height
    figure.update_xaxes(title=axis_title, row=rows)
    figure.update_xaxes(zeroline=False, showticklabels=True)
    figure.update_yaxes(zeroline=False, automargin=True, showgrid=True)
    figure.update_layout(
        margin={"t": 130 if legend else 100, "b": figure.layout.margin.b + 10},
        title={"yref": "container", "y": 1 - 22 / height, "yanchor": "top"},
        showlegend=legend,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            # In pixels from the top: below the subtitle whatever the figure's height.
            "yref": "container",
            "y": 1 - 66 / height,
            "yanchor": "top",
        },
    )


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
    entry_width: int | None = None,
) -> go.Figure:
    """Stack title, subtitle, menu and legend above the panels and a footnote beneath, none upon another.

    Parameters
    ----------
    figure : Figure
        With its traces: those of the legend decide how many lines it takes.
    title, subtitle, footnote : str
        The subtitle is one line; the footnote is wrapped.
    body : int
        Height of the panels, pixels.
    menu : bool
        Leave room for :func:`offer_choices`.
    below, head, left : int
        Pixels for the axis beneath the panels, for what stands between legend and panels, and on the left.
    entry_width : int, optional
        Pixels of each entry of the legend, so that they stand in columns; as wide as each needs by default.

    Returns
    -------
    Figure
        The same.
    """
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is True]
    lines = _count_lines(names, entry_width, _WIDTH - left - _RIGHT)
    above_legend = _TITLE + _SUBTITLE * bool(subtitle) + _MENU * menu
    top = above_legend + lines * _LEGEND_LINE + head
    notes = wrap_note(footnote) if footnote else []
    bottom = below + 17 * len(notes) + (12 if notes else 0)
    above_menu = top - _TITLE - _SUBTITLE * bool(subtitle)
    if menu:
        body = max(body, math.ceil(above_menu / _HIGHEST_MENU))
    height = top + body + bottom
    style_figure(figure, title=f"{title}<br><sup>{subtitle}</sup>" if subtitle else title, height=height)
    figure.update_layout(
        margin={"t": top, "b": bottom, "l": left},
        title={"yref": "container", "y": 1 - 20 / height, "yanchor": "top"},
        showlegend=bool(names),
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "yref": "container",
            "y": 1 - above_legend / height,
            "yanchor": "top",
            "itemsizing": "constant",
            "traceorder": "normal",
            "tracegroupgap": 0,
            **({"entrywidth": entry_width} if entry_width else {}),
        },
    )
    if notes:
        _write_beneath(figure, notes, below + 4)
    if menu:
        # The place for the menu, in the panels' own coordinates: menus know no others.
        figure.update_layout(meta={"menu_y": 1 + above_menu / body})
    return figure


def count_columns(groups: int, panels: int) -> int:
    """Return how many panels stand side by side so that the names of this many groups fit beneath each."""
    return min(panels, 3 if groups < 4 else 2 if groups < 6 else 1)


def title_lowest(figure: go.Figure, title: str, panels: int, columns: int) -> None:
    """Write the x axis's title under the lowest panel of every column, where the last row is not full too."""
    rows = -(-panels // columns)
    for column in range(1, min(columns, panels) + 1):
        lowest = rows if (rows - 1) * columns + column <= panels else rows - 1
        figure.update_xaxes(title=title, row=lowest, col=column)


def offer_choices(figures: Mapping[str, go.Figure]) -> go.Figure:
    """Return one figure with a menu of several, which needs no kernel: the first is shown.

    Parameters
    ----------
    figures : mapping of str to Figure
        What the menu says, and the figure; all on the same grid of panels, framed with room for a menu.

    Returns
    -------
    Figure
        The only one, where there is one.
    """
    names, parts = list(figures), list(figures.values())
    if len(parts) == 1:
        return parts[0]
    layouts = [_flatten(part.layout.to_plotly_json()) for part in parts]
    differing = [
        key
        for key in dict.fromkeys(key for layout in layouts for key in layout)
        if any(layout.get(key) != layouts[0].get(key) for layout in layouts)
    ]
    total = sum(len(part.data) for part in parts)
    figure = go.Figure(parts[0])
    for part in parts[1:]:
        figure.add_traces([trace.update(visible=False) for trace in go.Figure(part).data])
    buttons, start = [], 0
    for name, part, layout in zip(names, parts, layouts, strict=True):
        shown = [start <= place < start + len(part.data) for place in range(total)]
        # None takes away what another choice has set.
        changes = {key: layout.get(key, [] if key in ("annotations", "shapes") else None) for key in differing}
        buttons.append({"label": name, "method": "update", "args": [{"visible": shown}, changes]})
        start += len(part.data)
    figure.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "x": 0.0,
                "xanchor": "left",
                "y": parts[0].layout.meta["menu_y"],
                "yanchor": "top",
                "pad": {"t": 0, "b": 0},
                "bgcolor": "white",
            }
        ]
    )
    return figure


def put_first(names: Sequence[str], first: str | None) -> list[str]:
    """Return every name once, in order, `first` before the others."""
    found = list(dict.fromkeys(names))
    return found if first is None else [name for name in found if name == first] + [n for n in found if n != first]


def name_not_compared(figure: go.Figure, part: pd.DataFrame) -> None:
    """Name beneath the figure what has no gap, so that an absent mark is not read as no difference."""
    text = list_not_compared(part)
    if text:
        figure.update_layout(height=figure.layout.height + 50, margin={"b": 120})
        add_footnote(figure, text)


def list_not_compared(part: pd.DataFrame) -> str:
    """Return a sentence that names the rows of a disparity table without a gap; empty where all have one."""
    absent = part[part["gap"].isna()]
    if absent.empty:
        return ""
    every = set(zip(part["model"], part["organ"], strict=True))
    names = []
    for attribute, rows in absent.groupby("attribute", sort=False):
        missing = list(dict.fromkeys(zip(rows["model"], rows["organ"], strict=True)))
        name = name_for_people(str(attribute))
        if set(missing) == every:
            names.append(name)
        else:
            names.append(f"{name} ({', '.join(f'{model} on {name_organ(organ)}' for model, organ in missing)})")
    return f"Not compared, too few people: {'; '.join(names)}"


def add_footnote(figure: go.Figure, text: str) -> None:
    """Write a text beneath the lowest panel's axis title, in at most four lines."""
    _write_beneath(figure, wrap_note(text), 58)


def wrap_note(text: str) -> list[str]:
    """Return a footnote's lines: at most four, the last one "…" where that is not enough."""
    lines = textwrap.wrap(text, 130)
    return lines if len(lines) <= 4 else [*lines[:3], "…"]


def _write_beneath(figure: go.Figure, lines: Sequence[str], pixels: int) -> None:
    figure.add_annotation(
        text="<br>".join(lines),
        x=0,
        y=0,
        yshift=-pixels,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="top",
        align="left",
        showarrow=False,
        font={"size": 12, "color": QUIET},
    )


def draw_nothing(title: str, why: str) -> go.Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = style_figure(go.Figure(), title=title, height=180)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=why, x=0, y=0.5, xref="paper", yref="paper", xanchor="left", showarrow=False)
    return figure


def make_bars(value: pd.Series, low: pd.Series, high: pd.Series, colour: str | None = None) -> dict[str, object]:
    """Return plotly's error bars from an interval's ends."""
    bars: dict[str, object] = {
        "type": "data",
        "symmetric": False,
        "array": (high - value).to_numpy(),
        "arrayminus": (value - low).to_numpy(),
        "thickness": 1.6,
        "width": 3,
    }
    return bars if colour is None else bars | {"color": colour}


def spread_rows(count: int) -> list[float]:
    """Return offsets that keep `count` marks of one row apart."""
    return [0.0] if count == 1 else list(np.linspace(-0.3, 0.3, count))


def shift_sideways(numbers: np.ndarray) -> np.ndarray:
    """Return a sideways shift per scan number, always the same (multiples of the golden ratio spread evenly)."""
    return (np.asarray(numbers, float) * 0.6180339887 % 1.0 - 0.5) * 0.5


def mark_many(names: Sequence[str]) -> dict[str, str]:
    """Return a marker symbol per name: filled ones, then the same open, for up to fourteen names."""
    symbols = [*SYMBOLS, *(f"{symbol}-open" for symbol in SYMBOLS)]
    return {name: symbols[place % len(symbols)] for place, name in enumerate(names)}


def name_person(number: int, scans: int) -> str:
    """Return a person's study-local name: never their own."""
    return f"scan {number:03d}" + (f" (mean of {scans} scans)" if scans > 1 else "")


def name_organ(organ: str) -> str:
    """Return an organ's key as words."""
    return "all organs" if organ == POOLED else name_for_people(organ)


def name_metric(metric: str) -> str:
    """Return a metric's name without its range and direction, as it stands inside a sentence."""
    return lower_first(METRIC_LABELS[metric].split(" (")[0])


def label_organ(rows: pd.DataFrame, organ: str) -> str:
    """Return an organ's name over the number of people compared."""
    found = rows.loc[rows["organ"] == organ, "n"]
    if found.empty:
        return f"{name_organ(organ)}<br>not compared"
    low, high = int(found.min()), int(found.max())
    return f"{name_organ(organ)}<br>n = {low if low == high else f'{low}–{high}'}"


def label_gap(metric: str, what: str = "gap in") -> str:
    """Return the title of an axis of gaps, with its unit."""
    return f"{what} {name_metric(metric)}" + (f" ({UNITS[metric]})" if metric in UNITS else "")


def lower_first(text: str) -> str:
    """Return a label with a small first letter, names (Dice, IoU) and numbers excepted."""
    return text if text.startswith(("Dice", "IoU")) or text[:1].isdigit() else text[:1].lower() + text[1:]


def wrap_label(label: str) -> str:
    """Break an axis title before its bracket."""
    return label.replace(" (", "<br>(")


def break_words(text: str, width: int) -> str:
    """Break a name into lines of about `width` characters, between words."""
    return "<br>".join(textwrap.wrap(text.replace("_", "_\u200b"), width, break_long_words=False)) or text


def format_value(value: float, metric: str) -> str:
    """Return a value of a metric as it is read aloud: ``0.034`` for Dice, ``1.2 mm`` for a distance."""
    if value is None or not np.isfinite(value):
        return "–"
    unit = UNITS.get(metric)
    digits = 3 if unit is None else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−") + (f" {unit}" if unit else "")


def format_range(low: float, high: float, metric: str) -> str:
    """Return an interval in a metric's unit, which is said once."""
    unit = UNITS.get(metric)
    first = format_value(low, metric)
    return f"{first.removesuffix(f' {unit}') if unit else first} to {format_value(high, metric)}"


def format_interval(low: float, high: float) -> str:
    """Return an interval of any unit in three digits."""
    return f"{low:.3g} to {high:.3g}"


def format_p(value: float) -> str:
    """Return a p-value with its sign of comparison."""
    if value is None or not np.isfinite(value):
        return "not tested"
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _count_lines(names: Sequence[str], entry_width: int | None, width: int) -> int:
    """Estimate how many lines a horizontal legend takes: one if all fit, else in columns as wide as the widest."""
    if not names:
        return 0
    # Symbol and spaces take 40 pixels, a letter 6.5; tags are not seen.
    wide = [40 + (entry_width or 6.5 * len(re.sub(r"<[^>]*>", "", name))) for name in names]
    if sum(wide) <= width:
        return 1
    columns = max(1, int(width // max(wide)))
    return -(-len(names) // columns)


def _flatten(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return a layout's leaves by dotted path, as plotly's ``update`` takes them; lists are leaves."""
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        if key in ("template", "meta"):
            continue
        if isinstance(item, Mapping):
            leaves |= _flatten(item, f"{path}{key}.")
        else:
            leaves[f"{path}{key}"] = list(item) if isinstance(item, tuple) else item
    return leaves
