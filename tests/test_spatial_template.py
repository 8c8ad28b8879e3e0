"""The template is the cohort's mean shape and favours nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from helpers.errors import StageError
from helpers.spatial.correspondence import AffineAlignment, measure_field
from helpers.spatial.surfaces import VoxelFrame, measure_enclosed_volume, smooth_mask
from helpers.spatial.template import (
    Template,
    add_shapes,
    build_template,
    mesh_field,
    remove_mean_alignment,
)
from tests.spatial_cohort import draw_ellipsoid


def measure(radii_mm, **changes):
    image = draw_ellipsoid(radii_mm, size_mm=90.0, **changes)
    return measure_field(smooth_mask(sitk.GetArrayFromImage(image), VoxelFrame.of_image(image)), grid_mm=5.0)


def add_here(canvas, fields, starts, step):
    """In two parts, as a study does."""
    half = len(fields) // 2
    return [
        add_shapes(canvas, fields[part], starts[part], step)
        for part in (slice(None, half), slice(half, None))
        if fields[part]
    ]


@pytest.fixture(scope="module")
def fields():
    centres = [(0, 0, 0), (4, -3, 2), (-5, 2, 0), (1, 1, -6)]
    sizes = [(20, 16, 28), (24, 18, 32), (18, 20, 30), (22, 14, 26)]
    return [measure(size, centre_mm=centre) for size, centre in zip(sizes, centres, strict=True)]


@pytest.fixture(scope="module")
def template(fields):
    return build_template(fields, add_here, vertices=500)


def test_template_has_the_mean_extent_along_each_axis(template):
    # Mean radii: x 21, y 17, z 29; the smoothing of slices of 4 mm and the grid of 5 mm cost the
    # poles a little.
    np.testing.assert_allclose(np.ptp(template.vertices_mm, axis=0) / 2, [21, 17, 29], atol=1.5)
    assert template.subjects == 4


def test_template_lies_about_its_own_middle_in_lps(template):
    areas = template.areas_mm2
    np.testing.assert_allclose(np.average(template.vertices_mm, axis=0, weights=areas), 0, atol=1e-9)
    extent = np.ptp(template.vertices_mm, axis=0)
    assert extent[2] > extent[0] > extent[1], "z is along the body, as drawn"


def test_mesh_is_closed_faces_outwards_and_has_about_the_number_asked_for(template):
    count, faces = len(template.vertices_mm), template.faces
    assert count == pytest.approx(500, rel=0.1)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, shared = np.unique(edges, axis=0, return_counts=True)
    assert (shared == 2).all(), "every edge belongs to two triangles"
    assert count - len(shared) + len(faces) == 2, "Euler: one closed surface without holes"
    volume = measure_enclosed_volume(template.vertices_mm, faces)
    assert volume == pytest.approx(4 / 3 * np.pi * 21 * 17 * 29, rel=0.07)


def test_radius_of_a_ball_is_its_radius():
    ball = build_template([measure((25, 25, 25))] * 3, add_here, vertices=500, rounds=())
    assert ball.radius_mm == pytest.approx(25.0, abs=0.7)


def test_order_of_subjects_does_not_matter(fields, template):
    again = build_template(fields[::-1], add_here, vertices=500)
    np.testing.assert_allclose(np.ptp(again.vertices_mm, axis=0), np.ptp(template.vertices_mm, axis=0), atol=0.2)


def test_mean_of_alignments_is_taken_out():
    alignments = [
        AffineAlignment(np.diag([1.2, 1.0, 1.0]), np.array([2.0, 0, 0]), np.zeros(3)),
        AffineAlignment(np.diag([0.8, 1.0, 1.2]), np.array([4.0, 0, 6.0]), np.array([9.0, 9, 9])),
    ]
    free = remove_mean_alignment(alignments)
    np.testing.assert_allclose(np.mean([one.matrix for one in free], axis=0), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.mean([one.offset_mm for one in free], axis=0), 0, atol=1e-12)
    # The template point (1, 0, 0) was carried to 3.2 and 4.8, so it now lies at their mean, 4 …
    np.testing.assert_allclose(free[0].matrix @ [4.0, 0, 3.0] + free[0].offset_mm, [3.2, 0, 0.0], atol=1e-12)
    assert free[1].centre_mm.tolist() == [9, 9, 9]


def test_cut_organs_do_not_shape_the_template_when_three_are_whole(fields):
    image = draw_ellipsoid((20, 16, 28), size_mm=90.0)
    cut = image[:, :, : image.GetSize()[2] // 2]
    half = measure_field(smooth_mask(sitk.GetArrayFromImage(cut), VoxelFrame.of_image(cut)), grid_mm=5.0)
    assert build_template([*fields, half], add_here, vertices=300, rounds=["affine"]).subjects == 4
    assert build_template([*fields[:2], half], add_here, vertices=300, rounds=()).subjects == 3


def test_shapes_that_cannot_be_registered_are_left_out(fields):
    def lose_first(canvas, shapes, starts, step):
        if step == "affine":  # the first one lies where nothing overlaps
            starts = [replace(starts[0], offset_mm=np.full(3, 1e4)), *starts[1:]]
        return add_here(canvas, shapes, starts, step)

    assert build_template(fields, lose_first, vertices=300, rounds=["affine"]).subjects == 3


def test_no_shape_is_refused():
    with pytest.raises(ValueError, match="at least one shape"):
        build_template([], add_here, vertices=300)


def test_a_field_without_a_surface_is_refused(fields):
    with pytest.raises(ValueError, match="mean shape is empty"):
        mesh_field(replace(fields[0], values_mm=np.ones_like(fields[0].values_mm)), vertices=300)


def test_template_is_saved_and_read(template, tmp_path):
    path = tmp_path / "organ" / "template.npz"
    template.save(path)
    again = Template.load(path)
    np.testing.assert_allclose(again.vertices_mm, template.vertices_mm, atol=1e-4)
    np.testing.assert_array_equal(again.faces, template.faces)
    np.testing.assert_array_equal(again.field.values_mm, template.field.values_mm)
    np.testing.assert_allclose(again.field.origin_mm, template.field.origin_mm)
    assert again.subjects == 4
    with np.load(path) as stored:  # the contract: vertices in mm and faces
        assert {"vertices", "faces"} <= set(stored)


def test_missing_or_foreign_template_names_the_stage(tmp_path):
    with pytest.raises(StageError, match="run 04_spatial"):
        Template.load(tmp_path / "template.npz")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(StageError, match="is not a template"):
        Template.load(tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(StageError, match="is not a template"):
        Template.load(tmp_path / "broken.npz")
