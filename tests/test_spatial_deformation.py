"""A deformation moves what an affine alignment leaves over, folds nothing, and is the same when it
is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.kept import find_file
from helpers.spatial import registrations
from helpers.spatial.correspondence import AffineAlignment, DistanceField
from helpers.spatial.deformation import DeformableAlignment, deform, remove_mean_displacement
from helpers.spatial.registrations import register_organ
from helpers.spatial.template import Template

GRID_MM, CLIP_MM = 4.0, 20.0
PLACES = [np.arange(-size, size + 1, GRID_MM) for size in (44.0, 36.0, 40.0)]  # x, y, z: unequal on purpose
IDENTITY = AffineAlignment(np.eye(3), np.zeros(3), np.zeros(3))


def draw_ball(radius_mm=20.0, bump_mm=0.0, centre_mm=(0.0, 0.0, 0.0), **changes):
    """A ball's field, bulging by `bump_mm` at the back (y > 0)."""
    z, y, x = np.meshgrid(*PLACES[::-1], indexing="ij")
    x, y, z = x - centre_mm[0], y - centre_mm[1], z - centre_mm[2]
    far = np.sqrt(x**2 + y**2 + z**2)
    values = far - radius_mm - bump_mm * np.clip(y / np.maximum(far, 1e-6), 0, 1) ** 2
    field = DistanceField(
        np.clip(values, -CLIP_MM, CLIP_MM).astype(np.float32),
        GRID_MM,
        np.array([place[0] for place in PLACES]),
        np.zeros(3),
        np.full(3, radius_mm / np.sqrt(5)),
        np.zeros((3, 2), bool),
    )
    return replace(field, **changes)


def on_sphere(radius_mm=20.0, count=400):
    place = np.arange(count) + 0.5
    polar, around = np.arccos(1 - 2 * place / count), np.pi * (1 + 5**0.5) * place
    return radius_mm * np.stack([np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], axis=1)


@pytest.fixture(scope="module")
def bulging():
    return deform(draw_ball(), draw_ball(bump_mm=6.0), IDENTITY)


def test_a_bulge_is_followed_and_the_front_stays(bulging):
    points = on_sphere()
    moved = bulging.map_points(points)
    direction = points / 20.0
    wanted = 20.0 + 6.0 * np.clip(direction[:, 1], 0, 1) ** 2
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), wanted, atol=0.9)
    front = direction[:, 1] < -0.3
    assert np.abs(moved - points)[front].max() < 1.2
    assert np.abs(np.linalg.norm(moved, axis=1) - wanted).mean() < 0.35, "6 mm to a third of a millimetre"


def test_nothing_folds_and_the_bulge_swells(bulging):
    change = bulging.measure_volume_change(on_sphere())
    assert change.min() > 0
    assert bulging.measure_volume_change(np.array([[0.0, 22.0, 0.0]]))[0] > 1.05


def test_equal_shapes_are_left_alone():
    same = deform(draw_ball(), draw_ball(), IDENTITY)
    assert np.abs(same.displacement_mm).max() < 0.05


def test_transform_and_points_agree(bulging):
    turned = AffineAlignment(np.array([[1.1, 0.1, 0], [0, 0.9, 0], [0.2, 0, 1]]), np.array([3.0, -2, 1]), np.zeros(3))
    alignment = replace(bulging, affine=turned)
    points = on_sphere(count=50)
    transform = alignment.as_transform()
    said = np.array([transform.TransformPoint(point.tolist()) for point in points])
    np.testing.assert_allclose(said, alignment.map_points(points), atol=1e-4)
    with_centre = replace(alignment, affine=replace(turned, centre_mm=np.array([10.0, 20, 30])))
    np.testing.assert_allclose(with_centre.map_points(points) - said, [[10, 20, 30]] * 50, atol=1e-4)


