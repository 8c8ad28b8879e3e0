"""Numbers, units and lists as words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeGuard

import pandas as pd

from helpers.figures.style import name_for_people

# Scores between 0 and 1 are told in points: 0.01 is one point.
SCORES = ("dice", "iou", "nsd", "precision", "recall")
METRIC_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "nsd": "surface Dice (NSD)",
    "hd95_mm": "95 % Hausdorff distance",
    "assd_mm": "average surface distance",
    "precision": "precision",
    "recall": "recall",
    "volume_error_ml": "volume error",
    "boundary_error_mm": "boundary error",
}
CORRECTIONS = {
    "holm": "Holm's method",
    "fdr_bh": "the Benjamini-Hochberg method",
    "max_t": "the max-T permutation method",
    "none": "no correction",
}
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def is_known(value: Any) -> TypeGuard[Any]:
    """Tell whether a cell of a table says something: neither missing, nor infinite, nor empty text."""
    if value is None:
        return False
    if isinstance(value, str):
        return value != ""
    try:
        return not math.isnan(float(value)) and not math.isinf(float(value))
    except (TypeError, ValueError):
        return not pd.isna(value)


def name_organ(organ: Any) -> str:
    """Return an organ's name for people; the pooled rows (``all``) are all organs."""
    return "all organs" if str(organ) == "all" else name_for_people(str(organ))


def format_size(value: Any, metric: str, *, signed: bool = False) -> str:
    """Return a difference in a metric with its unit: Dice 0.031 is ``3.1 points``; NaN is ``not measured``."""
    if not is_known(value):
        return "not measured"
    number, unit = (100 * float(value), "points") if metric in SCORES else (float(value), metric.rpartition("_")[2])
    digits = f"{number:+.1f}" if signed else f"{number:.1f}"
    if float(digits) == 0:
        digits = "0.0"
    return f"{digits.replace('-', '−')} {unit}"


def format_level(value: Any, metric: str) -> str:
    """Return a metric's level as it is read: ``0.871`` for scores, ``2.6 mm`` for distances."""
    if not is_known(value):
        return "not measured"
    if metric in SCORES:
        return f"{float(value):.3f}"
    return f"{float(value):.1f} {metric.rpartition('_')[2]}".replace("-", "−")


def format_interval(low: Any, high: Any, metric: str) -> str:
    """Return ``2.0 to 6.2 points``, or that there is no interval."""
    if not is_known(low) or not is_known(high):
        return "no interval"
    first = format_size(low, metric)
    return f"{first.rpartition(' ')[0]} to {format_size(high, metric)}"


def format_estimate(value: Any, low: Any, high: Any, metric: str) -> str:
    """Return a difference and its interval without a unit, for a table: ``4.1 (2.0 to 6.2)``; – where there is none."""
    if not is_known(value):
        return "–"
    middle = format_size(value, metric).rpartition(" ")[0]
    interval = format_interval(low, high, metric)
    return middle if interval == "no interval" else f"{middle} ({interval.rpartition(' ')[0]})"


def format_p(p: Any) -> str:
    """Return ``p = 0.012``, ``p < 0.001`` or ``p > 0.99``."""
    if not is_known(p):
        return "p not computed"
    p = float(p)
    if p < 0.001:
        return "p < 0.001"
    if p > 0.99:
        return "p > 0.99"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


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
