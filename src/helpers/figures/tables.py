"""Tables for reading: rounded with units, estimate and interval in one cell, verdicts in words and colours."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from helpers.errors import SegfairError
from helpers.figures.fairness_overview import VERDICT_LOOKS
from helpers.figures.panels import format_range, format_value, name_organ
from helpers.figures.style import METRIC_LABELS, name_for_people
from helpers.vocabulary.words import SPREADS

# Columns in the unit of the row's metric; everything else is a plain number.
_MEASURED = {
    "mean", "sd", "median", "q1", "q3", "gap", "expected_gap", "excess_gap", "adjusted_gap", "margin", "detectable", "difference",
    "gap_a", "gap_b", "pooled", "additive", "slope", "sd_groups",
}  # fmt: skip
_OF_RANKS = "Dunn"  # compares mean ranks: its differences have no unit
# An estimate whose interval's columns do not begin with its own name, and how they begin.
_INTERVALS = {
    "mean": ("ci", ""), "gap": ("gap", ""), "excess_gap": ("excess",), "adjusted_gap": ("adjusted",), "effect_size": ("effect",),
    "difference": ("",), "pooled": ("",),
}  # fmt: skip


class ShownTable(Styler):
    """A styled table with a link beneath that saves its rows as CSV: inside the page itself, so it works offline."""

    def __init__(self, *arguments: Any, csv: str = "", file: str = "table", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._csv, self._file = csv, file

    def _repr_html_(self) -> str:
        """Return the table and the link, as Jupyter and the exported notebook show it."""
        return super().to_html() + link_csv(self._csv, self._file)


def link_csv(csv: str, file: str) -> str:
    """Return a link that saves a CSV text as ``<file>.csv``, the text being in the link."""
    # With a byte-order mark, without which spreadsheets take the text for Latin-1.
    data = base64.b64encode(("\ufeff" + csv).encode()).decode()
    saved = html.escape(f"{file}.csv", quote=True)
    link = f'<a download="{saved}" href="data:text/csv;charset=utf-8;base64,{data}">save as {saved}</a>'
    return f'<p style="margin: 2px 0 10px; font-size: 12px">{link}</p>'


def use_saved_tables() -> None:
    """Make Jupyter show every DataFrame with a link that saves it as CSV; outside of Jupyter nothing happens."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, _show_frame)


def _show_frame(table: pd.DataFrame) -> str | None:
    shown = table._repr_html_()
    if shown is None or table.empty:
        return shown
    named = any(name is not None for name in table.index.names)
    return shown + link_csv(table.to_csv(index=named), "table")


def style_table(
    table: pd.DataFrame, columns: Sequence[str] | None = None, *, caption: str = "", file: str = "table"
) -> ShownTable:
    """Return a table of the audit as a reader wants it; the CSV it offers keeps every column and digit.

    Parameters
    ----------
    table : DataFrame
        Any table of ``fairness/``; a column ``metric`` says which unit a row's measures have.
    columns : sequence of str, optional
        What to show, in order; all by default. An estimate brings its interval into its own cell; the interval's
        columns need not be named and are not shown by themselves.
    caption : str
        Stands above the table.
    file : str
        Name of the CSV file that the link beneath the table saves: all columns of `table`, shown or not.

    Returns
    -------
    ShownTable
        Numbers rounded, with their units; p-values never "0"; missing values "–"; each verdict with its sign, word and colour.

    Raises
    ------
    SegfairError
        A column is not there.
    """
    absent = [name for name in columns or () if name not in table]
    if absent:
        raise SegfairError(f"columns must be among {', '.join(table.columns)}; got {', '.join(absent)}")
    shown: dict[str, Any] = {}
    absorbed: set[str] = set()
    wanted = list(table.columns) if columns is None else list(columns)
    rows = table.to_dict("records")
    for name in wanted:
        ends = _find_interval(name, table.columns)
        absorbed.update(ends or ())
        shown[name] = [_write(row, name, ends) for row in rows]
    kept = [name for name in wanted if name not in absorbed]
    words = pd.DataFrame({name: shown[name] for name in kept}, index=range(len(rows)), columns=kept, dtype=object)
    digest = hashlib.sha256(f"{caption}{words.to_csv()}".encode()).hexdigest()[:10]
    styler = ShownTable(words, uuid=digest, cell_ids=False, csv=table.to_csv(index=False), file=file)
    numeric = [name for name in kept if pd.api.types.is_numeric_dtype(table[name])]
    styler = (
        styler.format(escape="html")
        .format_index(_head, axis="columns", escape="html")
        .hide(axis="index")
        .set_table_styles(
            [
                {"selector": "th", "props": "text-align: left; vertical-align: bottom; white-space: normal"},
                {"selector": "td", "props": "text-align: left; white-space: normal"},
                {"selector": "caption", "props": "text-align: left; font-weight: bold; padding-bottom: 4px"},
            ]
        )
        .set_properties(subset=numeric, **{"text-align": "right", "font-variant-numeric": "tabular-nums"})
    )
    if "verdict" in kept:
        colours = [f"background-color: {VERDICT_LOOKS[_know_verdict(row)].colour}; color: #222222" for row in rows]
        styler = styler.apply(lambda _: colours, subset=["verdict"])
    return styler.set_caption(caption) if caption else styler


def _find_interval(name: str, columns: pd.Index) -> tuple[str, str] | None:
    for start in _INTERVALS.get(name, (name,)):
        ends = (f"{start}_low", f"{start}_high") if start else ("low", "high")
        if set(ends) <= set(columns):
            return ends
    return None


def _know_verdict(row: dict[str, Any]) -> str:
    return row["verdict"] if row["verdict"] in VERDICT_LOOKS else ""


def _write(row: dict[str, Any], name: str, ends: tuple[str, str] | None) -> str:
    value = row[name]
    if name == "verdict":
        look = VERDICT_LOOKS[_know_verdict(row)]
        return _hold(f"{look.sign} {look.word}")
    if name == "organ":
        return name_organ(str(value))
    if name == "metric" and value in METRIC_LABELS:
        return METRIC_LABELS[value].split(" (")[0]
    if name in ("attribute", "covariate"):
        return name_for_people(str(value))
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):
        return "–"
    metric = row.get("metric", "") if name in _MEASURED else ""
    if name == "p" or name.startswith("p_") or name.endswith("_p"):
        return _hold("< 0.001") if value < 0.001 else f"{value:.3f}"
    if name == "difference" and row.get("test") == _OF_RANKS:
        return _hold(f"{value:.1f} ranks".replace("-", "−"))
    if float(value).is_integer() and name not in _MEASURED and ends is None:
        return f"{value:.0f}"
    text = _hold(format_value(value, metric))
    if ends and pd.notna(row[ends[0]]) and pd.notna(row[ends[1]]):
        text += " " + _hold(f"({format_range(row[ends[0]], row[ends[1]], metric)})")
    return text


def _hold(text: str) -> str:
    """Return a text that is not broken into lines: an interval stays in one piece."""
    return text.replace(" ", "\u00a0")


def _head(name: str) -> str:
    return SPREADS.get(name, name_for_people(name))
