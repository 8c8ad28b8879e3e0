"""Which of an organ's prompts outline one component, for models asked once per component."""

from __future__ import annotations

import numpy as np

from helpers.prompts import Prompts


def group_boxes(prompts: Prompts) -> list[np.ndarray]:
    """Return the places (int64, ascending) of the prompts of each component, in order of slices.

    Boxes of neighbouring slices that overlap outline one component. Prompts without boxes cannot be
    told apart: they are one.
    """
    owners = np.arange(len(prompts)) if prompts.has_boxes else np.zeros(len(prompts), np.int64)
    for z in np.unique(prompts.slices) if prompts.has_boxes else ():
        here, above = np.flatnonzero(prompts.slices == z), np.flatnonzero(prompts.slices == z + 1)
        for i in here:
            for j in above:
                low = np.maximum(prompts.corners[i, :2], prompts.corners[j, :2])
                high = np.minimum(prompts.corners[i, 2:], prompts.corners[j, 2:])
                if (low < high).all():
                    owners[owners == owners[j]] = owners[i]
    return [np.flatnonzero(owners == owner) for owner in dict.fromkeys(owners.tolist())]


def take_slice(prompts: Prompts, component: np.ndarray, z: int) -> Prompts:
    """Return a component's prompts on a slice as one: the box around its boxes, all its points."""
    mine = prompts.take(component[prompts.slices[component] == z])
    corners, points, labels = mine.corners, mine.points, mine.labels
    if mine.has_boxes:
        corners = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])[None]
    if mine.has_points:
        points, labels = points.reshape(1, -1, 2), labels.reshape(1, -1)
    return Prompts(np.array([z]), corners, points, labels)
