"""The audit as a whole, on tables whose answer is seen by eye."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from helpers import fairness
from helpers.errors import SegfairError
from helpers.fairness.families import name_family
from helpers.fairness.tables import CELL_COLUMNS, join_notes
from helpers.parameters import Fairness, RelativeMargin
from helpers.performance import AUDIT_TABLES
from helpers.schema import TABLES
from helpers.statistics import grouped_values
from helpers.vocabulary.verdicts import Verdict, read_verdict
from helpers.vocabulary.words import ALL_MODELS, DECIDING_TEST
from tests.test_fairness_groups import make_cohort, make_metrics

SIX = Fairness(metrics=["dice"], min_group=3, bootstrap=500, permutations=1000)


def make_six(sex=("female",) * 3 + ("male",) * 3, liver=(0.70, 0.80, 0.90, 0.90, 0.95, 1.00)):
    cohort = make_cohort(sex=list(sex))
    return make_metrics(cohort, liver=list(liver)), cohort


def test_six_people_by_eye():
    found = fairness.run_audit(*make_six(), SIX, ["sex"], 1)
    groups = found.groups.set_index("group")
    assert groups["n"].to_dict() == {"female": 3, "male": 3}
    assert groups["mean"].to_dict() == pytest.approx({"female": 0.8, "male": 0.95})
    assert groups["sd"].to_dict() == pytest.approx({"female": 0.1, "male": 0.05})
    assert groups["median"].to_dict() == pytest.approx({"female": 0.8, "male": 0.95})
    assert groups["q1"].to_dict() == pytest.approx({"female": 0.75, "male": 0.925})
    assert not groups["suppressed"].any()
    # 1 draw in 27 is one end's person three times, without any spread: the limit, twice Student's
    # 4.303 with 2 degrees of freedom.
    assert groups.loc["female", "ci_low"] == pytest.approx(0.8 - 2 * 4.303 * 0.1 / np.sqrt(3), abs=1e-3)
    assert groups.loc["female", "ci_high"] == 1.0  # Dice ends there
    [row] = found.disparity.to_dict("records")
    assert (row["n"], row["groups"], row["best_group"], row["worst_group"]) == (6, 2, "male", "female")
    assert row["gap"] == pytest.approx(0.15)
    # Symmetric; Welch's interval of so few is ±0.207.
    assert row["gap_high"] - 0.15 == pytest.approx(0.15 - row["gap_low"]) and 0.15 < row["gap_high"] - 0.15 < 0.42
    assert row["es"] == pytest.approx(0.875 / 1.15)
    assert row["ser"] == pytest.approx(0.2 / 0.05)
    # 9 pairs: male wins 8, one tie at 0.90.
    assert row["effect_size"] == pytest.approx(8 / 9)
    assert row["p"] == row["p_adjusted"]
    assert row["margin"] == 0.02
    assert "expected_gap" not in found.disparity, "not computed without dice_expected, so not there"
    assert found.families == {"sex · dice": [("m", "liver", "dice", "sex")]}
    assert row["test"] == "studentised permutation test" and row["family"] == "sex · dice"


def test_no_gap_of_a_score_is_said_to_be_possible_beyond_its_range():
    found = fairness.run_audit(*make_six(liver=(0.0, 0.9, 0.0, 0.9, 0.9, 1.0)), SIX, ["sex"], 1)
    [row] = found.disparity.to_dict("records")
    assert -1 <= row["gap_low"] <= row["gap_high"] <= 1


def test_why_there_is_no_adjusted_gap_is_said():
    constant = fairness.run_audit(*make_six(liver=(0.8, 0.8, 0.8, 0.9, 0.9, 0.9)), SIX, ["sex"], 1)
    [row] = constant.disparity.to_dict("records")
    assert np.isnan(row["adjusted_gap"]) and "no adjusted gap: nothing was tested" in row["note"]


def test_lower_is_better_turns_the_gap_round():
    metrics, cohort = make_six()
    metrics["hd95_mm"] = [9.0, 8.0, 7.0, 1.0, 2.0, 3.0]
    found = fairness.run_audit(metrics, cohort, Fairness(metrics=["hd95_mm"], min_group=3), ["sex"], 1)
    [row] = found.disparity.to_dict("records")
    assert (row["best_group"], row["worst_group"], row["gap"]) == ("male", "female", pytest.approx(6.0))
    assert row["effect_size"] == 1.0
    assert row["p"] >= 0.09 and row["gap_low"] == 0, "of the twenty ways to part six people two are as far apart"
    assert np.isnan(row["es"]) and np.isnan(row["ser"])


def test_size_is_separated_from_error():
    metrics, cohort = make_six()
    metrics["dice_expected"] = [0.80, 0.82, 0.84, 0.90, 0.92, 0.94]
    found = fairness.run_audit(metrics, cohort, SIX, ["sex"], 1)
    [row] = found.disparity.to_dict("records")
    assert row["expected_gap"] == pytest.approx(0.10)
    assert row["excess_gap"] == pytest.approx(0.05)
    assert row["excess_low"] < 0.05 < row["excess_high"]
    assert "dice_expected" not in set(found.groups["metric"]) | set(found.disparity["metric"])


def test_a_gap_that_size_explains_wholly_leaves_no_excess_and_no_doubt():
    metrics, cohort = make_six()
    metrics["dice_expected"] = metrics["dice"]
    [row] = fairness.run_audit(metrics, cohort, SIX, ["sex"], 1).disparity.to_dict("records")
    # Paired draws: what is equal in every person is equal in every resample.
    assert (row["excess_gap"], row["excess_low"], row["excess_high"]) == pytest.approx((0, 0, 0), abs=1e-12)


def test_a_small_group_is_suppressed_and_takes_no_part():
    sex = ["female"] * 3 + ["male"] * 3 + ["other"] * 2
    cohort = make_cohort(sex=sex)
    metrics = make_metrics(cohort, liver=[0.7, 0.8, 0.9, 0.9, 0.95, 1.0, 0.0, 0.1])
    found = fairness.run_audit(metrics, cohort, SIX, ["sex"], 1)
    other = found.groups.set_index("group").loc["other"]
    assert other["suppressed"] and other["n"] == 2
    assert other[["mean", "sd", "median", "q1", "q3", "ci_low", "ci_high"]].isna().all()
    [row] = found.disparity.to_dict("records")
    assert (row["worst_group"], row["n"], row["groups"]) == ("female", 6, 2)
    assert "too small to compare (under 3 subjects): other" in row["note"]
    without = fairness.run_audit(*make_six(), SIX, ["sex"], 1).disparity.iloc[0]
    # Other permutations of the same six: p differs by chance.
    assert row["p"] == pytest.approx(without["p"], abs=0.03) and row["es"] == without["es"]


def test_repeated_scans_do_not_count_as_more_people():
    metrics, cohort = make_six()
    once = fairness.run_audit(metrics, cohort, SIX, ["sex"], 1)
    again = cohort.assign(scan=cohort["scan"] + "b", number=cohort["number"] + 6)
    metrics_again = metrics.assign(scan=metrics["scan"] + "b")
    twice = fairness.run_audit(pd.concat([metrics, metrics_again]), pd.concat([cohort, again]), SIX, ["sex"], 1)
    pd.testing.assert_frame_equal(once.groups, twice.groups)
    pd.testing.assert_frame_equal(once.disparity, twice.disparity)


def test_the_order_of_rows_does_not_matter(rng):
    metrics, cohort = make_six()
    expected = fairness.run_audit(metrics, cohort, SIX, ["sex"], 1)
    shuffled = metrics.sample(frac=1, random_state=3), cohort.sample(frac=1, random_state=4)
    found = fairness.run_audit(*shuffled, SIX, ["sex"], 1)
    pd.testing.assert_frame_equal(found.groups, expected.groups)
    pd.testing.assert_frame_equal(found.disparity, expected.disparity)


@pytest.mark.parametrize(
    ("sex", "liver", "note"),
    [
        ([None] * 6, (0.7, 0.8, 0.9, 0.9, 0.95, 1.0), "no subject with a known sex group has a value"),
        (["female"] * 6, (0.7, 0.8, 0.9, 0.9, 0.95, 1.0), "fewer than two groups"),
        (["female"] * 5 + ["male"], (0.7, 0.8, 0.9, 0.9, 0.95, 1.0), "too small to compare (under 3 subjects): male"),
        (["female"] * 3 + ["male"] * 3, (0.9,) * 6, "every subject has the same value"),
        (["female"] * 3 + ["male"] * 3, (np.nan,) * 6, "no subject with a known sex group has a value"),
        (["female"], (0.9,), "fewer than two groups"),
    ],
)
def test_degenerate_inputs_give_a_row_that_says_why(sex, liver, note):
    found = fairness.run_audit(*make_six(sex, liver), SIX, ["sex"], 1)
    [row] = found.disparity.to_dict("records")
    assert note in row["note"]
    assert np.isnan(row["p"]) and np.isnan(row["p_adjusted"])
    assert found.families == {}
    assert any("no test was made" in text for text in found.notes)
    assert len(found.describe()) > 5


def test_people_without_a_value_are_counted():
    sex, dice = ["female"] * 4 + ["male"] * 3, [0.7, 0.8, 0.9, np.nan, 0.9, 0.95, 1.0]
    [row] = fairness.run_audit(*make_six(sex, dice), SIX, ["sex"], 1).disparity.to_dict("records")
    assert row["n"] == 6 and "1 subjects have no value" in row["note"]
    assert row["gap"] == pytest.approx(0.15)


FAMILIES = {
    "study": {"study": 24, "all models": 12},
    "attribute": {"sex": 12, "age": 12, "all models · sex": 6, "all models · age": 6},
    "attribute_metric": {
        f"{model}{attribute} · {metric}": number
        for model, number in (("", 6), ("all models · ", 3))
        for attribute in ("sex", "age")
        for metric in ("dice", "nsd")
    },
    "model_attribute": {f"{model} · {name}": 6 for model in ("all models", "m", "n") for name in ("sex", "age")},
}


def test_correction_is_within_each_family(rng):
    cohort = make_cohort(sex=["female", "male"] * 12, age=["young", "middle", "old"] * 8)
    metrics = make_metrics(cohort, liver=rng.random(24), spleen=rng.random(24)).assign(nsd=rng.random(48))
    metrics = pd.concat([metrics, metrics.assign(model="n", dice=rng.random(48))])
    settings = Fairness(
        metrics=["dice", "nsd"], min_group=3, bootstrap=100, permutations=200, family="attribute_metric"
    )
    found = fairness.run_audit(metrics, cohort, settings, ["sex", "age"], 1)
    assert {name: len(tests) for name, tests in found.families.items()} == FAMILIES["attribute_metric"]
    for name, part in found.disparity.groupby("family"):
        assert part["p_adjusted"].tolist() == pytest.approx(multipletests(part["p"], method="holm")[1].tolist()), name
    # (2 models + all models) × (2 organs + pooled) × 2 metrics × 2 attributes
    assert sum(map(len, found.families.values())) == len(found.disparity) == 36
    said = "36 tests were adjusted together by Holm's method within"
    assert any(said in note and "8 families" in note for note in found.notes)
    assert found.groups["organ"].unique().tolist() == ["liver", "spleen", "all"]
    assert (found.disparity["gap"] >= 0).all()
    tests = [test for of_family in found.families.values() for test in of_family]
    for family, sizes in FAMILIES.items():
        assert Counter(name_family(test, family) for test in tests) == sizes


def test_the_interval_of_a_gap_holds_the_true_gap_about_as_often_as_it_says(rng):
    covered = []
    settings = Fairness(metrics=["dice"], min_group=3, bootstrap=200)
    cohort = make_cohort(sex=["female"] * 30 + ["male"] * 30)
    organs = {f"organ{i}": np.r_[rng.normal(0.80, 0.04, 30), rng.normal(0.90, 0.04, 30)] for i in range(200)}
    disparity = fairness.run_audit(make_metrics(cohort, **organs), cohort, settings, ["sex"], 3).disparity
    single = disparity[disparity["organ"] != "all"]
    covered = ((single["gap_low"] <= 0.1) & (single["gap_high"] >= 0.1)).mean()
    # 200 organs that share their draws, not their data; nominal 95 %, Monte-Carlo error 1.5 %.
    assert 0.89 < covered < 0.99


def test_numbers_as_group_names_are_found():
    cohort = make_cohort(grade=[1, 1, 1, 2, 2, 2])
    metrics = make_metrics(cohort, liver=[0.7, 0.8, 0.9, 0.9, 0.95, 1.0])
    found = fairness.run_audit(metrics, cohort, SIX, ["grade"], 1)
    assert found.disparity["worst_group"].tolist() == ["1"]


def make_confounded(seed: int, *, people: int = 200):
    """Age and BMI go together; only BMI matters."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, people)
    bmi = 18 + 0.15 * age + rng.normal(0, 2.5, people)
    cohort = make_cohort(sex=list(rng.permutation(["female", "male"] * (people // 2))))
    cohort = cohort.assign(age=age, bmi=bmi, group_age=np.where(age < 50, "younger", "older"))
    return make_metrics(cohort, liver=list(0.95 - 0.004 * (bmi - 18) + rng.normal(0, 0.01, people))), cohort


def test_an_adjusted_gap_lets_go_of_what_the_confounder_explains():
    metrics, cohort = make_confounded(3)
    settings = Fairness(metrics=["dice"], min_group=10, bootstrap=300)
    with_bmi = fairness.run_audit(metrics, cohort, settings, ["age"], 1, confounders=["bmi"]).disparity.iloc[0]
    without = fairness.run_audit(metrics, cohort, settings, ["age"], 1).disparity.iloc[0]
    assert without["gap"] == with_bmi["gap"] > 0.01
    assert without["adjusted_gap"] == pytest.approx(without["gap"])
    assert without["adjusted_p"] < 0.001 and without["adjusted_n"] == 200
    assert abs(with_bmi["adjusted_gap"]) < 0.3 * with_bmi["gap"]
    assert with_bmi["adjusted_low"] < 0 < with_bmi["adjusted_high"]


@pytest.mark.parametrize("convert", [lambda age: np.round(12 * age), lambda age: 2024 - np.round(age)])
def test_what_is_the_attribute_in_other_units_is_not_held_equal(convert):
    """Age in months, or the year of birth, would leave nothing of age but its rounding."""
    metrics, cohort = make_confounded(3)
    cohort = cohort.assign(again=convert(cohort["age"]))
    settings = Fairness(metrics=["dice"], min_group=10, bootstrap=300)
    found = fairness.run_audit(metrics, cohort, settings, ["age", "sex"], 1, confounders=["again", "bmi"])
    without = fairness.run_audit(metrics, cohort, settings, ["age", "sex"], 1, confounders=["bmi"])
    assert found.disparity["direct_gap"][0] == without.disparity["direct_gap"][0]
    told = found.adjusted_notes.set_index("attribute")
    assert told.loc["age", ["covariates", "mediators"]].tolist() == ["bmi", "sex"]
    assert "again" not in set(found.balance.query("attribute == 'age'")["covariate"])
    assert told.loc["age", "dropped"].startswith("again: orders people as age does (rank correlation ")
    assert found.disparity["adjusted_gap"][0] == without.disparity["adjusted_gap"][0]
    assert "again" in told.loc["sex", "covariates"] + told.loc["sex", "dropped"], "of sex it says nothing"
    [note] = [note for note in found.notes if "again" in note]
    assert note.startswith("not adjusted for when groups by age are compared: again: orders people as age does")


def make_mediated(seed: int, people: int = 600) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Age brings about a diagnosis (by 0.6), and both cost Dice: 0.02 and 0.05."""
    rng = np.random.default_rng(seed)
    old = np.tile([True, False], people // 2)
    ill = rng.random(people) < np.where(old, 0.8, 0.2)
    cohort = make_cohort(sex=["female", "male", "male", "female"] * (people // 4))
    cohort = cohort.assign(group_age=np.where(old, "old", "young"), group_diagnosis=np.where(ill, "ill", "well"))
    return make_metrics(cohort, liver=list(0.9 - 0.02 * old - 0.05 * ill + rng.normal(0, 0.01, people))), cohort


def test_total_and_direct_effect_are_told_apart():
    metrics, cohort = make_mediated(5)
    settings = Fairness(metrics=["dice"], min_group=10, bootstrap=200, permutations=200)
    names = ["sex", "age", "diagnosis"]
    rows = fairness.run_audit(metrics, cohort, settings, names, 1).disparity.set_index("attribute")
    assert rows.loc["age", "adjusted_gap"] == pytest.approx(0.02 + 0.6 * 0.05, abs=0.005), "the total effect"
    assert rows.loc["age", "direct_gap"] == pytest.approx(0.02, abs=0.004)
    assert rows.loc["diagnosis", "adjusted_gap"] == pytest.approx(0.05, abs=0.004), "age comes before: a confounder"
    assert np.isnan(rows.loc["diagnosis", "direct_gap"]), "nothing comes after"
    turned = settings.model_copy(update={"adjust": {"age": ["sex", "diagnosis"], "diagnosis": []}})
    again = fairness.run_audit(metrics, cohort, turned, names, 1)
    told = again.adjusted_notes.set_index("attribute")[["covariates", "mediators"]]
    assert told.loc["age"].tolist() == ["sex; diagnosis", ""] and told.loc["diagnosis"].tolist() == ["", "sex; age"]
    again = again.disparity.set_index("attribute")
    assert again.loc["age", "adjusted_gap"] == pytest.approx(rows.loc["age", "direct_gap"])
    assert again.loc["diagnosis", "adjusted_gap"] == pytest.approx(rows.loc["diagnosis", "gap"])


def test_all_models_are_adjusted_for_the_same():
    metrics, cohort = make_mediated(5, 120)
    cohort = cohort.assign(scanner=["A", "B", "B", "A"] * 30)
    # The people of the second model are old on scanner A, or young on B: once its gap was adjusted
    # for nothing.
    other = metrics.assign(model="other")
    few = cohort.loc[(cohort["scanner"] == "A") != (cohort["group_age"] == "old"), "scan"]
    other.loc[other["scan"].isin(few), "dice"] = np.nan
    settings = Fairness(metrics=["dice"], min_group=10, bootstrap=200, permutations=200)
    found = fairness.run_audit(
        pd.concat([metrics, other]), cohort, settings, ["age"], 1, confounders=["scanner"], pooled_models=[]
    )
    told = found.adjusted_notes.set_index("model")
    first, second = told.index[0], "other"
    assert told.loc[first, "covariates"] == "scanner" and told.loc[first, "note"] == ""
    assert told.loc[second, "note"].startswith("age and scanner cannot be told apart here: all 30 in “old”")
    assert found.disparity["adjusted_gap"].notna().tolist() == [True, False]


def test_models_are_compared_on_the_people_of_both():
    metrics, cohort = make_mediated(7, 200)
    other = metrics.assign(model="other")
    # Of the second model those are missing on whom both do badly: its own gap is smaller, and the
    # models are alike.
    worst = metrics.sort_values("dice")["scan"].iloc[:60]
    other.loc[other["scan"].isin(worst), "dice"] = np.nan
    settings = Fairness(metrics=["dice"], min_group=10, bootstrap=200, permutations=200)
    found = fairness.run_audit(pd.concat([metrics, other]), cohort, settings, ["age"], 1, pooled_models=[])
    [row] = found.model_gaps.to_dict("records")
    assert row["n"] == 140 and row["difference"] == pytest.approx(0.0, abs=1e-12)
    assert row["note"] == "60 people have a value of one of the two models alone and take no part"
    own = found.disparity.set_index("model")["gap"]
    assert row["gap_b"] == pytest.approx(own["other"]) and row["gap_a"] < 0.9 * own.drop("other").item()


def test_an_unknown_confounder_is_said_once():
    metrics, cohort = make_six()
    found = fairness.run_audit(metrics, cohort, SIX, ["sex"], 1, confounders=["scanner"])
    assert sum("scanner is not in the cohort's table" in note for note in found.notes) == 1
    assert found.disparity["adjusted_gap"].notna().all()


@pytest.mark.parametrize(
    ("difference", "spread", "verdict"),
    [(0.10, 0.02, "disparity"), (0.01, 0.005, "negligible"), (0.0, 0.01, "equivalent"), (0.03, 0.3, "inconclusive")],
)
def test_each_gap_gets_a_verdict_and_what_could_have_been_found(difference, spread, verdict):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, spread, 600)
    noise = np.concatenate([part - part.mean() for part in (noise[:300], noise[300:])])
    values = 0.8 + noise + np.repeat([0, difference], 300)
    metrics, cohort = make_six(sex=["female"] * 300 + ["male"] * 300, liver=list(values))
    row = fairness.run_audit(
        metrics, cohort, Fairness(metrics=["dice"], min_group=10, bootstrap=300), ["sex"], 1
    ).disparity
    assert row["verdict"].tolist() == [verdict] and row["unseen_share"].isna().all()
    # 80 % power at 300 against 300: about 2.8 standard errors of the difference.
    error = np.sqrt(noise[:300].var(ddof=1) / 300 + noise[300:].var(ddof=1) / 300)
    assert row["detectable"].iloc[0] == pytest.approx(2.81 * error, rel=0.03)


def test_few_people_who_did_not_fail_are_not_shown_to_be_served_alike():
    values = 0.8 + np.tile(np.linspace(-0.005, 0.005, 15), 2)
    metrics, cohort = make_six(sex=["female"] * 15 + ["male"] * 15, liver=list(values))
    row = fairness.run_audit(metrics, cohort, Fairness(metrics=["dice"], bootstrap=300), ["sex"], 1).disparity.iloc[0]
    assert row["verdict"] == "inconclusive" and row["gap_high"] < 0.01
    assert row["unseen_share"] == pytest.approx(1 - 0.05 ** (1 / 15))


def test_a_group_in_which_nobody_happened_to_fail_is_not_shown_to_do_better():
    rng = np.random.default_rng(2)
    values = np.clip(rng.normal(0.9, 0.03, 315), 0, 1)
    values[:15] = 0.0  # 15 of 300 men, and nobody of 15 women
    metrics, cohort = make_six(sex=["male"] * 300 + ["female"] * 15, liver=list(values))
    metrics["dice_expected"], cohort["age"] = 0.9, rng.normal(50, 10, 315)
    settings = Fairness(metrics=["dice"], bootstrap=300, permutations=200)
    found = fairness.run_audit(metrics, cohort, settings, ["sex"], 1, confounders=["age"])
    row, means = found.disparity.iloc[0], found.groups.set_index("group")
    assert row["best_group"] == "female" and row["gap"] > 0.04 and row["gap_low"] < -0.1
    assert means.loc["female", "ci_low"] < 0.75 and means.loc["male", "ci_low"] > 0.8
    # What else is held equal does not tell who might fail: the same of every other gap.
    assert row["adjusted_gap"] > 0.04 and row["adjusted_low"] < -0.1 and row["adjusted_p"] > 0.3
    assert row["excess_gap"] > 0.04 and row["excess_low"] < -0.1 and row["excess_p"] > 0.3
    against, pairs = found.contrasts.set_index("group"), found.matching.iloc[0]
    assert against.loc["female", "low"] < -0.1 and against.loc["male", "high"] > 0.1
    assert pairs["low"] < -0.1 and pairs["p"] > 0.3
    adjusted = found.adjusted_means.set_index("group")
    assert adjusted.loc["female", "low"] < 0.75 and adjusted.loc["male", "low"] > 0.8


def test_what_is_not_compared_says_so_also_after_a_file(tmp_path):
    metrics, cohort = make_six()
    found = fairness.run_audit(metrics, cohort, Fairness(metrics=["dice"], min_group=5, bootstrap=300), ["sex"], 1)
    assert found.disparity["verdict"].tolist() == ["not compared"]
    found.disparity.to_csv(tmp_path / "disparity.csv", index=False)
    assert pd.read_csv(tmp_path / "disparity.csv")["verdict"].tolist() == ["not compared"]


NUMBERS = Fairness(
    metrics=["dice", "boundary_error_mm"], min_group=8, bootstrap=300, permutations=1000, correction="holm"
)
# Of tests that look at no number: one measure, few draws.
BRIEF = NUMBERS.model_copy(update={"metrics": ["dice"], "bootstrap": 50, "permutations": 50})
OF_SITES = ("sites", "site_summary")  # empty without clusters
AUDITED = {name: TABLES[name].names for name in AUDIT_TABLES if name not in ("intersections", *OF_SITES)}


def make_study(seed: int = 5, people: int = 150):
    """Two models and two organs: `worse` fails old people, both lose Dice on small organs, which
    women have."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, people)
    sex = rng.choice(["female", "male"], people)
    cohort = make_cohort(sex=list(sex)).assign(
        age=age, bmi=rng.normal(26, 4, people), site=rng.choice(["a", "b"], people)
    )
    cohort["group_sex"] = pd.Categorical(sex, ["female", "male"], ordered=True)
    cohort["group_age"] = pd.cut(age, [0, 40, 60, 90], right=False, labels=["young", "middle", "old"])
    parts = []
    for model, slope in (("good", 0.0), ("worse", 0.01)):
        for organ in ("liver", "spleen"):
            volume = np.exp(rng.normal(5, 0.2, people) - 0.5 * (sex == "female"))
            steep = 0.5 * volume ** (-1 / 3)
            error = 1.0 + slope * (age - 50) + rng.normal(0, 0.15, people)
            parts.append(
                cohort[["subject", "scan"]].assign(
                    model=model, organ=organ, dice=1 - error * steep, boundary_error_mm=error,
                    dice_expected=1 - error.mean() * steep, volume_ref_ml=volume,
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True), cohort


@pytest.fixture(scope="module")
def study():
    metrics, cohort = make_study()
    settings = {"confounders": ["site"], "ordered": ["sex", "age"]}
    return metrics, cohort, fairness.run_audit(metrics, cohort, NUMBERS, ["sex", "age"], 1, **settings)


def test_what_is_computed_from_one_matrix_is_computed_once(monkeypatch):
    metrics, cohort = make_study(people=90)
    seen = []
    original = grouped_values.summarise_columns

    def count(grouped):
        seen.append((grouped.codes.tobytes(), grouped.matrix.shape, grouped.matrix.tobytes()))
        return original(grouped)

    monkeypatch.setattr(grouped_values, "summarise_columns", count)
    settings = Fairness(metrics=["dice", "boundary_error_mm"], min_group=8, bootstrap=100)
    fairness.run_audit(metrics, cohort, settings, ["sex", "age"], 1, confounders=["site"])
    assert len(seen) == len(set(seen)), "the moments of a matrix were computed again"
    # Per attribute: the scores, those compared, their ranks, those of people who did not fail, the
    # expected Dice, and what it leaves; for age all pairs and their ranks.
    assert len(seen) == 6 + 8


def pick(table: pd.DataFrame, **keys) -> pd.DataFrame:
    for name, value in keys.items():
        table = table[table[name] == value]
    return table


def test_every_table_has_its_columns_and_no_word_is_missing(study):
    *_, found = study
    for name, columns in AUDITED.items():
        table = getattr(found, name)
        assert len(table) and table.columns.tolist() == list(columns), name
        words = [column.name for column in TABLES[name].columns if column.kind == "text"]
        assert table[words].notna().all(axis=None), name
    assert found.intersections.columns.tolist() == ["model", "organ", "metric", "sex", "age", *CELL_COLUMNS]
    assert len(found.disparity) == (2 + 1) * 3 * 2 * 2 and found.disparity["verdict"].isin(list(Verdict)).all()


def test_tests_are_those_of_scipy_and_pingouin(study):
    metrics, cohort, found = study
    people = metrics[(metrics["model"] == "worse") & (metrics["organ"] == "liver")].merge(cohort)
    women, men = (people.loc[people["group_sex"] == sex, "dice"] for sex in ("female", "male"))
    rows = pick(found.tests, model="worse", organ="liver", metric="dice", attribute="sex").set_index("test")
    assert rows["p"].to_dict() == pytest.approx(
        {
            "one-way ANOVA": stats.f_oneway(women, men).pvalue,
            "Welch's t": stats.ttest_ind(women, men, equal_var=False).pvalue,
            "Mann–Whitney U": stats.mannwhitneyu(women, men).pvalue,
            "Brunner–Munzel": stats.brunnermunzel(women, men).pvalue,
        }
    )
    assert (rows["statistic"] > 0).all(), "the better group does better"
    ages = [part["dice"] for _, part in people.groupby("group_age", observed=True)]
    rows = pick(found.tests, model="worse", organ="liver", metric="dice", attribute="age").set_index("test")
    assert rows["p"].to_dict() == pytest.approx(
        {
            "one-way ANOVA": stats.f_oneway(*ages).pvalue,
            "Welch's ANOVA": pingouin.welch_anova(people, dv="dice", between="group_age")["p_unc"].iloc[0],
            "Kruskal–Wallis H": stats.kruskal(*ages).pvalue,
        }
    )


def test_one_test_decides_every_row_and_its_numbers_are_in_order(study):
    *_, found = study
    for row in found.disparity.to_dict("records"):
        assert row["test"] == DECIDING_TEST and 0 < row["p"] <= row["p_adjusted"] <= 1
        assert row["effect_low"] <= row["effect_size"] <= row["effect_high"]
        assert row["gap_low"] < row["gap"] < row["gap_high"] and row["sd_groups_low"] <= row["sd_groups_high"]
    assert found.disparity["es"].notna().tolist() == (found.disparity["metric"] == "dice").tolist()


def test_pairs_are_told_where_more_than_two_groups_differ_surely(study):
    metrics, cohort, found = study
    asked = found.disparity[(found.disparity["groups"] > 2) & (found.disparity["p_adjusted"] <= 0.05)]
    keys = ["model", "organ", "metric", "attribute"]
    assert len(found.pairs) == 2 * 3 * len(asked) > 0
    assert set(found.pairs[keys].itertuples(index=False)) == set(asked[keys].itertuples(index=False))
    people = metrics[(metrics["model"] == "worse") & (metrics["organ"] == "liver")].merge(cohort)
    expected = pingouin.pairwise_gameshowell(people, dv="boundary_error_mm", between="group_age").set_index(["A", "B"])
    ours = pick(found.pairs, model="worse", organ="liver", metric="boundary_error_mm", test="Games–Howell")
    for row in ours.to_dict("records"):
        theirs = expected.loc[(row["group_a"], row["group_b"])]
        assert row["difference"] == pytest.approx(theirs["diff"])
        assert row["p"] == pytest.approx(theirs["pval"], abs=1e-6)
        reach = stats.studentized_range.ppf(0.95, 3, theirs["df"]) * theirs["se"] / np.sqrt(2)
        assert row["high"] - row["difference"] == pytest.approx(reach, rel=1e-3)
        assert (row["low"] > 0 or row["high"] < 0) == (row["p"] < 0.05)


def test_each_group_is_compared_with_everybody_else():
    found = fairness.run_audit(*make_six(), SIX, ["sex"], 1)
    rows = found.contrasts.set_index("group")
    assert rows["difference"].to_dict() == pytest.approx({"female": -0.15, "male": 0.15})
    assert rows[["n", "n_rest"]].to_numpy().tolist() == [[3, 3], [3, 3]]
    assert (rows["low"] < rows["difference"]).all() and (rows["difference"] < rows["high"]).all()


def test_two_models_are_compared_on_the_same_people(study):
    metrics, cohort, found = study
    row = pick(found.model_gaps, organ="liver", metric="boundary_error_mm", attribute="age").iloc[0]
    gaps = pick(found.disparity, organ="liver", metric="boundary_error_mm", attribute="age").set_index("model")["gap"]
    assert (row["model_a"], row["model_b"], row["n"]) == ("good", "worse", 150)
    assert (row["gap_a"], row["gap_b"]) == pytest.approx((gaps["good"], gaps["worse"]))
    assert row["difference"] == pytest.approx(gaps["good"] - gaps["worse"]) and row["high"] < 0
    assert row["p"] < 0.01 and row["p_adjusted"] >= row["p"]
    twin = metrics[metrics["model"] == "good"]
    both = fairness.run_audit(pd.concat([twin, twin.assign(model="twin")]), cohort, NUMBERS, ["age"], 1).model_gaps
    assert (both[["difference", "low", "high"]].abs() < 1e-12).all(axis=None) and (both["p"] == 1).all()


def test_all_models_together_are_each_persons_mean_over_them(study):
    """Of those whom every model scored: others would be judged by the models that happen to be
    there."""
    metrics, cohort, found = study
    lost = (metrics["model"] == "good") & metrics["subject"].isin(cohort["subject"][:30])
    part = metrics.assign(dice=metrics["dice"].mask(lost & (metrics["organ"] == "liver")))
    again = fairness.run_audit(part, cohort, BRIEF, ["sex"], 1)
    for audit, table, n in ((found, metrics, 150), (again, part, 120)):
        wide = table[table["organ"] == "liver"].pivot_table(
            index="subject", columns="model", values="dice", dropna=False
        )
        mean = wide.dropna().mean(axis=1)
        sexes = cohort.set_index("subject")["group_sex"].reindex(mean.index)
        women, men = (mean[sexes == sex] for sex in ("female", "male"))
        row = pick(audit.disparity, model=ALL_MODELS, organ="liver", metric="dice", attribute="sex").iloc[0]
        assert row["n"] == n and row["gap"] == pytest.approx(abs(women.mean() - men.mean()))
        assert row["family"] == "all models · sex · dice"
    assert "30 subjects lack a value of some model" in " ".join(again.notes)
    assert not any("lack a value of some model" in note for note in found.notes)
    assert ALL_MODELS not in set(found.model_gaps[["model_a", "model_b"]].to_numpy().ravel())
    one = fairness.run_audit(metrics, cohort, BRIEF, ["sex"], 1, pooled_models=["good"])
    assert ALL_MODELS not in set(one.disparity["model"])
    with pytest.raises(SegfairError, match="names all models pooled"):
        fairness.run_audit(metrics.assign(model=ALL_MODELS), cohort, BRIEF, ["sex"], 1)


def test_no_row_that_is_shown_to_differ_is_called_inconclusive(rng):
    """Whatever the study: a significant test and an interval on one side of 0 have a word."""
    seen = set()
    for number in range(16):
        # Fewer than about 200 per group do not show that nobody fails, so that nothing is within.
        people = 900 if number % 4 == 3 else int(rng.integers(40, 200))
        sex, age = rng.choice(["female", "male"], people), rng.choice(["young", "middle", "old"], people)
        cohort = make_cohort(sex=list(sex), age=list(age))
        shift = rng.choice([0.0, 0.02, 0.05, 0.12]) * (sex == "female") + rng.choice([0.0, 0.05]) * (age == "old")
        scores = {f"organ{place}": 0.85 - shift + rng.normal(0, 0.04, people) for place in range(4)}
        fail = rng.random(people) < rng.choice([0.0, 0.1]) * (people < 900)
        metrics = make_metrics(cohort, **{name: np.where(fail, 0.0, part) for name, part in scores.items()})
        settings = Fairness(
            metrics=["dice"],
            min_group=5,
            bootstrap=100,
            permutations=300,
            margin={"dice": float(rng.choice([0.005, 0.02, 0.1]))} if number % 5 else {},
            family=str(rng.choice(["study", "attribute", "attribute_metric"])),
            correction=str(rng.choice(["holm", "fdr_bh", "max_t", "none"])),
        )
        table = fairness.run_audit(metrics, cohort, settings, ["sex", "age"], number).disparity
        shown = (table["p_adjusted"] <= 0.05) & ((table["gap_low"] > 0) | (table["gap_high"] < 0))
        assert not (table.loc[shown, "verdict"] == Verdict.INCONCLUSIVE).any()
        assert (table.loc[table["p_adjusted"] > 0.05, "verdict"].isin(["equivalent", "inconclusive"])).all()
        for row in table.to_dict("records"):
            assert read_verdict(row, 0.05) == row["verdict"]
        seen |= set(table["verdict"])
    assert {"disparity", "difference", "negligible", "equivalent", "inconclusive"} <= seen


def test_a_margin_may_be_a_share_of_the_error():
    metrics, cohort = make_six()
    margins = {"dice": RelativeMargin(relative=0.2), "hd95_mm": RelativeMargin(relative=0.1)}
    metrics["hd95_mm"] = [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]
    settings = Fairness(metrics=["dice", "hd95_mm"], min_group=3, bootstrap=100, margin=margins)
    rows = fairness.run_audit(metrics, cohort, settings, ["sex"], 1).disparity.set_index("metric")
    assert rows["margin"].to_dict() == pytest.approx({"dice": 0.2 * (1 - 0.875), "hd95_mm": 0.1 * 3.5})
    perfect = fairness.run_audit(metrics.assign(dice=1.0), cohort, settings, ["sex"], 1).disparity.set_index("metric")
    assert np.isnan(perfect.loc["dice", "margin"]) and perfect.loc["dice", "verdict"] == "inconclusive"


def test_a_trend_over_ordered_groups_is_tested_within_its_family(study):
    found = study[2].disparity
    assert found.loc[found["attribute"] == "sex", "p_ordered"].isna().all(), "of two groups it is the difference"
    ages = found[found["attribute"] == "age"]
    worse = pick(ages, model="worse", organ="liver", metric="boundary_error_mm").iloc[0]
    assert worse["p_ordered_adjusted"] < 0.01 and worse["ordered_step"] > 0
    for _, part in ages.groupby("family"):
        assert part["p_ordered_adjusted"].tolist() == pytest.approx(multipletests(part["p_ordered"], method="holm")[1])


def test_attributes_are_ranked_by_how_often_groups_differ(study):
    *_, found = study
    ranking, rows = found.ranking, found.disparity[found.disparity["model"] != ALL_MODELS]
    assert ranking["metric"].tolist() == ["dice"] * 2 + ["boundary_error_mm"] * 2
    for _, part in ranking.groupby("metric"):
        assert part["share"].is_monotonic_decreasing and set(part["attribute"]) == {"sex", "age"}
    for row in ranking.to_dict("records"):
        part = pick(rows, metric=row["metric"], attribute=row["attribute"])
        shown = part["verdict"].isin(["disparity", "difference"])
        assert row["comparisons"] == len(part) == 6 and row["share"] == pytest.approx(shown.mean())
        keys = {name: row[name] for name in ("model", "organ", "metric", "attribute")}
        groups, gap = pick(found.groups, **keys), pick(part, **keys)["gap"].iloc[0]
        spread = np.sqrt(np.average(groups["sd"] ** 2, weights=groups["n"] - 1))
        assert row["largest_gap_sd"] == pytest.approx(gap / spread)


def test_models_without_any_gap_are_seldom_told_apart(rng):
    cohort = make_cohort(age=list(rng.permutation(["young", "middle", "old"] * 20)))
    parts = []
    for organ in range(100):
        shared = rng.normal(0, 0.04, 60)
        for model in ("a", "b"):
            dice = 0.8 + shared + rng.normal(0, 0.03, 60)
            parts.append(cohort[["subject", "scan"]].assign(model=model, organ=f"o{organ}", dice=dice))
    settings = Fairness(metrics=["dice"], min_group=5, bootstrap=300, correction="none")
    found = fairness.run_audit(pd.concat(parts), cohort, settings, ["age"], 1).model_gaps
    assert (found["p"] < 0.05).mean() < 0.08


def test_a_gap_of_size_alone_is_explained_and_its_millimetres_are_equal(study):
    *_, found = study
    row = pick(found.disparity, model="good", organ="liver", metric="dice", attribute="sex").iloc[0]
    assert row["gap_low"] > 0 and row["worst_group"] == "female"
    assert row["excess_low"] < 0 < row["excess_high"] and row["expected_gap"] == pytest.approx(row["gap"], abs=0.006)
    millimetres = pick(found.disparity, model="good", organ="liver", metric="boundary_error_mm", attribute="sex").iloc[
        0
    ]
    assert millimetres["gap_low"] < 0 and np.isnan(millimetres["excess_gap"])
    metrics, cohort, _ = study
    held = NUMBERS.model_copy(update={"adjust_for_volume": True})
    adjusted = fairness.run_audit(metrics, cohort, held, ["sex", "age"], 1)
    again = pick(adjusted.disparity, model="good", organ="liver", metric="dice", attribute="sex").iloc[0]
    assert row["adjusted_low"] > 0 and again["direct_low"] < 0 < again["direct_high"]
    assert again["gap"] == row["gap"] and again["adjusted_gap"] == pytest.approx(row["gap"]), "size is a mediator"
    told = adjusted.adjusted_notes
    sized = told["mediators"].str.contains("log organ volume")
    apart = told.loc[~sized, "direct_note"].str.contains("log organ volume cannot be told apart here")
    assert sized.any() and apart.all()
    assert any("log volume" in note for note in adjusted.notes)


def test_volume_as_a_covariate_needs_the_volumes():
    metrics, cohort = make_six()
    with pytest.raises(SegfairError, match="volume_ref_ml"):
        fairness.run_audit(metrics, cohort, SIX.model_copy(update={"adjust_for_volume": True}), ["sex"], 1)


def test_an_attribute_is_never_its_own_covariate(study):
    *_, found = study
    for attribute, used, between in (("sex", "site", "age"), ("age", "sex; site", "")):
        assert set(pick(found.adjusted_notes, attribute=attribute)["covariates"]) == {used}
        assert set(pick(found.adjusted_notes, attribute=attribute)["mediators"]) == {between}
        assert set(pick(found.balance, attribute=attribute)["covariate"]) == set(used.split("; "))


def test_matching_lets_go_of_what_the_confounder_explains():
    metrics, cohort = make_confounded(3, people=400)
    settings = Fairness(metrics=["dice"], min_group=10, bootstrap=300)
    found = fairness.run_audit(metrics, cohort, settings, ["age"], 1, confounders=["bmi"])
    gap, [row] = found.disparity["gap"].iloc[0], found.matching.to_dict("records")
    assert (row["group_a"], row["group_b"]) == ("younger", "older")
    assert 2 * row["n_pairs"] + row["n_lost"] == 400
    assert abs(row["gap"]) < 0.4 * gap and row["low"] < row["gap"] < row["high"]
    [balance] = found.balance.to_dict("records")
    assert abs(balance["smd_after"]) < 0.2 < abs(balance["smd_before"])


def test_matched_gaps_point_from_the_best_to_the_worst_group():
    rng = np.random.default_rng(2)
    cohort = make_cohort(sex=["female", "male"] * 40).assign(site=list(rng.permutation(["a", "b"] * 40)))
    parts = [
        cohort[["subject", "scan"]].assign(
            model="m", organ=organ, dice=0.8 + sign * np.tile([0.05, 0.0], 40) + rng.normal(0, 0.01, 80)
        )
        for organ, sign in (("liver", 1), ("spleen", -1))
    ]
    found = fairness.run_audit(
        pd.concat(parts), cohort, Fairness(metrics=["dice"], bootstrap=200), ["sex"], 1, confounders=["site"]
    )
    rows = found.matching.set_index("organ")
    assert rows.loc[["liver", "spleen"], "group_a"].tolist() == ["female", "male"]
    assert rows.loc[["liver", "spleen"], "gap"].tolist() == pytest.approx([0.05, 0.05], abs=0.01)
    assert (rows.loc[["liver", "spleen"], "low"] > 0.03).all() and (rows["low"] < rows["high"]).all()


def test_a_trend_is_told_per_ten_years(study):
    *_, found = study
    rows = pick(found.trend_tests, organ="liver", metric="boundary_error_mm").set_index("model")
    assert rows.loc["worse", "slope"] == pytest.approx(0.10, abs=0.03) and rows.loc["worse", "p_trend"] < 1e-6
    assert rows.loc["good", "slope_low"] < 0 < rows.loc["good", "slope_high"]
    assert set(found.trend_tests["unit"]) == {"per 10 years"} and set(found.trends["attribute"]) == {"age"}
    assert (found.trends["band_low"] <= found.trends["low"]).all()


def test_a_trend_of_too_few_people_is_not_shown():
    metrics, cohort = make_study(people=30)
    settings = NUMBERS.model_copy(update={"min_group": 16})
    found = fairness.run_audit(metrics, cohort, settings, ["sex", "age"], 1)
    assert found.trends.empty and found.trend_tests["slope"].isna().all()
    assert found.trend_tests["note"].str.contains("a trend needs 32").all()


def test_max_t_counts_the_same_test_once():
    rng = np.random.default_rng(8)
    cohort = make_cohort(sex=["female", "male"] * 30)
    noise = rng.normal(0, 0.03, (30, 2))
    noise -= noise.mean(axis=0)
    metrics = make_metrics(cohort, liver=list((0.8 + noise + [0.02, 0.0]).ravel()))
    metrics = metrics.assign(nsd=metrics["dice"], iou=metrics["dice"])
    names = ["dice", "nsd", "iou"]
    settings = Fairness(
        metrics=names, bootstrap=100, margin=dict.fromkeys(names, 0.02), permutations=4000, family="study"
    )
    plain = fairness.run_audit(metrics, cohort, settings, ["sex"], 1).disparity
    found = fairness.run_audit(metrics, cohort, settings.model_copy(update={"correction": "max_t"}), ["sex"], 1)
    assert 0.001 < plain["p"].iloc[0] < 0.05 and (found.disparity["p"] == plain["p"]).all()
    assert plain["p_adjusted"].tolist() == pytest.approx([3 * plain["p"].iloc[0]] * 3)
    assert (found.disparity["p_adjusted"] >= plain["p"]).all()
    assert found.disparity["p_adjusted"].tolist() == pytest.approx([plain["p"].iloc[0]] * 3, rel=0.4)
    assert "Westfall" in found.notes[-1] and found.describe()["value"].str.contains("max-T").any()


def test_order_of_rows_changes_no_table(study):
    metrics, cohort, found = study
    order = metrics.assign(place=range(len(metrics))).sample(frac=1, random_state=3)
    order = order.sort_values(["model", "organ"], kind="stable").drop(columns="place")
    settings = {"confounders": ["site"], "ordered": ["sex", "age"]}
    cohort = cohort.sample(frac=1, random_state=4)
    again = fairness.run_audit(order, cohort, NUMBERS, ["sex", "age"], 1, **settings)
    for name in AUDIT_TABLES:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(found, name), rtol=1e-9)


def test_a_small_group_is_in_no_table_but_as_suppressed():
    metrics, cohort = make_study()
    sex = cohort["group_sex"].astype(object).where(cohort.index >= 5, "other")
    cohort["group_sex"] = pd.Categorical(sex, ["female", "male", "other"], ordered=True)
    found = fairness.run_audit(metrics, cohort, BRIEF, ["sex", "age"], 1)
    hidden = pick(found.groups, group="other")
    assert hidden["suppressed"].all() and hidden[["mean", "ci_low", "ci_high"]].isna().all(axis=None)
    assert "other" not in set(found.contrasts["group"]) | set(found.adjusted_means["group"])
    assert not ({"other"} & set(found.matching[["group_a", "group_b"]].to_numpy().ravel()))
    assert not ({"other"} & set(found.pairs[["group_a", "group_b"]].to_numpy().ravel()))
    cells = found.intersections[found.intersections["sex"] == "other"]
    assert cells["suppressed"].all() and cells[["mean", "pooled", "low", "high"]].isna().all(axis=None)
    assert not found.intersections.loc[found.intersections["suppressed"], "n"].str.isdigit().any()


@pytest.mark.parametrize(
    "case", ["nobody known", "one group", "too few", "all missing", "a model failed", "an organ is perfect"]
)
def test_dull_studies_give_tables_with_their_columns(case):
    metrics, cohort = make_study(people=40)
    if case == "nobody known":
        cohort = cohort.assign(group_sex=pd.Categorical([None] * 40, ["female", "male"]), group_age=None, age=np.nan)
    if case == "one group":
        cohort = cohort.assign(group_sex="female", group_age="old", age=70.0)
    if case == "too few":
        metrics, cohort = metrics[metrics["subject"].isin(cohort["subject"][:5])], cohort[:5]
    measures = ["dice", "boundary_error_mm", "dice_expected", "volume_ref_ml"]
    if case in ("all missing", "a model failed"):
        metrics.loc[metrics["model"] != ("good" if case == "a model failed" else ""), measures] = np.nan
    if case == "an organ is perfect":
        metrics.loc[metrics["organ"] == "liver", measures] = [1.0, 0.0, 1.0, 100.0]
    for held in (False, True):
        settings = NUMBERS.model_copy(update={"adjust_for_volume": held, "correction": "max_t", "permutations": 100})
        found = fairness.run_audit(metrics, cohort, settings, ["sex", "age"], 1, confounders=["site"])
        for name, columns in AUDITED.items():
            assert getattr(found, name).columns.tolist() == list(columns), name
        # Of one model alone there is no mean over models.
        number = 24 if case in ("all missing", "a model failed") else 36
        assert len(found.disparity) == number and found.disparity["adjusted_gap"].shape == (number,)
        if case not in ("a model failed", "an organ is perfect"):
            assert set(found.disparity["verdict"]) == {"not compared"}
            assert found.tests.empty and found.contrasts.empty and found.matching.empty and found.model_gaps.empty
            assert any("no test was made" in note for note in found.notes)
        else:
            told = found.disparity[found.disparity["p"].isna()]
            assert len(told) and (told["note"] != "").all()
            assert found.disparity["p"].notna().any()


def test_intersections_leave_out_attributes_that_are_too_many(study):
    metrics, cohort, found = study
    assert found.intersections["n"].map(type).eq(str).all() and found.intersection_variance["vpc"].notna().any()
    rng = np.random.default_rng(1)
    wide = cohort.assign(group_site=rng.choice(list("abcdefghijkl"), len(cohort)))
    again = fairness.run_audit(metrics, wide, BRIEF, ["sex", "age", "site"], 1)
    assert "site" not in again.intersections and any(
        "site is left out of the intersections" in note for note in again.notes
    )
    alone = fairness.run_audit(metrics, cohort, BRIEF, ["sex"], 1)
    assert alone.intersections.empty and any("no intersections were made" in note for note in alone.notes)


def test_an_attribute_named_like_a_column_makes_no_intersections(study):
    metrics, cohort, _ = study
    renamed = cohort.rename(columns={"group_sex": "group_mean"})
    found = fairness.run_audit(metrics, renamed, BRIEF, ["mean", "age"], 1)
    assert found.intersections.empty and any("an attribute is called mean" in note for note in found.notes)


def test_nothing_measured_is_refused():
    metrics, cohort = make_six()
    with pytest.raises(SegfairError, match="no rows"):
        fairness.run_audit(metrics[:0], cohort, SIX, ["sex"], 1)


def test_those_scored_are_matched_where_many_are_not():
    """Of pairs made among everybody few are whole where half lack a score; among those scored many
    are."""
    rng = np.random.default_rng(4)
    sex = rng.choice(["female", "male"], 160)
    cohort = make_cohort(sex=list(sex)).assign(age=np.round(rng.uniform(20, 80, 160), 1))
    scored = rng.random(160) < 0.4
    metrics = make_metrics(cohort, liver=rng.normal(0.8, 0.05, 160), spleen=rng.normal(0.8, 0.05, 160))
    metrics.loc[(metrics["organ"] == "liver") & ~np.tile(scored, 2), "dice"] = np.nan
    known = metrics[metrics["organ"] == "liver"].dropna(subset="dice").merge(cohort, on=["subject", "scan"])
    smaller = known["group_sex"].value_counts().min()
    settings = Fairness(metrics=["dice"], min_group=5, bootstrap=100, permutations=100)
    found = fairness.run_audit(metrics, cohort, settings, ["sex"], 1, confounders=["age"])
    pairs = found.matching.set_index("organ")["n_pairs"]
    assert pairs["liver"] > 0.7 * smaller


def test_notes_are_short_and_say_where_the_rest_is():
    assert join_notes(["a", "", "b"], "x.csv") == "a; b"
    long = join_notes(["first", *(f"part {place} of a long story" for place in range(20))], "x.csv")
    assert len(long) <= 200 and long.startswith("first; part 0") and long.endswith("; more in x.csv")
    one = join_notes(["word " * 80], "x.csv")
    assert len(one) <= 200 and one.endswith("…; more in x.csv")


def test_a_gap_that_is_told_because_it_stood_out_is_taken_back_in_part(rng):
    """240 organs with a true gap of 0.3 SD: what is told of significant ones is not too large."""
    cohort = make_cohort(sex=["female", "male"] * 60)
    female = np.arange(120) % 2 == 0
    scores = {f"organ{place}": 0.8 - 0.012 * female + rng.normal(0, 0.04, 120) for place in range(240)}
    settings = Fairness(metrics=["dice"], bootstrap=100, permutations=200, correction="none")
    table = fairness.run_audit(make_metrics(cohort, **scores), cohort, settings, ["sex"], 1).disparity
    table = table[table["organ"] != "all"]
    found = table[table["p_adjusted"] <= 0.05]
    assert table.loc[table["p_adjusted"] > 0.05, "told_gap"].isna().all()
    truth = np.where(found["worst_group"] == "female", 0.012, -0.012)
    assert len(found) > 60 and ((found["told_low"] <= truth) & (truth <= found["told_high"])).mean() > 0.9
    assert found["gap"].mean() > 0.018, "half as much again as is true of those that are told"
    assert 0.35 < (found["told_gap"] > truth).mean() < 0.6, "too large as often as too small"


def test_no_interval_leaves_out_what_its_test_does_not_reject(rng):
    """Twenty people of one group and very skewed scores: the bootstrap alone leaves out 0 here."""
    number = 20 + 300
    scores = 0.95 - 0.05 * rng.gamma(0.3, size=(number, 200))
    cohort = pd.DataFrame({"subject": [f"p{place:03d}" for place in range(number)]})
    women = np.arange(number) < 20
    cohort = cohort.assign(
        scan=cohort["subject"], number=range(1, number + 1), group_sex=np.where(women, "female", "male")
    )
    tables = [
        cohort[["subject", "scan"]].assign(model=f"m{model}", organ="liver", dice=scores[:, model])
        for model in range(scores.shape[1])
    ]
    settings = Fairness(metrics=["dice"], min_group=10, bootstrap=300, permutations=300)
    rows = fairness.run_audit(pd.concat(tables), cohort, settings, ["sex"], 1, pooled_models=[]).disparity
    out = (rows["gap_low"] > 0) | (rows["gap_high"] < 0)
    assert len(rows) == 200 and not (out & (rows["p"] > 0.05)).any()
    assert (rows["gap_low"] == 0).sum() > 2, "some were stretched"
