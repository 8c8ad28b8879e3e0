"""Files found by the ids of a table, however they are called."""

from __future__ import annotations

import pytest

from helpers.cohort import found_files
from helpers.cohort.found_files import group_files, join_folders, list_files
from helpers.errors import SegfairError


def group(*files, keys):
    return {one.name: one for one in group_files(files, keys)}


def test_folders_of_images_and_masks_are_groups_with_a_pattern():
    keys = ["p001", "p002", "P010"]
    files = [f"{folder}/{key}.nii.gz" for folder in ("images", "masks") for key in keys]
    found = group(*files, "images/other.nii.gz", "masks/p0010.nii.gz", keys=keys)
    assert set(found) == {"images/{}.nii.gz", "masks/{}.nii.gz"}
    assert found["masks/{}.nii.gz"].pattern == "masks/{}.nii.gz"
    assert found["masks/{}.nii.gz"].paths == {key: [f"masks/{key}.nii.gz"] for key in keys}


def test_the_channels_of_nnunet_are_groups_of_their_own():
    files = [f"imagesTr/s{place}_{channel:04d}.nii.gz" for place in range(4) for channel in (0, 1)]
    found = group(*files, keys=[f"s{place}" for place in range(4)])
    assert [one.pattern for one in found.values()] == ["imagesTr/{}_0000.nii.gz", "imagesTr/{}_0001.nii.gz"]


def test_numbers_are_found_behind_zeros_but_have_no_pattern():
    found = group("case_007_0000.nii.gz", "case_000_0000.nii.gz", "case_012_0000.nii.gz", keys=["0", "7", "12"])
    (only,) = found.values()
    assert only.paths == {
        "7": ["case_007_0000.nii.gz"],
        "0": ["case_000_0000.nii.gz"],
        "12": ["case_012_0000.nii.gz"],
    }
    assert only.name == "case_{}_0000.nii.gz" and only.pattern is None


def test_several_scans_of_a_person_and_dates_are_one_group():
    files = ["ct/p1_20190101.nii.gz", "ct/p1_20200202.nii.gz", "ct/p2_20181231.nii.gz", "ct/p3_20170301.nii.gz"]
    (only,) = group(*files, keys=["p1", "p2", "p3"]).values()
    assert only.name == "ct/{}_#.nii.gz" and only.pattern is None
    assert only.paths["p1"] == files[:2]


def test_an_id_may_stand_twice_in_a_path_and_be_spelled_in_other_letters():
    (only,) = group("S1/S1_ct.nii.gz", "S2/S2_ct.nii.gz", keys=["S1", "S2"]).values()
    assert only.pattern == "{}/{}_ct.nii.gz"
    (other,) = group("s1.nii.gz", "s2.nii.gz", keys=["S1", "S2"]).values()
    assert other.pattern is None and other.paths["S1"] == ["s1.nii.gz"]


def test_masks_of_an_organ_each_are_one_folder():
    files = [f"s{place}/segmentations/{organ}.nii.gz" for place in (1, 2) for organ in ("liver", "spleen")]
    groups = group_files([*files[:3], "s1/ct.nii.gz", "s2/ct.nii.gz"], ["s1", "s2"])
    (folder,) = join_folders(groups)
    assert folder.pattern == "{}/segmentations" and folder.organs == ["liver", "spleen"]
    assert folder.paths == {"s1": ["s1/segmentations"], "s2": ["s2/segmentations"]}


def test_files_are_listed_once_and_dicom_by_its_folder(tmp_path, monkeypatch):
    for name in ("a/1.dcm", "a/2.dcm", "b/IM0001", "c.nii.gz", "._c.nii.gz", ".hidden/d.nii.gz", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0" * 128 + b"DICM" if "IM" in name else b"")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert list_files(tmp_path) == ["a", "b", "c.nii.gz"]
    monkeypatch.setattr(found_files, "_MOST_FILES", 3)
    with pytest.raises(
        SegfairError, match="more than 3 files lie below it: name the folders of your scans by --images"
    ):
        list_files(tmp_path)
