"""References written anew once: those on another grid to their image's, DICOM ones as NIfTI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import volumes
from helpers.cohort.validation import Found
from helpers.compute import CaseFailure, map_cases
from helpers.parameters import Organ
from helpers.study import Study, choose_place, has_many
from helpers.vocabulary.words import name_scan


@dataclass(frozen=True)
class _Job:
    """One scan: what is sent to a worker process."""

    reference: Path
    image: Path | None
    target: Path
    organs: Mapping[str, Organ]
    halve: bool
    resampled: bool


def rewrite_references(table: pd.DataFrame, found: Sequence[Found], study: Study) -> dict[int, str]:
    """Write references to their images' grids, DICOM ones as masks; let `table` point to them.

    `table` has a row per scan and gets ``resampled``, ``reference_recorded`` (where it was before),
    and the new ``reference``: ``references/<scan>.nii.gz`` in the study's folder, or a folder of
    masks (of DICOM with a file for each organ that it holds). Returns why a reference could not be
    written, by the row's place.
    """
    folder, cohort = study.folder / "references", study.parameters.cohort
    places = [place for place, one in enumerate(found) if one.resampled or one.unpacked]
    chosen = table.iloc[places]
    jobs = [
        _Job(
            Path(row.reference),
            Path(row.image) if isinstance(row.image, str) else None,
            choose_place(
                folder,
                row.scan if found[place].unpacked or Path(row.reference).is_dir() else f"{row.scan}.nii.gz",
                many=has_many(len(table)),
            ),
            cohort.organs,
            cohort.halve,
            found[place].resampled,
        )
        for place, row in zip(places, chosen.itertuples(), strict=True)
    ]
    ids = [name_scan(number) for number in chosen["number"]]
    done = map_cases(_rewrite, jobs, ids=ids, compute=study.parameters.compute, label="writing references")
    table["resampled"] = [one.resampled for one in found]
    anew = pd.Series([one.resampled or one.unpacked for one in found], index=table.index)
    table["reference_recorded"] = table["reference"].where(anew, "")
    table.loc[anew, "reference"] = [str(job.target) for job in jobs]
    told = zip(places, done, strict=True)
    return {place: result.error for place, result in told if isinstance(result, CaseFailure)}


def _rewrite(job: _Job) -> None:
    grid = volumes.read_grid(job.image) if job.resampled and job.image is not None else None
    if volumes.is_dicom_mask(job.reference):
        _unpack(job, grid)
    elif not job.reference.is_dir():
        _write(_bring(volumes.read_volume(job.reference), grid), job.target)
    else:
        files = volumes.find_mask_files(job.reference, job.organs)
        for path in {path for several in files.values() for path in several}:
            suffix = next(end for end in volumes.SUFFIXES if path.name.lower().endswith(end))
            _write(_bring(volumes.read_volume(path), grid), job.target / f"{path.name[: -len(suffix)]}.nii.gz")


def _unpack(job: _Job, grid: volumes.Grid | None) -> None:
    """Write a file for each organ of a DICOM mask, under the name that a folder of masks has it."""
    found, own_grid = volumes.read_dicom_mask(job.reference, job.organs, image=job.image, halve=job.halve)
    for organ, mask in found.masks.items():
        path = job.target / f"{(job.organs[organ].files or [organ])[0]}.nii.gz"
        if organ in found.missing:
            path.unlink(missing_ok=True)  # of a former mask
        else:
            _write(_bring(volumes.make_image(mask.astype(np.uint8), own_grid), grid), path)


def _bring(mask: sitk.Image, grid: volumes.Grid | None) -> sitk.Image:
    return mask if grid is None else volumes.resample_nearest(mask, grid)


def _write(image: sitk.Image, path: Path) -> None:
    """Write a mask unless it is there already: predictions from an unchanged one stay valid."""
    if path.is_file():
        former = volumes.read_volume(path)
        same = not volumes.get_grid(former).differences(volumes.get_grid(image))
        if same and np.array_equal(sitk.GetArrayViewFromImage(former), sitk.GetArrayViewFromImage(image)):
            return
    volumes.write_volume(image, path)
