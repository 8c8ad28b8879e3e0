"""Train `sam_demo` on synthetic slices: resumable, seeded, on one CPU core or a GPU."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from tqdm import tqdm

from helpers import storage
from helpers.demo.synthetic import Slice, draw_slice
from helpers.demo.torsos import Torsos, draw_torsos
from helpers.errors import SegfairError
from helpers.models.devices import choose_device, has_fast_bfloat16
from helpers.models.sam_demo import SmallSam, build_small_sam, save_small_sam
from helpers.study import REPOSITORY

# What the helper reads off each place of the embedding, for each of its 4 × 4 finer places: the
# clean image, the edges, and a code of the shape.
_CODE = 8
HELPER_CHANNELS = (2 + _CODE) * 16
_PAIRED = 96  # pixels per slice whose codes are compared


@dataclass(frozen=True)
class Cycle:
    """One run of the learning rate from its highest to nothing."""

    steps: int  # of the optimiser
    # The network's numbers. Where they differ from the cycle before, its weights are resized
    # (:func:`resize_weights`): learning begins coarse, where steps are quick, and ends fine.
    size: SmallSam = field(default_factory=SmallSam)
    rate: float = 1e-3  # the highest (AdamW), reached after the recipe's `warmup` steps
    cosine: int | None = None  # steps the cosine would take to nothing; None: `steps`; longer: it ends early
    torsos: bool = False  # whether slices of drawn torsos are among what is learnt from


COARSE = SmallSam(image_size=144, patch_size=6, window=8)
FINE = SmallSam()


@dataclass(frozen=True)
class Recipe:
    """How the small SAM is trained; two runs with equal recipes on one machine agree."""

    # With warm restarts of the learning rate (Loshchilov & Hutter, ICLR 2017): a cycle starts from
    # the averaged weights of the one before, with a fresh optimiser.
    cycles: tuple[Cycle, ...] = (
        Cycle(4200, COARSE),
        Cycle(5700, COARSE, cosine=8000),
        Cycle(1600, FINE, rate=6e-4, cosine=2200),
        Cycle(2000, FINE, rate=8e-4, torsos=True),
    )
    # What the averaged weights are resized to when they are written: fewer places than they were
    # trained with, where the demo is to be quick.
    shipped: SmallSam = field(default_factory=SmallSam)
    seed: int = 1
    people: int = 160  # torsos drawn for the cycles that learn from them
    slices: int = 4  # per step
    targets: int = 8  # boxes per slice
    warmup: int = 200
    weight_decay: float = 0.02
    average: float = 0.998  # decay of the exponential average of the weights, which is what is saved

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return sum(cycle.steps for cycle in self.cycles)

    def find_cycle(self, step: int) -> tuple[int, Cycle]:
        """Return the step its cycle began at and the cycle."""
        begin = 0
        for cycle in self.cycles:
            if step < begin + cycle.steps:
                return begin, cycle
            begin += cycle.steps
        raise ValueError(f"step must lie below {self.steps}; got {step}")


class _Learner:
    """The network in one cycle, the average of its weights, and what it learns with."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.seed)
        sam: Any = build_small_sam(recipe.cycles[0].size)
        with torch.no_grad():
            frequencies = _choose_frequencies(recipe.cycles[0].size)
            sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.copy_(frequencies)
        self.start_cycle(0, sam.state_dict())

    def start_cycle(self, step: int, weights: dict[str, torch.Tensor]) -> None:
        """Go on from weights, with a new average, helper and optimiser."""
        self.begin, self.cycle = self.recipe.find_cycle(step)
        self.sam: Any = build_small_sam(self.cycle.size).to(self.device).train()
        self.sam.load_state_dict(weights)
        self.average = {key: value.detach().clone() for key, value in self.sam.state_dict().items()}
        torch.manual_seed(self.recipe.seed + self.begin)
        self.helper = torch.nn.Conv2d(self.cycle.size.prompt_width, HELPER_CHANNELS, 1).to(self.device)
        parameters = _group_parameters(torch.nn.ModuleList([self.sam, self.helper]), self.recipe.weight_decay)
        self.optimiser = torch.optim.AdamW(parameters, lr=self.cycle.rate, betas=(0.9, 0.98), fused=False)

    def end_cycle(self) -> None:
        """Begin the next cycle with the averaged weights."""
        # In fp16, as they are saved: a cycle can be begun from shipped weights and end the same.
        weights = {key: value.to(torch.float16).to(value.dtype) for key, value in self.average.items()}
        step = self.begin + self.cycle.steps
        self.start_cycle(step, resize_weights(weights, self.cycle.size, self.recipe.find_cycle(step)[1].size))

    def learn(self, step: int, torsos: Torsos | None) -> tuple[float, float, float]:
        """Take a step; return its loss, mean soft Dice and learning rate."""
        rate = _rate_at(step - self.begin, self.cycle, self.recipe)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = _draw_batch(self.recipe, self.cycle, step, torsos)
        loss, dice = compute_loss(self.sam, self.helper, batch, self.device)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        self.optimiser.step()
        decay = min(self.recipe.average, (1 + step - self.begin) / (10 + step - self.begin))
        with torch.no_grad():
            for key, value in self.sam.state_dict().items():
                kept = self.average[key]
                kept.lerp_(value, 1 - decay) if value.is_floating_point() else kept.copy_(value)
        return float(loss.detach()), dice, rate

    def restore(self, state: Path) -> tuple[int, list[dict[str, float]]]:
        """Go on from a checkpoint; return the steps taken and their history."""
        kept = torch.load(state, map_location=self.device, weights_only=True)
        if kept["recipe"] != storage.hash_value(asdict(self.recipe)):
            raise SegfairError(f"{state}: was made by another recipe: remove it to train anew")
        self.start_cycle(max(0, kept["step"] - 1), kept["model"])
        self.average = kept["average"]
        self.helper.load_state_dict(kept["helper"])
        self.optimiser.load_state_dict(kept["optimiser"])
        return kept["step"], kept["history"]

    def save(self, step: int, history: list[dict[str, float]], out: Path, state: Path) -> None:
        """Write the averaged weights, and what :meth:`restore` reads."""
        fitted = resize_weights(self.average, self.cycle.size, self.recipe.shipped)
        save_small_sam(fitted, self.recipe.shipped, out, notes={"step": str(step), "recipe": repr(self.recipe)})
        parts = {"model": self.sam, "helper": self.helper, "optimiser": self.optimiser}
        kept: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        kept |= {"average": self.average, "history": history, "step": step}
        kept["recipe"] = storage.hash_value(asdict(self.recipe))
        with storage.write_atomically(state) as temporary:
            torch.save(kept, temporary)


