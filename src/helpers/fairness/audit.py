"""The audit: per-subject scores and groups → per-group summaries, gaps, tests, and what size explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.adjustment import adjust_gaps
from helpers.fairness.bootstrap import CONFIDENCE, draw_counts, find_percentile_interval, resample_means
from helpers.fairness.disparity import (
    UNIT_INTERVAL_METRICS,
    find_extremes,
    measure_equity_scaled,
    measure_skewed_error_ratio,
    sign_metric,
)
from helpers.fairness.equivalence import judge_columns
from helpers.fairness.groups import EXPECTED, POOLED, average_subjects, list_groups, summarise_group
from helpers.fairness.hypothesis_tests import adjust_p_values, compare_groups
from helpers.parameters import Fairness

GROUP_COLUMNS = (
    "model", "organ", "metric", "attribute", "group", "n", "mean", "sd", "median", "q1", "q3", "ci_low", "ci_high", "suppressed",
)  # fmt: skip
DISPARITY_COLUMNS = (
    "model", "organ", "metric", "attribute", "n", "groups", "worst_group", "best_group", "gap", "gap_low", "gap_high", "es", "ser",
    "test", "p", "p_adjusted", "anova_p", "effect", "effect_size", "adjusted_gap", "adjusted_low", "adjusted_high", "adjusted_p",
    "adjusted_n", "expected_gap", "excess_gap", "excess_low", "excess_high", "margin", "detectable", "verdict", "note",
)  # fmt: skip
_SIZE_COLUMNS = ("expected_gap", "excess_gap", "excess_low", "excess_high")

_NOT_COMPARED = "not compared"

Key = tuple[str, str, str]  # (metric, model, organ): a column of the subjects' values


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found.

    Attributes
    ----------
    groups, disparity : DataFrame
        See :func:`audit`.
    family : list of tuple of str
        (model, organ, metric, attribute) of every test whose p-value was corrected together.
    notes : list of str
        What had to be decided on the way, in sentences.
    settings : Fairness
        The parameters used.
    """

    groups: pd.DataFrame
    disparity: pd.DataFrame
    family: list[tuple[str, str, str, str]]
    notes: list[str]
    settings: Fairness = field(default_factory=Fairness)

    def describe(self) -> pd.DataFrame:
        """Return the family of tests, the settings and the notes as a table of item and text."""
        names = {
            "holm": "Holm (family-wise error rate)",
            "fdr_bh": "Benjamini–Hochberg (false discovery rate)",
            "none": "none",
        }
        rows = [("tests corrected together", str(len(self.family)))]
        for place, part in enumerate(("models", "organs", "metrics", "attributes")):
            found = list(dict.fromkeys(test[place] for test in self.family))
            rows.append((f"{part} in the family", ", ".join(found) or "none"))
        rows += [
            ("correction", names[self.settings.correction]),
            ("significance level", f"{self.settings.alpha:g}"),
            ("smallest group compared", f"{self.settings.min_group} subjects"),
            (
                "intervals",
                f"{CONFIDENCE:.0%} percentile bootstrap, {self.settings.bootstrap} resamples of subjects within groups",
            ),
        ]
        rows += [("note", note) for note in self.notes]
        return pd.DataFrame(rows, columns=["item", "value"])


