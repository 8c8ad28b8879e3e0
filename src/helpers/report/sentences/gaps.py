"""Rows of the fairness tables → sentences for a clinician, by rules.

Two rules stand above all others: a difference is called *found* only by its adjusted p-value, and
where none is found the sentence says how large one may be hidden. Nothing is ever called fair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict, find_p, find_reach, holds_zero, rank_rows, read_verdict, trace_pooled
from helpers.vocabulary.words import (
    ALL_MODELS,
    CORRECTIONS,
    FAMILIES,
    count,
    format_interval,
    format_p,
    format_share,
    format_value,
    is_known,
    list_words,
    name_for_people,
    name_group,
    name_organ,
    round_as_shown,
    start_sentence,
    state_estimate,
    write_number,
)

Row: TypeAlias = Mapping[str, Any]
Place: TypeAlias = tuple[str, str, str]  # model, organ, attribute
Means: TypeAlias = Mapping[str, Mapping[str, float]]  # metric -> group -> mean

# What a gap is told by beside its own metric: how far outlines and volumes are off.
PLAIN_UNITS = ("boundary_error_mm", "volume_error_ml")
_MARGIN = "the largest difference considered unimportant (the margin)"


def find_place(row: Row) -> Place:
    """Return the model, organ and attribute of a row."""
    return str(row["model"]), str(row["organ"]), str(row["attribute"])


def leaves_worst_open(row: Row, alpha: float) -> bool:
    """Tell whether some groups were found to differ, but not which of them has the worst mean."""
    return read_verdict(row, alpha) is Verdict.DIFFERENCE and holds_zero(row)


def name_comparison(row: Row) -> str:
    """Return ``liver by sex``."""
    return f"{name_organ(row['organ'])} by {name_for_people(str(row['attribute']))}"


def describe_many_models(parts: Mapping[str, pd.DataFrame], alpha: float, *, most: int = 4) -> str:
    """Say what the comparisons of many models show together; their rows of one metric by model."""
    rows = [row for part in parts.values() for row in part.to_dict("records")]
    of = count(sum(read_verdict(row, alpha) is not Verdict.NOT_COMPARED for row in rows), "comparison")
    found = rank_rows(rows, alpha)
    if not found:
        return f"No difference was found in {of} of {len(parts)} models."
    alike: dict[str, set[str]] = {}
    for row in found:
        if not leaves_worst_open(row, alpha) and not trace_pooled(row, rows, alpha):
            alike.setdefault(f"{name_comparison(row)}, worse for {name_worst(row)}", set()).add(str(row["model"]))
    several = [(where, len(models)) for where, models in alike.items() if len(models) > 1]
    common = sorted(several, key=lambda pair: -pair[1])
    told = list_words(f"{where} ({number} models)" for where, number in common[:most])
    shown = {str(row["model"]) for row in found}
    said = f"A difference was found in {len(found)} of {of}, for {len(shown)} of {len(parts)} models"
    said += f"; most often {told}." if told else ", none of them for two models in the same place."
    return said


def describe_all_models(rows: pd.DataFrame, alpha: float) -> str:
    """Say for whom models work worse on average: rows of disparity.csv over all models, one metric.

    Empty where that is nobody.
    """
    records = rows.to_dict("records")
    found = [row for row in rank_rows(records, alpha) if not trace_pooled(row, records, alpha)]
    if not found:
        return ""
    said = [
        f"{name_comparison(row)}, worse for {name_worst(row)} than for {name_best(row)} ({tell_sizes(row, {})[0]})"
        for row in found
        if not leaves_worst_open(row, alpha)
    ]
    return f"Averaged over the models, a difference was found in: {'; '.join(said)}." if said else ""


def name_worst(row: Row) -> str:
    """Return the worst group of a row in words."""
    return name_group(row["attribute"], row["worst_group"])


def name_best(row: Row) -> str:
    """Return the best group of a row in words."""
    return name_group(row["attribute"], row["best_group"])


def describe_ranking(ranking: pd.DataFrame, metric: str) -> str:
    """Say groups by which attributes differ most often (rows of attribute_ranking.csv)."""
    rows = ranking[ranking["metric"] == metric].to_dict("records")
    if len(rows) < 2:
        return ""
    said = list_words(
        f"by {name_for_people(str(row['attribute']))} in {row['disparities'] + row['differences']:.0f} of "
        f"{row['comparisons']:.0f} comparisons"
        + (
            f" (largest gap {write_number(row['largest_gap_sd'], 1)} SD of people)"
            if is_known(row["largest_gap_sd"])
            else ""
        )
        for row in rows
    )
    return f"Groups differ by more than the margin, or by how much is uncertain: {said}."


def describe_briefly(row: Row, alpha: float) -> str:
    """Say of a difference that was found where, for whom and how much worse."""
    worse = f"worse for {name_worst(row)} than for {name_best(row)}"
    if leaves_worst_open(row, alpha):
        worse = "some groups differ; which is worst is uncertain"
    metric = str(row["metric"])
    interval = format_interval(row.get("gap_low"), row.get("gap_high"), metric)
    return f"{row['model']}, {name_comparison(row)}: {worse} ({tell_sizes(row, {})[0]}, {interval})."


def describe_amount(row: Row, *, alpha: float, levels: Mapping[str, float] | None = None) -> str:
    """Say how large and certain a found difference is, and how it compares with the margin.

    `row` is of disparity.csv; `levels` are the means of its metric by group.
    """
    metric = str(row["metric"])
    measure = find_measure(metric)
    worst, best = (
        name_group(row["attribute"], group)
        + (f" ({format_value(levels[group], metric)})" if levels and is_known(levels.get(group)) else "")
        for group in (str(row["worst_group"]), str(row["best_group"]))
    )
    size = format_value(abs(float(row["gap"])), metric)
    return (
        f"{measure.name} is {size} {measure.worse} for {worst} than for {best}; 95 % confidence interval of the gap "
        f"{format_interval(row.get('gap_low'), row.get('gap_high'), metric)}, adjusted {format_p(find_p(row))}. "
        f"{describe_verdict(row, alpha)}{_tell_selected(row)}"
    )


def _tell_selected(row: Row) -> str:
    """Say what a gap is likely to be, given that it is told for being significant."""
    metric, gap = str(row["metric"]), row.get("told_gap")
    if not is_known(gap) or round_as_shown(float(gap), metric) >= round_as_shown(abs(float(row["gap"])), metric):
        return ""
    likely = state_estimate(gap, row["told_low"], row["told_high"], metric)
    return f" Gaps that stand out are overstated: allowing for that, this one is about {likely}."


def describe_verdict(row: Row, alpha: float) -> str:
    """Say how a difference that was found compares with the margin; empty for other comparisons."""
    margin, verdict = format_value(row.get("margin"), str(row["metric"])), read_verdict(row, alpha)
    if verdict is Verdict.DISPARITY:
        return f"It is larger than {margin}, {_MARGIN}."
    if verdict is Verdict.NEGLIGIBLE:
        return f"It is real, but smaller than {margin}, {_MARGIN}."
    if verdict is not Verdict.DIFFERENCE:
        return ""
    if holds_zero(row):
        return (
            "Some groups differ; the interval between these two includes zero, so which group has the worst mean "
            "is uncertain."
        )
    if is_known(row.get("margin")):
        return f"The groups differ; whether by more than {margin}, the margin, is uncertain."
    return "The groups differ; by how much is uncertain."


def describe_plain_units(row: Row, levels: Means) -> str:
    """Say how far off outlines and volumes are in a gap's two groups; empty if not measured."""
    worst, best = str(row["worst_group"]), str(row["best_group"])
    said = []
    for metric in PLAIN_UNITS:
        difference = _compare_levels(row, levels, metric)
        if difference is None:
            continue
        at_worst, at_best, size = (
            format_value(value, metric) for value in (levels[metric][worst], levels[metric][best], abs(difference))
        )
        tail = f"{size} {'more' if difference > 0 else 'less, unlike the gap'}" if difference else "the same"
        at_both = f"{at_worst} for {name_worst(row)} and {at_best} for {name_best(row)}"
        said.append(f"the {find_measure(metric).name} is {at_both}, {tail}")
    return f"On average {'; '.join(said)}." if said else ""