def test_volume_change_of_a_known_stretch():
    z, y, x = np.meshgrid(*PLACES[::-1], indexing="ij")
    stretch = np.stack([0.2 * x, -0.1 * y, 0 * z], axis=-1)
    origin = np.array([place[0] for place in PLACES])
    alignment = DeformableAlignment(IDENTITY, stretch, GRID_MM, origin)
    change = alignment.measure_volume_change(np.array([[0.0, 0, 0], [8, -8, 12], [500, 0, 0]]))
    np.testing.assert_allclose(change, [1.2 * 0.9, 1.2 * 0.9, 1.0], atol=1e-6)
    folded = replace(alignment, displacement_mm=-2 * np.stack([x, 0 * y, 0 * z], axis=-1))
    assert folded.measure_volume_change(np.zeros((1, 3)))[0] == pytest.approx(-1.0)


def test_what_the_scan_does_not_show_pulls_at_nothing():
    bulged = draw_ball(bump_mm=8.0)
    y = np.meshgrid(*PLACES[::-1], indexing="ij")[1]
    hidden = replace(bulged, known=y < 0, cut=np.array([[0, 0], [0, 1], [0, 0]], bool))
    moved = deform(draw_ball(), hidden, IDENTITY)
    at_back = np.array([[0.0, 19.0, 0.0]])
    assert np.abs(moved.displace(at_back) - at_back).max() < 1.0
    assert np.abs(deform(draw_ball(), bulged, IDENTITY).displace(at_back) - at_back).max() > 4.0


def test_mean_displacement_is_taken_out():
    field = draw_ball()
    shift = np.broadcast_to(np.array([4.0, 0, 0], np.float32), (*field.values_mm.shape, 3))
    moved = remove_mean_displacement(field, np.array(shift))
    # Each of its points was carried 4 mm to the left on average, so the template goes there.
    z, y, x = np.meshgrid(*PLACES[::-1], indexing="ij")
    fill = np.clip(0.5 - moved.values_mm / GRID_MM, 0, 1)
    middle = [np.average(axis, weights=fill) for axis in (x, y, z)]
    np.testing.assert_allclose(middle, [4.0, 0, 0], atol=0.2)
    assert fill.sum() == pytest.approx(np.clip(0.5 - field.values_mm / GRID_MM, 0, 1).sum(), rel=0.02)


def as_template(field):
    return Template(np.zeros((3, 3)), np.array([[0, 1, 2]]), field, 5)


def test_a_kept_registration_is_the_same_and_not_made_again(tmp_path, monkeypatch):
    template, field = as_template(draw_ball()), draw_ball(22.0, bump_mm=5.0, centre_mm=(2.0, -1.0, 3.0))
    made, key = register_organ(template, field, tmp_path)
    assert [path.stem for path in tmp_path.rglob("*.npz")] == [key]

    def refuse(*_):
        raise AssertionError("registered again")

    monkeypatch.setattr(registrations, "deform", refuse)
    elsewhere = replace(field, centre_mm=np.array([1.0, 2, 3]))
    again, _ = register_organ(template, elsewhere, tmp_path)
    np.testing.assert_array_equal(again.displacement_mm, made.displacement_mm)
    np.testing.assert_array_equal(again.affine.matrix, made.affine.matrix)
    points = on_sphere(count=20)
    moved = again.map_points(points) - made.map_points(points)
    np.testing.assert_allclose(moved, [elsewhere.centre_mm - field.centre_mm] * 20, atol=1e-9)
    with pytest.raises(AssertionError, match="registered again"):
        register_organ(template, draw_ball(21.0), tmp_path)
    with pytest.raises(AssertionError, match="registered again"):
        register_organ(as_template(draw_ball(20.5)), field, tmp_path)


def test_a_damaged_registration_is_made_again(tmp_path):
    template, field = as_template(draw_ball()), draw_ball(21.0)
    _, key = register_organ(template, field, tmp_path)
    path = find_file(tmp_path, key)
    path.write_bytes(b"half a file")
    assert register_organ(template, field, tmp_path)[1] == key
    assert np.load(path)["displacement"].dtype == np.int16
