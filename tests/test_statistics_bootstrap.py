"""Resampling subjects: draws, means and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers.errors import SegfairError
from helpers.statistics import bootstrap
from helpers.statistics.bootstrap import draw_counts, draw_group_means, resample_means
from helpers.statistics.intervals import SortedDraws, accelerate, find_bca_interval, find_intervals, take_means


def test_every_resample_has_as_many_subjects_as_the_group():
    counts = draw_counts(7, 300, seed=1, stream="sex")
    assert counts.shape == (300, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == np.round(counts)).all() and counts.max() > 1


def test_counts_are_those_of_a_multinomial():
    counts = draw_counts(6, 20_000, seed=2, stream="sex")
    # Of 6 subjects drawn 6 times each count has variance 6 · (1/6)(5/6), each two the covariance −6/36; its error is about 0.01.
    assert np.cov(counts.T) == pytest.approx(np.where(np.eye(6), 5 / 6, -1 / 6), abs=0.04)
    assert counts.mean(axis=0) == pytest.approx(1.0, abs=0.03)


def test_shares_and_quantiles_are_read_from_the_draws_there_are():
    drawn = SortedDraws.sort(np.array([[3.0, np.nan], [1.0, 5.0], [2.0, np.inf], [2.0, 4.0]]))
    assert drawn.number.tolist() == [4, 2]
    assert drawn.find_share(np.array([2.0, 4.5])).tolist() == [0.5, 0.5]  # ties count half
    assert drawn.find_quantile(np.array([1.0, 0.5])).tolist() == [3.0, 4.5]
    empty = SortedDraws.sort(np.full((3, 1), np.nan))
    assert np.isnan([empty.find_share(np.zeros(1))[0], empty.find_quantile(np.full(1, 0.5))[0]]).all()


def test_draws_depend_on_seed_and_stream_alone():
    first = draw_counts(9, 50, seed=1, stream="sex")
    assert np.array_equal(first, draw_counts(9, 50, seed=1, stream="sex"))
    assert not np.array_equal(first, draw_counts(9, 50, seed=2, stream="sex"))
    assert not np.array_equal(first, draw_counts(9, 50, seed=1, stream="age"))


def test_resampled_means_by_hand():
    values = np.array([[1.0, 1.0], [2.0, np.nan], [6.0, 5.0]])
    counts = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0], [2.0, 0.0, 1.0]])
    # Draw 2 takes the second person three times, who has no second value: no mean then.
    assert resample_means(values, counts).tolist()[::2] == [[3.0, 3.0], [8 / 3, 7 / 3]]
    second = resample_means(values, counts)[1]
    assert second[0] == 2.0 and np.isnan(second[1])


def test_interval_is_the_percentiles_of_what_is_known():
    draws = np.column_stack([np.arange(101.0), np.r_[np.arange(100.0), np.nan], np.full(101, np.nan)])
    low, high = find_bca_interval(draws, np.array([50.0, 50.0, np.nan]), None, confidence=0.9)
    assert (low[0], high[0]) == (pytest.approx(5.0), pytest.approx(95.0))
    assert (low[1], high[1]) == (pytest.approx(0.05 * 99), pytest.approx(0.95 * 99))
    assert np.isnan(low[2]) and np.isnan(high[2])


def test_interval_agrees_with_scipy(rng):
    values = rng.gamma(2.0, 1.0, 40)
    drawn = resample_means(values[:, None], draw_counts(40, 20000, seed=5, stream="x"))
    low, high = find_bca_interval(drawn, values.mean(keepdims=True), None)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=rng).confidence_interval
    # Monte-Carlo error of a 2.5 % quantile over 20 000 draws is about 2 % of a standard error.
    error = values.std(ddof=1) / np.sqrt(40)
    assert low[0] == pytest.approx(theirs.low, abs=0.12 * error)
    assert high[0] == pytest.approx(theirs.high, abs=0.12 * error)


def test_interval_covers_the_truth_about_as_often_as_it_says(rng):
    covered = 0
    counts = draw_counts(40, 600, seed=3, stream="coverage")
    samples = rng.normal(0.9, 0.05, (40, 1000))
    low, high = find_bca_interval(resample_means(samples, counts), samples.mean(axis=0), None)
    covered = np.mean((low <= 0.9) & (high >= 0.9))
    # Of 1000 samples: nominal 95 %, and the percentile bootstrap of a mean of 40 is known to fall about 1.5 % short.
    assert 0.91 < covered < 0.97


def make_groups(rng, sizes=(25, 40), columns=5):
    codes = rng.permutation(np.repeat(np.arange(-1, len(sizes)), [4, *sizes]))
    values = rng.gamma(1.5, 1.0, (len(codes), columns)) + 0.3 * codes[:, None]
    return values, codes


def take_gap(means, sizes):
    return means[..., 0, :] - means[..., 1, :]


def test_means_of_all_groups_are_drawn_as_those_of_one(rng, monkeypatch):
    values, codes = make_groups(rng)
    values[rng.random(values.shape) < 0.1] = np.nan
    together = draw_group_means(values, codes, draws=300, seed=4, streams=["sex female", "sex male"])
    for group, stream in enumerate(["sex female", "sex male"]):
        part = values[codes == group]
        expected = resample_means(part, draw_counts(len(part), 300, seed=4, stream=stream))
        assert together[:, group] == pytest.approx(expected, rel=1e-13)
    monkeypatch.setattr(bootstrap, "_CHUNK_BYTES", 5000)
    again = draw_group_means(values, codes, draws=300, seed=4, streams=["sex female", "sex male"])
    assert again == pytest.approx(together, rel=1e-13)


def test_an_empty_group_has_no_drawn_means(rng):
    values, codes = make_groups(rng)
    drawn = draw_group_means(values, codes, draws=10, seed=1, streams="abc")
    assert np.isnan(drawn[:, 2]).all() and np.isfinite(drawn[:, :2]).all()
    with pytest.raises(SegfairError, match="streams must name every group"):
        draw_group_means(values, codes, draws=10, seed=1, streams="a")


def draw_as_scipy_does(values, codes, draws, seed):
    """Return group means in the very resamples that scipy.stats.bootstrap draws from this seed."""
    generator = np.random.default_rng(seed)
    means = []
    for group in range(2):
        part = values[codes == group]
        indices = generator.integers(0, len(part), (draws, len(part)))
        counts = np.array([np.bincount(row, minlength=len(part)) for row in indices], np.float64)
        means.append(resample_means(part, counts))
    return np.stack(means, axis=1)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_equal_scipy_on_the_same_resamples(rng, method):
    values, codes = make_groups(rng)
    for column in range(values.shape[1]):
        drawn = draw_as_scipy_does(values, codes, 500, column)
        found = find_intervals(values, codes, drawn, take_gap, method=method)
        parts = [values[codes == group, column] for group in range(2)]
        theirs = stats.bootstrap(
            parts,
            lambda first, second, axis: first.mean(axis) - second.mean(axis),
            n_resamples=500,
            method="BCa" if method == "bca" else "percentile",
            rng=np.random.default_rng(column),
        ).confidence_interval
        assert found.low[column] == pytest.approx(theirs.low, rel=1e-10)
        assert found.high[column] == pytest.approx(theirs.high, rel=1e-10)


def test_a_measure_with_sizes_equals_scipy_too(rng):
    # Equity scaling uses the mean over all people: leaving one out changes the groups' weights.
    values, codes = make_groups(rng, columns=2)
    values /= 10

    def scale(means, sizes):
        overall = (means * sizes).sum(axis=-2) / sizes.sum(axis=-2)
        return overall / (1 + np.abs(means - overall[..., None, :]).sum(axis=-2))

    def scale_samples(first, second, axis):
        numbers = first.shape[axis], second.shape[axis]
        overall = (first.sum(axis) + second.sum(axis)) / sum(numbers)
        return overall / (1 + abs(first.mean(axis) - overall) + abs(second.mean(axis) - overall))

    found = find_intervals(values, codes, draw_as_scipy_does(values, codes, 400, 7), scale)
    theirs = stats.bootstrap(
        [values[codes == group, 0] for group in range(2)],
        scale_samples,
        n_resamples=400,
        method="BCa",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert (found.low[0], found.high[0]) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_bca_agrees_with_scipy_on_other_resamples(rng):
    values, codes = make_groups(rng, columns=1)
    drawn = draw_group_means(values, codes, draws=10_000, seed=1, streams="ab")
    found = find_intervals(values, codes, drawn, take_gap)
    parts = [values[codes == group, 0] for group in range(2)]
    theirs = stats.bootstrap(
        parts, lambda first, second, axis: first.mean(axis) - second.mean(axis), n_resamples=10_000, method="BCa", rng=rng
    ).confidence_interval  # fmt: skip
    error = np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
    assert (found.low[0], found.high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.12 * error)


def test_missing_values_are_as_if_the_people_were_not_there(rng):
    values, codes = make_groups(rng, columns=2)
    missing = rng.random(len(codes)) < 0.2
    values[missing, 1] = values[missing, 1] * np.nan
    values[:, 0] = np.where(missing, 0.0, values[:, 1])
    drawn = draw_group_means(values, codes, draws=200, seed=1, streams="ab")
    found = find_intervals(values, codes, drawn, take_means)
    shorter = find_intervals(values[~missing], codes[~missing], drawn, take_means)
    assert found.low[:, 1] == pytest.approx(shorter.low[:, 1], rel=1e-12)
    assert found.estimate[:, 1] == pytest.approx(shorter.estimate[:, 1], rel=1e-12)


def test_dull_groups_have_dull_intervals(rng):
    values = np.array([[0.25, 1.0], [0.25, np.nan], [0.5, np.nan], [0.5, np.nan]])
    codes = np.array([0, 0, 1, 1])
    drawn = draw_group_means(values, codes, draws=50, seed=1, streams="ab")
    found = find_intervals(values, codes, drawn, take_gap)
    assert (found.low[0], found.estimate[0], found.high[0]) == (-0.25, -0.25, -0.25)
    assert np.isnan([found.low[1], found.estimate[1], found.high[1]]).all()
    means = find_intervals(values, codes, drawn, take_means)
    assert (means.low[0, 1], means.high[0, 1]) == (1.0, 1.0)
    assert np.isnan(find_intervals(values, codes, drawn, take_means, smallest_group=3).low).all()


def test_an_estimate_outside_of_all_draws_has_an_interval():
    draws = np.arange(1.0, 100.0)[:, None]
    low, high = find_bca_interval(draws, np.array([0.0]), np.array([0.0]))
    assert low[0] == pytest.approx(1.0, abs=0.01) and 1.0 <= high[0] < 10.0


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_cover_the_gap_of_skewed_values(method):
    generator = np.random.default_rng(8)
    # 1500 studies of 30 and 50 people: lognormal errors, true gap 0.
    values = 1 - 0.1 * generator.lognormal(0.0, 0.8, (80, 1500))
    codes = np.repeat([0, 1], [30, 50])
    drawn = draw_group_means(values, codes, draws=1000, seed=2, streams="ab")
    found = find_intervals(values, codes, drawn, take_gap, method=method)
    covered = ((found.low <= 0) & (found.high >= 0)).mean()
    # BCa falls short here: why differences are studentised (helpers.statistics.bootstrap_differences).
    assert (0.895 if method == "bca" else 0.91) < covered < 0.97


def test_acceleration_shifts_the_interval_towards_the_long_tail(rng):
    values = rng.lognormal(0.0, 1.0, (40, 1))
    codes = np.zeros(40, int)
    drawn = draw_group_means(values, codes, draws=4000, seed=1, streams="a")
    percentile = find_intervals(values, codes, drawn, take_means, method="percentile")
    bca = find_intervals(values, codes, drawn, take_means)
    assert bca.low[0, 0] > percentile.low[0, 0] and bca.high[0, 0] > percentile.high[0, 0]
    deviation = values[:, 0] - values.mean()
    expected = (deviation**3).sum() / (6 * (deviation**2).sum() ** 1.5)
    sizes = np.array([[40]])
    found = accelerate(values, codes, values.mean(keepdims=True), sizes, take_means)
    assert found[0, 0] == pytest.approx(expected)  # of a mean: skewness / (6 √n)


def test_wrong_input_to_intervals_says_what_to_do(rng):
    values, codes = make_groups(rng)
    drawn = draw_group_means(values, codes, draws=5, seed=1, streams="ab")
    with pytest.raises(SegfairError, match="method must be one of"):
        find_intervals(values, codes, drawn, take_gap, method="basic")
    with pytest.raises(SegfairError, match="draw them from the same values"):
        find_intervals(values[:, :2], codes, drawn, take_gap)
