"""A participants table of any of four kinds, read as text."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from helpers.errors import SegfairError


def read_table_file(path: Path, what: str = "participants table", key: str = "cohort.path") -> pd.DataFrame:
    """Read a table of four kinds with every value as text: ids keep their zeros.

    `what` it is called, and the `key` of the parameter file that names it, stand in the errors.
    """
    if not path.is_file():
        raise SegfairError(f"{path}: no such {what}: correct {key}")
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv", ".txt"):
            table = _read_text(path)
        elif kind in (".xlsx", ".xlsm"):
            table = pd.read_excel(path, dtype="str", keep_default_na=False)
        elif kind == ".parquet":
            table = pd.read_parquet(path).map(_write_out)
        else:
            raise SegfairError(f"{path.name}: a {what} must be .csv, .tsv, .xlsx or .parquet")
    except pd.errors.EmptyDataError:
        raise SegfairError(f"{path.name}: the {what} is empty: it needs a header and one row per scan") from None
    except SegfairError:
        raise
    except (ValueError, OSError, KeyError) as error:
        told = " ".join(str(error).split())[:120]
        raise SegfairError(f"{path.name}: the {what} cannot be read ({told})") from error
    table.columns = [str(column).strip() for column in table.columns]
    for name in table.columns[table.columns.duplicated()]:
        raise SegfairError(f"{path.name}: the {what} has two columns named {name!r}: rename one of them")
    # Spaces around a word are typing, not data; what is then empty is missing.
    table = table.map(lambda value: value.strip() if isinstance(value, str) else value)
    table = table.mask(table == "")
    if table.empty:
        raise SegfairError(f"{path.name}: the {what} has no rows: it needs one row per scan")
    return table


def _read_text(path: Path) -> pd.DataFrame:
    """Read a text table; a row longer than the header would shift its columns: it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            sep = _find_separator(path)
            return pd.read_csv(path, sep=sep, dtype="str", encoding="utf-8-sig", keep_default_na=False, index_col=False)
        except pd.errors.ParserWarning:
            raise SegfairError(
                f"{path.name}: has rows with more fields than its header: remove separators at the ends of lines, "
                "quote values that hold one"
            ) from None


def _write_out(value: object) -> object:
    """Return a value of a typed table as text: 1.0 reads 1, as it would in a CSV file."""
    if value is None or value is pd.NA or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _find_separator(path: Path) -> str:
    """Tell comma, semicolon and tab apart by the header line."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        header = stream.readline()
    return max("\t;,", key=header.count)
