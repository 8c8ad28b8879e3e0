"""Groups of too few people, taken out of every table before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import pandas as pd


def find_small_groups(cohort: pd.DataFrame | None, min_group: int) -> dict[str, set[str]]:
    """Return, per attribute, the groups of fewer than `min_group` included people."""
    if cohort is None or cohort.empty:
        return {}
    included = cohort[cohort["included"].astype(bool)]
    small = {}
    for column in (name for name in cohort if name.startswith("group_")):
        groups = list_groups(cohort[column])
        people = count_people(included, column, "subject")
        small[column.removeprefix("group_")] = {group for group in groups if people.get(group, 0) < min_group}
    return small


def count_people(included: pd.DataFrame, column: str, person: str) -> dict[str, int]:
    """Return the people in each group: everybody in that of their first scan that has one."""
    known = included[included[column].notna()]
    first = known.sort_values("number", kind="stable").drop_duplicates(person)
    return first[column].astype(str).value_counts().to_dict()


def list_groups(column: pd.Series) -> list[str]:
    """Return the groups of a ``group_…`` column in their order, empty ones included."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(group) for group in column.cat.categories]
    return sorted(column.dropna().astype(str).unique())


def suppress_groups(table: pd.DataFrame | None, min_group: int, small: dict[str, set[str]]) -> pd.DataFrame | None:
    """Mark the rows of small groups as suppressed and empty them."""
    if table is None or table.empty or "n" not in table:
        return table
    table = table.astype({"group": str})
    hidden = (table["n"].fillna(0) < min_group) | is_small(table, "group", small)
    if "suppressed" in table:
        hidden |= table["suppressed"].fillna(False).astype(bool)
    words = ("kind", "model", "organ", "metric", "attribute", "group", "suppressed")
    numbers = [name for name in table if name not in words]
    table = table.assign(suppressed=hidden)
    table[numbers] = table[numbers].astype("Float64").astype("float64").mask(hidden)
    return table


def suppress_disparity(
    table: pd.DataFrame | None, groups: pd.DataFrame | None, small: dict[str, set[str]]
) -> pd.DataFrame | None:
    """Empty the rows that rest on a group too small to be shown."""
    if table is None or table.empty or "worst_group" not in table:
        return table
    table = table.copy()
    hidden = _rests_on_few(table, groups, ("model", "organ", "metric", "attribute"), small)
    keep = {"kind", "model", "organ", "metric", "attribute", "margin", "note"}
    for name in table:
        if name not in keep:
            table[name] = table[name].where(~hidden)
    return table


def suppress_pairs(table: pd.DataFrame | None, small: dict[str, set[str]], min_group: int) -> pd.DataFrame | None:
    """Drop rows of pairs.csv or matching.csv of a small group, and empty those of too few pairs."""
    if table is None or table.empty or "group_a" not in table:
        return table
    kept = table[~(is_small(table, "group_a", small) | is_small(table, "group_b", small))].reset_index(drop=True)
    if "n_pairs" not in kept:
        return kept
    return _empty(kept, ("n_pairs", "n_lost", "gap", "low", "high", "p"), kept["n_pairs"].fillna(0) < min_group)


def _empty(table: pd.DataFrame, numbers: Iterable[str], hidden: pd.Series) -> pd.DataFrame:
    """Return the table with these numbers missing in the hidden rows."""
    return table.assign(**{name: table[name].astype(float).mask(hidden) for name in numbers if name in table})


def suppress_against(
    table: pd.DataFrame | None, agreed: pd.DataFrame | None, small: dict[str, set[str]]
) -> pd.DataFrame | None:
    """Drop rows of against_agreement.csv that rest on too small a group, also of the annotated."""
    if table is None or table.empty:
        return table
    people = None if agreed is None or agreed.empty else agreed[agreed["kind"] == "annotators"]
    return table[~_rests_on_few(table, people, ("organ", "metric", "attribute"), small)].reset_index(drop=True)


def suppress_cells(
    table: pd.DataFrame | None, attributes: list[str], small: dict[str, set[str]], min_group: int
) -> pd.DataFrame | None:
    """Empty the intersections of too few people, and those within a small group."""
    if table is None or table.empty or "n" not in table:
        return table
    # Where people are too few their number is already words ("<10").
    people = pd.to_numeric(table["n"].astype(str), errors="coerce")
    hidden = people.isna() | (people < min_group)
    if "suppressed" in table:
        hidden |= table["suppressed"].fillna(True).astype(bool)
    for attribute in (name for name in attributes if name in table):
        hidden |= table[attribute].astype(str).isin(small.get(attribute, set()))
    text = table["n"].astype(str)
    text = text.mask(hidden & (people.notna() | text.str.startswith("<")), f"<{min_group}")
    numbers = ("mean", "additive", "pooled", "low", "high", "weight")
    return _empty(table.assign(suppressed=hidden, n=text), numbers, hidden)


