from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.fairness.volumes import compare_volumes
from helpers.parameters import Fairness

SETTINGS = Fairness(bootstrap=400, correction="none")


def make_tables(reference, predicted, groups, *, organ="liver"):
    people = [f"p{place:03d}" for place in range(len(groups))]
    cohort = pd.DataFrame({"subject": people, "scan": people, "number": range(len(people))})
    cohort["group_sex"] = pd.Categorical(groups)
    metrics = pd.DataFrame({"subject": people, "scan": people, "model": "m", "organ": organ, "status": "ok"})
    return metrics.assign(volume_ref_ml=reference, volume_pred_ml=predicted), cohort


def test_a_model_that_draws_everybody_nearer_to_the_mean_hides_a_difference():
    rng = np.random.default_rng(1)
    groups = np.repeat(["female", "male"], 60)
    reference = np.where(groups == "male", 180.0, 150.0) + rng.normal(0, 20, 120)
    # 12 ml of the 30 ml are left, with an error of 5 ml.
    predicted = reference - np.where(groups == "male", 18.0, 0.0) + rng.normal(0, 5, 120)
    metrics, cohort = make_tables(reference, predicted, groups)
    row = compare_volumes(metrics, cohort, SETTINGS, ["sex"], 1).iloc[0]
    assert (row["larger_group"], row["smaller_group"], row["n"]) == ("male", "female", 120)
    male = groups == "male"
    assert row["reference_gap"] == pytest.approx(reference[male].mean() - reference[~male].mean())
    assert row["model_gap"] == pytest.approx(predicted[male].mean() - predicted[~male].mean())
    assert row["difference"] == pytest.approx(row["model_gap"] - row["reference_gap"])
    # Both are of the same people: the interval is that of their differences, not of two samples.
    paired = predicted - reference
    exact = stats.ttest_ind(paired[male], paired[~male], equal_var=False).confidence_interval()
    assert [row["low"], row["high"]] == pytest.approx([exact.low, exact.high], abs=0.4)
    assert row["p"] < 0.001 and row["high"] < -10


def test_missed_organs_have_no_volume_and_absent_ones_do_not_count():
    metrics, cohort = make_tables([100.0] * 30, [100.0] * 30, ["a"] * 15 + ["b"] * 15)
    metrics.loc[:2, "volume_ref_ml"] = 200.0
    metrics.loc[3, "volume_pred_ml"] = 0.0
    metrics.loc[14, ["volume_ref_ml", "volume_pred_ml"]] = [0.0, 90.0]
    row = compare_volumes(metrics, cohort, SETTINGS, ["sex"], 1).iloc[0]
    assert row["n"] == 29 and row["reference_gap"] == pytest.approx(300 / 14)
    assert row["model_gap"] == pytest.approx(-100 / 14)


def test_of_three_groups_the_experts_masks_choose_and_small_groups_take_no_part():
    groups = ["a"] * 20 + ["b"] * 20 + ["c"] * 20 + ["few"] * 3
    reference = np.repeat([100.0, 150.0, 120.0, 900.0], [20, 20, 20, 3]) + np.arange(63) % 5
    metrics, cohort = make_tables(reference, reference[::-1].copy(), groups)
    row = compare_volumes(metrics, cohort, SETTINGS, ["sex"], 1).iloc[0]
    assert (row["larger_group"], row["smaller_group"], row["n"]) == ("b", "a", 60)


def test_without_volumes_or_two_groups_there_is_nothing():
    metrics, cohort = make_tables([1.0] * 20, [1.0] * 20, ["a"] * 20)
    assert compare_volumes(metrics, cohort, SETTINGS, ["sex"], 1).empty
    assert compare_volumes(metrics.drop(columns="volume_pred_ml"), cohort, SETTINGS, ["sex"], 1).empty
    metrics, cohort = make_tables([5.0] * 40, [5.0] * 40, ["a", "b"] * 20)
    row = compare_volumes(metrics, cohort, SETTINGS, ["sex"], 1).iloc[0]
    assert row[["reference_gap", "model_gap", "difference"]].tolist() == [0, 0, 0]
