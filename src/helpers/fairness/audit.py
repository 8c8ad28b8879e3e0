"""The audit: scores and groups → every table on how far groups differ, how surely, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.errors import SegfairError
from helpers.fairness.confounding import (
    adjust_attribute,
    choose_covariates,
    explain_same,
    fit_attribute,
    is_numeric,
    match_attribute,
    measure_volumes,
)
from helpers.fairness.group_comparison import (
    GroupComparison,
    compare_attribute,
    compare_pairs,
    describe_contrasts,
    describe_disparity,
    describe_groups,
    describe_tests,
    find_unseen_shares,
    judge_attribute,
)
from helpers.fairness.groups import EXPECTED, POOLED, average_subjects, read_covariates
from helpers.fairness.input_checks import refuse_repeated_scores
from helpers.fairness.intersections import pool_intersections
from helpers.fairness.models_compared import adjust_unpermuted
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import CELL_COLUMNS, KEY_COLUMNS, SIZE_COLUMNS, join_tables, make_table
from helpers.parameters import Fairness
from helpers.schema import TABLES
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.hypothesis_tests import adjust_p_values
from helpers.statistics.max_t import run_max_t
from helpers.vocabulary.measures import use_measures
from helpers.vocabulary.verdicts import Verdict

LARGEST_TABLE = 60  # cells of the intersections: with more hardly one of them holds enough people to be shown

INTERVAL_METHOD = "studentised bootstrap (bootstrap-t)"
_CORRECTIONS = {
    "holm": "Holm (family-wise error rate)",
    "fdr_bh": "Benjamini–Hochberg (false discovery rate)",
    "max_t": "permutation of people, step-down max-T (family-wise error rate)",
    "none": "none",
}
_HOW = {
    "holm": "adjusted together by Holm's method",
    "fdr_bh": "adjusted together by Benjamini and Hochberg's method",
    "max_t": "adjusted together by permuting people (Westfall and Young's step-down method)",
    "none": "made and not adjusted",
}


@dataclass(frozen=True)
class Audit:
    """What :func:`run_audit` found: see there for the tables."""

    groups: pd.DataFrame
    disparity: pd.DataFrame
    tests: pd.DataFrame
    pairs: pd.DataFrame
    contrasts: pd.DataFrame
    adjusted_means: pd.DataFrame
    adjusted_notes: pd.DataFrame
    matching: pd.DataFrame
    balance: pd.DataFrame
    trends: pd.DataFrame
    trend_tests: pd.DataFrame
    intersections: pd.DataFrame
    intersection_variance: pd.DataFrame
    model_gaps: pd.DataFrame
    # (model, organ, metric, attribute) of every test whose p-value was adjusted together.
    family: list[tuple[str, str, str, str]]
    notes: list[str]  # what had to be decided on the way, in sentences
    settings: Fairness

    def describe(self) -> pd.DataFrame:
        """Return the family of tests, the settings and the notes as a table of item and text."""
        rows = [("tests adjusted together", str(len(self.family)))]
        for place, part in enumerate(("models", "organs", "metrics", "attributes")):
            found = list(dict.fromkeys(test[place] for test in self.family))
            rows.append((f"{part} in the family", ", ".join(found) or "none"))
        rows += [
            ("correction", _CORRECTIONS[self.settings.correction]),
            ("significance level", f"{self.settings.alpha:g}"),
            ("smallest group compared", f"{self.settings.min_group} subjects"),
            (
                "intervals",
                f"{CONFIDENCE:.0%} {INTERVAL_METHOD}, {self.settings.bootstrap} resamples of subjects within groups",
            ),
        ]
        rows += [("note", note) for note in self.notes]
        return pd.DataFrame(rows, columns=["item", "value"])


def run_audit(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    fairness: Fairness,
    attributes: Sequence[str],
    seed: int,
    *,
    confounders: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    sizes: pd.DataFrame | None = None,
) -> Audit:
    """Compare the groups of every attribute on every metric, organ and model.

    A SegfairError where a column is missing, or rows cannot be matched
    (:mod:`helpers.fairness.input_checks`).

    Parameters
    ----------
    metrics : DataFrame
        metrics.parquet: one row per scan, model and organ.
    cohort : DataFrame
        cohort.parquet's included scans, with ``number`` and ``group_<attribute>``; where it also
        has an attribute's own column of numbers (age, bmi), that is adjusted for, and followed as a
        trend.
    fairness : Fairness
        Metrics, smallest group, margins, correction, numbers of resamples and permutations.
    attributes : list of str
    seed : int
        Equal seeds give equal intervals.
    confounders : list of str
        Columns of the cohort adjusted for besides the other attributes: they may explain a
        difference.
    units : mapping of str, optional
        Units by attribute, for the slopes of trends.
    sizes : DataFrame, optional
        metrics.parquet, where `metrics` is something else measured on the same scans (how
        annotators agree): several rows per scan, model and organ are then averaged, else they are
        refused.

    Returns
    -------
    Audit
        Rows are of a model, organ, metric and attribute where nothing else is said. Rows with organ
        ``"all"`` pool a subject's organs (:func:`average_subjects`); a study of one organ has none.
        Words that do not apply are empty text, numbers NaN. Groups under ``min_group`` subjects
        take no part in any comparison and have no figures. "Better" is by the metric's direction;
        volume errors are compared by their absolute value.

        ``groups``: one row per group, too small ones ``suppressed``. ``n`` counts subjects with a
        value.

        ``disparity``: ``gap`` is best − worst group mean in the metric's unit, never negative; its
        interval is that of the difference between these two named groups, which may cross 0.
        ``es``, ``es_fairmedfm``, ``ser``, ``sd_groups``:
        :func:`helpers.fairness.disparity.measure_disparities`. ``p`` is Mann–Whitney's or
        Kruskal–Wallis', ``p_adjusted`` the same adjusted over the family; ``effect_size``
        (rank-biserial r) is negative where the group with the better mean does not have the better
        typical person. ``adjusted_gap`` is the gap between the same two groups adjusted for all
        other attributes and the confounders (:mod:`helpers.fairness.adjustment`), ``adjusted_p``
        its test over all groups, not adjusted for the family. ``expected_gap`` is what the organs'
        size explains of a Dice gap, ``excess_gap`` the rest, ``excess_p`` the level at which a
        bound of its interval is 0 and ``excess_p_adjusted`` the same adjusted over all excess gaps;
        absent where Dice or its expectation is not among the metrics. ``detectable`` is the minimum
        detectable difference between any two of the groups (one pair tested at alpha, with the
        power asked for); ``verdict`` as in :mod:`helpers.statistics.equivalence`, "not compared"
        where there are no two groups. ``note`` says why there is no number.

        ``tests``: every test of a row, not adjusted, for comparison with other publications;
        statistics of two groups are positive where the best group does better. ``pairs``: where the
        test over more than two groups is significant, all pairs of them. ``contrasts``: each group
        against everybody else who is compared. ``adjusted_means``, ``adjusted_notes``: the groups'
        adjusted means, and which covariates were used or left out, and why. ``matching``,
        ``balance``: the gap among pairs of people who are alike, and how alike they are.
        ``trends``, ``trend_tests``: attributes that are numbers, as curves and slopes, for at least
        twice ``min_group`` people. ``intersections``, ``intersection_variance``: all attributes
        together, without a row per attribute. ``model_gaps``: which of two models has the larger
        gap, on the same people.

    Notes
    -----
    *Intervals.* Subjects are resampled with replacement within each group. One set of draws per
    attribute and group serves all models, organs and metrics, so what is measured on the same
    people stays paired. Intervals of means and of differences are studentised
    (:mod:`helpers.statistics.bootstrap_differences`); how often they hold the truth:
    docs/validity.md. Those of the gap, the excess gap and the adjusted gap allow for two of several
    groups having been picked (:func:`helpers.statistics.selection_adjustment.widen_for_choice`);
    that of the matched gap does not.

    *Family.* Every Mann–Whitney or Kruskal–Wallis test made, pooled rows included, over all models,
    organs, metrics and attributes, is one family: whatever row a reader picks is covered. With
    ``max_t`` the adjusted p is that of the permutations, but never below the test's own. All other
    p-values answer questions of their own or repeat one for comparison: they are not adjusted for
    the family.

    *Verdicts* rest on Welch's intervals of all pairs of groups at Šidák's level, not on the
    bootstrap's, because their guarantees are proven there; with the p adjusted over the family.
    """
    with use_measures(fairness.measures):
        return _run_audit(metrics, cohort, fairness, attributes, seed, confounders, units or {}, sizes)


def _run_audit(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    fairness: Fairness,
    attributes: Sequence[str],
    seed: int,
    confounders: Sequence[str],
    units: Mapping[str, str],
    sizes: pd.DataFrame | None,
) -> Audit:
    names = list(fairness.metrics)
    if metrics.empty:
        raise SegfairError("metrics has no rows: run 03_performance again, after 01_cohort has included somebody")
    people, notes = average_subjects(metrics, cohort, attributes, names)
    if sizes is None:
        refuse_repeated_scores(metrics)
    scores = Scores.spread(people, names)
    groups = [AttributeScores.read(people, attribute, scores, fairness.min_group) for attribute in attributes]
    compared = [compare_attribute(one, fairness, seed) for one in groups]
    disparity, pairs = _tabulate(compared, _adjust_family(scores, compared, fairness, seed), fairness)
    volumes = None
    if fairness.adjust_for_volume:
        volumes = measure_volumes(metrics if sizes is None else sizes, scores)
    explained = _explain(cohort, compared, volumes, fairness, seed, confounders, units, notes)
    disparity = _fill_adjusted(disparity, explained.pop("gaps"), explained["adjusted_notes"])
    if EXPECTED not in people or "dice" not in names:
        disparity = disparity.drop(columns=SIZE_COLUMNS)
    intersections, variances = _cross_attributes(scores, groups, fairness, notes)
    tested = disparity[disparity["p"].notna()]
    family = list(tested[list(KEY_COLUMNS)].itertuples(index=False, name=None))
    notes.append(_describe_family(family, fairness, POOLED in set(people["organ"])))
    return Audit(
        groups=join_tables([describe_groups(one) for one in compared], "groups"),
        disparity=disparity,
        tests=join_tables([describe_tests(one) for one in compared], "tests"),
        pairs=pairs,
        contrasts=join_tables([describe_contrasts(one) for one in compared], "contrasts"),
        intersections=intersections,
        intersection_variance=variances,
        model_gaps=join_tables([one.model_gaps for one in compared], "model_gaps"),
        family=family,
        notes=notes,
        settings=fairness,
        **explained,
    )


def _adjust_family(scores: Scores, compared: Sequence[GroupComparison], settings: Fairness, seed: int) -> np.ndarray:
    """Return the p-values of all tests adjusted together, (attributes, columns)."""
    p = np.array([one.tests.p for one in compared]).reshape(len(compared), len(scores.keys))
    if settings.correction != "max_t":
        return adjust_p_values(p.ravel(), settings.correction).reshape(p.shape)
    if not np.isfinite(p).any():
        return p
    codes = np.column_stack([one.groups.codes for one in compared])
    family = run_max_t(
        scores.matrix, codes, permutations=settings.permutations, seed=seed, smallest_group=settings.min_group
    )
    return np.maximum(family.p_step_down, p)


def _tabulate(
    compared: Sequence[GroupComparison], adjusted_p: np.ndarray, settings: Fairness
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of disparity.csv with their verdicts, and those of pairs.csv."""
    rows, pairs = [], []
    for one, p in zip(compared, adjusted_p, strict=True):
        judged = judge_attribute(one, p, settings)
        unseen = find_unseen_shares(one, judged, settings)
        detectable = np.fmax.reduce(judged.detectable, axis=0, initial=np.nan)
        for column, row in enumerate(describe_disparity(one, settings)):
            verdict = str(judged.verdict[column]) or Verdict.NOT_COMPARED.value
            row |= {"p_adjusted": p[column], "detectable": detectable[column], "verdict": verdict}
            rows.append(row | {"unseen_share": unseen[column]})
        pairs.append(compare_pairs(one.groups, p, settings.alpha))
    table = make_table(rows, "disparity")
    table["excess_p_adjusted"] = adjust_unpermuted(table["excess_p"].to_numpy(float), settings.correction)
    columns = TABLES["disparity"].columns
    numbers = [one.name for one in columns if one.kind != "text" and one.name not in ("n", "groups")]
    return table.astype(dict.fromkeys(numbers, float)), join_tables(pairs, "pairs")


