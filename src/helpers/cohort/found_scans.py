"""Which files beside a table are its scans, the experts' masks and the masks of models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cohort.found_files import MARK, FileGroup, group_files, join_folders, list_files
from helpers.cohort.found_masks import classify
from helpers.errors import SegfairError
from helpers.storage import is_there, make_absolute
from helpers.vocabulary.recorded import PREDICTION_WORDS, REFERENCE_WORDS, spell_word
from helpers.vocabulary.words import list_words
from helpers.volumes import SUFFIXES

OURS = ("subject", "scan", "sex", "age", "bmi", "weight", "height", "modality", "site", "scanner", "ethnicity")
_MOST_KINDS = 150  # groups of files of which one is opened, to see what they are
_MOST_TRIED = 5  # files of a group
_LEAST_SHARE = 0.5  # of the people with a reference: what fewer have is no model's and no image
_UNIQUE = 0.9  # of a column's values that differ, where its name does not say that it holds ids


@dataclass
class FoundScans:
    """What lies beside a table, by the values of one of its columns."""

    base: Path  # the table's folder
    key: str  # that column
    reference: FileGroup
    image: FileGroup | None = None
    pictures: list[FileGroup] = field(default_factory=list)  # the groups that `image` was made of
    models: list[FileGroup] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # names of groups of masks that are none of these
    columns: dict[str, str] = field(default_factory=dict)  # ours → the table's own column of paths

    def resolve(self, path: str) -> Path:
        """Return a path of a group, absolute."""
        return make_absolute(self.base / path)

    def list_masks(self, most: int) -> list[tuple[Path, Path | None]]:
        """Return some of the references, evenly drawn, each with its image."""
        keys = sorted(self.reference.paths)
        keys = [keys[place] for place in np.unique(np.linspace(0, len(keys) - 1, min(most, len(keys))).astype(int))]
        images = self.image.paths if self.image is not None else {}
        first = [(self.reference.paths[key][0], next(iter(images.get(key, ())), None)) for key in keys]
        return [(self.resolve(mask), None if image is None else self.resolve(image)) for mask, image in first]


def find_scans(
    table: Path,
    people: pd.DataFrame,
    columns: Mapping[str, str],
    *,
    images: Path | None = None,
    masks: Path | None = None,
) -> FoundScans:
    """Find the scans, references and models' masks of a table of people.

    `people` is the table as text, `columns` are from :func:`helpers.cohort.columns.find_columns`.
    Files are looked for below the table's folder, and in `images` and `masks`.

    Raises a SegfairError: a folder is not there; no masks are called by the values of a column.
    """
    base = table.parent
    folders = {name: make_absolute(one.expanduser()) for name, one in (("images", images), ("masks", masks)) if one}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise SegfairError(f"--{name} {folder}: no such folder: correct it")
    written = _find_path_columns(people, base)
    if "reference" in written:
        return _take_columns(people, columns, base, written)
    files = [path for folder in [base, *folders.values()] for path in _list_below(folder, base)]
    key, groups = _find_key(people, columns, dict.fromkeys(files), without=set(written.values()))
    drawn, pictures = _open_groups(groups, base)
    given = [group for group in drawn if _lies_in(group, folders.get("masks"), base)]
    if not given:
        where = folders.get("masks", base)
        if any(_lies_in(group, folders.get("masks"), base) for group in groups):
            raise SegfairError(
                f"{where}: files below it are called by the values of the column {key!r} of {table.name}, but no label "
                "was found in those that were opened: name the folder of the experts' masks by --masks"
            )
        raise SegfairError(
            f"{where}: no file below it is called by the values of {_name_tried(people, columns)} of {table.name}: "
            "name the folder of the experts' masks by --masks, or write their paths into a column `reference`"
        )
    reference = max(given, key=lambda group: (_weigh_reference(group), len(group.paths)))
    alike = [group for group in given if _weigh_reference(group) == _weigh_reference(reference)]
    parts = _complete(reference, [group for group in alike if group.organs == reference.organs])
    reference = _unite(parts)
    least = _LEAST_SHARE * len(reference.paths)
    drawn = [group for group in drawn if group not in parts]
    models = [group for group in drawn if _share(group, reference) >= least]
    seen = [group for group in pictures if _lies_in(group, folders.get("images"), base) and _share(group, reference)]
    seen = sorted(seen, key=lambda group: -_share(group, reference))
    shown = _complete(seen[0], seen) if seen else []
    unused = [group.name for group in drawn if group not in models]
    return FoundScans(base, key, reference, _unite(shown) if shown else None, shown, models, unused)


def _complete(first: FileGroup, others: Sequence[FileGroup]) -> list[FileGroup]:
    """Return a group and those of other people: training and test data, or CT and MR."""
    parts, known = [first], set(first.paths)
    for group in others:
        if not known & group.paths.keys():
            parts.append(group)
            known |= group.paths.keys()
    return parts


def _unite(parts: Sequence[FileGroup]) -> FileGroup:
    """Return groups of different people as one."""
    paths = {key: paths for part in parts for key, paths in part.paths.items()}
    return FileGroup(", ".join(part.name for part in parts), paths, parts[0].organs)


def _list_below(folder: Path, base: Path) -> list[str]:
    """List files of a folder relative to the table's where they lie below it, else absolute."""
    prefix = Path() if folder == base else folder.relative_to(base) if folder.is_relative_to(base) else folder
    return [(prefix / one).as_posix() for one in list_files(folder)]


