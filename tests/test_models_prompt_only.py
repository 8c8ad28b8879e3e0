"""The inscribed ellipse, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.models import ScanCase
from helpers.models.prompt_only import PromptOnly, measure_depth
from helpers.models.protocol import merge_scores
from helpers.prompts import Prompts
from helpers.volumes import Grid


def make_case(prompts: dict[str, Prompts], shape: tuple[int, int, int] = (4, 40, 60)) -> ScanCase:
    grid = Grid(shape[::-1], (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    return ScanCase("s", "s", "CT", grid, {"liver": 3, "spleen": 5}, prompts)


def make_boxes(*boxes: tuple[int, float, float, float, float]) -> Prompts:
    return Prompts(np.array([box[0] for box in boxes]), np.array([box[1:] for box in boxes], float))


@pytest.mark.parametrize(("width", "height"), [(50, 30), (37, 21), (12, 12)])
def test_the_ellipse_has_pi_quarters_of_the_boxs_area(width: int, height: int) -> None:
    case = make_case({"liver": make_boxes((2, 4, 5, 4 + width, 5 + height))})
    labels = PromptOnly().segment(case).labels
    assert (labels == 3).sum() == pytest.approx(np.pi / 4 * width * height, rel=0.02)
    rows, columns = np.nonzero(labels[2])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (4, 3 + width, 5, 4 + height)


def test_a_box_of_three_by_three_pixels() -> None:
    # Centres at 0.5, 1.5, 2.5 of radius 1.5: (1, 1) from the centre is √2 < 1.5 away, so all nine
    # are inside.
    assert (measure_depth(np.array([0.0, 0, 3, 3]), 5, 6) > 0).sum() == 9
    # Two by two: corners' centres at √0.5 < 1: all four. One pixel: its centre.
    assert (measure_depth(np.array([1.0, 1, 3, 3]), 5, 6) > 0).sum() == 4
    assert (measure_depth(np.array([1.0, 1, 2, 2]), 5, 6) > 0).sum() == 1
    assert measure_depth(np.array([0.0, 0, 3, 3]), 5, 6)[1, 1] == 1.0


def test_a_box_without_area_is_empty() -> None:
    assert not (measure_depth(np.array([2.0, 1, 2, 4]), 5, 6) > 0).any()


def test_counts_and_slices_without_prompts_stay_empty() -> None:
    case = make_case(
        {"liver": make_boxes((1, 0, 0, 9, 9), (1, 20, 20, 30, 30)), "spleen": make_boxes((3, 40, 0, 50, 9))}
    )
    result = PromptOnly().segment(case)
    assert (result.slices, result.prompts) == (2, 3)
    assert result.labels.dtype == np.uint8
    assert sorted(np.flatnonzero(result.labels.any(axis=(1, 2))).tolist()) == [1, 3]


def test_a_pixel_of_two_ellipses_goes_to_the_one_it_lies_deeper_in() -> None:
    case = make_case({"liver": make_boxes((0, 0, 0, 30, 30)), "spleen": make_boxes((0, 15, 0, 45, 30))})
    labels = PromptOnly().segment(case).labels[0]
    # Two equal discs 15 apart: they meet at x = 22.5.
    assert labels[15, 21] == 3
    assert labels[15, 23] == 5


def test_merging_scores_by_hand() -> None:
    scores = {1: np.array([[1.0, 1.0, -1.0, 0.0]]), 2: np.array([[2.0, 1.0, -0.5, 0.1]])}
    # The higher wins; at a tie the first stays; below or at 0 is background.
    assert merge_scores(scores, (1, 4)).tolist() == [[2, 1, 0, 2]]
    assert merge_scores({}, (1, 4)).tolist() == [[0, 0, 0, 0]]
