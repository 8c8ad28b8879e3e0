"""Every row of the participants table is checked; a scan with a fault is out, with its reason."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers.cohort.dicom_tree import FAULTS
from helpers.cohort.numbers import read_numbers
from helpers.cohort.organ_places import SeenOrgan, find_misplaced, see_organs
from helpers.cohort.reasons import LISTED, Finding, join_sentences
from helpers.cohort.scores import ScoreTable
from helpers.compute import CaseFailure, is_of_machine, map_cases
from helpers.dicom import find_scan_mask
from helpers.errors import SegfairError, VolumeError, quote
from helpers.kept import Ingredients, Kept, hash_code, hash_settings
from helpers.parameters import Cohort, FusionModel, Organ
from helpers.resuming import Missing, map_kept
from helpers.storage import expand_home, find_spelling, is_there, make_absolute
from helpers.study import Study, say_member_failed
from helpers.vocabulary.words import count
from helpers.volumes import (
    RESAMPLING_ADVICE,
    Grid,
    LabelMap,
    check_grid,
    check_same_scan,
    find_body_x_mm,
    find_grey_faults,
    find_middle_x_mm,
    get_grid,
    is_dicom_mask,
    list_lookup_tables,
    measure_regions,
    orient_grid,
    read_label_map,
    read_volume,
)

MODALITIES = ("CT", "MR")
LONGEST_NAME = 200  # bytes: file systems end at 255, and suffixes follow


@dataclass
class Found:
    """What is told of one scan; `absent`, `unusable`, `undrawn` and `seen` only if it is in."""

    reasons: list[Finding] = field(default_factory=list)  # why it is left out
    notes: list[Finding] = field(default_factory=list)  # what else to know
    absent: list[str] = field(default_factory=list)  # the organs that its reference does not hold
    unusable: dict[str, str] = field(default_factory=dict)  # why a model fails on it, by model
    undrawn: dict[str, tuple[str, ...]] = field(default_factory=dict)  # organs without a mask file, by model
    resampled: bool = False  # whether its reference is to be brought to its image's grid
    seen: dict[str, SeenOrgan] = field(default_factory=dict)  # the organs that its reference holds
    unpacked: bool = False  # whether its reference is DICOM, to be written as masks of organs

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Found:
        """Make it of its values as JSON holds them (:func:`dataclasses.asdict`)."""
        told = {name: [Finding(**one) for one in values[name]] for name in ("reasons", "notes")}
        undrawn = {model: tuple(organs) for model, organs in values["undrawn"].items()}
        seen = {organ: SeenOrgan(**one) for organ, one in values["seen"].items()}
        return cls(**{**values, **told, "undrawn": undrawn, "seen": seen})


@dataclass(frozen=True)
class _Files:
    """The files of one scan, to be opened in a worker process."""

    reference: Path
    image: Path | None
    cohort: Cohort
    scan: str
    subject: str
    modality: str
    masks: Mapping[str, str]  # places of ready-made masks, with {scan} or {subject}, by model
    refused: Mapping[str, Mapping[str, str]]  # by model: faults of the image that fail the scan, and their words
    organs: Mapping[str, Mapping[str, Organ]]  # where each of these models has its organs
    resampling: frozenset[str]  # the models whose masks may lie on another grid of the scan
    halving: frozenset[str]  # the models whose fractions are cut at one half
    mask_series: Mapping[str, str | None]  # what the series of their DICOM masks are called


def inspect_rows(
    table: pd.DataFrame,
    base: Path,
    study: Study,
    *,
    masks: Mapping[str, str] | None = None,
    refused: Mapping[str, Mapping[str, str]] | None = None,
    scores: ScoreTable | None = None,
    kept: Kept | None = None,
) -> tuple[pd.DataFrame, list[Found]]:
    """Check every scan: whether it is in, and if not why.

    `table` is text as recorded (:func:`helpers.cohort.sources.read_source`), its paths relative to
    `base`. `masks` are where the ready-made masks of models lie, each read as inference reads it;
    `refused` is what of its image fails a scan, by model; `scores` of a study of scores, which has
    no files to open, say who has any. With `kept` what is found is kept by what the files hold.
    Returns the table with numbers for age and BMI, absolute paths, and ``number``, ``included``,
    ``reason``, ``note``; and what is told of each row.
    """
    cohort = study.parameters.cohort
    faults = table.attrs.get(FAULTS, {})
    table = table.reset_index(drop=True).copy()
    table.attrs = {}  # they would be written along
    found = [Found() for _ in range(len(table))]
    for column in ("subject", "scan", "modality"):
        table[column] = table[column].astype("str").str.strip().where(table[column].notna())
    _check_names(table, found, cohort)
    _check_numbers(table, cohort, found)
    _check_groups(table, cohort, found)
    _check_listed(table, cohort, found)
    for row, fault in faults.items():
        found[row].reasons = [fault]
    for column in ("reference", "image"):
        table[column] = [_find_path(text, base) for text in table[column]]
    if scores is None:
        _check_files(table, study, found, masks or {}, refused or {}, kept)
        _fail_fusions(study, found)
    else:
        _check_scored(table, scores, found)
    table.insert(0, "number", np.arange(1, len(table) + 1))
    table["included"] = [not one.reasons for one in found]
    table["reason"] = [join_sentences(one.reasons) for one in found]
    table["note"] = [join_sentences(one.notes) for one in found]
    return table, found


def _check_names(table: pd.DataFrame, found: list[Found], cohort: Cohort) -> None:
    twice = table["scan"].duplicated(keep=False) & table["scan"].notna()
    names = table[["subject", "scan", "modality", "reference", "image"]]
    for row, (subject, scan, modality, reference, image) in enumerate(names.itertuples(index=False)):
        if pd.isna(subject):
            found[row].reasons.append(Finding("subject_missing"))
        if pd.isna(scan):
            if not pd.isna(subject):
                found[row].reasons.append(Finding("scan_missing"))
        elif not _is_file_name(scan):
            found[row].reasons.append(Finding("scan_no_file_name"))
        elif twice[row]:
            found[row].reasons.append(Finding("scan_used_twice"))
        if not cohort.has_masks:
            continue
        if modality not in MODALITIES:
            got = "nothing" if pd.isna(modality) else quote(modality)
            found[row].reasons.append(Finding("modality_unknown", {"got": got}))
        if pd.isna(reference):
            proxied = cohort.masked == "random" and not pd.isna(image)
            found[row].reasons.append(Finding("reference_proxied" if proxied else "reference_missing"))


def _is_file_name(scan: str) -> bool:
    # Signs that are not seen or turn others round, but for two that Persian and Indic words need.
    control = any(unicodedata.category(sign) in ("Cc", "Cf") for sign in scan if sign not in "\u200c\u200d")
    return not (scan.startswith(".") or set(scan) & set("/\\") or control or len(scan.encode()) > LONGEST_NAME)


def _check_numbers(table: pd.DataFrame, cohort: Cohort, found: list[Found]) -> None:
    """Read age, BMI and confounders as numbers."""
    ranges = {"age": (cohort.exclusions.plausible.age, "years"), "bmi": (cohort.exclusions.plausible.bmi, "kg/m²")}
    for name, ((low, high), unit) in ranges.items():
        recorded = table[name]
        table[name] = read_numbers(recorded)
        said = {"name": name, "unit": unit, "low": low, "high": high}
        for row, (text, value) in enumerate(zip(recorded, table[name], strict=True)):
            if pd.isna(text):
                if name in cohort.attributes:
                    found[row].notes.append(Finding("value_missing", said))
            elif np.isnan(value) and is_asked(name, cohort):
                found[row].reasons.append(Finding(f"{name}_unreadable", said))
            elif np.isnan(value):
                found[row].notes.append(Finding("value_unreadable", said))
            elif not low <= value <= high:
                found[row].reasons.append(Finding(f"{name}_implausible", said | {"value": value}))
    for name in set(cohort.confounders) - set(cohort.attributes) - {"age", "bmi"}:
        numbers = read_numbers(table[name])
        if numbers.notna().any() and (numbers.notna() | table[name].isna()).all():
            table[name] = numbers  # a column of numbers, read as text like every other


def _check_groups(table: pd.DataFrame, cohort: Cohort, found: list[Found]) -> None:
    """Note values of attributes other than age and BMI that put nobody in a group."""
    for name in [name for name in cohort.attributes if name not in ("age", "bmi")]:
        attribute, recorded = cohort.attributes[name], table[name]
        categories = (attribute.categories if attribute is not None else ["female", "male"]) or []
        if not categories:
            table[name] = read_numbers(recorded)
        for row, (text, value) in enumerate(zip(recorded, table[name], strict=True)):
            said = {"name": name, "value": quote(value)}
            if pd.isna(text):
                found[row].notes.append(Finding("value_missing", said))
            elif pd.isna(value):
                found[row].notes.append(Finding("value_unreadable", said))
            elif categories and value not in categories:
                found[row].notes.append(Finding("value_without_group", said))


def is_asked(name: str, cohort: Cohort) -> bool:
    """Return whether a study asks for age or BMI: to group or adjust by, or by its own range."""
    ranges = cohort.exclusions.plausible.model_fields_set
    return name in cohort.attributes or name in cohort.confounders or name in ranges


def _check_listed(table: pd.DataFrame, cohort: Cohort, found: list[Found]) -> None:
    unknown = sorted(set(cohort.exclusions.scans) - set(table["scan"]))
    if unknown:
        # Someone who is to be left out must not stay in because of a typing error.
        raise SegfairError(
            f"cohort.exclusions.scans names {', '.join(unknown)}, which is no scan of the table: correct the name"
        )
    for one, scan in zip(found, table["scan"], strict=True):
        if scan in cohort.exclusions.scans:
            one.reasons.append(Finding(LISTED, {"words": cohort.exclusions.scans[scan]}))


def _check_scored(table: pd.DataFrame, scores: ScoreTable, found: list[Found]) -> None:
    """Leave out scans without any score: those in no table of scores, and those of empty cells."""
    listed, scored = set(scores.rows["scan"]), scores.list_scored()
    for one, scan in zip(found, table["scan"], strict=True):
        if scan not in scored and not pd.isna(scan):
            one.reasons.append(Finding("scores_empty" if scan in listed else "scores_missing"))


def _find_path(text: object, base: Path) -> str | None:
    """Return a path of the table, absolute; links in it stay, for their names are the table's."""
    if pd.isna(text):
        return None
    path = make_absolute(base / expand_home(Path(str(text))))
    # Windows writes folder\file; where a file is called so, it is meant.
    if "\\" in str(text) and not is_there(path):
        path = make_absolute(base / str(text).replace("\\", "/"))
    return str(find_spelling(path))


