"""Whose scans, what was left out, what failed, and what the models were given, in sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from helpers.cohort.reasons import GREY_FAULTS, LISTED, MISPLACED, SENTENCES, name_kinds
from helpers.parameters import Prompt
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import (
    POOLED,
    count,
    format_number,
    format_p,
    list_words,
    name_for_people,
    name_group,
    name_members,
    name_organ,
    start_sentence,
)

# By how much the shares of failed scans in two groups differ (0 to 1) before that is told.
UNEVEN_FAILURES = 0.1
_MOST_NAMED = 6  # models


def describe_people(
    people: int,
    scans: int,
    models: Sequence[str],
    *,
    phantoms: bool,
    annotators: Sequence[str] = (),
    masks: bool = True,
) -> str:
    """Say which models were tried on whose scans; those in `annotators` are people.

    Without `masks`, that their scores were made elsewhere.
    """
    whom = count_people(people, scans, phantoms=phantoms)
    people_named = [name for name in models if name in annotators]
    named = [name for name in models if name not in annotators]
    kinds = [list_words(named) if len(named) <= _MOST_NAMED else count(len(named), "model")] if named else []
    kinds += [f"{count(len(people_named), 'human annotator')} ({list_words(people_named)})"] if people_named else []
    if not masks:
        have = f"{list_words(kinds)} on {whom}"
        return f"Ready-made scores of {have} were compared. How they were made is not known to this report."
    return f"The masks of {list_words(kinds)} were compared with the expert's on {whom}."


def count_people(people: int, scans: int, *, phantoms: bool) -> str:
    """Return ``61 scans of 60 people``, or ``60 people`` where each has one."""
    whom = count(people, "phantom") if phantoms else count(people, "person", "people")
    return whom if scans == people else f"{count(scans, 'scan')} of {whom}"


def describe_groups(
    attribute: str, counts: Mapping[str, int | None], missing: int, *, min_group: int, unit: str = ""
) -> str:
    """Say how many people each group has; None: fewer than `min_group`.

    `missing` are those whose group is not known: nothing recorded, or readable, or in no group.
    """
    shown = [f"{group} ({number})" for group, number in counts.items() if number is not None]
    small = [f"“{group}”" for group, number in counts.items() if number is None]
    few = 0 < missing < min_group
    parts = shown + ([f"fewer than {min_group} each in {list_words(small)}"] if len(small) > 1 else [])
    parts += [f"fewer than {min_group} in {small[0]}"] if len(small) == 1 else []
    parts += [f"not recorded for {'a few (' * few}{tell_count(missing, min_group)}{')' * few}"] if missing else []
    heading = f"{start_sentence(name_for_people(attribute))}{f' ({unit})' if unit else ''}"
    if not counts and missing:
        return f"{heading}: not known for anyone."
    return f"{heading}: {', '.join(parts)}." if parts else f"{heading}: no groups."


def tell_count(number: int | None, min_group: int) -> str:
    """Return a number of people, or that there are fewer than a group needs (None: fewer)."""
    return f"fewer than {min_group}" if number is None or number < min_group else str(number)


def describe_greys(notes: Iterable[object]) -> list[str]:
    """Say of how many scans an image's grey values cannot be right, by notes of cohort.parquet."""
    texts = [str(note) for note in notes]
    found = {fault: sum(fault in text for text in texts) for fault in GREY_FAULTS.values()}
    return [
        f"{count(scans, 'scan')}: {fault}. Where a model that reads images fails on such a scan, the image may be "
        "why, and not the person's group."
        for fault, scans in found.items()
        if scans
    ]


def describe_misplaced(notes: Sequence[object]) -> list[str]:
    """Say which organ lies on the wrong side in half of the scans or more, by their notes.

    Where it does in few, they may be people whose organs are mirrored.
    """
    sentence = re.escape(SENTENCES[MISPLACED])
    pattern = re.compile(re.sub(r"\\{\w+\\}", r"\\w[\\w ]*", sentence))
    found = Counter(fault for note in notes for fault in pattern.findall(str(note)))
    return [
        f"{count(scans, 'scan')} of {len(notes)}: {fault}. Is it another organ's label, or are the scans mirrored?"
        for fault, scans in found.items()
        if scans >= len(notes) / 2
    ]


