"""How well each model does, and for whom worse: every comparison, and the people behind it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from helpers.fairness.groups import hide_small_groups
from helpers.figures.effort import plot_effort
from helpers.figures.failure_matrix import show_failures
from helpers.figures.fairness_gaps import plot_gap_forests, plot_model_gaps, plot_shown_ladder
from helpers.figures.fairness_people import plot_group_people, plot_intersections, plot_trend_curves
from helpers.figures.few_masks import plot_few_masks
from helpers.report.blocks import Block, Bullets, Figure, Heading, Note, ReportSection, ReportTable, Text
from helpers.report.escaping import escape_for_plotly, escape_text
from helpers.report.outputs import Outputs
from helpers.report.sections.agreement import compose_agreement
from helpers.report.sections.questions import (
    GAP_COLUMNS,
    drop_empty,
    name_row,
    read_key,
    tabulate_gap,
    tabulate_medians,
    tabulate_overall,
)
from helpers.report.sections.sites import compose_sites
from helpers.report.sentences.gaps import (
    Row,
    describe_model_gaps,
    describe_ranking,
    name_best,
    name_comparison,
    name_worst,
)
from helpers.report.sentences.study import describe_no_statistics
from helpers.report.sentences.volumes import describe_volumes
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict, find_p, read_verdict
from helpers.vocabulary.words import (
    POOLED,
    SPREADS,
    UNKNOWN,
    compare_p,
    count,
    format_estimate,
    format_number,
    format_share,
    format_value,
    is_known,
    name_failure,
    name_for_people,
    name_group,
    name_organ,
    write_number,
)

_PLACE = ("performance", "How well each model does, and for whom worse", "Performance")
_MOST_DOTS = 6
_MOST_ABREAST = 3  # groups of which two figures stand side by side in print
_ML = "volume_error_ml"  # stands for any volume
_HOW_PEOPLE = (
    "Each dot is one person, the half violin beside the dots is their distribution, the black mark the group's mean "
    "with its 95 % confidence interval. See how far the groups overlap, and whether a few people or all of them make "
    "the difference."
)
_PAPER = (
    "The same as papers print it, mean ± SD of everyone and every group with the p of an ANOVA, CT and MR in blocks, "
    "is saved among the tables of stage 03 as paper_table.csv and, for LaTeX, as paper_table.tex; the notebook "
    "03_performance shows it."
)
_PAIRS_P = "p, adjusted for pairs"
_LACKING = "Without a value (missed or failed)"
_DETECTABLE = "Minimum detectable difference"
_TOLD = "Gap, given that it was significant"
_TREND = "Trend over ordered groups"


def compose_performance(outputs: Outputs) -> ReportSection:
    """Compose performance overall and per group, with the figures of the fairness room."""
    if outputs.metrics is None:
        missing = "Performance has not been measured: 03_performance has not been run."
        return ReportSection(*_PLACE, (Note(missing),))
    overall = tabulate_overall(outputs)
    if outputs.disparity is None or outputs.groups is None:
        missing = "Groups have not been compared: 03_performance has not been finished."
        return ReportSection(*_PLACE, (overall, Note(missing)))
    if not outputs.is_compared:
        told = describe_no_statistics(len(outputs.included), outputs.parameters.fairness.min_group)
        return ReportSection(*_PLACE, (overall, Note(told)))
    others = (
        _draw_people,
        _draw_trends,
        _draw_intersections,
        compose_sites,
        _compare_models,
        _draw_few_masks,
        _draw_effort,
        compose_agreement,
    )
    blocks = [
        *tabulate_medians(outputs),
        overall,
        *_draw_gaps(outputs, escape_for_plotly(outputs.disparity)),
        *_show_failures(outputs),
        *_compare_volumes(outputs),
        *(block for compose in others for block in compose(outputs)),
        Heading("Every comparison in numbers", key="comparisons"),
        Text(_PAPER),
        *_tabulate_gaps(outputs, outputs.disparity),
        *_tabulate_pairs(outputs),
        *_tabulate_spreads(outputs),
    ]
    return ReportSection(*_PLACE, tuple(blocks))


def _draw_gaps(outputs: Outputs, disparity: pd.DataFrame) -> list[Block]:
    metric, found, alpha = outputs.main_metric, outputs.found, outputs.parameters.fairness.alpha
    metrics = [metric, *(name for name in disparity["metric"].unique() if name != metric)]
    ranking = describe_ranking(outputs.ranking, metric)
    blocks: list[Block] = [
        Heading("How far apart the groups are", key="gaps"),
        *([Text(ranking)] if ranking else []),
        Figure(
            lambda: plot_gap_forests(disparity, metrics, alpha=alpha),
            "Each mark is the gap between the best and the worst group; the menu chooses the measure. Filled: a "
            "difference was found (adjusted p). Hollow: none was found, which is not proof that there is none; the far "
            "end of the line, a 95 % confidence interval, is how large it may be. The sign at the right is the "
            "verdict. Shaded: the margin, the largest difference considered unimportant. Among three groups or more "
            "the largest gap is above zero by chance alone. The worst group of one measure may be another one than "
            f"that of the next.{' Boundary error does not depend on organ size.' * ('boundary_error_mm' in metrics)}"
            + _tell_incomplete(outputs.disparity),
        ),
    ]
    keys = ["model", "organ", "attribute"]
    places = {tuple(escape_text(str(row[name])) for name in keys) for row in found}
    mine = disparity[[key in places for key in disparity[keys].astype(str).itertuples(index=False, name=None)]]
    parts = ("excess_gap", "adjusted_gap")
    if any(name in mine and mine.loc[mine["metric"] == metric, name].notna().any() for name in parts):
        blocks += [
            Figure(
                lambda: plot_shown_ladder(mine[mine["metric"] == metric], metric),
                "The differences found, those with the smallest p first. From top to bottom: the gap as found; the gap "
                "that organ size alone would give if everyone had the same error at the outline; what is left of it; "
                "the gap adjusted for what comes before the attribute; the direct gap. A gap that moves to zero on "
                "the way is explained by what was allowed for. Lines are 95 % confidence intervals.",
            ),
        ]
    return blocks


def _tell_incomplete(disparity: pd.DataFrame | None) -> str:
    """Return where people without a value are not in a figure's means."""
    if disparity is None or "incomplete" not in disparity:
        return ""
    rows = disparity[(disparity["metric"] == "boundary_error_mm") & (disparity["incomplete"] != "")]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    said = f"{row['model']}, {name_comparison(row)}, {row['incomplete']}"
    more = f"; {len(rows) - 1} more in “Every comparison”" if len(rows) > 1 else ""
    return f" Missed organs and failed scans have no distance and are not in it: {said}{more}."


