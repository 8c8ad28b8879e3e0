"""A column of the participants table, recorded as text → numbers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

# A number with a comma in it, and one whose comma cannot part thousands: other than three digits
# behind it, or a bare 0 before it.
_COMMA = r"[+-]?\d+(?:,\d+)?"
_DECIMAL_COMMA = r"[+-]?(?:0,\d+|\d+,(?!\d{3}$)\d+|\d{4,},\d+)"
_DECIMAL = r"[+-]?\d+[.,]\d+"
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def read_numbers(recorded: pd.Series) -> pd.Series:
    """Read a column of text, NA where missing, as float64 of the same index; NaN where no number.

    Notes
    -----
    A decimal comma is read where the whole column has it: every value is digits with at most one
    comma, and at least one comma cannot part thousands. A column that mixes points and commas, or
    in which "1,234" could be either, is not guessed at.

    Examples
    --------
    >>> read_numbers(pd.Series(["64,4", "58", None])).tolist()
    [64.4, 58.0, nan]
    >>> read_numbers(pd.Series(["64,4", "58.1", "54 y"])).tolist()
    [nan, 58.1, nan]
    """
    known = recorded.dropna().astype(str)
    if known.str.fullmatch(_COMMA).all() and known.str.fullmatch(_DECIMAL_COMMA).any():
        recorded = known.str.replace(",", ".", regex=False).reindex(recorded.index)
    numbers = pd.to_numeric(recorded, errors="coerce").astype(float)
    return numbers.where(np.isfinite(numbers))


def read_age(text: str) -> str:
    """Return a DICOM age string in years; anything else as recorded."""
    years = count_years(text)
    return text if years is None else f"{years:.6g}"


def count_years(text: str) -> float | None:
    """Return the years of a DICOM age string (039Y, 018M, 002W, 010D); None of anything else."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", text)
    return int(found.group(1)) * _YEARS[found.group(2)] if found else None


def find_unreadable(recorded: pd.Series) -> pd.Series:
    """Return what a column of numbers holds that :func:`read_numbers` cannot read, as recorded."""
    return recorded[recorded.notna() & read_numbers(recorded).isna()]


def is_half_numeric(recorded: pd.Series) -> bool:
    """Tell whether a column has decimal numbers beside values that are none: likely a slip."""
    decimal = recorded.dropna().astype(str).str.fullmatch(_DECIMAL)
    return bool(decimal.any() and len(find_unreadable(recorded)))
