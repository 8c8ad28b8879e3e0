"""Volumes on disk become the three slices through the place of most errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import StageError, VolumeError
from helpers.spatial import read_frequency_slices
from tests.spatial_cohort import make_study


def write(path, array):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((-4.0, -7.0, -9.0))
    volumes.write_volume(image, path)


@pytest.fixture
def study(tmp_path):
    study = make_study(tmp_path)
    folder = study.folder / "spatial"
    inside = np.zeros((7, 8, 9), np.uint8)
    inside[2:5, 2:6, 2:7] = 1
    missed = np.zeros((7, 8, 9), np.float32)
    missed[1:4, 3:6, 5:8] = 0.4
    missed[2, 4, 6] = 0.75
    missed[6, 7, 8] = 0.5  # a single voxel, elsewhere
    write(folder / "template.nii.gz", inside)
    write(folder / "missed.nii.gz", missed)
    write(folder / "added.nii.gz", np.zeros_like(missed))
    return study


def make_table():
    return pd.DataFrame(
        {
            "organ": "organ", "model": ["", "sam", "sam"], "attribute": ["", "sex", ""], "group": ["", "female", ""],
            "kind": ["template", "false_negative", "false_positive"], "n": [4, 3, 4],
            "file": ["template.nii.gz", "missed.nii.gz", "added.nii.gz"],
        }
    )  # fmt: skip


def test_slices_run_through_where_most_is_wrong(study):
    missed = read_frequency_slices(study, make_table())[0]
    assert (missed.model, missed.attribute, missed.group, missed.kind, missed.people) == (
        "sam",
        "sex",
        "female",
        "false_negative",
        3,
    )
    assert missed.position_mm == (-9.0 + 3 * 2, -7.0 + 2 * 4, -4.0 + 6)
    assert (missed.origin_mm, missed.spacing_mm) == ((-9.0, -7.0, -4.0), (3.0, 2.0, 1.0))
    axial, coronal, sagittal = missed.percent
    assert (axial.shape, coronal.shape, sagittal.shape) == ((8, 9), (7, 9), (7, 8))
    assert axial[4, 6] == coronal[2, 6] == sagittal[2, 4] == 75 and axial[3, 5] == 40
    assert axial.dtype == np.uint8
    assert [plane.sum() for plane in missed.inside] == [4 * 5, 3 * 5, 3 * 4]


def test_without_any_error_the_organ_s_middle_is_shown(study):
    added = read_frequency_slices(study, make_table())[1]
    assert all(plane.max() == 0 for plane in added.percent)
    assert all(plane.any() for plane in added.inside)


def test_no_volume_no_slices(study):
    assert read_frequency_slices(study, make_table().iloc[:0]) == []


def test_missing_files_are_named(study):
    with pytest.raises(StageError, match="names no template of organ"):
        read_frequency_slices(study, make_table().iloc[1:])
    (study.folder / "spatial" / "added.nii.gz").unlink()
    with pytest.raises(VolumeError, match="no such file"):
        read_frequency_slices(study, make_table())
