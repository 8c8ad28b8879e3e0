"""Image files: read with every check that a header and a length allow, and written whole."""

from __future__ import annotations

import errno
import gzip
import math
import shutil
import struct
import zlib
from pathlib import Path

import SimpleITK as sitk

from helpers import dicom
from helpers.errors import VolumeError
from helpers.storage import write_atomically
from helpers.volumes.grid import Grid, check_grid, get_grid, to_axial

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")
# By the length of a NIfTI-1 or NIfTI-2 header: where it holds its dimensions, the bits of a voxel
# and the first voxel's byte, as formats and offsets.
_NIFTI_FIELDS = {348: (("8h", 40), ("h", 72), ("f", 108)), 540: (("8q", 16), ("h", 14), ("q", 168))}


def read_volume(path: Path) -> sitk.Image:
    """Read a 3D scalar image or mask: a file, or a folder with the slices of one DICOM series.

    Raises
    ------
    VolumeError
        The file is missing, unreadable, truncated, not three-dimensional or not scalar; or what
        :func:`helpers.dicom.find_series` says of a folder.
    """
    path = Path(path)
    if path.is_dir():
        return dicom.read_series(path)
    read_grid(path)
    try:
        _check_complete(path)
        return sitk.ReadImage(str(path))
    except (RuntimeError, EOFError, OSError, zlib.error) as error:
        raise VolumeError(
            f"{path.name}: cannot be read, it may be truncated or damaged: copy it again from its source"
        ) from error


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
    if path.is_dir():
        series = dicom.find_series(path)
        return Grid(series.size, series.spacing, series.origin, series.direction)
    if not path.is_file():
        raise VolumeError(f"{path}: no such file: correct its path in the participants table")
    if path.suffix.lower() in dicom.SLICE_SUFFIXES:
        raise VolumeError(f"{path.name}: is a single DICOM file: give the folder that holds the whole series")
    reader = read_header(path)
    size = tuple(reader.GetSize())
    if len(size) == 4 and size[3] == 1:
        raise VolumeError(f"{path.name}: has a fourth axis of length 1: store it as a 3D image")
    if len(size) != 3:
        raise VolumeError(
            f"{path.name}: must be a 3D image; it has {len(size)} axes of {size}: give one volume per scan"
        )
    if reader.GetNumberOfComponents() != 1:
        raise VolumeError(f"{path.name}: must have one value per voxel; it has {reader.GetNumberOfComponents()}")
    return Grid(size, tuple(reader.GetSpacing()), tuple(reader.GetOrigin()), tuple(reader.GetDirection()))


def read_header(path: Path) -> sitk.ImageFileReader:
    """Return the reader of an image file that has read its header; a VolumeError if it is none."""
    fault = VolumeError(f"{path.name}: is not an image that can be opened (NIfTI, NRRD or MetaImage expected)")
    return dicom.read_header(path, fault)


def find_grid(reference: Path) -> Grid:
    """Return the grid of a reference: a label map, or the first mask of a folder of masks."""
    if reference.is_dir():
        masks = sorted(path for path in reference.iterdir() if path.name.endswith(SUFFIXES))
        if not masks:
            raise VolumeError(f"{reference}: the folder holds no mask ({', '.join(SUFFIXES)})")
        reference = masks[0]
    return read_grid(reference)


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write an image atomically, compressed, without a time stamp (equal voxels, equal bytes)."""
    with write_atomically(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
        except RuntimeError as error:
            full = shutil.disk_usage(temporary.parent).free < 1 << 20
            raise OSError(errno.ENOSPC if full else errno.EIO, "the image writer failed") from error


def _check_complete(path: Path) -> None:
    """Raise EOFError where a NIfTI file ends before its last voxel.

    ITK's NIfTI reader fills what is missing with zeros and says nothing: half an organ would be
    lost in silence. A gzip file ends with its uncompressed length (RFC 1952), which is compared
    with the length the header asks for; only where the two differ (several members, bytes after the
    image, or truly a cut) is the whole stream read to be sure.
    """
    if path.name.endswith(".nii"):
        with path.open("rb") as stream:
            expected = _count_nifti_bytes(stream.read(552))
        if path.stat().st_size < expected:
            raise EOFError
    elif path.name.endswith(".nii.gz"):
        with gzip.open(path) as stream:
            expected = _count_nifti_bytes(stream.read(552))
        with path.open("rb") as stream:
            stream.seek(-4, 2)
            length = int.from_bytes(stream.read(4), "little")
        if length != expected % 2**32:
            with gzip.open(path) as stream:
                if sum(len(block) for block in iter(lambda: stream.read(1 << 22), b"")) < expected:
                    raise EOFError


def _count_nifti_bytes(header: bytes) -> int:
    """Return how long a NIfTI file of this header must be, in bytes."""
    for order in "<>":
        fields = _NIFTI_FIELDS.get(struct.unpack_from(order + "i", header)[0])
        if fields is not None:
            dimensions, (bits,), (first,) = (struct.unpack_from(order + code, header, at) for code, at in fields)
            return int(first) + math.prod(dimensions[1 : dimensions[0] + 1]) * bits // 8
    return 0  # not a NIfTI header: the reader has its own say
