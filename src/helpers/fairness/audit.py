"""The audit: scores and groups → every table on how far groups differ, how surely, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.errors import SegfairError
from helpers.fairness.confounding import (
    adjust_attribute,
    choose_covariates,
    explain_same,
    explain_within,
    find_roles,
    fit_attribute,
    is_numeric,
    match_attribute,
    measure_volumes,
)
from helpers.fairness.families import adjust_tests, name_families, name_family
from helpers.fairness.group_comparison import (
    GroupComparison,
    compare_attribute,
    compare_pairs,
    describe_contrasts,
    describe_disparity,
    describe_groups,
    describe_tests,
    find_told_gaps,
    find_unseen_shares,
    hold_zero,
    judge_attribute,
)
from helpers.fairness.groups import EXPECTED, POOLED, average_subjects, read_covariates, refuse_repeated_scores
from helpers.fairness.incomplete import mark_incomplete
from helpers.fairness.intersections import pool_intersections
from helpers.fairness.models_compared import adjust_unpermuted
from helpers.fairness.ranking import rank_attributes
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.sites import compare_sites, share_variance
from helpers.fairness.tables import CELL_COLUMNS, KEY_COLUMNS, SIZE_COLUMNS, join_notes, join_tables, make_table
from helpers.fairness.within_people import compare_within, list_of_scans
from helpers.parameters import Fairness
from helpers.schema import TABLES
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.clustered import refer_to_clusters
from helpers.statistics.permuted_means import PermutedMeans, PermutedTests, permute_means
from helpers.vocabulary.measures import use_measures
from helpers.vocabulary.verdicts import Verdict
from helpers.vocabulary.words import CLUSTERED_TEST, DECIDING_TEST, FAMILIES

LARGEST_TABLE = 60  # cells of the intersections: with more hardly one of them holds enough people to be shown

INTERVAL_METHOD = "studentised bootstrap (bootstrap-t)"
_CORRECTIONS = {
    "holm": "Holm (family-wise error rate)",
    "fdr_bh": "Benjamini–Hochberg (false discovery rate)",
    "max_t": "step-down max-T on the same permutations (family-wise error rate)",
    "none": "none",
}
_HOW = {
    "holm": "adjusted together by Holm's method",
    "fdr_bh": "adjusted together by Benjamini and Hochberg's method",
    "max_t": "adjusted together by Westfall and Young's step-down method",
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
    ranking: pd.DataFrame
    sites: pd.DataFrame
    site_summary: pd.DataFrame
    variance: pd.DataFrame
    # (model, organ, metric, attribute) of every test that was adjusted, by the family's name.
    families: dict[str, list[tuple[str, str, str, str]]]
    notes: list[str]  # what had to be decided on the way, in sentences
    settings: Fairness
    clustered: bool = False  # whether errors, resamples and tests are made from clusters

    def describe(self) -> pd.DataFrame:
        """Return the families of tests, the settings and the notes as a table of item and text."""
        test = f"{DECIDING_TEST}, {self.settings.permutations} permutations of people"
        rows = [("test that decides", CLUSTERED_TEST if self.clustered else test)]
        rows += [(f"tests adjusted together: {name}", str(len(tests))) for name, tests in self.families.items()]
        tested = [test for tests in self.families.values() for test in tests]
        for place, part in enumerate(("models", "organs", "metrics", "attributes")):
            found = list(dict.fromkeys(test[place] for test in tested))
            rows.append((part, ", ".join(found) or "none"))
        rows += [
            ("primary metric", self.settings.primary),
            ("family", FAMILIES[self.settings.family]),
            ("correction", _CORRECTIONS[self.settings.correction]),
            ("significance level", f"{self.settings.alpha:g}"),
            ("smallest group compared", f"{self.settings.min_group} subjects"),
            (
                "intervals",
                f"{CONFIDENCE:.0%} {INTERVAL_METHOD}, {self.settings.bootstrap} resamples of "
                + ("whole clusters" if self.clustered else "subjects within groups"),
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
    ordered: Collection[str] = (),
    pooled_models: Collection[str] | None = None,
    cluster: str | None = None,
) -> Audit:
    """Compare the groups of every attribute on every metric, organ and model.

    A SegfairError where a column is missing, or rows cannot be matched
    (:func:`helpers.fairness.groups.average_subjects`).

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
    ordered : collection of str
        Attributes whose groups stand in an order, and are tested for a trend over it too.
    pooled_models : collection of str, optional
        Models that rows of ``"all models"`` average; by default every one in `metrics`.
    cluster : str, optional
        Column of the cohort whose people are not independent of each other (site).

    Returns
    -------
    Audit
        Tables and columns are those of :mod:`helpers.schema` (docs/TABLES.md); rows are of a model,
        organ, metric and attribute where nothing else is said. Rows with organ ``"all"`` pool a
        subject's organs, those of model ``"all models"`` average a subject's models
        (:func:`average_subjects`); a study of one organ, or of one model, has none. Words that do
        not apply are empty text, numbers NaN. Groups under ``min_group`` subjects take no part in
        any comparison and have no figures. "Better" is by the metric's direction; volume errors are
        compared by their absolute value.

        Of ``disparity``: ``gap`` is never negative, and its interval, of the difference between two
        named groups, may cross 0. ``p`` is that of the test of means that decides
        (:func:`helpers.statistics.permuted_means.permute_means`). ``effect_size`` (rank-biserial r)
        is negative where the group with the better mean does not have the better typical person.
        ``adjusted_gap`` is between the same two groups, adjusted for what comes before the
        attribute (:func:`helpers.fairness.confounding.find_roles`), ``direct_gap`` with all else
        that was recorded held equal too. ``excess_p`` is the level at which a bound of the
        interval is 0. ``detectable`` is of one pair tested at alpha.

    Notes
    -----
    Methods: docs/METHODS.md, sections 5 to 10. One set of draws per attribute and group serves all
    models, organs and metrics, so what is measured on the same people stays paired. Intervals of
    the gap, the excess gap and the adjusted gap allow for two of several groups having been picked;
    that of the matched gap does not. Pooled organs belong to their rows' families: whatever row of
    a family a reader picks is covered. With ``max_t`` the adjusted p is never below the test's own.
    Verdicts rest on Welch's intervals of all pairs, not on the bootstrap's, because their
    guarantees are proven there. Where organs were missed, a measure without a value for them is not
    called equivalent (:func:`helpers.fairness.incomplete.mark_incomplete`).
    """
    with use_measures(fairness.measures):
        pooled = set(metrics["model"]) if pooled_models is None else pooled_models
        found = _run_audit(
            metrics, cohort, fairness, attributes, seed, confounders, units or {}, sizes, ordered, pooled, cluster
        )
        return mark_incomplete(found, metrics, cohort, fairness, attributes)


def _run_audit(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    fairness: Fairness,
    attributes: Sequence[str],
    seed: int,
    confounders: Sequence[str],
    units: Mapping[str, str],
    sizes: pd.DataFrame | None,
    ordered: Collection[str],
    pooled_models: Collection[str],
    cluster: str | None,
) -> Audit:
    names = list(fairness.metrics)
    if metrics.empty:
        raise SegfairError("metrics has no rows: run 03_performance again, after 01_cohort has included somebody")
    people, notes = average_subjects(metrics, cohort, attributes, names, pooled_models=pooled_models)
    if sizes is None:
        refuse_repeated_scores(metrics)
    scores = Scores.spread(people, names).attach_clusters(cohort, cluster)
    if cluster is not None:
        notes.append(_describe_clusters(scores, cluster, fairness))
    of_scans = list_of_scans(cohort, attributes, fairness.min_group)
    notes += [
        f"{attribute} is an attribute of scans: the {len(changing)} people with scans in several groups are compared "
        "with themselves, nobody else counts"
        for attribute, changing in of_scans.items()
    ]
    groups = [
        compare_within(metrics, cohort, attribute, of_scans[attribute], scores, fairness.min_group, pooled_models)
        if attribute in of_scans
        else AttributeScores.read(people, attribute, scores, fairness.min_group)
        for attribute in attributes
    ]
    compared = [compare_attribute(one, fairness, seed) for one in groups]
    tests = _test_means(scores, groups, fairness, seed, ordered)
    compared = [hold_zero(one, p) for one, p in zip(compared, tests.found.differences.p, strict=True)]
    disparity, pairs = _tabulate(compared, tests, fairness)
    volumes = None
    if fairness.adjust_for_volume:
        volumes = measure_volumes(metrics if sizes is None else sizes, scores)
    explained = _explain(cohort, compared, volumes, fairness, seed, confounders, units, notes)
    disparity = _fill_adjusted(disparity, explained.pop("gaps"), explained["adjusted_notes"])
    explained["trend_tests"] = _adjust_trends(explained["trend_tests"], fairness)
    if EXPECTED not in people or "dice" not in names:
        disparity = disparity.drop(columns=SIZE_COLUMNS)
    between = [one for one in groups if not one.within_people]
    intersections, variances = _cross_attributes(scores, between, fairness, notes)
    families = {
        str(name): list(part[list(KEY_COLUMNS)].itertuples(index=False, name=None))
        for name, part in disparity[disparity["p"].notna()].groupby("family", sort=False)
    }
    notes.append(_describe_families(families, fairness, POOLED in set(people["organ"])))
    sites = [compare_sites(one) for one in compared]
    described = join_tables([describe_groups(one) for one in compared], "groups")
    return Audit(
        groups=described,
        disparity=disparity,
        tests=join_tables([describe_tests(one) for one in compared], "tests"),
        pairs=pairs,
        contrasts=join_tables([describe_contrasts(one) for one in compared], "contrasts"),
        intersections=intersections,
        intersection_variance=variances,
        model_gaps=join_tables([one.model_gaps for one in compared], "model_gaps"),
        ranking=rank_attributes(disparity, described),
        sites=join_tables([table for table, _ in sites], "sites"),
        site_summary=join_tables([table for _, table in sites], "site_summary"),
        variance=share_variance(scores),
        families=families,
        notes=notes,
        settings=fairness,
        clustered=scores.clusters is not None,
        **explained,
    )


@dataclass(frozen=True)
class _FamilyTests:
    """The tests that decide, and their p-values adjusted: (attributes, columns)."""

    found: PermutedMeans
    families: np.ndarray
    p_adjusted: np.ndarray
    trend_p_adjusted: np.ndarray


def _test_means(
    scores: Scores, groups: Sequence[AttributeScores], settings: Fairness, seed: int, ordered: Collection[str]
) -> _FamilyTests:
    """Test every comparison by permutation of people, and adjust within the families."""
    names = [one.attribute for one in groups]
    clustered = np.array([one.clustered is not None for one in groups], bool)
    permuted = [one for one in groups if one.clustered is None]
    people = permute_means(
        [one.grouped for one in permuted],
        permutations=settings.permutations,
        seed=seed,
        smallest_group=settings.min_group,
        ordered=[one.attribute in ordered for one in permuted],
    )
    found = people
    if clustered.any():
        others = _test_clusters([one for one in groups if one.clustered is not None], ordered)
        found = PermutedMeans(
            *(
                _interleave(one, other, clustered)
                for one, other in zip(
                    (people.differences, people.trends), (others.differences, others.trends), strict=True
                )
            )
        )
    families = name_families(scores.keys, names, settings.family)
    adjusted = []
    for part in (found.differences, found.trends):
        p = adjust_tests(part, families, settings.correction)
        if settings.correction == "max_t" and clustered.any():
            p[clustered] = adjust_tests(part, families, "holm")[clustered]  # no permutations to go by
        adjusted.append(p)
    return _FamilyTests(found, families, *adjusted)


def _interleave(people: PermutedTests, clusters: PermutedTests, clustered: np.ndarray) -> PermutedTests:
    """Return the tests of all attributes in their order: of people permuted, and of clusters."""
    tables = []
    for name in ("estimate", "statistic", "p", "evidence"):
        table = np.full((len(clustered), clusters.p.shape[1]), np.nan)
        if not clustered.all():
            table[~clustered] = getattr(people, name)
        table[clustered] = getattr(clusters, name)
        tables.append(table)
    estimate, statistic, p, evidence = tables
    return PermutedTests(estimate, statistic, p, evidence, people.permuted)


def _test_clusters(groups: Sequence[AttributeScores], ordered: Collection[str]) -> PermutedMeans:
    """Test every comparison with errors of clusters; none of a group that is nearly one cluster."""
    gaps = [part for one in groups if (part := one.clustered) is not None]
    found = refer_to_clusters(gaps, [one.attribute in ordered for one in groups])
    for place, one in enumerate(groups):
        confined = [bool(one.explain_confined(column)) for column in range(len(one.scores.keys))]
        for tests in found:
            tests.p[place, confined] = np.nan
    return PermutedMeans(*found)


def _tabulate(
    compared: Sequence[GroupComparison], tests: _FamilyTests, settings: Fairness
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of disparity.csv with their verdicts, and those of pairs.csv."""
    rows, pairs = [], []
    differences, trends = tests.found.differences, tests.found.trends
    for place, one in enumerate(compared):
        p = tests.p_adjusted[place]
        judged = judge_attribute(one, p, settings)
        unseen = find_unseen_shares(one, judged, settings)
        told, low, high = find_told_gaps(one, differences.p[place], p, settings.alpha)
        detectable = np.fmax.reduce(judged.detectable, axis=0, initial=np.nan)
        for column, row in enumerate(describe_disparity(one, settings, differences.p[place])):
            rows.append(
                row
                | {
                    "family": str(tests.families[place, column]),
                    "p_adjusted": p[column],
                    "told_gap": told[column],
                    "told_low": low[column],
                    "told_high": high[column],
                    "ordered_step": trends.estimate[place, column],
                    "p_ordered": trends.p[place, column],
                    "p_ordered_adjusted": tests.trend_p_adjusted[place, column],
                    "detectable": detectable[column],
                    "unseen_share": unseen[column],
                    "verdict": (not one.groups.explain_confined(column) and str(judged.verdict[column]))
                    or Verdict.NOT_COMPARED.value,
                }
            )
        pairs.append(compare_pairs(one.groups, p, settings.alpha))
    table = make_table(rows, "disparity")
    excess = table["excess_p"].to_numpy(float)
    table["excess_p_adjusted"] = np.nan
    for part in table.groupby("family", sort=False).indices.values():
        table.loc[part, "excess_p_adjusted"] = adjust_unpermuted(excess[part], settings.correction)
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
        notes.append("direct gaps and trends are also adjusted for the organ's size (log volume of the reference)")
    confounders = [name for name in confounders if name not in absent]
    # Of scans, each person is their own control.
    within = [one for one in compared if one.groups.within_people]
    people = [one for one in compared if not one.groups.within_people]
    subjects = people[0].groups.scores.subjects if people else np.empty(0, str)
    known = read_covariates(cohort, subjects, [name for name in (*attributes, *confounders) if name in cohort])
    labels = pd.DataFrame({one.groups.attribute: one.groups.labels for one in people}, index=known.index)
    apart = [one.groups.attribute for one in within]
    names = ("adjusted_means", "adjusted_notes", "matching", "balance", "trends", "trend_tests")
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in ("gaps", *names)}
    for one in compared:
        attribute = one.groups.attribute
        if one in within:
            for name, table in explain_within(one).items():
                parts[name].append(table)
            continue
        covariates, mediators = (
            choose_covariates(attribute, [name for name in names if name not in apart], known, labels)
            for names in find_roles(attribute, attributes, confounders, settings.adjust)
        )
        same = [said for name in (*attributes, *confounders) if (said := explain_same(attribute, name, known))]
        notes += [f"not adjusted for when groups by {attribute} are compared: {said}" for said in same]
        found = {**adjust_attribute(one, covariates, mediators, volumes, same), **match_attribute(one, covariates)}
        if attribute in known and is_numeric(known[attribute]):
            found |= fit_attribute(one.groups, known[attribute], covariates, volumes, seed, units)
        for name, table in found.items():
            parts[name].append(table)
    gaps = pd.concat(parts["gaps"], ignore_index=True) if parts["gaps"] else pd.DataFrame()
    return {"gaps": gaps} | {name: join_tables(parts[name], name) for name in names}


