"""DICOM segmentations: the masks of their segments, painted on the voxels of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from helpers.dicom.frames import decode, find_value, is_compressed, list_groups
from helpers.dicom.lattice import Lattice, Plane, paint, place_plane
from helpers.dicom.names import Part, describe_segment
from helpers.errors import VolumeError

_DIRECTION = 1e-3
# Where a frame says that it lies: its first pixel's centre, the cosines of a row and of a column,
# the distances of rows and of columns.
_PLACE = (
    ("PlanePositionSequence", "ImagePositionPatient"),
    ("PlaneOrientationSequence", "ImageOrientationPatient"),
    ("PixelMeasuresSequence", "PixelSpacing"),
)


class DicomSegmentation:
    """A segmentation object: binary, fractional or a label map; its frames in any order.

    With `halve` fractions are cut at one half (from there on it is the organ), not refused.
    """

    def __init__(self, dataset: Any, path: Path, *, halve: bool) -> None:
        self._dataset, self._path, self._halve = dataset, path, halve
        self.parts = [describe_segment(segment) for segment in dataset.get("SegmentSequence") or []]
        self.notes: list[str] = []
        self._type = str(dataset.get("SegmentationType", ""))
        self._shape = (int(dataset.Rows), int(dataset.Columns))
        self._groups = list_groups(dataset)

    def draw(
        self, wanted: Mapping[str, Sequence[Sequence[Part]]], lattice: Lattice | None
    ) -> tuple[dict[str, np.ndarray], Lattice]:
        """Return the masks of organs, bool (z, y, x), and the lattice that they lie on.

        It is the one given, or where that is None or the frames are not on it, the one that the
        frames make. `wanted` are the segments of each organ, together those of one name, which may
        not overlap.

        Raises a VolumeError: the frames do not say where they lie, or make no even stack of their
        own; their pixels cannot be decoded or are fractions; they lie beyond the image; or two
        segments of one name overlap.
        """
        numbers = {part.number for names in wanted.values() for parts in names for part in parts}
        try:
            frames = {frame: one for frame, one in enumerate(self._find_numbers()) if one in numbers or one == 0}
            planes = None if lattice is None else self._place(frames, lattice)
            if lattice is None or planes is None:
                lattice = self._find_lattice()
                planes = self._place(frames, lattice)
        except LookupError as error:
            raise VolumeError(
                f"{self._path.name}: the frames of the DICOM segmentation do not say where they lie, or of which "
                f"segment they are ({error.args[0]} is missing): have it written again"
            ) from error
        if planes is None:
            raise self._blame_stack()
        masks = {}
        for organ, names in wanted.items():
            mask = np.zeros(lattice.size[::-1], bool)
            for parts in names:
                mask |= self._draw_name(parts, frames, planes, mask.shape, organ)
            masks[organ] = mask
        return masks, lattice

    def _find_numbers(self) -> list[int]:
        """Return the segment of each frame, 0 for that of a label map."""
        if self._type == "LABELMAP":
            return [0] * len(self._groups)
        place = ("SegmentIdentificationSequence", "ReferencedSegmentNumber")
        return [int(find_value(one, *place)) for one in self._groups]

    def _place(self, frames: Mapping[int, int], lattice: Lattice) -> dict[int, Plane] | None:
        """Return where frames lie on a lattice; None where one of them does not."""
        planes = {}
        for frame in frames:
            position, turn, spacing = (_find_numbers(self._groups[frame], *one) for one in _PLACE)
            plane = place_plane(lattice, position, turn, spacing, self._shape)
            if plane is None:
                return None
            planes[frame] = plane
        return planes

    def _find_lattice(self) -> Lattice:
        """Return the lattice of all frames, in their own order of axes.

        The distance of slices is the one that they state, else the smallest between two of them.
        """
        if not self._groups:
            raise self._blame_stack()
        positions, turns, spacings = (
            np.array([_find_numbers(one, *place) for one in self._groups]) for place in _PLACE
        )
        row, column = turns[0][:3], turns[0][3:]
        normal = np.cross(row, column)
        along = positions @ normal
        steps = np.diff(np.unique(np.round(along, 3)))
        stated = _list_distances(self._groups)
        if max(map(np.ptp, (*turns.T, *spacings.T))) > _DIRECTION or not (len(steps) or len(stated) == 1):
            raise self._blame_stack()
        distance_mm = stated.pop() if len(stated) == 1 else float(steps.min())
        columns = np.column_stack([row * spacings[0][1], column * spacings[0][0], normal * distance_mm])
        count = round(float(np.ptp(along)) / distance_mm) + 1
        first = positions[np.argmin(along)]
        return Lattice(np.column_stack([columns, first]), (*self._shape[::-1], count))

    def _blame_stack(self) -> VolumeError:
        return VolumeError(
            f"{self._path.name}: the frames of the DICOM segmentation are not voxels of the scan's image, nor of one "
            "even stack: have it written again on the image's slices"
        )

    def _draw_name(
        self,
        parts: Sequence[Part],
        frames: Mapping[int, int],
        planes: Mapping[int, Plane],
        shape: tuple[int, ...],
        organ: str,
    ) -> np.ndarray:
        """Return the union of the segments of one name."""
        mask = np.zeros(shape, bool)
        for part in parts:
            own = np.zeros(shape, bool) if len(parts) > 1 else mask
            chosen = [frame for frame, number in frames.items() if number in (part.number, 0)]
            for frame, pixels in self._read(part.number, chosen):
                if not paint(own, pixels, planes[frame]):
                    raise VolumeError(
                        f"{self._path.name}: the segment of {organ} reaches beyond the image: it may be of another scan"
                    )
            if len(parts) > 1 and (own & mask).any():
                raise VolumeError(
                    f"{self._path.name}: several overlapping segments are called {part.names[0]!r}: give the number of "
                    f"the one that is {organ} under labels"
                )
            mask |= own
        return mask

    def _read(self, number: int, chosen: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the frames that may hold a segment, and where they do: bool (rows, columns)."""
        for frame, pixels in zip(chosen, self._decode(chosen), strict=True):
            if self._type == "LABELMAP":
                yield frame, pixels == number
            elif self._type == "FRACTIONAL":
                yield frame, self._cut(pixels)
            else:
                yield frame, pixels > 0

    def _decode(self, chosen: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield stored frames; single bits are taken from where they lie, for few may be wanted."""
        if self._type == "LABELMAP":
            yield from self._stored
        elif int(self._dataset.BitsAllocated) > 1 or is_compressed(self._dataset):
            yield from decode(self._dataset, self._path, chosen)
        else:
            count, data = self._shape[0] * self._shape[1], np.frombuffer(self._dataset.PixelData, np.uint8)
            if count * len(self._groups) > 8 * len(data):
                raise VolumeError(
                    f"{self._path.name}: the DICOM segmentation ends before its last frame: "
                    "copy it again from its source"
                )
            for begin in (frame * count for frame in chosen):
                bits = np.unpackbits(data[begin // 8 : -(-(begin + count) // 8)], bitorder="little")
                yield bits[begin % 8 : begin % 8 + count].reshape(self._shape)

    @cached_property
    def _stored(self) -> np.ndarray:
        """All frames of a label map, which is wanted once for each organ."""
        return decode(self._dataset, self._path, range(len(self._groups)))

    def _cut(self, pixels: np.ndarray) -> np.ndarray:
        largest = int(self._dataset.get("MaximumFractionalValue") or 255)
        if not self._halve and ((pixels > 0) & (pixels < largest)).any():
            raise VolumeError(
                f"{self._path.name}: the DICOM segmentation holds fractions (FRACTIONAL): have them cut at one half by "
                "`fractions: half`, or give a binary one"
            )
        return 2 * pixels.astype(np.int32) >= largest


def _find_numbers(group: Any, sequence: str, name: str) -> np.ndarray:
    return np.array(find_value(group, sequence, name), float)


def _list_distances(groups: Sequence[Any]) -> set[float]:
    """Return the distances of slices that frames state; of a single frame its thickness may do."""
    found = set()
    for group in groups:
        for name in ("SpacingBetweenSlices", *(("SliceThickness",) if len(groups) == 1 else ())):
            with suppress(LookupError):
                found.add(float(find_value(group, "PixelMeasuresSequence", name)))
                break
    return found - {0.0}
