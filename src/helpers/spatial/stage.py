"""Stage 04: templates, correspondence and error maps of a study, through to its files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import storage, volumes
from helpers.compute import CaseFailure, map_cases
from helpers.errors import StageError, VolumeError
from helpers.parameters import Compute, Organ
from helpers.spatial import maps as group_maps
from helpers.spatial.correspondence import (
    AffineAlignment,
    Field,
    flag_poor_matches,
    guess_alignment,
    match_vertices,
    measure_field,
    register_affine,
)
from helpers.spatial.errors_on_surface import measure_signed_errors
from helpers.spatial.surfaces import Frame, extract_surface, find_boxes, smooth_mask
from helpers.spatial.template import MIN_SHAPES, Template, build_template
from helpers.study import Study

# More people make the mean shape no better, only slower.
MAX_TEMPLATE_SUBJECTS = 120
QUALITY_COLUMNS = ["number", "distance_mm", "status", "reason", "prediction_empty", "prediction_missing"]


@dataclass(frozen=True)
class SpatialMaps:
    """What stage 04 found.

    Attributes
    ----------
    maps : DataFrame
        maps.parquet: mean signed error per group and their difference, per model, organ, attribute, vertex.
    summary : DataFrame
        summary.csv: per model, organ and attribute the numbers of subjects and the peak difference.
    groups : DataFrame
        groups.csv: per model, organ, attribute and group the subjects behind the map, how many of the group had
        an empty prediction (and so no error to average), and whether the map is suppressed.
    quality : DataFrame
        Per organ and scan: mean distance (mm) of the aligned template from the organ, status
        (ok, poor, reference_empty, failed, no_template) and reason; models with an empty or missing prediction.
    templates : dict of str to Template
        By organ; organs without enough subjects are absent.
    notes : list of str
        What was left out, and why.
    """

    maps: pd.DataFrame
    summary: pd.DataFrame
    groups: pd.DataFrame
    quality: pd.DataFrame
    templates: dict[str, Template]
    notes: list[str]

    def select(self, model: str, organ: str) -> pd.DataFrame:
        """Return the maps of one model and organ, all attributes."""
        return self.maps[(self.maps["model"] == model) & (self.maps["organ"] == organ)].reset_index(drop=True)

    def choose_view(self, model: str | None = None, organ: str | None = None) -> dict[str, Any]:
        """Return what :func:`helpers.figures.spatial.plot_error_surface` needs to draw one model and organ.

        Left open, they are those of the largest difference between groups. Without any map, a view that
        leads to a figure which says so.
        """
        rows = self.summary
        rows = rows[rows["model"] == model] if model is not None else rows
        rows = rows[rows["organ"] == organ] if organ is not None else rows
        if rows.empty or rows["organ"].iloc[0] not in self.templates:
            return {"vertices_mm": np.empty((0, 3)), "faces": np.empty((0, 3), int), "maps": self.maps.iloc[:0]}
        peaks = rows["peak_difference_mm"].abs().fillna(0.0)
        model, organ = rows.loc[peaks.idxmax(), ["model", "organ"]]
        template = self.templates[organ]
        groups = self.groups[(self.groups["model"] == model) & (self.groups["organ"] == organ)]
        title = f"Where {model} draws the {_say(organ)} too large or too small"
        return {
            "vertices_mm": template.vertices_mm,
            "faces": template.faces,
            "maps": self.select(model, organ),
            "groups": groups.reset_index(drop=True),
            "title": title,
        }

    def list_failures(self) -> dict[str, str]:
        """Return the reason per organ and scan that is in no map, for run.json."""
        left_out = self.quality[self.quality["status"].isin(["poor", "failed"])]
        return {f"{row.organ}, {_name_scan(row.number)}": row.reason for row in left_out.itertuples()}


@dataclass(frozen=True)
class ScanCase:
    """One scan to measure: where its masks lie and what is wanted of it."""

    name: str
    reference: Path
    organs: dict[str, Organ]
    organ_ids: dict[str, int]
    wanted: tuple[str, ...]
    grid_mm: float
    predictions: dict[str, Path] = field(default_factory=dict)
    templates: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class OrganErrors:
    """One organ of one scan: errors per model, or why there are none."""

    status: str
    reason: str = ""
    distance_mm: float = np.nan
    errors_mm: dict[str, np.ndarray] = field(default_factory=dict)
    prediction_empty: tuple[str, ...] = ()
    prediction_missing: tuple[str, ...] = ()


def map_errors(study: Study) -> SpatialMaps:
    """Measure where on each organ each model errs, and for which groups: stage 04.

    For every organ of ``spatial.organs`` (the study's first, when empty): a template surface from the cohort,
    every scan's correspondence to it, the signed error of every model at every vertex, and group means.
    Writes ``spatial/<organ>/template.npz``, ``quality.csv``, ``errors_<model>.parquet`` (number, vertex,
    error_mm), and ``spatial/{maps.parquet, summary.csv, groups.csv, notes.json}``.

    Returns
    -------
    SpatialMaps
        With fewer than three subjects who have an organ, that organ gets a note instead of maps.

    Raises
    ------
    StageError
        01_cohort has not run, or no scan is included.
    """
    cohort = study.read_included()
    parameters = study.parameters
    organs = list(parameters.spatial.organs) or list(parameters.cohort.organs)[:1]
    models = [model.name for model in parameters.models]
    notes: list[str] = []
    templates = _build_templates(study, cohort, organs, notes)
    folder = study.folder / "spatial"
    for organ, template in templates.items():
        template.save(folder / organ / "template.npz")
    results = _measure_scans(study, cohort, templates, models)
    map_parts, summaries, group_rows, quality_parts = [], [], [], []
    columns = group_maps.list_map_columns(cohort)
    for organ in organs:
        found = [
            OrganErrors("no_template", "too few subjects have this organ for a template")
            if organ not in templates
            else OrganErrors("failed", result.error)
            if isinstance(result, CaseFailure)
            else result[organ]
            for result in results
        ]
        if organ in templates:
            found = _flag_poor(found, templates[organ].radius_mm)
        quality = _tabulate_quality(cohort, found)
        storage.write_table(quality, folder / organ / "quality.csv")
        quality_parts.append(quality.assign(organ=organ)[["organ", *QUALITY_COLUMNS]])
        _note_left_out(organ, found, notes)
        for model in models:
            rows = [place for place, one in enumerate(found) if one.status == "ok" and model in one.errors_mm]
            vertices = templates[organ].vertices_mm if organ in templates else np.zeros((0, 3))
            errors = np.array([found[place].errors_mm[model] for place in rows], np.float32)
            errors = errors.reshape(len(rows), len(vertices))
            storage.write_table(
                _tabulate_errors(cohort["number"].to_numpy()[rows], errors), folder / organ / f"errors_{model}.parquet"
            )
            _note_missed(model, organ, found, notes)
            if organ not in templates:
                continue
            by_subject, subjects = group_maps.average_subjects(errors, cohort["subject"].iloc[rows])
            missed = {cohort["subject"].iloc[place] for place, one in enumerate(found) if model in one.prediction_empty}
            for attribute in group_maps.list_attributes(cohort):
                groups = group_maps.group_subjects(cohort, attribute, subjects)
                maps = group_maps.average_groups(by_subject, groups, min_group=parameters.fairness.min_group)
                map_parts.append(group_maps.tabulate_maps(model, organ, attribute, vertices, maps, columns))
                summaries.append(group_maps.summarise_maps(model, organ, attribute, vertices, maps))
                missed_groups = group_maps.group_subjects(cohort, attribute, pd.Index(sorted(missed))).astype(str)
                for group, count in maps.counts.items():
                    suppressed = count < parameters.fairness.min_group
                    group_rows.append(
                        (model, organ, attribute, group, count, int((missed_groups == group).sum()), suppressed)
                    )
                _note_suppressed(attribute, maps, parameters.fairness.min_group, notes)
    empty = group_maps.type_maps(pd.DataFrame(columns=columns))
    result = SpatialMaps(
        maps=pd.concat(map_parts, ignore_index=True) if map_parts else empty,
        summary=_type_summary(pd.DataFrame(summaries, columns=group_maps.SUMMARY_COLUMNS)),
        groups=_type_groups(pd.DataFrame(group_rows, columns=group_maps.GROUP_COLUMNS)),
        quality=pd.concat(quality_parts, ignore_index=True),
        templates=templates,
        notes=list(dict.fromkeys(notes)),
    )
    storage.write_json(result.notes, folder / "notes.json")
    storage.write_table(result.groups, folder / "groups.csv")
    storage.write_table(result.summary, study.path("spatial_summary"))
    storage.write_table(result.maps, study.path("maps"))
    return result


def read_maps(study: Study) -> SpatialMaps:
    """Read what :func:`map_errors` wrote.

    Raises
    ------
    StageError
        04_spatial has not run.
    """
    folder = study.folder / "spatial"
    maps, summary = study.read("maps"), _type_summary(study.read("spatial_summary"))
    organs = list(study.parameters.spatial.organs) or list(study.parameters.cohort.organs)[:1]
    quality = [
        _type_quality(storage.read_table(folder / organ / "quality.csv", made_by="04_spatial")).assign(organ=organ)
        for organ in organs
    ]
    notes_path = folder / "notes.json"
    if not notes_path.exists():
        raise StageError(f"{notes_path} is missing: run 04_spatial again")
    return SpatialMaps(
        maps=maps,
        summary=summary,
        groups=_type_groups(storage.read_table(folder / "groups.csv", made_by="04_spatial")),
        quality=pd.concat(quality, ignore_index=True)[["organ", *QUALITY_COLUMNS]],
        templates={organ: Template.load(folder / organ / "template.npz") for organ in maps["organ"].unique()},
        notes=json.loads(notes_path.read_text(encoding="utf-8")),
    )


def read_errors(study: Study, organ: str, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the signed errors of one model and organ.

    Returns
    -------
    numbers : ndarray of int, (n_scans,)
        Study-local scan numbers, ascending.
    errors_mm : ndarray of float32, (n_scans, n_vertices)
        NaN for vertices outside a scan's field of view.
    """
    table = storage.read_table(study.folder / "spatial" / organ / f"errors_{model}.parquet", made_by="04_spatial")
    numbers = table["number"].unique()  # written scan by scan, vertex by vertex
    return numbers, table["error_mm"].to_numpy(np.float32).reshape(len(numbers), -1)


def measure_shapes(case: ScanCase) -> dict[str, Field]:
    """Return the signed-distance field of each wanted organ the scan's reference has."""
    labels, frame = _read_reference(case)[:2]
    boxes = find_boxes(labels)
    shapes = {}
    for organ in case.wanted:
        label = case.organ_ids[organ]
        if label in boxes:
            occupancy = smooth_mask(labels, frame, label=label, box=boxes[label])
            shapes[organ] = measure_field(occupancy, grid_mm=case.grid_mm, name=case.name)
    return shapes


def measure_errors(case: ScanCase) -> dict[str, OrganErrors]:
    """Return, for each wanted organ of one scan, the signed error of every model at every template vertex.

    The reference is read and each organ registered once, for all models.
    """
    labels, frame, grid = _read_reference(case)
    boxes = find_boxes(labels)
    predictions = {model: _read_prediction(path, grid) for model, path in case.predictions.items()}
    predicted_boxes = {model: find_boxes(array) for model, array in predictions.items() if array is not None}
    results = {}
    for organ in case.wanted:
        label = case.organ_ids[organ]
        if label not in boxes:
            results[organ] = OrganErrors("reference_empty", "the reference does not show this organ")
            continue
        template = _load_template(case.templates[organ], case.templates[organ].stat().st_mtime_ns)
        occupancy = smooth_mask(labels, frame, label=label, box=boxes[label])
        reference = extract_surface(occupancy)
        shape = measure_field(occupancy, grid_mm=case.grid_mm)
        try:
            alignment = register_affine(template.field, shape, guess_alignment(shape, template.field.scale_mm))
        except ValueError as error:
            results[organ] = OrganErrors("failed", str(error))
            continue
        match = match_vertices(template.vertices_mm, alignment, occupancy, reference)
        errors, empty, missing = {}, [], []
        for model, array in predictions.items():
            if array is None:
                missing.append(model)
            elif label not in predicted_boxes[model]:
                empty.append(model)
            else:
                predicted = smooth_mask(array, frame, label=label, box=predicted_boxes[model][label])
                errors[model] = measure_signed_errors(match.points_mm, predicted, extract_surface(predicted))
        results[organ] = OrganErrors("ok", "", match.distance_mm, errors, tuple(empty), tuple(missing))
    return results


def _build_templates(
    study: Study, cohort: pd.DataFrame, organs: Sequence[str], notes: list[str]
) -> dict[str, Template]:
    """Build a template per organ from the first scan of each subject."""
    spatial, compute = study.parameters.spatial, study.parameters.compute
    first = cohort.drop_duplicates("subject")
    if len(first) > MAX_TEMPLATE_SUBJECTS:
        chosen = np.random.default_rng(study.seed_for("spatial", "template")).permutation(len(first))
        first = first.iloc[np.sort(chosen[:MAX_TEMPLATE_SUBJECTS])]
        notes.append(
            f"templates are the mean of {MAX_TEMPLATE_SUBJECTS} of {cohort['subject'].nunique()} subjects, drawn by the study's seed"
        )
    shapes = map_cases(
        measure_shapes,
        [_make_case(study, row, organs) for row in first.itertuples()],
        ids=_name_scans(first),
        compute=compute,
        label="organ shapes",
    )
    templates = {}
    for organ in organs:
        of_organ = [found[organ] for found in shapes if not isinstance(found, CaseFailure) and organ in found]
        if len(of_organ) < MIN_SHAPES:
            notes.append(
                f"{_say(organ)}: {len(of_organ)} subject{'' if len(of_organ) == 1 else 's'} with this organ; a template needs at least {MIN_SHAPES}, so there is no map"
            )
            continue
        # Workers get paths, not pixels; the folder is the study's, because a cluster's workers see that one.
        folder = study.folder / "spatial"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".shapes-", dir=folder) as shapes_folder:
            register = partial(
                _register_all, folder=Path(shapes_folder), compute=compute, label=f"template of {_say(organ)}"
            )
            try:
                templates[organ] = build_template(of_organ, register, vertices=spatial.vertices)
            except ValueError as error:
                notes.append(f"{_say(organ)}: no template could be made ({error}), so there is no map")
    return templates


