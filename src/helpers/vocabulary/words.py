"""Names, numbers, units and lists as words: one way to write each, wherever it is read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeGuard

import pandas as pd

from helpers.vocabulary.measures import find_measure

# The organ's name in rows that pool all organs.
POOLED = "all"
# The model's name in rows that pool all models; no model that segfair runs has a space in its name.
ALL_MODELS = "all models"
# The test that decides whether groups differ, under one name everywhere.
DECIDING_TEST = "studentised permutation test"
CLUSTERED_TEST = "t test with errors of clusters (CR2)"  # decides where people come in clusters
# What stands for a metric in rows of organs of which the model drew nothing.
MISSED_ORGAN = "missed"
CORRECTIONS = {
    "holm": "Holm's method",
    "fdr_bh": "the Benjamini-Hochberg method",
    "max_t": "the max-T permutation method",
    "none": "no correction",
}
# Which comparisons are adjusted together.
FAMILIES = {
    "study": "all comparisons of the study",
    "attribute": "the comparisons of one attribute",
    "attribute_metric": "the comparisons of one attribute and metric",
    "model_attribute": "the comparisons of one model and attribute",
}
# The units of the attributes that every study may have.
UNITS = {"age": "years", "bmi": "kg/m²"}
# Measures of spread over an attribute's groups that papers quote: columns of ``disparity.csv``.
SPREADS = {
    "sd_groups": "SD between groups",
    "ser": "skewed error ratio",
    "es": "equity-scaled (FairSeg)",
    "es_fairmedfm": "equity-scaled (FairMedFM)",
}
_SEXES = {"female": "women", "male": "men"}
UNKNOWN = "–"  # a number that is not known, in a table


def is_known(value: Any) -> TypeGuard[Any]:
    """Tell whether a cell of a table holds something: not missing, not infinite, not empty text."""
    if value is None:
        return False
    if isinstance(value, str):
        return value != ""
    try:
        return not math.isnan(float(value)) and not math.isinf(float(value))
    except (TypeError, ValueError):
        return not pd.isna(value)


def name_for_people(key: str) -> str:
    """Return a key as words: ``kidney_left`` becomes ``left kidney``."""
    if key == "bmi":
        return "BMI"
    words = key.replace("_", " ").split(" ")
    return " ".join([words[-1], *words[:-1]] if words[-1] in ("left", "right") else words)


def name_organ(organ: Any) -> str:
    """Return an organ's name for people; the pooled rows (``all``) are all organs."""
    return "all organs" if str(organ) == POOLED else name_for_people(str(organ))


def name_group(attribute: Any, group: Any) -> str:
    """Return a group as words within a sentence: ``women``, ``BMI 30 and over``, ``“tumour”``."""
    name, group = name_for_people(str(attribute)), str(group)
    if attribute == "sex" and group in _SEXES:
        return _SEXES[group]
    if name.lower() in group.lower():
        return group
    return f"{name} {group}" if any(letter.isdigit() for letter in group) else f"“{group}”"


def name_members(attribute: Any, group: Any) -> str:
    """Return the people of a group in words: ``women``, ``people in BMI 30 and over``."""
    named = name_group(attribute, group)
    return named if named in _SEXES.values() else f"people in {named}"


def name_failure(metric: str, threshold: float) -> str:
    """Return what a kind of failure is: ``Dice below 0.5``, ``organ missed``."""
    if metric == MISSED_ORGAN:
        return "organ missed"
    measure = find_measure(metric)
    return f"{measure.name} {'below' if measure.higher_is_better else 'above'} {threshold:g} {measure.unit}".rstrip()


def name_scan(number: int) -> str:
    """Return a scan's name for people, by its number in the study: ``scan 007``."""
    return f"scan {number:03d}"


def start_sentence(text: str) -> str:
    """Return a text with a capital first letter, the others as they are."""
    return f"{text[:1].upper()}{text[1:]}"


def write_number(value: float, digits: int, *, signed: bool = False) -> str:
    """Return a number with so many decimals and a true minus sign."""
    text = f"{float(value):{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def format_number(value: Any, metric: str, *, signed: bool = False) -> str:
    """Return a value or difference without its unit: ``0.041`` for Dice, ``2.60`` for mm.

    Ratios have three decimals; lengths and volumes two, from 10 on one. Unknown values are ``–``.
    """
    if not is_known(value):
        return UNKNOWN
    return write_number(value, _count_digits(value, metric), signed=signed)


def round_as_shown(value: float, metric: str) -> float:
    """Return a value with the decimals that are shown, to be compared as a reader would."""
    return round(float(value), _count_digits(value, metric))


def _count_digits(value: float, metric: str) -> int:
    return (1 if abs(float(value)) >= 10 else 2) if find_measure(metric).unit else 3


def format_value(value: Any, metric: str, *, signed: bool = False) -> str:
    """Return a value or difference with its unit: ``0.041``, ``2.60 mm``, ``not measured``."""
    if not is_known(value):
        return "not measured"
    return f"{format_number(value, metric, signed=signed)} {find_measure(metric).unit}".rstrip()


def format_interval(low: Any, high: Any, metric: str) -> str:
    """Return ``0.020 to 0.062`` or ``0.30 to 2.10 mm``, or that there is no interval."""
    if not is_known(low) or not is_known(high):
        return "no interval"
    return f"{format_number(low, metric)} to {format_value(high, metric)}"


def format_estimate(value: Any, low: Any, high: Any, metric: str) -> str:
    """Return a value and its interval without a unit: ``0.041 (0.020 to 0.062)``."""
    middle = format_number(value, metric)
    if middle == UNKNOWN or not is_known(low) or not is_known(high):
        return middle
    return f"{middle} ({format_number(low, metric)} to {format_number(high, metric)})"


def state_estimate(value: Any, low: Any, high: Any, metric: str) -> str:
    """Return a value and its interval with units: ``2.60 mm (0.30 to 2.10 mm)``."""
    interval = f" ({format_interval(low, high, metric)})" if is_known(low) and is_known(high) else ""
    return format_value(value, metric) + interval


def format_share(share: Any) -> str:
    """Return ``6.2 %`` or ``14 %``: a decimal where it is not a whole one; unknown is ``–``."""
    return f"{write_number(100 * float(share), 1).removesuffix('.0')} %" if is_known(share) else UNKNOWN


def format_p(p: Any) -> str:
    """Return ``p = 0.012``, ``p < 0.001`` or ``p > 0.99``."""
    return f"p {compare_p(p)}" if is_known(p) else "p not computed"


def compare_p(p: Any) -> str:
    """Return ``= 0.012``, ``< 0.001``, ``> 0.99`` or ``–``, for a column headed p."""
    if not is_known(p):
        return UNKNOWN
    p = float(p)
    if p < 0.001:
        return "< 0.001"
    if p > 0.99:
        return "> 0.99"
    return f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 scan`` or ``12 scans``; 0 is ``no scans``."""
    many = many or f"{one}s"
    return f"{'no' if number == 0 else number} {one if number == 1 else many}"


def list_words(words: Iterable[str], *, last: str = "and") -> str:
    """Return ``a``, ``a and b``, or ``a, b and c``; nothing is an empty string."""
    words = list(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
