"""A segmenter × a cohort → masks on disk: resumable, failures kept apart.

Beside every prediction lies a record (``<scan>.json``) of what it was made from and with. A
prediction is reused when its record's fingerprint is the one it would get now. The record is
removed before the prediction is replaced and written after it, so a kill at any moment leaves a
scan either finished or to be done again. ``inference.parquet`` is gathered from the records.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import SimpleITK as sitk
from filelock import AcquireReturnProxy, FileLock, Timeout
from tqdm import tqdm

from helpers import models, storage, volumes
from helpers.compute import CaseFailure, count_cores, count_workers, map_cases
from helpers.dicom import find_scan_mask
from helpers.errors import SegfairError
from helpers.inference.agreement import measure_overlap
from helpers.kept import Contents
from helpers.models import ScanCase, Segmentation, Segmenter, Spec, TogetherSegmenter
from helpers.parameters import FusionModel, Model, Organ, Prompt
from helpers.prompts import Prompts, draw_prompts
from helpers.resuming import read_contents
from helpers.schema import TABLES
from helpers.study import Study, find_probabilities, find_record
from helpers.vocabulary.words import name_scan

# Raise it when the same inputs would give other masks: every prediction is then made anew.
VERSION = 3

_UNKNOWN = "the model does not draw this organ"


@dataclass(frozen=True)
class _InferenceJob:
    """One scan for one model: what a worker process is sent."""

    spec: Spec
    scan: str
    number: int
    subject: str
    modality: str
    reference: Path | None  # None: the scan has no expert's mask
    image_path: Path | None  # None: the scan has none
    organs: dict[str, Organ]  # where each is found in the reference
    organ_ids: dict[str, int]
    prompt: Prompt
    prompt_seeds: list[dict[str, int]]
    prediction: Path
    fingerprint: str
    checkpoint_sha256: str


def run_inference(study: Study) -> pd.DataFrame:
    """Run every model of a study over its included scans.

    A scan whose prediction is there and was made from the same inputs is kept. A scan that fails is
    recorded and leaves no prediction behind; it is tried again the next time.

    Returns the table ``inference`` (docs/TABLES.md) of all models; the rows of one are also in its
    ``inference.parquet``, beside ``organs.parquet`` (:func:`read_organs`).

    Raises a SegfairError: a model's parameters or files are wrong (all faults at once), or no scan
    is included.
    """
    problems = [problem for model in study.parameters.models for problem in models.check_model(model, study)]
    if problems:
        raise SegfairError("\n".join(problems))
    cohort, everybody = study.read_included(), study.read_proxied()
    everybody = pd.concat([cohort, everybody], ignore_index=True) if len(everybody) else cohort
    tables = {}
    # A fusion needs the masks of the others.
    for model in sorted(study.parameters.models, key=lambda model: isinstance(model, FusionModel)):
        # Without an expert's mask there is nothing to draw prompts from.
        needed = models.needs_reference(model, study.parameters.models)
        tables[model.name] = _run_model(study, model, cohort if needed else everybody)
    in_order = [tables[model.name] for model in study.parameters.models]
    return pd.concat(in_order, ignore_index=True).astype(TABLES["inference"].dtypes)


def read_organs(study: Study) -> pd.DataFrame:
    """Read what 02_inference noted per organ, for all models.

    Finished scans only. Its Dice is to choose what to look at: 03_performance measures.

    Raises a StageError: 02_inference has not gone over the cohort with one of the models.
    """
    tables = [study.read("organs", model=model.name) for model in study.parameters.models]
    return pd.concat(tables, ignore_index=True)


def summarise_inference(table: pd.DataFrame) -> pd.DataFrame:
    """Count scans and measure throughput per model, from what :func:`run_inference` returns.

    Returns a DataFrame: model (in the table's order), scans, ok, failed, reused, prompts, dropped,
    seconds_per_scan (median over finished scans), slices_per_second (slices of finished scans over
    their seconds, on one worker), device and precision. NaN where no scan finished.
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
                "precision": ", ".join(sorted(set(ok["precision"]) - {""})),
            }
        )
    return pd.DataFrame(rows)


