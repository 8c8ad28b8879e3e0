"""Signed distances to a mask's voxel boundary: what a viewer draws along an outline.

The maps of stage 04 measure between smoothed surfaces. An outline on a slice follows the voxels, so
here the boundary is the voxels' faces: where two outlines coincide, the error is exactly 0. Points
and arrays are in (z, y, x) order.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes


class MaskBoundary:
    """The boundary of a mask, to measure distances to; mask and spacing are in (z, y, x) order.

    Its `points_mm`, float32, (n, 3), are the middles of all voxel faces between inside and outside,
    in mm (z, y, x) from the first voxel's centre. Where the mask reaches the array's edge, that
    edge is boundary.
    """

    def __init__(self, mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
        self._mask = mask
        self._spacing = np.asarray(spacing_mm, float)
        self.points_mm = (find_boundary_faces(mask) * self._spacing).astype(np.float32)
        self._tree = cKDTree(self.points_mm, balanced_tree=False, compact_nodes=False) if len(self.points_mm) else None

    def measure(self, points_mm: np.ndarray) -> np.ndarray:
        """Return the signed distance of points (n, 3), in the same mm, to the boundary.

        Returns float32, (n,), in mm, positive inside the mask and negative outside: at points of a
        reference's boundary, + says that the mask is too large. NaN for NaN points and empty masks.
        """
        signed = np.full(len(points_mm), np.nan, np.float32)
        finite = np.isfinite(points_mm).all(axis=1)
        if self._tree is None or not finite.any():
            return signed
        points = np.asarray(points_mm, float)[finite]
        distances, _ = self._tree.query(points)
        signed[finite] = np.where(self._is_inside(points), distances, -distances)
        return signed

    def _is_inside(self, points_mm: np.ndarray) -> np.ndarray:
        """Return whether a point's voxel is in the mask; of a point on a face, either voxel."""
        index = points_mm / self._spacing
        inside = np.zeros(len(index), bool)
        # On a face, both voxels count: the sign of a point at distance 0 is of no weight.
        for nudge in (-1e-6, 1e-6):
            voxel = np.rint(index + nudge).astype(int)
            within = ((voxel >= 0) & (voxel < self._mask.shape)).all(axis=1)
            inside[within] |= self._mask[tuple(voxel[within].T)]
        return inside


def find_boundary_faces(mask: np.ndarray) -> np.ndarray:
    """Return the middles of the voxel faces where a mask ends, (n, 3), in voxels (z, y, x)."""
    padded = np.pad(mask, 1)
    parts = []
    for axis in range(3):
        ahead, behind = (
            tuple(part if other == axis else slice(None) for other in range(3)) for part in (slice(1, None), slice(-1))
        )
        steps = padded[ahead] ^ padded[behind]
        places = np.stack(np.unravel_index(np.flatnonzero(steps), steps.shape), axis=1).astype(np.float32)
        places -= 1
        places[:, axis] += 0.5
        parts.append(places)
    return np.concatenate(parts)


def mesh_mask(
    mask: np.ndarray, spacing_mm: tuple[float, float, float], *, vertices: int = 4000
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask's surface as a light mesh, to look at.

    `mask`, bool, and `spacing_mm` are in (z, y, x) order; the mesh has about so many `vertices`,
    that of a small mask fewer. Returns the vertices, (n, 3), in mm (z, y, x) from the first voxel's
    centre, and the faces, int, (m, 3).

    Notes
    -----
    Marching cubes at 0.5 of voxels averaged in blocks of about the wanted triangle side and
    smoothed by 0.6 blocks. A part too thin for its blocks is meshed in finer ones.
    """
    spacing = np.asarray(spacing_mm, float)
    faces_seen = len(find_boundary_faces(mask))
    if not faces_seen:
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    # A slanted plane shows about 1.5 times its area in faces; a square gets about 1.5 vertices.
    area_mm2 = faces_seen * float(np.prod(spacing) ** (2 / 3)) / 1.5
    side_mm = np.sqrt(1.5 * area_mm2 / vertices)
    factors = np.maximum(1, np.rint(side_mm / spacing)).astype(int)
    while True:
        # One empty block all around closes the surface at the array's edges.
        margins = [(int(f), int(f + -size % f)) for size, f in zip(mask.shape, factors, strict=True)]
        padded = np.pad(mask.astype(np.float32), margins)
        blocks = [part for size, f in zip(padded.shape, factors, strict=True) for part in (size // f, f)]
        filled = padded.reshape(blocks).mean(axis=(1, 3, 5))
        smooth = gaussian_filter(filled, 0.6)
        if smooth.max() > 0.5 or (factors == 1).all():
            break
        factors = np.maximum(1, factors // 2)
    level = 0.5 if smooth.max() > 0.5 else 0.5 * float(smooth.max())
    points, faces, _, _ = marching_cubes(smooth, level, gradient_direction="descent", allow_degenerate=False)
    return (points * factors + (factors - 1) / 2 - factors) * spacing, faces.astype(np.int64)
