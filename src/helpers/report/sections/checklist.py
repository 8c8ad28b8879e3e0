"""Items of reporting checklists, filled in where the study's files know the answer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from helpers import __version__
from helpers.figures.style import METRIC_LABELS
from helpers.report import sentences
from helpers.report.blocks import Block, Section, Table, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import (
    count_groups,
    count_missing,
    is_compared,
    is_phantoms,
    label_attribute,
    list_covariates,
    list_prompts,
    make_section,
)

NOT_RECORDED = "not recorded"
_PLACE = ("checklist", "For the reporting checklists", "Checklists")


def compose_checklist(outputs: Outputs) -> Section:
    """Compose the checklists' items, filled in where the files know the answer and "not recorded" where they do not."""
    rows = [*_answer_claim(outputs), *_answer_tripod(outputs)]
    checklists = pd.DataFrame(rows, columns=["Checklist", "Item", "Answer"])
    choices = pd.DataFrame(_answer_metrics_reloaded(outputs), columns=["Question", "Choice in this study"])
    open_items = int((checklists["Answer"] == NOT_RECORDED).sum())
    blocks: list[Block] = [
        Text(
            "Items on data, reference, groups and uncertainty, in our own short words; the numbers are those of the checklists. The official lists have more items and "
            f"are what a journal asks for. {sentences.count(open_items, 'item')[0].upper()}{sentences.count(open_items, 'item')[1:]} marked “{NOT_RECORDED}” "
            "cannot be known from the study's files: answer them yourself."
        ),
        Table("CLAIM 2024 and TRIPOD+AI: the items this audit touches", checklists),
        Table("Metrics Reloaded: choices of metrics for segmentation", choices),
        Text(
            "CLAIM: Tejani AS, Klontzas ME, Gatti AA, et al. Radiol Artif Intell 2024;6(4):e240300. TRIPOD+AI: Collins GS, Moons KGM, Dhiman P, et al. BMJ "
            "2024;385:e078378. Metrics Reloaded: Maier-Hein L, Reinke A, Godau P, et al. Nat Methods 2024;21:195–212.",
            lead="Where the lists are",
        ),
    ]
    return make_section(_PLACE, blocks)


def _answer_claim(outputs: Outputs) -> list[tuple[str, str, str]]:
    parameters = outputs.parameters
    answers = (
        ("7 Data sources", "computer-drawn phantoms" if is_phantoms(outputs) else NOT_RECORDED),
        ("8 Inclusion and exclusion criteria", _tell_criteria(outputs)),
        ("9 Preprocessing", _tell_preprocessing(outputs)),
        ("11 De-identification", "this report holds study-local numbers only; how the images were de-identified is not recorded"),
        ("12 Missing data", _tell_missing(outputs)),
        ("13 Image acquisition protocol", _tell_acquisition(outputs)),
        ("14–16 Reference standard: definition, rationale, annotators", "drawn together with the phantoms: the truth is known" if is_phantoms(outputs) else NOT_RECORDED),
        ("18 Variability between annotators", NOT_RECORDED),
        ("20 Level at which partitions are disjoint", "no model was trained here; whether these people were among a model's training data is not recorded"),
        ("21 Intended sample size", f"the detectable difference (power {parameters.fairness.power:g}) stands beside every comparison; a calculation beforehand is not recorded"),
        ("22 Models", sentences.list_words(f"{model.name} ({model.kind})" for model in parameters.models)),
        ("23 Software", _tell_software(outputs)),
        ("28 Metrics of performance", sentences.list_words(METRIC_LABELS[name].partition(" (")[0] for name in parameters.fairness.metrics)),
        ("29 Significance and uncertainty", f"95 % bootstrap intervals over people, {sentences.CORRECTIONS[parameters.fairness.correction]} over all tests, margins and equivalence tests: see Methods"),
        ("30 Robustness or sensitivity", _tell_sensitivity(outputs)),
        ("35 Numbers included and excluded", _tell_flow(outputs)),
        ("36 Demographic characteristics", _refer(outputs.cohort is not None, "“Who was studied” in this report")),
        ("37 Performance with uncertainty", _refer(is_compared(outputs), "“Performance” in this report, overall and by group")),
        ("39 Failure analysis", _refer(outputs.inference is not None, "“Left out” in this report: failures by reason, empty masks counted")),
        ("40 Limitations", "“Limits” in this report"),
        ("43 Availability of software, models, data", f"segfair {__version__} is open source (Apache-2.0); models and data: not recorded"),
    )  # fmt: skip
    return [("CLAIM 2024", item, answer) for item, answer in answers]


def _answer_tripod(outputs: Outputs) -> list[tuple[str, str, str]]:
    held = sorted({name for names in list_covariates(outputs).values() for name in names})
    allowed = (
        f"size-free error and excess gaps; gaps with {sentences.list_words(held)} held equal"
        if held
        else "size-free error and excess gaps"
    )
    answers = (
        ("3c Known health inequalities between groups", NOT_RECORDED),
        ("5a Sources and representativeness of the data", NOT_RECORDED),
        ("7 Data preparation, and whether alike across groups", f"{_tell_preprocessing(outputs)}; the same for every group"),
        ("8a Whether the outcome is assessed alike across groups", "the expert's mask is taken for the truth in every group; whether it is drawn with equal care is not recorded"),
        ("8b Qualifications and demographics of the assessors", NOT_RECORDED),
        ("10 Sample size", f"groups of at least {outputs.parameters.fairness.min_group} people; detectable differences are given, a calculation beforehand is not recorded"),
        ("11 Missing data", _tell_missing(outputs)),
        ("14 Approaches to fairness and their rationale", f"comparison of groups against margins set beforehand; {allowed}"),
        ("20b Characteristics, with differences across groups", _refer(outputs.cohort is not None, "“Who was studied” in this report")),
        ("23a Performance with intervals, by group", _refer(is_compared(outputs), "“Performance” in this report")),
        ("23b Heterogeneity across clusters", NOT_RECORDED),
        ("25 Interpretation, with issues of fairness", "“In short” in this report states what was and what was not shown; the interpretation is yours"),
        ("26 Limitations", "“Limits” in this report"),
    )  # fmt: skip
    return [("TRIPOD+AI", item, answer) for item, answer in answers]


