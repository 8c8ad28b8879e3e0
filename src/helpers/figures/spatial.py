"""Error maps on an organ's surface, and slices with outlines."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots
from skimage.measure import find_contours

from helpers.figures.style import DIVERGING, name_for_people, style_figure

MISSING_COLOUR = "#8C8C8C"
REFERENCE_COLOUR = "#009E73"
PREDICTION_COLOUR = "#D55E00"
ERROR_TITLE = "mm (+ too large, − too small)"
# Seen from each side; the template's axes are x to the person's left, y posterior, z superior.
CAMERAS = {
    "Anterior": ((0, -1, 0), (0, 0, 1)),
    "Posterior": ((0, 1, 0), (0, 0, 1)),
    "Right": ((-1, 0, 0), (0, 0, 1)),
    "Left": ((1, 0, 0), (0, 0, 1)),
    "Superior": ((0, 0, 1), (0, -1, 0)),
    "Inferior": ((0, 0, -1), (0, -1, 0)),
}
SCENE_ZOOM = 1.75
# From the organ to its R, L, A, P, S, I marks, as a part of its length.
MARK_GAP = 0.1


def plot_error_surface(
    vertices_mm: np.ndarray,
    faces: np.ndarray,
    maps: pd.DataFrame,
    *,
    groups: pd.DataFrame | None = None,
    title: str = "Signed error on the surface",
    limit_mm: float | None = None,
    start: str = "difference",
) -> go.Figure:
    """Draw an organ's template surface coloured by mean signed error, with a control for the map shown.

    Parameters
    ----------
    vertices_mm : ndarray, (n, 3)
        Template vertices, LPS mm.
    faces : ndarray of int, (m, 3)
    maps : DataFrame
        Rows of maps.parquet of one model and one organ: any number of attributes.
    groups : DataFrame, optional
        Rows of spatial/groups.csv of the same model and organ, for the number of subjects.
    title : str
    limit_mm : float, optional
        The colour scale's end on both sides; the largest size of any map, rounded up, when not given.
    start : {"difference", "groups"}
        Which kind of map is shown first.

    Returns
    -------
    go.Figure
        Works without a kernel: a menu chooses attribute and map, buttons the side looked from. Grey is
        where there is no value. A table without rows gives a figure that says so.

    Raises
    ------
    ValueError
        `maps` holds several models or organs, or does not fit the vertices.
    """
    for column in ("model", "organ"):
        found = sorted(set(maps[column]))
        if len(found) > 1:
            raise ValueError(f"maps must hold one {column}; got {', '.join(found)}")
    views = _list_views(maps, groups, len(vertices_mm))
    if not views:
        return _say_nothing_to_show(title)
    if limit_mm is None:
        limit_mm = _round_up(max(float(np.nanmax(np.abs(values))) for _, _, values in views))
    first = next((place for place, view in enumerate(views) if view[1] == start), 0)
    x, y, z = np.round(vertices_mm.T, 1)
    i, j, k = faces.T
    figure = go.Figure(
        [
            go.Mesh3d(
                x=x, y=y, z=z, i=i, j=j, k=k,
                vertexcolor=_colour(views[first][2], limit_mm), text=_label(views[first][2]),
                hovertemplate="%{text}<extra></extra>", flatshading=False, name="error",
                lighting={"ambient": 0.95, "diffuse": 0.2, "specular": 0.02, "roughness": 0.9, "fresnel": 0.0},
            ),
            go.Scatter3d(  # carries the colour bar: a mesh coloured per vertex has none
                x=[x[0]] * 2, y=[y[0]] * 2, z=[z[0]] * 2, mode="markers", hoverinfo="skip", showlegend=False,
                marker={
                    "size": 0.1, "opacity": 0, "color": [-limit_mm, limit_mm], "cmin": -limit_mm, "cmax": limit_mm, "colorscale": DIVERGING,
                    "showscale": True,
                    "colorbar": {"title": {"text": ERROR_TITLE, "side": "right"}, "thickness": 16, "len": 0.8, "ticksuffix": " mm"},
                },
            ),
            _mark_axes(vertices_mm),
        ]
    )  # fmt: skip
    menu = [
        {
            "label": label,
            "method": "update",
            "args": [
                {"vertexcolor": [_colour(values, limit_mm)], "text": [_label(values)]},
                {"title.text": _title(title, label)},
                [0],
            ],
        }
        for label, _, values in views
    ]
    style_figure(figure, title=_title(title, views[first][0]), height=620)
    low, high = vertices_mm.min(axis=0), vertices_mm.max(axis=0)
    half = (0.5 + 1.4 * MARK_GAP) * float((high - low).max())
    axes = {
        f"{name}axis": {"visible": False, "range": [middle - half, middle + half]}
        for name, middle in zip("xyz", (low + high) / 2, strict=True)
    }
    figure.update_layout(
        margin={"l": 10, "r": 10, "t": 150, "b": 10},
        title={"y": 0.965, "yanchor": "top"},
        scene={
            **axes, "aspectmode": "manual", "aspectratio": dict.fromkeys("xyz", SCENE_ZOOM),
            "camera": _camera("Anterior"), "dragmode": "orbit",
        },
        updatemenus=[
            {
                "buttons": menu, "active": first, "direction": "down", "showactive": True,
                "x": 0.0, "xanchor": "left", "y": 1.12, "yanchor": "bottom",
                "bgcolor": "#FFFFFF",
            },
            {
                "type": "buttons", "direction": "right", "showactive": False,
                "buttons": [
                    {"label": side, "method": "relayout", "args": [{"scene.camera": _camera(side)}]}
                    for side in CAMERAS
                ],
                "x": 0.0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "bgcolor": "#FFFFFF",
            },
        ],
    )  # fmt: skip
    return figure


def plot_slices(
    reference: np.ndarray,
    prediction: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
    *,
    image: np.ndarray | None = None,
    centre: tuple[int, int, int] | None = None,
    title: str = "",
) -> go.Figure:
    """Draw an axial, a coronal and a sagittal slice with the outlines of reference and prediction.

    Parameters
    ----------
    reference, prediction : ndarray of bool, (z, y, x)
        One organ, in axial order (:func:`helpers.volumes.to_axial`); prediction None when there is none.
    spacing_mm : tuple of float
        (z, y, x).
    image : ndarray of uint8, (z, y, x), optional
        Windowed grey values on the same grid; blank without.
    centre : tuple of int, optional
        Which slices (z, y, x); through the reference's middle when not given.
    title : str

    Returns
    -------
    go.Figure
        Seen as radiologists do: the person's right on the left of the axial and coronal slice. Solid line: reference; dashed:
        prediction.
    """
    if centre is None:
        centre = find_middle(reference if reference.any() or prediction is None else prediction)
    planes = (("Axial", 0, "A", "P"), ("Coronal", 1, "S", "I"), ("Sagittal", 2, "S", "I"))
    sizes = np.asarray(reference.shape) * np.asarray(spacing_mm)
    figure = make_subplots(
        cols=3,
        subplot_titles=[name for name, *_ in planes],
        column_widths=[sizes[2], sizes[2], sizes[1]],
        horizontal_spacing=0.07,
    )
    for column, (name, axis, up, down) in enumerate(planes, start=1):
        rows, columns = (other for other in range(3) if other != axis)
        step_v, step_h = spacing_mm[rows], spacing_mm[columns]
        if image is not None:
            grey = np.take(image, centre[axis], axis=axis).astype(np.uint8)
            figure.add_trace(
                go.Heatmap(
                    z=grey, x0=0, dx=step_h, y0=0, dy=step_v, zmin=0, zmax=255, colorscale="gray", showscale=False,
                    hoverinfo="skip",
                ),
                row=1, col=column,
            )  # fmt: skip
        outlines = (
            ("reference", reference, REFERENCE_COLOUR, "solid"),
            ("prediction", prediction, PREDICTION_COLOUR, "dash"),
        )
        for label, mask, colour, dash in outlines:
            if mask is None:
                continue
            across, along = trace_outline(np.take(mask, centre[axis], axis=axis), step_v, step_h)
            figure.add_trace(
                go.Scatter(
                    x=across, y=along, mode="lines", line={"color": colour, "dash": dash, "width": 2.5}, name=label,
                    legendgroup=label, showlegend=column == 1, hoverinfo="skip",
                ),
                row=1, col=column,
            )  # fmt: skip
        sides = ("A", "P") if name == "Sagittal" else ("R", "L")
        extent_h, extent_v = step_h * (reference.shape[columns] - 1), step_v * (reference.shape[rows] - 1)
        ends = {"range": [extent_v, 0]} if name == "Axial" else {"range": [0, extent_v]}
        figure.update_xaxes(
            range=[0, extent_h], title_text=f"{sides[0]} → {sides[1]} (mm)", constrain="domain", row=1, col=column
        )
        figure.update_yaxes(
            **ends, title_text=f"{down} → {up} (mm)", scaleanchor=f"x{'' if column == 1 else column}", constrain="domain",
            row=1, col=column,
        )  # fmt: skip
    style_figure(figure, title=title, height=440)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_layout(
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.1, "yanchor": "bottom"}, margin={"t": 90}
    )
    return figure


def find_middle(mask: np.ndarray) -> tuple[int, int, int]:
    """Return the slice (z, y, x) through a mask's median voxel; the array's middle when it is empty."""
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


def _list_views(maps: pd.DataFrame, groups: pd.DataFrame | None, vertices: int) -> list[tuple[str, str, np.ndarray]]:
    """Return (label, kind, values) of every map that has a value, attribute by attribute."""
    views = []
    for attribute, rows in maps.groupby("attribute", sort=False):
        if len(rows) != vertices:
            raise ValueError(f"maps has {len(rows)} vertices for {attribute}, the surface has {vertices}")
        rows = rows.sort_values("vertex")
        counts = {}
        if groups is not None:
            of_attribute = groups[groups["attribute"] == attribute]
            counts = dict(zip(of_attribute["group"], of_attribute["n"], strict=True))
        words = name_for_people(str(attribute))

        def name(group: str, counts: dict[str, int] = counts) -> str:
            return f"{group} (n = {counts[group]})" if group in counts else group

        a, b = rows["group_a"].iloc[0], rows["group_b"].iloc[0]
        values = rows["difference"].to_numpy(float)
        if isinstance(a, str) and isinstance(b, str) and np.isfinite(values).any():
            views.append((f"{words}: {name(a)} − {name(b)}; above 0: further out in {a}", "difference", values))
        for column in (column for column in rows if str(column).startswith("error_")):
            values = rows[column].to_numpy(float)
            if np.isfinite(values).any():
                views.append((f"{words}: {name(column.removeprefix('error_'))}", "groups", values))
    return views


def _colour(values: np.ndarray, limit_mm: float) -> list[str]:
    """Return a hex colour per vertex."""
    fine = sample_colorscale(DIVERGING, np.linspace(0, 1, 101), colortype="tuple")
    table = [f"#{''.join(f'{round(255 * part):02x}' for part in colour)}" for colour in fine]
    steps = np.clip(np.nan_to_num(values, nan=0.0) / limit_mm, -1, 1)
    places = np.rint(50 * (steps + 1)).astype(int)
    return [table[place] if known else MISSING_COLOUR for place, known in zip(places, np.isfinite(values), strict=True)]


def _label(values: np.ndarray) -> list[str]:
    """Return the hover text of each vertex."""
    return [f"{value:+.2f} mm".replace("-", "−") if np.isfinite(value) else "no value" for value in values]


def _mark_axes(vertices_mm: np.ndarray) -> go.Scatter3d:
    """Return R/L, A/P and I/S at the ends of three lines through the organ's middle."""
    low, high = vertices_mm.min(axis=0), vertices_mm.max(axis=0)
    middle = (low + high) / 2
    gap = MARK_GAP * float((high - low).max())
    points, texts = [], []
    for axis, names in enumerate(("RL", "AP", "IS")):
        for name, end in zip(names, (low[axis] - gap, high[axis] + gap), strict=True):
            point = middle.copy()
            point[axis] = end
            points.append(point)
            texts.append(f"<b>{name}</b>")
    x, y, z = np.round(np.asarray(points).T, 1)
    return go.Scatter3d(
        x=x, y=y, z=z, mode="text", text=texts, textposition="middle center", textfont={"size": 17, "color": "#222222"}, hoverinfo="skip", showlegend=False
    )  # fmt: skip


def _camera(side: str) -> dict[str, dict[str, object]]:
    towards, up = CAMERAS[side]
    return {
        "eye": dict(zip("xyz", (2.0 * part for part in towards), strict=True)),
        "up": dict(zip("xyz", map(float, up), strict=True)),
        "center": {"x": 0.0, "y": 0.0, "z": 0.0},
        "projection": {"type": "orthographic"},
    }


def _title(title: str, label: str) -> str:
    return f"{html.escape(title)}<br><span style='font-size:13px'>{html.escape(label)}</span>"


def _round_up(value: float) -> float:
    """Return the next of 0.25, 0.5, 1, 1.5, 2, 3, 4, 5 … mm."""
    steps: Sequence[float] = (0.25, 0.5, 1.0, 1.5, 2.0)
    return next((step for step in steps if value <= step), float(np.ceil(value)))


def _say_nothing_to_show(title: str) -> go.Figure:
    figure = style_figure(go.Figure(), title=title, height=240)
    figure.add_annotation(
        text="No map: too few subjects per group, or no prediction to compare.", showarrow=False, xref="paper", yref="paper",
        x=0.5, y=0.5,
    )  # fmt: skip
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure
