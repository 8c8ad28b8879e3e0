"""The exploration's figure: everyone's score against one attribute, to be brushed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import (
    LEGEND,
    break_words,
    draw_nothing,
    list_ticks,
    make_bars,
    name_person,
    shift_sideways,
    title_measure,
    wrap_note,
    write_beneath,
)
from helpers.figures.style import PALETTE, SYMBOLS, colour_groups, mark_groups, style_figure
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import format_value, state_estimate

MOST_COLOURS = len(PALETTE) - 1  # one more is for whoever has no colour of their own
OTHERS = "too few or unknown"
_QUIET_COLOUR, _QUIET_SYMBOL = "#8C8C8C", "circle-open"
_SUMMARY = "#222222"


def plot_people(
    points: pd.DataFrame,
    *,
    metric: str,
    across: str,
    colours: Sequence[str],
    summary: pd.DataFrame | None = None,
    adjusted_for: Sequence[str] = (),
    title: str,
    footnote: str = "",
    selected: Sequence[int] = (),
) -> go.Figure:
    """Plot everyone's score against one attribute, by colour and symbol.

    Parameters
    ----------
    points : DataFrame
        One row per person: ``number``, ``scans``, ``score`` (the metric, or what is left of it
        after adjustment), ``place`` (a number, or a group: an ordered category) and ``colour`` (one
        of `colours` or :data:`OTHERS`; empty text where nothing is coloured).
    across : str
        Title of the x axis, with its unit.
    colours : sequence of str
        Names in their order, at most :data:`MOST_COLOURS`.
    summary : DataFrame, optional
        For a number a curve: ``place, estimate, low, high`` in order of place; for groups their
        means: the same with one row per group.
    adjusted_for : sequence of str
        Covariates, in words.
    selected : sequence of int
        Numbers of the people who are marked; nobody means everybody.

    Returns
    -------
    Figure
        A dot's ``customdata`` begins with the person's number; the summary has none.
    """
    if points.empty:
        return draw_nothing(title, " ".join(["There is nobody to draw.", footnote]).strip())
    grouped = isinstance(points["place"].dtype, pd.CategoricalDtype)
    shades = colour_groups(colours) | {OTHERS: _QUIET_COLOUR}
    symbols = mark_groups(colours) | {OTHERS: _QUIET_SYMBOL}
    figure = go.Figure()
    for name in [*colours, OTHERS] if colours else [""]:
        rows = points[points["colour"] == name]
        if rows.empty:
            continue
        marker = {"color": shades.get(name, PALETTE[0]), "symbol": symbols.get(name, SYMBOLS[0])}
        figure.add_trace(
            go.Scatter(
                x=_spread(rows) if grouped else rows["place"].to_numpy(float),
                y=rows["score"].to_numpy(float),
                mode="markers",
                name=f"{break_words(name, 24)} (n = {len(rows)})" if name else "people",
                showlegend=bool(name),
                marker={**marker, "size": 9, "opacity": 0.8, "line": {"width": 0.5, "color": "white"}},
                selected={"marker": {"opacity": 1.0, "size": 11}},
                unselected={"marker": {"opacity": 0.2}},
                selectedpoints=np.flatnonzero(rows["number"].isin(selected)).tolist() if len(selected) else None,
                customdata=rows[["number", "scans"]].to_numpy(int),
                text=[_describe(row, metric, grouped=grouped) for row in rows.itertuples(index=False)],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    if summary is not None and not summary.empty:
        draw = _draw_means if grouped else _draw_curve
        figure.add_traces(draw(summary, points["place"], metric))
    if grouped:
        counts = points["place"].value_counts(sort=False)
        labels = [f"{break_words(str(name), 16)}<br>n = {count}" for name, count in counts.items()]
        figure.update_xaxes(list_ticks(labels), showgrid=False)
    lines = wrap_note(footnote)
    told = f"<br><sup>adjusted for: {', '.join(adjusted_for)}</sup>" if adjusted_for else ""
    style_figure(figure, title=f"{title}{told}", height=480 + 17 * len(lines))
    figure.update_xaxes(title=across, zeroline=False)
    measure = find_measure(metric)
    # What is left of a score can lie beyond the bounds of the metric: they are not named.
    axis = f"{measure.long_name},<br>adjusted for the others" if adjusted_for else title_measure(measure)
    figure.update_yaxes(title=axis, zeroline=False, automargin=True)
    figure.update_layout(
        dragmode="select",
        hovermode="closest",
        selectdirection="any",
        margin={"t": 96, "b": 70 + 17 * len(lines), "l": 80, "r": 24},
        title={"yref": "container", "y": 0.97, "yanchor": "top"},
        legend=LEGEND | {"y": 1.0, "yanchor": "bottom"},
    )
    write_beneath(figure, lines, 72)
    return figure


def _spread(rows: pd.DataFrame) -> np.ndarray:
    """Return where people of a group stand: by their number, so always at the same place."""
    return rows["place"].cat.codes.to_numpy(float) + 1.2 * shift_sideways(rows["number"].to_numpy())


def _describe(row: Any, metric: str, *, grouped: bool) -> str:
    place = row.place if grouped else f"{row.place:.4g}"
    parts = [name_person(row.number, row.scans), f"{place}", format_value(row.score, metric)]
    return "<br>".join([*parts, row.colour] if row.colour and row.colour != row.place else parts)


_SUMMARY_LABEL = {"name": "mean and its 95 % interval", "showlegend": True}


def _draw_curve(summary: pd.DataFrame, *_: object) -> list[go.Scatter]:
    """Return the traces of a curve with its band."""
    plain = {"x": summary["place"], "mode": "lines", "hoverinfo": "skip"}
    edge = {**plain, "line": {"width": 0, "color": _SUMMARY}, "showlegend": False}
    return [
        go.Scatter(y=summary["low"], **edge),
        go.Scatter(y=summary["high"], fill="tonexty", fillcolor="rgba(34, 34, 34, 0.12)", **edge),
        go.Scatter(y=summary["estimate"], line={"width": 2.5, "color": _SUMMARY}, **plain, **_SUMMARY_LABEL),
    ]


def _draw_means(summary: pd.DataFrame, places: pd.Series, metric: str) -> go.Scatter:
    """Return the groups' means with their intervals."""
    names = list(places.cat.categories)
    bars = make_bars(summary["estimate"], summary["low"], summary["high"], _SUMMARY)
    return go.Scatter(
        x=[names.index(name) for name in summary["place"]],
        y=summary["estimate"],
        mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": _SUMMARY, "line": {"width": 1, "color": "white"}},
        error_y=bars | {"thickness": 2, "width": 6},
        text=[
            f"{row.place}: mean {state_estimate(row.estimate, row.low, row.high, metric)}"
            for row in summary.itertuples(index=False)
        ],
        hovertemplate="%{text}<extra></extra>",
        unselected={"marker": {"opacity": 1.0}},
        **_SUMMARY_LABEL,
    )
