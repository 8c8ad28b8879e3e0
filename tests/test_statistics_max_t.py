"""Max-T permutation: equality with slow loops of scipy, family-wise error, power, and what stays
where it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers.errors import SegfairError
from helpers.statistics import max_t as permutation
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import adjust_p_values, run_kruskal_wallis
from helpers.statistics.max_t import run_max_t, step_down


def draw_correlated(rng, subjects, columns, correlation, shape=()):
    common = rng.standard_normal((*shape, subjects, 1))
    own = rng.standard_normal((*shape, subjects, columns))
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own


def make_family(rng, subjects=60):
    """Six columns with ties and missing values; two groups with missing ones, and four groups."""
    values = draw_correlated(rng, subjects, 6, 0.6).round(1)
    values[rng.random(subjects) < 0.2, 1] = np.nan
    values[rng.random(subjects) < 0.3, 2:4] = np.nan
    groups = np.column_stack([rng.integers(-1, 2, subjects), rng.integers(0, 4, subjects)])
    values[groups[:, 1] == 3, 0] += 1.0
    return values, groups


def spy_permuted_labels(monkeypatch):
    """Return a list that fills with the labels of every permutation, per call."""
    seen = []
    original = permutation._Attribute.permute

    def permute(self, order):
        labels = original(self, order)
        whole = np.full((len(labels), len(self.codes)), -1)
        whole[:, self.members] = labels
        seen.append(whole)
        return labels

    monkeypatch.setattr(permutation._Attribute, "permute", permute)
    return seen


def test_equals_a_slow_loop_of_scipy(rng, monkeypatch):
    values, groups = make_family(rng)
    seen = spy_permuted_labels(monkeypatch)
    found = run_max_t(values, groups, permutations=40, seed=3)

    def test_slowly(labels):
        p = np.empty(values.shape[1])
        for column in range(values.shape[1]):
            known = np.isfinite(values[:, column]) & (labels >= 0)
            parts = [values[known & (labels == group), column] for group in range(labels.max() + 1)]
            p[column] = stats.kruskal(*parts).pvalue
        return p

    observed = np.array([test_slowly(labels) for labels in groups.T])
    drawn = np.array([[test_slowly(labels) for labels in whole] for whole in seen])  # attributes, permutations, columns
    count = 1 + (drawn <= observed[:, None] * (1 + 1e-9)).sum(axis=1)
    assert found.p == pytest.approx(count / 41)
    # Step-down by its definition: the most significant tests leave one after the other.
    left, largest, expected = list(np.ndindex(observed.shape)), 0.0, np.empty(observed.shape)
    for test in sorted(left, key=lambda place: observed[place]):
        minimum = np.min([drawn[a, :, c] for a, c in left], axis=0)
        largest = max(largest, (1 + (minimum <= observed[test] * (1 + 1e-9)).sum()) / 41)
        expected[test] = largest
        left.remove(test)
    assert found.p_step_down == pytest.approx(expected)


def test_observed_statistics_are_those_of_the_plain_test(rng):
    values, groups = make_family(rng)
    found = run_max_t(values, groups, permutations=1, seed=1)
    for place in range(2):
        expected = run_kruskal_wallis(GroupedValues(values, groups[:, place]))
        assert found.statistic[place] == pytest.approx(expected.statistic, rel=1e-10)


def test_permuted_labels_are_uniform_and_missing_ones_stay_missing(rng, monkeypatch):
    groups = np.array([[0, 0], [-1, 0], [1, 1], [2, -1], [-1, 1]])
    seen = spy_permuted_labels(monkeypatch)
    run_max_t(rng.random((5, 2)), groups, permutations=6000, seed=1)
    first, second = seen
    assert (first[:, [1, 4]] == -1).all() and (second[:, 3] == -1).all()
    orders, counts = np.unique(first[:, [0, 2, 3]], axis=0, return_counts=True)
    assert len(orders) == 6, "each of the 3! orders of three groups"
    assert stats.chisquare(counts).pvalue > 0.001
    orders, counts = np.unique(second[:, [0, 1, 2, 4]], axis=0, return_counts=True)
    assert len(orders) == 6 and stats.chisquare(counts).pvalue > 0.001


def test_attributes_that_go_together_stay_together(rng, monkeypatch):
    labels = rng.integers(0, 2, 80)
    other = labels.copy()
    other[:4] = -1
    seen = spy_permuted_labels(monkeypatch)
    run_max_t(rng.random((80, 1)), np.column_stack([labels, other]), permutations=50, seed=1)
    both = seen[1] >= 0
    assert (seen[0] == seen[1])[both].mean() > 0.9


def count_alarms(rng, families, values_of, groups, effect):
    alarms, found_max, found_holm = 0, 0, 0
    for _ in range(families):
        values = values_of()
        values[groups[:, 0] == 1] += effect
        found = run_max_t(values, groups, permutations=199, seed=int(rng.integers(2**31)))
        alarms += (found.p_step_down <= 0.05).any()
        found_max += (found.p_step_down[0] <= 0.05).sum()
        theory = [run_kruskal_wallis(GroupedValues(values, codes)).p for codes in groups.T]
        found_holm += (adjust_p_values(np.concatenate(theory), "holm") <= 0.05)[: values.shape[1]].sum()
    return alarms / families, found_max, found_holm


def test_one_family_in_twenty_gives_a_false_alarm(rng):
    groups = np.column_stack([np.arange(40) % 2, rng.integers(0, 3, 40)])
    rate, _, _ = count_alarms(rng, 600, lambda: draw_correlated(rng, 40, 15, 0.9), groups, 0.0)
    # 600 families: the standard error of 5 % is 0.9 %.
    assert 0.025 <= rate <= 0.077


def test_finds_more_than_holm_where_columns_are_correlated(rng):
    groups = np.column_stack([np.arange(40) % 2, rng.integers(0, 3, 40)])
    _, by_maximum, by_holm = count_alarms(rng, 60, lambda: draw_correlated(rng, 40, 15, 0.9), groups, 0.9)
    assert by_maximum > 1.2 * by_holm > 0


def test_other_columns_are_protected_where_one_differs(rng):
    groups = (np.arange(40) % 2)[:, None]
    alarms = 0
    for _ in range(300):
        values = draw_correlated(rng, 40, 8, 0.5)
        values[groups[:, 0] == 1, 0] += 3.0
        found = run_max_t(values, groups, permutations=199, seed=int(rng.integers(2**31)))
        assert found.p_step_down[0, 0] <= 0.05
        alarms += (found.p_step_down[0, 1:] <= 0.05).any()
    assert alarms / 300 <= 0.09


def test_step_down_is_never_below_the_plain_p(rng):
    found = run_max_t(*make_family(rng), permutations=300, seed=2)
    assert (found.p <= found.p_step_down + 1e-12).all()
    assert found.p.min() >= 1 / 301


def test_step_down_by_hand():
    # Four permutations of two tests. Largest: 3, 1, 2, 5.
    permuted = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0], [5.0, 1.0]])
    down = step_down(np.array([4.0, 1.5]), permuted)
    assert down.tolist() == [2 / 5, 2 / 5]  # second test alone: 2 ≥ 1.5


def test_results_depend_on_the_seed_and_not_on_chunks(rng, monkeypatch):
    values, groups = make_family(rng)
    first = run_max_t(values, groups, permutations=70, seed=9)
    assert not np.array_equal(first.p, run_max_t(values, groups, permutations=70, seed=10).p)
    monkeypatch.setattr(permutation, "_CHUNK_BYTES", 20_000)
    second = run_max_t(values, groups, permutations=70, seed=9)
    for name in ("statistic", "p", "p_step_down"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_small_groups_are_left_out(rng):
    values = rng.standard_normal((50, 3))
    groups = np.where(np.arange(50) < 4, 2, np.arange(50) % 2)[:, None]
    values[groups[:, 0] == 2] += 9.0
    without = np.where(groups == 2, -1, groups)
    found = run_max_t(values, groups, permutations=99, seed=1, smallest_group=5)
    expected = run_max_t(values, without, permutations=99, seed=1)
    assert np.array_equal(found.p, expected.p) and np.array_equal(found.statistic, expected.statistic)
    # Too small in one column alone: there two groups are compared, and in no permutation three.
    values[(groups[:, 0] == 1) & (np.arange(50) < 47), 1] = np.nan
    assert np.isnan(run_max_t(values, without, permutations=9, seed=1, smallest_group=5).p[0, 1])
    mixed = run_max_t(values, groups, permutations=99, seed=1, smallest_group=3)
    both = np.where(groups[:, 0] == 1, -1, groups[:, 0])
    assert mixed.p[0, 1] <= 0.02
    assert mixed.statistic[0, 1] == pytest.approx(
        run_kruskal_wallis(GroupedValues(values, both)).statistic[1], rel=0.02
    )


def test_a_group_missing_in_one_column_gives_no_false_alarms(rng):
    p = []
    for seed in range(300):
        values = rng.standard_normal((45, 2))
        groups = (np.arange(45) % 3)[:, None]
        values[groups[:, 0] == 2, 1] = np.nan
        p.append(run_max_t(values, groups, permutations=99, seed=seed).p[0])
    assert ((np.array(p) <= 0.1).mean(axis=0) < 0.15).all()


def test_degenerate_columns_have_no_test(rng):
    values = rng.random((20, 5))
    values[:, 1] = 0.1
    values[:, 2] = np.nan
    values[10:, 3] = np.nan
    groups = np.column_stack([np.arange(20) // 10, np.zeros(20, int), np.full(20, -1)])
    found = run_max_t(values, groups, permutations=20, seed=1)
    assert np.isfinite(found.p[0]).tolist() == [True, False, False, False, True]
    assert np.isnan(found.p[1:]).all() and np.isnan(found.p_step_down[1:]).all()
    empty = run_max_t(np.empty((0, 2)), np.empty((0, 1), int), permutations=5, seed=1)
    assert np.isnan(empty.p).all() and empty.p.shape == (1, 2)


def test_groups_that_do_not_overlap_are_as_significant_as_can_be():
    values = np.repeat([0.0, 1.0], 10)[:, None]
    assert run_max_t(values, values.astype(int), permutations=200, seed=1).p[0, 0] == 1 / 201


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"permutations": 0}, "at least 1"),
        ({"groups": np.zeros(4, int)}, "subjects, attributes"),
        ({"groups": np.zeros((3, 1), int)}, "for each of 4 subjects"),
        ({"groups": np.zeros((4, 1))}, "whole number"),
        ({"groups": np.full((4, 1), -2)}, "code the groups anew"),
        ({"values": np.zeros(4)}, "subjects, columns"),
    ],
)
def test_wrong_input_says_what_to_do(change, message):
    given = {"values": np.zeros((4, 2)), "groups": np.zeros((4, 1), int), "permutations": 5, "seed": 1} | change
    with pytest.raises(SegfairError, match=message):
        run_max_t(given.pop("values"), given.pop("groups"), **given)
