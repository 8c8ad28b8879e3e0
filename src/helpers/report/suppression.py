"""Groups of too few people, taken out of every table before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.disparity import SPREADS
from helpers.fairness.failures import COMPARISON, hide_subtractable
from helpers.fairness.groups import hide_remainders, list_groups
from helpers.statistics.disclosure import hide_counts

Small = dict[str, set[str]]  # groups of too few people, by attribute
Few = Callable[[tuple[str, str, str, str]], bool]  # whether a (model, organ, attribute, group) is
_COMPARISON = ("model", "organ", "metric", "attribute")
_MAPPED = ("model", "organ", "attribute")
# Columns of maps.parquet that say where, and of one group (the rest compares two).
_PLACE = (*_MAPPED, "vertex", "x", "y", "z", "group_a", "group_b")
_OF_BOTH = ("absolute_difference", "absolute_p_fwer", "miss_difference", "miss_p_fwer")
_OF_GROUPS = ("error_", "absolute_", "miss_")


def find_small_groups(cohort: pd.DataFrame | None, min_group: int) -> Small:
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


def find_told_apart(cohort: pd.DataFrame | None, min_group: int, small: Small) -> set[str]:
    """Return the attributes whose small groups are together fewer people than a group needs.

    Their sums follow from those of everybody and of the groups shown.
    """
    if cohort is None or cohort.empty:
        return set()
    included = cohort[cohort["included"].astype(bool)]
    people = {name: count_people(included, f"group_{name}", "subject") for name in small}
    hidden = {name: sum(people[name].get(group, 0) for group in groups) for name, groups in small.items()}
    return {name for name, number in hidden.items() if 0 < number < min_group}


def suppress_small(
    tables: dict[str, pd.DataFrame | None], attributes: list[str], min_group: int, small: Small, told_apart: set[str]
) -> None:
    """Take what is known of fewer than `min_group` people out of a study's tables, in place.

    `tables` go by their keys in :data:`helpers.schema.TABLES`; None where one is absent.
    """
    few = _find_few(tables["spatial_summary"], tables["spatial_groups"], min_group, small)
    # The column without which a table names no group, and what is done to it: to groups first.
    ways: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
        "groups": ("n", lambda table: _suppress_groups(table, min_group, small)),
        "agreement_groups": ("n", lambda table: _suppress_groups(table, min_group, small)),
        "disparity": ("worst_group", lambda table: _suppress_gaps(table, tables["groups"], small)),
        "agreement": ("worst_group", lambda table: _suppress_gaps(table, tables["agreement_groups"], small)),
        "against_agreement": ("metric", lambda table: _suppress_against(table, tables["agreement_groups"], small)),
        "pairs": ("group_a", lambda table: _suppress_pairs(table, small, min_group)),
        "matching": ("group_a", lambda table: _suppress_pairs(table, small, min_group)),
        "intersections": ("n", lambda table: _suppress_cells(table, attributes, small, min_group)),
        "few_masks_gaps": ("worst_group", lambda table: table[~_is_small(table, "worst_group", small)]),
        "missing": ("group", lambda table: _suppress_counts(table, ["model", "organ", "attribute"], small)),
        "absent": ("group", lambda table: _suppress_counts(table, ["organ", "attribute"], small)),
        "missing_bounds": ("worst_group", lambda table: _drop_small(table, ("worst_group", "best_group"), small)),
        "volumes": ("larger_group", lambda table: _drop_small(table, ("larger_group", "smaller_group"), small)),
        "failures": ("group", lambda table: _suppress_counts(table, COMPARISON, small)),
        "model_gaps": ("metric", lambda table: _suppress_model_gaps(table, tables["disparity"])),
        "maps": ("group_a", lambda table: _suppress_maps(table, few, told_apart)),
        "slopes": ("n", lambda table: suppress_slopes(table, min_group)),
        "spatial_summary": ("group_a", lambda table: _suppress_summary(table, few)),
        "spatial_groups": ("group", lambda table: table[~_is_few(table, "group", few)].reset_index(drop=True)),
    }
    for name, (needed, suppress) in ways.items():
        table = tables[name]
        if table is not None and len(table) and needed in table:
            tables[name] = suppress(table)


def _suppress_groups(table: pd.DataFrame, min_group: int, small: Small) -> pd.DataFrame:
    """Mark the rows of small groups as suppressed and empty them."""
    table = table.astype({"group": str})
    hidden = (table["n"].fillna(0) < min_group) | _is_small(table, "group", small)
    if "suppressed" in table:
        hidden |= table["suppressed"].fillna(False).astype(bool)
    keys = [name for name in table if name in ("kind", *_COMPARISON)]
    numbers = [name for name in table if name not in (*keys, "group", "suppressed")]
    table = hide_remainders(table.assign(suppressed=hidden), keys, min_group)
    table[numbers] = table[numbers].astype("Float64").astype("float64").mask(hidden)
    return table


def _suppress_gaps(table: pd.DataFrame, groups: pd.DataFrame | None, small: Small) -> pd.DataFrame:
    """Empty the rows that rest on a group too small to be shown."""
    table = table.copy()
    hidden = _rests_on_few(table, groups, _COMPARISON, small)
    resting = [name for name in table if name not in ("kind", *_COMPARISON, "margin", "note")]
    table[resting] = table[resting].mask(hidden)
    return _hide_ratios(table, groups)


def _hide_ratios(table: pd.DataFrame, groups: pd.DataFrame | None) -> pd.DataFrame:
    """Empty what, with the gap, tells both means, where no mean may be shown."""
    keys = [name for name in table if name in ("kind", *_COMPARISON)]
    if groups is None or not {*keys, "mean"} <= set(groups):
        return table
    told = set(_list_rows(groups[groups["mean"].notna()], keys))
    spreads = [f"{name}{end}" for name in SPREADS for end in ("", "_low", "_high")]
    hidden = pd.Series([row not in told for row in _list_rows(table, keys)], index=table.index)
    return _empty(table, spreads, hidden)


def _suppress_pairs(table: pd.DataFrame, small: Small, min_group: int) -> pd.DataFrame:
    """Drop rows of pairs.csv or matching.csv of a small group, and empty those of too few pairs."""
    kept = table[~(_is_small(table, "group_a", small) | _is_small(table, "group_b", small))].reset_index(drop=True)
    if "n_pairs" not in kept:
        return kept
    return _empty(kept, ("n_pairs", "n_lost", "gap", "low", "high", "p"), kept["n_pairs"].fillna(0) < min_group)


def _drop_small(table: pd.DataFrame, columns: Iterable[str], small: Small) -> pd.DataFrame:
    """Drop rows that name a small group in one of the columns."""
    named = pd.concat([_is_small(table, column, small) for column in columns], axis=1).any(axis=1)
    return table[~named].reset_index(drop=True)


def _suppress_counts(table: pd.DataFrame, keys: list[str], small: Small) -> pd.DataFrame:
    """Drop rows of small groups, and empty those from which their counts would follow."""
    marked = table.assign(suppressed=table["suppressed"].astype(bool) | _is_small(table, "group", small))
    kept = hide_subtractable(marked, keys)
    return kept[~kept["suppressed"]].reset_index(drop=True)


def _empty(table: pd.DataFrame, numbers: Iterable[str], hidden: pd.Series) -> pd.DataFrame:
    """Return the table with these numbers missing in the hidden rows."""
    return table.assign(**{name: table[name].astype(float).mask(hidden) for name in numbers if name in table})


def _suppress_against(table: pd.DataFrame, agreed: pd.DataFrame | None, small: Small) -> pd.DataFrame:
    """Drop rows of against_agreement.csv that rest on too small a group, also of the annotated."""
    people = None if agreed is None or agreed.empty else agreed[agreed["kind"] == "annotators"]
    return table[~_rests_on_few(table, people, ("organ", "metric", "attribute"), small)].reset_index(drop=True)


def _suppress_cells(table: pd.DataFrame, attributes: list[str], small: Small, min_group: int) -> pd.DataFrame:
    """Empty intersections of too few people, in a small group, or from which these follow."""
    # Where people are too few their number is already words ("<10").
    text = table["n"].astype(str)
    people = pd.to_numeric(text, errors="coerce")
    hidden = people.isna() | (people < min_group)
    if "suppressed" in table:
        hidden |= table["suppressed"].fillna(True).astype(bool)
    named = [name for name in attributes if name in table]
    within_small = pd.Series(False, index=table.index)
    for attribute in named:
        within_small |= table[attribute].astype(str).isin(small.get(attribute, set()))
    for _, rows in table[~within_small].groupby(["model", "organ", "metric"], sort=False, observed=True):
        places = [pd.factorize(rows[name].astype(str))[0] for name in named]
        counts = np.zeros([part.max() + 1 for part in places], int)
        counts[tuple(places)] = people[rows.index].fillna(1)  # of whom there are too few
        hidden[rows.index] |= hide_counts(counts, min_group)[tuple(places)]
    hidden |= within_small
    text = text.mask(hidden & (people.notna() | text.str.startswith("<")), f"<{min_group}")
    numbers = ("mean", "additive", "pooled", "low", "high", "weight")
    return _empty(table.assign(suppressed=hidden, n=text), numbers, hidden)


def _suppress_model_gaps(table: pd.DataFrame, disparity: pd.DataFrame | None) -> pd.DataFrame:
    """Empty comparisons of two models that rest on a gap which is not shown."""
    if disparity is None or disparity.empty:
        return table
    known = set(_list_rows(disparity[disparity["gap"].notna()], _COMPARISON))
    rows = _list_rows(table, ("model_a", "model_b", *_COMPARISON[1:]))
    hidden = pd.Series([not {(a, *rest), (b, *rest)} <= known for a, b, *rest in rows], index=table.index)
    return _empty(table, ("n", "gap_a", "gap_b", "difference", "low", "high", "p", "p_adjusted"), hidden)


def _find_few(summary: pd.DataFrame | None, groups: pd.DataFrame | None, min_group: int, small: Small) -> Few:
    """Return what tells whether a (model, organ, attribute, group) has too few people for a map."""
    found: set[tuple[str, ...]] = set()
    for table, count, group in ((groups, "n", "group"), (summary, "n_a", "group_a"), (summary, "n_b", "group_b")):
        if table is not None and count in table:
            found |= set(_list_rows(table[table[count] < min_group], (*_MAPPED, group)))
    return lambda place: place in found or place[3] in small.get(place[2], ())


def _is_few(table: pd.DataFrame, column: str, few: Few) -> pd.Series:
    """Tell, per row, whether the group in `column` has a map of too few people."""
    return pd.Series([few(place) for place in _list_rows(table, (*_MAPPED, column))], index=table.index, dtype=bool)


def _suppress_maps(table: pd.DataFrame, few: Few, told_apart: set[str]) -> pd.DataFrame:
    """Empty the maps of groups that are too small, and whatever rests on a comparison with one.

    Of the attributes `told_apart` no group's own map is shown: that of a small one would follow.
    """
    table = table.copy()
    hidden = _is_few(table, "group_a", few) | _is_few(table, "group_b", few)
    own = [name for name in table if name.startswith(_OF_GROUPS) and name not in _OF_BOTH]
    resting = [name for name in table if name not in _PLACE and name not in own]
    table[resting] = table[resting].mask(hidden)
    table[own] = table[own].mask(table["attribute"].astype(str).isin(told_apart))
    for key, part in table.groupby(list(_MAPPED), sort=False, observed=True):
        for column in own:
            if few((*map(str, key), column.partition("_")[2])):
                table.loc[part.index, column] = np.nan
    return table


def suppress_slopes(table: pd.DataFrame, min_group: int) -> pd.DataFrame:
    """Empty the slopes at the places that fewer people than a group needs were measured at."""
    resting = [name for name in table if name not in (*_PLACE, "step", "unit")]
    table = table.copy()
    table[resting] = table[resting].mask(table["n"] < min_group)
    return table


def _suppress_summary(table: pd.DataFrame, few: Few) -> pd.DataFrame:
    """Keep the comparisons of two groups that are large enough."""
    hidden = _is_few(table, "group_a", few) | _is_few(table, "group_b", few)
    return table[~hidden & table["group_a"].notna() & table["group_b"].notna()].reset_index(drop=True)


def _is_small(table: pd.DataFrame, column: str, small: Small) -> pd.Series:
    """Tell, per row, whether the group in `column` is a small one of the row's attribute."""
    rows = _list_rows(table, ("attribute", column))
    return pd.Series([group in small.get(attribute, ()) for attribute, group in rows], index=table.index)


def _rests_on_few(table: pd.DataFrame, groups: pd.DataFrame | None, keys: tuple[str, ...], small: Small) -> pd.Series:
    """Tell, per row, whether its best or worst group is small in the study or in its comparison."""
    few = [] if groups is None or groups.empty else _list_rows(groups[groups["suppressed"]], (*keys, "group"))
    known = set(few)
    hidden = pd.Series(False, index=table.index)
    for side in ("worst_group", "best_group"):
        small_here = pd.Series([row in known for row in _list_rows(table, (*keys, side))], index=table.index)
        hidden |= _is_small(table, side, small) | small_here
    return hidden


def _list_rows(table: pd.DataFrame, columns: Iterable[str]) -> list[Any]:
    return list(table[list(columns)].astype(str).itertuples(index=False, name=None))
