"""A segmenter × a cohort → masks on disk: resumable, failures kept apart.

Beside every prediction lies a record (``<scan>.json``) of what it was made from and with. A prediction is
reused when its record's fingerprint is the one it would get now. The record is removed before the
prediction is replaced and written after it, so a kill at any moment leaves a scan either finished or to be
done again. ``inference.parquet`` is gathered from the records when a model has gone over the cohort.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
from skimage import measure

from helpers import models, storage, volumes
from helpers.compute import CaseFailure, map_cases
from helpers.errors import SegfairError, StageError, VolumeError
from helpers.models import ScanCase, Segmenter, Spec
from helpers.parameters import Model, Organ, Prompt
from helpers.prompts import Boxes, draw_boxes
from helpers.study import Study

# Raise it when the same inputs would give other masks: every prediction is then made anew.
VERSION = 1

COLUMNS = {
    "model": "str",
    "scan": "str",
    "status": "str",
    "error": "str",
    "seconds": "float64",
    "device": "str",
    "precision": "str",
    "slices": "Int64",
    "prompts": "Int64",
    "dropped": "Int64",
    "checkpoint_sha256": "str",
    "fingerprint": "str",
    "reused": "bool",
}


@dataclass(frozen=True)
class _Job:
    """One scan for one model: what a worker process is sent."""

    spec: Spec
    scan: str
    number: int
    subject: str
    modality: str
    reference: Path
    image: Path | None
    organ_ids: dict[str, int]
    prompt: Prompt
    prompt_seeds: dict[str, int]
    prediction: Path
    fingerprint: str
    checkpoint_sha256: str


@dataclass(frozen=True)
class Panel:
    """One scan's slice with outlines, ready to be drawn.

    Attributes
    ----------
    model, organ : str
    number : int
        The scan's study-local number.
    label : str
        Why it was chosen (``best``, ``median``, ``worst``), or empty.
    dice : float
        The scan's Dice where metrics were given, else NaN.
    image : ndarray of uint8, (y, x)
        The windowed slice around the organ; mid-grey where the scan has no image.
    spacing_mm : tuple of float
        (y, x) of a pixel.
    reference, prediction : tuple of ndarray, (n, 2)
        Closed outlines as x, y in mm from the panel's top left corner; empty where the mask is.
    """

    model: str
    organ: str
    number: int
    label: str
    dice: float
    image: np.ndarray
    spacing_mm: tuple[float, float]
    reference: tuple[np.ndarray, ...] = field(default=())
    prediction: tuple[np.ndarray, ...] = field(default=())


def run_inference(study: Study) -> pd.DataFrame:
    """Run every model of a study over its included scans.

    A scan whose prediction is there and was made from the same inputs is kept. A scan that fails is
    recorded and leaves no prediction behind; it is tried again the next time.

    Returns
    -------
    DataFrame
        One row per model and scan: model, scan, status ("ok" or "failed"), error (one sentence, empty when
        ok), seconds (for the scan, reading and writing included), device, precision, slices (worked on),
        prompts (used), dropped (components too small for a prompt), checkpoint_sha256, fingerprint,
        reused. The rows of a model are also in its ``inference.parquet``.

    Raises
    ------
    SegfairError
        A model's parameters or files are wrong (everything that is wrong, at once), or no scan is included.
    """
    problems = [problem for model in study.parameters.models for problem in models.check_model(model, study)]
    if problems:
        raise SegfairError("\n".join(problems))
    cohort = study.read_included()
    return pd.concat([_run_model(study, model, cohort) for model in study.parameters.models], ignore_index=True).astype(
        COLUMNS
    )


def read_inference(study: Study) -> pd.DataFrame:
    """Read the inference tables of all models, in the columns of :func:`run_inference`.

    Raises
    ------
    StageError
        02_inference has not gone over the cohort with one of the models.
    """
    tables = []
    for model in study.parameters.models:
        path = study.inference_path(model.name)
        if not path.exists():
            raise StageError(
                f"inference.parquet of {model.name} is missing for study {study.name!r}: run 02_inference or "
                f"`segfair run {study.source} --until 02`"
            )
        tables.append(pd.read_parquet(path))
    return pd.concat(tables, ignore_index=True)


def summarise_inference(table: pd.DataFrame) -> pd.DataFrame:
    """Count scans and measure throughput per model.

    Parameters
    ----------
    table : DataFrame
        From :func:`run_inference` or :func:`read_inference`.

    Returns
    -------
    DataFrame
        model (in the table's order), scans, ok, failed, reused, prompts, dropped, seconds_per_scan (median
        over finished scans), slices_per_second (slices of finished scans over their seconds, on one worker),
        device. NaN where no scan finished.
    """
    rows = []
    for model, part in table.groupby("model", sort=False):
        ok = part[part["status"] == "ok"]
        seconds = float(ok["seconds"].sum())
        rows.append(
            {
                "model": model,
                "scans": len(part),
                "ok": len(ok),
                "failed": int((part["status"] == "failed").sum()),
                "reused": int(part["reused"].sum()),
                "prompts": int(ok["prompts"].sum()),
                "dropped": int(ok["dropped"].sum()),
                "seconds_per_scan": float(ok["seconds"].median()) if len(ok) else np.nan,
                "slices_per_second": float(ok["slices"].sum()) / seconds if seconds > 0 else np.nan,
                "device": ", ".join(sorted(set(ok["device"]))),
            }
        )
    return pd.DataFrame(rows)


def list_failures(table: pd.DataFrame) -> dict[str, str]:
    """Return the failed scans as ``{"model / scan": sentence}``, as run.json records them."""
    failed = table[table["status"] == "failed"]
    return {f"{row.model} / {row.scan}": row.error for row in failed.itertuples()}


def checkpoint_hashes(study: Study) -> dict[str, str]:
    """Return the SHA-256 of the weights file of every model that has one."""
    found = {model.name: models.find_checkpoint(model, study) for model in study.parameters.models}
    return {name: models.hash_checkpoint(path) for name, path in found.items() if path is not None and path.is_file()}


def load_montage(
    study: Study, organ: str, metrics: pd.DataFrame | None = None, *, margin_mm: float = 30.0
) -> list[Panel]:
    """Prepare a few scans per model for a montage: the slice with most of the organ, with both outlines.

    Parameters
    ----------
    study : Study
    organ : str
        One of the study's organs.
    metrics : DataFrame, optional
        metrics.parquet: the worst, median and best scan by Dice are then chosen, else the first three.
    margin_mm : float
        What is shown around the organ.

    Returns
    -------
    list of Panel
        Model by model; a model that finished no scan with this organ has none, nor has a scan whose files
        cannot be read any more.

    Raises
    ------
    SegfairError
        The study has no such organ.
    """
    if organ not in study.organ_ids:
        raise SegfairError(f"organ must be one of {', '.join(study.organ_ids)}; got {organ!r}")
    cohort = study.read_included().set_index("scan")
    table = read_inference(study)
    panels = []
    for model in study.parameters.models:
        finished = table[(table["model"] == model.name) & (table["status"] == "ok")]["scan"]
        scans = [scan for scan in finished if scan in cohort.index]
        for scan, label, dice in _choose_scans(model.name, organ, scans, metrics):
            try:
                panel = _load_panel(study, model.name, organ, cohort.loc[scan], scan, label, dice, margin_mm)
            except VolumeError:
                continue  # a file damaged since: 03 will say so; a picture of the others is still worth having
            if panel is not None:
                panels.append(panel)
    return panels


def _run_model(study: Study, model: Model, cohort: pd.DataFrame) -> pd.DataFrame:
    spec = models.make_spec(model, study)
    checkpoint_sha256 = "" if spec.checkpoint is None else models.hash_checkpoint(spec.checkpoint)
    records: dict[str, dict[str, Any]] = {}
    jobs: list[_Job] = []
    for row in cohort.itertuples():
        job = _make_job(study, model, spec, row, checkpoint_sha256)
        kept = _read_record(job)
        if kept is None:
            jobs.append(job)
        else:
            records[job.scan] = {**kept, "reused": True}
    results = _run_jobs(jobs, study, model.name)
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, CaseFailure):
            # A mask made from former inputs must not pass for this study's.
            _record_path(job.prediction).unlink(missing_ok=True)
            job.prediction.unlink(missing_ok=True)
            records[job.scan] = _record_failure(job, result)
        else:
            records[job.scan] = {**result, "reused": False}
    table = pd.DataFrame([{"model": model.name, **records[scan]} for scan in cohort["scan"]])
    table = table[list(COLUMNS)].astype(COLUMNS)
    storage.write_table(table, study.inference_path(model.name))
    return table


def _run_jobs(jobs: list[_Job], study: Study, label: str) -> list[Any]:
    if not jobs:
        return []
    compute = study.parameters.compute
    if compute.scheduler is None and compute.workers != 0 and len(jobs) > 1:
        # A process per core is enough; threads within them would only get in each other's way.
        jobs = [replace(job, spec=replace(job.spec, threads=1)) for job in jobs]
    # Progress lines end up in the executed notebook, so they name scans by their study-local number.
    return map_cases(_segment_scan, jobs, ids=[f"scan {job.number:03d}" for job in jobs], compute=compute, label=label)


def _make_job(study: Study, model: Model, spec: Spec, row: Any, checkpoint_sha256: str) -> _Job:
    kind = models.find_kind(model)
    reference = Path(row.reference)
    image = Path(row.image) if isinstance(row.image, str) and row.image else None
    seeds = {
        organ: study.seed_for("prompt", row.scan, organ) for organ in (study.organ_ids if kind.needs_prompts else ())
    }
    depends_on: dict[str, Any] = {
        "version": VERSION,
        "kind": model.kind,
        "variant": spec.variant,
        "checkpoint": checkpoint_sha256,
        "modality": row.modality,
        "reference": _stamp(reference),
        "organs": {name: organ.model_dump(mode="json") for name, organ in spec.organs.items()},
        "organ_ids": study.organ_ids,
    }
    if kind.needs_prompts:
        depends_on |= {"prompt": model.prompt.model_dump(mode="json"), "seeds": seeds}
    if kind.needs_image:
        depends_on["image"] = _stamp(image)
    if spec.template is not None:
        depends_on["masks"] = _stamp(Path(spec.template.format(scan=row.scan, subject=row.subject)))
    return _Job(
        spec=spec,
        scan=row.scan,
        number=int(row.number),
        subject=row.subject,
        modality=row.modality,
        reference=reference,
        image=image if kind.needs_image else None,
        organ_ids=study.organ_ids,
        prompt=model.prompt,
        prompt_seeds=seeds,
        prediction=study.prediction_path(model.name, row.scan),
        fingerprint=storage.hash_value(depends_on),
        checkpoint_sha256=checkpoint_sha256,
    )


def _segment_scan(job: _Job) -> dict[str, Any]:
    """Segment one scan and write its prediction, then its record, which is returned."""
    began = time.monotonic()
    segmenter = _open_segmenter(job)
    case, reference_grid, dropped = _read_case(job)
    result = segmenter.segment(case)
    prediction = volumes.from_axial(volumes.image_from_array(result.labels, case.grid), reference_grid)
    record_path = _record_path(job.prediction)
    record_path.unlink(missing_ok=True)
    volumes.write_volume(prediction, job.prediction)
    record = {
        "scan": job.scan,
        "status": "ok",
        "error": "",
        "seconds": round(time.monotonic() - began, 3),
        "device": segmenter.device,
        "precision": segmenter.precision,
        "slices": result.slices,
        "prompts": result.prompts,
        "dropped": dropped,
        "checkpoint_sha256": job.checkpoint_sha256,
        "fingerprint": job.fingerprint,
        "bytes": job.prediction.stat().st_size,
    }
    storage.write_json(record, record_path)
    return record


# The model of this process: loading one takes seconds, and a worker works on one model at a time.
_loaded: tuple[str, Segmenter] | None = None


def _open_segmenter(job: _Job) -> Segmenter:
    global _loaded
    spec = job.spec
    key = storage.hash_value(
        [
            spec.name,
            spec.kind,
            str(spec.checkpoint),
            job.checkpoint_sha256,
            spec.template,
            spec.variant,
            spec.device,
            spec.threads,
            {name: organ.model_dump(mode="json") for name, organ in spec.organs.items()},
        ]
    )
    if _loaded is None or _loaded[0] != key:
        _loaded = None  # let go of the former model before the next one takes memory
        _loaded = (key, models.load_segmenter(spec))
    return _loaded[1]


def _read_case(job: _Job) -> tuple[ScanCase, volumes.Grid, int]:
    """Read a scan into the study orientation and draw its prompts; the reference itself stays here.

    Returns the case, the grid the reference is stored on, and the number of components without a prompt.
    """
    label_map = volumes.read_label_map(job.reference, job.spec.organs, job.organ_ids)
    reference = volumes.to_axial(label_map.image)
    grid = volumes.grid_of_image(reference)
    image = None
    if job.image is not None:
        stored = volumes.read_volume(job.image)
        oriented = volumes.to_axial(stored)
        differences = volumes.grid_of_image(oriented).differences(grid)
        if differences:
            raise VolumeError(
                f"image and reference lie on different grids ({'; '.join(differences)}): resample the reference to the image"
            )
        image = sitk.GetArrayFromImage(oriented)
    elif models.KINDS[job.spec.kind].needs_image:
        raise SegfairError(
            f"{job.spec.kind} needs an image and this scan has none: add its path to the participants table or leave the model out"
        )
    prompts = draw_prompts(
        sitk.GetArrayViewFromImage(reference),
        volumes.spacing_zyx_mm(reference),
        {organ: job.organ_ids[organ] for organ in job.prompt_seeds},
        job.prompt,
        job.prompt_seeds,
    )
    case = ScanCase(
        scan=job.scan,
        subject=job.subject,
        modality=job.modality,
        grid=grid,
        organ_ids=job.organ_ids,
        prompts=prompts,
        image=image,
        midline_x_mm=label_map.midline_x_mm,
    )
    dropped = sum(boxes.dropped for boxes in prompts.values())
    return case, volumes.grid_of_image(label_map.image), dropped


def draw_prompts(
    labels: np.ndarray,
    spacing_zyx_mm: tuple[float, float, float],
    organ_ids: dict[str, int],
    prompt: Prompt,
    seeds: dict[str, int],
) -> dict[str, Boxes]:
    """Draw the boxes of every organ of a label map in the study orientation.

    Parameters
    ----------
    labels : ndarray of uint8, (z, y, x)
        The reference, axial slices first.
    seeds : dict of str to int
        Per organ, from the study's seed, the scan and the organ alone: every model gets the same boxes.
    """
    return {
        organ: draw_boxes(
            labels == organ_id,
            spacing_zyx_mm,
            jitter=prompt.jitter,
            min_area_mm2=prompt.min_area_mm2,
            rng=np.random.default_rng(seeds[organ]),
        )
        for organ, organ_id in organ_ids.items()
    }


def _read_record(job: _Job) -> dict[str, Any] | None:
    """Return the record of a finished scan made from the same inputs; None when it has to be done."""
    try:
        record = json.loads(_record_path(job.prediction).read_text(encoding="utf-8"))
        size = job.prediction.stat().st_size
    except (OSError, json.JSONDecodeError):
        return None
    current = isinstance(record, dict) and record.get("fingerprint") == job.fingerprint
    return record if current and record.get("bytes") == size else None


def _record_path(prediction: Path) -> Path:
    return prediction.with_name(prediction.name.removesuffix(".nii.gz") + ".json")


def _record_failure(job: _Job, failure: CaseFailure) -> dict[str, Any]:
    return {
        "scan": job.scan,
        "status": "failed",
        "error": failure.error,
        "seconds": np.nan,
        "device": "",
        "precision": "",
        "slices": pd.NA,
        "prompts": pd.NA,
        "dropped": pd.NA,
        "checkpoint_sha256": job.checkpoint_sha256,
        "fingerprint": job.fingerprint,
        "reused": False,
    }


def _stamp(path: Path | None) -> list[Any] | None:
    """Return what tells whether a file (or a folder of masks) changed; its place may change freely."""
    if path is None or not path.exists():
        return None
    files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _choose_scans(
    model: str, organ: str, scans: Sequence[str], metrics: pd.DataFrame | None
) -> list[tuple[str, str, float]]:
    """Return (scan, label, dice) of up to three scans."""
    if metrics is None:
        return [(scan, "", np.nan) for scan in scans[:3]]
    rows = metrics[(metrics["model"] == model) & (metrics["organ"] == organ) & metrics["scan"].isin(scans)]
    ranked = rows.dropna(subset=["dice"]).sort_values(["dice", "scan"])
    if ranked.empty:
        return []
    places = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    chosen: dict[int, str] = {}
    for label, place in places.items():
        chosen.setdefault(place, label)
    return [
        (str(ranked.iloc[place]["scan"]), label, float(ranked.iloc[place]["dice"])) for place, label in chosen.items()
    ]


def _load_panel(
    study: Study, model: str, organ: str, row: pd.Series, scan: str, label: str, dice: float, margin_mm: float
) -> Panel | None:
    """Return one panel, or None where the reference lacks the organ."""
    organs: dict[str, Organ] = study.parameters.cohort.organs
    reference_image = volumes.to_axial(volumes.read_label_map(Path(row["reference"]), organs, study.organ_ids).image)
    reference = sitk.GetArrayFromImage(reference_image) == study.organ_ids[organ]
    if not reference.any():
        return None
    predicted_image = volumes.to_axial(volumes.read_volume(study.prediction_path(model, scan)))
    prediction = sitk.GetArrayFromImage(predicted_image) == study.organ_ids[organ]
    z = int(np.argmax(reference.sum(axis=(1, 2))))
    _, spacing_y, spacing_x = volumes.spacing_zyx_mm(reference_image)
    window = _crop_around(reference[z] | prediction[z], margin_mm, (spacing_y, spacing_x))
    if isinstance(row["image"], str) and row["image"]:
        stored = sitk.GetArrayFromImage(volumes.to_axial(volumes.read_volume(Path(row["image"]))))
        name = models.choose_window(organ, row["modality"])
        grey = models.apply_window(stored, row["modality"], name)[z][window]
    else:
        grey = np.full(reference[z][window].shape, 128, np.uint8)
    return Panel(
        model=model,
        organ=organ,
        number=int(row["number"]),
        label=label,
        dice=dice,
        image=grey,
        spacing_mm=(spacing_y, spacing_x),
        reference=_trace_outlines(reference[z][window], (spacing_y, spacing_x)),
        prediction=_trace_outlines(prediction[z][window], (spacing_y, spacing_x)),
    )


def _crop_around(mask: np.ndarray, margin_mm: float, spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
    window = []
    for axis, (count, spacing) in enumerate(zip(mask.shape, spacing_mm, strict=True)):
        filled = np.flatnonzero(mask.any(axis=1 - axis))
        margin = round(margin_mm / spacing)
        window.append(slice(max(0, int(filled[0]) - margin), min(count, int(filled[-1]) + 1 + margin)))
    return window[0], window[1]


def _trace_outlines(mask: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Return closed outlines as (x, y) in mm; the pixel of index 0 has its centre at half a pixel."""
    padded = np.pad(mask.astype(np.float32), 1)
    outlines = measure.find_contours(padded, 0.5)
    return tuple(
        np.column_stack([(line[:, 1] - 0.5) * spacing_mm[1], (line[:, 0] - 0.5) * spacing_mm[0]]) for line in outlines
    )