def audit(
    metrics: pd.DataFrame,
    cohort: pd.DataFrame,
    fairness: Fairness,
    attributes: Sequence[str],
    seed: int,
    *,
    confounders: Sequence[str] = (),
) -> Audit:
    """Compare the groups of every attribute on every metric, organ and model.

    Parameters
    ----------
    metrics : DataFrame
        metrics.parquet: one row per scan, model and organ.
    cohort : DataFrame
        cohort.parquet's included scans, with ``number`` and ``group_<attribute>``.
    fairness : Fairness
        Metrics, smallest group, margins, correction and number of resamples.
    attributes : list of str
    seed : int
        Equal seeds give equal intervals.
    confounders : sequence of str
        Columns of the cohort that the adjusted gaps hold equal, beside the other attributes.

    Returns
    -------
    Audit
        ``groups``: one row per model, organ, metric, attribute and group (:data:`GROUP_COLUMNS`). ``n`` counts
        subjects with a value. Groups with fewer than ``min_group`` are ``suppressed``: their statistics are
        NaN and they take no part in gaps or tests.

        ``disparity``: one row per model, organ, metric and attribute (:data:`DISPARITY_COLUMNS`). ``gap`` is best −
        worst group mean in the metric's unit, never negative; ``gap_low`` and ``gap_high`` are the 95 %
        interval of the difference between these two named groups, which may cross 0. Where nothing
        could be compared the values are NaN and ``note`` says why. The four columns on organ size are absent where
        Dice is not among the metrics, NaN in rows of other metrics.

        Rows with organ ``"all"`` pool a subject's organs (:func:`average_subjects`); a study of one organ has none.

    Raises
    ------
    SegfairError
        A column is missing.

    Notes
    -----
    *Intervals.* Subjects are resampled with replacement within each group. One set of draws per attribute and group
    serves all models, organs and metrics, so what is measured on the same people stays paired (a gap and its
    expected part, for one).

    *More than two groups.* The two groups are chosen by what is to be estimated, so the largest gap is biased upwards
    (:func:`helpers.fairness.disparity.find_extremes`), and its interval does not allow for the choice: rely on the test,
    which is over all groups.

    *Family.* Every Mann–Whitney or Kruskal–Wallis test made, pooled rows included, over all models, organs, metrics
    and attributes, is one family: whatever row a reader picks is covered by the correction. ``anova_p`` repeats a
    question already in the family with the field's usual test; it is shown uncorrected and for comparison only.

    *Effect.* Rank-biserial r compares ranks, best against worst group: it is negative where the group with the better mean
    does not have the better typical person (a few bad failures decide the means).

    *Confounders.* ``adjusted_gap`` is the gap between the same two groups with the other attributes (as numbers where they
    are recorded as numbers) and the confounders held equal (:func:`helpers.fairness.adjustment.adjust_gaps`); it may be
    negative. ``adjusted_n`` counts the subjects for whom all of them are known.

    *Verdict.* ``disparity``, ``negligible``, ``equivalent`` or ``inconclusive`` (:func:`helpers.fairness.equivalence.judge`)
    against the metric's margin, from Welch's intervals of all pairs of groups together and the corrected p-value;
    ``not compared`` where there are no two groups. ``detectable`` is the smallest true difference that this sample would
    show with 80 % power (the largest over the pairs of groups).

    *Organ size.* ``expected_gap`` is the gap in ``dice_expected`` between the same two groups, ``excess_gap`` what is
    left of the gap. The cohort's mean boundary error, on which the expectation rests, is held fixed in the resamples.
    """
    names = list(fairness.metrics)
    people, notes = average_subjects(metrics, cohort, attributes, names)
    values, keys, subjects = _spread(people, [*names, *([EXPECTED] if EXPECTED in people and "dice" in names else [])])
    group_rows: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    labelled: dict[str, np.ndarray] = {}
    for attribute in attributes:
        column = people.drop_duplicates("subject").set_index("subject")[f"group_{attribute}"]
        labels = column.astype("str").where(column.notna(), None).reindex(subjects).to_numpy(object)
        labelled[attribute] = labels
        compared = _Compared.make(values, labels, list_groups(column), fairness, attribute, seed)
        for place, key in enumerate(keys):
            if key[0] == EXPECTED:
                continue
            head = {"model": key[1], "organ": key[2], "metric": key[0], "attribute": attribute}
            group_rows += [head | row for row in compared.describe_groups(place)]
            expected = keys.index((EXPECTED, *key[1:])) if key[0] == "dice" and (EXPECTED, *key[1:]) in keys else None
            rows.append(head | compared.measure_disparity(place, key[0], expected))
    groups = pd.DataFrame(group_rows, columns=list(GROUP_COLUMNS))
    disparity = pd.DataFrame(rows, columns=[name for name in DISPARITY_COLUMNS if name != "p_adjusted"])
    disparity.insert(
        disparity.columns.get_loc("p") + 1,
        "p_adjusted",
        adjust_p_values(disparity["p"].to_numpy(), fairness.correction),
    )
    disparity = _judge(disparity, values, keys, labelled, fairness)
    for attribute, labels in labelled.items():
        covariates = _list_covariates(cohort, subjects, attributes, attribute, confounders, notes)
        disparity = _adjust(disparity, values, keys, attribute, labels, covariates, fairness.min_group)
    if EXPECTED not in people or "dice" not in names:
        disparity = disparity.drop(columns=list(_SIZE_COLUMNS))
    tested = disparity[disparity["p"].notna()]
    family = list(tested[["model", "organ", "metric", "attribute"]].itertuples(index=False, name=None))
    notes.append(_describe_family(family, fairness, POOLED in set(people["organ"])))
    return Audit(groups, disparity, family, notes, fairness)


