"""One attribute's groups compared as they are: summaries, gaps, contrasts, tests, and models against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.disparity import UNIT_INTERVAL_METRICS, Disparities, estimate_disparities, limit_gap
from helpers.fairness.expected_dice import DiceGaps, SizeGaps, measure_excess
from helpers.fairness.groups import summarise_group
from helpers.fairness.models_compared import compare_models
from helpers.fairness.score_matrix import Groups, Scores
from helpers.fairness.tables import (
    CONTRAST_COLUMNS,
    GROUP_COLUMNS,
    PAIR_COLUMNS,
    TEST_COLUMNS,
    make_table,
    show,
)
from helpers.parameters import Fairness
from helpers.statistics.bootstrap import Resamples, draw_group_means
from helpers.statistics.bootstrap_differences import (
    Choice,
    find_difference,
    find_gap_influence,
    find_mean_intervals,
    find_rest_influence,
    take_gaps,
)
from helpers.statistics.effects import measure_cliffs_delta, measure_epsilon_squared
from helpers.statistics.equivalence import Verdicts, judge_columns
from helpers.statistics.hypothesis_tests import (
    EPSILON_SQUARED,
    KRUSKAL_WALLIS,
    MANN_WHITNEY,
    RANK_BISERIAL,
    compare_pairs_dunn,
    compare_pairs_games_howell,
    find_squared_error,
    run_brunner_munzel,
    run_kruskal_wallis,
    run_mann_whitney,
    run_one_way_anova,
    run_t_test,
    run_welch_anova,
    summarise_columns,
)
from helpers.statistics.intervals import Intervals, find_intervals, take_means
from helpers.statistics.selection_adjustment import find_range_quantile

ANOVA = "one-way ANOVA"
WELCH_ANOVA = "Welch's ANOVA"
WELCH_T = "Welch's t"
BRUNNER_MUNZEL = "Brunner–Munzel"
GAMES_HOWELL = "Games–Howell"
DUNN = "Dunn"

_CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Compared:
    """One attribute's groups compared in every column.

    Attributes
    ----------
    groups : Groups
    summaries : list of dict
        Per group, from :func:`helpers.fairness.groups.summarise_group`.
    kept : ndarray of bool, (groups, columns)
        Groups with enough values to be compared and shown.
    intervals : Intervals
        Of the groups' means, (groups, columns).
    found : Disparities
    gap : Intervals
        (columns,): the gap with the interval of :func:`helpers.statistics.bootstrap_differences.find_difference`.
    size : SizeGaps or None
        One per place (model, organ); None where Dice or its expectation was not measured.
    model_gaps : DataFrame
        From :func:`helpers.fairness.models_compared.compare_models`.
    tests : dict
        ``two`` and ``many`` tests by name: statistic and p, (columns,) each, for columns of two groups and of more.
    p, anova_p : ndarray of float64, (columns,)
    effect : Intervals
        (columns,): rank-biserial r where two groups are compared, else epsilon².
    """

    groups: Groups
    summaries: list[dict[str, np.ndarray]]
    kept: np.ndarray
    intervals: Intervals
    found: Disparities
    gap: Intervals
    size: SizeGaps | None
    model_gaps: pd.DataFrame
    tests: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
    p: np.ndarray
    anova_p: np.ndarray
    effect: Intervals

    @property
    def best(self) -> np.ndarray:
        """Code of the best group of every column; −1 where nothing is compared."""
        return self.found.best

    @property
    def worst(self) -> np.ndarray:
        """Code of the worst group of every column."""
        return self.found.worst

    @property
    def number(self) -> np.ndarray:
        """How many groups are compared in every column."""
        return self.kept.sum(axis=0)

    def list_pairs(self) -> list[tuple[str, str] | None]:
        """Return the names of the best and the worst group of every column."""
        names = self.groups.names
        return [
            (names[best], names[worst]) if best >= 0 else None
            for best, worst in zip(self.best, self.worst, strict=True)
        ]


def compare_attribute(scores: Scores, groups: Groups, settings: Fairness, seed: int) -> Compared:
    """Compare one attribute's groups in every column.

    Parameters
    ----------
    scores : Scores
    groups : Groups
    settings : Fairness
    seed : int

    Returns
    -------
    Compared

    Notes
    -----
    One set of resamples, within groups, serves all columns: what is measured on the same people stays paired.
    """
    codes, count, least = groups.codes, len(groups.names), settings.min_group
    summaries = [summarise_group(scores.matrix[codes == code]) for code in range(count)]
    kept = np.array([summary["n"] >= least for summary in summaries], bool).reshape(count, len(scores.keys))
    # Those without a known group are resampled too: they bear on the cohort's mean boundary error.
    strata = np.where(codes < 0, count, codes)
    streams = [f"{groups.attribute}\x1f{name}" for name in (*groups.names, "")]
    others = [part for part in (scores.expected, scores.boundary) if part is not None]
    everything = np.hstack([scores.matrix, *others])
    resamples = Resamples(strata, settings.bootstrap, seed, tuple(streams))
    drawn = draw_group_means(everything, strata, draws=settings.bootstrap, seed=seed, streams=streams)
    places = len(scores.places)
    measured = drawn[:, :count, : len(scores.keys)]
    intervals, found = _estimate(scores, groups, measured, settings)
    if settings.interval == "student":
        intervals, against = _studentise(scores, kept, measured, resamples, found, intervals)
        found = replace(found, against_rest=against)
    gap_draws = take_gaps(measured, found.best, found.worst, scores.sign)
    influence = find_gap_influence(scores.matrix, codes, found.best, found.worst, scores.sign)
    gap = found.measures["gap"].estimate
    shown = _hide_small(scores.matrix, codes, kept)
    choice = Choice(kept.sum(axis=0), run_welch_anova(shown, codes).p)
    sure = find_difference(gap_draws, gap, influence, resamples, method=settings.interval, choice=choice)
    size = None
    if scores.expected is not None:
        dice = np.flatnonzero([metric == "dice" for metric in scores.metrics])
        gaps = DiceGaps(
            gap[dice], influence[:, dice], gap_draws[:, dice], found.best[dice], found.worst[dice],
            Choice(choice.number[dice], run_welch_anova(shown[:, dice] - scores.expected, codes).p),
        )  # fmt: skip
        start = len(scores.keys)
        boundary = drawn[:, :, start + places :] if scores.boundary is not None else None
        size = measure_excess(
            scores, resamples, gaps, drawn[:, :, start : start + places], boundary, method=settings.interval
        )
    model_gaps = compare_models(
        scores, groups, gap, gap_draws, influence, resamples, correction=settings.correction, method=settings.interval
    )  # fmt: skip
    tested = _run_tests(scores, codes, kept, found.best, found.worst)
    shown_gap = Intervals(gap, *limit_gap(sure.low, sure.high, scores.metrics))
    return Compared(groups, summaries, kept, intervals, found, shown_gap, size, model_gaps, *tested)


def describe_groups(scores: Scores, compared: Compared) -> pd.DataFrame:
    """Return the rows of groups.csv."""
    rows = []
    shown = {name: [summary[name] for summary in compared.summaries] for name in ("mean", "sd", "median", "q1", "q3")}
    shown |= {"ci_low": list(compared.intervals.low), "ci_high": list(compared.intervals.high)}
    for column, (model, organ, metric) in enumerate(scores.keys):
        head = {"model": model, "organ": organ, "metric": metric, "attribute": compared.groups.attribute}
        for code, name in enumerate(compared.groups.names):
            suppressed = not compared.kept[code, column]
            values = {key: np.nan if suppressed else show(part[code][column]) for key, part in shown.items()}
            number = int(compared.summaries[code]["n"][column])
            rows.append(head | {"group": name, "n": number, **values, "suppressed": suppressed})
    return make_table(rows, GROUP_COLUMNS)


def describe_disparity(scores: Scores, compared: Compared, settings: Fairness) -> list[dict[str, Any]]:
    """Return the rows of disparity.csv, all but what rests on the whole family or on other attributes."""
    names = compared.groups.names
    measures = compared.found.measures
    renamed = {"es": "es_fairseg", "ser": "ser", "es_fairmedfm": "es_fairmedfm", "sd_groups": "sd"}
    rows = []
    for column, (model, organ, metric) in enumerate(scores.keys):
        counts = [int(summary["n"][column]) for summary in compared.summaries]
        number = int(compared.number[column])
        row: dict[str, Any] = {
            "model": model,
            "organ": organ,
            "metric": metric,
            "attribute": compared.groups.attribute,
            "n": sum(n for n, kept in zip(counts, compared.kept[:, column], strict=True) if kept),
            "groups": number,
            "margin": settings.margin.get(metric, np.nan),
        }
        rows.append(row)
        notes = _list_notes(compared, counts, settings.min_group)
        if number < 2:
            row["note"] = "; ".join(["nothing to compare: fewer than two groups are large enough", *notes])
            continue
        row |= {"best_group": names[compared.best[column]], "worst_group": names[compared.worst[column]]}
        row |= _show_interval("gap", compared.gap, column)
        for name, measure in renamed.items():
            row |= _show_interval(name, measures[measure], column)
        if np.isfinite(compared.p[column]):
            two = number == 2
            row |= {
                "test": MANN_WHITNEY if two else KRUSKAL_WALLIS,
                "p": show(compared.p[column]),
                "anova_p": show(compared.anova_p[column]),
                "effect": RANK_BISERIAL if two else EPSILON_SQUARED,
                "effect_size": show(compared.effect.estimate[column]),
                "effect_low": show(compared.effect.low[column]),
                "effect_high": show(compared.effect.high[column]),
            }
        else:
            notes = ["no test: every subject has the same value", *notes]
        if compared.size is not None and metric == "dice":
            place = scores.places.index((model, organ))
            size = compared.size
            row |= {
                "expected_gap": show(size.expected_gap[place]),
                "excess_gap": show(size.excess_gap[place]),
                "excess_low": show(size.low[place]),
                "excess_high": show(size.high[place]),
                "excess_p": show(size.p[place]),
            }
        row["note"] = "; ".join(notes)
    return rows


def describe_tests(scores: Scores, compared: Compared) -> pd.DataFrame:
    """Return the rows of tests.csv: every test that could be made."""
    rows = []
    for column, (model, organ, metric) in enumerate(scores.keys):
        head = {"model": model, "organ": organ, "metric": metric, "attribute": compared.groups.attribute}
        for name, (statistic, p) in compared.tests["two" if compared.number[column] == 2 else "many"].items():
            if np.isfinite(p[column]):
                rows.append(head | {"test": name, "statistic": show(statistic[column]), "p": show(p[column])})
    return make_table(rows, TEST_COLUMNS)


def describe_contrasts(scores: Scores, compared: Compared) -> pd.DataFrame:
    """Return the rows of contrasts.csv: each group against everybody else who is compared."""
    rows = []
    against = compared.found.against_rest
    for column, (model, organ, metric) in enumerate(scores.keys):
        if compared.number[column] < 2:
            continue
        sizes = np.array([summary["n"][column] for summary in compared.summaries]) * compared.kept[:, column]
        for code in np.flatnonzero(compared.kept[:, column]):
            rows.append(
                {
                    "model": model,
                    "organ": organ,
                    "metric": metric,
                    "attribute": compared.groups.attribute,
                    "group": compared.groups.names[code],
                    "n": int(sizes[code]),
                    "n_rest": int(sizes.sum() - sizes[code]),
                    "difference": show(against.estimate[code, column]),
                    "low": show(against.low[code, column]),
                    "high": show(against.high[code, column]),
                }
            )
    return make_table(rows, CONTRAST_COLUMNS)


def compare_pairs(scores: Scores, compared: Compared, p_adjusted: np.ndarray, settings: Fairness) -> pd.DataFrame:
    """Return the rows of pairs.csv: all pairs of groups, where the test over more than two groups is significant.

    Parameters
    ----------
    scores : Scores
    compared : Compared
    p_adjusted : ndarray of float64, (columns,)
        Corrected over the family.
    settings : Fairness

    Returns
    -------
    DataFrame
        Games–Howell: difference of means in the metric's unit, first − second, with intervals and p-values that hold for all pairs of the
        column together. Dunn: difference of mean ranks, without interval; p-values by Holm over the pairs of the column.
    """
    asked = np.flatnonzero((compared.number > 2) & (p_adjusted <= settings.alpha))
    if not len(asked):
        return make_table([], PAIR_COLUMNS)
    codes, names = compared.groups.codes, compared.groups.names
    values = _hide_small(scores.matrix, codes, compared.kept)[:, asked]
    howell, dunn = compare_pairs_games_howell(values, codes), compare_pairs_dunn(values, codes)
    moments = summarise_columns(values, codes)
    squared, df = find_squared_error(
        moments.n[howell.first], moments.variance[howell.first], moments.n[howell.second], moments.variance[howell.second]
    )  # fmt: skip
    reach = find_range_quantile(np.broadcast_to(compared.number[asked], df.shape), df) * np.sqrt(squared / 2.0)
    rows = []
    for place, column in enumerate(asked):
        model, organ, metric = scores.keys[column]
        head = {"model": model, "organ": organ, "metric": metric, "attribute": compared.groups.attribute}
        for test, found in ((GAMES_HOWELL, howell), (DUNN, dunn)):
            for pair, (first, second) in enumerate(zip(found.first, found.second, strict=True)):
                if not (compared.kept[first, column] and compared.kept[second, column]):
                    continue
                difference = show(found.difference[pair, place])
                width = show(reach[pair, place]) if test == GAMES_HOWELL else np.nan
                rows.append(
                    head
                    | {"group_a": names[first], "group_b": names[second], "test": test, "difference": difference}
                    | {"low": difference - width, "high": difference + width, "p": show(found.p[pair, place])}
                )
    return make_table(rows, PAIR_COLUMNS)


def judge_attribute(scores: Scores, compared: Compared, p_adjusted: np.ndarray, settings: Fairness) -> Verdicts:
    """Judge every column's differences (:func:`helpers.statistics.equivalence.judge_columns`)."""
    margins = np.array([settings.margin.get(metric, np.nan) for metric in scores.metrics])
    return judge_columns(
        scores.matrix,
        compared.groups.codes,
        margins,
        p_adjusted,
        alpha=settings.alpha,
        power=settings.power,
        smallest_group=settings.min_group,
    )


