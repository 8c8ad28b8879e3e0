"""What a reader of 03_performance sees first: verdicts at one glance, accuracy against fairness, model against model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.panels import (
    MARGIN_COLOUR,
    QUIET,
    ZERO_LINE,
    break_words,
    draw_nothing,
    format_p,
    format_range,
    format_value,
    frame_figure,
    label_gap,
    label_organ,
    list_not_compared,
    make_bars,
    mark_many,
    name_metric,
    name_organ,
    offer_choices,
    put_first,
    spread_rows,
)
from helpers.figures.style import METRIC_LABELS, colour_groups, mark_groups, name_for_people


@dataclass(frozen=True)
class VerdictLook:
    """How a verdict is shown: a sign and a word carry it, the colour repeats it."""

    sign: str
    word: str
    meaning: str
    colour: str


# Tints of the house's palette, light enough for dark text on them (contrast above 7 to 1).
VERDICT_LOOKS = {
    "disparity": VerdictLook("▲", "disparity", "a gap beyond the margin is shown", "#F4A582"),
    "negligible": VerdictLook("▽", "negligible", "a gap is real, but within the margin", "#FCE4CC"),
    "equivalent": VerdictLook("=", "equivalent", "shown to be within the margin", "#A9D3EC"),
    "inconclusive": VerdictLook("?", "inconclusive", "too uncertain: neither is shown", "#E4E4E4"),
    "": VerdictLook("–", "not compared", "too few people, or no margin", "#FFFFFF"),
}
_NO_MARGIN = "no margin"
_VERDICTS = list(VERDICT_LOOKS)
_ROW = 27  # pixels for one line of text


def plot_verdicts(disparity: pd.DataFrame, metric: str | None = None) -> go.Figure:
    """Plot the verdict on every comparison as a table of words and colours: models and organs by attributes.

    Parameters
    ----------
    disparity : DataFrame
        ``fairness/disparity.csv``.
    metric : str, optional
        Shown first (by default the table's first); a menu offers the others.

    Returns
    -------
    Figure
        A cell holds a sign, a word and the gap in the metric's unit; pointing at it gives the groups, the interval, the
        margin, the gap that would have been found, and the corrected p-value.
    """
    metrics = put_first(disparity["metric"], metric)
    if not metrics or (metric is not None and metric not in set(disparity["metric"])):
        return draw_nothing("Verdicts", "Nothing was compared: there is no attribute, or no such metric.")
    models, organs = list(dict.fromkeys(disparity["model"])), list(dict.fromkeys(disparity["organ"]))
    attributes = list(dict.fromkeys(disparity["attribute"]))
    return offer_choices(
        {
            METRIC_LABELS[name].split(" (")[0]: _draw_verdicts(
                disparity[disparity["metric"] == name], name, models, organs, attributes, menu=len(metrics) > 1
            )
            for name in metrics
        }
    )


def _draw_verdicts(
    part: pd.DataFrame,
    metric: str,
    models: Sequence[str],
    organs: Sequence[str],
    attributes: Sequence[str],
    *,
    menu: bool,
) -> go.Figure:
    two_lines = len(attributes) > 3
    row_height = _ROW + 16 * two_lines
    panel, between = row_height * len(organs), 34
    body = panel * len(models) + between * (len(models) - 1)
    figure = make_subplots(rows=len(models), cols=1, vertical_spacing=between / body if len(models) > 1 else 0)
    known = {(row["model"], row["organ"], row["attribute"]): row for row in part.to_dict("records")}
    colours = [
        [edge, VERDICT_LOOKS[verdict].colour]
        for place, verdict in enumerate(_VERDICTS)
        for edge in (place / len(_VERDICTS), (place + 1) / len(_VERDICTS))
    ]
    for place, model in enumerate(models, start=1):
        rows = [[known.get((model, organ, attribute), {}) for attribute in attributes] for organ in organs]
        figure.add_trace(
            go.Heatmap(
                x=list(range(len(attributes))),
                y=list(range(len(organs))),
                z=[[_VERDICTS.index(_find_verdict(row)) for row in line] for line in rows],
                text=[[_word_verdict(row, metric, "<br>" if two_lines else " · ") for row in line] for line in rows],
                texttemplate="%{text}",
                textfont={"size": 12, "color": "#222222"},
                customdata=[[_explain_verdict(row, metric) for row in line] for line in rows],
                hovertemplate="%{customdata}<extra></extra>",
                hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": "#222222"}},
                colorscale=colours,
                zmin=-0.5,
                zmax=len(_VERDICTS) - 0.5,
                showscale=False,
                xgap=3,
                ygap=3,
            ),
            row=place,
            col=1,
        )
        figure.update_xaxes(
            tickvals=list(range(len(attributes))),
            ticktext=[f"<b>{break_words(name_for_people(name), 18)}</b>" for name in attributes],
            showticklabels=place == 1,
            side="top",
            showgrid=False,
            zeroline=False,
            fixedrange=True,
            range=[-0.5, len(attributes) - 0.5],
            row=place,
            col=1,
        )
        figure.update_yaxes(
            tickvals=list(range(len(organs))),
            ticktext=[name_organ(organ) for organ in organs],
            range=[len(organs) - 0.5, -0.5],
            showgrid=False,
            zeroline=False,
            fixedrange=True,
            row=place,
            col=1,
        )
        # In the margin, over the organs' names: a heading of the rows.
        figure.add_annotation(
            text=f"<b>{_shorten(model)}</b>", x=0, xref="paper", xanchor="right", xshift=-6,
            y=1 - (place - 1) * (panel + between) / body, yref="paper", yanchor="bottom", yshift=2, showarrow=False,
        )  # fmt: skip
    for look in VERDICT_LOOKS.values():
        # A key of its own: a heat map has none. The order of the key is that of the colours.
        figure.add_trace(
            go.Scatter(
                x=[None],
                y=[None],
                mode="markers",
                marker={"symbol": "square", "size": 14, "color": look.colour, "line": {"color": "#888888", "width": 1}},
                name=f"{look.sign} <b>{look.word}</b>: {look.meaning}",
                showlegend=True,
                hoverinfo="skip",
            ),
            row=1,
            col=1,
        )
    frame_figure(
        figure,
        title=f"For whom does it work worse? Verdicts on {name_metric(metric)}",
        subtitle=f"number: gap between best and worst group{_state_margin(part, metric)}; point at a cell for more",
        body=body,
        menu=menu,
        below=24,
        head=44,
        left=30 + 7 * max(len(name) for name in [*map(name_organ, organs), *map(_shorten, models)]),
        entry_width=300,
    )
    figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})
    return figure


def _find_verdict(row: dict[str, Any]) -> str:
    verdict = row.get("verdict", "")
    return verdict if isinstance(verdict, str) and verdict in VERDICT_LOOKS else ""


def _word_verdict(row: dict[str, Any], metric: str, between: str) -> str:
    look = VERDICT_LOOKS[_find_verdict(row)]
    gap = row.get("gap", np.nan)
    if not np.isfinite(gap):
        return f"{look.sign} {look.word}"
    word = look.word if _find_verdict(row) else _NO_MARGIN
    return f"{look.sign} {word}{between}{format_value(gap, metric)}"


def _explain_verdict(row: dict[str, Any], metric: str) -> str:
    if not row:
        return "not compared"
    lines = [f"<b>{row['model']} · {name_organ(row['organ'])} · {name_for_people(row['attribute'])}</b>"]
    if np.isfinite(row.get("gap", np.nan)):
        lines += [
            _word_verdict(row, metric, ": gap "),
            f"95 % interval {format_range(row['gap_low'], row['gap_high'], metric)}",
            f"best: {row['best_group']}, worst: {row['worst_group']}, n = {row['n']}",
            f"margin {format_value(row.get('margin', np.nan), metric)}",
            f"a true gap of {format_value(row.get('detectable', np.nan), metric)} or more would probably have been found (this comparison alone)",
            f"corrected p {format_p(row['p_adjusted'])}",
        ]
        if np.isfinite(row.get("adjusted_gap", np.nan)):
            lines.append(f"gap adjusted for covariates {format_value(row['adjusted_gap'], metric)}")
    note = row.get("note", "")
    return "<br>".join([*lines, *([break_words(note, 70)] if isinstance(note, str) and note else [])])


def _state_margin(part: pd.DataFrame, metric: str) -> str:
    margins = part["margin"].dropna().unique()
    return f"; margin {format_value(float(margins[0]), metric)}" if len(margins) == 1 else ""


def _shorten(name: str, longest: int = 24) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def plot_accuracy_fairness(
    groups: pd.DataFrame, disparity: pd.DataFrame, metric: str, attribute: str | None = None
) -> go.Figure:
    """Plot the gap of every model and organ over its mean: a good model is accurate, and equally so.

    Parameters
    ----------
    groups : DataFrame
        ``fairness/groups.csv``; the mean over people is that of the groups shown, weighted by their people.
    disparity : DataFrame
        ``fairness/disparity.csv``.
    metric : str
    attribute : str, optional
        Shown first (by default the table's first); a menu offers the others.

    Returns
    -------
    Figure
        A colour per model and a symbol per organ (open over seven organs); the bar is the 95 % interval of the gap, the shaded band
        the margin, an arrow points to the better corner.
    """
    title = f"Accuracy and fairness: gap over mean of {name_metric(metric)}"
    points = disparity[(disparity["metric"] == metric) & disparity["gap"].notna()].merge(
        _average_groups(groups[groups["metric"] == metric]),
        on=["model", "organ", "attribute"],
        how="left",
        validate="one_to_one",
    )
    attributes = put_first(points["attribute"], attribute)
    if points.empty or (attribute is not None and attribute not in set(points["attribute"])):
        return draw_nothing(title, "No groups are large enough to be compared.")
    return offer_choices(
        {
            name_for_people(name): _draw_accuracy(points, name, metric, title, menu=len(attributes) > 1)
            for name in attributes
        }
    )


def _average_groups(part: pd.DataFrame) -> pd.DataFrame:
    """Return each model's and organ's mean over the people of an attribute's shown groups."""
    keys = ["model", "organ", "attribute"]
    shown = part[part["mean"].notna()]
    shown = shown.assign(total=shown["mean"] * shown["n"])
    sums = shown.groupby(keys, as_index=False, sort=False)[["total", "n"]].sum()
    return sums.assign(overall=sums["total"] / sums["n"])[[*keys, "overall"]]


def _draw_accuracy(points: pd.DataFrame, attribute: str, metric: str, title: str, *, menu: bool) -> go.Figure:
    part = points[points["attribute"] == attribute]
    models, organs = list(dict.fromkeys(points["model"])), list(dict.fromkeys(points["organ"]))
    colours, symbols = colour_groups(models), mark_many(organs)
    figure = go.Figure()
    for model in models:
        chosen = part[part["model"] == model]
        figure.add_trace(
            go.Scatter(
                x=chosen["overall"],
                y=chosen["gap"],
                error_y=make_bars(chosen["gap"], chosen["gap_low"], chosen["gap_high"], colours[model])
                | {"thickness": 1, "width": 2},
                mode="markers",
                marker={"color": colours[model], "symbol": [symbols[organ] for organ in chosen["organ"]], "size": 11, "line": {"width": 1.5, "color": colours[model]}},
                customdata=[
                    f"<b>{model} · {name_organ(row.organ)}</b>, n = {row.n}<br>mean {format_value(row.overall, metric)}, gap {format_value(row.gap, metric)} "
                    f"({format_range(row.gap_low, row.gap_high, metric)})<br>best: {row.best_group}, worst: {row.worst_group}"
                    for row in chosen.itertuples(index=False)
                ],
                hovertemplate="%{customdata}<extra></extra>",
                legendgroup=f"model {model}",
                showlegend=False,
            )
        )  # fmt: skip
    for name, colour, symbol in [
        *((model, colours[model], "line-ew") for model in models),
        *((name_organ(organ), "#555555", symbols[organ]) for organ in organs),
    ]:
        width = 5 if symbol == "line-ew" else 1.5
        marker = {"color": colour, "symbol": symbol, "size": 12, "line": {"width": width, "color": colour}}
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, showlegend=True, hoverinfo="skip")
        )
    margins = part["margin"].dropna()
    if len(margins):
        margin = float(margins.iloc[0])
        figure.add_hrect(y0=-margin, y1=margin, fillcolor=MARGIN_COLOUR, line_width=0, layer="below")
    figure.add_hline(y=0, line=ZERO_LINE)
    higher = "higher is better" in METRIC_LABELS[metric]
    frame_figure(
        figure,
        title=title,
        subtitle=f"by {name_for_people(attribute)}; bars: 95 % intervals of the gap; shaded: within the margin",
        body=430,
        menu=menu,
        head=16,
        left=90,
    )
    low, high = float(points["gap_low"].min()), float(points["gap_high"].max())
    figure.update_yaxes(
        title=label_gap(metric), zeroline=False, range=[low - 0.12 * (high - low), high + 0.05 * (high - low)]
    )
    figure.update_xaxes(title=f"mean over people: {METRIC_LABELS[metric]}", zeroline=False)
    figure.add_annotation(
        text=f"better: to the {'right' if higher else 'left'}, and near zero", x=1 if higher else 0, y=0.005, xref="paper", yref="paper",
        xanchor="right" if higher else "left", yanchor="bottom", showarrow=False, font={"size": 13, "color": QUIET},
    )  # fmt: skip
    figure.add_annotation(
        text="less fair ↑", x=0 if higher else 1, y=0.995, xref="paper", yref="paper",
        xanchor="left" if higher else "right", yanchor="top", showarrow=False, font={"size": 13, "color": QUIET},
    )  # fmt: skip
    return figure