def list_failures(table: pd.DataFrame) -> dict[str, str]:
    """Return the failed scans as ``{"model / scan": sentence}``, as run.json records them."""
    failed = table[table["status"] == "failed"]
    return {f"{row.model} / {row.scan}": row.error for row in failed.itertuples()}


def hash_checkpoints(study: Study) -> dict[str, str]:
    """Return the SHA-256 of the weights file of every model that has one."""
    found = {model.name: models.find_checkpoint(model, study) for model in study.parameters.models}
    return {name: models.hash_checkpoint(path) for name, path in found.items() if path is not None and path.is_file()}


def _run_model(study: Study, model: Model, cohort: pd.DataFrame) -> pd.DataFrame:
    spec = models.make_spec(model, study)
    checkpoint_sha256 = "" if spec.checkpoint is None else models.hash_checkpoint(spec.checkpoint)
    with _take_turn(study, model):
        records: dict[str, dict[str, Any]] = {}
        jobs: list[_InferenceJob] = []
        members = _read_members(study, model)
        contents = Contents(study.folder)
        read_contents(contents, _list_places(spec, cohort), study.parameters.compute)
        for row in cohort.itertuples():
            job = _make_job(study, model, spec, row, checkpoint_sha256, members, contents)
            kept = _read_record(job, contents)
            if kept is None:
                jobs.append(job)
            else:
                records[job.scan] = {**kept, "reused": True}
        with _work_together(jobs, study):
            results = _run_jobs(_segment_scan, jobs, study, model.name)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, CaseFailure):
                # A mask made from former inputs must not pass for this study's.
                for stale in (find_record(job.prediction), job.prediction):
                    with suppress(OSError):  # the table says that the scan failed, whatever lies there
                        stale.unlink()
                result = _record_failure(job, result)
            else:
                contents.note(job.prediction, result["sha256"])
            records[job.scan] = {**result, "reused": False}
        contents.flush()
        in_order = [records[scan] for scan in cohort["scan"]]
        table = pd.DataFrame([{"model": model.name, "resampled": False, "remark": "", **record} for record in in_order])
        types = TABLES["inference"].dtypes
        table = table.reindex(columns=list(types)).astype(types)
        rows = [
            {"model": model.name, "scan": record["scan"], "organ": organ, **values}
            for record in in_order
            for organ, values in record.get("organs", {}).items()
        ]
        types = TABLES["organs"].dtypes
        organs = pd.DataFrame(rows, columns=list(types)).astype(types)
        storage.write_table(organs, study.path("organs", model=model.name))
        storage.write_table(table, study.inference_path(model.name))
    return table


def _take_turn(study: Study, model: Model) -> AcquireReturnProxy:
    """Hold a model's folder: a second process waits, and then finds the scans finished."""
    folder = study.inference_path(model.name).parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"{model.name}: another process is at work on this study: waiting for it")
        return lock.acquire()


@contextmanager
def _work_together(jobs: list[_InferenceJob], study: Study) -> Iterator[None]:
    """Let a model that works on all scans in one go do so; its scans are then read one by one."""
    if not jobs or not jobs[0].spec.together:
        yield
        return
    segmenter = cast(TogetherSegmenter, models.load_segmenter(jobs[0].spec))
    segmenter.clear()
    try:
        _run_jobs(_hand_over_scan, jobs, study, f"{jobs[0].spec.name}, images")
        segmenter.work()
        yield
    finally:
        segmenter.clear()


