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
from collections.abc import Sequence
from dataclasses import dataclass
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

    @property
    def range_ml(self) -> tuple[float, float]:
        """The plausible volumes of an adult's, in ml."""
        return min(self.mean_ml) / self.spread, max(self.mean_ml) * self.spread

    @property
    def plural(self) -> str:
        """The organs of many, in words: ``left kidneys``."""
        words = name_for_people(self.name).split()
        *first, last = [words[-1], *words[:-1]] if words[-1] in ("left", "right") else words
        return " ".join([*first, last if last.endswith("s") else f"{last}s"])


def _pair(name: str, mean_ml: tuple[float, float], level: float, spread: float = 2.0) -> list[Anatomy]:
    return [Anatomy(f"{name}_{side}", mean_ml, level, side, spread) for side in ("right", "left")]


ORGANS: dict[str, Anatomy] = {
    one.name: one
    for one in (
        Anatomy("liver", (1411, 1710), 11, "right"),  # CT
        Anatomy("spleen", (180, 238), 11, "left"),  # CT
        *_pair("kidney", (156, 193), 13.5),  # CT
        Anatomy("pancreas", (64, 87), 13),  # CT
        *_pair("adrenal_gland", (6.2, 6.7), 12, spread=3),  # ICRP
        Anatomy("gallbladder", (53, 65), 13, "right", spread=4),  # ICRP, filled
        Anatomy("stomach", (350, 380), 12, "left", spread=4),  # ICRP, filled
        *_pair("lung", (1500, 3300), 6),  # ICRP, with air
        Anatomy("heart", (590, 800), 7),  # ICRP, with blood
        Anatomy("brain", (1240, 1380), -8),  # ICRP
        Anatomy("thyroid", (16, 19), 0, spread=3),  # ICRP
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
