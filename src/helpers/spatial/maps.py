"""Signed errors per scan and vertex become a map per group, and the difference of two groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

SUMMARY_COLUMNS = [
    "model", "organ", "attribute", "group_a", "group_b", "n", "n_a", "n_b", "vertices",
    "peak_difference_mm", "peak_x", "peak_y", "peak_z",
]  # fmt: skip
GROUP_COLUMNS = ["model", "organ", "attribute", "group", "n", "prediction_empty", "suppressed"]
ATTRIBUTE_PREFIX = "group_"


@dataclass(frozen=True)
class GroupMaps:
    """The maps of one attribute.

    Attributes
    ----------
    means_mm : dict of str to ndarray, (n_vertices,)
        Mean signed error per group; NaN throughout for a suppressed one.
    counts : dict of str to int
        Subjects per group.
    group_a, group_b : str or None
        The groups compared; None where there are not two.
    difference_mm : ndarray, (n_vertices,)
        a − b; NaN where there are not two.
    """

    means_mm: dict[str, np.ndarray]
    counts: dict[str, int]
    group_a: str | None
    group_b: str | None
    difference_mm: np.ndarray


def average_subjects(errors_mm: np.ndarray, subjects: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """Average the scans of each person, vertex by vertex, over the scans that have the vertex.

    Parameters
    ----------
    errors_mm : ndarray, (n_scans, n_vertices)
        NaN where missing.
    subjects : Series of str, (n_scans,)

    Returns
    -------
    means : ndarray, (n_subjects, n_vertices)
        NaN where no scan of the person has the vertex.
    subjects : Index
        In order of first appearance.
    """
    codes, names = pd.factorize(subjects)
    total, count = np.zeros((len(names), errors_mm.shape[1])), np.zeros((len(names), errors_mm.shape[1]))
    np.add.at(total, codes, np.nan_to_num(errors_mm, nan=0.0))
    np.add.at(count, codes, np.isfinite(errors_mm))
    return _divide(total, count), pd.Index(names)


def average_groups(errors_mm: np.ndarray, groups: pd.Series, *, min_group: int) -> GroupMaps:
    """Average subjects per group and subtract two groups.

    Parameters
    ----------
    errors_mm : ndarray, (n_subjects, n_vertices)
        One row per person; NaN where missing.
    groups : Series of Categorical, (n_subjects,)
        Its categories, in their order; missing values belong to no group.
    min_group : int
        Groups of fewer subjects are suppressed; so is a vertex that fewer of a group's subjects have.

    Notes
    -----
    Of two categories the difference is the first minus the second. Of more, it is the last minus the
    first of those that are large enough (oldest minus youngest), so that it reads as "with growing".
    """
    categories = [str(category) for category in groups.cat.categories]
    codes = groups.cat.codes.to_numpy()
    means, counts = {}, {}
    for code, group in enumerate(categories):
        rows = errors_mm[codes == code]
        counts[group] = len(rows)
        seen = np.isfinite(rows).sum(axis=0)
        mean = _divide(np.nansum(rows, axis=0), seen)
        mean[seen < min_group] = np.nan
        means[group] = mean
    large = [group for group in categories if counts[group] >= min_group]
    pair: tuple[str | None, str | None] = (None, None)
    if len(large) >= 2:
        pair = (large[0], large[1]) if len(categories) == 2 else (large[-1], large[0])
    difference = np.full(errors_mm.shape[1], np.nan)
    if pair[0] is not None and pair[1] is not None:
        difference = means[pair[0]] - means[pair[1]]
    return GroupMaps(means, counts, pair[0], pair[1], difference)


def list_attributes(cohort: pd.DataFrame) -> list[str]:
    """Return the attributes a cohort table is grouped by, in column order."""
    return [column.removeprefix(ATTRIBUTE_PREFIX) for column in cohort.columns if column.startswith(ATTRIBUTE_PREFIX)]


def group_subjects(cohort: pd.DataFrame, attribute: str, subjects: pd.Index) -> pd.Series:
    """Return each subject's group: of their first scan (in table order) that has one."""
    column = f"{ATTRIBUTE_PREFIX}{attribute}"
    known = cohort.loc[cohort[column].notna(), ["subject", column]].drop_duplicates("subject")
    groups = known.set_index("subject")[column].reindex(subjects)
    if not isinstance(groups.dtype, pd.CategoricalDtype):
        groups = groups.astype("category")
    return groups


