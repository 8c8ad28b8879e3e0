"""Verdicts: agreement with pingouin and statsmodels, rates of wrong verdicts at the hardest truths,
dull inputs."""

from __future__ import annotations

import numpy as np
import pingouin
import pytest
from hypothesis import given, settings, strategies
from scipy import stats
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import ttost_ind

from helpers.errors import SegfairError
from helpers.statistics.equivalence import (
    find_detectable_difference,
    judge,
    judge_columns,
)
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import find_least_p, find_squared_error, run_kruskal_wallis
from helpers.vocabulary.verdicts import Verdict
from tests.test_statistics_hypothesis_tests import EXACT, ignore_pandas_warning, make_columns, split

DIFFERENCE, DISPARITY, EQUIVALENT = Verdict.DIFFERENCE, Verdict.DISPARITY, Verdict.EQUIVALENT
INCONCLUSIVE, NEGLIGIBLE = Verdict.INCONCLUSIVE, Verdict.NEGLIGIBLE
VERDICTS = [verdict for verdict in Verdict if verdict is not Verdict.NOT_COMPARED]


def judge_one(low, high, p=0.001, narrower=0.1, margin=1.0):
    """Judge one pair whose 90 % interval is narrower than its 95 % one by so much on either
    side."""
    bounds = np.array([[low]]), np.array([[high]]), np.array([[low + narrower]]), np.array([[high - narrower]])
    return str(judge(*bounds, np.array([margin]), np.array([p]), alpha=0.05)[0])


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (1.2, 2.0, 0.001, DISPARITY),
        (-2.0, -1.2, 0.001, DISPARITY),
        (1.2, 2.0, 0.2, INCONCLUSIVE),  # not after correction
        (1.2, 2.0, np.nan, INCONCLUSIVE),
        (0.9, 2.0, 0.001, DIFFERENCE),  # real, of unknown size
        (0.9, 2.0, 0.2, INCONCLUSIVE),
        (0.2, 0.8, 0.001, NEGLIGIBLE),
        (-0.8, -0.2, 0.001, NEGLIGIBLE),
        (0.2, 0.8, 0.2, EQUIVALENT),  # not real after correction
        (-0.4, 0.8, 0.001, EQUIVALENT),
        (-0.4, 1.05, 0.5, EQUIVALENT),  # the 90 % interval counts
        (-0.4, 1.2, 0.5, INCONCLUSIVE),
        (-3.0, 3.0, 0.5, INCONCLUSIVE),
        (np.nan, np.nan, 0.5, INCONCLUSIVE),
    ],
)
def test_verdicts_of_one_pair(low, high, p, expected):
    assert judge_one(low, high, p) == expected


def test_one_pair_out_of_three_decides():
    low, high = np.array([[-0.2, -0.2], [-0.2, -0.2], [1.1, 0.5]]), np.array([[0.2, 0.2], [0.2, 0.2], [1.9, 1.5]])
    bounds = low, high, low + 0.05, high - 0.05
    assert judge(*bounds, np.ones(2), np.zeros(2), alpha=0.05).tolist() == [DISPARITY, DIFFERENCE]
    compared = np.array([[True, True], [True, True], [False, False]])
    assert judge(*bounds, np.ones(2), np.zeros(2), alpha=0.05, compared=compared).tolist() == [EQUIVALENT] * 2


def test_an_interval_of_the_column_itself_may_show_the_difference_too():
    """What a reader sees beside the verdict is the bootstrap's interval, which may be narrower."""
    bounds = (np.array([[-0.1, -0.1, -0.1]]), np.array([[2.0, 2.0, 0.8]])) * 2
    apart = np.array([True, False, True])
    verdict = judge(*bounds, np.ones(3), np.full(3, 0.01), alpha=0.05, apart=apart)
    assert verdict.tolist() == [DIFFERENCE, INCONCLUSIVE, NEGLIGIBLE]
    assert judge(*bounds, np.ones(3), np.full(3, 0.2), alpha=0.05, apart=apart).tolist()[0] == INCONCLUSIVE


def test_without_a_pair_there_is_no_verdict_and_without_a_margin_none_on_size():
    one = np.zeros((1, 2))
    verdict = judge(one, one, one, one, np.array([np.nan, 1.0]), np.zeros(2), alpha=0.05, compared=one > 0)
    assert verdict.tolist() == ["", ""]
    assert judge_one(0.2, 0.8, margin=np.nan) == DIFFERENCE
    assert judge_one(0.2, 0.8, p=0.3, margin=np.nan) == INCONCLUSIVE == judge_one(-0.2, 0.8, margin=np.nan)


