"""Adjusted gaps: what is left between groups once their confounders are held equal.

The scale
---------
The model is an analysis of covariance in the metric's *own unit*: score = group + covariates, by ordinary least squares with
HC3 standard errors (MacKinnon & White 1985) and Student's t. The alternatives were weighed:

* A logit scale suits a bounded score, but a difference of mean logits is not a difference of mean Dice: transforming back needs the
  distribution of the residuals (Duan 1983), a missed organ (Dice 0) becomes an outlier whose size is set by the clamp and not by the
  data, and its null hypothesis differs from that of the gap, so that p-value and interval could contradict each other.
* What a margin of equivalence and a reader need is a difference of means. Least squares is consistent for it whatever the
  distribution of the residuals, as long as the *mean* is modelled well (hence splines of numeric covariates), and HC3 allows for
  the unequal spread that a bounded score has near its bound.

So gap, interval and both p-values come from the unit's own scale. For metrics in [0, 1] ``p_logit`` repeats the test over all groups on
logits, with the scores drawn inside by (y (n − 1) + ½) / n (Smithson & Verkuilen 2006, p. 55), as a check of how far the result hangs on the
scale; it is not meant for a decision.

Standardisation
---------------
The adjusted mean of a group is the mean, over the covariates of *all* subjects in the fit, of the model's prediction with everybody put into
that group (g-computation: Robins 1986; Lane & Nelder 1982). Without interactions this is the group's intercept once covariates are
centred, so the delta method is exact and no bootstrap is needed; the covariates of the cohort are taken as fixed. Where a covariate acts
differently in each group the gap is an average over people, not the gap of anyone in particular: see
:mod:`helpers.fairness.intersections`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg, special, stats

from helpers.errors import SegfairError
from helpers.fairness.disparity import UNIT_INTERVAL_METRICS, find_extremes, limit_gap, sign_metric
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.selection_adjustment import widen_for_choice

LARGEST_INFLATION = 10.0  # of the variance, above which a covariate is left out as collinear
SMALLEST_LEVEL = 5  # subjects; rarer levels of a categorical covariate are pooled
SMALLEST_KNOWN = 0.5  # share of subjects for whom a covariate must be known
SPLINE_DF = 3  # of a numeric covariate's natural spline
SUBJECTS_PER_SPLINE_PARAMETER = 15  # fewer than that, and numeric covariates enter as straight lines
DISTINCT_FOR_SPLINE = 10
SUBJECTS_PER_PARAMETER = 2  # fewer than that, and nothing is fitted
LARGEST_OUTSIDE = 0.3  # share of subjects outside of the groups' common range before that is warned of

GAP_COLUMNS = (
    "column", "metric", "n", "groups", "best_group", "worst_group", "crude_gap", "adjusted_gap", "low", "high", "p", "f", "df_groups",
    "df_residual", "p_groups", "p_logit", "parameters", "covariates", "dropped", "n_missing", "n_rare", "warnings", "note",
)  # fmt: skip
MEAN_COLUMNS = ("column", "metric", "group", "n", "crude_mean", "adjusted_mean", "low", "high")
COVARIATE_COLUMNS = ("column", "metric", "covariate", "used", "form", "parameters", "inflation", "reason")

_ROUNDING = 1e-20  # a variance below this share of the squared value is rounding
_TOO_FEW_GROUPS = "nothing to compare: fewer than two groups are large enough"


@dataclass(frozen=True)
class Adjustment:
    """What :func:`adjust_gaps` found: three tables, in the order of the response's columns.

    Attributes
    ----------
    gaps : DataFrame
        One row per column of the response (:data:`GAP_COLUMNS`): ``n`` subjects in the fit, ``crude_gap`` the difference of the same
        two groups' plain means over the same subjects, ``adjusted_gap`` best − worst adjusted mean in the metric's unit (positive where
        the group called best is better) with its 95 % interval ``low`` to ``high`` and ``p``, which allow for two of several groups having been
        picked (:func:`helpers.statistics.selection_adjustment.widen_for_choice`); ``f`` on (``df_groups``,
        ``df_residual``) degrees of freedom and ``p_groups``, the Wald test over all groups; ``p_logit``; ``parameters`` of the model;
        ``covariates`` used and ``dropped`` (with the reason), joined by "; "; ``n_missing``, subjects left out for an unknown covariate;
        ``n_rare``, subjects left out because hardly anyone shares their level; ``warnings`` on overlap and on groups left out as too small; ``note``, why there is no number.
    means : DataFrame
        One row per column and group compared (:data:`MEAN_COLUMNS`).
    covariates : DataFrame
        One row per column and covariate (:data:`COVARIATE_COLUMNS`): ``form`` is "spline", "line" or "levels"; ``inflation`` the variance
        inflation factor of its worst direction, given the groups and the covariates before it.
    """

    gaps: pd.DataFrame
    means: pd.DataFrame
    covariates: pd.DataFrame


@dataclass(frozen=True)
class LeastSquares:
    """Ordinary least squares on one design, decomposed once for any number of responses.

    Attributes
    ----------
    projection : ndarray of float64, (parameters, subjects)
        (XᵀX)⁻¹Xᵀ.
    basis : ndarray of float64, (subjects, parameters)
        Orthonormal basis of the design's columns.
    slack : ndarray of float64, (subjects,)
        1 − leverage.
    df_residual : int
    """

    projection: np.ndarray
    basis: np.ndarray
    slack: np.ndarray
    df_residual: int

    @classmethod
    def decompose(cls, design: np.ndarray) -> LeastSquares:
        """Decompose a design of full column rank, float64, (subjects, parameters)."""
        basis, triangle = np.linalg.qr(design)
        slack = 1.0 - np.einsum("np,np->n", basis, basis)
        return cls(linalg.solve_triangular(triangle, basis.T), basis, slack, design.shape[0] - design.shape[1])

    def estimate(self, responses: np.ndarray, contrasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimate linear combinations of the coefficients, with HC3 covariance.

        Parameters
        ----------
        responses : ndarray of float64, (subjects, columns)
            Without NaN.
        contrasts : ndarray of float64, (contrasts, parameters)

        Returns
        -------
        estimates : ndarray of float64, (columns, contrasts)
        covariance : ndarray of float64, (columns, contrasts, contrasts)

        References
        ----------
        MacKinnon & White 1985 (HC3), in the form of Long & Ervin 2000: squared residuals over (1 − leverage)².
        """
        weights = contrasts @ self.projection
        residuals = responses - self.basis @ (self.basis.T @ responses)
        # A subject with a leverage of 1 has a parameter of their own: the fit passes through them and they say nothing of the spread.
        scaled = np.divide(
            residuals, self.slack[:, None], out=np.zeros_like(residuals), where=self.slack[:, None] > 1e-10
        )
        pairs = (weights[:, None, :] * weights[None, :, :]).reshape(-1, weights.shape[1])
        covariance = (pairs @ scaled**2).T.reshape(-1, len(weights), len(weights))
        return (weights @ responses).T, covariance

    def find_exact(self, responses: np.ndarray) -> np.ndarray:
        """Return which responses, (columns,) of bool, the design reproduces without residual."""
        residuals = responses - self.basis @ (self.basis.T @ responses)
        spread = ((responses - responses.mean(axis=0)) ** 2).sum(axis=0)
        return (residuals**2).sum(axis=0) <= _ROUNDING * len(responses) * spread


