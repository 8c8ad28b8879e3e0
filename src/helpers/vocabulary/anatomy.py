"""Where organs lie in an adult's body and how large they are: one record per organ.

Means are of women and of men. CT: E. M. Geraghty, J. M. Boone, J. P. McGahan and K. Jain, Normal
organ volume assessment from abdominal CT, Abdominal Imaging 29, 482-490, 2004 (149 adults); kidneys
one by one. ICRP: ICRP Publication 89, Annals of the ICRP 32, 2002 (reference adults), masses at
1.05 g/ml, hollow organs with what they hold; a lung between its volume at rest and when full.
Levels are vertebrae by which an organ's middle lies (S. Standring, Gray's Anatomy, surface
anatomy): T1 is 1, L1 is 13, S1 is 18; those above T1 are negative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from helpers.vocabulary.words import name_for_people

Side = Literal["left", "right"]
VERTEBRA_MM = 30.0  # from one to the next, a disc included
# What else organs are called, and what does not tell one from another.
_WORDS = {"l": "left", "lt": "left", "r": "right", "rt": "right", "urinary": "", "gland": "", "gall": "gallbladder",
          "oesophagus": "esophagus", "adrenals": "adrenal", "kidneys": "kidney", "lungs": "lung"}  # fmt: skip


@dataclass(frozen=True)
class Anatomy:
    """One organ of adults; of a pair, the one of `side`."""

    name: str
    mean_ml: tuple[float, float]  # of women and of men
    level: float  # the vertebra beside its middle
    side: Side | None = None  # where its middle lies, if not near the middle of the body
    spread: float = 2.0  # plausible is down to the smaller mean divided by this, up to the larger times it
    parts: Mapping[str, str] = field(default_factory=dict)  # what lies towards a side, where it has a name

    @property
    def range_ml(self) -> tuple[float, float]:
        """The plausible volumes of an adult's, in ml."""
        return min(self.mean_ml) / self.spread, max(self.mean_ml) * self.spread

    def name_part(self, sides: Sequence[str]) -> str:
        """Return where on the organ something lies that is towards these sides of the body.

        Examples
        --------
        >>> ORGANS["kidney_left"].name_part(["right", "inferior"])
        'at the lower pole, medial'
        >>> ORGANS["liver"].name_part(["posterior", "inferior"])
        'on the posterior-inferior surface'
        """
        part = next((side for side in sides if side in self.parts), None)
        others = [self._turn(side) for side in sides if side != part]
        if part is None:
            return f"on the {'-'.join(others)} surface"
        return f"{self.parts[part]}{', ' * bool(others)}{'-'.join(others)}"

    def _turn(self, side: str) -> str:
        """Return a side as seen from the middle of the body, of an organ beside it."""
        if side not in ("left", "right") or self.side is None or side in self.parts:
            return side
        return "lateral" if side == self.side else "medial"

    @property
    def plural(self) -> str:
        """The organs of many, in words: ``left kidneys``."""
        *first, last = name_for_people(self.name).split()
        return " ".join([*first, last if last.endswith("s") else f"{last}s"])


_POLES = {"superior": "at the upper pole", "inferior": "at the lower pole"}
_APEX = {"superior": "at the apex", "inferior": "at the base"}
_LOBES = {"left": "in the left lobe", "right": "in the right lobe"}
_HEMISPHERES = {"left": "in the left hemisphere", "right": "in the right hemisphere"}
_HEAD = {"right": "in the head", "left": "in the tail"}


def _pair(
    name: str, mean_ml: tuple[float, float], level: float, spread: float = 2.0, parts: Mapping[str, str] | None = None
) -> list[Anatomy]:
    return [Anatomy(f"{name}_{side}", mean_ml, level, side, spread, parts or {}) for side in ("right", "left")]


ORGANS: dict[str, Anatomy] = {
    one.name: one
    for one in (
        Anatomy("liver", (1411, 1710), 11, "right", parts=_LOBES),  # CT
        Anatomy("spleen", (180, 238), 11, "left", parts=_POLES),  # CT
        *_pair("kidney", (156, 193), 13.5, parts=_POLES),  # CT
        Anatomy("pancreas", (64, 87), 13, parts=_HEAD),  # CT
        *_pair("adrenal_gland", (6.2, 6.7), 12, spread=3),  # ICRP
        Anatomy("gallbladder", (53, 65), 13, "right", spread=4),  # ICRP, filled
        Anatomy("stomach", (350, 380), 12, "left", spread=4),  # ICRP, filled
        *_pair("lung", (1500, 3300), 6, parts=_APEX),  # ICRP, with air
        Anatomy("heart", (590, 800), 7),  # ICRP, with blood
        Anatomy("brain", (1240, 1380), -8, parts=_HEMISPHERES),  # ICRP
        Anatomy("thyroid", (16, 19), 0, spread=3, parts=_LOBES),  # ICRP
        Anatomy("bladder", (230, 240), 21, spread=5),  # ICRP, filled
        Anatomy("uterus", (76, 76), 21, spread=4),  # ICRP
        Anatomy("prostate", (16, 16), 22, spread=5),  # ICRP
    )
}
_BY_WORDS = {frozenset(re.findall("[a-z]+", name)) - {"gland"}: one for name, one in ORGANS.items()}


def find_organ(name: str) -> Anatomy | None:
    """Return the record of an organ by name in any order of its words; None where there is none.

    Examples
    --------
    >>> find_organ("Left Kidney").name, find_organ("tumour")
    ('kidney_left', None)
    """
    words = [_WORDS.get(word, word) for word in re.findall("[a-z]+", name.lower())]
    return _BY_WORDS.get(frozenset(filter(None, words)))


def judge_organ(one: Anatomy, *, side: Side | None, volume_ml: float | None) -> list[str]:
    """Say what of an organ's side and volume does not fit an adult's body; nothing where all does.

    `side` is where its middle lies (None: near the middle, or not known); `volume_ml` is None where
    it is not to be judged.
    """
    said = []
    if one.side is not None and side is not None and side != one.side:
        said.append(f"{one.plural} lie {one.side}")
    if volume_ml is not None and not one.range_ml[0] <= volume_ml <= one.range_ml[1]:
        said.append(f"{one.plural} of adults have {write_ml(one.range_ml[0])} to {write_ml(one.range_ml[1])}")
    return said


def write_ml(volume_ml: float) -> str:
    """Return a volume as ``1,410 ml``, ``138 ml`` or ``4.3 ml``: three digits at most are told."""
    if volume_ml < 10:
        return f"{volume_ml:.1f} ml"
    rounded = round(volume_ml, -1) if volume_ml >= 1000 else round(volume_ml)
    return f"{rounded:,.0f} ml"


def find_largest(volumes_ml: Sequence[tuple[Anatomy, float]]) -> list[tuple[Anatomy, Anatomy]]:
    """Return pairs of organs (smaller, larger) of which every adult's compare the other way round.

    `volumes_ml` are of one cohort. Only organs whose plausible volumes do not overlap are compared.
    """
    return [
        (first, second)
        for first, first_ml in volumes_ml
        for second, second_ml in volumes_ml
        if first.range_ml[0] > second.range_ml[1] and first_ml < second_ml
    ]
