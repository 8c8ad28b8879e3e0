"""What the case browser shows for which choices, without widgets."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image

from helpers.figures.slices import PREDICTION_COLOUR, plot_slices, trace_outline
from helpers.figures.surface_geometry import round_up
from helpers.study import Study
from helpers.vocabulary.measures import find_measure, list_scores
from helpers.vocabulary.verdicts import rank_rows
from helpers.vocabulary.words import format_value, name_for_people, name_scan
from helpers.widgets.pictures import PICTURE_PIXELS, PLANES, SECOND_COLOUR, Plane, SliceView, draw_slice, draw_text
from helpers.widgets.scans import OrganCase, OrganSurface, Scan, ScanStore

EVERYONE = "everyone"
# The colours end where this part of a surface's errors, in percent, is reached.
SCALE_PERCENTILE = 95.0


@dataclass(frozen=True)
class Case:
    """Which organ of which scan, by which model, and among whom it was chosen."""

    model: str
    organ: str
    attribute: str  # it and `group` are "everyone" where nobody is left out
    group: str
    sort_by: str  # the metric that orders the scans, worst first; "number" where there are none
    number: int  # the study-local scan number; 0 when there is no scan to show

    def list_values(self) -> dict[str, Any]:
        """Return what :meth:`CaseBrowser.resolve` takes to come to this case."""
        return {field.name: getattr(self, field.name) for field in fields(Case)}


@dataclass(frozen=True)
class CaseView(Case):
    """What the browser shows now."""

    position: tuple[int, int, int]  # the slices shown: axial, coronal, sagittal
    shape: tuple[int, int, int]  # how many slices there are of each
    score: float  # this scan's value of `sort_by`; NaN where not known
    limit_mm: float  # where the error's colours end on both sides
    levels: tuple[float, float] | None  # the intensities shown as black and as white; None without image
    scans: tuple[tuple[str, int], ...]  # a label and the number of the group's scans, worst first
    message: str  # a sentence about the scan: its score, its largest error, what is missing


@dataclass(frozen=True)
class CaseChoice(Case):
    """Which scan is to be shown, before it is read."""

    scans: pd.DataFrame


class CaseBrowser:
    """Steps through the scans of a study, worst first; the logic of the case browser.

    Scans are sorted by a metric, worst first, where metrics.parquet is there (scans without a value
    last), else by number. `view` is what is shown now, which :meth:`show` changes.

    Parameters
    ----------
    study : Study
        With a cohort; predictions, images and metrics are used where present.

    Raises
    ------
    StageError
        01_cohort has not run, or no scan is included.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._cohort = study.read_included().set_index("number", drop=False)
        self._metrics = study.read("metrics") if study.path("metrics").exists() else None
        self._store = ScanStore(study, self._cohort)
        models = study.parameters.models
        self.models = [model.name for model in models]
        self.organs = list(study.parameters.spatial.organs) + [
            organ for organ in study.parameters.cohort.organs if organ not in study.parameters.spatial.organs
        ]
        columns = [column for column in self._cohort.columns if column.startswith("group_")]
        self.attributes = [EVERYONE, *(column.removeprefix("group_") for column in columns)]
        known = [] if self._metrics is None else [metric for metric in list_scores() if metric in self._metrics]
        self.orders = known or ["number"]
        self.zoom, self._opacity = True, 1.0  # zoom: whether pictures are cut to the organ's surroundings
        self.second = ""  # the model whose outline is drawn beside the first one's
        self._levels: tuple[float, float] | None = None  # as chosen; by default the scan's own
        found = find_finding(study)
        start = (
            found.get("model", next((one.name for one in models if one.kind != "prompt_only"), self.models[0])),
            found.get("organ", self.organs[0]),
            found.get("attribute", EVERYONE),
            found.get("group", EVERYONE),
            self.orders[0],
            0,
        )
        self.view = CaseView(*start, (0, 0, 0), (1, 1, 1), np.nan, 1.0, None, (), "")
        self.show()

    @property
    def shown_mm(self) -> tuple[float, float, float]:
        """How much the pictures show, in mm (z, y, x)."""
        scan, case = self._find_shown()
        if scan is None or case is None:
            return 1.0, 1.0, 1.0
        z, y, x = (
            (part.stop - part.start) * step
            for part, step in zip(self._find_window(scan, case), scan.spacing_mm, strict=True)
        )
        return z, y, x

    @property
    def surface(self) -> OrganSurface | None:
        """The reference's surface with its errors; None for a scan that cannot be read."""
        _, case = self._find_shown()
        return None if case is None else case.surface

    def list_groups(self, attribute: str) -> list[str]:
        """Return "everyone" and the groups of an attribute that have scans."""
        if attribute == EVERYONE:
            return [EVERYONE]
        groups = self._cohort[f"group_{attribute}"].astype("category")
        present = set(groups.dropna())
        return [EVERYONE, *(str(group) for group in groups.cat.categories if group in present)]

    def list_scans(
        self, model: str, organ: str, attribute: str = EVERYONE, group: str = EVERYONE, sort_by: str | None = None
    ) -> pd.DataFrame:
        """Return the scans of a group, worst first: number, score (of `sort_by`), status."""
        sort_by = sort_by or self.orders[0]
        rows = self._cohort
        if attribute != EVERYONE and group != EVERYONE:
            rows = rows[rows[f"group_{attribute}"].astype(str) == group]
        table = pd.DataFrame({"number": rows["number"].to_numpy(), "score": np.nan, "status": ""})
        if self._metrics is None or sort_by == "number":
            return table.sort_values("number", ignore_index=True)
        here = self._metrics[(self._metrics["model"] == model) & (self._metrics["organ"] == organ)]
        scores = here[["number", "status"]].assign(score=here[sort_by].astype(float))
        table = table[["number"]].merge(scores, on="number", how="left", validate="one_to_one")
        table["status"] = table["status"].fillna("")
        # A distance of a missed organ is missing, and nothing is worse; other missing values come
        # last.
        missed = table["score"].isna() & (table["status"] == "prediction_empty")
        table["rank"] = rank_scores(table["score"], sort_by).mask(missed, -np.inf)
        return table.sort_values(["rank", "number"], ignore_index=True)[["number", "score", "status"]]

    def resolve(
        self,
        *,
        model: str | None = None,
        organ: str | None = None,
        attribute: str | None = None,
        group: str | None = None,
        sort_by: str | None = None,
        number: int | None = None,
    ) -> CaseChoice:
        """Return what a change leads to, reading no scan; what is not given stays if it fits.

        A scan that is not in the chosen group gives way to the group's worst.

        Raises
        ------
        ValueError
            A value is not among the choices.
        """
        old = self.view
        model = check_choice("model", model or old.model, self.models)
        organ = check_choice("organ", organ or old.organ, self.organs)
        if attribute is not None and attribute != old.attribute and group is None:
            group = EVERYONE
        attribute = check_choice("attribute", attribute or old.attribute, self.attributes)
        group = check_choice("group", group or old.group, self.list_groups(attribute))
        sort_by = check_choice("sort_by", sort_by or old.sort_by, self.orders)
        scans = self.list_scans(model, organ, attribute, group, sort_by)
        numbers = scans["number"].tolist()
        if number is not None:
            number = check_choice("number", number, numbers)
        else:
            number = old.number if old.number in numbers else (numbers[0] if numbers else 0)
        return CaseChoice(model, organ, attribute, group, sort_by, number, scans)

    def is_prepared(self, choice: CaseChoice) -> bool:
        """Return whether a choice can be shown without reading or measuring anything."""
        return not choice.number or self._store.is_measured(choice.model, choice.organ, choice.number)

    def prepare(self, choice: CaseChoice) -> None:
        """Read and measure what a choice shows; may be called from another thread."""
        if choice.number:
            self._store.measure_organ(choice.model, choice.organ, choice.number)

    def list_likely(self) -> list[CaseChoice]:
        """Return what is likely to come next: the next scan, this one by the other models."""
        view = self.view
        numbers = [number for _, number in view.scans]
        now = self.resolve()
        after = numbers[numbers.index(view.number) + 1 :][:1] if view.number in numbers else []
        others = [model for model in self.models if model != view.model]
        return [replace(now, number=number) for number in after] + [replace(now, model=model) for model in others]

    def show(
        self,
        *,
        axial: int | None = None,
        coronal: int | None = None,
        sagittal: int | None = None,
        zoom: bool | None = None,
        second: str | None = None,
        opacity: float | None = None,
        levels: tuple[float, float] | None = None,
        **choices: Any,
    ) -> CaseView:
        """Change what is shown; what is not given stays, as far as it fits.

        `axial`, `coronal` and `sagittal` say which slices, clipped to the scan; a new scan or organ
        is shown through the organ's middle. `zoom` cuts the pictures to the organ's surroundings,
        `second` is another model whose outline is drawn too (empty: none), `opacity` that of all
        outlines, `levels` the intensities shown as black and as white, until another scan comes.
        The other choices are those of :meth:`resolve`, and so is what is raised.
        """
        old, choice = self.view, self.resolve(**choices)
        self.zoom = self.zoom if zoom is None else zoom
        self._opacity = self._opacity if opacity is None else opacity
        if second is not None:
            self.second = check_choice("second", second, ["", *self.models])
        number = choice.number
        self._levels = levels or (self._levels if number == old.number else None)
        scan = self._store.load_scan(number) if number else "There is no scan in this group."
        case = self._store.measure_organ(choice.model, choice.organ, number) if number else None
        row = choice.scans[choice.scans["number"] == number]
        score = float(row["score"].iloc[0]) if len(row) else np.nan
        if isinstance(scan, str) or case is None:
            position, shape, limit_mm, message = (0, 0, 0), (1, 1, 1), 1.0, str(scan)
        else:
            shape = scan.labels.shape
            stays = (number, choice.organ) == (old.number, old.organ) and old.shape == shape
            position = old.position if stays else case.middle
            wanted = (axial, coronal, sagittal)
            z, y, x = (
                int(np.clip(here if place is None else place, 0, size - 1))
                for here, place, size in zip(position, wanted, shape, strict=True)
            )
            position = (z, y, x)
            limit_mm = _choose_limit(case.surface.errors_mm)
            message = self._describe(choice, scan, case, score)
        labels = [_label_scan(one.number, choice.sort_by, one.score) for one in choice.scans.itertuples()]
        scans = tuple(zip(labels, choice.scans["number"].tolist(), strict=True))
        found = None if isinstance(scan, str) or scan.levels is None else (scan.levels.low, scan.levels.high)
        shown: dict[str, Any] = {"position": position, "shape": shape, "score": score, "limit_mm": limit_mm}
        shown |= {"levels": found and (self._levels or found), "scans": scans, "message": message}
        self.view = CaseView(**choice.list_values(), **shown)
        return self.view

    def show_worst_place(self) -> CaseView:
        """Move all three slices to the place of the largest error, where one is known."""
        _, case = self._find_shown()
        if case is None or case.worst is None:
            return self.view
        axial, coronal, sagittal = case.worst
        return self.show(axial=axial, coronal=coronal, sagittal=sagittal)

    def show_place(self, plane: Plane, across: float, down: float) -> CaseView:
        """Move the other two slices to a place of a picture, from 0 to 1 from its left and top."""
        scan, case = self._find_shown()
        if scan is None or case is None:
            return self.view
        axis = PLANES.index(check_choice("plane", plane, PLANES))
        window, position = self._find_window(scan, case), list(self.view.position)
        rows, columns = (other for other in range(3) if other != axis)
        down = 1 - down if axis else down  # coronal and sagittal slices have the head up
        for place, part in ((rows, down), (columns, across)):
            size = window[place].stop - window[place].start
            position[place] = window[place].start + int(np.clip(part * size, 0, size - 1))
        return self.show(axial=position[0], coronal=position[1], sagittal=position[2])

    def draw(self, plane: Plane) -> np.ndarray:
        """Return one of the three slices now shown as an RGB picture, (height, width, 3) uint8.

        Square millimetres, one scale for all three; the reference's outline on a band coloured by
        the signed error in mm, predictions' dashed; grey values only where the study has images;
        dotted lines where the other two slices run. See
        :func:`helpers.widgets.pictures.draw_slice`.
        """
        axis, view = PLANES.index(check_choice("plane", plane, PLANES)), self.view
        scan, case = self._find_shown()
        if scan is None or case is None:
            return draw_text(view.message)
        window = self._find_window(scan, case)
        index = view.position[axis]
        rows, columns = (other for other in range(3) if other != axis)
        cut: tuple[slice | int, ...] = (*window[:axis], index, *window[axis + 1 :])
        # Coronal and sagittal slices have the head up: their rows run from the top.
        flip = slice(None, None, -1 if axis else 1)
        reference = self._cut_reference(scan, cut)[flip]
        colours = {self.second: SECOND_COLOUR} | {view.model: PREDICTION_COLOUR}
        masks = {name: self._cut_prediction(name, cut) for name in dict.fromkeys([view.model, self.second]) if name}
        predictions = tuple((mask[flip], colours[name]) for name, mask in masks.items() if mask is not None)
        steps = scan.spacing_mm[rows], scan.spacing_mm[columns]
        across, down = trace_outline(reference, *steps)
        height = (window[rows].stop - window[rows].start - 1) * steps[0]
        points = np.empty((len(across), 3))
        points[:, axis] = index * scan.spacing_mm[axis]
        points[:, rows] = window[rows].start * steps[0] + (height - down if axis else down)
        points[:, columns] = window[columns].start * steps[1] + across
        place = view.position[rows] - window[rows].start
        last = window[rows].stop - window[rows].start - 1
        grey = scan.window(cut, view.levels)
        slice_view = SliceView(
            plane,
            None if grey is None else grey[flip],
            reference,
            predictions,
            *steps,
            (last - place if axis else place, view.position[columns] - window[columns].start),
        )
        return draw_slice(
            slice_view,
            (across, down),
            case.measure(points, scan.spacing_mm),
            view.limit_mm,
            scale=PICTURE_PIXELS / max(self.shown_mm),
            opacity=self._opacity,
        )

    def draw_png(self, plane: Plane) -> bytes:
        """Return :meth:`draw` as PNG bytes."""
        stream = io.BytesIO()
        Image.fromarray(self.draw(plane)).save(stream, format="png", compress_level=1)
        return stream.getvalue()

    def figure(self) -> go.Figure:
        """Return the scan now shown as a figure of three slices, for readers without a kernel."""
        view = self.view
        scan, case = self._find_shown()
        if scan is None or case is None:
            return plot_slices(np.zeros((2, 2, 2), bool), None, (1.0, 1.0, 1.0), title=view.message)
        title = f"{name_scan(view.number)}: {name_for_people(view.organ)}, {view.model}"
        if np.isfinite(view.score):
            title += f", {_write_score(view.sort_by, view.score)}"
        z, y, x = (
            int(np.clip(place - part.start, 0, part.stop - part.start - 1))
            for place, part in zip(view.position, case.box, strict=True)
        )
        return plot_slices(
            self._cut_reference(scan, case.box),
            self._cut_prediction(view.model, case.box),
            scan.spacing_mm,
            image=scan.window(case.box),
            centre=(z, y, x),
            measure=None if case.boundary is None else case.boundary.measure,
            limit_mm=view.limit_mm,
            title=title,
        )

    def _find_shown(self) -> tuple[Scan, OrganCase] | tuple[None, None]:
        """Return the scan and the organ now shown; nothing of a scan that cannot be read."""
        view = self.view
        case = self._store.measure_organ(view.model, view.organ, view.number) if view.number else None
        scan = self._store.load_scan(view.number) if case is not None else ""
        return (None, None) if case is None or isinstance(scan, str) else (scan, case)

    def _find_window(self, scan: Scan, case: OrganCase) -> tuple[slice, ...]:
        """Return the part of the scan that pictures show."""
        return case.box if self.zoom else tuple(slice(0, size) for size in scan.labels.shape)

    def _cut_reference(self, scan: Scan, part: tuple[slice | int, ...]) -> np.ndarray:
        return scan.labels[part] == self.study.organ_ids[self.view.organ]

    def _cut_prediction(self, model: str, part: tuple[slice | int, ...]) -> np.ndarray | None:
        """Return the organ in a part of a prediction; None where there is none."""
        predicted = self._store.load_prediction(model, self.view.number)
        return None if predicted is None else predicted.labels[part] == self.study.organ_ids[self.view.organ]

    def _describe(self, choice: CaseChoice, scan: Scan, case: OrganCase, score: float) -> str:
        parts, organ = [], name_for_people(choice.organ)
        if not case.in_reference:
            parts.append(f"the reference shows no {organ}")
        if not case.has_prediction:
            parts.append(f"{choice.model} has no prediction")
        elif not case.in_prediction:
            parts.append(f"{choice.model} found no {organ}")
        if np.isfinite(score):
            parts.append(_write_score(choice.sort_by, score))
        if np.isfinite(case.largest_mm):
            size = f"{abs(case.largest_mm):.1f} mm too {'large' if case.largest_mm > 0 else 'small'}"
            parts.append(f"largest error about {size}")
        if scan.image is None:
            parts.append("masks only, no image")
        return f"{name_scan(choice.number)}: {'; '.join(parts)}" if parts else name_scan(choice.number)


