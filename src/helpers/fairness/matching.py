"""Matching: the check on adjustment without a model of the score, among people who are alike.

Nothing is assumed of how covariates act on the score, and where a person has no counterpart that is
seen (and counted), not bridged by a line. The price is the people who are lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats
from scipy.spatial import distance

from helpers.fairness.disparity import find_unseen_failures
from helpers.schema import TABLES
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.clustered import ClusteredFit, name_alone
from helpers.statistics.covariates import Covariate, encode_covariates
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.overlap import LEAST_EXCEPTIONS, explain_pair
from helpers.statistics.unseen_failures import Allowance, widen_interval
from helpers.vocabulary.measures import find_measure

# Of the propensity score's logit within a pair, in its SD: √ of the mean of both groups' variances.
CALIPER = 0.2
LARGEST_STRATUM = 4000  # people who are matched at once: the effort grows with the cube of their number
LARGEST_DIFFERENCE = 0.1  # standardised, above which a covariate counts as unbalanced

BALANCE_COLUMNS = TABLES["balance"].names[3:]
MATCHED_COLUMNS = ["n_pairs", "gap", "low", "high", "p", "note"]


@dataclass(frozen=True)
class Matching:
    """Pairs of people who are alike, one of each group.

    `balance` has a row per covariate, of categorical ones per level, in the columns of balance.csv:
    means or shares in the two groups before and after matching, the difference first − second in SD
    (√ of the mean of both groups' variances *before* matching, after Stuart 2010, so that it
    shrinks only if the means do), the ratio of variances (numeric only). Levels of fewer than
    `min_group` people are ``suppressed``: no figures.
    """

    first: str  # the groups
    second: str
    # int64, (pairs, 2): rows of the person in `first`, in their order, and of the counterpart.
    pairs: np.ndarray
    balance: pd.DataFrame
    lost_first: int  # people of the group with all covariates but without a counterpart
    lost_second: int
    warnings: tuple[str, ...] = ()  # covariates that stay unbalanced
    note: str = ""  # why there are no pairs


def match_pairs(
    groups: np.ndarray,
    covariates: pd.DataFrame,
    first: str,
    second: str,
    *,
    min_group: int = 10,
    attribute: str = "the groups",
) -> Matching:
    """Pair people of two groups by their covariates.

    Parameters
    ----------
    groups : ndarray of object, (subjects,)
        Group names; None or NaN where unknown. People of other groups take no part.
    covariates : DataFrame, (subjects, covariates)
        Numbers are matched closely, anything else (categories, text, bool) exactly. Where people
        are equally good counterparts the index decides (smaller first), so give one that names the
        subject: then the order of rows does not matter.
    first, second : str
    min_group : int
        With fewer pairs than that there is no matching.
    attribute : str
        What the groups are of, for sentences.

    Notes
    -----
    1:1 without replacement, optimal: of all pairings within the caliper those with the most pairs,
    and of these the one of the smallest total Mahalanobis distance (within-group covariance), by
    the assignment algorithm within each combination of categorical levels (of more than
    :data:`LARGEST_STRATUM` people: within slices of these by propensity score); nothing is drawn at
    random. Sources: docs/METHODS.md, section 10; Austin 2011, *Pharmaceutical Statistics* 10;
    Rosenbaum 1989, JASA 84 (optimal); Stuart 2010, Statistical Science 25 (balance).
    """
    labels = np.asarray(groups, object)
    encoded = encode_covariates(covariates)
    known = np.all([covariate.known for covariate in encoded], axis=0) if encoded else np.ones(len(labels), bool)
    sides = [np.array([label == name for label in labels], bool) for name in (first, second)]
    order = np.argsort(covariates.index.to_numpy(), kind="stable")
    rows = [order[(side & known)[order]] for side in sides]
    nobody = np.empty((0, 2), np.int64)

    def refuse(note: str) -> Matching:
        balance = _tabulate_balance(encoded, rows, nobody, min_group)
        return Matching(first, second, nobody, balance, len(rows[0]), len(rows[1]), (), note)

    if first == second or min(map(len, rows)) < min_group:
        return refuse(
            f"no pairs: {first} and {second} must be two groups of at least {min_group} people with all covariates"
        )
    if not encoded:
        return refuse("no pairs: there is no covariate to match on")
    for covariate in encoded:
        if why := explain_pair(attribute, (first, second), covariate, rows, min(LEAST_EXCEPTIONS, min_group)):
            return refuse(f"no pairs: {why}")
    numeric = [covariate.numbers for covariate in encoded if covariate.levels is None]
    positions = [_standardise(numeric, side, rows) for side in rows]
    scores = _score_propensity(positions)
    if scores is None:
        return refuse("no pairs: the covariates part the two groups completely, nobody has a counterpart")
    whitened = _whiten(positions)
    strata = _slice_strata([_number_strata(encoded, side) for side in rows], scores)
    width = CALIPER * np.sqrt((scores[0].var(ddof=1) + scores[1].var(ddof=1)) / 2)
    found = []
    for stratum in sorted(set(strata[0]) & set(strata[1])):
        inside = [np.flatnonzero([own == stratum for own in side]) for side in strata]
        apart = np.abs(scores[0][inside[0]][:, None] - scores[1][inside[1]][None, :])
        apart_all = distance.cdist(*(side[own] for side, own in zip(whitened, inside, strict=True)))
        places = _assign(apart_all, apart <= width + 1e-12)
        found += [(rows[0][inside[0][one]], rows[1][inside[1][other]]) for one, other in places]
    pairs = np.array(sorted(found), np.int64).reshape(-1, 2)
    if len(pairs) < min_group:
        return refuse(f"no matching: only {len(pairs)} pairs are alike, fewer than {min_group}")
    balance = _tabulate_balance(encoded, rows, pairs, min_group)
    unbalanced = balance.loc[balance["smd_after"].abs() > LARGEST_DIFFERENCE, "covariate"].unique()
    lost_first, lost_second = (len(side) - len(pairs) for side in rows)
    warned = tuple(f"{name} stays unbalanced after matching" for name in unbalanced)
    return Matching(first, second, pairs, balance, lost_first, lost_second, warned)


def measure_matched_gaps(
    values: np.ndarray,
    matching: Matching,
    metrics: Sequence[str],
    *,
    min_group: int = 10,
    clusters: np.ndarray | None = None,
) -> pd.DataFrame:
    """Compare matched people: one row per column (:data:`MATCHED_COLUMNS`).

    `values`, float, (subjects, columns), has the rows that `matching` was made from; NaN where a
    subject has no value: the pair then does not count in that column. `metrics` names each column's
    metric. There is no gap from fewer than `min_group` pairs. `clusters`, int, (subjects,), are
    each one's cluster, −1 for none.

    ``gap`` is `first` − `second`, positive where the first group is better, the mean over pairs in
    the metric's unit, with the paired t interval (95 %) and p-value (Austin 2011, Statistics in
    Medicine 30), or with errors made from clusters
    (:class:`helpers.statistics.clustered.ClusteredFit`, which leaves out what pairs have in common:
    rather too wide); both allow for failures that nobody of a group happened to have
    (:mod:`helpers.statistics.unseen_failures`). ``note``, why there is no number.
    """
    values = np.asarray(values, float)
    codes = np.full(len(values), 2)  # everybody else
    for side in range(2):
        codes[matching.pairs[:, side]] = side
    unseen = find_unseen_failures(GroupedValues(_keep_pairs(values, matching.pairs), codes, 3), metrics)
    off = unseen.reach_gap(*np.tile([[0], [1]], len(metrics)))
    rows = []
    for place, metric in enumerate(metrics):
        known = matching.pairs[np.isfinite(values[matching.pairs, place]).all(axis=1)]
        scores = find_measure(metric).sign * values[known, place]
        errors = _find_error(scores, None if clusters is None else clusters[known])
        row = _test_pairs(scores[:, 0] - scores[:, 1], *errors, off.take(place), matching.note, min_group)
        rows.append({"n_pairs": len(known)} | row)
    return pd.DataFrame(rows, columns=MATCHED_COLUMNS)


def _keep_pairs(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the values without those of pairs of which one lacks a value."""
    kept = values.copy()
    kept[pairs] = np.where(np.isfinite(values[pairs]).all(axis=1, keepdims=True), values[pairs], np.nan)
    return kept


