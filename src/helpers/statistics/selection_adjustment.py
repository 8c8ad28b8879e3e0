"""Adjustment for selection: wider intervals where two groups were picked as furthest apart."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special, stats

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
    Fisher's protected comparison, as Hayter mended it. Where the test over all k groups is not
    significant at 5 %, any of them may look best or worst by chance: the interval is Tukey's, which
    holds for whichever two are picked. Where it is significant, for k − 1 groups: with three groups
    that is Student's own, since only two of them can still be alike. So the interval leaves out 0
    in at most 5 % of the studies in which all groups are alike (12 % if the choice is not allowed
    for, with three groups; 20 % with four), without being too wide where they are not.

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


@lru_cache(maxsize=16)
def _fit_range_quantile(count: int) -> np.polynomial.Chebyshev:
    """Return the log quantile as a polynomial in 1 / df, to 1e-5: exact ones take 0.1 s each."""
    return np.polynomial.Chebyshev.interpolate(
        lambda inverse: np.log(stats.studentized_range.ppf(CONFIDENCE, count, 1.0 / inverse)),
        6,
        domain=[0.0, 1.0 / FEWEST_DEGREES],
    )