def _run_jobs(
    function: Callable[[_InferenceJob], Any], jobs: list[_InferenceJob], study: Study, label: str
) -> list[Any]:
    if not jobs:
        return []
    compute, cards, on_card = study.parameters.compute, [], False
    spec = jobs[0].spec
    if models.KINDS[spec.kind].needs_image and not spec.together:  # else these processes need no card
        cards, on_card = models.list_cards(compute.device), compute.device != "cpu"
        if compute.workers == "cores" and compute.device.startswith(("cuda:", "mps")):
            compute = compute.model_copy(update={"workers": 1})  # one card, one model
    if not compute.is_remote and compute.workers != 0 and len(jobs) > 1:
        # Without a card a process per core is enough: threads would get in each other's way.
        threads = max(1, count_cores() // count_workers(compute, cards)) if cards else 1
        jobs = [replace(job, spec=replace(job.spec, threads=threads)) for job in jobs]
    # Progress lines end up in the executed notebook: they name scans by their number.
    ids = [name_scan(job.number) for job in jobs]
    return map_cases(function, jobs, ids=ids, compute=compute, label=label, cards=cards, on_card=on_card)


def _read_members(study: Study, model: Model) -> dict[str, dict[str, str]]:
    """Return what each member of a fusion made its masks from, by member and scan; else nothing."""
    names = model.of if isinstance(model, FusionModel) else []
    tables = {name: study.read("inference", model=name) for name in names}
    return {name: dict(zip(table["scan"], table["fingerprint"], strict=True)) for name, table in tables.items()}


def _make_job(
    study: Study,
    model: Model,
    spec: Spec,
    row: Any,
    checkpoint_sha256: str,
    members: Mapping[str, Mapping[str, str]],
    contents: Contents,
) -> _InferenceJob:
    def hold(place: Path | None) -> str | None:
        return None if place is None else contents.find(place)

    kind = models.find_kind(model)
    reference = Path(row.reference) if isinstance(row.reference, str) and row.reference else None
    image = Path(row.image) if isinstance(row.image, str) and row.image else None
    organs = dict(study.parameters.cohort.organs)
    prompted = study.organ_ids if kind.needs_prompts else ()
    seeds = [
        # The first draw keeps its seed whatever the number of draws.
        {organ: study.seed_for("prompt", row.scan, organ, *([draw] if draw else [])) for organ in prompted}
        for draw in range(model.prompt.draws if kind.needs_prompts else 1)
    ]
    depends_on: dict[str, Any] = {
        "version": VERSION,
        "kind": model.kind,
        "variant": spec.variant,
        "checkpoint": checkpoint_sha256,
        "modality": row.modality,
        "reference": hold(reference),
        "organs": {name: organ.model_dump(mode="json") for name, organ in spec.organs.items()},
        "reference_organs": {name: organ.model_dump(mode="json") for name, organ in organs.items()},
        "setup": spec.depends_on,
        "members": {name: prints.get(row.scan) for name, prints in members.items()},
        "organ_ids": study.organ_ids,
    }
    if spec.resample:
        depends_on["resample"] = "nearest"
    if kind.needs_prompts:
        depends_on |= {"prompt": model.prompt.model_dump(mode="json"), "seeds": seeds}
    if kind.needs_image:
        depends_on |= {
            "image": hold(image),
            "windows": study.parameters.windows.model_dump(mode="json"),
            "precision": spec.precision,
        }
    if spec.template is not None:
        depends_on["masks"] = hold(_find_masks(spec, row))
    if spec.halve:
        depends_on["fractions"] = "half"
    return _InferenceJob(
        spec=spec,
        scan=row.scan,
        number=int(row.number),
        subject=row.subject,
        modality=row.modality,
        reference=reference,
        image_path=image,
        organs=organs,
        organ_ids=study.organ_ids,
        prompt=model.prompt,
        prompt_seeds=seeds,
        prediction=study.prediction_path(model.name, row.scan),
        fingerprint=storage.hash_value(depends_on),
        checkpoint_sha256=checkpoint_sha256,
    )


def _hand_over_scan(job: _InferenceJob) -> None:
    """Give one scan to a model that will work on all together."""
    cast(TogetherSegmenter, _open_segmenter(job)).hand_over(_read_case(job)[0])


def _segment_scan(job: _InferenceJob) -> dict[str, Any]:
    """Segment one scan and write its prediction, then its record, which is returned."""
    segmenter = _open_segmenter(job)
    began = time.monotonic()
    case, reference, reference_grid = _read_case(job)
    read = time.monotonic()
    result = segmenter.segment(case)
    segmented = time.monotonic()
    prediction = volumes.from_axial(volumes.make_image(result.labels, case.grid), reference_grid)
    record_path = find_record(job.prediction)
    record_path.unlink(missing_ok=True)
    volumes.write_volume(prediction, job.prediction)
    if job.spec.want_probabilities:
        with storage.write_atomically(find_probabilities(job.prediction)) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **result.probabilities)
    written = time.monotonic()
    record = {
        "scan": job.scan,
        "status": "ok",
        "error": "",
        "seconds": round(written - began + result.earlier_seconds, 3),
        "read_seconds": round(read - began, 3),
        "encode_seconds": _round(result.encode_seconds),
        "decode_seconds": _round(result.decode_seconds),
        "write_seconds": round(written - segmented, 3),
        "device": segmenter.device,
        "precision": segmenter.precision,
        "batch": result.batch,
        "remark": result.remark,
        "slices": result.slices,
        "prompts": result.prompts,
        "dropped": sum(prompts.dropped for prompts in case.prompts.values()),
        "resampled": result.resampled,
        "checkpoint_sha256": job.checkpoint_sha256,
        "fingerprint": job.fingerprint,
        "bytes": job.prediction.stat().st_size,
        "sha256": storage.hash_file(job.prediction),
        "organs": _describe_organs(case, reference, result, job.spec.organs),
    }
    storage.write_json(record, record_path)
    return record


