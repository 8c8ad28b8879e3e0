"""Trends: how a metric changes along a continuous attribute, without cutting it into groups.

The mean of the metric is a natural cubic spline of the attribute, fitted by least squares with HC3
covariance (or of clusters) as in :mod:`helpers.fairness.adjustment`, other covariates at the
cohort's own mix (docs/METHODS.md, section 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from helpers.schema import TABLES
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.clustered import ClusteredFit, choose_errors
from helpers.statistics.covariates import SUBJECTS_PER_PARAMETER, Covariate, encode_covariates, fit_with_covariates
from helpers.statistics.least_squares import LeastSquares, split_by_missing
from helpers.statistics.splines import SplineAxis

SHOWN = (0.025, 0.975)  # quantiles of the attribute between which a curve is drawn
POINTS = 41  # of the curve
BINS = 10  # of the shown range, in which people are counted
DRAWS = 2000

CURVE_COLUMNS = ["column", *TABLES["trends"].names[4:]]
TREND_COLUMNS = [
    "column", "n", "df_spline", "df_residual", "f_trend", "p_trend", "f_bend", "p_nonlinear", "step", "slope",
    "slope_low", "slope_high", "slope_p", "reach", "reach_band", "covariates", "dropped", "n_missing", "n_rare", "note",
]  # fmt: skip


@dataclass(frozen=True)
class Trends:
    """What :func:`fit_trends` found, in the columns of :mod:`helpers.schema`.

    `curves` has a row per column of the response and point of the curve, none for a column that
    could not be fitted; ``band_low`` to ``band_high`` hold the whole true curve in 95 % of cohorts.
    `tests` has a row per column: Wald tests of any trend and of any bend in it, the ``slope`` of
    the straight line in the metric's unit per ``step`` of the attribute, and in ``reach`` and
    ``reach_band`` the number of standard errors on each side.
    """

    curves: pd.DataFrame
    tests: pd.DataFrame


def fit_trends(
    values: np.ndarray,
    attribute: np.ndarray,
    covariates: pd.DataFrame,
    *,
    seed: int,
    step: float = 1.0,
    min_group: int = 10,
    clusters: np.ndarray | None = None,
) -> Trends:
    """Fit the mean of each column as a smooth curve of a continuous attribute.

    Parameters
    ----------
    values : ndarray of float, (subjects, columns)
        NaN where a subject has no value.
    attribute : ndarray of float, (subjects,)
        Age in years, BMI in kg/m², …; NaN where unknown.
    covariates : DataFrame, (subjects, covariates)
        Adjusted for, as in :func:`helpers.fairness.adjustment.adjust_gaps`; may have no columns.
    seed : int
        Of the draws behind the simultaneous band.
    step : float
        The difference in the attribute for which the slope is stated, above 0: 10 for a decade.
    min_group : int
        No curve from fewer subjects, no count below it.
    clusters : ndarray of int, (subjects,), optional
        Each one's cluster, −1 for none: errors are then CR2, and degrees of freedom of intervals
        the fewest that Satterthwaite's method gives (:mod:`helpers.statistics.clustered`).

    Notes
    -----
    *Band.* Estimate ± c standard errors, c being the 95 % quantile of the largest |t| over the
    curve's points, by simulation (Ruppert, Wand & Carroll 2003, section 6.5): of each draw only the
    direction is random, its length is integrated out exactly, which makes :data:`DRAWS` draws as
    good as some 40 000 plain ones. A feature narrower than the distance of knots is smoothed away.

    *Privacy.* The curve stands on an even grid between the 2.5 % and the 97.5 % quantile, both
    rounded inwards, so that no point is a person's value; counts are of disjoint tenths, so that
    differences of neighbouring counts reveal nobody.
    """
    values, attribute = np.asarray(values, float), np.asarray(attribute, float)
    encoded = encode_covariates(covariates)
    tests: dict[int, dict[str, Any]] = {}
    curves: dict[int, pd.DataFrame] = {}
    for known, places in split_by_missing(values):
        rows, tables = _fit_pattern(values[:, places], attribute, known, encoded, seed, step, min_group, clusters)
        for place, row, table in zip(places, rows, tables, strict=True):
            tests[place] = {"column": int(place), "step": step} | row
            if table is not None:
                curves[place] = pd.DataFrame({"column": int(place)} | table, columns=CURVE_COLUMNS)
    table = pd.DataFrame([tests[place] for place in range(values.shape[1])], columns=TREND_COLUMNS)
    shown = [curves[place] for place in sorted(curves)]
    empty = pd.DataFrame({name: pd.Series(dtype=float) for name in CURVE_COLUMNS}).astype({"nearby": "Int64"})
    return Trends(pd.concat(shown, ignore_index=True) if shown else empty, table)


def _fit_pattern(
    values: np.ndarray,
    attribute: np.ndarray,
    known: np.ndarray,
    encoded: Sequence[Covariate],
    seed: int,
    step: float,
    min_group: int,
    clusters: np.ndarray | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any] | None]]:
    """Fit the columns of the same subjects: per column its row of tests and its curve."""
    columns = values.shape[1]
    start = known & np.isfinite(attribute)

    fit = fit_with_covariates(start, encoded, lambda rows: build_curve(attribute[rows], min_group), "the attribute")
    common = fit.describe()
    chosen, part, base = attribute[fit.rows], values[fit.rows], fit.base
    if base is None:
        why = explain_no_curve(chosen, min_group)
    else:
        common |= {"df_spline": base.shape[1] - 1, "df_residual": len(fit.design) - fit.design.shape[1]}
        why = fit.tell_shortage() or fit.tell_mimicry()
    if base is None or why:
        return [common | {"note": f"nothing was fitted: {why}"}] * columns, [None] * columns
    axis, solver = SplineAxis.place(chosen), fit.solver
    own = np.eye(base.shape[1], fit.design.shape[1])
    own_clusters = None if clusters is None else clusters[fit.rows]
    judge, free = choose_errors(solver, fit.design, own_clusters, own[1:])
    estimates, covariance = judge.estimate(part, own)
    flat, exact = np.ptp(part, axis=0) == 0, solver.find_exact(part)
    common["df_residual"] = free
    (f_trend, p_trend), (f_bend, p_nonlinear) = (
        judge.test(estimates[:, start:], covariance[:, start:, start:], own[start:]) for start in (1, 2)
    )
    straight = np.column_stack([np.ones(len(chosen)), axis.standardise(chosen), fit.columns])
    slope_of = np.eye(2, straight.shape[1])[1:] * step / axis.scale
    line, free_line = choose_errors(LeastSquares.decompose(straight), straight, own_clusters, slope_of)
    slopes, spread = line.estimate(part, slope_of)
    reach_line = stats.t.ppf(0.5 + CONFIDENCE / 2, free_line)
    grid = _make_grid(chosen)
    points = axis.build(grid)
    if isinstance(judge, ClusteredFit):
        free = min(free, float(judge.find_df(points @ own).min()))
    reach = stats.t.ppf(0.5 + CONFIDENCE / 2, free)
    nearby = _count_nearby(chosen, grid, min_group)
    directions = np.random.default_rng(seed).standard_normal((DRAWS, base.shape[1]))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    rows: list[dict[str, Any]] = []
    tables: list[dict[str, Any] | None] = []
    for index in range(columns):
        if flat[index] or exact[index]:
            why = "every subject has the same value" if flat[index] else "the curve passes through every value"
            rows.append(common | {"note": f"nothing was tested: {why}"})
            tables.append(None)
            continue
        mean = points @ estimates[index]
        factor = _factorise(covariance[index])
        paths = points @ factor
        error = np.sqrt((paths**2).sum(axis=1))
        sure = error > 1e-10 * np.abs(mean)  # where people of one value all score alike there is no interval
        reach_band = _find_reach(directions @ (paths[sure] / error[sure, None]).T, base.shape[1], free, reach)
        error[~sure] = np.nan
        slope, slope_error = slopes[index, 0], np.sqrt(spread[index, 0, 0])
        rows.append(
            common
            | {
                "f_trend": f_trend[index],
                "p_trend": p_trend[index],
                "f_bend": f_bend[index],
                "p_nonlinear": p_nonlinear[index],
                "slope": slope,
                "slope_low": slope - reach_line * slope_error,
                "slope_high": slope + reach_line * slope_error,
                "slope_p": 2 * stats.t.sf(abs(slope) / slope_error, free_line),
                "reach": reach,
                "reach_band": reach_band,
                "note": "" if base.shape[1] > 2 else "too few subjects for a bend: the curve is a straight line",
            }
        )
        tables.append(
            {
                "value": grid,
                "estimate": mean,
                "low": mean - reach * error,
                "high": mean + reach * error,
                "band_low": mean - reach_band * error,
                "band_high": mean + reach_band * error,
                "nearby": nearby,
            }
        )
    return rows, tables


def build_curve(attribute: np.ndarray, min_group: int) -> np.ndarray | None:
    """Return a constant and a spline's columns; None where these subjects bear no curve."""
    if explain_no_curve(attribute, min_group):
        return None
    return SplineAxis.place(attribute).build(attribute)


