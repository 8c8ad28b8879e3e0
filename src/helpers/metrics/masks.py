"""Two masks of one organ → overlap, volumes and surface measures, empty masks included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.metrics.nearest_surface import Spacing, SurfaceDistances, find_surfels, measure_surface_distances
from helpers.vocabulary.statuses import EMPTY_CASES, MEASURED

_ROUNDING = 1e-9


@dataclass(frozen=True)
class MaskComparison:
    """How far a prediction is from its reference; NaN where a measure is not defined."""

    dice: float = np.nan  # overlap, 0 to 1, as iou, precision and recall
    iou: float = np.nan
    nsd: float = np.nan  # surface Dice at the tolerance, 0 to 1 (Nikolov et al. 2021)
    hd95_mm: float = np.nan  # larger directed 95th percentile of surface distance, weighted by surfel area
    assd_mm: float = np.nan  # average symmetric surface distance: area-weighted mean over both surfaces together
    precision: float = np.nan
    recall: float = np.nan
    volume_ref_ml: float = np.nan
    volume_pred_ml: float = np.nan
    volume_error_ml: float = np.nan  # prediction − reference
    volume_error_relative: float = np.nan  # |prediction − reference| / reference
    surface_ref_cm2: float = np.nan  # area of the reference's surface
    # 2V(1 − Dice)/S, V and S of the reference: the uniform shift of the boundary that would cost
    # this much Dice.
    boundary_error_mm: float = np.nan
    dice_proxy: float = np.nan  # with the mask of another model: helpers.performance adds it
    status: str = "ok"  # or a key of helpers.vocabulary.statuses.EMPTY_CASES


@dataclass(frozen=True)
class AnnotatorAgreement:
    """How far two annotators' masks of one organ are from each other; NaN where not defined."""

    dice: float = np.nan  # as in MaskComparison, like the next four: the same whichever is the reference
    iou: float = np.nan
    nsd: float = np.nan
    hd95_mm: float = np.nan
    assd_mm: float = np.nan
    volume_error_ml: float = np.nan  # second − first: compare its absolute value
    boundary_error_mm: float = np.nan  # 2V(1 − Dice)/S with the means of both volumes and both surfaces
    status: str = "ok"  # or one_empty, both_empty (helpers.vocabulary.statuses.EMPTY_CASES)


def compare_masks(
    reference: np.ndarray, prediction: np.ndarray, spacing_zyx_mm: Spacing, *, tolerance_mm: float
) -> MaskComparison:
    """Measure how far one organ's predicted mask is from its reference.

    Parameters
    ----------
    reference, prediction : ndarray of bool, (z, y, x)
        The masks, on one grid. Where one is empty, the measures are those of
        :data:`~helpers.vocabulary.statuses.EMPTY_CASES`.
    spacing_zyx_mm : tuple of float
        Voxel spacing in mm, in the order of the arrays' axes.
    tolerance_mm : float
        The surface distance that does not count as an error (NSD), in mm.

    Raises
    ------
    ValueError
        A mask is not a 3D array of bool, the shapes differ, or spacing or tolerance are not
        positive.

    Notes
    -----
    Dice = 2|R∩P|/(|R|+|P|), IoU = |R∩P|/|R∪P|. Boundary error: a shift of the boundary by a small δ
    changes the volume by about δS, which costs δS/(2V) of Dice (Häntze et al. 2025).

    Examples
    --------
    Two voxels of 1 mm, one of them found: Dice = 2·1/(2 + 1).

    >>> reference = np.array([[[True, True]]])
    >>> prediction = np.array([[[True, False]]])
    >>> round(compare_masks(reference, prediction, (1, 1, 1), tolerance_mm=1).dice, 4)
    0.6667
    """
    spacing = _check_arguments(reference, prediction, spacing_zyx_mm, tolerance_mm)
    reference, prediction = _crop(reference, prediction)
    in_reference, in_prediction = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    if not in_reference and not in_prediction:
        return MaskComparison(status="both_empty", **_state_empty("both_empty"))
    voxel_ml = float(np.prod(spacing)) / 1000.0
    volumes: dict[str, Any] = {
        "volume_ref_ml": in_reference * voxel_ml,
        "volume_pred_ml": in_prediction * voxel_ml,
        "volume_error_ml": (in_prediction - in_reference) * voxel_ml,
    }
    if in_reference == 0:
        return MaskComparison(status="reference_empty", **_state_empty("reference_empty", **volumes))
    if in_prediction == 0:
        surface_cm2 = float(find_surfels(reference, spacing)[1].sum()) / 100.0
        known = _state_empty("prediction_empty", **volumes, surface_ref_cm2=surface_cm2)
        return MaskComparison(status="prediction_empty", **known)
    surfaces = measure_surface_distances(reference, prediction, spacing)
    surface_cm2 = float(surfaces.reference_areas_mm2.sum()) / 100.0
    common = int(np.count_nonzero(reference & prediction))
    both = _measure_both(surfaces, common, in_reference, in_prediction, tolerance_mm)
    return MaskComparison(
        **both,
        precision=common / in_prediction,
        recall=common / in_reference,
        **volumes,
        volume_error_relative=abs(in_prediction - in_reference) / in_reference,
        surface_ref_cm2=surface_cm2,
        boundary_error_mm=convert_dice_to_boundary_error(both["dice"], volumes["volume_ref_ml"], surface_cm2),
    )