@dataclass(frozen=True)
class Covariate:
    """One covariate of every subject, encoded once.

    Attributes
    ----------
    name : str
    numbers : ndarray of float64, (subjects,)
        The number, or the level's place; NaN where unknown.
    levels : tuple of str or None
        Names of the levels; None for a number.
    """

    name: str
    numbers: np.ndarray
    levels: tuple[str, ...] | None

    @property
    def known(self) -> np.ndarray:
        """Which subjects have a value: bool, (subjects,)."""
        return np.isfinite(self.numbers)


@dataclass(frozen=True)
class Selection:
    """Who takes part in a fit, and which covariates can be looked at.

    Attributes
    ----------
    rows : ndarray of bool, (subjects,)
    covariates : list of Covariate
        With rare levels pooled; still of all subjects.
    n_missing, n_rare : int
        Subjects left out for an unknown covariate, or for a level that hardly anyone shares.
    dropped : dict of str
        Reason by name of the covariates that are left out.
    """

    rows: np.ndarray
    covariates: list[Covariate]
    n_missing: int
    n_rare: int
    dropped: dict[str, str]


@dataclass(frozen=True)
class Block:
    """The columns by which covariates enter a design.

    Attributes
    ----------
    columns : ndarray of float64, (subjects in the fit, parameters)
        Each with mean 0.
    uses : list of dict
        One per covariate, the keys of :data:`COVARIATE_COLUMNS` from ``covariate`` on.
    """

    columns: np.ndarray
    uses: list[dict[str, Any]] = field(default_factory=list)


