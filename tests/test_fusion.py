"""Masks of several models made into one, by rules that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import inference, models, performance, storage, volumes
from helpers.models import ScanCase, Spec
from helpers.models.fusion import Fusion, run_staple
from helpers.models.fusion_setup import FusionOptions
from helpers.models.protocol import merge_scores
from helpers.study import find_probabilities
from tests.test_inference import SHAPE, draw_labels, make_study, write_image  # noqa: F401  (make_study is a fixture)

MEMBERS = ("one", "two", "three")


def shift(labels: np.ndarray, voxels: int) -> np.ndarray:
    return np.roll(labels, voxels, axis=2)


@pytest.fixture
def make_members(make_study, tmp_path):  # noqa: F811
    """Write three members' masks: the reference, and it moved by one voxel to either side."""

    def make(fusion: dict, *, members=MEMBERS, drawn=(0, 1, -1), organs=None):
        named = []
        for name, voxels in zip(members, drawn, strict=True):
            for scan in ("a1", "b2", "c3"):
                write_image(shift(draw_labels(), voxels), tmp_path / "data" / name / f"{scan}.nii.gz")
            named.append({"name": name, "kind": "precomputed", "path": f"{name}/{{scan}}.nii.gz"})
        if organs is not None:
            named[-1]["organs"] = organs
        # First in the file, last to run.
        return make_study([{"name": "all", "kind": "fusion", "of": list(members), **fusion}, *named])

    return make


def read_mask(study, scan: str, model: str = "all") -> np.ndarray:
    return sitk.GetArrayFromImage(volumes.to_axial(volumes.read_volume(study.prediction_path(model, scan))))


def test_a_majority_is_more_than_half(make_members):
    """Of a mask and its two neighbours, two always agree on the middle one."""
    study = make_members({"method": "majority"})
    inference.run_inference(study)
    for scan in ("a1", "b2", "c3"):
        np.testing.assert_array_equal(read_mask(study, scan), draw_labels())
    metrics = performance.measure_performance(study)
    assert metrics.loc[metrics["model"] == "all", "dice"].eq(1.0).all()
    (note,) = models.describe_model(study.parameters.models[0], study)
    assert note == (
        "models.all: made of one, two and three: a voxel belongs to an organ where more than half of the members that "
        "draw it say so; at a tie it is background"
    )


@pytest.mark.parametrize(("tie", "moved"), [("background", None), ("first", 0)])
def test_a_tie_is_background_or_the_first_members(make_members, tie, moved):
    study = make_members({"tie": tie}, members=MEMBERS[:2], drawn=(0, 1))
    inference.run_inference(study)
    mine, other = draw_labels(), shift(draw_labels(), 1)
    wanted = np.where(mine == other, mine, 0) if moved is None else mine
    np.testing.assert_array_equal(read_mask(study, "a1"), wanted)


def test_staple_is_warfields(make_members):
    """The estimate equals an EM written from the paper's equations, in the same box."""
    study = make_members({"method": "staple"}, drawn=(0, 1, 3))
    inference.run_inference(study)
    wanted = np.zeros(SHAPE, np.uint8)
    for label in (1, 2):
        weights = estimate_truth([shift(draw_labels(), voxels) == label for voxels in (0, 1, 3)])
        wanted[weights > 0.5] = label
    np.testing.assert_array_equal(read_mask(study, "b2"), wanted)
    assert (wanted != draw_labels()).any()


