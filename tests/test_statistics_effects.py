"""Effect sizes: agreement with pingouin, statsmodels and the definitions, coverage of the intervals, dull inputs."""

from __future__ import annotations

import numpy as np
import pingouin
import pytest
from hypothesis import given, settings, strategies
from scipy import stats
from statsmodels.stats.oneway import confint_effectsize_oneway

from helpers.statistics.effects import (
    measure_cliffs_delta,
    measure_epsilon_squared,
    measure_eta_squared,
    measure_hedges_g,
    measure_omega_squared,
)
from helpers.statistics.hypothesis_tests import run_one_way_anova
from tests.test_statistics_hypothesis_tests import EXACT, ignore_pandas_warning, make_columns, make_table, split

TWO = (measure_hedges_g, measure_cliffs_delta)
ALL = (measure_eta_squared, measure_omega_squared, measure_epsilon_squared)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (2, 1)])
def test_two_groups_agree_with_pingouin(rng, first, second):
    values, codes = make_columns(rng, 3)
    g, delta = (measure(values, codes, first, second) for measure in TWO)
    for column in range(values.shape[1]):
        parts = split(values, codes, column)
        pair = parts[first], parts[second]
        assert g.estimate[column] == pytest.approx(pingouin.compute_effsize(*pair, eftype="hedges"), **EXACT)
        assert delta.estimate[column] == pytest.approx(np.sign(pair[0][:, None] - pair[1]).mean(), **EXACT)
        with ignore_pandas_warning():
            assert delta.estimate[column] == pytest.approx(pingouin.mwu(*pair)["RBC"].iloc[0], **EXACT)


def test_bounds_of_g_are_those_of_the_noncentral_t(rng):
    values, codes = make_columns(rng, 2)
    found = measure_hedges_g(values, codes)
    for column in range(values.shape[1]):
        first, second = split(values, codes, column)
        n1, n2 = len(first), len(second)
        correction = (1 - 3 / (4 * (n1 + n2) - 9)) * np.sqrt(1 / n1 + 1 / n2)
        t = stats.ttest_ind(first, second).statistic
        for bound, share in ((found.low, 0.975), (found.high, 0.025)):
            assert stats.nct.cdf(t, n1 + n2 - 2, bound[column] / correction) == pytest.approx(share, abs=1e-8)


def test_interval_of_delta_is_that_of_its_definition(rng):
    values, codes = make_columns(rng, 2)
    found = measure_cliffs_delta(values, codes)
    z = stats.norm.ppf(0.975)
    for column in range(values.shape[1]):
        first, second = split(values, codes, column)
        m, n = len(first), len(second)
        matrix = np.sign(first[:, None] - second)
        d = matrix.mean()
        # Cliff 1993: the unbiased variance, from rows, columns and cells of the dominance matrix.
        rows, columns = ((matrix.mean(axis=1) - d) ** 2).sum(), ((matrix.mean(axis=0) - d) ** 2).sum()
        squared = (n**2 * rows + m**2 * columns - ((matrix - d) ** 2).sum()) / (m * n * (m - 1) * (n - 1))
        squared = max(squared, (1 - d**2) / (m * n - 1))
        width = z * np.sqrt(squared * ((1 - d**2) ** 2 + z**2 * squared))
        expected = [(d - d**3 + side * width) / (1 - d**2 + z**2 * squared) for side in (-1, 1)]
        assert (found.low[column], found.high[column]) == pytest.approx(tuple(np.clip(expected, -1, 1)), **EXACT)


@pytest.mark.parametrize("groups", [2, 4])
def test_shares_of_variation_agree_with_pingouin_and_statsmodels(rng, groups):
    values, codes = make_columns(rng, groups)
    eta, omega, epsilon = (measure(values, codes, confidence=0.9) for measure in ALL)
    anova = run_one_way_anova(values, codes)
    for column in range(values.shape[1]):
        parts = split(values, codes, column)
        with ignore_pandas_warning():
            table = pingouin.anova(data=make_table(parts), dv="value", between="group", effsize="n2", detailed=True)
            kruskal = pingouin.kruskal(data=make_table(parts), dv="value", between="group")
        assert eta.estimate[column] == pytest.approx(table["n2"].iloc[0], **EXACT)
        between, within = table["SS"]
        error = within / anova.df_error[column]
        expected = (between - anova.df[column] * error) / (between + within + error)
        assert omega.estimate[column] == pytest.approx(expected, **EXACT)
        n = sum(map(len, parts))
        assert epsilon.estimate[column] == pytest.approx(kruskal["H"].iloc[0] * (n + 1) / (n**2 - 1), **EXACT)
        with np.errstate(divide="ignore", invalid="ignore"):
            theirs = confint_effectsize_oneway(
                anova.statistic[column], (anova.df[column], anova.df_error[column]), alpha=0.1, nobs=n
            ).eta2
        ours = (eta.low[column], eta.high[column])
        # scipy.special.ncfdtrinc, which they use, is good to four digits; the distribution itself to many.
        assert ours == pytest.approx(tuple(np.maximum(theirs, 0)), abs=1e-4)
        for bound, share in zip(ours, (0.95, 0.05), strict=True):
            if bound > 0:
                noncentrality = n * bound / (1 - bound)
                below = stats.ncf.cdf(anova.statistic[column], anova.df[column], anova.df_error[column], noncentrality)
                assert below == pytest.approx(share, abs=1e-8)
        assert ours == (omega.low[column], omega.high[column])


