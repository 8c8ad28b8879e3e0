"""Slices through a scan, with outlines and the error along them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from skimage.measure import find_contours

from helpers.figures.style import DIVERGING, style_figure

ERROR_TITLE = "mm (+ too large, − too small)"
# The planes in the order of the axes they cut, and what is on the left, right, above and below.
SIDES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
REFERENCE_COLOUR = "#009E73"
PREDICTION_COLOUR = "#D55E00"
# Name, colour and dashes of outlines over grey: these two stay apart for every eye.
OUTLINES = {
    "reference": ("reference (solid)", REFERENCE_COLOUR, "solid"),
    "prediction": ("prediction (dashed)", PREDICTION_COLOUR, "5px,3px"),
}


def plot_slices(
    reference: np.ndarray,
    prediction: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
    *,
    image: np.ndarray | None = None,
    centre: tuple[int, int, int] | None = None,
    measure: Callable[[np.ndarray], np.ndarray] | None = None,
    limit_mm: float = 5.0,
    title: str = "",
) -> go.Figure:
    """Draw an axial, a coronal and a sagittal slice with the outlines of reference and prediction.

    Parameters
    ----------
    reference, prediction : ndarray of bool, (z, y, x)
        One organ, in axial order (:func:`helpers.volumes.to_axial`); None without a prediction.
    spacing_mm : tuple of float
        (z, y, x), as `centre`: which slices, through the reference's middle when not given.
    image : ndarray of uint8, (z, y, x), optional
        Windowed grey values on the same grid; blank without.
    measure : callable, optional
        Gives the signed error (mm) at points (n, 3), in mm (z, y, x) from the first voxel's centre,
        as :meth:`helpers.spatial.boundary.MaskBoundary.measure` does; with it, dots along the
        reference's outline show the error, in colours that end at `limit_mm` on both sides.

    Returns
    -------
    go.Figure
        Seen as radiologists do: the person's right on the left of the axial and coronal slice.
        Solid line: reference; dashed: prediction.
    """
    if centre is None:
        centre = find_middle(reference if reference.any() or prediction is None else prediction)
    sizes = np.asarray(reference.shape) * np.asarray(spacing_mm)
    figure = make_subplots(
        cols=3,
        subplot_titles=[name.capitalize() for name in SIDES],
        column_widths=[sizes[2], sizes[2], sizes[1]],
        horizontal_spacing=0.1,
    )
    for axis, (left, right, up, down) in enumerate(SIDES.values()):
        place = {"row": 1, "col": axis + 1}
        rows, columns = (other for other in range(3) if other != axis)
        step_v, step_h = spacing_mm[rows], spacing_mm[columns]
        if image is not None:
            grey = np.take(image, centre[axis], axis=axis).astype(np.uint8)
            look = {"zmin": 0, "zmax": 255, "colorscale": "gray", "showscale": False, "hoverinfo": "skip"}
            figure.add_trace(go.Heatmap(z=grey, x0=0, dx=step_h, y0=0, dy=step_v, **look), **place)
        outlines = (
            ("reference", reference, REFERENCE_COLOUR, "solid"),
            ("prediction", prediction, PREDICTION_COLOUR, "dash"),
        )
        dots = None
        for label, mask, colour, dash in outlines:
            if mask is None:
                continue
            across, along = trace_outline(np.take(mask, centre[axis], axis=axis), step_v, step_h)
            if label == "reference" and measure is not None:
                points = np.empty((len(across), 3))
                points[:, axis], points[:, rows], points[:, columns] = centre[axis] * spacing_mm[axis], along, across
                dots = _dot_errors(across, along, measure(points), limit_mm, showscale=axis == 2)
            look = {"mode": "lines", "line": {"color": colour, "dash": dash, "width": 2.5}, "hoverinfo": "skip"}
            legend = {"name": label, "legendgroup": label, "showlegend": axis == 0}
            figure.add_trace(go.Scatter(x=across, y=along, **look, **legend), **place)
        if dots is not None:
            figure.add_trace(dots, **place)
        extent_h, extent_v = step_h * (reference.shape[columns] - 1), step_v * (reference.shape[rows] - 1)
        ends, anchor = [0, extent_v] if axis else [extent_v, 0], f"x{axis + 1 if axis else ''}"
        plain = {"constrain": "domain", "showgrid": False, "zeroline": False, **place}
        figure.update_xaxes(range=[0, extent_h], title_text=f"{left} → {right} (mm)", **plain)
        figure.update_yaxes(range=ends, title_text=f"{down} → {up} (mm)", scaleanchor=anchor, **plain)
    style_figure(figure, title=title, height=440)
    figure.update_layout(
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.1, "yanchor": "bottom"}, margin={"t": 90}
    )
    return figure


def _dot_errors(
    across: np.ndarray, along: np.ndarray, errors_mm: np.ndarray, limit_mm: float, *, showscale: bool
) -> go.Scatter:
    """Return the error as coloured dots along an outline."""
    known = np.isfinite(errors_mm)
    return go.Scatter(
        x=across[known], y=along[known], mode="markers", showlegend=False, name="error",
        customdata=np.round(errors_mm[known], 2), hovertemplate="%{customdata:+.1f} mm<extra></extra>",
        marker={
            "size": 6, "color": np.round(errors_mm[known], 2), "cmin": -limit_mm, "cmax": limit_mm,
            "colorscale": DIVERGING, "line": {"width": 0.5, "color": "#444444"}, "showscale": showscale,
            "colorbar": {
                "title": {"text": ERROR_TITLE, "side": "right"}, "thickness": 14, "len": 0.9, "ticksuffix": " mm",
            },
        },
    )  # fmt: skip


def find_middle(mask: np.ndarray) -> tuple[int, int, int]:
    """Return the slice (z, y, x) through a mask's median voxel; the middle of an empty one."""
    if not mask.any():
        return tuple(size // 2 for size in mask.shape)
    middle = []
    for axis in range(3):
        counts = mask.sum(axis=tuple(other for other in range(3) if other != axis)).cumsum()
        middle.append(int(np.searchsorted(counts, counts[-1] / 2)))
    return tuple(middle)  # type: ignore[return-value]


def trace_outline(mask: np.ndarray, step_v_mm: float, step_h_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a 2D mask's outlines as one broken line: x and y in mm, NaN between the parts."""
    lines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    if not lines:
        return np.full(1, np.nan), np.full(1, np.nan)
    broken = np.concatenate([part for line in lines for part in (line - 1, np.full((1, 2), np.nan))])
    return np.round(broken[:, 1] * step_h_mm, 2), np.round(broken[:, 0] * step_v_mm, 2)
