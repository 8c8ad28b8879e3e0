"""What else differs between the groups: adjusted gaps, matched people, trends without groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.errors import SegfairError
from helpers.fairness.adjustment import adjust_gaps
from helpers.fairness.group_comparison import GroupComparison
from helpers.fairness.groups import POOLED
from helpers.fairness.matching import Matching, match_pairs, measure_matched_gaps
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.fairness.tables import join_notes, join_tables, make_table
from helpers.fairness.trends import fit_trends
from helpers.schema import TABLES
from helpers.statistics.covariates import join_covariates, split_covariates
from helpers.vocabulary.words import UNITS

VOLUME = "log organ volume"
SAME_ORDER = 0.98
LEAST_SCORED_PAIRS = 0.9  # of the pairs of all people: with fewer, those scored are matched anew
STEPS = {"age": 10.0, "bmi": 5.0}

_GAP_NAMES = {
    "adjusted_gap": "adjusted_gap",
    "low": "adjusted_low",
    "high": "adjusted_high",
    "p_groups": "adjusted_p",
    "n": "adjusted_n",
}
_DIRECT_NAMES = {"adjusted_gap": "direct_gap", "low": "direct_low", "high": "direct_high"}


def is_numeric(column: pd.Series) -> bool:
    """Return whether a column holds numbers, at least three different ones: a scale, not a code."""
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return bool(numeric and column.nunique() > 2)


def find_roles(
    attribute: str, attributes: Sequence[str], confounders: Sequence[str], adjust: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Find what comes before an attribute, and the mediators between it and the score.

    The former are held equal, the latter in the direct gap alone. Before it come the names that
    `adjust` gives it; without these the attributes listed before it, and the confounders. All
    others are mediators: age may bring about a diagnosis, not the other way round, and an age gap
    adjusted for diagnosis is a part of the age gap (VanderWeele 2015, *Explanation in Causal
    Inference*, chapter 2).
    """
    others = [name for name in dict.fromkeys([*attributes, *confounders]) if name != attribute]
    before = adjust.get(attribute, [*attributes[: list(attributes).index(attribute)], *confounders])
    return [name for name in others if name in before], [name for name in others if name not in before]


