"""Differences of what is measured on the same people: gaps in the same resamples, and how each person bears on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from helpers.fairness.bootstrap import CONFIDENCE
from helpers.fairness.hypothesis_tests import summarise_columns
from helpers.fairness.intervals import SortedDraws, find_bca_interval


def take_gaps(means: np.ndarray, best: np.ndarray, worst: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Return best − worst of group means in the direction of each column's metric.

    Parameters
    ----------
    means : ndarray of float64, (..., groups, columns)
    best, worst : ndarray of int, (columns,)
        Codes of the groups; −1 where nothing is compared.
    sign : ndarray of float64, (columns,)
        +1 where higher is better, else −1.

    Returns
    -------
    ndarray of float64, (..., columns)
        NaN where nothing is compared.
    """
    columns = np.arange(means.shape[-1])
    if not means.shape[-2]:
        return np.full((*means.shape[:-2], len(columns)), np.nan)
    gaps = sign * (means[..., best, columns] - means[..., worst, columns])
    return np.where(best >= 0, gaps, np.nan)


def find_gap_influence(
    values: np.ndarray, groups: np.ndarray, best: np.ndarray, worst: np.ndarray, sign: np.ndarray
) -> np.ndarray:
    """Find how much each person bears on the gap between two groups' means.

    Parameters
    ----------
    values : ndarray of float64, (subjects, columns)
        NaN where a subject has no value.
    groups : ndarray of int, (subjects,)
    best, worst, sign : ndarray, (columns,)
        As in :func:`take_gaps`.

    Returns
    -------
    ndarray of float64, (subjects, columns)
        ± (value − mean of the group) / (number in the group); 0 for everybody else.

    References
    ----------
    Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, section 21.3: the empirical influence of a mean, over n.
    """
    moments = summarise_columns(values, groups)
    influence = np.zeros(values.shape)
    if not len(moments.n):
        return influence
    columns = np.arange(values.shape[1])
    for codes, side in ((best, sign), (worst, -sign)):
        member = np.isfinite(values) & (groups[:, None] == codes) & (codes >= 0)
        number = np.maximum(moments.n[codes, columns], 1)
        influence += np.where(member, side * (values - moments.mean[codes, columns]) / number, 0.0)
    return influence


def accelerate_influence(influence: np.ndarray) -> np.ndarray:
    """Return the acceleration of every column, (columns,), from each person's influence, (subjects, columns).

    References
    ----------
    Efron 1987, *JASA* 82:171, equation 6.6; for several samples the sum over all of them, as in
    :func:`helpers.fairness.intervals.accelerate`.
    """
    cubes, squares = (influence**3).sum(axis=0), (influence**2).sum(axis=0)
    return np.divide(cubes, 6.0 * squares**1.5, out=np.zeros_like(squares), where=squares > 0)


@dataclass(frozen=True)
class Found:
    """Interval and p-value of every column, ndarray of float64, (columns,): NaN where there is no estimate or no draw."""

    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def find_difference(
    draws: np.ndarray, estimate: np.ndarray, influence: np.ndarray, groups: np.ndarray, *, method: str
) -> Found:
    """Find the 95 % bootstrap interval of a difference between groups, and the p-value of none, fit for small groups.

    Parameters
    ----------
    draws : ndarray of float64, (draws, columns)
        The difference in each resample; draws without a value are left out.
    estimate : ndarray of float64, (columns,)
    influence : ndarray of float64, (subjects, columns)
        Each person's bearing on it (:func:`find_gap_influence`).
    groups : ndarray of int, (subjects,)
        Within which people were resampled.
    method : {"bca", "percentile"}

    Returns
    -------
    Found
        ``p`` is 1 − the level at which a bound of the interval is 0; at least about 2 / (draws + 1).

    Notes
    -----
    A bootstrap interval of a mean is that of a normal z with the standard deviation divided by n: too narrow for small groups. So its levels are
    moved outwards, from Φ(±z) to Φ(±t √(s² / s₀²)), with t Student's on Satterthwaite's degrees of freedom and s², s₀² the variance with n − 1
    and with n: with normal scores the interval is then Welch's. Of two groups of 30 the interval grows by 4 %, of 500 by 0.2 %.

    References
    ----------
    Efron 1987, *JASA* 82:171 (BCa); Hesterberg 2015, *American Statistician* 69:371, section 4.2 (expanded levels); Efron & Tibshirani 1993,
    section 15.4 (p-value by inversion).
    """
    df, factor = _find_degrees(influence, groups)
    acceleration = accelerate_influence(influence) if method == "bca" else None
    reach = special.stdtrit(df, (1.0 + CONFIDENCE) / 2.0) * factor
    drawn = SortedDraws.sort(draws)
    low, high = find_bca_interval(drawn, estimate, acceleration, confidence=1.0 - 2.0 * special.ndtr(-reach))
    with np.errstate(invalid="ignore", divide="ignore"):
        least = 1.0 / (drawn.number + 1.0)

        def place(value: np.ndarray) -> np.ndarray:
            return special.ndtri(np.clip(drawn.find_share(value), least, 1.0 - least))

        z = place(np.zeros(len(estimate)))
        if acceleration is not None:
            bias = place(estimate)
            z = (z - bias) / (1.0 + acceleration * (z - bias)) - bias
        p = 2.0 * special.stdtr(df, -np.abs(z) / factor)
    return Found(low, high, np.where(np.isfinite(estimate) & (drawn.number > 0), p, np.nan))


def _find_degrees(influence: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Satterthwaite's degrees of freedom, and √ of the variance with n − 1 over that with n, (columns,) each."""
    plain, corrected, share = np.zeros((3, influence.shape[1]))
    for group in np.unique(groups):
        part = influence[groups == group]
        number = (part != 0).sum(axis=0)
        squares = (part**2).sum(axis=0)
        several = number > 1
        unbiased = np.where(several, squares * number / np.maximum(number - 1, 1), 0.0)
        plain, corrected = plain + squares, corrected + unbiased
        share = share + np.where(several, unbiased**2 / np.maximum(number - 1, 1), 0.0)
    sure = corrected > 0
    df = np.divide(corrected**2, share, out=np.full(len(plain), 1e9), where=sure & (share > 0))
    return df, np.sqrt(np.divide(corrected, plain, out=np.ones(len(plain)), where=sure & (plain > 0)))
