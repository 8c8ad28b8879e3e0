"""Two audits of the same people: which gaps are new, gone, larger or smaller, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from helpers.errors import SegfairError
from helpers.fairness.audit import run_audit
from helpers.fairness.disparity import find_best_and_worst
from helpers.fairness.groups import average_subjects, list_groups
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import KEY_COLUMNS
from helpers.parameters import Fairness
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.bootstrap_differences import (
    find_difference,
    find_gap_influence,
    find_mean_intervals,
    take_gaps,
)
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import adjust_p_values
from helpers.vocabulary.measures import use_measures
from helpers.vocabulary.verdicts import Verdict

Change = Literal["new", "gone", "larger", "smaller", ""]

_SCAN = ["subject", "scan"]
_OF_EACH = ("worst_group", "best_group", "gap", "gap_low", "gap_high", "verdict")


@dataclass(frozen=True)
class StudiesCompared:
    """What :func:`compare_studies` found: see there for the tables."""

    gaps: pd.DataFrame
    groups: pd.DataFrame
    notes: list[str]  # who and what was left out, in sentences


def compare_studies(
    before: tuple[pd.DataFrame, pd.DataFrame],
    after: tuple[pd.DataFrame, pd.DataFrame],
    pairs: Sequence[tuple[str, str]],
    fairness: Fairness,
    attributes: Sequence[str],
    seed: int,
    *,
    cluster: str | None = None,
) -> StudiesCompared:
    """Compare the gaps of two studies on the scans that both have scored.

    A SegfairError where they have no scan or no group in common.

    Parameters
    ----------
    before, after : tuple of DataFrame
        metrics.parquet and the included rows of cohort.parquet of either study.
    pairs : sequence of tuple of str
        Which model of `before` is compared with which of `after`.
    fairness : Fairness
        The metrics, margins, correction and draws, for both studies alike.
    attributes : sequence of str
        Their groups must be named alike in both studies. Somebody whose group differs is left out
        of that attribute, with a note.
    seed : int
        Equal seeds give equal intervals.
    cluster : str, optional
        Column of the later cohort whose people are not independent of each other (site).

    Returns
    -------
    StudiesCompared
        ``gaps`` has one row per pair of models, organ, metric and attribute: ``n`` people; of
        either study, by the suffixes ``_before`` and ``_after``, what its audit says of these
        people alone; ``difference``, gap after − gap before in the metric's unit, with its 95 %
        interval and p, by Holm over the rows of an attribute; and ``change``: "new" (a disparity
        after, none before), "gone", "larger" or "smaller" (the interval leaves out 0), or empty.
        ``groups``: per group of at least ``min_group`` people its mean before and after, and how
        far it changed, with an interval of that paired difference.

    Notes
    -----
    A score counts where both studies have it, so that neither the people nor their organs differ
    between the two gaps. Each gap is between its own best and worst group. Resamples are of people,
    the same before and after (:func:`helpers.statistics.bootstrap_differences.find_difference`).
    """
    with use_measures(fairness.measures):
        notes: list[str] = []
        cohort = _find_common(before[1], after[1], attributes, notes)
        metrics = [
            _take_models(table, cohort, [pair[side] for pair in pairs], side)
            for side, (table, _) in enumerate((before, after))
        ]
        metrics = _keep_scored(metrics, list(fairness.metrics), notes)
        audits = [
            run_audit(table, cohort, fairness, attributes, seed, pooled_models=[], cluster=cluster).disparity
            for table in metrics
        ]
        people, _ = average_subjects(pd.concat(metrics, ignore_index=True), cohort, attributes, fairness.metrics)
        scores = Scores.spread(people, fairness.metrics).attach_clusters(cohort, cluster)
        gaps, groups = [], []
        for attribute in attributes:
            one = AttributeScores.read(people, attribute, scores, fairness.min_group)
            resamples = one.resample(fairness.bootstrap, seed)
            drawn = resamples.draw_means(scores.matrix)[:, : len(one.names)]
            gaps.append(_compare_gaps(one, drawn, resamples))
            groups.append(_compare_groups(one, drawn, resamples))
        table = pd.concat(gaps, ignore_index=True)
        for side, audit in zip(("before", "after"), audits, strict=True):
            renamed = audit[[*KEY_COLUMNS, *_OF_EACH]].rename(columns={name: f"{name}_{side}" for name in _OF_EACH})
            renamed["model"] = renamed["model"].str.partition("\x1f")[0]
            table = table.merge(renamed, on=list(KEY_COLUMNS), how="left", validate="one_to_one")
        table["change"] = [_name_change(row) for row in table.to_dict("records")]
        names = pd.DataFrame(pairs, columns=["model_before", "model_after"], dtype=object)
        return StudiesCompared(
            _name_models(table, names), _name_models(pd.concat(groups, ignore_index=True), names), notes
        )


def _find_common(
    before: pd.DataFrame, after: pd.DataFrame, attributes: Sequence[str], notes: list[str]
) -> pd.DataFrame:
    """Return the later study's rows of the scans that both have, without groups that changed."""
    columns = [f"group_{attribute}" for attribute in attributes]
    joined = after.astype(dict.fromkeys(_SCAN, str)).merge(
        before.astype(dict.fromkeys(_SCAN, str))[[*_SCAN, *columns]], on=_SCAN, suffixes=("", "_before")
    )
    if joined.empty:
        raise SegfairError("the two studies have no scan in common: subjects and scans must be named alike in both")
    only = [len(table) - len(joined) for table in (before, after)]
    if any(only):
        notes.append(f"{len(joined)} scans are in both studies; left out: {only[0]} only before, {only[1]} only after")
    for attribute, column in zip(attributes, columns, strict=True):
        names, former = list_groups(joined[column]), list_groups(joined[f"{column}_before"])
        if not set(names) & set(former):
            raise SegfairError(
                f"the studies have no group of {attribute} in common ({', '.join(former)}; {', '.join(names)}): give "
                "both the same categories or bins"
            )
        changed = (joined[column].astype(str) != joined[f"{column}_before"].astype(str)) & (
            joined[column].notna() | joined[f"{column}_before"].notna()
        )
        if changed.any():
            notes.append(f"{changed.sum()} scans are in another {attribute} group after: they are left out there")
            joined[column] = joined[column].mask(changed)
    return joined


