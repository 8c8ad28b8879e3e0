"""The verdict on every comparison at one glance: organs by models and attributes."""

from __future__ import annotations

import html
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from helpers.figures.panels import put_first
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict, find_p, find_reach, holds_zero, read_verdict, trace_pooled
from helpers.vocabulary.words import (
    ALL_MODELS,
    POOLED,
    count,
    format_interval,
    format_number,
    format_p,
    format_share,
    format_value,
    is_known,
    list_words,
    name_for_people,
    name_group,
    name_organ,
)

# The colours repeat what sign and word say; the report's page has stronger ones of its own.
_STYLE = (
    """\
<style>
.verdicts { font: 14px Arial, Helvetica, sans-serif; color: #222; margin: 0 0 1rem; }
.verdicts figcaption { font-size: 16px; font-weight: 700; margin: 0 0 .5rem; }
.verdicts .models { display: grid; gap: 1rem 1.25rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.verdicts .models.wide { grid-template-columns: minmax(0, 1fr); }
.verdicts .wide table { min-width: 44rem; }
.verdicts .overview { margin: 0 0 1rem; }
.verdicts .overview td { height: 2.2rem; padding: .05rem .3rem; font-size: 12px; line-height: 1.15;
  overflow-wrap: normal; }
.verdicts .overview caption { position: absolute; clip-path: inset(50%); }
.verdicts p.legend { font-size: 12.8px; max-width: none; margin: 0 0 .15rem; line-height: 1.35; }
.verdicts .overview th { padding: .1rem .25rem; overflow-wrap: break-word; }
.verdicts .overview th small { display: block; font-size: 11px; font-weight: 400; }
.verdicts .overview th[scope="colgroup"] { border-bottom: 2px solid #7d8890; }
.verdicts .overview td a { color: inherit; text-decoration: underline; text-underline-offset: 2px; display: block; }
.verdicts .overview td small { display: block; font-size: 11px; }
.verdicts .brief table { border-spacing: 2px 1px; }
.verdicts .brief td, .verdicts .brief tbody th { height: 1.5rem; padding-block: 0; line-height: 1.1; }
.verdicts .brief th:first-child { width: 14rem; }
.verdicts .brief th small { display: inline; margin-left: .5em; white-space: nowrap; }
.verdicts .brief td b, .verdicts .brief td small { display: inline; margin-right: .5em; }
.verdicts .overview td b { font-weight: 400; }
.verdicts .overview td:is(.tone-shown, .tone-unsized, .tone-small) b { font-weight: 700; }
.verdicts details { margin: .5rem 0 .75rem; }
.verdicts .scroll { min-width: 0; overflow-x: auto; }
.verdicts table { width: 100%; table-layout: fixed; font-size: 12.8px; border-collapse: separate; border-spacing: 2px; }
.verdicts caption { caption-side: top; text-align: left; font-size: 15px; font-weight: 600; padding: 0 0 .35rem;
  color: inherit; }
.verdicts th { text-align: left !important; font-weight: 600; padding: .2rem .25rem; background: none;
  overflow-wrap: anywhere; }
.verdicts td { text-align: left !important; vertical-align: middle; padding: .25rem .2rem; height: 2.9rem;
  line-height: 1.25; overflow-wrap: anywhere; }
.verdicts td, .verdicts .swatch { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
.verdicts td b { display: block; }
.verdicts ul { list-style: none; margin: .5rem 0 .75rem; padding: 0; display: flex; flex-wrap: wrap;
  gap: .25rem 1.25rem; max-width: none; }
.verdicts .swatch { display: inline-block; width: 1.4em; line-height: 1.3em; text-align: center; font-weight: 700;
  border: 1px solid #7d8890; }
.verdicts p { max-width: 60rem; }
.verdicts p.block { font-weight: 600; margin: 1rem 0 .4rem; padding-top: .5rem; border-top: 1px solid #b8c0c6; }
"""
    + "".join(f".verdicts .tone-{verdict.tone} {{ background: {verdict.colour}; }}\n" for verdict in Verdict)
    + ".verdicts td.tone-blank { border: 1px dashed #9a9a9a; }\n</style>\n"
)


FAILS_DIFFER = "✕"
Place = tuple[str, str, str]  # model, organ, attribute
# What one screen holds: columns of models by attributes, and organs.
_MOST_COLUMNS, _MOST_ROWS = 12, 12
_COLOURED = (
    "Coloured: a difference was found, ▲ larger than the margin, △ perhaps smaller; the group named is the one it is "
    "worse for. Grey (?): undecided, so no group is named, even where the interval leaves out 0: among {}, some do so "
    "by chance."
)


