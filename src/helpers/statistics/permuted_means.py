"""The test of means that decides: people permuted, differences in their standard errors.

A rank test asks whether distributions are equal, Welch's test relies on means being near normal.
Permuting people while dividing each difference by its own standard error asks of the means alone,
whatever the groups' spread, and takes failures and long tails into its null distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from helpers.errors import SegfairError
from helpers.statistics.bootstrap import make_generator
from helpers.statistics.grouped_values import GroupedValues, Moments, list_pairs
from helpers.statistics.hypothesis_tests import find_squared_error
from helpers.statistics.permutation_tail import even_out, find_permutation_p, step_down

_CHUNK_BYTES = 2**25
_NO_SPREAD = 1e-12  # of a column's variance: below it a group's is rounding alone
_APART = 30.0  # normal deviates that stand for groups which differ and do not vary


@dataclass(frozen=True)
class PermutedTests:
    """One kind of test of every attribute on every column: float64, (attributes, columns).

    NaN where nothing was tested.
    """

    estimate: np.ndarray  # the pair's difference, without sign; the mean change from group to group
    statistic: np.ndarray  # the same in its standard errors
    p: np.ndarray
    evidence: np.ndarray  # −log p by formula, adjusted for the number of pairs: on one scale for all
    permuted: np.ndarray  # float64, (permutations, tests made), the same under permutation

    def adjust(self, chosen: np.ndarray) -> np.ndarray:
        """Return the p-values of the tests chosen, bool, adjusted together by max-T; NaN elsewhere.

        Never below a test's own p.
        """
        made = np.isfinite(self.evidence)
        result = np.full(self.p.shape, np.nan)
        both = chosen & made
        if both.any():
            permuted, observed = even_out(self.permuted[:, both[made]], self.evidence[both])
            joint = step_down(observed, permuted)
            result[both] = np.maximum(joint, self.p[both])
        return result


@dataclass(frozen=True)
class PermutedMeans:
    """What :func:`permute_means` found."""

    differences: PermutedTests
    trends: PermutedTests  # of ordered attributes with three groups or more


def permute_means(
    attributes: Sequence[GroupedValues],
    *,
    permutations: int,
    seed: int,
    smallest_group: int = 2,
    ordered: Sequence[bool] | None = None,
) -> PermutedMeans:
    """Test every attribute on every column for differences of means, by permutation of people.

    A SegfairError where the attributes are not of the same values, or no permutation is asked for.

    Parameters
    ----------
    attributes : sequence of GroupedValues
        The same values in each attribute's groups; a subject without a group keeps none. Subjects
        in an order that does not depend on the file (by name, say): the permutations do.
    permutations, seed : int
    smallest_group : int
        Groups with fewer values in a column (and fewer than two) are left out of its test.
    ordered : sequence of bool, optional
        Attributes whose groups stand in an order, and are tested for a trend too.

    Notes
    -----
    The method and what it guarantees: docs/METHODS.md, section 8. One permutation of all subjects
    serves all attributes, each through its first return to the subjects whose group is known: for
    every attribute a uniform permutation of its own subjects, and attributes that go together (age
    and BMI, say) stay so as far as they are known for the same people. With three groups or more
    the limit of many people holds up to the correlation of the pairs.

    A group too small in every column belongs to nobody, as if unknown. One too small in some
    columns only takes part in the permutations, and those columns' tests are over whoever the
    permutation puts into the groups kept.

    Sources: Janssen 1997, *Statistics & Probability Letters* 36:9; Chung & Romano 2013, *Annals of
    Statistics* 41:484; Tamhane 1979, *JASA* 74:471 (T2); Wallace 1959, *Annals of Mathematical
    Statistics* 30:1121; Westfall & Young 1993, *Resampling-Based Multiple Testing*.
    """
    if permutations < 1:
        raise SegfairError(f"permutations must be at least 1; got {permutations}")
    shapes = {grouped.matrix.shape for grouped in attributes} or {(0, 0)}
    if len(shapes) > 1:
        raise SegfairError(f"attributes must group the same values; got arrays of {len(shapes)} shapes")
    [(subjects, columns)] = shapes
    trended = [False] * len(attributes) if ordered is None else ordered
    prepared = [
        _Attribute.prepare(grouped, smallest_group, trend) for grouped, trend in zip(attributes, trended, strict=True)
    ]
    shape = (2, len(prepared), columns)
    estimate, statistic, observed, least = np.full((4, *shape), np.nan)
    for place, attribute in enumerate(prepared):
        observed[:, place] = attribute.measure(attribute.codes[attribute.members][None])[:, 0]
        estimate[:, place], statistic[:, place], least[:, place] = attribute.refer_to_t()
    tested = np.isfinite(observed)
    permuted = [np.empty((permutations, int(part.sum()))) for part in tested]
    widest = max((one.count * (len(one.members) + 8 * columns) for one in prepared), default=1)
    start = 0
    for order in _permute_subjects(subjects, permutations, _CHUNK_BYTES // (8 * max(widest, 1)), seed):
        rows = slice(start, start + len(order))
        column = [0, 0]
        for place, attribute in enumerate(prepared):
            if not tested[:, place].any():
                continue
            evidence = attribute.measure(attribute.permute(order))
            for kind, made in enumerate(tested[:, place]):
                here = slice(column[kind], column[kind] + int(made.sum()))
                permuted[kind][rows, here] = np.nan_to_num(evidence[kind][:, made], nan=0.0)
                column[kind] = here.stop
        start += len(order)
    found = []
    for kind, made in enumerate(tested):
        p = np.full(shape[1:], np.nan)
        p[made] = find_permutation_p(permuted[kind], observed[kind][made], least[kind][made])
        found.append(PermutedTests(estimate[kind], statistic[kind], p, observed[kind], permuted[kind]))
    return PermutedMeans(*found)


@dataclass(frozen=True)
class _Attribute:
    """One attribute's groups and the columns' values among its members, ready to be permuted."""

    codes: np.ndarray  # (subjects,), −1 for nobody's
    count: int
    members: np.ndarray  # places of the subjects that are permuted
    values: np.ndarray  # (members, columns), standardised, 0 where unknown
    known: np.ndarray  # (members, patterns): the columns' patterns of known values, each once
    pattern: np.ndarray  # (columns,)
    varies: np.ndarray  # (columns,): without variation there is nothing to test
    kept: np.ndarray  # (groups, columns)
    contrast: np.ndarray | None  # (groups, columns): the trend's weights, None without an order
    ways: float  # −log of 1 / (number of ways to assign the members to the groups)
    moments: Moments  # of the observed values

    @classmethod
    def prepare(cls, grouped: GroupedValues, smallest_group: int, ordered: bool) -> _Attribute:
        known, observed = np.isfinite(grouped.matrix), grouped.moments
        kept = observed.n >= max(smallest_group, 2)
        used = kept.any(axis=1)
        # Groups left out everywhere are nobody's; the rest is numbered anew.
        numbers = np.append(np.where(used, np.cumsum(used) - 1, -1), -1)
        codes = numbers[grouped.codes]
        members = np.flatnonzero(codes >= 0)
        known, matrix, kept = known[members], grouped.matrix[members], kept[used]
        n = np.maximum(known.sum(axis=0), 1)
        centred = np.where(known, matrix - np.where(known, matrix, 0.0).sum(axis=0) / n, 0.0)
        highest = np.where(known, matrix, -np.inf).max(axis=0, initial=-np.inf)
        varies = highest > np.where(known, matrix, np.inf).min(axis=0, initial=np.inf)
        scale = np.sqrt((centred**2).sum(axis=0) / n)
        values = np.where(varies, centred / np.where(varies & (scale > 0), scale, 1.0), 0.0)
        patterns, pattern = np.unique(known, axis=1, return_inverse=True)
        contrast = None
        if ordered:
            place = np.arange(len(kept))[:, None] * 1.0
            middle = (place * kept).sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
            contrast = np.where(kept & (kept.sum(axis=0) > 2), place - middle, 0.0)
        sizes = np.bincount(codes[members], minlength=len(kept))
        ways = special.gammaln(len(members) + 1.0) - special.gammaln(sizes + 1.0).sum()
        moments = Moments(observed.n[used], observed.mean[used], observed.variance[used])
        return cls(
            codes, len(kept), members, values, patterns.astype(np.float64), pattern.ravel(), varies, kept, contrast,
            float(ways), moments,
        )  # fmt: skip

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

    def measure(self, labels: np.ndarray) -> np.ndarray:
        """Return the evidence of the largest difference and the trend, (2, permutations, columns).

        NaN where nothing can be tested: fewer than two groups, no variation, no order.
        """
        means, part, n = self._summarise(labels)
        largest = np.zeros(means.shape[1:])
        for first, second in zip(*list_pairs(self.count), strict=True):
            weights = np.zeros(self.count)
            weights[[first, second]] = 1.0, -1.0
            both = self.kept[first] & self.kept[second]
            largest = np.maximum(largest, np.where(both, _find_deviate(weights[:, None], means, part, n), 0.0))
        number = self.kept.sum(axis=0)
        pairs = np.maximum(number * (number - 1) / 2.0, 1.0)
        evidence = np.full((2, *largest.shape), np.nan)
        evidence[0] = np.where(self.varies & (number > 1), _take_log(largest) - np.log(pairs), np.nan)
        if self.contrast is not None:
            trend = _take_log(_find_deviate(self.contrast, means, part, n))
            evidence[1] = np.where(self.varies & (number > 2), trend, np.nan)
        return evidence

    def _summarise(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return means, their squared errors and numbers, (groups, permutations, columns) each."""
        shape = (self.count, len(labels), len(self.pattern))
        n, sums, squares = np.zeros((3, *shape))
        squared = self.values**2
        totals = [part.sum(axis=0) for part in (self.known, self.values, squared)]
        for group in range(self.count - 1):
            member = (labels == group).astype(np.float64)
            n[group] = (member @ self.known)[:, self.pattern]
            sums[group], squares[group] = member @ self.values, member @ squared
        if self.count:
            for part, total in zip((n, sums, squares), (totals[0][self.pattern], *totals[1:]), strict=True):
                part[-1] = total - part[:-1].sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = sums / n
            variance = (squares - sums * means) / (n - 1.0)
            variance = np.where(n > 1, np.where(variance > _NO_SPREAD, variance, 0.0), np.nan)
            return means, variance / n, n

    def refer_to_t(self) -> np.ndarray:
        """Return estimates, statistics and the least p that a tail may give, (3, 2, columns).

        Of the pair of largest evidence Welch's p at Šidák's level for the number of pairs; of the
        trend Student's p on Satterthwaite's degrees of freedom.
        """
        moments = self.moments
        found = np.full((3, 2, len(self.pattern)), np.nan)
        first, second = list_pairs(self.count)
        if not len(first):
            return found
        fewest = np.exp(-min(self.ways, 700.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            squared, df = find_squared_error(
                moments.n[first], moments.variance[first], moments.n[second], moments.variance[second]
            )
            both = self.kept[first] & self.kept[second]
            difference = np.abs(moments.mean[first] - moments.mean[second])
            t = np.where(both & (squared > 0), difference / np.sqrt(squared), np.nan)
            p = np.where(both & (squared > 0), 2.0 * special.stdtr(df, -t), np.nan)
            best, columns = np.where(np.isfinite(p), p, 2.0).argmin(axis=0), np.arange(len(self.pattern))
            pairs = np.maximum(both.sum(axis=0), 1)
            joint = -np.expm1(pairs * np.log1p(-np.minimum(p[best, columns], 1.0 - 1e-12)))
            found[:, 0] = difference[best, columns], t[best, columns], np.maximum(joint, fewest)
            if self.contrast is not None:
                mean, number = (np.where(self.kept, part, 0.0) for part in (moments.mean, moments.n))
                share = np.where(self.kept, moments.variance / moments.n, 0.0) * self.contrast**2
                error = np.sqrt(share.sum(axis=0))
                trend = (self.contrast * mean).sum(axis=0)
                df = error**4 / np.where(self.kept, share**2 / (number - 1.0), 0.0).sum(axis=0)
                t = np.where(error > 0, trend / error, np.nan)
                step = np.where((self.contrast != 0).any(axis=0), trend / (self.contrast**2).sum(axis=0), np.nan)
                found[:, 1] = step, t, np.maximum(2.0 * special.stdtr(df, -np.abs(t)), fewest)
        return found


def _find_deviate(weights: np.ndarray, means: np.ndarray, part: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return Σ weight · mean in its standard error, as a normal deviate, (permutations, columns).

    `weights` are (groups, columns) or (groups, 1); `part` the means' squared errors. 0 where a
    group that counts has fewer than two people. Wallace 1959, equation 5.2.
    """
    used = np.flatnonzero((weights != 0).any(axis=1))
    estimate, squared, loose = np.zeros((3, *means.shape[1:]))
    with np.errstate(divide="ignore", invalid="ignore"):
        for group in used:
            weight = weights[group]
            counts = weight != 0
            share = weight**2 * part[group]
            estimate += np.where(counts, weight * means[group], 0.0)
            squared += np.where(counts, share, 0.0)
            loose += np.where(counts, share**2 / (n[group] - 1.0), 0.0)
        df = squared**2 / loose
        deviate = (8.0 * df + 1.0) / (8.0 * df + 3.0) * np.sqrt(df * np.log1p(estimate**2 / squared / df))
    deviate = np.where(squared > 0, deviate, np.where(np.abs(estimate) > 1e-9, _APART, 0.0))
    return np.where(np.isfinite(squared), np.minimum(np.nan_to_num(deviate), _APART), 0.0)


def _take_log(deviate: np.ndarray) -> np.ndarray:
    """Return −log of the two-sided normal p-value."""
    return -np.log(2.0) - special.log_ndtr(-deviate)


def _permute_subjects(subjects: int, permutations: int, chunk: int, seed: int) -> Iterator[np.ndarray]:
    """Yield permutations of all subjects, (some, subjects); the same in any chunks."""
    generator = make_generator(seed, "permutation")
    chunk = max(chunk, 1)
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        yield generator.permuted(np.tile(np.arange(subjects), (size, 1)), axis=1)
