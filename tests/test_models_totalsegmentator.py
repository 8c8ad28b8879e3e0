"""TotalSegmentator without its package: its recipe, written a second time, gives equal labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from scipy import ndimage

from helpers import volumes
from helpers.errors import SegfairError
from helpers.models import ScanCase, check_model, describe_model, load_segmenter, make_spec
from helpers.models.checkpoints import TOTALSEGMENTATOR
from helpers.models.totalsegmentator_tasks import TASKS
from helpers.study import Study, load_study
from tests import tiny_nnunet as tiny
from tests.fake_totalsegmentator import write_network
from tests.offline import offline, one_thread  # noqa: F401

SHAPE, SPACING_ZYX_MM = (11, 20, 22), (4.0, 2.3, 2.1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All five networks of `total`, and those of the other tasks."""
    root = tmp_path_factory.mktemp("totalsegmentator")
    for task in TASKS.values():
        for number, names in task.parts.items():
            write_network(root, number, names, task.spacing_mm)
    return root


def make_study(tmp_path: Path, folder: Path | None, organs: Mapping[str, Any], **keys: Any) -> Study:
    model = {"name": "total", "kind": "totalsegmentator", **keys}
    parameters = {
        "name": "small",
        "cohort": {
            "source": "table",
            "path": "participants.tsv",
            "organs": {name: {"labels": [place]} for place, name in enumerate(organs, start=1)},
            "attributes": {"sex": {"categories": ["female", "male"]}},
        },
        "models": [model if folder is None else {**model, "folder": str(folder)}],
        "compute": {"device": "cpu", "workers": 0},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return load_study(path)


def make_file(tmp_path: Path, order: str, spacing_zyx_mm: tuple[float, ...] = SPACING_ZYX_MM) -> Path:
    array, _ = tiny.draw_body(np.random.default_rng(3), SHAPE, spacing_zyx_mm)
    image = sitk.GetImageFromArray(array.astype(np.int16))
    image.SetSpacing(spacing_zyx_mm[::-1])
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(sitk.DICOMOrient(image, order), str(tmp_path / "scan.nii.gz"))
    return tmp_path / "scan.nii.gz"


def segment(study: Study, file: Path) -> np.ndarray:
    """Return the study's organs in the file's own order, (z, y, x)."""
    stored = sitk.ReadImage(str(file))
    axial = volumes.to_axial(stored)
    case = ScanCase(
        "s1",
        "p1",
        "CT",
        volumes.get_grid(axial),
        study.organ_ids,
        image=sitk.GetArrayFromImage(axial),
        stored=volumes.get_grid(stored),
        midline_x_mm=0.0,
    )
    labels = load_segmenter(make_spec(study.parameters.models[0], study)).segment(case).labels
    return sitk.GetArrayFromImage(volumes.from_axial(volumes.make_image(labels, case.grid), volumes.get_grid(stored)))


def follow_recipe(root: Path, task: str, numbers: list[int], file: Path) -> np.ndarray:
    """Do what the package does, by nibabel and nnU-Net's own loader; the labels as in the file."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    target = TASKS[task].spacing_mm
    original = nibabel.load(file)
    canonical = nibabel.as_closest_canonical(original)
    data, zooms = canonical.get_fdata(), np.array(canonical.header.get_zooms())
    whole = np.array_equal(zooms, [target] * 3)
    small = data if whole else ndimage.zoom(data, zooms / target, order=1, mode="nearest").astype(np.int32)
    combined = np.zeros(small.shape, np.uint8)
    for number in numbers:
        predictor = nnUNetPredictor(
            tile_step_size=0.8, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
        )
        (folder,) = (root / TOTALSEGMENTATOR[number][1]).iterdir()
        predictor.initialize_from_trained_model_folder(str(folder), (0,))
        image = small.transpose(2, 1, 0)[None].astype(np.float32)
        labels = predictor.predict_single_npy_array(image, {"spacing": [target] * 3}, None, None, False)
        for place, name in enumerate(TASKS[task].parts[number], start=1):
            combined[labels.transpose(2, 1, 0) == place] = TASKS[task].labels[name][0]
    if not whole:
        combined = ndimage.zoom(combined, np.array(data.shape) / combined.shape, order=0, mode="nearest")
    to_file = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.io_orientation(original.affine)
    )
    return nibabel.orientations.apply_orientation(combined, to_file).transpose(2, 1, 0)


@pytest.mark.parametrize(
    ("task", "organs", "numbers", "order", "spacing_zyx_mm"),
    [
        ("total", {"liver": (5,), "kidney": (2, 3), "lung": (10, 11, 12, 13, 14)}, [291], "LPS", SPACING_ZYX_MM),
        ("total", {"liver": (5,), "heart": (51,), "sternum": (116,)}, [291, 293, 295], "RAS", SPACING_ZYX_MM),
        ("total", {"kidney_left": (3,), "kidney_right": (2,)}, [291], "PIR", (1.5, 1.5, 1.5)),
        ("total_fast", {"lung_left": (10, 11), "aorta": (52,), "brain": (90,)}, [297], "SAL", SPACING_ZYX_MM),
        ("total_mr", {"lung_left": (10,), "lungs": (10, 11)}, [850], "LAS", SPACING_ZYX_MM),
        ("total_mr_fast", {"Liver": (5,), "humerus": (30, 31)}, [852], "LPS", (3.0, 1.5, 1.5)),
    ],
)
def test_labels_are_those_of_the_packages_recipe(
    tmp_path: Path,
    weights: Path,
    task: str,
    organs: dict[str, tuple[int, ...]],
    numbers: list[int],
    order: str,
    spacing_zyx_mm: tuple[float, ...],
) -> None:
    file = make_file(tmp_path, order, spacing_zyx_mm)
    organs = {name: ids for name, ids in organs.items() if name != "lungs"}  # a voxel belongs to one organ
    study = make_study(tmp_path, weights, organs, variant=task)
    wanted = follow_recipe(weights, task, numbers, file)
    found = segment(study, file)
    assert len(np.unique(wanted)) > 3
    for organ, ids in organs.items():
        np.testing.assert_array_equal(found == study.organ_ids[organ], np.isin(wanted, ids), err_msg=organ)


def test_only_the_networks_of_the_organs_run(tmp_path: Path, weights: Path) -> None:
    def name_networks(*organs: str, variant: str = "total") -> list[int]:
        study = make_study(tmp_path, weights, dict.fromkeys(organs), variant=variant)
        options = make_spec(study.parameters.models[0], study).options
        return [int(network.folder.parent.name[7:10]) for network, _ in options.networks]

    assert name_networks("liver", "spleen", "lung") == [291]
    assert name_networks("aorta", "liver") == [291, 293]
    assert name_networks("rib_left_3", "femur", "vertebrae_L1") == [292, 294, 295]
    assert name_networks("liver", "femur", variant="total_mr") == [850, 851]
    assert name_networks("liver", "femur", variant="total_fast") == [297]


def test_check_says_what_was_matched(tmp_path: Path, weights: Path) -> None:
    study = make_study(tmp_path, weights, dict.fromkeys(["kidney", "lung_right", "tumour"]))
    assert describe_model(study.parameters.models[0], study) == [
        "models.total: matched kidney → labels 2 'kidney_right' and 3 'kidney_left'",
        "models.total: matched lung_right → labels 12 'lung_upper_lobe_right', 13 'lung_middle_lobe_right' "
        "and 14 'lung_lower_lobe_right'",
        "models.total: has no label called tumour: not drawn by it and not scored",
    ]


def test_missing_and_foreign_weights_are_refused(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(folder: Path | None, *organs: str, **keys: Any) -> str:
        study = make_study(tmp_path, folder, dict.fromkeys(organs), **keys)
        (problem,) = check_model(study.parameters.models[0], study)
        return problem

    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", str(tmp_path / "checkpoints"))
    says = check(None, "liver")
    assert f"is not in {tmp_path / 'checkpoints' / 'totalsegmentator'}: run `segfair checkpoints fetch" in says
    assert "releases/download/v2.0.0-weights/Dataset291_TotalSegmentator_part1_organs_1559subj.zip" in says
    assert "must be one of total, total_fast" in check(weights, "liver", variant="body")
    assert "no label of the model is called tumour" in check(weights, "tumour")

    own = tmp_path / "own"
    folder = write_network(own, 291, ["spleen", "liver"], 1.5)
    assert "is no network of this task (liver has another id)" in check(own, "liver")
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1}}), encoding="utf-8")
    assert "is no network of this task (1 labels, not 24)" in check(own, "liver")
    (folder / "plans.json").unlink()
    assert "holds 0 folders *__nnUNetPlans__3d_fullres" in check(own, "liver")


def test_a_scan_thinner_than_a_voxel_fails_in_a_sentence(tmp_path: Path, weights: Path) -> None:
    image = sitk.GetImageFromArray(np.arange(440, dtype=np.int16).reshape(1, 20, 22))
    image.SetSpacing((2.0, 2.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / "thin.nii.gz"))
    study = make_study(tmp_path, weights, {"liver": None}, variant="total_fast")
    with pytest.raises(SegfairError, match="thinner than a voxel of 3 mm"):
        segment(study, tmp_path / "thin.nii.gz")
