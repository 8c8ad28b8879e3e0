"""How far a model's mask agrees with others': what scans without a reference have as well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import volumes
from helpers.compute import CaseFailure, map_cases
from helpers.errors import SegfairError
from helpers.inference.agreement import measure_overlap
from helpers.models import needs_reference
from helpers.parameters import FusionModel
from helpers.study import Study
from helpers.vocabulary.words import name_scan


@dataclass(frozen=True)
class _AgreementJob:
    """One scan's masks, by model, and the models that each is compared with."""

    masks: dict[str, Path]
    partners: dict[str, list[str]]
    organ_ids: dict[str, int]


def measure_proxies(study: Study) -> pd.DataFrame:
    """Measure ``dice_proxy`` of every scan, with and without an expert's mask.

    The proxy is the Dice with the mask of ``fairness.proxy``, or else of the study's first fusion,
    or else the mean over all other automatic models that drew the organ. Prompted models draw from
    the expert's mask and have none.

    Returns
    -------
    DataFrame
        subject, scan, number, model, organ, ``dice_proxy`` (0 to 1; NaN where a mask is missing).
    """
    people = pd.concat([study.read_included(), study.read_proxied()], ignore_index=True)
    partners = choose_partners(study)
    paths: dict[str, dict[str, Path]] = {}
    for model in {*partners, *(name for several in partners.values() for name in several)}:
        done = study.read("inference", model=model)
        scans = done.loc[done["status"] == "ok", "scan"]
        paths[model] = {scan: study.prediction_path(model, scan) for scan in scans}
    jobs = [
        _AgreementJob(
            {model: found[scan] for model, found in paths.items() if scan in found}, partners, study.organ_ids
        )
        for scan in people["scan"]
    ]
    names = [name_scan(number) for number in people["number"]]
    done = map_cases(_measure, jobs, ids=names, compute=study.parameters.compute, label="comparing models")
    rows = []
    for person, found in zip(people.itertuples(index=False), done, strict=True):
        if isinstance(found, CaseFailure):
            continue
        head = {"subject": person.subject, "scan": person.scan, "number": int(person.number)}
        rows += [head | row for row in found]
    columns = ["subject", "scan", "number", "model", "organ", "dice_proxy"]
    return pd.DataFrame(rows, columns=columns)


def choose_partners(study: Study) -> dict[str, list[str]]:
    """Return the models that each automatic model is compared with.

    Raises
    ------
    SegfairError
        ``fairness.proxy`` names no automatic model of the study, or there is none to compare with.
    """
    every = study.parameters.models
    models = [model for model in every if not needs_reference(model, every)]
    names, wanted = [model.name for model in models], study.parameters.fairness.proxy
    if wanted and wanted not in names:
        raise SegfairError(
            f"fairness.proxy: {wanted} is no automatic model of this study ({', '.join(names) or 'it has none'})"
        )
    fusions = [model.name for model in models if isinstance(model, FusionModel)]
    chosen = [wanted] if wanted else fusions[:1] or names
    found = {name: [other for other in chosen if other != name] for name in names}
    found = {name: several for name, several in found.items() if several}
    if not found:
        raise SegfairError(
            "cohort.masked: scans without an expert's mask count by another model's mask: name at least two automatic "
            "models"
        )
    return found


def _measure(job: _AgreementJob) -> list[dict[str, object]]:
    """Compare the masks of one scan."""
    masks: dict[str, np.ndarray] = {}
    grid = None
    for model, path in job.masks.items():
        image = volumes.read_volume(path)
        grid = grid or volumes.get_grid(image)
        volumes.check_grid(volumes.get_grid(image), grid, what="the prediction", advice="run 02_inference again")
        masks[model] = sitk.GetArrayFromImage(image)
    rows: list[dict[str, object]] = []
    for model, partners in job.partners.items():
        if model not in masks:
            continue
        pairs = [measure_overlap(masks[other], masks[model], job.organ_ids) for other in partners if other in masks]
        for organ in job.organ_ids:
            known = [pair[organ] for pair in pairs if np.isfinite(pair[organ])]
            rows.append({"model": model, "organ": organ, "dice_proxy": float(np.mean(known)) if known else np.nan})
    return rows