def _take_models(metrics: pd.DataFrame, cohort: pd.DataFrame, models: Sequence[str], side: int) -> pd.DataFrame:
    """Return the rows of some models and of the common scans; models bear their pair's number."""
    numbers = {model: f"{place}\x1f{side}" for place, model in enumerate(models)}
    kept = metrics[metrics["model"].isin(models)].astype(dict.fromkeys(_SCAN, str))
    kept = kept.merge(cohort[_SCAN], on=_SCAN)
    return kept.assign(model=kept["model"].astype(str).map(numbers))


def _keep_scored(metrics: Sequence[pd.DataFrame], names: list[str], notes: list[str]) -> list[pd.DataFrame]:
    """Return both tables with the values that both have, and say how many only one has."""
    keys = [*_SCAN, "pair", "organ"]
    tables = []
    for table in metrics:
        pair = table["model"].str.partition("\x1f")[0]
        tables.append(table.assign(pair=pair).set_index(keys).sort_index())
    index = tables[0].index.intersection(tables[1].index)
    if index.empty:
        raise SegfairError("the two studies have no scored organ in common: organs must be named alike in both")
    scored = [table[names].notna().any(axis=1).sum() for table in tables]
    tables = [table.loc[index] for table in tables]
    both = tables[0][names].notna() & tables[1][names].notna()
    for place, when in enumerate(("before", "after")):
        tables[place] = tables[place].assign(**tables[place][names].where(both))
        if lost := int(scored[place] - both.any(axis=1).sum()):
            notes.append(f"{lost} scores that only the study {when} has are left out")
    return [table.reset_index().drop(columns="pair") for table in tables]


