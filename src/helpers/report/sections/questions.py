"""What several sections ask of a study's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.fairness import average_subjects
from helpers.fairness.confounding import VOLUME
from helpers.figures.style import name_for_people
from helpers.report import sentences
from helpers.report.blocks import Block, Bullets, Note, Section, Table
from helpers.report.outputs import Outputs
from helpers.report.suppression import count_people, list_groups
from helpers.statistics.covariates import split_covariates


def make_section(place: tuple[str, str, str], blocks: list[Block]) -> Section:
    """Return a section of these blocks; `place` is its key, title and short name."""
    key, title, short = place
    return Section(key, title, short, tuple(blocks))


def make_missing(place: tuple[str, str, str], sentence: str) -> Section:
    """Return a section that says why there is nothing in it."""
    return make_section(place, [Note(sentence)])


def is_phantoms(outputs: Outputs) -> bool:
    """Tell whether the scans are computer-drawn."""
    return outputs.parameters.cohort.source == "phantoms"


def is_prompted(outputs: Outputs) -> bool:
    """Tell whether any model was given prompts made from the expert's masks."""
    return any(model.kind != "precomputed" for model in outputs.parameters.models)


def list_prompts(outputs: Outputs) -> dict[str, Any]:
    """Return each model's prompt, None where its masks were made elsewhere."""
    return {model.name: None if model.kind == "precomputed" else model.prompt for model in outputs.parameters.models}


def choose_metric(outputs: Outputs) -> str:
    """Return the metric of the first page: Dice where it is among the study's."""
    metrics = outputs.parameters.fairness.metrics
    return "dice" if "dice" in metrics else metrics[0]


def is_compared(outputs: Outputs) -> bool:
    """Tell whether any two groups could be compared."""
    disparity = outputs.disparity
    return not (disparity is None or disparity.empty or disparity["gap"].isna().all())


def select_comparisons(outputs: Outputs, metric: str) -> pd.DataFrame:
    """Return the rows of disparity.csv for one metric; no rows where there is no such table."""
    disparity = outputs.disparity
    if disparity is None or disparity.empty:
        return pd.DataFrame(columns=["model", "organ", "metric", "attribute", "gap"])
    return disparity[disparity["metric"] == metric]


def name_unit(outputs: Outputs, attribute: str) -> str:
    """Return an attribute's unit, empty where it has none."""
    rule = outputs.parameters.cohort.attributes.get(attribute)
    return rule.unit if rule is not None else {"age": "years", "bmi": "kg/m²"}.get(attribute, "")


def label_attribute(outputs: Outputs, attribute: str) -> str:
    """Return an attribute's name with its unit."""
    unit = name_unit(outputs, attribute)
    return f"{name_for_people(attribute)}{f' ({unit})' if unit else ''}"


def count_groups(outputs: Outputs, attribute: str) -> dict[str, int | None]:
    """Return people per group in their order; None where fewer than min_group (and more than none)."""
    column = f"group_{attribute}"
    included = outputs.included
    if column not in included or included[column].isna().all():
        return {}
    counts = count_people(included, column, "person")
    numbers = {group: int(counts.get(group, 0)) for group in list_groups(included[column])}
    return {
        group: number if number >= outputs.parameters.fairness.min_group else None for group, number in numbers.items()
    }


def count_missing(outputs: Outputs, attribute: str) -> int:
    """Return for how many people an attribute's group is not known."""
    column = f"group_{attribute}"
    included = outputs.included
    if column not in included:
        return 0
    return int(included["person"].nunique() - included.loc[included[column].notna(), "person"].nunique())


def tell_groups(outputs: Outputs) -> list[str]:
    """Return a sentence per attribute: how many people in each group."""
    return [
        sentences.describe_groups(
            attribute,
            count_groups(outputs, attribute),
            count_missing(outputs, attribute),
            min_group=outputs.parameters.fairness.min_group,
            unit=name_unit(outputs, attribute),
        )
        for attribute in outputs.attributes
    ]


def average_people(outputs: Outputs, names: list[str]) -> pd.DataFrame:
    """Return one row per model, organ and person, small groups' labels taken away.

    Parameters
    ----------
    names : list of str
        Metrics to average.
    """
    included, metrics = outputs.included, outputs.metrics
    if metrics is None or not set(names) <= set(metrics) or included.empty:
        return pd.DataFrame(columns=["model", "organ", "number", *names])
    cohort = included.assign(subject=included["person"], scan=included["number"])
    attributes = [name for name in outputs.attributes if f"group_{name}" in cohort]
    for attribute in attributes:
        column = cohort[f"group_{attribute}"]
        cohort[f"group_{attribute}"] = column.mask(column.astype(str).isin(outputs.small.get(attribute, set())))
    people, _ = average_subjects(
        metrics.assign(subject=metrics["person"], scan=metrics["number"]), cohort, attributes, names
    )
    return people.drop(columns="subject")


