"""Rows of the fairness tables → sentences for a clinician, by rules.

Two rules stand above all others: a difference is called *shown* only by its adjusted p, and where none is
shown the sentence says how large a gap the interval leaves open; nothing is ever called fair or equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeGuard

import pandas as pd

from helpers.figures.style import name_for_people
from helpers.parameters import Prompt

# Scores between 0 and 1 are told in points: 0.01 is one point.
SCORES = ("dice", "iou", "nsd", "precision", "recall")
METRIC_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "nsd": "surface Dice (NSD)",
    "hd95_mm": "95 % Hausdorff distance",
    "assd_mm": "average surface distance",
    "precision": "precision",
    "recall": "recall",
    "volume_error_ml": "volume error",
    "boundary_error_mm": "boundary error",
}
CORRECTIONS = {
    "holm": "Holm's method",
    "fdr_bh": "the Benjamini-Hochberg method",
    "max_t": "the max-T permutation method",
    "none": "no correction",
}
STATUSES = {
    "reference_empty": "the organ is not in the expert's mask: nothing to compare, not counted",
    "prediction_empty": "the model drew nothing where the expert drew the organ: Dice 0, distances undefined",
    "both_empty": "the organ is in neither mask: nothing to compare, not counted",
    "failed": "the masks could not be compared: not counted",
    "prediction_missing": "no mask, because the model failed on the scan: not counted",
}
_NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Outcome(StrEnum):
    """What a row of disparity.csv allows to be said."""

    SHOWN = "shown"
    SMALL = "small"
    NOT_SHOWN = "not_shown"
    NOT_COMPARED = "not_compared"


def name_organ(organ: Any) -> str:
    """Return an organ's name for people; the pooled rows (``all``) are all organs."""
    return "all organs" if str(organ) == "all" else name_for_people(str(organ))


def judge_gap(row: Mapping[str, Any], alpha: float) -> Outcome:
    """Say what one comparison shows.

    Parameters
    ----------
    row : mapping
        A row of disparity.csv: worst_group, best_group, gap, p_adjusted (p where absent), margin.
    alpha : float
        The error rate allowed over the family of comparisons.

    Returns
    -------
    Outcome
        NOT_COMPARED without a gap (fewer than two groups large enough, or nothing measured); NOT_SHOWN
        when p_adjusted is missing or at least `alpha`; SMALL when shown but below the margin; else SHOWN.
    """
    if not _known(row.get("gap")) or not _known(row.get("worst_group")) or not _known(row.get("best_group")):
        return Outcome.NOT_COMPARED
    p = row["p_adjusted"] if "p_adjusted" in row else row.get("p")
    if not _known(p) or float(p) >= alpha:
        return Outcome.NOT_SHOWN
    margin = row.get("margin")
    return Outcome.SMALL if _known(margin) and abs(float(row["gap"])) < float(margin) else Outcome.SHOWN


def format_size(value: Any, metric: str, *, signed: bool = False) -> str:
    """Return a difference in a metric with its unit: Dice 0.031 is ``3.1 points``; NaN is ``not measured``."""
    if not _known(value):
        return "not measured"
    number, unit = (100 * float(value), "points") if metric in SCORES else (float(value), metric.rpartition("_")[2])
    digits = f"{number:+.1f}" if signed else f"{number:.1f}"
    if float(digits) == 0:
        digits = "0.0"
    return f"{digits.replace('-', '−')} {unit}"


def format_level(value: Any, metric: str) -> str:
    """Return a metric's level as it is read: ``0.871`` for scores, ``2.6 mm`` for distances."""
    if not _known(value):
        return "not measured"
    if metric in SCORES:
        return f"{float(value):.3f}"
    return f"{float(value):.1f} {metric.rpartition('_')[2]}".replace("-", "−")


def format_interval(low: Any, high: Any, metric: str) -> str:
    """Return ``2.0 to 6.2 points``, or that there is no interval."""
    if not _known(low) or not _known(high):
        return "no interval"
    first = format_size(low, metric)
    return f"{first.rpartition(' ')[0]} to {format_size(high, metric)}"