def _explain(
    cohort: pd.DataFrame,
    compared: Sequence[GroupComparison],
    volumes: pd.DataFrame | None,
    settings: Fairness,
    seed: int,
    confounders: Sequence[str],
    units: Mapping[str, str],
    notes: list[str],
) -> dict[str, pd.DataFrame]:
    """Return the tables on what else differs between the groups, and the adjusted ``gaps``."""
    attributes = [one.groups.attribute for one in compared]
    absent = [name for name in dict.fromkeys(confounders) if name not in cohort and name not in attributes]
    notes += [
        f"the confounder {name} is not in the cohort's table: the adjusted gaps do not allow for it" for name in absent
    ]
    if volumes is not None:
        notes.append("adjusted gaps and trends are also adjusted for the organ's size (log volume of the reference)")
    confounders = [name for name in confounders if name not in absent]
    subjects = compared[0].groups.scores.subjects if compared else np.empty(0, str)
    known = read_covariates(cohort, subjects, [name for name in (*attributes, *confounders) if name in cohort])
    labels = pd.DataFrame({one.groups.attribute: one.groups.labels for one in compared}, index=known.index)
    names = ("adjusted_means", "adjusted_notes", "matching", "balance", "trends", "trend_tests")
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in ("gaps", *names)}
    for one in compared:
        attribute = one.groups.attribute
        covariates = choose_covariates(attribute, attributes, confounders, known, labels)
        same = [said for name in (*attributes, *confounders) if (said := explain_same(attribute, name, known))]
        notes += [f"not held equal when groups by {attribute} are compared: {said}" for said in same]
        found = {**adjust_attribute(one, covariates, volumes, same), **match_attribute(one, covariates)}
        if attribute in known and is_numeric(known[attribute]):
            found |= fit_attribute(one.groups, known[attribute], covariates, volumes, seed, units)
        for name, table in found.items():
            parts[name].append(table)
    gaps = pd.concat(parts["gaps"], ignore_index=True) if parts["gaps"] else pd.DataFrame()
    return {"gaps": gaps} | {name: join_tables(parts[name], name) for name in names}


