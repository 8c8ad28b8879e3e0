"""Figures of 02_inference: nothing dropped, n on every row, outlines told apart by more than
colour."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.figures.inference import (
    plot_montage,
    plot_sensitivity,
    plot_stage_seconds,
    plot_throughput,
    plot_training,
)
from helpers.inference import MontagePanel


def make_panel(model: str, number: int, **changes: object) -> MontagePanel:
    square = np.array([[4.0, 4.0], [10.0, 4.0], [10.0, 12.0], [4.0, 12.0], [4.0, 4.0]])
    options = {
        "organ": "kidney_left", "label": "worst", "dice": 0.5, "image": np.full((7, 9), 100, np.uint8),
        "spacing_mm": (2.0, 3.0), "reference": (square,), "prediction": (square + 1, square + 2),
    }  # fmt: skip
    return MontagePanel(model=model, number=number, **{**options, **changes})


def test_throughput_shows_every_finished_scan_and_counts_the_failed() -> None:
    table = pd.DataFrame(
        {
            "model": ["a", "a", "a", "b"],
            "status": ["ok", "ok", "failed", "failed"],
            "seconds": [1.5, 2.5, np.nan, np.nan],
            "slices": pd.array([10, 12, pd.NA, pd.NA], "Int64"),
        }
    )
    figure = plot_throughput(table)
    first, second = figure.data
    assert list(first.x) == [1.5, 2.5]
    assert first.y[0] == "a<br>n = 2, 1 failed"
    assert second.y[0] == "b<br>n = 0, 1 failed"
    assert "(s, " in figure.layout.xaxis.title.text
    assert first.marker.symbol != second.marker.symbol


def test_throughput_of_many_scans_says_that_not_each_has_a_dot() -> None:
    table = pd.DataFrame({"model": "a", "status": "ok", "seconds": np.linspace(1, 9, 700), "slices": 10})
    figure = plot_throughput(table)
    (dots,) = figure.data
    assert len(dots.x) == len(dots.y) == len(dots.customdata) == 500 and max(dots.x) == 9
    assert dots.y[0] == "a<br>n = 700" and "500 dots at most per group" in figure.layout.title.text


def test_montage_has_a_row_per_model_and_names_scans_by_number() -> None:
    panels = [
        make_panel("a", 3),
        make_panel("a", 12, label="best", dice=0.9),
        make_panel("b", 3, label="median", dice=0.75),
    ]
    figure = plot_montage(panels)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == [
        "a · scan 003 · worst · Dice 0.50",
        "a · scan 012 · best · Dice 0.90",
        "b · scan 003 · median · Dice 0.75",
        " ",
    ]
    lines = [trace for trace in figure.data if trace.type == "scatter"]
    assert [line.line.dash for line in lines] == ["solid", "5px,3px"] * 3
    assert [line.showlegend for line in lines] == [True, True] + [False] * 4
    # Both outlines of the prediction are in one trace, parted by a gap.
    assert np.isnan(np.asarray(lines[1].x, float)).sum() == 2
    image = next(trace for trace in figure.data if trace.type == "heatmap")
    assert (image.x0, image.dx, image.y0, image.dy) == (1.5, 3.0, 1.0, 2.0)  # pixel centres in mm
    assert tuple(figure.layout.yaxis.range) == (14.0, 0)  # the front of the body is up
    assert [figure.layout[axis].scaleanchor for axis in ("yaxis", "yaxis2", "yaxis3")] == ["x", "x2", "x3"]


def test_montage_of_nothing_says_so() -> None:
    assert "No finished scan" in plot_montage([]).layout.annotations[0].text
    assert len(plot_montage([make_panel("a", 1, prediction=())]).data) == 3


def test_training_shows_every_row() -> None:
    history = pd.DataFrame({"step": [100, 200], "loss": [2.0, 1.0], "dice": [0.3, 0.6], "rate": [1e-3, 1e-3]})
    figure = plot_training(history)
    assert [list(trace.y) for trace in figure.data] == [[2.0, 1.0], [0.3, 0.6]]
    assert figure.layout.xaxis.title.text == "step"


def test_montage_of_several_organs_has_a_menu_that_shows_one_at_a_time() -> None:
    wide = np.full((20, 30), 50, np.uint8)
    panels = [make_panel("a", 3), make_panel("a", 4, organ="liver", image=wide, label="best", dice=0.9)]
    figure = plot_montage(panels)
    first, second = figure.layout.updatemenus[0].buttons
    assert (first.label, second.label) == ("left kidney", "liver")
    assert [trace.visible for trace in figure.data] == [None] * 3 + [False] * 3
    assert second.args[0]["visible"] == [False] * 3 + [True] * 3
    changes = second.args[1]
    assert changes["title.text"].startswith("Liver")
    assert changes["annotations"][0]["text"] == "a · scan 004 · best · Dice 0.90"
    assert changes["xaxis.range"] == [0, 90.0]  # 30 pixels of 3 mm


def test_stage_seconds_are_means_over_finished_scans() -> None:
    table = pd.DataFrame(
        {
            "model": ["a", "a", "b"],
            "status": ["ok", "failed", "ok"],
            "read_seconds": [1.0, np.nan, 2.0],
            "encode_seconds": [3.0, np.nan, np.nan],
            "decode_seconds": [0.5, np.nan, np.nan],
            "write_seconds": [0.25, np.nan, 0.5],
        }
    )
    figure = plot_stage_seconds(table)
    assert [trace.name for trace in figure.data] == ["read and prompt", "encode images", "decode prompts", "write"]
    assert [list(trace.x) for trace in figure.data] == [[1.0, 2.0], [3.0, 0.0], [0.5, 0.0], [0.25, 0.5]]


def test_sensitivity_shows_groups_with_their_size_or_says_that_there_is_nothing() -> None:
    table = pd.DataFrame(
        {
            "model": "m",
            "organ": "kidney_left",
            "attribute": ["sex", "sex", "age"],
            "group": ["female", "male", "old"],
            "n": [10, 12, 9],
            "mean": [0.9, 0.95, 0.8],
            "sd": [0.1, 0.05, 0.2],
        }
    )
    figure = plot_sensitivity(table)
    assert [trace.name for trace in figure.data] == ["sex: female, n = 10", "sex: male, n = 12", "age: old, n = 9"]
    assert figure.layout.yaxis.ticktext == ("m · left kidney",)
    assert figure.data[0].customdata[0] == "female, n = 10: 0.900 (0.838 to 0.962)"
    assert "drawn once" in plot_sensitivity(table.iloc[:0]).layout.annotations[0].text