def format_p(p: Any) -> str:
    """Return ``p = 0.012``, ``p < 0.001`` or ``p > 0.99``."""
    if not _known(p):
        return "p not computed"
    p = float(p)
    if p < 0.001:
        return "p < 0.001"
    if p > 0.99:
        return "p > 0.99"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 scan`` or ``12 scans``; 0 is ``no scans``."""
    many = many or f"{one}s"
    return f"{'no' if number == 0 else number} {one if number == 1 else many}"


def list_words(words: Iterable[str], *, last: str = "and") -> str:
    """Return ``a``, ``a and b``, or ``a, b and c``; nothing is an empty string."""
    words = list(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def describe_people(people: int, scans: int, models: Sequence[str], *, phantoms: bool) -> str:
    """Say which models were tried on whose scans."""
    whom = count(people, "phantom") if phantoms else count(people, "person", "people")
    verb = "was" if len(models) == 1 else "were"
    return (
        f"{count(len(models), 'model').capitalize()} ({list_words(models)}) {verb} compared with the expert's masks "
        f"on {count(scans, 'scan')} of {whom}."
    )


def describe_groups(
    attribute: str, counts: Mapping[str, int | None], missing: int, *, min_group: int, unit: str = ""
) -> str:
    """Say how many people each group has.

    Parameters
    ----------
    attribute : str
    counts : mapping of str to int or None
        People per group; None where there are fewer than `min_group`; empty where nobody has a group.
    missing : int
        People for whom the attribute is not recorded.
    """
    shown = [f"“{group}” {number}" for group, number in counts.items() if number is not None]
    small = [f"“{group}”" for group, number in counts.items() if number is None]
    parts = shown + ([f"fewer than {min_group} each in {list_words(small)}"] if len(small) > 1 else [])
    parts += [f"fewer than {min_group} in {small[0]}"] if len(small) == 1 else []
    parts += [f"not recorded for {_hide_few(missing, min_group)}"] if missing else []
    name = name_for_people(attribute)
    heading = f"{name[0].upper()}{name[1:]}{f' ({unit})' if unit else ''}"
    if not counts and missing:
        return f"{heading}: not recorded for anyone."
    return f"{heading}: {', '.join(parts)}." if parts else f"{heading}: no groups."


def describe_gap(
    row: Mapping[str, Any],
    *,
    alpha: float,
    levels: Mapping[str, float] | None = None,
    boundary_mm: Mapping[str, float] | None = None,
    name_model: bool = False,
) -> str:
    """Say what one comparison of two groups shows, in plain units.

    Parameters
    ----------
    row : mapping
        A row of disparity.csv.
    alpha : float
    levels : mapping of str to float, optional
        Mean of the row's metric in each group.
    boundary_mm : mapping of str to float, optional
        Mean boundary error in each group, in mm, to say a Dice gap as a distance.
    name_model : bool
        Whether the sentence has to name the model.
    """
    metric, organ, attribute = (
        str(row["metric"]),
        name_organ(row["organ"]),
        name_for_people(str(row["attribute"])),
    )
    by_model = f" ({row['model']})" if name_model else ""
    outcome = judge_gap(row, alpha)
    if outcome is Outcome.NOT_COMPARED:
        return (
            f"{organ.capitalize()}{by_model} by {attribute}: no comparison, because fewer than two groups are large enough "
            "or nothing could be measured."
        )
    worst, best = str(row["worst_group"]), str(row["best_group"])
    p = row["p_adjusted"] if "p_adjusted" in row else row.get("p")
    if outcome is Outcome.NOT_SHOWN:
        return (
            f"{organ.capitalize()}{by_model} by {attribute}: no difference in {METRIC_NAMES[metric]} was shown "
            f"(adjusted {format_p(p)}); {describe_open_gap(row)}"
        )
    size = format_size(abs(float(row["gap"])), metric)
    at_worst, at_best = (_level(group, levels, metric) for group in (worst, best))
    direction = "lower" if metric in SCORES else "higher" if metric != "volume_error_ml" else "worse"
    sentences = [
        f"{organ.capitalize()}{by_model} by {attribute}: {METRIC_NAMES[metric]} is {size} {direction} for “{worst}”{at_worst} than for "
        f"“{best}”{at_best}; 95 % interval of the gap {format_interval(row.get('gap_low'), row.get('gap_high'), metric)}, "
        f"adjusted {format_p(p)}."
    ]
    if outcome is Outcome.SMALL:
        sentences.append(
            f"That is less than the {format_size(row['margin'], metric)} this study set as the smallest gap of consequence."
        )
    if metric == "dice":
        sentences.append(describe_distance(worst, best, boundary_mm or {}))
        sentences.append(describe_size_share(row))
    return " ".join(sentence for sentence in sentences if sentence)


def describe_open_gap(row: Mapping[str, Any]) -> str:
    """Say how large a gap the interval leaves open; the closing clause where no difference is shown."""
    reach = _reach(row)
    if reach is None:
        return "the data do not say how large a gap may be hidden."
    return f"with this many people a gap of up to {format_size(reach, str(row['metric']))} cannot be ruled out."


def describe_distance(worst: str, best: str, boundary_mm: Mapping[str, float]) -> str:
    """Say a Dice gap as a distance: how far off the outlines are in both groups. Empty when not measured."""
    at_worst, at_best = boundary_mm.get(worst), boundary_mm.get(best)
    if not _known(at_worst) or not _known(at_best):
        return ""
    difference = round(float(at_worst), 1) - round(float(at_best), 1)
    off = f"{float(at_worst):.1f} mm for “{worst}” and {float(at_best):.1f} mm for “{best}”"
    if difference > 0.04:
        return f"As a distance, outlines are off by {off} on average: {difference:.1f} mm more."
    if difference < -0.04:
        return f"As a distance, outlines are off by {off} on average: the group with the lower Dice has the smaller boundary error."
    return f"As a distance, outlines are off by {off} on average: to a tenth of a millimetre the same."


def describe_size_share(row: Mapping[str, Any]) -> str:
    """Say which part of a Dice gap organ size alone explains. Empty when that was not computed."""
    expected, excess = row.get("expected_gap"), row.get("excess_gap")
    if not _known(expected) or not _known(excess):
        return ""
    expected, excess = float(expected), float(excess)
    interval = format_interval(row.get("excess_low"), row.get("excess_high"), "dice")
    rest = f"{format_size(excess, 'dice', signed=excess < 0)} ({'no interval' if interval == 'no interval' else f'95 % interval {interval}'})"
    low, high = row.get("excess_low"), row.get("excess_high")
    if not (_known(low) and _known(high)):
        verdict = "how sure that rest is was not computed."
    elif float(low) > 0:
        verdict = "so organ size does not explain all of it."
    elif float(high) < 0:
        verdict = "so, organ size allowed for, this group does better than expected."
    else:
        verdict = "which is compatible with organ size explaining all of it."
    if expected <= 0.0005:
        return (
            f"Organ size does not explain it: size alone would give a gap of {format_size(expected, 'dice')}; the rest is {rest}."
            if (_known(low) and float(low) > 0)
            else f"Size alone would give a gap of {format_size(expected, 'dice')}; the rest is {rest}."
        )
    return f"Organ size alone would give a gap of {format_size(expected, 'dice')}; the rest is {rest}, {verdict}"


def describe_model(
    model: str,
    rows: pd.DataFrame,
    *,
    alpha: float,
    levels: Mapping[tuple[str, str], Mapping[str, float]],
    boundary_mm: Mapping[tuple[str, str], Mapping[str, float]],
    most: int = 3,
) -> list[str]:
    """Say for whom one model works worse.

    Parameters
    ----------
    model : str
    rows : DataFrame
        The model's rows of disparity.csv for one metric.
    alpha : float
    levels, boundary_mm : mapping of (organ, attribute) to mapping of group to float
        Group means of that metric, and of the boundary error in mm.
    most : int
        How many gaps to tell in full, the largest first.

    Returns
    -------
    list of str
        Never empty.
    """
    records = rows.to_dict("records")
    by_outcome = {outcome: [row for row in records if judge_gap(row, alpha) is outcome] for outcome in Outcome}
    compared = [row for row in records if row not in by_outcome[Outcome.NOT_COMPARED]]
    if not compared:
        return [f"{model}: no groups could be compared."]
    found = sorted(by_outcome[Outcome.SHOWN] + by_outcome[Outcome.SMALL], key=lambda row: -abs(float(row["gap"])))
    metric = METRIC_NAMES[str(compared[0]["metric"])]
    open_rows = by_outcome[Outcome.NOT_SHOWN]
    widest = max(
        (row for row in open_rows if _reach(row) is not None), key=lambda row: _reach(row) or 0.0, default=None
    )
    tried = count(len(compared), "comparison")
    if not found:
        sentence = f"{model}: no difference in {metric} was shown in {tried}"
        if widest is None:
            return [f"{sentence}; the data do not say how large a gap may be hidden."]
        where = f"{name_for_people(str(widest['organ']))} by {name_for_people(str(widest['attribute']))}"
        return [
            f"{sentence}; with this many people a gap of up to {format_size(_reach(widest), str(widest['metric']))} "
            f"(in {where}) cannot be ruled out."
        ]
    said = [f"{model}: a difference in {metric} was shown in {len(found)} of {tried}. {_announce(found, most)}"]
    for row in found[:most]:
        key = (str(row["organ"]), str(row["attribute"]))
        said.append(describe_gap(row, alpha=alpha, levels=levels.get(key), boundary_mm=boundary_mm.get(key)))
    if open_rows and widest is not None:
        said.append(
            f"In the other {count(len(open_rows), 'comparison')} no difference was shown; there a gap of up to "
            f"{format_size(_reach(widest), str(widest['metric']))} ({name_for_people(str(widest['organ']))} by "
            f"{name_for_people(str(widest['attribute']))}) cannot be ruled out."
        )
    return said


def describe_certainty(disparity: pd.DataFrame, *, alpha: float, correction: str) -> str:
    """Say how many comparisons were made, how they were corrected, and what that left."""
    p = disparity["p"] if "p" in disparity else pd.Series(dtype=float)
    tested = int(p.notna().sum())
    if tested == 0:
        return "No statistical test could be made."
    adjusted = disparity.get("p_adjusted", p)
    shown, alone = int((adjusted < alpha).sum()), int((p < alpha).sum())
    sentence = f"{count(tested, 'test').capitalize()} {'was' if tested == 1 else 'were'} made, over all models, organs, measures and attributes."
    if correction == "none":
        return (
            f"{sentence} They were not corrected for their number: of {tested} true zeros about {tested * alpha:.0f} would still "
            f"come out below {alpha:g}, and {shown} did."
        )
    return (
        f"{sentence} With {CORRECTIONS[correction]} for so many tests {count(shown, 'difference')} {'remains' if shown == 1 else 'remain'} at {alpha:g}; "
        f"{alone} would have counted if each had been the only one."
    )


def describe_no_statistics(scans: int, min_group: int, *, groups: int = 0) -> str:
    """Say that the study is too small, or too uniform, to compare groups."""
    if groups == 1:
        return (
            f"Only one group has at least {min_group} people, so there is nothing to compare it with: "
            f"{count(scans, 'scan')} of one group allow no group statistics."
        )
    verb = "allows" if scans == 1 else "allow"
    return (
        f"{count(scans, 'scan').capitalize()} {verb} no group statistics: no two groups with at least {min_group} people could be compared. "
        "The results describe these scans and say nothing about groups of people."
    )


def describe_failures(inference: pd.DataFrame) -> list[str]:
    """Say, model by model, how many scans failed."""
    said = []
    for model, rows in inference.groupby("model", sort=False):
        failed = int((rows["status"] != "ok").sum())
        if failed == len(rows):
            said.append(f"{model} failed on every one of {count(len(rows), 'scan')}: it has no results.")
        elif failed:
            said.append(
                f"{model} failed on {failed} of {count(len(rows), 'scan')}; these are missing from its results, not counted as zero."
            )
    return said or ["No model failed on any scan."]


def describe_exclusions(total: int, excluded: int) -> str:
    """Say how many scans were left out before anything was measured."""
    if total == 0:
        return "The cohort holds no scans."
    if excluded == 0:
        return f"None of {count(total, 'scan')} was left out."
    if excluded == total:
        return f"Every one of {count(total, 'scan')} was left out: nothing could be measured."
    return f"{excluded} of {count(total, 'scan')} {'was' if excluded == 1 else 'were'} left out before anything was measured."


def merge_reasons(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Count equal reasons, the commonest first; reasons that differ in numbers alone are one, with … for the numbers.

    A value that belongs to one person (an age of 103) so is told only where a single scan has that reason.
    """
    import re

    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        text = reason or "no reason recorded"
        kinds.setdefault(re.sub(r"-?\d+(?:\.\d+)?", "#", text), []).append(text)
    merged = []
    for texts in kinds.values():
        words = [re.split(r"(-?\d+(?:\.\d+)?)", text) for text in texts]
        same = [part if all(other[place] == part for other in words) else "…" for place, part in enumerate(words[0])]
        merged.append(("".join(same), len(texts)))
    return sorted(merged, key=lambda pair: -pair[1])


