"""Whether an effect on surface errors exceeds chance: a linear model per vertex, permuted, the surface accounted for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product

import numpy as np
from scipy.stats import false_discovery_control

from helpers.errors import SegfairError
from helpers.spatial.clusters import MeshGraph, enhance_clusters

# A column whose part outside the columns before it is smaller than this (relative) says nothing of its own.
COLLINEAR = 1e-8
# The smallest eigenvalue of a vertex's design (1 where everybody is present) at which it can still be fitted.
SINGULAR = 1e-8
# Errors that a model explains but for this part (relative) have no variance to test against.
CONSTANT = 1e-10
# More permutations at once gain nothing: the products are large enough, and leave the cache.
MAX_BATCH = 64


@dataclass(frozen=True)
class SurfaceEffect:
    """An effect at every vertex of a surface, and how sure it is.

    Attributes
    ----------
    effect : ndarray of float64, (n_vertices,)
        Adjusted for the covariates. One tested column: mm per unit of it (of a 0/1 code: mean of 1 minus mean of 0).
        Several, one-hot: the largest difference between two groups' adjusted means, in mm.
    standard_error : ndarray of float64, (n_vertices,)
        Of the effect, mm; NaN for several columns. With repeated scans, robust against the likeness of a person's
        scans (Liang & Zeger 1986 with the factor G/(G−1)·(n−1)/(n−k)); then `statistic` is not effect over it.
    statistic : ndarray of float64, (n_vertices,)
        Ordinary least squares' t (one tested column), with the effect's sign, or F.
    statistic_name : str
        "t" or "F".
    p_uncorrected : ndarray of float64, (n_vertices,)
        Permutation p at the vertex alone, two-sided.
    p_fwer : ndarray of float64, (n_vertices,)
        Family-wise: against the largest statistic anywhere on the surface.
    p_tfce : ndarray of float64, (n_vertices,)
        Family-wise, of the enhanced map; NaN without a mesh.
    p_fdr : ndarray of float64, (n_vertices,)
        `p_uncorrected` adjusted by Benjamini & Hochberg.
    subjects : ndarray of int, (n_vertices,)
        People who have the vertex.
    permutations : int
        How many were made besides the identity, which counts in every p as one more.
    exhaustive : bool
        Every distinct rearrangement was made once, rather than a random choice.
    notes : tuple of str
        What was left out or could not be tested, in sentences.
    """

    effect: np.ndarray
    standard_error: np.ndarray
    statistic: np.ndarray
    statistic_name: str
    p_uncorrected: np.ndarray
    p_fwer: np.ndarray
    p_tfce: np.ndarray
    p_fdr: np.ndarray
    subjects: np.ndarray
    permutations: int
    exhaustive: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Design:
    """Orthonormal columns, rows sorted by person: the intercept and covariates, then what is tested."""

    columns: np.ndarray
    original: np.ndarray
    tested: int

    @property
    def covariates(self) -> int:
        return self.columns.shape[1] - self.tested


@dataclass(frozen=True)
class _Fit:
    """What the unpermuted model gives at the vertices that can be fitted, and the residuals to permute."""

    effect: np.ndarray
    standard_error: np.ndarray
    squared: np.ndarray
    sign: np.ndarray
    degrees: np.ndarray
    residuals: np.ndarray
    fitted: np.ndarray


def infer_effect(
    errors_mm: np.ndarray,
    tested: np.ndarray,
    *,
    seed: int,
    covariates: np.ndarray | None = None,
    subjects: Sequence[object] | np.ndarray | None = None,
    mesh: MeshGraph | None = None,
    permutations: int = 5000,
    min_subjects: int | None = None,
    memory_mb: float = 256.0,
) -> SurfaceEffect:
    """Test one variable's effect on the errors at every vertex, given covariates, by permutation.

    Parameters
    ----------
    errors_mm : ndarray of float, (n_scans, n_vertices)
        Signed errors; NaN where a scan lacks the vertex.
    tested : ndarray of float, (n_scans,) or (n_scans, n_columns)
        A two-group code or a number in the unit the effect is wanted in (decades of age): t.
        Several columns, one-hot groups (with or without the reference group): F.
    seed : int
        Decides which permutations are drawn.
    covariates : ndarray of float, (n_scans, n_covariates), optional
        Nuisance variables, coded; the intercept is added.
    subjects : sequence, (n_scans,), optional
        Whose scan each row is; without it every row is another person. Results do not depend on the order of rows
        where this is given (but a person's scans are taken in their given order).
    mesh : MeshGraph, optional
        The surface, for cluster enhancement.
    permutations : int
        As many, or all distinct ones where these are no more.
    min_subjects : int, optional
        Vertices that fewer people have are not tested; default half of the people.
    memory_mb : float
        About what the permutations may take at a time. It changes nothing but speed.

    Returns
    -------
    SurfaceEffect
        NaN, with a note, wherever there is nothing to test.

    Raises
    ------
    SegfairError
        The inputs' numbers of rows or vertices differ, or `permutations` is below 1.

    Notes
    -----
    Freedman & Lane's permutation: residuals of the model without the tested variable are permuted and the full model
    is fitted again (Winkler et al. 2014, section "Permutation strategies", and algorithm 1). As the covariates' fit
    drops out of the statistic, this equals moving the rows of the whole design against the residuals; so each batch
    of permutations is one matrix product, and what remains are sums of squares. People move whole, with all their
    scans and with the vertices they lack: at such a vertex the model is fitted, in every permutation, to those who
    are there. Only people with equally many scans change places (Winkler et al. 2015, whole-block exchangeability).

    ``p = (1 + permutations whose statistic reaches the observed one) / (1 + permutations)`` (Phipson & Smyth 2010);
    family-wise with the largest statistic of each permutation (Westfall & Young 1993), two-sided: the sizes of t,
    or of positive and negative enhanced clusters. F is enhanced as its square root, which is on the scale of t.

    Random permutations are computed in single precision; a permuted value within 1e-5 (relative) of the observed one
    counts as reaching it. The smallest adjusted value of `p_fdr` is limited by the number of permutations.

    References
    ----------
    Freedman & Lane, A nonstochastic interpretation of reported significance levels, J Bus Econ Stat 1:292-298, 1983.
    Winkler et al., Permutation inference for the general linear model, NeuroImage 92:381-397, 2014.
    Winkler et al., Multi-level block permutation, NeuroImage 123:253-268, 2015.
    Phipson & Smyth, Permutation p-values should never be zero, Stat Appl Genet Mol Biol 9:39, 2010.
    Liang & Zeger, Longitudinal data analysis using generalized linear models, Biometrika 73:13-22, 1986.
    """
    errors, tested = np.asarray(errors_mm), np.asarray(tested, float)
    _check_shapes(errors, tested, covariates, subjects, mesh, permutations)
    name = "t" if tested.ndim == 1 or tested.shape[1] == 1 else "F"
    tested = tested[:, None] if tested.ndim == 1 else tested
    covariates = np.empty((len(errors), 0)) if covariates is None else np.asarray(covariates, float)
    names = np.arange(len(errors)) if subjects is None else np.asarray(subjects).astype(str)
    notes: list[str] = []

    usable = _find_usable_rows(errors, tested, covariates, notes)
    people = np.unique(names[usable], return_inverse=True)[1]
    rows = np.flatnonzero(usable)[np.argsort(people, kind="stable")]
    sizes = np.bincount(people) if len(rows) else np.zeros(0, int)
    known = np.isfinite(errors[rows])
    blocks = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    present = _count_present(known, blocks)
    design = _build_design(tested[rows], covariates[rows], notes)
    if design.tested == 0:
        return _give_nothing(name, present, notes)
    at_least = math.ceil(len(sizes) / 2) if min_subjects is None else min_subjects
    fit = _fit_vertices(errors[rows], known, design, sizes, blocks, present >= at_least, name)
    if not fit.fitted.any():
        notes.append(
            f"no vertex could be tested: {len(sizes)} people, {design.columns.shape[1]} parameters; "
            f"a vertex needs at least {at_least} people, more scans than parameters and errors that vary"
        )
        return _give_nothing(name, present, notes)
    if not fit.fitted.all():
        notes.append(f"{int((~fit.fitted).sum())} of {len(fit.fitted)} vertices could not be tested")

    orders, made, exhaustive = _list_orders(design.original, sizes, blocks, permutations, seed)
    if made == 0:
        notes.append("there is no other arrangement of these people to compare with, so every p is 1")
    elif 1 / (1 + made) > 0.05:
        notes.append(f"there are only {made + 1} arrangements of these people: no p can be below {1 / (1 + made):.2g}")
    p_uncorrected, p_fwer, p_tfce = _permute(fit, known, design, orders, made, exhaustive, mesh, memory_mb)
    count = len(fit.fitted)
    p_fdr = false_discovery_control(p_uncorrected)
    return SurfaceEffect(
        effect=_spread(fit.effect, fit.fitted, count),
        standard_error=_spread(fit.standard_error, fit.fitted, count),
        statistic=_spread(fit.sign * np.sqrt(fit.squared) if name == "t" else fit.squared, fit.fitted, count),
        statistic_name=name,
        p_uncorrected=_spread(p_uncorrected, fit.fitted, count),
        p_fwer=_spread(p_fwer, fit.fitted, count),
        p_tfce=_spread(p_tfce, fit.fitted, count),
        p_fdr=_spread(p_fdr, fit.fitted, count),
        subjects=present,
        permutations=made,
        exhaustive=exhaustive,
        notes=tuple(notes),
    )


def _check_shapes(
    errors: np.ndarray,
    tested: np.ndarray,
    covariates: np.ndarray | None,
    subjects: Sequence[object] | np.ndarray | None,
    mesh: MeshGraph | None,
    permutations: int,
) -> None:
    if errors.ndim != 2:
        raise SegfairError(f"errors_mm must be of shape (n_scans, n_vertices); got {errors.shape}")
    if tested.ndim not in (1, 2) or len(tested) != len(errors):
        raise SegfairError(f"tested must have a row for each of {len(errors)} scans; got shape {tested.shape}")
    if covariates is not None and (np.ndim(covariates) != 2 or len(covariates) != len(errors)):
        raise SegfairError(
            f"covariates must be of shape ({len(errors)}, n_covariates), a row per scan; got {np.shape(covariates)}"
        )
    if subjects is not None and np.asarray(subjects).shape != (len(errors),):
        raise SegfairError(
            f"subjects must name the person of each of {len(errors)} scans; got {np.asarray(subjects).shape}"
        )
    if mesh is not None and len(mesh.areas_mm2) != errors.shape[1]:
        raise SegfairError(
            f"the mesh has {len(mesh.areas_mm2)} vertices, errors_mm has {errors.shape[1]}: give the template's own mesh"
        )
    if permutations < 1:
        raise SegfairError(f"permutations must be at least 1; got {permutations}")


def _find_usable_rows(errors: np.ndarray, tested: np.ndarray, covariates: np.ndarray, notes: list[str]) -> np.ndarray:
    described = np.isfinite(tested).all(axis=1) & np.isfinite(covariates).all(axis=1)
    seen = np.isfinite(errors).any(axis=1)
    if not described.all():
        notes.append(f"{int((~described).sum())} scans without the tested variable or a covariate are left out")
    if not seen[described].all():
        notes.append(f"{int((~seen[described]).sum())} scans without a single vertex are left out")
    return described & seen


def _count_present(known: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return how many people have each vertex in any of their scans."""
    if not len(known):
        return np.zeros(known.shape[1], int)
    return np.logical_or.reduceat(known, blocks, axis=0).sum(axis=0)


def _build_design(tested: np.ndarray, covariates: np.ndarray, notes: list[str]) -> _Design:
    """Put intercept, covariates and tested columns in order; leave out what earlier columns say already."""
    count = len(tested)
    basis, kept = _extend_basis(np.zeros((count, 0)), np.ones((count, 1)))
    basis, kept_covariates = _extend_basis(basis, covariates)
    dropped = [str(column) for column in range(covariates.shape[1]) if column not in kept_covariates]
    if dropped:
        notes.append(f"covariates that are constant or follow from others are dropped (columns {', '.join(dropped)})")
    before = basis.shape[1]
    basis, kept_tested = _extend_basis(basis, tested)
    if not kept_tested:
        constant = not count or (tested == tested[0]).all()
        reason = "is the same for everybody" if constant else "follows from the covariates"
        notes.append(f"the tested variable {reason}: there is no effect to test")
    original = np.concatenate([np.ones((count, len(kept))), covariates[:, kept_covariates], tested[:, kept_tested]], 1)
    return _Design(basis, original, basis.shape[1] - before)


def _extend_basis(basis: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Add to an orthonormal basis each candidate that is not in its span yet (Gram & Schmidt, twice)."""
    kept = []
    for number, column in enumerate(candidates.T):
        size = np.linalg.norm(column)
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)
        if np.linalg.norm(rest) > COLLINEAR * size:
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
            kept.append(number)
    return basis, kept


def _fit_vertices(
    errors: np.ndarray,
    known: np.ndarray,
    design: _Design,
    sizes: np.ndarray,
    blocks: np.ndarray,
    enough: np.ndarray,
    name: str,
) -> _Fit:
    """Fit the full and the reduced model at every vertex, to the scans that have it."""
    columns, (count, width), before = design.columns, design.columns.shape, design.covariates
    scans = known.sum(axis=0)
    products = (columns[:, :, None] * columns[:, None, :]).reshape(count, -1)
    moments = (known.T.astype(float) @ products).reshape(-1, width, width)
    fitted = enough & (scans > width)
    fitted[fitted] = np.linalg.eigvalsh(moments[fitted])[:, 0] > SINGULAR

    present, moments = known[:, fitted], moments[fitted]
    values = np.where(present, errors[:, fitted], 0.0)
    projections = (columns.T @ values).T[:, :, None]
    weights = np.linalg.solve(moments, projections)[:, :, 0]
    reduced = np.linalg.solve(moments[:, :before, :before], projections[:, :before])[:, :, 0]
    rest = np.where(present, values - columns @ weights.T, 0.0)
    residuals = np.where(present, values - columns[:, :before] @ reduced.T, 0.0)
    squares, reduced_squares = (rest**2).sum(axis=0), (residuals**2).sum(axis=0)

    varying = reduced_squares > CONSTANT**2 * (values**2).sum(axis=0)
    fitted[fitted] = varying
    present, moments, weights, rest = present[:, varying], moments[varying], weights[varying], rest[:, varying]
    degrees = (scans[fitted] - width).astype(float)
    scale = reduced_squares[varying]
    squares = np.maximum(squares[varying], np.finfo(float).eps * scale)
    squared = np.maximum(scale - squares, 0.0) / design.tested / (squares / degrees)

    # Back from orthonormal columns to the units of the tested ones, which are last.
    to_units = np.linalg.inv(columns[:, before:].T @ design.original[:, before:])
    effects = to_units @ weights[:, before:].T
    if name == "F":
        effect = np.maximum(effects.max(axis=0), 0.0) - np.minimum(effects.min(axis=0), 0.0)
        error = np.full(len(effect), np.nan)
    else:
        effect = effects[0]
        inverse = np.linalg.inv(moments)[:, -1]
        if (sizes > 1).any():
            scores = np.add.reduceat((columns @ inverse.T) * rest, blocks, axis=0)
            people = np.maximum(_count_present(present, blocks), 2)
            factor = people / (people - 1) * (scans[fitted] - 1) / degrees
            variance = factor * (scores**2).sum(axis=0)
        else:
            variance = inverse[:, -1] * squares / degrees
        error = np.sqrt(variance) * abs(to_units[0, 0])
    return _Fit(
        effect=effect,
        standard_error=error,
        squared=squared,
        sign=np.sign(effects[0]),
        degrees=degrees,
        residuals=residuals[:, varying] / np.sqrt(scale),
        fitted=fitted,
    )


def _list_orders(
    design: np.ndarray, sizes: np.ndarray, blocks: np.ndarray, permutations: int, seed: int
) -> tuple[Iterator[np.ndarray], int, bool]:
    """Return the rows of the design in each permuted order, how many orders there are, and whether these are all.

    People with equally many scans change places. Those with the same design are alike: to swap them changes nothing.
    """
    classes, alike = [], []
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        rows = blocks[members][:, None] + np.arange(size)
        classes.append(rows)
        alike.append(np.unique(design[rows].reshape(len(members), -1), axis=0, return_inverse=True)[1].ravel())
    total = math.prod(
        math.factorial(len(codes)) // math.prod(math.factorial(int(times)) for times in np.bincount(codes))
        for codes in alike
    )
    if total - 1 <= permutations:
        return _enumerate_orders(classes, alike, int(sizes.sum())), total - 1, True
    return _draw_orders(classes, int(sizes.sum()), permutations, seed), permutations, False


def _draw_orders(classes: list[np.ndarray], count: int, permutations: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for _ in range(permutations):
        order = np.empty(count, np.int64)
        for rows in classes:
            order[rows] = rows[generator.permutation(len(rows))]
        yield order


def _enumerate_orders(classes: list[np.ndarray], alike: list[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yield every distinct order but the first one, in which everybody stays."""
    sources = []
    for codes in alike:
        # Of those alike it does not matter who: each place takes the next one of its code.
        by_code = np.argsort(codes, kind="stable")
        arrangements = [codes, *(found for found in _arrange(np.bincount(codes)) if not np.array_equal(found, codes))]
        sources.append([by_code[np.argsort(np.argsort(found, kind="stable"))] for found in arrangements])
    for chosen in islice(product(*sources), 1, None):
        order = np.empty(count, np.int64)
        for rows, source in zip(classes, chosen, strict=True):
            order[rows] = rows[source]
        yield order


def _arrange(times: np.ndarray) -> Iterator[np.ndarray]:
    """Yield every distinct sequence in which each code occurs so many times."""
    length = int(times.sum())
    if len(times) == 1:
        yield np.zeros(length, np.int64)
        return
    last = len(times) - 1
    for places in combinations(range(length), int(times[last])):
        chosen = np.zeros(length, bool)
        chosen[list(places)] = True
        for rest in _arrange(times[:last]):
            sequence = np.full(length, last)
            sequence[~chosen] = rest
            yield sequence


def _permute(
    fit: _Fit,
    known: np.ndarray,
    design: _Design,
    orders: Iterator[np.ndarray],
    made: int,
    exhaustive: bool,
    mesh: MeshGraph | None,
    memory_mb: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return uncorrected, family-wise and enhanced family-wise p at the fitted vertices."""
    # Ties are common where all arrangements are made, and then there are few: full precision is affordable.
    dtype, tie = (np.float64, 1e-9) if exhaustive else (np.float32, 1e-5)
    statistic = _PermutedStatistic(fit, known[:, fit.fitted], design, dtype)
    batch = int(np.clip(memory_mb * 2**20 / statistic.bytes_each, 1, MAX_BATCH))
    reached = np.zeros(len(fit.squared))
    limits = (fit.squared * (1 - 2 * tie)).astype(dtype)
    maxima, enhanced_maxima = np.zeros(made), np.zeros(made)
    done = 0
    while rows := list(islice(orders, batch)):
        squared, sign = statistic.measure(np.array(rows))
        part = slice(done, done + len(rows))
        maxima[part] = squared.max(axis=1)
        reached += (squared >= limits).astype(dtype).sum(axis=0)
        if mesh is not None:
            enhanced_maxima[part] = np.abs(_enhance(np.sqrt(squared) * sign, fit.fitted, mesh)).max(axis=1)
        done += len(rows)
    p_uncorrected = (1 + reached) / (1 + made)
    p_fwer = _rank(fit.squared * (1 - 2 * tie), maxima)
    p_tfce = np.full(len(fit.squared), np.nan)
    if mesh is not None:
        sign = fit.sign if design.tested == 1 else np.ones(len(fit.sign))
        observed = np.abs(_enhance((np.sqrt(fit.squared) * sign)[None], fit.fitted, mesh)[0])
        p_tfce = _rank(observed * (1 - 10 * tie), enhanced_maxima)
    return p_uncorrected, p_fwer, p_tfce


class _PermutedStatistic:
    """The squared statistic under batches of permutations, at vertices that all scans have and at the others."""

    def __init__(self, fit: _Fit, known: np.ndarray, design: _Design, dtype: type) -> None:
        self.columns: np.ndarray = np.ascontiguousarray(design.columns.T.astype(dtype))
        self.tested = design.tested
        complete = known.all(axis=0)
        self.complete, self.partial = np.flatnonzero(complete), np.flatnonzero(~complete)
        self.residuals: np.ndarray = np.ascontiguousarray(fit.residuals[:, self.complete].astype(dtype))
        self.partial_residuals: np.ndarray = np.ascontiguousarray(fit.residuals[:, self.partial].astype(dtype))
        patterns, self.pattern = np.unique(known[:, self.partial], axis=1, return_inverse=True)
        self.patterns: np.ndarray = np.ascontiguousarray(patterns.astype(dtype))
        self.factor: np.ndarray = (fit.degrees / design.tested).astype(dtype)
        self.tiny = 100 * np.finfo(dtype).eps
        width, vertices = len(self.columns), len(self.factor)
        pairs = width * (width + 1) // 2
        numbers = 2 * width * len(design.columns) + (width + 6) * vertices
        numbers += pairs * (len(design.columns) + 2 * patterns.shape[1]) if len(self.partial) else 0
        self.bytes_each = numbers * np.dtype(dtype).itemsize

    def measure(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return F (or t²) and the sign of the first tested column, each (n_orders, n_vertices)."""
        design = self.columns[:, rows]
        shape = (len(rows), len(self.factor))
        ratio, sign = np.empty(shape, design.dtype), np.ones(shape, np.int8)
        # The intercept's product with residuals, column 0, is zero in every order.
        scores = _multiply(design[1:], self.residuals)
        self._assign(ratio, sign, self.complete, self._compare(scores))
        if len(self.partial):
            scores = _multiply(design, self.partial_residuals)
            self._assign(ratio, sign, self.partial, self._compare(self._whiten(scores, design)))
        ratio *= self.factor
        return ratio, sign

    def _assign(
        self, ratio: np.ndarray, sign: np.ndarray, places: np.ndarray, found: tuple[np.ndarray, np.ndarray]
    ) -> None:
        ratio[:, places] = found[0]
        if self.tested == 1:
            sign[:, places] = np.where(found[1] < 0, -1, 1)

    def _compare(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return explained over unexplained sum of squares, of residuals of length 1, and the first tested score."""
        tested = scores[-self.tested :]
        explained = np.einsum("kbv,kbv->bv", tested, tested)
        others = scores[: -self.tested]
        rest = 1 - explained - np.einsum("kbv,kbv->bv", others, others)
        return explained / np.maximum(rest, self.tiny / 100), tested[0]

    def _whiten(self, scores: np.ndarray, design: np.ndarray) -> np.ndarray:
        """Make the scores uncorrelated where the scans that are there leave the columns not orthonormal.

        Solves ``L y = scores`` with ``L Lᵀ`` the columns' moments over these scans (Cholesky), column by column,
        once per pattern of missing scans.
        """
        width = len(design)
        lower: dict[tuple[int, int], np.ndarray] = {}
        solved = np.empty_like(scores)
        for i in range(width):
            for j in range(i + 1):
                moment = (design[i] * design[j]) @ self.patterns
                for k in range(j):
                    moment -= lower[i, k] * lower[j, k]
                if i == j:
                    # A column that is constant among those present explains nothing.
                    usable = moment > self.tiny
                    lower[i, i] = np.where(usable, 1 / np.sqrt(np.where(usable, moment, 1)), 0)
                else:
                    lower[i, j] = moment * lower[j, j]
            rest = scores[i].copy()
            for k in range(i):
                rest -= lower[i, k][:, self.pattern] * solved[k]
            solved[i] = rest * lower[i, i][:, self.pattern]
        return solved


def _multiply(design: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Return the product of (n_columns, n_orders, n_scans) and (n_scans, n_vertices), as one."""
    product = design.reshape(-1, design.shape[2]) @ residuals
    return product.reshape(*design.shape[:2], -1)


def _enhance(statistics: np.ndarray, fitted: np.ndarray, mesh: MeshGraph) -> np.ndarray:
    """Enhance maps of the fitted vertices; no cluster reaches across the others."""
    if fitted.all():
        return enhance_clusters(statistics, mesh)
    whole = np.full((len(statistics), len(fitted)), np.nan, statistics.dtype)
    whole[:, fitted] = statistics
    return enhance_clusters(whole, mesh)[:, fitted]


def _rank(observed: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """Return (1 + maxima that reach each observed value) / (1 + maxima)."""
    reach = len(maxima) - np.searchsorted(np.sort(maxima), observed, side="left")
    return (1 + reach) / (1 + len(maxima))


def _spread(values: np.ndarray, fitted: np.ndarray, count: int) -> np.ndarray:
    whole = np.full(count, np.nan)
    whole[fitted] = values
    return whole


def _give_nothing(name: str, present: np.ndarray, notes: list[str]) -> SurfaceEffect:
    effect, error, statistic, p, p_fwer, p_tfce, p_fdr = np.full((7, len(present)), np.nan)
    return SurfaceEffect(effect, error, statistic, name, p, p_fwer, p_tfce, p_fdr, present, 0, False, tuple(notes))
