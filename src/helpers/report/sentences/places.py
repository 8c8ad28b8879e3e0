"""Rows of the spatial tables → where on an organ groups differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.vocabulary.words import POOLED, format_p, is_known, name_for_people, name_organ, start_sentence


def describe_place(row: Mapping[str, Any], place: str) -> str:
    """Say where two groups differ: a row of spatial/summary.csv and its place in words."""
    return (
        f"{start_sentence(name_organ(row['organ']))} ({row['model']}) by {name_for_people(str(row['attribute']))}, "
        f"“{row['group_a']}” against “{row['group_b']}”: {place}.{_tell_certainty(row)}"
    )


def describe_place_of_gap(organ: str, row: Mapping[str, Any] | None, place: str) -> str:
    """Say where the difference of a gap lies, as one answer of a card.

    `row` is that of spatial/summary.csv; None where the organ was not mapped.
    """
    if organ == POOLED:
        return "All organs together have no surface: see them one by one."
    if row is None:
        return "Not known: this organ was not mapped."
    return f"{start_sentence(place)} (“{row['group_a']}” against “{row['group_b']}”).{_tell_certainty(row)}"


def _tell_certainty(row: Mapping[str, Any]) -> str:
    """Say on how much of the surface the difference is significant, or that it was not tested."""
    fraction, adjusted = row.get("significant_fraction"), row.get("p_adjusted")
    if not is_known(fraction):
        return " Not tested."
    p = format_p(row.get("min_p_fwer"))
    p += f", adjusted for all maps of the study {format_p(adjusted)}" if is_known(adjusted) else ""
    return (
        f" Significant on {100 * fraction:.0f} % of the surface ({p})." if fraction > 0 else f" Not significant ({p})."
    )
