"""Means of subjects and groups, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.spatial import maps
from helpers.spatial.maps import average_groups, average_people, choose_pair, group_subjects
from helpers.spatial.surface_tests import _draw_people

NAN = np.nan


def categories(values, order):
    return pd.Series(pd.Categorical(values, order, ordered=True))


def average(errors, subjects, missed=(), missed_subjects=(), tolerance_mm=3.0):
    missed = np.array(missed, bool).reshape(len(missed_subjects), np.shape(errors)[1])
    return average_people(np.array(errors), subjects, missed, missed_subjects, tolerance_mm=tolerance_mm)


def test_scans_of_one_person_count_once():
    people = average([[1.0, NAN, NAN], [-3.0, 5.0, NAN], [10.0, 20.0, 3.0]], ["b", "b", "a"])
    assert people.subjects.tolist() == ["b", "a"]
    np.testing.assert_array_equal(people.signed_mm, [[-1.0, 5.0, NAN], [10.0, 20.0, 3.0]])
    np.testing.assert_array_equal(people.absolute_mm, [[2.0, 5.0, NAN], [10.0, 20.0, 3.0]])
    # 3 mm is not beyond a tolerance of 3 mm.
    np.testing.assert_array_equal(people.miss, [[0.0, 1.0, NAN], [1.0, 1.0, 0.0]])


def test_a_missed_organ_is_a_miss_wherever_the_scan_shows_it_and_has_no_distance():
    people = average([[1.0, 1.0]], ["a"], [[True, False], [True, True]], ["a", "b"])
    np.testing.assert_array_equal(people.signed_mm, [[1.0, 1.0], [NAN, NAN]])
    np.testing.assert_array_equal(people.miss, [[0.5, 0.0], [1.0, 1.0]])
    assert people.measured.tolist() == [True, False]


def test_parts_in_files_give_what_the_whole_gives_in_memory(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    errors = np.where(rng.random((40, 7)) < 0.2, NAN, rng.normal(0, 3, (40, 7))).astype(np.float32)
    subjects = [f"p{number}" for number in rng.integers(0, 23, 40)]
    missed, missed_subjects = rng.random((5, 7)) < 0.5, ["p1", "p2", "p2", "new", "p9"]
    whole = average_people(errors, subjects, missed, missed_subjects, tolerance_mm=3.0)
    groups = categories(rng.choice(["a", "b"], len(whole.subjects)), ["a", "b"])
    means = average_groups(whole.signed_mm, groups, min_group=3)
    monkeypatch.setattr(maps, "_VALUES_TOGETHER", 30)
    parts = average_people(errors, subjects, missed, missed_subjects, tolerance_mm=3.0, folder=tmp_path)
    assert isinstance(parts.signed_mm, np.memmap) and parts.subjects.tolist() == whole.subjects.tolist()
    for name in ("signed_mm", "absolute_mm", "miss"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_array_equal(np.load(tmp_path / "miss.npy"), whole.miss)
    again = average_groups(parts.signed_mm, groups, min_group=3)
    np.testing.assert_array_equal(again.difference, means.difference)
    assert again.counts == means.counts


def test_of_too_many_people_small_groups_are_tested_whole():
    groups, draw = np.repeat([0, 1, 2], [3, 50, 100]), np.random.default_rng(1).integers(0, 1 << 62, 153)
    assert _draw_people(groups, draw, 153).all()
    drawn = _draw_people(groups, draw, 43)
    assert np.bincount(groups[drawn]).tolist() == [3, 20, 20]
    order = np.random.default_rng(2).permutation(153)
    assert (_draw_people(groups[order], draw[order], 43) == drawn[order]).all(), "whatever the order of people"


def test_two_groups_are_subtracted_in_category_order():
    errors = np.array([[1.0, 2.0], [3.0, 2.0], [0.0, 5.0], [0.0, 7.0]])
    groups = categories(["female", "female", "male", "male"], ["female", "male"])
    found = average_groups(errors, groups, min_group=2)
    np.testing.assert_array_equal(found.means["female"], [2.0, 2.0])
    np.testing.assert_array_equal(found.means["male"], [0.0, 6.0])
    assert (found.group_a, found.group_b) == ("female", "male")
    np.testing.assert_array_equal(found.difference, [2.0, -4.0])


def test_of_more_groups_the_last_is_compared_with_the_first():
    errors = np.array([[1.0], [2.0], [7.0]])
    found = average_groups(errors, categories(["young", "middle", "old"], ["young", "middle", "old"]), min_group=1)
    assert (found.group_a, found.group_b) == ("old", "young")
    assert found.difference.tolist() == [6.0]


def test_small_groups_are_suppressed_and_not_compared():
    errors = np.array([[1.0], [2.0], [3.0], [4.0], [9.0]])
    groups = categories(["young", "young", "middle", "middle", "old"], ["young", "middle", "old"])
    found = average_groups(errors, groups, min_group=2)
    assert np.isnan(found.means["old"]).all() and found.counts["old"] == 1
    assert (found.group_a, found.group_b) == ("middle", "young")
    assert found.difference.tolist() == [2.0]


def test_one_group_left_gives_no_difference():
    groups = categories(["female", "female", "male"], ["female", "male"])
    found = average_groups(np.array([[1.0], [2.0], [3.0]]), groups, min_group=2)
    assert found.group_a is None and found.group_b is None
    assert np.isnan(found.difference).all()


def test_missing_group_belongs_nowhere():
    groups = categories(["female", None, "male"], ["female", "male"])
    found = average_groups(np.array([[1.0], [100.0], [3.0]]), groups, min_group=1)
    assert found.counts == {"female": 1, "male": 1}
    assert found.difference.tolist() == [-2.0]


def test_a_vertex_too_few_of_a_group_have_is_suppressed():
    errors = np.array([[1.0, 1.0], [3.0, NAN], [0.0, 0.0], [0.0, 0.0]])
    groups = categories(["female", "female", "male", "male"], ["female", "male"])
    found = average_groups(errors, groups, min_group=2)
    np.testing.assert_array_equal(found.means["female"], [2.0, NAN])
    np.testing.assert_array_equal(found.difference, [2.0, NAN])


def test_subject_has_the_group_of_all_scans_that_have_one():
    groups = ["old", None, "old", "young", "young", "old"]
    cohort = pd.DataFrame({"subject": list("aaabcc"), "group_age": pd.Categorical(groups, ["young", "old"])})
    groups = group_subjects(cohort, "age", pd.Index(["b", "a", "c"]))
    assert groups.tolist()[:2] == ["young", "old"] and pd.isna(groups["c"]), "c has scans in both"
    assert groups.cat.categories.tolist() == ["young", "old"]


def test_another_measure_takes_the_pair_that_was_chosen():
    groups = categories(["young", "young", "old", "old", "oldest"], ["young", "old", "oldest"])
    found = average_groups(np.arange(5.0)[:, None], groups, min_group=1, pair=("old", "young"))
    assert (found.group_a, found.group_b) == ("old", "young") and found.difference.tolist() == [2.0]


def test_pair_is_chosen_by_order_and_size_alone():
    assert choose_pair(["female", "male"], ()) == ("female", "male")
    assert choose_pair(["young", "middle", "old"], ()) == ("old", "young")
    assert choose_pair(["young", "middle", "old"], ("young",)) == ("old", "middle")
    assert choose_pair(["female", "male"], ("male",)) == (None, None)
