"""Reading, geometry, orientation and sides, on images small enough to check by hand."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import SegfairError, VolumeError
from helpers.parameters import Organ

SHAPE = (7, 8, 9)  # z, y, x: unequal sides show swapped axes
PAIR = {"kidney_right": Organ(labels=[1], side="right"), "kidney_left": Organ(labels=[1], side="left")}
PAIR_IDS = {"kidney_right": 1, "kidney_left": 2}


def make_image(array: np.ndarray, spacing=(2.0, 3.0, 4.0), origin=(10.0, 20.0, 30.0), direction=None) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    return image


def save(image: sitk.Image, path):
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def image(rng):
    return make_image(rng.integers(-1000, 1000, SHAPE).astype(np.int16))


def test_header_gives_the_grid_without_the_voxels(image, tmp_path):
    grid = volumes.grid_of(save(image, tmp_path / "a.nii.gz"))
    assert grid.size == (9, 8, 7)
    assert grid.differences(volumes.grid_of_image(image)) == []
    assert volumes.spacing_zyx_mm(image) == (4.0, 3.0, 2.0)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"origin": (20.0, 20.0, 30.0)}, "origin"),  # a shift by 10 mm must never pass
        ({"spacing": (2.0, 3.0, 4.1)}, "spacing"),
        ({"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}, "direction"),
    ],
)
def test_each_difference_between_grids_is_named(image, change, found):
    other = make_image(sitk.GetArrayFromImage(image), **change)
    (difference,) = volumes.grid_of_image(image).differences(volumes.grid_of_image(other))
    assert difference.startswith(found)


def test_rounding_in_a_header_is_no_difference(image):
    other = make_image(sitk.GetArrayFromImage(image), origin=(10.001, 20.0, 30.0))
    assert volumes.grid_of_image(image).differences(volumes.grid_of_image(other)) == []


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


@pytest.mark.parametrize("code", ["LPS", "RAS", "SAL", "PIR", "ILA"])
def test_axial_orientation_round_trip(image, code):
    stored = sitk.DICOMOrient(image, code)
    axial = volumes.to_axial(stored)
    assert np.array_equal(sitk.GetArrayFromImage(axial), sitk.GetArrayFromImage(image))
    back = volumes.from_axial(axial, volumes.grid_of_image(stored))
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(stored))
    assert back.GetDirection() == stored.GetDirection() and back.GetOrigin() == stored.GetOrigin()


def test_from_axial_refuses_another_grid(image):
    axial = volumes.to_axial(image)
    axial.SetOrigin((0.0, 0.0, 0.0))
    with pytest.raises(VolumeError, match="does not fit the scan's grid: origin"):
        volumes.from_axial(axial, volumes.grid_of_image(image))


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

    monkeypatch.setattr(volumes.sitk, "WriteImage", fail)
    monkeypatch.setattr(volumes.shutil, "disk_usage", lambda folder: type("usage", (), {"free": 0}))
    with pytest.raises(SegfairError, match="the disk is full"):
        volumes.write_volume(image, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


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


def test_fractions_are_found_where_voxels_are_floats(image, tmp_path):
    for name, values, kind in (
        ("floats", 1.0, sitk.sitkFloat32),
        ("half", 0.5, sitk.sitkFloat64),
        ("whole", 1, sitk.sitkUInt8),
    ):
        sitk.WriteImage(sitk.Cast(image * 0, kind) + values, str(tmp_path / f"{name}.nii"))
    volumes.check_whole(tmp_path / "floats.nii")
    with pytest.raises(VolumeError, match=r"half\.nii: a mask must hold whole numbers"):
        volumes.check_whole(tmp_path / "half.nii")
    volumes.check_whole(tmp_path)
    # Of whole numbers the header is enough: the voxels are not read.
    whole = tmp_path / "whole.nii"
    whole.write_bytes(whole.read_bytes()[:-20])
    volumes.check_whole(whole)


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
    assert volumes.find_grid(folder).size == (9, 8, 7)

    save(make_image(upper), folder / "aorta.nii.gz")
    with pytest.raises(VolumeError, match="aorta shares 216 voxels with another organ"):
        volumes.read_label_map(folder, organs, ids)
    save(make_image(other, origin=(0.0, 0.0, 0.0)), folder / "aorta.nii.gz")
    with pytest.raises(VolumeError, match=r"aorta\.nii\.gz: lies on another grid"):
        volumes.read_label_map(folder, organs, ids)
    with pytest.raises(VolumeError, match="holds none of the masks"):
        volumes.read_label_map(folder, {"liver": Organ(files=["liver"])}, {"liver": 1})
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolumeError, match="the folder holds no mask"):
        volumes.find_grid(tmp_path / "empty")


def test_window_of_ct_and_of_mr():
    # Soft tissue, −160 to 240 HU: 0 HU is 160/400 of 255 = 102
    assert volumes.window_image(np.array([-1000.0, -160.0, 0.0, 240.0, 3000.0]), "CT").tolist() == [0, 0, 102, 255, 255]
    mr = volumes.window_image(np.linspace(0, 1000, 1001), "MR")
    assert mr[0] == 0 and mr[-1] == 255 and 100 < mr[500] < 135
    assert volumes.window_image(np.full((2, 2), 7.0), "MR").tolist() == [[0, 0], [0, 0]]
    assert volumes.window_image(np.array([np.nan, 0.0, 240.0]), "CT").tolist() == [102, 102, 255]


def test_real_kidneys_have_two_sides_of_plausible_size(data_folder):
    path = data_folder / "kits23_annotators" / "reference" / "case_00004.nii.gz"
    label_map = volumes.read_label_map(path, PAIR, PAIR_IDS)
    millilitres = (
        np.bincount(sitk.GetArrayFromImage(label_map.image).ravel()) * np.prod(label_map.image.GetSpacing()) / 1000
    )
    assert 150 < millilitres[1] < 300 and 150 < millilitres[2] < 300


def test_another_grid_is_refused_with_what_differs_and_what_to_do(image, tmp_path):
    path = save(image, tmp_path / "x.nii.gz")
    grid = volumes.grid_of_image(make_image(np.zeros(SHAPE, np.int16), origin=(10.0, 20.0, 40.0)))
    with pytest.raises(
        VolumeError, match=r"the image lies on another grid than the reference \(origin .*\): resample it"
    ):
        volumes.read_on_grid(path, grid, advice="resample it")
    same = volumes.read_on_grid(path, volumes.grid_of_image(image))
    assert np.array_equal(sitk.GetArrayFromImage(same), sitk.GetArrayFromImage(image))


def test_the_same_voxels_in_another_order_are_on_the_axial_grid(image, tmp_path):
    path = save(sitk.DICOMOrient(image, "RSA"), tmp_path / "x.nii.gz")
    axial = volumes.to_axial(image)
    grid = volumes.grid_of_image(axial)
    with pytest.raises(VolumeError, match="another grid"):
        volumes.read_on_grid(path, grid)
    found = volumes.read_on_grid(path, grid, axial=True)
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(axial))
