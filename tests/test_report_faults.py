"""Direction from the measure's record, prompts from the model's, and no page with a name in it."""

from __future__ import annotations

import re
import time

import numpy as np
import plotly.graph_objects as go
import pytest

from helpers import models
from helpers.errors import SegfairError
from helpers.models import registry
from helpers.report import build_report, compose_report, render_report, sections
from helpers.report.blocks import Figure, Report, ReportSection, Text
from helpers.report.leaks import refuse_leaks
from helpers.report.sections import people
from helpers.report.sentences.gaps import describe_amount, tell_sizes
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


@pytest.mark.parametrize(("measure", "worse"), [(OVERLAP_LOST, "higher"), (FOUND, "lower")])
def test_which_way_is_worse_is_read_from_the_measure(monkeypatch, measure, worse):
    monkeypatch.setitem(MEASURES, measure.key, measure)
    row = ROW | {"metric": measure.key}
    levels = {"female": 0.9, "male": 0.8}
    said = describe_amount(row, alpha=0.05, levels=levels)
    start = f"{measure.name} is 0.100 {worse} for women (0.900) than for men (0.800)"
    assert said.startswith(start)
    assert tell_sizes(row, {}) == [f"{measure.name} 0.100 {worse}"]


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


def leak(text):
    """Return a section on people that shows a text."""
    return lambda outputs: ReportSection("people", "Who", "Who", (Text(f"Among them: {text}."),))


def add_section(monkeypatch, text):
    composers = [leak(text) if one is people.compose_people else one for one in sections._COMPOSERS]
    monkeypatch.setattr(sections, "_COMPOSERS", tuple(composers))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("PATIENT-0003-Quux", "the id of a person"),
        ("the mask of SCAN_0004_XYZ_left", "the id of a scan"),
        ("scan_0004_xyz", "the id of a scan"),
        ("/data/secret_place/images/SCAN_0004_XYZ.nii.gz", "the path of a file"),
        ("look into /data/secret_place", "the path of a folder"),
        ("made on ward7-pc", "the name of this machine"),
    ],
)
def test_a_page_with_a_name_in_it_is_not_written(tmp_path, monkeypatch, text, kind):
    monkeypatch.setattr("platform.node", lambda: "ward7-pc")
    folder = study.write_study(tmp_path, cohort=study.make_cohort(20))
    add_section(monkeypatch, text)
    with pytest.raises(SegfairError) as raised:
        build_report(folder)
    assert f"would show {kind}" in str(raised.value) and "tell its authors" in str(raised.value)
    assert text not in str(raised.value) and not (folder / "report.html").exists()


def test_ids_that_any_page_may_hold_do_not_stop_a_report(tmp_path, monkeypatch):
    ids = ["female", "worse", "liver", "a1", "scan 007", "mean", *range(27), *range(1001, 1028)]
    monkeypatch.setattr("getpass.getuser", lambda: "demo")
    cohort = study.make_cohort(60, excluded=0).head(60)
    cohort["subject"], cohort["scan"] = [str(one) for one in ids], [str(one) for one in ids]
    metrics = study.make_metrics(cohort)
    fairness = study.make_fairness(metrics, cohort, measures=("dice",))
    maps = study.make_maps(cohort)
    folder = study.write_study(
        tmp_path / "demo", cohort=cohort, metrics=metrics, fairness=fairness, maps=maps, failing=2
    )
    assert build_report(folder).is_file()


def test_the_name_of_a_study_is_no_leak(tmp_path):
    cohort = study.make_cohort(20)
    cohort["subject"] = ["kidneys-2024"] + [f"person-{place}" for place in range(1, len(cohort))]
    parameters = study.make_parameters(title="Kidneys-2024, all of them")
    assert build_report(study.write_study(tmp_path, cohort=cohort, parameters=parameters)).is_file()


def test_long_numbers_are_found_among_a_figures_numbers(tmp_path):
    figure = go.Figure(go.Scatter(x=np.array([1.0, 40417733.0, 1234.0]), y=np.array([1.0, 2.0, 3.0])))
    page = render_report(Report("T", "", (ReportSection("a", "A", "A", (Figure(lambda: figure, "how"),)),)))
    refuse_leaks(page, {"1234": "the id of a scan", "40417734": "the id of a scan"})
    with pytest.raises(SegfairError, match=r"the id of a scan .*'4' and has 8 characters"):
        refuse_leaks(page, {"40417733": "the id of a scan"})


def test_a_number_is_no_part_of_another():
    page = "<p>0.10234 of 10235.5 and arXiv:2406.12646</p>"
    refuse_leaks(page, dict.fromkeys(("10234", "10235", "12646"), "the id of a scan"))
    for told in ("scan 10234.", "(10234)", "case_10234_left"):
        with pytest.raises(SegfairError):
            refuse_leaks(f"<p>{told}</p>", {"10234": "the id of a scan"})


def test_searching_a_long_page_takes_no_time(tmp_path):
    page = "<p>" + " ".join(f"word{place} {place}.{place}" for place in range(200_000)) + "</p>"
    secrets = {f"SUBJECT_{place:05d}": "the id of a person" for place in range(3000)}
    began = time.perf_counter()
    refuse_leaks(page, secrets)
    assert time.perf_counter() - began < 5
