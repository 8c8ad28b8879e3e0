"""Image files: used only if every voxel that the header promises is there, and written whole."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers import dicom
from helpers.errors import VolumeError
from helpers.limits import check_extent
from helpers.storage import is_there, write_atomically
from helpers.volumes import containers, nifti
from helpers.volumes.grid import Grid, check_grid, get_grid, place_image, to_axial

SUFFIXES = (".nii.gz", ".nii", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr")
_READERS = {containers.NRRD: "NrrdImageIO", containers.META: "MetaImageIO"}


def read_volume(path: Path) -> sitk.Image:
    """Read a 3D scalar image or mask: a file, or a series of DICOM images (folder or file of it).

    A file is known by its first bytes, not by its name, and read to its end: its length and every
    check sum in it must agree with its header.

    Raises a VolumeError: the file is missing, unreadable, truncated, damaged, not three-dimensional
    or not scalar; its axes are sheared or its header contradicts itself; or what
    :func:`helpers.dicom.find_series` says of a folder.
    """
    path = Path(path)
    with containers.explain_unreadable(path):
        if is_series(path):
            return dicom.read_series(path)
        path, container = _open(path)
        try:
            if container == containers.NIFTI:
                return nifti.read_image(path)
            reader = _read_header(path, container)
            grid = _check_header(path, reader)
            containers.check_stream(containers.find_stream(path, container), _check_extent(path, reader))
            image = reader.Execute()
        except (RuntimeError, EOFError, zlib.error) as error:
            raise VolumeError(containers.tell_damaged(path)) from error
        return place_image(image, grid)


def read_on_grid(
    path: Path, grid: Grid, *, what: str = "the image", advice: str = "", axial: bool = False
) -> sitk.Image:
    """Read an image or mask that must lie on a given grid; errors of read_volume and check_grid.

    With `axial` it is brought to the study orientation first, which `grid` is then in: the file may
    be stored in any axis order. The message calls it `what` and says what to do (`advice`).
    """
    image = read_volume(path)
    if axial:
        image = to_axial(image)
    check_grid(get_grid(image), grid, what=what, advice=advice)
    return image


def read_grid(path: Path) -> Grid:
    """Read an image's grid from its header; a VolumeError as by read_volume, as far as it tells."""
    path = Path(path)
    with containers.explain_unreadable(path):
        if is_series(path):
            series = dicom.find_series(path)
            return Grid(series.size, series.spacing, series.origin, series.direction)
        path, container = _open(path)
        if container == containers.NIFTI:
            return nifti.read_header(path).grid
        return _check_header(path, _read_header(path, container))


def is_series(path: Path) -> bool:
    """Return whether an image is a series of DICOM images: a folder, or a file that is DICOM."""
    return is_there(path) and (path.is_dir() or dicom.looks_like_dicom(path))


def _open(path: Path) -> tuple[Path, str]:
    """Return the file that holds an image's header, and which container it is."""
    linked = os.path.islink(path)  # noqa: PTH114 (False, not an error, for a name too long)
    if linked and not is_there(path) and "annex/objects" in str(path.readlink()):
        raise VolumeError(
            f"{path.name}: no such file: it is a link of git-annex: fetch it (datalad get, git annex get)"
        )
    if not (is_there(path) and path.is_file()):
        raise VolumeError(f"{path}: no such file: correct its path in the participants table")
    path = nifti.find_header(path)
    return path, containers.identify(path)


def _read_header(path: Path, container: str) -> sitk.ImageFileReader:
    containers.find_stream(path, container)  # of what is missing this has the better words
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[container])  # whatever the file is called
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(
            f"{path.name}: its {container} header cannot be read: copy it again from its source"
        ) from error
    return reader


def _check_header(path: Path, reader: sitk.ImageFileReader) -> Grid:
    """Return the grid of a header that is of one volume at right angles."""
    size = tuple(reader.GetSize())
    if reader.GetNumberOfComponents() != 1:
        raise VolumeError(f"{path.name}: must have one value per voxel; it has {reader.GetNumberOfComponents()}")
    if len(size) == 4 and size[3] == 1:
        raise VolumeError(f"{path.name}: has a fourth axis of length 1: store it as a 3D image")
    if len(size) != 3:
        raise VolumeError(
            f"{path.name}: must be a 3D image; it has {len(size)} axes of {size}: give one volume per scan"
        )
    if reader.GetImageIO() == _READERS[containers.NRRD] and not reader.HasMetaDataKey("NRRD_space"):
        raise VolumeError(
            f"{path.name}: its header does not say how its axes lie in the body (no space): "
            "convert the scan again from its source"
        )
    columns = np.reshape(reader.GetDirection(), (3, 3)) * np.asarray(reader.GetSpacing())
    return nifti.fit_axes(np.column_stack([columns, reader.GetOrigin()]), size, path.name)


def _check_extent(path: Path, reader: sitk.ImageFileReader) -> int:
    """Return how many bytes the voxels of a header take; a VolumeError where too many."""
    voxel = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID())
    return check_extent(path.name, reader.GetSize(), voxel.GetSizeOfPixelComponent())


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write an image atomically, compressed, without a time stamp (equal voxels, equal bytes)."""
    with write_atomically(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
        except RuntimeError as error:
            full = shutil.disk_usage(temporary.parent).free < 1 << 20
            raise OSError(errno.ENOSPC if full else errno.EIO, "the image writer failed") from error
