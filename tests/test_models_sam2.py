"""SAM 2.1 and MedSAM2: the published layout, the published numbers, and honest loading errors.

The layouts' hashes and the logits were made once with facebookresearch/sam2 at commit 2b90b9f, its
classes filled by :func:`fill`: SAM2ImagePredictor on a slice, SAM2VideoPredictor on six.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.errors import SegfairError
from helpers.models import ScanCase, check_model, sam2_network
from helpers.models.loading import verify_checkpoint
from helpers.models.medsam2 import MedSam2Segmenter, Track, find_tracks
from helpers.models.protocol import Spec
from helpers.models.registry import load_segmenter
from helpers.models.sam2 import Sam2Segmenter
from helpers.models.sam2_network import VARIANTS, Hiera, build_network, fill_network, load_network, name_published
from helpers.models.sam_frames import Sam2Frame
from helpers.parameters import Windows
from helpers.prompts import Prompts
from helpers.volumes import Grid
from tests.offline import offline, one_thread  # noqa: F401
from tests.test_models_registry import make_study

SMALL = Hiera(16, 1, (1, 1, 2, 1), (3,), (8, 4, 4, 2), 7)
SIDE = 128
BOX = np.array([[5.5, 8, 30, 33.25]])
POINTS, LABELS = np.array([[[12.0, 20], [40, 10]]]), np.array([[1, 0]])
LAYOUTS = {
    "tiny": (471, "bac6d522c4ff90fe9980fe55056dc14f71966e17c16d772f18674d978c0471ad"),
    "small": (519, "c9876e8c1ec0adc34129db2418ca9d7118e5b69cdaae84f5d96b11736c3b3e02"),
    "base_plus": (615, "e2d94a28cde080da1e50ee1a2514e30d1f9b87c12fd36dff1c71ab181c0708f3"),
    "large": (903, "e5145693245ec4454c0f612349dadd98dc692ceb26c117646a6069c4abfbedcc"),
}


def fill(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights that depend on the published name alone and keep activations in bounds."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    values = torch.from_numpy(drawn)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * values
    return values if shape[0] == 1 else values / max(1, np.prod(shape[1:])) ** 0.5


def list_published(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    layout = {}
    for name, value in network.state_dict().items():
        parts = name_published(name)
        layout |= {part: tuple(piece.shape) for part, piece in zip(parts, value.chunk(len(parts)), strict=True)}
    return layout


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A small SAM 2.1 in the published layout."""
    return {name: fill(name, shape) for name, shape in list_published(build_network(SMALL, SIDE)).items()}


