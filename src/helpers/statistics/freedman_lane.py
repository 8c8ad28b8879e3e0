"""Does an effect on surface errors exceed chance? A permuted linear model at every vertex."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product

import numpy as np
from scipy.stats import false_discovery_control

from helpers.statistics.clustered import name_alone
from helpers.statistics.mass_univariate import SurfaceDesign, SurfaceFit, build_design, fit_vertices
from helpers.statistics.permuted_statistic import PermutedStatistic
from helpers.statistics.tfce import MeshGraph, enhance_clusters

# More permutations at once gain nothing: the products are large enough, and leave the cache.
MAX_BATCH = 64
MEMORY_MB = 256.0  # about what permutations may take at a time


@dataclass(frozen=True)
class SurfaceEffect:
    """An effect at every vertex of a surface, and how sure it is.

    Maps are float64, (n_vertices,), NaN where nothing was tested. One tested column has an effect
    in mm per unit of it (of a 0/1 code: mean of 1 minus mean of 0) and t with its sign. Several,
    one-hot, have the largest difference of two groups' adjusted means, in mm, and F.
    """

    effect: np.ndarray  # adjusted for the covariates
    statistic: np.ndarray  # t or F
    p_uncorrected: np.ndarray  # permutation p at the vertex alone, two-sided
    p_fwer: np.ndarray  # against the largest statistic anywhere on the surface
    p_tfce: np.ndarray  # the same of the enhanced map; NaN without a mesh
    p_fdr: np.ndarray  # p_uncorrected by Benjamini & Hochberg; permutations limit how small it gets
    subjects: np.ndarray  # int: people who have the vertex
    permutations: int  # made besides the identity, which counts in every p as one more
    notes: tuple[str, ...]  # what was left out or could not be tested, in sentences


def infer_effect(
    errors_mm: np.ndarray,
    tested: np.ndarray,
    *,
    seed: int,
    covariates: np.ndarray | None = None,
    variance_groups: Sequence[object] | np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    mesh: MeshGraph | None = None,
    permutations: int = 5000,
) -> SurfaceEffect:
    """Test one variable's effect on the errors at every vertex, given covariates, by permutation.

    Parameters
    ----------
    errors_mm : ndarray of float, (n_people, n_vertices)
        Signed errors; NaN where somebody lacks a vertex. It is tested if half have it.
    tested : ndarray of float, (n_people,) or (n_people, n_columns)
        A two-group code or a number in the unit the effect is wanted in (decades of age): t.
        Several columns, one-hot groups (with or without the reference group): F.
    seed : int
        Decides which permutations are drawn.
    covariates : ndarray of float, (n_people, n_covariates), optional
        Nuisance variables, coded; the intercept is added.
    variance_groups : sequence, (n_people,), optional
        Groups whose errors may spread differently: t (or F) has a variance per group (Welch's t
        where nothing but two groups is fitted). Without them all errors are taken to spread alike,
        and a small group that spreads more looks different too often (docs/validity_spatial.md).
    clusters : ndarray of int, (n_people,), optional
        Each person's cluster (site), within which alone people change places; −1 for one of one's
        own, who stays.
    mesh : MeshGraph, optional
        The surface, for cluster enhancement.
    permutations : int
        As many, or all distinct ones where these are no more.

    Returns
    -------
    SurfaceEffect
        NaN, with a note, wherever there is nothing to test.

    Notes
    -----
    Freedman & Lane (1983), as in docs/METHODS.md, section 12: residuals of the model without the
    tested variable are permuted and the full model is fitted again (Winkler et al. 2014, algorithm
    1). As the covariates' fit drops out of the statistic, this equals moving the rows of the whole
    design against the residuals: a batch of permutations is one matrix product. People move with
    the vertices they lack; the model is always fitted to those who are there. With `clusters` only
    people of one cluster change places (within-block exchangeability, Winkler et al. 2015).

    With `variance_groups` the statistic is Wald's, ``bᵀ V⁻¹ b / columns`` of the tested
    coefficients b, with ``V = Σ_g σ²_g A_g``: σ²_g is group g's sum of squared residuals over n_g
    less its leverage, A_g its part of the inverse design's square (Guttman, in Winkler et al.
    2014). A residual that changes group is scaled by σ_new / σ_old, so that permuted errors spread
    as the observed ones do. F is enhanced as its square root, which is on the scale of t. Random
    permutations are computed in single precision: values within 1e-5 (relative) count as equal.

    Sources: Freedman & Lane, J Bus Econ Stat 1:292-298, 1983. Winkler et al., NeuroImage
    92:381-397, 2014, and 123:253-268, 2015. Janssen, Stat Probab Lett 36:9-21, 1997. Chung &
    Romano, Ann Stat 41:484-507, 2013. DiCiccio & Romano, JASA 112:1211-1220, 2017. Phipson & Smyth,
    Stat Appl Genet Mol Biol 9:39, 2010. Westfall & Young 1993.
    """
    errors, tested = np.asarray(errors_mm), np.asarray(tested, float)
    groups = None if variance_groups is None else np.unique(np.asarray(variance_groups), return_inverse=True)[1]
    name = "t" if tested.ndim == 1 or tested.shape[1] == 1 else "F"
    tested = tested[:, None] if tested.ndim == 1 else tested
    covariates = np.empty((len(errors), 0)) if covariates is None else np.asarray(covariates, float)
    notes: list[str] = []

    rows = np.flatnonzero(_find_usable_rows(errors, tested, covariates, notes))
    known = np.isfinite(errors[rows])
    present = known.sum(axis=0)
    design = build_design(tested[rows], covariates[rows], None if groups is None else groups[rows], notes)
    if design.tested == 0:
        return _collect(np.full((6, len(present)), np.nan), present, notes)
    at_least = math.ceil(len(rows) / 2)
    fit = fit_vertices(errors[rows], known, design, present >= at_least, name)
    if not fit.fitted.any():
        notes.append(
            f"no vertex could be tested: {len(rows)} people, {design.columns.shape[1]} parameters; "
            f"a vertex needs at least {at_least} people, more scans than parameters and errors that vary"
        )
        return _collect(np.full((6, len(present)), np.nan), present, notes)
    untested = ~fit.fitted & ~fit.constant
    if untested.any():
        notes.append(f"{int(untested.sum())} of {len(untested)} vertices could not be tested")

    strata = np.zeros(len(rows), int) if clusters is None else name_alone(np.asarray(clusters)[rows])
    alike = design.original if design.groups is None else np.column_stack([design.original, design.groups])
    orders, made, exhaustive = _list_orders(alike, strata, permutations, seed)
    if made == 0:
        notes.append("there is no other arrangement of these people to compare with, so every p is 1")
    elif 1 / (1 + made) > 0.05:
        notes.append(f"there are only {made + 1} arrangements of these people: no p can be below {1 / (1 + made):.2g}")
    p_uncorrected, p_fwer, p_tfce = _permute(fit, known, design, orders, made, exhaustive, mesh)
    maps = np.full((6, len(present)), np.nan)
    statistic = fit.sign * np.sqrt(fit.squared) if name == "t" else fit.squared
    maps[:5, fit.fitted] = fit.effect, statistic, p_uncorrected, p_fwer, p_tfce
    # What is the same for all, or follows from the covariates, leaves no effect and no doubt.
    maps[:5, fit.constant] = np.array([0.0, 0.0, 1.0, 1.0, 1.0])[:, None]
    judged = fit.fitted | fit.constant
    maps[5, judged] = false_discovery_control(maps[2, judged])
    return _collect(maps, present, notes, made)


def _find_usable_rows(errors: np.ndarray, tested: np.ndarray, covariates: np.ndarray, notes: list[str]) -> np.ndarray:
    described = np.isfinite(tested).all(axis=1) & np.isfinite(covariates).all(axis=1)
    seen = np.isfinite(errors).any(axis=1)
    if not described.all():
        notes.append(f"{int((~described).sum())} scans without the tested variable or a covariate are left out")
    if not seen[described].all():
        notes.append(f"{int((~seen[described]).sum())} scans without a single vertex are left out")
    return described & seen


def _list_orders(
    design: np.ndarray, strata: np.ndarray, permutations: int, seed: int
) -> tuple[Iterator[np.ndarray], int, bool]:
    """Return the design's rows in each permuted order, how many orders, and whether these are all.

    People of one stratum change places; to swap those of the same design changes nothing.
    """
    classes, alike = [], []
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        if len(rows) > 1:
            classes.append(rows)
            alike.append(np.unique(design[rows], axis=0, return_inverse=True)[1].ravel())
    total = math.prod(
        math.factorial(len(codes)) // math.prod(math.factorial(int(times)) for times in np.bincount(codes))
        for codes in alike
    )
    if total - 1 <= permutations:
        return _enumerate_orders(classes, alike, len(design)), total - 1, True
    return _draw_orders(classes, len(design), permutations, seed), permutations, False


def _draw_orders(classes: list[np.ndarray], count: int, permutations: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for _ in range(permutations):
        order = np.arange(count)
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
        order = np.arange(count)
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
    fit: SurfaceFit,
    known: np.ndarray,
    design: SurfaceDesign,
    orders: Iterator[np.ndarray],
    made: int,
    exhaustive: bool,
    mesh: MeshGraph | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return uncorrected, family-wise and enhanced family-wise p at the fitted vertices."""
    # Ties are common where all arrangements are made; these are few: full precision is affordable.
    dtype, tie = (np.float64, 1e-9) if exhaustive else (np.float32, 1e-5)
    statistic = PermutedStatistic(fit, known[:, fit.fitted], design, dtype)
    batch = int(np.clip(MEMORY_MB * 2**20 / statistic.bytes_each, 1, MAX_BATCH))
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


def _collect(maps: np.ndarray, present: np.ndarray, notes: list[str], made: int = 0) -> SurfaceEffect:
    """Return the six maps (6, n_vertices) as a result."""
    effect, statistic, p, p_fwer, p_tfce, p_fdr = maps
    return SurfaceEffect(effect, statistic, p, p_fwer, p_tfce, p_fdr, present, made, tuple(notes))
