"""BIDS' lookup tables: which number in a label map is which structure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from helpers.errors import VolumeError
from helpers.parameters import Organ
from helpers.storage import open_file

_ROOT = "dataset_description.json"  # in the top folder of a BIDS data set or derivative


def split_name(name: str) -> tuple[dict[str, str], str]:
    """Return the entities and the suffix of a BIDS file name.

    ``sub-01_desc-manual_dseg.nii.gz`` gives ``{"sub": "01", "desc": "manual"}`` and ``dseg``.
    """
    *pairs, suffix = name.split(".")[0].split("_")
    return dict(pair.split("-", 1) for pair in pairs if "-" in pair), suffix


def look_up_labels(mask: Path, organs: Mapping[str, Organ]) -> Mapping[str, Organ]:
    """Return `organs` with the numbers of labels that are given by name.

    By the tables that belong to a mask: beside it or in a folder above, up to its data set's, with
    no entity that the mask has not or has otherwise (BIDS' inheritance principle). The nearest that
    names a label counts; names and abbreviations may differ by capitals.

    Raises a VolumeError: no table names a label, or a table cannot be read.
    """
    if not any(organ.label_names for organ in organs.values()):
        return organs
    numbers: dict[str, int] = {}
    for table in list_lookup_tables(mask, organs):
        numbers = _read_table(table) | numbers
    known = {name: [numbers.get(_simplify(label)) for label in one.label_names] for name, one in organs.items()}
    for name, organ in organs.items():
        for label, number in zip(organ.label_names, known[name], strict=True):
            if number is None:
                held = f"they name {', '.join(list(numbers)[:8])}" if numbers else "there is none"
                raise VolumeError(
                    f"{mask.name}: no lookup table (dseg.tsv) that belongs to it names {label!r}; {held}: correct "
                    "cohort.organs, or give the label's number"
                )
    return {
        name: organ.model_copy(update={"labels": [*organ.label_ids, *filter(None, known[name])]})
        for name, organ in organs.items()
    }


def list_lookup_tables(mask: Path, organs: Mapping[str, Organ]) -> list[Path]:
    """Return the lookup tables of a mask, the nearest first; none where no label is a name."""
    if not any(organ.label_names for organ in organs.values()):
        return []
    entities, suffix = split_name(mask.name)
    found = []
    for folder in mask.parents:
        fitting = [
            file
            for file in folder.glob(f"*{suffix}.tsv")
            if split_name(file.name)[1] == suffix and split_name(file.name)[0].items() <= entities.items()
        ]
        # Of those in one folder the one with most entities in common is the nearest.
        found += sorted(fitting, key=lambda file: -len(split_name(file.name)[0]))
        if (folder / _ROOT).is_file():
            break
    return found


def _read_table(path: Path) -> dict[str, int]:
    """Return a table's numbers by name, and by abbreviation where it has that column."""
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        return {
            _simplify(row[column]): int(row["index"])
            for column in ("abbreviation", "name")
            for row in rows
            if row.get(column)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VolumeError(
            f"{path.name}: is no lookup table, which has a whole number (index) and a name per label: correct it"
        ) from error


def _simplify(name: str) -> str:
    """Return a name in small letters, whatever stands between its words."""
    return re.sub(r"[\W_]+", " ", name).strip().lower()
