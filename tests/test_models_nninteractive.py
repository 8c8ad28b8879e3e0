"""nnInteractive: asked in the right voxels, with the masks of its own package, and nothing run from
its files."""

from __future__ import annotations

import copy
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import inference
from helpers.errors import SegfairError
from helpers.models import ScanCase, check_model, describe_model, make_spec
from helpers.models.nninteractive import choose_prompts, load
from helpers.models.protocol import Spec
from helpers.models.torchvision_fix import declare_missing_operators
from helpers.prompts import Prompts
from helpers.volumes import Grid
from tests.offline import offline, one_thread  # noqa: F401
from tests.test_inference import MakeStudy, draw_labels, read_labels
from tests.test_inference import make_study as make_cohort  # noqa: F401
from tests.test_models_registry import make_study

SHAPE = (12, 20, 28)
PLANS = {
    "dataset_name": "Dataset999_Tiny",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "label_manager": "LabelManager",
    "configurations": {
        "3d_fullres": {
            "data_identifier": "tiny",
            "patch_size": [16, 24, 32],
            "spacing": [1.0, 1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 2,
                    "features_per_stage": [8, 8],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                    "strides": [[1, 1, 1], [2, 2, 2]],
                    "n_conv_per_stage": [1, 1],
                    "n_conv_per_stage_decoder": [1],
                    "conv_bias": True,
                    "norm_op": None,
                    "norm_op_kwargs": None,
                    "nonlin": "torch.nn.ReLU",
                    "nonlin_kwargs": {},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
            },
        }
    },
}


