"""On whom a model fails: on the first page, in the picture of verdicts, in a matrix of its own."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from helpers.fairness.failures import COMPARISON, compare_failures, hide_subtractable, pair_groups
from helpers.figures.failure_matrix import choose_kind, find_failing, show_failures
from helpers.figures.verdict_matrix import show_verdicts
from helpers.parameters import Fairness
from helpers.report import compose_report
from helpers.report.outputs import read_outputs
from helpers.report.sentences.failures import describe_failure, describe_failures_overall
from helpers.report.sentences.volumes import describe_volume
from tests import report_study as study
from tests.test_report_sections import read_text

SETTINGS = Fairness(min_group=10, bootstrap=100)


@lru_cache(maxsize=2)
def make_failing(few: str | None = None):
    """Return a study in which sam_demo misses the livers of 14 of 100 women and of one man."""
    cohort = study.make_cohort(200, sexes=("female", "male", "diverse"), few=few) if few else study.make_cohort(200)
    metrics = study.make_metrics(cohort, gap=0.0)
    women, men = (
        cohort.loc[cohort["included"] & (cohort["sex"] == sex), "subject"].unique() for sex in ("female", "male")
    )
    missed = [*women[1:15], *men[:1]]
    hit = metrics["subject"].isin(missed) & (metrics["model"] == "sam_demo") & (metrics["organ"] == "liver")
    metrics.loc[hit, ["dice", "iou", "nsd", "recall", "volume_pred_ml"]] = 0.0
    metrics.loc[hit, ["hd95_mm", "assd_mm", "boundary_error_mm"]] = float("nan")
    metrics.loc[hit, "status"] = "prediction_empty"
    included = cohort[cohort["included"]].reset_index(drop=True)
    return cohort, metrics, compare_failures(metrics, included, SETTINGS, ["sex", "bmi"], 1)


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    cohort, metrics, _ = make_failing()
    folder = tmp_path_factory.mktemp("failing")
    return study.write_study(
        folder, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort), run=study.make_run()
    )


def test_the_first_page_says_on_whom_the_model_fails(failing):
    report = compose_report(failing)
    told = read_text(report["answers"])
    assert "On whom does it fail?" in told
    assert "sam_demo, liver by sex: organ missed in 14 of 100 women (14 %), and in 1 of 100 men" in told
    assert "13.0 percentage points more" in told and "more than the margin of 5 %" in told
    assert "✕: groups differ in how often the model fails" in told, "the picture of the means has a mark for it"
    table = read_text(report["performance"])
    assert "women: 14 % (14 of 100)" in table and "organ missed" in table


def test_words_go_with_the_numbers():
    *_, failures = make_failing()
    rows = pair_groups(failures)
    liver = next(row for row in rows if (row["organ"], row["metric"], row["attribute"]) == ("liver", "missed", "sex"))
    assert "organ missed in 14 of 100 women (14 %)" in describe_failure(liver, 0.05)
    everything = next(row for row in rows if (row["organ"], row["metric"]) == ("all", "missed"))
    assert "some organ missed in 14" in describe_failure(everything, 0.05)
    said = describe_failures_overall(rows, 0.05)
    assert (
        said.startswith("How often models fail (Dice below 0.8, Dice below 0.5 and organ missed) was compared")
        and "groups were found to differ in" in said
    )
    assert describe_failures_overall([], 0.05) == ""


def test_what_is_missing_and_what_volumes_survive_is_said(tmp_path):
    cohort = study.make_cohort(200)
    metrics = study.make_metrics(cohort, gap=0.0)
    women = metrics["subject"].isin(cohort.loc[cohort["sex"] == "female", "subject"])
    few = metrics["number"] <= 40
    metrics.loc[women & few & (metrics["organ"] == "liver"), "status"] = "reference_empty"
    metrics.loc[women & few & (metrics["organ"] == "liver"), ["dice", "volume_pred_ml"]] = np.nan
    lost = women & (metrics["number"] > 150) & (metrics["model"] == "annotator") & (metrics["organ"] == "kidney_left")
    metrics.loc[lost, "status"] = "prediction_missing"
    metrics.loc[lost, ["dice", "volume_pred_ml"]] = np.nan
    metrics["volume_ref_ml"] *= np.where(women, 0.8, 1.0) * np.exp(0.1 * np.sin(metrics["number"]))
    metrics["volume_pred_ml"] = metrics["volume_ref_ml"] * np.where(women, 1.1, 1.0) * metrics["dice"]
    study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort), run=study.make_run(),
        failing=0,
    )  # fmt: skip
    report = compose_report(tmp_path)
    for section in ("answers", "losses"):
        told = read_text(report[section])
        # 25 women's only scans, and the second one of the first, whose liver it shows.
        assert "a result of some organ is missing for 26 of 100 women (26 %), and for 0 of 100 men" in told
        assert "Liver, by sex: the reference does not have it in 19 of 100 women (19 %)" in told
        assert re.search(r"it would be \S+, women then being the worst, if all that is missing were failures", told)
    assert "Gaps if what is missing were failures" in read_text(report["losses"])
    told = read_text(report["performance"])
    volume = r"by the experts' masks it is (\d+).\d ml larger in men than in women; the model's masks show (\d+)"
    found = re.search(f"sam_demo, liver by sex: {volume}", told)
    assert found and 280 < int(found[1]) < 330 and 140 < int(found[2]) < 190  # 0.2 and about 0.11 of 1500 ml


def test_the_gravest_threshold_of_the_metric_is_told_first():
    table = pd.DataFrame({"metric": ["hd95_mm", "dice", "dice", "missed"], "threshold": [50, 0.8, 0.5, float("nan")]})
    assert choose_kind(table, "dice") == ("dice", 0.5) and choose_kind(table, "nsd") == ("hd95_mm", 50)
    assert choose_kind(table[3:], "dice")[0] == "missed" and choose_kind(table[:0], "dice") is None


def test_cells_of_the_matrix_hold_share_count_and_a_sign_where_groups_differ():
    *_, failures = make_failing()
    page = show_failures(failures, "dice", alpha=0.05).html
    assert "<b>▲ 14 %</b> <small>(14)</small>" in page and "<b>1 %</b> <small>(1)</small>" in page
    assert page.count("<details>") == 2  # below 0.8, and missed
    assert "Nothing" not in page and "No failures were counted" in show_failures(failures[:0], "dice", alpha=0.05).html


def test_models_that_fail_on_nobody_have_a_sentence_and_no_table_of_zeros():
    *_, failures = make_failing()
    [perfect] = set(failures["model"]) - {"sam_demo"}
    page = show_failures(failures, "dice", alpha=0.05).html
    assert f"<p>On nobody: {perfect}.</p>" in page and f"<caption>{perfect}</caption>" not in page
    # A hidden group may hold one: then nobody is not said.
    hides = (failures["model"] == perfect) & (failures["group"] == "female")
    hidden = failures.assign(failed=failures["failed"].mask(hides))
    assert "On nobody" not in show_failures(hidden, "dice", alpha=0.05).html


def test_a_model_that_makes_a_difference_in_volume_larger_shows_no_part_of_it():
    row = {"model": "m", "organ": "liver", "attribute": "sex", "larger_group": "male", "smaller_group": "female"}
    row |= {"reference_gap": 175.0, "low": 125.0, "high": 150.0, "p_adjusted": 0.0004}
    assert "the model's masks make it 312.5 ml (model" in describe_volume(
        row | {"model_gap": 312.5, "difference": 137.5}
    )
    doubtful = row | {"model_gap": 312.5, "difference": 137.5, "reference_gap_low": -94.0, "reference_gap_high": 223.0}
    assert "larger in men than in women (not certain: 95 % CI −94.0 to 223.0 ml); the" in describe_volume(doubtful)
    assert "not certain" not in describe_volume(doubtful | {"reference_gap_low": 1.0})
    assert "the model's masks make it −20.0 ml (" in describe_volume(row | {"model_gap": -20.0, "difference": -195.0})
    assert "the model's masks show 90.0 ml of that (" in describe_volume(row | {"model_gap": 90.0, "difference": -85.0})


def test_many_models_are_marked_where_their_failures_differ():
    cohort, metrics, failures = make_failing()
    found = study.make_fairness(metrics, cohort).disparity
    models = [f"m{place}" for place in range(7)]
    many = pd.concat([found[found["model"] == "sam_demo"].assign(model=name) for name in models])
    one = failures[failures["model"] == "sam_demo"]
    failing = find_failing(pd.concat([one.assign(model=name) for name in models]), "dice", 0.05)
    page = show_verdicts(many, "dice", alpha=0.05, failing=failing).html
    assert "✕</b>" in page and "✕: groups differ in how often the model fails" in page
    assert "✕" not in show_verdicts(many, "dice", alpha=0.05).html


def test_beside_a_hidden_group_no_count_is_shown(tmp_path):
    cohort, metrics, failures = make_failing("diverse")
    kept = hide_subtractable(failures, COMPARISON)
    by_sex = kept[(kept["attribute"] == "sex") & (kept["model"] == "sam_demo")]
    assert by_sex["suppressed"].any() and by_sex[["failed", "share", "p", "gap"]].isna().all(axis=None)
    study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort), run=study.make_run(),
        parameters=study.make_parameters(),
    )  # fmt: skip
    shown = read_outputs(tmp_path).failures
    assert shown.loc[shown["attribute"] == "sex", ["n", "failed"]].isna().all(axis=None)
    assert "diverse" not in set(shown["group"]) and shown.loc[shown["attribute"] == "bmi", "failed"].notna().all()
