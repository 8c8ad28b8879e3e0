"""SAT against a second implementation written from its description (tests/sat_oracle.py), on random
weights in the published layout; words' vectors; files that do not fit."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
import yaml
from typer.testing import CliRunner

from helpers import inference, volumes
from helpers.cli import app
from helpers.errors import SegfairError
from helpers.models import KINDS, ScanCase, Segmentation, check_model, describe_model, make_spec, sat_network, sat_setup
from helpers.models.sat import WINDOW, SatSegmenter, list_starts, weigh_window
from helpers.models.sat_network import SatNetwork, SatSize, build_sat_from_checkpoint, encode_positions
from helpers.models.sat_scan import enter_scan
from helpers.models.sat_setup import read_embeddings, write_embeddings
from helpers.models.sat_text import embed_texts
from helpers.models.torchvision_fix import declare_missing_operators
from helpers.study import Study, load_study
from tests.offline import offline  # noqa: F401

from .sat_oracle import draw_state, run_network, segment_image

TINY = SatSize((4, 4, 6, 8, 8, 10), 2, 18, 10, query=24, feed_forward=32, layers=2)
SMALL_WINDOW = (64, 32, 32)
IDS = {"spleen": 3, "liver": 1}  # the first organ's id is not the smallest
TEXTS = {"spleen": "spleen", "liver": "liver"}


def draw_tiny(seed: int = 3, size: SatSize = TINY) -> dict[str, torch.Tensor]:
    return draw_state(
        size.widths, size.convs, tokens=size.token_hidden, head=size.head_hidden, query=size.query,
        feed_forward=size.feed_forward, layers=size.layers, seed=seed,
    )  # fmt: skip


def fill(state: dict[str, torch.Tensor], size: SatSize = TINY) -> SatNetwork:
    network = SatNetwork(size)
    network.to(next(iter(state.values())).dtype)
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()}, strict=True)
    return network.eval()


def draw_vectors(names=("liver", "spleen"), modalities=("ct", "mri"), width=TINY.query, seed=5):
    rng = np.random.default_rng(seed)
    pairs = [(name, modality) for name in names for modality in modalities]
    return {pair: rng.normal(size=width).astype(np.float32) for pair in pairs}


@pytest.fixture
def tiny_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nano and Pro as small networks of another width."""
    wider = SatSize((8, 4, 6, 8, 8, 10), 2, 18, 10, query=24, feed_forward=32, layers=2)
    monkeypatch.setattr(sat_network, "VARIANTS", {"nano": TINY, "pro": wider})
    monkeypatch.setattr(sat_setup, "WIDTH", TINY.query)


