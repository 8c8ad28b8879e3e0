"""How large labels are and where they lie in the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from helpers.volumes.grid import Grid, get_grid
from helpers.volumes.label_maps import find_boxes
from helpers.volumes.sides import index_to_x_mm

_BODY_HU = -300.0  # CT: between air and fat
_BODY_SHARE = 0.1  # others: this part of the bright voxels' grey
_SAMPLE = 200_000  # voxels looked at to find the body


@dataclass(frozen=True)
class Region:
    """One label of a mask."""

    volume_ml: float
    center_mm: tuple[float, float, float]  # LPS: + is to the person's left, back and head
    is_cut: bool  # whether it reaches the lowest or the highest slice, so may be cut there


def measure_regions(image: sitk.Image) -> dict[int, Region]:
    """Measure every label of a label map of whole numbers; 0 is background."""
    array, grid = sitk.GetArrayViewFromImage(image), get_grid(image)
    found = find_boxes(array.view(f"u{array.dtype.itemsize}"))
    voxel_ml = float(np.prod(grid.spacing)) / 1000
    # The array's axis that runs closest to that of the body.
    along = 2 - int(np.argmax(np.abs(np.reshape(grid.direction, (3, 3))[2])))
    regions = {}
    for label, box in found.items():
        inside = array[box] == label
        voxels = int(np.count_nonzero(inside))
        center = [
            side.start + float(inside.sum(axis=others) @ np.arange(side.stop - side.start)) / voxels
            for side, others in zip(box, ((1, 2), (0, 2), (0, 1)), strict=True)
        ]
        center_mm = grid.affine @ [*center[::-1], 1.0]
        is_cut = box[along].start == 0 or box[along].stop == array.shape[along]
        regions[label] = Region(voxels * voxel_ml, tuple(center_mm.tolist()), is_cut)
    return regions


def find_body_x_mm(image: sitk.Image, modality: str) -> float:
    """Return the LPS x (mm) of the middle of the body that an image shows.

    It is half way between the body's sides (2 % of its voxels lie beyond either), which is what is
    brighter than air; the middle of the image where that is nothing or all.
    """
    grid = get_grid(image)
    step = int(np.ceil((np.prod(grid.size) / _SAMPLE) ** (1 / 3)))
    sample = sitk.GetArrayViewFromImage(image)[::step, ::step, ::step]
    known = np.where(np.isfinite(sample), sample, sample.min() if np.isfinite(sample.min()) else 0)
    limit = _BODY_HU if modality == "CT" else _BODY_SHARE * float(np.percentile(known, 99))
    body = np.argwhere(known > limit)
    if len(body) in (0, known.size):
        return find_middle_x_mm(grid)
    low, high = np.percentile(index_to_x_mm(grid, body[:, ::-1] * step), (2, 98))
    return float(low + high) / 2


def find_middle_x_mm(grid: Grid) -> float:
    """Return the LPS x (mm) of the middle of a grid."""
    return float(index_to_x_mm(grid, (np.asarray(grid.size)[None] - 1) / 2)[0])
