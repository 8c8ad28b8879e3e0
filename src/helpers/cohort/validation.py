"""Every row of the participants table is checked; a scan with a fault is left out, with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers.cohort.numbers import read_numbers
from helpers.cohort.reasons import LISTED, Finding, join_sentences
from helpers.compute import CaseFailure, map_cases
from helpers.errors import SegfairError, VolumeError
from helpers.parameters import Cohort, Organ
from helpers.study import Study
from helpers.volumes import (
    Grid,
    check_grid,
    check_whole,
    find_grid,
    find_mask,
    grid_of,
    grid_of_image,
    orient_grid,
    read_label_map,
)

MODALITIES = ("CT", "MR")
_Findings = list[list[Finding]]  # of each row


@dataclass(frozen=True)
class Inspected:
    """Every scan, and what else its files told.

    Attributes
    ----------
    table : DataFrame
        The source's table with numbers for age and BMI, absolute paths, and ``number``,
        ``included``, ``reason``, ``note``.
    reasons : list of list of Finding
        Per row, why it is left out.
    absent : list of list of str
        Per row, the organs that its reference does not hold; of scans that are in.
    unusable : list of dict of str to str
        Per row, why a model's ready-made mask cannot be used, by the model's name; of scans that
        are in.
    """

    table: pd.DataFrame
    reasons: _Findings
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
    """What the files of one scan tell; `unusable` holds faults of ready-made masks by model."""

    reasons: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)


def inspect_rows(table: pd.DataFrame, base: Path, study: Study, *, masks: Mapping[str, str] | None = None) -> Inspected:
    """Check every scan: whether it is in, and if not why.

    Parameters
    ----------
    table : DataFrame
        From :func:`helpers.cohort.sources.read_source`: text as recorded.
    base : Path
        The folder that its paths are relative to.
    study : Study
    masks : mapping of str to str, optional
        Where the ready-made masks of models lie, with ``{scan}`` or ``{subject}``, by the model's
        name. Existence and grid of each are checked; its voxels are read only where they are
        stored as floats, which alone can hold fractions.
    """
    cohort = study.parameters.cohort
    table = table.reset_index(drop=True).copy()
    reasons: _Findings = [[] for _ in range(len(table))]
    notes: _Findings = [[] for _ in range(len(table))]
    for column in ("subject", "scan", "modality"):
        table[column] = table[column].astype("str").str.strip().where(table[column].notna())
    _check_names(table, reasons)
    _check_numbers(table, cohort, reasons, notes)
    _check_groups(table, cohort, notes)
    _check_listed(table, cohort, reasons)
    for column in ("reference", "image"):
        table[column] = [_find_path(text, base) for text in table[column]]
    found = _check_files(table, study, reasons, notes, dict(masks or {}))
    table.insert(0, "number", np.arange(1, len(table) + 1))
    table["included"] = [not of_row for of_row in reasons]
    table["reason"] = [join_sentences(of_row) for of_row in reasons]
    table["note"] = [join_sentences(of_row) for of_row in notes]
    kept = [one if included else _Found() for one, included in zip(found, table["included"], strict=True)]
    return Inspected(table, reasons, [one.absent for one in kept], [one.unusable for one in kept])


def _check_names(table: pd.DataFrame, reasons: _Findings) -> None:
    twice = table["scan"].duplicated(keep=False) & table["scan"].notna()
    names = table[["subject", "scan", "modality", "reference"]]
    for row, (subject, scan, modality, reference) in enumerate(names.itertuples(index=False)):
        if pd.isna(subject):
            reasons[row].append(Finding("subject_missing"))
        if pd.isna(scan):
            if not pd.isna(subject):
                reasons[row].append(Finding("scan_missing"))
        elif "/" in scan or "\\" in scan or scan.startswith(".") or "\0" in scan:
            reasons[row].append(Finding("scan_no_file_name"))
        elif twice[row]:
            reasons[row].append(Finding("scan_used_twice"))
        if modality not in MODALITIES:
            got = "nothing" if pd.isna(modality) else repr(modality)
            reasons[row].append(Finding("modality_unknown", {"got": got}))
        if pd.isna(reference):
            reasons[row].append(Finding("reference_missing"))


def _check_numbers(table: pd.DataFrame, cohort: Cohort, reasons: _Findings, notes: _Findings) -> None:
    """Read age, BMI and confounders as numbers."""
    ranges = {"age": (cohort.exclusions.plausible.age, "years"), "bmi": (cohort.exclusions.plausible.bmi, "kg/m²")}
    for name, ((low, high), unit) in ranges.items():
        recorded = table[name]
        table[name] = read_numbers(recorded)
        said = {"name": name, "unit": unit, "low": low, "high": high}
        for row, (text, value) in enumerate(zip(recorded, table[name], strict=True)):
            if pd.isna(text):
                if name in cohort.attributes:
                    notes[row].append(Finding("value_missing", said))
            elif np.isnan(value):
                # The value is the person's own and would end in the report: `segfair check` shows it.
                if is_asked(name, cohort):
                    reasons[row].append(Finding(f"{name}_unreadable", said))
                else:
                    notes[row].append(Finding("value_unreadable", said))
            elif not low <= value <= high:
                reasons[row].append(Finding(f"{name}_implausible", said | {"value": value}))
    for name in set(cohort.confounders) - set(cohort.attributes) - {"age", "bmi"}:
        numbers = read_numbers(table[name])
        if numbers.notna().any() and (numbers.notna() | table[name].isna()).all():
            table[name] = numbers  # a column of numbers, read as text like every other


def _check_groups(table: pd.DataFrame, cohort: Cohort, notes: _Findings) -> None:
    """Note values of attributes other than age and BMI that put nobody in a group."""
    for name, attribute in cohort.attributes.items():
        if name in ("age", "bmi"):
            continue
        categories = (attribute.categories if attribute is not None else ["female", "male"]) or []
        recorded = table[name]
        if not categories:
            table[name] = read_numbers(recorded)
        for row, (text, value) in enumerate(zip(recorded, table[name], strict=True)):
            if pd.isna(text):
                notes[row].append(Finding("value_missing", {"name": name}))
            elif pd.isna(value):
                notes[row].append(Finding("value_unreadable", {"name": name}))
            elif categories and value not in categories:
                notes[row].append(Finding("value_without_group", {"name": name, "value": value}))


def is_asked(name: str, cohort: Cohort) -> bool:
    """Return whether a study asks for age or BMI: to group or adjust by, or by a range of its own."""
    ranges = cohort.exclusions.plausible.model_fields_set
    return name in cohort.attributes or name in cohort.confounders or name in ranges


def _check_listed(table: pd.DataFrame, cohort: Cohort, reasons: _Findings) -> None:
    unknown = sorted(set(cohort.exclusions.scans) - set(table["scan"]))
    if unknown:
        # Someone who is to be left out must not stay in because of a typing error.
        raise SegfairError(
            f"cohort.exclusions.scans names {', '.join(unknown)}, which is no scan of the table: correct the name"
        )
    for row, scan in enumerate(table["scan"]):
        if scan in cohort.exclusions.scans:
            reasons[row].append(Finding(LISTED, {"words": cohort.exclusions.scans[scan]}))


def _find_path(text: object, base: Path) -> str | None:
    return None if pd.isna(text) else str((base / Path(str(text)).expanduser()).resolve())


def _check_files(
    table: pd.DataFrame, study: Study, reasons: _Findings, notes: _Findings, masks: dict[str, str]
) -> list[_Found]:
    """Open the files of every scan that is not out already, through compute; row by row."""
    cohort = study.parameters.cohort
    ignore = None if cohort.ignore_labels == "all" else tuple(cohort.ignore_labels)
    rows = [row for row in range(len(table)) if not reasons[row]]
    cases = [
        _Files(
            Path(one.reference),
            None if pd.isna(one.image) else Path(one.image),
            dict(cohort.organs),
            study.organ_ids,
            ignore,
            str(one.scan),
            str(one.subject),
            masks,
        )
        for one in table.iloc[rows].itertuples()
    ]
    result = [_Found() for _ in range(len(table))]
    ids = [f"scan {row + 1}" for row in rows]
    opened = map_cases(_open_files, cases, ids=ids, compute=study.parameters.compute, label="checking scans")
    for row, found in zip(rows, opened, strict=True):
        if isinstance(found, CaseFailure):
            reasons[row].append(Finding("scan_failed", {"error": found.error}))
        else:
            reasons[row] += found.reasons
            notes[row] += found.notes
            result[row] = found
    return result


def _open_files(case: _Files) -> _Found:
    """Read the reference wholly (a truncated file is found only so) and the image's header."""
    found = _Found()
    labels = grid = None
    try:
        find_grid(case.reference)
        labels = read_label_map(case.reference, case.organs, case.organ_ids)
        grid = orient_grid(grid_of_image(labels.image))
    except VolumeError as error:
        found.reasons.append(_blame("reference", case.reference, error))
    if case.image is not None:
        try:
            # Oriented: DICOM and NIfTI store rows the other way round, which is no difference.
            image = orient_grid(grid_of(case.image))
        except VolumeError as error:
            found.reasons.append(_blame("image", case.image, error))
        else:
            differences = [] if grid is None else image.differences(grid)
            if differences:
                found.reasons.append(Finding("image_other_grid", {"differences": "; ".join(differences)}))
    if labels is None or grid is None:
        return found
    found.unusable.update(_check_masks(case, grid))
    present = set(np.unique(sitk.GetArrayViewFromImage(labels.image)).tolist()) - {0}
    found.absent.extend(name for name, value in case.organ_ids.items() if value not in present)
    if len(found.absent) == len(case.organ_ids):
        found.reasons.append(Finding("mask_without_organs"))
    elif found.absent:
        found.notes.append(Finding("organs_missing", {"organs": ", ".join(found.absent)}))
    unknown = [] if case.ignore_labels is None else sorted(set(labels.unknown) - set(case.ignore_labels))
    if unknown:
        found.reasons.append(Finding("mask_unknown_labels", {"labels": ", ".join(map(str, unknown))}))
    found.notes.extend(Finding("mask_read", {"words": words}) for words in labels.notes)
    return found


def _blame(what: str, path: Path, error: VolumeError) -> Finding:
    return Finding(f"{what}_{'unusable' if path.exists() else 'no_file'}", {"error": str(error)})


def _check_masks(case: _Files, reference: Grid) -> dict[str, str]:
    """Return why ready-made masks of a scan cannot be used, by model; `reference` is oriented."""
    advice = "resample it to the reference with nearest neighbours"
    faults = {}
    for model, template in case.masks.items():
        name = ""
        try:
            path = find_mask(template, case.scan, case.subject)
            name = path.name
            check_grid(orient_grid(find_grid(path)), reference, what="the mask", advice=advice)
            check_whole(path)
        except SegfairError as error:
            # Scans of one fault are told together, hence without the names of their files.
            faults[model] = str(error).removeprefix(f"{name}: ")
    return faults
