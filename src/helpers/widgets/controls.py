"""The case browser's controls, pictures and surface in JupyterLab."""

from __future__ import annotations

import asyncio
import html
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWorking
from contextlib import suppress
from typing import Any

import ipywidgets
import numpy as np
import plotly.graph_objects as go

from helpers.figures.slices import PREDICTION_COLOUR, REFERENCE_COLOUR
from helpers.figures.style import DIVERGING
from helpers.figures.surface_geometry import CAMERAS, frame_scene, mark_sides, place_camera
from helpers.study import Study
from helpers.vocabulary.measures import MEASURES
from helpers.vocabulary.words import name_for_people, name_scan
from helpers.widgets.browser import EVERYONE, CaseBrowser, CaseChoice
from helpers.widgets.live_figure import LiveFigure
from helpers.widgets.pictures import PLANES, SECOND_COLOUR, Plane
from helpers.widgets.scans import OrganSurface
from helpers.widgets.slice_pane import SlicePane

# A change that takes longer is answered by "reading …" and shown when it is ready.
PATIENCE_SECONDS = 0.2
UNKNOWN_COLOUR = "#8C8C8C"
_CHOICES = ("model", "organ", "attribute", "group", "sort_by", "number")
_LOOKS = ("second", "zoom", "opacity", "levels")  # what changes the pictures alone
_DRAGGED_PIXELS = 400  # how far a drag changes brightness or contrast by the whole window
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
        wide, full = {"description_width": "70px"}, {"width": "auto"}
        orders = [(MEASURES[order].long_name if order in MEASURES else order, order) for order in browser.orders]
        self.model, self.organ, self.attribute, self.group, self.sort_by = (
            ipywidgets.Dropdown(options=options, description=name, style=wide, layout=full)
            for name, options in (
                ("model", browser.models),
                ("organ", [(name_for_people(organ), organ) for organ in browser.organs]),
                ("attribute", [(name_for_people(attribute), attribute) for attribute in browser.attributes]),
                ("group", [EVERYONE]),
                ("sort by", orders),
            )
        )
        self.number = ipywidgets.Select(
            options=[("none", 0)], description="worst first", rows=14, style=wide, layout=full
        )
        self.second = ipywidgets.Dropdown(
            options=[("none", ""), *((model, model) for model in browser.models)], description="beside", style=wide,
            layout=full,
        )  # fmt: skip
        self.swap = ipywidgets.Button(description="A ⇄ B", tooltip="swap the two models", layout={"width": "64px"})
        self.opacity = ipywidgets.FloatSlider(
            value=1.0, min=0.0, max=1.0, step=0.05, description="outlines", readout_format=".0%", style=wide,
            layout=full,
        )  # fmt: skip
        self.levels = ipywidgets.FloatRangeSlider(description="window", readout_format=".0f", style=wide, layout=full)
        self.zoom = ipywidgets.Checkbox(value=True, description="zoom to the organ", indent=False, layout=full)
        self.worst_place = ipywidgets.Button(description="go to the largest error", layout={"width": "200px"})
        self.panes = {plane: SlicePane(plane, self._meet) for plane in PLANES}
        self.legend = ipywidgets.HTML()
        self.message = ipywidgets.HTML()
        self.surface = LiveFigure(displayModeBar=False)
        self.surface.layout = {"flex": "1 1 auto", "width": "100%", "min_width": "0", "min_height": "260px"}
        self.side = ipywidgets.Dropdown(options=list(CAMERAS), description="seen from", style=wide, layout=full)
        self._surface_shown: OrganSurface | None = None
        self.surface.draw(_draw_surface(None, 1.0, self.side.value))
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
        for name in (*_CHOICES, *_LOOKS):
            getattr(self, name).observe(lambda change, name=name: self._change(name, change["new"]), names="value")
        self.side.observe(lambda _: self._draw_surface(), names="value")
        self.worst_place.on_click(lambda _: self._go_to_worst_place())
        self.swap.on_click(lambda _: self._swap())
        beside = ipywidgets.HBox([self.second, self.swap], layout={"width": "auto"})
        self.second.layout = {"flex": "1 1 auto", "width": "auto", "min_width": "0"}
        left = ipywidgets.VBox(
            [self.model, beside, *(getattr(self, name) for name in _CHOICES[1:]), self.levels, self.opacity, self.zoom,
             self.worst_place],
            layout={"flex": "0 0 300px", "min_width": "0", "padding": "0 12px 0 0"},
        )  # fmt: skip
        # The coronal slice below the axial one, the sagittal one beside it: columns are as wide as
        # what they show, so that all three have one scale.
        self.grid = ipywidgets.GridBox(
            [
                self.panes["axial"],
                ipywidgets.VBox([self.side, self.surface], layout={"min_width": "0"}),
                self.panes["coronal"],
                self.panes["sagittal"],
            ],
            layout={"width": "100%", "max_width": "1100px", "min_width": "0", "grid_gap": "6px"},
        )
        self._refresh()
        right = ipywidgets.VBox(
            [self.message, self.grid, self.legend], layout={"flex": "1 1 480px", "min_width": "0", "overflow": "hidden"}
        )
        # On a narrow page the slices lie below the controls.
        both = ipywidgets.HBox([left, right], layout={"width": "100%", "flex_flow": "row wrap"})
        super().__init__([both], layout={"width": "100%"})

    def figure(self) -> go.Figure:
        """Return the scan now shown as a plotly figure; see :meth:`CaseBrowser.figure`."""
        return self.browser.figure()

    def _change(self, name: str, value: Any) -> None:
        with self._turn:
            if self._refreshing or value is None:
                return
            if name in _LOOKS:
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

    def _meet(self, plane: Plane, wish: dict[str, Any]) -> None:
        """Do what a reader wishes of a plane; see :class:`SlicePane`."""
        with self._turn:
            view = self.browser.view
            if "at" in wish:
                self.browser.show_place(plane, *wish["at"])
            if "slice" in wish or "step" in wish:
                now = wish.get("slice", view.position[PLANES.index(plane)])
                self.browser.show(**{plane: now + wish.get("step", 0)})
            if "window" in wish and view.levels is not None:
                low, high = view.levels
                right, down = (part / _DRAGGED_PIXELS * (high - low) for part in wish["window"])
                width = max(high - low + right, (high - low) / 20)
                middle = (low + high) / 2 + down
                self.browser.show(levels=(middle - width / 2, middle + width / 2))
            self._refresh()

    def _draw_surface(self) -> None:
        self.surface.draw(_draw_surface(self.browser.surface, self.browser.view.limit_mm, self.side.value))

    def _swap(self) -> None:
        """Show the second model as the first and the first as the second."""
        if self.second.value and self.second.value != self.model.value:
            first, second = self.model.value, self.second.value
            self.second.value, self.model.value = first, second

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
                self.panes[plane].show(self.browser.draw_png(plane), place, count)
            _, deep_mm, wide_mm = self.browser.shown_mm
            columns = f"minmax(0, {wide_mm:.0f}fr) minmax(0, {deep_mm:.0f}fr)"
            if self.grid.layout.grid_template_columns != columns:
                self.grid.layout.grid_template_columns = columns
            self.zoom.value, self.second.value = self.browser.zoom, self.browser.second
            _set_levels(self.levels, view.levels)
            self.message.value = html.escape(view.message, quote=False)
            self.legend.value = _write_legend(view.limit_mm, view.model, self.browser.second)
            surface = self.browser.surface
            if surface is not self._surface_shown:
                self._surface_shown = surface
                self._draw_surface()
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


