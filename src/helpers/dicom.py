"""A folder of DICOM slices → one image: its one series, or why it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.errors import VolumeError

# What scanners and archives call a single slice.
SLICE_SUFFIXES = (".dcm", ".dicom", ".ima")

# Positions are decimal text in DICOM. Rounding moves a slice by less; a tilted gantry by more.
_SIDEWAYS_MM = 0.02
_SAME_PLACE_MM = 0.01
_SPACING_MM = 0.01
_DIRECTION = 1e-3
# How far a slice may lie from its place in an even stack, in slice distances; a missing one makes
# at least a third.
_UNEVEN = 0.2


@dataclass(frozen=True)
class Series:
    """One series of slices, in order along their normal; its grid as in SimpleITK, LPS mm."""

    files: tuple[str, ...]
    size: tuple[int, ...]  # (x, y, z)
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


def find_series(folder: Path) -> Series:
    """Find the one series in a folder and check by headers that its slices make an even stack.

    Slices lie directly in the folder; files that are no DICOM are passed over.

    Raises
    ------
    VolumeError
        There is no series, more than one, or one whose slices differ, overlap, are missing or
        sheared.
    """
    names = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not names:
        raise VolumeError(
            f"{folder.name}: the folder holds no DICOM series: "
            "give a folder with the slices of one series, or a NIfTI file"
        )
    if len(names) > 1:
        raise VolumeError(
            f"{folder.name}: the folder holds {len(names)} DICOM series: give every series a folder of its own"
        )
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), names[0])
    broken = _count_dicom(folder) - len(files)
    if broken > 0:
        raise VolumeError(
            f"{folder.name}: {broken} DICOM files cannot be read, they may be truncated or damaged: "
            "copy the series again from its source"
        )
    fault = VolumeError(
        f"{folder.name}: the header of a DICOM slice cannot be read: copy the series again from its source"
    )
    slices = [read_header(Path(file), fault) for file in files]
    first = slices[0]
    if first.GetSize()[2] != 1 or len(slices) == 1:
        what = "one multi-frame DICOM file" if first.GetSize()[2] != 1 else "a single DICOM slice"
        raise VolumeError(f"{folder.name}: the folder holds {what}: convert the scan to NIfTI (dcm2niix does)")
    spacing = np.array([part.GetSpacing()[:2] for part in slices])
    directions = np.array([part.GetDirection() for part in slices])
    if (
        len({part.GetSize() for part in slices}) > 1
        or np.ptp(spacing, axis=0).max() > _SPACING_MM
        or np.ptp(directions, axis=0).max() > _DIRECTION
    ):
        raise VolumeError(
            f"{folder.name}: the DICOM slices differ in size or direction: "
            "keep the slices of one stack (a scout image may lie among them)"
        )
    origins = np.array([part.GetOrigin() for part in slices])
    normal = directions[0].reshape(3, 3)[:, 2]
    order = np.argsort(origins @ normal, kind="stable")
    origins = origins[order]
    distance_mm = _measure_distance(origins, normal, folder)
    return Series(
        tuple(files[place] for place in order),
        (*first.GetSize()[:2], len(slices)),
        (*first.GetSpacing()[:2], distance_mm),
        tuple(origins[0].tolist()),
        tuple(first.GetDirection()),
    )


def read_series(folder: Path) -> sitk.Image:
    """Read the one series of a folder as a volume, without any of DICOM's tags.

    Raises a VolumeError as :func:`find_series`, or where a slice cannot be read.
    """
    series = find_series(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series.files)
    reader.SetSpacingWarningRelThreshold(1.0)  # the distances were checked
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(
            f"{folder.name}: a DICOM slice cannot be decoded: "
            "copy the series again from its source, or convert it to NIfTI"
        ) from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError(f"{folder.name}: the DICOM slices must have one value per voxel; they hold colours")
    image.SetSpacing(series.spacing)
    image.SetOrigin(series.origin)
    image.SetDirection(series.direction)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    return image


def _count_dicom(folder: Path) -> int:
    """Count the files that begin as DICOM files do, less the directory that discs carry."""
    count = 0
    for file in folder.iterdir():
        if file.is_file() and file.name.upper() != "DICOMDIR":
            with file.open("rb") as stream:
                count += stream.read(132)[128:] == b"DICM"
    return count


def read_header(path: Path, fault: VolumeError, kind: str = "") -> sitk.ImageFileReader:
    """Return the reader of a file that has read its header; raise `fault` where it cannot.

    `kind` names the ITK reader to use, whatever the file is called.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise fault from error
    return reader


def _measure_distance(origins: np.ndarray, normal: np.ndarray, folder: Path) -> float:
    """Return the distance (mm) between slices of an even stack; `origins` (slices, 3) in order."""
    steps = np.diff(origins, axis=0)
    along = steps @ normal
    if along.min() < _SAME_PLACE_MM:
        raise VolumeError(
            f"{folder.name}: several DICOM slices lie at one place (phases, echoes or copies): "
            "keep one slice for each place"
        )
    if np.linalg.norm(steps - along[:, None] * normal, axis=1).max() > _SIDEWAYS_MM:
        raise VolumeError(
            f"{folder.name}: the DICOM slices are sheared (tilted gantry): "
            "convert the scan to NIfTI (dcm2niix corrects the tilt)"
        )
    distance_mm = float(along.sum()) / len(along)
    places = np.concatenate([[0.0], np.cumsum(along)])
    if np.abs(places - distance_mm * np.arange(len(places))).max() > _UNEVEN * distance_mm:
        raise VolumeError(
            f"{folder.name}: DICOM slices are missing or unevenly spaced "
            f"({along.min():.2f} to {along.max():.2f} mm apart): copy the whole series again from its source"
        )
    return distance_mm
