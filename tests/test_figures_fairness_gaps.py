"""What gaps are made of, and how alike matched people are: each mark where the table says, nothing
dropped unsaid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.figures.fairness_gaps import plot_balance, plot_gap_ladder
from tests.test_figures_fairness_overview import list_texts, make_disparity


def make_balance() -> pd.DataFrame:
    rows = [
        ("sex", "female", "male", "age", "", 0.5, 0.05),
        ("sex", "female", "male", "modality", "CT", -0.3, 0.0),
        ("sex", "female", "male", "modality", "MR", np.nan, np.nan),
        ("bmi", "low", "high", "age", "", 0.2, np.nan),
    ]
    columns = ["attribute", "group_a", "group_b", "covariate", "level", "smd_before", "smd_after"]
    return pd.DataFrame(rows, columns=columns).assign(
        mean_a=50.0, mean_b=45.0, mean_a_after=48.0, mean_b_after=47.5, suppressed=[False, False, True, False]
    )


def test_ladder_shows_raw_expected_excess_and_adjusted():
    disparity = make_disparity()
    figure = plot_gap_ladder(disparity, "dice", "m")
    shown = [trace for trace in figure.data if trace.visible is not False]
    assert len(shown) == 4 * 2, "four kinds, two attributes that are compared"
    row = disparity[(disparity["model"] == "m") & (disparity["metric"] == "dice") & (disparity["attribute"] == "sex")]
    for trace, column in zip(shown[:4], ("gap", "expected_gap", "excess_gap", "adjusted_gap"), strict=True):
        assert trace.x == pytest.approx(row[column].to_numpy())
    adjusted = shown[3]
    assert adjusted.x - np.asarray(adjusted.error_x.arrayminus) == pytest.approx(row["adjusted_low"].to_numpy())
    assert shown[1].error_x.array is None, "the expected gap has no interval"
    assert len({trace.marker.symbol for trace in shown}) == 4
    assert "n = 22" in adjusted.customdata[0] and "n = 24" in shown[0].customdata[0]
    assert "Not compared, too few people: site" in list_texts(figure)
    bands = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert [(band.x0, band.x1) for band in bands] == [(-0.02, 0.02)] * 2


def test_ladder_keeps_one_scale_for_all_models():
    disparity = make_disparity(("dice",))
    figure = plot_gap_ladder(disparity, "dice", "long_model_name")
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["long_model_name", "m"]
    low, high = figure.layout.xaxis.range
    assert low < disparity["adjusted_low"].min() and high > disparity["gap_high"].max()
    for button in figure.layout.updatemenus[0].buttons:
        assert not any(key.endswith(".range") for key in button.args[1])
        assert button.label in button.args[1]["title.text"]


def test_ladder_leaves_out_kinds_that_a_metric_has_not():
    columns = ["expected_gap", "excess_gap", "excess_low", "excess_high"]
    for disparity in (
        make_disparity(("nsd",)).assign(**dict.fromkeys(columns, np.nan)),
        make_disparity(("nsd",)).drop(columns=columns),
    ):
        names = {trace.name for trace in plot_gap_ladder(disparity, "nsd").data}
        assert names == {"raw gap", "adjusted for what comes before"}


def test_ladder_of_nothing_says_so():
    disparity = make_disparity(("dice",))
    for figure in (
        plot_gap_ladder(disparity, "nsd"),
        plot_gap_ladder(disparity[disparity["attribute"] == "site"], "dice"),
        plot_gap_ladder(disparity, "dice", "nobody"),
    ):
        assert "No groups are large enough" in list_texts(figure)


def test_balance_shows_absolute_differences_before_and_after():
    figure = plot_balance(make_balance().query("attribute == 'sex'"))
    before = next(trace for trace in figure.data if trace.name == "before matching")
    after = next(trace for trace in figure.data if trace.name == "after matching")
    assert list(before.x) == [0.5, 0.3] and list(after.x) == [0.05, 0.0]
    assert figure.layout.yaxis.ticktext == ("age", "modality: CT")
    assert before.marker.symbol != after.marker.symbol
    assert [shape.x0 for shape in figure.layout.shapes] == [0.1]
    assert "female 50, male 45" in before.customdata[0] and "female 48, male 47.5" in after.customdata[0]
    assert "share" in before.customdata[1]


def test_balance_of_every_attribute_is_a_panel_each():
    figure = plot_balance(make_balance())
    assert "sex: female and male" in list_texts(figure) and "BMI: low and high (no pairs)" in list_texts(figure)
    assert figure.layout.xaxis.title.text == figure.layout.xaxis2.title.text == "difference (SD)"
    assert len(figure.layout.shapes) == 2


def test_balance_of_nobody_says_so():
    unmatched = make_balance().assign(smd_before=np.nan, smd_after=np.nan)
    assert "No people were matched" in list_texts(plot_balance(unmatched))
    assert "No people were matched" in list_texts(plot_balance(make_balance().iloc[:0]))
