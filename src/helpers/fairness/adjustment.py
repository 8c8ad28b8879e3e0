"""Adjusted gaps: what is left between groups once their confounders are adjusted for.

The model (docs/METHODS.md, section 10) is in the metric's *own unit*. A logit scale suits a bounded
score, but a difference of mean logits is not a difference of mean Dice: transforming back needs the
distribution of the residuals (Duan 1983), a missed organ (Dice 0) becomes an outlier whose size is
set by the clamp and not by the data, and its null hypothesis differs from that of the gap. For a
difference of means least squares is consistent whatever the distribution of the residuals, as long
as the *mean* is modelled well (hence splines); HC3 allows for the unequal spread near a bound.

The adjusted mean of a group is the mean, over the covariates of *all* subjects in the fit, of the
model's prediction with everybody put into that group (g-computation: Robins 1986; Lane & Nelder
1982). Without interactions this is the group's intercept once covariates are centred, so the delta
method is exact; the covariates of the cohort are taken as fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.fairness.disparity import find_best_and_worst, find_unseen_failures, limit_gap
from helpers.schema import TABLES
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.clustered import choose_errors
from helpers.statistics.covariates import (
    Covariate,
    CovariateFit,
    code_groups,
    encode_covariates,
    fit_with_covariates,
    join_covariates,
    read_labels,
)
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.least_squares import ROUNDING, split_by_missing
from helpers.statistics.overlap import find_apart, keep_linked
from helpers.statistics.selection_adjustment import widen_for_choice
from helpers.statistics.unseen_failures import Allowance, widen_interval
from helpers.vocabulary.measures import find_measure

_SIDES = ("best_group", "worst_group")
LARGEST_OUTSIDE = 0.3  # share of subjects outside of the groups' common range before that is warned of

GAP_COLUMNS = (
    "column", "metric", "n", "groups", "best_group", "worst_group", "adjusted_gap", "low", "high", "p",
    "f", "df_groups", "df_residual", "p_groups", "parameters", "covariates", "dropped", "n_missing",
    "n_rare", "warnings", "note",
)  # fmt: skip
MEAN_COLUMNS = ("column", "metric", *TABLES["adjusted_means"].names[4:])


@dataclass(frozen=True)
class Adjustment:
    """What :func:`adjust_gaps` found: two tables, in the order of the response's columns.

    `gaps` has a row per column of the response (:data:`GAP_COLUMNS`, as in adjusted_notes.csv):
    ``adjusted_gap`` best − worst adjusted mean in the metric's unit, positive where the group
    called best is better, with its 95 % interval and ``p``, which allow for two of several groups
    having been picked (:func:`helpers.statistics.selection_adjustment.widen_for_choice`), and the
    Wald test over all groups. `means` has a row per column and group compared
    (:data:`MEAN_COLUMNS`).
    """

    gaps: pd.DataFrame
    means: pd.DataFrame


def adjust_gaps(
    values: np.ndarray,
    groups: np.ndarray,
    covariates: pd.DataFrame,
    metrics: Sequence[str],
    *,
    min_group: int = 10,
    pairs: Sequence[tuple[str, str] | None] | None = None,
    attribute: str = "the groups",
    clusters: np.ndarray | None = None,
) -> Adjustment:
    """Compare the groups' means, adjusted for covariates.

    Parameters
    ----------
    values : ndarray of float, (subjects, columns)
        One column per (metric, model, organ); NaN where a subject has no value.
    groups : ndarray of object, (subjects,)
        Name of each subject's group; None or NaN where unknown. Groups are taken in the order of
        their names.
    covariates : DataFrame, (subjects, covariates)
        Numbers are numeric covariates, anything else (categories, text, bool) categorical: how they
        enter is said at :func:`helpers.statistics.covariates.fit_with_covariates`. Without any,
        gaps are plain ones with HC3 errors.
    metrics : sequence of str, (columns,)
        Each column's metric (a score of :data:`helpers.vocabulary.measures.MEASURES`).
    min_group : int
        Groups with fewer subjects in the fit take no part.
    pairs : sequence of (best, worst) or None, optional
        The groups between which each column's gap is stated, say those of the plain gap; None: the
        best and the worst adjusted mean.
    attribute : str
        What the groups are of, for sentences.
    clusters : ndarray of int, (subjects,), optional
        Each one's cluster, −1 for none: errors are then CR2 and degrees of freedom the fewest that
        Satterthwaite's method gives any two groups (:mod:`helpers.statistics.clustered`).

    Notes
    -----
    See the module's text for the model. Between groups that cannot be told from a covariate
    (:func:`helpers.statistics.overlap.explain_overlap`) there is no gap, and ``note`` says why; a
    group that overlaps with no other has no mean, and without overlap of every two groups there is
    no test of all. Columns in which the same subjects have a value share one decomposition.
    """
    values = np.asarray(values, float)
    labels = read_labels(groups)
    encoded, unused = _agree(values, labels, encode_covariates(covariates), min_group)
    stated = list(pairs) if pairs is not None else [None] * len(metrics)
    gap_rows: dict[int, dict[str, Any]] = {}
    mean_rows: dict[int, list[dict[str, Any]]] = {}
    for known, places in split_by_missing(values):
        named = [metrics[place] for place in places], [stated[place] for place in places]
        fitted = _fit_pattern(values, places, labels, known, encoded, *named, min_group, attribute, clusters)
        for place, (gap, means) in zip(places, fitted, strict=True):
            head = {"column": int(place), "metric": metrics[place]}
            gap_rows[place] = head | gap | {"dropped": join_covariates([*filter(None, [unused, gap["dropped"]])])}
            mean_rows[place] = [head | row for row in means]
    order = range(values.shape[1])
    gaps = pd.DataFrame([gap_rows[place] for place in order], columns=list(GAP_COLUMNS))
    for name in ("best_group", "worst_group", "covariates", "dropped", "warnings", "note"):
        gaps[name] = gaps[name].astype(object).fillna("")
    means = [row for place in order for row in mean_rows[place]]
    return Adjustment(gaps, pd.DataFrame(means, columns=list(MEAN_COLUMNS)))


def _fit_pattern(
    values: np.ndarray,
    places: np.ndarray,
    labels: np.ndarray,
    known: np.ndarray,
    encoded: Sequence[Covariate],
    metrics: Sequence[str],
    pairs: Sequence[tuple[str, str] | None],
    min_group: int,
    attribute: str,
    clusters: np.ndarray | None,
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Fit the columns that the same subjects have a value in: per column its gap and its means."""
    grouped = known & pd.notna(labels)
    fit = fit_with_covariates(grouped, encoded, lambda rows: code_groups(labels[rows]), "the groups", labels, min_group)
    rows, base, names = fit.rows, fit.base, np.unique(labels[fit.rows].astype(str))
    common = fit.describe() | {"groups": len(names), "warnings": ""}
    if base is None:
        return [(common | {"note": "nothing to compare: fewer than two groups are large enough"}, [])] * len(metrics)
    common |= {"parameters": fit.design.shape[1], "df_residual": len(fit.design) - fit.design.shape[1]}
    if why := fit.tell_shortage() or _tell_missed(fit):
        return [(common | {"note": f"nothing was fitted: {why}"}, [])] * len(metrics)
    small = sorted(set(labels[grouped]) - set(names))
    excluded = [f"too small to compare (under {min_group} subjects in the fit): {', '.join(small)}"] if small else []
    common["warnings"] = "; ".join([*excluded, *_list_overlap(labels[rows], names, fit)])
    apart = find_apart(attribute, [str(name) for name in names], labels, fit, encoded, min_group)
    linked = keep_linked(labels, fit, min_group)
    if (linked != labels).any():
        again = _fit_pattern(values, places, linked, known, encoded, metrics, pairs, min_group, attribute, clusters)
        why_of = {frozenset(names[list(two)]): why for two, why in apart.items()}
        return [_leave_out(gap, means, why_of, pair) for pair, (gap, means) in zip(pairs, again, strict=True)]
    solver, part = fit.solver, values[np.ix_(rows, places)]
    flat, exact = np.ptp(part, axis=0) == 0, solver.find_exact(part)
    chosen = np.eye(len(names), fit.design.shape[1])
    steps = np.diff(np.eye(len(names)), axis=0)
    contrasts = np.array([chosen[one] - chosen[other] for one, other in combinations(range(len(names)), 2)])
    judge, free = choose_errors(solver, fit.design, None if clusters is None else clusters[rows], contrasts)
    common["df_residual"] = free
    means, covariance = judge.estimate(part, chosen)
    reach = stats.t.ppf(0.5 + CONFIDENCE / 2, free)
    unseen = find_unseen_failures(GroupedValues(part, base.argmax(axis=1), len(names)), metrics)
    # The test of all groups takes what intervals allow for as a part of each mean's variance.
    worse, of_means = unseen.reach_unseen().T, unseen.reach_means()
    tested = covariance + (worse / reach)[:, :, None] ** 2 * np.eye(len(names))
    f, p_groups = judge.test(means @ steps.T, steps @ tested @ steps.T, steps @ chosen)
    widened = widen_for_choice(np.full(len(metrics), len(names)), p_groups, np.full(len(metrics), free))
    results: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for index, metric in enumerate(metrics):
        note = ""
        if flat[index]:
            note = "nothing was tested: every subject has the same value"
        elif exact[index]:
            note = "nothing was tested: groups and covariates reproduce every value, nothing is left to judge chance by"
        if note:
            results.append((common | {"note": note}, []))
            continue
        error = np.sqrt(np.diagonal(covariance[index]))
        error[error <= ROUNDING**0.5 * abs(means[index])] = np.nan  # a group without any spread has no interval
        own = Allowance(of_means.below[:, index], of_means.above[:, index])
        low, high = widen_interval(means[index], means[index] - reach * error, means[index] + reach * error, own)
        rows_of_means = [
            {
                "group": str(name),
                "n": int(base[:, group].sum()),
                "mean": means[index, group],
                "low": low[group],
                "high": high[group],
            }
            for group, name in enumerate(names)
            if sum(group in pair for pair in apart) < len(names) - 1
        ]
        gap = _state_gap(
            means[index], covariance[index], names, metric, pairs[index], widened[index], free, worse[index]
        )
        if not gap["note"] and np.isnan(p_groups[index]):
            gap["note"] = "no test over all groups: two of them do not vary"
        if not apart:
            gap |= {"f": f[index], "df_groups": len(names) - 1, "p_groups": p_groups[index]}
        stated = tuple(sorted(int(np.flatnonzero(names == gap[side])[0]) for side in _SIDES if side in gap))
        if stated in apart:
            # Nothing was adjusted for: no number, and nobody who says so.
            gap = {"note": apart[stated], "covariates": "", "warnings": "; ".join(excluded)}
        results.append((common | gap, rows_of_means))
    return results


