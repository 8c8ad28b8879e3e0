"""Effect sizes: agreement with pingouin, statsmodels and the definitions, coverage of the
intervals, dull inputs."""

from __future__ import annotations

import numpy as np
import pingouin
import pytest
from hypothesis import given, settings, strategies
from scipy import stats
from statsmodels.stats.oneway import confint_effectsize_oneway

from helpers.statistics.effects import measure_cliffs_delta, measure_epsilon_squared
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import run_one_way_anova
from tests.test_statistics_hypothesis_tests import EXACT, ignore_pandas_warning, make_columns, make_table, split

BOTH = (measure_cliffs_delta, measure_epsilon_squared)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (2, 1)])
def test_two_groups_agree_with_pingouin(rng, first, second):
    values, codes = make_columns(rng, 3)
    delta = measure_cliffs_delta(GroupedValues(values, codes), first, second)
    for column in range(values.shape[1]):
        parts = split(values, codes, column)
        pair = parts[first], parts[second]
        assert delta.estimate[column] == pytest.approx(np.sign(pair[0][:, None] - pair[1]).mean(), **EXACT)
        with ignore_pandas_warning():
            assert delta.estimate[column] == pytest.approx(pingouin.mwu(*pair)["RBC"].iloc[0], **EXACT)


def test_interval_of_delta_is_that_of_its_definition(rng):
    values, codes = make_columns(rng, 2)
    found = measure_cliffs_delta(GroupedValues(values, codes))
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
def test_the_share_of_ranks_agrees_with_pingouin_and_its_interval_with_statsmodels(rng, groups):
    values, codes = make_columns(rng, groups)
    grouped = GroupedValues(values, codes)
    epsilon, anova = measure_epsilon_squared(grouped), run_one_way_anova(grouped.ranks)
    for column in range(values.shape[1]):
        parts = split(values, codes, column)
        with ignore_pandas_warning():
            kruskal = pingouin.kruskal(data=make_table(parts), dv="value", between="group")
        n = sum(map(len, parts))
        assert epsilon.estimate[column] == pytest.approx(kruskal["H"].iloc[0] * (n + 1) / (n**2 - 1), **EXACT)
        f, df, df_error = anova.statistic[column], anova.df[column], anova.df_error[column]
        with np.errstate(divide="ignore", invalid="ignore"):
            theirs = confint_effectsize_oneway(f, (df, df_error), alpha=0.05, nobs=n).eta2
        ours = (epsilon.low[column], epsilon.high[column])
        # scipy.special.ncfdtrinc, which they use, is good to four digits; the distribution itself
        # to many.
        assert ours == pytest.approx(tuple(np.maximum(theirs, 0)), abs=1e-4)
        for bound, share in zip(ours, (0.975, 0.025), strict=True):
            if bound > 0:
                noncentrality = n * bound / (1 - bound)
                assert stats.ncf.cdf(f, df, df_error, noncentrality) == pytest.approx(share, abs=1e-8)


def test_each_column_may_compare_its_own_groups(rng):
    values, codes = make_columns(rng, 3)
    first, second = np.array([0, 1, 2, 0, 1, 2]), np.array([1, 2, 0, 2, 0, 1])
    together = measure_cliffs_delta(GroupedValues(values, codes), first, second)
    for column in range(6):
        alone = measure_cliffs_delta(GroupedValues(values[:, [column]], codes), int(first[column]), int(second[column]))
        assert together.low[column] == pytest.approx(alone.low[0], **EXACT)


@settings(max_examples=30, deadline=None)
@given(seed=strategies.integers(0, 2**32 - 1))
def test_turned_round_effects_change_sign_and_intervals_hold_them(seed):
    values, codes = make_columns(np.random.default_rng(seed), 2)
    grouped = GroupedValues(values, codes)
    found, turned = measure_cliffs_delta(grouped), measure_cliffs_delta(grouped, 1, 0)
    assert turned.estimate == pytest.approx(-found.estimate, rel=1e-9, abs=1e-12)
    assert turned.low == pytest.approx(-found.high, rel=1e-6, abs=1e-9)
    assert (found.low <= found.estimate + 1e-12).all() and (found.estimate <= found.high + 1e-12).all()


