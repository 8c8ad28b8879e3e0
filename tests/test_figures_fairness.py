"""Figures of 03_performance: what is drawn, what is named instead, and that nobody is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers import fairness
from helpers.figures.fairness import plot_gap_forest, plot_group_dots, plot_size_explained
from helpers.parameters import Fairness
from tests.test_fairness_groups import make_cohort, make_metrics

ATTRIBUTES = ["sex", "age", "site"]


@pytest.fixture
def tables(rng):
    sex = ["female"] * 12 + ["male"] * 12 + ["other"] * 3
    cohort = make_cohort(sex=sex, age=["young", "middle", "old"] * 9, site=["only"] * 27)
    cohort["subject"] = [f"SECRET{i}" for i in range(27)]
    cohort["scan"] = [f"HIDDEN{i}" for i in range(27)]
    metrics = make_metrics(cohort, liver=rng.random(27), kidney_left=rng.random(27)).assign(
        nsd=rng.random(54), dice_expected=rng.random(54)
    )
    metrics = pd.concat([metrics, metrics.assign(model="n", dice=rng.random(54))], ignore_index=True)
    settings = Fairness(metrics=["dice", "nsd"], min_group=5, bootstrap=100)
    people, _ = fairness.average_subjects(metrics, cohort, ATTRIBUTES, ["dice", "nsd"])
    return people, fairness.run_audit(metrics, cohort, settings, ATTRIBUTES, 1).disparity


def list_texts(figure) -> list[str]:
    return [annotation.text or "" for annotation in figure.layout.annotations]


def test_every_person_is_a_dot_and_small_groups_are_named_not_drawn(tables):
    people, _ = tables
    figure = plot_group_dots(people, "dice", "sex", model="m", min_group=5)
    dots = [trace for trace in figure.data if trace.type == "scatter"]
    assert len(dots) == 3 * 2, "three panels (two organs and both pooled), two groups"
    assert all(len(trace.y) == 12 for trace in dots)
    chosen = people[(people["model"] == "m") & (people["organ"] == "liver") & (people["group_sex"] == "female")]
    assert sorted(dots[0].y) == sorted(chosen["dice"])
    assert figure.layout.xaxis.ticktext == ("female<br>n = 12", "male<br>n = 12", "other<br>n < 5")
    assert "Not drawn (fewer than 5 people): other" in list_texts(figure)
    assert figure.layout.yaxis.title.text == "Dice<br>(0–1, higher is better)"


def test_dots_stay_where_they_are(tables):
    people, _ = tables
    first, second = (plot_group_dots(people, "nsd", "age", model="n", min_group=5) for _ in range(2))
    assert first.to_json() == second.to_json()
    dots = next(trace for trace in first.data if trace.type == "scatter")
    assert np.ptp(dots.x) > 0.2 and np.abs(dots.x).max() < 0.31


def test_figures_name_scan_numbers_never_ids(tables):
    people, disparity = tables
    for figure in (
        plot_group_dots(people, "dice", "sex", model="m", min_group=5),
        plot_gap_forest(disparity, "dice"),
        plot_size_explained(disparity),
    ):
        text = figure.to_json()
        assert "SECRET" not in text and "HIDDEN" not in text
    dots = plot_group_dots(people, "dice", "sex", model="m", min_group=5).data[1]
    assert dots.text[0] == "scan 001"


def test_a_small_groups_values_are_not_in_the_figure(tables):
    people, _ = tables
    figure = plot_group_dots(people, "dice", "sex", model="m", min_group=5)
    shown = np.concatenate([np.asarray(trace.y, float) for trace in figure.data])
    other = people.loc[people["group_sex"] == "other", "dice"]
    assert not np.isin(other, shown).any()


def test_forest_shows_gap_interval_margin_and_what_is_not_compared(tables):
    _, disparity = tables
    figure = plot_gap_forest(disparity, "dice")
    assert len(figure.data) == 2 * 2, "two models, two attributes that can be compared"
    row = disparity[(disparity["metric"] == "dice") & (disparity["attribute"] == "sex") & (disparity["model"] == "m")]
    trace = figure.data[0]
    assert trace.x == pytest.approx(row["gap"].to_numpy())
    assert trace.x + np.asarray(trace.error_x.array) == pytest.approx(row["gap_high"].to_numpy())
    assert trace.x - np.asarray(trace.error_x.arrayminus) == pytest.approx(row["gap_low"].to_numpy())
    bands = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert {(band.x0, band.x1) for band in bands} == {(-0.02, 0.02)}
    assert "Not compared, too few people: site" in list_texts(figure)
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol
    assert figure.layout.yaxis.ticktext == ("liver<br>n = 24", "kidney left<br>n = 24", "all organs<br>n = 24")


def test_forest_of_one_attribute(tables):
    _, disparity = tables
    figure = plot_gap_forest(disparity, "nsd", "age")
    assert [text for text in list_texts(figure) if text in ("sex", "age")] == ["age"]


def test_size_figure_shows_raw_expected_and_excess(tables):
    _, disparity = tables
    figure = plot_size_explained(disparity)
    row = disparity[(disparity["metric"] == "dice") & (disparity["attribute"] == "sex") & (disparity["model"] == "m")]
    for trace, column in zip(figure.data[:3], ("gap", "expected_gap", "excess_gap"), strict=True):
        assert trace.x == pytest.approx(row[column].to_numpy())


def test_nothing_to_show_is_said(tables):
    people, disparity = tables
    assert "No groups are large enough to be compared." in list_texts(plot_gap_forest(disparity, "dice", "site"))
    without = disparity.drop(columns=["expected_gap", "excess_gap", "excess_low", "excess_high"])
    assert any("Dice is not among" in text for text in list_texts(plot_size_explained(without)))
    assert any("No person" in text for text in list_texts(plot_group_dots(people, "dice", "sex", model="nobody")))
