"""Sizes of effects with their intervals, for all columns of values at once: two groups, or all of them.

Arrays are those of :mod:`helpers.statistics.hypothesis_tests`: ``values``, float64, (subjects, columns), NaN where there is none; ``groups``, integer,
(subjects,), −1 for no group. What cannot be estimated is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special
from scipy.optimize import elementwise

from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.hypothesis_tests import (
    Comparison,
    PairMembers,
    find_squared_error,
    rank_columns,
    run_kruskal_wallis,
    run_one_way_anova,
)
from helpers.statistics.intervals import Intervals

# Half the width, in standard errors, of where a bound of the noncentrality is looked for. Far out the distributions give NaN.
_REACH = 7.0


def measure_hedges_g(
    values: np.ndarray,
    groups: np.ndarray,
    first: int | np.ndarray = 0,
    second: int | np.ndarray = 1,
    *,
    confidence: float = CONFIDENCE,
) -> Intervals:
    """Measure the standardised difference of two means, corrected for small groups.

    Parameters
    ----------
    values, groups : ndarray
        See the module.
    first, second : int or ndarray of int, (columns,)
        Codes of the groups compared: the same for all columns, or one per column. g is positive where the first is higher.
    confidence : float

    Returns
    -------
    Intervals
        (columns,), in pooled standard deviations. NaN where nothing varies or a group has no value.

    Notes
    -----
    g = (1 − 3 / (4 n − 9)) · (difference of means) / (pooled standard deviation). The interval inverts the noncentral t distribution and carries the
    same correction: exact where both groups are normal with equal variances.

    References
    ----------
    Hedges 1981, *Journal of Educational Statistics* 6:107, equations 3 and 8; interval: Cumming & Finch 2001, *Educational and Psychological
    Measurement* 61:532. Estimates equal `pingouin.compute_effsize(eftype="hedges")`.
    """
    (n1, mean1, variance1), (n2, mean2, variance2) = PairMembers.select(values, groups, first, second).summarise()
    squared, df = find_squared_error(n1, variance1, n2, variance2, equal_variances=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(squared > 0, (mean1 - mean2) / np.sqrt(squared), np.nan)
        scale = np.sqrt(1.0 / n1 + 1.0 / n2) * (1.0 - 3.0 / (4.0 * (n1 + n2) - 9.0))
    low, high = (
        _find_noncentrality(_distribute_t, share, t, df, t, 1.0 + t**2 / (2.0 * df))
        for share in _split_tails(confidence)
    )
    return Intervals(t * scale, low * scale, high * scale)


def measure_cliffs_delta(
    values: np.ndarray,
    groups: np.ndarray,
    first: int | np.ndarray = 0,
    second: int | np.ndarray = 1,
    *,
    confidence: float = CONFIDENCE,
) -> Intervals:
    """Measure the chance that a person of one group scores higher than one of another, minus the reverse.

    The same number is known as the rank-biserial r (Kerby 2014).

    Parameters
    ----------
    values, groups : ndarray
        See the module.
    first, second : int or ndarray of int, (columns,)
        Codes of the groups compared. Positive where the first tends to be higher.
    confidence : float

    Returns
    -------
    Intervals
        (columns,), from −1 to 1. NaN where a group has no value; no interval where one has a single value.

    Notes
    -----
    The interval is the asymmetric one, which stays within −1 and 1 and allows for unequal spread and ties, from the unbiased variance (at least
    (1 − δ²) / (n₁ n₂ − 1)). Groups that do not overlap have the bound (m − z²) / (m + z²), m the smaller group's size.

    References
    ----------
    Cliff 1993, *Psychological Bulletin* 114:494; Feng & Cliff 2004, *Journal of Modern Applied Statistical Methods* 3:322. Estimates equal the RBC
    of `pingouin.mwu`.
    """
    pair = PairMembers.select(values, groups, first, second)
    both = pair.first | pair.second
    n1, n2 = pair.first.sum(axis=0).astype(np.float64), pair.second.sum(axis=0).astype(np.float64)
    ranks = rank_columns(pair.values, both)
    ties = _count_ties(pair.values, both)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Each person's mean over the other group of +1 (above), 0 (tied), −1 (below), seen from the first group.
        dominance1 = 2.0 * (ranks - rank_columns(pair.values, pair.first)) / n2 - 1.0
        dominance2 = 1.0 - 2.0 * (ranks - rank_columns(pair.values, pair.second)) / n1
        delta = np.where(pair.first, dominance1, 0.0).sum(axis=0) / n1
        spread1 = (np.where(pair.first, dominance1 - delta, 0.0) ** 2).sum(axis=0)
        spread2 = (np.where(pair.second, dominance2 - delta, 0.0) ** 2).sum(axis=0)
        tied = np.where(pair.first, ties - _count_ties(pair.values, pair.first), 0.0).sum(axis=0)
        spread = n1 * n2 - tied - n1 * n2 * delta**2
        squared = (n2**2 * spread1 + n1**2 * spread2 - spread) / (n1 * n2 * (n1 - 1.0) * (n2 - 1.0))
        squared = np.maximum(squared, (1.0 - delta**2) / (n1 * n2 - 1.0))
        z = special.ndtri((1.0 + confidence) / 2.0)
        centre, width = delta - delta**3, z * np.sqrt(squared * ((1.0 - delta**2) ** 2 + z**2 * squared))
        bounds = [(centre + side * width) / (1.0 - delta**2 + z**2 * squared) for side in (-1.0, 1.0)]
        smaller = np.minimum(n1, n2)
        apart = (smaller - z**2) / (smaller + z**2)
    low = np.where(delta >= 1.0, apart, np.where(delta <= -1.0, -1.0, np.maximum(bounds[0], -1.0)))
    high = np.where(delta <= -1.0, -apart, np.where(delta >= 1.0, 1.0, np.minimum(bounds[1], 1.0)))
    several = (n1 > 1) & (n2 > 1)
    return Intervals(delta, np.where(several, low, np.nan), np.where(several, high, np.nan))


def measure_eta_squared(values: np.ndarray, groups: np.ndarray, *, confidence: float = CONFIDENCE) -> Intervals:
    """Measure the share of the values' variation that lies between groups, in this sample.

    Returns
    -------
    Intervals
        (columns,), from 0 to 1; NaN where :func:`~helpers.statistics.hypothesis_tests.run_one_way_anova` makes no test.

    Notes
    -----
    Biased upwards: with k groups alike and n subjects it is (k − 1) / (n − 1) on average. The interval, of the share in the population, inverts
    the noncentral F distribution (noncentrality λ → λ / (λ + n)); exact for normal values of equal variance. It begins at 0 where the
    F test is not significant at half of 1 − confidence, and is 0 to 0 where F is smaller than chance would have it.

    References
    ----------
    Fisher 1925; interval: Steiger 2004, *Psychological Methods* 9:164. Estimates equal `pingouin.anova(effsize="n2")`, intervals
    `statsmodels.stats.oneway.confint_effectsize_oneway`.
    """
    found = run_one_way_anova(values, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = found.statistic * found.df / found.df_error
    return Intervals(ratio / (1.0 + ratio), *_find_share_interval(found, confidence))


def measure_omega_squared(values: np.ndarray, groups: np.ndarray, *, confidence: float = CONFIDENCE) -> Intervals:
    """Measure the share of the values' variation that lies between groups, in the population.

    Returns
    -------
    Intervals
        (columns,). The estimate is nearly unbiased and below 0 where F is below 1. The interval is that of
        :func:`measure_eta_squared`: both estimate the same share.

    References
    ----------
    Hays 1963, *Statistics for Psychologists*; ω² = (k − 1)(F − 1) / ((k − 1)(F − 1) + n).
    """
    found = run_one_way_anova(values, groups)
    above = found.df * (found.statistic - 1.0)
    return Intervals(above / (above + found.n), *_find_share_interval(found, confidence))


def measure_epsilon_squared(values: np.ndarray, groups: np.ndarray, *, confidence: float = CONFIDENCE) -> Intervals:
    """Measure the share of the ranks' variation that lies between groups: H / (n − 1).

    Returns
    -------
    Intervals
        (columns,), from 0 to 1; NaN where :func:`~helpers.statistics.hypothesis_tests.run_kruskal_wallis` makes no test.

    Notes
    -----
    The interval is that of η² on ranks: approximate, since ranks are neither normal nor of equal variance; the tests hold its coverage for
    shifted groups to within 3 % of nominal. Groups that do not overlap have no interval.

    References
    ----------
    Kelley 1935; Tomczak & Tomczak 2014, *Trends in Sport Sciences* 1:19. Ranks in place of values: Conover & Iman 1981, *American Statistician* 35:124.
    """
    found = run_kruskal_wallis(values, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = found.statistic / (found.n - 1.0)
        df_error = found.n - found.df - 1.0
        statistic = (share / found.df) / ((1.0 - share) / df_error)
    statistic = np.where((share < 1.0 - 1e-12) & (df_error >= 1), statistic, np.nan)
    of_ranks = Comparison(statistic, found.p, found.df, df_error, found.n)
    return Intervals(share, *_find_share_interval(of_ranks, confidence))


def _split_tails(confidence: float) -> tuple[float, float]:
    """Return the shares of the distribution below the statistic at the lower and at the upper bound."""
    return (1.0 + confidence) / 2.0, (1.0 - confidence) / 2.0


def _distribute_t(noncentrality: np.ndarray, t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return the share of the noncentral t distribution below t."""
    # Mirrored to positive t: for negative ones the library's series gives NaN where the noncentrality is large.
    side = np.where(t < 0, -1.0, 1.0)
    share = special.nctdtr(df, side * noncentrality, side * t)
    return np.where(t < 0, 1.0 - share, share)


