"""Figures of people whose dots lead to the scans behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from helpers.study import Study
from helpers.widgets.browser import EVERYONE
from helpers.widgets.controls import CaseBrowserWidget, browse_cases
from helpers.widgets.live_figure import LiveFigure

_PLOTLY = "application/vnd.plotly.v1+json"


class LinkedFigure(ipywidgets.VBox):
    """A figure with, beneath it, the scan of the dot that was clicked last.

    Without a kernel it is the figure alone. `plot` is the live figure, `cases` the case browser,
    which is made at the first click.
    """

    def __init__(self, figure: go.Figure, study: Study, model: str, organ: str) -> None:
        self._figure, self._study, self._chosen = figure, study, {"model": model, "organ": organ}
        self.plot = LiveFigure(self.show_scans)
        self.plot.draw(figure)
        self.cases: CaseBrowserWidget | None = None
        self._below = ipywidgets.VBox([ipywidgets.HTML("Click a dot to see its scan here.")])
        super().__init__([self.plot, self._below], layout={"width": "100%"})

    def show_scans(self, numbers: Sequence[int]) -> None:
        """Show the first of these scans, by its number, as a click on its dot does."""
        if not numbers:
            return
        if self.cases is None:
            self._below.children = [ipywidgets.HTML("reading …")]
            self.cases = browse_cases(self._study)
            for name, value in self._chosen.items():
                if value in getattr(self.cases.browser, f"{name}s"):
                    getattr(self.cases, name).value = value
            self._below.children = [self.cases]
        self.cases.attribute.value = EVERYONE
        if numbers[0] in {number for _, number in self.cases.number.options}:
            self.cases.number.value = numbers[0]

    def _repr_mimebundle_(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return the widget, and for readers without a kernel the figure."""
        bundle = dict(super()._repr_mimebundle_(*arguments, **options) or {})
        return bundle | {_PLOTLY: json.loads(self._figure.to_json())}


def link_scans(figure: go.Figure, study: Study, *, model: str = "", organ: str = "") -> LinkedFigure | go.Figure:
    """Return a figure whose dots lead to their scans; as it is where the study has no masks.

    A dot is known by the number that ``customdata`` begins with, or by ``scan 012`` in its text.
    `model` and `organ` are what is shown of the scan first.
    """
    return LinkedFigure(figure, study, model, organ) if study.parameters.cohort.has_masks else figure
