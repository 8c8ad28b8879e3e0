"""Figures of 02_inference: how long scans took, and what predictions look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.style import PALETTE, colour_groups, mark_groups, name_for_people, style_figure

if TYPE_CHECKING:
    from helpers.inference import MontagePanel

_REFERENCE_COLOUR = PALETTE[4]  # sky blue and orange stay apart on every grey and for every eye
_PREDICTION_COLOUR = PALETTE[5]


def plot_throughput(table: pd.DataFrame) -> go.Figure:
    """Plot the seconds each scan took, a dot per scan, a row per model.

    Parameters
    ----------
    table : DataFrame
        From ``run_inference``: model, scan, status, seconds, slices. Failed scans have no time; the
        axis says how many there are.
    """
    figure = go.Figure()
    names = list(dict.fromkeys(table["model"]))
    colours, symbols = colour_groups(names), mark_groups(names)
    for name in names:
        part = table[table["model"] == name]
        finished = part[part["status"] == "ok"]
        failed = len(part) - len(finished)
        row = f"{name}<br>n = {len(finished)}" + (f", {failed} failed" if failed else "")
        figure.add_trace(
            go.Box(
                x=finished["seconds"] if len(finished) else [None],
                y=[row] * max(1, len(finished)),
                name=name,
                orientation="h",
                boxpoints="all",
                jitter=0.6,
                pointpos=0,
                line={"color": "rgba(0,0,0,0)"},
                fillcolor="rgba(0,0,0,0)",
                marker={"color": colours[name], "symbol": symbols[name], "size": 7, "opacity": 0.75},
                customdata=finished[["slices"]].astype("float64").to_numpy() if len(finished) else None,
                hovertemplate="%{x:.2f} s, %{customdata[0]:.0f} slices<extra></extra>",
                hoveron="points",
                showlegend=False,
            )
        )
    style_figure(figure, title="Seconds per scan, one dot per scan", height=160 + 70 * max(1, len(names)))
    figure.update_xaxes(title="time for one scan on one worker (s, logarithmic)", type="log", dtick="D2")
    figure.update_yaxes(title=None, autorange="reversed", automargin=True)
    return figure


def plot_stage_seconds(table: pd.DataFrame) -> go.Figure:
    """Plot where a scan's time goes: mean seconds of reading, encoding, decoding and writing, a bar per model.

    Parameters
    ----------
    table : DataFrame
        From ``run_inference``. Models that encode nothing show reading and writing alone.
    """
    finished = table[table["status"] == "ok"]
    figure = go.Figure()
    for (stage, label), colour, pattern in zip(
        (("read", "read and prompt"), ("encode", "encode images"), ("decode", "decode prompts"), ("write", "write")),
        (PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]),
        ("", "/", ".", "x"),
        strict=True,
    ):
        means = finished.groupby("model", sort=False)[f"{stage}_seconds"].mean()
        figure.add_trace(
            go.Bar(
                y=list(means.index),
                x=means.fillna(0).to_numpy(),
                name=label,
                orientation="h",
                marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "white", "size": 6}},
                hovertemplate=f"%{{y}}: {label} %{{x:.2f}} s<extra></extra>",
            )
        )
    models = finished["model"].nunique()
    style_figure(figure, title="Where the time goes, mean over scans", height=230 + 50 * max(1, models))
    figure.update_layout(
        barmode="stack",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        margin_t=100,
    )
    figure.update_xaxes(title="time for one scan on one worker (s)")
    figure.update_yaxes(title=None, autorange="reversed", automargin=True)
    return figure


def plot_sensitivity(table: pd.DataFrame) -> go.Figure:
    """Plot per group how well the masks of repeated prompts agree, a panel per attribute.

    Parameters
    ----------
    table : DataFrame
        From ``summarise_sensitivity``.
    """
    if table.empty:
        figure = style_figure(
            go.Figure(), title="Every prompt was drawn once (models.….prompt.draws: 1): nothing to compare", height=120
        )
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        return figure
    attributes = list(dict.fromkeys(table["attribute"]))
    rows = table["model"] + " · " + table["organ"].map(name_for_people)
    names = list(dict.fromkeys(rows))
    figure = make_subplots(rows=1, cols=len(attributes), shared_yaxes=True, subplot_titles=attributes)
    for column, attribute in enumerate(attributes, start=1):
        part = table[table["attribute"] == attribute]
        groups = list(dict.fromkeys(part["group"]))
        colours, symbols = colour_groups(groups), mark_groups(groups)
        for group in groups:
            mine = part[part["group"] == group]
            figure.add_trace(
                go.Scatter(
                    x=mine["mean"],
                    y=rows[mine.index],
                    error_x={"type": "data", "array": 1.96 * mine["sd"] / np.sqrt(mine["n"]), "thickness": 1},
                    mode="markers",
                    marker={"color": colours[group], "symbol": symbols[group], "size": 9},
                    name=group,
                    legendgroup=attribute,
                    legendgrouptitle={"text": attribute},
                    customdata=mine[["n"]],
                    hovertemplate=f"{group}, n = %{{customdata[0]}}: %{{x:.3f}}<extra></extra>",
                ),
                row=1,
                col=column,
            )
        figure.update_xaxes(title="mean Dice between draws", row=1, col=column)
    style_figure(
        figure,
        title="Agreement of masks when the prompt is drawn again, with 95 % intervals",
        height=190 + 30 * len(names),
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def plot_montage(panels: Sequence[MontagePanel]) -> go.Figure:
    """Plot slices with the reference's outline (solid) and the prediction's (dashed), a row per model.

    Parameters
    ----------
    panels : sequence of MontagePanel
        From ``load_montage``. Of several organs one is shown at a time, chosen from a menu in the figure
        itself, which needs no kernel.
    """
    if not panels:
        figure = style_figure(go.Figure(), title="No finished scan to show", height=160)
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        return figure
    models = list(dict.fromkeys(panel.model for panel in panels))
    organs = list(dict.fromkeys(panel.organ for panel in panels))
    by_place = {
        organ: [[panel for panel in panels if (panel.organ, panel.model) == (organ, model)] for model in models]
        for organ in organs
    }
    columns = max(len(row) for rows in by_place.values() for row in rows)
    drawn = [_draw_montage(organ, by_place[organ], columns) for organ in organs]
    figure = go.Figure(drawn[0])
    if len(organs) == 1:
        return figure
    buttons = []
    total = sum(len(part.data) for part in drawn)
    for part in drawn[1:]:
        figure.add_traces([trace.update(visible=False) for trace in part.data])
    start = 0
    for organ, part in zip(organs, drawn, strict=True):
        shown = [start <= place < start + len(part.data) for place in range(total)]
        buttons.append(
            {"label": name_for_people(organ), "method": "update", "args": [{"visible": shown}, _list_changes(part)]}
        )
        start += len(part.data)
    figure.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "x": 0.0,
                "xanchor": "left",
                "y": 1.0 + 42 / figure.layout.height,
                "yanchor": "bottom",
                "pad": {"t": 0, "b": 0},
                "bgcolor": "white",
            }
        ],
        margin_t=140,
        title={"y": 1 - 18 / figure.layout.height, "yref": "container", "yanchor": "top"},
    )
    return figure


def _draw_montage(organ: str, rows: Sequence[Sequence[MontagePanel]], columns: int) -> go.Figure:
    titles = [_describe_panel(row[place]) if place < len(row) else "" for row in rows for place in range(columns)]
    height = 130 + 300 * len(rows)
    figure = make_subplots(
        rows=len(rows),
        cols=columns,
        subplot_titles=[title or " " for title in titles],
        horizontal_spacing=0.02,
        vertical_spacing=min(0.16, 50 / height),
    )
    shown: set[str] = set()
    for i, row in enumerate(rows, start=1):
        for j, panel in enumerate(row, start=1):
            _add_panel(figure, panel, i, j, shown)
    style_figure(
        figure, title=f"{name_for_people(organ).capitalize()}: the slice with most of the organ", height=height
    )
    figure.update_layout(
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0 + 45 / height, "yanchor": "bottom"},
        margin={"l": 20, "r": 20, "t": 90, "b": 20},
        plot_bgcolor="white",
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_annotations(font_size=13)
    return figure


def _list_changes(figure: go.Figure) -> dict[str, object]:
    """Return what of the layout differs from organ to organ: title, the panels' titles and their extents."""
    layout = figure.layout.to_plotly_json()
    changes: dict[str, object] = {"title.text": layout["title"]["text"], "annotations": layout["annotations"]}
    changes |= {f"{key}.range": axis["range"] for key, axis in layout.items() if "axis" in key and "range" in axis}
    return changes


