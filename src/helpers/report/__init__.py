"""An output folder → one offline HTML report; an executed notebook → offline HTML.

`outputs` reads a folder and forgets who is who (`scrubbing`, `suppression`), `sentences` turns
rows into words, `sections` puts the report together, `page` renders it, `leaks` refuses it where a
name is in it, `pdf` prints it. None of them tests a difference or fits a model.
"""

from helpers.report.leaks import find_leaks
from helpers.report.notebook_html import export_notebook
from helpers.report.outputs import make_scrubber
from helpers.report.page import build_report, render_report, show_section
from helpers.report.pdf import print_report
from helpers.report.sections import compose_report

__all__ = [
    "build_report",
    "compose_report",
    "export_notebook",
    "find_leaks",
    "make_scrubber",
    "print_report",
    "render_report",
    "show_section",
]  # fmt: skip
