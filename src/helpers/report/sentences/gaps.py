"""Rows of the fairness tables → sentences for a clinician, by rules.

Two rules stand above all others: a difference is called *shown* only by its corrected p-value, and where none is shown the sentence says how
large a difference the interval leaves open. Nothing is ever called fair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import pandas as pd

from helpers.fairness.groups import POOLED
from helpers.figures.style import name_for_people
from helpers.report.sentences.words import (
    METRIC_NAMES,
    NUMBER_WORDS,
    SCORES,
    count,
    format_interval,
    format_level,
    format_p,
    format_size,
    is_known,
    list_words,
    name_organ,
)
from helpers.statistics.equivalence import DISPARITY, EQUIVALENT, NEGLIGIBLE


class Outcome(StrEnum):
    """What a row of disparity.csv allows to be said: its verdict, with *inconclusive* parted in two."""

    DISPARITY = "disparity"
    SIZE_OPEN = "size_open"
    NEGLIGIBLE = "negligible"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARED = "not_compared"


# Worst news first: the order in which comparisons are told.
FOUND = (Outcome.DISPARITY, Outcome.SIZE_OPEN, Outcome.NEGLIGIBLE)
_VERDICTS = {
    DISPARITY: Outcome.DISPARITY,
    NEGLIGIBLE: Outcome.NEGLIGIBLE,
    EQUIVALENT: Outcome.EQUIVALENT,
}


def judge_gap(row: Mapping[str, Any], alpha: float) -> Outcome:
    """Say what one comparison shows.

    Parameters
    ----------
    row : mapping
        A row of disparity.csv: worst_group, best_group, gap, verdict, p_adjusted (p where absent).
    alpha : float
        The error rate allowed over the family of comparisons.

    Returns
    -------
    Outcome
        NOT_COMPARED without a gap (fewer than two groups large enough, or nothing measured); else the verdict. Of the comparisons
        without a verdict of the first three kinds, SIZE_OPEN are those where the groups are shown to differ (p_adjusted at most
        `alpha`) and only by how much is open; the others are INCONCLUSIVE.
    """
    if not is_known(row.get("gap")) or not is_known(row.get("worst_group")) or not is_known(row.get("best_group")):
        return Outcome.NOT_COMPARED
    verdict = row.get("verdict")
    if isinstance(verdict, str) and verdict in _VERDICTS:
        return _VERDICTS[verdict]
    p = find_p(row)
    return Outcome.SIZE_OPEN if is_known(p) and float(p) <= alpha else Outcome.INCONCLUSIVE


def find_p(row: Mapping[str, Any]) -> Any:
    """Return the p-value corrected for the family; the test's own where none was corrected."""
    return row["p_adjusted"] if "p_adjusted" in row else row.get("p")


def find_reach(row: Mapping[str, Any]) -> float | None:
    """Return the size of the largest gap inside the interval, either way; None without an interval, or where nobody varies and it has no width."""
    ends = [float(row[end]) for end in ("gap_low", "gap_high") if is_known(row.get(end))]
    return max(map(abs, ends)) if len(ends) == 2 and ends[0] < ends[1] else None


def holds_zero(row: Mapping[str, Any]) -> bool:
    """Tell whether the interval of a gap holds zero."""
    low, high = row.get("gap_low"), row.get("gap_high")
    return is_known(low) and is_known(high) and float(low) <= 0 <= float(high)


def differs_by_ranks_alone(row: Mapping[str, Any], alpha: float) -> bool:
    """Tell whether groups are shown to differ while it is open which of them has the worse mean."""
    return judge_gap(row, alpha) is Outcome.SIZE_OPEN and holds_zero(row)


