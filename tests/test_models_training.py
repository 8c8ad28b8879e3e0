"""Synthetic slices and the training of the small SAM: seeded, bounded, resumable."""

from __future__ import annotations

from pathlib import Path

import cc3d
import numpy as np
import pytest
import torch

from helpers.errors import SegfairError
from helpers.models.sam_demo import SmallSam, load_small_sam
from helpers.models.synthetic import draw_slice
from helpers.models.training import Recipe, train_small_sam

TINY = SmallSam(
    image_size=48,
    patch_size=8,
    width=16,
    depth=1,
    heads=2,
    window=3,
    global_blocks=(0,),
    prompt_width=32,
    decoder_mlp=32,
)
RECIPE = Recipe(cycles=(3, 3), slices=2, targets=3, warmup=2, size=TINY)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(12))
def test_a_slice_has_connected_targets_in_jittered_boxes(seed: int) -> None:
    drawn = draw_slice(np.random.default_rng(seed), 96, targets=5, jitter=0.1)
    assert drawn.image.shape == drawn.clean.shape == drawn.edges.shape == (96, 96)
    assert drawn.image.dtype == np.uint8
    assert len(drawn.masks) == len(drawn.boxes) <= 5
    for mask, (x0, y0, x1, y1) in zip(drawn.masks, drawn.boxes, strict=True):
        assert cc3d.connected_components(mask.astype(np.uint8), connectivity=8).max() == 1
        rows, columns = np.nonzero(mask)
        tight = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
        extent = np.maximum(tight[2:] - tight[:2], 1)
        # A tenth of the box for the jitter, and up to two coarse pixels (of 96/43) for rounding to the scan's grid.
        bound = 0.1 * (np.tile(extent, 2) + 4.5) + 2.3 + 2.3
        assert np.all(np.abs(np.array([x0, y0, x1, y1]) - tight) <= bound)
        assert x1 > x0
        assert y1 > y0


def test_slices_follow_the_generator_and_differ() -> None:
    first, again, other = (draw_slice(np.random.default_rng(seed), 64) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image)


def test_without_jitter_boxes_are_tight_up_to_the_scans_own_pixels() -> None:
    for seed in range(20):
        drawn = draw_slice(np.random.default_rng(seed), 96, jitter=0.0)
        for mask, box in zip(drawn.masks, drawn.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            tight = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
            assert np.abs(box - tight).max() <= 96 / (0.45 * 96) + 1e-3


def test_training_lowers_the_loss_of_one_batch() -> None:
    from helpers.models.sam_demo import build_small_sam
    from helpers.models.training import HELPER_CHANNELS, compute_loss

    torch.manual_seed(0)
    sam, helper = build_small_sam(TINY).train(), torch.nn.Conv2d(TINY.prompt_width, HELPER_CHANNELS, 1)
    batch = [draw_slice(np.random.default_rng(3), TINY.image_size, targets=3)]
    optimiser = torch.optim.AdamW([*sam.parameters(), *helper.parameters()], lr=3e-3)
    losses = []
    for _ in range(30):
        loss, dice = compute_loss(sam, helper, batch, "cpu")
        assert 0 <= dice <= 1
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    whole = train_small_sam(RECIPE, tmp_path / "a.safetensors", state=tmp_path / "a.pt", save_every=2)
    assert whole["step"].tolist() == [2, 4, 6]
    assert whole["loss"].notna().all()
    train_small_sam(RECIPE, tmp_path / "b.safetensors", state=tmp_path / "b.pt", save_every=2, limit_seconds=0.0)
    assert (tmp_path / "b.safetensors").exists()  # stopped after one step, and of use already
    resumed = train_small_sam(RECIPE, tmp_path / "b.safetensors", state=tmp_path / "b.pt", save_every=2)
    assert resumed["step"].tolist() == [1, 2, 4, 6]
    one, other = (load_small_sam(tmp_path / f"{name}.safetensors").state_dict() for name in "ab")
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=0)


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train_small_sam(RECIPE, tmp_path / "a.safetensors", state=tmp_path / "a.pt", limit_seconds=0.0)
    with pytest.raises(SegfairError, match="another recipe"):
        train_small_sam(
            Recipe(cycles=(3, 3), seed=2, slices=2, targets=3, warmup=2, size=TINY),
            tmp_path / "a.safetensors",
            state=tmp_path / "a.pt",
        )
