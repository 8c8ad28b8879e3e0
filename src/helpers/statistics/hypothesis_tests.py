"""Tests of difference between groups, for all columns of values at once, and the correction for many of them.

Every function takes ``values``, float64, (subjects, columns), with NaN where a subject has no value, and ``groups``, integer,
(subjects,), with −1 where a subject belongs to no group. A group without a value in a column takes no part in that column's test; a test
that cannot be made gives NaN. The results are those of scipy, statsmodels and pingouin (the tests hold them to 1e-10), which test one column at a
time, in milliseconds each: too slow for resampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from helpers.errors import SegfairError

MANN_WHITNEY = "Mann–Whitney U"
KRUSKAL_WALLIS = "Kruskal–Wallis H"
RANK_BISERIAL = "rank-biserial r"
EPSILON_SQUARED = "epsilon²"

# scipy's and pingouin's rule: the exact null distribution of U where the smaller group has at most so many and nothing is tied.
LARGEST_EXACT = 8


@dataclass(frozen=True)
class TestResult:
    """What a comparison of groups gave; NaN and a note where it could not be made.

    Attributes
    ----------
    test : str
        :data:`MANN_WHITNEY` for two groups, :data:`KRUSKAL_WALLIS` for more; empty where none was made.
    p : float
        Its two-sided p-value.
    anova_p : float
        One-way ANOVA on the same values: what the field reports. Assumes equal variances.
    effect : str
        :data:`RANK_BISERIAL` or :data:`EPSILON_SQUARED`.
    effect_size : float
        Rank-biserial r (−1 to 1): chance that a person of the first group scores higher than one of the second
        minus the reverse. Epsilon² (0 to 1): H / (n − 1), the share of rank variance between groups.
    note : str
    """

    __test__ = False  # pytest: not a test class

    test: str = ""
    p: float = np.nan
    anova_p: float = np.nan
    effect: str = ""
    effect_size: float = np.nan
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """One test per column.

    Attributes
    ----------
    statistic, p : ndarray of float64, (columns,)
        NaN where no test could be made. p-values are two-sided.
    df, df_error : ndarray of float64, (columns,)
        Degrees of freedom: of F both, of H the first, of t the second; NaN where a statistic has none.
    n : ndarray of int64, (columns,)
        Subjects with a value and a group.
    """

    statistic: np.ndarray
    p: np.ndarray
    df: np.ndarray
    df_error: np.ndarray
    n: np.ndarray


@dataclass(frozen=True)
class PairComparisons:
    """One test per pair of groups and column.

    Attributes
    ----------
    first, second : ndarray of int64, (pairs,)
        Codes of the groups, first < second, in lexical order.
    difference, statistic, p : ndarray of float64, (pairs, columns)
        First minus second (of means, or of mean ranks). NaN where no test could be made.
    df : ndarray of float64, (pairs, columns)
        NaN for a statistic that has none.
    """

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    statistic: np.ndarray
    df: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Moments:
    """Number, mean and variance of each column in each group.

    Attributes
    ----------
    n : ndarray of int64, (groups, columns)
    mean : ndarray of float64, (groups, columns)
        NaN where a group has no value.
    variance : ndarray of float64, (groups, columns)
        With n − 1; NaN where a group has fewer than two values, exactly 0 where all its values are equal.
    """

    n: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class PairMembers:
    """The members of two groups, which may be other groups in each column.

    Attributes
    ----------
    values : ndarray of float64, (subjects, columns)
    first, second : ndarray of bool, (subjects, columns)
        Who belongs to the group and has a value.
    """

    values: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def select(
        cls, values: np.ndarray, groups: np.ndarray, first: int | np.ndarray, second: int | np.ndarray
    ) -> PairMembers:
        """Select two groups by their codes: the same for all columns, or one per column.

        Raises
        ------
        SegfairError
            Codes that are neither one nor as many as columns.
        """
        values, groups = check_columns(values, groups)
        known = np.isfinite(values) & (groups >= 0)[:, None]
        members = []
        for name, codes in (("first", np.asarray(first)), ("second", np.asarray(second))):
            if codes.shape not in ((), values.shape[1:]):
                raise SegfairError(
                    f"{name} must be one group for all columns or one for each of {values.shape[1]} columns; got shape {codes.shape}"
                )
            members.append(known & (groups[:, None] == codes))
        return cls(values, *members)

    def summarise(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return number, mean and variance of the first and of the second group, (columns,) each; see :class:`Moments`."""
        return _summarise(self.values, self.first), _summarise(self.values, self.second)


