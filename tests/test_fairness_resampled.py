"""Differences measured on the same people: intervals and p-values that belong together, and hold for small groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers.fairness.bootstrap import draw_group_means
from helpers.fairness.intervals import accelerate
from helpers.fairness.resampled import accelerate_influence, find_difference, find_gap_influence, take_gaps

ONES = np.ones(1)


def compare(values: np.ndarray, groups: np.ndarray, *, draws: int = 4000, method: str = "bca"):
    columns = values.shape[1]
    best, worst, sign = np.zeros(columns, int), np.ones(columns, int), np.ones(columns)
    drawn = take_gaps(draw_group_means(values, groups, draws=draws, seed=1, streams=["a", "b"]), best, worst, sign)
    means = np.array([np.nanmean(values[groups == group], axis=0) for group in range(2)])
    influence = find_gap_influence(values, groups, best, worst, sign)
    return find_difference(drawn, means[0] - means[1], influence, groups, method=method), influence


def test_gaps_follow_the_direction_of_the_metric_and_are_missing_where_nothing_is_compared():
    means = np.array([[0.9, 5.0, 1.0], [0.7, 2.0, 1.0]])
    found = take_gaps(means, np.array([0, 1, -1]), np.array([1, 0, -1]), np.array([1.0, -1.0, 1.0]))
    assert found[:2].tolist() == pytest.approx([0.2, 3.0]) and np.isnan(found[2])
    assert np.isnan(take_gaps(np.empty((4, 0, 2)), np.full(2, -1), np.full(2, -1), np.ones(2))).all()


def test_influence_by_hand():
    values, groups = np.array([[1.0], [3.0], [5.0], [np.nan], [9.0]]), np.array([0, 0, 1, 1, -1])
    found = find_gap_influence(values, groups, np.array([0]), np.array([1]), ONES)
    assert found[:, 0].tolist() == [-0.5, 0.5, 0.0, 0.0, 0.0]


def test_the_acceleration_is_the_jackknifes(rng):
    values, groups = rng.exponential(size=(40, 3)), np.repeat([0, 1], [15, 25])
    values[3, 1] = np.nan
    means = np.array([np.nanmean(values[groups == group], axis=0) for group in range(2)])
    sizes = np.array([np.isfinite(values[groups == group]).sum(axis=0) for group in range(2)])
    expected = accelerate(values, groups, means, sizes, lambda means, sizes: means[..., 0, :] - means[..., 1, :])
    influence = find_gap_influence(values, groups, np.zeros(3, int), np.ones(3, int), np.ones(3))
    assert accelerate_influence(influence) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sizes", [(8, 8), (6, 30), (200, 300)])
def test_of_normal_values_the_interval_is_welchs(rng, sizes):
    groups = np.repeat([0, 1], sizes)
    values = rng.normal(size=(sum(sizes), 40)) * np.where(groups == 0, 2.0, 1.0)[:, None]
    found, _ = compare(values, groups, draws=6000, method="percentile")
    welch = stats.ttest_ind(values[groups == 0], values[groups == 1], equal_var=False).confidence_interval(0.95)
    ratio = (found.high - found.low) / (welch.high - welch.low)
    # A sample of eight is not normal to the far levels asked for: on average the widths agree.
    assert ratio.mean() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_p_is_below_five_percent_just_where_the_interval_leaves_out_zero(rng, method):
    groups = np.repeat([0, 1], 20)
    values = rng.gamma(2.0, size=(40, 300)) + 0.7 * (groups == 0)[:, None]
    found, _ = compare(values, groups, method=method)
    outside = (found.low > 0) | (found.high < 0)
    clear = np.abs(found.p - 0.05) > 0.004
    assert 0.1 < outside.mean() < 0.9
    assert ((found.p < 0.05) == outside)[clear].all()


def test_p_values_are_even_where_there_is_no_difference(rng):
    groups = np.repeat([0, 1], [12, 25])
    found, _ = compare(rng.gamma(3.0, size=(37, 1500)), groups, draws=1000)
    assert (found.p < 0.05).mean() == pytest.approx(0.05, abs=0.025)
    assert (found.p < 0.5).mean() == pytest.approx(0.5, abs=0.05)


def test_no_difference_in_anybody_is_no_difference_at_all():
    groups, columns = np.repeat([0, 1], 5), 2
    found = find_difference(np.zeros((100, columns)), np.zeros(columns), np.zeros((10, columns)), groups, method="bca")
    assert found.low.tolist() == found.high.tolist() == [0.0, 0.0]
    assert found.p == pytest.approx([1.0, 1.0])


def test_what_has_no_estimate_has_no_interval():
    found = find_difference(
        np.full((100, 1), np.nan), np.array([np.nan]), np.zeros((10, 1)), np.repeat([0, 1], 5), method="bca"
    )
    assert np.isnan([found.low[0], found.high[0], found.p[0]]).all()
