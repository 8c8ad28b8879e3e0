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
from helpers.statistics.selection_adjustment import find_range_quantile, widen_for_choice


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
