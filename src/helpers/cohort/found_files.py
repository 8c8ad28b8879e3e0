"""Files and folders whose names hold the ids of a table, sorted by how they are called.

Names are compared by their words and numbers: the id ``7`` is found in ``case_007_0000.nii.gz``,
``P1`` is not found in ``P10.nii.gz``. Files that are called alike but for the id are one group.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.dicom import looks_like_dicom
from helpers.errors import SegfairError
from helpers.volumes import SUFFIXES

MARK = "{}"  # what stands for the id in a group's name
_VARIES = "#"  # what stands for numbers that differ from person to person
_MOST_FILES = 300_000
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_SLICE_SUFFIXES = (".dcm", ".dicom", ".ima")
_OUTPUT = "cohort.parquet"
_REGULAR = 0.5  # more than this part of a group's ids must have each of its exact names


@dataclass
class FileGroup:
    """Files called alike: a file, a folder of DICOM slices or of masks for each id."""

    name: str  # relative to the folder, with {} for the id and # for what differs otherwise
    paths: dict[str, list[str]] = field(default_factory=dict)  # by id, relative to the folder
    organs: list[str] = field(default_factory=list)  # of a folder of masks: what its files are called

    @property
    def pattern(self) -> str | None:
        """The one name that all its files have, with {} for the id; None where they have not."""
        given = all([self.name.replace(MARK, key)] == paths for key, paths in self.paths.items())
        return self.name if given else None


@dataclass(frozen=True)
class _Match:
    key: str
    path: str
    exact: str  # the file's name with the id marked, if it stands there as in the table
    loose: str  # likewise with numbers beside it marked


def list_files(folder: Path) -> list[str]:
    """List the images, masks and DICOM folders below a folder, relative to it, in order.

    Raises a SegfairError: there are too many files to look at.
    """
    found: list[str] = []
    seen, looked_at = set[str](), 0
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or _OUTPUT in files:  # a link back, or what a study wrote
            folders.clear()
            continue
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        seen.add(real)
        looked_at += len(files)
        if looked_at > _MOST_FILES:
            raise SegfairError(
                f"{folder}: more than {_MOST_FILES:,} files lie below it: name the folders of your scans by --images "
                "and --masks"
            )
        files = sorted(one for one in files if not one.startswith("."))
        relative = Path(place).relative_to(folder)
        if _is_dicom(place, files):
            found.append(relative.as_posix())
        found += [(relative / one).as_posix() for one in files if one.lower().endswith(SUFFIXES)]
    return sorted(found)


def _is_dicom(place: str, files: Sequence[str]) -> bool:
    """Tell by names, or else by the first file, whether a folder holds DICOM slices."""
    if any(one.lower().endswith(_SLICE_SUFFIXES) for one in files):
        return True
    bare = next((one for one in files if "." not in one or one.replace(".", "").isdigit()), None)
    return bare is not None and looks_like_dicom(Path(place, bare))


def group_files(files: Iterable[str], keys: Sequence[str]) -> list[FileGroup]:
    """Group files by how they are called, most ids first.

    A file that fits several of `keys`, the ids of a table, goes to the group with the most ids.
    """
    index = _index(keys)
    longest = max((len(_TOKEN.findall(key)) for key in keys), default=0)
    matches = {path: list(_match(path, index, longest)) for path in files}
    ids: dict[str, set[str]] = defaultdict(set)
    for several in matches.values():
        for one in several:
            ids[one.loose].add(one.key)
    chosen = [
        max(several, key=lambda one: (len(ids[one.loose]), len(one.key))) for several in matches.values() if several
    ]
    loose: dict[str, list[_Match]] = defaultdict(list)
    for one in chosen:
        loose[one.loose].append(one)
    groups = [group for name, several in loose.items() for group in _split(name, several)]
    return sorted(groups, key=lambda group: (-len(group.paths), group.name))


def join_folders(groups: Sequence[FileGroup]) -> list[FileGroup]:
    """Join masks of one organ each that lie in a folder per id: one group of such folders.

    Groups of other files are left out.
    """
    beside: dict[str, list[FileGroup]] = defaultdict(list)
    for group in groups:
        parent, _, name = group.name.rpartition("/")
        if MARK in parent and MARK not in name and _VARIES not in name and _split_suffix(name)[0].isascii():
            beside[parent].append(group)
    joined = []
    for parent, parts in beside.items():
        if len(parts) > 1:
            folder = FileGroup(parent, organs=sorted(_split_suffix(part.name.rpartition("/")[2])[0] for part in parts))
            for part in parts:
                for key, paths in part.paths.items():
                    folders = folder.paths.setdefault(key, [])
                    folders += [one for path in paths if (one := path.rpartition("/")[0]) not in folders]
            joined.append(folder)
    return joined


def _split_suffix(name: str) -> tuple[str, str]:
    suffix = next((end for end in SUFFIXES if name.lower().endswith(end)), "")
    return name[: len(name) - len(suffix)], suffix


def _index(keys: Sequence[str]) -> dict[str, list[str]]:
    """Return ids by what they are looked for as: in small letters, numbers without their zeros."""
    index: dict[str, list[str]] = defaultdict(list)
    for key in dict.fromkeys(keys):
        index[_simplify(key)].append(key)
    return index


def _simplify(text: str) -> str:
    return (text.lstrip("0") or "0") if text.isdecimal() else text.casefold()


def _match(path: str, index: dict[str, list[str]], longest: int) -> Iterator[_Match]:
    """Find ids in a path, each at all of its places; `longest` is how many words an id has."""
    tokens = list(_TOKEN.finditer(path))
    spans: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for first, start in enumerate(tokens):
        for end in tokens[first : first + longest]:
            text = path[start.start() : end.end()]
            for key in index.get(_simplify(text), ()):
                spans[key, text].append((start.start(), end.end()))
    for (key, _), places in spans.items():
        marked = path
        for left, right in reversed(places):
            marked = f"{marked[:left]}\0{marked[right:]}"
        loose = _NUMBER.sub(_VARIES, marked)
        yield _Match(key, path, marked.replace("\0", MARK), loose.replace("\0", MARK))


def _split(name: str, several: Sequence[_Match]) -> Iterator[FileGroup]:
    """Part files that differ by numbers beside the id, where most ids have the same numbers."""
    by_name: dict[str, list[_Match]] = defaultdict(list)
    for one in several:
        by_name[one.exact].append(one)
    least = _REGULAR * len({one.key for one in several})
    regular = all(len({one.key for one in part}) > least for part in by_name.values())
    for exact, part in by_name.items() if regular else [(name, list(several))]:
        group = FileGroup(exact)
        for one in part:
            group.paths.setdefault(one.key, []).append(one.path)
        yield group
