"""Verdicts on differences between groups: never "no difference because p > 0.05".

What each verdict asks for and guarantees: docs/METHODS.md, section 9. Best − worst of three groups
or more is biased upwards, and a test of two groups chosen by looking is no test. So all pairs are
looked at, and nothing is chosen: *equivalent* and *negligible* need two one-sided tests of every
pair (an intersection–union test needs no adjustment for their number), *disparity* the interval of
some pair beyond the margin, of intervals that hold for all pairs together.

The guarantees are per column (the second's last part: per family), for means of values not too far
from normal for the groups' sizes: each holds as far as Welch's t interval covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy import special
from scipy.optimize import elementwise

from helpers.errors import SegfairError
from helpers.statistics.grouped_values import GroupedValues, list_pairs
from helpers.statistics.hypothesis_tests import find_least_p, find_squared_error
from helpers.statistics.unseen_failures import Allowance, UnseenFailures, widen_interval
from helpers.vocabulary.verdicts import Verdict

POWER = 0.8
_Ends: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Verdicts:
    """What :func:`judge_columns` found: float64, (pairs, columns), NaN where not compared."""

    # str, (columns,): a Verdict's value; empty where fewer than two groups are compared.
    verdict: np.ndarray
    first: np.ndarray  # int64, (pairs,): codes of the groups of each pair
    second: np.ndarray
    difference: np.ndarray  # mean of the first − mean of the second
    low: np.ndarray  # of intervals that hold for all pairs of a column together, at 1 − alpha
    high: np.ndarray
    low_equivalence: np.ndarray  # of intervals of each pair alone, at 1 − 2 alpha
    high_equivalence: np.ndarray
    # Minimum detectable difference: the smallest true one that Welch's test of this pair alone
    # finds with the power asked for, given the groups' numbers and spread.
    detectable: np.ndarray
    # bool, (columns,): every difference is inside the margin but for failures that nobody has seen.
    refused: np.ndarray


def judge(
    low: np.ndarray,
    high: np.ndarray,
    low_equivalence: np.ndarray,
    high_equivalence: np.ndarray,
    margin: np.ndarray,
    p_adjusted: np.ndarray,
    *,
    alpha: float,
    compared: np.ndarray | None = None,
    apart: np.ndarray | None = None,
) -> np.ndarray:
    """Judge every column by the intervals of all its pairs' differences: str, (columns,).

    A SegfairError for a margin that is not above 0, or alpha outside of 0 to 0.5.

    Parameters
    ----------
    low, high, low_equivalence, high_equivalence : ndarray of float64, (pairs, columns)
        As in :class:`Verdicts`.
    margin : ndarray of float64, (columns,)
        Above 0, in the values' unit; NaN where none is given: nothing is beyond or within it.
    p_adjusted : ndarray of float64, (columns,)
        Of the test over all groups, adjusted for the family; NaN counts as not significant.
    alpha : float
    compared : ndarray of bool, (pairs, columns), optional
        Pairs that count; all by default. One without an interval (NaN) cannot be inside the margin.
    apart : ndarray of bool, (columns,), optional
        Whether the column's own interval (of its largest gap, say) leaves out 0: then, too, a
        significant difference is real.
    """
    margin = np.asarray(margin, np.float64)
    if (margin <= 0).any():
        raise SegfairError(
            f"margin must be above 0 in every column; got {np.nanmin(margin):g}: "
            "state the largest difference that does not matter"
        )
    if not 0 < alpha < 0.5:
        raise SegfairError(f"alpha must be between 0 and 0.5; got {alpha:g}")
    compared = np.ones(np.shape(low), bool) if compared is None else compared
    significant = np.asarray(p_adjusted) <= alpha
    inside = (~compared | ((low_equivalence > -margin) & (high_equivalence < margin))).all(axis=0)
    beyond = (compared & ((low > margin) | (high < -margin))).any(axis=0)
    leaves_out = (compared & ((low > 0) | (high < 0))).any(axis=0)
    real = significant & (leaves_out if apart is None else leaves_out | apart)
    verdict = np.select(
        [~compared.any(axis=0), significant & beyond & ~inside, inside & real, inside, real],
        ["", *(one.value for one in (Verdict.DISPARITY, Verdict.NEGLIGIBLE, Verdict.EQUIVALENT, Verdict.DIFFERENCE))],
        Verdict.INCONCLUSIVE.value,
    )
    return verdict.astype(np.str_)


def judge_columns(
    grouped: GroupedValues,
    margin: np.ndarray,
    p_adjusted: np.ndarray,
    *,
    alpha: float = 0.05,
    power: float = POWER,
    smallest_group: int = 2,
    apart: np.ndarray | None = None,
    errors: tuple[np.ndarray, np.ndarray] | None = None,
    failures: UnseenFailures | None = None,
) -> Verdicts:
    """Judge the differences between the groups' means by Welch's intervals of all pairs.

    `margin`, `p_adjusted`, `alpha` and `apart` are those of :func:`judge`, as is what is raised;
    `power` is for the minimum detectable difference. Groups with fewer than `smallest_group` (at
    least 2) values in a column are not compared there. `errors`, the squared standard errors of all
    pairs' differences and their degrees of freedom, (pairs, columns), stand in for Welch's. With
    `failures`, those that were not seen are allowed for: all intervals are widened by them, and
    inside the margin is only what would be so too if each group failed as often as its exact bound
    admits.

    Sources: Schuirmann 1987, *Journal of Pharmacokinetics and Biopharmaceutics* 15:657; Berger
    1982, *Technometrics* 24:295; Tamhane 1979, *JASA* 74:471 (T2); Šidák 1967, *JASA* 62:626.
    """
    moments = grouped.moments
    first, second = list_pairs(grouped.groups)
    kept = moments.n >= max(smallest_group, 2)
    compared = kept[first] & kept[second]
    squared, df = errors or find_squared_error(
        moments.n[first], moments.variance[first], moments.n[second], moments.variance[second]
    )
    difference = np.where(compared, moments.mean[first] - moments.mean[second], np.nan)
    (low, high), plain, narrow = surround_pairs(difference, squared, df, (first, second), compared, alpha, failures)
    verdict, unrefused = (
        judge(low, high, *ends, margin, p_adjusted, alpha=alpha, compared=compared, apart=apart)
        for ends in (narrow, plain)
    )
    within = (Verdict.EQUIVALENT.value, Verdict.NEGLIGIBLE.value)
    error = np.where(compared & (squared > 0), np.sqrt(squared), np.nan)
    detectable = find_detectable_difference(error, df, alpha=alpha, power=power)
    if errors is None:  # people are permuted; so few may have no arrangement that is rare enough
        detectable[:, find_least_p(np.where(kept, moments.n, 0)) > alpha] = np.nan
    refused = np.isin(unrefused, within) & ~np.isin(verdict, within)
    return Verdicts(verdict, first, second, difference, low, high, *narrow, detectable, refused)


def find_joint_level(compared: np.ndarray, alpha: float) -> np.ndarray:
    """Return the level at which each of a column's pairs holds, for all to hold at 1 − alpha.

    `compared`, bool, (pairs, columns), are those that count; the result is float64, (columns,).
    Šidák 1967.
    """
    return np.asarray(1.0 - (1.0 - alpha) ** (1.0 / np.maximum(compared.sum(axis=0), 1)))


def surround_pairs(
    difference: np.ndarray,
    squared: np.ndarray,
    df: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    compared: np.ndarray,
    alpha: float,
    failures: UnseenFailures | None = None,
) -> tuple[_Ends, _Ends, _Ends]:
    """Return the intervals of pairs that verdicts rest on: low and high, (pairs, columns), of each.

    Those that hold for all pairs together at 1 − alpha; those of each alone at 1 − 2 alpha; and the
    latter allowing for unseen `failures`, as the first do. `difference`, `squared` (its squared
    standard error) and `df` are float64, (pairs, columns); `pairs` the codes of the groups;
    `compared` which pairs count.
    """
    # Without any variation there is no standard error, and nothing can be shown to be equivalent.
    # Groups of which each has a value of its own do differ, though, as far as the test over all
    # groups says so.
    error = np.where(compared & (squared > 0), np.sqrt(squared), np.nan)
    tail = find_joint_level(compared, alpha) / 2.0
    low, high = _surround(difference, error, df, tail)
    constant = compared & (squared == 0) & (difference != 0)
    joint = np.where(constant, difference, low), np.where(constant, difference, high)
    alone = _surround(difference, error, df, alpha)
    if failures is None:
        return joint, alone, alone
    return (
        _allow_for_unseen(failures, pairs, difference, *joint, tail),
        alone,
        _allow_for_mixture(failures, pairs, difference, *alone, alpha),
    )


def find_detectable_difference(
    error: np.ndarray, df: np.ndarray, *, alpha: float = 0.05, power: float = POWER
) -> np.ndarray:
    """Return the minimum detectable difference: what a two-sided t test finds with a given power.

    `error` and `df`, float64, of any equal shape, are the standard error of the difference,
    √(s₁²/n₁ + s₂²/n₂) say, and its degrees of freedom; `alpha` the level of the test (smaller where
    it is one of many) and `power` between it and 1: else a SegfairError. The result is in the unit
    of the standard error, NaN where there is none. It says something of the sample's size and
    spread, not of the difference found in it.

    Source: Cohen 1988, *Statistical Power Analysis*, chapter 2. Equal to
    `statsmodels.stats.power.TTestIndPower` for equal sizes and variances.
    """
    if not alpha < power < 1:
        raise SegfairError(f"power must be above alpha ({alpha:g}) and below 1; got {power:g}")
    result = np.full(np.shape(error), np.nan)
    made = np.isfinite(error) & np.isfinite(df) & (error > 0)
    free = df[made]
    critical = special.stdtrit(free, 1.0 - alpha / 2.0)

    def miss(noncentrality: np.ndarray, free: np.ndarray, critical: np.ndarray) -> np.ndarray:
        # A difference found with the wrong sign: too rare for the library (NaN) once the
        # noncentrality is large.
        wrong = np.nan_to_num(special.nctdtr(free, noncentrality, -critical), nan=0.0)
        return special.nctdtr(free, noncentrality, critical) - wrong - (1.0 - power)

    # There both the spread estimated and the mean miss with half the chance that is left: more
    # power than asked for.
    half = (1.0 - power) / 2.0
    enough = critical * np.sqrt(special.chdtri(free, half) / free) - special.ndtri(half)
    found = elementwise.find_root(miss, (np.zeros_like(free), enough), args=(free, critical))
    result[made] = found.x * error[made]
    return result


def _surround(
    difference: np.ndarray, error: np.ndarray, df: np.ndarray, tail: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    reach = special.stdtrit(df, 1.0 - np.broadcast_to(tail, difference.shape)) * error
    return difference - reach, difference + reach


def _allow_for_unseen(
    failures: UnseenFailures,
    pair: tuple[np.ndarray, np.ndarray],
    difference: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    tail: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Widen the intervals of pairs by failures that one of them may have and nobody saw."""
    first, second = (failures.reach_unseen(tail)[codes] for codes in pair)
    # What makes the first worse makes the difference lower where higher is better.
    sides = np.where(failures.sign > 0, (first, second), (second, first))
    return widen_interval(difference, low, high, Allowance(*sides))


def _allow_for_mixture(
    failures: UnseenFailures,
    pair: tuple[np.ndarray, np.ndarray],
    difference: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    tail: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Widen the intervals of pairs to those of mixtures of failures and the rest."""
    worse, better = failures.reach_mixture(tail)
    lower, higher = np.where(failures.sign > 0, (worse, better), (better, worse))
    first, second = pair
    return (
        np.minimum(low, difference - np.hypot(lower[first], higher[second])),
        np.maximum(high, difference + np.hypot(higher[first], lower[second])),
    )
