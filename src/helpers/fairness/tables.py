"""The audit's tables: their columns, and how rows become one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.schema import TABLES

KEY_COLUMNS = ("model", "organ", "metric", "attribute")
GROUP_COLUMNS = (
    *KEY_COLUMNS, "group", "n", "mean", "sd", "median", "q1", "q3", "ci_low", "ci_high", "suppressed",
)  # fmt: skip
SIZE_COLUMNS = ("expected_gap", "excess_gap", "excess_low", "excess_high", "excess_p", "excess_p_adjusted")
DISPARITY_COLUMNS = (
    *KEY_COLUMNS, "n", "groups", "worst_group", "best_group", "gap", "gap_low", "gap_high", "es", "es_low", "es_high", "ser", "ser_low",
    "ser_high", "es_fairmedfm", "es_fairmedfm_low", "es_fairmedfm_high", "sd_groups", "sd_groups_low", "sd_groups_high", "test", "p",
    "p_adjusted", "anova_p", "effect", "effect_size", "effect_low", "effect_high", "adjusted_gap", "adjusted_low", "adjusted_high",
    "adjusted_p", "adjusted_n", *SIZE_COLUMNS, "margin", "detectable", "verdict", "note",
)  # fmt: skip
TEST_COLUMNS = (*KEY_COLUMNS, "test", "statistic", "p")
PAIR_COLUMNS = (*KEY_COLUMNS, "group_a", "group_b", "test", "difference", "low", "high", "p")
CONTRAST_COLUMNS = (*KEY_COLUMNS, "group", "n", "n_rest", "difference", "low", "high")
MODEL_GAP_COLUMNS = (
    "organ", "metric", "attribute", "model_a", "model_b", "n", "gap_a", "gap_b", "difference", "low", "high", "p", "p_adjusted",
)  # fmt: skip
ADJUSTED_MEAN_COLUMNS = (*KEY_COLUMNS, "group", "n", "mean", "low", "high")
ADJUSTED_NOTE_COLUMNS = (*KEY_COLUMNS, "covariates", "dropped", "n_missing", "n_rare", "p_logit", "warnings", "note")
MATCHING_COLUMNS = (*KEY_COLUMNS, "group_a", "group_b", "n_pairs", "n_lost", "gap", "low", "high", "p", "note")
BALANCE_COLUMNS = (
    "attribute", "group_a", "group_b", "covariate", "level", "mean_a", "mean_b", "mean_a_after", "mean_b_after", "smd_before", "smd_after",
    "variance_ratio_before", "variance_ratio_after", "suppressed",
)  # fmt: skip
TREND_COLUMNS = (*KEY_COLUMNS, "value", "estimate", "low", "high", "band_low", "band_high", "nearby")
TREND_TEST_COLUMNS = (
    *KEY_COLUMNS, "n", "slope", "slope_low", "slope_high", "unit", "p_trend", "p_nonlinear", "covariates", "dropped", "note",
)  # fmt: skip
# Agreement of annotators ("annotators") and of repeated prompts ("prompts"): the columns of groups.csv and disparity.csv, by kind.
AGREEMENT_GROUP_COLUMNS = ("kind", *GROUP_COLUMNS)
AGREEMENT_COLUMNS = ("kind", *(name for name in DISPARITY_COLUMNS if name not in SIZE_COLUMNS))
AGAINST_COLUMNS = (
    *KEY_COLUMNS, "n", "best_group", "worst_group", "gap", "gap_low", "gap_high", "annotators_gap", "annotators_low", "annotators_high",
    "difference", "low", "high", "p", "p_adjusted",
)  # fmt: skip
CELL_COLUMNS = ("n", "mean", "additive", "pooled", "low", "high", "weight", "suppressed")
VARIANCE_COLUMNS = (
    "model", "organ", "metric", "n", "cells", "empty_cells", "suppressed_cells", "between_variance", "between_variance_null",
    "within_variance", "vpc", "vpc_null", "unexplained_share", "f", "df_cells", "df_within", "p_interaction", "note",
)  # fmt: skip


_TEXT = {column.name for table in TABLES.values() for column in table.columns if column.kind == "text"} - {"n"}


def make_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table of just these columns; words that were not said are empty text, numbers missing."""
    if not rows:
        return pd.DataFrame([], columns=list(columns))
    # Column by column: pandas takes a table from rows ten times as long.
    parts: dict[str, Any] = {}
    for name in columns:
        if name in _TEXT:
            found = [row.get(name) for row in rows]
            parts[name] = pd.Series(["" if value is None or value != value else value for value in found], dtype=object)
        else:
            parts[name] = [row.get(name, np.nan) for row in rows]
    return pd.DataFrame(parts, columns=list(columns))


def join_tables(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Return tables of the same columns below each other; an empty one where there is none."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else make_table([], columns)


def show(value: Any) -> Any:
    """Return a number of numpy as one of Python, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