@dataclass(frozen=True)
class VerdictMatrix:
    """For whom each model works worse, as part of a page; a notebook shows it as it is."""

    html: str

    def to_html(self) -> str:
        """Return it with its style, for a page."""
        return f"{_STYLE}{self.html}"

    _repr_html_ = to_html  # as Jupyter shows it


def show_verdicts(
    disparity: pd.DataFrame, metric: str | None = None, *, alpha: float, failing: Container[Place] = ()
) -> VerdictMatrix:
    """Show the verdict on every comparison, for a notebook.

    `disparity` is ``fairness/disparity.csv``, `metric` (by default the table's first) stands open,
    the others are folded beneath; `alpha` is the error rate allowed over the family of comparisons;
    `failing` are the cells of `metric` whose groups differ in how often the model fails
    (:func:`helpers.figures.failure_matrix.find_failing`). Pointing at a cell tells more. Texts
    from the table are escaped: give it as it is.
    """
    metrics = put_first(disparity["metric"], metric)
    if not metrics or metric not in {None, *metrics}:
        return VerdictMatrix("<p>Nothing was compared: there is no attribute, or no such metric.</p>")
    first = draw_verdicts(disparity, metrics[0], alpha=alpha, hover=True, failing=failing)
    folded = [
        f"<details><summary>{html.escape(find_measure(name).long_name)}</summary>"
        f"{draw_verdicts(disparity, name, alpha=alpha, hover=True).html}</details>"
        for name in metrics[1:]
    ]
    return VerdictMatrix("".join([first.html, *folded]))


def draw_verdicts(
    disparity: pd.DataFrame,
    metric: str,
    *,
    alpha: float,
    organs: Iterable[str] = (),
    attributes: Iterable[str] = (),
    hover: bool = False,
    failing: Container[Place] = (),
    links: Mapping[Place, str] | None = None,
    levels: Mapping[str, str] | None = None,
    apart: Container[str] = (),
) -> VerdictMatrix:
    """Show the verdicts on one metric, for notebook and report; see :func:`show_verdicts`.

    One screen stands open: every model, organ and attribute where that is few, else each model's
    gravest verdict per attribute; the rest is folded beneath. A cell holds a sign, the gap with
    its interval and, where a difference is found, who does worse. `links` has an anchor of the page
    for cells of which more is told, by (model, organ, attribute); `levels` each model's medians.
    What is no model (`apart`: planted errors, a prompt by itself) stands last.

    `organs` and `attributes` come first, in this order, then the table's others; all organs pooled
    come before any. An organ needs a row, an attribute does not. With `hover`, pointing at a cell
    tells the groups, the minimum detectable difference, the adjusted p and the row's note as well.
    """
    part = disparity[(disparity["metric"] == metric) & (disparity["model"] != ALL_MODELS)]
    found = {(row["model"], row["organ"], row["attribute"]): row for row in part.to_dict("records")}
    rows = [organ for organ in put_first([*organs, *part["organ"]], POOLED) if organ in set(part["organ"])]
    columns = list(dict.fromkeys([*attributes, *part["attribute"]]))
    cells, measure = _Cells(found, alpha, failing, links or {}, levels or {}, apart, hover), find_measure(metric)
    models = cells.rank(list(dict.fromkeys(part["model"])))
    places = list(product(models, rows, columns))
    used = {cells.judge(place)[1] for place in places}
    name, comparisons = measure.name, count(sum(place in found for place in places), "comparison")
    each = f"how much {measure.worse} mean {name} is in the worst group than in the best, and its 95 % CI (below 0: it "
    each += f"may be the other way round). {_COLOURED.format(comparisons)}"
    each += f" With each model: the median {name} of everyone, in the lowest and the highest organ." * bool(levels)
    each += " Underlined: more is told below." * bool(links)
    each += f" {FAILS_DIFFER}: groups differ in how often the model fails." * any(place in failing for place in places)
    if len(models) * len(columns) <= _MOST_COLUMNS:
        grid = _draw_overview(cells, models, rows, columns, f"Each cell: {each}")
        how = "One column per model and attribute, one row per organ."
    else:
        brief = f"Each cell: in how many organs a difference was found; the gravest, {each}"
        grid = _draw_summary(cells, models, rows, columns, brief)
        grid += "".join(
            f"<details><summary>Organ by organ: by {escape(name_for_people(column))}</summary>"
            f"{_draw_organs(cells, models, rows, column, f'Each cell: {each}')}</details>"
            for column in columns
        )
        how = (
            "One row per model, one column per attribute: the gravest verdict over the organs. Beneath, folded, every "
            "organ."
        )
    key = "".join(
        f'<li><span class="swatch tone-{verdict.tone}" aria-hidden="true">{verdict.sign}</span> '
        f"{verdict.word}: {verdict.meaning}</li>"
        for verdict in Verdict
        if verdict in used
    )
    how += " An inconclusive cell (?) may hide a gap as large as the far end of its interval."
    if "unseen_share" in part and part["unseen_share"].notna().any():
        how += (
            " A cell may be open (? or △) although its interval lies inside the margin: the groups are then too small "
            "to rule out failures that nobody happened to have."
        )
    margins = {float(margin) for margin in part["margin"].dropna()} if "margin" in part else set()
    if len(margins) == 1:
        how += (
            f" The margin is {format_value(margins.pop(), metric)}: the largest difference that this study considers "
            "unimportant, set beforehand."
        )
    if Verdict.EQUIVALENT in used:
        how += " Equivalent (=): inside the margin, by two one-sided tests at 5 %."
    how += " Point at a cell for more." * hover
    caption = f"For whom each model works worse: the gap in {name} between groups, by organ and attribute"
    return VerdictMatrix(
        f'<figure class="verdicts"><figcaption>{caption}</figcaption>'
        f"{f'<p>{escape(describe_answerable(part))}</p>' * hover}"
        f"{grid}"
        f'<ul aria-label="Signs and colours">{key}</ul><p class="how"><strong>How to read this.</strong> {how}</p>'
        "</figure>"
    )


