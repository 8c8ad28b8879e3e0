"""Ordinary least squares for many responses at once, with HC3 standard errors and Wald tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import linalg, stats

ROUNDING = 1e-20  # a variance below this share of the squared value is rounding


@dataclass(frozen=True)
class LeastSquares:
    """Ordinary least squares on one design, decomposed once for any number of responses."""

    projection: np.ndarray  # float64, (parameters, subjects): (XᵀX)⁻¹Xᵀ
    basis: np.ndarray  # float64, (subjects, parameters): orthonormal, of the design's columns
    slack: np.ndarray  # float64, (subjects,): 1 − leverage
    df_residual: int

    @classmethod
    def decompose(cls, design: np.ndarray) -> LeastSquares:
        """Decompose a design of full column rank, float64, (subjects, parameters)."""
        basis, triangle = np.linalg.qr(design)
        slack = 1.0 - np.einsum("np,np->n", basis, basis)
        return cls(linalg.solve_triangular(triangle, basis.T), basis, slack, design.shape[0] - design.shape[1])

    def estimate(self, responses: np.ndarray, contrasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimate linear combinations of the coefficients, with HC3 covariance.

        `responses`, float64, (subjects, columns), have no NaN; `contrasts` are float64, (contrasts,
        parameters). Returns the estimates, (columns, contrasts), and their covariance, (columns,
        contrasts, contrasts), both float64.

        Source: MacKinnon & White 1985 (HC3), as in Long & Ervin 2000: squared residuals over (1 −
        leverage)².
        """
        weights = contrasts @ self.projection
        residuals = responses - self.basis @ (self.basis.T @ responses)
        # A subject of leverage 1 has a parameter of their own: the fit passes through, and says
        # nothing of spread.
        slack = self.slack[:, None]
        scaled = np.divide(residuals, slack, out=np.zeros_like(residuals), where=slack > 1e-10)
        pairs = (weights[:, None, :] * weights[None, :, :]).reshape(-1, weights.shape[1])
        covariance = (pairs @ scaled**2).T.reshape(-1, len(weights), len(weights))
        return (weights @ responses).T, covariance

    def test(
        self, estimates: np.ndarray, covariance: np.ndarray, contrasts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Test whether the `contrasts` that were estimated are all zero (:func:`find_wald_f`)."""
        return find_wald_f(estimates, covariance, self.df_residual)

    def find_exact(self, responses: np.ndarray) -> np.ndarray:
        """Return which responses, (columns,) of bool, the design reproduces without residual."""
        residuals = responses - self.basis @ (self.basis.T @ responses)
        spread = ((responses - responses.mean(axis=0)) ** 2).sum(axis=0)
        return (residuals**2).sum(axis=0) <= ROUNDING * len(responses) * spread


def find_wald_f(estimates: np.ndarray, covariance: np.ndarray, df_residual: float) -> tuple[np.ndarray, np.ndarray]:
    """Test whether several estimates are all zero: Wald's F, and its p, (columns,) each.

    `estimates` are (columns, estimates), `covariance` (columns, estimates, estimates). NaN where
    the covariance is singular.
    """
    columns, terms = estimates.shape
    f = np.full(columns, np.nan)
    # A variance that is rounding alone may come out below zero.
    scale = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))
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
    """Yield who has a value, bool, (subjects,), and the columns in which just they have.

    One fit serves all columns of the same people.
    """
    known = np.isfinite(values)
    patterns: dict[bytes, list[int]] = {}
    for place in range(values.shape[1]):
        patterns.setdefault(np.packbits(known[:, place]).tobytes(), []).append(place)
    for places in patterns.values():
        yield known[:, places[0]], np.array(places)
