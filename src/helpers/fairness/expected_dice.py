"""The part of a Dice gap that the organs' size explains, and what is left of it.

Only Dice needs this: the uniform boundary error (``boundary_error_mm``) does not depend on size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from helpers.fairness.disparity import Disparities, limit_gap
from helpers.fairness.score_matrix import AttributeScores
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.bootstrap_differences import PostSelection, find_difference, find_gap_influence, take_gaps
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import run_welch_anova


@dataclass(frozen=True)
class SizeGaps:
    """The gap in expected Dice, and the excess over it with interval and p: float64, (places,)."""

    expected_gap: np.ndarray
    excess_gap: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def measure_excess(
    groups: AttributeScores,
    found: Disparities,
    gap_draws: np.ndarray,
    gap_influence: np.ndarray,
    resamples: Resamples,
    drawn: np.ndarray,
) -> SizeGaps:
    """Part every gap in Dice into what size explains and the rest.

    `groups` has scores with ``expected``. `gap_draws`, float64, (draws, columns), and
    `gap_influence`, float64, (subjects, columns), are every gap in each resample, and each person's
    bearing on it. In `resamples` those without a known group are one more: they too bear on the
    cohort's mean boundary error. `drawn`, float64, (draws, groups, columns + places + places), has
    the group means of the scores, the expected Dice and, where it was measured, the boundary error,
    whose mean is else held fixed.

    Notes
    -----
    The expected Dice of a person, 1 − δ̄ S / (2V), rests on the cohort's mean boundary error δ̄,
    itself an estimate from the same people. It is recomputed in every resample, to first order: the
    gap in expected Dice moves by (gap in the slope −S/(2V)) × (δ̄ of the resample − δ̄). Holding δ̄
    fixed leaves out that it moves with the two means: for two equal groups with r₁, r₂ = S/(2V) and
    errors of equal spread, the variance of the excess would be too large by the share (r₁ − r₂)² /
    (r₁ + r₂)². Pooled organs: each organ has its own δ̄, and a subject's slopes are averaged over
    their organs.
    """
    scores, codes = groups.scores, resamples.groups
    dice = np.flatnonzero([metric == "dice" for metric in scores.metrics])
    best, worst, number = found.best[dice], found.worst[dice], len(scores.places)
    signs, count, start = np.ones(number), drawn.shape[1], len(scores.keys)
    expected = cast(np.ndarray, scores.expected)
    expected_gap = take_gaps(_average_groups(expected, codes, count), best, worst, signs)
    draws = gap_draws[:, dice] - take_gaps(drawn[:, :, start : start + number], best, worst, signs)
    influence = gap_influence[:, dice] - find_gap_influence(GroupedValues(expected, codes), best, worst, signs)
    if scores.boundary is not None:
        mean, own, shift = _resample_mean(scores.boundary, codes, drawn[:, :, start + number :])
        slope = np.divide(expected - 1.0, mean, out=np.zeros_like(expected), where=mean > 0)
        slope[expected <= 0] = 0.0  # already as low as Dice goes: no error makes it lower
        for place in range(number):
            organs = scores.list_organs(place)
            known = np.isfinite(expected[:, organs])
            weight = 1.0 / np.maximum(known.sum(axis=1, keepdims=True), 1)
            parts = np.where(known, slope[:, organs] * weight, np.nan)
            if len(organs) > 1:  # an organ that a person lacks does not move their mean, but they count
                parts = np.where(known.any(axis=1, keepdims=True), np.nan_to_num(parts), np.nan)
            first, last = (np.full(len(organs), code[place]) for code in (best, worst))
            change = np.nan_to_num(take_gaps(_average_groups(parts, codes, count), first, last, np.ones(len(organs))))
            draws[:, place] -= shift[:, organs] @ change
            influence[:, place] -= own[:, organs] @ change
    left = GroupedValues(groups.compared.matrix[:, dice] - expected, groups.codes)
    selection = PostSelection(groups.number[dice], run_welch_anova(left).p)
    excess = found.gap[dice] - expected_gap
    unseen = groups.unseen.reach_gap(best, worst, dice)
    sure = find_difference(draws, excess, influence, resamples, selection, unseen)
    return SizeGaps(expected_gap, excess, *limit_gap(sure.low, sure.high, "dice"), sure.p)


def _average_groups(values: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Return each group's mean of each column, (groups, columns); NaN where nobody has a value."""
    known = np.isfinite(values)
    member = (groups == np.arange(count)[:, None]).astype(np.float64)
    number = member @ known
    return np.divide(member @ np.where(known, values, 0.0), number, out=np.full(number.shape, np.nan), where=number > 0)


def _resample_mean(
    boundary: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cohort's mean error, (places,), each person's influence on it, and its shifts."""
    known = np.isfinite(boundary)
    member = (groups == np.arange(drawn.shape[1])[:, None]).astype(np.float64)
    number = member @ known
    total = np.maximum(known.sum(axis=0), 1)
    means = np.nan_to_num(_average_groups(boundary, groups, drawn.shape[1]))
    mean = (number * means).sum(axis=0) / total
    filled = np.where(np.isfinite(drawn), drawn, means)  # a resample of nobody with a value tells nothing
    shift = ((filled - means) * number).sum(axis=1) / total
    influence = np.where(known & (groups >= 0)[:, None], (boundary - means[groups]) / total, 0.0)
    return mean, influence, shift