def compare_annotators(
    first: np.ndarray, second: np.ndarray, spacing_zyx_mm: Spacing, *, tolerance_mm: float
) -> AnnotatorAgreement:
    """Measure how far two annotators' masks of one organ are from each other.

    Neither is the reference. Parameters and errors are those of :func:`compare_masks`; where a mask
    is empty the measures are those of :data:`~helpers.vocabulary.statuses.EMPTY_CASES`.
    """
    spacing = _check_arguments(first, second, spacing_zyx_mm, tolerance_mm)
    first, second = _crop(first, second)
    in_first, in_second = int(np.count_nonzero(first)), int(np.count_nonzero(second))
    if not in_first and not in_second:
        return AnnotatorAgreement(status="both_empty")
    voxel_ml = float(np.prod(spacing)) / 1000.0
    difference_ml = (in_second - in_first) * voxel_ml
    if in_first == 0 or in_second == 0:
        return AnnotatorAgreement(status="one_empty", **_state_empty("one_empty", volume_error_ml=difference_ml))
    surfaces = measure_surface_distances(first, second, spacing)
    surface_cm2 = float(surfaces.reference_areas_mm2.sum() + surfaces.prediction_areas_mm2.sum()) / 200.0
    both = _measure_both(surfaces, int(np.count_nonzero(first & second)), in_first, in_second, tolerance_mm)
    volume_ml = (in_first + in_second) / 2 * voxel_ml
    error_mm = convert_dice_to_boundary_error(both["dice"], volume_ml, surface_cm2)
    return AnnotatorAgreement(**both, volume_error_ml=difference_ml, boundary_error_mm=error_mm)


def convert_dice_to_boundary_error(dice: Any, volume_ml: Any, surface_cm2: Any) -> Any:
    """Return the uniform boundary error (mm), 2V(1 − Dice)/S, of floats or arrays of one shape."""
    # ml / cm² = cm; × 10 = mm
    return 2.0 * volume_ml * (1.0 - dice) / surface_cm2 * 10.0


def predict_dice(boundary_error_mm: Any, volume_ml: Any, surface_cm2: Any) -> np.ndarray:
    """Return the Dice, at least 0, under a uniform boundary error δ (mm): 1 − δS/(2V)."""
    return np.maximum(0.0, 1.0 - np.asarray(boundary_error_mm) * surface_cm2 / (2.0 * np.asarray(volume_ml)) / 10.0)