def _find_key(
    people: pd.DataFrame, columns: Mapping[str, str], files: Iterable[str], without: set[str]
) -> tuple[str, list[FileGroup]]:
    """Return the column by whose values most files are called, and the files in groups."""
    files = list(files)
    named = [columns[name] for name in ("subject", "scan") if name in columns and columns[name] not in without]
    taken = {*columns.values(), *without}
    unique = [column for column in people if column not in taken and people[column].nunique() >= _UNIQUE * len(people)]
    best: tuple[int, str, list[FileGroup]] = (0, "", [])
    for candidates in (named, unique):
        for column in candidates:
            groups = group_files(files, [str(value) for value in people[column].dropna()])
            found = len(groups[0].paths) if groups else 0
            if found > best[0]:
                best = (found, column, groups)
        if best[0] >= _LEAST_SHARE * len(people):
            break
    return best[1], best[2]


def _name_tried(people: pd.DataFrame, columns: Mapping[str, str]) -> str:
    named = list(dict.fromkeys(columns[name] for name in ("subject", "scan") if name in columns))
    tried = list_words(map(repr, named or people), last="or")
    return f"the column {tried}" if len(named) == 1 else f"any column ({tried})"


def _open_groups(groups: Sequence[FileGroup], base: Path) -> tuple[list[FileGroup], list[FileGroup]]:
    """Return the groups of masks, those of an organ each as one of folders, and those of images."""
    kinds = {group.name: _tell_kind(group, base) for group in groups[:_MOST_KINDS]}
    folders = join_folders([group for group in groups if kinds.get(group.name) == "mask"])
    joined = {folder.name for folder in folders}
    masks = [group for group in groups if kinds.get(group.name) in ("labels", "mask")]
    masks = [*folders, *(group for group in masks if group.name.rpartition("/")[0] not in joined)]
    return masks, [group for group in groups if kinds.get(group.name) == "image"]


def _tell_kind(group: FileGroup, base: Path) -> str:
    """Tell what a group's files are by the first that tells: one may be empty or damaged."""
    for paths in list(group.paths.values())[:_MOST_TRIED]:
        path = make_absolute(base / paths[0])
        if kind := "image" if path.is_dir() else classify(path):
            return kind
    return ""


def _lies_in(group: FileGroup, folder: Path | None, base: Path) -> bool:
    if folder is None:
        return True
    return make_absolute(base / next(iter(group.paths.values()))[0]).is_relative_to(folder)


def _share(group: FileGroup, reference: FileGroup) -> int:
    return len(group.paths.keys() & reference.paths.keys())


def _weigh_reference(group: FileGroup) -> int:
    """Weigh by the words in its name whether a group of masks is the experts'."""
    words = {spell_word(word) for word in re.split(r"[\W_]+", group.name)}
    words |= {spell_word(part.replace(MARK, "")) for part in group.name.split("/")}
    return bool(words & REFERENCE_WORDS) - 2 * bool(words & PREDICTION_WORDS)


