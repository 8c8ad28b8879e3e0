"""Boxes around components: answers derived by hand on masks of a few voxels."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.prompts import draw_boxes

SPACING = (6.0, 2.0, 3.0)  # (z, y, x): a pixel of 6 mm²


def make_mask() -> np.ndarray:
    """Slice 1: a 3×2 block and, apart from it, one pixel; slice 4: two pixels touching at a corner."""
    mask = np.zeros((7, 8, 9), bool)
    mask[1, 2:5, 3:5] = True
    mask[1, 7, 8] = True
    mask[4, 0, 0] = True
    mask[4, 1, 1] = True
    return mask


def draw(mask: np.ndarray, *, jitter: float = 0.0, min_area_mm2: float = 0.0, seed: int = 0):
    return draw_boxes(mask, SPACING, jitter=jitter, min_area_mm2=min_area_mm2, rng=np.random.default_rng(seed))


def test_boxes_are_tight_at_pixel_edges_and_one_per_component() -> None:
    boxes = draw(make_mask())
    # Rows 2…4 and columns 3…4 are filled: from edge 3 to 5 in x, from 2 to 5 in y.
    # The two pixels that touch at a corner are one component in slice 4.
    found = sorted(zip(boxes.slices.tolist(), boxes.corners.tolist(), strict=True))
    assert found == [(1, [3.0, 2.0, 5.0, 5.0]), (1, [8.0, 7.0, 9.0, 8.0]), (4, [0.0, 0.0, 2.0, 2.0])]
    assert boxes.dropped == 0
    assert len(boxes) == 3


def test_small_components_are_dropped_by_area_in_mm2_and_counted() -> None:
    boxes = draw(make_mask(), min_area_mm2=12.0)  # two pixels are exactly 12 mm² and stay
    assert sorted(boxes.slices.tolist()) == [1, 4]
    assert boxes.dropped == 1
    assert draw(make_mask(), min_area_mm2=12.1).slices.tolist() == [1]


def test_an_empty_mask_has_no_boxes() -> None:
    boxes = draw(np.zeros((7, 8, 9), bool))
    assert len(boxes) == 0
    assert boxes.corners.shape == (0, 4)


def test_jitter_is_seeded_and_bounded_by_the_extent_of_each_axis() -> None:
    mask = np.zeros((40, 64, 96), bool)
    mask[:, 20:30, 40:80] = True  # 40 wide, 10 high
    boxes = draw(mask, jitter=0.1, seed=3)
    moved = boxes.corners - np.array([40.0, 20.0, 80.0, 30.0])
    assert np.all(np.abs(moved[:, [0, 2]]) <= 4.0)
    assert np.all(np.abs(moved[:, [1, 3]]) <= 1.0)
    # Uniform over ±bound: 40 draws reach beyond three quarters of it, on both sides.
    for column, bound in zip(range(4), (4.0, 1.0, 4.0, 1.0), strict=True):
        assert moved[:, column].max() > 0.75 * bound
        assert moved[:, column].min() < -0.75 * bound
    np.testing.assert_array_equal(boxes.corners, draw(mask, jitter=0.1, seed=3).corners)
    assert not np.array_equal(boxes.corners, draw(mask, jitter=0.1, seed=4).corners)


def test_jitter_is_clipped_to_the_slice() -> None:
    mask = np.ones((30, 8, 9), bool)
    boxes = draw(mask, jitter=0.5)
    assert boxes.corners.min() == 0.0
    assert boxes.corners[:, [0, 2]].max() == 9.0
    assert boxes.corners[:, [1, 3]].max() == 8.0


def test_a_smaller_jitter_moves_the_same_way() -> None:
    mask = np.zeros((5, 64, 96), bool)
    mask[:, 20:30, 40:80] = True
    tight = np.array([40.0, 20.0, 80.0, 30.0])
    small, large = (draw(mask, jitter=jitter).corners - tight for jitter in (0.05, 0.1))
    np.testing.assert_allclose(2 * small, large, atol=1e-12)


def test_dropping_a_component_leaves_the_other_boxes_in_place() -> None:
    every, large = draw(make_mask(), jitter=0.2), draw(make_mask(), jitter=0.2, min_area_mm2=12.0)
    kept = [box for box in every.corners.tolist() if box in large.corners.tolist()]
    assert len(kept) == len(large) == 2


@pytest.mark.parametrize(
    ("mask", "options", "says"),
    [
        (np.zeros((8, 9), bool), {}, "axes"),
        (np.zeros((7, 8, 9), bool), {"jitter": 0.6}, "jitter"),
        (np.zeros((7, 8, 9), bool), {"jitter": -0.1}, "jitter"),
        (np.zeros((7, 8, 9), bool), {"min_area_mm2": -1.0}, "min_area_mm2"),
    ],
)
def test_wrong_arguments_are_refused(mask: np.ndarray, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        draw(mask, **options)
