"""The best and the worst of several groups: intervals that allow for having picked them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers.fairness.disparity import find_best_and_worst
from helpers.statistics.bootstrap import Resamples, make_generator
from helpers.statistics.bootstrap_differences import PostSelection, find_difference, find_gap_influence, take_gaps
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import run_welch_anova
from helpers.statistics.selection_adjustment import condition_on_significance, find_range_quantile, widen_for_choice


def test_ranges_are_those_of_the_tables():
    # Miller 1981, table: 3 groups and 20 degrees of freedom 3.578, 4 and 10: 4.327, 3 and 3: 5.910.
    found = find_range_quantile(np.array([3, 4, 3, 3]), np.array([20.0, 10.0, 3.0, 0.0]))
    assert find_range_quantile(np.array([2]), np.array([20.0]))[0] == pytest.approx(np.sqrt(2) * stats.t.ppf(0.975, 20))
    assert found[:3] == pytest.approx([3.578, 4.327, 5.910], abs=1e-3) and np.isnan(found[3])


def test_widening_by_hand():
    p, df = np.array([0.01, 0.2, 0.01, 0.2, np.nan]), np.full(5, 20.0)
    found = widen_for_choice(np.array([2, 3, 3, 4, 4]), p, df)
    student = np.sqrt(2) * stats.t.ppf(0.975, 20)
    # Two groups: nothing. Three: Tukey's, or Student's where the test over all shows something.
    # Four: Tukey's.
    assert found == pytest.approx([1.0, 3.578 / student, 1.0, 3.958 / student, 3.958 / student], abs=1e-3)
    assert widen_for_choice(np.array([4]), np.array([0.01]), df[:1])[0] == pytest.approx(3.578 / student, abs=1e-3)
    assert widen_for_choice(np.array([3]), np.array([0.5]), np.array([np.nan])).tolist() == [1.0]


@pytest.mark.parametrize("count", [3, 4])
def test_groups_that_are_alike_rarely_seem_apart(count):
    generator = make_generator(5, "alike")
    groups = np.repeat(np.arange(count), 25)
    values = generator.gamma(2.0, size=(len(groups), 1200))
    metrics = ["dice"] * values.shape[1]
    grouped = GroupedValues(values, groups)
    moments = grouped.moments
    best, worst = find_best_and_worst(moments.mean, moments.n, metrics)
    sign = np.ones(len(metrics))
    resamples = Resamples(groups, 400, 1, tuple("abcd"[:count]))
    drawn = resamples.draw_means(values)
    given = (
        take_gaps(drawn, best, worst, sign),
        take_gaps(moments.mean, best, worst, sign),
        find_gap_influence(grouped, best, worst, sign),
        resamples,
    )
    selection = PostSelection(np.full(len(metrics), count), run_welch_anova(grouped).p)
    alarms = [
        ((found.low > 0) | (found.high < 0)).mean()
        for found in (find_difference(*given, one) for one in (None, selection))
    ]
    # Monte-Carlo error 0.6 %.
    assert alarms[0] > 0.09 and alarms[1] < 0.065


def test_numbers_invert_the_distribution_of_significant_estimates():
    """The chance to be above the estimate, given significance, is 50, 2.5 and 97.5 %."""
    z, cut = np.array([2.0, 2.5, 3.0, 6.0]), np.array([1.96, 1.96, 2.8, 1.96])
    found = condition_on_significance(0.01 * z, np.full(4, 0.01), cut)
    for mean, level in zip(found, (0.5, 0.025, 0.975), strict=True):
        true = mean / 0.01
        told = stats.norm.sf(cut - true) + stats.norm.cdf(-cut - true)
        assert stats.norm.sf(z - true) / told == pytest.approx(level, abs=1e-7)


def test_a_sure_effect_keeps_its_plain_interval_and_an_unsure_one_shrinks():
    median, low, high = condition_on_significance(np.array([10.0, 2.0, 1.5]), np.ones(3), np.full(3, 1.96))
    assert (median[0], low[0], high[0]) == pytest.approx((10.0, 10 - 1.96, 10 + 1.96), abs=1e-3)
    assert median[1] < 0.1 and low[1] < 0 < high[1] < 2.5
    assert np.isnan([median[2], low[2], high[2]]).all()


@pytest.mark.parametrize("effect", [0.0, 0.3, 0.6])
def test_intervals_of_significant_gaps_hold_the_truth(effect):
    """Two groups of 50, an effect of so many SD; the plain interval holds it in 0, 92 and 97 %."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(effect, 1, (50, 12_000)), rng.normal(0, 1, (50, 12_000))
    told = stats.ttest_ind(first, second, equal_var=False).pvalue < 0.05
    gap = (first.mean(axis=0) - second.mean(axis=0))[told]
    error = np.sqrt((first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1)) / 50)[told]
    cut = np.full(len(gap), stats.t.ppf(0.975, 98))
    median, low, high = condition_on_significance(np.abs(gap), error, cut)
    truth = effect * np.sign(gap)
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.95, abs=0.02)
    if effect:  # without one, half of the gaps are turned round
        assert np.mean(median > truth) == pytest.approx(0.5, abs=0.04)
    assert np.abs(gap).mean() > np.median(median) + (0.15 if effect < 0.5 else 0.0)
