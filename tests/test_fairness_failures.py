from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.fairness.failures import COMPARISON, compare_failures, hide_subtractable
from helpers.fairness.groups import average_worst
from helpers.parameters import Fairness


def make_tables(groups, dice, *, organ="liver", status="ok"):
    """Return metrics.parquet and cohort.parquet of one scan per person."""
    people = [f"p{place:05d}" for place in range(len(groups))]
    cohort = pd.DataFrame({"subject": people, "scan": people, "number": range(len(people))})
    cohort["group_sex"] = pd.Categorical(groups, sorted(set(groups)))
    metrics = pd.DataFrame({"subject": people, "scan": people, "model": "m", "organ": organ, "dice": dice})
    return metrics.assign(status=status), cohort


def take(found, threshold, organ="liver", metric="dice"):
    rows = found[(found["organ"] == organ) & (found["metric"] == metric)]
    return rows[rows["threshold"] == threshold] if np.isfinite(threshold) else rows


def test_failures_are_found_where_medians_are_equal():
    # 67 of 1,087 against 12 of 872 below 0.5; everyone else has 0.9.
    dice = np.full(1087 + 872, 0.9)
    dice[:67] = dice[1087 : 1087 + 12] = 0.3
    metrics, cohort = make_tables(["female"] * 1087 + ["male"] * 872, dice)
    found = take(compare_failures(metrics, cohort, Fairness(correction="none"), ["sex"], 1), 0.5)
    assert found["failed"].tolist() == [67, 12] and found["n"].tolist() == [1087, 872]
    row = found.iloc[0]
    assert (row["worst_group"], row["best_group"]) == ("female", "male")
    # Newcombe 1998, method 10; the values were given with the question.
    assert row[["gap", "gap_low", "gap_high"]].tolist() == pytest.approx([0.0479, 0.0315, 0.0648], abs=5e-5)
    assert row["p"] == pytest.approx(2.3e-8, rel=0.01)
    # The worst 55 of 1,087 women all failed; of the worst 44 men 12 did.
    assert found["worst_5"].tolist() == pytest.approx([0.3, (12 * 0.3 + 32 * 0.9) / 44])
    assert row["verdict"] not in ("disparity", "equivalent", "negligible")  # 0.0315 to 0.0648 holds the margin of 0.05


def test_a_gap_beyond_the_margin_is_a_disparity_and_one_shown_within_it_is_equivalent():
    dice = np.full(400, 0.9)
    dice[:40] = 0.1
    metrics, cohort = make_tables(["a"] * 200 + ["b"] * 200, dice)
    assert set(take(compare_failures(metrics, cohort, Fairness(), ["sex"], 1), 0.5)["verdict"]) == {"disparity"}
    metrics["dice"] = 0.9
    found = take(compare_failures(metrics, cohort, Fairness(), ["sex"], 1), 0.5)
    # Nobody of 200 fails: with 90 % confidence at most 1.3 % of either group would.
    assert set(found["verdict"]) == {"equivalent"} and found["p"].isna().all()
    few = metrics["subject"].isin(cohort["subject"][cohort.groupby("group_sex", observed=True).cumcount() < 15])
    found = take(compare_failures(metrics[few], cohort[few], Fairness(), ["sex"], 1), 0.5)
    assert set(found["verdict"]) == {"inconclusive"}  # nobody of 15: up to 15 % might


def test_a_person_fails_by_the_mean_of_their_scans_and_is_missed_in_any():
    metrics, cohort = make_tables(["a"] * 20 + ["b"] * 20, 0.9)
    again = metrics.iloc[[0, 1]].assign(scan=["x0", "x1"], dice=[0.0, 0.3], status=["prediction_empty", "ok"])
    cohort = pd.concat([cohort, cohort.iloc[[0, 1]].assign(scan=["x0", "x1"], number=[90, 91])], ignore_index=True)
    metrics = pd.concat([metrics, again], ignore_index=True)
    found = compare_failures(metrics, cohort, Fairness(failure={"dice": [0.5]}), ["sex"], 1)
    assert take(found, 0.5)["failed"].tolist() == [1, 0]  # 0.45 is below it, 0.6 is not
    assert take(found, np.nan, metric="missed")["failed"].tolist() == [1, 0]


