"""The parts of a DICOM mask (segments, regions) by number, name or code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.sr.coding import Code

_CODE = re.compile(r"([\w.-]+):([\w.-]+)")


@dataclass(frozen=True)
class Part:
    """One segment of a segmentation, or one region of a structure set."""

    number: int
    names: tuple[str, ...]  # its label, then its description, then what its codes mean
    kind: Code | None = None  # what it is
    modifiers: tuple[Code, ...] = ()  # its side, and the region of the body that it lies in


def describe_segment(segment: Any) -> Part:
    """Return an item of the SegmentSequence as a part."""
    kinds = list(_list_codes(segment, "SegmentedPropertyTypeCodeSequence"))
    sides = [
        code
        for item in segment.get("SegmentedPropertyTypeCodeSequence") or []
        for code in _list_codes(item, "SegmentedPropertyTypeModifierCodeSequence")
    ] + list(_list_codes(segment, "SegmentedPropertyTypeModifierCodeSequence"))
    regions = [
        code
        for item in segment.get("AnatomicRegionSequence") or []
        for code in (*_list_codes([item]), *_list_codes(item, "AnatomicRegionModifierSequence"))
    ]
    meaning = " ".join(code.meaning for code in (*kinds, *sides))
    label, description = (str(segment.get(name) or "") for name in ("SegmentLabel", "SegmentDescription"))
    return Part(
        int(segment.SegmentNumber),
        tuple(filter(None, (label, description, meaning))),
        kinds[0] if kinds else None,
        (*sides, *regions),
    )


def find_parts(label: int | str, parts: Sequence[Part]) -> list[Part]:
    """Return the parts that a label of an organ means.

    A number is that of the part. ``SCHEME:VALUE`` is the code of what it is, further codes after
    ``+`` those of its side or place (``SCT:64033007+SCT:7771000``, a left kidney); retired codes of
    SNOMED count as the present ones. Anything else is a name: of the labels, else of the
    descriptions, else of what the codes mean. Capitals, punctuation and the order of words make no
    difference ("kidney_left" is "Left kidney").
    """
    if isinstance(label, int):
        return [part for part in parts if part.number == label]
    codes = [_CODE.fullmatch(text.strip()) for text in label.split("+")]
    if all(codes):
        kind, *others = [Code(found.group(2), found.group(1).upper(), "") for found in codes if found]
        return [part for part in parts if part.kind == kind and all(one in part.modifiers for one in others)]
    for rank in range(3):
        found = [part for part in parts if len(part.names) > rank and _split(part.names[rank]) == _split(label)]
        if found:
            return found
    return []


def _split(name: str) -> list[str]:
    return sorted(re.findall(r"[^\W_]+", name.casefold()))


def _list_codes(item: Any, sequence: str = "") -> Iterator[Code]:
    for code in (item.get(sequence) or []) if sequence else item:
        value = code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue")
        if value:
            yield Code(str(value), str(code.get("CodingSchemeDesignator", "")), str(code.get("CodeMeaning", "")))