def find_finding(study: Study) -> dict[str, str]:
    """Return what the report names first: its model, organ, attribute and worst group.

    Empty where no group was found to be worse off.
    """
    if not study.path("disparity").exists():
        return {}
    fairness = study.parameters.fairness
    gaps = study.read("disparity")
    known = gaps["model"].isin([model.name for model in study.parameters.models]) & gaps["organ"].isin(study.organ_ids)
    found = rank_rows(gaps[known & (gaps["metric"] == fairness.primary)].to_dict("records"), fairness.alpha)
    columns = {"model": "model", "organ": "organ", "attribute": "attribute", "group": "worst_group"}
    return {name: str(found[0][column]) for name, column in columns.items()} if found else {}


def rank_scores(scores: pd.Series, metric: str) -> pd.Series:
    """Return numbers that put the worst first; a signed error is worst farthest from 0."""
    return scores.abs() * find_measure(metric).sign


def check_choice(name: str, value: Any, choices: Any) -> Any:
    """Return a value; a ValueError names the choices where it is not among them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}")
    return value


def _choose_limit(errors_mm: np.ndarray) -> float:
    known = np.abs(errors_mm[np.isfinite(errors_mm)])
    return round_up(float(np.percentile(known, SCALE_PERCENTILE))) if known.size else 1.0


def _label_scan(number: int, metric: str, score: float) -> str:
    return f"{name_scan(number)}, {_write_score(metric, score)}" if np.isfinite(score) else name_scan(number)


def _write_score(metric: str, score: float) -> str:
    """Return a metric's name and value: ``Dice 0.512``, ``Boundary error 3.10 mm``."""
    return f"{find_measure(metric).long_name} {format_value(score, metric)}"
