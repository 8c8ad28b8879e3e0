"""The words and measures, each with a drawing where one helps."""

from __future__ import annotations

from pathlib import Path

from helpers.report.blocks import ReportSection, Term, Terms
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import tell_tolerance
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict

_PLACE = ("glossary", "Words and measures", "Glossary")
# Solid lines are the expert's, dashed ones the model's; no text comes from data.
_DRAWINGS = Path(__file__).parents[1] / "templates" / "drawings"
_OF_SIZE = "Expected gap and excess gap"
_WORDS = {
    "Group mean": "The mean over people, not over scans: several scans of one person are averaged first.",
    "Gap": "The difference between the group that does best and the group that does worst on average, by one "
    "attribute.",
    _OF_SIZE: "The gap in Dice that would appear if everyone had the same boundary error is the "
    "part due to organ size (expected gap, “size alone”). The rest is the excess gap: what organ size does not "
    "explain.",
    "Adjusted gap": "The gap between the same two groups, adjusted by a linear model for what comes before the "
    "attribute: recorded confounders, and attributes listed before it. What was not recorded is not adjusted for.",
    "Direct gap": "The same, adjusted as well for what may be how the attribute acts (a mediator: a diagnosis that "
    "comes with age, organ size): what remains of the gap by other pathways.",
    "Matched pairs": "A second way to compare like with like: people of the two groups are paired one by one by age, "
    "BMI and so on, and only pairs are compared.",
    "95 % confidence interval": "The range of gaps that the data are compatible with, from drawing people again and "
    "again "
    "(bootstrap). Its far end is a gap that cannot be ruled out.",
    "Adjusted p": "How easily chance alone would give such a difference, adjusted for the number of tests made.",
}
_DRAWN = {
    "Gap": "gap", _OF_SIZE: "excess_gap", "Adjusted gap": "adjusted_gap",
    "95 % confidence interval": "interval", "Verdicts and margin": "verdicts",
}  # fmt: skip


def compose_glossary(outputs: Outputs) -> ReportSection:
    """Compose the words and measures: of the measures, those of the study and the volume error."""
    fairness, tolerance = outputs.parameters.fairness, tell_tolerance(outputs)
    sized = outputs.has_masks or outputs.knows_size
    told = (
        ["volume_error_ml"]
        if outputs.has_masks or (outputs.metrics is not None and "volume_error_ml" in outputs.metrics)
        else []
    )
    measures = {
        f"{measure.long_name}{f' ({measure.unit})' if measure.unit else ''}": measure
        for measure in map(find_measure, dict.fromkeys((*fairness.metrics, *told)))
    }
    words = {name: meaning for name, meaning in _WORDS.items() if sized or name != _OF_SIZE}
    verdicts = " ".join(f"{verdict.sign} {verdict.word}: {verdict.meaning}." for verdict in Verdict)
    entries = {
        **{name: measure.meaning.format(tolerance=tolerance) for name, measure in measures.items()},
        **words,
        "Verdicts and margin": "The margin is the largest difference considered unimportant, set before looking. "
        f"{verdicts} Equivalence is tested by two one-sided tests at 5 %, which is a 90 % interval inside the margin, "
        "so the 95 % confidence interval may reach a little beyond it.",
        "Minimum detectable difference": "The true difference that a study of these people would find in "
        f"{100 * fairness.power:.0f} of 100 repetitions, in a single test. Smaller ones are easily missed.",
    }
    drawn = _DRAWN | {name: measure.key for name, measure in measures.items()}
    terms = tuple(Term(name, meaning, _read_drawing(drawn.get(name, ""))) for name, meaning in entries.items())
    return ReportSection(*_PLACE, (Terms(terms),))


def _read_drawing(key: str) -> str:
    path = _DRAWINGS / f"{key}.svg"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
