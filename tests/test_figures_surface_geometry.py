"""Cameras, marks and lines on a mesh, on an octahedron and a grid whose answers are seen by eye."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.figures.surface_geometry import (
    CAMERAS,
    LINE_LIFT,
    frame_scene,
    mark_sides,
    outline_region,
    place_camera,
    round_up,
)

# An octahedron: L, R, P, A, S, I.
VERTICES = 20.0 * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
FACES = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])


@pytest.mark.parametrize("side", CAMERAS)
def test_camera_looks_from_the_side_it_names(side):
    camera = place_camera(side)
    eye, up = (np.array([camera[key][axis] for axis in "xyz"]) for key in ("eye", "up"))
    axis, sign = {
        "Left": (0, 1),
        "Right": (0, -1),
        "Posterior": (1, 1),
        "Anterior": (1, -1),
        "Superior": (2, 1),
        "Inferior": (2, -1),
    }[side]
    assert np.sign(eye).tolist() == [sign if place == axis else 0 for place in range(3)]
    to_the_right = np.cross(-eye, up)  # of the screen
    if side in ("Anterior", "Inferior"):
        assert to_the_right[0] > 0, "the person's left on the right, as radiologists look"


def test_marks_lie_at_the_ends_of_the_body_s_axes():
    places = dict(zip(*reversed(mark_sides(VERTICES)), strict=True))
    assert set(places) == set("RLAPIS")
    assert places["L"][0] > 20 and places["R"][0] < -20
    assert places["P"][1] > 20 and places["A"][1] < -20
    assert places["S"][2] > 20 and places["I"][2] < -20


def test_scene_holds_the_marks_and_keeps_proportions():
    long = VERTICES * [1.0, 2.0, 0.5] + [100.0, 0.0, 0.0]
    scene = frame_scene(long)
    lengths = [np.diff(scene[f"{axis}axis"]["range"])[0] for axis in "xyz"]
    assert lengths == pytest.approx([lengths[0]] * 3)
    points, _ = mark_sides(long)
    for axis, column in zip("xyz", points.T, strict=True):
        low, high = scene[f"{axis}axis"]["range"]
        assert low < column.min() and column.max() < high


def test_line_around_one_corner_crosses_the_middles_of_its_sides():
    inside = np.array([False, False, False, False, True, False])  # the upper corner
    line = outline_region(VERTICES, FACES, inside)
    assert np.isnan(line[-1]).all() and len(line) == 6, "four sides, closed, then a gap"
    np.testing.assert_allclose(line[0], line[4])
    # Unsmoothed: (±10, 0, 10) and (0, ±10, 10). Smoothing by thirds, twice, draws them towards the
    # middle; the lift outwards.
    assert line[:4, 2] == pytest.approx([line[0, 2]] * 4)
    assert 10 < line[0, 2] < 10 + 40 * LINE_LIFT
    assert np.abs(line[:4, :2]).max(axis=1) == pytest.approx([np.abs(line[0, :2]).max()] * 4)


def test_two_regions_have_two_lines_and_a_border_is_open():
    # A strip of a 6 × 2 grid of squares, flat and open: the region is its first and its last
    # column.
    x, y = (part.ravel() for part in np.meshgrid(np.arange(7.0), np.arange(3.0)))
    vertices = np.column_stack([x, y, np.zeros(21)])
    corner = np.array([row * 7 + column for row in range(2) for column in range(6)])
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + 8], 1), np.stack([corner, corner + 8, corner + 7], 1)]
    )
    line = outline_region(vertices, faces, (x == 0) | (x == 6))
    gaps = np.flatnonzero(np.isnan(line[:, 0]))
    assert len(gaps) == 2
    for part in np.split(line[:-1], gaps[:-1]):
        part = part[np.isfinite(part[:, 0])]
        assert not np.allclose(part[0], part[-1]), "open: it ends at the border"
        assert np.ptp(part[:, 1]) > 1.0 and np.ptp(part[:, 0]) < 0.5
    assert line[0, 2] == pytest.approx(6 * LINE_LIFT), "lifted along the normal"


@pytest.mark.parametrize("inside", [False, True])
def test_no_border_no_line(inside):
    assert outline_region(VERTICES, FACES, np.full(6, inside)).shape == (0, 3)


def test_scale_ends_on_round_numbers():
    assert [round_up(value) for value in (0.0, 0.2, 0.3, 1.8, 2.0, 2.1, 7.0)] == [0.25, 0.25, 0.5, 2.0, 2.0, 3.0, 7.0]
