"""Which of two models has the larger gap: the difference of their gaps, on the same people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.disparity import Disparities
from helpers.fairness.score_matrix import AttributeScores
from helpers.fairness.tables import make_table
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.bootstrap_differences import find_difference, find_gap_influence, take_gaps
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import adjust_p_values
from helpers.vocabulary.words import ALL_MODELS

_LESS = np.array([1.0, -1.0])  # the first model's gap less the second's


def compare_models(
    groups: AttributeScores,
    found: Disparities,
    drawn: np.ndarray,
    influence: np.ndarray,
    resamples: Resamples,
    *,
    correction: str = "holm",
) -> pd.DataFrame:
    """Compare the gaps of every two models in the same organ and metric, on the same people.

    `found` names the best and the worst group of each column. `drawn`, float64, (draws, columns),
    is the same two groups' gap in each of `resamples`, the same people in all columns; `influence`,
    float64, (subjects, columns), each person's bearing on the gap
    (:func:`helpers.statistics.bootstrap_differences.find_gap_influence`). The `correction` is over
    all rows of the attribute (:func:`adjust_unpermuted`).

    Returns one row per organ, metric and two models with a gap (``model_gaps`` of
    :mod:`helpers.schema`). ``n`` counts the people both models have a value for, of whom both gaps
    are; ``note`` says how many others there are. ``difference`` is ``gap_a`` − ``gap_b``.

    Notes
    -----
    Each model's gap is between its own best and worst group, which may be other groups for the
    other model. The choice inflates both gaps, most where there is none: it makes the comparison
    cautious, not bold. A model with the smaller gap is not the better one: look at the worst
    group's mean too.
    """
    keys, known, gaps = groups.scores.keys, groups.grouped.known, found.gap
    number = {key: column for column, key in enumerate(keys)}
    models = list(dict.fromkeys(model for model, _, _ in keys if model != ALL_MODELS))
    rows: list[dict[str, Any]] = []
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    compared: list[tuple[int, int]] = []
    for organ, metric in dict.fromkeys((organ, metric) for _, organ, metric in keys):
        pairs = [
            (number[one, organ, metric], number[other, organ, metric])
            for one, other in combinations(models, 2)
            if {(one, organ, metric), (other, organ, metric)} <= set(number)
            and np.isfinite(gaps[[number[one, organ, metric], number[other, organ, metric]]]).all()
        ]
        unlike = [pair for pair in pairs if (known[:, pair[0]] != known[:, pair[1]]).any()]
        common = dict(zip(unlike, _measure_common(groups, found, unlike, resamples), strict=True))
        for a, b in pairs:
            both = known[:, a] & known[:, b]
            others = int((known[:, a] | known[:, b]).sum() - both.sum())
            row: dict[str, Any] = {"organ": organ, "metric": metric, "attribute": groups.attribute}
            row |= {"model_a": keys[a][0], "model_b": keys[b][0], "n": int(both.sum())}
            measured = common.get((a, b), (gaps[[a, b]], drawn[:, [a, b]], influence[:, [a, b]]))
            if others:
                row["note"] = f"{others} people have a value of one of the two models alone and take no part"
            if not np.isfinite(measured[0]).all():
                row["note"] += f"; fewer than {groups.min_group} people of a compared group have both"
            rows.append(row | dict(zip(("gap_a", "gap_b"), measured[0], strict=True)))
            compared.append((a, b))
            parts.append((measured[0] @ _LESS, measured[1] @ _LESS, measured[2] @ _LESS))
    table = make_table(rows, "model_gaps")
    if not rows:
        return table
    estimate = np.array([part[0] for part in parts])
    draws, bearing = (np.column_stack([part[place] for part in parts]) for place in (1, 2))
    first, second = (
        groups.unseen.reach_gap(found.best[list(columns)], found.worst[list(columns)], columns)
        for columns in zip(*compared, strict=True)
    )
    sure = find_difference(draws, estimate, bearing, resamples, unseen=first.subtract(second))
    adjusted = adjust_unpermuted(sure.p, correction)
    return table.assign(difference=estimate, low=sure.low, high=sure.high, p=sure.p, p_adjusted=adjusted)


def _measure_common(
    groups: AttributeScores, found: Disparities, pairs: Sequence[tuple[int, int]], resamples: Resamples
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return both gaps, their draws and people's bearing on them, of those who have both values.

    NaN where a compared group has fewer than `min_group` such people.
    """
    if not pairs:
        return []
    matrix, columns = groups.grouped.matrix, np.array(pairs).ravel()
    both = np.repeat(np.column_stack([np.isfinite(matrix[:, list(pair)]).all(axis=1) for pair in pairs]), 2, axis=1)
    shared = GroupedValues(np.where(both, matrix[:, columns], np.nan), groups.codes, groups.grouped.groups)
    best, worst, sign = found.best[columns], found.worst[columns], groups.scores.sign[columns]
    places = np.arange(len(columns))
    few = np.minimum(shared.moments.n[best, places], shared.moments.n[worst, places]) < groups.min_group
    estimate = np.where(few, np.nan, take_gaps(shared.moments.mean, best, worst, sign))
    drawn = take_gaps(resamples.draw_means(shared.matrix)[:, : len(groups.names)], best, worst, sign)
    influence = find_gap_influence(shared, best, worst, sign)
    return [
        (estimate[place : place + 2], drawn[:, place : place + 2], influence[:, place : place + 2])
        for place in range(0, len(columns), 2)
    ]


def adjust_unpermuted(p: np.ndarray, correction: str) -> np.ndarray:
    """Adjust p-values of differences of gaps: by Holm for max-T, under which they are not equal."""
    return adjust_p_values(p, "holm" if correction == "max_t" else correction)
