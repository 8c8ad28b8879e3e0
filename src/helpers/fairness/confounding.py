"""What else differs between the groups: gaps with other attributes held equal, people matched, and trends without groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helpers.fairness.adjustment import adjust_gaps
from helpers.fairness.group_comparison import Compared
from helpers.fairness.groups import POOLED
from helpers.fairness.matching import match_pairs, measure_matched_gaps
from helpers.fairness.score_matrix import Scores
from helpers.fairness.tables import (
    ADJUSTED_MEAN_COLUMNS,
    ADJUSTED_NOTE_COLUMNS,
    BALANCE_COLUMNS,
    MATCHING_COLUMNS,
    TREND_COLUMNS,
    TREND_TEST_COLUMNS,
    join_tables,
    make_table,
    show,
)
from helpers.fairness.trends import fit_trends
from helpers.parameters import Fairness

VOLUME = "log organ volume"
STEPS = {"age": 10.0, "bmi": 5.0}
UNITS = {"age": "years", "bmi": "kg/m²"}

_GAP_NAMES = {
    "adjusted_gap": "adjusted_gap",
    "low": "adjusted_low",
    "high": "adjusted_high",
    "p_groups": "adjusted_p",
    "n": "adjusted_n",
}


@dataclass(frozen=True)
class Adjusted:
    """Adjusted gaps.

    Attributes
    ----------
    gaps : DataFrame
        One row per column: adjusted_gap, adjusted_low, adjusted_high, adjusted_p, adjusted_n.
    means, notes : DataFrame
        Rows of adjusted.csv and adjusted_notes.csv.
    """

    gaps: pd.DataFrame
    means: pd.DataFrame
    notes: pd.DataFrame


def is_numeric(column: pd.Series) -> bool:
    """Return whether a column of the cohort holds numbers, at least three different ones: a scale, not a code."""
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return bool(numeric and column.nunique() > 2)


def choose_covariates(
    attribute: str, attributes: Sequence[str], confounders: Sequence[str], known: pd.DataFrame, labels: pd.DataFrame
) -> pd.DataFrame:
    """Choose what is held equal when one attribute's groups are compared.

    Parameters
    ----------
    attribute : str
        The one compared: never among its own covariates.
    attributes, confounders : sequence of str
    known : DataFrame
        One row per subject: the cohort's own columns of these names, where it has them.
    labels : DataFrame
        One row per subject: each attribute's group.

    Returns
    -------
    DataFrame, (subjects, covariates)
        Every other attribute, by its number where the cohort has one and else by its group, then the confounders.
    """
    columns = {}
    for name in dict.fromkeys([*attributes, *confounders]):
        if name == attribute:
            continue
        if name in labels and not (name in known and is_numeric(known[name])):
            columns[name] = labels[name]
        else:
            columns[name] = known[name]
    return pd.DataFrame(columns, index=labels.index)


def measure_volumes(metrics: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Return the log of each organ's reference volume: one row per subject, one column per organ.

    Several scans, and models, of one person are averaged. The pooled organ's is the mean over the person's organs, after allowing for
    each organ's own mean, as their scores are pooled.
    """
    volume = metrics["volume_ref_ml"].to_numpy(float)
    logs = np.log(np.where(volume > 0, volume, np.nan))
    table = metrics[["subject", "organ"]].assign(subject=metrics["subject"].astype(str), log=logs)
    wide = table.pivot_table(index="subject", columns="organ", values="log", aggfunc="mean", dropna=False)
    wide = wide.reindex(index=scores.subjects, columns=list(dict.fromkeys(metrics["organ"])))
    wide[POOLED] = (wide - wide.mean()).mean(axis=1)
    return wide


