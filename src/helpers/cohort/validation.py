"""Every row of the participants table is checked; a scan with a fault is left out and keeps its reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers.compute import CaseFailure, map_cases
from helpers.errors import SegfairError, VolumeError
from helpers.parameters import Cohort, Organ
from helpers.study import Study
from helpers.volumes import Grid, check_grid, find_grid, grid_of, grid_of_image, orient_grid, read_label_map

MODALITIES = ("CT", "MR")


@dataclass(frozen=True)
class _Files:
    """The files of one scan, to be opened in a worker process."""

    reference: Path
    image: Path | None
    organs: dict[str, Organ]
    organ_ids: dict[str, int]
    ignore_labels: tuple[int, ...] | None  # None: ignore all


@dataclass(frozen=True)
class _Found:
    """What the files of one scan tell: reasons to leave it out, and remarks."""

    reasons: list[str]
    notes: list[str]


def validate_rows(table: pd.DataFrame, base: Path, study: Study) -> pd.DataFrame:
    """Check every scan and say of each whether it is in, and why not.

    Parameters
    ----------
    table : DataFrame
        From :func:`helpers.cohort.sources.read_source`: text as recorded.
    base : Path
        The folder that its paths are relative to.
    study : Study

    Returns
    -------
    DataFrame
        `table` with numbers for age and BMI, absolute paths, and ``number``, ``included``, ``reason``, ``note``.
    """
    cohort = study.parameters.cohort
    table = table.reset_index(drop=True).copy()
    reasons: list[list[str]] = [[] for _ in range(len(table))]
    notes: list[list[str]] = [[] for _ in range(len(table))]
    for column in ("subject", "scan", "modality"):
        table[column] = table[column].astype("str").str.strip().where(table[column].notna())
    for check in (_check_names, _check_numbers, _check_listed):
        check(table, cohort, reasons, notes)
    for column in ("reference", "image"):
        table[column] = [_find_path(text, base) for text in table[column]]
    _check_files(table, study, reasons, notes)
    table.insert(0, "number", np.arange(1, len(table) + 1))
    table["included"] = [not found for found in reasons]
    table["reason"] = ["; ".join(dict.fromkeys(found)) for found in reasons]
    table["note"] = ["; ".join(dict.fromkeys(found)) for found in notes]
    return table


def _check_names(table: pd.DataFrame, cohort: Cohort, reasons: list[list[str]], notes: list[list[str]]) -> None:
    twice = table["scan"].duplicated(keep=False) & table["scan"].notna()
    for row, (subject, scan, modality, reference) in enumerate(
        table[["subject", "scan", "modality", "reference"]].itertuples(index=False)
    ):
        if pd.isna(subject):
            reasons[row].append("subject is missing")
        if pd.isna(scan):
            if not pd.isna(subject):
                reasons[row].append("scan is missing")
        elif "/" in scan or "\\" in scan or scan.startswith(".") or "\0" in scan:
            reasons[row].append("scan name cannot be a file name: use letters, digits, - and _")
        elif twice[row]:
            reasons[row].append("scan name is used by more than one row: give every scan its own")
        if modality not in MODALITIES:
            reasons[row].append(
                f"modality must be CT or MR; got {'nothing' if pd.isna(modality) else repr(modality)}: map it under cohort.values"
            )
        if pd.isna(reference):
            reasons[row].append("reference is missing: give the path of the expert's mask")


def _check_numbers(table: pd.DataFrame, cohort: Cohort, reasons: list[list[str]], notes: list[list[str]]) -> None:
    ranges = {"age": (cohort.exclusions.plausible.age, "years"), "bmi": (cohort.exclusions.plausible.bmi, "kg/m²")}
    for name, ((low, high), unit) in ranges.items():
        recorded = table[name]
        table[name] = pd.to_numeric(recorded, errors="coerce").astype(float)
        for row, (text, value) in enumerate(zip(recorded, table[name], strict=True)):
            if pd.isna(text):
                if name in cohort.attributes:
                    notes[row].append(f"{name} is missing")
            elif np.isnan(value):
                reasons[row].append(f"{name} is not a number")
            elif not low <= value <= high:
                reasons[row].append(f"{name} {value:g} {unit} is outside the plausible {low:g} to {high:g}")
    for name in set(cohort.confounders) - set(cohort.attributes) - {"age", "bmi"}:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if numbers.notna().any() and (numbers.notna() | table[name].isna()).all():
            table[name] = numbers.astype(float)  # a column of numbers, read as text like every other
    for name, attribute in cohort.attributes.items():
        if name in ("age", "bmi"):
            continue
        categories = (attribute.categories if attribute is not None else ["female", "male"]) or []
        if not categories:
            table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
        for row, value in enumerate(table[name]):
            if pd.isna(value):
                notes[row].append(f"{name} is missing")
            elif categories and value not in categories:
                notes[row].append(f"{name} is recorded as {value!r}, which is no group of this study")


def _check_listed(table: pd.DataFrame, cohort: Cohort, reasons: list[list[str]], notes: list[list[str]]) -> None:
    unknown = sorted(set(cohort.exclusions.scans) - set(table["scan"]))
    if unknown:
        # Someone who is to be left out must not stay in because of a typing error.
        raise SegfairError(
            f"cohort.exclusions.scans names {', '.join(unknown)}, which is no scan of the table: correct the name"
        )
    for row, scan in enumerate(table["scan"]):
        if scan in cohort.exclusions.scans:
            reasons[row].append(cohort.exclusions.scans[scan])


def _find_path(text: object, base: Path) -> str | None:
    return None if pd.isna(text) else str((base / Path(str(text)).expanduser()).resolve())


def _check_files(table: pd.DataFrame, study: Study, reasons: list[list[str]], notes: list[list[str]]) -> None:
    """Open the files of every scan that is not out already, through compute."""
    cohort = study.parameters.cohort
    ignore = None if cohort.ignore_labels == "all" else tuple(cohort.ignore_labels)
    rows = [row for row in range(len(table)) if not reasons[row]]
    cases = [
        _Files(
            Path(table["reference"][row]),
            None if pd.isna(table["image"][row]) else Path(table["image"][row]),
            dict(cohort.organs),
            study.organ_ids,
            ignore,
        )
        for row in rows
    ]
    ids = [f"scan {row + 1}" for row in rows]
    for row, found in zip(
        rows,
        map_cases(_open_files, cases, ids=ids, compute=study.parameters.compute, label="checking scans"),
        strict=True,
    ):
        if isinstance(found, CaseFailure):
            reasons[row].append(found.error)
        else:
            reasons[row] += found.reasons
            notes[row] += found.notes


def _open_files(case: _Files) -> _Found:
    """Read the reference wholly (a truncated file is found only so) and the image's header."""
    reasons: list[str] = []
    notes: list[str] = []
    try:
        find_grid(case.reference)
        labels = read_label_map(case.reference, case.organs, case.organ_ids)
    except VolumeError as error:
        reasons.append(f"reference {error}" if case.reference.name in str(error) else str(error))
        labels = None
    if case.image is not None:
        try:
            grid = grid_of(case.image)
        except VolumeError as error:
            reasons.append(f"image {error}")
        else:
            reasons += (
                [] if labels is None else _compare_grids(orient_grid(grid), orient_grid(grid_of_image(labels.image)))
            )
    if labels is not None:
        present = set(np.unique(sitk.GetArrayViewFromImage(labels.image)).tolist()) - {0}
        absent = [name for name, value in case.organ_ids.items() if value not in present]
        if len(absent) == len(case.organ_ids):
            reasons.append("the mask holds none of the study's organs")
        elif absent:
            notes.append(f"not in the mask: {', '.join(absent)}")
        unknown = [] if case.ignore_labels is None else sorted(set(labels.unknown) - set(case.ignore_labels))
        if unknown:
            reasons.append(
                f"the mask holds labels that no organ names ({', '.join(map(str, unknown))}): name them in cohort.organs or in cohort.ignore_labels"
            )
        notes += labels.notes
    return _Found(reasons, notes)


def _compare_grids(image: Grid, reference: Grid) -> list[str]:
    """Return why an image and a mask, both on oriented grids, do not lie on one grid.

    The same voxels in another order are the same place: DICOM and NIfTI store rows the other way round.
    """
    try:
        check_grid(image, reference)
    except VolumeError as error:
        return [str(error)]
    return []
