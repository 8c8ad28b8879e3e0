"""Files that are whole or absent: atomic writing, and tables whose absence names the stage to run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.errors import SegfairError, StageError

# Columns that hold words in whichever table they occur: empty where there is nothing to say, never missing.
TEXT_COLUMNS = (
    "subject", "scan", "reason", "status", "error", "kind", "meaning", "measures",
    "model", "organ", "metric", "attribute", "group", "worst_group", "best_group", "group_a", "group_b", "model_a", "model_b", "test", "effect",
    "verdict", "covariate", "level", "covariates", "dropped", "warnings", "unit", "note",
)  # fmt: skip


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces `path` when the block succeeds.

    A crash, a full disk or a kill leaves the former file as it was. The temporary name keeps the
    suffixes of `path`, because image writers choose the format by them.

    Parameters
    ----------
    path : Path
        The final file. Its folder is made when missing.

    Raises
    ------
    SegfairError
        The folder cannot be written, or the disk is full.
    """
    path = Path(path)
    suffixes = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".partial-", suffix=suffixes, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes files private; a study folder is often shared, so follow the umask instead.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise SegfairError(
                f"{path}: the disk is full: free some space and run the same command again; what was finished is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise SegfairError(
                f"{path.parent}: cannot be written ({error.strerror}): choose another folder under `outputs` or change its permissions"
            ) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON to `path` atomically."""
    write_text(json.dumps(value, indent=2, sort_keys=False, default=str) + "\n", path)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table to `path` (.parquet or .csv, by its suffix) atomically, without the index."""
    with write_atomically(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        elif path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            raise ValueError(f"path must end in .parquet or .csv; got {path.name!r}")


def read_table(path: Path, *, made_by: str, words: Sequence[str] = ()) -> pd.DataFrame:
    """Read a .parquet or .csv table that an earlier stage wrote, just as it was.

    Parameters
    ----------
    path : Path
        The table.
    made_by : str
        The stage that writes it (``"03_performance"``), named when the table is missing.
    words : sequence of str
        Columns of words besides :data:`TEXT_COLUMNS`, for a CSV file, which does not say so itself.

    Returns
    -------
    DataFrame
        Of a CSV file: columns of words hold text, empty where there is none (a group called "NA" or "1" keeps its name);
        others hold numbers or True and False where every filled cell is one, missing where empty; else text.

    Raises
    ------
    StageError
        The table is missing.
    """
    if not path.exists():
        raise StageError(
            f"{path.name} is missing in {path.parent}: run {made_by} or `segfair run PARAMS --until {made_by[:2]}`"
        )
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return _parse_table(pd.read_csv(path, dtype=str, keep_default_na=False), words)


def _parse_table(table: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """Return a table whose cells are text, as a CSV file has them, with its numbers as numbers."""
    parsed = {}
    for name in table:
        column = table[name]
        filled = column[column != ""]
        if name in words or name in TEXT_COLUMNS:
            parsed[name] = column.astype(object)
        elif len(column) and column.isin(["True", "False"]).all():
            parsed[name] = column == "True"
        elif pd.to_numeric(filled, errors="coerce").notna().all():
            numbers = column.mask(column == "", "nan").astype(float)
            whole = len(column) > 0 and column.str.fullmatch(r"-?\d+").all()
            parsed[name] = numbers.astype(np.int64) if whole else numbers
        else:
            parsed[name] = column.astype(object)
    return pd.DataFrame(parsed, columns=table.columns)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def hash_value(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of key order, as lower-case hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
