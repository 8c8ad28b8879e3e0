"""Whole studies through papermill, and what holds of every one of them."""

from __future__ import annotations

import json
import re

from helpers import pipeline
from helpers.schema import STAGES, TABLES
from helpers.study import Study, load_study


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
    check_tables(study)
    assert not list(study.folder.rglob(".partial-*"))
    record = json.loads((study.folder / "run.json").read_text(encoding="utf-8"))
    assert [record["stages"][stage]["status"] for stage in STAGES] == ["finished"] * 5
    for stage in STAGES:
        assert (study.folder / "notebooks" / f"{stage}.html").stat().st_size > 10_000


def check_tables(study: Study) -> None:
    """Check that every table has the columns that its record names, in their order and of their
    kind."""
    kinds = {"text": "OU", "number": "f", "count": "iuf", "flag": "b"}
    for table in TABLES.values():
        names = {"model": study.parameters.models[0].name, "organ": study.parameters.spatial.organs[0]}
        path = study.path(table.key, **names)
        assert path.exists() or not table.always, f"{table.path} was not written"
        if not path.exists():
            continue
        found = study.read(table.key, **names)
        assert all(any(column.holds(name) for column in table.columns) for name in found), table.key
        if "<" not in "".join(table.names):
            assert found.columns.tolist() == table.names, table.key
        for name in found:
            kind = table.find_kind(name)
            assert kind == "text" or found[name].dtype.kind in kinds[kind], (
                f"{table.key}: {name} is {found[name].dtype}"
            )


def check_report(study: Study) -> str:
    """Check that the report is one offline file that names nobody; return its text."""
    html = (study.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"'](https?:)?//", html)
    assert len(html) < 20e6
    assert str(study.root) not in html
    for scan in study.read("cohort")["scan"]:
        assert not re.search(rf"\b{re.escape(scan)}\b", html), f"the report names scan {scan}"
    return html
