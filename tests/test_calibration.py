"""The calibration itself: planted truths are what they are said to be, few cohorts pass, and a
method that is wrong is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers.fairness import group_comparison as comparison
from helpers.statistics.bootstrap import make_generator
from tests.calibration import calibrate_fairness
from tests.calibration.calibrate_fairness import Estimate, calibrate, judge, summarise, write_report
from tests.calibration.cohorts import Plan, draw_cohort, find_truth
from tests.calibration.failures import list_failure_questions, list_failure_runs
from tests.calibration.few_masks import list_few_masks_questions, list_few_masks_runs
from tests.calibration.masks import MaskRun, draw_mask_cohort, list_mask_questions, list_mask_runs
from tests.calibration.questions import (
    BOUNDARY,
    Check,
    Question,
    find_true_gaps,
    lies_in,
    list_questions,
    list_runs,
    predict_power,
)
from tests.calibration.real_scores import list_real_questions, list_real_runs, see_dealt_labels

COVERED = Check("coverage 30", "gap boundary_error_mm", "gap", 0.93, 0.97)


def test_limits_are_judged_by_the_estimate_and_its_error():
    check = Check("run", "seen", "text", 0.93, 0.97)
    assert judge(check, Estimate(900, 0.95, 0.007)) == "yes"
    assert judge(check, Estimate(900, 0.92, 0.007)) == "within Monte-Carlo error"
    assert judge(check, Estimate(900, 0.91, 0.007)) == judge(check, Estimate(900, 0.99, 0.007)) == "**NO**"
    assert judge(Check("run", "seen", "for comparison"), Estimate(900, 0.0, 0.1)) == "–"
    # Nothing seen is nothing kept.
    assert judge(check, Estimate(0, np.nan, np.nan)) == "**NO**"


def test_means_over_cohorts_by_hand():
    found = summarise([{"a": 1.0, "b": np.nan}, {"a": 0.0, "b": 2.0}, {"a": 1.0, "b": 4.0}])
    assert found["a"].cohorts == 3 and found["a"].mean == pytest.approx(2 / 3)
    assert found["a"].error == pytest.approx(np.std([1, 0, 1], ddof=1) / np.sqrt(3))
    assert (found["b"].cohorts, found["b"].mean) == (2, 3.0)


def test_every_question_is_answered_by_a_run():
    runs = {**list_runs(), **list_mask_runs(), **list_failure_runs(), **list_few_masks_runs()}
    questions = [
        *list_questions(), *list_mask_questions(), *list_failure_questions(), *list_few_masks_questions()
    ]  # fmt: skip
    checks = [check for question in questions for check in question.checks]
    assert {check.run for check in checks} == set(runs)
    real = {check.run for question in list_real_questions() for check in question.checks}
    assert set(list_real_runs()) in (real, set()), "all of them, or none where the scores are not at hand"
    limited = [check for check in checks if np.isfinite([check.low, check.high]).any()]
    assert len(limited) > 40


@pytest.mark.data
def test_labels_of_real_scores_are_dealt_out_anew(data_folder):
    [one], [other] = (see_dealt_labels("real sex", number, 1) for number in (0, 1))
    assert 0 <= one["leaves out"] <= 0.5 and one != other


def test_an_interval_that_leaves_the_value_out_does_not_hold_it():
    low, high = pd.Series([0.0, 1.0, np.nan, -1.0]), pd.Series([2.0, 3.0, 1.0, 0.5])
    assert lies_in(low, high, 0.5) == pytest.approx(2 / 3)
    assert np.isnan(lies_in(low[2:3], high[2:3], 0.5))


def test_planted_gaps_are_the_truth():
    plan = Plan(100, women_mm=0.4, organs=("liver",))
    truth = find_truth(plan, (BOUNDARY, "dice"), ("sex",), 200_000)
    means = truth["model", "liver", BOUNDARY, "sex"]
    assert means["female"] - means["male"] == pytest.approx(0.4, abs=0.02)
    rows = pd.DataFrame(
        [
            {
                "model": "model",
                "organ": "liver",
                "metric": BOUNDARY,
                "attribute": "sex",
                "best_group": "male",
                "worst_group": "female",
            }
        ]
    )
    assert find_true_gaps(rows, truth)[0] == pytest.approx(0.4, abs=0.02)


def test_smaller_organs_have_a_gap_in_dice_and_none_in_excess():
    truth = find_truth(Plan(100, women_size=0.7), ("dice", BOUNDARY), ("sex",), 200_000)
    dice, excess, boundary = (truth["model", "kidney", name, "sex"] for name in ("dice", "excess", BOUNDARY))
    assert dice["male"] - dice["female"] > 0.005
    assert abs(excess["male"] - excess["female"]) < 0.001
    assert abs(boundary["male"] - boundary["female"]) < 0.02


def test_cohorts_depend_on_the_generator_and_hold_what_the_plan_says():
    plan = Plan(400, women_share=0.1, repeated=0.5, missing=0.2, dice_step=0.01)
    metrics, cohort = draw_cohort(plan, make_generator(1, "x"))
    again, _ = draw_cohort(plan, make_generator(1, "x"))
    pd.testing.assert_frame_equal(metrics, again)
    people = cohort.drop_duplicates("subject")
    assert len(people) == 400 and 550 < len(cohort) < 650
    assert 0.05 < (people["sex"] == "female").mean() < 0.16
    assert 0.75 < len(metrics) / (2 * len(cohort)) < 0.85
    assert np.abs(metrics["dice"] * 100 - (metrics["dice"] * 100).round()).max() < 1e-9
    assert cohort.groupby("subject")["group_sex"].nunique().max() == 1


def test_power_is_that_asked_for_at_the_detectable_difference():
    assert predict_power(1.0, 118.0) == pytest.approx(0.8, abs=1e-6)
    assert predict_power(0.0, 118.0) == pytest.approx(0.05, abs=1e-6)


def test_few_cohorts_pass():
    found = calibrate(3, 0.02, 0, ["coverage 30"])
    assert judge(COVERED, found["coverage 30"][COVERED.seen]) != "**NO**"


def test_cohorts_do_not_depend_on_how_they_are_split(monkeypatch):
    found = calibrate(3, 0.004, 0, ["coverage 30"])
    monkeypatch.setattr(calibrate_fairness, "CHUNK", 2)
    assert calibrate(3, 0.004, 0, ["coverage 30"]) == found


def test_intervals_that_are_too_narrow_are_caught(monkeypatch):
    original = comparison.find_difference

    def halve(*given, **named):
        found = original(*given, **named)
        middle, half = (found.low + found.high) / 2, (found.high - found.low) / 4
        return replace(found, low=middle - half, high=middle + half)

    monkeypatch.setattr(comparison, "find_difference", halve)
    found = calibrate(3, 0.02, 0, ["coverage 30"])
    assert judge(COVERED, found["coverage 30"][COVERED.seen]) == "**NO**"


def test_the_report_names_what_is_broken(tmp_path):
    questions = [Question("Cover", "Why.", [COVERED, replace(COVERED, seen="means dice", text="means")])]
    found = {"coverage 30": {COVERED.seen: Estimate(900, 0.95, 0.007), "means dice": Estimate(900, 0.8, 0.013)}}
    broken = write_report(questions, found, 1, 90.0, tmp_path / "validity.md")
    assert broken == ["Cover: means: 80.0 %, limit 93.0 % to 97.0 %"]
    text = (tmp_path / "validity.md").read_text(encoding="utf-8")
    assert "| means | 900 | 80.0 % | 1.3 | 93.0 % to 97.0 % | **NO** |" in text and "1 limits are broken" not in text


def test_masks_are_moved_by_what_is_planted():
    run = MaskRun("kidney", (6.0, 4.0, 4.0), 2.0, 1.0, 1)
    metrics, cohort = draw_mask_cohort(run, make_generator(2, "masks"))
    means = metrics.merge(cohort, on="subject").groupby("sex", observed=True)["boundary_error_mm"].mean()
    assert means["female"] - means["male"] == pytest.approx(run.true_gap_mm, abs=0.6)
