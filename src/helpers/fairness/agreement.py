"""Agreement of people, or of repeated prompts, per group: and models' gaps beside the gap among people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.audit import audit
from helpers.fairness.disparity import find_best_and_worst
from helpers.fairness.groups import average_subjects
from helpers.fairness.score_matrix import Groups, Scores
from helpers.fairness.tables import (
    AGAINST_COLUMNS,
    AGREEMENT_COLUMNS,
    AGREEMENT_GROUP_COLUMNS,
    join_tables,
    make_table,
    show,
)
from helpers.parameters import Fairness
from helpers.statistics.bootstrap import Resamples, draw_group_means
from helpers.statistics.bootstrap_differences import Choice, find_difference, find_gap_influence, take_gaps
from helpers.statistics.hypothesis_tests import adjust_p_values, run_welch_anova, summarise_columns

# No model's name can hold a space.
ANNOTATORS = "between annotators"
KINDS = {
    "annotators": "how well people agree with each other, each two of them compared",
    "prompts": "how well a model's masks agree when its prompts are drawn again",
}


@dataclass(frozen=True)
class Agreement:
    """What :func:`audit_agreement` found: see there.

    Attributes
    ----------
    disparity, groups, against : DataFrame
    notes : list of str
        What had to be decided on the way, in sentences.
    """

    disparity: pd.DataFrame
    groups: pd.DataFrame
    against: pd.DataFrame
    notes: list[str]


def audit_agreement(
    measured: Mapping[str, pd.DataFrame],
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    fairness: Fairness,
    attributes: Sequence[str],
    seed: int,
    *,
    confounders: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
) -> Agreement:
    """Compare the groups in agreement, by the same statistics as in a model's scores.

    Parameters
    ----------
    measured : mapping of str to DataFrame
        By kind (:data:`KINDS`): subject, scan, model, organ and those of the study's metrics that agreement is measured in; any
        number of rows per scan, model and organ (pairs of annotators), which are averaged. ``annotators`` has one model, :data:`ANNOTATORS`.
        A kind that was not measured is absent or empty.
    metrics : DataFrame
        metrics.parquet, whose gaps are set beside those of the annotators.
    cohort, fairness, attributes, seed, confounders, units
        As in :func:`helpers.fairness.audit.audit`.

    Returns
    -------
    Agreement
        ``groups`` and ``disparity`` are the tables of the audit, with the ``kind``; agreement stands in the place of a score. ``against``
        has one row per model, organ, metric and attribute with annotators: the model's ``gap`` between its best and its worst group, the gap
        in the annotators' agreement between *the same two groups* (negative where they agree better on the model's worst group),
        and the difference of both with its interval: above 0, the model's gap is larger than what the annotators' would explain.

    Notes
    -----
    Each kind is a family of tests of its own, beside the study's; the rows of ``against`` are corrected together per attribute. People whose
    masks disagree more often have organs that are harder to draw, or scans that are harder to read: a model's gap of that
    size is one that people share. It is not for that reason a fair one.
    """
    disparity, groups, notes = [], [], []
    for kind, table in measured.items():
        names = [name for name in fairness.metrics if name in table]
        if table.empty or not names:
            continue
        found = audit(
            table,
            cohort,
            fairness.model_copy(update={"metrics": names}),
            attributes,
            seed,
            confounders=confounders,
            units=units,
            repeated=True,
        )
        disparity.append(found.disparity.assign(kind=kind))
        groups.append(found.groups.assign(kind=kind))
        notes.append(f"{kind}: {KINDS[kind]}; {found.notes[-1]}")
    people = measured.get("annotators", pd.DataFrame())
    against = make_table([], AGAINST_COLUMNS)
    if len(people):
        against = compare_with_annotators(metrics, people, cohort, fairness, attributes, seed)
    return Agreement(
        join_tables([table[list(AGREEMENT_COLUMNS)] for table in disparity], AGREEMENT_COLUMNS),
        join_tables([table[list(AGREEMENT_GROUP_COLUMNS)] for table in groups], AGREEMENT_GROUP_COLUMNS),
        against,
        notes,
    )


def compare_with_annotators(
    metrics: pd.DataFrame,
    agreement: pd.DataFrame,
    cohort: pd.DataFrame,
    fairness: Fairness,
    attributes: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Set every model's gap beside that in the annotators' agreement, between the same two groups of the same people.

    Parameters
    ----------
    metrics, agreement : DataFrame
        As in :func:`audit_agreement`; the rows of `agreement` have the one model :data:`ANNOTATORS`.
    cohort, fairness, attributes, seed
        As there.

    Returns
    -------
    DataFrame
        Columns of :data:`helpers.fairness.tables.AGAINST_COLUMNS`; rows where both have two groups large enough.
    """
    names = [name for name in fairness.metrics if name in agreement and name in metrics]
    if not names:
        return make_table([], AGAINST_COLUMNS)
    kept = ["subject", "scan", "model", "organ", *names]
    people, _ = average_subjects(pd.concat([metrics[kept], agreement[kept]]), cohort, attributes, names)
    scores = Scores.spread(people, names)
    parts = [
        _compare_attribute(scores, Groups.read(people, name, scores.subjects), fairness, seed) for name in attributes
    ]
    return join_tables(parts, AGAINST_COLUMNS)


