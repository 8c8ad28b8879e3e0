"""A series of DICOM images → one volume: its slices or frames in order, or why it is of no use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.dicom import frames
from helpers.dicom.headers import IMAGE, DicomHeader, list_files, read_headers, refuse_broken
from helpers.errors import VolumeError
from helpers.limits import check_extent
from helpers.vocabulary.words import count

# Positions are decimal text in DICOM. Rounding moves a slice by less; a tilted gantry by more.
_SIDEWAYS_MM = 0.02
_SAME_PLACE_MM = 0.01
_SPACING_MM = 0.01
_DIRECTION = 1e-3
# How far a slice may lie from its place in an even stack, in slice distances; a missing one makes
# at least a third.
_UNEVEN = 0.2
_STORED_BYTES = 2  # of a value, by far the most often
_MOST_FILES = 20_000  # below the folder of one series: more are of a whole disk, or of many people
_COPY_AGAIN = "copy the whole series again from its source"


@dataclass(frozen=True)
class Series:
    """One series of slices, in order along their normal; its grid as in SimpleITK, LPS mm."""

    files: tuple[str, ...]  # of slices; or the one that holds all frames
    frames: tuple[int, ...]  # their order; none where every slice has a file of its own
    size: tuple[int, ...]  # (x, y, z)
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    uid: str  # SeriesInstanceUID
    frame_of_reference: str  # its UID, empty where there is none
    scales: tuple[tuple[float, float], ...]  # slope and intercept of each file's values; none of frames


def find_series(path: Path) -> Series:
    """Find one series and check by headers that its slices make an even stack.

    `path` is a folder below which the slices of one series lie; or one of its files, which stands
    for all files of its series that lie beside it. Files that are no DICOM are passed over, and so
    are scouts, masks and reports. Of copies of a slice one is taken.

    Raises a VolumeError: there is no series, more than one, or one whose slices differ, overlap,
    are missing or sheared.
    """
    with refuse_broken(path):
        return _find_series(path, path.name)


def _find_series(path: Path, name: str) -> Series:
    found, broken = _list_slices(path)
    if broken:
        said = count(broken, "DICOM file")
        raise VolumeError(f"{name}: {said} cannot be read, being truncated or damaged: {_COPY_AGAIN}")
    slices = drop_copies(found, name)
    first = slices[0]
    if any(one.samples != 1 for one in slices):
        raise VolumeError(f"{name}: the DICOM slices must have one value per voxel; they hold colours")
    if any(one.multi_frame for one in slices):
        if len(slices) > 1:
            raise VolumeError(
                f"{name}: the series consists of {len(slices)} multi-frame DICOM files: convert it to NIfTI "
                "(dcm2niix does)"
            )
        return _find_frames(first, name)
    if len(slices) == 1:
        raise VolumeError(f"{name}: a single DICOM slice is no volume: give the folder with all slices of the series")
    if not all(one.spacing and one.orientation for one in slices):
        raise VolumeError(f"{name}: the DICOM slices do not say how they lie in the body: convert the scan to NIfTI")
    spacing = np.array([part.spacing for part in slices])
    directions = np.array([part.orientation for part in slices])
    if (
        len({part.shape for part in slices}) > 1
        or np.ptp(spacing, axis=0).max() > _SPACING_MM
        or np.ptp(directions, axis=0).max() > _DIRECTION
    ):
        raise VolumeError(
            f"{name}: the DICOM slices differ in size or direction: "
            "keep the slices of one stack (a scout image may lie among them)"
        )
    order, distance_mm = _order_slices(np.array([one.position for one in slices]), directions[0], name)
    return Series(
        files=tuple(str(slices[place].path) for place in order),
        frames=(),
        size=(*first.shape[::-1], len(slices)),
        spacing=(*first.spacing[::-1], distance_mm),
        origin=slices[order[0]].position,
        direction=_find_direction(directions[0]),
        uid=first.series,
        frame_of_reference=first.frame_of_reference,
        scales=tuple(slices[place].rescale for place in order),
    )


def read_series(path: Path) -> sitk.Image:
    """Read a series as a volume in its own units, without any of DICOM's tags.

    Raises a VolumeError as :func:`find_series`, or where a slice cannot be decoded.
    """
    series = find_series(path)
    check_extent(path.name, series.size, _STORED_BYTES)
    with refuse_broken(path):
        image = frames.read_frames(Path(series.files[0]), series.frames) if series.frames else _read_slices(series)
    image.SetSpacing(series.spacing)
    image.SetOrigin(series.origin)
    image.SetDirection(series.direction)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    return image


def drop_copies(slices: Sequence[DicomHeader], name: str) -> list[DicomHeader]:
    """Keep one file of each slice; a VolumeError where two of one slice differ."""
    kept: dict[str, DicomHeader] = {}
    for one in slices:
        former = kept.setdefault(one.instance or str(one.path), one)
        if former is not one and (former.position, former.path.stat().st_size) != (
            one.position, one.path.stat().st_size
        ):  # fmt: skip
            raise VolumeError(
                f"{name}: two DICOM files ({former.path.name}, {one.path.name}) are called the same slice and differ: "
                "remove the wrong one"
            )
    return list(kept.values())


def _list_slices(path: Path) -> tuple[list[DicomHeader], int]:
    """Return the headers of a series' files, and how many files of it are broken."""
    if path.is_dir():
        headers, unreadable = _read_folder(list_files(path, most=_MOST_FILES))
        images = [one for one in headers if one.kind == IMAGE]
        images = [one for one in images if not one.localizer] or images
        names = {one.series for one in images}
        if not names and not unreadable:
            raise VolumeError(
                f"{path.name}: the folder holds no DICOM series: "
                "give a folder with the slices of one series, or a NIfTI file"
            )
        if len(names) > 1:
            raise VolumeError(
                f"{path.name}: the folder holds {len(names)} DICOM series: give every series a folder of its own, "
                "or name one slice of the series in place of the folder"
            )
    else:
        headers, unreadable = _read_folder(sorted(file for file in path.parent.iterdir() if file.is_file()))
        own = next((one for one in headers if one.path == path), None)
        if own is None:
            raise VolumeError(f"{path.name}: its DICOM header cannot be read: copy it again from its source")
        if own.kind != IMAGE:
            raise VolumeError(f"{path.name}: is a DICOM file of another kind ({own.modality or 'unknown'}), not a scan")
        beside = [one for one in headers if one.kind == IMAGE and not one.localizer]
        images = [one for one in beside if one.series == own.series] or [own]
        if len(images) < len(beside):  # a broken file may be of another series
            unreadable = []
    return [one for one in images if one.whole], len(unreadable) + sum(not one.whole for one in images)


