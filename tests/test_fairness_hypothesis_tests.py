"""Tests between groups: agreement with scipy and statsmodels, by-hand correction, dull inputs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from helpers.fairness.hypothesis_tests import adjust_p_values, compare_groups


def test_two_groups_agree_with_scipy(rng):
    first, second = rng.normal(0.9, 0.05, 23), rng.normal(0.87, 0.05, 31)
    found = compare_groups([first, second])
    assert found.test == "Mann–Whitney U"
    assert found.p == pytest.approx(stats.mannwhitneyu(first, second).pvalue, rel=1e-9)
    assert found.anova_p == pytest.approx(stats.f_oneway(first, second).pvalue, rel=1e-6)
    assert found.effect == "rank-biserial r"
    assert found.effect_size == pytest.approx(np.sign(first[:, None] - second).mean())


def test_three_groups_agree_with_scipy(rng):
    groups = [rng.normal(mean, 0.05, n).round(2) for mean, n in ((0.9, 12), (0.88, 20), (0.93, 17))]
    found = compare_groups(groups)
    expected = stats.kruskal(*groups)
    assert found.test == "Kruskal–Wallis H"
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.anova_p == pytest.approx(stats.f_oneway(*groups).pvalue, rel=1e-6)
    n = 12 + 20 + 17
    assert (found.effect, found.effect_size) == ("epsilon²", pytest.approx(expected.statistic * (n + 1) / (n**2 - 1)))


def test_rank_biserial_of_separated_groups_is_one():
    assert compare_groups([np.array([4.0, 5, 6]), np.array([1.0, 2, 3])]).effect_size == 1.0
    assert compare_groups([np.array([1.0, 2, 3]), np.array([4.0, 5, 6])]).effect_size == -1.0


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        ([[1.0, 2.0]], "two groups"),
        ([[1.0, 2.0], []], "two groups"),
        ([[1.0], [2.0]], "three subjects"),
        ([[1.0, 1.0], [1.0, 1.0]], "same value"),
    ],
)
def test_what_cannot_be_tested_says_why(groups, why):
    found = compare_groups([np.array(group) for group in groups])
    assert np.isnan(found.p) and np.isnan(found.anova_p) and np.isnan(found.effect_size)
    assert why in found.note


def test_groups_without_variation_within_have_no_anova():
    found = compare_groups([np.ones(5), np.zeros(5)])
    assert 0 < found.p < 0.05 and np.isnan(found.anova_p)


def test_a_group_of_one_is_tested_without_an_error():
    found = compare_groups([np.array([1.0]), np.array([2.0, 3.0, 4.0])])
    assert 0 < found.p <= 1


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
