"""SAM's prompt encoder and mask decoder for many prompts on many slices in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

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
    n, places = len(sparse), (embeddings.shape[-2], embeddings.shape[-1])
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([tokens.expand(n, -1, -1), sparse], dim=1)
    images = embeddings.flatten(2).transpose(1, 2) + sam.prompt_encoder.no_mask_embed.weight
    position = sam.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
    found, source = _look_both_ways(decoder.transformer, images, owners, position, tokens)
    wanted = range(1, decoder.num_mask_tokens) if multimask else range(1)
    weights = torch.stack([decoder.output_hypernetworks_mlps[i](found[:, 1 + i]) for i in wanted], dim=1)
    masks = _draw_masks(decoder.output_upscaling, source, weights, places)
    if not multimask:
        return masks
    scores = decoder.iou_prediction_head(found[:, 0])[:, 1:]
    return masks[torch.arange(n, device=masks.device), scores.argmax(dim=1)][:, None]


def _look_both_ways(
    transformer: Any, images: torch.Tensor, owners: torch.Tensor, position: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run ``TwoWayTransformer``: tokens (n, t, c) and places (n, places, c) that saw each other.

    `images` and `position` are (images or 1, places, c). What the first layer makes of the places
    depends on the image alone and is made once for all its prompts.
    """
    queries, keys = tokens, images
    spread: torch.Tensor | None = owners
    for layer in transformer.layers:
        inwards, outwards = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        if layer.skip_first_layer_pe:
            queries = layer.self_attn(q=queries, k=queries, v=queries)
        else:
            queries = queries + layer.self_attn(q=queries + tokens, k=queries + tokens, v=queries)
        queries = layer.norm1(queries)
        placed = keys + position
        key, value, asked = inwards.k_proj(placed), inwards.v_proj(keys), outwards.q_proj(placed)
        if spread is not None:
            key, value, asked, keys = key[spread], value[spread], asked[spread], keys[spread]
        seen = _attend(inwards, inwards.q_proj(queries + tokens), key, value)
        queries = layer.norm2(queries + seen)
        queries = layer.norm3(queries + layer.mlp(queries))
        told = _attend(outwards, asked, outwards.k_proj(queries + tokens), outwards.v_proj(queries))
        keys, spread = layer.norm4(keys + told), None
    last = transformer.final_attn_token_to_image
    seen = _attend(last, last.q_proj(queries + tokens), last.k_proj(keys + position), last.v_proj(keys))
    return transformer.norm_final_attn(queries + seen), keys


def _attend(attention: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return the package's ``Attention`` of what its first three layers made, (n, queries, c)."""
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    if query.shape[2] < key.shape[2]:
        out = functional.scaled_dot_product_attention(query, key, value)
    else:  # the many lie last in memory: a softmax over the seven tokens of each place is slow
        scores = (key * key.shape[-1] ** -0.5) @ query.transpose(-1, -2)
        out = torch.softmax(scores, dim=-2).transpose(-1, -2) @ value
    return attention.out_proj(out.transpose(1, 2).flatten(2))


def _draw_masks(upscaling: Any, source: torch.Tensor, weights: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Enlarge places (n, places, c) fourfold and weigh (n, masks, c / 8): (n, masks, 4·y, 4·x).

    The decoder's two transposed convolutions of 2 × 2 pixels, 2 apart, never overlap: each is one
    product per place. Channels stay last, so that nothing is moved before only the masks are left.
    """
    first, norm, _, second, _ = upscaling
    finer = functional.layer_norm(_split_places(source, first), norm.weight.shape, norm.weight, norm.bias, norm.eps)
    finer = functional.gelu(_split_places(functional.gelu(finer), second))
    n, masks = weights.shape[:2]
    drawn = finer.reshape(n, -1, finer.shape[-1]) @ weights.transpose(1, 2)
    # Of place (y, x), the quarters (a, b), and of each the quarters (c, d).
    drawn = drawn.view(n, *places, 2, 2, 2, 2, masks).permute(0, 7, 1, 3, 5, 2, 4, 6)
    return drawn.reshape(n, masks, 4 * places[0], 4 * places[1])


def _split_places(places: torch.Tensor, convolution: Any) -> torch.Tensor:
    """Apply a transposed 2 × 2 convolution: (…, c) to four quarters of each place, (…, 4, d)."""
    weight = convolution.weight.permute(2, 3, 1, 0)  # (a, b, d, c)
    product = functional.linear(places, weight.flatten(0, 2), convolution.bias.repeat(4))
    return product.unflatten(-1, (4, weight.shape[2]))
