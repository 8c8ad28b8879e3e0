"""Gaps between groups: how large, what they are made of, and how alike matched people are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import (
    MANY_MODELS,
    POINTED_AT,
    break_words,
    draw_nothing,
    list_ticks,
    make_grid,
    offer_choices,
    put_first,
)
from helpers.figures.rows import Mark, draw_rows, label_gap, list_marks, list_not_compared
from helpers.figures.style import PALETTE
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict, read_verdict, trace_pooled
from helpers.vocabulary.words import (
    ALL_MODELS,
    format_p,
    format_value,
    list_words,
    name_for_people,
    name_organ,
    state_estimate,
)

_MOST_ROWS = 30  # comparisons drawn where there are many models
UNBALANCED = 0.1  # SD; Austin 2009, Statistics in Medicine 28:3083
_TOO_SMALL = "No groups are large enough to be compared."
_RAW = Mark("raw gap", "gap", ("gap_low", "gap_high"), PALETTE[6], "circle")
# Filled where an interval belongs to it.
_PARTS = (
    _RAW,
    Mark("expected from organ size", "expected_gap", None, PALETTE[5], "diamond-open"),
    Mark("excess over organ size", "excess_gap", ("excess_low", "excess_high"), PALETTE[0], "square"),
    Mark(
        "adjusted for what comes before", "adjusted_gap", ("adjusted_low", "adjusted_high"), PALETTE[2],
        "triangle-up",
    ),
    Mark("direct: for mediators as well", "direct_gap", ("direct_low", "direct_high"), PALETTE[3], "triangle-down"),
)  # fmt: skip


def plot_gap_forests(disparity: pd.DataFrame, metrics: Sequence[str], *, alpha: float = 0.05) -> go.Figure:
    """Plot :func:`plot_gap_forest` of several metrics, with a menu; the first is shown.

    A metric that has other rows or panels than the first is left out of the menu.
    """
    parts = {name: _select(disparity, name) for name in dict.fromkeys(metrics)}
    places = {
        name: {*zip(part["attribute"], part["row"], strict=True)} if part["gap"].notna().any() else None
        for name, part in parts.items()
    }
    alike = [name for name in parts if name == metrics[0] or (places[name] and places[name] == places[metrics[0]])]
    if len(alike) == 1:
        return plot_gap_forest(disparity, metrics[0], alpha=alpha)
    return offer_choices(
        {find_measure(name).long_name: plot_gap_forest(disparity, name, alpha=alpha, menu=True) for name in alike}
    )


def plot_gap_forest(disparity: pd.DataFrame, metric: str, *, alpha: float = 0.05, menu: bool = False) -> go.Figure:
    """Plot the gap between the best and the worst group with its interval, per organ and model.

    `disparity` is ``fairness/disparity.csv``. One panel for each attribute; shaded: the margin on
    both sides of zero. Marks are filled where a difference was found (adjusted p up to `alpha`),
    else hollow; the verdict stands beside them. What could not be compared is named beneath. Of
    many models only the surest comparisons are drawn, in one panel. `menu` leaves room for one.
    """
    title = f"Gap in {find_measure(metric).name} between the best and the worst group"
    part = _select(disparity, metric)
    drawn = part[part["gap"].notna()]
    if drawn.empty:
        return draw_nothing(title, _TOO_SMALL if len(part) else "This study did not measure it.")
    marks = list_marks("gap", ("gap_low", "gap_high"), {name: {"model": name} for name in part["model"]})
    every = part.to_dict("records")
    if len(marks) > MANY_MODELS:
        part = drawn = _pick_surest(drawn, [f"{row.model} · {row.row}" for row in drawn.itertuples()])
        marks = [_RAW]

    def judge(row: dict[str, Any]) -> tuple[bool, str]:
        verdict = read_verdict(row, alpha)
        return verdict.shows_difference, verdict.sign

    def explain(row: dict[str, Any]) -> str:
        sources = trace_pooled(row, every, alpha)
        follows = f"; follows from {list_words(map(name_organ, sources))}" if sources else ""
        told = f"{read_verdict(row, alpha).word}, adjusted {format_p(row['p_adjusted'])}{follows}"
        return f"{_explain_gap(row, _RAW, metric)}<br>{told}"

    grid = draw_rows(
        drawn,
        dict.fromkeys(drawn["attribute"], marks),
        list(dict.fromkeys(part["row"])),
        lambda row, _: explain(row),
        verdict=judge,
    )
    grid.title_axes(label_gap(metric))
    used = {read_verdict(row, alpha) for row in drawn.to_dict("records")}
    key = ", ".join(f"{verdict.sign} {verdict.word}" for verdict in Verdict if verdict in used)
    follows = [
        f"{row['model']} by {name_for_people(row['attribute'])} from {list_words(map(name_organ, sources))}"
        for row in drawn.to_dict("records")
        if (sources := trace_pooled(row, every, alpha))
    ]
    notes = [key, f"All organs follow: {'; '.join(follows)}" if follows else "", list_not_compared(part)]
    return grid.frame(
        title=title,
        subtitle="best − worst group; filled: a difference was found; lines: 95 % confidence intervals; shaded: margin",
        menu=menu,
        footnote=". ".join(filter(None, notes)),
    )


def plot_gap_ladder(disparity: pd.DataFrame, metric: str, model: str | None = None) -> go.Figure:
    """Plot each gap as found, as organ size alone would give it, beyond that, and adjusted.

    `disparity` is ``fairness/disparity.csv``; of ``expected_gap``, ``excess_gap`` and
    ``adjusted_gap`` what is there is drawn. A panel per attribute; per organ a mark of each kind
    with its 95 % confidence interval; shaded: the margin. `model` (by default the table's first)
    is shown first; a menu offers the others on the same scale.
    """
    title = f"What the gaps in {find_measure(metric).name} are made of"
    part = _select(disparity, metric)
    drawn = part[part["gap"].notna()]
    if drawn.empty or (model is not None and model not in set(drawn["model"])):
        return draw_nothing(title, _TOO_SMALL)
    marks = [mark for mark in _PARTS if mark.value in drawn and drawn[mark.value].notna().any()]
    marks_of, rows = dict.fromkeys(drawn["attribute"], marks), list(dict.fromkeys(part["row"]))
    models = put_first(drawn["model"], model)
    columns = [column for mark in marks for column in (mark.value, *(mark.ends or ()))]
    ends = np.array([drawn[columns].min(axis=None), drawn[columns].max(axis=None), 0.0])
    around = [ends.min() - 0.05 * np.ptp(ends), ends.max() + 0.05 * np.ptp(ends)]
    figures = {}
    for name in models:
        here = drawn[drawn["model"] == name]
        grid = draw_rows(here, marks_of, rows, lambda row, mark: _explain_gap(row, mark, metric))
        grid.title_axes(label_gap(metric))
        grid.figure.update_xaxes(range=around)
        figures[name] = grid.frame(
            title=f"{title}: {name}",
            subtitle="best − worst group; lines: 95 % confidence intervals; shaded: within the margin",
            menu=len(models) > 1,
            below=74,
            left=110,
            footnote=list_not_compared(part[part["model"] == name]),
        )
    return offer_choices(figures)


def plot_shown_ladder(disparity: pd.DataFrame, metric: str) -> go.Figure:
    """Plot :func:`plot_gap_ladder` of few comparisons: in one panel, a row each with its model."""
    names = [f"{row.model} · {name_organ(row.organ)}" for row in disparity.itertuples()]
    return plot_gap_ladder(_pick_surest(disparity, names).assign(model="the differences found"), metric)


def plot_model_gaps(model_gaps: pd.DataFrame, metric: str, *, alpha: float = 0.05) -> go.Figure:
    """Plot which of two models has the smaller gaps: differences of their gaps on the same people.

    `model_gaps` is ``fairness/model_gaps.csv``. A panel per attribute, a mark per pair of models;
    left of zero the first's gap is smaller. Marks are filled where the adjusted p is up to `alpha`.
    """
    title = f"Which model has the smaller gaps? Differences of gaps in {find_measure(metric).name}"
    part = _select(model_gaps, metric)
    part = part.assign(
        model=part["model_a"].astype(str) + " and " + part["model_b"].astype(str), gap=part["difference"]
    )
    drawn = part[part["gap"].notna()]
    if drawn.empty:
        return draw_nothing(title, "There are not two models whose groups could be compared.")
    pairs = {
        f"{first} − {second}": {"model_a": first, "model_b": second}
        for first, second in zip(drawn["model_a"], drawn["model_b"], strict=True)
    }
    marks = list_marks("gap", ("low", "high"), pairs)
    if len(marks) > MANY_MODELS * (MANY_MODELS - 1) // 2:
        names = [f"{row.model_a} − {row.model_b} · {row.row}" for row in drawn.itertuples()]
        part = drawn = _pick_surest(drawn, names)
        marks = [replace(_RAW, name="difference of gaps", ends=("low", "high"))]
    grid = draw_rows(
        drawn,
        dict.fromkeys(drawn["attribute"], marks),
        list(dict.fromkeys(part["row"])),
        lambda row, _: _explain_model_gap(row, metric),
        verdict=lambda row: (row["p_adjusted"] <= alpha, ""),
    )
    grid.title_axes(f"← smaller gap: first model · {label_gap(metric, 'difference of gaps in')} · second model →")
    return grid.frame(
        title=title,
        subtitle="first model − second, same people; filled: found to differ; lines: 95 % confidence intervals",
        below=100,
        footnote=list_not_compared(part),
    )


def plot_balance(balance: pd.DataFrame) -> go.Figure:
    """Plot how alike the groups' people are before and after matching: a love plot.

    `balance` is ``fairness/balance.csv``. A panel per pair of groups, a line per covariate (of
    categories: per level) from its absolute standardised difference before matching to the one
    after; left of the dashed line at 0.1 SD groups count as alike.
    """
    title = "Are matched people alike? Standardised differences of covariates"
    part = balance[balance["smd_before"].notna() | balance["smd_after"].notna()]
    if part.empty:
        return draw_nothing(title, "No people were matched: there is no covariate, or too few people.")
    keys = ["attribute", "group_a", "group_b"]
    labels = [
        name_for_people(row.covariate) + (f": {row.level}" if row.level else "") for row in part.itertuples(index=False)
    ]
    part, names = part.assign(label=labels), list(dict.fromkeys(labels))
    pairs = dict(list(part.groupby(keys, sort=False)))
    titles = [
        f"{name_for_people(name)}: {first} and {second}" + ("" if here["smd_after"].notna().any() else " (no pairs)")
        for (name, first, second), here in pairs.items()
    ]
    grid = make_grid(titles, 24 + 26 * len(names), columns=2, across=0.04)
    figure, most = grid.figure, part[["smd_before", "smd_after"]].abs().max(axis=None)
    for place, here in zip(grid.places, pairs.values(), strict=True):
        heights = [names.index(label) for label in here["label"]]
        joined = here[["smd_before", "smd_after"]].abs().assign(gap=np.nan).to_numpy().ravel()
        line = {"mode": "lines", "line": {"color": "#999999", "width": 1}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(x=joined, y=np.repeat(heights, 3), **line), **place)
        for name, column, symbol, colour in (
            ("before matching", "smd_before", "circle-open", PALETTE[1]),
            ("after matching", "smd_after", "diamond", PALETTE[0]),
        ):
            marker = {"color": colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}}
            legend = {"name": name, "legendgroup": name, "showlegend": place == grid.places[0]}
            told = [_explain_balance(row, column) for row in here.to_dict("records")]
            look = {"mode": "markers", "marker": marker, "customdata": told, "hovertemplate": POINTED_AT}
            figure.add_trace(go.Scatter(x=here[column].abs(), y=heights, **look, **legend), **place)
        figure.add_vline(x=UNBALANCED, line={"color": "#444444", "width": 1, "dash": "dash"}, **place)
        figure.update_yaxes(list_ticks([break_words(name, 26) for name in names], down=True), **place)
    figure.update_xaxes(range=[-0.03 * most, max(1.06 * most, 1.5 * UNBALANCED)], showticklabels=True, zeroline=False)
    grid.title_axes("difference (SD)")
    return grid.frame(
        title=title, subtitle=f"left of the dashed line ({UNBALANCED:g} SD) the two groups count as alike", left=110
    )


def _select(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a metric's rows of single models, each with its organ's name beside it."""
    part = table[table["metric"] == metric]
    part = part[part["model"] != ALL_MODELS] if "model" in part else part
    return part if "row" in part else part.assign(row=[name_organ(organ) for organ in part["organ"]])


def _pick_surest(drawn: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the comparisons with the smallest p, each a row by name, as of one attribute."""
    by = [name_for_people(str(attribute)) for attribute in drawn["attribute"]]
    named = drawn.assign(row=[f"{name} by {attribute}" for name, attribute in zip(names, by, strict=True)])
    surest = named.sort_values(["p_adjusted", "p"], kind="stable").head(_MOST_ROWS)
    title = f"the surest {len(surest)} of {len(drawn):,} comparisons" if len(surest) < len(drawn) else "all comparisons"
    return surest.assign(attribute=title)


def _explain_gap(row: dict[str, Any], mark: Mark, metric: str) -> str:
    number = row["adjusted_n"] if mark.value == "adjusted_gap" else row["n"]
    low, high = (row[end] for end in mark.ends) if mark.ends else (None, None)
    return (
        f"<b>{row['model']} · {row['row']}</b>, n = {number:.0f}"
        f"<br>best: {row['best_group']}, worst: {row['worst_group']}"
        f"<br>{mark.name}: {state_estimate(row[mark.value], low, high, metric)}"
    )


def _explain_model_gap(row: dict[str, Any], metric: str) -> str:
    adjusted = row.get("p_adjusted", np.nan)
    return (
        f"<b>{row['row']}</b><br>gap of {row['model_a']} {format_value(row['gap_a'], metric)}, "
        f"of {row['model_b']} {format_value(row['gap_b'], metric)}"
        f"<br>difference {state_estimate(row['difference'], row['low'], row['high'], metric)}<br>"
        + (f"adjusted {format_p(adjusted)}" if np.isfinite(adjusted) else format_p(row["p"]))
    )


def _explain_balance(row: dict[str, Any], column: str) -> str:
    when = "" if column == "smd_before" else "_after"
    numbers = [row.get(f"mean_a{when}", np.nan), row.get(f"mean_b{when}", np.nan)]
    groups = zip((row["group_a"], row["group_b"]), numbers, strict=True)
    means = ", ".join(f"{group} {value:.3g}" for group, value in groups if np.isfinite(value))
    told = f"<br>{'share' if row['level'] else 'mean'}: {means}" if means else ""
    return f"<b>{row['label']}</b><br>difference {row[column]:.2f} SD{told}"
