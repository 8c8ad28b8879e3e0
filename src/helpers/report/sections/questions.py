"""What several sections ask of a study's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from helpers.fairness.groups import list_groups
from helpers.report.blocks import Block, Bullets, Note, ReportTable
from helpers.report.outputs import Outputs
from helpers.report.sentences.gaps import Row
from helpers.report.sentences.study import (
    count_reasons,
    describe_failures,
    describe_groups,
    describe_uneven_absent,
    describe_uneven_failures,
    describe_uneven_missing,
)
from helpers.report.suppression import count_people
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.statuses import LACKING, UNSCORED
from helpers.vocabulary.words import (
    POOLED,
    UNITS,
    UNKNOWN,
    count,
    format_estimate,
    format_number,
    name_for_people,
    name_organ,
    start_sentence,
)

_COMPARED = ["model", "organ", "attribute"]
# A gap, what organ size alone would give, what is left of it, the adjusted gap, the direct gap.
GAP_COLUMNS = {
    "Gap (95 % CI)": "gap", "Size alone": "expected", "Excess": "excess", "Adjusted": "adjusted",
    "Direct": "direct",
}  # fmt: skip


def name_unit(outputs: Outputs, attribute: str) -> str:
    """Return an attribute's unit, empty where it has none."""
    rule = outputs.parameters.cohort.attributes.get(attribute)
    return rule.unit if rule is not None else UNITS.get(attribute, "")


def label_attribute(outputs: Outputs, attribute: str) -> str:
    """Return an attribute's name with its unit."""
    unit = name_unit(outputs, attribute)
    return f"{name_for_people(attribute)}{f' ({unit})' if unit else ''}"


def tell_tolerance(outputs: Outputs) -> str:
    """Return the tolerance of the surface Dice, with organs that have their own."""
    if not outputs.has_masks:
        return "the one that the scores were made with, which they do not tell"
    metrics = outputs.parameters.metrics
    special = [f", {value:g} mm for {name_organ(organ)}" for organ, value in metrics.tolerances_mm.items()]
    return f"{metrics.tolerance_mm:g} mm{''.join(special)}"


def count_exclusions(outputs: Outputs) -> tuple[int, int]:
    """Return how many scans there are, and how many were left out."""
    return (0, 0) if outputs.cohort is None else (len(outputs.cohort), len(outputs.cohort) - len(outputs.included))


def count_groups(outputs: Outputs, attribute: str) -> dict[str, int | None]:
    """Return people per group in their order; None where there are fewer than min_group."""
    column, included = f"group_{attribute}", outputs.included
    if column not in included or included[column].isna().all():
        return {}
    counts, least = count_people(included, column, "person"), outputs.parameters.fairness.min_group
    groups = list_groups(included[column])
    return {group: number if (number := int(counts.get(group, 0))) >= least else None for group in groups}


def count_missing(outputs: Outputs, attribute: str) -> int:
    """Return for how many people an attribute's group is not known.

    0 beside a group of people who are too few to be shown: their number would follow.
    """
    if None in count_groups(outputs, attribute).values():
        return 0
    column, included = f"group_{attribute}", outputs.included
    if column not in included:
        return 0
    return int(included["person"].nunique() - included.loc[included[column].notna(), "person"].nunique())


def tell_groups(outputs: Outputs) -> list[str]:
    """Return a sentence per attribute: how many people in each group."""
    least, said = outputs.parameters.fairness.min_group, []
    for name in outputs.attributes:
        groups, missing = count_groups(outputs, name), count_missing(outputs, name)
        said.append(describe_groups(name, groups, missing, min_group=least, unit=name_unit(outputs, name)))
    return said


def count_resampled(outputs: Outputs) -> int:
    """Count the included scans whose reference was brought to its image's grid."""
    included = outputs.included
    return int(included["resampled"].sum()) if "resampled" in included else 0


