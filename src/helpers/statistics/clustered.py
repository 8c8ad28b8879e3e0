"""Means and gaps of people who come in clusters (sites): errors that do not take them for separate.

Standard errors are made from clusters, and so are degrees of freedom (docs/METHODS.md, section 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import special, stats

from helpers.statistics.grouped_values import GroupedValues, list_pairs
from helpers.statistics.least_squares import LeastSquares, find_wald_f, split_by_missing
from helpers.statistics.permuted_means import PermutedTests

_FULL = 1e-10  # of 1 − leverage: below it a cluster's direction is fitted exactly, and says nothing
# Effective clusters of a group, below which nothing can be said of its spread over clusters: with
# 24 of 28 people in one it is 1.35.
LEAST_CLUSTERS = 2.0
LEAST_OUTSIDE = 5  # people of a group outside of its largest cluster


@dataclass(frozen=True)
class ClusteredFit:
    """Ordinary least squares on one design, with errors robust to what people of a cluster share.

    Bell & McCaffrey's CR2: each cluster's residuals are multiplied by (I − H_gg)^(−1/2), which
    makes the variance unbiased where residuals are independent and spread alike. Degrees of freedom
    are Satterthwaite's under the same working model, for each contrast its own.

    Sources: Bell & McCaffrey 2002, *Survey Methodology* 28:169; Pustejovsky & Tipton 2018, *Journal
    of Business & Economic Statistics* 36:672, equations 6 and 11 (with pseudo-inverses).
    """

    projection: np.ndarray  # float64, (parameters, people): (XᵀX)⁻¹Xᵀ
    basis: np.ndarray  # float64, (people, parameters): orthonormal, of the design's columns
    members: tuple[np.ndarray, ...]  # the people of each cluster

    @classmethod
    def decompose(cls, design: np.ndarray, clusters: np.ndarray) -> ClusteredFit:
        """Decompose a design of full column rank, float64, (people, parameters).

        `clusters`, (people,), name each one's cluster.
        """
        basis, triangle = np.linalg.qr(design)
        projection = np.linalg.solve(triangle, basis.T)
        codes = np.unique(clusters, return_inverse=True)[1].ravel()
        order = np.argsort(codes, kind="stable")
        return cls(projection, basis, tuple(np.split(order, np.cumsum(np.bincount(codes))[:-1])))

    def _weigh(self, contrasts: np.ndarray) -> np.ndarray:
        """Return everyone's weight in a contrast, adjusted within clusters: (contrasts, people)."""
        weights = contrasts @ self.projection
        for rows in self.members:
            left, sizes, _ = np.linalg.svd(self.basis[rows], full_matrices=False)
            room = np.maximum(1.0 - sizes**2, 0.0)
            stretch = np.where(room > _FULL, 1.0 / np.sqrt(np.maximum(room, _FULL)), 0.0) - 1.0
            weights[:, rows] += (weights[:, rows] @ left * stretch) @ left.T
        return weights

    def estimate(self, responses: np.ndarray, contrasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimate linear combinations of the coefficients, with CR2 covariance.

        `responses`, float64, (people, columns), have no NaN; `contrasts` are float64, (contrasts,
        parameters). Returns the estimates, (columns, contrasts), and their covariance, (columns,
        contrasts, contrasts), both float64.
        """
        weights = self._weigh(contrasts)
        residuals = responses - self.basis @ (self.basis.T @ responses)
        scores = np.stack([weights[:, rows] @ residuals[rows] for rows in self.members])
        return (contrasts @ self.projection @ responses).T, np.einsum("gic,gjc->cij", scores, scores)

    def find_df(self, contrasts: np.ndarray) -> np.ndarray:
        """Return Satterthwaite's degrees of freedom of each contrast, float64, (contrasts,)."""
        found = np.zeros(len(contrasts))
        for place, weights in enumerate(self._weigh(contrasts)):
            shares = np.array([self.basis[rows].T @ weights[rows] for rows in self.members])
            own = np.array([weights[rows] @ weights[rows] for rows in self.members])
            # Trace and squared norm of pᵀp = diag(own) − shares · sharesᵀ without that matrix; p_g
            # is (I − H)_g A_g X_g M c in Pustejovsky & Tipton.
            lost = (shares**2).sum(axis=1)
            squared = (own**2 - 2.0 * own * lost).sum() + ((shares.T @ shares) ** 2).sum()
            found[place] = (own - lost).sum() ** 2 / squared if squared > 0 else 0.0
        return found

    def test(
        self, estimates: np.ndarray, covariance: np.ndarray, contrasts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Test whether the `contrasts` that were estimated are all zero: F and p, (columns,) each.

        Wald's statistic Q of q estimates is taken for Hotelling's T², F = (η − q + 1) / (η q) · Q
        on (q, η − q + 1) degrees of freedom; NaN where η (:meth:`find_joint_df`) is q − 1 or less.
        Pustejovsky & Tipton 2018, section 3.2.
        """
        terms, nothing = len(contrasts), np.full(len(estimates), np.nan)
        free = self.find_joint_df(contrasts) if terms else 1.0
        left = free - terms + 1
        if left <= 0:
            return nothing, nothing
        f = find_wald_f(estimates, covariance, free)[0] * left / free
        return f, stats.f.sf(f, max(terms, 1), left)

    def find_joint_df(self, contrasts: np.ndarray) -> float:
        """Return the degrees of freedom η of contrasts' covariance; of one, Satterthwaite's.

        Those of the Wishart distribution whose total variance is that of the covariance, where
        contrasts are made orthonormal under the working model (Pustejovsky & Tipton 2018: AHT-Z).
        """
        made = contrasts @ self.projection
        weights = self._weigh(np.linalg.solve(np.linalg.cholesky(made @ made.T), contrasts))
        shares = np.stack([weights[:, rows] @ self.basis[rows] for rows in self.members], axis=1)
        own = np.stack([weights[:, rows] @ weights[:, rows].T for rows in self.members])
        # Products of everyone's pᵀp = diag(own) − shares · sharesᵀ, without that matrix.
        total, terms = 0.0, len(contrasts)
        for s, t in product(range(terms), repeat=2):
            lost = np.einsum("gp,gp->g", shares[s], shares[t])
            norms = [(shares[one] ** 2).sum(axis=1) for one in (s, t)]
            crossed = shares[t].T @ shares[s]
            total += (own[:, s, s] * (own[:, t, t] - norms[1]) - own[:, t, t] * norms[0]).sum() + (crossed**2).sum()
            total += (own[:, s, t] ** 2 - 2.0 * own[:, s, t] * lost).sum() + np.trace(crossed @ crossed)
        return float(terms * (terms + 1) / total) if total > 0 else 0.0


def choose_errors(
    fit: LeastSquares, design: np.ndarray, clusters: np.ndarray | None, contrasts: np.ndarray
) -> tuple[LeastSquares | ClusteredFit, float]:
    """Return what estimates contrasts with HC3 errors, or with CR2 of clusters, and its df.

    `fit` is of `design`; `clusters`, int, (people,), are each one's cluster, −1 for none, or None.
    The degrees of freedom are the fewest of any of the `contrasts`, (contrasts, parameters).
    """
    if clusters is None:
        return fit, float(fit.df_residual)
    judge = ClusteredFit.decompose(design, name_alone(clusters))
    return judge, float(judge.find_df(contrasts).min())


def name_alone(clusters: np.ndarray) -> np.ndarray:
    """Return clusters in which everybody without one, −1, has one of their own."""
    return np.where(clusters < 0, clusters.max(initial=-1) + 1 + np.arange(len(clusters)), clusters)


@dataclass(frozen=True)
class ClusteredGaps:
    """Differences of all pairs of groups, (pairs, columns), NaN where not compared."""

    difference: np.ndarray  # float64, mean of the first − mean of the second
    squared: np.ndarray  # float64, its squared standard error
    df: np.ndarray
    trend: np.ndarray  # float64, (3, columns): mean change per ordered group, its t and df


def compare_clustered(grouped: GroupedValues, clusters: np.ndarray, smallest_group: int = 2) -> ClusteredGaps:
    """Compare the means of every two groups, with CR2 errors (:class:`ClusteredFit`).

    `clusters`, int, (subjects,), are each one's cluster, −1 where unknown: such people are clusters
    of their own. Groups of fewer than `smallest_group` people in a column are left out there.
    """
    named = name_alone(clusters)
    first, second = list_pairs(grouped.groups)
    shape = (len(first), grouped.matrix.shape[1])
    difference, squared, df = np.full((3, *shape), np.nan)
    trend = np.full((3, shape[1]), np.nan)
    kept = grouped.moments.n >= max(smallest_group, 2)
    shown = np.where(np.vstack([kept, np.zeros((1, shape[1]), bool)])[grouped.codes], grouped.matrix, np.nan)
    for known, columns in split_by_missing(shown):
        codes = grouped.codes[known]
        used = np.unique(codes)
        if len(used) < 2:
            continue
        fit = ClusteredFit.decompose((codes[:, None] == used[None, :]).astype(float), named[known])
        pairs = [
            (pair, one, other)
            for pair, (one, other) in enumerate(zip(first, second, strict=True))
            if one in used and other in used
        ]
        contrasts = np.array([(used == one) * 1.0 - (used == other) for _, one, other in pairs])
        slope = (used - used.mean()) / ((used - used.mean()) ** 2).sum()
        contrasts = np.vstack([contrasts, slope])
        estimate, covariance = fit.estimate(grouped.matrix[np.ix_(known, columns)], contrasts)
        free, spread = fit.find_df(contrasts), np.diagonal(covariance, axis1=1, axis2=2)
        places = np.array([pair for pair, _, _ in pairs])
        difference[np.ix_(places, columns)] = estimate[:, :-1].T
        squared[np.ix_(places, columns)] = spread[:, :-1].T
        df[np.ix_(places, columns)] = free[:-1, None]
        if len(used) > 2:
            with np.errstate(divide="ignore", invalid="ignore"):
                trend[0, columns], trend[2, columns] = estimate[:, -1], free[-1]
                trend[1, columns] = estimate[:, -1] / np.sqrt(spread[:, -1])
    return ClusteredGaps(difference, squared, df, trend)


def refer_to_clusters(found: list[ClusteredGaps], ordered: list[bool]) -> tuple[PermutedTests, PermutedTests]:
    """Return the tests of differences and of trends by CR2's t, an attribute each, as if permuted.

    Of several pairs the one of the smallest p, at Šidák's level for their number.
    """
    tests = []
    for trend in (False, True):
        estimate, statistic, p = np.full((3, len(found), found[0].difference.shape[1] if found else 0), np.nan)
        for place, one in enumerate(found):
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (
                    one.trend[1:2]
                    if trend
                    else np.where(one.squared > 0, one.difference / np.sqrt(one.squared), np.nan)
                )
                alone = 2.0 * special.stdtr(one.trend[2:] if trend else one.df, -np.abs(t))
            made = np.isfinite(alone).any(axis=0) if len(alone) else np.zeros(estimate.shape[1], bool)
            if (trend and not ordered[place]) or not made.any():
                continue
            best = np.where(np.isfinite(alone), alone, 2.0).argmin(axis=0)
            columns = np.arange(len(made))
            pairs = np.maximum(np.isfinite(alone).sum(axis=0), 1)
            joint = -np.expm1(pairs * np.log1p(-np.minimum(alone[best, columns], 1.0 - 1e-12)))
            p[place] = np.where(made, joint, np.nan)
            statistic[place] = np.where(made, np.abs(t[best, columns]), np.nan)
            own = one.trend[0] if trend else np.abs(one.difference[best, columns])
            estimate[place] = np.where(made, own, np.nan)
        tests.append(PermutedTests(estimate, statistic, p, np.full(p.shape, np.nan), np.empty((0, 0))))
    return tests[0], tests[1]


def find_largest(clusters: np.ndarray) -> tuple[int, int, float]:
    """Return the cluster that most people are of, how many, and the effective number of clusters.

    `clusters`, int, (people,), are one group's, −1 for one of one's own; the effective number is
    (Σ n)² / Σ n² (Kish 1965, *Survey Sampling*).
    """
    counts = np.bincount(np.unique(name_alone(clusters), return_inverse=True)[1].ravel())
    if not (clusters >= 0).any():
        return -1, 0, float(len(clusters))
    places, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    largest = int(sizes.argmax())
    return int(places[largest]), int(sizes[largest]), float(counts.sum() ** 2 / (counts**2).sum())
