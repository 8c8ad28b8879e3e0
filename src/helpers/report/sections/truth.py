"""What was planted, beside what was found: of phantoms alone the truth is known."""

from __future__ import annotations

import pandas as pd

from helpers.demo.lessons import compare_with_truth
from helpers.report.blocks import ReportSection, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import format_gap, name_row
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import read_verdict

_PLACE = ("truth", "The truth, and what was found", "Truth")


def compose_truth(outputs: Outputs) -> ReportSection | None:
    """Compose what was planted beside what was found; None where the truth is not known."""
    if not outputs.is_phantoms or not outputs.is_compared or outputs.disparity is None:
        return None
    metric, alpha = outputs.main_metric, outputs.parameters.fairness.alpha
    truth = compare_with_truth(outputs.parameters, outputs.disparity, metric)
    if truth.empty:
        return None
    rows = [
        {
            "Planted": row["planted"],
            **name_row(row),
            "Gap (95 % CI)": format_gap(row, "gap", metric),
            "Verdict": f"{(verdict := read_verdict(row, alpha)).sign} {verdict.word}",
            "Found?": row["found"],
        }
        for row in truth.to_dict("records")
    ]
    told = (
        "These are phantoms, so what is wrong with the masks is known. Each planted error is set beside the audit's "
        f"verdict in {find_measure(metric).name}, and each disparity found where nothing was planted beside the "
        "others: models that were not planted may err by themselves."
    )
    table = ReportTable("Planted and found", pd.DataFrame(rows), numeric=("Gap (95 % CI)",))
    return ReportSection(*_PLACE, (Text(told), table))