def draw_network() -> dict[str, torch.Tensor]:
    """Weights of a network that answers with its prompts: object where one includes, less where one
    excludes. Channels: image, former mask, box in, box out, points in, points out, scribbles."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    kwargs = copy.deepcopy(PLANS["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"])
    kwargs |= {"conv_op": torch.nn.Conv3d, "norm_op": None, "nonlin": torch.nn.ReLU}
    network = PlainConvUNet(input_channels=8, num_classes=2, deep_supervision=False, **kwargs)
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for name, value in state.items():
        if name.endswith("weight") and "encoder.stages.0" in name:
            for channel in range(8):
                value[channel, channel, 1, 1, 1] = 1  # each channel passes
        if name.endswith("weight") and "decoder.stages.0" in name:
            for channel in range(8):
                value[channel, 8 + channel, 1, 1, 1] = 1  # past what comes from below
    head = next(name for name in state if name.endswith("seg_layers.0.weight"))
    state[head][1, [1, 2, 4]] = 1
    state[head][1, [3, 5]] = -2
    state[head.replace("weight", "bias")][0] = 0.01
    return state


def write_folder(folder: Path, **checkpoint: object) -> Path:
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(PLANS), encoding="utf-8")
    dataset = {"channel_names": {"0": "image"}, "labels": {"background": 0, "object": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    (folder / "inference_info.json").write_text('{"point_radius": 2}', encoding="utf-8")
    (folder / "LICENSE").write_text("CC BY-NC-SA 4.0\nhttps://creativecommons.org", encoding="utf-8")
    content = {
        "network_weights": draw_network(),
        "init_args": {"configuration": "3d_fullres"},
        "trainer_name": "nnInteractiveTrainer_stub",
        "_best_ema": np.float64(0.5),  # as nnU-Net saves it
    }
    torch.save(content | checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("nninteractive") / "nnInteractive_v1.0")


def open_folder(folder: Path) -> object:
    return load(Spec("m", "nninteractive", {}, device="cpu", options=folder))


def make_case(rng: np.random.Generator, prompts: dict[str, Prompts]) -> ScanCase:
    image = rng.normal(0, 100, SHAPE).astype(np.float32)
    grid = Grid(SHAPE[::-1], (1.0, 1.0, 3.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    return ScanCase("s", "s", "CT", grid, {"liver": 3, "spleen": 5}, prompts, image=image)


BOXES = Prompts(np.array([3, 4, 5, 9]), np.array([[4.0, 5, 9, 11], [3.6, 4, 10.4, 12], [5, 5, 9, 11], [20, 2, 25, 6]]))


def test_the_largest_box_of_each_component_is_given_in_its_slice(
    folder: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture
) -> None:
    case = make_case(rng, {"liver": BOXES})
    result = open_folder(folder).segment(case)
    expected = np.zeros(SHAPE, np.uint8)
    expected[4, 4:12, 4:10] = 3
    expected[9, 2:6, 20:25] = 3
    np.testing.assert_array_equal(result.labels, expected)
    assert (result.prompts, result.not_drawn) == (2, {})
    assert result.drawn == {"liver": 2}  # of four boxes one for each component
    assert capsys.readouterr().out == ""


def test_organs_and_draws_know_nothing_of_one_another(folder: Path, rng: np.random.Generator) -> None:
    spleen = Prompts(np.array([4]), np.array([[8.0, 8, 16, 18]]))
    case = make_case(rng, {"spleen": spleen, "liver": BOXES})
    result = open_folder(folder).segment(replace(case, repeats=({"liver": BOXES},)))
    assert result.labels[4, 9, 9] == 3  # both claim it, liver is first in the study
    assert result.labels[4, 15, 12] == 5
    assert (result.labels == 3).sum() == 8 * 6 + 4 * 5
    assert set(np.unique(result.repeats[0])) == {0, 3}


def test_points_include_and_exclude(folder: Path, rng: np.random.Generator) -> None:
    points = np.array([[[6.0, 7], [20, 12], [1, 1]]])
    one = Prompts(np.array([5]), points=points, labels=np.array([[1, 0, -1]]))
    result = open_folder(folder).segment(make_case(rng, {"liver": one}))
    assert result.labels[5, 7, 6] == 3
    assert result.labels[5, 12, 20] == 0
    assert result.labels[1:, :, 12:].sum() == 0
    assert result.prompts == 2


def test_masks_are_those_of_the_package(folder: Path, rng: np.random.Generator) -> None:
    declare_missing_operators()
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

    torch.manual_seed(3)
    weights = {name: value + 0.03 * torch.randn_like(value) for name, value in draw_network().items()}
    other = write_folder(folder.parent / "noisy", network_weights=weights)
    case = make_case(rng, {"liver": Prompts(np.array([4]), np.array([[4.0, 4, 16, 14]]))})
    session = nnInteractiveInferenceSession(device=torch.device("cpu"), torch_n_threads=1)
    session.initialize_from_trained_model_folder(str(other), 0)
    session.set_image(case.image[None], {})
    session.set_target_buffer(np.zeros(SHAPE, np.uint8))
    session.add_bbox_interaction([[4, 5], [4, 14], [4, 16]], include_interaction=True)
    expected = session.target_buffer
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(open_folder(other).segment(case).labels == 3, expected > 0)


def test_one_prompt_for_each_component_largest_first() -> None:
    chosen = choose_prompts(BOXES)
    assert [int(prompt.slices[0]) for prompt in chosen] == [4, 9]
    points = Prompts(
        np.array([1, 2, 2, 6]),
        points=np.arange(8.0).reshape(4, 1, 2),
        labels=np.ones((4, 1), np.int64),
    )
    (only,) = choose_prompts(points)
    assert int(only.slices[0]) == 2
    np.testing.assert_array_equal(only.points, [[[2, 3], [4, 5]]])
    assert choose_prompts(Prompts(np.array([], np.int64))) == []


def test_scans_that_cannot_be_asked_about(folder: Path, rng: np.random.Generator) -> None:
    segmenter = open_folder(folder)
    case = make_case(rng, {"liver": BOXES})
    with pytest.raises(SegfairError, match="needs an image"):
        segmenter.segment(replace(case, image=None))
    with pytest.raises(SegfairError, match="one value throughout"):
        segmenter.segment(replace(case, image=np.zeros(SHAPE, np.float32)))


def test_the_parameter_file_and_its_folder(folder: Path, tmp_path: Path) -> None:
    def make(name: str, **model: object) -> tuple:
        study = make_study(tmp_path, {"name": "m", "kind": "nninteractive", "folder": name, **model})
        return study.parameters.models[0], study

    model, study = make(str(folder))
    assert check_model(model, study) == []
    assert describe_model(model, study) == ["models.m: weights under CC BY-NC-SA 4.0, as the folder's LICENSE says"]
    spec = make_spec(model, study)
    assert set(spec.depends_on["files"]) >= {"plans.json", "inference_info.json", "fold_0/checkpoint_final.pth"}
    (problem,) = check_model(*make("nowhere"))
    assert "models.m.folder: there is no folder" in problem
    half = tmp_path / "half"
    half.mkdir()
    (problem,) = check_model(*make("half"))
    assert "holds no plans.json: it was unpacked in part" in problem
    (half / "plans.json").write_text(json.dumps(PLANS), encoding="utf-8")
    (problem,) = check_model(*make("half"))
    assert "holds 0 files fold_" in problem
    written = write_folder(tmp_path / "whole")
    (written / "inference_info.json").unlink()
    (problem,) = check_model(*make("whole"))
    assert "holds no inference_info.json" in problem
    foreign = copy.deepcopy(PLANS)
    foreign["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["nonlin"] = "os.system"
    (written / "plans.json").write_text(json.dumps(foreign), encoding="utf-8")
    (problem,) = check_model(*make("whole"))
    assert "plans.json asks for os.system" in problem


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch pwned",)


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "bad", extra=Malicious())
    with pytest.raises(SegfairError, match=r"asks for \w+\.system beside tensors"):
        open_folder(folder)
    assert not (tmp_path / "pwned").exists()
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(pickle.dumps(3))
    with pytest.raises(SegfairError, match="damaged or cut short"):
        open_folder(folder)


def test_a_study_is_run_and_made_anew_where_the_folder_changed(make_cohort: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    written = write_folder(tmp_path / "mine")
    study = make_cohort([{"name": "m", "kind": "nninteractive", "folder": str(written), "prompt": {"jitter": 0.0}}])
    table = inference.run_inference(study)
    assert list(table["status"]) == ["ok"] * 3, list(table["error"])
    organs = inference.read_organs(study)  # five boxes of each organ, one of which a person would draw
    assert set(organs["prompts"]) == {5} and set(organs["drawn"]) == {1}
    expected = np.zeros_like(draw_labels())
    expected[1] = draw_labels()[1]  # the organs' first slice is as large as any
    for scan in ("a1", "b2", "c3"):  # b2's file has its axes in another order
        np.testing.assert_array_equal(read_labels(study.prediction_path("m", scan)), expected)
    assert inference.run_inference(study)["reused"].all()
    (written / "inference_info.json").write_text('{"point_radius": 3}', encoding="utf-8")
    assert not inference.run_inference(study)["reused"].any()


def test_a_checkpoint_of_other_plans_is_refused(tmp_path: Path) -> None:
    weights = draw_network()
    weights.pop(next(iter(weights)))
    with pytest.raises(SegfairError, match=r"does not fit plans\.json: .* and 0 more are missing"):
        open_folder(write_folder(tmp_path / "other", network_weights=weights))
