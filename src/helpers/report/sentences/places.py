"""Rows of the spatial tables → where on an organ groups differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helpers.vocabulary.words import count, format_p, is_known, name_for_people, name_organ

# A significant difference on less of the surface is a spot, told in one clause with the others.
SMALL_SPOT = 0.03


def read_extent(row: Mapping[str, Any]) -> float | None:
    """Return the share of the surface that is significant (summary.csv); None without a test."""
    for name in ("significant_fraction_tfce", "significant_fraction"):
        if is_known(row.get(name)):
            return float(row[name])
    return None


def stands_alone(row: Mapping[str, Any], alpha: float) -> bool:
    """Tell whether a map is significant by itself alone, and not among all maps of the study."""
    return bool(read_extent(row)) and is_known(row.get("p_adjusted")) and float(row["p_adjusted"]) > alpha


def describe_place(row: Mapping[str, Any], place: str) -> str:
    """Say where two groups differ: a row of spatial/summary.csv and its place in words."""
    return f"{_name_map(row)}: {place}{tell_certainty(row)}."


def describe_spots(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say in one clause which maps are significant in small spots alone; empty where none is."""
    if not rows:
        return ""
    return f"Also in small spots, under {100 * SMALL_SPOT:.0f} % of the surface: {'; '.join(map(_name_map, rows))}."


def describe_alone(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say in one clause which maps are significant by themselves alone; empty where none is."""
    if not rows:
        return ""
    told = "; ".join(f"{_name_map(row)} (p = {format_p(row['p_adjusted']).split()[-1]})" for row in rows)
    return f"Significant in a map by itself, but not among all maps of the study: {told}."


def describe_floor(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say once how small the p of a map can be, so that no map needs to; empty without a test."""
    made = [row for row in rows if is_known(row.get("permutations")) and read_extent(row)]
    if not made:
        return ""
    most = max(int(row["permutations"]) for row in made)
    known = [float(row["p_adjusted"]) for row in made if is_known(row.get("p_adjusted"))]
    over = f", or {format_p(min(known))} adjusted for all maps of the study" if known else ""
    return (
        f"With {count(most, 'permutation')} p cannot be below {format_p(1 / (most + 1)).split()[-1]} for one map"
        f"{over}: where no p is given, it is that."
    )


def tell_certainty(row: Mapping[str, Any]) -> str:
    """Say in a clause whether a map is significant, and its p unless it is as small as can be."""
    extent = read_extent(row)
    if extent is None:
        return "; not tested"
    p = next((row[name] for name in ("min_p_tfce", "min_p_fwer") if is_known(row.get(name))), None)
    made = row.get("permutations")
    if extent > 0 and p is not None and is_known(made) and float(p) * (float(made) + 1) < 1.5:
        return ""
    told = format_p(p) + (f", over all maps {format_p(row['p_adjusted'])}" if is_known(row.get("p_adjusted")) else "")
    return f"; {told}" if extent > 0 else f"; not significant, {told}"


def _name_map(row: Mapping[str, Any]) -> str:
    return f"{row['model']}, {name_organ(row['organ'])} by {name_for_people(str(row['attribute']))}"
