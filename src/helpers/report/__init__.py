"""The report: an output folder → one offline HTML file a clinician can read; an executed notebook → the same."""

from helpers.report.compose import Figure, Note, Report, Section, Table, Text, compose_report
from helpers.report.notebook_html import export_notebook
from helpers.report.page import build_report, show_section

__all__ = [
    "Figure",
    "Note",
    "Report",
    "Section",
    "Table",
    "Text",
    "build_report",
    "compose_report",
    "export_notebook",
    "show_section",
]
