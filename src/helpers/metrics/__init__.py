"""Two masks and a voxel spacing → overlap, surface and size-free measures of one organ."""

from helpers.metrics.masks import (
    AnnotatorAgreement,
    MaskComparison,
    compare_annotators,
    compare_masks,
    convert_dice_to_boundary_error,
    predict_dice,
)

__all__ = [
    "AnnotatorAgreement",
    "MaskComparison",
    "compare_annotators",
    "compare_masks",
    "convert_dice_to_boundary_error",
    "predict_dice",
]
