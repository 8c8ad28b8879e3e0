"""Where voxels lie: grids, their comparison, and the way to the study orientation and back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from helpers.errors import VolumeError

# Two grids are one if no corner of one lies further than this, in voxels, from the other's.
SAME_VOXELS = 0.1
_STUDY_AXES = "LPS"  # where x, y and z run to in the study orientation
_PAIRS = {letter: pair for pair in ("LR", "PA", "SI") for letter in pair}
_TOLD = 1e-4  # a difference is told from this part of a voxel, or of a cosine, on


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie, in SimpleITK's order (x, y, z) and LPS millimetres."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def affine(self) -> np.ndarray:
        """From indices (x, y, z) to LPS mm: float64, (3, 4)."""
        columns = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        return np.column_stack([columns, self.origin])

    def differences(self, other: Grid) -> list[str]:
        """Name what differs from `other`: size, spacing, origin, direction.

        Two grids agree where each of the eight corners of one lies within a tenth of a voxel of the
        other's, along every axis: rounding adds up over many slices, and voxels may be small.
        """
        if self.size != other.size:
            return [f"size {self.size} against {other.size}"]
        apart, apart_mm = measure_shift(self.affine, other.affine, self.size)
        if apart <= SAME_VOXELS:
            return []
        voxel_mm, told = min(*self.spacing, *other.spacing), []
        for name, unit in (("spacing", voxel_mm), ("origin", voxel_mm), ("direction", 1.0)):
            ours, theirs = np.asarray(getattr(self, name)), np.asarray(getattr(other, name))
            if np.abs(ours - theirs).max() > _TOLD * unit:
                told.append(f"{name} {_shorten(ours)} against {_shorten(theirs)}")
        return [*told[:-1], f"{told[-1]}; up to {apart_mm:.3g} mm apart"]


def measure_shift(affine: np.ndarray, other: np.ndarray, size: tuple[int, ...]) -> tuple[float, float]:
    """Measure how far apart the eight corners of two grids of one size lie at most.

    Affines, float64, (3, 4), as :attr:`Grid.affine`; neither singular. Returns the distance in
    voxels of the smaller ones, along any axis, and in mm.
    """
    sides = itertools.product(*((-0.5, length - 0.5) for length in size))
    corners = np.array([(*corner, 1.0) for corner in sides])
    apart_mm = corners @ (affine - other).T
    voxels = max(np.abs(np.linalg.solve(one[:, :3], apart_mm.T)).max() for one in (affine, other))
    return float(voxels), float(np.linalg.norm(apart_mm, axis=1).max())


def fit_grid(affine_lps: np.ndarray, size: tuple[int, ...]) -> Grid:
    """Return the grid at right angles that is closest to an affine, (3, 4), to LPS mm.

    Its axes are the orthogonal part of the affine's polar decomposition, its spacing the length of
    the affine's columns.
    """
    spacing_mm = np.linalg.norm(affine_lps[:, :3], axis=0)
    left, _, right = np.linalg.svd(affine_lps[:, :3] / spacing_mm)
    return Grid(
        size, tuple(spacing_mm.tolist()), tuple(affine_lps[:, 3].tolist()), tuple((left @ right).ravel().tolist())
    )


def check_grid(found: Grid, wanted: Grid, *, what: str = "the image", advice: str = "") -> None:
    """Raise a VolumeError that names what differs where an image lies on another grid."""
    differences = found.differences(wanted)
    if differences:
        message = f"{what} is not on the reference's grid ({'; '.join(differences)})"
        raise VolumeError(f"{message}: {advice}" if advice else message)


def get_grid(image: sitk.Image) -> Grid:
    """Return the grid of an image in memory."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def get_spacing_zyx_mm(image: sitk.Image) -> tuple[float, float, float]:
    """Return the voxel spacing in array order (z, y, x), in mm."""
    x, y, z = image.GetSpacing()
    return z, y, x


def make_image(array: np.ndarray, grid: Grid) -> sitk.Image:
    """Return `array` (z, y, x) as an image on `grid`."""
    if array.shape != grid.size[::-1]:
        raise VolumeError(f"array of shape {array.shape} (z, y, x) does not fit a grid of {grid.size} (x, y, z)")
    return place_image(sitk.GetImageFromArray(array), grid)


def to_axial(image: sitk.Image) -> sitk.Image:
    """Permute and flip axes so that (x, y, z) run to the person's left, posterior and superior.

    Voxels keep their values and places in the world; only their order in memory changes.
    """
    return _turn_image(image, _STUDY_AXES)


def from_axial(image: sitk.Image, grid: Grid) -> sitk.Image:
    """Undo :func:`to_axial`: return `image` in the axis order of `grid`.

    Raises a VolumeError where the two do not cover the same voxels.
    """
    restored = _turn_image(image, _name_axes(grid))
    differences = get_grid(restored).differences(grid)
    if differences:
        raise VolumeError(f"the mask does not fit the scan's grid: {'; '.join(differences)}")
    # Rounding in the direction cosines must not add up over a round trip.
    return place_image(restored, grid)


def orient_grid(grid: Grid) -> Grid:
    """Return the grid on which :func:`to_axial` puts an image that lies on `grid`."""
    return _turn_grid(grid, *_find_turn(grid, _STUDY_AXES))


def _turn_image(image: sitk.Image, towards: str) -> sitk.Image:
    """Turn an image as ITK's DICOMOrient does, to the bit.

    In NumPy, because the threads of ITK's filters cost more than to turn a small image.
    """
    grid = get_grid(image)
    axes, flipped = _find_turn(grid, towards)
    voxels = sitk.GetArrayViewFromImage(image).transpose([2 - axis for axis in reversed(axes)])
    voxels = voxels[tuple(slice(None, None, -1 if flip else 1) for flip in reversed(flipped))]
    return place_image(sitk.GetImageFromArray(np.ascontiguousarray(voxels)), _turn_grid(grid, axes, flipped))


def _find_turn(grid: Grid, towards: str) -> tuple[list[int], list[bool]]:
    """Return which axis of a grid each of the wanted ones is, and whether it runs the other way."""
    code = _name_axes(grid)
    axes = [next(axis for axis, letter in enumerate(code) if letter in _PAIRS[wanted]) for wanted in towards]
    return axes, [code[axis] != wanted for axis, wanted in zip(axes, towards, strict=True)]


def _turn_grid(grid: Grid, axes: list[int], flipped: list[bool]) -> Grid:
    size, spacing = [grid.size[axis] for axis in axes], [grid.spacing[axis] for axis in axes]
    columns = np.reshape(grid.direction, (3, 3))[:, axes]
    origin = np.asarray(grid.origin)
    for place in np.flatnonzero(flipped):  # such an axis begins at its former end
        origin = origin + columns[:, place] * spacing[place] * (size[place] - 1)
    directions = columns * np.where(flipped, -1.0, 1.0) + 0.0  # no -0
    return Grid(tuple(size), tuple(spacing), tuple(origin.tolist()), tuple(directions.ravel().tolist()))


def _name_axes(grid: Grid) -> str:
    """Return where the axes (x, y, z) of a grid run to, as three letters such as "LPS"."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)


def place_image(image: sitk.Image, grid: Grid) -> sitk.Image:
    """Put an image in memory on a grid of its size, and return it."""
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def _shorten(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in np.round(values, 6)) + ")"
