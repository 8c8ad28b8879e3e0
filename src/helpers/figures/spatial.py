"""Error maps on the organs' template surfaces: one figure for every model, organ, attribute and map."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.framed import Frames, Place, dress_menus, escape, list_menus
from helpers.figures.style import DIVERGING, name_for_people, style_figure
from helpers.figures.surface_geometry import (
    CAMERAS,
    SCENE_ZOOM,
    frame_scene,
    mark_sides,
    outline_region,
    place_camera,
    round_up,
)

MISSING_COLOUR = "#8C8C8C"
OUTLINE_COLOUR = "#000000"
# The colour scale ends where this part of a map's places, in percent, is reached; a spike does not pale the rest.
SCALE_PERCENTILE = 98.0
SENTENCE_COLUMNS = 100
DIFFERENCE, SIGNIFICANCE, SLOPE = "difference", "significance", "slope"
# The figure's traces: coloured triangles, grey ones (no value), the line around what is significant, side marks.
_SURFACE, _MISSING, _OUTLINE, _MARKS = range(4)
_KINDS = ("mesh3d", "mesh3d", "scatter3d", "scatter3d")
_LIGHT = {"ambient": 0.95, "diffuse": 0.2, "specular": 0.02, "roughness": 0.9, "fresnel": 0.0}
_MENU_ROWS = (1.265, 1.165)


class TemplateSurface(Protocol):
    """What a template must offer: :class:`helpers.spatial.Template` does."""

    @property
    def vertices_mm(self) -> np.ndarray:
        """Vertices (n, 3), LPS mm."""

    @property
    def faces(self) -> np.ndarray:
        """Triangles (m, 3) of vertex numbers."""


@dataclass(frozen=True)
class _View:
    """One map on one surface, and what is said about it."""

    model: str
    organ: str
    attribute: str
    key: str
    label: str
    heading: str
    scale: str
    values_mm: np.ndarray
    hover: str
    family: str
    details: np.ndarray | None = None
    significant: np.ndarray | None = None
    sentence: str = ""

    @property
    def place(self) -> Place:
        return self.model, self.organ, self.attribute, self.key


def plot_error_maps(
    maps: pd.DataFrame,
    templates: Mapping[str, TemplateSurface],
    *,
    slopes: pd.DataFrame | None = None,
    groups: pd.DataFrame | None = None,
    places: pd.DataFrame | None = None,
    alpha: float = 0.05,
    first: tuple[str, str, str] | None = None,
    title: str = "Where on the organ",
) -> go.Figure:
    """Draw the organs' template surfaces coloured by signed error, with menus for model, organ, attribute and map.

    Parameters
    ----------
    maps : DataFrame
        Rows of maps.parquet: any number of models, organs and attributes.
    templates : mapping of str to template
        Vertices (LPS mm) and triangles of each organ; organs without one are left out.
    slopes : DataFrame, optional
        Rows of slopes.parquet: change of the error with a numeric attribute.
    groups : DataFrame, optional
        Rows of spatial/groups.csv, for the number of people in each group.
    places : DataFrame, optional
        From :func:`helpers.spatial.describe_places`: model, organ, attribute, map, sentence.
    alpha : float
        Places with a corrected p (``p_fwer``) up to this are outlined.
    first : tuple of str, optional
        Model, organ and attribute shown first. When not given, those with the largest significant
        difference, else the largest difference.
    title : str
        Of the figure when there is nothing to draw.

    Returns
    -------
    go.Figure
        Works without a kernel. Menus choose what is shown, buttons the side looked from. Each group's map is its
        mean signed error; the difference is that of two groups (with covariates held equal where there are any); in
        "significance" it is drawn only where it is significant. Blue is below zero, red above, on a scale symmetrical
        about zero in mm; the black line runs around the places where the groups' difference (on a slope's map, the slope)
        is significant; grey is where there is no value. Without any map, a figure that says so.

        Every map is a frame that the menus show; frames share what they have in common. Names are escaped
        here: give the tables as they are.

    Raises
    ------
    ValueError
        Maps do not fit their template.
    """
    views = _list_views(maps, templates, groups, alpha)
    if slopes is not None:
        views += _list_slopes(slopes, templates, alpha)
    views = _add_sentences(_order_views(views), places)
    if not views:
        return _say_nothing_to_show(title)
    limits = _choose_limits(views)
    frames = Frames(_KINDS)
    labels = {view.place: (view.model, *map(name_for_people, view.place[1:3]), view.label) for view in views}
    for view in views:
        menus = list_menus(view.place, labels, ("model", "organ", "attribute", "map"), frames)
        frames.add(
            view.place,
            {_SURFACE: _colour_surface(view, limits)},
            base=_frame_outline(frames, view, templates[view.organ]),
            layout={"title": {"text": _write_title(view)}, "updatemenus": menus},
        )
    start = _choose_first(views, first)
    figure, layout = frames.draw(frames.name(start.place))
    figure.layout.updatemenus = [*dress_menus(layout["updatemenus"], _MENU_ROWS), _list_cameras()]
    style_figure(figure, title=layout["title"]["text"], height=820)
    figure.update_layout(
        margin={"l": 10, "r": 10, "t": 245, "b": 60},
        title={"y": 0.975, "yanchor": "top"},
        scene={
            **layout["scene"],
            "aspectmode": "manual",
            "aspectratio": dict.fromkeys("xyz", SCENE_ZOOM),
            "camera": place_camera(_choose_side(start, templates[start.organ])),
            "dragmode": "orbit",
        },
    )
    return figure


def _list_views(
    maps: pd.DataFrame, templates: Mapping[str, TemplateSurface], groups: pd.DataFrame | None, alpha: float
) -> list[_View]:
    """Return the groups' maps, the difference and what of it is significant, wherever there is a value."""
    views = []
    for (model, organ, attribute), rows in maps.groupby(["model", "organ", "attribute"], sort=False, observed=True):
        if organ not in templates:
            continue
        rows = _sort_vertices(rows, templates[organ])
        counts = _count_people(groups, model, organ, attribute)
        words = (str(model), str(organ), str(attribute))
        significant = _find_significant(rows, alpha)
        for column in (str(column) for column in rows if str(column).startswith("error_")):
            values = rows[column].to_numpy(float)
            if np.isfinite(values).any():
                group = column.removeprefix("error_")
                named = _name_group(group, counts)
                views.append(
                    _View(
                        *words, group, named, f"{named}: mean signed error", "mm: + too large, − too small", values,
                        "%{intensity:+.2f} mm", "error", significant=significant,
                    )
                )  # fmt: skip
        a, b = rows["group_a"].iloc[0], rows["group_b"].iloc[0]
        values, adjusted = _choose_difference(rows)
        if not (isinstance(a, str) and isinstance(b, str) and np.isfinite(values).any()):
            continue
        pair = f"“{a}” minus “{b}”"
        held = ", other characteristics held equal" if adjusted else ""
        heading = f"{_name_group(a, counts)} minus {_name_group(b, counts)}, mean signed error{held}"
        scale = f"mm: + larger in “{a}”, − larger in “{b}”"
        p = _read_p(rows)
        details = np.column_stack([values, p])
        hover = "%{customdata[0]:+.2f} mm"
        if np.isfinite(p).any():
            hover += "<br>p = %{customdata[1]:.3f}, corrected for the whole surface"
        views.append(
            _View(*words, DIFFERENCE, f"difference: {pair}", heading, scale, values, hover, "contrast", details, significant)
        )  # fmt: skip
        if significant is not None:
            shown = np.where(np.isfinite(values), np.where(significant, values, 0.0), np.nan)
            about = f"{pair}, where it is significant (p ≤ {alpha:g}, corrected for the whole surface)"
            if not significant.any():
                about = f"{pair}: no place is significant (p ≤ {alpha:g}, corrected for the whole surface)"
            views.append(
                _View(*words, SIGNIFICANCE, f"significance: {pair}", about, scale, shown, hover, "contrast", details, significant)
            )  # fmt: skip
    return views


