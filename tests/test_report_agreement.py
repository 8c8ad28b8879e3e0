"""Agreement of annotators and of repeated prompts in the report, and what is withheld of it."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.report.outputs import read_outputs
from helpers.report.sections.agreement import compose_agreement
from helpers.report.sentences.agreement import describe_against_agreement, describe_agreement
from helpers.schema import TABLES
from helpers.storage import write_table
from tests import report_study as study

ROW = {
    "kind": "annotators", "model": "between annotators", "organ": "liver", "metric": "dice", "attribute": "sex",
    "n": 60, "groups": 2,
    "worst_group": "female", "best_group": "male", "gap": 0.031, "gap_low": 0.011, "gap_high": 0.051, "p": 0.001,
    "p_adjusted": 0.002, "margin": 0.02, "verdict": "disparity", "note": "",
}  # fmt: skip
AGAINST = {
    "model": "sam", "organ": "liver", "metric": "dice", "attribute": "sex", "n": 60, "best_group": "male",
    "worst_group": "female", "gap": 0.05, "gap_low": 0.03, "gap_high": 0.07,
    "annotators_gap": 0.01, "annotators_low": 0.0, "annotators_high": 0.02,
    "difference": 0.04, "low": 0.02, "high": 0.06, "p": 0.001, "p_adjusted": 0.003,
}  # fmt: skip
OPEN = {"gap": 0.004, "gap_low": -0.01, "gap_high": 0.02, "p_adjusted": 0.6, "verdict": "inconclusive"}


def table(*changes, row=ROW):
    return pd.DataFrame([{**row, **change} for change in changes])


def test_a_group_on_which_people_agree_less_is_named():
    said = describe_agreement(table({}, {**OPEN, "organ": "spleen"}), 0.05, annotators=True)
    assert said.startswith(
        "Dice of annotators with each other, 2 comparisons of groups: it is significantly lower by 0.031 (liver, by "
        "sex)"
    )
    assert said.endswith("in women than in men.")


def test_where_nothing_is_shown_the_widest_gap_is_told_with_its_interval():
    said = describe_agreement(table(OPEN, {**OPEN, "gap": 0.007, "organ": "spleen"}), 0.05, annotators=True)
    assert "none was found to agree less" in said
    assert "0.007 (spleen, by sex), has the 95 % CI −0.010 to 0.020" in said


def test_prompts_name_their_model_and_too_few_people_are_said():
    said = describe_agreement(table({"kind": "prompts", "model": "sam_demo"}), 0.05, annotators=False)
    assert "each model's masks when its prompts are drawn again" in said and "(sam_demo, liver, by sex)" in said
    assert "could not be compared" in describe_agreement(table({"gap": None}), 0.05, annotators=False)


def test_a_models_gap_is_set_beside_the_peoples():
    larger = describe_against_agreement(table({}, row=AGAINST), 0.05)
    assert larger.startswith("Of 1 gap of a model, 1 is larger than the annotators' gap:")
    assert "0.050 against 0.010" in larger
    alike = describe_against_agreement(
        table({"p_adjusted": 0.4}, {"p_adjusted": 1.0, "difference": 0.0}, row=AGAINST), 0.05
    )
    assert "none was found to be larger" in alike and "(95 % CI of the difference 0.020 to 0.060)" in alike
    smaller = describe_against_agreement(table({"difference": -0.04}, row=AGAINST), 0.05)
    assert "none was found to be larger" in smaller, "a smaller gap, however sure, is not a larger one"
    assert describe_against_agreement(table({"difference": None}, row=AGAINST), 0.05) == ""


@pytest.fixture
def folder(tmp_path):
    cohort = study.make_cohort(60)
    metrics = study.make_metrics(cohort)
    return study.write_study(
        tmp_path / "study", cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort)
    )


def test_a_study_without_annotators_or_repeats_says_nothing(folder):
    assert compose_agreement(read_outputs(folder)) == []


def test_small_groups_are_withheld_and_the_rest_is_shown(folder):
    group = {
        "kind": "annotators",
        "model": "between annotators",
        "organ": "liver",
        "metric": "dice",
        "attribute": "sex",
        "mean": 0.9,
    }
    groups = pd.DataFrame([{**group, "group": name, "n": 30, "suppressed": False} for name in ("female", "male")])
    for changed in (False, True):
        write_table(groups.assign(n=3 if changed else 30), folder / TABLES["agreement_groups"].path)
        write_table(table({}), folder / TABLES["agreement"].path)
        write_table(table({}, row=AGAINST), folder / TABLES["against_agreement"].path)
        blocks = compose_agreement(read_outputs(folder))
        text = " ".join(getattr(block, "text", "") for block in blocks)
        assert ("0.031" in text) is not changed
        assert ("could not be compared" in text) is changed
        assert ("0.050 against 0.010" in text) is not changed
