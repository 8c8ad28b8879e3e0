"""Whether a model fails altogether on more people of one group than of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from helpers.fairness.groups import average_subjects, average_worst
from helpers.fairness.models_compared import adjust_unpermuted
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import join_tables, make_table
from helpers.parameters import Fairness
from helpers.statistics.clustered import ClusteredGaps, compare_clustered, refer_to_clusters
from helpers.statistics.equivalence import find_joint_level, judge
from helpers.statistics.grouped_values import GroupedValues, list_pairs
from helpers.statistics.selection_adjustment import find_range_quantile
from helpers.statistics.shares import bound_differences, bound_shares, compare_shares
from helpers.vocabulary.measures import find_measure, use_measures
from helpers.vocabulary.statuses import MISSED
from helpers.vocabulary.words import MISSED_ORGAN

COMPARISON = ["model", "organ", "metric", "threshold", "attribute"]
# What follows from one group's people alone, or would with those of all others.
_NUMBERS = (
    "n", "failed", "missing", "share", "low", "high", "worst_5", "gap", "gap_low", "gap_high", "p", "p_adjusted",
)  # fmt: skip
_MANY = 1e9  # degrees of freedom: those of a normal distribution


@dataclass(frozen=True)
class _Failures:
    """Who fails in what."""

    keys: list[tuple[str, str, str, float]]  # the columns: model, organ, metric and threshold
    failed: np.ndarray  # float64, (subjects, columns): 1, 0, or NaN where there is nothing to judge
    measured: np.ndarray  # float64, (subjects, columns): the metric; NaN for missed organs


def compare_failures(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    settings: Fairness,
    attributes: Sequence[str],
    seed: int,
    *,
    cluster: str | None = None,
) -> pd.DataFrame:
    """Count and compare people on whom a model fails, by model, organ, attribute and group.

    A person fails a threshold where the mean of their scans is beyond it, on the metric's worse
    side; and is ``missed`` where the model drew nothing of an organ that is there, in any scan.
    With organ ``"all"`` a person fails where any of their organs does.

    `metrics` is metrics.parquet, with its ``status``; `cohort` the included scans, with
    ``group_<attribute>``. Thresholds of metrics that were not measured are left out; `seed` is of
    the exact test over more than two groups; `cluster` a column of the cohort whose people are not
    independent of each other (site). Returns failures.csv, a row per group; what compares the
    groups is the same in all rows of a comparison. Groups under ``min_group`` people take no part
    and have no numbers.

    Notes
    -----
    The gap's interval is Newcombe's hybrid score interval; where two of several groups were picked
    for lying furthest apart, at the level that holds for all pairs (Tukey's studentised range, of
    infinite degrees of freedom). The test is exact (:func:`compare_shares`) and adjusted over all
    failures compared by the same attribute, by the study's correction (Holm for max-T): a family of
    its own. The verdict rests on Newcombe's intervals of all pairs. Where nobody fails there is no
    test, and groups are equivalent where they are large enough for that to say something. Of people
    in clusters, p is the larger one of the exact test's and of that with errors made from clusters
    (:mod:`helpers.statistics.clustered`), and intervals hold both.
    """
    names = [name for name in settings.failure if name in metrics]
    known = metrics["status"].isin(["ok", *MISSED])
    missed = metrics["status"].isin(MISSED).astype(float).where(known)
    people, _ = average_subjects(metrics.assign(**{MISSED_ORGAN: missed}), cohort, attributes, [*names, MISSED_ORGAN])
    scores = Scores.spread(people, [*names, MISSED_ORGAN]).attach_clusters(cohort, cluster)
    with use_measures(settings.measures):
        found = _find_failures(scores, settings)
        signs = np.array([_find_sign(metric) for _, _, metric, _ in found.keys])
    tables = []
    for attribute in attributes:
        groups = AttributeScores.read(people, attribute, scores, settings.min_group)
        worst = [average_worst(found.measured[groups.codes == code], signs) for code in range(len(groups.names))]
        tables.append(_compare_groups(found, groups, worst, settings, seed))
    return join_tables(tables, "failures")


def hide_subtractable(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Empty counts from which, with those of everybody, a hidden group's would follow.

    Counts of everybody follow from an attribute whose groups are all shown; less those of the
    groups shown here, they would be those of a group too small to be shown. So beside such a group
    no count is told, nor what it could be computed from: who does worse and the verdict stay.

    `table` is failures.csv or missing.csv; `keys` are the columns that name a comparison.
    """
    beside = table.groupby(list(keys), dropna=False, sort=False)["suppressed"].transform("any").astype(bool)
    return table.assign(**{name: table[name].astype(float).mask(beside) for name in _NUMBERS if name in table})


