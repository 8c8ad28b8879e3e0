"""Natural cubic splines: knots at quantiles, and the columns they give a design."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SUBJECTS_BY_DF = {4: 100, 3: 50, 2: 30, 1: 0}  # the spline's degrees of freedom, and from how many subjects on


def place_knots(values: np.ndarray, df: int) -> np.ndarray:
    """Return the knots of a natural spline, increasing, at quantiles of the values, (subjects,).

    ``df + 1`` knots for 1 to 4 degrees of freedom, fewer where the quantiles coincide; two (or one)
    stand for a line. Harrell 2015, *Regression Modeling Strategies*, table 2.3.
    """
    quantiles = {1: (0.1, 0.9), 2: (0.1, 0.5, 0.9), 3: (0.05, 0.35, 0.65, 0.95), 4: (0.05, 0.275, 0.5, 0.725, 0.95)}[df]
    return np.unique(np.quantile(values, quantiles))


def build_natural_spline(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return a natural cubic spline's columns: the value itself, then the terms that bend it.

    `values` are float, (points,); the result is float64, (points, max(1, knots − 1)), without a
    constant. Beyond the outer knots the spline is straight. Harrell 2015, section 2.4.5 (truncated
    powers).
    """
    values = np.asarray(values, float)
    if len(knots) < 3:
        return values[:, None]
    last, before = knots[-1], knots[-2]
    cubes = np.clip(values[:, None] - knots[None, :], 0.0, None) ** 3
    inner = knots[:-2]
    bent = (
        cubes[:, :-2]
        - cubes[:, -2:-1] * (last - inner) / (last - before)
        + cubes[:, -1:] * (before - inner) / (last - before)
    )
    return np.column_stack([values, bent / (last - knots[0]) ** 2])


@dataclass(frozen=True)
class SplineAxis:
    """A number's scale: what it is standardised by, and the spline's knots."""

    centre: float
    scale: float
    knots: np.ndarray

    @classmethod
    def place(cls, numbers: np.ndarray) -> SplineAxis:
        """Place as many knots as these subjects' number and distinct values bear, at most five."""
        wanted = next(df for df, subjects in SUBJECTS_BY_DF.items() if len(numbers) >= subjects)
        axis = cls(float(numbers.mean()), float(numbers.std()), np.empty(0))
        standard = axis.standardise(numbers)
        for df in range(min(wanted, len(np.unique(numbers)) - 1), 1, -1):
            knots = place_knots(standard, df)
            columns = np.column_stack([np.ones(len(standard)), build_natural_spline(standard, knots)])
            if np.linalg.matrix_rank(columns, tol=1e-6) == columns.shape[1]:
                return cls(axis.centre, axis.scale, knots)
        return axis

    def standardise(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers in SD from the mean."""
        return (numbers - self.centre) / self.scale

    def build(self, numbers: np.ndarray) -> np.ndarray:
        """Return a constant and the spline's columns at these numbers."""
        return np.column_stack([np.ones(len(numbers)), build_natural_spline(self.standardise(numbers), self.knots)])
