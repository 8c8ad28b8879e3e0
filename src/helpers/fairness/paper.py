"""The numbers of the table that papers print: by modality, organ, model and group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.disparity import find_margins
from helpers.fairness.groups import POOLED, average_subjects, average_worst, summarise_group
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import make_table
from helpers.parameters import Fairness
from helpers.statistics.equivalence import judge_columns
from helpers.statistics.hypothesis_tests import run_one_way_anova
from helpers.vocabulary.verdicts import Verdict

RELATIVE_VOLUME = "volume_error_relative"
PAPER_METRICS = ("dice", "hd95_mm", RELATIVE_VOLUME)


def tabulate_paper(
    metrics: pd.DataFrame, cohort: pd.DataFrame, fairness: Fairness, attributes: Sequence[str]
) -> pd.DataFrame:
    """Summarise everyone and every group by modality, organ and model, as papers print it.

    Dice, 95 % Hausdorff distance and relative volume error, |predicted − reference| ÷ reference
    volume of each scan, those that are known; several scans of a person and a modality are averaged
    first.

    Parameters
    ----------
    metrics : DataFrame
        metrics.parquet: one row per scan, model and organ. Ready-made scores may lack columns, and
        their scans a modality.
    cohort : DataFrame
        cohort.parquet's included scans, with ``modality`` and ``group_<attribute>``. A person who
        was scanned in both modalities is in the same group in both.
    fairness : Fairness
        Smallest group, alpha and margins.
    attributes : list of str

    Returns
    -------
    DataFrame
        fairness/paper.csv. Rows without an attribute are everyone, rows of an attribute without a
        group its comparison. Organs that nobody has in a modality are left out. Groups under
        ``min_group`` people are suppressed, and so is everyone's mean where it would tell that of
        such a group. A SegfairError where a column is missing, or rows cannot be matched.
    """
    rows: list[dict[str, Any]] = []
    if "dice" not in metrics:
        return make_table(rows, "paper")
    if {"volume_error_ml", "volume_ref_ml"} <= set(metrics):
        relative = metrics["volume_error_ml"].abs() / metrics["volume_ref_ml"].where(metrics["volume_ref_ml"] > 0)
        metrics = metrics.assign(**{RELATIVE_VOLUME: relative})
    known = [name for name in PAPER_METRICS if name in metrics]
    modalities = cohort["modality"].astype(object).where(cohort["modality"].notna(), "").astype(str)
    for modality in sorted(modalities.unique()):
        part = metrics[metrics["scan"].isin(cohort.loc[modalities == modality, "scan"])]
        part = part[part.groupby("organ")["dice"].transform("count") > 0]
        if len(part):
            people, _ = average_subjects(part, cohort, attributes, known)
            rows += ({"modality": modality} | row for row in _describe_modality(people, fairness, attributes))
    return make_table(rows, "paper")


def _describe_modality(people: pd.DataFrame, fairness: Fairness, attributes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of one modality: by measure, organ and model."""
    scores = Scores.spread(people, [name for name in PAPER_METRICS if name in people])
    groups = [AttributeScores.read(people, attribute, scores, fairness.min_group) for attribute in attributes]
    rows = list(_describe_everyone(scores, groups, fairness.min_group))
    for one in groups:
        rows += _describe_comparisons(one, fairness)
        rows += _describe_groups(one)
    models, organs = (list(dict.fromkeys(people[name])) for name in ("model", "organ"))
    return sorted(
        rows,
        key=lambda row: (PAPER_METRICS.index(row["metric"]), organs.index(row["organ"]), models.index(row["model"])),
    )


def _describe_everyone(scores: Scores, groups: Sequence[AttributeScores], least: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of everyone.

    From everyone's mean and those of the groups shown follows the mean of the one that is not; from
    medians it does not.
    """
    summary = summarise_group(scores.matrix)
    few = summary["n"] < least
    told = [((one.grouped.moments.n > 0) & ~one.kept).any(axis=0) for one in groups]
    hidden = few | np.any(told, axis=0) if told else few
    shown = {name: np.where(hidden, np.nan, summary[name]) for name in ("mean", "sd")}
    safe = {name: summary[name] for name in ("median", "q1", "q3")} | {
        "worst": average_worst(scores.matrix, scores.sign)
    }
    shown |= {name: np.where(few, np.nan, values) for name, values in safe.items()}
    yield from _describe(scores, {"attribute": "", "group": ""}, summary["n"], shown, few)


def _describe_groups(groups: AttributeScores) -> Iterator[dict[str, Any]]:
    for code, name in enumerate(groups.names):
        members, kept = groups.scores.matrix[groups.codes == code], groups.kept[code]
        summary = summarise_group(members) | {"worst": average_worst(members, groups.scores.sign)}
        shown = {key: np.where(kept, values, np.nan) for key, values in summary.items() if key != "n"}
        head = {"attribute": groups.attribute, "group": name}
        yield from _describe(groups.scores, head, summary["n"], shown, ~kept)


def _describe(
    scores: Scores, head: dict[str, str], n: np.ndarray, shown: dict[str, np.ndarray], hidden: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yield one row per column of the scores."""
    for column, (model, organ, metric) in enumerate(scores.keys):
        values = {name: part[column] for name, part in shown.items()}
        if organ == POOLED:
            means = shown["mean"][_find_organs(scores, model, metric)]
            known = means[np.isfinite(means)]
            values["sd_organs"] = known.std(ddof=1) if len(known) > 1 else np.nan
        key = {"model": model, "organ": organ, "metric": metric}
        yield key | head | values | {"n": int(n[column]), "suppressed": bool(hidden[column])}


def _describe_comparisons(groups: AttributeScores, fairness: Fairness) -> Iterator[dict[str, Any]]:
    """Yield the rows of an attribute: the ANOVA's p, and of how many organs it says nothing."""
    scores = groups.scores
    p = run_one_way_anova(groups.compared).p
    margins = find_margins(fairness.margin, scores.metrics, groups.grouped.moments.mean, groups.sizes)
    # Whether a difference is real does not matter here: inside the margin is inside.
    untested = np.full(len(p), np.nan)
    judged = judge_columns(
        groups.grouped,
        margins,
        untested,
        alpha=fairness.alpha,
        power=fairness.power,
        smallest_group=groups.min_group,
        failures=groups.unseen,
    )
    inside = np.where(np.isnan(margins), np.nan, judged.verdict == Verdict.EQUIVALENT.value)
    for column, row in enumerate(map(groups.name_row, range(len(scores.keys)))):
        values: dict[str, Any] = {"group": "", "n": int(groups.sizes[:, column].sum()), "anova_p": p[column]}
        if row["organ"] == POOLED:
            tested = [one for one in _find_organs(scores, row["model"], row["metric"]) if np.isfinite(p[one])]
            values["organs"] = len(tested)
            if tested:
                values |= {"not_significant": (p[tested] > fairness.alpha).mean(), "equivalent": inside[tested].mean()}
        yield row | values | {"suppressed": False}


def _find_organs(scores: Scores, model: str, metric: str) -> list[int]:
    """Return the columns of a model's single organs."""
    return [
        column
        for column, (name, organ, measure) in enumerate(scores.keys)
        if (name, measure) == (model, metric) and organ != POOLED
    ]
