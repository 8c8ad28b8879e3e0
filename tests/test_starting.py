"""`segfair init`: from a table and folders of scans to a study, without an editor."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from helpers import cohort, pipeline
from helpers.cohort.found_masks import FoundLabel, classify, find_labels, guess_organs, match_labels, read_names
from helpers.errors import SegfairError
from helpers.models import check_model, list_templates
from helpers.parameters import Organ
from helpers.study import load_study

from . import test_dicom
from .test_cli import segfair
from .test_dicom import write_series

SPACING = (5.0, 5.0, 5.0)
SHAPE = (60, 44, 72)  # z, y, x: 300, 220 and 360 mm
# Boxes (z, y, x) of about an adult's organs; x grows to the person's left.
BOXES = {
    "liver": (slice(30, 50), slice(10, 32), slice(10, 36)),
    "spleen": (slice(34, 50), slice(24, 36), slice(52, 60)),
    "kidney_right": (slice(12, 28), slice(26, 34), slice(20, 29)),
    "kidney_left": (slice(14, 30), slice(26, 34), slice(43, 52)),
}


def draw(numbers: dict[str, int], shift: int = 0) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for name, number in numbers.items():
        z, y, x = BOXES[name]
        mask[z.start + shift : z.stop, y, x] = number
    return mask


def write(array: np.ndarray, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin((-180.0, -110.0, 0.0))
    sitk.WriteImage(image, str(path))


def scan(rng) -> np.ndarray:
    greys = np.full(SHAPE, -1000, np.int16)
    greys[:, 3:41, 4:68] = 40
    return greys + rng.integers(-20, 20, SHAPE).astype(np.int16)


NUMBERS = {name: place for place, name in enumerate(BOXES, start=1)}


class Folder:
    """A folder of scans as a hospital has it, made small."""

    def __init__(self, folder, rng) -> None:
        self.folder, self.rng = folder / "hospital", rng
        (folder / "params").mkdir()

    def fill(self, people=24, *, image="images/{}.nii.gz", mask="masks/{}.nii.gz", names="P{:03d}") -> list[str]:
        keys = [names.format(place + 1) for place in range(people)]
        for key in keys:
            write(scan(self.rng), self.folder / image.format(key))
            write(draw(NUMBERS), self.folder / mask.format(key))
        return keys

    def save(self, name="people.csv", **columns):
        path = self.folder / name
        table = pd.DataFrame(columns)
        table.to_excel(path, index=False) if name.endswith(".xlsx") else table.to_csv(path, index=False)
        return path

    def describe(self, keys) -> dict[str, object]:
        ages = np.linspace(21, 83, len(keys)).astype(int)
        return {"Patient ID": keys, "Gender": ["F", "M"] * (len(keys) // 2), "Age": ages}

    def start(self, table, **options):
        return cohort.write_study_file(table, folder=self.folder.parent, **options)


@pytest.fixture
def folder(tmp_path, rng):
    return Folder(tmp_path, rng)


def read(path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def comment_of(path, key: str) -> str:
    """Return the comments behind a key."""
    lines = [one for one in path.read_text(encoding="utf-8").splitlines() if re.match(rf"\s*{key}: ", one)]
    return " | ".join(line.partition("# ")[2] for line in lines)


@pytest.mark.slow
def test_from_a_german_excel_sheet_and_folders_to_numbers(folder):
    keys = folder.fill()
    theirs = {"liver": 6, "spleen": 1, "kidney_right": 2, "kidney_left": 3}
    for key in keys:
        write(draw(NUMBERS, shift=1), folder.folder / "modelle" / "netz_a" / f"{key}.nii.gz")
        write(draw(theirs, shift=2), folder.folder / "modelle" / "netz_b" / f"{key}_pred.nii.gz")
    table = folder.save(
        "Patienten.xlsx",
        Patientennummer=keys,
        Geschlecht=["weiblich", "männlich"] * 12,
        Alter=np.linspace(21, 83, 24).astype(int),
        BMI=np.linspace(19, 38, 24).round(1),
        Gerät=["A", "B", "B"] * 8,
        Nachname=[f"name {place}" for place in range(24)],
    )
    done = segfair("init", str(table), cwd=folder.folder.parent)
    assert done.returncode == 0, done.stderr
    assert "next: segfair check params/Patienten.yaml" in done.stdout
    path = folder.folder.parent / "params" / "Patienten.yaml"
    written = read(path)
    assert written["cohort"]["organs"] == {name: {"labels": [number]} for name, number in NUMBERS.items()}
    assert comment_of(path, "liver") == ("guess: label 1: right, upper, 1,430 ml, in 10 of 10 masks (liver?)")
    counted = "guess: weiblich 12, männlich 12"
    assert comment_of(path, "sex") == f"{counted} | {counted} | guess: female 12, male 12"
    assert [model["name"] for model in written["models"]] == ["netz_a", "netz_b"]
    assert "organs" not in written["models"][0]
    assert written["models"][1]["organs"] == {name: {"labels": [number]} for name, number in theirs.items()}
    assert written["cohort"]["fill"] == {
        "reference": "masks/{scan}.nii.gz",
        "image": "images/{scan}.nii.gz",
        "modality": "CT",
    }
    assert written["cohort"]["confounders"] == ["scanner"] and "name 3" not in path.read_text(encoding="utf-8")
    overrides = {"compute.workers": 0, "fairness.bootstrap": 200}
    study = load_study(path, overrides)
    found = cohort.check_cohort(study, list_templates(study))
    assert found.problems == [] and len(found.organs) == 4
    assert not any(re.search(" lie | have |smaller", organ) for organ in found.organs), "no organ is odd"
    assert [fault for model in study.parameters.models for fault in check_model(model, study)] == []
    stages = pipeline.select_stages(last="03")
    pipeline.run_study(study, overrides=overrides, stages=stages, force=False, say=lambda line: None)
    metrics = study.read("metrics")
    assert len(metrics) == 24 * 2 * 4 and (metrics["status"] == "ok").all()
    dice = metrics.groupby("model")["dice"].mean()
    assert dice["netz_a"] > dice["netz_b"] > 0.85
    groups = study.read("cohort")
    assert groups["group_age"].value_counts().min() >= 10 and groups["group_sex"].value_counts().to_list() == [12, 12]


def test_a_file_that_is_there_is_kept_and_wrong_places_are_told(folder):
    keys = folder.fill(2)
    table = folder.save(**folder.describe(keys))
    started = folder.start(table)
    before = started.path.read_bytes()
    with pytest.raises(SegfairError, match=r"hospital\.yaml is there already and is kept: name another file by -o"):
        folder.start(table)
    assert started.path.read_bytes() == before
    other = folder.start(table, path=folder.folder / "other.yaml")
    assert other.path.exists() and read(other.path)["cohort"]["path"] == "people.csv"
    with pytest.raises(SegfairError, match=r"--masks .*nowhere: no such folder: correct it"):
        folder.start(table, path=folder.folder / "x.yaml", masks=folder.folder / "nowhere")
    with pytest.raises(
        SegfairError, match=r"by the values of the column 'Patient ID' of people\.csv, but no label was found"
    ):
        folder.start(table, path=folder.folder / "x.yaml", masks=folder.folder / "images")
    lost = folder.save("lost.csv", **folder.describe(["X1", "X2"]))
    with pytest.raises(SegfairError, match="no file below it is called by the values of the column 'Patient ID'"):
        folder.start(lost)
    bare = folder.save("bare.csv", **{"Patient ID": keys, "height": [1.7, 1.8]})
    with pytest.raises(SegfairError, match="no column tells people apart by sex, age, BMI or ethnicity; the table has"):
        folder.start(bare)
    assert not (folder.folder.parent / "params" / "bare.yaml").exists()


def test_codes_are_groups_and_marked_to_be_checked(folder):
    keys = folder.fill(4)
    table = folder.save(id=keys, sex=["1", "2", "1", "2"], age=["063Y", "021Y", "044Y", "070Y"])
    started = folder.start(table)
    section = read(started.path)["cohort"]
    assert section["attributes"]["sex"] == {"categories": ["1", "2"]} and "sex" not in section["values"]
    assert "TO CHECK: which sex is meant (by ISO 5218: 1 male, 2 female)" in comment_of(started.path, "sex")
    assert section["values"]["age"]["063Y"] == "63" and started.to_check == 1
    found = cohort.check_cohort(load_study(started.path, {"compute.workers": 0}))
    assert found.problems == []


def test_numbers_behind_zeros_get_a_table_of_scans(folder):
    folder.fill(4, image="imagesTr/case_{}_0000.nii.gz", mask="labelsTr/case_{}.nii.gz", names="{:03d}")
    for place in range(1, 5):
        write(draw(NUMBERS), folder.folder / "predictions" / "net" / f"case_{place:03d}.nii.gz")
    (folder.folder / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "Liver": 1, "spleen": 2, "right kidney": 3, "kidney (L)": 4}}), "utf-8"
    )
    table = folder.save(ID=[1, 2, 3, 4], sex=["H", "M", "M", "H"], poids=[70, 80, 90, 60], taille=[1.70, 180, 175, 160])
    started = folder.start(table)
    written = read(started.path)
    assert started.table is not None and written["cohort"]["path"] == "params/hospital_scans.csv"
    assert list(written["cohort"]["organs"]) == ["liver", "spleen", "kidney_right", "kidney_left"]
    assert "called 'kidney (L)' in dataset.json" in comment_of(started.path, "kidney_left")
    assert comment_of(started.path, "path") == (
        "guess: files are called by the values of 'ID'; bmi from 'poids' in kg and 'taille' in cm or m"
    )
    scans = pd.read_csv(started.table, dtype=str)
    assert scans["scan"].tolist() == [f"case_{place:03d}" for place in range(1, 5)]
    assert scans["bmi"].tolist() == ["24.2", "24.7", "29.4", "23.4"] and "poids" not in scans
    (model,) = written["models"]
    assert model["path"] == "../hospital/predictions/net/{scan}.nii.gz" or model["path"].endswith("net/{scan}.nii.gz")
    study = load_study(started.path, {"compute.workers": 0})
    found = cohort.check_cohort(study, list_templates(study))
    assert found.problems == []


def test_several_scans_of_a_person_are_all_taken(folder):
    folder.fill(1)
    for person, day in (("P1", "20190101"), ("P1", "20200202"), ("P2", "20180303")):
        write(scan(folder.rng), folder.folder / "ct" / f"{person}_{day}.mha")
        write(draw(NUMBERS), folder.folder / "gt" / f"{person}_{day}.nrrd")
    table = folder.save(patient=["P1", "P2"], sex=["f", "m"])
    started = folder.start(table, images=folder.folder / "ct")
    scans = pd.read_csv(started.table)
    assert scans["subject"].tolist() == ["P1", "P1", "P2"] and scans["scan"].is_unique
    assert [image[-15:] for image in scans["image"]] == ["P1_20190101.mha", "P1_20200202.mha", "P2_20180303.mha"]
    assert cohort.check_cohort(load_study(started.path, {"compute.workers": 0})).problems == []


def test_folders_of_organs_and_dicom_beside_the_table(folder, monkeypatch):
    monkeypatch.setattr(test_dicom, "SPACING", SPACING)
    keys = ["A1", "A2"]
    for key in keys:
        for organ, number in NUMBERS.items():
            for place in ("segmentations", "pred"):
                write((draw(NUMBERS) == number).astype(np.uint8), folder.folder / key / place / f"{organ}.nii.gz")
        image = sitk.GetImageFromArray(scan(folder.rng))
        image.SetSpacing(SPACING)
        image.SetOrigin((-180.0, -110.0, 0.0))
        write_series(image, folder.folder / key / "dicom", names=[f"IM{place:04d}.dcm" for place in range(SHAPE[0])])
    for slice_ in (folder.folder / "A2" / "dicom").iterdir():
        slice_.rename(slice_.with_suffix(""))
    started = folder.start(folder.save(patient=keys, sex=["女", "男"]))
    written = read(started.path)
    assert written["cohort"]["organs"] == {name: {"files": [name]} for name in sorted(NUMBERS)}
    assert written["cohort"]["fill"]["reference"] == "{scan}/segmentations"
    assert written["cohort"]["fill"]["image"] == "{scan}/dicom"
    assert [model["path"] for model in written["models"]] == ["{scan}/pred"]
    study = load_study(started.path, {"compute.workers": 0})
    assert cohort.check_cohort(study, list_templates(study)).problems == []


def test_a_table_that_names_its_files_needs_no_fill(folder):
    keys = folder.fill(2)
    columns = {"image": [f"images/{key}.nii.gz" for key in keys], "mask": [f"masks/{key}.nii.gz" for key in keys]}
    started = folder.start(folder.save(**folder.describe(keys), **columns))
    section = read(started.path)["cohort"]
    assert section["columns"] == {"subject": "Patient ID", "reference": "mask", "sex": "Gender", "age": "Age"}
    assert section["fill"] == {"modality": "CT"}
    assert [model["kind"] for model in read(started.path)["models"]] == ["prompt_only", "sam_demo"]
    assert cohort.check_cohort(load_study(started.path, {"compute.workers": 0})).problems == []


def test_what_files_hold_is_told_by_their_voxels(tmp_path, rng):
    write(scan(rng), tmp_path / "ct.nii.gz")
    write(rng.integers(0, 255, SHAPE).astype(np.uint8), tmp_path / "mr.nii.gz")
    write(draw(NUMBERS).astype(np.float32), tmp_path / "labels.nii.gz")
    write(draw({"liver": 255}), tmp_path / "mask.nii.gz")
    write(rng.random(SHAPE).astype(np.float32), tmp_path / "probability.nii.gz")
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    names = ("ct", "mr", "labels", "mask", "probability", "broken")
    kinds = {name: classify(tmp_path / f"{name}.nii.gz") for name in names}
    assert kinds == {
        "ct": "image", "mr": "image", "labels": "labels", "mask": "mask", "probability": "image", "broken": "",
    }  # fmt: skip


def test_both_kidneys_under_one_label_are_parted(tmp_path):
    write(draw({"liver": 1, "kidney_left": 2, "kidney_right": 2}), tmp_path / "m.nii.gz")
    labels, opened = find_labels([(tmp_path / "m.nii.gz", None)], "CT")
    assert opened == 1 and [(one.key, one.side) for one in labels] == [(1, None), (2, "left"), (2, "right")]
    guessed = {(label.key, label.side): found[0].name for label, found in guess_organs(labels).items()}
    assert guessed == {(1, None): "liver", (2, "left"): "kidney_left", (2, "right"): "kidney_right"}


def test_organs_are_guessed_together():
    labels = [
        FoundLabel(1, None, 5, 150.0, -60.0, -60.0),
        FoundLabel(2, None, 5, 150.0, 60.0, -60.0),
        FoundLabel(3, None, 5, 190.0, 100.0, 20.0),
        FoundLabel(4, None, 5, 1450.0, -70.0, 20.0),
        FoundLabel(5, None, 5, 9000.0, 0.0, 0.0),  # the body
    ]
    found = {label.key: one[0].name for label, one in guess_organs(labels).items()}
    assert found == {1: "kidney_right", 2: "kidney_left", 3: "spleen", 4: "liver"}


def test_names_are_read_from_a_slicer_segmentation(tmp_path):
    image = sitk.GetImageFromArray(draw(NUMBERS))
    for place, name in enumerate(("Liver", "Spleen")):
        image.SetMetaData(f"Segment{place}_Name", name)
        image.SetMetaData(f"Segment{place}_LabelValue", str(place + 1))
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    assert read_names(tmp_path / "a.seg.nrrd", tmp_path) == (
        {"Liver": [1], "Spleen": [2]},
        "the header of a.seg.nrrd",
    )
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "background", "1": "hepar"}}', "utf-8")
    assert read_names(tmp_path / "a.seg.nrrd", tmp_path) == ({"hepar": [1]}, "dataset.json")
    (tmp_path / "dataset.json").write_text('{"labels": 5}', "utf-8")
    assert read_names(tmp_path / "b.nii.gz", tmp_path) == ({}, "")


def test_a_model_s_labels_are_matched_by_overlap(tmp_path):
    write(draw(NUMBERS), tmp_path / "ours.nii.gz")
    write(draw({"liver": 9, "spleen": 8}, shift=1), tmp_path / "theirs.nii.gz")
    organs = {name: Organ(labels=[number]) for name, number in NUMBERS.items()}
    matched = match_labels([(tmp_path / "ours.nii.gz", tmp_path / "theirs.nii.gz")], organs, NUMBERS)
    assert matched == {"liver": 9, "spleen": 8}


def test_training_and_test_folders_ct_and_mr_are_one_study(folder):
    for part, keys in (("Tr", ("a1", "a2")), ("Ts", ("b1",))):
        for key in keys:
            write(draw(NUMBERS), folder.folder / f"labels{part}" / f"{key}.nii.gz")
            greys = scan(folder.rng) if key != "a2" else scan(folder.rng) + 1000
            write(greys, folder.folder / key / ("mri.nii.gz" if key == "a2" else "ct.nii.gz"))
    started = folder.start(folder.save(ID=["a1", "a2", "b1"], sex=["F", "M", "F"]))
    scans = pd.read_csv(started.table)
    assert scans["modality"].tolist() == ["CT", "MR", "CT"]
    assert [path[-18:] for path in scans["reference"]] == [
        "labelsTr/a1.nii.gz",
        "labelsTr/a2.nii.gz",
        "labelsTs/b1.nii.gz",
    ]
    assert cohort.check_cohort(load_study(started.path, {"compute.workers": 0})).problems == []


def test_empty_and_broken_masks_are_passed_over(folder):
    keys = folder.fill(4)
    (folder.folder / "masks" / f"{keys[0]}.nii.gz").write_bytes(b"no image")
    write(draw({}), folder.folder / "masks" / f"{keys[1]}.nii.gz")
    started = folder.start(folder.save(**folder.describe(keys)))
    assert comment_of(started.path, "spleen").endswith("in 2 of 3 masks (spleen?)")


def test_more_labels_than_organs_are_ignored_by_name(folder):
    mask = np.zeros(SHAPE, np.uint8)
    for place in range(20):
        mask[2 * place + 2 : 2 * place + 4, 10:20, 10 + place : 20 + place] = place + 1
    for key in ("a", "b"):
        write(mask, folder.folder / "masks" / f"{key}.nii.gz")
    started = folder.start(folder.save(id=["a", "b"], age=["30", "40"]))
    section = read(started.path)["cohort"]
    assert len(section["organs"]) == 15 and section["ignore_labels"] == "all"
    assert "TO CHECK: whether it is CT or MR, which no image tells" in comment_of(started.path, "modality")
