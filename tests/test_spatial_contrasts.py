"""Who is compared with whom, what is adjusted for, and that the tests see it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.spatial.contrasts import SurfaceTest, design_groups, design_slope, run_test
from helpers.spatial.correspondence import DistanceField
from helpers.spatial.maps import PeopleErrors
from helpers.spatial.surface_tests import plan_tests
from helpers.spatial.template import Template
from tests.spatial_cohort import make_study

NO_COVARIATES = pd.DataFrame(index=range(30))
EVERYBODY = np.ones(30, bool)


def three_groups():
    return pd.Series(pd.Categorical(["old"] * 10 + ["young"] * 12 + ["middle"] * 8, ["young", "middle", "old"]))


@pytest.fixture
def tetrahedron(tmp_path):
    vertices = np.array([[10.0, 10, 10], [10, -10, -10], [-10, 10, -10], [-10, -10, 10]])
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    field = DistanceField(
        np.ones((2, 2, 2), np.float32), 4.0, np.zeros(3), np.zeros(3), np.ones(3), np.zeros((3, 2), bool)
    )
    path = tmp_path / "template.npz"
    Template(vertices, faces, field, 3).save(path)
    return path


def save_errors(folder, signed):
    for name in ("signed", "absolute", "miss"):
        np.save(folder / f"{name}.npy", (signed if name == "signed" else np.abs(signed)).astype(np.float32))


def test_two_of_three_groups_are_compared_and_the_third_held_apart():
    design = design_groups(EVERYBODY, three_groups(), ("old", "young"), NO_COVARIATES, min_group=5)
    assert design.names == ("young", "middle", "old") and design.note == ""
    np.testing.assert_array_equal(design.tested, [1] * 10 + [0] * 20)
    np.testing.assert_array_equal(design.others[:, 0], [0] * 22 + [1] * 8)
    np.testing.assert_array_equal(design.groups, [2] * 10 + [0] * 12 + [1] * 8)


def test_people_without_errors_or_group_or_covariate_take_no_part():
    groups = three_groups()
    groups[3] = None
    present = EVERYBODY.copy()
    present[0] = False
    covariates = pd.DataFrame({"bmi": np.r_[np.nan, np.nan, np.random.default_rng(0).uniform(20, 30, 28)]})
    design = design_groups(present, groups, ("old", "young"), covariates, min_group=5)
    assert design.rows.tolist() == [2, *range(4, 30)]
    assert design.left_out == 1, "only person 1: the others were not to be compared anyway"
    assert design.covariates == ("bmi",) and design.others.shape[1] == 2


def test_small_groups_are_not_compared():
    design = design_groups(EVERYBODY, three_groups(), ("old", "middle"), NO_COVARIATES, min_group=9)
    assert "fewer than 9 people" in design.note
    again = design_groups(EVERYBODY, three_groups(), ("old", "young"), NO_COVARIATES, min_group=9)
    assert again.names == ("young", "old") and again.others.shape == (22, 0)


def test_too_many_covariates_for_few_people_test_nothing():
    rng = np.random.default_rng(1)
    groups = pd.Series(pd.Categorical(["a", "b"] * 5, ["a", "b"]))
    covariates = pd.DataFrame(rng.normal(size=(10, 5)), columns=list("vwxyz"))
    assert "10 people are too few" in design_groups(np.ones(10, bool), groups, ("a", "b"), covariates, min_group=2).note


def test_groups_that_are_a_covariate_are_not_compared():
    groups = pd.Series(pd.Categorical(["a"] * 15 + ["b"] * 15, ["a", "b"]))
    covariates = pd.DataFrame({"site": ["x"] * 15 + ["y"] * 15})
    design = design_groups(EVERYBODY, groups, ("a", "b"), covariates, min_group=5)
    assert "the groups and site cannot be told apart here: all 15 in “a” have site x" in design.note
    nearly = pd.DataFrame({"site": ["x"] * 14 + ["y"] * 16})
    assert "nearly all 15 in “a”" in design_groups(EVERYBODY, groups, ("a", "b"), nearly, min_group=5).note


def test_effect_is_the_difference_of_means_and_f_that_of_all_groups(tetrahedron, tmp_path, rng):
    errors = rng.normal(size=(30, 4))
    save_errors(tmp_path, errors)
    design = design_groups(EVERYBODY, three_groups(), ("old", "young"), NO_COVARIATES, min_group=5)
    designs = {"signed": design, "absolute": design, "any_group": design}
    found = run_test(SurfaceTest(tmp_path, tetrahedron, designs, min_group=5, permutations=200, seed=1))
    old, young, middle = np.split(errors, [10, 22])
    np.testing.assert_allclose(found["signed"].effect, old.mean(axis=0) - young.mean(axis=0), atol=1e-6)
    absolute = np.abs(old).mean(axis=0) - np.abs(young).mean(axis=0)
    np.testing.assert_allclose(found["absolute"].effect, absolute, atol=1e-6)
    # The numerator of Welch's F: groups' means weighed by n / s².
    weights = np.array([len(part) / part.var(axis=0, ddof=1) for part in (old, middle, young)])
    means = np.array([part.mean(axis=0) for part in (old, middle, young)])
    middle_of_all = (weights * means).sum(axis=0) / weights.sum(axis=0)
    expected = (weights * (means - middle_of_all) ** 2).sum(axis=0) / 2
    np.testing.assert_allclose(found["any_group"].statistic, expected, rtol=1e-5)
    assert np.isfinite(found["signed"].p_tfce).all() and np.isnan(found["absolute"].p_tfce).all()


def test_slope_is_per_step_with_covariates_held_equal(tetrahedron, tmp_path, rng):
    decades, sex = rng.uniform(2, 8, 30), np.arange(30) % 2
    errors = 0.5 * decades[:, None] + 3.0 * sex[:, None] + 0.01 * rng.normal(size=(30, 4))
    save_errors(tmp_path, errors)
    covariates = pd.DataFrame({"sex": np.where(sex, "female", "male")})
    design = design_slope(EVERYBODY, decades, covariates, min_group=5)
    found = run_test(SurfaceTest(tmp_path, tetrahedron, {"signed": design}, min_group=5, permutations=200, seed=1))
    np.testing.assert_allclose(found["signed"].effect, 0.5, atol=0.01)
    assert (found["signed"].p_fwer < 0.01).all()
    assert "no slope" in design_slope(EVERYBODY, decades, covariates, min_group=16).note
    assert "no slope" in design_slope(EVERYBODY, np.ones(30), covariates, min_group=5).note


def test_a_vertex_too_few_of_a_group_have_is_not_tested(tetrahedron, tmp_path, rng):
    errors = rng.normal(size=(30, 4))
    errors[:7, 2] = np.nan  # seven of the ten old
    save_errors(tmp_path, errors)
    design = design_groups(EVERYBODY, three_groups(), ("old", "young"), NO_COVARIATES, min_group=5)
    found = run_test(SurfaceTest(tmp_path, tetrahedron, {"signed": design}, min_group=5, permutations=100, seed=1))
    assert np.isfinite(found["signed"].statistic).tolist() == [True, True, False, True]


def test_distances_of_groups_have_variances_of_their_own_and_misses_do_not(tetrahedron, tmp_path, rng):
    groups = pd.Series(pd.Categorical(["a"] * 10 + ["b"] * 20, ["a", "b"]))
    errors = rng.normal(size=(30, 4)) * np.repeat([3.0, 1.0], [10, 20])[:, None]
    save_errors(tmp_path, errors)
    design = design_groups(EVERYBODY, groups, ("a", "b"), NO_COVARIATES, min_group=5)
    designs = {"signed": design, "absolute": design, "miss": design}
    found = run_test(SurfaceTest(tmp_path, tetrahedron, designs, min_group=5, permutations=50, seed=1))
    for name, equal in (("signed", False), ("absolute", False), ("miss", True)):
        values = np.load(tmp_path / f"{name}.npy")
        expected = stats.ttest_ind(values[:10], values[10:], equal_var=equal).statistic
        np.testing.assert_allclose(found[name].statistic, expected, rtol=1e-5)


def test_groups_and_slopes_that_are_those_of_clusters_are_not_tested():
    groups = pd.Series(pd.Categorical(["a", "b"] * 20))
    present, nothing = np.ones(40, bool), pd.DataFrame(index=range(40))
    mixed = pd.Series(np.repeat(["s", "t", "u", None], 10), name="site")
    design = design_groups(present, groups, ("a", "b"), nothing, min_group=5, attribute="kind", clusters=mixed)
    assert not design.note and design.clusters.tolist() == np.repeat([0, 1, 2, -1], 10).tolist()
    same = groups.map({"a": "s", "b": "t"}).astype(str).rename("site")
    design = design_groups(present, groups, ("a", "b"), nothing, min_group=5, attribute="kind", clusters=same)
    assert design.note == "nothing was tested: kind and site cannot be told apart here: " + (
        "all 20 in “a” have site s, all 20 in “b” have t"
    )
    steps = np.arange(40.0)
    assert not design_slope(present, steps, nothing, min_group=5, clusters=mixed).note
    steps = np.where(same == "s", 1.0, 2.0)
    note = design_slope(present, steps, nothing, min_group=5, clusters=same).note
    assert note == "nothing was tested along it: fewer than 10 people are of a cluster (site) in which it varies"


def test_the_studys_clusters_reach_the_designs_of_its_maps(tmp_path, rng):
    study = make_study(tmp_path, **{"cohort.cluster": "site"})
    names = [f"p{place:02d}" for place in range(40)]
    cohort = pd.DataFrame({"subject": names, "scan": names, "number": range(1, 41), "age": rng.uniform(20, 80, 40)})
    cohort["group_sex"] = pd.Categorical(["female", "male"] * 20)
    cohort["site"] = np.repeat(["a", "b", "c", None], 10)
    errors = rng.normal(size=(40, 6)).astype(np.float32)
    people = PeopleErrors(pd.Index(names, dtype=object), errors, np.abs(errors), (errors > 1).astype(np.float32))
    [one] = plan_tests(study, cohort, "exact", "organ", people, [], pd.Series(100.0, names), tmp_path)
    assert one.designs["signed"].clusters.tolist() == np.repeat([0, 1, 2, -1], 10).tolist()