def save_checkpoint(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """As published: weights of DDP under model_state_dict, an epoch beside them."""
    torch.save({"model_state_dict": state, "epoch": 7}, path)
    return path


# --- the network


def test_the_network_is_the_one_described() -> None:
    state = draw_tiny()
    state = {name: value.double() for name, value in state.items()}  # equal to rounding of float64
    generator = torch.Generator().manual_seed(1)
    volume = torch.randn(32, 64, 96, generator=generator, dtype=torch.float64)
    queries = torch.randn(3, TINY.query, generator=generator, dtype=torch.float64)
    network = fill(state)
    with torch.inference_mode():
        found = network(torch.stack([volume, volume.flip(0)])[:, None].expand(-1, 3, -1, -1, -1), queries)
        alone = network(volume.flip(0)[None, None].expand(-1, 3, -1, -1, -1), queries)
    expected = run_network(state, volume, queries)
    assert expected.std() > 0.1
    torch.testing.assert_close(found[0], expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found[1], alone[0], atol=1e-9, rtol=1e-9)


def test_positions_are_those_of_the_package_that_sat_names() -> None:
    package = pytest.importorskip("positional_encodings.torch_encodings")
    expected = package.PositionalEncoding3D(768)(torch.zeros(1, 9, 8, 3, 768))[0]
    torch.testing.assert_close(encode_positions((9, 8, 3), 768), expected.flatten(0, 2).double(), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_nano_has_the_published_keys_and_parameters_and_gives_the_oracles_logits(tmp_path: Path) -> None:
    state = draw_tiny(size=sat_network.VARIANTS["nano"])
    assert len(state) == 280
    network = build_sat_from_checkpoint(save_checkpoint(tmp_path / "nano.pth", state))
    assert round(sum(part.numel() for part in network.parameters()) / 1e6, 1) == 109.2
    assert {f"module.{name}" for name in network.state_dict()} == set(state)
    generator = torch.Generator().manual_seed(1)
    volume, queries = torch.randn(64, 32, 32, generator=generator), torch.randn(2, 768, generator=generator)
    with torch.inference_mode():
        found = network(volume[None, None].expand(-1, 3, -1, -1, -1), queries)[0]
    torch.testing.assert_close(found, run_network(state, volume, queries), atol=1e-3, rtol=1e-3)


def test_pro_differs_in_its_numbers_alone() -> None:
    with torch.device("meta"):
        network = SatNetwork(sat_network.VARIANTS["pro"])
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["backbone.encoder.stages.5.0.convs.2.conv.weight"] == (1536, 1536, 3, 3, 3)
    assert shapes["projection_layer.0.weight"] == (1536, 3584)
    assert shapes["mask_embed_proj.2.weight"] == (128, 384)


# --- windows


def test_windows_overlap_by_half_and_the_last_ends_with_the_scan() -> None:
    assert list_starts(288, 288) == [0]
    assert list_starts(289, 288) == [0, 1]
    assert list_starts(432, 288) == [0, 144]
    assert list_starts(500, 288) == [0, 144, 212]
    assert WINDOW == (288, 288, 96)


def test_a_windows_weight_is_a_gaussian_of_an_eighth() -> None:
    weight = weigh_window((16, 8, 8))
    assert weight[8, 4, 4] == 1
    assert weight[8 + 2, 4, 4].item() == pytest.approx(np.exp(-0.5))  # σ is 16/8 = 2 voxels
    assert weight[8, 4 - 1, 4].item() == pytest.approx(np.exp(-0.5))  # and 8/8 = 1
    assert (weight > 0).all()


# --- scans: the same masks as the oracle's, on the file's own voxels


def draw_image(shape, spacing, *, code="LPS", direction=None, seed=0, rim=4) -> sitk.Image:
    """Noise in air, (z, y, x), stored in any axis order, oblique where a direction is given."""
    rng = np.random.default_rng(seed)
    array = np.full(shape, -900.0)
    inner = tuple(slice(rim, -rim) if count > 2 * rim else slice(None) for count in shape)
    array[inner] = rng.normal(60, 120, array[inner].shape)
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin((-31.0, 12.5, 100.0))
    if direction is not None:
        image.SetDirection(np.ravel(direction))
    return sitk.DICOMOrient(image, code)


def rotate(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]
    )


def make_case(image: sitk.Image, modality: str, organ_ids=IDS) -> ScanCase:
    axial = volumes.to_axial(image)
    return ScanCase("s", "s", modality, volumes.get_grid(axial), organ_ids, image=sitk.GetArrayFromImage(axial))


def make_segmenter(state=None, vectors=None, texts=TEXTS, **named) -> SatSegmenter:
    vectors = draw_vectors() if vectors is None else vectors
    network = fill(draw_tiny() if state is None else state)
    return SatSegmenter(network, "cpu", vectors=vectors, texts=texts, window=SMALL_WINDOW, **named)


def turn_axial(ras: np.ndarray) -> np.ndarray:
    return ras.transpose(2, 1, 0)[:, ::-1, ::-1]


def compare_with_oracle(image: sitk.Image, modality: str, **named) -> Segmentation:
    state, vectors = draw_tiny(), draw_vectors()
    case = make_case(image, modality)
    result = make_segmenter(state, vectors, **named).segment(case)
    queries = torch.from_numpy(np.stack([vectors[name, {"CT": "ct", "MR": "mri"}[modality]] for name in IDS]))
    expected, probabilities = segment_image(state, image, modality, queries, SMALL_WINDOW)
    found = volumes.from_axial(volumes.make_image(result.labels, case.grid), volumes.get_grid(image))
    wanted = np.array([0, *IDS.values()], np.uint8)[sitk.GetArrayFromImage(expected)]
    # Float32 against float64: only voxels within rounding of a boundary may differ.
    rivals = np.sort([*probabilities, np.full(probabilities.shape[1:], 0.5)], axis=0)
    clear = volumes.make_image(turn_axial(rivals[-1] - rivals[-2] > 1e-4).astype(np.uint8), case.grid)
    clear = sitk.GetArrayFromImage(volumes.from_axial(clear, volumes.get_grid(image))) > 0
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found)[clear], wanted[clear])
    for organ, probability in zip(IDS, probabilities, strict=True):
        assert result.probabilities[organ].dtype == np.uint8
        np.testing.assert_allclose(result.probabilities[organ] / 255, turn_axial(probability), atol=0.0025)
    return result