def _find_error(scores: np.ndarray, clusters: np.ndarray | None) -> tuple[float, float]:
    """Return the standard error of the mean difference in pairs, (pairs, 2), and its df."""
    if len(scores) < 2:
        return np.nan, np.nan
    if clusters is None:
        return float((scores[:, 0] - scores[:, 1]).std(ddof=1)) / np.sqrt(len(scores)), len(scores) - 1.0
    fit = ClusteredFit.decompose(np.tile(np.eye(2), (len(scores), 1)), name_alone(clusters.ravel()))
    contrast = np.array([[1.0, -1.0]])
    _, covariance = fit.estimate(scores.reshape(-1, 1), contrast)
    return float(np.sqrt(covariance[0, 0, 0])), float(fit.find_df(contrast)[0])


def _test_pairs(
    differences: np.ndarray, error: float, df: float, off: Allowance, why: str, min_group: int
) -> dict[str, Any]:
    if len(differences) < max(min_group, 2):
        return {"note": why or f"no gap: only {len(differences)} pairs have a value"}
    gap = float(differences.mean())
    if error <= 1e-12 * np.abs(differences).max():
        return {"gap": gap, "note": "no interval: every pair differs by the same amount"}
    student = stats.t.ppf(0.5 + CONFIDENCE / 2, df)
    low, high = widen_interval(gap, gap - student * error, gap + student * error, off)
    p = 2 * stats.t.sf(abs(gap) * student / np.hypot(student * error, off.face_zero(gap)), df)
    return {"gap": gap, "low": low, "high": high, "p": p, "note": ""}


