"""A tree of DICOM files: series of CT and MR, the masks drawn on them, and who was scanned how.

Names, birth dates, patient numbers and UIDs go no further than this module.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import pandas as pd

from helpers import dicom
from helpers.cohort.numbers import read_age
from helpers.cohort.reasons import Finding
from helpers.compute import CaseFailure, map_cases
from helpers.dicom import DicomHeader
from helpers.errors import SegfairError
from helpers.study import Study
from helpers.vocabulary.words import count

# What a source tells beside its table, in DataFrame.attrs: why a row is out, by its place; and
# sentences on all, each with paths that only who keeps the files is shown.
FAULTS, TOLD = "faults", "told"
MODALITIES = ("CT", "MR")
SEXES = {"M": "male", "F": "female"}
NO_CONTRAST = ("NO", "NONE", "N", "WITHOUT", "UNENHANCED")
OTHERS = {
    "Manufacturer": "manufacturer", "ManufacturerModelName": "scanner", "ConvolutionKernel": "kernel",
    "SliceThickness": "slice_thickness",
}  # fmt: skip
_AT_ONCE = 250  # files
_HEIGHTS_M, _WEIGHTS_KG = (0.3, 2.6), (1.0, 500.0)


def read_dicom(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read all series of CT and MR below a folder and the DICOM masks that were drawn on them.

    A row per series: subject, scan, modality, image (a slice, which stands for its series),
    reference, sex, age (years, as recorded or from the dates), height (m), weight (kg), bmi,
    manufacturer, scanner, kernel, slice_thickness (mm) and contrast ("yes" or "not recorded").
    A row too per mask whose series is not there. ``attrs`` say why a row is out, and what could
    not be read.

    Raises a SegfairError: the folder is missing, or holds no series of CT or MR.

    Notes
    -----
    *Names.* A scan is called by a hash of its SeriesInstanceUID, a person by one of their patient
    number and of the smallest StudyInstanceUID of theirs: numbers alone are few enough to be tried,
    UIDs are not. Both are the same in every run as long as a person's studies are.

    Scouts, screenshots, reports, single slices without a mask and other modalities are passed over.
    """
    cohort = study.parameters.cohort
    folder = study.resolve(str(cohort.path))
    if not folder.is_dir():
        raise SegfairError(f"{folder}: no such folder: cohort.path must be the folder of DICOM files")
    headers, broken = _read_tree(folder, study)
    images: dict[str, list[DicomHeader]] = {}
    for one in headers:
        if one.kind == dicom.IMAGE and one.modality in MODALITIES and not one.localizer:
            images.setdefault(one.series, []).append(one)
    masks = dicom.choose_masks(headers, cohort.mask_series)
    others = {one.series for one in headers if one.kind in (dicom.IMAGE, dicom.OTHER)} - set(images)
    astray = [one for one in masks if one.refers and others.issuperset(one.refers)]
    matched, unmatched = dicom.match_masks([one for one in masks if one not in astray], images)
    images = {series: slices for series, slices in images.items() if series in matched or _is_volume(slices)}
    if not images:
        raise SegfairError(
            f"{folder}: holds no series of CT or MR in DICOM: correct cohort.path, or use source: table for other files"
        )
    people = _name_people([*(slices[0] for slices in images.values()), *unmatched])
    rows: list[dict[str, str | None]] = []
    faults: dict[int, Finding] = {}
    for series, slices in images.items():
        path, scattered = _choose_path(slices, images)
        row: dict[str, str | None] = {"scan": dicom.name_series(series), "modality": slices[0].modality, "image": path}
        own = matched.get(series, [])
        if len(own) != 1:
            faults[len(rows)] = Finding("dicom_several_masks" if own else "dicom_no_mask", {"number": len(own)})
        elif scattered:
            faults[len(rows)] = Finding("dicom_scattered")
        rows.append(row | {"reference": str(own[0].path) if own else None} | _describe(slices[0], people))
    for mask in unmatched:
        faults[len(rows)] = Finding("dicom_no_series")
        name = dicom.name_series(mask.series + mask.instance)
        rows.append(_describe(mask, people) | {"scan": name, "reference": str(mask.path)})
    table = pd.DataFrame(rows, dtype=object)
    table.attrs = {FAULTS: faults, TOLD: _tell(headers, broken, images, masks, astray)}
    return table, folder


def _read_tree(folder: Path, study: Study) -> tuple[list[DicomHeader], list[Path]]:
    """Read all headers below a folder, and name the files that look like DICOM and are broken."""
    files = dicom.list_files(folder)
    parts = [files[begin : begin + _AT_ONCE] for begin in range(0, len(files), _AT_ONCE)]
    ids = [f"part {place + 1}" for place in range(len(parts))]
    read = partial(dicom.read_headers, person=True)
    results = map_cases(read, parts, ids=ids, compute=study.parameters.compute, label="reading DICOM headers")
    headers: list[DicomHeader] = []
    broken: list[Path] = []
    for part, result in zip(parts, results, strict=True):
        if isinstance(result, CaseFailure):
            broken += part
        else:
            headers += result[0]
            broken += result[1]
    return headers, broken


def _is_volume(slices: Sequence[DicomHeader]) -> bool:
    return len({one.instance for one in slices}) > 1 or slices[0].multi_frame