def list_levels(outputs: Outputs, metric: str) -> dict[tuple[str, str, str], dict[str, float]]:
    """Return the groups' means of a metric by (model, organ, attribute); groups of too few people are left out.

    Taken from groups.csv; for a measure that the study did not compare (volume errors, by default), averaged here.
    """
    groups = outputs.groups
    if groups is not None and len(groups) and (groups["metric"] == metric).any():
        rows = groups[(groups["metric"] == metric) & groups["mean"].notna()]
        return {
            key: dict(zip(part["group"].astype(str), part["mean"].astype(float), strict=True))
            for key, part in rows.groupby(["model", "organ", "attribute"], sort=False)
        }
    people = average_people(outputs, [metric])
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for attribute in (name for name in outputs.attributes if f"group_{name}" in people):
        known = people[people[metric].notna() & people[f"group_{attribute}"].notna()]
        groups_of = known[f"group_{attribute}"].astype(str)
        for (model, organ, group), values in known.groupby(["model", "organ", groups_of], sort=False)[metric]:
            if len(values) >= outputs.parameters.fairness.min_group:
                found.setdefault((model, organ, attribute), {})[group] = float(values.mean())
    return found


def list_covariates(outputs: Outputs) -> dict[tuple[str, str, str, str], list[str]]:
    """Return what was held equal in each adjusted gap, for people, by (model, organ, metric, attribute)."""
    notes = outputs.adjusted_notes
    if notes is None or notes.empty or "covariates" not in notes:
        return {}
    return {
        (str(row["model"]), str(row["organ"]), str(row["metric"]), str(row["attribute"])): [
            "organ size" if name == VOLUME else name_for_people(name)
            for name in split_covariates(str(row["covariates"]))
        ]
        for row in notes.to_dict("records")
    }


def find_row(table: pd.DataFrame | None, **keys: str) -> Mapping[str, Any] | None:
    """Return the first row with these values; None where there is none."""
    if table is None or table.empty or not set(keys) <= set(table):
        return None
    kept = table
    for name, value in keys.items():
        kept = kept[kept[name].astype(str) == value]
    return None if kept.empty else kept.iloc[0].to_dict()


def find_match(outputs: Outputs, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the row of matching.csv for a gap: its ``group_a`` is the gap's best group, its ``group_b`` the worst."""
    keys = {name: str(row[name]) for name in ("model", "organ", "metric", "attribute")}
    return find_row(outputs.matching, **keys, group_a=str(row["best_group"]), group_b=str(row["worst_group"]))


def list_found(outputs: Outputs) -> list[Mapping[str, Any]]:
    """Return the comparisons in which the first page's metric shows a difference, the gravest first."""
    rows = select_comparisons(outputs, choose_metric(outputs)).to_dict("records")
    return sentences.rank_rows(rows, outputs.parameters.fairness.alpha)


def tell_failures(outputs: Outputs) -> list[Block]:
    """Return how many scans each model failed on, and why."""
    inference = outputs.inference
    if inference is None or inference.empty:
        return [Note("The models have not been run (02_inference).")]
    blocks: list[Block] = [Bullets((*sentences.describe_failures(inference), *_tell_uneven_failures(outputs)))]
    failed = inference[inference["status"] != "ok"]
    rows = [
        {"Model": model, "Reason": reason, "Scans": str(number)}
        for model, part in failed.groupby("model", sort=False)
        for reason, number in sentences.merge_reasons(part["error"])
    ]
    if rows:
        blocks.append(Table("Failures by model and reason", pd.DataFrame(rows), numeric=("Scans",)))
    return blocks


def _tell_uneven_failures(outputs: Outputs) -> list[str]:
    """Return sentences on models that failed in one group far more often than in another."""
    inference, included = outputs.inference, outputs.included
    if inference is None or "number" not in inference or included.empty:
        return []
    said = []
    for attribute in (name for name in outputs.attributes if f"group_{name}" in included):
        groups = included.dropna(subset=f"group_{attribute}").set_index("number")[f"group_{attribute}"].astype(str)
        groups = groups[~groups.isin(outputs.small.get(attribute, set()))]
        for model, rows in inference.groupby("model", sort=False):
            of_group = rows["number"].map(groups)
            failed = (rows["status"] != "ok").groupby(of_group)
            counts = {str(group): (int(part.sum()), len(part)) for group, part in failed}
            said.append(sentences.describe_uneven_failures(str(model), attribute, counts))
    return [text for text in said if text]


def tabulate_reasons(caption: str, excluded: pd.DataFrame) -> Table:
    """Return a table of reasons and how many scans have each."""
    merged = sentences.count_reasons(excluded)
    return Table(
        caption,
        pd.DataFrame({"Reason": [r for r, _ in merged], "Scans": [str(n) for _, n in merged]}),
        numeric=("Scans",),
    )
