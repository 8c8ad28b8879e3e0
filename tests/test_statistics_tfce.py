"""Threshold-free cluster enhancement against hand counts, a slow definition and nilearn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial import ConvexHull

from helpers.errors import SegfairError
from helpers.spatial.surfaces import measure_vertex_areas
from helpers.statistics.tfce import MeshGraph, enhance_clusters, link_vertices

NAN = np.nan


def sphere(count, radius_mm=50.0):
    """Return a ball's evenly spread vertices and their triangles."""
    steps = np.arange(count) + 0.5
    tilt, turn = np.arccos(1 - 2 * steps / count), np.pi * (1 + np.sqrt(5)) * steps
    points = np.stack([np.cos(turn) * np.sin(tilt), np.sin(turn) * np.sin(tilt), np.cos(tilt)], axis=1)
    return radius_mm * points, ConvexHull(points).simplices


def graph_of(edges, areas):
    """Return a graph with any edges, through triangles that are flat."""
    faces = np.array([(one, other, other) for one, other in edges], int).reshape(-1, 3)
    return link_vertices(faces, np.asarray(areas, float))


def enhance_slowly(values, graph):
    """Follow the definition: one threshold after the other, connected parts counted afresh."""
    count = len(values)
    enhanced = np.zeros(count)
    for sign in (1, -1):
        heights = np.where(np.isnan(values), 0.0, np.maximum(sign * values, 0.0))
        last = 0.0
        for height in np.unique(heights[heights > 0]):
            above = heights >= height
            edges = graph.edges[above[graph.edges].all(axis=1)]
            links = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
            part = sparse.csgraph.connected_components(links, directed=False)[1]
            extent = np.bincount(part, weights=graph.areas_mm2)[part]
            enhanced += sign * above * extent * (height**3 - last**3) / 3  # extent¹ · height²
            last = height
    return enhanced


def test_a_triangle_mesh_gives_each_side_once():
    graph = link_vertices(np.array([[0, 1, 2], [2, 1, 3]]), np.ones(4))
    assert graph.edges.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    ends = [*graph.starts[1:], len(graph.neighbours)]
    around = [sorted(graph.neighbours[a:b].tolist()) for a, b in zip(graph.starts, ends, strict=True)]
    assert around == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3]]


def test_two_peaks_and_a_saddle_by_hand():
    # Heights 2, 1, 3 in a row, areas 1, 2, 4. Up to height 1 all 7 mm2 hang together: 7 · 1³/3.
    # Above, each alone: the first adds 1 · (2³ − 1³)/3, the last 4 · (3³ − 1³)/3.
    graph = graph_of([(0, 1), (1, 2)], [1.0, 2.0, 4.0])
    enhanced = enhance_clusters(np.array([[2.0, 1.0, 3.0], [-2.0, -1.0, -3.0], [2.0, -1.0, 3.0]]), graph)
    np.testing.assert_allclose(enhanced[0], [7 / 3 + 7 / 3, 7 / 3, 7 / 3 + 4 * 26 / 3])
    np.testing.assert_allclose(enhanced[1], -enhanced[0])
    np.testing.assert_allclose(enhanced[2], [8 / 3, -2 / 3, 4 * 27 / 3])


def test_missing_vertices_part_clusters_and_get_nothing():
    graph = graph_of([(0, 1), (1, 2)], [1.0, 1.0, 1.0])
    enhanced = enhance_clusters(np.array([[1.0, NAN, 1.0], [0.0, 0.0, 0.0], [NAN, NAN, NAN]]), graph)
    np.testing.assert_allclose(enhanced, [[1 / 3, 0.0, 1 / 3], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("smooth", [0, 1, 6])
def test_equals_the_definition_on_a_sphere(smooth):
    points, faces = sphere(300)
    graph = link_vertices(faces, measure_vertex_areas(points, faces))
    generator = np.random.default_rng(smooth)
    maps = generator.standard_normal((5, 300))
    near = np.exp(-(np.linalg.norm(points[:, None] - points[None], axis=2) ** 2) / (2 * (4.0 * smooth + 0.1) ** 2))
    maps = maps @ near
    maps[1] = np.round(maps[1] / maps[1].std(), 0)  # plateaus
    maps[2, ::4] = NAN
    maps[3, ::3] = 0.0
    slow = [enhance_slowly(values, graph) for values in maps]
    fast = enhance_clusters(maps, graph)
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-12 * np.abs(slow).max())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_definition_on_any_graph(data):
    count = data.draw(st.integers(1, 9))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    graph = graph_of(data.draw(st.lists(pairs, max_size=16)), data.draw(arrays_of(count, st.sampled_from([0.5, 1, 3]))))
    values = np.array(data.draw(arrays_of(count, st.sampled_from([-3.0, -2, -1, 0, 1, 1.5, 2, 3, NAN]))))
    slow = enhance_slowly(values, graph)
    np.testing.assert_allclose(enhance_clusters(values[None], graph)[0], slow, atol=1e-9)


def arrays_of(count, elements):
    return st.lists(elements, min_size=count, max_size=count)


def test_maps_do_not_influence_each_other():
    points, faces = sphere(120)
    graph = link_vertices(faces, measure_vertex_areas(points, faces))
    maps = np.random.default_rng(0).standard_normal((1200, 120))  # more than are enhanced together
    together = enhance_clusters(maps, graph)
    alone = np.concatenate([enhance_clusters(one[None], graph) for one in maps[::100]])
    np.testing.assert_allclose(together[::100], alone, rtol=1e-9, atol=1e-12 * np.abs(together).max())


def test_nilearn_agrees_on_a_grid():
    nilearn = pytest.importorskip("nilearn.mass_univariate._utils", reason="nilearn is not installed")
    shape = (7, 8, 9)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    sides = [(numbers.take(range(n - 1), axis), numbers.take(range(1, n), axis)) for axis, n in enumerate(shape)]
    graph = graph_of([pair for one, other in sides for pair in zip(one.flat, other.flat, strict=True)], np.ones(504))
    values = np.random.default_rng(3).standard_normal(shape)
    step = 0.005
    cross = np.zeros((3, 3, 3), bool)
    cross[1, 1, :] = cross[1, :, 1] = cross[:, 1, 1] = True
    # nilearn adds up thresholds without multiplying by their distance.
    theirs = step * nilearn.calculate_tfce(values[..., None], cross, E=1, H=2, dh=step)[..., 0]
    ours = enhance_clusters(values.reshape(1, -1), graph)[0]
    np.testing.assert_allclose(ours, theirs.ravel(), atol=0.01 * np.abs(ours).max())


def test_no_maps_and_no_vertices():
    points, faces = sphere(20)
    graph = link_vertices(faces, measure_vertex_areas(points, faces))
    assert enhance_clusters(np.zeros((0, 20)), graph).shape == (0, 20)
    nothing = link_vertices(np.zeros((0, 3), int), np.zeros(0))
    assert isinstance(nothing, MeshGraph)
    assert enhance_clusters(np.zeros((2, 0)), nothing).shape == (2, 0)


@pytest.mark.parametrize("faces", [np.zeros((2, 2), int), np.array([[0, 1, 9]]), np.array([[-1, 0, 1]])])
def test_faces_of_another_mesh_are_refused(faces):
    with pytest.raises(SegfairError, match="faces must be"):
        link_vertices(faces, np.ones(4))


def test_maps_of_another_mesh_are_refused():
    graph = link_vertices(np.array([[0, 1, 2]]), np.ones(3))
    with pytest.raises(SegfairError, match=r"\(n_maps, 3\)"):
        enhance_clusters(np.zeros((1, 4)), graph)
