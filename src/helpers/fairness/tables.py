"""How rows become one of the audit's tables, with the columns of :mod:`helpers.schema`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.schema import TABLES

KEY_COLUMNS = ("model", "organ", "metric", "attribute")
# What only a table with organ sizes has, and what follows the attributes of a cell.
SIZE_COLUMNS = [name for name in TABLES["disparity"].names if name not in TABLES["agreement"].names]
CELL_COLUMNS = TABLES["intersections"].names[4:]


def make_table(rows: Sequence[dict[str, Any]], key: str) -> pd.DataFrame:
    """Return rows as a table of the schema; absent words are empty text, numbers missing."""
    columns = TABLES[key].columns
    if not rows:
        return pd.DataFrame([], columns=TABLES[key].names)
    # Column by column: pandas takes a table from rows ten times as long.
    parts: dict[str, Any] = {}
    for column in columns:
        if column.kind == "text":
            found = [row.get(column.name) for row in rows]
            words = ["" if value is None or value != value else value for value in found]
            parts[column.name] = pd.Series(words, dtype=object)
        else:
            parts[column.name] = [row.get(column.name, np.nan) for row in rows]
    return pd.DataFrame(parts)


def join_tables(parts: Sequence[pd.DataFrame], key: str) -> pd.DataFrame:
    """Return tables of the same columns below each other; an empty one where there is none."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else make_table([], key)
