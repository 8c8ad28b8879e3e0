"""Synthetic slices and the training of the small SAM: seeded, bounded, resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
import torch

from helpers.demo import synthetic
from helpers.demo.anatomy import ORGANS, TISSUES
from helpers.demo.synthetic import draw_slice
from helpers.demo.torsos import Torsos, draw_torsos
from helpers.demo.train import Cycle, Recipe, _rate_at, resize_weights, train_small_sam
from helpers.errors import SegfairError
from helpers.models.sam_demo import SmallSam, build_small_sam, load_small_sam

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
FINE = replace(TINY, image_size=40, patch_size=4)
RECIPE = Recipe(
    cycles=(Cycle(3, TINY), Cycle(3, FINE, rate=5e-4)),
    shipped=replace(FINE, image_size=32),
    slices=2,
    targets=3,
    warmup=2,
)


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
        # A tenth of the box for the jitter, and up to two coarse pixels (of 96/43) for rounding to
        # the scan's grid.
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
    from helpers.demo.train import HELPER_CHANNELS, compute_loss

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


def stop_after_a_step(recipe: Recipe, out: Path, **options: Any) -> None:
    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_small_sam(recipe, out, save_every=1, report=stop, **options)


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    whole = train_small_sam(RECIPE, tmp_path / "a.safetensors", state=tmp_path / "a.pt", save_every=2)
    assert whole["step"].tolist() == [2, 4, 6]
    assert whole["loss"].notna().all()
    stop_after_a_step(RECIPE, tmp_path / "b.safetensors", state=tmp_path / "b.pt")
    assert (tmp_path / "b.safetensors").exists()  # stopped after one step, and of use already
    resumed = train_small_sam(RECIPE, tmp_path / "b.safetensors", state=tmp_path / "b.pt", save_every=2)
    assert resumed["step"].tolist() == [1, 2, 4, 6]
    one, other = (load_small_sam(tmp_path / f"{name}.safetensors").state_dict() for name in "ab")
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=0)


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    stop_after_a_step(RECIPE, tmp_path / "a.safetensors", state=tmp_path / "a.pt")
    with pytest.raises(SegfairError, match="another recipe"):
        train_small_sam(
            replace(RECIPE, seed=2),
            tmp_path / "a.safetensors",
            state=tmp_path / "a.pt",
        )


def test_resized_weights_see_the_same_image_alike() -> None:
    """Twice the places at half the patch: the embedding of a smooth image hardly changes but for
    its grid."""
    torch.manual_seed(1)
    old = SmallSam(image_size=64, patch_size=8, width=16, depth=1, heads=2, window=4, global_blocks=(), prompt_width=16)
    new = replace(old, image_size=32, patch_size=4)
    coarse, fine = build_small_sam(old), build_small_sam(new)
    fine.load_state_dict(resize_weights(coarse.state_dict(), old, new))
    ramp = torch.linspace(-1, 1, 64)
    image = (ramp[:, None] + 0.5 * ramp[None])[None, None].expand(1, 3, -1, -1)
    small = torch.nn.functional.interpolate(image, (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        seen, seen_fine = coarse.image_encoder.patch_embed(image), fine.image_encoder.patch_embed(small)
    assert (seen - seen_fine).abs().mean() < 0.25 * seen.abs().mean()
    with pytest.raises(ValueError, match="only image and patch may differ"):
        resize_weights(coarse.state_dict(), old, replace(new, prompt_width=32))


def test_the_rate_restarts_with_each_cycle() -> None:
    history = [_rate_at(step, Cycle(10, rate=2e-3), replace(RECIPE, warmup=2)) for step in range(10)]
    assert history[0] == pytest.approx(1e-3)
    assert max(history) == pytest.approx(2e-3)
    assert history[-1] < 2e-4
    assert _rate_at(9, Cycle(10, cosine=1000), RECIPE) > 9e-4  # a cycle that ends early is still learning fast


def test_weights_are_written_at_the_size_that_ships(tmp_path: Path) -> None:
    train_small_sam(RECIPE, tmp_path / "a.safetensors", state=tmp_path / "a.pt")
    assert load_small_sam(tmp_path / "a.safetensors").image_encoder.img_size == 32


@pytest.fixture(scope="module")
def torsos() -> Torsos:
    return draw_torsos(1)


def test_torsos_hold_every_organ_in_its_own_tissues(torsos: Torsos) -> None:
    labels, tissues = np.divmod(np.concatenate([codes.ravel() for codes in torsos]), len(TISSUES))
    assert set(np.unique(labels)) == set(range(len(ORGANS) + 1))
    lung = ORGANS.index("lung_right") + 1
    assert {TISSUES[place] for place in np.unique(tissues[labels == lung])} == {"lung", "vein"}


def test_slices_of_torsos_have_organs_as_targets(torsos: Torsos, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene of one torso slice: a target's outline is an organ's or another tissue's, bent
    alike."""
    monkeypatch.setattr(synthetic, "_TORSOS", 1.0)
    liver = ORGANS.index("liver") + 1
    places = [k for k, codes in enumerate(torsos) if (codes // len(TISSUES) == liver).sum() > 2000]
    only = [torsos[places[0]]]
    share = (only[0] // len(TISSUES) == liver).mean()
    for seed in range(5):
        drawn = draw_slice(np.random.default_rng(seed), 96, targets=20, torsos=only)
        # The liver is the largest target by far; up to a fifth of the slice may be cut off on each
        # axis.
        area = max(mask.sum() for mask in drawn.masks) / (drawn.image.any(axis=1).sum() * 96)
        assert 0.5 * share < area < 2.0 * share
    again = draw_slice(np.random.default_rng(4), 96, targets=20, torsos=only)
    np.testing.assert_array_equal(drawn.image, again.image)


def test_a_cycle_may_learn_from_torsos_drawn_once(tmp_path: Path) -> None:
    recipe = replace(RECIPE, cycles=(Cycle(1, TINY), Cycle(1, FINE, torsos=True)), people=1)
    drawn = []
    stop_after_a_step(recipe, tmp_path / "a.safetensors", state=tmp_path / "a.pt", showing=drawn.append)
    history = train_small_sam(recipe, tmp_path / "a.safetensors", state=tmp_path / "a.pt", showing=drawn.append)
    assert drawn == [1]
    assert history["step"].tolist() == [1, 2]