def tell_uneven_missing(outputs: Outputs, most: int | None = None) -> list[str]:
    """Return sentences on models that lack results of one group more often than of another.

    And on organs that the reference lacks more often in one. Of `most` where given, those with the
    smallest p, and how many more there are. A model is told by all organs together where they show
    it, else by its organs.
    """
    said = []
    shown = _find_uneven(outputs, outputs.missing)
    if len(shown):
        pooled = shown.groupby(["model", "attribute"])["organ"].transform(lambda organs: (organs == POOLED).any())
        shown = shown[~pooled | (shown["organ"] == POOLED)].sort_values("p", kind="stable")
    for (model, organ, attribute), part in shown.groupby(_COMPARED, sort=False):
        place, rows = (str(model), str(organ), str(attribute)), part.to_dict("records")
        bounds = _find_bounds(outputs, place)
        said.append(describe_uneven_missing(*place, rows, masks=outputs.has_masks, bounds=bounds))
    for (organ, attribute), part in _find_uneven(outputs, outputs.absent).groupby(_COMPARED[1:], sort=False):
        said.append(describe_uneven_absent(str(organ), str(attribute), part.to_dict("records")))
    if most is None or len(said) <= most:
        return said
    more = f"{count(len(said) - most, 'more such difference')} in what is missing: see “Left out”."
    return [*said[:most], start_sentence(more)]


def _find_uneven(outputs: Outputs, table: pd.DataFrame | None) -> pd.DataFrame:
    """Return the rows of missing.csv or absent.csv in which groups were found to differ."""
    if table is None or table.empty:
        return pd.DataFrame(columns=[*_COMPARED, "p"])
    return table[table["p_adjusted"] <= outputs.parameters.fairness.alpha]


def _find_bounds(outputs: Outputs, place: tuple[str, str, str]) -> Mapping[str, Any] | None:
    table = outputs.missing_bounds
    if table is None or table.empty:
        return None
    same = (table[_COMPARED].astype(str) == list(place)).all(axis=1) & (table["metric"] == outputs.main_metric)
    return table[same].iloc[0].to_dict() if same.any() else None


def tell_missing(outputs: Outputs) -> list[Block]:
    """Return how many scores each model lacks, and of whom."""
    metrics = outputs.metrics
    if metrics is None:
        return [Note("The scores have not been read (03_performance).")]
    scored = metrics[~metrics["status"].isin(UNSCORED)]
    lacking = scored["status"].isin(LACKING).groupby(scored["model"], sort=False).agg(["sum", "size"])
    said = [
        f"{model} lacks {number:,} of {total:,} scores, in {count(scans, 'scan')}: missing from its results, not "
        "counted as zero."
        for model, number, total in lacking.itertuples()
        if number
        for scans in [scored.loc[(scored["model"] == model) & scored["status"].isin(LACKING), "number"].nunique()]
    ]
    uneven = tell_uneven_missing(outputs)
    return [Bullets((*(said or ["No model lacks a score that another model has."]), *(uneven or _tell_even(outputs))))]


def _tell_even(outputs: Outputs) -> list[str]:
    """Say how many tests found that nothing is missing in one group more often."""
    tests = 0 if outputs.missing is None else len(outputs.missing.dropna(subset="p").groupby(_COMPARED).size())
    if not tests:
        return []
    asked = "of whether a model lacks more in one group than in another"
    return [f"{start_sentence(count(tests, 'test'))} {asked}: none finds a difference."]


def tell_failures(outputs: Outputs) -> list[Block]:
    """Return how many scans each model failed on, and why."""
    if not outputs.has_masks:
        return tell_missing(outputs)
    inference = outputs.inference
    if inference is None or inference.empty:
        return [Note("The models have not been run (02_inference).")]
    uneven = tell_uneven_missing(outputs) or [*_tell_uneven_failures(outputs, inference), *_tell_even(outputs)]
    blocks: list[Block] = [Bullets((*describe_failures(inference), *uneven))]
    failed = inference[inference["status"] != "ok"]
    rows = [
        {"Model": model, "Reason": reason, "Scans": str(number)}
        for model, part in failed.groupby("model", sort=False)
        for reason, number in count_reasons(part["error"])
    ]
    if rows:
        blocks.append(ReportTable("Failures by model and reason", pd.DataFrame(rows), numeric=("Scans",)))
    return blocks


def _tell_uneven_failures(outputs: Outputs, inference: pd.DataFrame) -> list[str]:
    """Return sentences on models that failed in one group far more often than in another."""
    included = outputs.included
    if "number" not in inference or included.empty:
        return []
    said = []
    for attribute in (name for name in outputs.attributes if f"group_{name}" in included):
        if outputs.small.get(attribute, set()) & set(count_people(included, f"group_{attribute}", "person")):
            continue  # with those of everybody, the counts of a group too small to be shown would follow
        groups = included.dropna(subset=f"group_{attribute}").set_index("number")[f"group_{attribute}"].astype(str)
        groups = groups[~groups.isin(outputs.small.get(attribute, set()))]
        for model, rows in inference.groupby("model", sort=False):
            failed = (rows["status"] != "ok").groupby(rows["number"].map(groups))
            counts = {str(group): (int(part.sum()), len(part)) for group, part in failed}
            said.append(describe_uneven_failures(str(model), attribute, counts))
    return [text for text in said if text]