def explain_no_curve(attribute: np.ndarray, min_group: int) -> str:
    """Return why these subjects bear no curve, or nothing."""
    if len(attribute) < max(min_group, 2 * SUBJECTS_PER_PARAMETER):
        return f"{len(attribute)} subjects are too few"
    low, high = np.quantile(attribute, SHOWN)
    _, counts = np.unique(attribute, return_counts=True)
    # A curve that a handful of people hold up would show those people.
    if low == high or len(attribute) - counts.max() < min_group:
        return "nearly every subject has the same value of the attribute"
    return ""


def _make_grid(attribute: np.ndarray) -> np.ndarray:
    """Return evenly spaced values inside the shown range, whose ends are rounded inwards."""
    low, high = np.quantile(attribute, SHOWN)
    unit = 10.0 ** np.floor(np.log10((high - low) / 20))
    return np.linspace(np.ceil(low / unit) * unit, np.floor(high / unit) * unit, POINTS)


def _count_nearby(attribute: np.ndarray, grid: np.ndarray, min_group: int) -> pd.array:
    """Return how many subjects share each point's tenth of the range; missing where too few."""
    edges = np.linspace(grid[0], grid[-1], BINS + 1)
    counts = np.histogram(attribute, edges)[0]
    found = counts[np.clip(np.searchsorted(edges, grid, side="right") - 1, 0, BINS - 1)]
    return pd.array(np.where(found >= min_group, found, -1), dtype="Int64").map(lambda n: pd.NA if n < 0 else n)


