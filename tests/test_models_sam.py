"""SAM on volumes: the masks of SamPredictor called by hand, the right windows, honest loading
errors."""

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
from helpers.models import ScanCase, choose_window
from helpers.models.devices import choose_device
from helpers.models.sam import SamSegmenter
from helpers.models.sam_demo import SmallSam, build_small_sam, load_small_sam, save_small_sam
from helpers.models.torchvision_fix import import_segment_anything
from helpers.parameters import Windows
from helpers.prompts import Prompts
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
        "spleen": Prompts(np.array([1, 1, 3]), np.array([[2.5, 3, 20, 17], [25, 4, 40, 20.25], [5, 5, 30, 29]])),
        "lung_left": Prompts(np.array([1]), np.array([[1.0, 1, 43, 29]])),
        "liver": Prompts(np.array([3]), np.array([[10, 2, 44, 25.5]])),
    }
    return ScanCase("s", "s", modality, grid, IDS, prompts, image=image)


def segment_by_hand(sam: torch.nn.Module, case: ScanCase) -> np.ndarray:
    """The official loop: `set_image` and one `predict` per box; the higher logit takes a shared
    pixel."""
    predictor = import_segment_anything().SamPredictor(sam)
    labels = np.zeros(case.shape, np.uint8)
    best = np.zeros(case.shape, np.float32)
    for organ in IDS:
        for z, box in zip(case.prompts[organ].slices, case.prompts[organ].corners, strict=True):
            low, high = (-1350, 150) if organ.startswith("lung") and case.modality == "CT" else (-160, 240)
            grey = volumes.find_levels(case.image, case.modality, center=(low + high) / 2, width=high - low).apply(
                case.image[z]
            )
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


def test_the_encoder_runs_once_per_slice_and_window(tiny: torch.nn.Module, rng: np.random.Generator) -> None:
    seen = []
    tiny.image_encoder.patch_embed.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    SamSegmenter(tiny, "cpu").segment(make_case(rng, "CT"))
    assert sum(seen) == 3  # slice 1: soft and lung; slice 3: soft for both organs; none elsewhere
    seen.clear()
    SamSegmenter(tiny, "cpu").segment(make_case(rng, "MR"))
    assert sum(seen) == 2


def test_draws_share_the_encoder_and_get_labels_of_their_own(tiny: torch.nn.Module, rng: np.random.Generator) -> None:
    case = make_case(rng, "MR")
    moved = {
        organ: replace(prompts, corners=np.clip(prompts.corners + 2.0, 0, 29))
        for organ, prompts in case.prompts.items()
    }
    seen = []
    tiny.image_encoder.patch_embed.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    both = SamSegmenter(tiny, "cpu").segment(replace(case, repeats=(moved,)))
    assert sum(seen) == 2
    assert (both.slices, both.prompts) == (2, 10)
    np.testing.assert_array_equal(both.labels, SamSegmenter(tiny, "cpu").segment(case).labels)
    alone = SamSegmenter(tiny, "cpu").segment(replace(case, prompts=moved))
    np.testing.assert_array_equal(both.repeats[0], alone.labels)
    assert both.encode_seconds > 0
    assert both.decode_seconds > 0


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_size_does_not_change_labels(tiny: torch.nn.Module, rng: np.random.Generator, batch: int) -> None:
    case = make_case(rng)
    found = SamSegmenter(tiny, "cpu", batch=batch).segment(case).labels
    assert (found != SamSegmenter(tiny, "cpu").segment(case).labels).mean() < 1e-3


def test_out_of_memory_halves_the_batch_and_goes_on(tiny: torch.nn.Module, rng: np.random.Generator) -> None:
    segmenter = SamSegmenter(tiny, "cpu", batch=4)
    encode, tried = segmenter.encoder, []

    def encode_little(images: torch.Tensor) -> torch.Tensor:
        tried.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("no room")
        return encode(images)

    case = make_case(rng)
    expected = SamSegmenter(tiny, "cpu", batch=1).segment(case).labels
    segmenter.encoder = encode_little
    result = segmenter.segment(case)
    np.testing.assert_array_equal(result.labels, expected)
    assert tried == [3, 1, 1, 1]
    assert result.batch == 1


def test_no_room_for_a_single_slice_is_said(tiny: torch.nn.Module, rng: np.random.Generator) -> None:
    segmenter = SamSegmenter(tiny, "cpu")

    def refuse(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    segmenter.encoder = refuse
    with pytest.raises(SegfairError, match="too little memory for one slice"):
        segmenter.segment(make_case(rng))


def test_windows_by_organ_and_modality() -> None:
    windows = Windows(ct={"soft": (40, 400), "lung": (-600, 1500), "bone": (300, 1500)}, organs={"rib": "bone"})
    assert choose_window("lung_upper_lobe_left", "CT", windows) == "lung"
    assert choose_window("lung_left", "MR", windows) == "soft"
    assert choose_window("liver", "CT", windows) == "soft"
    assert choose_window("rib", "CT", windows) == "bone"


def test_a_scan_without_an_image_is_refused(tiny: torch.nn.Module, rng: np.random.Generator) -> None:
    case = make_case(rng)
    with pytest.raises(SegfairError, match="needs an image"):
        SamSegmenter(tiny, "cpu").segment(ScanCase(**{**vars(case), "image": None}))


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(SegfairError, match="no such device"):
        choose_device("cuda:99")


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
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert finished.returncode == 0, finished.stderr


def test_without_the_declarations_the_import_fails_there() -> None:
    """The trap is real: should a later torchvision mend it, this test says that the fix can go."""
    code = (
        "import torch\n"
        "def refuse(path): raise OSError('built against another torch')\n"
        "torch.ops.load_library = refuse\n"
        "import segment_anything\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert "operator torchvision::nms does not exist" in finished.stderr
