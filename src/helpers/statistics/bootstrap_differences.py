"""Studentised bootstrap intervals of means, and of differences measured on the same people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from helpers.statistics.bootstrap import CONFIDENCE, Resamples
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.intervals import SortedDraws
from helpers.statistics.selection_adjustment import widen_for_choice
from helpers.statistics.unseen_failures import Allowance, widen_interval

LARGEST_REACH = 2.0  # times Student's quantile: resamples of a few people, or of twins, have no spread, and no end
_LEAST_ERROR = 1e-3  # of the sample's standard error, so that what is divided by it stays finite


@dataclass(frozen=True)
class PostSelection:
    """Among how many groups two were picked as furthest apart, and the p of all, (columns,)."""

    number: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class IntervalResult:
    """Interval and p per column, float64, (columns,): NaN without an estimate or a draw."""

    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def take_gaps(means: np.ndarray, best: np.ndarray, worst: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Return best − worst of group means in the direction of each column's metric, (..., columns).

    `means` are float64, (..., groups, columns); `best` and `worst`, int, (columns,), codes of the
    groups, −1 where nothing is compared: NaN; `sign`, float64, (columns,), is +1 where higher is
    better, else −1.
    """
    columns = np.arange(means.shape[-1])
    if not means.shape[-2]:
        return np.full((*means.shape[:-2], len(columns)), np.nan)
    gaps = sign * (means[..., best, columns] - means[..., worst, columns])
    return np.where(best >= 0, gaps, np.nan)


