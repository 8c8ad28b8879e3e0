"""Tests of difference between groups, all through pingouin, and the correction for many of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd

MANN_WHITNEY = "Mann–Whitney U"
KRUSKAL_WALLIS = "Kruskal–Wallis H"
RANK_BISERIAL = "rank-biserial r"
EPSILON_SQUARED = "epsilon²"


@dataclass(frozen=True)
class TestResult:
    """What a comparison of groups gave; NaN and a note where it could not be made.

    Attributes
    ----------
    test : str
        :data:`MANN_WHITNEY` for two groups, :data:`KRUSKAL_WALLIS` for more; empty where none was made.
    p : float
        Its two-sided p-value.
    anova_p : float
        One-way ANOVA on the same values: what the field reports. Assumes equal variances.
    effect : str
        :data:`RANK_BISERIAL` or :data:`EPSILON_SQUARED`.
    effect_size : float
        Rank-biserial r (−1 to 1): chance that a person of the first group scores higher than one of the second
        minus the reverse. Epsilon² (0 to 1): H / (n − 1), the share of rank variance between groups.
    note : str
    """

    __test__ = False  # pytest: not a test class

    test: str = ""
    p: float = np.nan
    anova_p: float = np.nan
    effect: str = ""
    effect_size: float = np.nan
    note: str = ""


def compare_groups(groups: Sequence[np.ndarray]) -> TestResult:
    """Test whether groups differ.

    Parameters
    ----------
    groups : sequence of ndarray of float
        One array of subjects' values per group, without NaN. For two groups the effect is positive where the
        first tends to be higher.

    Returns
    -------
    TestResult
        Without a p-value where there are fewer than two groups, an empty group, fewer than three subjects
        or no variation.

    References
    ----------
    Kerby 2014 (rank-biserial r); Tomczak & Tomczak 2014 (epsilon²).
    """
    import pingouin

    groups = [np.asarray(group, float) for group in groups]
    if len(groups) < 2 or any(not len(group) for group in groups):
        return TestResult(note="no test: fewer than two groups with values")
    values = np.concatenate(groups)
    if len(values) < 3:
        return TestResult(note="no test: fewer than three subjects")
    if np.ptp(values) == 0:
        return TestResult(note="no test: every subject has the same value")
    table = pd.DataFrame(
        {"value": values, "group": np.repeat(np.arange(len(groups)).astype(str), list(map(len, groups)))}
    )
    varies_within = any(np.ptp(group) > 0 for group in groups)
    with _ignore_pandas_warning():
        # Without variation within groups F is infinite: no number to report.
        anova_p = (
            float(pingouin.anova(data=table, dv="value", between="group")["p_unc"].iloc[0])
            if varies_within and len(values) > len(groups)
            else np.nan
        )
        if len(groups) == 2:
            result = pingouin.mwu(groups[0], groups[1])
            return TestResult(
                MANN_WHITNEY, float(result["p_val"].iloc[0]), anova_p, RANK_BISERIAL, float(result["RBC"].iloc[0])
            )
        result = pingouin.kruskal(data=table, dv="value", between="group")
        return TestResult(
            KRUSKAL_WALLIS,
            float(result["p_unc"].iloc[0]),
            anova_p,
            EPSILON_SQUARED,
            float(result["H"].iloc[0]) / (len(values) - 1),
        )


def adjust_p_values(p: np.ndarray, method: str) -> np.ndarray:
    """Correct p-values for their number.

    Parameters
    ----------
    p : ndarray of float, (tests,)
        NaN: no test was made; it is not counted and stays NaN.
    method : {"holm", "fdr_bh", "none"}
        Holm's step-down (family-wise error rate), Benjamini & Hochberg's (false discovery rate), or nothing.
    """
    import pingouin

    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        adjusted[tested] = pingouin.multicomp(p[tested], method=method)[1]
    return adjusted


@contextmanager
def _ignore_pandas_warning() -> Iterator[None]:
    """Silence the announcement of a change in pandas that pingouin 0.7 sets off."""
    with warnings.catch_warnings():
        for name in ("Pandas4Warning", "Pandas5Warning"):
            category = getattr(pd.errors, name, None)
            if category is not None:
                warnings.simplefilter("ignore", category)
        yield
