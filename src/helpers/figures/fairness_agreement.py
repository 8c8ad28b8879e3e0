"""Agreement: annotators with each other, a model prompted again, models' gaps beside theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import draw_nothing
from helpers.figures.rows import Mark, count_people, draw_rows, label_gap, list_group_marks
from helpers.figures.style import PALETTE
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import format_p, name_for_people, name_organ, state_estimate

_TITLES = {
    "annotators": "Do annotators agree less on some? {} between annotators",
    "prompts": "Does the prompt matter more for some? {} between repeated prompts",
}
_ABSENT = {
    "annotators": "Fewer than two models are marked as human annotators (annotator: true): "
    "there is no agreement to compare.",
    "prompts": "Every prompt was drawn once (prompt.draws: 1): there is nothing to compare.",
}


def plot_agreement(groups: pd.DataFrame, kind: str, metric: str = "dice") -> go.Figure:
    """Plot the mean agreement of every group with its interval, a panel per attribute.

    `groups` is ``fairness/agreement_groups.csv``, `kind` ``"annotators"`` or ``"prompts"``,
    `metric` what the agreement is measured in. Per organ (and model, for prompts) a mark per group;
    groups too small to be shown are named beneath.
    """
    measure = find_measure(metric)
    title = _TITLES[kind].format(measure.long_name)
    part = groups[(groups["kind"] == kind) & (groups["metric"] == metric)]
    drawn = part[part["mean"].notna()]
    if drawn.empty:
        few = "No group is large enough to be shown." if len(part) else "It is not measured: it needs a reference."
        return draw_nothing(title, few if (groups["kind"] == kind).any() else _ABSENT[kind])
    part = part.assign(row=_name_rows(part))
    marks = {name: list_group_marks(part[part["attribute"] == name]) for name in dict.fromkeys(drawn["attribute"])}
    grid = draw_rows(
        part,
        marks,
        list(dict.fromkeys(part["row"])),
        lambda row, _: (
            f"<b>{row['row']}</b><br>{row['group']}, n = {row['n']:.0f}"
            f"<br>{state_estimate(row['mean'], row['ci_low'], row['ci_high'], metric)}"
        ),
        counted=False,
        zero=False,
    )
    grid.title_axes(f"{measure.long_name}<br>({measure.scale}, {measure.say_best('is more alike')})")
    small = part[part["mean"].isna()]
    absent = dict.fromkeys(
        f"{name_for_people(name)} {group}" for name, group in zip(small["attribute"], small["group"], strict=True)
    )
    return grid.frame(
        title=title,
        subtitle="means over people; lines: 95 % confidence intervals",
        below=74,
        left=110,
        footnote=f"Not shown, too few people: {', '.join(absent)}" if absent else "",
    )


def plot_against_annotators(against: pd.DataFrame, metric: str) -> go.Figure:
    """Plot every model's gap beside the annotators' gap between the same two groups.

    `against` is ``fairness/against_agreement.csv``. A panel per attribute, a row per organ and
    model with two marks and their 95 % confidence intervals.
    """
    title = f"Models' gaps beside the annotators': {find_measure(metric).name}"
    part = against[against["metric"] == metric]
    if part.empty:
        few = "No two groups are large enough to be compared."
        return draw_nothing(title, few if len(against) else _ABSENT["annotators"])
    part = part.assign(row=_name_rows(part))
    marks = (
        Mark("the model's gap", "gap", ("gap_low", "gap_high"), PALETTE[6], "circle"),
        Mark(
            "the annotators' gap, same two groups", "annotators_gap", ("annotators_low", "annotators_high"), PALETTE[1],
            "diamond-open",
        ),
    )  # fmt: skip
    grid = draw_rows(
        part,
        dict.fromkeys(part["attribute"], marks),
        list(dict.fromkeys(part["row"])),
        lambda row, _: _explain(row, metric),
        counted=False,
    )
    # The panels' titles are the first annotations.
    for heading, (_, here) in zip(grid.figure.layout.annotations, part.groupby("attribute", sort=False), strict=False):
        heading.text += f", {count_people(here['n'])}"
    grid.title_axes(label_gap(metric))
    return grid.frame(
        title=title,
        subtitle="best − worst group of the model; annotators left of zero: they agree better on its worst group",
        below=74,
        left=110,
    )


def _name_rows(part: pd.DataFrame) -> list[str]:
    """Return what stands beside each row: the organ, and the model where there are several."""
    several = len(set(part["model"])) > 1
    pairs = zip(part["organ"], part["model"], strict=True)
    return [f"{name_organ(organ)}<br>{model}" if several else name_organ(organ) for organ, model in pairs]


def _explain(row: dict[str, Any], metric: str) -> str:
    theirs = (row["annotators_gap"], row["annotators_low"], row["annotators_high"])
    lines = [
        f"<b>{row['row']}</b>, n = {row['n']:.0f}",
        f"best: {row['best_group']}, worst: {row['worst_group']}",
        f"the model's gap {state_estimate(row['gap'], row['gap_low'], row['gap_high'], metric)}",
        f"the annotators' {state_estimate(*theirs, metric)}",
        f"difference {state_estimate(row['difference'], row['low'], row['high'], metric)}",
    ]
    if np.isfinite(row["p_adjusted"]):
        lines.append(f"adjusted {format_p(row['p_adjusted'])}")
    return "<br>".join(lines)
