"""Train `sam_demo` on synthetic slices: resumable, seeded, on one CPU core or a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import storage
from helpers.errors import SegfairError
from helpers.models.sam import choose_device, has_fast_bfloat16
from helpers.models.sam_demo import SmallSam, build_small_sam, save_small_sam
from helpers.models.synthetic import Slice, draw_slice
from helpers.study import REPOSITORY

if TYPE_CHECKING:
    import torch


# What the helper reads off each place of the embedding, for each of its 4 × 4 finer places: the clean
# image, the edges, and a code of the shape.
_CODE = 8
HELPER_CHANNELS = (2 + _CODE) * 16
# Pixels drawn per slice to compare the codes of.
_PAIRED = 96


@dataclass(frozen=True)
class Recipe:
    """How the small SAM is trained; two runs with equal recipes on one machine agree.

    Attributes
    ----------
    cycles : tuple of int
        Optimiser steps of each cycle. The learning rate follows one cosine per cycle (warm restarts:
        Loshchilov & Hutter, ICLR 2017); a cycle starts from the averaged weights of the one before, with a
        fresh optimiser.
    slices, targets : int
        Slices per step and boxes per slice.
    rate : float
        Highest learning rate (AdamW), reached after `warmup` steps of each cycle.
    average : float
        Decay of the exponential average of the weights; the average is what is saved.
    """

    cycles: tuple[int, ...] = (4200, 8000)
    seed: int = 1
    slices: int = 4
    targets: int = 8
    rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.02
    average: float = 0.998
    size: SmallSam = field(default_factory=SmallSam)

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return sum(self.cycles)

    def find_cycle(self, step: int) -> tuple[int, int]:
        """Return the step its cycle began at and the cycle's length."""
        begin = 0
        for length in self.cycles:
            if step < begin + length:
                return begin, length
            begin += length
        raise ValueError(f"step must lie below {self.steps}; got {step}")


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

    sam = _start_sam(recipe).to(device).train()
    average = {key: value.detach().clone() for key, value in sam.state_dict().items()}
    helper, optimiser = _start_cycle(sam, recipe, 0, device)
    history: list[dict[str, float]] = []
    start = 0
    if state.exists():
        kept = torch.load(state, map_location=device, weights_only=True)
        if kept["recipe"] != storage.hash_value(asdict(recipe)):
            raise SegfairError(f"{state}: was made by another recipe: remove it to train anew")
        sam.load_state_dict(kept["model"])
        helper.load_state_dict(kept["helper"])
        optimiser.load_state_dict(kept["optimiser"])
        average, history, start = kept["average"], kept["history"], kept["step"]
    began = time.monotonic()
    losses: list[tuple[float, float]] = []
    for step in range(start, recipe.steps):
        begin, length = recipe.find_cycle(step)
        if step == begin > 0:
            # In fp16, as they are saved: a cycle can be begun from shipped weights and end the same.
            sam.load_state_dict({key: value.to(torch.float16).to(value.dtype) for key, value in average.items()})
            average = {key: value.detach().clone() for key, value in sam.state_dict().items()}
            helper, optimiser = _start_cycle(sam, recipe, begin, device)
        rate = _rate_at(step - begin, length, recipe)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, dice = compute_loss(sam, helper, _draw_batch(recipe, step), device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimiser.step()
        decay = min(recipe.average, (1 + step - begin) / (10 + step - begin))
        with torch.no_grad():
            for key, value in sam.state_dict().items():
                average[key].lerp_(value, 1 - decay) if value.is_floating_point() else average[key].copy_(value)
        losses.append((float(loss.detach()), float(dice)))
        last = step + 1 == recipe.steps or time.monotonic() - began > limit_seconds
        if (step + 1) % save_every == 0 or last:
            mean_loss, mean_dice = np.mean(losses, axis=0)
            history.append({"step": step + 1, "loss": float(mean_loss), "dice": float(mean_dice), "rate": rate})
            losses = []
            _save(sam, helper, optimiser, average, history, step + 1, recipe, out, state)
            if report is not None:
                report(step + 1, float(mean_loss))
        if last:
            break
    return pd.DataFrame(history, columns=["step", "loss", "dice", "rate"])


def run_training(*, cycles: Sequence[int], seed: int, out: str, device: str = "auto") -> pd.DataFrame:
    """Train (or go on training) with a progress bar; what the training notebook calls.

    Parameters
    ----------
    cycles : sequence of int
    seed : int
        Of the recipe; everything else is its default.
    out : str
        The weights file, relative to the repository; the state to go on from lies beside it.

    Returns
    -------
    DataFrame
        As :func:`train_small_sam`.
    """
    import sys

    from tqdm import tqdm

    path = REPOSITORY / out
    recipe = Recipe(cycles=tuple(cycles), seed=seed)
    with tqdm(total=recipe.steps, desc="sam_demo", file=sys.stdout, unit="step", ncols=100) as bar:

        def show(step: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        return train_small_sam(
            recipe,
            path,
            state=path.with_suffix(".state.pt"),
            device=choose_device(device),
            save_every=max(1, min(100, recipe.steps // 10)),
            report=show,
        )


def compute_loss(
    sam: torch.nn.Module, helper: torch.nn.Module, batch: list[Slice], device: str
) -> tuple[torch.Tensor, float]:
    """Return the loss of a batch and its mean soft Dice.

    The helper, a single convolution that is thrown away after training, reads the clean image, the edges
    and which pixels belong together off the image embedding: the encoder learns to see shapes before the
    decoder asks for them.

    Loss per mask: log(1 + binary cross-entropy per box area) + 1 − soft Dice of the logits enlarged to the input's size, as
    SamPredictor enlarges them, plus the squared error of the predicted IoU (weight 0.1).
    """
    import torch
    from torch.nn import functional

    kind = torch.device(device).type
    images = torch.from_numpy(np.stack([drawn.image for drawn in batch])).to(device)
    pixels = images[:, None].float().expand(-1, 3, -1, -1)
    with torch.autocast(kind, torch.bfloat16, enabled=has_fast_bfloat16(device)):
        features = sam.image_encoder((pixels - sam.pixel_mean) / sam.pixel_std)
        position = sam.prompt_encoder.get_dense_pe()
        logits, scores = [], []
        for index, drawn in enumerate(batch):
            sparse, dense = sam.prompt_encoder(points=None, boxes=torch.from_numpy(drawn.boxes).to(device), masks=None)
            low, score = sam.mask_decoder(
                image_embeddings=features[index : index + 1],
                image_pe=position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            logits.append(low)
            scores.append(score)
        seen = functional.pixel_shuffle(helper(features), 4)
    size = images.shape[-1]
    predicted = functional.interpolate(torch.cat(logits).float(), (size, size), mode="bilinear", align_corners=False)[
        :, 0
    ]
    target = torch.from_numpy(np.concatenate([drawn.masks for drawn in batch])).to(device).float()
    boxes = torch.from_numpy(np.concatenate([drawn.boxes for drawn in batch])).to(device)
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
    loss = (torch.log1p(entropy) + (1 - dice) + 0.1 * error).mean() + _compare_seen(seen.float(), batch, device)
    return loss, float(dice.mean().detach())


def _compare_seen(seen: torch.Tensor, batch: list[Slice], device: str) -> torch.Tensor:
    """Return the loss of what the helper sees.

    Squared error of the clean image, cross-entropy of the edges, and for pairs of pixels the cross-entropy
    of "both of one shape" given exp(−|code − code|²): every pixel teaches, not the prompted shapes alone
    (associative embedding in the manner of De Brabandere et al., 2017).
    """
    import torch
    from torch.nn import functional

    side = seen.shape[-1]
    clean = torch.from_numpy(np.stack([drawn.clean for drawn in batch])).to(device).float()[:, None] / 255
    edges = torch.from_numpy(np.stack([drawn.edges for drawn in batch])).to(device).float()[:, None]
    clean, edges = (functional.interpolate(target, (side, side), mode="area") for target in (clean, edges))
    same, distance = _pair_codes(seen[:, 2:], batch, device)
    affinity = torch.exp(-distance).clamp(1e-4, 1 - 1e-4)
    return (
        2 * functional.mse_loss(seen[:, :1], clean)
        + 0.5 * functional.binary_cross_entropy_with_logits(seen[:, 1:2], edges)
        + 0.5 * functional.binary_cross_entropy(affinity, same)
    )


def _pair_codes(codes: torch.Tensor, batch: list[Slice], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for pairs of pixels of each slice whether they are of one shape, and their codes' squared distance."""
    import torch

    same, distance = [], []
    for code, drawn in zip(codes, batch, strict=True):
        rows, columns = np.nonzero(drawn.owners)
        # An even walk over the pixels: random enough, for the slices are random, and equal after a resume.
        chosen = np.linspace(0, len(rows) - 1, _PAIRED).astype(int)
        finer = drawn.owners.shape[0] / code.shape[-1]
        y, x = ((place[chosen] / finer).astype(int) for place in (rows, columns))
        owners = torch.from_numpy(drawn.owners[rows[chosen], columns[chosen]]).to(device)
        picked = code[:, torch.from_numpy(y).to(device), torch.from_numpy(x).to(device)].T
        same.append((owners[:, None] == owners[None]).float())
        distance.append((picked[:, None] - picked[None]).square().sum(-1))
    return torch.stack(same), torch.stack(distance)


def _choose_frequencies(size: SmallSam) -> torch.Tensor:
    """Return the (2, n) frequencies of SAM's Fourier position code, in cycles per half image.

    SAM draws them at random. Half of them along x alone and half along y, from a quarter cycle (monotonic
    over the image) to several, let a small network learn "inside the box" in far fewer steps.
    """
    import torch

    count = size.prompt_width // 2
    along_x = count // 2
    frequencies = torch.zeros(2, count)
    frequencies[0, :along_x] = torch.logspace(math.log10(0.2), math.log10(6.0), along_x)
    frequencies[1, along_x:] = torch.logspace(math.log10(0.2), math.log10(6.0), count - along_x)
    return frequencies


def _draw_batch(recipe: Recipe, step: int) -> list[Slice]:
    batch = []
    for index in range(recipe.slices):
        rng = np.random.default_rng([recipe.seed, step, index])
        drawn = draw_slice(rng, recipe.size.image_size, targets=recipe.targets)
        while not len(drawn.boxes):
            drawn = draw_slice(rng, recipe.size.image_size, targets=recipe.targets)
        batch.append(drawn)
    return batch


def _rate_at(step: int, length: int, recipe: Recipe) -> float:
    """Return the learning rate at a step of a cycle."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, length - recipe.warmup)
    return recipe.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _start_sam(recipe: Recipe) -> torch.nn.Module:
    import torch

    torch.manual_seed(recipe.seed)
    sam = build_small_sam(recipe.size)
    with torch.no_grad():
        sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.copy_(_choose_frequencies(recipe.size))
    return sam


def _start_cycle(
    sam: torch.nn.Module, recipe: Recipe, begin: int, device: str
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a new helper and a new optimiser for the cycle that begins at a step."""
    import torch

    torch.manual_seed(recipe.seed + begin)
    helper = torch.nn.Conv2d(recipe.size.prompt_width, HELPER_CHANNELS, 1).to(device)
    optimiser = torch.optim.AdamW(
        _group_parameters(torch.nn.ModuleList([sam, helper]), recipe.weight_decay),
        lr=recipe.rate,
        betas=(0.9, 0.98),
        fused=False,
    )
    return helper, optimiser


def _group_parameters(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and kernels only: biases, norms, positions and learnt tokens stay free."""
    decayed, free = [], []
    for name, parameter in network.named_parameters():
        plain = parameter.ndim < 2 or "pos" in name or "token" in name or "embeddings" in name
        (free if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _save(
    sam: torch.nn.Module,
    helper: torch.nn.Module,
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
                "helper": helper.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "history": history,
                "step": step,
                "recipe": storage.hash_value(asdict(recipe)),
            },
            temporary,
        )
