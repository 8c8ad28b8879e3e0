"""`sam2`: SAM 2.1 on axial slices, with the prompts, windows and slices of `sam`.

Each slice is an image of its own, as ``SAM2ImagePredictor`` takes it: nothing is propagated, so
that `sam2` and `sam` differ in the network alone. `medsam2` is the one that propagates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from helpers.models.devices import choose_precision, open_device
from helpers.models.protocol import Spec
from helpers.models.sam import SamSegmenter
from helpers.models.sam2_network import load_network
from helpers.models.sam_frames import Sam2Frame
from helpers.prompts import Prompts

SIDE = 1024
# Labels of SAM 2's prompt encoder for the corners of a box, which it takes as two points.
BOX_LABELS = (2, 3)


class HieraEncoder:
    """Runs the image encoder of a ``Sam2VideoModel``.

    `dtype` is that of the products (autocast); what the decoder is given is float32.
    """

    def __init__(self, network: Any, dtype: torch.dtype) -> None:
        self.network = network
        self.dtype = dtype
        self.places = network.prompt_encoder.image_embedding_size[0]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images, float32, (n, 3, side, side), normalised.

        Returns float32, (n, features): the three levels that :func:`split_levels` tells apart.
        """
        decoder = self.network.mask_decoder
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            fine, middle, coarse = self.network.vision_encoder(images, return_dict=True).fpn_hidden_states
        coarse = coarse.float() + self.network.no_memory_embedding.reshape(1, -1, 1, 1)
        levels = (decoder.conv_s0(fine.float()), decoder.conv_s1(middle.float()), coarse)
        return torch.cat([level.flatten(1) for level in levels], dim=1)

    def estimate_bytes(self) -> int:
        """Return about how much memory one image takes on its way through, in bytes."""
        # The first stage is the largest: query, key, value and the perceptron's hidden layer of
        # every fourth pixel, and the pyramid's 256 channels there.
        width = self.network.config.vision_config.backbone_config.hidden_size
        return (4 * self.places) ** 2 * (10 * width + 2 * 256) * 4


def split_levels(features: torch.Tensor, places: int) -> list[torch.Tensor]:
    """Return the levels of embeddings (n, features): 32, 64 and 256 channels, finest first."""
    shapes = ((32, 4 * places), (64, 2 * places), (256, places))
    parts = features.split([channels * side**2 for channels, side in shapes], dim=1)
    return [part.unflatten(1, (channels, side, side)) for part, (channels, side) in zip(parts, shapes, strict=True)]


def place_points(prompts: Prompts, scale: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts as SAM 2 takes them: points float32, (n, k, 2), and labels int32, (n, k).

    A box is its two corners, ahead of the points, under labels of its own. `scale` as in
    :func:`helpers.models.sam_decoder.embed_prompts`.
    """
    points, labels = np.zeros((len(prompts), 0, 2)), np.zeros((len(prompts), 0), np.int64)
    if prompts.has_points:
        points, labels = prompts.points, prompts.labels
    if prompts.has_boxes:
        points = np.concatenate([prompts.corners.reshape(-1, 2, 2), points], axis=1)
        labels = np.concatenate([np.tile(BOX_LABELS, (len(prompts), 1)), labels], axis=1)
    placed = torch.as_tensor(points * scale, dtype=torch.float32, device=device)
    return placed, torch.as_tensor(labels, dtype=torch.int32, device=device)


class Sam2Segmenter(SamSegmenter):
    """Drives a ``transformers.Sam2VideoModel`` over volumes, slice by slice."""

    def _make_encoder(self, dtype: torch.dtype) -> HieraEncoder:
        return HieraEncoder(self.sam, dtype)

    def predict_low(
        self, embeddings: torch.Tensor, owners: Sequence[int], prompts: Prompts, shape: tuple[int, int]
    ) -> torch.Tensor:
        """As :meth:`SamSegmenter.predict_low`.

        As ``SAM2ImagePredictor`` does, an unstable mask of a box gives way to the best of three.
        """
        points, labels = place_points(prompts, self.frame.scale(shape), self.device)
        chosen = embeddings[torch.as_tensor(owners, dtype=torch.long, device=self.device)]
        with torch.inference_mode():
            sparse, dense = self.sam.prompt_encoder(points[:, None], labels[:, None], None, None)
            fine, middle, coarse = split_levels(chosen, self.encoder.places)
            positions = self.sam.get_image_wide_positional_embeddings().expand(len(coarse), -1, -1, -1)
            masks, scores, _, _ = self.sam.mask_decoder(
                image_embeddings=coarse,
                image_positional_embeddings=positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=not prompts.has_boxes,
                high_resolution_features=[fine, middle],
            )
            best = scores[:, 0].argmax(dim=1)
            return masks[torch.arange(len(masks), device=masks.device), 0, best][:, None]


def load(spec: Spec) -> Sam2Segmenter:
    """Load a published SAM 2.1, or one fine-tuned from it, from its checkpoint."""
    device = open_device(spec)
    return Sam2Segmenter(
        load_network(spec.weights, spec.variant, side=SIDE),
        device,
        precision=choose_precision(spec.precision, device),
        batch=spec.batch,
        frame=Sam2Frame(SIDE),
        windows=spec.windows,
    )
