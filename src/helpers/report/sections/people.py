"""Who was studied."""

from __future__ import annotations

import pandas as pd

from helpers.report.blocks import Block, Note, ReportSection, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import count_groups, count_missing, label_attribute
from helpers.report.sentences.study import describe_greys, describe_misplaced, tell_count
from helpers.vocabulary.words import count

_PLACE = ("people", "Who was studied", "Who")
_MEANS = (("Age, mean (SD), years", "age"), ("BMI, mean (SD), kg/m²", "bmi"))


def compose_people(outputs: Outputs) -> ReportSection:
    """Compose who was studied: counts by group, small groups as "fewer than N"."""
    if outputs.cohort is None:
        return ReportSection(*_PLACE, (Note("The cohort has not been read: 01_cohort has not been run."),))
    included, min_group = outputs.included, outputs.parameters.fairness.min_group
    if included.empty:
        return ReportSection(*_PLACE, (Note("Nobody: every scan was left out. The next section says why."),))
    people = included.drop_duplicates("person")
    who = count(len(people), "phantom") if outputs.is_phantoms else count(len(people), "person", "people")
    known = "modality" in included and included["modality"].notna().all()
    modalities = f" by modality ({_count_modalities(included, min_group)})" if known else ""
    repeated = " Several scans of one person count as one person in every group comparison."
    told = f"{who} with {count(len(included), 'scan')}{modalities}."
    blocks: list[Block] = [Text(told + (repeated if len(included) > len(people) else ""))]
    notes = list(included.get("note", ()))
    blocks += [Note(said) for said in [*describe_greys(notes), *describe_misplaced(notes)]]
    rows = [row for attribute in outputs.attributes for row in _count_groups(outputs, attribute, people)]
    if rows:
        frame = pd.DataFrame(rows).fillna("")
        blocks += [
            ReportTable("People in each group", frame, numeric=tuple(frame.columns.drop(["Attribute", "Group"]))),
            Text(
                f"Groups of fewer than {min_group} people are neither compared nor shown; beside one, nothing is told "
                "from which its people's age or BMI would follow; how many they are sometimes does. Where mean age or "
                "BMI differs between groups, a gap between them may be due to that instead."
            ),
        ]
    elif outputs.attributes:
        blocks.append(Note("No attribute has any group."))
    return ReportSection(*_PLACE, tuple(blocks))


def _count_groups(outputs: Outputs, attribute: str, people: pd.DataFrame) -> list[dict[str, str]]:
    name, min_group = label_attribute(outputs, attribute), outputs.parameters.fairness.min_group
    shown = [(label, key) for label, key in _MEANS if key in people and people[key].notna().any() and key != attribute]
    counts, rows = count_groups(outputs, attribute), []
    left = len(people) - sum(filter(None, counts.values()))
    if 0 < left < min_group:  # their means would follow from those of everybody
        shown = []
    for group, number in counts.items():
        members = people[people[f"group_{attribute}"].astype(str) == group]
        row = {"Attribute": name, "Group": group, "People": tell_count(number, min_group)}
        row["Share"] = "" if number is None else f"{100 * number / len(people):.0f} %"
        rows.append(row | {label: _mean_sd(members[key].dropna()) if number else "" for label, key in shown})
    missing = count_missing(outputs, attribute)
    if missing:
        rows.append({"Attribute": name, "Group": "not recorded", "People": tell_count(missing, min_group)})
    return rows


def _count_modalities(included: pd.DataFrame, min_group: int) -> str:
    counts = included["modality"].astype(str).value_counts(sort=False)
    return ", ".join(f"{tell_count(number, min_group)} {modality}" for modality, number in counts.items())


def _mean_sd(values: pd.Series) -> str:
    return f"{values.mean():.1f} ({values.std():.1f})" if len(values) > 1 else ""
