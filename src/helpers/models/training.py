"""Train `sam_demo` on synthetic slices: resumable, seeded, on one CPU core or a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import storage
from helpers.errors import SegfairError
from helpers.models.sam_demo import SmallSam, build_small_sam, save_small_sam
from helpers.models.synthetic import draw_slice

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Recipe:
    """How the small SAM is trained; two runs with equal recipes on one machine agree.

    Attributes
    ----------
    steps : int
        Optimiser steps in all; the learning rate follows one cosine over them.
    slices, targets : int
        Slices per step and boxes per slice.
    rate : float
        Highest learning rate (AdamW), reached after `warmup` steps.
    average : float
        Decay of the exponential average of the weights; the average is what is saved.
    """

    steps: int = 6000
    seed: int = 1
    slices: int = 4
    targets: int = 6
    rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.02
    average: float = 0.998
    size: SmallSam = field(default_factory=SmallSam)


def train_small_sam(
    recipe: Recipe,
    out: Path,
    *,
    state: Path,
    device: str = "cpu",
    save_every: int = 250,
    report: Callable[[int, float], None] | None = None,
    limit_seconds: float = math.inf,
) -> pd.DataFrame:
    """Train, writing the averaged weights to `out` and everything needed to go on to `state`.

    A run that was stopped goes on from `state`; slices depend on the recipe's seed and the step alone, so
    it sees the data it would have seen. Forward passes run in bfloat16 where the processor has it.

    Parameters
    ----------
    recipe : Recipe
    out : Path
        The weights, safetensors in fp16; replaced every `save_every` steps.
    state : Path
        The checkpoint to go on from.
    report : callable, optional
        Called with (step, mean loss since the last call) at each save.
    limit_seconds : float
        Stop (with a checkpoint) after this long.

    Returns
    -------
    DataFrame
        step, loss, dice (mean soft Dice of the step's masks), rate: means over `save_every` steps.

    Raises
    ------
    SegfairError
        `state` belongs to another recipe.
    """
    import torch

    torch.manual_seed(recipe.seed)
    sam = build_small_sam(recipe.size).to(device).train()
    average = {key: value.detach().clone() for key, value in sam.state_dict().items()}
    optimiser = torch.optim.AdamW(
        _group_parameters(sam, recipe.weight_decay), lr=recipe.rate, betas=(0.9, 0.98), fused=False
    )
    history: list[dict[str, float]] = []
    start = 0
    if state.exists():
        kept = torch.load(state, map_location=device, weights_only=True)
        if kept["recipe"] != storage.hash_value(asdict(recipe)):
            raise SegfairError(f"{state}: was made by another recipe: remove it to train anew")
        sam.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average, history, start = kept["average"], kept["history"], kept["step"]
    began = time.monotonic()
    losses: list[tuple[float, float]] = []
    for step in range(start, recipe.steps):
        rate = _rate_at(step, recipe)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, dice = compute_loss(sam, _draw_batch(recipe, step), device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimiser.step()
        decay = min(recipe.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in sam.state_dict().items():
                average[key].lerp_(value, 1 - decay) if value.is_floating_point() else average[key].copy_(value)
        losses.append((float(loss.detach()), float(dice)))
        last = step + 1 == recipe.steps or time.monotonic() - began > limit_seconds
        if (step + 1) % save_every == 0 or last:
            mean_loss, mean_dice = np.mean(losses, axis=0)
            history.append({"step": step + 1, "loss": float(mean_loss), "dice": float(mean_dice), "rate": rate})
            losses = []
            _save(sam, optimiser, average, history, step + 1, recipe, out, state)
            if report is not None:
                report(step + 1, float(mean_loss))
        if last:
            break
    return pd.DataFrame(history, columns=["step", "loss", "dice", "rate"])


def compute_loss(
    sam: torch.nn.Module, batch: list[tuple[np.ndarray, np.ndarray, np.ndarray]], device: str
) -> tuple[torch.Tensor, float]:
    """Return the loss of a batch and its mean soft Dice.

    Loss per mask: log(1 + binary cross-entropy per box area) + 1 − soft Dice of the logits enlarged to the input's size, as
    SamPredictor enlarges them, plus the squared error of the predicted IoU (weight 0.1).
    """
    import torch
    from torch.nn import functional

    kind = torch.device(device).type
    images = torch.from_numpy(np.stack([image for image, _, _ in batch])).to(device)
    pixels = images[:, None].float().expand(-1, 3, -1, -1)
    with torch.autocast(kind, torch.bfloat16, enabled=has_fast_bfloat16(device)):
        features = sam.image_encoder((pixels - sam.pixel_mean) / sam.pixel_std)
        position = sam.prompt_encoder.get_dense_pe()
        logits, scores = [], []
        for index, (_, _, boxes) in enumerate(batch):
            if not len(boxes):
                continue
            sparse, dense = sam.prompt_encoder(points=None, boxes=torch.from_numpy(boxes).to(device), masks=None)
            low, score = sam.mask_decoder(
                image_embeddings=features[index : index + 1],
                image_pe=position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            logits.append(low)
            scores.append(score)
    size = images.shape[-1]
    predicted = functional.interpolate(torch.cat(logits).float(), (size, size), mode="bilinear", align_corners=False)[
        :, 0
    ]
    target = torch.from_numpy(np.concatenate([masks for _, masks, _ in batch])).to(device).float()
    boxes = torch.from_numpy(np.concatenate([boxes for _, _, boxes in batch])).to(device)
    probability = predicted.sigmoid()
    overlap = (probability * target).sum((1, 2))
    dice = (2 * overlap + 1) / (probability.sum((1, 2)) + target.sum((1, 2)) + 1)
    # Cross-entropy per box area, not per image: a small organ counts as much as a large one.
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=16.0)
    entropy = functional.binary_cross_entropy_with_logits(predicted, target, reduction="none").sum((1, 2)) / area
    with torch.no_grad():
        hard = predicted > 0
        union = (hard | (target > 0.5)).sum((1, 2)).clamp(min=1)
        iou = (hard & (target > 0.5)).sum((1, 2)) / union
    error = (torch.cat(scores).float()[:, 0] - iou).square()
    loss = (torch.log1p(entropy) + (1 - dice) + 0.1 * error).mean()
    return loss, float(dice.mean().detach())


def has_fast_bfloat16(device: str) -> bool:
    """Tell whether matrix products in bfloat16 are faster than in float32 there."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    # torch has no public question for this; oneDNN's own is what its dispatcher asks.
    return device == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and "bf16" in _read_cpu_flags()


def _read_cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _draw_batch(recipe: Recipe, step: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    batch = []
    for index in range(recipe.slices):
        rng = np.random.default_rng([recipe.seed, step, index])
        drawn = draw_slice(rng, recipe.size.image_size, targets=recipe.targets)
        while not len(drawn.boxes):
            drawn = draw_slice(rng, recipe.size.image_size, targets=recipe.targets)
        batch.append((drawn.image, drawn.masks, drawn.boxes))
    return batch


def _rate_at(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _group_parameters(sam: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and kernels only: biases, norms, positions and learnt tokens stay free."""
    decayed, free = [], []
    for name, parameter in sam.named_parameters():
        plain = parameter.ndim < 2 or "pos" in name or "token" in name or "embeddings" in name
        (free if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _save(
    sam: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    average: dict[str, torch.Tensor],
    history: list[dict[str, float]],
    step: int,
    recipe: Recipe,
    out: Path,
    state: Path,
) -> None:
    import torch

    save_small_sam(average, recipe.size, out, notes={"step": str(step), "recipe": repr(recipe)})
    with storage.write_atomically(state) as temporary:
        torch.save(
            {
                "model": sam.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "history": history,
                "step": step,
                "recipe": storage.hash_value(asdict(recipe)),
            },
            temporary,
        )
