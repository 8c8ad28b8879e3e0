"""Scans as the browser needs them: read once, kept for a while, measured where looked at."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy.spatial import cKDTree

from helpers import volumes
from helpers.errors import SegfairError
from helpers.figures.slices import find_middle
from helpers.spatial.boundary import MaskBoundary, mesh_mask
from helpers.study import Study
from helpers.vocabulary.words import name_scan

# How much is kept around an organ that is zoomed to.
ZOOM_MARGIN_MM = 25.0
# A scan of 512 × 512 × 300 takes 240 MB with its image, a prediction of it 80 MB.
KEPT_SCANS = 2
KEPT_PREDICTIONS = 4
KEPT_ORGANS = 12
SURFACE_VERTICES = 4000
# A vertex of the light mesh takes the mean error of this many boundary points next to it.
NEAREST_POINTS = 4

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Scan:
    """One scan in axial order (z, y, x)."""

    labels: np.ndarray
    image: np.ndarray | None  # intensities
    levels: volumes.Levels | None  # how to show them
    grid: volumes.Grid
    spacing_mm: tuple[float, float, float]
    boxes: dict[int, Box]  # of each label

    def window(self, part: tuple[slice | int, ...], shown: tuple[float, float] | None = None) -> np.ndarray | None:
        """Return a part's grey values, uint8; None without image (a whole scan takes seconds).

        `shown` are the intensities that are black and white, by default the scan's own levels.
        """
        if self.image is None or self.levels is None:
            return None
        levels = self.levels if shown is None else volumes.Levels(*shown, self.levels.lowest)
        return levels.apply(self.image[part])


@dataclass(frozen=True)
class Prediction:
    """A model's label map of a scan, in axial order."""

    labels: np.ndarray
    boxes: dict[int, Box]


@dataclass(frozen=True)
class OrganSurface:
    """A reference's surface: vertices (x, y, z) in mm, triangles, signed error in mm (or NaN)."""

    vertices_mm: np.ndarray
    faces: np.ndarray
    errors_mm: np.ndarray


