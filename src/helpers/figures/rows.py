"""Estimates with their intervals in rows: a panel per attribute, a row per organ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import (
    MARGIN_COLOUR,
    POINTED_AT,
    QUIET,
    ZERO_LINE,
    PanelGrid,
    is_narrow,
    list_ticks,
    make_bars,
    make_grid,
)
from helpers.figures.style import colour_groups, colour_models, mark_groups
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import name_for_people, name_organ


@dataclass(frozen=True)
class Mark:
    """A kind of mark.

    `name` stands in the legend; `value` and `ends` are the columns of an estimate and its interval;
    `only` says, by column, which rows of the table it is drawn of (all by default).
    """

    name: str
    value: str
    ends: tuple[str, str] | None
    colour: str
    symbol: str
    only: Mapping[str, str] = field(default_factory=dict)


def draw_rows(
    table: pd.DataFrame,
    marks: Mapping[str, Sequence[Mark]],
    rows: Sequence[str],
    explain: Callable[[dict[str, Any], Mark], str],
    *,
    counted: bool = True,
    zero: bool = True,
    verdict: Callable[[dict[str, Any]], tuple[bool, str]] | None = None,
) -> PanelGrid:
    """Draw a panel per attribute: in every row, one below the other, a mark of each kind.

    The table has columns ``attribute``, ``row`` (what stands beside it), ``n`` and those of the
    marks (attribute → kinds of marks); where there is a ``margin``, the band within it is shaded.
    `rows` run from top to bottom; `explain` gives the text for who points at a mark; `counted`
    writes the number of people beside each row, `zero` draws a line at zero. `verdict` says of a
    row whether its marks are filled (a difference was found) or hollow, and which sign stands at
    the right of them.
    """
    most = max(map(len, marks.values()))
    titles, room = [name_for_people(attribute) for attribute in marks], 26 if is_narrow() else 0
    grid = make_grid(titles, len(rows) * (max(34, 11 * most) + room))
    figure, named = grid.figure, set()
    notes: list[dict[str, Any]] = []  # added at once: plotly checks all of them for each that is added
    for (attribute, kinds), place in zip(marks.items(), grid.places, strict=True):
        here = table[table["attribute"] == attribute]
        across, down = _name_axes(figure, place)
        for mark, offset in zip(kinds, spread_rows(len(kinds)), strict=True):
            chosen = here[here[mark.value].notna()]
            for column, value in mark.only.items():
                chosen = chosen[chosen[column] == value]
            if chosen.empty:
                continue
            x, colour = chosen[mark.value], mark.colour
            bars = make_bars(x, chosen[mark.ends[0]], chosen[mark.ends[1]], colour) if mark.ends else None
            records = chosen.to_dict("records")
            judged = [verdict(row) for row in records] if verdict else []
            symbol = [mark.symbol if filled else f"{mark.symbol}-open" for filled, _ in judged] or mark.symbol
            marker = {"color": colour, "symbol": symbol, "size": 7.5, "line": {"width": 1.5, "color": colour}}
            told = [explain(row, mark) for row in records]
            look = {"mode": "markers", "marker": marker, "customdata": told, "hovertemplate": POINTED_AT}
            legend = {"name": mark.name, "legendgroup": mark.name, "showlegend": mark.name not in named}
            y = [rows.index(row) + offset for row in chosen["row"]]
            figure.add_trace(go.Scatter(x=x, y=y, error_x=bars, **look, **legend), **place)
            named.add(mark.name)
            for height, (filled, text) in zip(y, judged, strict=False):
                if not text:
                    continue
                font = {"size": 12, "color": "#222222" if filled else QUIET}
                notes.append(
                    {"text": f"<b>{text}</b>" if filled else text, "x": 1, "xref": f"{across} domain", "y": height,
                     "yref": down, "xanchor": "left", "xshift": 2, "showarrow": False, "font": font}
                )  # fmt: skip
        for margin in here["margin"].dropna()[:1] if "margin" in here else ():
            figure.add_vrect(x0=-margin, x1=margin, fillcolor=MARGIN_COLOUR, line_width=0, layer="below", **place)
        if zero:
            figure.add_vline(x=0, line=ZERO_LINE, **place)
        labels = [label_row(table, row) for row in rows] if counted else list(rows)
        figure.update_yaxes(list_ticks(labels, down=True, room=0.55), **place)
        if is_narrow():
            notes += _write_above(figure, labels, place)
    figure.layout.annotations = (*figure.layout.annotations, *notes)
    figure.update_xaxes(zeroline=False, showticklabels=True, nticks=5)
    return replace(grid, names_above=is_narrow())


def _name_axes(figure: go.Figure, place: Mapping[str, int]) -> tuple[str, str]:
    axes = figure.get_subplot(**place)
    return axes.xaxis.plotly_name.replace("axis", ""), axes.yaxis.plotly_name.replace("axis", "")


def _write_above(figure: go.Figure, labels: Sequence[str], place: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return annotations that name a panel's rows above them, instead of beside them."""
    figure.update_yaxes(showticklabels=False, automargin=False, **place)
    across, down = _name_axes(figure, place)
    return [
        {"text": label.replace("<br>", ", "), "x": 0, "y": row - 0.44, "xref": f"{across} domain", "yref": down,
         "xanchor": "left", "showarrow": False, "font": {"size": 12}, "bgcolor": "rgba(255, 255, 255, 0.75)",
         "borderpad": 0}
        for row, label in enumerate(labels)
    ]  # fmt: skip


