"""The exploration's controls, its figure to brush, and the scans behind the brush."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from helpers.errors import SegfairError
from helpers.explore.explorer import Explorer, Kept, list_studies, name_covariate
from helpers.explore.export import export_view
from helpers.study import Study
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import format_value, name_for_people, name_organ, name_scan
from helpers.widgets import EVERYONE, LiveFigure, browse_cases

_CONTROLS = ("model", "organ", "metric", "across", "colour")
ALL = "all"
_SHOWN_FIRST = 10  # people who are selected when the exploration opens: the worst ones


class ExplorerWidget(ipywidgets.VBox):
    """Controls, figure, scans of the people brushed and case browser, each following the others.

    Of a study after 03_performance. `explorer` is what the controls drive, another one after
    another study is picked; `plot` is the figure, `cases` the case browser.
    """

    def __init__(self, study: Study) -> None:
        self._studies = list_studies(study)
        wide = {"description_width": "64px"}
        box = {"width": "270px"}
        self.study = ipywidgets.Dropdown(options=list(self._studies), description="study", style=wide, layout=box)
        self.model, self.organ, self.metric, self.across, self.colour = (
            ipywidgets.Dropdown(description=name, style=wide, layout=box) for name in _CONTROLS
        )
        self.covariates: dict[str, ipywidgets.Checkbox] = {}
        self._held = ipywidgets.HBox(layout={"flex_flow": "row wrap", "align_items": "center"})
        self.plot = LiveFigure(self.brush, modeBarButtonsToRemove=["autoScale2d"])
        self.filters: dict[str, ipywidgets.Dropdown | ipywidgets.FloatRangeSlider] = {}
        self._kept = ipywidgets.HBox(layout={"flex_flow": "row wrap", "align_items": "center"})
        self.views = ipywidgets.Dropdown(description="saved view", style={"description_width": "initial"}, layout=box)
        self.view_name = ipywidgets.Text(placeholder="a name for this view", layout={"width": "180px"})
        self.keep = ipywidgets.Button(description="Save view", layout={"width": "100px"})
        self.message = ipywidgets.HTML()
        self.scans = ipywidgets.Select(rows=14, layout={"width": "250px"})
        self.chosen = ipywidgets.HTML()
        self.save = ipywidgets.Button(description="Export data and figure", layout={"width": "190px"})
        self.saved = ipywidgets.HTML()
        self._cases = ipywidgets.VBox()
        self._controls = {name: getattr(self, name) for name in _CONTROLS}
        self._refreshing = False
        self._open(study)
        self.study.observe(lambda change: self._open(self._studies[change["new"]]), names="value")
        for name, control in self._controls.items():
            control.observe(lambda change, name=name: self._change(**{name: change["new"]}), names="value")
        self.scans.observe(lambda change: self._show_case(change["new"]), names="value")
        self.save.on_click(lambda _: self._export())
        self.keep.on_click(lambda _: self._save_view())
        self.views.observe(lambda change: self._show_view(change["new"]), names="value")
        controls = ipywidgets.HBox([self.study, *self._controls.values()], layout={"flex_flow": "row wrap"})
        saving = ipywidgets.HBox(
            [self.views, self.view_name, self.keep, self.save, self.saved],
            layout={"flex_flow": "row wrap", "align_items": "center"},
        )
        side = ipywidgets.VBox([self.chosen, self.scans], layout={"flex": "0 0 262px", "padding": "40px 0 0 8px"})
        self.plot.layout = {"flex": "1 1 420px", "min_width": "0"}
        both = ipywidgets.HBox([self.plot, side], layout={"width": "100%", "flex_flow": "row wrap"})
        super().__init__([controls, self._kept, self._held, both, self.message, saving, self._cases])

    def figure(self) -> go.Figure:
        """Return the view as a figure that needs no kernel."""
        return self.explorer.figure()

    def brush(self, numbers: Sequence[int]) -> None:
        """Select people by their number, as drawing a box around them does."""
        self._change(selected=numbers)

    def _open(self, study: Study) -> None:
        """Show another study."""
        try:
            self.explorer = Explorer(study)
        except SegfairError as error:
            self.message.value = _say(str(error))
            return
        explorer = self.explorer
        explorer.show(selected=explorer.find_worst(_SHOWN_FIRST))
        self.cases = browse_cases(study) if study.parameters.cohort.has_masks else None
        shown = self.cases or ipywidgets.HTML("This study has ready-made scores: there are no masks to look at.")
        self._cases.children = [ipywidgets.HTML("<b>The scan</b>"), shown]
        apart = {"width": "auto", "margin": "0 14px 0 0"}
        self.covariates = {
            name: ipywidgets.Checkbox(value=False, description=name_covariate(name), indent=False, layout=apart)
            for name in explorer.list_covariates("")
        }
        for box in self.covariates.values():
            box.observe(lambda _: self._change(covariates=self._list_held()), names="value")
        label = ipywidgets.HTML("<span style='margin: 0 10px 0 12px'>adjust for</span>")
        self._held.children = [label, *self.covariates.values()]
        self._make_filters()
        self._refreshing = True
        try:
            self.views.options = [("–", ""), *((name, name) for name in explorer.list_views())]
            self.model.options = explorer.models
            self.organ.options = [(name_organ(organ), organ) for organ in explorer.organs]
            self.metric.options = [(find_measure(name).long_name, name) for name in explorer.metrics]
            self.across.options = [(words, key) for key, words in explorer.dimensions.items()]
            self.colour.options = [(words, key) for key, words in explorer.colours.items()]
        finally:
            self._refreshing = False
        self._refresh()

    def _make_filters(self) -> None:
        """Offer the columns by which people can be chosen."""
        self.filters = {}
        for name, choices in self.explorer.list_filters().items():
            words = {"description": name_for_people(name), "style": {"description_width": "initial"}}
            if isinstance(choices, list):
                self.filters[name] = ipywidgets.Dropdown(options=[ALL, *choices], layout={"width": "auto"}, **words)
            else:
                low, high = math.floor(choices[0]), math.ceil(choices[1])
                self.filters[name] = ipywidgets.FloatRangeSlider(
                    value=(low, high), min=low, max=high, step=1, readout_format=".0f", continuous_update=False,
                    layout={"width": "300px"}, **words,
                )  # fmt: skip
            self.filters[name].observe(lambda _: self._change(only=self._list_kept()), names="value")
        label = ipywidgets.HTML("<span style='margin: 0 10px 0 12px'>only</span>")
        self._kept.children = [label, *self.filters.values()]

    def _list_kept(self) -> dict[str, Kept]:
        """Return the filters that leave anybody out."""
        everybody = {name: (box.min, box.max) if hasattr(box, "min") else ALL for name, box in self.filters.items()}
        return {name: box.value for name, box in self.filters.items() if box.value != everybody[name]}

    def _save_view(self) -> None:
        name = self.view_name.value.strip()
        try:
            if not name:
                raise SegfairError("give the view a name first")
            self.explorer.save_view(name)
        except SegfairError as error:
            self.saved.value = _say(str(error))
            return
        self._refreshing = True
        try:
            self.views.options = [("–", ""), *((one, one) for one in self.explorer.list_views())]
            self.views.value = name
        finally:
            self._refreshing = False
        self.saved.value = _say(f"Saved as {name!r}, in views.json of the study's folder.")

    def _show_view(self, name: str | None) -> None:
        if self._refreshing or not name:
            return
        try:
            self.explorer.show_view(name)
        except SegfairError as error:
            self.saved.value = _say(str(error))
            return
        self._refresh()

    def _list_held(self) -> list[str]:
        return [name for name, box in self.covariates.items() if box.value and not box.disabled]

    def _change(self, **choices: Any) -> None:
        if self._refreshing or None in choices.values():
            return
        self.saved.value = ""
        self.explorer.show(**choices)
        self._refresh()

    def _refresh(self) -> None:
        """Bring controls, figure and list in line with the view, not answering their changes."""
        view = self.explorer.view
        self._refreshing = True
        try:
            for name, control in self._controls.items():
                control.value = getattr(view, name)
            possible = self.explorer.list_covariates(view.across)
            for name, box in self.covariates.items():
                box.disabled = name not in possible
                box.value = name in view.covariates
            kept = dict(view.only)
            for name, box in self.filters.items():
                box.value = kept.get(name, (box.min, box.max) if hasattr(box, "min") else ALL)
            self.plot.draw(self.explorer.figure())
            self.message.value = _say(view.message)
            listed = self.explorer.list_scans()
            self.scans.options = [
                (f"{name_scan(row.number)}   {format_value(row.score, view.metric)}", row.number)
                for row in listed.itertuples(index=False)
            ]
            count = len(view.selected)
            people = f"<b>{count} {'person' if count == 1 else 'people'} selected</b>, worst first"
            self.chosen.value = f"{people if count else '<b>Nobody selected</b>'}<br>draw a box or a loop around dots"
            if len(listed):
                self.scans.value = int(listed["number"].iloc[0])
        finally:
            self._refreshing = False
        self._show_case(self.scans.value)

    def _show_case(self, number: int | None) -> None:
        """Have the case browser show the view's model and organ, and a scan among everyone's."""
        if self._refreshing or self.cases is None:
            return
        view, cases = self.explorer.view, self.cases
        cases.model.value = view.model
        if view.organ in {value for _, value in cases.organ.options}:
            cases.organ.value = view.organ
        if number is not None:
            cases.attribute.value = EVERYONE
            cases.number.value = number

    def _export(self) -> None:
        self.save.disabled, self.saved.value = True, "writing …"
        try:
            self.saved.value = _say(export_view(self.explorer).message)
        except SegfairError as error:
            self.saved.value = _say(str(error))
        finally:
            self.save.disabled = False


def explore_study(study: Study) -> ExplorerWidget:
    """Return the exploration of a study: choices, a figure to brush, its scans, and an export.

    Needs a kernel to move; ``explore_study(study).figure()`` is the view as a figure that does not.
    Shows study-local numbers only.

    Raises
    ------
    StageError
        01_cohort or 03_performance has not run.
    """
    return ExplorerWidget(study)


def _say(text: str) -> str:
    return html.escape(text, quote=False)
