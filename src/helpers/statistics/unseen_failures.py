"""Failures that nobody happened to have: how far they may move a group's mean.

Where a model fails altogether on one person in twenty, nobody of 15 people fails in 46 of 100
studies. Their mean is then too good and its interval far too narrow: no method that looks at these
15 people alone can know. So a score is taken for a mixture of failures and the rest. A *failure*
lies beyond the middle between the column's median and the worst value that there can be: below
0.45 for a Dice whose median is 0.9. Where a metric has no worst value, as distances, it is the
worst that anybody in the column has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.shares import bound_shares


@dataclass(frozen=True)
class UnseenFailures:
    """Failures and the rest of every group: (groups, columns)."""

    number: np.ndarray  # int64: people with a value
    failed: np.ndarray  # int64: those who are failures
    loss: np.ndarray  # float64, ≥ 0: from the mean of the rest to the worst value
    error: np.ndarray  # float64: standard error of the mean of the rest; 0 for one person
    # Where failures are seen in some group and not in this one, by a metric that has a worst value.
    unseen: np.ndarray  # bool
    sign: np.ndarray  # float64, (columns,): +1 where higher is better, else −1

    @classmethod
    def find(cls, grouped: GroupedValues, sign: np.ndarray, worst: np.ndarray) -> UnseenFailures:
        """Find who fails.

        `sign` is float64, (columns,), +1 where higher is better, else −1; `worst`, float64,
        (columns,), the worst value that there can be, infinite where there is none.
        """
        values = np.where(grouped.known, grouped.matrix * sign, np.nan)  # higher is better
        empty = ~grouped.known.any(axis=0)
        values = np.where(empty, 0.0, values)
        bounded = np.isfinite(worst)
        bottom = np.where(bounded, np.where(bounded, worst, 0.0) * sign, np.nanmin(values, axis=0, initial=np.inf))
        typical = np.nanmedian(values, axis=0) if len(values) else np.zeros(len(sign))
        fails = grouped.known & (values < (typical + bottom) / 2)
        others = GroupedValues(np.where(fails, np.nan, grouped.matrix), grouped.codes, grouped.groups)
        rest = others.moments if fails.any() else grouped.moments
        number = grouped.moments.n
        failed = number - rest.n
        mean = np.where(rest.n > 0, rest.mean * sign, typical)
        variance = np.where(rest.n > 1, rest.variance, 0.0)
        error = np.sqrt(variance / np.maximum(rest.n, 1))
        unseen = (failed == 0) & (number > 0) & failed.any(axis=0) & bounded
        return cls(number, failed, np.maximum(mean - bottom, 0.0), error, unseen, sign)

    def reach_unseen(self, tail: np.ndarray | float) -> np.ndarray:
        """Return how much worse a group's mean may be for failures unseen, (groups, columns), ≥ 0.

        0 where some were seen in the group, whose spread then tells of them, or in none. `tail` is
        the error allowed, a number or one per column.
        """
        return np.where(self.unseen, self._bound(tail)[1] * self.loss, 0.0)

    def reach_mixture(self, tail: float) -> tuple[np.ndarray, np.ndarray]:
        """Return how much worse, and better, a group's mean may be than it is, (groups, columns).

        Of the share of failures by its exact interval, of the rest by Student's, both combined as
        squares, whether or not any failure was seen. `tail` is the error allowed at each end.
        """
        low, high = self._bound(tail)
        share = self.failed / np.maximum(self.number, 1)
        rest = special.stdtrit(np.maximum(self.number - self.failed - 1, 1), 1.0 - tail) * self.error
        return np.hypot(rest, (high - share) * self.loss), np.hypot(rest, (share - low) * self.loss)

    def bound_share(self, tail: float) -> np.ndarray:
        """Return the upper exact bound of each group's share of failures, (groups, columns)."""
        return self._bound(tail)[1]

    def _bound(self, tail: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        return bound_shares(self.failed, self.number, tail, method="beta")


def widen_interval(
    estimate: np.ndarray, low: np.ndarray, high: np.ndarray, below: np.ndarray, above: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Widen an interval by what may lie beyond it on either side; all float64, of one shape.

    The distances to each end are combined as squares, as of parts that are estimated apart
    (Zou & Donner 2008, *Statistics in Medicine* 27:1693: MOVER).
    """
    return estimate - np.hypot(estimate - low, below), estimate + np.hypot(high - estimate, above)
