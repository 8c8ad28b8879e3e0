"""What was worked out is kept by what it depends on, so that nothing is worked out again.

A key is a hash of all that a result depends on: what files hold (:class:`Contents`), settings, and
the code. Another file, setting or code has another key; what no key asks for any more is swept.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import zlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from helpers import dicom, storage
from helpers.errors import StageError
from helpers.own_code import OwnCode

FOLDER = "kept"
# Headers whose voxels lie in another file, and what that is called.
_HEADERS, _VOXELS = (".hdr", ".img", ".mhd", ".nhdr"), (".hdr", ".img", ".raw", ".zraw", ".img.gz", ".raw.gz")
# What computes numbers, and may give another last digit with another version.
_LIBRARIES = ("SimpleITK", "edt", "numpy", "scipy", "scikit-image")


@dataclass(frozen=True)
class Reading:
    """What a place held when it was read: a file, or all files of a folder.

    An image of a DICOM series stands for the folder it lies in, a header for its voxels too.
    """

    place: Path
    is_folder: bool
    stamp: list[Any]
    content: str  # SHA-256, of several files that of their names and hashes


@dataclass(frozen=True)
class Ingredients:
    """One result that is wanted, by all that it depends on."""

    places: tuple[Path, ...]
    settings: str  # a hash of everything else


class Journal:
    """JSON values by key in a file of lines, each added as soon as it is known.

    A line holds check sum, key and value: what a kill, a full disk or a second process left of one
    is not read. Of several lines of one key the last counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._load()

    def __del__(self) -> None:
        """Close the file."""
        self._close()

    def __contains__(self, key: str) -> bool:
        """Tell whether there is a value."""
        return _escape(key) in self._found

    def get(self, key: str) -> Any:
        """Return a value; None where there is none."""
        found = self._found.get(_escape(key))
        if found is None or self._file is None:
            return None
        start, length = found
        return json.loads(os.pread(self._file, length, start).decode())

    def list_keys(self) -> list[str]:
        """Return the keys of all values."""
        return [key.decode("unicode_escape") for key in self._found]

    def put(self, key: str, value: Any) -> None:
        """Add a value to the file; a SegfairError where it cannot be written."""
        escaped, text = _escape(key), encode(value).encode()
        line = _make_line(escaped, text)
        with storage.explain_unwritable(self._path):
            end = _append(self._open_to_append(), line)
        self._found[escaped] = (end - 1 - len(text), len(text))
        self._lines += 1

    def sweep(self, used: Collection[str] | None = None) -> None:
        """Write the file anew, without values of other keys (None: of none), if there are any."""
        wanted = None if used is None else {_escape(key) for key in used}
        if self._file is None or self._lines == sum(wanted is None or key in wanted for key in self._found):
            return
        self._load()  # a second process may have added some
        kept = {key: place for key, place in self._found.items() if wanted is None or key in wanted}
        with storage.write_atomically(self._path) as temporary, temporary.open("wb") as stream:
            for key, (start, length) in kept.items():
                stream.write(_make_line(key, os.pread(self._file, length, start)))
        self._load()

    def _load(self) -> None:
        self._close()
        self._found: dict[bytes, tuple[int, int]] = {}  # where the values of the file are: start, length
        self._lines, self._appends = 0, False
        with suppress(FileNotFoundError):
            self._file = os.open(self._path, os.O_RDONLY)
            self._read_lines()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read_lines(self) -> None:
        with self._path.open("rb") as stream:
            start = 0
            for line in stream:
                self._lines += 1
                head, _, rest = line.partition(b"\t")
                key, tab, text = rest.partition(b"\t")
                if tab and text.endswith(b"\n") and head == b"%08x" % zlib.crc32(rest[:-1]):
                    self._found[key] = (start + len(line) - len(text), len(text) - 1)
                start += len(line)

    def _open_to_append(self) -> int:
        if self._file is not None and self._appends:
            return self._file
        self._path.parent.mkdir(parents=True, exist_ok=True)
        former, self._file = self._file, os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        if former is not None:
            if not os.path.samestat(os.fstat(former), os.fstat(self._file)):  # a second process swept it
                self._found, self._lines = {}, 0
                self._read_lines()
            os.close(former)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            _append(self._file, b"\n")  # ends what a kill left of a line
        self._appends = True
        return self._file


def encode(value: Any) -> str:
    """Return a value as JSON in one line; NumPy's numbers as Python's."""
    return json.dumps(value, separators=(",", ":"), default=lambda one: one.item())


def _make_line(key: bytes, text: bytes) -> bytes:
    rest = key + b"\t" + text
    return b"%08x\t%b\n" % (zlib.crc32(rest), rest)


def _escape(key: str) -> bytes:
    return key.encode("unicode_escape")  # no tab and no line break is left


def _append(file: int, data: bytes) -> int:
    """Write at the end of a file; return where that is now."""
    while data:
        data = data[os.write(file, data) :]
    return os.lseek(file, 0, os.SEEK_CUR)