def _find_reach(cosines: np.ndarray, dimensions: int, df_residual: float, pointwise: float) -> float:
    """Return how many standard errors a band needs to hold the whole curve.

    A multivariate t vector is a direction, uniform on the sphere, times a length whose square is
    `dimensions` times an F variable. Given the direction, the largest |t| over the curve is the
    length times the largest of the `cosines`, (draws, points), with the curve's standardised
    points. Never fewer than `pointwise` errors, never more than Scheffé's.
    """
    largest = np.abs(cosines).max(axis=1, initial=0.0) ** 2 * dimensions
    # The tail is smooth in the cosine: a mean per hundredth of the draws changes the reach by less
    # than 1e-4, at a twentieth of the cost.
    largest = np.sort(largest).reshape(100, -1).mean(axis=1)

    def measure_excess(reach: float) -> float:
        return float(special.fdtrc(dimensions, df_residual, reach**2 / largest).mean()) - (1.0 - CONFIDENCE)

    scheffe = float(np.sqrt(dimensions * stats.f.ppf(CONFIDENCE, dimensions, df_residual)))
    if not cosines.size or measure_excess(pointwise) <= 0:
        return pointwise
    return float(optimize.brentq(measure_excess, pointwise, scheffe, xtol=1e-6))


def _factorise(covariance: np.ndarray) -> np.ndarray:
    """Return F with F Fᵀ = covariance, also for a singular one."""
    scale = np.sqrt(np.clip(np.diagonal(covariance), 1e-300, None))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    return scale[:, None] * vectors * np.sqrt(np.clip(values, 0.0, None))