def _read_folder(files: Sequence[Path]) -> tuple[list[DicomHeader], list[Path]]:
    """Read headers, of a large folder once for all series in it unless files have changed."""
    stats = [file.stat() for file in files]
    return _read_cached(tuple(files), tuple((status.st_size, status.st_mtime_ns) for status in stats))


@lru_cache(maxsize=8)
def _read_cached(files: tuple[Path, ...], _stamps: tuple[object, ...]) -> tuple[list[DicomHeader], list[Path]]:
    return read_headers(list(files))


def _find_frames(header: DicomHeader, name: str) -> Series:
    """Return the series of a multi-frame file."""
    found = frames.describe_frames(header.path)
    order, distance_mm = _order_slices(found.positions, found.orientation, name, "frames")
    return Series(
        files=(str(header.path),),
        frames=tuple(order),
        size=(*header.shape[::-1], len(order)),
        spacing=(*found.spacing[::-1], distance_mm),
        origin=tuple(found.positions[order[0]].tolist()),
        direction=_find_direction(found.orientation),
        uid=header.series,
        frame_of_reference=header.frame_of_reference,
        scales=(),
    )


def _find_direction(orientation: np.ndarray) -> tuple[float, ...]:
    """Return the axes as columns, row by row, from the cosines of a row and a column, (6,)."""
    row, column = orientation[:3], orientation[3:]
    return tuple(np.column_stack([row, column, np.cross(row, column)]).ravel().tolist())


def _read_slices(series: Series) -> sitk.Image:
    """Read slices by GDCM, which knows most codings; by pydicom what it fails on (small RLE)."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames(series.files)
    reader.SetSpacingWarningRelThreshold(1.0)  # the distances were checked
    if len(set(series.scales)) > 1:  # else all take the type of the first
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        return reader.Execute()
    except RuntimeError:
        return frames.read_single_frames([Path(file) for file in series.files], series.scales)


def _order_slices(
    origins: np.ndarray, orientation: np.ndarray, name: str, what: str = "slices"
) -> tuple[list[int], float]:
    """Return the order of slices along their normal, and their distance (mm) in an even stack."""
    normal = np.cross(orientation[:3], orientation[3:])
    order = np.argsort(origins @ normal, kind="stable")
    steps = np.diff(origins[order], axis=0)
    along = steps @ normal
    if along.min() < _SAME_PLACE_MM:
        raise VolumeError(
            f"{name}: several DICOM {what} lie at one place (phases, echoes or copies): keep one for each place"
        )
    if np.linalg.norm(steps - along[:, None] * normal, axis=1).max() > _SIDEWAYS_MM:
        raise VolumeError(
            f"{name}: the DICOM {what} are sheared (tilted gantry): "
            "convert the scan to NIfTI (dcm2niix corrects the tilt)"
        )
    distance_mm = float(along.sum()) / len(along)
    places = np.concatenate([[0.0], np.cumsum(along)])
    if np.abs(places - distance_mm * np.arange(len(places))).max() > _UNEVEN * distance_mm:
        apart = f"{along.min():.2f} to {along.max():.2f} mm apart"
        gaps = along / np.median(along)
        if np.abs(gaps - np.round(gaps)).max() <= _UNEVEN and gaps.min() > _UNEVEN:
            missing = int(np.round(gaps).sum()) + 1 - len(places)
            raise VolumeError(
                f"{name}: {missing} of {missing + len(places)} DICOM {what} are missing ({apart}): {_COPY_AGAIN}"
            )
        raise VolumeError(f"{name}: the DICOM {what} are unevenly spaced ({apart}): {_COPY_AGAIN}")
    return order.tolist(), distance_mm