def describe_incomplete(incomplete: Mapping[str, str]) -> str:
    """Say who lacks a value of which measures (`incomplete` of disparity.csv, by metric)."""
    measures: dict[str, list[str]] = {}
    for metric, who in incomplete.items():
        measures.setdefault(who, []).append(find_measure(metric).name)
    said = [f"{list_words(names)} without {who}" for who, names in measures.items()]
    return f"Means of {'; '.join(said)}: the organ was missed there, or the scan failed." if said else ""


def describe_size_share(row: Row) -> str:
    """Say which part of a Dice gap organ size alone explains. Empty when that was not computed."""
    expected, excess = row.get("expected_gap"), row.get("excess_gap")
    if not is_known(expected) or not is_known(excess):
        return ""
    ends = _read_interval(row, "excess")
    interval = f"95 % CI {format_interval(*ends, 'dice')}" if ends else "no interval"
    rest = f"{format_value(excess, 'dice')} ({interval})"
    alone = f"ize alone would give a gap of {format_value(expected, 'dice')}; the rest is {rest}"
    if expected <= 0.0005:
        return f"Organ size does not explain it: s{alone}." if ends and ends[0] > 0 else f"S{alone}."
    verdict = "which is compatible with organ size explaining all of it"
    if not ends:
        verdict = "how certain that is was not computed"
    elif ends[0] > 0:
        verdict = "so organ size does not explain all of it"
    elif ends[1] < 0:
        verdict = "so this group does better than its organ size predicts"
    return f"Organ s{alone}, {verdict}."