@pytest.fixture(scope="module")
def network(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    network = build_network(SMALL, SIDE)
    fill_network(network, dict(state), "small.pt")
    return network


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    y, x = np.mgrid[:40, :56]
    waves = [127.5 + 127.5 * np.sin(x / 5 + z / 2) * np.cos(y / 6 - z / 3) for z in range(6)]
    return np.stack(waves).astype(np.uint8)


def make_case(image: np.ndarray, prompts: dict[str, Prompts]) -> ScanCase:
    grid = Grid(image.shape[::-1], (1.0, 1.0, 3.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    return ScanCase("s", "s", "MR", grid, {"liver": 3, "spleen": 5}, prompts, image=image.astype(np.float32))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_of_a_published_file_has_its_place(variant: str) -> None:
    with torch.device("meta"):
        layout = list_published(build_network(VARIANTS[variant], 1024))
    text = "\n".join(f"{name} {layout[name]}" for name in sorted(layout))
    assert (len(layout), hashlib.sha256(text.encode()).hexdigest()) == LAYOUTS[variant]


@pytest.mark.parametrize(
    ("prompts", "logits"),
    [
        (
            Prompts(np.array([0]), BOX),
            [3.46, -5.564, -3.68, -8.808, -15.437, 0.185, -4.446, 2.341, -1.14, 2.66, -3.193, -2.34],
        ),
        (
            Prompts(np.array([0]), points=POINTS, labels=LABELS),
            [5.989, 14.436, 13.117, 13.795, 15.541, -1.127, 11.299, -0.626, 8.241, 12.462, 2.944, 11.233],
        ),
        (
            Prompts(np.array([0]), BOX, POINTS, LABELS),
            [3.484, -5.556, -3.653, -8.803, -15.434, 0.204, -4.442, 2.356, -1.129, 2.677, -3.19, -2.324],
        ),
    ],
    ids=["box", "points", "box and points"],
)
def test_a_slice_gets_the_logits_of_sam2imagepredictor(
    network: torch.nn.Module, volume: np.ndarray, prompts: Prompts, logits: list[float]
) -> None:
    segmenter = Sam2Segmenter(network, "cpu", frame=Sam2Frame(SIDE))
    embeddings = segmenter.encoder(segmenter.frame.prepare(volume[0])[None])
    found = segmenter.predict_scores(embeddings, [0], prompts, (40, 56))[0]
    np.testing.assert_allclose(found[4::12, 5::16].detach().ravel(), logits, atol=2e-3)


def test_volumes_are_segmented_where_they_are_prompted(network: torch.nn.Module, volume: np.ndarray) -> None:
    prompts = {
        "liver": Prompts(np.array([1, 1, 4]), np.array([[5.5, 8, 30, 33.25], [35, 2, 50, 20], [4, 4, 40, 36]])),
        "spleen": Prompts(np.array([2]), np.array([[10, 10, 50, 38.0]])),
    }
    case = replace(make_case(volume, prompts), repeats=({"liver": prompts["liver"]},))
    segmenter = Sam2Segmenter(network, "cpu", frame=Sam2Frame(SIDE))
    seen = []
    hook = network.vision_encoder.neck.register_forward_hook(lambda module, given, out: seen.append(len(given[0][0])))
    result = segmenter.segment(case)
    hook.remove()
    assert sum(seen) == 3  # a pass per slice, shared by organs and draws
    assert (result.slices, result.prompts) == (3, 7)
    assert set(np.flatnonzero(result.labels.any(axis=(1, 2)))) == {1, 2, 4}
    assert set(np.unique(result.labels)) == {0, 3, 5}
    assert set(np.unique(result.repeats[0])) == {0, 3}
    halved = Sam2Segmenter(network, "cpu", frame=Sam2Frame(SIDE), batch=1).segment(case)
    assert (halved.labels != result.labels).mean() < 1e-3


def test_slices_are_followed_with_the_logits_of_sam2videopredictor(
    network: torch.nn.Module, volume: np.ndarray
) -> None:
    segmenter = MedSam2Segmenter(network, "cpu", precision="float32", windows=Windows(), side=SIDE)
    found = segmenter.follow(volume, Track(Prompts(np.array([3]), BOX), 0, 5))[:, 4::12, 5::16].reshape(6, -1)
    published = [
        [7.99, 14.93, 15.168, 14.016, 15.646, 0.56, 11.851, 1.931, 8.678, 12.874, 3.752, 11.941],
        [7.01, 18.937, 15.247, 19.347, 15.648, -0.144, 9.774, 2.525, 8.425, 11.924, 9.527, 9.92],
        [6.633, 18.42, 14.339, 16.939, 12.7, 1.324, 7.786, 6.124, 10.457, 9.971, 13.948, 8.588],
        [2.52, -3.332, -2.075, -10.416, -5.042, -1.83, 1.914, -2.002, -5.625, 1.547, -9.999, -0.83],
        [11.926, 7.862, 13.846, 11.364, 13.001, 5.759, 7.081, 7.73, 8.759, 10.265, 4.691, 11.646],
        [12.678, 1.657, 14.091, 8.931, 10.692, 4.807, 5.81, 6.764, 11.342, 11.241, 2.568, 12.726],
    ]
    # Memories are kept in bfloat16: the last bit of one may fall either way.
    np.testing.assert_allclose(found, published, atol=2e-2)


def test_a_component_is_followed_over_its_own_slices_and_its_largest_part_kept(
    network: torch.nn.Module, volume: np.ndarray
) -> None:
    import cc3d

    boxes = np.array([[5.5, 8, 30, 33.25]] * 3)
    case = make_case(volume, {"liver": Prompts(np.array([1, 2, 3]), boxes), "spleen": Prompts(np.array([], np.int64))})
    segmenter = MedSam2Segmenter(network, "cpu", precision="float32", windows=Windows(), side=SIDE)
    result = segmenter.segment(replace(case, repeats=(case.prompts,)))
    assert (result.slices, result.prompts) == (3, 2)
    assert result.drawn == {"liver": 1, "spleen": 0}  # of three boxes the middle one
    assert set(np.flatnonzero(result.labels.any(axis=(1, 2)))) <= {1, 2, 3}
    assert set(np.unique(result.labels)) == {0, 3}
    assert cc3d.connected_components(result.labels, connectivity=26).max() == 1
    np.testing.assert_array_equal(result.repeats[0], result.labels)


def test_scans_that_cannot_be_followed(network: torch.nn.Module, volume: np.ndarray) -> None:
    segmenter = MedSam2Segmenter(network, "cpu", precision="float32", windows=Windows(), side=SIDE)
    case = make_case(volume, {})
    for image, says in ((None, "needs an image"), (volume * 0.0, "one value"), (volume + np.nan, "not finite")):
        with pytest.raises(SegfairError, match=says):
            segmenter.segment(replace(case, image=image))


def test_boxes_that_overlap_from_slice_to_slice_are_one_component() -> None:
    slices = np.array([2, 2, 3, 3, 4, 4, 7])
    left, right = [0.0, 0, 10, 10], [20.0, 0, 30, 10]
    corners = np.array([left, right, left, right, left, [22.0, 5, 28, 12], right])
    tracks = find_tracks(Prompts(slices, corners))
    assert [(int(t.prompt.slices[0]), t.first, t.last) for t in tracks] == [(3, 2, 4), (3, 2, 4), (7, 7, 7)]
    np.testing.assert_array_equal(np.concatenate([t.prompt.corners for t in tracks]), [left, right, right])


def test_a_component_of_two_boxes_in_its_middle_slice_gets_the_box_around_them() -> None:
    corners = np.array([[0.0, 0, 30, 10], [0, 0, 8, 9], [20, 1, 30, 10], [0, 0, 30, 10]])
    (track,) = find_tracks(Prompts(np.array([1, 2, 2, 3]), corners))
    np.testing.assert_array_equal(track.prompt.corners, [[0, 0, 30, 10]])
    assert find_tracks(Prompts(np.array([], np.int64))) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("no_mem_embed"), "no_mem_embed and 0 more are missing: use another checkpoint"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra and 0 more are unknown"),
        (lambda state: state.update(no_mem_embed=torch.zeros(1, 1, 9)), r"another shape \(\(1, 1, 9\) in place"),
        (lambda state: state.update(no_mem_embed=torch.full((1, 1, 256), torch.nan)), "not finite"),
        (lambda state: [state.pop(key) for key in [*state] if "tpos_proj" in key], "it is of SAM 2, not 2.1"),
    ],
)
def test_a_state_that_does_not_fill_the_network_is_refused(
    network: torch.nn.Module, state: dict, change: object, says: str
) -> None:
    changed = dict(state)
    change(changed)
    with pytest.raises(SegfairError, match=says):
        fill_network(network, changed, "file.pt")


def test_files_are_recognised_loaded_and_verified(state: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"model": state}, path)
    with pytest.raises(SegfairError, match=r"is no SAM 2\.1: its first tensor is 'no_"):
        load_network(path, None, side=SIDE)
    monkeypatch.setitem(sam2_network.VARIANTS, "tiny", SMALL)
    with pytest.raises(SegfairError, match="does not fit large: it looks like tiny"):
        load_network(path, "large", side=SIDE)
    loaded = load_network(path, None, side=SIDE)
    assert torch.equal(loaded.no_object_pointer, state["no_obj_ptr"])
    assert "is a complete SAM 2, none of the published files" in verify_checkpoint(path)
    for kind in ("sam2", "medsam2"):
        segmenter = load_segmenter(Spec("m", kind, {}, checkpoint=path, device="cpu", precision="float32"))
        assert (segmenter.device, segmenter.precision) == ("cpu", "float32")


def test_what_the_parameter_file_must_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", str(tmp_path / "weights"))

    def check(**model: object) -> list[str]:
        study = make_study(tmp_path, {"name": "m", **model})
        return check_model(study.parameters.models[0], study)

    (problem,) = check(kind="sam2", variant="base_plus")
    assert "run `segfair checkpoints fetch sam2_base_plus`" in problem
    assert "sam2.1_hiera_base_plus.pt" in problem
    (problem,) = check(kind="medsam2")
    assert "models.m.checkpoint is missing" in problem
    (tmp_path / "mine.pt").write_bytes(b"weights")
    assert check(kind="medsam2", checkpoint="mine.pt") == []
    (problem,) = check(kind="medsam2", checkpoint="mine.pt", prompt={"type": "points"})
    assert "medsam2 takes box, box3d; got 'points'" in problem
    monkeypatch.setattr("helpers.models.registry.find_spec", lambda name: None)
    (problem,) = check(kind="sam2", checkpoint="mine.pt")
    assert problem == "models.m: sam2 needs transformers: run pip install 'segfair[sam2]'"
