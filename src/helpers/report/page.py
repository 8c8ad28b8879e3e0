"""Render a report: one HTML file that asks nothing of the network."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from helpers import storage
from helpers.errors import StageError
from helpers.figures.style import CONFIG
from helpers.report.blocks import Block, Figure, Report, ReportSection
from helpers.report.escaping import clean_figure, dump_json
from helpers.report.leaks import refuse_leaks
from helpers.report.live import prepare_figure
from helpers.report.outputs import read_outputs
from helpers.report.results import write_results
from helpers.report.sections import compose_outputs
from helpers.report.stills import draw_stills
from helpers.vocabulary.measures import use_measures

_APPENDIX = ("glossary", "methods", "checklist")  # sections that are printed small, at the end


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
        raise StageError(
            f"{folder}: {what}: run the study first, or give a study's output folder, such as outputs/demo"
        )
    path, outputs = folder / "report.html", read_outputs(folder)
    page = render_report(compose_outputs(outputs))
    refuse_leaks(page, outputs.secrets, shown=outputs.list_shown())
    storage.write_text(page, path)
    with use_measures(outputs.parameters.fairness.measures):
        write_results(outputs, folder)
    return path


def render_report(report: Report) -> str:
    """Return a report as one HTML page: styles, plotly.js and figures inside, all text escaped."""
    blocks = [block for section in report.sections for block in section.blocks if isinstance(block, Figure)]
    with use_measures(report.measures):
        figures = [prepare_figure(block.figure, block.narrow, half=block.half) for block in blocks]
    stills = draw_stills(figures) or [[]] * len(figures)
    numbered = zip(range(1, len(figures) + 1), figures, stills, strict=True)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            drawn=dict(zip(map(id, blocks), numbered, strict=True)),
            plotlyjs=get_plotlyjs() if figures else "",
            config=CONFIG,
        )
    )


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


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("helpers.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates = Path(__file__).parent / "templates"
    environment.globals |= {kind: (templates / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}
    environment.globals["tables_js"] = (templates / "tables.js").read_text(encoding="utf-8")
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.globals["appendix"] = _APPENDIX
    environment.filters["css_text"] = _quote_for_css
    environment.filters["script_json"] = dump_json
    environment.filters["identity"] = id
    return environment


def _quote_for_css(text: str) -> str:
    """Return text as a string of a style sheet, whatever it holds."""
    return '"' + "".join(c if c.isalnum() or c in " .,:-–·" else f"\\{ord(c):x} " for c in text) + '"'