def list_error_columns(cohort: pd.DataFrame) -> list[str]:
    """Return the ``error_<group>`` columns of maps.parquet: every group of every attribute, once."""
    columns: dict[str, None] = {}
    for attribute in list_attributes(cohort):
        groups = cohort[f"{ATTRIBUTE_PREFIX}{attribute}"].astype("category")
        columns |= dict.fromkeys(f"error_{group}" for group in groups.cat.categories)
    return list(columns)


def list_map_columns(cohort: pd.DataFrame) -> list[str]:
    """Return the columns of maps.parquet for a cohort."""
    head = ["model", "organ", "attribute", "vertex", "x", "y", "z"]
    return [*head, *list_error_columns(cohort), "group_a", "group_b", "difference"]


def tabulate_maps(
    model: str, organ: str, attribute: str, vertices_mm: np.ndarray, maps: GroupMaps, columns: list[str]
) -> pd.DataFrame:
    """Return one attribute's rows of maps.parquet, with `columns` (see :func:`list_map_columns`)."""
    count = len(vertices_mm)
    table = {
        "model": [model] * count,
        "organ": [organ] * count,
        "attribute": [attribute] * count,
        "vertex": np.arange(count, dtype=np.int32),
        **{axis: vertices_mm[:, place].astype(np.float32) for place, axis in enumerate("xyz")},
        **{
            column: maps.means_mm.get(column.removeprefix("error_"), np.full(count, np.nan)).astype(np.float32)
            for column in columns
            if column.startswith("error_")
        },
        "group_a": [maps.group_a] * count,
        "group_b": [maps.group_b] * count,
        "difference": maps.difference_mm.astype(np.float32),
    }
    return type_maps(pd.DataFrame(table)[columns])


def type_maps(table: pd.DataFrame) -> pd.DataFrame:
    """Give maps.parquet its column types, also when it has no rows."""
    words = ["model", "organ", "attribute", "group_a", "group_b"]
    types = {column: "str" if column in words else "float32" for column in table.columns} | {"vertex": "int32"}
    return table.astype({column: kind for column, kind in types.items() if column in table.columns})


def summarise_maps(
    model: str, organ: str, attribute: str, vertices_mm: np.ndarray, maps: GroupMaps
) -> dict[str, object]:
    """Return one attribute's row of summary.csv: how many, and where the difference is largest.

    ``n`` counts the subjects in any group, ``vertices`` those with a difference; the peak is the
    difference of largest size, with its sign.
    """
    finite = np.isfinite(maps.difference_mm)
    row: dict[str, object] = {
        "model": model, "organ": organ, "attribute": attribute, "group_a": maps.group_a, "group_b": maps.group_b,
        "n": sum(maps.counts.values()),
        "n_a": maps.counts.get(maps.group_a) if maps.group_a else None,
        "n_b": maps.counts.get(maps.group_b) if maps.group_b else None,
        "vertices": int(finite.sum()),
        "peak_difference_mm": np.nan, "peak_x": np.nan, "peak_y": np.nan, "peak_z": np.nan,
    }  # fmt: skip
    if finite.any():
        peak = int(np.argmax(np.where(finite, np.abs(maps.difference_mm), -1.0)))
        row["peak_difference_mm"] = round(float(maps.difference_mm[peak]), 3)
        row |= {f"peak_{axis}": round(float(vertices_mm[peak, place]), 1) for place, axis in enumerate("xyz")}
    return row


def _divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
