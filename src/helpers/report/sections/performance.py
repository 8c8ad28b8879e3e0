"""How well each model does, and for whom worse: every comparison, the people behind it, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.fairness.groups import hide_small_groups
from helpers.figures.fairness_gaps import plot_gap_forest, plot_gap_ladder, plot_model_gaps
from helpers.figures.fairness_people import plot_group_people, plot_intersections, plot_trend_curves
from helpers.figures.style import name_for_people
from helpers.report import sentences
from helpers.report.blocks import Block, Figure, Heading, Note, Section, Table, Text
from helpers.report.escaping import escape_for_plotly, escape_text
from helpers.report.outputs import Outputs
from helpers.report.sections.agreement import compose_agreement
from helpers.report.sections.overall import tabulate_overall
from helpers.report.sections.questions import (
    average_people,
    choose_metric,
    is_compared,
    list_found,
    make_missing,
    make_section,
    select_comparisons,
)
from helpers.report.sentences import Outcome
from helpers.vocabulary.verdicts import read_verdict

_PLACE = ("performance", "How well each model does, and for whom worse", "Performance")
_MOST_DOTS = 9


def compose_performance(outputs: Outputs) -> Section:
    """Compose performance overall and per group, with the figures of the fairness room."""
    if outputs.metrics is None:
        return make_missing(_PLACE, "Performance has not been measured: 03_performance has not been run.")
    blocks: list[Block] = [tabulate_overall(outputs)]
    if outputs.disparity is None or outputs.groups is None:
        blocks.append(Note("Groups have not been compared: 03_performance has not been finished."))
        return make_section(_PLACE, blocks)
    if not is_compared(outputs):
        smallest = outputs.parameters.fairness.min_group
        blocks.append(Note(sentences.describe_no_statistics(len(outputs.included), smallest)))
        return make_section(_PLACE, blocks)
    blocks += _draw_gaps(outputs)
    blocks += _draw_people(outputs)
    blocks += _draw_trends(outputs)
    blocks += _draw_intersections(outputs)
    blocks += _compare_models(outputs)
    blocks += compose_agreement(outputs)
    blocks += [Heading("Every comparison in numbers"), _tabulate_gaps(outputs, outputs.disparity)]
    pairs = _tabulate_pairs(outputs)
    if pairs is not None:
        blocks.append(pairs)
    return make_section(_PLACE, blocks)


def _draw_gaps(outputs: Outputs) -> list[Block]:
    disparity, metric = escape_for_plotly(outputs.disparity), choose_metric(outputs)
    name = sentences.METRIC_NAMES[metric]
    blocks: list[Block] = [
        Heading("How far apart the groups are"),
        Figure(
            plot_gap_forest(disparity, metric),
            f"Each mark is the gap in {name} between the best and the worst group; the line is its 95 % interval, the shaded band is "
            "the margin below which a gap is of no consequence. A line that crosses zero means that no gap is shown, not that there is "
            "none: its far end is how large it may be. Among three groups or more the largest gap is above zero by chance alone.",
        ),
    ]
    if metric == "dice" and "boundary_error_mm" in set(disparity["metric"]):
        blocks.append(
            Figure(
                plot_gap_forest(disparity, "boundary_error_mm"),
                "The same in millimetres: how much further off the outline is in the worst group. This does not depend on organ size. "
                "The worst group may be another one than for Dice.",
            )
        )
    found = list_found(outputs)
    if any(name in disparity and disparity[name].notna().any() for name in ("excess_gap", "adjusted_gap")):
        blocks += [
            Heading("What the gaps are made of"),
            Figure(
                plot_gap_ladder(disparity, metric, escape_text(str(found[0]["model"])) if found else None),
                "One model at a time; the menu chooses it. For each organ from top to bottom: the gap as found; the gap that organ size alone would "
                "give if everyone had the same error at the outline; what is left of it; and the gap with the other recorded differences between the "
                "groups held equal. A gap that moves to zero on the way is owed to what was allowed for. Lines are 95 % intervals.",
            ),
        ]
    return blocks


def _draw_people(outputs: Outputs) -> list[Block]:
    """Return the people of every shown difference as dots; of the largest gap where none is shown."""
    metric = choose_metric(outputs)
    if outputs.metrics is None or metric not in outputs.metrics:
        return []
    compared = select_comparisons(outputs, metric)
    rows = compared[compared["gap"].notna()].to_dict("records")
    shown = list_found(outputs)
    if not rows:
        return []
    told = shown or [max(rows, key=lambda row: row["gap"])]
    people = escape_for_plotly(average_people(outputs, [metric]))
    blocks: list[Block] = [
        Heading("The people behind the differences shown" if shown else "The people behind the largest gap")
    ]
    pairs = dict.fromkeys((row["model"], row["attribute"]) for row in sorted(told, key=lambda row: -row["gap"]))
    for model, attribute in list(pairs)[:_MOST_DOTS]:
        wanted = {row["organ"] for row in told if (row["model"], row["attribute"]) == (model, attribute)} | {"all"}
        organs = [organ for organ in dict.fromkeys(people["organ"]) if organ in wanted]
        blocks.append(
            Figure(
                plot_group_people(
                    hide_small_groups(people, metric, attribute, outputs.parameters.fairness.min_group),
                    metric,
                    attribute,
                    model=model,
                    organs=organs,
                    groups=escape_for_plotly(outputs.groups),
                ),
                "Each dot is one person, the half violin beside the dots is their distribution, the black mark the group's mean "
                "with its 95 % interval. See how far the groups overlap, and whether a few people or all of them make the difference.",
            )
        )
    if len(pairs) > _MOST_DOTS:
        blocks.append(Text(f"{len(pairs) - _MOST_DOTS} more such figures are in the notebook 03_performance."))
    return blocks


def _draw_trends(outputs: Outputs) -> list[Block]:
    trends, tests, metric = outputs.trends, outputs.trend_tests, choose_metric(outputs)
    if trends is None or tests is None or trends.empty or not (trends["metric"] == metric).any():
        return []
    return [
        Heading("Without cutting numbers into groups"),
        Figure(
            plot_trend_curves(escape_for_plotly(trends), escape_for_plotly(tests), metric),
            f"A smooth curve of {sentences.METRIC_NAMES[metric]} through everyone, with the other recorded differences held equal; the menu chooses what "
            "is along the axis and the organ. Between the dotted lines the whole curve lies with 95 % confidence: if a level line fits between them, no trend is shown.",
        ),
    ]


def _draw_intersections(outputs: Outputs) -> list[Block]:
    cells, metric = outputs.intersections, choose_metric(outputs)
    if cells is None or cells.empty or "pooled" not in cells or cells["pooled"].isna().all():
        return []
    return [
        Heading("Where groups meet"),
        Figure(
            plot_intersections(escape_for_plotly(cells), metric),
            "Somebody can belong to two groups that are each served well, and be served badly. Each cell is the mean of the people in it, "
            "steadied by the others where they are few, with its 95 % interval; hatched cells have too few people to be shown. "
            "None of these is tested one by one.",
        ),
    ]


def _compare_models(outputs: Outputs) -> list[Block]:
    gaps, metric = outputs.model_gaps, choose_metric(outputs)
    if gaps is None or gaps.empty:
        return []
    rows = gaps[gaps["metric"] == metric]
    said = sentences.describe_model_gaps(rows, outputs.parameters.fairness.alpha)
    if not said:
        return []
    return [
        Heading("Is one model fairer than another?"),
        Text(said),
        Figure(
            plot_model_gaps(escape_for_plotly(gaps), metric),
            "Each mark is the gap of the first model named less that of the second, on the same people: left of zero the first has the smaller gap. "
            "Where the line, a 95 % interval, crosses zero, neither is shown to be fairer. Of many lines some miss zero by chance: point at a mark for "
            "its corrected p-value. A smaller gap is no gain where both groups are served worse.",
        ),
    ]


def _tabulate_gaps(outputs: Outputs, disparity: pd.DataFrame) -> Table:
    """Return every comparison that could be made, as numbers."""
    alpha = outputs.parameters.fairness.alpha
    judged = [(sentences.judge_gap(row, alpha), row) for row in disparity.to_dict("records")]
    # The gravest first; within a kind in the order of the study's file.
    judged.sort(key=lambda pair: list(Outcome).index(pair[0]))
    rows = [_tabulate_gap(row, alpha) for outcome, row in judged if outcome is not Outcome.NOT_COMPARED]
    frame = pd.DataFrame(rows)
    numeric = (
        "Gap (95 % interval)", "Margin", "Size alone", "Excess", "Adjusted", "Would have been found", "Corrected p",
    )  # fmt: skip
    frame = frame.loc[:, [name for name in frame if name not in numeric or not frame[name].isin(["–", ""]).all()]]
    return Table("Every comparison", frame, numeric=numeric, folded=True)


def _tabulate_gap(row: Mapping[str, Any], alpha: float) -> dict[str, str]:
    metric = str(row["metric"])
    look = read_verdict(row, alpha)
    unit = "points" if metric in sentences.SCORES else metric.rpartition("_")[2]
    return {
        "Model": row["model"],
        "Organ": sentences.name_organ(row["organ"]),
        "By": name_for_people(str(row["attribute"])),
        "Measure": f"{sentences.METRIC_NAMES.get(metric, metric)}, {unit}",
        "Verdict": f"{look.sign} {look.word}",
        "Worse than": f"“{row['worst_group']}” than “{row['best_group']}”",
        "Gap (95 % interval)": sentences.format_estimate(row["gap"], row.get("gap_low"), row.get("gap_high"), metric),
        "Margin": sentences.format_estimate(row.get("margin"), None, None, metric),
        "Size alone": sentences.format_estimate(row.get("expected_gap"), None, None, metric),
        "Excess": sentences.format_estimate(
            row.get("excess_gap"), row.get("excess_low"), row.get("excess_high"), metric
        ),
        "Adjusted": sentences.format_estimate(
            row.get("adjusted_gap"), row.get("adjusted_low"), row.get("adjusted_high"), metric
        ),
        "Would have been found": sentences.format_estimate(row.get("detectable"), None, None, metric),
        "Corrected p": sentences.format_p(row["p_adjusted"] if "p_adjusted" in row else row.get("p")).removeprefix(
            "p "
        ),
    }


def _tabulate_pairs(outputs: Outputs) -> Table | None:
    """Return which groups differ from which, where there are more than two and they differ at all."""
    pairs = outputs.pairs
    if pairs is None or pairs.empty or not {"group_a", "test", "p"} <= set(pairs):
        return None
    rows = [
        {
            "Model": row["model"],
            "Organ": sentences.name_organ(row["organ"]),
            "By": name_for_people(str(row["attribute"])),
            "Measure": sentences.METRIC_NAMES.get(str(row["metric"]), str(row["metric"])),
            "Groups": f"“{row['group_a']}” and “{row['group_b']}”",
            "Test": row["test"],
            "p, pairs corrected": sentences.format_p(row["p"]).removeprefix("p "),
        }
        for row in pairs[pairs["p"].notna()].to_dict("records")
    ]
    if not rows:
        return None
    return Table(
        "Which groups differ from which, where there are more than two",
        pd.DataFrame(rows),
        numeric=("p, pairs corrected",),
        folded=True,
    )