def describe_no_statistics(scans: int, min_group: int, *, groups: int = 0) -> str:
    """Say that the study is too small, or too uniform, to compare groups."""
    if groups == 1:
        return (
            f"Only one group has at least {min_group} people, so there is nothing to compare it with: "
            f"{count(scans, 'scan')} of one group allow no group statistics."
        )
    verb = "allows" if scans == 1 else "allow"
    return (
        f"{count(scans, 'scan').capitalize()} {verb} no group statistics: no two groups with at least {min_group} "
        "people could be compared. The results describe these scans and say nothing about groups of people."
    )


def describe_failures(inference: pd.DataFrame) -> list[str]:
    """Say, model by model, how many scans failed."""
    said = []
    for model, rows in inference.groupby("model", sort=False):
        failed = int((rows["status"] != "ok").sum())
        if failed == len(rows):
            said.append(f"{model} failed on every one of {count(len(rows), 'scan')}: it has no results.")
        elif failed:
            of = count(len(rows), "scan")
            said.append(f"{model} failed on {failed} of {of}: missing from its results, not counted as zero.")
    return said or ["No model failed on any scan."]


def describe_resampled(references: int, scans: int, inference: pd.DataFrame | None) -> list[str]:
    """Say how many masks were brought to another grid: `references` of `scans`, and by model."""
    how = "by nearest neighbours, which can move a border by half a voxel"
    said = []
    if references:
        said.append(
            f"The experts' masks of {references} of {count(scans, 'scan')} lay on another grid than the image and were "
            f"brought to it {how}."
        )
    if inference is not None and "resampled" in inference:
        for model, rows in inference[inference["status"] == "ok"].groupby("model", sort=False):
            if moved := int(rows["resampled"].sum()):
                said.append(
                    f"{model}: the masks of {moved} of {count(len(rows), 'scan')} lay on another grid than the "
                    f"expert's and were brought to it {how}."
                )
    return said


def describe_uneven_failures(model: str, attribute: str, counts: Mapping[str, tuple[int, int]]) -> str:
    """Say in which group a model failed far more often than in another; empty where it did not.

    `counts` are, per group, the scans it failed on and all scans.
    """
    shares = {group: failed / scans for group, (failed, scans) in counts.items() if scans}
    if len(shares) < 2 or max(shares.values()) - min(shares.values()) < UNEVEN_FAILURES:
        return ""
    most, least = max(shares, key=lambda group: shares[group]), min(shares, key=lambda group: shares[group])
    (failed, scans), (fewest, others) = counts[most], counts[least]
    left = "what it was able to draw there may not speak for the rest"
    left = "nothing is known of how it does there" if failed == scans else left
    return (
        f"{model}, by {name_for_people(attribute)}: it failed on {failed} of {scans} scans of "
        f"{name_group(attribute, most)}, and on "
        f"{fewest} of {others} of {name_group(attribute, least)}. Its means leave these out: {left}."
    )


def describe_uneven_missing(
    model: str,
    organ: str,
    attribute: str,
    groups: Sequence[Mapping[str, Any]],
    *,
    masks: bool = False,
    bounds: Mapping[str, Any] | None = None,
) -> str:
    """Say in which groups a model lacks results more often, from the rows of missing.csv.

    `bounds` is the comparison's row of missing_bounds.csv, of the first page's metric.
    """
    most, least = _find_ends(groups)
    thing = "result" if masks else "score"
    what = f"a {thing} of some organ" if organ == POOLED else f"its {thing} of the {name_organ(organ)}"
    said = (
        f"{model}, by {name_for_people(attribute)}: {what} is missing for {_say_count(most)} "
        f"{name_members(attribute, most['group'])} ({_say_share(most)}), and for {_say_count(least)} "
        f"{name_members(attribute, least['group'])} "
        f"({_say_share(least)}; adjusted {format_p(most['p_adjusted'])}). Its means leave these out: they may not "
        "speak for the rest."
    )
    if not bounds:
        return said
    metric = str(bounds["metric"])
    ends = ("gap", "gap_failed", "lowest", "highest")
    gap, failed, low, high = (format_number(bounds[name], metric) for name in ends)
    return (
        f"{said} The gap in {find_measure(metric).name} between {name_group(attribute, bounds['worst_group'])} and "
        f"{name_group(attribute, bounds['best_group'])} is {gap}; it would be {failed}, "
        f"{name_group(attribute, bounds['worst_failed'])} then being the worst, if "
        f"all that is missing were failures, and lies between {low} and {high} whatever it is."
    )


