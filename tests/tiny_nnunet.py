"""A tiny nnU-Net in the official layout, trained in seconds on bodies whose liver and spleen look
alike: only the side tells them apart, so that an image shown in another order is noticed."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

NAME = "nnUNetTrainer__nnUNetPlans__3d_fullres"
SHAPE = (20, 28, 32)  # z, y, x of the patch
SPACING_ZYX_MM = (5.0, 4.0, 4.0)
LABELS = {"background": 0, "liver": 1, "spleen": 2}
MIRRORED = (0, 1)  # up and down, front and back: left and right must stay apart
_MEAN_HU, _STD_HU = 40.0, 60.0


def make_plans(reader: str = "NibabelIOWithReorient", **configuration: Any) -> dict[str, Any]:
    """Return plans.json of the network; further keys replace those of its configuration."""
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset998_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(SPACING_ZYX_MM),
        "original_median_shape_after_transp": list(SHAPE),
        "image_reader_writer": reader,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(SHAPE),
                "median_image_size_in_voxels": list(SHAPE),
                "spacing": list(SPACING_ZYX_MM),
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {**resampling, "order": 3},
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resampling,
                "batch_dice": False,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": 3,
                        "features_per_stage": [6, 12, 24],
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3]] * 3,
                        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
                        "n_conv_per_stage": [1, 1, 1],
                        "n_conv_per_stage_decoder": [1, 1],
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
                **configuration,
            }
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 300.0,
                "mean": _MEAN_HU,
                "median": _MEAN_HU,
                "min": -200.0,
                "percentile_00_5": -150.0,
                "percentile_99_5": 250.0,
                "std": _STD_HU,
            }
        },
    }


def build_network(plans: Mapping[str, Any], heads: int = 3) -> torch.nn.Module:
    """Build the architecture of plans, by its own class."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    architecture = copy.deepcopy(plans["configurations"]["3d_fullres"]["architecture"])
    kwargs = architecture["arch_kwargs"]
    kwargs |= {
        "conv_op": torch.nn.Conv3d,
        "norm_op": torch.nn.InstanceNorm3d,
        "dropout_op": None,
        "nonlin": torch.nn.LeakyReLU,
    }
    return PlainConvUNet(input_channels=1, num_classes=heads, deep_supervision=False, **kwargs)


def draw_body(
    rng: np.random.Generator,
    shape: Sequence[int] = SHAPE,
    spacing_zyx_mm: Sequence[float] = SPACING_ZYX_MM,
) -> tuple[np.ndarray, np.ndarray]:
    """Return intensities (HU, float32) and labels (uint8), (z, y, x), in the order RAS: z grows to
    the head, y to the front, x to the person's right."""
    z, y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_zyx_mm, strict=True)), indexing="ij"
    )
    image = np.full(tuple(shape), -1000.0, np.float32)
    image[(y / 50) ** 2 + (x / 58) ** 2 < 1] = 20.0
    image[((y + 15) / 30) ** 2 + (x / 8) ** 2 < 1] = 240.0  # a spine, on whose sides the organs lie
    labels = np.zeros(tuple(shape), np.uint8)
    for label, side in ((1, 1), (2, -1)):  # in RAS x grows to the right
        centre = rng.normal((0, 0, side * 28), (6, 5, 2))
        radii = rng.uniform(0.85, 1.15, 3) * (26, 20, 17)
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii, strict=True))
        labels[distance < 1] = label
    image[labels > 0] = 110.0
    return image + rng.normal(0, 12, image.shape).astype(np.float32), labels


@cache
def train(seed: int = 0, iterations: int = 90) -> Mapping[str, torch.Tensor]:
    """Train the network on bodies of its own spacing; the state dict, float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network waits for its threads
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    bodies = [draw_body(rng) for _ in range(6)]
    images = torch.from_numpy(np.stack([np.clip(image, -150, 250) for image, _ in bodies]))[:, None]
    images = (images - _MEAN_HU) / _STD_HU
    labels = torch.from_numpy(np.stack([label for _, label in bodies])).long()
    network = build_network(make_plans())
    network.apply(network.initialize)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(iterations):
        chosen = rng.choice(len(bodies), 2, replace=False)
        axes = [axis for axis in MIRRORED if rng.random() < 0.5]
        answer = network(torch.flip(images[chosen], [axis + 2 for axis in axes]))
        loss = torch.nn.functional.cross_entropy(
            answer, torch.flip(labels[chosen], [axis + 1 for axis in axes]), weight=torch.tensor([0.3, 1.0, 1.0])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.set_num_threads(threads)
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def write_model(
    folder: Path,
    states: Mapping[str, Mapping[str, torch.Tensor]],
    plans: Mapping[str, Any],
    labels: Mapping[str, Any] = LABELS,
    **dataset: Any,
) -> Path:
    """Write plans.json, dataset.json and a checkpoint per fold, as nnU-Net's trainer does."""
    content = {
        "channel_names": {"0": "CT"},
        "labels": dict(labels),
        "numTraining": 6,
        "file_ending": ".nii.gz",
        **dataset,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    for fold, state in states.items():
        checkpoint = {
            "network_weights": dict(state),
            "optimizer_state": None,
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [0.5]},
            "_best_ema": np.float64(0.5),  # nnU-Net keeps it as a numpy scalar
            "current_epoch": 1,
            "init_args": {
                "plans": dict(plans),
                "configuration": "3d_fullres",
                "fold": int(fold.removeprefix("fold_")) if fold != "fold_all" else "all",
                "dataset_json": content,
                "device": torch.device("cpu"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": MIRRORED,
        }
        (folder / fold).mkdir(exist_ok=True)
        torch.save(checkpoint, folder / fold / "checkpoint_final.pth")
    return folder


@pytest.fixture(scope="session")
def tiny_nnunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two folds; read it, do not write into it."""
    folder = tmp_path_factory.mktemp("nnunet") / "Dataset998_Tiny" / NAME
    return write_model(folder, {"fold_0": train(0), "fold_1": train(1)}, make_plans())
