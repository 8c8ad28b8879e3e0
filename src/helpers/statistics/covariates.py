"""Covariates of a fit: how they are encoded, which can be used, and for whom all are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import linalg

from helpers.statistics.least_squares import LeastSquares
from helpers.statistics.splines import build_natural_spline, place_knots

LARGEST_INFLATION = 10.0  # of the variance, above which a covariate is left out as collinear
SMALLEST_LEVEL = 5  # subjects; rarer levels of a categorical covariate are pooled
SMALLEST_KNOWN = 0.5  # share of subjects for whom a covariate must be known
SPLINE_DF = 3  # of a numeric covariate's natural spline
SUBJECTS_PER_SPLINE_PARAMETER = 15  # fewer than that, and numeric covariates enter as straight lines
DISTINCT_FOR_SPLINE = 10
SUBJECTS_PER_PARAMETER = 2  # fewer than that, and nothing is fitted

_SEPARATOR = "; "
_RARE = "(rare levels)"


@dataclass(frozen=True)
class Covariate:
    """One covariate of every subject, encoded once."""

    name: str
    numbers: np.ndarray  # float64, (subjects,): the number, or the level's place; NaN where unknown
    levels: tuple[str, ...] | None  # names of the levels; None for a number

    @property
    def known(self) -> np.ndarray:
        """Which subjects have a value: bool, (subjects,)."""
        return np.isfinite(self.numbers)


@dataclass(frozen=True)
class CovariateUse:
    """How a covariate enters a fit, or why it does not."""

    name: str
    form: str = ""  # "spline", "line" or "levels"; empty where it is not used
    reason: str = ""  # why it is not used
    mimics_base: bool = False  # left out because it cannot be told from what is of interest


@dataclass(frozen=True)
class SubjectSelection:
    """Who takes part in a fit, and which covariates can be looked at."""

    rows: np.ndarray  # bool, (subjects,)
    covariates: list[Covariate]  # with rare levels pooled; still of all subjects
    n_missing: int  # subjects left out for an unknown covariate
    n_rare: int  # ... or for a level that hardly anyone shares
    dropped: dict[str, str]  # the reason, by name of the covariates that are left out


@dataclass(frozen=True, eq=False)
class CovariateFit(SubjectSelection):
    """A design of what is of interest and the covariates, for those who take part."""

    base: np.ndarray | None  # float64, (subjects in the fit, columns), of interest; None: nothing to fit
    columns: np.ndarray  # float64, (subjects in the fit, parameters): the covariates', each of mean 0
    uses: list[CovariateUse]  # one per covariate

    @cached_property
    def design(self) -> np.ndarray:
        """The base, then the covariates: float64, (subjects in the fit, parameters)."""
        return np.column_stack([cast(np.ndarray, self.base), self.columns])

    @cached_property
    def solver(self) -> LeastSquares:
        """The design, decomposed."""
        return LeastSquares.decompose(self.design)

    @property
    def used(self) -> list[str]:
        """Names of the covariates in the design."""
        return [use.name for use in self.uses if use.form]

    def describe(self) -> dict[str, Any]:
        """Return the subjects in the fit and left out, the covariates used and dropped and why."""
        return {
            "n": int(self.rows.sum()),
            "n_missing": self.n_missing,
            "n_rare": self.n_rare,
            "covariates": join_covariates(self.used),
            "dropped": _SEPARATOR.join(f"{use.name}: {use.reason}" for use in self.uses if not use.form),
        }

    def tell_mimicry(self) -> str:
        """Return which covariate cannot be told from what is of interest; empty where all can."""
        return next((f"cannot be told from {use.name} here: {use.reason}" for use in self.uses if use.mimics_base), "")

    def tell_shortage(self, who: str = "subjects") -> str:
        """Return that there are too few people to fit anything to; empty where there are enough."""
        people, parameters = self.design.shape
        if people >= SUBJECTS_PER_PARAMETER * parameters:
            return ""
        return f"{people} {who} are too few for {parameters} parameters"


def join_covariates(names: Sequence[str]) -> str:
    """Return names as the text that :func:`split_covariates` reads."""
    return _SEPARATOR.join(names)


def split_covariates(text: str) -> list[str]:
    """Return the names that :func:`join_covariates` joined."""
    return [name for name in text.split(_SEPARATOR) if name]


def encode_covariates(covariates: pd.DataFrame) -> list[Covariate]:
    """Return each column as numbers: its own, or the level's place among the sorted names."""
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


