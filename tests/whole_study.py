"""Whole studies through papermill, and what holds of every one of them."""

from __future__ import annotations

import json
import re

from helpers import pipeline
from helpers.study import STAGES, Study, load_study


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
    record = json.loads((study.folder / "run.json").read_text(encoding="utf-8"))
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
