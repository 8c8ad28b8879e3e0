"""Estimates with their intervals, and quantiles of many things drawn at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Intervals:
    """Estimates and intervals, float64, (columns,) or (rows, columns); NaN where there is none."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class SortedDraws:
    """Draws of many things, those of each in order: what quantiles are read from."""

    ordered: np.ndarray  # float64, (..., draws); those without a value come last, as NaN
    number: np.ndarray  # int64, (...): draws with a value

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

    def find_quantile(self, level: float) -> np.ndarray:
        """Return the quantile of each thing, (...), linear between draws; NaN without a draw."""
        if not self.ordered.shape[-1]:
            return np.full(self.number.shape, np.nan)
        place = level * np.maximum(self.number - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(self.number - 1, 0))
        lower, upper = (np.take_along_axis(self.ordered, at[..., None], axis=-1)[..., 0] for at in (below, above))
        return lower + (place - below) * (upper - lower)