def _register_all(
    template: Field,
    fields: Sequence[Field],
    starts: Sequence[AffineAlignment],
    *,
    folder: Path,
    compute: Compute,
    label: str,
) -> list[AffineAlignment | None]:
    """Register every field to the template; None where it fails. `folder` takes the fields on their way."""
    mean = folder / f"mean{len(list(folder.glob('mean*')))}.npz"
    template.save(mean)
    cases = []
    for shape, start in zip(fields, starts, strict=True):
        path = folder / f"{shape.name}.npz"
        if not path.exists():
            shape.save(path)
        cases.append((mean, path, start))
    found = map_cases(_register_one, cases, ids=[shape.name for shape in fields], compute=compute, label=label)
    return [None if isinstance(one, CaseFailure) else one for one in found]


def _register_one(case: tuple[Path, Path, AffineAlignment]) -> AffineAlignment:
    mean, path, start = case
    return register_affine(_load_mean(mean), Field.load(path), start)


@lru_cache(maxsize=2)
def _load_mean(path: Path) -> Field:
    return Field.load(path)


def _measure_scans(
    study: Study, cohort: pd.DataFrame, templates: dict[str, Template], models: Sequence[str]
) -> list[dict[str, OrganErrors] | CaseFailure]:
    if not templates:
        return [{} for _ in range(len(cohort))]
    paths = {organ: study.folder / "spatial" / organ / "template.npz" for organ in templates}
    finished = {model: _list_finished(study, model) for model in models}
    cases = []
    for row in cohort.itertuples():
        predictions = {
            model: study.prediction_path(model, row.scan)
            if (done := finished[model]) is None or row.scan in done
            else Path()
            for model in models
        }
        cases.append(_make_case(study, row, list(templates), predictions, paths))
    return map_cases(
        measure_errors, cases, ids=_name_scans(cohort), compute=study.parameters.compute, label="errors on the surface"
    )


