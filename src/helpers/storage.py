"""Files that are whole or absent, and tables whose absence names the stage to run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from filelock import FileLock

from helpers.errors import SegfairError, StageError
from helpers.schema import Table

SCRATCH = "segfair-"  # what the names of scratch folders begin with
_PARTIAL = ".partial-"
_IN_USE = ".in-use"
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_MAKING_SECONDS, _WRITING_SECONDS = 60, 3600


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces `path` when the block succeeds.

    A crash, a full disk or a kill leaves the former file as it was. The temporary name keeps the
    suffixes of `path`, because image writers choose the format by them.

    Its folder is made when missing.

    Raises a SegfairError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    suffixes = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix
    temporary: Path | None = None
    try:
        with explain_unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_PARTIAL, suffix=suffixes, dir=path.parent)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            # mkstemp makes files private; a study folder is often shared: follow the umask.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def explain_unwritable(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be written into a SegfairError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SegfairError(
                f"{path}: the disk is full: free some space and run the same command again; what was finished is kept"
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            raise SegfairError(
                f"{path.name}: the name is too long for a file here: give the scan a shorter one"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise SegfairError(
                f"{path.parent}: cannot be written ({error.strerror}): "
                "choose another folder under `outputs` or change its permissions"
            ) from error
        if error.errno in (errno.EIO, errno.ESTALE, errno.EBUSY, errno.ETIMEDOUT):  # a network's folder, above all
            raise SegfairError(
                f"{path}: cannot be written ({error.strerror}): look after the disk or its network and run the same "
                "command again; what was finished is kept"
            ) from error
        raise


@contextmanager
def open_scratch(place: Path | None = None, prefix: str = SCRATCH) -> Iterator[Path]:
    """Make a folder for what nobody needs afterwards; remove it at the end.

    Those that killed processes left there go first: a folder that is in use is locked.

    It lies in `place`, by default where temporary files do, and its name begins with `prefix`.
    """
    place = place or Path(tempfile.gettempdir())
    for former in place.glob(f"{prefix}*/{_IN_USE}"):
        _remove_abandoned(former)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as folder:
        lock = FileLock(Path(folder) / _IN_USE)
        with suppress(OSError, NotImplementedError):  # where nothing can be locked, nothing is removed either
            lock.acquire(timeout=0)
        try:
            yield Path(folder)
        finally:
            lock.release()


def _remove_abandoned(held: Path) -> None:
    """Remove the scratch folder of a lock that nobody holds; others' cannot be opened."""
    lock = FileLock(held)
    with suppress(OSError, NotImplementedError):
        if time.time() - held.stat().st_mtime < _MAKING_SECONDS:  # it may not have been locked yet
            return
        lock.acquire(timeout=0)
        try:
            shutil.rmtree(held.parent, ignore_errors=True)
        finally:
            lock.release()


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing, anywhere below a folder.

    A file younger than an hour may still be written.
    """
    for path in folder.rglob(f"{_PARTIAL}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _WRITING_SECONDS:
                path.unlink()


def make_absolute(path: Path) -> Path:
    """Return a path absolute and without ``..``, its links as they are.

    A link's name, not its target's, is what its owner calls the file; stores name files by content.
    """
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow links, absolute keep "..")


def expand_home(path: Path) -> Path:
    """Return a path with ``~`` filled in.

    It stays as it is where no home is known, or where ``~`` begins a file's name.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises in both cases)


def is_there(path: Path) -> bool:
    """Return whether a file or folder is there: False too for a name longer than any can be.

    True where that cannot be told (in a folder that may not be searched): opening it says why.
    """
    try:
        return path.exists()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes; an OSError too where it is a pipe, a device or a socket.

    Those would be waited for, or read without end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not an ordinary file", str(path))
    return path.open("rb")


def find_spelling(path: Path) -> Path:
    """Return the file of an absolute path's name in other code points, where there is one.

    macOS takes letters and accents apart, others keep them together; else the path itself.
    """
    if is_there(path):
        return path
    place = Path(path.anchor)
    for name in path.parts[1:]:
        found = place / name
        if not name.isascii() and not is_there(found):
            wanted = unicodedata.normalize("NFC", name)
            with suppress(OSError):  # a folder that is none, or may not be read
                same = (one for one in place.iterdir() if unicodedata.normalize("NFC", one.name) == wanted)
                found = next(same, found)
        place = found
    return place


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
            temporary.write_text(format_csv(table), encoding="utf-8", newline="")
        else:
            raise ValueError(f"path must end in .parquet or .csv; got {path.name!r}")


def format_csv(table: pd.DataFrame, *, index: bool = False) -> str:
    """Return a table as CSV in which no spreadsheet takes a text for a formula.

    Texts that begin with = + - @ a tab or a carriage return, and are no number, get an apostrophe
    in front, as spreadsheets themselves mark text (OWASP, CSV injection). :func:`read_table` takes
    it off.
    """
    frame = table.reset_index() if index else table
    columns = {place: frame.iloc[:, place] for place in range(frame.shape[1])}
    texts = {place: column.map(_mark_text) for place, column in columns.items() if _may_hold_text(column)}
    safe = pd.DataFrame(columns | texts) if columns else frame
    safe.columns = pd.Index([_mark_text(name) for name in frame.columns])
    return safe.to_csv(index=False)


def _may_hold_text(column: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _mark_text(value: Any) -> Any:
    if not (isinstance(value, str) and _FORMULA.match(value)):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def read_table(path: Path, table: Table) -> pd.DataFrame:
    """Read a .parquet or .csv table that an earlier stage wrote, just as it was.

    `table` knows the columns' types, which a CSV file does not tell.

    Raises a StageError: the table is missing, or a column of numbers holds something else.

    Returns a DataFrame: of a CSV file, text is empty where there is none (a group called "NA" or
    "1" keeps its name), numbers are float64, counts int64 (float64 where one is missing), flags
    bool.
    """
    if not path.exists():
        raise StageError(
            f"{path.name} is missing in {path.parent}: "
            f"run {table.made_by} or `segfair run PARAMS --until {table.made_by[:2]}`"
        )
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    text = text.rename(columns=_unmark_text).map(_unmark_text)
    return pd.DataFrame(
        {name: _parse_column(text[name], table.find_kind(name), path, table) for name in text}, columns=text.columns
    )


def _unmark_text(value: str) -> str:
    return value[1:] if value.startswith("'") and _FORMULA.match(value) else value


def _parse_column(column: pd.Series, kind: str, path: Path, table: Table) -> pd.Series:
    """Return a column of cells, which are text in a CSV file, as what it holds."""
    if kind == "text":
        return column.astype(object)
    if kind == "flag":
        wrong = ~column.isin(["True", "False"])
        parsed = column == "True"
    else:
        empty = column == ""
        parsed = pd.to_numeric(column.mask(empty, "nan"), errors="coerce").astype(float)
        wrong = parsed.isna() & ~empty & (column.str.lower() != "nan")
        if kind == "count" and not parsed.isna().any():
            parsed = parsed.astype(np.int64)
    if wrong.any():
        raise StageError(
            f"{path.name}: column {column.name} must hold {'True or False' if kind == 'flag' else 'numbers'}; "
            f"it holds {column[wrong].iloc[0]!r}: run {table.made_by} again"
        )
    return parsed


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as lower-case hex."""
    digest = hashlib.sha256()
    with open_file(path) as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def hash_value(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of key order, as lower-case hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
