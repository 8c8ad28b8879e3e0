"""One scan's masks → the measures of every model, and of each two annotators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from helpers import volumes
from helpers.compute import is_of_machine
from helpers.errors import SegfairError
from helpers.kept import Ingredients, hash_code, hash_settings
from helpers.metrics import AnnotatorAgreement, MaskComparison, compare_annotators, compare_masks
from helpers.parameters import Organ

_EXTENT = "the scan's extent"  # the name of what is wanted of a scan for a model without a mask


@dataclass(frozen=True)
class ScanMasks:
    """One scan's masks: what a worker needs to measure every model on it."""

    reference: Path
    predictions: dict[str, Path | str]  # a path, or the reason why there is no prediction
    unscored: dict[tuple[str, str], tuple[str, str]]  # by model and organ: status and why
    organs: dict[str, Organ]
    organ_ids: dict[str, int]
    tolerances_mm: dict[str, float]
    annotators: tuple[str, ...]  # the models to be compared with each other too

    @property
    def paths(self) -> dict[str, Path]:
        """The predictions that there are."""
        return {model: source for model, source in self.predictions.items() if isinstance(source, Path)}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each two annotators."""
        return list(combinations([model for model in self.predictions if model in self.annotators], 2))

    def list_unscored(self, model: str) -> dict[str, tuple[str, str]]:
        """Return the organs of which a model's mask is not scored: the status and why."""
        return {organ: self.unscored[model, organ] for organ in self.organ_ids if (model, organ) in self.unscored}


def list_wanted(masks: ScanMasks) -> dict[Any, Ingredients]:
    """Return what is wanted of a scan: by model, and by pair of annotators."""
    settings = (hash_code("performance.measuring"), masks.organs, masks.organ_ids, masks.tolerances_mm)
    paths, tables = masks.paths, volumes.list_lookup_tables(masks.reference, masks.organs)

    def want(*models: str) -> Ingredients:
        places = (masks.reference, *tables, *(paths[model] for model in models))
        unscored = [sorted(masks.list_unscored(model)) for model in models]
        return Ingredients(places, hash_settings(settings, unscored))

    wanted: dict[Any, Ingredients] = {model: want(model) for model in paths}
    wanted |= {pair: want(*pair) for pair in masks.pairs if set(pair) <= set(paths)}
    if len(paths) < len(masks.predictions):
        wanted[_EXTENT] = want()
    return wanted


def measure_missing(masks: ScanMasks, missing: Mapping[Any, object]) -> dict[Any, dict[str, Any]]:
    """Measure what is missing of one scan; each file is read once.

    Returns by model, pair of annotators or the scan's extent: ``extent_mm``, ``organs`` (by organ
    that is scored the measures and the status) and ``error`` (why a mask cannot be used).
    """
    image = volumes.read_label_map(masks.reference, masks.organs, masks.organ_ids).image
    grid, spacing = volumes.get_grid(image), volumes.get_spacing_zyx_mm(image)
    reference = _Drawn.of(sitk.GetArrayViewFromImage(image))
    extent_mm = float(np.linalg.norm(np.multiply(image.GetSize(), image.GetSpacing())))
    found: dict[Any, dict[str, Any]] = {}
    pairs = [name for name in missing if isinstance(name, tuple)]
    drawn: dict[str, _Drawn | str] = {}
    for model, path in masks.paths.items():
        in_pairs = any(model in pair for pair in pairs)
        if model not in missing and not in_pairs:
            continue
        mask: _Drawn | str
        try:
            mask = _Drawn.of(_read_prediction(path, grid))
        except SegfairError as problem:
            if is_of_machine(problem):
                raise
            mask = str(problem)
        if in_pairs:
            drawn[model] = mask
        if model in missing:
            found[model] = {
                "extent_mm": extent_mm,
                **_compare(compare_masks, masks, (model,), (reference, mask), spacing),
            }
    for first, second in pairs:
        both = drawn[first], drawn[second]
        found[first, second] = _compare(compare_annotators, masks, (first, second), both, spacing)
    if _EXTENT in missing:
        found[_EXTENT] = {"extent_mm": extent_mm, "organs": {}, "error": ""}
    return found


