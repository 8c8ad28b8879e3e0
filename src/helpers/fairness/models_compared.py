"""Which of two models has the larger gap: the difference of their gaps, on the same people."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from helpers.fairness.score_matrix import AttributeScores
from helpers.fairness.tables import make_table
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.bootstrap_differences import find_difference
from helpers.statistics.hypothesis_tests import adjust_p_values
from helpers.vocabulary.words import ALL_MODELS


def compare_models(
    groups: AttributeScores,
    gaps: np.ndarray,
    drawn: np.ndarray,
    influence: np.ndarray,
    resamples: Resamples,
    *,
    correction: str = "holm",
) -> pd.DataFrame:
    """Compare the gaps of every two models in the same organ and metric.

    `gaps`, float64, (columns,), are best − worst group of each column; NaN where nothing is
    compared. `drawn`, float64, (draws, columns), is the same two groups' gap in each of
    `resamples`, the same people in all columns; `influence`, float64, (subjects, columns), each
    person's bearing on the gap
    (:func:`helpers.statistics.bootstrap_differences.find_gap_influence`). The `correction` is over
    all rows of the attribute (:func:`adjust_unpermuted`).

    Returns one row per organ, metric and two models with a gap (``model_gaps`` of
    :mod:`helpers.schema`). ``n`` counts the people both models have a value for; ``difference`` is
    ``gap_a`` − ``gap_b``.

    Notes
    -----
    Each model's gap is between its own best and worst group, which may be other groups for the
    other model. The choice inflates both gaps, most where there is none: it makes the comparison
    cautious, not bold. A model with the smaller gap is not the better one: look at the worst
    group's mean too.
    """
    keys = groups.scores.keys
    number = {key: column for column, key in enumerate(keys)}
    models = list(dict.fromkeys(model for model, _, _ in keys if model != ALL_MODELS))
    rows, first, second = [], [], []
    for organ, metric in dict.fromkeys((organ, metric) for _, organ, metric in keys):
        for one, other in combinations(models, 2):
            a, b = number.get((one, organ, metric)), number.get((other, organ, metric))
            if a is None or b is None or not np.isfinite(gaps[[a, b]]).all():
                continue
            first.append(a)
            second.append(b)
            row = {"organ": organ, "metric": metric, "attribute": groups.attribute, "model_a": one, "model_b": other}
            n = int((groups.grouped.known[:, a] & groups.grouped.known[:, b]).sum())
            rows.append(row | {"n": n, "gap_a": gaps[a], "gap_b": gaps[b], "difference": gaps[a] - gaps[b]})
    table = make_table(rows, "model_gaps")
    if not rows:
        return table
    found = find_difference(
        drawn[:, first] - drawn[:, second],
        gaps[first] - gaps[second],
        influence[:, first] - influence[:, second],
        resamples,
    )
    adjusted = adjust_unpermuted(found.p, correction)
    return table.assign(low=found.low, high=found.high, p=found.p, p_adjusted=adjusted)


def adjust_unpermuted(p: np.ndarray, correction: str) -> np.ndarray:
    """Adjust p-values of differences of gaps: by Holm for max-T, under which they are not equal."""
    return adjust_p_values(p, "holm" if correction == "max_t" else correction)
