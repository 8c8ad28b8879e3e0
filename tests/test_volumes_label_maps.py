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
    with pytest.raises(VolumeError, match=r"aorta\.nii\.gz: lies on another grid"):
        volumes.read_label_map(folder, organs, ids)
    with pytest.raises(VolumeError, match="holds none of the masks"):
        volumes.read_label_map(folder, {"liver": Organ(files=["liver"])}, {"liver": 1})
