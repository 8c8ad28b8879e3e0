"""A tree of DICOM files: people, series and masks are paired, and what could not be is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from helpers import cohort, inference, models, volumes
from helpers.errors import SegfairError
from helpers.study import load_study
from tests.dicom_files import (
    KIDNEY,
    LEFT,
    RIGHT,
    SHAPE,
    SPLEEN,
    describe_segment,
    make_enhanced,
    make_person,
    make_segmentation,
    make_series,
    make_structures,
    save,
    save_series,
)
from tests.test_dicom_masks import square

SEGMENTS = [
    describe_segment(1, "Liver"), describe_segment(2, "Spleen", SPLEEN),
    describe_segment(3, "Kidney", KIDNEY, side=LEFT), describe_segment(4, "Kidney", KIDNEY, side=RIGHT),
]  # fmt: skip
ORGANS = {
    "liver": {"labels": ["Liver"]}, "spleen": {"labels": ["SCT:78961009"]}, "kidney_left": {"labels": ["Left kidney"]},
}  # fmt: skip


@pytest.fixture
def labels():
    array = np.zeros(SHAPE, np.uint8)
    array[1:4, 1:5, 1:4], array[2:5, 5:8, 1:3], array[1:4, 5:8, 5:7], array[1:4, 1:4, 5:7] = 1, 2, 3, 4
    return array


def make_scan(labels, rng, person, **tags):
    """A CT whose grey values are those of CT."""
    stored = np.where(labels > 0, 1064 + rng.integers(0, 50, SHAPE), 24).astype(np.uint16)
    return make_series(stored, person, **tags)


@pytest.fixture
def tree(tmp_path, labels, rng):
    """Three people, of whom one was scanned twice; each series with a mask."""
    folder = tmp_path / "dicom"
    people = [make_person(1), make_person(2, PatientSex="M", PatientAge="041Y"), make_person(3, PatientAge="")]
    again = make_person(1, PatientAge="064Y")
    for number, person in enumerate([*people, again]):
        scan = make_scan(labels, rng, person)
        save_series(scan, folder / f"study{number}" / "ct")
        save(make_segmentation(scan, labels, SEGMENTS), folder / f"study{number}" / "seg" / "1.dcm")
    return folder


def load(folder, models=None, **changes):
    parameters = {
        "name": "tree",
        "outputs": str(folder.parent / "outputs"),
        "cohort": {
            "source": "dicom",
            "path": str(folder),
            "organs": ORGANS,
            "attributes": {"sex": None, "age": None, "bmi": None},
            "confounders": ["scanner", "kernel", "slice_thickness", "contrast", "manufacturer", "height", "weight"],
        }
        | changes,
        "models": models or [{"name": "ellipse", "kind": "prompt_only"}],
        "fairness": {"min_group": 2},
        "compute": {"workers": 0},
    }
    path = folder.parent / "tree.yaml"
    path.write_text(json.dumps(parameters), encoding="utf-8")  # JSON is YAML
    return load_study(path)


def list_problems(folder, **changes):
    found = cohort.check_cohort(load(folder, **changes))
    return found.problems, [remark for remark in found.remarks if "fewer than" not in remark]


def test_people_and_scanners_come_from_the_tags(tree, labels):
    built = cohort.build_cohort(load(tree))
    table = built.table
    assert table["included"].all() and len(table) == 4
    assert table["subject"].nunique() == 3 and table["scan"].nunique() == 4
    assert table["sex"].tolist() == ["female", "male", "female", "female"]
    assert table["age"].tolist() == [63.0, 41.0, 63.0, 64.0]  # the third from the dates
    assert table["bmi"].tolist() == pytest.approx([23.53] * 4)
    first = table.iloc[0]
    assert first[["scanner", "kernel", "contrast", "manufacturer"]].tolist() == ["Scanner 9", "Br40f/3", "yes", "ACME"]
    assert first[["slice_thickness", "height", "weight"]].tolist() == [2.5, 1.7, 68.0]
    organs = load(tree).parameters.cohort.organs
    found = volumes.read_label_map(Path(first["reference"]), organs, {"liver": 1, "spleen": 2, "kidney_left": 3})
    assert np.array_equal(sitk.GetArrayFromImage(found.image), np.where(labels == 4, 0, labels))


def test_nothing_that_names_a_person_is_written(tree):
    study = load(tree)
    cohort.build_cohort(study)
    for table in (pd.read_parquet(study.path("cohort")), pd.read_csv(study.path("exclusions"))):
        text = table.to_csv() + str(table.attrs)
        assert not any(word in text for word in ("MRN0", "Doe", "19600203", "1.2.826", "A1,"))


def test_names_are_the_same_when_the_tree_grows_or_moves(tree, labels, rng):
    before = cohort.build_cohort(load(tree)).table
    scan = make_scan(labels, rng, make_person(4))
    save_series(scan, tree / "a_new_one")
    save(make_segmentation(scan, labels, SEGMENTS), tree / "a_new_one" / "seg.dcm")
    (tree / "study0").rename(tree / "study_zero")
    after = cohort.build_cohort(load(tree)).table
    assert set(before["scan"]) < set(after["scan"]) and set(before["subject"]) < set(after["subject"])


def test_everything_lies_in_one_folder(tree):
    heap = tree.parent / "heap"
    heap.mkdir()
    for number, path in enumerate(sorted(path for path in tree.rglob("*") if path.is_file())):
        shutil.copy(path, heap / f"IM{number:04}")
    assert list_problems(heap) == ([], [])
    assert list_problems(tree) == ([], [])


def test_what_cannot_be_paired_is_told(tree, labels, rng):
    lonely = make_scan(labels, rng, make_person(5))
    save_series(lonely, tree / "lonely")
    gone = make_scan(labels, rng, make_person(6))
    save(make_segmentation(gone, labels, SEGMENTS), tree / "gone.dcm")
    twice = make_scan(labels, rng, make_person(7))
    save_series(twice, tree / "twice")
    for name in ("Expert", "TotalSegmentator(v1.5.6) Segmentation of Series 2"):
        save(make_segmentation(twice, labels, SEGMENTS, description=name), tree / "twice" / f"{name[:6]}.dcm")
    (tree / "broken.dcm").write_bytes((tree / "gone.dcm").read_bytes()[:300])
    (tree / "notes.txt").write_text("no DICOM", encoding="utf-8")
    problems, remarks = list_problems(tree)
    assert len(problems) == 3
    assert sum("no DICOM mask was drawn on this series" in one for one in problems) == 1
    assert sum("the series that this DICOM mask was drawn on is not in the folder" in one for one in problems) == 1
    assert (
        sum("2 DICOM masks were drawn on this series: choose one by cohort.mask_series" in one for one in problems) == 1
    )
    assert remarks == [
        f"1 DICOM file cannot be read and stayed out: copy again from the source ({tree / 'broken.dcm'})"
    ]
    built = cohort.build_cohort(load(tree))
    assert len(built.exclusions) == 3 and built.table["included"].sum() == 4
    assert any("1 DICOM file cannot be read" in note and str(tree) not in note for note in built.notes)
    assert list_problems(tree, mask_series="expert*")[0] == [one for one in problems if "2 DICOM masks" not in one]


def test_masks_of_other_modalities_are_told(tree, labels, rng):
    scan = make_scan(labels, rng, make_person(5))
    for one in scan:
        one.Modality = "PT"
    save_series(scan, tree / "pet")
    save(make_segmentation(scan, labels, SEGMENTS), tree / "pet" / "seg.dcm")
    problems, remarks = list_problems(tree)
    assert problems == [] and "1 DICOM mask was drawn on series that are no CT or MR volume, and stayed out" in remarks


def test_one_broken_series_is_out_alone(tree, labels, rng):
    person = make_person(8)
    scan = make_scan(labels, rng, person)
    save_series(scan[:2] + scan[3:], tree / "missing")
    save(make_segmentation(scan, labels, SEGMENTS), tree / "missing" / "seg.dcm")
    tilted = make_scan(labels, rng, make_person(9))
    mask = make_segmentation(tilted, labels, SEGMENTS)
    for place, one in enumerate(tilted):
        one.ImagePositionPatient[1] += place * 0.5
    save_series(tilted, tree / "tilted")
    save(mask, tree / "tilted" / "seg.dcm")
    built = cohort.build_cohort(load(tree))
    assert built.table["included"].sum() == 4
    reasons = built.exclusions["reason"]
    assert sorted(reasons.str.contains("1 of 6 DICOM slices are missing")) == [False, True]
    assert reasons.str.startswith("image ").all(), "the mask, which is laid on the image, is not to blame"
    assert reasons.str.count("DICOM slices are missing").max() == 1
    assert built.exclusions["reason"].str.contains("tilted gantry").sum() == 1


def test_scouts_captures_and_copies_are_no_scans(tree, labels, rng):
    person = make_person(1)
    scout = make_series(np.ones((1, 9, 8), np.uint16), person, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save(scout[0], tree / "study0" / "ct" / "scout.dcm")
    capture = make_series(np.ones((1, 9, 8), np.uint16), person)[0]
    del capture.ImagePositionPatient
    save(capture, tree / "study0" / "capture.dcm")
    shutil.copytree(tree / "study1", tree / "copy_of_study1")
    shutil.copy(tree / "study0" / "ct" / "i001.dcm", tree / "study0" / "ct" / "again.dcm")
    (tree / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tree / "loop").symlink_to(tree)
    problems, remarks = list_problems(tree)
    assert problems == []
    assert remarks == ["2 series of DICOM files passed over: no CT or MR volume (scouts, screenshots, reports)"]
    assert len(cohort.build_cohort(load(tree)).table) == 4


def test_a_series_in_several_folders(tree, labels, rng):
    scan = make_scan(labels, rng, make_person(5))
    for place, one in enumerate(scan):
        save(one, tree / "disc" / f"d{place % 2}" / f"{place}")
    save(make_segmentation(scan, labels, SEGMENTS), tree / "disc" / "seg")
    assert list_problems(tree) == ([], [])
    assert cohort.build_cohort(load(tree)).table["included"].all()
    save_series(make_scan(labels, rng, make_person(6)), tree / "disc" / "d0" / "other")
    assert any("lie in several folders, among those of other series" in one for one in list_problems(tree)[0])


def test_odd_tags_end_in_no_number(tree, labels, rng):
    odd = {"PatientSize": "170", "PatientWeight": "0", "PatientAge": "", "PatientBirthDate": "", "PatientSex": "O"}
    scan = make_scan(labels, rng, make_person(5, PatientID="", **odd), ContrastBolusAgent="none")
    save_series(scan, tree / "odd")
    save(make_segmentation(scan, labels, SEGMENTS), tree / "odd" / "seg.dcm")
    shared = make_scan(labels, rng, make_person(1, PatientSex="M"))
    save_series(shared, tree / "shared")
    save(make_segmentation(shared, labels, SEGMENTS), tree / "shared" / "seg.dcm")
    built = cohort.build_cohort(load(tree))
    odd = built.table[built.table["image"].str.contains("/odd/")].iloc[0]
    assert odd["included"] and odd[["age", "bmi", "height", "weight"]].isna().all()
    assert odd["sex"] == "O" and odd["contrast"] == "not recorded"
    notes = "\n".join(built.notes)
    assert "1 series has no patient number: each such study counts as a person of its own" in notes
    assert "1 patient number is shared by people of different sex or birth date, who count as one person" in notes
    assert "1 series has a height that is none in metres: no BMI is worked out from it" in notes


def test_multi_frame_images_and_structure_sets(tmp_path, labels, rng):
    folder = tmp_path / "dicom"
    stored = np.where(labels > 0, 1064, 24).astype(np.uint16)
    scan = make_enhanced(stored, make_person(1), order=[3, 1, 0, 2, 5, 4])
    save(scan, folder / "a" / "enhanced.dcm")
    save(make_structures([scan], {"liver": [square(0.5, 4.5, z) for z in (1, 2)]}), folder / "a" / "rt.dcm")
    built = cohort.build_cohort(load(folder, organs={"liver": {"labels": ["Liver"]}}))
    assert built.table["included"].tolist() == [True]
    mask = sitk.GetArrayFromImage(
        volumes.read_volume(tmp_path / "outputs" / "tree" / "references" / built.table["scan"][0] / "liver.nii.gz")
    )
    expected = np.zeros(SHAPE)
    expected[1:3, 1:5, 1:5] = 1
    assert np.array_equal(mask, expected)


def test_a_models_masks_are_found_by_their_series(tree, labels, rng):
    """The model's folder holds masks under any names; one scan has none, one has two."""
    model = tree.parent / "model"
    scans = sorted(tree.glob("study*/ct"))
    for number, folder in enumerate(scans[:3]):
        source = [pydicom.dcmread(path) for path in sorted(folder.iterdir(), reverse=True)]
        drawn = labels.copy()
        drawn[1, 1, 1:3] = 0
        shown = np.where(drawn < 3, drawn, 0) if number else drawn
        save(
            make_segmentation(source, shown, SEGMENTS[:2] if number else SEGMENTS, description="net v1"),
            model / f"x{number}.dcm",
        )
    save(make_segmentation(source, drawn, SEGMENTS, description="net v2"), model / "y.dcm")
    entry = {"name": "ours", "kind": "precomputed", "path": str(model)}
    study = load(tree, [entry])
    problems = cohort.check_cohort(study, {"ours": str(model)}).problems
    assert any("no DICOM mask that was drawn on this scan's series" in one for one in problems)
    assert any("2 DICOM masks of this scan's series: choose one by mask_series" in one for one in problems)
    study = load(tree, [entry | {"mask_series": "* V1"}])
    cohort.build_cohort(study)
    table = inference.run_inference(study)
    assert sorted(table["status"]) == ["failed", "ok", "ok", "ok"]
    assert (~inference.run_inference(study)["reused"]).sum() == 1  # the failed one alone is tried again
    organs = inference.read_organs(study)
    assert set(organs.loc[organs["organ"] == "liver", "dice"].round(3)) == {round(2 * 34 / 70, 3)}
    assert set(organs.loc[organs["not_drawn"] != "", "not_drawn"]) == {"the DICOM mask has no part of it"}


