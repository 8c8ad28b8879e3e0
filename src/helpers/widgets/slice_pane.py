"""One plane of a scan, to be clicked, wheeled through and windowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from helpers.widgets.pictures import Plane


class SlicePane(anywidget.AnyWidget):
    """A picture with its slider; tells what the reader wishes and shows what it is given.

    Parameters
    ----------
    name : str
        The plane's.
    on_wish : callable
        Receives the name and what is wished: ``slice`` (its number from 0), ``step`` (so many
        slices on), ``at`` (a place of the picture, across and down, 0 to 1), ``window`` (right and
        down, in pixels dragged).
    """

    _esm = Path(__file__).with_name("slice_pane.js")
    name = traitlets.Unicode().tag(sync=True)
    picture = traitlets.Bytes().tag(sync=True)
    place = traitlets.Int().tag(sync=True)
    count = traitlets.Int(1).tag(sync=True)
    answered = traitlets.Int().tag(sync=True)  # counts wishes: the next one is sent when one is met

    def __init__(self, name: Plane, on_wish: Callable[[Plane, dict[str, Any]], None]) -> None:
        super().__init__(name=name)
        self._plane: Plane = name
        self._on_wish = on_wish
        self.on_msg(self._receive)

    def show(self, picture: bytes, place: int, count: int) -> None:
        """Show a picture, PNG, of slice `place` (from 0) of `count`."""
        self.count, self.place, self.picture = count, place, picture

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        try:
            self._on_wish(self._plane, content)
        finally:
            self.answered += 1
