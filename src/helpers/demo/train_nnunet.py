"""Train `nnunet_demo` on drawn torsos: seeded, a plain loop, written in nnU-Net's own layout.

The network is what the shipped ``plans.json`` says, and nnU-Net's own trainer has no part in it:
minutes on one processor core instead of a day.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch.nn import functional
from tqdm import tqdm

from helpers import storage
from helpers.compute import keep_freed_memory
from helpers.demo.anatomy import ORGANS, OVERSAMPLING, TISSUES
from helpers.demo.fields import SmoothField
from helpers.demo.torsos import draw_protocol_greys, draw_torso, split_code
from helpers.models.nnunet_demo import FOLDER
from helpers.models.nnunet_folder import CHECKPOINT, read_trained
from helpers.study import REPOSITORY

_CONFIGURATION = "3d_fullres"
_FOLD = "all"
# In the cross-entropy: small organs would be learnt last.
_WEIGHTS = {"kidney_right": 2.0, "kidney_left": 2.0, "spleen": 2.0, "aorta": 3.0}


@dataclass(frozen=True)
class NnunetRecipe:
    """How the network is trained; equal recipes, on one machine and its threads, agree."""

    seed: int = 1
    steps: int = 800  # of the optimiser, one torso each
    people: int = 40  # drawn once, in other greys at each step
    patch_zyx: tuple[int, int, int] = (48, 48, 64)  # voxels that a step learns from; prediction takes plans.json's
    rate: float = 3e-3  # the highest (AdamW), reached after `warmup` steps; then a cosine to nothing
    warmup: int = 20
    weight_decay: float = 0.01


def train_nnunet(
    recipe: NnunetRecipe, folder: Path, *, save_every: int = 25, report: Callable[[int, float], object] | None = None
) -> pd.DataFrame:
    """Train the network of the shipped plans and write it into `folder`, in nnU-Net's layout.

    `report` is called after each step with the number of steps done and the loss.

    Returns a DataFrame: step, loss, dice: means over the steps since the row before; ``dice`` is
    soft.
    """
    began = time.process_time()
    keep_freed_memory()
    trained = read_trained(FOLDER)
    torch.manual_seed(recipe.seed)
    network = _build(trained.plans)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    torsos = draw_people(recipe, trained.plans["configurations"][_CONFIGURATION]["spacing"])
    history, since = [], []
    for step in range(recipe.steps):
        rng = np.random.default_rng([recipe.seed, 1, step])
        image, target = draw_example(rng, torsos[int(rng.integers(len(torsos)))], recipe.patch_zyx)
        for group in optimiser.param_groups:
            group["lr"] = _rate_at(step, recipe)
        loss, dice = compute_loss(network(torch.from_numpy(image)[None, None]), torch.from_numpy(target)[None])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimiser.step()
        since.append((float(loss.detach()), dice))
        if report is not None:
            report(step + 1, since[-1][0])
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            mean_loss, mean_dice = np.nanmean(since, axis=0)
            history.append({"step": step + 1, "loss": mean_loss, "dice": mean_dice})
            since = []
    _write(folder, network, recipe, history, time.process_time() - began)
    return pd.DataFrame(history)


def run_training(*, seed: int, out: str, shorten: int = 1) -> pd.DataFrame:
    """Train with a progress bar, as :func:`train_nnunet`; for the notebook.

    `shorten` divides steps and people, for a quick look. `out` is the folder, relative to the
    repository.
    """
    whole = NnunetRecipe(seed=seed)
    recipe = NnunetRecipe(seed=seed, steps=max(1, whole.steps // shorten), people=max(1, whole.people // shorten))
    with tqdm(total=recipe.steps, desc="nnunet_demo", file=sys.stdout, unit="step", ncols=100) as bar:

        def show(step: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        return train_nnunet(recipe, REPOSITORY / out / FOLDER.name, report=show)


def draw_people(recipe: NnunetRecipe, spacing_zyx_mm: Sequence[float]) -> list[np.ndarray]:
    """Draw the torsos to learn from, up to a fifth larger or smaller than they are."""
    torsos = []
    for number in range(recipe.people):
        rng = np.random.default_rng([recipe.seed, 0, number])
        z, y, x = np.asarray(spacing_zyx_mm) * rng.uniform(0.87, 1.15)
        torsos.append(draw_torso(rng, ("female", "male")[number % 2], (float(x), float(y), float(z))))
    return torsos


def draw_example(
    rng: np.random.Generator, codes: np.ndarray, patch_zyx: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw what a scanner, or none, may show of a torso, and where its organs are.

    Parameters
    ----------
    codes : ndarray of uint8, (z, y, x)
        A torso as :func:`helpers.demo.torsos.draw_torso` draws it.

    Returns
    -------
    image : ndarray of float32, (z, y, x)
        Mean 0 and SD 1 over the field of view, of which this is a patch, in the axis order of the
        plans' reader: towards superior, anterior and right. Beyond the field of view 0.
    target : ndarray of float32, (1 + organs, z, y, x)
        The part of each voxel that is no organ, then that of each of ORGANS.
    """
    seen = _choose_field_of_view(rng, codes)[:, ::-1, ::-1]
    greys = [float(rng.uniform()) for _ in TISSUES] if rng.random() < 0.15 else draw_protocol_greys(rng)
    table = np.array([greys[split_code(code)[1]] for code in range(256)], np.float32)
    image = _scan(rng, _average(table[seen]))
    image = (image - image.mean()) / max(float(image.std()), 1e-8)
    taken, placed = zip(
        *(_choose_patch(rng, n, side) for n, side in zip(image.shape, patch_zyx, strict=True)), strict=True
    )
    patch = np.zeros(tuple(patch_zyx), np.float32)
    patch[placed] = image[taken]
    fine = seen[tuple(slice(part.start * OVERSAMPLING, part.stop * OVERSAMPLING) for part in taken)]
    target = np.zeros((1 + len(ORGANS), *patch_zyx), np.float32)
    labels = fine // len(TISSUES)
    for label in range(1, len(target)):
        target[label][placed] = _average(labels == label)
    target[0] = 1 - target[1:].sum(axis=0)
    return patch, target