def _list_slopes(slopes: pd.DataFrame, templates: Mapping[str, TemplateSurface], alpha: float) -> list[_View]:
    views = []
    for (model, organ, attribute), rows in slopes.groupby(["model", "organ", "attribute"], sort=False, observed=True):
        if organ not in templates:
            continue
        rows = _sort_vertices(rows, templates[organ])
        values = rows["slope"].to_numpy(float)
        if not np.isfinite(values).any():
            continue
        step = f"{rows['step'].iloc[0]:g} {rows['unit'].iloc[0]}".strip()
        p = _read_p(rows)
        hover = f"%{{customdata[0]:+.2f}} mm per {escape(step)}"
        if np.isfinite(p).any():
            hover += "<br>p = %{customdata[1]:.3f}, corrected for the whole surface"
        views.append(
            _View(
                str(model), str(organ), str(attribute), SLOPE, f"slope: per {step}",
                f"change of the signed error with every {step} of {name_for_people(str(attribute))}, other characteristics held equal",
                f"mm per {step}: + outwards, − inwards", values, hover, "slope", np.column_stack([values, p]),
                _find_significant(rows, alpha),
            )
        )  # fmt: skip
    return views


def _sort_vertices(rows: pd.DataFrame, template: TemplateSurface) -> pd.DataFrame:
    if len(rows) != len(template.vertices_mm):
        model, organ, attribute = rows[["model", "organ", "attribute"]].iloc[0]
        raise ValueError(
            f"maps of {model}, {organ}, {attribute} have {len(rows)} vertices, the template has {len(template.vertices_mm)}"
        )
    return rows.sort_values("vertex")


