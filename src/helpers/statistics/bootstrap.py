"""Resampling subjects: one set of draws for all that is measured on the same people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from helpers.errors import SegfairError

CONFIDENCE = 0.95

_CHUNK_BYTES = 2**23
_KEPT_BYTES = 2**28  # of counts: more are drawn anew for each use


def make_generator(seed: int, stream: str) -> np.random.Generator:
    """Make the generator of a named stream: the same name and seed always give the same numbers."""
    words = np.frombuffer(hashlib.sha256(f"{seed}\x1f{stream}".encode()).digest(), np.uint32)
    return np.random.default_rng(words)


def resample_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of each column in each resample, float64, (draws, columns).

    `values` are float, (subjects, columns), NaN where a subject has no value: the subject then does
    not count in that column. `counts`, float64, (draws, subjects), says how often each subject
    occurs: the same for every column, so that columns stay paired. NaN where a resample holds no
    value. A column's draws lie side by side in memory, as quantiles need.
    """
    known = np.isfinite(values)
    sums = np.where(known, values, 0.0).T @ counts.T
    total = counts.sum(axis=1)
    if known.all():
        return (sums / total).T
    # Few values are missing: what the resample lacks is counted, not what it has.
    weights = total - sparse.csr_array(~known.T, dtype=np.float64) @ counts.T
    return np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0).T