def plot_training(history: pd.DataFrame) -> go.Figure:
    """Plot loss and soft Dice of a training run over its steps.

    Parameters
    ----------
    history : DataFrame
        step, loss, dice, as ``run_training`` returns it: means over the steps since the row before.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    for column, (name, title, colour) in enumerate(
        (("loss", "loss (lower is better)", PALETTE[0]), ("dice", "soft Dice (0–1, higher is better)", PALETTE[2])),
        start=1,
    ):
        figure.add_trace(
            go.Scatter(
                x=history["step"],
                y=history[name],
                mode="lines+markers",
                line={"color": colour},
                marker={"size": 4},
                name=name,
                showlegend=False,
            ),
            row=1,
            col=column,
        )
        figure.update_xaxes(title="step", row=1, col=column)
        figure.update_yaxes(title=title, row=1, col=column)
    return style_figure(figure, title="Training on synthetic slices", height=360)


def _describe_panel(panel: MontagePanel) -> str:
    return f"{panel.model} · scan {panel.number:03d} · {panel.label} · Dice {panel.dice:.2f}"


def _add_panel(figure: go.Figure, panel: MontagePanel, row: int, column: int, shown: set[str]) -> None:
    height, width = panel.image.shape
    spacing_y, spacing_x = panel.spacing_mm
    figure.add_trace(
        go.Heatmap(
            z=panel.image,
            x0=spacing_x / 2,
            dx=spacing_x,
            y0=spacing_y / 2,
            dy=spacing_y,
            colorscale="Greys_r",
            zmin=0,
            zmax=255,
            showscale=False,
            hoverinfo="skip",
        ),
        row=row,
        col=column,
    )
    for name, outlines, colour, dash in (
        ("reference (solid)", panel.reference, _REFERENCE_COLOUR, "solid"),
        ("prediction (dashed)", panel.prediction, _PREDICTION_COLOUR, "5px,3px"),
    ):
        # One trace for all outlines: None lifts the pen.
        points = [np.vstack([line, [[np.nan, np.nan]]]) for line in outlines]
        joined = np.vstack(points) if points else np.full((1, 2), np.nan)
        figure.add_trace(
            go.Scatter(
                x=joined[:, 0],
                y=joined[:, 1],
                mode="lines",
                line={"color": colour, "width": 2.5, "dash": dash},
                name=name,
                legendgroup=name,
                showlegend=name not in shown,
                hoverinfo="skip",
            ),
            row=row,
            col=column,
        )
        shown.add(name)
    figure.update_xaxes(visible=False, range=[0, width * spacing_x], constrain="domain", row=row, col=column)
    figure.update_yaxes(
        visible=False,
        range=[height * spacing_y, 0],
        scaleanchor=figure.get_subplot(row, column).xaxis.plotly_name.replace("xaxis", "x"),
        constrain="domain",
        row=row,
        col=column,
    )
