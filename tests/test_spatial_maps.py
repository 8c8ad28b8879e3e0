"""Means of subjects and groups, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.spatial.maps import average_groups, average_people, choose_pair, group_subjects

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


def test_two_groups_are_subtracted_in_category_order():
    errors = np.array([[1.0, 2.0], [3.0, 2.0], [0.0, 5.0], [0.0, 7.0]])
    groups = categories(["female", "female", "male", "male"], ["female", "male"])
    maps = average_groups(errors, groups, min_group=2)
    np.testing.assert_array_equal(maps.means["female"], [2.0, 2.0])
    np.testing.assert_array_equal(maps.means["male"], [0.0, 6.0])
    assert (maps.group_a, maps.group_b) == ("female", "male")
    np.testing.assert_array_equal(maps.difference, [2.0, -4.0])


def test_of_more_groups_the_last_is_compared_with_the_first():
    errors = np.array([[1.0], [2.0], [7.0]])
    maps = average_groups(errors, categories(["young", "middle", "old"], ["young", "middle", "old"]), min_group=1)
    assert (maps.group_a, maps.group_b) == ("old", "young")
    assert maps.difference.tolist() == [6.0]


def test_small_groups_are_suppressed_and_not_compared():
    errors = np.array([[1.0], [2.0], [3.0], [4.0], [9.0]])
    groups = categories(["young", "young", "middle", "middle", "old"], ["young", "middle", "old"])
    maps = average_groups(errors, groups, min_group=2)
    assert np.isnan(maps.means["old"]).all() and maps.counts["old"] == 1
    assert (maps.group_a, maps.group_b) == ("middle", "young")
    assert maps.difference.tolist() == [2.0]


def test_one_group_left_gives_no_difference():
    groups = categories(["female", "female", "male"], ["female", "male"])
    maps = average_groups(np.array([[1.0], [2.0], [3.0]]), groups, min_group=2)
    assert maps.group_a is None and maps.group_b is None
    assert np.isnan(maps.difference).all()


def test_missing_group_belongs_nowhere():
    groups = categories(["female", None, "male"], ["female", "male"])
    maps = average_groups(np.array([[1.0], [100.0], [3.0]]), groups, min_group=1)
    assert maps.counts == {"female": 1, "male": 1}
    assert maps.difference.tolist() == [-2.0]


def test_a_vertex_too_few_of_a_group_have_is_suppressed():
    errors = np.array([[1.0, 1.0], [3.0, NAN], [0.0, 0.0], [0.0, 0.0]])
    groups = categories(["female", "female", "male", "male"], ["female", "male"])
    maps = average_groups(errors, groups, min_group=2)
    np.testing.assert_array_equal(maps.means["female"], [2.0, NAN])
    np.testing.assert_array_equal(maps.difference, [2.0, NAN])


def test_subject_has_the_group_of_all_scans_that_have_one():
    groups = ["old", None, "old", "young", "young", "old"]
    cohort = pd.DataFrame({"subject": list("aaabcc"), "group_age": pd.Categorical(groups, ["young", "old"])})
    groups = group_subjects(cohort, "age", pd.Index(["b", "a", "c"]))
    assert groups.tolist()[:2] == ["young", "old"] and pd.isna(groups["c"]), "c has scans in both"
    assert groups.cat.categories.tolist() == ["young", "old"]


def test_another_measure_takes_the_pair_that_was_chosen():
    groups = categories(["young", "young", "old", "old", "oldest"], ["young", "old", "oldest"])
    maps = average_groups(np.arange(5.0)[:, None], groups, min_group=1, pair=("old", "young"))
    assert (maps.group_a, maps.group_b) == ("old", "young") and maps.difference.tolist() == [2.0]


def test_pair_is_chosen_by_order_and_size_alone():
    assert choose_pair(["female", "male"], ()) == ("female", "male")
    assert choose_pair(["young", "middle", "old"], ()) == ("old", "young")
    assert choose_pair(["young", "middle", "old"], ("young",)) == ("old", "middle")
    assert choose_pair(["female", "male"], ("male",)) == (None, None)