def describe_cell(row: Mapping[str, Any] | None, alpha: float) -> tuple[Outcome, str, str]:
    """Return outcome, headline and detail of one comparison, short enough for a cell of the matrix."""
    outcome = Outcome.NOT_COMPARED if row is None else judge_gap(row, alpha)
    if row is None or outcome is Outcome.NOT_COMPARED:
        return outcome, "not compared", ""
    metric = str(row["metric"])
    size = format_size(abs(float(row["gap"])), metric)
    if outcome is Outcome.NOT_SHOWN:
        reach = _reach(row)
        return outcome, "not shown", "" if reach is None else f"up to {format_size(reach, metric)}"
    p = row["p_adjusted"] if "p_adjusted" in row else row.get("p")
    return outcome, f"worse: {row['worst_group']}", f"{size}, {format_p(p)}"


def describe_confounders(attributes: Sequence[str], confounders: Sequence[str]) -> str:
    """Say what was not allowed for."""
    together = list_words([name_for_people(name) for name in attributes])
    sentence = "Gaps are not adjusted: each attribute is looked at alone"
    if len(attributes) > 1:
        sentence += f", though {together} may go together, so that a gap by one can be caused by another"
    sentence += "."
    if confounders:
        sentence += f" Recorded as possible confounders, and not allowed for: {list_words([name_for_people(name) for name in confounders])}."
    return sentence


