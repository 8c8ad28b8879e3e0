"""Slices as pictures: grey values, outlines, errors along them, where the other slices run."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from plotly.colors import sample_colorscale

from helpers.figures.slices import REFERENCE_COLOUR, SIDES, trace_outline
from helpers.figures.style import DIVERGING

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)
# The longest side of a scan's three pictures, in pixels; all three have one scale.
PICTURE_PIXELS = 480
BACKGROUND = (20, 20, 20)
CROSS_COLOUR = (120, 120, 120)
DASH_PIXELS = 6.0
SECOND_COLOUR = "#CC79A7"  # of another model's outline beside the first one's
_BAND, _LINE = 6, 2  # how wide the error's colours and the lines are, in pixels
_STEPS = 64
_COLOURS = [
    tuple(round(255 * part) for part in colour)
    for colour in sample_colorscale(DIVERGING, np.linspace(0, 1, _STEPS + 1), colortype="tuple")
]


@dataclass(frozen=True)
class SliceView:
    """One slice to draw: rows from front or head downwards, columns from right or front."""

    plane: Plane
    grey: np.ndarray | None  # uint8, (rows, columns)
    reference: np.ndarray  # bool, as is the prediction
    predictions: tuple[tuple[np.ndarray, str], ...]  # each with the colour of its outline
    step_v_mm: float  # between rows
    step_h_mm: float  # between columns
    cross: tuple[float, float]  # row and column where the other two slices run


def draw_slice(
    view: SliceView,
    outline_mm: tuple[np.ndarray, np.ndarray],
    errors_mm: np.ndarray,
    limit_mm: float,
    *,
    scale: float,
    opacity: float = 1.0,
) -> np.ndarray:
    """Draw one slice: uint8 (height, width, 3), `scale` pixels per millimetre.

    `outline_mm` is the reference's outline, across and down, NaN between its parts
    (:func:`helpers.figures.slices.trace_outline`), `errors_mm` the signed error at each of its
    points (NaN where unknown), `limit_mm` where the colours end on both sides. The outline is solid
    on a band from blue (too small) to red (too large), which is absent where no error is known;
    predictions' are dashed. `opacity` is that of band and outlines, from 0 to 1.
    """
    height_mm, width_mm = view.reference.shape[0] * view.step_v_mm, view.reference.shape[1] * view.step_h_mm
    size = max(round(width_mm * scale), 2), max(round(height_mm * scale), 2)
    if view.grey is None:
        picture = Image.new("RGB", size, BACKGROUND)
    else:
        grey = Image.fromarray(np.ascontiguousarray(view.grey))
        picture = grey.resize(size, Image.Resampling.BILINEAR).convert("RGB")
    drawn = picture.copy()
    pen, outline = ImageDraw.Draw(drawn), _to_pixels(*outline_mm, view, scale)
    _draw_errors(pen, outline, errors_mm, limit_mm)
    for line in _part_lines(outline):
        pen.line([tuple(point) for point in line.tolist()], fill=ImageColor.getrgb(REFERENCE_COLOUR), width=_LINE)
    for prediction, colour in view.predictions:
        if prediction.any():
            across, down = trace_outline(prediction, view.step_v_mm, view.step_h_mm)
            for line in _part_lines(_to_pixels(across, down, view, scale)):
                _draw_dashes(pen, line, ImageColor.getrgb(colour))
    picture = Image.blend(picture, drawn, opacity)
    pen = ImageDraw.Draw(picture)
    _draw_cross(pen, view, scale, size)
    _draw_sides(pen, view.plane, size)
    return np.asarray(picture)


def draw_text(text: str) -> np.ndarray:
    """Return a dark picture that says something."""
    picture = Image.new("RGB", (PICTURE_PIXELS, 120), BACKGROUND)
    lines, font = "\n".join(textwrap.wrap(text, 48)), ImageFont.load_default(size=15)
    ImageDraw.Draw(picture).multiline_text((12, 60), lines, fill=(255, 255, 255), font=font, anchor="lm")
    return np.asarray(picture)


def _to_pixels(across_mm: np.ndarray, down_mm: np.ndarray, view: SliceView, scale: float) -> np.ndarray:
    # Outlines are in mm from the first voxel's centre, which lies half a voxel inside the picture.
    return np.stack([(across_mm + view.step_h_mm / 2) * scale, (down_mm + view.step_v_mm / 2) * scale], axis=1)


def _part_lines(points: np.ndarray) -> list[np.ndarray]:
    parts = np.split(points, np.flatnonzero(np.isnan(points[:, 0])))
    return [part[np.isfinite(part[:, 0])] for part in parts]


def _draw_errors(pen: ImageDraw.ImageDraw, points: np.ndarray, errors_mm: np.ndarray, limit_mm: float) -> None:
    """Draw a broken band, each stretch of one colour at once."""
    known = np.isfinite(errors_mm) & np.isfinite(points[:, 0])
    steps = np.rint((np.clip(np.nan_to_num(errors_mm) / limit_mm, -1, 1) + 1) / 2 * _STEPS)
    steps = np.where(known, steps, -1).astype(int)
    # A stretch ends where the colour changes; it runs on to the next point, so that no gap is left.
    starts = np.concatenate([[0], np.flatnonzero(np.diff(steps)) + 1, [len(steps)]])
    for start, stop in pairwise(starts):
        if steps[start] < 0:
            continue
        runs_on = stop < len(steps) and steps[stop] >= 0
        stretch = points[start : stop + 1] if runs_on else points[start:stop]
        if len(stretch) > 1:
            pen.line([tuple(point) for point in stretch.tolist()], fill=_COLOURS[steps[start]], width=_BAND)


def _draw_dashes(pen: ImageDraw.ImageDraw, points: np.ndarray, colour: tuple[int, ...]) -> None:
    if len(points) < 2:
        return
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    starts = np.arange(0.0, length[-1], 2 * DASH_PIXELS)
    stops = np.minimum(starts[:, None] + DASH_PIXELS * np.array([0.0, 0.5, 1.0]), length[-1])
    dashes = np.stack([np.interp(stops, length, points[:, place]) for place in range(2)], axis=2)
    for dash in dashes.tolist():
        pen.line([tuple(point) for point in dash], fill=colour, width=_LINE)


def _draw_cross(pen: ImageDraw.ImageDraw, view: SliceView, scale: float, size: tuple[int, int]) -> None:
    width, height = size
    y, x = (
        (place + 0.5) * step * scale for place, step in zip(view.cross, (view.step_v_mm, view.step_h_mm), strict=True)
    )
    for start in range(0, width, 8):
        pen.line([(start, y), (start + 2, y)], fill=CROSS_COLOUR)
    for start in range(0, height, 8):
        pen.line([(x, start), (x, start + 2)], fill=CROSS_COLOUR)


def _draw_sides(pen: ImageDraw.ImageDraw, plane: Plane, size: tuple[int, int]) -> None:
    width, height = size
    font = ImageFont.load_default(size=16)
    places = ((6, height / 2, "lm"), (width - 6, height / 2, "rm"), (width / 2, 4, "ma"), (width / 2, height - 4, "md"))
    for mark, (x, y, anchor) in zip(SIDES[plane], places, strict=True):
        pen.text((x, y), mark, fill=(255, 255, 255), font=font, anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))