def describe_adjustment(
    row: Row, covariates: Sequence[str], mediators: Sequence[str] = (), *, note: str = "", warnings: str = ""
) -> str:
    """Say what is left of a gap (disparity.csv) after adjustment for `covariates`; never empty.

    `note` and `warnings` are those of adjusted_notes.csv: why there is no number, and what to mind.
    `mediators` are adjusted for in the direct gap besides.
    """
    if note and not is_known(row.get("adjusted_gap")):
        return f"{start_sentence(note)}, so there is no adjusted gap."
    said = _tell_adjusted(row, covariates) + (f" Note: {warnings}." if warnings and covariates else "")
    direct, ends = row.get("direct_gap"), _read_interval(row, "direct")
    if not mediators or not is_known(direct):
        return said
    size = format_value(direct, str(row["metric"]))
    if ends:
        size += f" (95 % CI {format_interval(*ends, str(row['metric']))})"
    return (
        f"{said} {start_sentence(list_words(mediators))} may be how {name_for_people(str(row['attribute']))} acts: "
        f"adjusted for that as well, the direct gap is {size}."
    )


def _tell_adjusted(row: Row, covariates: Sequence[str]) -> str:
    metric, adjusted = str(row["metric"]), row.get("adjusted_gap")
    if not covariates:
        return "Nothing else that was recorded could be adjusted for: a confounder may explain the gap."
    said = f"Adjusted for {list_words(covariates)}, the gap"
    if not is_known(adjusted):
        return f"{said} could not be computed: too few people, or the groups hardly overlap in them."
    raw, ends = float(row["gap"]), _read_interval(row, "adjusted")
    size, before = format_value(adjusted, metric), format_value(raw, metric)
    said += f" is still {size}" if size == before else f" is {size} instead of {before}"
    if not ends:
        return f"{said}; how certain that is was not computed."
    said += f" (95 % CI {format_interval(*ends, metric)})"
    if ends[0] > 0:
        return f"{said}: these {'do not explain it' if adjusted >= raw / 2 else 'explain part of it'}."
    if ends[1] < 0:
        return f"{said}: it reverses after adjustment, so these explain it."
    if adjusted < raw / 2:
        return f"{said}: these may explain it."
    now = "includes zero, as it did before adjustment" if holds_zero(row) else "now includes zero"
    return f"{said}. The interval {now}: these may or may not explain the gap."


