"""References that lie on another grid than their image, brought to it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import volumes
from helpers.compute import CaseFailure, map_cases
from helpers.parameters import Organ
from helpers.study import Study
from helpers.vocabulary.words import name_scan


@dataclass(frozen=True)
class _Job:
    """One scan: what is sent to a worker process."""

    reference: Path
    image: Path
    target: Path
    organs: Mapping[str, Organ]


def resample_references(table: pd.DataFrame, resampled: list[bool], study: Study) -> dict[int, str]:
    """Write references to their images' grids, and let `table` point to them.

    Parameters
    ----------
    table : DataFrame
        A row per scan; gets ``resampled``, ``reference_recorded`` (where it was before), and the
        new ``reference``: ``references/<scan>.nii.gz`` in the study's folder, or a folder of masks.
    resampled : list of bool
        Per row, whether its reference lies on another grid of the scan and the scan is in.

    Returns
    -------
    dict of int to str
        Why a reference could not be brought to its image, by the row's place.
    """
    folder, places = study.folder / "references", [place for place, one in enumerate(resampled) if one]
    chosen, organs = table.iloc[places], dict(study.parameters.cohort.organs)
    jobs = [
        _Job(Path(row.reference), Path(row.image), folder / _name_target(Path(row.reference), row.scan), organs)
        for row in chosen.itertuples()
    ]
    ids = [name_scan(number) for number in chosen["number"]]
    done = map_cases(_resample, jobs, ids=ids, compute=study.parameters.compute, label="resampling references")
    table["resampled"] = resampled
    table["reference_recorded"] = table["reference"].where(table["resampled"], "")
    table.loc[table["resampled"], "reference"] = [str(job.target) for job in jobs]
    told = zip(places, done, strict=True)
    return {place: result.error for place, result in told if isinstance(result, CaseFailure)}


def _name_target(reference: Path, scan: str) -> str:
    return scan if reference.is_dir() else f"{scan}.nii.gz"


def _resample(job: _Job) -> None:
    grid = volumes.read_grid(job.image)
    if not job.reference.is_dir():
        _write(volumes.resample_nearest(volumes.read_volume(job.reference), grid), job.target)
        return
    files = volumes.find_mask_files(job.reference, job.organs)
    for path in {path for several in files.values() for path in several}:
        mask = volumes.resample_nearest(volumes.read_volume(path), grid)
        suffix = next(end for end in volumes.SUFFIXES if path.name.lower().endswith(end))
        _write(mask, job.target / f"{path.name[: -len(suffix)]}.nii.gz")


def _write(image: sitk.Image, path: Path) -> None:
    """Write a mask unless it is there already: predictions from an unchanged one stay valid."""
    if path.is_file():
        former = volumes.read_volume(path)
        same = not volumes.get_grid(former).differences(volumes.get_grid(image))
        if same and np.array_equal(sitk.GetArrayViewFromImage(former), sitk.GetArrayViewFromImage(image)):
            return
    volumes.write_volume(image, path)
