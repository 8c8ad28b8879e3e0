"""What the report cannot tell."""

from __future__ import annotations

from helpers.figures.style import name_for_people
from helpers.report import sentences
from helpers.report.blocks import Bullets, Section, Text
from helpers.report.calibration import describe_calibration
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import (
    is_compared,
    is_phantoms,
    list_covariates,
    list_prompts,
    make_section,
)

_PLACE = ("limits", "What this report cannot tell you", "Limits")
# Below this Dice an organ was missed all but completely.
FAILED_DICE = 0.1


def compose_limits(outputs: Outputs) -> Section:
    """Compose what the report cannot tell."""
    parameters = outputs.parameters
    held = sorted({name for names in list_covariates(outputs).values() for name in names})
    missed = [name_for_people(name) for name in parameters.cohort.confounders if name_for_people(name) not in held]
    items = [
        "No difference shown is not proof of fairness: the interval says how large a gap may be hidden.",
        sentences.describe_confounders(held, missed),
        sentences.describe_prompts(list_prompts(outputs)),
        "The expert's mask is taken for the truth. If it is less careful for one group, that shows as the model's gap.",
        f"Groups of fewer than {parameters.fairness.min_group} people are not compared: whether the models fail them is not known. Their results are not "
        "given; where one group alone is small, its number of people follows from the others'.",
        "The results hold for people like those studied, scanned as they were.",
    ]
    if outputs.metrics is not None and "dice" in outputs.metrics:
        dice = outputs.metrics["dice"].dropna()
        items.append(sentences.describe_total_failures(int((dice < FAILED_DICE).sum()), len(dice), below=FAILED_DICE))
    places = outputs.maps is not None and not outputs.maps.empty
    if places:
        items.append("A place on the common organ shape is as exact as its alignment: read regions, not single points.")
    if is_phantoms(outputs):
        items.insert(0, "The scans are computer-drawn phantoms: nothing here holds for people.")
    if outputs.cohort is not None:
        total, excluded = len(outputs.cohort), int((~outputs.cohort["included"].astype(bool)).sum())
        items.append(
            sentences.describe_exclusions(total, excluded)
            + (" If they differ from the rest, so may the results." if excluded else "")
        )
    scans = len(outputs.included)
    if scans and not is_compared(outputs):
        items.insert(0, sentences.describe_no_statistics(scans, parameters.fairness.min_group))
    return make_section(
        _PLACE,
        [
            Bullets(tuple(item for item in items if item)),
            Text(describe_calibration(places=places), lead="How well does the audit do?"),
        ],
    )
