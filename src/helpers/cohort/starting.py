"""`segfair init`: a parameter file for somebody's own table and the scans that lie beside it.

Nothing is asked. Every line that was guessed says so, and what it rests on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from helpers import storage
from helpers.cohort.columns import (
    MOST_GROUPS,
    Recorded,
    count_in_bins,
    find_columns,
    propose_bins,
    read_ages,
    read_modality,
    read_sex,
    show_counts,
)
from helpers.cohort.found_files import MARK, FileGroup
from helpers.cohort.found_masks import (
    OPENED,
    describe_label,
    find_labels,
    guess_organs,
    join_sides,
    match_labels,
    name_key,
    read_names,
    tell_modality,
)
from helpers.cohort.found_scans import OURS, FoundScans, find_scans, list_scans
from helpers.cohort.grouping import group_attribute
from helpers.cohort.numbers import find_unreadable, read_numbers
from helpers.cohort.table_files import read_table_file
from helpers.errors import SegfairError
from helpers.parameters import RESERVED_ORGAN, Organ, Parameters
from helpers.parameters.sections import NAME_PATTERN
from helpers.storage import make_absolute
from helpers.vocabulary.anatomy import find_organ
from helpers.vocabulary.words import count, list_words

# Names of tables that say nothing of the study; its folder's does.
_GENERIC = {"participants", "people", "patients", "metadata", "meta", "table", "data", "cohort", "list", "dataset"}
_MOST_ORGANS = 15  # without names; with names those that segfair has a record of
_FEWEST_IN_BAND = 10  # people in each of two of the WHO's bands of BMI, for these to be proposed
_MATCHED = 3  # masks by which a model's labels are matched with organs, images that tell a modality
_CM = 3.0  # a height above this is in cm


@dataclass(frozen=True)
class StartedStudy:
    """What :func:`write_study_file` wrote."""

    path: Path
    table: Path | None  # the table of scans beside it, where the own one could not say all
    summary: list[str]  # what was found, in short lines
    to_check: int  # how many guesses nobody but the table's owner can make


@dataclass
class _Draft:
    """A parameter file in the making."""

    lines: list[str] = field(default_factory=list)
    to_check: int = 0

    def add(self, indent: int, text: str, why: str = "", unsure: str = "") -> None:
        """Add a line; `why` says what a guess rests on, `unsure` what only its owner knows."""
        notes = [f"guess: {why}"] if why else []
        if unsure:
            notes.append(f"TO CHECK: {unsure}")
            self.to_check += 1
        comment = " ".join(f"  # {'; '.join(notes)}".split()) if notes else ""
        self.lines.append(f"{' ' * indent}{text}{'   ' if comment else ''}{comment}")

    def put(self, indent: int, key: str, value: Any, why: str = "", unsure: str = "") -> None:
        """Add a key with its value on one line."""
        self.add(indent, f"{_write(key)}: {_write(value)}", why, unsure)


def _write(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text.removesuffix("\n").removesuffix("\n...")


def write_study_file(
    table: Path, path: Path | None = None, *, folder: Path, images: Path | None = None, masks: Path | None = None
) -> StartedStudy:
    """Write a commented parameter file for a table of people and the scans beside it.

    By default it is ``params/<name>.yaml`` in `folder`, or ``<name>.yaml`` where that has no folder
    ``params``; the name is the table's (CSV, TSV, XLSX or Parquet, one row per person or scan), or
    its folder's where that says more. `images` and `masks` are where scans and experts' masks lie,
    if not below the table's folder.

    Raises a SegfairError: the table cannot be read, no masks are called by the values of any of its
    columns, or a file of that name is there already.
    """
    table = make_absolute(table.expanduser())
    path = make_absolute(folder / path.expanduser()) if path else _choose_path(table, folder)
    scans = path.with_name(f"{path.stem}_scans.csv")
    for there in (path, scans):
        if there.exists():
            raise SegfairError(f"{there.name} is there already and is kept: name another file by -o, or remove it")
    people = read_table_file(table, "table of people", "its path")
    columns = find_columns(people)
    found = find_scans(table, people, columns, images=images, masks=masks)
    listed, made = _needs_list(columns, found), ""
    if listed:
        made = f"files are called by the values of {found.key!r}"
        if "bmi" not in columns and {"weight", "height"} <= columns.keys():
            made += f"; bmi from {columns['weight']!r} in kg and {columns['height']!r} in cm or m"
        people = _add_modality(_add_bmi(list_scans(people, columns, found), columns), columns, found)
        own = {name: name for name in ("subject", "scan", "bmi", "modality") if name in people}
        columns = {name: column for name, column in columns.items() if column in people} | own
    draft = _Draft()
    _write_head(draft, table, scans if listed else None)
    draft.put(0, "name", path.stem if re.fullmatch(NAME_PATTERN, path.stem) else "study")
    draft.add(0, "cohort:")
    draft.put(2, "source", "table")
    draft.put(2, "path", _place(scans if listed else table, path), made)
    summary = _write_study(draft, people, columns, found, is_listed=listed)
    text = "\n".join(draft.lines) + "\n"
    Parameters.model_validate(yaml.safe_load(text))
    if listed:
        storage.write_table(people, scans)
    storage.write_text(text, path)
    return StartedStudy(path, scans if listed else None, summary, draft.to_check)


def _write_study(
    draft: _Draft, people: pd.DataFrame, columns: Mapping[str, str], found: FoundScans, *, is_listed: bool
) -> list[str]:
    """Write all that was guessed; return it in short lines."""
    told, modality = _write_columns(draft, people, columns, found, is_listed=is_listed)
    organs = _write_organs(draft, found, modality)
    subject = "subject" if is_listed else columns.get("subject", found.key)
    rows = people if is_listed else people[people[found.key].isin(found.reference.paths)]
    attributes = _write_groups(draft, rows, columns, subject)
    models = _write_models(
        draft, found, organs, _name_scans(rows, found, subject, is_listed=is_listed), absolute=is_listed
    )
    draft.add(0, "fairness:")
    draft.add(2, "min_group: 10   # smaller groups are neither compared nor shown")
    named = {"organs": list(organs), "attributes": attributes, "models": models}
    return [told, *(f"{key}: {', '.join(names)}" for key, names in named.items())]


def _choose_path(table: Path, folder: Path) -> Path:
    """Return ``params/<name>.yaml`` after the table, or after its folder where that says more."""
    stem = table.parent.name if table.stem.lower() in _GENERIC and table.parent.name else table.stem
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-") or "study"
    return (folder / "params" if (folder / "params").is_dir() else folder) / f"{stem}.yaml"


def _name_scans(rows: pd.DataFrame, found: FoundScans, subject: str, *, is_listed: bool) -> list[tuple[str, str, str]]:
    """Return (the value that files are called by, scan, subject) of every scan."""
    scans = rows["scan" if is_listed else found.key].astype(str)
    keys = [key for key, paths in found.reference.paths.items() for _ in paths] if is_listed else scans
    return list(zip(keys, scans, rows[subject].astype(str), strict=True))


def _place(source: Path, path: Path) -> str:
    """Return a path as the parameter file has it: relative to the project's folder if below it."""
    root = path.parent.parent if path.parent.name == "params" else path.parent
    return source.relative_to(root).as_posix() if source.is_relative_to(root) else str(source)


