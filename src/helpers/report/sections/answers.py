"""The first page: the answers in words, one picture, and what cannot be concluded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.figures.style import METRIC_LABELS, name_for_people
from helpers.report import sentences
from helpers.report.blocks import (
    Block,
    Bullets,
    Cell,
    Finding,
    Heading,
    Matrix,
    Note,
    Panel,
    Section,
    Table,
    Text,
    Tone,
)
from helpers.report.outputs import Outputs
from helpers.report.sections.overall import tabulate_overall
from helpers.report.sections.questions import (
    choose_metric,
    count_groups,
    find_match,
    is_compared,
    is_phantoms,
    is_prompted,
    list_covariates,
    list_found,
    list_levels,
    list_prompts,
    make_section,
    select_comparisons,
    tell_failures,
    tell_groups,
)
from helpers.report.sections.spatial import locate_differences
from helpers.report.sentences import Outcome

TONES: dict[Outcome, Tone] = {
    Outcome.DISPARITY: "shown",
    Outcome.SIZE_OPEN: "unsized",
    Outcome.NEGLIGIBLE: "small",
    Outcome.EQUIVALENT: "within",
    Outcome.INCONCLUSIVE: "open",
    Outcome.NOT_COMPARED: "blank",
}
_PLACE = ("answers", "In short", "In short")
# What is told in full; the rest is in the picture and in the table of every comparison.
_MOST_FINDINGS = 4
_MOST_EXPLAINED = 12

Levels = Mapping[tuple[str, str, str], Mapping[str, float]]


def compose_answers(outputs: Outputs) -> Section:
    """Compose the first page: the answers in words, and one picture."""
    blocks = _warn(outputs)
    if outputs.cohort is None:
        blocks.append(
            Note("The cohort has not been read (01_cohort has not been run): there is nothing to report yet.")
        )
        return make_section(_PLACE, blocks)
    included = outputs.included
    if included.empty:
        blocks.append(Note(sentences.describe_exclusions(len(outputs.cohort), len(outputs.cohort)), "warning"))
        return make_section(_PLACE, blocks)
    blocks += _tell_who(outputs)
    if outputs.metrics is None:
        blocks.append(Note("How well the models do has not been measured (03_performance has not been run)."))
    elif outputs.metrics[[name for name in METRIC_LABELS if name in outputs.metrics]].isna().all(axis=None):
        blocks.append(
            Note("Nothing could be measured: no model has a mask that could be compared with the expert's.", "warning")
        )
        blocks += tell_failures(outputs)
    elif not is_compared(outputs):
        largest = max(
            (len(count_groups(outputs, name)) - len(outputs.small.get(name, ())) for name in outputs.attributes),
            default=0,
        )
        smallest = outputs.parameters.fairness.min_group
        blocks.append(Note(sentences.describe_no_statistics(len(included), smallest, groups=largest), "warning"))
        blocks.append(tabulate_overall(outputs))
    else:
        blocks += _tell_answers(outputs)
    return make_section(_PLACE, blocks)


def _warn(outputs: Outputs) -> list[Block]:
    blocks: list[Block] = []
    if is_phantoms(outputs):
        blocks.append(
            Note(
                "This is a study of phantoms: computer-drawn bodies, not people. Its numbers show what the report can "
                "tell; they say nothing about any model in the clinic.",
                "warning",
            )
        )
    blocks += [Note(problem, "warning") for problem in outputs.problems]
    stages = outputs.run.get("stages") or {}
    broken = [name for name, record in stages.items() if isinstance(record, dict) and record.get("status") == "failed"]
    if broken:
        blocks.append(
            Note(
                f"{sentences.list_words(broken)} stopped with an error: what it should have written may be missing or from an earlier run.",
                "warning",
            )
        )
    return blocks


def _tell_who(outputs: Outputs) -> list[Block]:
    included = outputs.included
    models = [model.name for model in outputs.parameters.models]
    annotators = [model.name for model in outputs.parameters.models if model.annotator]
    whom = sentences.describe_people(
        included["person"].nunique(), len(included), models, phantoms=is_phantoms(outputs), annotators=annotators
    )
    blocks: list[Block] = [Text(whom, lead="Which models, whose scans?"), Bullets(tuple(tell_groups(outputs)))]
    prompts = sentences.describe_prompts(list_prompts(outputs))
    if prompts:
        blocks.append(Text(prompts))
    return blocks


def _tell_answers(outputs: Outputs) -> list[Block]:
    fairness, metric = outputs.parameters.fairness, choose_metric(outputs)
    rows = select_comparisons(outputs, metric)
    boundary, volume = list_levels(outputs, "boundary_error_mm"), list_levels(outputs, "volume_error_ml")
    told = [
        sentences.describe_model(
            model.name,
            rows[rows["model"] == model.name],
            alpha=fairness.alpha,
            boundary_mm=_of_model(boundary, model.name),
            volume_ml=_of_model(volume, model.name),
        )
        for model in outputs.parameters.models
    ]
    blocks: list[Block] = [Heading("For whom does it work worse, and by how much?"), Bullets(tuple(told))]
    others = sentences.describe_other_measures(outputs.disparity, metric, fairness.alpha)
    if others:
        blocks.append(Text(others))
    blocks.append(_draw_picture(outputs, rows, metric))
    found = list_found(outputs)
    if found:
        blocks.append(
            Heading(
                "The differences shown, one by one"
                if len(found) <= _MOST_FINDINGS
                else "The gravest differences, one by one"
            )
        )
        blocks += _tell_findings(outputs, found[:_MOST_FINDINGS], boundary, volume)
        blocks.append(Heading("What could explain them?"))
        blocks.append(_tabulate_explanations(outputs, found[:_MOST_EXPLAINED]))
        if len(found) > _MOST_EXPLAINED:
            blocks.append(Text(f"{len(found) - _MOST_EXPLAINED} more are in the table of every comparison."))
    sure = sentences.describe_certainty(
        outputs.disparity, alpha=fairness.alpha, correction=fairness.correction, words=sentences.CORRECTIONS
    )
    blocks.append(Text(sure, lead="How sure is that?"))
    power = sentences.describe_power(rows, fairness.power)
    if power:
        blocks.append(Text(power))
    return [*blocks, Heading("What cannot be concluded?"), Bullets(tuple(_tell_unknowns(outputs, rows)))]


def _tell_unknowns(outputs: Outputs, rows: pd.DataFrame) -> list[str]:
    said = [
        "That a model is fair: a difference that was not shown is not a difference that is not there.",
        *sentences.describe_unknowns(rows, outputs.parameters.fairness.alpha),
        "Why a group does worse. Organ size and what was recorded can be allowed for, as above; what was not recorded cannot.",
    ]
    if is_prompted(outputs):
        said.append(
            "How the models would do with a clinician's own prompts: worse than here, and by how much is not known."
        )
    small = [f"“{group}”" for groups in outputs.small.values() for group in sorted(groups)]
    if small:
        said.append(
            f"How the models serve {sentences.list_words(small)}: each has fewer than {outputs.parameters.fairness.min_group} people."
        )
    if is_phantoms(outputs):
        said.append("Anything about real people or real models.")
    return said


def _tell_findings(outputs: Outputs, found: list[Mapping[str, Any]], boundary: Levels, volume: Levels) -> list[Block]:
    alpha, metric = outputs.parameters.fairness.alpha, choose_metric(outputs)
    levels, covariates, places = list_levels(outputs, metric), list_covariates(outputs), locate_differences(outputs)
    blocks: list[Block] = []
    for row in found:
        place = (str(row["model"]), str(row["organ"]), str(row["attribute"]))
        worst, best = str(row["worst_group"]), str(row["best_group"])
        amount = sentences.describe_amount(row, alpha=alpha, levels=levels.get(place))
        units = sentences.describe_plain_units(worst, best, boundary.get(place), volume.get(place))
        held = covariates.get((place[0], place[1], metric, place[2]), [])
        match = find_match(outputs, row)
        matched = sentences.describe_match(match, float(row["gap"])) if match is not None else ""
        where_row, where = places.get(place, (None, ""))
        answers = [
            ("By how much?", f"{amount[0].upper()}{amount[1:]}"),
            ("In mm and ml", units),
            ("Where in the organ?", sentences.describe_place_of_gap(place[1], where_row, where)),
            ("Is it organ size?", sentences.describe_size_share(row) if metric == "dice" else ""),
            ("Is it something else recorded?", f"{sentences.describe_adjustment(row, held)} {matched}".strip()),
        ]
        what = sentences.name_comparison(row)
        outcome = sentences.judge_gap(row, alpha)
        told = f"worse for “{worst}” than for “{best}”"
        if sentences.differs_by_ranks_alone(row, alpha):
            told = f"“{worst}” and “{best}” differ, which is worse on average is open"
        blocks.append(
            Finding(
                f"{row['model']}, {what}: {told}",
                TONES[outcome],
                tuple((question, answer) for question, answer in answers if answer),
            )
        )
    return blocks


def _tabulate_explanations(outputs: Outputs, found: list[Mapping[str, Any]]) -> Table:
    """Return the gaps side by side: as found, what size gives, what is left, adjusted, and among matched pairs."""
    covariates, metric = list_covariates(outputs), choose_metric(outputs)
    alpha = outputs.parameters.fairness.alpha
    rows = []
    for row in found:
        held = covariates.get((str(row["model"]), str(row["organ"]), metric, str(row["attribute"])), [])
        match = find_match(outputs, row) or {}
        worse = f"“{row['worst_group']}” than “{row['best_group']}”"
        if sentences.differs_by_ranks_alone(row, alpha):
            worse = f"which is open: “{row['worst_group']}”, “{row['best_group']}”"
        rows.append(
            {
                "Model": row["model"],
                "Organ": sentences.name_organ(row["organ"]),
                "Worse than": worse,
                "As found": sentences.format_estimate(row.get("gap"), row.get("gap_low"), row.get("gap_high"), metric),
                "Size alone": sentences.format_estimate(row.get("expected_gap"), None, None, metric),
                "Size allowed for": sentences.format_estimate(
                    row.get("excess_gap"), row.get("excess_low"), row.get("excess_high"), metric
                ),
                "Others held equal": sentences.format_estimate(
                    row.get("adjusted_gap"), row.get("adjusted_low"), row.get("adjusted_high"), metric
                ),
                "Held equal": sentences.list_words(held) or "nothing",
                "Matched pairs": sentences.format_estimate(
                    match.get("gap"), match.get("low"), match.get("high"), metric
                ),
            }
        )
    unit = "points" if metric in sentences.SCORES else metric.rpartition("_")[2]
    frame = pd.DataFrame(rows)
    frame = frame.loc[:, [name for name in frame if not (frame[name] == "–").all()]]
    return Table(
        f"The same gaps in {sentences.METRIC_NAMES[metric]}, by what is allowed for ({unit}, 95 % interval); a gap that stays is not explained by it",
        frame,
        numeric=("As found", "Size alone", "Size allowed for", "Others held equal", "Matched pairs"),
    )


def _draw_picture(outputs: Outputs, rows: pd.DataFrame, metric: str) -> Matrix:
    alpha = outputs.parameters.fairness.alpha
    found = {(row["model"], row["organ"], row["attribute"]): row for row in rows.to_dict("records")}
    # All organs together come first, then the organs as the parameters name them.
    organs = [organ for organ in ("all", *outputs.parameters.cohort.organs) if organ in set(rows["organ"])]
    organs += [organ for organ in rows["organ"].unique() if organ not in organs]
    panels = []
    for model in outputs.parameters.models:
        if model.name not in set(rows["model"]):
            continue
        cells = []
        for organ in organs:
            told = [sentences.describe_cell(found.get((model.name, organ, name)), alpha) for name in outputs.attributes]
            cells.append(tuple(Cell(headline, detail, TONES[outcome]) for outcome, headline, detail in told))
        panels.append(
            Panel(
                model.name,
                tuple(sentences.name_organ(organ) for organ in organs),
                tuple(name_for_people(name) for name in outputs.attributes),
                tuple(cells),
            )
        )
    margin = sentences.format_size(outputs.parameters.fairness.margin.get(metric), metric)
    name = sentences.METRIC_NAMES[metric]
    legend: tuple[tuple[Tone, str], ...] = (
        ("shown", f"disparity: the group named does worse by more than {margin}; in brackets the 95 % interval"),
        (
            "unsized",
            f"the groups are shown to differ, but whether by more than {margin}, or which is worse on average, is open",
        ),
        ("small", f"a difference is shown, and it is less than {margin}"),
        ("within", f"the groups lie within {margin} of each other"),
        ("open", "the data cannot tell; the largest gap that cannot be ruled out"),
        ("blank", "not compared: fewer than two groups with enough people, or nothing measured"),
    )
    used = {cell.tone for panel in panels for line in panel.cells for cell in line}
    return Matrix(
        caption=f"For whom each model works worse: the gap in {name} between groups, by organ and attribute",
        panels=tuple(panels),
        legend=tuple(entry for entry in legend if entry[0] in used),
        how_to_read=(
            f"One table per model. Each cell compares the groups of one attribute for one organ: it names the group with the worst mean {name} "
            "and the distance to the best group. Signs and words say what the colours say. "
            + ("One point is 0.01 Dice. " if metric in sentences.SCORES else "")
            + f"{margin} is the margin: the largest difference that this study set beforehand as of no consequence. "
            f"Within it (=) is a group whose difference two one-sided tests at 5 % place there: the 95 % intervals elsewhere may reach a little beyond {margin}."
        ),
    )


def _of_model(levels: Levels, model: str) -> dict[tuple[str, str], Mapping[str, float]]:
    return {key[1:]: value for key, value in levels.items() if key[0] == model}
