"""Browsing single scans in JupyterLab: which are worst, and what the model drew there."""

from helpers.widgets.browser import EVERYONE, find_finding
from helpers.widgets.controls import browse_cases
from helpers.widgets.linked import link_scans
from helpers.widgets.live_figure import LiveFigure

__all__ = ["EVERYONE", "LiveFigure", "browse_cases", "find_finding", "link_scans"]
