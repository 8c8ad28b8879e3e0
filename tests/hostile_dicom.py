"""Trees of DICOM files that are damaged, absurd or meant to harm, drawn from a seed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from tests.dicom_files import (
    SHAPE,
    SPACING,
    SPLEEN,
    describe_segment,
    make_enhanced,
    make_person,
    make_segmentation,
    make_series,
    make_structures,
)
from tests.hostile_inputs import TEXTS

LABELS = np.zeros(SHAPE, np.uint8)
LABELS[1:4, 1:5, 1:4], LABELS[2:5, 5:8, 1:3] = 1, 2
SEGMENTS = [describe_segment(1, "Liver"), describe_segment(2, "Spleen", SPLEEN)]
VALUES = [
    b"", b"0 ", b"-1", b"9" * 600, b"nan ", b"1e400 ", b"-inf", b"1\\2\\3\\4\\5\\6\\7", b"\\\\\\", b"\0\0", b"\xff\xff",
    b"\xff\xff\xff\xff", b"\0" * 8, b"\xff" * 8, b"\x00\x80", b"1.2.840.10008.1.2.4.90 ", b"1.2.3.4 ",
    b"1.2.840.10008.1.2.5 ", b"LIVER ", b"MONOCHROME1 ", b"PALETTE COLOR ", b"RGB ", b"ISO_IR 192",
    b"ISO 2022 IR 87 ", b"000Y", b"999D", b"\x1b$B\xff\xff",
    *(text.encode("utf-8", "surrogatepass")[:60_000] for text in TEXTS),
]  # fmt: skip
_DRAWN = "1.2.826.0.1.3680043"  # how the UIDs begin that pydicom and highdicom draw
_WRITTEN = {
    "ContentDate": "20240105", "ContentTime": "101500", "ContributionDateTime": "20240105101500",
    "InstanceCreationDate": "20240105", "InstanceCreationTime": "101500",
}  # fmt: skip
Files = dict[str, bytes]  # of one person: path below the tree, bytes


def draw_person(rng: np.random.Generator, number: int) -> Files:
    """Return one good person: a CT or MR with masks of liver and spleen, and a model's masks."""
    person = make_person(number, PatientSex="FM"[number % 2], PatientAge=f"{30 + number % 50:03}Y")
    stored = np.where(LABELS > 0, 1064 + rng.integers(0, 50, SHAPE), 24).astype(np.uint16)
    kind = int(rng.integers(4))
    modality = "CT" if kind < 3 else "MR"
    scan = make_series(stored, person, modality=modality) if kind else [make_enhanced(stored, person)]
    objects = {f"tree/p{number}/{place}.dcm": one for place, one in enumerate(scan)}
    for name in ("tree", "ours"):
        if name == "tree" and kind == 1:
            objects[f"{name}/p{number}/rt.dcm"] = make_structures(scan, _outline(scan))
        else:
            objects[f"{name}/p{number}/seg.dcm"] = make_segmentation(scan, LABELS, SEGMENTS)
    _forget_chance(objects.values(), number)
    return {name: _pack(one) for name, one in objects.items()}


def _forget_chance(objects: Iterable[Dataset], number: int) -> None:
    """Give a person's UIDs and times of writing values that the next draw of a seed has too."""
    uids: dict[str, str] = {}

    def forget(_: Dataset, element: DataElement) -> None:
        if element.VR == "UI" and str(element.value).startswith(_DRAWN):
            element.value = uids.setdefault(element.value, f"2.25.{number}.{len(uids)}")
        elif element.keyword in _WRITTEN:
            element.value = _WRITTEN[element.keyword]

    for one in objects:
        one.walk(forget)
        one.file_meta.walk(forget)


def _outline(scan: list[Dataset]) -> dict[str, list[np.ndarray]]:
    origin, (_, row_mm, column_mm) = np.array(scan[0].ImagePositionPatient, float), SPACING
    square = np.array([(0, 0), (3, 0), (3, 4), (0, 4)]) * (column_mm, row_mm)
    return {
        name: [np.c_[origin[:2] + start + square, np.full(4, origin[2] + place * SPACING[0])] for place in (1, 2, 3)]
        for name, start in (("Liver", (0.8, 0.9)), ("Spleen", (2.4, 0.9)))
    }


def _pack(one: Dataset) -> bytes:
    stream = io.BytesIO()
    one.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def draw_people(rng: np.random.Generator) -> Iterator[Files]:
    """Yield people, for ever, of whom one to three files are not as they should be."""
    number = 0
    while True:
        files = draw_person(rng, number)
        for _ in range(rng.integers(1, 4)):
            name = str(rng.choice(sorted(files)))
            kind, data = int(rng.integers(9)), files[name]
            if kind <= 2:
                files[name] = _flip(data, rng)
            elif kind == 3:
                files[name] = data[: int(rng.integers(len(data) + 1))]
            elif kind <= 6:
                files[name] = _change_element(data, rng)
            elif kind == 7:
                others = (b"", b"name,age\n", rng.bytes(3000), b"\0" * 128 + b"DICM", b"\x1f\x8b" + data)
                files[name] = others[rng.integers(5)]
            elif rng.random() < 0.5 and len(files) > 2:
                del files[name]
            else:
                files[name.replace(".dcm", " copy.dcm")] = data
        yield files
        number += 1


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    end = min(len(data), int(rng.choice([400, 1500, len(data)])))
    for place in rng.integers(min(128, end - 1) if end else 0, max(end, 1), rng.integers(1, 9)) if data else ():
        changed[place] = rng.integers(256)
    return bytes(changed)


def _change_element(data: bytes, rng: np.random.Generator) -> bytes:
    """Give one element, at any depth, other bytes, or take it out; return `data` where it is no
    longer DICOM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            one = pydicom.dcmread(io.BytesIO(data), force=True)
            places = list(_list_elements(one))
            holder, tag = places[rng.integers(len(places))]
            if rng.random() < 0.2:
                del holder[tag]
            else:
                value = VALUES[rng.integers(len(VALUES))]
                value += b" " * (len(value) % 2)
                holder._dict[tag] = RawDataElement(
                    tag, holder.get_item(tag).VR, len(value), value, 0, False, True, True
                )
            return _pack(one)
        except Exception:  # what was changed before is no longer written: let it be
            return data


def _list_elements(one: Dataset) -> Iterator[tuple[Dataset, pydicom.tag.BaseTag]]:
    for tag in list(one.keys()):
        yield one, tag
        if one[tag].VR == "SQ":
            for item in one[tag].value:
                yield from _list_elements(item)


def write(folder: Path, files: Files) -> None:
    """Write a person's files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