class Contents:
    """What the files of a study hold: read again only where size, times or inode are others.

    Whoever keeps size and both times of a file he edits is found out by :meth:`list_places` and
    another reading alone (``segfair run --verify``).
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / FOLDER / "contents.jsonl")
        self._unwritten: dict[str, Reading] = {}

    def recall(self, place: Path | str) -> str | None:
        """Return what a place holds, if that is known without reading it."""
        known = self._unwritten.get(str(place))
        noted: Any = self._journal.get(str(place)) if known is None else [known.is_folder, known.stamp, known.content]
        if noted is None:
            return None
        is_folder, stamp, content = noted
        return str(content) if _stamp(place, is_folder=is_folder) == stamp else None

    def is_changed(self, place: Path) -> bool:
        """Tell whether a place that was read before has another stamp now."""
        return (str(place) in self._journal or str(place) in self._unwritten) and self.recall(place) is None

    def find(self, place: Path | str) -> str | None:
        """Return what a place holds, read if need be; None where it cannot be read.

        What is read is noted in the file by :meth:`flush`.
        """
        content = self.recall(place)
        if content is None and (reading := read_place(Path(place))) is not None:
            self._unwritten[str(place)] = reading
            content = reading.content
        return content

    def learn(self, readings: Iterable[Reading]) -> None:
        """Note what was read."""
        for reading in readings:
            self._journal.put(str(reading.place), [reading.is_folder, reading.stamp, reading.content])

    def note(self, file: Path, content: str) -> None:
        """Take what a file holds from whoever has just written it, until :meth:`flush`."""
        stamp = _stamp(file, is_folder=False)
        if stamp is not None:
            self._unwritten[str(file)] = Reading(file, False, stamp, content)

    def flush(self) -> None:
        """Note what was read meanwhile."""
        self.learn(self._unwritten.values())
        self._unwritten.clear()
        self._journal.sweep()

    def list_places(self) -> list[Path]:
        """Return every place that is known and still there."""
        return [path for path in map(Path, self._journal.list_keys()) if storage.is_there(path)]


def read_place(place: Path) -> Reading | None:
    """Read and hash a place; None where it is not there, or cannot be read."""
    try:
        is_folder = place.is_dir() or (dicom.looks_like_dicom(place) and not dicom.is_mask(place))
        stamp = _stamp(place, is_folder=is_folder)
        if stamp is None:
            return None
        files = _list_files(place, is_folder=is_folder)
        hashes = [[file.name, storage.hash_file(file)] for file in files]
        return Reading(place, is_folder, stamp, hashes[0][1] if files == [place] else storage.hash_value(hashes))
    except OSError:
        return None


def is_same(reading: Reading) -> bool:
    """Tell whether a place is as it was when it was read."""
    return _stamp(reading.place, is_folder=reading.is_folder) == reading.stamp


def _list_files(place: Path, *, is_folder: bool) -> list[Path]:
    if is_folder:
        folder = place if place.is_dir() else place.parent
        return sorted(entry for entry in folder.iterdir() if entry.is_file())
    if place.suffix.lower() not in _HEADERS:
        return [place]
    return [place, *(file for end in _VOXELS if (file := place.with_suffix(end)) != place and file.is_file())]


def _stamp(place: Path | str, *, is_folder: bool) -> list[Any] | None:
    """Return size, times and inode of a file, or a hash of those of several."""
    try:
        if not is_folder and not str(place).lower().endswith(_HEADERS):
            return _stamp_file(place)
        files = _list_files(Path(place), is_folder=is_folder)
        return [storage.hash_value([[file.name, *_stamp_file(file)] for file in files])]
    except OSError:
        return None


def _stamp_file(path: Path | str) -> list[Any]:
    status = os.stat(path)  # noqa: PTH116 (a third of the time of Path.stat, and there are many)
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


class Kept:
    """What a study keeps of one kind of work: records in a journal, arrays in files beside it.

    `folder` is the study's; `kind` is what journal and folder of files are called.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._study = folder
        self.records = Journal(folder / FOLDER / f"{kind}.jsonl")
        self.folder = folder / FOLDER / kind  # of the arrays

    @cached_property
    def contents(self) -> Contents:
        """What the study's files hold."""
        return Contents(self._study)

    def make_key(self, wanted: Ingredients) -> str | None:
        """Return the key of a result; None where what a file holds is not known."""
        contents = [self.contents.recall(place) for place in wanted.places]
        return None if None in contents else storage.hash_value([wanted.settings, contents])[:32]

    def path(self, key: str) -> Path:
        """Return where the arrays of a key lie, present or not."""
        return find_file(self.folder, key)

    def sweep(self, used: Collection[str]) -> None:
        """Remove what none of the keys asks for."""
        wanted = set(used)
        self.records.sweep(wanted)
        for path in self.folder.glob("*/*.npz"):
            if path.stem not in wanted:
                path.unlink(missing_ok=True)


def find_file(folder: Path, key: str) -> Path:
    """Return where the arrays of a key lie, in one of 256 folders: none holds too many files."""
    return folder / key[:2] / f"{key}.npz"


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as compressed .npz, whole or not at all."""
    with storage.write_atomically(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read the arrays of a file; None where there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, KeyError, ValueError, EOFError):
        return None


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file that must be there; a StageError where it is not."""
    arrays = read_arrays(path)
    if arrays is None:
        raise StageError(f"{path} is missing or damaged: run the same command again")
    return arrays


@lru_cache(maxsize=16)
def hash_code(*modules: str) -> str:
    """Return a hash of the code that the numbers of some modules come from, and of libraries.

    `modules` are dotted names below the package; what they import counts with them
    (:class:`helpers.own_code.OwnCode`).
    """
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return storage.hash_value([_read_own_code().hash_code(modules, numbers=True), versions])


@lru_cache(maxsize=1)
def _read_own_code() -> OwnCode:
    return OwnCode.read()


def hash_settings(*parts: Any) -> str:
    """Return a hash of what a result depends on beside files; pydantic's models as their values."""
    return storage.hash_value(_simplify(parts))


def _simplify(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return [[_simplify(key), _simplify(one)] for key, one in value.items()]  # their order counts
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_simplify(one) for one in value]
    return value
