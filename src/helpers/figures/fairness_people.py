"""The people behind the gaps: clouds of their scores, curves over age or BMI, and every combination of groups."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.panels import (
    QUIET,
    break_words,
    count_columns,
    draw_nothing,
    format_range,
    format_value,
    frame_figure,
    name_metric,
    name_organ,
    name_person,
    offer_choices,
    shift_sideways,
    title_lowest,
    wrap_label,
)
from helpers.figures.style import METRIC_LABELS, colour_groups, mark_groups, name_for_people

_CELL_COLUMNS = {"model", "organ", "metric", "n", "mean", "additive", "pooled", "low", "high", "weight", "suppressed"}
# From few to much in one hue, light enough for dark text everywhere; the cell's number carries the value.
_CELLS = [[0.0, "#F7FBFF"], [0.5, "#C6DBEF"], [1.0, "#7FB5DA"]]
_COLUMNS = 3


def plot_raincloud(
    people: pd.DataFrame,
    metric: str,
    attribute: str,
    *,
    model: str,
    organs: Sequence[str] | None = None,
    groups: pd.DataFrame | None = None,
    min_group: int = 10,
) -> go.Figure:
    """Plot every person's score as a dot, each group's distribution as half a violin, and its mean.

    Parameters
    ----------
    people : DataFrame
        From ``load_people``: model, organ, number, scans, the metric, ``group_<attribute>``.
    metric, attribute, model : str
    organs : sequence of str, optional
        Panels to draw, in order; all by default.
    groups : DataFrame, optional
        ``fairness/groups.csv``, for the means and their 95 % intervals; without it there are none.
    min_group : int
        Groups with fewer people are named beneath, not drawn.

    Returns
    -------
    Figure
        One panel per organ.
    """
    column = f"group_{attribute}"
    part = people[people["model"] == model]
    organs = list(dict.fromkeys(part["organ"])) if organs is None else list(organs)
    names = (
        [str(name) for name in part[column].cat.categories]
        if isinstance(part[column].dtype, pd.CategoricalDtype)
        else sorted(part[column].dropna().astype(str).unique())
    )
    title = f"{METRIC_LABELS[metric].split(' (')[0]} of {model}, by {name_for_people(attribute)}: everyone is a dot"
    if part.empty or not organs or not names:
        return draw_nothing(title, "No person with a known group was scored.")
    columns = count_columns(len(names), len(organs))
    rows = -(-len(organs) // columns)
    panel, between = 250, 92
    body = panel * rows + between * (rows - 1)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[name_organ(organ) for organ in organs],
        shared_yaxes="all",
        vertical_spacing=between / body if rows > 1 else 0,
        horizontal_spacing=0.03,
    )
    means = None if groups is None else _index_means(groups, model, metric, attribute)
    colours, symbols = colour_groups(names), mark_groups(names)
    hidden: dict[str, list[str]] = {}
    for place, organ in enumerate(organs):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        labels = []
        for position, group in enumerate(names):
            chosen = part[(part["organ"] == organ) & (part[column].astype("str") == group) & part[metric].notna()]
            few = len(chosen) < min_group
            labels.append(f"{break_words(group, 12)}<br>n {'<' if few else '='} {min_group if few else len(chosen)}")
            if few:
                hidden.setdefault(group, []).append(name_organ(organ))
                continue
            mean = None if means is None else means.get((organ, group))
            for trace in _draw_cloud(chosen, metric, group, position, colours[group], symbols[group], mean):
                figure.add_trace(trace, **where)
        figure.update_xaxes(
            tickvals=list(range(len(names))),
            ticktext=labels,
            range=[-0.6, len(names) - 0.4],
            showgrid=False,
            zeroline=False,
            tickangle=0,
            **where,
        )
    for row in range(1, rows + 1):
        figure.update_yaxes(title=wrap_label(METRIC_LABELS[metric]), row=row, col=1)
    figure.update_yaxes(zeroline=False)
    if any(trace.name == _MEAN for trace in figure.data):
        next(trace for trace in figure.data if trace.name == _MEAN).showlegend = True
    left_out = [
        group if len(found) == len(organs) else f"{group} ({', '.join(found)})" for group, found in hidden.items()
    ]
    return frame_figure(
        figure,
        title=title,
        subtitle="dots: people; half violin: their distribution",
        body=body,
        below=62,
        left=80,
        footnote=f"Not drawn (fewer than {min_group} people): {'; '.join(left_out)}" if left_out else "",
    )


_MEAN = "mean and its 95 % interval"


def _index_means(groups: pd.DataFrame, model: str, metric: str, attribute: str) -> dict[tuple[str, str], Any]:
    part = groups[(groups["model"] == model) & (groups["metric"] == metric) & (groups["attribute"] == attribute)]
    return {(row.organ, str(row.group)): row for row in part[part["mean"].notna()].itertuples(index=False)}


def _draw_cloud(
    chosen: pd.DataFrame, metric: str, group: str, position: int, colour: str, symbol: str, mean: Any
) -> list[go.Violin | go.Scatter]:
    """Return a group's half violin on the right, dots on the left, and the mean between the two."""
    traces: list[go.Violin | go.Scatter] = [
        go.Violin(
            x0=position + 0.06, y=chosen[metric], side="positive", width=0.7, points=False, spanmode="hard",
            line={"color": colour, "width": 1.5}, fillcolor=colour, opacity=0.35, hoverinfo="skip", showlegend=False,
        ),
        go.Scatter(
            x=position - 0.2 + 0.5 * shift_sideways(chosen["number"].to_numpy()),
            y=chosen[metric],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.65},
            text=[name_person(row.number, row.scans) for row in chosen.itertuples(index=False)],
            hovertemplate="%{text}: %{y:.4g}<extra>" + group + "</extra>",
            showlegend=False,
        ),
    ]  # fmt: skip
    if mean is not None:
        traces.append(
            go.Scatter(
                x=[position],
                y=[mean.mean],
                error_y={
                    "type": "data", "symmetric": False, "array": [mean.ci_high - mean.mean],
                    "arrayminus": [mean.mean - mean.ci_low], "thickness": 2, "width": 4, "color": "#222222",
                },
                mode="markers",
                marker={"color": "#222222", "symbol": "diamond", "size": 8},
                name=_MEAN,
                legendgroup=_MEAN,
                showlegend=False,
                customdata=[f"{group}: mean {format_value(mean.mean, metric)} ({format_range(mean.ci_low, mean.ci_high, metric)})"],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )  # fmt: skip
    return traces


def plot_trend_curves(
    trends: pd.DataFrame,
    trend_tests: pd.DataFrame,
    metric: str,
    attribute: str | None = None,
    organ: str | None = None,
) -> go.Figure:
    """Plot a metric as a smooth curve of a continuous attribute, a panel per model.

    Parameters
    ----------
    trends, trend_tests : DataFrame
        ``fairness/trends.csv`` and ``fairness/trend_tests.csv``.
    metric : str
    attribute : str, optional
        One attribute; all by default, behind a menu.
    organ : str, optional
        Shown first (by default the table's first); the menu offers the others.

    Returns
    -------
    Figure
        The inner band holds the curve at any one place with 95 % confidence, the dotted outer one the whole curve. Above
        each panel: the slope of a straight line with its 95 % interval, and the p-values of a trend and of a bend.
    """
    title = f"{METRIC_LABELS[metric].split(' (')[0]} over {name_for_people(attribute or 'continuous attributes')}"
    curves, tests = (
        table[(table["metric"] == metric) & (True if attribute is None else table["attribute"] == attribute)]
        for table in (trends, trend_tests)
    )
    choices = list(curves[["attribute", "organ"]].drop_duplicates().itertuples(index=False, name=None))
    first = [pair for pair in choices if organ in (None, pair[1])]
    if not first:
        reasons = list(dict.fromkeys(note for note in tests["note"].dropna() if note))
        return draw_nothing(title, reasons[0] if reasons else "No curve was fitted: no attribute is a number.")
    models = list(dict.fromkeys([*tests["model"], *curves["model"]]))
    short = METRIC_LABELS[metric].split(" (")[0]
    several = len({name for name, _ in choices}) > 1
    return offer_choices(
        {
            f"{name_for_people(name)} · {name_organ(where)}" if several else name_organ(where): _draw_trends(
                curves[(curves["organ"] == where) & (curves["attribute"] == name)],
                tests[(tests["organ"] == where) & (tests["attribute"] == name)],
                models,
                name,
                metric,
                f"{short} over {name_for_people(name)}: {name_organ(where)}",
                menu=len(choices) > 1,
            )
            for name, where in [first[0], *(pair for pair in choices if pair != first[0])]
        }
    )


def _draw_trends(
    curves: pd.DataFrame,
    tests: pd.DataFrame,
    models: Sequence[str],
    attribute: str,
    metric: str,
    title: str,
    *,
    menu: bool,
) -> go.Figure:
    columns = min(_COLUMNS, len(models))
    rows = -(-len(models) // columns)
    panel, between = 270, 130
    body = panel * rows + between * (rows - 1)
    known = {row["model"]: row for row in tests.to_dict("records")}
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_caption_trend(model, known.get(model, {}), metric) for model in models],
        horizontal_spacing=0.075,
        vertical_spacing=between / body if rows > 1 else 0,
    )
    figure.update_annotations(font={"size": 12})
    colours = colour_groups(models)
    ends = curves.groupby("model")[["band_low", "band_high"]].agg({"band_low": "min", "band_high": "max"})
    reach = 0.55 * float((ends["band_high"] - ends["band_low"]).max())
    for place, model in enumerate(models):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        here = curves[curves["model"] == model].sort_values("value")
        if here.empty:
            continue
        for name, low, high, opacity, dash in (
            ("whole curve (95 %)", "band_low", "band_high", 0.12, "dot"),
            ("at any one place (95 %)", "low", "high", 0.25, "solid"),
        ):
            line = {"color": colours[model], "width": 1 if dash == "dot" else 0, "dash": dash}
            figure.add_trace(
                go.Scatter(
                    x=here["value"], y=here[low], mode="lines", line=line, legendgroup=name, showlegend=False,
                    hoverinfo="skip",
                ),
                **where,
            )  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=here["value"], y=here[high], mode="lines", line=line, fill="tonexty", name=name, legendgroup=name,
                    fillcolor=_fade(colours[model], opacity), showlegend=False, hoverinfo="skip",
                ),
                **where,
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=here["value"],
                y=here["estimate"],
                mode="lines",
                line={"color": colours[model], "width": 2.5},
                name="mean",
                legendgroup="mean",
                showlegend=False,
                customdata=[_explain_point(row, metric) for row in here.to_dict("records")],
                hovertemplate="%{customdata}<extra></extra>",
            ),
            **where,
        )
        # As many units in every panel, so that slopes can be compared; each about its own height, so that they can be seen.
        top = float(ends.loc[model].mean()) + reach
        if "(0–1" in METRIC_LABELS[metric]:  # no room above the best that there is, but for a band that reaches there
            top = min(top, max(1.0, float(ends.loc[model, "band_high"])))
        figure.update_yaxes(range=[top - 2 * reach, top], **where)
    unit = _find_unit(tests)
    for name, mode, look in (
        ("mean", "lines", {"line": {"color": QUIET, "width": 2.5}}),
        ("95 % interval at any one place", "markers", {"marker": {"color": "#BBBBBB", "size": 14, "symbol": "square"}}),
        ("95 % band for the whole curve", "lines", {"line": {"color": QUIET, "width": 1, "dash": "dot"}}),
    ):
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode=mode, name=name, showlegend=True, hoverinfo="skip", **look)
        )
    figure.update_xaxes(zeroline=False)
    title_lowest(figure, name_for_people(attribute) + (f" ({unit})" if unit else ""), len(models), columns)
    figure.update_yaxes(zeroline=False)
    for row in range(1, rows + 1):
        figure.update_yaxes(title=wrap_label(METRIC_LABELS[metric]), row=row, col=1)
    return frame_figure(
        figure,
        title=title,
        subtitle="other covariates held equal; above: slope of a straight line; every panel spans as many units, at its own height",
        body=body,
        menu=menu,
        head=80,
        left=80,
    )


