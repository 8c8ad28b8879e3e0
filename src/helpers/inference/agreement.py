"""How much masks agree: with the reference, and the draws of a prompt with one another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd


def measure_overlap(first: np.ndarray, second: np.ndarray, organ_ids: Mapping[str, int]) -> dict[str, float]:
    """Return the Dice of each organ between two label maps; NaN where neither holds it.

    Both maps are uint8, (z, y, x).
    """
    ids = np.fromiter(organ_ids.values(), np.int64)
    sizes, common = np.zeros(256, np.int64), np.zeros(256, np.int64)
    # Slice by slice: nothing as large as the scan is made on the way.
    for one, other in zip(first, second, strict=True):
        sizes += np.bincount(one.ravel(), minlength=256) + np.bincount(other.ravel(), minlength=256)
        common += np.bincount(one[one == other], minlength=256)
    dice = np.divide(2.0 * common[ids], sizes[ids], out=np.full(len(ids), np.nan), where=sizes[ids] > 0)
    return dict(zip(organ_ids, dice.tolist(), strict=True))


def summarise_sensitivity(organs: pd.DataFrame, cohort: pd.DataFrame, *, min_group: int) -> pd.DataFrame:
    """Say per group how much the masks depend on how the prompt was drawn.

    A first look before anything is scored: stage 03 tests these differences between groups.

    `organs` are from :func:`helpers.inference.read_organs`, `cohort` is the included scans with
    ``group_<attribute>``; groups of fewer than `min_group` people are left out.

    Returns
    -------
    DataFrame
        model, organ, attribute, group, n (people), mean, sd of a person's agreement (mean Dice of
        the masks of each two draws; 1: the prompt's imprecision changes nothing). No rows where no
        model had several draws.
    """
    attributes = [column for column in cohort.columns if column.startswith("group_")]
    people = organs.dropna(subset=["agreement"]).merge(cohort[["scan", "subject", *attributes]], on="scan")
    rows = []
    for attribute in attributes:
        known = people[people[attribute].notna()]
        by_person = known.groupby(["model", "organ", attribute, "subject"], sort=False, observed=True)["agreement"]
        groups = by_person.mean().groupby(["model", "organ", attribute], sort=False, observed=True)
        table = groups.agg(["count", "mean", "std"]).reset_index()
        table = table[table["count"] >= min_group]
        table = table.rename(columns={attribute: "group", "count": "n", "std": "sd"})
        table.insert(2, "attribute", attribute.removeprefix("group_"))
        rows.append(table.astype({"group": "str"}))
    columns = ["model", "organ", "attribute", "group", "n", "mean", "sd"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)
