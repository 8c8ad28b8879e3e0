"""Whole studies through papermill: the demo on a small cohort, and the real data where it is at hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from helpers import pipeline
from helpers.study import STAGES, Study, load_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*kernel.*:RuntimeWarning"
    ),
]

# These share one run of the demo, which is not to be made once per worker.
ONE_WORKER = pytest.mark.xdist_group("demo")


def run(params, overrides, stages=STAGES) -> tuple[Study, list[str]]:
    said: list[str] = []
    study = load_study(params, overrides)
    pipeline.run_study(study, overrides=overrides, stages=stages, force=False, say=said.append)
    return study, said


def check_contracts(study: Study) -> None:
    """Check the columns that other tools rely on, and that no stage left half a file behind."""
    cohort, metrics = study.read("cohort"), study.read("metrics")
    attributes = list(study.parameters.cohort.attributes)
    assert {"subject", "scan", "number", "included", "reason", *(f"group_{name}" for name in attributes)} <= set(cohort)
    scans, models, organs = len(study.read_included()), len(study.parameters.models), len(study.organ_ids)
    assert len(metrics) == scans * models * organs
    wanted = [
        "dice",
        "iou",
        "nsd",
        "hd95_mm",
        "assd_mm",
        "precision",
        "recall",
        "volume_ref_ml",
        "volume_pred_ml",
        "surface_ref_cm2",
        "boundary_error_mm",
        "dice_expected",
        "status",
    ]
    assert set(wanted) <= set(metrics)
    assert metrics.loc[metrics["status"] == "ok", "dice"].between(0, 1).all()
    assert not metrics.loc[metrics["status"].isin(["reference_empty", "both_empty"]), "dice"].notna().any(), (
        "an organ that is not there has no score"
    )
    groups = {
        "model",
        "organ",
        "metric",
        "attribute",
        "group",
        "n",
        "mean",
        "sd",
        "median",
        "q1",
        "q3",
        "ci_low",
        "ci_high",
    }
    assert groups <= set(study.read("groups"))
    assert {"worst_group", "best_group", "gap", "gap_low", "gap_high", "test", "p", "p_adjusted"} <= set(
        study.read("disparity")
    )
    assert {"model", "organ", "attribute", "vertex", "x", "y", "z", "difference"} <= set(study.read("maps"))
    assert not list(study.folder.rglob(".partial-*"))
    record = json.loads((study.folder / "run.json").read_text())
    assert [record["stages"][stage]["status"] for stage in STAGES] == ["finished"] * 5
    for stage in STAGES:
        assert (study.folder / "notebooks" / f"{stage}.html").stat().st_size > 10_000


def check_report(study: Study) -> str:
    """Check that the report is one offline file that names nobody; return its text."""
    html = (study.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"'](https?:)?//", html)
    assert len(html) < 20e6
    assert str(study.root) not in html
    for scan in study.read("cohort")["scan"]:
        assert not re.search(rf"\b{re.escape(scan)}\b", html), f"the report names scan {scan}"
    return html


@pytest.fixture(scope="module")
def demo(tmp_path_factory, repository):
    overrides = {
        "outputs": str(tmp_path_factory.mktemp("demo")),
        "cohort.phantoms.subjects": 16,
        "cohort.phantoms.spacing_mm": [5.0, 5.0, 8.0],
        "fairness.min_group": 3,
        "fairness.bootstrap": 200,
        "spatial.organs": ["liver"],
    }
    study, said = run(repository / "params" / "demo.yaml", overrides)
    return study, said, overrides


@ONE_WORKER
def test_demo_runs_from_cohort_to_report(demo):
    study, said, _ = demo
    assert [line.split()[1] for line in said if "finished in" in line] == [f"{stage}:" for stage in STAGES]
    check_contracts(study)
    html = check_report(study)
    assert "phantom" in html.lower()


@ONE_WORKER
def test_demo_faults_are_found_and_told(demo):
    study, _, _ = demo
    cohort = study.read("cohort")
    excluded = study.read("exclusions")
    assert len(excluded) == 1 and "origin" in excluded["reason"].iloc[0], (
        "the mask on another grid, and only it, is left out"
    )
    assert cohort["subject"].duplicated().any(), "one person has two scans"
    assert cohort.loc[cohort["included"], "age"].isna().sum() == 1, "a missing age keeps its scan in the study"
    metrics = study.read("metrics")
    empty = metrics[metrics["status"].isin(["reference_empty", "both_empty"])]
    assert set(empty["organ"]) == {"spleen"} and len(set(empty["scan"])) == 1, "one person has no spleen"


@ONE_WORKER
def test_planted_disparity_is_where_it_was_planted(demo):
    study, _, _ = demo
    metrics = study.read("metrics").merge(study.read("cohort")[["scan", "sex"]], on="scan", validate="many_to_one")
    liver = metrics[(metrics["model"] == "planted") & (metrics["organ"] == "liver")].groupby("sex")["dice"].mean()
    other = metrics[(metrics["model"] == "planted") & (metrics["organ"] == "lung_left")].groupby("sex")["dice"].mean()
    assert liver["male"] - liver["female"] > 0.02
    assert abs(other["male"] - other["female"]) < 0.02


@ONE_WORKER
def test_second_run_takes_nothing(demo, repository):
    _, _, overrides = demo
    _, said = run(repository / "params" / "demo.yaml", overrides)
    assert said == [f"[{n}/5] {stage}: up to date" for n, stage in enumerate(STAGES, 1)]


@ONE_WORKER
def test_one_broken_scan_does_not_stop_the_study(demo, repository):
    study, _, overrides = demo
    included = study.read_included()
    victim = included.iloc[2]
    image = Path(victim["image"])
    whole = image.read_bytes()
    try:
        image.write_bytes(whole[: len(whole) // 3])
        again, _ = run(
            repository / "params" / "demo.yaml", overrides | {"name": "demo"}, stages=("02_inference", "03_performance")
        )
        table = pd.read_parquet(again.inference_path("sam_demo"))
        failed = table[table["status"] == "failed"]
        assert failed["scan"].tolist() == [victim["scan"]] and "truncated" in failed["error"].iloc[0]
        metrics = again.read("metrics")
        lost = metrics[(metrics["scan"] == victim["scan"]) & (metrics["model"] == "sam_demo")]
        assert set(lost["status"]) == {"prediction_missing"} and lost["dice"].isna().all()
        assert (metrics.loc[metrics["scan"] != victim["scan"], "status"] != "prediction_missing").all()
    finally:
        image.write_bytes(whole)


def test_kits23_annotators_from_cohort_to_report(data_folder, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_DATA", str(data_folder))
    study, _ = run(
        repository / "params" / "kits23_annotators.yaml", {"outputs": str(tmp_path), "fairness.bootstrap": 500}
    )
    check_contracts(study)
    html = check_report(study)
    cohort = study.read("cohort")
    assert len(cohort) == 60
    assert set(cohort.loc[~cohort["included"], "age"]) == {0}
    metrics = study.read("metrics")
    by_model = metrics.groupby("model")["dice"].mean()
    assert (by_model > 0.9).all() and (by_model < 1).all(), "annotators agree with their majority, but not wholly"
    assert {"kidney right", "kidney left"} <= set(re.findall(r"kidney (?:right|left)", html))


def test_totalsegmentator_example_says_that_two_scans_allow_no_statistics(
    data_folder, repository, tmp_path, monkeypatch
):
    monkeypatch.setenv("SEGFAIR_DATA", str(data_folder))
    study, _ = run(repository / "params" / "totalsegmentator_example.yaml", {"outputs": str(tmp_path)})
    check_contracts(study)
    html = check_report(study)
    assert re.search(r"(two|2) scans allow no group statistics", html, re.IGNORECASE)
    metrics = study.read("metrics")
    ok = metrics[
        (metrics["status"] == "ok") & metrics["organ"].isin(["liver", "spleen", "kidney_right", "kidney_left"])
    ]
    dice = ok.groupby("model")["dice"].mean()
    assert dice["sam_demo"] >= 0.87
    assert dice["sam_demo"] - dice["prompt_only"] >= 0.06