def _caption_trend(model: str, row: dict[str, Any], metric: str) -> str:
    lines = [f"<b>{model}</b>" + (f", n = {row['n']:.0f}" if row and np.isfinite(row["n"]) else "")]
    if row and np.isfinite(row.get("slope", np.nan)):
        lines += [
            f"{_sign(row['slope'], metric)} {row['unit']}",
            f"({format_range(row['slope_low'], row['slope_high'], metric)})",
            f"p trend {_short_p(row['p_trend'])}, bend {_short_p(row['p_nonlinear'])}",
        ]
    else:
        note = row.get("note", "") if row else ""
        lines.append(break_words(note, 36) if note else "no curve was fitted")
    return "<br>".join(lines)


def _sign(value: float, metric: str) -> str:
    text = format_value(value, metric)
    return text if value < 0 else f"+{text}"


def _short_p(value: float) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _explain_point(row: dict[str, Any], metric: str) -> str:
    nearby = row.get("nearby")
    around = f"<br>{nearby:.0f} people in this tenth of the range" if nearby is not None and pd.notna(nearby) else ""
    return (
        f"at {row['value']:.4g}: {format_value(row['estimate'], metric)} ({format_range(row['low'], row['high'], metric)})"
        f"<br>whole curve {format_range(row['band_low'], row['band_high'], metric)}{around}"
    )