@pytest.mark.parametrize("groups", [2, 3])
def test_equivalence_is_that_of_two_one_sided_tests_of_pingouin_and_statsmodels(rng, groups):
    values, codes = make_columns(rng, groups)
    margins = np.repeat(np.linspace(0.2, 4.0, 12), 6)
    columns = np.tile(np.arange(6), 12)
    found = judge_columns(GroupedValues(values[:, columns], codes), margins, np.full(72, np.nan)).verdict == EQUIVALENT
    assert 0 < found.sum() < 72
    for place, (column, margin) in enumerate(zip(columns, margins, strict=True)):
        parts = split(values, codes, column)
        pairs = [(parts[a], parts[b]) for a in range(groups) for b in range(a + 1, groups)]
        with ignore_pandas_warning():
            theirs = [pingouin.tost(*pair, bound=float(margin), correction=True)["pval"].iloc[0] for pair in pairs]
        assert found[place] == (max(theirs) < 0.05)
        assert found[place] == (max(ttost_ind(*pair, -margin, margin, usevar="unequal")[0] for pair in pairs) < 0.05)


@pytest.mark.parametrize(("sizes", "known"), [((3, 3), False), ((3, 4), True), ((4, 4), True), ((3, 3, 3), True)])
def test_nothing_is_detectable_where_no_arrangement_of_people_is_rare_enough(sizes, known):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    values = np.arange(len(codes), dtype=float)[:, None] % 3 / 1000
    found = judge_columns(GroupedValues(values, codes), np.ones(1), np.ones(1)).detectable
    assert np.isfinite(found).all() == known and np.isnan(found).any() != known
    pairs = len(found)
    given = (np.full((pairs, 1), 0.1), np.full((pairs, 1), 9.0))  # of clusters, whose test permutes nobody
    judged = judge_columns(GroupedValues(values, codes), np.ones(1), np.ones(1), errors=given)
    assert np.isfinite(judged.detectable).all()
    if len(sizes) == 2:
        differences = np.arange(len(codes), dtype=float)[::-1] ** 2
        least = stats.permutation_test(
            (differences[: sizes[0]], differences[sizes[0] :]),
            lambda a, b: abs(a.mean() - b.mean()),
            alternative="greater",
            n_resamples=np.inf,
        ).pvalue
        assert find_least_p(np.array(sizes)) == pytest.approx(least) and (least <= 0.05) == known


def test_intervals_agree_with_scipy(rng):
    values, codes = make_columns(rng, 3)
    found = judge_columns(GroupedValues(values, codes), np.ones(6), np.full(6, 1.0))
    assert list(zip(found.first, found.second, strict=True)) == [(0, 1), (0, 2), (1, 2)]
    for column in range(6):
        parts = split(values, codes, column)
        for pair, (a, b) in enumerate(zip(found.first, found.second, strict=True)):
            test = stats.ttest_ind(parts[a], parts[b], equal_var=False)
            alone = test.confidence_interval(0.90)
            together = test.confidence_interval(0.95 ** (1 / 3))
            assert found.difference[pair, column] == pytest.approx(parts[a].mean() - parts[b].mean(), **EXACT)
            ours = (found.low_equivalence[pair, column], found.high_equivalence[pair, column])
            assert ours == pytest.approx((alone.low, alone.high), **EXACT)
            assert (found.low[pair, column], found.high[pair, column]) == pytest.approx(
                (together.low, together.high), **EXACT
            )


@pytest.mark.parametrize("n", [10, 200, 5000])
def test_detectable_difference_agrees_with_statsmodels(n):
    squared, df = find_squared_error(np.array([n]), np.array([4.0]), np.array([n]), np.array([4.0]))
    for alpha, power in ((0.05, 0.8), (0.001, 0.9)):
        theirs = TTestIndPower().solve_power(nobs1=n, alpha=alpha, power=power) * 2.0
        ours = find_detectable_difference(np.sqrt(squared), df, alpha=alpha, power=power)
        # Their power of our answer is as asked for; their own answer is found to four digits.
        assert TTestIndPower().power(ours[0] / 2.0, n, alpha) == pytest.approx(power, abs=1e-9)
        assert ours[0] == pytest.approx(theirs, rel=1e-4)


