"""NIfTI-1 and NIfTI-2: the header read by one rule, the voxels read whole.

ITK's own reader fills what is missing with zeros, passes check sums over, takes a slice distance of
0 for 1 mm and refuses axes that are rounded; where entries of a header disagree it chooses. Here a
header is used only where all that it says of its axes agrees.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers.errors import VolumeError
from helpers.limits import check_extent
from helpers.volumes.containers import open_bytes, read_head, tell_damaged
from helpers.volumes.grid import SAME_VOXELS, Grid, fit_grid, make_image, measure_shift

# What stands where, as formats and offsets (nifti1.h, nifti2.h), by the header's length.
_FIELDS = {
    348: {
        "dim": ("8h", 40), "datatype": ("h", 70), "pixdim": ("8f", 76), "vox_offset": ("f", 108),
        "scaling": ("2f", 112), "units": ("B", 123), "qform_code": ("h", 252), "sform_code": ("h", 254),
        "quaternion": ("3f", 256), "offset_mm": ("3f", 268), "sform": ("12f", 280), "magic": ("4s", 344),
    },
    540: {
        "dim": ("8q", 16), "datatype": ("h", 12), "pixdim": ("8d", 104), "vox_offset": ("q", 168),
        "scaling": ("2d", 176), "units": ("i", 500), "qform_code": ("i", 344), "sform_code": ("i", 348),
        "quaternion": ("3d", 352), "offset_mm": ("3d", 376), "sform": ("12d", 400), "magic": ("4s", 4),
    },
}  # fmt: skip
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_SEVERAL_VALUES = {32: 2, 128: 3, 1792: 2, 2304: 4}  # complex numbers and colours
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metres and micrometres; anything else is taken for millimetres
_TO_LPS = np.array([[-1.0], [-1.0], [1.0]])
_FARTHEST = 1 << 26  # bytes before the voxels: extensions of the header stand there
_ROUNDED_OFF = 4e-7
_QFORM_VOXELS = 0.5  # a quaternion of float32 is good for 1e-4 of the length of an image, no more
_ADVICE = "convert the scan again from its source"


@dataclass(frozen=True)
class Header:
    """A NIfTI header that can be used."""

    grid: Grid
    dtype: np.dtype
    scaling: tuple[float, float]  # slope and intercept
    voxels: Path  # the file that holds them
    start: int  # where in it they begin, in bytes

    @property
    def scaled(self) -> np.dtype:
        """The type of its values as scaled: float64 where float32 would round integers."""
        native = self.dtype.newbyteorder("=")
        return native if self.scaling == (1.0, 0.0) else np.result_type(native, np.float32)


def read_header(path: Path) -> Header:
    """Read a NIfTI header.

    Raises a VolumeError: it does not describe one volume of one value per voxel, or what it says of
    its axes (sform, qform, pixdim) is incomplete, sheared or disagrees: sform and pixdim by over a
    tenth of a voxel anywhere, sform and qform by over half of one. sform counts where it is set.
    """
    head = read_head(path)
    length, order = _find_length(head)
    if len(head) < length:
        raise VolumeError(tell_damaged(path))
    fields = {name: struct.unpack_from(order + code, head, at) for name, (code, at) in _FIELDS[length].items()}
    magic = fields["magic"][0][:3]
    if magic not in (b"n+1", b"ni1", b"n+2", b"ni2"):
        raise VolumeError(f"{path.name}: is an Analyze file, which does not say left from right: convert it to NIfTI")
    (code,) = fields["datatype"]
    size = _find_size(fields["dim"], code, path.name)
    if code not in _TYPES:
        raise VolumeError(f"{path.name}: its voxels are of a type that is not read ({code}): store them as integers")
    (start,) = fields["vox_offset"]
    alone = magic[1:2] == b"+"
    if not (length if alone else 0) <= start < _FARTHEST:
        raise VolumeError(f"{path.name}: its header gives voxels no place (vox_offset {start:g}): {_ADVICE}")
    slope, intercept = fields["scaling"]
    if not (np.isfinite([slope, intercept]).all() and slope):
        slope, intercept = 1.0, 0.0
    grid = _find_grid(fields, size, path.name)
    header = Header(grid, np.dtype(order + _TYPES[code]), (slope, intercept), path, int(start))
    check_extent(path.name, size, max(header.dtype.itemsize, header.scaled.itemsize))
    return header if alone else dataclasses.replace(header, voxels=_find_voxels(path))


def read_image(path: Path) -> sitk.Image:
    """Read a NIfTI file whole; errors of :func:`read_header`, and where voxels are missing.

    Numbers are scaled as the header says, to float32 (float64 where that would round them), or
    kept.
    """
    header = read_header(path)
    shape = header.grid.size[::-1]
    try:
        found = open_bytes(header.voxels, header.start, int(np.prod(shape)) * header.dtype.itemsize)
    except (EOFError, zlib.error, MemoryError):
        raise VolumeError(tell_damaged(path)) from None
    array = found.view(header.dtype).reshape(shape)
    if array.dtype != header.scaled:
        stored, array = array, np.empty(shape, header.scaled)
        slope, intercept = map(header.scaled.type, header.scaling)
        for one, into in zip(stored, array, strict=True):  # all at once would take three times the memory
            into[...] = one if header.scaling == (1.0, 0.0) else one.astype(header.scaled) * slope + intercept
    return make_image(array, header.grid)


def find_header(path: Path) -> Path:
    """Return the header of a pair of files whose voxels are named (.img); else the path itself."""
    return _find_other(path, "img", "hdr") or path


def _find_length(head: bytes) -> tuple[int, str]:
    """Return how long the header is, which stands at its begin, and the order of its bytes."""
    return next(
        (length, order) for order in "<>" for length in _FIELDS if struct.unpack_from(order + "i", head)[0] == length
    )


def _find_size(dim: tuple[int, ...], code: int, name: str) -> tuple[int, ...]:
    """Return the size (x, y, z); raise a VolumeError where there are more or fewer axes."""
    axes = dim[1 : dim[0] + 1] if 1 <= dim[0] <= 7 else ()
    if not axes or min(axes) < 1:
        raise VolumeError(f"{name}: its header gives no size ({', '.join(map(str, dim))}): {_ADVICE}")
    values = _SEVERAL_VALUES.get(code, axes[4] if len(axes) == 5 and axes[3] == 1 else 1)
    if values > 1:
        raise VolumeError(f"{name}: must have one value per voxel; it has {values}")
    if len(axes) == 4 and axes[3] == 1:
        raise VolumeError(f"{name}: has a fourth axis of length 1: store it as a 3D image")
    if len(axes) != 3:
        raise VolumeError(f"{name}: must be a 3D image; it has {len(axes)} axes of {axes}: give one volume per scan")
    return axes


def _find_grid(fields: dict[str, tuple], size: tuple[int, ...], name: str) -> Grid:
    """Return the grid on which sform, qform and pixdim agree; sform's own where it is set."""
    mm = _MM_PER_UNIT.get(fields["units"][0] & 7, 1.0)
    spacing_mm = np.array(fields["pixdim"][1:4]) * mm
    if not (np.isfinite(spacing_mm) & (spacing_mm > 0)).all():
        told = ", ".join(f"{value:g}" for value in spacing_mm)
        raise VolumeError(f"{name}: the spacing in its header must be above 0; pixdim is ({told}): {_ADVICE}")
    stated = {}
    if fields["sform_code"][0] > 0:
        stated["sform"] = np.reshape(fields["sform"], (3, 4)) * mm
    if fields["qform_code"][0] > 0:
        stated["qform"] = np.column_stack([_turn(fields) * spacing_mm, np.array(fields["offset_mm"]) * mm])
    if not stated:
        raise VolumeError(
            f"{name}: its header does not say how its axes lie in the body (sform_code and qform_code are 0): {_ADVICE}"
        )
    for entry, affine in stated.items():
        check_axes(affine, name, entry)
    first, *others = (_TO_LPS * affine for affine in stated.values())
    for other in others:
        apart, apart_mm = measure_shift(first, other, size)
        if apart > _QFORM_VOXELS:
            raise VolumeError(
                f"{name}: sform and qform of its header disagree on the axes (up to {apart_mm:.3g} mm apart): {_ADVICE}"
            )
    grid = fit_axes(first, size, name, next(iter(stated)))
    if differences := grid.differences(dataclasses.replace(grid, spacing=tuple(spacing_mm.tolist()))):
        raise VolumeError(
            f"{name}: sform and pixdim of its header disagree on the axes ({'; '.join(differences)}): {_ADVICE}"
        )
    return grid