def _show_failures(outputs: Outputs) -> list[Block]:
    """Return on how many people of each group models fail."""
    failures = outputs.failures
    if failures is None or failures.empty:
        return []
    alpha = outputs.parameters.fairness.alpha
    matrix = show_failures(failures, outputs.main_metric, alpha=alpha, blocks=outputs.blocks)
    worst = [row for row in outputs.failing if row["worst_failed"] or not is_known(row["gap"])]
    return [Heading("Failures", key="failures"), matrix, *_tabulate_failures(worst, alpha)]


def _compare_volumes(outputs: Outputs) -> list[Block]:
    """Return whether differences in organ volume are still there in the models' masks."""
    volumes = outputs.volumes
    if volumes is None or volumes.empty:
        return []
    frame = pd.DataFrame(
        name_row(row)
        | {
            "Larger": name_group(row["attribute"], row["larger_group"]),
            "than": name_group(row["attribute"], row["smaller_group"]),
            "Experts' masks, ml": format_estimate(
                row["reference_gap"], row["reference_gap_low"], row["reference_gap_high"], _ML
            ),
            "Model's masks, ml": format_estimate(row["model_gap"], row["model_gap_low"], row["model_gap_high"], _ML),
            "Model − expert, ml": format_estimate(row["difference"], row["low"], row["high"], _ML),
            "adjusted p": compare_p(row["p_adjusted"]),
        }
        for row in volumes.to_dict("records")
    )
    caption = "Differences between groups in organ volume, by the experts' masks and by the model's (95 % CI)"
    return [
        Heading("Do the models' masks keep differences in organ volume?"),
        Bullets(tuple(describe_volumes(volumes, outputs.parameters.fairness.alpha))),
        ReportTable(caption, frame, numeric=tuple(frame.columns[-4:]), folded=True),
    ]


