"""The first page: the answers in words, one picture, and what was found, one by one."""

from __future__ import annotations

import pandas as pd

from helpers.figures.failure_matrix import find_failing
from helpers.figures.panels import MANY_MODELS
from helpers.figures.verdict_matrix import describe_answerable, draw_verdicts
from helpers.models.description import AUTOMATIC, BLOCKS, NO_RANKING, PROMPTED, describe_kind
from helpers.report.blocks import Block, Bullets, Heading, Note, ReportFinding, ReportSection, Summary, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.pictures import picture_people
from helpers.report.sections.questions import (
    count_groups,
    read_key,
    tabulate_overall,
    tell_failures,
    tell_groups,
    tell_medians,
    tell_uneven_missing,
)
from helpers.report.sections.spatial import locate_gap, tell_where
from helpers.report.sentences import gaps as tell
from helpers.report.sentences.failures import describe_failure, describe_failures_overall, rank_failures
from helpers.report.sentences.gaps import find_place
from helpers.report.sentences.study import (
    count_people,
    describe_exclusions,
    describe_no_statistics,
    describe_people,
)
from helpers.report.sentences.summary import summarise_found, summarise_models, summarise_people, summarise_rest
from helpers.vocabulary.measures import find_measure, list_scores
from helpers.vocabulary.verdicts import rank_rows, read_verdict, trace_pooled
from helpers.vocabulary.words import POOLED, count, list_words, name_organ, start_sentence

_PLACE = ("answers", "In short", "In short")
_NO_MODEL = "no model"  # what the phrase begins with that says what such a one is
# What is told in full; the rest is in the picture and in the table of every comparison.
_MOST_FINDINGS = 4
_MOST_BRIEF = 24
_MOST_FAILING = 3


def compose_answers(outputs: Outputs) -> ReportSection:
    """Compose the first page: the box, one picture, who was studied, and what was found."""
    return ReportSection(*_PLACE, (*_warn(outputs), *_answer(outputs)))


