"""Matching: known pairs, balance by hand, what confounding does before and after, who is lost, dull
inputs."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from helpers.fairness import matching as matching_module
from helpers.fairness.matching import BALANCE_COLUMNS, MATCHED_COLUMNS, match_pairs, measure_matched_gaps


def make_people(rng, n=300):
    """Two groups that differ in age by a third of its range, at two sites."""
    group = rng.choice(["a", "b"], n)
    return group, pd.DataFrame(
        {
            "age": rng.normal(50, 10, n) + 6 * (group == "a"),
            "bmi": rng.normal(27, 4, n),
            "site": rng.choice(["north", "south"], n),
        }
    )


def test_twins_find_each_other(rng):
    ages = rng.permutation(np.arange(20.0, 80.0, 3.0))
    group = np.array(["a"] * 20 + ["b"] * 20)
    twin = rng.permutation(20)
    covariates = pd.DataFrame({"age": np.append(ages, ages[twin] + 0.01)})
    found = match_pairs(group, covariates, "a", "b")
    assert found.pairs.tolist() == [[one, 20 + int(np.flatnonzero(twin == one)[0])] for one in range(20)]
    assert (len(found.pairs), found.lost_first, found.lost_second) == (20, 0, 0)


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setattr(matching_module, "CALIPER", 1e6)


def test_the_whole_is_best_not_each_in_turn(wide):
    # The nearest pair, 12 with 11.5, would leave 10 with 15: 5.5 in all. 10 with 11.5 and 12 with
    # 15 cost 4.5.
    group = np.array(["a", "a", "b", "b"])
    ages = np.array([10.0, 12.0, 11.5, 15.0])
    found = match_pairs(group, pd.DataFrame({"age": ages}), "a", "b", min_group=1)
    assert found.pairs.tolist() == [[0, 2], [1, 3]]


def test_total_distance_is_the_smallest_of_all_pairings(rng, wide):
    group = np.repeat(["a", "b"], 6)
    covariates = pd.DataFrame({"age": rng.normal(size=12), "bmi": rng.normal(size=12)})
    found = match_pairs(group, covariates, "a", "b", min_group=2)
    inside = np.vstack([part - part.mean(axis=0) for part in np.split(covariates.to_numpy(), 2)])
    inverse = np.linalg.inv(inside.T @ inside / 10)
    offset = covariates.to_numpy()[:6, None] - covariates.to_numpy()[None, 6:]
    distance = np.sqrt(np.einsum("abi,ij,abj->ab", offset, inverse, offset))
    best = min(distance[range(6), order].sum() for order in itertools.permutations(range(6)))
    assert distance[found.pairs[:, 0], found.pairs[:, 1] - 6].sum() == pytest.approx(best)


def test_caliper_keeps_strangers_apart(rng):
    group = np.repeat(["a", "b"], 40)
    age = np.append(rng.normal(50, 5, 40), rng.normal(50, 5, 40))
    age[:5] = 90 + np.arange(5)  # nobody of b is that old
    found = match_pairs(group, pd.DataFrame({"age": age}), "a", "b")
    assert not np.isin(found.pairs[:, 0], np.arange(5)).any()
    assert found.lost_first >= 5 and len(found.pairs) + found.lost_first == 40


def test_categories_are_matched_exactly(rng):
    group, covariates = make_people(rng)
    found = match_pairs(group, covariates, "a", "b")
    sites = covariates["site"].to_numpy()[found.pairs]
    assert (sites[:, 0] == sites[:, 1]).all() and len(found.pairs) > 80
    assert len(np.unique(found.pairs)) == found.pairs.size  # without replacement
    assert (group[found.pairs] == ["a", "b"]).all()
    levels = found.balance[found.balance["covariate"] == "site"]
    assert levels["smd_after"].to_numpy() == pytest.approx(0, abs=1e-12)


def test_balance_by_hand(wide):
    group = np.repeat(["a", "b"], 4)
    covariates = pd.DataFrame({"age": [1.0, 2, 3, 4, 3, 4, 5, 6], "sex": ["f", "f", "f", "m", "f", "m", "m", "m"]})
    found = match_pairs(group, covariates, "a", "b", min_group=2)
    balance = found.balance.set_index(["covariate", "level"])
    # Both variances are 5/3: the ages differ by −2 / √(5/3). Shares of women 3/4 and 1/4, both with
    # variance 3/16.
    assert balance.loc[("age", ""), "smd_before"] == pytest.approx(-2 / np.sqrt(5 / 3))
    assert balance.loc[("age", ""), "variance_ratio_before"] == pytest.approx(1.0)
    assert balance.loc[("sex", "f"), ["mean_a", "mean_b"]].tolist() == [0.75, 0.25]
    assert balance.loc[("sex", "f"), "smd_before"] == pytest.approx(0.5 / np.sqrt(3 / 16))
    # One pair of each sex is left: the woman of b (3) with the nearest (3), the man of a (4) with
    # the nearest (4).
    assert found.pairs.tolist() == [[2, 4], [3, 5]]
    assert balance.loc[("age", ""), "smd_after"] == 0


def test_matching_takes_the_confounding_out_of_the_gap():
    rng = np.random.default_rng(2)
    gaps, crude, alarms, differences = [], [], [], []
    for _ in range(40):
        group, covariates = make_people(rng)
        values = 0.9 - 0.004 * covariates["age"].to_numpy()[:, None] + rng.normal(0, 0.02, (300, 10))
        matching = match_pairs(group, covariates, "a", "b")
        found = measure_matched_gaps(values, matching, ["dice"] * 10)
        gaps.append(found["gap"].mean())
        alarms.append((found["p"] < 0.05).mean())
        crude.append(values[group == "a"].mean() - values[group == "b"].mean())
        differences.append(matching.balance.loc[0, ["smd_before", "smd_after"]].astype(float).to_list())
    before, after = np.abs(differences).mean(axis=0)
    assert before > 0.5 and after < 0.06
    assert np.mean(crude) == pytest.approx(-0.024, abs=0.003)
    assert abs(np.mean(gaps)) < 0.0025  # a tenth is left, of the age that still differs within calipers
    assert np.mean(alarms) < 0.15


def test_gap_interval_and_p_are_the_paired_t_test(rng):
    group, covariates = make_people(rng)
    matching = match_pairs(group, covariates, "a", "b")
    values = rng.uniform(size=(300, 2))
    values[matching.pairs[:3, 1], 1] = np.nan
    found = measure_matched_gaps(values, matching, ["dice", "hd95_mm"])
    expected = stats.ttest_rel(*values[matching.pairs, 0].T)
    assert found.loc[0, "p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert found.loc[0, ["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])
    assert found["n_pairs"].tolist() == [len(matching.pairs), len(matching.pairs) - 3]
    one, other = values[matching.pairs[3:], 1].T
    assert found.loc[1, "gap"] == pytest.approx((other - one).mean())  # of a distance, lower is better


def test_order_of_rows_does_not_matter(rng):
    group, covariates = make_people(rng, 120)
    covariates["age"] = covariates["age"].round(-1)  # many equals
    covariates.index = [f"subject {number:03d}" for number in range(120)]
    order = rng.permutation(120)
    first = match_pairs(group, covariates, "a", "b")
    second = match_pairs(group[order], covariates.iloc[order], "a", "b")
    names = covariates.index.to_numpy()
    assert {tuple(pair) for pair in names[first.pairs]} == {tuple(pair) for pair in names[order][second.pairs]}
    pd.testing.assert_frame_equal(first.balance, second.balance)


def test_people_without_a_covariate_are_counted(rng):
    group, covariates = make_people(rng)
    covariates.loc[:9, "age"] = np.nan
    covariates.loc[5:14, "site"] = None
    found = match_pairs(group, covariates, "a", "b")
    assert len(found.pairs) * 2 + found.lost_first + found.lost_second == 285
    assert not np.isin(found.pairs, np.arange(15)).any()


def test_a_third_group_takes_no_part(rng):
    group, covariates = make_people(rng)
    group = group.astype(object)
    group[:50], group[50:60] = "c", None
    found = match_pairs(group, covariates, "a", "b")
    assert found.pairs.min() >= 60 and len(found.pairs) * 2 + found.lost_first + found.lost_second == 240


def test_rare_levels_show_no_figure(rng):
    group, covariates = make_people(rng)
    covariates.loc[:3, "site"] = "tiny"
    balance = match_pairs(group, covariates, "a", "b").balance.set_index(["covariate", "level"])
    assert balance.loc[("site", "tiny"), "suppressed"]
    assert balance.loc[("site", "tiny")].drop("suppressed").isna().all()
    assert not balance.loc[("site", "north"), "suppressed"]


def test_what_stays_unbalanced_is_warned_of(rng, monkeypatch):
    group = np.repeat(["a", "b"], 60)
    age = np.append(rng.normal(56, 8, 60), rng.normal(50, 8, 60))
    assert match_pairs(group, pd.DataFrame({"age": age}), "a", "b").warnings == ()
    monkeypatch.setattr(matching_module, "CALIPER", 1e6)
    warned = match_pairs(group, pd.DataFrame({"age": age}), "a", "b").warnings
    assert warned == ("age stays unbalanced after matching",)


@pytest.mark.parametrize(
    ("group", "covariates", "why"),
    [
        (np.repeat("a", 40), {"age": np.arange(40.0)}, "two groups of at least 10"),
        (np.array(["a"] * 35 + ["b"] * 5), {"age": np.arange(40.0)}, "two groups of at least 10"),
        (np.array([None] * 40, object), {"age": np.arange(40.0)}, "two groups of at least 10"),
        (np.tile(["a", "b"], 20), {"age": np.full(40, np.nan)}, "two groups of at least 10"),
        (np.repeat(["a", "b"], 20), {"age": np.arange(40.0)}, "the groups and age cannot be told apart"),
        (np.repeat(["a", "b"], 20), {"site": np.repeat(["n", "s"], 20)}, "all 20 in “b” have s"),
        (np.repeat(["a", "b"], 20), {}, "no covariate"),
    ],
)
def test_what_cannot_be_matched_says_why(group, covariates, why):
    matching = match_pairs(group, pd.DataFrame(covariates, index=range(40)), "a", "b")
    assert why in matching.note and len(matching.pairs) == 0 and matching.pairs.shape == (0, 2)
    assert list(matching.balance.columns) == BALANCE_COLUMNS
    gaps = measure_matched_gaps(np.zeros((40, 1)), matching, ["dice"])
    assert why in gaps.loc[0, "note"] and gaps[["gap", "low", "high", "p"]].isna().all(axis=None)
    assert list(gaps.columns) == MATCHED_COLUMNS


def test_a_constant_covariate_and_twins_do_no_harm(rng):
    group, covariates = make_people(rng)
    more = covariates.assign(fixed=3.0, months=covariates["age"] * 12)
    assert len(match_pairs(group, more, "a", "b").pairs) == len(match_pairs(group, covariates, "a", "b").pairs)


def test_constant_and_missing_scores_have_no_interval(rng):
    group, covariates = make_people(rng)
    matching = match_pairs(group, covariates, "a", "b")
    values = np.column_stack([np.full(300, 0.7), np.full(300, np.nan)])
    found = measure_matched_gaps(values, matching, ["dice", "dice"])
    assert found["low"].isna().all() and found["p"].isna().all()
    assert "same amount" in found.loc[0, "note"] and "only 0 pairs" in found.loc[1, "note"]


@settings(max_examples=50, deadline=None)
@given(
    group=hnp.arrays(object, 24, elements=st.sampled_from(["a", "b", None])),
    age=hnp.arrays(float, 24, elements=st.sampled_from([1.0, 2.0, 3.5, 9.0, np.nan])),
    site=hnp.arrays(object, 24, elements=st.sampled_from(["n", "s", None])),
)
def test_dull_input_gives_pairs_or_a_note(group, age, site):
    covariates = pd.DataFrame({"age": age, "site": pd.Series(site, dtype=object)})
    matching = match_pairs(group, covariates, "a", "b", min_group=3)
    assert bool(matching.note) == (len(matching.pairs) == 0)
    assert len(matching.pairs) in (0, *range(3, 13))


def test_a_whole_study_is_matched_within_a_second(rng):
    group, covariates = make_people(rng, 1056)
    start = time.perf_counter()
    measure_matched_gaps(rng.uniform(size=(1056, 120)), match_pairs(group, covariates, "a", "b"), ["dice"] * 120)
    assert time.perf_counter() - start < 2


def test_many_people_are_matched_in_slices_of_their_score(rng, monkeypatch):
    number = 300
    groups = np.repeat(["a", "b"], [100, 200]).astype(object)
    age = rng.normal(50, 10, number) + 3 * (groups == "a")
    people = pd.DataFrame({"age": age}, index=[f"p{place:03d}" for place in range(number)])
    whole = match_pairs(groups, people, "a", "b")
    monkeypatch.setattr(matching_module, "LARGEST_STRATUM", 60)
    parts = match_pairs(groups, people, "a", "b")
    assert len(np.unique(parts.pairs)) == 2 * len(parts.pairs) >= 2 * 0.8 * len(whole.pairs)
    # Slices of 60 people: nobody is paired across their edges.
    order = np.argsort(np.argsort(age)) // 60
    assert (order[parts.pairs[:, 0]] == order[parts.pairs[:, 1]]).all()
    assert (order[whole.pairs[:, 0]] != order[whole.pairs[:, 1]]).any()
