"""A figure in which people can be brushed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs

from helpers.figures.style import CONFIG


class BrushedFigure(anywidget.AnyWidget):
    """A plotly figure, replaced as a whole, that reports whom a reader boxed or clicked.

    plotly's own FigureWidget gives up where its five megabytes are not running within two seconds,
    which happens on a busy machine; this one does not, and reports every brush once instead of once
    per trace.

    Parameters
    ----------
    on_brush : callable
        Receives the first of ``customdata`` of every point brushed; none when the reader lets all
        go.
    """

    _esm = Path(__file__).with_name("brush.js")
    library = traitlets.Unicode().tag(sync=True)
    figure = traitlets.Unicode().tag(sync=True)
    config = traitlets.Dict().tag(sync=True)

    def __init__(self, on_brush: Callable[[Sequence[int]], None]) -> None:
        self._on_brush = on_brush
        config = CONFIG | {"modeBarButtonsToRemove": ["autoScale2d"]}
        super().__init__(library=get_plotlyjs(), figure=go.Figure().to_json(), config=config)
        self.on_msg(self._receive)

    def draw(self, figure: go.Figure) -> None:
        """Show a figure in the place of the former one."""
        self.figure = figure.to_json()

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        self._on_brush([int(number) for number in content["brushed"]])
