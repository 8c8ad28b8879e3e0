"""Rows of the spatial tables → where on an organ groups differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.fairness.groups import POOLED
from helpers.figures.style import name_for_people
from helpers.report.sentences.words import format_p, is_known, name_organ


def describe_place(row: Mapping[str, Any], place: str) -> str:
    """Say where on an organ two groups differ.

    Parameters
    ----------
    row : mapping
        A row of spatial/summary.csv.
    place : str
        From :func:`helpers.spatial.describe_location`.
    """
    return (
        f"{name_organ(row['organ']).capitalize()} ({row['model']}) by {name_for_people(str(row['attribute']))}, "
        f"“{row['group_a']}” against “{row['group_b']}”: {place}.{_tell_certainty(row)}"
    )


def describe_place_of_gap(organ: str, row: Mapping[str, Any] | None, place: str) -> str:
    """Say where the difference of a gap lies, as one answer of a card.

    Parameters
    ----------
    organ : str
    row : mapping or None
        The row of spatial/summary.csv for the same model, organ and attribute; None where the organ was not mapped.
    place : str
    """
    if organ == POOLED:
        return "All organs together have no surface: see them one by one."
    if row is None:
        return "Not known: this organ was not mapped."
    return f"{place[0].upper()}{place[1:]} (“{row['group_a']}” against “{row['group_b']}”).{_tell_certainty(row)}"


def _tell_certainty(row: Mapping[str, Any]) -> str:
    """Say on how much of the surface the difference is beyond chance; that it was not tested where it was not."""
    fraction, p = row.get("significant_fraction"), row.get("min_p_fwer")
    if not is_known(fraction):
        return " Not tested."
    corrected = row.get("p_adjusted")
    tail = f", all maps of the study together {format_p(corrected)}" if is_known(corrected) else ""
    if float(fraction) > 0:
        return f" Beyond chance on {100 * float(fraction):.0f} % of the surface ({format_p(p)}{tail})."
    return f" Nowhere shown to be beyond chance ({format_p(p)}{tail})."
