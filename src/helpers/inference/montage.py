"""A few scans per model and organ to look at: the worst, the median and the best; three planes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy import ndimage
from skimage import measure

from helpers import models, volumes
from helpers.errors import SegfairError
from helpers.inference.stage import read_organs
from helpers.parameters import Parameters
from helpers.study import Study

# What an outline of a plane may be moved by to have fewer points, in mm.
_SIMPLER_MM = 0.25
_PANEL_MARGIN_MM, _PLANE_MARGIN_MM = 30.0, 20.0  # shown around an organ


@dataclass(frozen=True)
class MontagePanel:
    """One scan's slice with outlines, ready to be drawn.

    Outlines are closed, (n, 2) as x, y in mm from the panel's top left corner; none of empty masks.
    """

    model: str
    organ: str
    number: int  # the scan's, in the study
    label: str  # why it was chosen: worst, median or best
    dice: float  # the scan's, for this organ
    image: np.ndarray  # uint8, (y, x): windowed, around the organ; mid-grey without an image
    spacing_mm: tuple[float, float]  # (y, x) of a pixel
    reference: tuple[np.ndarray, ...] = field(default=())
    prediction: tuple[np.ndarray, ...] = field(default=())


@dataclass(frozen=True)
class OrganPlane:
    """A slice of one organ as radiologists look at it: the person's right on the left, head above.

    Outlines are as those of :class:`MontagePanel`.
    """

    name: str  # axial, coronal or sagittal
    image: np.ndarray  # uint8, (rows, columns), windowed; mid-grey without an image
    spacing_mm: tuple[float, float]  # between rows, between columns
    reference: tuple[np.ndarray, ...]
    prediction: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class _PanelChoice:
    """One panel to be made."""

    model: str
    organ: str
    scan: str
    label: str
    dice: float


def load_montage(study: Study) -> list[MontagePanel]:
    """Prepare the slice with most of each organ in the worst, the median and the best scan.

    Scans are ranked by the Dice that 02_inference noted (:func:`read_organs`).

    Returns a list of MontagePanel: by organ and model, worst first; a model that finished no scan
    with an organ has none, nor has a scan whose files cannot be read any more. Each scan's files
    are read once.
    """
    cohort = study.read_included().set_index("scan")
    noted = read_organs(study)
    noted = noted[noted["scan"].isin(cohort.index)].dropna(subset=["dice"])
    choices = [
        choice
        for organ in study.organ_ids
        for model in study.parameters.models
        for choice in _choose_scans(noted[(noted["model"] == model.name) & (noted["organ"] == organ)])
    ]
    panels: dict[_PanelChoice, MontagePanel] = {}
    for scan in dict.fromkeys(choice.scan for choice in choices):
        mine = [choice for choice in choices if choice.scan == scan]
        # A file damaged since: 03 will say so; a picture of the others is still worth having.
        with suppress(SegfairError, OSError, RuntimeError, ValueError, MemoryError):
            panels |= _load_panels(study, cohort.loc[scan], mine)
    return [panels[choice] for choice in choices if choice in panels]


def load_planes(row: pd.Series, prediction: Path, organ: str, parameters: Parameters) -> tuple[OrganPlane, ...]:
    """Return an axial, a coronal and a sagittal slice through the greatest error in one organ.

    `row` is the scan's of the cohort table, `prediction` the model's label map on the reference's
    grid. The greatest error is where reference and prediction disagree over the widest place, or
    the organ's deepest place where they agree. Around the organ 20 mm are shown, and no more.

    Raises SegfairError, OSError, RuntimeError, ValueError: a file cannot be read, or the reference
    lacks the organ.
    """
    organ_ids = parameters.cohort.organ_ids()
    labels, spacing = _read_reference(row, parameters)
    reference = labels == organ_ids[organ]
    predicted = _read_axial(prediction) == organ_ids[organ]
    if not reference.any():
        raise ValueError(f"the reference of this scan has no {organ}")
    shown = _crop_around(reference | predicted, _PLANE_MARGIN_MM, spacing)
    grey = np.full(reference.shape, 128, np.uint8)[shown]
    if _has_image(row):
        grey = _find_levels(stored := _read_axial(Path(row["image"])), row, organ, parameters).apply(stored[shown])
    reference, predicted = reference[shown], predicted[shown]
    wrong = reference ^ predicted
    depths = ndimage.distance_transform_edt(np.pad(wrong if wrong.any() else reference, 1), spacing)[1:-1, 1:-1, 1:-1]
    centre = np.unravel_index(np.argmax(depths), depths.shape)
    planes = []
    for axis, name in enumerate(("axial", "coronal", "sagittal")):
        step_v, step_h = (step for other, step in enumerate(spacing) if other != axis)
        step = (step_v, step_h)
        # Slices are stored from below: the head belongs above.
        grey_2d, reference_2d, predicted_2d = (
            np.take(one, centre[axis], axis)[:: -1 if axis else 1] for one in (grey, reference, predicted)
        )
        lines = (_trace_outlines(mask, step, simpler_mm=_SIMPLER_MM) for mask in (reference_2d, predicted_2d))
        planes.append(OrganPlane(name, grey_2d, step, *lines))
    return tuple(planes)


def _choose_scans(noted: pd.DataFrame) -> list[_PanelChoice]:
    """Return up to three scans of one model and organ."""
    ranked = noted.sort_values(["dice", "scan"])
    if ranked.empty:
        return []
    places = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    chosen: dict[int, str] = {}
    for label, place in places.items():
        chosen.setdefault(place, label)
    return [
        _PanelChoice(row.model, row.organ, row.scan, label, row.dice)
        for place, label in chosen.items()
        for row in ranked.iloc[[place]].itertuples(index=False)
    ]


def _load_panels(study: Study, row: pd.Series, choices: Sequence[_PanelChoice]) -> dict[_PanelChoice, MontagePanel]:
    """Return the panels of one scan; an organ the reference lacks has none."""
    labels, spacing_zyx = _read_reference(row, study.parameters)
    spacing = spacing_zyx[1:]
    stored = _read_axial(Path(row["image"])) if _has_image(row) else None
    panels = {}
    for model in dict.fromkeys(choice.model for choice in choices):
        predicted = _read_axial(study.prediction_path(model, row.name))
        for choice in choices:
            organ_id = study.organ_ids[choice.organ]
            reference = labels == organ_id
            if choice.model != model or not reference.any():
                continue
            z = int(np.argmax(reference.sum(axis=(1, 2))))
            reference, prediction = reference[z], predicted[z] == organ_id
            shown = _crop_around(reference | prediction, _PANEL_MARGIN_MM, spacing)
            grey = np.full(reference.shape, 128, np.uint8)
            if stored is not None:
                grey = _find_levels(stored, row, choice.organ, study.parameters).apply(stored[z])
            panels[choice] = MontagePanel(
                model=model,
                organ=choice.organ,
                number=int(row["number"]),
                label=choice.label,
                dice=choice.dice,
                image=grey[shown],
                spacing_mm=spacing,
                reference=_trace_outlines(reference[shown], spacing),
                prediction=_trace_outlines(prediction[shown], spacing),
            )
    return panels


def _read_reference(row: pd.Series, parameters: Parameters) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return a scan's reference, the study's organ ids (z, y, x), and its spacing."""
    cohort = parameters.cohort
    image = volumes.to_axial(volumes.read_label_map(Path(row["reference"]), cohort.organs, cohort.organ_ids()).image)
    return sitk.GetArrayFromImage(image), volumes.get_spacing_zyx_mm(image)


