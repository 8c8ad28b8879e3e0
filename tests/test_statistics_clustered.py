"""Clustered errors: a dense implementation written from the paper's formulas, closed forms, and how
often nothing is found where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, stats

from helpers.statistics.bootstrap import Resamples
from helpers.statistics.bootstrap_differences import find_difference, find_gap_influence, take_gaps
from helpers.statistics.clustered import ClusteredFit, compare_clustered, find_largest, refer_to_clusters
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.least_squares import LeastSquares


def fit_densely(design, response, clusters, contrast):
    """CR2 and Satterthwaite's degrees of freedom (Pustejovsky & Tipton 2018), whole matrices."""
    n = len(design)
    bread = np.linalg.inv(design.T @ design)
    rest = np.eye(n) - design @ bread @ design.T
    residual, meat, columns = rest @ response, np.zeros((design.shape[1],) * 2), []
    for cluster in np.unique(clusters):
        rows = np.flatnonzero(clusters == cluster)
        own = linalg.pinvh(linalg.sqrtm(rest[np.ix_(rows, rows)]).real)
        score = design[rows].T @ own @ residual[rows]
        meat += np.outer(score, score)
        columns.append(rest[:, rows] @ own @ design[rows] @ bread @ contrast)
    product = np.array(columns) @ np.array(columns).T
    return contrast @ bread @ meat @ bread @ contrast, np.trace(product) ** 2 / (product**2).sum()


@pytest.mark.parametrize("seed", range(5))
def test_errors_and_degrees_of_freedom_are_those_of_the_formulas(seed):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 7, 60)
    design = np.column_stack([np.ones(60), rng.normal(size=60), rng.integers(0, 2, 60)])
    response = rng.normal(size=(60, 2)) + rng.normal(size=7)[clusters][:, None]
    contrasts = np.array([[0.0, 0.0, 1.0], [1.0, -1.0, 0.5]])
    fit = ClusteredFit.decompose(design, clusters)
    estimate, covariance = fit.estimate(response, contrasts)
    np.testing.assert_allclose(estimate, (contrasts @ np.linalg.lstsq(design, response, rcond=None)[0]).T)
    for place, contrast in enumerate(contrasts):
        variance, df = fit_densely(design, response[:, 1], clusters, contrast)
        assert covariance[1, place, place] == pytest.approx(variance, rel=1e-9)
        assert fit.find_df(contrasts)[place] == pytest.approx(df, rel=1e-9)


def test_people_who_are_clusters_of_their_own_give_welchs_error(rng):
    group = np.repeat([0, 1], [12, 30])
    values = rng.normal(size=(42, 1)) * np.where(group == 0, 3.0, 1.0)[:, None]
    found = compare_clustered(GroupedValues(values, group), np.arange(42))
    parts = [values[group == code, 0].var(ddof=1) / (group == code).sum() for code in (0, 1)]
    assert found.squared[0, 0] == pytest.approx(sum(parts))
    # Bell & McCaffrey's degrees of freedom under equal spread, in closed form.
    n = np.array([12.0, 30.0])
    assert found.df[0, 0] == pytest.approx((1 / n).sum() ** 2 / (1 / (n**2 * (n - 1))).sum())


def test_three_groups_have_three_pairs_and_a_trend(rng):
    clusters, group = np.repeat(np.arange(15), 8), np.repeat(np.arange(15) % 3, 8)
    values = rng.normal(size=(120, 4)) + rng.normal(size=15)[clusters][:, None]
    values[:5, 1] = np.nan
    found = compare_clustered(GroupedValues(values, group), clusters)
    means = np.array([[np.nanmean(values[group == code, column]) for column in range(4)] for code in range(3)])
    np.testing.assert_allclose(found.difference, [means[0] - means[1], means[0] - means[2], means[1] - means[2]])
    np.testing.assert_allclose(found.trend[0], (means[2] - means[0]) / 2)
    np.testing.assert_allclose(found.trend[1], -found.difference[1] / np.sqrt(found.squared[1]))
    np.testing.assert_allclose(found.trend[2], found.df[1])
    differences, trends = refer_to_clusters([found], [True])
    alone = 2 * stats.t.sf(np.abs(found.difference) / np.sqrt(found.squared), found.df)
    np.testing.assert_allclose(differences.p[0], 1 - (1 - alone.min(axis=0)) ** 3)
    np.testing.assert_allclose(trends.p[0], alone[1])


def test_whole_clusters_in_equal_numbers_give_the_t_test_of_their_means(rng):
    clusters = np.repeat(np.arange(16), 5)
    values = rng.normal(size=(80, 1)) + rng.normal(size=16)[clusters][:, None]
    found = compare_clustered(GroupedValues(values, (clusters % 2).astype(int)), clusters)
    means = values[:, 0].reshape(16, 5).mean(axis=1)
    alone = stats.ttest_ind(means[::2], means[1::2])
    assert found.difference[0, 0] / np.sqrt(found.squared[0, 0]) == pytest.approx(alone.statistic)
    assert found.df[0, 0] == pytest.approx(14.0)


