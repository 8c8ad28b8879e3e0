"""Direction from the measure's record, prompts from the model's, and no page with a name in it."""

from __future__ import annotations

import re
import time

import pandas as pd
import pytest

from helpers import models
from helpers.errors import SegfairError
from helpers.models import registry
from helpers.report import build_report, compose_report, render_report
from helpers.report.sections import people
from helpers.report.sentences.gaps import describe_amount, describe_model
from helpers.vocabulary.measures import MEASURES, Measure
from tests import report_study as study
from tests.test_report_sections import read_text

OVERLAP_LOST = Measure(
    "overlap_lost",
    "overlap lost",
    "Overlap lost",
    "The share of both masks that only one of them holds.",
    higher_is_better=False,
    bounds=(0.0, 1.0),
    default_margin=0.02,
)
FOUND = Measure(
    "share_found_mm", "share found", "Share found", "A measure whose key ends like a unit.", higher_is_better=True
)
ROW = {
    "model": "sam", "organ": "liver", "attribute": "sex", "worst_group": "female", "best_group": "male", "gap": 0.1,
    "gap_low": 0.05, "gap_high": 0.15, "p": 0.001, "p_adjusted": 0.002, "margin": 0.02, "verdict": "disparity",
}  # fmt: skip


@pytest.mark.parametrize(("measure", "worse", "better"), [(OVERLAP_LOST, "higher", "lower"), (FOUND, "lower", "higher")])
def test_which_way_is_worse_is_read_from_the_measure(monkeypatch, measure, worse, better):
    monkeypatch.setitem(MEASURES, measure.key, measure)
    row = ROW | {"metric": measure.key}
    levels = {"female": 0.9, "male": 0.8}
    said = describe_amount(row, alpha=0.05, levels=levels)
    start = f"{measure.name} is 0.100 {worse} for “female” (0.900) than for “male” (0.800)"
    assert said.startswith(start)
    told = describe_model("sam", pd.DataFrame([row]), alpha=0.05)
    assert f"{measure.name} 0.100 {worse}" in told and f" {better}" not in told


def test_a_model_without_prompts_is_told_without_a_word_on_them(tmp_path, monkeypatch):
    kind = registry.Kind("unet", "a network that needs no hint", "unet", prompt_types=())
    monkeypatch.setitem(models.KINDS, "unet", kind)
    parameters = study.make_parameters()
    parameters["models"] = [{"name": name, "kind": "unet"} for name in study.MODELS]
    report = compose_report(study.write_whole_study(tmp_path, parameters=parameters))
    text = read_text(report)
    page = re.sub(r"<script.*?</script>|<style.*?</style>", " ", render_report(report), flags=re.DOTALL)
    for words in (text, page):
        assert not re.search(r"prompt|upper bound|made elsewhere|boxes|a box (around|in)|clinician's own", words)
    assert "CT windows" in read_text(report["checklist"])