def _find_unit(tests: pd.DataFrame) -> str:
    """Return the attribute's unit, which the tests state as ``per 10 years``."""
    found = [re.match(r"per\s+[\d.]+\s+(.+)$", str(unit)) for unit in tests.get("unit", ())]
    return next((match.group(1) for match in found if match), "")


def _fade(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def plot_intersections(
    intersections: pd.DataFrame, metric: str, organ: str | None = None, model: str | None = None
) -> go.Figure:
    """Plot the mean of every combination of groups (sex × age × BMI), small ones steadied by the others.

    Parameters
    ----------
    intersections : DataFrame
        ``fairness/intersections.csv``: a column per attribute between the keys and ``n``.
    metric : str
    organ, model : str, optional
        Shown first (by default the table's first); a menu offers the others in the same colours.

    Returns
    -------
    Figure
        The last attribute lies along x, the one before along y, the ones before that part the panels. A cell holds the partially
        pooled mean, its 95 % interval and the number of people; cells with too few of them are hatched and hold no number.
    """
    title = f"{METRIC_LABELS[metric].split(' (')[0]} where groups meet"
    part = intersections[intersections["metric"] == metric]
    attributes = [name for name in intersections.columns if name not in _CELL_COLUMNS]
    choices = list(part[["model", "organ"]].drop_duplicates().itertuples(index=False, name=None))
    first = [pair for pair in choices if model in (None, pair[0]) and organ in (None, pair[1])]
    if not first or not attributes:
        return draw_nothing(title, "There are no groups to combine.")
    if part["pooled"].isna().all():
        number = len(part[attributes].drop_duplicates())
        names = ", ".join(map(name_for_people, attributes))
        return draw_nothing(title, f"None of the {number} combinations of {names} has enough people to be shown.")
    levels = {name: _list_levels(part[name]) for name in attributes}
    ends = (float(part["pooled"].min()), float(part["pooled"].max()))
    return offer_choices(
        {
            f"{pair[0]} · {name_organ(pair[1])}": _draw_cells(
                part[(part["model"] == pair[0]) & (part["organ"] == pair[1])],
                metric,
                levels,
                ends,
                f"{title}: {pair[0]}, {name_organ(pair[1])}",
                menu=len(choices) > 1,
            )
            for pair in [first[0], *(pair for pair in choices if pair != first[0])]
        }
    )


def _list_levels(column: pd.Series) -> list[str]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(name) for name in column.cat.categories]
    return list(dict.fromkeys(column.astype(str)))


