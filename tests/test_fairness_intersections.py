"""Intersections: parity with a mixed model, what shrinks and what does not, who stays hidden, dull
inputs."""

from __future__ import annotations

import itertools
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from statsmodels.tools.sm_exceptions import SingularMatrixWarning

from helpers.fairness.intersections import find_withheld, pool_intersections
from helpers.fairness.tables import CELL_COLUMNS
from helpers.schema import TABLES


def draw_people(rng, n=600):
    return pd.DataFrame(
        {
            "sex": rng.choice(["female", "male"], n),
            "age": rng.choice(["young", "middle", "old"], n, p=[0.5, 0.3, 0.2]),
            "bmi": rng.choice(["thin", "normal", "heavy", "obese"], n, p=[0.1, 0.4, 0.3, 0.2]),
        }
    )


def add_effects(people, rng, between, within):
    """Main effects 0.1 (male) and 0.2 (old), and a random effect of each cell."""
    cell = people.astype(str).agg("/".join, axis=1)
    effects = {name: rng.normal(0, np.sqrt(between)) for name in sorted(cell.unique())}
    main = 0.1 * (people["sex"] == "male") + 0.2 * (people["age"] == "old")
    return (main + cell.map(effects) + rng.normal(0, np.sqrt(within), len(people))).to_numpy()


