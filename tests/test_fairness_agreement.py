"""Agreement per group, and models' gaps beside the annotators': answers by hand on six people, and
the audit's own numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers import fairness
from helpers.fairness import ANNOTATORS
from helpers.parameters import Fairness
from helpers.schema import TABLES
from tests.test_fairness_groups import make_cohort, make_metrics

SIX = Fairness(metrics=["dice", "precision"], min_group=3, bootstrap=500, margin={"dice": 0.02, "precision": 0.02})
COHORT = make_cohort(sex=["female"] * 3 + ["male"] * 3)


def make_pairs(*pairs: list[float]) -> pd.DataFrame:
    """Return a row per pair of annotators and scan."""
    return pd.concat([make_metrics(COHORT, liver=dice) for dice in pairs], ignore_index=True).assign(model=ANNOTATORS)


def audit(measured, dice=(0.7, 0.8, 0.9, 0.9, 0.95, 1.0), settings=SIX):
    metrics = make_metrics(COHORT, liver=list(dice)).assign(precision=0.5)
    return fairness.audit_agreement(measured, metrics, COHORT, settings, ["sex"], 1)


def test_pairs_of_annotators_are_averaged_per_person_and_compared_per_group():
    # Women agree by 0.8 and 0.6 (mean 0.7), men by 0.9 and 0.9: a gap of 0.2.
    found = audit({"annotators": make_pairs([0.8] * 3 + [0.9] * 3, [0.6] * 3 + [0.9] * 3)})
    rows = found.groups.set_index("group")
    assert rows["mean"].to_dict() == pytest.approx({"female": 0.7, "male": 0.9})
    assert rows["n"].tolist() == [3, 3], "people are counted, not pairs"
    [gap] = found.disparity.to_dict("records")
    assert (gap["kind"], gap["metric"], gap["best_group"], gap["worst_group"]) == (
        "annotators",
        "dice",
        "male",
        "female",
    )
    assert gap["gap"] == pytest.approx(0.2)
    assert found.disparity.columns.tolist() == TABLES["agreement"].names
    assert found.groups.columns.tolist() == TABLES["agreement_groups"].names


def test_the_gap_beside_the_models_is_between_the_models_groups():
    # The model: women 0.8, men 0.95. Annotators agree better on women (0.95) than on men (0.9):
    # −0.05 in that direction.
    found = audit({"annotators": make_pairs([0.95] * 3 + [0.9] * 3)})
    [row] = found.against.to_dict("records")
    assert (row["best_group"], row["worst_group"], row["n"]) == ("male", "female", 6)
    assert (row["gap"], row["annotators_gap"]) == (pytest.approx(0.15), pytest.approx(-0.05))
    assert row["difference"] == pytest.approx(0.20)
    assert row["low"] < row["difference"] < row["high"]
    assert found.against.columns.tolist() == TABLES["against_agreement"].names


def test_a_model_that_fails_where_people_disagree_has_no_gap_beyond_theirs():
    dice = [0.7, 0.8, 0.9, 0.9, 0.95, 1.0]
    [row] = audit({"annotators": make_pairs(dice)}, dice).against.to_dict("records")
    assert (row["difference"], row["low"], row["high"]) == (0, 0, 0), "the same people are resampled for both"


def test_the_models_gap_is_that_of_the_audit_itself():
    rng = np.random.default_rng(3)
    cohort = make_cohort(sex=["female", "male", None] * 20)
    metrics = make_metrics(cohort, liver=rng.normal(0.8, 0.05, 60), spleen=rng.normal(0.7, 0.05, 60))
    settings = SIX.model_copy(update={"metrics": ["dice"]})
    pairs = make_metrics(cohort, liver=rng.normal(0.9, 0.02, 60), spleen=rng.normal(0.9, 0.02, 60)).assign(
        model=ANNOTATORS
    )
    found = fairness.audit_agreement({"annotators": pairs}, metrics, cohort, settings, ["sex"], 7).against
    direct = fairness.run_audit(metrics, cohort, settings, ["sex"], 7).disparity
    keys = ["organ", "gap", "gap_low", "gap_high", "best_group", "worst_group"]
    pd.testing.assert_frame_equal(found[keys], direct[keys])
    theirs = fairness.run_audit(pairs, cohort, settings, ["sex"], 7).disparity
    assert found["annotators_gap"].abs().tolist() == pytest.approx(theirs["gap"].tolist())


def test_groups_too_small_are_not_set_beside_each_other():
    found = audit({"annotators": make_pairs([0.8, 0.8, np.nan, 0.9, 0.9, 0.9])})
    assert found.against.empty and found.against.columns.tolist() == TABLES["against_agreement"].names
    assert found.disparity["gap"].isna().all() and found.groups["suppressed"].tolist() == [True, False]


def test_repeated_prompts_are_a_kind_of_their_own():
    draws = make_metrics(COHORT, liver=[0.9] * 3 + [0.99] * 3).assign(model="sam")
    found = audit({"annotators": pd.DataFrame(), "prompts": draws})
    assert set(found.disparity["kind"]) == {"prompts"} and found.against.empty
    assert found.disparity["gap"].tolist() == pytest.approx([0.09])
    assert len(found.notes) == 1 and "drawn again" in found.notes[0]


def test_nothing_measured_gives_tables_with_their_columns():
    found = audit({"annotators": pd.DataFrame(), "prompts": pd.DataFrame()})
    assert found.disparity.columns.tolist() == TABLES["agreement"].names
    assert found.disparity.empty and found.groups.empty and found.against.empty and found.notes == []


def test_metrics_that_need_a_reference_are_left_out():
    precise = SIX.model_copy(update={"metrics": ["precision"]})
    found = audit({"annotators": make_pairs([0.9] * 6)}, settings=precise)
    assert found.disparity.empty and found.against.empty


def test_agreement_is_adjusted_for_the_organs_size_too():
    # What annotators share has no volume of its own: the organ's comes from the metrics.
    size = np.array([100.0, 130, 120, 150, 110, 160])
    metrics = make_metrics(COHORT, liver=[0.7, 0.8, 0.9, 0.9, 0.95, 1.0]).assign(precision=0.5, volume_ref_ml=size)
    settings = SIX.model_copy(update={"adjust_for_volume": True})
    pairs = make_pairs([0.8, 0.7, 0.75, 0.9, 0.95, 0.85])
    found = fairness.audit_agreement({"annotators": pairs}, metrics, COHORT, settings, ["sex"], 1).disparity.iloc[0]
    direct = fairness.run_audit(
        pairs.assign(volume_ref_ml=size), COHORT, settings.model_copy(update={"metrics": ["dice"]}), ["sex"], 1
    )
    assert np.isfinite(found["adjusted_gap"]) and found["adjusted_gap"] == direct.disparity.iloc[0]["adjusted_gap"]
