"""A synthetic output folder, column for column as the stages write it, for the report's tests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.spatial import ConvexHull

from helpers import storage
from helpers.fairness import (
    Audit,
    bound_missing,
    compare_absent,
    compare_failures,
    compare_missing,
    compare_volumes,
    run_audit,
)
from helpers.parameters import Fairness
from helpers.performance import AUDIT_TABLES
from helpers.schema import TABLES
from helpers.spatial import Template
from helpers.spatial.correspondence import DistanceField

MODELS = ("sam_demo", "annotator")
ORGANS = ("liver", "kidney_left")
SEXES = ("female", "male")
BMI_GROUPS = ("below 25", "25 to 30", "30 and over")


def make_parameters(**changes: Any) -> dict[str, Any]:
    """Return the parameters of a small study; `changes` are laid over the top level."""
    return {
        "name": "synthetic",
        "title": "A synthetic study",
        "cohort": {
            "source": "table",
            "path": "/data/secret_place/participants.csv",
            "organs": {organ: {"labels": [place]} for place, organ in enumerate(ORGANS, start=1)},
            "attributes": {
                "sex": {"categories": list(SEXES)},
                "bmi": {"bins": [10, 25, 30, 90], "labels": list(BMI_GROUPS), "unit": "kg/m²"},
            },
            "confounders": ["scanner", "modality"],
        },
        "models": [
            {"name": "sam_demo", "kind": "sam_demo", "prompt": {"type": "box", "jitter": 0.05}},
            {"name": "annotator", "kind": "precomputed", "path": "annotator/{scan}.nii.gz", "prompted": True},
        ],
    } | changes


def make_cohort(
    people: int = 60, *, sexes: tuple[str, ...] = SEXES, few: str | None = None, excluded: int = 2
) -> pd.DataFrame:
    """Return a cohort table: `people` included people, one of them with two scans, and `excluded`
    scans left out.

    `few` is a sex that only three people have.
    """
    rng = np.random.default_rng(7)
    rows = []
    for place in range(people + excluded + 1):
        person = place if place < people + excluded else 0
        sex = sexes[person % len(sexes)]
        if few is not None:
            sex = few if person < 3 else next(name for name in sexes if name != few)
        bmi = float(np.round(rng.uniform(19, 36), 1))
        out = people <= place < people + excluded
        rows.append(
            {
                "subject": f"PATIENT-{person:04d}-Quux",
                "scan": f"SCAN_{place:04d}_XYZ",
                "number": place + 1,
                "sex": sex,
                "age": float(rng.integers(25, 80)),
                "bmi": bmi,
                "modality": "CT" if person % 3 else "MR",
                "scanner": "A",
                "reference": f"/data/secret_place/masks/SCAN_{place:04d}_XYZ.nii.gz",
                "image": f"/data/secret_place/images/SCAN_{place:04d}_XYZ.nii.gz",
                "included": not out,
                "reason": f"age {150 + place} is outside 0 to 120 in /data/secret_place/SCAN_{place:04d}_XYZ.nii.gz"
                if out
                else "",
                "note": "",
            }
        )
    table = pd.DataFrame(rows)
    table.loc[0, "bmi"] = table.loc[len(table) - 1, "bmi"]
    table["group_sex"] = pd.Categorical(table["sex"], categories=list(sexes), ordered=True)
    table["group_bmi"] = pd.cut(table["bmi"], [10, 25, 30, 90], right=False, labels=list(BMI_GROUPS))
    return table


def make_metrics(
    cohort: pd.DataFrame, *, gap: float = 0.05, models: tuple[str, ...] = MODELS, organs: tuple[str, ...] = ORGANS
) -> pd.DataFrame:
    """Return metrics in which the first sex scores `gap` Dice less, for the first model and liver
    alone."""
    rng = np.random.default_rng(11)
    rows = []
    first = next(iter(cohort["group_sex"].cat.categories))
    for scan in cohort[cohort["included"]].itertuples():
        for model in models:
            for organ in organs:
                planted = gap if (model, organ, scan.sex) == (models[0], "liver", first) else 0.0
                dice = float(np.clip(0.93 - planted + rng.normal(0, 0.02), 0, 0.999))
                volume, surface = (1500.0, 900.0) if organ == "liver" else (160.0, 180.0)
                rows.append(
                    {
                        "subject": scan.subject,
                        "scan": scan.scan,
                        "number": scan.number,
                        "model": model,
                        "organ": organ,
                        "dice": dice,
                        "iou": dice / (2 - dice),
                        "nsd": min(1.0, dice + 0.03),
                        "hd95_mm": 60 * (1 - dice),
                        "assd_mm": 12 * (1 - dice),
                        "precision": dice,
                        "recall": dice,
                        "volume_ref_ml": volume,
                        "volume_pred_ml": volume * 0.98,
                        "volume_error_ml": -0.02 * volume,
                        "surface_ref_cm2": surface,
                        "boundary_error_mm": 20 * volume * (1 - dice) / surface,
                        "dice_expected": 0.92,
                        "status": "ok",
                        "error": "",
                    }
                )
    return pd.DataFrame(rows)


def make_fairness(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    *,
    min_group: int = 10,
    attributes: tuple[str, ...] = ("sex", "bmi"),
    measures: tuple[str, ...] = ("dice", "nsd", "hd95_mm", "boundary_error_mm"),
) -> Audit:
    """Return the audit of `metrics`, as 03_performance makes it, from fewer draws of people."""
    included = cohort[cohort["included"]].reset_index(drop=True)
    return run_audit(
        metrics,
        included,
        Fairness(metrics=list(measures), min_group=min_group, bootstrap=100),
        list(attributes),
        7,
        confounders=[name for name in ("scanner", "modality") if name in included],
        units={"bmi": "kg/m²"},
    )


def make_inference(cohort: pd.DataFrame, model: str, *, failing: int = 0) -> pd.DataFrame:
    """Return an inference table in which the first `failing` scans failed with a message that names
    file and person."""
    scans = cohort[cohort["included"]]
    failed = np.arange(len(scans)) < failing
    return pd.DataFrame(
        {
            "model": model,
            "scan": scans["scan"].to_numpy(),
            "status": np.where(failed, "failed", "ok"),
            "error": [
                f"/data/secret_place/images/{row.scan}.nii.gz: truncated, {row.number} bytes of {row.subject}"
                if fails
                else ""
                for row, fails in zip(scans.itertuples(), failed, strict=True)
            ],
            "seconds": 1.0,
            "device": "cpu",
        }
    )


def make_maps(
    cohort: pd.DataFrame, *, model: str = MODELS[0], organ: str = "liver", vertices: int = 162
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return maps and summary of one comparison on a ball whose lower back is drawn too small for
    the first sex."""
    first, second = (str(name) for name in cohort["group_sex"].cat.categories[:2])
    place = np.arange(vertices) + 0.5
    polar, turn = np.arccos(1 - 2 * place / vertices), np.pi * (1 + np.sqrt(5)) * place
    points = 60 * np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
    error = np.where((points[:, 1] > 20) & (points[:, 2] < -20), -3.0, 0.0)
    maps = pd.DataFrame({"model": model, "organ": organ, "attribute": "sex", "vertex": np.arange(vertices)})
    maps[["x", "y", "z"]] = points
    maps[f"error_{first}"], maps[f"error_{second}"] = error, 0.0
    maps["difference"], maps["group_a"], maps["group_b"] = error, first, second
    people = cohort[cohort["included"]].groupby("sex", observed=True)["subject"].nunique()
    peak = points[np.argmin(error)]
    summary = pd.DataFrame(
        [
            {
                "model": model,
                "organ": organ,
                "attribute": "sex",
                "group_a": first,
                "group_b": second,
                "n": int(people.sum()),
                "n_a": int(people[first]),
                "n_b": int(people[second]),
                "vertices": vertices,
                "peak_difference_mm": -3.0,
                "peak_x": peak[0],
                "peak_y": peak[1],
                "peak_z": peak[2],
            }
        ]
    )
    return maps, summary


