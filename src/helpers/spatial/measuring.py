"""One scan: its organs registered to their templates, and every model's error at every vertex."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import SimpleITK as sitk

from helpers import volumes
from helpers.compute import is_of_machine
from helpers.errors import VolumeError
from helpers.kept import find_file, write_arrays
from helpers.parameters import Organ
from helpers.resuming import Missing
from helpers.spatial.correspondence import DistanceField, match_vertices, measure_field
from helpers.spatial.frequencies import TemplateGrid, compare_in_template
from helpers.spatial.registrations import register_organ
from helpers.spatial.surfaces import VoxelFrame, extract_surface, measure_signed_errors, smooth_mask
from helpers.spatial.template import Template

# What is told of a model's mask of an organ: it holds it, it does not, or it cannot be used.
DRAWN, EMPTY, MISSING = "drawn", "empty", "missing"
# The fields of OrganErrors that are not told of a scan alone.
_OF_MODELS = ("files", "prediction_empty", "prediction_missing")
_Arrays: TypeAlias = dict[str, np.ndarray] | None


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
    registrations: Path | None = None  # the folder to keep them in
    surfaces: Path | None = None  # the folder for what is measured at vertices and voxels
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
    least_change: float = np.nan  # the smallest change of volume at a vertex; not positive where it folds
    folded: float = 0.0  # the part of the vertices at which it does
    in_view: float = np.nan  # the part of the vertices that the scan shows
    cut: bool = False  # by the field of view
    volume_ml: float = np.nan  # of the reference
    prediction_empty: tuple[str, ...] = ()  # models that missed the organ
    prediction_missing: tuple[str, ...] = ()  # models without a usable prediction of this organ
    registration: str = ""  # the name it is kept under
    # What is measured at vertices and voxels: by model, "" for what is of the scan alone
    # (:func:`measure_missing`).
    files: Mapping[str, Path] = field(default_factory=dict)


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


def measure_missing(case: SurfaceCase, missing: Missing) -> dict[Any, dict[str, Any]]:
    """Measure what is missing of a scan: by organ, and by organ and model.

    Returns what is told of each; arrays go to ``case.surfaces`` under their keys, which are told:
    of an organ ``present``, bool, (n_vertices,), what the scan shows, and ``seen``; of a model
    ``errors_mm``, signed, float32, (n_vertices,), and ``wrong`` (``seen`` and ``wrong`` are packed
    bits, see :func:`helpers.spatial.frequencies.compare_in_template`).
    """
    wanted: dict[str, set[str]] = {}
    for organ, model in missing:
        wanted.setdefault(organ, set()).update([model] if model else [])
    told: dict[Any, dict[str, Any]] = {}
    for organ, found, at_vertices, models in _measure_organs(case, wanted):
        facts = {name: value for name, value in vars(found).items() if name not in _OF_MODELS}
        parts = {"": (facts, at_vertices)}
        parts |= {model: ({"state": state}, arrays) for model, (state, arrays) in models.items()}
        for name, (values, arrays) in parts.items():
            if (organ, name) not in missing:
                continue
            key = missing[organ, name]
            told[organ, name] = {**values, "file": ""}
            if arrays is not None and key is not None and case.surfaces is not None:
                write_arrays(find_file(case.surfaces, key), arrays)
                told[organ, name]["file"] = key
    return told


def sort_states(states: Mapping[str, str], status: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which models missed an organ that was measured, and which have no usable mask."""
    empty = tuple(model for model, state in states.items() if state == EMPTY and status == "ok")
    return empty, tuple(model for model, state in states.items() if state == MISSING)


def _measure_organs(
    case: SurfaceCase, wanted: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, OrganErrors, _Arrays, dict[str, tuple[str, _Arrays]]]]:
    """Measure organs of one scan: what is told of each, its arrays, and models' state and arrays.

    The reference is read and each organ registered once, for all models.
    """
    labels, frame, grid = _read_reference(case)
    boxes = volumes.find_boxes(labels)
    read = {model for models in wanted.values() for model in models}
    predictions = {model: _read_prediction(path, grid) for model, path in case.predictions.items() if model in read}
    predicted_boxes = {
        model: {} if array is None else volumes.find_boxes(array) for model, array in predictions.items()
    }
    voxel_ml = float(np.prod(frame.spacing_mm)) / 1000
    for organ, models in wanted.items():
        label = case.organ_ids[organ]
        usable: dict[str, np.ndarray] = {}
        found: dict[str, tuple[str, _Arrays]] = {}
        for model, array in predictions.items():
            if model not in models:
                continue
            if array is None or (model, organ) in case.unscored:
                found[model] = MISSING, None
                continue
            usable[model] = array
            found[model] = DRAWN if label in predicted_boxes[model] else EMPTY, None
        if label not in boxes:
            yield organ, OrganErrors("reference_empty", "the reference does not show this organ"), None, found
            continue
        template = _load_template(case.templates[organ], case.templates[organ].stat().st_mtime_ns)
        occupancy = smooth_mask(labels, frame, label=label, box=boxes[label])
        shape = measure_field(occupancy, grid_mm=template.field.grid_mm)
        try:
            alignment, key = register_organ(template, shape, case.registrations)
        except ValueError as error:
            yield organ, OrganErrors("failed", str(error)), None, found
            continue
        reference = extract_surface(occupancy)
        match, affine = (
            match_vertices(one.map_points(template.vertices_mm), occupancy, reference)
            for one in (alignment, alignment.affine)
        )
        compared = compare_in_template(TemplateGrid.of(template), alignment, frame, labels, usable, label)
        packed = {name: np.packbits(bits, axis=-1) for name, bits in compared.items()}
        for model, array in usable.items():
            state, arrays = found[model][0], {"wrong": packed[f"model:{model}"]}
            if state == DRAWN:
                predicted = smooth_mask(array, frame, label=label, box=predicted_boxes[model][label])
                arrays["errors_mm"] = measure_signed_errors(match.points_mm, predicted, extract_surface(predicted))
            found[model] = state, arrays
        change = alignment.measure_volume_change(template.vertices_mm).astype(np.float32)
        present = np.isfinite(match.points_mm).all(axis=1)
        told = OrganErrors(
            status="ok",
            distance_mm=match.distance_mm,
            affine_distance_mm=affine.distance_mm,
            least_change=float(change.min()),
            folded=float((change <= 0).mean()),
            in_view=float(present.mean()),
            cut=bool(occupancy.cut.any()),
            volume_ml=voxel_ml * float(np.count_nonzero(labels[boxes[label]] == label)),
            registration=key,
        )
        yield organ, told, {"present": present, "seen": packed["seen"]}, found


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
    except VolumeError as error:
        if is_of_machine(error):
            raise
        return None
    return sitk.GetArrayFromImage(volumes.to_axial(image)).astype(np.uint8, copy=False)


@lru_cache(maxsize=16)
def _load_template(path: Path, changed: int) -> Template:
    """Load a template once per process; a rebuilt one has another time `changed`."""
    return Template.load(path)
