"""Masks on another grid: whether it is one of the same scan, and their way to the scan's own."""

from __future__ import annotations

import itertools

import numpy as np
import SimpleITK as sitk

from helpers.errors import VolumeError
from helpers.volumes.grid import Grid, get_grid, orient_grid

RESAMPLING_ADVICE = "resample it to the reference with nearest neighbours, or allow it by `resample: nearest`"
_ALLOWED_VOXELS = 0.5


def resample_nearest(image: sitk.Image, grid: Grid, *, what: str = "the mask") -> sitk.Image:
    """Bring a mask to another grid of the same scan by nearest neighbours; 0 where it ends.

    Raises a VolumeError as :func:`check_same_scan`, whose message begins with `what`.
    """
    check_same_scan(get_grid(image), grid, what=what)
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(grid.size)
    resampler.SetOutputSpacing(grid.spacing)
    resampler.SetOutputOrigin(grid.origin)
    resampler.SetOutputDirection(grid.direction)
    resampler.SetInterpolator(sitk.sitkNearestNeighbor)
    return resampler.Execute(image)


def check_same_scan(found: Grid, wanted: Grid, *, what: str = "the mask", of: str = "the reference") -> None:
    """Raise a VolumeError where a grid lies otherwise in the body than that of its scan.

    Voxels of another size, and a part cut out or added at the borders, are the same scan; their
    places in the world say what belongs to what. It is moved where along an axis both of its
    borders lie further on than those of `wanted`, and turned where a corner of the common region
    is carried off, by more than half a voxel (of the larger ones) each: then a header is wrong, or
    it is another scan.
    """
    found, wanted = orient_grid(found), orient_grid(wanted)
    allowed_mm = _ALLOWED_VOXELS * np.maximum(found.spacing, wanted.spacing)
    axes = np.reshape(wanted.direction, (3, 3))
    lows_mm, highs_mm = (
        np.array(ends) for ends in zip(*(_find_borders(grid, axes) for grid in (found, wanted)), strict=True)
    )
    common_mm = np.min(highs_mm, axis=0) - np.max(lows_mm, axis=0)
    low_mm, high_mm = lows_mm[0] - lows_mm[1], highs_mm[0] - highs_mm[1]
    moved_mm = np.where(low_mm * high_mm > 0, np.minimum(np.abs(low_mm), np.abs(high_mm)), 0.0)
    turn = axes.T @ np.reshape(found.direction, (3, 3)) - np.eye(3)
    corners_mm = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * np.maximum(common_mm, 0)
    turned_mm = np.abs(corners_mm @ turn.T).max(axis=0)
    for word, apart_mm in (("turned", turned_mm), ("moved", moved_mm)):
        if np.any(apart_mm > allowed_mm):
            raise VolumeError(
                f"{what} is {word} against {of} by up to {apart_mm.max():.1f} mm, so that nearest neighbours would lie "
                "at another place: correct its origin and direction, or resample it yourself"
            )


def _find_borders(grid: Grid, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where a grid begins and ends along `axes` (columns) in mm, as if it ran along them."""
    spacing, count = np.asarray(grid.spacing), np.asarray(grid.size)
    centre = np.asarray(grid.origin) + np.reshape(grid.direction, (3, 3)) @ (spacing * (count - 1) / 2)
    return axes.T @ centre - spacing * count / 2, axes.T @ centre + spacing * count / 2