def _standardise(numeric: Sequence[np.ndarray], side: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return one group's numbers, (people, covariates), in SD of both groups together."""
    columns = []
    for numbers in numeric:
        both = np.concatenate([numbers[own] for own in rows])
        if np.ptp(both) > 0:
            columns.append((numbers[side] - both.mean()) / both.std())
    return np.column_stack(columns) if columns else np.zeros((len(side), 0))


def _whiten(positions: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return positions whose Euclidean distance is Mahalanobis' by the within-group covariance."""
    inside = np.vstack([side - side.mean(axis=0) for side in positions])
    covariance = inside.T @ inside / (len(inside) - 2)
    sizes, directions = np.linalg.eigh(covariance)
    # A direction in which nobody varies has no unit of its own; leaving it out is what the
    # pseudo-inverse does.
    real = sizes > 1e-10 * max(sizes.max(initial=0.0), 1e-300)
    return [side @ (directions[:, real] / np.sqrt(sizes[real])) for side in positions]


def _score_propensity(positions: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """Return the logit of both groups' propensity; None where they are parted completely."""
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    together = np.vstack(positions)
    if not together.shape[1]:
        return [np.zeros(len(side)) for side in positions]
    design = np.column_stack([np.ones(len(together)), together])
    # Twins among the covariates change nothing of the score, but the fit needs independent columns.
    left, sizes, _ = np.linalg.svd(design, full_matrices=False)
    design = left[:, sizes > 1e-9 * sizes[0]] * np.sqrt(len(design))
    member = np.repeat([1.0, 0.0], [len(side) for side in positions])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        fit = GLM(member, design, family=Binomial()).fit(maxiter=50)
    logits = design @ fit.params
    chances = special.expit(logits)
    if not np.isfinite(logits).all() or (np.abs(member - chances) < 1e-6).all():
        return None
    return [logits[: len(positions[0])], logits[len(positions[0]) :]]


def _number_strata(encoded: Sequence[Covariate], side: np.ndarray) -> list[tuple[float, ...]]:
    """Return each person's combination of categorical levels."""
    columns = [covariate.numbers[side] for covariate in encoded if covariate.levels is not None]
    return [tuple(person) for person in np.column_stack(columns)] if columns else [()] * len(side)


def _slice_strata(
    strata: Sequence[Sequence[tuple[float, ...]]], scores: Sequence[np.ndarray]
) -> list[list[tuple[float, ...]]]:
    """Return strata cut by propensity score into slices of at most :data:`LARGEST_STRATUM` people.

    So that effort and memory grow with the number of people, not with its cube.
    """
    everybody = pd.DataFrame({"stratum": [*strata[0], *strata[1]], "score": np.concatenate(scores)})
    by_stratum = everybody.groupby("stratum", sort=False)["score"]
    slices = np.ceil(by_stratum.transform("size") / LARGEST_STRATUM)
    place = (by_stratum.rank(method="first") - 1) * slices / by_stratum.transform("size")
    cut = [(*stratum, number) for stratum, number in zip(everybody["stratum"], np.floor(place), strict=True)]
    return [cut[: len(strata[0])], cut[len(strata[0]) :]]


def _assign(distances: np.ndarray, allowed: np.ndarray) -> list[tuple[int, int]]:
    """Return an assignment with as many allowed pairs as can be, of the smallest total distance."""
    if not allowed.any():
        return []
    # A forbidden pair costs more than all allowed ones together, so that it is taken only where
    # nothing else is left.
    forbidden = (distances[allowed].max() + 1.0) * (min(distances.shape) + 1)
    one, other = optimize.linear_sum_assignment(np.where(allowed, distances, forbidden))
    return [(int(a), int(b)) for a, b in zip(one, other, strict=True) if allowed[a, b]]


def _tabulate_balance(
    encoded: Sequence[Covariate], rows: Sequence[np.ndarray], pairs: np.ndarray, min_group: int
) -> pd.DataFrame:
    """Return means, differences and variance ratios of every covariate before and after."""
    table = []
    for covariate in encoded:
        before = [covariate.numbers[side] for side in rows]
        after = [covariate.numbers[pairs[:, place]] for place in range(2)]
        if covariate.levels is None:
            table.append(
                {"covariate": covariate.name, "level": ""} | _compare(before, after, numeric=True, min_group=min_group)
            )
            continue
        for place, level in enumerate(covariate.levels):
            held = [[(numbers == place).astype(float) for numbers in part] for part in (before, after)]
            if sum(part.sum() for part in held[0]) > 0:
                compared = _compare(*held, numeric=False, min_group=min_group)
                table.append({"covariate": covariate.name, "level": level} | compared)
    return pd.DataFrame(table, columns=BALANCE_COLUMNS)


def _compare(
    before: Sequence[np.ndarray], after: Sequence[np.ndarray], *, numeric: bool, min_group: int
) -> dict[str, Any]:
    counts = [len(part) for part in before] if numeric else [part.sum() for part in before]
    if min(len(part) for part in before) < 2 or (min(counts) if numeric else sum(counts)) < min_group:
        return {"suppressed": True}
    spread = np.sqrt((before[0].var(ddof=int(numeric)) + before[1].var(ddof=int(numeric))) / 2)
    row: dict[str, Any] = {"suppressed": False}
    for when, suffix, (one, other) in (("before", "", before), ("after", "_after", after)):
        if len(one) < 2:
            continue
        gap = one.mean() - other.mean()
        row |= {f"mean_a{suffix}": one.mean(), f"mean_b{suffix}": other.mean()}
        # Nobody differs from anybody: balanced. Two constants that differ: no unit to state it in.
        row[f"smd_{when}"] = gap / spread if spread > 0 else (0.0 if gap == 0 else np.nan)
        if numeric and other.var() > 0:
            row[f"variance_ratio_{when}"] = one.var(ddof=1) / other.var(ddof=1)
    return row