def test_a_program_that_writes_label_maps_needs_numbers(tree):
    study = load(tree, [{"name": "own", "kind": "command", "command": "true {image} {output}"}])
    problems = models.check_model(study.parameters.models[0], study)
    assert "models.own.organs.liver.labels must be ids, which label maps hold; got Liver" in problems


def test_a_table_may_name_dicom_masks(tree, labels):
    pd.DataFrame(
        {
            "subject": ["a"],
            "sex": "female",
            "age": 50,
            "bmi": 22,
            "modality": "CT",
            "image": "study0/ct",
            "reference": "study0/seg/1.dcm",
        }
    ).to_csv(tree / "people.csv", index=False)
    study = load(tree, source="table", path=str(tree / "people.csv"), confounders=[])
    table = cohort.build_cohort(study).table
    assert table["included"].all() and table["reference"][0].endswith("references/a")
    assert table["reference_recorded"][0].endswith("study0/seg/1.dcm")
    pd.read_csv(tree / "people.csv").assign(image="study1/ct").to_csv(tree / "people.csv", index=False)
    (problem,) = [one for one in cohort.check_cohort(study).problems if "left out" in one]
    assert "the DICOM mask was drawn on another series than the scan's image" in problem


def test_folders_without_series(tmp_path):
    with pytest.raises(SegfairError, match=r"no such folder: cohort\.path must be the folder of DICOM files"):
        cohort.build_cohort(load(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegfairError, match=r"holds no series of CT or MR in DICOM"):
        cohort.build_cohort(load(tmp_path / "empty"))


def test_a_mask_that_names_no_series_is_matched_by_its_frame_of_reference(tree, labels, rng):
    scan = make_scan(labels, rng, make_person(5))
    save_series(scan, tree / "new")
    mask = make_segmentation(scan, labels, SEGMENTS)
    del mask.ReferencedSeriesSequence
    save(mask, tree / "new" / "seg.dcm")
    assert list_problems(tree) == ([], [])
    mask.FrameOfReferenceUID = generate_uid()
    save(mask, tree / "new" / "seg.dcm")
    assert len(list_problems(tree)[0]) == 2
