"""A mask's voxel boundary: faces counted by hand, distances known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.spatial.boundary import MaskBoundary, find_boundary_faces, mesh_mask
from helpers.spatial.surfaces import measure_enclosed_volume, measure_vertex_areas

SPACING_MM = (3.0, 2.0, 1.0)


def make_mask():
    mask = np.zeros((7, 8, 9), bool)
    mask[2:5, 3:6, 1:7] = True
    return mask


def test_one_voxel_has_its_six_faces():
    mask = np.zeros((3, 4, 5), bool)
    mask[1, 2, 3] = True
    faces = {tuple(face) for face in find_boundary_faces(mask).tolist()}
    assert faces == {(0.5, 2, 3), (1.5, 2, 3), (1, 1.5, 3), (1, 2.5, 3), (1, 2, 2.5), (1, 2, 3.5)}


def test_a_box_has_as_many_faces_as_its_sides():
    assert len(find_boundary_faces(make_mask())) == 2 * (3 * 3 + 3 * 6 + 3 * 6)


def test_the_array_s_edge_is_boundary():
    faces = find_boundary_faces(np.ones((2, 3, 4), bool))
    assert len(faces) == 2 * (2 * 3 + 3 * 4 + 2 * 4)
    assert faces.min() == -0.5 and faces[:, 2].max() == 3.5


def test_distance_is_signed_and_in_millimetres():
    boundary = MaskBoundary(make_mask(), SPACING_MM)
    points = np.array(
        [
            [
                9.0,
                8.0,
                3.0,
            ],  # in the middle of the box; the nearest face is below or above: 1.5 voxels of 3 mm, or 1.5 of 2 mm
            [9.0, 8.0, 0.5],  # on the face at x = 0.5
            [9.0, 8.0, -1.5],  # 2 mm outside of it
            [0.0, 8.0, 3.0],  # 1.5 voxels of 3 mm below the lower face
            [np.nan, 8.0, 3.0],
        ]
    )
    np.testing.assert_allclose(boundary.measure(points), [2.5, 0.0, -2.0, -4.5, np.nan], atol=1e-5)


def test_points_beyond_the_array_are_outside():
    boundary = MaskBoundary(np.ones((2, 3, 4), bool), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(boundary.measure(np.array([[0.0, 1.0, 6.5], [-3.5, 1.0, 1.0]])), [-3.0, -3.0])


def test_an_empty_mask_is_at_no_distance():
    assert np.isnan(MaskBoundary(np.zeros((2, 3, 4), bool), SPACING_MM).measure(np.zeros((2, 3)))).all()


def test_a_mask_s_own_boundary_has_no_error():
    boundary = MaskBoundary(make_mask(), SPACING_MM)
    assert (boundary.measure(boundary.points_mm) == 0).all()


def draw_ball(radius_mm, spacing_mm):
    sizes = [int(2 * (radius_mm + 4 * step) / step) | 1 for step in spacing_mm]
    axes = [(np.arange(size) - size // 2) * step for size, step in zip(sizes, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_mm**2, [size // 2 * step for size, step in zip(sizes, spacing_mm, strict=True)]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8)])
def test_light_mesh_lies_where_the_mask_ends(spacing_mm):
    mask, centre = draw_ball(30.0, spacing_mm)
    vertices, faces = mesh_mask(mask, spacing_mm, vertices=2000)
    assert 1200 < len(vertices) < 3400
    assert np.linalg.norm(vertices - centre, axis=1).mean() == pytest.approx(30.0, abs=0.5)
    assert measure_vertex_areas(vertices, faces).sum() == pytest.approx(4 * np.pi * 30.0**2, rel=0.05)
    assert abs(measure_enclosed_volume(vertices, faces)) == pytest.approx(4 / 3 * np.pi * 30.0**3, rel=0.05)


def test_mesh_is_closed_at_the_array_s_edge():
    vertices, faces = mesh_mask(np.ones((6, 8, 10), bool), (2.0, 2.0, 2.0), vertices=5000)
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(sides, axis=0, return_counts=True)[1] == 2).all()
    assert len(vertices)


def test_a_single_voxel_and_nothing_are_meshed_too():
    mask = np.zeros((9, 9, 9), bool)
    assert mesh_mask(mask, SPACING_MM)[0].shape == (0, 3)
    mask[4, 4, 4] = True
    vertices, faces = mesh_mask(mask, SPACING_MM)
    assert len(faces) and np.abs(vertices - [12.0, 8.0, 4.0]).max() < 3.0
