"""How good a model is, and how far apart its groups, for the work it asks of a person."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import (
    MARGIN_COLOUR,
    POINTED_AT,
    ZERO_LINE,
    draw_nothing,
    make_bars,
    make_grid,
    offer_choices,
)
from helpers.figures.rows import label_gap
from helpers.figures.style import colour_models, mark_groups
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import format_value, name_for_people, state_estimate


def plot_effort(effort: pd.DataFrame, metric: str) -> go.Figure:
    """Plot mean and gap over the prompts a person would draw per scan; a menu offers attributes.

    `effort` is ``fairness/effort.csv``. A mark per model; the bar is the 95 % confidence interval
    of the gap, the shaded band the margin.
    """
    title = f"Effort: {find_measure(metric).name} and its gap over the prompts drawn per scan"
    points = effort[(effort["metric"] == metric) & effort["drawn"].notna() & effort["gap"].notna()]
    if points["drawn"].nunique() < 2:
        return draw_nothing(title, "All models ask the same work of a person: there is nothing to compare.")
    attributes = list(dict.fromkeys(points["attribute"]))
    return offer_choices({name_for_people(name): _draw(points, name, metric, title, attributes) for name in attributes})


def _draw(points: pd.DataFrame, attribute: str, metric: str, title: str, attributes: list[str]) -> go.Figure:
    part, measure = points[points["attribute"] == attribute].sort_values("drawn"), find_measure(metric)
    models = list(dict.fromkeys(points["model"]))
    colours, symbols = colour_models(models), mark_groups(models)
    grid = make_grid(
        ["how good on the whole", "how far apart the groups are"], 220, columns=2, across=0.1, shared_yaxes=False
    )
    for row in part.itertuples(index=False):
        told = (
            f"<b>{row.model}</b>, {row.drawn:.1f} prompts a scan<br>mean {format_value(row.mean, metric)}, "
            f"gap {state_estimate(row.gap, row.gap_low, row.gap_high, metric)}"
        )
        look = {"color": colours[row.model], "symbol": symbols[row.model], "size": 12}
        for place, value in zip(grid.places, (row.mean, row.gap), strict=True):
            first = place == grid.places[0]
            gap, low, high = (pd.Series([one]) for one in (row.gap, row.gap_low, row.gap_high))
            bars = None if first else make_bars(gap, low, high, colours[row.model])
            grid.figure.add_trace(
                go.Scatter(
                    x=[row.drawn], y=[value], error_y=bars, mode="markers", marker=look, name=row.model,
                    legendgroup=row.model, showlegend=first, customdata=[told], hovertemplate=POINTED_AT,
                ),
                **place,
            )  # fmt: skip
    for margin in part["margin"].dropna()[:1]:
        grid.figure.add_hrect(
            y0=-margin, y1=margin, fillcolor=MARGIN_COLOUR, line_width=0, layer="below", **grid.places[1]
        )
    grid.figure.add_hline(y=0, line=ZERO_LINE, **grid.places[1])
    most = float(points["drawn"].max())
    ends = [-0.06 * most, 1.06 * most]
    grid.figure.update_xaxes(title="prompts a person would draw per scan", range=ends, zeroline=False)
    grid.figure.update_yaxes(title=f"mean {measure.name}<br>({measure.remark})", zeroline=False, **grid.places[0])
    grid.figure.update_yaxes(title=label_gap(metric), zeroline=False, **grid.places[1])
    return grid.frame(
        title=title,
        subtitle=f"by {name_for_people(attribute)}; bars: 95 % confidence intervals of the gap; shaded: within the "
        f"margin",
        menu=len(attributes) > 1,
    )
