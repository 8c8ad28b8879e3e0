"""Masks as label maps: ids, fractions, folders and overlaps."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import VolumeError
from helpers.parameters import Organ
from tests.small_volumes import SHAPE, make_image, save


@pytest.fixture
def image(rng):
    return make_image(rng.integers(-1000, 1000, SHAPE).astype(np.int16))


def test_label_map_ids_are_translated_and_unknown_ones_listed(tmp_path):
    array = np.zeros(SHAPE, np.int16)
    array[0, 0, :4] = [6, 7, 9, 12]
    path = save(make_image(array), tmp_path / "labels.nii.gz")
    organs = {"liver": Organ(labels=[6, 7]), "spleen": Organ(labels=[1])}
    label_map = volumes.read_label_map(path, organs, {"liver": 1, "spleen": 2})
    assert sitk.GetArrayFromImage(label_map.image)[0, 0, :5].tolist() == [1, 1, 0, 0, 0]
    assert label_map.unknown == (9, 12)


def test_a_probability_map_is_no_label_map(tmp_path):
    path = save(make_image(np.full(SHAPE, 0.5, np.float32)), tmp_path / "p.nii.gz")
    with pytest.raises(VolumeError, match="must hold whole numbers"):
        volumes.read_label_map(path, {"liver": Organ(labels=[1])}, {"liver": 1})


def test_folder_of_masks_is_united_and_checked(tmp_path):
    folder = tmp_path / "segmentations"
    folder.mkdir()
    upper, lower, other = (np.zeros(SHAPE, np.uint8) for _ in range(3))
    upper[4:], lower[:2], other[2] = 1, 1, 1
    for name, array in (("upper", upper), ("lower", lower), ("aorta", other)):
        save(make_image(array), folder / f"{name}.nii.gz")
    organs = {
        "lung": Organ(files=["upper", "middle", "lower"]),
        "aorta": Organ(files=["aorta"]),
        "liver": Organ(files=["liver"]),
    }
    ids = {"lung": 1, "aorta": 2, "liver": 3}
    array = sitk.GetArrayFromImage(volumes.read_label_map(folder, organs, ids).image)
    assert array[:, 0, 0].tolist() == [1, 1, 2, 0, 1, 1, 1]

    save(make_image(upper), folder / "aorta.nii.gz")
    with pytest.raises(VolumeError, match="aorta shares 216 voxels with another organ"):
        volumes.read_label_map(folder, organs, ids)
    save(make_image(other, origin=(0.0, 0.0, 0.0)), folder / "aorta.nii.gz")
    with pytest.raises(VolumeError, match=r"aorta\.nii\.gz: is not on the grid of"):
        volumes.read_label_map(folder, organs, ids)
    with pytest.raises(VolumeError, match="holds none of the masks"):
        volumes.read_label_map(folder, {"liver": Organ(files=["liver"])}, {"liver": 1})


ORGANS, IDS = {"liver": Organ(files=["liver"]), "spleen": Organ(files=["spleen"])}, {"liver": 1, "spleen": 2}


def read_liver(folder, values: np.ndarray, name="liver.nii.gz") -> np.ndarray:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    save(make_image(values), folder / name)
    return sitk.GetArrayFromImage(volumes.read_label_map(folder, ORGANS, IDS).image) == 1


def test_a_mask_of_one_organ_holds_two_values_but_for_rounding(rng, tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[2:5, 2:6, 3:7] = True
    for values in (
        (mask * 255).astype(np.uint8),
        mask.astype(np.int64),
        np.where(mask, 1, -1).astype(np.int16),
        mask + 1e-15 * rng.random(SHAPE),
        (mask * 0.5).astype(np.float32),
        np.where(mask, 0.9999, 1e-5).astype(np.float32),
    ):
        assert np.array_equal(read_liver(tmp_path / "x", values), mask)
    assert read_liver(tmp_path / "x", np.ones(SHAPE, np.uint8)).all()
    for nothing in (np.zeros(SHAPE, np.uint8), np.full(SHAPE, -1, np.int16), 1e-15 * rng.random(SHAPE)):
        assert not read_liver(tmp_path / "x", nothing).any()


def test_a_mask_of_one_organ_of_other_values_is_refused(rng, tmp_path):
    mask = np.zeros(SHAPE)
    mask[2:5, 2:6, 3:7] = 1
    soft = (np.roll(mask, 1, 0) + 2 * mask + np.roll(mask, -1, 0)) / 4
    for values in (soft, 0.003 + 0.9 * soft, mask * 2 + np.roll(mask, 4, 2), mask + 1, -mask, soft.astype(np.float32)):
        with pytest.raises(VolumeError, match=r"liver\.nii\.gz: the mask of one organ must hold two values, 0 and one"):
            read_liver(tmp_path / "x", values)
    with pytest.raises(VolumeError, match=r"must hold organ ids; it holds NaN or infinity"):
        read_liver(tmp_path / "x", np.where(mask > 0, np.nan, 0))


def test_a_label_map_may_be_rounded_and_never_holds_what_is_no_number(tmp_path):
    labels = np.zeros(SHAPE)
    labels[2:5, 2:6, 3:7], labels[0] = 1, 2
    organs = {"liver": Organ(labels=[1]), "spleen": Organ(labels=[2])}

    def read(values):
        return sitk.GetArrayFromImage(
            volumes.read_label_map(save(make_image(values), tmp_path / "x.nii"), organs, IDS).image
        )

    assert np.array_equal(read((labels * (1 + 1e-5)).astype(np.float32)), labels)
    for wrong, told in (
        (np.nan, "it holds NaN or infinity: give the label map"),
        (np.inf, "it holds NaN or infinity"),
        (-1024, "0 for none; it holds -1024: give"),
        (1e6, r"up to 65535; it holds 1e\+06: give"),
        (0.5, "it holds fractions: give"),
    ):
        with pytest.raises(VolumeError, match=told):
            read(np.where(labels == 2, wrong, labels))


def test_only_the_organs_own_files_of_a_folder_are_opened(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5] = 1
    folder = tmp_path / "x"
    read_liver(folder, mask)
    for name in ("._liver.nii.gz", ".DS_Store", "aorta.nii.gz", "liver.txt", "liver_old.nii.gz"):
        (folder / name).write_bytes(b"\0\5\26\7")
    assert sitk.GetArrayFromImage(volumes.read_label_map(folder, ORGANS, IDS).image)[3].all()
    save(make_image(mask), folder / "liver.nrrd")
    with pytest.raises(VolumeError, match=r"^x: liver\.nii\.gz and liver\.nrrd are of one organ: keep one of them"):
        volumes.read_label_map(folder, ORGANS, IDS)
    for name in ("liver.NII.GZ", "liver.nii", "liver.NRRD"):  # known by their first bytes
        read_liver(folder, mask)
        (folder / "liver.nii.gz").rename(folder / name)
        assert sitk.GetArrayFromImage(volumes.read_label_map(folder, ORGANS, IDS).image)[3].all()


def test_capitals_that_differ_do_not_make_a_missed_organ(tmp_path):
    with pytest.raises(VolumeError, match=r"^x: the folder holds Liver\.nii\.gz where cohort\.organs names liver"):
        read_liver(tmp_path / "x", np.ones(SHAPE, np.uint8), "Liver.nii.gz")
