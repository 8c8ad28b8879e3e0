"""The verdict on every comparison at one glance: a table per model, organs by attributes."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from helpers.figures.panels import put_first
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict, find_p, find_reach, holds_zero, read_verdict
from helpers.vocabulary.words import (
    POOLED,
    format_interval,
    format_p,
    format_value,
    is_known,
    name_for_people,
    name_organ,
)

_STYLE = """\
<style>
.verdicts { font: 14px Arial, Helvetica, sans-serif; color: #222; margin: 0 0 1rem; }
.verdicts figcaption { font-size: 16px; font-weight: 700; margin: 0 0 .5rem; }
.verdicts .models { display: grid; gap: 1rem 1.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.verdicts .scroll { min-width: 0; overflow-x: auto; }
.verdicts table { width: 100%; table-layout: fixed; font-size: 13px; border-collapse: separate; border-spacing: 2px; }
.verdicts caption { caption-side: top; text-align: left; font-weight: 700; padding: .2rem 0; color: #222; }
.verdicts th { text-align: left; font-weight: 600; padding: .2rem .25rem; background: none; overflow-wrap: anywhere; }
.verdicts td { text-align: left; vertical-align: middle; padding: .25rem .35rem; height: 2.8rem; line-height: 1.25;
  overflow-wrap: anywhere; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
.verdicts td b, .verdicts td span { display: block; }
.verdicts .blank { border: 1px dashed #9a9a9a; }
.verdicts .wide table { min-width: 44rem; }
.verdicts ul { list-style: none; margin: .7rem 0 0; padding: 0; }
.verdicts li { margin: .15rem 0; }
.verdicts li b { display: inline-block; min-width: 8rem; padding: .1rem .35rem; margin-right: .4rem;
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
</style>
"""

_HOW = (
    "<p>Numbers: the gap between the best and the worst group, in brackets its 95 % interval; “up to” is the largest "
    "gap that cannot be ruled out. Point at a cell for more.</p>"
)


@dataclass(frozen=True)
class VerdictMatrix:
    """A page's part that says for whom each model works worse; a notebook shows it as it is."""

    html: str

    def to_html(self) -> str:
        """Return it with its style, for a page."""
        return f"{_STYLE}{self.html}"

    _repr_html_ = to_html  # as Jupyter shows it


def show_verdicts(disparity: pd.DataFrame, metric: str | None = None, *, alpha: float) -> VerdictMatrix:
    """Show the verdict on every comparison: a table per model, organs by attributes.

    Parameters
    ----------
    disparity : DataFrame
        ``fairness/disparity.csv``.
    metric : str, optional
        Shown first (by default the table's first); the others are folded beneath.
    alpha : float
        The error rate allowed over the family of comparisons.

    Returns
    -------
    VerdictMatrix
        A cell holds a sign, a word, who does worse and by how much (95 % interval); pointing at it
        gives the groups, the minimum detectable difference and the adjusted p. Texts from the table
        are escaped: give it as it is.
    """
    metrics = put_first(disparity["metric"], metric)
    if not metrics or metric not in {None, *metrics}:
        return VerdictMatrix("<p>Nothing was compared: there is no attribute, or no such metric.</p>")
    first, *others = (draw_verdicts(disparity, name, alpha=alpha) for name in metrics)
    folded = [
        f"<details><summary>{html.escape(find_measure(name).long_name)}</summary>{matrix.html}</details>"
        for name, matrix in zip(metrics[1:], others, strict=True)
    ]
    return VerdictMatrix("".join([first.html, *folded]))


def draw_verdicts(
    disparity: pd.DataFrame, metric: str, *, alpha: float, organs: Sequence[str] | None = None
) -> VerdictMatrix:
    """Show the verdicts on one metric; `organs` gives the rows' order, all together come first."""
    part, measure = disparity[disparity["metric"] == metric], find_measure(metric)
    found = {(row["model"], row["organ"], row["attribute"]): row for row in part.to_dict("records")}
    rows = list(dict.fromkeys(part["organ"])) if organs is None else [o for o in organs if o in set(part["organ"])]
    rows = put_first(rows, POOLED)
    attributes = list(dict.fromkeys(part["attribute"]))
    judged = {place: read_verdict(row, alpha) for place, row in found.items()}
    tables = []
    for model in dict.fromkeys(part["model"]):
        head = "".join(f'<th scope="col">by {_write(name_for_people(name))}</th>' for name in attributes)
        lines = [
            f'<tr><th scope="row">{_write(name_organ(organ))}</th>'
            + "".join(_draw_cell(found.get((model, organ, name)), alpha) for name in attributes)
            + "</tr>"
            for organ in rows
        ]
        tables.append(
            f'<div class="scroll{" wide" * (len(attributes) > 4)}" tabindex="0" role="region" '
            f'aria-label="{_write(model)}"><table><caption>{_write(model)}</caption>'
            f'<thead><tr><th scope="col">organ</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        )
    key = "".join(
        f'<li><b style="background: {verdict.colour}">{verdict.sign} {verdict.word}</b>{verdict.meaning}</li>'
        for verdict in Verdict
        if verdict in judged.values()
    )
    margins = {float(margin) for margin in part["margin"].dropna()} if "margin" in part else set()
    margin = f"; margin {format_value(margins.pop(), metric)}" if len(margins) == 1 else ""
    return VerdictMatrix(
        f'<figure class="verdicts"><figcaption>For whom each model works worse: the gap in {measure.name} between '
        f'groups{margin}</figcaption><div class="models">{"".join(tables)}</div><ul>{key}</ul>{_HOW}</figure>'
    )


def describe_cell(row: Mapping[str, Any], verdict: Verdict) -> str:
    """Return who does worse and by how much, short enough for a cell; empty if not compared."""
    if verdict is Verdict.NOT_COMPARED:
        return ""
    metric, low, high = str(row["metric"]), row.get("gap_low"), row.get("gap_high")
    interval, within = format_interval(low, high, metric), f"within {format_value(row.get('margin'), metric)}"
    worse = f"“{row['worst_group']}” worse by {format_value(row['gap'], metric)}"
    if verdict is Verdict.DISPARITY:
        return f"{worse} ({interval})"
    if verdict is Verdict.DIFFERENCE:
        which = "which is worse" if holds_zero(row) else f"“{row['worst_group']}” worse, how much"
        return f"{which} is uncertain: {interval}"
    if verdict is Verdict.NEGLIGIBLE:
        return f"{worse}, {within}"
    if verdict is Verdict.EQUIVALENT:
        return within
    reach = find_reach(row)
    if reach is None:
        return "everyone has the same value" if low == high == 0 else ""
    return f"up to {format_value(reach, metric)}"


def _draw_cell(row: Mapping[str, Any] | None, alpha: float) -> str:
    verdict = Verdict.NOT_COMPARED if row is None else read_verdict(row, alpha)
    detail = (
        "" if row is None or verdict is Verdict.NOT_COMPARED else f"<span>{_write(describe_cell(row, verdict))}</span>"
    )
    blank = ' class="blank"' if verdict is Verdict.NOT_COMPARED else ""
    return (
        f'<td{blank} style="background: {verdict.colour}" title="{_write(_explain_verdict(row or {}, verdict))}">'
        f"<b>{verdict.sign} {verdict.word}</b>{detail}</td>"
    )


def _explain_verdict(row: Mapping[str, Any], verdict: Verdict) -> str:
    """Return what is told to who points at a cell."""
    lines = []
    if row and verdict is not Verdict.NOT_COMPARED:
        metric = str(row["metric"])
        lines = [
            f"best: {row['best_group']}, worst: {row['worst_group']}, n = {row['n']:.0f}",
            f"gap {format_value(row['gap'], metric)}, 95 % interval "
            f"{format_interval(row.get('gap_low'), row.get('gap_high'), metric)}",
            f"minimum detectable difference {format_value(row.get('detectable'), metric)} (this comparison alone)",
            f"adjusted {format_p(find_p(row))}",
        ]
        if is_known(row.get("adjusted_gap")):
            lines.append(f"gap adjusted for covariates {format_value(row['adjusted_gap'], metric)}")
    note = row.get("note")
    return "\n".join([*lines, *([str(note)] if is_known(note) else [])])


def _write(text: Any) -> str:
    return html.escape(str(text), quote=True)