def check_columns(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values and groups as float64 and int64 arrays that fit each other.

    Raises
    ------
    SegfairError
        Values are not (subjects, columns), groups are not one whole number from −1 upwards per subject.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    if values.ndim != 2:
        raise SegfairError(f"values must be an array (subjects, columns); got {values.ndim} axes: add the missing axis")
    if groups.shape != values.shape[:1] or not np.issubdtype(groups.dtype, np.integer):
        raise SegfairError(
            f"groups must be one whole number for each of {len(values)} subjects; got shape {groups.shape} of {groups.dtype}: "
            "code the groups 0, 1, … and −1 for none"
        )
    if len(groups) and groups.min() < -1:
        raise SegfairError(f"groups must be −1 (no group) or from 0 upwards; got {groups.min()}: code the groups anew")
    return values, groups.astype(np.int64)


def count_groups(groups: np.ndarray) -> int:
    """Return how many codes are in use: the highest plus one."""
    return int(groups.max(initial=-1)) + 1


def list_pairs(groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return first and second code of every pair of so many groups, (pairs,) each, in lexical order."""
    first, second = np.triu_indices(groups, 1)
    return first.astype(np.int64), second.astype(np.int64)


def summarise_columns(values: np.ndarray, groups: np.ndarray) -> Moments:
    """Summarise every column in every group.

    Returns
    -------
    Moments
        With one row per code from 0 to the highest.
    """
    values, groups = check_columns(values, groups)
    shape = (count_groups(groups), values.shape[1])
    n, mean, variance = np.zeros(shape, np.int64), np.full(shape, np.nan), np.full(shape, np.nan)
    for group in range(shape[0]):
        part = values[groups == group]
        n[group], mean[group], variance[group] = _summarise(part, np.isfinite(part))
    return Moments(n, mean, variance)


def rank_columns(values: np.ndarray, known: np.ndarray, method: str = "average") -> np.ndarray:
    """Rank each column from 1.

    Parameters
    ----------
    values : ndarray of float64, (subjects, columns)
    known : ndarray of bool, (subjects, columns)
        What is ranked; all finite.
    method : {"average", "min", "max"}
        The rank of tied values.

    Returns
    -------
    ndarray of float64, (subjects, columns)
        NaN where not known.
    """
    if not values.size:
        return np.full(values.shape, np.nan)
    # What is not known is ranked last and so moves no other rank.
    return np.where(known, stats.rankdata(np.where(known, values, np.inf), method=method, axis=0), np.nan)


def run_one_way_anova(values: np.ndarray, groups: np.ndarray) -> Comparison:
    """Run Fisher's one-way analysis of variance: F on (k − 1, n − k) degrees of freedom.

    Returns
    -------
    Comparison
        NaN for fewer than two groups and where nothing varies within the groups (F is infinite then: no number to report).

    References
    ----------
    Fisher 1925, *Statistical Methods for Research Workers*, chapter 7. Equal to `scipy.stats.f_oneway`.
    """
    between, within, n, used = _split_variation(summarise_columns(values, groups))
    df, df_error = used - 1.0, n - used.astype(np.float64)
    made = (df >= 1) & (df_error >= 1) & (within > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(made, (between / df) / (within / df_error), np.nan)
    return Comparison(statistic, special.fdtrc(df, df_error, statistic), df, df_error, n)


def run_welch_anova(values: np.ndarray, groups: np.ndarray) -> Comparison:
    """Run Welch's analysis of variance, which allows for unequal variances.

    Returns
    -------
    Comparison
        NaN for fewer than two groups and where a group has fewer than two values or does not vary: its weight n / s² is undefined.

    References
    ----------
    Welch 1951, *Biometrika* 38:330, equation 21. Equal to `pingouin.welch_anova`.
    """
    moments = summarise_columns(values, groups)
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


def run_kruskal_wallis(values: np.ndarray, groups: np.ndarray) -> Comparison:
    """Run Kruskal and Wallis' test on ranks, corrected for ties, with its χ² approximation on k − 1 degrees of freedom.

    Returns
    -------
    Comparison
        NaN for fewer than two groups and where all values are equal.

    Notes
    -----
    H = (n − 1) · (variation of ranks between groups) / (variation of ranks): the correction for ties is in the denominator.

    References
    ----------
    Kruskal & Wallis 1952, *JASA* 47:583, equations 1.1 and 1.2. Equal to `scipy.stats.kruskal`.
    """
    values, groups = check_columns(values, groups)
    known = np.isfinite(values) & (groups >= 0)[:, None]
    between, within, n, used = _split_variation(summarise_columns(rank_columns(values, known), groups))
    df = used - 1.0
    made = (df >= 1) & (between + within > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(made, (n - 1.0) * between / (between + within), np.nan)
    return Comparison(statistic, special.chdtrc(df, statistic), df, np.full(len(n), np.nan), n)


def run_t_test(
    values: np.ndarray,
    groups: np.ndarray,
    first: int | np.ndarray = 0,
    second: int | np.ndarray = 1,
    *,
    equal_variances: bool = False,
) -> Comparison:
    """Run Welch's t test between two groups, or Student's.

    Parameters
    ----------
    values, groups : ndarray
        See the module.
    first, second : int or ndarray of int, (columns,)
        Codes of the groups compared: the same for all columns, or one per column. t is positive where the first is higher.
    equal_variances : bool
        Student's test with the pooled variance.

    Returns
    -------
    Comparison
        NaN where a group has fewer than two values (Student's: both fewer than three together) or nothing varies.

    References
    ----------
    Student 1908, *Biometrika* 6:1; Welch 1947, *Biometrika* 34:28. Equal to `scipy.stats.ttest_ind`.
    """
    pair = PairMembers.select(values, groups, first, second)
    (n1, mean1, variance1), (n2, mean2, variance2) = pair.summarise()
    squared, df = find_squared_error(n1, variance1, n2, variance2, equal_variances=equal_variances)
    made = squared > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(made, (mean1 - mean2) / np.sqrt(squared), np.nan)
    return Comparison(
        statistic, 2.0 * special.stdtr(df, -np.abs(statistic)), np.full(len(n1), np.nan), np.where(made, df, np.nan), n1 + n2
    )  # fmt: skip


def find_squared_error(
    n1: np.ndarray, variance1: np.ndarray, n2: np.ndarray, variance2: np.ndarray, *, equal_variances: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared standard error of a difference of two means and its degrees of freedom, elementwise.

    References
    ----------
    Satterthwaite 1946, *Biometrics Bulletin* 2:110 (unequal variances).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if equal_variances:
            df = n1 + n2 - 2.0
            # A group of one has no variance, and adds none.
            slack = [np.where(n > 1, (n - 1) * np.nan_to_num(v), 0.0) for n, v in ((n1, variance1), (n2, variance2))]
            pooled = np.where((n1 > 0) & (n2 > 0) & (df > 0), sum(slack) / df, np.nan)
            return pooled * (1.0 / n1 + 1.0 / n2), df
        part1, part2 = variance1 / n1, variance2 / n2
        squared = part1 + part2
        return squared, squared**2 / (part1**2 / (n1 - 1.0) + part2**2 / (n2 - 1.0))


def run_mann_whitney(
    values: np.ndarray, groups: np.ndarray, first: int | np.ndarray = 0, second: int | np.ndarray = 1
) -> Comparison:
    """Run Mann and Whitney's U test between two groups.

    Parameters
    ----------
    values, groups : ndarray
        See the module.
    first, second : int or ndarray of int, (columns,)
        Codes of the groups compared: the same for all columns, or one per column.

    Returns
    -------
    Comparison
        U of the first group. NaN where a group has no value or all values are equal. The p-value is exact where the smaller group has
        at most :data:`LARGEST_EXACT` values and nothing is tied, otherwise normal with corrections for ties and continuity.

    References
    ----------
    Mann & Whitney 1947, *Annals of Mathematical Statistics* 18:50. Equal to `pingouin.mwu` and `scipy.stats.mannwhitneyu`.
    """
    pair = PairMembers.select(values, groups, first, second)
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
        p[column] = stats.mannwhitneyu(
            pair.values[pair.first[:, column], column], pair.values[pair.second[:, column], column], method="exact"
        ).pvalue
    none = np.full(len(n), np.nan)
    return Comparison(statistic, np.where(made, p, np.nan), none, none, n)


def run_brunner_munzel(
    values: np.ndarray, groups: np.ndarray, first: int | np.ndarray = 0, second: int | np.ndarray = 1
) -> Comparison:
    """Run Brunner and Munzel's test of P(first < second) = P(first > second), which allows for unequal spread and ties.

    Parameters
    ----------
    values, groups : ndarray
        See the module.
    first, second : int or ndarray of int, (columns,)
        Codes of the groups compared: the same for all columns, or one per column. The statistic is positive where the *second* tends
        to be higher, as in scipy.

    Returns
    -------
    Comparison
        Student's t on Satterthwaite's degrees of freedom. NaN where a group has fewer than two values and where the groups do not
        overlap at all: the variance is 0 then.

    References
    ----------
    Brunner & Munzel 2000, *Biometrical Journal* 42:17. Equal to `scipy.stats.brunnermunzel`.
    """
    pair = PairMembers.select(values, groups, first, second)
    ranks = rank_columns(pair.values, pair.first | pair.second)
    # Rank among all less rank within the own group: how many of the other group lie below.
    (n1, mean1, variance1), (n2, mean2, variance2) = (
        _summarise(ranks - rank_columns(pair.values, members), members) for members in (pair.first, pair.second)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        part1, part2 = n1 * variance1, n2 * variance2
        made = part1 + part2 > 0
        higher = (mean2 + (n2 + 1) / 2.0) - (mean1 + (n1 + 1) / 2.0)
        statistic = np.where(made, n1 * n2 * higher / ((n1 + n2) * np.sqrt(part1 + part2)), np.nan)
        df = np.where(made, (part1 + part2) ** 2 / (part1**2 / (n1 - 1.0) + part2**2 / (n2 - 1.0)), np.nan)
    return Comparison(statistic, 2.0 * special.stdtr(df, -np.abs(statistic)), np.full(len(n1), np.nan), df, n1 + n2)


def compare_pairs_games_howell(values: np.ndarray, groups: np.ndarray) -> PairComparisons:
    """Compare the means of all pairs of groups, allowing for unequal variances and for the number of pairs.

    Returns
    -------
    PairComparisons
        Statistic t; p-values of the studentised range over the groups that have a value in the column. NaN where a group of the pair
        has fewer than two values or neither varies.

    Notes
    -----
    The studentised range is integrated numerically, some 8 ms per pair and column with more than two groups: run it on the
    columns whose test over all groups asks for it.

    References
    ----------
    Games & Howell 1976, *Journal of Educational Statistics* 1:113. Equal to `pingouin.pairwise_gameshowell`.
    """
    moments = summarise_columns(values, groups)
    first, second = list_pairs(len(moments.n))
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
    return PairComparisons(first, second, difference, statistic, df, p)


def compare_pairs_dunn(values: np.ndarray, groups: np.ndarray, correction: str = "holm") -> PairComparisons:
    """Compare the mean ranks of all pairs of groups, with the ranks of the Kruskal–Wallis test over all of them.

    Parameters
    ----------
    values, groups : ndarray
        See the module.
    correction : {"holm", "fdr_bh", "none"}
        Over the pairs of one column.

    Returns
    -------
    PairComparisons
        Statistic z, corrected for ties; NaN where all values are equal.

    References
    ----------
    Dunn 1964, *Technometrics* 6:241, equations 4 and 6. Equal to `scikit_posthocs.posthoc_dunn`.
    """
    values, groups = check_columns(values, groups)
    known = np.isfinite(values) & (groups >= 0)[:, None]
    moments = summarise_columns(rank_columns(values, known), groups)
    between, within, n, _ = _split_variation(moments)
    first, second = list_pairs(len(moments.n))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((between + within) / (n - 1.0) * (1.0 / moments.n[first] + 1.0 / moments.n[second]))
        difference = moments.mean[first] - moments.mean[second]
        statistic = np.where(spread > 0, difference / spread, np.nan)
    p = 2.0 * special.ndtr(-np.abs(statistic))
    for column in range(p.shape[1]):
        p[:, column] = adjust_p_values(p[:, column], correction)
    return PairComparisons(first, second, difference, statistic, np.full(p.shape, np.nan), p)


def compare_groups(groups: Sequence[np.ndarray]) -> TestResult:
    """Test whether groups differ.

    Parameters
    ----------
    groups : sequence of ndarray of float
        One array of subjects' values per group, without NaN. For two groups the effect is positive where the
        first tends to be higher.

    Returns
    -------
    TestResult
        Without a p-value where there are fewer than two groups, an empty group, fewer than three subjects
        or no variation.

    References
    ----------
    Kerby 2014 (rank-biserial r); Tomczak & Tomczak 2014 (epsilon²).
    """
    groups = [np.asarray(group, float) for group in groups]
    if len(groups) < 2 or any(not len(group) for group in groups):
        return TestResult(note="no test: fewer than two groups with values")
    values = np.concatenate(groups)[:, None]
    if len(values) < 3:
        return TestResult(note="no test: fewer than three subjects")
    if np.ptp(values) == 0:
        return TestResult(note="no test: every subject has the same value")
    codes = np.repeat(np.arange(len(groups)), list(map(len, groups)))
    anova_p = float(run_one_way_anova(values, codes).p[0])
    if len(groups) == 2:
        result = run_mann_whitney(values, codes)
        effect = 2.0 * float(result.statistic[0]) / (len(groups[0]) * len(groups[1])) - 1.0
        return TestResult(MANN_WHITNEY, float(result.p[0]), anova_p, RANK_BISERIAL, effect)
    result = run_kruskal_wallis(values, codes)
    effect = float(result.statistic[0]) / (len(values) - 1)
    return TestResult(KRUSKAL_WALLIS, float(result.p[0]), anova_p, EPSILON_SQUARED, effect)


def adjust_p_values(p: np.ndarray, method: str) -> np.ndarray:
    """Correct p-values for their number.

    Parameters
    ----------
    p : ndarray of float, (tests,)
        NaN: no test was made; it is not counted and stays NaN.
    method : {"holm", "fdr_bh", "none"}
        Holm's step-down (family-wise error rate), Benjamini & Hochberg's (false discovery rate), or nothing.
    """
    import pingouin

    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        adjusted[tested] = pingouin.multicomp(p[tested], method=method)[1]
    return adjusted


def _summarise(values: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return number, mean and variance of the members of each column."""
    n = members.sum(axis=0)
    lowest = np.where(members, values, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(members, values, -np.inf).max(axis=0, initial=-np.inf)
    equal = lowest == highest
    with np.errstate(divide="ignore", invalid="ignore"):
        # The rounded mean of equal values may differ from them, and their variance from 0: F would be huge, not undefined.
        mean = np.where(equal, lowest, np.where(members, values, 0.0).sum(axis=0) / n)
        squares = (np.where(members, values - mean, 0.0) ** 2).sum(axis=0)
        variance = np.where(n > 1, squares / (n - 1.0), np.nan)
    return n, mean, variance


def _split_variation(moments: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the sums of squares between and within groups, the subjects and the groups with a value, (columns,) each."""
    n, used = moments.n.sum(axis=0), (moments.n > 0).sum(axis=0)
    mean = np.where(moments.n > 0, moments.mean, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (moments.n * mean).sum(axis=0) / n
    between = np.where(n > 0, (moments.n * (mean - centre) ** 2).sum(axis=0), 0.0)
    within = np.where(moments.n > 1, (moments.n - 1) * moments.variance, 0.0).sum(axis=0)
    return between, within, n, used
