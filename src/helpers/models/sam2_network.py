"""SAM 2.1 as `transformers` builds it, filled from files in the layout that Meta publishes.

The architectures are those of facebookresearch/sam2 (Ravi et al., SAM 2, ICLR 2025; Apache-2.0,
configs/sam2.1). `transformers` names the same tensors otherwise and joins two groups of them:
:func:`name_published` says which published tensors each of its own is made of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from helpers.errors import SegfairError
from helpers.models.loading import check_finite, describe_difference, load_state
from helpers.models.torchvision_fix import declare_missing_operators


@dataclass(frozen=True)
class Hiera:
    """The image encoder of a variant: four stages, each of twice the former's width and heads."""

    width: int
    heads: int
    blocks: tuple[int, ...]
    global_blocks: tuple[int, ...]
    windows: tuple[int, ...]
    background: int  # places along a side of the learnt position embedding


VARIANTS = {
    "tiny": Hiera(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    "small": Hiera(96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    "base_plus": Hiera(112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    "large": Hiera(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
}
_PATCH_KERNEL = "image_encoder.trunk.patch_embed.proj.weight"
_POINTS = "sam_prompt_encoder.point_embeddings"

# From the names of transformers to the published ones, applied in this order.
_RENAMING = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$",
         "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
        (r"^no_memory_embedding$", "no_mem_embed"),
        (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
        (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
        (r"^no_object_pointer$", "no_obj_ptr"),
        (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
        (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
        (r"^object_pointer_proj\.", "obj_ptr_proj."),
        (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
        (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
        (r"^prompt_encoder\.", "sam_prompt_encoder."),
        (r"^mask_decoder\.", "sam_mask_decoder."),
        (r"^memory_encoder\.memory_fuser\.", "memory_encoder.fuser."),
        (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
        (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
        (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
        (r"\.o_proj\.", ".out_proj."),
        # Small perceptrons of two layers (within blocks), and of three.
        (r"(\.mlp)\.proj_out\.", r"\1.layers.1."),
        (r"(hypernetworks_mlps\.\d|_head|^obj_ptr_proj)\.layers\.0\.", r"\1.layers.1."),
        (r"\.proj_in\.", ".layers.0."),
        (r"\.proj_out\.", ".layers.2."),
        # What is a list of layers, activations among them, in the published modules.
        (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
        (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
        (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
        (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
        (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
        (r"\.upscale_conv1\.", ".output_upscaling.0."),
        (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
        (r"\.upscale_conv2\.", ".output_upscaling.3."),
        (r"\.mask_downsampler\.final_conv\.", ".mask_downsampler.encoder.12."),
        (r"\.depthwise_conv\.", ".dwconv."),
        (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
        (r"(\.fuser\.layers\.\d)\.scale$", r"\1.gamma"),
        (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
        (r"\.mask_downsampler\.layers\.(\d)\.(conv|layer_norm)\.", r".mask_downsampler.encoder.\1.\2."),
        (r"\.layer_norm(\d?)\.", r".norm\1."),
    )
)  # fmt: skip


def name_published(name: str) -> tuple[str, ...]:
    """Return the published names of the tensors that one of transformers is made of, in order."""
    if name == "prompt_encoder.point_embed.weight":
        return tuple(f"{_POINTS}.{i}.weight" for i in range(4))
    for pattern, replacement in _RENAMING:
        name = pattern.sub(replacement, name)
    # Convolution, normalisation and activation of each step are numbered through.
    step = re.search(r"\.mask_downsampler\.encoder\.(\d)\.(conv|norm)\.", name)
    if step:
        place = 3 * int(step[1]) + (step[2] == "norm")
        name = name.replace(step[0], f".mask_downsampler.encoder.{place}.")
    return (name,)


def build_network(hiera: Hiera, side: int) -> Any:
    """Build a ``Sam2VideoModel`` for images of side × side with random weights, in eval mode."""
    declare_missing_operators()
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    widths = [hiera.width * 2**stage for stage in range(4)]
    places = side // 16
    backbone = Sam2HieraDetConfig(
        hidden_size=hiera.width,
        num_attention_heads=hiera.heads,
        image_size=[side, side],
        window_positional_embedding_background_size=[hiera.background] * 2,
        blocks_per_stage=list(hiera.blocks),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[hiera.heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(hiera.windows),
        global_attention_blocks=list(hiera.global_blocks),
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[places * factor] * 2 for factor in (4, 2, 1)],
    )
    configuration = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": side},
        image_size=side,
        memory_attention_rope_feat_sizes=[places, places],
    )
    return Sam2VideoModel(configuration).eval()


def load_network(path: Path, variant: str | None, *, side: int) -> Any:
    """Build a variant with the weights of a published file, or of one fine-tuned from it.

    The architecture is recognised from the file where `variant` is left out; `side`, in pixels, is
    that of the square images it was trained on (1024, MedSAM2's 512). The network is on the
    processor, float32, in eval mode; no tensor of it is left at random.

    Raises a SegfairError: the file cannot be read, is of another architecture, or holds weights
    that are not finite.
    """
    state = load_state(path)
    found = recognise_variant(state)
    if variant is not None and found not in (None, variant):
        raise SegfairError(f"{path.name}: does not fit {variant}: it looks like {found}: correct `variant` or the file")
    if found is None:
        raise SegfairError(
            f"{path.name}: is no SAM 2.1: its first tensor is {next(iter(state))!r}: use a checkpoint of "
            f"{', '.join(VARIANTS)} in the layout of facebookresearch/sam2"
        )
    network = build_network(VARIANTS[found], side)
    fill_network(network, state, path.name)
    return network


def fill_network(network: Any, state: dict[str, torch.Tensor], file_name: str) -> None:
    """Give a network the tensors of a state in the published layout, none missing or left over."""
    expected: dict[str, torch.Tensor] = {}
    for name, value in network.state_dict().items():
        parts = name_published(name)
        expected |= dict(zip(parts, value.chunk(len(parts)), strict=True))
    difference = describe_difference(expected, state)
    if difference:
        older = "obj_ptr_tpos_proj.weight" not in state and "no_obj_ptr" in state
        advice = "it is of SAM 2, not 2.1: fetch the newer file" if older else "use another checkpoint"
        raise SegfairError(f"{file_name}: does not fit SAM 2.1: {difference}: {advice}")
    state = {name: value.to(torch.float32) for name, value in state.items()}
    check_finite(state, file_name)
    renamed = {}
    for name in network.state_dict():
        values = [state[part] for part in name_published(name)]
        renamed[name] = values[0] if len(values) == 1 else torch.cat(values)
    network.load_state_dict(renamed, strict=True, assign=True)


def recognise_variant(state: dict[str, torch.Tensor]) -> str | None:
    """Tell a published architecture by the encoder's width and number of blocks."""
    kernel = state.get(_PATCH_KERNEL)
    blocks = {key.split(".")[3] for key in state if key.startswith("image_encoder.trunk.blocks.")}
    for name, hiera in VARIANTS.items():
        if kernel is not None and kernel.shape[0] == hiera.width and len(blocks) == sum(hiera.blocks):
            return name
    return None
