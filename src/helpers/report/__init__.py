"""An output folder → one offline HTML report; an executed notebook → offline HTML.

`outputs` reads a folder and forgets who is who, `sentences` turns rows into words, `sections` puts the
report together, `page` renders it. None of them tests a difference or fits a model.
"""

from helpers.report.blocks import Report, Section
from helpers.report.notebook_html import export_notebook
from helpers.report.page import build_report, find_leaks, render_report, show_section
from helpers.report.sections import compose_report

__all__ = [
    "Report",
    "Section",
    "build_report",
    "compose_report",
    "export_notebook",
    "find_leaks",
    "render_report",
    "show_section",
]
