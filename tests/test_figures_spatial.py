"""Figures of surfaces and slices: what is drawn is what the tables say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from helpers.figures.spatial import (
    CAMERAS,
    ERROR_TITLE,
    MISSING_COLOUR,
    find_middle,
    plot_error_surface,
    plot_slices,
    trace_outline,
)

# An octahedron: L, R, P, A, S, I.
VERTICES = 20.0 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
FACES = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])


def make_maps(**changes):
    table = pd.DataFrame(
        {
            "model": "sam", "organ": "liver", "attribute": "sex", "vertex": range(6),
            "x": VERTICES[:, 0], "y": VERTICES[:, 1], "z": VERTICES[:, 2],
            "error_female": [-1.8, 0, 0, 0, np.nan, 0.5], "error_male": [0.0, 0, 0, 0, np.nan, 0.5],
            "error_young": np.nan, "group_a": "female", "group_b": "male",
            "difference": [-1.8, 0, 0, 0, np.nan, 0],
        }
    )  # fmt: skip
    return table.assign(**changes)


GROUPS = pd.DataFrame({"attribute": ["sex", "sex"], "group": ["female", "male"], "n": [21, 33]})


def test_menu_offers_difference_and_groups_with_their_numbers():
    figure = plot_error_surface(VERTICES, FACES, make_maps(), groups=GROUPS, title="liver, sam")
    labels = [button.label for button in figure.layout.updatemenus[0].buttons]
    assert labels == [
        "sex: female (n = 21) − male (n = 33); above 0: further out in female",
        "sex: female (n = 21)",
        "sex: male (n = 33)",
    ], "a group without values has no entry"
    assert figure.layout.title.text.startswith("liver, sam<br>")
    assert labels[0] in figure.layout.title.text


def test_colour_and_hover_follow_the_values():
    mesh = plot_error_surface(VERTICES, FACES, make_maps()).data[0]
    assert isinstance(mesh, go.Mesh3d)
    assert list(mesh.text) == ["−1.80 mm", "+0.00 mm", "+0.00 mm", "+0.00 mm", "no value", "+0.00 mm"]
    assert mesh.vertexcolor[1] == "#f7f7f7", "no error is the neutral middle"
    assert mesh.vertexcolor[4] == MISSING_COLOUR
    red, _, blue = (int(mesh.vertexcolor[0][k : k + 2], 16) for k in (1, 3, 5))
    assert blue > red, "too small is blue"


def test_menu_entries_carry_the_other_maps():
    figure = plot_error_surface(VERTICES, FACES, make_maps())
    change, title, traces = figure.layout.updatemenus[0].buttons[2].args
    assert list(traces) == [0] and "male" in title["title.text"]
    assert change["text"][0][0] == "+0.00 mm" and change["text"][0][5] == "+0.50 mm"


def test_scale_is_symmetrical_and_says_its_unit():
    figure = plot_error_surface(VERTICES, FACES, make_maps())
    marker = figure.data[1].marker
    assert (marker.cmin, marker.cmax) == (-2.0, 2.0), "1.8 rounded up"
    assert marker.colorbar.title.text == ERROR_TITLE == "mm (+ too large, − too small)"
    assert plot_error_surface(VERTICES, FACES, make_maps(), limit_mm=5.0).data[1].marker.cmax == 5.0


def test_marks_lie_at_the_ends_of_the_body_s_axes():
    marks = plot_error_surface(VERTICES, FACES, make_maps()).data[2]
    places = {text[3:-4]: np.array(p) for text, *p in zip(marks.text, marks.x, marks.y, marks.z, strict=True)}
    assert set(places) == set("RLAPIS")
    assert places["L"][0] > 20 and places["R"][0] < -20
    assert places["P"][1] > 20 and places["A"][1] < -20
    assert places["S"][2] > 20 and places["I"][2] < -20


@pytest.mark.parametrize("side", CAMERAS)
def test_camera_looks_from_the_side_it_names(side):
    buttons = {
        button.label: button
        for button in plot_error_surface(VERTICES, FACES, make_maps()).layout.updatemenus[1].buttons
    }
    camera = buttons[side].args[0]["scene.camera"]
    eye, up = (np.array([camera[key][axis] for axis in "xyz"]) for key in ("eye", "up"))
    axis, sign = {"Left": (0, 1), "Right": (0, -1), "Posterior": (1, 1), "Anterior": (1, -1), "Superior": (2, 1), "Inferior": (2, -1)}[side]  # fmt: skip
    assert np.sign(eye).tolist() == [sign if place == axis else 0 for place in range(3)]
    to_the_right = np.cross(-eye, up)  # of the screen
    if side in ("Anterior", "Inferior"):
        assert to_the_right[0] > 0, "the person's left on the right, as radiologists look"


def test_figure_is_json_without_nan():
    text = plot_error_surface(VERTICES, FACES, make_maps()).to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in the figure"))


def test_start_with_a_group():
    figure = plot_error_surface(VERTICES, FACES, make_maps(), start="groups")
    assert figure.layout.updatemenus[0].active == 1 and figure.data[0].text[5] == "+0.50 mm"


def test_maps_without_values_say_so():
    nothing = make_maps(error_female=np.nan, error_male=np.nan, difference=np.nan)
    for table in (nothing, nothing.iloc[:0]):
        figure = plot_error_surface(VERTICES, FACES, table)
        assert "No map" in figure.layout.annotations[0].text


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must hold one model"):
        plot_error_surface(VERTICES, FACES, pd.concat([make_maps(), make_maps(model="other")]))
    with pytest.raises(ValueError, match="maps has 5 vertices for sex, the surface has 6"):
        plot_error_surface(VERTICES, FACES, make_maps().iloc[:5])


def test_text_from_data_is_escaped_in_the_title():
    figure = plot_error_surface(VERTICES, FACES, make_maps(), title="<script>alert(1)</script>")
    assert "<script>" not in figure.layout.title.text


def make_mask():
    mask = np.zeros((7, 8, 9), bool)
    mask[2:5, 3:6, 1:7] = True
    return mask


def test_slices_outline_reference_solid_and_prediction_dashed():
    figure = plot_slices(make_mask(), make_mask(), (3.0, 2.0, 1.0))
    lines = [trace for trace in figure.data if isinstance(trace, go.Scatter)]
    assert [line.name for line in lines] == ["reference", "prediction"] * 3
    assert {line.line.dash for line in lines if line.name == "reference"} == {"solid"}
    assert {line.line.dash for line in lines if line.name == "prediction"} == {"dash"}
    assert not any(isinstance(trace, go.Heatmap) for trace in figure.data)
    # Axial: x from voxel 1 to 6 (1 mm), y from 3 to 5 (2 mm), each with half a voxel more.
    assert (np.nanmin(lines[0].x), np.nanmax(lines[0].x)) == (0.5, 6.5)
    assert (np.nanmin(lines[0].y), np.nanmax(lines[0].y)) == (5.0, 11.0)
    # Coronal: upwards z from voxel 2 to 4 (3 mm).
    assert (np.nanmin(lines[2].y), np.nanmax(lines[2].y)) == (4.5, 13.5)


def test_slices_show_the_image_where_there_is_one():
    image = np.arange(7 * 8 * 9, dtype=np.uint8).reshape(7, 8, 9) % 200
    figure = plot_slices(make_mask(), None, (3.0, 2.0, 1.0), image=image, centre=(3, 4, 5))
    heat = [trace for trace in figure.data if isinstance(trace, go.Heatmap)]
    np.testing.assert_array_equal(heat[0].z, image[3])
    np.testing.assert_array_equal(heat[1].z, image[:, 4])
    np.testing.assert_array_equal(heat[2].z, image[:, :, 5])
    assert (heat[1].dx, heat[1].dy) == (1.0, 3.0)
    assert [trace.name for trace in figure.data if isinstance(trace, go.Scatter)] == ["reference"] * 3


def test_axial_slice_has_the_front_up_and_the_person_s_right_on_the_left():
    figure = plot_slices(make_mask(), None, (3.0, 2.0, 1.0))
    assert (
        figure.layout.xaxis.range[0] < figure.layout.xaxis.range[1] and figure.layout.xaxis.title.text == "R → L (mm)"
    )
    assert (
        figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1] and figure.layout.yaxis.title.text == "P → A (mm)"
    )
    assert (
        figure.layout.yaxis2.range[0] < figure.layout.yaxis2.range[1]
        and figure.layout.yaxis2.title.text == "I → S (mm)"
    )


def test_middle_is_the_median_slice():
    assert find_middle(make_mask()) == (3, 4, 3)
    assert find_middle(np.zeros((7, 8, 9), bool)) == (3, 4, 4)


def test_outline_of_nothing_is_nothing():
    across, along = trace_outline(np.zeros((4, 5), bool), 1.0, 1.0)
    assert np.isnan(across).all() and np.isnan(along).all()


def test_outline_at_the_border_is_closed():
    across, along = trace_outline(np.ones((4, 5), bool), 2.0, 1.0)
    assert (np.nanmin(across), np.nanmax(across)) == (-0.5, 4.5)
    assert (np.nanmin(along), np.nanmax(along)) == (-1.0, 7.0)
