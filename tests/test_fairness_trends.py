"""Trends: parity with statsmodels and patsy, the simultaneous band's coverage, what is shown of
whom, degenerate inputs."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import patsy
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from helpers.fairness.trends import CURVE_COLUMNS, TREND_COLUMNS, fit_trends
from helpers.statistics.splines import build_natural_spline, place_knots


def nothing(n):
    return pd.DataFrame(index=range(n))


def test_curve_tests_and_slope_equal_statsmodels_with_patsy(rng):
    n = 180
    age = rng.uniform(20, 80, n)
    sex = rng.choice(["f", "m"], n)
    score = 0.9 - 0.00005 * (age - 40) ** 2 + 0.01 * (sex == "m") + rng.normal(0, 0.001, n) * age
    found = fit_trends(score[:, None], age, pd.DataFrame({"sex": sex}), seed=1, step=10)
    curve, row = found.curves, found.tests.iloc[0]
    knots = place_knots(age, 4)
    basis = "cr(x, knots=inner, lower_bound=low, upper_bound=high) - 1"
    names = {"inner": knots[1:-1], "low": knots[0], "high": knots[-1]}
    spline = patsy.dmatrix(basis, {"x": age} | names)
    centred = (sex == "m") - (sex == "m").mean()
    fit = sm.OLS(score, np.column_stack([np.asarray(spline), centred])).fit(cov_type="HC3", use_t=True)
    points = np.column_stack([np.asarray(patsy.dmatrix(basis, {"x": curve["value"].to_numpy()} | names)), np.zeros(41)])
    expected = fit.t_test(points)
    assert row["df_spline"] == 4 and row["df_residual"] == fit.df_resid
    assert curve["estimate"].to_numpy() == pytest.approx(expected.effect, abs=1e-8)
    assert curve[["low", "high"]].to_numpy() == pytest.approx(expected.conf_int(), abs=1e-8)
    # No trend: the cardinal spline's coefficients are its heights at the knots, all equal. No bend:
    # the heights lie on a line.
    equal = np.column_stack([np.diff(np.eye(5), axis=0), np.zeros(4)])
    trend = fit.f_test(equal)
    assert row["f_trend"] == pytest.approx(float(trend.fvalue), rel=1e-7)
    assert row["p_trend"] == pytest.approx(float(trend.pvalue), rel=1e-5)
    steepness = equal / np.append(np.diff(knots), 1)[:4, None]
    bend = fit.f_test(np.diff(steepness, axis=0))
    assert row["f_bend"] == pytest.approx(float(bend.fvalue), rel=1e-7)
    assert row["p_nonlinear"] == pytest.approx(float(bend.pvalue), rel=1e-5)
    line = sm.OLS(score, np.column_stack([np.ones(n), age / 10, centred])).fit(cov_type="HC3", use_t=True)
    assert row["slope"] == pytest.approx(line.params[1], abs=1e-8)
    assert row[["slope_low", "slope_high"]].tolist() == pytest.approx(line.conf_int()[1].tolist(), abs=1e-8)
    assert row["slope_p"] == pytest.approx(line.pvalues[1], rel=1e-6)


@pytest.mark.parametrize(
    "truth",
    [
        lambda age: 0.9 - 0.001 * age,
        lambda age: 0.9 - 0.00003 * (age - 30) ** 2,
    ],
    ids=["line", "parabola"],
)
def test_simultaneous_band_holds_the_whole_curve(truth):
    """1200 cohorts each; the Monte-Carlo standard error of a coverage of 95 % is 0.6 %."""
    rng = np.random.default_rng(5)
    covered, pointwise = [], []
    for _ in range(24):
        n = 150
        age = rng.uniform(20, 80, n)
        values = truth(age)[:, None] + (0.02 + 0.0004 * age)[:, None] * rng.normal(size=(n, 50))
        curve = fit_trends(values, age, nothing(n), seed=2).curves
        true = truth(curve["value"].to_numpy())
        inside = (curve["band_low"] <= true) & (true <= curve["band_high"])
        covered.append(inside.groupby(curve["column"]).all())
        pointwise.append(((curve["low"] <= true) & (true <= curve["high"])).groupby(curve["column"]).all())
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(pointwise) < 0.9  # the pointwise intervals make no such promise


def test_reach_of_the_band_is_the_quantile_of_the_largest_t(rng):
    # Of a straight line over a wide range the largest |t| is known: Scheffé's √(2 F) bounds it from
    # above, the ends' union from below.
    few = rng.uniform(-1, 1, 25)  # too few for a bend
    row = fit_trends(rng.normal(size=(25, 1)), few, nothing(25), seed=0).tests.iloc[0]
    assert row["reach"] == pytest.approx(stats.t.ppf(0.975, 23))
    assert row["reach"] < row["reach_band"] < np.sqrt(2 * stats.f.ppf(0.95, 2, 23))
    # And by plain simulation for a spline: points of the curve under a multivariate t.
    x = rng.uniform(-1, 1, 100)
    design = np.column_stack([np.ones(100), build_natural_spline(x, place_knots(x, 4))])
    response = rng.normal(size=100)
    found = fit_trends(response[:, None], x, nothing(100), seed=0)
    covariance = sm.OLS(response, design).fit(cov_type="HC3").cov_params()
    points = np.column_stack([np.ones(41), build_natural_spline(found.curves["value"].to_numpy(), place_knots(x, 4))])
    spread = np.sqrt(np.einsum("gi,ij,gj->g", points, covariance, points))
    draws = rng.multivariate_normal(np.zeros(5), covariance, 100_000) @ points.T / spread
    largest = np.abs(draws).max(axis=1) / np.sqrt(rng.chisquare(95, 100_000) / 95)
    assert found.tests.loc[0, "reach_band"] == pytest.approx(np.quantile(largest, 0.95), abs=0.03)


def test_tests_keep_their_level_and_the_slope_its_interval():
    rng = np.random.default_rng(8)
    trend, bend, slope = [], [], []
    for _ in range(24):
        n = 120
        bmi = rng.normal(27, 5, n)
        age = 50 + bmi + rng.normal(0, 8, n)
        values = 0.9 - 0.003 * bmi[:, None] + 0.02 * rng.standard_t(6, size=(n, 50))
        adjusted = fit_trends(values, age, pd.DataFrame({"bmi": bmi}), seed=1).tests  # age itself does nothing
        trend.append((adjusted["p_trend"] < 0.05).mean())
        crude = fit_trends(values, bmi, nothing(n), seed=1, step=5).tests  # a straight line
        bend.append((crude["p_nonlinear"] < 0.05).mean())
        slope.append(((crude["slope_low"] <= -0.015) & (crude["slope_high"] >= -0.015)).mean())
    assert np.mean(trend) <= 0.06 and np.mean(bend) <= 0.06  # 1200 tests: the standard error is 0.6 %
    assert 0.93 <= np.mean(slope) <= 0.97


def test_a_bend_is_found_and_the_line_misses_it(rng):
    age = rng.uniform(20, 80, 300)
    score = 0.9 - 0.0002 * (age - 50) ** 2 + rng.normal(0, 0.02, 300)
    row = fit_trends(score[:, None], age, nothing(300), seed=0, step=10).tests.iloc[0]
    assert row["p_trend"] < 1e-6 and row["p_nonlinear"] < 1e-6
    assert abs(row["slope"]) < 0.02


def test_slope_is_stated_per_step(rng):
    bmi = rng.uniform(18, 40, 90)
    score = 0.5 + 0.01 * bmi + rng.normal(0, 1e-6, 90)
    rows = [fit_trends(score[:, None], bmi, nothing(90), seed=0, step=step).tests.iloc[0] for step in (1, 5)]
    assert [row["slope"] for row in rows] == pytest.approx([0.01, 0.05], rel=1e-3)


def test_a_confounder_is_taken_out(rng):
    bmi = rng.normal(27, 4, 400)
    age = 20 + bmi + rng.normal(0, 4, 400)
    score = 0.9 - 0.01 * bmi + rng.normal(0, 0.02, 400)
    crude = fit_trends(score[:, None], age, nothing(400), seed=0).tests.iloc[0]
    adjusted = fit_trends(score[:, None], age, pd.DataFrame({"bmi": bmi}), seed=0).tests.iloc[0]
    assert crude["slope"] == pytest.approx(-0.005, abs=0.001)
    assert abs(adjusted["slope"]) < 0.001 and adjusted["covariates"] == "bmi"


def test_the_attribute_in_other_units_is_dropped_from_the_covariates(rng):
    age = rng.uniform(20, 80, 100)
    found = fit_trends(rng.uniform(size=(100, 1)), age, pd.DataFrame({"months": age * 12}), seed=0).tests.iloc[0]
    assert found["covariates"] == "" and "months: collinear with the attribute" in found["dropped"]


def test_the_curve_shows_no_person(rng):
    # 81 people: the 2.5 % quantile is the third youngest person's own age.
    age = np.sort(rng.uniform(20, 80, 81))
    curve = fit_trends(rng.uniform(size=(81, 1)), age, nothing(81), seed=0, min_group=6).curves
    assert not np.isin(curve["value"].round(9), age.round(9)).any()
    assert age[2] <= curve["value"].min() and curve["value"].max() <= age[-3]
    counts = curve["nearby"].dropna()
    assert (counts >= 6).all() and len(counts) < len(curve)  # tenths hold some 8 people, a few of them fewer than 6
    edges = np.linspace(curve["value"].min(), curve["value"].max(), 11)
    assert curve["nearby"].iloc[20] in (np.histogram(age, edges)[0][5], pd.NA)


def test_equal_seeds_give_equal_bands_whatever_the_order_of_columns(rng):
    age = rng.uniform(20, 80, 90)
    values = rng.uniform(size=(90, 3))
    values[:4, 2] = np.nan
    first = fit_trends(values, age, nothing(90), seed=3)
    second = fit_trends(values[:, ::-1], age, nothing(90), seed=3)
    for column in range(3):
        one = first.curves[first.curves["column"] == column].drop(columns="column").reset_index(drop=True)
        two = second.curves[second.curves["column"] == 2 - column].drop(columns="column").reset_index(drop=True)
        pd.testing.assert_frame_equal(one, two)
    third = fit_trends(values, age, nothing(90), seed=4)
    assert third.tests["reach_band"].tolist() != first.tests["reach_band"].tolist()
    assert (first.tests["reach_band"] > first.tests["reach"]).all()


def test_fewer_subjects_get_a_plainer_curve(rng):
    found = {}
    for n in (20, 40, 60, 120):
        found[n] = fit_trends(rng.uniform(size=(n, 1)), rng.uniform(20, 80, n), nothing(n), seed=0).tests.iloc[0]
    assert [row["df_spline"] for row in found.values()] == [1, 2, 3, 4]
    assert "straight line" in found[20]["note"] and np.isnan(found[20]["p_nonlinear"]) and found[20]["p_trend"] > 0
    two_values = np.repeat([30.0, 60.0], 60)
    row = fit_trends(rng.uniform(size=(120, 1)), two_values, nothing(120), seed=0).tests.iloc[0]
    assert row["df_spline"] == 1 and np.isfinite(row["slope"])


def test_where_people_of_one_value_all_score_alike_there_is_no_interval(rng):
    age = np.repeat([30.0, 60.0], 20)
    score = np.where(age == 30, 0.8, rng.uniform(size=40))
    curve = fit_trends(score[:, None], age, nothing(40), seed=0).curves
    assert curve["estimate"].iloc[0] == pytest.approx(0.8)
    assert curve[["low", "band_low"]].isna().all(axis=1).tolist() == [True] + [False] * 40


@pytest.mark.parametrize(
    ("values", "age", "why"),
    [
        (np.linspace(0, 1, 40), np.full(40, 50.0), "same value of the attribute"),
        (np.linspace(0, 1, 40) ** 2, np.append(np.full(39, 50.0), 51), "same value of the attribute"),
        (np.linspace(0, 1, 40), np.full(40, np.nan), "0 subjects are too few"),
        (np.full(40, np.nan), np.arange(40.0), "0 subjects are too few"),
        (np.linspace(0, 1, 6), np.arange(6.0), "6 subjects are too few"),
        (np.full(40, 0.5), np.arange(40.0), "every subject has the same value"),
        (np.linspace(0, 1, 40), np.arange(40.0), "passes through every value"),
    ],
)
def test_what_cannot_be_fitted_says_why(values, age, why):
    found = fit_trends(values[:, None], age, nothing(len(age)), seed=0)
    row = found.tests.iloc[0]
    assert why in row["note"]
    assert row[["p_trend", "p_nonlinear", "slope", "slope_low", "slope_p"]].isna().all()
    assert found.curves.empty and list(found.curves.columns) == CURVE_COLUMNS


def test_more_parameters_than_the_subjects_bear(rng):
    covariates = pd.DataFrame(rng.normal(size=(12, 7)), columns=list("abcdefg"))
    row = fit_trends(rng.uniform(size=(12, 1)), rng.uniform(size=12), covariates, seed=0).tests.iloc[0]
    assert "too few for" in row["note"] or row["dropped"]


def test_nothing_in_nothing_out():
    found = fit_trends(np.empty((4, 0)), np.arange(4.0), nothing(4), seed=0)
    assert found.tests.empty and list(found.tests.columns) == TREND_COLUMNS


@settings(max_examples=50, deadline=None)
@given(
    values=hnp.arrays(float, (40, 2), elements=st.sampled_from([0.0, 0.5, 1.0, np.nan, np.inf, 0.123])),
    age=hnp.arrays(float, 40, elements=st.sampled_from([1.0, 2.0, 3.5, 4.0, 9.0, np.nan])),
)
def test_degenerate_input_gives_a_curve_or_a_note(values, age):
    found = fit_trends(values, age, nothing(40), seed=0)
    assert len(found.tests) == 2
    for row in found.tests.itertuples():
        curve = found.curves[found.curves["column"] == row.column]
        if np.isnan(row.slope):
            assert row.note and curve.empty
        else:
            assert np.isfinite(curve[["value", "estimate"]].to_numpy(float)).all()
            sure = curve.dropna(subset="low")
            assert (sure["band_low"] <= sure["low"]).all() and (sure["high"] <= sure["band_high"]).all()


def test_a_study_takes_milliseconds_a_fit(rng):
    n = 1056
    covariates = pd.DataFrame({"bmi": rng.normal(size=n), "sex": rng.choice(["f", "m"], n)})
    start = time.perf_counter()
    fit_trends(rng.uniform(size=(n, 120)), rng.uniform(20, 80, n), covariates, seed=0)
    assert (time.perf_counter() - start) / 120 < 0.05
