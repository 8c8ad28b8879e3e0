"""The AMOS22 layout: modality by id, one person's scans together, and no birth date anywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import cohort
from helpers.cohort.sources import SOURCES
from helpers.errors import SegfairError
from helpers.study import load_study

from .test_cohort import SHAPE, save

HEADER = (
    "amos_id,Patient's Birth Date,Patient's Sex,Patient's Age,Manufacturer's Model Name,Manufacturer,Acquisition"
    " Date,Site"
)
ROWS = [
    "512,19611224,F,059Y,Prisma,SIEMENS,20210103,people",  # the MR of amos_0007's person
    "7,19611224,F,058Y,Optima CT540,GE MEDICAL SYSTEMS,20200402,people",
    "8,19611224,M,058Y,Optima CT540,GE MEDICAL SYSTEMS,20200402,people",  # the same birthday, another sex
    "9,20190102,M,018M,,,20200702,central",
    "10,,F,,Brilliance16,Philips,20200402,people",
    "11,,F,44,Brilliance16,Philips,20200402,people",  # no birth date: a person of their own
]


@pytest.fixture
def folder(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 2:6, 2:5] = 6
    for number in (7, 8, 9, 10, 512):
        part = "Tr" if number < 10 else "Va"
        save(mask, tmp_path / "amos" / f"labels{part}" / f"amos_{number:04d}.nii.gz")
        save(np.zeros(SHAPE, np.int16), tmp_path / "amos" / f"images{part}" / f"amos_{number:04d}.nii.gz")
    save(mask, tmp_path / "amos" / "labelsTr" / "amos_0011.nii.gz")  # no image of it
    save(np.zeros(SHAPE, np.int16), tmp_path / "amos" / "imagesTr" / "amos_0012.nii.gz")  # no labels of it
    save(np.zeros(SHAPE, np.int16), tmp_path / "amos" / "imagesTs" / "amos_0300.nii.gz")  # labels are not published
    (tmp_path / "amos" / "labelsTr" / ".DS_Store").write_text("", encoding="utf-8")
    write_people(tmp_path / "amos", ROWS)
    return tmp_path / "amos"


def write_people(folder, rows, header=HEADER) -> None:
    (folder / "labeled_data_meta_0000_0599.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def load(folder, **cohort_section):
    parameters = {
        "name": "amos",
        "cohort": (
            {
                "source": "amos",
                "path": str(folder),
                "organs": {"liver": {"labels": [6]}},
                "attributes": {"sex": None, "age": None},
                "confounders": ["scanner", "manufacturer", "site", "modality"],
            }
            | cohort_section
        ),
        "models": [{"name": "ellipse", "kind": "prompt_only"}],
        "compute": {"workers": 0},
    }
    path = folder.parent / "amos.yaml"
    path.write_text(json.dumps(parameters), encoding="utf-8")
    return load_study(path)


def test_scans_people_and_ages(folder):
    table = cohort.build_cohort(load(folder)).table.set_index("scan")
    assert sorted(table.index) == [f"amos_{number:04d}" for number in (7, 8, 9, 10, 11, 12, 512)]
    assert table["modality"].to_dict()["amos_0512"] == "MR" and (table["modality"] == "CT").sum() == 6
    assert table.loc["amos_0512", "subject"] == table.loc["amos_0007", "subject"] == "amos_0007"
    assert table["subject"].nunique() == 6
    assert table.loc["amos_0007", ["sex", "age", "scanner"]].tolist() == ["female", 58.0, "Optima CT540"]
    assert table.loc["amos_0009", "age"] == 1.5 and table.loc["amos_0009", ["scanner"]].isna().all()
    assert table.loc["amos_0010", ["age"]].isna().all() and table.loc["amos_0010", "included"]
    assert table.loc["amos_0011", "age"] == 44 and table.loc["amos_0011", ["image"]].isna().all()
    assert "no such file" in table.loc["amos_0012", "reason"]


def test_no_date_leaves_the_reader(folder, capsys):
    study = load(folder)
    raw, _ = SOURCES["amos"].read(study)
    shown = raw.to_csv() + " ".join(raw.columns)
    cohort.build_cohort(study)
    written = b"".join(path.read_bytes() for path in study.folder.rglob("*") if path.is_file())
    shown += written.decode("latin-1") + capsys.readouterr().out + study.path("exclusions").read_text(encoding="utf-8")
    assert "amos_0007" in shown
    for planted in ("1961", "20190102", "20200402", "Birth"):
        assert planted not in shown, planted
    with pytest.raises(SegfairError, match='no column "Patient\'s Birth Date"') as error:
        cohort.build_cohort(load(folder, columns={"site": "Patient's Birth Date"}))
    assert "1961" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "labeled_data_meta_0000_0599.csv").unlink(), "holds no labeled_data_meta_"),
        (lambda folder: [(folder / f"labels{part}").rename(folder / part) for part in ("Tr", "Va")], "holds no labels"),
        (lambda folder: write_people(folder, [*ROWS, ROWS[0]]), r"names a scan twice \(512\)"),
        (lambda folder: write_people(folder, ["x,19611224,F,059Y,,,,"]), "must be a whole number; row 2 has none"),
        (
            lambda folder: write_people(folder, ["7,F"], "amos_id,Patient's Sex"),
            "has no column Patient's Birth Date or",
        ),
    ],
)
def test_each_guard_fires(folder, damage, message):
    damage(folder)
    with pytest.raises(SegfairError, match=message) as error:
        cohort.build_cohort(load(folder))
    assert "1961" not in str(error.value)


def test_an_age_that_is_none_is_said_and_not_guessed(folder):
    write_people(folder, [ROWS[1].replace("058Y", "58 years"), *ROWS[2:]])
    table = cohort.build_cohort(load(folder)).table.set_index("scan")
    assert table.loc["amos_0007", "reason"].startswith("age is not a number: write digits alone")
    assert "58" not in table.loc["amos_0007", "reason"], "what a person's age is stays out of the report"