def read_key(row: Row) -> tuple[str, ...]:
    """Return model, organ, metric and attribute of a comparison."""
    return tuple(str(row[name]) for name in ("model", "organ", "metric", "attribute"))


def name_row(row: Row) -> dict[str, str]:
    """Return the cells that say which comparison a row is of."""
    by = name_for_people(str(row["attribute"]))
    return {"Model": str(row["model"]), "Organ": name_organ(row["organ"]), "By": by}


def format_gap(row: Row, name: str, metric: str) -> str:
    """Return a gap of a row (``gap``, ``excess``, …) with its interval."""
    value = row.get("gap" if name == "gap" else f"{name}_gap")
    return format_estimate(value, row.get(f"{name}_low"), row.get(f"{name}_high"), metric)


def tabulate_gap(row: Row, metric: str) -> dict[str, str]:
    """Return the cells of :data:`GAP_COLUMNS`."""
    return {column: format_gap(row, name, metric) for column, name in GAP_COLUMNS.items()}


def drop_empty(rows: list[dict[str, str]], columns: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table, without those of the `columns` that hold nothing."""
    frame = pd.DataFrame(rows)
    return frame.loc[:, [name for name in frame if name not in columns or not frame[name].isin([UNKNOWN, ""]).all()]]


def tabulate_medians(outputs: Outputs) -> list[Block]:
    """Return the main metric's medians over people, models by organs."""
    metric, medians = outputs.main_metric, _find_medians(outputs)
    if not medians:
        return []
    rows = [
        {
            "Model": model,
            **{name_organ(organ): format_number(medians.get((model, organ)), metric) for organ in outputs.organs},
        }
        for model in outputs.models
    ]
    frame = pd.DataFrame(rows)
    caption = f"Median {find_measure(metric).name} of each model on everyone"
    return [ReportTable(caption, frame, numeric=tuple(frame.columns[1:]))]


def tell_medians(outputs: Outputs) -> dict[str, str]:
    """Return by model from which organ's median of the main metric to which it reaches."""
    metric, found = outputs.main_metric, dict[str, list[float]]()
    for (model, _), median in _find_medians(outputs).items():
        found.setdefault(model, []).append(median)
    ends = {model: (min(medians), max(medians)) for model, medians in found.items()}
    return {
        model: " to ".join(dict.fromkeys(format_number(end, metric) for end in both)) for model, both in ends.items()
    }


def _find_medians(outputs: Outputs) -> dict[tuple[str, str], float]:
    """Return the main metric's median over people, by model and organ."""
    metrics, metric = outputs.metrics, outputs.main_metric
    if metrics is None or metric not in metrics:
        return {}
    people = metrics.groupby(["model", "organ", "person"], sort=False)[metric].mean().dropna()
    return dict(people.groupby(level=[0, 1], sort=False).median())


def tabulate_overall(outputs: Outputs) -> ReportTable:
    """Return medians over people: unlike means they do not give away a group that is left out."""
    metrics = outputs.metrics if outputs.metrics is not None else pd.DataFrame(columns=["model", "organ", "person"])
    told = [metric for metric in dict.fromkeys(("dice", *outputs.parameters.fairness.metrics)) if metric in metrics]
    people = metrics.groupby(["model", "organ", "person"], sort=False)[told].mean()
    rows = [
        {
            "Model": model,
            "Organ": name_organ(organ),
            "People": str(int(part["dice"].notna().sum())) if "dice" in part else "",
            **{find_measure(metric).label: _tell_quartiles(part, metric) for metric in told},
        }
        for (model, organ), part in people.groupby(level=[0, 1], sort=False)
    ]
    caption, frame = "Each model on everyone: median over people (25th–75th percentile)", pd.DataFrame(rows)
    numeric = tuple(name for name in frame if name not in ("Model", "Organ"))
    return ReportTable(caption, frame, numeric=numeric, folded=outputs.is_compared)


def _tell_quartiles(people: pd.DataFrame, metric: str) -> str:
    """Return a metric's median and quartiles, with its own count where that is not Dice's."""
    values = people[metric].dropna()
    if values.empty:
        return "not measured"
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    told = format_number(middle, metric) if len(values) < 4 else format_estimate(middle, low, high, metric)
    fewer = "dice" in people and len(values) < people["dice"].count()
    return f"{told}, {len(values)} people" if fewer else told