def plot_model_gaps(model_gaps: pd.DataFrame, metric: str) -> go.Figure:
    """Plot whether one model is fairer than another: differences of their gaps on the same people.

    Parameters
    ----------
    model_gaps : DataFrame
        ``fairness/model_gaps.csv``.
    metric : str

    Returns
    -------
    Figure
        A panel per attribute, a mark per pair of models: left of zero the first named has the smaller gap.
    """
    title = f"Is one model fairer than another? Differences of gaps in {name_metric(metric)}"
    part = model_gaps[model_gaps["metric"] == metric]
    drawn = part[part["difference"].notna()]
    if drawn.empty:
        return draw_nothing(title, "There are not two models whose groups could be compared.")
    attributes, organs = list(dict.fromkeys(drawn["attribute"])), list(dict.fromkeys(part["organ"]))
    pairs = list(dict.fromkeys(zip(drawn["model_a"], drawn["model_b"], strict=True)))
    names = [f"{first} − {second}" for first, second in pairs]
    colours, symbols = colour_groups(names), mark_groups(names)
    panel, between = len(organs) * max(42, 16 * len(pairs)), 64
    body = panel * len(attributes) + between * (len(attributes) - 1)
    figure = make_subplots(
        rows=len(attributes),
        cols=1,
        subplot_titles=[name_for_people(name) for name in attributes],
        shared_xaxes="all",
        vertical_spacing=between / body if len(attributes) > 1 else 0,
    )
    for row, attribute in enumerate(attributes, start=1):
        here = drawn[drawn["attribute"] == attribute]
        for (first, second), name, offset in zip(pairs, names, spread_rows(len(pairs)), strict=True):
            chosen = here[(here["model_a"] == first) & (here["model_b"] == second)]
            figure.add_trace(
                go.Scatter(
                    x=chosen["difference"],
                    y=[organs.index(organ) + offset for organ in chosen["organ"]],
                    error_x=make_bars(chosen["difference"], chosen["low"], chosen["high"]),
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=row == 1,
                    marker={"color": colours[name], "symbol": symbols[name], "size": 9},
                    customdata=[_explain_model_gap(item, metric) for item in chosen.to_dict("records")],
                    hovertemplate="%{customdata}<extra></extra>",
                ),
                row=row,
                col=1,
            )
        figure.add_vline(x=0, line=ZERO_LINE, row=row, col=1)
        figure.update_yaxes(
            tickvals=list(range(len(organs))),
            ticktext=[label_organ(here, organ) if "n" in here else name_organ(organ) for organ in organs],
            range=[len(organs) - 0.4, -0.6],
            zeroline=False,
            automargin=True,
            row=row,
            col=1,
        )
    figure.update_xaxes(zeroline=False, showticklabels=True)
    figure.update_xaxes(
        title=f"← first model fairer · {label_gap(metric, 'difference of gaps in')} · second model fairer →",
        row=len(attributes),
    )
    frame_figure(
        figure,
        title=title,
        subtitle="gap of the first model − gap of the second, same people; lines: 95 % intervals",
        body=body,
        footnote=list_not_compared(
            part.rename(columns={"difference": "gap"}).assign(model=part["model_a"] + " and " + part["model_b"])
        ),
    )
    return figure


def _explain_model_gap(row: dict[str, Any], metric: str) -> str:
    corrected = row.get("p_adjusted", np.nan)
    return (
        f"<b>{name_organ(row['organ'])}</b><br>gap of {row['model_a']} {format_value(row['gap_a'], metric)}, of {row['model_b']} "
        f"{format_value(row['gap_b'], metric)}<br>difference {format_value(row['difference'], metric)} "
        f"({format_range(row['low'], row['high'], metric)})<br>"
        + (f"corrected p {format_p(corrected)}" if np.isfinite(corrected) else f"p {format_p(row['p'])}")
    )
