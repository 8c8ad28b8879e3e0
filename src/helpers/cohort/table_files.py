"""A participants table of any of four kinds, read as plain text with its own header."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from helpers.errors import SegfairError, quote
from helpers.vocabulary.words import count

# Of DataFrame.attrs: what was taken for the header, in words; and what else to know, in sentences.
PLACE, REMARKS = "place", "remarks"
# Beyond these a file is no table of people; they take up to 3 GB of memory.
_MOST_BYTES, _MOST_COLUMNS, _MOST_CELLS, _LONGEST_CELL = 1 << 29, 10_000, 25_000_000, 1_000_000
_MOST_SHEET_BYTES, _MOST_SHEET_CELLS = 64_000_000, 3_000_000  # a hundredfold in memory, and twice
_OLD_WORKBOOK = b"\xd0\xcf\x11\xe0"  # of Excel before 2007, and of any that a password encrypts


def read_table_file(path: Path, what: str = "participants table", key: str = "cohort.path") -> pd.DataFrame:
    """Read a table with every value as text, None where it is empty.

    `what` it is called, and the `key` of the parameter file that names it, stand in the errors. Ids
    keep their zeros, columns their names, as they stand in the file; rows without any value and
    columns without a name are nobody's. ``attrs["place"]`` says what was taken for the header.

    Raises a SegfairError: there is no such file, it is of another kind, cannot be read, has no row,
    two columns of one name, a row with more values than the header has names, or more of anything
    than any table of people has.
    """
    if not path.is_file():
        raise SegfairError(f"{path}: no such {what}: correct {key}")
    kind = path.suffix.lower()
    readers = dict.fromkeys((".csv", ".tsv", ".txt"), _read_text) | dict.fromkeys((".xlsx", ".xlsm"), _read_sheet)
    reader = (readers | {".parquet": _read_parquet}).get(kind)
    if reader is None:
        raise SegfairError(f"{path.name}: a {what} must be .csv, .tsv, .xlsx or .parquet")
    if path.stat().st_size > _MOST_BYTES:
        raise _refuse_size(path, what, f"has {path.stat().st_size:,} bytes")
    try:
        rows, place, remarks = reader(path)
        texts = [[_write_out(value) for value in row] for row in rows]
    except SegfairError:
        raise
    except Exception as error:  # openpyxl and pyarrow raise whatever their parsers meet
        raise SegfairError(
            f"{path.name}: the {what} cannot be read: it may be damaged, or of another kind than its name "
            "says: save it again"
        ) from error
    header = next((place for place, row in enumerate(texts) if any(row)), 0)
    names = [name or "" for name in texts[header]] if texts else []
    texts, place = [row for row in texts[header + 1 :] if any(row)], place.format(header + 1)
    if not any(names):
        raise SegfairError(f"{path.name}: the {what} is empty: it needs a header and one row per scan")
    if len(names) > _MOST_COLUMNS:
        raise _refuse_size(path, what, f"has {len(names):,} columns")
    for name in sorted(name for name, times in Counter(filter(None, names)).items() if times > 1):
        raise SegfairError(f"{path.name}: the {what} has two columns named {quote(name)}: rename one of them")
    if any(len(value) > _LONGEST_CELL for row in texts for value in row if value):
        raise SegfairError(
            f"{path.name}: the {what} has a cell of more than {_LONGEST_CELL:,} letters: close the quotation mark "
            "before it, or shorten it"
        )
    if any(any(row[len(names) :]) for row in texts):
        raise SegfairError(
            f"{path.name}: has rows with more values than its header has names: "
            "remove separators at the ends of lines, quote values that hold one"
        )
    if not texts:
        where = f" below its header ({place})" if place else ""
        raise SegfairError(f"{path.name}: the {what} has no rows{where}: it needs one row per scan")
    table = pd.DataFrame(
        {
            name: pd.Series([row[column] if column < len(row) else None for row in texts], dtype="str")
            for column, name in enumerate(names)
            if name
        }
    )
    table.attrs |= {PLACE: place, REMARKS: remarks}
    return table


def _refuse_size(path: Path, what: str, fault: str) -> SegfairError:
    return SegfairError(
        f"{path.name}: the {what} {fault}, more than is read: keep the rows and columns that the study needs"
    )


_Read = tuple[Iterable[Sequence[object]], str, list[str]]  # rows, and what DataFrame.attrs hold


def _read_text(path: Path) -> _Read:
    """Read a text table; Excel's own first line ``sep=;`` names the separator and is no row."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError
    except ValueError:
        raise SegfairError(f"{path.name}: is not UTF-8 text: save it as UTF-8 (Excel: CSV UTF-8)") from None
    lines = text.splitlines(keepends=True) or [""]
    stated = re.fullmatch(r"sep=(.)\s*", lines[0], re.IGNORECASE | re.DOTALL)
    if stated:
        lines[0] = "\n"
    separator = stated.group(1) if stated else max("\t;,", key=next(filter(str.strip, lines), "").count)
    if text.count(separator) + len(lines) > _MOST_CELLS:
        raise _refuse_size(path, "table", f"has more than {_MOST_CELLS:,} cells")
    csv.field_size_limit(max(len(text) + 1, csv.field_size_limit()))  # cells may be long
    reader = csv.reader(io.StringIO("".join(lines), newline=None), delimiter=separator, strict=True)
    try:
        return list(reader), "line {}", []
    except csv.Error:  # strict: of quotation marks alone
        raise SegfairError(
            f"{path.name}: cannot be read: a quotation mark up to line {reader.line_num} is not closed, or text "
            "follows it: correct the quotes"
        ) from None


