"""The exploration's figure: everyone's score against one attribute, to be brushed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import (
    QUIET,
    break_words,
    draw_nothing,
    format_range,
    format_value,
    name_person,
    shift_sideways,
    wrap_label,
    wrap_note,
)
from helpers.figures.style import METRIC_LABELS, PALETTE, SYMBOLS, colour_groups, style_figure

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
        One row per person: ``number``, ``scans``, ``score`` (the metric, or what is left of it with covariates held equal), ``place`` (a number, or
        a group: an ordered category) and ``colour`` (one of `colours` or :data:`OTHERS`; empty text where nothing is coloured).
    metric : str
        A key of :data:`helpers.figures.style.METRIC_LABELS`.
    across : str
        Title of the x axis, with its unit.
    colours : sequence of str
        Names in their order, at most :data:`MOST_COLOURS`.
    summary : DataFrame, optional
        For a number a curve: ``place, estimate, low, high`` in order of place; for groups their means: the same with one row per group.
    adjusted_for : sequence of str
        What is held equal, in words.
    title, footnote : str
    selected : sequence of int
        Numbers of the people who are marked; nobody means everybody.

    Returns
    -------
    Figure
        The first of a dot's ``customdata`` is the person's number; the summary has no ``customdata``.
    """
    grouped = isinstance(points["place"].dtype, pd.CategoricalDtype)
    names = [*colours, OTHERS] if colours else [""]
    shades, symbols = _look_up(colours)
    held = f"<br><sup>held equal: {', '.join(adjusted_for)}</sup>" if adjusted_for else ""
    if points.empty:
        return draw_nothing(title, " ".join(["There is nobody to draw.", footnote]).strip())
    figure = go.Figure()
    for name in names:
        rows = points[points["colour"] == name]
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=_spread(rows) if grouped else rows["place"].to_numpy(float),
                y=rows["score"].to_numpy(float),
                mode="markers",
                name=f"{break_words(name, 24)} (n = {len(rows)})" if name else "people",
                showlegend=bool(name),
                marker={
                    "color": shades.get(name, PALETTE[0]),
                    "symbol": symbols.get(name, SYMBOLS[0]),
                    "size": 9,
                    "opacity": 0.8,
                    "line": {"width": 0.5, "color": "white"},
                },
                selected={"marker": {"opacity": 1.0, "size": 11}},
                unselected={"marker": {"opacity": 0.2}},
                selectedpoints=np.flatnonzero(rows["number"].isin(selected)).tolist() if len(selected) else None,
                customdata=np.column_stack([rows["number"].to_numpy(int), rows["scans"].to_numpy(int)]),
                text=[_describe(row, metric, grouped=grouped) for row in rows.itertuples(index=False)],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.add_traces(_draw_summary(summary, metric, points["place"], grouped=grouped))
    if grouped:
        counts = points["place"].value_counts(sort=False)
        figure.update_xaxes(
            tickmode="array",
            tickvals=list(range(len(counts))),
            ticktext=[f"{break_words(str(name), 16)}<br>n = {count}" for name, count in counts.items()],
            range=[-0.6, len(counts) - 0.4],
            showgrid=False,
        )
    lines = wrap_note(footnote) if footnote else []
    style_figure(figure, title=f"{title}{held}", height=480 + 17 * len(lines))
    figure.update_xaxes(title=across, zeroline=False)
    axis = wrap_label(METRIC_LABELS[metric])
    if adjusted_for:  # what is left of a score can lie beyond the bounds of the metric: they are not named
        axis = f"{METRIC_LABELS[metric].split(' (')[0]}, adjusted<br>(others held equal)"
    figure.update_yaxes(title=axis, zeroline=False, automargin=True)
    figure.update_layout(
        dragmode="select",
        hovermode="closest",
        selectdirection="any",
        margin={"t": 96, "b": 70 + 17 * len(lines), "l": 80, "r": 24},
        title={"yref": "container", "y": 0.97, "yanchor": "top"},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.0,
            "yanchor": "bottom",
            "itemsizing": "constant",
            "traceorder": "normal",
        },
    )
    if lines:
        figure.add_annotation(
            text="<br>".join(lines),
            x=0,
            y=0,
            yshift=-72,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="top",
            align="left",
            showarrow=False,
            font={"size": 12, "color": QUIET},
        )
    return figure


def _look_up(colours: Sequence[str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return colour and symbol by name, the quiet ones for whoever has no name of their own."""
    shades = colour_groups(colours) | {OTHERS: _QUIET_COLOUR}
    symbols = {name: SYMBOLS[place % len(SYMBOLS)] for place, name in enumerate(colours)} | {OTHERS: _QUIET_SYMBOL}
    return shades, symbols


def _spread(rows: pd.DataFrame) -> np.ndarray:
    """Return where people of a group stand side by side: by their number, so always at the same place."""
    return rows["place"].cat.codes.to_numpy(float) + 1.2 * shift_sideways(rows["number"].to_numpy())


def _describe(row: Any, metric: str, *, grouped: bool) -> str:
    place = row.place if grouped else f"{row.place:.4g}"
    parts = [name_person(row.number, row.scans), f"{place}", format_value(row.score, metric)]
    return "<br>".join([*parts, row.colour] if row.colour and row.colour != row.place else parts)


def _draw_summary(summary: pd.DataFrame | None, metric: str, places: pd.Series, *, grouped: bool) -> list[go.Scatter]:
    """Return the traces of a curve with its band, or of the groups' means with their intervals."""
    if summary is None or summary.empty:
        return []
    label = "mean and its 95 % interval"
    if not grouped:
        edge = {"mode": "lines", "line": {"width": 0, "color": _SUMMARY}, "hoverinfo": "skip", "showlegend": False}
        return [
            go.Scatter(x=summary["place"], y=summary["low"], **edge),
            go.Scatter(x=summary["place"], y=summary["high"], fill="tonexty", fillcolor="rgba(34, 34, 34, 0.12)", **edge),
            go.Scatter(
                x=summary["place"], y=summary["estimate"], mode="lines", line={"width": 2.5, "color": _SUMMARY}, name=label,
                hoverinfo="skip", showlegend=True,
            ),
        ]  # fmt: skip
    names = list(places.cat.categories)
    words = [
        f"{row.place}: mean {format_value(row.estimate, metric)} ({format_range(row.low, row.high, metric)})"
        for row in summary.itertuples(index=False)
    ]
    return [
        go.Scatter(
            x=[names.index(name) for name in summary["place"]], y=summary["estimate"], mode="markers", name=label, showlegend=True,
            marker={"symbol": "diamond", "size": 11, "color": _SUMMARY, "line": {"width": 1, "color": "white"}},
            error_y={
                "type": "data", "symmetric": False, "array": (summary["high"] - summary["estimate"]).to_numpy(float),
                "arrayminus": (summary["estimate"] - summary["low"]).to_numpy(float), "thickness": 2, "width": 6, "color": _SUMMARY,
            },
            text=words, hovertemplate="%{text}<extra></extra>", unselected={"marker": {"opacity": 1.0}},
        )
    ]  # fmt: skip
