"""Figures of 02_inference: how long scans took, and what predictions look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from helpers.figures.panels import THINNED_OUT, draw_nothing, make_grid, offer_choices, thin_out
from helpers.figures.rows import draw_rows, list_group_marks
from helpers.figures.slices import OUTLINES
from helpers.figures.style import PALETTE, colour_models, mark_groups, style_figure
from helpers.vocabulary.words import name_for_people, name_organ, name_scan, state_estimate

if TYPE_CHECKING:
    from helpers.inference import MontagePanel


def plot_throughput(table: pd.DataFrame) -> go.Figure:
    """Plot the seconds each scan took, a dot per scan, a row per model.

    `table` is from ``run_inference``: model, scan, status, seconds, slices. Failed scans have no
    time; the axis says how many there are.
    """
    figure, thinned = go.Figure(), False
    names = list(dict.fromkeys(table["model"]))
    colours, symbols = colour_models(names), mark_groups(names)
    for name in names:
        part = table[table["model"] == name]
        finished = part[part["status"] == "ok"]
        failed = len(part) - len(finished)
        drawn = thin_out(finished, "seconds")
        thinned |= len(drawn) < len(finished)
        row = f"{name}<br>n = {len(finished)}" + (f", {failed} failed" if failed else "")
        clear, marker = "rgba(0,0,0,0)", {"color": colours[name], "symbol": symbols[name], "size": 7, "opacity": 0.75}
        figure.add_trace(
            go.Box(
                x=drawn["seconds"] if len(drawn) else [None], y=[row] * max(1, len(drawn)), name=name,
                orientation="h", boxpoints="all", jitter=0.6, pointpos=0, line={"color": clear}, fillcolor=clear,
                marker=marker, hoveron="points", showlegend=False,
                customdata=drawn[["slices"]].astype("float64").to_numpy() if len(drawn) else None,
                hovertemplate="%{x:.2f} s, %{customdata[0]:.0f} slices<extra></extra>",
            )
        )  # fmt: skip
    title = f"Seconds per scan ({THINNED_OUT})" if thinned else "Seconds per scan, one dot per scan"
    style_figure(figure, title=title, height=160 + 70 * max(1, len(names)))
    figure.update_xaxes(title="time for one scan on one worker (s, logarithmic)", type="log", dtick="D2")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def plot_stage_seconds(table: pd.DataFrame) -> go.Figure:
    """Plot where a scan's time goes: mean seconds of each step, a bar per model.

    `table` is from ``run_inference``. Models that encode nothing show reading and writing alone.
    """
    finished = table[table["status"] == "ok"]
    figure = go.Figure()
    labels = {"read": "read and prompt", "encode": "encode images", "decode": "decode prompts", "write": "write"}
    for (stage, label), colour, pattern in zip(labels.items(), PALETTE[:4], ("", "/", ".", "x"), strict=True):
        means = finished.groupby("model", sort=False)[f"{stage}_seconds"].mean()
        marker = {"color": colour, "pattern": {"shape": pattern, "fgcolor": "white", "size": 6}}
        look = {"orientation": "h", "marker": marker, "hovertemplate": f"%{{y}}: {label} %{{x:.2f}} s<extra></extra>"}
        figure.add_trace(go.Bar(y=list(means.index), x=means.fillna(0).to_numpy(), name=label, **look))
    height = 230 + 50 * max(1, finished["model"].nunique())
    style_figure(figure, title="Where the time goes, mean over scans", height=height)
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
    figure.update_layout(barmode="stack", legend=legend, margin_t=100)
    figure.update_xaxes(title="time for one scan on one worker (s)")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def plot_sensitivity(table: pd.DataFrame) -> go.Figure:
    """Plot per group how well the masks of repeated prompts agree, a panel per attribute.

    `table` is from ``summarise_sensitivity``.
    """
    title = "Agreement of masks when the prompt is drawn again"
    if table.empty:
        return draw_nothing(title, "Every prompt was drawn once (models.….prompt.draws: 1): nothing to compare.")
    reach = 1.96 * table["sd"] / np.sqrt(table["n"])
    rows = table["model"] + " · " + table["organ"].map(name_organ)
    table = table.assign(row=rows, ci_low=table["mean"] - reach, ci_high=table["mean"] + reach)
    grid = draw_rows(
        table,
        {name: list_group_marks(part) for name, part in table.groupby("attribute", sort=False)},
        list(dict.fromkeys(rows)),
        lambda row, _: (
            f"{row['group']}, n = {row['n']}: {state_estimate(row['mean'], row['ci_low'], row['ci_high'], 'dice')}"
        ),
        counted=False,
        zero=False,
    )
    grid.title_axes("mean Dice between draws")
    return grid.frame(title=title, subtitle="means; lines: 95 % confidence intervals", left=110)


def plot_montage(panels: Sequence[MontagePanel]) -> go.Figure:
    """Plot slices with the outlines of reference (solid) and prediction (dashed), a row per model.

    `panels` are from ``load_montage``. Of several organs one is shown at a time, chosen from a menu
    in the figure itself, which needs no kernel.
    """
    if not panels:
        return draw_nothing("Slices with their outlines", "No finished scan to show.")
    models = list(dict.fromkeys(panel.model for panel in panels))
    organs = list(dict.fromkeys(panel.organ for panel in panels))
    rows = {
        organ: [[panel for panel in panels if (panel.organ, panel.model) == (organ, model)] for model in models]
        for organ in organs
    }
    columns = max(len(row) for lines in rows.values() for row in lines)
    return offer_choices(
        {name_for_people(organ): _draw_montage(organ, rows[organ], columns, menu=len(organs) > 1) for organ in organs}
    )


def _draw_montage(organ: str, rows: Sequence[Sequence[MontagePanel]], columns: int, *, menu: bool) -> go.Figure:
    padded = [[*row, *[None] * (columns - len(row))] for row in rows]
    titles = [_describe_panel(panel) if panel else " " for row in padded for panel in row]
    own = {"shared_xaxes": False, "shared_yaxes": False}
    grid = make_grid(titles, 280, columns=columns, between=40, across=0.02, **own)
    shown: set[str] = set()
    for panel, place in zip((panel for row in padded for panel in row), grid.places, strict=True):
        if panel:
            _add_panel(grid.figure, panel, place, shown)
    title = f"{name_for_people(organ).capitalize()}: the slice with most of the organ"
    grid.frame(title=title, menu=menu, below=20, left=20)
    grid.figure.update_layout(margin_r=20, plot_bgcolor="white")
    grid.figure.update_xaxes(visible=False)
    grid.figure.update_yaxes(visible=False)
    grid.figure.update_annotations(font_size=13)
    return grid.figure


def plot_training(history: pd.DataFrame) -> go.Figure:
    """Plot loss and soft Dice of a training run over its steps.

    `history` has step, loss, dice, as ``run_training`` returns it: means over the steps since the
    row before.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    titles = {"loss": "loss (lower is better)", "dice": "soft Dice (0–1, higher is better)"}
    for column, (name, title) in enumerate(titles.items(), start=1):
        look = {"line": {"color": PALETTE[2 * column - 2]}, "marker": {"size": 4}, "showlegend": False}
        line = go.Scatter(x=history["step"], y=history[name], mode="lines+markers", name=name, **look)
        figure.add_trace(line, row=1, col=column)
        figure.update_xaxes(title="step", row=1, col=column)
        figure.update_yaxes(title=title, row=1, col=column)
    return style_figure(figure, title="Training on synthetic slices", height=360)


