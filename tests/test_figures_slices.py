"""Slices: outlines where the masks end, the person seen as radiologists do, the error where it was
put."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from helpers.figures.slices import find_middle, plot_slices, trace_outline
from helpers.spatial.boundary import MaskBoundary


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


def test_dots_along_the_reference_show_the_error():
    reference, prediction = make_mask(), make_mask()
    prediction[:, :, 6] = False  # the last column is missed: 1 mm too small on the left side
    boundary = MaskBoundary(prediction, (3.0, 2.0, 1.0))
    figure = plot_slices(reference, prediction, (3.0, 2.0, 1.0), measure=boundary.measure, limit_mm=2.0)
    dots = [trace for trace in figure.data if trace.name == "error"]
    assert len(dots) == 3
    axial = dict(zip(zip(dots[0].x, dots[0].y, strict=True), dots[0].customdata, strict=True))
    assert axial[(6.5, 8.0)] == -1.0 and axial[(0.5, 8.0)] == 0.0
    coronal = dict(zip(zip(dots[1].x, dots[1].y, strict=True), dots[1].customdata, strict=True))
    assert coronal[(6.5, 9.0)] == -1.0 and coronal[(0.5, 9.0)] == 0.0
    assert (dots[0].marker.cmin, dots[0].marker.cmax) == (-2.0, 2.0)
    assert [dot.marker.showscale for dot in dots] == [False, False, True]
    assert dots[2].marker.colorbar.title.text == "mm (+ too large, − too small)"
