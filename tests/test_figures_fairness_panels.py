"""What the fairness figures share: menus that leave nothing behind, titles clear of menus."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from helpers.figures.panels import (
    PanelGrid,
    count_columns,
    frame_figure,
    offer_choices,
    put_first,
)


def make_figure(name: str, points: int, *, footnote: str = "", band: bool = False) -> go.Figure:
    figure = go.Figure(
        [go.Scatter(x=[0], y=[place], name=f"{name} {place}", showlegend=True) for place in range(points)]
    )
    if band:
        figure.add_vrect(x0=-1, x1=1)
    return frame_figure(figure, title=name, subtitle="how to read it", body=200, menu=True, footnote=footnote)


def test_a_menu_shows_one_choice_and_takes_away_what_the_other_had():
    first = make_figure("first", 2, footnote="a note", band=True)
    figure = offer_choices({"one": first, "two": make_figure("second", 3)})
    assert [trace.visible is not False for trace in figure.data] == [True, True, False, False, False]
    one, two = (button.args for button in figure.layout.updatemenus[0].buttons)
    assert one[0]["visible"] == [True, True, False, False, False]
    assert two[0]["visible"] == [False, False, True, True, True]
    assert two[1]["annotations"] == [] and two[1]["shapes"] == []
    assert len(one[1]["annotations"]) == 1 and len(one[1]["shapes"]) == 1
    assert one[1]["height"] == first.layout.height != two[1]["height"]
    assert not any(key.startswith("template") for key in one[1])


def test_one_choice_needs_no_menu_and_the_choices_stay_as_they_were():
    figure = make_figure("only", 1)
    assert offer_choices({"only": figure}) is figure
    offer_choices({"only": figure, "other": figure})
    assert figure.data[0].visible is None and not figure.layout.updatemenus


@pytest.mark.parametrize("points", [1, 4, 30])
def test_title_menu_legend_and_panels_stand_one_below_the_other(points):
    figure = make_figure("entry of some length", points)
    layout = offer_choices({"a": figure, "b": figure}).layout
    panels = layout.height - layout.margin.t - layout.margin.b
    assert panels == 200
    title = layout.height * (1 - layout.title.y)
    menu = layout.margin.t - (layout.updatemenus[0].y - 1) * panels
    legend = layout.height * (1 - layout.legend.y)
    assert title + 40 < menu and menu + 34 < legend, "a menu is 34 pixels high"
    assert legend + 20 * {1: 1, 4: 1, 30: 8}[points] < layout.margin.t


def test_columns_leave_room_for_the_names_and_lowest_panels_have_titles():
    assert [count_columns(groups, 8) for groups in (2, 3, 4, 5, 6, 9)] == [3, 3, 2, 2, 1, 1]
    assert count_columns(2, 1) == 1
    figure = make_subplots(rows=2, cols=3)
    PanelGrid(figure, panels=4, columns=3, body=400).title_axes("mm", "Dice")
    titled = [axis for axis in ("xaxis", "xaxis2", "xaxis3", "xaxis4") if figure.layout[axis].title.text == "mm"]
    assert titled == ["xaxis2", "xaxis3", "xaxis4"]
    assert [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2", "yaxis4")] == ["Dice", None, "Dice"]


def test_the_chosen_one_comes_first_and_only_once():
    assert put_first(["a", "b", "a", "c"], "c") == ["c", "a", "b"]
    assert put_first(["a", "b"], None) == put_first(["a", "b"], "nowhere") == ["a", "b"]


def test_a_menu_finds_room_above_panels_of_one_low_row():
    figures = {
        name: frame_figure(
            go.Figure([go.Scatter(x=[0], y=[0], name=name, showlegend=True)]), title=name, body=24, head=60, menu=True
        )
        for name in ("one", "two")
    }
    figure = offer_choices(figures)
    assert 1 < figure.layout.updatemenus[0].y <= 3
