"""One scan: its organs registered to their templates, and every model's error at every vertex."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import VolumeError
from helpers.parameters import Organ
from helpers.spatial.correspondence import DistanceField, match_vertices, measure_field
from helpers.spatial.errors_on_surface import measure_signed_errors
from helpers.spatial.frequencies import TemplateGrid, compare_in_template, write_comparison
from helpers.spatial.registrations import register_organ
from helpers.spatial.surfaces import VoxelFrame, extract_surface, smooth_mask
from helpers.spatial.template import Template


@dataclass(frozen=True)
class SurfaceCase:
    """One scan to measure: where its masks lie and what is wanted of it."""

    name: str  # for people: a number, not the scan's own name
    reference: Path
    organs: dict[str, Organ]  # all of the study
    organ_ids: dict[str, int]
    wanted: tuple[str, ...]  # the organs to look at
    grid_mm: float  # of the signed-distance fields, where no template says it
    predictions: dict[str, Path] = field(default_factory=dict)  # by model
    templates: dict[str, Path] = field(default_factory=dict)  # by organ
    registrations: dict[str, Path] = field(default_factory=dict)  # by organ: folders to keep them in
    comparisons: dict[str, Path] = field(default_factory=dict)  # by organ: files to write
    unscored: frozenset[tuple[str, str]] = frozenset()  # what a model does not draw or was trained on: (model, organ)


@dataclass(frozen=True)
class OrganErrors:
    """One organ of one scan: errors per model, or why there are none.

    Distances are how far the template's vertices lay from the organ's surface on average before
    they were put on it: after the whole registration, and after its affine step alone.
    """

    status: str
    reason: str = ""
    distance_mm: float = np.nan
    affine_distance_mm: float = np.nan
    volume_change: np.ndarray | None = None  # float32, (n_vertices,); not positive where it folds
    present: np.ndarray | None = None  # bool, (n_vertices,): which vertices the scan shows
    cut: bool = False  # by the field of view
    volume_ml: float = np.nan  # of the reference
    errors_mm: dict[str, np.ndarray] = field(default_factory=dict)  # signed, float32, (n_vertices,)
    prediction_empty: tuple[str, ...] = ()  # models that missed the organ
    prediction_missing: tuple[str, ...] = ()  # models without a usable prediction of this organ
    registration: str = ""  # the name it is kept under


def measure_shapes(case: SurfaceCase) -> dict[str, DistanceField]:
    """Return the signed-distance field of each wanted organ the scan's reference has."""
    labels, frame = _read_reference(case)[:2]
    boxes = volumes.find_boxes(labels)
    shapes = {}
    for organ in case.wanted:
        label = case.organ_ids[organ]
        if label in boxes:
            occupancy = smooth_mask(labels, frame, label=label, box=boxes[label])
            shapes[organ] = measure_field(occupancy, grid_mm=case.grid_mm, name=case.name)
    return shapes


def measure_errors(case: SurfaceCase) -> dict[str, OrganErrors]:
    """Return each wanted organ's signed errors in one scan, of all models at all vertices.

    The reference is read and each organ registered once, for all models.
    """
    labels, frame, grid = _read_reference(case)
    boxes = volumes.find_boxes(labels)
    predictions = {model: _read_prediction(path, grid) for model, path in case.predictions.items()}
    readable = {model: array for model, array in predictions.items() if array is not None}
    predicted_boxes = {model: volumes.find_boxes(array) for model, array in readable.items()}
    voxel_ml = float(np.prod(frame.spacing_mm)) / 1000
    results = {}
    for organ in case.wanted:
        label = case.organ_ids[organ]
        usable = {model: array for model, array in readable.items() if (model, organ) not in case.unscored}
        missing = tuple(model for model in predictions if model not in usable)
        if label not in boxes:
            results[organ] = OrganErrors(
                "reference_empty", "the reference does not show this organ", prediction_missing=missing
            )
            continue
        template = _load_template(case.templates[organ], case.templates[organ].stat().st_mtime_ns)
        occupancy = smooth_mask(labels, frame, label=label, box=boxes[label])
        shape = measure_field(occupancy, grid_mm=template.field.grid_mm)
        try:
            registration = register_organ(template, shape, case.registrations.get(organ))
        except ValueError as error:
            results[organ] = OrganErrors("failed", str(error), prediction_missing=missing)
            continue
        alignment = registration.alignment
        reference = extract_surface(occupancy)
        match, affine = (
            match_vertices(found.map_points(template.vertices_mm), occupancy, reference)
            for found in (alignment, alignment.affine)
        )
        errors, empty = {}, []
        for model, array in usable.items():
            if label not in predicted_boxes[model]:
                empty.append(model)
                continue
            predicted = smooth_mask(array, frame, label=label, box=predicted_boxes[model][label])
            errors[model] = measure_signed_errors(match.points_mm, predicted, extract_surface(predicted))
        if organ in case.comparisons:
            compared = compare_in_template(TemplateGrid.of(template), alignment, frame, labels, usable, label)
            write_comparison(compared, case.comparisons[organ])
        results[organ] = OrganErrors(
            status="ok",
            distance_mm=match.distance_mm,
            affine_distance_mm=affine.distance_mm,
            volume_change=alignment.measure_volume_change(template.vertices_mm).astype(np.float32),
            present=np.isfinite(match.points_mm).all(axis=1),
            cut=bool(occupancy.cut.any()),
            volume_ml=voxel_ml * float(np.count_nonzero(labels[boxes[label]] == label)),
            errors_mm=errors,
            prediction_empty=tuple(empty),
            prediction_missing=missing,
            registration=registration.key,
        )
    return results


def _read_reference(case: SurfaceCase) -> tuple[np.ndarray, VoxelFrame, volumes.Grid]:
    """Return the reference's label map in axial order, its frame, and the file's own grid."""
    try:
        image = volumes.read_label_map(case.reference, case.organs, case.organ_ids).image
    except VolumeError as error:
        # The message goes into tables and notebooks, where a scan has a number and no file name.
        text = str(error).replace(str(case.reference), "the reference").replace(case.reference.name, "the reference")
        raise VolumeError(text) from error
    axial = volumes.to_axial(image)
    return sitk.GetArrayFromImage(axial), VoxelFrame.of_image(axial), volumes.get_grid(image)


def _read_prediction(path: Path, grid: volumes.Grid) -> np.ndarray | None:
    """Return a prediction in axial order; None where there is none that can be used."""
    if not path.is_file():
        return None
    try:
        image = volumes.read_on_grid(path, grid)
    except VolumeError:
        return None
    return sitk.GetArrayFromImage(volumes.to_axial(image)).astype(np.uint8, copy=False)


@lru_cache(maxsize=16)
def _load_template(path: Path, changed: int) -> Template:
    """Load a template once per process; a rebuilt one has another time `changed`."""
    return Template.load(path)