def _count_people(groups: pd.DataFrame | None, model: str, organ: str, attribute: str) -> dict[str, int]:
    if groups is None or groups.empty:
        return {}
    here = (groups["model"] == model) & (groups["organ"] == organ) & (groups["attribute"] == attribute)
    known = groups[here & groups["n"].notna()]
    return dict(zip(known["group"].astype(str), known["n"].astype(int), strict=True))


def _name_group(group: str, counts: Mapping[str, int]) -> str:
    return f"“{group}” (n = {counts[group]})" if group in counts else f"“{group}”"


def _choose_difference(rows: pd.DataFrame) -> tuple[np.ndarray, bool]:
    """Return the difference that was tested, and whether covariates were held equal in it."""
    plain = rows["difference"].to_numpy(float)
    if "adjusted_difference" not in rows:
        return plain, False
    adjusted = rows["adjusted_difference"].to_numpy(float)
    if not np.isfinite(adjusted).any():
        return plain, False
    return adjusted, not np.allclose(adjusted, plain, atol=5e-4, equal_nan=True)


def _read_p(rows: pd.DataFrame) -> np.ndarray:
    return rows["p_fwer"].to_numpy(float) if "p_fwer" in rows else np.full(len(rows), np.nan)


def _find_significant(rows: pd.DataFrame, alpha: float) -> np.ndarray | None:
    """Return where p is up to `alpha`; None where nothing was tested."""
    p = _read_p(rows)
    return np.nan_to_num(p, nan=1.0) <= alpha if np.isfinite(p).any() else None


def _order_views(views: Sequence[_View]) -> list[_View]:
    """Bring views of one model, organ and attribute together, differences first, in order of appearance."""
    order: dict[Place, list[_View]] = {}
    for view in views:
        order.setdefault(view.place[:3], []).append(view)
    ranks = {DIFFERENCE: 0, SIGNIFICANCE: 1, SLOPE: 3}
    return [view for part in order.values() for view in sorted(part, key=lambda view: ranks.get(view.key, 2))]


