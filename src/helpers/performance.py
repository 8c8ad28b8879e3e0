"""The performance stage: a cohort's predicted masks against its references, then the fairness tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy import ndimage

from helpers import fairness, storage, volumes
from helpers.compute import CaseFailure, map_cases
from helpers.errors import SegfairError, StageError
from helpers.metrics import MEASURES, compare_masks, mark_missing, predict_dice
from helpers.parameters import Organ
from helpers.study import Study

# What a row of metrics.parquet can be, and what that means for its measures.
STATUSES = {
    "ok": "both masks hold the organ: everything is measured",
    "prediction_empty": "the model missed the organ: Dice, IoU, recall and NSD are 0, distances are not defined",
    "reference_empty": "the organ is not in the reference: nothing is scored",
    "both_empty": "neither mask holds the organ: nothing is scored",
    "prediction_missing": "there is no prediction (inference failed): nothing is scored",
    "failed": "the masks could not be compared (see `error`): nothing is scored",
}

# The audit's tables: their short name in `helpers.study.TABLES`, and the attribute of `helpers.fairness.Audit`.
AUDIT_TABLES = {
    **{
        name: name
        for name in (
            "groups",
            "disparity",
            "tests",
            "pairs",
            "contrasts",
            "adjusted_means",
            "adjusted_notes",
            "matching",
            "balance",
            "trends",
            "trend_tests",
            "intersections",
            "model_gaps",
        )
    },
    "intersection_variance": "variances",
}


@dataclass(frozen=True)
class _Job:
    """One scan's masks: what a worker needs to measure every model on it."""

    number: int
    reference: Path
    predictions: dict[str, Path | str]  # a path, or the reason why there is no prediction
    organs: dict[str, Organ]
    organ_ids: dict[str, int]
    tolerances_mm: dict[str, float]


def measure_performance(study: Study) -> pd.DataFrame:
    """Compare every prediction with its reference and write ``metrics.parquet``.

    Parameters
    ----------
    study : Study
        After 02_inference.

    Returns
    -------
    DataFrame
        One row per included scan × model × organ: subject, scan, number, model, organ, the measures
        of :class:`helpers.metrics.MaskComparison`, ``dice_expected`` (see :func:`add_expected_dice`),
        ``status`` (:data:`STATUSES`) and ``error`` (a sentence where something is missing, else empty).

    Raises
    ------
    StageError
        An earlier stage has not run.
    """
    included = study.read_included()
    parameters = study.parameters
    models = [model.name for model in parameters.models]
    tolerances = {
        organ: parameters.metrics.tolerances_mm.get(organ, parameters.metrics.tolerance_mm) for organ in study.organ_ids
    }
    found = {model: _find_predictions(study, model) for model in models}
    jobs = [
        _Job(
            number=int(row.number),
            reference=Path(row.reference),
            predictions={
                model: found[model].get(row.scan, "02_inference has no row for this scan: run it again")
                for model in models
            },
            organs=dict(parameters.cohort.organs),
            organ_ids=study.organ_ids,
            tolerances_mm=tolerances,
        )
        for row in included.itertuples(index=False)
    ]
    results = map_cases(
        _measure_scan,
        jobs,
        ids=[f"scan {job.number:03d}" for job in jobs],
        compute=parameters.compute,
        label="comparing masks",
    )
    rows = []
    for row, result in zip(included.itertuples(index=False), results, strict=True):
        if isinstance(result, CaseFailure):
            missing = asdict(mark_missing("failed"))
            result = [
                {"model": model, "organ": organ, **missing, "error": result.error}
                for model in models
                for organ in study.organ_ids
            ]
        rows += [{"subject": row.subject, "scan": row.scan, "number": int(row.number), **values} for values in result]
    metrics = add_expected_dice(pd.DataFrame(rows))
    columns = ["subject", "scan", "number", "model", "organ", *MEASURES, "dice_expected", "status", "error"]
    metrics = metrics[columns]
    storage.write_table(metrics, study.path("metrics"))
    return metrics