@dataclass(frozen=True)
class Resamples:
    """Resamples of subjects within groups: the same for everything, also where not all is kept."""

    # int, (subjects,): 0, 1, …; −1 for none. In an order that does not depend on the file.
    groups: np.ndarray
    draws: int
    seed: int
    streams: tuple[str, ...]  # name each group's draws, by code: other names give independent draws
    # int, (subjects,): each one's cluster, which is drawn whole, −1 for one of one's own; None:
    # subjects are drawn. Clusters of one group are drawn within it, those of several all together.
    clusters: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.groups) and self.groups.max() >= len(self.streams):
            raise SegfairError(
                f"streams must name every group; got {len(self.streams)} names and the group {self.groups.max()}"
            )

    def draw(self, values: np.ndarray) -> Iterator[tuple[int, slice, np.ndarray, np.ndarray]]:
        """Yield group, which draws, its rows of `values`, how often each occurs (draws, rows)."""
        for group, stream in enumerate(self.streams):
            part = values[self.groups == group]
            if not len(part):
                continue
            for rows, counts in self._count(stream, len(part)):
                yield group, rows, part, counts.astype(np.float64)

    @cached_property
    def _kept(self) -> dict[str, list[tuple[slice, np.ndarray]]]:
        """How often each subject occurs in every draw, by group's stream, once it was drawn."""
        return {}

    def _count(self, stream: str, subjects: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield which draws, and how often each subject of a group occurs in them."""
        if stream in self._kept:
            yield from self._kept[stream]
            return
        generator, keep = make_generator(self.seed, stream), len(self.groups) * self.draws <= _KEPT_BYTES
        chunk = max(_CHUNK_BYTES // (8 * subjects), 1)
        parts = []
        for start in range(0, self.draws, chunk):
            size = min(chunk, self.draws - start)
            counts = _count_drawn(generator, subjects, size)
            yield slice(start, start + size), counts
            if keep:
                parts.append((slice(start, start + size), counts))
        if keep:
            self._kept[stream] = parts

    def draw_means(self, values: np.ndarray) -> np.ndarray:
        """Draw the mean of each column in each group, float64, (draws, groups, columns).

        `values` are float64, (subjects, columns), NaN where a subject has no value. The same draws
        serve every column; NaN where a resample holds no value.
        """
        if self.clusters is not None:
            return self._draw_means_of_clusters(values)
        means = np.full((len(self.streams), values.shape[1], self.draws), np.nan).transpose(2, 0, 1)
        for group, rows, part, counts in self.draw(values):
            means[rows, group] = resample_means(part, counts)
        return means

    def draw_squared_errors(self, influence: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each group's share of a sum's squared standard error in every resample.

        `influence`, float64, (subjects, columns), is each subject's share of what is estimated, of
        mean 0 in every group, and 0 without a value. Yields the group and, float64, (draws,
        columns), n / (n − 1) Σ (influence − its mean in the resample)², n being the group's
        subjects with a value; 0 for a group that does not bear on a column. Of clusters, n are the
        group's clusters, and influences are summed within them.
        """
        if self.clusters is not None:
            for group in np.unique(self.groups):
                own = np.where((self.groups == group)[:, None], influence, 0.0)
                yield int(group), self.draw_whole_squared_errors(own)
            return
        squared, current = np.empty((0, 0)), -1
        for group, rows, part, counts in self.draw(influence):
            if group != current:
                if current >= 0:
                    yield current, squared
                squared, current = np.zeros((part.shape[1], self.draws)).T, group
                number, stacked = (part != 0).sum(axis=0), np.hstack([part**2, part]).T
                factor = np.where(number > 1, number / np.maximum(number - 1, 1), 0.0)
            squares, sums = np.split(stacked @ counts.T, 2)
            spread = squares - sums**2 / np.maximum(number, 1)[:, None]
            squared[rows] = (np.maximum(spread, 0.0) * factor[:, None]).T
        if current >= 0:
            yield current, squared

    def draw_whole_squared_errors(self, influence: np.ndarray) -> np.ndarray:
        """Draw a sum's squared standard error, float64, (draws, columns), over all groups.

        The sum of what :meth:`draw_squared_errors` yields; of clusters, what a cluster's people of
        several groups have in common cancels or adds up, as it does in the sum.
        """
        squared = np.zeros((influence.shape[1], self.draws)).T
        drawn = self if self.clusters is None else self._units
        for _, part in drawn.draw_squared_errors(self.sum_units(influence)[0]):
            squared += part
        return squared

    def sum_units(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values summed within what is drawn, (units, columns), and the units' strata.

        Subjects as they are, or clusters.
        """
        if self.clusters is None:
            return values, self.groups
        return self._membership @ values, self._units.groups

    @cached_property
    def _numbers(self) -> np.ndarray:
        """Each subject's cluster as a number from 0."""
        clusters = np.asarray(self.clusters)
        alone = clusters.max(initial=-1) + 1 + np.arange(len(clusters))  # as if each had one
        return np.unique(np.where(clusters < 0, alone, clusters), return_inverse=True)[1].ravel()

    @cached_property
    def _membership(self) -> sparse.csr_array:
        """Who is in which cluster, (clusters, subjects)."""
        people = np.arange(len(self.groups))
        return sparse.csr_array((np.ones(len(people)), (self._numbers, people)))

    @cached_property
    def _units(self) -> Resamples:
        """The clusters, as what is drawn: strata are the groups, and one of mixed clusters."""
        numbers = self._numbers
        lowest, highest = np.full((2, numbers.max(initial=-1) + 1), 0)
        lowest[:] = len(self.streams)
        np.minimum.at(lowest, numbers, self.groups)
        np.maximum.at(highest, numbers, self.groups)
        strata = np.where(lowest == highest, lowest, len(self.streams))
        return Resamples(strata, self.draws, self.seed, (*self.streams, "\x1f".join(self.streams)))

    def _draw_means_of_clusters(self, values: np.ndarray) -> np.ndarray:
        known, columns = np.isfinite(values), values.shape[1]
        filled = np.where(known, values, 0.0)
        parts = [
            part * (self.groups == group)[:, None] for group in range(len(self.streams)) for part in (filled, known)
        ]
        sums = np.zeros((self.draws, 2 * columns * len(self.streams)))
        for _, rows, part, counts in self._units.draw(self._membership @ np.hstack(parts)):
            sums[rows] += counts @ part
        sums = sums.reshape(self.draws, len(self.streams), 2, columns)
        total, number = sums[:, :, 0], sums[:, :, 1]
        return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def _count_drawn(generator: np.random.Generator, subjects: int, draws: int) -> np.ndarray:
    """Draw subjects with replacement and count them, (draws, subjects); the same in any chunks."""
    drawn = generator.integers(0, subjects, (draws, subjects), dtype=np.int32)
    places = drawn + subjects * np.arange(draws, dtype=np.int64)[:, None]
    counts = np.bincount(places.ravel(), minlength=draws * subjects)
    # Nobody is drawn more than 255 times: of so many people that would never happen.
    return counts.reshape(draws, subjects).astype(np.uint8)
