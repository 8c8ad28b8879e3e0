"""Rows of volumes.csv → sentences: whether a difference in organ volume survives a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.vocabulary.words import (
    count,
    format_interval,
    format_p,
    format_value,
    name_for_people,
    name_group,
    name_organ,
)

_ML = "volume_error_ml"


def describe_volume(row: Mapping[str, Any]) -> str:
    """Say how much of a difference in organ volume a model's masks show."""
    larger, smaller = (name_group(row["attribute"], row[f"{side}_group"]) for side in ("larger", "smaller"))
    by_expert, by_model = (format_value(row[name], _ML) for name in ("reference_gap", "model_gap"))
    is_part = 0 <= row["model_gap"] <= row["reference_gap"]
    shown = f"show {by_model} of that" if is_part else f"make it {by_model}"
    interval = format_interval(row["low"], row["high"], _ML)
    low, high = (row.get(f"reference_gap_{end}", float("nan")) for end in ("low", "high"))
    unsure = f" (not certain: 95 % CI {format_interval(low, high, _ML)})" if low <= 0 <= high else ""
    return (
        f"{row['model']}, {name_organ(row['organ'])} by {name_for_people(str(row['attribute']))}: by the experts' "
        f"masks it is {by_expert} larger in {larger} than in {smaller}{unsure}; the model's masks {shown} "
        f"(model − expert {format_value(row['difference'], _ML)}, 95 % CI {interval}, adjusted "
        f"{format_p(row['p_adjusted'])})."
    )


def describe_volumes(table: pd.DataFrame, alpha: float, *, most: int = 5) -> list[str]:
    """Say where models' masks change a difference in organ volume; empty where none was compared.

    `table` is volumes.csv. A difference is told where it is real by the experts' masks, its
    interval leaving out 0, and where the model's is found to be another.
    """
    if table.empty:
        return []
    real = (table["reference_gap_low"] > 0) | (table["reference_gap_high"] < 0)
    changed = table[table["p_adjusted"] <= alpha]
    told = changed.sort_values("difference", key=lambda size: -size.abs()).head(most)
    of = count(len(table), "comparison")
    overall = (
        f"By the experts' masks groups differ in organ volume in {int(real.sum())} of {of} (95 % confidence "
        f"intervals, each by "
        f"itself). The model's masks of the same people show another difference in {len(changed)} of them, "
        "adjusted for their number."
    )
    more = [f"{count(len(changed) - len(told), 'more')}: see the table."] if len(changed) > len(told) else []
    return [overall, *(describe_volume(row) for row in told.to_dict("records")), *more]