def _fail_fusions(study: Study, found: list[Found]) -> None:
    """A scan on which one of its members fails fails for a fusion too."""
    for model in study.parameters.models:
        if isinstance(model, FusionModel):
            for one in found:
                if failed := [name for name in model.of if name in one.unusable]:
                    one.unusable[model.name] = say_member_failed(failed[0])


def _check_files(
    table: pd.DataFrame,
    study: Study,
    found: list[Found],
    masks: Mapping[str, str],
    refused: Mapping[str, Mapping[str, str]],
    kept: Kept | None,
) -> None:
    """Open the files of every scan that is not out already, through compute."""
    rows, cohort = [row for row, one in enumerate(found) if not one.reasons], study.parameters.cohort
    images = [None if pd.isna(image) else Path(image) for image in table["image"]]
    parameters = study.parameters
    resampling = frozenset(model.name for model in parameters.models if parameters.allows_resampling(model))
    halving = frozenset(model.name for model in parameters.models if parameters.allows_halving(model))
    mask_series = {model.name: model.mask_series for model in parameters.models}
    organs = {model.name: model.organs or cohort.organs for model in parameters.models}
    cases = [
        _Files(
            reference=Path(one.reference),
            image=images[one.Index],
            cohort=cohort,
            scan=str(one.scan),
            subject=str(one.subject),
            modality=str(one.modality),
            masks=masks,
            refused=refused,
            organs=organs,
            resampling=resampling,
            halving=halving,
            mask_series=mask_series,
        )
        for one in table.iloc[rows].itertuples()
    ]
    ids = [f"scan {row + 1}" for row in rows]
    how: dict[str, Any] = {"ids": ids, "compute": study.parameters.compute, "label": "checking scans"}
    opened = map_cases(_open_files, cases, **how) if kept is None else _open_changed(cases, kept, how)
    if faults := [told for told in opened if isinstance(told, CaseFailure) and told.of_machine]:
        raise SegfairError(
            f"{count(len(faults), 'scan')} could not be read for a fault of the machine, which is no reason to leave"
            f" them out ({faults[0].case}: {faults[0].error}): mend that, and run the same command again"
        )
    for row, told in zip(rows, opened, strict=True):
        if isinstance(told, CaseFailure):
            found[row].reasons.append(Finding("scan_failed", {"error": told.error}))
            continue
        found[row].reasons += told.reasons
        found[row].notes += told.notes
        if not told.reasons:
            found[row].absent, found[row].unusable = told.absent, told.unusable
            found[row].undrawn, found[row].resampled = told.undrawn, told.resampled
            found[row].seen = told.seen
            found[row].notes += find_misplaced(told.seen)
            found[row].unpacked = told.unpacked


