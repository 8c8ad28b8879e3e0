"""The people behind the gaps: clouds, curves and cells; what is too small is hatched or named,
never drawn."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from helpers.figures.fairness_people import plot_group_people, plot_intersections, plot_trend_curves
from tests.test_figures_fairness_overview import list_texts


@pytest.fixture
def people(rng) -> pd.DataFrame:
    """Return 12 women, 12 men and 3 others with three organs and two models."""
    groups = pd.Categorical(["female"] * 12 + ["male"] * 12 + ["other"] * 3, ["female", "male", "other"])
    parts = [
        pd.DataFrame(
            {
                "model": model,
                "organ": organ,
                "number": range(1, 28),
                "scans": 1,
                "dice": rng.random(27),
                "group_sex": groups,
            }
        )
        for model in ("m", "n")
        for organ in ("liver", "spleen", "all")
    ]
    return pd.concat(parts, ignore_index=True)


def make_means(people: pd.DataFrame) -> pd.DataFrame:
    keys = people[["model", "organ", "group_sex"]].drop_duplicates().rename(columns={"group_sex": "group"})
    return keys.assign(
        metric="dice", attribute="sex", mean=np.where(keys["group"] == "other", np.nan, 0.6), ci_low=0.5, ci_high=0.8
    )


def make_trends() -> tuple[pd.DataFrame, pd.DataFrame]:
    values = np.linspace(30, 70, 5)
    curves = [
        pd.DataFrame(
            {
                "model": model,
                "organ": organ,
                "metric": "dice",
                "attribute": "age",
                "value": values,
                "estimate": 0.9 - 0.001 * values,
                "low": 0.8 - 0.001 * values,
                "high": 0.92 - 0.001 * values,
                "band_low": 0.7,
                "band_high": 0.95,
                "nearby": 12,
            }
        )
        for model in ("m", "n")
        for organ in ("liver", "all")
    ]
    keys = [(model, organ) for model in ("m", "n", "unfitted") for organ in ("liver", "all")]
    tests = pd.DataFrame(keys, columns=["model", "organ"]).assign(
        metric="dice",
        attribute="age",
        n=40,
        slope=-0.01,
        slope_low=-0.02,
        slope_high=0.001,
        unit="per 10 years",
        p_trend=0.0001,
        p_nonlinear=0.4,
        note="",
    )
    tests.loc[tests["model"] == "unfitted", ["n", "slope", "slope_low", "slope_high", "p_trend", "p_nonlinear"]] = (
        np.nan
    )
    tests.loc[tests["model"] == "unfitted", "note"] = "fewer than 10 people"
    return pd.concat(curves, ignore_index=True), tests


def make_cells(metric="dice") -> pd.DataFrame:
    rows = []
    for sex in ("female", "male"):
        for age in ("young", "old"):
            for bmi in ("low", "mid", "high"):
                hidden = {("female", "old", "high"): "<10", ("male", "old", "low"): "withheld"}.get((sex, age, bmi))
                value = np.nan if hidden else 0.8 + 0.01 * len(rows)
                rows.append(
                    {
                        "model": "m",
                        "organ": "liver",
                        "metric": metric,
                        "sex": sex,
                        "age": age,
                        "bmi": bmi,
                        "n": hidden or "14",
                        "mean": value,
                        "additive": value,
                        "pooled": value,
                        "low": value - 0.02,
                        "high": value + 0.02,
                        "weight": 0.5,
                        "suppressed": hidden is not None,
                    }
                )
    first = pd.DataFrame(rows)
    return pd.concat([first, first.assign(organ="spleen", pooled=first["pooled"] + 0.05)], ignore_index=True)


def show(figure, kind):
    return [trace for trace in figure.data if trace.type == kind and trace.visible is not False]


def test_raincloud_shows_everyone_the_shape_and_the_mean(people):
    figure = plot_group_people(people, "dice", "sex", model="m", groups=make_means(people))
    violins, scatters = show(figure, "violin"), show(figure, "scatter")
    assert len(violins) == 3 * 3 and all(trace.side == "positive" for trace in violins)
    means = [trace for trace in scatters if trace.name == "mean and its 95 % confidence interval"]
    dots = [trace for trace in scatters if trace.name is None]
    assert len(means) == 3 * 2 and len(dots) == 3 * 3, "groups.csv has no mean of the others"
    chosen = people[(people["model"] == "m") & (people["organ"] == "liver") & (people["group_sex"] == "female")]
    assert sorted(dots[0].y) == sorted(violins[0].y) == sorted(chosen["dice"])
    assert means[0].y[0] == 0.6 and means[0].error_y.array[0] == pytest.approx(0.2)
    assert means[0].error_y.arrayminus[0] == pytest.approx(0.1)
    assert sum(trace.showlegend is True for trace in figure.data) == 1


def test_of_a_large_group_some_people_stand_for_all_and_the_figure_says_so(people):
    women = people[(people["model"] == "m") & (people["organ"] == "liver") & (people["group_sex"] == "female")]
    many = pd.concat([women] * 100, ignore_index=True)
    many = many.assign(number=range(1, 1201), dice=np.linspace(0.2, 0.9, 1200) ** 2)
    figure = plot_group_people(many.sample(frac=1, random_state=0), "dice", "sex", model="m")
    (dots,), (violin,) = show(figure, "scatter"), show(figure, "violin")
    assert len(dots.y) == len(violin.y) == 500
    assert (min(dots.y), max(dots.y)) == (many["dice"].min(), many["dice"].max())
    assert np.median(dots.y) == pytest.approx(many["dice"].median(), abs=1e-3)
    told = " ".join(re.sub("<[^>]+>", " ", figure.layout.title.text).split())
    assert "500 dots at most per group, evenly by rank" in told and "everyone" not in told
    assert figure.layout.xaxis.ticktext[0] == "female<br>n = 1200"


def test_dots_lie_beside_the_violin_in_the_group_s_own_room(people):
    figure = plot_group_people(people, "dice", "sex", model="m")
    for trace in show(figure, "scatter"):
        place = round(float(np.mean(trace.x)) + 0.2)
        assert np.all(trace.x < place) and np.all(trace.x > place - 0.5)


def test_a_group_nobody_is_left_of_is_named(people):
    people["group_sex"] = people["group_sex"].mask(people["group_sex"] == "other")
    figure = plot_group_people(people, "dice", "sex", model="m", organs=["liver"], groups=make_means(people))
    assert "Not drawn, too few people: other" in list_texts(figure)
    assert figure.layout.xaxis.ticktext == ("female<br>n = 12", "male<br>n = 12", "other<br>too few")


def test_many_groups_have_room_for_their_names(people):
    names = np.array(["a", "b", "c", "d", "e", "f"])
    people["group_sex"] = np.tile(names, len(people))[: len(people)]
    figure = plot_group_people(people, "dice", "sex", model="m")
    assert figure.layout.xaxis.domain[1] == 1 and figure.layout.xaxis2.domain[1] == 1


def test_the_names_of_three_groups_do_not_touch_on_half_a_page(people):
    names = people["group_sex"].unique()
    people["group_sex"] = people["group_sex"].map(dict(zip(names, ("30 and over", "25 to 30", "x"), strict=True)))
    words = plot_group_people(people, "dice", "sex", model="m").layout.xaxis.ticktext
    lines = [line for word in words for line in word.split("<br>")[:-1]]
    assert "30 and" in lines and max(map(len, lines)) <= 7


def test_people_without_a_value_are_not_counted(people):
    people.loc[people["number"] == 1, "dice"] = np.nan
    figure = plot_group_people(people, "dice", "sex", model="m")
    assert figure.layout.xaxis.ticktext[0] == "female<br>n = 11"
    assert "No person" in list_texts(plot_group_people(people, "dice", "sex", model="nobody"))


def test_trend_shows_curve_bands_and_the_slope_in_words():
    trends, tests = make_trends()
    figure = plot_trend_curves(trends, tests, "dice")
    lines = [trace for trace in show(figure, "scatter") if trace.name == "mean" and trace.showlegend is False]
    assert len(lines) == 2 and lines[0].y == pytest.approx(trends["estimate"][:5])
    edges = [trace for trace in show(figure, "scatter") if trace.hoverinfo == "skip" and trace.x[0] is not None]
    assert [tuple(trace.y[:1]) for trace in edges[:4]] == [
        (0.7,),
        (0.95,),
        (pytest.approx(0.77),),
        (pytest.approx(0.89),),
    ]
    texts = list_texts(figure)
    assert "<b>m</b>, n = 40<br>−0.010 per 10 years<br>(−0.020 to 0.001)<br>p trend < 0.001, bend = 0.40" in texts
    assert "<b>unfitted</b><br>fewer than 10 people" in texts
    assert figure.layout.xaxis.title.text == "age (years)"
    assert "liver" in figure.layout.title.text
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["liver", "all organs"]


def test_trends_of_several_attributes_share_a_menu():
    tables = [pd.concat([table, table.assign(attribute="bmi")], ignore_index=True) for table in make_trends()]
    figure = plot_trend_curves(*tables, "dice")
    labels = [button.label for button in figure.layout.updatemenus[0].buttons]
    assert labels == ["age · liver", "age · all organs", "BMI · liver", "BMI · all organs"]


def test_no_trend_says_why():
    trends, tests = make_trends()
    assert "No curve was fitted" in list_texts(plot_trend_curves(trends.iloc[:0], tests.iloc[:0], "dice"))
    empty = plot_trend_curves(trends.iloc[:0], tests[tests["model"] == "unfitted"], "dice")
    assert "fewer than 10 people" in list_texts(empty)


def test_cells_show_mean_interval_and_number_hidden_ones_no_number():
    figure = plot_intersections(make_cells(), "dice")
    maps, bars = show(figure, "heatmap"), [trace for trace in show(figure, "bar") if trace.x[0] is not None]
    assert len(maps) == 2, "a panel per sex"
    assert maps[0].text[0][0] == "<b>0.800</b><br>0.780 to 0.820<br>n = 14"
    assert maps[0].z[1][2] is None and maps[0].text[1][2] == "" and maps[0].customdata[1][2] == ""
    assert [(list(bar.x), list(bar.base)) for bar in bars] == [([2], [0.53]), ([0], [0.53])]
    assert all(bar.marker.pattern.shape for bar in bars)
    words = [trace.text[0] for trace in show(figure, "scatter")]
    assert words == ["<b>n < 10</b>", "<b>withheld</b>"]
    assert {"sex: female", "sex: male"} <= set(list_texts(figure).split(" | "))


def test_cells_of_all_choices_share_their_colours():
    cells = make_cells()
    figure = plot_intersections(cells, "dice")
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    ends = (cells["pooled"].min(), cells["pooled"].max())
    assert {(trace.zmin, trace.zmax) for trace in maps} == {ends}
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["m · liver", "m · spleen"]


def test_cells_of_one_and_two_attributes_are_one_panel():
    for left_out, shape in ((["sex"], (2, 3)), (["sex", "age"], (1, 3))):
        cells = make_cells().iloc[:6].drop_duplicates([name for name in ("age", "bmi") if name not in left_out])
        cells = cells.drop(columns=left_out)
        (trace,) = show(plot_intersections(cells, "dice"), "heatmap")
        assert np.shape(trace.z) == shape


def test_no_cells_is_said():
    cells = make_cells()
    for figure in (
        plot_intersections(cells, "nsd"),
        plot_intersections(cells.drop(columns=["sex", "age", "bmi"]), "dice"),
    ):
        assert "There are no groups to combine." in list_texts(figure)
    nobody = plot_intersections(cells.assign(pooled=np.nan), "dice")
    assert "None of the 12 combinations of sex, age, BMI has enough people to be shown." in list_texts(nobody)
