"""Many series and masks in one tree of folders: which mask is of which series, and their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from helpers.dicom.headers import SEGMENTATION, STRUCTURES, DicomHeader, list_files, read_headers
from helpers.errors import SegfairError
from helpers.study import find_mask

_DIGITS = 12  # of a hash: two of a million names are alike once in five hundred times


def name_series(series_uid: str) -> str:
    """Return the name of a scan: the same in every run, and nothing of a person or a date."""
    return hash_name("s", series_uid)


def hash_name(letter: str, *parts: str) -> str:
    """Return a letter and the hash of what is not to be read."""
    return letter + hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:_DIGITS]


def choose_masks(headers: Iterable[DicomHeader], pattern: str | None) -> list[DicomHeader]:
    """Return the segmentations and structure sets, each once, whose series is described so.

    `pattern` may hold ``*`` for any text; capitals make no difference.
    """
    masks = {one.instance: one for one in headers if one.kind in (SEGMENTATION, STRUCTURES)}
    wanted = (pattern or "*").casefold()
    return [one for one in masks.values() if fnmatchcase(one.description.casefold(), wanted)]


def match_masks(
    masks: Sequence[DicomHeader], images: Mapping[str, Sequence[DicomHeader]]
) -> tuple[dict[str, list[DicomHeader]], list[DicomHeader]]:
    """Find the series that each mask was drawn on.

    A mask that names none belongs to the only series in its frame of reference.

    Returns the masks of each series, and those whose series is not there, or not said.
    """
    frames: dict[str, list[str]] = {}
    for series, slices in images.items():
        frames.setdefault(slices[0].frame_of_reference, []).append(series)
    matched: dict[str, list[DicomHeader]] = {}
    unmatched = []
    for mask in masks:
        alike = frames.get(mask.frame_of_reference, []) if mask.frame_of_reference else []
        found = [series for series in mask.refers if series in images] if mask.refers else alike
        if len(found) == 1:
            matched.setdefault(found[0], []).append(mask)
        else:
            unmatched.append(mask)
    return matched, unmatched


def find_scan_mask(template: str, scan: str, subject: str, pattern: str | None = None) -> Path:
    """Return a scan's ready-made mask: by the names in a path, or by the series in a folder.

    `template` is as of :func:`helpers.study.find_mask`; without a name in it, the folder of a
    model's DICOM masks, which are those of the scan's series. `pattern` describes the series of the
    masks that are meant (:func:`choose_masks`).

    Raises a SegfairError: there is none, or there are several.
    """
    path = find_mask(template, scan, subject)
    if names_scans(template):
        return path
    found = _index_masks(path, path.stat().st_mtime_ns, pattern).get(scan, ())
    if not found:
        raise SegfairError("the model's folder holds no DICOM mask that was drawn on this scan's series")
    if len(found) > 1:
        raise SegfairError(
            f"the model's folder holds {len(found)} DICOM masks of this scan's series: choose one by mask_series"
        )
    return found[0]


def names_scans(template: str) -> bool:
    """Return whether a model's path holds {scan} or {subject}."""
    return template.format(scan="a", subject="a") != template.format(scan="b", subject="b")


@lru_cache(maxsize=32)
def _index_masks(folder: Path, _changed: int, pattern: str | None) -> dict[str, tuple[Path, ...]]:
    """Return the masks below a folder by the name of the scan that they were drawn on."""
    index: dict[str, tuple[Path, ...]] = {}
    for mask in choose_masks(read_headers(list_files(folder))[0], pattern):
        for series in mask.refers:
            name = name_series(series)
            index[name] = (*index.get(name, ()), mask.path)
    return index
