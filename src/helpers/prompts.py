"""Prompts simulated from a reference mask: what a careful user would draw, with seeded imprecision.

Every prompt is derived from the expert's mask, so results are an upper bound on what a model does with
boxes drawn in practice. Boxes depend on the mask, the spacing and the generator alone, never on the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np


@dataclass(frozen=True)
class Boxes:
    """Boxes around the components of a mask, slice by slice, in ascending order of slice.

    Attributes
    ----------
    slices : ndarray of int64, (n,)
        The axial slice (z index) of each box.
    corners : ndarray of float64, (n, 4)
        x0, y0, x1, y1 in voxels at pixel edges: voxel i covers [i, i + 1), so the box of voxels 3 to 5
        runs from 3.0 to 6.0, and x1 − x0 is its width in voxels.
    dropped : int
        Components below the smallest area, for which there is no box.
    """

    slices: np.ndarray
    corners: np.ndarray
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.slices)


def draw_boxes(
    mask: np.ndarray,
    spacing_zyx_mm: tuple[float, float, float],
    *,
    jitter: float,
    min_area_mm2: float,
    rng: np.random.Generator,
) -> Boxes:
    """Draw a jittered box around every connected component of every axial slice of a mask.

    Parameters
    ----------
    mask : ndarray of bool, (z, y, x)
        One organ, axial slices first.
    spacing_zyx_mm : tuple of float
        Voxel spacing in mm.
    jitter : float
        Each side moves by an independent U(−jitter, +jitter) × the box's extent along that axis, then is
        clipped to the slice. At most 0.5, so a box never turns inside out.
    min_area_mm2 : float
        Components (8-connected) of a smaller area get no box and are counted as dropped.
    rng : numpy Generator
        Source of the jitter. Four numbers are drawn per component, kept or dropped, in the order of
        slices and components, so a change of `jitter` or `min_area_mm2` leaves all other boxes in place.

    Returns
    -------
    Boxes
        Empty for an empty mask.

    Raises
    ------
    ValueError
        `mask` is not three-dimensional, or `jitter` or `min_area_mm2` is out of range.
    """
    if mask.ndim != 3:
        raise ValueError(f"mask must have the axes (z, y, x); got {mask.ndim} axes")
    if not 0 <= jitter <= 0.5:
        raise ValueError(f"jitter must lie in 0…0.5; got {jitter}")
    if min_area_mm2 < 0:
        raise ValueError(f"min_area_mm2 must not be negative; got {min_area_mm2}")
    _, height, width = mask.shape
    pixel_mm2 = spacing_zyx_mm[1] * spacing_zyx_mm[2]
    slices: list[int] = []
    corners: list[np.ndarray] = []
    dropped = 0
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        components = cc3d.connected_components(np.ascontiguousarray(mask[z], dtype=np.uint8), connectivity=8)
        statistics = cc3d.statistics(components)
        for label in range(1, len(statistics["voxel_counts"])):
            moves = rng.uniform(-1.0, 1.0, size=4)
            # A component that fills less than the limit by rounding alone is kept.
            if statistics["voxel_counts"][label] * pixel_mm2 < min_area_mm2 * (1 - 1e-9):
                dropped += 1
                continue
            rows, columns = statistics["bounding_boxes"][label][:2]
            edges = np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=np.float64)
            extent = np.tile(edges[2:] - edges[:2], 2)
            slices.append(int(z))
            corners.append(np.clip(edges + jitter * moves * extent, 0, [width, height, width, height]))
    return Boxes(
        np.asarray(slices, dtype=np.int64),
        np.asarray(corners, dtype=np.float64).reshape(-1, 4),
        dropped,
    )
