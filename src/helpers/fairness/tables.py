"""How rows become one of the audit's tables, with the columns of :mod:`helpers.schema`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.schema import TABLES

LONGEST_NOTE = 200  # characters: a note is read in a cell
KEY_COLUMNS = ("model", "organ", "metric", "attribute")
# What only a table with organ sizes has, and what follows the attributes of a cell.
SIZE_COLUMNS = [name for name in TABLES["disparity"].names if name not in TABLES["agreement"].names]
CELL_COLUMNS = TABLES["intersections"].names[4:]


def join_notes(parts: Iterable[str], rest: str) -> str:
    """Return notes as one of at most :data:`LONGEST_NOTE` characters; `rest` says where more is."""
    said = [part for part in parts if part]
    whole = "; ".join(said)
    if len(whole) <= LONGEST_NOTE:
        return whole
    tail = f"; more in {rest}"
    while len("; ".join(said)) + len(tail) > LONGEST_NOTE and len(said) > 1:
        said.pop()
    kept = "; ".join(said)
    room = LONGEST_NOTE - len(tail)
    return (kept if len(kept) <= room else f"{kept[: room - 1].rsplit(' ', 1)[0]}…") + tail


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