def make_run(**changes: Any) -> dict[str, Any]:
    """Return a run.json with all stages finished."""
    stages = ("01_cohort", "02_inference", "03_performance", "04_spatial", "05_report")
    return {
        "study": "synthetic",
        "git_commit": "0123456789abcdef0123456789abcdef01234567+changes",
        "parameters_hash": "feedface" * 8,
        "packages": {"numpy": "2.4.6", "pandas": "3.1.1", "absent": None},
        "python": "3.11.2",
        "hardware": {"machine": "x86_64", "cores": 2},
        "stages": {
            stage: {"status": "finished", "finished_at": "2026-02-03T04:05:06+00:00", "failures": {}}
            for stage in stages
        },
    } | changes


def write_study(
    folder: Path,
    *,
    cohort: pd.DataFrame | None = None,
    metrics: pd.DataFrame | None = None,
    fairness: Audit | None = None,
    maps: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    failing: int | None = None,
    parameters: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
) -> Path:
    """Write what is given to `folder` as the stages would, and return it."""
    parameters = parameters or make_parameters()
    storage.write_text(yaml.safe_dump(parameters, allow_unicode=True, sort_keys=False), folder / "study.yaml")
    if run is not None:
        storage.write_json(run, folder / "run.json")
    if cohort is not None:
        storage.write_table(cohort, folder / "cohort.parquet")
        excluded = cohort.loc[~cohort["included"], ["number", "scan", "subject", "reason"]]
        storage.write_table(excluded.assign(kind="age_implausible"), folder / "exclusions.csv")
        if failing is not None:
            for place, model in enumerate(parameters["models"]):
                table = make_inference(cohort, model["name"], failing=failing if place == 0 else 0)
                storage.write_table(table, folder / "predictions" / model["name"] / "inference.parquet")
    if metrics is not None:
        storage.write_table(metrics, folder / "metrics.parquet")
    if fairness is not None:
        for name in AUDIT_TABLES:
            storage.write_table(getattr(fairness, name), folder / TABLES[name].path)
        if metrics is not None and cohort is not None:
            included = cohort[cohort["included"]].reset_index(drop=True)
            attributes = [name.removeprefix("group_") for name in included if name.startswith("group_")]
            counted = (metrics, included, fairness.settings, attributes)
            found = {
                "missing": compare_missing(*counted),
                "missing_bounds": bound_missing(*counted),
                "absent": compare_absent(*counted),
                "failures": compare_failures(*counted, 7),
                "volumes": compare_volumes(*counted, 7),
            }
            for name, table in found.items():
                storage.write_table(table, folder / TABLES[name].path)
    if maps is not None:
        storage.write_table(maps[0], folder / "spatial" / "maps.parquet")
        storage.write_table(maps[1], folder / "spatial" / "summary.csv")
    return folder


