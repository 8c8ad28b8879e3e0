"""SAM on volumes: the masks of SamPredictor called by hand, the right windows, honest loading errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import volumes
from helpers.errors import SegfairError
from helpers.models import ScanCase, Spec, choose_window
from helpers.models.sam import SamSegmenter, choose_device, describe_architecture, load, load_sam
from helpers.models.sam_demo import SmallSam, build_small_sam, load_small_sam, save_small_sam
from helpers.models.torchvision_fix import import_segment_anything
from helpers.prompts import Boxes
from helpers.volumes import Grid

TINY = SmallSam(image_size=64, patch_size=8, width=24, depth=2, heads=2, window=4, global_blocks=(1,), prompt_width=32)
SHAPE = (5, 30, 44)
IDS = {"spleen": 4, "lung_left": 2, "liver": 7}


@pytest.fixture
def tiny() -> torch.nn.Module:
    torch.manual_seed(7)  # most seeds give logits of one sign; this one draws outlines
    return build_small_sam(TINY)


def make_case(rng: np.random.Generator, modality: str = "CT") -> ScanCase:
    image = rng.normal(-200, 400, SHAPE).astype(np.float32)
    grid = Grid(SHAPE[::-1], (2.0, 2.0, 5.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    prompts = {
        "spleen": Boxes(np.array([1, 1, 3]), np.array([[2.5, 3, 20, 17], [25, 4, 40, 20.25], [5, 5, 30, 29]])),
        "lung_left": Boxes(np.array([1]), np.array([[1.0, 1, 43, 29]])),
        "liver": Boxes(np.array([3]), np.array([[10, 2, 44, 25.5]])),
    }
    return ScanCase("s", "s", modality, grid, IDS, prompts, image)


def segment_by_hand(sam: torch.nn.Module, case: ScanCase) -> np.ndarray:
    """The official loop: `set_image` and one `predict` per box; the higher logit takes a shared pixel."""
    predictor = import_segment_anything().SamPredictor(sam)
    labels = np.zeros(case.shape, np.uint8)
    best = np.zeros(case.shape, np.float32)
    for organ in IDS:
        for z, box in zip(case.prompts[organ].slices, case.prompts[organ].corners, strict=True):
            low, high = (-1350, 150) if organ.startswith("lung") and case.modality == "CT" else (-160, 240)
            grey = volumes.window_image(case.image, case.modality, center=(low + high) / 2, width=high - low)[z]
            predictor.set_image(np.stack([grey] * 3, axis=-1))
            logits = predictor.predict(box=box, multimask_output=False, return_logits=True)[0][0]
            wins = logits > best[z]
            labels[z][wins] = IDS[organ]
            best[z][wins] = logits[wins]
    return labels


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_volume_gets_the_masks_of_sampredictor(
    tiny: torch.nn.Module, rng: np.random.Generator, modality: str
) -> None:
    case = make_case(rng, modality)
    result = SamSegmenter(tiny, "cpu").segment(case)
    by_hand = segment_by_hand(tiny, case)
    assert len(np.unique(by_hand)) > 2, "the tiny model must draw something for the comparison to mean anything"
    assert (result.labels != by_hand).mean() < 1e-3  # batched and single products may differ in the last bit
    assert (result.slices, result.prompts) == (2, 5)
    assert not result.labels[[0, 2, 4]].any()


def test_logits_of_a_batch_of_boxes_are_those_of_single_boxes(tiny: torch.nn.Module, rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (30, 44)).astype(np.uint8)
    corners = np.column_stack([rng.uniform(0, 20, (40, 2)), rng.uniform(22, 30, (40, 2))])  # more than one call holds
    found = SamSegmenter(tiny, "cpu").predict_boxes(grey, corners)
    predictor = import_segment_anything().SamPredictor(tiny)
    predictor.set_image(np.stack([grey] * 3, axis=-1))
    for box, logits in zip(corners, found, strict=True):
        alone = predictor.predict(box=box, multimask_output=False, return_logits=True)[0][0]
        np.testing.assert_allclose(logits, alone, rtol=1e-4, atol=1e-4)


def test_the_encoder_runs_once_per_slice_and_window(tiny: torch.nn.Module, rng: np.random.Generator) -> None:
    calls = []
    tiny.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    SamSegmenter(tiny, "cpu").segment(make_case(rng, "CT"))
    assert len(calls) == 3  # slice 1: soft and lung; slice 3: soft for both organs; none elsewhere
    calls.clear()
    SamSegmenter(tiny, "cpu").segment(make_case(rng, "MR"))
    assert len(calls) == 2


def test_windows_by_organ_and_modality() -> None:
    assert choose_window("lung_upper_lobe_left", "CT") == "lung"
    assert choose_window("lung_left", "MR") == "soft"
    assert choose_window("liver", "CT") == "soft"


def test_a_scan_without_an_image_is_refused(tiny: torch.nn.Module, rng: np.random.Generator) -> None:
    case = make_case(rng)
    with pytest.raises(SegfairError, match="needs an image"):
        SamSegmenter(tiny, "cpu").segment(ScanCase(**{**vars(case), "image": None}))


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(SegfairError, match="no such device"):
        choose_device("cuda:99")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(SegfairError, match="cannot be read as a checkpoint"):
        load_sam(path, "vit_b")
    torch.save([1, 2], path)
    with pytest.raises(SegfairError, match="state dict of tensors"):
        load_sam(path, "vit_b")


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam.pth"
    torch.save({"a": Path("/etc")}, path)  # anything but tensors would be run on loading
    with pytest.raises(SegfairError, match="cannot be read as a checkpoint"):
        load_sam(path, "vit_b")


def test_a_checkpoint_of_another_architecture_names_the_one_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = import_segment_anything()
    monkeypatch.setitem(package.sam_model_registry, "vit_b", lambda: build_small_sam(TINY))
    path = tmp_path / "sam.pth"
    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(1280, 3, 16, 16)}, path)
    with pytest.raises(SegfairError, match="does not fit vit_b: it looks like vit_h"):
        load_sam(path, "vit_b")
    assert describe_architecture({}) == "no SAM"


def test_a_fitting_checkpoint_loads_whole(
    tiny: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = import_segment_anything()
    monkeypatch.setitem(package.sam_model_registry, "vit_b", lambda: build_small_sam(TINY))
    path = tmp_path / "sam.pth"
    torch.save(tiny.state_dict(), path)
    segmenter = load(Spec("m", "sam", {}, checkpoint=path, variant="vit_b", device="cpu"))
    for key, value in segmenter.predictor.model.state_dict().items():
        torch.testing.assert_close(value, tiny.state_dict()[key], rtol=0, atol=0)


@pytest.mark.slow
def test_the_full_vit_b_runs_from_a_checkpoint_file(rng: np.random.Generator, tmp_path: Path) -> None:
    """The published architecture with random weights: loaded from a file, the official loop's own labels."""
    torch.manual_seed(3)
    network = import_segment_anything().sam_model_registry["vit_b"]()
    path = tmp_path / "sam_vit_b.pth"
    torch.save(network.state_dict(), path)
    del network
    segmenter = load(Spec("m", "sam", {}, checkpoint=path, variant="vit_b", device="cpu"))
    boxes = Boxes(np.array([1, 1]), np.array([[2.5, 3, 20, 17], [25, 4, 40, 20.25]]))
    nothing = Boxes(np.empty(0, int), np.empty((0, 4)))
    case = replace(make_case(rng), prompts={"spleen": boxes, "lung_left": nothing, "liver": nothing})
    result = segmenter.segment(case)
    assert (result.slices, result.prompts) == (1, 2)
    assert (result.labels != segment_by_hand(segmenter.predictor.model, case)).mean() < 1e-3


