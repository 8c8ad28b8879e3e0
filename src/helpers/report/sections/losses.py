"""Who was left out, what failed, and what could not be measured."""

from __future__ import annotations

import pandas as pd

from helpers.figures.panels import MANY_MODELS
from helpers.report.blocks import Block, Bullets, Heading, Note, ReportSection, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import count_exclusions, count_resampled, name_row, tell_failures
from helpers.report.sentences.study import count_reasons, describe_exclusions, describe_resampled
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.statuses import STATUSES, Status
from helpers.vocabulary.words import format_number, format_value, name_for_people, name_group, name_organ

_PLACE = ("losses", "Who was left out, and what failed", "Left out")


def compose_losses(outputs: Outputs) -> ReportSection:
    """Compose who was left out and why, what failed, and what could not be measured."""
    blocks: list[Block] = []
    if outputs.cohort is None:
        blocks.append(Note("Who was left out is not known: 01_cohort has not been run."))
    else:
        blocks += [Text(describe_exclusions(*count_exclusions(outputs))), *_count_reasons(outputs, outputs.cohort)]
    blocks += [Heading("Scans on which a model failed" if outputs.has_masks else "Missing scores")]
    blocks += tell_failures(outputs)
    blocks += _tabulate_bounds(outputs)
    resampled = describe_resampled(count_resampled(outputs), len(outputs.included), outputs.inference)
    if resampled:
        blocks += [Heading("Masks that lay on another grid"), Bullets(tuple(resampled))]
    if outputs.metrics is not None and "status" in outputs.metrics:
        what = "masks" if outputs.has_masks else "cells"
        blocks.append(Heading(f"Empty and missing {what}, and what they count as"))
        blocks += [*_count_statuses(outputs.metrics, masks=outputs.has_masks), _count_by_organ(outputs.metrics)]
    return ReportSection(*_PLACE, tuple(blocks))


def _tabulate_bounds(outputs: Outputs) -> list[Block]:
    """Return what gaps could be, were it not for what is missing."""
    bounds = outputs.missing_bounds
    if bounds is None or bounds.empty:
        return []
    rows = [
        name_row(row)
        | {
            "Measure": find_measure(metric).name,
            "Compared": " with ".join(name_group(row["attribute"], row[f"{side}_group"]) for side in ("worst", "best")),
            "Gap": format_value(row["gap"], metric),
            "If failures": format_value(row["gap_failed"], metric),
            "Worst then": name_group(row["attribute"], row["worst_failed"]),
            "Possible": f"{format_number(row['lowest'], metric)} to {format_value(row['highest'], metric)}",
        }
        for row in bounds.to_dict("records")
        for metric in [str(row["metric"])]
    ]
    return [
        Text(
            "Gaps rest on the results that there are. If what is missing were failures, with the worst value that "
            "there is (of a distance the scan's diagonal, for organs that the model missed too), they would be these; "
            "whatever it is, they are possible within the range."
        ),
        ReportTable(
            "Gaps if what is missing were failures", pd.DataFrame(rows), ("Gap", "If failures", "Possible"), folded=True
        ),
    ]


def _count_reasons(outputs: Outputs, cohort: pd.DataFrame) -> list[Block]:
    left_out = cohort[~cohort["included"].astype(bool)]
    told = left_out if outputs.exclusions is None else outputs.exclusions
    counted = count_reasons(told["reason"], told.get("kind")) if len(left_out) else []
    rows = pd.DataFrame(counted, columns=["Reason", "Scans"]).astype(str)
    return [ReportTable("Scans left out, by reason", rows, numeric=("Scans",))] if counted else []


def _find_status(key: str) -> Status:
    return STATUSES.get(key, Status(key, name_for_people(key), "not stated"))


def _count_statuses(metrics: pd.DataFrame, *, masks: bool) -> list[Block]:
    """Return every convention with how often it applied to each model, zeros too."""
    counts = metrics.groupby(["status", "model"], observed=True).size()
    models = list(metrics["model"].unique())
    kept = [key for key, status in STATUSES.items() if status.of_scores in (None, not masks)]
    found = [_find_status(key) for key in dict.fromkeys((*kept, *metrics["status"].unique())) if key != "ok"]
    rows = pd.DataFrame([{"What happened": status.meaning, "What it counts as": status.counts_as} for status in found])
    caption = "Conventions, and how often they applied"
    if len(models) <= MANY_MODELS:
        columns = {model: f"{model} (organ–scan pairs)" for model in models}
        for model, name in columns.items():
            rows[name] = [str(int(counts.get((status.key, model), 0))) for status in found]
        return [ReportTable(caption, rows, numeric=tuple(columns.values()), folded=True)]
    # With a row per model each column has a short head; the letters lead from one to the other.
    letters = [chr(ord("A") + place) for place in range(len(found))]
    rows.insert(0, "Letter", letters)
    of_models = [
        {"Model": model}
        | {letter: str(int(counts.get((status.key, model), 0))) for letter, status in zip(letters, found, strict=True)}
        for model in models
    ]
    every = "How often they applied to each model (organ–scan pairs)"
    return [
        ReportTable("Conventions", rows, folded=True),
        ReportTable(every, pd.DataFrame(of_models), numeric=tuple(letters), folded=True),
    ]


def _count_by_organ(metrics: pd.DataFrame) -> Block:
    counts = metrics[metrics["status"] != "ok"].groupby(["model", "organ", "status"], sort=False, observed=True).size()
    rows = [
        (model, name_organ(organ), str(number), _find_status(status).meaning)
        for (model, organ, status), number in counts.items()
    ]
    if not rows:
        return Text("Every organ of every scan could be measured.")
    frame = pd.DataFrame(rows, columns=["Model", "Organ", "Scans", "What happened"])
    return ReportTable("Scans without an ordinary result", frame, numeric=("Scans",), folded=len(rows) > 8)