def describe_uneven_absent(organ: str, attribute: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """Say in which groups an organ is not in the reference more often, from rows of absent.csv."""
    most, least = _find_ends(groups)
    return (
        f"{start_sentence(name_organ(organ))}, by {name_for_people(attribute)}: the reference does not have it in "
        f"{_say_count(most)} {name_members(attribute, most['group'])} ({_say_share(most)}), and in "
        f"{_say_count(least)} "
        f"{name_members(attribute, least['group'])} ({_say_share(least)}; adjusted {format_p(most['p_adjusted'])}): "
        f"beyond the field of view, "
        "taken out, or not drawn. These people are not compared, and who is left may differ."
    )


def _find_ends(groups: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    ranked = sorted(groups, key=lambda row: -float(row["share"]))
    return ranked[0], ranked[-1]


def _say_count(row: Mapping[str, Any]) -> str:
    return f"{row['missing']:.0f} of {row['n']:.0f}"


def _say_share(row: Mapping[str, Any]) -> str:
    return f"{100 * float(row['share']):.0f} %"


def describe_scores_alone(*, size: bool, millimetres: bool) -> str:
    """Say what a study of ready-made scores cannot tell."""
    said = ["where in an organ a model errs"]
    said += [] if millimetres else ["how far outlines are off in mm"]
    said += [] if size else ["whether organ size explains a gap in Dice (that takes the organs' volumes and surfaces)"]
    return (
        f"{start_sentence(list_words(said))}: this study has ready-made scores, no masks. Nor whether an empty cell or "
        "a 0 is what the rule under “Left out” takes it for."
    )


def describe_total_failures(failed: int, compared: int, *, below: float) -> str:
    """Say what complete failures do to means over few people; nothing where there are none."""
    if not failed:
        return ""
    return (
        f"In {failed:,} of {compared:,} comparisons a model missed the organ almost completely (Dice below {below:g}). "
        "Whether such a rare failure turns up among few people is luck: the intervals of means and gaps allow for "
        "those that did not, those of adjusted gaps do not. Look at how often models fail as well as at the means."
    )


def describe_exclusions(total: int, excluded: int) -> str:
    """Say how many scans were left out before anything was measured."""
    if total == 0:
        return "The cohort holds no scans."
    if excluded == 0:
        return f"None of {count(total, 'scan')} was left out."
    if excluded == total:
        return f"Every one of {count(total, 'scan')} was left out: nothing could be measured."
    were = "was" if excluded == 1 else "were"
    return f"{excluded} of {count(total, 'scan')} {were} left out before anything was measured."


def count_reasons(reasons: pd.Series, kinds: pd.Series | None = None) -> list[tuple[str, int]]:
    """Count scans by why they failed or were left out, the commonest first.

    With `kinds` (of exclusions.csv) the sentence is told where all scans of a kind share it, else
    what the kind is called: one person's value shows where a single scan has that reason.
    """
    reasons = reasons.replace("", "no reason recorded")
    kinds = reasons if kinds is None else kinds.where(kinds.notna() & (kinds != LISTED), reasons)
    counted = [
        (told.iloc[0] if len(set(told)) == 1 else name_kinds(str(kind)), len(told))
        for kind, told in reasons.groupby(kinds, sort=False)
    ]
    return sorted(counted, key=lambda pair: -pair[1])


def describe_prompts(prompts: Mapping[str, Prompt], ready: Sequence[str]) -> str:
    """Say where the models' prompts came from; empty for models that need none.

    `prompts` go by model; the masks of the models in `ready` were made elsewhere.
    """
    alike: dict[str, list[str]] = {}
    for model, prompt in prompts.items():
        alike.setdefault(describe_prompt(prompt), []).append(model)
    said = []
    if alike:
        verbs = {what: "is" if len(models) == 1 else "are" for what, models in alike.items()}
        each = "; ".join(f"{list_words(models)} {verbs[what]} given {what}" for what, models in alike.items())
        said.append(
            f"The prompts are simulated from the expert's own mask: {each}. They know where the organ is, so the "
            "results are an upper bound: a clinician's prompts would do worse."
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


def describe_confounders(adjusted: Sequence[str], missed: Sequence[str]) -> str:
    """Say what gaps are adjusted for in one comparison or another, and what in none (`missed`)."""
    said = (
        f"Gaps are adjusted for what was recorded ({list_words(adjusted)}), as far as the groups overlap in it. What "
        "was not recorded, such as disease, scanner or who drew the mask, is not adjusted for: it can cause a gap, or "
        "hide one."
        if adjusted
        else "Gaps are not adjusted, for nothing else was recorded that could be: what goes together with an attribute "
        "can cause its gap, or hide one."
    )
    return said + (f" Recorded as possible confounders, and not adjusted for: {list_words(missed)}." if missed else "")
