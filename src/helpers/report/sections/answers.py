"""The first page: the answers in words, one picture, and what cannot be concluded."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from helpers.figures.failure_matrix import find_fails
from helpers.figures.panels import MANY_MODELS
from helpers.figures.verdict_matrix import describe_answerable, draw_verdicts
from helpers.models.description import AUTOMATIC, BLOCKS, NO_RANKING, PROMPTED
from helpers.report.blocks import Block, Bullets, Heading, Note, ReportFinding, ReportSection, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.pictures import picture_people
from helpers.report.sections.questions import (
    GAP_COLUMNS,
    count_groups,
    drop_empty,
    format_gap,
    tabulate_gap,
    tabulate_overall,
    tell_failures,
    tell_groups,
    tell_uneven_missing,
)
from helpers.report.sections.spatial import locate_differences
from helpers.report.sentences import gaps as tell
from helpers.report.sentences.failures import describe_failure, describe_failures_overall, rank_failures
from helpers.report.sentences.places import describe_place_of_gap
from helpers.report.sentences.study import (
    describe_exclusions,
    describe_no_statistics,
    describe_people,
    describe_prompts,
    describe_scores_alone,
)
from helpers.vocabulary.measures import find_measure, list_scores
from helpers.vocabulary.verdicts import read_verdict
from helpers.vocabulary.words import count, list_words, name_organ, start_sentence

_PLACE = ("answers", "In short", "In short")
# What is told in full; the rest is in the picture and in the table of every comparison.
_MOST_FINDINGS = 4
_MOST_EXPLAINED = 12
_MOST_FAILING = 3


def compose_answers(outputs: Outputs) -> ReportSection:
    """Compose the first page: the answers in words, and one picture."""
    return ReportSection(*_PLACE, (*_warn(outputs), *_answer(outputs)))


def _warn(outputs: Outputs) -> list[Block]:
    warnings = [*outputs.problems]
    if outputs.is_phantoms:
        warnings.insert(
            0,
            "This is a study of phantoms: computer-drawn bodies, not people. Its numbers show what the report can "
            "tell; they say nothing about any model in the clinic.",
        )
    stages = outputs.run.get("stages") or {}
    broken = [name for name, record in stages.items() if isinstance(record, dict) and record.get("status") == "failed"]
    if broken:
        warnings.append(
            f"{list_words(broken)} stopped with an error: what it should have written may be missing or from an "
            "earlier run."
        )
    warnings += [f"{text}." for text in outputs.model_facts.get("overlap", ()) if text]
    return [Note(text, "warning") for text in warnings]


def _answer(outputs: Outputs) -> list[Block]:
    if outputs.cohort is None:
        return [Note("The cohort has not been read (01_cohort has not been run): there is nothing to report yet.")]
    if outputs.included.empty:
        return [Note(describe_exclusions(len(outputs.cohort), len(outputs.cohort)), "warning")]
    blocks, metrics = _tell_who(outputs), outputs.metrics
    if metrics is None:
        return [*blocks, Note("How well the models do has not been measured (03_performance has not been run).")]
    if metrics[[name for name in list_scores() if name in metrics]].isna().all(axis=None):
        nothing = "Nothing could be measured: no model has a mask that could be compared with the expert's."
        return [*blocks, Note(nothing, "warning"), *tell_failures(outputs)]
    if not outputs.is_compared:
        large = [len(count_groups(outputs, name)) - len(outputs.small.get(name, ())) for name in outputs.attributes]
        smallest = outputs.parameters.fairness.min_group
        told = describe_no_statistics(len(outputs.included), smallest, groups=max(large, default=0))
        return [*blocks, Note(told, "warning"), *_warn_of_ranking(outputs), tabulate_overall(outputs)]
    return [*blocks, *_tell_answers(outputs)]


def _tell_who(outputs: Outputs) -> list[Block]:
    included = outputs.included
    people, scans = included["person"].nunique(), len(included)
    annotators = [model.name for model in outputs.parameters.models if model.annotator]
    whom = describe_people(
        people,
        scans,
        outputs.models,
        phantoms=outputs.is_phantoms,
        annotators=annotators,
        masks=outputs.has_masks,
    )
    prompts = describe_prompts(outputs.prompts, outputs.ready_made)
    blocks: list[Block] = [Text(whom, lead="Which models, whose scans?"), Bullets(tuple(tell_groups(outputs)))]
    return [*blocks, Text(prompts)] if prompts else blocks


def _tell_answers(outputs: Outputs) -> list[Block]:
    fairness, rows, found = outputs.parameters.fairness, outputs.comparisons, outputs.found
    names, alpha = outputs.models, fairness.alpha
    parts = {name: rows[rows["model"] == name] for name in names}
    blocks: list[Block] = [Heading("For whom does it work worse, and by how much?")]
    said = (
        tell.describe_all_models(outputs.of_all_models, alpha, levels=outputs.levels),
        tell.describe_many_models(parts, alpha) if len(names) > MANY_MODELS else "",
        tell.describe_ranking(outputs.ranking, outputs.main_metric),
        describe_answerable(rows),
    )
    blocks += _warn_of_ranking(outputs)
    if len(names) <= MANY_MODELS:
        told = {name: tell.describe_model(name, parts[name], alpha=alpha, levels=outputs.levels) for name in names}
        blocks += _arrange(told, outputs.blocks) if told else []
        if len(set(outputs.blocks.values())) > 1:
            blocks.append(Text("", lead="All models together."))
    # Of many models these sentences and the picture are the answer, with a table per model in it.
    blocks.append(Bullets(tuple(filter(None, said))))
    disparity = outputs.disparity if outputs.disparity is not None else pd.DataFrame()
    others = (
        tell.describe_other_measures(disparity, outputs.main_metric, fairness.alpha),
        tell.describe_opposites(disparity, fairness.alpha) if len(disparity) else "",
    )
    blocks += [Text(said) for said in others if said]
    blocks.append(
        draw_verdicts(
            pd.concat([outputs.of_all_models, rows]),
            outputs.main_metric,
            alpha=fairness.alpha,
            organs=outputs.organs,
            attributes=outputs.attributes,
            blocks=outputs.blocks,
            fails=find_fails(outputs.failures, outputs.main_metric, alpha),
        )
    )
    blocks += _tell_failing(outputs)
    if found:
        which = "The differences shown" if len(found) <= _MOST_FINDINGS else "The gravest differences"
        blocks += [Heading(f"{which}, one by one"), *_tell_findings(outputs, found[:_MOST_FINDINGS])]
        blocks += [Heading("What could explain them?"), _tabulate_explanations(outputs, found[:_MOST_EXPLAINED])]
        if len(found) > _MOST_EXPLAINED:
            blocks.append(Text(f"{len(found) - _MOST_EXPLAINED} more are in the table of every comparison."))
    certain = tell.describe_certainty(
        disparity, alpha=fairness.alpha, correction=fairness.correction, family=fairness.family
    )
    blocks.append(Text(certain, lead="How certain is that?"))
    power = tell.describe_power(rows, fairness.power)
    if power:
        blocks.append(Text(power))
    return [*blocks, Heading("What cannot be concluded?"), Bullets(tuple(_tell_unknowns(outputs, rows)))]


def _tell_failing(outputs: Outputs) -> list[Block]:
    """Say in which groups models fail more often: means say little of it."""
    alpha = outputs.parameters.fairness.alpha
    overall = describe_failures_overall(outputs.failing, alpha)
    if not overall:
        return []
    shown = rank_failures(outputs.failing, alpha)
    said = [describe_failure(row, alpha) for row in shown[:_MOST_FAILING]]
    if len(shown) > _MOST_FAILING:
        said.append(f"{count(len(shown) - _MOST_FAILING, 'more comparison')}: see “Performance”.")
    return [Heading("On whom does it fail?"), Text(overall), *([Bullets(tuple(said))] if said else [])]


def _warn_of_ranking(outputs: Outputs) -> list[Block]:
    """Say why prompted and automatic models must not be ranked, where there are both."""
    return [Note(NO_RANKING)] if {BLOCKS[PROMPTED], BLOCKS[AUTOMATIC]} <= set(outputs.blocks.values()) else []


def _arrange(told: Mapping[str, str], blocks: Mapping[str, str]) -> list[Block]:
    """Return what is told of each model, apart where some were prompted and others were not."""
    by_block: dict[str, list[str]] = {}
    for name, sentence in told.items():
        by_block.setdefault(blocks.get(name, ""), []).append(sentence)
    if len(by_block) == 1:
        return [Bullets(tuple(told.values()))]
    arranged: list[Block] = []
    for block, sentences in by_block.items():
        arranged += [Text("", lead=f"{block}."), Bullets(tuple(sentences))]
    return arranged


def _tell_unknowns(outputs: Outputs, rows: pd.DataFrame) -> list[str]:
    said = [
        "That nobody is served worse: a difference that was not shown may still be there.",
        *tell_uneven_missing(outputs, most=3),
        *tell.describe_unknowns(rows, outputs.parameters.fairness.alpha),
        "Why a group does worse. Gaps can be adjusted for "
        f"{'organ size and for ' * outputs.knows_size}what was recorded, as above; not for what was not recorded.",
    ]
    if not outputs.has_masks:
        said.append(describe_scores_alone(size=outputs.knows_size, millimetres=outputs.knows_distance))
    if outputs.prompts:
        said.append("How the models would do with a clinician's own prompts: worse than here, by an unknown amount.")
    small = [f"“{group}”" for groups in outputs.small.values() for group in sorted(groups)]
    if small:
        least = outputs.parameters.fairness.min_group
        said.append(f"How the models serve {list_words(small)}: each has fewer than {least} people.")
    if outputs.is_phantoms:
        said.append("Anything about real people or real models.")
    return said


def _tell_findings(outputs: Outputs, found: list[tell.Row]) -> list[Block]:
    alpha, metric, places = outputs.parameters.fairness.alpha, outputs.main_metric, locate_differences(outputs)
    blocks: list[Block] = []
    for row in found:
        place = tell.find_place(row)
        levels = outputs.levels.get(place, {})
        amount = tell.describe_amount(row, alpha=alpha, levels=levels.get(metric))
        match = outputs.find_match(row)
        matched = tell.describe_match(match, float(row["gap"])) if match is not None else ""
        where_row, where = places.get(place, (None, ""))
        key = _name_comparison(row)
        adjusted = tell.describe_adjustment(
            row, outputs.covariates.get(key, []), outputs.mediators.get(key, []), **outputs.find_adjusted_note(row)
        )
        answers = (
            ("By how much?", start_sentence(amount)),
            ("In mm and ml", tell.describe_plain_units(row, levels)),
            ("Who is not in these means?", tell.describe_incomplete(outputs.incomplete.get(place, {}))),
            ("Where in the organ?", describe_place_of_gap(place[1], where_row, where) if outputs.has_masks else ""),
            ("Is it organ size?", tell.describe_size_share(row) if metric == "dice" else ""),
            ("Is it something else recorded?", f"{adjusted} {matched}".strip()),
        )
        told = f"worse for “{row['worst_group']}” than for “{row['best_group']}”"
        if tell.leaves_worst_open(row, alpha):
            told = "some groups differ; which is worst on average is uncertain"
        headline = f"{row['model']}, {tell.name_comparison(row)}: {told}"
        told_answers = tuple(pair for pair in answers if pair[1])
        blocks.append(ReportFinding(headline, read_verdict(row, alpha), told_answers, picture_people(outputs, row)))
    return blocks


def _name_comparison(row: tell.Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("model", "organ", "metric", "attribute"))


def _tabulate_explanations(outputs: Outputs, found: list[tell.Row]) -> ReportTable:
    """Return the gaps side by side: as found, from size alone, the rest, adjusted, matched."""
    metric, alpha = outputs.main_metric, outputs.parameters.fairness.alpha
    rows = []
    for row in found:
        open_ = " (uncertain)" if tell.leaves_worst_open(row, alpha) else ""
        rows.append(
            {
                "Model": row["model"],
                "Organ": name_organ(row["organ"]),
                "Worse group": f"“{row['worst_group']}”{open_}",
                "than": f"“{row['best_group']}”",
                **tabulate_gap(row, metric),
                "Adjusted for": list_words(outputs.covariates.get(_name_comparison(row), [])) or "nothing",
                "Matched pairs": format_gap(outputs.find_match(row) or {}, "", metric),
            }
        )
    measure, columns = find_measure(metric), (*GAP_COLUMNS, "Matched pairs")
    return ReportTable(
        f"The same gaps in {measure.name} ({measure.scale}), by what is allowed for, with 95 % intervals; a gap that "
        "stays is not explained by it",
        drop_empty(rows, columns),
        numeric=columns,
    )