def describe_match(row: Row, gap: float) -> str:
    """Say what a gap is among matched pairs (of matching.csv), not everybody; empty if too few."""
    metric, matched = str(row["metric"]), row.get("gap")
    if not is_known(matched) or not is_known(row.get("n_pairs")):
        return ""
    size = format_value(matched, metric)
    if ends := _read_interval(row, ""):
        size += f" (95 % CI {format_interval(*ends, metric)})"
    pairs = count(int(row["n_pairs"]), "matched pair")
    return f"Among {pairs} of people it is {size}, instead of {format_value(gap, metric)}."


def describe_other_measures(rows: pd.DataFrame, main: str, alpha: float, *, most: int = 12) -> list[str]:
    """Say by place which differences (disparity.csv) other measures than `main` alone show.

    The gravest first; the last sentence says how many more there are.
    """
    found = [row for row in rows.to_dict("records") if row["metric"] != main and row["model"] != ALL_MODELS]
    told = set(map(find_place, rank_rows(rows[rows["metric"] == main].to_dict("records"), alpha)))
    places: dict[tuple[Place, str], list[Row]] = {}
    for row in rank_rows(found, alpha):
        if find_place(row) not in told:
            worst = "some groups" if leaves_worst_open(row, alpha) else name_worst(row)
            places.setdefault((find_place(row), worst), []).append(row)
    said = [
        f"{place[0]}, {name_comparison(here[0])}, worse for {worst}: "
        f"{list_words(_tell_other(row, alpha) for row in here)}"
        f"{_tell_source(here[0], found, alpha)}."
        for (place, worst), here in places.items()
    ]
    more = f"{start_sentence(count(len(said) - most, 'more such comparison'))}: see “Every comparison”."
    return said if len(said) <= most else [*said[:most], more]


def describe_same_place(row: Row, rows: pd.DataFrame, alpha: float) -> str:
    """Say what other measures show of a finding's own place (rows of disparity.csv)."""
    same = [
        one
        for one in rows.to_dict("records")
        if find_place(one) == find_place(row)
        and one["metric"] != row["metric"]
        and read_verdict(one, alpha).shows_difference
    ]
    said = [
        _tell_other(one, alpha) + ("" if one["worst_group"] == row["worst_group"] else f", worse for {name_worst(one)}")
        for one in same
    ]
    return f"Found as well: {list_words(said)}." if said else ""


def _tell_other(row: Row, alpha: float) -> str:
    metric = str(row["metric"])
    size, without = format_value(abs(float(row["gap"])), metric), row.get("incomplete")
    inside = {Verdict.NEGLIGIBLE: ", within the margin"}.get(read_verdict(row, alpha), "")
    return (
        f"{find_measure(metric).name} {size} {find_measure(metric).worse}{inside}"
        f"{f', without {without}' if without else ''}"
    )


def _tell_source(row: Row, rows: Sequence[Row], alpha: float) -> str:
    sources = trace_pooled(row, rows, alpha)
    return f" (follows from {list_words(map(name_organ, sources))})" if sources else ""


def describe_opposites(rows: pd.DataFrame, alpha: float, *, most: int = 4) -> str:
    """Say where Dice and surface Dice (rows of disparity.csv) find the other group worse off."""
    by_place: dict[Place, dict[str, Row]] = {}
    for row in rows[rows["metric"].isin(["dice", "nsd"])].to_dict("records"):
        by_place.setdefault(find_place(row), {})[str(row["metric"])] = row
    said = []
    for pair in by_place.values():
        if len(pair) < 2 or not any(read_verdict(row, alpha).shows_difference for row in pair.values()):
            continue
        dice, surface = pair["dice"], pair["nsd"]
        if (dice["worst_group"], dice["best_group"]) == (surface["best_group"], surface["worst_group"]):
            said.append(
                f"{dice['model']}, {name_comparison(dice)}: Dice is worse for {name_worst(dice)}, surface Dice for "
                f"{name_worst(surface)}"
            )
    if not said:
        return ""
    more = f"; and {len(said) - most} more" if len(said) > most else ""
    return (
        f"Dice and surface Dice point opposite ways: {'; '.join(said[:most])}{more}. Dice favours large organs, "
        "surface Dice counts the outline alone: which group is served worse depends on what the masks are for."
    )


