"""nnU-Net: the official predictor's masks in any storage order, and folders that are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
import yaml

from helpers import provenance, volumes
from helpers.compute import close_client, map_cases
from helpers.errors import SegfairError
from helpers.models import ScanCase, Segmentation, Spec, check_model, describe_model, load_segmenter, make_spec
from helpers.models.nnunet_folder import CHECKPOINT
from helpers.parameters import Compute
from helpers.study import Study, load_study
from tests import tiny_nnunet as tiny
from tests.offline import offline, one_thread  # noqa: F401

SPACING_XYZ_MM = (3.1, 3.0, 4.5)
SHAPE = (24, 40, 44)
ORDERS = ["RAS", "LPS", "LAS", "SAR", "PIL"]
ORGANS = {"liver": {"labels": [1]}, "spleen": {"labels": [2]}}


@pytest.fixture(scope="module")
def body() -> tuple[sitk.Image, np.ndarray]:
    """An image stored as RAS, and its labels in the study orientation."""
    image, labels = tiny.draw_body(np.random.default_rng(5), SHAPE, SPACING_XYZ_MM[::-1])
    # RAS in ITK's millimetres, which are LPS: x and y run against them.
    stored = make_ras(image)
    return stored, sitk.GetArrayFromImage(volumes.to_axial(make_ras(labels)))


def make_ras(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING_XYZ_MM)
    image.SetOrigin((60.0, 50.0, -30.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


def make_case(stored: sitk.Image, **more: Any) -> ScanCase:
    axial = volumes.to_axial(stored)
    return ScanCase(
        "s1",
        "p1",
        "CT",
        volumes.get_grid(axial),
        {"liver": 1, "spleen": 2},
        image=sitk.GetArrayFromImage(axial),
        stored=volumes.get_grid(stored),
        **more,
    )


def make_study(tmp_path: Path, *models: dict[str, Any], organs: dict[str, Any] | None = None) -> Study:
    parameters = {
        "name": "small",
        "cohort": {
            "source": "table",
            "path": "participants.tsv",
            "organs": organs or ORGANS,
            "attributes": {"sex": {"categories": ["female", "male"]}},
        },
        "models": list(models),
        "compute": {"device": "cpu", "workers": 0},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return load_study(path)


def load(tmp_path: Path, folder: Path, **keys: Any) -> Any:
    study = make_study(tmp_path, {"name": "ours", "kind": "nnunet", "folder": str(folder), **keys})
    return load_segmenter(make_spec(study.parameters.models[0], study))


def check(tmp_path: Path, folder: Path, **keys: Any) -> str:
    """Return the one sentence that a model's check says."""
    study = make_study(tmp_path, {"name": "ours", "kind": "nnunet", "folder": str(folder), **keys})
    (problem,) = check_model(study.parameters.models[0], study)
    assert "\n" not in problem
    return problem


