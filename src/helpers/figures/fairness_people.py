"""The people behind the gaps: everyone's score, curves over age or BMI, combinations of groups."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import (
    MANY_MODELS,
    POINTED_AT,
    QUIET,
    THINNED_OUT,
    break_words,
    count_columns,
    draw_nothing,
    list_ticks,
    make_bars,
    make_grid,
    name_person,
    offer_choices,
    shift_sideways,
    thin_out,
    title_measure,
)
from helpers.figures.style import colour_groups, colour_models, mark_groups
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import (
    POOLED,
    compare_p,
    format_interval,
    format_value,
    name_for_people,
    name_organ,
    state_estimate,
)

_CELL_COLUMNS = {"model", "organ", "metric", "n", "mean", "additive", "pooled", "low", "high", "weight", "suppressed"}
# From few to much in one hue, light enough for dark text; the cell's number carries the value.
_CELLS = [[0.0, "#F7FBFF"], [0.5, "#C6DBEF"], [1.0, "#7FB5DA"]]
_HATCHED = {"color": "#EDEDED", "pattern": {"shape": "/", "fgcolor": "#9A9A9A", "size": 8, "solidity": 0.12}}
_MEAN, _MEAN_COLOUR = "mean and its 95 % confidence interval", "#222222"


def plot_group_people(
    people: pd.DataFrame,
    metric: str,
    attribute: str,
    *,
    model: str,
    organs: Sequence[str] | None = None,
    groups: pd.DataFrame | None = None,
) -> go.Figure:
    """Plot everyone's score as a dot, each group's distribution as half a violin, and its mean.

    Of a large group some stand for all (:func:`thin_out`).
    `people` is from ``load_people``: model, organ, number, scans, metric, ``group_<attribute>``;
    groups of too few people are taken away there. A panel per organ, in the order of `organs`
    (by default all of the table); groups of which nobody is there are named beneath. `groups`,
    ``fairness/groups.csv``, gives the means and their 95 % confidence intervals; without it there
    are none.
    """
    column, measure = f"group_{attribute}", find_measure(metric)
    part = people[(people["model"] == model) & people[metric].notna()]
    organs = list(dict.fromkeys(part["organ"])) if organs is None else list(organs)
    names = _list_levels(part[column].dropna())
    title = f"{measure.long_name} of {model}, by {name_for_people(attribute)}"
    if not organs or part[column].isna().all():
        return draw_nothing(title, "No person can be shown: too few with a known group were scored.")
    letters = 12 if len(names) < 3 else 7  # of a line beneath a group, where the figure takes half a page
    grid = make_grid(
        [name_organ(organ) for organ in organs], 185, between=92, across=0.03,
        columns=count_columns(len(names), len(organs)), shared_xaxes=False,
    )  # fmt: skip
    means = {} if groups is None else _index_means(groups, model, metric, attribute)
    colours, symbols = colour_groups(names), mark_groups(names)
    absent: dict[str, list[str]] = {}
    thinned = False
    for organ, place in zip(organs, grid.places, strict=True):
        labels = []
        for position, group in enumerate(names):
            chosen = part[(part["organ"] == organ) & (part[column].astype("str") == group)]
            labels.append(f"{break_words(group, letters)}<br>{f'n = {len(chosen)}' if len(chosen) else 'too few'}")
            if chosen.empty:
                absent.setdefault(group, []).append(name_organ(organ))
                continue
            drawn, mean = thin_out(chosen, metric), means.get((organ, group))
            thinned |= len(drawn) < len(chosen)
            for trace in _draw_cloud(drawn, metric, group, position, colours[group], symbols[group], mean):
                grid.figure.add_trace(trace, **place)
        grid.figure.update_xaxes(list_ticks(labels), showgrid=False, tickangle=0, **place)
    grid.title_axes("", title_measure(measure))
    grid.figure.update_yaxes(zeroline=False)
    for trace in itertools.islice(grid.figure.select_traces({"name": _MEAN}), 1):
        trace.showlegend = True
    told = [name if len(found) == len(organs) else f"{name} ({', '.join(found)})" for name, found in absent.items()]
    return grid.frame(
        title=title if thinned else f"{title}: everyone is a dot",
        subtitle=f"dots: people{f' ({THINNED_OUT})' if thinned else ''}; half violin: their distribution",
        left=80,
        footnote=f"Not drawn, too few people: {'; '.join(told)}" if told else "",
    )


def _index_means(groups: pd.DataFrame, model: str, metric: str, attribute: str) -> dict[tuple[str, str], Any]:
    part = groups[(groups["model"] == model) & (groups["metric"] == metric) & (groups["attribute"] == attribute)]
    return {(row.organ, str(row.group)): row for row in part[part["mean"].notna()].itertuples(index=False)}


def _draw_cloud(
    chosen: pd.DataFrame, metric: str, group: str, position: int, colour: str, symbol: str, mean: Any
) -> list[go.Violin | go.Scatter]:
    """Return a group's half violin on the right, dots on the left, and the mean between the two."""
    traces = [
        go.Violin(
            x0=position + 0.06, y=chosen[metric], side="positive", width=0.7, points=False, spanmode="hard",
            line={"color": colour, "width": 1.5}, fillcolor=colour, opacity=0.35, hoverinfo="skip", showlegend=False,
        ),
        go.Scatter(
            x=position - 0.2 + 0.5 * shift_sideways(chosen["number"].to_numpy()), y=chosen[metric], mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.65},
            text=list(map(name_person, chosen["number"], chosen["scans"])),
            hovertemplate="%{text}: %{y:.4g}<extra>" + group + "</extra>", showlegend=False,
        ),
    ]  # fmt: skip
    if mean is not None:
        told = f"{group}: mean {state_estimate(mean.mean, mean.ci_low, mean.ci_high, metric)}"
        value, low, high = (pd.Series([number]) for number in (mean.mean, mean.ci_low, mean.ci_high))
        traces.append(
            go.Scatter(
                x=[position], y=value, error_y=make_bars(value, low, high, _MEAN_COLOUR), mode="markers",
                marker={"color": _MEAN_COLOUR, "symbol": "diamond", "size": 8},
                name=_MEAN, legendgroup=_MEAN, showlegend=False, customdata=[told], hovertemplate=POINTED_AT,
            )
        )  # fmt: skip
    return traces


