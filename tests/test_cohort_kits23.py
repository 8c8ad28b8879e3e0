"""The KiTS23 layout: every value as recorded, people joined by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import cohort, volumes
from helpers.errors import SegfairError
from helpers.study import load_study

from .test_cohort import SHAPE, save

PEOPLE = [
    {"case_id": "case_00002", "gender": "male", "age_at_nephrectomy": 0, "bmi": None, "smoking_history": None},
    {"case_id": "case_00001", "gender": "transgender_male_to_female", "age_at_nephrectomy": 61, "bmi": 31.5,
     "smoking_history": "never_smoked", "comorbidities": {"copd": True}},
    {"case_id": "case_00009", "gender": "female", "age_at_nephrectomy": 50, "bmi": 20.0},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 2:6, 2:5] = 1
    for case in ("case_00001", "case_00002", "case_00003"):
        save(mask, tmp_path / "dataset" / case / "segmentation.nii.gz")
    save(np.zeros(SHAPE, np.int16), tmp_path / "dataset" / "case_00001" / "imaging.nii.gz")
    write_people(tmp_path / "dataset", PEOPLE)
    return tmp_path / "dataset"


def write_people(folder, people) -> None:
    (folder / "kits23.json").write_text(json.dumps(people), encoding="utf-8")


def load(folder, **cohort_section):
    parameters = {
        "name": "kits",
        "cohort": {
            "source": "kits23",
            "path": str(folder),
            "organs": {"kidney": {"labels": [1]}},
            "attributes": {"sex": None, "age": None, "bmi": None},
            "exclusions": {"plausible": {"age": [18, 110]}},
        }
        | cohort_section,
        "models": [{"name": "ellipse", "kind": "prompt_only"}],
        "compute": {"workers": 0},
    }
    path = folder.parent / "kits.yaml"
    path.write_text(json.dumps(parameters), encoding="utf-8")  # JSON is YAML
    return load_study(path)


def test_people_are_joined_by_name_and_recorded_values_stay(folder):
    built = cohort.build_cohort(load(folder, confounders=["smoking_history", "comorbidities_copd"]))
    table = built.table.set_index("scan")
    assert table.index.tolist() == ["case_00001", "case_00002", "case_00003"]
    assert set(table["modality"]) == {"CT"}
    first, second, third = (table.loc[f"case_0000{place}"] for place in (1, 2, 3))
    assert first["sex"] == "transgender_male_to_female" and first["included"] and first[["group_sex"]].isna().all()
    assert "which is no group of this study" in first["note"]
    assert (first["age"], first["bmi"], first["smoking_history"]) == (61.0, 31.5, "never_smoked")
    assert first["comorbidities_copd"] == "true"
    assert first["image"].endswith("case_00001/imaging.nii.gz") and second[["image"]].isna().all()
    assert second["reason"].startswith("age 0 years is outside") and second[["bmi", "smoking_history"]].isna().all()
    assert third["included"] and third[["sex", "age"]].isna().all()


def test_a_confounder_the_dataset_does_not_know_is_an_error(folder):
    with pytest.raises(SegfairError, match="no column 'smoking' for confounder 'smoking'"):
        cohort.build_cohort(load(folder, confounders=["smoking"]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "kits23.json").unlink(), "holds no kits23.json"),
        (lambda folder: write_people(folder, PEOPLE[:1] * 2), r"names a case twice \(case_00002\)"),
        (lambda folder: write_people(folder, [{"case_id": "case_00001"}]), "has no key gender or age_at_nephrectomy"),
        (lambda folder: (folder / "kits23.json").write_text("{", encoding="utf-8"), "is not a list of people"),
        (lambda folder: write_people(folder, {"case_id": 1}), "is not a list of people"),
        (lambda folder: [case.rename(folder.parent / case.name) for case in folder.glob("case_*")], "holds no case"),
    ],
)
def test_each_guard_fires(folder, damage, message):
    damage(folder)
    with pytest.raises(SegfairError, match=message):
        cohort.build_cohort(load(folder))


@pytest.mark.data
def test_the_challenge_own_folder(data_folder, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_DATA", str(data_folder))
    study = load_study(
        repository / "params" / "kits23.yaml",
        {"outputs": str(tmp_path), "compute.workers": 0, "cohort.path": str(data_folder / "kits23_native" / "dataset")},
    )
    table = cohort.build_cohort(study).table.set_index("scan")
    people = {
        one["case_id"]: one
        for one in json.loads((study.resolve(study.parameters.cohort.path) / "kits23.json").read_text(encoding="utf-8"))
    }
    assert len(table) and table["included"].all()
    for scan, row in table.iterrows():
        assert row["sex"] == people[scan]["gender"] and row["age"] == people[scan]["age_at_nephrectomy"]
        assert row["bmi"] == people[scan]["bmi"] and row["radiographic_size"] == people[scan]["radiographic_size"]
        # Kidney, tumour and cyst together; the person's right kidney lies at smaller LPS x.
        labels = volumes.read_label_map(row["reference"], study.parameters.cohort.organs, study.organ_ids).image
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(labels)
        right, left = (shape.GetCentroid(study.organ_ids[organ]) for organ in ("kidney_right", "kidney_left"))
        assert right[0] < left[0]
