"""Quantiles of many things drawn at once."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.statistics.intervals import SortedDraws


def test_quantiles_are_read_from_the_draws_there_are():
    drawn = SortedDraws.sort(np.array([[3.0, np.nan], [1.0, 5.0], [2.0, np.inf], [2.0, 4.0]]))
    assert drawn.number.tolist() == [4, 2]
    assert drawn.find_quantile(1.0).tolist() == [3.0, 5.0] and drawn.find_quantile(0.5).tolist() == [2.0, 4.5]
    assert np.isnan(SortedDraws.sort(np.full((3, 1), np.nan)).find_quantile(0.5)).all()
    assert np.isnan(SortedDraws.sort(np.empty((0, 2))).find_quantile(0.5)).tolist() == [True, True]


def test_quantiles_are_those_of_numpy(rng):
    draws = rng.normal(size=(101, 3, 2))
    for level in (0.0, 0.025, 0.5, 0.975, 1.0):
        assert SortedDraws.sort(draws).find_quantile(level) == pytest.approx(
            np.quantile(draws, level, axis=0), rel=1e-12
        )
