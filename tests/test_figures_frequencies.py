"""Slices of missed and added tissue: what is drawn where, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.figures.frequencies import plot_frequency_slices
from helpers.spatial import FrequencySlices

NOTHING = FrequencySlices(
    "sam", "liver", "", "", "false_negative", 21, percent=(), inside=(),
    position_mm=(-32.0, 10.0, 0.0), origin_mm=(-60.0, -40.0, -50.0), spacing_mm=(3.0, 2.0, 1.0),
)  # fmt: skip


def make_slices(percent=47, **changes):
    """A volume of shape (7, 8, 9): one wrong voxel in each slice, the organ in the middle."""
    planes, insides = [], []
    for rows, columns in ((8, 9), (7, 9), (7, 8)):
        plane, inside = np.zeros((rows, columns), np.uint8), np.zeros((rows, columns), bool)
        plane[2, 3] = percent
        inside[2:5, 2:6] = True
        planes.append(plane)
        insides.append(inside)
    return replace(NOTHING, percent=tuple(planes), inside=tuple(insides), **changes)


MISSED, ADDED = make_slices(), make_slices(12, kind="false_positive")


def list_headings(figure):
    return [
        heading.text.replace("<br>", " ").replace("<b>", "").replace("</b>", "")
        for heading in figure.layout.annotations
    ]


def test_missed_above_added_in_three_planes():
    figure = plot_frequency_slices([MISSED, ADDED])
    assert [trace.type for trace in figure.data] == ["heatmap", "scatter"] * 6
    np.testing.assert_array_equal(figure.data[0].z, MISSED.percent[0])
    np.testing.assert_array_equal(figure.data[10].z, ADDED.percent[2])
    assert list_headings(figure)[:3] == [
        "missed, axial 32 mm below the centre",
        "missed, coronal 10 mm behind the centre",
        "missed, sagittal through the centre",
    ]
    assert (
        figure.layout.title.text
        == "Liver, drawn by sam, everybody (n = 21): where it is missed and where too much is drawn"
    )


def test_one_scale_per_organ_in_percent():
    figure = plot_frequency_slices([MISSED, ADDED])
    assert {(trace.zmin, trace.zmax) for trace in figure.data if trace.type == "heatmap"} == {(0, 50)}, "47 rounded up"
    assert figure.data[4].colorbar.title.text == "% of people: missed"
    assert [trace.showscale for trace in figure.data if trace.type == "heatmap"] == [False, False, True] * 2


def test_voxels_lie_at_their_millimetres():
    figure = plot_frequency_slices([MISSED, ADDED])
    axial, coronal, sagittal = figure.data[0], figure.data[2], figure.data[4]
    assert (axial.x0, axial.dx, axial.y0, axial.dy) == (-50, 1, -40, 2)
    assert (coronal.x0, coronal.dx, coronal.y0, coronal.dy) == (-50, 1, -60, 3)
    assert (sagittal.x0, sagittal.dx, sagittal.y0, sagittal.dy) == (-40, 2, -60, 3)
    # The mean organ in the axial slice: rows 2 to 4 of 2 mm, columns 2 to 5 of 1 mm, half a voxel
    # more on each side.
    line = figure.data[1]
    assert (np.nanmin(line.y), np.nanmax(line.y)) == (-40 + 3.0, -40 + 9.0)
    assert (np.nanmin(line.x), np.nanmax(line.x)) == (-50 + 1.5, -50 + 5.5)


def test_seen_as_radiologists_do():
    layout = plot_frequency_slices([MISSED, ADDED]).layout
    assert layout.yaxis.range[0] > layout.yaxis.range[1] and layout.yaxis.title.text == "P → A (mm)"
    assert layout.xaxis.range[0] < layout.xaxis.range[1] and layout.xaxis.title.text == "R → L (mm)"
    assert layout.yaxis2.range[0] < layout.yaxis2.range[1] and layout.yaxis2.title.text == "I → S (mm)"
    assert layout.xaxis3.title.text == "A → P (mm)"


def test_menus_choose_model_organ_and_people():
    women = [replace(one, attribute="sex", group="female", people=9) for one in (MISSED, ADDED)]
    figure = plot_frequency_slices(
        [MISSED, ADDED, *women, replace(MISSED, organ="spleen"), replace(MISSED, model="medsam")]
    )
    labels = [[button.label for button in menu.buttons] for menu in figure.layout.updatemenus]
    assert labels[0] == ["model: sam", "model: medsam"]
    assert labels[1] == ["organ: liver", "organ: spleen"]
    assert labels[2] == ["people: everybody (n = 21)", "people: sex: female (n = 9)"]
    frames = {frame.name: frame for frame in figure.frames}
    chosen = frames[figure.layout.updatemenus[2].buttons[1].args[0][0]]
    assert chosen.layout.title.text.startswith("Liver, drawn by sam, sex: female (n = 9)")
    assert chosen.layout.updatemenus[2].active == 1


def test_a_kind_that_is_not_there_is_said():
    figure = plot_frequency_slices([MISSED])
    assert list_headings(figure)[3:] == [
        "added, axial: not known",
        "added, coronal: not known",
        "added, sagittal: not known",
    ]
    assert [trace.visible for trace in figure.data[6:]] == [False] * 6


@pytest.mark.parametrize("name", ["<a href='x'>y</a>"])
def test_names_are_text(name):
    text = plot_frequency_slices([replace(MISSED, model=name, attribute="sex", group=name)]).to_json()
    assert "<a " not in text


def test_nothing_to_draw_is_said():
    assert "No volumes" in plot_frequency_slices([]).layout.annotations[0].text
