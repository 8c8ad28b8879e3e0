"""Items of reporting checklists, filled in where the study's files know the answer."""

from __future__ import annotations

import pandas as pd

from helpers import __version__
from helpers.models import KINDS
from helpers.report.blocks import ReportSection, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import (
    count_exclusions,
    count_groups,
    count_missing,
    label_attribute,
    tell_tolerance,
)
from helpers.report.sentences.study import tell_count
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import CORRECTIONS, FAMILIES, count, list_words, name_for_people, start_sentence

NOT_RECORDED = "not recorded"
_PLACE = ("checklist", "For the reporting checklists", "Checklists")
_WHO, _PERFORMANCE = "“Who was studied” in this report", "“Performance” in this report"
_LIMITS = "“Limits” in this report"


def compose_checklist(outputs: Outputs) -> ReportSection:
    """Compose the checklists' items, filled in where the files know the answer."""
    answers = {
        "CLAIM 2024": _answer_claim(outputs),
        "TRIPOD+AI": _answer_tripod(outputs),
        "FUTURE-AI": _answer_future_ai(outputs),
        "STANDING Together": _answer_standing(outputs),
    }
    rows = [(name, item, answer) for name, items in answers.items() for item, answer in items.items()]
    checklists = pd.DataFrame(rows, columns=["Checklist", "Item", "Answer"])
    choices = pd.DataFrame(_answer_metrics_reloaded(outputs).items(), columns=["Question", "Choice in this study"])
    open_items = start_sentence(count(int((checklists["Answer"] == NOT_RECORDED).sum()), "item"))
    return ReportSection(
        *_PLACE,
        (
            Text(
                "Items on data, reference, groups and uncertainty, in our own short words; the numbers are those of "
                "the checklists. The official lists have more items and are what a journal asks for. "
                f"{open_items} marked “{NOT_RECORDED}” cannot be known from the study's files: answer them yourself."
            ),
            ReportTable(
                "CLAIM 2024, TRIPOD+AI, FUTURE-AI and STANDING Together: the items this audit touches", checklists
            ),
            ReportTable("Metrics Reloaded: choices of metrics for segmentation", choices),
            Text(
                "CLAIM: Tejani AS, Klontzas ME, Gatti AA, et al. Radiol Artif Intell 2024;6(4):e240300. TRIPOD+AI: "
                "Collins GS, Moons KGM, Dhiman P, et al. BMJ 2024;385:e078378. Metrics Reloaded: Maier-Hein L, Reinke "
                "A, Godau P, et al. Nat Methods 2024;21:195–212. FUTURE-AI: Lekadir K, Frangi AF, Porras AR, et al. "
                "BMJ 2025;388:e081554. STANDING Together: Alderman JE, Palmer J, Laws E, et al. Lancet Digit Health "
                "2025;7:e64–e88.",
                lead="Where the lists are",
            ),
        ),
    )


def _answer_claim(outputs: Outputs) -> dict[str, str]:
    parameters, fairness = outputs.parameters, outputs.parameters.fairness
    drawn, packages = outputs.is_phantoms, "; packages and their versions under “Methods”"
    truth, failures = "drawn together with the phantoms: the truth is known", "failures by reason, empty masks counted"
    return {
        "7 Data sources": "computer-drawn phantoms" if drawn else NOT_RECORDED,
        "8 Inclusion and exclusion criteria": _tell_criteria(outputs),
        "9 Preprocessing": _tell_preprocessing(outputs),
        "11 De-identification": "this report holds study-local numbers only; how the images were de-identified is not "
        "recorded",
        "12 Missing data": _tell_missing(outputs),
        "13 Image acquisition protocol": _tell_acquisition(outputs),
        "14–16 Reference standard: definition, rationale, annotators": truth if drawn else NOT_RECORDED,
        "18 Variability between annotators": NOT_RECORDED,
        "20 Level at which partitions are disjoint": _tell_training(outputs),
        "21 Intended sample size": f"the minimum detectable difference (power {fairness.power:g}) stands beside every "
        "comparison; a calculation beforehand is not recorded",
        "22 Models": list_words(
            [f"{model.name} ({model.kind})" for model in parameters.models] or outputs.models,
        ),
        "23 Software": f"segfair {__version__}{packages if outputs.run.get('packages') else ''}",
        "28 Metrics of performance": list_words(find_measure(name).long_name for name in fairness.metrics)
        + f"; primary: {find_measure(fairness.primary).long_name}",
        "29 Significance and uncertainty": f"95 % bootstrap intervals over people, {CORRECTIONS[fairness.correction]} "
        f"together for {FAMILIES[fairness.family]}, margins and equivalence tests: see Methods",
        "30 Robustness or sensitivity": _tell_sensitivity(outputs),
        "35 Numbers included and excluded": _tell_flow(outputs),
        "36 Demographic characteristics": _refer(outputs.cohort is not None, _WHO),
        "37 Performance with uncertainty": _refer(outputs.is_compared, f"{_PERFORMANCE}, overall and by group"),
        "39 Failure analysis": _refer(
            outputs.inference is not None or not outputs.has_masks, f"“Left out” in this report: {failures}"
        ),
        "40 Limitations": _LIMITS,
        "43 Availability of software, models, data": f"segfair {__version__} is open source (Apache-2.0); models and "
        "data: not recorded",
    }


