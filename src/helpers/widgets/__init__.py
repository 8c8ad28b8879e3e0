"""Browsing single scans in JupyterLab: which are worst, and what the model drew there."""

from helpers.widgets.browser import EVERYONE, PLANES, CaseBrowser, CaseView, find_finding
from helpers.widgets.controls import CaseBrowserWidget, browse_cases
from helpers.widgets.linked import LinkedFigure, link_scans
from helpers.widgets.live_figure import LiveFigure

__all__ = [
    "EVERYONE",
    "PLANES",
    "CaseBrowser",
    "CaseBrowserWidget",
    "CaseView",
    "LinkedFigure",
    "LiveFigure",
    "browse_cases",
    "find_finding",
    "link_scans",
]
