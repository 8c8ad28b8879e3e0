"""Rows of failures.csv → sentences: on whom a model fails altogether."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helpers.vocabulary.verdicts import Verdict, read_verdict
from helpers.vocabulary.words import (
    MISSED_ORGAN,
    POOLED,
    count,
    format_p,
    format_share,
    is_known,
    list_words,
    name_failure,
    name_for_people,
    name_members,
    name_organ,
    write_number,
)


def rank_failures(rows: Sequence[Mapping[str, Any]], alpha: float) -> list[Mapping[str, Any]]:
    """Return the comparisons in which groups were found to differ, the gravest first.

    `rows` are of :func:`helpers.fairness.failures.pair_groups`. One per model, organ and attribute:
    the gravest verdict and then the gravest kind of failure, which a table has last. All organs
    together come after single ones.
    """
    grave = list(Verdict)
    found: dict[tuple[str, ...], tuple[int, Mapping[str, Any]]] = {}
    for row in rows:
        verdict, place = read_verdict(row, alpha), tuple(str(row[name]) for name in ("model", "organ", "attribute"))
        if verdict.shows_difference and grave.index(verdict) <= found.get(place, (len(grave), {}))[0]:
            found[place] = grave.index(verdict), row
    ranked = sorted(found.values(), key=lambda pair: (pair[0], str(pair[1]["organ"]) == POOLED, -float(pair[1]["gap"])))
    return [row for _, row in ranked]


def describe_failure(row: Mapping[str, Any], alpha: float) -> str:
    """Say of one comparison how often the worst and the best group fail, and how sure that is."""
    kind = _name_kind(row)
    verdict = read_verdict(row, alpha)
    sizes = {
        side: f"{row[f'{side}_failed']:.0f} of {row[f'{side}_n']:.0f} "
        f"{name_members(row['attribute'], row[f'{side}_group'])} "
        f"({format_share(row[f'{side}_share'])})"
        for side in ("worst", "best")
    }
    gap, low, high = (write_number(100 * float(row[name]), 1) for name in ("gap", "gap_low", "gap_high"))
    size = {
        Verdict.DISPARITY: f"more than the margin of {format_share(row['margin'])}",
        Verdict.NEGLIGIBLE: f"within the margin of {format_share(row['margin'])}",
    }.get(verdict, f"whether more than the margin of {format_share(row['margin'])} is uncertain")
    return (
        f"{row['model']}, {name_organ(row['organ'])} by {name_for_people(str(row['attribute']))}: {kind} in "
        f"{sizes['worst']}, and in {sizes['best']}: {gap} percentage points more (95 % CI "
        f"{low} to {high}, adjusted {format_p(row['p_adjusted'])}), {size}."
    )


def describe_failures_overall(rows: Sequence[Mapping[str, Any]], alpha: float) -> str:
    """Say how many comparisons of failures show a difference, and what is open in the others."""
    compared = [row for row in rows if read_verdict(row, alpha) is not Verdict.NOT_COMPARED]
    if not compared:
        return ""
    of = count(len(compared), "comparison")
    kinds = list_words(dict.fromkeys(_name_failure(row) for row in compared))
    shown = [row for row in compared if read_verdict(row, alpha).shows_difference]
    within = sum(read_verdict(row, alpha) is Verdict.EQUIVALENT for row in compared)
    open_ = len(compared) - len(shown) - within
    said = f"How often models fail ({kinds}) was compared too, because a mean can hide it: in {of} "
    said += f"groups were found to differ in {len(shown)}" if shown else "no groups were found to differ"
    rest = [f"{within} to be within the margin"] if within else []
    rest += [f"{open_} cannot tell"] if open_ else []
    return f"{said}; {list_words(rest)}." if rest else f"{said}."


def _name_failure(row: Mapping[str, Any]) -> str:
    return name_failure(str(row["metric"]), float(row["threshold"]) if is_known(row["threshold"]) else float("nan"))


def _name_kind(row: Mapping[str, Any]) -> str:
    kind = _name_failure(row)
    if str(row["organ"]) == POOLED:
        return f"some {kind}" if row["metric"] == MISSED_ORGAN else f"{kind} in some organ"
    return kind
