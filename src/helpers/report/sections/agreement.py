"""How well people, and repeated prompts, agree by themselves: what a model's gap is to be read against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.figures.style import name_for_people
from helpers.report import sentences
from helpers.report.blocks import Block, Heading, Table, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import choose_metric

_KINDS = {"annotators": "Between annotators", "prompts": "Between repeated prompts"}


def compose_agreement(outputs: Outputs) -> list[Block]:
    """Compose what was measured of agreement; nothing where neither annotators nor repeated prompts are in the study."""
    agreement, metric = outputs.agreement, choose_metric(outputs)
    if agreement is None or agreement.empty:
        return []
    agreement = agreement[agreement["metric"] == metric]
    alpha = outputs.parameters.fairness.alpha
    blocks: list[Block] = []
    for kind, lead in _KINDS.items():
        rows = agreement[agreement["kind"] == kind]
        if len(rows):
            blocks.append(Text(sentences.describe_agreement(rows, alpha, people=kind == "annotators"), lead=f"{lead}."))
    against = outputs.against_agreement
    if against is not None and len(against):
        said = sentences.describe_against_agreement(against[against["metric"] == metric], alpha)
        if said:
            blocks.append(Text(said, lead="A model's gap beside the people's."))
    if not blocks:
        return []
    table = pd.DataFrame(
        [_tabulate(row, metric) for row in agreement.to_dict("records") if sentences.is_known(row["gap"])]
    )
    tables: list[Block] = []
    if len(table):
        tables.append(
            Table("Agreement, group against group", table, numeric=("Gap", "95 % interval"), folded=len(table) > 12)
        )
    return [
        Heading("How well people, or repeated prompts, agree by themselves"),
        Text(
            "Where experts agree less with each other, a model cannot be expected to agree with one of them; where a slightly moved prompt gives another mask, "
            "the model's score is partly luck. Both may go with a group."
        ),
        *blocks,
        *tables,
    ]


def _tabulate(row: Mapping[str, Any], metric: str) -> dict[str, str]:
    return {
        "Between": "annotators" if row["kind"] == "annotators" else f"prompts of {row['model']}",
        "Organ": sentences.name_organ(row["organ"]),
        "By": name_for_people(str(row["attribute"])),
        "Lower in": f"“{row['worst_group']}”",
        "Higher in": f"“{row['best_group']}”",
        "Gap": sentences.format_size(row["gap"], metric),
        "95 % interval": sentences.format_interval(row["gap_low"], row["gap_high"], metric),
        "Corrected p": sentences.format_p(row["p_adjusted"]),
        "Verdict": str(row["verdict"]),
    }
