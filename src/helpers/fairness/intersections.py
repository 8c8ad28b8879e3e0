"""Intersections: sex × age × BMI, small cells pooled towards what their attributes predict.

The model is that of MAIHDA (Evans et al. 2018; docs/METHODS.md, section 10). Because all covariates
belong to cells, the cells' means and the variation within them are sufficient: the restricted
likelihood is exact from cells × attributes numbers, the same as a mixed model's over people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg, special, stats

from helpers.fairness.groups import number_groups
from helpers.fairness.tables import CELL_COLUMNS
from helpers.schema import TABLES
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.least_squares import split_by_missing

SMALLEST_TESTED = 5  # subjects of a cell that takes part in the test of interactions
FEW_CELLS = 5  # more cells than main effects by fewer than this, and the variance between cells is hardly known
WITHHELD = "withheld"

CLUSTERED = "people come in clusters: no intervals and no test, which would take them for independent"

_TESTED = ("f", "df_cells", "df_within", "p_interaction")
_SHOWN = ("additive", "pooled", "low", "high", "weight")


@dataclass(frozen=True)
class Intersections:
    """What :func:`pool_intersections` found, in the columns of :mod:`helpers.schema`.

    `cells` has a row per column of the response and combination of groups, met or not: ``column``,
    the attributes, then those of intersections.csv, of which ``pooled`` lies between the cell's
    own ``mean`` and ``additive``, which its attributes alone predict. `variances` has a row per
    column of the response: ``column``, then those of intersection_variance.csv; its F test is of
    cells of at least :data:`SMALLEST_TESTED` subjects.
    """

    cells: pd.DataFrame
    variances: pd.DataFrame


def pool_intersections(
    values: np.ndarray, groups: pd.DataFrame, *, min_group: int = 10, clustered: bool = False
) -> Intersections:
    """Estimate the mean of every combination of groups, small ones with the help of the others.

    `values` are float, (subjects, columns), NaN where a subject has no value; `groups`, (subjects,
    attributes), group names (categories or text), missing where unknown: such subjects take no
    part. Cells with fewer than `min_group` subjects help the others but are not shown. Of subjects
    who come in clusters (`clustered`) there are no intervals and no test, which take them for
    independent.

    Notes
    -----
    *Fit.* τ² and σ² by restricted maximum likelihood, profiled to one dimension; β by generalised
    least squares; the interval is ± 1.96 root mean squared error with the terms for estimating β
    and τ² (Prasad & Rao 1990; Datta & Lahiri 2000): without them it would be far too narrow where
    τ² is estimated as 0. σ² is taken as the same in all cells. Of one attribute, or no more cells
    than main effects, cells are pooled towards the common mean, and the note says so.

    *Suppression.* A hidden cell that is the only one of its group could be had by subtraction from
    published groups; so further cells, as few and as small as a greedy search finds, are withheld
    until no hidden cell is determined by the totals of all subjects and of every group of every
    attribute (checked exactly, by the null space of that linear system). Tables of *pairs* of the
    same attributes must not be published next to one of three.

    Sources: Evans, Williams, Onnela & Subramanian 2018, Social Science & Medicine 203. Prasad & Rao
    1990, JASA 85:163. Hundepool et al. 2012, *Statistical Disclosure Control*, chapter 4.
    """
    values = np.asarray(values, float)
    table = _Table.lay_out(groups)
    everybody = np.bincount(table.cell[table.cell >= 0], minlength=len(table.codes))
    rows: dict[int, dict[str, Any]] = {}
    shown: dict[int, dict[str, np.ndarray]] = {}
    for known, places in split_by_missing(values):
        kept = known & (table.cell >= 0)
        cell = table.cell[kept]
        pattern = _Pattern.examine(np.bincount(cell, minlength=len(table.codes)), everybody, table, min_group)
        for place in places:
            shown[place], row = pattern.fit(values[kept, place], cell)
            rows[place] = {"column": int(place)} | row
    order = range(values.shape[1])
    cells = table.names.iloc[np.tile(np.arange(len(table.names)), len(order))].reset_index(drop=True)
    cells["column"] = np.repeat(np.arange(len(order)), len(table.names))
    for name in CELL_COLUMNS:
        cells[name] = np.concatenate([shown[place][name] for place in order]) if len(order) else []
    columns = ["column", *TABLES["intersection_variance"].names[3:]]
    variances = pd.DataFrame([rows[place] for place in order], columns=columns)
    if clustered:
        cells = cells.assign(low=np.nan, high=np.nan)
        variances = variances.assign(**dict.fromkeys(_TESTED, np.nan), note=CLUSTERED + "; " + variances["note"])
    return Intersections(cells, variances)


def find_withheld(
    counts: np.ndarray, margins: np.ndarray, min_group: int, preference: np.ndarray | None = None
) -> np.ndarray:
    """Find the cells to hide, bool, (cells,), so that none of them follows from published totals.

    `counts`, int, (cells,), are subjects: those under `min_group` are hidden. `margins`, float,
    (totals, cells), has 1 where a cell is part of a published total. Companions are picked by the
    sizes `preference`, int, (cells,), else by `counts`: tables of nearly the same people should
    share one, so that they withhold the same cells and do not complete each other.

    Notes
    -----
    Exact derivation is prevented; bounds that follow from numbers not being negative are not
    considered.
    """
    hidden = counts < min_group
    sizes = counts if preference is None else preference
    while True:
        exposed = _find_exposed(hidden, margins)
        # A companion must share a total with an exposed cell: the one that leaves the fewest
        # exposed, of such the smallest.
        candidates = np.flatnonzero((margins[:, exposed].sum(axis=1) @ margins > 0) & ~hidden)
        if not len(candidates):
            return hidden
        trials = hidden | np.eye(len(counts), dtype=bool)[candidates]
        left = [int(_find_exposed(trial, margins).sum()) for trial in trials]
        hidden = trials[min(range(len(candidates)), key=lambda index: (left[index], sizes[candidates[index]]))]


def _find_exposed(hidden: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Return which hidden cells, (cells,) of bool, the totals and the open cells determine."""
    exposed = np.zeros(len(hidden), bool)
    if hidden.any():
        _, sizes, directions = np.linalg.svd(margins[:, hidden])
        free = directions[int((sizes > 1e-9).sum()) :]
        exposed[hidden] = (np.abs(free) < 1e-9).all(axis=0)
    return exposed


