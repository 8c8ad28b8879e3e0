"""Where a study's organs were found in the references, and whether an adult's could lie there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.cohort.reasons import MISPLACED, Finding
from helpers.parameters import Cohort, Organ
from helpers.vocabulary.anatomy import Side, find_largest, find_organ, judge_organ, write_ml
from helpers.vocabulary.words import count, list_words, name_for_people
from helpers.volumes import Region

_ASIDE_MM = 20.0  # an organ whose middle lies nearer to the body's has no side
_ADULT = 16  # years; a child's organs are smaller


@dataclass(frozen=True)
class SeenOrgan:
    """One organ in one reference."""

    volume_ml: float
    left_mm: float  # from the middle of the body to the organ's, + to the person's left
    is_cut: bool  # whether it reaches the scan's lowest or highest slice


def see_organs(regions: Mapping[int, Region], organ_ids: Mapping[str, int], middle_x_mm: float) -> dict[str, SeenOrgan]:
    """Return a study's organs among the labels of a reference; `middle_x_mm`: the body's, LPS."""
    found = {name: regions[label] for name, label in organ_ids.items() if label in regions}
    return {
        name: SeenOrgan(region.volume_ml, region.center_mm[0] - middle_x_mm, region.is_cut)
        for name, region in found.items()
    }


def find_misplaced(seen: Mapping[str, SeenOrgan]) -> list[Finding]:
    """Find the organs of one scan that lie on the side where an adult's do not."""
    found = []
    for name, organ in seen.items():
        anatomy, side = find_organ(name), tell_side(organ.left_mm)
        if anatomy is not None and judge_organ(anatomy, side=side, volume_ml=None):
            said = {"organ": name_for_people(name), "side": side, "organs": anatomy.plural}
            found.append(Finding(MISPLACED, said))
    return found


def tell_side(left_mm: float) -> Side | None:
    """Return the side of the body on which something lies; None where that is near its middle."""
    return None if abs(left_mm) < _ASIDE_MM else "left" if left_mm > 0 else "right"


def describe_organs(cohort: Cohort, seen: Sequence[Mapping[str, SeenOrgan]], ages: pd.Series) -> dict[str, str]:
    """Say of each organ where it was found, how large it is and on which side, and what is odd.

    `seen` and `ages` (years, NaN where unknown) are of every scan that is in, in one order. Returns
    a sentence by organ, of those that are in any reference.
    """
    told = {}
    odd = find_odd_organs(cohort, seen, ages)
    for name, organ in cohort.organs.items():
        found = [one[name] for one in seen if name in one]
        if not found:
            continue
        volume_ml = float(np.median([one.volume_ml for one in found]))
        side = tell_side(float(np.median([one.left_mm for one in found])))
        place = f"on the person's {side}" if side else "near the middle of the body"
        fact = (
            f"{name} = {name_place(organ)}: in {len(found)} of {count(len(seen), 'scan')}, median "
            f"{write_ml(volume_ml)}, {place}"
        )
        told[name] = f"{fact}: {odd[name]}" if name in odd else fact
    return told


def find_odd_organs(cohort: Cohort, seen: Sequence[Mapping[str, SeenOrgan]], ages: pd.Series) -> dict[str, str]:
    """Say, by organ, what of its median side and volume does not fit an adult's body."""
    found, volumes = {}, {}
    child = [age < _ADULT for age in ages]
    for name in cohort.organs:
        anatomy, here = find_organ(name), [one[name] for one in seen if name in one]
        if anatomy is None or not here:
            continue
        whole = [
            one[name].volume_ml
            for one, is_child in zip(seen, child, strict=True)
            if name in one and not one[name].is_cut and not is_child
        ]
        volume_ml = float(np.median(whole)) if whole else None
        side = tell_side(float(np.median([one.left_mm for one in here])))
        found[name] = judge_organ(anatomy, side=side, volume_ml=volume_ml)
        volumes[name] = (anatomy, float(np.median([one.volume_ml for one in here])))
    names = {anatomy.name: name for name, (anatomy, _) in volumes.items()}
    for larger, smaller in find_largest(list(volumes.values())):
        found[names[larger.name]].append(f"smaller than the {name_for_people(smaller.name)}, which no adult has")
    return {name: list_words(said) for name, said in found.items() if said}


def name_place(organ: Organ) -> str:
    """Return where an organ is found in masks: ``label 2, its left part`` or ``files a, b``."""
    listed, what = (organ.labels, "label") if organ.labels else (organ.files, "file")
    part = f", its {organ.side} part" if organ.side else ""
    return f"{what}{'s' if len(listed) > 1 else ''} {', '.join(map(str, listed))}{part}"
