"""Our volume path against the published procedures, on the same weights: logits, masks,
precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import transform
from torch.nn import functional

from helpers.demo.synthetic import draw_slice
from helpers.models import Spec, medsam
from helpers.models import sam as sam_family
from helpers.models.sam import SamSegmenter
from helpers.models.sam_demo import SmallSam, build_small_sam, load_small_sam
from helpers.models.sam_encoder import FastImageEncoder, attend_with_positions
from helpers.models.sam_frames import MedSamFrame
from helpers.models.torchvision_fix import import_segment_anything
from helpers.prompts import Prompts

Logits = tuple[np.ndarray, np.ndarray]  # low-resolution logits (n, a, a) and what is thresholded at 0 (n, y, x)


def draw_cases(count: int, *, size: int = 160, height: int = 131) -> list[tuple[np.ndarray, Prompts]]:
    """Slices of synthetic anatomy, cut so that they are not square, with the boxes of their
    shapes."""
    cases = []
    for seed in range(count):
        drawn = draw_slice(np.random.default_rng([11, seed]), size, targets=5)
        boxes = np.clip(drawn.boxes.astype(np.float64), 0, [size, height, size, height])
        boxes = boxes[(boxes[:, 2] - boxes[:, 0] > 4) & (boxes[:, 3] - boxes[:, 1] > 4)]
        cases.append((drawn.image[:height], Prompts(np.zeros(len(boxes), int), boxes)))
    return cases


def ask_sampredictor(sam: torch.nn.Module, grey: np.ndarray, prompts: Prompts) -> Logits:
    """The official loop: set_image once, predict per prompt."""
    predictor = import_segment_anything().SamPredictor(sam)
    predictor.set_image(np.stack([grey] * 3, axis=-1))
    low, large = [], []
    for place in range(len(prompts)):
        points = {}
        if prompts.has_points:
            points = {"point_coords": prompts.points[place], "point_labels": prompts.labels[place]}
        box = {"box": prompts.corners[place]} if prompts.has_boxes else {}
        several = not prompts.has_boxes
        logits, scores, low_logits = predictor.predict(**points, **box, multimask_output=several, return_logits=True)
        best = int(np.argmax(scores))
        low.append(low_logits[best])
        large.append(logits[best])
    return np.stack(low), np.stack(large)


@torch.no_grad()
def ask_medsam(sam: Any, grey: np.ndarray, prompts: Prompts) -> Logits:
    """MedSAM's inference as its authors describe it, written down anew: the test's own reading of
    it."""
    side = sam.image_encoder.img_size
    height, width = grey.shape
    three = np.repeat(grey[:, :, None], 3, axis=-1)
    resized = transform.resize(three, (side, side), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    scaled = (resized - resized.min()) / np.clip(resized.max() - resized.min(), 1e-8, None)
    embedding = sam.image_encoder(torch.tensor(scaled).float().permute(2, 0, 1)[None])
    low, large = [], []
    for box in prompts.corners:
        moved = torch.as_tensor((box / np.array([width, height, width, height]) * side)[None, None], dtype=torch.float)
        sparse, dense = sam.prompt_encoder(points=None, boxes=moved, masks=None)
        logits, _ = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        probability = functional.interpolate(
            torch.sigmoid(logits), (height, width), mode="bilinear", align_corners=False
        )
        low.append(logits[0, 0].numpy())
        large.append(probability[0, 0].numpy() - 0.5)
    return np.stack(low), np.stack(large)


def ask_ours(segmenter: SamSegmenter, grey: np.ndarray, prompts: Prompts) -> Logits:
    embeddings = segmenter._encode(segmenter.frame.prepare(grey)[None])
    owners = [0] * len(prompts)
    low = segmenter.predict_low(embeddings, owners, prompts, grey.shape)[:, 0]
    return low.numpy(), segmenter.predict_scores(embeddings, owners, prompts, grey.shape).numpy()


def measure_iou(first: np.ndarray, second: np.ndarray) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def assert_faithful(expected: Logits, found: Logits, *, threshold: float = 0.0) -> None:
    assert np.abs(found[0] - expected[0]).max() <= 1e-4 * np.abs(expected[0]).max()
    masks = expected[1] > threshold
    assert 0 < masks.mean() < 1, "the masks must have an outline for the comparison to mean anything"
    assert measure_iou(masks, found[1] > threshold) >= 0.999


def randomise(sam: torch.nn.Module) -> torch.nn.Module:
    """SAM's relative and absolute positions begin as zeros: a comparison must not pass without
    them."""
    with torch.no_grad():
        for name, parameter in sam.image_encoder.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(0, 0.3)
    return sam.eval()


@pytest.mark.parametrize("ask", [ask_sampredictor, ask_medsam])
def test_the_trained_small_model_gives_the_official_logits_and_masks(ask: Callable[..., Logits]) -> None:
    sam = load_small_sam()
    frame = MedSamFrame(sam.image_encoder.img_size) if ask is ask_medsam else None
    ours = SamSegmenter(copy.deepcopy(sam), "cpu", frame=frame)
    for grey, prompts in draw_cases(6):
        assert_faithful(ask(sam, grey, prompts), ask_ours(ours, grey, prompts))


@pytest.mark.parametrize("kind", ["points", "several points", "box and points"])
def test_points_are_asked_as_sampredictor_asks_them(kind: str, rng: np.random.Generator) -> None:
    sam = load_small_sam()
    ours = SamSegmenter(copy.deepcopy(sam), "cpu")
    for grey, boxes in draw_cases(4):
        count = 1 if kind == "points" else 3
        points = np.stack([rng.uniform(box[:2], box[2:], (count, 2)) for box in boxes.corners])
        labels = np.tile([1, 0, 1][:count], (len(boxes), 1))
        corners = boxes.corners if kind == "box and points" else np.zeros((0, 4))
        prompts = Prompts(boxes.slices, corners, points, labels)
        assert_faithful(ask_sampredictor(sam, grey, prompts), ask_ours(ours, grey, prompts))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_the_masks_of_the_trained_small_model(precision: str) -> None:
    exact = SamSegmenter(load_small_sam(), "cpu")
    half = SamSegmenter(load_small_sam(), "cpu", precision=precision)
    assert half.sam.image_encoder.blocks[0].mlp.lin1.weight.dtype == getattr(torch, precision)
    intersection = union = 0
    for grey, prompts in draw_cases(12):
        first, second = (ask_ours(one, grey, prompts)[1] > 0 for one in (exact, half))
        intersection += (first & second).sum()
        union += (first | second).sum()
    assert intersection / union >= 0.99


@pytest.mark.slow
def test_the_full_vit_b_gives_the_official_logits_and_masks(tmp_path: Path) -> None:
    """The published architecture at its own size, with random weights read from a checkpoint
    file."""
    torch.manual_seed(3)
    official = randomise(import_segment_anything().sam_model_registry["vit_b"]())
    path = tmp_path / "fine_tuned.pth"
    torch.save(official.state_dict(), path)
    ours = sam_family.load(Spec("m", "sam", {}, checkpoint=path, device="cpu", precision="float32"))
    grey, prompts = draw_cases(1, size=220, height=170)[0]
    expected = ask_sampredictor(official, grey, prompts)
    assert_faithful(expected, ask_ours(ours, grey, prompts), threshold=float(np.median(expected[1])))
    # MedSAM is this network; its own frame is held to the published procedure on the small model.
    published = medsam.load(Spec("m", "medsam", {}, checkpoint=path, device="cpu", precision="float32"))
    assert isinstance(published.frame, MedSamFrame)
    torch.testing.assert_close(published.sam.state_dict(), ours.sam.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("window", [0, 3, 4])
@pytest.mark.parametrize("places", [8, 40])
def test_the_encoder_is_the_packages_own(window: int, places: int) -> None:
    """Global and windowed blocks, windows that do not divide the image, attention whole and by
    pieces."""
    torch.manual_seed(window + places)
    size = SmallSam(
        image_size=4 * places, patch_size=4, width=16, depth=2, heads=2, window=window or places,
        global_blocks=(0, 1) if not window else (1,), prompt_width=16, mlp_ratio=2.0,
    )  # fmt: skip
    encoder = randomise(build_small_sam(size)).image_encoder
    images = torch.randn(2, 3, size.image_size, size.image_size)
    with torch.inference_mode():
        expected = encoder(images)
        found = FastImageEncoder(encoder, torch.float32)(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
def test_the_fused_attention_for_graphics_cards_is_the_same() -> None:
    """FlexAttention runs on the processor as well, slowly: its positions must be ours."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 48, 16)
    along_y, along_x = torch.randn(2, 2, 48, 6), torch.randn(2, 2, 48, 8)
    bias = (along_y[..., :, None] + along_x[..., None, :]).flatten(-2)
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    with torch.inference_mode():
        found = attend_with_positions(query, key, value, along_y, along_x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
