"""The performance stage: a cohort's masks against its references, then the fairness tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import fairness, storage, volumes
from helpers.compute import CaseFailure, map_cases
from helpers.errors import SegfairError
from helpers.metrics import AnnotatorAgreement, compare_annotators, compare_masks, mark_missing, predict_dice
from helpers.models import label_models, label_table, list_pooled
from helpers.parameters import Organ
from helpers.performance.losses import write_losses
from helpers.performance.proxies import measure_proxies
from helpers.performance.scores import collect_scores
from helpers.schema import TABLES
from helpers.study import Study
from helpers.vocabulary.measures import MEASURES, list_symmetric
from helpers.vocabulary.statuses import STATUSES, say_measures
from helpers.vocabulary.words import name_scan

# What the audit finds and 03 writes.
AUDIT_TABLES = [field.name for field in fields(fairness.Audit) if field.name in TABLES]


@dataclass(frozen=True)
class _ScanJob:
    """One scan's masks: what a worker needs to measure every model on it."""

    reference: Path
    predictions: dict[str, Path | str]  # a path, or the reason why there is no prediction
    unscored: dict[tuple[str, str], tuple[str, str]]  # by model and organ: status and why
    organs: dict[str, Organ]
    organ_ids: dict[str, int]
    tolerances_mm: dict[str, float]
    annotators: tuple[str, ...]  # the models to be compared with each other too


@dataclass(frozen=True)
class _ScanRows:
    """One scan's rows of metrics.parquet and annotators.parquet, without the scan's columns."""

    models: list[dict[str, object]]
    annotators: list[dict[str, object]]


def measure_performance(study: Study) -> pd.DataFrame:
    """Compare every prediction with its reference and write ``metrics.parquet``.

    A study of ready-made scores has nothing to compare: its tables are read instead
    (:func:`helpers.performance.scores.collect_scores`), with the measures that they hold.

    Where several models are annotators (``annotator: true``), each two of them are compared too,
    and ``annotators.parquet`` is written (else it is absent): one row per scan × organ × pair, with
    ``annotator_a``, ``annotator_b``, the measures of :class:`helpers.metrics.AnnotatorAgreement`,
    ``status`` and ``error``.

    Returns
    -------
    DataFrame
        One row per included scan × model × organ: subject, scan, number, model, organ, the measures
        of :class:`helpers.metrics.MaskComparison`, ``dice_expected`` (:func:`add_expected_dice`),
        ``status`` (:data:`STATUSES`) and ``error`` (a sentence where something is missing).

    Raises
    ------
    StageError
        An earlier stage has not run.
    """
    if not study.parameters.cohort.has_masks:
        return _write_metrics(study, collect_scores(study))
    included = study.read_included()
    parameters = study.parameters
    annotators = tuple(model.name for model in parameters.models if model.annotator)
    limits = parameters.metrics
    tolerances = {organ: limits.tolerances_mm.get(organ, limits.tolerance_mm) for organ in study.organ_ids}
    found = {model.name: _find_predictions(study, model.name) for model in parameters.models}
    unscored = study.read_unscored()
    absent = "02_inference has no row for this scan: run it again"
    jobs = [
        _ScanJob(
            reference=Path(row.reference),
            predictions={model: paths.get(row.scan, absent) for model, paths in found.items()},
            unscored=unscored.get(row.scan, {}),
            organs=dict(parameters.cohort.organs),
            organ_ids=study.organ_ids,
            tolerances_mm=tolerances,
            annotators=annotators,
        )
        for row in included.itertuples(index=False)
    ]
    names = [name_scan(number) for number in included["number"]]
    results = map_cases(_measure_scan, jobs, ids=names, compute=parameters.compute, label="comparing masks")
    rows, pairs = [], []
    for row, job, result in zip(included.itertuples(index=False), jobs, results, strict=True):
        if isinstance(result, CaseFailure):
            result = _mark_failed(job, result.error)
        head = {"subject": row.subject, "scan": row.scan, "number": int(row.number)}
        rows += [head | values for values in result.models]
        pairs += [head | values for values in result.annotators]
    metrics = _write_metrics(study, pd.DataFrame(rows))
    if pairs:
        columns = ["subject", "scan", "number", "organ", "annotator_a", "annotator_b", *list_symmetric()]
        storage.write_table(pd.DataFrame(pairs)[[*columns, "status", "error"]], study.path("annotators"))
    else:
        study.path("annotators").unlink(missing_ok=True)
    return metrics


