"""Tests between groups: agreement with scipy and statsmodels, adjustment by hand, degenerate
inputs."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pingouin
import pytest
from hypothesis import given, settings, strategies
from scipy import stats
from statsmodels.stats.multitest import multipletests

from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import (
    adjust_p_values,
    compare_pairs_dunn,
    compare_pairs_games_howell,
    run_brunner_munzel,
    run_kruskal_wallis,
    run_mann_whitney,
    run_one_way_anova,
    run_t_test,
    run_welch_anova,
)

EXACT = {"rel": 1e-10, "abs": 1e-12}
DUNN = {
    "none": [
        0.11006716377243618,
        0.005291381709023317,
        0.17133781290013173,
        0.16175696440031462,
        0.9645640196809628,
        0.2537046399644488,
    ],
    "holm": [
        0.5503358188621809,
        0.0317482902541399,
        0.6470278576012585,
        0.6470278576012585,
        0.9645640196809628,
        0.6470278576012585,
    ],
}


@contextmanager
def ignore_pandas_warning():
    """Silence the announcement of a change in pandas that pingouin 0.7 sets off."""
    with warnings.catch_warnings():
        for name in ("Pandas4Warning", "Pandas5Warning"):
            category = getattr(pd.errors, name, None)
            if category is not None:
                warnings.simplefilter("ignore", category)
        yield


def test_holm_by_hand_leaves_out_what_was_not_tested():
    # 4 tests: 0.01 · 4, max(0.04, 0.02 · 3), 0.03 · 2 → 0.06 (not below the one before), 0.5 · 1.
    found = adjust_p_values(np.array([0.03, np.nan, 0.01, 0.5, 0.02]), "holm")
    assert found[[0, 2, 3, 4]] == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert np.isnan(found[1])


@pytest.mark.parametrize("method", ["holm", "fdr_bh"])
def test_corrections_agree_with_statsmodels(rng, method):
    p = rng.random(40) ** 2
    assert adjust_p_values(p, method) == pytest.approx(multipletests(p, method=method)[1])


def test_no_correction_changes_nothing():
    p = np.array([0.03, 0.01])
    assert adjust_p_values(p, "none").tolist() == p.tolist()
    assert np.isnan(adjust_p_values(np.array([np.nan]), "holm")).all()


# Every test below runs on several columns at once: ties, missing values, unequal sizes and spread,
# two to five groups, people without a group. The references see one column at a time.


def make_columns(rng, groups, sizes=(6, 40)):
    codes = rng.permutation(np.repeat(np.arange(-1, groups), rng.integers(*sizes, groups + 1)))
    values = rng.standard_normal((len(codes), 6)) * (1 + np.abs(codes))[:, None] + 0.4 * codes[:, None]
    values[:, 1] = values[:, 1].round(0)
    values[:, 2] = values[:, 2].round(1)
    values[rng.random(len(codes)) < 0.15, 2:4] = np.nan
    values[rng.random(len(codes)) < 0.15, 4] = np.nan
    values[codes == groups - 1, 5] += 2.0
    return values, codes


def split(values, codes, column):
    known = np.isfinite(values[:, column])
    return [values[known & (codes == group), column] for group in range(codes.max() + 1)]


def make_table(parts):
    return pd.DataFrame(
        {"value": np.concatenate(parts), "group": np.repeat(np.arange(len(parts)).astype(str), list(map(len, parts)))}
    )


@pytest.mark.parametrize("groups", [2, 3, 4, 5])
def test_columns_over_all_groups_agree_with_scipy_and_pingouin(rng, groups):
    values, codes = make_columns(rng, groups)
    anova, welch, kruskal = (
        run(GroupedValues(values, codes)) for run in (run_one_way_anova, run_welch_anova, run_kruskal_wallis)
    )  # fmt: skip
    for column in range(values.shape[1]):
        parts = split(values, codes, column)
        theirs = stats.f_oneway(*parts)
        assert (anova.statistic[column], anova.p[column]) == pytest.approx(tuple(theirs), **EXACT)
        assert (anova.df[column], anova.df_error[column]) == (groups - 1, sum(map(len, parts)) - groups)
        theirs = stats.kruskal(*parts)
        assert (kruskal.statistic[column], kruskal.p[column]) == pytest.approx(tuple(theirs), **EXACT)
        with ignore_pandas_warning():
            theirs = pingouin.welch_anova(data=make_table(parts), dv="value", between="group").iloc[0]
        ours = (welch.statistic[column], welch.df_error[column], welch.p[column])
        assert ours == pytest.approx((theirs["F"], theirs["ddof2"], theirs["p_unc"]), **EXACT)
        assert anova.n[column] == welch.n[column] == kruskal.n[column] == sum(map(len, parts))


@pytest.mark.parametrize(("first", "second"), [(0, 1), (2, 0), (1, 2)])
def test_columns_of_two_groups_agree_with_scipy_and_pingouin(rng, first, second):
    values, codes = make_columns(rng, 3)
    welch = run_t_test(GroupedValues(values, codes), first, second)
    mann_whitney = run_mann_whitney(GroupedValues(values, codes), first, second)
    brunner_munzel = run_brunner_munzel(GroupedValues(values, codes), first, second)
    for column in range(values.shape[1]):
        parts = split(values, codes, column)
        pair = parts[first], parts[second]
        theirs = stats.ttest_ind(*pair, equal_var=False)
        ours = (welch.statistic[column], welch.p[column], welch.df_error[column])
        assert ours == pytest.approx((*theirs, theirs.df), **EXACT)
        with ignore_pandas_warning():
            theirs = pingouin.mwu(*pair).iloc[0]
        ours = (mann_whitney.statistic[column], mann_whitney.p[column])
        assert ours == pytest.approx((theirs["U_val"], theirs["p_val"]), **EXACT)
        theirs = stats.brunnermunzel(*pair)
        ours = (brunner_munzel.statistic[column], brunner_munzel.p[column])
        assert ours == pytest.approx(tuple(theirs), **EXACT)


@pytest.mark.parametrize("sizes", [(3, 4), (8, 9), (9, 10)])
def test_small_groups_without_ties_have_an_exact_u_test(rng, sizes):
    values, codes = make_columns(rng, 2, sizes)
    found = run_mann_whitney(GroupedValues(values, codes))
    for column in range(values.shape[1]):
        assert found.p[column] == pytest.approx(stats.mannwhitneyu(*split(values, codes, column)).pvalue, **EXACT)


def test_each_column_may_compare_its_own_groups(rng):
    values, codes = make_columns(rng, 3)
    first, second = np.array([0, 1, 2, 0, 1, 2]), np.array([1, 2, 0, 2, 0, 1])
    for run in (run_t_test, run_mann_whitney, run_brunner_munzel):
        together = run(GroupedValues(values, codes), first, second)
        for column in range(6):
            alone = run(GroupedValues(values[:, [column]], codes), int(first[column]), int(second[column]))
            ours = (together.statistic[column], together.p[column])
            assert ours == pytest.approx((alone.statistic[0], alone.p[0]), **EXACT)


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_games_howell_agrees_with_pingouin(rng, groups):
    values, codes = make_columns(rng, groups)
    values = values[:, [1, 3]]
    found = compare_pairs_games_howell(GroupedValues(values, codes))
    for column in range(2):
        with ignore_pandas_warning():
            theirs = pingouin.pairwise_gameshowell(
                data=make_table(split(values, codes, column)), dv="value", between="group"
            )
        for name, ours in (("diff", found.difference), ("T", found.statistic), ("df", found.df), ("pval", found.p)):
            assert ours[:, column] == pytest.approx(theirs[name].to_numpy(float), **EXACT)


def test_dunn_agrees_with_scikit_posthocs():
    # scikit_posthocs 0.17.1: posthoc_dunn([[1, 2, 2, 3, 5], [2, 4, 4, 6, 7, 7], [5, 8, 8, 9], [3,
    # 3, 10]], p_adjust=None), and "holm"
    parts = [[1, 2, 2, 3, 5], [2, 4, 4, 6, 7, 7], [5, 8, 8, 9], [3, 3, 10]]
    values, codes = np.concatenate(parts)[:, None], np.repeat(np.arange(4), [5, 6, 4, 3])
    found = compare_pairs_dunn(GroupedValues(values, codes))
    assert list(zip(found.first, found.second, strict=True)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert 2 * stats.norm.sf(abs(found.statistic[:, 0])) == pytest.approx(DUNN["none"], **EXACT)
    assert found.p[:, 0] == pytest.approx(DUNN["holm"], **EXACT)


@pytest.mark.parametrize("groups", [2, 4])
def test_dunn_agrees_with_its_formula(rng, groups):
    values, codes = make_columns(rng, groups)
    found = compare_pairs_dunn(GroupedValues(values, codes))
    for column in range(values.shape[1]):
        parts = split(values, codes, column)
        pool = np.concatenate(parts)
        ranks = np.split(stats.rankdata(pool), np.cumsum(list(map(len, parts)))[:-1])
        n = len(pool)
        ties = np.unique(pool, return_counts=True)[1]
        spread = n * (n + 1) / 12 - (ties**3 - ties).sum() / (12 * (n - 1))
        for pair, (a, b) in enumerate(zip(found.first, found.second, strict=True)):
            z = (ranks[a].mean() - ranks[b].mean()) / np.sqrt(spread * (1 / len(ranks[a]) + 1 / len(ranks[b])))
            assert found.statistic[pair, column] == pytest.approx(z, **EXACT)


def test_two_groups_have_one_answer(rng):
    values, codes = make_columns(rng, 2)
    assert run_welch_anova(GroupedValues(values, codes)).p == pytest.approx(
        run_t_test(GroupedValues(values, codes)).p, **EXACT
    )
    assert compare_pairs_games_howell(GroupedValues(values, codes)).p[0] == pytest.approx(
        run_t_test(GroupedValues(values, codes)).p, **EXACT
    )
    assert compare_pairs_dunn(GroupedValues(values, codes)).p[0] == pytest.approx(
        run_kruskal_wallis(GroupedValues(values, codes)).p, **EXACT
    )


def test_a_group_without_values_takes_no_part(rng):
    values, codes = make_columns(rng, 3)
    values[codes == 1, 0] = np.nan
    two = np.where(codes == 2, 1, np.where(codes == 1, -1, codes))
    for run in (run_one_way_anova, run_welch_anova, run_kruskal_wallis):
        found, expected = run(GroupedValues(values, codes)), run(GroupedValues(values, two))
        assert found.p[0] == pytest.approx(expected.p[0], **EXACT) and found.df[0] == 1
    games_howell = compare_pairs_games_howell(GroupedValues(values, codes)).p[:, 0]
    assert np.isnan(games_howell).tolist() == [True, False, True]
    assert games_howell[1] == pytest.approx(run_t_test(GroupedValues(values, codes), 0, 2).p[0], **EXACT)


def test_what_cannot_be_tested_is_nan():
    codes = np.array([0, 0, 0, 1, 1, 1, -1])
    nan = np.nan
    values = np.array(
        [
            [0.1] * 7,  # one value
            [nan] * 7,
            [1, 2, 3, nan, nan, nan, 4],  # one group
            [0.1, 0.1, 0.1, 0.3, 0.3, 0.3, 9],  # no variation within
        ]
    ).T
    for run in (run_one_way_anova, run_welch_anova, run_t_test, run_brunner_munzel):
        assert (
            np.isnan(run(GroupedValues(values, codes)).p).all()
            and np.isnan(run(GroupedValues(values, codes)).statistic).all()
        )
    for run in (run_kruskal_wallis, run_mann_whitney):
        assert np.isnan(run(GroupedValues(values, codes)).p).tolist() == [True, True, True, False]
    assert np.isnan(compare_pairs_games_howell(GroupedValues(values, codes)).p).all()
    assert np.isnan(compare_pairs_dunn(GroupedValues(values, codes)).p).tolist() == [[True, True, True, False]]
    nobody = np.full(7, -1)
    for run in (run_one_way_anova, run_welch_anova, run_kruskal_wallis, run_t_test, run_mann_whitney):
        assert np.isnan(run(GroupedValues(values, nobody)).p).all()
    assert compare_pairs_dunn(GroupedValues(values, nobody)).p.shape == (0, 4)
    assert run_kruskal_wallis(GroupedValues(np.empty((0, 2)), np.empty(0, int))).p.shape == (2,)


def test_a_group_of_one_has_an_anova_and_no_welch_test():
    one = GroupedValues(np.array([[1.0], [2.0], [3.0], [5.0]]), np.array([0, 0, 0, 1]))
    assert run_one_way_anova(one).p == pytest.approx(stats.f_oneway([1.0, 2.0, 3.0], [5.0]).pvalue)
    assert 0 < run_mann_whitney(one).p[0] <= 1
    assert np.isnan(run_t_test(one).p[0]) and np.isnan(run_welch_anova(one).p[0])


@settings(max_examples=30, deadline=None)
@given(seed=strategies.integers(0, 2**32 - 1), groups=strategies.integers(2, 5))
def test_order_of_people_and_names_of_groups_do_not_matter(seed, groups):
    generator = np.random.default_rng(seed)
    values, codes = make_columns(generator, groups)
    order = generator.permutation(len(codes))
    names = np.append(generator.permutation(groups), -1)
    for run in (run_one_way_anova, run_welch_anova, run_kruskal_wallis):
        expected = run(GroupedValues(values, codes))
        assert run(GroupedValues(values[order], codes[order])).p == pytest.approx(expected.p, rel=1e-9)
        assert run(GroupedValues(values, names[codes])).p == pytest.approx(expected.p, rel=1e-9)
