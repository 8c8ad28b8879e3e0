"""Natural splines: parity with patsy, and knots that the subjects bear."""

from __future__ import annotations

import numpy as np
import patsy
import pytest

from helpers.statistics.splines import SplineAxis, build_natural_spline, place_knots


def test_natural_spline_spans_what_patsy_spans_and_is_straight_outside(rng):
    x = rng.uniform(0, 1, 60)
    for df in (2, 3, 4):
        knots = place_knots(x, df)
        ours = np.column_stack([np.ones(60), build_natural_spline(x, knots)])
        theirs = np.asarray(
            patsy.dmatrix(
                "cr(x, knots=inner, lower_bound=low, upper_bound=high) - 1",
                {"x": x, "inner": knots[1:-1], "low": knots[0], "high": knots[-1]},
            )
        )
        assert ours.shape[1] == df + 1
        assert np.linalg.matrix_rank(np.column_stack([ours, theirs]), tol=1e-8) == df + 1
        beyond = build_natural_spline(knots[-1] + np.array([0.0, 1.0, 2.0]), knots)
        assert np.diff(beyond, 2, axis=0) == pytest.approx(0, abs=1e-9)


def test_fewer_subjects_and_values_bear_fewer_knots(rng):
    for subjects, columns in ((25, 2), (40, 3), (70, 4), (150, 5)):
        numbers = rng.uniform(20, 80, subjects)
        assert SplineAxis.place(numbers).build(numbers).shape == (subjects, columns)
    assert SplineAxis.place(np.tile([1.0, 2.0, 3.0], 50)).build(np.arange(3.0)).shape == (3, 3)
    axis = SplineAxis.place(np.tile([1.0, 3.0], 50))
    assert axis.standardise(np.array([2.0, 3.0])).tolist() == [0.0, 1.0] and axis.knots.size == 0
