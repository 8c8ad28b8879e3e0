"""The case browser's controls, pictures and surface in JupyterLab."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWorking
from contextlib import suppress
from typing import Any

import ipywidgets
import numpy as np
import plotly.graph_objects as go

from helpers.figures.slices import PREDICTION_COLOUR, REFERENCE_COLOUR
from helpers.figures.style import CONFIG, DIVERGING
from helpers.figures.surface_geometry import CAMERAS, frame_scene, mark_sides, place_camera
from helpers.study import Study
from helpers.vocabulary.measures import MEASURES
from helpers.vocabulary.words import name_for_people, name_scan
from helpers.widgets.browser import EVERYONE, CaseBrowser, CaseChoice
from helpers.widgets.pictures import PICTURE_PIXELS, PLANES
from helpers.widgets.scans import OrganSurface

# A change that takes longer is answered by "reading …" and shown when it is ready.
PATIENCE_SECONDS = 0.2
UNKNOWN_COLOUR = "#8C8C8C"
_CHOICES = ("model", "organ", "attribute", "group", "sort_by", "number")
# In a square the marks at the sides need more room than in a wide figure.
SQUARE_ZOOM = 1.7


class CaseBrowserWidget(ipywidgets.VBox):
    """The controls, three slices and the surface of a :class:`CaseBrowser`.

    A scan that takes long to read is read aside: the message says so at once, and the pictures
    follow. After a change the scan that is likely to come next is read ahead. `browser` is what the
    controls drive.
    """

    def __init__(self, browser: CaseBrowser) -> None:
        self.browser = browser
        wide = {"description_width": "70px"}
        orders = [(MEASURES[order].long_name if order in MEASURES else order, order) for order in browser.orders]
        self.model, self.organ, self.attribute, self.group, self.sort_by = (
            ipywidgets.Dropdown(options=options, description=name, style=wide)
            for name, options in (
                ("model", browser.models),
                ("organ", [(name_for_people(organ), organ) for organ in browser.organs]),
                ("attribute", [(name_for_people(attribute), attribute) for attribute in browser.attributes]),
                ("group", [EVERYONE]),
                ("sort by", orders),
            )
        )
        self.number = ipywidgets.Select(options=[("none", 0)], description="worst first", rows=16, style=wide)
        self.zoom = ipywidgets.Checkbox(value=True, description="zoom to the organ", indent=False)
        self.worst_place = ipywidgets.Button(description="go to the largest error", layout={"width": "200px"})
        width = f"{PICTURE_PIXELS}px"
        self.slices = {
            plane: ipywidgets.IntSlider(description=plane, min=0, max=1, layout={"width": width}, style=wide)
            for plane in PLANES
        }
        self.pictures = {plane: ipywidgets.Image(format="png", layout={"max_width": width}) for plane in PLANES}
        self.legend = ipywidgets.HTML()
        self.message = ipywidgets.HTML()
        self.surface = _draw_empty_surface()
        self._surface_shown: OrganSurface | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="case-browser")
        self._ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="case-browser-ahead")
        self._waiting: CaseChoice | None = None
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:  # no kernel: nobody moves a control while a scan is read
            self._loop = None
        self._refreshing = False
        # Without a kernel's loop, what was read aside arrives on another thread.
        self._turn = threading.RLock()
        self._refresh()
        for name in (*_CHOICES, "zoom"):
            getattr(self, name).observe(lambda change, name=name: self._change(name, change["new"]), names="value")
        for plane, slider in self.slices.items():
            slider.observe(lambda change, plane=plane: self._change(plane, change["new"]), names="value")
        self.worst_place.on_click(lambda _: self._go_to_worst_place())
        left = ipywidgets.VBox(
            [*(getattr(self, name) for name in _CHOICES), self.zoom, self.worst_place],
            layout={"flex": "0 0 330px", "padding": "0 12px 0 0"},
        )
        views = [ipywidgets.VBox([self.slices[plane], self.pictures[plane]]) for plane in PLANES]
        right = ipywidgets.VBox(
            [self.message, ipywidgets.HBox(views[:2]), ipywidgets.HBox([views[2], self.surface]), self.legend]
        )
        super().__init__([ipywidgets.HBox([left, right])])

    def figure(self) -> go.Figure:
        """Return the scan now shown as a plotly figure; see :meth:`CaseBrowser.figure`."""
        return self.browser.figure()

    def _change(self, name: str, value: Any) -> None:
        with self._turn:
            if self._refreshing or value is None:
                return
            if name in PLANES or name == "zoom":
                self.browser.show(**{name: value})
                self._refresh()
                return
            choice = self._waiting = self.browser.resolve(**(self._list_pending(name) | {name: value}))
            if self.browser.is_prepared(choice):
                self._arrive(choice)
                return
        working = self._pool.submit(self.browser.prepare, choice)
        try:
            working.result(timeout=PATIENCE_SECONDS)
        except StillWorking:
            self.message.value = f"{name_scan(choice.number)}: reading …"
            working.add_done_callback(lambda done: self._call_back(choice, done))
        else:
            self._arrive(choice)

    def _list_pending(self, name: str) -> dict[str, Any]:
        """Return what is still being read, as far as a change of `name` leaves it."""
        if self._waiting is None:
            return {}
        kept = self._waiting.list_values()
        gone = {"attribute": ("group", "number"), "group": ("number",)}.get(name, ())
        return {key: value for key, value in kept.items() if key not in gone and value}

    def _call_back(self, choice: CaseChoice, done: Future[None]) -> None:
        """Hand a choice that was read aside to the kernel's thread, where controls are answered."""
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._arrive, choice, done)
        else:
            self._arrive(choice, done)

    def _arrive(self, choice: CaseChoice, done: Future[None] | None = None) -> None:
        """Show a choice that is ready, unless another has been made since."""
        with self._turn:
            if choice is not self._waiting:
                return
            self._waiting = None
            if done is not None and done.exception() is not None:
                self.message.value = f"{name_scan(choice.number)} cannot be shown: {type(done.exception()).__name__}"
                return
            self.browser.show(**choice.list_values() | {"number": choice.number or None})
            self._refresh()
        for likely in self.browser.list_likely():
            if not self.browser.is_prepared(likely):
                with suppress(RuntimeError):  # the kernel is going down
                    self._ahead.submit(self._prepare_ahead, likely, choice)

    def _prepare_ahead(self, likely: CaseChoice, after: CaseChoice) -> None:
        """Read ahead, unless the user has moved on or waits for something else."""
        view = self.browser.view
        if self._waiting is None and view.number == after.number:
            self.browser.prepare(likely)

    def _go_to_worst_place(self) -> None:
        with self._turn:
            self.browser.show_worst_place()
            self._refresh()

    def _refresh(self) -> None:
        """Bring every control in line with the browser's view, without answering their changes."""
        view = self.browser.view
        self._refreshing = True
        try:
            groups = tuple(self.browser.list_groups(view.attribute))
            for control, options in ((self.group, groups), (self.number, view.scans or (("none", 0),))):
                if tuple(control.options) != options:
                    control.options = options
            for name in _CHOICES:
                getattr(self, name).value = getattr(view, name)
            for plane, place, count in zip(PLANES, view.position, view.shape, strict=True):
                self.slices[plane].max = max(count - 1, 0)
                self.slices[plane].value = place
                self.pictures[plane].value = self.browser.draw_png(plane)
            self.zoom.value = self.browser.zoom
            self.message.value = view.message
            self.legend.value = _write_legend(view.limit_mm)
            surface = self.browser.surface
            if surface is not self._surface_shown:
                self._surface_shown = surface
                _update_surface(self.surface, surface, view.limit_mm)
        finally:
            self._refreshing = False


