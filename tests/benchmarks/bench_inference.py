"""Ours against the official loop: a 40-slice, 5-organ volume, both sides in one run, random
weights.

    python tests/benchmarks/bench_inference.py [--slices 40] [--variants vit_b] [--device auto]
    [--once]

Prints Markdown tables. On a graphics card also the encoder's share of the card's own matrix rate,
and the throughput of the approach of segment-anything-fast (bfloat16, scaled_dot_product_attention
with the relative positions as a bias, compiled, batched), built here side by side.
"""

from __future__ import annotations

import argparse
import copy
import platform
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from helpers.compute import keep_freed_memory
from helpers.models import ScanCase
from helpers.models.devices import choose_device, choose_precision, has_fast_bfloat16
from helpers.models.sam import SamSegmenter
from helpers.models.torchvision_fix import import_segment_anything
from helpers.parameters import Prompt
from helpers.prompts import draw_prompts
from helpers.volumes import Grid

# Semi-axes (z, y, x) and centre of five organs, as shares of the volume: every slice holds three to
# five.
_ORGANS = {
    "liver": ((0.45, 0.22, 0.20), (0.5, 0.45, 0.32)),
    "spleen": ((0.35, 0.12, 0.09), (0.55, 0.55, 0.75)),
    "kidney_right": ((0.38, 0.09, 0.07), (0.45, 0.62, 0.36)),
    "kidney_left": ((0.38, 0.09, 0.07), (0.5, 0.62, 0.64)),
    "aorta": ((2.0, 0.035, 0.035), (0.5, 0.58, 0.51)),
}


