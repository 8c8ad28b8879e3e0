"""Each person's score adjusted for covariates: what the points of an adjusted figure are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.fairness.trends import build_curve, explain_no_curve
from helpers.statistics.covariates import (
    Covariate,
    CovariateFit,
    code_groups,
    encode_covariates,
    fit_with_covariates,
    read_labels,
)
from helpers.statistics.overlap import find_apart


@dataclass(frozen=True)
class PartialResiduals:
    """What :func:`measure_partial_residuals` found; the rest as in ``CovariateFit.describe``.

    `scores`, float64, (subjects,), have the covariates at the cohort's own mix, in the metric's
    unit; NaN for who takes no part.
    """

    scores: np.ndarray
    covariates: str
    dropped: str
    n: int
    n_missing: int
    note: str  # why nothing was fitted; empty where it was


def measure_partial_residuals(
    scores: np.ndarray, attribute: pd.Series, covariates: pd.DataFrame, *, min_group: int = 10
) -> PartialResiduals:
    """Take from every person's score what their covariates account for.

    `scores` are float, (subjects,), NaN where a subject has no value. `attribute`, (subjects,), is
    what they are shown against: floats are followed as a curve, anything else is groups; missing
    where unknown. `covariates` are those of :func:`helpers.fairness.adjustment.adjust_gaps`. Groups
    smaller than `min_group` take no part, nor does a curve of fewer subjects.

    Notes
    -----
    The model is that of :func:`helpers.fairness.adjustment.adjust_gaps` for groups and that of
    :func:`helpers.fairness.trends.fit_trends` for a number: score = f(attribute) + Zγ + residual,
    with every column of Z of mean 0. Returned is score − Zγ̂ = f̂(attribute) + residual (component
    plus residual: Ezekiel 1924; Larsen & McCleary 1972, *Technometrics* 14). A group's mean of it
    *is* the group's adjusted mean, since least squares leaves residuals of mean 0 within each
    group.
    """
    scores = np.asarray(scores, float)
    numeric = pd.api.types.is_float_dtype(attribute)
    numbers = attribute.to_numpy(float, na_value=np.nan) if numeric else np.empty(0)
    labels = None if numeric else read_labels(attribute.to_numpy(object))
    placed = np.isfinite(numbers) if labels is None else pd.notna(labels)

    def make_base(rows: np.ndarray) -> np.ndarray | None:
        return build_curve(numbers[rows], min_group) if labels is None else code_groups(labels[rows])

    encoded = encode_covariates(covariates)
    fit = fit_with_covariates(
        np.isfinite(scores) & placed,
        encoded,
        make_base,
        "the attribute" if numeric else "the groups",
        labels,
        1 if numeric else min_group,
    )
    rows, left = fit.rows, np.full(len(scores), np.nan)
    if fit.base is None:
        why = explain_no_curve(numbers[rows], min_group) if numeric else "fewer than two groups are large enough"
    elif not (why := fit.tell_shortage() or _tell_apart(labels, fit, encoded, min_group)):
        slopes = fit.solver.projection[fit.base.shape[1] :] @ scores[rows]
        left[rows] = scores[rows] - fit.columns @ slopes
    said = fit.describe()
    kept = {name: said[name] for name in ("covariates", "dropped", "n", "n_missing")}
    return PartialResiduals(left, **kept, note=f"nothing was fitted: {why}" if why else "")


def _tell_apart(labels: np.ndarray | None, fit: CovariateFit, encoded: Sequence[Covariate], min_group: int) -> str:
    """Return why what lies on the axis cannot be told from a covariate; empty where it can."""
    if labels is None:
        return fit.tell_mimicry()
    names = [str(name) for name in np.unique(labels[fit.rows].astype(str))]
    return next(iter(find_apart("the groups", names, labels, fit, encoded, min_group).values()), "")