def _warn(outputs: Outputs) -> list[Block]:
    warnings = [*outputs.problems]
    if outputs.is_phantoms:
        warnings.insert(
            0,
            "Phantoms: computer-drawn bodies, not people. The numbers show what the report can tell; they say nothing "
            "about any model in the clinic.",
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
    who, metrics = _tell_who(outputs), outputs.metrics
    if metrics is None:
        return [*who, Note("How well the models do has not been measured (03_performance has not been run).")]
    if metrics[[name for name in list_scores() if name in metrics]].isna().all(axis=None):
        nothing = "Nothing could be measured: no model has a mask that could be compared with the expert's."
        return [*who, Note(nothing, "warning"), *tell_failures(outputs)]
    if not outputs.is_compared:
        large = [len(count_groups(outputs, name)) - len(outputs.small.get(name, ())) for name in outputs.attributes]
        smallest = outputs.parameters.fairness.min_group
        told = describe_no_statistics(len(outputs.included), smallest, groups=max(large, default=0))
        return [*who, Note(told, "warning"), *_warn_of_ranking(outputs), tabulate_overall(outputs)]
    return [*_summarise(outputs), *_tell_answers(outputs)]


def _summarise(outputs: Outputs) -> list[Block]:
    """Return the box and the picture of all verdicts."""
    rows, alpha, found = outputs.comparisons, outputs.parameters.fairness.alpha, outputs.found
    kinds, medians = _phrase_models(outputs), tell_medians(outputs)
    apart = {name for name, phrase in kinds.items() if phrase.startswith(_NO_MODEL)}
    kinds = dict(sorted(kinds.items(), key=lambda one: one[0] in apart))
    parts = {name: rows[rows["model"] == name] for name in sorted(outputs.models, key=lambda name: name in apart)}
    parts = {name: part for name, part in parts.items() if len(part)}
    disparity = outputs.disparity if outputs.disparity is not None else rows
    elsewhere = {str(row["model"]) for row in rank_rows(disparity.to_dict("records"), alpha)}
    people, many = outputs.included["person"].nunique(), len(parts) > MANY_MODELS
    whom = count_people(people, len(outputs.included), phantoms=outputs.is_phantoms)
    groups = {name: count_groups(outputs, name) for name in outputs.attributes}
    said = {
        "Who.": summarise_people(whom, groups, min_group=outputs.parameters.fairness.min_group, rows=rows),
        "Models.": summarise_models(kinds),
        "Found.": summarise_found(
            parts,
            alpha,
            levels=outputs.levels,
            places={find_place(row): where for row in found if (where := tell_where(outputs, row))},
            many=many,
            apart=apart,
        ),
        "Not found.": summarise_rest(parts, alpha, others=sorted(elsewhere)),
    }
    links = {find_place(row): _name_card(place) for place, row in enumerate(_part_findings(outputs)[0])}
    matrix = draw_verdicts(
        rows,
        outputs.main_metric,
        alpha=alpha,
        organs=outputs.organs,
        attributes=outputs.attributes,
        failing=find_failing(outputs.failures, outputs.main_metric, alpha),
        links=links,
        levels=medians,
        apart=apart,
    )
    return [Summary(tuple((lead, text) for lead, text in said.items() if text)), matrix]


def _phrase_models(outputs: Outputs) -> dict[str, str]:
    """Return what each model is, in a phrase."""
    if not outputs.has_masks:
        return dict.fromkeys(outputs.models, "known by ready-made scores alone")
    return {model.name: describe_kind(model, outputs.parameters.models) for model in outputs.parameters.models}


def _part_findings(outputs: Outputs) -> tuple[list[tell.Row], list[tell.Row]]:
    """Return the findings that are told in full, and the others: more, or all organs for one."""
    alpha, rows = outputs.parameters.fairness.alpha, outputs.comparisons.to_dict("records")
    own = [row for row in outputs.found if not trace_pooled(row, rows, alpha)]
    kept = own[:_MOST_FINDINGS]
    return kept, [row for row in outputs.found if all(row is not one for one in kept)]


def _tell_briefly(outputs: Outputs, row: tell.Row) -> str:
    alpha = outputs.parameters.fairness.alpha
    sources = trace_pooled(row, outputs.comparisons.to_dict("records"), alpha)
    follows = f" It follows from {list_words(map(name_organ, sources))}." if sources else ""
    return f"{tell.describe_briefly(row, alpha)}{follows}"


def _name_card(place: int) -> str:
    return f"finding-{place + 1}"


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
    return [Heading("Which models, whose scans?", key="who"), Text(whom), Bullets(tuple(tell_groups(outputs)))]


def _tell_answers(outputs: Outputs) -> list[Block]:
    fairness, rows, found = outputs.parameters.fairness, outputs.comparisons, outputs.found
    disparity = outputs.disparity if outputs.disparity is not None else pd.DataFrame()
    blocks: list[Block] = _warn_of_ranking(outputs)
    if found:
        which = "The differences found" if len(found) <= _MOST_FINDINGS else "The gravest differences"
        blocks.append(Heading(f"{which}, one by one", key="findings"))
        cards, rest = _part_findings(outputs)
        blocks += _tell_findings(outputs, cards)
        briefly = [_tell_briefly(outputs, row) for row in rest[:_MOST_BRIEF]]
        more = len(rest) - _MOST_BRIEF
        briefly += [f"{start_sentence(count(more, 'more'))}: see “Every comparison”."] if more > 0 else []
        blocks += [Heading("The other differences found"), Bullets(tuple(briefly))] if briefly else []
    others = tell.describe_other_measures(disparity, outputs.main_metric, fairness.alpha) if len(disparity) else []
    if others:
        name = find_measure(outputs.main_metric).name
        blocks += [Heading(f"Differences found by other measures than {name}"), Bullets(tuple(others))]
    said = (
        tell.describe_opposites(disparity, fairness.alpha) if len(disparity) else "",
        tell.describe_all_models(outputs.of_all_models, fairness.alpha),
    )
    blocks += [Text(text) for text in said if text]
    blocks += _tell_failing(outputs)
    missing = tell_uneven_missing(outputs, most=3)
    blocks += [Heading("For whom are results missing?"), Bullets(tuple(missing))] if missing else []
    certain = tell.describe_certainty(
        disparity, alpha=fairness.alpha, correction=fairness.correction, family=fairness.family
    )
    blocks.append(Text(certain, lead="How certain is that?"))
    blocks += [Text(text) for text in (tell.describe_power(rows, fairness.power), describe_answerable(rows)) if text]
    return blocks


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


def _tell_findings(outputs: Outputs, found: list[tell.Row]) -> list[Block]:
    alpha, metric = outputs.parameters.fairness.alpha, outputs.main_metric
    every = outputs.disparity if outputs.disparity is not None else outputs.comparisons
    blocks: list[Block] = []
    for number, row in enumerate(found):
        place = tell.find_place(row)
        levels = outputs.levels.get(place, {})
        amount = tell.describe_amount(row, alpha=alpha, levels=levels.get(metric))
        match = outputs.find_match(row)
        matched = tell.describe_match(match, float(row["gap"])) if match is not None else ""
        key = read_key(row)
        adjusted = tell.describe_adjustment(
            row, outputs.covariates.get(key, []), outputs.mediators.get(key, []), **outputs.find_adjusted_note(row)
        )
        answers = (
            ("By how much?", start_sentence(amount)),
            ("In mm and ml", tell.describe_plain_units(row, levels)),
            ("In other measures", tell.describe_same_place(row, every, alpha)),
            ("Who is not in these means?", tell.describe_incomplete(outputs.incomplete.get(place, {}))),
            ("Where in the organ?", locate_gap(outputs, row) if outputs.has_masks else ""),
            ("Is it organ size?", tell.describe_size_share(row) if metric == "dice" else ""),
            ("Is it something else recorded?", f"{adjusted} {matched}".strip()),
        )
        told = f"worse for {tell.name_worst(row)} than for {tell.name_best(row)}"
        if tell.leaves_worst_open(row, alpha):
            told = "some groups differ; which is worst on average is uncertain"
        links = [("How far apart the groups are", "gaps"), ("The people behind it", "people-behind")]
        links += [("Where on the organ", "spatial")] if place[1] != POOLED and outputs.has_masks else []
        blocks.append(
            ReportFinding(
                f"{row['model']}, {tell.name_comparison(row)}: {told}",
                read_verdict(row, alpha),
                tuple(pair for pair in answers if pair[1]),
                key=_name_card(number),
                links=tuple(links),
                pictures=picture_people(outputs, row),
            )
        )
    return blocks