def describe_place(row: Mapping[str, Any], place: str) -> str:
    """Say where on an organ two groups differ.

    Parameters
    ----------
    row : mapping
        A row of spatial/summary.csv.
    place : str
        From :func:`helpers.spatial.describe_location`.
    """
    return (
        f"{name_organ(row['organ']).capitalize()} ({row['model']}) by {name_for_people(str(row['attribute']))}, "
        f"“{row['group_a']}” against “{row['group_b']}”: {place}."
    )


def describe_prompts(prompts: Mapping[str, Prompt | None]) -> str:
    """Say where the models' prompts came from.

    Parameters
    ----------
    prompts : mapping of str to Prompt or None
        Of each model; None where its masks were made elsewhere.
    """
    ready = [model for model, prompt in prompts.items() if prompt is None]
    alike: dict[str, list[str]] = {}
    for model, prompt in prompts.items():
        if prompt is not None:
            alike.setdefault(describe_prompt(prompt), []).append(model)
    said = []
    if alike:
        each = [
            f"{list_words(models)} {'is' if len(models) == 1 else 'are'} given {what}" for what, models in alike.items()
        ]
        said.append(
            f"The prompts are simulated from the expert's own mask: {'; '.join(each)}. They know where the organ is, "
            "so the results are an upper bound: a clinician's prompts would do worse."
        )
    if ready:
        said.append(f"The masks of {list_words(ready)} were made elsewhere; how is not known to this report.")
    return " ".join(said)


