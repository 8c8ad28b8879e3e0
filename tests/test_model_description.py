"""What a reader must know of models before comparing them: prompts, members, training data."""

from __future__ import annotations

import pytest

from helpers import models
from helpers.models.description import list_training
from helpers.parameters import Cohort, FusionModel, Model
from helpers.vocabulary.datasets import match_datasets

SAM = Model(name="sam", kind="sam")
ELLIPSE = Model(name="ellipse", kind="prompt_only")
OURS = Model(name="ours", kind="precomputed", path="{scan}.nii.gz")
AUTO = Model(name="auto", kind="precomputed", path="{scan}.nii.gz", prompted=False)
HAND = Model(name="hand", kind="precomputed", path="{scan}.nii.gz", annotator=True)
ALL = FusionModel(name="all", kind="fusion", of=["sam", "auto"], tie="first")


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        (SAM, "prompted"),
        (ELLIPSE, "prompted"),
        (OURS, "made elsewhere"),
        (AUTO, "automatic"),
        (HAND, "annotator"),
        # What is made of a prompted mask knows where the organ is.
        (ALL, "prompted"),
    ],
)
def test_how_masks_came_about(model, mode):
    assert models.find_mode(model, [SAM, ELLIPSE, OURS, AUTO, HAND, ALL]) == mode
    assert mode in models.BLOCKS


def test_who_cannot_draw_a_scan_without_an_expert_s_mask():
    every = [SAM, ELLIPSE, OURS, AUTO, HAND, ALL, FusionModel(name="both", kind="fusion", of=["auto", "ours"])]
    assert [one.name for one in every if models.needs_reference(one, every)] == ["sam", "ellipse", "hand", "all"]


def test_rows_over_all_models_average_models_alone():
    planted = Model(name="planted", kind="precomputed", path="{scan}.nii.gz", planted=True)
    assert models.list_pooled([SAM, ELLIPSE, OURS, AUTO, HAND, ALL, planted]) == ["sam", "ours", "auto"]


def test_names_say_what_sets_models_apart_only_where_something_does():
    assert models.label_models([SAM, ELLIPSE, HAND]) == {"sam": "sam", "ellipse": "ellipse", "hand": "hand"}
    assert models.label_models([SAM, AUTO, ALL]) == {
        "sam": "sam (prompted)",
        "auto": "auto (automatic)",
        "all": "all (fusion, prompted)",
    }


@pytest.mark.parametrize(
    ("names", "held", "found"),
    [
        (["AMOS", "BTCV"], "AMOS22", ["AMOS"]),
        (["KiTS-19", "KiTS23"], "KiTS23", ["KiTS-19", "KiTS23"]),
        (["TotalSegmentator"], "total segmentator", ["TotalSegmentator"]),
        (["FLARE22"], "AMOS22", []),
    ],
)
def test_data_sets_are_matched_in_any_spelling_and_of_any_year(names, held, found):
    assert match_datasets(names, held) == found


def make_cohort(**keys: object) -> Cohort:
    organs = {"liver": {"labels": [1]}}
    return Cohort.model_validate(
        {"source": "table", "path": "t.csv", "organs": organs, "attributes": {"sex": None}} | keys
    )


def test_training_on_the_studys_own_data_is_said():
    total = Model(name="total", kind="totalsegmentator")
    fused = FusionModel(name="fused", kind="fusion", of=["total", "ours"], tie="first")
    study = [total, OURS, fused]
    held = make_cohort(dataset="TotalSegmentator")
    assert list_training(fused, study) == ["TotalSegmentator"]
    assert models.tell_training(total, study, held) == (
        "total was trained on TotalSegmentator, where these scans come from: its scores are too good, unless these "
        "scans were kept out of its training"
    )
    assert models.tell_training(OURS, study, held) == ""
    assert models.tell_training(total, study, make_cohort()) == ""
    declared = OURS.model_copy(update={"trained_on": ["total-segmentator"], "trained_on_scans": ["s1"]})
    assert models.tell_training(declared, study, held).endswith("on scans that it saw, which are left out")
    assert "look up whether TotalSegmentator is among them" in models.tell_training(
        Model(name="medsam", kind="medsam"), study, held
    )
    assert models.tell_training(total, study, make_cohort(source="totalsegmentator")) != ""
