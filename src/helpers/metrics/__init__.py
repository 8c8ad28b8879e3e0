"""Two masks and a voxel spacing → overlap, surface and size-free measures of one organ."""

from helpers.metrics.masks import (
    AnnotatorAgreement,
    MaskComparison,
    compare_annotators,
    compare_masks,
    convert_dice_to_boundary_error,
    mark_missing,
    predict_dice,
)
from helpers.metrics.nearest_surface import SurfaceDistances, measure_surface_distances

__all__ = [
    "AnnotatorAgreement",
    "MaskComparison",
    "SurfaceDistances",
    "compare_annotators",
    "compare_masks",
    "convert_dice_to_boundary_error",
    "mark_missing",
    "measure_surface_distances",
    "predict_dice",
]
