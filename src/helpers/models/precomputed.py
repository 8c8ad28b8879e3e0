"""`precomputed`: masks another tool or a person made, read from files."""

from __future__ import annotations

from helpers.dicom import find_scan_mask
from helpers.models.protocol import ScanCase, Segmentation, Spec
from helpers.models.ready_masks import read_masks


class Precomputed:
    """Reads each scan's mask (:func:`read_masks`)."""

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
