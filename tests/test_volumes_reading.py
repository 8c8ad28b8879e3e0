"""Image files: every fault is one sentence, and writing leaves whole files."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import SegfairError, VolumeError
from helpers.volumes import reading
from tests.small_volumes import SHAPE, make_image, save


@pytest.fixture
def image(rng):
    return make_image(rng.integers(-1000, 1000, SHAPE).astype(np.int16))


def test_header_gives_the_grid_without_the_voxels(image, tmp_path):
    grid = volumes.read_grid(save(image, tmp_path / "a.nii.gz"))
    assert grid.size == (9, 8, 7)
    assert grid.differences(volumes.get_grid(image)) == []
    assert volumes.get_spacing_zyx_mm(image) == (4.0, 3.0, 2.0)


def test_missing_damaged_truncated_and_4d_files_are_one_sentence(image, tmp_path):
    with pytest.raises(VolumeError, match="no such file: correct its path"):
        volumes.read_volume(tmp_path / "none.nii.gz")
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"not an image"))
    with pytest.raises(VolumeError, match=r"text\.nii\.gz: is not an image"):
        volumes.read_volume(tmp_path / "text.nii.gz")
    whole = save(image, tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match=r"cut\.nii\.gz: cannot be read, it may be truncated"):
        volumes.read_volume(tmp_path / "cut.nii.gz")
    four = sitk.JoinSeries([image, image])
    with pytest.raises(VolumeError, match="must be a 3D image; it has 4 axes"):
        volumes.read_volume(save(four, tmp_path / "four.nii.gz"))
    colour = sitk.Compose(image, image, image)
    with pytest.raises(VolumeError, match="must have one value per voxel; it has 3"):
        volumes.read_volume(save(colour, tmp_path / "colour.nii.gz"))


def test_an_uncompressed_file_cut_short_is_found(image, tmp_path):
    whole = save(image, tmp_path / "whole.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:-100])
    with pytest.raises(VolumeError, match="truncated"):
        volumes.read_volume(tmp_path / "cut.nii")


def test_equal_voxels_are_written_as_equal_bytes(image, tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        volumes.write_volume(image, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert np.array_equal(
        sitk.GetArrayFromImage(volumes.read_volume(tmp_path / "a.nii.gz")), sitk.GetArrayFromImage(image)
    )


def test_full_disk_while_writing_an_image_keeps_the_former_file(image, tmp_path, monkeypatch):
    path = tmp_path / "mask.nii.gz"
    volumes.write_volume(image, path)
    before = path.read_bytes()

    def fail(*arguments, **options):
        raise RuntimeError("itk::ERROR: write failed")

    monkeypatch.setattr(reading.sitk, "WriteImage", fail)
    monkeypatch.setattr(reading.shutil, "disk_usage", lambda folder: type("usage", (), {"free": 0}))
    with pytest.raises(SegfairError, match="the disk is full"):
        volumes.write_volume(image, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_another_grid_is_refused_with_what_differs_and_what_to_do(image, tmp_path):
    path = save(image, tmp_path / "x.nii.gz")
    grid = volumes.get_grid(make_image(np.zeros(SHAPE, np.int16), origin=(10.0, 20.0, 40.0)))
    with pytest.raises(VolumeError, match=r"the image is not on the reference's grid \(origin .*\): resample it"):
        volumes.read_on_grid(path, grid, advice="resample it")
    same = volumes.read_on_grid(path, volumes.get_grid(image))
    assert np.array_equal(sitk.GetArrayFromImage(same), sitk.GetArrayFromImage(image))


def test_the_same_voxels_in_another_order_are_on_the_axial_grid(image, tmp_path):
    path = save(sitk.DICOMOrient(image, "RSA"), tmp_path / "x.nii.gz")
    axial = volumes.to_axial(image)
    grid = volumes.get_grid(axial)
    with pytest.raises(VolumeError, match="reference's grid"):
        volumes.read_on_grid(path, grid)
    found = volumes.read_on_grid(path, grid, axial=True)
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(axial))