def plot_trend_curves(trends: pd.DataFrame, trend_tests: pd.DataFrame, metric: str) -> go.Figure:
    """Plot a metric as a smooth curve of a continuous attribute, a panel per model.

    The tables are ``fairness/trends.csv`` and ``fairness/trend_tests.csv``; a menu offers their
    attributes and organs, the surest trend first. The inner band holds the curve at any one place
    with 95 % confidence, the dotted outer one the whole curve. Above each panel: the slope of a
    straight line with its 95 % interval, and the p-values of a trend and of a bend.
    """
    short = find_measure(metric).long_name
    curves, tests = (table[table["metric"] == metric] for table in (trends, trend_tests))
    choices = list(curves[["attribute", "organ"]].drop_duplicates().itertuples(index=False, name=None))
    surest = tests.groupby(["attribute", "organ"])["p_trend"].min()
    choices.sort(key=lambda choice: surest.get(choice, np.inf))
    if not choices:
        reasons = [note for note in tests["note"].dropna() if note]
        title = f"{short} over continuous attributes"
        return draw_nothing(title, reasons[0] if reasons else "No curve was fitted: no attribute is a number.")
    every = list(dict.fromkeys([*tests["model"], *curves["model"]]))
    several = len({name for name, _ in choices}) > 1
    figures = {}
    for name, where in choices:
        label = f"{name_for_people(name)} · {name_organ(where)}" if several else name_organ(where)
        here, tested = (table[(table["organ"] == where) & (table["attribute"] == name)] for table in (curves, tests))
        title, menu = f"{short} over {name_for_people(name)}: {name_organ(where)}", len(choices) > 1
        surest = tested.sort_values("p_trend", kind="stable")["model"].head(MANY_MODELS)
        models = every if len(every) <= MANY_MODELS else list(surest)
        if len(models) < len(every):
            title += f", the surest trends of {len(every)} models"
        figures[label] = _draw_trends(here, tested, models, name, metric, title, menu=menu)
    return offer_choices(figures)


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
    measure = find_measure(metric)
    known = {row["model"]: row for row in tests.to_dict("records")}
    captions = [_caption_trend(model, known.get(model, {}), metric) for model in models]
    grid = make_grid(captions, 200, between=120, across=0.075, shared_xaxes=False, shared_yaxes=False)
    figure = grid.figure
    traces: list[go.Scatter] = []
    places: list[dict[str, int]] = []
    figure.update_annotations(font={"size": 12})
    colours = colour_models(models)
    ends = curves.groupby("model").agg({"band_low": "min", "band_high": "max"})
    reach = 0.55 * float((ends["band_high"] - ends["band_low"]).max())
    for model, place in zip(models, grid.places, strict=True):
        here = curves[curves["model"] == model].sort_values("value")
        if here.empty:
            continue
        drawn = _draw_curve(here, metric, colours[model])
        traces += drawn
        places += [place] * len(drawn)
        # As many units in every panel, so that slopes can be compared; each about its own height.
        top = float(ends.loc[model].mean()) + reach
        if measure.is_bounded:  # no room above the best that there is, unless a band reaches there
            top = min(top, max(measure.bounds[1], float(ends.loc[model, "band_high"])))
        figure.get_subplot(**place).yaxis.range = [top - 2 * reach, top]
    figure.add_traces(traces, rows=[place["row"] for place in places], cols=[place["col"] for place in places])
    for name, look in (
        ("mean", {"mode": "lines", "line": {"color": QUIET, "width": 2.5}}),
        ("95 % confidence interval at any one place", {"marker": {"color": "#BBBBBB", "size": 14, "symbol": "square"}}),
        ("95 % band for the whole curve", {"mode": "lines", "line": {"color": QUIET, "width": 1, "dash": "dot"}}),
    ):
        entry = {"mode": "markers", "name": name, "showlegend": True, "hoverinfo": "skip"} | look
        figure.add_trace(go.Scatter(x=[None], y=[None], **entry))
    unit = _find_unit(tests)
    figure.update_xaxes(zeroline=False)
    figure.update_yaxes(zeroline=False)
    grid.title_axes(name_for_people(attribute) + (f" ({unit})" if unit else ""), title_measure(measure))
    return grid.frame(
        title=title,
        subtitle="adjusted for the other covariates; above: slope of a straight line; "
        "every panel spans as many units, at its own height",
        menu=menu,
        head=80,
        left=80,
    )


