"""Figures of who is studied."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.panels import THINNED_OUT, break_words, draw_nothing, make_grid, thin_out
from helpers.figures.style import PALETTE, colour_groups, mark_groups, style_figure
from helpers.vocabulary.words import name_for_people

_BLUE, _RED, _ORANGE = PALETTE[0], PALETTE[1], PALETTE[5]
_PAIR_HEIGHT_PX, _PAIR_SPACING_PX = 210, 110


def plot_flow(flow: pd.DataFrame) -> go.Figure:
    """Draw the exclusion flow: scans found, out by reason, included.

    `flow` has ``step`` and ``scans``, in order, from :class:`helpers.cohort.StudyCohort`.
    """
    counts, blue = list(flow["scans"]), {"marker": {"color": _BLUE}}
    figure = go.Figure(
        go.Waterfall(
            y=[break_words(step, 44) for step in flow["step"]], orientation="h",
            x=[counts[0], *(-count for count in counts[1:-1]), counts[-1]],
            measure=["absolute", *["relative"] * (len(flow) - 2), "total"],
            text=[f"{count}" for count in counts], textposition="auto", showlegend=False,
            decreasing={"marker": {"color": _RED}}, increasing=blue, totals=blue,
            hovertemplate="%{y}: %{text} scans<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True, title="step")
    figure.update_xaxes(title="scans", rangemode="tozero")
    return style_figure(figure, title="Scans found, left out by reason, and included", height=170 + 46 * len(flow))


def plot_distributions(table: pd.DataFrame) -> go.Figure:
    """Draw age and BMI of the included people by sex, each person (first scan) as a dot.

    In order of their values and without their numbers, by which other figures name them: who is in
    a group that is not shown there would be known with age and BMI.
    """
    people = table[table["included"]].drop_duplicates("subject")
    if "group_sex" in people:
        groups = [name for name in people["group_sex"].cat.categories if (people["group_sex"] == name).any()]
        members = {name: people[people["group_sex"] == name] for name in groups}
    else:
        members = {"everyone": people}
    colours, symbols = colour_groups(list(members)), mark_groups(list(members))
    figure, thinned = make_subplots(rows=1, cols=2, horizontal_spacing=0.12), False
    for column, (name, title) in enumerate((("age", "age (years)"), ("bmi", "body-mass index (kg/m²)")), start=1):
        for group, part in members.items():
            known = part[[name]].dropna().sort_values(name)
            drawn = thin_out(known, name)
            thinned |= len(drawn) < len(known)
            marker = {"color": colours[group], "symbol": symbols[group], "size": 6, "opacity": 0.7}
            figure.add_trace(
                go.Box(
                    y=drawn[name], name=f"{group}<br>n = {len(known)}", boxpoints="all", jitter=0.5, pointpos=0,
                    marker=marker, line={"color": colours[group]}, fillcolor="rgba(0,0,0,0)", showlegend=False,
                    hovertemplate="%{y}<extra></extra>",
                ),
                row=1, col=column,
            )  # fmt: skip
        figure.update_yaxes(title=title, row=1, col=column)
    told = f" ({THINNED_OUT})" if thinned else ""
    return style_figure(figure, title=f"Age and BMI of the people studied, by sex{told}")


def plot_missingness(missing: pd.DataFrame) -> go.Figure:
    """Draw how many included scans have a group, a value without a group, or no value."""
    figure = go.Figure()
    looks = {"in a group": (_BLUE, ""), "value without a group": (_ORANGE, "/"), "missing": (_RED, "x")}
    for column, (colour, pattern) in looks.items():
        figure.add_trace(
            go.Bar(
                y=[name_for_people(name) for name in missing["attribute"]], x=missing[column], name=column,
                orientation="h", marker={"color": colour, "pattern": {"shape": pattern}},
                text=[str(count) if count else "" for count in missing[column]],
                hovertemplate="%{y}, " + column + ": %{x} scans<extra></extra>",
            )
        )  # fmt: skip
    figure.update_layout(barmode="stack", legend={"orientation": "h", "y": -0.35})
    figure.update_xaxes(title="included scans")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return style_figure(figure, title="What is recorded, and what is missing", height=180 + 50 * len(missing))


def plot_overlap(overlaps: pd.DataFrame) -> go.Figure:
    """Draw how many people are in each pair of groups, with the counts written in the cells."""
    title = "People in each pair of groups"
    pairs = dict(list(overlaps.groupby(["attribute_a", "attribute_b"], sort=False)))
    if not pairs:
        return draw_nothing(title, "one attribute alone: there is nothing to overlap")
    shared = {"shared_xaxes": False, "shared_yaxes": False}
    grid = make_grid([""] * len(pairs), _PAIR_HEIGHT_PX, between=_PAIR_SPACING_PX, across=0.15, **shared)
    largest = overlaps["n"].fillna(0).max()
    for place, ((first, second), part) in zip(grid.places, pairs.items(), strict=True):
        cells = part.pivot_table(index="group_b", columns="group_a", values="n", sort=False, dropna=False)
        down, across = name_for_people(second), name_for_people(first)
        grid.figure.add_trace(
            go.Heatmap(
                z=cells.to_numpy(), x=[str(name) for name in cells.columns], y=[str(name) for name in cells.index],
                text=cells.map(lambda n: "few" if pd.isna(n) else f"{n:.0f}").to_numpy(), texttemplate="%{text}",
                colorscale=[[0, "#FFFFFF"], [1, "#5BA3D0"]],
                zmin=0, zmax=max(largest, 1), showscale=False, xgap=2, ygap=2,
                hovertemplate=f"{across}: %{{x}}<br>{down}: %{{y}}<br>%{{text}} people<extra></extra>",
            ),
            **place,
        )  # fmt: skip
        grid.figure.update_xaxes(title=across, type="category", **place)
        grid.figure.update_yaxes(title=down, type="category", automargin=True, **place)
    return style_figure(grid.figure, title=title, height=130 + grid.body)
