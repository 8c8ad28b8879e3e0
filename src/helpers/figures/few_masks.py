"""Gaps from few masks and a proxy of everybody, beside those from the masks alone."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import draw_nothing
from helpers.figures.rows import Mark, draw_rows, label_gap
from helpers.figures.style import PALETTE
from helpers.vocabulary.words import format_p, name_organ, state_estimate

_MARKS = (
    Mark("masks alone", "gap_masked", ("gap_masked_low", "gap_masked_high"), PALETTE[5], "diamond-open"),
    Mark("masks and proxies", "gap", ("gap_low", "gap_high"), PALETTE[0], "circle"),
)


def plot_few_masks(gaps: pd.DataFrame, metric: str) -> go.Figure:
    """Plot each gap twice: by people with a mask alone, and with everybody's proxy.

    `gaps` is ``fairness/few_masks_gaps.csv``. A panel per attribute; shaded: the margin on both
    sides of zero.
    """
    title = "What the proxies add to the masks"
    part = gaps[gaps["metric"] == metric]
    if part.empty:
        return draw_nothing(title, "No two groups have enough people with masks.")
    several = len(set(part["model"])) > 1
    names = [
        f"{row.model} · {name_organ(row.organ)}" if several else name_organ(row.organ) for row in part.itertuples()
    ]
    drawn = part.assign(row=names, n=part["people"])
    grid = draw_rows(
        drawn,
        dict.fromkeys(drawn["attribute"], _MARKS),
        list(dict.fromkeys(names)),
        lambda row, mark: (
            f"<b>{row['row']}</b>, {mark.name}<br>{row['worst_group']} worse than {row['best_group']} by "
            f"{state_estimate(row[mark.value], row[f'{mark.value}_low'], row[f'{mark.value}_high'], metric)}<br>"
            f"{row['masks']} of {row['people']} people have a mask; adjusted {format_p(row['p_adjusted'])}"
        ),
    )
    grid.title_axes(label_gap(metric))
    return grid.frame(
        title=title, subtitle="best − worst group; lines: 95 % confidence intervals; shaded: within the margin"
    )
