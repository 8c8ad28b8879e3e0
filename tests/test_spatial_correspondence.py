"""Registration recovers what was done to a shape; what a scan does not show is missing."""

from __future__ import annotations

import time

import numpy as np
import pytest
import SimpleITK as sitk

from helpers.spatial import correspondence
from helpers.spatial.correspondence import (
    AffineAlignment,
    DistanceField,
    flag_poor_matches,
    guess_alignment,
    match_vertices,
    measure_field,
    register_affine,
)
from helpers.spatial.surfaces import VoxelFrame, extract_surface, smooth_mask
from tests.spatial_cohort import draw_ellipsoid

RADII_MM = np.array([24.0, 18.0, 30.0])


def smooth_image(image):
    return smooth_mask(sitk.GetArrayFromImage(image), VoxelFrame.of_image(image))


def ellipsoid_points(rng, radii_mm, count=300):
    directions = rng.normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * radii_mm


@pytest.fixture(scope="module")
def template_field():
    return measure_field(smooth_image(draw_ellipsoid(tuple(RADII_MM))), grid_mm=4.0)


def test_field_is_the_signed_distance_around_the_centre():
    ball = smooth_image(draw_ellipsoid((25.0,) * 3, centre_mm=(4.0, -3.0, 2.0)))
    field = measure_field(ball, grid_mm=4.0)
    np.testing.assert_allclose(field.centre_mm, (4.0, -3.0, 2.0), atol=0.1)
    np.testing.assert_allclose(
        field.scale_mm, 25.0 / np.sqrt(5), rtol=0.03
    )  # a ball's variance is r²/5 along each axis
    image = field.as_image()
    for distance in (-12.0, -4.0, 0.0, 6.0, 12.0):
        there = image.TransformPhysicalPointToContinuousIndex((25.0 + distance, 0.0, 0.0))
        assert image.EvaluateAtContinuousIndex(there) == pytest.approx(distance, abs=1.5)
    assert field.values_mm.max() == 20.0 and field.values_mm.dtype == np.float32


def test_affine_recovers_a_known_scaling_and_shift(rng, template_field):
    factors, shift = np.array([1.25, 0.9, 1.1]), np.array([3.0, -4.0, 2.0])
    moved = smooth_image(draw_ellipsoid(tuple(RADII_MM * factors), centre_mm=tuple(shift), size_mm=100.0))
    field = measure_field(moved, grid_mm=4.0)
    blind = AffineAlignment(np.eye(3), np.array([5.0, 4.0, -6.0]), field.centre_mm)  # neither size nor place known
    alignment = register_affine(template_field, field, blind)
    on_template = ellipsoid_points(rng, RADII_MM)
    np.testing.assert_allclose(alignment.matrix, np.diag(factors), atol=0.05)
    np.testing.assert_allclose(alignment.map_points(on_template), on_template * factors + shift, atol=1.5)


def test_affine_recovers_a_turn():
    # A rounded box: a turned ellipsoid could be matched by stretching and shearing just as well.
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    grid = np.arange(-45, 46, 2.5)
    z, y, x = np.meshgrid(grid, grid, grid, indexing="ij")
    places = np.stack([x, y, z], axis=-1)
    fields = []
    for seen in (places, places @ turn):  # rows times the turn: where each point was before it
        image = sitk.GetImageFromArray(((np.abs(seen / RADII_MM) ** 6).sum(axis=-1) <= 1).astype(np.uint8))
        image.SetOrigin([-45.0] * 3)
        image.SetSpacing([2.5] * 3)
        fields.append(measure_field(smooth_image(image), grid_mm=4.0))
    straight, turned = fields
    found = register_affine(straight, turned, guess_alignment(turned, straight.scale_mm)).matrix
    np.testing.assert_allclose(found, turn, atol=0.06)


@pytest.mark.parametrize("points", [correspondence.METRIC_POINTS, 300])
def test_registration_is_deterministic(template_field, monkeypatch, points):
    # With fewer points than the band has, ITK moves each at random, by the clock unless seeded.
    monkeypatch.setattr(correspondence, "METRIC_POINTS", points)
    field = measure_field(smooth_image(draw_ellipsoid((20.0, 20.0, 27.0))), grid_mm=4.0)
    start = guess_alignment(field, template_field.scale_mm)
    first = register_affine(template_field, field, start)
    time.sleep(1.1)
    second = register_affine(template_field, field, start)
    np.testing.assert_array_equal(first.matrix, second.matrix)
    np.testing.assert_array_equal(first.offset_mm, second.offset_mm)


