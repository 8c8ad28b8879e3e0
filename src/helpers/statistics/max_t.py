"""One permutation test for a whole family: every attribute on every column, corrected by the maximum (Westfall & Young 1993).

Holm's correction prepares for the worst dependence between tests. A family of organs, models and metrics of the same people is
strongly dependent; permuting whole people keeps that dependence in the null distribution, and the correction then is as small as it may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from helpers.errors import SegfairError
from helpers.statistics.bootstrap import make_generator
from helpers.statistics.hypothesis_tests import check_columns, count_groups, rank_columns

SCORES = ("ranks", "values")
SCALES = ("theory", "permutation")

_CHUNK_BYTES = 2**25
# Equal statistics of different permutations differ by rounding: they count as equal.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class FamilyTests:
    """What :func:`run_max_t` found: one test per attribute and column; NaN where none could be made.

    Attributes
    ----------
    statistic : ndarray of float64, (attributes, columns)
        Kruskal–Wallis H, or F.
    p_theory : ndarray of float64, (attributes, columns)
        By the χ² or F distribution, uncorrected.
    p : ndarray of float64, (attributes, columns)
        By permutation, uncorrected.
    p_single_step, p_step_down : ndarray of float64, (attributes, columns)
        By permutation, corrected over the whole family. Step-down is never larger and protects as well: the one to report.
    permutations : int
        No p-value by permutation is below 1 / (permutations + 1).
    """

    statistic: np.ndarray
    p_theory: np.ndarray
    p: np.ndarray
    p_single_step: np.ndarray
    p_step_down: np.ndarray
    permutations: int


def run_max_t(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    permutations: int,
    seed: int,
    scores: str = "ranks",
    scale: str = "theory",
    smallest_group: int = 1,
) -> FamilyTests:
    """Test every attribute on every column, and correct over all of these tests by permutation.

    Parameters
    ----------
    values : ndarray of float64, (subjects, columns)
        NaN where a subject has no value. Subjects in an order that does not depend on the file (by name, say): the permutations do.
    groups : ndarray of int, (subjects, attributes)
        Each attribute's groups 0, 1, …; −1 where a subject has none: it stays without in every permutation.
    permutations : int
    seed : int
    scores : {"ranks", "values"}
        Kruskal–Wallis, or one-way analysis of variance.
    scale : {"theory", "permutation"}
        How tests with different numbers of groups and subjects are made comparable: by the p-value of the χ² or F distribution, or by that
        among the test's own permutations (minP: no assumption at all, but no finer than 1 / (permutations + 1), so it needs many).
    smallest_group : int
        Groups with fewer values in a column are left out of that column's test.

    Returns
    -------
    FamilyTests

    Raises
    ------
    SegfairError
        Shapes do not fit; no permutation is asked for; an unknown name of scores or scale.

    Notes
    -----
    *What is permuted.* People, with all their values, against their groups: what is measured on the same person stays together. One permutation
    of all subjects serves all attributes, each through its first return to the subjects whose group is known: for every attribute a uniform
    permutation of its own subjects, and attributes that go together (age and BMI, say) stay so as far as they are known for the same people.

    *What is guaranteed.* p-values are (1 + how often at least as large) / (1 + permutations) (Phipson & Smyth 2010), so where no attribute has to do
    with any column the chance of one false alarm or more is at most alpha, for any number of subjects. Where some do, step-down keeps
    this for the rest as far as the rest's values are, jointly, independent of the attribute (subset pivotality). The null hypothesis is
    that of equal *distributions*: groups of equal means and very unequal spread and size can give an alarm.

    *Groups left out.* A group too small in every column belongs to nobody, as if unknown. One too small in some columns only takes part in the
    permutations, and those columns' tests are over whoever the permutation puts into the groups kept, with ranks among all. The statistic then
    differs a little from that of :func:`helpers.statistics.hypothesis_tests.run_kruskal_wallis`, which ranks the groups kept alone.

    References
    ----------
    Westfall & Young 1993, *Resampling-Based Multiple Testing*, algorithms 2.5 and 2.8; Ge, Dudoit & Speed 2003, *TEST* 12:1, boxes 2 and 3.
    """
    groups = np.asarray(groups)
    if groups.ndim != 2:
        raise SegfairError(
            f"groups must be an array (subjects, attributes); got {groups.ndim} axes: add the missing axis"
        )
    if permutations < 1:
        raise SegfairError(f"permutations must be at least 1; got {permutations}")
    for name, given, known in (("scores", scores, SCORES), ("scale", scale, SCALES)):
        if given not in known:
            raise SegfairError(f"{name} must be one of {known}; got {given!r}")
    attributes = [_Attribute.prepare(values, column, scores, smallest_group) for column in groups.T]
    shape = (groups.shape[1], np.asarray(values).shape[1])
    statistic, observed = np.full(shape, np.nan), np.full(shape, np.nan)
    for place, attribute in enumerate(attributes):
        statistic[place], observed[place] = (
            part[0] for part in attribute.measure(attribute.codes[attribute.members][None])
        )
    tested = np.isfinite(observed)
    permuted = np.empty((permutations, int(tested.sum())))
    widest = max((len(attribute.members) * attribute.count for attribute in attributes), default=1)
    start = 0
    for order in _permute_subjects(len(groups), permutations, _CHUNK_BYTES // (8 * max(widest, 1)), seed):
        rows = slice(start, start + len(order))
        column = 0
        for place, attribute in enumerate(attributes):
            made = tested[place]
            if made.any():
                evidence = attribute.measure(attribute.permute(order))[1][:, made]
                permuted[rows, column : column + evidence.shape[1]] = np.nan_to_num(evidence, nan=0.0)
                column += evidence.shape[1]
        start += len(order)
    results = [np.full(shape, np.nan) for _ in range(3)]
    if tested.any():
        found = observed[tested]
        results[0][tested] = _count(permuted, found, permutations)
        if scale == "permutation":
            found, permuted = _rescale(found, permuted)
        single, down = correct_by_maximum(found, permuted)
        results[1][tested], results[2][tested] = single, down
    return FamilyTests(statistic, np.exp(-observed), results[0], results[1], results[2], permutations)


def correct_by_maximum(observed: np.ndarray, permuted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correct p-values over a family by the distribution of its largest statistic.

    Parameters
    ----------
    observed : ndarray of float64, (tests,)
        On one scale, larger is stronger evidence; no NaN.
    permuted : ndarray of float64, (permutations, tests)
        The same statistics where nothing is to be found, drawn jointly.

    Returns
    -------
    single_step, step_down : ndarray of float64, (tests,)
        Corrected p-values.

    References
    ----------
    Ge, Dudoit & Speed 2003, *TEST* 12:1, equation 10 and box 2.
    """
    order = np.argsort(-observed, kind="stable")
    # From the weakest test upwards: the largest among the tests not yet rejected.
    successive = np.maximum.accumulate(permuted[:, order[::-1]], axis=1)[:, ::-1]
    permutations = len(permuted)
    single = _count(successive[:, :1], observed, permutations)
    down = np.empty_like(observed)
    down[order] = np.maximum.accumulate(_count(successive, observed[order], permutations))
    return single, down