def test_each_column_may_compare_its_own_groups(rng):
    values, codes = make_columns(rng, 3)
    first, second = np.array([0, 1, 2, 0, 1, 2]), np.array([1, 2, 0, 2, 0, 1])
    for measure in TWO:
        together = measure(values, codes, first, second)
        for column in range(6):
            alone = measure(values[:, [column]], codes, int(first[column]), int(second[column]))
            assert together.low[column] == pytest.approx(alone.low[0], **EXACT)


@settings(max_examples=30, deadline=None)
@given(seed=strategies.integers(0, 2**32 - 1))
def test_turned_round_effects_change_sign_and_intervals_hold_them(seed):
    values, codes = make_columns(np.random.default_rng(seed), 2)
    for measure in TWO:
        found, turned = measure(values, codes), measure(values, codes, 1, 0)
        assert turned.estimate == pytest.approx(-found.estimate, rel=1e-9, abs=1e-12)
        assert turned.low == pytest.approx(-found.high, rel=1e-6, abs=1e-9)
        assert (found.low <= found.estimate + 1e-12).all() and (found.estimate <= found.high + 1e-12).all()


def test_effects_without_bounds_of_scale(rng):
    values, codes = make_columns(rng, 3)
    for measure in (*TWO, *ALL):
        found, scaled = measure(values, codes), measure(1000 * values + 5, codes)
        for name in ("estimate", "low", "high"):
            assert getattr(scaled, name) == pytest.approx(getattr(found, name), rel=1e-6, abs=1e-8)


def test_groups_that_do_not_overlap():
    values, codes = np.array([[1.0], [2], [3], [4], [5], [6], [7]]), np.array([0, 0, 0, 1, 1, 1, 1])
    found = measure_cliffs_delta(values, codes)
    z = stats.norm.ppf(0.975)
    assert (found.low[0], found.estimate[0]) == (-1, -1) and found.high[0] == pytest.approx(-(3 - z**2) / (3 + z**2))
    found = measure_cliffs_delta(values, codes, 1, 0)
    assert (found.estimate[0], found.high[0]) == (1, 1) and found.low[0] == pytest.approx((3 - z**2) / (3 + z**2))
    epsilon = measure_epsilon_squared(values, codes)
    assert 0 < epsilon.low[0] < epsilon.estimate[0] < epsilon.high[0] < 1


def test_huge_effects_in_large_groups_still_have_an_interval(rng):
    values = np.concatenate([rng.normal(0, 1, (2000, 1)), rng.normal(8, 1, (2000, 1))])
    codes = np.repeat([1, 0], 2000)
    g = measure_hedges_g(values, codes)
    assert 7.5 < g.low[0] < g.estimate[0] < g.high[0] < 8.5
    eta = measure_eta_squared(values, codes)
    assert 0.9 < eta.low[0] < eta.estimate[0] < eta.high[0] < 1


def test_a_huge_effect_in_small_groups_has_an_interval_on_either_side():
    values = np.array([[0.0], [0.1], [0.2], [50.0], [50.1], [50.2]])
    for sign in (1, -1):
        found = measure_hedges_g(sign * values, np.array([0, 0, 0, 1, 1, 1]))
        assert found.low[0] < found.estimate[0] < found.high[0] and abs(found.estimate[0]) > 100


def test_what_cannot_be_measured_is_nan():
    nan = np.nan
    codes = np.array([0, 0, 0, 1, 1, 1])
    values = np.array([[0.1] * 6, [nan] * 6, [1, 2, 3, nan, nan, nan]]).T
    for measure in (measure_hedges_g, *ALL):
        found = measure(values, codes)
        assert np.isnan([found.estimate, found.low, found.high]).all()
    found = measure_cliffs_delta(values, codes)
    assert found.estimate[0] == 0 and np.isnan(found.estimate[1:]).all()
    one = measure_cliffs_delta(np.array([[1.0], [2.0], [3.0]]), np.array([0, 0, 1]))
    assert one.estimate[0] == -1 and np.isnan(one.low[0])
    for measure in (*TWO, *ALL):
        assert measure(np.empty((0, 2)), np.empty(0, int)).estimate.shape == (2,)


def cover(found, truth):
    return ((found.low <= truth) & (found.high >= truth)).mean()


def test_intervals_of_two_groups_cover_the_truth():
    generator = np.random.default_rng(5)
    codes = np.repeat([0, 1], [25, 40])
    values = generator.standard_normal((65, 2000)) + 0.8 * (codes == 0)[:, None]
    assert cover(measure_hedges_g(values, codes), 0.8) == pytest.approx(0.95, abs=0.015)
    truth = 2 * stats.norm.cdf(0.8 / np.sqrt(2)) - 1
    assert cover(measure_cliffs_delta(values, codes), truth) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_intervals_of_all_groups_cover_the_truth(shift):
    generator = np.random.default_rng(6)
    codes = np.repeat([0, 1, 2], [20, 30, 40])
    values = generator.standard_normal((90, 1500)) + shift * codes[:, None]
    means = shift * np.array([0, 1, 2])
    share = np.average((means - np.average(means, weights=[2, 3, 4])) ** 2, weights=[2, 3, 4])
    # The two-sided interval of no effect at all begins at 0: it errs to one side only.
    nominal = 0.975 if shift == 0 else 0.95
    assert cover(measure_eta_squared(values, codes), share / (1 + share)) == pytest.approx(nominal, abs=0.015)
    # H / (n − 1) of a population: a very large sample of it.
    many = np.repeat(codes, 2000)
    large = measure_epsilon_squared(generator.standard_normal((len(many), 1)) + shift * many[:, None], many)
    truth = 0.0 if shift == 0 else large.estimate[0]
    assert cover(measure_epsilon_squared(values, codes), truth) == pytest.approx(nominal, abs=0.03)