def describe_answerable(rows: pd.DataFrame) -> str:
    """Say in how many comparisons the margin can be answered at all with these people.

    `rows` are of disparity.csv for one metric; empty where nothing is known. From ``detectable``,
    which single tests find with the power asked for.
    """
    if not {"detectable", "margin"} <= set(rows):
        return ""
    known = rows[rows["detectable"].notna() & rows["margin"].notna()]
    if known.empty:
        return ""
    metric, margins = str(known["metric"].iloc[0]), known["margin"].unique()
    able, of = known["detectable"] <= known["margin"], count(len(known), "comparison")
    margin = "its margin" if len(margins) > 1 else f"the margin of {format_value(margins[0], metric)}"
    if able.all():
        return f"These people are enough to answer {margin} in {find_measure(metric).name} in all of {of}."
    least = format_value(known["detectable"].min(), metric)
    if not able.any():
        return (
            f"With these people a gap in {find_measure(metric).name} under {least} would probably be missed: {margin} "
            f"cannot be answered in any of {of}."
        )
    widest = format_value(known["detectable"].max(), metric)
    return (
        f"With these people {margin} in {find_measure(metric).name} can be answered in {int(able.sum())} of {of}; "
        f"elsewhere larger gaps, of up to {widest}, would probably be missed."
    )


