"""Tests between groups, for all columns of values at once, and the adjustment for many of them.

Each test takes a :class:`GroupedValues`; those of two groups also their codes `first` and `second`,
an int for all columns or an ndarray of int, (columns,). A group without a value in a column takes
no part in that column's test; a test that cannot be made gives NaN. Results are those of the
functions named (held to 1e-10 by the tests), which test one column at a time, in milliseconds each:
too slow for resampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from helpers.statistics.grouped_values import (
    GroupedValues,
    Moments,
    PairMembers,
    list_pairs,
    rank_columns,
    summarise_members,
)

MANN_WHITNEY = "Mann–Whitney U"
KRUSKAL_WALLIS = "Kruskal–Wallis H"
RANK_BISERIAL = "rank-biserial r"
EPSILON_SQUARED = "epsilon²"

# scipy's and pingouin's rule: U has its exact null distribution up to this size of the smaller
# group, without ties.
LARGEST_EXACT = 8


@dataclass(frozen=True)
class Comparison:
    """One test per column: float64, (columns,); p-values are two-sided."""

    statistic: np.ndarray
    p: np.ndarray
    df: np.ndarray  # degrees of freedom: of F and H the first, else NaN
    df_error: np.ndarray  # of F and t the second, else NaN
    n: np.ndarray  # int64: subjects with a value and a group


@dataclass(frozen=True)
class PairComparisons:
    """One test per pair of groups and column: float64, (pairs, columns)."""

    first: np.ndarray  # int64, (pairs,): codes of the groups, first < second, in lexical order
    second: np.ndarray
    difference: np.ndarray  # first − second, of means or of mean ranks
    squared_error: np.ndarray  # its squared standard error
    statistic: np.ndarray
    df: np.ndarray  # NaN for a statistic that has none
    p: np.ndarray


def run_one_way_anova(grouped: GroupedValues) -> Comparison:
    """Run Fisher's one-way analysis of variance: F on (k − 1, n − k) degrees of freedom.

    NaN where nothing varies within the groups (F is infinite then). Fisher 1925, *Statistical
    Methods for Research Workers*, chapter 7; `scipy.stats.f_oneway`.
    """
    between, within, n, used = _split_variation(grouped.moments)
    df, df_error = used - 1.0, n - used.astype(np.float64)
    made = (df >= 1) & (df_error >= 1) & (within > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(made, (between / df) / (within / df_error), np.nan)
    return Comparison(statistic, special.fdtrc(df, df_error, statistic), df, df_error, n)


def run_welch_anova(grouped: GroupedValues) -> Comparison:
    """Run Welch's analysis of variance, which allows for unequal variances.

    NaN where a group has a single value or does not vary: its weight n / s² is undefined. Welch
    1951, *Biometrika* 38:330, equation 21; `pingouin.welch_anova`.
    """
    moments = grouped.moments
    present = moments.n > 0
    used = present.sum(axis=0)
    defined = ~present | ((moments.n > 1) & (moments.variance > 0))
    made = (used >= 2) & defined.all(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(present & made, moments.n / moments.variance, 0.0)
        total = weight.sum(axis=0)
        mean = np.where(present, moments.mean, 0.0)
        centre = (weight * mean).sum(axis=0) / total
        between = (weight * (mean - centre) ** 2).sum(axis=0) / (used - 1.0)
        share = np.where(present, (1.0 - weight / total) ** 2 / (moments.n - 1.0), 0.0).sum(axis=0)
        looseness = 3.0 * share / (used**2 - 1.0)
        statistic = np.where(made, between / (1.0 + 2.0 * looseness * (used - 2.0) / 3.0), np.nan)
        df_error = np.where(made, 1.0 / looseness, np.nan)
    df = used - 1.0
    return Comparison(statistic, special.fdtrc(df, df_error, statistic), df, df_error, moments.n.sum(axis=0))


def run_kruskal_wallis(grouped: GroupedValues) -> Comparison:
    """Run Kruskal and Wallis' test on ranks, adjusted for ties, by χ² on k − 1 degrees of freedom.

    H = (n − 1) · (variation of ranks between groups) / (variation of ranks). NaN where all values
    are equal. Kruskal & Wallis 1952, *JASA* 47:583, equations 1.1 and 1.2; `scipy.stats.kruskal`.
    """
    between, within, n, used = _split_variation(grouped.ranks.moments)
    df = used - 1.0
    made = (df >= 1) & (between + within > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(made, (n - 1.0) * between / (between + within), np.nan)
    return Comparison(statistic, special.chdtrc(df, statistic), df, np.full(len(n), np.nan), n)


def run_t_test(grouped: GroupedValues, first: int | np.ndarray = 0, second: int | np.ndarray = 1) -> Comparison:
    """Run Welch's t test between two groups: t is positive where the first is higher.

    NaN where a group has fewer than two values or nothing varies. Welch 1947, *Biometrika* 34:28;
    `scipy.stats.ttest_ind(equal_var=False)`.
    """
    pair = PairMembers.select(grouped, first, second)
    (n1, mean1, variance1), (n2, mean2, variance2) = (
        summarise_members(pair.values, members) for members in (pair.first, pair.second)
    )
    squared, df = find_squared_error(n1, variance1, n2, variance2)
    made = squared > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(made, (mean1 - mean2) / np.sqrt(squared), np.nan)
    return _refer_to_t(statistic, np.where(made, df, np.nan), n1 + n2)


def find_least_p(sizes: np.ndarray) -> np.ndarray:
    """Return the smallest p that a permutation test of groups of these sizes can give, float64.

    `sizes`, (groups, …), are people; a group of nobody does not count. One in the number of their
    arrangements; of two equal groups twice that, as exchanging them changes no two-sided test.
    """
    sizes = np.asarray(sizes, np.float64)
    arrangements = special.gammaln(sizes.sum(axis=0) + 1) - special.gammaln(sizes + 1).sum(axis=0)
    twins = ((sizes > 0).sum(axis=0) == 2) & (2 * sizes.max(axis=0, initial=0) == sizes.sum(axis=0))
    return np.where(twins, 2.0, 1.0) * np.exp(-arrangements)


def find_squared_error(
    n1: np.ndarray, variance1: np.ndarray, n2: np.ndarray, variance2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared standard error of a difference of two means and its degrees of freedom.

    Satterthwaite 1946, *Biometrics Bulletin* 2:110 (unequal variances).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        part1, part2 = variance1 / n1, variance2 / n2
        squared = part1 + part2
        return squared, squared**2 / (part1**2 / (n1 - 1.0) + part2**2 / (n2 - 1.0))


def run_mann_whitney(grouped: GroupedValues, first: int | np.ndarray = 0, second: int | np.ndarray = 1) -> Comparison:
    """Run Mann and Whitney's U test between two groups: U is that of the first.

    NaN where all values are equal. The p-value is exact where the smaller group has at most
    :data:`LARGEST_EXACT` values and nothing is tied, otherwise normal with corrections for ties and
    continuity. Mann & Whitney 1947, *Annals of Mathematical Statistics* 18:50; `pingouin.mwu`,
    `scipy.stats.mannwhitneyu`.
    """
    pair = PairMembers.select(grouped, first, second)
    known = pair.first | pair.second
    ranks = rank_columns(pair.values, known)
    n1, n2 = pair.first.sum(axis=0), pair.second.sum(axis=0)
    n = n1 + n2
    centred = np.where(known, ranks - (n + 1) / 2.0, 0.0)
    variation = (centred**2).sum(axis=0)
    made = (n1 > 0) & (n2 > 0) & (variation > 0)
    statistic = np.where(made, np.where(pair.first, ranks, 0.0).sum(axis=0) - n1 * (n1 + 1) / 2.0, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(n1 * n2 / (n * (n - 1.0)) * variation)
        z = (np.maximum(statistic, n1 * n2 - statistic) - n1 * n2 / 2.0 - 0.5) / spread
    p = np.clip(2.0 * special.ndtr(-z), 0.0, 1.0)
    untied = variation == (n.astype(np.float64) ** 3 - n) / 12.0
    for column in np.flatnonzero(made & untied & (np.minimum(n1, n2) <= LARGEST_EXACT)):
        one, other = (pair.values[members[:, column], column] for members in (pair.first, pair.second))
        p[column] = stats.mannwhitneyu(one, other, method="exact").pvalue
    none = np.full(len(n), np.nan)
    return Comparison(statistic, np.where(made, p, np.nan), none, none, n)


def run_brunner_munzel(grouped: GroupedValues, first: int | np.ndarray = 0, second: int | np.ndarray = 1) -> Comparison:
    """Run Brunner and Munzel's test of P(first < second) = P(first > second), for any spread.

    Positive where the *second* tends to be higher, as in scipy; t on Satterthwaite's degrees of
    freedom. NaN where a group has fewer than two values and where the groups do not overlap at all:
    the variance is 0 then. Brunner & Munzel 2000, *Biometrical Journal* 42:17;
    `scipy.stats.brunnermunzel`.
    """
    pair = PairMembers.select(grouped, first, second)
    ranks = rank_columns(pair.values, pair.first | pair.second)
    # Rank among all less rank within the own group: how many of the other group lie below.
    (n1, mean1, variance1), (n2, mean2, variance2) = (
        summarise_members(ranks - rank_columns(pair.values, members), members) for members in (pair.first, pair.second)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        part1, part2 = n1 * variance1, n2 * variance2
        made = part1 + part2 > 0
        higher = (mean2 + (n2 + 1) / 2.0) - (mean1 + (n1 + 1) / 2.0)
        statistic = np.where(made, n1 * n2 * higher / ((n1 + n2) * np.sqrt(part1 + part2)), np.nan)
        df = np.where(made, (part1 + part2) ** 2 / (part1**2 / (n1 - 1.0) + part2**2 / (n2 - 1.0)), np.nan)
    return _refer_to_t(statistic, df, n1 + n2)


def compare_pairs_games_howell(grouped: GroupedValues) -> PairComparisons:
    """Compare the means of all pairs of groups by t, for unequal variances and the number of pairs.

    p-values are of the studentised range over the groups that have a value in the column. NaN where
    a group of the pair has fewer than two values or neither varies. The range is integrated
    numerically, some 8 ms per pair and column with more than two groups: run it on the columns
    whose test over all groups asks for it. Games & Howell 1976, *Journal of Educational Statistics*
    1:113; `pingouin.pairwise_gameshowell`.
    """
    moments = grouped.moments
    first, second = list_pairs(grouped.groups)
    squared, df = find_squared_error(
        moments.n[first], moments.variance[first], moments.n[second], moments.variance[second]
    )
    used = (moments.n > 0).sum(axis=0)
    difference = moments.mean[first] - moments.mean[second]
    made = squared > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(made, difference / np.sqrt(squared), np.nan)
    df = np.where(made, df, np.nan)
    p = 2.0 * special.stdtr(df, -np.abs(statistic))
    ranged = made & (used > 2)
    if ranged.any():
        counted = np.broadcast_to(used, made.shape)[ranged]
        p[ranged] = np.clip(
            stats.studentized_range.sf(np.sqrt(2.0) * np.abs(statistic[ranged]), counted, df[ranged]), 0.0, 1.0
        )
    return PairComparisons(first, second, difference, squared, statistic, df, p)


def compare_pairs_dunn(grouped: GroupedValues) -> PairComparisons:
    """Compare the mean ranks of all pairs of groups by z, ranked as in the test over all.

    Adjusted for ties, and by Holm's method over the pairs of a column. NaN where all values are
    equal. Dunn 1964, *Technometrics* 6:241, equations 4 and 6; `scikit_posthocs.posthoc_dunn`.
    """
    moments = grouped.ranks.moments
    between, within, n, _ = _split_variation(moments)
    first, second = list_pairs(grouped.groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = (between + within) / (n - 1.0) * (1.0 / moments.n[first] + 1.0 / moments.n[second])
        spread = np.sqrt(squared)
        difference = moments.mean[first] - moments.mean[second]
        statistic = np.where(spread > 0, difference / spread, np.nan)
    p = 2.0 * special.ndtr(-np.abs(statistic))
    for column in range(p.shape[1]):
        p[:, column] = adjust_p_values(p[:, column], "holm")
    return PairComparisons(first, second, difference, squared, statistic, np.full(p.shape, np.nan), p)


def adjust_p_values(p: np.ndarray, method: str) -> np.ndarray:
    """Adjust p-values, ndarray of float, (tests,), for their number.

    `method` is "holm" (step-down: family-wise error rate), "fdr_bh" (Benjamini & Hochberg's: false
    discovery rate) or "none". NaN (no test was made) is not counted and stays NaN.
    """
    import pingouin

    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        adjusted[tested] = pingouin.multicomp(p[tested], method=method)[1]
    return adjusted


def _refer_to_t(statistic: np.ndarray, df: np.ndarray, n: np.ndarray) -> Comparison:
    """Return the two-sided test of statistics that follow Student's t."""
    return Comparison(statistic, 2.0 * special.stdtr(df, -np.abs(statistic)), np.full(len(n), np.nan), df, n)


def _split_variation(moments: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the sums of squares between and within groups, and how many subjects and groups."""
    n, used = moments.n.sum(axis=0), (moments.n > 0).sum(axis=0)
    mean = np.where(moments.n > 0, moments.mean, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (moments.n * mean).sum(axis=0) / n
    between = np.where(n > 0, (moments.n * (mean - centre) ** 2).sum(axis=0), 0.0)
    within = np.where(moments.n > 1, (moments.n - 1) * moments.variance, 0.0).sum(axis=0)
    return between, within, n, used