def compute_loss(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return cross-entropy + 1 − soft Dice, as nnU-Net adds them, and the Dice of the organs there.

    Both are (1, 1 + organs, z, y, x); the target holds parts of voxels.
    """
    axes = (0, 2, 3, 4)
    found = logits.softmax(1)
    dice = (2 * (found * target).sum(axes) + 1) / (found.sum(axes) + target.sum(axes) + 1)
    there = target.sum(axes)[1:] > 10
    mean = dice[1:][there].mean() if bool(there.any()) else torch.tensor(float("nan"))
    weights = torch.tensor([1.0, *(_WEIGHTS.get(name, 1.0) for name in ORGANS)], device=logits.device)
    return functional.cross_entropy(logits, target, weights) + 1 - dice[1:].mean(), float(mean.detach())


def _build(plans: Any) -> torch.nn.Module:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from helpers.models.trained_checkpoint import build_planned_network

    configuration = PlansManager(dict(plans)).get_configuration(_CONFIGURATION)
    return build_planned_network(configuration, 1, 1 + len(ORGANS), initialise=True)


def _choose_field_of_view(rng: np.random.Generator, codes: np.ndarray) -> np.ndarray:
    """Cut off up to a third of four torsos in ten at the top or the bottom."""
    if rng.random() > 0.4:
        return codes
    cut = int(rng.uniform(0, len(codes) / 3)) // OVERSAMPLING * OVERSAMPLING
    return codes[cut:] if rng.random() < 0.5 else codes[: len(codes) - cut]


def _choose_patch(rng: np.random.Generator, size: int, side: int) -> tuple[slice, slice]:
    """Return what of an axis is taken, and where it is put in the patch."""
    if size >= side:
        start = int(rng.integers(size - side + 1))
        return slice(start, start + side), slice(0, side)
    start = int(rng.integers(side - size + 1))
    return slice(0, size), slice(start, start + size)


def _scan(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add what scanners do: uneven gain, blur, a tone curve and noise."""
    low, span = float(image.min()), max(float(np.ptp(image)), 1e-8)
    image = (image - low) / span
    if rng.random() < 0.5:
        places = [np.arange(n, dtype=float) for n in image.shape]
        field = SmoothField(rng, (0, 0, 0), image.shape, rng.uniform(18, 40))
        image = image * np.exp(rng.uniform(0, 0.3) * field.evaluate(*places))
    if rng.random() < 0.5:
        image = np.clip(image, 0, None) ** np.exp(rng.normal(0, 0.25))
    if rng.random() < 0.5:
        image = ndimage.gaussian_filter(image, rng.uniform(0.2, 0.8))
    noise = rng.standard_normal(image.shape, np.float32)
    return (image + rng.uniform(0, 0.06) * noise).astype(np.float32)


def _average(fine: np.ndarray) -> np.ndarray:
    """Return the means of blocks of fine voxels, float32."""
    step = OVERSAMPLING
    z, y, x = (count // step for count in fine.shape)
    return fine.reshape(z, step, y, step, x, step).mean(axis=(1, 3, 5), dtype=np.float32)


def _rate_at(step: int, recipe: NnunetRecipe) -> float:
    """Return the learning rate at a step."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)))


def _write(
    folder: Path, network: torch.nn.Module, recipe: NnunetRecipe, history: Sequence[dict[str, float]], seconds: float
) -> None:
    """Write the folder as nnU-Net's trainer does, weights as fp16, and how it came about."""
    trained = read_trained(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("plans.json", "dataset.json"):
        if folder != FOLDER:
            shutil.copyfile(FOLDER / name, folder / name)
    checkpoint = {
        "network_weights": network.half().state_dict(),  # many keys name one tensor, which is kept once
        "init_args": {
            "plans": dict(trained.plans),
            "configuration": _CONFIGURATION,
            "fold": _FOLD,
            "dataset_json": dict(trained.dataset),
            "device": torch.device("cpu"),
        },
        "trainer_name": folder.name.partition("__")[0],
        "inference_allowed_mirroring_axes": None,  # left and right are apart, and flips cost eight times the work
    }
    with storage.write_atomically(folder / f"fold_{_FOLD}" / CHECKPOINT) as temporary:
        torch.save(checkpoint, temporary)
    made = {
        "command": f"run_training(seed={recipe.seed})",
        "recipe": asdict(recipe),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor_seconds": round(seconds),
        "history": list(history),
    }
    storage.write_json(made, folder / "training.json")
