"""For whom annotators, or repeated prompts, agree less well, and a model's gap beside theirs."""

from __future__ import annotations

import pandas as pd

from helpers.report.sentences.gaps import Row, leaves_worst_open, name_comparison
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import read_verdict
from helpers.vocabulary.words import (
    count,
    format_interval,
    format_value,
    is_known,
    list_words,
    name_for_people,
    name_group,
    name_organ,
)


def describe_agreement(rows: pd.DataFrame, alpha: float, *, annotators: bool) -> str:
    """Say for whom annotators, or a model's masks under repeated prompts, agree less well.

    `rows` are those of agreement.csv for one kind and one metric.
    """
    known = [row for row in rows.to_dict("records") if is_known(row.get("gap"))]
    if not known:
        return f"Groups could not be compared in how well {'annotators' if annotators else 'repeated prompts'} agree."
    whose = "annotators with each other" if annotators else "each model's masks when its prompts are drawn again"
    metric = str(known[0]["metric"])
    asked = f"{find_measure(metric).name} of {whose}, {count(len(known), 'comparison')} of groups"
    shown = [row for row in known if read_verdict(row, alpha).shows_difference]
    if not shown:
        widest = max(known, key=lambda row: abs(float(row["gap"])))
        return (
            f"{asked}: none was found to agree less. The widest gap, {_tell_gap(widest, name_model=not annotators)}, "
            f"has the 95 % CI {format_interval(widest.get('gap_low'), widest.get('gap_high'), metric)}."
        )
    said = list_words(
        f"{_tell_gap(row, name_model=not annotators)} in {name_group(row['attribute'], row['worst_group'])} than in "
        f"{name_group(row['attribute'], row['best_group'])}"
        + (" on average, which may be the other way round" if leaves_worst_open(row, alpha) else "")
        for row in shown
    )
    return f"{asked}: it is significantly lower by {said}."


def describe_against_agreement(rows: pd.DataFrame, alpha: float) -> str:
    """Say whether a model's gap is larger than the annotators', between the same groups and people.

    `rows` are those of against_agreement.csv for one metric.
    """
    known = rows[rows["difference"].notna()].to_dict("records")
    if not known:
        return ""
    beyond = [row for row in known if row["p_adjusted"] <= alpha and row["difference"] > 0]
    where = count(len(known), "gap of a model", "gaps of models")
    if beyond:
        said = "; ".join(map(_tell_both, beyond))
        return (
            f"Of {where}, {len(beyond)} {'is' if len(beyond) == 1 else 'are'} larger than the annotators' gap: {said}."
        )
    row = max(known, key=lambda row: float(row["difference"]))
    return (
        f"Of {where} none was found to be larger than the gap in the annotators' own agreement between the same two "
        f"groups. The furthest apart: {_tell_both(row)} (95 % CI of the difference "
        f"{format_interval(row['low'], row['high'], str(row['metric']))})."
    )


def _tell_both(row: Row) -> str:
    gap, theirs = (format_value(row[name], str(row["metric"])) for name in ("gap", "annotators_gap"))
    return f"{name_comparison(row)}, {gap} against {theirs} among annotators"


def _tell_gap(row: Row, *, name_model: bool) -> str:
    size = format_value(abs(float(row["gap"])), str(row["metric"]))
    where = f"{name_organ(row['organ'])}, by {name_for_people(str(row['attribute']))}"
    return f"{size} ({row['model']}, {where})" if name_model else f"{size} ({where})"