def test_detectable_difference_is_found_as_often_as_said():
    generator = np.random.default_rng(4)
    n1, n2, sd1, sd2 = 15, 40, 2.0, 1.0
    squared, df = find_squared_error(np.array([n1]), np.array([sd1**2]), np.array([n2]), np.array([sd2**2]))
    difference = find_detectable_difference(np.sqrt(squared), df)[0]
    first = generator.normal(difference, sd1, (n1, 4000))
    second = generator.normal(0, sd2, (n2, 4000))
    found = stats.ttest_ind(first, second, equal_var=False).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)


# The rates of wrong verdicts, at the truths where they are largest: 4000 columns are as many
# studies, and 5 % has a standard error of 0.35 %.
STUDIES, HIGHEST = 4000, 0.05 + 2.5 * 0.0035


def draw_studies(seed, means, sizes, sds):
    generator = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    noise = generator.standard_normal((len(codes), STUDIES)) * np.array(sds, float)[codes][:, None]
    return np.array(means, float)[codes][:, None] + noise, codes


@pytest.mark.parametrize(
    ("means", "sizes", "sds"),
    [
        ((0, 0.5), (60, 60), (1, 1)),
        ((0, 0.5), (20, 200), (1.0, 0.3)),
        ((0, 0.25, 0.5), (80, 80, 80), (1, 1, 1)),
        ((0, 0.5, 0.5), (80, 80, 80), (1, 1, 1)),
        ((0, 0, 0, 0.5), (60, 90, 120, 40), (1, 0.5, 1, 0.4)),
    ],
)
def test_groups_that_differ_by_the_margin_are_rarely_called_equivalent(means, sizes, sds):
    values, codes = draw_studies(1, means, sizes, sds)
    p = run_kruskal_wallis(GroupedValues(values, codes)).p
    verdict = judge_columns(GroupedValues(values, codes), np.full(STUDIES, 0.5), p).verdict
    assert np.isin(verdict, [EQUIVALENT, NEGLIGIBLE]).mean() <= HIGHEST
    # A difference that is not beyond the margin is no disparity either.
    assert (verdict == DISPARITY).mean() <= HIGHEST


def test_the_error_is_not_below_five_per_cent_only_because_nothing_is_ever_equivalent():
    values, codes = draw_studies(2, (0, 0.5), (60, 60), (0.6, 0.6))
    verdict = judge_columns(GroupedValues(values, codes), np.full(STUDIES, 0.5), np.ones(STUDIES)).verdict
    assert (verdict == EQUIVALENT).mean() == pytest.approx(0.05, abs=0.01)
    values, codes = draw_studies(3, (0, 0, 0), (60, 60, 60), (0.6, 0.6, 0.6))
    verdict = judge_columns(GroupedValues(values, codes), np.full(STUDIES, 0.5), np.ones(STUDIES)).verdict
    assert (verdict == EQUIVALENT).mean() > 0.9


@pytest.mark.parametrize("margin", [1e-9, 0.1])
@pytest.mark.parametrize(("sizes", "sds"), [((30, 30), (1, 1)), ((12, 60), (2, 1)), ((20, 30, 40, 50), (1, 1, 1, 1))])
def test_groups_alike_are_rarely_called_a_disparity(sizes, sds, margin):
    values, codes = draw_studies(4, (0,) * len(sizes), sizes, sds)
    # Even without any p-value to hold it back (all 0), and the less so with one.
    verdict = judge_columns(GroupedValues(values, codes), np.full(STUDIES, margin), np.zeros(STUDIES)).verdict
    assert (verdict == DISPARITY).mean() <= HIGHEST
    verdict = judge_columns(
        GroupedValues(values, codes), np.full(STUDIES, margin), run_kruskal_wallis(GroupedValues(values, codes)).p
    ).verdict
    assert (verdict == DISPARITY).mean() <= HIGHEST


def test_a_large_difference_is_called_a_disparity():
    values, codes = draw_studies(5, (0, 0, 1.5), (40, 40, 40), (1, 1, 1))
    verdict = judge_columns(
        GroupedValues(values, codes), np.full(STUDIES, 0.5), run_kruskal_wallis(GroupedValues(values, codes)).p
    ).verdict
    assert (verdict == DISPARITY).mean() > 0.9
    values, codes = draw_studies(6, (0, 0.2), (900, 900), (1, 1))
    verdict = judge_columns(
        GroupedValues(values, codes), np.full(STUDIES, 0.5), run_kruskal_wallis(GroupedValues(values, codes)).p
    ).verdict
    assert (verdict == NEGLIGIBLE).mean() > 0.9