def draw_scan(slices: int, side: int = 512) -> tuple[ScanCase, int]:
    """Return a noisy CT of ellipsoids with boxes, and the number of boxes."""
    rng = np.random.default_rng(0)
    place = np.meshgrid(*((np.arange(n) + 0.5) / n for n in (slices, side, side)), indexing="ij", sparse=True)
    image = rng.normal(-80, 15, (slices, side, side)).astype(np.float32)
    prompts, ids = {}, {}
    for number, (organ, (axes, centre)) in enumerate(_ORGANS.items(), start=1):
        inside = sum(((x - c) / a) ** 2 for x, c, a in zip(place, centre, axes, strict=True)) < 1
        image[inside] += 120 + 20 * number
        ids[organ] = number
        prompts[organ] = draw_prompts(inside, (5.0, 0.8, 0.8), Prompt(), np.random.default_rng(number))
    grid = Grid((side, side, slices), (0.8, 0.8, 5.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    case = ScanCase("bench", "bench", "CT", grid, ids, prompts, image=image)
    return case, sum(len(part) for part in prompts.values())


def build(variant: str, device: str) -> Any:
    """Return a published architecture with random weights in which positions matter and masks have
    outlines."""
    torch.manual_seed(0)
    sam = import_segment_anything().sam_model_registry[variant]()
    with torch.no_grad():
        for name, parameter in sam.image_encoder.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(0, 0.2)
    return sam.to(device).eval()


def run_official(sam: Any, case: ScanCase) -> np.ndarray:
    """The loop of the package's example notebook: set_image per slice, predict per box."""
    predictor = import_segment_anything().SamPredictor(sam)
    labels = np.zeros(case.shape, np.uint8)
    for z in range(case.shape[0]):
        boxes = [
            (case.organ_ids[organ], box)
            for organ, prompts in case.prompts.items()
            for box in prompts.corners[prompts.slices == z]
        ]
        if not boxes:
            continue
        grey = (np.clip((case.image[z] + 160) / 400, 0, 1) * 255).astype(np.uint8)
        predictor.set_image(np.stack([grey] * 3, axis=-1))
        best = np.zeros(grey.shape, np.float32)
        for organ_id, box in boxes:
            logits = predictor.predict(box=box, multimask_output=False, return_logits=True)[0][0]
            wins = logits > best
            labels[z][wins], best[wins] = organ_id, logits[wins]
    return labels


def clock(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Return the seconds a piece of work took, the device's part included, and its result."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def compare(variant: str, slices: int, device: str, *, once: bool) -> list[str]:
    """Return the table's rows of one architecture; `once`: time the official loop as it comes
    alone."""
    case, boxes = draw_scan(slices)
    warm, _ = draw_scan(2)
    rows = []
    sam = build(variant, device)
    run_official(sam, warm)
    official, _ = clock(partial(run_official, sam, case), device)
    rows.append(f"| {variant} | official loop, float32 | {official:.1f} | {slices / official:.2f} | 1.0 | |")
    del sam
    if device == "cpu" and not once:
        # Ours sets this for itself; the official loop is shown with it as well, in its favour.
        keep_freed_memory()
        sam = build(variant, device)
        run_official(sam, warm)
        kept, _ = clock(partial(run_official, sam, case), device)
        rows.append(
            f"| {variant} | official loop, float32, freed memory kept | {kept:.1f} | {slices / kept:.2f} |"
            f" {official / kept:.1f} | |"
        )
        del sam
    for precision in dict.fromkeys(["float32", choose_precision("auto", device)]):
        ours = SamSegmenter(build(variant, device), device, precision=precision)
        ours.segment(warm)
        seconds, found = clock(partial(ours.segment, case), device)
        parts = f"encode {found.encode_seconds:.1f} s, decode {found.decode_seconds:.1f} s, batch {found.batch}"
        rows.append(
            f"| {variant} | ours, {precision} | {seconds:.1f} | {slices / seconds:.2f} | {official / seconds:.1f} |"
            f" {parts} |"
        )
        if device.startswith("cuda") and precision == "bfloat16":
            rows += compare_on_card(variant, ours, device)
        del ours
    rows.append(f"| | {boxes} boxes in {slices} slices of 512 × 512 | | | | |")
    return rows


def compare_on_card(variant: str, ours: SamSegmenter, device: str) -> list[str]:
    """Return rows on the encoder alone: share of the matrix rate, and the public fast approach."""
    side = ours.sam.image_encoder.img_size
    batch = min(ours.batch, 16)
    images = torch.randn(batch, 3, side, side, device=device)
    rate = measure_matrix_rate(device)
    official = build(variant, device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        official.image_encoder(images[:1])
    work = counter.get_total_flops() * batch
    rows = []
    for name, encode in (("ours", ours.encoder), ("as segment-anything-fast", build_public_fast(official))):
        with torch.inference_mode():
            for _ in range(3):
                encode(images)
            seconds = min(clock(partial(encode, images), device)[0] for _ in range(5))
        rows.append(
            f"| {variant} | encoder alone, {name}, bfloat16, batch {batch} | {seconds:.3f} | {batch / seconds:.1f} | | "
            f"{work / seconds / 1e12:.0f} TFLOP/s, {work / seconds / rate:.0%} of the {rate / 1e12:.0f} measured |"
        )
    return rows


def measure_matrix_rate(device: str) -> float:
    """Return the card's rate of bfloat16 products (8192³), in operations per second."""
    a, b = torch.randn(2, 8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(5):
        a @ b
    seconds, _ = clock(lambda: [a @ b for _ in range(20)], device)
    return 20 * 2 * 8192**3 / seconds


def build_public_fast(sam: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the encoder as segment-anything-fast runs it, without its hand-written kernel."""
    from segment_anything.modeling import image_encoder as package

    def attend(block: Any, x: torch.Tensor) -> torch.Tensor:
        n, height, width, _ = x.shape
        heads = block.num_heads
        qkv = block.qkv(x).reshape(n, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        spread = query.reshape(n * heads, height, width, -1)
        along_y = torch.einsum("bhwc,hkc->bhwk", spread, package.get_rel_pos(height, height, block.rel_pos_h))
        along_x = torch.einsum("bhwc,wkc->bhwk", spread, package.get_rel_pos(width, width, block.rel_pos_w))
        bias = (along_y[..., :, None] + along_x[..., None, :]).reshape(n, heads, height * width, height * width)
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return block.proj(out.transpose(1, 2).reshape(n, height, width, -1))

    encoder = copy.deepcopy(sam.image_encoder).to(torch.bfloat16)
    for block in encoder.blocks:
        block.attn.forward = attend.__get__(block.attn)
    compiled = torch.compile(encoder, dynamic=False)
    return lambda images: compiled(images.to(torch.bfloat16))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--variants", nargs="+", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--once", action="store_true", help="leave out the official loop with freed memory kept")
    chosen = parser.parse_args()
    device = choose_device(chosen.device)
    variants = chosen.variants or (["vit_b", "vit_h"] if device.startswith("cuda") else ["vit_b"])
    print("| architecture | what | s per volume | slices/s | times the official loop | |")
    print("|---|---|---|---|---|---|")
    for variant in variants:
        print("\n".join(compare(variant, chosen.slices, device, once=chosen.once)), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    name = torch.cuda.get_device_name() if device.startswith("cuda") else describe_processor()
    print(
        f"\n{name}, {torch.get_num_threads()} threads, bfloat16 {'fast' if has_fast_bfloat16(device) else 'slow'}, "
        f"torch {torch.__version__}, Python {platform.python_version()}; peak memory of the process {peak:.1f} GB."
    )


def describe_processor() -> str:
    """Return the processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    sys.exit(main())
