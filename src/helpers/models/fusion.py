"""`fusion`: the masks of other models of the study, made into one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import SegfairError
from helpers.models.fusion_setup import FusionOptions
from helpers.models.protocol import ScanCase, Segmentation, Spec, merge_scores
from helpers.study import choose_place, find_probabilities, find_record, say_member_failed

# STAPLE's prior is the organ's share of the region it is given: the box around all members' masks
# of the organ, grown by this many voxels on every side.
_STAPLE_MARGIN = 5
_STAPLE_ITERATIONS = 30
_CERTAIN = 255.0


@dataclass(frozen=True)
class _Member:
    """What one model made of the scan."""

    labels: np.ndarray  # uint8, (z, y, x), study orientation
    drawn: frozenset[str]  # the organs it draws at all, found or not
    probabilities: Mapping[str, np.ndarray]  # uint8 per organ; empty unless they are to be averaged


class Fusion:
    """Unites the members' masks organ by organ; a voxel never gets an organ no member gave it."""

    device = "cpu"
    precision = ""

    def __init__(self, spec: Spec) -> None:
        self.options: FusionOptions = spec.options

    def segment(self, case: ScanCase) -> Segmentation:
        """Fuse what the members made of the scan; a SegfairError where one of them has no mask."""
        members = [self._read(name, case) for name in self.options.members]
        not_drawn, support = {}, {}
        for organ, label in case.organ_ids.items():
            voters = [member for member in members if organ in member.drawn]
            if len(voters) < self.options.needed:
                not_drawn[organ] = (
                    f"{len(voters)} of the {len(members)} members draw this organ, and {self.options.method} needs "
                    f"{self.options.needed}"
                )
            else:
                support[label] = self._measure_support(organ, label, voters)
        labels = merge_scores(support, case.shape, above=0.5)  # exactly half is not enough
        return Segmentation(labels, int(np.any(labels, axis=(1, 2)).sum()), 0, not_drawn=not_drawn)

    def _measure_support(self, organ: str, label: int, voters: Sequence[_Member]) -> np.ndarray:
        """Return how much speaks for the organ in each voxel, float32 (z, y, x), 0 to 1."""
        if self.options.method == "mean":
            return _average([voter.probabilities[organ] for voter in voters]) / np.float32(_CERTAIN)
        masks = [voter.labels == label for voter in voters]
        if self.options.method == "staple":
            return run_staple(masks)
        support = _average(masks)
        if self.options.tie == "first":
            support[(support == 0.5) & masks[0]] = np.nextafter(np.float32(0.5), np.float32(1))
        return support

    def _read(self, name: str, case: ScanCase) -> _Member:
        path = choose_place(self.options.folders[name], f"{case.scan}.nii.gz", many=False)
        try:
            record = json.loads(find_record(path).read_text(encoding="utf-8"))
            image = volumes.to_axial(volumes.read_volume(path))
        except (OSError, ValueError, SegfairError) as error:
            raise SegfairError(say_member_failed(name)) from error
        volumes.check_grid(volumes.get_grid(image), case.grid, what=f"the mask of {name}", advice="run 02_inference")
        probabilities = {}
        if self.options.method == "mean":
            with np.load(find_probabilities(path)) as kept:
                probabilities = {organ: kept[organ] for organ in kept.files}
        drawn = frozenset(organ for organ, of_organ in record["organs"].items() if not of_organ["not_drawn"])
        return _Member(sitk.GetArrayFromImage(image), drawn, probabilities)


def run_staple(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return STAPLE's probability that each voxel belongs to the organ (Warfield et al. 2004).

    Parameters
    ----------
    masks : sequence of ndarray
        bool, (z, y, x), one per member.

    Returns
    -------
    ndarray
        float32, (z, y, x). It is estimated within the box around all masks, grown by 5 voxels on
        every side, and 0 outside; where nobody drew anything it is 0 everywhere.
    """
    result = np.zeros(masks[0].shape, np.float32)
    union = np.logical_or.reduce(masks)
    if not union.any():
        return result
    box = volumes.grow_box(volumes.find_boxes(union.view(np.uint8))[1], [_STAPLE_MARGIN] * 3, union.shape)
    images = [sitk.GetImageFromArray(mask[box].astype(np.uint8)) for mask in masks]
    estimate = sitk.STAPLEImageFilter()
    estimate.SetForegroundValue(1)
    estimate.SetMaximumIterations(_STAPLE_ITERATIONS)
    result[box] = sitk.GetArrayFromImage(estimate.Execute(images))
    return result


def _average(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of arrays of one shape, float32."""
    return np.asarray(np.mean(arrays, axis=0, dtype=np.float32))


def load(spec: Spec) -> Fusion:
    """Return the segmenter; the members' masks are read scan by scan."""
    return Fusion(spec)