def check_axes(affine: np.ndarray, name: str, entry: str = "") -> None:
    """Raise a VolumeError where an affine, (3, 4), spans no volume; `entry` is its place."""
    columns = affine[:, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(affine).all() or not lengths.all() or abs(np.linalg.det(columns / lengths)) < 1e-3:
        raise VolumeError(
            f"{name}: the axes in its header{entry and f' ({entry})'} are zero, no numbers or in one plane: {_ADVICE}"
        )


def fit_axes(affine_lps: np.ndarray, size: tuple[int, ...], name: str, entry: str = "") -> Grid:
    """Return the grid of an affine, (3, 4), to LPS mm; a VolumeError where its axes make none."""
    check_axes(affine_lps, name, entry)
    grid = fit_grid(affine_lps, size)
    if measure_shift(affine_lps, grid.affine, size)[0] > SAME_VOXELS:
        raise VolumeError(
            f"{name}: the axes in its header{entry and f' ({entry})'} are sheared, not at right angles: "
            "convert the scan again without its tilt (dcm2niix does)"
        )
    return grid


def _turn(fields: dict[str, tuple]) -> np.ndarray:
    """Return qform's axes, (3, 3); NaN where the quaternion is none. See nifti1.h, method 2."""
    vector = np.array(fields["quaternion"], float)
    rest = 1.0 - vector @ vector
    if not rest > -1e-3:
        return np.full((3, 3), np.nan)
    # The first part is not stored: near 0 it would be the root of what float32 rounds off.
    a, (b, c, d) = (np.sqrt(rest), vector) if rest > _ROUNDED_OFF else (0.0, vector / np.linalg.norm(vector))
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    return rotation * [1.0, 1.0, -1.0 if fields["pixdim"][0] < 0 else 1.0]


def _find_voxels(path: Path) -> Path:
    voxels = _find_other(path, "hdr", "img")
    if voxels is None:
        raise VolumeError(f"{path.name}: its voxels (.img) are not beside it: copy both files")
    return voxels


def _find_other(path: Path, own: str, other: str) -> Path | None:
    """Return the other file of a pair, in either spelling, compressed or not."""
    found = re.fullmatch(rf"(.*)\.{own}(?:\.gz)?", path.name, re.IGNORECASE | re.DOTALL)
    if found is None:
        return None
    names = [f"{found.group(1)}.{other}{end}" for end in ("", ".gz")]
    places = [path.with_name(spelling) for name in names for spelling in (name, _raise_suffix(name, other))]
    return next((place for place in places if place.is_file()), None)


def _raise_suffix(name: str, suffix: str) -> str:
    stem, end = name.rsplit(f".{suffix}", 1)
    return stem + f".{suffix}{end}".upper()
