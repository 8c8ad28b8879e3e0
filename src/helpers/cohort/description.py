"""Who is studied, in tables: Table 1, what is missing, who overlaps with whom."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence

import pandas as pd

from helpers.parameters import Attribute
from helpers.statistics.covariates import encode_covariates
from helpers.statistics.overlap import LEAST_EXCEPTIONS, explain_pair

MOST_LEVELS = 12  # of one confounder in a table


def keep_people(table: pd.DataFrame) -> pd.DataFrame:
    """Return the included scans, the first one of each person."""
    return table[table["included"]].drop_duplicates("subject").reset_index(drop=True)


def describe_cohort(
    table: pd.DataFrame, attributes: Mapping[str, Attribute | None], confounders: Sequence[str]
) -> pd.DataFrame:
    """Return Table 1: people by sex (or the first attribute of two groups), through tableone.

    `table` is cohort.parquet; each person counts once, with the first scan. A row per
    characteristic and level, a column per group and one overall; numbers as mean (SD), words as
    n (%).
    """
    from tableone import TableOne

    people = keep_people(table)
    names = list(dict.fromkeys(["sex", "age", "bmi", "modality", *attributes, *confounders]))
    names = [name for name in names if name in people and people[name].notna().any()]
    by = sorted(attributes, key=lambda name: name != "sex")  # sex first, where it is one of them
    split = next((f"group_{name}" for name in by if len(people[f"group_{name}"].dropna().unique()) > 1), None)
    frame = people[names + ([split] if split else [])].copy()
    words = [name for name in names if not pd.api.types.is_numeric_dtype(frame[name])]
    frame = frame.astype(dict.fromkeys(words, "object"))
    if split is not None:
        names = [name for name in names if f"group_{name}" != split]
        frame[split] = frame[split].astype("object").where(frame[split].notna(), "no group")
    numbers = [name for name in names if name not in words]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tableone warns about its own use of pandas
        words = [name for name in names if name in words]
        made = TableOne(frame, columns=names, groupby=split, missing=True, categorical=words, continuous=numbers)
    described = made.tableone
    if isinstance(described.columns, pd.MultiIndex):
        described.columns = described.columns.get_level_values(-1)
    return described


def count_missing(table: pd.DataFrame, attributes: Sequence[str]) -> pd.DataFrame:
    """Count included scans per attribute: in a group, with a value but no group, with neither."""
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
    Counts are text; those above 0 and under `min_group` are hidden.
    """
    people = keep_people(table)
    rows: list[dict[str, str]] = []
    for name in (name for name in confounders if name in people and people[name].notna().any()):
        levels = people[name]
        if pd.api.types.is_numeric_dtype(levels) and levels.nunique() > MOST_LEVELS:
            levels = pd.qcut(levels.astype(float), 4, duplicates="drop", precision=1).astype(str).where(levels.notna())
        for level in levels.dropna().astype(str).value_counts().index[:MOST_LEVELS]:
            row = {"confounder": name, "level": str(level)}
            held = levels.astype(str) == level
            for attribute in attributes:
                groups = people[f"group_{attribute}"]
                for group in groups.cat.categories:
                    n = int((held & (groups == group)).sum())
                    row[f"{attribute}: {group}"] = f"<{min_group}" if 0 < n < min_group else str(n)
            rows.append(row)
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


def count_overlaps(table: pd.DataFrame, attributes: Sequence[str]) -> pd.DataFrame:
    """Count people (``n``) in each pair of groups of two attributes, empty pairs included."""
    people = keep_people(table)
    rows = []
    for first, second in itertools.combinations(attributes, 2):
        counts = people.groupby([f"group_{first}", f"group_{second}"], observed=False).size()
        rows += [(first, a, second, b, int(count)) for (a, b), count in counts.items()]
    return pd.DataFrame(rows, columns=["attribute_a", "group_a", "attribute_b", "group_b", "n"])