def _describe_panel(panel: MontagePanel) -> str:
    return f"{panel.model} · {name_scan(panel.number)} · {panel.label} · Dice {panel.dice:.2f}"


def _add_panel(figure: go.Figure, panel: MontagePanel, place: dict[str, int], shown: set[str]) -> None:
    height, width = panel.image.shape
    step_y, step_x = panel.spacing_mm
    grey = {"colorscale": "Greys_r", "zmin": 0, "zmax": 255, "showscale": False, "hoverinfo": "skip"}
    image = go.Heatmap(z=panel.image, x0=step_x / 2, dx=step_x, y0=step_y / 2, dy=step_y, **grey)
    figure.add_trace(image, **place)
    for which, (name, colour, dash) in OUTLINES.items():
        # One trace for all outlines: NaN lifts the pen.
        gap = np.full((1, 2), np.nan)
        joined = np.vstack([part for line in getattr(panel, which) for part in (line, gap)] or [gap])
        look = {"mode": "lines", "line": {"color": colour, "width": 2.5, "dash": dash}, "hoverinfo": "skip"}
        legend = {"name": name, "legendgroup": name, "showlegend": name not in shown}
        figure.add_trace(go.Scatter(x=joined[:, 0], y=joined[:, 1], **look, **legend), **place)
        shown.add(name)
    figure.update_xaxes(range=[0, width * step_x], constrain="domain", **place)
    anchor = figure.get_subplot(**place).xaxis.plotly_name.replace("xaxis", "x")
    figure.update_yaxes(range=[height * step_y, 0], scaleanchor=anchor, constrain="domain", **place)
