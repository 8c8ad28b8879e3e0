"""The statistic of a surface effect under permutations: one variance for all, or one per group."""

from __future__ import annotations

import numpy as np

from helpers.statistics.mass_univariate import MIN_DEGREES, SurfaceDesign, SurfaceFit

# A matrix per permutation and vertex (or pattern of missing scans): its lower triangle, by place.
Entries = dict[tuple[int, int], np.ndarray]


class PermutedStatistic:
    """The squared statistic under batches of permutations.

    Vertices that all scans have are handled as one, the others by their pattern of missing scans.

    `known`, bool, (n_scans, n_vertices), says which scans have each of the fitted vertices. With a
    `design` without groups the statistic is ordinary least squares' t² or F, with them Wald's from
    a variance per group, see :func:`helpers.statistics.freedman_lane.infer_effect`. `dtype` is
    float32 or float64.
    """

    def __init__(self, fit: SurfaceFit, known: np.ndarray, design: SurfaceDesign, dtype: type) -> None:
        self.columns: np.ndarray = np.ascontiguousarray(design.columns.T.astype(dtype))
        self.tested = design.tested
        complete = known.all(axis=0)
        self.complete, self.partial = np.flatnonzero(complete), np.flatnonzero(~complete)
        residuals = fit.residuals if design.groups is None else fit.residuals / fit.spreads[design.groups]
        self.residuals: np.ndarray = np.ascontiguousarray(residuals[:, self.complete].astype(dtype))
        self.partial_residuals: np.ndarray = np.ascontiguousarray(residuals[:, self.partial].astype(dtype))
        self.spreads: np.ndarray = fit.spreads.astype(dtype)
        patterns, self.pattern = np.unique(known[:, self.partial], axis=1, return_inverse=True)
        self.patterns: np.ndarray = np.ascontiguousarray(patterns.astype(dtype))
        self.degrees: np.ndarray = fit.degrees.astype(dtype)
        self.tiny = 100 * float(np.finfo(dtype).eps)
        members = [] if design.groups is None else [design.groups == code for code in range(len(fit.spreads))]
        self.groups = [rows.astype(dtype) for rows in members]
        self.whole = [_describe_group(design.columns[rows], dtype) for rows in members]
        width, vertices, scans = len(self.columns), len(self.degrees), len(design.columns)
        pairs, parts = width * (width + 1) // 2, 1 + len(self.groups)
        numbers = 2 * width * scans * parts + (width * parts + 6) * vertices
        numbers += pairs * (scans + 2 * patterns.shape[1] * parts) if len(self.partial) else 0
        self.bytes_each = numbers * np.dtype(dtype).itemsize

    def measure(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return F (or t²) and the sign of the first tested column, each (n_orders, n_vertices).

        `rows`, int, (n_orders, n_scans), says which row of the design each scan gets.
        """
        design = self.columns[:, rows]
        shape = (len(rows), len(self.degrees))
        squared, sign = np.empty(shape, design.dtype), np.ones(shape, np.int8)
        if len(self.groups):
            self._assign(squared, sign, self.complete, *self._vary(design, rows))
        else:
            # Where no scan is missing, the intercept's product with residuals is always zero.
            scores = _multiply(design[1:], self.residuals)
            self._assign(squared, sign, self.complete, self._pool(scores, self.complete), scores)
        if len(self.partial):
            lower = _factorise(self._sum_products(design), self.tiny)
            if len(self.groups):
                self._assign(squared, sign, self.partial, *self._vary_partial(lower, design, rows))
            else:
                scores = _solve(lower, _multiply(design, self.partial_residuals), self.pattern)
                self._assign(squared, sign, self.partial, self._pool(scores, self.partial), scores)
        return squared, sign

    def _assign(
        self, squared: np.ndarray, sign: np.ndarray, places: np.ndarray, found: np.ndarray, scores: np.ndarray
    ) -> None:
        squared[:, places] = found
        if self.tested == 1:
            sign[:, places] = np.where(scores[-1] < 0, -1, 1)

    def _sum_products(self, design: np.ndarray, members: np.ndarray | float = 1.0) -> Entries:
        """Return the columns' products summed over members present, per order and pattern."""
        return {
            (i, j): (design[i] * design[j] * members) @ self.patterns for i in range(len(design)) for j in range(i + 1)
        }

    def _pool(self, scores: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return explained over unexplained mean square; residuals have length 1."""
        tested, others = scores[-self.tested :], scores[: -self.tested]
        explained = np.einsum("kbv,kbv->bv", tested, tested)
        rest = 1 - explained - np.einsum("kbv,kbv->bv", others, others)
        return explained / np.maximum(rest, self.tiny / 100) * (self.degrees[places] / self.tested)

    def _vary(self, design: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the statistic of a variance per group, and the scores; no scan missing."""
        parts = []
        for members, spread, whole in zip(self.groups, self.spreads[:, self.complete], self.whole, strict=True):
            chosen = members[rows]
            sums = spread * _multiply(design * chosen, self.residuals)
            parts.append((sums, spread**2 * (chosen @ self.residuals**2), *whole))
        return self._wald(parts, self.complete)

    def _vary_partial(self, lower: Entries, design: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the same where scans are missing; `lower` orthonormalises over those present."""
        width = len(design)
        parts = []
        for members, spread in zip(self.groups, self.spreads[:, self.partial], strict=True):
            chosen = members[rows]
            moments = _whiten(self._sum_products(design, chosen), lower, width)
            degrees = chosen @ self.patterns - sum(moments[i, i] for i in range(width))
            entries = {pair: moment[:, self.pattern] for pair, moment in moments.items()}
            sums = _solve(lower, spread * _multiply(design * chosen, self.partial_residuals), self.pattern)
            parts.append((sums, spread**2 * (chosen @ self.partial_residuals**2), degrees[:, self.pattern], entries))
        return self._wald(parts, self.partial)

    def _wald(
        self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, Entries]], places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tested scores' size against their covariance, and all scores.

        Both add up over groups. Of each: its part of the scores (n_columns, n_orders, n_vertices)
        at the fitted vertices `places`, squares, degrees of freedom, sums of the columns' products.
        """
        scores = np.sum([sums for sums, *_ in parts], axis=0)
        groups = [
            (_leave(scores, sums, squares, moments), degrees, moments) for sums, squares, degrees, moments in parts
        ]
        pooled = np.sum([squares for squares, _, _ in groups], axis=0) / self.degrees[places]
        pooled = np.maximum(pooled, self.tiny / 100)
        first = len(scores) - self.tested
        covariance: Entries = {}
        for squares, degrees, moments in groups:
            enough = degrees >= MIN_DEGREES
            variance = np.where(enough, squares / np.where(enough, degrees, 1), pooled)
            variance = np.maximum(variance, np.finfo(pooled.dtype).eps * pooled)
            for i in range(self.tested):
                for j in range(i + 1):
                    added = variance * moments[first + i, first + j]
                    covariance[i, j] = covariance[i, j] + added if (i, j) in covariance else added
        solved = _solve(_factorise(covariance, 0.0), scores[first:])
        return np.einsum("kbv,kbv->bv", solved, solved) / self.tested, scores


def _describe_group(columns: np.ndarray, dtype: type) -> tuple[np.ndarray, Entries]:
    """Return a group's degrees of freedom and sums of columns' products, no scan missing."""
    moments = (columns.T @ columns).astype(dtype)
    entries = {(i, j): moments[i, j] for i in range(len(moments)) for j in range(i + 1)}
    return len(columns) - np.trace(moments), entries


def _leave(scores: np.ndarray, sums: np.ndarray, squares: np.ndarray, moments: Entries) -> np.ndarray:
    """Return a group's sum of squared residuals of the full model.

    ``Σ (r − Σₖ sₖ qₖ)² = Σ r² − 2 Σₖ sₖ Σ qₖ r + Σₖₗ sₖ sₗ Σ qₖ qₗ``, summed over the group's
    members, of the reduced model's residuals r and the permuted columns q, whose scores are s.
    """
    rest = squares
    for i, score in enumerate(scores):
        inner = moments[i, i] * score - 2 * sums[i]
        for j in range(i):
            inner += 2 * moments[i, j] * scores[j]
        rest = rest + score * inner
    return rest


def _factorise(moments: Entries, tiny: float) -> Entries:
    """Return Cholesky's lower triangle of each matrix, with reciprocals on the diagonal.

    Of a column that is constant among those present, and so explains nothing, that is 0.
    """
    lower: Entries = {}
    for i, j in moments:
        moment = moments[i, j]
        for k in range(j):
            moment = moment - lower[i, k] * lower[j, k]
        if i == j:
            usable = moment > tiny
            lower[i, i] = np.where(usable, 1 / np.sqrt(np.where(usable, moment, 1)), 0)
        else:
            lower[i, j] = moment * lower[j, j]
    return lower


def _solve(lower: Entries, scores: np.ndarray, pattern: np.ndarray | None = None) -> np.ndarray:
    """Solve ``L y = scores`` column by column; L is per pattern, where patterns are given."""
    solved = np.empty_like(scores)
    for i in range(len(scores)):
        rest = scores[i].copy()
        for k in range(i):
            rest -= (lower[i, k] if pattern is None else lower[i, k][:, pattern]) * solved[k]
        solved[i] = rest * (lower[i, i] if pattern is None else lower[i, i][:, pattern])
    return solved


def _whiten(moments: Entries, lower: Entries, width: int) -> Entries:
    """Return the products' sums of columns made orthonormal: ``L⁻¹ G L⁻ᵀ``."""
    whole = np.stack([np.stack([moments[max(i, j), min(i, j)] for j in range(width)]) for i in range(width)])
    half = np.stack([_solve(lower, whole[:, j]) for j in range(width)], axis=1)
    both = np.stack([_solve(lower, half[i]) for i in range(width)])
    return {(i, j): both[i, j] for i in range(width) for j in range(i + 1)}


def _multiply(design: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Return the product of (n_columns, n_orders, n_scans) and (n_scans, n_vertices), as one."""
    product = design.reshape(-1, design.shape[2]) @ residuals
    return product.reshape(*design.shape[:2], -1)