def _choose_path(slices: Sequence[DicomHeader], images: Mapping[str, Sequence[DicomHeader]]) -> tuple[str, bool]:
    """Return the path that stands for a series, and whether none does.

    It is a slice in a folder that holds them all; else the folder above all of them, if there is
    nothing else below it.
    """
    names = {one.instance for one in slices}
    folders: dict[Path, list[DicomHeader]] = {}
    for one in slices:
        folders.setdefault(one.path.parent, []).append(one)
    for own in folders.values():
        if {one.instance for one in own} == names:
            return str(own[0].path), False
    above = Path(os.path.commonpath(list(folders)))
    series = slices[0].series
    others = (one for name, others in images.items() if name != series for one in others)
    return str(above), any(one.path.is_relative_to(above) for one in others)


def _name_people(headers: Sequence[DicomHeader]) -> dict[tuple[str, str], str]:
    """Return what each person is called, by patient number and who issued it, or by study."""
    studies: dict[tuple[str, str], list[str]] = {}
    for one in headers:
        studies.setdefault(_find_person(one), []).append(one.person["StudyInstanceUID"])
    return {person: dicom.hash_name("p", *person, min(uids)) for person, uids in studies.items()}


def _find_person(one: DicomHeader) -> tuple[str, str]:
    number = one.person["PatientID"]
    return (number, one.person["IssuerOfPatientID"]) if number else ("", one.person["StudyInstanceUID"])


def _describe(one: DicomHeader, people: Mapping[tuple[str, str], str]) -> dict[str, str | None]:
    """Return who was scanned and how, without anything that names them."""
    said = one.person
    found: dict[str, str | None] = {ours: said[theirs] or None for theirs, ours in OTHERS.items()}
    height, weight = _find_size(said)
    agent = said["ContrastBolusAgent"] or said["ContrastBolusAgentSequence"]
    found |= {
        "subject": people[_find_person(one)],
        "sex": SEXES.get(said["PatientSex"], said["PatientSex"] or None),
        "age": read_age(said["PatientAge"]) if said["PatientAge"] else _count_years(said),
        "height": None if height is None else f"{height:g}",
        "weight": None if weight is None else f"{weight:g}",
        "bmi": None if height is None or weight is None else f"{weight / height**2:.2f}",
        "contrast": "yes" if agent and agent.upper() not in NO_CONTRAST else "not recorded",
    }
    return found


def _find_size(said: Mapping[str, str]) -> tuple[float | None, float | None]:
    """Return height (m) and weight (kg); None where there is none that can be one."""
    values: list[float | None] = []
    for name, (low, high) in (("PatientSize", _HEIGHTS_M), ("PatientWeight", _WEIGHTS_KG)):
        try:
            value = float(said[name])
        except ValueError:
            value = 0.0
        values.append(value if low <= value <= high else None)
    return values[0], values[1]


def _count_years(said: Mapping[str, str]) -> str | None:
    """Return the age on the day of the study, from two dates that are then forgotten."""
    try:
        born, scanned = (datetime.strptime(said[name], "%Y%m%d") for name in ("PatientBirthDate", "StudyDate"))
    except ValueError:
        return None
    return str(int((scanned - born).days / 365.25)) if scanned >= born else None


def _tell(
    headers: Sequence[DicomHeader],
    broken: Sequence[Path],
    images: Mapping[str, Sequence[DicomHeader]],
    masks: Sequence[DicomHeader],
    astray: Sequence[DicomHeader],
) -> list[tuple[str, list[str]]]:
    """Say what could not be read or is told by no row, with the paths it is about."""
    told: list[tuple[str, list[str]]] = []
    if broken:
        files = count(len(broken), "DICOM file", "DICOM files")
        said = f"{files} cannot be read and stayed out: copy again from the source"
        told.append((said, [str(path) for path in broken]))
    left_out = Counter(one.series for one in headers if one.kind in (dicom.IMAGE, dicom.OTHER))
    passed = len(set(left_out) - set(images))
    if passed:
        series = count(passed, "series of DICOM files", "series of DICOM files")
        told.append((f"{series} passed over: no CT or MR volume (scouts, screenshots, reports)", []))
    if astray:
        said = count(len(astray), "DICOM mask was", "DICOM masks were")
        told.append((f"{said} drawn on series that are no CT or MR volume, and stayed out", []))
    unwanted = [one for one in dicom.choose_masks(headers, None) if one not in masks]
    if unwanted:
        said = count(len(unwanted), "DICOM mask is", "DICOM masks are")
        told.append((f"{said} described otherwise than cohort.mask_series says and stayed out", []))
    firsts = [slices[0] for slices in images.values()]
    if nameless := sum(not one.person["PatientID"] for one in firsts):
        series = count(nameless, "series has", "series have")
        told.append((f"{series} no patient number: each such study counts as a person of its own", []))
    people: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for one in firsts:
        people.setdefault(_find_person(one), set()).add((one.person["PatientSex"], one.person["PatientBirthDate"]))
    if shared := sum(len(different) > 1 for different in people.values()):
        numbers = count(shared, "patient number is", "patient numbers are")
        told.append((f"{numbers} shared by people of different sex or birth date, who count as one person", []))
    sizes = [one for one in firsts if one.person["PatientSize"].strip("0.") and _find_size(one.person)[0] is None]
    if sizes:
        series = count(len(sizes), "series has", "series have")
        told.append((f"{series} a height that is none in metres: no BMI is worked out from it", []))
    return told
