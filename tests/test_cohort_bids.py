"""BIDS: whose image, which mask, which label by name, what is told of a person and a session."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from helpers import cohort, volumes
from helpers.errors import SegfairError, VolumeError
from helpers.study import load_study

from .test_cohort import SHAPE, save

MASK = np.zeros(SHAPE, np.uint8)
MASK[2:5, 1:3, 2:5], MASK[2:5, 4:6, 2:5], MASK[1, 1, 1] = 6, 1, 9


def load(repository, root, path=None, /, **cohort_section):
    """The shipped parameter file, looking at a tree of a test."""
    shipped = yaml.safe_load((repository / "params" / "bids.yaml").read_text("utf-8"))
    shipped["cohort"] |= {"path": str(path or root)} | cohort_section
    del shipped["spatial"]
    shipped |= {"models": shipped["models"][:1], "compute": {"workers": 0}}
    (root.parent / "bids.yaml").write_text(yaml.safe_dump(shipped), encoding="utf-8")
    return load_study(root.parent / "bids.yaml")


def add(root, *names: str, mask=MASK) -> None:
    for name in names:
        save(mask if "derivatives" in name else np.ones(SHAPE, np.int16), root / name)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "ds"
    add(root, "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz")
    add(root, "sub-02/ct/sub-02_ct.nii.gz", "sourcedata/sub-02/ct/sub-02_ct.nii.gz")
    for name in (
        "sub-01/ses-a/anat/sub-01_ses-a_space-T1w_desc-manual_dseg",
        "sub-01/ses-b/anat/sub-01_ses-b_desc-manual_dseg",
        "sub-02/ct/sub-02_desc-manual_dseg",
        "sub-03/anat/sub-03_desc-manual_dseg",  # its image was not shared
    ):
        add(root, f"derivatives/manual/{name}.nii.gz")
    (root / "derivatives" / "manual" / "dataset_description.json").write_text("{}", encoding="utf-8")
    (root / "derivatives" / "manual" / "dseg.tsv").write_text(
        "index\tname\tabbreviation\n1\tSpleen\tspl\n6\tLiver\tliv\n9\tgall bladder\tgb\n", encoding="utf-8"
    )
    (root / "participants.tsv").write_text(
        "participant_id\tsex\tage\tsite\nsub-03\tn/a\t44\tn\n01\tF\t60\tn\nsub-02\tMale\t89+\ts\n", encoding="utf-8"
    )
    (root / "sub-01" / "sub-01_sessions.tsv").write_text(
        "session_id\tage\tscanner\nses-b\t63\tPrisma\nses-a\tn/a\tAera\n", encoding="utf-8"
    )
    return root


def test_images_people_and_sessions(repository, root):
    study = load(repository, root, values={"age": {"89+": "89"}}, confounders=["site", "scanner"])
    table = cohort.build_cohort(study).table.set_index("scan")
    assert list(table.index) == ["sub-01_ses-a", "sub-01_ses-b", "sub-02", "sub-03"]
    assert table["included"].all(), table["reason"].tolist()
    assert table["subject"].tolist() == ["sub-01", "sub-01", "sub-02", "sub-03"]
    assert table["modality"].tolist() == ["MR", "MR", "CT", "MR"]
    assert table["sex"].tolist()[:3] == ["female", "female", "male"] and table.loc[["sub-03"], "sex"].isna().all()
    assert table["age"].tolist() == [60, 63, 89, 44], "a session's age counts where it is known"
    assert table.loc["sub-01_ses-b", ["scanner", "site"]].tolist() == ["Prisma", "n"]
    assert table.loc["sub-02", "image"] == str(root / "sub-02/ct/sub-02_ct.nii.gz")
    assert table.loc[["sub-03"], "image"].isna().all()
    labels = volumes.read_label_map(table.loc["sub-02", "reference"], study.parameters.cohort.organs, study.organ_ids)
    drawn = sitk.GetArrayFromImage(labels.image)
    assert np.array_equal(drawn == study.organ_ids["liver"], MASK == 6) and labels.unknown == (9,)
    assert np.array_equal(drawn == study.organ_ids["spleen"], MASK == 1)


def test_the_nearest_table_names_labels(repository, root):
    organs = {"gall": {"labels": ["Gall-Bladder"]}, "spleen": {"labels": ["SPL", 4]}}
    study = load(repository, root, organs=organs)
    near = root / "derivatives" / "manual" / "sub-02" / "ct"
    (near / "sub-02_desc-auto_dseg.tsv").write_text("index\tname\n3\tspl\n", encoding="utf-8")  # of another mask
    (near / "sub-02_desc-manual_dseg.tsv").write_text("index\tname\n6\tspl\n", encoding="utf-8")
    section, mask = study.parameters.cohort, near / "sub-02_desc-manual_dseg.nii.gz"
    drawn = sitk.GetArrayFromImage(volumes.read_label_map(mask, section.organs, section.organ_ids()).image)
    assert np.array_equal(drawn == 1, MASK == 9) and np.array_equal(drawn == 2, MASK == 6)
    wrong = load(repository, root, organs={"kidney": {"labels": ["kidney"]}})
    message = r"no lookup table \(dseg\.tsv\) that belongs to it names 'kidney'; they name .*gall bladder"
    with pytest.raises(VolumeError, match=message):
        volumes.read_label_map(mask, wrong.parameters.cohort.organs, {"kidney": 1})
    (near / "sub-02_desc-manual_dseg.tsv").write_text("index\tname\nsix\tspl\n", encoding="utf-8")
    with pytest.raises(VolumeError, match=r"sub-02_desc-manual_dseg\.tsv: is no lookup table"):
        volumes.read_label_map(mask, section.organs, section.organ_ids())
    with pytest.raises(SegfairError, match="must be ids"):
        load(repository, root, source="amos")


def test_masks_of_one_organ_each(repository, root):
    for file in (root / "derivatives").rglob("*_dseg.nii.gz"):
        file.unlink()
    place = "derivatives/manual/sub-02/ct/sub-02"
    add(root, f"{place}_label-liver_desc-manual_mask.nii.gz", mask=(MASK == 6).astype(np.uint8))
    add(root, f"{place}_label-spleen_mask.nii.gz", mask=(MASK == 1).astype(np.uint8))
    organs = {name: {"files": [f"*_label-{name}_*mask"]} for name in ("liver", "spleen")}
    study = load(repository, root, organs=organs, values={"age": {"89+": "89"}})
    (row,) = cohort.build_cohort(study).table.to_dict("records")
    assert (row["scan"], row["included"]) == ("sub-02", True)
    assert row["image"] == str(root / "sub-02/ct/sub-02_ct.nii.gz")
    drawn = sitk.GetArrayFromImage(
        volumes.read_label_map(row["reference"], study.parameters.cohort.organs, study.organ_ids).image
    )
    assert np.array_equal(drawn == 1, MASK == 6) and np.array_equal(drawn == 2, MASK == 1)


def test_several_masks_or_images_are_chosen_by_entities_or_refused(repository, root):
    add(root, "derivatives/auto/sub-02/ct/sub-02_desc-auto_dseg.nii.gz", "sub-02/ct/sub-02_ct.nii")
    with pytest.raises(SegfairError, match=r"sub-02 has 2 label maps \(sub-02_desc-auto_dseg\.nii\.gz, .*choose by"):
        cohort.build_cohort(load(repository, root))
    with pytest.raises(SegfairError, match=r"sub-02 has 2 images \(.*choose by cohort\.entities, such as {suffix: ct}"):
        cohort.build_cohort(load(repository, root, entities={"desc": "manual"}))
    (root / "sub-02/ct/sub-02_ct.nii").unlink()
    add(root, "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz")
    for options in ({"entities": {"desc": "manual", "suffix": "T2w"}}, {"entities": {"suffix": "T2w"}}):
        path = None if "desc" in options["entities"] else root / "derivatives" / "manual"
        table = cohort.build_cohort(load(repository, root, path, **options)).table.set_index("scan")
        assert len(table) == 4 and table.loc["sub-01_ses-a", "image"].endswith("_T2w.nii.gz")
        assert table["reference"].str.contains("manual").all()
    with pytest.raises(SegfairError, match=r"holds no masks: .* are expected with desc-none"):
        cohort.build_cohort(load(repository, root, entities={"desc": "none"}))
    with pytest.raises(SegfairError, match="`entities` has no use when source is 'kits23'"):
        load(repository, root, source="kits23", entities={"desc": "x"}, organs={"liver": {"labels": [1]}})


def test_raw_data_and_derivatives_side_by_side(repository, root):
    (root / "rawdata").mkdir()
    for name in ("sub-01", "sub-02", "participants.tsv"):
        (root / name).rename(root / "rawdata" / name)
    study = load(repository, root, values={"age": {"89+": "89"}})
    table = cohort.build_cohort(study).table.set_index("scan")
    assert table.loc["sub-02", "image"] == str(root / "rawdata/sub-02/ct/sub-02_ct.nii.gz")
    assert table["age"].tolist() == [60, 63, 89, 44]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no participants.tsv: add it, or name a table of people under cohort.people"),
        ("subject\tsex\nsub-01\tF\n", "has no column participant_id: BIDS' own table is expected"),
        ("participant_id\tsex\nsub-01\tF\n01\tM\n", "participant_id names sub-01 twice: remove one of the rows"),
    ],
)
def test_participants_that_cannot_be_used(repository, root, text, message):
    (root / "participants.tsv").unlink()
    if text is not None:
        (root / "participants.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(SegfairError, match=message):
        cohort.build_cohort(load(repository, root))


def test_a_table_of_ones_own_in_place_of_participants(repository, root):
    (root / "participants.tsv").unlink()
    (root.parent / "people.csv").write_text("subject,sex,age\nsub-02,male,50\n", encoding="utf-8")
    study = load(repository, root, people="people.csv")
    table = cohort.build_cohort(study).table.set_index("scan")
    assert table.loc["sub-02", ["sex", "age"]].tolist() == ["male", 50]