def test_choosing_best_and_worst_first_would_be_wrong_more_often():
    # Why all pairs are looked at: four groups alike, tested by their extremes alone.
    values, _ = draw_studies(7, (0, 0, 0, 0), (30,) * 4, (1,) * 4)
    studies = values.reshape(4, 30, STUDIES)
    means = studies.mean(axis=1)
    best, worst = (studies[chosen, :, np.arange(STUDIES)].T for chosen in (means.argmax(axis=0), means.argmin(axis=0)))
    assert (stats.ttest_ind(best, worst, equal_var=False).pvalue <= 0.05).mean() > 0.15


@settings(max_examples=40, deadline=None)
@given(seed=strategies.integers(0, 2**32 - 1), groups=strategies.integers(2, 4))
def test_names_of_groups_and_direction_do_not_matter(seed, groups):
    generator = np.random.default_rng(seed)
    values, codes = make_columns(generator, groups)
    p, margin = generator.choice([0.001, 0.5], 6), generator.uniform(0.1, 3, 6)
    names = np.append(generator.permutation(groups), -1)
    expected = judge_columns(GroupedValues(values, codes), margin, p)
    assert judge_columns(GroupedValues(-values, codes), margin, p).verdict.tolist() == expected.verdict.tolist()
    assert judge_columns(GroupedValues(values, names[codes]), margin, p).verdict.tolist() == expected.verdict.tolist()
    assert set(expected.verdict) <= set(VERDICTS)
    assert (expected.low <= expected.low_equivalence).all() and (expected.high >= expected.high_equivalence).all()


def test_groups_with_a_value_of_their_own_each_differ_but_are_never_equivalent():
    codes = np.repeat([0, 1], 10)
    values = np.column_stack(
        [np.where(codes, 0.95, 0.80), np.where(codes, 0.95, 0.80), np.where(codes, 0.80, 0.81), np.ones(20)]
    )
    found = judge_columns(
        GroupedValues(values, codes), np.array([0.02, 0.02, 0.02, 0.02]), np.array([1e-6, 0.3, 1e-6, np.nan])
    )
    assert found.verdict.tolist() == [DISPARITY, INCONCLUSIVE, DIFFERENCE, INCONCLUSIVE]
    assert found.low[0, 0] == found.high[0, 0] == pytest.approx(-0.15)
    assert np.isnan(found.low[0, 3])


def test_degenerate_columns():
    nan = np.nan
    codes = np.array([0, 0, 0, 1, 1, 1, 2])
    values = np.array([[0.5] * 7, [nan] * 7, [1, 2, 3, nan, nan, nan, nan], [1, 2, 3, 1, 2, 4, 90]]).T
    found = judge_columns(GroupedValues(values, codes), np.full(4, 100.0), np.full(4, np.nan))
    # No variation: nothing known. One group: nothing compared. A group of one is not compared.
    assert found.verdict.tolist() == [INCONCLUSIVE, "", "", EQUIVALENT]
    assert np.isnan(found.detectable).all(), "of three people each no arrangement is rare enough"
    assert np.isfinite(found.difference[:, 3]).tolist() == [True, False, False]
    small = judge_columns(GroupedValues(values, codes), np.full(4, 100.0), np.full(4, np.nan), smallest_group=4)
    assert small.verdict.tolist() == [""] * 4
    empty = judge_columns(GroupedValues(np.empty((0, 2)), np.empty(0, int)), np.ones(2), np.ones(2))
    assert empty.verdict.tolist() == ["", ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": np.array([1.0, 0.0])}, "margin must be above 0"),
        ({"alpha": 0.5}, "alpha must be between"),
        ({"power": 1.0}, "power must be above alpha"),
        ({"power": 0.01}, "power must be above alpha"),
    ],
)
def test_wrong_input_says_what_to_do(rng, change, message):
    given = {"margin": np.ones(2), "p_adjusted": np.ones(2)} | change
    with pytest.raises(SegfairError, match=message):
        judge_columns(
            GroupedValues(rng.random((10, 2)), np.arange(10) % 2), given.pop("margin"), given.pop("p_adjusted"), **given
        )
