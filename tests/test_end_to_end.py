"""The demo on a small cohort, from cohort to report through papermill."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from helpers.schema import STAGES
from tests.whole_study import check_contracts, check_report, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*kernel.*:RuntimeWarning"
    ),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory, repository):
    overrides = {
        "outputs": str(tmp_path_factory.mktemp("demo")),
        "cohort.phantoms.subjects": 14,
        "cohort.phantoms.spacing_mm": [5.0, 5.0, 12.0],
        "fairness.min_group": 3,
        "fairness.bootstrap": 200,
        "spatial.organs": ["liver"],
        "spatial.permutations": 200,
        "spatial.vertices": 1000,
        "spatial.grid_mm": 6.0,
    }
    study, said = run(repository / "params" / "demo.yaml", overrides)
    return study, said, overrides


def test_demo_runs_from_cohort_to_report(demo):
    study, said, _ = demo
    assert [line.split()[1] for line in said if "finished in" in line] == [f"{stage}:" for stage in STAGES]
    check_contracts(study)
    html = check_report(study)
    assert "phantom" in html.lower()
    assert "sam_demo (prompted)" in html and "nnunet_demo (automatic)" in html


def test_the_automatic_model_finds_every_organ(demo):
    study, _, _ = demo
    metrics = study.read("metrics")
    found = metrics[(metrics["model"] == "nnunet_demo") & (metrics["status"] == "ok")]
    assert found.groupby(["organ", "scan"])["dice"].mean().groupby("organ").mean().min() > 0.3


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


def test_planted_disparity_is_where_it_was_planted(demo):
    study, _, _ = demo
    metrics = study.read("metrics").merge(study.read("cohort")[["scan", "sex"]], on="scan", validate="many_to_one")
    liver = metrics[(metrics["model"] == "planted") & (metrics["organ"] == "liver")].groupby("sex")["dice"].mean()
    other = metrics[(metrics["model"] == "planted") & (metrics["organ"] == "lung_left")].groupby("sex")["dice"].mean()
    assert liver["male"] - liver["female"] > 0.02
    assert abs(other["male"] - other["female"]) < 0.02


def test_second_run_takes_nothing(demo, repository):
    _, _, overrides = demo
    _, said = run(repository / "params" / "demo.yaml", overrides)
    assert said[:5] == [f"[{n}/5] {stage}: up to date" for n, stage in enumerate(STAGES, 1)]
    assert len(said) == 10 and all("done in" in line for line in said[5:]), "and a line per stage at the end"


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
