"""Groups compared where few people have an expert mask and everybody has a proxy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from helpers.fairness.disparity import find_best_and_worst, find_margins, sign_metrics
from helpers.fairness.groups import average_subjects
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import make_table
from helpers.parameters import Fairness
from helpers.statistics.equivalence import judge, surround_pairs
from helpers.statistics.grouped_values import list_pairs
from helpers.statistics.hypothesis_tests import adjust_p_values, find_squared_error
from helpers.statistics.prediction_powered import FEWEST_MEASURED, PoweredMeans

METRIC, PROXY = "dice", "dice_proxy"


@dataclass(frozen=True)
class FewMasks:
    """What :func:`compare_few_masks` found, as three tables of :mod:`helpers.schema`."""

    means: pd.DataFrame
    gaps: pd.DataFrame
    randomness: pd.DataFrame


def compare_few_masks(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    fairness: Fairness,
    attributes: Sequence[str],
    seed: int,
    *,
    clustered: bool = False,
) -> FewMasks:
    """Compare groups by prediction-powered inference on Dice.

    Parameters
    ----------
    metrics : DataFrame
        One row per scan, model and organ: ``dice``, missing where there is no expert mask, and
        ``dice_proxy``, the agreement with another model, of all scans.
    cohort : DataFrame
        One row per scan, with and without a mask: subject, scan, number, ``group_<attribute>``.
    fairness : Fairness
        Smallest group, by people with masks; margin of Dice, alpha, draws.
    attributes : list of str
    seed : int
    clustered : bool
        Whether people come in clusters: then there is no p-value and no verdict.

    Returns
    -------
    FewMasks
        few_masks.csv, few_masks_gaps.csv (best − worst of the prediction-powered means, p by Holm
        over the attribute's rows) and few_masks_check.csv: whether the proxies of those with masks
        differ from those of the others of their group (Welch's t; Holm over all rows). Where one
        does, the masked are no random part of the group, and its attribute has no verdict.

    Notes
    -----
    :class:`helpers.statistics.prediction_powered.PoweredMeans`; docs/validity.md says how often the
    intervals hold the truth. Several scans of a person are averaged first; a person with a mask of
    one scan and none of another counts by the scans with masks.
    """
    people, _ = average_subjects(_take_usable(metrics), cohort, attributes, [METRIC, PROXY])
    scores, proxies = (Scores.spread(people, [name]) for name in (METRIC, PROXY))
    smallest = max(fairness.min_group, FEWEST_MEASURED)
    means, gaps, checks = [], [], []
    for attribute in attributes:
        groups = AttributeScores.read(people, attribute, scores, smallest)
        powered = PoweredMeans(
            np.where(groups.kept[groups.codes] & (groups.codes >= 0)[:, None], scores.matrix, np.nan),
            proxies.matrix,
            groups.codes,
            len(groups.names),
        )
        checks.append(_check_random(groups, powered))
        resamples = powered.resample(fairness.bootstrap, seed, attribute)
        drawn = powered.draw_means(resamples)
        means += _describe_means(groups, powered, powered.find_intervals(drawn, resamples))
        gaps.append(_describe_gaps(groups, powered, drawn, resamples, fairness))
    randomness = make_table([row for part in checks for row in part], "few_masks_check")
    if len(randomness):
        randomness = randomness.assign(p_adjusted=adjust_p_values(randomness["p"].to_numpy(float), "holm"))
    broken = set(randomness.loc[randomness["p_adjusted"] <= fairness.alpha, "attribute"]) if len(randomness) else set()
    table = make_table([row for part in gaps for row in part], "few_masks_gaps")
    table = _refuse_verdicts(
        table, broken, "people with masks are no random part of their group (few_masks_check.csv): no verdict"
    )
    if clustered:
        table = _refuse_verdicts(
            table, set(attributes), "intervals take people for independent, who come in clusters: no verdict"
        )
        table = table.assign(p=np.nan, p_adjusted=np.nan)
    return FewMasks(make_table(means, "few_masks"), table, randomness)


def _take_usable(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a proxy; of a person with masks, those with a score alone."""
    usable = metrics[metrics[PROXY].notna()]
    masked = usable.groupby(["model", "organ", "subject"], observed=True)[METRIC].transform("count") > 0
    return usable[~masked | usable[METRIC].notna()]


def _describe_means(
    groups: AttributeScores, powered: PoweredMeans, bounds: tuple[np.ndarray, np.ndarray]
) -> list[dict[str, Any]]:
    rows = []
    plain = groups.grouped.moments.mean
    for column in range(powered.means.shape[1]):
        for code, name in enumerate(groups.names):
            row = groups.name_row(column) | {"group": name, "suppressed": not groups.kept[code, column]}
            row |= {"people": int(powered.people[code, column]), "masks": int(groups.grouped.moments.n[code, column])}
            if groups.kept[code, column]:
                row |= {"mean_masked": plain[code, column], "mean": powered.means[code, column]}
                row |= {"ci_low": max(bounds[0][code, column], 0.0), "ci_high": min(bounds[1][code, column], 1.0)}
                row["worth"] = powered.worth[code, column]
            rows.append(row)
    return rows


def _describe_gaps(
    groups: AttributeScores, powered: PoweredMeans, drawn: np.ndarray, resamples: Any, settings: Fairness
) -> list[dict[str, Any]]:
    sign = sign_metrics(groups.scores.metrics)
    best, worst = find_best_and_worst(powered.means, groups.sizes, groups.scores.metrics)
    gap, found = powered.find_gaps(drawn, best, worst, sign, resamples)
    adjusted = adjust_p_values(found.p, "holm")
    margins = find_margins(settings.margin, groups.scores.metrics, powered.means, groups.sizes)
    verdicts = _judge(groups, powered, adjusted, margins, settings)
    plain = groups.grouped.moments
    rows = []
    for column in np.flatnonzero(best >= 0):
        two = best[column], worst[column]
        low, high = _surround(*(part[list(two), column] for part in (plain.n, plain.mean, plain.variance)))
        rows.append(
            groups.name_row(int(column))
            | {"people": int(powered.people[groups.kept[:, column], column].sum())}
            | {"masks": int(groups.sizes[:, column].sum())}
            | {"worst_group": groups.names[two[1]], "best_group": groups.names[two[0]]}
            | {"gap": gap[column], "gap_low": found.low[column], "gap_high": found.high[column]}
            | {"p": found.p[column], "p_adjusted": adjusted[column], "verdict": verdicts[column]}
            | {"gap_masked": plain.mean[two[0], column] - plain.mean[two[1], column]}
            | {"gap_masked_low": low, "gap_masked_high": high}
            | {"correlation": powered.correlation[column]}
            | {"worth": float(np.nansum(powered.worth[groups.kept[:, column], column]))}
            | {"margin": margins[column], "note": ""}
        )
    return rows


def _judge(
    groups: AttributeScores, powered: PoweredMeans, p_adjusted: np.ndarray, margins: np.ndarray, settings: Fairness
) -> np.ndarray:
    """Judge every column by intervals of all pairs, as for masks of everybody."""
    first, second = list_pairs(len(groups.names))
    squared, df, means = powered.squared_error, powered.df, powered.means
    compared = groups.kept[first] & groups.kept[second] & np.isfinite(means[first] - means[second])
    with np.errstate(invalid="ignore", divide="ignore"):
        together = squared[first] + squared[second]
        free = together**2 / (squared[first] ** 2 / df[first] + squared[second] ** 2 / df[second])
    difference = np.where(compared, means[first] - means[second], np.nan)
    # Those with masks alone tell whether anybody fails: the proxy may miss what the model misses.
    joint, _, alone = surround_pairs(
        difference, together, free, (first, second), compared, settings.alpha, groups.unseen
    )
    return judge(*joint, *alone, margins, p_adjusted, alpha=settings.alpha, compared=compared)


def _surround(n: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Return Welch's 95 % interval of the first mean − the second."""
    squared, df = find_squared_error(n[0], variance[0], n[1], variance[1])
    reach = special.stdtrit(df, 0.975) * np.sqrt(squared)
    return float(mean[0] - mean[1] - reach), float(mean[0] - mean[1] + reach)


def _check_random(groups: AttributeScores, powered: PoweredMeans) -> list[dict[str, Any]]:
    """Compare the proxies of those with masks with those of the others, within each group."""
    rows = []
    masked = np.isfinite(groups.scores.matrix)
    for column in range(masked.shape[1]):
        for code, name in enumerate(groups.names):
            if not groups.kept[code, column]:
                continue
            inside = (groups.codes == code) & np.isfinite(powered.proxy[:, column])
            parts = [powered.proxy[inside & (masked[:, column] == side), column] for side in (True, False)]
            if min(map(len, parts)) < FEWEST_MEASURED:
                continue
            n, mean = np.array([len(part) for part in parts]), np.array([part.mean() for part in parts])
            variance = np.array([part.var(ddof=1) for part in parts])
            squared, df = find_squared_error(n[0], variance[0], n[1], variance[1])
            p = 2.0 * special.stdtr(df, -abs(mean[0] - mean[1]) / np.sqrt(squared)) if squared > 0 else np.nan
            rows.append(
                groups.name_row(column)
                | {"group": name, "masks": int(n[0]), "people": int(n.sum())}
                | {"mean_masked": mean[0], "mean_others": mean[1], "p": float(p)}
            )
    return rows


def _refuse_verdicts(gaps: pd.DataFrame, attributes: set[str], why: str) -> pd.DataFrame:
    """Return the gaps without a verdict on some attributes, and why."""
    refused = gaps["attribute"].isin(list(attributes))
    return gaps.assign(verdict=gaps["verdict"].mask(refused, ""), note=gaps["note"].mask(refused, why))
