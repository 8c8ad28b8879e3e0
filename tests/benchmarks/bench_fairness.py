"""Time the statistics of a large audit next to pingouin, scipy and fairlearn, on the same data in
the same run.

``python tests/benchmarks/bench_fairness.py`` prints a Markdown table: 1056 people, 5 organs × 4
models × 6 metrics, 3 attributes, 10,000 resamples, 5,000 permutations. Ours is measured whole, in a
fresh process; the last line is the audit itself, from the tables of a study to the tables of its
audit. The others take hours: each is timed on the small part that its row states, and the time of
the whole is that part times the number of parts. Before a time counts, both must have given the
same answer. fairlearn is optional (``pip install -e '.[benchmark]' -c constraints.txt``); its row
is left out where it is absent.
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

import numpy as np
import pandas as pd

from helpers.fairness import run_audit
from helpers.fairness.disparity import SPREADS, estimate_disparities, find_best_and_worst
from helpers.parameters import Fairness
from helpers.performance import add_expected_dice
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.bootstrap_differences import (
    find_difference,
    find_gap_influence,
    find_mean_intervals,
    take_gaps,
)
from helpers.statistics.effects import measure_epsilon_squared
from helpers.statistics.equivalence import judge_columns
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import run_kruskal_wallis, run_one_way_anova, run_welch_anova
from helpers.statistics.permuted_means import permute_means

SUBJECTS, ORGANS, MODELS, DRAWS, PERMUTATIONS = 1056, 5, 4, 10_000, 5_000
METRICS = ("dice", "nsd", "iou", "precision", "hd95_mm", "boundary_error_mm")
GROUPS = (2, 3, 4)
ATTRIBUTES = ("sex", "age", "bmi")
COLUMNS = ORGANS * MODELS * len(METRICS)
NAMES = list(METRICS) * (ORGANS * MODELS)
DISTANCES = ("hd95_mm", "boundary_error_mm")

# What the others are timed on.
SLOW_COLUMNS = 3
FAIRLEARN_COLUMNS, FAIRLEARN_DRAWS = 2, (200, 600)
SLOW_PERMUTATIONS = 3


def draw_cohort() -> tuple[np.ndarray, np.ndarray]:
    """Skewed scores that are correlated within people, 2 % missing, and the groups of three
    attributes."""
    generator = np.random.default_rng(0)
    latent = generator.standard_normal((SUBJECTS, 1)) + generator.standard_normal((SUBJECTS, COLUMNS))
    values = np.exp(-0.1 * np.exp(0.5 * latent))
    groups = np.column_stack([generator.integers(0, number, SUBJECTS) for number in GROUPS])
    groups[generator.random(groups.shape) < 0.03] = -1
    values[groups[:, 0] == 1] -= 0.02
    values[generator.random(values.shape) < 0.02] = np.nan
    distances = np.isin(NAMES, DISTANCES)
    values[:, distances] = 20 * (1 - values[:, distances])
    return values, groups


def time_call(call: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def resample(groups: np.ndarray, attribute: int) -> Resamples:
    streams = tuple(f"{attribute} {group}" for group in range(GROUPS[attribute]))
    return Resamples(groups[:, attribute], DRAWS, 0, streams)


def run_tests(values: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    runs = (run_one_way_anova, run_welch_anova, run_kruskal_wallis)
    found = []
    for codes in groups.T:
        grouped = GroupedValues(values, codes)
        found += [run(grouped).p for run in runs] + [measure_epsilon_squared(grouped).low]
    return found


def bound_means_and_gaps(values: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the studentised bounds of every group's mean, and of the gap between best and worst,
    last."""
    bounds = []
    sign = np.where(np.isin(NAMES, DISTANCES), -1.0, 1.0)
    for attribute in range(len(GROUPS)):
        grouped = GroupedValues(values, groups[:, attribute])
        resamples = resample(groups, attribute)
        drawn = resamples.draw_means(values)
        moments = grouped.moments
        best, worst = find_best_and_worst(moments.mean, moments.n, NAMES)
        low, high = find_mean_intervals(grouped, drawn, resamples)
        gap = find_difference(
            take_gaps(drawn, best, worst, sign),
            take_gaps(moments.mean, best, worst, sign),
            find_gap_influence(grouped, best, worst, sign),
            resamples,
        )
        bounds.append((np.vstack([low, gap.low]), np.vstack([high, gap.high])))
    return bounds