def _list_finished(study: Study, model: str) -> set[str] | None:
    """Return the scans a model's inference table calls ok; None where there is no table."""
    path = study.inference_path(model)
    if not path.exists():
        return None
    table = pd.read_parquet(path, columns=["scan", "status"])
    return set(table.loc[table["status"] == "ok", "scan"])


def _make_case(
    study: Study,
    row: object,
    organs: Sequence[str],
    predictions: dict[str, Path] | None = None,
    templates: dict[str, Path] | None = None,
) -> ScanCase:
    return ScanCase(
        name=_name_scan(row.number),  # type: ignore[attr-defined]
        reference=Path(row.reference),  # type: ignore[attr-defined]
        organs=study.parameters.cohort.organs,
        organ_ids=study.organ_ids,
        wanted=tuple(organs),
        grid_mm=study.parameters.spatial.grid_mm,
        predictions=predictions or {},
        templates=templates or {},
    )


def _read_reference(case: ScanCase) -> tuple[np.ndarray, Frame, volumes.Grid]:
    """Return the reference's label map in axial order, its frame, and the file's own grid."""
    try:
        image = volumes.read_label_map(case.reference, case.organs, case.organ_ids).image
    except VolumeError as error:
        # The message goes into tables and notebooks, where a scan has a number and no file name.
        text = str(error).replace(str(case.reference), "the reference").replace(case.reference.name, "the reference")
        raise VolumeError(text) from error
    axial = volumes.to_axial(image)
    return sitk.GetArrayFromImage(axial), Frame.of_image(axial), volumes.grid_of_image(image)