@dataclass(frozen=True)
class _Compared:
    """One attribute's groups: values, summaries and resampled means, a column per (metric, model, organ)."""

    settings: Fairness
    attribute: str
    names: list[str]
    members: list[np.ndarray]  # per group: (subjects, columns)
    summaries: list[dict[str, np.ndarray]]
    draws: list[np.ndarray]  # per group: (draws, columns)
    intervals: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def make(
        cls, values: np.ndarray, labels: np.ndarray, names: list[str], settings: Fairness, attribute: str, seed: int
    ) -> _Compared:
        members = [values[labels == name] for name in names]
        draws = []
        for name, part in zip(names, members, strict=True):
            # Too few subjects altogether: nothing of the group will be shown, so nothing is drawn.
            if len(part) < settings.min_group:
                draws.append(np.full((1, values.shape[1]), np.nan))
                continue
            counts = draw_counts(len(part), settings.bootstrap, seed=seed, stream=f"{attribute}\x1f{name}")
            draws.append(resample_means(part, counts))
        return cls(
            settings,
            attribute,
            names,
            members,
            [summarise_group(part) for part in members],
            draws,
            [find_percentile_interval(part) for part in draws],
        )

    def describe_groups(self, place: int) -> list[dict[str, Any]]:
        """Return one column's row per group."""
        rows = []
        for name, summary, (low, high) in zip(self.names, self.summaries, self.intervals, strict=True):
            n = int(summary["n"][place])
            suppressed = n < self.settings.min_group
            shown = {key: summary[key][place] for key in ("mean", "sd", "median", "q1", "q3")}
            shown |= {"ci_low": low[place], "ci_high": high[place]}
            if suppressed:
                shown = dict.fromkeys(shown, np.nan)
            rows.append({"group": name, "n": n, **shown, "suppressed": suppressed})
        return rows

    def measure_disparity(self, place: int, metric: str, expected: int | None) -> dict[str, Any]:
        """Return one column's row of the disparity table."""
        counts = [int(summary["n"][place]) for summary in self.summaries]
        kept = [group for group, n in enumerate(counts) if n >= self.settings.min_group]
        notes = self._list_notes(counts, place)
        row: dict[str, Any] = {
            "n": sum(counts[group] for group in kept),
            "groups": len(kept),
            "worst_group": "",
            "best_group": "",
            "test": "",
            "effect": "",
            "margin": self.settings.margin.get(metric, np.nan),
        }
        if len(kept) < 2:
            row["note"] = "; ".join(["nothing to compare: fewer than two groups are large enough", *notes])
            return row
        means = np.array([self.summaries[group]["mean"][place] for group in kept])
        extremes = find_extremes(means, metric)
        best, worst = kept[extremes.best], kept[extremes.worst]
        gaps = self._draw_difference(best, worst, place, metric)
        low, high = find_percentile_interval(gaps[:, None])
        row |= {
            "best_group": self.names[best],
            "worst_group": self.names[worst],
            "gap": extremes.gap,
            "gap_low": low[0],
            "gap_high": high[0],
        }
        samples = [self._take(group, place) for group in kept]
        if metric in UNIT_INTERVAL_METRICS:
            row["es"] = measure_equity_scaled(float(np.concatenate(samples).mean()), means)
            row["ser"] = measure_skewed_error_ratio(means)
        if len(kept) == 2:  # best first, higher is better: then a positive effect is the best group's advantage
            samples = [sign_metric(metric) * self._take(group, place) for group in (best, worst)]
        result = compare_groups(samples)
        row |= {
            "test": result.test,
            "p": result.p,
            "anova_p": result.anova_p,
            "effect": result.effect,
            "effect_size": result.effect_size,
        }
        if expected is not None:
            difference = self.summaries[best]["mean"][expected] - self.summaries[worst]["mean"][expected]
            excess = gaps - self._draw_difference(best, worst, expected, metric)
            low, high = find_percentile_interval(excess[:, None])
            row |= {
                "expected_gap": difference,
                "excess_gap": extremes.gap - difference,
                "excess_low": low[0],
                "excess_high": high[0],
            }
        row["note"] = "; ".join([*([result.note] if result.note else []), *notes])
        return row

    def _take(self, group: int, place: int) -> np.ndarray:
        column = self.members[group][:, place]
        return column[np.isfinite(column)]

    def _draw_difference(self, best: int, worst: int, place: int, metric: str) -> np.ndarray:
        return sign_metric(metric) * (self.draws[best][:, place] - self.draws[worst][:, place])

    def _list_notes(self, counts: list[int], place: int) -> list[str]:
        notes = []
        if not any(counts):
            return [f"no subject with a known {self.attribute} group has a value"]
        small = [name for name, n in zip(self.names, counts, strict=True) if 0 < n < self.settings.min_group]
        absent = [name for name, n in zip(self.names, counts, strict=True) if n == 0]
        if small:
            notes.append(f"too small to compare (under {self.settings.min_group} subjects): {', '.join(small)}")
        if absent:
            notes.append(f"no subject in: {', '.join(absent)}")
        without = sum(len(part) for part in self.members) - sum(counts)
        if without:
            notes.append(f"{without} subjects have no value")
        return notes


