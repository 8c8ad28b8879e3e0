"""Browsing single scans: which are worst, and what the model drew there."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import SimpleITK as sitk
from PIL import Image, ImageColor, ImageDraw, ImageFont

from helpers import storage, volumes
from helpers.errors import SegfairError
from helpers.figures.spatial import (
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    find_middle,
    plot_slices,
    trace_outline,
)
from helpers.figures.style import name_for_people
from helpers.study import Study

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)
EVERYONE = "everyone"
# The picture's longer side, in pixels; how much is kept around an organ that is zoomed to.
PICTURE_PIXELS = 520
ZOOM_MARGIN_MM = 25.0
DASH_PIXELS = 7.0
CACHED_SCANS = 3


@dataclass(frozen=True)
class View:
    """What the browser shows now.

    Attributes
    ----------
    model, organ, attribute, group : str
        `attribute` and `group` are "everyone" where nobody is left out.
    number : int
        The study-local scan number; 0 when there is no scan to show.
    plane : {"axial", "coronal", "sagittal"}
    slice_index, slice_count : int
    dice : float
        Of this scan, model and organ; NaN where not known.
    scans : tuple of (str, int)
        A label and the number of every scan of the group, worst first.
    message : str
        One sentence about the scan: its score, what is missing.
    """

    model: str
    organ: str
    attribute: str
    group: str
    number: int
    plane: Plane
    slice_index: int
    slice_count: int
    dice: float
    scans: tuple[tuple[str, int], ...]
    message: str


@dataclass(frozen=True)
class _Scan:
    """One scan in axial order: label map, grey values (None without image), spacing (z, y, x) in mm."""

    labels: np.ndarray
    image: np.ndarray | None
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class _Extent:
    """Where an organ lies in a scan: its middle slices, the box to zoom to, and who shows it."""

    shape: tuple[int, ...]
    middle: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    in_reference: bool
    in_prediction: bool


class CaseBrowser:
    """Steps through the scans of a study, worst first; the logic of :func:`browse_cases`, without widgets.

    Scans are sorted by Dice, lowest first, where metrics.parquet is there (scans without a Dice last),
    else by number.

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
        path = study.path("metrics")
        self._metrics = storage.read_table(path, made_by="03_performance") if path.exists() else None
        self.models = [model.name for model in study.parameters.models]
        self.organs = list(study.parameters.spatial.organs) + [
            organ for organ in study.parameters.cohort.organs if organ not in study.parameters.spatial.organs
        ]
        columns = [column for column in self._cohort.columns if column.startswith("group_")]
        self.attributes = [EVERYONE, *(column.removeprefix("group_") for column in columns)]
        self._scans: OrderedDict[int, _Scan | str] = OrderedDict()
        self._extents: OrderedDict[tuple[int, str, str], _Extent] = OrderedDict()
        self._predictions: OrderedDict[tuple[str, int], np.ndarray | None] = OrderedDict()
        self._zoom = True
        self._view = View(self.models[0], self.organs[0], EVERYONE, EVERYONE, 0, "axial", 0, 1, np.nan, (), "")
        self.show()

    @property
    def view(self) -> View:
        """What is shown now."""
        return self._view

    @property
    def zoom(self) -> bool:
        """Whether pictures are cut to the organ's surroundings."""
        return self._zoom

    def list_groups(self, attribute: str) -> list[str]:
        """Return "everyone" and the groups of an attribute that have scans."""
        if attribute == EVERYONE:
            return [EVERYONE]
        groups = self._cohort[f"group_{attribute}"].astype("category")
        present = set(groups.dropna())
        return [EVERYONE, *(str(group) for group in groups.cat.categories if group in present)]

    def list_scans(self, model: str, organ: str, attribute: str = EVERYONE, group: str = EVERYONE) -> pd.DataFrame:
        """Return the scans of a group with their Dice, worst first: columns number, dice, status."""
        rows = self._cohort
        if attribute != EVERYONE and group != EVERYONE:
            rows = rows[rows[f"group_{attribute}"].astype(str) == group]
        table = pd.DataFrame({"number": rows["number"].to_numpy(), "dice": np.nan, "status": ""})
        if self._metrics is not None:
            of_organ = self._metrics[(self._metrics["model"] == model) & (self._metrics["organ"] == organ)]
            table = table[["number"]].merge(
                of_organ[["number", "dice", "status"]], on="number", how="left", validate="one_to_one"
            )
            table["status"] = table["status"].fillna("")
        return table.sort_values(["dice", "number"], na_position="last", ignore_index=True)

    def show(
        self,
        *,
        model: str | None = None,
        organ: str | None = None,
        attribute: str | None = None,
        group: str | None = None,
        number: int | None = None,
        plane: Plane | None = None,
        slice_index: int | None = None,
        zoom: bool | None = None,
    ) -> View:
        """Change what is shown; what is not given stays, as far as it fits.

        A scan that is not in the chosen group gives way to the group's worst. A new scan, organ or
        plane is shown through the organ's middle.

        Raises
        ------
        ValueError
            A value is not among the choices.
        """
        old = self._view
        model = _choose("model", model or old.model, self.models)
        organ = _choose("organ", organ or old.organ, self.organs)
        if attribute is not None and attribute != old.attribute and group is None:
            group = EVERYONE
        attribute = _choose("attribute", attribute or old.attribute, self.attributes)
        group = _choose("group", group or old.group, self.list_groups(attribute))
        plane = _choose("plane", plane or old.plane, PLANES)
        self._zoom = self._zoom if zoom is None else zoom
        scans = self.list_scans(model, organ, attribute, group)
        numbers = scans["number"].tolist()
        if number is not None:
            number = _choose("number", number, numbers)
        else:
            number = old.number if old.number in numbers else (numbers[0] if numbers else 0)
        moved = (number, organ, plane) != (old.number, old.organ, old.plane)
        extent = self._measure_extent(number, model, organ)
        axis = PLANES.index(plane)
        count, middle = (1, 0) if extent is None else (extent.shape[axis], extent.middle[axis])
        if slice_index is None:
            slice_index = middle if moved else old.slice_index
        slice_index = int(np.clip(slice_index, 0, count - 1))
        row = scans[scans["number"] == number]
        dice = float(row["dice"].iloc[0]) if len(row) else np.nan
        self._view = View(
            model, organ, attribute, group, number, plane, slice_index, count, dice,
            tuple((_label_scan(scan.number, scan.dice), scan.number) for scan in scans.itertuples()),
            self._describe(number, model, organ, dice),
        )  # fmt: skip
        return self._view

    def draw(self) -> np.ndarray:
        """Return the slice now shown as an RGB picture, (height, width, 3) uint8.

        Square millimetres, the longer side 520 pixels; reference outlined in green, prediction
        in dashed orange; grey values only where the study has images.
        """
        view = self._view
        scan = self._load_scan(view.number) if view.number else ""
        if isinstance(scan, str):
            return _draw_text(scan or "no scan in this group")
        axis = PLANES.index(view.plane)
        reference = self._cut(scan.labels, view.slice_index, axis) == self.study.organ_ids[view.organ]
        predicted = self._load_prediction(view.model, view.number, scan)
        prediction = (
            None
            if predicted is None
            else self._cut(predicted, view.slice_index, axis) == self.study.organ_ids[view.organ]
        )
        grey = None if scan.image is None else self._cut(scan.image, view.slice_index, axis)
        step_v, step_h = (scan.spacing_mm[other] for other in range(3) if other != axis)
        if self._zoom:
            extent = self._measure_organ(view.number, view.model, view.organ, scan)
            window = self._find_window(extent.box, scan.labels.shape[0], axis)
            reference = reference[window]
            prediction = None if prediction is None else prediction[window]
            grey = None if grey is None else grey[window]
        return _draw_slice(grey, reference, prediction, step_v, step_h, view.plane)

    def draw_png(self) -> bytes:
        """Return :meth:`draw` as PNG bytes."""
        stream = io.BytesIO()
        Image.fromarray(self.draw()).save(stream, format="png", compress_level=1)
        return stream.getvalue()

    def figure(self) -> go.Figure:
        """Return the scan now shown as a plotly figure of three slices through the organ, for readers without a kernel."""
        view = self._view
        scan = self._load_scan(view.number) if view.number else ""
        title = f"scan {view.number:03d}: {name_for_people(view.organ)}, {view.model}"
        if isinstance(scan, str):
            empty = np.zeros((2, 2, 2), bool)
            return plot_slices(empty, None, (1.0, 1.0, 1.0), title=scan or "no scan to show")
        label = self.study.organ_ids[view.organ]
        predicted = self._load_prediction(view.model, view.number, scan)
        reference, prediction = scan.labels == label, None if predicted is None else predicted == label
        window = self._measure_organ(view.number, view.model, view.organ, scan).box
        if np.isfinite(view.dice):
            title += f", Dice {view.dice:.2f}"
        return plot_slices(
            reference[window],
            None if prediction is None else prediction[window],
            scan.spacing_mm,
            image=None if scan.image is None else scan.image[window],
            title=title,
        )

    def _cut(self, array: np.ndarray, index: int, axis: int) -> np.ndarray:
        """Return one slice, seen as radiologists do: coronal and sagittal ones with the head up."""
        part = np.take(array, index, axis=axis)
        return part if axis == 0 else part[::-1]

    def _find_window(self, box: tuple[slice, slice, slice], height: int, axis: int) -> tuple[slice, slice]:
        """Return the part of a slice around the organ, the same for every slice of a scan."""
        rows, columns = (part for other, part in enumerate(box) if other != axis)
        if axis != 0:  # the head is up: rows run backwards
            rows = slice(height - rows.stop, height - rows.start)
        return rows, columns

    def _measure_extent(self, number: int, model: str, organ: str) -> _Extent | None:
        """Return where an organ lies in a scan; None for a scan that cannot be read.

        Kept for the last few, since it looks at every voxel and a slider asks at every step.
        """
        scan = self._load_scan(number) if number else ""
        return None if isinstance(scan, str) else self._measure_organ(number, model, organ, scan)

    def _measure_organ(self, number: int, model: str, organ: str, scan: _Scan) -> _Extent:
        key = (number, model, organ)
        if key not in self._extents:
            label = self.study.organ_ids[organ]
            reference = scan.labels == label
            predicted = self._load_prediction(model, number, scan)
            prediction = np.zeros_like(reference) if predicted is None else predicted == label
            shown, found = bool(reference.any()), bool(prediction.any())
            self._extents[key] = _Extent(
                scan.labels.shape,
                find_middle(reference if shown or not found else prediction),
                _enclose(reference | prediction, scan.spacing_mm),
                shown,
                found,
            )
            _forget_oldest(self._extents)
        self._extents.move_to_end(key)
        return self._extents[key]

    def _describe(self, number: int, model: str, organ: str, dice: float) -> str:
        if not number:
            return "There is no scan in this group."
        scan = self._load_scan(number)
        if isinstance(scan, str):
            return scan
        parts = [f"scan {number:03d}"]
        extent = self._measure_organ(number, model, organ, scan)
        if not extent.in_reference:
            parts.append(f"the reference shows no {name_for_people(organ)}")
        if self._load_prediction(model, number, scan) is None:
            parts.append(f"{model} has no prediction")
        elif not extent.in_prediction:
            parts.append(f"{model} found no {name_for_people(organ)}")
        if np.isfinite(dice):
            parts.append(f"Dice {dice:.3f}")
        if scan.image is None:
            parts.append("masks only, no image")
        return ": ".join([parts[0], "; ".join(parts[1:])]) if len(parts) > 1 else parts[0]

    def _load_scan(self, number: int) -> _Scan | str:
        """Return a scan, or a sentence why it cannot be shown; the last few are kept."""
        if number not in self._scans:
            try:
                self._scans[number] = self._read_scan(number)
            except SegfairError:  # its text names files: not for a screen that others see
                self._scans[number] = f"scan {number:03d} cannot be read: see 01_cohort for the reason"
            _forget_oldest(self._scans)
        self._scans.move_to_end(number)
        return self._scans[number]

    def _read_scan(self, number: int) -> _Scan:
        row = self._cohort.loc[number]
        organs = self.study.parameters.cohort.organs
        label_map = volumes.read_label_map(Path(row["reference"]), organs, self.study.organ_ids).image
        axial = volumes.to_axial(label_map)
        image = None
        if isinstance(row["image"], str) and row["image"]:
            grey = sitk.GetArrayFromImage(volumes.to_axial(volumes.read_volume(Path(row["image"]))))
            if grey.shape == sitk.GetArrayViewFromImage(axial).shape:
                image = volumes.window_image(grey, str(row["modality"]))
        return _Scan(sitk.GetArrayFromImage(axial), image, volumes.spacing_zyx_mm(axial))

    def _load_prediction(self, model: str, number: int, scan: _Scan) -> np.ndarray | None:
        """Return a model's label map of a scan in axial order, None where there is none that fits."""
        key = (model, number)
        if key not in self._predictions:
            array = None
            path = self.study.prediction_path(model, self._cohort.loc[number, "scan"])
            if path.is_file():
                try:
                    array = sitk.GetArrayFromImage(volumes.to_axial(volumes.read_volume(path)))
                except SegfairError:
                    array = None
            self._predictions[key] = array if array is not None and array.shape == scan.labels.shape else None
            _forget_oldest(self._predictions)
        self._predictions.move_to_end(key)
        return self._predictions[key]


