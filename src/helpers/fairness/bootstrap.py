"""Resampling subjects: one set of draws for all that is measured on the same people."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from helpers.errors import SegfairError

CONFIDENCE = 0.95

_CHUNK_BYTES = 2**23


def make_generator(seed: int, stream: str) -> np.random.Generator:
    """Make the generator of one named stream of random numbers: the same name and seed always give the same numbers."""
    words = np.frombuffer(hashlib.sha256(f"{seed}\x1f{stream}".encode()).digest(), np.uint32)
    return np.random.default_rng(words)


def draw_counts(subjects: int, draws: int, *, seed: int, stream: str) -> np.ndarray:
    """Draw how often each subject occurs in each resample.

    Parameters
    ----------
    subjects, draws : int
        Subjects of one group, and resamples of that many subjects with replacement.
    seed : int
    stream : str
        Names the group; other groups get independent draws, the same group always the same.

    Returns
    -------
    ndarray of float64, (draws, subjects)
        Whole numbers; each row sums to `subjects`.
    """
    return _count_drawn(make_generator(seed, stream), subjects, draws)


def resample_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of each column in each resample.

    Parameters
    ----------
    values : ndarray of float, (subjects, columns)
        NaN where a subject has no value: that subject then does not count in that column.
    counts : ndarray, (draws, subjects)
        From :func:`draw_counts`: the same draws for every column, so that columns stay paired.

    Returns
    -------
    ndarray of float64, (draws, columns)
        NaN where a resample holds no value. A column's draws lie side by side in memory, which is what quantiles need.
    """
    known = np.isfinite(values)
    sums = np.where(known, values, 0.0).T @ counts.T
    total = counts.sum(axis=1)
    if known.all():
        return (sums / total).T
    # Few values are missing: what the resample lacks is counted, not what it has.
    weights = total - sparse.csr_array(~known.T, dtype=np.float64) @ counts.T
    return np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0).T


def draw_group_means(
    values: np.ndarray, groups: np.ndarray, *, draws: int, seed: int, streams: Sequence[str]
) -> np.ndarray:
    """Draw the mean of each column in each group, resampling subjects within groups.

    Parameters
    ----------
    values : ndarray of float64, (subjects, columns)
        NaN where a subject has no value. Subjects in an order that does not depend on the file.
    groups : ndarray of int, (subjects,)
        0, 1, …; −1 for no group.
    draws : int
    seed : int
    streams : sequence of str
        Names each group's draws (:func:`draw_counts`), in order of the codes.

    Returns
    -------
    ndarray of float64, (draws, groups, columns)
        The same draws for every column, so that columns stay paired; NaN where a resample holds no value.

    Raises
    ------
    SegfairError
        A group has no name.
    """
    if len(groups) and groups.max() >= len(streams):
        raise SegfairError(f"streams must name every group; got {len(streams)} names and the group {groups.max()}")
    means = np.full((len(streams), values.shape[1], draws), np.nan).transpose(2, 0, 1)
    for group, stream in enumerate(streams):
        part = values[groups == group]
        if not len(part):
            continue
        generator = make_generator(seed, stream)
        chunk = max(_CHUNK_BYTES // (8 * len(part)), 1)
        for start in range(0, draws, chunk):
            size = min(chunk, draws - start)
            means[start : start + size, group] = resample_means(part, _count_drawn(generator, len(part), size))
    return means


def find_percentile_interval(draws: np.ndarray, *, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap interval of each column (Efron & Tibshirani 1993, chapter 13).

    Parameters
    ----------
    draws : ndarray, (draws, columns)
        Draws without a value are left out; a column without any gets NaN.

    Returns
    -------
    low, high : ndarray, (columns,)
    """
    tail = (1.0 - confidence) / 2.0
    bounds = np.full((2, draws.shape[1]), np.nan)
    known = np.isfinite(draws)
    complete, partial = known.all(axis=0), known.any(axis=0) & ~known.all(axis=0)
    if complete.any():
        bounds[:, complete] = np.quantile(draws[:, complete], [tail, 1.0 - tail], axis=0)
    if partial.any():
        bounds[:, partial] = np.nanquantile(draws[:, partial], [tail, 1.0 - tail], axis=0)
    return bounds[0], bounds[1]


def _count_drawn(generator: np.random.Generator, subjects: int, draws: int) -> np.ndarray:
    """Draw subjects with replacement and count them, (draws, subjects); the same whatever the draws are split into."""
    drawn = generator.integers(0, subjects, (draws, subjects), dtype=np.int32)
    places = drawn + subjects * np.arange(draws, dtype=np.int64)[:, None]
    counts = np.bincount(places.ravel(), minlength=draws * subjects)
    return counts.reshape(draws, subjects).astype(np.float64)