def _compare_attribute(scores: Scores, groups: Groups, settings: Fairness, seed: int) -> pd.DataFrame:
    codes = groups.codes
    moments = summarise_columns(scores.matrix, codes)
    sizes = np.where(moments.n >= settings.min_group, moments.n, 0)
    best, worst = find_best_and_worst(moments.mean, sizes, scores.metrics)
    number = {key: column for column, key in enumerate(scores.keys)}
    theirs = np.array([number[ANNOTATORS, organ, metric] for _, organ, metric in scores.keys])
    asked = [
        column
        for column, (model, _, _) in enumerate(scores.keys)
        if model != ANNOTATORS
        and best[column] >= 0
        and (sizes[[best[column], worst[column]], theirs[column]] > 0).all()
    ]
    if not asked:
        return make_table([], AGAINST_COLUMNS)
    best, worst, sign, people = best[asked], worst[asked], scores.sign[asked], theirs[asked]
    # The streams of the audit itself, so that a model's gap has the very interval that it has there.
    count = len(groups.names)
    strata = np.where(codes < 0, count, codes)
    streams = [f"{groups.attribute}\x1f{name}" for name in (*groups.names, "")]
    resamples = Resamples(strata, settings.bootstrap, seed, tuple(streams))
    drawn = draw_group_means(scores.matrix, strata, draws=settings.bootstrap, seed=seed, streams=streams)
    large = np.vstack([sizes[:, asked] > 0, np.zeros((1, len(asked)), bool)])
    p = run_welch_anova(np.where(large[codes], scores.matrix[:, asked], np.nan), codes).p
    picked = Choice(
        large.sum(axis=0), p
    )  # the model's own gap is between the best and the worst; the people's is not theirs
    found: list[Any] = []
    gaps, draws, influences = [], [], []
    for columns in (asked, people):
        means = moments.mean[:, columns]
        gaps.append(take_gaps(means, best, worst, sign))
        draws.append(take_gaps(drawn[:, :count, columns], best, worst, sign))
        influences.append(find_gap_influence(scores.matrix[:, columns], codes, best, worst, sign))
    gaps.append(gaps[0] - gaps[1])
    draws.append(draws[0] - draws[1])
    influences.append(influences[0] - influences[1])
    for gap, draw, influence, choice in zip(gaps, draws, influences, (picked, None, None), strict=True):
        found.append(find_difference(draw, gap, influence, resamples, method=settings.interval, choice=choice))
    adjusted = adjust_p_values(found[2].p, "holm" if settings.correction == "max_t" else settings.correction)
    # People in a group that is compared, in both.
    compared = np.vstack([(sizes[:, asked] > 0) & (sizes[:, people] > 0), np.zeros((1, len(asked)), bool)])[codes]
    both = np.isfinite(scores.matrix[:, asked]) & np.isfinite(scores.matrix[:, people]) & compared
    rows = []
    for place, column in enumerate(asked):
        model, organ, metric = scores.keys[column]
        row: dict[str, Any] = {"model": model, "organ": organ, "metric": metric, "attribute": groups.attribute}
        row |= {"n": int(both[:, place].sum()), "p": show(found[2].p[place]), "p_adjusted": show(adjusted[place])}
        row |= {"best_group": groups.names[best[place]], "worst_group": groups.names[worst[place]]}
        for name, ends, part in (
            ("gap", "gap", 0),
            ("annotators_gap", "annotators", 1),
            ("difference", "", 2),
        ):
            low, high = (f"{ends}_low", f"{ends}_high") if ends else ("low", "high")
            row |= {
                name: show(gaps[part][place]),
                low: show(found[part].low[place]),
                high: show(found[part].high[place]),
            }
        rows.append(row)
    return make_table(rows, AGAINST_COLUMNS)
