"""The AMOS22 challenge's layout: images and label maps by part, and one table on all people.

Its birth dates tell which scans are of one person, and go no further than this module.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from helpers.cohort.numbers import read_age
from helpers.cohort.table_files import read_table_file
from helpers.errors import SegfairError
from helpers.study import Study

PARTS = ("Tr", "Va", "Ts")
PEOPLE = "labeled_data_meta_*.csv"
FIRST_MR = 500  # ids below are CT
SEXES = {"M": "male", "F": "female"}
ID, BIRTH_DATE, SEX, AGE = "amos_id", "Patient's Birth Date", "Patient's Sex", "Patient's Age"
OTHERS = {"Manufacturer's Model Name": "scanner", "Manufacturer": "manufacturer", "Site": "site"}

_SCAN = re.compile(r"amos_(\d+)\.nii\.gz")


def read_amos(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read labelsTr|Va|Ts/amos_XXXX.nii.gz with their images, and labeled_data_meta_0000_0599.csv.

    A row per scan of every part that has labels: subject, scan, modality (by the id), image,
    reference, sex and age (years, from text such as 039Y), scanner, manufacturer, site. BMI is
    not recorded. Birth and acquisition dates are not in it.

    Raises a SegfairError: no labels or no table; the table lacks a column, names a scan twice, or
    what is no id.

    Notes
    -----
    *Who is one person.* Scans of the same birth date and sex are taken for one person's, who is
    called by the smallest id among them. In a few hundred people two may share a birthday by
    chance; counted as one they cost a little precision, while one person counted as two would make
    every interval too narrow. A hash of the date would not hide it: there are too few dates.
    """
    folder = study.resolve(str(study.parameters.cohort.path))
    rows = [row for part in PARTS for row in _list_scans(folder, part)]
    if not rows:
        raise SegfairError(f"{folder}: holds no labels: a folder labelsTr with amos_0001.nii.gz and so on is expected")
    tables = sorted(folder.glob(PEOPLE))
    if not tables:
        raise SegfairError(
            f"{folder}: holds no {PEOPLE}: put the challenge's labeled_data_meta_0000_0599.csv beside the folders of "
            "images"
        )
    people = pd.concat([_read_people(path) for path in tables], ignore_index=True)
    twice = people.loc[people["id"].duplicated(), "id"]
    if len(twice):
        raise SegfairError(f"{tables[0].name}: {ID} names a scan twice ({twice.iloc[0]}): remove one of the rows")
    table = pd.DataFrame(rows).merge(people, on="id", how="left", validate="one_to_one")
    table["subject"] = table["subject"].fillna(table["scan"])
    return table.drop(columns="id"), folder


def _list_scans(folder: Path, part: str) -> list[dict[str, object]]:
    """Return a part's scans, those with an image alone included; none of a part without labels."""
    labels, images = folder / f"labels{part}", folder / f"images{part}"
    if not labels.is_dir():
        return []
    names = {file.name for place in (labels, images) if place.is_dir() for file in place.iterdir()}
    rows: list[dict[str, object]] = []
    for name in sorted(names):
        found = _SCAN.fullmatch(name)
        if found:
            number = int(found.group(1))
            row = {"id": number, "scan": name.removesuffix(".nii.gz"), "modality": "CT" if number < FIRST_MR else "MR"}
            image = f"{images.name}/{name}" if (images / name).exists() else None
            rows.append(row | {"image": image, "reference": f"{labels.name}/{name}"})
    return rows


def _read_people(path: Path) -> pd.DataFrame:
    """Return id, subject and what is recorded of each scan's person, without any date."""
    recorded = read_table_file(path)
    absent = [name for name in (ID, BIRTH_DATE, SEX, AGE) if name not in recorded]
    if absent:
        raise SegfairError(f"{path.name}: has no column {' or '.join(absent)}: the challenge's own table is expected")
    wrong = recorded.index[~recorded[ID].fillna("").str.fullmatch(r"\d+")]
    if len(wrong):
        raise SegfairError(f"{path.name}: {ID} must be a whole number; row {wrong[0] + 2} has none")
    people = pd.DataFrame({"id": recorded[ID].astype(int), "sex": recorded[SEX].replace(SEXES)})
    people["age"] = recorded[AGE].map(read_age, na_action="ignore")
    for theirs, ours in OTHERS.items():
        if theirs in recorded:
            people[ours] = recorded[theirs]
    known = recorded[BIRTH_DATE].notna() & recorded[SEX].notna()
    smallest = people["id"].where(known).groupby([recorded[BIRTH_DATE], recorded[SEX]]).transform("min")
    people["subject"] = [f"amos_{number:04d}" for number in smallest.fillna(people["id"]).astype(int)]
    return people
