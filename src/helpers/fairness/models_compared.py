"""Is one model fairer than another: the difference of their gaps, on the same people."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from helpers.fairness.score_matrix import Groups, Scores
from helpers.fairness.tables import MODEL_GAP_COLUMNS, make_table, show
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.bootstrap_differences import find_difference
from helpers.statistics.hypothesis_tests import adjust_p_values


def compare_models(
    scores: Scores,
    groups: Groups,
    gaps: np.ndarray,
    drawn: np.ndarray,
    influence: np.ndarray,
    resamples: Resamples,
    *,
    correction: str = "holm",
    method: str = "student",
) -> pd.DataFrame:
    """Compare the gaps of every two models in the same organ and metric.

    Parameters
    ----------
    scores : Scores
    groups : Groups
    gaps : ndarray of float64, (columns,)
        Best − worst group of each column; NaN where nothing is compared.
    drawn : ndarray of float64, (draws, columns)
        The same two groups' gap in each resample, the same people in all columns.
    influence : ndarray of float64, (subjects, columns)
        Each person's bearing on the gap (:func:`helpers.statistics.bootstrap_differences.find_gap_influence`).
    resamples : Resamples
        What `drawn` comes from.
    correction : {"holm", "fdr_bh", "max_t", "none"}
        Over all rows of the attribute; Holm's in place of max-T, whose permutations do not keep two models' gaps equal.
    method : {"student", "bca", "percentile"}

    Returns
    -------
    DataFrame
        One row per organ, metric and two models with a gap (columns of :data:`helpers.fairness.tables.MODEL_GAP_COLUMNS`). ``n`` counts the
        people both models have a value for; ``difference`` is ``gap_a`` − ``gap_b``, above 0 where the first model's gap is the larger one.

    Notes
    -----
    Each model's gap is between its own best and worst group, which may be other groups for the other model. The choice inflates
    both gaps, most where there is none: it makes the comparison cautious, not bold. A model with the smaller gap is not the better one: look at
    the worst group's mean too.
    """
    number = {key: column for column, key in enumerate(scores.keys)}
    grouped = (groups.codes >= 0)[:, None] & np.isfinite(scores.matrix)
    rows, first, second = [], [], []
    models = list(dict.fromkeys(model for model, _, _ in scores.keys))
    for organ, metric in dict.fromkeys((organ, metric) for _, organ, metric in scores.keys):
        for one, other in combinations(models, 2):
            a, b = number.get((one, organ, metric)), number.get((other, organ, metric))
            if a is None or b is None or not np.isfinite(gaps[[a, b]]).all():
                continue
            first.append(a)
            second.append(b)
            rows.append(
                {
                    "organ": organ,
                    "metric": metric,
                    "attribute": groups.attribute,
                    "model_a": one,
                    "model_b": other,
                    "n": int((grouped[:, a] & grouped[:, b]).sum()),
                    "gap_a": show(gaps[a]),
                    "gap_b": show(gaps[b]),
                    "difference": show(gaps[a] - gaps[b]),
                }
            )
    if not rows:
        return make_table([], MODEL_GAP_COLUMNS)
    draws = drawn[:, first] - drawn[:, second]
    difference = gaps[first] - gaps[second]
    bearing = influence[:, first] - influence[:, second]
    found = find_difference(draws, difference, bearing, resamples, method=method)
    table = make_table(rows, MODEL_GAP_COLUMNS)
    adjusted = adjust_p_values(found.p, "holm" if correction == "max_t" else correction)
    return table.assign(low=found.low, high=found.high, p=found.p, p_adjusted=adjusted)
