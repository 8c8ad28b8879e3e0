"""Who was studied."""

from __future__ import annotations

import pandas as pd

from helpers.report import sentences
from helpers.report.blocks import Block, Note, Section, Table, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import (
    count_groups,
    count_missing,
    is_phantoms,
    label_attribute,
    make_missing,
    make_section,
)

_PLACE = ("people", "Who was studied", "Who")


def compose_people(outputs: Outputs) -> Section:
    """Compose who was studied: counts by group, small groups as "fewer than N"."""
    if outputs.cohort is None:
        return make_missing(_PLACE, "The cohort has not been read: 01_cohort has not been run.")
    included = outputs.included
    if included.empty:
        return make_missing(_PLACE, "Nobody: every scan was left out. The next section says why.")
    min_group = outputs.parameters.fairness.min_group
    people = included.drop_duplicates("person")
    blocks: list[Block] = []
    repeated = len(included) - len(people)
    blocks.append(
        Text(
            f"{sentences.count(len(people), 'phantom') if is_phantoms(outputs) else sentences.count(len(people), 'person', 'people')} "
            f"with {sentences.count(len(included), 'scan')}"
            + (f" by modality ({_count_modalities(included, min_group)})" if "modality" in included else "")
            + "."
            + (" Several scans of one person count as one person in every group comparison." if repeated else "")
        )
    )
    rows = []
    for attribute in outputs.attributes:
        counts = count_groups(outputs, attribute)
        for group, number in counts.items():
            member = people[people[f"group_{attribute}"].astype(str) == group]
            rows.append(
                {
                    "Attribute": label_attribute(outputs, attribute),
                    "Group": group,
                    "People": _tell_count(number, min_group),
                    "Share": "" if number is None else f"{100 * number / len(people):.0f} %",
                    **{
                        label: "" if number is None or number == 0 else _mean_sd(member, column)
                        for label, column in (("Age, mean (SD), years", "age"), ("BMI, mean (SD), kg/m²", "bmi"))
                        if column in people and people[column].notna().any() and column != attribute
                    },
                }
            )
        missing = count_missing(outputs, attribute)
        if missing:
            rows.append(
                {
                    "Attribute": label_attribute(outputs, attribute),
                    "Group": "not recorded",
                    "People": _tell_count(missing if missing >= min_group else None, min_group),
                }
            )
    if rows:
        frame = pd.DataFrame(rows).fillna("")
        blocks.append(
            Table(
                "People in each group",
                frame,
                numeric=tuple(name for name in frame if name not in ("Attribute", "Group")),
            )
        )
        blocks.append(
            Text(
                f"Groups of fewer than {min_group} people are neither compared nor shown. Where mean age or BMI differs between groups, "
                "a gap between them may be owed to that instead."
            )
        )
    if len(outputs.attributes) and not rows:
        blocks.append(Note("No attribute has any group."))
    return make_section(_PLACE, blocks)


def _tell_count(number: int | None, min_group: int) -> str:
    return f"fewer than {min_group}" if number is None else str(number)


def _count_modalities(included: pd.DataFrame, min_group: int) -> str:
    counts = included["modality"].astype(str).value_counts(sort=False)
    return ", ".join(
        f"{number if number >= min_group else f'fewer than {min_group}'} {modality}"
        for modality, number in counts.items()
    )


def _mean_sd(people: pd.DataFrame, column: str) -> str:
    values = people[column].dropna()
    return f"{values.mean():.1f} ({values.std():.1f})" if len(values) > 1 else ""
