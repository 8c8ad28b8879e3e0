"""nnU-Net's predictor, with a small tile's mirror images in one batch on the processor."""

from __future__ import annotations

import itertools

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

_MOST_VOXELS = 2**20  # of a batch, whose activations then take some hundred megabytes


class MirrorPredictor(nnUNetPredictor):
    """The predictor, equal but for the rounding of float32.

    On one thread PyTorch leaves small tensors to slow loops instead of oneDNN; eight mirror images
    of a tile together take a third of the time that they take one by one.
    """

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        axes = [axis + 2 for axis in self.allowed_mirroring_axes or ()] if self.use_mirroring else []
        flips = [flip for number in range(len(axes) + 1) for flip in itertools.combinations(axes, number)]
        if len(flips) == 1 or x.is_cuda or len(flips) * x.numel() > _MOST_VOXELS:
            return super()._internal_maybe_mirror_and_predict(x)
        mirrored = self.network(torch.cat([torch.flip(x, flip) for flip in flips]))
        total = mirrored[:1]
        for place, flip in enumerate(flips[1:], start=1):
            total = total + torch.flip(mirrored[place : place + 1], flip)
        return total / len(flips)