@dataclass(frozen=True)
class _Cells:
    """What the cells of the open tables are made from."""

    found: Mapping[Place, Mapping[str, Any]]
    alpha: float
    failing: Container[Place]
    links: Mapping[Place, str]
    levels: Mapping[str, str]
    apart: Container[str]
    hover: bool

    def judge(self, place: Place) -> tuple[Mapping[str, Any], Verdict]:
        """Return the row of a place, and its verdict."""
        row = self.found.get(place, {})
        return row, read_verdict(row, self.alpha)

    def rank(self, models: Sequence[str]) -> list[str]:
        """Return the models, the gravest verdicts first, what is no model last; else in order."""
        grave = list(Verdict)
        worst = {model: len(grave) for model in models}
        for model, organ, attribute in self.found:
            if model in worst:
                verdict = grave.index(self.judge((model, organ, attribute))[1])
                worst[model] = min(worst[model], verdict)
        return sorted(
            models, key=lambda model: (model in self.apart, min(worst[model], grave.index(Verdict.EQUIVALENT)))
        )

    def draw(self, place: Place) -> str:
        """Return one comparison: sign, gap, interval, and who does worse."""
        row, verdict = self.judge(place)
        crossed = f" {FAILS_DIFFER}" * (place in self.failing)
        lines = [f"<b>{verdict.sign} {_write_gap(row)}{crossed}</b>"]
        if verdict is not Verdict.NOT_COMPARED:
            lines.append(f"<small>{escape(_write_interval(row))}</small>")
            lines += _name_worst(row, verdict)
        sources = trace_pooled(row, self.found.values(), self.alpha)
        if sources:
            lines.append(f"<small>due to {escape(list_words(map(name_organ, sources)))}</small>")
        return self._frame(place, verdict, "".join(lines), row)

    def summarise(self, model: str, organs: Sequence[str], attribute: str) -> str:
        """Return the gravest of an attribute's comparisons, and in how many organs one is found.

        All organs together count only where no single one is as grave.
        """
        places = [(model, organ, attribute) for organ in organs]
        judged = [(place, *self.judge(place)) for place in places]
        known = [one for one in judged if one[2] is not Verdict.NOT_COMPARED]
        single = [verdict for place, _, verdict in known if place[1] != POOLED]
        if not known:
            return self._frame(places[0], Verdict.NOT_COMPARED, f"<b>{Verdict.NOT_COMPARED.sign}</b>", {})
        shown, grave = sum(verdict.shows_difference for verdict in single), list(Verdict)

        def weigh(one: tuple[Place, Mapping[str, Any], Verdict]) -> tuple[int, bool, float]:
            return grave.index(one[2]), one[0][1] == POOLED, -float(one[1]["gap"])

        place, row, verdict = min(known, key=weigh)
        crossed = f" {FAILS_DIFFER}" * any(one in self.failing for one in places)
        worst = f", {escape(row['worst_group'])}" * bool(_name_worst(row, verdict))
        told = f"{_write_gap(row)} ({escape(_write_interval(row))}){worst}"
        number, organ = f"{shown} of {len(single)}", escape(name_organ(place[1]))
        lead, told = (
            (f"{organ} together", f"{told}; alone {number}") if place[1] == POOLED else (number, f"{organ} {told}")
        )
        text = f"<b>{verdict.sign} {lead}{crossed}</b><small>{told}</small>"
        return self._frame(place, verdict, text, row)

    def _frame(self, place: Place, verdict: Verdict, text: str, row: Mapping[str, Any]) -> str:
        told = f"{verdict.word}: {describe_cell(row, verdict)}".removesuffix(": ")
        title = escape("\n".join([told, *(_explain_verdict(row, verdict) if self.hover else ())]))
        anchor = self.links.get(place)
        text = f'<a href="#{escape(anchor)}">{text}</a>' if anchor else text
        return f'<td class="tone-{verdict.tone}" title="{title}">{text}</td>'


def _name_worst(row: Mapping[str, Any], verdict: Verdict) -> list[str]:
    """Return who does worse as a line of a cell; none where that is not found, or open."""
    is_open = verdict is Verdict.DIFFERENCE and holds_zero(row)
    return [f"<small>{escape(row['worst_group'])}</small>"] if verdict.shows_difference and not is_open else []


def _write_gap(row: Mapping[str, Any]) -> str:
    return format_number(row["gap"], str(row["metric"])) if is_known(row.get("gap")) else ""


def _write_interval(row: Mapping[str, Any]) -> str:
    metric, ends = str(row["metric"]), (row.get("gap_low"), row.get("gap_high"))
    return f"{' to '.join(format_number(end, metric) for end in ends)}" if all(map(is_known, ends)) else "no interval"


def _draw_overview(
    cells: _Cells, models: Sequence[str], organs: Sequence[str], attributes: Sequence[str], legend: str
) -> str:
    """Return every comparison: organs by models and attributes, the gravest organs open."""

    def weigh(organ: str) -> int:
        judged = (cells.judge((model, organ, attribute))[1] for model in models for attribute in attributes)
        return min((list(Verdict).index(verdict) for verdict in judged), default=0)

    gravest = sorted(organs, key=weigh)
    kept, rest = (sorted(some, key=organs.index) for some in (gravest[:_MOST_ROWS], gravest[_MOST_ROWS:]))
    above = "".join(
        f'<th scope="colgroup" colspan="{len(attributes)}">{escape(model)}{_tell_level(cells, model, "median ")}</th>'
        for model in models
    )
    names = "".join(f'<th scope="col">{escape(name_for_people(name))}</th>' for name in attributes)
    head = f'<tr><td></td>{above}</tr><tr><th scope="col">organ</th>{names * len(models)}</tr>'
    lines = {
        organ: draw_line(
            name_organ(organ), "".join(cells.draw((model, organ, name)) for model in models for name in attributes)
        )
        for organ in organs
    }
    opened, folded = (
        _draw_open(head, [lines[organ] for organ in some], legend, len(models) * len(attributes))
        for some in (kept, rest)
    )
    return opened + f"<details><summary>{len(rest)} more organs</summary>{folded}</details>" * bool(rest)


