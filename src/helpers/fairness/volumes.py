"""Whether a difference between groups in organ volume is still there in a model's masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.groups import POOLED, average_subjects
from helpers.fairness.models_compared import adjust_unpermuted
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import join_tables, make_table
from helpers.parameters import Fairness
from helpers.statistics.bootstrap_differences import PostSelection, find_difference, find_gap_influence, take_gaps
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.hypothesis_tests import run_welch_anova

_VOLUMES = ["volume_ref_ml", "volume_pred_ml"]


def compare_volumes(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    settings: Fairness,
    attributes: Sequence[str],
    seed: int,
    *,
    cluster: str | None = None,
) -> pd.DataFrame:
    """Compare groups in organ volume by the experts' masks and by the model's, on the same people.

    `metrics` is metrics.parquet; no rows where it has no volumes of both. A missed organ has a
    volume of 0 ml; an organ that is not in the reference does not count. `cluster` is a column of
    the cohort whose people are resampled together.

    Returns volumes.csv: one row per model, organ and attribute with two groups of ``min_group``
    people. ``reference_gap`` is the mean volume of the group in which the experts' masks are
    largest, less that in which they are smallest, ``model_gap`` the same of the model's masks in
    the same two groups. ``p_adjusted`` of the difference is over all rows, by the study's
    correction (Holm for max-T).

    Notes
    -----
    Intervals and p are those of :func:`helpers.statistics.bootstrap_differences.find_difference`;
    both volumes are resampled together, by person. Where two of several groups were picked, the
    intervals of both gaps allow for it; that of the difference need not, as the experts' masks
    alone decide which groups they are.
    """
    if not set(_VOLUMES) <= set(metrics):
        return make_table([], "volumes")
    there = (metrics["volume_ref_ml"] > 0) & metrics["volume_pred_ml"].notna()
    drawn = metrics.assign(**{name: metrics[name].where(there) for name in _VOLUMES})
    people, _ = average_subjects(drawn, cohort, attributes, _VOLUMES)
    scores = Scores.spread(people[people["organ"] != POOLED], _VOLUMES).attach_clusters(cohort, cluster)
    tables = [
        _compare_groups(AttributeScores.read(people, attribute, scores, settings.min_group), settings, seed)
        for attribute in attributes
    ]
    table = join_tables(tables, "volumes")
    return table.assign(p_adjusted=adjust_unpermuted(table["p"].to_numpy(float), settings.correction))


def _compare_groups(groups: AttributeScores, settings: Fairness, seed: int) -> pd.DataFrame:
    """Return one attribute's rows, without the adjusted p."""
    compared, places = groups.compared, groups.scores.places
    reference, model = compared.matrix[:, 0::2], compared.matrix[:, 1::2]
    values = GroupedValues(np.hstack([reference, model, model - reference]), compared.codes, compared.groups)
    means, number = values.moments.mean, len(places)
    there = values.moments.n[:, :number] > 0
    asked = there.sum(axis=0) > 1
    if not asked.any():
        return make_table([], "volumes")
    largest = np.where(asked, np.where(there, means[:, :number], -np.inf).argmax(axis=0), -1)
    smallest = np.where(asked, np.where(there, means[:, :number], np.inf).argmin(axis=0), -1)
    pair, sign = (np.tile(largest, 3), np.tile(smallest, 3)), np.ones(3 * number)
    gaps, influence = take_gaps(means, *pair, sign), find_gap_influence(values, *pair, sign)
    resamples = groups.resample(settings.bootstrap, seed)
    drawn = take_gaps(resamples.draw_means(values.matrix)[:, : len(groups.names)], *pair, sign)
    picked, chosen = slice(0, 2 * number), slice(2 * number, None)
    # Welch's p takes people of a cluster for separate: then the whole width is kept.
    chosen_p = (
        run_welch_anova(values.take(np.arange(2 * number))).p if groups.clustered is None else np.ones(2 * number)
    )
    selection = PostSelection(np.tile(there.sum(axis=0), 2), chosen_p)
    of_gaps = find_difference(drawn[:, picked], gaps[picked], influence[:, picked], resamples, selection)
    of_difference = find_difference(drawn[:, chosen], gaps[chosen], influence[:, chosen], resamples)
    rows: list[dict[str, Any]] = []
    for place in np.flatnonzero(asked):
        row: dict[str, Any] = dict(zip(("model", "organ"), places[place], strict=True))
        row |= {"attribute": groups.attribute, "n": int(values.moments.n[:, place].sum())}
        row |= {"larger_group": groups.names[largest[place]], "smaller_group": groups.names[smallest[place]]}
        for name, column in (("reference_gap", place), ("model_gap", number + place)):
            row |= {name: gaps[column], f"{name}_low": of_gaps.low[column], f"{name}_high": of_gaps.high[column]}
        row |= {"difference": gaps[2 * number + place], "p": of_difference.p[place]}
        rows.append(row | {"low": of_difference.low[place], "high": of_difference.high[place]})
    return make_table(rows, "volumes")