def test_effects_without_bounds_of_scale(rng):
    values, codes = make_columns(rng, 3)
    for measure in BOTH:
        found, scaled = measure(GroupedValues(values, codes)), measure(GroupedValues(1000 * values + 5, codes))
        for name in ("estimate", "low", "high"):
            assert getattr(scaled, name) == pytest.approx(getattr(found, name), rel=1e-6, abs=1e-8)


def test_groups_that_do_not_overlap():
    values, codes = np.array([[1.0], [2], [3], [4], [5], [6], [7]]), np.array([0, 0, 0, 1, 1, 1, 1])
    found = measure_cliffs_delta(GroupedValues(values, codes))
    z = stats.norm.ppf(0.975)
    assert (found.low[0], found.estimate[0]) == (-1, -1) and found.high[0] == pytest.approx(-(3 - z**2) / (3 + z**2))
    found = measure_cliffs_delta(GroupedValues(values, codes), 1, 0)
    assert (found.estimate[0], found.high[0]) == (1, 1) and found.low[0] == pytest.approx((3 - z**2) / (3 + z**2))
    epsilon = measure_epsilon_squared(GroupedValues(values, codes))
    assert 0 < epsilon.low[0] < epsilon.estimate[0] < epsilon.high[0] < 1


def test_a_huge_effect_in_large_groups_still_has_an_interval(rng):
    values = np.concatenate([rng.normal(0, 1, (2000, 1)), rng.normal(3, 1, (2000, 1))])
    found = measure_epsilon_squared(GroupedValues(values, np.repeat([1, 0], 2000)))
    assert 0.6 < found.low[0] < found.estimate[0] < found.high[0] < 0.75


def test_what_cannot_be_measured_is_nan():
    nan = np.nan
    codes = np.array([0, 0, 0, 1, 1, 1])
    values = np.array([[0.1] * 6, [nan] * 6, [1, 2, 3, nan, nan, nan]]).T
    found = measure_epsilon_squared(GroupedValues(values, codes))
    assert np.isnan([found.estimate, found.low, found.high]).all()
    found = measure_cliffs_delta(GroupedValues(values, codes))
    assert found.estimate[0] == 0 and np.isnan(found.estimate[1:]).all()
    one = measure_cliffs_delta(GroupedValues(np.array([[1.0], [2.0], [3.0]]), np.array([0, 0, 1])))
    assert one.estimate[0] == -1 and np.isnan(one.low[0])
    for measure in BOTH:
        assert measure(GroupedValues(np.empty((0, 2)), np.empty(0, int))).estimate.shape == (2,)


def cover(found, truth):
    return ((found.low <= truth) & (found.high >= truth)).mean()


def test_intervals_of_two_groups_cover_the_truth():
    generator = np.random.default_rng(5)
    codes = np.repeat([0, 1], [25, 40])
    values = generator.standard_normal((65, 2000)) + 0.8 * (codes == 0)[:, None]
    truth = 2 * stats.norm.cdf(0.8 / np.sqrt(2)) - 1
    assert cover(measure_cliffs_delta(GroupedValues(values, codes)), truth) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_intervals_of_all_groups_cover_the_truth(shift):
    generator = np.random.default_rng(6)
    codes = np.repeat([0, 1, 2], [20, 30, 40])
    values = generator.standard_normal((90, 1500)) + shift * codes[:, None]
    # The two-sided interval of no effect at all begins at 0: it errs to one side only.
    nominal = 0.975 if shift == 0 else 0.95
    # H / (n − 1) of a population: a very large sample of it.
    many = np.repeat(codes, 2000)
    large = measure_epsilon_squared(
        GroupedValues(generator.standard_normal((len(many), 1)) + shift * many[:, None], many)
    )
    truth = 0.0 if shift == 0 else large.estimate[0]
    assert cover(measure_epsilon_squared(GroupedValues(values, codes)), truth) == pytest.approx(nominal, abs=0.03)