def _read_prediction(path: Path, grid: volumes.Grid) -> np.ndarray | None:
    """Return a prediction in axial order; None where there is none that can be used."""
    if not path.is_file():
        return None
    try:
        image = volumes.read_volume(path)
    except VolumeError:
        return None
    if volumes.grid_of_image(image).differences(grid):
        return None
    return sitk.GetArrayFromImage(volumes.to_axial(image)).astype(np.uint8, copy=False)


@lru_cache(maxsize=16)
def _load_template(path: Path, changed: int) -> Template:
    """Load a template once per process; `changed` (the file's time) makes a rebuilt one be read anew."""
    return Template.load(path)


def _flag_poor(found: list[OrganErrors], radius_mm: float) -> list[OrganErrors]:
    usable = [place for place, one in enumerate(found) if one.status == "ok"]
    reasons = flag_poor_matches([found[place].distance_mm for place in usable], radius_mm=radius_mm)
    flagged = list(found)
    for place, reason in zip(usable, reasons, strict=True):
        if reason:
            one = found[place]
            flagged[place] = OrganErrors(
                "poor", reason, one.distance_mm, {}, one.prediction_empty, one.prediction_missing
            )
    return flagged


def _tabulate_quality(cohort: pd.DataFrame, found: Sequence[OrganErrors]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "number": cohort["number"].to_numpy(),
            "distance_mm": np.round([one.distance_mm for one in found], 3),
            "status": [one.status for one in found],
            "reason": [one.reason for one in found],
            "prediction_empty": ["; ".join(one.prediction_empty) for one in found],
            "prediction_missing": ["; ".join(one.prediction_missing) for one in found],
        }
    )
    return _type_quality(table)[QUALITY_COLUMNS]