def _open_changed(cases: Sequence[_Files], kept: Kept, how: dict[str, Any]) -> list[Found | CaseFailure]:
    """Open the files of the scans of which something changed; the others' findings are kept."""
    wanted = [{"": _want(case)} for case in cases]
    opened = map_kept(_open_missing, cases, wanted, kept=kept, **how)
    return [one if isinstance(one, CaseFailure) else Found.of(one[""]) for one in opened]


def _want(case: _Files) -> Ingredients:
    """Return all that what is found of a scan depends on, where no model's masks are looked at."""
    cohort, image = case.cohort, case.image
    places = (case.reference, *list_lookup_tables(case.reference, cohort.organs), *([] if image is None else [image]))
    asked = (cohort.organs, cohort.organ_ids(), cohort.halve, cohort.ignore_labels, cohort.resample, case.modality)
    return Ingredients(places, hash_settings(hash_code("cohort.validation"), asked, str(case.reference), str(image)))


def _open_missing(case: _Files, missing: Missing) -> dict[Any, Any]:
    return {name: asdict(_open_files(case)) for name in missing}


def _open_files(case: _Files) -> Found:
    """Read the reference, the image and the ready-made masks whole, as later stages read them."""
    found, organ_ids, ignored = Found(), case.cohort.organ_ids(), case.cohort.ignore_labels
    labels = image = middle_x_mm = None
    try:
        labels = read_label_map(
            case.reference, case.cohort.organs, organ_ids, image=case.image, halve=case.cohort.halve
        )
        found.unpacked = is_dicom_mask(case.reference)
    except VolumeError as error:
        found.reasons.append(_blame("reference", case.reference, error))
    if case.image is not None:
        try:
            image = read_volume(case.image)
        except VolumeError as error:
            blamed = _blame("image", case.image, error)
            # A DICOM mask is laid on its image: the fault is told once, and as the image's.
            found.reasons = [one for one in found.reasons if replace(one, kind=blamed.kind) != blamed] + [blamed]
    reference = None if labels is None else orient_grid(get_grid(labels.image))
    greys = ["image_missing"] if case.image is None else []
    if image is not None:
        grid = orient_grid(get_grid(image))
        greys = find_grey_faults(sitk.GetArrayViewFromImage(image), case.modality)
        middle_x_mm = find_body_x_mm(image, case.modality)
        image = None  # the masks need the memory
        found.notes += [Finding(fault) for fault in greys]
        # Oriented: DICOM and NIfTI store rows the other way round, which is no difference.
        if reference is not None and (differences := grid.differences(reference)):
            _tell_other_grid(found, reference, grid, differences, case.cohort)
            reference = grid  # of what is made of the reference
    for model, faults in case.refused.items():
        if fault := next((fault for fault in greys if fault in faults), ""):
            found.unusable[model] = faults[fault]
    if labels is None or reference is None:
        return found
    _check_masks(found, case, labels, reference)
    regions = measure_regions(labels.image)
    found.seen = see_organs(regions, organ_ids, find_middle_x_mm(reference) if middle_x_mm is None else middle_x_mm)
    found.absent = [name for name in organ_ids if name not in found.seen]
    if len(found.absent) == len(organ_ids):
        found.reasons.append(Finding("mask_without_organs"))
    elif found.absent:
        found.notes.append(Finding("organs_missing", {"organs": ", ".join(found.absent)}))
    unknown = [] if ignored == "all" else sorted(set(labels.unknown) - set(ignored))
    if unknown:
        found.reasons.append(Finding("mask_unknown_labels", {"labels": ", ".join(map(str, unknown))}))
    found.notes += [Finding("mask_read", {"words": words}) for words in labels.notes]
    return found


