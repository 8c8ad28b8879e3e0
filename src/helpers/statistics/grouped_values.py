"""People's values and groups: the one object that tests, effects and intervals are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from helpers.errors import SegfairError


@dataclass(frozen=True)
class Moments:
    """Number, mean and variance of each column in each group: (groups, columns)."""

    n: np.ndarray  # int64
    mean: np.ndarray  # float64; NaN where a group has no value
    variance: np.ndarray  # float64, with n − 1; NaN under two values, exactly 0 where all are equal


@dataclass(frozen=True, eq=False)
class GroupedValues:
    """Every subject's values and group. What is computed from them is kept: moments, ranks.

    A SegfairError where the arrays do not fit each other (:func:`check_columns`).
    """

    matrix: np.ndarray  # float64, (subjects, columns); NaN where a subject has no value
    codes: np.ndarray  # int64, (subjects,): the group, 0, 1, …; −1 for none
    groups: int = 0  # how many; by default the highest code plus one

    def __post_init__(self) -> None:
        matrix, codes = check_columns(self.matrix, self.codes)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "groups", max(self.groups, int(codes.max(initial=-1)) + 1))

    @cached_property
    def known(self) -> np.ndarray:
        """Who has a value and a group: bool, (subjects, columns)."""
        return np.isfinite(self.matrix) & (self.codes >= 0)[:, None]

    @cached_property
    def moments(self) -> Moments:
        """Number, mean and variance per group and column."""
        return summarise_columns(self)

    @cached_property
    def ranks(self) -> GroupedValues:
        """The ranks of each column's known values, in the same groups."""
        return GroupedValues(rank_columns(self.matrix, self.known), self.codes, self.groups)

    def keep(self, kept: np.ndarray) -> GroupedValues:
        """Return these values without the groups not kept in a column: bool, (groups, columns)."""
        # Code −1 takes the last row.
        shown = np.vstack([kept, np.zeros((1, self.matrix.shape[1]), bool)])[self.codes]
        return GroupedValues(np.where(shown, self.matrix, np.nan), self.codes, self.groups)

    def take(self, columns: np.ndarray | list[int]) -> GroupedValues:
        """Return some of the columns."""
        return GroupedValues(self.matrix[:, columns], self.codes, self.groups)


@dataclass(frozen=True)
class PairMembers:
    """The members of two groups, which may be other groups in each column: (subjects, columns)."""

    values: np.ndarray  # float64
    first: np.ndarray  # bool: who belongs to the group and has a value
    second: np.ndarray

    @classmethod
    def select(cls, grouped: GroupedValues, first: int | np.ndarray, second: int | np.ndarray) -> PairMembers:
        """Select two groups by code, one for all columns or one each, else a SegfairError."""
        columns = grouped.matrix.shape[1:]
        members = []
        for name, codes in (("first", np.asarray(first)), ("second", np.asarray(second))):
            if codes.shape not in ((), columns):
                raise SegfairError(
                    f"{name} must be one group for all columns or one for each of {columns[0]} columns; "
                    f"got shape {codes.shape}"
                )
            members.append(grouped.known & (grouped.codes[:, None] == codes))
        return cls(grouped.matrix, *members)


def check_columns(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values and groups as float64 and int64 arrays that fit each other.

    A SegfairError where values are not (subjects, columns), or groups not a whole number from −1 up
    per subject.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    if values.ndim != 2:
        raise SegfairError(f"values must be an array (subjects, columns); got {values.ndim} axes: add the missing axis")
    if groups.shape != values.shape[:1] or not np.issubdtype(groups.dtype, np.integer):
        raise SegfairError(
            f"groups must be one whole number for each of {len(values)} subjects; got shape {groups.shape} "
            f"of {groups.dtype}: code the groups 0, 1, … and −1 for none"
        )
    if len(groups) and groups.min() < -1:
        raise SegfairError(f"groups must be −1 (no group) or from 0 upwards; got {groups.min()}: code the groups anew")
    return values, groups.astype(np.int64)


def list_pairs(groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of every pair of so many groups, (pairs,) each, in lexical order."""
    first, second = np.triu_indices(groups, 1)
    return first.astype(np.int64), second.astype(np.int64)


def summarise_columns(grouped: GroupedValues) -> Moments:
    """Summarise every column in every group: :attr:`GroupedValues.moments` does it once."""
    shape = (grouped.groups, grouped.matrix.shape[1])
    n, mean, variance = np.zeros(shape, np.int64), np.full(shape, np.nan), np.full(shape, np.nan)
    for group in range(shape[0]):
        part = grouped.matrix[grouped.codes == group]
        n[group], mean[group], variance[group] = summarise_members(part, np.isfinite(part))
    return Moments(n, mean, variance)


def summarise_members(values: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return number, mean and variance of some subjects of each column, as in :class:`Moments`."""
    n = members.sum(axis=0)
    lowest = np.where(members, values, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(members, values, -np.inf).max(axis=0, initial=-np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        # The rounded mean of equal values may differ from them: F would be huge, not undefined.
        mean = np.where(lowest == highest, lowest, np.where(members, values, 0.0).sum(axis=0) / n)
        squares = (np.where(members, values - mean, 0.0) ** 2).sum(axis=0)
        variance = np.where(n > 1, squares / (n - 1.0), np.nan)
    return n, mean, variance


def rank_columns(values: np.ndarray, known: np.ndarray, method: str = "average") -> np.ndarray:
    """Rank each column's known values from 1, NaN elsewhere: float64, (subjects, columns).

    `known`, bool of the same shape, is what is ranked; `method` ("average", "min", "max") the rank
    of tied values.
    """
    if not values.size:
        return np.full(values.shape, np.nan)
    # What is not known is ranked last and so moves no other rank.
    return np.where(known, stats.rankdata(np.where(known, values, np.inf), method=method, axis=0), np.nan)