def _find_share_interval(found: Comparison, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of λ / (λ + n), λ the noncentrality of F."""
    with np.errstate(invalid="ignore"):
        centre = found.statistic * found.df
        squared = 4.0 * (centre + found.df) * (1.0 + found.statistic * found.df / found.df_error)
    bounds = []
    for share in _split_tails(confidence):
        noncentrality = _find_noncentrality(
            lambda nc, at, df, free: special.ncfdtr(df, free, np.maximum(nc, 0.0), at),
            share,
            found.statistic,
            found.df,
            found.df_error,
            centre,
            squared,
            lowest=0.0,
        )
        bounds.append(noncentrality / (noncentrality + found.n))
    return bounds[0], bounds[1]


def _find_noncentrality(
    distribution: Callable[..., np.ndarray],
    share: float,
    statistic: np.ndarray,
    *arguments: np.ndarray,
    lowest: float = -np.inf,
) -> np.ndarray:
    """Return the noncentrality under which so large a share of a distribution lies below the statistic.

    The last two arguments are not the distribution's: where to look, and the squared standard error there.
    """
    *parameters, centre, squared = arguments
    result = np.full(statistic.shape, np.nan)
    with np.errstate(invalid="ignore"):
        reach = _REACH * np.sqrt(squared)
        low, high = np.maximum(centre - reach, lowest), centre + reach
    made = np.isfinite(statistic) & np.isfinite(low) & np.isfinite(high)
    at, low, high = statistic[made], low[made], high[made]
    given = [parameter[made] for parameter in parameters]
    # Less than the share already without any effect: the bound is at its end.
    within = distribution(low, at, *given) > share
    found = elementwise.find_root(
        lambda nc, *rest: distribution(nc, *rest) - share,
        (low[within], high[within]),
        args=(at[within], *(parameter[within] for parameter in given)),
    )
    bound = low.copy()
    bound[within] = found.x
    result[made] = bound
    return result


def _count_ties(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return for each known value how many known values of its column equal it, itself included."""
    return rank_columns(values, known, "max") - rank_columns(values, known, "min") + 1.0
