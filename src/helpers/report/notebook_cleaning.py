"""An executed notebook's outputs, made fit to be shared: no ids, paths, machine names or dates, no kernels' leftovers."""

from __future__ import annotations

import re
from typing import Any

from helpers.report.scrubbing import Scrubber

# What holds text to be read; everything else in an output is an image, a figure or a widget.
_PLAIN = ("text/plain", "text/markdown", "text/latex")
_MARKUP = ("text/html", "image/svg+xml")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Parts of a figure that are data or names of plotly's own, never words for people.
_NO_WORDS = ("bdata", "dtype", "shape", "type", "uid", "source", "path", "template")


def clean_notebook(notebook: Any, scrub: Scrubber) -> None:
    """Take ids, paths, addresses, machine names and dates out of every output, in place; code and prose stay.

    Parameters
    ----------
    notebook : NotebookNode
    scrub : Scrubber
        From :func:`helpers.report.outputs.make_scrubber`.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_clean_output(output, scrub) for output in cell.outputs]


def clean_figure_words(value: Any, scrub: Scrubber) -> Any:
    """Return a figure's JSON value with all of its texts cleaned; arrays, images and plotly's own words stay."""
    if isinstance(value, str):
        return value if value.startswith("data:") else scrub.clean_markup(value)
    if isinstance(value, list):
        return [clean_figure_words(item, scrub) for item in value]
    if isinstance(value, dict):
        return {key: item if key in _NO_WORDS else clean_figure_words(item, scrub) for key, item in value.items()}
    return value


def _clean_output(output: Any, scrub: Scrubber) -> Any:
    if output.output_type == "stream":
        output["text"] = scrub.clean(output["text"])
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
                output["data"][kind] = scrub.clean_markup(text)
    return output
