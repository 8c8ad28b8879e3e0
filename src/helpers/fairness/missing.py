"""Whether a model lacks results for one group more often than for another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact

from helpers.fairness.groups import POOLED, group_subjects
from helpers.fairness.models_compared import adjust_unpermuted
from helpers.fairness.tables import make_table
from helpers.parameters import Fairness
from helpers.vocabulary.statuses import LACKING, UNSCORED


def compare_missing(
    metrics: pd.DataFrame, cohort: pd.DataFrame, settings: Fairness, attributes: Sequence[str]
) -> pd.DataFrame:
    """Count and test who lacks a result, by model, organ, attribute and group.

    A person lacks one where any scan has none for an organ that can be scored; with organ ``"all"``
    for any organ. Models and organs that nobody lacks have no rows.

    Parameters
    ----------
    metrics : DataFrame
        metrics.parquet, with its ``status``.
    cohort : DataFrame
        The included scans, with ``group_<attribute>``.

    Returns
    -------
    DataFrame
        missing.csv: ``p`` is Fisher's exact test for two groups, Pearson's chi-squared test (no
        correction for continuity) for more; groups under ``min_group`` take no part and have no
        numbers. ``p_adjusted`` is over all tests of the table, by the study's correction (Holm for
        max-T).
    """
    people, _ = group_subjects(cohort, attributes)
    scored = metrics[~metrics["status"].isin(UNSCORED)]
    lacking = scored.assign(lacking=scored["status"].isin(LACKING))
    by = lacking.groupby(["model", "organ", "subject"], sort=False, observed=True)["lacking"].any().reset_index()
    if len(by["organ"].unique()) > 1:
        pooled = by.groupby(["model", "subject"], sort=False)["lacking"].any().reset_index().assign(organ=POOLED)
        by = pd.concat([by, pooled], ignore_index=True)
    rows: list[dict[str, Any]] = []
    for (model, organ), part in by.groupby(["model", "organ"], sort=False):
        if part["lacking"].any():
            of = part.merge(people, on="subject", validate="one_to_one")
            for attribute in attributes:
                head = {"model": model, "organ": organ, "attribute": attribute}
                rows += (head | row for row in _count_groups(of, f"group_{attribute}", settings.min_group))
    table = make_table(rows, "missing")
    keys = ["model", "organ", "attribute"]
    tests = table.loc[table["p"].notna(), [*keys, "p"]].drop_duplicates(keys)
    tests["p_adjusted"] = adjust_unpermuted(tests["p"].to_numpy(float), settings.correction)
    adjusted = table[keys].merge(tests, on=keys, how="left")["p_adjusted"]
    return table.assign(p_adjusted=adjusted.where(table["p"].notna()).to_numpy(float))


def _count_groups(people: pd.DataFrame, column: str, least: int) -> Iterator[dict[str, Any]]:
    """Yield a row per group: people, those who lack a result, and the test over all groups."""
    counts = people.groupby(column, observed=True, sort=True)["lacking"].agg(["size", "sum"]).astype(int)
    kept = counts["size"] >= least
    p = _test(counts[kept].to_numpy())
    for (group, (n, missing)), shown in zip(counts.iterrows(), kept, strict=True):
        known = {"n": n, "missing": missing, "share": missing / n, "p": p} if shown else {}
        nothing = {"n": None, "missing": None, "share": np.nan, "p": np.nan}
        yield {"group": str(group), **nothing, **known, "suppressed": not shown}


def _test(counts: np.ndarray) -> float:
    """Return the p-value of people and lacking people by group, int, (groups, 2)."""
    table = np.column_stack([counts[:, 1], counts[:, 0] - counts[:, 1]])
    if len(table) < 2 or not table.any(axis=0).all():
        return float("nan")
    return float(fisher_exact(table).pvalue if len(table) == 2 else chi2_contingency(table, correction=False).pvalue)