def test_sites_of_one_kind_do_not_make_a_difference():
    rng, alarms = np.random.default_rng(11), 0
    clusters = np.repeat(np.arange(20), 30)
    group = (clusters < 10).astype(int)
    for _ in range(40):
        values = np.sqrt(0.9) * rng.normal(size=(600, 10)) + np.sqrt(0.1) * rng.normal(size=(20, 10))[clusters]
        found = compare_clustered(GroupedValues(values, group), clusters)
        t = np.abs(found.difference[0]) / np.sqrt(found.squared[0])
        alarms += int((2 * stats.t.sf(t, found.df[0]) <= 0.05).sum())
    assert 0.025 <= alarms / 400 <= 0.08


def test_a_group_that_is_one_institute_is_found():
    assert find_largest(np.repeat([2, 0], [24, 4])) == (2, 24, pytest.approx(28**2 / (24**2 + 4**2)))
    assert find_largest(np.repeat([0, 1, 2, 3], 5)) == (0, 5, pytest.approx(4.0))
    assert find_largest(np.array([-1, -1, 7, -1])) == (7, 1, pytest.approx(4.0)), "unknown: each for itself"
    assert find_largest(np.array([-1, -1])) == (-1, 0, 2.0)


def test_resampled_clusters_hold_the_truth_where_resampled_people_do_not():
    rng, missed = np.random.default_rng(5), {True: 0, False: 0}
    clusters = np.repeat(np.arange(20), 30)
    for group in ((clusters < 10).astype(int), np.tile([0, 1], 300)):
        steep = 0.3 * rng.normal(size=(20, 60))[clusters] * (group - 0.5)[:, None]  # sites differ in their gap too
        values = rng.normal(size=(600, 60)) + 0.33 * rng.normal(size=(20, 60))[clusters] + steep
        grouped, sign = GroupedValues(values, group), np.ones(60)
        best, worst = np.zeros(60, int), np.ones(60, int)
        influence = find_gap_influence(grouped, best, worst, sign)
        gaps = take_gaps(grouped.moments.mean, best, worst, sign)
        for whole in (True, False):
            resamples = Resamples(group, 400, 1, ("a", "b"), clusters if whole else None)
            drawn = take_gaps(resamples.draw_means(values), best, worst, sign)
            found = find_difference(drawn, gaps, influence, resamples)
            missed[whole] += int(((found.low > 0) | (found.high < 0)).sum())
    assert missed[True] <= 12 < 20 <= missed[False], missed  # of 120; 6 are expected


def test_resampled_means_of_clusters_are_those_of_their_people(rng):
    clusters, group = np.array([0, 0, 1, 1, 2, 2, -1]), np.array([0, 0, 1, 1, 0, 1, 1])
    values = rng.normal(size=(7, 3))
    values[2, 1] = np.nan
    resamples = Resamples(group, 50, 3, ("a", "b"), clusters)
    units = {0: [[0, 1]], 1: [[2, 3], [6]], 2: [[4, 5]]}  # within a, within b, mixed: one each is itself
    counts = {
        int(stratum): drawn
        for stratum, _, _, drawn in Resamples(np.array([0, 1, 2, 1]), 50, 3, ("a", "b", "a\x1fb")).draw(
            np.zeros((4, 1))
        )
    }
    found = resamples.draw_means(values)
    for draw in range(50):
        people = [
            one
            for stratum, parts in units.items()
            for times, part in zip(counts[stratum][draw], parts, strict=True)
            for one in part * int(times)
        ]
        for code in (0, 1):
            own = [one for one in people if group[one] == code]
            np.testing.assert_allclose(found[draw, code], np.nanmean(values[own], axis=0))


def test_degrees_of_freedom_of_several_contrasts_are_those_of_their_covariance():
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(12), 10)
    own = rng.normal(size=12)[clusters]
    design = np.column_stack([np.ones(120), own + rng.normal(size=120), own, rng.random(120) < 0.3]).astype(float)
    fit, contrasts = ClusteredFit.decompose(design, clusters), np.eye(4)[1:]
    assert fit.find_joint_df(contrasts[:1]) == pytest.approx(fit.find_df(contrasts)[0])
    # Under the working model: twice the mean, over the variance, of the covariance's elements.
    scale = np.linalg.cholesky(contrasts @ np.linalg.inv(design.T @ design) @ contrasts.T)
    _, covariance = fit.estimate(rng.normal(size=(120, 20_000)), np.linalg.solve(scale, contrasts))
    assert covariance.mean(axis=0) == pytest.approx(np.eye(3), abs=0.03)
    assert fit.find_joint_df(contrasts) == pytest.approx(12 / covariance.var(axis=0).sum(), rel=0.05)
    noise = rng.normal(size=(120, 4000)) + 0.3 * rng.normal(size=(12, 4000))[clusters]
    _, p = fit.test(*fit.estimate(noise, contrasts), contrasts)
    plain = LeastSquares.decompose(design)
    assert (p <= 0.05).mean() < 0.08 < (plain.test(*plain.estimate(noise, contrasts), contrasts)[1] <= 0.05).mean()