def _tell_training(outputs: Outputs) -> str:
    known = "; ".join(text for text in outputs.model_facts["overlap"] if text)
    return f"no model was trained here; {known or 'whether a model was trained on these people is not recorded'}"


def _answer_tripod(outputs: Outputs) -> dict[str, str]:
    adjusted = outputs.adjusted_for
    gaps = f"; gaps adjusted for {list_words(adjusted)}" if adjusted else ""
    least = outputs.parameters.fairness.min_group
    return {
        "3c Known health inequalities between groups": NOT_RECORDED,
        "5a Sources and representativeness of the data": NOT_RECORDED,
        "7 Data preparation, and whether alike across groups": f"{_tell_preprocessing(outputs)}; the same for every "
        "group",
        "8a Whether the outcome is assessed alike across groups": "the expert's mask is taken for the truth in every "
        "group; whether it is drawn with equal care is not recorded",
        "8b Qualifications and demographics of the assessors": NOT_RECORDED,
        "10 Sample size": f"groups of at least {least} people; minimum detectable differences are given, a calculation "
        "beforehand is not recorded",
        "11 Missing data": _tell_missing(outputs),
        "14 Approaches to fairness and their rationale": "comparison of groups against margins set beforehand; "
        f"size-free error and excess gaps{gaps}",
        "20b Characteristics, with differences across groups": _refer(outputs.cohort is not None, _WHO),
        "23a Performance with intervals, by group": _refer(outputs.is_compared, _PERFORMANCE),
        "23b Heterogeneity across clusters": _refer(
            outputs.site_summary is not None and not outputs.site_summary.empty, _PERFORMANCE
        ),
        "25 Interpretation, with issues of fairness": "“In short” in this report states what was and what was not "
        "shown; the interpretation is yours",
        "26 Limitations": _LIMITS,
    }


def _answer_future_ai(outputs: Outputs) -> dict[str, str]:
    """Answer the guideline's recommendations on fairness."""
    attributes = list_words(label_attribute(outputs, name) for name in outputs.attributes) or NOT_RECORDED
    confounders = list_words(map(name_for_people, outputs.parameters.cohort.confounders))
    planned = f"attributes {attributes}" + (f"; possible confounders {confounders}" if confounders else "")
    return {
        "Fairness 1 Sources of bias, defined early": f"{planned}, named before the audit; the reasons are not recorded",
        "Fairness 2 Attributes of people and data, collected": _refer(outputs.cohort is not None, _WHO),
        "Fairness 3 Bias evaluated, and corrected where needed": (
            f"evaluated: {_PERFORMANCE}; nothing was corrected here" if outputs.is_compared else NOT_RECORDED
        ),
    }


def _answer_standing(outputs: Outputs) -> dict[str, str]:
    """Answer the recommendations on the use of health datasets, in short words of our own."""
    groups = list_words(name_for_people(name) for name in outputs.attributes)
    small = any(outputs.small.values())
    return {
        "Groups of interest, chosen beforehand": f"by {groups}; why these is not recorded" if groups else NOT_RECORDED,
        "How each group is represented in the data": _refer(outputs.cohort is not None, _WHO),
        "Groups too small to be evaluated": (
            f"named under {_LIMITS}" if small else "none of the groups that were named"
        ),
        "Missing data, and whether it differs between groups": _tell_missing(outputs)
        + ("; results that a model lacks are compared by group (“Left out”)" if outputs.missing is not None else ""),
        "Performance compared across groups": _refer(outputs.is_compared, _PERFORMANCE),
        "Known biases of the dataset and its labels": NOT_RECORDED,
        "Limits of use for groups, and their mitigation": f"{_LIMITS}; mitigation is not recorded",
    }