def _judge(
    disparity: pd.DataFrame,
    values: np.ndarray,
    keys: Sequence[Key],
    labelled: dict[str, np.ndarray],
    fairness: Fairness,
) -> pd.DataFrame:
    """Fill in the verdicts and the detectable differences."""
    disparity = disparity.assign(verdict=_NOT_COMPARED, detectable=np.nan)
    for attribute, labels in labelled.items():
        codes, _ = pd.factorize(pd.Series(labels, dtype="object"), sort=True)
        rows, places = _find_rows(disparity, keys, attribute)
        part = disparity.loc[rows]
        found = judge_columns(
            values[:, places],
            codes,
            part["margin"].to_numpy(float),
            part["p_adjusted"].to_numpy(float),
            alpha=fairness.alpha,
            smallest_group=fairness.min_group,
        )
        disparity.loc[rows, "verdict"] = [str(word) or _NOT_COMPARED for word in found.verdict]
        known = np.isfinite(found.detectable)
        if len(found.detectable):
            largest = np.where(known, found.detectable, -np.inf).max(axis=0)
            disparity.loc[rows, "detectable"] = np.where(known.any(axis=0), largest, np.nan)
    return disparity[[name for name in DISPARITY_COLUMNS if name in disparity]]


def _adjust(
    disparity: pd.DataFrame,
    values: np.ndarray,
    keys: Sequence[Key],
    attribute: str,
    labels: np.ndarray,
    covariates: pd.DataFrame,
    min_group: int,
) -> pd.DataFrame:
    """Fill in one attribute's adjusted gaps, between the groups of the raw ones."""
    rows, places = _find_rows(disparity, keys, attribute)
    part = disparity.loc[rows]
    pairs = [
        (best, worst) if best else None for best, worst in zip(part["best_group"], part["worst_group"], strict=True)
    ]
    gaps = adjust_gaps(
        values[:, places], labels, covariates, [keys[place][0] for place in places], min_group=min_group, pairs=pairs
    ).gaps
    compared = part["best_group"].to_numpy(str) != ""
    disparity = disparity.copy()
    for ours, theirs in (
        ("adjusted_gap", "adjusted_gap"),
        ("adjusted_low", "low"),
        ("adjusted_high", "high"),
        ("adjusted_p", "p"),
        ("adjusted_n", "n"),
    ):
        disparity.loc[rows, ours] = np.where(compared, gaps[theirs].to_numpy(float), np.nan)
    warnings = [str(text) for text in gaps["warnings"]]
    disparity.loc[rows, "note"] = [
        "; ".join(part for part in (note, warning) if part)
        for note, warning in zip(part["note"], warnings, strict=True)
    ]
    return disparity


