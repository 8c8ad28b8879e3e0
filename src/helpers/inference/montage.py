"""A few scans per model and organ to look at: the worst, the median and the best."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from skimage import measure

from helpers import models, volumes
from helpers.errors import SegfairError
from helpers.inference.stage import read_organs
from helpers.study import Study


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
class _PanelChoice:
    """One panel to be made."""

    model: str
    organ: str
    scan: str
    label: str
    dice: float


def load_montage(study: Study, organs: Sequence[str] | None = None, *, margin_mm: float = 30.0) -> list[MontagePanel]:
    """Prepare the slice with most of the organ in the worst, the median and the best scan.

    Scans are ranked by the Dice that 02_inference noted (:func:`read_organs`). Of the study's
    organs all are shown when none are given, with `margin_mm` around each.

    Returns
    -------
    list of MontagePanel
        By organ and model, worst first; a model that finished no scan with an organ has none, nor
        has a scan whose files cannot be read any more. Each scan's files are read once.

    Raises
    ------
    SegfairError
        The study has no such organ.
    """
    wanted = list(study.organ_ids) if organs is None else list(organs)
    for organ in wanted:
        if organ not in study.organ_ids:
            raise SegfairError(f"organ must be one of {', '.join(study.organ_ids)}; got {organ!r}")
    cohort = study.read_included().set_index("scan")
    noted = read_organs(study)
    noted = noted[noted["scan"].isin(cohort.index)].dropna(subset=["dice"])
    choices = [
        choice
        for organ in wanted
        for model in study.parameters.models
        for choice in _choose_scans(noted[(noted["model"] == model.name) & (noted["organ"] == organ)])
    ]
    panels: dict[_PanelChoice, MontagePanel] = {}
    for scan in dict.fromkeys(choice.scan for choice in choices):
        mine = [choice for choice in choices if choice.scan == scan]
        # A file damaged since: 03 will say so; a picture of the others is still worth having.
        with suppress(SegfairError, OSError, RuntimeError, ValueError, MemoryError):
            panels |= _load_panels(study, cohort.loc[scan], mine, margin_mm)
    return [panels[choice] for choice in choices if choice in panels]


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


def _load_panels(
    study: Study, row: pd.Series, choices: Sequence[_PanelChoice], margin_mm: float
) -> dict[_PanelChoice, MontagePanel]:
    """Return the panels of one scan; an organ the reference lacks has none."""
    organs = study.parameters.cohort.organs
    image = volumes.to_axial(volumes.read_label_map(Path(row["reference"]), organs, study.organ_ids).image)
    labels = sitk.GetArrayViewFromImage(image)
    spacing = volumes.get_spacing_zyx_mm(image)[1:]
    stored = None
    if isinstance(row["image"], str) and row["image"]:
        stored = sitk.GetArrayFromImage(volumes.to_axial(volumes.read_volume(Path(row["image"]))))
    panels = {}
    for model in dict.fromkeys(choice.model for choice in choices):
        prediction_image = volumes.read_volume(study.prediction_path(model, row.name))
        predicted = sitk.GetArrayFromImage(volumes.to_axial(prediction_image))
        for choice in choices:
            organ_id = study.organ_ids[choice.organ]
            reference = labels == organ_id
            if choice.model != model or not reference.any():
                continue
            z = int(np.argmax(reference.sum(axis=(1, 2))))
            reference, prediction = reference[z], predicted[z] == organ_id
            shown = _crop_around(reference | prediction, margin_mm, spacing)
            grey = np.full(reference.shape, 128, np.uint8)
            if stored is not None:
                windows = study.parameters.windows
                name = models.choose_window(choice.organ, row["modality"], windows)
                grey = models.find_levels(stored, row["modality"], name, windows).apply(stored[z])
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


def _crop_around(mask: np.ndarray, margin_mm: float, spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
    window = []
    for axis, (count, spacing) in enumerate(zip(mask.shape, spacing_mm, strict=True)):
        filled = np.flatnonzero(mask.any(axis=1 - axis))
        margin = round(margin_mm / spacing)
        window.append(slice(max(0, int(filled[0]) - margin), min(count, int(filled[-1]) + 1 + margin)))
    return window[0], window[1]


def _trace_outlines(mask: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Return closed outlines as (x, y) in mm; pixel 0 has its centre at half a pixel."""
    padded = np.pad(mask.astype(np.float32), 1)
    outlines = measure.find_contours(padded, 0.5)
    return tuple(
        np.column_stack([(line[:, 1] - 0.5) * spacing_mm[1], (line[:, 0] - 0.5) * spacing_mm[0]]) for line in outlines
    )