def _fill_adjusted(disparity: pd.DataFrame, gaps: pd.DataFrame, adjusted_notes: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the adjusted gaps and their notes, whose rows are in the same order."""
    reasons = [
        f"no adjusted gap: {note}" if note and np.isfinite(gap) else ""
        for note, gap in zip(adjusted_notes["note"], disparity["gap"], strict=True)
    ]
    said = zip(disparity["note"], adjusted_notes["warnings"], reasons, strict=True)
    notes = ["; ".join(filter(None, parts)) for parts in said]
    return disparity.assign(**{name: gaps[name].to_numpy(float) for name in gaps}, note=notes)


def _cross_attributes(
    scores: Scores, groups: Sequence[AttributeScores], settings: Fairness, notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of intersections.csv and intersection_variance.csv."""
    taken = [one for one in groups if len(one.names) > 1]
    while len(taken) > 2 and np.prod([len(one.names) for one in taken]) > LARGEST_TABLE:
        notes.append(
            f"{taken[-1].attribute} is left out of the intersections: they would have more than {LARGEST_TABLE} cells"
        )
        taken = taken[:-1]
    names = [one.attribute for one in taken]
    columns = [*KEY_COLUMNS[:3], *names, *CELL_COLUMNS]
    clashes = sorted({*KEY_COLUMNS, *CELL_COLUMNS, "column"} & set(names))
    if len(taken) < 2 or clashes:
        why = (
            f"an attribute is called {', '.join(clashes)}"
            if clashes
            else "they need two attributes with two groups each"
        )
        notes.append(f"no intersections were made: {why}")
        nothing = pd.DataFrame([], columns=[*KEY_COLUMNS[:3], *CELL_COLUMNS])
        return nothing, make_table([], "intersection_variance")
    table = pd.DataFrame({one.attribute: pd.Categorical(one.labels, one.names) for one in taken}, index=scores.subjects)
    found = pool_intersections(scores.matrix, table, min_group=settings.min_group)
    keys = pd.DataFrame(scores.keys, columns=list(KEY_COLUMNS[:3]))

    def name_columns(part: pd.DataFrame) -> pd.DataFrame:
        head = keys.iloc[part["column"].to_numpy(int)].reset_index(drop=True)
        return pd.concat([head, part.drop(columns="column").reset_index(drop=True)], axis=1)

    variances = name_columns(found.variances)
    return name_columns(found.cells)[columns], make_table(variances.to_dict("records"), "intersection_variance")


def _describe_family(family: list[tuple[str, str, str, str]], fairness: Fairness, pooled: bool) -> str:
    if not family:
        return "no test was made: no attribute has two groups that are large enough"
    parts = [len({test[place] for test in family}) for place in range(4)]
    words = ("models", "organs", "metrics", "attributes")
    extent = ", ".join(f"{n} {word[:-1] if n == 1 else word}" for n, word in zip(parts, words, strict=True))
    including = f' ("{POOLED}", the organs pooled, counts as one)' if pooled else ""
    return f"{len(family)} tests were {_HOW[fairness.correction]}: {extent}{including}"
