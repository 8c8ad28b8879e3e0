"""Masks as one label map: files or folders of masks, organ ids, sides and overlaps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from helpers import dicom
from helpers.errors import VolumeError
from helpers.parameters import Organ
from helpers.storage import is_there
from helpers.volumes.containers import explain_unreadable
from helpers.volumes.grid import Grid, fit_grid, get_grid, make_image
from helpers.volumes.label_tables import look_up_labels
from helpers.volumes.png_slices import is_png_stack, read_png_stack
from helpers.volumes.reading import SUFFIXES, is_series, read_grid, read_volume
from helpers.volumes.sides import find_midline, list_x_mm

LARGEST_LABEL = 65535
# An organ may share up to this part of its voxels with those painted before it.
_OVERLAP_SHARE = 0.001
# Floats count as whole numbers (label maps), or as one of two values (masks of one organ), up to
# this; a mask of nothing larger than noise is empty.
_ROUNDING, _NOISE = 1e-3, 1e-6

_Box = tuple[slice, ...]


@dataclass(frozen=True)
class LabelMap:
    """A scan's organs as one label map."""

    image: sitk.Image  # uint8, the study's organ ids, on the file's own grid
    # The LPS x (+ is left) that parts left from right organs; None where no organ has a side.
    midline_x_mm: float | None
    unknown: tuple[int, ...]  # ids in the file that no organ names
    notes: tuple[str, ...]  # what had to be assumed, in sentences
    missing: tuple[str, ...] = ()  # organs of whose files a folder of masks holds none


def read_label_map(
    path: Path,
    organs: Mapping[str, Organ],
    organ_ids: Mapping[str, int],
    *,
    midline_x_mm: float | None = None,
    image: Path | None = None,
    grid: Grid | None = None,
    halve: bool = False,
) -> LabelMap:
    """Read masks as one uint8 label map with the study's organ ids.

    Raises a VolumeError: a file cannot be read; no lookup table beside it names a label; it holds
    fractions, or (in a folder) other than two values; its name differs by capitals from the
    organ's; the masks of a folder lie on different grids; what :func:`helpers.dicom.read_masks`
    says of DICOM; or two organs overlap (other than by less than 0.1 % of the smaller; then the
    first named keeps the voxels).

    Parameters
    ----------
    path : Path
        A label map (organs are found by `labels`; also a folder of PNG slices); a DICOM
        segmentation or structure set (by `labels`, which may be names and codes too); or a folder
        of binary masks (by `files`, or the organ's name; the union of those present). An organ that
        has no file in a folder, no part in a DICOM mask, is absent, and named in `missing`.
    organs : mapping of str to Organ
        Where each organ is found.
    organ_ids : mapping of str to int
        The id each organ gets in the result.
    midline_x_mm : float, optional
        Where left and right part, in LPS x (mm); found from the mask when not given. Give the
        reference's own for a prediction, so that both are parted by the same plane.
    image : Path, optional
        The scan's image: a DICOM mask is painted on its voxels, and must be of its series.
    grid : Grid, optional
        What a DICOM mask is painted on where there is no image.
    halve : bool
        Whether a DICOM segmentation of fractions is cut at one half, rather than refused.
    """
    path = Path(path)
    unknown: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    with explain_unreadable(path):
        is_folder = is_there(path) and path.is_dir() and not is_png_stack(path)
        files = find_mask_files(path, organs) if is_folder else {}
    if is_folder:
        stored, masks = _read_folder(files)
        missing = tuple(name for name, found in files.items() if not found)
        grid = get_grid(stored)
        result, midline_x_mm, notes = _unite(masks, grid, organs, organ_ids, midline_x_mm, path.name)
    elif is_dicom_mask(path):
        found, grid = read_dicom_mask(path, organs, image=image, grid=grid, halve=halve)
        result, midline_x_mm, notes = _unite(found.masks, grid, organs, organ_ids, midline_x_mm, path.name)
        notes, missing = [*found.notes, *notes], found.missing
    else:
        organs = look_up_labels(path, organs)
        stored = read_png_stack(path) if is_there(path) and path.is_dir() else read_volume(path)
        grid = get_grid(stored)
        array, boxes = _find_labels(stored, path.name)
        named = {label for organ in organs.values() for label in organ.label_ids}
        unknown = tuple(sorted(set(boxes) - named))
        result, midline_x_mm, notes = _draw(array, boxes, grid, organs, organ_ids, midline_x_mm, path.name)
    return LabelMap(make_image(result, grid), midline_x_mm, unknown, tuple(notes), missing)


