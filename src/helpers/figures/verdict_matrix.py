"""The verdict on every comparison at one glance: a table per model, organs by attributes."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    round_as_shown,
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
.verdicts td b, .verdicts td span { display: block; }
.verdicts td .fails { margin-top: .15rem; padding-top: .1rem; border-top: 1px dotted #7d8890; }
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
    "Coloured: a difference is shown, ▲ larger than the margin, △ perhaps smaller. Grey (?): the data cannot tell, "
    "even where an interval leaves out 0: of so many comparisons, some do by chance."
)


@dataclass(frozen=True)
class Fails:
    """On how many people models fail, as cells of the verdicts say it; empty: nothing is said."""

    kind: str = ""  # what a failure is
    cells: Mapping[tuple[str, str, str], str] = field(default_factory=dict)  # by (model, organ, attribute)
    differ: frozenset[tuple[str, str, str]] = frozenset()  # the cells whose groups are shown to differ in it


@dataclass(frozen=True)
class VerdictMatrix:
    """For whom each model works worse, as part of a page; a notebook shows it as it is."""

    html: str

    def to_html(self) -> str:
        """Return it with its style, for a page."""
        return f"{_STYLE}{self.html}"

    _repr_html_ = to_html  # as Jupyter shows it


def show_verdicts(
    disparity: pd.DataFrame,
    metric: str | None = None,
    *,
    alpha: float,
    blocks: Mapping[str, str] | None = None,
    fails: Fails | None = None,
) -> VerdictMatrix:
    """Show the verdict on every comparison: a table per model, organs by attributes.

    `disparity` is ``fairness/disparity.csv``, `metric` (by default the table's first) stands open,
    the others are folded beneath; `alpha` is the error rate allowed over the family of comparisons;
    `blocks` gives each model its heading (:func:`helpers.models.list_blocks`); `fails` says in each
    cell of `metric` how often the model fails (:func:`helpers.figures.failure_matrix.find_fails`).
    A cell holds a sign, the gap with its interval and, where a difference is shown, who does worse;
    pointing at it gives the groups, the minimum detectable difference and the adjusted p. Texts
    from the table are escaped: give it as it is.
    """
    metrics = put_first(disparity["metric"], metric)
    if not metrics or metric not in {None, *metrics}:
        return VerdictMatrix("<p>Nothing was compared: there is no attribute, or no such metric.</p>")
    first, *others = (
        draw_verdicts(disparity, name, alpha=alpha, blocks=blocks, hover=True, fails=said)
        for name, said in zip(metrics, (fails, *[None] * len(metrics)), strict=False)
    )
    folded = [
        f"<details><summary>{html.escape(find_measure(name).long_name)}</summary>{matrix.html}</details>"
        for name, matrix in zip(metrics[1:], others, strict=True)
    ]
    return VerdictMatrix("".join([first.html, *folded]))


def draw_verdicts(
    disparity: pd.DataFrame,
    metric: str,
    *,
    alpha: float,
    organs: Iterable[str] = (),
    attributes: Iterable[str] = (),
    blocks: Mapping[str, str] | None = None,
    hover: bool = False,
    fails: Fails | None = None,
    links: Mapping[tuple[str, str, str], str] | None = None,
    levels: Mapping[str, str] | None = None,
) -> VerdictMatrix:
    """Show the verdicts on one metric, for notebook and report; see :func:`show_verdicts`.

    One screen stands open: every model, organ and attribute where that is few, else each model's
    gravest verdict per attribute; the rest is folded beneath. `links` has an anchor of the page for
    cells of which more is told, by (model, organ, attribute); `levels` how well each model does.

    `organs` and `attributes` come first, in this order, then the table's others; all organs pooled
    come before any. An organ needs a row, an attribute does not. `blocks` gives each model the
    heading under which it stands with others of its like, where there is more than one. With
    `hover`, pointing at a cell tells more, its row's note included.
    """
    part, name, fails = disparity[disparity["metric"] == metric], find_measure(metric).name, fails or Fails()
    found = {(row["model"], row["organ"], row["attribute"]): row for row in part.to_dict("records")}
    rows = [organ for organ in put_first([*organs, *part["organ"]], POOLED) if organ in set(part["organ"])]
    columns = list(dict.fromkeys([*attributes, *part["attribute"]]))
    caption = f"For whom each model works worse: the gap in {name} between groups, by organ and attribute"
    head = "".join(f'<th scope="col">by {escape(name_for_people(column))}</th>' for column in columns)
    tables: dict[str, str] = {}
    used = set()
    for model in dict.fromkeys(part["model"]):
        lines = []
        for organ in rows:
            judged = [(row := found.get((model, organ, column), {}), read_verdict(row, alpha)) for column in columns]
            used |= {verdict for _, verdict in judged}
            said = [fails.cells.get((model, organ, column), "") for column in columns]
            cells = "".join(
                _draw_cell(row, verdict, told, hover=hover) for (row, verdict), told in zip(judged, said, strict=True)
            )
            lines.append(draw_line(name_organ(organ), cells))
        tables[model] = draw_table(model, caption, "organ", head, lines)
    grid = arrange_tables(tables, blocks or {}, wide=len(columns) > 4)
    opened = _Cells(found, alpha, fails, links or {}, levels or {})
    measure = find_measure(metric)
    each = f"how much {measure.worse} mean {name} is for the group named than for the best one (95 % CI). {_COLOURED}"
    each += f" {FAILS_DIFFER}: groups differ in how often the model fails." * bool(fails.differ)
    models = opened.rank([model for model in tables if model != ALL_MODELS])
    if len(models) * len(columns) <= _MOST_COLUMNS:
        overview = _draw_overview(opened, models, rows, columns, f"Each cell: {each}", name)
        how = "One column per model and attribute, one row per organ."
    else:
        brief = f"Each cell: in how many organs a difference is shown; the gravest, {each}"
        overview = _draw_summary(opened, models, rows, columns, brief, name)
        overview += "".join(
            f"<details><summary>Organ by organ: by {escape(name_for_people(column))}</summary>"
            f"{_draw_organs(opened, models, rows, column, f'Each cell: {each}')}</details>"
            for column in columns
        )
        how = (
            "One row per model, one column per attribute: the gravest verdict over the organs. Beneath, folded, every "
            "organ."
        )
    grid = f"{overview}<details><summary>One table per model, in words</summary>{grid}</details>"
    key = "".join(
        f'<li><span class="swatch tone-{verdict.tone}" aria-hidden="true">{verdict.sign}</span> '
        f"{verdict.word}: {verdict.meaning}</li>"
        for verdict in Verdict
        if verdict in used
    )
    told = (
        f"The tables per model also tell on how many people of the worst and the best group a model fails "
        f"({escape(fails.kind)}). "
        if any(fails.cells.values())
        else ""
    )
    refused = "unseen_share" in part and part["unseen_share"].notna().any()
    unseen = ", or how many of a group may fail although nobody was seen to" * bool(refused)
    margins = {float(margin) for margin in part["margin"].dropna()} if "margin" in part else set()
    margin = (
        f"The margin is {format_value(margins.pop(), metric)}: the largest difference that this study considers "
        "unimportant, set beforehand. "
        if len(margins) == 1
        else ""
    )
    return VerdictMatrix(
        f'<figure class="verdicts"><figcaption>{caption}</figcaption>'
        f"{f'<p>{escape(describe_answerable(part))}</p>' * hover}"
        f"{grid}"
        f'<ul aria-label="Signs and colours">{key}</ul><p class="how"><strong>How to read this.</strong> {how} '
        f"An inconclusive cell (?) may hide a gap as large as the far end of its interval{unseen}. "
        f"{told}{margin}Equivalent (=): shown to be inside the margin, by two one-sided tests at 5 %."
        f"{' Point at a cell for more.' * hover}</p></figure>"
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


def arrange_tables(tables: Mapping[str, str], blocks: Mapping[str, str], *, wide: bool) -> str:
    """Return the models' tables side by side, under headings where there are several blocks."""
    by_block: dict[str, list[str]] = {}
    for model, table in tables.items():
        by_block.setdefault(blocks.get(model, ""), []).append(table)
    parts = []
    for heading, together in by_block.items():
        parts.append(f'<p class="block">{escape(heading)}</p>' * (len(by_block) > 1))
        parts.append(f'<div class="models{" wide" * wide}">{"".join(together)}</div>')
    return "".join(parts)


@dataclass(frozen=True)
class _Cells:
    """What the cells of the open tables are made from."""

    found: Mapping[Place, Mapping[str, Any]]
    alpha: float
    fails: Fails
    links: Mapping[Place, str]
    levels: Mapping[str, str]

    def judge(self, place: Place) -> tuple[Mapping[str, Any], Verdict]:
        """Return the row of a place, and its verdict."""
        row = self.found.get(place, {})
        return row, read_verdict(row, self.alpha)

    def rank(self, models: Sequence[str]) -> list[str]:
        """Return the models with the gravest verdicts first, else in their order."""
        grave = list(Verdict)
        worst = {model: len(grave) for model in models}
        for model, organ, attribute in self.found:
            if model in worst:
                verdict = grave.index(self.judge((model, organ, attribute))[1])
                worst[model] = min(worst[model], verdict)
        return sorted(models, key=lambda model: min(worst[model], grave.index(Verdict.EQUIVALENT)))

    def draw(self, place: Place) -> str:
        """Return one comparison: sign, gap, interval, and who does worse."""
        row, verdict = self.judge(place)
        crossed = f" {FAILS_DIFFER}" * (place in self.fails.differ)
        lines = [f"<b>{verdict.sign} {_write_gap(row)}{crossed}</b>"]
        if verdict is not Verdict.NOT_COMPARED:
            lines.append(f"<small>{escape(_write_interval(row))}</small>")
            lines += _name_worst(row, verdict)
        sources = trace_pooled(row, self.found.values(), self.alpha)
        if sources:
            lines.append(f"<small>from {escape(list_words(map(name_organ, sources)))}</small>")
        return self._frame(place, verdict, "".join(lines), row)

    def summarise(self, model: str, organs: Sequence[str], attribute: str) -> str:
        """Return the gravest of an attribute's comparisons, and in how many organs a gap is shown.

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
        crossed = f" {FAILS_DIFFER}" * any(one in self.fails.differ for one in places)
        worst = f", {escape(row['worst_group'])}" * bool(_name_worst(row, verdict))
        text = (
            f"<b>{verdict.sign} {shown} of {len(single)}{crossed}</b><small>"
            f"{escape(name_organ(place[1]))} {_write_gap(row)} ({escape(_write_interval(row))}){worst}</small>"
        )
        return self._frame(place, verdict, text, row)

    def _frame(self, place: Place, verdict: Verdict, text: str, row: Mapping[str, Any]) -> str:
        told = [f"{verdict.word}: {describe_cell(row, verdict)}".removesuffix(": "), self.fails.cells.get(place, "")]
        title = escape("\n".join(filter(None, told)))
        anchor = self.links.get(place)
        text = f'<a href="#{escape(anchor)}">{text}</a>' if anchor else text
        return f'<td class="tone-{verdict.tone}" title="{title}">{text}</td>'


def _name_worst(row: Mapping[str, Any], verdict: Verdict) -> list[str]:
    """Return who does worse as a line of a cell; none where that is open, or nobody does."""
    metric = str(row["metric"])
    is_open = verdict is Verdict.DIFFERENCE and holds_zero(row)
    if is_open or not round_as_shown(float(row["gap"]), metric):
        return []
    return [f"<small>{escape(row['worst_group'])}</small>"]


def _write_gap(row: Mapping[str, Any]) -> str:
    return format_number(row["gap"], str(row["metric"])) if is_known(row.get("gap")) else ""


def _write_interval(row: Mapping[str, Any]) -> str:
    metric, ends = str(row["metric"]), (row.get("gap_low"), row.get("gap_high"))
    return f"{' to '.join(format_number(end, metric) for end in ends)}" if all(map(is_known, ends)) else "no interval"


def _draw_overview(
    cells: _Cells, models: Sequence[str], organs: Sequence[str], attributes: Sequence[str], legend: str, measure: str
) -> str:
    """Return every comparison in one table: organs by models and, within, attributes."""

    def weigh(organ: str) -> int:
        judged = (cells.judge((model, organ, attribute))[1] for model in models for attribute in attributes)
        return min((list(Verdict).index(verdict) for verdict in judged), default=0)

    kept = sorted(sorted(organs, key=weigh)[:_MOST_ROWS], key=organs.index)
    above = "".join(
        f'<th scope="colgroup" colspan="{len(attributes)}">{escape(model)}'
        f"{_tell_level(cells, model, f'median {measure} by organ ')}</th>"
        for model in models
    )
    names = "".join(f'<th scope="col">{escape(name_for_people(name))}</th>' for name in attributes)
    lines = [
        draw_line(
            name_organ(organ), "".join(cells.draw((model, organ, name)) for model in models for name in attributes)
        )
        for organ in kept
    ]
    more = f"<p>{len(organs) - len(kept)} more organs are in the tables beneath.</p>" * (len(kept) < len(organs))
    head = f'<th scope="col">organ</th>{names * len(models)}'
    return _draw_open(f"<tr><td></td>{above}</tr><tr>{head}</tr>", lines, legend, len(models) * len(attributes)) + more


def _draw_summary(
    cells: _Cells, models: Sequence[str], organs: Sequence[str], attributes: Sequence[str], legend: str, measure: str
) -> str:
    """Return each model's gravest verdict per attribute."""
    head = "".join(f'<th scope="col">by {escape(name_for_people(name))}</th>' for name in attributes)
    lines = [
        draw_line(
            model, "".join(cells.summarise(model, organs, name) for name in attributes), small=_tell_level(cells, model)
        )
        for model in models
    ]
    name = "model" + f"<small>median {measure}, from organ to organ</small>" * bool(cells.levels)
    return _draw_open(f'<tr><th scope="col">{name}</th>{head}</tr>', lines, legend, len(attributes), brief=True)


def _tell_level(cells: _Cells, model: str, what: str = "") -> str:
    """Return how well a model does, small beside its name; empty where that is not known."""
    known = cells.levels.get(model)
    return f"<small>{what}{escape(known)}</small>" if known else ""


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


def draw_table(name: str, caption: str, down: str, head: str, lines: Sequence[str]) -> str:
    """Return a table that scrolls by itself where it is wide.

    `name` stands over it, `down` over its first column; `head` and `lines` are HTML; `caption` is
    the whole figure's.
    """
    return (
        f'<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(f"{name}: {caption}")}"><table><caption>{escape(name)}</caption><thead><tr>'
        f'<th scope="col">{down}</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


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
        return f"{estimate}; up to {format_share(row['unseen_share'])} of a group might fail without its having shown"
    if find_reach(row) is None:
        return "everyone has the same value" if low == high == 0 else ""
    return estimate


def _draw_cell(row: Mapping[str, Any], verdict: Verdict, fails: str, *, hover: bool) -> str:
    told, detail = f' title="{escape(_explain_verdict(row, verdict))}"' * hover, describe_cell(row, verdict)
    below = f"<span>{escape(detail)}</span>" if detail else ""
    below += f'<span class="fails">{escape(fails)}</span>' if fails else ""
    return f'<td class="tone-{verdict.tone}"{told}><b>{verdict.sign} {verdict.word}</b>{below}</td>'


def _explain_verdict(row: Mapping[str, Any], verdict: Verdict) -> str:
    """Return what is told to who points at a cell."""
    lines = []
    if verdict is not Verdict.NOT_COMPARED:
        metric = str(row["metric"])
        lines = [
            f"best: {row['best_group']}, worst: {row['worst_group']}, n = {row['n']:.0f}",
            f"gap {format_value(row['gap'], metric)}, 95 % CI "
            f"{format_interval(row.get('gap_low'), row.get('gap_high'), metric)}",
            f"minimum detectable difference {format_value(row.get('detectable'), metric)} (this comparison alone)",
            f"adjusted {format_p(find_p(row))}",
        ]
        if is_known(row.get("adjusted_gap")):
            lines.append(f"gap adjusted for covariates {format_value(row['adjusted_gap'], metric)}")
    if row.get("incomplete"):
        lines.append(f"without a value (missed or failed): {row['incomplete']}")
    note = row.get("note")
    return "\n".join([*lines, *([str(note)] if is_known(note) else [])])


def escape(text: Any) -> str:
    """Return text that stays text in HTML, within an attribute too."""
    return html.escape(str(text), quote=True)