class CaseBrowserWidget(ipywidgets.VBox):
    """The controls and the picture of a :class:`CaseBrowser`.

    Attributes
    ----------
    browser : CaseBrowser
        What the controls drive.
    """

    def __init__(self, browser: CaseBrowser) -> None:
        self.browser = browser
        wide = {"description_width": "70px"}
        self.model = ipywidgets.Dropdown(options=browser.models, description="model", style=wide)
        self.organ = ipywidgets.Dropdown(
            options=[(name_for_people(organ), organ) for organ in browser.organs], description="organ", style=wide
        )
        self.attribute = ipywidgets.Dropdown(
            options=[(name_for_people(attribute), attribute) for attribute in browser.attributes],
            description="attribute",
            style=wide,
        )
        self.group = ipywidgets.Dropdown(options=[EVERYONE], description="group", style=wide)
        self.number = ipywidgets.Select(options=[("none", 0)], description="worst first", rows=12, style=wide)
        self.plane = ipywidgets.ToggleButtons(options=PLANES, style={"button_width": "90px"})
        self.slice_index = ipywidgets.IntSlider(
            description="slice", min=0, max=1, continuous_update=True, layout={"width": "520px"}
        )
        self.zoom = ipywidgets.Checkbox(value=True, description="zoom to the organ", indent=False)
        self.picture = ipywidgets.Image(format="png", layout={"max_width": f"{PICTURE_PIXELS}px"})
        self.message = ipywidgets.HTML()
        legend = ipywidgets.HTML(
            f"<b style='color:{REFERENCE_COLOUR}'>━ reference</b> &nbsp; <b style='color:{PREDICTION_COLOUR}'>╍ prediction</b>"
        )
        self._controls: dict[str, Any] = {
            "model": self.model, "organ": self.organ, "attribute": self.attribute, "group": self.group,
            "number": self.number, "plane": self.plane, "slice_index": self.slice_index, "zoom": self.zoom,
        }  # fmt: skip
        self._refreshing = False
        self._refresh()
        for name, control in self._controls.items():
            control.observe(lambda change, name=name: self._change(name, change["new"]), names="value")
        left = ipywidgets.VBox([self.model, self.organ, self.attribute, self.group, self.number])
        right = ipywidgets.VBox(
            [ipywidgets.HBox([self.plane, self.zoom]), self.slice_index, self.picture, legend, self.message]
        )
        super().__init__([ipywidgets.HBox([left, right])])

    def figure(self) -> go.Figure:
        """Return the scan now shown as a plotly figure; see :meth:`CaseBrowser.figure`."""
        return self.browser.figure()

    def _change(self, name: str, value: Any) -> None:
        if not self._refreshing and value is not None:
            self.browser.show(**{name: value})
            self._refresh()

    def _refresh(self) -> None:
        """Bring every control in line with the browser's view, without answering their changes."""
        view = self.browser.view
        self._refreshing = True
        try:
            groups = tuple(self.browser.list_groups(view.attribute))
            if tuple(self.group.options) != groups:
                self.group.options = groups
            if tuple(self.number.options) != (view.scans or (("none", 0),)):
                self.number.options = view.scans or (("none", 0),)
            self.slice_index.max = max(view.slice_count - 1, 0)
            for name in ("model", "organ", "attribute", "group", "number", "plane", "slice_index"):
                self._controls[name].value = getattr(view, name)
            self.zoom.value = self.browser.zoom
            self.message.value = view.message
            self.picture.value = self.browser.draw_png()
        finally:
            self._refreshing = False


