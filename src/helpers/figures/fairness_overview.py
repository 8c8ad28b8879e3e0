"""Every model and organ at one glance: how good on the whole, and how far apart the groups are."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from helpers.fairness.groups import average_groups
from helpers.figures.panels import (
    MARGIN_COLOUR,
    POINTED_AT,
    QUIET,
    ZERO_LINE,
    draw_nothing,
    frame_figure,
    make_bars,
    offer_choices,
)
from helpers.figures.rows import label_gap
from helpers.figures.style import SYMBOLS, colour_models
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import format_value, name_for_people, name_organ, state_estimate


def plot_gap_over_mean(groups: pd.DataFrame, disparity: pd.DataFrame, metric: str) -> go.Figure:
    """Plot the gap of every model and organ over its mean: a good model is accurate for everyone.

    `groups` and `disparity` are those of ``fairness/``; the mean over people is that of the groups
    shown, weighted by their people. A menu offers the attributes. A colour per model and a symbol
    per organ (open over seven organs); the bar is the 95 % confidence interval of the gap, the
    shaded band the margin, an arrow points to the better corner.
    """
    title = f"Accuracy and gaps: gap over mean of {find_measure(metric).name}"
    points = disparity[(disparity["metric"] == metric) & disparity["gap"].notna()].merge(
        average_groups(groups[groups["metric"] == metric]).drop(columns="n"),
        on=["model", "organ", "metric", "attribute"],
        how="left",
        validate="one_to_one",
    )
    attributes = list(dict.fromkeys(points["attribute"]))
    if points.empty:
        return draw_nothing(title, "No groups are large enough to be compared.")
    return offer_choices(
        {
            name_for_people(name): _draw_points(points, name, metric, title, menu=len(attributes) > 1)
            for name in attributes
        }
    )


def _draw_points(points: pd.DataFrame, attribute: str, metric: str, title: str, *, menu: bool) -> go.Figure:
    part, measure = points[points["attribute"] == attribute], find_measure(metric)
    models, organs = list(dict.fromkeys(points["model"])), list(dict.fromkeys(points["organ"]))
    colours, symbols = colour_models(models), _mark_many(organs)
    figure = go.Figure()
    for model in models:
        chosen, colour = part[part["model"] == model], colours[model]
        bars = make_bars(chosen["gap"], chosen["gap_low"], chosen["gap_high"], colour) | {"thickness": 1, "width": 2}
        line, shapes = {"width": 1.5, "color": colour}, [symbols[organ] for organ in chosen["organ"]]
        told = [
            f"<b>{model} · {name_organ(row.organ)}</b>, n = {row.n:.0f}<br>mean {format_value(row.overall, metric)}, "
            f"gap {state_estimate(row.gap, row.gap_low, row.gap_high, metric)}"
            f"<br>best: {row.best_group}, worst: {row.worst_group}"
            for row in chosen.itertuples(index=False)
        ]
        figure.add_trace(
            go.Scatter(
                x=chosen["overall"], y=chosen["gap"], error_y=bars, mode="markers",
                marker={"color": colour, "symbol": shapes, "size": 11, "line": line},
                customdata=told, hovertemplate=POINTED_AT, legendgroup=f"model {model}", showlegend=False,
            )
        )  # fmt: skip
    for name, colour, symbol in [
        *((model, colours[model], "line-ew") for model in models),
        *((name_organ(organ), "#555555", symbols[organ]) for organ in organs),
    ]:
        line = {"width": 5 if symbol == "line-ew" else 1.5, "color": colour}
        marker = {"color": colour, "symbol": symbol, "size": 12, "line": line}
        entry = {"mode": "markers", "name": name, "showlegend": True, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(x=[None], y=[None], marker=marker, **entry))
    for margin in part["margin"].dropna()[:1]:
        figure.add_hrect(y0=-margin, y1=margin, fillcolor=MARGIN_COLOUR, line_width=0, layer="below")
    figure.add_hline(y=0, line=ZERO_LINE)
    frame_figure(
        figure,
        title=title,
        subtitle=f"by {name_for_people(attribute)}; bars: 95 % confidence intervals of the gap; shaded: within the "
        f"margin",
        body=430,
        menu=menu,
        head=16,
        left=90,
    )
    low, high = float(points["gap_low"].min()), float(points["gap_high"].max())
    ends = [low - 0.12 * (high - low), high + 0.05 * (high - low)]
    figure.update_yaxes(title=label_gap(metric), zeroline=False, range=ends)
    figure.update_xaxes(title=f"mean over people: {measure.label}", zeroline=False)
    better, worse = ("right", "left") if measure.higher_is_better else ("left", "right")
    for text, side, y, edge in (
        (f"better: to the {better}, and near zero", better, 0.005, "bottom"),
        ("larger gap ↑", worse, 0.995, "top"),
    ):
        figure.add_annotation(
            text=text, x=float(side == "right"), y=y, xref="paper", yref="paper", xanchor=side, yanchor=edge,
            showarrow=False, font={"size": 13, "color": QUIET},
        )  # fmt: skip
    return figure


def _mark_many(names: list[str]) -> dict[str, str]:
    """Return a symbol per name, for up to fourteen: filled ones, then the same open."""
    symbols = [*SYMBOLS, *(f"{symbol}-open" for symbol in SYMBOLS)]
    return {name: symbols[place % len(symbols)] for place, name in enumerate(names)}
