"""SAT's network: the words' vectors ask a U-Net's features where each organ is.

Written from the published description (Zhao et al., *Large-vocabulary segmentation for medical
images with text prompts*, npj Digital Medicine 2025, 8:566) on the blocks of nnU-Net's package and
of torch; tensors are named as in the published files. The decoder's layers are DETR's (Carion et
al., ECCV 2020) with the norm first and without self-attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import nn
from torch.nn import functional

from helpers.errors import SegfairError
from helpers.models.loading import check_finite, describe_difference, load_state

_POSITION_BASE = 10_000.0
_FIRST_KERNEL = "backbone.encoder.stages.0.0.convs.0.conv.weight"


@dataclass(frozen=True)
class SatSize:
    """The numbers that make a SAT."""

    widths: tuple[int, ...]  # channels of the U-Net's stages, each of half the former's resolution
    convs: int  # per stage
    token_hidden: int  # of the projection from all stages to a token
    head_hidden: int  # of the projection from a query to the last stage's channels
    query: int = 768  # of a word's vector; a multiple of 6 and of the heads
    feed_forward: int = 2048
    layers: int = 6
    heads: int = 8


VARIANTS = {
    "nano": SatSize((64, 64, 128, 256, 512, 768), 2, 768, 256),
    "pro": SatSize((128, 128, 256, 512, 1024, 1536), 3, 1536, 384),
}


class SatNetwork(nn.Module):
    """A volume and words' vectors to a map of logits per word."""

    def __init__(self, size: SatSize) -> None:
        super().__init__()
        self.backbone = _UNet(size)
        self.projection_layer = _project(sum(size.widths), size.token_hidden, size.query)
        self.transformer_decoder = _Decoder(size)
        self.mask_embed_proj = _project(size.query, size.head_hidden, size.widths[0])

    def forward(self, volumes: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Return logits (n, words, x, y, z) of float volumes (n, 3, x, y, z).

        Sides are multiples of 2 to the number of halvings (32). Queries are float, (words, query).
        """
        skips, features = self.backbone(volumes)
        coarse = len(skips) - 1
        pooled = [functional.avg_pool3d(skip, 2 ** (coarse - stage)) for stage, skip in enumerate(skips)]
        stacked = torch.cat(pooled, dim=1)
        tokens = self.projection_layer(stacked.flatten(2).transpose(1, 2))
        positions = encode_positions(stacked.shape[2:], tokens.shape[-1]).to(tokens)
        asked = queries.expand(len(volumes), *queries.shape)
        answers = self.mask_embed_proj(self.transformer_decoder(asked, tokens + positions, tokens))
        return torch.einsum("nwc,ncxyz->nwxyz", answers, features)


# Of every convolution in the U-Net.
_BLOCKS: dict[str, Any] = {
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}


class _UNet(nn.Module):
    """nnU-Net's plain U-Net without layers of its own for segmentation."""

    def __init__(self, size: SatSize) -> None:
        super().__init__()
        strides = [1] + [2] * (len(size.widths) - 1)
        self.encoder = PlainConvEncoder(
            3, len(strides), size.widths, nn.Conv3d, 3, strides, size.convs, return_skips=True, **_BLOCKS
        )
        self.decoder = _UpwardPath(size)

    def forward(self, volumes: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the encoder's output of every stage, and the decoder's last at full resolution."""
        skips = self.encoder(volumes)
        return skips, self.decoder(skips)


class _UpwardPath(nn.Module):
    """The U-Net's way up: enlarge, put the encoder's output beside, convolve."""

    def __init__(self, size: SatSize) -> None:
        super().__init__()
        pairs = list(pairwise(reversed(size.widths)))
        self.transpconvs = nn.ModuleList(nn.ConvTranspose3d(below, here, 2, 2) for below, here in pairs)
        self.stages = nn.ModuleList(
            StackedConvBlocks(size.convs, nn.Conv3d, 2 * here, here, 3, 1, **_BLOCKS) for _, here in pairs
        )

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        found = skips[-1]
        for enlarge, stage, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            found = stage(torch.cat((enlarge(found), skip), dim=1))
        return found


class _Decoder(nn.Module):
    """Layers in which queries read the volume's tokens, and a last norm."""

    def __init__(self, size: SatSize) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_ReadingLayer(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.query)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return queries (n, words, query) changed by what they read."""
        for layer in self.layers:
            queries = layer(queries, keys, values)
        return self.norm(queries)


class _ReadingLayer(nn.Module):
    """Cross-attention and a feed-forward network, each after its norm and added to its input."""

    def __init__(self, size: SatSize) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(size.query, size.heads, batch_first=True)
        self.linear1 = nn.Linear(size.query, size.feed_forward)
        self.linear2 = nn.Linear(size.feed_forward, size.query)
        self.norm1 = nn.LayerNorm(size.query)  # unused: DETR's for self-attention; the files hold it
        self.norm2 = nn.LayerNorm(size.query)
        self.norm3 = nn.LayerNorm(size.query)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        read, _ = self.multihead_attn(self.norm2(queries), keys, values, need_weights=False)
        queries = queries + read
        return queries + self.linear2(functional.relu(self.linear1(self.norm3(queries))))


def _project(*widths: int) -> nn.Sequential:
    """Return linear layers between `widths`, each followed by GELU."""
    return nn.Sequential(*(part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.GELU())))


def encode_positions(shape: tuple[int, ...], width: int) -> torch.Tensor:
    """Return each place's position as sines and cosines, float64, (x·y·z, width).

    A third of the width for x, y and z each, in which sine and cosine of one frequency stand side
    by side (Vaswani et al., NeurIPS 2017, section 3.5, per axis). `width` is a multiple of 6.
    """
    part = width // 3
    frequencies = torch.exp(torch.arange(0, part, 2, dtype=torch.float64) * (-math.log(_POSITION_BASE) / part))
    encoded = torch.zeros(*shape, width, dtype=torch.float64)
    for axis, length in enumerate(shape):
        angles = torch.arange(length)[:, None] * frequencies
        waves = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
        along = [1, 1, 1, part]
        along[axis] = length
        encoded[..., axis * part : (axis + 1) * part] = waves.view(along)
    return encoded.flatten(0, 2)


def build_sat_from_checkpoint(path: Path, variant: str | None = None) -> SatNetwork:
    """Build a SAT with the weights of a file, names and shapes checked; other precisions: float32.

    Published files keep the weights under ``model_state_dict``, with ``module.`` before each name.
    `variant` is recognised by the first convolution where it is left out.

    Raises a SegfairError: the file cannot be read, is of another architecture, lacks a tensor or
    has one too many, or holds weights that are not finite.
    """
    state = load_state(path)
    kernel = state.get(_FIRST_KERNEL)
    width = None if kernel is None else len(kernel)
    looks = next((name for name, size in VARIANTS.items() if size.widths[0] == width), None)
    if looks is None:
        raise SegfairError(
            f"{path.name}: is no SAT of the variants {' and '.join(VARIANTS)} (its first tensor is "
            f"{next(iter(state))!r}): use SAT's own checkpoint of one of them"
        )
    if variant not in (None, looks):
        raise SegfairError(f"{path.name}: does not fit {variant}: it looks like {looks}: correct `variant` or the file")
    with torch.device("meta"):
        network = SatNetwork(VARIANTS[looks])
    difference = describe_difference(network.state_dict(), state)
    if difference:
        raise SegfairError(f"{path.name}: does not fit {looks}: it looks like one, but {difference}: correct the file")
    state = {key: value.to(torch.float32) for key, value in state.items()}
    check_finite(state, path.name)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()