def train_small_sam(
    recipe: Recipe,
    out: Path,
    *,
    state: Path,
    device: str = "cpu",
    save_every: int = 250,
    report: Callable[[int, float], None] | None = None,
    showing: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Train, writing the averaged weights to `out` and everything needed to go on to `state`.

    A run that was stopped goes on from `state`; slices depend on the recipe's seed and the step
    alone, so it sees the data it would have seen. Forward passes run in bfloat16 where the
    processor has it.

    Weights are safetensors in fp16, replaced every `save_every` steps; at each `report` is called
    with the step and the mean loss since the last. `showing` is called with the number of torsos
    drawn so far, before the first step.

    Raises a SegfairError: `state` belongs to another recipe.

    Returns a DataFrame: step, loss, dice (mean soft Dice of the step's masks), rate: means over
    `save_every` steps.
    """
    learner = _Learner(recipe, device)
    start, history = learner.restore(state) if state.exists() else (0, [])
    torsos = _keep_torsos(recipe, state.with_suffix(".torsos.npz"), showing)
    taken: list[tuple[float, float]] = []
    for step in range(start, recipe.steps):
        if step == learner.begin + learner.cycle.steps:
            learner.end_cycle()
        loss, dice, rate = learner.learn(step, torsos)
        taken.append((loss, dice))
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            mean_loss, mean_dice = np.mean(taken, axis=0)
            taken = []
            history.append({"step": step + 1, "loss": float(mean_loss), "dice": float(mean_dice), "rate": rate})
            learner.save(step + 1, history, out, state)
            if report is not None:
                report(step + 1, float(mean_loss))
    return pd.DataFrame(history, columns=["step", "loss", "dice", "rate"])


def run_training(*, seed: int, out: str, device: str = "auto", shorten: int = 1) -> pd.DataFrame:
    """Train (or go on training) with a progress bar, as :func:`train_small_sam`; for the notebook.

    Of the recipe `seed` is chosen, and `shorten` divides the steps of every cycle and the torsos,
    for a quick look. `out` is the weights file, relative to the repository; the state to go on from
    lies beside it.
    """
    path = REPOSITORY / out
    whole = Recipe(seed=seed)
    cycles = tuple(replace(cycle, steps=max(1, cycle.steps // shorten)) for cycle in whole.cycles)
    recipe = replace(whole, cycles=cycles, people=max(1, whole.people // shorten))
    with (
        tqdm(total=recipe.people, desc="torsos", file=sys.stdout, unit="torso", ncols=100, leave=False) as drawing,
        tqdm(total=recipe.steps, desc="sam_demo", file=sys.stdout, unit="step", ncols=100) as bar,
    ):

        def show(step: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        def show_torsos(count: int) -> None:
            drawing.update(count - drawing.n)

        state, every, chosen = (
            path.with_suffix(".state.pt"),
            max(1, min(100, recipe.steps // 10)),
            choose_device(device),
        )
        return train_small_sam(
            recipe, path, state=state, device=chosen, save_every=every, report=show, showing=show_torsos
        )


def compute_loss(sam: Any, helper: torch.nn.Module, batch: list[Slice], device: str) -> tuple[torch.Tensor, float]:
    """Return the loss of a batch and its mean soft Dice.

    The helper, a single convolution that is thrown away after training, reads the clean image, the
    edges and which pixels belong together off the image embedding: the encoder learns to see shapes
    before the decoder asks for them.

    Loss per mask: log(1 + binary cross-entropy per box area) + 1 − soft Dice of the logits enlarged
    to the input's size, as SamPredictor enlarges them, plus the squared error of the predicted IoU
    (weight 0.1).
    """
    kind = torch.device(device).type
    images = torch.from_numpy(np.stack([drawn.image for drawn in batch])).to(device)
    pixels = images[:, None].float().expand(-1, 3, -1, -1)
    with torch.autocast(kind, torch.bfloat16, enabled=has_fast_bfloat16(device)):
        features = sam.image_encoder((pixels - sam.pixel_mean) / sam.pixel_std)
        position = sam.prompt_encoder.get_dense_pe()
        logits, scores = [], []
        for index, drawn in enumerate(batch):
            sparse, dense = sam.prompt_encoder(points=None, boxes=torch.from_numpy(drawn.boxes).to(device), masks=None)
            prompts = {"sparse_prompt_embeddings": sparse, "dense_prompt_embeddings": dense}
            low, score = sam.mask_decoder(features[index : index + 1], position, **prompts, multimask_output=False)
            logits.append(low)
            scores.append(score)
        seen = functional.pixel_shuffle(helper(features), 4)
    wanted = (images.shape[-1], images.shape[-1])
    predicted = functional.interpolate(torch.cat(logits).float(), wanted, mode="bilinear", align_corners=False)[:, 0]
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

    Squared error of the clean image, cross-entropy of the edges, and for pairs of pixels the
    cross-entropy of "both of one shape" given exp(−|code − code|²): every pixel teaches, not the
    prompted shapes alone (associative embedding in the manner of De Brabandere et al., 2017).
    """
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
    """Return of pairs of pixels whether they are of one shape, and their codes' distance²."""
    same, distance = [], []
    for code, drawn in zip(codes, batch, strict=True):
        rows, columns = np.nonzero(drawn.owners)
        # An even walk over the pixels: random enough, as the slices are, and equal after a resume.
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

    SAM draws them at random. Half of them along x alone and half along y, from a quarter cycle
    (monotonic over the image) to several, let a small network learn "inside the box" sooner.
    """
    count = size.prompt_width // 2
    along_x = count // 2
    frequencies = torch.zeros(2, count)
    frequencies[0, :along_x] = torch.logspace(math.log10(0.2), math.log10(6.0), along_x)
    frequencies[1, along_x:] = torch.logspace(math.log10(0.2), math.log10(6.0), count - along_x)
    return frequencies


def _keep_torsos(recipe: Recipe, path: Path, report: Callable[[int], object] | None) -> Torsos | None:
    """Return the torsos a recipe asks for, drawn once and kept beside the state."""
    if not any(cycle.torsos for cycle in recipe.cycles):
        return None
    if not path.exists():
        drawn = draw_torsos(recipe.people, report=report)
        with storage.write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, *drawn)
    with np.load(path) as kept:
        return [kept[f"arr_{place}"] for place in range(len(kept.files))]


def _draw_batch(recipe: Recipe, cycle: Cycle, step: int, torsos: Torsos | None) -> list[Slice]:
    batch: list[Slice] = []
    for index in range(recipe.slices):
        rng = np.random.default_rng([recipe.seed, step, index])
        while len(batch) == index:
            size, found = cycle.size.image_size, torsos if cycle.torsos else None
            drawn = draw_slice(rng, size, targets=recipe.targets, torsos=found)
            if len(drawn.boxes):
                batch.append(drawn)
    return batch


def resize_weights(state: dict[str, torch.Tensor], old: SmallSam, new: SmallSam) -> dict[str, torch.Tensor]:
    """Fit weights to another size of image and patch; all else about the networks must agree.

    The patch's kernel, the absolute and the relative positions are interpolated (as Dosovitskiy et
    al., ICLR 2021, section 3.2, do with positions); a kernel of fewer pixels weighs each more.
    """
    wanted = build_small_sam(new).state_dict()
    fitted = {}
    for key, value in state.items():
        shape = wanted[key].shape
        if value.shape == shape:
            fitted[key] = value
        elif key.endswith("patch_embed.proj.weight"):
            kernel = functional.interpolate(value, tuple(shape[2:]), mode="bilinear", antialias=True)
            fitted[key] = kernel * (old.patch_size / new.patch_size) ** 2
        elif key.endswith("pos_embed"):
            grid = functional.interpolate(value.permute(0, 3, 1, 2), tuple(shape[1:3]), mode="bicubic")
            fitted[key] = grid.permute(0, 2, 3, 1).contiguous()
        elif "rel_pos" in key:
            line = functional.interpolate(value.T[None], shape[0], mode="linear", align_corners=True)
            fitted[key] = line[0].T.contiguous()
        else:
            raise ValueError(
                f"{key} has {tuple(value.shape)} where {tuple(shape)} is wanted: only image and patch may differ"
            )
    return {key: torch.as_tensor(value) for key, value in fitted.items()}


def _rate_at(step: int, cycle: Cycle, recipe: Recipe) -> float:
    """Return the learning rate at a step of a cycle."""
    if step < recipe.warmup:
        return cycle.rate * (step + 1) / recipe.warmup
    length = cycle.cosine or cycle.steps
    progress = (step - recipe.warmup) / max(1, length - recipe.warmup)
    return cycle.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _group_parameters(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and kernels only: biases, norms, positions and learnt tokens stay free."""
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (weight_decay, 0.0)]
    for name, parameter in network.named_parameters():
        free = parameter.ndim < 2 or any(word in name for word in ("pos", "token", "embeddings"))
        groups[free]["params"].append(parameter)
    return groups