def fit_with_covariates(
    rows: np.ndarray,
    encoded: Sequence[Covariate],
    make_base: Callable[[np.ndarray], np.ndarray | None],
    base_name: str,
    labels: np.ndarray | None = None,
    min_group: int = 1,
) -> CovariateFit:
    """Select subjects and covariates together: nobody is left out for a covariate that is not used.

    Parameters
    ----------
    rows : ndarray of bool, (subjects,)
        Subjects with a response.
    encoded : sequence of Covariate
        The earlier of two collinear ones is kept.
    make_base : callable
        From a bool array of subjects to what is of interest, (subjects in the fit, columns), with
        the constant in its span and of full rank; None where there is nothing to fit.
    base_name : str
        What to call it in reasons: "the groups".
    labels : ndarray of object, (subjects,), optional
        Group names; None where unknown. Groups of fewer than `min_group` subjects take no part.

    Notes
    -----
    Numbers are standardised and enter as natural splines of :data:`SPLINE_DF` degrees of freedom
    where there are at least :data:`SUBJECTS_PER_SPLINE_PARAMETER` subjects per parameter, else as
    lines. Levels held by fewer than :data:`SMALLEST_LEVEL` subjects are pooled; if the pool is as
    small, its subjects are left out: compared among themselves alone they say next to nothing of
    the base. A covariate is dropped where it is constant, unknown for too many
    (:data:`SMALLEST_KNOWN`; of several the least known first), or where the variance inflation
    factor of its worst direction exceeds :data:`LARGEST_INFLATION`.
    """
    remaining = list(encoded)
    reasons: dict[str, CovariateUse] = {}
    while True:
        selection = select_subjects(rows, remaining, labels, min_group)
        base = make_base(selection.rows)
        unknown = [one for one in remaining if one.name not in selection.dropped and not one.known[rows].all()]
        if unknown and (base is None or selection.rows.sum() < SMALLEST_KNOWN * rows.sum()):
            # Together the unknown values cost too many people: better one covariate less than most
            # of the cohort.
            costliest = min(unknown, key=lambda one: one.known[rows].sum())
            share = costliest.known[rows].mean()
            reason = f"known for {share:.0%} of the subjects: too few would be left with everything known"
            reasons[costliest.name] = CovariateUse(costliest.name, reason=reason)
            remaining = [one for one in remaining if one is not costliest]
            continue
        if base is None:
            return CovariateFit(**vars(selection), base=base, columns=np.empty((0, 0)), uses=list(reasons.values()))
        columns, uses = add_covariates(base, base_name, selection)
        unused = {use.name for use in uses if not use.form}
        costly = [one.name for one in remaining if one.name in unused and not one.known[rows].all()]
        reasons |= {use.name: use for use in uses if use.name in costly}
        if not costly:
            names = [covariate.name for covariate in encoded]
            uses = sorted([*reasons.values(), *uses], key=lambda use: names.index(use.name))
            return CovariateFit(**vars(selection), base=base, columns=columns, uses=uses)
        remaining = [one for one in remaining if one.name not in costly]


def select_subjects(
    rows: np.ndarray, encoded: Sequence[Covariate], labels: np.ndarray | None = None, min_group: int = 1
) -> SubjectSelection:
    """Find who can take part: every covariate known, the level shared, the group large enough."""
    dropped = {}
    usable = []
    for covariate in encoded:
        share = covariate.known[rows].mean() if rows.any() else 1.0
        if share < SMALLEST_KNOWN:
            dropped[covariate.name] = f"known for {share:.0%} of the subjects only"
        else:
            usable.append(covariate)
    complete = rows & np.all([covariate.known for covariate in usable], axis=0) if usable else rows
    kept, n_rare = complete, 0
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
    return SubjectSelection(kept, pooled, int(rows.sum() - complete.sum()), n_rare, dropped)