@pytest.mark.parametrize(
    ("shape", "spacing", "modality", "place"),
    [
        ((52, 36, 75), (0.93, 1.1, 2.2), "CT", {"rim": 2}),  # two windows on each axis
        ((20, 36, 75), (0.93, 1.1, 2.2), "MR", {}),
        ((30, 40, 60), (1.3, 0.7, 3.5), "CT", {"code": "SAR"}),
        ((30, 40, 60), (1.3, 0.7, 3.5), "MR", {"code": "PIL", "direction": rotate(17)}),
        ((1, 50, 70), (1.0, 1.0, 8.0), "CT", {}),  # one slice
        ((4, 50, 70), (1.0, 1.0, 1.5), "CT", {}),  # its last slice lies half a voxel beyond SAT's
        ((9, 12, 14), (1.5, 1.5, 3.0), "CT", {"rim": 2}),  # shorter than a window on every axis
    ],
)
def test_masks_are_the_oracles(shape, spacing, modality, place) -> None:
    result = compare_with_oracle(draw_image(shape, spacing, **place), modality, batch=3)
    assert set(np.unique(result.labels)) == {0, 1, 3}
    shared = (result.probabilities["liver"] > 128) & (result.probabilities["spleen"] > 128)
    assert shared.any()  # organs that overlap were settled
    assert (result.slices, result.prompts) == (shape[0], 0)


def test_voxels_go_to_the_higher_probability_above_a_half_and_to_the_first_of_equals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = np.full((1, 1, 5), 5.0)
    case = make_case(sitk.GetImageFromArray(image), "CT")
    segmenter = make_segmenter()
    found = torch.tensor([[0.5, 0.51, 0.7, 0.7, 0.0], [0.5, 0.3, 0.8, 0.7, 0.0]])  # x to the right
    monkeypatch.setattr(segmenter, "_predict", lambda volume, queries: found[:, :, None, None])
    spleen, liver = IDS.values()
    np.testing.assert_array_equal(segmenter.segment(case).labels[0, 0, ::-1], [0, spleen, liver, spleen, 0])


def test_lungs_are_not_drawn_on_mr_and_are_on_ct() -> None:
    texts = {"lung_left": "left lung", "liver": "liver"}
    vectors = draw_vectors(("left lung", "liver"))
    image = draw_image((9, 20, 24), (1.5, 1.5, 3.0))
    segmenter = make_segmenter(vectors=vectors, texts=texts)
    organ_ids = {"lung_left": 2, "liver": 1}
    result = segmenter.segment(make_case(image, "MR", organ_ids))
    assert result.not_drawn == {"lung_left": "SAT was not trained on lungs in MR"}
    assert 2 not in result.labels and set(result.probabilities) == {"liver"}
    assert segmenter.segment(make_case(image, "CT", organ_ids)).not_drawn == {}
    alone = segmenter.segment(make_case(image, "MR", {"lung_left": 2}))
    assert not alone.labels.any() and set(alone.not_drawn) == {"lung_left"}


