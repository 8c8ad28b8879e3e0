"""Where voxels lie: grids, their comparison, and the way to the study orientation and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from helpers.errors import VolumeError

# mm, mm and differences of cosines.
_TOLERANCES = {"spacing": 0.01, "origin": 0.01, "direction": 1e-3}


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
        if self.size != other.size:
            return [f"size {self.size} against {other.size}"]
        found = []
        for name, tolerance in _TOLERANCES.items():
            ours, theirs = np.asarray(getattr(self, name)), np.asarray(getattr(other, name))
            if not np.all(np.abs(ours - theirs) <= tolerance):
                found.append(f"{name} {_shorten(ours)} against {_shorten(theirs)}")
        return found


def check_grid(found: Grid, wanted: Grid, *, what: str = "the image", advice: str = "") -> None:
    """Raise a VolumeError that names what differs where an image lies on another grid."""
    differences = found.differences(wanted)
    if differences:
        message = f"{what} lies on another grid than the reference ({'; '.join(differences)})"
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
    return _place(sitk.GetImageFromArray(array), grid)


def to_axial(image: sitk.Image) -> sitk.Image:
    """Permute and flip axes so that (x, y, z) run to the person's left, posterior and superior.

    Voxels keep their values and places in the world; only their order in memory changes.
    """
    return sitk.DICOMOrient(image, "LPS")


def from_axial(image: sitk.Image, grid: Grid) -> sitk.Image:
    """Undo :func:`to_axial`: return `image` in the axis order of `grid`.

    Raises a VolumeError where the two do not cover the same voxels.
    """
    restored = sitk.DICOMOrient(image, _name_axes(grid))
    differences = get_grid(restored).differences(grid)
    if differences:
        raise VolumeError(f"the mask does not fit the scan's grid: {'; '.join(differences)}")
    # Rounding in the direction cosines must not add up over a round trip.
    return _place(restored, grid)


def orient_grid(grid: Grid) -> Grid:
    """Return the grid on which :func:`to_axial` puts an image that lies on `grid`."""
    code = _name_axes(grid)
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


def _name_axes(grid: Grid) -> str:
    """Return where the axes (x, y, z) of a grid run to, as three letters such as "LPS"."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)


def _place(image: sitk.Image, grid: Grid) -> sitk.Image:
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def _shorten(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in np.round(values, 3)) + ")"
