"""`precomputed`: masks another tool or a person made, read from files."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from helpers import volumes
from helpers.models.protocol import ScanCase, Segmentation, Spec
from helpers.study import find_mask


class Precomputed:
    """Reads each scan's mask, with left and right parted by the reference's own midline.

    The file's axes may be stored in another order or direction than the reference's; the voxels
    must be the same ones. Masks are never resampled.
    """

    device = "cpu"
    precision = ""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def segment(self, case: ScanCase) -> Segmentation:
        """Return the scan's mask; a SegfairError where it is missing or on another grid."""
        path = find_mask(str(self.spec.template), case.scan, case.subject)
        label_map = volumes.read_label_map(path, self.spec.organs, case.organ_ids, midline_x_mm=case.midline_x_mm)
        axial = volumes.to_axial(label_map.image)
        advice = "resample it to the reference with nearest neighbours"
        volumes.check_grid(volumes.get_grid(axial), case.grid, what=f"the mask of {self.spec.name}", advice=advice)
        labels = sitk.GetArrayFromImage(axial)
        not_drawn = dict.fromkeys(label_map.missing, "the folder has no mask file of it")
        return Segmentation(labels, int(np.any(labels, axis=(1, 2)).sum()), 0, not_drawn=not_drawn)


def load(spec: Spec) -> Precomputed:
    """Return the segmenter; masks are read scan by scan."""
    return Precomputed(spec)
