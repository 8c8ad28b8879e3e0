"""Resampling subjects: draws, means and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers.fairness.bootstrap import draw_counts, find_percentile_interval, resample_means


def test_every_resample_has_as_many_subjects_as_the_group():
    counts = draw_counts(7, 300, seed=1, stream="sex")
    assert counts.shape == (300, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == np.round(counts)).all() and counts.max() > 1


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
    low, high = find_percentile_interval(draws, confidence=0.9)
    assert (low[0], high[0]) == (pytest.approx(5.0), pytest.approx(95.0))
    assert (low[1], high[1]) == (pytest.approx(0.05 * 99), pytest.approx(0.95 * 99))
    assert np.isnan(low[2]) and np.isnan(high[2])


def test_interval_agrees_with_scipy(rng):
    values = rng.gamma(2.0, 1.0, 40)
    low, high = find_percentile_interval(resample_means(values[:, None], draw_counts(40, 20000, seed=5, stream="x")))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=rng).confidence_interval
    # Monte-Carlo error of a 2.5 % quantile over 20 000 draws is about 2 % of a standard error.
    error = values.std(ddof=1) / np.sqrt(40)
    assert low[0] == pytest.approx(theirs.low, abs=0.12 * error)
    assert high[0] == pytest.approx(theirs.high, abs=0.12 * error)


def test_interval_covers_the_truth_about_as_often_as_it_says(rng):
    covered = 0
    counts = draw_counts(40, 600, seed=3, stream="coverage")
    samples = rng.normal(0.9, 0.05, (40, 1000))
    low, high = find_percentile_interval(resample_means(samples, counts))
    covered = np.mean((low <= 0.9) & (high >= 0.9))
    # Of 1000 samples: nominal 95 %, and the percentile bootstrap of a mean of 40 is known to fall about 1.5 % short.
    assert 0.91 < covered < 0.97
