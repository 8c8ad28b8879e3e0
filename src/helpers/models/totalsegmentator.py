"""`totalsegmentator`: TotalSegmentator's published networks, run as its package runs them.

The recipe is the package's own (2.18.0, ``nnunet.py``, ``resampling.py``): the image in the order
RAS, brought to the networks' resolution by linear interpolation and cut to whole numbers; nnU-Net
with tiles that overlap by a fifth and without mirroring; the networks' labels laid over each other
in the order of their ids; and back by nearest neighbours. Only the networks of the study's organs
run, as with the package's ``roi_subset``, but on the whole scan: without its rough crop.
"""

from __future__ import annotations

import time

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from helpers import volumes
from helpers.errors import SegfairError
from helpers.models.nnunet import Network, get_image, load_network, turn, turn_back
from helpers.models.protocol import ScanCase, Segmentation, Spec


class TotalSegmentatorSegmenter:
    """The networks of one task, loaded once."""

    def __init__(self, networks: list[tuple[Network, int]], spec: Spec) -> None:
        self.networks = networks
        self.spec = spec
        self.device = networks[0][0].device
        self.precision = networks[0][0].precision

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment a whole scan; a SegfairError where it has no image, or memory is too small."""
        began = time.monotonic()
        seen = turn(get_image(case), case, "RAS")
        labels = turn_back(self._predict(sitk.GetArrayFromImage(seen), seen.GetSpacing()), volumes.get_grid(seen))
        drawn = volumes.relabel(labels, case.grid, self.spec.organs, case.organ_ids, midline_x_mm=case.midline_x_mm)
        remark = "; ".join(dict.fromkeys(network.remark for network, _ in self.networks if network.remark))
        return Segmentation(drawn, len(drawn), 0, encode_seconds=time.monotonic() - began, remark=remark)

    def _predict(self, array: np.ndarray, spacing_xyz_mm: tuple[float, ...]) -> np.ndarray:
        """Return the task's labels of an image in the order RAS, both (z, y, x).

        Axes are turned to (x, y, z) for resampling: it works axis by axis, and a voxel that comes
        out a rounding error below a whole number would be cut to another one.
        """
        target_mm = self.spec.options.spacing_mm
        image = array.transpose(2, 1, 0)
        spacing_mm = np.asarray(spacing_xyz_mm, np.float32)  # as NIfTI holds it
        resampled = not np.array_equal(spacing_mm, np.full(3, target_mm))
        if resampled:
            factors = spacing_mm / np.full(3, target_mm)
            shape = np.rint(np.array(image.shape) * factors)
            if not shape.all():
                raise SegfairError(
                    f"the scan is thinner than a voxel of {target_mm:g} mm, which this model is shown: leave it out"
                )
            image = ndimage.zoom(image, factors, output=np.float64, order=1, mode="nearest").astype(np.int32)
        labels = np.zeros(image.shape, np.uint8)
        for network, offset in self.networks:
            found = network.predict(image.transpose(2, 1, 0), (target_mm,) * 3).transpose(2, 1, 0)
            np.copyto(labels, (found + offset).astype(np.uint8), where=found > 0)
        if resampled:
            back = np.array(array.shape[::-1]) / labels.shape
            labels = ndimage.zoom(labels, back, order=0, mode="nearest")
        return labels.transpose(2, 1, 0)


def load(spec: Spec) -> TotalSegmentatorSegmenter:
    """Load the networks of the study's organs."""
    return TotalSegmentatorSegmenter(
        [(load_network(options, spec), offset) for options, offset in spec.options.networks], spec
    )