def adjust_gaps(
    values: np.ndarray,
    groups: np.ndarray,
    covariates: pd.DataFrame,
    metrics: Sequence[str],
    *,
    min_group: int = 10,
    pairs: Sequence[tuple[str, str] | None] | None = None,
) -> Adjustment:
    """Compare the groups' means with covariates held equal.

    Parameters
    ----------
    values : ndarray of float, (subjects, columns)
        One row per subject, one column per (metric, model, organ); NaN where a subject has no value.
    groups : ndarray of object, (subjects,)
        Name of each subject's group; None or NaN where unknown. Groups are taken in the order of their names.
    covariates : DataFrame, (subjects, covariates)
        Numbers are numeric covariates, anything else (categories, text, bool) categorical. The earlier of two collinear ones is kept.
        May have no columns: then the gaps are plain ones with HC3 errors.
    metrics : sequence of str, (columns,)
        Each column's metric (a key of :data:`helpers.fairness.disparity.HIGHER_IS_BETTER`).
    min_group : int
        Groups with fewer subjects in the fit take no part.
    pairs : sequence of (best, worst) or None, optional
        The groups between which each column's gap is stated, say those of the crude gap; None: the best and the worst adjusted mean.

    Returns
    -------
    Adjustment

    Raises
    ------
    SegfairError
        The inputs have different numbers of subjects or columns, or a metric is unknown.

    Notes
    -----
    See the module's text for the model. Numeric covariates are standardised and enter as natural splines of :data:`SPLINE_DF` degrees of
    freedom where there are at least :data:`SUBJECTS_PER_SPLINE_PARAMETER` subjects per parameter, else as lines. Levels held by fewer than
    :data:`SMALLEST_LEVEL` subjects are pooled; if the pool is as small, its subjects are left out: compared among themselves alone they say
    next to nothing of the gap.
    A covariate is dropped where it is constant, unknown for more than half of the subjects (one after the other, the least known first, where
    several together would leave fewer than half, or no two groups that are large enough), or where the variance inflation factor of its
    worst direction (1 / (1 − largest squared canonical correlation with what is in the model)) exceeds :data:`LARGEST_INFLATION`. If it
    is the groups that it cannot be told from, the gap stays confounded with it, and ``warnings`` says so.

    Columns in which the same subjects have a value share one decomposition.
    """
    values = np.asarray(values, float)
    labels = read_labels(groups)
    _check_shapes(values, labels, covariates, metrics, pairs)
    encoded = encode_covariates(covariates)
    gap_rows: dict[int, dict[str, Any]] = {}
    mean_rows: dict[int, list[dict[str, Any]]] = {}
    use_rows: dict[int, list[dict[str, Any]]] = {}
    for known, places in split_by_missing(values):
        fitted = _fit_pattern(values, labels, known, encoded, places, metrics, min_group, pairs)
        for place, (gap, means, uses) in zip(places, fitted, strict=True):
            head = {"column": int(place), "metric": metrics[place]}
            gap_rows[place] = head | gap
            mean_rows[place] = [head | row for row in means]
            use_rows[place] = [head | row for row in uses]
    order = range(values.shape[1])
    gaps = pd.DataFrame([gap_rows[place] for place in order], columns=list(GAP_COLUMNS))
    for name in ("best_group", "worst_group", "covariates", "dropped", "warnings", "note"):
        gaps[name] = gaps[name].astype(object).fillna("")
    return Adjustment(
        gaps,
        pd.DataFrame([row for place in order for row in mean_rows[place]], columns=list(MEAN_COLUMNS)),
        pd.DataFrame([row for place in order for row in use_rows[place]], columns=list(COVARIATE_COLUMNS)),
    )


def place_knots(values: np.ndarray, df: int) -> np.ndarray:
    """Return the knots of a natural spline, at quantiles of the values.

    Parameters
    ----------
    values : ndarray of float, (subjects,)
    df : int
        Degrees of freedom wanted, 1 to 4.

    Returns
    -------
    ndarray of float64, (knots,)
        ``df + 1`` knots, increasing; fewer where the quantiles coincide. Two knots (or one) stand for a straight line.

    References
    ----------
    Harrell 2015, *Regression Modeling Strategies*, table 2.3.
    """
    quantiles = {1: (0.1, 0.9), 2: (0.1, 0.5, 0.9), 3: (0.05, 0.35, 0.65, 0.95), 4: (0.05, 0.275, 0.5, 0.725, 0.95)}[df]
    return np.unique(np.quantile(values, quantiles))


