"""Whether results, or organs, are missing for one group more often than for another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.disparity import find_best_and_worst, sign_metrics
from helpers.fairness.groups import POOLED, average_subjects, group_subjects, number_groups, read_covariates
from helpers.fairness.models_compared import adjust_unpermuted
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import join_tables, make_table
from helpers.parameters import Fairness
from helpers.statistics.bootstrap_differences import take_gaps
from helpers.statistics.clustered import compare_clustered, refer_to_clusters
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.shares import compare_shares
from helpers.vocabulary.measures import find_measure, use_measures
from helpers.vocabulary.statuses import LACKING, MISSED, NOT_DRAWN, UNSCORED

DISTANCES = ("hd95_mm", "assd_mm")  # whose worst value is the scan's diagonal


def compare_missing(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    settings: Fairness,
    attributes: Sequence[str],
    *,
    cluster: str | None = None,
) -> pd.DataFrame:
    """Count and test who lacks a result, by model, organ, attribute and group.

    A person lacks one where any scan has none for an organ that can be scored; with organ ``"all"``
    for any organ. Models and organs that nobody lacks have no rows, nor has an organ that a model
    draws in no scan.

    `metrics` is metrics.parquet, with its ``status``; `cohort` the included scans, with
    ``group_<attribute>``; `cluster` a column of it whose people are not independent of each other
    (site). Returns missing.csv: ``p`` is exact (:func:`helpers.statistics.shares.compare_shares`),
    of people in clusters as in :func:`helpers.fairness.failures.compare_failures`; groups under
    ``min_group`` take no part and have no numbers. ``p_adjusted`` is over all tests of the table,
    by the study's correction (Holm for max-T).
    """
    scored = metrics[~metrics["status"].isin(UNSCORED)]
    by = scored.assign(missing=_find_lacking(scored))
    by = by.groupby(["model", "organ", "subject"], sort=False, observed=True)["missing"].any().reset_index()
    if len(by["organ"].unique()) > 1:
        pooled = by.groupby(["model", "subject"], sort=False)["missing"].any().reset_index().assign(organ=POOLED)
        by = pd.concat([by, pooled], ignore_index=True)
    return _compare_flags(by, ["model", "organ"], cohort, settings, attributes, "missing", cluster)


def compare_absent(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    settings: Fairness,
    attributes: Sequence[str],
    *,
    cluster: str | None = None,
) -> pd.DataFrame:
    """Count and test whose organs are not in the reference at all, by organ, attribute and group.

    A person lacks an organ where no scan has it: beyond the field of view, taken out, or not drawn.
    Parameters and tests are those of :func:`compare_missing`; returns the rows of absent.csv.
    """
    by_scan = metrics.assign(missing=metrics["status"].isin(UNSCORED))
    by_scan = by_scan.groupby(["organ", "subject", "scan"], sort=False, observed=True)["missing"].any()
    by = by_scan.groupby(level=[0, 1], sort=False).all().reset_index()
    return _compare_flags(by, ["organ"], cohort, settings, attributes, "absent", cluster)


def bound_missing(
    metrics: pd.DataFrame, cohort: pd.DataFrame, settings: Fairness, attributes: Sequence[str]
) -> pd.DataFrame:
    """Bound every gap by what the missing results could have been.

    Where a group that is compared lacks a result of a metric that has a worst and a best value. Of
    distances the worst is the scan's diagonal (``extent_mm`` of `metrics`), and an organ that the
    model missed, which has no distance, counts as that: so no model gains by missing more. Other
    parameters are those of :func:`compare_missing`.

    Returns missing_bounds.csv: ``gap_failed`` is between the same two groups as ``gap``, where what
    is missing counts as the worst value; ``lowest`` and ``highest`` are the gaps that are possible
    whatever is missing (Manski 1990, *American Economic Review* 80:319).
    """
    with use_measures(settings.measures):
        names = [name for name in settings.metrics if name in metrics]
        worst, best = (
            pd.DataFrame(dict(part), index=metrics.index)
            for part in zip(*(_find_extremes(metrics, name) for name in names), strict=True)
        )
        kept = [name for name in names if worst[name].notna().any()]
        if not kept:
            return make_table([], "missing_bounds")
        filled = [
            average_subjects(metrics.assign(**fill[kept]), cohort, attributes, kept)[0]
            for fill in (metrics[kept], *(part.combine_first(metrics[kept]) for part in (worst, best)))
        ]
        scores = [Scores.spread(people, kept) for people in filled]
        tables = [
            _bound_groups(
                [
                    AttributeScores.read(people, attribute, one, settings.min_group)
                    for people, one in zip(filled, scores, strict=True)
                ]
            )
            for attribute in attributes
        ]
    return join_tables(tables, "missing_bounds")


def _find_extremes(metrics: pd.DataFrame, name: str) -> tuple[tuple[str, pd.Series], tuple[str, pd.Series]]:
    """Return a metric's worst and best value where its result is missing; NaN elsewhere."""
    measure, lacking = find_measure(name), _find_lacking(metrics)
    nothing = pd.Series(np.nan, metrics.index)
    if measure.is_bounded:
        best = measure.bounds[1] if measure.higher_is_better else measure.bounds[0]
        return (name, nothing.mask(lacking, measure.worst)), (name, nothing.mask(lacking, best))
    if name not in DISTANCES or "extent_mm" not in metrics:
        return (name, nothing), (name, nothing)
    missed = metrics["status"].isin(MISSED) & metrics[name].isna()
    worst = metrics["extent_mm"].where(lacking | missed)
    return (name, worst), (name, worst.mask(lacking, 0.0))