def _measure_both(
    surfaces: SurfaceDistances, common: int, in_first: int, in_second: int, tolerance_mm: float
) -> dict[str, Any]:
    """Return the measures of overlap and distance in which both masks count alike."""
    return {
        "dice": 2.0 * common / (in_first + in_second),
        "iou": common / (in_first + in_second - common),
        "nsd": _measure_surface_dice(surfaces, tolerance_mm),
        "hd95_mm": _measure_robust_hausdorff(surfaces, 95.0),
        "assd_mm": _measure_average_distance(surfaces),
    }


def _measure_surface_dice(surfaces: SurfaceDistances, tolerance_mm: float) -> float:
    """Return the share of both surfaces' area that lies within the tolerance of the other (NSD)."""
    near = surfaces.reference_areas_mm2[surfaces.reference_to_prediction_mm <= tolerance_mm].sum()
    near += surfaces.prediction_areas_mm2[surfaces.prediction_to_reference_mm <= tolerance_mm].sum()
    return float(near / (surfaces.reference_areas_mm2.sum() + surfaces.prediction_areas_mm2.sum()))


def _measure_robust_hausdorff(surfaces: SurfaceDistances, percent: float) -> float:
    """Return the larger of the two directed, area-weighted percentiles of distance, in mm."""
    return max(
        _find_weighted_percentile(surfaces.reference_to_prediction_mm, surfaces.reference_areas_mm2, percent),
        _find_weighted_percentile(surfaces.prediction_to_reference_mm, surfaces.prediction_areas_mm2, percent),
    )


def _measure_average_distance(surfaces: SurfaceDistances) -> float:
    """Return the area-weighted mean distance over both surfaces together, in mm (ASSD)."""
    total = (surfaces.reference_to_prediction_mm * surfaces.reference_areas_mm2).sum()
    total += (surfaces.prediction_to_reference_mm * surfaces.prediction_areas_mm2).sum()
    return float(total / (surfaces.reference_areas_mm2.sum() + surfaces.prediction_areas_mm2.sum()))


def _find_weighted_percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    cumulative /= cumulative[-1]
    limits = percent / 100.0 + np.array([-_ROUNDING, _ROUNDING])
    first, last = values[order[np.minimum(np.searchsorted(cumulative, limits), len(order) - 1)]]
    if first == last:
        return float(first)
    # The very order and sums of surface-distance: where the weights add up to `percent` exactly,
    # the last bit of rounding decides which of two distances is the percentile.
    order = np.lexsort((weights, values))
    weights = weights[order]
    place = np.searchsorted(np.cumsum(weights) / np.sum(weights), percent / 100.0)
    return float(values[order[min(int(place), len(order) - 1)]])


def _state_empty(status: str, **measured: float) -> dict[str, float]:
    """Return the measures that an empty case leaves, with those that the masks give."""
    return {name: measured[name] if value is MEASURED else value for name, value in EMPTY_CASES[status].items()}


def _check_arguments(
    reference: np.ndarray, prediction: np.ndarray, spacing_zyx_mm: Spacing, tolerance_mm: float
) -> Spacing:
    for name, mask in (("reference", reference), ("prediction", prediction)):
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 3:
            found = f"{mask.dtype} with {mask.ndim} axes" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise ValueError(f"{name} must be a 3D array of bool (z, y, x); got {found}")
    if reference.shape != prediction.shape:
        raise ValueError(f"reference and prediction must have one shape; got {reference.shape} and {prediction.shape}")
    spacing = tuple(float(value) for value in spacing_zyx_mm)
    if len(spacing) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise ValueError(f"spacing_zyx_mm must be three positive numbers in mm; got {spacing_zyx_mm}")
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm must be at least 0; got {tolerance_mm}")
    return spacing


def _crop(reference: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut two masks to the smallest box that holds both, axis by axis; empty when both are."""
    for axis, others in enumerate([(1, 2), (0, 2), (0, 1)]):
        occupied = np.flatnonzero(reference.any(axis=others) | prediction.any(axis=others))
        ends = (int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else (0, 0)
        box = (slice(None),) * axis + (slice(*ends),)
        reference, prediction = reference[box], prediction[box]
    return reference, prediction
