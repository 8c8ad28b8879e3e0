"""Group means from few measured people and a proxy of everybody: prediction-powered inference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from helpers.errors import SegfairError
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.bootstrap_differences import (
    IntervalResult,
    PostSelection,
    find_difference,
    find_mean_influence,
    take_gaps,
)
from helpers.statistics.grouped_values import GroupedValues

FEWEST_MEASURED = 5  # per group: below it nothing is said


@dataclass(frozen=True, eq=False)
class PoweredMeans:
    """Means of a score that only some people have, with a proxy that everybody has.

    Valid whatever the proxy's quality, biased by group or not, as long as the measured people are a
    random part of their group; a good proxy makes the intervals shorter, a useless one leaves them
    as they are without it.

    Parameters
    ----------
    scores, proxy : ndarray of float64, (subjects, columns)
        NaN where a subject has no value. Who has no proxy in a column takes no part there.
    codes : ndarray of int64, (subjects,)
        Each subject's group; −1 for none.
    groups : int

    Notes
    -----
    PPI++ (Angelopoulos, Duchi & Zrnic 2023, equation 2 and section 6), as in docs/METHODS.md,
    section 14, with λ the slope of score on proxy within groups, pooled over them, which has the
    least variance. Measured and others are resampled apart.
    """

    scores: np.ndarray
    proxy: np.ndarray
    codes: np.ndarray
    groups: int

    def __post_init__(self) -> None:
        if self.scores.shape != self.proxy.shape or self.codes.shape != self.scores.shape[:1]:
            raise SegfairError(
                f"scores, proxy and codes must be of the same subjects and columns; got {self.scores.shape}, "
                f"{self.proxy.shape} and {self.codes.shape}"
            )

    @cached_property
    def slope(self) -> np.ndarray:
        """The slope of score on proxy within groups, float64, (columns,); 0 where there is none."""
        together, squares, _ = self._spread
        return np.divide(together, squares, out=np.zeros_like(together), where=squares > 0)

    @cached_property
    def correlation(self) -> np.ndarray:
        """The correlation of score and proxy within groups, float64, (columns,); NaN without."""
        together, squares, others = self._spread
        size = np.sqrt(squares * others)
        return np.divide(together, size, out=np.full_like(together, np.nan), where=size > 0)

    @cached_property
    def measured(self) -> np.ndarray:
        """How many people of each group have score and proxy: int64, (groups, columns)."""
        return self._strata.moments.n[0::2]

    @cached_property
    def people(self) -> np.ndarray:
        """How many people of each group have a proxy: int64, (groups, columns)."""
        return self.measured + self._strata.moments.n[1::2]

    @cached_property
    def means(self) -> np.ndarray:
        """Each group's mean, float64, (groups, columns); NaN under :data:`FEWEST_MEASURED`."""
        return np.where(self.measured >= FEWEST_MEASURED, self._add(self._strata.moments.mean), np.nan)

    @cached_property
    def squared_error(self) -> np.ndarray:
        """The squared standard error of each mean, float64, (groups, columns)."""
        return np.where(np.isfinite(self.means), self._errors[0::2] + self._errors[1::2], np.nan)

    @cached_property
    def df(self) -> np.ndarray:
        """Satterthwaite's degrees of freedom of each mean, float64, (groups, columns)."""
        share = self._errors**2 / np.maximum(self._strata.moments.n - 1, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.squared_error**2 / (share[0::2] + share[1::2])

    @cached_property
    def worth(self) -> np.ndarray:
        """How many measured people would tell as much without a proxy: (groups, columns)."""
        measured = GroupedValues(np.where(np.isfinite(self.proxy), self.scores, np.nan), self.codes, self.groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.squared_error > 0, measured.moments.variance / self.squared_error, self.measured)

    def resample(self, draws: int, seed: int, stream: str) -> Resamples:
        """Return resamples of measured people and of the others, within groups."""
        names = [f"{stream}\x1f{group}\x1f{part}" for group in range(self.groups) for part in ("measured", "others")]
        outside = 2 * self.groups  # people of no group
        codes = np.where(self._strata.codes < 0, outside, self._strata.codes)
        return Resamples(codes, draws, seed, (*names, f"{stream}\x1foutside"))

    def draw_means(self, resamples: Resamples) -> np.ndarray:
        """Draw the means, float64, (draws, groups, columns)."""
        return self._add(resamples.draw_means(self._strata.matrix)[:, : 2 * self.groups])

    def find_intervals(self, drawn: np.ndarray, resamples: Resamples) -> tuple[np.ndarray, np.ndarray]:
        """Find the 95 % interval of every mean: low and high, float64, (groups, columns)."""
        bounds, every = np.full((2, *self.means.shape), np.nan), find_mean_influence(self._strata)
        for group in range(self.groups):
            influence = np.where(self._strata.codes[:, None] // 2 == group, every, 0.0)
            found = find_difference(drawn[:, group], self.means[group], influence, resamples)
            bounds[:, group] = found.low, found.high
        return bounds[0], bounds[1]

    def find_gaps(
        self, drawn: np.ndarray, best: np.ndarray, worst: np.ndarray, sign: np.ndarray, resamples: Resamples
    ) -> tuple[np.ndarray, IntervalResult]:
        """Find best − worst of the means with its 95 % interval and p, (columns,) each.

        `best`, `worst` and `sign` as in :func:`helpers.statistics.bootstrap_differences.take_gaps`.
        """
        gap, draws = (take_gaps(means, best, worst, sign) for means in (self.means, drawn))
        influence, own = find_mean_influence(self._strata), self._strata.codes[:, None] // 2
        side = np.where(own == best, sign, 0.0) - np.where(own == worst, sign, 0.0)
        selection = PostSelection(np.isfinite(self.means).sum(axis=0), self._test_all())
        return gap, find_difference(draws, gap, np.where(best >= 0, side * influence, 0.0), resamples, selection)

    @cached_property
    def _spread(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums within groups, over people with both: y·f, f² and y² about the groups' means."""
        both = np.isfinite(self.scores) & np.isfinite(self.proxy) & (self.codes >= 0)[:, None]
        parts = []
        for values in (self.scores, self.proxy):
            grouped = GroupedValues(np.where(both, values, np.nan), self.codes, self.groups)
            parts.append(np.where(both, values - grouped.moments.mean[self.codes], 0.0) if self.groups else values * 0)
        y, f = parts
        return (y * f).sum(axis=0), (f**2).sum(axis=0), (y**2).sum(axis=0)

    @cached_property
    def _strata(self) -> GroupedValues:
        """What is averaged: of the measured (even codes) y − λ'f, of the others (odd ones) λ'f."""
        known = np.isfinite(self.proxy) & (self.codes >= 0)[:, None]
        # Somebody measured in some column is measured: without a score there, out of that column.
        has_score = np.isfinite(self.scores).any(axis=1)
        codes = np.where(self.codes < 0, -1, 2 * self.codes + ~has_score)
        used = known & (np.isfinite(self.scores) | ~has_score[:, None])
        number = GroupedValues(np.where(used, 0.0, np.nan), codes, 2 * self.groups).moments.n
        share = number[1::2] / np.maximum(number[0::2] + number[1::2], 1)
        weighted = (self.slope * share)[self.codes] * self.proxy
        return GroupedValues(
            np.where(used, np.where(has_score[:, None], self.scores - weighted, weighted), np.nan),
            codes,
            2 * self.groups,
        )

    @cached_property
    def _errors(self) -> np.ndarray:
        """The squared standard error of each part's mean, (strata, columns)."""
        moments = self._strata.moments
        return np.where(moments.n > 1, moments.variance / np.maximum(moments.n, 1), 0.0)

    def _add(self, means: np.ndarray) -> np.ndarray:
        """Add the two parts of each mean, (…, strata, columns); without others there is one."""
        others = np.where(self._strata.moments.n[1::2] > 0, means[..., 1::2, :], 0.0)
        return means[..., 0::2, :] + others

    def _test_all(self) -> np.ndarray:
        """Return the p-value that all groups' means are equal, (columns,): Wald's χ²."""
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.where(self.squared_error > 0, 1.0 / self.squared_error, 0.0)
            centre = np.nansum(weight * np.nan_to_num(self.means), axis=0) / weight.sum(axis=0)
            statistic = np.nansum(weight * (np.nan_to_num(self.means) - centre) ** 2, axis=0)
        return np.asarray(special.chdtrc(np.maximum((weight > 0).sum(axis=0) - 1, 1), statistic))