def rank_rows(rows: Sequence[Mapping[str, Any]], alpha: float) -> list[Mapping[str, Any]]:
    """Return the comparisons in which a difference is shown: the gravest verdict first, then the largest gap.

    All organs together are told after the organs by themselves: such a row often only repeats one of them.
    """
    kinds = [(row, judge_gap(row, alpha)) for row in rows]
    found = [(row, FOUND.index(outcome)) for row, outcome in kinds if outcome in FOUND]
    found.sort(key=lambda pair: (pair[1], str(pair[0]["organ"]) == POOLED, -abs(float(pair[0]["gap"]))))
    return [row for row, _ in found]


def name_comparison(row: Mapping[str, Any]) -> str:
    """Return ``liver by sex``."""
    return f"{name_organ(row['organ'])} by {name_for_people(str(row['attribute']))}"


def describe_cell(row: Mapping[str, Any] | None, alpha: float) -> tuple[Outcome, str, str]:
    """Return outcome, headline and detail of one comparison, short enough for a cell of the picture."""
    outcome = Outcome.NOT_COMPARED if row is None else judge_gap(row, alpha)
    if row is None or outcome is Outcome.NOT_COMPARED:
        return outcome, "not compared", ""
    metric, margin = str(row["metric"]), row.get("margin")
    size = format_size(abs(float(row["gap"])), metric)
    interval = format_interval(row.get("gap_low"), row.get("gap_high"), metric)
    if outcome is Outcome.DISPARITY:
        return outcome, f"worse: {row['worst_group']}", f"{size} ({_drop_unit(interval)})"
    if outcome is Outcome.SIZE_OPEN:
        if differs_by_ranks_alone(row, alpha):
            return outcome, "groups differ", f"which is worse on average is open: {interval}"
        return outcome, f"worse: {row['worst_group']}", f"how much is open: {interval}"
    if outcome is Outcome.NEGLIGIBLE:
        return outcome, f"small: {row['worst_group']}", f"{size}, within {format_size(margin, metric)}"
    if outcome is Outcome.EQUIVALENT:
        return outcome, f"within {format_size(margin, metric)}", ""
    reach = find_reach(row)
    if reach is None:
        return (
            outcome,
            "cannot tell",
            "everyone has the same value" if row.get("gap_low") == row.get("gap_high") == 0 else "",
        )
    return outcome, "cannot tell", f"up to {format_size(reach, metric)}"


def describe_model(
    model: str,
    rows: pd.DataFrame,
    *,
    alpha: float,
    boundary_mm: Mapping[tuple[str, str], Mapping[str, float]] | None = None,
    volume_ml: Mapping[tuple[str, str], Mapping[str, float]] | None = None,
    most: int = 3,
) -> str:
    """Say in one paragraph for whom a model works worse.

    Parameters
    ----------
    model : str
    rows : DataFrame
        The model's rows of disparity.csv for one metric.
    alpha : float
    boundary_mm, volume_ml : mapping of (organ, attribute) to mapping of group to float, optional
        Mean boundary error and mean absolute volume error of the groups.
    most : int
        How many comparisons to name, the gravest first.
    """
    records = rows.to_dict("records")
    outcomes = [judge_gap(row, alpha) for row in records]
    compared = [row for row, outcome in zip(records, outcomes, strict=True) if outcome is not Outcome.NOT_COMPARED]
    if not compared:
        return f"{model}: no groups could be compared."
    metric = str(compared[0]["metric"])
    found = rank_rows(records, alpha)
    said = []
    for row in found[:most]:
        key = (str(row["organ"]), str(row["attribute"]))
        said.append(_tell_briefly(row, alpha, (boundary_mm or {}).get(key), (volume_ml or {}).get(key)))
    rest = _tell_rest(compared, found, alpha)
    if not found:
        return f"{model}: no difference in {METRIC_NAMES[metric]} was shown in {count(len(compared), 'comparison')}: {rest}."
    shown = (
        f"{model}: a difference in {METRIC_NAMES[metric]} was shown in {len(found)} of "
        f"{count(len(compared), 'comparison')}"
    )
    more = len(found) - len(said)
    left = f"; {NUMBER_WORDS[more] if more < len(NUMBER_WORDS) else more} more in the picture" if more else ""
    return f"{shown}: {'; '.join(said)}{left}." + (f" In the others: {rest}." if rest else "")


