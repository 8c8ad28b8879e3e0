"""Which attributes matter most: how often groups by each differ, and by how much at most."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.fairness.tables import KEY_COLUMNS, make_table
from helpers.vocabulary.verdicts import Verdict
from helpers.vocabulary.words import ALL_MODELS


def rank_attributes(disparity: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Rank attributes by how often their groups are shown to differ (``ranking`` of the schema).

    `disparity` and `groups` are the audit's tables. One row per metric and attribute, in the
    metrics' order and within a metric from the attribute whose groups differ most often: ``share``
    of the comparisons of single models that are a disparity or a difference. ``largest_gap_sd`` is
    the largest gap of any of them in standard deviations of people within groups (Cohen's d with
    the pooled SD), and ``model`` and ``organ`` say where. Of many comparisons the largest gap is
    larger than the true one, the more so the smaller the groups are.
    """
    keys = list(KEY_COLUMNS)
    compared = disparity[disparity["gap"].notna() & (disparity["model"] != ALL_MODELS)]
    shown = groups[groups["mean"].notna() & (groups["n"] > 1)]
    free = (shown["n"] - 1).astype(float)
    sums = shown.assign(free=free, squares=free * shown["sd"] ** 2).groupby(keys, sort=False)[["free", "squares"]].sum()
    spread = np.sqrt(sums["squares"] / sums["free"]).rename("spread").reset_index()
    table = compared.merge(spread, on=keys, how="left", validate="one_to_one")
    table["standardised"] = (table["gap"] / table["spread"]).where(table["spread"] > 0)
    rows = []
    for (metric, attribute), part in table.groupby(["metric", "attribute"], sort=False):
        counts = {name: int((part["verdict"] == verdict).sum()) for name, verdict in _COUNTED.items()}
        row = {"metric": metric, "attribute": attribute, "comparisons": len(part)} | counts
        row["share"] = (counts["disparities"] + counts["differences"]) / len(part)
        if part["standardised"].notna().any():
            largest = part.loc[part["standardised"].idxmax()]
            row |= {"largest_gap_sd": largest["standardised"], "model": largest["model"], "organ": largest["organ"]}
        rows.append(row)
    metrics = list(dict.fromkeys(disparity["metric"]))
    rows.sort(key=lambda row: (metrics.index(row["metric"]), -row["share"], -row.get("largest_gap_sd", 0.0)))
    return make_table(rows, "ranking")


_COUNTED = {
    "disparities": Verdict.DISPARITY,
    "differences": Verdict.DIFFERENCE,
    "negligible": Verdict.NEGLIGIBLE,
    "equivalent": Verdict.EQUIVALENT,
    "inconclusive": Verdict.INCONCLUSIVE,
}