@dataclass(frozen=True)
class OrganCase:
    """One organ of one scan and one model, ready to be looked at."""

    box: Box  # the organ's surroundings, in reference and prediction
    middle: tuple[int, int, int]  # the slices (z, y, x) through the organ's middle
    in_reference: bool  # whether each shows the organ
    in_prediction: bool
    has_prediction: bool  # whether there is a prediction of this scan at all
    boundary: MaskBoundary | None  # of the prediction, within `box`; None where it lacks the organ
    surface: OrganSurface
    worst: tuple[int, int, int] | None  # the slices through the place of the largest error
    largest_mm: float  # the largest error by size, signed; NaN where there is none

    def measure(self, points_mm: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
        """Return the signed error (mm) at points (z, y, x) in mm from the first voxel, or NaN."""
        if self.boundary is None:
            return np.full(len(points_mm), np.nan, np.float32)
        return self.boundary.measure(points_mm - _find_corner(self.box, spacing_mm))


class ScanStore:
    """Reads scans and predictions of a study and keeps the last few; two threads may ask.

    The cohort has the included scans, indexed by study-local number.
    """

    def __init__(self, study: Study, cohort: pd.DataFrame) -> None:
        self._study = study
        self._cohort = cohort
        self._scans = _Cache(KEPT_SCANS)
        self._predictions = _Cache(KEPT_PREDICTIONS)
        self._organs = _Cache(KEPT_ORGANS)

    def load_scan(self, number: int) -> Scan | str:
        """Return a scan, or a sentence why it cannot be shown."""
        return self._scans.find(number, lambda: self._read_scan(number))

    def load_prediction(self, model: str, number: int) -> Prediction | None:
        """Return a model's label map of a scan, None where there is none on its grid."""
        return self._predictions.find((model, number), lambda: self._read_prediction(model, number))

    def measure_organ(self, model: str, organ: str, number: int) -> OrganCase | None:
        """Return an organ ready to be looked at; None for a scan that cannot be read."""
        return self._organs.find((model, organ, number), lambda: self._measure_organ(model, organ, number))

    def is_measured(self, model: str, organ: str, number: int) -> bool:
        """Return whether all that is shown of an organ is at hand."""
        key = (model, organ, number)
        return key in self._organs and number in self._scans and (model, number) in self._predictions

    def _read_scan(self, number: int) -> Scan | str:
        row = self._cohort.loc[number]
        organs = self._study.parameters.cohort.organs
        try:
            label_map = volumes.read_label_map(Path(row["reference"]), organs, self._study.organ_ids).image
        except SegfairError:  # its text names files: not for a screen that others see
            return f"{name_scan(number)} cannot be read: see 01_cohort for the reason"
        axial = volumes.to_axial(label_map)
        labels, grid = sitk.GetArrayFromImage(axial), volumes.get_grid(axial)
        image = _read_on_grid(row["image"] if isinstance(row["image"], str) else None, grid)
        levels = None if image is None else volumes.find_levels(image, str(row["modality"]))
        return Scan(labels, image, levels, grid, volumes.get_spacing_zyx_mm(axial), volumes.find_boxes(labels))

    def _read_prediction(self, model: str, number: int) -> Prediction | None:
        scan = self.load_scan(number)
        if isinstance(scan, str):
            return None
        path = self._study.prediction_path(model, self._cohort.loc[number, "scan"])
        labels = _read_on_grid(path, scan.grid)
        return None if labels is None else Prediction(labels, volumes.find_boxes(labels))

    def _measure_organ(self, model: str, organ: str, number: int) -> OrganCase | None:
        scan = self.load_scan(number)
        if isinstance(scan, str):
            return None
        label = self._study.organ_ids[organ]
        predicted = self.load_prediction(model, number)
        boxes = [found.boxes[label] for found in (scan, predicted) if found is not None and label in found.boxes]
        box = _enclose(boxes, scan.labels.shape, scan.spacing_mm)
        reference = scan.labels[box] == label
        prediction = np.zeros_like(reference) if predicted is None else predicted.labels[box] == label
        shown, found = bool(reference.any()), bool(prediction.any())
        boundary = MaskBoundary(prediction, scan.spacing_mm) if found else None
        middle = find_middle(reference if shown or not found else prediction)
        surface, worst, largest = _measure_surface(reference, boundary, box, scan.spacing_mm)
        return OrganCase(
            box, _move(middle, box), shown, found, predicted is not None, boundary, surface, worst, largest
        )


class _Cache:
    """The last few things found, by key; what two threads ask for at once is made once."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._found: OrderedDict[Hashable, Any] = OrderedDict()
        self._making: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._found

    def find(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
            others = self._making.get(key)
            if others is None:
                mine = self._making[key] = Future()
        if others is not None:
            return others.result()
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._found[key] = made
            while len(self._found) > self._kept:
                self._found.popitem(last=False)
        mine.set_result(made)
        return made


def _read_on_grid(path: str | Path | None, grid: volumes.Grid) -> np.ndarray | None:
    """Return an image or mask in axial order; None without one that lies on the scan's grid."""
    try:
        return sitk.GetArrayFromImage(volumes.read_on_grid(Path(path), grid, axial=True)) if path else None
    except SegfairError:
        return None


def _enclose(boxes: list[Box], shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> Box:
    """Return the box around boxes with a margin; everything where there are none."""
    if not boxes:
        return tuple(slice(0, size) for size in shape)
    parts = []
    for axis, size in enumerate(shape):
        margin = int(np.ceil(ZOOM_MARGIN_MM / spacing_mm[axis]))
        start = min(box[axis].start for box in boxes) - margin
        stop = max(box[axis].stop for box in boxes) + margin
        parts.append(slice(max(start, 0), min(stop, size)))
    return tuple(parts)


def _find_corner(box: Box, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    return np.asarray([part.start for part in box]) * np.asarray(spacing_mm)


def _move(index: tuple[int, int, int], box: Box) -> tuple[int, int, int]:
    z, y, x = (int(place) + part.start for place, part in zip(index, box, strict=True))
    return z, y, x


def _measure_surface(
    reference: np.ndarray, boundary: MaskBoundary | None, box: Box, spacing_mm: tuple[float, float, float]
) -> tuple[OrganSurface, tuple[int, int, int] | None, float]:
    """Return the reference's surface with its errors, the slices of the largest one, and its size.

    Errors are measured at the reference's own boundary, which the light mesh only comes near to.
    """
    vertices, faces = mesh_mask(reference, spacing_mm, vertices=SURFACE_VERTICES)
    own = MaskBoundary(reference, spacing_mm)
    if boundary is None or not len(vertices):
        errors, worst, largest = np.full(len(vertices), np.nan, np.float32), None, np.nan
    else:
        count = min(NEAREST_POINTS, len(own.points_mm))
        _, nearest = cKDTree(own.points_mm, balanced_tree=False, compact_nodes=False).query(vertices, k=count)
        nearest = nearest.reshape(len(vertices), count)
        at_points = boundary.measure(own.points_mm[nearest].reshape(-1, 3)).reshape(nearest.shape)
        errors = at_points.mean(axis=1)
        row, column = np.unravel_index(np.abs(at_points).argmax(), at_points.shape)
        largest = float(at_points[row, column])
        place = np.rint(own.points_mm[nearest[row, column]] / np.asarray(spacing_mm)).astype(int)
        worst = _move(tuple(np.clip(place, 0, np.asarray(reference.shape) - 1)), box)
    placed = (vertices + _find_corner(box, spacing_mm))[:, ::-1]
    return OrganSurface(placed, faces[:, ::-1], errors), worst, largest
