"""The voxels of an image as a lattice in the body: where planes of pixels and points lie on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# As for two grids (:data:`helpers.volumes.grid.SAME_VOXELS`): what lies closer is at one place.
SAME_VOXELS = 0.1
_AXES = np.arange(3)


@dataclass(frozen=True)
class Lattice:
    """Where voxels lie: an affine from indices (x, y, z) to LPS mm, (3, 4), and their number."""

    affine: np.ndarray
    size: tuple[int, ...]  # (x, y, z)

    def find_indices(self, points_mm: np.ndarray) -> np.ndarray:
        """Return the indices (x, y, z) of points, (n, 3), as fractions."""
        return np.linalg.solve(self.affine[:, :3], (points_mm - self.affine[:, 3]).T).T


@dataclass(frozen=True)
class Plane:
    """How the pixels of a frame lie on a lattice: the voxel of the first, and the steps onwards."""

    first: np.ndarray  # (x, y, z)
    along_row: np.ndarray  # whole steps, such as (1, 0, 0)
    along_column: np.ndarray


def place_plane(
    lattice: Lattice,
    position_mm: np.ndarray,
    orientation: np.ndarray,
    spacing_mm: np.ndarray,
    shape: tuple[int, int],
) -> Plane | None:
    """Find the voxels of a lattice that a frame's pixels are; None where they are none of them.

    Parameters
    ----------
    position_mm : ndarray, (3,)
        The centre of the first pixel.
    orientation : ndarray, (6,)
        The cosines of a row and of a column.
    spacing_mm : ndarray, (2,)
        Between rows, and between columns.
    shape : tuple of int
        Rows and columns.
    """
    row, column = orientation[:3] * spacing_mm[1], orientation[3:] * spacing_mm[0]
    far = np.array([shape[1] - 1, shape[0] - 1])
    corners = position_mm + np.array([(0, 0), (far[0], 0), (0, far[1]), far]) @ np.array([row, column])
    found = lattice.find_indices(np.vstack([corners, position_mm + row, position_mm + column]))
    plane = Plane(*(np.round(one).astype(int) for one in (found[0], found[4] - found[0], found[5] - found[0])))
    steps = np.array([plane.along_row, plane.along_column])
    turned = np.abs(steps).sum(axis=1).tolist() != [1, 1] or steps[0] @ steps[1] != 0
    expected = plane.first + np.array([(0, 0), (far[0], 0), (0, far[1]), far]) @ steps
    if turned or np.abs(found[:4] - expected).max() > SAME_VOXELS:
        return None
    return plane


def paint(mask: np.ndarray, frame: np.ndarray, plane: Plane) -> bool:
    """Set the voxels of a mask, bool (z, y, x), where a frame, bool (rows, columns), has its own.

    Returns whether all of them lie within the mask.
    """
    rows, columns = np.nonzero(frame)
    voxels = plane.first + columns[:, None] * plane.along_row + rows[:, None] * plane.along_column
    inside = np.all((voxels >= 0) & (voxels < mask.shape[::-1]), axis=1)
    mask[tuple(voxels[inside, axis] for axis in _AXES[::-1])] = True
    return bool(inside.all())
