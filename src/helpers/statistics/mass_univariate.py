"""The linear model of surface errors: its design, and its fit at every vertex before permuting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A column whose part outside those before it is smaller than this (relative) adds nothing.
COLLINEAR = 1e-8
# The smallest eigenvalue of a vertex's design (1 where all are present) that can be fitted.
SINGULAR = 1e-8
# Errors that a model explains but for this part (relative) have no variance to test against.
CONSTANT = 1e-10
# A group whose errors have fewer degrees of freedom takes everybody's variance.
MIN_DEGREES = 0.99
# Where a group's variance is a smaller part of everybody's, residuals are permuted unscaled.
NARROW = 1e-4


@dataclass(frozen=True)
class SurfaceDesign:
    """What is fitted, (n_people, n_columns); rows sorted by person."""

    columns: np.ndarray  # orthonormal: the intercept and covariates, then what is tested
    original: np.ndarray  # the same columns in their own units
    tested: int  # how many of the last columns are tested
    groups: np.ndarray | None = None  # int, (n_people,): with a variance each; None: one for all

    @property
    def covariates(self) -> int:
        """How many of the columns are not tested, the intercept included."""
        return self.columns.shape[1] - self.tested


@dataclass(frozen=True)
class SurfaceFit:
    """What the unpermuted model gives at the vertices that can be fitted, to permute from."""

    effect: np.ndarray  # mm, (n_fitted,), as all up to `degrees`
    squared: np.ndarray  # the squared statistic
    sign: np.ndarray  # of the first tested column
    degrees: np.ndarray  # of freedom left
    residuals: np.ndarray  # (n_people, n_fitted), without what is tested, of length 1; 0: no vertex
    spreads: np.ndarray  # (n_groups, n_fitted), SD in the units of `residuals`; 1 without groups
    fitted: np.ndarray  # bool, (n_vertices,)
    constant: np.ndarray  # bool, (n_vertices,): nothing is left that could differ; the effect is 0


def build_design(
    tested: np.ndarray, covariates: np.ndarray, groups: np.ndarray | None, notes: list[str]
) -> SurfaceDesign:
    """Put intercept, covariates and tested columns in order; leave out what follows from others."""
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
    if groups is not None:
        groups = np.unique(groups, return_inverse=True)[1]
        groups = groups if groups.any() else None
    return SurfaceDesign(basis, original, basis.shape[1] - before, groups)


def _extend_basis(basis: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Add to an orthonormal basis each candidate outside its span (Gram & Schmidt, twice)."""
    kept = []
    for number, column in enumerate(candidates.T):
        size = np.linalg.norm(column)
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)
        if np.linalg.norm(rest) > COLLINEAR * size:
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
            kept.append(number)
    return basis, kept


def fit_vertices(
    errors: np.ndarray,
    known: np.ndarray,
    design: SurfaceDesign,
    enough: np.ndarray,
    name: str,
) -> SurfaceFit:
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
    constant = fitted.copy()
    constant[fitted] = ~varying
    fitted[fitted] = varying
    present, moments, weights, rest = present[:, varying], moments[varying], weights[varying], rest[:, varying]
    degrees = (scans[fitted] - width).astype(float)
    scale = reduced_squares[varying]
    squares = np.maximum(squares[varying], np.finfo(float).eps * scale)
    squared = np.maximum(scale - squares, 0.0) / design.tested / (squares / degrees)
    inverse = np.linalg.inv(moments)
    covariance = inverse[:, before:, before:] * (squares / degrees)[:, None, None]
    spreads = np.ones((1, len(squares)))
    if design.groups is not None:
        variances, parts = _separate_groups(columns, design.groups, present, inverse, rest, squares / degrees)
        covariance = np.einsum("gv,gvij->vij", variances, parts)[:, before:, before:]
        narrow = (variances < NARROW * squares / degrees).any(axis=0)
        spreads = np.sqrt(np.where(narrow, 1.0, variances / scale))
        coefficients = weights[:, before:, None]
        squared = (np.linalg.solve(covariance, coefficients) * coefficients).sum(axis=(1, 2)) / design.tested

    # Back from orthonormal columns to the units of the tested ones, which are last.
    to_units = np.linalg.inv(columns[:, before:].T @ design.original[:, before:])
    effects = to_units @ weights[:, before:].T
    effect = effects[0]
    if name == "F":
        effect = np.maximum(effects.max(axis=0), 0.0) - np.minimum(effects.min(axis=0), 0.0)
    return SurfaceFit(
        effect=effect,
        squared=squared,
        sign=np.sign(effects[0]),
        degrees=degrees,
        residuals=residuals[:, varying] / np.sqrt(scale),
        spreads=spreads,
        fitted=fitted,
        constant=constant,
    )


def _separate_groups(
    columns: np.ndarray,
    groups: np.ndarray,
    present: np.ndarray,
    inverse: np.ndarray,
    rest: np.ndarray,
    pooled: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each group's variance at each vertex, and its part of the coefficients' covariance.

    The variance is the group's sum of squared residuals over its number less its leverage (Welch's
    n − 1 where nothing but the groups is fitted); `pooled` stands in where too little is left. The
    part is per unit of variance.
    """
    width = columns.shape[1]
    variances, parts = [], []
    for group in range(groups.max() + 1):
        rows = groups == group
        own = columns[rows]
        products = (own[:, :, None] * own[:, None, :]).reshape(len(own), -1)
        moments = (present[rows].T.astype(float) @ products).reshape(-1, width, width)
        degrees = present[rows].sum(axis=0) - np.einsum("vij,vji->v", inverse, moments)
        enough = degrees >= MIN_DEGREES
        variance = np.where(enough, (rest[rows] ** 2).sum(axis=0) / np.where(enough, degrees, 1), pooled)
        # A group without any spread still has a variance that can be divided by.
        variances.append(np.maximum(variance, np.finfo(float).eps * pooled))
        parts.append(inverse @ moments @ inverse)
    return np.array(variances), np.array(parts)