def test_all_organs_fail_with_any_and_what_was_not_drawn_counts_as_nothing():
    liver, cohort = make_tables(["a"] * 20 + ["b"] * 20, 0.9)
    kidney = liver.assign(organ="kidney")
    kidney.loc[:3, "dice"] = 0.1
    liver.loc[3:5, "dice"] = 0.2
    kidney.loc[30:, ["dice", "status"]] = [np.nan, "reference_empty"]
    metrics = pd.concat([liver, kidney], ignore_index=True)
    found = compare_failures(metrics, cohort, Fairness(), ["sex"], 1)
    assert take(found, 0.5, "all")["failed"].tolist() == [6, 0]  # persons 0 to 5
    assert take(found, 0.5, "kidney")["n"].tolist() == [20, 10]


def test_of_three_groups_the_test_is_exact_and_the_interval_allows_for_the_choice():
    dice = np.full(120, 0.9)
    dice[[0, 1, 2, 3, 4, 40, 41]] = 0.1
    metrics, cohort = make_tables(["a"] * 40 + ["b"] * 40 + ["c"] * 40, dice)
    row = take(compare_failures(metrics, cohort, Fairness(correction="none"), ["sex"], 1), 0.5).iloc[0]
    # The probability of every table of these margins that is no likelier than 5, 2, 0.
    tables = [(i, j, 7 - i - j) for i in range(8) for j in range(8 - i)]
    chance = {table: stats.multivariate_hypergeom.pmf(table, [40, 40, 40], 7) for table in tables}
    exact = sum(value for value in chance.values() if value <= chance[5, 2, 0] * (1 + 1e-9))
    assert row["p"] == pytest.approx(exact, abs=4 * np.sqrt(exact / 5000))
    two = take(
        compare_failures(*(table[table["subject"].isin(cohort["subject"][cohort["group_sex"] != "b"])]
                           for table in (metrics, cohort)), Fairness(), ["sex"], 1), 0.5).iloc[0]  # fmt: skip
    assert row["gap"] == two["gap"] == 5 / 40
    assert row["gap_low"] < two["gap_low"] and row["gap_high"] > two["gap_high"]


def test_distances_fail_above_their_threshold_and_declared_metrics_by_their_direction():
    metrics, cohort = make_tables(["a"] * 20 + ["b"] * 20, 0.9)
    metrics["hd95_mm"] = np.where(metrics.index < 4, 80.0, 3.0)
    settings = Fairness(failure={"hd95_mm": [50.0], "nsd": [0.5]})
    found = compare_failures(metrics, cohort, settings, ["sex"], 1)
    assert set(found["metric"]) == {"hd95_mm", "missed"}  # nsd was not measured
    assert take(found, 50.0, metric="hd95_mm")["failed"].tolist() == [4, 0]
    assert take(found, 50.0, metric="hd95_mm")["worst_5"].tolist() == [80.0, 3.0]
    with pytest.raises(ValueError, match="failure: metrics must be among"):
        Fairness(failure={"dise": [0.5]})


def test_a_hidden_group_cannot_be_found_by_subtraction():
    dice = np.full(70, 0.9)
    dice[[0, 1, 2, 66]] = 0.1
    metrics, cohort = make_tables(["a"] * 32 + ["b"] * 33 + ["c"] * 5, dice)
    cohort["group_age"] = pd.Categorical(["old", "young"] * 35)
    found = compare_failures(metrics, cohort, Fairness(), ["sex", "age"], 1)
    hidden = found[found["group"] == "c"]
    assert hidden["suppressed"].all() and hidden[["n", "failed", "share", "worst_5"]].isna().all(axis=None)
    shown = hide_subtractable(found, COMPARISON)
    sex = shown["attribute"] == "sex"
    assert shown.loc[sex, ["failed", "share", "gap", "p"]].isna().all(axis=None)
    assert shown.loc[~sex, "failed"].notna().all() and (shown.loc[sex, "verdict"] != "").all()


def test_the_worst_twentieth_is_rounded_up():
    values = np.array([[0.1, 9.0], [0.9, 1.0], [0.8, np.nan]])
    assert average_worst(values, np.array([1.0, -1.0])).tolist() == [0.1, 9.0]