def _draw_cells(
    part: pd.DataFrame, metric: str, levels: dict[str, list[str]], ends: tuple[float, float], title: str, *, menu: bool
) -> go.Figure:
    names = list(levels)
    across, down = names[-1], names[-2] if len(names) > 1 else None
    apart = list(itertools.product(*(levels[name] for name in names[:-2])))
    vertical = levels[down] if down else [""]
    columns = min(len(apart), 2 if len(levels[across]) > 2 else _COLUMNS)
    rows = -(-len(apart) // columns)
    panel, between = 58 * len(vertical), 84
    body = panel * rows + between * (rows - 1)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[
            ", ".join(f"{name_for_people(name)}: {level}" for name, level in zip(names, place, strict=False))
            for place in apart
        ],
        shared_yaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=between / body if rows > 1 else 0,
    )
    cells = {tuple(str(row[name]) for name in names): row for row in part.to_dict("records")}
    for place, leading in enumerate(apart):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        grid = [
            [cells.get((*leading, *((level,) if down else ()), group), {}) for group in levels[across]]
            for level in vertical
        ]
        _draw_grid(figure, grid, metric, ends, where, scale=place == 0)
        figure.update_xaxes(
            tickvals=list(range(len(levels[across]))), ticktext=[break_words(group, 12) for group in levels[across]],
            range=[-0.5, len(levels[across]) - 0.5], showgrid=False, zeroline=False, fixedrange=True, **where,
        )  # fmt: skip
        figure.update_yaxes(
            tickvals=list(range(len(vertical))), ticktext=[break_words(level, 14) for level in vertical],
            range=[len(vertical) - 0.5, -0.5], showgrid=False, zeroline=False, fixedrange=True, **where,
        )  # fmt: skip
    title_lowest(figure, name_for_people(across), len(apart), columns)
    if down:
        for row in range(1, rows + 1):
            figure.update_yaxes(title=name_for_people(down), row=row, col=1)
    figure.add_trace(
        go.Bar(
            x=[None], y=[None], marker={"color": "#EDEDED", "pattern": _HATCH}, name="too few people to show, or withheld to protect them",
            showlegend=True, hoverinfo="skip",
        )
    )  # fmt: skip
    figure.update_layout(barmode="overlay")
    return frame_figure(
        figure,
        title=title,
        subtitle="mean, 95 % interval and people; small cells are drawn towards what their groups predict one by one",
        body=body,
        menu=menu,
        head=34,
        left=110,
        below=74,
    )