def _write_metrics(study: Study, metrics: pd.DataFrame) -> pd.DataFrame:
    """Write ``metrics.parquet`` and ``statuses.csv``; the expected Dice where sizes are known."""
    if {"dice", "boundary_error_mm", "volume_ref_ml", "surface_ref_cm2"} <= set(metrics):
        metrics = add_expected_dice(metrics)
    own = [measure.key for measure in study.parameters.fairness.measures]
    columns = [
        "subject",
        "scan",
        "number",
        "model",
        "organ",
        *MEASURES,
        *own,
        "dice_expected",
        "extent_mm",
        "status",
        "error",
    ]
    metrics = metrics[[name for name in columns if name in metrics]]
    storage.write_table(metrics, study.path("metrics"))
    storage.write_table(tabulate_statuses(metrics), study.path("statuses"))
    return metrics


def add_expected_dice(metrics: pd.DataFrame) -> pd.DataFrame:
    """Add ``dice_expected``: the Dice each organ would get under the cohort's mean boundary error.

    max(0, 1 − δ̄S/(2V)) with the organ's own reference volume V and surface S, and δ̄ the mean of
    ``boundary_error_mm`` over the cohort's subjects for that model and organ (of several scans,
    their mean counts once). NaN where the organ is not scored. A missed organ has no boundary error
    and does not enter δ̄, but its size is known, so its expectation is too.

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
    sizes = ["mean_boundary_error_mm", "volume_ref_ml", "surface_ref_cm2"]
    expected[scored] = predict_dice(*(merged.loc[scored, column].to_numpy() for column in sizes))
    return metrics.assign(dice_expected=expected)


def write_audit(study: Study) -> fairness.Audit:
    """Compare the groups and write every table of the audit to ``fairness/``, with ``notes.json``.

    Raises
    ------
    StageError
        01_cohort or 03_performance has not run.
    """
    cohort = study.parameters.cohort
    found = fairness.run_audit(
        study.read("metrics"),
        study.read_included(),
        study.parameters.fairness,
        list(cohort.attributes),
        study.seed_for("fairness"),
        confounders=cohort.confounders,
        units={name: attribute.unit for name, attribute in cohort.attributes.items() if attribute is not None},
        ordered=cohort.ordered_attributes,
        cluster=cohort.cluster,
        pooled_models=list_pooled(study.parameters.models) if cohort.has_masks else None,
    )
    write_losses(study)
    found.notes.extend(_write_few_masks(study))
    for name in AUDIT_TABLES:
        storage.write_table(getattr(found, name), study.path(name))
    families = {name: [" · ".join(test) for test in tests] for name, tests in found.families.items()}
    notes = {"notes": found.notes, "families": families}
    storage.write_json(notes, study.path("groups").with_name("notes.json"))
    return found


def _write_few_masks(study: Study) -> list[str]:
    """Write what masks of few and proxies of all tell, where there are such; return notes."""
    cohort, metrics, people = study.parameters.cohort, study.read("metrics"), study.read_included()
    few = None
    notes = []
    if cohort.has_masks and cohort.masked is not None:
        keys = ["subject", "scan", "number", "model", "organ"]
        scored = metrics[[*keys, "dice"]]
        metrics = measure_proxies(study).merge(scored, on=keys, how="left", validate="one_to_one")
        people = pd.concat([people, study.read_proxied()], ignore_index=True)
    if "dice_proxy" in metrics and (metrics["dice_proxy"].notna() & metrics["dice"].isna()).any():
        if cohort.masked == "random":
            attributes, seed = list(cohort.attributes), study.seed_for("few masks")
            few = fairness.compare_few_masks(metrics, people, study.parameters.fairness, attributes, seed)
        else:
            notes.append(
                "scans without an expert's mask have a proxy that is not used: set cohort.masked: random if "
                "those with masks were drawn at random within each group"
            )
    for key, table in (("few_masks", "means"), ("few_masks_gaps", "gaps"), ("few_masks_check", "randomness")):
        if few is None:
            study.path(key).unlink(missing_ok=True)
        else:
            storage.write_table(getattr(few, table), study.path(key))
    return notes


def label_audit(audit: fairness.Audit, study: Study) -> fairness.Audit:
    """Return an audit whose models bear the names that tell them apart (:func:`label_models`)."""
    labels = label_models(study.parameters.models)
    return replace(audit, **{name: label_table(getattr(audit, name), labels) for name in AUDIT_TABLES})


def load_people(study: Study, metric: str, attribute: str) -> pd.DataFrame:
    """Read one metric as one row per subject, labelled model and organ, with the subject's group.

    From :func:`helpers.fairness.average_subjects`, without groups of fewer than ``min_group``
    people (:func:`helpers.fairness.hide_small_groups`).
    """
    metrics = label_table(study.read("metrics"), label_models(study.parameters.models))
    people, _ = fairness.average_subjects(metrics, study.read_included(), [attribute], [metric])
    return fairness.hide_small_groups(people, metric, attribute, study.parameters.fairness.min_group)


def tabulate_statuses(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count how often each case of :data:`STATUSES` occurred in metrics.parquet.

    Returns
    -------
    DataFrame
        statuses.csv: model, organ, status, scans, share (of the model's scans with this organ),
        meaning, and measures: those that have a value all the same and which
        (:data:`helpers.vocabulary.statuses.EMPTY_CASES`), "all" for ``ok``. Only what occurred.
    """
    keys = ["model", "organ"]
    counts = metrics.groupby([*keys, "status"], sort=False, observed=True).size().rename("scans").reset_index()
    counts["share"] = counts["scans"] / counts.groupby(keys, sort=False)["scans"].transform("sum")
    counts["meaning"] = [STATUSES[status].describe() for status in counts["status"]]
    counts["measures"] = counts["status"].map(say_measures)
    return counts


