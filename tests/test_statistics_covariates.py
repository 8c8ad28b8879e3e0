"""Covariates of a fit: who is left out for which, what is dropped and why, and what the audit says
of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.linalg import hadamard

from helpers.statistics.covariates import (
    code_groups,
    encode_covariates,
    fit_with_covariates,
    read_labels,
    split_covariates,
)
from tests.test_fairness_adjustment import make_cohort


def fit(people: pd.DataFrame, names: list[str], min_group: int = 1):
    """Fit the covariates beside the groups of sex."""
    labels = read_labels(people["sex"].to_numpy(object))
    everybody, encoded = np.array([label is not None for label in labels]), encode_covariates(people[names])
    return fit_with_covariates(
        everybody, encoded, lambda rows: code_groups(labels[rows]), "the groups", labels, min_group
    )


def test_covariates_are_encoded_by_hand():
    table = pd.DataFrame({"age": [1.0, np.inf, 3.0], "site": ["b", None, "a"], "flag": [True, False, True]})
    age, site, flag = encode_covariates(table)
    assert age.levels is None and age.known.tolist() == [True, False, True]
    assert site.levels == ("a", "b") and site.numbers[[0, 2]].tolist() == [1.0, 0.0] and np.isnan(site.numbers[1])
    assert flag.levels == ("False", "True")


def test_nobody_is_left_out_for_a_covariate_that_is_not_used(rng):
    people = make_cohort(rng)
    people["half"] = np.where(np.arange(160) < 100, np.nan, rng.normal(size=160))
    people["fixed"] = np.where(np.arange(160) < 20, np.nan, 1.0)
    people["twin"] = np.where(np.arange(160) < 30, np.nan, people["age"] * 2)
    found = fit(people, ["age", "half", "fixed", "twin"])
    said = found.describe()
    assert said["n"] == 160 and said["n_missing"] == 0 and said["covariates"] == "age"
    reasons = {use.name: use.reason for use in found.uses}
    assert list(reasons) == ["age", "half", "fixed", "twin"]
    assert reasons["half"] == "known for 38% of the subjects only"
    assert reasons["fixed"] == "constant"
    assert "collinear with other covariates" in reasons["twin"]


def test_covariates_that_together_cost_most_people_are_dropped_one_by_one(rng):
    people = make_cohort(rng)
    people.loc[rng.random(160) < 0.35, "bmi"] = np.nan
    people.loc[rng.random(160) < 0.40, "site"] = None
    found = fit(people, ["age", "bmi", "site"])
    assert found.used == ["age", "bmi"] and found.rows.sum() == people["bmi"].notna().sum()
    share = people["site"].notna().mean()
    reasons = {use.name: use.reason for use in found.uses}
    assert reasons["site"] == f"known for {share:.0%} of the subjects: too few would be left with everything known"


def test_what_cannot_be_told_from_the_groups_is_marked(rng):
    people = make_cohort(rng)
    people["weight"] = (people["sex"] == "male") * 20.0 + rng.normal(0, 1, 160)
    people["months"] = people["age"] * 12
    found = {use.name: use for use in fit(people, ["weight", "age", "months"]).uses}
    assert found["weight"].reason.startswith("collinear with the groups")
    assert [found[name].mimics_base for name in ("weight", "age", "months")] == [True, False, False]


def test_inflation_is_the_usual_one(rng):
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    n = 40  # too few for splines
    group = np.repeat(["a", "b"], n // 2)
    first = rng.normal(size=n) + (group == "a")
    second = first + 0.2 * rng.normal(size=n)
    found = fit(pd.DataFrame({"sex": group, "first": first, "second": second}), ["first", "second"]).uses
    assert [use.form for use in found] == ["line", ""]
    design = np.column_stack([np.ones(n), group == "b", first, second]).astype(float)
    assert f"(variance inflation {variance_inflation_factor(design, 3):.3g} exceeds 10)" in found[1].reason


def test_names_that_were_joined_are_parted_again(rng):
    said = fit(make_cohort(rng), ["age", "bmi", "site"]).describe()
    assert split_covariates(said["covariates"]) == ["age", "bmi", "site"] and split_covariates("") == []


def test_a_group_too_small_takes_no_part_and_too_few_people_are_told(rng):
    people = make_cohort(rng, 30)
    people["sex"] = ["female"] * 14 + ["male"] * 12 + ["other"] * 4
    found = fit(people, ["age"], min_group=5)
    assert found.rows.sum() == 26 and found.base.shape == (26, 2) and found.tell_shortage() == ""
    np.testing.assert_allclose(found.columns.mean(axis=0), 0, atol=1e-12)
    few = people.iloc[10:18].assign(**{f"x{place}": hadamard(8)[:, place] for place in (1, 2, 3)})
    assert fit(few, ["x1", "x2", "x3"]).tell_shortage("people") == "8 people are too few for 5 parameters"
    assert fit(people[people["sex"] == "male"], ["age"]).base is None


def test_a_covariate_that_nobody_shares_is_not_called_constant():
    names = pd.DataFrame({"id": [f"p{place}" for place in range(20)]})
    fit = fit_with_covariates(
        np.ones(20, bool), encode_covariates(names), lambda rows: np.ones((rows.sum(), 1)), "the groups"
    )
    assert [use.reason for use in fit.uses] == ["no value is shared by 5 subjects"]
