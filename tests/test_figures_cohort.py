"""Figures of who is studied: every scan and person is drawn once, every group carries its n."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.figures.cohort import (
    plot_distributions,
    plot_flow,
    plot_missingness,
    plot_overlap,
)


@pytest.fixture
def table() -> pd.DataFrame:
    """Six scans of five people: person p has two, person u is out; one sex has no group, one BMI is
    missing."""
    sexes = ["female", "female", "male", "male", "other", "male"]
    return pd.DataFrame(
        {
            "subject": ["p", "p", "q", "r", "s", "u"],
            "number": range(1, 7),
            "sex": sexes,
            "age": [30.0, 31.0, 40.0, 50.0, 60.0, 99.0],
            "bmi": [20.0, 20.0, None, 25.0, 30.0, 35.0],
            "included": [True, True, True, True, True, False],
            "group_sex": pd.Categorical(
                [sex if sex != "other" else None for sex in sexes],
                categories=["female", "male"],
                ordered=True,
            ),
        }
    )


def test_flow_takes_away_what_was_left_out():
    flow = pd.DataFrame({"step": ["found", "age is not plausible", "included"], "scans": [6, 2, 4]})
    (bars,) = plot_flow(flow).data
    assert list(bars.x) == [6, -2, 4] and list(bars.measure) == [
        "absolute",
        "relative",
        "total",
    ]
    assert list(bars.text) == ["6", "2", "4"], "the number written is the number of scans"


def test_distributions_show_each_included_person_once_with_n_and_no_source_id(table):
    figure = plot_distributions(table)
    boxes = {(trace.xaxis, trace.name): list(trace.y) for trace in figure.data}
    ages, bmis = ({name: y for (axis, name), y in boxes.items() if axis == wanted} for wanted in ("x", "x2"))
    assert ages["female<br>n = 1"] == [30.0], "the first of two scans"
    assert ages["male<br>n = 2"] == [40.0, 50.0] and bmis["male<br>n = 1"] == [25.0], "n counts what is drawn"
    assert figure.layout.yaxis.title.text == "age (years)" and "kg/m²" in figure.layout.yaxis2.title.text
    assert all(trace.text is None for trace in figure.data), "no number, by which other figures name people"


def test_distributions_of_many_people_keep_their_quartiles(table):
    many = pd.DataFrame({"subject": range(3000), "included": True, "age": np.linspace(20, 80, 3000), "bmi": 25.0})
    ages, _ = plot_distributions(many).data
    assert ages.name.endswith("n = 3000") and len(ages.y) == 500
    assert np.quantile(ages.y, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([20, 35, 50, 65, 80], abs=0.05)
    assert "500 dots at most per group" in plot_distributions(many).layout.title.text


def test_distributions_without_a_sex_column_show_everyone(table):
    figure = plot_distributions(table.drop(columns="group_sex"))
    assert [trace.name for trace in figure.data] == [
        "everyone<br>n = 4",
        "everyone<br>n = 3",
    ]


def test_missingness_adds_up_to_the_included_scans():
    missing = pd.DataFrame(
        {
            "attribute": ["sex", "bmi"],
            "in a group": [3, 4],
            "value without a group": [1, 0],
            "missing": [1, 1],
        }
    )
    figure = plot_missingness(missing)
    totals = pd.DataFrame([list(trace.x) for trace in figure.data]).sum()
    assert totals.tolist() == [5, 5] and figure.layout.barmode == "stack"
    assert figure.layout.xaxis.title.text == "included scans"


def test_overlap_writes_every_count_into_its_own_cell():
    rows = [
        ("sex", "female", "age", "18–44", 3),
        ("sex", "female", "age", "45 and over", 0),
        ("sex", "male", "age", "18–44", np.nan),
        ("sex", "male", "age", "45 and over", 5),
    ]
    overlaps = pd.DataFrame(rows, columns=["attribute_a", "group_a", "attribute_b", "group_b", "n"])
    (heat,) = plot_overlap(overlaps).data
    cells = {(x, y): heat.z[j][i] for i, x in enumerate(heat.x) for j, y in enumerate(heat.y)}
    assert cells == pytest.approx({(row[1], row[3]): row[4] for row in rows}, nan_ok=True), "empty pairs too"
    assert sorted(heat.text.ravel()) == ["0", "3", "5", "few"]


def test_one_attribute_alone_has_nothing_to_overlap():
    figure = plot_overlap(pd.DataFrame(columns=["attribute_a", "group_a", "attribute_b", "group_b", "n"]))
    assert not figure.data and "one attribute alone" in figure.layout.annotations[0].text


@pytest.mark.parametrize("attributes", [2, 4, 7])
def test_any_number_of_attributes_has_its_pairs_drawn(attributes):
    names = [f"attribute {number}" for number in range(attributes)]
    rows = [
        (first, level, second, other, 4)
        for place, first in enumerate(names)
        for second in names[place + 1 :]
        for level in ("low", "high")
        for other in ("yes", "no")
    ]
    overlaps = pd.DataFrame(rows, columns=["attribute_a", "group_a", "attribute_b", "group_b", "n"])
    figure = plot_overlap(overlaps)
    assert len(figure.data) == attributes * (attributes - 1) // 2
    bottoms = {axis.domain for axis in figure.select_yaxes()}
    assert len(bottoms) == -(-len(figure.data) // 3), "three abreast, then the next row"
