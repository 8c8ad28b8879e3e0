"""01_cohort: who is in, who is out and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from helpers import storage
from helpers.cohort.grouping import group_attribute
from helpers.cohort.numbers import find_unreadable, is_half_numeric
from helpers.cohort.sources import read_source
from helpers.cohort.validation import Inspected, inspect_rows, is_asked, validate_rows
from helpers.demo.phantoms import check_recipe
from helpers.errors import SegfairError, StageError
from helpers.parameters import Cohort as CohortParameters
from helpers.study import Study

_NAMED = 5  # scans or values named in a sentence that speaks of many


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
    notes = _note_unreadable(raw, study.parameters.cohort)
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


@dataclass(frozen=True)
class CohortCheck:
    """What :func:`check_cohort` found, in sentences: what is wrong, and what is only worth knowing."""

    problems: list[str]
    remarks: list[str]


def check_cohort(study: Study, masks: Mapping[str, str] | None = None) -> CohortCheck:
    """List everything that is wrong with a study's table and files, and who could not be compared; nothing is written.

    Scans that would be left out for one reason are told together, and so are those on which a model would fail. An attribute whose
    recorded values are all foreign to its groups, values that should be numbers and are not, and an organ in no mask are problems; a group
    too small to be compared, a value without a group, or an organ that some masks lack is a remark.

    Parameters
    ----------
    study : Study
    masks : mapping of str to str, optional
        Where the ready-made masks of models lie (:func:`helpers.models.list_templates`): each scan's is checked too.
    """
    try:
        if study.parameters.cohort.source == "phantoms":
            check_recipe(study)
            return CohortCheck([], [])
        raw, base = read_source(study)
        inspected = inspect_rows(raw, base, study, masks=masks)
    except SegfairError as error:
        return CohortCheck([str(error)], [])
    table = inspected.table
    excluded = table[~table["included"]]
    problems = [
        f"{_name_scans(part)} would be left out: {reason}" for reason, part in excluded.groupby("reason", sort=False)
    ]
    problems += _tell_unusable(inspected)
    remarks: list[str] = []
    _tell_unreadable(raw, study.parameters.cohort, problems, remarks)
    _tell_absent(inspected, study.parameters.cohort, problems, remarks)
    for name, attribute in study.parameters.cohort.attributes.items():
        groups = group_attribute(table[name], name, attribute)
        recorded = table.loc[table[name].notna(), name]
        foreign = table.loc[table["included"] & table[name].notna() & groups.isna(), name]
        names = list(groups.cat.categories)
        if len(recorded) and groups.isna().all():
            problems.append(
                f"{name}: none of the recorded values ({_list_values(recorded)}) belongs to a group of this study ({', '.join(names)}): "
                f"map them under cohort.values, or name your groups under cohort.attributes"
            )
            continue
        if len(foreign):
            remarks.append(
                f"{name}: {_count(len(foreign), 'scan has', 'scans have')} a value without a group ({_list_values(foreign)}): no part in the comparison by {name}"
            )
        included = table["included"]
        if not included.any():
            continue
        people = table[included].assign(group=groups[included]).drop_duplicates("subject")["group"].value_counts()
        small = [f"{group} {people[group]}" for group in names if people[group] < study.parameters.fairness.min_group]
        if small:
            remarks.append(
                f"{name}: fewer than {study.parameters.fairness.min_group} people in {', '.join(small)}: not compared (fairness.min_group)"
            )
    return CohortCheck(problems, remarks)


def _list_numeric(cohort: CohortParameters) -> list[str]:
    """Return the columns that must hold numbers."""
    binned = [name for name, one in cohort.attributes.items() if one is not None and one.bins is not None]
    return list(dict.fromkeys(["age", "bmi", *binned]))


def _list_half_numeric(raw: pd.DataFrame, cohort: CohortParameters) -> list[str]:
    """Return the confounders that hold decimal numbers beside other values, and so count as words."""
    names = [name for name in cohort.confounders if name not in cohort.attributes and name not in ("age", "bmi")]
    return [name for name in names if is_half_numeric(raw[name])]


def _note_unreadable(raw: pd.DataFrame, cohort: CohortParameters) -> list[str]:
    """Say which attributes hold values that are no numbers; the values themselves are `segfair check`'s to show."""
    notes = []
    for name in _list_numeric(cohort):
        bad = find_unreadable(raw[name])
        # Scans without a readable age or BMI are out, with that reason.
        if len(bad) and name not in ("age", "bmi"):
            notes.append(
                f"{name}: {_count(len(bad), 'scan has', 'scans have')} a value that is not a number and no part in the comparison by {name} (segfair check shows it)"
            )
    for name in _list_half_numeric(raw, cohort):
        notes.append(
            f"{name}: some values are decimal numbers and others are no numbers: held equal as words (segfair check shows them)"
        )
    return notes


def _tell_unreadable(raw: pd.DataFrame, cohort: CohortParameters, problems: list[str], remarks: list[str]) -> None:
    for name in _list_numeric(cohort):
        bad = find_unreadable(raw[name])
        if len(bad) and (name not in ("age", "bmi") or is_asked(name, cohort)):
            problems.append(
                f"{name} is recorded as {_list_values(bad)} in {_count(len(bad), 'scan', 'scans')}, which is not a number: "
                f"write digits alone with a decimal point, such as 64.4, or map the values under cohort.values"
            )
        elif len(bad):
            remarks.append(
                f"{name} is recorded as {_list_values(bad)}, which is not a number; this study does not ask for it"
            )
    for name in _list_half_numeric(raw, cohort):
        remarks.append(
            f"{name}: some values are decimal numbers and others are no numbers ({_list_values(find_unreadable(raw[name]))}): "
            f"held equal as words; write all alike to have it held equal as a number"
        )


def _tell_absent(inspected: Inspected, cohort: CohortParameters, problems: list[str], remarks: list[str]) -> None:
    """Tell which organs no mask holds, and which ones some lack."""
    table = inspected.table
    for name, organ in cohort.organs.items():
        lacking = table[[name in absent for absent in inspected.absent]]
        if len(lacking) and len(lacking) == table["included"].sum():
            place = f"labels {organ.labels}" if organ.labels else f"files {organ.files}"
            problems.append(
                f"cohort.organs.{name}: no mask holds it ({place}): correct where it is found, or leave the organ out"
            )
        elif len(lacking):
            remarks.append(f"{name}: not in the mask of {_name_scans(lacking)}: scored where it is there")


def _tell_unusable(inspected: Inspected) -> list[str]:
    """Tell on which scans a model would fail for want of a mask that can be used."""
    scans: dict[tuple[str, str], list[int]] = {}
    for row, faults in enumerate(inspected.unusable):
        for fault in faults.items():
            scans.setdefault(fault, []).append(row)
    return [
        f"models.{model}: {_name_scans(inspected.table.iloc[rows])} would count as failed: {fault}"
        for (model, fault), rows in scans.items()
    ]


def _name_scans(scans: pd.DataFrame) -> str:
    if len(scans) == 1:
        return f"scan {scans['scan'].iloc[0]!r} (row {scans['number'].iloc[0]})"
    named = ", ".join(repr(name) for name in scans["scan"].head(_NAMED))
    return f"{len(scans)} scans ({named}{', …' if len(scans) > _NAMED else ''})"


def _list_values(values: pd.Series) -> str:
    found = list(dict.fromkeys(repr(value) if isinstance(value, str) else f"{value:g}" for value in values))
    return ", ".join(found[:_NAMED]) + (", …" if len(found) > _NAMED else "")


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
