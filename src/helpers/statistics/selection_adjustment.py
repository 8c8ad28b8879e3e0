"""Adjustment for selection: wider intervals where two groups were picked as furthest apart."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special, stats
from scipy.optimize import elementwise

from helpers.statistics.bootstrap import CONFIDENCE

FEWEST_DEGREES = 5.0  # below that, quantiles of the studentised range are computed one by one


def find_range_quantile(number: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return the 95 % quantile of the studentised range, float64 to 1e-5, in the shape given.

    `number` are groups (int, at least 2), `df` degrees of freedom (float64, the same shape); NaN
    where there are none.
    """
    result = np.full(df.shape, np.nan)
    two = (number == 2) & (df > 0)
    result[two] = np.sqrt(2.0) * special.stdtrit(df[two], (1.0 + CONFIDENCE) / 2.0)
    for count in np.unique(number[number > 2]):
        usual = (number == count) & (df >= FEWEST_DEGREES)
        few = (number == count) & (df > 0) & (df < FEWEST_DEGREES)
        if usual.any():
            result[usual] = np.exp(_fit_range_quantile(int(count))(1.0 / df[usual]))
        if few.any():
            result[few] = stats.studentized_range.ppf(CONFIDENCE, count, df[few])
    return result


def widen_for_choice(number: np.ndarray, p: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return the factor on the reach of an interval of best − worst, (columns,); 1 for two groups.

    `number`, int, (columns,), are the groups among which the two were picked; `p`, float64,
    (columns,), is of the test over all groups, where NaN counts as not significant; `df`, float64,
    (columns,), of the difference.

    Notes
    -----
    Fisher's protected comparison, as Hayter mended it: Tukey's interval over all k groups, and over
    k − 1 where the test over all is significant at 5 %, since then only so many can still be alike.
    It leaves out 0 in at most 5 % of the studies in which all groups are alike (12 % if the choice
    is not allowed for, with three groups; 20 % with four).

    Sources: Hayter 1986, *JASA* 81:1000; Tukey 1953, as in Miller 1981, *Simultaneous Statistical
    Inference*, section 2.1.
    """
    widened = np.ones(len(number))
    several = (number > 2) & np.isfinite(df) & (df > 0)
    if several.any():
        counted = (number - (p <= 1.0 - CONFIDENCE))[several]
        student = special.stdtrit(df[several], (1.0 + CONFIDENCE) / 2.0)
        widened[several] = np.maximum(find_range_quantile(counted, df[several]) / (np.sqrt(2.0) * student), 1.0)
    return widened


def condition_on_significance(
    estimate: np.ndarray, error: np.ndarray, threshold: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return median and 95 % interval of an effect that is told because it was significant.

    `estimate`, float64, (columns,), above 0, was significant from `threshold` of its standard
    errors `error` on. Returns median, low and high, (columns,): the true effect for which the
    estimate is the median, the 97.5 % and the 2.5 % point of all significant ones; NaN where it was
    not.

    Notes
    -----
    An effect that is looked at only when it is significant is overstated, the more the smaller it
    is (the winner's curse), and its plain interval misses the truth more often than it says. Given
    significance the estimate has a normal distribution cut out between −threshold and threshold;
    the three numbers invert its distribution function, so that they are right for whatever the true
    effect is. Zhong & Prentice 2008, *Biostatistics* 9:621; Weinstein, Fithian & Benjamini 2013,
    *JASA* 108:165.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        z = estimate / error
    told = np.isfinite(z) & (z >= threshold)
    z, cut = np.where(told, z, 1.0), np.where(told, threshold, 0.0)

    def miss(mean: np.ndarray, z: np.ndarray, cut: np.ndarray, level: np.ndarray) -> np.ndarray:
        # From above, where numbers are small: what is left over z, of what is over the cut.
        above = special.log_ndtr(mean - z)
        all_told = np.logaddexp(special.log_ndtr(mean - cut), special.log_ndtr(-mean - cut))
        return np.asarray(np.exp(above - all_told) - level)

    found = []
    for level in (0.5, (1.0 - CONFIDENCE) / 2.0, (1.0 + CONFIDENCE) / 2.0):
        # The chance to be above z grows with the mean: far below it is tiny, far above 1.
        root = elementwise.find_root(
            miss, (np.full_like(z, -60.0), np.full_like(z, 60.0) + z), args=(z, cut, np.full_like(z, level))
        )
        found.append(np.where(told, root.x * error, np.nan))
    return found[0], found[1], found[2]


@lru_cache(maxsize=16)
def _fit_range_quantile(count: int) -> np.polynomial.Chebyshev:
    """Return the log quantile as a polynomial in 1 / df, to 1e-5: exact ones take 0.1 s each."""
    return np.polynomial.Chebyshev.interpolate(
        lambda inverse: np.log(stats.studentized_range.ppf(CONFIDENCE, count, 1.0 / inverse)),
        6,
        domain=[0.0, 1.0 / FEWEST_DEGREES],
    )