def test_weights_survive_a_round_trip_and_damage_is_said(tiny: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_small_sam(tiny.state_dict(), TINY, path)
    loaded = load_small_sam(path)
    for key, value in tiny.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=1e-3, atol=1e-6)  # fp16 on disk
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SegfairError, match="missing or damaged"):
        load_small_sam(path)
    with pytest.raises(SegfairError, match="missing or damaged"):
        load_small_sam(tmp_path / "nonesuch.safetensors")
    save_small_sam({"a": torch.zeros(1)}, TINY, path)
    with pytest.raises(SegfairError, match="do not fit"):
        load_small_sam(path)


def test_the_shipped_model_is_small_and_made_of_sams_own_modules() -> None:
    from helpers.models.sam_demo import WEIGHTS

    sam = load_small_sam()
    assert type(sam) is import_segment_anything().modeling.Sam
    assert sam.image_encoder.img_size <= 256
    assert sum(parameter.numel() for parameter in sam.parameters()) <= 8_000_000
    assert WEIGHTS.stat().st_size <= 20_000_000


def test_segment_anything_imports_beside_a_cpu_only_torch() -> None:
    """In a process of its own, with torchvision's compiled operators out of reach."""
    code = (
        "import torch\n"
        "def refuse(path): raise OSError('built against another torch')\n"
        "torch.ops.load_library = refuse\n"
        "from helpers.models.torchvision_fix import import_segment_anything\n"
        "package = import_segment_anything()\n"
        "assert import_segment_anything() is package\n"
        "assert package.SamPredictor\n"
        "import torchvision\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_without_the_declarations_the_import_fails_there() -> None:
    """The trap is real: should a later torchvision mend it, this test says that the fix can go."""
    code = (
        "import torch\n"
        "def refuse(path): raise OSError('built against another torch')\n"
        "torch.ops.load_library = refuse\n"
        "import segment_anything\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "operator torchvision::nms does not exist" in finished.stderr
