"""Gaps and summary measures, seen by eye."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from helpers.fairness.disparity import (
    HIGHER_IS_BETTER,
    find_extremes,
    measure_equity_scaled,
    measure_skewed_error_ratio,
)
from helpers.parameters import MetricName


def test_every_metric_that_a_parameter_file_may_name_has_a_direction():
    assert set(HIGHER_IS_BETTER) == set(get_args(MetricName))


def test_best_dice_is_the_highest_and_best_distance_the_lowest():
    dice = find_extremes(np.array([0.80, 0.95, 0.90]), "dice")
    assert (dice.best, dice.worst, dice.gap) == (1, 0, pytest.approx(0.15))
    distance = find_extremes(np.array([3.0, 1.0, 7.0]), "hd95_mm")
    assert (distance.best, distance.worst, distance.gap) == (1, 2, pytest.approx(6.0))


def test_equal_means_have_no_gap_and_still_two_names():
    found = find_extremes(np.array([0.9, 0.9]), "dice")
    assert (found.best, found.worst, found.gap) == (0, 1, 0.0)


def test_equity_scaled_by_hand():
    # 0.8 / (1 + |0.8 − 0.7| + |0.8 − 0.9|) = 0.8 / 1.2
    assert measure_equity_scaled(0.8, np.array([0.7, 0.9])) == pytest.approx(2 / 3)
    assert measure_equity_scaled(0.8, np.array([0.8, 0.8])) == 0.8


def test_skewed_error_ratio_by_hand():
    assert measure_skewed_error_ratio(np.array([0.7, 0.9])) == pytest.approx(3.0)
    assert np.isnan(measure_skewed_error_ratio(np.array([0.7, 1.0])))