def suppress_model_gaps(table: pd.DataFrame | None, disparity: pd.DataFrame | None) -> pd.DataFrame | None:
    """Empty comparisons of two models that rest on a gap which is not shown."""
    if table is None or table.empty or disparity is None or disparity.empty:
        return table
    keys = ["model", "organ", "metric", "attribute"]
    shown = disparity.loc[disparity["gap"].notna(), keys].astype(str)
    known = set(shown.itertuples(index=False, name=None))
    rows = table[["model_a", "model_b", "organ", "metric", "attribute"]].astype(str).itertuples(index=False, name=None)
    hidden = pd.Series([not {(a, *rest), (b, *rest)} <= known for a, b, *rest in rows], index=table.index)
    return _empty(table, ("n", "gap_a", "gap_b", "difference", "low", "high", "p", "p_adjusted"), hidden)


# Columns of maps.parquet that say where, and of one group (the rest compares two).
_PLACE = ("model", "organ", "attribute", "vertex", "x", "y", "z", "group_a", "group_b")
_OF_BOTH = ("absolute_difference", "absolute_p_fwer", "miss_difference", "miss_p_fwer")
_OF_GROUPS = ("error_", "absolute_", "miss_")


Few: TypeAlias = Callable[[tuple[str, str, str, str]], bool]


def find_few(
    summary: pd.DataFrame | None, groups: pd.DataFrame | None, min_group: int, small: dict[str, set[str]]
) -> Few:
    """Return what tells whether a (model, organ, attribute, group) has too few people for a map."""
    keys = ["model", "organ", "attribute"]
    found: set[tuple[str, ...]] = set()
    if groups is not None and len(groups):
        low = groups[groups["n"] < min_group]
        found |= set(low[[*keys, "group"]].astype(str).itertuples(index=False, name=None))
    for side in ("a", "b"):
        if summary is not None and f"n_{side}" in summary:
            low = summary[summary[f"n_{side}"] < min_group]
            found |= set(low[[*keys, f"group_{side}"]].astype(str).itertuples(index=False, name=None))
    return lambda place: place in found or place[3] in small.get(place[2], ())


def is_few(table: pd.DataFrame, column: str, few: Few) -> pd.Series:
    """Tell, per row, whether the group in `column` has a map of too few people."""
    places = table[["model", "organ", "attribute", column]].astype(str).itertuples(index=False, name=None)
    return pd.Series([few(place) for place in places], index=table.index, dtype=bool)


def suppress_maps(table: pd.DataFrame | None, few: Few) -> pd.DataFrame | None:
    """Empty the maps of groups that are too small, and whatever rests on a comparison with one."""
    if table is None or table.empty or "group_a" not in table:
        return table
    table = table.copy()
    hidden = is_few(table, "group_a", few) | is_few(table, "group_b", few)
    own = [name for name in table if name.startswith(_OF_GROUPS) and name not in _OF_BOTH]
    resting = [name for name in table if name not in _PLACE and name not in own]
    table[resting] = table[resting].mask(hidden)
    for key, part in table.groupby(["model", "organ", "attribute"], sort=False, observed=True):
        for column in own:
            if few((*map(str, key), column.partition("_")[2])):
                table.loc[part.index, column] = np.nan
    return table


def suppress_slopes(table: pd.DataFrame | None, min_group: int) -> pd.DataFrame | None:
    """Empty the slopes at the places that fewer people than a group needs were measured at."""
    if table is None or table.empty or "n" not in table:
        return table
    resting = [name for name in table if name not in (*_PLACE, "step", "unit")]
    table = table.copy()
    table[resting] = table[resting].mask(table["n"] < min_group)
    return table


def suppress_summary(table: pd.DataFrame | None, few: Few) -> pd.DataFrame | None:
    """Keep the comparisons of two groups that are large enough."""
    if table is None or table.empty or "group_a" not in table:
        return table
    hidden = is_few(table, "group_a", few) | is_few(table, "group_b", few)
    return table[~hidden & table["group_a"].notna() & table["group_b"].notna()].reset_index(drop=True)


def is_small(table: pd.DataFrame, column: str, small: dict[str, set[str]]) -> pd.Series:
    """Tell, per row, whether the group in `column` is a small one of the row's attribute."""
    pairs = zip(table["attribute"].astype(str), table[column].astype(str), strict=True)
    return pd.Series([group in small.get(attribute, ()) for attribute, group in pairs], index=table.index)


def _rests_on_few(
    table: pd.DataFrame, groups: pd.DataFrame | None, keys: tuple[str, ...], small: dict[str, set[str]]
) -> pd.Series:
    """Tell, per row, whether its best or worst group is small in the study or in its comparison."""
    few: set[tuple[str, ...]] = set()
    if groups is not None and not groups.empty:
        rows = groups.loc[groups["suppressed"], [*keys, "group"]].astype(str)
        few = set(rows.itertuples(index=False, name=None))
    hidden = pd.Series(False, index=table.index)
    for side in ("worst_group", "best_group"):
        named = table[[*keys, side]].astype(str).itertuples(index=False, name=None)
        hidden |= is_small(table, side, small) | pd.Series([row in few for row in named], index=table.index)
    return hidden
