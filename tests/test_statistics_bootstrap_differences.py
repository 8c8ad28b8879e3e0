"""Differences measured on the same people: intervals and p-values that belong together, and hold
for small groups."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.statistics.bootstrap import Resamples, make_generator
from helpers.statistics.bootstrap_differences import (
    find_difference,
    find_gap_influence,
    find_mean_intervals,
    find_rest_influence,
    take_gaps,
)
from helpers.statistics.grouped_values import GroupedValues

ONES = np.ones(1)


def resample(groups: np.ndarray, draws: int = 100) -> Resamples:
    return Resamples(groups, draws, 1, ("a", "b"))


def compare(values: np.ndarray, groups: np.ndarray, *, draws: int = 4000):
    columns = values.shape[1]
    best, worst, sign = np.zeros(columns, int), np.ones(columns, int), np.ones(columns)
    drawn = take_gaps(Resamples(groups, draws, 1, ("a", "b")).draw_means(values), best, worst, sign)
    means = np.array([np.nanmean(values[groups == group], axis=0) for group in range(2)])
    influence = find_gap_influence(GroupedValues(values, groups), best, worst, sign)
    return find_difference(drawn, means[0] - means[1], influence, resample(groups, draws)), influence


def test_gaps_follow_the_direction_of_the_metric_and_are_missing_where_nothing_is_compared():
    means = np.array([[0.9, 5.0, 1.0], [0.7, 2.0, 1.0]])
    found = take_gaps(means, np.array([0, 1, -1]), np.array([1, 0, -1]), np.array([1.0, -1.0, 1.0]))
    assert found[:2].tolist() == pytest.approx([0.2, 3.0]) and np.isnan(found[2])
    assert np.isnan(take_gaps(np.empty((4, 0, 2)), np.full(2, -1), np.full(2, -1), np.ones(2))).all()


def test_influence_by_hand():
    values, groups = np.array([[1.0], [3.0], [5.0], [np.nan], [9.0]]), np.array([0, 0, 1, 1, -1])
    found = find_gap_influence(GroupedValues(values, groups), np.array([0]), np.array([1]), ONES)
    assert found[:, 0] == pytest.approx([-0.5, 0.5, 0.0, 0.0, 0.0])
    assert (found[:, 0] == 0).tolist() == [False, False, False, True, True]  # alone at its mean, and yet there


def test_somebody_just_at_the_mean_counts():
    groups, values = np.array([0, 0, 0, 1, 1, 1]), np.array([[1.0], [2.0], [3.0], [4.0], [6.0], [8.0]])
    found = find_gap_influence(GroupedValues(values, groups), np.array([0]), np.array([1]), ONES)
    assert found[:, 0] == pytest.approx([-1 / 3, 0, 1 / 3, 2 / 3, 0, -2 / 3])
    assert (found != 0).all()
    spread = dict(Resamples(groups, 50, 1, ("a", "b")).draw_squared_errors(found))
    assert spread[0].max() == pytest.approx(3 / 2 * 2 / 9 * 4 / 3)  # 1, 1, 3 or 1, 3, 3: variance 4/3 over three people


def test_p_is_below_five_percent_just_where_the_interval_leaves_out_zero(rng):
    groups = np.repeat([0, 1], 20)
    values = rng.gamma(2.0, size=(40, 300)) + 0.7 * (groups == 0)[:, None]
    found, _ = compare(values, groups)
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
    found = find_difference(np.zeros((100, columns)), np.zeros(columns), np.zeros((10, columns)), resample(groups))
    assert found.low.tolist() == found.high.tolist() == [0.0, 0.0]
    assert found.p == pytest.approx([1.0, 1.0])


def test_what_has_no_estimate_has_no_interval():
    found = find_difference(
        np.full((100, 1), np.nan), np.array([np.nan]), np.zeros((10, 1)), resample(np.repeat([0, 1], 5))
    )
    assert np.isnan([found.low[0], found.high[0], found.p[0]]).all()


def draw_people(groups: np.ndarray, draws: int) -> list[np.ndarray]:
    """Return how often each person occurs, per group, in the resamples of :func:`resample`."""
    found = [np.empty((0, (groups == group).sum())) for group in range(2)]
    for group, _, _, counts in resample(groups, draws).draw(groups[:, None]):
        found[group] = np.vstack([found[group], counts])
    return found


def test_student_intervals_are_those_of_a_slow_loop(rng):
    groups = np.repeat([0, 1], [9, 14])
    values = rng.lognormal(size=(23, 2))
    found, _ = compare(values, groups, draws=300)
    people = draw_people(groups, 300)
    parts = [values[groups == group] for group in range(2)]
    error = np.sqrt(sum(part.var(axis=0, ddof=1) / len(part) for part in parts))
    estimate = parts[0].mean(axis=0) - parts[1].mean(axis=0)
    t = []
    for draw in range(300):
        drawn = [np.repeat(part, counts[draw].astype(int), axis=0) for part, counts in zip(parts, people, strict=True)]
        # Within a resample of n people, as the plain formula has it: what it varies is divided by n
        # − 1.
        own = np.sqrt(sum(part.var(axis=0, ddof=1) / len(part) for part in drawn))
        t.append((drawn[0].mean(axis=0) - drawn[1].mean(axis=0) - estimate) / np.maximum(own, 1e-3 * error))
    reach = np.quantile(np.abs(t), 0.95, axis=0)
    assert found.low == pytest.approx(estimate - reach * error, rel=1e-10)
    assert found.high == pytest.approx(estimate + reach * error, rel=1e-10)
    drawn = Resamples(groups, 300, 1, ("a", "b")).draw_means(values)
    low, high = find_mean_intervals(GroupedValues(values, groups), drawn, resample(groups, 300))
    one = (drawn[:, 0] - parts[0].mean(axis=0)) / [
        np.repeat(parts[0], counts.astype(int), axis=0).std(axis=0, ddof=1) / 3.0 for counts in people[0]
    ]
    s = parts[0].std(axis=0, ddof=1) / 3.0
    expected = [parts[0].mean(axis=0) - np.quantile(one, level, axis=0) * s for level in (0.975, 0.025)]
    assert np.array([low[0], high[0]]) == pytest.approx(np.array(expected), rel=1e-10)


@pytest.mark.parametrize(("sizes", "least"), [((15, 15), 0.93), ((30, 30), 0.935), ((10, 90), 0.90)])
def test_skewed_groups_are_covered(sizes, least):
    generator = make_generator(3, "skewed")
    groups = np.repeat([0, 1], sizes)
    values = generator.lognormal(0.0, 0.6, (sum(sizes), 1500))
    found, _ = compare(values, groups, draws=500)
    # Monte-Carlo error 0.6 %.
    assert least < ((found.low <= 0) & (found.high >= 0)).mean() < 0.975


def test_one_person_apart_from_twins_makes_a_wide_interval_not_an_endless_one():
    groups = np.repeat([0, 1], 12)
    values = np.where(np.arange(24) == 0, 0.0, 1.0)[:, None]
    found, influence = compare(values, groups)
    error = np.sqrt(1 / 144)
    # A third of the resamples are without the one apart, and have no spread: the limit, twice
    # Student's with 11 degrees of freedom.
    assert found.high[0] - found.low[0] == pytest.approx(2 * 2 * 2.201 / 12, rel=1e-3)
    assert found.p[0] > 0.5 and (influence**2).sum() < error**2


def test_means_that_nobody_varies_in_have_no_width_and_single_people_no_interval():
    values, groups = np.array([[0.5, 1.0], [0.5, np.nan], [0.7, 2.0], [0.9, 3.0]]), np.array([0, 0, 1, 1])
    drawn = Resamples(groups, 200, 1, ("a", "b")).draw_means(values)
    low, high = find_mean_intervals(GroupedValues(values, groups), drawn, resample(groups, 200))
    assert (low[0, 0], high[0, 0]) == (0.5, 0.5) and np.isnan([low[0, 1], high[0, 1]]).all()
    assert low[1, 0] < 0.8 < high[1, 0]


def test_means_cover_the_truth_of_skewed_scores():
    generator = make_generator(4, "means")
    values = generator.lognormal(0.0, 0.6, (45, 2000))
    groups = np.repeat([0, 1], [15, 30])
    drawn = Resamples(groups, 500, 1, ("a", "b")).draw_means(values)
    low, high = find_mean_intervals(GroupedValues(values, groups), drawn, resample(groups, 500))
    covered = ((low <= np.exp(0.18)) & (high >= np.exp(0.18))).mean(axis=1)
    assert covered == pytest.approx([0.94, 0.945], abs=0.015)


def test_influence_on_a_group_against_the_rest_by_hand():
    values = np.array([[1.0], [3.0], [5.0], [7.0], [2.0], [9.0]])
    groups, kept = np.array([0, 0, 1, 1, 2, 3]), np.array([[True], [True], [True], [False]])
    # Group 0 (mean 2) against groups 1 and 2 (means 6 and 2, three people); group 3 is too small to
    # count.
    found = find_rest_influence(GroupedValues(values, groups), kept, 0, ONES)
    assert found[:, 0] == pytest.approx([-0.5, 0.5, 1 / 3, -1 / 3, 0.0, 0.0])
