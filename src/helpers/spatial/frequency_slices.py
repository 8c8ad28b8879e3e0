"""Slices through the volumes of error frequencies, where errors are most frequent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy import ndimage

from helpers import volumes
from helpers.errors import StageError
from helpers.spatial.frequencies import KINDS
from helpers.study import Study

# A single voxel is noise: the frequency is smoothed by so many voxels to find where it is highest.
SMOOTHING_VOXELS = 1.0


@dataclass(frozen=True)
class FrequencySlices:
    """Three slices through one volume: axial (y, x), coronal (z, x) and sagittal (z, y)."""

    model: str
    organ: str
    attribute: str  # empty for everybody, as `group`
    group: str
    kind: str  # false_positive or false_negative
    people: int
    percent: tuple[np.ndarray, np.ndarray, np.ndarray]  # uint8: of people in whom the voxel is wrong
    inside: tuple[np.ndarray, np.ndarray, np.ndarray]  # bool: the mean organ
    position_mm: tuple[float, float, float]  # where the slices lie (z, y, x), template mm
    origin_mm: tuple[float, float, float]  # the first voxel's centre (z, y, x)
    spacing_mm: tuple[float, float, float]  # (z, y, x)


def read_frequency_slices(study: Study, table: pd.DataFrame) -> list[FrequencySlices]:
    """Read the volumes named by rows of volumes.csv; keep slices where errors are most frequent.

    The slices are in the table's order; one volume is in memory at a time. A StageError where the
    table names no template of an organ, a VolumeError where a volume is missing or damaged.
    """
    folder = study.folder / "spatial"
    templates = table[table["kind"] == "template"].set_index("organ")["file"]
    found = []
    for organ, rows in table[table["kind"].isin(KINDS)].groupby("organ", sort=False):
        if organ not in templates.index:
            raise StageError(f"volumes.csv names no template of {organ}: run 04_spatial again")
        inside = sitk.GetArrayFromImage(_read(folder / templates[organ])) > 0
        found += [_cut(row, _read(folder / row.file), inside) for row in rows.itertuples()]
    return found


def _read(path: Path) -> sitk.Image:
    return volumes.to_axial(volumes.read_volume(path))


def _cut(row: Any, image: sitk.Image, inside: np.ndarray) -> FrequencySlices:
    values = sitk.GetArrayFromImage(image)
    smooth = ndimage.gaussian_filter(values.astype(np.float32), SMOOTHING_VOXELS)
    # Without any error the middle of the organ is shown.
    weights = smooth if smooth.max() > 0 else ndimage.distance_transform_edt(inside)
    place = np.unravel_index(int(weights.argmax()), values.shape)
    percent = np.rint(100 * np.clip(values, 0, 1)).astype(np.uint8)
    origin, spacing = image.GetOrigin()[::-1], volumes.get_spacing_zyx_mm(image)
    z, y, x = (float(first + step * index) for first, step, index in zip(origin, spacing, place, strict=True))
    return FrequencySlices(
        row.model, row.organ, row.attribute, row.group, row.kind, int(row.n),
        (percent[place[0]], percent[:, place[1]], percent[:, :, place[2]]),
        (inside[place[0]], inside[:, place[1]], inside[:, :, place[2]]),
        (z, y, x), (float(origin[0]), float(origin[1]), float(origin[2])), spacing,
    )  # fmt: skip