def _tabulate_failures(found: list[dict[str, Any]], alpha: float) -> list[Block]:
    """Return the comparisons in which anybody fails, smallest p first."""
    rows = [
        name_row(row)
        | {
            "Failure": name_failure(str(row["metric"]), float(row["threshold"])),
            "Most in": _tell_side(row, "worst"),
            "Least in": _tell_side(row, "best"),
            "Difference (95 % CI)": _tell_points(row),
            "adjusted p": compare_p(row["p_adjusted"]),
            "Verdict": read_verdict(row, alpha).word if is_known(row["gap"]) else str(row["verdict"]),
        }
        for row in sorted(found, key=lambda row: float("inf") if pd.isna(row["p"]) else row["p"])
    ]
    if not rows:
        return []
    caption = "Groups compared by how often the model fails, in percentage points; smallest p first"
    numeric = ("Difference (95 % CI)", "adjusted p")
    return [ReportTable(caption, pd.DataFrame(rows), numeric=numeric, folded=True)]


def _tell_side(row: Row, side: str) -> str:
    if not is_known(row["gap"]):
        return f"{name_group(row['attribute'], row[f'{side}_group'])}" if side == "worst" else UNKNOWN
    counts = f"{row[f'{side}_failed']:.0f} of {row[f'{side}_n']:.0f}"
    return f"{name_group(row['attribute'], row[f'{side}_group'])}: {format_share(row[f'{side}_share'])} ({counts})"


def _tell_points(row: Row) -> str:
    if not is_known(row["gap"]):
        return UNKNOWN
    gap, low, high = (write_number(100 * float(row[name]), 1) for name in ("gap", "gap_low", "gap_high"))
    return f"{gap} ({low} to {high})"


def _draw_people(outputs: Outputs) -> list[Block]:
    """Return the people of every shown difference, or else of the largest gap, as dots."""
    metric = outputs.main_metric
    rows = outputs.comparisons[outputs.comparisons["gap"].notna()].to_dict("records")
    if outputs.metrics is None or metric not in outputs.metrics or not rows:
        return []
    told = outputs.found or [max(rows, key=lambda row: row["gap"])]
    people, groups = escape_for_plotly(outputs.average_people([metric])), escape_for_plotly(outputs.groups)
    least = outputs.parameters.fairness.min_group
    which = "the differences found" if outputs.found else "the largest gap"
    blocks: list[Block] = [Heading(f"The people behind {which}", key="people-behind")]
    pairs = dict.fromkeys((row["model"], row["attribute"]) for row in sorted(told, key=lambda row: -row["gap"]))
    by_model, every = dict(list(people.groupby("model", sort=False))), people["organ"].unique()
    for model, attribute in list(pairs)[:_MOST_DOTS]:
        wanted = {row["organ"] for row in told if (row["model"], row["attribute"]) == (model, attribute)} | {POOLED}
        organs, shown = [organ for organ in every if organ in wanted], escape_text(str(model))
        members = hide_small_groups(by_model.get(shown, people.iloc[:0]), metric, attribute, least)
        if members[f"group_{attribute}"].isna().all():
            continue  # a small group's people would be told apart
        draw = partial(plot_group_people, members, metric, attribute, model=shown, organs=organs, groups=groups)
        blocks.append(Figure(draw, _HOW_PEOPLE, half=members[f"group_{attribute}"].nunique() <= _MOST_ABREAST))
    if len(pairs) > _MOST_DOTS:
        blocks.append(Text(f"{len(pairs) - _MOST_DOTS} more such figures are in the notebook 03_performance."))
    return blocks


def _draw_trends(outputs: Outputs) -> list[Block]:
    trends, tests, metric = outputs.trends, outputs.trend_tests, outputs.main_metric
    if trends is None or tests is None or trends.empty or not (trends["metric"] == metric).any():
        return []
    return [
        Heading("Without cutting numbers into groups"),
        Figure(
            lambda: plot_trend_curves(escape_for_plotly(trends), escape_for_plotly(tests), metric),
            f"A smooth curve of {find_measure(metric).name} through everyone, adjusted for the other recorded "
            "differences; the menu chooses what is along the axis and the organ. Between the dotted lines the whole "
            "curve lies with 95 % confidence: if a level line fits between them, no trend is found.",
        ),
    ]


def _draw_intersections(outputs: Outputs) -> list[Block]:
    cells = outputs.intersections
    if cells is None or cells.empty or "pooled" not in cells or cells["pooled"].isna().all():
        return []
    return [
        Heading("Where groups meet"),
        Figure(
            lambda: plot_intersections(escape_for_plotly(cells), outputs.main_metric),
            "Somebody can belong to two groups that are each served well, and be served badly. Each cell is the mean "
            "of the people in it, steadied by the others where they are few, with its 95 % confidence interval; "
            "hatched cells have too few people to be shown. None of these is tested one by one.",
        ),
    ]