def measure_ours() -> dict[str, float]:
    """Run everything once, in a process of its own."""
    values, groups = draw_cohort()
    seconds = {}
    seconds["tests"], _ = time_call(lambda: run_tests(values, groups))
    seconds["permutations"], family = time_call(
        lambda: permute_means(
            [GroupedValues(values, codes) for codes in groups.T], permutations=PERMUTATIONS, seed=0, smallest_group=10
        )
    )
    joint = family.differences.adjust(np.ones(family.differences.p.shape, bool))
    seconds["bootstrap"], _ = time_call(lambda: bound_means_and_gaps(values, groups))

    def measure_all() -> None:
        for attribute in range(len(GROUPS)):
            grouped = GroupedValues(values, groups[:, attribute])
            estimate_disparities(grouped, NAMES, resample(groups, attribute).draw_means(values))
            judge_columns(grouped, np.full(COLUMNS, 0.02), joint[attribute])

    seconds["disparities"], _ = time_call(measure_all)
    seconds["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds


def make_study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the same scores as metrics.parquet, with sizes of organs, and cohort.parquet with ages
    and BMI as numbers too."""
    values, groups = draw_cohort()
    generator = np.random.default_rng(1)
    names = [f"p{number:04d}" for number in range(SUBJECTS)]
    places = [(f"model {model}", f"organ {organ}") for model in range(MODELS) for organ in range(ORGANS)]
    parts = []
    for place, (model, organ) in enumerate(places):
        first = place * len(METRICS)
        scores = dict(zip(METRICS, values[:, first : first + len(METRICS)].T, strict=True))
        volumes = 200.0 * np.exp(0.2 * generator.standard_normal(SUBJECTS))
        parts.append(pd.DataFrame({"subject": names, "scan": names, "model": model, "organ": organ} | scores))
        parts[-1] = parts[-1].assign(volume_ref_ml=volumes, surface_ref_cm2=6.5 * volumes ** (2 / 3))
    cohort = pd.DataFrame({"subject": names, "scan": names, "number": range(SUBJECTS)})
    for codes, name, number in zip(groups.T, ATTRIBUTES, GROUPS, strict=True):
        labels = [f"group {group}" for group in range(number)]
        cohort[f"group_{name}"] = pd.Categorical.from_codes(codes, labels, ordered=True)
        cohort[name] = np.where(codes >= 0, 20.0 * codes + generator.uniform(20, 40, SUBJECTS), np.nan)
    return add_expected_dice(pd.concat(parts, ignore_index=True)), cohort.drop(columns="sex")


def measure_audit() -> dict[str, float]:
    """Audit the study once, in a process of its own."""
    metrics, cohort = make_study()
    settings = Fairness(metrics=list(METRICS), correction="max_t", bootstrap=DRAWS, permutations=PERMUTATIONS)
    seconds, _ = time_call(lambda: run_audit(metrics, cohort, settings, ATTRIBUTES, 0))
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def list_parts(values: np.ndarray, codes: np.ndarray, column: int) -> list[np.ndarray]:
    known = np.isfinite(values[:, column])
    return [values[known & (codes == group), column] for group in range(codes.max() + 1)]


def find_error(parts: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))


def check_same(ours: np.ndarray, theirs: np.ndarray, error: float, share: float = 0.22) -> None:
    """Refuse bounds that differ by more than chance: 4 × 0.054 standard errors for 10,000 resamples
    of either.

    0.054 is the spread of the difference of two such bounds, measured over 80 seeds of either side.
    """
    if np.abs(np.asarray(ours) - theirs).max() > share * error:
        raise AssertionError(f"the answers differ: {ours} and {theirs}, standard error {error}")


def time_scipy_bootstrap(values: np.ndarray, groups: np.ndarray, bounds: list) -> float:
    """Time the same studentised intervals by scipy.stats.bootstrap; return seconds of the whole.

    No package has bootstrap-t: scipy resamples t itself, all resamples at once, and its quantiles
    are taken.
    """
    from scipy import stats

    codes, (low, high) = groups[:, 0], bounds[0]
    generator = np.random.default_rng(1)
    seconds_mean = seconds_gap = 0.0

    def draw_t(parts: list[np.ndarray]) -> tuple[float, float, np.ndarray]:
        def find_gap(*samples: np.ndarray, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
            means = [sample.mean(axis) for sample in samples]
            squared = sum(sample.var(axis, ddof=1) / sample.shape[axis] for sample in samples)
            return means[0] - (means[1] if len(means) > 1 else 0.0), np.sqrt(squared)

        estimate, error = find_gap(*parts)

        def studentise(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
            gap, own = find_gap(*samples, axis=axis)
            return (gap - estimate) / own

        found = stats.bootstrap(parts, studentise, n_resamples=DRAWS, method="percentile", rng=generator)
        return estimate, error, found.bootstrap_distribution

    for column in range(SLOW_COLUMNS):
        parts = list_parts(values, codes, column)
        for group, part in enumerate(parts):
            taken, (mean, error, t) = time_call(lambda part=part: draw_t([part]))
            seconds_mean += taken / (SLOW_COLUMNS * len(parts))
            theirs = mean - np.quantile(t, [0.975, 0.025]) * error
            check_same([low[group, column], high[group, column]], theirs, error)
        ordered = sorted(parts, key=lambda part: -part.mean())
        taken, (gap, error, t) = time_call(lambda ordered=ordered: draw_t(ordered))
        seconds_gap += taken / SLOW_COLUMNS
        reach = np.quantile(np.abs(t), 0.95) * error
        check_same([low[2, column], high[2, column]], np.array([gap - reach, gap + reach]), error)
    # Means of groups of one half, a third and a quarter of the people; taken as proportional to
    # their size.
    return COLUMNS * (
        seconds_mean * len(GROUPS) * GROUPS[0] + seconds_gap * sum(GROUPS[0] / number for number in GROUPS)
    )


def time_fairlearn_bootstrap(values: np.ndarray, groups: np.ndarray) -> float | None:
    """Time two numbers of draws for the first attribute; return seconds of the whole by the line
    through both."""
    try:
        from fairlearn.metrics import MetricFrame
    except ImportError:
        return None

    def average(_: pd.Series, scores: pd.Series) -> float:
        return float(np.mean(scores))

    taken = []
    for draws in FAIRLEARN_DRAWS:
        seconds = 0.0
        for column in range(FAIRLEARN_COLUMNS):
            known = np.isfinite(values[:, column]) & (groups[:, 0] >= 0)
            scores, codes = values[known, column], groups[known, 0]

            def make(scores=scores, codes=codes, draws=draws) -> MetricFrame:
                return MetricFrame(
                    metrics=average,
                    y_true=scores,
                    y_pred=scores,
                    sensitive_features=codes,
                    n_boot=draws,
                    ci_quantiles=[0.025, 0.975],
                    random_state=1,
                )

            spent, frame = time_call(make)
            seconds += spent / FAIRLEARN_COLUMNS
            # Its intervals are percentiles of the draws: so are these.
            drawn = Resamples(codes, DRAWS, 0, ("a", "b")).draw_means(scores[:, None])
            ours = np.quantile(drawn[:, :, 0], [0.025, 0.975], axis=0)
            for group in range(2):
                theirs = np.array([frame.by_group_ci[bound].loc[group] for bound in range(2)])
                # A few hundred draws of theirs: a bound's standard error is 2.7 / √draws of a
                # standard error.
                check_same(ours[:, group], theirs, find_error([scores[codes == group]]), 10 / np.sqrt(draws))
        taken.append(seconds)
    slope = (taken[1] - taken[0]) / (FAIRLEARN_DRAWS[1] - FAIRLEARN_DRAWS[0])
    return COLUMNS * len(GROUPS) * (taken[0] + slope * (DRAWS - FAIRLEARN_DRAWS[0]))


def time_permutations(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Time Welch's analysis of variance under a few permutations; return seconds of the whole for
    pingouin and for scipy."""
    import pingouin
    from scipy import stats

    generator = np.random.default_rng(1)
    pingouin_seconds = scipy_seconds = 0.0
    for _ in range(SLOW_PERMUTATIONS):
        for codes in groups.T:
            order = codes.copy()
            order[codes >= 0] = generator.permutation(codes[codes >= 0])
            ours = run_welch_anova(GroupedValues(values, order)).statistic
            # scipy takes all columns in one call.
            parts = [values[order == group] for group in range(codes.max() + 1)]
            seconds, theirs = time_call(
                lambda parts=parts: stats.f_oneway(*parts, axis=0, nan_policy="omit", equal_var=False)
            )
            scipy_seconds += seconds
            np.testing.assert_allclose(ours, theirs.statistic, rtol=1e-9, atol=1e-9)
            table = pd.DataFrame({"value": values[:, 0], "group": order})[order >= 0]
            seconds, theirs = time_call(
                lambda table=table: pingouin.welch_anova(data=table, dv="value", between="group")
            )
            pingouin_seconds += seconds * COLUMNS
            np.testing.assert_allclose(ours[0], theirs["F"].iloc[0], rtol=1e-9, atol=1e-9)
    return tuple(PERMUTATIONS / SLOW_PERMUTATIONS * seconds for seconds in (pingouin_seconds, scipy_seconds))


def time_tests(values: np.ndarray, groups: np.ndarray) -> float:
    """Time pingouin's three tests on a few columns; return seconds of the whole."""
    import pingouin

    seconds = 0.0
    for codes in groups.T:
        for column in range(SLOW_COLUMNS):
            table = pd.DataFrame({"value": values[:, column], "group": codes})[codes >= 0]
            for ours, run in (
                (run_one_way_anova, pingouin.anova),
                (run_welch_anova, pingouin.welch_anova),
                (run_kruskal_wallis, pingouin.kruskal),
            ):
                taken, theirs = time_call(lambda run=run, table=table: run(data=table, dv="value", between="group"))
                seconds += taken / SLOW_COLUMNS
                np.testing.assert_allclose(
                    ours(GroupedValues(values[:, [column]], codes)).p[0], theirs["p_unc"].iloc[0], rtol=1e-8
                )
    return seconds * COLUMNS


def describe(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def main() -> None:
    warnings.simplefilter("ignore")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        ours = pool.submit(measure_ours).result()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        audited = pool.submit(measure_audit).result()
    values, groups = draw_cohort()
    bounds = bound_means_and_gaps(values, groups)
    by_pingouin, by_scipy = time_permutations(values, groups)
    tests = COLUMNS * len(GROUPS)
    intervals = COLUMNS * (sum(GROUPS) + len(GROUPS))
    rows = [
        (
            f"{3 * tests} tests (ANOVA, Welch, Kruskal–Wallis); ours with {tests} effect intervals as well",
            "tests",
            f"pingouin, {3 * len(GROUPS) * SLOW_COLUMNS} tests",
            time_tests(values, groups),
        ),
        (
            f"{tests} tests × {PERMUTATIONS:,} permutations",
            "permutations",
            f"pingouin.welch_anova, {len(GROUPS) * SLOW_PERMUTATIONS} calls",
            by_pingouin,
        ),
        (
            "the same",
            "permutations",
            f"scipy.stats.f_oneway, {SLOW_PERMUTATIONS} permutations, all columns in one call",
            by_scipy,
        ),
        (
            f"{intervals} studentised intervals of means and gaps, {DRAWS:,} resamples",
            "bootstrap",
            f"scipy.stats.bootstrap of t, {3 * SLOW_COLUMNS} intervals",
            time_scipy_bootstrap(values, groups, bounds),
        ),
    ]
    fairlearn = time_fairlearn_bootstrap(values, groups)
    if fairlearn is not None:
        part = (
            f"fairlearn MetricFrame, {FAIRLEARN_COLUMNS} columns, {' and '.join(map(str, FAIRLEARN_DRAWS))} resamples"
        )
        rows.append(
            (
                f"percentile intervals of {COLUMNS * sum(GROUPS)} means (ours: studentised, as above)",
                "bootstrap",
                part,
                fairlearn,
            )
        )
    print("| what | ours, whole | other, whole (by extrapolation) | timed part of the other | times faster |")
    print("|---|---|---|---|---|")
    for what, key, part, other in rows:
        print(f"| {what} | {describe(ours[key])} | {describe(other)} | {part} | {other / ours[key]:,.0f} |")
    number = COLUMNS * len(GROUPS) * len(SPREADS)
    what = f"{number} intervals of measures of spread, and {tests} verdicts"
    print(f"| {what} | {describe(ours['disparities'])} | | | |")
    whole = sum(ours[name] for name in ("tests", "permutations", "bootstrap", "disparities"))
    print(f"\nOurs all together: {whole:.1f} s, peak memory {ours['peak_mb']:,.0f} MB.")
    print(
        "The whole audit of this study, adjusted gaps, matching, trends and intersections included:"
        f" {describe(audited['seconds'])}, peak memory {audited['peak_mb']:,.0f} MB."
    )
    names = ["numpy", "scipy", "pingouin", *(["fairlearn"] if fairlearn is not None else [])]
    print(f"{platform.machine()}, Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in names)}.")


if __name__ == "__main__":
    main()