@lru_cache(maxsize=4)
def make_whole(people: int = 60, few: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame, Audit]:
    """Return cohort, metrics and audit of a study; made once, for it takes seconds, and never to be
    changed."""
    cohort = make_cohort(people, few=few)
    metrics = make_metrics(cohort)
    return cohort, metrics, make_fairness(metrics, cohort)


def write_whole_study(
    folder: Path, *, people: int = 60, few: str | None = None, parameters: dict[str, Any] | None = None
) -> Path:
    """Write a study with every stage finished."""
    cohort, metrics, fairness = make_whole(people, few)
    write_template(folder)
    return write_study(
        folder,
        cohort=cohort,
        metrics=metrics,
        fairness=fairness,
        maps=make_maps(cohort),
        failing=2,
        parameters=parameters,
        run=make_run(),
    )


def write_template(folder: Path, *, organ: str = "liver", vertices: int = 162) -> None:
    """Write the ball of :func:`make_maps` as the organ's template, as 04_spatial does."""
    maps, _ = make_maps(make_cohort(4), organ=organ, vertices=vertices)
    points = maps[["x", "y", "z"]].to_numpy()
    hull = ConvexHull(points)
    corners = points[hull.simplices]
    inwards = (
        np.einsum("ij,ij->i", np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), corners[:, 0]) < 0
    )
    faces = np.where(inwards[:, None], hull.simplices[:, ::-1], hull.simplices)
    field = DistanceField(
        np.zeros((3, 4, 5), np.float32), 4.0, np.zeros(3), np.zeros(3), np.ones(3), np.zeros((3, 2), bool)
    )
    Template(points, faces.astype(np.int64), field, 60).save(folder / "spatial" / organ / "template.npz")