def list_rows(masks: ScanMasks, found: Mapping[Any, Mapping[str, Any]]) -> list[dict[str, object]]:
    """Return a scan's rows of metrics.parquet, without the scan's columns."""
    rows = []
    for model, source in masks.predictions.items():
        kept, unscored = found.get(model), masks.list_unscored(model)
        error = kept["error"] if kept is not None else str(source)
        status = "prediction_missing" if kept is None else "failed" if error else ""
        extent_mm = (kept or found[_EXTENT])["extent_mm"]
        for organ in masks.organ_ids:
            left_out, reason = unscored.get(organ, ("", ""))
            if status or left_out or kept is None:
                values = asdict(MaskComparison(status=status or left_out))
            else:
                values = kept["organs"][organ]
            rows.append({"model": model, "organ": organ, "extent_mm": extent_mm} | values | {"error": error or reason})
    return rows


def list_pairs(masks: ScanMasks, found: Mapping[Any, Mapping[str, Any]]) -> list[dict[str, object]]:
    """Return a scan's rows of annotators.parquet, without the scan's columns."""
    rows = []
    for pair in masks.pairs:
        kept = found.get(pair)
        reasons = [found[model]["error"] if model in found else str(masks.predictions[model]) for model in pair]
        for organ in masks.organ_ids:
            unscored = [masks.unscored[model, organ] for model in pair if (model, organ) in masks.unscored]
            if unscored:
                values = {**asdict(AnnotatorAgreement(status=unscored[0][0])), "error": unscored[0][1]}
            elif kept is None or kept["error"]:
                values = {
                    **asdict(AnnotatorAgreement(status="prediction_missing")),
                    "error": "; ".join(filter(None, reasons)),
                }
            else:
                values = {**kept["organs"][organ], "error": ""}
            rows.append({"organ": organ, "annotator_a": pair[0], "annotator_b": pair[1], **values})
    return rows


def list_failed(masks: ScanMasks, error: str) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return the rows of both tables of a scan that could not be worked on."""
    missing = {**asdict(MaskComparison(status="failed")), "error": error}
    pair = {**asdict(AnnotatorAgreement(status="failed")), "error": error}
    return (
        [{"model": model, "organ": organ, **missing} for model in masks.predictions for organ in masks.organ_ids],
        [
            {"organ": organ, "annotator_a": first, "annotator_b": second, **pair}
            for first, second in combinations(masks.annotators, 2)
            for organ in masks.organ_ids
        ],
    )


@dataclass(frozen=True)
class _Drawn:
    """A label map (z, y, x), and the box around each label in it."""

    labels: np.ndarray
    boxes: dict[int, tuple[slice, ...]]

    @classmethod
    def of(cls, labels: np.ndarray) -> _Drawn:
        return cls(labels, volumes.find_boxes(labels))


def _compare(
    compare: Callable[..., MaskComparison | AnnotatorAgreement],
    masks: ScanMasks,
    models: tuple[str, ...],
    drawn: tuple[_Drawn | str, _Drawn | str],
    spacing: tuple[float, float, float],
) -> dict[str, Any]:
    """Compare two masks of one scan by organ; in place of a mask may stand a reason."""
    one, other = drawn
    if isinstance(one, str) or isinstance(other, str):
        return {"organs": {}, "error": "; ".join(text for text in drawn if isinstance(text, str))}
    organs = {}
    for organ, label in masks.organ_ids.items():
        if not any((model, organ) in masks.unscored for model in models):
            box = volumes.join_boxes([one.boxes.get(label), other.boxes.get(label)])
            found = one.labels[box] == label, other.labels[box] == label
            organs[organ] = asdict(compare(*found, spacing, tolerance_mm=masks.tolerances_mm[organ]))
    return {"organs": organs, "error": ""}


def _read_prediction(path: Path, grid: volumes.Grid) -> np.ndarray:
    """Return a prediction's label map (z, y, x); a SegfairError where it is on another grid."""
    image = volumes.read_on_grid(path, grid, what="the prediction", advice="run 02_inference again")
    labels = sitk.GetArrayFromImage(image)
    if labels.dtype.kind not in "ui":
        raise SegfairError(f"the prediction must hold whole numbers (organ ids); it holds {labels.dtype}")
    return labels
