"""Public layouts on small trees: which file is whose, by which numbers, a table of one's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from PIL import Image

from helpers import cohort, volumes
from helpers.errors import SegfairError, VolumeError
from helpers.study import load_study

from .test_cohort import SHAPE, save
from .test_dicom import write_series

# The files of two scans by layout, one of them without its image; and the names of their people.
TREES = {
    "flare": (
        ["images/FLARE22_Tr_0001_0000.nii.gz"],
        ["labels/FLARE22_Tr_0001.nii.gz", "labels/FLARETs_0002.nii.gz", "labels/._FLARE22_Tr_0001.nii.gz"],
        ["FLARE22_Tr_0001", "FLARETs_0002"],
    ),
    "btcv": (
        ["Training/img/img0001.nii.gz", "Testing/img/img0061.nii.gz"],
        ["Training/label/label0001.nii.gz", "Training/label/label0002.nii.gz"],
        ["img0001", "img0002"],
    ),
    "word": (
        ["imagesTr/word_0002.nii.gz"],
        ["labelsTr/word_0002.nii.gz", "labelsVal/word_0001.nii.gz"],
        ["word_0002", "word_0001"],
    ),
}


def load_shipped(repository, source: str, path, people=None, /, **cohort_section):
    """The shipped parameter file, looking at a tree of a test."""
    shipped = yaml.safe_load((repository / "params" / f"{source}.yaml").read_text("utf-8"))
    shipped["cohort"] |= {"path": str(path)} | cohort_section
    if people is not None:
        shipped["cohort"]["people"] = str(people)
    else:
        shipped["cohort"].pop("people", None)
    shipped |= {"models": shipped["models"][:1], "compute": {"workers": 0}, "spatial": {"organs": ["liver"]}}
    place = path.parent / f"{source}.yaml"
    place.write_text(yaml.safe_dump(shipped), encoding="utf-8")
    return load_study(place)


def draw(values) -> np.ndarray:
    """One block per value, in the order given."""
    mask = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        mask[2:5, 1 + 2 * place : 3 + 2 * place, 2:5] = value
    return mask


def write_people(path, names) -> None:
    rows = {"subject": names, "sex": ["female", "male"], "age": ["61", "48"], "image": ["mine.nii.gz"] * 2}
    pd.DataFrame(rows).to_csv(path, index=False)


@pytest.mark.parametrize("source", list(TREES))
def test_files_are_paired_and_people_joined(repository, tmp_path, source):
    images, labels, names = TREES[source]
    folder, people = tmp_path / source, tmp_path / "people.csv"
    write_people(people, names[::-1])
    study = load_shipped(repository, source, tmp_path / source, people)
    ids = {name: organ.labels[0] for name, organ in study.parameters.cohort.organs.items()}
    for name in labels:
        save(draw([ids["liver"], ids["spleen"]]), folder / name)
    for name in images:
        save(np.zeros(SHAPE, np.int16), folder / name)
    table = cohort.build_cohort(study).table.set_index("subject")
    assert sorted(table.index) == sorted(names) and table["included"].all()
    assert table["sex"].to_dict() == {names[1]: "female", names[0]: "male"} and table.loc[names[0], "age"] == 48
    assert table.loc[names[0], "image"] == str(folder / images[0]) and table.loc[[names[1]], "image"].isna().all()
    assert (table["modality"] == "CT").all()


# The ids that the data sets' publishers document, of organs on both sides.
IDS = {
    "flare": {"liver": 1, "kidney_right": 2, "spleen": 3, "aorta": 5, "kidney_left": 13},
    "btcv": {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 6, "aorta": 8},
    "word": {"liver": 1, "spleen": 2, "kidney_left": 3, "kidney_right": 4},
    "chaos": {"liver": 63, "kidney_right": 126, "kidney_left": 189, "spleen": 252},
}


@pytest.mark.parametrize("source", list(IDS))
def test_the_shipped_numbers_are_the_documented_ones(repository, source):
    organs = load_study(repository / "params" / f"{source}.yaml").parameters.cohort.organs
    assert {name: organ.labels for name, organ in organs.items()} == {n: [i] for n, i in IDS[source].items()}


@pytest.mark.parametrize(
    ("people", "message"),
    [
        (None, r"cohort.people is missing: the data set comes without sex, age or BMI: name a table with a column"),
        ("name,sex\nword_0002,female\n", "has no column 'subject'; it has name, sex: map it under cohort.columns"),
        ("subject,sex\nword_0002,m\nword_0002,f\n", r"subject names somebody twice \(word_0002\)"),
        ("subject,sex\n2,female\n", r"subject names nobody of the data set \(word_0002, word_0001, …\)"),
        ("subject,age\nword_0002,40\n", "has no column 'sex' for attribute 'sex'"),
    ],
)
def test_a_table_of_people_that_does_not_fit(repository, tmp_path, people, message):
    for name in TREES["word"][1]:
        save(draw([1]), tmp_path / "word" / name)
    if people is not None:
        (tmp_path / "people.csv").write_text(people, encoding="utf-8")
    study = load_shipped(repository, "word", tmp_path / "word", people and tmp_path / "people.csv")
    with pytest.raises(SegfairError, match=message):
        cohort.build_cohort(study)


def test_a_key_of_another_name_and_no_place_for_people(repository, tmp_path):
    for name in TREES["word"][1]:
        save(draw([1]), tmp_path / "word" / name)
    (tmp_path / "people.csv").write_text("Fall,Sex,age\nword_0001,female,50\n", encoding="utf-8")
    people, columns = tmp_path / "people.csv", {"subject": "Fall", "sex": "Sex"}
    study = load_shipped(repository, "word", tmp_path / "word", people, columns=columns)
    table = cohort.build_cohort(study).table.set_index("subject")
    assert table.loc["word_0001", "sex"] == "female" and table.loc[["word_0002"], "sex"].isna().all()
    with pytest.raises(SegfairError, match="`people` has no use when source is 'table'"):
        load_shipped(repository, "word", tmp_path / "word", people, source="table")


@pytest.mark.parametrize("source", [*TREES, "chaos"])
def test_an_empty_folder_is_a_sentence(repository, tmp_path, source):
    (tmp_path / source).mkdir()
    named = (
        "holds no patient of CHAOS: folders such as"
        if source == "chaos"
        else r"holds no scan of .* and so on is expected"
    )
    with pytest.raises(SegfairError, match=named):
        cohort.build_cohort(load_shipped(repository, source, tmp_path / source, tmp_path / "people.csv"))


def write_patient(folder, series: str, masks: str, values, *, png: str = "{stem}.png") -> np.ndarray:
    """Slices of a series and a PNG for each, named by `png`; return the mask in the body's order.

    The first file by name is the last slice: masks go by names, not by places.
    """
    mask = draw(values)
    for place in range(len(mask)):
        mask[place, 0, place] = values[0]  # no slice is as another
    scan = sitk.GetImageFromArray(np.where(mask > 0, 50, -1000).astype(np.int16))
    scan.SetSpacing((0.8, 0.9, 2.5))
    numbers = range(len(mask))[::-1]
    write_series(scan, folder / series, names=[f"i{number:04d},0000b.dcm" for number in numbers])
    (folder / masks).mkdir(parents=True)
    for number, drawn in zip(numbers, mask, strict=True):
        Image.fromarray(drawn).save(folder / masks / png.format(stem=f"i{number:04d},0000b", number=number))
    return mask


def read(study, row) -> np.ndarray:
    parameters = study.parameters.cohort
    labels = volumes.read_label_map(row["reference"], parameters.organs, parameters.organ_ids())
    return sitk.GetArrayFromImage(labels.image)


def test_chaos_mr_has_two_scans_a_person_and_masks_by_name(repository, tmp_path):
    codes = [63, 126, 189]
    for patient in ("1", "2"):
        phases = tmp_path / "MR" / patient / "T1DUAL"
        mask = write_patient(phases, "DICOM_anon/InPhase", "Ground", codes)
        (phases / "DICOM_anon" / "OutPhase").mkdir()
        write_patient(tmp_path / "MR" / patient / "T2SPIR", "DICOM_anon", "Ground", [*codes, 252])
    write_people(tmp_path / "people.csv", ["1", "2"])
    study = load_shipped(repository, "chaos", tmp_path / "MR", tmp_path / "people.csv")
    table = cohort.build_cohort(study).table.set_index("scan")
    assert table["included"].all(), table["reason"].tolist()
    assert list(table.index) == ["1_T1DUAL", "1_T2SPIR", "2_T1DUAL", "2_T2SPIR"]
    assert table["subject"].tolist() == ["1", "1", "2", "2"] and (table["modality"] == "MR").all()
    assert table.loc["2_T2SPIR", ["sex", "sequence"]].tolist() == ["male", "T2SPIR"]
    ids = study.organ_ids
    drawn = read(study, table.loc["1_T1DUAL"])
    for name, code in (("liver", 63), ("kidney_right", 126), ("kidney_left", 189)):
        assert np.array_equal(drawn == ids[name], mask == code), "each PNG on the slice of its name"


def test_chaos_ct_counts_slices_by_their_names(repository, tmp_path):
    mask = write_patient(tmp_path / "CT" / "5", "DICOM_anon", "Ground", [255], png="liver_GT_{number:03d}.png")
    write_people(tmp_path / "people.csv", ["5", "6"])
    organs = {"liver": {"labels": [255]}}
    options = {"organs": organs, "confounders": []}
    study = load_shipped(repository, "chaos", tmp_path / "CT", tmp_path / "people.csv", **options)
    (row,) = cohort.build_cohort(study).table.to_dict("records")
    assert (row["scan"], row["modality"], row["included"]) == ("5", "CT", True)
    assert np.array_equal(read(study, row) > 0, mask > 0)
    ground = tmp_path / "CT" / "5" / "Ground"
    (ground / "liver_GT_001.png").write_bytes((ground / "liver_GT_001.png").read_bytes()[:45])
    with pytest.raises(VolumeError, match=r"liver_GT_001\.png: cannot be read, it may be truncated or damaged"):
        read(study, row)
    Image.fromarray(mask[0, :4]).save(ground / "liver_GT_001.png")
    with pytest.raises(VolumeError, match="has PNG slices of 9 × 4 pixels where the DICOM series beside it has"):
        read(study, row)
    (ground / "liver_GT_001.png").unlink()
    with pytest.raises(VolumeError, match=rf"Ground: has {len(mask) - 1} PNG slices where the DICOM series beside"):
        read(study, row)


def test_chaos_of_both_kinds_is_refused(repository, tmp_path):
    for name in ("CT", "MR"):
        (tmp_path / "Train_Sets" / name).mkdir(parents=True)
    with pytest.raises(SegfairError, match=r"holds CT and MR: let cohort\.path be one of them"):
        cohort.build_cohort(load_shipped(repository, "chaos", tmp_path / "Train_Sets", tmp_path / "people.csv"))