def find_largest(values: np.ndarray) -> np.ndarray:
    """Return the largest known number of each column, (columns,), NaN where there is none."""
    largest = np.where(np.isfinite(values), values, -np.inf).max(axis=0, initial=-np.inf)
    return np.where(np.isfinite(largest), largest, np.nan)


def _estimate(scores: Scores, groups: Groups, drawn: np.ndarray, settings: Fairness) -> tuple[Intervals, Disparities]:
    """Return the groups' means and every measure of disparity with intervals, a part of the columns at a time."""
    metrics = np.array(scores.metrics, dtype=object)
    # What is no difference of means has no standard error of its own to divide by: BCa.
    method = "bca" if settings.interval == "student" else settings.interval
    options: dict[str, Any] = {"method": method, "smallest_group": settings.min_group}
    # Codes are those of `groups`, but a last group may hold nobody: the draws have a place for it, the values' codes do not.
    used = int(groups.codes.max(initial=-1)) + 1
    size = max(_CHUNK_BYTES // (8 * max(drawn.shape[0], 1) * (len(groups.names) + 7)), 1)
    parts: list[tuple[Intervals, Disparities]] = []
    for start in range(0, max(len(scores.keys), 1), size):
        part = slice(start, start + size)
        values, means = scores.matrix[:, part], drawn[:, :used, part]
        parts.append(
            (
                find_intervals(values, groups.codes, means, take_means, **options),
                estimate_disparities(values, groups.codes, list(metrics[part]), means, **options),
            )
        )
    absent = len(groups.names) - used

    def join(intervals: list[Intervals], fill: int = 0) -> Intervals:
        def stack(name: str) -> np.ndarray:
            whole = np.concatenate([getattr(one, name) for one in intervals], axis=-1)
            return np.concatenate([whole, np.full((fill, whole.shape[-1]), np.nan)]) if fill else whole

        return Intervals(stack("estimate"), stack("low"), stack("high"))

    found = [part[1] for part in parts]
    return join([part[0] for part in parts], absent), Disparities(
        {name: join([one.measures[name] for one in found]) for name in found[0].measures},
        join([one.against_rest for one in found], absent),
        np.concatenate([one.best for one in found]),
        np.concatenate([one.worst for one in found]),
    )


def _studentise(
    scores: Scores, kept: np.ndarray, drawn: np.ndarray, resamples: Resamples, found: Disparities, intervals: Intervals
) -> tuple[Intervals, Intervals]:
    """Return the groups' means, and each group against the rest, with bootstrap-t intervals."""
    low, high = find_mean_intervals(scores.matrix, drawn, resamples)
    highest = np.where(np.isin(scores.metrics, UNIT_INTERVAL_METRICS), 1.0, np.inf)
    shown = np.isfinite(intervals.estimate)
    means = Intervals(
        intervals.estimate,
        np.where(shown, np.maximum(low, 0.0), np.nan),  # no metric is below 0
        np.where(shown, np.minimum(high, highest), np.nan),
    )
    bounds = np.full((2, *kept.shape), np.nan)
    sizes = np.array([np.isfinite(scores.matrix[resamples.groups == code]).sum(axis=0) for code in range(len(kept))])
    sizes = sizes.reshape(kept.shape) * kept
    filled = np.where(kept, drawn, 0.0)
    for code in range(len(kept)):
        rest = np.delete(sizes, code, axis=0)
        others = (np.delete(filled, code, axis=1) * rest).sum(axis=1) / np.maximum(rest.sum(axis=0), 1)
        sure = find_difference(
            scores.sign * (filled[:, code] - others),
            found.against_rest.estimate[code],
            find_rest_influence(scores.matrix, resamples.groups, kept, code, scores.sign),
            resamples,
            method="student",
        )
        bounds[:, code] = sure.low, sure.high
    return means, Intervals(found.against_rest.estimate, *bounds)


def _run_tests(
    scores: Scores, codes: np.ndarray, kept: np.ndarray, best: np.ndarray, worst: np.ndarray
) -> tuple[dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], np.ndarray, np.ndarray, Intervals]:
    """Return all tests, the p-values of the family's and of the usual one, and the effects."""
    # In the metric's direction: statistics and effects of two groups are then positive where the best group does better.
    values = _hide_small(scores.matrix, codes, kept) * scores.sign
    anova, welch, kruskal = (run(values, codes) for run in (run_one_way_anova, run_welch_anova, run_kruskal_wallis))
    whitney, student = (run(values, codes, best, worst) for run in (run_mann_whitney, run_t_test))
    brunner = run_brunner_munzel(values, codes, worst, best)  # positive where the second group tends to be higher
    two = kept.sum(axis=0) == 2
    delta = measure_cliffs_delta(values, codes, best, worst)
    epsilon = measure_epsilon_squared(values, codes)
    effect = Intervals(
        *(np.where(two, getattr(delta, name), getattr(epsilon, name)) for name in ("estimate", "low", "high"))
    )
    several = kept.sum(axis=0) >= 2
    tests = {
        "two": {ANOVA: anova, WELCH_T: student, MANN_WHITNEY: whitney, BRUNNER_MUNZEL: brunner},
        "many": {ANOVA: anova, WELCH_ANOVA: welch, KRUSKAL_WALLIS: kruskal},
    }
    p = np.where(several, np.where(two, whitney.p, kruskal.p), np.nan)
    plain = {
        kind: {name: (found.statistic, np.where(several, found.p, np.nan)) for name, found in of_kind.items()}
        for kind, of_kind in tests.items()
    }
    return plain, p, np.where(several, anova.p, np.nan), effect


def _hide_small(values: np.ndarray, codes: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the values with those of groups that are not compared in a column missing."""
    shown = np.vstack([kept, np.zeros((1, values.shape[1]), bool)])[codes]  # code −1: the last row
    return np.where(shown, values, np.nan)


def _show_interval(name: str, intervals: Intervals, column: int) -> dict[str, float]:
    return {
        name: show(intervals.estimate[column]),
        f"{name}_low": show(intervals.low[column]),
        f"{name}_high": show(intervals.high[column]),
    }


def _list_notes(compared: Compared, counts: list[int], min_group: int) -> list[str]:
    groups = compared.groups
    if not any(counts):
        return [f"no subject with a known {groups.attribute} group has a value"]
    notes = []
    small = [name for name, n in zip(groups.names, counts, strict=True) if 0 < n < min_group]
    absent = [name for name, n in zip(groups.names, counts, strict=True) if n == 0]
    if small:
        notes.append(f"too small to compare (under {min_group} subjects): {', '.join(small)}")
    if absent:
        notes.append(f"no subject in: {', '.join(absent)}")
    without = int((groups.codes >= 0).sum()) - sum(counts)
    if without:
        notes.append(f"{without} subjects have no value")
    return notes
