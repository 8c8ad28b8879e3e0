"""One attribute's groups compared as they are: summaries, gaps, contrasts, tests, and models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from helpers.fairness.disparity import SPREADS, Disparities, estimate_disparities, find_margins, limit_gap
from helpers.fairness.expected_dice import SizeGaps, measure_excess
from helpers.fairness.groups import summarise_group
from helpers.fairness.models_compared import compare_models
from helpers.fairness.score_matrix import AttributeScores
from helpers.fairness.tables import make_table
from helpers.parameters import Fairness
from helpers.statistics.bootstrap import CONFIDENCE, Resamples
from helpers.statistics.bootstrap_differences import (
    PostSelection,
    find_difference,
    find_gap_influence,
    find_mean_intervals,
    find_rest_influence,
    take_gaps,
)
from helpers.statistics.effects import measure_cliffs_delta, measure_epsilon_squared
from helpers.statistics.equivalence import Verdicts, judge_columns
from helpers.statistics.grouped_values import GroupedValues, list_pairs
from helpers.statistics.hypothesis_tests import (
    EPSILON_SQUARED,
    KRUSKAL_WALLIS,
    MANN_WHITNEY,
    RANK_BISERIAL,
    Comparison,
    compare_pairs_dunn,
    compare_pairs_games_howell,
    find_squared_error,
    run_brunner_munzel,
    run_kruskal_wallis,
    run_mann_whitney,
    run_one_way_anova,
    run_t_test,
    run_welch_anova,
)
from helpers.statistics.intervals import Intervals
from helpers.statistics.selection_adjustment import condition_on_significance, find_range_quantile
from helpers.statistics.unseen_failures import widen_interval
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import CLUSTERED_TEST, DECIDING_TEST

ANOVA = "one-way ANOVA"
WELCH_ANOVA = "Welch's ANOVA"
WELCH_T = "Welch's t"
BRUNNER_MUNZEL = "Brunner–Munzel"
GAMES_HOWELL = "Games–Howell"
DUNN = "Dunn"


@dataclass(frozen=True)
class ColumnTests:
    """The tests of every column, (columns,) each."""

    two: dict[str, Comparison]  # by name, for columns of two groups
    many: dict[str, Comparison]  # the same for columns of more
    anova_p: np.ndarray  # float64, of the usual one
    effect: Intervals  # rank-biserial r where two groups are compared, else epsilon²


@dataclass(frozen=True)
class GroupComparison:
    """One attribute's groups compared in every column."""

    groups: AttributeScores
    summaries: list[dict[str, np.ndarray]]  # per group, from helpers.fairness.groups.summarise_group
    means: Intervals  # (groups, columns)
    against_rest: Intervals  # (groups, columns): each group against everybody else who is compared
    found: Disparities
    gap: Intervals  # (columns,)
    size: SizeGaps | None  # per (model, organ); None where Dice or its expectation was not measured
    model_gaps: pd.DataFrame  # from helpers.fairness.models_compared.compare_models
    tests: ColumnTests

    def list_pairs(self) -> list[tuple[str, str] | None]:
        """Return the names of the best and the worst group of every column."""
        names = self.groups.names
        return [
            (names[best], names[worst]) if best >= 0 else None
            for best, worst in zip(self.found.best, self.found.worst, strict=True)
        ]


def compare_attribute(groups: AttributeScores, settings: Fairness, seed: int) -> GroupComparison:
    """Compare one attribute's groups in every column.

    One set of resamples, within groups, serves all columns: what is measured on the same people
    stays paired.
    """
    scores, codes = groups.scores, groups.codes
    count = len(groups.names)
    resamples = groups.resample(settings.bootstrap, seed)
    others = [part for part in (scores.expected, scores.boundary) if part is not None]
    drawn = resamples.draw_means(np.hstack([scores.matrix, *others]))
    measured = drawn[:, :count, : len(scores.keys)]
    found = estimate_disparities(groups.grouped, scores.metrics, measured, smallest_group=settings.min_group)
    tests = _run_tests(groups, found)
    gap_draws = take_gaps(measured, found.best, found.worst, scores.sign)
    influence = find_gap_influence(groups.grouped, found.best, found.worst, scores.sign)
    # Welch's p takes people of a cluster for separate: then the whole width is kept.
    chosen = tests.many[WELCH_ANOVA].p if groups.clustered is None else np.ones(len(scores.keys))
    selection = PostSelection(groups.number, chosen)
    unseen = groups.unseen.reach_gap(found.best, found.worst)
    sure = find_difference(gap_draws, found.gap, influence, resamples, selection, unseen)
    size = None
    if scores.expected is not None:
        size = measure_excess(groups, found, gap_draws, influence, resamples, drawn)
    return GroupComparison(
        groups,
        [summarise_group(scores.matrix[codes == code]) for code in range(count)],
        _bound_means(groups, measured, resamples),
        _bound_contrasts(groups, found.against_rest, measured, resamples),
        found,
        Intervals(found.gap, *_limit_gaps(groups, sure.low, sure.high)),
        size,
        compare_models(groups, found, gap_draws, influence, resamples, correction=settings.correction),
        tests,
    )


