"""How often people's masks are wrong inside and around an organ: slices through the volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.framed import Frames, Place, dress_menus, escape, list_menus
from helpers.figures.panels import draw_nothing
from helpers.figures.slices import SIDES, trace_outline
from helpers.figures.style import style_figure
from helpers.spatial import FrequencySlices
from helpers.vocabulary.words import name_for_people, start_sentence

# Missed is blue as "too small" is on the surface maps, added is red as "too large".
ROWS = (("false_negative", "missed", "#2166AC"), ("false_positive", "added", "#B2182B"))
OUTLINE_COLOUR = "#222222"
_DIRECTIONS = (("above", "below"), ("behind", "in front of"), ("to the left of", "to the right of"))
_NUMBERS = ("", "2", "3", "4", "5", "6")  # the slices' axes, as plotly counts them
_EVERYBODY = "everybody"


def plot_frequency_slices(slices: Sequence[FrequencySlices]) -> go.Figure:
    """Draw in how many people a model misses or adds tissue, in slices where it does so most.

    `slices` are from :func:`helpers.spatial.read_frequency_slices`. Works without a kernel: menus
    choose model, organ and people. Upper row: tissue of the organ that the model leaves out, lower
    row: what it draws beyond the organ; each in an axial, a coronal and a sagittal slice, seen as
    radiologists do, in percent of the people, on one scale per organ. The line is the mean organ.
    """
    views: dict[Place, dict[str, FrequencySlices]] = {}
    for one in slices:
        group = f"{one.attribute}\x1f{one.group}" if one.attribute else ""
        views.setdefault((one.model, one.organ, group), {})[one.kind] = one
    if not views:
        why = "No volumes: no organ could be mapped, or too few people."
        return draw_nothing("How often the organ is missed or overdrawn", why)
    most = {organ: _find_most(slices, organ) for organ in {place[1] for place in views}}
    labels = {
        place: (place[0], name_for_people(place[1]), _name_people(next(iter(kinds.values()))))
        for place, kinds in views.items()
    }
    frames = Frames(("heatmap", "scatter") * 6)
    for place, kinds in views.items():
        traces, layout = _draw_view(kinds, most[place[1]])
        model, organ, people = labels[place]
        title = f"{start_sentence(organ)}, drawn by {model}, {people}: where it is missed and where too much is drawn"
        layout |= {
            "title": {"text": escape(title)},
            "updatemenus": list_menus(place, labels, ("model", "organ", "people"), frames),
        }
        frames.add(place, traces, layout=layout)
    start = max(views, key=lambda place: (place[2] == "", _weigh(views[place])))
    figure, layout = frames.draw(frames.name(start))
    figure.update_layout(_lay_out())
    figure.update_layout(
        {key: value for key, value in layout.items() if key not in ("updatemenus", "title", "annotations")}
    )
    style_figure(figure, title=layout["title"]["text"], height=880)
    figure.update_layout(
        annotations=[_place_heading(place, heading["text"]) for place, heading in enumerate(layout["annotations"])],
        updatemenus=dress_menus(layout["updatemenus"], (1.19, 1.125)),
        margin={"t": 190, "l": 60, "r": 20, "b": 50},
        title={"y": 0.98, "yanchor": "top"},
    )
    return figure


def _draw_view(kinds: dict[str, FrequencySlices], most: int) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    """Return the twelve traces of a view and its layout: headings, and where the axes end."""
    traces: dict[int, dict[str, Any]] = {}
    layout: dict[str, Any] = {"annotations": []}
    for row, (kind, word, colour) in enumerate(ROWS):
        one = kinds.get(kind)
        for column, plane in enumerate(SIDES):
            place, number = 3 * row + column, _NUMBERS[3 * row + column]
            axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
            if one is None:
                traces |= {2 * place: {**axes, "visible": False}, 2 * place + 1: {**axes, "visible": False}}
                layout["annotations"].append({"text": f"{word}, {plane}: not known"})
                continue
            rows, columns = (other for other in range(3) if other != column)
            percent, inside = one.percent[column], one.inside[column]
            first_v, first_h, step_v, step_h = (
                values[axis] for values in (one.origin_mm, one.spacing_mm) for axis in (rows, columns)
            )
            across, along = trace_outline(inside, step_v, step_h)
            traces[2 * place] = {
                **axes, "visible": True, "z": percent, "x0": round(first_h, 2), "dx": step_h,
                "y0": round(first_v, 2), "dy": step_v,
                "zmin": 0, "zmax": most, "colorscale": [[0.0, "#FFFFFF"], [1.0, colour]], "showscale": column == 2,
                "hovertemplate": "%{z} % of people<extra></extra>",
                "colorbar": {
                    "title": {"text": f"% of people: {word}", "side": "right"}, "thickness": 14, "len": 0.42,
                    "y": 0.78 - 0.56 * row,
                },
            }  # fmt: skip
            traces[2 * place + 1] = {
                **axes, "visible": True, "x": np.round(across + first_h, 1).astype(np.float32),
                "y": np.round(along + first_v, 1).astype(np.float32), "mode": "lines", "hoverinfo": "skip",
                "showlegend": False, "line": {"color": OUTLINE_COLOUR, "width": 1.5},
            }  # fmt: skip
            layout["annotations"].append({"text": _write_heading(word, plane, one.position_mm[column], column)})
            ends_h = [first_h - step_h / 2, first_h + step_h * (percent.shape[1] - 0.5)]
            ends_v = [first_v - step_v / 2, first_v + step_v * (percent.shape[0] - 0.5)]
            layout[f"xaxis{number}"] = {"range": [round(end, 1) for end in ends_h]}
            layout[f"yaxis{number}"] = {"range": [round(end, 1) for end in (ends_v if column else ends_v[::-1])]}
    return traces, layout


def _lay_out() -> dict[str, Any]:
    """Return the axes of two rows of three slices, with equal millimetres on both axes of each."""
    layout = make_subplots(rows=2, cols=3, horizontal_spacing=0.09, vertical_spacing=0.17).layout.to_plotly_json()
    kept: dict[str, Any] = {}
    plain = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    for number, (left, right, up, down) in zip(_NUMBERS, 2 * [*SIDES.values()], strict=True):
        for axis, title in (("xaxis", f"{left} → {right} (mm)"), ("yaxis", f"{down} → {up} (mm)")):
            kept[axis + number] = layout[axis + number] | plain | {"title": {"text": title, "standoff": 4}}
        kept[f"yaxis{number}"]["scaleanchor"] = f"x{number}"
    return kept


def _place_heading(place: int, text: str) -> dict[str, Any]:
    """Return the heading above one of the six slices."""
    number = _NUMBERS[place]
    return {
        "text": text, "xref": f"x{number} domain", "yref": f"y{number} domain", "x": 0.0, "y": 1.02, "xanchor": "left",
        "yanchor": "bottom", "showarrow": False, "font": {"size": 12},
    }  # fmt: skip


def _write_heading(word: str, plane: str, position_mm: float, axis: int) -> str:
    more, less = _DIRECTIONS[axis]
    where = f"{abs(position_mm):.0f} mm {more if position_mm > 0 else less} the centre"
    return f"<b>{word}</b>, {plane}<br>{'through the centre' if abs(position_mm) < 0.5 else where}"


def _name_people(one: FrequencySlices) -> str:
    who = f"{name_for_people(one.attribute)}: {one.group}" if one.attribute else _EVERYBODY
    return f"{who} (n = {one.people})"


def _find_most(slices: Sequence[FrequencySlices], organ: str) -> int:
    """Return the end of an organ's scale: its highest percentage, up to the next ten."""
    highest = max(int(plane.max(initial=0)) for one in slices if one.organ == organ for plane in one.percent)
    return max(10, -10 * (-highest // 10))


def _weigh(kinds: dict[str, FrequencySlices]) -> int:
    return sum(int(plane.sum(dtype=np.int64)) for one in kinds.values() for plane in one.percent)
