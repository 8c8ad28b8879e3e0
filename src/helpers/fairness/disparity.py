"""How far apart group means are: the gap and the field's summary measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers.errors import SegfairError
from helpers.parameters import RelativeMargin
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.bootstrap_differences import take_gaps
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.intervals import Intervals
from helpers.statistics.unseen_failures import UnseenFailures
from helpers.vocabulary.measures import find_measure

# Measures of spread: never below (equity-scaled: above) what equal groups have.
SPREADS = ("sd_groups", "ser", "es", "es_fairmedfm")

_CHUNK_BYTES = 2**26


def limit_gap(
    low: np.ndarray | float, high: np.ndarray | float, metric: str | Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the interval of a gap within what the metric's bounds allow: −1 to 1 for Dice.

    `low` and `high` are float64, (columns,), with each column's metric, or numbers with one.
    """
    bounds = np.array([find_measure(name).bounds for name in np.atleast_1d(metric)])
    widest = (bounds[:, 1] - bounds[:, 0]).reshape(np.shape(metric))
    return np.maximum(low, -widest), np.minimum(high, widest)


@dataclass(frozen=True)
class Disparities:
    """What :func:`estimate_disparities` found in every column."""

    # int64, (columns,): codes of the groups between which the gap is stated; −1 under two groups.
    best: np.ndarray
    worst: np.ndarray
    gap: np.ndarray  # float64, (columns,)
    # float64, (groups, columns): each group's mean less that of everybody else compared, positive
    # where the group does better.
    against_rest: np.ndarray
    spreads: dict[str, Intervals]  # by name of SPREADS, (columns,)


