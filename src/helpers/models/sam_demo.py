"""`sam_demo`: a small SAM of segment-anything's own modules, whose weights ship with the package.

The network is `segment_anything.modeling.Sam` with small numbers; nothing in it is new, so
``SamPredictor`` drives it as it drives the published models. It was trained on synthetic slices
alone (:mod:`helpers.demo.synthetic`, :mod:`helpers.demo.train`); ``weights/sam_demo.md`` is its
model card.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from helpers.errors import SegfairError
from helpers.models.protocol import Spec
from helpers.models.sam import SamSegmenter, make_segmenter
from helpers.models.torchvision_fix import import_segment_anything

WEIGHTS = Path(__file__).parent / "weights" / "sam_demo.safetensors"


@dataclass(frozen=True)
class SmallSam:
    """The numbers that make a small SAM.

    With a patch of 4 pixels in an image of 128 the embedding has 32×32 places and the
    low-resolution masks are as fine as the input: a patch of 16, as in the published models, would
    be far too coarse for organs of 10 to 60 pixels. The cost is one that two CPU cores carry.
    """

    image_size: int = 128  # pixels; a multiple of patch_size
    patch_size: int = 4
    width: int = 128  # of the image encoder: channels, blocks, attention heads
    depth: int = 6
    heads: int = 4
    window: int = 8  # side of an attention window, in patches
    global_blocks: tuple[int, ...] = (2, 5)  # those that attend over the whole image
    prompt_width: int = 96  # channels of the image embedding, the prompt encoder and the mask decoder
    mlp_ratio: float = 2.0
    decoder_mlp: int = 256
    decoder_heads: int = 4

    @classmethod
    def from_json(cls, text: str) -> SmallSam:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "global_blocks": tuple(values["global_blocks"])})

    def to_json(self) -> str:
        """Return these numbers as JSON, as kept in the weights file's metadata."""
        return json.dumps(asdict(self))


def build_small_sam(size: SmallSam) -> torch.nn.Module:
    """Build a `segment_anything.modeling.Sam` of this size with random weights, in eval mode."""
    import_segment_anything()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    places = size.image_size // size.patch_size
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=size.image_size,
            patch_size=size.patch_size,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            mlp_ratio=size.mlp_ratio,
            out_chans=size.prompt_width,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=size.window,
            global_attn_indexes=size.global_blocks,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=size.prompt_width,
            image_embedding_size=(places, places),
            input_image_size=(size.image_size, size.image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=size.prompt_width,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=size.prompt_width, num_heads=size.decoder_heads, mlp_dim=size.decoder_mlp
            ),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=size.prompt_width,
        ),
        # Mean 0: the padding SAM adds after normalisation then has the grey of air.
        pixel_mean=[0.0, 0.0, 0.0],
        pixel_std=[128.0, 128.0, 128.0],
    )
    return sam.eval()


def load_small_sam(path: Path = WEIGHTS) -> torch.nn.Module:
    """Build the small SAM that a safetensors file describes, its fp16 weights as fp32.

    Raises a SegfairError where the file is missing, no such file, or does not fit the architecture.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key).to(torch.float32) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (FileNotFoundError, SafetensorError) as error:
        raise SegfairError(
            f"{path}: the weights of sam_demo are missing or damaged: install the package again"
        ) from error
    if "architecture" not in metadata:
        raise SegfairError(f"{path}: has no architecture in its metadata: it was not written by helpers.demo.train")
    sam = build_small_sam(SmallSam.from_json(metadata["architecture"]))
    try:
        sam.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise SegfairError(f"{path}: its tensors do not fit the architecture it names") from error
    return sam


def save_small_sam(
    state: dict[str, torch.Tensor], size: SmallSam, path: Path, *, notes: dict[str, str] | None = None
) -> None:
    """Write weights as fp16 safetensors, with the architecture in the metadata, atomically."""
    from safetensors.torch import save_file

    from helpers.storage import write_atomically

    half = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in state.items()}
    with write_atomically(path) as temporary:
        save_file(half, str(temporary), metadata={"architecture": size.to_json(), **(notes or {})})


def load(spec: Spec) -> SamSegmenter:
    """Load the small SAM with the weights that ship with the package."""
    return make_segmenter(load_small_sam(spec.checkpoint or WEIGHTS), spec)