def _compare_models(outputs: Outputs) -> list[Block]:
    gaps, metric = outputs.model_gaps, outputs.main_metric
    if gaps is None or gaps.empty:
        return []
    said = describe_model_gaps(gaps[gaps["metric"] == metric], outputs.parameters.fairness.alpha)
    if not said:
        return []
    return [
        Heading("Does one model have smaller gaps than another?"),
        Text(said),
        Figure(
            lambda: plot_model_gaps(escape_for_plotly(gaps), metric, alpha=outputs.parameters.fairness.alpha),
            "Each mark is the gap of the first model named less that of the second, on the same people: left of zero "
            "the first has the smaller gap. Where the line, a 95 % confidence interval, crosses zero, neither was "
            "found to have the smaller one. Of many lines some miss zero by chance: point at a mark for its adjusted "
            "p-value. A smaller gap is no gain where both groups are served worse.",
            folded=True,
        ),
    ]


def _draw_few_masks(outputs: Outputs) -> list[Block]:
    gaps, metric = outputs.few_masks_gaps, "dice"
    if gaps is None or gaps.empty:
        return []
    main = gaps.loc[gaps["worth"].idxmax()]
    saved = max(round(float(main["worth"])) - int(main["masks"]), 0)
    best = f"{name_organ(main['organ'])} by {name_for_people(str(main['attribute']))}"
    said = (
        f"{gaps['masks'].max()} of {gaps['people'].max()} people have an expert’s mask; everybody has a proxy: how far "
        "the model’s mask agrees with another model’s. What both tell together holds however good the proxy is, as "
        "long as those with masks are a random part of each group. At best, for "
        f"{best}, the proxies were worth {count(saved, 'more mask')}."
    )
    broken = dict.fromkeys(name_for_people(str(name)) for name in gaps.loc[gaps["note"] != "", "attribute"])
    refused = "there is no verdict: those with masks are no random part of their group."
    warned = [Note(f"By {attribute} {refused}", kind="warning") for attribute in broken]
    return [
        Heading("Few masks, many scans"),
        Text(said),
        *warned,
        Figure(
            lambda: plot_few_masks(escape_for_plotly(gaps), metric),
            "Each gap twice: from the people with masks alone, and with everybody’s proxy (prediction-powered "
            "inference). A shorter line is what the proxies bring.",
        ),
    ]


def _draw_effort(outputs: Outputs) -> list[Block]:
    effort, metric = outputs.effort, outputs.main_metric
    if effort is None or effort.loc[effort["metric"] == metric, "drawn"].nunique() < 2:
        return []
    return [
        Heading("For how much work?"),
        Figure(
            lambda: plot_effort(escape_for_plotly(effort), metric),
            "How many boxes or points a person would have drawn per scan, against what they buy. A box in space counts "
            "once; an automatic model needs none. More prompts may raise the mean and leave the gap, or widen it.",
        ),
    ]


def _tabulate_gaps(outputs: Outputs, disparity: pd.DataFrame) -> list[Block]:
    """Return every comparison, gravest verdict first, and what its gap is made of."""
    judged = [(read_verdict(row, outputs.parameters.fairness.alpha), row) for row in disparity.to_dict("records")]
    judged = [pair for pair in judged if pair[0] is not Verdict.NOT_COMPARED]
    judged.sort(key=lambda pair: list(Verdict).index(pair[0]))
    means = _list_means(outputs)
    rows = [_tabulate_gap(row, verdict, means.get(read_key(row), "")) for verdict, row in judged]
    numeric = ("Gap (95 % CI)", _DETECTABLE, "Adjusted p")
    parts = [_tabulate_parts(row) for _, row in judged]
    made = (*GAP_COLUMNS, _TOLD, _TREND)
    return [
        ReportTable("Every comparison", drop_empty(rows, (*numeric, _LACKING)), numeric=numeric, folded=True),
        ReportTable("What every gap is made of", drop_empty(parts, made), numeric=made, folded=True),
    ]


def _tabulate_gap(row: Row, verdict: Verdict, means: str) -> dict[str, str]:
    metric = str(row["metric"])
    measure = find_measure(metric)
    margin = f", margin {format_value(row.get('margin'), metric)}" if is_known(row.get("margin")) else ""
    return {
        **name_row(row),
        "Measure": f"{measure.name}{margin}",
        "Verdict": f"{verdict.sign} {verdict.word}",
        "Means (people)": means or f"{name_worst(row)} worse than {name_best(row)}",
        "Gap (95 % CI)": tabulate_gap(row, metric)["Gap (95 % CI)"],
        _DETECTABLE: format_number(row.get("detectable"), metric),
        "Adjusted p": compare_p(find_p(row)),
        _LACKING: str(row.get("incomplete") or ""),
    }


def _tabulate_parts(row: Row) -> dict[str, str]:
    metric = str(row["metric"])
    return {
        "Comparison": f"{row['model']}, {name_comparison(row)}, {find_measure(metric).name}",
        **tabulate_gap(row, metric),
        _TOLD: format_estimate(row.get("told_gap"), row.get("told_low"), row.get("told_high"), metric),
        _TREND: _tell_trend(row, metric),
    }


def _list_means(outputs: Outputs) -> dict[tuple[str, ...], str]:
    """Return the means of each comparison's groups and how many people they are, worst first."""
    groups = outputs.groups
    if groups is None or groups.empty or "mean" not in groups:
        return {}
    known = groups[groups["mean"].notna() & groups["n"].notna()]
    told: dict[tuple[str, ...], list[tuple[float, str]]] = {}
    for row in known.to_dict("records"):
        measure = find_measure(str(row["metric"]))
        words = f"{row['group']} {format_number(row['mean'], measure.key)} ({row['n']:.0f})"
        told.setdefault(read_key(row), []).append((measure.sign * float(row["mean"]), words))
    return {key: "; ".join(words for _, words in sorted(means)) for key, means in told.items()}


def _tell_trend(row: Row, metric: str) -> str:
    """Return the mean change from one ordered group to the next, and its adjusted p."""
    if not is_known(row.get("p_ordered_adjusted")):
        return UNKNOWN
    step = format_number(row["ordered_step"], metric, signed=True)
    return f"{step} per group (p {compare_p(row['p_ordered_adjusted'])})"


def _tabulate_pairs(outputs: Outputs) -> list[Block]:
    """Return which groups differ from which, where there are more than two."""
    pairs = outputs.pairs
    if pairs is None or pairs.empty or not {"group_a", "test", "p"} <= set(pairs):
        return []
    rows = []
    for row in pairs[pairs["p"].notna()].to_dict("records"):
        groups = " and ".join(name_group(row["attribute"], row[side]) for side in ("group_a", "group_b"))
        cells = {"Measure": find_measure(str(row["metric"])).name, "Groups": groups, "Test": row["test"]}
        rows.append(name_row(row) | cells | {_PAIRS_P: compare_p(row["p"])})
    caption = "Which groups differ from which, where there are more than two"
    return [ReportTable(caption, pd.DataFrame(rows), numeric=(_PAIRS_P,), folded=True)] if rows else []


def _tabulate_spreads(outputs: Outputs) -> list[Block]:
    """Return the measures of spread that papers quote, of the main metric."""
    metric, numeric = outputs.main_metric, tuple(SPREADS.values())

    def tabulate(row: Row) -> dict[str, str]:
        cells = {
            told: (row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high")) for name, told in SPREADS.items()
        }
        return name_row(row) | {told: format_estimate(*ends, metric) for told, ends in cells.items()}

    records = [row for row in outputs.comparisons.to_dict("records") if is_known(row["gap"])]
    rows = [tabulate(row) for row in records if any(is_known(row.get(name)) for name in SPREADS)]
    if not rows:
        return []
    name = find_measure(metric).name
    caption = f"Measures of spread that papers quote, {name} (95 % CI)"
    return [
        Text(
            f"Papers quote other measures of how far the groups' means in {name} lie apart. The SD between groups is "
            "0, and the skewed error ratio (the worst group's mean error divided by the best group's; Puyol-Antón "
            "2021) is 1, where all means are the same. Equity-scaled performance is the overall mean lowered by the "
            "spread: FairSeg's (ESSP) divides it by 1 + the sum of the groups' distances from it, FairMedFM's by 1 + "
            "the SD; the two are not comparable. None of them is tested, and none adjusts for anything."
        ),
        ReportTable(caption, drop_empty(rows, numeric), numeric=numeric, folded=True),
    ]