def test_fit_equals_the_mixed_model_of_statsmodels(rng):
    people = draw_people(rng)
    score = add_effects(people, rng, 0.02, 0.09)
    found = pool_intersections(score[:, None], people, min_group=2)
    row = found.variances.iloc[0]
    table = people.assign(score=score, cell=people.agg("/".join, axis=1))
    for formula, between in (
        ("score ~ sex + age + bmi", row["between_variance"]),
        ("score ~ 1", row["between_variance_null"]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SingularMatrixWarning)  # on its way, the optimiser passes a variance of 0
            fit = smf.mixedlm(formula, table, groups=table["cell"]).fit(reml=True, method="bfgs")
        assert fit.converged
        assert between == pytest.approx(float(fit.cov_re.iloc[0, 0]), rel=1e-4)
        if formula != "score ~ 1":
            assert row["within_variance"] == pytest.approx(fit.scale, rel=1e-5)
            table["fitted"] = fit.fittedvalues
            table["additive"] = fit.predict(table)
    expected = table.groupby(["sex", "age", "bmi"]).agg(
        fitted=("fitted", "first"), additive=("additive", "first"), n=("score", "size"), mean=("score", "mean")
    )
    cells = found.cells.set_index(["sex", "age", "bmi"]).loc[expected.index]
    assert cells["pooled"].to_numpy() == pytest.approx(expected["fitted"].to_numpy(), abs=2e-5)
    assert cells["additive"].to_numpy() == pytest.approx(expected["additive"].to_numpy(), abs=2e-5)
    assert cells["mean"].to_numpy() == pytest.approx(expected["mean"].to_numpy(), abs=1e-12)
    assert cells["n"].tolist() == expected["n"].astype(str).tolist()
    assert row["vpc"] == pytest.approx(row["between_variance"] / (row["between_variance"] + row["within_variance"]))


def test_interaction_test_equals_the_comparison_of_two_linear_models(rng):
    people = draw_people(rng, 400)
    score = add_effects(people, rng, 0.005, 0.09)
    row = pool_intersections(score[:, None], people, min_group=2).variances.iloc[0]
    table = people.assign(score=score, cell=people.agg("/".join, axis=1))
    # Cells of fewer than five people are pooled, and take no part in the test.
    table = table[table.groupby("cell")["score"].transform("size") >= 5]
    assert 0 < len(table) < 400
    additive = smf.ols("score ~ sex + age + bmi", table).fit()
    saturated = smf.ols("score ~ C(cell)", table).fit()
    compared = sm.stats.anova_lm(additive, saturated).iloc[1]
    assert row["f"] == pytest.approx(compared["F"])
    assert row["p_interaction"] == pytest.approx(compared["Pr(>F)"])
    assert (row["df_cells"], row["df_within"]) == (compared["df_diff"], saturated.df_resid)


def test_skewed_scores_in_many_tiny_cells_are_no_interaction(rng):
    codes = rng.integers(0, [5, 3, 2], (90, 3))
    people = pd.DataFrame({name: codes[:, place].astype(str) for place, name in enumerate(("ethnicity", "age", "sex"))})
    cells = people.agg("/".join, axis=1)
    assert cells.nunique() > 25 and (cells.value_counts() < 5).sum() > 15
    errors = np.exp(rng.standard_normal((90, 400)))
    found = pool_intersections(errors, people, min_group=2).variances
    tested = found["p_interaction"].dropna()
    assert (tested < 0.05).mean() < 0.08
    few = pool_intersections(errors[:30, :1], people[:30], min_group=2).variances.iloc[0]
    assert np.isnan(few["p_interaction"]) and "interactions were not tested" in few["note"]


def test_tiny_cells_go_to_the_additive_prediction_and_big_ones_stay(rng):
    groups, score = [], []
    for number, (sex, age) in enumerate(itertools.product(["f", "m"], ["a", "b", "c", "d", "e", "g"])):
        n = 2 if number == 3 else 400
        groups += [(sex, age)] * n
        score += list(0.5 + 0.1 * (sex == "m") + rng.normal(0, 0.05) + rng.normal(0, 0.3, n))
    found = pool_intersections(np.array(score)[:, None], pd.DataFrame(groups, columns=["sex", "age"]), min_group=2)
    cells = found.cells
    tiny, big = cells.iloc[3], cells.drop(index=3)
    assert tiny["weight"] < 0.1 and (big["weight"] > 0.8).all()
    assert abs(tiny["pooled"] - tiny["additive"]) < 0.1 * abs(tiny["mean"] - tiny["additive"]) + 1e-12
    assert (abs(big["pooled"] - big["mean"]) < 0.2 * abs(big["additive"] - big["mean"]) + 1e-12).all()
    assert tiny["high"] - tiny["low"] > 2 * (big["high"] - big["low"]).max()


def test_known_variances_are_recovered_and_intervals_are_true():
    rng = np.random.default_rng(3)
    people = draw_people(rng, 400)
    codes, cells = pd.factorize(people.agg("/".join, axis=1))
    main = 0.1 * (people["sex"] == "male") + 0.2 * (people["age"] == "old")
    true = main.to_numpy()[:, None] + rng.normal(0, 0.1, (len(cells), 150))[codes]
    found = pool_intersections(true + rng.normal(0, 0.3, true.shape), people, min_group=2)
    # REML is nearly unbiased; the standard error of a mean of 150 is some 4 % of τ² and 0.6 % of
    # σ².
    assert found.variances["between_variance"].mean() == pytest.approx(0.01, rel=0.12)
    assert found.variances["within_variance"].mean() == pytest.approx(0.09, rel=0.02)
    shown = found.cells.dropna(subset="pooled")
    truth = pd.DataFrame(true).groupby([people[name] for name in people]).first()
    rows = truth.index.get_indexer(pd.MultiIndex.from_frame(shown[list(people)]))
    truth = truth.to_numpy()[rows, shown["column"]]
    assert 0.93 <= ((shown["low"] <= truth) & (truth <= shown["high"])).mean() <= 0.97


def test_without_interaction_intervals_are_true_and_the_test_keeps_its_level():
    rng = np.random.default_rng(4)
    people = draw_people(rng, 400)
    main = (0.1 * (people["sex"] == "male") + 0.2 * (people["age"] == "old")).to_numpy()
    found = pool_intersections(main[:, None] + rng.normal(0, 0.3, (400, 400)), people, min_group=2)
    assert (found.variances["p_interaction"] < 0.05).mean() == pytest.approx(
        0.05, abs=0.033
    )  # 3 standard errors of 400
    truth = np.tile(0.1 * (found.cells["sex"][:24] == "male") + 0.2 * (found.cells["age"][:24] == "old"), 400)
    seen = found.cells["pooled"].notna()
    inside = (found.cells["low"] <= truth) & (truth <= found.cells["high"])
    assert inside[seen].mean() > 0.94
    assert (found.variances["vpc"] < 0.05).mean() > 0.9


def test_share_unexplained_tells_additive_from_crossed_effects(rng):
    people = draw_people(rng, 2000)
    male, old = people["sex"] == "male", people["age"] == "old"
    additive = (0.3 * male + 0.3 * old).to_numpy() + rng.normal(0, 0.1, 2000)
    crossed = (0.3 * (male ^ old)).to_numpy() + rng.normal(0, 0.1, 2000)
    shares = pool_intersections(np.column_stack([additive, crossed]), people).variances["unexplained_share"]
    assert shares[0] < 0.05 and shares[1] > 0.5


def test_small_cells_show_no_figure(rng):
    people = draw_people(rng, 300)
    found = pool_intersections(rng.uniform(size=(300, 1)), people, min_group=10)
    cells = found.cells
    counts = (
        people.value_counts().reindex(pd.MultiIndex.from_frame(cells[["sex", "age", "bmi"]]), fill_value=0).to_numpy()
    )
    small = counts < 10
    assert small.any() and (cells.loc[small, "n"] == "<10").all()
    figures = cells[["mean", "additive", "pooled", "low", "high", "weight"]]
    assert figures[cells["suppressed"]].isna().all(axis=None)
    assert figures[~cells["suppressed"]].notna().all(axis=None)
    assert (cells.loc[~cells["suppressed"], "n"] == counts[~cells["suppressed"]].astype(str)).all()
    assert cells.loc[small, "suppressed"].all()
    assert f"{int(cells['suppressed'].sum())} of 24 cells are not shown" in found.variances.loc[0, "note"]


def test_a_lone_small_cell_takes_companions_along():
    # Two by two with totals known: one hidden cell would follow by subtraction, and so would two in
    # one row; all four are withheld.
    groups = pd.DataFrame({"sex": ["f"] * 25 + ["m"] * 45, "age": ["y"] * 5 + ["o"] * 20 + ["y"] * 15 + ["o"] * 30})
    found = pool_intersections(np.linspace(0, 1, 70)[:, None], groups, min_group=10).cells
    assert found["suppressed"].all()
    assert sorted(found["n"]) == ["<10", "withheld", "withheld", "withheld"]


def test_three_by_three_needs_a_rectangle_and_takes_the_smallest():
    counts = np.array([3, 20, 30, 25, 40, 50, 60, 70, 80])
    rows, columns = np.divmod(np.arange(9), 3)
    margins = np.vstack([np.arange(3)[:, None] == rows, np.arange(3)[:, None] == columns]).astype(float)
    hidden = find_withheld(counts, margins, 10)
    assert np.flatnonzero(hidden).tolist() == [0, 1, 3, 4]


def test_columns_with_a_few_values_missing_withhold_the_same_cells():
    # Cells of 3, 20 and 21 people beside each other: one person fewer must not swap the companion
    # that hides the 3.
    groups = pd.DataFrame(
        [
            (row, column)
            for row, column, n in zip("aaabbbccc", "xyzxyzxyz", (3, 20, 21, 25, 40, 50, 60, 70, 80), strict=True)
            for _ in range(n)
        ],
        columns=["first", "second"],
    )
    values = np.random.default_rng(0).uniform(size=(len(groups), 2))
    values[30:32, 1] = np.nan  # two of the 21
    hidden = pool_intersections(values, groups).cells.pivot_table("suppressed", "column", ["first", "second"], "first")
    assert hidden.loc[0].tolist() == hidden.loc[1].tolist()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(int, 12, elements=st.integers(0, 30)))
