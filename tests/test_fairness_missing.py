from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.fairness.missing import bound_missing, compare_absent, compare_missing
from helpers.parameters import Fairness

SETTINGS = Fairness(metrics=["dice", "hd95_mm"])


def make_tables(*statuses, groups=("a",) * 20 + ("b",) * 30):
    people = [f"p{place:03d}" for place in range(len(groups))]
    cohort = pd.DataFrame({"subject": people, "scan": people, "number": range(len(people))})
    cohort["group_sex"] = pd.Categorical(groups)
    metrics = pd.DataFrame({"subject": people, "scan": people, "model": "m", "organ": "liver", "status": "ok"})
    metrics = metrics.assign(dice=0.9, hd95_mm=3.0)
    for status, places in statuses:
        metrics.loc[list(places), "status"] = status
        metrics.loc[list(places), ["dice", "hd95_mm"]] = np.nan
    return metrics, cohort


def test_failed_masks_are_counted_as_missing_scores_are():
    metrics, cohort = make_tables(("prediction_missing", range(5)), ("failed", [5]), ("not_drawn", [20]))
    found = compare_missing(metrics, cohort, SETTINGS, ["sex"])
    assert found["missing"].tolist() == [6, 1]
    assert found["p"].iloc[0] == pytest.approx(stats.fisher_exact([[6, 14], [1, 29]]).pvalue)


def test_an_organ_that_a_model_never_draws_is_nobody_s_lack():
    metrics, cohort = make_tables(("not_drawn", range(50)))
    assert compare_missing(metrics, cohort, SETTINGS, ["sex"]).empty
    assert bound_missing(metrics, cohort, SETTINGS, ["sex"]).empty


def test_organs_beyond_the_field_of_view_are_counted_by_group():
    metrics, cohort = make_tables(("reference_empty", range(8)), ("both_empty", [20, 21]))
    # The other model failed on a scan; the organ is as absent.
    other = metrics.assign(model="n").replace({"status": {"both_empty": "prediction_missing"}})
    again = metrics.iloc[[0]].assign(scan="x", status="ok")  # a second scan shows the first person's
    cohort = pd.concat([cohort, cohort.iloc[[0]].assign(scan="x", number=99)], ignore_index=True)
    found = compare_absent(pd.concat([metrics, other, again]), cohort, SETTINGS, ["sex"])
    assert found["missing"].tolist() == [7, 2] and found["organ"].tolist() == ["liver"] * 2
    assert found["p_adjusted"].iloc[0] == pytest.approx(stats.fisher_exact([[7, 13], [2, 28]]).pvalue)


def test_a_gap_is_bounded_by_what_is_missing():
    metrics, cohort = make_tables(("prediction_missing", range(5)))
    metrics.loc[20:, "dice"] = 0.8
    row = bound_missing(metrics, cohort, SETTINGS, ["sex"])
    assert row["metric"].tolist() == ["dice"]  # a distance has no worst value
    row = row.iloc[0]
    assert (row["best_group"], row["worst_group"], row["gap"]) == ("a", "b", pytest.approx(0.1))
    # 15 of 20 at 0.9: 0.675 with five failures, 0.925 if they were perfect.
    assert (row["gap_failed"], row["worst_failed"]) == (pytest.approx(-0.125), "a")
    assert (row["lowest"], row["highest"]) == (pytest.approx(-0.125), pytest.approx(0.125))
    metrics["status"] = "ok"
    assert bound_missing(metrics, cohort, SETTINGS, ["sex"]).empty


def test_a_distance_never_improves_by_missing_more():
    metrics, cohort = make_tables()
    metrics = metrics.assign(extent_mm=500.0)
    metrics.loc[:3, "hd95_mm"] = 43.0  # four bad ones of 20: a mean of 11 against 3
    bad = bound_missing(metrics, cohort, SETTINGS, ["sex"])
    metrics.loc[:3, ["dice", "hd95_mm", "status"]] = [0.0, np.nan, "prediction_empty"]
    row = bound_missing(metrics, cohort, SETTINGS, ["sex"]).iloc[0]
    assert bad.empty and (row["metric"], row["gap"]) == ("hd95_mm", 0.0)  # missed altogether they are left out
    assert row["worst_failed"] == "a" and abs(row["gap_failed"]) == pytest.approx((4 * 500 + 16 * 3) / 20 - 3)
    assert row["lowest"] == row["highest"] == row["gap_failed"]
    # What failed for another reason may have been any distance.
    metrics.loc[0, "status"] = "failed"
    row = bound_missing(metrics, cohort, SETTINGS.model_copy(update={"metrics": ["hd95_mm"]}), ["sex"]).iloc[0]
    assert abs(row["highest"] - row["lowest"]) == pytest.approx(500 / 20)


def test_small_groups_have_no_numbers():
    metrics, cohort = make_tables(("failed", [0, 20, 49]), groups=("a",) * 20 + ("b",) * 25 + ("c",) * 5)
    for find in (compare_missing, compare_absent):
        found = find(metrics.replace({"status": {"failed": "both_empty"}}) if find is compare_absent else metrics,
                     cohort, SETTINGS, ["sex"]).set_index("group")  # fmt: skip
        assert found.loc["c", "suppressed"] and found.loc["c", ["n", "missing", "share", "p"]].isna().all()
    assert set(bound_missing(metrics, cohort, SETTINGS, ["sex"])["worst_group"]) <= {"a", "b"}
