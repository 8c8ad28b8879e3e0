"""01_cohort: who is in, who is out and why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import pandas as pd

from helpers import storage
from helpers.cohort.grouping import group_attribute
from helpers.cohort.phantoms import check_recipe
from helpers.cohort.sources import read_source
from helpers.cohort.validation import validate_rows
from helpers.errors import SegfairError, StageError
from helpers.study import Study


@dataclass(frozen=True)
class Cohort:
    """The people of a study.

    Attributes
    ----------
    table : DataFrame
        cohort.parquet: every scan, in or out, with its groups.
    exclusions : DataFrame
        exclusions.csv: number, scan, subject, reason of every scan that is out.
    flow : DataFrame
        Scans by step (``step``, ``scans``): found, out by each kind of reason, included.
    notes : list of str
        What else to know, in sentences.
    """

    table: pd.DataFrame
    exclusions: pd.DataFrame
    flow: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def list_failures(self) -> dict[str, str]:
        """Return the reason per scan left out, by study-local number, for run.json."""
        return {f"scan {row.number:03d}": row.reason for row in self.exclusions.itertuples()}

    def summarise(self) -> pd.DataFrame:
        """Return the closing table: scans and people in and out, and the notes."""
        included = self.table[self.table["included"]]
        rows = [
            ("scans found", str(len(self.table))),
            ("scans left out", str(len(self.exclusions))),
            ("scans included", str(len(included))),
            ("people included", str(included["subject"].nunique())),
            *(("note", note) for note in self.notes),
        ]
        return pd.DataFrame(rows, columns=["", "count"])


def build_cohort(study: Study) -> Cohort:
    """Read, check and group the study's scans; write cohort.parquet and exclusions.csv.

    Raises
    ------
    SegfairError
        The source cannot be read.
    StageError
        Every scan is excluded; the two files are written first, with the reasons.
    """
    raw, base = read_source(study)
    table = validate_rows(raw, base, study)
    notes = []
    for name, attribute in study.parameters.cohort.attributes.items():
        groups = group_attribute(table[name], name, attribute)
        table[f"group_{name}"] = groups
        outside = table["included"] & table[name].notna() & groups.isna()
        if outside.any():
            notes.append(
                f"{name}: {_count(int(outside.sum()), 'scan has', 'scans have')} a value that belongs to no group and no part in the comparison by {name}"
            )
        if table.loc[table["included"], f"group_{name}"].isna().all():
            notes.append(f"{name}: no scan has a usable value; there is no comparison by {name}")
    for name in study.parameters.cohort.attributes:
        if name not in ("age", "bmi"):
            recorded = table.loc[table["included"], ["subject", name]].dropna().drop_duplicates()
            differing = recorded.loc[recorded["subject"].duplicated(), "subject"].drop_duplicates()
            if len(differing):
                notes.append(
                    f"{name}: {_count(len(differing), 'person has', 'people have')} scans that disagree; the first scan counts"
                )
    repeated = table[table["included"]].groupby("subject").size()
    if (repeated > 1).any():
        notes.append(
            f"{_count(int((repeated > 1).sum()), 'person has', 'people have')} several scans; everyone counts once"
        )
    exclusions = table.loc[~table["included"], ["number", "scan", "subject", "reason"]].reset_index(drop=True)
    storage.write_table(table, study.path("cohort"))
    storage.write_table(exclusions, study.path("exclusions"))
    if len(exclusions) == len(table):
        (reason, count), *_ = Counter(exclusions["reason"]).most_common(1)
        raise StageError(
            f"every one of the {len(table)} scans is excluded, {count} of them because: {reason} (all reasons: {study.path('exclusions')})"
        )
    return Cohort(table, exclusions, count_flow(table), notes)


def check_cohort(study: Study) -> list[str]:
    """List everything that is wrong with a study's table and files, without writing anything."""
    try:
        if study.parameters.cohort.source == "phantoms":
            check_recipe(study)
            return []
        raw, base = read_source(study)
        table = validate_rows(raw, base, study)
    except SegfairError as error:
        return [str(error)]
    excluded = table[~table["included"]]
    return [f"scan {row.scan!r} (row {row.number}) would be left out: {row.reason}" for row in excluded.itertuples()]


def count_flow(table: pd.DataFrame) -> pd.DataFrame:
    """Count scans by step: found, out by kind of reason (the first of each scan), included.

    Numbers within a reason are left out of its kind, so that "age 0 years …" and "age 150 years …" count together.
    """
    kinds = Counter(name_reason(reason) for reason in table.loc[~table["included"], "reason"])
    rows = [("found", len(table)), *(kinds.most_common()), ("included", int(table["included"].sum()))]
    return pd.DataFrame(rows, columns=["step", "scans"])


def name_reason(reason: str) -> str:
    """Return the kind of an exclusion's first reason, fit for people: no numbers, file names or remedies."""
    first = reason.split("; ")[0]
    first = (
        re.split(r": |\(", first)[0]
        if not re.match(r"(reference|image) ", first)
        else re.sub(r"^(reference|image) [^:]*: ", r"\1 ", first).split(":")[0]
    )
    first = re.sub(r"\S*/\S*", "", first)
    first = re.sub(r"(age|bmi) [-\d.]+ (years|kg/m²) is outside.*", r"\1 is not plausible", first)
    return " ".join(first.split()).strip()


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
