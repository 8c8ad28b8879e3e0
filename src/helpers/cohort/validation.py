"""Every row of the participants table is checked; a scan with a fault is left out and keeps its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers.cohort.numbers import read_numbers
from helpers.compute import CaseFailure, map_cases
from helpers.errors import SegfairError, VolumeError
from helpers.parameters import Cohort, Organ
from helpers.study import Study, find_mask
from helpers.volumes import (
    Grid,
    check_grid,
    check_whole,
    find_grid,
    get_grid,
    orient_grid,
    read_grid,
    read_label_map,
)

MODALITIES = ("CT", "MR")


@dataclass(frozen=True)
class Inspected:
    """Every scan, and what else its files told.

    Attributes
    ----------
    table : DataFrame
        As of :func:`validate_rows`.
    absent : list of list of str
        Per row, the organs that its reference does not hold; of scans that are in.
    unusable : list of dict of str to str
        Per row, why a model's ready-made mask cannot be used, by the model's name; of scans that are in.
    """

    table: pd.DataFrame
    absent: list[list[str]]
    unusable: list[dict[str, str]]


@dataclass(frozen=True)
class _Files:
    """The files of one scan, to be opened in a worker process."""

    reference: Path
    image: Path | None
    organs: dict[str, Organ]
    organ_ids: dict[str, int]
    ignore_labels: tuple[int, ...] | None  # None: ignore all
    scan: str
    subject: str
    masks: dict[str, str]  # places of ready-made masks, with {scan} or {subject}, by model


@dataclass(frozen=True)
class _Found:
    """What the files of one scan tell: reasons to leave it out, remarks, organs it lacks, and faults of ready-made masks by model."""

    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)


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
    return inspect_rows(table, base, study).table


def inspect_rows(table: pd.DataFrame, base: Path, study: Study, *, masks: Mapping[str, str] | None = None) -> Inspected:
    """Check every scan as :func:`validate_rows` does, and keep what else its files tell.

    Parameters
    ----------
    table, base, study
        As there.
    masks : mapping of str to str, optional
        Where the ready-made masks of models lie, with ``{scan}`` or ``{subject}``, by the model's name. Of each, existence and grid are
        checked; its voxels are read only where they are stored as floats, which alone can hold fractions.
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
    found = _check_files(table, study, reasons, notes, dict(masks or {}))
    table.insert(0, "number", np.arange(1, len(table) + 1))
    table["included"] = [not texts for texts in reasons]
    table["reason"] = ["; ".join(dict.fromkeys(texts)) for texts in reasons]
    table["note"] = ["; ".join(dict.fromkeys(texts)) for texts in notes]
    kept = [one if included else _Found() for one, included in zip(found, table["included"], strict=True)]
    return Inspected(table, [one.absent for one in kept], [one.unusable for one in kept])


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
        table[name] = read_numbers(recorded)
        for row, (text, value) in enumerate(zip(recorded, table[name], strict=True)):
            if pd.isna(text):
                if name in cohort.attributes:
                    notes[row].append(f"{name} is missing")
            elif np.isnan(value):
                # The value itself is the person's own and would end in the report: `segfair check` alone shows it.
                if is_asked(name, cohort):
                    reasons[row].append(
                        f"{name} is not a number: write digits alone, without a unit ({unit}), or map the value under cohort.values (segfair check shows it)"
                    )
                else:
                    notes[row].append(f"{name} is not a number")
            elif not low <= value <= high:
                reasons[row].append(f"{name} {value:g} {unit} is outside the plausible {low:g} to {high:g}")
    for name in set(cohort.confounders) - set(cohort.attributes) - {"age", "bmi"}:
        numbers = read_numbers(table[name])
        if numbers.notna().any() and (numbers.notna() | table[name].isna()).all():
            table[name] = numbers  # a column of numbers, read as text like every other
    for name, attribute in cohort.attributes.items():
        if name in ("age", "bmi"):
            continue
        categories = (attribute.categories if attribute is not None else ["female", "male"]) or []
        recorded = table[name]
        if not categories:
            table[name] = read_numbers(recorded)
        for row, (text, value) in enumerate(zip(recorded, table[name], strict=True)):
            if pd.isna(text):
                notes[row].append(f"{name} is missing")
            elif pd.isna(value):
                notes[row].append(f"{name} is not a number")
            elif categories and value not in categories:
                notes[row].append(f"{name} is recorded as {value!r}, which is no group of this study")


def is_asked(name: str, cohort: Cohort) -> bool:
    """Return whether a study asks for age or BMI: as an attribute, a confounder, or by a plausible range of its own."""
    return (
        name in cohort.attributes or name in cohort.confounders or name in cohort.exclusions.plausible.model_fields_set
    )


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


def _check_files(
    table: pd.DataFrame, study: Study, reasons: list[list[str]], notes: list[list[str]], masks: dict[str, str]
) -> list[_Found]:
    """Open the files of every scan that is not out already, through compute; what they told, row by row."""
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
            str(table["scan"][row]),
            str(table["subject"][row]),
            masks,
        )
        for row in rows
    ]
    result = [_Found() for _ in range(len(table))]
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
            result[row] = found
    return result


def _open_files(case: _Files) -> _Found:
    """Read the reference wholly (a truncated file is found only so) and the image's header."""
    reasons: list[str] = []
    notes: list[str] = []
    absent: list[str] = []
    unusable: dict[str, str] = {}
    try:
        find_grid(case.reference)
        labels = read_label_map(case.reference, case.organs, case.organ_ids)
    except VolumeError as error:
        reasons.append(f"reference {error}" if case.reference.name in str(error) else str(error))
        labels = None
    if case.image is not None:
        try:
            grid = read_grid(case.image)
        except VolumeError as error:
            reasons.append(f"image {error}")
        else:
            reasons += [] if labels is None else _compare_grids(orient_grid(grid), orient_grid(get_grid(labels.image)))
    if labels is not None:
        unusable = _check_masks(case, orient_grid(get_grid(labels.image)))
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
    return _Found(reasons, notes, absent, unusable)


def _check_masks(case: _Files, reference: Grid) -> dict[str, str]:
    """Return why each ready-made mask of a scan cannot be used, by model, as far as headers tell; `reference` is oriented."""
    faults = {}
    for model, template in case.masks.items():
        try:
            _check_mask(find_mask(template, case.scan, case.subject), reference)
        except SegfairError as error:
            faults[model] = str(error)
    return faults


def _check_mask(path: Path, reference: Grid) -> None:
    try:
        check_grid(
            orient_grid(find_grid(path)),
            reference,
            what="the mask",
            advice="resample it to the reference with nearest neighbours",
        )
        check_whole(path)
    except VolumeError as error:
        # Scans of one fault are told together, by the scans' names.
        raise VolumeError(str(error).removeprefix(f"{path.name}: ")) from error


def _compare_grids(image: Grid, reference: Grid) -> list[str]:
    """Return why an image and a mask, both on oriented grids, do not lie on one grid.

    The same voxels in another order are the same place: DICOM and NIfTI store rows the other way round.
    """
    try:
        check_grid(image, reference)
    except VolumeError as error:
        return [str(error)]
    return []
