"""Means of subjects and groups, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.spatial.maps import (
    SUMMARY_COLUMNS,
    average_groups,
    average_subjects,
    group_subjects,
    list_map_columns,
    summarise_maps,
    tabulate_maps,
)

NAN = np.nan


def categories(values, order):
    return pd.Series(pd.Categorical(values, order, ordered=True))


def test_scans_of_one_person_count_once():
    errors = np.array([[1.0, NAN, NAN], [3.0, 5.0, NAN], [10.0, 20.0, 30.0]])
    means, subjects = average_subjects(errors, pd.Series(["b", "b", "a"]))
    assert subjects.tolist() == ["b", "a"]
    np.testing.assert_array_equal(means, [[2.0, 5.0, NAN], [10.0, 20.0, 30.0]])


def test_two_groups_are_subtracted_in_category_order():
    errors = np.array([[1.0, 2.0], [3.0, 2.0], [0.0, 5.0], [0.0, 7.0]])
    groups = categories(["female", "female", "male", "male"], ["female", "male"])
    maps = average_groups(errors, groups, min_group=2)
    np.testing.assert_array_equal(maps.means_mm["female"], [2.0, 2.0])
    np.testing.assert_array_equal(maps.means_mm["male"], [0.0, 6.0])
    assert (maps.group_a, maps.group_b) == ("female", "male")
    np.testing.assert_array_equal(maps.difference_mm, [2.0, -4.0])


def test_of_more_groups_the_last_is_compared_with_the_first():
    errors = np.array([[1.0], [2.0], [7.0]])
    maps = average_groups(errors, categories(["young", "middle", "old"], ["young", "middle", "old"]), min_group=1)
    assert (maps.group_a, maps.group_b) == ("old", "young")
    assert maps.difference_mm.tolist() == [6.0]


def test_small_groups_are_suppressed_and_not_compared():
    errors = np.array([[1.0], [2.0], [3.0], [4.0], [9.0]])
    groups = categories(["young", "young", "middle", "middle", "old"], ["young", "middle", "old"])
    maps = average_groups(errors, groups, min_group=2)
    assert np.isnan(maps.means_mm["old"]).all() and maps.counts["old"] == 1
    assert (maps.group_a, maps.group_b) == ("middle", "young")
    assert maps.difference_mm.tolist() == [2.0]


def test_one_group_left_gives_no_difference():
    groups = categories(["female", "female", "male"], ["female", "male"])
    maps = average_groups(np.array([[1.0], [2.0], [3.0]]), groups, min_group=2)
    assert maps.group_a is None and maps.group_b is None
    assert np.isnan(maps.difference_mm).all()


def test_missing_group_belongs_nowhere():
    groups = categories(["female", None, "male"], ["female", "male"])
    maps = average_groups(np.array([[1.0], [100.0], [3.0]]), groups, min_group=1)
    assert maps.counts == {"female": 1, "male": 1}
    assert maps.difference_mm.tolist() == [-2.0]


def test_a_vertex_too_few_of_a_group_have_is_suppressed():
    errors = np.array([[1.0, 1.0], [3.0, NAN], [0.0, 0.0], [0.0, 0.0]])
    groups = categories(["female", "female", "male", "male"], ["female", "male"])
    maps = average_groups(errors, groups, min_group=2)
    np.testing.assert_array_equal(maps.means_mm["female"], [2.0, NAN])
    np.testing.assert_array_equal(maps.difference_mm, [2.0, NAN])


def test_subject_keeps_the_group_of_the_first_scan_that_has_one():
    cohort = pd.DataFrame(
        {"subject": ["a", "a", "b"], "group_age": pd.Categorical([None, "old", "young"], ["young", "old"])}
    )
    groups = group_subjects(cohort, "age", pd.Index(["b", "a"]))
    assert groups.tolist() == ["young", "old"]
    assert groups.cat.categories.tolist() == ["young", "old"]


@pytest.fixture
def cohort():
    return pd.DataFrame(
        {
            "subject": ["a", "b", "c", "d"],
            "group_sex": pd.Categorical(["female", "female", "male", "male"], ["female", "male"]),
            "group_age": pd.Categorical(["young", "old", "young", "old"], ["young", "old"]),
        }
    )


def test_map_table_has_a_column_per_group_of_all_attributes(cohort):
    columns = list_map_columns(cohort)
    assert columns == [
        "model", "organ", "attribute", "vertex", "x", "y", "z",
        "error_female", "error_male", "error_young", "error_old", "group_a", "group_b", "difference",
    ]  # fmt: skip
    maps = average_groups(np.array([[1.0], [2.0], [5.0], [6.0]]), cohort["group_sex"], min_group=2)
    table = tabulate_maps("sam", "liver", "sex", np.array([[1.0, 2.0, 3.0]]), maps, columns)
    row = table.iloc[0]
    assert (row["x"], row["y"], row["z"], row["vertex"]) == (1.0, 2.0, 3.0, 0)
    assert (row["error_female"], row["error_male"], row["difference"]) == (1.5, 5.5, -4.0)
    assert np.isnan(row["error_young"]) and np.isnan(row["error_old"])
    assert table["difference"].dtype == np.float32


def test_summary_names_the_largest_difference_with_its_sign(cohort):
    errors = np.array([[1.0, -3.0, NAN], [1.0, -3.0, NAN], [0.0, 1.0, 9.0], [0.0, 1.0, 9.0]])
    maps = average_groups(errors, cohort["group_sex"], min_group=2)
    vertices = np.array([[0.0, 0, 0], [1.5, -2.5, 30.0], [9.0, 9, 9]])
    row = summarise_maps("sam", "liver", "sex", vertices, maps)
    assert list(row) == SUMMARY_COLUMNS
    assert (row["n"], row["n_a"], row["n_b"], row["vertices"]) == (4, 2, 2, 2)
    assert (row["peak_difference_mm"], row["peak_x"], row["peak_y"], row["peak_z"]) == (-4.0, 1.5, -2.5, 30.0)


def test_summary_without_a_difference_is_empty_not_zero(cohort):
    maps = average_groups(np.zeros((4, 3)), cohort["group_sex"], min_group=3)
    row = summarise_maps("sam", "liver", "sex", np.zeros((3, 3)), maps)
    assert (
        row["group_a"] is None and row["n_a"] is None and np.isnan(row["peak_difference_mm"]) and row["vertices"] == 0
    )
