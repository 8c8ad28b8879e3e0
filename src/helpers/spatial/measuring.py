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
from helpers.spatial.correspondence import Field, match_vertices, measure_field
from helpers.spatial.errors_on_surface import measure_signed_errors
from helpers.spatial.frequencies import TemplateGrid, compare_in_template, write_comparison
from helpers.spatial.registrations import register_organ
from helpers.spatial.surfaces import Frame, extract_surface, find_boxes, smooth_mask
from helpers.spatial.template import Template


@dataclass(frozen=True)
class ScanCase:
    """One scan to measure: where its masks lie and what is wanted of it.

    Attributes
    ----------
    name : str
        For people: a number, not the scan's own name.
    reference : Path
    organs : dict of str to Organ
        All organs of the study.
    organ_ids : dict of str to int
    wanted : tuple of str
        The organs to look at.
    grid_mm : float
        Of the signed-distance fields, where no template says it.
    predictions : dict of str to Path
        By model.
    templates : dict of str to Path
        Each organ's template.npz.
    registrations : dict of str to Path
        Each organ's folder of kept registrations; may be empty: then none are kept.
    comparisons : dict of str to Path
        Each organ's file to write where in template space models draw too much and too little; may be empty.
    """

    name: str
    reference: Path
    organs: dict[str, Organ]
    organ_ids: dict[str, int]
    wanted: tuple[str, ...]
    grid_mm: float
    predictions: dict[str, Path] = field(default_factory=dict)
    templates: dict[str, Path] = field(default_factory=dict)
    registrations: dict[str, Path] = field(default_factory=dict)
    comparisons: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class OrganErrors:
    """One organ of one scan: errors per model, or why there are none.

    Attributes
    ----------
    status, reason : str
    distance_mm, affine_distance_mm : float
        How far the template's vertices lay from the organ's surface before they were put on it, on average: after the
        whole registration, and after its affine step alone.
    volume_change : ndarray of float32, (n_vertices,), or None
        Of the deformation, by place; not positive where it folds.
    present : ndarray of bool, (n_vertices,), or None
        Which vertices the scan shows.
    cut : bool
        The field of view cuts the organ.
    volume_ml : float
        Of the reference.
    errors_mm : dict of str to ndarray of float32, (n_vertices,)
        Signed, by model; NaN where the scan does not show the vertex.
    prediction_empty, prediction_missing : tuple of str
        Models that missed the organ; models without a usable prediction.
    registration : str
        The name the registration is kept under.
    """

    status: str
    reason: str = ""
    distance_mm: float = np.nan
    affine_distance_mm: float = np.nan
    volume_change: np.ndarray | None = None
    present: np.ndarray | None = None
    cut: bool = False
    volume_ml: float = np.nan
    errors_mm: dict[str, np.ndarray] = field(default_factory=dict)
    prediction_empty: tuple[str, ...] = ()
    prediction_missing: tuple[str, ...] = ()
    registration: str = ""


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
    missing = tuple(model for model, array in predictions.items() if array is None)
    usable = {model: array for model, array in predictions.items() if array is not None}
    predicted_boxes = {model: find_boxes(array) for model, array in usable.items()}
    voxel_ml = float(np.prod(frame.spacing_mm)) / 1000
    results = {}
    for organ in case.wanted:
        label = case.organ_ids[organ]
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
        match = match_vertices(template.vertices_mm, alignment, occupancy, reference)
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
            affine_distance_mm=match_vertices(template.vertices_mm, alignment.affine, occupancy, reference).distance_mm,
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


def _read_reference(case: ScanCase) -> tuple[np.ndarray, Frame, volumes.Grid]:
    """Return the reference's label map in axial order, its frame, and the file's own grid."""
    try:
        image = volumes.read_label_map(case.reference, case.organs, case.organ_ids).image
    except VolumeError as error:
        # The message goes into tables and notebooks, where a scan has a number and no file name.
        text = str(error).replace(str(case.reference), "the reference").replace(case.reference.name, "the reference")
        raise VolumeError(text) from error
    axial = volumes.to_axial(image)
    return sitk.GetArrayFromImage(axial), Frame.of_image(axial), volumes.get_grid(image)


def _read_prediction(path: Path, grid: volumes.Grid) -> np.ndarray | None:
    """Return a prediction in axial order; None where there is none that can be used."""
    if not path.is_file():
        return None
    try:
        image = volumes.read_volume(path)
    except VolumeError:
        return None
    if volumes.get_grid(image).differences(grid):
        return None
    return sitk.GetArrayFromImage(volumes.to_axial(image)).astype(np.uint8, copy=False)


@lru_cache(maxsize=16)
def _load_template(path: Path, changed: int) -> Template:
    """Load a template once per process; `changed` (the file's time) makes a rebuilt one be read anew."""
    return Template.load(path)
