"""Masks drawn slice by slice: a folder of PNG files beside the DICOM slices they were drawn on."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers import dicom
from helpers.errors import VolumeError
from helpers.storage import open_file
from helpers.volumes.containers import tell_damaged
from helpers.volumes.grid import Grid, make_image

# Where the slices lie, seen from the folder above the masks' (CHAOS).
_SERIES = ("DICOM_anon/InPhase", "DICOM_anon")


def is_png_stack(folder: Path) -> bool:
    """Return whether a folder holds PNG files beside a folder of DICOM slices."""
    return _find_series(folder) is not None and any(folder.glob("*.png"))


def read_png_stack(folder: Path) -> sitk.Image:
    """Read a folder of PNG slices as one label map, uint8, its grey values as they are.

    The grid is that of the DICOM series beside it. A PNG belongs to the slice of its own name;
    where the names differ (liver_GT_000.png, i0000,0000b.dcm) both are counted in the order of
    their names, which need not be the order of places in the body.

    Raises a VolumeError: a PNG is damaged or of another size than its slice, there are more or
    fewer of them than slices, or the series cannot be used (:func:`helpers.dicom.find_series`).
    """
    series = dicom.find_series(_find_series(folder) or folder)
    masks = sorted(folder.glob("*.png"), key=_count_by_name)
    if len(masks) != len(series.files):
        raise VolumeError(
            f"{folder.name}: has {len(masks)} PNG slices where the DICOM series beside it has {len(series.files)}: "
            "copy both again from their source"
        )
    by_stem = {mask.stem: mask for mask in masks}
    slices = [Path(file) for file in series.files]
    if {file.stem for file in slices} != set(by_stem):
        ordered = sorted(slices, key=_count_by_name)
        by_stem = {file.stem: mask for file, mask in zip(ordered, masks, strict=True)}
    drawn = [_read_slice(by_stem[file.stem], series.size[:2]) for file in slices]
    return make_image(np.stack(drawn), Grid(series.size, series.spacing, series.origin, series.direction))


def _find_series(folder: Path) -> Path | None:
    return next((place for name in _SERIES if (place := folder.parent / name).is_dir()), None)


def _count_by_name(file: Path) -> list[int | str]:
    """Return a key that sorts 2 before 10, and texts as they are."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]


def _read_slice(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """Read a PNG of a known size (x, y), looked at first: a small file may unpack to much."""
    from PIL import Image

    try:
        with open_file(path) as stream, Image.open(stream) as image:
            if image.size == size:
                return np.asarray(image.convert("L"))
            found = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise VolumeError(tell_damaged(path)) from error
    raise VolumeError(
        f"{path.parent.name}: has PNG slices of {found[0]} × {found[1]} pixels where the DICOM series beside it has "
        f"{size[0]} × {size[1]}: copy both again from their source"
    )
