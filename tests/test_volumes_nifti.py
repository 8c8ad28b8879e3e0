"""NIfTI headers: read by one rule, and refused where they contradict themselves."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import VolumeError
from tests.small_volumes import SHAPE, make_image, pack_nifti, save

AFFINE = np.array([[-2.0, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, 30]])


def turn(degrees: float, decimals: int) -> np.ndarray:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return np.round(rotation @ AFFINE, decimals)


@pytest.fixture
def array(rng):
    return rng.integers(0, 200, SHAPE[::-1]).astype(np.uint8)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
def test_voxels_and_place_are_those_of_the_header(array, tmp_path, version, order):
    path = tmp_path / "a.nii"
    for kind in ("u1", "i2", "f4", "f8", "i8"):
        path.write_bytes(pack_nifti(array.astype(kind), version=version, order=order))
        image = volumes.read_volume(path)
        assert sitk.GetArrayFromImage(image).dtype == np.dtype(kind)
        assert np.array_equal(sitk.GetArrayFromImage(image), array.T)
        grid = volumes.get_grid(image)
        assert grid.spacing == (2, 3, 4) and grid.origin == (-10, -20, 30)
        assert grid.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert volumes.read_grid(path) == grid


def test_what_itk_writes_is_read_as_itk_reads_it(rng, tmp_path):
    direction = sitk.Euler3DTransform((0, 0, 0), 0.3, 0.2, math.pi - 1e-4).GetMatrix()  # a quaternion near its edge
    written = make_image(rng.integers(-900, 900, SHAPE).astype(np.int16), direction=direction)
    for name in ("a.nii", "a.nii.gz"):
        path = save(written, tmp_path / name)
        image = volumes.read_volume(path)
        assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(written))
        assert volumes.get_grid(image).differences(volumes.get_grid(sitk.ReadImage(str(path)))) == []


def test_numbers_are_scaled_as_the_header_says(tmp_path):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path / "a.nii"
    for scaling, expected in (((0.5, -3), stored * 0.5 - 3), ((0, 7), stored), ((math.nan, 0), stored)):
        path.write_bytes(pack_nifti(stored, patch={112: ("2f", *scaling)}))
        assert np.allclose(sitk.GetArrayFromImage(volumes.read_volume(path)), expected.T)


def test_units_of_length_count(array, tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(pack_nifti(array, AFFINE / 1000, patch={123: ("B", 1)}))
    assert volumes.read_grid(path).spacing == pytest.approx((2, 3, 4))


@pytest.mark.parametrize(
    ("affine", "patch", "told"),
    [
        (AFFINE + np.eye(3, 4, 2), {}, r"axes in its header \(sform\) are sheared"),
        (AFFINE, {280: ("12f", *[0.0] * 12)}, r"axes in its header \(sform\) are zero, no numbers or in one plane"),
        (AFFINE, {280: ("f", math.nan)}, "are zero, no numbers or in one plane: convert the scan again"),
        (AFFINE[:, [0, 0, 2, 3]], {}, "are zero, no numbers or in one plane"),
        (
            AFFINE,
            {76: ("4f", 1, 1, 1, 1)},
            r"sform and pixdim of its header disagree on the axes \(spacing \(2, 3, 4\)",
        ),
        (AFFINE, {88: ("f", 0.0)}, r"spacing in its header must be above 0; pixdim is \(2, 3, 0\)"),
        (AFFINE, {80: ("3f", -2, -3, -4)}, r"must be above 0; pixdim is \(-2, -3, -4\)"),
        (AFFINE, {80: ("f", math.nan)}, "must be above 0; pixdim is"),
        (AFFINE, {252: ("h", 1)}, r"sform and qform of its header disagree on the axes \(up to .* mm apart\)"),
        (AFFINE, {252: ("2h", 1, 0), 256: ("3f", 1, 1, 1)}, r"axes in its header \(qform\) are zero, no numbers"),
        (AFFINE, {254: ("h", 0)}, "does not say how its axes lie in the body"),
        (AFFINE, {344: ("4s", b"")}, "is an Analyze file, which does not say left from right"),
        (AFFINE, {108: ("f", 0)}, "gives voxels no place"),
        (AFFINE, {40: ("2h", 3, 0)}, "gives no size"),
        (AFFINE, {70: ("h", 1536)}, "of a type that is not read"),
        (AFFINE, {70: ("h", 128)}, "one value per voxel; it has 3"),
        (AFFINE, {40: ("3h", 2, 9, 8)}, "must be a 3D image; it has 2 axes"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused_by_what_it_says(array, tmp_path, affine, patch, told):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(pack_nifti(array, affine, patch=patch)))
    for read in (volumes.read_grid, volumes.read_volume):
        with pytest.raises(VolumeError, match=r"^a\.nii\.gz: .*" + told):
            read(path)


def test_rounding_of_cosines_and_left_handed_axes_are_no_contradiction(array, tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(pack_nifti(array, turn(20, 3)))
    exact = tmp_path / "exact.nii"
    exact.write_bytes(pack_nifti(array, turn(20, 12)))
    assert volumes.read_grid(path).differences(volumes.read_grid(exact)) == []
    path.write_bytes(pack_nifti(array, AFFINE * [[-1], [1], [1]]))
    grid = volumes.read_grid(path)
    assert grid.direction[0] == -1 and grid.origin[0] == 10, "the same voxels, mirrored in memory alone"


def test_axes_of_the_other_containers_must_be_at_right_angles_too(array, tmp_path):
    save(make_image(array.T), tmp_path / "a.nrrd")
    whole = (tmp_path / "a.nrrd").read_bytes()
    sheared = whole.replace(b"(0,3,0)", b"(1,3,0)")
    (tmp_path / "sheared.nrrd").write_bytes(sheared)
    (tmp_path / "nowhere.nrrd").write_bytes(
        b"\n".join(line for line in whole.split(b"\n") if not line.startswith(b"space: "))
    )
    assert sheared != whole
    with pytest.raises(VolumeError, match=r"sheared\.nrrd: the axes in its header are sheared"):
        volumes.read_volume(tmp_path / "sheared.nrrd")
    with pytest.raises(VolumeError, match=r"nowhere\.nrrd: "):
        volumes.read_volume(tmp_path / "nowhere.nrrd")
