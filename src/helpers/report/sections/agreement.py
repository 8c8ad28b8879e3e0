"""How well annotators, and repeated prompts, agree: what a model's gap is to be read against."""

from __future__ import annotations

import pandas as pd

from helpers.report.blocks import Block, Heading, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sentences.agreement import describe_against_agreement, describe_agreement
from helpers.report.sentences.gaps import Row
from helpers.vocabulary.verdicts import read_verdict
from helpers.vocabulary.words import (
    compare_p,
    format_interval,
    format_value,
    is_known,
    list_words,
    name_for_people,
    name_group,
    name_organ,
)

_KINDS = {"annotators": "Between annotators", "prompts": "Between repeated prompts"}
_WHY = {
    "annotators": "Where experts agree less with each other, a model cannot be expected to agree with one of them.",
    "prompts": "Where a slightly moved prompt gives another mask, the model's score is partly luck.",
}


def compose_agreement(outputs: Outputs) -> list[Block]:
    """Compose what was measured of agreement; nothing without annotators and repeated prompts."""
    agreement, metric, alpha = outputs.agreement, outputs.main_metric, outputs.parameters.fairness.alpha
    if agreement is None or agreement.empty:
        return []
    agreement = agreement[agreement["metric"] == metric]
    parts = {kind: agreement[agreement["kind"] == kind] for kind in _KINDS if kind in set(agreement["kind"])}
    blocks: list[Block] = [
        Text(describe_agreement(rows, alpha, annotators=kind == "annotators"), lead=f"{_KINDS[kind]}.")
        for kind, rows in parts.items()
    ]
    against = outputs.against_agreement
    if against is not None and len(against):
        said = describe_against_agreement(against[against["metric"] == metric], alpha)
        blocks += [Text(said, lead="A model's gap beside the annotators'.")] if said else []
    if not blocks:
        return []
    rows = [_tabulate(row, metric, alpha) for row in agreement.to_dict("records") if is_known(row["gap"])]
    if rows:
        frame, numeric = pd.DataFrame(rows), ("Gap", "95 % CI", "Adjusted p")
        blocks.append(ReportTable("Agreement, group against group", frame, numeric=numeric, folded=len(rows) > 12))
    who = list_words((kind if kind == "annotators" else f"repeated {kind}" for kind in parts), last="or")
    why = " ".join(_WHY[kind] for kind in parts)
    return [Heading(f"How well {who or 'annotators'} agree"), Text(f"{why} This may differ between groups."), *blocks]


def _tabulate(row: Row, metric: str, alpha: float) -> dict[str, str]:
    verdict = read_verdict(row, alpha)
    return {
        "Between": "annotators" if row["kind"] == "annotators" else f"prompts of {row['model']}",
        "Organ": name_organ(row["organ"]),
        "By": name_for_people(str(row["attribute"])),
        "Lower in": name_group(row["attribute"], row["worst_group"]),
        "Higher in": name_group(row["attribute"], row["best_group"]),
        "Gap": format_value(row["gap"], metric),
        "95 % CI": format_interval(row["gap_low"], row["gap_high"], metric),
        "Adjusted p": compare_p(row["p_adjusted"]),
        "Verdict": f"{verdict.sign} {verdict.word}",
    }