def test_ct_and_mr_are_cut_at_their_own_levels() -> None:
    image = np.array([-3000.0, 10, 20, 5000, 1, -40]).reshape(1, 1, 6)  # x to the left
    ct = enter_scan(image, (1.0, 1.0, 3.0), "CT")
    # To the right, from the first voxel above 0 to the last: 1, 5000 → 1000, 20, 10.
    kept = np.array([1.0, 1000, 20, 10])
    np.testing.assert_allclose(ct.volume[:, 0, 0], (kept - kept.mean()) / kept.std(), rtol=1e-5)
    mr = enter_scan(image, (1.0, 1.0, 3.0), "MR")
    kept = np.clip([1.0, 5000, 20, 10], *np.percentile([1.0, 5000, 20, 10], [0.5, 99.5]))
    np.testing.assert_allclose(mr.volume[:, 0, 0], (kept - kept.mean()) / kept.std(), rtol=1e-5)


def test_what_lies_outside_the_crop_is_not_drawn() -> None:
    image = np.full((1, 1, 5), -10.0)
    image[0, 0, 1:3] = 5  # of x to the left: the third and second from the right's end
    scan = enter_scan(image, (1.0, 1.0, 3.0), "CT")
    assert scan.volume.shape == (2, 1, 1)
    np.testing.assert_array_equal(scan.bring_back(torch.ones(2, 1, 1))[0, 0], [0, 1, 1, 0, 0])


@pytest.mark.parametrize(
    ("value", "says"),
    [(-5.0, "no voxel of the image is above 0"), (0.0, "no voxel of the image"), (np.nan, "not finite")],
)
def test_an_image_that_sat_cannot_see_is_told(value: float, says: str) -> None:
    image = draw_image((9, 20, 24), (1.5, 1.5, 3.0)) * 0 + value
    with pytest.raises(SegfairError, match=says):
        make_segmenter().segment(make_case(image, "CT"))


def test_a_scan_of_one_grey_has_no_numbers_that_are_not_finite() -> None:
    scan = enter_scan(np.full((2, 3, 4), 7.0), (1.0, 1.0, 3.0), "MR")
    assert not scan.volume.any()


def test_a_scan_without_an_image_is_told() -> None:
    case = make_case(draw_image((9, 20, 24), (1.5, 1.5, 3.0)), "CT")
    with pytest.raises(SegfairError, match="this model needs an image"):
        make_segmenter().segment(ScanCase("s", "s", "CT", case.grid, IDS))


def test_numbers_that_overflow_fail_the_scan() -> None:
    segmenter = make_segmenter()
    segmenter.network.mask_embed_proj[2].bias.data.fill_(torch.inf)
    with pytest.raises(SegfairError, match=r"not finite: set compute\.precision to float32"):
        segmenter.segment(make_case(draw_image((9, 20, 24), (1.5, 1.5, 3.0)), "CT"))