def list_marks(value: str, ends: tuple[str, str], kinds: Mapping[str, Mapping[str, str]]) -> list[Mark]:
    """Return a mark of its own colour and symbol for each model or kind: name → its rows."""
    colours, symbols = colour_models(list(kinds)), mark_groups(list(kinds))
    return [Mark(name, value, ends, colours[name], symbols[name], only) for name, only in kinds.items()]


def list_group_marks(table: pd.DataFrame) -> list[Mark]:
    """Return a mark per group of one attribute's rows, its number of people in the legend."""
    attribute = name_for_people(str(table["attribute"].iloc[0]))
    people = {name: table.loc[(table["group"] == name) & table["mean"].notna(), "n"] for name in table["group"]}
    marks = list_marks("mean", ("ci_low", "ci_high"), {name: {"group": name} for name in people})
    counts = {name: f", {count_people(numbers)}" if len(numbers) else "" for name, numbers in people.items()}
    colours = colour_groups(list(people))
    return [
        replace(mark, name=f"{attribute}: {mark.name}{counts[mark.name]}", colour=colours[mark.name]) for mark in marks
    ]


def spread_rows(count: int) -> list[float]:
    """Return offsets that keep `count` marks of a row apart, nearer to it than to the next."""
    return [0.0] if count == 1 else list(np.linspace(-0.27, 0.27, count))


def label_row(table: pd.DataFrame, row: str) -> str:
    """Return a row's name over the number of people compared."""
    found = table.loc[table["row"] == row, "n"]
    return f"{row}<br>{count_people(found) if len(found) else 'not compared'}"


def count_people(numbers: pd.Series) -> str:
    """Return ``n = 24``, or ``n = 22–24``."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"n = {low}" if low == high else f"n = {low}–{high}"


def label_gap(metric: str, what: str = "gap in") -> str:
    """Return the title of an axis of gaps, with its unit."""
    measure = find_measure(metric)
    return f"{what} {measure.name}" + (f" ({measure.unit})" if measure.unit else "")


def list_not_compared(part: pd.DataFrame) -> str:
    """Return a sentence that names the comparisons without a gap; empty where all have one."""
    absent = part[part["gap"].isna()]
    every = set(zip(part["model"], part["organ"], strict=True))
    names = []
    for attribute, rows in absent.groupby("attribute", sort=False):
        missing = dict.fromkeys(zip(rows["model"], rows["organ"], strict=True))
        name = name_for_people(str(attribute))
        told = ", ".join(f"{model} on {name_organ(organ)}" for model, organ in missing)
        names.append(name if set(missing) == every else f"{name} ({told})")
    return f"Not compared, too few people: {'; '.join(names)}" if names else ""