def add_expected_dice(metrics: pd.DataFrame) -> pd.DataFrame:
    """Add ``dice_expected``: the Dice each organ would get under the cohort's mean boundary error.

    max(0, 1 − δ̄S/(2V)) with the organ's own reference volume V and surface S, and δ̄ the mean of
    ``boundary_error_mm`` over the cohort's subjects for that model and organ (a subject with several
    scans counts once, with their mean). NaN where the organ is not scored. A missed organ has no boundary
    error and does not enter δ̄, but its size is known, so its expectation is too.

    Parameters
    ----------
    metrics : DataFrame
        With subject, model, organ, boundary_error_mm, volume_ref_ml, surface_ref_cm2 and dice.

    Returns
    -------
    DataFrame
        A copy with the column.

    References
    ----------
    Häntze et al. 2025, on the size dependence of Dice in sex comparisons.
    """
    keys = ["model", "organ"]
    by_subject = metrics.groupby([*keys, "subject"], as_index=False)["boundary_error_mm"].mean()
    mean_mm = by_subject.groupby(keys, as_index=False)["boundary_error_mm"].mean()
    mean_mm = mean_mm.rename(columns={"boundary_error_mm": "mean_boundary_error_mm"})
    merged = metrics.merge(mean_mm, on=keys, how="left", validate="many_to_one")
    scored = metrics["dice"].notna().to_numpy() & (metrics["volume_ref_ml"] > 0).to_numpy()
    expected = np.full(len(metrics), np.nan)
    part = merged[scored]
    expected[scored] = predict_dice(
        part["mean_boundary_error_mm"].to_numpy(), part["volume_ref_ml"].to_numpy(), part["surface_ref_cm2"].to_numpy()
    )
    return metrics.assign(dice_expected=expected)


def write_audit(study: Study) -> fairness.Audit:
    """Compare the groups and write every table of the audit to ``fairness/``, with ``notes.json``.

    Parameters
    ----------
    study : Study
        After :func:`measure_performance`.

    Returns
    -------
    Audit
        From :func:`helpers.fairness.audit`.

    Raises
    ------
    StageError
        01_cohort or 03_performance has not run.
    """
    cohort = study.parameters.cohort
    found = fairness.audit(
        study.read("metrics"),
        study.read_included(),
        study.parameters.fairness,
        list(cohort.attributes),
        study.seed_for("fairness"),
        confounders=cohort.confounders,
        units={name: attribute.unit for name, attribute in cohort.attributes.items() if attribute is not None},
    )
    for name, attribute in AUDIT_TABLES.items():
        storage.write_table(getattr(found, attribute), study.path(name))
    notes = {"notes": found.notes, "family": [" · ".join(test) for test in found.family]}
    storage.write_json(notes, study.path("groups").with_name("notes.json"))
    return found


def read_audit_table(study: Study, name: str) -> pd.DataFrame:
    """Read a table of the audit just as it was: empty words stay words, and a group called "1" or "NA" keeps its name.

    Parameters
    ----------
    study : Study
        After :func:`write_audit`.
    name : str
        A key of :data:`AUDIT_TABLES`.

    Raises
    ------
    StageError
        03_performance has not run.
    """
    path = study.path(name)
    if not path.exists():
        raise StageError(
            f"{path.name} is missing for study {study.name!r}: run 03_performance or `segfair run {study.source} --until 03`"
        )
    words = [*study.parameters.cohort.attributes, "n"] if name == "intersections" else []
    return fairness.parse_table(pd.read_csv(path, dtype=str, keep_default_na=False), words)


def load_people(study: Study) -> pd.DataFrame:
    """Read the metrics as one row per subject, model and organ, with the subject's groups.

    Returns
    -------
    DataFrame
        From :func:`helpers.fairness.average_subjects`.
    """
    people, _ = fairness.average_subjects(
        study.read("metrics"),
        study.read_included(),
        list(study.parameters.cohort.attributes),
        study.parameters.fairness.metrics,
    )
    return people


