"""Signed errors per scan and vertex → a row per person, a map per group, a difference of groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

ATTRIBUTE_PREFIX = "group_"
PEOPLE_FILES = ("signed", "absolute", "miss")
_VALUES_TOGETHER = 8_000_000  # of a table that is read in parts


@dataclass(frozen=True)
class PeopleErrors:
    """Errors of one model on one organ, a row per person: the mean over their scans.

    Errors are float32, (n_people, n_vertices), NaN where no scan of the person has the vertex. A
    person whose scans all missed the organ has no distances, and misses everywhere.
    """

    subjects: pd.Index  # in order of first appearance; those missed in every scan come last
    signed_mm: np.ndarray
    absolute_mm: np.ndarray
    miss: np.ndarray  # the share of the person's scans in which the error exceeds the tolerance

    @property
    def measured(self) -> np.ndarray:
        """Who has a surface error anywhere: bool, (n_people,)."""
        return np.isfinite(self.signed_mm).any(axis=1)


@dataclass(frozen=True)
class GroupMaps:
    """The maps of one attribute and one measure, each (n_vertices,)."""

    means: dict[str, np.ndarray]  # per group; NaN throughout for a suppressed one
    counts: dict[str, int]  # people per group
    suppressed: tuple[str, ...]  # groups of fewer people than `min_group`
    group_a: str | None  # the groups compared; None where there are not two
    group_b: str | None
    difference: np.ndarray  # a − b; NaN where there are not two


def average_people(
    errors_mm: np.ndarray,
    subjects: Sequence[str],
    missed: np.ndarray,
    missed_subjects: Sequence[str],
    *,
    tolerance_mm: float,
    folder: Path | None = None,
) -> PeopleErrors:
    """Average the scans of each person, vertex by vertex, over the scans that have the vertex.

    `errors_mm`, float, (n_scans, n_vertices), are signed errors of the scans with a prediction, NaN
    where missing, and `subjects` whose they are; `missed`, bool, (n_missed, n_vertices), says of
    the scans with an empty prediction which vertices they show, and `missed_subjects` whose they
    are. An error beyond `tolerance_mm`, either way, is a miss. With a `folder` the results lie in
    its files, of :data:`PEOPLE_FILES`, and a part of them in memory at a time.
    """
    codes, names = pd.factorize(np.asarray([*subjects, *missed_subjects], object))
    shape = (len(names), errors_mm.shape[1])
    averaged = [_make_array(shape, folder, name) for name in PEOPLE_FILES]
    for people in list_blocks(*shape):
        rows = np.flatnonzero((codes >= people.start) & (codes < people.stop))
        seen, unseen = errors_mm[rows[rows < len(errors_mm)]], missed[rows[rows >= len(errors_mm)] - len(errors_mm)]
        with np.errstate(invalid="ignore"):
            beyond = np.where(np.isfinite(seen), np.abs(seen) > tolerance_mm, np.nan)
        lost, blank = np.where(unseen, 1.0, np.nan), np.full(unseen.shape, np.nan)
        of_block, size = codes[rows] - people.start, people.stop - people.start
        for array, parts in zip(averaged, ((seen, blank), (np.abs(seen), blank), (beyond, lost)), strict=True):
            array[people] = _average_rows(np.concatenate(parts), of_block, size)
    if folder is not None:
        averaged = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in PEOPLE_FILES]
    return PeopleErrors(pd.Index(names, dtype=object), *averaged)


def list_blocks(rows: int, columns: int) -> list[slice]:
    """Return the rows of a large table in parts that fit into memory, several times over."""
    step = max(1, _VALUES_TOGETHER // max(columns, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def average_groups(
    errors: np.ndarray, groups: pd.Series, *, min_group: int, pair: tuple[str | None, str | None] | None = None
) -> GroupMaps:
    """Average people per group and subtract two groups.

    `errors`, (n_people, n_vertices), are NaN where missing; people without a single value do not
    count. `groups`, categorical, (n_people,), are taken in the order of categories; missing values
    belong to no group. Groups of fewer than `min_group` people are suppressed; so is a vertex that
    fewer of a group's people have. `pair` are the groups to subtract; :func:`choose_pair` when not
    given.
    """
    categories = [str(category) for category in groups.cat.categories]
    codes = groups.cat.codes.to_numpy()
    means, counts = {}, {}
    for code, group in enumerate(categories):
        rows = np.flatnonzero(codes == code)
        anywhere, means[group] = np.zeros(len(rows), bool), np.full(errors.shape[1], np.nan)
        for vertices in list_blocks(errors.shape[1], len(rows)):
            part = errors[rows, vertices]
            known = np.isfinite(part)
            anywhere |= known.any(axis=1)
            # A group of too few people has no vertex that enough of them have.
            mean = _divide(np.nansum(part, axis=0, dtype=float), known.sum(axis=0))
            means[group][vertices] = np.where(known.sum(axis=0) < min_group, np.nan, mean)
        counts[group] = int(anywhere.sum())
    suppressed = tuple(group for group, count in counts.items() if count < min_group)
    first, second = choose_pair(categories, suppressed) if pair is None else pair
    difference = np.full(errors.shape[1], np.nan)
    if first is not None and second is not None:
        difference = means[first] - means[second]
    return GroupMaps(means, counts, suppressed, first, second, difference)


def choose_pair(groups: Sequence[str], suppressed: Collection[str]) -> tuple[str | None, str | None]:
    """Return the two groups to compare, by their order alone: how they err must not decide.

    Of two groups the first is compared with the second. Of more, the last with the first of those
    large enough (oldest against youngest), so that a difference reads as "with growing".
    """
    large = [group for group in groups if group not in suppressed]
    if len(large) < 2:
        return None, None
    return (large[0], large[1]) if len(groups) == 2 else (large[-1], large[0])


def list_attributes(cohort: pd.DataFrame) -> list[str]:
    """Return the attributes a cohort table is grouped by, in column order."""
    return [column.removeprefix(ATTRIBUTE_PREFIX) for column in cohort.columns if column.startswith(ATTRIBUTE_PREFIX)]


def group_subjects(cohort: pd.DataFrame, attribute: str, subjects: pd.Index) -> pd.Series:
    """Return each subject's group; none for who has scans in several: they are not one's people."""
    column = f"{ATTRIBUTE_PREFIX}{attribute}"
    known = cohort.loc[cohort[column].notna(), ["subject", column]].drop_duplicates()
    known = known[~known["subject"].duplicated(keep=False)]
    groups = known.set_index("subject")[column].reindex(subjects)
    if not isinstance(groups.dtype, pd.CategoricalDtype):
        groups = groups.astype("category")
    return groups


def _average_rows(rows: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    total, number = (np.zeros((count, rows.shape[1])) for _ in range(2))
    np.add.at(total, codes, np.nan_to_num(rows, nan=0.0))
    np.add.at(number, codes, np.isfinite(rows))
    return _divide(total, number).astype(np.float32)


def _make_array(shape: tuple[int, int], folder: Path | None, name: str) -> np.ndarray:
    """Return an empty array; in a folder, one that lies in a file."""
    if folder is None:
        return np.empty(shape, np.float32)
    return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)


def _divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
