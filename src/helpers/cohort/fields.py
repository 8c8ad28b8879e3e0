"""Smooth random fields: what makes no two phantoms, and no two errors, alike."""

from __future__ import annotations

import numpy as np

# Root of the mean, over the place between two knots, of the sum of squared cubic B-spline weights (151/315).
_SPLINE_SD = float(np.sqrt(151 / 315))


def draw_field(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_zyx_mm: tuple[float, ...], smoothness_mm: float
) -> np.ndarray:
    """Draw a smooth random field of mean 0 and sd 1, correlated over about `smoothness_mm`, float32.

    Normal numbers on a grid of that step, interpolated by cubic splines: the cost does not grow with smoothness.
    """
    coarse = [
        max(4, int(np.ceil(count * step / smoothness_mm)) + 3)
        for count, step in zip(shape, spacing_zyx_mm, strict=True)
    ]
    field = rng.standard_normal(coarse).astype(np.float32)
    for axis, (count, step) in enumerate(zip(shape, spacing_zyx_mm, strict=True)):
        places = 1 + np.arange(count) * step / smoothness_mm
        field = _interpolate_axis(field, axis, places)
    # Cubic B-splines of white noise have this sd on average; dividing by it, not by the sample's own, keeps people independent.
    return field / np.float32(_SPLINE_SD**3)


def _interpolate_axis(field: np.ndarray, axis: int, places: np.ndarray) -> np.ndarray:
    """Evaluate uniform cubic B-splines with coefficients `field` at fractional `places` along one axis."""
    base = np.clip(np.floor(places).astype(int), 1, field.shape[axis] - 3)
    t = places - base
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    matrix = np.zeros((len(places), field.shape[axis]), np.float32)
    for offset in range(4):
        matrix[np.arange(len(places)), base - 1 + offset] = weights[offset]
    return np.moveaxis(np.tensordot(matrix, field, axes=(1, axis)), 0, axis)