def adjust_attribute(
    scores: Scores, compared: Compared, covariates: pd.DataFrame, volumes: pd.DataFrame | None, settings: Fairness
) -> Adjusted:
    """State every gap with the covariates held equal (:func:`helpers.fairness.adjustment.adjust_gaps`).

    Parameters
    ----------
    scores : Scores
    compared : Compared
        Names the two groups of each gap: the adjusted gap is between the same two.
    covariates : DataFrame, (subjects, covariates)
    volumes : DataFrame or None
        From :func:`measure_volumes`: each organ's column is one more covariate of its own scores.
    settings : Fairness

    Returns
    -------
    Adjusted
    """
    pairs = compared.list_pairs()
    labels = compared.groups.labels
    gaps: dict[int, dict[str, Any]] = {}
    means, notes = {}, {}
    for columns, held in _split_organs(scores, covariates, volumes):
        found = adjust_gaps(
            scores.matrix[:, columns],
            labels,
            held,
            [scores.metrics[column] for column in columns],
            min_group=settings.min_group,
            pairs=[pairs[column] for column in columns],
        )
        by_column = dict(iter(found.means.groupby("column")))
        for row in found.gaps.to_dict("records"):
            column = columns[row["column"]]
            model, organ, metric = scores.keys[column]
            head = {"model": model, "organ": organ, "metric": metric, "attribute": compared.groups.attribute}
            compares = pairs[column] is not None
            gaps[column] = {ours: row[theirs] if compares else np.nan for theirs, ours in _GAP_NAMES.items()}
            notes[column] = head | {
                name: row[name] for name in ADJUSTED_NOTE_COLUMNS if name in row and name not in head
            }
            part = by_column.get(row["column"])
            means[column] = [
                head | {"group": one.group, "n": one.n, "mean": one.adjusted_mean, "low": one.low, "high": one.high}
                for one in (part.itertuples(index=False) if part is not None else ())
            ]
    order = range(len(scores.keys))
    return Adjusted(
        pd.DataFrame([gaps[column] for column in order], columns=list(_GAP_NAMES.values())),
        make_table([row for column in order for row in means[column]], ADJUSTED_MEAN_COLUMNS),
        make_table([notes[column] for column in order], ADJUSTED_NOTE_COLUMNS),
    )


