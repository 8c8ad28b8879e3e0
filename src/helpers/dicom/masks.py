"""A DICOM mask of a scan, segmentation or structure set → one mask for each organ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.dicom.headers import SEGMENTATION, STRUCTURES, read_dataset, read_header, refuse_broken
from helpers.dicom.lattice import Lattice
from helpers.dicom.names import find_parts
from helpers.dicom.segments import DicomSegmentation
from helpers.dicom.series import Series
from helpers.dicom.structures import StructureSet
from helpers.errors import VolumeError

_TOLD = 12  # names told where none is the one asked for


@dataclass(frozen=True)
class OrganMasks:
    """What a DICOM mask holds of a study's organs."""

    masks: dict[str, np.ndarray]  # of each organ, bool (z, y, x)
    lattice: Lattice  # the image's, or the mask's own where it is another
    missing: tuple[str, ...]  # organs of which it has no part
    notes: tuple[str, ...]  # what had to be assumed, in sentences


def is_mask(path: Path) -> bool:
    """Return whether a file is a DICOM segmentation or structure set."""
    header = read_header(path)
    return header is not None and header.kind in (SEGMENTATION, STRUCTURES)


def read_masks(
    path: Path,
    labels: Mapping[str, Sequence[int | str]],
    *,
    lattice: Lattice | None,
    series: Series | None,
    halve: bool,
) -> OrganMasks:
    """Read the masks of organs from a DICOM segmentation or structure set.

    Raises a VolumeError: the file cannot be read or decoded, is of another series, or has none of
    the organs; or as :class:`~helpers.dicom.segments.DicomSegmentation` and
    :class:`~helpers.dicom.structures.StructureSet` say.

    Parameters
    ----------
    path : Path
        The file.
    labels : mapping of str to sequence of int or str
        The parts of each organ (:func:`helpers.dicom.names.find_parts`), which are united.
    lattice : Lattice, optional
        The voxels of its image. A segmentation without it, or on others, comes on its own.
    series : Series, optional
        The scan's image where that is DICOM too: the mask must refer to it.
    halve : bool
        Whether fractions are cut at one half, rather than refused.
    """
    header = read_header(path)
    if header is None or header.kind not in (SEGMENTATION, STRUCTURES):
        raise VolumeError(f"{path.name}: is no DICOM segmentation or structure set: give one of these, or NIfTI")
    if series is not None:
        _check_series(path, header.refers, header.frame_of_reference, series)
    for organ, given in labels.items():
        if not given:
            raise VolumeError(
                f"{path.name}: nothing says which of its parts is {organ}: name them under "
                f"cohort.organs.{organ}.labels, by name, code or number"
            )
    with refuse_broken(path):
        return _draw(path, header.kind, labels, lattice, halve=halve)


def _draw(
    path: Path, kind: str, labels: Mapping[str, Sequence[int | str]], lattice: Lattice | None, *, halve: bool
) -> OrganMasks:
    """Return the masks of organs of a file that is known to be a mask of the scan."""
    dataset = read_dataset(path)
    source = DicomSegmentation(dataset, path, halve=halve) if kind == SEGMENTATION else StructureSet(dataset, path)
    wanted = {
        organ: [parts for label in given if (parts := find_parts(label, source.parts))]
        for organ, given in labels.items()
    }
    missing = tuple(organ for organ, names in wanted.items() if not names)
    if len(missing) == len(wanted):
        has = [part.names[0] if part.names else str(part.number) for part in source.parts]
        told = ", ".join(has[:_TOLD]) + (", …" if len(has) > _TOLD else "")
        raise VolumeError(f"{path.name}: the DICOM mask has none of the study's organs; it has {told or 'no part'}")
    masks, lattice = source.draw(wanted, lattice)
    return OrganMasks(masks, lattice, missing, tuple(source.notes))


def _check_series(path: Path, refers: Sequence[str], frame_of_reference: str, series: Series) -> None:
    """Check that a mask was drawn on a series, as far as it says."""
    if refers and series.uid not in refers:
        raise VolumeError(
            f"{path.name}: the DICOM mask was drawn on another series than the scan's image: give that one's, "
            "or the image that it was drawn on"
        )
    if frame_of_reference and series.frame_of_reference and frame_of_reference != series.frame_of_reference:
        raise VolumeError(
            f"{path.name}: the DICOM mask lies in another frame of reference than the scan's image: "
            "give the image that it was drawn on"
        )
