"""What the report cannot tell."""

from __future__ import annotations

from helpers.report.blocks import Bullets, ReportSection, Text
from helpers.report.calibration import describe_calibration
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import count_exclusions
from helpers.report.sentences.gaps import describe_unknowns
from helpers.report.sentences.study import (
    describe_confounders,
    describe_exclusions,
    describe_no_statistics,
    describe_prompts,
    describe_scores_alone,
    describe_total_failures,
)
from helpers.vocabulary.words import list_words, name_for_people, name_group

_PLACE = ("limits", "What this report cannot tell you", "Limits")
# Below this Dice an organ was missed almost completely.
FAILED_DICE = 0.1


def compose_limits(outputs: Outputs) -> ReportSection:
    """Compose what the report cannot tell."""
    parameters, adjusted, scans = outputs.parameters, outputs.adjusted_for, len(outputs.included)
    missed = [name for key in parameters.cohort.confounders if (name := name_for_people(key)) not in adjusted]
    places = outputs.maps is not None and not outputs.maps.empty
    items = []
    if scans and not outputs.is_compared:
        items.append(describe_no_statistics(scans, parameters.fairness.min_group))
    if outputs.is_phantoms:
        items.append("The scans are computer-drawn phantoms: nothing here holds for people.")
    items += [
        "No difference found is not proof that there is none: the interval says how large a gap may be hidden.",
        *describe_unknowns(outputs.comparisons, parameters.fairness.alpha),
        describe_confounders(adjusted, missed),
        describe_prompts(outputs.prompts, outputs.ready_made),
        "" if outputs.has_masks else describe_scores_alone(size=outputs.knows_size, millimetres=outputs.knows_distance),
        "The expert's mask is taken for the truth. If it is less careful for one group, that shows as the model's gap.",
        f"Groups of fewer than {parameters.fairness.min_group} people{_name_small(outputs)} are not compared: whether "
        "the models fail them is not known. Their results are not given; where one group alone is small, its number of "
        "people follows from the others'.",
        _tell_hidden_means(outputs),
        "The results hold for people like those studied, scanned as they were.",
    ]
    if outputs.metrics is not None and "dice" in outputs.metrics:
        dice = outputs.metrics["dice"].dropna()
        items.append(describe_total_failures(int((dice < FAILED_DICE).sum()), len(dice), below=FAILED_DICE))
    if places:
        items.append("A place on the common organ shape is as exact as its alignment: read regions, not single points.")
    if outputs.cohort is not None:
        total, excluded = count_exclusions(outputs)
        differ = " If they differ from the rest, so may the results." if excluded else ""
        items.append(f"{describe_exclusions(total, excluded)}{differ}")
    tried = Text(describe_calibration(places=places), lead="How well does the audit do?")
    return ReportSection(*_PLACE, (Bullets(tuple(item for item in items if item)), tried))


def _name_small(outputs: Outputs) -> str:
    """Return the groups that are too small to be compared, in brackets; empty where none is."""
    small = [name_group(name, group) for name, groups in outputs.small.items() for group in sorted(groups)]
    return f" ({list_words(small)})" if small else ""


def _tell_hidden_means(outputs: Outputs) -> str:
    """Return which attributes' means are not shown, and why; empty where all are."""
    names = list_words([name_for_people(name) for name in sorted(outputs.told_apart)])
    why = "together with those by other attributes, they would tell a small group's"
    return f"Means by {names} are not shown: {why}." if names else ""