def find_gap_influence(grouped: GroupedValues, best: np.ndarray, worst: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Find how much each person bears on the gap between two groups' means, (subjects, columns).

    ± (value − mean of the group) / (number in the group); 0 for everybody else, and not quite 0 for
    somebody just at the mean, who counts. `best`, `worst` and `sign` are those of
    :func:`take_gaps`. Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, section 21.3:
    the empirical influence of a mean, over n.
    """
    moments, values = grouped.moments, grouped.matrix
    influence = np.zeros(values.shape)
    if not grouped.groups:
        return influence
    columns = np.arange(values.shape[1])
    for codes, side in ((best, sign), (worst, -sign)):
        member = np.isfinite(values) & (grouped.codes[:, None] == codes) & (codes >= 0)
        number = np.maximum(moments.n[codes, columns], 1)
        influence += np.where(member, _lift_zeros(side * (values - moments.mean[codes, columns]) / number), 0.0)
    return influence


def find_mean_influence(grouped: GroupedValues) -> np.ndarray:
    """Find how much each person bears on the mean of their own group, (subjects, columns)."""
    moments, codes = grouped.moments, grouped.codes
    share = (grouped.matrix - moments.mean[codes]) / np.maximum(moments.n[codes], 1)
    return np.where(grouped.known, _lift_zeros(share), 0.0)


def find_rest_influence(grouped: GroupedValues, kept: np.ndarray, group: int, sign: np.ndarray) -> np.ndarray:
    """Find how much each person bears on a group's mean against that of all others compared.

    sign · (value − mean of the person's group) / n, n the number in the group, or, negative, in all
    others together. `kept`, bool, (groups, columns), are those compared.
    """
    sizes = np.where(kept, grouped.moments.n, 0)
    weight = np.tile(-sign / np.maximum(sizes.sum(axis=0) - sizes[group], 1), (len(sizes), 1))
    weight[group] = sign / np.maximum(sizes[group], 1)
    member = grouped.known & ((sizes > 0) & (sizes[group] > 0))[grouped.codes]
    return np.where(
        member, _lift_zeros(weight[grouped.codes] * (grouped.matrix - grouped.moments.mean[grouped.codes])), 0.0
    )


def find_difference(
    draws: np.ndarray,
    estimate: np.ndarray,
    influence: np.ndarray,
    resamples: Resamples,
    selection: PostSelection | None = None,
    unseen: Allowance | None = None,
) -> IntervalResult:
    """Find the 95 % bootstrap-t interval of a difference between groups, and the p-value of none.

    `draws`, float64, (draws, columns), is the difference in each of `resamples`; those without a
    value are left out. `estimate` is float64, (columns,); `influence`, float64, (subjects,
    columns), each person's bearing on it (:func:`find_gap_influence`). With a `selection`, where
    the groups were picked by looking, the interval is widened (:func:`widen_for_choice`); so are
    interval and p by failures that are `unseen`.

    Notes
    -----
    Estimate ± c · s, with s the standard error and c the 95 % quantile of |draw − estimate| /
    (standard error in that draw), at most :data:`LARGEST_REACH` times Student's quantile. p is 1 −
    the level at which a bound is 0: beyond the draws, the tail is Student's with the scale that
    makes both agree at 95 %; NaN where nobody varies and there is a difference nevertheless.

    Sources: Hall 1988, *Annals of Statistics* 16:927 (symmetric bootstrap-t: coverage right to
    n⁻²); Efron & Tibshirani 1993, section 12.5.
    """
    corrected, df = _find_squared_error(*resamples.sum_units(influence))
    error = np.sqrt(corrected)
    widened = np.ones(len(estimate)) if selection is None else widen_for_choice(selection.number, selection.p, df)
    squared = resamples.draw_whole_squared_errors(influence)
    t = SortedDraws.sort(np.abs(_divide(draws - estimate, squared, error)))
    student = special.stdtrit(df, (1.0 + CONFIDENCE) / 2.0)
    reach = widened * np.minimum(t.find_quantile(CONFIDENCE), LARGEST_REACH * student)
    known = np.isfinite(estimate) & (t.number > 0)
    low, high = (np.where(known, estimate + side * reach * error, np.nan) for side in (-1.0, 1.0))
    to_zero = reach * error
    if unseen is not None:
        low, high = widen_interval(estimate, low, high, unseen)
        to_zero = np.hypot(to_zero, unseen.face_zero(estimate))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2.0 * special.stdtr(df, -np.abs(estimate) * student / to_zero)
    p = np.where(error > 0, p, np.where(estimate == 0, 1.0, np.nan))
    return IntervalResult(low, high, np.where(known, p, np.nan))


def find_mean_intervals(
    grouped: GroupedValues, drawn: np.ndarray, resamples: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Find the 95 % bootstrap-t interval of every group's mean: low and high, (groups, columns).

    `drawn`, float64, (draws, groups, columns), has the group means in the resamples; groups of
    `resamples` beyond these are not looked at.

    Notes
    -----
    NaN where a group has fewer than two values; the mean itself where all are equal. Equal tails,
    unlike :func:`find_difference`, and the same limit: the skewness of one group's scores is real
    and makes the interval longer on the side of its long tail.

    Sources: Efron & Tibshirani 1993, section 12.5. Hall 1988, *Annals of Statistics* 16:927 (right
    to 1/n on each side, as BCa, but for small groups closer).
    """
    moments = grouped.moments
    low, high = np.full((2, *moments.n.shape), np.nan)
    if not grouped.groups:
        return low, high
    influence = find_mean_influence(grouped)
    tail = (1.0 - CONFIDENCE) / 2.0
    for group, squared in resamples.draw_squared_errors(influence):
        if group >= grouped.groups:
            continue
        mean, several = moments.mean[group], moments.n[group] > 1
        error = np.sqrt(np.where(several, moments.variance[group], 0.0) / np.maximum(moments.n[group], 1))
        t = SortedDraws.sort(_divide(drawn[:, group] - mean, squared, error))
        limit = LARGEST_REACH * special.stdtrit(np.maximum(moments.n[group] - 1, 1), 1.0 - tail)
        for bound, level in ((low, 1.0 - tail), (high, tail)):
            reached = mean - np.clip(t.find_quantile(level), -limit, limit) * error
            bound[group] = np.where(several & (t.number > 0), reached, np.nan)
    return low, high


def _lift_zeros(influence: np.ndarray) -> np.ndarray:
    """Return influences with 0 made the smallest number above it: 0 is for who does not count."""
    return np.where(influence == 0, np.finfo(np.float64).tiny, influence)


def _divide(distance: np.ndarray, squared: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return distances in standard errors of their own draw; 0 where nobody varies."""
    own = np.sqrt(np.maximum(squared, (_LEAST_ERROR * error) ** 2))
    return np.divide(distance, own, out=np.where(np.isfinite(distance), 0.0, np.nan), where=own > 0)


def _find_squared_error(influence: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared standard error and Satterthwaite's degrees of freedom, (columns,) each."""
    corrected, share = np.zeros((2, influence.shape[1]))
    for group in np.unique(groups):
        part = influence[groups == group]
        number = (part != 0).sum(axis=0)
        several = number > 1
        unbiased = np.where(several, (part**2).sum(axis=0) * number / np.maximum(number - 1, 1), 0.0)
        corrected = corrected + unbiased
        share = share + np.where(several, unbiased**2 / np.maximum(number - 1, 1), 0.0)
    df = np.divide(corrected**2, share, out=np.full(len(share), 1e9), where=(corrected > 0) & (share > 0))
    return corrected, df