def describe_gap(
    row: Mapping[str, Any], *, alpha: float, levels: Mapping[str, float] | None = None, name_model: bool = False
) -> str:
    """Say what one comparison shows, in the metric's unit.

    Parameters
    ----------
    row : mapping
        A row of disparity.csv.
    alpha : float
    levels : mapping of str to float, optional
        Mean of the row's metric in each group.
    name_model : bool
        Whether the sentence has to name the model.
    """
    outcome = judge_gap(row, alpha)
    what = name_comparison(row)
    start = f"{what[0].upper()}{what[1:]}" if not name_model else f"{row['model']}, {what}"
    if outcome is Outcome.NOT_COMPARED:
        return f"{start}: no comparison, because fewer than two groups are large enough or nothing could be measured."
    metric = str(row["metric"])
    name, p = METRIC_NAMES[metric], format_p(find_p(row))
    if outcome is Outcome.INCONCLUSIVE:
        return f"{start}: the data cannot tell. No difference in {name} was shown (corrected {p}); {describe_open_gap(row)}"
    margin = format_size(row.get("margin"), metric)
    if outcome is Outcome.EQUIVALENT:
        return (
            f"{start}: on average the groups differ by less than {margin} in {name}, the largest difference that this study set "
            "as of no consequence."
        )
    amount = describe_amount(row, alpha=alpha, levels=levels)
    return f"{start}: {amount}"


def describe_amount(row: Mapping[str, Any], *, alpha: float, levels: Mapping[str, float] | None = None) -> str:
    """Say how large a difference that is shown is, how sure, and how it compares with the margin.

    Parameters
    ----------
    row, alpha, levels
        As in :func:`describe_gap`.
    """
    metric, worst, best = str(row["metric"]), str(row["worst_group"]), str(row["best_group"])
    at_worst, at_best = (_tell_level(group, levels, metric) for group in (worst, best))
    return (
        f"{METRIC_NAMES[metric]} is {format_size(abs(float(row['gap'])), metric)} {_direction(metric)} for “{worst}”{at_worst} than for "
        f"“{best}”{at_best}; 95 % interval of the gap {format_interval(row.get('gap_low'), row.get('gap_high'), metric)}, "
        f"corrected {format_p(find_p(row))}. {describe_verdict(row, alpha)}"
    )


def describe_verdict(row: Mapping[str, Any], alpha: float) -> str:
    """Say how a difference that is shown compares with the margin; empty for other comparisons."""
    metric = str(row["metric"])
    margin = format_size(row.get("margin"), metric)
    outcome = judge_gap(row, alpha)
    if outcome is Outcome.DISPARITY:
        return f"It is more than the {margin} that this study set as the largest difference of no consequence."
    if outcome is Outcome.NEGLIGIBLE:
        return f"It is less than the {margin} that this study set as the largest difference of no consequence: real, but small."
    if outcome is not Outcome.SIZE_OPEN:
        return ""
    if holds_zero(row):
        return (
            "That the groups differ is shown by their ranks; the interval of the means reaches zero, so that it is open which of them has "
            "the worse mean."
        )
    if is_known(row.get("margin")):
        return f"That the groups differ is shown; whether by more than {margin}, the margin of this study, is open."
    return "That the groups differ is shown; by how much is open."


def describe_open_gap(row: Mapping[str, Any]) -> str:
    """Say how large a gap the interval leaves open, and which one would have been found."""
    metric, reach = str(row["metric"]), find_reach(row)
    if reach is None:
        return "the data do not say how large a gap may be hidden."
    said = f"with this many people a gap of up to {format_size(reach, metric)} cannot be ruled out"
    if is_known(row.get("detectable")):
        said += (
            f", and only a true one of {format_size(row['detectable'], metric)} or more would probably have been found"
        )
    return f"{said}."