def test_out_of_memory_halves_the_batch_then_fails_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(draw_image((20, 40, 70), (1.0, 1.0, 3.0), rim=1), "CT")
    expected = make_segmenter().segment(case)
    segmenter = make_segmenter(batch=8)
    whole, sizes = segmenter.network.forward, []

    def run_out(inputs: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        if len(inputs) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(inputs, queries)

    monkeypatch.setattr(segmenter.network, "forward", run_out)
    most = 2
    result = segmenter.segment(case)
    # Two windows in x, two in y, one in z: all four, then two, twice.
    assert sizes == [4, 2, 2]
    assert result.batch == segmenter.batch == 2
    np.testing.assert_array_equal(result.labels, expected.labels)
    most = 0
    with pytest.raises(SegfairError, match="cpu has too little memory for one window of SAT"):
        segmenter.segment(case)
    most = 8
    np.testing.assert_array_equal(segmenter.segment(case).labels, expected.labels)


def test_bfloat16_draws_about_the_same() -> None:
    case = make_case(draw_image((20, 40, 70), (1.0, 1.0, 3.0)), "CT")
    exact = make_segmenter().segment(case).probabilities
    rough = make_segmenter(precision="bfloat16").segment(case).probabilities
    for organ in exact:
        difference = np.abs(exact[organ].astype(int) - rough[organ])
        assert 0 < difference.mean() < 10


# --- checkpoints


@pytest.mark.usefixtures("tiny_variants")
def test_a_checkpoint_tells_its_variant(tmp_path: Path) -> None:
    state = draw_tiny()
    path = save_checkpoint(tmp_path / "a.pth", {name: value.half() for name, value in state.items()})
    network = build_sat_from_checkpoint(path)
    assert all(part.dtype == torch.float32 for part in network.parameters()) and not network.training
    with pytest.raises(SegfairError, match=r"a\.pth: does not fit pro: it looks like nano: correct `variant`"):
        build_sat_from_checkpoint(path, "pro")
    pro = save_checkpoint(tmp_path / "b.pth", draw_tiny(size=sat_network.VARIANTS["pro"]))
    build_sat_from_checkpoint(pro, "pro")


def drop(state):
    del state["module.transformer_decoder.norm.bias"]


def add(state):
    state["module.backbone.decoder.seg_layers.0.weight"] = torch.zeros(1)


def reshape(state):
    state["module.projection_layer.2.bias"] = torch.zeros(7)


def spoil(state):
    state["module.mask_embed_proj.0.bias"][0] = torch.nan


def rename(state):
    for name in list(state):
        state[name.replace("backbone.", "trunk.")] = state.pop(name)


@pytest.mark.usefixtures("tiny_variants")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop, r"does not fit nano: .* transformer_decoder\.norm\.bias and 0 more are missing: correct the file"),
        (add, r"backbone\.decoder\.seg_layers\.0\.weight and 0 more are unknown"),
        (reshape, r"projection_layer\.2\.bias and 0 more are of another shape \(\(7,\) in place of \(24,\)\)"),
        (spoil, r"mask_embed_proj\.0\.bias holds values that are not finite"),
        (rename, r"is no SAT of the variants nano and pro \(its first tensor is 'trunk\."),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told_in_one_sentence(tmp_path: Path, change, says: str) -> None:
    state = draw_tiny()
    change(state)
    with pytest.raises(SegfairError, match=says) as raised:
        build_sat_from_checkpoint(save_checkpoint(tmp_path / "sat.pth", state))
    assert "\n" not in str(raised.value)


class Malicious:
    def __reduce__(self):
        return print, ("code of a file was run",)


def test_a_checkpoint_that_could_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model_state_dict": draw_tiny(), "optimizer": Malicious()}, tmp_path / "sat.pth")
    with pytest.raises(SegfairError, match="which could run code"):
        build_sat_from_checkpoint(tmp_path / "sat.pth")
    assert capsys.readouterr().out == ""


# --- the parameter file