def _add_sentences(views: Sequence[_View], places: pd.DataFrame | None) -> list[_View]:
    if places is None or places.empty:
        return list(views)
    columns = places[["model", "organ", "attribute", "map"]].astype(str).itertuples(index=False, name=None)
    said = dict(zip(columns, places["sentence"], strict=True))
    return [
        _View(**{**view.__dict__, "sentence": said.get((*view.place[:3], DIFFERENCE if view.key == SIGNIFICANCE else view.key), "")})
        for view in views
    ]  # fmt: skip


def _choose_limits(views: Sequence[_View]) -> dict[tuple[str, str, str], float]:
    """Return the end of the colour scale (mm) per model, organ and family of maps."""
    largest: dict[tuple[str, str, str], float] = {}
    for view in views:
        key = (view.model, view.organ, view.family)
        size = float(np.nanpercentile(np.abs(view.values_mm), SCALE_PERCENTILE))
        largest[key] = max(largest.get(key, 0.0), size)
    return {key: round_up(size) for key, size in largest.items()}


def _choose_first(views: Sequence[_View], first: tuple[str, str, str] | None) -> _View:
    """Return the view to start with: a difference if there is one."""
    wanted = [view for view in views if view.place[:3] == first] or list(views)
    differences = [view for view in wanted if view.key == DIFFERENCE]

    def weigh(view: _View) -> tuple[bool, float]:
        found = view.significant is not None and bool(view.significant.any())
        where = view.significant if found else np.ones(len(view.values_mm), bool)
        return found, float(np.nanmax(np.abs(view.values_mm[where]), initial=0.0))

    return max(differences, key=weigh) if differences else wanted[0]


def _choose_side(view: _View, template: TemplateSurface) -> str:
    """Return the side from which the view's significant part, else its largest values, are seen best."""
    sizes = np.abs(np.nan_to_num(view.values_mm, nan=0.0))
    if view.significant is not None and view.significant.any():
        sizes = np.where(view.significant, sizes, 0.0)
    vertices = template.vertices_mm
    outwards = (vertices - vertices.mean(axis=0)) / np.ptp(vertices, axis=0)
    pull = (sizes**2) @ outwards
    return max(CAMERAS, key=lambda side: float(pull @ np.asarray(CAMERAS[side][0])))


def _frame_outline(frames: Frames, view: _View, template: TemplateSurface) -> str:
    """Return the frame under a view: the outline, on the triangles that have values, on the organ."""
    triangles = _frame_triangles(frames, view, template)
    region = view.significant if view.significant is not None and view.significant.any() else None
    key = (triangles, b"" if region is None else region.tobytes())
    name = frames.find(key)
    if name is not None:
        return name
    if region is None:
        trace: dict[str, Any] = {"visible": False}
    else:
        points = outline_region(template.vertices_mm, template.faces, region)
        trace = {"visible": True} | dict(zip("xyz", np.round(points, 1).astype(np.float32).T, strict=True))
    return frames.add(key, {_OUTLINE: trace}, base=triangles)


def _frame_triangles(frames: Frames, view: _View, template: TemplateSurface) -> str:
    """Return the frame that parts the organ's triangles: with a value at every corner, and grey ones."""
    known = np.isfinite(view.values_mm)
    key = (view.organ, known.tobytes())
    name = frames.find(key)
    if name is not None:
        return name
    organ = _frame_organ(frames, view.organ, template)
    whole = known[template.faces].all(axis=1)
    if whole.all():
        missing: dict[str, Any] = {"visible": False}
    else:
        missing = {"visible": True, **_index_triangles(template.faces[~whole])}
    return frames.add(key, {_SURFACE: _index_triangles(template.faces[whole]), _MISSING: missing}, base=organ)


