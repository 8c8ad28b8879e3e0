"""Resampling subjects: one set of draws for all that is measured on the same people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from helpers.errors import SegfairError

CONFIDENCE = 0.95

_CHUNK_BYTES = 2**23


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
    """Resamples of subjects within groups: too large to keep, so drawn anew, always the same."""

    # int, (subjects,): 0, 1, …; −1 for none. In an order that does not depend on the file.
    groups: np.ndarray
    draws: int
    seed: int
    streams: tuple[str, ...]  # name each group's draws, by code: other names give independent draws

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
            generator = make_generator(self.seed, stream)
            chunk = max(_CHUNK_BYTES // (8 * len(part)), 1)
            for start in range(0, self.draws, chunk):
                size = min(chunk, self.draws - start)
                yield group, slice(start, start + size), part, _count_drawn(generator, len(part), size)

    def draw_means(self, values: np.ndarray) -> np.ndarray:
        """Draw the mean of each column in each group, float64, (draws, groups, columns).

        `values` are float64, (subjects, columns), NaN where a subject has no value. The same draws
        serve every column; NaN where a resample holds no value.
        """
        means = np.full((len(self.streams), values.shape[1], self.draws), np.nan).transpose(2, 0, 1)
        for group, rows, part, counts in self.draw(values):
            means[rows, group] = resample_means(part, counts)
        return means

    def draw_squared_errors(self, influence: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each group's share of a sum's squared standard error in every resample.

        `influence`, float64, (subjects, columns), is each subject's share of what is estimated, of
        mean 0 in every group, and 0 without a value. Yields the group and, float64, (draws,
        columns), n / (n − 1) Σ (influence − its mean in the resample)², n being the group's
        subjects with a value; 0 for a group that does not bear on a column.
        """
        squared, current = np.empty((0, 0)), -1
        for group, rows, part, counts in self.draw(influence):
            if group != current:
                if current >= 0:
                    yield current, squared
                squared, current = np.zeros((part.shape[1], self.draws)).T, group
            number = (part != 0).sum(axis=0)
            several = number > 1
            spread = (part**2).T @ counts.T - (part.T @ counts.T) ** 2 / np.maximum(number, 1)[:, None]
            factor = np.where(several, number / np.maximum(number - 1, 1), 0.0)
            squared[rows] = (np.maximum(spread, 0.0) * factor[:, None]).T
        if current >= 0:
            yield current, squared


def _count_drawn(generator: np.random.Generator, subjects: int, draws: int) -> np.ndarray:
    """Draw subjects with replacement and count them, (draws, subjects); the same in any chunks."""
    drawn = generator.integers(0, subjects, (draws, subjects), dtype=np.int32)
    places = drawn + subjects * np.arange(draws, dtype=np.int64)[:, None]
    counts = np.bincount(places.ravel(), minlength=draws * subjects)
    return counts.reshape(draws, subjects).astype(np.float64)
