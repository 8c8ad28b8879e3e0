"""Images and masks: reading, geometry checks, orientation, windowing, atomic writing.

Arrays are in NumPy's order (z, y, x); SimpleITK images in its own (x, y, z). An image brought to the
*study orientation* (:func:`to_axial`) has its axes closest to the body's: z towards the head
(superior), y towards the back (posterior), x towards the person's left, so that an axial slice is
``array[z]`` whatever the storage order of the file.
"""

from __future__ import annotations

import gzip
import math
import shutil
import struct
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from helpers import dicom
from helpers.errors import SegfairError, VolumeError
from helpers.parameters import Organ
from helpers.storage import write_atomically

GRID_TOLERANCE_MM = 0.01
DIRECTION_TOLERANCE = 1e-3
LARGEST_LABEL = 65535
SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie, in SimpleITK's order (x, y, z) and LPS millimetres."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def differences(self, other: Grid) -> list[str]:
        """Name what differs from `other` beyond tolerance: size, spacing, origin, direction.

        Spacing and origin are compared to 0.01 mm, direction cosines to 1e-3.
        """
        found = []
        if self.size != other.size:
            return [f"size {self.size} against {other.size}"]
        for name, tolerance in (
            ("spacing", GRID_TOLERANCE_MM),
            ("origin", GRID_TOLERANCE_MM),
            ("direction", DIRECTION_TOLERANCE),
        ):
            ours, theirs = np.asarray(getattr(self, name)), np.asarray(getattr(other, name))
            if not np.all(np.abs(ours - theirs) <= tolerance):
                found.append(f"{name} {_shorten(ours)} against {_shorten(theirs)}")
        return found


@dataclass(frozen=True)
class LabelMap:
    """A scan's organs as one label map.

    Attributes
    ----------
    image : sitk.Image
        uint8, the study's organ ids, on the file's own grid.
    midline_x_mm : float or None
        The LPS x coordinate (mm, + is left) that parts left from right organs; None where no organ has a side.
    unknown : tuple of int
        Ids in the file that no organ names.
    notes : tuple of str
        What had to be assumed, in sentences.
    """

    image: sitk.Image
    midline_x_mm: float | None = None
    unknown: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def read_volume(path: Path) -> sitk.Image:
    """Read a 3D scalar image or mask with its geometry: a file, or a folder with the slices of one DICOM series.

    Raises
    ------
    VolumeError
        The file is missing, unreadable, truncated, not three-dimensional or not scalar; or what
        :func:`helpers.dicom.find_series` says of a folder.
    """
    path = Path(path)
    if path.is_dir():
        return dicom.read_series(path)
    grid_of(path)
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
    """Read an image or mask that must lie on a given grid.

    Parameters
    ----------
    path : Path
    grid : Grid
        Where its voxels must lie.
    what, advice : str
        What the message calls it, and what it says to do.
    axial : bool
        Bring it to the study orientation first, which `grid` is then in: the file may be stored in any axis order.

    Raises
    ------
    VolumeError
        As :func:`read_volume`; or it lies on another grid.
    """
    image = read_volume(path)
    if axial:
        image = to_axial(image)
    check_grid(grid_of_image(image), grid, what=what, advice=advice)
    return image


def check_grid(found: Grid, wanted: Grid, *, what: str = "the image", advice: str = "") -> None:
    """Refuse an image that does not lie on the reference's grid.

    Raises
    ------
    VolumeError
        It does not; the message names what differs.
    """
    differences = found.differences(wanted)
    if differences:
        message = f"{what} lies on another grid than the reference ({'; '.join(differences)})"
        raise VolumeError(f"{message}: {advice}" if advice else message)


def grid_of(path: Path) -> Grid:
    """Read an image's grid from its header, without the voxels.

    Raises
    ------
    VolumeError
        As :func:`read_volume`, as far as a header tells.
    """
    path = Path(path)
    if path.is_dir():
        series = dicom.find_series(path)
        return Grid(series.size, series.spacing, series.origin, series.direction)
    if not path.is_file():
        raise VolumeError(f"{path}: no such file: correct its path in the participants table")
    if path.suffix.lower() in dicom.SLICE_SUFFIXES:
        raise VolumeError(f"{path.name}: is a single DICOM file: give the folder that holds the whole series")
    reader = _read_header(path)
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


