"""The words and measures, each with a drawing where one helps."""

from __future__ import annotations

from helpers.report import sentences
from helpers.report.blocks import Section, Term, Terms
from helpers.report.drawings import draw_all
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import make_section

_PLACE = ("glossary", "Words and measures", "Glossary")


def compose_glossary(outputs: Outputs) -> Section:
    """Compose the words and measures."""
    metrics, fairness = outputs.parameters.metrics, outputs.parameters.fairness
    special = "".join(
        f", {value:g} mm for {sentences.name_organ(organ)}" for organ, value in metrics.tolerances_mm.items()
    )
    drawings = draw_all()
    entries = (
        ("Dice", "dice", "How much two masks overlap: 1 is identical, 0 is no overlap. Dice = 2 × both ÷ (expert + model). One Dice point is 0.01. Small organs score lower under the same error."),
        ("Surface Dice (NSD)", "nsd", f"The share of the two outlines that lies within a tolerance of the other: here {metrics.tolerance_mm:g} mm{special}. 1 is best."),
        ("HD95 (mm)", "hd95", "95 % Hausdorff distance: from 95 of 100 places of the outlines the other one is no further away than this. It tells of the worst places."),
        ("ASSD (mm)", "assd", "Average symmetric surface distance: how far the outlines are apart, averaged over all their places."),
        ("Boundary error (mm)", "boundary_error", "The shift of the whole outline, in mm, that would cause the Dice seen: 2 × volume × (1 − Dice) ÷ surface. It does not depend on organ size."),
        ("Volume error (ml)", "volume_error", "The model's volume less the expert's. Where people are averaged, its size without the sign, so that too large and too small do not cancel."),
        ("Group mean", "", "The mean over people, not over scans: several scans of one person are averaged first."),
        ("Gap", "gap", "The difference between the group that does best and the group that does worst on average, by one attribute."),
        ("Expected gap and excess gap", "excess_gap", "The gap in Dice that would appear if everyone had the same boundary error is the part owed to organ size (expected gap, “size alone”). The rest is the excess gap: what organ size does not explain."),
        ("Adjusted gap", "adjusted_gap", "The gap between the same two groups with the other attributes and the recorded confounders held equal (by a linear model). What was not recorded is not allowed for."),
        ("Matched pairs", "", "A second way to compare like with like: people of the two groups are paired one by one by age, BMI and so on, and only pairs are compared."),
        ("95 % interval", "interval", "The range of gaps that the data are compatible with, from drawing people again and again (bootstrap). Its far end is a gap that cannot be ruled out."),
        ("Verdicts and margin", "verdicts", "The margin is the largest difference that does not matter in practice, set before looking. ▲ Disparity: a difference beyond the margin is shown. ▽ Negligible: a difference is real, and inside the margin. = Equivalent: shown to be inside the margin, none is shown to be real; shown by two one-sided tests at 5 %, which is a 90 % interval inside the margin, so that the 95 % interval may reach a little beyond it. ? Inconclusive: none of these. Where an inconclusive comparison shows a difference and only its size is open, this report says so (△)."),
        ("Corrected p", "", "How easily chance alone would give such a difference, corrected for the number of tests made."),
        ("Detectable difference", "", f"The true difference that a study of these people would find in {100 * fairness.power:.0f} of 100 repetitions, in a single test. Smaller ones are easily missed."),
    )  # fmt: skip
    terms = tuple(Term(name, meaning, drawings.get(key)) for name, key, meaning in entries)
    return make_section(_PLACE, [Terms(terms)])