def describe_plain_units(
    worst: str, best: str, boundary_mm: Mapping[str, float] | None, volume_ml: Mapping[str, float] | None
) -> str:
    """Say a gap as a distance and a volume: how far off outlines and volumes are in both groups. Empty when not measured."""
    said = []
    for what, levels, unit in (("the outline", boundary_mm, "mm"), ("the volume", volume_ml, "ml")):
        shown = _round_levels(levels, worst, best, unit)
        if shown is None:
            continue
        first, second, digits = shown
        step = 10.0**-digits
        if first - second > step / 2:
            tail = f"{first - second:.{digits}f} {unit} more"
        elif second - first > step / 2:
            tail = f"{second - first:.{digits}f} {unit} less, unlike the gap in Dice"
        else:
            tail = f"to {'a tenth of a' if digits else 'one'} {unit} the same"
        said.append(
            f"{what} is off by {first:.{digits}f} {unit} for “{worst}” and {second:.{digits}f} {unit} for “{best}”, {tail}"
        )
    if not said:
        return ""
    text = "; ".join(said)
    return f"On average {text}."


def describe_size_share(row: Mapping[str, Any]) -> str:
    """Say which part of a Dice gap organ size alone explains. Empty when that was not computed."""
    expected, excess = row.get("expected_gap"), row.get("excess_gap")
    if not is_known(expected) or not is_known(excess):
        return ""
    expected, excess = float(expected), float(excess)
    interval = format_interval(row.get("excess_low"), row.get("excess_high"), "dice")
    rest = f"{format_size(excess, 'dice', signed=excess < 0)} ({'no interval' if interval == 'no interval' else f'95 % interval {interval}'})"
    low, high = row.get("excess_low"), row.get("excess_high")
    if not (is_known(low) and is_known(high)):
        verdict = "how sure that rest is was not computed."
    elif float(low) > 0:
        verdict = "so organ size does not explain all of it."
    elif float(high) < 0:
        verdict = "so, organ size allowed for, this group does better than expected."
    else:
        verdict = "which is compatible with organ size explaining all of it."
    if expected <= 0.0005:
        said = f"Size alone would give a gap of {format_size(expected, 'dice')}; the rest is {rest}."
        return (
            f"Organ size does not explain it: {said[0].lower()}{said[1:]}" if is_known(low) and float(low) > 0 else said
        )
    return f"Organ size alone would give a gap of {format_size(expected, 'dice')}; the rest is {rest}, {verdict}"


def describe_adjustment(row: Mapping[str, Any], covariates: Sequence[str]) -> str:
    """Say what is left of a gap with other recorded differences held equal.

    Parameters
    ----------
    row : mapping
        A row of disparity.csv with adjusted_gap, adjusted_low and adjusted_high.
    covariates : sequence of str
        What was held equal, for people; empty where nothing was.

    Returns
    -------
    str
        Never empty: where nothing could be held equal, that is said.
    """
    metric, adjusted = str(row["metric"]), row.get("adjusted_gap")
    if not covariates:
        return "Nothing else that was recorded could be held equal: a confounder may explain the gap."
    held = list_words(covariates)
    if not is_known(adjusted):
        return f"With {held} held equal the gap could not be computed: too few people, or the groups hardly overlap in them."
    adjusted, raw = float(adjusted), float(row["gap"])
    low, high = row.get("adjusted_low"), row.get("adjusted_high")
    size = format_size(adjusted, metric, signed=adjusted < 0)
    interval = format_interval(low, high, metric)
    before = format_size(raw, metric)
    said = f"With {held} held equal the gap is " + (
        f"still {size}" if size == before else f"{size} instead of {before}"
    )
    if not (is_known(low) and is_known(high)):
        return f"{said}; how sure that is was not computed."
    said += f" (95 % interval {interval})"
    if float(low) > 0:
        share = "these do not explain it" if adjusted >= raw / 2 else "these explain part of it"
        return f"{said}: {share}."
    if float(high) < 0:
        return f"{said}: the direction turns round, so these explain it."
    if adjusted < raw / 2:
        return f"{said}: these may explain it."
    zero = "zero is not left out, as it was not before" if holds_zero(row) else "zero is no longer left out"
    return f"{said}: {zero}, so that these may or may not explain it."


