"""Figures of 03_performance: every person as a dot, gaps with their intervals, what organ size explains."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.panels import (
    MARGIN_COLOUR,
    UNITS,
    add_footnote,
    count_columns,
    draw_nothing,
    finish_panels,
    format_interval,
    format_p,
    label_organ,
    lower_first,
    make_bars,
    make_panels,
    name_not_compared,
    name_organ,
    name_person,
    shift_sideways,
    spread_rows,
    wrap_label,
)
from helpers.figures.style import (
    METRIC_LABELS,
    PALETTE,
    colour_groups,
    mark_groups,
    name_for_people,
    style_figure,
)


def plot_group_dots(
    people: pd.DataFrame,
    metric: str,
    attribute: str,
    *,
    model: str,
    organs: Sequence[str] | None = None,
    min_group: int = 10,
) -> go.Figure:
    """Plot every subject's value as a dot over a box per group, one panel per organ.

    Parameters
    ----------
    people : DataFrame
        From ``load_people``: model, organ, number, scans, the metric, ``group_<attribute>``.
    metric, attribute, model : str
    organs : sequence of str, optional
        Panels to draw, in order; all by default.
    min_group : int
        Groups with fewer subjects are named beneath, not drawn.

    Returns
    -------
    Figure
    """
    column = f"group_{attribute}"
    part = people[people["model"] == model]
    organs = list(dict.fromkeys(part["organ"])) if organs is None else list(organs)
    groups = (
        [str(name) for name in part[column].cat.categories]
        if isinstance(part[column].dtype, pd.CategoricalDtype)
        else sorted(part[column].dropna().astype(str).unique())
    )
    title = f"{METRIC_LABELS[metric].split(' (')[0]} of {model}, by {name_for_people(attribute)}: one dot per person"
    if part.empty or not organs or not groups:
        return draw_nothing(title, "No person with a known group was scored.")
    columns = count_columns(len(groups), len(organs))
    rows = -(-len(organs) // columns)
    height = 110 + 300 * rows
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[name_organ(organ) for organ in organs],
        shared_yaxes="all",
        vertical_spacing=0.36 / rows if rows > 1 else 0,
        horizontal_spacing=0.03,
    )
    colours, symbols = colour_groups(groups), mark_groups(groups)
    hidden: dict[str, list[str]] = {}
    for panel, organ in enumerate(organs):
        place = {"row": panel // columns + 1, "col": panel % columns + 1}
        labels = []
        for position, group in enumerate(groups):
            chosen = part[(part["organ"] == organ) & (part[column].astype("str") == group) & part[metric].notna()]
            name = "<br>".join(textwrap.wrap(group, 12, break_long_words=False))
            labels.append(f"{name}<br>n = {len(chosen)}")
            if len(chosen) < min_group:
                labels[-1] = f"{name}<br>n < {min_group}"
                hidden.setdefault(group, []).append(name_organ(organ))
                continue
            figure.add_trace(
                go.Box(
                    x0=position,
                    y=chosen[metric],
                    width=0.62,
                    boxpoints=False,
                    line={"color": colours[group], "width": 1.5},
                    fillcolor="rgba(255,255,255,0)",
                    hoverinfo="skip",
                    showlegend=False,
                ),
                **place,
            )
            figure.add_trace(
                go.Scatter(
                    x=position + shift_sideways(chosen["number"].to_numpy()),
                    y=chosen[metric],
                    mode="markers",
                    marker={"color": colours[group], "symbol": symbols[group], "size": 6, "opacity": 0.6},
                    text=[name_person(row.number, row.scans) for row in chosen.itertuples(index=False)],
                    hovertemplate="%{text}: %{y:.4g}<extra>" + group + "</extra>",
                    showlegend=False,
                ),
                **place,
            )
        figure.update_xaxes(
            tickvals=list(range(len(groups))),
            ticktext=labels,
            range=[-0.6, len(groups) - 0.4],
            showgrid=False,
            tickangle=0,
            **place,
        )
    style_figure(figure, title=title, height=height)
    for row in range(1, rows + 1):
        figure.update_yaxes(title=wrap_label(METRIC_LABELS[metric]), row=row, col=1)
    figure.update_yaxes(zeroline=False)
    if hidden:
        figure.update_layout(height=height + 40, margin={"b": 110})
        names = [
            group if len(found) == len(organs) else f"{group} ({', '.join(found)})" for group, found in hidden.items()
        ]
        add_footnote(figure, f"Not drawn (fewer than {min_group} people): {'; '.join(names)}")
    return figure


def plot_gap_forest(disparity: pd.DataFrame, metric: str, attribute: str | None = None) -> go.Figure:
    """Plot the gap between the best and the worst group with its interval, per organ and model.

    Parameters
    ----------
    disparity : DataFrame
        ``fairness/disparity.csv``.
    metric : str
    attribute : str, optional
        One attribute; all by default, one panel each.

    Returns
    -------
    Figure
        The shaded band is the margin on both sides of zero. What could not be compared is named beneath.
    """
    part = disparity[disparity["metric"] == metric]
    if attribute is not None:
        part = part[part["attribute"] == attribute]
    short = METRIC_LABELS[metric].split(" (")[0]
    title = f"Gap in {lower_first(short)} between the best and the worst group"
    drawn = part[part["gap"].notna()]
    if drawn.empty:
        return draw_nothing(title, "No groups are large enough to be compared.")
    attributes = list(dict.fromkeys(drawn["attribute"]))
    organs, models = list(dict.fromkeys(part["organ"])), list(dict.fromkeys(part["model"]))
    figure, height = make_panels(attributes, len(organs), len(models))
    colours, symbols = colour_groups(models), mark_groups(models)
    offsets = spread_rows(len(models))
    for row, name in enumerate(attributes, start=1):
        here = drawn[drawn["attribute"] == name]
        for model, offset in zip(models, offsets, strict=True):
            chosen = here[here["model"] == model]
            figure.add_trace(
                go.Scatter(
                    x=chosen["gap"],
                    y=[organs.index(organ) + offset for organ in chosen["organ"]],
                    error_x=make_bars(chosen["gap"], chosen["gap_low"], chosen["gap_high"]),
                    mode="markers",
                    name=model,
                    legendgroup=model,
                    showlegend=row == 1,
                    marker={"color": colours[model], "symbol": symbols[model], "size": 9},
                    customdata=np.stack(
                        [
                            [name_organ(organ) for organ in chosen["organ"]],
                            chosen["best_group"],
                            chosen["worst_group"],
                            chosen["n"].astype(str),
                            [
                                format_interval(*pair)
                                for pair in zip(chosen["gap_low"], chosen["gap_high"], strict=True)
                            ],
                            [format_p(value) for value in chosen["p_adjusted"]],
                        ],
                        axis=-1,
                    ).astype(object)
                    if len(chosen)
                    else None,
                    hovertemplate="%{customdata[0]}, n = %{customdata[3]}<br>best: %{customdata[1]}, worst: %{customdata[2]}<br>gap %{x:.3g} (95 % interval %{customdata[4]})<br>corrected p %{customdata[5]}<extra>"
                    + model
                    + "</extra>",
                ),
                row=row,
                col=1,
            )
        margins = here["margin"].dropna()
        if len(margins):
            figure.add_vrect(
                x0=-float(margins.iloc[0]),
                x1=float(margins.iloc[0]),
                fillcolor=MARGIN_COLOUR,
                line_width=0,
                layer="below",
                row=row,
                col=1,
            )
        figure.add_vline(x=0, line={"color": "#444444", "width": 1}, row=row, col=1)
        figure.update_yaxes(
            tickvals=list(range(len(organs))),
            ticktext=[label_organ(here, organ) for organ in organs],
            range=[len(organs) - 0.4, -0.6],
            row=row,
            col=1,
        )
    unit = f" ({UNITS[metric]})" if metric in UNITS else ""
    style_figure(figure, title=f"{title}<br><sup>95 % intervals; shaded: within the margin</sup>", height=height)
    name_not_compared(figure, part)
    finish_panels(figure, f"gap in {lower_first(short)}{unit}", len(attributes), legend=len(models) > 1)
    return figure


def plot_size_explained(disparity: pd.DataFrame) -> go.Figure:
    """Plot, beside each raw Dice gap, the part that organ size explains and the part that it does not.

    Parameters
    ----------
    disparity : DataFrame
        ``fairness/disparity.csv`` with expected_gap, excess_gap, excess_low and excess_high.

    Returns
    -------
    Figure
        One panel per attribute and model; raw and excess gap with intervals.
    """
    title = "Dice gap: what organ size explains, and what it does not"
    if "excess_gap" not in disparity:
        return draw_nothing(title, "Dice is not among the metrics that this study compares.")
    part = disparity[disparity["metric"] == "dice"]
    drawn = part[part["excess_gap"].notna()]
    if drawn.empty:
        return draw_nothing(title, "No groups are large enough to be compared.")
    attributes, models = list(dict.fromkeys(drawn["attribute"])), list(dict.fromkeys(drawn["model"]))
    organs = list(dict.fromkeys(part["organ"]))
    kinds = (
        ("raw gap", "gap", "gap_low", "gap_high", "circle", PALETTE[6]),
        ("expected from organ size", "expected_gap", None, None, "diamond-open", PALETTE[5]),
        ("excess: not explained by size", "excess_gap", "excess_low", "excess_high", "square", PALETTE[0]),
    )
    figure, height = make_panels(attributes, len(organs), len(kinds), columns=models)
    offsets = spread_rows(len(kinds))
    for row, attribute in enumerate(attributes, start=1):
        for column, model in enumerate(models, start=1):
            chosen = drawn[(drawn["attribute"] == attribute) & (drawn["model"] == model)]
            for (name, value, low, high, symbol, colour), offset in zip(kinds, offsets, strict=True):
                figure.add_trace(
                    go.Scatter(
                        x=chosen[value],
                        y=[organs.index(organ) + offset for organ in chosen["organ"]],
                        error_x=make_bars(chosen[value], chosen[low], chosen[high], colour) if low else None,
                        mode="markers",
                        name=name,
                        legendgroup=name,
                        showlegend=row == column == 1,
                        marker={"color": colour, "symbol": symbol, "size": 8, "line": {"width": 2, "color": colour}},
                        text=[
                            f"{name_organ(item.organ)}, n = {item.n}<br>best: {item.best_group}, worst: {item.worst_group}"
                            for item in chosen.itertuples(index=False)
                        ],
                        hovertemplate="%{text}<br>" + name + " %{x:.3f}<extra>" + model + "</extra>",
                    ),
                    row=row,
                    col=column,
                )
            figure.add_vline(x=0, line={"color": "#444444", "width": 1}, row=row, col=column)
            here = drawn[drawn["attribute"] == attribute]
            figure.update_yaxes(
                tickvals=list(range(len(organs))),
                ticktext=[label_organ(here, organ) for organ in organs],
                range=[len(organs) - 0.4, -0.6],
                row=row,
                col=column,
            )
    style_figure(figure, title=f"{title}<br><sup>best − worst group; lines: 95 % intervals</sup>", height=height)
    name_not_compared(figure, part)
    finish_panels(figure, "gap in Dice", len(attributes), legend=True)
    return figure