def _adjust_trends(table: pd.DataFrame, settings: Fairness) -> pd.DataFrame:
    """Return trend_tests.csv with its p-values adjusted within the families."""
    keys = table[list(KEY_COLUMNS)].itertuples(index=False, name=None)
    families = pd.Series([name_family(key, settings.family) for key in keys], index=table.index, dtype=object)
    adjusted = (
        table["p_trend"]
        .astype(float)
        .groupby(families)
        .transform(lambda p: adjust_unpermuted(p.to_numpy(), settings.correction))
    )
    return table.assign(p_trend_adjusted=adjusted.astype(float))


def _fill_adjusted(disparity: pd.DataFrame, gaps: pd.DataFrame, adjusted_notes: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the adjusted gaps and their notes, whose rows are in the same order."""
    reasons = [
        f"no adjusted gap: {note}" if note and np.isfinite(gap) else ""
        for note, gap in zip(adjusted_notes["note"], disparity["gap"], strict=True)
    ]
    said = zip(disparity["note"], adjusted_notes["warnings"], reasons, strict=True)
    notes = [join_notes([*parts[0].split("; "), *parts[1:]], "adjusted_notes.csv and groups.csv") for parts in said]
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
    found = pool_intersections(
        scores.matrix, table, min_group=settings.min_group, clustered=scores.clusters is not None
    )
    keys = pd.DataFrame(scores.keys, columns=list(KEY_COLUMNS[:3]))

    def name_columns(part: pd.DataFrame) -> pd.DataFrame:
        head = keys.iloc[part["column"].to_numpy(int)].reset_index(drop=True)
        return pd.concat([head, part.drop(columns="column").reset_index(drop=True)], axis=1)

    variances = name_columns(found.variances)
    return name_columns(found.cells)[columns], make_table(variances.to_dict("records"), "intersection_variance")


def _describe_clusters(scores: Scores, cluster: str, settings: Fairness) -> str:
    count = len(scores.cluster_names)
    unknown = int((np.asarray(scores.clusters) < 0).sum())
    said = f"people come in {count} clusters ({cluster}): errors, resamples and tests are made from these"
    if unknown:
        said += f"; {unknown} people without one count each for itself"
    return said + ("; max-T is replaced by Holm's method" if settings.correction == "max_t" else "")


def _describe_families(
    families: Mapping[str, Sequence[tuple[str, str, str, str]]], fairness: Fairness, pooled: bool
) -> str:
    tested = [test for tests in families.values() for test in tests]
    if not tested:
        return "no test was made: no attribute has two groups that are large enough"
    parts = [len({test[place] for test in tested}) for place in range(4)]
    words = ("models", "organs", "metrics", "attributes")
    extent = ", ".join(f"{n} {word[:-1] if n == 1 else word}" for n, word in zip(parts, words, strict=True))
    including = f' ("{POOLED}", the organs pooled, counts as one)' if pooled else ""
    within = f" within {len(families)} families ({FAMILIES[fairness.family]})" if len(families) > 1 else ""
    return f"{len(tested)} tests were {_HOW[fairness.correction]}{within}: {extent}{including}"
