"""Left and right follow the body, not the storage order."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.parameters import Organ
from tests.small_volumes import make_image, save

PAIR = {"kidney_right": Organ(labels=[1], side="right"), "kidney_left": Organ(labels=[1], side="left")}
PAIR_IDS = {"kidney_right": 1, "kidney_left": 2}


def pair_of_kidneys() -> np.ndarray:
    """Two blocks along x on a grid of 60 mm by 2 mm voxels: indices 2–5 and 54–57, 104 mm apart."""
    array = np.zeros((4, 5, 60), np.uint8)
    array[1:3, 1:4, 2:6] = 1
    array[1:3, 1:4, 54:58] = 1
    return array


@pytest.mark.parametrize("code", ["LPS", "RAS", "SAL"])
def test_sides_follow_the_body_not_the_storage_order(tmp_path, code):
    # In LPS, x grows towards the person's left: the low indices are the right kidney.
    image = sitk.DICOMOrient(make_image(pair_of_kidneys(), spacing=(2.0, 2.0, 2.0), origin=(-60.0, 0.0, 0.0)), code)
    label_map = volumes.read_label_map(save(image, tmp_path / "k.nii.gz"), PAIR, PAIR_IDS)
    array = sitk.GetArrayFromImage(volumes.to_axial(label_map.image))
    assert set(np.unique(array[..., :30])) == {0, 1} and set(np.unique(array[..., 30:])) == {0, 2}
    # centroids at index 3.5 and 55.5: x = −60 + 2·3.5 = −53 and 51; the plane lies midway, at −1 mm
    assert label_map.midline_x_mm == pytest.approx(-1.0)
    assert label_map.notes == ()


def test_a_single_kidney_is_noted_and_a_prediction_uses_the_references_plane(tmp_path):
    array = pair_of_kidneys()
    array[..., 30:] = 0
    image = make_image(array, spacing=(2.0, 2.0, 2.0), origin=(-60.0, 0.0, 0.0))
    path = save(image, tmp_path / "one.nii.gz")
    alone = volumes.read_label_map(path, PAIR, PAIR_IDS)
    assert "told apart by the middle of the image" in alone.notes[0]
    moved = volumes.read_label_map(path, PAIR, PAIR_IDS, midline_x_mm=-58.0)
    assert set(np.unique(sitk.GetArrayFromImage(moved.image))) == {0, 2}


def test_real_kidneys_have_two_sides_of_plausible_size(data_folder):
    path = data_folder / "kits23_annotators" / "reference" / "case_00004.nii.gz"
    label_map = volumes.read_label_map(path, PAIR, PAIR_IDS)
    millilitres = (
        np.bincount(sitk.GetArrayFromImage(label_map.image).ravel()) * np.prod(label_map.image.GetSpacing()) / 1000
    )
    assert 150 < millilitres[1] < 300 and 150 < millilitres[2] < 300
