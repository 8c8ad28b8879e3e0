"""One permutation test for every attribute on every column, adjusted by the maximum.

Holm's method prepares for the worst dependence between tests. A family of organs, models and
metrics of the same people is strongly dependent; permuting whole people keeps that dependence in
the null distribution, and the adjustment then is as small as it may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import special

from helpers.errors import SegfairError
from helpers.statistics.bootstrap import make_generator
from helpers.statistics.grouped_values import GroupedValues, rank_columns

_CHUNK_BYTES = 2**25
# Equal statistics of different permutations differ by rounding: they count as equal.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class FamilyTests:
    """What :func:`run_max_t` found: float64, (attributes, columns); NaN: nothing was tested."""

    statistic: np.ndarray  # Kruskal–Wallis H
    p: np.ndarray  # by permutation; at least 1 / (permutations + 1)
    p_step_down: np.ndarray  # the same, adjusted over the whole family


def run_max_t(
    values: np.ndarray, groups: np.ndarray, *, permutations: int, seed: int, smallest_group: int = 1
) -> FamilyTests:
    """Test every attribute on every column by Kruskal–Wallis, adjusted by permutation of people.

    A SegfairError where shapes do not fit, or no permutation is asked for.

    Parameters
    ----------
    values : ndarray of float64, (subjects, columns)
        NaN where a subject has no value. Subjects in an order that does not depend on the file (by
        name, say): the permutations do.
    groups : ndarray of int, (subjects, attributes)
        Each attribute's groups 0, 1, …; −1 where a subject has none, and keeps none.
    permutations, seed : int
    smallest_group : int
        Groups with fewer values in a column are left out of that column's test.

    Notes
    -----
    *What is permuted.* People, with all their values, against their groups. One permutation of all
    subjects serves all attributes, each through its first return to the subjects whose group is
    known: for every attribute a uniform permutation of its own subjects, and attributes that go
    together (age and BMI, say) stay so as far as they are known for the same people. Tests of
    different numbers of groups and subjects are compared by their χ² p-values.

    *What is guaranteed.* p-values are (1 + how often at least as large) / (1 + permutations)
    (Phipson & Smyth 2010), so where no attribute has to do with any column the chance of one false
    alarm or more is at most alpha, for any number of subjects. Where some do, step-down keeps this
    for the rest as far as the rest's values are, jointly, independent of the attribute (subset
    pivotality). The null hypothesis is that of equal *distributions*: groups of equal means and
    very unequal spread and size can give an alarm.

    *Groups left out.* A group too small in every column belongs to nobody, as if unknown. One too
    small in some columns only takes part in the permutations, and those columns' tests are over
    whoever the permutation puts into the groups kept, with ranks among all: the statistic then
    differs a little from :func:`helpers.statistics.hypothesis_tests.run_kruskal_wallis`'.

    Sources: Westfall & Young 1993, *Resampling-Based Multiple Testing*, algorithms 2.5 and 2.8; Ge,
    Dudoit & Speed 2003, *TEST* 12:1, boxes 2 and 3.
    """
    groups = np.asarray(groups)
    if groups.ndim != 2:
        raise SegfairError(
            f"groups must be an array (subjects, attributes); got {groups.ndim} axes: add the missing axis"
        )
    if permutations < 1:
        raise SegfairError(f"permutations must be at least 1; got {permutations}")
    attributes = [_Attribute.prepare(GroupedValues(values, column), smallest_group) for column in groups.T]
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
    p, p_step_down = np.full((2, *shape), np.nan)
    if tested.any():
        p[tested] = _count(permuted, observed[tested])
        p_step_down[tested] = step_down(observed[tested], permuted)
    return FamilyTests(statistic, p, p_step_down)


def step_down(observed: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """Adjust p-values, (tests,), by the largest statistic of the tests not yet rejected.

    `observed`, (tests,), on one scale, larger is stronger evidence; `permuted`, (permutations,
    tests), the same where nothing is to be found, drawn jointly; no NaN. Ge, Dudoit & Speed 2003,
    *TEST* 12:1, box 2.
    """
    order = np.argsort(-observed, kind="stable")
    # From the weakest test upwards: the largest among the tests not yet rejected.
    successive = np.maximum.accumulate(permuted[:, order[::-1]], axis=1)[:, ::-1]
    adjusted = np.empty_like(observed)
    adjusted[order] = np.maximum.accumulate(_count(successive, observed[order]))
    return adjusted


@dataclass(frozen=True)
class _Attribute:
    """One attribute's groups and the columns' ranks among its members, ready to be permuted."""

    codes: np.ndarray  # (subjects,), −1 for nobody's
    count: int
    members: np.ndarray  # places of the subjects that are permuted
    ranks: np.ndarray  # (members, columns), centred, 0 where unknown
    known: np.ndarray  # (members, patterns): the columns' patterns of known values, each once
    pattern: np.ndarray  # (columns,)
    kept: np.ndarray  # (groups, columns)

    @classmethod
    def prepare(cls, grouped: GroupedValues, smallest_group: int) -> _Attribute:
        known = np.isfinite(grouped.matrix)
        kept = np.array(
            [known[grouped.codes == group].sum(axis=0) >= max(smallest_group, 1) for group in range(grouped.groups)]
        ).reshape(-1, known.shape[1])
        used = kept.any(axis=1)
        # Groups left out everywhere are nobody's; the rest is numbered anew.
        numbers = np.append(np.where(used, np.cumsum(used) - 1, -1), -1)
        codes = numbers[grouped.codes]
        members = np.flatnonzero(codes >= 0)
        known = known[members]
        ranks = rank_columns(grouped.matrix[members], known)
        centre = np.where(known, ranks, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        # Without variation there is nothing to test.
        highest = np.where(known, ranks, -np.inf).max(axis=0, initial=-np.inf)
        varies = highest > np.where(known, ranks, np.inf).min(axis=0, initial=np.inf)
        ranks = np.where(known & varies, ranks - centre, 0.0)
        patterns, pattern = np.unique(known, axis=1, return_inverse=True)
        return cls(codes, int(used.sum()), members, ranks, patterns.astype(np.float64), pattern.ravel(), kept[used])

    def permute(self, order: np.ndarray) -> np.ndarray:
        """Return the members' groups under permutations of all subjects, (permutations, members).

        Each takes the group of the first member met when the permutation is followed from it.
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
        """Return H, and −log p on the χ² distribution, (permutations, columns) each."""
        member = (labels[:, None, :] == np.arange(self.count)[:, None]).astype(np.float64)
        flat = member.reshape(len(labels) * self.count, labels.shape[1])

        def add_up(scores: np.ndarray) -> np.ndarray:
            return (flat @ scores).reshape(len(labels), self.count, scores.shape[1])

        sums = add_up(self.ranks) * self.kept
        counts = add_up(self.known)[:, :, self.pattern] * self.kept
        n, rest = counts.sum(axis=1), sums.sum(axis=1)
        total = np.broadcast_to((self.ranks**2).sum(axis=0), n.shape).copy()
        partial = ~self.kept.all(axis=0)
        if partial.any():
            total[:, partial] = (add_up(self.ranks[:, partial] ** 2) * self.kept[:, partial]).sum(axis=1)
        offset = rest**2 / np.maximum(n, 1.0)
        between = (sums**2 / np.maximum(counts, 1.0)).sum(axis=1) - offset
        df = self.kept.sum(axis=0) - 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip(between / (total - offset), 0.0, 1.0)
            statistic = np.where(df >= 1, (n - 1.0) * share, np.nan)
            p = special.chdtrc(df, statistic)
            return statistic, -np.log(np.maximum(p, np.finfo(np.float64).tiny))


def _permute_subjects(subjects: int, permutations: int, chunk: int, seed: int) -> Iterator[np.ndarray]:
    """Yield permutations of all subjects, (some, subjects); the same in any chunks."""
    generator = make_generator(seed, "permutation")
    chunk = max(chunk, 1)
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        yield generator.permuted(np.tile(np.arange(subjects), (size, 1)), axis=1)


def _count(permuted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return (1 + how many are at least as large) / (1 + permutations) per test."""
    threshold = observed - _ROUNDING * np.maximum(1.0, np.abs(observed))
    return (1.0 + (permuted >= threshold).sum(axis=0)) / (1.0 + len(permuted))
