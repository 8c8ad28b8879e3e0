"""What a comparison of groups may be called: verdicts with sign, word, meaning and colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from helpers.vocabulary.words import POOLED, is_known


class Verdict(StrEnum):
    """The verdict on one comparison, gravest first; its value is what the tables hold.

    Attributes
    ----------
    sign, meaning : str
        How it is shown: sign and word carry it, the colour repeats it.
    colour : str
        A tint light enough for dark text on it (contrast above 7 to 1).
    tone : str
        The name of its style in the report's page.
    """

    sign: str
    meaning: str
    colour: str
    tone: str

    def __new__(cls, value: str, sign: str, meaning: str, colour: str, tone: str) -> Verdict:
        """Make a member: the text of the tables, with its looks as attributes."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sign, member.meaning, member.colour, member.tone = sign, meaning, colour, tone
        return member

    DISPARITY = "disparity", "▲", "the groups differ by more than the margin", "#F4A582", "shown"
    DIFFERENCE = "difference", "△", "the groups differ; whether beyond the margin is uncertain", "#F9CDB4", "unsized"
    NEGLIGIBLE = "negligible", "▽", "the groups differ, but by less than the margin", "#FCE4CC", "small"
    EQUIVALENT = "equivalent", "=", "any difference is smaller than the margin", "#A9D3EC", "within"
    INCONCLUSIVE = "inconclusive", "?", "the data cannot tell", "#E4E4E4", "open"
    NOT_COMPARED = (
        "not compared",
        "–",
        "fewer than two groups with enough people, or nothing measured",
        "#FFFFFF",
        "blank",
    )

    @property
    def word(self) -> str:
        """Its value, as it is read."""
        return self.value

    @property
    def shows_difference(self) -> bool:
        """Whether the groups were found to differ, by much or little."""
        return self in (Verdict.DISPARITY, Verdict.DIFFERENCE, Verdict.NEGLIGIBLE)


def read_verdict(row: Mapping[str, Any], alpha: float) -> Verdict:
    """Return the verdict on one comparison.

    Parameters
    ----------
    row : mapping
        Of ``disparity.csv``: worst_group, best_group, gap, verdict, p_adjusted (p where absent).
    alpha : float
        The error rate allowed over the family of comparisons.

    Returns
    -------
    Verdict
        NOT_COMPARED without a gap (fewer than two groups large enough, or nothing measured); else
        the table's own word. Where it has none, DIFFERENCE if the adjusted p is at most `alpha` and
        the interval leaves out 0, else INCONCLUSIVE.
    """
    if not all(is_known(row.get(name)) for name in ("gap", "worst_group")):
        return Verdict.NOT_COMPARED
    told = row.get("verdict")
    for verdict in Verdict:
        if told == verdict:
            return verdict
    p = find_p(row)
    shown = is_known(p) and float(p) <= alpha and find_reach(row) is not None and not holds_zero(row)
    return Verdict.DIFFERENCE if shown else Verdict.INCONCLUSIVE


def trace_pooled(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], alpha: float) -> list[str] | None:
    """Return the single organs that a difference over all organs follows from; None for other rows.

    `rows` are of the same table: those of the same model, measure and attribute in which the same
    group was found to do worse. An empty list where it is so in no single organ.
    """
    if str(row.get("organ")) != POOLED or not read_verdict(row, alpha).shows_difference:
        return None
    same = ("model", "metric", "attribute", "worst_group")
    return [
        str(one["organ"])
        for one in rows
        if str(one["organ"]) != POOLED
        and all(str(one[name]) == str(row[name]) for name in same)
        and read_verdict(one, alpha).shows_difference
    ]


def rank_rows(rows: Sequence[Mapping[str, Any]], alpha: float) -> list[Mapping[str, Any]]:
    """Return the comparisons in which a difference is found: the gravest, then the largest first.

    All organs together come after single organs: such a row often only repeats one of them.
    """
    grave = list(Verdict)
    found = [(grave.index(verdict), row) for row in rows if (verdict := read_verdict(row, alpha)).shows_difference]
    found.sort(key=lambda pair: (pair[0], str(pair[1]["organ"]) == POOLED, -abs(float(pair[1]["gap"]))))
    return [row for _, row in found]


def find_p(row: Mapping[str, Any]) -> Any:
    """Return the p-value adjusted for the family of tests; the test's own where there is none."""
    return row["p_adjusted"] if "p_adjusted" in row else row.get("p")


def find_reach(row: Mapping[str, Any]) -> float | None:
    """Return the size of the largest gap inside the interval, either way.

    None without an interval, or where nobody varies and it has no width.
    """
    ends = [float(row[end]) for end in ("gap_low", "gap_high") if is_known(row.get(end))]
    return max(map(abs, ends)) if len(ends) == 2 and ends[0] < ends[1] else None


def holds_zero(row: Mapping[str, Any]) -> bool:
    """Tell whether the interval of a gap holds zero."""
    low, high = row.get("gap_low"), row.get("gap_high")
    return is_known(low) and is_known(high) and float(low) <= 0 <= float(high)