def _state_gap(
    means: np.ndarray,
    covariance: np.ndarray,
    names: np.ndarray,
    metric: str,
    pair: tuple[str, str] | None,
    widened: float,
    free: float,
    worse: np.ndarray,
) -> dict[str, Any]:
    """Return one column's gap between two groups, with its interval and test.

    `worse` is how much worse each group's mean may be for failures unseen, (groups,).
    """
    if pair is None:
        best, worst = (int(code[0]) for code in find_best_and_worst(means[:, None], np.ones((len(means), 1)), [metric]))
    else:
        found = [int(np.flatnonzero(names == str(name))[0]) if str(name) in names else -1 for name in pair]
        if min(found) < 0 or found[0] == found[1]:
            return {"note": f"no gap: {pair[0]} and {pair[1]} are not two groups of the fit"}
        best, worst = found
    sign = find_measure(metric).sign
    gap = sign * (means[best] - means[worst])
    error = np.sqrt(max(covariance[best, best] + covariance[worst, worst] - 2 * covariance[best, worst], 0.0))
    stated = {"best_group": str(names[best]), "worst_group": str(names[worst]), "adjusted_gap": gap}
    # Both groups without any spread of their own: an interval of no width would be a silent
    # falsehood.
    if error <= ROUNDING**0.5 * max(abs(means[best]), abs(means[worst])):
        return stated | {"note": "no interval: neither of the two groups varies"}
    student = stats.t.ppf(0.5 + CONFIDENCE / 2, free)
    reach = student * widened * error
    off = Allowance(worse[best], worse[worst])
    low, high = limit_gap(*widen_interval(gap, gap - reach, gap + reach, off), metric)
    p = 2 * stats.t.sf(abs(gap) * student / np.hypot(reach, off.face_zero(gap)), free)
    return stated | {"low": float(low), "high": float(high), "p": p, "note": ""}