def _find_rows(disparity: pd.DataFrame, keys: Sequence[Key], attribute: str) -> tuple[pd.Index, list[int]]:
    """Return one attribute's rows of the disparity table and the place of each in the values."""
    rows = disparity.index[disparity["attribute"] == attribute]
    part = disparity.loc[rows, ["metric", "model", "organ"]]
    place = {key: index for index, key in enumerate(keys)}
    return rows, [place[key] for key in part.itertuples(index=False, name=None)]


def _list_covariates(
    cohort: pd.DataFrame,
    subjects: np.ndarray,
    attributes: Sequence[str],
    attribute: str,
    confounders: Sequence[str],
    notes: list[str],
) -> pd.DataFrame:
    """Return what is held equal for one attribute, a row per subject: the first known value of each."""
    first = cohort.assign(subject=cohort["subject"].astype(str)).groupby("subject", sort=False).first()
    first = first.reindex(subjects)
    found = {}
    for name in dict.fromkeys([*attributes, *confounders]):
        if name == attribute:
            continue
        if name in first and pd.api.types.is_numeric_dtype(first[name]):
            found[name] = first[name].to_numpy(float)
        elif f"group_{name}" in first or name in first:
            column = first[f"group_{name}"] if f"group_{name}" in first else first[name]
            found[name] = column.astype("str").where(column.notna(), None).to_numpy(object)
        else:
            note = f"the confounder {name} is not in the cohort's table: the adjusted gaps do not allow for it"
            if note not in notes:
                notes.append(note)
    return pd.DataFrame(found, index=pd.RangeIndex(len(subjects)))


def _spread(people: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, list[Key], np.ndarray]:
    """Return the values as (subjects, columns), the columns' keys in order of model, organ and metric, and the subjects."""
    # By subject: the draws must not depend on the order of rows.
    subjects, rows = np.unique(people["subject"].to_numpy(str), return_inverse=True)
    pairs = list(people[["model", "organ"]].drop_duplicates().itertuples(index=False, name=None))
    keys: list[Key] = [(name, model, organ) for model, organ in pairs for name in names]
    places = pd.MultiIndex.from_tuples(pairs).get_indexer(pd.MultiIndex.from_frame(people[["model", "organ"]]))
    values = np.full((len(subjects), len(pairs), len(names)), np.nan)
    values[rows, places] = people[names].to_numpy(float)
    return values.reshape(len(subjects), -1), keys, subjects


def _describe_family(family: list[tuple[str, str, str, str]], fairness: Fairness, pooled: bool) -> str:
    if not family:
        return "no test was made: no attribute has two groups that are large enough"
    parts = [len({test[place] for test in family}) for place in range(4)]
    words = ("models", "organs", "metrics", "attributes")
    extent = ", ".join(f"{n} {word[:-1] if n == 1 else word}" for n, word in zip(parts, words, strict=True))
    how = {
        "holm": "corrected together by Holm's method",
        "fdr_bh": "corrected together by Benjamini and Hochberg's method",
    }
    including = f' ("{POOLED}", the organs pooled, counts as one)' if pooled else ""
    return f"{len(family)} tests were {how.get(fairness.correction, 'made and not corrected')}: {extent}{including}"