@dataclass(frozen=True)
class _Table:
    """All combinations of groups, and each subject's cell (−1 where an attribute is unknown)."""

    names: pd.DataFrame
    cell: np.ndarray
    codes: np.ndarray  # (cells, attributes)

    @classmethod
    def lay_out(cls, groups: pd.DataFrame) -> _Table:
        levels, codes = [], []
        for name in groups.columns:
            order, places = number_groups(groups[name])
            levels.append(order)
            codes.append(places)
        shape = tuple(len(order) for order in levels)
        of_subject = np.array(codes, int).T.reshape(len(groups), len(shape))
        known = (of_subject >= 0).all(axis=1)
        cell = np.full(len(groups), -1)
        if known.any():
            cell[known] = np.ravel_multi_index(tuple(of_subject[known].T), shape)
        grid = np.indices(shape).reshape(len(shape), -1).T
        names = pd.DataFrame(
            {
                str(name): pd.Series([levels[place][code] for code in grid[:, place]], dtype=object)
                for place, name in enumerate(groups.columns)
            }
        )
        return cls(names, cell, grid)

    def build_margins(self) -> np.ndarray:
        """Return which cells each published total sums: of everybody, and of every group."""
        totals = [np.ones((1, len(self.codes)))]
        for place in range(self.codes.shape[1]):
            column = self.codes[:, place]
            totals.append((np.unique(column)[:, None] == column[None, :]).astype(float))
        return np.vstack(totals)

    def build_main_effects(self, met: np.ndarray) -> np.ndarray:
        """Return independent columns that span a constant and every group, for the cells met."""
        columns = self.build_margins()[:, met].T
        if not met.any():
            return columns
        _, triangle, order = linalg.qr(columns, mode="economic", pivoting=True)
        rank = int((np.abs(np.diagonal(triangle)) > 1e-9 * max(abs(triangle[0, 0]), 1.0)).sum())
        return columns[:, np.sort(order[:rank])]