def _find_path_columns(people: pd.DataFrame, base: Path) -> dict[str, str]:
    """Find columns that hold paths of files that are there: reference, image, or their own name."""
    found: dict[str, str] = {}
    for column in people:
        texts = [str(text).replace("\\", "/") for text in people[column].dropna().head(20)]
        # A bare word is an id, though a folder may be called so.
        places = [text for text in texts if "/" in text or text.lower().endswith(SUFFIXES)]
        there = [text for text in places if is_there(base / Path(text).expanduser())]
        if not texts or 2 * len(there) < len(texts):
            continue
        path = base / there[0]
        masks = path.is_dir() and any(classify(one) in ("mask", "labels") for one in _list_volumes(path)[:1])
        kind = "reference" if masks or (path.is_file() and classify(path) != "image") else "image"
        words = set(re.split(r"[\W_]+", column.casefold()))
        found[column if kind in found or (kind == "reference" and words & PREDICTION_WORDS) else kind] = column
    return found


def _list_volumes(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name.lower().endswith(SUFFIXES)]


def _take_columns(
    people: pd.DataFrame, columns: Mapping[str, str], base: Path, written: Mapping[str, str]
) -> FoundScans:
    """Return scans whose files the table itself names, and models' masks called like them."""
    key = next((columns[name] for name in ("scan", "subject") if name in columns and columns[name] not in written), "")
    if not key:
        raise SegfairError(f"no column names the person; the table has {', '.join(people)}: name one of them subject")
    groups = {}
    for name in ("reference", "image"):
        if name in written:
            known = people.dropna(subset=[key, written[name]])
            groups[name] = FileGroup(
                written[name],
                {
                    str(one): [str(path).replace("\\", "/")]
                    for one, path in zip(known[key], known[written[name]], strict=True)
                },
            )
    reference = groups["reference"]
    named = {path for group in groups.values() for paths in group.paths.values() for path in paths}
    files = [path for path in _list_below(base, base) if path not in named and path.rpartition("/")[0] not in named]
    others = group_files(files, list(reference.paths))
    least = _LEAST_SHARE * len(reference.paths)
    models, _ = _open_groups([group for group in others if _share(group, reference) >= least], base)
    first = next(iter(reference.paths.values()))[0]
    if (base / first).is_dir():
        reference.organs = [re.split(r"\.(?=nii|mh|nrrd|nhdr|hdr)", one.name)[0] for one in _list_volumes(base / first)]
    image = groups.get("image")
    return FoundScans(base, key, reference, image, [image] if image else [], models, columns=dict(written))


def list_scans(people: pd.DataFrame, columns: Mapping[str, str], found: FoundScans) -> pd.DataFrame:
    """List the scans with the places of their files: a table of its own, where names are irregular.

    Returns a DataFrame: ``subject``, ``scan`` (the id, or what the reference is called), the
    columns of `people` that a study reads, under their own names, ``reference`` and ``image``.
    """
    person = columns.get("subject", found.key)
    first = people.drop_duplicates(found.key).set_index(found.key, drop=False)
    rows = []
    for key, paths in found.reference.paths.items():
        for path in paths:
            images = found.image.paths.get(key, []) if found.image is not None else []
            rows.append((key, path, _find_own(path, images)))
    keys = [key for key, _, _ in rows]
    named = all(re.search(rf"(?<![^\W_]){re.escape(key)}(?![^\W_])", path) for key, path, _ in rows)
    stems = keys if named else [_cut_suffix(path.rpartition("/")[2]) for _, path, _ in rows]
    if len(set(stems)) < len(stems):
        stems = [_cut_suffix(path).replace("/", "_") for _, path, _ in rows]
    theirs = [columns[name] for name in OURS[2:] if name in columns]
    table = first.loc[keys, list(dict.fromkeys([person, *theirs]))].reset_index(drop=True)
    table = table.rename(columns={person: "subject"})
    table.insert(1, "scan", stems)
    table["reference"] = [str(found.resolve(path)) for _, path, _ in rows]
    if found.image is not None:
        table["image"] = [None if image is None else str(found.resolve(image)) for _, _, image in rows]
    return table


def _find_own(reference: str, images: Sequence[str]) -> str | None:
    """Return the image of one person that shares most of its name with a reference."""
    words = set(re.findall(r"[^\W_]+", reference))
    ranked = sorted(images, key=lambda image: -len(words & set(re.findall(r"[^\W_]+", image))))
    return ranked[0] if ranked else None


def _cut_suffix(path: str) -> str:
    return path[: -len(next((end for end in SUFFIXES if path.lower().endswith(end)), ""))] or path
