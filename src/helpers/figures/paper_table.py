"""The table that papers print, in a notebook: modalities and measures in blocks that fold."""

from __future__ import annotations

import html
from itertools import groupby

import pandas as pd
from IPython.display import HTML

from helpers.figures.tables import link_csv
from helpers.performance.paper import PaperTable, split_heading
from helpers.storage import format_csv
from helpers.vocabulary.words import name_for_people

_STYLE = """\
<style>
.paper { font: 12.5px Arial, Helvetica, sans-serif; }
.paper .scroll { overflow-x: auto; }
.paper summary { font-weight: 700; padding: 4px 0; cursor: pointer; }
.paper table { font-size: 12.5px; border-collapse: collapse; margin: 2px 0 10px; }
.paper th, .paper td { text-align: left !important; padding: 2px 8px; white-space: nowrap; }
.paper td { font-variant-numeric: tabular-nums; }
.paper thead tr:last-child th { border-bottom: 1px solid currentColor; }
.paper tbody tr.first > * { border-top: 1px solid #b0b0b0; }
.paper p { max-width: 70rem; line-height: 1.4; }
</style>
"""


def show_paper_table(table: PaperTable) -> HTML:
    """Show the table that :func:`helpers.performance.write_paper` returns, with a link to save it.

    The first measure stands open, with the numbers of people; the others are folded.
    """
    printed = table.printed
    if printed.empty:
        return HTML("<p>Nothing was measured: there is nothing to print.</p>")
    opened = printed.loc[printed["measure"] != "people", "measure"].iloc[0]
    blocks = []
    for (modality, measure), part in printed.groupby(["modality", "measure"], sort=False):
        if measure == "people":
            people = part
            continue
        state = " open" if measure == opened else ""
        title = html.escape(" · ".join(filter(None, (modality, measure))))
        body = _draw_block(people, part)
        blocks.append(f'<details{state}><summary>{title}</summary><div class="scroll">{body}</div></details>')
    note = f"<p>{html.escape(table.caption)}</p>"
    saved = link_csv(format_csv(printed), "paper_table")
    return HTML(f'{_STYLE}<div class="paper">{"".join(blocks)}{note}{saved}</div>')


def _draw_block(people: pd.DataFrame, part: pd.DataFrame) -> str:
    """Return one measure's rows as an HTML table, beneath the numbers of people."""
    columns = list(part.columns[2:])
    above = ['<th colspan="2"></th>']
    for attribute, members in groupby(map(split_heading, columns[2:]), key=lambda pair: pair[0]):
        above.append(f'<th colspan="{len(list(members))}">{html.escape(name_for_people(attribute))}</th>')
    below = ["organ", "model", *(split_heading(name)[1] for name in columns[2:])]
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in below)
    counted = ["people", *people.iloc[0][columns[1:]]]
    lines = [_draw_row(counted)]
    for _, rows in part.groupby("organ", sort=False):
        for place, row in enumerate(rows[columns].to_numpy(str)):
            lines.append(_draw_row([row[0] if place == 0 else "", *row[1:]], first=place == 0))
    head = f"<thead><tr>{''.join(above)}</tr><tr>{heads}</tr></thead>"
    return f"<table>{head}<tbody>{''.join(lines)}</tbody></table>"


def _draw_row(cells: list[str], *, first: bool = False) -> str:
    name, *others = map(html.escape, cells)
    start = '<tr class="first">' if first else "<tr>"
    return f'{start}<th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