def describe_match(row: Mapping[str, Any], gap: float) -> str:
    """Say what the gap is among pairs of people who are alike; empty where there were too few pairs.

    Parameters
    ----------
    row : mapping
        A row of matching.csv.
    gap : float
        The gap between everybody.
    """
    metric, matched = str(row["metric"]), row.get("gap")
    if not is_known(matched) or not is_known(row.get("n_pairs")):
        return ""
    interval = format_interval(row.get("low"), row.get("high"), metric)
    size = format_size(matched, metric, signed=float(matched) < 0)
    return (
        f"Among {count(int(row['n_pairs']), 'pair')} of people matched one by one it is {size}"
        f"{'' if interval == 'no interval' else f' (95 % interval {interval})'}, instead of {format_size(gap, metric)}."
    )


def describe_other_measures(rows: pd.DataFrame, main: str, alpha: float, *, most: int = 4) -> str:
    """Say which disparities other measures show and the main one does not; empty where there is none.

    Parameters
    ----------
    rows : DataFrame
        disparity.csv, all metrics.
    main : str
        The metric of the first page.
    """
    records = rows.to_dict("records")
    told = {_place(row) for row in records if row["metric"] == main and judge_gap(row, alpha) in FOUND}
    others: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in records:
        if row["metric"] != main and judge_gap(row, alpha) is Outcome.DISPARITY and _place(row) not in told:
            others.setdefault(_place(row), []).append(row)
    if not others:
        return ""
    said = []
    for found in list(others.values())[:most]:
        sizes = [f"{METRIC_NAMES[str(row['metric'])]} {format_size(row['gap'], str(row['metric']))}" for row in found]
        said.append(
            f"{found[0]['model']}, {name_comparison(found[0])} (“{found[0]['worst_group']}”: {list_words(sizes)})"
        )
    more = len(others) - len(said)
    return (
        f"Other measures show a disparity where {METRIC_NAMES[main]} does not: {'; '.join(said)}"
        f"{f'; and {more} more, in the table of every comparison' if more else ''}."
    )


def describe_certainty(disparity: pd.DataFrame, *, alpha: float, correction: str, words: Mapping[str, str]) -> str:
    """Say how many comparisons were made, how they were corrected, and what that left.

    Parameters
    ----------
    disparity : DataFrame
    alpha : float
    correction : str
    words : mapping of str to str
        What each correction is called.
    """
    p = disparity["p"] if "p" in disparity else pd.Series(dtype=float)
    tested = int(p.notna().sum())
    if tested == 0:
        return "No statistical test could be made."
    adjusted = disparity.get("p_adjusted", p)
    shown, alone = int((adjusted <= alpha).sum()), int((p <= alpha).sum())
    sentence = f"{count(tested, 'test').capitalize()} {'was' if tested == 1 else 'were'} made, over all models, organs, measures and attributes."
    if correction == "none":
        return (
            f"{sentence} They were not corrected for their number: of {tested} true zeros about {tested * alpha:.0f} would still "
            f"come out below {alpha:g}, and {shown} did."
        )
    return (
        f"{sentence} With {words[correction]} for so many tests {count(shown, 'difference')} {'remains' if shown == 1 else 'remain'} at {alpha:g}; "
        f"{alone} would have counted if each had been the only one."
    )