def test_no_hidden_cell_follows_from_the_totals(counts):
    """Whatever is hidden could have been otherwise: another table of the same totals differs in
    every hidden cell."""
    codes = np.indices((2, 3, 2)).reshape(3, -1)
    margins = np.vstack([np.arange(3)[:, None] == codes[axis] for axis in range(3)]).astype(float)
    hidden = find_withheld(counts, margins, 10)
    assert hidden[counts < 10].all()
    if hidden.any():
        for cell in np.flatnonzero(hidden):
            target = np.zeros(12)
            target[cell] = 1
            weights, *_ = np.linalg.lstsq(margins[:, hidden].T, target[hidden], rcond=None)
            assert abs(weights @ margins[:, hidden] - target[hidden]).max() > 1e-6


def test_one_attribute_is_pooled_towards_the_common_mean(rng):
    groups = pd.DataFrame({"age": np.repeat(list("abcdefgh"), 30)})
    score = np.repeat(rng.normal(0, 0.2, 8), 30) + rng.normal(0, 0.3, 240)
    found = pool_intersections(score[:, None], groups)
    row = found.variances.iloc[0]
    assert "common mean" in row["note"] and np.isnan(row["vpc"]) and 0 < row["vpc_null"] < 1
    assert np.ptp(found.cells["additive"]) == pytest.approx(0, abs=1e-12)
    assert np.ptp(found.cells["pooled"]) < np.ptp(found.cells["mean"])