def test_registration_that_does_not_overlap_is_refused(template_field):
    far = AffineAlignment(np.eye(3), np.full(3, 1e4), template_field.centre_mm)
    with pytest.raises(ValueError, match="do not overlap"):
        register_affine(template_field, template_field, far)


def test_vertices_are_snapped_to_the_person_s_surface(rng):
    organ = smooth_image(draw_ellipsoid((24.0,) * 3))
    alignment = AffineAlignment(np.eye(3), np.zeros(3), np.zeros(3))
    match = match_vertices(alignment.map_points(ellipsoid_points(rng, np.full(3, 27.0))), organ, extract_surface(organ))
    np.testing.assert_allclose(np.linalg.norm(match.points_mm, axis=1), 24.0, atol=2.0)  # slices of 4 mm
    assert match.distance_mm == pytest.approx(3.0, abs=0.5)


def test_vertex_outside_the_field_of_view_is_missing(rng):
    image = draw_ellipsoid((24.0,) * 3)
    cut = smooth_image(image[:, :, : image.GetSize()[2] // 2 + 2])  # the upper half was not scanned
    points = ellipsoid_points(rng, np.full(3, 24.0), 500)
    match = match_vertices(points, cut, extract_surface(cut))
    missing = np.isnan(match.points_mm).any(axis=1)
    top = 4.0  # the last slice's centre: one slice of 4 mm above the middle one
    assert missing[points[:, 2] > top + 0.1].all()
    assert not missing[points[:, 2] < top - 4.0].any()
    assert match.distance_mm < 1.0, "missing vertices do not count against the match"


def test_field_of_a_cut_organ_says_where_it_does_not_know():
    image = draw_ellipsoid((24.0,) * 3)
    field = measure_field(smooth_image(image[:, :, : image.GetSize()[2] // 2 + 2]), grid_mm=4.0)
    assert field.cut.tolist() == [[False, False], [False, False], [False, True]]
    heights = field.origin_mm[2] + field.centre_mm[2] + 4.0 * np.arange(field.values_mm.shape[0])
    known = field.known.any(axis=(1, 2))
    np.testing.assert_array_equal(known, heights < 4.0)
    assert guess_alignment(field, np.full(3, 10.0)).matrix[2, 2] == 1.0, "a cut organ's size is not known"


def test_field_is_saved_and_read(tmp_path):
    image = draw_ellipsoid((24.0,) * 3)
    for number, part in enumerate((image, image[:, :, : image.GetSize()[2] // 2])):
        field = measure_field(smooth_image(part), grid_mm=4.0, name=f"scan {number:03d}")
        field.save(tmp_path / f"{number}.npz")
        again = DistanceField.load(tmp_path / f"{number}.npz")
        assert again.name == field.name and again.grid_mm == 4.0
        for part_name in ("values_mm", "origin_mm", "centre_mm", "scale_mm", "cut", "known"):
            np.testing.assert_array_equal(getattr(again, part_name), getattr(field, part_name))


def test_poor_matches_are_flagged_with_the_reason():
    usual = [1.0, 1.1, 0.9, 1.2, 1.0, 1.1]
    # radius 20: a quarter is 5, a tenth is 2; median 1.1, robust SD 0.148, so the outlier limit is
    # 2.
    reasons = flag_poor_matches([*usual, 1.9, 2.4, 5.2, np.nan], radius_mm=20.0)
    assert reasons[:7] == [""] * 7
    assert "against a median of 1.1 mm" in reasons[7]
    assert "over a quarter of the organ's radius (5.0 mm)" in reasons[8]
    assert "no part of the template" in reasons[9]


def test_nobody_to_compare_with_is_not_an_error():
    assert flag_poor_matches([], radius_mm=20.0) == []
    assert flag_poor_matches([np.nan], radius_mm=20.0)[0] != ""
