"""The TotalSegmentator dataset's layout (v1, v2, MR): per scan a folder of masks, and meta.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from helpers.cohort.table_files import read_table_file
from helpers.errors import SegfairError
from helpers.study import Study
from helpers.volumes import SUFFIXES

IMAGES = (("ct", "CT"), ("mri", "MR"))
SEXES = {"m": "male", "f": "female"}


def read_totalsegmentator(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read sXXXX/ct.nii.gz or mri.nii.gz, sXXXX/segmentations/ and, where it is there, meta.csv.

    A row per scan folder: subject, modality, image, reference (the folder of masks), and
    meta.csv's columns, ``gender`` as sex in words. It is joined by name: its order and its
    scans without a folder do not matter.

    Raises a SegfairError: the folder is missing or holds no scan; meta.csv lacks a column or names
    a scan twice.
    """
    folder = study.resolve(str(study.parameters.cohort.path))
    if not folder.is_dir():
        raise SegfairError(f"{folder}: no such folder: cohort.path must be the TotalSegmentator dataset's folder")
    scans = sorted(entry for entry in folder.iterdir() if (entry / "segmentations").is_dir())
    if not scans:
        raise SegfairError(
            f"{folder}: holds no scan: folders such as s0001 with a folder segmentations in each are expected"
        )
    table = pd.DataFrame([_describe_scan(scan) for scan in scans])
    meta = folder / "meta.csv"
    if meta.exists():
        table = table.merge(_read_people(meta), on="subject", how="left", validate="one_to_one")
    return table, folder


def _describe_scan(scan: Path) -> dict[str, str | None]:
    found = {"subject": scan.name, "modality": None, "image": None, "reference": f"{scan.name}/segmentations"}
    for name, modality in IMAGES:
        for suffix in SUFFIXES:
            if (scan / f"{name}{suffix}").exists():
                return found | {"modality": modality, "image": f"{scan.name}/{name}{suffix}"}
    return found


def _read_people(meta: Path) -> pd.DataFrame:
    people = read_table_file(meta).rename(columns={"image_id": "subject", "gender": "sex"})
    absent = [name for name, ours in (("image_id", "subject"), ("gender", "sex")) if ours not in people]
    if absent:
        raise SegfairError(
            f"{meta}: has no column {' or '.join(absent)}: the TotalSegmentator dataset's own meta.csv is expected"
        )
    people["sex"] = people["sex"].replace(SEXES)
    people = people.drop(columns=[column for column in ("modality", "image", "reference") if column in people])
    for twice in people.loc[people["subject"].duplicated(), "subject"]:
        raise SegfairError(f"{meta}: image_id names a scan twice ({twice}): remove one of the rows")
    return people
