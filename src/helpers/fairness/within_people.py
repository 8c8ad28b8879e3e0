"""Attributes of scans, such as contrast phase or scanner: everybody is compared with themself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from helpers.fairness.groups import average_subjects, find_changing, list_groups
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.statistics.grouped_values import GroupedValues

LEAST_SHARE = 0.2  # of people whose scans are in several groups, from which on they alone are compared


def list_of_scans(cohort: pd.DataFrame, attributes: Sequence[str], min_group: int) -> dict[str, list[str]]:
    """Return the attributes that are compared within people, and who has scans in several groups.

    Those which change between the scans of :data:`LEAST_SHARE` of the people who have a group, and
    of `min_group` at least. Numbers (age, BMI) never are: somebody who crosses a limit between two
    scans is no one's control. `cohort` is that of :func:`average_subjects`.
    """
    found = {}
    for attribute in attributes:
        changing = find_changing(cohort, attribute)
        known = cohort.loc[cohort[f"group_{attribute}"].notna(), "subject"].nunique()
        number = attribute in cohort and pd.api.types.is_numeric_dtype(cohort[attribute])
        if not number and len(changing) >= max(min_group, LEAST_SHARE * known):
            found[attribute] = changing
    return found


def compare_within(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    attribute: str,
    changing: Sequence[str],
    scores: Scores,
    min_group: int,
    pooled_models: Collection[str],
) -> AttributeScores:
    """Return the groups of an attribute of scans, measured on people who have scans in several.

    `scores` are everybody's, whose columns are taken over. Rows are of a person and a group, and
    people (or their clusters) are what is drawn and tested.

    Notes
    -----
    The groups' means are those of the model value = person + group, by least squares
    (docs/METHODS.md, section 10). Everybody stands in every group with the mean and, added, their
    influence on it (A⁺ Σ residuals; pseudo-values: Andersen & Perme 2010, *Statistical Methods in
    Medical Research* 19:71), so that errors and resamples made from people are those of the
    estimate. Groups with fewer than `min_group` people in a column have no values there.
    """
    own = cohort[cohort["subject"].isin(changing) & cohort[f"group_{attribute}"].notna()]
    whose = own["subject"].astype(str) + "\x1f" + own[f"group_{attribute}"].astype(str)
    renamed = whose.set_axis(own["scan"])
    scored = metrics[metrics["scan"].isin(own["scan"])]
    scored = scored.assign(subject=scored["scan"].map(renamed))
    names = list(dict.fromkeys(scores.metrics))
    people, _ = average_subjects(scored, own.assign(subject=whose), [attribute], names, pooled_models=pooled_models)
    spread = Scores.spread(people, names)
    groups = list_groups(own[f"group_{attribute}"])
    persons = np.unique([name.split("\x1f")[0] for name in spread.subjects])
    values = np.full((len(persons), len(groups), len(scores.keys)), np.nan)
    columns = {key: column for column, key in enumerate(spread.keys)}
    taken = [column for column, key in enumerate(scores.keys) if key in columns]
    split = [name.split("\x1f") for name in spread.subjects]
    rows = np.searchsorted(persons, [person for person, _ in split])
    places = [groups.index(group) for _, group in split]
    given = spread.matrix[:, [columns[scores.keys[column]] for column in taken]]
    values[np.array(rows)[:, None], np.array(places)[:, None], np.array(taken)[None, :]] = given
    for column in taken:
        values[:, :, column] = _make_pseudo_values(values[:, :, column], min_group)
    clusters = np.arange(len(persons))
    if scores.clusters is not None:
        site = pd.Series(scores.clusters, index=scores.subjects).reindex(persons).to_numpy()
        clusters = np.where(site >= 0, site, scores.clusters.max() + 1 + clusters)
    matrix = values.reshape(-1, len(scores.keys))
    codes = np.tile(np.arange(len(groups)), len(persons))
    within = replace(
        scores,
        subjects=np.repeat(persons, len(groups)),
        matrix=matrix,
        expected=None,
        boundary=None,
        clusters=np.repeat(clusters, len(groups)),
        cluster_names=(),
    )
    return AttributeScores(
        within, attribute, groups, GroupedValues(matrix, codes, len(groups)), min_group, within_people=True
    )


def _make_pseudo_values(values: np.ndarray, min_group: int) -> np.ndarray:
    """Return each person's pseudo-value in each group, (people, groups), of one column.

    NaN for people with fewer than two groups, and in groups too small.
    """
    result = np.full(values.shape, np.nan)
    known = np.isfinite(values)
    while True:
        known = known & (known.sum(axis=1) > 1)[:, None]
        large = known.sum(axis=0) >= max(min_group, 2)
        if not (known & ~large).any():
            break
        known = known & large
    people, groups = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    if len(groups) < 2:
        return result
    there = known[np.ix_(people, groups)].astype(float)
    filled = np.where(there > 0, values[np.ix_(people, groups)], 0.0)
    number = there.sum(axis=1)
    information = np.diag(there.sum(axis=0)) - (there / number[:, None]).T @ there
    inverse = np.linalg.pinv(information, hermitian=True)
    centred = there * (filled - filled.sum(axis=1, keepdims=True) / number[:, None])
    effects = inverse @ centred.sum(axis=0)
    residual = there * (centred - (effects - (there @ effects / number)[:, None]))
    level = ((filled - there * effects).sum(axis=1) / number).mean()
    result[np.ix_(people, groups)] = level + effects + len(people) * residual @ inverse
    return result