def _find_lacking(metrics: pd.DataFrame) -> pd.Series:
    """Tell which rows lack a result that the model has of the organ in other scans: bool."""
    undrawn = metrics["status"] == NOT_DRAWN
    # What a model never draws is no failure on anybody.
    never = undrawn.groupby([metrics["model"], metrics["organ"]], observed=True).transform("all")
    return metrics["status"].isin(LACKING) | (undrawn & ~never)


def _bound_groups(filled: Sequence[AttributeScores]) -> pd.DataFrame:
    """Return one attribute's rows: from scores as they are, at their worst and at their best."""
    groups, _, _ = filled
    metrics, sizes = groups.scores.metrics, groups.sizes
    sign, columns = sign_metrics(metrics), np.arange(len(metrics))
    seen, lowest, highest = (one.grouped.moments.mean for one in filled)
    best, worst = find_best_and_worst(seen, sizes, metrics)
    then_worst = find_best_and_worst(lowest, sizes, metrics)[1]
    gap, failed = (take_gaps(means, best, worst, sign) for means in (seen, lowest))
    rows: list[dict[str, Any]] = []
    # A group's mean is another at the worst where somebody in it lacks a result.
    lacks = (groups.kept & ((seen != lowest) | (lowest != highest))).any(axis=0) & (best >= 0)
    for column in columns[lacks]:
        row: dict[str, Any] = groups.name_row(column)
        row |= {"worst_group": groups.names[worst[column]], "best_group": groups.names[best[column]]}
        row |= {"gap": gap[column], "gap_failed": failed[column], "worst_failed": groups.names[then_worst[column]]}
        at_best, at_worst = (codes[column] for codes in (best, worst))
        row["lowest"] = sign[column] * (lowest[at_best, column] - highest[at_worst, column])
        row["highest"] = sign[column] * (highest[at_best, column] - lowest[at_worst, column])
        rows.append(row)
    return make_table(rows, "missing_bounds")


def _compare_flags(
    by: pd.DataFrame,
    keys: list[str],
    cohort: pd.DataFrame,
    settings: Fairness,
    attributes: Sequence[str],
    key: str,
    cluster: str | None,
) -> pd.DataFrame:
    """Return a row per group of people and those whose ``missing`` is true, with tests adjusted."""
    people, _ = group_subjects(cohort, attributes)
    if cluster is not None:
        sites = read_covariates(cohort, people["subject"].astype(str).to_numpy(), [cluster])[cluster]
        people = people.assign(cluster=pd.factorize(sites)[0])
    rows: list[dict[str, Any]] = []
    for place, part in by.groupby(keys, sort=False):
        if part["missing"].any():
            of = part.merge(people, on="subject", validate="one_to_one")
            for attribute in attributes:
                head = dict(zip(keys, place, strict=True)) | {"attribute": attribute}
                rows += (head | row for row in _count_groups(of, f"group_{attribute}", settings.min_group))
    table = make_table(rows, key)
    keys = [*keys, "attribute"]
    tests = table.loc[table["p"].notna(), [*keys, "p"]].drop_duplicates(keys)
    tests["p_adjusted"] = adjust_unpermuted(tests["p"].to_numpy(float), settings.correction)
    adjusted = table[keys].merge(tests, on=keys, how="left")["p_adjusted"]
    return table.assign(p_adjusted=adjusted.where(table["p"].notna()).to_numpy(float))


def _count_groups(people: pd.DataFrame, column: str, least: int) -> Iterator[dict[str, Any]]:
    """Yield a row per group: people, those who are missing, and the test over all groups."""
    counts = people.groupby(column, observed=True, sort=True)["missing"].agg(["size", "sum"]).astype(int)
    kept = counts["size"] >= least
    shown = counts[kept]
    p = compare_shares(tuple(shown["sum"].tolist()), tuple(shown["size"].tolist()), seed=0)
    if "cluster" in people:
        missed = GroupedValues(people[["missing"]].to_numpy(float), number_groups(people[column])[1])
        found = compare_clustered(missed, people["cluster"].to_numpy(), least)
        p = float(np.maximum(p, refer_to_clusters([found], [False])[0].p[0, 0]))
    for (group, (n, missing)), told in zip(counts.iterrows(), kept, strict=True):
        known = {"n": n, "missing": missing, "share": missing / n, "p": p} if told else {}
        nothing = {"n": None, "missing": None, "share": np.nan, "p": np.nan}
        yield {"group": str(group), **nothing, **known, "suppressed": not told}
