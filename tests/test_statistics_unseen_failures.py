from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers.statistics.equivalence import judge_columns
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.unseen_failures import Allowance, UnseenFailures, widen_interval

HIGHER = np.array([1.0])


def find(values, codes, sign=HIGHER, worst=0.0):
    values = np.asarray(values, float).reshape(len(codes), -1)
    return UnseenFailures.find(GroupedValues(values, np.asarray(codes)), sign, np.full(values.shape[1], worst))


def draw_dice(generator, number, failing):
    """Return Dice of 0.9 ± 0.05, of which a share is 0."""
    dice = np.clip(generator.normal(0.9, 0.05, number), 0, 1)
    return np.where(generator.random(number) < failing, 0.0, dice)


def test_a_group_without_failures_may_have_three_in_n_where_others_fail():
    # 15 people at 0.9; 20 people at 0.9, of whom two are at 0.
    found = find([0.9] * 33 + [0.0, 0.0], [0] * 15 + [1] * 20)
    assert found.failed.ravel().tolist() == [0, 2] and found.unseen.ravel().tolist() == [True, False]
    upper = 1 - 0.05 ** (1 / 15)  # Clopper–Pearson's for none of 15
    assert found.reach_unseen(0.05).ravel() == pytest.approx([upper * 0.9, 0.0])
    worse, better = found.reach_mixture(0.05)
    share = stats.binomtest(2, 20).proportion_ci(0.9, "exact")
    assert worse.ravel() == pytest.approx([upper * 0.9, (share.high - 0.1) * 0.9])
    assert better.ravel() == pytest.approx([0.0, (0.1 - share.low) * 0.9])


def test_nothing_is_widened_where_nobody_fails_or_a_metric_has_no_worst_value():
    generator = np.random.default_rng(1)
    codes = np.repeat([0, 1], [15, 300])
    assert not find(draw_dice(generator, 315, 0.0), codes).reach_unseen(0.025).any()
    distances = generator.lognormal(1.0, 0.5, 315)
    distances[-1] = 400.0
    found = find(distances, codes, -HIGHER, np.inf)
    assert found.failed.ravel().tolist() == [0, 1] and not found.reach_unseen(0.025).any()
    # Equivalence does allow for another one as bad as the worst.
    assert found.reach_mixture(0.05)[0][0, 0] > 0.18 * 390


def test_lower_is_better_fails_upwards_and_the_wider_side_follows():
    dice = draw_dice(np.random.default_rng(2), 60, 0.0)
    dice[:3] = 0.0
    codes = np.repeat([0, 1], 30)
    up, down = find(dice, codes), find(1 - dice, codes, -HIGHER, 1.0)
    assert up.reach_unseen(0.025) == pytest.approx(down.reach_unseen(0.025))
    settings = {"margin": np.array([0.02]), "p_adjusted": np.array([0.5])}
    one = judge_columns(GroupedValues(dice[:, None], codes), **settings, failures=up)
    other = judge_columns(GroupedValues(1 - dice[:, None], codes), **settings, failures=down)
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    assert one.low_equivalence == pytest.approx(-other.high_equivalence)
    # The second group may fail unseen: its mean may be lower, the difference first − second larger.
    plain = judge_columns(GroupedValues(dice[:, None], codes), **settings)
    assert one.low == pytest.approx(plain.low) and one.high > plain.high + 0.01


def test_equivalence_is_refused_where_failures_may_be_unseen_and_given_to_many_people():
    generator = np.random.default_rng(3)
    for number, verdict in ((100, "inconclusive"), (400, "equivalent")):
        values = GroupedValues(generator.normal(0.9, 0.02, (2 * number, 1)), np.repeat([0, 1], number))
        failures = UnseenFailures.find(values, HIGHER, np.zeros(1))
        plain, judged = (
            judge_columns(values, np.array([0.02]), np.array([0.5]), failures=part) for part in (None, failures)
        )
        assert plain.verdict.tolist() == ["equivalent"] and not plain.refused.any()
        assert judged.verdict.tolist() == [verdict] and judged.refused.tolist() == [number == 100]


@pytest.mark.parametrize("failing", [(0.05, 0.0), (0.03, 0.0), (0.0, 0.03)])
def test_failures_of_one_group_alone_are_seldom_called_equivalent(failing):
    generator = np.random.default_rng(4)
    sizes = (30, 300)
    columns = [
        np.column_stack([draw_dice(generator, n, share) for _ in range(500)])
        for n, share in zip(sizes, failing, strict=True)
    ]
    values = GroupedValues(np.vstack(columns), np.repeat([0, 1], sizes))
    failures = UnseenFailures.find(values, np.ones(500), np.zeros(500))
    margin, untested = np.full(500, 0.02), np.full(500, np.nan)
    wrong = [
        (judge_columns(values, margin, untested, failures=part).verdict == "equivalent").mean()
        for part in (None, failures)
    ]
    assert wrong[1] <= 0.05
    if failing[0]:
        assert wrong[0] > 0.05  # without: more than one in twenty


def test_groups_of_nobody_of_one_and_of_failures_alone_have_finite_reach():
    found = find([0.9, 0.0, 0.0, np.nan], [0, 1, 1, 2])
    for part in (*found.reach_mixture(0.05), found.reach_unseen(0.05)):
        assert np.isfinite(part[:2]).all()
    assert find(np.full((4, 1), np.nan), [0, 0, 1, 1]).failed.ravel().tolist() == [0, 0]
    assert UnseenFailures.find(GroupedValues(np.empty((3, 2)), np.full(3, -1)), np.ones(2), np.zeros(2)).loss.size == 0


def test_distances_to_the_ends_are_combined_as_squares():
    off = Allowance(np.array([4.0]), np.array([0.0]))
    low, high = widen_interval(np.array([1.0]), np.array([-2.0]), np.array([4.0]), off)
    assert (low, high) == (pytest.approx([-4.0]), pytest.approx([4.0]))
