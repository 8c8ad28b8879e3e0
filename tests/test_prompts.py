"""Boxes around components: answers derived by hand on masks of a few voxels."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.parameters import Prompt
from helpers.prompts import Prompts, draw_prompts

SPACING = (6.0, 2.0, 3.0)  # (z, y, x): a pixel of 6 mm²


def make_mask() -> np.ndarray:
    """Slice 1: a 3×2 block and, apart from it, one pixel; slice 4: two pixels touching at a
    corner."""
    mask = np.zeros((7, 8, 9), bool)
    mask[1, 2:5, 3:5] = True
    mask[1, 7, 8] = True
    mask[4, 0, 0] = True
    mask[4, 1, 1] = True
    return mask


def draw(mask: np.ndarray, *, seed: int = 0, **prompt: object) -> Prompts:
    settings = {"jitter": 0.0, "min_area_mm2": 0.0, **prompt}
    return draw_prompts(mask, SPACING, Prompt(**settings), np.random.default_rng(seed))


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


def test_jitter_in_mm_moves_by_mm_and_never_turns_a_box_inside_out() -> None:
    mask = np.zeros((60, 64, 96), bool)
    mask[:, 20:30, 40:80] = True
    moved = draw(mask, jitter_mm=6.0).corners - np.array([40.0, 20.0, 80.0, 30.0])
    # 6 mm are 2 voxels of 3 mm in x and 3 voxels of 2 mm in y.
    assert 1.8 < np.abs(moved[:, [0, 2]]).max() <= 2.0
    assert 2.7 < np.abs(moved[:, [1, 3]]).max() <= 3.0
    wild = draw(mask, jitter_mm=500.0).corners
    assert np.all(wild[:, 2:] >= wild[:, :2])


def test_one_box_per_organ_spans_its_components() -> None:
    mask = make_mask()
    boxes = draw(mask, per="organ")
    assert list(zip(boxes.slices.tolist(), boxes.corners.tolist(), strict=True)) == [
        (1, [3.0, 2.0, 9.0, 8.0]), (4, [0.0, 0.0, 2.0, 2.0]),
    ]  # fmt: skip
    # A component too small for a prompt does not stretch the organ's box.
    assert draw(mask, per="organ", min_area_mm2=12.0).corners[0].tolist() == [3.0, 2.0, 5.0, 5.0]


def test_one_box_in_space_prompts_every_slice_it_spans() -> None:
    mask = np.zeros((9, 20, 30), bool)
    mask[2, 5:10, 6:16] = True
    mask[3, 6:12, 8:20] = True
    mask[7, 0:2, 0:2] = True
    boxes = draw(mask, type="box3d")
    assert list(zip(boxes.slices.tolist(), boxes.corners.tolist(), strict=True)) == [
        (2, [6.0, 5.0, 20.0, 12.0]), (3, [6.0, 5.0, 20.0, 12.0]), (7, [0.0, 0.0, 2.0, 2.0]),
    ]  # fmt: skip
    together = draw(mask, type="box3d", per="organ")
    assert together.slices.tolist() == [2, 3, 4, 5, 6, 7]  # the gap is prompted too: the box has no holes
    assert np.unique(together.corners, axis=0).tolist() == [[0.0, 0.0, 20.0, 12.0]]
    small = draw(mask, type="box3d", min_area_mm2=100.0)
    assert (small.slices.tolist(), small.dropped) == ([2, 3], 1)
    jittered = draw(mask, type="box3d", jitter=0.5, seed=5)
    assert jittered.slices.min() >= 0
    assert jittered.slices.max() < 9


def test_points_lie_where_they_say() -> None:
    mask = np.zeros((3, 40, 50), bool)
    mask[1, 10:21, 5:36] = True
    mask[1, 30:35, 40:45] = True
    prompts = draw(mask, type="points", positive=4, negative=6)
    assert not prompts.has_boxes
    assert (prompts.points.shape, prompts.labels.tolist()) == ((2, 10, 2), [[1] * 4 + [0] * 6] * 2)
    # The first lies farthest from the border: in the middle rows of the long block, at the small
    # one's centre.
    assert prompts.points[0, 0, 1] == 15
    assert 10 <= prompts.points[0, 0, 0] <= 30
    assert prompts.points[1, 0].tolist() == [42, 32]
    for points, labels in zip(prompts.points, prompts.labels, strict=True):
        for (x, y), label in zip(points.astype(int), labels, strict=True):
            assert mask[1, y, x] == bool(label)
    # Positive points keep to their own component, negative ones to its surroundings.
    assert np.all(prompts.points[1, :4].min(axis=0) >= [40, 30])
    assert np.all(prompts.points[1, 4:].min(axis=0) >= [38, 28])


def test_random_points_spread_and_boxes_can_go_with_points() -> None:
    mask = np.zeros((2, 40, 50), bool)
    mask[1, 10:30, 5:36] = True
    prompts = draw(mask, type="box_points", positive=20, placement="random")
    assert prompts.has_boxes
    assert prompts.has_points
    assert np.ptp(prompts.points[0], axis=0).min() > 10
    np.testing.assert_array_equal(prompts.points, draw(mask, type="box_points", positive=20, placement="random").points)
    box = draw(mask, type="box", seed=0).corners
    np.testing.assert_array_equal(prompts.corners, box)


def test_an_organ_that_fills_its_slice_has_no_negative_point() -> None:
    prompts = draw(np.ones((1, 6, 6), bool), type="points", negative=2)
    assert prompts.labels.tolist() == [[1, -1, -1]]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({"jitter": 0.6}, "less than or equal to 0.5"),
        ({"jitter_mm": -1}, "greater than or equal to 0"),
        ({"type": "points", "positive": 0, "negative": 1}, "at least one `positive`"),
        ({"type": "box_points", "positive": 0}, "needs `positive` or `negative`"),
        ({"draws": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_prompts_are_refused(prompt: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Prompt(**prompt)


def test_boxes_between_drawn_slices_are_interpolated():
    """A cone of growing width: every fourth slice is drawn and the last; sides run straight."""
    mask = np.zeros((12, 40, 40), bool)
    for z in range(1, 10):
        mask[z, 10 : 12 + 2 * z, 5 : 6 + z] = True
    prompts = draw_prompts(mask, (3.0, 1.0, 1.0), Prompt(type="box", every=4, jitter=0), np.random.default_rng(0))
    assert prompts.slices.tolist() == list(range(1, 10))
    # Drawn on 1, 5 and 9; every side of this cone is straight, so those between are exact too.
    assert prompts.effort == 3
    expected = [[5.0, 10.0, 6.0 + z, 12.0 + 2 * z] for z in range(1, 10)]
    np.testing.assert_allclose(prompts.corners, expected)
    mask[6] = False
    mask[6, 10:14, 5:8] = True
    changed = draw_prompts(mask, (3.0, 1.0, 1.0), Prompt(type="box", every=4, jitter=0), np.random.default_rng(0))
    np.testing.assert_allclose(changed.corners, expected)


def test_the_effort_of_prompts_is_what_a_person_would_draw():
    mask = np.zeros((10, 30, 30), bool)
    mask[1:8, 3:12, 3:12] = mask[2:9, 18:28, 18:28] = True
    rng = np.random.default_rng(1)
    efforts = {
        name: draw_prompts(mask, (2.0, 1.0, 1.0), Prompt(**keys), rng).effort
        for name, keys in {
            "slices": {"type": "box"},
            "space": {"type": "box3d"},
            "third": {"type": "box", "every": 3},
            "organ": {"type": "box3d", "per": "organ"},
        }.items()
    }
    assert efforts == {"slices": 14, "space": 2, "third": 6, "organ": 1}


def test_sparse_prompts_are_boxes():
    with pytest.raises(ValueError, match="only boxes can be taken between slices"):
        Prompt(type="points", every=3)