def match_attribute(
    scores: Scores, compared: Compared, covariates: pd.DataFrame, settings: Fairness
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """State every gap among matched pairs of people (:func:`helpers.fairness.matching.match_pairs`).

    Returns
    -------
    matching : DataFrame
        One row per column with a gap: ``group_a`` the best, ``group_b`` the worst group of the gap; ``gap`` positive where the former does
        better. Pairs are made once per two groups, by the covariates of people (not by the size of an organ).
    balance : DataFrame
        How alike the two groups are before and after.
    """
    names, attribute = compared.groups.names, compared.groups.attribute
    labels = compared.groups.labels
    by_pair: dict[tuple[int, int], list[int]] = {}
    for column, (best, worst) in enumerate(zip(compared.best, compared.worst, strict=True)):
        if best >= 0:
            by_pair.setdefault((min(best, worst), max(best, worst)), []).append(column)
    rows: dict[int, dict[str, Any]] = {}
    balance = []
    for (first, second), columns in sorted(by_pair.items()):
        matched = match_pairs(labels, covariates, names[first], names[second], min_group=settings.min_group)
        table = matched.balance.drop(columns="suppressed").set_axis(
            ["covariate", "level", "mean_a", "mean_b", "smd_before", "mean_a_after", "mean_b_after", "smd_after", "variance_ratio_before",
             "variance_ratio_after"], axis=1,
        )  # fmt: skip
        table = table.assign(
            attribute=attribute, group_a=names[first], group_b=names[second], suppressed=matched.balance["suppressed"]
        )
        balance.append(table[list(BALANCE_COLUMNS)])
        found = measure_matched_gaps(
            scores.matrix[:, columns], matched, [scores.metrics[column] for column in columns], min_group=settings.min_group
        )  # fmt: skip
        for column, row in zip(columns, found.to_dict("records"), strict=True):
            model, organ, metric = scores.keys[column]
            turned = compared.best[column] != first
            low, high = (-row["high"], -row["low"]) if turned else (row["low"], row["high"])
            rows[column] = {
                "model": model,
                "organ": organ,
                "metric": metric,
                "attribute": attribute,
                "group_a": names[compared.best[column]],
                "group_b": names[compared.worst[column]],
                "n_pairs": row["pairs"],
                "n_lost": matched.lost_first + matched.lost_second,
                "gap": -row["gap"] if turned else row["gap"],
                "low": low,
                "high": high,
                "p": row["p"],
                "note": "; ".join(text for text in (row["note"], *matched.warnings) if text and pd.notna(text)),
            }
    return make_table([rows[column] for column in sorted(rows)], MATCHING_COLUMNS), join_tables(
        balance, BALANCE_COLUMNS
    )


def fit_attribute(
    scores: Scores,
    attribute: str,
    numbers: pd.Series,
    covariates: pd.DataFrame,
    volumes: pd.DataFrame | None,
    settings: Fairness,
    seed: int,
    units: Mapping[str, str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow every metric along an attribute that is a number (:func:`helpers.fairness.trends.fit_trends`).

    Parameters
    ----------
    scores : Scores
    attribute : str
    numbers : Series of float, (subjects,)
    covariates, volumes, settings
        As in :func:`adjust_attribute`.
    seed : int
    units : mapping of str
        The attribute's unit by its name.

    Returns
    -------
    curves, tests : DataFrame
        Rows of trends.csv and trend_tests.csv; nothing but a note for fewer than twice `min_group` people.
    """
    values = numbers.to_numpy(float, na_value=np.nan)
    step = choose_step(attribute, values)
    unit = f"per {step:g} {units.get(attribute) or UNITS.get(attribute, '')}".strip()
    least = 2 * settings.min_group
    curves, tests = {}, {}
    for columns, held in _split_organs(scores, covariates, volumes):
        found = fit_trends(scores.matrix[:, columns], values, held, seed=seed, step=step, min_group=settings.min_group)
        drawn = dict(iter(found.curves.groupby("column")))
        for row in found.tests.to_dict("records"):
            column = columns[row["column"]]
            model, organ, metric = scores.keys[column]
            head = {"model": model, "organ": organ, "metric": metric, "attribute": attribute}
            if row["n"] < least:
                note = f"nothing is shown: {row['n']} subjects, a trend needs {least}"
                tests[column] = head | {"n": row["n"], "unit": unit, "note": note}
                continue
            tests[column] = head | {name: row[name] for name in TREND_TEST_COLUMNS if name in row and name not in head}
            tests[column] |= {"unit": unit, "p_nonlinear": row["p_bend"]}
            if row["column"] in drawn:
                part = drawn[row["column"]].drop(columns="column")
                nearby = part["nearby"].to_numpy(float, na_value=np.nan)
                curves[column] = part.assign(**head, nearby=nearby)[list(TREND_COLUMNS)]
    order = sorted(tests)
    return (
        join_tables([curves[column] for column in order if column in curves], TREND_COLUMNS),
        make_table([tests[column] for column in order], TREND_TEST_COLUMNS),
    )


def _split_organs(
    scores: Scores, covariates: pd.DataFrame, volumes: pd.DataFrame | None
) -> list[tuple[list[int], pd.DataFrame]]:
    """Return the columns that share their covariates: all of them, or an organ's where its volume is one."""
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
    """Return what an effect along a number is stated per: 10 years, 5 kg/m², else 1, 2 or 5 times a power of ten near a standard deviation."""
    if attribute in STEPS:
        return STEPS[attribute]
    spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
    if not np.isfinite(spread) or spread <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(spread))
    return float(show(power * min((1.0, 2.0, 5.0, 10.0), key=lambda part: abs(np.log(spread / power / part)))))