def _tell_missed(fit: CovariateFit) -> str:
    """Return that a covariate of the other columns cannot be held equal here; empty where all can.

    What is constant is equal without.
    """
    return next(
        (
            f"other rows are adjusted for {use.name}, which cannot be used here ({use.reason})"
            for use in fit.uses
            if not use.form and not use.mimics_base and use.reason != "constant"
        ),
        "",
    )


def _leave_out(
    gap: dict[str, Any], means: list[dict[str, Any]], why_of: dict[frozenset[str], str], pair: tuple[str, str] | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a column fitted without lone groups: no test of all, and why a pair has no gap."""
    untested = dict.fromkeys(("f", "df_groups", "p_groups"), np.nan)
    if pair is not None and frozenset(pair) in why_of:
        return gap | untested | {"covariates": "", "warnings": "", "note": why_of[frozenset(pair)]}, means
    said = "groups without their like are left out of the fit"
    return gap | untested | {"warnings": "; ".join(filter(None, [said, gap["warnings"]]))}, means


def _agree(
    values: np.ndarray, labels: np.ndarray, encoded: Sequence[Covariate], min_group: int
) -> tuple[list[Covariate], str]:
    """Return the covariates that all columns are adjusted for, and which are not, and why.

    Chosen once, among everybody who has any value: models are not adjusted for different things
    because they lack different people. Those that look like the groups stay, to be told of.
    """
    anybody = np.isfinite(values).any(axis=1) & pd.notna(labels)
    fit = fit_with_covariates(anybody, encoded, lambda rows: code_groups(labels[rows]), "the groups", labels, min_group)
    if fit.base is None:
        return list(encoded), ""
    unused = {use.name: use.reason for use in fit.uses if not use.form and not use.mimics_base}
    kept = [covariate for covariate in encoded if covariate.name not in unused]
    return kept, join_covariates([f"{name}: {reason}" for name, reason in unused.items()])


def _list_overlap(labels: np.ndarray, names: np.ndarray, fit: CovariateFit) -> list[str]:
    """Return sentences on where the groups cannot be compared like with like."""
    warnings: list[str] = []
    for covariate in fit.covariates:
        if covariate.name not in fit.used:
            continue
        values = covariate.numbers[fit.rows]
        members = [values[labels == name] for name in names]
        if covariate.levels is None:
            ranges = np.array([np.quantile(member, [0.05, 0.95]) for member in members])
            low, high = ranges[:, 0].max(), ranges[:, 1].min()
            outside = float(((values < low) | (values > high)).mean())
            if low >= high:
                warnings.append(
                    f"the groups hardly overlap in {covariate.name}: the adjusted gap rests on extrapolation"
                )
            elif outside > LARGEST_OUTSIDE:
                share = f"{100 * outside:.0f} %"
                warnings.append(f"{share} of the subjects lie outside the {covariate.name} that all groups share")
            continue
        for place in np.unique(values):
            absent = [str(name) for name, member in zip(names, members, strict=True) if place not in member]
            if absent:
                level = covariate.levels[int(place)]
                warnings.append(f"nobody of {', '.join(absent)} has {covariate.name} {level}")
    return warnings
