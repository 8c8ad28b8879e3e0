"""People in groups: averaging scans, pooling organs, per-group summaries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.errors import SegfairError
from helpers.fairness.groups import average_subjects, list_groups, read_covariates, summarise_group


def make_cohort(**groups) -> pd.DataFrame:
    n = len(next(iter(groups.values())))
    table = pd.DataFrame(
        {"subject": [f"p{i}" for i in range(n)], "scan": [f"c{i}" for i in range(n)], "number": range(1, n + 1)}
    )
    for name, values in groups.items():
        order = list(dict.fromkeys(value for value in values if value is not None))
        table[f"group_{name}"] = pd.Categorical(values, order, ordered=True)
    return table


def make_metrics(cohort: pd.DataFrame, **organs) -> pd.DataFrame:
    parts = [cohort[["subject", "scan"]].assign(model="m", organ=name, dice=dice) for name, dice in organs.items()]
    return pd.concat(parts, ignore_index=True)


def test_repeated_scans_of_one_subject_count_once():
    cohort = make_cohort(sex=["female", "female", "male"])
    cohort["subject"] = ["a", "a", "b"]
    people, notes = average_subjects(make_metrics(cohort, liver=[0.6, 0.8, 0.9]), cohort, ["sex"], ["dice"])
    assert people["subject"].tolist() == ["a", "b"]
    assert people["dice"].tolist() == pytest.approx([0.7, 0.9])
    assert people["scans"].tolist() == [2, 1]
    assert people["number"].tolist() == [1, 3]
    assert any("1 subject has several scans" in note for note in notes)


def test_a_subject_whose_scans_are_in_several_groups_is_in_none():
    cohort = make_cohort(age=["young", "old", "old"])
    cohort["subject"] = ["a", "a", "b"]
    metrics = make_metrics(cohort, liver=[0.6, 0.8, 0.9])
    people, notes = average_subjects(metrics, cohort.iloc[::-1], ["age"], ["dice"])
    groups = people.set_index("subject")["group_age"]
    assert groups["b"] == "old" and pd.isna(groups["a"])
    assert any("1 subjects have scans in several age groups" in note for note in notes)


def test_a_group_known_from_a_later_scan_is_used():
    cohort = make_cohort(age=[None, "old", None])
    cohort["subject"] = ["a", "a", "b"]
    people, notes = average_subjects(make_metrics(cohort, liver=[0.6, 0.8, 0.9]), cohort, ["age"], ["dice"])
    assert people["group_age"].astype("object").where(people["group_age"].notna(), None).tolist() == ["old", None]
    assert any("1 subjects have no known age group" in note for note in notes)


def test_pooled_value_is_the_plain_mean_where_all_organs_are_there():
    cohort = make_cohort(sex=["female", "male"])
    people, _ = average_subjects(make_metrics(cohort, liver=[0.9, 0.7], aorta=[0.5, 0.3]), cohort, ["sex"], ["dice"])
    pooled = people[people["organ"] == "all"]
    assert pooled["dice"].tolist() == pytest.approx([0.7, 0.5])
    assert people["organ"].tolist() == ["liver", "liver", "aorta", "aorta", "all", "all"]


def test_pooled_value_does_not_favour_who_lacks_the_hard_organ():
    # Means: liver 0.9, aorta 0.5, together 0.7. Who has only a liver, exactly average, is average.
    cohort = make_cohort(sex=["female", "male", "male"])
    people, notes = average_subjects(
        make_metrics(cohort, liver=[0.9, 0.8, 1.0], aorta=[np.nan, 0.4, 0.6]), cohort, ["sex"], ["dice"]
    )
    pooled = people[people["organ"] == "all"].set_index("subject")
    assert pooled["dice"].to_dict() == pytest.approx({"p0": 0.7, "p1": 0.6, "p2": 0.8})
    assert pooled["organs_measured"].to_dict() == {"p0": 1, "p1": 2, "p2": 2}
    assert any("1 subjects lack a value" in note for note in notes)


def test_one_organ_is_not_pooled():
    cohort = make_cohort(sex=["female", "male"])
    people, _ = average_subjects(make_metrics(cohort, liver=[0.9, 0.7]), cohort, ["sex"], ["dice"])
    assert people["organ"].unique().tolist() == ["liver"]


def test_volume_error_is_absolute_so_that_signs_do_not_cancel():
    cohort = make_cohort(sex=["female", "female"])
    cohort["subject"] = ["a", "a"]
    metrics = make_metrics(cohort, liver=[0.9, 0.9]).assign(volume_error_ml=[-4.0, 2.0])
    people, _ = average_subjects(metrics, cohort, ["sex"], ["volume_error_ml"])
    assert people["volume_error_ml"].tolist() == [3.0]


def test_a_scan_unknown_to_the_cohort_is_refused():
    cohort = make_cohort(sex=["female", "male"])
    metrics = make_metrics(cohort, liver=[0.9, 0.7])
    with pytest.raises(SegfairError, match="1 scans that the cohort does not have"):
        average_subjects(metrics, cohort.iloc[:1], ["sex"], ["dice"])


def test_a_scan_listed_twice_is_refused():
    cohort = make_cohort(sex=["female", "male"])
    with pytest.raises(
        SegfairError, match=r"cohort has more than one row for a scan \(2 too many; the first: c0\): keep one"
    ):
        average_subjects(make_metrics(cohort, liver=[0.9, 0.7]), pd.concat([cohort, cohort]), ["sex"], ["dice"])


def test_infinite_values_are_missing_and_counted():
    # Two organs: with an infinite value the mean of the organ, and so everybody's pooled value,
    # would be lost.
    cohort = make_cohort(sex=["female", "male", "male"])
    metrics = make_metrics(cohort, liver=[0.9, 0.8, 1.0], aorta=[0.5, 0.4, 0.6])
    metrics["hd95_mm"] = [np.inf, 2.0, 4.0, 6.0, 7.0, 8.0]
    people, notes = average_subjects(metrics, cohort, ["sex"], ["dice", "hd95_mm"])
    pooled = people[people["organ"] == "all"].set_index("subject")["hd95_mm"]
    # Means: liver 3, aorta 7, together 5. The first person is 1 below the aorta's mean.
    assert pooled.to_dict() == pytest.approx({"p0": 4.0, "p1": 4.5, "p2": 6.0})
    assert "hd95_mm: 1 infinite value counts as missing" in notes
    assert np.isinf(metrics["hd95_mm"][0]), "the table given is left as it was"


@pytest.mark.parametrize(("attributes", "names", "lost"), [(["bmi"], ["dice"], "group_bmi"), (["sex"], ["nsd"], "nsd")])
def test_missing_columns_are_named(attributes, names, lost):
    cohort = make_cohort(sex=["female", "male"])
    with pytest.raises(SegfairError, match=lost):
        average_subjects(make_metrics(cohort, liver=[0.9, 0.7]), cohort, attributes, names)


def test_covariates_are_those_of_the_first_scan_where_they_are_known():
    cohort = make_cohort(sex=["female", "female", "male"]).assign(
        subject=["a", "a", "b"], number=[2, 1, 3], age=[50.0, np.nan, 40.0], scanner=["x", "y", None]
    )
    found = read_covariates(cohort, ["b", "a"], ["age", "scanner"])
    assert found["age"].to_dict() == {"b": 40.0, "a": 50.0}
    assert found["scanner"].fillna("?").to_dict() == {"b": "?", "a": "y"}
    with pytest.raises(SegfairError, match="bmi"):
        read_covariates(cohort, ["a"], ["bmi"])


def test_summary_of_six_values_by_hand():
    values = np.array([[1.0, np.nan], [2.0, 5.0], [3.0, np.nan], [4.0, np.nan], [10.0, np.nan], [np.nan, np.nan]])
    found = summarise_group(values)
    assert found["n"].tolist() == [5, 1]
    assert found["mean"].tolist() == [4.0, 5.0]
    assert found["median"].tolist() == [3.0, 5.0]
    assert (found["q1"][0], found["q3"][0]) == (2.0, 4.0)
    assert found["sd"][0] == pytest.approx(np.sqrt((9 + 4 + 1 + 0 + 36) / 4))
    assert np.isnan(found["sd"][1])


def test_summary_of_nobody_is_missing():
    found = summarise_group(np.empty((0, 2)))
    assert found["n"].tolist() == [0, 0]
    assert np.isnan(found["mean"]).all()


def test_groups_keep_their_order():
    column = pd.Series(pd.Categorical(["b", "a", None], ["b", "a", "c"], ordered=True))
    assert list_groups(column) == ["b", "a", "c"]
    assert list_groups(pd.Series(["b", "a", None, "b"])) == ["a", "b"]
