"""Surfaces that are far apart: the search by layers and among those within reach, against plain
ways."""

from __future__ import annotations

import edt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage
from scipy.spatial import cKDTree

from helpers import metrics
from helpers.metrics import nearest_surface
from helpers.metrics.nearest_surface import measure_surface_distances

sides = st.integers(1, 12)


def by_layers(monkeypatch) -> list[int]:
    """Let every point without an immediate neighbour be searched by layers; return the list that
    counts the calls."""
    calls: list[int] = []
    search = nearest_surface._search_layers
    monkeypatch.setattr(nearest_surface, "VOXELS_PER_TREE_SEARCH", np.inf)
    monkeypatch.setattr(nearest_surface, "NEAR_OFFSETS", 0)
    monkeypatch.setattr(nearest_surface, "FAR_SHARE", 0.0)
    monkeypatch.setattr(nearest_surface, "_search_layers", lambda *given: calls.append(1) or search(*given))
    return calls


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    shape=st.tuples(sides, sides, sides),
    pixel_mm=st.floats(0.3, 6.0),
    across_mm=st.floats(0.3, 6.0),
    axis=st.integers(0, 2),
)
def test_any_masks_agree_with_a_tree(data, shape, pixel_mm, across_mm, axis):
    reference, prediction = (data.draw(npst.arrays(bool, shape)) for _ in range(2))
    reference[0, 0, 0] = prediction[-1, -1, -1] = True
    spacing = [pixel_mm] * 3
    spacing[axis] = across_mm
    with pytest.MonkeyPatch.context() as patch:
        calls = by_layers(patch)
        found = measure_surface_distances(reference, prediction, tuple(spacing))
    assert len(calls) == 2
    corners = [
        np.stack(np.unravel_index(nearest_surface.find_surfels(mask, tuple(spacing))[0], np.add(shape, 1)), axis=1)
        * spacing
        for mask in (reference, prediction)
    ]
    np.testing.assert_allclose(found.reference_to_prediction_mm, cKDTree(corners[1]).query(corners[0])[0], atol=1e-12)
    np.testing.assert_allclose(found.prediction_to_reference_mm, cKDTree(corners[0]).query(corners[1])[0], atol=1e-12)


def test_layers_are_used_where_everything_is_far(monkeypatch):
    squared = sum((np.arange(-30, 31).reshape(shape)) ** 2 for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)))
    calls = []
    search = nearest_surface._search_layers
    monkeypatch.setattr(nearest_surface, "_search_layers", lambda *given: calls.append(1) or search(*given))
    metrics.compare_masks(squared < 30**2, squared < 16**2, (1.0, 1.0, 1.0), tolerance_mm=1.0)
    assert len(calls) == 2
    metrics.compare_masks(squared < 30**2, squared < 29**2, (1.0, 1.0, 1.0), tolerance_mm=1.0)
    assert len(calls) == 2, "near surfaces are found among the lattice's shortest steps"


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("direction", [0, 1, 2])
def test_a_tolerance_of_whole_steps_counts_as_within(monkeypatch, axis, direction):
    # 46 and 76 steps of 0.9: the difference of the coordinates is a little more than 30 × 0.9.
    calls = by_layers(monkeypatch)
    spacing = [0.9, 0.9, 0.9]
    spacing[axis] = 0.9 if axis == direction else 2.0
    reference, prediction = np.zeros((2, 90, 90, 90), bool)
    first, second = [44] * 3, [44] * 3
    first[direction], second[direction] = 46, 76
    reference[tuple(first)] = prediction[tuple(second)] = True
    found = metrics.compare_masks(reference, prediction, tuple(spacing), tolerance_mm=30 * 0.9)
    assert calls and found.nsd == 1.0


def test_transforms_of_layers_are_whole_numbers_up_to_the_largest_side():
    generator = np.random.default_rng(0)
    side = nearest_surface.LARGEST_EXACT_SIDE
    for points in (1, 3, 60):
        empty = np.ones((side, side), bool)
        empty[tuple(generator.integers(0, side, (2, points)))] = False
        found = edt.edt2dsq(empty)
        where = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
        exact = ((where - np.indices(empty.shape)) ** 2).sum(axis=0)
        assert np.array_equal(found, exact)


def test_others_out_of_reach_of_few_points_change_nothing(rng, monkeypatch):
    shape, spacing = (40, 90, 85), (2.5, 0.7, 0.9)
    others = np.flatnonzero(rng.random(shape) < 0.02)
    others = others[others % shape[2] > 12]  # a strip without any: its points look far
    for points in (np.array([0]), np.array([5, 305_999]), rng.choice(np.prod(shape), 60, replace=False)):
        kept = []
        keep = nearest_surface._keep_reachable
        monkeypatch.setattr(
            nearest_surface,
            "_keep_reachable",
            lambda *given, keep=keep, kept=kept: kept.append(keep(*given)) or kept[0],
        )
        found = nearest_surface._measure_far(points, others, shape, spacing)
        monkeypatch.setattr(nearest_surface, "_keep_reachable", keep)
        assert 0 < kept[0].shape[1] <= len(others)
        assert len(points) > 2 or kept[0].shape[1] < len(others) / 4
        steps = (
            np.stack(np.unravel_index(points, shape))[:, :, None] - np.stack(np.unravel_index(others, shape))[:, None]
        ).T
        expected = np.sqrt(((steps * np.array(spacing)) ** 2).sum(axis=2)).min(axis=0)
        assert found == pytest.approx(expected, rel=1e-12)
