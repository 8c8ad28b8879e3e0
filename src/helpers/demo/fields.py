"""Smooth random fields: anatomy that varies, boundaries that wander."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# A uniform cubic B-spline's sum of squared weights, averaged over the place between two knots.
_MEAN_SQUARED_WEIGHTS = 151 / 315


class SmoothField:
    """A random function of position with mean 0 and SD 1, correlated over about `smoothness_mm`.

    Normal numbers on a lattice of that step, interpolated by cubic B-splines. The function is fixed
    when it is made: on another grid it is the same, so that two scans of one person agree.

    Parameters
    ----------
    rng : numpy.random.Generator
    low_mm, high_mm : sequence of float, (z, y, x)
        The box in which it can be evaluated; outside it continues as on the border.
    smoothness_mm : float
        The lattice's step.
    """

    def __init__(
        self, rng: np.random.Generator, low_mm: Sequence[float], high_mm: Sequence[float], smoothness_mm: float
    ) -> None:
        self.low_mm = np.asarray(low_mm, float)
        self.step_mm = float(smoothness_mm)
        extent = np.asarray(high_mm, float) - self.low_mm
        counts = np.ceil(np.maximum(extent, 0) / self.step_mm).astype(int) + 4
        # Divided by the expected SD, not by the sample's own, draws stay independent of each other.
        self.coefficients = (rng.standard_normal(counts) / _MEAN_SQUARED_WEIGHTS**1.5).astype(np.float32)

    def evaluate(self, z_mm: np.ndarray, y_mm: np.ndarray, x_mm: np.ndarray) -> np.ndarray:
        """Return the field on the grid of three coordinate vectors, float32 (z, y, x)."""
        result = self.coefficients
        for axis, places in enumerate((z_mm, y_mm, x_mm)):
            matrix = self._weigh(np.asarray(places, float), axis)
            result = np.moveaxis(np.tensordot(matrix, result, axes=(1, axis)), 0, axis)
        return np.ascontiguousarray(result)

    def _weigh(self, places_mm: np.ndarray, axis: int) -> np.ndarray:
        """Return the B-spline weights (places × knots) along one axis."""
        count = self.coefficients.shape[axis]
        place = np.clip((places_mm - self.low_mm[axis]) / self.step_mm, 0.0, count - 4.0)
        base = np.minimum(np.floor(place).astype(int), count - 4)
        t = place - base
        weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
        matrix = np.zeros((len(place), count), np.float32)
        for offset in range(4):
            matrix[np.arange(len(place)), base + offset] = weights[offset]
        return matrix
