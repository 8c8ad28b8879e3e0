"""A plotly figure that is drawn on a busy machine too, and tells whom a reader has picked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import plotly.graph_objects as go
import traitlets
from ipywidgets import widget_serialization
from plotly.offline import get_plotlyjs

from helpers.figures.style import CONFIG


class LiveFigure(anywidget.AnyWidget):
    """A plotly figure, replaced as a whole, that reports whom a reader boxed or clicked.

    plotly's own FigureWidget gives up where its five megabytes are not running within two seconds,
    which happens on a busy machine; this one says that it is drawing, or why it could not, and
    reports every brush once instead of once per trace.

    Parameters
    ----------
    on_brush : callable, optional
        Receives the scan's number of every dot brushed: the first of its ``customdata``, else the
        one after "scan" in its text; none when the reader lets all go.
    **config
        What is laid over plotly's configuration of all figures.
    """

    _esm = Path(__file__).with_name("live_figure.js")
    library = traitlets.Instance("ipywidgets.Widget").tag(sync=True, **widget_serialization)
    figure = traitlets.Unicode().tag(sync=True)
    config = traitlets.Dict().tag(sync=True)

    def __init__(self, on_brush: Callable[[Sequence[int]], None] | None = None, **config: Any) -> None:
        self._on_brush = on_brush
        super().__init__(library=_share_library(), figure=go.Figure().to_json(), config=CONFIG | config)
        self.on_msg(self._receive)

    def draw(self, figure: go.Figure) -> None:
        """Show a figure in the place of the former one."""
        self.figure = figure.to_json()

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        if self._on_brush is not None:
            self._on_brush([int(number) for number in content["brushed"]])


class PlotlyLibrary(anywidget.AnyWidget):
    """plotly.js for all figures of a kernel; is nowhere shown."""

    _esm = "export default {}"
    source = traitlets.Unicode().tag(sync=True)


@cache
def _share_library() -> PlotlyLibrary:
    return PlotlyLibrary(source=get_plotlyjs())
