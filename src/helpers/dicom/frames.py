"""Multi-frame images (enhanced CT and MR): where their frames lie, and their values, scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.pixels import iter_pixels

from helpers.dicom.headers import read_dataset
from helpers.errors import VolumeError

_DIRECTION, _SPACING_MM = 1e-3, 0.01


@dataclass(frozen=True)
class FramePlaces:
    """Where the frames of a file lie, in the order in which they are stored; LPS mm."""

    positions: np.ndarray  # (frames, 3), of the first pixel's centre
    orientation: np.ndarray  # (6,), cosines of a row and a column
    spacing: tuple[float, float]  # between rows, between columns


def describe_frames(path: Path) -> FramePlaces:
    """Read where the frames of a multi-frame image lie.

    Raises a VolumeError: it does not say so, or they differ in direction or voxel size.
    """
    groups = list_groups(read_dataset(path, pixels=False))
    try:
        positions = np.array([find_value(one, "PlanePositionSequence", "ImagePositionPatient") for one in groups])
        turns = np.array([find_value(one, "PlaneOrientationSequence", "ImageOrientationPatient") for one in groups])
        spacing = np.array([find_value(one, "PixelMeasuresSequence", "PixelSpacing") for one in groups])
    except LookupError:
        groups = []
    if len(groups) < 2:
        raise VolumeError(
            f"{path.name}: the frames of the DICOM file do not say how they lie in the body, or it has one alone: "
            "convert the scan to NIfTI (dcm2niix does)"
        )
    if np.ptp(turns, axis=0).max() > _DIRECTION or np.ptp(spacing, axis=0).max() > _SPACING_MM:
        raise VolumeError(f"{path.name}: the DICOM frames differ in size or direction: keep the frames of one stack")
    return FramePlaces(positions.astype(float), turns[0].astype(float), (float(spacing[0][0]), float(spacing[0][1])))


def read_frames(path: Path, order: Sequence[int]) -> sitk.Image:
    """Read the frames of a multi-frame image in an order, each in its own scale, without a grid.

    Raises a VolumeError where they cannot be decoded.
    """
    dataset = read_dataset(path)
    groups = list_groups(dataset)
    return _scale(decode(dataset, path, order), [_find_scale(groups[frame]) for frame in order])


def read_single_frames(paths: Sequence[Path], scales: Sequence[tuple[float, float]]) -> sitk.Image:
    """Read slices of one file each as pydicom decodes them, with each one's slope and intercept.

    Raises a VolumeError where one cannot be decoded.
    """
    return _scale(np.concatenate([decode(read_dataset(path), path, [0]) for path in paths]), scales)


def _scale(stored: np.ndarray, scales: Sequence[tuple[float, float]]) -> sitk.Image:
    """Return stored values (frames, rows, columns) by each frame's slope and intercept."""
    whole = all(number == round(number) for scale in scales for number in scale)
    result = np.empty(stored.shape, np.int32 if whole else np.float32)
    for one, pixels, (slope, intercept) in zip(result, stored, scales, strict=True):
        one[...] = pixels * slope + intercept
    if whole and np.abs(result).max() < 2**15:
        result = result.astype(np.int16)
    return sitk.GetImageFromArray(result)


def decode(dataset: Any, path: Path, frames: Sequence[int]) -> np.ndarray:
    """Return stored frames, (frames, rows, columns).

    Raises a VolumeError where they cannot be decoded.
    """
    try:
        shape = (len(frames), int(dataset.Rows), int(dataset.Columns))
        return np.array(list(iter_pixels(dataset, indices=list(frames)))).reshape(shape)
    except Exception as error:  # every decoder raises its own
        raise VolumeError(
            f"{path.name}: its DICOM pixels cannot be decoded (stored as {_name_syntax(dataset)}): copy the file again "
            "from its source, or have it stored without compression (gdcmconv --raw does)"
        ) from error


def is_compressed(dataset: Any) -> bool:
    """Return whether each frame is stored in a coding of its own."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    return syntax is not None and bool(syntax.is_encapsulated)


def _name_syntax(dataset: Any) -> str:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    return "unknown" if syntax is None else str(syntax.name)


def list_groups(dataset: Any) -> list[tuple[Any, Any]]:
    """Return what is said of each frame: its own part of the header, and the part all share."""
    shared: Any = next(iter(dataset.get("SharedFunctionalGroupsSequence") or []), {})
    return [(own, shared) for own in dataset.get("PerFrameFunctionalGroupsSequence") or []]


def find_value(group: tuple[Any, Any], sequence: str, name: str) -> Any:
    """Return a value that a frame has, or all share; a LookupError where there is none."""
    for part in group:
        for item in part.get(sequence) or []:
            if item.get(name) is not None:
                return item.get(name)
    raise LookupError(name)


def _find_scale(group: tuple[Any, Any]) -> tuple[float, float]:
    """Return slope and intercept; MR may have none."""
    try:
        return tuple(
            float(find_value(group, "PixelValueTransformationSequence", name))
            for name in ("RescaleSlope", "RescaleIntercept")
        )  # type: ignore[return-value]
    except LookupError:
        return 1.0, 0.0
