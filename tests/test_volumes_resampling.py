"""Masks on another grid of the same scan come to the scan's own; moved or turned ones do not."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import VolumeError


def make_image(
    array: np.ndarray, *, spacing=(1.0, 1.0, 2.0), origin=(-10.0, 5.0, 30.0), turn_degrees: float = 0.0
) -> sitk.Image:
    """An image whose z axis is the body's, turned about it where asked."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    cosine, sine = np.cos(np.deg2rad(turn_degrees)), np.sin(np.deg2rad(turn_degrees))
    image.SetDirection((cosine, -sine, 0, sine, cosine, 0, 0, 0, 1))
    return image


@pytest.fixture
def labels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3, (6, 20, 24)).astype(np.uint8)


def test_half_the_resolution_fills_blocks(labels):
    coarse = make_image(labels, spacing=(2.0, 2.0, 4.0), origin=(-9.5, 5.5, 31.0))  # its borders are the scan's
    wanted = volumes.get_grid(make_image(np.zeros((12, 40, 48), np.uint8)))
    found = volumes.resample_nearest(coarse, wanted)
    assert not volumes.get_grid(found).differences(wanted)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), np.kron(labels, np.ones((2, 2, 2), np.uint8)))


@pytest.mark.parametrize("code", ["LPS", "RAS", "SAR"])
def test_a_part_of_the_scan_in_any_storage_order_lands_in_its_place(labels, code):
    whole = make_image(labels)
    part = sitk.DICOMOrient(whole[3:20, 2:18, 1:5], code)
    found = sitk.GetArrayFromImage(volumes.resample_nearest(part, volumes.get_grid(whole)))
    expected = np.zeros_like(labels)
    expected[1:5, 2:18, 3:20] = labels[1:5, 2:18, 3:20]
    np.testing.assert_array_equal(found, expected)
    larger = volumes.resample_nearest(whole, volumes.get_grid(part))  # and back: the scan is the part
    np.testing.assert_array_equal(sitk.GetArrayFromImage(larger), sitk.GetArrayFromImage(part))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"origin": (-9.4, 5.0, 30.0)}, "moved .* 0.6 mm"),
        ({"origin": (0.0, 0.0, 0.0)}, "moved .* 30.0 mm"),
        ({"origin": (-10.0, 5.0, 500.0)}, "moved"),  # no region in common
        # The corners are 10 and 12 mm from the middle: 0.52 mm aside.
        ({"turn_degrees": 2.5, "origin": (-9.55, 4.51, 30.0)}, "turned .* 0.5 mm"),
        ({"turn_degrees": 50.0}, "turned"),
    ],
)
def test_moved_or_turned_by_more_than_half_a_voxel_is_refused(labels, change, word):
    wanted = volumes.get_grid(make_image(labels))
    with pytest.raises(VolumeError, match=rf"the mask of ours is ({word})"):
        volumes.resample_nearest(make_image(labels, **change), wanted, what="the mask of ours")


@pytest.mark.parametrize(
    "change", [{"origin": (-9.6, 5.0, 30.9)}, {"turn_degrees": 2.0, "origin": (-9.65, 4.61, 30.0)}]
)
def test_less_than_half_a_voxel_is_let_pass(labels, change):
    found = volumes.resample_nearest(make_image(labels, **change), volumes.get_grid(make_image(labels)))
    assert np.mean(sitk.GetArrayFromImage(found) == labels) > 0.9


def test_voxels_that_begin_at_the_first_centre_are_the_same_scan(labels):
    """Common tools keep the first voxel's centre: the borders move by less than half of a voxel."""
    coarse = make_image(labels, spacing=(3.0, 3.0, 6.0))
    wanted = volumes.get_grid(make_image(np.zeros((17, 59, 70), np.uint8)))
    found = sitk.GetArrayFromImage(volumes.resample_nearest(coarse, wanted))
    np.testing.assert_array_equal(found[::3, ::3, ::3], labels)