def make_study(tmp_path: Path, organ_names=("liver", "spleen"), **model: object) -> Study:
    parameters = {
        "name": "small",
        "cohort": {
            "source": "table",
            "path": "participants.tsv",
            "organs": {organ: {"labels": [number]} for number, organ in enumerate(organ_names, start=1)},
            "attributes": {"sex": {"categories": ["female", "male"]}},
        },
        "models": [{"name": "sat", "kind": "sat", "checkpoint": "sat.pth", "embeddings": "words.npz", **model}],
        "compute": {"workers": 0, "device": "cpu"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return load_study(tmp_path / "study.yaml")


def check(study: Study) -> list[str]:
    return check_model(study.parameters.models[0], study)


def put_files(tmp_path: Path, vectors=None, *, source="0" * 64) -> None:
    save_checkpoint(tmp_path / "sat.pth", draw_tiny())
    vectors = draw_vectors(width=sat_setup.WIDTH) if vectors is None else vectors
    write_embeddings(tmp_path / "words.npz", vectors, text_checkpoint_sha256=source)


def test_embeddings_are_read_as_they_were_written(tmp_path: Path) -> None:
    vectors = draw_vectors(("liver", "left kidney"))
    write_embeddings(tmp_path / "a.npz", vectors, text_checkpoint_sha256="abc")
    found = read_embeddings(tmp_path / "a.npz")
    assert found.text_checkpoint_sha256 == "abc"
    assert list(found.vectors) == list(vectors)
    for pair in vectors:
        np.testing.assert_array_equal(found.vectors[pair], vectors[pair])
        assert found.vectors[pair].dtype == np.float32


def test_a_right_study_has_no_problem_and_says_what_sat_does_not_draw(tmp_path: Path) -> None:
    # A vector of lungs in MR is not asked for.
    vectors = {**draw_vectors(width=768), **draw_vectors(("left lung",), ("ct",), width=768)}
    put_files(tmp_path, vectors)
    study = make_study(tmp_path, ("liver", "spleen", "lung_left"), texts={"lung_left": "Left lung"})
    assert check(study) == []
    assert describe_model(study.parameters.models[0], study) == [
        "models.sat: lung_left: not drawn on MR scans and not scored there: SAT was not trained on lungs in MR"
    ]
    assert describe_model((plain := make_study(tmp_path)).parameters.models[0], plain) == []
    spec = make_spec(study.parameters.models[0], study)
    assert spec.options.texts == {"liver": "liver", "spleen": "spleen", "lung_left": "left lung"}
    assert spec.checkpoint == tmp_path / "sat.pth"


@pytest.mark.parametrize(
    ("model", "organs", "says"),
    [
        ({"checkpoint": None}, ("liver",), "models.sat.checkpoint is missing: sat needs the file of weights"),
        ({"checkpoint": "no.pth"}, ("liver",), "no.pth: put the weights exactly there or correct the path"),
        ({"embeddings": "no.npz"}, ("liver",), "no.npz: is missing, damaged or no file of words' vectors"),
        ({"embeddings": "sat.pth"}, ("liver",), "is missing, damaged or no file of words' vectors"),
        (
            {"embeddings": "no.npz", "texts": {"kidney_left": "left kidney"}},
            ("liver", "kidney_left"),
            "`segfair checkpoints embed no.npz 'left kidney' liver --encoder",
        ),
        ({}, ("liver", "kidney_left"), "lacks 'kidney left' (ct), 'kidney left' (mri); it holds liver, spleen: corr"),
        ({"texts": {"kidny": "kidney"}}, ("liver",), "models.sat.texts: kidny: no organ of the study; it has liver"),
        ({"variant": "large"}, ("liver",), "models.sat.variant: must be one of nano, pro; got 'large'"),
        ({"organs": {"liver": {"labels": [1]}}}, ("liver",), "models.sat.organs: sat has no labels of its own"),
    ],
)
def test_a_wrong_study_has_one_problem_that_says_what_to_do(tmp_path: Path, model, organs, says) -> None:
    put_files(tmp_path)
    problems = check(make_study(tmp_path, organs, **model))
    assert len(problems) == 1
    assert says in problems[0]
    assert "\n" not in problems[0]


def test_vectors_of_another_length_or_encoder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_files(tmp_path, draw_vectors(width=512))
    (problem,) = check(make_study(tmp_path))
    assert "must hold 768 numbers a word" in problem
    # Vectors of the text encoder of 2025 with a checkpoint that is known to be older.
    put_files(tmp_path, source=sat_setup._ENCODER_OF_2025)
    assert check(make_study(tmp_path)) == []
    digest = sat_setup.storage.hash_file(tmp_path / "sat.pth")
    monkeypatch.setitem(sat_setup._CHECKPOINTS_BEFORE, digest, "nano.pth")
    (problem,) = check(make_study(tmp_path))
    assert "made with the text encoder of nano_cvpr25_v0.pth, and the checkpoint is nano.pth" in problem


def test_a_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers.models import registry

    put_files(tmp_path)
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    (problem,) = check(make_study(tmp_path))
    assert problem.endswith("sat needs dynamic_network_architectures: run pip install 'segfair[sat]'")


def test_checking_a_study_imports_no_torch() -> None:
    code = "import sys, helpers.models.sat_setup; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_list_of_kinds_says_what_to_clear() -> None:
    assert "no licence" in KINDS["sat"].description
    assert "experimental" in KINDS["sat"].description


# --- a study


@pytest.mark.usefixtures("tiny_variants")
def test_a_study_runs_and_is_made_anew_when_words_or_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpers.models.sat.WINDOW", SMALL_WINDOW)
    names = ("liver", "lung")
    put_files(tmp_path, draw_vectors(names))
    rows = []
    for number, (scan, modality, code) in enumerate((("a", "CT", "LPS"), ("b", "MR", "SAR"), ("c", "CT", "LPS")), 1):
        image = draw_image((9, 20, 24), (1.5, 1.5, 3.0), code=code, seed=number)
        if scan == "c":
            image = image * 0 - 5  # nothing above 0: it fails alone
        mask = sitk.GetArrayFromImage(volumes.to_axial(image)) * 0
        mask[3:6, 5:9, 5:9], mask[3:6, 5:9, 14:18] = 1, 2
        reference = volumes.from_axial(
            volumes.make_image(mask.astype(np.uint8), volumes.get_grid(volumes.to_axial(image))),
            volumes.get_grid(image),
        )
        volumes.write_volume(image, tmp_path / f"{scan}.nii.gz")
        volumes.write_volume(reference, tmp_path / f"{scan}_mask.nii.gz")
        rows.append(
            {
                "subject": scan, "scan": scan, "number": number, "sex": "female", "age": 50.0, "bmi": 22.0,
                "modality": modality, "reference": str(tmp_path / f"{scan}_mask.nii.gz"),
                "image": str(tmp_path / f"{scan}.nii.gz"), "included": True, "reason": "", "note": "",
            }
        )  # fmt: skip
    study = make_study(tmp_path, names)
    study.folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(study.path("cohort"))

    table = inference.run_inference(study).set_index("scan")
    assert table["status"].to_dict() == {"a": "ok", "b": "ok", "c": "failed"}
    assert "no voxel of the image is above 0" in table.loc["c", "error"]
    organs = inference.read_organs(study).set_index(["scan", "organ"])
    assert organs.loc[("b", "lung"), "not_drawn"] == "SAT was not trained on lungs in MR"
    assert np.isnan(organs.loc[("b", "lung"), "dice"])
    assert organs.loc[("a", "lung"), "not_drawn"] == ""
    for scan in ("a", "b"):
        path = study.prediction_path("sat", scan)
        assert not volumes.read_grid(path).differences(volumes.read_grid(tmp_path / f"{scan}.nii.gz"))
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).any()

    assert list_reused(study) == ["a", "b"]
    # Another word beside those that are asked for changes nothing; another vector of one does.
    put_files(tmp_path, {**draw_vectors(names), **draw_vectors(("spleen",))})
    assert list_reused(study) == ["a", "b"]
    put_files(tmp_path, draw_vectors(names, seed=6))
    assert list_reused(study) == []
    assert list_reused(study) == ["a", "b"]
    save_checkpoint(tmp_path / "sat.pth", draw_tiny(seed=4))
    assert list_reused(study) == []


def list_reused(study: Study) -> list[str]:
    table = inference.run_inference(study)
    return table.loc[table["reused"], "scan"].tolist()


# --- words to vectors


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A text encoder as published, small: a folder of transformers with config and tokenizer."""
    declare_missing_operators()
    from transformers import MPNetConfig

    folder = tmp_path / "encoder"
    folder.mkdir()
    words = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", "liver", "left", "kid", "##ney"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True, "model_max_length": 32}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    MPNetConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, vocab_size=len(words),
        max_position_embeddings=40,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def draw_text_state(folder: Path) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A tower with random weights, and SAT's file of it: projection and modalities beside."""
    from transformers import AutoModel, MPNetConfig

    torch.manual_seed(2)
    tower = AutoModel.from_config(MPNetConfig.from_pretrained(folder)).eval()
    state = {f"module.tower.{name}": value for name, value in tower.state_dict().items()}
    state["module.tower.embeddings.position_ids"] = torch.arange(40)[None]  # of older transformers
    state["module.proj.0.weight"], state["module.proj.0.bias"] = torch.randn(16, 16), torch.randn(16)
    state["module.proj.2.weight"], state["module.proj.2.bias"] = torch.randn(16, 16), torch.randn(16)
    state["module.modality.weight"] = torch.randn(4, 16)
    state["module.temperature"] = torch.tensor(0.07)
    return tower, state


def test_words_become_vectors_of_the_published_encoder(tmp_path: Path, encoder: Path) -> None:
    tower, state = draw_text_state(encoder)
    save_checkpoint(tmp_path / "text.pth", state)
    arguments = ["checkpoints", "embed", str(tmp_path / "words.npz"), "Liver", "left kidney"]
    result = CliRunner().invoke(app, [*arguments, "--encoder", str(encoder), "--weights", str(tmp_path / "text.pth")])
    assert result.exit_code == 0, result.output
    found = read_embeddings(tmp_path / "words.npz")
    assert set(found.vectors) == {(name, kind) for name in ("liver", "left kidney") for kind in ("ct", "mri")}
    assert found.text_checkpoint_sha256 == hashlib.sha256((tmp_path / "text.pth").read_bytes()).hexdigest()
    # By hand: <s> left kid ##ney </s> are tokens 0 7 8 9 2.
    for name, tokens in (("liver", [0, 6, 2]), ("left kidney", [0, 7, 8, 9, 2])):
        with torch.no_grad():
            states = tower(input_ids=torch.tensor([tokens])).last_hidden_state[0].double().numpy()
        hidden = states.mean(0) @ state["module.proj.0.weight"].double().numpy().T
        hidden = hidden + state["module.proj.0.bias"].numpy()
        hidden = np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in hidden])
        vector = hidden @ state["module.proj.2.weight"].double().numpy().T + state["module.proj.2.bias"].numpy()
        for row, kind in enumerate(("ct", "mri")):
            expected = vector + state["module.modality.weight"][row].numpy()
            np.testing.assert_allclose(found.vectors[name, kind], expected, rtol=1e-4, atol=1e-5)


