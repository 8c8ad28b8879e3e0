"""How many people and expert masks a margin needs, from a pilot's spread or a stated one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd

from helpers.fairness.disparity import find_margins
from helpers.fairness.groups import average_subjects
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.parameters import Fairness
from helpers.statistics.planning import (
    Question,
    count_masks,
    find_group_size,
    find_power,
    resample_power,
)
from helpers.vocabulary.measures import use_measures

CORRELATIONS = (0.5, 0.7, 0.9)  # between a proxy and the score, where none is stated
MULTIPLES = (1, 2, 5, 10)  # of the people needed with masks for everybody
_SHORT = 0.05  # a resampled power so far below the formula's is told with the number that reaches it


def plan_groups(sd: tuple[float, float], margin: float, settings: Fairness, *, tests: int = 1) -> pd.DataFrame:
    """Return the people per group that two questions need, one row each.

    ``question`` ("difference": one as large as the margin is found; "equivalence": where there is
    none, it is shown to be within the margin), ``sd_a``, ``sd_b``, ``margin``, ``alpha`` (divided
    by the number of `tests`, Bonferroni, for a difference; equivalence needs no such division),
    ``power`` and ``people_per_group`` (missing beyond a million).
    """
    rows: list[dict[str, Any]] = []
    for question in get_args(Question):
        alpha = settings.alpha / tests if question == "difference" else settings.alpha
        n = find_group_size(question, sd, margin, alpha=alpha, power=settings.power)
        row = {"question": question, "sd_a": sd[0], "sd_b": sd[1], "margin": margin, "alpha": alpha}
        rows.append(row | {"power": settings.power, "people_per_group": n})
    return pd.DataFrame(rows).astype({"people_per_group": "Int64"})


def plan_from_pilot(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    settings: Fairness,
    attributes: Sequence[str],
    metric: str,
    seed: int,
    *,
    tests: int = 1,
) -> pd.DataFrame:
    """Return :func:`plan_groups` for every model, organ and attribute of a pilot study.

    `metrics` and `cohort` are those of :func:`helpers.fairness.run_audit`. Of several groups the
    two with the largest spread count. Besides: ``n_pilot`` (people of these two groups),
    ``power_resampled`` (:func:`helpers.statistics.planning.resample_power` with so many people) and
    ``people_resampled``: the number with which resampling reaches the power, where the formula's
    falls short by more than five points, as with rare failures. Groups without spread have no row.
    """
    with use_measures(settings.measures):
        people, _ = average_subjects(metrics, cohort, attributes, [metric])
        scores, parts = Scores.spread(people, [metric]), []
        for attribute in attributes:
            groups = AttributeScores.read(people, attribute, scores, settings.min_group)
            for column in np.flatnonzero(groups.number >= 2):
                parts.append(_plan_column(groups, int(column), settings, seed, tests))
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


def plan_masks(plan: pd.DataFrame, correlations: Sequence[float] = CORRELATIONS) -> pd.DataFrame:
    """Return how few expert masks per group are enough where everybody has a proxy.

    One row per row of `plan`, ``correlation`` of proxy and score, and ``people_per_group``
    (multiples of those needed with masks for all): ``masks_per_group``
    (:func:`helpers.statistics.planning.count_masks`).
    """
    rows = []
    for row in plan[plan["people_per_group"].notna()].to_dict("records"):
        n = int(row.pop("people_per_group"))
        for correlation in correlations:
            for multiple in MULTIPLES:
                masks = count_masks(n, multiple * n, correlation)
                rows.append(
                    row | {"correlation": correlation, "people_per_group": multiple * n, "masks_per_group": masks}
                )
    return pd.DataFrame(rows)


def trace_power(row: dict[str, Any]) -> pd.DataFrame:
    """Return the power over the people per group, ``n`` and ``power``, for one row of a plan."""
    sizes = np.unique(np.geomspace(5, 3 * max(float(row["people_per_group"]), 10), 60).astype(int))
    power = [
        find_power(row["question"], (row["sd_a"], row["sd_b"]), int(n), row["margin"], row["alpha"]) for n in sizes
    ]
    return pd.DataFrame({"n": sizes, "power": power})


def _plan_column(groups: AttributeScores, column: int, settings: Fairness, seed: int, tests: int) -> pd.DataFrame:
    """Plan one model's, organ's and attribute's comparison."""
    moments = groups.grouped.moments
    spread = np.where(groups.kept[:, column], moments.variance[:, column], -np.inf)
    first, second = sorted(np.argsort(spread)[-2:])
    sd = float(np.sqrt(spread[first])), float(np.sqrt(spread[second]))
    metrics = groups.scores.metrics
    margin = float(find_margins(settings.margin, metrics, moments.mean, groups.sizes)[column])
    if max(sd) == 0 or not np.isfinite(margin):
        return pd.DataFrame()
    values = [groups.scores.matrix[groups.codes == code, column] for code in (first, second)]
    pilot = values[0][np.isfinite(values[0])], values[1][np.isfinite(values[1])]
    plan = plan_groups(sd, margin, settings, tests=tests)
    resampled = [_resample(row, pilot, seed) for row in plan.to_dict("records")]
    plan["power_resampled"], plan["people_resampled"] = zip(*resampled, strict=True)
    head = groups.name_row(column) | {"n_pilot": len(pilot[0]) + len(pilot[1])}
    head |= {"group_a": groups.names[first], "group_b": groups.names[second]}
    return pd.concat([pd.DataFrame([head] * len(plan)), plan], axis=1).astype({"people_resampled": "Int64"})


def _resample(row: dict[str, Any], pilot: tuple[np.ndarray, np.ndarray], seed: int) -> tuple[float, int | None]:
    """Return the power by resampling, and the people it takes where that is well short."""
    n = row["people_per_group"]
    if pd.isna(n):
        return np.nan, None

    def power(size: int) -> float:
        return resample_power(row["question"], pilot, size, row["margin"], row["alpha"], seed=seed)

    reached = power(int(n))
    if reached >= row["power"] - _SHORT:
        return reached, None
    size = int(n)
    while size < 20 * n:
        size = int(np.ceil(size * 1.1))
        if power(size) >= row["power"]:
            return reached, size
    return reached, None
