"""Left and right: the plane that parts paired organs, and which voxels lie on which side of it."""

from __future__ import annotations

import cc3d
import numpy as np

from helpers.volumes.grid import Grid

_SMALLEST_SHARE, _WIDE_STEP_MM = 0.05, 40.0


def find_midline(
    mask: np.ndarray, grid: Grid, *, start_zyx: tuple[int, int, int] = (0, 0, 0)
) -> tuple[float | None, str | None]:
    """Find the sagittal plane that parts the left from the right one of paired organs.

    Connected components of at least 5 % of the largest are ordered by the LPS x of their centroids;
    the widest step between neighbours, if over 40 mm, parts right from left, and the plane lies
    midway between those two centroids. Where there is no such step (one organ only, or both grown
    together) the plane is the middle of the grid, and a note says so.

    Parameters
    ----------
    mask : ndarray of bool, (z, y, x)
        Both organs: the whole image of this grid, or a part of it that begins at `start_zyx`.

    Returns
    -------
    x_mm : float or None
        LPS x of the plane in mm (+ is the person's left); None for an empty mask.
    note : str or None
        What had to be assumed.
    """
    if not mask.any():
        return None, None
    components = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
    statistics = cc3d.statistics(components)
    counts = statistics["voxel_counts"][1:]
    large = np.flatnonzero(counts >= _SMALLEST_SHARE * counts.max()) + 1
    centroids_zyx = statistics["centroids"][large] + np.asarray(start_zyx)
    x = np.sort(index_to_x_mm(grid, centroids_zyx[:, ::-1]))
    steps = np.diff(x)
    if len(steps) and steps.max() > _WIDE_STEP_MM:
        widest = int(np.argmax(steps))
        return float((x[widest] + x[widest + 1]) / 2), None
    middle = float(index_to_x_mm(grid, (np.asarray(grid.size)[None] - 1) / 2)[0])
    return middle, (
        "only one organ of a pair was found, or both grown together: "
        "left and right were told apart by the middle of the image"
    )


def list_x_mm(grid: Grid, box: tuple[slice, ...] | None = None) -> np.ndarray:
    """Return the LPS x (mm) of every voxel of a box, by default of all, (z, y, x)."""
    steps = np.asarray(grid.spacing) * np.asarray(grid.direction[:3])
    sides = [(0, count) for count in grid.size] if box is None else [(side.start, side.stop) for side in box[::-1]]
    x, y, z = (np.arange(*side) * step for side, step in zip(sides, steps, strict=True))
    return grid.origin[0] + z[:, None, None] + y[None, :, None] + x[None, None, :]


def index_to_x_mm(grid: Grid, index_xyz: np.ndarray) -> np.ndarray:
    """Return the LPS x (mm) of points given by continuous index, (n, 3) in (x, y, z) order."""
    return grid.origin[0] + (index_xyz * np.asarray(grid.spacing)) @ np.asarray(grid.direction[:3])