def _draw_summary(
    cells: _Cells, models: Sequence[str], organs: Sequence[str], attributes: Sequence[str], legend: str
) -> str:
    """Return each model's gravest verdict per attribute."""
    head = "".join(f'<th scope="col">by {escape(name_for_people(name))}</th>' for name in attributes)
    lines = [
        draw_line(
            model, "".join(cells.summarise(model, organs, name) for name in attributes), small=_tell_level(cells, model)
        )
        for model in models
    ]
    return _draw_open(f'<tr><th scope="col">model</th>{head}</tr>', lines, legend, len(attributes), brief=True)


def _tell_level(cells: _Cells, model: str, what: str = "") -> str:
    """Return how well a model does, small beside its name; empty where that is not known."""
    known = cells.levels.get(model)
    none = "no model; " * (model in cells.apart)
    return f"<small>{none}{what}{escape(known)}</small>" if known else ""


def _draw_organs(cells: _Cells, models: Sequence[str], organs: Sequence[str], attribute: str, legend: str) -> str:
    """Return one attribute's comparisons, models by organs."""
    head = "".join(f'<th scope="col">{escape(name_organ(organ))}</th>' for organ in organs)
    lines = [draw_line(model, "".join(cells.draw((model, organ, attribute)) for organ in organs)) for model in models]
    return _draw_open(f'<tr><th scope="col">model</th>{head}</tr>', lines, legend, len(organs))


def _draw_open(head: str, lines: Sequence[str], legend: str, columns: int, *, brief: bool = False) -> str:
    """Return an open table under its legend; it scrolls by itself where its columns do not fit."""
    width = 14 + 15 * columns if brief else 6 + 5.6 * columns
    return (
        f'<p class="legend">{legend}</p><div class="scroll overview{" brief" * brief}" tabindex="0" role="region" '
        f'aria-label="Verdicts"><table style="min-width: {width:g}rem"><caption>Verdicts</caption><thead>{head}</thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def draw_line(name: str, cells: str, *, small: str = "") -> str:
    """Return a row of a table: its name, then cells; `small` and they are HTML."""
    return f'<tr><th scope="row">{escape(name)}{small}</th>{cells}</tr>'


def describe_cell(row: Mapping[str, Any], verdict: Verdict) -> str:
    """Return who does worse and by how much, short enough for a cell; empty if not compared."""
    if verdict is Verdict.NOT_COMPARED:
        return ""
    metric, low, high = str(row["metric"]), row.get("gap_low"), row.get("gap_high")
    estimate = f"{format_value(row['gap'], metric)} ({format_interval(low, high, metric)})"
    group = name_group(row.get("attribute"), row["worst_group"])
    if verdict is Verdict.DIFFERENCE:
        return f"{estimate}; which group is worst is uncertain" if holds_zero(row) else f"{group} worse by {estimate}"
    if verdict.shows_difference:
        return f"{group} worse by {estimate}"
    if is_known(row.get("unseen_share")):
        return f"{estimate}; up to {format_share(row['unseen_share'])} of a group might fail, though nobody was seen to"
    if find_reach(row) is None:
        return "everyone has the same value" if low == high == 0 else ""
    return estimate


def _explain_verdict(row: Mapping[str, Any], verdict: Verdict) -> list[str]:
    """Return, in lines, what else is told to who points at a cell."""
    lines = []
    if verdict is not Verdict.NOT_COMPARED:
        metric = str(row["metric"])
        lines = [
            f"best: {row['best_group']}, worst: {row['worst_group']}, n = {row['n']:.0f}",
            f"minimum detectable difference {format_value(row.get('detectable'), metric)} (this comparison alone)",
            f"adjusted {format_p(find_p(row))}",
        ]
        if is_known(row.get("adjusted_gap")):
            lines.append(f"gap adjusted for covariates {format_value(row['adjusted_gap'], metric)}")
    if row.get("incomplete"):
        lines.append(f"without a value (missed or failed): {row['incomplete']}")
    note = row.get("note")
    return [*lines, *([str(note)] if is_known(note) else [])]


def escape(text: Any) -> str:
    """Return text that stays text in HTML, within an attribute too."""
    return html.escape(str(text), quote=True)