@dataclass(frozen=True)
class _Attribute:
    """One attribute's groups and the columns' scores among its members, ready for any number of permutations."""

    codes: np.ndarray  # (subjects,), −1 for nobody's
    count: int
    members: np.ndarray  # places of the subjects that are permuted
    scores: np.ndarray  # (members, columns), centred, 0 where unknown
    known: np.ndarray  # (members, patterns): the columns' patterns of known values, each once
    pattern: np.ndarray  # (columns,)
    kept: np.ndarray  # (groups, columns)
    ranked: bool

    @classmethod
    def prepare(cls, values: np.ndarray, groups: np.ndarray, scores: str, smallest_group: int) -> _Attribute:
        values, groups = check_columns(values, groups)
        known = np.isfinite(values)
        kept = np.array(
            [known[groups == group].sum(axis=0) >= max(smallest_group, 1) for group in range(count_groups(groups))]
        ).reshape(-1, values.shape[1])
        used = kept.any(axis=1)
        # Groups left out everywhere are nobody's; the rest is numbered anew.
        numbers = np.append(np.where(used, np.cumsum(used) - 1, -1), -1)
        codes = numbers[groups]
        members = np.flatnonzero(codes >= 0)
        known = known[members]
        filled = rank_columns(values[members], known) if scores == "ranks" else values[members]
        centre = np.where(known, filled, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        # Equal values are not always equal to their rounded mean: without variation there is nothing to test.
        varies = np.where(known, filled, -np.inf).max(axis=0, initial=-np.inf) > np.where(known, filled, np.inf).min(
            axis=0, initial=np.inf
        )
        filled = np.where(known & varies, filled - centre, 0.0)
        patterns, pattern = np.unique(known, axis=1, return_inverse=True)
        return cls(
            codes, int(used.sum()), members, filled, patterns.astype(np.float64), pattern.ravel(), kept[used], scores == "ranks"
        )  # fmt: skip

    def permute(self, order: np.ndarray) -> np.ndarray:
        """Return the members' groups under permutations of all subjects, (permutations, members).

        Each member takes the group of the first member met when the permutation is followed from it.
        """
        codes = self.codes.astype(np.int8 if self.count < 127 else np.int64)
        source = order[:, self.members]
        taken = codes[source]
        rows, places = np.nonzero(taken < 0)
        at = source[rows, places]
        while len(rows):
            at = order[rows, at]
            taken[rows, places] = codes[at]
            left = codes[at] < 0
            rows, places, at = rows[left], places[left], at[left]
        return taken

    def measure(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return H or F, and −log p on its theoretical distribution, (permutations, columns) each."""
        member = (labels[:, None, :] == np.arange(self.count)[:, None]).astype(np.float64)
        flat = member.reshape(len(labels) * self.count, labels.shape[1])

        def add_up(scores: np.ndarray) -> np.ndarray:
            return (flat @ scores).reshape(len(labels), self.count, scores.shape[1])

        sums = add_up(self.scores) * self.kept
        counts = add_up(self.known)[:, :, self.pattern] * self.kept
        n, rest = counts.sum(axis=1), sums.sum(axis=1)
        total = np.broadcast_to((self.scores**2).sum(axis=0), n.shape).copy()
        partial = ~self.kept.all(axis=0)
        if partial.any():
            total[:, partial] = (add_up(self.scores[:, partial] ** 2) * self.kept[:, partial]).sum(axis=1)
        offset = rest**2 / np.maximum(n, 1.0)
        between = (sums**2 / np.maximum(counts, 1.0)).sum(axis=1) - offset
        df = self.kept.sum(axis=0) - 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip(between / (total - offset), 0.0, 1.0)
            if self.ranked:
                statistic = np.where(df >= 1, (n - 1.0) * share, np.nan)
                p = special.chdtrc(df, statistic)
            else:
                df_error = n - df - 1.0
                made = (df >= 1) & (df_error >= 1)
                statistic = np.where(made, (share / df) / ((1.0 - share) / df_error), np.nan)
                p = np.where(np.isinf(statistic), 0.0, special.fdtrc(df, df_error, statistic))
                p[np.isnan(statistic)] = np.nan
            return statistic, -np.log(np.maximum(p, np.finfo(np.float64).tiny))


def _permute_subjects(subjects: int, permutations: int, chunk: int, seed: int) -> Iterator[np.ndarray]:
    """Yield permutations of all subjects, (some, subjects); the same whatever the size of a chunk."""
    generator = make_generator(seed, "permutation")
    chunk = max(chunk, 1)
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        yield generator.permuted(np.tile(np.arange(subjects), (size, 1)), axis=1)


def _count(permuted: np.ndarray, observed: np.ndarray, permutations: int) -> np.ndarray:
    """Return (1 + how many are at least as large) / (1 + permutations) per test."""
    threshold = observed - _ROUNDING * np.maximum(1.0, np.abs(observed))
    return (1.0 + (permuted >= threshold).sum(axis=0)) / (1.0 + permutations)


def _rescale(observed: np.ndarray, permuted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return −log of each statistic's p-value among all of its column, observed one included."""
    pool = np.vstack([observed, permuted])
    # To 10 digits: equal statistics of different permutations differ by rounding.
    order = stats.rankdata(-np.round(pool, 10), method="max", axis=0)
    evidence = -np.log(order / len(pool))
    return evidence[0], evidence[1:]
