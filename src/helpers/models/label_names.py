"""A model's own labels: which of them are the study's organs, by id or by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from helpers.errors import SegfairError
from helpers.parameters import Organ
from helpers.vocabulary.words import list_words

# Ids by a label's name; a region of several labels has several.
Labels = Mapping[str, Sequence[int]]

Side = Literal["left", "right"]
_SIDES: frozenset[Side] = frozenset({"left", "right"})
# What the names of an organ's parts have beside the organ's own: kidney_left, lung_upper_lobe_left.
_PARTS = _SIDES | {"upper", "middle", "lower", "lobe"}


def match_organs(organs: Iterable[str], labels: Labels) -> dict[str, Organ]:
    """Find a study's organs among a model's labels by name; those it lacks are left out.

    Names are the same whatever their case, the order of their words and a plural's "s". An organ
    without a label of its own is made of its parts (``kidney`` of ``kidney_left`` and
    ``kidney_right``, ``lung_left`` of that lung's lobes), or is the left or right part of a label
    that has both (``kidney_left`` of ``kidney``, parted by the reference's midline).
    """
    known = {name: _split(name) for name in labels}
    found = {organ: _find(_split(organ), known) for organ in organs}
    return {
        organ: Organ(labels=list(dict.fromkeys(label for name in names for label in labels[name])), side=side)
        for organ, (names, side) in found.items()
        if names
    }


def resolve_organs(organs: Mapping[str, Organ], labels: Labels, where: str) -> dict[str, Organ]:
    """Return organs that a parameter file found in a model's labels, by ids alone.

    Raises a SegfairError that begins with `where` for an organ whose labels the model lacks.
    """
    ids = {label for several in labels.values() for label in several}
    resolved = {}
    for name, organ in organs.items():
        unknown = [str(label) for label in organ.label_ids if label not in ids]
        unknown += [label for label in organ.label_names if label not in labels]
        if unknown or not organ.labels:
            fault = f"the model has no label {list_words(unknown, last='or')}" if unknown else "needs `labels`"
            raise SegfairError(f"{where}.organs.{name}: {fault}: its labels are {show_labels(labels)}")
        named = [label for text in organ.label_names for label in labels[text]]
        resolved[name] = Organ(labels=list(dict.fromkeys([*organ.label_ids, *named])), side=organ.side)
    return resolved


def describe_organs(organs: Mapping[str, Organ], labels: Labels) -> list[str]:
    """Say in sentences which labels organs were matched with."""
    names = {several[0]: name for name, several in labels.items() if len(several) == 1}
    sentences = []
    for organ, place in organs.items():
        said = [f"{label} {names[label]!r}" if label in names else str(label) for label in place.label_ids]
        side = f", its {place.side} side" if place.side else ""
        sentences.append(f"matched {organ} → label{'s' if len(said) > 1 else ''} {list_words(said)}{side}")
    return sentences


def show_labels(labels: Labels, most: int = 12) -> str:
    """Return labels as ``1 liver, 2 spleen``, the first of many."""
    shown = [f"{'+'.join(map(str, several))} {name}" for name, several in labels.items()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def _split(name: str) -> frozenset[str]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return frozenset(word.removesuffix("s") for word in re.findall(r"[a-z0-9]+", spaced.lower()))


def _find(wanted: frozenset[str], known: Mapping[str, frozenset[str]]) -> tuple[list[str], Side | None]:
    """Return the labels that an organ of these words is made of, and the side that it takes."""
    same = [name for name, words in known.items() if words == wanted]
    if same:
        return same, None
    parts = [name for name, words in known.items() if wanted < words <= wanted | _PARTS]
    sides = {side for name in parts for side in known[name] & _SIDES} - wanted
    if parts and len(sides) != 1:
        return parts, None
    own: list[Side] = [side for side in _SIDES if side in wanted]
    if len(own) == 1:
        return [name for name, words in known.items() if words == wanted - {own[0]}], own[0]
    return [], None
