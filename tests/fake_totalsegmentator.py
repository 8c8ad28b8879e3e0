"""Networks in the layout of TotalSegmentator's archives, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from helpers.models.checkpoints import TOTALSEGMENTATOR
from tests import tiny_nnunet as tiny

TRAINER = "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
PATCH = [32, 32, 32]


def write_network(root: Path, number: int, names: Sequence[str], spacing_mm: float, trainer: str = TRAINER) -> Path:
    """Write one network; its weights follow from its number."""
    plans = tiny.make_plans(spacing=[spacing_mm] * 3, patch_size=PATCH)
    threads = torch.random.get_rng_state()
    torch.manual_seed(number)
    network = tiny.build_network(plans, len(names) + 1)
    network.apply(network.initialize)
    # Larger logits, so that no voxel is undecided by a rounding error.
    state = {key: value * (30 if "seg_layers" in key else 1) for key, value in network.state_dict().items()}
    torch.random.set_rng_state(threads)
    labels = {"background": 0} | {name: place for place, name in enumerate(names, start=1)}
    return tiny.write_model(root / TOTALSEGMENTATOR[number][1] / trainer, {"fold_0": state}, plans, labels)
