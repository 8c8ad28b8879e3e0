"""Figures of who is studied."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.style import colour_groups, mark_groups, name_for_people, style_figure

# Pairs of attributes are drawn in rows of so many; each row takes so much, of it between rows for titles and labels.
_MOST_PAIRS_ABREAST = 3
_PAIR_HEIGHT_PX, _PAIR_SPACING_PX = 320, 110


def plot_flow(flow: pd.DataFrame) -> go.Figure:
    """Draw the exclusion flow: scans found, out by reason, included.

    Parameters
    ----------
    flow : DataFrame
        ``step`` and ``scans``, in order, from :class:`helpers.cohort.Cohort`.
    """
    last = len(flow) - 1
    kinds = ["absolute" if place == 0 else "total" if place == last else "relative" for place in range(len(flow))]
    values = [count if place in (0, last) else -count for place, count in enumerate(flow["scans"])]
    figure = go.Figure(
        go.Waterfall(
            y=[_wrap(step) for step in flow["step"]], x=values, measure=kinds, orientation="h",
            text=[f"{count}" for count in flow["scans"]], textposition="auto",
            decreasing={"marker": {"color": "#D55E00"}}, increasing={"marker": {"color": "#0072B2"}}, totals={"marker": {"color": "#0072B2"}},
            hovertemplate="%{y}: %{text} scans<extra></extra>", showlegend=False,
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True, title="step")
    figure.update_xaxes(title="scans", rangemode="tozero")
    return style_figure(figure, title="Scans found, left out by reason, and included", height=170 + 46 * len(flow))


def plot_distributions(table: pd.DataFrame) -> go.Figure:
    """Draw age and BMI of the included people by sex, each person (first scan) once as a dot beside the box."""
    people = table[table["included"]].drop_duplicates("subject")
    column = "group_sex" if "group_sex" in people else None
    groups = (
        [group for group in people[column].cat.categories if (people[column] == group).any()]
        if column
        else ["everyone"]
    )
    colours, symbols = colour_groups(groups), mark_groups(groups)
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    for place, (name, title) in enumerate((("age", "age (years)"), ("bmi", "body-mass index (kg/m²)")), start=1):
        for group in groups:
            members = people[people[column] == group] if column else people
            values = members[name].dropna()
            figure.add_trace(
                go.Box(
                    y=values, name=f"{group}<br>n = {len(values)}", boxpoints="all", jitter=0.5, pointpos=0, marker={"color": colours[group], "symbol": symbols[group], "size": 6, "opacity": 0.7},
                    line={"color": colours[group]}, fillcolor="rgba(0,0,0,0)", showlegend=False,
                    text=[f"scan {number:03d}" for number in members.loc[values.index, "number"]], hovertemplate="%{text}: %{y}<extra></extra>",
                ),
                row=1, col=place,
            )  # fmt: skip
        figure.update_yaxes(title=title, row=1, col=place)
    return style_figure(figure, title="Age and BMI of the people studied, by sex")


def plot_missingness(missing: pd.DataFrame) -> go.Figure:
    """Draw, per attribute, how many included scans have a group, a value without a group, or no value."""
    figure = go.Figure()
    for column, colour, pattern in (
        ("in a group", "#0072B2", ""),
        ("value without a group", "#E69F00", "/"),
        ("missing", "#D55E00", "x"),
    ):
        figure.add_trace(
            go.Bar(
                y=[name_for_people(name) for name in missing["attribute"]], x=missing[column], name=column, orientation="h",
                marker={"color": colour, "pattern": {"shape": pattern}}, text=[str(count) if count else "" for count in missing[column]],
                hovertemplate="%{y}, " + column + ": %{x} scans<extra></extra>",
            )
        )  # fmt: skip
    figure.update_layout(barmode="stack", legend={"orientation": "h", "y": -0.35})
    figure.update_xaxes(title="included scans")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return style_figure(figure, title="What is recorded, and what is missing", height=180 + 50 * len(missing))


def plot_overlap(overlaps: pd.DataFrame) -> go.Figure:
    """Draw how many people are in each pair of groups, with the counts written in the cells."""
    pairs = list(overlaps[["attribute_a", "attribute_b"]].drop_duplicates().itertuples(index=False))
    if not pairs:
        figure = go.Figure()
        figure.add_annotation(
            text="one attribute alone: there is nothing to overlap",
            showarrow=False,
            x=0.5,
            y=0.5,
            xref="paper",
            yref="paper",
        )
        return style_figure(figure, title="People in each pair of groups", height=200)
    columns = min(len(pairs), _MOST_PAIRS_ABREAST)
    rows = -(-len(pairs) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, horizontal_spacing=0.15, vertical_spacing=_PAIR_SPACING_PX / (_PAIR_HEIGHT_PX * rows)
    )
    largest = int(overlaps["n"].max())
    for place, (first, second) in enumerate(pairs):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        part = overlaps[(overlaps["attribute_a"] == first) & (overlaps["attribute_b"] == second)]
        grid = part.pivot_table(index="group_b", columns="group_a", values="n", sort=False)
        figure.add_trace(
            go.Heatmap(
                z=grid.to_numpy(), x=[str(name) for name in grid.columns], y=[str(name) for name in grid.index], text=grid.to_numpy(), texttemplate="%{text:.0f}",
                colorscale=[[0, "#FFFFFF"], [1, "#5BA3D0"]], zmin=0, zmax=max(largest, 1), showscale=False, xgap=2, ygap=2,
                hovertemplate=f"{name_for_people(first)}: %{{x}}<br>{name_for_people(second)}: %{{y}}<br>%{{z:.0f}} people<extra></extra>",
            ),
            **at,
        )  # fmt: skip
        figure.update_xaxes(title=name_for_people(first), type="category", **at)
        figure.update_yaxes(title=name_for_people(second), type="category", automargin=True, **at)
    return style_figure(figure, title="People in each pair of groups", height=20 + _PAIR_HEIGHT_PX * rows)


def _wrap(text: str, width: int = 44) -> str:
    """Break a long label into lines of about `width` characters."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join([*lines, line])