def add_covariates(
    base: np.ndarray, base_name: str, selection: SubjectSelection
) -> tuple[np.ndarray, list[CovariateUse]]:
    """Return the columns of the covariates that can be told from what is there, and all uses."""
    rows, subjects = selection.rows, len(base)
    uses = [CovariateUse(name, reason=reason) for name, reason in selection.dropped.items()]
    ambition = base.shape[1] + sum(
        SPLINE_DF if covariate.levels is None else len(np.unique(covariate.numbers[rows])) - 1
        for covariate in selection.covariates
    )
    bend = subjects >= SUBJECTS_PER_SPLINE_PARAMETER * ambition
    base_span = span = np.linalg.qr(base)[0]
    blocks = [np.empty((subjects, 0))]
    for covariate in selection.covariates:
        values = covariate.numbers[rows]
        if np.ptp(values) == 0:
            rare = covariate.levels is not None and covariate.levels[-1] == _RARE
            reason = f"no value is shared by {SMALLEST_LEVEL} subjects" if rare else "constant"
            uses.append(CovariateUse(covariate.name, reason=reason))
            continue
        form, columns, own, inflation = _choose_form(span, _list_forms(covariate, values, bend=bend))
        if inflation > LARGEST_INFLATION:
            mimics_base = _measure_inflation(base_span, own) > LARGEST_INFLATION
            rival, stated = base_name if mimics_base else "other covariates", min(inflation, 1e6)
            reason = f"collinear with {rival} (variance inflation {stated:.3g} exceeds {LARGEST_INFLATION:g})"
            uses.append(CovariateUse(covariate.name, "", reason, mimics_base))
            continue
        blocks.append(columns)
        rest = own - span @ (span.T @ own)
        span = np.column_stack([span, np.linalg.qr(rest)[0]])
        uses.append(CovariateUse(covariate.name, form))
    return np.column_stack(blocks), uses


def read_labels(groups: np.ndarray) -> np.ndarray:
    """Return group names as text, None where unknown: object, (subjects,)."""
    column = pd.Series(np.asarray(groups, object), dtype=object)
    return np.array([str(name) if known else None for name, known in zip(column, column.notna(), strict=True)], object)


def code_groups(labels: np.ndarray) -> np.ndarray | None:
    """Return zeros and ones per group by name, (subjects, groups); None for fewer than two."""
    names = np.unique(labels.astype(str))
    return (labels[:, None] == names[None, :]).astype(float) if len(names) > 1 else None


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
        columns = build_natural_spline(standard, place_knots(standard, SPLINE_DF))
        if columns.shape[1] > 1:
            forms.append(("spline", columns - columns.mean(axis=0)))
    return [*forms, ("line", standard[:, None])]


def _choose_form(
    span: np.ndarray, forms: Sequence[tuple[str, np.ndarray]]
) -> tuple[str, np.ndarray, np.ndarray, float]:
    """Return the first form not collinear, else the last: name, columns, basis, inflation."""
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
    """Return the covariate with its rare levels made one, and who keeps a level that is shared."""
    everybody = np.ones(len(rows), bool)
    if covariate.levels is None or not rows.any():
        return covariate, everybody
    places, counts = np.unique(covariate.numbers[rows], return_counts=True)
    in_rare = np.isin(covariate.numbers, places[counts < SMALLEST_LEVEL]) & rows
    if not in_rare.any():
        return covariate, everybody
    if in_rare.sum() < SMALLEST_LEVEL:
        return covariate, ~in_rare
    pooled = np.where(in_rare, float(len(covariate.levels)), covariate.numbers)
    return Covariate(covariate.name, pooled, (*covariate.levels, _RARE)), everybody


def _find_large(labels: np.ndarray, rows: np.ndarray, min_group: int) -> np.ndarray:
    """Return whose group, (subjects,) of bool, has at least `min_group` members among `rows`."""
    names, counts = np.unique(labels[rows].astype(str), return_counts=True)
    return np.isin(labels.astype(str), names[counts >= min_group]) & rows
