"""Gaps and summary measures, seen by eye."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from scipy import stats

from helpers.errors import SegfairError
from helpers.fairness.disparity import (
    SPREADS,
    estimate_disparities,
    find_best_and_worst,
    measure_disparities,
)
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.grouped_values import GroupedValues


def find_extremes(means, metric):
    """Return the codes of the best and the worst of some means."""
    means = np.asarray(means)[:, None]
    best, worst = find_best_and_worst(means, np.ones(means.shape, int), [metric])
    return best[0], worst[0]


def test_best_dice_is_the_highest_and_best_distance_the_lowest():
    assert find_extremes([0.80, 0.95, 0.90], "dice") == (1, 0)
    assert find_extremes([3.0, 1.0, 7.0], "hd95_mm") == (1, 2)


def test_equal_means_still_have_two_names():
    assert find_extremes([0.9, 0.9], "dice") == (0, 1)


def scale_equity(overall, means):
    """FairSeg's own formula (Tian et al. 2024): overall / (1 + Σ|overall − group mean|)."""
    return overall / (1 + np.abs(overall - means).sum())


def divide_errors(means):
    """The skewed error ratio (Puyol-Antón et al. 2021): largest over smallest mean error."""
    return (1 - means).max() / (1 - means).min()


def make_columns(rng, groups=3, subjects=60):
    codes = rng.integers(-1, groups, subjects)
    values = np.clip(rng.normal(0.85, 0.08, (subjects, 4)) - 0.03 * codes[:, None], 0, 1)
    values[rng.random(subjects) < 0.2, 1] = np.nan
    values[:, 3] = 20 * (1 - values[:, 3])
    return values, codes, ["dice", "nsd", "iou", "hd95_mm"]


def measure_observed(values, codes, metrics, smallest_group=1):
    """Return the measures of the data themselves, by name, and each group against the rest."""
    grouped = GroupedValues(values, codes)
    drawn = np.full((1, grouped.groups, values.shape[1]), np.nan)
    whole = estimate_disparities(grouped, metrics, drawn, smallest_group=smallest_group)
    sizes = np.where(grouped.moments.n >= smallest_group, grouped.moments.n, 0)
    found = measure_disparities(grouped.moments.mean, sizes, metrics, whole.best, whole.worst)
    against = found.pop("against_rest")
    for name in SPREADS:
        np.testing.assert_array_equal(whole.spreads[name].estimate, found[name])
    np.testing.assert_array_equal(whole.gap, found["gap"])
    np.testing.assert_array_equal(whole.against_rest, against)
    return found, against, whole


def test_every_measure_by_hand():
    # Two people in group 0 (mean 0.7), one in each of the others (0.9, 0.8).
    values, codes = np.array([[0.6], [0.8], [0.9], [0.8], [0.1]]), np.array([0, 0, 1, 2, -1])
    found, against, whole = measure_observed(values, codes, ["dice"])
    overall, sd = 3.1 / 4, np.sqrt(2 / 300)
    assert {name: part[0] for name, part in found.items()} == pytest.approx(
        {
            "overall": overall,
            "gap": 0.2,
            "sd_groups": sd,
            "ser": 3.0,
            "es": overall / (1 + 0.075 + 0.125 + 0.025),
            "es_fairmedfm": overall / (1 + sd),
        }
    )
    assert against[:, 0] == pytest.approx([0.7 - 0.85, 0.9 - 2.2 / 3, 0.8 - 2.3 / 3])
    assert (whole.best[0], whole.worst[0]) == (1, 0)
    assert set(SPREADS) < set(found)


def test_distances_turn_round_and_have_no_ratio_or_scaling():
    values, codes = np.array([[3.0], [1.0], [7.0]]), np.array([0, 1, 2])
    found, against, whole = measure_observed(values, codes, ["hd95_mm"])
    assert (whole.best[0], whole.worst[0], found["gap"][0]) == (1, 2, 6.0)
    assert against[:, 0].tolist() == [4.0 - 3.0, 5.0 - 1.0, 2.0 - 7.0]
    assert all(np.isnan(found[name][0]) for name in ("ser", "es", "es_fairmedfm"))
    assert found["sd_groups"][0] == pytest.approx(np.std([3.0, 1.0, 7.0]))


