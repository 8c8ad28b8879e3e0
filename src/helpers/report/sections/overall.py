"""How well each model does on everyone."""

from __future__ import annotations

import pandas as pd

from helpers.figures.style import METRIC_LABELS
from helpers.report import sentences
from helpers.report.blocks import Table
from helpers.report.outputs import Outputs


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
                "Organ": sentences.name_organ(organ),
                "People": str(int(part["dice"].notna().sum())) if "dice" in part else "",
            }
            for metric in told:
                values = part[metric].dropna()
                cells[METRIC_LABELS[metric]] = _tell_quartiles(values, metric)
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
    middle = sentences.format_level(values.median(), metric)
    if len(values) < 4:
        return middle
    low, high = (sentences.format_level(values.quantile(q), metric).split(" ")[0] for q in (0.25, 0.75))
    return f"{middle} ({low} to {high})"