@dataclass(frozen=True)
class _Pattern:
    """What columns in which the same subjects have a value share."""

    counts: np.ndarray
    hidden: np.ndarray
    main_effects: np.ndarray
    several: bool  # more than one attribute
    text: np.ndarray
    notes: list[str]

    @classmethod
    def examine(cls, counts: np.ndarray, everybody: np.ndarray, table: _Table, min_group: int) -> _Pattern:
        hidden = find_withheld(counts, table.build_margins(), min_group, everybody)
        text = np.where(counts < min_group, f"<{min_group}", np.where(hidden, WITHHELD, counts.astype(str)))
        notes = []
        if (counts == 0).any():
            notes.append(f"{int((counts == 0).sum())} of {len(counts)} combinations hold nobody")
        if hidden.any():
            notes.append(
                f"{int(hidden.sum())} of {len(counts)} cells are not shown: "
                "too small, empty, or withheld to protect those"
            )
        main_effects = table.build_main_effects(counts > 0)
        return cls(counts, hidden, main_effects, table.codes.shape[1] > 1, text.astype(object), notes)

    def fit(self, values: np.ndarray, cell: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return one column's cells and its row of variances."""
        met = self.counts > 0
        sums = np.bincount(cell, values, minlength=len(self.counts))
        every_mean = np.divide(sums, self.counts, out=np.full(len(met), np.nan), where=met)
        squares = np.bincount(cell, (values - every_mean[cell]) ** 2, minlength=len(self.counts))
        within = float(squares.sum())
        counts, means = self.counts[met], every_mean[met]
        shown = {name: np.full(len(met), np.nan) for name in (*_SHOWN, "mean")}
        shown |= {"n": self.text, "suppressed": self.hidden}
        row: dict[str, Any] = {
            "n": int(counts.sum()),
            "cells": len(counts),
            "empty_cells": int((~met).sum()),
            "suppressed_cells": int(self.hidden.sum()),
        }
        why = _explain_no_model(counts, means, within)
        if why:
            return shown, row | {"note": "; ".join([why, *self.notes])}
        notes = []
        df_cells = len(counts) - self.main_effects.shape[1]
        pooled = null = _Pooled.fit(counts, means, within, np.ones((len(counts), 1)))
        row |= {"within_variance": null.within, "between_variance_null": null.between, "vpc_null": null.share}
        if df_cells < 1 or not self.several:
            notes.append("main effects and cells cannot be told apart: cells are pooled towards the common mean")
        else:
            pooled = _Pooled.fit(counts, means, within, self.main_effects)
            row |= {"within_variance": pooled.within, "between_variance": pooled.between, "vpc": pooled.share}
            if null.between > 0:
                row["unexplained_share"] = min(pooled.between / null.between, 1.0)
            row |= _test_interaction(counts, means, squares[met], self.main_effects)
            if "f" not in row:
                notes.append(f"interactions were not tested: too few cells have {SMALLEST_TESTED} subjects")
        if len(counts) - pooled.parameters < FEW_CELLS:
            notes.append("there are few cells: the variance between them is hardly known")
        visible = met & ~self.hidden
        shown["mean"][visible] = every_mean[visible]
        for name in _SHOWN:
            shown[name][visible] = getattr(pooled, name)[visible[met]]
        return shown, row | {"note": "; ".join([*notes, *self.notes])}


def _explain_no_model(counts: np.ndarray, means: np.ndarray, within: float) -> str:
    """Return why these cells bear no model, or nothing."""
    if len(counts) < 2:
        return "nothing to compare: fewer than two combinations hold anybody"
    if counts.sum() - len(counts) < 1:
        return "nothing was fitted: no combination holds two subjects"
    if within <= 1e-20 * (counts * means**2).sum():
        alike = np.ptp(means) <= 1e-12 * np.abs(means).max()
        return (
            "nothing was fitted: every subject has the same value"
            if alike
            else "nothing was fitted: no cell varies within"
        )
    return ""


def _test_interaction(
    counts: np.ndarray, means: np.ndarray, squares: np.ndarray, design: np.ndarray
) -> dict[str, float]:
    """Return F of the cells' departure from additive means, its df and p, or nothing.

    Exact for normal scores of equal variance. Cells of one or two people are left out: there one
    skewed value is a cell's whole mean, and F takes it for an interaction.
    """
    large = counts >= SMALLEST_TESTED
    root = np.sqrt(counts[large])
    sizes, directions = np.linalg.svd(root[:, None] * design[large])[1::-1]
    rank = int((sizes > 1e-9 * max(sizes.max(initial=0.0), 1.0)).sum())
    df_cells, df_within = int(large.sum()) - rank, int((counts[large] - 1).sum())
    if df_cells < 1:
        return {}
    basis = directions[:, :rank]
    scaled = root * means[large]
    departure = scaled - basis @ (basis.T @ scaled)
    within = float(squares[large].sum()) / df_within
    if within <= 0:
        return {}
    f = float((departure**2).sum()) / df_cells / within
    return {
        "f": f,
        "df_cells": df_cells,
        "df_within": df_within,
        "p_interaction": float(stats.f.sf(f, df_cells, df_within)),
    }


@dataclass(frozen=True)
class _Pooled:
    """A fitted one-way random-effects model with fixed effects of the cells."""

    between: float
    within: float
    parameters: int
    additive: np.ndarray
    pooled: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    @property
    def share(self) -> float:
        """The variance partition coefficient."""
        return self.between / (self.between + self.within)

    @classmethod
    def fit(cls, counts: np.ndarray, means: np.ndarray, within: float, design: np.ndarray) -> _Pooled:
        """Fit by restricted maximum likelihood; `within` is the sum of squares inside the cells."""
        ratio, variance = _find_ratio(counts, means, within, design)
        between = ratio * variance
        error = variance / counts
        total = between + error
        scaled = design / total[:, None]
        inverse = np.linalg.inv(design.T @ scaled)
        additive = design @ (inverse @ (scaled.T @ means))
        weight = between / total
        # Mean squared error: of the random effect, of β, and (twice: once for itself, once for the
        # bias of the first) of τ².
        from_effect = weight * error
        from_main = (1 - weight) ** 2 * np.einsum("jp,pq,jq->j", design, inverse, design)
        variance_of_between = 2.0 / (total**-2.0).sum()
        from_between = error**2 * total**-3.0 * variance_of_between
        pooled = additive + weight * (means - additive)
        reach = special.ndtri(0.5 + CONFIDENCE / 2) * np.sqrt(from_effect + from_main + 2 * from_between)
        return cls(between, variance, design.shape[1], additive, pooled, pooled - reach, pooled + reach, weight)


def _profile(
    ratios: np.ndarray, counts: np.ndarray, means: np.ndarray, within: float, design: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return −2 log restricted likelihood at each τ²/σ², up to a constant, and the best σ² there.

    Harville 1977, section 5, for cells whose members are exchangeable: Σ log(1 + nλ) + log|X'WX| +
    (N − p) log σ̂² with W = diag(1 / (λ + 1/n)) and (N − p) σ̂² = the sum of squares within cells +
    the weighted one of the cells' means about X β̂.
    """
    weights = counts / (1.0 + counts * ratios[:, None])
    crossed = np.einsum("jp,rj,jq->rpq", design, weights, design, optimize=True)
    beta = np.linalg.solve(crossed, ((weights * means) @ design)[:, :, None])[:, :, 0]
    residuals = means - beta @ design.T
    df = counts.sum() - design.shape[1]
    variance = (within + (weights * residuals**2).sum(axis=1)) / df
    deviance = np.log1p(counts * ratios[:, None]).sum(axis=1) + np.linalg.slogdet(crossed)[1] + df * np.log(variance)
    return deviance, variance


def _find_ratio(counts: np.ndarray, means: np.ndarray, within: float, design: np.ndarray) -> tuple[float, float]:
    """Return the ratio τ²/σ² ≥ 0 of the largest restricted likelihood, and σ² there."""
    typical = 1.0 / np.median(counts)  # where the two variances weigh alike: the scale on which to look
    # The likelihood can have two maxima, one of them at 0: look everywhere first, then closer and
    # closer around the best.
    low, high = 0.0, 20.0 if len(counts) > design.shape[1] else 0.0
    while True:
        bends = np.linspace(low, high, 21)
        ratios = typical * np.expm1(bends)
        deviance, variance = _profile(ratios, counts, means, within, design)
        best = int(np.argmin(deviance))
        if high - low < 1e-8:
            return float(ratios[best]), float(variance[best])
        low, high = bends[max(best - 1, 0)], bends[min(best + 1, 20)]