def describe_power(rows: pd.DataFrame, power: float) -> str:
    """Say which differences this study would have found; empty where that was not computed.

    Parameters
    ----------
    rows : DataFrame
        Rows of disparity.csv for one metric, with ``detectable``.
    power : float
    """
    found = rows["detectable"].dropna() if "detectable" in rows else pd.Series(dtype=float)
    if found.empty:
        return ""
    metric = str(rows["metric"].iloc[0])
    low, middle, high = (format_size(value, metric) for value in (found.min(), found.median(), found.max()))
    extent = "" if low == high else f" ({_drop_unit(low)} to {high}, by comparison)"
    return (
        f"Small differences are easily missed: with these people a true difference in {METRIC_NAMES[metric]} of {middle}{extent} would have been found in "
        f"{100 * power:.0f} of 100 such studies, by a single test of two groups. Corrected for many tests it takes more."
    )


def describe_unknowns(rows: pd.DataFrame, alpha: float) -> list[str]:
    """Say what the comparisons of one metric leave open, the dull cases included.

    Parameters
    ----------
    rows : DataFrame
        disparity.csv for one metric, all models.
    """
    records = rows.to_dict("records")
    kinds = [judge_gap(row, alpha) for row in records]
    compared = [row for row, kind in zip(records, kinds, strict=True) if kind is not Outcome.NOT_COMPARED]
    if not compared:
        return []
    metric = str(compared[0]["metric"])
    name, of = METRIC_NAMES[metric], count(len(compared), "comparison")
    said = []
    unclear = [row for row, kind in zip(records, kinds, strict=True) if kind is Outcome.INCONCLUSIVE]
    if unclear:
        widest = _find_widest(unclear)
        open_ = (
            "the data do not say how large a difference may be hidden there"
            if widest is None
            else f"there a gap of up to {format_size(find_reach(widest), metric)} ({widest['model']}, {name_comparison(widest)}) may be hidden"
        )
        said.append(
            f"In {len(unclear)} of {of} in {name} the data cannot tell: neither a difference nor its absence is shown, and {open_}."
        )
    within = [row for row, kind in zip(records, kinds, strict=True) if kind is Outcome.EQUIVALENT]
    if within:
        margin = format_size(within[0].get("margin"), metric)
        said.append(
            f"In {len(within)} of {of} the groups' means lie within {margin} of each other. That holds for these averages, organs, people and "
            "this margin; single persons may still be served badly, and another margin would give another answer."
        )
    lost = kinds.count(Outcome.NOT_COMPARED)
    if lost:
        said.append(
            f"{count(lost, 'comparison').capitalize()} in {name} could not be made: too few people in the groups, or nothing measured."
        )
    return said


def describe_model_gaps(rows: pd.DataFrame, alpha: float, *, most: int = 3) -> str:
    """Say whether one model is fairer than another, in the sense of a smaller gap on the same people.

    Parameters
    ----------
    rows : DataFrame
        model_gaps.csv for one metric.
    """
    known = rows[rows["difference"].notna()]
    if known.empty:
        return ""
    metric = str(known["metric"].iloc[0])
    known = known.assign(size=known["difference"].abs())
    shown = known[known["p_adjusted"] <= alpha].sort_values("size", ascending=False)
    of = count(len(known), "comparison of two models", "comparisons of two models")
    if shown.empty:
        nothing = f"In {of} no model was shown to have a smaller gap in {METRIC_NAMES[metric]} than another, corrected for their number."
        alone = int(((known["low"] > 0) | (known["high"] < 0)).sum()) if {"low", "high"} <= set(known) else 0
        if alone:
            nothing += f" In {alone} of them the 95 % interval by itself leaves zero out: a hint, not a proof."
        return nothing
    said = []
    for row in shown.head(most).to_dict("records"):
        smaller, larger = (
            (row["model_a"], row["model_b"]) if float(row["difference"]) < 0 else (row["model_b"], row["model_a"])
        )
        said.append(
            f"{name_comparison(row)}, the gap of {smaller} is {format_size(row['size'], metric)} smaller than that of {larger}"
        )
    more = f"; and {len(shown) - len(said)} more" if len(shown) > len(said) else ""
    return f"In {len(shown)} of {of} one has a smaller gap in {METRIC_NAMES[metric]}: {'; '.join(said)}{more}."


