"""What a gap is made of: its raw, expected, excess and adjusted size side by side, and how alike matched people are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.panels import (
    MARGIN_COLOUR,
    ZERO_LINE,
    break_words,
    draw_nothing,
    format_range,
    format_value,
    frame_figure,
    label_gap,
    label_organ,
    list_not_compared,
    make_bars,
    make_grid,
    name_metric,
    name_organ,
    offer_choices,
    put_first,
    spread_rows,
    title_lowest,
)
from helpers.figures.style import PALETTE, name_for_people

UNBALANCED = 0.1  # standard deviations; Austin 2009, Statistics in Medicine 28:3083
# What is drawn, its columns, its mark: filled where an interval belongs to it.
_KINDS = (
    ("raw gap", "gap", ("gap_low", "gap_high"), "circle", PALETTE[6]),
    ("expected from organ size", "expected_gap", None, "diamond-open", PALETTE[5]),
    ("excess over organ size", "excess_gap", ("excess_low", "excess_high"), "square", PALETTE[0]),
    ("adjusted for the other attributes", "adjusted_gap", ("adjusted_low", "adjusted_high"), "triangle-up", PALETTE[2]),
)


def plot_gap_ladder(disparity: pd.DataFrame, metric: str, model: str | None = None) -> go.Figure:
    """Plot each gap as found, as organ size alone would give it, beyond that, and adjusted for other attributes.

    Parameters
    ----------
    disparity : DataFrame
        ``fairness/disparity.csv``; of ``expected_gap``, ``excess_gap`` and ``adjusted_gap`` what is there is drawn.
    metric : str
    model : str, optional
        Shown first (by default the table's first); a menu offers the others on the same scale.

    Returns
    -------
    Figure
        A panel per attribute; per organ a mark of each kind, with 95 % intervals; shaded: within the margin.
    """
    title = f"What the gaps in {name_metric(metric)} are made of"
    part = disparity[disparity["metric"] == metric]
    drawn = part[part["gap"].notna()]
    if drawn.empty or (model is not None and model not in set(drawn["model"])):
        return draw_nothing(title, "No groups are large enough to be compared.")
    kinds = [kind for kind in _KINDS if kind[1] in drawn and drawn[kind[1]].notna().any()]
    attributes, organs = list(dict.fromkeys(drawn["attribute"])), list(dict.fromkeys(part["organ"]))
    models = put_first(drawn["model"], model)
    ends = [column for _, value, interval, _, _ in kinds for column in (value, *(interval or ()))]
    reach = np.array([drawn[ends].min(axis=None), drawn[ends].max(axis=None), 0.0])
    around = [reach.min() - 0.05 * np.ptp(reach), reach.max() + 0.05 * np.ptp(reach)]
    return offer_choices(
        {
            name: _draw_ladder(
                part[part["model"] == name], metric, kinds, attributes, organs, title, around, menu=len(models) > 1
            )
            for name in models
        }
    )


def _draw_ladder(
    part: pd.DataFrame,
    metric: str,
    kinds: Sequence[tuple[Any, ...]],
    attributes: Sequence[str],
    organs: Sequence[str],
    title: str,
    around: Sequence[float],
    *,
    menu: bool,
) -> go.Figure:
    figure, body, columns = make_grid(attributes, len(organs) * max(44, 16 * len(kinds)))
    drawn = part[part["gap"].notna()]
    for place, attribute in enumerate(attributes):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        here = drawn[drawn["attribute"] == attribute]
        for (name, value, interval, symbol, colour), offset in zip(kinds, spread_rows(len(kinds)), strict=True):
            figure.add_trace(
                go.Scatter(
                    x=here[value],
                    y=[organs.index(organ) + offset for organ in here["organ"]],
                    error_x=make_bars(here[value], here[interval[0]], here[interval[1]], colour) if interval else None,
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=place == 0,
                    marker={"color": colour, "symbol": symbol, "size": 8, "line": {"width": 1.5, "color": colour}},
                    customdata=[_explain_rung(row, name, value, interval, metric) for row in here.to_dict("records")],
                    hovertemplate="%{customdata}<extra></extra>",
                ),
                **where,
            )
        margins = here["margin"].dropna()
        if len(margins):
            margin = float(margins.iloc[0])
            figure.add_vrect(
                x0=-margin, x1=margin, fillcolor=MARGIN_COLOUR, line_width=0, layer="below", **where
            )  # fmt: skip
        figure.add_vline(x=0, line=ZERO_LINE, **where)
        figure.update_yaxes(
            tickvals=list(range(len(organs))),
            ticktext=[label_organ(drawn, organ) for organ in organs],
            range=[len(organs) - 0.45, -0.55],
            zeroline=False,
            automargin=True,
            **where,
        )
    figure.update_xaxes(range=list(around), zeroline=False, showticklabels=True, nticks=5)
    title_lowest(figure, break_words(label_gap(metric), 26), len(attributes), columns)
    models = list(dict.fromkeys(part["model"]))
    return frame_figure(
        figure,
        title=f"{title}: {models[0]}" if models else title,
        subtitle="best − worst group; lines: 95 % intervals; shaded: within the margin",
        body=body,
        menu=menu,
        below=74,
        left=110,
        footnote=list_not_compared(part),
    )


def _explain_rung(row: dict[str, Any], name: str, value: str, interval: tuple[str, str] | None, metric: str) -> str:
    number = row.get("adjusted_n") if value == "adjusted_gap" else row["n"]
    lines = [
        f"<b>{row['model']} · {name_organ(row['organ'])}</b>, n = {number:.0f}",
        f"best: {row['best_group']}, worst: {row['worst_group']}",
        f"{name}: {format_value(row[value], metric)}"
        + (f" ({format_range(row[interval[0]], row[interval[1]], metric)})" if interval else ""),
    ]
    return "<br>".join(lines)


def plot_balance(balance: pd.DataFrame, attribute: str | None = None) -> go.Figure:
    """Plot how alike the groups' people are before and after matching: a love plot.

    Parameters
    ----------
    balance : DataFrame
        ``fairness/balance.csv``.
    attribute : str, optional
        One attribute; all by default.

    Returns
    -------
    Figure
        A panel per pair of groups, a line per covariate (of categories: per level) from its absolute standardised
        difference before matching to the one after; left of the dashed line at 0.1 groups count as alike.
    """
    title = "Are matched people alike? Standardised differences of covariates"
    part = balance if attribute is None else balance[balance["attribute"] == attribute]
    part = part[part["smd_before"].notna() | part["smd_after"].notna()]
    if part.empty:
        return draw_nothing(title, "No people were matched: there is no covariate, or too few people.")
    pairs = list(part[["attribute", "group_a", "group_b"]].drop_duplicates().itertuples(index=False, name=None))
    labels = [
        name_for_people(row.covariate) + (f": {row.level}" if row.level else "") for row in part.itertuples(index=False)
    ]
    part = part.assign(label=labels)
    names = list(dict.fromkeys(labels))
    matched = part.groupby(["attribute", "group_a", "group_b"])["smd_after"].count()
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    panel, between = 24 + 26 * len(names), 62
    body = panel * rows + between * (rows - 1)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[
            f"{name_for_people(name)}: {first} and {second}" + ("" if matched[name, first, second] else " (no pairs)")
            for name, first, second in pairs
        ],
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.04,
        vertical_spacing=between / body if rows > 1 else 0,
    )
    ends = part[["smd_before", "smd_after"]].abs().max(axis=None)
    for place, pair in enumerate(pairs):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        here = part[(part[["attribute", "group_a", "group_b"]] == list(pair)).all(axis=1)]
        heights = [names.index(label) for label in here["label"]]
        joined = here[["smd_before", "smd_after"]].abs().assign(gap=np.nan).to_numpy().ravel()
        figure.add_trace(
            go.Scatter(
                x=joined, y=np.repeat(heights, 3), mode="lines", line={"color": "#999999", "width": 1},
                showlegend=False, hoverinfo="skip",
            ),
            **where,
        )  # fmt: skip
        for name, column, symbol, colour in (
            ("before matching", "smd_before", "circle-open", PALETTE[1]),
            ("after matching", "smd_after", "diamond", PALETTE[0]),
        ):
            figure.add_trace(
                go.Scatter(
                    x=here[column].abs(),
                    y=heights,
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=place == 0,
                    marker={"color": colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}},
                    customdata=[_explain_balance(row, column) for row in here.to_dict("records")],
                    hovertemplate="%{customdata}<extra></extra>",
                ),
                **where,
            )
        figure.add_vline(x=UNBALANCED, line={"color": "#444444", "width": 1, "dash": "dash"}, **where)
        figure.update_yaxes(
            tickvals=list(range(len(names))),
            ticktext=[break_words(label, 26) for label in names],
            range=[len(names) - 0.4, -0.6],
            zeroline=False,
            automargin=True,
            **where,
        )
    figure.update_xaxes(range=[-0.03 * ends, max(1.06 * ends, 1.5 * UNBALANCED)], showticklabels=True, zeroline=False)
    title_lowest(figure, "difference (standard deviations)", len(pairs), columns)
    return frame_figure(
        figure,
        title=title,
        subtitle=f"left of the dashed line ({UNBALANCED:g} standard deviations) the two groups count as alike",
        body=body,
        left=110,
    )


def _explain_balance(row: dict[str, Any], column: str) -> str:
    when = "" if column == "smd_before" else "_after"
    numbers = [row.get(f"mean_a{when}", np.nan), row.get(f"mean_b{when}", np.nan)]
    groups = zip((row["group_a"], row["group_b"]), numbers, strict=True)
    means = ", ".join(f"{group} {value:.3g}" for group, value in groups if np.isfinite(value))
    what = "share" if row["level"] else "mean"
    return f"<b>{row['label']}</b><br>difference {row[column]:.2f} standard deviations" + (
        f"<br>{what}: {means}" if means else ""
    )
