"""Who is studied, in tables: Table 1, what is missing, who overlaps with whom."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

from helpers.parameters import Attribute
from helpers.statistics.covariates import encode_covariates
from helpers.statistics.disclosure import hide_counts
from helpers.statistics.overlap import LEAST_EXCEPTIONS, explain_pair

MOST_LEVELS = 12  # of one confounder in a table
HIDDEN = "few"  # in place of numbers of too few people, and of those from which theirs would follow


def keep_people(table: pd.DataFrame) -> pd.DataFrame:
    """Return the included scans, the first one of each person."""
    return table[table["included"]].drop_duplicates("subject").reset_index(drop=True)


def hide_small(table: pd.DataFrame, attributes: Sequence[str], min_group: int) -> pd.DataFrame:
    """Return cohort.parquet as others may see it: without groups of fewer people, without names.

    Who is in a group of fewer than `min_group` people is in no group, and so has no value of that
    attribute where it is a word.
    """
    shown, people = table.copy(), keep_people(table)
    for name in attributes:
        groups = table[f"group_{name}"].astype("category")
        sizes = people[f"group_{name}"].value_counts()
        small = [group for group in groups.cat.categories if 0 < sizes.get(group, 0) < min_group]
        shown[f"group_{name}"] = groups.cat.remove_categories(small)
        if small and not pd.api.types.is_numeric_dtype(table[name]):
            shown[name] = table[name].mask(groups.isin(small) | groups.isna())
    return shown


def describe_cohort(
    table: pd.DataFrame, attributes: Mapping[str, Attribute | None], confounders: Sequence[str], min_group: int
) -> pd.DataFrame:
    """Return Table 1: people by sex, or by the first attribute of two groups.

    `table` is what :func:`hide_small` gives; each person counts once, with the first scan. A row
    per characteristic and level, a column per group and one for all; counts with percentages of the
    column's people, and numbers as median (quartiles): from means, those of people who are not
    shown would follow by subtraction.
    """
    people = keep_people(table)
    names = [
        name for name in dict.fromkeys(["sex", "age", "bmi", "modality", *attributes, *confounders]) if name in people
    ]
    by = sorted(attributes, key=lambda name: name != "sex")  # sex first, where it is one of them
    split = next((name for name in by if len(people[f"group_{name}"].dropna().unique()) > 1), None)
    columns = {"all": people}
    if split is not None:
        columns |= {str(group): part for group, part in people.groupby(f"group_{split}", observed=True)}
    rows = [{"characteristic": "people", "level": "", **{name: str(len(part)) for name, part in columns.items()}}]
    for name in (name for name in names if name != split and name in people and people[name].notna().any()):
        if pd.api.types.is_numeric_dtype(people[name]):
            row = {title: _tell_quartiles(part[name].dropna(), min_group) for title, part in columns.items()}
            rows.append({"characteristic": name, "level": "median (quartiles)", **row})
            continue
        counts = pd.DataFrame({title: people.loc[part.index, name].value_counts() for title, part in columns.items()})
        counts = counts.fillna(0).astype(int).sort_values("all", ascending=False, kind="stable").head(MOST_LEVELS)
        hidden = hide_counts(counts.to_numpy(), min_group)
        for place, (level, numbers) in enumerate(counts.iterrows()):
            told = [
                HIDDEN if hide else f"{number} ({100 * number / max(len(part), 1):.0f} %)"
                for number, part, hide in zip(numbers, columns.values(), hidden[place], strict=True)
            ]
            rows.append({"characteristic": name, "level": str(level), **dict(zip(columns, told, strict=True))})
    return pd.DataFrame(rows)


def _tell_quartiles(values: pd.Series, min_group: int) -> str:
    if len(values) < min_group:
        return HIDDEN
    low, middle, high = values.astype(float).quantile([0.25, 0.5, 0.75])
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def count_missing(table: pd.DataFrame, attributes: Sequence[str]) -> pd.DataFrame:
    """Count included scans per attribute: in a group, with a value but no group, with neither.

    `table` is what :func:`hide_small` gives: people of groups that are not shown are in no group.
    """
    included = table[table["included"]]
    rows = []
    for name in attributes:
        grouped, valued = included[f"group_{name}"].notna(), included[name].notna()
        rows.append((name, int(grouped.sum()), int((valued & ~grouped).sum()), int((~valued).sum())))
    return pd.DataFrame(rows, columns=["attribute", "in a group", "value without a group", "missing"])


def count_confounders(
    table: pd.DataFrame, attributes: Sequence[str], confounders: Sequence[str], min_group: int
) -> pd.DataFrame:
    """Count the people of each group by confounder, to see where nobody is like the others.

    A row per confounder and level (of numbers, per quarter of the people), a column per group.
    Counts are text; those above 0 and under `min_group`, and those from which these would follow,
    are hidden. `table` is what :func:`hide_small` gives.
    """
    people = keep_people(table)
    groups = {
        f"{name}: {group}": people[f"group_{name}"] == group
        for name in attributes
        for group in people[f"group_{name}"].cat.categories
    }
    rows: list[dict[str, str]] = []
    for name in (name for name in confounders if name in people and people[name].notna().any()):
        levels = people[name]
        if pd.api.types.is_numeric_dtype(levels) and levels.nunique() > MOST_LEVELS:
            levels = pd.qcut(levels.astype(float), 4, duplicates="drop", precision=1).astype(str).where(levels.notna())
        named = levels.dropna().astype(str).value_counts().index[:MOST_LEVELS]
        held = {level: levels.astype(str) == level for level in named}
        counts = pd.DataFrame(
            {title: {level: int((one & here).sum()) for level, here in held.items()} for title, one in groups.items()}
        )
        told = counts.astype(str)
        for attribute in attributes:
            own = [title for title in groups if title.startswith(f"{attribute}: ")]
            if own and len(counts):
                told[own] = told[own].mask(hide_counts(counts[own].to_numpy(), min_group), HIDDEN)
        rows += [{"confounder": name, "level": str(level), **row} for level, row in told.to_dict("index").items()]
    return pd.DataFrame(rows)


def list_indistinguishable(
    table: pd.DataFrame, attributes: Sequence[str], confounders: Sequence[str], min_group: int
) -> list[str]:
    """Say which groups cannot be told from a confounder, so that their gaps are not adjusted.

    By :func:`helpers.statistics.overlap.explain_pair`, for each two groups of `min_group` people.
    """
    people = keep_people(table)
    known = encode_covariates(people[[name for name in dict.fromkeys(confounders) if name in people]])
    said = []
    for attribute in attributes:
        groups = people[f"group_{attribute}"].astype(object)
        sizes = groups.value_counts()
        large = [str(name) for name in people[f"group_{attribute}"].cat.categories if sizes.get(name, 0) >= min_group]
        for pair in itertools.combinations(large, 2):
            sides = [(groups == name).to_numpy(bool) for name in pair]
            told = (
                explain_pair(attribute, pair, covariate, sides, min(LEAST_EXCEPTIONS, min_group))
                for covariate in known
                if covariate.name != attribute
            )
            said += [f"{why}: their gap is not adjusted" for why in told if why]
    return said


def count_overlaps(table: pd.DataFrame, attributes: Sequence[str], min_group: int) -> pd.DataFrame:
    """Count people (``n``) in each pair of groups of two attributes, empty pairs included.

    float64, missing where fewer than `min_group` people are in both, and where their number would
    follow. `table` is what :func:`hide_small` gives.
    """
    people = keep_people(table)
    rows = []
    for first, second in itertools.combinations(attributes, 2):
        sizes = people.groupby([f"group_{first}", f"group_{second}"], observed=False).size()
        hidden = hide_counts(sizes.to_numpy().reshape([len(level) for level in sizes.index.levels]), min_group)
        shown = sizes.astype(float).mask(hidden.ravel())
        rows += [(first, a, second, b, n) for (a, b), n in shown.items()]
    return pd.DataFrame(rows, columns=["attribute_a", "group_a", "attribute_b", "group_b", "n"])
