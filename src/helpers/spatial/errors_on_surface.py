"""Signed error in mm at points of a reference surface."""

from __future__ import annotations

import numpy as np

from helpers.spatial.surfaces import Occupancy, Surface, find_closest_points

# An error below this part of a voxel is 0: no mask can resolve it, and the rounding of equal
# surfaces would be tested.
_RESOLVED_VOXELS = 0.01


def measure_signed_errors(points_mm: np.ndarray, prediction: Occupancy, surface: Surface) -> np.ndarray:
    """Measure how far the predicted surface lies from points of the reference surface, with a sign.

    `points_mm`, (n, 3), are on the reference surface (LPS mm), NaN for a vertex that is missing in
    this scan; `prediction` and `surface` are the predicted organ and its surface, smoothed as the
    reference's was. Returns float32, (n,), the distance in mm to the closest point of the predicted
    surface: positive where the point lies inside the prediction (over-segmentation), negative where
    it lies outside. NaN for a missing point, and where the prediction has no surface in the scan;
    0 below a hundredth of the prediction's smallest voxel side.

    Notes
    -----
    A hole or an island counts like the outer surface, and at a thin tip the nearest surface may be
    that of the other side.
    """
    errors = np.full(len(points_mm), np.nan, np.float32)
    finite = np.isfinite(points_mm).all(axis=1)
    if not finite.any():
        return errors
    points = points_mm[finite]
    distances = np.linalg.norm(points - find_closest_points(surface, points), axis=1)
    distances[distances < _RESOLVED_VOXELS * prediction.frame.spacing_mm.min()] = 0.0
    errors[finite] = np.where(prediction.evaluate(points) > 0.5, distances, -distances)
    return errors
