"""DICOM segmentations: the masks of their segments, painted on the voxels of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from helpers.dicom.frames import decode, find_value, is_compressed, list_groups
from helpers.dicom.lattice import Lattice, paint, place_plane
from helpers.dicom.names import Part, describe_segment
from helpers.errors import VolumeError

_DIRECTION = 1e-3


class Segmentation:
    """A segmentation object: binary, fractional or a label map; its frames in any order.

    Parameters
    ----------
    dataset : pydicom.Dataset
        The whole file.
    path : Path
        For messages.
    halve : bool
        Whether fractions are cut at one half (from there on it is the organ), not refused.

    Raises
    ------
    VolumeError
        Its frames do not say where they lie.
    """

    def __init__(self, dataset: Any, path: Path, *, halve: bool) -> None:
        self._dataset, self._path, self._halve = dataset, path, halve
        self.parts = [describe_segment(segment) for segment in dataset.get("SegmentSequence") or []]
        self._type = str(dataset.get("SegmentationType", ""))
        self._shape = (int(dataset.Rows), int(dataset.Columns))
        groups = list_groups(dataset)
        try:
            self._positions = _gather(groups, "PlanePositionSequence", "ImagePositionPatient")
            self._turns = _gather(groups, "PlaneOrientationSequence", "ImageOrientationPatient")
            self._spacings = _gather(groups, "PixelMeasuresSequence", "PixelSpacing")
            self._numbers = [
                0 if self._type == "LABELMAP" else int(find_value(one, *_IDENTIFICATION)) for one in groups
            ]
        except LookupError as error:
            raise VolumeError(
                f"{path.name}: the frames of the DICOM segmentation do not say where they lie, or of which segment "
                f"they are ({error.args[0]} is missing): have it written again"
            ) from error
        self._distances_mm = _list_distances(groups)

    def find_lattice(self) -> Lattice | None:
        """Return the lattice of all its frames, in their own order of axes; None where it has none.

        The distance of slices is the one that it states, else the smallest between two frames.
        """
        if not len(self._positions) or max(map(np.ptp, (*self._turns.T, *self._spacings.T))) > _DIRECTION:
            return None
        row, column = self._turns[0][:3], self._turns[0][3:]
        normal = np.cross(row, column)
        along = self._positions @ normal
        steps = np.diff(np.unique(np.round(along, 3)))
        stated = self._distances_mm if len(self._distances_mm) == 1 else set()
        if not stated and not len(steps):
            return None
        distance_mm = float(next(iter(stated), steps.min() if len(steps) else 0.0))
        first = self._positions[np.argmin(along)]
        columns = np.column_stack([row * self._spacings[0][1], column * self._spacings[0][0], normal * distance_mm])
        count = int(np.round(np.ptp(along) / distance_mm)) + 1
        lattice = Lattice(np.column_stack([columns, first]), (*self._shape[::-1], count))
        return lattice if self.fits(lattice) else None

    def fits(self, lattice: Lattice) -> bool:
        """Return whether the pixels of all frames are voxels of a lattice."""
        return all(plane is not None for plane in self._place(lattice))

    def draw(self, wanted: Mapping[str, Sequence[Sequence[Part]]], lattice: Lattice) -> dict[str, np.ndarray]:
        """Return the masks of organs, bool (z, y, x); segments of one name may not overlap.

        `wanted` are the segments of each organ, together those of one name.

        Raises
        ------
        VolumeError
            The pixels cannot be decoded or are fractions, they lie beyond the image, or two
            segments of one name overlap.
        """
        planes = self._place(lattice)
        masks = {}
        for organ, names in wanted.items():
            mask = np.zeros(lattice.size[::-1], bool)
            for parts in names:
                mask |= self._draw_name(parts, planes, mask.shape, organ)
            masks[organ] = mask
        return masks

    def _draw_name(self, parts: Sequence[Part], planes: Sequence[Any], shape: tuple[int, ...], organ: str) -> Any:
        """Return the union of the segments of one name."""
        mask = np.zeros(shape, bool)
        for part in parts:
            own = np.zeros(shape, bool) if len(parts) > 1 else mask
            for frame, pixels in self._read(part.number):
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

    def _place(self, lattice: Lattice) -> list[Any]:
        places = zip(self._positions, self._turns, self._spacings, strict=True)
        return [place_plane(lattice, *place, self._shape) for place in places]

    def _read(self, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the frames that may hold a segment, and where they do: bool (rows, columns)."""
        chosen = [frame for frame, one in enumerate(self._numbers) if one in (number, 0)]
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
            if count * len(self._numbers) > 8 * len(data):
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
        return decode(self._dataset, self._path, range(len(self._numbers)))

    def _cut(self, pixels: np.ndarray) -> np.ndarray:
        largest = int(self._dataset.get("MaximumFractionalValue") or 255)
        if not self._halve and ((pixels > 0) & (pixels < largest)).any():
            raise VolumeError(
                f"{self._path.name}: the DICOM segmentation holds fractions (FRACTIONAL): have them cut at one half by "
                "`fractions: half`, or give a binary one"
            )
        return 2 * pixels.astype(np.int32) >= largest


_IDENTIFICATION = ("SegmentIdentificationSequence", "ReferencedSegmentNumber")


def _gather(groups: Sequence[Any], sequence: str, name: str) -> np.ndarray:
    return np.array([find_value(one, sequence, name) for one in groups], float)


def _list_distances(groups: Sequence[Any]) -> set[float]:
    """Return the distances of slices that frames state; of a single frame its thickness may do."""
    found = set()
    for group in groups:
        for name in ("SpacingBetweenSlices", *(("SliceThickness",) if len(groups) == 1 else ())):
            with suppress(LookupError):
                found.add(float(find_value(group, "PixelMeasuresSequence", name)))
                break
    return found - {0.0}