def test_empty_cells_are_listed_and_noted(rng):
    people = draw_people(rng, 400)
    people = people[~((people["sex"] == "male") & (people["age"] == "old"))]
    people["bmi"] = pd.Categorical(people["bmi"], ["thin", "normal", "heavy", "obese", "never"])
    found = pool_intersections(rng.uniform(size=(len(people), 1)), people)
    assert len(found.cells) == 30
    assert (
        found.variances.loc[0, "empty_cells"] == 10
        and "10 of 30 combinations hold nobody" in found.variances.loc[0, "note"]
    )
    assert (found.cells.loc[found.cells["bmi"] == "never", "n"] == "<10").all()
    assert found.cells["bmi"].tolist()[:5] == ["thin", "normal", "heavy", "obese", "never"]
    assert np.isfinite(found.variances.loc[0, "vpc"])


def test_subjects_without_a_group_or_a_value_take_no_part(rng):
    people = draw_people(rng, 300)
    values = rng.uniform(size=(300, 2))
    people.loc[:19, "age"] = None
    values[10:40, 1] = np.nan
    found = pool_intersections(values, people)
    assert found.variances["n"].tolist() == [280, 260]
    alone = pool_intersections(values[40:, 1:], people[40:])
    assert found.variances.loc[1, "between_variance"] == pytest.approx(
        alone.variances.loc[0, "between_variance"], rel=1e-6, abs=1e-12
    )


def test_row_order_does_not_matter(rng):
    people, score = draw_people(rng), rng.uniform(size=600)
    order = rng.permutation(600)
    first = pool_intersections(score[:, None], people)
    second = pool_intersections(score[order, None], people.iloc[order])
    pd.testing.assert_frame_equal(first.cells, second.cells, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "sex", "why"),
    [
        (np.linspace(0, 1, 40), ["f"] * 40, "fewer than two combinations"),
        (np.full(40, np.nan), ["f", "m"] * 20, "fewer than two combinations"),
        (np.linspace(0, 1, 40), [None] * 40, "fewer than two combinations"),
        (np.full(40, 0.5), ["f", "m"] * 20, "same value"),
        (np.tile([0.2, 0.8], 20), ["f", "m"] * 20, "no cell varies"),
        (np.linspace(0, 1, 2), ["f", "m"], "no combination holds two"),
    ],
)
def test_what_cannot_be_fitted_says_why(values, sex, why):
    groups = pd.DataFrame({"sex": pd.Series(sex, dtype=object), "site": "one"})
    found = pool_intersections(values[:, None], groups)
    assert why in found.variances.loc[0, "note"]
    assert found.variances[["between_variance", "within_variance", "vpc", "p_interaction"]].isna().all(axis=None)
    assert found.cells[["mean", "pooled", "low"]].isna().all(axis=None)


def test_nothing_in_nothing_out():
    found = pool_intersections(np.empty((4, 0)), pd.DataFrame({"sex": list("fmfm")}))
    assert (
        list(found.variances.columns) == ["column", *TABLES["intersection_variance"].names[3:]]
        and found.variances.empty
    )
    assert list(found.cells.columns) == ["sex", "column", *CELL_COLUMNS] and found.cells.empty


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(float, (20, 1), elements=st.sampled_from([0.0, 0.5, 1.0, np.nan, np.inf, 0.123])),
    sex=hnp.arrays(object, 20, elements=st.sampled_from(["f", "m", None])),
    age=hnp.arrays(object, 20, elements=st.sampled_from(["a", "b", "c", None])),
)
def test_dull_input_gives_numbers_or_a_note(values, sex, age):
    groups = pd.DataFrame({"sex": pd.Series(sex, dtype=object), "age": pd.Series(age, dtype=object)})
    found = pool_intersections(values, groups, min_group=2)
    row = found.variances.iloc[0]
    assert (
        row["note"]
        or np.isfinite([row["between_variance"], row["within_variance"], row["vpc"], row["p_interaction"]]).all()
    )
    seen = found.cells.dropna(subset="pooled")
    assert ((seen["low"] <= seen["pooled"]) & (seen["pooled"] <= seen["high"])).all()
    assert seen["weight"].between(0, 1).all()


def test_a_study_takes_milliseconds_a_fit(rng):
    people = draw_people(rng, 1056)
    start = time.perf_counter()
    pool_intersections(rng.uniform(size=(1056, 40)), people)
    assert (time.perf_counter() - start) / 40 < 0.06