def test_columns_at_once_agree_with_one_at_a_time(rng):
    values, codes, metrics = make_columns(rng)
    found, against, whole = measure_observed(values, codes, metrics)
    for column, metric in enumerate(metrics):
        known = np.isfinite(values[:, column]) & (codes >= 0)
        means = np.array([values[known & (codes == group), column].mean() for group in range(3)])
        best, worst = (np.argmin, np.argmax) if metric == "hd95_mm" else (np.argmax, np.argmin)
        assert (whole.best[column], whole.worst[column]) == (best(means), worst(means))
        assert found["gap"][column] == pytest.approx(np.ptp(means))
        overall = values[known, column].mean()
        assert found["overall"][column] == pytest.approx(overall)
        rest = [values[known & (codes != group), column].mean() for group in range(3)]
        assert against[:, column] == pytest.approx((means - rest) * (1 if metric != "hd95_mm" else -1))
        if metric != "hd95_mm":
            assert found["es"][column] == pytest.approx(scale_equity(overall, means))
            assert found["ser"][column] == pytest.approx(divide_errors(means))


def test_agrees_with_the_package_of_fairmedfm(rng):
    fairmedfm = pytest.importorskip("fairmedfm", reason="the reference of FairMedFM's measures is not installed")
    values, codes, metrics = make_columns(rng, groups=4)
    found, _, _ = measure_observed(values, codes, metrics)
    for column in range(3):
        known = np.isfinite(values[:, column]) & (codes >= 0)
        dice, group = values[known, column], codes[known]
        for name, theirs in (
            ("overall", lambda dice, sensitive_features: dice.mean()),
            ("gap", fairmedfm.dice_gap),
            ("sd_groups", fairmedfm.dice_std),
            ("ser", fairmedfm.dice_skewness),
            ("es_fairmedfm", fairmedfm.equity_scaled_dice),
        ):
            assert found[name][column] == pytest.approx(theirs(dice, sensitive_features=group), rel=1e-12), name


@settings(max_examples=40, deadline=None)
@given(seed=strategies.integers(0, 2**32 - 1), groups=strategies.integers(2, 5))
def test_equal_groups_have_no_disparity_and_others_some(seed, groups):
    generator = np.random.default_rng(seed)
    values = np.tile(generator.uniform(0.1, 0.9, (1, 3)), (4 * groups, 1))
    codes = np.arange(4 * groups) % groups
    found, against, _ = measure_observed(values, codes, ["dice"] * 3)
    assert found["gap"] == pytest.approx(0, abs=1e-12) and found["sd_groups"] == pytest.approx(0, abs=1e-12)
    assert found["ser"] == pytest.approx(1) and against == pytest.approx(0, abs=1e-12)
    assert found["es"] == pytest.approx(values[0]) and found["es_fairmedfm"] == pytest.approx(values[0])
    values[codes == 0] -= 0.05
    found, against, _ = measure_observed(values, codes, ["dice"] * 3)
    assert found["gap"] == pytest.approx(0.05) and (found["ser"] > 1).all()
    # Either scaling lowers the overall score, the sum more than the standard deviation.
    assert (found["es"] < found["es_fairmedfm"]).all() and (found["es_fairmedfm"] < found["overall"]).all()
    assert (against[0] < 0).all() and (against[1:] > 0).all()


def test_small_and_missing_groups_take_no_part(rng):
    values, codes, metrics = make_columns(rng)
    values[codes == 2, 1] = np.nan
    values[np.flatnonzero(codes == 0)[3:], 2] = np.nan
    found, against, whole = measure_observed(values, codes, metrics, smallest_group=5)
    two = np.where(codes == 2, -1, codes)
    expected, _, _ = measure_observed(values, two, metrics, smallest_group=5)
    for name in found:
        assert found[name][1] == pytest.approx(expected[name][1], nan_ok=True)
    assert np.isnan(against[2, 1]) and np.isnan(against[0, 2]) and np.isfinite(against[1:, 2]).all()
    assert {whole.best[2], whole.worst[2]} == {1, 2}


def test_fewer_than_two_groups_give_nothing(rng):
    values, _, metrics = make_columns(rng)
    for codes in (np.zeros(60, int), np.full(60, -1)):
        found, against, whole = measure_observed(values, codes, metrics)
        assert all(np.isnan(part).all() for part in found.values()) and np.isnan(against).all()
        assert (whole.best == -1).all() and (whole.worst == -1).all()