def browse_cases(study: Study) -> CaseBrowserWidget:
    """Return a browser of single scans: model, organ, group, scans worst first, plane and slice.

    Needs a kernel to move; ``browse_cases(study).figure()`` is the worst case as a figure that does not.
    Shows study-local scan numbers only.

    Parameters
    ----------
    study : Study

    Raises
    ------
    StageError
        01_cohort has not run, or no scan is included.
    """
    return CaseBrowserWidget(CaseBrowser(study))


def _choose(name: str, value: Any, choices: Any) -> Any:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}")
    return value


def _label_scan(number: int, dice: float) -> str:
    return f"scan {number:03d}, Dice {dice:.3f}" if np.isfinite(dice) else f"scan {number:03d}"


def _forget_oldest(cache: OrderedDict[Any, Any]) -> None:
    while len(cache) > CACHED_SCANS:
        cache.popitem(last=False)


def _enclose(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """Return the box (slices z, y, x) around a mask with a margin; everything for an empty mask."""
    parts = []
    for axis in range(3):
        line = mask.any(axis=tuple(other for other in range(3) if other != axis))
        places = np.flatnonzero(line)
        if not places.size:
            return slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2])
        margin = int(np.ceil(ZOOM_MARGIN_MM / spacing_mm[axis]))
        parts.append(slice(max(int(places[0]) - margin, 0), min(int(places[-1]) + margin + 1, mask.shape[axis])))
    return tuple(parts)  # type: ignore[return-value]


