"""Render a report: one HTML file that asks nothing of the network."""

from __future__ import annotations

import html
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from helpers import storage
from helpers.errors import StageError
from helpers.figures.style import CONFIG, SVG_BUTTON_SCRIPT
from helpers.report.blocks import Block, Figure, Report, ReportSection
from helpers.report.leaks import refuse_leaks
from helpers.report.outputs import read_outputs
from helpers.report.results import write_results
from helpers.report.sections import compose_outputs
from helpers.vocabulary.measures import use_measures

# What plotly may take as markup in a figure's text; everything else that looks like a tag is text.
_FOREIGN_TAG = re.compile(r"<(?!/?(?:br|b|i|em|strong|sub|sup|extra|span)\s*/?>|span style=(['\"])[\w:;#%. -]+\1>)")
_PRINTED_PX = 840  # of a printed page that a figure may take, its caption left room for
_MOST_PRINTED = 60  # rows that a folded table may have to be printed
_KEPT_KEYS = ("dtype", "bdata", "shape")


def build_report(folder: Path) -> Path:
    """Write ``report.html`` of an output folder, ``results.json`` and ``cards/``; return its path.

    Reads nothing but the folder; what has not been run is said in the report.

    Raises
    ------
    StageError
        It is no study's output folder.
    SegfairError
        The folder cannot be written, or the page would show an id, a path or this machine's name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise StageError(f"{folder}: {what}: give a study's output folder, such as outputs/demo")
    path, outputs = folder / "report.html", read_outputs(folder)
    page = render_report(compose_outputs(outputs))
    refuse_leaks(page, outputs.secrets, shown=outputs.list_shown())
    storage.write_text(page, path)
    with use_measures(outputs.parameters.fairness.measures):
        write_results(outputs, folder)
    return path


def render_report(report: Report) -> str:
    """Return a report as one HTML page: styles, plotly.js and figures inside, all text escaped."""
    numbers, page = _number_figures(report), _environment().get_template("report.html.j2")
    library = get_plotlyjs() if numbers else ""
    return page.render(report=report, numbers=numbers, plotlyjs=library, config=CONFIG, svg_button=SVG_BUTTON_SCRIPT)


def show_section(section: ReportSection) -> ShownSection:
    """Return a section for a notebook: the same text, tables and figures as in the report."""
    return ShownSection(section)


class ShownSection:
    """A section as IPython displays it: HTML, with live plotly figures in between."""

    def __init__(self, section: ReportSection) -> None:
        self.section = section

    def _repr_html_(self) -> str:
        """Return the section without its figures."""
        return self._render([block for block in self.section.blocks if not isinstance(block, Figure)])

    def _ipython_display_(self) -> None:
        """Display text and figures in their order (IPython's own hook)."""
        from IPython.display import HTML, display

        waiting: list[Block] = []
        for block in self.section.blocks:
            if isinstance(block, Figure):
                if waiting:
                    display(HTML(self._render(waiting)))
                display(go.Figure(clean_figure(block.figure)))
                waiting = []
                display(HTML(self._render([], how_to_read=block.how_to_read)))
            else:
                waiting.append(block)
        if waiting:
            display(HTML(self._render(waiting)))

    def _render(self, blocks: list[Block], *, how_to_read: str = "") -> str:
        template = _environment().get_template("section.html.j2")
        return template.render(blocks=blocks, how_to_read=how_to_read, key=self.section.key)


def clean_figure(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as a dict in which no text can be a link, an image or a script.

    plotly takes some HTML in titles, labels and hover texts. Line breaks and emphasis are kept; any
    other tag becomes text. This is the second lock: texts from data are escaped before.
    """
    return clean_texts(json.loads(figure.to_json()))


def dump_json(value: Any) -> str:
    """Return `value` as JSON that can stand inside a script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("helpers.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    environment.globals["tables_js"] = (Path(__file__).parent / "templates" / "tables.js").read_text(encoding="utf-8")
    environment.globals["most_printed"] = _MOST_PRINTED
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["plot"] = lambda block: dump_json(clean_figure(block.figure))
    environment.filters["height"] = lambda block: int(block.figure.layout.height or 450)
    environment.filters["zoom"] = lambda block: f"{min(1.0, _PRINTED_PX / (block.figure.layout.height or 450)):.2f}"
    environment.filters["title"] = lambda block: _read_title(block.figure)
    environment.filters["script_json"] = dump_json
    environment.filters["identity"] = id
    return environment


def _number_figures(report: Report) -> dict[int, int]:
    """Return the place of every figure in the report, by identity."""
    blocks = (block for section in report.sections for block in section.blocks)
    return {id(block): place for place, block in enumerate((b for b in blocks if isinstance(b, Figure)), start=1)}


def _read_title(figure: go.Figure) -> str:
    text = figure.layout.title.text or "Figure"
    return html.unescape(re.sub(r"<[^>]*>", " ", text)).strip()


def clean_texts(value: Any) -> Any:
    """Return a figure's JSON value with every tag but line breaks and emphasis turned into text."""
    if isinstance(value, str):
        return _FOREIGN_TAG.sub("&lt;", value)
    if isinstance(value, list):
        return [clean_texts(item) for item in value]
    if isinstance(value, dict):
        return {clean_texts(key): item if key in _KEPT_KEYS else clean_texts(item) for key, item in value.items()}
    return value
