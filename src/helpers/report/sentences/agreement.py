"""How well people, or repeated prompts, agree by themselves, for whom less, and a model's gap beside theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.figures.style import name_for_people
from helpers.report.sentences.gaps import FOUND, differs_by_ranks_alone, judge_gap, name_comparison
from helpers.report.sentences.words import (
    METRIC_NAMES,
    count,
    format_interval,
    format_size,
    is_known,
    list_words,
    name_organ,
)


def describe_agreement(rows: pd.DataFrame, alpha: float, *, people: bool) -> str:
    """Say for whom annotators, or a model's masks under repeated prompts, agree less well.

    Parameters
    ----------
    rows : DataFrame
        agreement.csv for one kind and one metric.
    alpha : float
    people : bool
        Annotators; else prompts.
    """
    known = [row for row in rows.to_dict("records") if is_known(row.get("gap"))]
    whose = "annotators with each other" if people else "each model's masks when its prompts are drawn again"
    if not known:
        return f"Groups could not be compared in how well {'annotators' if people else 'repeated prompts'} agree."
    metric = str(known[0]["metric"])
    shown = [row for row in known if judge_gap(row, alpha) in FOUND]
    asked = f"{METRIC_NAMES[metric]} of {whose}, {count(len(known), 'comparison')} of groups"
    if not shown:
        widest = max(known, key=lambda row: abs(float(row["gap"])))
        return (
            f"{asked}: none was shown to agree less. The widest gap, {_tell_gap(widest, people=people)}, has the 95 % interval "
            f"{format_interval(widest.get('gap_low'), widest.get('gap_high'), metric)}."
        )
    said = list_words(
        f"{_tell_gap(row, people=people)} lower in “{row['worst_group']}” than in “{row['best_group']}”"
        + (" on average, which may be the other way round" if differs_by_ranks_alone(row, alpha) else "")
        for row in shown
    )
    return f"{asked}: beyond chance it is {said}."


def describe_against_agreement(rows: pd.DataFrame, alpha: float) -> str:
    """Say whether a model's gap is larger than that among annotators, between the same groups of the same people.

    Parameters
    ----------
    rows : DataFrame
        against_agreement.csv for one metric.
    """
    known = rows[rows["difference"].notna()].to_dict("records")
    if not known:
        return ""
    metric = str(known[0]["metric"])
    beyond = [
        row for row in known if is_known(row["p_adjusted"]) and row["p_adjusted"] <= alpha and row["difference"] > 0
    ]
    where = count(len(known), "gap of a model", "gaps of models")
    if not beyond:
        row = max(known, key=lambda row: float(row["difference"]))
        return (
            f"Of {where} none was shown to be larger than the gap in the annotators' own agreement between the same two groups. The furthest apart: "
            f"{name_comparison(row)}, {format_size(row['gap'], metric)} against {format_size(row['annotators_gap'], metric)} among annotators "
            f"(95 % interval of the difference {format_interval(row['low'], row['high'], metric)})."
        )
    said = "; ".join(
        f"{name_comparison(row)}, {format_size(row['gap'], metric)} against {format_size(row['annotators_gap'], metric)}"
        for row in beyond
    )
    return f"Of {where}, {len(beyond)} {'is' if len(beyond) == 1 else 'are'} larger than that among annotators: {said}."


def _tell_gap(row: Mapping[str, Any], *, people: bool) -> str:
    of = "" if people else f"{row['model']}, "
    return f"{format_size(abs(float(row['gap'])), str(row['metric']))} ({of}{name_organ(row['organ'])}, by {name_for_people(str(row['attribute']))})"
