"""`precomputed`: masks that another program or a person wrote, as a segmenter's answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from helpers import volumes
from helpers.dicom import find_scan_mask
from helpers.models.protocol import ScanCase, Segmentation, Spec
from helpers.parameters import Model, Organ


def list_named_labels(model: Model, organs: Mapping[str, Organ] | None = None) -> list[str]:
    """Name the organs of a model that are found by a label's name, where masks hold ids alone.

    Those of a path that is no file of an image's may be DICOM, which has names. `organs` are those
    of the study, for a model that has none of its own.
    """
    if model.path is not None and not model.path.endswith(volumes.SUFFIXES):
        return []
    return [
        f"models.{model.name}.organs.{name}.labels must be ids, which label maps hold; "
        f"got {', '.join(organ.label_names)}"
        for name, organ in (model.organs or organs or {}).items()
        if organ.label_names
    ]


def read_masks(path: Path, spec: Spec, case: ScanCase) -> tuple[Segmentation, tuple[int, ...]]:
    """Read a scan's masks: a label map, DICOM, or a folder with one binary file per organ.

    The file's axes may be stored in another order or direction than the reference's; the voxels
    must be the same ones, or are made so where ``spec.resample`` says it. Left and right are parted
    by the reference's own midline.

    Returns a segmentation, whose ``resampled`` tells whether the masks lay on another grid, and the
    labels in the file that are no organ's.

    Raises a VolumeError: the masks cannot be read or lie on another grid.
    """
    label_map = volumes.read_label_map(
        path,
        spec.organs,
        case.organ_ids,
        midline_x_mm=case.midline_x_mm,
        image=case.image_path,
        grid=case.grid,
        halve=spec.halve,
    )
    axial, what = volumes.to_axial(label_map.image), f"the mask of {spec.name}"
    grid = volumes.get_grid(axial)
    resampled = spec.resample and bool(grid.differences(case.grid))
    if resampled:
        axial = volumes.resample_nearest(axial, case.grid, what=what)
    else:
        volumes.check_grid(grid, case.grid, what=what, advice=volumes.RESAMPLING_ADVICE)
    labels = sitk.GetArrayFromImage(axial)
    lacking = "the folder has no mask file of it" if path.is_dir() else "the DICOM mask has no part of it"
    not_drawn = dict.fromkeys(label_map.missing, lacking)
    slices = int(np.any(labels, axis=(1, 2)).sum())
    return Segmentation(labels, slices, 0, not_drawn=not_drawn, resampled=resampled), label_map.unknown


class Precomputed:
    """Reads each scan's mask."""

    device = "cpu"
    precision = ""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def segment(self, case: ScanCase) -> Segmentation:
        """Return the scan's mask; a SegfairError where it is missing or on another grid."""
        path = find_scan_mask(str(self.spec.template), case.scan, case.subject, self.spec.mask_series)
        return read_masks(path, self.spec, case)[0]


def load(spec: Spec) -> Precomputed:
    """Return the segmenter; masks are read scan by scan."""
    return Precomputed(spec)
