"""Figures of 03_performance: what is drawn, what is named instead, and that nobody is named."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import fairness
from helpers.fairness.groups import hide_small_groups
from helpers.figures.fairness_gaps import plot_gap_forest, plot_gap_ladder
from helpers.figures.fairness_people import plot_group_people
from helpers.parameters import Fairness
from helpers.vocabulary.verdicts import read_verdict
from helpers.vocabulary.words import ALL_MODELS
from tests.test_fairness_groups import make_cohort, make_metrics

ROOT = Path(__file__).resolve().parents[1]
ATTRIBUTES = ["sex", "age", "site"]


@pytest.fixture
def tables(rng):
    sex = ["female"] * 12 + ["male"] * 12 + ["other"] * 3 + ["unsure"] * 3
    cohort = make_cohort(sex=sex, age=["young", "middle", "old"] * 10, site=["only"] * 30)
    cohort["subject"] = [f"SECRET{i}" for i in range(30)]
    cohort["scan"] = [f"HIDDEN{i}" for i in range(30)]
    metrics = make_metrics(cohort, liver=rng.random(30), kidney_left=rng.random(30)).assign(
        nsd=rng.random(60), dice_expected=rng.random(60)
    )
    metrics = pd.concat([metrics, metrics.assign(model="n", dice=rng.random(60))], ignore_index=True)
    settings = Fairness(metrics=["dice", "nsd"], min_group=5, bootstrap=100)
    people, _ = fairness.average_subjects(metrics, cohort, ATTRIBUTES, ["dice", "nsd"])
    return people, fairness.run_audit(metrics, cohort, settings, ATTRIBUTES, 1).disparity


def list_texts(figure) -> list[str]:
    return [annotation.text or "" for annotation in figure.layout.annotations]


def draw_people(people, metric="dice", attribute="sex", *, model="m", min_group=5):
    return plot_group_people(hide_small_groups(people, metric, attribute, min_group), metric, attribute, model=model)


def test_every_person_is_a_dot_and_small_groups_are_named_not_drawn(tables):
    people, _ = tables
    figure = draw_people(people)
    dots = [trace for trace in figure.data if trace.type == "scatter"]
    assert len(dots) == 3 * 2, "three panels (two organs and both pooled), two groups"
    assert all(len(trace.y) == 12 for trace in dots)
    chosen = people[(people["model"] == "m") & (people["organ"] == "liver") & (people["group_sex"] == "female")]
    assert sorted(dots[0].y) == sorted(chosen["dice"])
    assert figure.layout.xaxis.ticktext == (
        "female<br>n = 12",
        "male<br>n = 12",
        "other<br>too few",
        "unsure<br>too few",
    )
    assert "Not drawn, too few people: other; unsure" in list_texts(figure)
    assert figure.layout.yaxis.title.text == "Dice<br>(0–1, higher is better)"


def test_dots_stay_where_they_are(tables):
    people, _ = tables
    first, second = (draw_people(people, "nsd", "age", model="n") for _ in range(2))
    assert first.to_json() == second.to_json()
    dots = next(trace for trace in first.data if trace.type == "scatter")
    assert np.ptp(dots.x) > 0.1 and np.abs(dots.x).max() < 0.5


def test_figures_name_scan_numbers_never_ids(tables):
    people, disparity = tables
    for figure in (draw_people(people), plot_gap_forest(disparity, "dice"), plot_gap_ladder(disparity, "dice")):
        text = figure.to_json()
        assert "SECRET" not in text and "HIDDEN" not in text
    assert next(trace for trace in draw_people(people).data if trace.type == "scatter").text[0] == "scan 001"


def test_a_small_groups_values_are_not_in_the_figure(tables):
    people, _ = tables
    shown = np.concatenate([np.asarray(trace.y, float) for trace in draw_people(people).data])
    other = people.loc[people["group_sex"].isin(["other", "unsure"]), "dice"]
    assert not np.isin(other, shown).any()


def test_nobody_is_drawn_where_who_is_not_would_be_told_apart(tables):
    people, _ = tables
    figure = draw_people(people[people["group_sex"] != "unsure"])
    assert not figure.data and any(text.startswith("No person can be shown") for text in list_texts(figure))


def test_small_groups_that_are_many_together_are_few_where_some_were_not_measured(tables):
    people, _ = tables
    gone = (people["organ"] == "liver") & (people["group_sex"] == "unsure")
    shown = hide_small_groups(people.assign(dice=people["dice"].mask(gone)), "dice", "sex", 5)
    assert shown.loc[shown["organ"] == "liver", "group_sex"].isna().all()
    assert set(shown.loc[shown["organ"] == "kidney_left", "group_sex"].dropna()) == {"female", "male"}


def test_a_group_is_small_where_few_of_it_were_measured(tables):
    people, _ = tables
    gone = (people["organ"] == "liver") & (people["group_sex"] == "male") & (people["number"] < 21)
    few = hide_small_groups(people.assign(dice=people["dice"].mask(gone)), "dice", "sex", 5)
    liver = few[few["organ"] == "liver"]
    assert set(liver["group_sex"].dropna()) == {"female"} and len(few) == len(people)
    assert set(few.loc[few["organ"] == "kidney_left", "group_sex"].dropna()) == {"female", "male"}
    figure = plot_group_people(few, "dice", "sex", model="m")
    assert figure.layout.xaxis.ticktext[1] == "male<br>too few"
    assert "Not drawn, too few people: male (liver); other; unsure" in list_texts(figure)


def list_calls(source: str, name: str) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func).split(".")[-1] == name]


def test_whoever_draws_people_hides_small_groups_first():
    """The figure draws what it is given: report and notebooks give tables without small groups."""
    report = [path.read_text(encoding="utf-8") for path in (ROOT / "src/helpers/report").rglob("*.py")]
    [drawing] = [text for text in report if "partial(plot_group_people, members," in text]
    assert re.findall(r"members = (\w+)\(", drawing) == ["hide_small_groups"]
    cells = [
        cell for path in (ROOT / "notebooks").rglob("*.ipynb") for cell in json.loads(path.read_text("utf-8"))["cells"]
    ]
    drawn = ["".join(cell["source"]) for cell in cells if "plot_group_people(" in "".join(cell["source"])]
    assert any(list_calls(text, "plot_group_people") for text in drawn)
    for text in drawn:
        for call in list_calls(text, "plot_group_people"):
            assert f"{ast.unparse(call.args[0])} = performance.load_people(" in text


def test_forest_shows_gap_interval_margin_and_what_is_not_compared(tables):
    _, disparity = tables
    figure = plot_gap_forest(disparity, "dice")
    assert len(figure.data) == 2 * 2, "two models, not both together, two attributes that can be compared"
    row = disparity[(disparity["metric"] == "dice") & (disparity["attribute"] == "sex") & (disparity["model"] == "m")]
    trace = next(one for one in figure.data if one.name == "m")
    assert trace.x == pytest.approx(row["gap"].to_numpy())
    assert trace.x + np.asarray(trace.error_x.array) == pytest.approx(row["gap_high"].to_numpy())
    assert trace.x - np.asarray(trace.error_x.arrayminus) == pytest.approx(row["gap_low"].to_numpy())
    bands = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert {(band.x0, band.x1) for band in bands} == {(-0.02, 0.02)}
    assert any("Not compared, too few people: site" in text for text in list_texts(figure))
    alpha_shown = [read_verdict(one, 0.05).shows_difference for one in row.to_dict("records")]
    assert [not symbol.endswith("-open") for symbol in trace.marker.symbol] == alpha_shown
    signs = [note for note in figure.layout.annotations if note.xref == "x domain" and note.xanchor == "left"]
    assert (
        len(signs)
        == (
            disparity["metric"].eq("dice") & disparity["attribute"].eq("sex") & ~disparity["model"].eq(ALL_MODELS)
        ).sum()
    ), "a verdict beside every mark"
    people = "<br>n = 24–30"  # of both attributes, whose panels share the axis
    assert figure.layout.yaxis.ticktext == tuple(f"{organ}{people}" for organ in ("liver", "left kidney", "all organs"))


def test_forest_of_one_attribute(tables):
    _, disparity = tables
    figure = plot_gap_forest(disparity[disparity["attribute"] == "age"], "nsd")
    assert [text for text in list_texts(figure) if text in ("sex", "age")] == ["age"]


def test_nothing_to_show_is_said(tables):
    people, disparity = tables
    assert "No groups are large enough to be compared." in list_texts(
        plot_gap_forest(disparity.assign(gap=np.nan), "dice")
    )
    assert any("No person" in text for text in list_texts(draw_people(people, model="nobody")))