def choose_covariates(attribute: str, names: Sequence[str], known: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return what is held equal when one attribute's groups are compared: (subjects, covariates).

    Of `names`, attributes by their number where the cohort has one and else by their group; none
    that :func:`explain_same` names. `known` has the cohort's own columns of these names, `labels`
    each attribute's group, a row per subject.
    """
    columns = {}
    for name in names:
        if name == attribute or explain_same(attribute, name, known):
            continue
        if name in labels and not (name in known and is_numeric(known[name])):
            columns[name] = labels[name]
        else:
            columns[name] = known[name]
    return pd.DataFrame(columns, index=labels.index)


def explain_same(attribute: str, name: str, known: pd.DataFrame) -> str:
    """Say that a covariate is the attribute's own number in other units; empty where it is not.

    Age in months orders people as age in years does (absolute rank correlation from
    :data:`SAME_ORDER` on). Held equal, it would leave of the groups nothing but their rounding.
    """
    if name == attribute or not all(one in known and is_numeric(known[one]) for one in (attribute, name)):
        return ""
    both = known[[attribute, name]].dropna().astype(float)
    correlation = both[attribute].corr(both[name], method="spearman")
    if not abs(correlation) >= SAME_ORDER:
        return ""
    return f"{name}: orders people as {attribute} does (rank correlation {correlation:.2f})"


def measure_volumes(metrics: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Return the log of each organ's reference volume: one row per subject, one column per organ.

    Several scans, and models, of one person are averaged. The pooled organ's is the mean over the
    person's organs, after allowing for each organ's own mean, as their scores are pooled. A
    SegfairError where there are no volumes.
    """
    if "volume_ref_ml" not in metrics:
        raise SegfairError(
            "metrics lacks volume_ref_ml, which fairness.adjust_for_volume needs: run 03_performance again"
        )
    volume = metrics["volume_ref_ml"].to_numpy(float)
    logs = np.log(np.where(volume > 0, volume, np.nan))
    table = metrics[["subject", "organ"]].assign(subject=metrics["subject"].astype(str), log=logs)
    wide = table.pivot_table(index="subject", columns="organ", values="log", aggfunc="mean", dropna=False)
    wide = wide.reindex(index=scores.subjects, columns=list(dict.fromkeys(metrics["organ"])))
    wide[POOLED] = (wide - wide.mean()).mean(axis=1)
    return wide


def adjust_attribute(
    compared: GroupComparison,
    covariates: pd.DataFrame,
    mediators: pd.DataFrame,
    volumes: pd.DataFrame | None,
    same: Sequence[str] = (),
) -> dict[str, pd.DataFrame]:
    """State every gap adjusted for the covariates (:func:`adjust_gaps`), and the direct gap.

    Each gap is between the two groups that `compared` names. The adjusted gap is the attribute's
    total effect, given what comes before it; the direct gap is what is left with the `mediators`
    held equal too, and organ size where there are `volumes` (:func:`measure_volumes`): each organ's
    column for its own scores. `same` (:func:`explain_same`) joins what ``dropped`` of
    ``adjusted_notes`` says. Returns ``gaps``, a row per column (adjusted_gap, adjusted_low,
    adjusted_high, adjusted_p, adjusted_n, direct_gap, direct_low, direct_high), and the tables
    ``adjusted_means`` and ``adjusted_notes``.
    """
    found = _adjust_columns(compared, covariates, None, same)
    if volumes is None and mediators.empty:
        return found
    direct = _adjust_columns(compared, pd.concat([covariates, mediators], axis=1), volumes, same)
    gaps, notes = direct["gaps"], direct["adjusted_notes"]
    for theirs, ours in _DIRECT_NAMES.items():
        found["gaps"][ours] = gaps[_GAP_NAMES[theirs]]
    held = [
        join_covariates([name for name in split_covariates(told) if name not in covariates])
        for told in notes["covariates"]
    ]
    found["adjusted_notes"] = found["adjusted_notes"].assign(
        mediators=held, direct_warnings=notes["warnings"], direct_note=notes["note"]
    )
    return found


def _adjust_columns(
    compared: GroupComparison, covariates: pd.DataFrame, volumes: pd.DataFrame | None, same: Sequence[str]
) -> dict[str, pd.DataFrame]:
    groups, pairs = compared.groups, compared.list_pairs()
    gaps: dict[int, dict[str, Any]] = {}
    means, notes = {}, {}
    for columns, held in _split_organs(groups.scores, covariates, volumes):
        found = adjust_gaps(
            groups.scores.matrix[:, columns],
            groups.labels,
            held,
            [groups.scores.metrics[column] for column in columns],
            min_group=groups.min_group,
            pairs=[pairs[column] for column in columns],
            attribute=groups.attribute,
            clusters=groups.scores.clusters,
        )
        by_column = dict(iter(found.means.groupby("column")))
        for row in found.gaps.to_dict("records"):
            column = columns[row["column"]]
            head = groups.name_row(column)
            if confined := groups.explain_confined(column):
                row |= dict.fromkeys(("low", "high", "p_groups"), np.nan) | {"note": f"no interval: {confined}"}
            gaps[column] = {
                ours: np.nan if pairs[column] is None else row[theirs] for theirs, ours in _GAP_NAMES.items()
            }
            notes[column] = row | head | {"dropped": "; ".join([*same, *filter(None, [row["dropped"]])])}
            rows = by_column[row["column"]].to_dict("records") if row["column"] in by_column else []
            means[column] = [one | head for one in rows]
    order = range(len(groups.scores.keys))
    return {
        "gaps": pd.DataFrame(
            [gaps[column] for column in order], columns=[*_GAP_NAMES.values(), *_DIRECT_NAMES.values()]
        ).astype(float),
        "adjusted_means": make_table([row for column in order for row in means[column]], "adjusted_means"),
        "adjusted_notes": make_table([notes[column] for column in order], "adjusted_notes"),
    }


def explain_within(compared: GroupComparison) -> dict[str, pd.DataFrame]:
    """Return what :func:`adjust_attribute` does, of an attribute of scans: no gap, and why."""
    columns = range(len(compared.groups.scores.keys))
    note = "everybody is compared with themself: who they are is held equal"
    gaps = pd.DataFrame(index=columns, columns=[*_GAP_NAMES.values(), *_DIRECT_NAMES.values()], dtype=float)
    rows = [compared.groups.name_row(column) | {"note": note} for column in columns]
    return {"gaps": gaps, "adjusted_notes": make_table(rows, "adjusted_notes")}


def match_attribute(compared: GroupComparison, covariates: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """State every gap among matched pairs of people (:func:`match_pairs`).

    The tables ``matching``, a row per column with a gap, from ``group_a``, the best, to
    ``group_b``, the worst group of the gap (positive where the former does better), and
    ``balance``, how alike the two groups are before and after. Pairs are made by the covariates of
    people (not by the size of an organ), once per two groups (``balance`` is of these), and anew
    among those scored for columns in which many of these pairs lack a value.
    """
    groups, found = compared.groups, compared.found
    names, labels = groups.names, groups.labels
    by_pair: dict[tuple[int, int], list[int]] = {}
    for column, (best, worst) in enumerate(zip(found.best, found.worst, strict=True)):
        if best >= 0:
            by_pair.setdefault((min(best, worst), max(best, worst)), []).append(column)
    rows: dict[int, dict[str, Any]] = {}
    balance = []
    for (first, second), columns in sorted(by_pair.items()):
        everyone = match_pairs(
            labels, covariates, names[first], names[second], min_group=groups.min_group, attribute=groups.attribute
        )
        table = everyone.balance.assign(attribute=groups.attribute, group_a=names[first], group_b=names[second])
        balance.append(table[TABLES["balance"].names])
        for matched, some in _match_scored(groups, everyone, columns, covariates):
            gaps = measure_matched_gaps(
                groups.scores.matrix[:, some],
                matched,
                [groups.scores.metrics[column] for column in some],
                min_group=groups.min_group,
                clusters=groups.scores.clusters,
            )
            for column, row in zip(some, gaps.to_dict("records"), strict=True):
                if confined := groups.explain_confined(column):
                    row |= {"low": np.nan, "high": np.nan, "p": np.nan, "note": f"no interval: {confined}"}
                if found.best[column] != first:
                    row |= {"gap": -row["gap"], "low": -row["high"], "high": -row["low"]}
                said = [text for text in (row["note"], *matched.warnings) if text and pd.notna(text)]
                rows[column] = (row | groups.name_row(column)) | {
                    "group_a": names[found.best[column]],
                    "group_b": names[found.worst[column]],
                    "n_lost": matched.lost_first + matched.lost_second,
                    "note": join_notes(said, "balance.csv"),
                }
    return {
        "matching": make_table([rows[column] for column in sorted(rows)], "matching"),
        "balance": join_tables(balance, "balance"),
    }


def fit_attribute(
    groups: AttributeScores,
    numbers: pd.Series,
    covariates: pd.DataFrame,
    volumes: pd.DataFrame | None,
    seed: int,
    units: Mapping[str, str],
) -> dict[str, pd.DataFrame]:
    """Follow every metric along an attribute that is a number (:func:`fit_trends`).

    `numbers` is the attribute, (subjects,), `units` its unit by name; the rest is that of
    :func:`adjust_attribute`. The tables ``trends`` and ``trend_tests``: nothing but a note for
    fewer than twice `min_group` people.
    """
    attribute, values = groups.attribute, numbers.to_numpy(float, na_value=np.nan)
    step = choose_step(attribute, values)
    unit = f"per {step:g} {units.get(attribute) or UNITS.get(attribute, '')}".strip()
    least = 2 * groups.min_group
    curves, tests = {}, {}
    for columns, held in _split_organs(groups.scores, covariates, volumes):
        found = fit_trends(
            groups.scores.matrix[:, columns],
            values,
            held,
            seed=seed,
            step=step,
            min_group=groups.min_group,
            clusters=groups.scores.clusters,
        )
        drawn = dict(iter(found.curves.groupby("column")))
        for row in found.tests.to_dict("records"):
            column = columns[row["column"]]
            head = groups.name_row(column)
            if row["n"] < least:
                note = f"nothing is shown: {row['n']} subjects, a trend needs {least}"
                tests[column] = head | {"n": row["n"], "unit": unit, "note": note}
                continue
            tests[column] = row | head | {"unit": unit}
            if row["column"] in drawn:
                part = drawn[row["column"]]
                nearby = part["nearby"].to_numpy(float, na_value=np.nan)
                curves[column] = part.assign(**head, nearby=nearby)[TABLES["trends"].names]
    return {
        "trends": join_tables([curves[column] for column in sorted(curves)], "trends"),
        "trend_tests": make_table([tests[column] for column in sorted(tests)], "trend_tests"),
    }


def _match_scored(
    groups: AttributeScores, everyone: Matching, columns: Sequence[int], covariates: pd.DataFrame
) -> Iterator[tuple[Matching, list[int]]]:
    """Yield matchings and the columns they serve: among those scored, where many pairs are not."""
    known = np.isfinite(groups.scores.matrix[:, columns])
    if not len(everyone.pairs):
        yield everyone, list(columns)
        return
    whole = known[everyone.pairs].all(axis=1).mean(axis=0) >= LEAST_SCORED_PAIRS
    if whole.any():
        yield everyone, [column for column, enough in zip(columns, whole, strict=True) if enough]
    patterns, number = np.unique(known[:, ~whole], axis=1, return_inverse=True)
    rest = np.asarray(columns)[~whole]
    for place, scored in enumerate(patterns.T):
        labels = groups.labels.copy()
        labels[~scored] = None
        matched = match_pairs(
            labels,
            covariates,
            everyone.first,
            everyone.second,
            min_group=groups.min_group,
            attribute=groups.attribute,
        )
        yield matched, rest[number.ravel() == place].tolist()


def _split_organs(
    scores: Scores, covariates: pd.DataFrame, volumes: pd.DataFrame | None
) -> list[tuple[list[int], pd.DataFrame]]:
    """Return the columns that share their covariates: all, or an organ's with its volume."""
    if volumes is None:
        return [(list(range(len(scores.keys))), covariates)]
    organs = list(dict.fromkeys(organ for _, organ, _ in scores.keys))
    return [
        (
            [column for column, key in enumerate(scores.keys) if key[1] == organ],
            covariates.assign(**{VOLUME: volumes[organ].to_numpy()}),
        )
        for organ in organs
    ]


def choose_step(attribute: str, values: np.ndarray) -> float:
    """Return what a slope is per: 10 years, 5 kg/m², else 1, 2 or 5 × a power of ten near an SD."""
    if attribute in STEPS:
        return STEPS[attribute]
    spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
    if not np.isfinite(spread) or spread <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(spread))
    return float(power * min((1.0, 2.0, 5.0, 10.0), key=lambda part: abs(np.log(spread / power / part))))