def browse_cases(study: Study) -> CaseBrowserWidget:
    """Return a browser of single scans, worst first, with three slices and the surface.

    Needs a kernel to move; ``browse_cases(study).figure()`` is the worst case as a figure that does
    not. Shows study-local scan numbers only.

    Raises
    ------
    StageError
        01_cohort has not run, or no scan is included.
    """
    return CaseBrowserWidget(CaseBrowser(study))


def _write_legend(limit_mm: float) -> str:
    colours = ", ".join(str(colour) for _, colour in DIVERGING)
    return (
        "<div style='display:flex; gap:8px; align-items:center; flex-wrap:wrap'>"
        f"<span><b>━ reference</b>, coloured by the error:</span> <span>−{limit_mm:g} mm too small</span>"
        "<span style='display:inline-block; width:140px; height:12px; border:1px solid #888; "
        f"background:linear-gradient(to right, {colours})'></span>"
        f"<span>+{limit_mm:g} mm too large</span> <span><b style='color:{REFERENCE_COLOUR}'>━</b> error unknown</span>"
        f"<span><b style='color:{PREDICTION_COLOUR}'>╍ prediction</b></span> "
        "<span>dotted: the other two slices</span></div>"
    )


def _draw_empty_surface() -> go.FigureWidget:
    figure = go.FigureWidget(
        [
            {
                "type": "mesh3d", "colorscale": DIVERGING, "showscale": False, "flatshading": False,
                "hovertemplate": "%{intensity:+.1f} mm<extra></extra>",
                "lighting": {"ambient": 0.9, "diffuse": 0.3, "specular": 0.02, "roughness": 0.9, "fresnel": 0.0},
            },
            {
                "type": "scatter3d", "mode": "text", "hoverinfo": "skip", "showlegend": False,
                "textfont": {"size": 15, "color": "#222222"},
            },
        ],
        layout={
            "width": PICTURE_PIXELS, "height": PICTURE_PIXELS + 40, "margin": {"l": 0, "r": 0, "t": 40, "b": 0},
            "template": "plotly_white",
            "updatemenus": [
                {
                    "type": "buttons", "direction": "right", "showactive": False, "x": 0.0, "xanchor": "left", "y": 1.0,
                    "yanchor": "bottom", "pad": {"t": 0, "b": 4}, "font": {"size": 10}, "bgcolor": "#FFFFFF",
                    "buttons": [
                        {"label": side, "method": "relayout", "args": [{"scene.camera": place_camera(side)}]}
                        for side in CAMERAS
                    ],
                }
            ],
        },
    )  # fmt: skip
    figure.update_scenes(
        aspectmode="manual", aspectratio=dict.fromkeys("xyz", SQUARE_ZOOM), camera=place_camera("Anterior")
    )
    figure._config = {**figure._config, **CONFIG, "displayModeBar": False}
    return figure