def _needs_list(columns: Mapping[str, str], found: FoundScans) -> bool:
    """Tell whether the table cannot say where files are, or lacks a BMI that it could have."""
    groups = {"reference": found.reference, "image": found.image}
    irregular = (one for name, one in groups.items() if one is not None and name not in found.columns)
    return any(one.pattern is None for one in irregular) or (
        "bmi" not in columns and {"weight", "height"} <= columns.keys()
    )


def _add_bmi(people: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Replace weight and height, which no study reads, by the BMI if that is lacking."""
    if not {"weight", "height"} <= columns.keys():
        return people
    weight_kg, height = (read_numbers(people[columns[name]]) for name in ("weight", "height"))
    if "bmi" not in columns:
        height_m = height.where(height <= _CM, height / 100)  # one table may hold both
        people.insert(2, "bmi", (weight_kg / height_m**2).round(1))
        people["bmi"] = people["bmi"].astype("str").where(people["bmi"].notna())
    return people.drop(columns=[columns["weight"], columns["height"]])


def _add_modality(people: pd.DataFrame, columns: Mapping[str, str], found: FoundScans) -> pd.DataFrame:
    """Add a column of modalities where images of different names are of different ones."""
    if "modality" in columns or len(found.pictures) < 2:
        return people
    told: dict[str, str] = {}
    for group in found.pictures:
        paths = [found.resolve(path) for several in group.paths.values() for path in several]
        told |= dict.fromkeys(map(str, paths), tell_modality(paths[:_MATCHED])[0])
    return people.assign(modality=people["image"].map(told))


def _write_head(draft: _Draft, table: Path, scans: Path | None) -> None:
    draft.lines += [
        f"# Written by `segfair init` for {' '.join(table.name.split())}. Nothing was asked: a line with “guess” is",
        "# one, with what it rests on; one with “TO CHECK” nobody but you can know. Every key: params/template.yaml",
    ]
    if scans is not None:
        draft.lines += [
            f"# The table of scans, {scans.name}, was made from yours and lies beside this file: what changes in yours",
            "# does not reach it. It holds ids and places of files: share neither.",
        ]
    draft.lines += ["# Next: segfair check, then segfair run.", ""]


def _write_columns(
    draft: _Draft, people: pd.DataFrame, columns: Mapping[str, str], found: FoundScans, *, is_listed: bool
) -> tuple[str, str]:
    """Write the sections columns, values and fill; return what was found, and the modality."""
    scans, images = len(found.reference.paths), len(found.image.paths) if found.image else 0
    modality, told = _tell_modality(people, columns, found)
    section, values = _Draft(), _Draft()
    if not is_listed:
        subject = columns.get("subject", found.key)
        named = f"files are called by its values: masks of {scans} of {people[found.key].nunique()}"
        _map(section, "subject", subject, named if subject == found.key else "by its name")
        if subject != found.key:
            _map(section, "scan", found.key, named)
        for name, column in found.columns.items():
            if name in ("reference", "image"):
                _map(section, name, column, "it holds the places of files")
    for name in ("sex", "age", "bmi", "modality", "site", "scanner", "ethnicity"):
        if name in columns:
            _map(section, name, columns[name], show_counts(people[columns[name]]))
    for name, read in (("sex", read_sex), ("age", read_ages), ("modality", read_modality)):
        meant = read(people[columns[name]]) if name in columns else Recorded()
        unsure = meant.unsure if name == "modality" else ""  # of sex it stands beside the groups
        if meant.meanings or unsure:
            values.put(4, name, meant.meanings, show_counts(people[columns[name]]), unsure)
    fill = _Draft()
    if not is_listed:
        for name, group, number in (("reference", found.reference, scans), ("image", found.image, images)):
            if group is not None and name not in found.columns:
                fill.put(4, name, group.name.replace(MARK, "{scan}"), f"{count(number, 'scan has', 'scans have')} one")
    if "modality" not in columns:
        fill.put(4, "modality", modality, told, "" if told else "whether it is CT or MR, which no image tells")
    for key, part in (("columns", section), ("values", values), ("fill", fill)):
        if part.lines:
            draft.add(2, f"{key}:")
            draft.lines += part.lines
            draft.to_check += part.to_check
    shown = f"masks of {count(scans, 'scan')} ({found.reference.name})"
    return (f"{shown}, images of {images} ({found.image.name})" if found.image else f"{shown}, no images"), modality


def _map(draft: _Draft, name: str, column: str, why: str) -> None:
    if column != name:
        draft.put(4, name, column, why)


def _tell_modality(people: pd.DataFrame, columns: Mapping[str, str], found: FoundScans) -> tuple[str, str]:
    if "modality" in columns:
        recorded = people[columns["modality"]]
        known = recorded.replace(read_modality(recorded).meanings).value_counts()
        return str(known.index[0]), ""
    return tell_modality([image for _, image in found.list_masks(_MATCHED) if image is not None])


def _write_organs(draft: _Draft, found: FoundScans, modality: str) -> dict[str, Organ]:
    """Write the section organs: of each, where its labels lie and how large they are."""
    masks, files = found.list_masks(OPENED), found.reference.organs
    named, source = ({}, "") if files else read_names(masks[0][0], found.base)
    if len(files) > _MOST_ORGANS:
        files = [name for name in files if find_organ(name)] or files[:_MOST_ORGANS]
    labels, opened = find_labels(masks, modality, files)
    if not labels:
        raise SegfairError(f"{found.reference.name}: the masks that were opened hold no label: name others by --masks")
    by_key = {label: name for name, ids in named.items() for label in ids} | {file: file for file in files}
    guesses = {} if by_key else guess_organs(labels)
    labels = join_sides(labels, by_key, guesses)
    total = len(labels)
    if not by_key:
        labels = sorted(labels, key=lambda one: -one.volume_ml)[:_MOST_ORGANS]
    organs: dict[str, Organ] = {}
    draft.add(2, "organs:")
    for label in labels:
        guess = guesses.get(label, [])
        text = by_key.get(label.key, "") if by_key else guess[0].name if guess else f"label {label.key}"
        text = f"{text} {label.side}" if label.side and by_key else text
        if not text or (len(named) > _MOST_ORGANS and not find_organ(text)):
            continue
        name = _make_name(name_key(text), organs)
        place = {"files": [label.key]} if files else {"labels": [label.key]}
        organs[name] = Organ.model_validate(place | ({"side": label.side} if label.side else {}))
        told = describe_label(label, opened, guess, alone=len(labels) == 1)
        draft.put(
            4,
            name,
            organs[name].model_dump(exclude_defaults=True),
            f"{told}; called {by_key[label.key]!r} in {source}" if source else told,
        )
    if not files and (len(organs) < total or len(found.reference.paths) > opened):
        draft.put(2, "ignore_labels", "all", f"{opened} masks were opened; others may hold more labels")
    return organs


def _make_name(text: str, taken: Mapping[str, object]) -> str:
    """Return a name that the parameter file may have and that is not taken yet."""
    name = text if re.fullmatch(NAME_PATTERN, text) and text != RESERVED_ORGAN else f"organ_{text[:40]}".strip("_")
    return next(one for one in (name, *(f"{name}_{place}" for place in range(2, 10_000))) if one not in taken)


def _write_groups(draft: _Draft, rows: pd.DataFrame, columns: Mapping[str, str], subject: str) -> list[str]:
    """Write the sections attributes and confounders; return the attributes' names."""
    people = rows.drop_duplicates(subject)
    written = _Draft()
    if "sex" in columns:
        meant = read_sex(people[columns["sex"]])
        if meant.groups:
            counts = show_counts(people[columns["sex"]].replace(meant.meanings))
            written.put(4, "sex", {"categories": meant.groups}, counts, meant.unsure)
    for name, unit in (("age", "years"), ("bmi", "kg/m²")):
        if name in columns:
            recorded = people[columns[name]]
            _write_bins(written, name, recorded.replace(read_ages(recorded).meanings), unit)
    if "ethnicity" in columns and 1 < len(people[columns["ethnicity"]].dropna().unique()) <= MOST_GROUPS:
        recorded = people[columns["ethnicity"]]
        written.put(4, "ethnicity", {"categories": list(recorded.value_counts().index)}, show_counts(recorded))
    if not written.lines:
        raise SegfairError(
            f"no column tells people apart by sex, age, BMI or ethnicity; the table has {', '.join(people)}: call one "
            "of them so, or write the parameter file by hand (docs/YOUR_DATA.md)"
        )
    draft.add(2, "attributes:")
    draft.lines += written.lines
    draft.to_check += written.to_check
    held = [
        name
        for name in ("modality", "site", "scanner")
        if name in columns and len(rows[columns[name]].dropna().unique()) > 1
    ]
    if held:
        draft.put(2, "confounders", held, "columns that may explain a difference")
    known = {*columns.values(), subject, *OURS, "reference", "image"}
    if others := [column for column in people if column not in known]:
        draft.add(2, f"# columns of your table that may be attributes or confounders too: {', '.join(others)}")
    return [line.split(":")[0].strip() for line in written.lines]


def _write_bins(draft: _Draft, name: str, recorded: pd.Series, unit: str) -> None:
    numbers, strange = read_numbers(recorded), find_unreadable(recorded)
    unsure = f"what {list_words(map(repr, strange.unique()[:3]))} means" if len(strange) else ""
    bands = group_attribute(numbers, "bmi", None).value_counts(sort=False) if name == "bmi" else None
    if bands is not None and (bands >= _FEWEST_IN_BAND).sum() > 1:
        told = ", ".join(f"{band} {number}" for band, number in bands.items())
        draft.put(4, name, {"bins": "who", "unit": unit}, told, unsure)
    elif len(numbers.dropna().unique()) > 1:
        edges = propose_bins(numbers)
        people = list_words(map(str, count_in_bins(numbers.dropna().to_numpy(), edges)))
        whole = [int(edge) if float(edge).is_integer() else edge for edge in edges]
        draft.put(4, name, {"bins": whole, "unit": unit}, f"{people} people", unsure)


def _write_models(
    draft: _Draft,
    found: FoundScans,
    organs: Mapping[str, Organ],
    names: Sequence[tuple[str, str, str]],
    *,
    absolute: bool,
) -> list[str]:
    """Write the section models; `names` are (key, scan, subject) of every scan."""
    draft.add(0, "models:")
    written: dict[str, str] = {}
    left_out = [f"{name}: too few scans have one" for name in found.unused]
    for group in found.models:
        pattern, scans = _fit_pattern(group, names)
        places = _place_organs(group, found, organs)
        if pattern is None or not places:
            why = "they overlap no organ of the references" if pattern else "their names follow no pattern"
            left_out.append(f"{group.name}: {why}")
            continue
        name = _make_name(_name_model(group), written)
        written[name] = pattern = str(found.resolve(pattern)) if absolute else pattern
        entry: dict[str, Any] = {"name": name, "kind": "precomputed", "path": pattern}
        same = all(places.get(one) in (None, organ) for one, organ in organs.items()) and len(places) == len(organs)
        if not same:
            entry["organs"] = {one: place.model_dump(exclude_defaults=True) for one, place in places.items()}
        told = "labels as in the references" if same else "labels by their overlap with the references"
        draft.add(2, f"- {_write(entry)}", f"{scans} of {len(names)} scans have a mask; {told}")
    for told in left_out:
        draft.add(2, f"# not taken: {told}")
    if not written:
        kinds = ["prompt_only", *(["sam_demo"] if found.image is not None else [])]
        for kind in kinds:
            draft.add(2, f"- {_write({'name': kind, 'kind': kind})}", "no masks of a model lie beside the references")
        return kinds
    return list(written)


def _fit_pattern(group: FileGroup, names: Sequence[tuple[str, str, str]]) -> tuple[str | None, int]:
    """Return how a group's files are called after scans, or else people, and how many have one."""
    for place, mark in ((1, "{scan}"), (2, "{subject}")):
        patterns = Counter(
            path.replace(name[place], mark)
            for name in names
            for path in group.paths.get(name[0], ())
            if name[place] in path
        )
        if patterns and patterns.most_common(1)[0][1] * 2 >= len(names):
            return patterns.most_common(1)[0]
    return None, 0


def _place_organs(group: FileGroup, found: FoundScans, organs: Mapping[str, Organ]) -> dict[str, Organ]:
    """Return where a model's masks have the study's organs; nothing where they have none."""
    if group.organs:
        files = {name_key(file): file for file in group.organs}
        return {name: Organ(files=[files[name]]) for name in organs if name in files}
    ids = {name: place for place, name in enumerate(organs, start=1)}
    shared = [key for key in sorted(found.reference.paths) if key in group.paths][:_MATCHED]
    pairs = [(found.resolve(found.reference.paths[key][0]), found.resolve(group.paths[key][0])) for key in shared]
    matched = match_labels(pairs, organs, ids)
    return {name: Organ(labels=[label], side=organs[name].side) for name, label in matched.items()}


def _name_model(group: FileGroup) -> str:
    """Return a model's name after the last folder of its masks that has one for all scans."""
    *folders, file = group.name.split("/")
    stem = file.split(".")[0] if not group.organs else file
    static = [part for part in (stem, *reversed(folders)) if MARK not in part and "#" not in part]
    named = static[0] if static else re.sub(r"\{\}|#", "", stem)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", named).strip("_-")[:50] or "model"
