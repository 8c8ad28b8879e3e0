"""`prompt_only`: the ellipse in each box, which a model must beat to have seen the image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from helpers.models.protocol import ScanCase, Segmentation, Spec, merge_scores
from helpers.prompts import Prompts


class PromptOnly:
    """Fills every box with its inscribed ellipse (π/4 of the box's area)."""

    device = "cpu"
    precision = "float32"

    def segment(self, case: ScanCase) -> Segmentation:
        """Draw the ellipses; a pixel in those of two organs goes to the one it lies deeper in.

        A pixel belongs to an ellipse when its centre lies within it.
        """
        draws = [_fill_boxes(case, prompts) for prompts in (case.prompts, *case.repeats)]
        used = {int(z) for prompts in case.prompts.values() for z in prompts.slices}
        count = sum(len(prompts) for draw in (case.prompts, *case.repeats) for prompts in draw.values())
        return Segmentation(draws[0], len(used), count, draws[1:])


def _fill_boxes(case: ScanCase, draw: Mapping[str, Prompts]) -> np.ndarray:
    _, height, width = case.shape
    labels = np.zeros(case.shape, np.uint8)
    for z in sorted({int(z) for prompts in draw.values() for z in prompts.slices}):
        scores: dict[int, np.ndarray] = {}
        for organ, prompts in draw.items():
            depths = [measure_depth(box, height, width) for box in prompts.corners[prompts.slices == z]]
            if depths:
                scores[case.organ_ids[organ]] = np.max(depths, axis=0)
        labels[z] = merge_scores(scores, (height, width))
    return labels


def measure_depth(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return how deep each pixel's centre lies in the ellipse inscribed in a box.

    Of a box x0, y0, x1, y1 at pixel edges: float32, (height, width), 1 at the ellipse's centre, 0
    on it, negative outside; −inf for a box without area.
    """
    x0, y0, x1, y1 = (float(edge) for edge in box)
    if x1 <= x0 or y1 <= y0:
        return np.full((height, width), -np.inf, np.float32)
    u = (np.arange(width) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    v = (np.arange(height) + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    return (1 - u[None] ** 2 - v[:, None] ** 2).astype(np.float32)


def load(spec: Spec) -> PromptOnly:
    """Return the segmenter; there is nothing to load."""
    del spec
    return PromptOnly()
