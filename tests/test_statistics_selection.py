"""Intervals of what is told because it was significant."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers.statistics.selection_adjustment import condition_on_significance


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
    assert np.mean(median > truth) == pytest.approx(0.5, abs=0.04)
    assert np.abs(gap).mean() > np.median(median) + (0.15 if effect < 0.5 else 0.0)