def describe_certainty(disparity: pd.DataFrame, *, alpha: float, correction: str, family: str = "study") -> str:
    """Say how many tests were made, how p was adjusted for their number, and what that left."""
    p = disparity["p"] if "p" in disparity else pd.Series(dtype=float)
    tested = int(p.notna().sum())
    if tested == 0:
        return "No statistical test could be made."
    shown, alone = int((disparity.get("p_adjusted", p) <= alpha).sum()), int((p <= alpha).sum())
    said = (
        f"{count(tested, 'test').capitalize()} {'was' if tested == 1 else 'were'} made, over all models, organs, "
        "measures and attributes."
    )
    if correction == "none":
        return (
            f"{said} They were not adjusted for their number: if no group differed, about {tested * alpha:.0f} of "
            f"{tested} would fall below {alpha:g} by chance; {shown} did."
        )
    return (
        f"{said} After adjustment for their number by {CORRECTIONS[correction]}, together for {FAMILIES[family]}, "
        f"{count(shown, 'difference')} "
        f"{'remains' if shown == 1 else 'remain'} at {alpha:g}; each tested alone, {alone} would count."
    )


def describe_power(rows: pd.DataFrame, power: float) -> str:
    """Say the minimum detectable difference of one metric's comparisons; empty if not computed."""
    found = rows["detectable"].dropna() if "detectable" in rows else pd.Series(dtype=float)
    if found.empty:
        return ""
    metric = str(rows["metric"].iloc[0])
    low, middle, high = (format_value(value, metric) for value in (found.min(), found.median(), found.max()))
    extent = "" if low == high else f" ({format_interval(found.min(), found.max(), metric)}, by comparison)"
    return (
        f"Small differences are easily missed. Minimum detectable difference in {find_measure(metric).name} "
        f"({100 * power:.0f} % power, a single test of two groups): {middle}{extent}. Adjusted for many tests it is "
        "larger."
    )


def describe_unknowns(rows: pd.DataFrame, alpha: float) -> list[str]:
    """Say what the comparisons of one metric (disparity.csv, all models) leave open."""
    judged = [(row, read_verdict(row, alpha)) for row in rows.to_dict("records")]
    compared = [row for row, verdict in judged if verdict is not Verdict.NOT_COMPARED]
    if not compared:
        return []
    metric = str(compared[0]["metric"])
    name, of = find_measure(metric).name, count(len(compared), "comparison")
    said = []
    unclear, refused = _part_unclear(compared, alpha)
    if refused:
        share = format_share(max(float(row["unseen_share"]) for row in refused))
        said.append(
            f"In {len(refused)} of {of} in {name} the groups are alike as far as was seen, within the margin; but "
            f"they are too small to rule out failures that nobody happened to have (in up to {share} of a group)."
        )
    if unclear:
        verb = "is" if len(unclear) == 1 else "are"
        said.append(
            f"{len(unclear)} of {of} in {name} {verb} inconclusive: neither a difference nor its absence was found, "
            f"and {tell_hidden(unclear, name_model=True)}."
        )
    within = [row for row, verdict in judged if verdict is Verdict.EQUIVALENT]
    if within:
        said.append(
            f"In {len(within)} of {of} the groups' means lie within {format_value(within[0].get('margin'), metric)} of "
            "each other. That holds for these averages, organs, people and this margin; single persons may still be "
            "served badly, and another margin would give another answer."
        )
    lost = len(judged) - len(compared)
    if lost:
        said.append(
            f"{count(lost, 'comparison').capitalize()} in {name} could not be made: too few people in the groups, or "
            "nothing measured."
        )
    return said