def lose_modality(state):
    del state["module.modality.weight"]


def add_layer(state):
    state["module.proj.4.weight"] = torch.zeros(16, 16)


def lose_tower(state):
    for name in [name for name in state if "tower" in name]:
        del state[name]


def lose_part(state):
    del state["module.tower.encoder.layer.1.output.dense.bias"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lose_modality, "beside its tower it must hold two linear layers and a vector for each of 4 modalities"),
        (add_layer, "beside its tower it must hold two linear layers"),
        (lose_tower, "text.pth: is no text encoder of SAT"),
        (lose_part, "encoder.layer.1.output.dense.bias and 0 more are missing: correct one of the two"),
    ],
)
def test_a_text_encoder_that_does_not_fit_is_told(tmp_path: Path, encoder: Path, change, says: str) -> None:
    _, state = draw_text_state(encoder)
    change(state)
    save_checkpoint(tmp_path / "text.pth", state)
    with pytest.raises(SegfairError, match=re.escape(says)):
        embed_texts(["liver"], encoder, tmp_path / "text.pth", tmp_path / "words.npz")
    assert not (tmp_path / "words.npz").exists()


def test_what_is_missing_for_embedding_is_told(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SegfairError, match="must be the folder of BioLORD-2023-C"):
        embed_texts(["liver"], tmp_path / "none", tmp_path / "text.pth", tmp_path / "words.npz")
    save_checkpoint(tmp_path / "text.pth", draw_text_state(encoder)[1])
    with pytest.raises(SegfairError, match="its tokenizer does not know 'spleen'"):
        embed_texts(["liver", "spleen"], encoder, tmp_path / "text.pth", tmp_path / "words.npz")
    (encoder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(SegfairError, match="cannot be opened as a text encoder"):
        embed_texts(["liver"], encoder, tmp_path / "text.pth", tmp_path / "words.npz")
    (encoder / "vocab.txt").unlink()
    with pytest.raises(SegfairError, match="must be the folder of BioLORD-2023-C"):
        embed_texts(["liver"], encoder, tmp_path / "text.pth", tmp_path / "words.npz")
    with pytest.raises(SegfairError, match=r"must end in \.npz"):
        embed_texts(["liver"], encoder, tmp_path / "text.pth", tmp_path / "words.json")
    monkeypatch.setattr("helpers.models.sat_text.find_spec", lambda name: None)
    with pytest.raises(SegfairError, match=r"pip install 'segfair\[sat\]'"):
        embed_texts(["liver"], encoder, tmp_path / "text.pth", tmp_path / "words.npz")
