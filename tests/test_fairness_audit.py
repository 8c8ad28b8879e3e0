"""The audit as a whole, on tables whose answer is seen by eye."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers import fairness
from helpers.parameters import Fairness
from tests.test_fairness_groups import make_cohort, make_metrics

SIX = Fairness(metrics=["dice"], min_group=3, bootstrap=500)


def make_six(sex=("female",) * 3 + ("male",) * 3, liver=(0.70, 0.80, 0.90, 0.90, 0.95, 1.00)):
    cohort = make_cohort(sex=list(sex))
    return make_metrics(cohort, liver=list(liver)), cohort


def test_six_people_by_eye():
    found = fairness.audit(*make_six(), SIX, ["sex"], 1)
    groups = found.groups.set_index("group")
    assert groups["n"].to_dict() == {"female": 3, "male": 3}
    assert groups["mean"].to_dict() == pytest.approx({"female": 0.8, "male": 0.95})
    assert groups["sd"].to_dict() == pytest.approx({"female": 0.1, "male": 0.05})
    assert groups["median"].to_dict() == pytest.approx({"female": 0.8, "male": 0.95})
    assert groups["q1"].to_dict() == pytest.approx({"female": 0.75, "male": 0.925})
    assert not groups["suppressed"].any()
    assert groups.loc["female", "ci_low"] == pytest.approx(0.7)  # 1 draw in 27 is the lowest person three times
    [row] = found.disparity.to_dict("records")
    assert (row["n"], row["groups"], row["best_group"], row["worst_group"]) == (6, 2, "male", "female")
    assert row["gap"] == pytest.approx(0.15)
    assert 0 <= row["gap_low"] < 0.15 < row["gap_high"]
    assert row["es"] == pytest.approx(0.875 / 1.15)
    assert row["ser"] == pytest.approx(0.2 / 0.05)
    # 9 pairs: male wins 8, one tie at 0.90.
    assert row["effect_size"] == pytest.approx(8 / 9)
    assert row["p"] == row["p_adjusted"]
    assert row["margin"] == 0.02
    assert "expected_gap" not in found.disparity, "not computed without dice_expected, so not there"
    assert found.family == [("m", "liver", "dice", "sex")]


def test_lower_is_better_turns_the_gap_round():
    metrics, cohort = make_six()
    metrics["hd95_mm"] = [9.0, 8.0, 7.0, 1.0, 2.0, 3.0]
    found = fairness.audit(metrics, cohort, Fairness(metrics=["hd95_mm"], min_group=3), ["sex"], 1)
    [row] = found.disparity.to_dict("records")
    assert (row["best_group"], row["worst_group"], row["gap"]) == ("male", "female", pytest.approx(6.0))
    assert row["gap_low"] > 0 and row["effect_size"] == 1.0
    assert np.isnan(row["es"]) and np.isnan(row["ser"])


def test_size_is_separated_from_error():
    metrics, cohort = make_six()
    metrics["dice_expected"] = [0.80, 0.82, 0.84, 0.90, 0.92, 0.94]
    found = fairness.audit(metrics, cohort, SIX, ["sex"], 1)
    [row] = found.disparity.to_dict("records")
    assert row["expected_gap"] == pytest.approx(0.10)
    assert row["excess_gap"] == pytest.approx(0.05)
    assert row["excess_low"] < 0.05 < row["excess_high"]
    assert "dice_expected" not in set(found.groups["metric"]) | set(found.disparity["metric"])


def test_a_gap_that_size_explains_wholly_leaves_no_excess_and_no_doubt():
    metrics, cohort = make_six()
    metrics["dice_expected"] = metrics["dice"]
    [row] = fairness.audit(metrics, cohort, SIX, ["sex"], 1).disparity.to_dict("records")
    # Paired draws: what is equal in every person is equal in every resample.
    assert (row["excess_gap"], row["excess_low"], row["excess_high"]) == pytest.approx((0, 0, 0), abs=1e-12)


def test_a_small_group_is_suppressed_and_takes_no_part():
    sex = ["female"] * 3 + ["male"] * 3 + ["other"] * 2
    cohort = make_cohort(sex=sex)
    metrics = make_metrics(cohort, liver=[0.7, 0.8, 0.9, 0.9, 0.95, 1.0, 0.0, 0.1])
    found = fairness.audit(metrics, cohort, SIX, ["sex"], 1)
    other = found.groups.set_index("group").loc["other"]
    assert other["suppressed"] and other["n"] == 2
    assert other[["mean", "sd", "median", "q1", "q3", "ci_low", "ci_high"]].isna().all()
    [row] = found.disparity.to_dict("records")
    assert (row["worst_group"], row["n"], row["groups"]) == ("female", 6, 2)
    assert "too small to compare (under 3 subjects): other" in row["note"]
    without = fairness.audit(*make_six(), SIX, ["sex"], 1).disparity.iloc[0]
    assert row["p"] == without["p"] and row["es"] == without["es"]


def test_repeated_scans_do_not_count_as_more_people():
    metrics, cohort = make_six()
    once = fairness.audit(metrics, cohort, SIX, ["sex"], 1)
    again = cohort.assign(scan=cohort["scan"] + "b", number=cohort["number"] + 6)
    metrics_again = metrics.assign(scan=metrics["scan"] + "b")
    twice = fairness.audit(pd.concat([metrics, metrics_again]), pd.concat([cohort, again]), SIX, ["sex"], 1)
    pd.testing.assert_frame_equal(once.groups, twice.groups)
    pd.testing.assert_frame_equal(once.disparity, twice.disparity)


def test_the_order_of_rows_does_not_matter(rng):
    metrics, cohort = make_six()
    expected = fairness.audit(metrics, cohort, SIX, ["sex"], 1)
    shuffled = metrics.sample(frac=1, random_state=3), cohort.sample(frac=1, random_state=4)
    found = fairness.audit(*shuffled, SIX, ["sex"], 1)
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
def test_dull_inputs_give_a_row_that_says_why(sex, liver, note):
    found = fairness.audit(*make_six(sex, liver), SIX, ["sex"], 1)
    [row] = found.disparity.to_dict("records")
    assert note in row["note"]
    assert np.isnan(row["p"]) and np.isnan(row["p_adjusted"])
    assert found.family == []
    assert any("no test was made" in text for text in found.notes)
    assert len(found.describe()) > 5


def test_people_without_a_value_are_counted():
    sex, dice = ["female"] * 4 + ["male"] * 3, [0.7, 0.8, 0.9, np.nan, 0.9, 0.95, 1.0]
    [row] = fairness.audit(*make_six(sex, dice), SIX, ["sex"], 1).disparity.to_dict("records")
    assert row["n"] == 6 and "1 subjects have no value" in row["note"]
    assert row["gap"] == pytest.approx(0.15)


def test_correction_is_over_the_whole_family(rng):
    cohort = make_cohort(sex=["female", "male"] * 12, age=["young", "middle", "old"] * 8)
    metrics = make_metrics(cohort, liver=rng.random(24), spleen=rng.random(24)).assign(nsd=rng.random(48))
    metrics = pd.concat([metrics, metrics.assign(model="n", dice=rng.random(48))])
    found = fairness.audit(
        metrics, cohort, Fairness(metrics=["dice", "nsd"], min_group=3, bootstrap=100), ["sex", "age"], 1
    )
    # 2 models × (2 organs + pooled) × 2 metrics × 2 attributes
    assert len(found.family) == len(found.disparity) == 24
    lowest = found.disparity["p"].min()
    assert found.disparity.loc[found.disparity["p"].idxmin(), "p_adjusted"] == pytest.approx(min(1, 24 * lowest))
    assert any(
        "24 tests were corrected together by Holm's method: 2 models, 3 organs, 2 metrics, 2 attributes" in n
        for n in found.notes
    )
    assert set(found.disparity.loc[found.disparity["attribute"] == "age", "test"]) == {"Kruskal–Wallis H"}
    assert found.groups["organ"].unique().tolist() == ["liver", "spleen", "all"]
    assert (found.disparity["gap"] >= 0).all()


def test_the_interval_of_a_gap_holds_the_true_gap_about_as_often_as_it_says(rng):
    covered = []
    settings = Fairness(metrics=["dice"], min_group=3, bootstrap=200)
    cohort = make_cohort(sex=["female"] * 30 + ["male"] * 30)
    organs = {f"organ{i}": np.r_[rng.normal(0.80, 0.04, 30), rng.normal(0.90, 0.04, 30)] for i in range(200)}
    disparity = fairness.audit(make_metrics(cohort, **organs), cohort, settings, ["sex"], 3).disparity
    single = disparity[disparity["organ"] != "all"]
    covered = ((single["gap_low"] <= 0.1) & (single["gap_high"] >= 0.1)).mean()
    # 200 organs that share their draws, not their data; nominal 95 %, Monte-Carlo error 1.5 %.
    assert 0.89 < covered < 0.99


def test_numbers_as_group_names_are_found():
    cohort = make_cohort(grade=[1, 1, 1, 2, 2, 2])
    metrics = make_metrics(cohort, liver=[0.7, 0.8, 0.9, 0.9, 0.95, 1.0])
    found = fairness.audit(metrics, cohort, SIX, ["grade"], 1)
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
    with_bmi = fairness.audit(metrics, cohort, settings, ["age"], 1, confounders=["bmi"]).disparity.iloc[0]
    without = fairness.audit(metrics, cohort, settings, ["age"], 1).disparity.iloc[0]
    assert without["gap"] == with_bmi["gap"] > 0.01
    assert without["adjusted_gap"] == pytest.approx(without["gap"])
    assert without["adjusted_p"] < 0.001 and without["adjusted_n"] == 200
    assert abs(with_bmi["adjusted_gap"]) < 0.3 * with_bmi["gap"]
    assert with_bmi["adjusted_low"] < 0 < with_bmi["adjusted_high"]


def test_an_unknown_confounder_is_said_once():
    metrics, cohort = make_six()
    found = fairness.audit(metrics, cohort, SIX, ["sex"], 1, confounders=["scanner"])
    assert sum("scanner is not in the cohort's table" in note for note in found.notes) == 1
    assert found.disparity["adjusted_gap"].notna().all()


@pytest.mark.parametrize(
    ("difference", "spread", "verdict"),
    [(0.10, 0.02, "disparity"), (0.01, 0.005, "negligible"), (0.0, 0.01, "equivalent"), (0.03, 0.3, "inconclusive")],
)
def test_each_gap_gets_a_verdict_and_what_could_have_been_found(difference, spread, verdict):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, spread, 60)
    noise = np.concatenate([part - part.mean() for part in (noise[:30], noise[30:])])
    values = 0.8 + noise + np.repeat([0, difference], 30)
    metrics, cohort = make_six(sex=["female"] * 30 + ["male"] * 30, liver=list(values))
    row = fairness.audit(metrics, cohort, Fairness(metrics=["dice"], min_group=10, bootstrap=300), ["sex"], 1).disparity
    assert row["verdict"].tolist() == [verdict]
    # 80 % power at 30 against 30: about 2.8 standard errors of the difference.
    error = np.sqrt(noise[:30].var(ddof=1) / 30 + noise[30:].var(ddof=1) / 30)
    assert row["detectable"].iloc[0] == pytest.approx(2.85 * error, rel=0.03)


def test_what_is_not_compared_says_so_also_after_a_file(tmp_path):
    metrics, cohort = make_six()
    found = fairness.audit(metrics, cohort, Fairness(metrics=["dice"], min_group=5, bootstrap=300), ["sex"], 1)
    assert found.disparity["verdict"].tolist() == ["not compared"]
    found.disparity.to_csv(tmp_path / "disparity.csv", index=False)
    assert pd.read_csv(tmp_path / "disparity.csv")["verdict"].tolist() == ["not compared"]