def _type_quality(table: pd.DataFrame) -> pd.DataFrame:
    """Give quality.csv its types: a column without a word is read as numbers."""
    words = ["status", "reason", "prediction_empty", "prediction_missing"]
    return (
        table.astype(dict.fromkeys(words, "object"))
        .fillna(dict.fromkeys(words, ""))
        .astype(dict.fromkeys(words, "str") | {"number": "int64", "distance_mm": "float64"})
    )


def _type_groups(table: pd.DataFrame) -> pd.DataFrame:
    words = dict.fromkeys(["model", "organ", "attribute", "group"], "str")
    return table.astype(words | {"n": "int64", "prediction_empty": "int64", "suppressed": "bool"})


def _tabulate_errors(numbers: np.ndarray, errors: np.ndarray) -> pd.DataFrame:
    scans, vertices = errors.shape
    return pd.DataFrame(
        {
            "number": np.repeat(numbers.astype(np.int32), vertices),
            "vertex": np.tile(np.arange(vertices, dtype=np.int32), scans),
            "error_mm": errors.ravel(),
        }
    )


def _type_summary(table: pd.DataFrame) -> pd.DataFrame:
    counts = dict.fromkeys(["n", "n_a", "n_b", "vertices"], "Int64")
    words = dict.fromkeys(["model", "organ", "attribute", "group_a", "group_b"], "str")
    peaks = dict.fromkeys(["peak_difference_mm", "peak_x", "peak_y", "peak_z"], "float64")
    return table.astype(counts | words | peaks)


def _note_left_out(organ: str, found: Sequence[OrganErrors], notes: list[str]) -> None:
    for status, what in (
        ("poor", "fit the template poorly and were left out"),
        ("failed", "could not be measured"),
        ("reference_empty", "do not show the organ in the reference"),
    ):
        count = sum(one.status == status for one in found)
        if count:
            notes.append(f"{_say(organ)}: {count} of {len(found)} scans {what} (see spatial/{organ}/quality.csv)")


def _note_missed(model: str, organ: str, found: Sequence[OrganErrors], notes: list[str]) -> None:
    empty = sum(model in one.prediction_empty for one in found)
    if empty:
        notes.append(
            f"{model}, {_say(organ)}: {empty} scans with an empty prediction have no surface error; the maps show the others"
        )
    missing = sum(model in one.prediction_missing for one in found)
    if missing:
        notes.append(f"{model}, {_say(organ)}: {missing} scans have no usable prediction")


def _note_suppressed(attribute: str, maps: group_maps.GroupMaps, min_group: int, notes: list[str]) -> None:
    small = [group for group, count in maps.counts.items() if count < min_group]
    if small:
        notes.append(f"{attribute}: no map for {', '.join(small)} (fewer than {min_group} subjects)")


def _name_scans(cohort: pd.DataFrame) -> list[str]:
    return [_name_scan(number) for number in cohort["number"]]


def _name_scan(number: int) -> str:
    return f"scan {number:03d}"


def _say(organ: str) -> str:
    return organ.replace("_", " ")