def _read_header(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(
            f"{path.name}: is not an image that can be opened (NIfTI, NRRD or MetaImage expected)"
        ) from error
    return reader


def grid_of_image(image: sitk.Image) -> Grid:
    """Return the grid of an image in memory."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def find_grid(reference: Path) -> Grid:
    """Return the grid of a reference: a label map, or the first mask of a folder of masks.

    Raises
    ------
    VolumeError
        There is no mask, or it cannot be opened.
    """
    if reference.is_dir():
        masks = sorted(path for path in reference.iterdir() if path.name.endswith(SUFFIXES))
        if not masks:
            raise VolumeError(f"{reference}: the folder holds no mask ({', '.join(SUFFIXES)})")
        return grid_of(masks[0])
    return grid_of(reference)


def find_mask(template: str, scan: str, subject: str) -> Path:
    """Return a scan's ready-made mask: a file or a folder of masks.

    Parameters
    ----------
    template : str
        Its place, with ``{scan}`` or ``{subject}``.
    scan, subject : str

    Raises
    ------
    SegfairError
        It does not exist.
    """
    path = Path(template.format(scan=scan, subject=subject))
    if not path.exists():
        # The end of the place tells what is wrong with it; what comes before may name people and machines.
        place = "/".join(Path(template).parts[-2:])
        raise SegfairError(
            f"there is no mask for this scan where the model's path says ({place}): add it or correct models.*.path"
        )
    return path


def check_whole(path: Path) -> None:
    """Refuse a label map that holds fractions; its voxels are read only where they are stored as floats.

    Parameters
    ----------
    path : Path
        A label map; a folder of binary masks passes, in which whatever is above 0 is the organ.

    Raises
    ------
    VolumeError
        It cannot be read, or is no label map.
    """
    if path.is_dir():
        return
    grid_of(path)
    if _read_header(path).GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64):
        _find_labels(read_volume(path), path.name)


def spacing_zyx_mm(image: sitk.Image) -> tuple[float, float, float]:
    """Return the voxel spacing in array order (z, y, x), in mm."""
    x, y, z = image.GetSpacing()
    return z, y, x


def to_axial(image: sitk.Image) -> sitk.Image:
    """Permute and flip axes so that (x, y, z) run to the person's left, posterior and superior.

    Voxels keep their values and places in the world; only their order in memory changes.
    """
    return sitk.DICOMOrient(image, "LPS")


def orient_grid(grid: Grid) -> Grid:
    """Return the grid on which :func:`to_axial` puts an image that lies on `grid`."""
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)
    columns = np.reshape(grid.direction, (3, 3))
    axes = [next(axis for axis, letter in enumerate(code) if letter in pair) for pair in ("LR", "PA", "SI")]
    signs = np.array([1.0 if code[axis] in "LPS" else -1.0 for axis in axes])
    size, spacing = np.asarray(grid.size)[axes], np.asarray(grid.spacing)[axes]
    # An axis that is turned round begins at its former end.
    lengths = np.where(signs < 0, spacing * (size - 1), 0.0)
    return Grid(
        tuple(size.tolist()),
        tuple(spacing.tolist()),
        tuple((np.asarray(grid.origin) + columns[:, axes] @ lengths).tolist()),
        tuple((columns[:, axes] * signs).ravel().tolist()),
    )


def from_axial(image: sitk.Image, grid: Grid) -> sitk.Image:
    """Undo :func:`to_axial`: return `image` in the axis order of `grid`.

    Raises
    ------
    VolumeError
        The two do not cover the same voxels.
    """
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)
    restored = sitk.DICOMOrient(image, code)
    differences = grid_of_image(restored).differences(grid)
    if differences:
        raise VolumeError(f"the mask does not fit the scan's grid: {'; '.join(differences)}")
    # Rounding in the direction cosines must not add up over a round trip.
    restored.SetOrigin(grid.origin)
    restored.SetSpacing(grid.spacing)
    restored.SetDirection(grid.direction)
    return restored


def image_from_array(array: np.ndarray, grid: Grid) -> sitk.Image:
    """Return `array` (z, y, x) as an image on `grid`."""
    if array.shape != grid.size[::-1]:
        raise VolumeError(f"array of shape {array.shape} (z, y, x) does not fit a grid of {grid.size} (x, y, z)")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write an image atomically, compressed, without a time stamp (equal voxels give equal bytes)."""
    with write_atomically(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
        except RuntimeError as error:
            raise OSError(28 if _disk_is_full(temporary) else 5, "the image writer failed") from error


def read_label_map(
    path: Path, organs: Mapping[str, Organ], organ_ids: Mapping[str, int], *, midline_x_mm: float | None = None
) -> LabelMap:
    """Read masks as one uint8 label map with the study's organ ids.

    Parameters
    ----------
    path : Path
        A label map (organs are found by `labels`), or a folder of binary masks (by `files`; the
        union of those present; an organ none of whose files exists is absent).
    organs : mapping of str to Organ
        Where each organ is found.
    organ_ids : mapping of str to int
        The id each organ gets in the result.
    midline_x_mm : float, optional
        Where left and right part, in LPS x (mm); found from the mask when not given. Give the
        reference's own for a prediction, so that both are parted by the same plane.

    Raises
    ------
    VolumeError
        A file cannot be read, the masks of a folder lie on different grids, or two organs overlap
        (other than by less than 0.1 % of the smaller; then the first named keeps the voxels).
    """
    path = Path(path)
    if path.is_dir():
        image, masks = _read_folder(path, organs)
        unknown: tuple[int, ...] = ()
    else:
        image = read_volume(path)
        array, boxes = _find_labels(image, path.name)
        named = {label for organ in organs.values() for label in organ.labels}
        unknown = tuple(sorted(set(boxes) - named))
        tables = _make_tables(organs, organ_ids, boxes)
        if tables is not None:
            result, midline_x_mm, notes = _relabel(array, boxes, grid_of_image(image), organs, tables, midline_x_mm)
            return LabelMap(image_from_array(result, grid_of_image(image)), midline_x_mm, unknown, tuple(notes))
        masks = {name: np.isin(array, organ.labels) for name, organ in organs.items()}
    grid = grid_of_image(image)
    notes = []
    sided = [name for name, organ in organs.items() if organ.side is not None]
    left_of_midline = None
    if sided:
        if midline_x_mm is None:
            union = np.logical_or.reduce([masks[name] for name in sided])
            midline_x_mm, note = find_midline(union, grid)
            if note:
                notes.append(note)
        if midline_x_mm is not None:
            left_of_midline = _x_coordinates_mm(grid) > midline_x_mm
    result = np.zeros(grid.size[::-1], np.uint8)
    for name, organ in organs.items():
        mask = masks[name]
        if organ.side is not None and left_of_midline is not None:
            mask = mask & (left_of_midline if organ.side == "left" else ~left_of_midline)
        taken = mask & (result > 0)
        overlap = int(taken.sum())
        if overlap:
            if overlap > 0.001 * int(mask.sum()):
                raise VolumeError(
                    f"{path.name}: {name} shares {overlap} voxels with another organ: every voxel may belong to one organ"
                )
            notes.append(f"{name}: {overlap} voxels shared with another organ were left to that one")
        result[mask & ~taken] = organ_ids[name]
    return LabelMap(image_from_array(result, grid), midline_x_mm, unknown, tuple(notes))


def find_midline(
    mask: np.ndarray, grid: Grid, *, start_zyx: tuple[int, int, int] = (0, 0, 0)
) -> tuple[float | None, str | None]:
    """Find the sagittal plane that parts the left from the right one of paired organs.

    Connected components of at least 5 % of the largest are ordered by the LPS x of their centroids;
    the widest step between neighbours, if over 40 mm, parts right from left, and the plane lies
    midway between those two centroids. Where there is no such step (one organ only, or both grown
    together) the plane is the middle of the grid, and a note says so.

    Parameters
    ----------
    mask : ndarray of bool, (z, y, x)
        Both organs.
    grid : Grid
        The grid of the whole image.
    start_zyx : tuple of int
        Where in the image the mask begins: a part that holds both organs is enough.

    Returns
    -------
    x_mm : float or None
        LPS x of the plane in mm (+ is the person's left); None for an empty mask.
    note : str or None
        What had to be assumed.
    """
    if not mask.any():
        return None, None
    components = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
    statistics = cc3d.statistics(components)
    counts = statistics["voxel_counts"][1:]
    large = np.flatnonzero(counts >= 0.05 * counts.max()) + 1
    centroids_zyx = statistics["centroids"][large] + np.asarray(start_zyx)
    x = np.sort(_index_to_x_mm(grid, centroids_zyx[:, ::-1]))
    steps = np.diff(x)
    if len(steps) and steps.max() > 40.0:
        widest = int(np.argmax(steps))
        return float((x[widest] + x[widest + 1]) / 2), None
    middle = float(_index_to_x_mm(grid, (np.asarray(grid.size)[None] - 1) / 2)[0])
    return (
        middle,
        "only one organ of a pair was found, or both grown together: left and right were told apart by the middle of the image",
    )


@dataclass(frozen=True)
class Levels:
    """Which intensities become black (`low`) and white (`high`), and what NaN counts as (`lowest`)."""

    low: float
    high: float
    lowest: float = 0.0

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return intensities as uint8 of the same shape; all 0 where `low` and `high` agree."""
        if self.high <= self.low:
            return np.zeros(array.shape, np.uint8)
        grey = np.nan_to_num(np.asarray(array, np.float32), nan=self.lowest)
        return np.clip((grey - self.low) * (255.0 / (self.high - self.low)) + 0.5, 0, 255).astype(np.uint8)


# Voxels beyond which percentiles are taken of evenly spaced ones: a copy of every voxel of a long scan
# would be the largest thing in memory.
_SAMPLE = 2**24


def find_levels(
    array: np.ndarray,
    modality: str,
    *,
    center: float = 40.0,
    width: float = 400.0,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> Levels:
    """Find the intensities between which a whole scan is shown.

    CT (Hounsfield units) by a window, soft tissue by default; MR by percentiles of the voxels above the
    background (over 5 % of the 99th percentile).

    Parameters
    ----------
    array : ndarray, any shape
        Intensities. NaN counts as the lowest value. Of more than 16.8 million voxels, percentiles are those
        of every k-th.
    modality : {"CT", "MR"}
    center, width : float
        The CT window in HU.
    percentiles : tuple of float
        For MR.
    """
    sample = array.reshape(-1)[:: -(-array.size // _SAMPLE)]
    finite = np.isfinite(sample) if sample.dtype.kind == "f" else np.ones(sample.shape, bool)
    lowest = float(sample[finite].min()) if finite.any() else 0.0
    if modality == "CT":
        return Levels(center - width / 2, center + width / 2, lowest)
    known = np.where(finite, sample, lowest).astype(np.float32)
    foreground = known[known > 0.05 * np.percentile(known, 99)]
    low, high = np.percentile(foreground if foreground.size else known, percentiles)
    return Levels(float(low), float(high), lowest)


def window_image(array: np.ndarray, modality: str, *, center: float = 40.0, width: float = 400.0) -> np.ndarray:
    """Map the intensities of a whole scan to 0…255 by :func:`find_levels`.

    Returns
    -------
    ndarray of uint8, same shape
    """
    return find_levels(array, modality, center=center, width=width).apply(array)


def _find_labels(image: sitk.Image, name: str) -> tuple[np.ndarray, dict[int, tuple[slice, ...]]]:
    """Return a label map as whole numbers (z, y, x), and the box around each label in it."""
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind == "f":
        if not np.array_equal(array, np.round(array)):
            raise VolumeError(
                f"{name}: a mask must hold whole numbers (organ ids); it holds fractions: give the label map, not an image or a probability map"
            )
        array = array.astype(np.int64)
    if array.dtype.kind == "i" and array.min() < 0:
        raise VolumeError(
            f"{name}: a mask must hold organ ids, 0 for none; it holds {array.min()}: give the label map, not an image"
        )
    if array.max() > LARGEST_LABEL:
        raise VolumeError(
            f"{name}: a mask must hold organ ids up to {LARGEST_LABEL}; it holds {array.max()}: give the label map, not an image"
        )
    boxes = ndimage.find_objects(array.view(f"u{array.dtype.itemsize}"))
    return array, {label: box for label, box in enumerate(boxes, start=1) if box is not None}


def _make_tables(
    organs: Mapping[str, Organ], organ_ids: Mapping[str, int], labels: Collection[int]
) -> dict[str, np.ndarray] | None:
    """Return, for either side of the body, each label's organ id; None where a label is named by two organs of one side."""
    size = max([0, *labels]) + 1
    tables = {side: np.zeros(size, np.uint8) for side in ("left", "right")}
    for name, organ in organs.items():
        for side in tables if organ.side is None else (organ.side,):
            for label in set(organ.labels) & set(labels):
                if tables[side][label]:
                    return None
                tables[side][label] = organ_ids[name]
    return tables


def _relabel(
    array: np.ndarray,
    boxes: Mapping[int, tuple[slice, ...]],
    grid: Grid,
    organs: Mapping[str, Organ],
    tables: Mapping[str, np.ndarray],
    midline_x_mm: float | None,
) -> tuple[np.ndarray, float | None, list[str]]:
    """Return the organ ids of a label map by table, the midline and notes: one pass over the box of the organs."""
    result = np.zeros(array.shape, np.uint8)
    notes: list[str] = []
    box = _join(boxes[label] for label in boxes if tables["left"][label] or tables["right"][label])
    _look_up(tables["left"], array[box], result[box])
    sided = {label for organ in organs.values() if organ.side is not None for label in organ.labels} & set(boxes)
    if sided:
        box = _join(boxes[label] for label in sided)
        table = np.zeros(len(tables["left"]), np.uint8)
        table[sorted(sided)] = 1
        part = np.zeros(array[box].shape, np.uint8)
        if midline_x_mm is None:
            _look_up(table, array[box], part)
            midline_x_mm, note = find_midline(part, grid, start_zyx=tuple(side.start for side in box))
            notes += [note] if note else []
        right = _x_coordinates_mm(grid, box) <= midline_x_mm
        _look_up(tables["right"], array[box], part)
        np.copyto(result[box], part, where=right)
    return result, midline_x_mm, notes


def _look_up(table: np.ndarray, labels: np.ndarray, result: np.ndarray) -> None:
    """Write ``table[labels]`` into `result`, slice by slice: an index as large as the scan would take eight times its memory."""
    for one, into in zip(labels, result, strict=True):
        into[...] = table[one]


def _join(boxes: Iterable[tuple[slice, ...]]) -> tuple[slice, ...]:
    """Return the smallest box around all; an empty one where there is none."""
    sides = list(zip(*boxes, strict=True))
    if not sides:
        return (slice(0, 0),) * 3
    return tuple(slice(min(part.start for part in side), max(part.stop for part in side)) for side in sides)


def _read_folder(path: Path, organs: Mapping[str, Organ]) -> tuple[sitk.Image, dict[str, np.ndarray]]:
    """Return one image for its grid, and a boolean array per organ."""
    found = {
        stem.name[: -len(suffix)]: stem for suffix in reversed(SUFFIXES) for stem in sorted(path.glob(f"*{suffix}"))
    }
    wanted = {name: [found[file] for file in organ.files if file in found] for name, organ in organs.items()}
    first = next((files[0] for files in wanted.values() if files), None)
    if first is None:
        raise VolumeError(f"{path}: the folder holds none of the masks that cohort.organs names")
    image = read_volume(first)
    grid = grid_of_image(image)
    masks = {}
    for name, files in wanted.items():
        mask = np.zeros(grid.size[::-1], bool)
        for file in files:
            part = read_volume(file)
            differences = grid_of_image(part).differences(grid)
            if differences:
                raise VolumeError(f"{file.name}: lies on another grid than {first.name} ({'; '.join(differences)})")
            mask |= sitk.GetArrayViewFromImage(part) > 0
        masks[name] = mask
    return image, masks


def _check_complete(path: Path) -> None:
    """Raise EOFError where a NIfTI file ends before its last voxel.

    ITK's NIfTI reader fills what is missing with zeros and says nothing: half an organ would be lost in
    silence. A gzip file ends with its uncompressed length (RFC 1952), which is compared with the length
    the header asks for; only where the two differ (several members, bytes after the image, or truly a
    cut) is the whole stream read to be sure.
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
    """Return how long a NIfTI-1 or NIfTI-2 file of this header must be, in bytes."""
    for order in "<>":
        size = struct.unpack_from(order + "i", header)[0]
        if size == 348:
            dimensions = struct.unpack_from(order + "8h", header, 40)
            bits, offset = (
                struct.unpack_from(order + "h", header, 72)[0],
                struct.unpack_from(order + "f", header, 108)[0],
            )
        elif size == 540:
            dimensions = struct.unpack_from(order + "8q", header, 16)
            bits, offset = (
                struct.unpack_from(order + "h", header, 14)[0],
                struct.unpack_from(order + "q", header, 168)[0],
            )
        else:
            continue
        return int(offset) + math.prod(dimensions[1 : dimensions[0] + 1]) * bits // 8
    return 0  # not a NIfTI header: the reader has its own say


def _index_to_x_mm(grid: Grid, index_xyz: np.ndarray) -> np.ndarray:
    """Return the LPS x (mm) of points given by continuous index, (n, 3) in (x, y, z) order."""
    return grid.origin[0] + (index_xyz * np.asarray(grid.spacing)) @ np.asarray(grid.direction[:3])


def _x_coordinates_mm(grid: Grid, box: tuple[slice, ...] | None = None) -> np.ndarray:
    """Return the LPS x (mm) of every voxel of a box, by default of all, (z, y, x)."""
    steps = np.asarray(grid.spacing) * np.asarray(grid.direction[:3])
    sides = [(0, count) for count in grid.size] if box is None else [(side.start, side.stop) for side in box[::-1]]
    x, y, z = (np.arange(*side) * step for side, step in zip(sides, steps, strict=True))
    return grid.origin[0] + z[:, None, None] + y[None, :, None] + x[None, None, :]


def _shorten(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in np.round(values, 3)) + ")"


def _disk_is_full(path: Path) -> bool:
    return shutil.disk_usage(path.parent).free < 1 << 20