def _describe_organs(
    case: ScanCase, reference: np.ndarray | None, result: Segmentation, known_organs: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return per organ its prompts, its Dice with the reference, and the agreement of the draws.

    An organ that the model does not draw has a reason in place of a Dice.
    """
    dice = {} if reference is None else measure_overlap(reference, result.labels, case.organ_ids)
    draws = [result.labels, *result.repeats]
    pairs = [measure_overlap(first, second, case.organ_ids) for first, second in combinations(draws, 2)]
    described = {}
    not_drawn = dict.fromkeys(set(case.organ_ids) - set(known_organs), _UNKNOWN) | dict(result.not_drawn)
    for organ in case.organ_ids:
        prompts = case.prompts.get(organ)
        known = [pair[organ] for pair in pairs if np.isfinite(pair[organ])]
        described[organ] = {
            "prompts": None if prompts is None else len(prompts),
            "drawn": None if prompts is None else result.drawn.get(organ, prompts.effort),
            "dropped": None if prompts is None else prompts.dropped,
            "dice": None if organ in not_drawn else _round(dice.get(organ, np.nan), 6),
            "agreement": _round(float(np.mean(known)), 6) if known else None,
            "not_drawn": not_drawn.get(organ, ""),
        }
    return described


def _round(value: float, digits: int = 3) -> float | None:
    """Round for a record; JSON has no NaN."""
    return round(value, digits) if np.isfinite(value) else None


# The model of this process: loading one takes seconds, and a worker works on one model at a time.
_loaded: tuple[Spec, str, Segmenter] | None = None


def _open_segmenter(job: _InferenceJob) -> Segmenter:
    global _loaded
    if _loaded is None or _loaded[:2] != (job.spec, job.checkpoint_sha256):
        _loaded = None  # let go of the former model before the next one takes memory
        _loaded = (job.spec, job.checkpoint_sha256, models.load_segmenter(job.spec))
    return _loaded[2]


def _read_case(job: _InferenceJob) -> tuple[ScanCase, np.ndarray | None, volumes.Grid]:
    """Return a scan in the study orientation, the reference's labels (z, y, x), its stored grid.

    Without a reference the grid is the image's.
    """
    labels, midline_x_mm, draws = None, None, [dict[str, Prompts]()]
    if job.reference is not None:
        label_map = volumes.read_label_map(job.reference, job.organs, job.organ_ids)
        reference = volumes.to_axial(label_map.image)
        stored_grid, midline_x_mm = volumes.get_grid(label_map.image), label_map.midline_x_mm
        labels, spacing_zyx_mm = sitk.GetArrayFromImage(reference), volumes.get_spacing_zyx_mm(reference)
        draws = [_draw_prompts(labels, spacing_zyx_mm, job, seeds) for seeds in job.prompt_seeds]
    elif job.image_path is not None:
        stored_grid = volumes.read_grid(job.image_path)
    else:
        raise SegfairError(models.IMAGE_FAULTS["image_missing"])
    grid = volumes.orient_grid(stored_grid)
    image, image_grid = None, None
    if models.KINDS[job.spec.kind].needs_image:
        if job.image_path is None:
            raise SegfairError(models.IMAGE_FAULTS["image_missing"])
        stored = volumes.read_volume(job.image_path)
        image_grid = volumes.get_grid(stored)
        oriented = volumes.to_axial(stored)
        volumes.check_grid(volumes.get_grid(oriented), grid, advice="resample the reference to the image")
        image = sitk.GetArrayFromImage(oriented)
    case = ScanCase(
        scan=job.scan,
        subject=job.subject,
        modality=job.modality,
        grid=grid,
        organ_ids=job.organ_ids,
        prompts=draws[0],
        repeats=draws[1:],
        image=image,
        midline_x_mm=midline_x_mm,
        number=job.number,
        image_path=job.image_path,
        stored=image_grid,
    )
    return case, labels, stored_grid


def _draw_prompts(
    labels: np.ndarray, spacing_zyx_mm: tuple[float, float, float], job: _InferenceJob, seeds: dict[str, int]
) -> dict[str, Prompts]:
    """Draw one set of prompts; the seeds do not depend on the model: every model gets the same."""
    return {
        organ: draw_prompts(labels == job.organ_ids[organ], spacing_zyx_mm, job.prompt, np.random.default_rng(seed))
        for organ, seed in seeds.items()
    }


def _list_places(spec: Spec, cohort: pd.DataFrame) -> list[Path]:
    """Return the files that a model's masks are made from."""
    columns = ("reference", "image") if models.KINDS[spec.kind].needs_image else ("reference",)
    names = [text for column in columns for text in cohort[column] if isinstance(text, str) and text]
    masks = [_find_masks(spec, row) for row in cohort.itertuples()] if spec.template is not None else []
    return [*map(Path, names), *(path for path in masks if path is not None)]


def _read_record(job: _InferenceJob, contents: Contents) -> dict[str, Any] | None:
    """Return the record of a scan finished from the same inputs; None when it has to be done."""
    try:
        record = json.loads(find_record(job.prediction).read_text(encoding="utf-8"))
        current = isinstance(record, dict) and record.get("fingerprint") == job.fingerprint
        whole = current and _is_as_written(job.prediction, record, contents)
    except (OSError, ValueError):
        return None
    if job.spec.want_probabilities and not find_probabilities(job.prediction).exists():
        return None
    return record if whole else None


def _is_as_written(prediction: Path, record: dict[str, Any], contents: Contents) -> bool:
    """Tell whether a prediction holds what was written; it is read where its stamp is new."""
    if prediction.stat().st_size != record.get("bytes"):
        return False
    return record.get("sha256") in (None, contents.find(prediction))  # None: of an earlier version


def _record_failure(job: _InferenceJob, failure: CaseFailure) -> dict[str, Any]:
    record = {"scan": job.scan, "status": "failed", "error": failure.error, "device": "", "precision": ""}
    return record | {"checkpoint_sha256": job.checkpoint_sha256, "fingerprint": job.fingerprint}


def _find_masks(spec: Spec, row: Any) -> Path | None:
    """Return a scan's ready-made mask; None where there is none."""
    try:
        return find_scan_mask(str(spec.template), row.scan, row.subject, spec.mask_series)
    except SegfairError:
        return None
