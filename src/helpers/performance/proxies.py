"""How far a model's mask agrees with others': what scans without a reference have as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import volumes
from helpers.compute import CaseFailure
from helpers.errors import SegfairError
from helpers.inference.agreement import measure_overlap
from helpers.kept import Ingredients, Kept, hash_code, hash_settings
from helpers.models import needs_reference
from helpers.parameters import FusionModel
from helpers.resuming import Missing, map_kept
from helpers.study import Study
from helpers.vocabulary.words import name_scan


@dataclass(frozen=True)
class _DrawnScan:
    """One scan's masks, by model."""

    masks: dict[str, Path]
    organ_ids: dict[str, int]


def measure_proxies(study: Study) -> pd.DataFrame:
    """Measure ``dice_proxy`` of every scan, with and without an expert's mask.

    The proxy is the Dice with the mask of ``fairness.proxy``, or else of the study's first fusion,
    or else the mean over all other automatic models that drew the organ. Prompted models draw from
    the expert's mask and have none.

    Returns subject, scan, number, model, organ, ``dice_proxy`` (0 to 1; NaN where a mask is
    missing).
    """
    people = pd.concat([study.read_included(), study.read_proxied()], ignore_index=True)
    partners = choose_partners(study)
    paths: dict[str, dict[str, Path]] = {}
    for model in {*partners, *(name for several in partners.values() for name in several)}:
        done = study.read("inference", model=model)
        scans = done.loc[done["status"] == "ok", "scan"]
        paths[model] = {scan: study.prediction_path(model, scan) for scan in scans}
    scans = [
        _DrawnScan({model: found[scan] for model, found in paths.items() if scan in found}, study.organ_ids)
        for scan in people["scan"]
    ]
    done = map_kept(
        _compare_missing,
        scans,
        [_list_wanted(scan, partners) for scan in scans],
        kept=Kept(study.folder, "proxies"),
        ids=[name_scan(number) for number in people["number"]],
        compute=study.parameters.compute,
        label="comparing models",
    )
    rows = []
    for person, scan, found in zip(people.itertuples(index=False), scans, done, strict=True):
        if isinstance(found, CaseFailure):
            continue
        head = {"subject": person.subject, "scan": person.scan, "number": int(person.number)}
        for model in (name for name in partners if name in scan.masks):
            pairs = [found[_pair(model, other)] for other in partners[model] if other in scan.masks]
            for organ in scan.organ_ids:
                known = [pair[organ] for pair in pairs if np.isfinite(pair[organ])]
                mean = float(np.mean(known)) if known else np.nan
                rows.append({**head, "model": model, "organ": organ, "dice_proxy": mean})
    columns = ["subject", "scan", "number", "model", "organ", "dice_proxy"]
    return pd.DataFrame(rows, columns=columns)


def choose_partners(study: Study) -> dict[str, list[str]]:
    """Return the models that each automatic model is compared with.

    A SegfairError where ``fairness.proxy`` names no automatic model of the study, or there is none
    to compare with.
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


def _pair(one: str, other: str) -> tuple[str, ...]:
    """Return two models in one order: what is measured of them is the same either way."""
    return tuple(sorted((one, other)))


def _list_wanted(scan: _DrawnScan, partners: Mapping[str, Sequence[str]]) -> dict[Any, Ingredients]:
    settings = hash_settings(hash_code("performance.proxies"), scan.organ_ids)
    pairs = {_pair(model, other) for model, others in partners.items() for other in others}
    return {
        pair: Ingredients(tuple(scan.masks[model] for model in pair), settings)
        for pair in sorted(pairs)
        if set(pair) <= set(scan.masks)
    }


def _compare_missing(scan: _DrawnScan, missing: Missing) -> dict[Any, dict[str, float]]:
    """Measure the Dice of pairs of masks of one scan, by organ."""
    masks: dict[str, np.ndarray] = {}
    grid = None
    for model in sorted({model for pair in missing for model in pair}):
        image = volumes.read_volume(scan.masks[model])
        grid = grid or volumes.get_grid(image)
        volumes.check_grid(volumes.get_grid(image), grid, what="the prediction", advice="run 02_inference again")
        masks[model] = sitk.GetArrayFromImage(image)
    return {(one, other): measure_overlap(masks[one], masks[other], scan.organ_ids) for one, other in missing}
