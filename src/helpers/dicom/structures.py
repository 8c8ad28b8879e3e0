"""DICOM structure sets: contours of regions, filled on the voxels of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from helpers.dicom.lattice import SAME_VOXELS, Lattice
from helpers.dicom.names import Part
from helpers.errors import VolumeError

_DIGITS = 4  # contours are decimal text: of a voxel, what lies beyond is rounding


class StructureSet:
    """The regions of an RTSTRUCT object.

    A voxel belongs to a region where its centre lies within an odd number of the region's contours
    of that slice: an inner contour is a hole, whether it is one of its own (also of the type
    CLOSEDPLANAR_XOR) or joined to the outer one by a keyhole. A centre upon a contour belongs to
    the side of the higher index, so that regions that share a border share no voxel. Contours
    repeated point by point count once.
    """

    def __init__(self, dataset: Any, path: Path) -> None:
        self._path = path
        self.parts = [
            Part(int(roi.ROINumber), (str(roi.get("ROIName") or ""),))
            for roi in dataset.get("StructureSetROISequence") or []
        ]
        self._contours = {
            int(roi.ReferencedROINumber): list(roi.get("ContourSequence") or [])
            for roi in dataset.get("ROIContourSequence") or []
        }
        self.notes: list[str] = []  # what had to be assumed, in sentences

    def draw(
        self, wanted: Mapping[str, Sequence[Sequence[Part]]], lattice: Lattice | None
    ) -> tuple[dict[str, np.ndarray], Lattice]:
        """Return the masks of organs, bool (z, y, x), and the lattice that was given.

        `wanted` are the regions of each organ, together those of one name, of which there may be
        one alone.

        Raises a VolumeError: there is no lattice, two regions have one name, contours are open,
        oblique to the image, between its slices, beyond it, or on every so-many-th slice alone.
        """
        if lattice is None:
            raise VolumeError(f"{self._path.name}: contours can be filled on an image alone: give the scan's image too")
        masks = {}
        for organ, names in wanted.items():
            mask = np.zeros(lattice.size[::-1], bool)
            for parts in names:
                if len(parts) > 1:
                    raise VolumeError(
                        f"{self._path.name}: several regions are called {parts[0].names[0]!r}: give the number of the "
                        f"one that is {organ} under labels"
                    )
                mask |= self._fill(parts[0].number, lattice, organ)
            masks[organ] = mask
        return masks, lattice

    def _fill(self, number: int, lattice: Lattice, organ: str) -> np.ndarray:
        """Return the voxels of one region."""
        mask = np.zeros(lattice.size[::-1], bool)
        planes: dict[tuple[int, int], list[np.ndarray]] = {}
        for points in self._list_closed(number, organ):
            indices = np.round(lattice.find_indices(points), _DIGITS)
            axis, place = self._find_slice(indices, lattice, organ)
            planes.setdefault((axis, place), []).append(np.delete(indices, axis, axis=1))
        self._check_gaps(sorted(place for _, place in planes), organ)
        for (axis, place), contours in planes.items():
            # Arrays are (z, y, x): what is left of (x, y, z) without the slice's axis is reversed.
            part = np.moveaxis(mask, 2 - axis, 0)[place]
            part ^= fill_contours(contours, part.shape)
        return mask

    def _list_closed(self, number: int, organ: str) -> Iterator[np.ndarray]:
        """Yield the points (n, 3) of a region's closed contours, each once."""
        contours = self._contours.get(number, [])
        closed = [one for one in contours if str(one.get("ContourGeometricType", "")).startswith("CLOSED")]
        if contours and not closed:
            raise VolumeError(
                f"{self._path.name}: the contours of {organ} are points or open lines, which enclose nothing: "
                "name a region with closed contours"
            )
        seen = set()
        for one in closed:
            points = np.array(one.ContourData, float).reshape(-1, 3)
            if len(points) > 2 and points.tobytes() not in seen:
                seen.add(points.tobytes())
                yield points

    def _find_slice(self, indices: np.ndarray, lattice: Lattice, organ: str) -> tuple[int, int]:
        """Return the axis that a contour is flat along, and its place on that axis."""
        axis = int(np.argmin(np.ptp(indices, axis=0)))
        place = float(indices[:, axis].mean())
        if np.ptp(indices[:, axis]) > SAME_VOXELS:
            raise VolumeError(
                f"{self._path.name}: the contours of {organ} are oblique to the image: draw them on its own slices"
            )
        if abs(place - round(place)) > SAME_VOXELS:
            raise VolumeError(
                f"{self._path.name}: contours of {organ} lie between the slices of the image: they were drawn on "
                "another series; give that one, or a mask on the image's voxels"
            )
        if not 0 <= round(place) < lattice.size[axis]:
            raise VolumeError(
                f"{self._path.name}: the contours of {organ} reach beyond the image: it may be of another scan"
            )
        return axis, round(place)

    def _check_gaps(self, places: Sequence[int], organ: str) -> None:
        """Refuse contours on every so-many-th slice; note single slices without any."""
        steps = [after - before for before, after in pairwise(places)]
        if len(steps) > 1 and min(steps) > 1:
            raise VolumeError(
                f"{self._path.name}: {organ} has contours on every {min(steps)}. slice or fewer: have those between "
                "drawn (interpolated) first"
            )
        missing = sum(step - 1 for step in steps)
        if missing:
            self.notes.append(f"{organ}: slices between its contours that have none are empty ({missing})")


def fill_contours(contours: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels whose centres lie within an odd number of closed contours.

    Parameters
    ----------
    contours : sequence of ndarray, (points, 2)
        Index (column, row) of each corner; the last is joined to the first.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    ndarray of bool, (rows, columns)
        Along each row of centres an edge is crossed where one end lies at or above it and the other
        below; from the first centre at or behind the crossing on, a pixel is on the other side.
    """
    crossings = np.zeros((shape[0], shape[1] + 1), np.int32)
    rows = np.arange(shape[0])
    for contour in contours:
        (x, y), (next_x, next_y) = contour.T, np.roll(contour, -1, axis=0).T
        edge, row = np.nonzero((y[:, None] <= rows) != (next_y[:, None] <= rows))
        share = (row - y[edge]) / (next_y[edge] - y[edge])
        place = np.ceil(np.round(x[edge] + share * (next_x[edge] - x[edge]), _DIGITS))
        np.add.at(crossings, (row, np.clip(place, 0, shape[1]).astype(int)), 1)
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