def _frame_organ(frames: Frames, organ: str, template: TemplateSurface) -> str:
    """Return the frame of an organ: its vertices, its sides' names, where the axes end."""
    name = frames.find(organ)
    if name is not None:
        return name
    vertices = dict(zip("xyz", np.round(template.vertices_mm, 1).astype(np.float32).T, strict=True))
    points, names = mark_sides(template.vertices_mm)
    return frames.add(
        organ,
        {
            _SURFACE: {
                **vertices, "colorscale": DIVERGING, "flatshading": False, "lighting": _LIGHT,
                "colorbar": {"thickness": 16, "len": 0.8, "ticksuffix": " mm", "title": {"side": "right"}},
            },
            _MISSING: {
                **vertices, "color": MISSING_COLOUR, "lighting": _LIGHT, "hovertemplate": "no value here<extra></extra>",
            },
            _OUTLINE: {
                "mode": "lines", "line": {"color": OUTLINE_COLOUR, "width": 6}, "hoverinfo": "skip", "showlegend": False,
            },
            _MARKS: {
                "mode": "text", "text": [f"<b>{name}</b>" for name in names], "textposition": "middle center",
                "textfont": {"size": 17, "color": "#222222"}, "hoverinfo": "skip", "showlegend": False,
                **dict(zip("xyz", np.round(points, 1).astype(np.float32).T, strict=True)),
            },
        },
        layout={"scene": frame_scene(template.vertices_mm)},
    )  # fmt: skip


def _index_triangles(faces: np.ndarray) -> dict[str, np.ndarray]:
    kind = np.uint16 if faces.max(initial=0) < 2**16 else np.uint32
    return dict(zip("ijk", faces.astype(kind).T, strict=True))


def _colour_surface(view: _View, limits: Mapping[tuple[str, str, str], float]) -> dict[str, Any]:
    """Return what a view changes on the surface: values, hover and scale."""
    limit = limits[view.model, view.organ, view.family]
    trace: dict[str, Any] = {
        "intensity": _shorten(view.values_mm),
        "cmin": -limit,
        "cmax": limit,
        "colorbar": {"title": {"text": escape(view.scale)}},
        "hovertemplate": f"{view.hover}<extra></extra>",
    }
    if view.details is not None:
        trace["customdata"] = np.column_stack([_shorten(view.details[:, 0]), np.round(view.details[:, 1], 4)]).astype(
            np.float32
        )
    return trace


def _shorten(values_mm: np.ndarray) -> np.ndarray:
    """Return values to 0.001 mm; places without one, which no coloured triangle touches, become 0."""
    return np.round(np.nan_to_num(values_mm, nan=0.0), 3).astype(np.float32)


def _write_title(view: _View) -> str:
    """Return title, what is drawn, and the sentence about where it lies."""
    organ = name_for_people(view.organ)
    top = f"{organ[:1].upper()}{organ[1:]}, drawn by {view.model}, by {name_for_people(view.attribute)}"
    lines = textwrap.wrap(view.heading, SENTENCE_COLUMNS) + textwrap.wrap(view.sentence, SENTENCE_COLUMNS)
    below = "<br>".join(escape(line) for line in lines)
    return f"{escape(top)}<br><span style='font-size:13px'>{below}</span>"


def _list_cameras() -> dict[str, Any]:
    return {
        "type": "buttons", "direction": "right", "showactive": False, "bgcolor": "#FFFFFF",
        "buttons": [
            {"label": side, "method": "relayout", "args": [{"scene.camera": place_camera(side)}]} for side in CAMERAS
        ],
        "x": 0.0, "xanchor": "left", "y": -0.02, "yanchor": "top",
    }  # fmt: skip


def _say_nothing_to_show(title: str) -> go.Figure:
    figure = style_figure(go.Figure(), title=escape(title), height=240)
    figure.add_annotation(
        text="No map: too few subjects per group, or no prediction to compare.", showarrow=False, xref="paper", yref="paper",
        x=0.5, y=0.5,
    )  # fmt: skip
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure
