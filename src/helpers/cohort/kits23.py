"""The KiTS23 challenge's layout: a folder per case, and one kits23.json on all people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.errors import SegfairError
from helpers.study import Study

PEOPLE = "kits23.json"
IMAGE, REFERENCE = "imaging.nii.gz", "segmentation.nii.gz"
COLUMNS = {"case_id": "subject", "gender": "sex", "age_at_nephrectomy": "age"}


def read_kits23(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read case_XXXXX/segmentation.nii.gz, imaging.nii.gz where it was downloaded, and kits23.json.

    A row per case folder, all CT; ``gender`` is sex and ``age_at_nephrectomy`` age, both as
    recorded. Every other key is a column of its own name, a nested one joined by "_"
    (``comorbidities_copd``). What is null is missing.

    Raises a SegfairError: no kits23.json or no case; the file is not the challenge's, or names a
    case twice.
    """
    folder = study.resolve(str(study.parameters.cohort.path))
    if not (folder / PEOPLE).is_file():
        raise SegfairError(f"{folder}: holds no {PEOPLE}: cohort.path must be the KiTS23 folder named dataset")
    cases = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name.startswith("case_"))
    if not cases:
        raise SegfairError(f"{folder}: holds no case: folders such as case_00000 are expected beside {PEOPLE}")
    table = pd.DataFrame({"subject": cases, "modality": "CT"})
    table["image"] = [f"{case}/{IMAGE}" if (folder / case / IMAGE).exists() else None for case in cases]
    table["reference"] = [f"{case}/{REFERENCE}" for case in cases]
    return table.merge(_read_people(folder / PEOPLE), on="subject", how="left", validate="one_to_one"), folder


def _read_people(path: Path) -> pd.DataFrame:
    """Return the people, one row each, every value as text."""
    try:
        people = json.loads(path.read_text(encoding="utf-8"))
        rows = [{name: _write_out(value) for name, value in _flatten(person).items()} for person in people]
    except (ValueError, TypeError, AttributeError) as error:
        raise SegfairError(f"{path}: is not a list of people: the challenge's own {PEOPLE} is expected") from error
    table = pd.DataFrame(rows).rename(columns=COLUMNS)
    absent = [name for name, ours in COLUMNS.items() if ours not in table]
    if absent:
        raise SegfairError(f"{path}: has no key {' or '.join(absent)}: the challenge's own {PEOPLE} is expected")
    twice = table.loc[table["subject"].duplicated(), "subject"]
    if len(twice):
        raise SegfairError(f"{path}: case_id names a case twice ({twice.iloc[0]}): remove one of the entries")
    return table.drop(columns=[column for column in ("modality", "image", "reference", "scan") if column in table])


def _flatten(person: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in person.items():
        flat |= _flatten(value, f"{prefix}{name}_") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _write_out(value: Any) -> str | None:
    """Return a value of JSON as text; whole numbers and truth values as they stand in the file."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