def _write_legend(limit_mm: float, model: str, second: str) -> str:
    colours = ", ".join(str(colour) for _, colour in DIVERGING)
    drawn = {second: SECOND_COLOUR} | {model: PREDICTION_COLOUR}
    dashed = "".join(
        f"<span><b style='color:{drawn[name]}'>╍ {html.escape(name)}</b></span>"
        for name in dict.fromkeys([model, second])
        if name
    )
    return (
        "<div style='display:flex; gap:2px 12px; align-items:center; flex-wrap:wrap; line-height:1.4'>"
        f"<span><b style='color:{REFERENCE_COLOUR}'>━ reference</b></span>{dashed}"
        f"<span>band: {html.escape(model)} too small</span> <span>−{limit_mm:g} mm <span "
        "style='display:inline-block; width:110px; height:12px; border:1px solid #888; "
        f"background:linear-gradient(to right, {colours})'></span> +{limit_mm:g} mm</span> <span>too large</span>"
        "<span>dotted: the other two slices</span></div>"
    )


def _set_levels(slider: ipywidgets.FloatRangeSlider, levels: tuple[float, float] | None) -> None:
    """Bring the window's slider in line; it reaches a window's width beyond on both sides."""
    slider.disabled = levels is None
    if levels is None or tuple(slider.value) == levels:
        return
    low, high = levels
    reach = max(high - low, 1e-6)
    slider.step = reach / 100
    if low < slider.min or high > slider.max or reach < (slider.max - slider.min) / 50:
        slider.min, slider.max = min(slider.min, low - reach), max(slider.max, high + reach)
    slider.value = levels


def _draw_surface(surface: OrganSurface | None, limit_mm: float, side: str) -> go.Figure:
    """Return a reference's surface, coloured by its errors; nothing of a scan without one."""
    figure = go.Figure()
    figure.update_layout(template="plotly_white", margin={"l": 0, "r": 0, "t": 0, "b": 0})
    if surface is None or not len(surface.vertices_mm):
        figure.update_layout(xaxis_visible=False, yaxis_visible=False)
        figure.add_annotation(text="There is no surface to draw.", showarrow=False)
        return figure
    (x, y, z), (i, j, k) = np.round(surface.vertices_mm, 1).astype(np.float32).T, surface.faces.astype(np.uint32).T
    known = bool(np.isfinite(surface.errors_mm).any())
    figure.add_mesh3d(
        x=x, y=y, z=z, i=i, j=j, k=k, showscale=False, flatshading=False, cmin=-limit_mm, cmax=limit_mm,
        intensity=np.round(surface.errors_mm, 2) if known else np.zeros(len(surface.errors_mm), np.float32),
        colorscale=DIVERGING if known else [[0.0, UNKNOWN_COLOUR], [1.0, UNKNOWN_COLOUR]],
        hovertemplate="%{intensity:+.1f} mm<extra></extra>" if known else "error unknown<extra></extra>",
        lighting={"ambient": 0.9, "diffuse": 0.3, "specular": 0.02, "roughness": 0.9, "fresnel": 0.0},
    )  # fmt: skip
    points, names = mark_sides(surface.vertices_mm)
    x, y, z = np.round(points, 1).astype(np.float32).T
    letters = {"text": [f"<b>{name}</b>" for name in names], "textfont": {"size": 15, "color": "#222222"}}
    figure.add_scatter3d(x=x, y=y, z=z, mode="text", hoverinfo="skip", showlegend=False, **letters)
    figure.update_scenes(
        aspectmode="manual", aspectratio=dict.fromkeys("xyz", SQUARE_ZOOM), camera=place_camera(side),
        **frame_scene(surface.vertices_mm),
    )  # fmt: skip
    figure.update_layout(uirevision=side)  # turned by hand it stays so, until another side is chosen
    return figure
