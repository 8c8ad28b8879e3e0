"""Least squares with HC3 errors and Wald tests: parity with statsmodels; columns that share who has
a value."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from helpers.statistics.least_squares import LeastSquares, find_wald_f, split_by_missing


def test_least_squares_and_hc3_equal_statsmodels(rng):
    design = np.column_stack([np.ones(80), rng.normal(size=(80, 4))])
    responses = rng.normal(size=(80, 3)) * (1 + np.abs(design[:, 1:2]))
    contrasts = np.array([[0.0, 1, -1, 0, 0], [0, 0, 0, 1, 0]])
    estimates, covariance = LeastSquares.decompose(design).estimate(responses, contrasts)
    for column in range(3):
        fit = sm.OLS(responses[:, column], design).fit(cov_type="HC3")
        assert estimates[column] == pytest.approx(contrasts @ fit.params, abs=1e-8)
        assert covariance[column] == pytest.approx(contrasts @ fit.cov_params() @ contrasts.T, rel=1e-8, abs=1e-12)


def test_wald_f_equals_statsmodels(rng):
    design = np.column_stack([np.ones(60), rng.normal(size=(60, 3))])
    responses = rng.normal(size=(60, 2))
    chosen = np.eye(4)[1:]
    solver = LeastSquares.decompose(design)
    f, p = find_wald_f(*solver.estimate(responses, chosen), solver.df_residual)
    for column in range(2):
        theirs = sm.OLS(responses[:, column], design).fit(cov_type="HC3", use_t=True).f_test(chosen)
        assert (f[column], p[column]) == pytest.approx((theirs.fvalue, theirs.pvalue), rel=1e-8)
    assert np.isnan(find_wald_f(np.ones((1, 2)), np.zeros((1, 2, 2)), 5)[0]).all()


def test_a_response_that_the_design_reproduces_is_found(rng):
    design = np.column_stack([np.ones(20), np.arange(20.0)])
    responses = np.column_stack([3 + 2 * np.arange(20.0), rng.normal(size=20)])
    assert LeastSquares.decompose(design).find_exact(responses).tolist() == [True, False]


def test_columns_of_the_same_people_come_together():
    values = np.array([[1.0, 2.0, 3.0], [np.nan, 1.0, np.nan], [4.0, 5.0, 6.0]])
    found = [(known.tolist(), places.tolist()) for known, places in split_by_missing(values)]
    assert found == [([True, False, True], [0, 2]), ([True, True, True], [1])]


def test_a_variance_of_rounding_alone_is_singular():
    f, p = find_wald_f(np.array([[4e-17], [1.0]]), np.array([[[-3e-52]], [[0.25]]]), 20)
    assert np.isnan(f[0]) and np.isnan(p[0]) and f[1] == pytest.approx(4.0)
