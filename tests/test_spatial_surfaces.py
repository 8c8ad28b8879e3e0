"""Sub-voxel surfaces and distances, against shapes whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.spatial.surfaces import (
    Surface,
    VoxelFrame,
    extract_surface,
    find_closest_points,
    keep_largest_part,
    measure_enclosed_volume,
    measure_signed_errors,
    measure_vertex_areas,
    smooth_mask,
    smooth_surface,
)
from helpers.volumes import find_boxes
from tests.spatial_cohort import draw_ellipsoid

UPRIGHT = np.eye(3)
TETRAHEDRON = Surface(
    np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
)


def smooth_ball(radius_mm, spacing_xyz_mm, centre_mm=(0.0, 0.0, 0.0)):
    import SimpleITK as sitk

    image = draw_ellipsoid((radius_mm,) * 3, size_mm=70, spacing_xyz_mm=spacing_xyz_mm, centre_mm=centre_mm)
    return smooth_mask(sitk.GetArrayFromImage(image), VoxelFrame.of_image(image))


def points_on_sphere(rng, radius_mm, count=600):
    directions = rng.normal(size=(count, 3))
    return radius_mm * directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("spacing", [(3.5, 3.5, 6.0), (1.0, 1.0, 1.0), (0.8, 0.8, 5.0)])
@pytest.mark.parametrize("predicted_mm", [17.0, 23.0])
def test_error_between_concentric_balls_is_the_difference_of_their_radii(rng, spacing, predicted_mm):
    centre = (0.7, -1.1, 1.6)  # off the lattice: voxels must not line up with the balls
    reference = extract_surface(smooth_ball(20.0, spacing, centre))
    prediction = smooth_ball(predicted_mm, spacing, centre)
    on_reference = find_closest_points(reference, points_on_sphere(rng, 20.0) + centre)
    errors = measure_signed_errors(on_reference, prediction, extract_surface(prediction))
    assert errors.dtype == np.float32
    assert errors.mean() == pytest.approx(predicted_mm - 20.0, abs=0.5)
    assert np.all(np.sign(errors) == np.sign(predicted_mm - 20.0))


def test_equal_masks_have_no_error(rng):
    ball = smooth_ball(20.0, (3.5, 3.5, 6.0))
    surface = extract_surface(ball)
    on_surface = find_closest_points(surface, points_on_sphere(rng, 20.0))
    errors = measure_signed_errors(on_surface, ball, surface)
    assert np.array_equal(errors, np.zeros(len(errors))), "rounding would be tested like an error"


def test_error_is_missing_where_the_point_is_missing():
    ball = smooth_ball(20.0, (3.5, 3.5, 6.0))
    points = np.array([[np.nan] * 3, [20.0, 0.0, 0.0]])
    errors = measure_signed_errors(points, ball, extract_surface(ball))
    assert np.isnan(errors[0]) and abs(errors[1]) < 1.0


def test_error_is_missing_where_the_prediction_fills_the_scan():
    full = smooth_mask(np.ones((7, 8, 9), bool), VoxelFrame(np.zeros(3), np.ones(3), UPRIGHT))
    errors = measure_signed_errors(np.array([[4.0, 4.0, 3.0]]), full, extract_surface(full))
    assert np.isnan(errors).all()


def test_flat_faces_lie_half_a_voxel_beyond_the_outer_voxel_centres():
    mask = np.zeros((20, 26, 30), bool)
    mask[5:15, 6:20, 7:23] = True  # z 5…14, y 6…19, x 7…22
    frame = VoxelFrame(np.array([100.0, -50.0, 10.0]), np.array([1.5, 2.0, 4.0]), UPRIGHT)
    surface = extract_surface(smooth_mask(mask, frame))
    middle = frame.to_mm(np.array([[14.5, 12.5, 9.5]]))
    beyond = [[30.0, 0, 0], [-30.0, 0, 0], [0, 30.0, 0], [0, -30.0, 0], [0, 0, 45.0], [0, 0, -45.0]]
    feet = find_closest_points(surface, middle + np.array(beyond)) - middle
    # Half the box: 16 voxels of 1.5 mm, 14 of 2 mm, 10 of 4 mm.
    along = np.linalg.norm(feet, axis=1)
    np.testing.assert_allclose(along, [12, 12, 14, 14, 20, 20], atol=0.1)


def test_pooling_fine_voxels_keeps_the_place():
    mask = np.zeros((12, 60, 64), bool)
    mask[3:9, 20:41, 18:46] = True
    frame = VoxelFrame(np.zeros(3), np.array([0.5, 0.5, 3.0]), UPRIGHT)
    occupancy = smooth_mask(mask, frame)
    assert occupancy.frame.spacing_mm.tolist() == [1.5, 1.5, 3.0]
    vertices = extract_surface(occupancy).vertices_mm
    # x from voxel 18 to 45, y from 20 to 40, z from 3 to 8, each with half a voxel more.
    np.testing.assert_allclose(vertices.min(axis=0), [17.5 * 0.5, 19.5 * 0.5, 2.5 * 3], atol=0.1)
    np.testing.assert_allclose(vertices.max(axis=0), [45.5 * 0.5, 40.5 * 0.5, 8.5 * 3], atol=0.1)


def test_direction_turns_the_surface_with_the_scan():
    mask = np.zeros((9, 12, 15), bool)
    mask[3:6, 3:9, 3:12] = True
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # array x runs along world y
    straight = extract_surface(smooth_mask(mask, VoxelFrame(np.zeros(3), np.ones(3) * 2, UPRIGHT))).vertices_mm
    turned = extract_surface(smooth_mask(mask, VoxelFrame(np.zeros(3), np.ones(3) * 2, quarter))).vertices_mm
    np.testing.assert_allclose(turned, straight @ quarter.T, atol=1e-9)


def test_frame_goes_there_and_back(rng):
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    frame = VoxelFrame(rng.normal(size=3), np.array([0.7, 1.1, 5.0]), turn)
    index = rng.uniform(0, 30, size=(7, 3))
    np.testing.assert_allclose(frame.to_index(frame.to_mm(index)), index, atol=1e-9)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0.2, 0.3, 2.0), (0.2, 0.3, 0.0)),  # above the inside
        ((0.5, -3.0, 1.0), (0.5, 0.0, 0.0)),  # beyond an edge
        ((2.0, 2.0, 0.0), (0.5, 0.5, 0.0)),  # beyond the long edge
        ((-1.0, -2.0, -4.0), (0.0, 0.0, 0.0)),  # beyond a corner
    ],
)
def test_closest_point_of_one_triangle(point, expected):
    triangle = Surface(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    np.testing.assert_allclose(find_closest_points(triangle, np.array([point])), [expected], atol=1e-12)


def test_closest_point_of_a_degenerate_triangle_is_on_its_line():
    needle = Surface(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    np.testing.assert_allclose(find_closest_points(needle, np.array([[1.5, 1.0, 0.0]])), [[1.5, 0, 0]], atol=1e-9)


def test_closest_point_is_missing_without_triangles_or_point():
    nothing = Surface(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    assert np.isnan(find_closest_points(nothing, np.zeros((2, 3)))).all()
    found = find_closest_points(TETRAHEDRON, np.array([[np.nan, 0, 0], [-1.0, 0, 0]]))
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], 0, atol=1e-12)


def test_areas_and_volume_of_a_tetrahedron():
    areas = measure_vertex_areas(TETRAHEDRON.vertices_mm, TETRAHEDRON.faces)
    # Three right triangles of 1/2 and one equilateral of side √2: √3/2.
    assert areas.sum() == pytest.approx(1.5 + np.sqrt(3) / 2)
    assert areas[0] == pytest.approx(0.5)  # the corner at the right angles: a third of three halves
    assert measure_enclosed_volume(TETRAHEDRON.vertices_mm, TETRAHEDRON.faces) == pytest.approx(1 / 6)


def test_extracted_surface_faces_outwards_with_the_ball_s_volume():
    surface = extract_surface(smooth_ball(20.0, (1.0, 1.0, 1.0)))
    volume = measure_enclosed_volume(surface.vertices_mm, surface.faces)
    assert volume == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)


def test_smoothing_a_surface_keeps_its_volume_and_evens_it():
    surface = extract_surface(smooth_ball(20.0, (3.5, 3.5, 6.0)))
    smoothed = smooth_surface(surface)
    volumes = [measure_enclosed_volume(one.vertices_mm, one.faces) for one in (surface, smoothed)]
    spreads = [np.linalg.norm(one.vertices_mm, axis=1).std() for one in (surface, smoothed)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.03)
    assert spreads[1] < spreads[0]


def test_largest_part_is_kept():
    far = Surface(
        np.concatenate([TETRAHEDRON.vertices_mm, np.array([[9.0, 9, 9], [10, 9, 9], [9, 10, 9]])]),
        np.concatenate([TETRAHEDRON.faces, [[4, 5, 6]]]),
    )
    kept = keep_largest_part(far)
    np.testing.assert_array_equal(kept.vertices_mm, TETRAHEDRON.vertices_mm)
    np.testing.assert_array_equal(kept.faces, TETRAHEDRON.faces)


def test_cut_organ_is_open_at_the_end_of_the_scan():
    mask = np.zeros((8, 20, 22), bool)
    mask[3:, 6:14, 6:16] = True  # reaches the top slice
    occupancy = smooth_mask(mask, VoxelFrame(np.zeros(3), np.array([2.0, 2.0, 3.0]), UPRIGHT))
    assert occupancy.cut.tolist() == [[False, False], [False, False], [False, True]]
    surface = extract_surface(occupancy)
    assert surface.vertices_mm[:, 2].max() == pytest.approx(21.0)
    top_inside = np.all(np.abs(surface.vertices_mm - [21.0, 19.0, 21.0]) < [6.0, 4.0, 0.5], axis=1)
    assert not top_inside.any(), "no lid is drawn where the scan ends"
    places = np.array([[20.0, 20.0, 30.0], [20.0, 20.0, 10.0], [-500.0, 20.0, 10.0]])
    assert occupancy.is_beyond_cut(places).tolist() == [True, False, False]


def test_one_voxel_still_has_a_surface():
    mask = np.zeros((7, 8, 9), bool)
    mask[3, 4, 5] = True
    surface = extract_surface(smooth_mask(mask, VoxelFrame(np.zeros(3), np.array([1.0, 1.0, 4.0]), UPRIGHT)))
    assert len(surface.faces) > 0
    np.testing.assert_allclose(surface.vertices_mm.mean(axis=0), [5.0, 4.0, 12.0], atol=0.6)


def test_one_label_of_several_is_taken():
    labels = np.zeros((7, 8, 9), np.uint8)
    labels[1:4, 1:4, 1:4], labels[4:6, 5:7, 5:8] = 2, 5
    boxes = find_boxes(labels)
    assert set(boxes) == {2, 5}
    frame = VoxelFrame(np.zeros(3), np.full(3, 2.0), UPRIGHT)
    found = extract_surface(smooth_mask(labels, frame, label=5, box=boxes[5])).vertices_mm
    np.testing.assert_allclose(found.mean(axis=0), [12.0, 11.0, 9.0], atol=0.6)


def test_empty_mask_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        smooth_mask(np.zeros((7, 8, 9), bool), VoxelFrame(np.zeros(3), np.ones(3), UPRIGHT))
