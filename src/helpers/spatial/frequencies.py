"""Where in an organ's space models draw too much and too little: frequencies over people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from helpers.spatial.correspondence import CLIP_STEPS
from helpers.spatial.deformation import DeformableAlignment
from helpers.spatial.surfaces import VoxelFrame
from helpers.spatial.template import Template

# Volumes are so many times finer than the template's field ...
FINENESS = 2
# ... and reach this part of the field's clip outside of the organ: beyond, nothing is counted.
REACH = 0.75
KINDS = ("false_positive", "false_negative")


@dataclass(frozen=True)
class TemplateGrid:
    """The voxels of template space in which errors are counted."""

    shape: tuple[int, int, int]  # (z, y, x)
    origin_mm: np.ndarray  # where the first voxel lies (x, y, z), template LPS mm
    spacing_mm: float
    places: np.ndarray  # int, (n,): the flat indices of the voxels that are counted
    inside: np.ndarray  # bool, (z, y, x): the mean organ

    @classmethod
    def of(cls, template: Template) -> TemplateGrid:
        """Return the grid that belongs to a template."""
        field = template.field
        step = field.grid_mm / FINENESS
        size = [FINENESS * (count - 1) + 1 for count in field.values_mm.shape[::-1]]
        resampled = sitk.Resample(
            field.as_image(), size, sitk.Transform(), sitk.sitkLinear, field.origin_mm.tolist(), [step] * 3,
            np.eye(3).ravel().tolist(), float(field.values_mm.max()),
        )  # fmt: skip
        fine = sitk.GetArrayFromImage(resampled)
        places = np.flatnonzero(fine < REACH * CLIP_STEPS * field.grid_mm)
        return cls(fine.shape, np.asarray(field.origin_mm), step, places, fine < 0)

    def list_points(self) -> np.ndarray:
        """Return where the counted voxels lie, (n, 3), template LPS mm."""
        z, y, x = np.unravel_index(self.places, self.shape)
        return self.origin_mm + self.spacing_mm * np.stack([x, y, z], axis=1)

    def as_image(self, values: np.ndarray) -> sitk.Image:
        """Return values of the counted voxels (n,), or of all (z, y, x), as an image; else 0."""
        if values.shape != self.shape:
            whole = np.zeros(int(np.prod(self.shape)), values.dtype)
            whole[self.places] = values
            values = whole.reshape(self.shape)
        return VoxelFrame.upright(self.origin_mm, self.spacing_mm).as_image(values)


@dataclass(frozen=True)
class ErrorFrequencies:
    """How often people's masks are wrong at each counted voxel: float32, (n,), 0 to 1.

    Over the people whose scans show the voxel; 0 where fewer than asked for do.
    """

    false_positive: np.ndarray
    false_negative: np.ndarray
    people: int


def compare_in_template(
    grid: TemplateGrid,
    alignment: DeformableAlignment,
    frame: VoxelFrame,
    reference: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    label: int,
) -> dict[str, np.ndarray]:
    """Return which counted voxels models draw too much and too little in, carried into one scan.

    `reference` and, by model, `predictions` are label maps (z, y, x) at `frame`; `label` is the
    organ's.

    Returns, of bool, ``seen``, (n,): the scan shows the voxel, and ``model:<name>``, (2, n): false
    positive, false negative (nearest voxel). A missed organ is false negative throughout.
    """
    index = np.rint(frame.to_index(alignment.map_points(grid.list_points()))).astype(np.int32)[:, ::-1]
    seen = ((index >= 0) & (index < np.asarray(reference.shape))).all(axis=1)
    z, y, x = index[seen].T
    there = reference[z, y, x] == label
    found = {"seen": seen}
    for model, prediction in predictions.items():
        drawn = prediction[z, y, x] == label
        wrong = np.zeros((2, len(seen)), bool)
        wrong[0, seen], wrong[1, seen] = drawn & ~there, there & ~drawn
        found[f"model:{model}"] = wrong
    return found


def count_errors(
    scans: Iterable[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray,
    groups: np.ndarray,
    grid: TemplateGrid,
    *,
    min_people: int,
) -> list[ErrorFrequencies]:
    """Add up scans, one after the other, to frequencies over the people of each group.

    `scans` are the packed bits of ``seen`` and of ``model:<name>`` of :func:`compare_in_template`,
    one pair per scan; `weights`, float, (n_scans,), one over
    the number of the person's scans, so that everybody counts once; `groups`, bool, (n_groups,
    n_scans), say who belongs to what. A voxel that fewer than `min_people` people's scans show gets
    0.
    """
    count = len(grid.places)
    sums = np.zeros((len(groups), 2, count), np.float32)
    seen = np.zeros((len(groups), count), np.float32)
    for scan, (seen_bits, wrong_bits) in enumerate(scans):
        members = np.flatnonzero(groups[:, scan])
        there = np.unpackbits(seen_bits, count=count).astype(np.float32)
        wrong = np.unpackbits(wrong_bits, axis=-1, count=count)
        for group in members:
            seen[group] += np.float32(weights[scan]) * there
            sums[group] += np.float32(weights[scan]) * wrong
    found = []
    for wrong_of_group, seen_of_group, of_group in zip(sums, seen, groups, strict=True):
        enough = seen_of_group > min_people - 1e-3
        rates = np.where(enough, wrong_of_group / np.maximum(seen_of_group, 1e-6), 0).astype(np.float32)
        found.append(ErrorFrequencies(rates[0], rates[1], round(float(weights[of_group].sum()))))
    return found
