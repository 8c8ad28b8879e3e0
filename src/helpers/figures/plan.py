"""The curve of a plan: the power over the people per group."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from helpers.fairness.planning import trace_power
from helpers.figures.panels import ZERO_LINE, draw_nothing
from helpers.figures.style import PALETTE, style_figure
from helpers.vocabulary.words import format_value

_ASKED = {
    "difference": "a difference of {} is found",
    "equivalence": "groups that do not differ are found to be within {}",
}


def plot_plan(plan: pd.DataFrame, metric: str) -> go.Figure:
    """Plot the chance to answer each question over the people per group.

    `plan` has rows of :func:`helpers.fairness.plan_groups` with a number of people, one model,
    organ and attribute.
    """
    title = "How many people a margin needs"
    rows = plan[plan["people_per_group"].notna()].to_dict("records")
    if not rows:
        return draw_nothing(title, "No number of people up to a million reaches this power.")
    figure = style_figure(go.Figure(), title=title, height=480)
    for row, colour in zip(rows, PALETTE, strict=False):
        curve = trace_power(row)
        name = _ASKED[row["question"]].format(format_value(row["margin"], metric))
        figure.add_trace(
            go.Scatter(
                x=curve["n"], y=curve["power"], name=f"{name}: {row['people_per_group']} per group",
                line={"color": colour, "width": 3},
                hovertemplate="%{x} people in each group: %{y:.0%}<extra></extra>",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[row["people_per_group"]], y=[row["power"]], mode="markers", showlegend=False, hoverinfo="skip",
                marker={"color": colour, "size": 11},
            )
        )  # fmt: skip
    figure.add_hline(rows[0]["power"], line=ZERO_LINE | {"dash": "dot"})
    figure.update_layout(legend={"orientation": "h", "y": -0.2, "x": 0}, margin={"b": 110})
    figure.update_xaxes(title="people in each group", rangemode="tozero")
    figure.update_yaxes(title="chance to get the answer", tickformat=".0%", range=[0, 1.02])
    return figure