def _update_surface(figure: go.FigureWidget, surface: OrganSurface | None, limit_mm: float) -> None:
    mesh, marks = figure.data
    with figure.batch_update():
        if surface is None or not len(surface.vertices_mm):
            mesh.visible = marks.visible = False
            return
        mesh.visible = marks.visible = True
        mesh.x, mesh.y, mesh.z = np.round(surface.vertices_mm, 1).astype(np.float32).T
        mesh.i, mesh.j, mesh.k = surface.faces.astype(np.uint32).T
        known = np.isfinite(surface.errors_mm).any()
        mesh.intensity = np.round(surface.errors_mm, 2) if known else np.zeros(len(surface.errors_mm), np.float32)
        mesh.colorscale = DIVERGING if known else [[0.0, UNKNOWN_COLOUR], [1.0, UNKNOWN_COLOUR]]
        mesh.hovertemplate = "%{intensity:+.1f} mm<extra></extra>" if known else "error unknown<extra></extra>"
        mesh.cmin, mesh.cmax = -limit_mm, limit_mm
        points, names = mark_sides(surface.vertices_mm)
        marks.x, marks.y, marks.z = np.round(points, 1).astype(np.float32).T
        marks.text = [f"<b>{name}</b>" for name in names]
        figure.layout.scene.update(frame_scene(surface.vertices_mm))