def _read_axial(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(volumes.to_axial(volumes.read_volume(path)))


def _has_image(row: pd.Series) -> bool:
    return isinstance(row["image"], str) and bool(row["image"])


def _find_levels(stored: np.ndarray, row: pd.Series, organ: str, parameters: Parameters) -> volumes.Levels:
    """Return which grey values of a whole scan an organ is shown in."""
    name = models.choose_window(organ, row["modality"], parameters.windows)
    return models.find_levels(stored, row["modality"], name, parameters.windows)


def _crop_around(mask: np.ndarray, margin_mm: float, spacing_mm: tuple[float, ...]) -> tuple[slice, ...]:
    """Return the part of an array around what is in a mask, of as many dimensions."""
    margins = [round(margin_mm / step) for step in spacing_mm]
    return volumes.grow_box(volumes.find_boxes(mask.view(np.uint8))[1], margins, mask.shape)


def _trace_outlines(
    mask: np.ndarray, spacing_mm: tuple[float, ...], *, simpler_mm: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Return closed outlines as (x, y) in mm; pixel 0 has its centre at half a pixel."""
    padded = np.pad(mask.astype(np.float32), 1)
    outlines = (
        np.column_stack([(line[:, 1] - 0.5) * spacing_mm[1], (line[:, 0] - 0.5) * spacing_mm[0]])
        for line in measure.find_contours(padded, 0.5)
    )
    return tuple(measure.approximate_polygon(line, simpler_mm) for line in outlines)