def build_natural_spline(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the columns of a natural cubic spline: the value itself, then the terms that bend it.

    Parameters
    ----------
    values : ndarray of float, (points,)
    knots : ndarray of float, (knots,)
        Increasing. Beyond the first and the last the spline is a straight line.

    Returns
    -------
    ndarray of float64, (points, max(1, knots − 1))
        Without a constant.

    References
    ----------
    Harrell 2015, *Regression Modeling Strategies*, section 2.4.5 (restricted cubic spline in truncated powers).
    """
    values = np.asarray(values, float)
    if len(knots) < 3:
        return values[:, None]
    last, before = knots[-1], knots[-2]
    cubes = np.clip(values[:, None] - knots[None, :], 0.0, None) ** 3
    inner = knots[:-2]
    bent = (
        cubes[:, :-2]
        - cubes[:, -2:-1] * (last - inner) / (last - before)
        + cubes[:, -1:] * (before - inner) / (last - before)
    )
    return np.column_stack([values, bent / (last - knots[0]) ** 2])


def find_wald_f(estimates: np.ndarray, covariance: np.ndarray, df_residual: int) -> tuple[np.ndarray, np.ndarray]:
    """Test whether several estimates are all zero: Wald's statistic as F.

    Parameters
    ----------
    estimates : ndarray of float64, (columns, estimates)
    covariance : ndarray of float64, (columns, estimates, estimates)
    df_residual : int

    Returns
    -------
    f, p : ndarray of float64, (columns,)
        NaN where the covariance is singular.
    """
    columns, terms = estimates.shape
    f = np.full(columns, np.nan)
    scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    some = (scale > 0).all(axis=1)
    if terms and some.any():
        unit = scale[some]
        correlation = covariance[some] / (unit[:, :, None] * unit[:, None, :])
        values, vectors = np.linalg.eigh(correlation)
        parts = np.einsum("cij,ci->cj", vectors, estimates[some] / unit)
        regular = values[:, 0] > 1e-10
        found = np.full(len(values), np.nan)
        found[regular] = (parts[regular] ** 2 / values[regular]).sum(axis=1) / terms
        f[some] = found
    return f, stats.f.sf(f, max(terms, 1), df_residual)


def split_by_missing(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield which subjects have a value, (subjects,) of bool, and the places of the columns in which just they have."""
    known = np.isfinite(values)
    patterns: dict[bytes, list[int]] = {}
    for place in range(values.shape[1]):
        patterns.setdefault(np.packbits(known[:, place]).tobytes(), []).append(place)
    for places in patterns.values():
        yield known[:, places[0]], np.array(places)


def encode_covariates(covariates: pd.DataFrame) -> list[Covariate]:
    """Return every column as numbers: numeric ones as they are, others as the place of the level among the sorted names."""
    encoded = []
    for name in covariates.columns:
        column = covariates[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            numbers = column.to_numpy(float, na_value=np.nan)
            encoded.append(Covariate(str(name), np.where(np.isfinite(numbers), numbers, np.nan), None))
            continue
        known = column.notna().to_numpy()
        levels, codes = np.unique(column[known].astype(str).to_numpy(str), return_inverse=True)
        places = np.full(len(column), np.nan)
        places[known] = codes
        encoded.append(Covariate(str(name), places, tuple(map(str, levels))))
    return encoded


def select_subjects(
    rows: np.ndarray, encoded: Sequence[Covariate], labels: np.ndarray | None = None, min_group: int = 1
) -> Selection:
    """Find who can take part: every covariate known, the level shared, the group large enough.

    Parameters
    ----------
    rows : ndarray of bool, (subjects,)
        Subjects with a response.
    encoded : sequence of Covariate
    labels : ndarray of object, (subjects,), optional
        Group names; None where unknown.
    min_group : int

    Returns
    -------
    Selection
    """
    dropped = {}
    usable = []
    start = rows.copy()
    for covariate in encoded:
        share = covariate.known[start].mean() if start.any() else 1.0
        if share < SMALLEST_KNOWN:
            dropped[covariate.name] = f"known for {share:.0%} of the subjects only"
        else:
            usable.append(covariate)
    complete = start & np.all([covariate.known for covariate in usable], axis=0) if usable else start
    kept, pooled, n_rare = complete, usable, 0
    while True:
        if labels is not None:
            kept = kept & _find_large(labels, kept, min_group)
        pooled, shared = [], kept.copy()
        for covariate in usable:
            merged, common = _pool_levels(covariate, kept)
            pooled.append(merged)
            shared &= common
        if (shared == kept).all():
            break
        n_rare += int(kept.sum() - shared.sum())
        kept = shared
    return Selection(kept, pooled, int(start.sum() - complete.sum()), n_rare, dropped)


def add_covariates(base: np.ndarray, base_name: str, selection: Selection) -> Block:
    """Turn covariates into columns of a design, leaving out what cannot be told from what is there.

    Parameters
    ----------
    base : ndarray of float64, (subjects in the fit, columns)
        What is of interest, with the constant in its span and of full rank.
    base_name : str
        What to call it in reasons: "the groups".
    selection : Selection

    Returns
    -------
    Block
    """
    rows = selection.rows
    subjects = len(base)
    uses = [_describe_use(name, reason=reason) for name, reason in selection.dropped.items()]
    ambition = base.shape[1] + sum(
        SPLINE_DF if covariate.levels is None else len(np.unique(covariate.numbers[rows])) - 1
        for covariate in selection.covariates
    )
    bend = subjects >= SUBJECTS_PER_SPLINE_PARAMETER * ambition
    span = np.linalg.qr(base)[0]
    base_span = span
    blocks = [np.empty((subjects, 0))]
    for covariate in selection.covariates:
        values = covariate.numbers[rows]
        if np.ptp(values) == 0:
            uses.append(_describe_use(covariate.name, reason="constant"))
            continue
        form, columns, own, inflation = _choose_form(span, _list_forms(covariate, values, bend=bend))
        if inflation > LARGEST_INFLATION:
            alone = _measure_inflation(base_span, own)
            rival = base_name if alone > LARGEST_INFLATION else "other covariates"
            reason = (
                f"collinear with {rival} (variance inflation {min(inflation, 1e6):.3g} exceeds {LARGEST_INFLATION:g})"
            )
            uses.append(_describe_use(covariate.name, inflation=inflation, reason=reason))
            continue
        blocks.append(columns)
        rest = own - span @ (span.T @ own)
        span = np.column_stack([span, np.linalg.qr(rest)[0]])
        uses.append(
            {
                "covariate": covariate.name,
                "used": True,
                "form": form,
                "parameters": columns.shape[1],
                "inflation": inflation,
                "reason": "",
            }
        )
    return Block(np.column_stack(blocks), uses)


def select_and_add(
    rows: np.ndarray,
    encoded: Sequence[Covariate],
    make_base: Callable[[np.ndarray], np.ndarray | None],
    base_name: str,
    labels: np.ndarray | None = None,
    min_group: int = 1,
) -> tuple[Selection, np.ndarray | None, Block]:
    """Select subjects and covariates together, so that nobody is left out for a covariate that is not used.

    Parameters
    ----------
    rows, encoded, base_name, labels, min_group
        See :func:`select_subjects` and :func:`add_covariates`.
    make_base : callable
        From a bool array of subjects to the base of the design; None where there is nothing to fit.

    Returns
    -------
    selection : Selection
    base : ndarray or None
    block : Block
    """
    remaining = list(encoded)
    reasons: dict[str, dict[str, Any]] = {}
    while True:
        selection = select_subjects(rows, remaining, labels, min_group)
        base = make_base(selection.rows)
        unknown = [one for one in remaining if one.name not in selection.dropped and not one.known[rows].all()]
        if unknown and (base is None or selection.rows.sum() < SMALLEST_KNOWN * rows.sum()):
            # Together the unknown values cost too many people: better one covariate less than most of the cohort, or all of it.
            costliest = min(unknown, key=lambda one: one.known[rows].sum())
            share = costliest.known[rows].mean()
            reason = f"known for {share:.0%} of the subjects: too few would be left with everything known"
            reasons[costliest.name] = _describe_use(costliest.name, reason=reason)
            remaining = [one for one in remaining if one is not costliest]
            continue
        if base is None:
            return selection, base, Block(np.empty((0, 0)), list(reasons.values()))
        block = add_covariates(base, base_name, selection)
        unused = {use["covariate"] for use in block.uses if not use["used"]}
        costly = [one.name for one in remaining if one.name in unused and not one.known[rows].all()]
        reasons |= {use["covariate"]: use for use in block.uses if use["covariate"] in costly}
        if not costly:
            names = [covariate.name for covariate in encoded]
            uses = sorted([*reasons.values(), *block.uses], key=lambda use: names.index(use["covariate"]))
            return selection, base, Block(block.columns, uses)
        remaining = [one for one in remaining if one.name not in costly]


def code_groups(labels: np.ndarray) -> np.ndarray | None:
    """Return one column of zeros and ones per group, float64 (subjects, groups), by name; None for fewer than two groups.

    Parameters
    ----------
    labels : ndarray of object, (subjects,)
        Names, none missing.
    """
    names = np.unique(labels.astype(str))
    return (labels[:, None] == names[None, :]).astype(float) if len(names) > 1 else None


def _fit_pattern(
    values: np.ndarray,
    labels: np.ndarray,
    known: np.ndarray,
    encoded: Sequence[Covariate],
    places: np.ndarray,
    metrics: Sequence[str],
    min_group: int,
    pairs: Sequence[tuple[str, str] | None] | None,
) -> list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
    """Fit the columns that the same subjects have a value in: per column its gap, means and covariates."""
    grouped = known & np.array([label is not None for label in labels], bool)

    selection, base, block = select_and_add(
        grouped, encoded, lambda rows: code_groups(labels[rows]), "the groups", labels, min_group
    )
    rows = selection.rows
    common: dict[str, Any] = {
        "n": int(rows.sum()),
        "n_missing": selection.n_missing,
        "n_rare": selection.n_rare,
        "covariates": "; ".join(use["covariate"] for use in block.uses if use["used"]),
        "dropped": "; ".join(f"{use['covariate']}: {use['reason']}" for use in block.uses if not use["used"]),
        "warnings": "",
    }
    if base is None:
        return [
            (common | {"groups": len(np.unique(labels[rows].astype(str))), "note": _TOO_FEW_GROUPS}, [], block.uses)
        ] * len(places)
    names = np.unique(labels[rows].astype(str))
    design = np.column_stack([base, block.columns])
    common |= {"groups": len(names), "parameters": design.shape[1], "df_residual": len(design) - design.shape[1]}
    if len(design) < SUBJECTS_PER_PARAMETER * design.shape[1]:
        note = f"nothing was fitted: {len(design)} subjects are too few for {design.shape[1]} parameters"
        return [(common | {"note": note}, [], block.uses)] * len(places)
    small = sorted(set(labels[grouped]) - set(names))
    excluded = [f"too small to compare (under {min_group} subjects in the fit): {', '.join(small)}"] if small else []
    common["warnings"] = "; ".join([*excluded, *_list_overlap(labels[rows], names, selection, block)])
    solver = LeastSquares.decompose(design)
    part = values[np.ix_(rows, places)]
    flat, exact = np.ptp(part, axis=0) == 0, solver.find_exact(part)
    chosen = np.eye(len(names), design.shape[1])
    means, covariance = solver.estimate(part, chosen)
    steps = np.diff(np.eye(len(names)), axis=0)
    f, p_groups = find_wald_f(means @ steps.T, steps @ covariance @ steps.T, solver.df_residual)
    p_logit = _test_logits(part, [metrics[place] for place in places], solver, chosen, steps)
    crude = (base / base.sum(axis=0)).T @ part
    reach = stats.t.ppf(0.5 + CONFIDENCE / 2, solver.df_residual)
    widened = widen_for_choice(
        np.full(len(places), len(names)), p_groups, np.full(len(places), float(solver.df_residual))
    )
    results: list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = []
    for index, place in enumerate(places):
        note = ""
        if flat[index]:
            note = "nothing was tested: every subject has the same value"
        elif exact[index]:
            note = "nothing was tested: groups and covariates reproduce every value, nothing is left to judge chance by"
        if note:
            results.append((common | {"note": note}, [], block.uses))
            continue
        error = np.sqrt(np.diagonal(covariance[index]))
        error[error <= _ROUNDING**0.5 * abs(means[index])] = np.nan  # a group without any spread has no interval
        rows_of_means = [
            {
                "group": str(name),
                "n": int(base[:, group].sum()),
                "crude_mean": crude[group, index],
                "adjusted_mean": means[index, group],
                "low": means[index, group] - reach * error[group],
                "high": means[index, group] + reach * error[group],
            }
            for group, name in enumerate(names)
        ]
        gap = _state_gap(
            means[index],
            covariance[index],
            crude[:, index],
            names,
            metrics[place],
            pairs[place] if pairs else None,
            reach * widened[index],
            solver,
        )
        if not gap["note"] and np.isnan(p_groups[index]):
            gap["note"] = "no test over all groups: two of them do not vary"
        gap |= {"f": f[index], "df_groups": len(names) - 1, "p_groups": p_groups[index], "p_logit": p_logit[index]}
        results.append((common | gap, rows_of_means, block.uses))
    return results


def _state_gap(
    means: np.ndarray,
    covariance: np.ndarray,
    crude: np.ndarray,
    names: np.ndarray,
    metric: str,
    pair: tuple[str, str] | None,
    reach: float,
    solver: LeastSquares,
) -> dict[str, Any]:
    """Return one column's gap between two groups, with its interval and test."""
    if pair is None:
        extremes = find_extremes(means, metric)
        best, worst = extremes.best, extremes.worst
    else:
        found = [int(np.flatnonzero(names == str(name))[0]) if str(name) in names else -1 for name in pair]
        if min(found) < 0 or found[0] == found[1]:
            return {"note": f"no gap: {pair[0]} and {pair[1]} are not two groups of the fit"}
        best, worst = found
    sign = sign_metric(metric)
    gap = sign * (means[best] - means[worst])
    error = np.sqrt(max(covariance[best, best] + covariance[worst, worst] - 2 * covariance[best, worst], 0.0))
    stated = {
        "best_group": str(names[best]),
        "worst_group": str(names[worst]),
        "crude_gap": sign * (crude[best] - crude[worst]),
        "adjusted_gap": gap,
    }
    # Both groups without any spread of their own: an interval of no width would be a silent falsehood.
    if error <= _ROUNDING**0.5 * max(abs(means[best]), abs(means[worst])):
        return stated | {"note": "no interval: neither of the two groups varies"}
    low, high = limit_gap(gap - reach * error, gap + reach * error, metric)
    return stated | {
        "low": float(low),
        "high": float(high),
        "p": 2
        * stats.t.sf(
            abs(gap) / error * stats.t.ppf(0.5 + CONFIDENCE / 2, solver.df_residual) / reach, solver.df_residual
        ),
        "note": "",
    }


def _test_logits(
    part: np.ndarray, metrics: Sequence[str], solver: LeastSquares, chosen: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """Return the p-value over all groups on the logit scale for metrics in [0, 1], NaN for others."""
    p = np.full(part.shape[1], np.nan)
    bounded = np.array([metric in UNIT_INTERVAL_METRICS for metric in metrics])
    bounded &= (part.min(axis=0) >= 0) & (part.max(axis=0) <= 1)
    if bounded.any():
        subjects = len(part)
        logits = special.logit((part[:, bounded] * (subjects - 1) + 0.5) / subjects)
        means, covariance = solver.estimate(logits, chosen)
        p[bounded] = find_wald_f(means @ steps.T, steps @ covariance @ steps.T, solver.df_residual)[1]
    return p


def _list_overlap(labels: np.ndarray, names: np.ndarray, selection: Selection, block: Block) -> list[str]:
    """Return sentences on where the groups cannot be compared like with like."""
    warnings = [
        f"the gap stays confounded with {use['covariate']}"
        for use in block.uses
        if not use["used"] and use["reason"].startswith("collinear with the groups")
    ]
    used = {use["covariate"] for use in block.uses if use["used"]}
    for covariate in selection.covariates:
        if covariate.name not in used:
            continue
        values = covariate.numbers[selection.rows]
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
                warnings.append(f"{outside:.0%} of the subjects lie outside the {covariate.name} that all groups share")
            continue
        for place in np.unique(values):
            absent = [str(name) for name, member in zip(names, members, strict=True) if place not in member]
            if absent:
                level = covariate.levels[int(place)]
                warnings.append(f"nobody of {', '.join(absent)} has {covariate.name} {level}")
    return warnings


def _list_forms(covariate: Covariate, values: np.ndarray, *, bend: bool) -> list[tuple[str, np.ndarray]]:
    """Return the centred columns by which a covariate may enter, the richest first."""
    if covariate.levels is not None:
        places, counts = np.unique(values, return_counts=True)
        others = np.delete(places, int(np.argmax(counts)))
        columns = (values[:, None] == others[None, :]).astype(float)
        return [("levels", columns - columns.mean(axis=0))]
    standard = (values - values.mean()) / values.std()
    forms = []
    if bend and len(np.unique(values)) >= DISTINCT_FOR_SPLINE:
        knots = place_knots(standard, SPLINE_DF)
        columns = build_natural_spline(standard, knots)
        if columns.shape[1] > 1:
            forms.append(("spline", columns - columns.mean(axis=0)))
    return [*forms, ("line", standard[:, None])]


def _choose_form(
    span: np.ndarray, forms: Sequence[tuple[str, np.ndarray]]
) -> tuple[str, np.ndarray, np.ndarray, float]:
    """Return the first form that is not collinear with `span`, else the last: name, columns, their basis, inflation."""
    chosen = ("", np.empty((len(span), 0)), np.empty((len(span), 0)), np.inf)
    # Bends that are collinear need not cost the whole covariate: its line is tried after them.
    for form, columns in forms:
        own, triangle, _ = linalg.qr(columns, mode="economic", pivoting=True)
        full = abs(triangle[-1, -1]) > 1e-8 * abs(triangle[0, 0])
        chosen = (form, columns, own, _measure_inflation(span, own) if full else np.inf)
        if chosen[3] <= LARGEST_INFLATION:
            break
    return chosen


def _measure_inflation(span: np.ndarray, own: np.ndarray) -> float:
    """Return 1 / (1 − ρ²), with ρ the largest canonical correlation of two orthonormal bases."""
    largest = np.linalg.svd(span.T @ own, compute_uv=False)[0]
    return float(1.0 / max(1.0 - largest**2, 1e-12))


def _pool_levels(covariate: Covariate, rows: np.ndarray) -> tuple[Covariate, np.ndarray]:
    """Return the covariate with its rare levels made one, and which subjects keep a level that is shared."""
    if covariate.levels is None or not rows.any():
        return covariate, np.ones(len(rows), bool)
    places, counts = np.unique(covariate.numbers[rows], return_counts=True)
    rare = places[counts < SMALLEST_LEVEL]
    in_rare = np.isin(covariate.numbers, rare) & rows
    if not in_rare.any():
        return covariate, np.ones(len(rows), bool)
    if in_rare.sum() < SMALLEST_LEVEL:
        return covariate, ~in_rare
    pooled = np.where(in_rare, float(len(covariate.levels)), covariate.numbers)
    return Covariate(covariate.name, pooled, (*covariate.levels, "(rare levels)")), np.ones(len(rows), bool)


def _find_large(labels: np.ndarray, rows: np.ndarray, min_group: int) -> np.ndarray:
    """Return the subjects, (subjects,) of bool, whose group has at least `min_group` members among `rows`."""
    names, counts = np.unique(labels[rows].astype(str), return_counts=True)
    return np.isin(labels.astype(str), names[counts >= min_group]) & rows


def _describe_use(name: str, *, inflation: float = np.nan, reason: str) -> dict[str, Any]:
    return {
        "covariate": name,
        "used": False,
        "form": "",
        "parameters": 0,
        "inflation": inflation,
        "reason": reason,
    }


def read_labels(groups: np.ndarray) -> np.ndarray:
    """Return group names as text, None where unknown: object, (subjects,)."""
    column = pd.Series(np.asarray(groups, object), dtype=object)
    return np.array([str(name) if known else None for name, known in zip(column, column.notna(), strict=True)], object)


def _check_shapes(
    values: np.ndarray,
    labels: np.ndarray,
    covariates: pd.DataFrame,
    metrics: Sequence[str],
    pairs: Sequence[tuple[str, str] | None] | None,
) -> None:
    if values.ndim != 2 or not len(values) == len(labels) == len(covariates):
        raise SegfairError(
            f"values, groups and covariates must have one row per subject; got shapes {values.shape}, {labels.shape} and {covariates.shape}"
        )
    if len(metrics) != values.shape[1] or (pairs is not None and len(pairs) != values.shape[1]):
        raise SegfairError(f"metrics (and pairs) must name one for each of the {values.shape[1]} columns of values")
    for metric in dict.fromkeys(metrics):
        try:
            sign_metric(metric)
        except KeyError:
            raise SegfairError(f"metrics names {metric!r}, of which it is not known whether higher is better") from None