def _draw_slice(
    grey: np.ndarray | None,
    reference: np.ndarray,
    prediction: np.ndarray | None,
    step_v_mm: float,
    step_h_mm: float,
    plane: Plane,
) -> np.ndarray:
    """Draw one slice to scale with its outlines and side marks."""
    height_mm, width_mm = reference.shape[0] * step_v_mm, reference.shape[1] * step_h_mm
    scale = PICTURE_PIXELS / max(height_mm, width_mm)
    size = max(round(width_mm * scale), 2), max(round(height_mm * scale), 2)
    if grey is None:
        picture = Image.new("RGB", size, (20, 20, 20))
    else:
        picture = Image.fromarray(np.ascontiguousarray(grey)).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for mask, colour, dashed in ((reference, REFERENCE_COLOUR, False), (prediction, PREDICTION_COLOUR, True)):
        if mask is None or not mask.any():
            continue
        across, along = trace_outline(mask, step_v_mm, step_h_mm)
        # Outlines are in mm from the first voxel's centre, which lies half a voxel inside the picture.
        points = np.stack([(across + step_h_mm / 2) * scale, (along + step_v_mm / 2) * scale], axis=1)
        for line in np.split(points, np.flatnonzero(np.isnan(points[:, 0]))):
            _draw_line(pen, line[np.isfinite(line[:, 0])], ImageColor.getrgb(colour), dashed=dashed)
    marks = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}[plane]
    font = ImageFont.load_default(size=16)
    width, height = size
    for mark, place, anchor in zip(
        marks, ((6, height / 2), (width - 6, height / 2), (width / 2, 4), (width / 2, height - 4)), ("lm", "rm", "ma", "md"),
        strict=True,
    ):  # fmt: skip
        pen.text(place, mark, fill=(255, 255, 255), font=font, anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def _draw_line(pen: ImageDraw.ImageDraw, points: np.ndarray, colour: tuple[int, ...], *, dashed: bool) -> None:
    if len(points) < 2:
        return
    if not dashed:
        pen.line([tuple(point) for point in points], fill=colour, width=2)
        return
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    for start in np.arange(0.0, length[-1], 2 * DASH_PIXELS):
        stops = np.array([start, start + DASH_PIXELS / 2, min(start + DASH_PIXELS, length[-1])])
        dash = np.stack([np.interp(stops, length, points[:, place]) for place in range(2)], axis=1)
        pen.line([tuple(point) for point in dash], fill=colour, width=2)


def _draw_text(text: str) -> np.ndarray:
    picture = Image.new("RGB", (PICTURE_PIXELS, 120), (20, 20, 20))
    font = ImageFont.load_default(size=16)
    ImageDraw.Draw(picture).text((12, 60), text, fill=(255, 255, 255), font=font, anchor="lm")
    return np.asarray(picture)
