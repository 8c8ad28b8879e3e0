"""Failures that nobody happened to have: how far they may move a group's mean.

No method that looks at a few people alone can know of those, so a score is taken for a mixture of
failures and the rest (docs/METHODS.md, section 9). A *failure* lies beyond the middle between the
column's median and the worst value that there can be; where a metric has no worst value, as
distances, the worst that anybody in the column has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.grouped_values import GroupedValues, Moments
from helpers.statistics.shares import bound_shares

_TAIL = (1.0 - CONFIDENCE) / 2


@dataclass(frozen=True)
class Allowance:
    """How far a difference may lie below, and above, its estimate for failures unseen.

    float64, ≥ 0, of any equal shape; at 95 %, in the direction of the difference.
    """

    below: np.ndarray
    above: np.ndarray

    def take(self, columns: int) -> Allowance:
        """Return that of one column."""
        return Allowance(self.below[columns], self.above[columns])

    def subtract(self, other: Allowance) -> Allowance:
        """Return that of this difference less another, whose failures are other ones."""
        return Allowance(np.hypot(self.below, other.above), np.hypot(self.above, other.below))

    def face_zero(self, estimate: np.ndarray | float) -> np.ndarray:
        """Return the side on which 0 lies of an estimate: what its p-value has to allow for."""
        return np.where(estimate > 0, self.below, self.above)


@dataclass(frozen=True, eq=False)
class UnseenFailures:
    """Failures and the rest of every group."""

    grouped: GroupedValues
    fails: np.ndarray  # bool, (subjects, columns)
    bottom: np.ndarray  # float64, (columns,): the worst value, times the sign
    bounded: np.ndarray  # bool, (columns,): whether it is the worst that there can be
    typical: np.ndarray  # float64, (columns,): the median, times the sign
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
        return cls(grouped, fails, bottom, bounded, typical, sign)

    @cached_property
    def number(self) -> np.ndarray:
        """People with a value: int64, (groups, columns)."""
        return self._count(self.grouped.known)

    @cached_property
    def failed(self) -> np.ndarray:
        """Those who are failures: int64, (groups, columns)."""
        return self._count(self.fails)

    @cached_property
    def unseen(self) -> np.ndarray:
        """Where somebody fails, by a metric that has a worst value, but nobody of this group.

        bool, (groups, columns).
        """
        return (self.failed == 0) & (self.number > 0) & self.failed.any(axis=0) & self.bounded

    @cached_property
    def loss(self) -> np.ndarray:
        """From the mean of the rest to the worst value: float64, ≥ 0, (groups, columns)."""
        mean = np.where(self._rest.n > 0, self._rest.mean * self.sign, self.typical)
        return np.maximum(mean - self.bottom, 0.0)

    @cached_property
    def _rest(self) -> Moments:
        """Those who do not fail."""
        if not self.fails.any():
            return self.grouped.moments
        matrix = np.where(self.fails, np.nan, self.grouped.matrix)
        return GroupedValues(matrix, self.grouped.codes, self.grouped.groups).moments

    def _count(self, members: np.ndarray) -> np.ndarray:
        return np.array(
            [members[self.grouped.codes == code].sum(axis=0) for code in range(self.grouped.groups)], np.int64
        ).reshape(self.grouped.groups, len(self.sign))

    def reach_unseen(self, tail: np.ndarray | float = _TAIL) -> np.ndarray:
        """Return how much worse a group's mean may be for failures unseen, (groups, columns), ≥ 0.

        0 where some were seen in the group, whose spread then tells of them, or in none. `tail` is
        the error allowed, a number or one per column.
        """
        if not self.unseen.any():
            return np.zeros(self.unseen.shape)
        return np.where(self.unseen, self.bound_share(tail)[1] * self.loss, 0.0)

    def reach_means(self) -> Allowance:
        """Return what groups' means may be off for failures unseen, (groups, columns)."""
        worse = self.reach_unseen()
        nothing = np.zeros(worse.shape)
        return Allowance(*np.where(self.sign > 0, (worse, nothing), (nothing, worse)))

    def reach_gap(
        self, best: np.ndarray, worst: np.ndarray, columns: Sequence[int] | np.ndarray | None = None
    ) -> Allowance:
        """Return what gaps, best − worst in the metric's direction, may be off for failures unseen.

        `best` and `worst`, int, (columns,), are codes of groups, −1 where nothing is compared, in
        some `columns` or all.
        """
        columns = range(len(best)) if columns is None else columns
        reach = self.reach_unseen()
        if not reach.any():
            return Allowance(*np.zeros((2, len(columns))))
        return Allowance(*(np.where(codes >= 0, reach[codes, columns], 0.0) for codes in (best, worst)))

    def reach_contrast(self, group: int) -> Allowance:
        """Return what a group's mean less that of all others may be off, (columns,); as a gap's."""
        if not self.unseen.any():
            return Allowance(*np.zeros((2, len(self.sign))))
        number, loss = (np.delete(part, group, axis=0) for part in (self.number, self.loss))
        people = number.sum(axis=0)
        # Of all others nobody fails, but somebody of the group does.
        unseen = self.unseen.any(axis=0) & (self.failed[group] == self.failed.sum(axis=0)) & (people > 0)
        high = bound_shares(np.zeros_like(people), people, _TAIL, method="beta")[1]
        typical = (number * loss).sum(axis=0) / np.maximum(people, 1)
        return Allowance(self.reach_unseen()[group], np.where(unseen, high * typical, 0.0))

    def reach_mixture(self, tail: float) -> tuple[np.ndarray, np.ndarray]:
        """Return how much worse, and better, a group's mean may be than it is, (groups, columns).

        Of the share of failures by its exact interval, of the rest by Student's, both combined as
        squares, whether or not any failure was seen. `tail` is the error allowed at each end.
        """
        low, high = self.bound_share(tail)
        share = self.failed / np.maximum(self.number, 1)
        variance = np.where(self._rest.n > 1, self._rest.variance, 0.0)
        error = np.sqrt(variance / np.maximum(self._rest.n, 1))  # 0 for one person
        rest = special.stdtrit(np.maximum(self._rest.n - 1, 1), 1.0 - tail) * error
        return np.hypot(rest, (high - share) * self.loss), np.hypot(rest, (share - low) * self.loss)

    def bound_share(self, tail: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return the exact bounds of each group's share of failures, (groups, columns) each."""
        return bound_shares(self.failed, self.number, tail, method="beta")


def widen_interval(
    estimate: np.ndarray | float, low: np.ndarray | float, high: np.ndarray | float, unseen: Allowance
) -> tuple[np.ndarray, np.ndarray]:
    """Widen an interval by what may lie beyond it on either side; all float64, of one shape.

    The distances to each end are combined as squares, as of parts that are estimated apart
    (Zou & Donner 2008, *Statistics in Medicine* 27:1693: MOVER).
    """
    return estimate - np.hypot(estimate - low, unseen.below), estimate + np.hypot(high - estimate, unseen.above)
