"""The answer first: one cell per model, organ and attribute, with the verdict on its gap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers.figures.style import METRIC_LABELS, name_for_people, style_figure

# From bad to good, then what is not known; words and signs carry what the colours do.
VERDICTS = {
    "disparity": ("▲", "#F4A582", "a gap beyond the margin, surely"),
    "negligible": ("△", "#FDDBC7", "a real gap, but within the margin"),
    "equivalent": ("=", "#92C5DE", "surely within the margin"),
    "inconclusive": ("?", "#F7F7F7", "too few people to say"),
    "not compared": ("–", "#E0E0E0", "no two groups are large enough"),
}
_UNITS = {"hd95_mm": " mm", "assd_mm": " mm", "boundary_error_mm": " mm", "volume_error_ml": " ml"}


def plot_verdicts(disparity: pd.DataFrame, metric: str) -> go.Figure:
    """Plot the verdict on every gap in one metric: a row per model and organ, a column per attribute.

    Parameters
    ----------
    disparity : DataFrame
        ``fairness/disparity.csv``.
    metric : str

    Returns
    -------
    Figure
        Each cell holds the verdict's sign, the gap and its unit; hovering tells the interval, the margin, the
        corrected p-value and the gap that this sample could have shown.
    """
    part = disparity[disparity["metric"] == metric]
    names = list(VERDICTS)
    rows = (
        part["model"]
        + " · "
        + part["organ"].map(lambda organ: "all organs" if organ == "all" else name_for_people(organ))
    )
    labels = list(dict.fromkeys(rows))
    attributes = list(dict.fromkeys(part["attribute"]))
    shape = (len(labels), len(attributes))
    codes, texts, hovers = np.full(shape, np.nan), np.full(shape, "", object), np.full(shape, "", object)
    for label, row in zip(rows, part.itertuples(index=False), strict=True):
        place = labels.index(label), attributes.index(row.attribute)
        codes[place] = names.index(row.verdict)
        sign = VERDICTS[row.verdict][0]
        texts[place] = sign if np.isnan(row.gap) else f"{sign} {row.gap:.2g}{_UNITS.get(metric, '')}"
        hovers[place] = _describe(row, metric)
    colours = [colour for _, colour, _ in VERDICTS.values()]
    figure = go.Figure(
        go.Heatmap(
            z=codes,
            x=[name_for_people(attribute) for attribute in attributes],
            y=labels,
            text=texts,
            texttemplate="%{text}",
            textfont={"color": "#222222", "size": 13},
            customdata=hovers,
            hovertemplate="%{customdata}<extra></extra>",
            zmin=-0.5,
            zmax=len(names) - 0.5,
            colorscale=[
                step
                for place, colour in enumerate(colours)
                for step in ((place / len(colours), colour), ((place + 1) / len(colours), colour))
            ],
            showscale=False,
            xgap=3,
            ygap=3,
        )
    )
    for name, (sign, colour, meaning) in VERDICTS.items():
        figure.add_trace(
            go.Scatter(
                x=[None],
                y=[None],
                mode="markers",
                marker={"symbol": "square", "size": 14, "color": colour, "line": {"color": "#888888", "width": 1}},
                name=f"{sign} {name}: {meaning}",
            )
        )
    short = METRIC_LABELS[metric].split(" (")[0]
    style_figure(
        figure,
        title=f"{short}: the gap between best and worst group, and what can be said of it",
        height=260 + 30 * len(labels),
    )
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "y": -20 / max(1, 30 * len(labels)), "yanchor": "top", "itemclick": False},
        plot_bgcolor="white",
        margin_b=150,
    )
    figure.update_xaxes(side="top", showgrid=False, type="category")
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False, type="category")
    return figure


def _describe(row: object, metric: str) -> str:
    unit = _UNITS.get(metric, "")
    if np.isnan(row.gap):
        return f"{row.verdict}: {row.note or 'nothing to compare'}"
    lines = [
        f"<b>{row.verdict}</b>: {VERDICTS[row.verdict][2]}",
        f"best {row.best_group}, worst {row.worst_group}, n = {row.n}",
        f"gap {row.gap:.3g}{unit} (95 % interval {row.gap_low:.3g} to {row.gap_high:.3g}), margin {row.margin:g}{unit}",
        f"corrected p = {row.p_adjusted:.3g}",
        f"this sample would show a gap of {row.detectable:.2g}{unit} in 80 % of studies",
    ]
    if np.isfinite(row.adjusted_gap):
        lines.append(f"other attributes and confounders held equal: {row.adjusted_gap:.3g}{unit}")
    return "<br>".join(lines)