def _tell_other_grid(found: Found, reference: Grid, image: Grid, differences: list[str], cohort: Cohort) -> None:
    """Tell that a reference was not on its image's grid: a fault, or to be mended."""
    if cohort.resample is None:
        found.reasons.append(Finding("image_other_grid", {"differences": "; ".join(differences)}))
        return
    try:
        check_same_scan(reference, image, what="the reference", of="its image")
    except VolumeError as error:
        found.reasons.append(Finding("image_elsewhere", {"error": str(error)}))
    else:
        found.resampled = True
        found.notes.append(Finding("reference_resampled"))


def _blame(what: str, path: Path, error: VolumeError) -> Finding:
    if is_of_machine(error):  # no fault of the scan's
        raise error
    return Finding(f"{what}_{'unusable' if is_there(path) else 'no_file'}", {"error": str(error)})


def _check_masks(found: Found, case: _Files, labels: LabelMap, reference: Grid) -> None:
    """Find which ready-made masks cannot be used and which organs they lack (`reference` axial)."""
    for model, template in case.masks.items():
        name = ""
        try:
            path = find_scan_mask(template, case.scan, case.subject, case.mask_series.get(model))
            name = path.name
            mask = read_label_map(
                path,
                case.organs.get(model, case.cohort.organs),
                case.cohort.organ_ids(),
                midline_x_mm=labels.midline_x_mm,
                image=case.image,
                grid=reference,
                halve=model in case.halving,
            )
            grid = get_grid(mask.image)
            if model in case.resampling:
                check_same_scan(grid, reference)
            else:
                check_grid(orient_grid(grid), reference, what="the mask", advice=RESAMPLING_ADVICE)
            if mask.missing:
                found.undrawn[model] = mask.missing
        except SegfairError as error:
            if is_of_machine(error):
                raise
            # Scans of one fault are told together, hence without the names of their files.
            found.unusable[model] = str(error).removeprefix(f"{name}: ")