def _read_sheet(path: Path) -> _Read:
    """Read the first sheet that is shown; a coloured row or column has cells without values.

    Cells that are merged downwards have the value of the first one, as it looks.
    """
    from openpyxl import load_workbook  # a third of a second, which other tables can do without

    with path.open("rb") as stream:
        if stream.read(4) == _OLD_WORKBOOK:
            raise SegfairError(f"{path.name}: is encrypted, or of an old Excel: save it as .xlsx without a password")
    with zipfile.ZipFile(path) as packed:
        unpacked = sum(part.file_size for part in packed.infolist())
    if unpacked > _MOST_SHEET_BYTES:
        raise SegfairError(f"{path.name}: unpacks to {unpacked:,} bytes, too many for a workbook: save it as CSV")
    sheets = [sheet for sheet in load_workbook(path, data_only=True).worksheets if sheet.sheet_state == "visible"]
    sheet = sheets[0]
    if sheet.max_row * sheet.max_column > _MOST_SHEET_CELLS:
        raise SegfairError(
            f"{path.name}: its table reaches to row {sheet.max_row:,} and column {sheet.max_column:,}: delete what "
            "stands or is coloured beyond its people, or save it as CSV"
        )
    _refuse_uncomputed(path, sheet, load_workbook(path)[sheet.title])
    rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    for one in sheet.merged_cells.ranges:
        if one.min_col == one.max_col:
            for row in range(one.min_row, one.max_row):
                rows[row][one.min_col - 1] = rows[one.min_row - 1][one.min_col - 1]
    hidden = sum(sheet.row_dimensions[row].hidden for row in sheet.row_dimensions if row <= len(rows))
    remarks = [f"{path.name}: {count(hidden, 'row is', 'rows are')} hidden and read as the others"] if hidden else []
    shown = sheet.title.replace("{", "{{").replace("}", "}}")
    return rows, "row {}" if len(sheets) == 1 else f"row {{}} of {shown!r}, the first of several sheets", remarks


def _refuse_uncomputed(path: Path, sheet: Any, formulas: Any) -> None:
    """Refuse a sheet of formulas whose results were never stored: their cells would be empty."""
    cells = [cell.coordinate for row in formulas.iter_rows() for cell in row if cell.data_type == "f"]
    if cells and all(sheet[cell].value is None for cell in cells):
        raise SegfairError(
            f"{path.name}: holds formulas without results (cell {cells[0]}): "
            "open it in Excel or LibreOffice and save it"
        )


def _read_parquet(path: Path) -> _Read:
    """Read a typed table; ids kept in a named index are a column."""
    stored = pq.read_metadata(path)
    if stored.num_rows * stored.num_columns > _MOST_CELLS or stored.num_columns > _MOST_COLUMNS:
        raise _refuse_size(path, "table", f"has {stored.num_rows:,} rows and {stored.num_columns:,} columns")
    table = pd.read_parquet(path)
    if any(name is not None and name not in table for name in table.index.names):
        table = table.reset_index()
    columns = [_list_values(table.iloc[:, place]) for place in range(table.shape[1])]
    return [list(table.columns), *zip(*columns, strict=True)], "", []


def _list_values(column: pd.Series) -> list[object]:
    """Return a typed column's values: those of a float32 as such, whose own digits are fewer."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = [*_list_values(column.cat.categories.to_series()), None]
        return [categories[code] for code in column.cat.codes]
    if pd.api.types.is_float_dtype(column.dtype):
        return list(column.to_numpy(f"f{column.dtype.itemsize}", na_value=np.nan))
    return list(column.array)


def _write_out(value: object) -> str | None:
    """Return a value as one would read it: 1.0 as 1, float32 24.3 as 24.3; None where empty."""
    if not isinstance(value, str):
        if value is None or value is pd.NA or value is pd.NaT or value != value:
            return None
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            value = int(value)
        value = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    # Spaces around a word are typing, not data; what is then empty is missing. Letters and accents
    # apart (macOS) or together are one spelling.
    return (value if value.isascii() else unicodedata.normalize("NFC", value)).strip() or None