def find_margins(
    margin: Mapping[str, float | RelativeMargin], metrics: Sequence[str], means: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Return each column's margin in its metric's unit, float64, (columns,); NaN where none is set.

    `margin` is ``fairness.margin``; a relative one is that share of the mean error over everybody
    compared: 1 − mean for scores of which 1 is the best, else the mean itself. `means` and `sizes`
    are (groups, columns).
    """
    people = sizes.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        overall = np.where(people > 0, (np.where(sizes > 0, means, 0.0) * sizes).sum(axis=0) / people, np.nan)
    found = np.full(len(metrics), np.nan)
    for column, metric in enumerate(metrics):
        given = margin.get(metric, np.nan)
        if isinstance(given, RelativeMargin):
            error = 1.0 - overall[column] if find_measure(metric).sign > 0 else abs(overall[column])
            # Where nobody errs there is no margin that a difference could be held against.
            given = given.relative * error if error > 0 else np.nan
        found[column] = given
    return found


def find_best_and_worst(means: np.ndarray, sizes: np.ndarray, metrics: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Find the best and the worst group per column, int64, (columns,); −1 for fewer than two.

    `means` and `sizes` are (groups, columns); a group of size 0 is left out. Of equal means the
    first group is the best, the last the worst.

    Notes
    -----
    With more than two groups the largest of several differences is larger than zero even where all
    groups are alike: best − worst is biased upwards, the more so the more and the smaller the
    groups. Read it with the test over all groups; the interval is that of the difference between
    these two named groups.
    """
    better, kept = sign_metrics(metrics) * means, sizes > 0
    if not len(means):
        return np.full(len(metrics), -1), np.full(len(metrics), -1)
    best = np.where(kept, better, -np.inf).argmax(axis=0)
    worst = len(means) - 1 - np.where(kept, better, np.inf)[::-1].argmin(axis=0)
    compared = kept.sum(axis=0) >= 2
    return np.where(compared, best, -1), np.where(compared, worst, -1)


def measure_disparities(
    means: np.ndarray, sizes: np.ndarray, metrics: Sequence[str], best: np.ndarray, worst: np.ndarray
) -> dict[str, np.ndarray]:
    """Measure how far apart group means are: by name, float64, (columns,).

    `means` and `sizes`, (groups, columns), are group means and numbers of subjects (a group of size
    0 is left out); `metrics` names each column's metric, which has a direction and may lie between
    0 and 1; the gap is stated between `best` and `worst`, int, (columns,)
    (:func:`find_best_and_worst`).

    Returns
    -------
    dict of str to ndarray
        By name the measures of docs/METHODS.md, section 6: ``overall``, the mean over subjects of
        all groups compared; ``gap``, positive where `best` is better; ``sd_groups`` (Jin et al.
        2024); ``ser`` (Puyol-Antón et al. 2021), NaN where the best makes no error; ``es`` (Tian et
        al. 2024), which falls with the number of groups; ``es_fairmedfm``; ``against_rest``,
        (groups, columns), each group's mean against that of all others, positive where it does
        better. NaN where fewer than two groups are compared or a group that takes part has no mean;
        ``ser`` and both ``es`` also for metrics that do not lie between 0 and 1.
    """
    sign = sign_metrics(metrics)
    unit = np.array([find_measure(metric).is_bounded for metric in metrics])
    kept = sizes > 0
    filled = np.where(kept, means, 0.0)
    number = kept.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total, people = (filled * sizes).sum(axis=0), sizes.sum(axis=0)
        overall = np.where(number >= 2, total / people, np.nan)
        centre = filled.sum(axis=0) / number
        sd = np.sqrt((np.where(kept, filled - centre, 0.0) ** 2).sum(axis=0) / number)
        distance = np.where(kept, np.abs(filled - overall), 0.0).sum(axis=0)
        highest = np.where(kept, filled, -np.inf).max(axis=0, initial=-np.inf)
        lowest = np.where(kept, filled, np.inf).min(axis=0, initial=np.inf)
        ratio = np.where(highest < 1.0, (1.0 - lowest) / (1.0 - highest), np.nan)
        rest = (total - filled * sizes) / (people - sizes)
        against = np.where(kept, sign * (filled - rest), np.nan)
    # NaN of a group that takes part spreads to all of its column's measures.
    compared = np.where(np.isfinite(overall), 0.0, np.nan)
    shown = np.where(unit, compared, np.nan)
    return {
        "overall": overall,
        "gap": take_gaps(means, best, worst, sign) + compared,
        "sd_groups": sd + compared,
        "ser": ratio + shown,
        "es": overall / (1.0 + distance) + shown,
        "es_fairmedfm": overall / (1.0 + sd) + shown,
        "against_rest": against + compared,
    }


def estimate_disparities(
    grouped: GroupedValues, metrics: Sequence[str], drawn: np.ndarray, *, smallest_group: int = 1
) -> Disparities:
    """Estimate all measures of disparity in every column; those of spread with 95 % intervals.

    A SegfairError for a metric without a direction, or another number of metrics than of columns.

    `metrics` names each column's metric; `drawn`, float64, (draws, groups, columns), has the group
    means in resamples (:meth:`helpers.statistics.bootstrap.Resamples.draw_means`). Groups with
    fewer than `smallest_group` values in a column are left out there.

    Notes
    -----
    Measures of spread are biased upwards by chance, and no interval made of the same measure in
    resamples reaches what equal groups have. Theirs is made of the resamples' *deviations*
    (docs/METHODS.md, section 5), widened by √(n / (n − 1)) per group; both equity-scaled measures
    combine two such ranges, each at half of the error allowed (Bonferroni).
    """
    moments = grouped.moments
    if len(metrics) != moments.n.shape[1]:
        raise SegfairError(f"metrics must name the metric of each of {moments.n.shape[1]} columns; got {len(metrics)}")
    sizes = np.where(moments.n >= max(smallest_group, 1), moments.n, 0)
    best, worst = find_best_and_worst(moments.mean, sizes, metrics)
    found = measure_disparities(moments.mean, sizes, metrics, best, worst)
    step = max(_CHUNK_BYTES // (8 * max(drawn.shape[0], 1) * (grouped.groups + 7)), 1)
    parts = []
    for start in range(0, max(len(metrics), 1), step):
        part = slice(start, start + step)
        some = {name: value[..., part] for name, value in found.items()}
        parts.append(_surround_spreads(some, moments.mean[:, part], sizes[:, part], drawn[:, :, part]))
    spreads = {
        name: Intervals(found[name], *(np.concatenate([part[name][bound] for part in parts]) for bound in range(2)))
        for name in SPREADS
    }
    return Disparities(best, worst, found["gap"], found["against_rest"], spreads)


def _surround_spreads(
    found: dict[str, np.ndarray], means: np.ndarray, sizes: np.ndarray, drawn: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the bounds of the measures of spread by name; see :func:`estimate_disparities`."""
    error = 1.0 - CONFIDENCE
    kept = sizes > 0
    number, people = kept.sum(axis=0), sizes.sum(axis=0)
    overall, at = found["overall"], {name: found[name] for name in SPREADS}
    # A group of one does not vary in resamples, and widening does not help it.
    wider = np.where(kept, np.sqrt(sizes / np.maximum(sizes - 1, 1)), 0.0)

    def deviate(values: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return np.where(kept, wider * (values - centre), 0.0)

    def reach(sizes_of_deviations: np.ndarray, error: float) -> np.ndarray:
        return np.quantile(sizes_of_deviations, 1.0 - error, axis=0, method="inverted_cdf")

    with np.errstate(divide="ignore", invalid="ignore"):
        moved = deviate(drawn, means)
        middle = (moved * sizes).sum(axis=1) / people
        about = moved - moved.sum(axis=1, keepdims=True) / number
        sd = np.sqrt(np.where(kept, about**2, 0.0).sum(axis=1) / number)
        distance = np.where(kept, np.abs(moved - middle[:, None, :]), 0.0).sum(axis=1)
        logs = deviate(np.log(1.0 - drawn), np.log(1.0 - means))
        highest = np.where(kept, logs, -np.inf).max(axis=1, initial=-np.inf)
        ratio = highest - np.where(kept, logs, np.inf).min(axis=1, initial=np.inf)
        off, around = reach(sd, error), {}
        around["sd_groups"] = np.maximum(at["sd_groups"] - off, 0.0), at["sd_groups"] + off
        off = reach(ratio, error)
        around["ser"] = np.maximum(at["ser"] * np.exp(-off), 1.0), at["ser"] * np.exp(off)
        shift = reach(np.abs(middle), error / 2.0)
        for name, spread, deviation in (
            ("es", overall / at["es"] - 1.0, distance),
            ("es_fairmedfm", at["sd_groups"], sd),
        ):
            off = reach(deviation, error / 2.0)
            around[name] = (
                np.maximum(overall - shift, 0.0) / (1.0 + spread + off),
                np.minimum(overall + shift, 1.0) / (1.0 + np.maximum(spread - off, 0.0)),
            )
    known = {name: np.where(np.isfinite(estimate), 0.0, np.nan) for name, estimate in at.items()}
    return {name: (low + known[name], high + known[name]) for name, (low, high) in around.items()}


def find_unseen_failures(grouped: GroupedValues, metrics: Sequence[str]) -> UnseenFailures:
    """Find who fails in each column, by its metric, and in which groups nobody happened to."""
    worst = np.array([find_measure(metric).worst for metric in metrics], np.float64)
    return UnseenFailures.find(grouped, sign_metrics(metrics), worst)


def sign_metrics(metrics: Sequence[str]) -> np.ndarray:
    """Return each metric's sign, +1 where higher is better and −1 where lower is."""
    return np.array([find_measure(metric).sign for metric in metrics], np.float64)
