"""Grids: what differs between two, and the way to the study orientation and back."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from helpers import volumes
from helpers.errors import VolumeError
from tests.small_volumes import SHAPE, make_image


@pytest.fixture
def image(rng):
    return make_image(rng.integers(-1000, 1000, SHAPE).astype(np.int16))


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
    (difference,) = volumes.get_grid(image).differences(volumes.get_grid(other))
    assert difference.startswith(found)


def test_rounding_in_a_header_is_no_difference(image):
    other = make_image(sitk.GetArrayFromImage(image), origin=(10.001, 20.0, 30.0))
    assert volumes.get_grid(image).differences(volumes.get_grid(other)) == []


@pytest.mark.parametrize("code", ["LPS", "RAS", "SAL", "PIR", "ILA"])
def test_axial_orientation_round_trip(image, code):
    stored = sitk.DICOMOrient(image, code)
    axial = volumes.to_axial(stored)
    assert np.array_equal(sitk.GetArrayFromImage(axial), sitk.GetArrayFromImage(image))
    back = volumes.from_axial(axial, volumes.get_grid(stored))
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(stored))
    assert back.GetDirection() == stored.GetDirection() and back.GetOrigin() == stored.GetOrigin()


def test_turned_oblique_images_are_those_of_itk_to_the_bit(rng):
    for _ in range(60):
        axes = Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix()[:, rng.permutation(3)] * rng.choice([-1, 1], 3)
        place = {"origin": rng.normal(0, 100, 3), "spacing": rng.uniform(0.3, 5, 3), "direction": axes.ravel()}
        stored = make_image(rng.integers(0, 200, rng.integers(2, 9, 3)).astype(np.uint8), **place)
        axial, referee = volumes.to_axial(stored), sitk.DICOMOrient(stored, "LPS")
        assert np.array_equal(sitk.GetArrayFromImage(axial), sitk.GetArrayFromImage(referee))
        assert volumes.get_grid(axial) == volumes.get_grid(referee) == volumes.orient_grid(volumes.get_grid(stored))


def test_from_axial_refuses_another_grid(image):
    axial = volumes.to_axial(image)
    axial.SetOrigin((0.0, 0.0, 0.0))
    with pytest.raises(VolumeError, match="does not fit the scan's grid: origin"):
        volumes.from_axial(axial, volumes.get_grid(image))


@pytest.mark.parametrize(
    ("spacing", "other", "size", "alike"),
    [
        ((3.0, 3.0, 4.0), (3.00001, 3.0, 4.00001), (40, 36, 28), True),
        ((3.0, 3.0, 0.625), (3.0, 3.0, 0.634), (12, 12, 600), False),  # 5.4 mm at the far end
        ((0.008,) * 3, (0.012,) * 3, (40, 36, 28), False),
        ((0.008,) * 3, (0.00801,) * 3, (40, 36, 28), True),
        ((5.0, 5.0, 5.0), (5.009, 5.0, 5.0), (9, 8, 7), True),
        ((3.0, 3.0, 4.0), (3.0, 3.0, 5.0), (40, 36, 1), False),  # one slice has a thickness
    ],
)
def test_grids_agree_where_their_corners_do(spacing, other, size, alike):
    one, two = (volumes.Grid(size, mm, (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)) for mm in (spacing, other))
    for differences in (one.differences(two), two.differences(one)):
        assert (differences == []) == alike
    if not alike:
        assert one.differences(two)[-1].endswith("mm apart")
