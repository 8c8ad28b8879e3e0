"""Error maps on the organs' template surfaces: one figure for every model, organ and attribute."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.framed import Frames, dress_menus, escape, list_menus
from helpers.figures.panels import draw_nothing, is_narrow
from helpers.figures.style import DIVERGING, style_figure
from helpers.figures.surface_geometry import (
    CAMERAS,
    SCENE_ZOOM,
    frame_scene,
    mark_sides,
    outline_region,
    place_camera,
    round_up,
)
from helpers.figures.surface_views import (
    DIFFERENCE,
    OTHERS,
    SIGNED,
    SIGNIFICANCE,
    View,
    add_sentences,
    list_slopes,
    list_views,
    order_views,
)
from helpers.spatial import Template
from helpers.spatial.location import WHOLE_SURFACE
from helpers.vocabulary.words import name_for_people, start_sentence

MISSING_COLOUR = "#8C8C8C"
OUTLINE_COLOUR = "#000000"
# The colour scale ends where this part of a map's places, in percent, is reached.
SCALE_PERCENTILE = 98.0
SENTENCE_COLUMNS = 100
# The traces: coloured triangles, grey ones (no value), the line around what is significant, marks;
# then the same of a second body beside the first.
_SURFACE, _MISSING, _OUTLINE, _MARKS = range(4)
_KINDS = ("mesh3d", "mesh3d", "scatter3d", "scatter3d") * 2
_SECOND, _SCENES = 4, ("scene", "scene2")
_LIGHT = {"ambient": 0.95, "diffuse": 0.2, "specular": 0.02, "roughness": 0.9, "fresnel": 0.0}
_MENU_ROWS = (1.265, 1.165)


def plot_error_maps(
    maps: pd.DataFrame,
    templates: Mapping[str, Template],
    *,
    slopes: pd.DataFrame | None = None,
    groups: pd.DataFrame | None = None,
    places: pd.DataFrame | None = None,
    alpha: float = 0.05,
    first: tuple[str, ...] | None = None,
    every_measure: bool = False,
) -> go.Figure:
    """Draw the organs' template surfaces coloured by signed error, with menus for what is shown.

    Parameters
    ----------
    maps : DataFrame
        Rows of maps.parquet: any number of models, organs and attributes.
    templates : mapping of str to Template
        Of each organ; organs without one are left out.
    slopes : DataFrame, optional
        Rows of slopes.parquet: change of the error with a numeric attribute.
    groups : DataFrame, optional
        Rows of spatial/groups.csv, for the number of people in each group.
    places : DataFrame, optional
        From :func:`helpers.spatial.describe_places`: model, organ, attribute, map, sentence.
    alpha : float
        Places with an adjusted p (``p_fwer``) up to this are outlined.
    first : tuple of str, optional
        Model, organ and attribute shown first, and which map where it is there. When not given,
        those with the largest significant
        difference, else the largest difference.
    every_measure : bool
        Show the size of the error and how often it is beyond the tolerance as well.

    Returns
    -------
    go.Figure
        Works without a kernel. Menus choose what is shown, buttons the side looked from. Each
        group's map is its mean signed error; the difference is that of two groups (adjusted for
        covariates where there are any); in "significance" it is drawn only where it is significant.
        Blue is below zero, red above, on a scale symmetrical about zero in mm; the black line runs
        around the places where the groups' difference (on a slope's map, the slope) is significant,
        unless that is the whole surface; grey is where there is no value. Without any map, a figure
        that says so. Names are escaped here: give the tables as they are.

    Raises
    ------
    ValueError
        Maps do not fit their template.
    """
    views = list_views(maps, templates, groups, alpha, (SIGNED, *(OTHERS if every_measure else ())))
    if slopes is not None:
        views += list_slopes(slopes, templates, alpha)
    views = add_sentences(order_views(views), places)
    if not views:
        return draw_nothing("Where on the organ", "No map: too few subjects per group, or no prediction to compare.")
    limits = _choose_limits(views)
    frames = Frames(_KINDS)
    labels = {view.place: (view.model, *map(name_for_people, view.place[1:3]), view.label) for view in views}
    for view in views:
        menus = list_menus(view.place, labels, ("model", "organ", "attribute", "map"), frames)
        frames.add(
            view.place,
            _colour_bodies(view, limits),
            base=_frame_outline(frames, view, templates[view.organ]),
            layout={"title": {"text": _write_title(view)}, "updatemenus": menus, **_place_bodies(view)},
        )
    start = _choose_first(views, first)
    figure, layout = frames.draw(frames.name(start.place))
    figure.layout.annotations = layout["annotations"]
    figure.layout.updatemenus = [*dress_menus(layout["updatemenus"], _MENU_ROWS), _list_cameras()]
    style_figure(figure, title=layout["title"]["text"], height=700 if is_narrow() else 820)
    scene = {
        "aspectmode": "manual",
        "aspectratio": dict.fromkeys("xyz", SCENE_ZOOM),
        "dragmode": "orbit",
    }
    scene |= {"camera": place_camera(_choose_side(start, templates[start.organ]))}
    scenes = {name: scene | layout[name] for name in _SCENES}
    margin = {"l": 10, "r": 10, "t": 245, "b": 130 if is_narrow() else 60}  # a phone has the scale beneath
    meta = {"head": 235, "foot": 50}  # what title, menus and buttons take
    return figure.update_layout(margin=margin, title={"y": 0.975, "yanchor": "top"}, meta=meta, **scenes)


def _choose_limits(views: Sequence[View]) -> dict[tuple[str, str, str], float]:
    """Return the end of the colour scale (mm) per model, organ and family of maps."""
    largest: dict[tuple[str, str, str], float] = {}
    for view in views:
        key = (view.model, view.organ, view.family)
        size = float(np.nanpercentile(np.abs(view.values_mm), SCALE_PERCENTILE))
        largest[key] = max(largest.get(key, 0.0), size)
    return {key: round_up(size) for key, size in largest.items()}


def _choose_first(views: Sequence[View], first: tuple[str, ...] | None) -> View:
    """Return the view to start with: that asked for, else a difference if there is one."""
    asked = (first or ())[:3], (first or ())
    wanted = next((found for place in reversed(asked) if (found := _list_at(views, place))), list(views))
    differences = [view for view in wanted if view.key == DIFFERENCE]

    def weigh(view: View) -> tuple[bool, float]:
        found = view.significant is not None and bool(view.significant.any())
        where = view.significant if found else np.ones(len(view.values_mm), bool)
        return found, float(np.nanmax(np.abs(view.values_mm[where]), initial=0.0))

    return max(differences, key=weigh) if differences else wanted[0]


def _list_at(views: Sequence[View], place: tuple[str, ...]) -> list[View]:
    return [view for view in views if place and view.place[: len(place)] == place]


def _choose_side(view: View, template: Template) -> str:
    """Return the side from which the significant part, else the largest values, are seen best."""
    sizes = np.abs(np.nan_to_num(view.values_mm, nan=0.0))
    if view.significant is not None and view.significant.any():
        sizes = np.where(view.significant, sizes, 0.0)
    vertices = template.vertices_mm
    outwards = (vertices - vertices.mean(axis=0)) / np.ptp(vertices, axis=0)
    pull = (sizes**2) @ outwards
    return max(CAMERAS, key=lambda side: float(pull @ np.asarray(CAMERAS[side][0])))


def _frame_outline(frames: Frames, view: View, template: Template) -> str:
    """Return the frame under a view: the outline, on the triangles with values, on the organ."""
    triangles = _frame_triangles(frames, view, template)
    region = _choose_region(view, template)
    key = (triangles, b"" if region is None else region.tobytes())
    name = frames.find(key)
    if name is not None:
        return name
    trace: dict[str, Any] = {"visible": region is not None}
    if region is not None:
        trace |= _list_points(outline_region(template.vertices_mm, template.faces, region))
    return frames.add(key, _draw_twice({_OUTLINE: trace}), base=triangles)


def _choose_region(view: View, template: Template) -> np.ndarray | None:
    """Return what a line is drawn around; None where nothing is significant, or all, in words.

    A line around the rest of a surface that is significant all over reads as its opposite.
    """
    if view.significant is None or not view.significant.any():
        return None
    areas = np.where(np.isfinite(view.values_mm), template.areas_mm2, 0.0)
    return None if areas[view.significant].sum() >= WHOLE_SURFACE * areas.sum() else view.significant


def _frame_triangles(frames: Frames, view: View, template: Template) -> str:
    """Return the frame that parts the triangles: with a value at every corner, and grey ones."""
    known = np.isfinite(view.values_mm)
    key = (view.organ, known.tobytes())
    name = frames.find(key)
    if name is not None:
        return name
    organ = _frame_organ(frames, view.organ, template)
    whole = known[template.faces].all(axis=1)
    missing: dict[str, Any] = {"visible": not whole.all()}
    if not whole.all():
        missing |= _index_triangles(template.faces[~whole])
    coloured = _index_triangles(template.faces[whole])
    return frames.add(key, _draw_twice({_SURFACE: coloured, _MISSING: missing}), base=organ)


def _frame_organ(frames: Frames, organ: str, template: Template) -> str:
    """Return the frame of an organ: its vertices, its sides' names, where the axes end."""
    name = frames.find(organ)
    if name is not None:
        return name
    vertices = _list_points(template.vertices_mm)
    points, names = mark_sides(template.vertices_mm)
    traces = {
            _SURFACE: {
                **vertices, "visible": True, "colorscale": DIVERGING, "flatshading": False, "lighting": _LIGHT,
                "colorbar": {"thickness": 16, "len": 0.8, "title": {"side": "right"}},
            },
            _MISSING: {
                **vertices, "color": MISSING_COLOUR, "lighting": _LIGHT,
                "hovertemplate": "no value here<extra></extra>",
            },
            _OUTLINE: {
                "mode": "lines", "line": {"color": OUTLINE_COLOUR, "width": 6}, "hoverinfo": "skip",
                "showlegend": False,
            },
            _MARKS: {
                "mode": "text", "text": [f"<b>{name}</b>" for name in names], "textposition": "middle center",
                "textfont": {"size": 17, "color": "#222222"}, "hoverinfo": "skip", "showlegend": False,
                "visible": True, **_list_points(points),
            },
    }  # fmt: skip
    scene = frame_scene(template.vertices_mm)
    return frames.add(organ, _draw_twice(traces), layout={"scene": scene, "scene2": scene})