def describe_prompt(prompt: Prompt) -> str:
    """Say in words what a model is shown of where the organ is."""
    part = "each separate part of the organ" if prompt.per == "component" else "the organ"
    where = f"{part} in every slice"
    moved = ""
    if prompt.jitter_mm is not None:
        moved = f", each side moved at random by up to {prompt.jitter_mm:g} mm" if prompt.jitter_mm else ""
    elif prompt.jitter:
        moved = f", each side moved at random by up to {100 * prompt.jitter:g} % of the box"
    box = f"a box around {where}{moved}" if prompt.type != "box3d" else f"one box in space around {part}{moved}"
    points = _describe_points(prompt)
    said = {"points": f"{points} for {where}", "box_points": f"{box}, and {points}"}.get(prompt.type, box)
    if prompt.min_area_mm2:
        said += f" (parts under {prompt.min_area_mm2:g} mm² get none)"
    return said


def _describe_points(prompt: Prompt) -> str:
    inside = count(prompt.positive, "point") + " inside" if prompt.positive else ""
    if prompt.positive and prompt.placement == "center":
        inside += " (the first at its centre)" if prompt.positive > 1 else " (at its centre)"
    beside = count(prompt.negative, "point") + " beside it" if prompt.negative else ""
    return " and ".join(part for part in (inside, beside) if part)


def _hide_few(number: int, min_group: int) -> str:
    return str(number) if number >= min_group else f"fewer than {min_group}"


def _announce(found: list[dict[str, Any]], most: int) -> str:
    if len(found) == 1:
        return "It is:"
    return (
        "They are:"
        if len(found) <= most
        else f"The {_NUMBER_WORDS[most] if most < len(_NUMBER_WORDS) else most} largest:"
    )


def _level(group: str, levels: Mapping[str, float] | None, metric: str) -> str:
    value = (levels or {}).get(group)
    return f" ({format_level(value, metric)})" if _known(value) else ""


def _reach(row: Mapping[str, Any]) -> float | None:
    """Return the size of the largest gap inside the interval, either way; None without an interval."""
    ends = [abs(float(row[end])) for end in ("gap_low", "gap_high") if _known(row.get(end))]
    return max(ends) if len(ends) == 2 else None


def _known(value: Any) -> TypeGuard[Any]:
    if value is None:
        return False
    if isinstance(value, str):
        return value != ""
    try:
        return not math.isnan(float(value)) and not math.isinf(float(value))
    except (TypeError, ValueError):
        return not pd.isna(value)
