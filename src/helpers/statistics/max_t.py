"""Adjustment of tests for their number by the largest statistic under permutation."""

from __future__ import annotations

import numpy as np

from helpers.statistics.permutation_tail import count_beyond


def step_down(observed: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """Adjust p-values, (tests,), by the largest statistic of the tests not yet rejected.

    `observed`, (tests,), on one scale, larger is stronger evidence; `permuted`, (permutations,
    tests), the same where nothing is to be found, drawn jointly; no NaN.

    Holm's method prepares for the worst dependence between tests. Tests of the same people are
    strongly dependent; permuting whole people keeps that dependence in the null distribution, and
    the adjustment then is as small as it may be. Westfall & Young 1993, *Resampling-Based Multiple
    Testing*, algorithm 2.8; Ge, Dudoit & Speed 2003, *TEST* 12:1, box 2.
    """
    order = np.argsort(-observed, kind="stable")
    # From the weakest test upwards: the largest among the tests not yet rejected.
    successive = np.maximum.accumulate(permuted[:, order[::-1]], axis=1)[:, ::-1]
    adjusted = np.empty_like(observed)
    share = (1.0 + count_beyond(successive, observed[order])) / (1.0 + len(permuted))
    adjusted[order] = np.maximum.accumulate(share)
    return adjusted
