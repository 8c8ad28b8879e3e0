"""References that lie on another grid than their image, brought to it once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import volumes
from helpers.compute import CaseFailure, map_cases
from helpers.study import Study
from helpers.vocabulary.words import name_scan


@dataclass(frozen=True)
class _Job:
    """One scan: what is sent to a worker process."""

    reference: Path
    image: Path
    target: Path


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
    chosen = table.iloc[places]
    jobs = [
        _Job(Path(row.reference), Path(row.image), folder / _name_target(Path(row.reference), row.scan))
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
    for path in sorted(job.reference.iterdir()):
        suffix = next((end for end in volumes.SUFFIXES if path.name.endswith(end)), None)
        if suffix is not None:
            mask = volumes.resample_nearest(volumes.read_volume(path), grid)
            _write(mask, job.target / f"{path.name.removesuffix(suffix)}.nii.gz")


def _write(image: sitk.Image, path: Path) -> None:
    """Write a mask unless it is there already: predictions from an unchanged one stay valid."""
    if path.is_file():
        former = volumes.read_volume(path)
        same = not volumes.get_grid(former).differences(volumes.get_grid(image))
        if same and np.array_equal(sitk.GetArrayViewFromImage(former), sitk.GetArrayViewFromImage(image)):
            return
    volumes.write_volume(image, path)