def _pair_columns(scores: Scores) -> tuple[list[int], list[int]]:
    """Return the columns before and after, pair by pair."""
    number = {key: column for column, key in enumerate(scores.keys)}
    first = [column for column, (model, _, _) in enumerate(scores.keys) if model.endswith("\x1f0")]
    keys = [scores.keys[column] for column in first]
    return first, [number[model[:-1] + "1", organ, metric] for model, organ, metric in keys]


def _compare_gaps(groups: AttributeScores, drawn: np.ndarray, resamples: Resamples) -> pd.DataFrame:
    """Return the paired differences of an attribute's gaps."""
    scores = groups.scores
    first, second = _pair_columns(scores)
    best, worst = find_best_and_worst(groups.grouped.moments.mean, groups.sizes, scores.metrics)
    gaps = take_gaps(groups.grouped.moments.mean, best, worst, scores.sign)
    influence = find_gap_influence(groups.grouped, best, worst, scores.sign)
    draws = take_gaps(drawn, best, worst, scores.sign)
    difference = gaps[second] - gaps[first]
    before, after = (groups.unseen.reach_gap(best[columns], worst[columns], columns) for columns in (first, second))
    found = find_difference(
        draws[:, second] - draws[:, first],
        difference,
        influence[:, second] - influence[:, first],
        resamples,
        unseen=after.subtract(before),
    )
    rows = [_name_row(groups, column) | {"n": int(groups.sizes[:, column].sum())} for column in first]
    return pd.DataFrame(rows).assign(
        difference=difference,
        low=found.low,
        high=found.high,
        p=found.p,
        p_adjusted=adjust_p_values(found.p, "holm"),
    )


def _compare_groups(groups: AttributeScores, drawn: np.ndarray, resamples: Resamples) -> pd.DataFrame:
    """Return each group's mean before and after, and the paired difference."""
    first, second = _pair_columns(groups.scores)
    matrix = groups.scores.matrix
    change = GroupedValues(matrix[:, second] - matrix[:, first], groups.codes, len(groups.names))
    # Whoever has a value has both, so that the mean change is the change of the means.
    low, high = find_mean_intervals(change, drawn[:, :, second] - drawn[:, :, first], resamples)
    means = groups.grouped.moments.mean
    return pd.DataFrame(
        [
            _name_row(groups, column)
            | {"group": name, "n": int(groups.sizes[code, column])}
            | {"mean_before": means[code, column], "mean_after": means[code, second[place]]}
            | {"change": change.moments.mean[code, place], "low": low[code, place], "high": high[code, place]}
            for place, column in enumerate(first)
            for code, name in enumerate(groups.names)
            if groups.kept[code, column]
        ],
        columns=[*KEY_COLUMNS, "group", "n", "mean_before", "mean_after", "change", "low", "high"],
    )


def _name_row(groups: AttributeScores, column: int) -> dict[str, str]:
    row = groups.name_row(column)
    return row | {"model": row["model"].partition("\x1f")[0]}


def _name_models(table: pd.DataFrame, names: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose pairs of models bear their names."""
    pair = names.iloc[table["model"].astype(int)].reset_index(drop=True)
    return pd.concat([pair, table.drop(columns="model").reset_index(drop=True)], axis=1)


def _name_change(row: dict[str, Any]) -> Change:
    was, is_now = (row[f"verdict_{when}"] == Verdict.DISPARITY.value for when in ("before", "after"))
    if was != is_now:
        return "new" if is_now else "gone"
    if not (np.isfinite(row["low"]) and (row["low"] > 0 or row["high"] < 0)):
        return ""
    return "larger" if row["low"] > 0 else "smaller"