def estimate_truth(masks: list[np.ndarray]) -> np.ndarray:
    """STAPLE, Warfield, Zou and Wells 2004, equations 14 to 20, in the grown box around all."""
    where = np.argwhere(np.logical_or.reduce(masks))
    low, high = np.maximum(where.min(0) - 5, 0), np.minimum(where.max(0) + 6, masks[0].shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    drawn = np.array([mask[box].ravel() for mask in masks])
    prior, p, q = drawn.mean(), np.full(len(masks), 0.99999), np.full(len(masks), 0.99999)
    for _ in range(200):
        a = prior * np.prod(np.where(drawn, p[:, None], 1 - p[:, None]), axis=0)
        b = (1 - prior) * np.prod(np.where(drawn, 1 - q[:, None], q[:, None]), axis=0)
        weight = a / (a + b)
        p, q = (drawn * weight).sum(1) / weight.sum(), (~drawn * (1 - weight)).sum(1) / (1 - weight).sum()
    result = np.zeros(masks[0].shape)
    result[box] = weight.reshape([b - a for a, b in zip(low, high, strict=True)])
    return result


def test_staple_of_what_nobody_drew_is_nothing():
    empty = np.zeros((3, 4, 5), bool)
    assert not run_staple([empty, empty, empty]).any()
    drawn = empty.copy()
    drawn[1, 1:3, 1:4] = True
    np.testing.assert_array_equal(run_staple([drawn, drawn, empty]) > 0.5, drawn)


def test_probabilities_are_averaged(tmp_path):
    """Two members' probabilities, read from beside their masks; the larger of two organs wins."""
    grid = volumes.Grid((4, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    given = {
        "one": {"liver": [255, 100, 0, 128], "spleen": [0, 155, 200, 127]},
        "two": {"liver": [20, 100, 0, 128], "spleen": [0, 155, 56, 126]},
    }
    for name, of_organs in given.items():
        path = tmp_path / name / "s.nii.gz"
        volumes.write_volume(volumes.make_image(np.zeros((1, 1, 4), np.uint8), grid), path)
        arrays = {organ: np.array(values, np.uint8).reshape(1, 1, 4) for organ, values in of_organs.items()}
        np.savez(find_probabilities(path), **arrays)
        storage.write_json({"organs": {organ: {"not_drawn": ""} for organ in arrays}}, path.with_name("s.json"))
    folders = {name: tmp_path / name for name in given}
    options = FusionOptions(("one", "two"), folders, "mean", None, needed=2)
    case = ScanCase("s", "s", "CT", grid, {"liver": 1, "spleen": 2})
    fused = Fusion(Spec("all", "fusion", {}, options=options)).segment(case)
    # 137.5/255, 155/255, 128/255 and 128 before 126.5: above one half, in the order of the organs.
    assert fused.labels.ravel().tolist() == [1, 2, 2, 1]


def test_an_organ_that_too_few_members_draw_is_not_drawn(make_members):
    study = make_members({}, organs={"liver": {"labels": [1]}})
    inference.run_inference(study)
    organs = inference.read_organs(study).query("model == 'all'").set_index("organ")
    assert set(organs.loc["spleen", "not_drawn"]) == {"2 of the 3 members draw this organ, and majority needs 3"}
    assert organs.loc["liver", "dice"].eq(1.0).all()


def test_a_fusion_is_redone_when_a_member_changes_and_fails_where_one_failed(make_members, tmp_path):
    study = make_members({"method": "majority"})
    assert inference.run_inference(study)["status"].eq("ok").all()
    assert inference.run_inference(study)["reused"].all()
    write_image(shift(draw_labels(), 2), tmp_path / "data" / "one" / "a1.nii.gz")
    (tmp_path / "data" / "two" / "c3.nii.gz").unlink()
    table = inference.run_inference(study).set_index(["model", "scan"])
    assert not table.loc[("all", "a1"), "reused"] and table.loc[("all", "b2"), "reused"]
    assert table.loc[("all", "c3"), ["status", "error"]].tolist() == [
        "failed",
        "its member two has no mask of this scan",
    ]


@pytest.mark.parametrize(
    ("fusion", "said"),
    [
        ({"of": ["one", "nobody"], "tie": "first"}, "there is no model 'nobody' to fuse; there are one, two, three"),
        ({"of": ["one", "one", "two"]}, "names a model more than once"),
        ({"of": ["one", "two"]}, "two members tie wherever they differ: say what that means"),
        ({"of": ["one", "two"], "method": "staple"}, "staple needs 3 members or more"),
        ({"method": "staple", "tie": "first"}, "staple knows no ties"),
        ({"method": "mean"}, "one, two and three give masks without probabilities: use majority or staple"),
    ],
)
def test_a_fusion_that_cannot_be_is_refused(make_members, fusion, said):
    study = make_members(fusion)
    problems = models.check_model(study.parameters.models[0], study)
    assert any(said in problem for problem in problems), problems


def test_undecided_voxels_are_background_and_equal_support_goes_to_the_first():
    support = {1: np.array([[[0.5, 0.6, 0.7]]], np.float32), 2: np.array([[[0.5, 0.6, 0.8]]], np.float32)}
    assert merge_scores(support, (1, 1, 3), above=0.5).ravel().tolist() == [0, 1, 2]