def count_statuses(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count the rows of ``metrics.parquet`` by model, organ and status, with what each status means.

    Returns
    -------
    DataFrame
        Columns status, meaning, and one per model; only statuses that occur, and always ``ok``.
    """
    counts = pd.crosstab(metrics["status"], metrics["model"])
    present = [status for status in STATUSES if status in counts.index or status == "ok"]
    counts = counts.reindex(index=present, columns=list(dict.fromkeys(metrics["model"])), fill_value=0)
    counts.insert(0, "meaning", [STATUSES[status] for status in present])
    return counts.rename_axis(index="status", columns=None).reset_index()


def list_failures(metrics: pd.DataFrame) -> dict[str, str]:
    """Return why scans could not be compared, by scan number and model: ``{"scan 007, sam": "…"}``."""
    failed = metrics[metrics["status"].isin(["failed", "prediction_missing"])]
    return {
        f"scan {row.number:03d}, {row.model}": row.error
        for row in failed.drop_duplicates(["number", "model"]).itertuples(index=False)
    }


def _find_predictions(study: Study, model: str) -> dict[str, Path | str]:
    """Return each scan's predicted mask, or why there is none, as the inference table tells it."""
    table = storage.read_table(study.inference_path(model), made_by="02_inference")
    found: dict[str, Path | str] = {}
    for row in table.itertuples(index=False):
        path = study.prediction_path(model, row.scan)
        if row.status != "ok":
            found[row.scan] = str(row.error) or "inference failed"
        elif not path.exists():
            found[row.scan] = "the predicted mask is missing: run 02_inference again"
        else:
            found[row.scan] = path
    return found


def _measure_scan(job: _Job) -> list[dict[str, object]]:
    """Measure every model and organ of one scan; the reference is read once, each prediction once."""
    image = volumes.read_label_map(job.reference, job.organs, job.organ_ids).image
    grid = volumes.grid_of_image(image)
    spacing = volumes.spacing_zyx_mm(image)
    reference = sitk.GetArrayViewFromImage(image)
    boxes = _find_boxes(reference, job.organ_ids)
    rows: list[dict[str, object]] = []
    for model, source in job.predictions.items():
        prediction, status, error = None, "prediction_missing", ""
        if isinstance(source, str):
            error = source
        else:
            try:
                prediction = _read_prediction(source, grid)
            except SegfairError as problem:
                status, error = "failed", str(problem)
        predicted_boxes = _find_boxes(prediction, job.organ_ids) if prediction is not None else {}
        for organ, label in job.organ_ids.items():
            if prediction is None:
                comparison = mark_missing(status)
            else:
                box = _join_boxes(boxes.get(organ), predicted_boxes.get(organ))
                comparison = compare_masks(
                    reference[box] == label, prediction[box] == label, spacing, tolerance_mm=job.tolerances_mm[organ]
                )
            rows.append({"model": model, "organ": organ, **asdict(comparison), "error": error})
    return rows


def _read_prediction(path: Path, grid: volumes.Grid) -> np.ndarray:
    """Return a prediction's label map (z, y, x); a SegfairError where it does not lie on the reference's grid."""
    image = volumes.read_volume(path)
    differences = volumes.grid_of_image(image).differences(grid)
    if differences:
        raise SegfairError(
            f"the prediction lies on another grid than the reference ({'; '.join(differences)}): run 02_inference again"
        )
    labels = sitk.GetArrayFromImage(image)
    if labels.dtype.kind not in "ui":
        raise SegfairError(f"the prediction must hold whole numbers (organ ids); it holds {labels.dtype}")
    return labels


def _find_boxes(labels: np.ndarray, organ_ids: dict[str, int]) -> dict[str, tuple[slice, ...]]:
    """Return the box around each organ that is there; one pass over the label map for all."""
    found = ndimage.find_objects(labels)
    return {
        organ: found[label - 1]
        for organ, label in organ_ids.items()
        if label <= len(found) and found[label - 1] is not None
    }


def _join_boxes(first: tuple[slice, ...] | None, second: tuple[slice, ...] | None) -> tuple[slice, ...]:
    """Return the smallest box around both; one voxel where there is neither (both masks are empty there)."""
    present = [box for box in (first, second) if box is not None]
    if not present:
        return (slice(0, 1),) * 3
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*present, strict=True)
    )
