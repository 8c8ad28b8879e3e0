"""False positives and negatives in template space, counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from helpers.kept import load_arrays, write_arrays
from helpers.spatial.correspondence import AffineAlignment
from helpers.spatial.deformation import DeformableAlignment
from helpers.spatial.frequencies import TemplateGrid, compare_in_template, count_errors
from helpers.spatial.surfaces import VoxelFrame
from helpers.spatial.template import Template
from helpers.spatial.volume_maps import list_members, write_volumes
from tests.spatial_cohort import make_study
from tests.test_spatial_deformation import draw_ball

FRAME = VoxelFrame(np.array([-40.0, -38.0, -36.0]), np.array([2.0, 2.5, 3.0]), np.eye(3))
SHAPE = (25, 31, 41)  # z, y, x


@pytest.fixture(scope="module")
def template():
    return Template(np.zeros((3, 3)), np.array([[0, 1, 2]]), draw_ball(20.0), 7)


@pytest.fixture(scope="module")
def grid(template):
    return TemplateGrid.of(template)


def still(template, shift_mm=(0.0, 0.0, 0.0)):
    affine = AffineAlignment(np.eye(3), np.asarray(shift_mm, float), np.zeros(3))
    field = template.field
    return DeformableAlignment(affine, np.zeros((*field.values_mm.shape, 3), np.float32), 4.0, field.origin_mm)


def ball(radius_mm, *, centre_mm=(0.0, 0.0, 0.0)):
    places = [FRAME.origin_mm[axis] + FRAME.spacing_mm[axis] * np.arange(SHAPE[2 - axis]) for axis in range(3)]
    z, y, x = np.meshgrid(*places[::-1], indexing="ij")
    far = np.sqrt((x - centre_mm[0]) ** 2 + (y - centre_mm[1]) ** 2 + (z - centre_mm[2]) ** 2)
    return (far <= radius_mm).astype(np.uint8)


def compare(template, grid, prediction, *, reference=None, shift_mm=(0.0, 0.0, 0.0)):
    reference = ball(20.0) if reference is None else reference
    return compare_in_template(grid, still(template, shift_mm), FRAME, reference, {"m": prediction}, 1)


def test_too_much_and_too_little_are_told_apart(template, grid):
    distance = np.linalg.norm(grid.list_points(), axis=1)
    wrong = compare(template, grid, ball(26.0))["model:m"]
    assert not wrong[1].any()
    assert wrong[0][(distance > 22) & (distance < 24)].all() and not wrong[0][(distance < 18) | (distance > 29)].any()
    wrong = compare(template, grid, ball(14.0))["model:m"]
    assert not wrong[0].any()
    assert wrong[1][(distance > 16) & (distance < 18)].all() and not wrong[1][(distance < 12) | (distance > 22)].any()


def test_a_missed_organ_is_false_negative_throughout(template, grid):
    wrong = compare(template, grid, np.zeros(SHAPE, np.uint8))["model:m"]
    inside = np.linalg.norm(grid.list_points(), axis=1) < 17.5
    assert wrong[1][inside].all() and not wrong[0].any()


def test_places_follow_the_alignment(template, grid):
    # The person's organ lies 6 mm further left, and so does its alignment: nothing is wrong in
    # template space.
    moved = ball(20.0, centre_mm=(6.0, 0, 0))
    assert not compare(template, grid, moved, reference=moved, shift_mm=(6.0, 0, 0))["model:m"].any()
    wrong = compare(template, grid, ball(20.0, centre_mm=(12.0, 0, 0)), reference=moved, shift_mm=(6.0, 0, 0))
    too_much = grid.list_points()[wrong["model:m"][0]]
    assert too_much[:, 0].mean() > 10, "too much on the left"


def test_what_the_scan_does_not_show_is_not_seen(template, grid):
    seen = compare(template, grid, ball(20.0), shift_mm=(0.0, 0.0, 20.0))["seen"]
    top = grid.list_points()[:, 2] + 20.0 > 36.0 + 1.5
    np.testing.assert_array_equal(seen[top], False)
    assert seen[np.abs(grid.list_points()).max(axis=1) < 10].all()


@pytest.fixture
def files(template, grid, tmp_path):
    """Two scans of the first person (right, and missed), one of the second (too large)."""
    paths = []
    for number, prediction in enumerate((ball(20.0), np.zeros(SHAPE, np.uint8), ball(26.0))):
        paths.append((tmp_path / f"shown{number}.npz", tmp_path / f"wrong{number}.npz"))
        packed = {name: np.packbits(bits, axis=-1) for name, bits in compare(template, grid, prediction).items()}
        write_arrays(paths[-1][0], {"seen": packed["seen"]})
        write_arrays(paths[-1][1], {"wrong": packed["model:m"]})
    return paths


def count(files, members, grid, min_people):
    scans = ((load_arrays(shown)["seen"], load_arrays(wrong)["wrong"]) for shown, wrong in files)
    return count_errors(scans, np.array([0.5, 0.5, 1]), members, grid, min_people=min_people)


def test_people_count_once_and_groups_apart(grid, files):
    members = np.array([[True, True, True], [True, True, False], [False, False, True]])
    everybody, first, second = count(files, members, grid, 1)
    distance = np.linalg.norm(grid.list_points(), axis=1)
    rim, core = (distance > 22) & (distance < 24), distance < 17
    np.testing.assert_allclose(everybody.false_positive[rim], 0.5)
    np.testing.assert_allclose(everybody.false_negative[core], 0.25)
    np.testing.assert_allclose(first.false_negative[core], 0.5)
    np.testing.assert_allclose(second.false_positive[rim], 1.0)
    assert (everybody.people, first.people, second.people) == (2, 1, 1)
    few = count(files, members, grid, 2)[1]
    assert not few.false_negative.any()


def test_volumes_are_written_in_template_space_and_named(template, grid, files, tmp_path):
    study = make_study(tmp_path, **{"fairness.min_group": 2})
    cohort = pd.DataFrame(
        {"subject": ["a", "a", "b"], "group_sex": pd.Categorical(["female", "female", "male"], ["female", "male"])}
    )
    template.save(study.folder / "spatial" / "organ" / "template.npz")
    comparisons = {("organ", "m"): list(enumerate(files)), ("organ", "nobody"): []}
    table = write_volumes(study, cohort, {"organ": template}, comparisons)
    assert table["file"].tolist()[1] == "organ/volumes/m/false_positive.nii.gz"
    assert table[["model", "group", "kind", "n"]].to_numpy().tolist() == [
        ["", "", "template", 7], ["m", "", "false_positive", 2], ["m", "", "false_negative", 2],
    ], "groups of one person are not written"  # fmt: skip
    image = sitk.ReadImage(str(study.folder / "spatial" / table["file"].iloc[1]))
    assert image.GetSpacing() == (2.0, 2.0, 2.0) and image.GetPixelIDValue() == sitk.sitkFloat32
    np.testing.assert_allclose(image.GetOrigin(), template.field.origin_mm)
    assert image[image.TransformPhysicalPointToIndex((0.0, 23.0, 0.0))] == pytest.approx(0.5)
    mean = sitk.ReadImage(str(study.folder / "spatial" / table["file"].iloc[0]))
    volume = 8.0 * sitk.GetArrayViewFromImage(mean).sum()
    assert volume == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.05)


def test_members_are_everybody_then_every_group():
    cohort = pd.DataFrame({"subject": ["a", "b"], "group_sex": pd.Categorical(["female", None], ["female", "male"])})
    names, members = list_members(cohort)
    assert names == [("", ""), ("sex", "female"), ("sex", "male")]
    assert members.tolist() == [[True, True], [True, False], [False, False]]