def _answer_metrics_reloaded(outputs: Outputs) -> list[tuple[str, str]]:
    metrics, fairness = outputs.parameters.metrics, outputs.parameters.fairness
    overlap = [name for name in ("dice", "iou") if name in fairness.metrics]
    boundary = [name for name in ("nsd", "hd95_mm", "assd_mm", "boundary_error_mm") if name in fairness.metrics]
    return [
        ("Overlap", _name_metrics(overlap)),
        ("Boundary", _name_metrics(boundary)),
        (
            "Tolerance of the surface Dice",
            f"{metrics.tolerance_mm:g} mm"
            + "".join(
                f", {value:g} mm for {sentences.name_organ(organ)}" for organ, value in metrics.tolerances_mm.items()
            )
            + "; whether that is the variability between experts is not recorded",
        ),
        ("Organs of different size", "Dice beside the size-free boundary error; expected and excess gaps"),
        ("Empty masks", "stated once and counted: see “Left out”"),
        (
            "Failed scans",
            "left out of the averages, never counted as zero; a missed organ counts as Dice 0 and has no distance",
        ),
        ("Aggregation", "scans of a person first, then people; organs apart, and pooled with equal weight"),
        ("Spread and uncertainty", "medians with quartiles, bootstrap intervals over people"),
        ("Volume", "reported in ml as absolute error" if outputs.metrics is not None else NOT_RECORDED),
        ("How the tolerance and margins were chosen", NOT_RECORDED),
    ]


def _name_metrics(names: Sequence[str]) -> str:
    return sentences.list_words(METRIC_LABELS[name].partition(" (")[0] for name in names) or "none"


def _refer(known: bool, where: str) -> str:
    return where if known else NOT_RECORDED


def _tell_criteria(outputs: Outputs) -> str:
    plausible = outputs.parameters.cohort.exclusions.plausible
    ranges = sentences.list_words(
        f"{label_attribute(outputs, name)} {low:g} to {high:g}" for name, (low, high) in plausible
    )
    checks = "files readable, mask and image on one grid, labels known"
    return f"{checks}{f'; plausible {ranges}' if ranges else ''}; how people came into the table is not recorded"


def _tell_preprocessing(outputs: Outputs) -> str:
    if all(model.kind == "precomputed" for model in outputs.parameters.models):
        return "none here: the masks were made elsewhere"
    windows = sentences.list_words(
        f"{name} {centre:g}/{width:g} HU" for name, (centre, width) in outputs.parameters.windows.ct.items()
    )
    low, high = outputs.parameters.windows.mr_percentiles
    return f"CT windows (centre/width) {windows}; MR scaled from percentile {low:g} to {high:g}"


def _tell_missing(outputs: Outputs) -> str:
    if outputs.cohort is None:
        return NOT_RECORDED
    smallest = outputs.parameters.fairness.min_group
    told = []
    for name in outputs.attributes:
        missing = count_missing(outputs, name)
        if missing:
            told.append(
                f"{label_attribute(outputs, name)} for {missing if missing >= smallest else f'fewer than {smallest}'}"
            )
    return (
        f"not recorded: {sentences.list_words(told)}; these people leave only the comparisons that need it, nothing is imputed"
        if told
        else "no attribute is missing for anybody; nothing is imputed"
    )


def _tell_acquisition(outputs: Outputs) -> str:
    included = outputs.included
    if included.empty or "modality" not in included:
        return NOT_RECORDED
    kinds = sentences.list_words(included["modality"].astype(str).unique())
    return f"{kinds} scans; scanners and protocols: not recorded"


def _tell_software(outputs: Outputs) -> str:
    return (
        f"segfair {__version__}; packages and their versions under “Methods”"
        if outputs.run.get("packages")
        else f"segfair {__version__}"
    )


def _tell_sensitivity(outputs: Outputs) -> str:
    drawn = {name: prompt.draws for name, prompt in list_prompts(outputs).items() if prompt is not None}
    repeated = [name for name, draws in drawn.items() if draws > 1]
    if repeated:
        return (
            f"prompts drawn repeatedly for {sentences.list_words(repeated)}; several metrics; adjusted and matched gaps"
        )
    return "several metrics; adjusted and matched gaps; prompts were drawn once"


def _tell_flow(outputs: Outputs) -> str:
    if outputs.cohort is None:
        return NOT_RECORDED
    total, excluded = len(outputs.cohort), int((~outputs.cohort["included"].astype(bool)).sum())
    groups = sum(len(count_groups(outputs, name)) for name in outputs.attributes)
    return f"{total} scans, {excluded} left out by reason (“Left out”), {total - excluded} studied in {sentences.count(groups, 'group')}"