def is_dicom_mask(path: Path) -> bool:
    """Return whether a mask is a DICOM segmentation or structure set."""
    return is_there(path) and path.is_file() and dicom.looks_like_dicom(path) and dicom.is_mask(path)


def read_dicom_mask(
    path: Path,
    organs: Mapping[str, Organ],
    *,
    image: Path | None = None,
    grid: Grid | None = None,
    halve: bool = False,
) -> tuple[dicom.OrganMasks, Grid]:
    """Read the masks of organs from a DICOM mask, both sides of an organ alike, and their grid.

    The grid is the image's, or its own where it does not lie on the image's voxels. Parameters and
    errors as of :func:`read_label_map`.
    """
    series = dicom.find_series(image) if image is not None and is_series(image) else None
    grid = grid if image is None else read_grid(image)
    lattice = None if grid is None else dicom.Lattice(grid.affine, grid.size)
    labels = {name: organ.labels for name, organ in organs.items()}
    found = dicom.read_masks(path, labels, lattice=lattice, series=series, halve=halve)
    if grid is None or found.lattice is not lattice:
        grid = fit_grid(found.lattice.affine, found.lattice.size)
    return found, grid


def relabel(
    labels: np.ndarray,
    grid: Grid,
    organs: Mapping[str, Organ],
    organ_ids: Mapping[str, int],
    *,
    midline_x_mm: float | None = None,
) -> np.ndarray:
    """Return a model's own label map, unsigned (z, y, x), with the study's organ ids, uint8.

    Organs, sides and overlaps are as in :func:`read_label_map`.
    """
    boxes = find_boxes(labels)
    return _draw(labels, boxes, grid, organs, organ_ids, midline_x_mm, "the model's own labels")[0]


