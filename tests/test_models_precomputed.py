"""Ready-made masks: any storage order of the same voxels, never another grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import SegfairError, VolumeError
from helpers.models import ScanCase, Spec
from helpers.models.ready_masks import load
from helpers.parameters import Organ

SHAPE = (7, 8, 9)
ORGANS = {"right": Organ(labels=[4], side="right"), "left": Organ(labels=[4], side="left")}
IDS = {"right": 1, "left": 2}


def draw_labels(rng: np.random.Generator) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 2:6, 1:4] = 4
    labels[2:6, 2:6, 6:8] = 4
    labels[rng.random(SHAPE) < 0.05] = 0
    return labels


def make_image(array: np.ndarray, spacing: tuple[float, float, float] = (12.0, 2.0, 5.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-40.0, 7.0, 30.0))
    return image


def segment(template: Path, *, midline_x_mm: float | None = 14.0, resample: bool = False) -> np.ndarray:
    grid = volumes.get_grid(make_image(np.zeros(SHAPE, np.uint8)))
    case = ScanCase("s1", "p1", "CT", grid, IDS, midline_x_mm=midline_x_mm)
    spec = Spec("tool", "precomputed", ORGANS, template=str(template), resample=resample)
    result = load(spec).segment(case)
    assert result.prompts == 0 and result.resampled == resample
    return result.labels


@pytest.mark.parametrize("code", ["LPS", "RAS", "SAR", "IPL"])
def test_any_storage_order_gives_the_same_mask_and_sides(tmp_path: Path, rng: np.random.Generator, code: str) -> None:
    labels = draw_labels(rng)
    volumes.write_volume(sitk.DICOMOrient(make_image(labels), code), tmp_path / "p1" / "s1.nii.gz")
    found = segment(tmp_path / "{subject}" / "{scan}.nii.gz")
    # Voxel i of x lies at −40 + 12 i mm; the midline of 14 mm parts 0…4 (right) from 5…8 (left).
    expected = np.where(labels == 4, np.where(np.arange(9) <= 4, 1, 2), 0)
    np.testing.assert_array_equal(found, expected)


def test_the_references_midline_parts_left_from_right(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = draw_labels(rng)
    volumes.write_volume(make_image(labels), tmp_path / "s1.nii.gz")
    found = segment(tmp_path / "{scan}.nii.gz", midline_x_mm=-100.0)
    assert set(np.unique(found)) == {0, 2}


def test_a_mask_on_another_grid_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    volumes.write_volume(make_image(draw_labels(rng), spacing=(12.0, 2.0, 5.5)), tmp_path / "s1.nii.gz")
    with pytest.raises(VolumeError, match=r"not on the reference's grid \(spacing"):
        segment(tmp_path / "{scan}.nii.gz")
    volumes.write_volume(make_image(draw_labels(rng)[:, :, :-1]), tmp_path / "s1.nii.gz")
    with pytest.raises(VolumeError, match=r"not on the reference's grid \(size"):
        segment(tmp_path / "{scan}.nii.gz")


def test_a_mask_on_another_grid_is_resampled_where_allowed_with_the_sides_of_the_reference(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    labels = draw_labels(rng)
    part = make_image(labels)[1:8, :, 1:]
    volumes.write_volume(sitk.DICOMOrient(part, "RAS"), tmp_path / "s1.nii.gz")
    expected = np.where(labels == 4, np.where(np.arange(9) <= 4, 1, 2), 0)
    expected[0], expected[:, :, 0], expected[:, :, 8] = 0, 0, 0
    np.testing.assert_array_equal(segment(tmp_path / "{scan}.nii.gz", resample=True), expected)
    moved = make_image(labels)
    moved.SetOrigin((-40.0, 7.0, 33.0))
    volumes.write_volume(moved, tmp_path / "s1.nii.gz")
    with pytest.raises(VolumeError, match=r"the mask of tool is moved against the reference by up to 3\.0 mm"):
        segment(tmp_path / "{scan}.nii.gz", resample=True)


def test_a_missing_mask_names_the_template_not_the_person(tmp_path: Path) -> None:
    with pytest.raises(SegfairError, match="there is no mask for this scan") as caught:
        segment(tmp_path / "{subject}" / "{scan}.nii.gz")
    assert "s1" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_damaged_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s1.nii.gz").write_bytes(b"no image")
    with pytest.raises(VolumeError, match=r"s1\.nii\.gz"):
        segment(tmp_path / "{scan}.nii.gz")
