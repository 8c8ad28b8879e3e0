"""Resampling subjects: draws, and means in them."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.errors import SegfairError
from helpers.statistics import bootstrap
from helpers.statistics.bootstrap import Resamples, resample_means


def draw_counts(subjects: int, draws: int, *, seed: int, stream: str) -> np.ndarray:
    """Return how often each subject of one group occurs in each resample."""
    resamples = Resamples(np.zeros(subjects, int), draws, seed, (stream,))
    return np.vstack([counts for *_, counts in resamples.draw(np.zeros((subjects, 1)))])


def test_every_resample_has_as_many_subjects_as_the_group():
    counts = draw_counts(7, 300, seed=1, stream="sex")
    assert counts.shape == (300, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == np.round(counts)).all() and counts.max() > 1


def test_counts_are_those_of_a_multinomial():
    counts = draw_counts(6, 20_000, seed=2, stream="sex")
    # Of 6 subjects drawn 6 times each count has variance 6 · (1/6)(5/6), each two the covariance
    # −6/36; its error is about 0.01.
    assert np.cov(counts.T) == pytest.approx(np.where(np.eye(6), 5 / 6, -1 / 6), abs=0.04)
    assert counts.mean(axis=0) == pytest.approx(1.0, abs=0.03)


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


def make_groups(rng, sizes=(25, 40), columns=5):
    codes = rng.permutation(np.repeat(np.arange(-1, len(sizes)), [4, *sizes]))
    values = rng.gamma(1.5, 1.0, (len(codes), columns)) + 0.3 * codes[:, None]
    return values, codes


def test_means_of_all_groups_are_drawn_as_those_of_one(rng, monkeypatch):
    values, codes = make_groups(rng)
    values[rng.random(values.shape) < 0.1] = np.nan
    resamples = Resamples(codes, 300, 4, ("sex female", "sex male"))
    together = resamples.draw_means(values)
    for group, stream in enumerate(resamples.streams):
        part = values[codes == group]
        expected = resample_means(part, draw_counts(len(part), 300, seed=4, stream=stream))
        assert together[:, group] == pytest.approx(expected, rel=1e-13)
    monkeypatch.setattr(bootstrap, "_CHUNK_BYTES", 5000)
    assert resamples.draw_means(values) == pytest.approx(together, rel=1e-13)


def test_missing_values_are_as_if_the_people_were_not_there(rng):
    values, codes = make_groups(rng, columns=1)
    missing = rng.random(len(codes)) < 0.2
    values[missing] = np.nan
    means = []
    for group in range(2):
        rows = np.flatnonzero(codes == group)
        known = np.flatnonzero(~missing[rows])
        counts = draw_counts(len(rows), 200, seed=1, stream="ab"[group])
        means.append((counts[:, known] @ values[rows[known], 0]) / counts[:, known].sum(axis=1))
    found = Resamples(codes, 200, 1, ("a", "b")).draw_means(values)
    assert found[:, :, 0] == pytest.approx(np.column_stack(means), rel=1e-12)


def test_an_empty_group_has_no_drawn_means(rng):
    values, codes = make_groups(rng)
    drawn = Resamples(codes, 10, 1, ("a", "b", "c")).draw_means(values)
    assert np.isnan(drawn[:, 2]).all() and np.isfinite(drawn[:, :2]).all()
    with pytest.raises(SegfairError, match="streams must name every group"):
        Resamples(codes, 10, 1, ("a",))


def test_squared_errors_are_those_of_every_resample(rng):
    values, codes = make_groups(rng, (6, 9), columns=2)
    resamples = Resamples(codes, 40, 3, ("a", "b"))
    influence = np.zeros(values.shape)
    for group in range(2):
        influence[codes == group] = values[codes == group] - values[codes == group].mean(axis=0)
    for group, squared in resamples.draw_squared_errors(influence):
        n, part = int((codes == group).sum()), influence[codes == group]
        counts = draw_counts(n, 40, seed=3, stream="ab"[group])
        people = [np.repeat(part, count.astype(int), axis=0) for count in counts]
        assert squared == pytest.approx(np.array([n * one.var(axis=0, ddof=1) for one in people]), rel=1e-10)