def find_boxes(labels: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """Return the bounding box (slices z, y, x) of each label of a label map, in one pass."""
    return {label: box for label, box in enumerate(ndimage.find_objects(labels), start=1) if box is not None}


def grow_box(box: _Box, margins: Iterable[int], shape: tuple[int, ...]) -> _Box:
    """Return a box grown by so many voxels on both sides of each axis, as far as the array goes."""
    sides = zip(box, margins, shape, strict=True)
    return tuple(slice(max(0, side.start - margin), min(count, side.stop + margin)) for side, margin, count in sides)


def _find_labels(image: sitk.Image, name: str) -> tuple[np.ndarray, dict[int, _Box]]:
    """Return a label map as whole numbers (z, y, x), and the box around each label in it."""
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind == "f":
        _check_finite(array, name)
    low, high = array.min(), array.max()
    if low < (-_ROUNDING if array.dtype.kind == "f" else 0):
        raise VolumeError(
            f"{name}: a mask must hold organ ids, 0 for none; it holds {low:g}: give the label map, not an image"
        )
    if high > LARGEST_LABEL:
        raise VolumeError(
            f"{name}: a mask must hold organ ids up to {LARGEST_LABEL}; it holds {high:g}: "
            "give the label map, not an image"
        )
    if array.dtype.kind == "f":
        array = _round(array, name)
    return array, find_boxes(array.view(f"u{array.dtype.itemsize}"))


def _round(array: np.ndarray, name: str) -> np.ndarray:
    """Return a label map of floats as whole numbers, int32; a VolumeError where it is none."""
    result = np.empty(array.shape, np.int32)
    for one, into in zip(array, result, strict=True):  # all at once would take three times the memory
        into[...] = np.round(one)
        if np.abs(one - into).max() > _ROUNDING:
            raise VolumeError(
                f"{name}: a mask must hold whole numbers (organ ids); it holds fractions: "
                "give the label map, not an image or a probability map"
            )
    return result


def _draw(
    labels: np.ndarray,
    boxes: Mapping[int, _Box],
    grid: Grid,
    organs: Mapping[str, Organ],
    organ_ids: Mapping[str, int],
    midline_x_mm: float | None,
    place: str,
) -> tuple[np.ndarray, float | None, list[str]]:
    """Return a label map's organ ids, midline and notes."""
    tables = _make_tables(organs, organ_ids, boxes)
    if tables is not None:
        return _relabel(labels, boxes, grid, organs, tables, midline_x_mm)
    masks = {name: np.isin(labels, organ.label_ids) for name, organ in organs.items()}
    return _unite(masks, grid, organs, organ_ids, midline_x_mm, place)


def _find_organ(image: sitk.Image, name: str) -> np.ndarray:
    """Return where one organ's own mask has it: bool, (z, y, x).

    The mask holds two values but for rounding, 0 (or −1) and one other, or one of them alone.
    """
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind == "f":
        _check_finite(array, name)
    low, high = float(array.min()), float(array.max())
    largest = max(abs(low), abs(high))
    if largest <= _NOISE:
        return np.zeros(array.shape, bool)
    rounding = _ROUNDING * largest if array.dtype.kind == "f" else 0.0
    inside = array >= high - rounding
    two = np.count_nonzero(inside) + np.count_nonzero(array <= low + rounding) == array.size
    if high - low <= rounding:  # one value
        return np.full(array.shape, high > 0)
    if not two or high <= 0 or min(abs(low), abs(low + high)) > rounding:
        raise VolumeError(
            f"{name}: the mask of one organ must hold two values, 0 and one other; it holds more, or fractions: "
            "cut probabilities and interpolated masks at one half"
        )
    return inside


def _check_finite(array: np.ndarray, name: str) -> None:
    if not np.isfinite([array.min(), array.max()]).all():  # NaN is the least and the most of all
        raise VolumeError(
            f"{name}: a mask must hold organ ids; it holds NaN or infinity: give the label map, not an image"
        )


def _make_tables(
    organs: Mapping[str, Organ], organ_ids: Mapping[str, int], labels: Collection[int]
) -> dict[str, np.ndarray] | None:
    """Return each label's organ id on either side of the body; None where two organs name one."""
    size = max([0, *labels]) + 1
    tables = {side: np.zeros(size, np.uint8) for side in ("left", "right")}
    for name, organ in organs.items():
        for side in tables if organ.side is None else (organ.side,):
            for label in set(organ.label_ids) & set(labels):
                if tables[side][label]:
                    return None
                tables[side][label] = organ_ids[name]
    return tables


def _relabel(
    array: np.ndarray,
    boxes: Mapping[int, _Box],
    grid: Grid,
    organs: Mapping[str, Organ],
    tables: Mapping[str, np.ndarray],
    midline_x_mm: float | None,
) -> tuple[np.ndarray, float | None, list[str]]:
    """Return a label map's organ ids by table, midline and notes: one pass over the organs' box."""
    result = np.zeros(array.shape, np.uint8)
    notes: list[str] = []
    box = join_boxes(boxes[label] for label in boxes if tables["left"][label] or tables["right"][label])
    _look_up(tables["left"], array[box], result[box])
    sided = {label for organ in organs.values() if organ.side is not None for label in organ.label_ids} & set(boxes)
    if sided:
        box = join_boxes(boxes[label] for label in sided)
        table = np.zeros(len(tables["left"]), np.uint8)
        table[sorted(sided)] = 1
        part = np.zeros(array[box].shape, np.uint8)
        if midline_x_mm is None:
            _look_up(table, array[box], part)
            midline_x_mm, note = find_midline(part, grid, start_zyx=tuple(side.start for side in box))
            notes += [note] if note else []
        right = list_x_mm(grid, box) <= midline_x_mm
        _look_up(tables["right"], array[box], part)
        np.copyto(result[box], part, where=right)
    return result, midline_x_mm, notes


def _unite(
    masks: Mapping[str, np.ndarray],
    grid: Grid,
    organs: Mapping[str, Organ],
    organ_ids: Mapping[str, int],
    midline_x_mm: float | None,
    place: str,
) -> tuple[np.ndarray, float | None, list[str]]:
    """Return organ ids from a mask per organ, midline and notes; a few voxels may be shared."""
    notes: list[str] = []
    sided = [name for name, organ in organs.items() if organ.side is not None]
    left_of_midline = None
    if sided and midline_x_mm is None:
        midline_x_mm, note = find_midline(np.logical_or.reduce([masks[name] for name in sided]), grid)
        notes += [note] if note else []
    if sided and midline_x_mm is not None:
        left_of_midline = list_x_mm(grid) > midline_x_mm
    result = np.zeros(grid.size[::-1], np.uint8)
    for name, organ in organs.items():
        mask = masks[name]
        if organ.side is not None and left_of_midline is not None:
            mask = mask & (left_of_midline if organ.side == "left" else ~left_of_midline)
        taken = mask & (result > 0)
        overlap = int(taken.sum())
        if overlap > _OVERLAP_SHARE * int(mask.sum()):
            raise VolumeError(
                f"{place}: {name} shares {overlap} voxels with another organ: every voxel may belong to one organ"
            )
        if overlap:
            notes.append(f"{name}: {overlap} voxels shared with another organ were left to that one")
        result[mask & ~taken] = organ_ids[name]
    return result, midline_x_mm, notes


def _look_up(table: np.ndarray, labels: np.ndarray, result: np.ndarray) -> None:
    """Write ``table[labels]`` into `result` by slices: all at once takes eight times the memory."""
    for one, into in zip(labels, result, strict=True):
        into[...] = table[one]


def join_boxes(boxes: Iterable[_Box | None]) -> _Box:
    """Return the smallest box around all that are not None; an empty one where there is none."""
    sides = list(zip(*(box for box in boxes if box is not None), strict=True))
    if not sides:
        return (slice(0, 0),) * 3
    return tuple(slice(min(part.start for part in side), max(part.stop for part in side)) for side in sides)


def find_mask_files(folder: Path, organs: Mapping[str, Organ]) -> dict[str, list[Path]]:
    """Return each organ's files in a folder of masks; no other file in it is of any interest.

    Raises a VolumeError where it holds none at all, or one whose name leaves it open what it is.
    """
    names = sorted(file.name for file in folder.iterdir())
    found = {organ: [_find_file(folder, stem, names) for stem in one.files or [organ]] for organ, one in organs.items()}
    if not any(any(files) for files in found.values()):
        raise VolumeError(f"{folder.name}: the folder holds none of the masks that cohort.organs names")
    return {organ: [file for file in files if file] for organ, files in found.items()}


def _read_folder(wanted: Mapping[str, Sequence[Path]]) -> tuple[sitk.Image, dict[str, np.ndarray]]:
    """Return one image for its grid, and an organ's mask each (bool)."""
    first = next(file for files in wanted.values() for file in files)
    image = read_volume(first)
    grid = get_grid(image)
    masks = {}
    for name, files in wanted.items():
        mask = np.zeros(grid.size[::-1], bool)
        for file in files:
            part = image if file == first else read_volume(file)
            differences = get_grid(part).differences(grid)
            if differences:
                raise VolumeError(f"{file.name}: is not on the grid of {first.name} ({'; '.join(differences)})")
            mask |= _find_organ(part, file.name)
        masks[name] = mask
    return image, masks


def _find_file(folder: Path, stem: str, names: Iterable[str]) -> Path | None:
    """Return an organ's file; None where there is none of that name in any letters.

    A ``*`` in the name stands for any text.

    A VolumeError where two files, or one in other letters, could stand for it: the latter would
    count as a missed organ.
    """
    written = re.escape(stem).replace(r"\*", ".*")
    ends = "(" + "|".join(map(re.escape, SUFFIXES)) + ")"
    found = [name for name in names if re.fullmatch(written + ends, name, re.IGNORECASE)]
    exact = [name for name in found if re.match(written, name)]
    if len(exact) > 1:
        raise VolumeError(f"{folder.name}: {' and '.join(exact)} are of one organ: keep one of them")
    if found and not exact:
        raise VolumeError(
            f"{folder.name}: the folder holds {found[0]} where cohort.organs names {stem}: "
            "write both alike, capitals too"
        )
    return folder / exact[0] if exact else None
