"""Tables for reading: rounded with units, estimate and interval in one cell, verdicts in words."""

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
from helpers.storage import format_csv
from helpers.vocabulary.measures import MEASURES
from helpers.vocabulary.verdicts import read_verdict
from helpers.vocabulary.words import (
    SPREADS,
    UNKNOWN,
    compare_p,
    is_known,
    name_for_people,
    name_organ,
    state_estimate,
    write_number,
)

# Columns in the unit of the row's metric; everything else is a plain number.
_MEASURED = {
    "mean", "sd", "median", "q1", "q3", "gap", "expected_gap", "excess_gap", "adjusted_gap", "direct_gap", "margin",
    "detectable", "difference", "gap_a", "gap_b", "pooled", "additive", "slope", "sd_groups",
    "ordered_step", "reference_gap", "model_gap", "worst_5",
}  # fmt: skip
_NOTHING = "<p>There is nothing to list here.</p>"
_RATIO = "dice"  # stands for any number without a unit
_HARD = "\u00a0"  # a space at which no line is broken
_OF_RANKS = "Dunn"  # compares mean ranks: its differences have no unit
# An estimate whose interval's columns do not begin with its own name, and how they begin.
_INTERVALS = {
    "mean": ("ci", ""), "gap": ("gap", ""), "excess_gap": ("excess",), "adjusted_gap": ("adjusted",),
    "direct_gap": ("direct",),
    "effect_size": ("effect",), "difference": ("",), "pooled": ("",),
}  # fmt: skip


class ShownTable(Styler):
    """A styled table with a link that saves its rows as CSV, from the page itself."""

    def __init__(self, *arguments: Any, csv: str = "", file: str = "table", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._csv, self._file = csv, file

    def _repr_html_(self) -> str:
        """Return the table and the link, as Jupyter and the exported notebook show it."""
        if not len(self.data):
            return _NOTHING
        return super().to_html() + link_csv(self._csv, self._file)


def link_csv(csv: str, file: str) -> str:
    """Return a link that saves a CSV text as ``<file>.csv``, the text being in the link."""
    # With a byte-order mark, without which spreadsheets take the text for Latin-1.
    data = base64.b64encode(("\ufeff" + csv).encode()).decode()
    saved = html.escape(f"{file}.csv", quote=True)
    link = f'<a download="{saved}" href="data:text/csv;charset=utf-8;base64,{data}">save as {saved}</a>'
    return f'<p style="margin: 2px 0 10px; font-size: 12px">{link}</p>'


def use_saved_tables() -> None:
    """Make Jupyter show every DataFrame with a link that saves it as CSV."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, _show_frame)


def _show_frame(table: pd.DataFrame) -> str | None:
    if table.empty:
        return _NOTHING
    shown = table._repr_html_()
    if shown is None:
        return shown
    named = any(name is not None for name in table.index.names)
    return shown + link_csv(format_csv(table, index=named), "table")


def style_table(
    table: pd.DataFrame,
    columns: Sequence[str] | None = None,
    *,
    file: str = "table",
    alpha: float | None = None,
) -> ShownTable:
    """Return a table of the audit as a reader wants it; its CSV keeps every column and digit.

    Parameters
    ----------
    table : DataFrame
        Any table of ``fairness/``; a column ``metric`` says which unit a row's measures have.
    columns : sequence of str, optional
        What to show, in order; all by default. An estimate brings its interval into its own cell;
        the interval's columns need not be named and are not shown by themselves.
    file : str
        Name of the CSV file that the link beneath the table saves: all columns of `table`.
    alpha : float, optional
        The error rate allowed over the family of comparisons; verdicts are read with it.

    Returns
    -------
    ShownTable
        Numbers rounded, with their units; p-values never "0"; missing values "–"; each verdict with
        its sign, word and colour.

    Raises
    ------
    SegfairError
        A column is not there, or verdicts are shown without `alpha`.
    """
    absent = [name for name in columns or () if name not in table]
    if absent:
        raise SegfairError(f"columns must be among {', '.join(table.columns)}; got {', '.join(absent)}")
    wanted = list(table.columns) if columns is None else list(columns)
    if "verdict" in wanted and alpha is None:
        raise SegfairError("alpha must be given where verdicts are shown: the study's fairness.alpha")
    rows = table.to_dict("records")
    verdicts = [read_verdict(row, alpha) for row in rows] if "verdict" in wanted and alpha is not None else []
    intervals = {name: _find_interval(name, table.columns) for name in wanted}
    absorbed = {end for ends in intervals.values() for end in ends or ()}
    kept = [name for name in wanted if name not in absorbed]
    shown = {name: [_write(row, name, intervals[name]) for row in rows] for name in kept if name != "verdict"}
    shown["verdict"] = [_hold(f"{verdict.sign} {verdict.word}") for verdict in verdicts]
    words = pd.DataFrame({name: shown[name] for name in kept}, index=range(len(rows)), columns=kept, dtype=object)
    digest = hashlib.sha256(words.to_csv().encode()).hexdigest()[:10]
    styler = ShownTable(words, uuid=digest, cell_ids=False, csv=format_csv(table), file=file)
    numeric = [name for name in kept if pd.api.types.is_numeric_dtype(table[name])]
    styler = (
        styler.format(escape="html")
        .format_index(lambda name: SPREADS.get(name, name_for_people(name)), axis="columns", escape="html")
        .hide(axis="index")
        .set_table_styles(
            [
                {"selector": "th", "props": "text-align: left; vertical-align: bottom; white-space: normal"},
                {"selector": "td", "props": "text-align: left; white-space: normal"},
            ]
        )
        .set_properties(subset=numeric, **{"text-align": "right", "font-variant-numeric": "tabular-nums"})
    )
    if "verdict" in kept:
        colours = [f"background-color: {verdict.colour}; color: #222222" for verdict in verdicts]
        styler = styler.apply(lambda _: colours, subset=["verdict"])
    return styler


def _find_interval(name: str, columns: pd.Index) -> tuple[str, str] | None:
    for start in _INTERVALS.get(name, (name,)):
        ends = (f"{start}_low", f"{start}_high") if start else ("low", "high")
        if set(ends) <= set(columns):
            return ends
    return None


def _write(row: dict[str, Any], name: str, ends: tuple[str, str] | None) -> str:
    value = row[name]
    if name == "organ":
        return name_organ(value)
    if name == "metric" and value in MEASURES:
        return MEASURES[value].long_name
    if name in ("attribute", "covariate"):
        return name_for_people(str(value))
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if not is_known(value):
        return UNKNOWN
    if "p" in name.split("_"):
        return _hold(compare_p(value).removeprefix("= "))
    if name == "difference" and row.get("test") == _OF_RANKS:
        return _hold(f"{write_number(value, 1)} ranks")
    if float(value).is_integer() and name not in _MEASURED and ends is None:
        return f"{value:.0f}"
    metric = row["metric"] if name in _MEASURED and row.get("metric") in MEASURES else _RATIO
    low, high = (row[end] for end in ends) if ends else (None, None)
    return _hold(state_estimate(value, low, high, metric)).replace(f"{_HARD}(", " (")


def _hold(text: str) -> str:
    """Return a text that is not broken into lines: an interval stays in one piece."""
    return text.replace(" ", _HARD)