def _tell_briefly(
    row: Mapping[str, Any],
    alpha: float,
    boundary_mm: Mapping[str, float] | None,
    volume_ml: Mapping[str, float] | None,
) -> str:
    metric, worst, best = str(row["metric"]), str(row["worst_group"]), str(row["best_group"])
    sizes = [f"{METRIC_NAMES[metric]} {format_size(abs(float(row['gap'])), metric)} {_direction(metric)}"]
    for what, levels, unit in (("outline", boundary_mm, "mm"), ("volume", volume_ml, "ml")):
        shown = _round_levels(levels, worst, best, unit)
        if shown is not None and unit != metric.rpartition("_")[2]:
            # Of the numbers as the finding's own card shows them, so that the two agree.
            first, second, digits = shown
            difference = first - second
            if abs(difference) >= 0.05:
                sizes.append(
                    f"{what} {abs(difference):.{digits}f} {unit} {'further off' if difference > 0 else 'nearer'}"
                )
    outcome = judge_gap(row, alpha)
    if differs_by_ranks_alone(row, alpha):
        return (
            f"{name_organ(row['organ'])}, “{worst}” and “{best}” differ by their ranks ({', '.join(sizes)} on average for “{worst}”, but which of "
            "them has the worse mean is open)"
        )
    tail = {Outcome.NEGLIGIBLE: ": small, within the margin", Outcome.SIZE_OPEN: ": how much is open"}.get(outcome, "")
    return f"{name_organ(row['organ'])}, worse for “{worst}” than for “{best}” ({', '.join(sizes)}{tail})"


def _tell_rest(compared: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], alpha: float) -> str:
    """Return what is to be said of the comparisons in which no difference is shown."""
    metric = str(compared[0]["metric"])
    rest = [row for row in compared if not any(row is other for other in found)]
    within = [row for row in rest if judge_gap(row, alpha) is Outcome.EQUIVALENT]
    unclear = [row for row in rest if judge_gap(row, alpha) is Outcome.INCONCLUSIVE]
    said = []
    if within:
        said.append(f"{len(within)} within the margin of {format_size(within[0].get('margin'), metric)}")
    if unclear:
        widest = _find_widest(unclear)
        hidden = (
            "the data do not say how large a gap may be hidden"
            if widest is None
            else f"a gap of up to {format_size(find_reach(widest), metric)} ({name_comparison(widest)}) cannot be ruled out"
        )
        said.append(f"{len(unclear)} in which the data cannot tell ({hidden})")
    return " and ".join(said)


def _direction(metric: str) -> str:
    return "lower" if metric in SCORES else "higher"


def _tell_level(group: str, levels: Mapping[str, float] | None, metric: str) -> str:
    value = (levels or {}).get(group)
    return f" ({format_level(value, metric)})" if is_known(value) else ""


def _round_levels(
    levels: Mapping[str, float] | None, worst: str, best: str, unit: str
) -> tuple[float, float, int] | None:
    """Return two groups' levels in mm or ml as they are shown, and with how many decimals; None where one is not known."""
    at_worst, at_best = (levels or {}).get(worst), (levels or {}).get(best)
    if not is_known(at_worst) or not is_known(at_best):
        return None
    digits = 0 if unit == "ml" and _is_large(levels, worst, best) else 1
    return round(float(at_worst), digits), round(float(at_best), digits), digits


def _is_large(levels: Mapping[str, float] | None, *groups: str) -> bool:
    values = [float(levels[group]) for group in groups if levels and is_known(levels.get(group))]
    return bool(values) and max(values) >= 100


def _drop_unit(text: str) -> str:
    return text.rpartition(" ")[0] if text and not text[-1].isdigit() else text


def _place(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["model"]), str(row["organ"]), str(row["attribute"])


def _find_widest(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the comparison that may hide the largest gap; None where none says how large."""
    known = (row for row in rows if find_reach(row) is not None)
    return max(known, key=lambda row: find_reach(row) or 0.0, default=None)
