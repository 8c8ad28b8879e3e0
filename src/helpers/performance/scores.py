"""Ready-made scores → metrics.parquet: what a 0 and an empty cell mean, by one stated rule."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.cohort import ScoreTable, match_scans, read_scores
from helpers.metrics import convert_dice_to_boundary_error
from helpers.study import Study
from helpers.vocabulary.measures import find_measure, use_measures


def collect_scores(study: Study) -> pd.DataFrame:
    """Return the scores of a study's included scans as the rows of ``metrics.parquet``.

    One row per scan × model × organ, with a column per measure that is given, or that follows from
    those (:data:`helpers.cohort.scores.DERIVED`), and a ``status``.

    Where no model has a number, the organ is not in the reference, or was not scored; where another
    model has one, an empty cell is missing, or a missed organ under ``empty: zero``. A 0 is a
    missed organ, unless every other model that scored anything on the scan leaves this organ empty,
    and ``empty: zero`` does not say that they missed it too. A scan that a table does not list for
    a model is missing under either rule (:data:`helpers.vocabulary.statuses.STATUSES`).
    """
    wanted, included = study.parameters.cohort.scores, study.read_included()
    scores, _ = match_scans(read_scores(study), included["scan"])
    table = _arrange(scores, included)
    with use_measures(study.parameters.fairness.measures):
        judged = judge_cells(table, scores.measures, zero=wanted is not None and wanted.empty == "zero")
    return _derive(judged).assign(error="")


def judge_cells(table: pd.DataFrame, measures: list[str], *, zero: bool) -> pd.DataFrame:
    """Say what became of each cell: ``status``; see :func:`collect_scores` for the rule.

    `table` has every scan × model × organ, with the columns `measures` and ``listed``: whether a
    table has the cell. `zero` says whether an empty cell is a missed organ.
    """
    scored = [name for name in measures if find_measure(name).is_score]
    overlaps = [name for name in scored if find_measure(name).higher_is_better and find_measure(name).bounds[0] == 0]
    has = table[scored].notna().any(axis=1)
    best = table[overlaps].max(axis=1) if overlaps else pd.Series(np.nan, table.index)
    missed = has & (best == 0)
    spots = [table["scan"], table["organ"]]
    anyone = has.groupby(spots).transform("any")
    # A model says that an organ is absent where it scored others of the scan, and not this one.
    denies = ~has & has.groupby([table["scan"], table["model"]]).transform("any")
    denied = denies.groupby(spots).transform("any")
    found = (has & ~missed).groupby(spots).transform("any")
    several = len(table["model"].unique()) > 1
    if "volume_ref_ml" in table:
        anyone |= (table["volume_ref_ml"] > 0).groupby(spots).transform("any")
        absent = (table["volume_ref_ml"] == 0).groupby(spots).transform("any")
    else:
        absent = pd.Series(False, table.index)
    status = pd.Series("ok", table.index).mask(missed, "scored_zero")
    empty = table["listed"] & ~has if zero else pd.Series(False, table.index)
    status = status.mask(~has, "score_missing").mask(empty, "empty_as_zero")
    status = status.mask(~has & ~anyone & (several or not zero), "not_scored")
    unconfirmed = missed & denied & ~found & (not zero)
    if "dice_proxy" in table:
        proxied = table["dice_proxy"].notna().groupby(spots).transform("any")
        status = status.mask((status == "not_scored") & proxied, "no_reference")
    status = status.mask(absent, "not_scored").mask(unconfirmed, "zero_unconfirmed")
    table = table.assign(status=status.astype(str))
    table.loc[status == "empty_as_zero", overlaps] = 0.0
    table.loc[status.isin(["not_scored", "zero_unconfirmed"]), scored] = np.nan
    # Whoever leaves an organ empty that is taken not to be there lacks nothing.
    gone = (unconfirmed.groupby(spots).transform("any")) & (status == "score_missing") & ~found
    table.loc[gone, "status"] = "not_scored"
    return table.drop(columns="listed")


def _arrange(scores: ScoreTable, included: pd.DataFrame) -> pd.DataFrame:
    """Return a row per included scan × model × organ, in the order of scans, models and organs."""
    rows = scores.rows.assign(listed=True)
    axes = [included["scan"], rows["model"].unique(), rows["organ"].unique()]
    every = pd.MultiIndex.from_product(axes, names=["scan", "model", "organ"])
    table = rows.set_index(list(every.names)).reindex(every).reset_index()
    table["listed"] = table["listed"].notna()
    head = included.set_index("scan")[["subject", "number"]].loc[table["scan"]].reset_index(drop=True)
    return pd.concat([head["subject"], table["scan"], head["number"], table.drop(columns="scan")], axis=1)


def _derive(table: pd.DataFrame) -> pd.DataFrame:
    """Add the boundary error and the volume error where what they need is given."""
    if {"dice", "volume_ref_ml", "surface_ref_cm2"} <= set(table) and "boundary_error_mm" not in table:
        known = (table["dice"] > 0) & (table["surface_ref_cm2"] > 0)
        error = convert_dice_to_boundary_error(*(table[name] for name in ("dice", "volume_ref_ml", "surface_ref_cm2")))
        table["boundary_error_mm"] = pd.Series(error, table.index).where(known)
    if {"volume_ref_ml", "volume_pred_ml"} <= set(table) and "volume_error_ml" not in table:
        scored = table["status"].isin(["ok", "scored_zero", "empty_as_zero"])
        table["volume_error_ml"] = (table["volume_pred_ml"] - table["volume_ref_ml"]).where(scored)
    if {"volume_ref_ml", "volume_error_ml"} <= set(table) and "volume_error_relative" not in table:
        table["volume_error_relative"] = table["volume_error_ml"].abs() / table["volume_ref_ml"].where(
            table["volume_ref_ml"] > 0
        )
    return table