def _draw_curve(here: pd.DataFrame, metric: str, colour: str) -> list[go.Scatter]:
    """Return a model's two bands, edge by edge, and the curve in them."""
    traces = []
    for low, high, opacity, line in (
        ("band_low", "band_high", 0.12, {"color": colour, "width": 1, "dash": "dot"}),
        ("low", "high", 0.25, {"color": colour, "width": 0}),
    ):
        edge = {"x": here["value"], "mode": "lines", "line": line, "showlegend": False, "hoverinfo": "skip"}
        shade = {"fill": "tonexty", "fillcolor": _fade(colour, opacity)}
        traces += [go.Scatter(y=here[low], **edge), go.Scatter(y=here[high], **edge, **shade)]
    told = [_explain_point(row, metric) for row in here.to_dict("records")]
    look = {"mode": "lines", "line": {"color": colour, "width": 2.5}, "name": "mean", "showlegend": False}
    mean = go.Scatter(x=here["value"], y=here["estimate"], customdata=told, hovertemplate=POINTED_AT, **look)
    return [*traces, mean]


def _caption_trend(model: str, row: dict[str, Any], metric: str) -> str:
    lines = [f"<b>{model}</b>" + (f", n = {row['n']:.0f}" if row and np.isfinite(row["n"]) else "")]
    if row and np.isfinite(row.get("slope", np.nan)):
        lines += [
            f"{format_value(row['slope'], metric, signed=True)} {row['unit']}",
            f"({format_interval(row['slope_low'], row['slope_high'], metric)})",
            f"p trend {compare_p(row['p_trend'])}, bend {compare_p(row['p_nonlinear'])}",
        ]
    else:
        lines.append(break_words(row.get("note") or "no curve was fitted", 36))
    return "<br>".join(lines)