def test_a_perfect_group_has_no_ratio():
    found, _, _ = measure_observed(np.array([[1.0], [0.5]]), np.array([0, 1]), ["dice"])
    assert np.isnan(found["ser"][0]) and found["gap"][0] == 0.5


def test_intervals_of_spreads_are_made_of_the_deviations_by_a_slow_loop(rng):
    values, codes, metrics = make_columns(rng)
    drawn = Resamples(codes, 400, 1, tuple("abc")).draw_means(values)
    found = estimate_disparities(GroupedValues(values, codes), metrics, drawn).spreads
    for column in range(3):
        known = [values[(codes == group) & np.isfinite(values[:, column]), column] for group in range(3)]
        means, sizes = np.array([part.mean() for part in known]), np.array([len(part) for part in known])
        overall, wider = np.average(means, weights=sizes), np.sqrt(sizes / (sizes - 1))
        moved = [wider * (row - means) for row in drawn[:, :, column]]
        logs = [wider * (np.log(1 - row) - np.log(1 - means)) for row in drawn[:, :, column]]

        def reach(sizes, share):
            return np.sort(sizes)[int(np.ceil(share * len(sizes))) - 1]

        off = reach([row.std() for row in moved], 0.95)
        assert found["sd_groups"].low[column] == pytest.approx(max(means.std() - off, 0))
        assert found["sd_groups"].high[column] == pytest.approx(means.std() + off)
        off = reach([np.ptp(row) for row in logs], 0.95)
        ratio = divide_errors(means)
        assert found["ser"].low[column] == pytest.approx(max(ratio / np.exp(off), 1))
        assert found["ser"].high[column] == pytest.approx(ratio * np.exp(off))
        shift = reach([abs(np.average(row, weights=sizes)) for row in moved], 0.975)
        spread = np.abs(overall - means).sum()
        off = reach([np.abs(row - np.average(row, weights=sizes)).sum() for row in moved], 0.975)
        assert found["es"].low[column] == pytest.approx((overall - shift) / (1 + spread + off))
        assert found["es"].high[column] == pytest.approx(min(overall + shift, 1) / (1 + max(spread - off, 0)))
        off = reach([row.std() for row in moved], 0.975)
        expected = min(overall + shift, 1) / (1 + max(means.std() - off, 0))
        assert found["es_fairmedfm"].high[column] == pytest.approx(expected)


@pytest.mark.parametrize("apart", [0.0, 0.03])
def test_intervals_of_spreads_hold_the_truth_with_and_without_a_disparity(apart):
    generator = np.random.default_rng(5)
    codes, metrics, cohorts = np.repeat([0, 1, 2], 30), ["dice"] * 40, 5
    truth = np.array([0.9, 0.9, 0.9 - apart])
    expected = {
        "sd_groups": truth.std(), "ser": divide_errors(truth), "es": scale_equity(truth.mean(), truth),
        "es_fairmedfm": truth.mean() / (1 + truth.std()),
    }  # fmt: skip
    held = dict.fromkeys(expected, 0)
    for cohort in range(cohorts):
        # Skewed, as Dice is: errors are lognormal.
        errors = (1 - truth)[codes][:, None] * np.exp(0.6 * generator.standard_normal((90, 40)) - 0.18)
        drawn = Resamples(codes, 300, cohort, tuple("abc")).draw_means(1 - errors)
        found = estimate_disparities(GroupedValues(1 - errors, codes), metrics, drawn).spreads
        for name, value in expected.items():
            held[name] += int(((found[name].low <= value + 1e-12) & (value - 1e-12 <= found[name].high)).sum())
    # 95 % but for the Monte-Carlo error of 200 columns.
    assert all(count >= stats.binom.ppf(0.005, 40 * cohorts, 0.95) for count in held.values()), held


def test_wrong_metrics_say_what_to_do(rng):
    values, codes, metrics = make_columns(rng)
    drawn = np.full((1, 3, 4), np.nan)
    with pytest.raises(SegfairError, match="each of 4 columns"):
        estimate_disparities(GroupedValues(values, codes), metrics[:2], drawn)
    with pytest.raises(SegfairError, match="got 'accuracy'"):
        estimate_disparities(GroupedValues(values, codes), ["accuracy", *metrics[1:]], drawn)
