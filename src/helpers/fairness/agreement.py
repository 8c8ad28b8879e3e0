"""Agreement of annotators, or of repeated prompts, per group, and models' gaps beside theirs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.audit import run_audit
from helpers.fairness.disparity import find_best_and_worst
from helpers.fairness.groups import average_subjects
from helpers.fairness.models_compared import adjust_unpermuted
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import join_tables, make_table
from helpers.parameters import Fairness
from helpers.schema import TABLES
from helpers.statistics.bootstrap_differences import PostSelection, find_difference, find_gap_influence, take_gaps
from helpers.statistics.hypothesis_tests import run_welch_anova

# No model's name can hold a space.
ANNOTATORS = "between annotators"
KINDS = {
    "annotators": "how well annotators agree with each other, each two of them compared",
    "prompts": "how well a model's masks agree when its prompts are drawn again",
}


@dataclass(frozen=True)
class Agreement:
    """What :func:`audit_agreement` found: three tables, and in sentences what was decided."""

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
    ordered: Collection[str] = (),
    cluster: str | None = None,
) -> Agreement:
    """Compare the groups in agreement, by the same statistics as in a model's scores.

    `measured` has, by kind (:data:`KINDS`), subject, scan, model, organ and those of the study's
    metrics that agreement is measured in; any number of rows per scan, model and organ (pairs of
    annotators), which are averaged. ``annotators`` has one model, :data:`ANNOTATORS`; a kind that
    was not measured is absent or empty. `metrics` is metrics.parquet, whose gaps are set beside
    those of the annotators; the rest is as in :func:`helpers.fairness.audit.run_audit`.

    Of what is found, ``groups`` and ``disparity`` are the tables of the audit, with the ``kind``;
    agreement stands in the place of a score. ``against`` sets a model's gap between its best and
    its worst group beside that in the annotators' agreement between *the same two groups* (negative
    where they agree better on the model's worst group): a difference above 0 is what the
    annotators' would not explain. Each kind has families of tests of its own; the rows of
    ``against`` are adjusted together per attribute. People whose masks disagree more often have
    organs that are harder to draw, or scans that are harder to read. That does not excuse a gap.
    """
    disparity, groups, notes = [], [], []
    for kind, table in measured.items():
        names = [name for name in fairness.metrics if name in table]
        if table.empty or not names:
            continue
        found = run_audit(
            table,
            cohort,
            fairness.model_copy(update={"metrics": names}),
            attributes,
            seed,
            confounders=confounders,
            units=units,
            sizes=metrics,
            ordered=ordered,
            cluster=cluster,
        )
        disparity.append(found.disparity.assign(kind=kind))
        groups.append(found.groups.assign(kind=kind))
        notes.append(f"{kind}: {KINDS[kind]}; {found.notes[-1]}")
    people = measured.get("annotators", pd.DataFrame())
    against = make_table([], "against_agreement")
    if len(people):
        against = compare_with_annotators(metrics, people, cohort, fairness, attributes, seed, cluster=cluster)
    return Agreement(
        join_tables([table[TABLES["agreement"].names] for table in disparity], "agreement"),
        join_tables([table[TABLES["agreement_groups"].names] for table in groups], "agreement_groups"),
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
    *,
    cluster: str | None = None,
) -> pd.DataFrame:
    """Set every model's gap beside the annotators', between the same two groups of the same people.

    `agreement` has rows of the one model :data:`ANNOTATORS`. Gives
    ``against_agreement`` of :mod:`helpers.schema`; rows where both have two groups large enough.
    """
    names = [name for name in fairness.metrics if name in agreement and name in metrics]
    if not names:
        return make_table([], "against_agreement")
    kept = ["subject", "scan", "model", "organ", *names]
    people, _ = average_subjects(pd.concat([metrics[kept], agreement[kept]]), cohort, attributes, names)
    scores = Scores.spread(people, names).attach_clusters(cohort, cluster)
    # Drawn as in the audit itself, so that a model's gap has the very interval that it has there.
    scores = replace(scores, expected=None, boundary=None)
    parts = [
        _compare_attribute(AttributeScores.read(people, name, scores, fairness.min_group), fairness, seed)
        for name in attributes
    ]
    return join_tables(parts, "against_agreement")


def _compare_attribute(groups: AttributeScores, settings: Fairness, seed: int) -> pd.DataFrame:
    """Return one attribute's rows of against_agreement.csv."""
    scores, sizes, means = groups.scores, groups.sizes, groups.grouped.moments.mean
    best, worst = find_best_and_worst(means, sizes, scores.metrics)
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
        return make_table([], "against_agreement")
    best, worst, sign, people = best[asked], worst[asked], scores.sign[asked], theirs[asked]
    resamples = groups.resample(settings.bootstrap, seed)
    drawn = resamples.draw_means(scores.matrix)
    gaps, draws, influences = [], [], []
    for columns in (asked, people):
        gaps.append(take_gaps(means[:, columns], best, worst, sign))
        draws.append(take_gaps(drawn[:, : len(groups.names), columns], best, worst, sign))
        influences.append(find_gap_influence(groups.grouped.take(columns), best, worst, sign))
    for parts in (gaps, draws, influences):
        parts.append(parts[0] - parts[1])
    # The model's own gap is between its best and its worst group; the annotators' is between the
    # same two.
    chosen = run_welch_anova(groups.compared.take(asked)).p if groups.clustered is None else np.ones(len(asked))
    picked = PostSelection(groups.number[asked], chosen)
    unseen = [groups.unseen.reach_gap(best, worst, columns) for columns in (asked, people)]
    asked_of = zip(gaps, draws, influences, (picked, None, None), (*unseen, unseen[0].subtract(unseen[1])), strict=True)
    found = [
        find_difference(draw, gap, influence, resamples, selection, off)
        for gap, draw, influence, selection, off in asked_of
    ]
    adjusted = adjust_unpermuted(found[2].p, settings.correction)
    # People in a group that is compared, in both.
    kept = groups.kept[:, asked] & groups.kept[:, people]
    both = np.isfinite(groups.grouped.take(asked).keep(kept).matrix) & np.isfinite(scores.matrix[:, people])
    rows = []
    for place, column in enumerate(asked):
        row: dict[str, Any] = groups.name_row(column) | {
            "n": int(both[:, place].sum()),
            "best_group": groups.names[best[place]],
            "worst_group": groups.names[worst[place]],
            "p": found[2].p[place],
            "p_adjusted": adjusted[place],
        }
        for part, (name, low, high) in enumerate(
            (
                ("gap", "gap_low", "gap_high"),
                ("annotators_gap", "annotators_low", "annotators_high"),
                ("difference", "low", "high"),
            )
        ):
            row |= {name: gaps[part][place], low: found[part].low[place], high: found[part].high[place]}
        rows.append(row)
    return make_table(rows, "against_agreement")