def count_statuses(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count the rows of metrics.parquet by model and status, over all organs.

    Returns
    -------
    DataFrame
        Columns status, meaning, measures (as in :func:`tabulate_statuses`), and one per model; only
        statuses that occur, and always ``ok``.
    """
    counts = pd.crosstab(metrics["status"], metrics["model"])
    present = [status for status in STATUSES if status in counts.index or status == "ok"]
    counts = counts.reindex(index=present, columns=list(dict.fromkeys(metrics["model"])), fill_value=0)
    counts.insert(0, "meaning", [STATUSES[status].describe() for status in present])
    counts.insert(1, "measures", [say_measures(status) for status in present])
    return counts.rename_axis(index="status", columns=None).reset_index()


def list_failures(metrics: pd.DataFrame) -> dict[str, str]:
    """Return why scans could not be compared: ``{"scan 007, sam": "…"}``."""
    failed = metrics[metrics["status"].isin(["failed", "prediction_missing"])]
    return {
        f"{name_scan(row.number)}, {row.model}": row.error
        for row in failed.drop_duplicates(["number", "model"]).itertuples(index=False)
    }


def _find_predictions(study: Study, model: str) -> dict[str, Path | str]:
    """Return each scan's predicted mask, or why there is none, as the inference table tells it."""
    table = study.read("inference", model=model)
    found: dict[str, Path | str] = {}
    for row in table.itertuples(index=False):
        path = study.prediction_path(model, row.scan)
        found[row.scan] = path if storage.is_there(path) else "the predicted mask is missing: run 02_inference again"
        if row.status != "ok":
            found[row.scan] = str(row.error) or "inference failed"
    return found


def _mark_failed(job: _ScanJob, error: str) -> _ScanRows:
    """Return the rows of a scan that could not be worked on."""
    missing = {**asdict(mark_missing("failed")), "error": error}
    pair = {**asdict(AnnotatorAgreement(status="failed")), "error": error}
    return _ScanRows(
        [{"model": model, "organ": organ, **missing} for model in job.predictions for organ in job.organ_ids],
        [
            {"organ": organ, "annotator_a": first, "annotator_b": second, **pair}
            for first, second in combinations(job.annotators, 2)
            for organ in job.organ_ids
        ],
    )


def _measure_scan(job: _ScanJob) -> _ScanRows:
    """Measure every model and organ of one scan; each file is read once."""
    image = volumes.read_label_map(job.reference, job.organs, job.organ_ids).image
    grid = volumes.get_grid(image)
    spacing = volumes.get_spacing_zyx_mm(image)
    extent_mm = float(np.linalg.norm(np.multiply(image.GetSize(), image.GetSpacing())))
    reference = sitk.GetArrayViewFromImage(image)
    boxes = volumes.find_boxes(reference)
    rows: list[dict[str, object]] = []
    kept: dict[str, _AnnotatorMask | str] = {}
    for model, source in job.predictions.items():
        prediction, status, error = None, "prediction_missing", ""
        if isinstance(source, str):
            error = source
        else:
            try:
                prediction = _read_prediction(source, grid)
            except SegfairError as problem:
                status, error = "failed", str(problem)
        predicted_boxes = volumes.find_boxes(prediction) if prediction is not None else {}
        for organ, label in job.organ_ids.items():
            left_out, reason = job.unscored.get((model, organ), ("", ""))
            if prediction is None:
                comparison = mark_missing(status)
            elif left_out:
                comparison = mark_missing(left_out)
            else:
                box = volumes.join_boxes([boxes.get(label), predicted_boxes.get(label)])
                comparison = compare_masks(
                    reference[box] == label, prediction[box] == label, spacing, tolerance_mm=job.tolerances_mm[organ]
                )
            head = {"model": model, "organ": organ, "extent_mm": extent_mm}
            rows.append(head | asdict(comparison) | {"error": error or reason})
        if model in job.annotators:
            kept[model] = error if prediction is None else _AnnotatorMask(prediction, predicted_boxes)
    return _ScanRows(rows, _compare_annotators(job, kept, spacing))


@dataclass(frozen=True)
class _AnnotatorMask:
    """An annotator's label map (z, y, x), and the box around each label in it."""

    labels: np.ndarray
    boxes: dict[int, tuple[slice, ...]]


def _compare_annotators(
    job: _ScanJob, drawn: dict[str, _AnnotatorMask | str], spacing: tuple[float, float, float]
) -> list[dict[str, object]]:
    """Compare each two annotators of one scan by organ; in place of a mask may stand a reason."""
    rows: list[dict[str, object]] = []
    for first, second in combinations(drawn, 2):
        one, other = drawn[first], drawn[second]
        for organ, label in job.organ_ids.items():
            error = ""
            unscored = [job.unscored[model, organ] for model in (first, second) if (model, organ) in job.unscored]
            if unscored:
                found, error = AnnotatorAgreement(status=unscored[0][0]), unscored[0][1]
            elif isinstance(one, str) or isinstance(other, str):
                found = AnnotatorAgreement(status="prediction_missing")
                error = "; ".join(text for text in (one, other) if isinstance(text, str))
            else:
                box = volumes.join_boxes([one.boxes.get(label), other.boxes.get(label)])
                found = compare_annotators(
                    one.labels[box] == label, other.labels[box] == label, spacing, tolerance_mm=job.tolerances_mm[organ]
                )
            rows.append({"organ": organ, "annotator_a": first, "annotator_b": second, **asdict(found), "error": error})
    return rows


def _read_prediction(path: Path, grid: volumes.Grid) -> np.ndarray:
    """Return a prediction's label map (z, y, x); a SegfairError where it is on another grid."""
    image = volumes.read_on_grid(path, grid, what="the prediction", advice="run 02_inference again")
    labels = sitk.GetArrayFromImage(image)
    if labels.dtype.kind not in "ui":
        raise SegfairError(f"the prediction must hold whole numbers (organ ids); it holds {labels.dtype}")
    return labels
