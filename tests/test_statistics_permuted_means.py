"""The test that decides: equality with slow loops, levels where distributions differ, the tail, and
max-T."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from helpers.errors import SegfairError
from helpers.statistics import permuted_means as permutation
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import adjust_p_values
from helpers.statistics.permutation_tail import even_out, find_permutation_p, step_down
from helpers.statistics.permuted_means import permute_means


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


def permute(values, groups, **given):
    return permute_means([GroupedValues(values, codes) for codes in groups.T], **given)


def adjust_all(found):
    return found.differences.adjust(np.ones(found.differences.p.shape, bool))


def spy_permuted_labels(monkeypatch):
    """Return a list that fills with the labels of every permutation, per call."""
    seen = []
    original = permutation._Attribute.permute

    def spy(self, order):
        labels = original(self, order)
        whole = np.full((len(labels), len(self.codes)), -1)
        whole[:, self.members] = labels
        seen.append(whole)
        return labels

    monkeypatch.setattr(permutation._Attribute, "permute", spy)
    return seen


def find_slowly(values, labels):
    """Return −log p of the largest difference of each column by plain loops: Welch's t, Wallace's
    normal deviate, Bonferroni over pairs."""
    evidence = np.empty(values.shape[1])
    for column in range(values.shape[1]):
        known = np.isfinite(values[:, column]) & (labels >= 0)
        parts = [values[known & (labels == group), column] for group in range(labels.max() + 1)]
        largest, pairs = 0.0, 0
        for first in range(len(parts)):
            for second in range(first):
                pairs += 1
                one, other = parts[first], parts[second]
                if min(len(one), len(other)) < 2:
                    continue
                result = stats.ttest_ind(one, other, equal_var=False)
                t, df = result.statistic, result.df
                deviate = (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t**2 / df))
                largest = max(largest, deviate)
        evidence[column] = -np.log(2 * stats.norm.sf(largest)) - np.log(pairs)
    return evidence


def test_equals_a_slow_loop(rng, monkeypatch):
    values, groups = make_family(rng)
    seen = spy_permuted_labels(monkeypatch)
    found = permute(values, groups, permutations=40, seed=3)
    observed = np.array([find_slowly(values, labels) for labels in groups.T])
    # attributes, permutations, columns
    drawn = np.array([[find_slowly(values, labels) for labels in whole] for whole in seen])
    assert found.differences.evidence == pytest.approx(observed, rel=1e-9)
    count = 1 + (drawn >= observed[:, None] - 1e-9).sum(axis=1)
    assert found.differences.p == pytest.approx(count / 41)
    drawn, observed = even_out(drawn.transpose(1, 0, 2).reshape(40, -1), observed.ravel())
    drawn, observed = drawn.reshape(40, *groups.T.shape[:1], -1).transpose(1, 0, 2), observed.reshape(2, -1)
    # Step-down by its definition: the most significant tests leave one after the other.
    left, largest, expected = list(np.ndindex(observed.shape)), 0.0, np.empty(observed.shape)
    for test in sorted(left, key=lambda place: -observed[place]):
        top = np.max([drawn[a, :, c] for a, c in left], axis=0)
        largest = max(largest, (1 + (top >= observed[test] - 1e-9).sum()) / 41)
        expected[test] = max(largest, found.differences.p[test])
        left.remove(test)
    assert adjust_all(found) == pytest.approx(expected)


def test_of_two_groups_it_is_welchs_t(rng):
    values, groups = make_family(rng)
    found = permute(values, groups, permutations=100, seed=1).differences
    for column in range(6):
        known = np.isfinite(values[:, column])
        one, other = (values[known & (groups[:, 0] == code), column] for code in (0, 1))
        assert found.statistic[0, column] == pytest.approx(abs(stats.ttest_ind(one, other, equal_var=False).statistic))
        assert found.estimate[0, column] == pytest.approx(abs(one.mean() - other.mean()))


def test_permuted_labels_are_uniform_and_missing_ones_stay_missing(rng, monkeypatch):
    groups = np.array([[0, 0], [-1, 0], [1, 1], [0, -1], [-1, 1], [1, 1]])
    seen = spy_permuted_labels(monkeypatch)
    permute(rng.random((6, 2)), groups, permutations=6000, seed=1)
    first, second = seen
    assert (first[:, [1, 4]] == -1).all() and (second[:, 3] == -1).all()
    orders, counts = np.unique(first[:, [0, 2, 3, 5]], axis=0, return_counts=True)
    assert len(orders) == 6, "each of the ways to choose two of four"
    assert stats.chisquare(counts).pvalue > 0.001
    orders, counts = np.unique(second[:, [0, 1, 2, 4, 5]], axis=0, return_counts=True)
    assert len(orders) == 10 and stats.chisquare(counts).pvalue > 0.001


def test_attributes_that_go_together_stay_together(rng, monkeypatch):
    labels = rng.integers(0, 2, 80)
    other = labels.copy()
    other[:4] = -1
    seen = spy_permuted_labels(monkeypatch)
    permute(rng.random((80, 1)), np.column_stack([labels, other]), permutations=50, seed=1)
    both = seen[1] >= 0
    assert (seen[0] == seen[1])[both].mean() > 0.9


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.standard_normal((n, 200)),
        lambda rng, n: np.where(rng.random((n, 200)) < 0.05, 0.0, 0.9 + 0.03 * rng.standard_normal((n, 200))),
    ],
    ids=["normal", "one in 20 a total failure"],
)
@pytest.mark.parametrize("sizes", [(15, 300), (12, 20, 30)])
def test_groups_of_one_distribution_are_told_apart_in_one_test_of_twenty(rng, draw, sizes):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    p = np.concatenate(
        [
            permute(draw(rng, len(codes)), codes[:, None], permutations=199, seed=seed).differences.p[0]
            for seed in range(5)
        ]
    )
    # 1,000 tests: the standard error of 5 % is 0.7 %. Ties, as in failures, make it less.
    assert (p <= 0.05).mean() <= 0.068


def test_unequal_spread_is_no_difference_of_means(rng):
    codes = np.repeat([0, 1], [40, 120])
    spread = np.where(codes == 0, 2.0, 1.0)[:, None]
    p = permute(spread * rng.standard_normal((160, 1000)), codes[:, None], permutations=199, seed=1).differences.p[0]
    assert 0.03 <= (p <= 0.05).mean() <= 0.07
    # Equal medians, and means that differ: a tenth fails in one group, and none in the other.
    values = 0.9 + 0.02 * rng.standard_normal((400, 50))
    failed = (np.arange(400) < 40)[:, None] & np.ones((1, 50), bool)
    found = permute(np.where(failed, 0.0, values), np.repeat([[0], [1]], 200, axis=0), permutations=999, seed=1)
    assert (found.differences.p <= 0.001).all()


def count_alarms(rng, families, values_of, groups, effect):
    alarms, found_max, found_holm = 0, 0, 0
    for _ in range(families):
        values = values_of()
        values[groups[:, 0] == 1] += effect
        found = permute(values, groups, permutations=199, seed=int(rng.integers(2**31)))
        joint = adjust_all(found)
        alarms += (joint <= 0.05).any()
        found_max += (joint[0] <= 0.05).sum()
        found_holm += (adjust_p_values(found.differences.p.ravel(), "holm") <= 0.05)[: values.shape[1]].sum()
    return alarms / families, found_max, found_holm


def test_one_family_in_twenty_gives_a_false_alarm(rng):
    groups = np.column_stack([np.arange(40) % 2, rng.integers(0, 3, 40)])
    rate, _, _ = count_alarms(rng, 400, lambda: draw_correlated(rng, 40, 15, 0.9), groups, 0.0)
    # 400 families: the standard error of 5 % is 1.1 %.
    assert 0.02 <= rate <= 0.08


def test_finds_more_than_holm_where_columns_are_correlated(rng):
    groups = np.column_stack([np.arange(40) % 2, rng.integers(0, 3, 40)])
    _, by_maximum, by_holm = count_alarms(rng, 60, lambda: draw_correlated(rng, 40, 15, 0.9), groups, 0.9)
    assert by_maximum > 1.2 * by_holm


def test_a_joint_p_is_never_below_the_plain_one_and_only_for_the_chosen(rng):
    found = permute(*make_family(rng), permutations=300, seed=2).differences
    chosen = np.zeros(found.p.shape, bool)
    chosen[1, :3] = True
    joint = found.adjust(chosen)
    assert np.isfinite(joint).tolist() == chosen.tolist()
    assert (joint[chosen] >= found.p[chosen]).all()
    every = found.adjust(np.ones(found.p.shape, bool))
    assert (joint[chosen] <= every[chosen]).all(), "a smaller family asks for less"


def test_one_test_of_heavy_tails_takes_no_power_from_the_others(rng):
    permuted = rng.exponential(size=(2000, 20)) * np.r_[5.0, np.ones(19)]
    observed = np.r_[1.0, 9.0, np.ones(18)]
    scaled, moved = even_out(permuted, observed)
    assert (np.diff(np.sort(scaled, axis=0), axis=0) >= 0).all()
    for column in range(20):
        order = np.argsort(permuted[:, column])
        assert (np.diff(scaled[order, column]) >= 0).all(), "the order stays"
    assert np.quantile(scaled, 0.99, axis=0) == pytest.approx(np.full(20, np.log(100)), rel=0.08)
    assert step_down(moved, scaled)[1] < 0.02 < 0.1 < step_down(observed, permuted)[1]


def test_step_down_by_hand():
    # Four permutations of two tests. Largest: 3, 1, 2, 5.
    permuted = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0], [5.0, 1.0]])
    down = step_down(np.array([4.0, 1.5]), permuted)
    assert down.tolist() == [2 / 5, 2 / 5]  # second test alone: 2 ≥ 1.5


def test_results_depend_on_the_seed_and_not_on_chunks(rng, monkeypatch):
    values, groups = make_family(rng)
    first = permute(values, groups, permutations=70, seed=9).differences
    assert not np.array_equal(first.p, permute(values, groups, permutations=70, seed=10).differences.p)
    monkeypatch.setattr(permutation, "_CHUNK_BYTES", 20_000)
    second = permute(values, groups, permutations=70, seed=9).differences
    for name in ("statistic", "p", "permuted"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), rel=1e-12)


def test_small_groups_are_left_out(rng):
    values = rng.standard_normal((50, 3))
    groups = np.where(np.arange(50) < 4, 2, np.arange(50) % 2)[:, None]
    values[groups[:, 0] == 2] += 9.0
    without = np.where(groups == 2, -1, groups)
    found = permute(values, groups, permutations=99, seed=1, smallest_group=5).differences
    expected = permute(values, without, permutations=99, seed=1).differences
    assert np.array_equal(found.p, expected.p) and np.array_equal(found.statistic, expected.statistic)
    # Too small in one column alone: there two groups are compared, and in no permutation three.
    values[(groups[:, 0] == 1) & (np.arange(50) < 47), 1] = np.nan
    assert np.isnan(permute(values, without, permutations=9, seed=1, smallest_group=5).differences.p[0, 1])
    mixed = permute(values, groups, permutations=99, seed=1, smallest_group=3).differences
    both = np.where(groups[:, 0] == 1, -1, groups[:, 0] // 2)
    assert mixed.p[0, 1] <= 0.02
    assert mixed.statistic[0, 1] == permute(values, both[:, None], permutations=1, seed=1).differences.statistic[0, 1]


def test_a_group_missing_in_one_column_gives_no_false_alarms(rng):
    p = []
    for seed in range(300):
        values = rng.standard_normal((45, 2))
        groups = (np.arange(45) % 3)[:, None]
        values[groups[:, 0] == 2, 1] = np.nan
        p.append(permute(values, groups, permutations=99, seed=seed).differences.p[0])
    assert ((np.array(p) <= 0.1).mean(axis=0) < 0.15).all()


def test_degenerate_columns_have_no_test(rng):
    values = rng.random((20, 5))
    values[:, 1] = 0.1
    values[:, 2] = np.nan
    values[10:, 3] = np.nan
    groups = np.column_stack([np.arange(20) // 10, np.zeros(20, int), np.full(20, -1)])
    found = permute(values, groups, permutations=20, seed=1)
    assert np.isfinite(found.differences.p[0]).tolist() == [True, False, False, False, True]
    assert np.isnan(found.differences.p[1:]).all() and np.isnan(adjust_all(found)[1:]).all()
    empty = permute(np.empty((0, 2)), np.empty((0, 1), int), permutations=5, seed=1)
    assert np.isnan(empty.differences.p).all() and empty.differences.p.shape == (1, 2)
    assert permute_means([], permutations=5, seed=1).differences.p.shape == (0, 0)


def test_groups_that_do_not_vary_and_differ_are_as_significant_as_permutations_can_say():
    values = np.repeat([0.0, 1.0], 10)[:, None]
    assert permute(values, values.astype(int), permutations=2000, seed=1).differences.p[0, 0] == 1 / 2001


def test_a_trend_over_ordered_groups(rng):
    codes = np.repeat(np.arange(4), [40, 30, 20, 10])
    steps = 0.3 * codes[:, None] + rng.standard_normal((100, 4))
    steps[:, 1] = rng.standard_normal(100)
    steps[:, 2] -= 0.9 * codes
    found = permute_means([GroupedValues(steps, codes)] * 2, permutations=999, seed=1, ordered=[True, False])
    trends, weights = found.trends, np.array([-1.5, -0.5, 0.5, 1.5])
    for column in range(4):
        parts = [steps[codes == group, column] for group in range(4)]
        means = np.array([part.mean() for part in parts])
        error = np.sqrt(sum(w**2 * part.var(ddof=1) / len(part) for w, part in zip(weights, parts, strict=True)))
        assert trends.estimate[0, column] == pytest.approx(weights @ means / 5)
        assert trends.statistic[0, column] == pytest.approx(weights @ means / error)
    assert trends.p[0, 0] < 0.05 > trends.p[0, 2] and trends.estimate[0, 2] < 0
    assert trends.p[0, 0] < found.differences.p[0, 0], "asked for, a trend is found more surely than any difference"
    assert np.isnan(trends.p[1]).all()
    two = permute_means([GroupedValues(steps, codes // 2)], permutations=99, seed=1, ordered=[True]).trends
    assert np.isnan(two.p).all(), "of two groups the trend is the difference"


# Beyond the permutations


def test_a_p_value_beyond_the_permutations_is_near_the_true_one_and_rather_too_large(rng):
    ratios = []
    for seed in range(4):
        values = rng.standard_normal((200, 150))
        values[:100] += rng.uniform(0.5, 1.0, 150)
        codes = np.repeat([0, 1], 100)
        p = permute(values, codes[:, None], permutations=2000, seed=seed).differences.p[0]
        truth = stats.ttest_ind(values[:100], values[100:], equal_var=False).pvalue
        far = truth < 1e-5
        ratios.append(np.log10(p[far]) - np.log10(truth[far]))
    ratios = np.concatenate(ratios)
    assert len(ratios) > 200 and ratios.min() >= -1e-9, "never below Welch's own"
    assert np.median(ratios) < 1.5


def test_a_certain_gap_is_found_among_hundreds(rng):
    """A gap of 0.037 in 1,959 people, of Welch p about 1e-20, in a family of 19 models × 9
    organs."""
    codes = np.repeat([0, 1], [872, 1087])
    values = rng.normal(0.85, 0.12, (1959, 19 * 9))
    values[codes == 0, 0] -= 0.037
    p = permute(values, codes[:, None], permutations=1000, seed=1).differences.p[0]
    assert adjust_p_values(p, "holm")[0] < 1e-4 and (adjust_p_values(p, "holm")[1:] > 0.05).all()


def test_a_tail_that_does_not_fit_is_not_extrapolated(rng):
    permuted = rng.exponential(size=(5000, 3))
    permuted[:, 1] = np.where(rng.random(5000) < 0.02, 50.0, permuted[:, 1])  # a lump far out
    observed = np.array([20.0, 60.0, 20.0])
    p = find_permutation_p(permuted, observed, np.array([0.0, 0.0, np.nan]))
    assert np.exp(-20) <= p[0] < 1e-4
    assert p[1] == p[2] == 1 / 5001
    assert find_permutation_p(permuted[:499], observed[:1], np.zeros(1))[0] == 1 / 500, "too few for a tail"
    assert find_permutation_p(permuted, observed[:1].repeat(3), np.full(3, 1e-5))[0] == 1e-5


def test_a_p_value_is_never_below_one_in_the_ways_to_assign_people(rng):
    values = np.r_[rng.random(5), 50 + rng.random(5)][:, None]
    p = permute(values, np.repeat([[0], [1]], 5, axis=0), permutations=5000, seed=1).differences.p[0, 0]
    assert p >= 1 / special.binom(10, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"permutations": 0}, "at least 1"),
        ({"groups": [np.zeros(3, int)]}, "for each of 4 subjects"),
        ({"groups": [np.full(4, -2)]}, "code the groups anew"),
        ({"values": np.zeros(4)}, "subjects, columns"),
    ],
)
def test_wrong_input_says_what_to_do(change, message):
    given = {"values": np.zeros((4, 2)), "groups": [np.zeros(4, int)], "permutations": 5, "seed": 1} | change
    with pytest.raises(SegfairError, match=message):
        permute_means(
            [GroupedValues(given["values"], codes) for codes in given.pop("groups")],
            **{name: given[name] for name in ("permutations", "seed")},
        )


def test_attributes_of_other_people_are_refused():
    one, other = (GroupedValues(np.zeros((n, 2)), np.zeros(n, int)) for n in (4, 5))
    with pytest.raises(SegfairError, match="the same values"):
        permute_means([one, other], permutations=5, seed=1)
