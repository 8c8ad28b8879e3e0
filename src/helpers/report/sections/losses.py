"""Who was left out, what failed, and what could not be measured."""

from __future__ import annotations

import pandas as pd

from helpers.figures.style import name_for_people
from helpers.report import sentences
from helpers.report.blocks import Block, Heading, Note, Section, Table, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import make_section, tabulate_reasons, tell_failures

_PLACE = ("losses", "Who was left out, and what failed", "Left out")


def compose_losses(outputs: Outputs) -> Section:
    """Compose who was left out and why, what failed, and what could not be measured."""
    blocks: list[Block] = []
    if outputs.cohort is None:
        blocks.append(Note("Who was left out is not known: 01_cohort has not been run."))
    else:
        excluded = outputs.cohort[~outputs.cohort["included"].astype(bool)]
        blocks.append(Text(sentences.describe_exclusions(len(outputs.cohort), len(excluded))))
        if len(excluded):
            told = excluded if outputs.exclusions is None else outputs.exclusions
            blocks.append(tabulate_reasons("Scans left out, by reason", told))
    blocks += [Heading("Scans on which a model failed"), *tell_failures(outputs)]
    if outputs.metrics is not None and "status" in outputs.metrics:
        blocks.append(Heading("Empty and missing masks, and what they count as"))
        blocks.append(_count_statuses(outputs.metrics))
        by_organ = _count_by_organ(outputs.metrics)
        blocks.append(by_organ if by_organ is not None else Text("Every organ of every scan could be measured."))
    return make_section(_PLACE, blocks)


def _count_statuses(metrics: pd.DataFrame) -> Table:
    """Return every convention with how often it applied to each model, zeros too."""
    models = list(dict.fromkeys(metrics["model"]))
    counts = metrics.groupby(["status", "model"], observed=True).size()
    rows = []
    for status in [
        *sentences.STATUSES,
        *(name for name in metrics["status"].unique() if name not in sentences.STATUSES),
    ]:
        if status == "ok":
            continue
        what, counts_as = sentences.STATUSES.get(status, (name_for_people(status), "not stated"))
        rows.append(
            {
                "What happened": what,
                "What it counts as": counts_as,
                **{f"{model} (organs of scans)": str(int(counts.get((status, model), 0))) for model in models},
            }
        )
    frame = pd.DataFrame(rows)
    return Table("Conventions, and how often they applied", frame, numeric=tuple(frame.columns[2:]))


def _count_by_organ(metrics: pd.DataFrame) -> Table | None:
    counts = metrics.groupby(["model", "organ", "status"], sort=False, observed=True).size()
    rows = [
        {
            "Model": model,
            "Organ": sentences.name_organ(organ),
            "Scans": str(number),
            "What happened": sentences.STATUSES.get(status, (name_for_people(status), ""))[0],
        }
        for (model, organ, status), number in counts.items()
        if status != "ok"
    ]
    if not rows:
        return None
    return Table("Scans without an ordinary result", pd.DataFrame(rows), numeric=("Scans",), folded=len(rows) > 8)