def describe_model_gaps(rows: pd.DataFrame, alpha: float, *, most: int = 3) -> str:
    """Say whether one model has a smaller gap than another (model_gaps.csv for one metric)."""
    known = rows[rows["difference"].notna()]
    if known.empty:
        return ""
    metric = str(known["metric"].iloc[0])
    name, of = find_measure(metric).name, count(len(known), "comparison of two models", "comparisons of two models")
    shown = known[known["p_adjusted"] <= alpha].sort_values("difference", key=lambda size: -size.abs())
    if shown.empty:
        alone = int(((known["low"] > 0) | (known["high"] < 0)).sum()) if {"low", "high"} <= set(known) else 0
        hint = (
            f" In {alone} of them the 95 % confidence interval by itself excludes zero: a hint, not a proof."
            if alone
            else ""
        )
        return (
            f"In {of} no model was found to have a smaller gap in {name} than another, adjusted for their number.{hint}"
        )
    said = []
    for row in shown.head(most).to_dict("records"):
        smaller, larger = (row[f"model_{side}"] for side in ("ba" if float(row["difference"]) > 0 else "ab"))
        size = format_value(abs(row["difference"]), metric)
        said.append(f"{name_comparison(row)}, the gap of {smaller} is {size} smaller than that of {larger}")
    more = f"; and {len(shown) - len(said)} more" if len(shown) > len(said) else ""
    return f"In {len(shown)} of {of} one has a smaller gap in {name}: {'; '.join(said)}{more}."


def tell_sizes(row: Row, levels: Means) -> list[str]:
    """Return how much worse the worst group is: in the row's measure, then in mm and ml."""
    measure = find_measure(str(row["metric"]))
    sizes = [f"{measure.name} {format_value(abs(float(row['gap'])), measure.key)} {measure.worse}"]
    for metric in PLAIN_UNITS:
        # Of the numbers as the finding's own card shows them, so that the two agree.
        difference = _compare_levels(row, levels, metric)
        if find_measure(metric).unit != measure.unit and difference is not None and abs(difference) >= 0.05:
            way = "larger" if difference > 0 else "smaller"
            sizes.append(f"{find_measure(metric).name} {format_value(abs(difference), metric)} {way}")
    return sizes


def _part_unclear(rows: Sequence[Row], alpha: float) -> tuple[list[Row], list[Row]]:
    """Return the inconclusive rows: by their gap, and those by unseen failures alone."""
    unclear = [row for row in rows if read_verdict(row, alpha) is Verdict.INCONCLUSIVE]
    refused = [row for row in unclear if is_known(row.get("unseen_share"))]
    return [row for row in unclear if not is_known(row.get("unseen_share"))], refused


def tell_hidden(rows: Sequence[Row], *, name_model: bool = False) -> str:
    """Return the largest gap that inconclusive comparisons may hide, and where."""
    widest = max(rows, key=lambda row: find_reach(row) or 0.0)
    reach = find_reach(widest)
    if reach is None:
        return "the data do not say how large a gap may be hidden"
    where = f"{widest['model']}, {name_comparison(widest)}" if name_model else name_comparison(widest)
    return f"a gap of up to {format_value(reach, str(widest['metric']))} ({where}) cannot be ruled out"


def _compare_levels(row: Row, levels: Means, metric: str) -> float | None:
    """Return how much more the worst group's mean is than the best's, of the numbers as shown."""
    known = levels.get(metric, {})
    at_worst, at_best = (known.get(str(row[side])) for side in ("worst_group", "best_group"))
    if not is_known(at_worst) or not is_known(at_best):
        return None
    return round_as_shown(round_as_shown(at_worst, metric) - round_as_shown(at_best, metric), metric)


def _read_interval(row: Row, name: str) -> tuple[float, float] | None:
    low, high = (row.get(f"{name}_{end}".lstrip("_")) for end in ("low", "high"))
    return (float(low), float(high)) if is_known(low) and is_known(high) else None