def _draw_twice(traces: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return traces for the first body and the second one."""
    return {**traces, **{place + _SECOND: {**trace, "scene": "scene2"} for place, trace in traces.items()}}


def _list_points(points_mm: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip("xyz", np.round(points_mm, 1).astype(np.float32).T, strict=True))


def _index_triangles(faces: np.ndarray) -> dict[str, np.ndarray]:
    kind = np.uint16 if faces.max(initial=0) < 2**16 else np.uint32
    return dict(zip("ijk", faces.astype(kind).T, strict=True))


def _colour_bodies(view: View, limits: Mapping[tuple[str, str, str], float]) -> dict[int, dict[str, Any]]:
    """Return what a view changes: the colours of one body, or of two."""
    first = _colour_surface(view, limits)
    if view.beside_mm is None:
        return {_SURFACE: first, **{place + _SECOND: {"visible": False} for place in range(_SECOND)}}
    second = _colour_surface(replace(view, values_mm=view.beside_mm), limits)
    return {_SURFACE: first, _SURFACE + _SECOND: {**second, "showscale": False}}


def _place_bodies(view: View) -> dict[str, Any]:
    """Return where bodies stand, whose they are, and that nothing is significant where so."""
    two = view.beside_mm is not None
    silent = view.key == SIGNIFICANCE and view.significant is not None and not view.significant.any()
    marks = [(view.groups[0], 0.24, two), (view.groups[1], 0.76, two), ("nothing significant", 0.5, silent)]
    look = {"xref": "paper", "yref": "paper", "y": 1.0, "yanchor": "top", "showarrow": False, "font": {"size": 13}}
    return {
        "scene": {"domain": {"x": [0.0, 0.49 if two else 1.0]}},
        "scene2": {"domain": {"x": [0.51 if two else 0.99, 1.0]}},
        "annotations": [
            {"text": f"<b>{escape(text)}</b>", "x": x, "visible": shown, **look} for text, x, shown in marks
        ],
    }


def _colour_surface(view: View, limits: Mapping[tuple[str, str, str], float]) -> dict[str, Any]:
    """Return what a view changes on the surface: values, hover and scale."""
    limit = limits[view.model, view.organ, view.family]
    trace: dict[str, Any] = {"intensity": _shorten(view.values_mm), "cmin": -limit, "cmax": limit}
    trace |= {
        "colorbar": {"title": {"text": escape(view.scale)}, "ticksuffix": f" {view.unit}"},
        "hovertemplate": f"{view.hover}<extra></extra>",
    }
    if view.details is not None:
        told = [_shorten(view.details[:, 0]), np.round(view.details[:, 1], 4)]
        trace["customdata"] = np.column_stack(told).astype(np.float32)
    return trace


def _shorten(values_mm: np.ndarray) -> np.ndarray:
    """Return values to 0.001 mm; places without one, which no triangle touches, become 0."""
    return np.round(np.nan_to_num(values_mm, nan=0.0), 3).astype(np.float32)


def _write_title(view: View) -> str:
    """Return title, what is drawn, and the sentence about where it lies."""
    organ, attribute = start_sentence(name_for_people(view.organ)), name_for_people(view.attribute)
    top = f"{organ}, drawn by {view.model}, by {attribute}"
    heading = f"{view.heading}." if view.sentence else view.heading
    lines = textwrap.wrap(heading, SENTENCE_COLUMNS) + textwrap.wrap(view.sentence, SENTENCE_COLUMNS)
    below = "<br>".join(escape(line) for line in lines)
    return f"{escape(top)}<br><span style='font-size:13px'>{below}</span>"


def _list_cameras() -> dict[str, Any]:
    return {
        "type": "buttons", "direction": "right", "showactive": False, "bgcolor": "#FFFFFF",
        "buttons": [
            {"label": side, "method": "relayout", "args": [{f"{name}.camera": place_camera(side) for name in _SCENES}]}
            for side in CAMERAS
        ],
        "x": 0.0, "xanchor": "left", "y": -0.02, "yanchor": "top",
    }  # fmt: skip