def hold_zero(compared: GroupComparison, p: np.ndarray) -> GroupComparison:
    """Return the comparison with 0 in the interval of every gap that its own test does not reject.

    `p`, float64, (columns,), are those of the test that decides, not adjusted. An interval is to
    hold what a test at its level does not reject; that of the bootstrap leaves 0 out somewhat too
    often in groups of twenty skewed scores, where the permutation test keeps its level.
    """
    low, high, held = compared.gap.low, compared.gap.high, p > 1.0 - CONFIDENCE
    ends = np.where(held & (low > 0), 0.0, low), np.where(held & (high < 0), 0.0, high)
    return replace(compared, gap=Intervals(compared.gap.estimate, *ends))


def find_told_gaps(
    compared: GroupComparison, p: np.ndarray, p_adjusted: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return median and interval of each gap that is told because it was significant: (columns,).

    `p` and `p_adjusted`, float64, (columns,), are those of the row's test. What the row had to
    reach is its p at which the adjusted one is `alpha`, as many standard errors of the gap
    (:func:`helpers.statistics.selection_adjustment.condition_on_significance`).
    """
    moments, columns = compared.groups.grouped.moments, np.arange(len(p))
    best, worst = compared.found.best, compared.found.worst
    if not len(moments.n):
        return np.full(len(p), np.nan), np.full(len(p), np.nan), np.full(len(p), np.nan)
    if compared.groups.clustered is None:
        squared, _ = find_squared_error(
            moments.n[best, columns], moments.variance[best, columns], moments.n[worst, columns],
            moments.variance[worst, columns],
        )  # fmt: skip
    else:
        pair = {codes: place for place, codes in enumerate(zip(*list_pairs(len(moments.n)), strict=True))}
        places = [pair.get((min(two), max(two)), 0) for two in zip(best, worst, strict=True)]
        squared = compared.groups.clustered.squared[places, columns]
    told = (best >= 0) & (p_adjusted <= alpha) & (p > 0) & (squared > 0)
    error = np.where(told, np.sqrt(np.where(told, squared, 1.0)), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(told, np.minimum(alpha * p / p_adjusted, 1.0), np.nan)
        share = special.ndtri(least / 2.0) / special.ndtri(p / 2.0)
        gap = compared.gap.estimate
        return condition_on_significance(gap, error, np.where(told, share * gap / error, np.inf))


def _limit_gaps(groups: AttributeScores, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return gaps' intervals within the metrics' ranges; none of a group that is one cluster."""
    confined = [bool(groups.explain_confined(column)) for column in range(len(low))]
    low, high = limit_gap(low, high, groups.scores.metrics)
    return np.where(confined, np.nan, low), np.where(confined, np.nan, high)


def describe_groups(compared: GroupComparison) -> pd.DataFrame:
    """Return the rows of groups.csv."""
    rows = []
    groups, summaries = compared.groups, compared.summaries
    shown = {name: [summary[name] for summary in summaries] for name in ("mean", "sd", "median", "q1", "q3")}
    shown |= {"ci_low": list(compared.means.low), "ci_high": list(compared.means.high)}
    for column in range(len(groups.scores.keys)):
        for code, name in enumerate(groups.names):
            suppressed = not groups.kept[code, column]
            values = {key: np.nan if suppressed else part[code][column] for key, part in shown.items()}
            head = groups.name_row(column) | {"group": name, "n": int(summaries[code]["n"][column])}
            rows.append(head | values | {"suppressed": suppressed})
    return make_table(rows, "groups")


def describe_disparity(compared: GroupComparison, settings: Fairness, p: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows of disparity.csv, but for what rests on the family or on other attributes.

    `p`, (columns,), is that of the test that decides.
    """
    groups, tests, size = compared.groups, compared.tests, compared.size
    rows = []
    margins = state_margins(groups, settings)
    for column, (model, organ, metric) in enumerate(groups.scores.keys):
        number = int(groups.number[column])
        row: dict[str, Any] = groups.name_row(column) | {
            "n": int(groups.sizes[:, column].sum()),
            "groups": number,
            "margin": margins[column],
        }
        rows.append(row)
        notes = _list_notes(groups, column)
        if number < 2:
            row["note"] = "; ".join(["nothing to compare: fewer than two groups are large enough", *notes])
            continue
        best, worst = compared.found.best[column], compared.found.worst[column]
        row |= {"best_group": groups.names[best], "worst_group": groups.names[worst]}
        row |= _show_interval("gap", compared.gap, column)
        for name in SPREADS:
            row |= _show_interval(name, compared.found.spreads[name], column)
        if np.isfinite(p[column]):
            row |= {
                "test": DECIDING_TEST if groups.clustered is None else CLUSTERED_TEST,
                "p": p[column],
                "anova_p": tests.anova_p[column],
                "effect": RANK_BISERIAL if number == 2 else EPSILON_SQUARED,
                "effect_size": tests.effect.estimate[column],
                "effect_low": tests.effect.low[column],
                "effect_high": tests.effect.high[column],
            }
        elif why := groups.explain_confined(column):
            notes = [f"no verdict: {why}", *notes]
        else:
            notes = ["no test: every subject has the same value", *notes]
        if size is not None and metric == "dice":
            place = groups.scores.places.index((model, organ))
            row |= {
                "expected_gap": size.expected_gap[place],
                "excess_gap": size.excess_gap[place],
                "excess_low": size.low[place],
                "excess_high": size.high[place],
                "excess_p": size.p[place],
            }
        row["note"] = "; ".join(notes)
    return rows


def describe_tests(compared: GroupComparison) -> pd.DataFrame:
    """Return the rows of tests.csv: every test that could be made, beside the one that decides."""
    groups, tests = compared.groups, compared.tests
    rows = [
        groups.name_row(column) | {"test": name, "statistic": test.statistic[column], "p": test.p[column]}
        for column, number in enumerate(groups.number)
        for name, test in (tests.two if number == 2 else tests.many).items()
        if number >= 2 and np.isfinite(test.p[column])
    ]
    return make_table(rows, "tests")


def describe_contrasts(compared: GroupComparison) -> pd.DataFrame:
    """Return the rows of contrasts.csv: each group against everybody else who is compared."""
    groups, against = compared.groups, compared.against_rest
    rows = []
    for column in np.flatnonzero(groups.number >= 2):
        sizes = groups.sizes[:, column]
        for code in np.flatnonzero(groups.kept[:, column]):
            row = {"group": groups.names[code], "n": int(sizes[code]), "n_rest": int(sizes.sum() - sizes[code])}
            for name, part in (("difference", against.estimate), ("low", against.low), ("high", against.high)):
                row[name] = part[code, column]
            rows.append(groups.name_row(int(column)) | row)
    return make_table(rows, "contrasts")


def compare_pairs(groups: AttributeScores, p_adjusted: np.ndarray, alpha: float) -> pd.DataFrame:
    """Return the rows of pairs.csv: all pairs, where the test over more than two is significant.

    `p_adjusted`, (columns,), is adjusted over the family. Games–Howell: difference of means in the
    metric's unit, first − second, with intervals and p-values that hold for all pairs of the column
    together. Dunn: difference of mean ranks, without interval; p-values by Holm over the pairs of
    the column.
    """
    asked = np.flatnonzero((groups.number > 2) & (p_adjusted <= alpha))
    if not len(asked):
        return make_table([], "pairs")
    values = groups.compared.take(asked)
    howell, dunn = compare_pairs_games_howell(values), compare_pairs_dunn(values)
    number = np.broadcast_to(groups.number[asked], howell.df.shape)
    reach = find_range_quantile(number, howell.df) * np.sqrt(howell.squared_error / 2.0)
    rows = []
    for place, column in enumerate(asked):
        for test, found, width in ((GAMES_HOWELL, howell, reach[:, place]), (DUNN, dunn, np.full(len(reach), np.nan))):
            for pair, (first, second) in enumerate(zip(found.first, found.second, strict=True)):
                if groups.kept[first, column] and groups.kept[second, column]:
                    difference = found.difference[pair, place]
                    rows.append(
                        groups.name_row(int(column))
                        | {"group_a": groups.names[first], "group_b": groups.names[second], "test": test}
                        | {"difference": difference, "low": difference - width[pair], "high": difference + width[pair]}
                        | {"p": found.p[pair, place]}
                    )
    return make_table(rows, "pairs")


def state_margins(groups: AttributeScores, settings: Fairness) -> np.ndarray:
    """Return every column's margin (:func:`helpers.fairness.disparity.find_margins`)."""
    return find_margins(settings.margin, groups.scores.metrics, groups.grouped.moments.mean, groups.sizes)


def judge_attribute(compared: GroupComparison, p_adjusted: np.ndarray, settings: Fairness) -> Verdicts:
    """Judge every column's differences (:func:`helpers.statistics.equivalence.judge_columns`)."""
    groups, gap = compared.groups, compared.gap
    return judge_columns(
        groups.grouped,
        state_margins(groups, settings),
        p_adjusted,
        alpha=settings.alpha,
        power=settings.power,
        smallest_group=settings.min_group,
        apart=(gap.low > 0) | (gap.high < 0),
        errors=None if groups.clustered is None else (groups.clustered.squared, groups.clustered.df),
        failures=groups.unseen,
    )


def find_unseen_shares(compared: GroupComparison, judged: Verdicts, settings: Fairness) -> np.ndarray:
    """Return how large a share of a group may fail unseen, where that alone refuses equivalence.

    float64, (columns,): of the group whose mean it could lower most; NaN elsewhere.
    """
    unseen = compared.groups.unseen
    if not judged.refused.any():
        return np.full(len(judged.refused), np.nan)
    share = np.nan_to_num(unseen.bound_share(settings.alpha)[1])
    worst = (share * unseen.loss).argmax(axis=0)
    return np.where(judged.refused, share[worst, np.arange(len(worst))], np.nan)


def _bound_means(groups: AttributeScores, drawn: np.ndarray, resamples: Resamples) -> Intervals:
    """Return the means of the groups compared with their intervals, inside the metric's range."""
    means = np.where(groups.kept, groups.grouped.moments.mean, np.nan)
    ends = find_mean_intervals(groups.grouped, drawn, resamples)
    low, high = widen_interval(means, *ends, groups.unseen.reach_means())
    highest = np.array([find_measure(metric).bounds[1] for metric in groups.scores.metrics])
    shown = np.isfinite(means)
    return Intervals(
        means,
        np.where(shown, np.maximum(low, 0.0), np.nan),  # no metric is below 0
        np.where(shown, np.minimum(high, highest), np.nan),
    )


def _bound_contrasts(
    groups: AttributeScores, estimate: np.ndarray, drawn: np.ndarray, resamples: Resamples
) -> Intervals:
    """Return each group against the rest, (groups, columns), with its interval."""
    sign, sizes = groups.scores.sign, groups.sizes
    bounds = np.full((2, *estimate.shape), np.nan)
    filled = np.where(groups.kept, drawn, 0.0)
    for code in range(len(estimate)):
        rest = np.delete(sizes, code, axis=0)
        others = (np.delete(filled, code, axis=1) * rest).sum(axis=1) / np.maximum(rest.sum(axis=0), 1)
        influence = find_rest_influence(groups.grouped, groups.kept, code, sign)
        draws, unseen = sign * (filled[:, code] - others), groups.unseen.reach_contrast(code)
        sure = find_difference(draws, estimate[code], influence, resamples, unseen=unseen)
        bounds[:, code] = sure.low, sure.high
    return Intervals(estimate, *bounds)


def _run_tests(groups: AttributeScores, found: Disparities) -> ColumnTests:
    """Run all tests and measure the effects."""
    best, worst, number = found.best, found.worst, groups.number
    # In the metric's direction: statistics and effects of two groups are then positive where the
    # best does better.
    values = GroupedValues(groups.compared.matrix * groups.scores.sign, groups.codes, groups.grouped.groups)
    anova, welch, kruskal = (run(values) for run in (run_one_way_anova, run_welch_anova, run_kruskal_wallis))
    whitney, student = (run(values, best, worst) for run in (run_mann_whitney, run_t_test))
    brunner = run_brunner_munzel(values, worst, best)  # positive where the second group tends to be higher
    delta, epsilon = measure_cliffs_delta(values, best, worst), measure_epsilon_squared(values)
    two, several = number == 2, number >= 2
    effect = (np.where(two, getattr(delta, name), getattr(epsilon, name)) for name in ("estimate", "low", "high"))
    return ColumnTests(
        {ANOVA: anova, WELCH_T: student, MANN_WHITNEY: whitney, BRUNNER_MUNZEL: brunner},
        {ANOVA: anova, WELCH_ANOVA: welch, KRUSKAL_WALLIS: kruskal},
        np.where(several, anova.p, np.nan),
        Intervals(*effect),
    )


def _show_interval(name: str, intervals: Intervals, column: int) -> dict[str, float]:
    return {
        name: intervals.estimate[column],
        f"{name}_low": intervals.low[column],
        f"{name}_high": intervals.high[column],
    }


def _list_notes(groups: AttributeScores, column: int) -> list[str]:
    counts = groups.grouped.moments.n[:, column]
    if not counts.any():
        return [f"no subject with a known {groups.attribute} group has a value"]
    notes = []
    small = [name for name, n in zip(groups.names, counts, strict=True) if 0 < n < groups.min_group]
    absent = [name for name, n in zip(groups.names, counts, strict=True) if n == 0]
    if small:
        notes.append(f"too small to compare (under {groups.min_group} subjects): {', '.join(small)}")
    if absent:
        notes.append(f"no subject in: {', '.join(absent)}")
    without = int((groups.codes >= 0).sum() - counts.sum())
    if without:
        notes.append(f"{without} subjects have no value")
    return notes