def pair_groups(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a record per comparison of failures.csv that has two groups, in the table's order.

    With the numbers of the worst and of the best group as ``worst_share``, ``worst_failed``,
    ``worst_n``, ``best_share``, …; those that are not told are missing.
    """
    keys, own = [*COMPARISON, "group"], ["share", "failed", "n"]
    told = table[table["worst_group"].fillna("") != ""].drop_duplicates(COMPARISON)
    told = told.drop(columns=["group", *own, "low", "high", "worst_5", "suppressed"])
    for side in ("worst", "best"):
        part = table[keys + own].rename(columns={"group": f"{side}_group", **{name: f"{side}_{name}" for name in own}})
        told = told.merge(part, on=[*COMPARISON, f"{side}_group"], how="left", validate="one_to_one")
    return told.to_dict("records")


def _find_sign(metric: str) -> float:
    return -1.0 if metric == MISSED_ORGAN else find_measure(metric).sign


def _find_failures(scores: Scores, settings: Fairness) -> _Failures:
    """Say who fails: every column of the scores at each of its thresholds."""
    place = {key: number for number, key in enumerate(scores.places)}
    per_place = len(scores.keys) // max(len(scores.places), 1)
    keys, failed, values = [], [], []
    for column, (model, organ, metric) in enumerate(scores.keys):
        own = [number * per_place + column % per_place for number in scores.list_organs(place[model, organ])]
        sign, part = _find_sign(metric), scores.matrix[:, own]
        # From the mildest to the gravest.
        for threshold in sorted(settings.failure.get(metric, [np.nan]), key=lambda value: -sign * value):
            limit = 0.0 if metric == MISSED_ORGAN else threshold
            fails = np.where(np.isnan(part), np.nan, sign * (part - limit) < 0)
            keys.append((model, organ, metric, float(threshold)))
            failed.append(np.fmax.reduce(fails, axis=1))
            values.append(np.full(len(part), np.nan) if metric == MISSED_ORGAN else scores.matrix[:, column])
    return _Failures(keys, np.column_stack(failed), np.column_stack(values))


def _compare_groups(
    found: _Failures, groups: AttributeScores, worst: list[np.ndarray], settings: Fairness, seed: int
) -> pd.DataFrame:
    """Return one attribute's rows of failures.csv."""
    failed = GroupedValues(found.failed, groups.codes, len(groups.names))
    moments, clusters = failed.moments, groups.scores.clusters
    clustered = None if clusters is None else compare_clustered(failed, clusters, settings.min_group)
    kept = moments.n >= settings.min_group
    n = np.where(kept, moments.n, 0)
    counts = np.rint(np.where(kept, moments.mean * moments.n, 0.0)).astype(np.int64)
    low, high = bound_shares(counts, n, settings.alpha / 2)
    p = np.array(
        [
            compare_shares(tuple(counts[shown, column]), tuple(n[shown, column]), seed, settings.permutations)
            for column, shown in enumerate(kept.T)
        ]
    )
    if clustered is not None:
        p = np.maximum(p, refer_to_clusters([clustered], [False])[0].p[0])
    adjusted = adjust_unpermuted(p, settings.correction)
    verdict = _judge_shares(counts, n, kept, adjusted, settings, clustered)
    gap = _find_gap(counts, n, kept, clustered)
    rows: list[dict[str, Any]] = []
    for column, (model, organ, metric, threshold) in enumerate(found.keys):
        key = {"model": model, "organ": organ, "metric": metric, "threshold": threshold}
        head = key | {"attribute": groups.attribute, "margin": settings.failure_margin}
        if kept[:, column].sum() > 1:
            head |= {name: values[column] for name, values in gap.items() if not name.endswith("_group")}
            head |= {name: groups.names[gap[name][column]] for name in ("worst_group", "best_group")}
            head |= {"p": p[column], "p_adjusted": adjusted[column], "verdict": str(verdict[column])}
        for code in np.flatnonzero(moments.n[:, column]):
            row = head | {"group": groups.names[code], "suppressed": not kept[code, column], "n": None, "failed": None}
            if kept[code, column]:
                row |= {"n": int(n[code, column]), "failed": int(counts[code, column])}
                row |= {"share": counts[code, column] / n[code, column], "worst_5": worst[code][column]}
                row |= {"low": low[code, column], "high": high[code, column]}
            rows.append(row)
    return make_table(rows, "failures")


def _find_gap(
    counts: np.ndarray, n: np.ndarray, kept: np.ndarray, clustered: ClusteredGaps | None
) -> dict[str, np.ndarray]:
    """Return worst − best share with its interval and, by code, the groups it is of, (columns,)."""
    columns, shares = np.arange(n.shape[1]), counts / np.maximum(n, 1)
    # Of equal shares the first group is the best, the last the worst.
    best = np.where(kept, shares, np.inf).argmin(axis=0)
    worst = len(n) - 1 - np.where(kept, shares, -np.inf)[::-1].argmax(axis=0)
    number = np.maximum(kept.sum(axis=0), 2)
    tail = special.ndtr(-find_range_quantile(number, np.full(number.shape, _MANY)) / np.sqrt(2.0))
    pairs = np.zeros((len(n), len(n)), np.int64)
    first, second = list_pairs(len(n))
    pairs[first, second] = pairs[second, first] = np.arange(len(first))
    low, high = np.full((2, len(columns)), np.nan)
    if len(first):
        low, high = (end[pairs[worst, best], columns] for end in _surround_pairs(counts, n, tail, clustered))
        low, high = np.where(worst < best, (low, high), (-high, -low))
    gap = shares[worst, columns] - shares[best, columns]
    return {"worst_group": worst, "best_group": best, "gap": gap, "gap_low": low, "gap_high": high}


def _judge_shares(
    counts: np.ndarray,
    n: np.ndarray,
    kept: np.ndarray,
    p_adjusted: np.ndarray,
    settings: Fairness,
    clustered: ClusteredGaps | None,
) -> np.ndarray:
    """Return the verdict of every column: str, (columns,)."""
    first, second = list_pairs(len(n))
    compared = kept[first] & kept[second]
    together = find_joint_level(compared, settings.alpha)
    wide, narrow = (_surround_pairs(counts, n, tail, clustered) for tail in (together / 2, settings.alpha))
    margin = np.full(n.shape[1], settings.failure_margin)
    return judge(*wide, *narrow, margin, p_adjusted, alpha=settings.alpha, compared=compared)


def _surround_pairs(
    counts: np.ndarray, n: np.ndarray, tail: np.ndarray | float, clustered: ClusteredGaps | None
) -> tuple[np.ndarray, np.ndarray]:
    """Bound the difference in share of every pair of groups: low and high, (pairs, columns)."""
    one, other = ((counts[codes], n[codes]) for codes in list_pairs(len(n)))
    tail = np.broadcast_to(tail, one[0].shape)
    low, high = bound_differences(one, other, tail)
    if clustered is None:
        return low, high
    error = np.sqrt(np.where(clustered.squared > 0, clustered.squared, np.nan))
    reach = special.stdtrit(clustered.df, 1.0 - tail) * error
    return np.minimum(low, clustered.difference - reach), np.maximum(high, clustered.difference + reach)
