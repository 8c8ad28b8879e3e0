"""SAM's prompt encoder and mask decoder for many prompts on many slices in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from helpers.prompts import Prompts


def embed_prompts(sam: Any, prompts: Prompts, scale: np.ndarray, device: str) -> torch.Tensor:
    """Return the sparse embeddings of prompts, float32, (n, tokens, channels).

    `scale`, (2,), float64, has the x and y factors from pixels of the slices to those of the input.
    As in SamPredictor, coordinates are scaled in float64 and rounded to float32 afterwards.
    """

    def move(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float, device=device)

    points = boxes = None
    if prompts.has_points:
        points = (move(prompts.points * scale), torch.as_tensor(prompts.labels, dtype=torch.int, device=device))
    if prompts.has_boxes:
        boxes = move(prompts.corners * np.tile(scale, 2))
    sparse, _ = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
    return sparse


def decode(
    sam: Any, embeddings: torch.Tensor, owners: torch.Tensor, sparse: torch.Tensor, *, multimask: bool
) -> torch.Tensor:
    """Return the low-resolution logits of each prompt's mask.

    ``MaskDecoder.predict_masks`` with an image embedding per prompt instead of one for all, so that
    prompts of many slices share a call, and without the masks nobody asked for.

    Parameters
    ----------
    embeddings : tensor of float32, (images, channels, places, places)
    owners : tensor of int64, (n,)
        The image of each prompt.
    sparse : tensor of float32, (n, tokens, channels)
    multimask : bool
        Of the three masks SAM makes for an ambiguous prompt, return the one it thinks best (the
        package's advice for single points); else the one made for unambiguous prompts.

    Returns
    -------
    tensor of float32, (n, 1, 4·places, 4·places)
    """
    decoder = sam.mask_decoder
    n = len(sparse)
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([tokens.expand(n, -1, -1), sparse], dim=1)
    dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    source = embeddings[owners] + dense
    position = sam.prompt_encoder.get_dense_pe().expand(n, -1, -1, -1)
    places = source.shape[-2:]
    found, source = decoder.transformer(source, position, tokens)
    finer = decoder.output_upscaling(source.transpose(1, 2).unflatten(2, places))
    wanted = range(1, decoder.num_mask_tokens) if multimask else range(1)
    weights = torch.stack([decoder.output_hypernetworks_mlps[i](found[:, 1 + i]) for i in wanted], dim=1)
    masks = (weights @ finer.flatten(2)).unflatten(2, finer.shape[-2:])
    if not multimask:
        return masks
    scores = decoder.iou_prediction_head(found[:, 0])[:, 1:]
    return masks[torch.arange(n, device=masks.device), scores.argmax(dim=1)][:, None]
