"""Figures on agreement: people with each other, a model with itself when prompted again, and models' gaps beside people's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import (
    ZERO_LINE,
    break_words,
    draw_nothing,
    format_p,
    format_range,
    format_value,
    frame_figure,
    label_gap,
    make_bars,
    make_grid,
    name_metric,
    name_organ,
    spread_rows,
    title_lowest,
    wrap_label,
)
from helpers.figures.style import METRIC_LABELS, PALETTE, colour_groups, mark_groups, name_for_people

_TITLES = {
    "annotators": "Do people agree less on some? {metric} between annotators",
    "prompts": "Does the prompt matter more for some? {metric} between repeated prompts",
}
_ABSENT = {
    "annotators": "Fewer than two models are marked as human annotators (annotator: true): there is no agreement to compare.",
    "prompts": "Every prompt was drawn once (prompt.draws: 1): there is nothing to compare.",
}


def plot_agreement(groups: pd.DataFrame, kind: str, metric: str = "dice") -> go.Figure:
    """Plot the mean agreement of every group with its interval, a panel per attribute.

    Parameters
    ----------
    groups : DataFrame
        ``fairness/agreement_groups.csv``.
    kind : {"annotators", "prompts"}
    metric : str
        That the agreement is measured in.

    Returns
    -------
    Figure
        Per organ (and model, for prompts) a mark per group; groups too small to be shown are named beneath.
    """
    title = _TITLES[kind].format(metric=METRIC_LABELS[metric].split(" (")[0])
    part = groups[(groups["kind"] == kind) & (groups["metric"] == metric)]
    drawn = part[part["mean"].notna()]
    if drawn.empty:
        few = "No group is large enough to be shown." if len(part) else "It is not measured: it needs a reference."
        return draw_nothing(title, few if (groups["kind"] == kind).any() else _ABSENT[kind])
    part = part.assign(row=_name_rows(part))
    rows, attributes = list(dict.fromkeys(part["row"])), list(dict.fromkeys(drawn["attribute"]))
    most = max(part[part["attribute"] == name]["group"].nunique() for name in attributes)
    figure, body, columns = make_grid(attributes, len(rows) * max(40, 15 * most))
    for place, attribute in enumerate(attributes):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        here = part[part["attribute"] == attribute]
        names = list(dict.fromkeys(here["group"]))
        colours, symbols = colour_groups(names), mark_groups(names)
        # Nearer to each other than to the next row's.
        for name, offset in zip(names, 0.75 * np.array(spread_rows(len(names))), strict=True):
            chosen = here[(here["group"] == name) & here["mean"].notna()]
            if chosen.empty:
                continue
            figure.add_trace(
                go.Scatter(
                    x=chosen["mean"],
                    y=[rows.index(row) + offset for row in chosen["row"]],
                    error_x=make_bars(chosen["mean"], chosen["ci_low"], chosen["ci_high"], colours[name]),
                    mode="markers",
                    name=f"{name_for_people(attribute)}: {name}, {_count(chosen['n'])}",
                    legendgroup=attribute,
                    showlegend=True,
                    marker={"color": colours[name], "symbol": symbols[name], "size": 9},
                    customdata=[
                        f"<b>{row['row']}</b><br>{name}, n = {row['n']}<br>{format_value(row['mean'], metric)} "
                        f"({format_range(row['ci_low'], row['ci_high'], metric)})"
                        for row in chosen.to_dict("records")
                    ],
                    hovertemplate="%{customdata}<extra></extra>",
                ),
                **where,
            )
    _label_rows(figure, rows)
    axis = METRIC_LABELS[metric].replace("is better", "is more alike").replace("is best", "is alike")
    title_lowest(figure, wrap_label(axis), len(attributes), columns)
    small = part[part["mean"].isna()]
    absent = list(
        dict.fromkeys(f"{name_for_people(row.attribute)} {row.group}" for row in small.itertuples(index=False))
    )
    return frame_figure(
        figure,
        title=title,
        subtitle="means over people; lines: 95 % intervals",
        body=body,
        below=74,
        left=110,
        footnote=f"Not shown, too few people: {', '.join(absent)}" if absent else "",
    )


def plot_against_annotators(against: pd.DataFrame, metric: str) -> go.Figure:
    """Plot every model's gap beside the gap in the annotators' agreement between the same two groups.

    Parameters
    ----------
    against : DataFrame
        ``fairness/against_agreement.csv``.
    metric : str

    Returns
    -------
    Figure
        A panel per attribute, a row per organ and model with two marks, each with its 95 % interval.
    """
    title = f"Models' gaps beside people's: {name_metric(metric)}"
    part = against[against["metric"] == metric]
    if part.empty:
        few = "No two groups are large enough to be compared."
        return draw_nothing(title, few if len(against) else _ABSENT["annotators"])
    part = part.assign(row=_name_rows(part))
    rows, attributes = list(dict.fromkeys(part["row"])), list(dict.fromkeys(part["attribute"]))
    figure, body, columns = make_grid(attributes, len(rows) * 42)
    kinds = (
        ("the model's gap", "gap", ("gap_low", "gap_high"), "circle", PALETTE[6], -0.17),
        ("the annotators' gap, same two groups", "annotators_gap", ("annotators_low", "annotators_high"), "diamond-open", PALETTE[1], 0.17),
    )  # fmt: skip
    for place, attribute in enumerate(attributes):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        here = part[part["attribute"] == attribute]
        for name, value, ends, symbol, colour, offset in kinds:
            figure.add_trace(
                go.Scatter(
                    x=here[value],
                    y=[rows.index(row) + offset for row in here["row"]],
                    error_x=make_bars(here[value], here[ends[0]], here[ends[1]], colour),
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=place == 0,
                    marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 2, "color": colour}},
                    customdata=[_explain(row, metric) for row in here.to_dict("records")],
                    hovertemplate="%{customdata}<extra></extra>",
                ),
                **where,
            )
        figure.add_vline(x=0, line=ZERO_LINE, **where)
        figure.layout.annotations[place].text += f", {_count(here['n'])}"
    _label_rows(figure, rows)
    title_lowest(figure, break_words(label_gap(metric), 26), len(attributes), columns)
    return frame_figure(
        figure,
        title=title,
        subtitle="best − worst group of the model; annotators left of zero: they agree better on its worst group",
        body=body,
        below=74,
        left=110,
    )


def _count(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"n = {low}" if low == high else f"n = {low}–{high}"


def _name_rows(part: pd.DataFrame) -> list[str]:
    """Return what stands beside each row: the organ, and the model where there are several."""
    several = len(set(part["model"])) > 1
    return [
        f"{name_organ(row.organ)}<br>{row.model}" if several else name_organ(row.organ)
        for row in part.itertuples(index=False)
    ]


def _label_rows(figure: go.Figure, rows: list[str]) -> None:
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=rows,
        range=[len(rows) - 0.45, -0.55],
        zeroline=False,
        automargin=True,
    )
    figure.update_xaxes(zeroline=False, showticklabels=True, nticks=5)


def _explain(row: dict[str, Any], metric: str) -> str:
    lines = [
        f"<b>{row['row']}</b>, n = {row['n']}",
        f"best: {row['best_group']}, worst: {row['worst_group']}",
        f"the model's gap {format_value(row['gap'], metric)} ({format_range(row['gap_low'], row['gap_high'], metric)})",
        f"the annotators' {format_value(row['annotators_gap'], metric)} ({format_range(row['annotators_low'], row['annotators_high'], metric)})",
        f"difference {format_value(row['difference'], metric)} ({format_range(row['low'], row['high'], metric)})",
    ]
    if np.isfinite(row["p_adjusted"]):
        lines.append(f"corrected p {format_p(row['p_adjusted'])}")
    return "<br>".join(lines)