_HATCH = {"shape": "/", "fgcolor": "#9A9A9A", "size": 8, "solidity": 0.12}


def _draw_grid(
    figure: go.Figure,
    grid: Sequence[Sequence[dict[str, Any]]],
    metric: str,
    ends: tuple[float, float],
    where: dict[str, int],
    *,
    scale: bool,
) -> None:
    shown = [[bool(row) and np.isfinite(row["pooled"]) for row in line] for line in grid]
    hidden = [(i, j) for i, line in enumerate(shown) for j, seen in enumerate(line) if not seen]
    figure.add_trace(
        go.Heatmap(
            x=list(range(len(grid[0]))),
            y=list(range(len(grid))),
            z=[[row["pooled"] if seen else None for row, seen in zip(*pair, strict=True)] for pair in zip(grid, shown, strict=True)],
            text=[[_write_cell(row, metric) if seen else "" for row, seen in zip(*pair, strict=True)] for pair in zip(grid, shown, strict=True)],
            texttemplate="%{text}",
            textfont={"size": 12, "color": "#222222"},
            customdata=[[_explain_cell(row, metric) if seen else "" for row, seen in zip(*pair, strict=True)] for pair in zip(grid, shown, strict=True)],
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            colorscale=_CELLS,
            zmin=ends[0],
            zmax=ends[1] if ends[1] > ends[0] else ends[0] + 1e-9,
            showscale=scale,
            colorbar={"title": {"text": break_words(name_metric(metric), 12)}, "thickness": 12, "len": 1.0, "y": 0.5},
            xgap=3,
            ygap=3,
        ),
        **where,
    )  # fmt: skip
    if hidden:
        figure.add_trace(
            go.Bar(
                x=[j for _, j in hidden],
                y=[0.94] * len(hidden),
                base=[i - 0.47 for i, _ in hidden],
                width=0.97,
                marker={"color": "#EDEDED", "pattern": _HATCH, "line": {"width": 0}},
                showlegend=False,
                hoverinfo="skip",
            ),
            **where,
        )
        figure.add_trace(
            go.Scatter(
                x=[j for _, j in hidden],
                y=[i for i, _ in hidden],
                mode="text",
                text=[f"<b>{_count_people(grid[i][j])}</b>" for i, j in hidden],
                textfont={"size": 12, "color": "#333333"},
                hoverinfo="skip",
                showlegend=False,
            ),
            **where,
        )


def _count_people(row: dict[str, Any]) -> str:
    """Return what is known of a hidden cell's number: it is text already."""
    if not row:
        return "nobody"
    text = str(row["n"])
    return f"n {text.replace('<', '< ')}" if text.startswith("<") else text


def _write_cell(row: dict[str, Any], metric: str) -> str:
    return f"<b>{format_value(row['pooled'], metric)}</b><br>{format_range(row['low'], row['high'], metric)}<br>n = {row['n']}"


def _explain_cell(row: dict[str, Any], metric: str) -> str:
    return (
        f"pooled mean {format_value(row['pooled'], metric)} ({format_range(row['low'], row['high'], metric)})<br>raw mean "
        f"{format_value(row['mean'], metric)}, n = {row['n']}<br>weight of the raw mean {row['weight']:.0%}"
    )
