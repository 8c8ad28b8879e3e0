"""Bias-corrected and accelerated bootstrap intervals of anything computed from group means, for all columns at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from helpers.errors import SegfairError
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.hypothesis_tests import summarise_columns

METHODS = ("bca", "percentile")

# (means, sizes), each (..., groups, columns) -> (..., columns) or (..., measures, columns)
Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Intervals:
    """Estimates with their bootstrap intervals; NaN where there is none.

    Attributes
    ----------
    estimate, low, high : ndarray of float64, (columns,) or (measures, columns)
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


def take_means(means: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the group means themselves: the measure whose intervals are those of each group."""
    return np.where(sizes > 0, means, np.nan)


def find_intervals(
    values: np.ndarray,
    groups: np.ndarray,
    drawn: np.ndarray,
    measure: Measure,
    *,
    confidence: float = CONFIDENCE,
    method: str = "bca",
    smallest_group: int = 1,
) -> Intervals:
    """Estimate a measure of the group means in every column, with its bootstrap interval over subjects.

    Parameters
    ----------
    values : ndarray of float64, (subjects, columns)
        NaN where a subject has no value.
    groups : ndarray of int, (subjects,)
        0, 1, …; −1 for no group.
    drawn : ndarray of float64, (draws, groups, columns)
        Group means in resamples: :func:`helpers.statistics.bootstrap.draw_group_means`.
    measure : callable
        Takes means and sizes, (..., groups, columns) each, and gives (..., columns) or (..., measures, columns). A group of size 0 is left out;
        a group that has a size and no mean makes the measure NaN.
    confidence : float
    method : {"bca", "percentile"}
    smallest_group : int
        Groups with fewer values in a column have size 0 there.

    Returns
    -------
    Intervals

    Raises
    ------
    SegfairError
        An unknown method, or draws that do not fit the values.

    Notes
    -----
    Sizes in the resamples are held at what was observed, so that where values are missing an average over groups keeps the groups' weights.

    References
    ----------
    Efron 1987, *JASA* 82:171; DiCiccio & Efron 1996, *Statistical Science* 11:189.
    """
    if method not in METHODS:
        raise SegfairError(f"method must be one of {METHODS}; got {method!r}")
    moments = summarise_columns(values, groups)
    if drawn.shape[1:] != moments.n.shape:
        raise SegfairError(
            f"drawn must hold means of {moments.n.shape[0]} groups and {moments.n.shape[1]} columns; got {drawn.shape[1:]}: "
            "draw them from the same values and groups"
        )
    sizes = np.where(moments.n >= max(smallest_group, 1), moments.n, 0)
    estimate = measure(moments.mean, sizes)
    draws = measure(drawn, sizes)
    acceleration = accelerate(values, groups, moments.mean, sizes, measure) if method == "bca" else None
    return Intervals(estimate, *find_bca_interval(draws, estimate, acceleration, confidence=confidence))


def accelerate(
    values: np.ndarray, groups: np.ndarray, means: np.ndarray, sizes: np.ndarray, measure: Measure
) -> np.ndarray:
    """Estimate the acceleration of a measure of group means by the jackknife over subjects.

    Parameters
    ----------
    values : ndarray of float64, (subjects, columns)
    groups : ndarray of int, (subjects,)
    means, sizes : ndarray, (groups, columns)
        Means; number of values, 0 for a group that is left out.
    measure : callable
        As in :func:`find_intervals`.

    Returns
    -------
    ndarray of float64, (columns,) or (measures, columns)
        0 where leaving out any one subject changes nothing.

    References
    ----------
    Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, section 14.3, with one term per sample as in `scipy.stats.bootstrap`.
    """
    cubes = squares = np.zeros(())
    for group in range(len(sizes)):
        part = values[groups == group]
        if not len(part) or not sizes[group].any():
            continue
        known = np.isfinite(part)
        n = np.maximum(sizes[group], 1)
        left = np.broadcast_to(means, (len(part), *means.shape)).copy()
        left_sizes = np.broadcast_to(sizes, left.shape).copy()
        with np.errstate(divide="ignore", invalid="ignore"):
            left[:, group] = means[group] - (part - means[group]) / (n - 1.0)
        left_sizes[:, group] = np.maximum(sizes[group] - 1, 0)
        found = measure(left, left_sizes)
        # Without those who have no value in a column there is nothing to leave out.
        counted = (known & (sizes[group] > 1)).reshape(len(part), *(1,) * (found.ndim - 2), -1) & np.isfinite(found)
        number = np.maximum(counted.sum(axis=0), 1)
        found = np.where(counted, found, 0.0)
        influence = np.where(counted, (n - 1.0) * (found.sum(axis=0) / number - found), 0.0)
        cubes = cubes + (influence**3).sum(axis=0) / n**3.0
        squares = squares + (influence**2).sum(axis=0) / n**2.0
    return np.divide(cubes, 6.0 * squares**1.5, out=np.zeros_like(squares), where=squares > 0)


@dataclass(frozen=True)
class SortedDraws:
    """Resamples of many things, those of each in order: what quantiles and shares are read from.

    Attributes
    ----------
    ordered : ndarray of float64, (..., draws)
        Draws without a value come last, as NaN.
    number : ndarray of int64, (...)
        Draws with a value.
    """

    ordered: np.ndarray
    number: np.ndarray

    @classmethod
    def sort(cls, draws: np.ndarray) -> SortedDraws:
        """Sort draws, float64, (draws, ...)."""
        ordered = np.array(np.moveaxis(draws, 0, -1), np.float64, order="C")
        ordered.sort(axis=-1)
        number = np.full(ordered.shape[:-1], ordered.shape[-1])
        if ordered.size and not np.isfinite(ordered[..., [0, -1]]).all():
            ordered = np.where(np.isfinite(ordered), ordered, np.nan)
            ordered.sort(axis=-1)
            number = np.isfinite(ordered).sum(axis=-1)
        return cls(ordered, number)

    def find_share(self, value: np.ndarray) -> np.ndarray:
        """Return which share of the draws lies below a value, (...), those equal to it counting half; NaN where there is no draw."""
        flat = self.ordered.reshape(-1, self.ordered.shape[-1])
        below = np.array(
            [
                np.searchsorted(row[:number], one, "left") + np.searchsorted(row[:number], one, "right")
                for row, number, one in zip(flat, self.number.ravel(), value.ravel(), strict=True)
            ],
            np.float64,
        ).reshape(value.shape)
        return np.divide(below, 2.0 * self.number, out=np.full(value.shape, np.nan), where=self.number > 0)

    def find_quantile(self, level: np.ndarray) -> np.ndarray:
        """Return the quantile of each thing at its own level, (...), linear between draws; NaN where there is no draw."""
        if not self.ordered.shape[-1]:
            return np.full(level.shape, np.nan)
        place = np.nan_to_num(level) * np.maximum(self.number - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(self.number - 1, 0))
        lower, upper = (np.take_along_axis(self.ordered, at[..., None], axis=-1)[..., 0] for at in (below, above))
        return lower + (place - below) * (upper - lower)


def find_bca_interval(
    draws: np.ndarray | SortedDraws,
    estimate: np.ndarray,
    acceleration: np.ndarray | None,
    *,
    confidence: float | np.ndarray = CONFIDENCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias-corrected and accelerated interval of everything drawn.

    Parameters
    ----------
    draws : ndarray of float64, (draws, ...), or SortedDraws
        Draws without a value are left out.
    estimate : ndarray of float64, (...)
    acceleration : ndarray of float64, (...), or None
        None gives the percentile interval.
    confidence : float, or ndarray of float64, (...)

    Returns
    -------
    low, high : ndarray of float64, (...)
        NaN where there is no estimate or no draw.

    Notes
    -----
    Where the estimate lies outside of all draws the bias correction would be infinite: it is counted as if half a draw lay beyond it.

    References
    ----------
    Efron 1987, *JASA* 82:171; Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, section 14.3.
    """
    drawn = draws if isinstance(draws, SortedDraws) else SortedDraws.sort(draws)
    number = drawn.number
    tail = special.ndtri((1.0 - np.asarray(confidence)) / 2.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        if acceleration is None:
            levels = [np.broadcast_to(special.ndtr(z), estimate.shape) for z in (tail, -tail)]
        else:
            least = 0.5 / number
            bias = special.ndtri(np.clip(drawn.find_share(estimate), least, 1.0 - least))
            levels = [
                special.ndtr(bias + (bias + z) / (1.0 - acceleration * (bias + z))) for z in (tail, -tail)
            ]  # fmt: skip
    missing = ~np.isfinite(estimate) | (number == 0)
    low, high = (np.where(missing, np.nan, drawn.find_quantile(level)) for level in levels)
    return low, high
