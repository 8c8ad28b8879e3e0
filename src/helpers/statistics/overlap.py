"""Whether groups can be told from what they are adjusted for, or are nearly the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from helpers.statistics.covariates import Covariate, CovariateFit
from helpers.vocabulary.words import list_words, name_for_people

# People; fewer, and two groups cannot be told from a covariate. As few as min_group, if smaller.
LEAST_EXCEPTIONS = 5
LARGEST_LEVERAGE = 0.5  # of one person, above which the fit follows the person
LARGEST_BEARING = 0.1  # share of a gap's information that such people may bear
_NAMED = 3  # levels named in a sentence


def count_exceptions(first: np.ndarray, second: np.ndarray, *, ordered: bool) -> tuple[int, np.ndarray, float]:
    """Count who would be put into the wrong one of two groups if told by a covariate alone.

    `first` and `second`, float, (people,), are the covariate's known values in each group, at least
    one: numbers (`ordered`), which one cut divides between the groups, or the places of levels,
    each of which goes to the group that has more people in it.

    Returns
    -------
    exceptions : int
        As few as can be, never more than the smaller group.
    own : ndarray of float
        The levels that go to the first group; of numbers, nothing.
    cut : float
        Of numbers: the largest value of the lower group; NaN for levels.
    """
    values, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    parts = np.split(places.ravel(), [len(first)])
    counts = np.array([np.bincount(part, minlength=len(values)) for part in parts])
    if not ordered:
        mine = counts[0] > counts[1]
        return int(counts.min(axis=0).sum()), values[mine], np.nan
    below = counts.cumsum(axis=1)
    # The first group below the cut and the second above it, or the other way round.
    wrong = np.minimum(below[1] + len(first) - below[0], below[0] + len(second) - below[1])
    place = int(wrong.argmin())
    return int(wrong[place]), np.empty(0), float(values[place])


def explain_pair(
    attribute: str,
    pair: Sequence[str],
    covariate: Covariate,
    sides: Sequence[np.ndarray],
    least: float,
) -> str:
    """Say that two groups and a covariate cannot be told apart, with the counts; empty if they can.

    `sides`, int or bool, say which people are in each group. They cannot where fewer than `least`
    people are exceptions (:func:`count_exceptions`).
    """
    parts = [covariate.numbers[side] for side in sides]
    parts = [part[np.isfinite(part)] for part in parts]
    if not all(map(len, parts)):
        return ""
    if count_exceptions(parts[0], parts[1], ordered=covariate.levels is None)[0] >= least:
        return ""
    return _tell_apart(attribute, pair, covariate, parts)


def keep_linked(labels: np.ndarray, fit: CovariateFit, min_group: int) -> np.ndarray:
    """Return the labels without those of groups that overlap with no other; None instead.

    `labels` are object, (subjects,), `fit` one of them. A lone group would make a covariate that
    tells it look like the groups, and cost the others their adjustment. The labels stay as they
    are where fewer than two groups would be left.
    """
    names = np.unique(labels[fit.rows].astype(str))
    sides = [fit.rows & (labels == name) for name in names]
    apart = np.eye(len(names), dtype=bool)
    for one, other in combinations(range(len(names)), 2):
        pair = (str(names[one]), str(names[other]))
        told = (
            explain_pair("", pair, covariate, [sides[one], sides[other]], min(LEAST_EXCEPTIONS, min_group))
            for covariate in fit.covariates
        )
        apart[one, other] = apart[other, one] = any(told)
    alone = apart.all(axis=1)
    if not alone.any() or (~alone).sum() < 2:
        return labels
    linked = labels.copy()
    linked[np.isin(labels.astype(str), names[alone])] = None
    return linked


def explain_overlap(
    attribute: str,
    pair: Sequence[str],
    labels: np.ndarray,
    fit: CovariateFit,
    encoded: Sequence[Covariate],
    weights: np.ndarray,
    min_group: int,
) -> str:
    """Say why two groups of a fit cannot be compared like with like; empty where they can.

    `fit` is of groups and covariates, not too short of people; `labels`, object, (subjects,), are
    group names; `encoded` all covariates that were given; `weights`, float, (subjects in the fit,),
    each person's bearing on the gap: the row of the projection by which scores make it.

    Notes
    -----
    docs/METHODS.md, section 10. People of a leverage above :data:`LARGEST_LEVERAGE` have hardly a
    residual, so that the gap's standard error does not know of them.
    """
    mimics = {use.name for use in fit.uses if use.mimics_base}
    pooled = {covariate.name: covariate for covariate in fit.covariates}
    sides = [fit.rows & (labels == name) for name in pair]
    for covariate in encoded:
        if covariate.name not in pooled and covariate.name not in mimics:
            continue  # hardly known: there is no telling
        used = pooled.get(covariate.name, covariate)
        least = np.inf if covariate.name in mimics else min(LEAST_EXCEPTIONS, min_group)
        if why := explain_pair(attribute, pair, used, sides, least):
            return why
    followed = fit.solver.slack < 1.0 - LARGEST_LEVERAGE
    if fit.used and (weights[followed] ** 2).sum() > LARGEST_BEARING * (weights**2).sum():
        people = "one person" if followed.sum() == 1 else f"{int(followed.sum())} people"
        return (
            f"{name_for_people(attribute)} cannot be told from {list_words(map(name_for_people, fit.used))} here: "
            f"{people} alone would decide (leverage above {LARGEST_LEVERAGE:g})"
        )
    return ""


def find_apart(
    attribute: str,
    names: Sequence[str],
    labels: np.ndarray,
    fit: CovariateFit,
    encoded: Sequence[Covariate],
    min_group: int,
) -> dict[tuple[int, int], str]:
    """Return why groups cannot be compared (:func:`explain_overlap`), by the places of each two.

    `names` are the groups in the order of the fit's first parameters. Those that can are absent.
    """
    weights = fit.solver.projection[: len(names)]
    told = {
        (one, other): explain_overlap(
            attribute, (names[one], names[other]), labels, fit, encoded, weights[one] - weights[other], min_group
        )
        for one, other in combinations(range(len(names)), 2)
    }
    return {pair: why for pair, why in told.items() if why}


def _tell_apart(attribute: str, pair: Sequence[str], covariate: Covariate, parts: Sequence[np.ndarray]) -> str:
    """Return the sentence: nearly all 13 in “female” have scanner B, all 11 in ….

    `parts` are the covariate's values in each group.
    """
    name = name_for_people(covariate.name)
    _, own, cut = count_exceptions(parts[0], parts[1], ordered=covariate.levels is None)
    if covariate.levels is None:
        low = [part <= cut for part in parts]
        agree, where = [low[0], ~low[1]], [f"up to {cut:.4g}", f"above {cut:.4g}"]
        if low[0].mean() < low[1].mean():
            agree, where = [~low[0], low[1]], where[::-1]
    else:
        mine = [np.isin(part, own) for part in parts]
        agree = [mine[0], ~mine[1]]
        where = [_name_levels(covariate, part[kept]) for part, kept in zip(parts, agree, strict=True)]
    first, second = (
        # How many have not is a number of few people.
        f"{'' if kept.all() else 'nearly '}all {len(kept)} in “{group}” have"
        for group, kept in zip(pair, agree, strict=True)
    )
    counts = f"{first} {name} {where[0]}, {second} {where[1]}"
    return f"{name_for_people(attribute)} and {name} cannot be told apart here: {counts}"


def _name_levels(covariate: Covariate, values: np.ndarray) -> str:
    """Return the levels that people have, the most frequent first, or how many they are."""
    places, counts = np.unique(values, return_counts=True)
    names = [str((covariate.levels or ())[int(place)]) for place in places[np.argsort(-counts, kind="stable")]]
    shown = names if len(names) <= _NAMED + 1 else [*names[:_NAMED], f"{len(names) - _NAMED} others"]
    return list_words(shown, last="or") if names else "another"