def _answer_metrics_reloaded(outputs: Outputs) -> dict[str, str]:
    measures = [find_measure(name) for name in outputs.parameters.fairness.metrics]
    families = {
        family.capitalize(): list_words(measure.long_name for measure in measures if measure.family == family) or "none"
        for family in dict.fromkeys(("overlap", "boundary", *(measure.family for measure in measures)))
    }
    tolerance = f"{tell_tolerance(outputs)}; whether that is the variability between experts is not recorded"
    lost = "Failed scans" if outputs.has_masks else "Missing scores"
    size = "Dice beside the size-free boundary error; expected and excess gaps"
    return families | {
        "Tolerance of the surface Dice": tolerance if outputs.has_masks else NOT_RECORDED,
        "Organs of different size": _refer(outputs.has_masks or outputs.knows_size, size),
        "Empty masks": "stated once and counted: see “Left out”",
        lost: "left out of the averages, never counted as zero; a missed organ counts as Dice 0 and has no distance",
        "Aggregation": "scans of a person first, then people; organs apart, and pooled with equal weight",
        "Spread and uncertainty": "medians with quartiles, bootstrap intervals over people",
        "Volume": _refer(
            outputs.metrics is not None and "volume_error_ml" in outputs.metrics, "reported in ml as absolute error"
        ),
        "How the tolerance and margins were chosen": NOT_RECORDED,
    }


def _refer(known: bool, where: str) -> str:
    return where if known else NOT_RECORDED


def _tell_criteria(outputs: Outputs) -> str:
    plausible = outputs.parameters.cohort.exclusions.plausible
    ranges = list_words(f"{label_attribute(outputs, name)} {low:g} to {high:g}" for name, (low, high) in plausible)
    checks = "files readable, mask and image on one grid, labels known"
    if not outputs.has_masks:
        checks = "scans with a score of any model"
    return f"{checks}{f'; plausible {ranges}' if ranges else ''}; how people came into the table is not recorded"


def _tell_preprocessing(outputs: Outputs) -> str:
    kinds = [KINDS[model.kind] for model in outputs.parameters.models if model.kind in KINDS]
    if not outputs.has_masks:
        return "none here: the scores were made elsewhere"
    if not any(kind.needs_image for kind in kinds):
        return "none here: the masks were made elsewhere" if outputs.ready_made else "none here: no image was read"
    windows = outputs.parameters.windows
    ct = list_words(f"{name} {centre:g}/{width:g} HU" for name, (centre, width) in windows.ct.items())
    low, high = windows.mr_percentiles
    return f"CT windows (centre/width) {ct}; MR scaled from percentile {low:g} to {high:g}"


def _tell_missing(outputs: Outputs) -> str:
    if outputs.cohort is None:
        return NOT_RECORDED
    least = outputs.parameters.fairness.min_group
    told = [
        f"{label_attribute(outputs, name)} for {tell_count(missing, least)}"
        for name in outputs.attributes
        if (missing := count_missing(outputs, name))
    ]
    if not told:
        return "no attribute is missing for anybody; nothing is imputed"
    return f"not recorded: {list_words(told)}; these people leave only the comparisons that need it, nothing is imputed"


def _tell_acquisition(outputs: Outputs) -> str:
    included = outputs.included
    if included.empty or "modality" not in included or included["modality"].isna().all():
        return NOT_RECORDED
    kinds = list_words(included["modality"].astype(str).unique())
    return f"{kinds} scans; scanners and protocols: not recorded"


def _tell_sensitivity(outputs: Outputs) -> str:
    repeated = [name for name, prompt in outputs.prompts.items() if prompt.draws > 1]
    several = "several metrics; adjusted and matched gaps"
    if repeated:
        return f"prompts drawn repeatedly for {list_words(repeated)}; {several}"
    return f"{several}; prompts were drawn once" if outputs.prompts else several


def _tell_flow(outputs: Outputs) -> str:
    if outputs.cohort is None:
        return NOT_RECORDED
    total, excluded = count_exclusions(outputs)
    groups = count(sum(len(count_groups(outputs, name)) for name in outputs.attributes), "group")
    return f"{total} scans, {excluded} left out by reason (“Left out”), {total - excluded} studied in {groups}"
