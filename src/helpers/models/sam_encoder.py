"""SAM's image encoder, the same numbers sooner: exact attention in less memory.

What is left of the published arithmetic is all of it: the decomposed relative positions of SAM's
attention (Kirillov et al., ICCV 2023; Li et al., MViTv2, CVPR 2022, equation 3) are added to every
score. What goes is the traffic: scores are made, softened and used a piece at a time instead of as
one array of heads × places² (805 MB per block of vit_b), and padded places of windowed blocks pass
through no product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from helpers.models.torchvision_fix import import_segment_anything

# Places from which on attention is done piece by piece on the processor.
_LONG = 1024
# Queries per piece: 512 × 4096 scores in bfloat16 are 4 MB, which stay in the processor's cache.
_PIECE = 512


class FastImageEncoder:
    """Runs a `segment_anything` ``ImageEncoderViT`` in a given precision.

    `dtype` is that of the products within the blocks. Residual sums, normalisation, patch embedding
    and neck stay in float32, so that float32 gives the encoder's own numbers up to the order of
    additions, and half precision loses less than autocast does. The module is taken over: its
    blocks' weights are cast in place when `dtype` is not float32.
    """

    def __init__(self, encoder: Any, dtype: torch.dtype) -> None:
        self.encoder = encoder
        self.dtype = dtype
        # Of the embedding along a side.
        self.places = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
        self._relative: list[tuple[torch.Tensor, torch.Tensor] | None] = []
        for block in encoder.blocks:
            side = block.window_size or self.places
            self._relative.append(_find_relative(block.attn, side, dtype))
            for module in block.modules():
                if isinstance(module, torch.nn.Linear):
                    module.to(dtype)
        self._attend_compiled: Any = None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images, float32, (n, 3, side, side), normalised and padded as by `Sam.preprocess`.

        Returns float32, (n, channels, places, places).
        """
        encoder = self.encoder
        x = encoder.patch_embed(images)
        if encoder.pos_embed is not None:
            x = x + encoder.pos_embed
        # The patches come channels first in memory; left so, every normalisation would copy them.
        x = x.contiguous()
        for block, relative in zip(encoder.blocks, self._relative, strict=True):
            x += self._attend_block(block, block.norm1(x).to(self.dtype), relative)
            x += block.mlp(block.norm2(x).to(self.dtype))
        return encoder.neck(x.permute(0, 3, 1, 2))

    def estimate_bytes(self) -> int:
        """Return about how much memory one image takes on its way through, in bytes."""
        attention = self.encoder.blocks[0].attn
        width = attention.proj.in_features
        places = self.places**2
        item = torch.empty(0, dtype=self.dtype).element_size()
        # Residual in float32, its normalised copy, query, key, value, hidden layer of the MLP.
        flow = places * width * (8 + item * 9)
        windows = attention.num_heads * places * max((block.window_size for block in self.encoder.blocks), default=0)
        return int(flow + 4 * item * windows * max(1, self.places // 4))

    def _attend_block(self, block: Any, x: torch.Tensor, relative: Any) -> torch.Tensor:
        """Return a block's attention over (n, places, places, width), windows and all."""
        attention = block.attn
        n, height, width, channels = x.shape
        heads = attention.num_heads
        qkv = attention.qkv(x)
        window = block.window_size
        rows, columns = height, width
        if window:
            rows, columns = -(-height // window) * window, -(-width // window) * window
            if (rows, columns) != (height, width):
                # SAM pads with zeros before this product, which turns them into the bias.
                padded = attention.qkv.bias.expand(n, rows, columns, 3 * channels).clone()
                padded[:, :height, :width] = qkv
                qkv = padded
            qkv = qkv.view(n, rows // window, window, columns // window, window, 3 * channels)
            qkv = qkv.transpose(2, 3).reshape(-1, window, window, 3 * channels)
        side_y, side_x = qkv.shape[1:3]
        qkv = qkv.reshape(len(qkv), side_y * side_x, 3, heads, -1).permute(2, 0, 3, 1, 4)
        out = self._attend(qkv[0], qkv[1], qkv[2], (side_y, side_x), relative)
        out = out.transpose(1, 2).reshape(-1, side_y, side_x, channels)
        if window:
            out = out.view(n, rows // window, columns // window, window, window, channels)
            out = out.transpose(2, 3).reshape(n, rows, columns, channels)[:, :height, :width]
        # Of an array with gaps, torch multiplies row by row with as many copies of the weights.
        return attention.proj(out.contiguous())

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sides: tuple[int, int], relative: Any
    ) -> torch.Tensor:
        """Return softmax(query·keyᵀ/√d + relative positions)·value, over (n, heads, places, d)."""
        if relative is None:
            return functional.scaled_dot_product_attention(query, key, value)
        along_y, along_x = _score_positions(query, sides, relative)
        if query.device.type == "cpu" and query.dtype != torch.float32:
            return _attend_with_longer_vectors(query, key, value, along_y, along_x)
        if query.shape[2] < _LONG:
            bias = (along_y[..., :, None] + along_x[..., None, :]).flatten(-2)
            return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        if query.device.type == "cuda":
            return self._attend_on_cuda(query, key, value, along_y, along_x)
        return _attend_by_pieces(query, key, value, along_y, along_x)

    def _attend_on_cuda(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, along_y: torch.Tensor, along_x: torch.Tensor
    ) -> torch.Tensor:
        """Let the compiler fuse the positions into the kernel; image by image where it cannot."""
        if self._attend_compiled is None:
            self._attend_compiled = torch.compile(attend_with_positions, dynamic=False)
        if self._attend_compiled is not False:
            try:
                return self._attend_compiled(query, key, value, along_y, along_x)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                self._attend_compiled = False  # no compiler for this card: the slower way gives the same
        pieces = []
        for q, k, v, y, x in zip(*(array.split(1) for array in (query, key, value, along_y, along_x)), strict=True):
            bias = (y[..., :, None] + x[..., None, :]).flatten(-2)
            pieces.append(functional.scaled_dot_product_attention(q, k, v, attn_mask=bias))
        return torch.cat(pieces)


def attend_with_positions(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, along_y: torch.Tensor, along_x: torch.Tensor
) -> torch.Tensor:
    """Attend with SAM's decomposed positions through FlexAttention: one kernel once compiled.

    Query, key, value and result are (n, heads, places, d); `along_y` and `along_x`, (n, heads,
    places, side), say what each query adds to the score of a key in each row and each column.
    """
    from torch.nn.attention.flex_attention import flex_attention

    side_x = along_x.shape[-1]

    def add_positions(score: Any, image: Any, head: Any, place: Any, other: Any) -> Any:
        return score + along_y[image, head, place, other // side_x] + along_x[image, head, place, other % side_x]

    return flex_attention(query, key, value, score_mod=add_positions)


def _find_relative(attention: Any, side: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the codes (2·side − 1, d) of relative positions 1 − side … side − 1 along y and x."""
    if not attention.use_rel_pos:
        return None
    import_segment_anything()
    from segment_anything.modeling.image_encoder import get_rel_pos

    def list_codes(table: torch.Tensor) -> torch.Tensor:
        looked_up = get_rel_pos(side, side, table)  # (query, key, d), the code of query − key
        return torch.cat([looked_up[:, 0].flip(0), looked_up[0, 1:]]).to(dtype)

    with torch.no_grad():
        return list_codes(attention.rel_pos_h), list_codes(attention.rel_pos_w)


def _score_positions(
    query: torch.Tensor, sides: tuple[int, int], relative: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return query·R along y and along x, (n, heads, places, side) each.

    One product with all codes, then each query's own run of them: that of row y begins side − 1 − y
    further.
    """
    side_y, side_x = sides
    found = []
    for axis, codes in enumerate(relative):
        side = sides[axis]
        n, heads, places, depth = query.shape
        scores = (query.reshape(-1, depth) @ codes.T).view(n, heads, places, -1)
        strides = list(scores.unflatten(2, sides).stride())
        strides[2 + axis] -= 1
        run = scores.as_strided((n, heads, side_y, side_x, side), strides, storage_offset=side - 1)
        found.append(run.reshape(n, heads, side_y * side_x, side))
    return found[0], found[1]


def _attend_with_longer_vectors(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, along_y: torch.Tensor, along_x: torch.Tensor
) -> torch.Tensor:
    """Attend with positions as further parts of the vectors: nothing is as large as the scores.

    A query carries what it adds to each row and column, a key a one where its own row and column
    stand, so their product is query·key + along_y + along_x, summed in float32. Three times the
    products, which a processor with bfloat16 hardly feels; in float32 they would cost more than the
    additions they save.
    """
    n, heads, places, depth = query.shape
    side_y, side_x = along_y.shape[-1], along_x.shape[-1]
    place = torch.arange(places)
    where = torch.zeros((places, side_y + side_x), dtype=key.dtype)
    where[place, place // side_x] = 1
    where[place, side_y + place % side_x] = 1
    longer_query = torch.cat([query * depth**-0.5, along_y, along_x], dim=-1)
    longer_key = torch.cat([key, where.expand(n, heads, -1, -1)], dim=-1)
    longer_value = functional.pad(value, (0, side_y + side_x))
    out = functional.scaled_dot_product_attention(longer_query, longer_key, longer_value, scale=1.0)
    return out[..., :depth]


def _attend_by_pieces(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, along_y: torch.Tensor, along_x: torch.Tensor
) -> torch.Tensor:
    """Attend by some hundred queries of a head: scores never leave the processor's cache."""
    n, heads, places, depth = query.shape
    side_y, side_x = along_y.shape[-1], along_x.shape[-1]
    out = torch.empty((n, heads, places, depth), dtype=query.dtype, device=query.device)
    scores = torch.empty((_PIECE, places), dtype=query.dtype, device=query.device)
    scaled = query * depth**-0.5
    for image in range(n):
        for head in range(heads):
            keys = key[image, head].T.contiguous()
            values = value[image, head].contiguous()
            for start in range(0, places, _PIECE):
                piece = slice(start, min(start + _PIECE, places))
                part = scores[: piece.stop - piece.start]
                torch.mm(scaled[image, head, piece], keys, out=part)
                spread = part.unflatten(1, (side_y, side_x))
                spread += along_y[image, head, piece, :, None]
                spread += along_x[image, head, piece, None, :]
                torch.mm(torch.softmax(part, dim=-1), values, out=out[image, head, piece])
    return out