def predict_officially(
    folder: Path, file: Path, folds: tuple[int, ...] = (0,), *, mirroring: bool = False, step: float = 0.5
) -> tuple[sitk.Image, np.ndarray]:
    """Return the official predictor's mask as its own reader writes it, and its probabilities."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=step, use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    reader = predictor.plans_manager.image_reader_writer_class()
    array, properties = reader.read_images([str(file)])
    labels, probabilities = predictor.predict_single_npy_array(array, dict(properties), None, None, True)
    written = file.with_name("official.nii.gz")
    reader.write_seg(labels, str(written), properties)
    return sitk.ReadImage(str(written)), probabilities


def segment_axial(segmenter: Any, stored: sitk.Image, **more: Any) -> Segmentation:
    return segmenter.segment(make_case(stored, **more))


def measure_dice(found: np.ndarray, wanted: np.ndarray, organ: int) -> float:
    return 2 * np.sum((found == organ) & (wanted == organ)) / (np.sum(found == organ) + np.sum(wanted == organ))


@pytest.mark.parametrize(
    ("keys", "folds", "mirroring", "step"),
    [
        ({"folds": [0], "mirroring": False}, (0,), False, 0.5),
        ({}, (0, 1), True, 0.5),
        ({"folds": [1], "mirroring": False, "step": 1.0}, (1,), False, 1.0),
    ],
)
def test_masks_are_the_official_predictors(
    tmp_path: Path,
    tiny_nnunet: Path,
    body: tuple[sitk.Image, np.ndarray],
    keys: dict[str, Any],
    folds: tuple[int, ...],
    mirroring: bool,
    step: float,
) -> None:
    stored, reference = body
    sitk.WriteImage(stored, str(tmp_path / "scan.nii.gz"))
    official, _ = predict_officially(tiny_nnunet, tmp_path / "scan.nii.gz", folds, mirroring=mirroring, step=step)
    found = segment_axial(load(tmp_path, tiny_nnunet, **keys), sitk.ReadImage(str(tmp_path / "scan.nii.gz"))).labels
    np.testing.assert_array_equal(found, sitk.GetArrayFromImage(volumes.to_axial(official)))
    assert min(measure_dice(found, reference, organ) for organ in (1, 2)) > 0.5


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient"])
def test_every_storage_order_is_read_as_the_plans_reader_reads_it(
    tmp_path: Path, tiny_nnunet: Path, body: tuple[sitk.Image, np.ndarray], order: str, reader: str
) -> None:
    folder = tiny.write_model(tmp_path / tiny.NAME, {"fold_0": tiny.train(0)}, tiny.make_plans(reader))
    stored, reference = body
    file = tmp_path / "scan.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(stored, order), str(file))
    official, _ = predict_officially(folder, file)
    found = segment_axial(load(tmp_path, folder, mirroring=False), sitk.ReadImage(str(file))).labels
    np.testing.assert_array_equal(found, sitk.GetArrayFromImage(volumes.to_axial(official)))
    if "Reorient" in reader or order == "RAS":
        assert min(measure_dice(found, reference, organ) for organ in (1, 2)) > 0.75
    else:  # a network that has only seen files of another order is fed what it would be given elsewhere
        assert min(measure_dice(found, reference, organ) for organ in (1, 2)) < 0.6


def test_a_body_with_its_organs_on_the_other_sides_is_told_from_one_that_is_stored_the_other_way(
    tmp_path: Path, tiny_nnunet: Path, body: tuple[sitk.Image, np.ndarray]
) -> None:
    segmenter = load(tmp_path, tiny_nnunet, folds=[0], mirroring=False)
    stored, reference = body
    turned = segment_axial(segmenter, sitk.DICOMOrient(stored, "LPS")).labels
    np.testing.assert_array_equal(turned, segment_axial(segmenter, stored).labels)
    mirrored = make_ras(sitk.GetArrayFromImage(stored)[:, :, ::-1].copy())  # the voxels move, the axes do not
    swapped = segment_axial(segmenter, mirrored).labels[:, :, ::-1]
    # It calls what lies on the right the liver, which in this body is the spleen.
    assert measure_dice(np.where(swapped == 1, 2, 0), reference, 2) > 0.6


def test_probabilities_are_the_official_predictors(
    tmp_path: Path, tiny_nnunet: Path, body: tuple[sitk.Image, np.ndarray]
) -> None:
    stored, _ = body
    sitk.WriteImage(stored, str(tmp_path / "scan.nii.gz"))
    _, official = predict_officially(tiny_nnunet, tmp_path / "scan.nii.gz", (0, 1))
    study = make_study(
        tmp_path,
        {
            "name": "ours",
            "kind": "nnunet",
            "folder": str(tiny_nnunet),
            "mirroring": False,
            "organs": {"either": {"labels": ["liver", 2]}, "right": {"labels": [1], "side": "right"}},
        },
        organs={"either": {"labels": [8]}, "right": {"labels": [9]}},
    )
    spec = make_spec(study.parameters.models[0], study)
    case = replace(make_case(stored, midline_x_mm=0.0), organ_ids={"either": 1, "right": 2})
    with pytest.raises(SegfairError, match="shares"):  # a voxel belongs to one organ
        load_segmenter(spec).segment(case)
    spec = replace(spec, organs={"either": spec.organs["either"]})
    segmenter = load_segmenter(spec)
    assert segmenter.segment(case).probabilities == {}
    segmenter.spec = replace(spec, want_probabilities=True)
    found = segmenter.segment(case).probabilities
    assert set(found) == {"either"}
    wanted = 255 * (official[1] + official[2])[:, ::-1, ::-1]
    assert np.abs(found["either"] - wanted).max() < 1.5
    assert found["either"].max() > 200


def test_regions_are_drawn_in_their_order(tmp_path: Path, body: tuple[sitk.Image, np.ndarray]) -> None:
    # Regions have no channel of the background: the two foreground channels are kept.
    state = {key: value[1:] if "seg_layers" in key else value for key, value in tiny.train(0).items()}
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    folder = tiny.write_model(
        tmp_path / tiny.NAME, {"fold_0": state}, tiny.make_plans(), labels, regions_class_order=[1, 2]
    )
    stored, _ = body
    sitk.WriteImage(stored, str(tmp_path / "scan.nii.gz"))
    official, probabilities = predict_officially(folder, tmp_path / "scan.nii.gz")
    official = sitk.GetArrayFromImage(volumes.to_axial(official))
    assert {1, 2} <= set(np.unique(official))
    named = {"whole": {"labels": ["whole"]}}
    study = make_study(
        tmp_path,
        {"name": "ours", "kind": "nnunet", "folder": str(folder), "mirroring": False, "organs": named},
        organs={"whole": {"labels": [9]}},
    )
    spec = replace(make_spec(study.parameters.models[0], study), want_probabilities=True)
    found = load_segmenter(spec).segment(replace(make_case(stored), organ_ids={"whole": 1}))
    np.testing.assert_array_equal(found.labels, official > 0)
    assert np.abs(found.probabilities["whole"] - 255 * probabilities[0][:, ::-1, ::-1]).max() < 1.5


def test_one_slice_is_a_scan(tmp_path: Path, tiny_nnunet: Path, body: tuple[sitk.Image, np.ndarray]) -> None:
    stored = body[0][:, :, 11:12]
    sitk.WriteImage(stored, str(tmp_path / "scan.nii.gz"))
    official, _ = predict_officially(tiny_nnunet, tmp_path / "scan.nii.gz")
    found = segment_axial(load(tmp_path, tiny_nnunet, folds=[0], mirroring=False), stored).labels
    assert found.shape == (1, 40, 44)
    np.testing.assert_array_equal(found, sitk.GetArrayFromImage(volumes.to_axial(official)))


def test_organs_are_found_by_id_by_name_and_by_side(
    tmp_path: Path, tiny_nnunet: Path, body: tuple[sitk.Image, np.ndarray]
) -> None:
    stored, _ = body
    plain = segment_axial(load(tmp_path, tiny_nnunet, folds=[0], mirroring=False), stored).labels
    exchanged = {"liver": {"labels": ["spleen"]}, "spleen": {"labels": [1]}}
    found = load(tmp_path, tiny_nnunet, organs=exchanged, folds=[0], mirroring=False)
    np.testing.assert_array_equal(segment_axial(found, stored).labels, np.array([0, 2, 1])[plain])
    sided = {"liver": {"labels": [1, 2], "side": "left"}, "spleen": {"labels": [1, 2], "side": "right"}}
    found = load(tmp_path, tiny_nnunet, organs=sided, folds=[0], mirroring=False)
    labels = segment_axial(found, stored, midline_x_mm=0.0).labels
    np.testing.assert_array_equal(labels > 0, plain > 0)
    x_mm = volumes.list_x_mm(make_case(stored).grid)
    assert set(np.unique(labels[np.broadcast_to(x_mm > 0, labels.shape)])) == {0, 1}


# --- folders
# ------------------------------------------------------------------------------


def test_check_says_what_was_matched_and_what_is_lacking(tmp_path: Path, tiny_nnunet: Path) -> None:
    keys = {"name": "ours", "kind": "nnunet", "folder": str(tiny_nnunet)}
    study = make_study(tmp_path, keys, organs={"Spleen": {"labels": [7]}, "aorta": {"labels": [8]}})
    assert check_model(study.parameters.models[0], study) == []
    assert describe_model(study.parameters.models[0], study) == [
        "models.ours: matched Spleen → label 2 'spleen'",
        "models.ours: has no label called aorta: not drawn by it and not scored",
    ]
    stored = tiny.write_model(tmp_path / tiny.NAME, {"fold_0": {}}, tiny.make_plans("SimpleITKIO"))
    study = make_study(tmp_path, {**keys, "folder": str(stored)})
    assert "read in the order of their files (SimpleITKIO)" in describe_model(study.parameters.models[0], study)[-1]


def test_masks_depend_on_the_files_that_are_used(tmp_path: Path, tiny_nnunet: Path) -> None:
    def depend(folder: Path, **keys: Any) -> Any:
        study = make_study(tmp_path, {"name": "ours", "kind": "nnunet", "folder": str(folder), **keys})
        return make_spec(study.parameters.models[0], study).depends_on

    copied = Path(shutil.copytree(tiny_nnunet, tmp_path / "elsewhere" / tiny.NAME))
    assert depend(copied) == depend(tiny_nnunet)
    assert depend(tiny_nnunet, folds=[0]) != depend(tiny_nnunet)
    assert depend(tiny_nnunet, step=0.8) != depend(tiny_nnunet)
    assert depend(tiny_nnunet, trust=True) == depend(tiny_nnunet)
    before = depend(copied)
    (copied / "dataset.json").write_text((copied / "dataset.json").read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert depend(copied) != before


def test_the_stage_is_out_of_date_when_a_file_of_the_folder_changes(tmp_path: Path, tiny_nnunet: Path) -> None:
    folder = Path(shutil.copytree(tiny_nnunet, tmp_path / "weights" / tiny.NAME))
    study = make_study(tmp_path, {"name": "ours", "kind": "nnunet", "folder": str(folder)})
    study.path("cohort").parent.mkdir(parents=True)
    pd.DataFrame({"scan": ["s1"], "subject": ["p1"]}).to_parquet(study.path("cohort"))
    before = provenance.Fingerprints(study).find("02_inference")
    assert provenance.Fingerprints(study).find("02_inference") == before
    (folder / "fold_1" / CHECKPOINT).touch()
    assert provenance.Fingerprints(study).find("02_inference") != before


def segment_file(job: tuple[Spec, Path]) -> np.ndarray:
    spec, file = job
    return load_segmenter(spec).segment(make_case(sitk.ReadImage(str(file)))).labels


@pytest.mark.slow
def test_it_runs_within_a_worker_of_dask(
    tmp_path: Path, tiny_nnunet: Path, body: tuple[sitk.Image, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # workers talk over sockets of this machine
    keys = {"name": "ours", "kind": "nnunet", "folder": str(tiny_nnunet), "folds": [0], "mirroring": False}
    study = make_study(tmp_path, keys)
    spec = replace(make_spec(study.parameters.models[0], study), threads=1)
    file = tmp_path / "scan.nii.gz"
    sitk.WriteImage(body[0], str(file))
    try:
        found = map_cases(
            segment_file, [(spec, file)] * 2, ids=["1", "2"], compute=Compute(device="cpu", workers=2), label="nnunet"
        )
    finally:
        close_client()
    wanted = segment_file((spec, file))
    for labels in found:
        np.testing.assert_array_equal(labels, wanted)


def change_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return apply


def cut_short(folder: Path) -> None:
    path = folder / "fold_1" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-500])


def configure(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda plans: plans["configurations"]["3d_fullres"].update(values)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "plans.json").unlink(), "holds no plans.json: it is no trained nnU-Net v2, or was"),
        (lambda folder: (folder / "dataset.json").unlink(), "holds no dataset.json: it was unpacked in part"),
        (lambda folder: (folder / "dataset.json").write_text("{", encoding="utf-8"), "cannot be read as JSON"),
        (
            lambda folder: (folder / "fold_1" / "checkpoint_final.pth").rename(
                folder / "fold_1" / "checkpoint_best.pth"
            ),
            "there is no fold_1/checkpoint_final.pth (it has checkpoint_best.pth): unpack the model again, end its",
        ),
        (cut_short, "checkpoint_final.pth is damaged or cut short"),
        (
            lambda folder: [shutil.rmtree(folder / f"fold_{fold}") for fold in (0, 1)],
            "holds no fold_0: it was unpacked",
        ),
        (
            change_json("dataset.json", lambda data: data.update(channel_names={"0": "T1", "1": "T2"})),
            "the network wants 2 images of each scan (T1, T2) and a study has one",
        ),
        (change_json("plans.json", configure(previous_stage="3d_lowres")), "second network of a cascade, which wants"),
        (
            change_json("plans.json", configure(architecture={"network_class_name": "os.system", "arch_kwargs": {}})),
            "plans.json asks for os.system, and only classes of dynamic_network_architectures and torch.nn",
        ),
        (
            change_json("plans.json", lambda plans: plans.update(image_reader_writer="Tiff3DIO")),
            "plans.json reads images by Tiff3DIO",
        ),
        (change_json("plans.json", lambda plans: plans.pop("configurations")), "has no 'configurations'"),
        (
            change_json("dataset.json", lambda data: data.update(labels={"background": 0, "lung": 1, "heart": 2})),
            "models.ours.organs is needed: no label of the model is called liver or spleen; its labels are 1 lung, 2",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_before_anything_runs(
    tmp_path: Path, tiny_nnunet: Path, damage: Callable[[Path], Any], says: str
) -> None:
    folder = Path(shutil.copytree(tiny_nnunet, tmp_path / "Dataset998_Tiny" / tiny.NAME))
    damage(folder)
    assert says in check(tmp_path, folder)


def test_a_folder_is_named_by_the_one_within_it(tmp_path: Path, tiny_nnunet: Path) -> None:
    assert f"holds no plans.json: name its folder {tiny.NAME}" in check(tmp_path, tiny_nnunet.parent)
    assert "there is no folder" in check(tmp_path, tmp_path / "nowhere")
    assert "(there are fold_0 and fold_1)" in check(tmp_path, tiny_nnunet, folds=[4])


def test_organs_name_labels_that_the_model_has(tmp_path: Path, tiny_nnunet: Path) -> None:
    says = "the model has no label 7 or lung: its labels are 1 liver, 2 spleen"
    assert says in check(tmp_path, tiny_nnunet, organs={"liver": {"labels": [7, "lung", 1]}})
    assert "models.ours.organs.liver: needs `labels`" in check(
        tmp_path, tiny_nnunet, organs={"liver": {"files": ["a"]}}
    )


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.path),)


def change_checkpoint(folder: Path, change: Callable[[dict[str, Any]], Any], fold: int = 0) -> None:
    path = folder / f"fold_{fold}" / CHECKPOINT
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)


def test_a_checkpoint_runs_no_code_unless_it_is_trusted(tmp_path: Path, tiny_nnunet: Path) -> None:
    folder = Path(shutil.copytree(tiny_nnunet, tmp_path / tiny.NAME))
    change_checkpoint(folder, lambda content: content.update(logging=Malicious(tmp_path / "ran")))
    with pytest.raises(SegfairError, match=r"asks for posix\.mknod beside tensors, which could run code"):
        load(tmp_path, folder)
    assert not (tmp_path / "ran").exists()
    load(tmp_path, folder, trust=True)
    assert (tmp_path / "ran").exists()


def test_files_of_numpy_1_are_read(tmp_path: Path, tiny_nnunet: Path) -> None:
    folder = Path(shutil.copytree(tiny_nnunet, tmp_path / tiny.NAME))
    path = folder / "fold_0" / CHECKPOINT
    import zipfile

    with zipfile.ZipFile(path) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name, content in members.items():
            target.writestr(name, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert b"numpy.core.multiarray" in path.read_bytes()
    load(tmp_path, folder, folds=[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop("init_args"), "has no init_args: it is no checkpoint of nnU-Net v2"),
        (
            lambda content: content["network_weights"].pop("decoder.seg_layers.1.weight"),
            r"does not fit plans.json and dataset.json: decoder.seg_layers.1.weight and 0 more are missing",
        ),
        (
            lambda content: content["network_weights"]["decoder.seg_layers.1.bias"].fill_(float("nan")),
            "decoder.seg_layers.1.bias holds values that are not finite",
        ),
        (
            lambda content: content["init_args"].update(plans=tiny.make_plans(spacing=[1.0, 1.0, 1.0])),
            r"plans.json is of another training than the checkpoint, of Dataset998_Tiny \(spacing differs\)",
        ),
        (
            lambda content: content["init_args"].update(
                dataset_json={"labels": {"background": 0, "spleen": 1, "liver": 2}}
            ),
            "dataset.json names other labels than the checkpoint was trained with",
        ),
        (lambda content: content["init_args"].update(configuration="2d"), "plans.json has no whole configuration '2d'"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path: Path, tiny_nnunet: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    folder = Path(shutil.copytree(tiny_nnunet, tmp_path / tiny.NAME))
    change_checkpoint(folder, change)
    with pytest.raises(SegfairError, match=says):
        load(tmp_path, folder, folds=[0])


def test_only_layers_and_networks_are_imported(tmp_path: Path, tiny_nnunet: Path) -> None:
    folder = Path(shutil.copytree(tiny_nnunet, tmp_path / tiny.NAME))
    plans = tiny.make_plans()
    # A module of an allowed package has itself imported more than layers.
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["nonlin"] = "torch.nn.modules.module.os.getcwd"
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    with pytest.raises(SegfairError, match="which is no network or layer of torch"):
        load(tmp_path, folder)


def test_too_little_memory_and_what_is_no_number_fail_the_scan_in_a_sentence(
    tmp_path: Path, tiny_nnunet: Path, body: tuple[sitk.Image, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(tmp_path, tiny_nnunet, folds=[0])
    broken = sitk.GetArrayFromImage(body[0])
    broken[3, 3, 3] = np.nan
    with pytest.raises(SegfairError, match="holds values that are not finite"):
        segment_axial(segmenter, make_ras(broken))

    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    slide = segmenter.network.predictor.predict_sliding_window_return_logits
    tried: list[list[int]] = []

    def run_out_with_large_tiles(data: torch.Tensor) -> torch.Tensor:
        tried.append(list(segmenter.network.configuration.patch_size))
        if len(tried) < 3:
            run_out()
        return slide(data)

    whole = segmenter.segment(make_case(body[0])).labels
    with monkeypatch.context() as patch:
        patch.setattr(segmenter.network.predictor, "predict_sliding_window_return_logits", run_out_with_large_tiles)
        found = segmenter.segment(make_case(body[0]))
    trained = tried[0]
    assert [int(np.prod(trained) / np.prod(tile)) for tile in tried] == [1, 2, 4]
    assert found.remark.startswith("memory ran out: in tiles of ") and found.labels.any()
    assert list(segmenter.network.configuration.patch_size) == trained
    again = segmenter.segment(make_case(body[0]))
    assert again.remark == ""
    np.testing.assert_array_equal(again.labels, whole)
    monkeypatch.setattr(segmenter.network.predictor, "predict_sliding_window_return_logits", run_out)
    with pytest.raises(SegfairError, match="cpu has too little memory for this scan"):
        segment_axial(segmenter, body[0])
