"""Scores with covariates held equal: against the adjusted means, and against statsmodels' own
partial residuals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from helpers.fairness.adjustment import adjust_gaps
from helpers.fairness.partial_residuals import measure_partial_residuals


@pytest.fixture
def people(rng):
    n = 24
    age = rng.uniform(20, 80, n)
    scanner = np.where(np.arange(n) % 3 == 0, "A", "B")
    sex = np.where(np.arange(n) % 2 == 0, "female", "male")
    score = 0.9 - 0.001 * age + 0.02 * (sex == "male") + 0.01 * (scanner == "A") + rng.normal(0, 0.01, n)
    return pd.DataFrame({"age": age, "scanner": scanner, "sex": sex, "score": score})


def test_by_hand_in_eight_rows():
    # score = group + 0.1 · x exactly; x has mean 1.5, so everybody is brought to x = 1.5: 0.3 +
    # 0.15 or 0.5 + 0.15.
    x = np.array([0.0, 1, 1, 2, 1, 2, 2, 3])
    old = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = measure_partial_residuals(
        0.3 + 0.2 * old + 0.1 * x,
        pd.Series(np.where(old, "old", "young")),
        pd.DataFrame({"x": x}),
        min_group=2,
    )
    np.testing.assert_allclose(found.scores, np.where(old, 0.65, 0.45), atol=1e-12)
    assert (found.covariates, found.dropped, found.n, found.note) == ("x", "", 8, "")


def test_mean_of_a_group_is_its_adjusted_mean(people):
    held = people[["age", "scanner"]]
    found = measure_partial_residuals(people["score"].to_numpy(), people["sex"], held, min_group=5)
    expected = adjust_gaps(people[["score"]].to_numpy(), people["sex"].to_numpy(), held, ["dice"], min_group=5).means
    shown = pd.Series(found.scores).groupby(people["sex"]).mean()
    assert shown.to_dict() == pytest.approx(expected.set_index("group")["mean"].to_dict(), abs=1e-12)


def test_number_against_statsmodels_component_plus_residual(people):
    # 24 people: the curve of age is a straight line, and statsmodels' own fit is the reference.
    found = measure_partial_residuals(people["score"].to_numpy(), people["age"], people[["sex"]], min_group=5)
    design = sm.add_constant(pd.DataFrame({"age": people["age"], "male": (people["sex"] == "male").astype(float)}))
    fit = sm.OLS(people["score"], design).fit()
    expected = fit.resid + fit.params["age"] * people["age"]
    np.testing.assert_allclose(
        found.scores - found.scores.mean(), expected - expected.mean(), atol=1e-10
    )  # a constant is free
    assert found.scores.mean() == pytest.approx(people["score"].mean(), abs=1e-12)


def test_who_takes_no_part_is_missing(people):
    people.loc[3, "age"] = np.nan
    people.loc[5, "score"] = np.nan
    people.loc[7, "sex"] = None
    found = measure_partial_residuals(people["score"].to_numpy(), people["sex"], people[["age"]], min_group=5)
    assert np.flatnonzero(np.isnan(found.scores)).tolist() == [3, 5, 7]
    assert (found.n, found.n_missing) == (21, 1)


def test_too_few_groups_and_too_few_people_are_said(people):
    found = measure_partial_residuals(people["score"].to_numpy(), people["sex"], people[["age"]], min_group=13)
    assert found.note == "nothing was fitted: fewer than two groups are large enough" and np.isnan(found.scores).all()
    few = people.iloc[:8]
    found = measure_partial_residuals(few["score"].to_numpy(), few["age"], few[["sex"]], min_group=10)
    assert found.note.endswith("8 subjects are too few")
