"""An executed notebook's outputs, made fit to be shared: no ids, paths, machine names or dates."""

from __future__ import annotations

import base64
import csv
import io
import re
from typing import Any

from helpers.report.scrubbing import Scrubber

# What holds text to be read; everything else in an output is an image, a figure or a widget.
_PLAIN = ("text/plain", "text/markdown", "text/latex")
_MARKUP = ("text/html", "image/svg+xml")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PROGRESS = re.compile(r"^.*?\d+%\|.*\n?", re.MULTILINE)  # a bar of tqdm's
# A link of :func:`helpers.figures.tables.link_csv`: it holds the table once more, every column.
_SAVED = re.compile(r'(<a download="[^"]*" href="data:text/csv;charset=utf-8;base64,)([A-Za-z0-9+/=]*)(">[^<]*</a>)')
# Parts of a figure that are data or names of plotly's own, never words for people.
_NO_WORDS = ("bdata", "dtype", "shape", "type", "uid", "source", "path", "template")


def clean_notebook(notebook: Any, scrub: Scrubber) -> None:
    """Take ids, paths, addresses, machine names, dates, progress out of every output, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cleaned = [_clean_output(output, scrub) for output in cell.outputs]
            cell.outputs = [one for one in cleaned if one.output_type != "stream" or one["text"].strip()]


def clean_figure_words(value: Any, scrub: Scrubber) -> Any:
    """Return a figure's JSON value with its texts cleaned; arrays, images, plotly's words stay."""
    if isinstance(value, str):
        return value if value.startswith("data:") else scrub.clean_markup(value)
    if isinstance(value, list):
        return [clean_figure_words(item, scrub) for item in value]
    if isinstance(value, dict):
        return {key: item if key in _NO_WORDS else clean_figure_words(item, scrub) for key, item in value.items()}
    return value


def _clean_output(output: Any, scrub: Scrubber) -> Any:
    if output.output_type == "stream":
        output["text"] = scrub.clean(_PROGRESS.sub("", output["text"]))
    elif output.output_type == "error":
        # A traceback is made of paths; the error's own words say what happened.
        output["ename"], output["evalue"] = str(output["ename"]), scrub(_COLOURS.sub("", str(output["evalue"])))
        output["traceback"] = [f"{output['ename']}: {output['evalue']}"]
    else:
        for kind, text in output.get("data", {}).items():
            if isinstance(text, list):
                text = "".join(text)
            if kind in _PLAIN:
                output["data"][kind] = scrub.clean(text)
            elif kind in _MARKUP:
                output["data"][kind] = _clean_page(text, scrub)
    return output


def _clean_page(text: str, scrub: Scrubber) -> str:
    """Return HTML with its words cleaned, and those of the tables that its links save."""
    parts = _SAVED.split(text)
    for place in range(0, len(parts), 4):
        parts[place] = scrub.clean_markup(parts[place])
    for place in range(2, len(parts), 4):
        parts[place] = _clean_saved(parts[place], scrub)
    return "".join(parts)


def _clean_saved(data: str, scrub: Scrubber) -> str:
    """Return a CSV file in base64 with its cells cleaned."""
    rows = csv.reader(io.StringIO(base64.b64decode(data).decode("utf-8-sig"), newline=""))
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([scrub.clean(cell) for cell in row] for row in rows)
    return base64.b64encode(("\ufeff" + out.getvalue()).encode()).decode()
