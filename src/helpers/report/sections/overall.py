"""How well each model does on everyone."""

from __future__ import annotations

import pandas as pd

from helpers.report.blocks import Table
from helpers.report.outputs import Outputs
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import format_estimate, format_value, name_organ


def tabulate_overall(outputs: Outputs) -> Table:
    """Return medians over people: unlike means they do not give away a group that is left out."""
    metrics = outputs.metrics if outputs.metrics is not None else pd.DataFrame()
    told = [metric for metric in dict.fromkeys(("dice", *outputs.parameters.fairness.metrics)) if metric in metrics]
    rows = []
    if len(metrics):
        by_person = (
            metrics.groupby(["model", "organ", "person"], sort=False)[told].mean().groupby(level=[0, 1], sort=False)
        )
        for (model, organ), part in by_person:
            cells = {
                "Model": model,
                "Organ": name_organ(organ),
                "People": str(int(part["dice"].notna().sum())) if "dice" in part else "",
            }
            for metric in told:
                cells[find_measure(metric).label] = _tell_quartiles(part[metric].dropna(), metric)
            rows.append(cells)
    frame = pd.DataFrame(rows)
    return Table(
        "Each model on everyone: median over people (quarter to three quarters)",
        frame,
        numeric=tuple(name for name in frame if name not in ("Model", "Organ")),
    )


def _tell_quartiles(values: pd.Series, metric: str) -> str:
    if values.empty:
        return "not measured"
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return format_value(middle, metric) if len(values) < 4 else format_estimate(middle, low, high, metric)
