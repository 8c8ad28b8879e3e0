"""The verdicts' heat map: every comparison has its cell, and no colour speaks alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.figures.verdicts import VERDICTS, plot_verdicts


def make_table() -> pd.DataFrame:
    rows = []
    for place, verdict in enumerate(VERDICTS):
        compared = verdict != "not compared"
        rows.append(
            {
                "model": "sam", "organ": "all" if place == 0 else "kidney_left", "metric": "boundary_error_mm",
                "attribute": f"attribute_{place}", "n": 40, "best_group": "male", "worst_group": "female",
                "gap": 1.234 if compared else np.nan, "gap_low": 0.5, "gap_high": 2.0, "p_adjusted": 0.01, "margin": 0.5,
                "detectable": 0.9, "adjusted_gap": 1.0, "verdict": verdict, "note": "too small to compare (under 10)",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_every_comparison_has_a_cell_with_sign_gap_and_unit() -> None:
    figure = plot_verdicts(make_table(), "boundary_error_mm")
    heat = figure.data[0]
    assert list(heat.y) == ["sam · all organs", "sam · kidney left"]
    assert heat.text[0, 0] == "▲ 1.2 mm"
    assert heat.text[1].tolist() == ["", "△ 1.2 mm", "= 1.2 mm", "? 1.2 mm", "–"]
    assert "margin 0.5 mm" in heat.customdata[0, 0]
    assert "80 % of studies" in heat.customdata[0, 0]
    assert "too small to compare" in heat.customdata[1, 4]
    assert np.isnan(heat.z[0, 1])  # that organ has no such comparison


def test_the_legend_words_every_sign() -> None:
    figure = plot_verdicts(make_table(), "boundary_error_mm")
    assert [trace.name.split(":")[0] for trace in figure.data[1:]] == [
        f"{sign} {name}" for name, (sign, _, _) in VERDICTS.items()
    ]


def test_nothing_measured_is_an_empty_figure() -> None:
    assert plot_verdicts(make_table(), "dice").data[0].z.shape == (0, 0)