def _explain_point(row: dict[str, Any], metric: str) -> str:
    nearby = row.get("nearby")
    around = f"<br>{nearby:.0f} people in this tenth of the range" if nearby is not None and pd.notna(nearby) else ""
    return (
        f"at {row['value']:.4g}: {state_estimate(row['estimate'], row['low'], row['high'], metric)}"
        f"<br>whole curve {format_interval(row['band_low'], row['band_high'], metric)}{around}"
    )


def _find_unit(tests: pd.DataFrame) -> str:
    """Return the attribute's unit, which the tests state as ``per 10 years``."""
    found = [re.match(r"per\s+[\d.]+\s+(.+)$", str(unit)) for unit in tests.get("unit", ())]
    return next((match.group(1) for match in found if match), "")


def _fade(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def plot_intersections(intersections: pd.DataFrame, metric: str) -> go.Figure:
    """Plot the mean of every combination of groups (sex × age × BMI), small ones steadied.

    `intersections` is ``fairness/intersections.csv``: a column per attribute between the keys and
    ``n``; a menu offers its models and organs (of many models all organs pooled alone) in the same
    colours. The last attribute lies along x,
    the one before along y, those before part the panels. A cell holds the partially pooled mean,
    its 95 % confidence interval and the number of people; cells with too few of them are hatched
    and hold no number.
    """
    title = f"{find_measure(metric).long_name} where groups meet"
    part = intersections[intersections["metric"] == metric]
    attributes = [name for name in intersections.columns if name not in _CELL_COLUMNS]
    choices = list(part[["model", "organ"]].drop_duplicates().itertuples(index=False, name=None))
    if len({model for model, _ in choices}) > MANY_MODELS:
        choices = [(model, organ) for model, organ in choices if organ == POOLED] or choices
    if not choices or not attributes:
        return draw_nothing(title, "There are no groups to combine.")
    if part["pooled"].isna().all():
        number = len(part[attributes].drop_duplicates())
        names = ", ".join(map(name_for_people, attributes))
        return draw_nothing(title, f"None of the {number} combinations of {names} has enough people to be shown.")
    levels = {name: _list_levels(part[name]) for name in attributes}
    ends = (float(part["pooled"].min()), float(part["pooled"].max()))
    figures = {}
    for model, organ in choices:
        here = part[(part["model"] == model) & (part["organ"] == organ)]
        told, menu = f"{title}: {model}, {name_organ(organ)}", len(choices) > 1
        figures[f"{model} · {name_organ(organ)}"] = _draw_cells(here, metric, levels, ends, told, menu=menu)
    return offer_choices(figures)


def _list_levels(column: pd.Series) -> list[str]:
    """Return a column's groups in their order."""
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
    titles = [
        ", ".join(f"{name_for_people(name)}: {level}" for name, level in zip(names, place, strict=False))
        for place in apart
    ]
    columns = 2 if len(levels[across]) > 2 else 3
    grid = make_grid(titles, 58 * len(vertical), between=84, across=0.03, columns=columns, shared_xaxes=False)
    cells = {tuple(str(row[name]) for name in names): row for row in part.to_dict("records")}
    plain = {"showgrid": False, "fixedrange": True}
    for leading, place in zip(apart, grid.places, strict=True):
        lines = [
            [cells.get((*leading, *((level,) if down else ()), group), {}) for group in levels[across]]
            for level in vertical
        ]
        grid.figure.add_trace(_draw_known(lines, metric, ends, scale=place == grid.places[0]), **place)
        hidden = [(i, j, row) for i, line in enumerate(lines) for j, row in enumerate(line) if not _is_shown(row)]
        if hidden:
            grid.figure.add_traces(_draw_hidden(hidden), rows=place["row"], cols=place["col"])
        ticks = list_ticks([break_words(group, 12) for group in levels[across]], room=0.5)
        grid.figure.update_xaxes(ticks | plain, **place)
        ticks = list_ticks([break_words(level, 14) for level in vertical], down=True, room=0.5)
        grid.figure.update_yaxes(ticks | plain | {"automargin": False}, **place)
    grid.title_axes(name_for_people(across), name_for_people(down) if down else "")
    hatched = {"name": "too few people to show, or withheld to protect them", "showlegend": True, "hoverinfo": "skip"}
    grid.figure.add_trace(go.Bar(x=[None], y=[None], marker=_HATCHED, **hatched))
    grid.figure.update_layout(barmode="overlay")
    return grid.frame(
        title=title,
        subtitle="mean, 95 % confidence interval and people; small cells are drawn towards what their groups predict "
        "one by one",
        menu=menu,
        head=34,
        left=110,
        below=74,
    )


def _is_shown(row: dict[str, Any]) -> bool:
    return bool(row) and bool(np.isfinite(row["pooled"]))


def _draw_known(
    lines: Sequence[Sequence[dict[str, Any]]], metric: str, ends: tuple[float, float], *, scale: bool
) -> go.Heatmap:
    """Return the cells that have a number."""
    name, top = break_words(find_measure(metric).name, 12), ends[1] if ends[1] > ends[0] else ends[0] + 1e-9
    number = [[row["pooled"] if _is_shown(row) else None for row in line] for line in lines]
    text = [[_write_cell(row, metric) if _is_shown(row) else "" for row in line] for line in lines]
    told = [[_explain_cell(row, metric) if _is_shown(row) else "" for row in line] for line in lines]
    return go.Heatmap(
        x=list(range(len(lines[0]))), y=list(range(len(lines))), z=number, zmin=ends[0], zmax=top,
        text=text, texttemplate="%{text}", textfont={"size": 12, "color": "#222222"}, xgap=3, ygap=3,
        customdata=told, hovertemplate=POINTED_AT, hoverongaps=False, colorscale=_CELLS, showscale=scale,
        colorbar={"title": {"text": name}, "thickness": 12, "len": 1.0, "y": 0.5},
    )  # fmt: skip


def _draw_hidden(hidden: Sequence[tuple[int, int, dict[str, Any]]]) -> list[go.Bar | go.Scatter]:
    """Return the hatched cells (row, column, what is known) and what they say."""
    x, quiet = [j for _, j, _ in hidden], {"showlegend": False, "hoverinfo": "skip"}
    base, marker = [i - 0.47 for i, _, _ in hidden], _HATCHED | {"line": {"width": 0}}
    words = [f"<b>{_say_hidden(row)}</b>" for _, _, row in hidden]
    font = {"size": 12, "color": "#333333"}
    return [
        go.Bar(x=x, y=[0.94] * len(x), base=base, width=0.97, marker=marker, **quiet),
        go.Scatter(x=x, y=[i for i, _, _ in hidden], mode="text", text=words, textfont=font, **quiet),
    ]


def _say_hidden(row: dict[str, Any]) -> str:
    """Return what is known of a hidden cell's number: it is text already."""
    text = str(row["n"]) if row else "nobody"
    return f"n {text.replace('<', '< ')}" if text.startswith("<") else text


def _write_cell(row: dict[str, Any], metric: str) -> str:
    interval = f"<br>{format_interval(row['low'], row['high'], metric)}" if np.isfinite(row["low"]) else ""
    return f"<b>{format_value(row['pooled'], metric)}</b>{interval}<br>n = {row['n']}"


def _explain_cell(row: dict[str, Any], metric: str) -> str:
    return (
        f"pooled mean {state_estimate(row['pooled'], row['low'], row['high'], metric)}"
        f"<br>raw mean {format_value(row['mean'], metric)}, n = {row['n']}"
        f"<br>weight of the raw mean {row['weight']:.0%}"
    )
