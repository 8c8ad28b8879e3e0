"""The real data, where it is at hand, from cohort to report through papermill."""

from __future__ import annotations

import re

import pytest

from tests.whole_study import check_contracts, check_report, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*kernel.*:RuntimeWarning"
    ),
]


def test_kits23_annotators_from_cohort_to_report(data_folder, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_DATA", str(data_folder))
    study, _ = run(
        repository / "params" / "kits23_annotators.yaml",
        {
            "outputs": str(tmp_path), "fairness.bootstrap": 200,
            "spatial.organs": ["kidney_right"], "spatial.permutations": 100, "spatial.vertices": 600,
            "spatial.grid_mm": 6.0,
        },
    )  # fmt: skip
    check_contracts(study)
    html = check_report(study)
    cohort = study.read("cohort")
    assert len(cohort) == 60
    assert set(cohort.loc[~cohort["included"], "age"]) == {0}
    metrics = study.read("metrics")
    by_model = metrics.groupby("model")["dice"].mean()
    assert (by_model > 0.9).all() and (by_model < 1).all(), "annotators agree with their majority, but not wholly"
    assert {"right kidney", "left kidney"} <= set(re.findall(r"(?:right|left) kidney", html))


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
    assert "nnunet_demo (automatic)" in html and "do not rank one against the other" in html
