"""VoxTell: the right words, the right way round, the masks of its own package, and no downloads."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.errors import SegfairError
from helpers.models import ScanCase, check_model, describe_model, make_spec
from helpers.models.protocol import Spec
from helpers.models.torchvision_fix import declare_missing_operators
from helpers.models.voxtell import VoxtellSegmenter, load
from helpers.models.voxtell_setup import WIDTH, VoxtellOptions
from helpers.volumes import Grid
from tests.offline import offline, one_thread  # noqa: F401
from tests.test_models_registry import make_study

SHAPE = (9, 14, 20)
STAGES = 6
PLANS = {
    "configurations": {
        "3d_fullres": {
            "patch_size": [64, 64, 64],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
                "arch_kwargs": {
                    "n_stages": STAGES,
                    "features_per_stage": [8, 8, 8, 8, 8, 8],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[3, 3, 3]] * STAGES,
                    "strides": [[1, 1, 1]] + [[2, 2, 2]] * (STAGES - 1),
                    "n_blocks_per_stage": [1] * STAGES,
                    "n_conv_per_stage_decoder": [1] * (STAGES - 1),
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    }
}


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> type:
    """VoxTell's own classes with narrow layers: the widths are no part of plans.json."""
    declare_missing_operators()
    from voxtell.inference import predictor
    from voxtell.model.voxtell_model import VoxTellModel

    class Narrow(VoxTellModel):
        DECODER_CONFIGS = {  # noqa: RUF012
            stage: {"channels": 8, "shape": (64 // 2**stage,) * 3} for stage in range(STAGES)
        }

        def __init__(self, **kwargs: object) -> None:
            super().__init__(**kwargs | {"query_dim": 48, "project_to_decoder_hidden_dim": 48, "num_heads": 2})

    monkeypatch.setattr(predictor, "VoxTellModel", Narrow)
    return Narrow


@functools.cache
def draw_weights(network: type) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    kwargs = dict(PLANS["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"])
    kwargs |= {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    return network(input_channels=1, **kwargs, text_embedding_dim=WIDTH, deep_supervision=False).state_dict()


def write_folder(folder: Path, network: type, **checkpoint: object) -> Path:
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(PLANS), encoding="utf-8")
    content = {"network_weights": draw_weights(network), "init_args": {}, "_best_ema": np.float64(0.5)}
    torch.save(content | checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def write_bank(path: Path, *labels: str, width: int = WIDTH) -> Path:
    vectors = np.random.default_rng(5).normal(size=(len(labels), width)).astype(np.float16)
    np.savez(path, labels=np.array(labels), embeddings=vectors)
    return path


@pytest.fixture
def files(tmp_path: Path, small_network: type) -> tuple[Path, Path]:
    return (
        write_folder(tmp_path / "voxtell_v1.1", small_network),
        write_bank(tmp_path / "bank.npz", "Liver", "spleen", "left kidney", "kidneys"),
    )


def make_case(rng: np.random.Generator, **organ_ids: int) -> ScanCase:
    grid = Grid(SHAPE[::-1], (1.5, 1.5, 3.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    return ScanCase("s", "s", "CT", grid, organ_ids, image=rng.normal(0, 100, SHAPE).astype(np.float32))


def open_files(files: tuple[Path, Path], *texts: tuple[str, str]) -> VoxtellSegmenter:
    return load(Spec("m", "voxtell", {}, device="cpu", options=VoxtellOptions(*files, texts)))


@pytest.mark.parametrize("rim", [0, 3])
def test_masks_are_those_of_the_package(files: tuple[Path, Path], rng: np.random.Generator, rim: int) -> None:
    from voxtell.inference.predictor import VoxTellPredictor

    case = make_case(rng, liver=3, spleen=5)
    case.image[:, :, :rim] = 0  # cropped away before the network sees it
    result = open_files(files, ("liver", "liver"), ("spleen", "spleen")).segment(case)
    official = VoxTellPredictor(str(files[0]), torch.device("cpu"), embedding_bank=str(files[1]))
    masks = official.predict_single_image(case.image[None, :, ::-1, ::-1].copy(), ["liver", "spleen"])[:, :, ::-1, ::-1]
    assert 0 < masks.sum() < masks.size
    np.testing.assert_array_equal(result.labels > 0, masks.any(axis=0))
    for mask, organ_id in zip(masks, (3, 5), strict=True):
        assert not (mask == 0)[result.labels == organ_id].any()
        assert (result.labels[(mask > 0) & (masks.sum(axis=0) == 1)] == organ_id).all()


class Answer:
    """A predictor whose logits are given, for the voxels of a turned image."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits
        self.seen: np.ndarray | None = None

    def embed_text_prompts(self, texts: list[str]) -> list[str]:
        return texts

    def preprocess(self, image: np.ndarray) -> tuple:
        self.seen = image
        return image, [[0, size] for size in image.shape], image.shape

    def predict_sliding_window_return_logits(self, image: np.ndarray, texts: list[str]) -> torch.Tensor:
        return torch.from_numpy(self.logits.astype(np.float16))


def test_the_image_is_turned_to_the_right_and_front_and_overlaps_go_to_the_higher_logit(
    rng: np.random.Generator,
) -> None:
    case = make_case(rng, spleen=5, liver=3, lung=7)
    logits = np.full((2, *SHAPE), -1.0)
    logits[:, 2, 3, 4] = (1.0, 2.0)
    logits[:, 2, 3, 5] = (2.0, 1.0)
    logits[0, 2, 3, 6] = 0.5
    answer = Answer(logits)
    result = VoxtellSegmenter(answer, {"spleen": "spleen", "liver": "liver"}, "cpu").segment(case)
    np.testing.assert_array_equal(answer.seen, case.image[:, ::-1, ::-1])
    expected = np.zeros(SHAPE, np.uint8)
    expected[2, 14 - 1 - 3, [20 - 1 - 4, 20 - 1 - 5, 20 - 1 - 6]] = (3, 5, 5)
    np.testing.assert_array_equal(result.labels, expected)
    assert result.prompts == 0


def test_scans_that_cannot_be_segmented(rng: np.random.Generator) -> None:
    class Full(Answer):
        def predict_sliding_window_return_logits(self, image: np.ndarray, texts: list[str]) -> torch.Tensor:
            raise torch.OutOfMemoryError("no room")

    case = make_case(rng, liver=3)
    segmenter = VoxtellSegmenter(Full(np.zeros(1)), {"liver": "liver"}, "cpu")
    with pytest.raises(SegfairError, match="cpu has too little memory for this scan and 1 organs"):
        segmenter.segment(case)
    with pytest.raises(SegfairError, match="needs an image"):
        segmenter.segment(replace(case, image=None))
    with pytest.raises(SegfairError, match="one value throughout"):
        segmenter.segment(replace(case, image=np.zeros(SHAPE, np.float32)))


def test_the_words_of_the_parameter_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    def make(organs: tuple[str, ...] = ("liver",), **model: object) -> tuple:
        named = {"folder": str(files[0]), "embeddings": str(files[1])} | model
        listed = {organ: {"labels": [place + 1]} for place, organ in enumerate(organs)}
        study = make_study(tmp_path, {"name": "m", "kind": "voxtell", **named}, organs=listed)
        return study.parameters.models[0], study

    model, study = make(("kidney_left", "liver"))
    assert check_model(model, study) == []
    assert describe_model(model, study) == ["models.m: asked for kidney_left as 'left kidney', liver"]
    spec = make_spec(model, study)
    assert spec.options.texts == (("kidney_left", "left kidney"), ("liver", "liver"))
    assert spec.depends_on["texts"] == {"liver": "liver", "kidney_left": "left kidney"}
    assert set(spec.depends_on["files"]) == {"plans.json", "fold_0/checkpoint_final.pth", "embeddings"}
    assert check_model(*make(("kidney",), texts={"kidney": "Kidneys"})) == []
    (problem,) = check_model(*make(("kidney",)))
    assert "models.m.texts.kidney: the file of embeddings has no 'kidney': name one of its 4 texts, such as" in problem
    assert "kidneys" in problem
    (problem,) = check_model(*make(texts={"heart": "liver"}))
    assert problem == "models.m.texts.heart: the study has no such organ: remove it"
    (problem,) = check_model(*make(embeddings="nowhere.npz"))
    assert "there is no file" in problem
    assert "text_embeddings.npz" in problem
    (tmp_path / "no.npz").write_bytes(b"text")
    (problem,) = check_model(*make(embeddings="no.npz"))
    assert "is no file of embeddings" in problem
    write_bank(tmp_path / "narrow.npz", "liver", width=768)
    (problem,) = check_model(*make(embeddings="narrow.npz"))
    assert "must hold 2560 numbers for each of its 1 texts; it has the shape (1, 768)" in problem
    (files[0] / "plans.json").unlink()
    (problem,) = check_model(*make())
    assert "models.m.folder: " in problem
    assert "holds no plans.json" in problem


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch pwned",)


def test_files_that_cannot_be_loaded(
    files: tuple[Path, Path], small_network: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = write_folder(tmp_path / "bad", small_network, extra=Malicious())
    with pytest.raises(SegfairError, match=r"asks for \w+\.system beside tensors"):
        open_files((bad, files[1]), ("liver", "liver"))
    assert not (tmp_path / "pwned").exists()
    weights = dict(draw_weights(small_network))
    weights.pop(next(iter(weights)))
    other = write_folder(tmp_path / "other", small_network, network_weights=weights)
    with pytest.raises(SegfairError, match=r"does not fit plans\.json, or is not VoxTell's"):
        open_files((other, files[1]), ("liver", "liver"))
