"""Neighbourhoods on a triangle mesh, and threshold-free cluster enhancement of maps on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helpers.errors import SegfairError

# Smith & Nichols weigh a cluster by extent^E · height^H. Random field theory asks for E of about
# 0.5 in volumes and 1 on surfaces, as in FSL's and PALM's 2D settings and in Connectome Workbench.
HEIGHT_POWER = 2.0
EXTENT_POWER = 1.0
# Maps are enhanced together up to this many vertices: fewer calls, and all still fits the cache.
VERTICES_AT_ONCE = 60_000


@dataclass(frozen=True)
class MeshGraph:
    """Which vertices of a mesh are neighbours, and how much surface each stands for."""

    edges: np.ndarray  # int, (n_edges, 2): every edge once, lower vertex first
    neighbours: np.ndarray  # int: for one vertex after the other, itself and its neighbours
    starts: np.ndarray  # int, (n_vertices,): where each vertex's part of `neighbours` begins
    areas_mm2: np.ndarray  # float, (n_vertices,)


def link_vertices(faces: np.ndarray, areas_mm2: np.ndarray) -> MeshGraph:
    """Return the graph whose edges are the sides of a mesh's triangles.

    A SegfairError where `faces` is not of shape (n_faces, 3), or names a vertex that has no area.

    `faces` are int, (n_faces, 3); `areas_mm2`, float, (n_vertices,), is what each vertex stands
    for.
    """
    faces, areas = np.asarray(faces), np.asarray(areas_mm2, float)
    count = len(areas)
    if faces.ndim != 2 or faces.shape[1] != 3 or (faces.size and not 0 <= faces.min() <= faces.max() < count):
        raise SegfairError(
            f"faces must be of shape (n_faces, 3) with vertices 0 to {count - 1}; got shape {faces.shape}: "
            "give the faces and areas of the same mesh"
        )
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64), axis=1)
    edges = np.unique(sides[sides[:, 0] != sides[:, 1]], axis=0)
    owners = np.concatenate([np.arange(count), edges[:, 0], edges[:, 1]])
    others = np.concatenate([np.arange(count), edges[:, 1], edges[:, 0]])
    neighbours = others[np.argsort(owners, kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))[:-1]]).astype(np.int64)
    return MeshGraph(edges, neighbours, starts[:count], areas)


def enhance_clusters(maps: np.ndarray, graph: MeshGraph) -> np.ndarray:
    """Enhance what is large and lies together: threshold-free cluster enhancement, exact.

    A SegfairError where the maps have another number of vertices than the graph.

    `maps`, float, (n_maps, n_vertices), are signed statistics, NaN where there is none, which no
    cluster reaches across. The result is float64, of the same shape, with
    the sign of `maps`, positive and negative parts enhanced apart; 0 where NaN.

    Notes
    -----
    ``TFCE(v) = ∫ extent(v, h)^E · h^H dh`` over ``0 < h <= |statistic(v)|``, where ``extent(v, h)``
    is the area (mm²) of the connected part of ``{statistic >= h}`` that holds v (Smith & Nichols
    2009, equation 1). Extents change only at the heights of vertices, so between these the integral
    is taken in closed form: there is no step size, unlike in FSL. Which parts hang together is
    found as a merge tree: every vertex climbs to the peak of its basin, basins meet at their
    highest saddle, and the part of the lower peak ends there (the elder rule).

    Sources: Smith & Nichols, Threshold-free cluster enhancement, NeuroImage 44:83-98, 2009. Carr,
    Snoeyink & Axen, Computing contour trees in all dimensions, Comput Geom 24:75-94, 2003.
    """
    maps = np.asarray(maps)
    count = len(graph.areas_mm2)
    if maps.ndim != 2 or maps.shape[1] != count:
        raise SegfairError(f"maps must be of shape (n_maps, {count}), the mesh's vertices; got {maps.shape}")
    enhanced = np.zeros(maps.shape)
    together = max(1, VERTICES_AT_ONCE // max(count, 1))
    for start in range(0, len(maps) if count else 0, together):
        part = slice(start, start + together)
        enhanced[part] = _enhance(maps[part], graph)
    return enhanced


def _enhance(maps: np.ndarray, graph: MeshGraph) -> np.ndarray:
    """Enhance a few maps together, as one graph without edges between them.

    Vertices are called by their *place*: map after map, in each from the lowest to the highest.
    """
    shape, count = maps.shape, maps.shape[1]
    heights = np.abs(maps)
    signs = np.where(maps < 0, -1, 1).astype(np.int32)
    missing = np.isnan(heights)
    heights[missing], signs[missing] = 0.0, 0
    order = np.argsort(heights, axis=1)
    offsets = count * np.arange(shape[0])[:, None]
    flat_order = (order + offsets).ravel()
    places: np.ndarray = np.empty(maps.size, np.int32)
    places[flat_order] = np.arange(maps.size, dtype=np.int32)
    places = places.reshape(shape)

    peaks = _climb(places, signs, graph, flat_order)
    merges = _merge_basins(places, signs, graph.edges, peaks)
    levels = heights.ravel()[flat_order].astype(float) ** (HEIGHT_POWER + 1) / (HEIGHT_POWER + 1)
    areas = graph.areas_mm2[order].ravel()
    enhanced = np.empty(maps.size)
    enhanced[flat_order] = _integrate(levels, areas, peaks, merges)
    return signs * enhanced.reshape(shape)


def _climb(places: np.ndarray, signs: np.ndarray, graph: MeshGraph, flat_order: np.ndarray) -> np.ndarray:
    """Return the peak each place leads up to by its highest neighbours of its own sign."""
    # Places are counted from 1 here, so that a neighbour's sign shows in the same number.
    signed = (places + 1) * signs
    owners = np.repeat(np.arange(len(graph.starts)), np.diff(graph.starts, append=len(graph.neighbours)))
    highest = np.maximum.reduceat(signed[:, graph.neighbours] * signs[:, owners], graph.starts, axis=1) - 1
    # A missing value stays where it is.
    upwards = np.maximum(highest, places).ravel()[flat_order]
    while True:
        further = upwards[upwards]
        if np.array_equal(further, upwards):
            return upwards
        upwards = further


def _merge_basins(
    places: np.ndarray, signs: np.ndarray, edges: np.ndarray, peaks: np.ndarray
) -> list[tuple[int, int, int]]:
    """Return (saddle, lower peak, higher peak) of every two parts that meet, high saddles first."""
    first, second = places[:, edges[:, 0]], places[:, edges[:, 1]]
    crossing = (peaks[first] != peaks[second]) & (signs[:, edges[:, 0]] * signs[:, edges[:, 1]] > 0)
    first, second = first[crossing], second[crossing]
    saddles = np.minimum(first, second)
    # Only the highest saddle of two basins can be where they meet.
    downwards = np.argsort(-saddles)
    saddles, first, second = saddles[downwards], peaks[first[downwards]], peaks[second[downwards]]
    pairs = np.minimum(first, second).astype(np.int64) * places.size + np.maximum(first, second)
    keep = np.sort(np.unique(pairs, return_index=True)[1])
    merges = []
    leads_to = dict.fromkeys(np.concatenate([first[keep], second[keep]]).tolist(), -1)
    for saddle, one, other in zip(saddles[keep].tolist(), first[keep].tolist(), second[keep].tolist(), strict=True):
        one, other = _follow(leads_to, one), _follow(leads_to, other)
        if one != other:
            lower, higher = (one, other) if one < other else (other, one)
            leads_to[lower] = higher
            merges.append((saddle, lower, higher))
    return merges


def _follow(leads_to: dict[int, int], peak: int) -> int:
    """Return the highest peak of the part that `peak` belongs to by now, and remember the way."""
    top = peak
    while leads_to[top] >= 0:
        top = leads_to[top]
    while peak != top:
        leads_to[peak], peak = top, leads_to[peak]
    return top


def _integrate(
    levels: np.ndarray, areas: np.ndarray, peaks: np.ndarray, merges: list[tuple[int, int, int]]
) -> np.ndarray:
    """Return each place's integral: down its branch to where that ends, then on along the higher.

    `levels` is the integral of height^H up to each place's height; `areas` its own area.
    """
    count = len(levels)
    ends, higher = np.full(count, -1), np.zeros(count, np.int64)
    for saddle, lower, peak in merges:
        ends[lower], higher[lower] = saddle, peak
    branches = peaks.copy()
    below = np.flatnonzero(ends[branches] >= np.arange(count))
    while below.size:
        branches[below] = higher[branches[below]]
        below = below[ends[branches[below]] >= below]

    # What ends at a saddle counts there, with all its area, for the branch that goes on.
    gained = areas.copy()
    totals = np.bincount(branches, weights=areas, minlength=count)
    for saddle, lower, _ in merges:
        gained[saddle] += totals[lower]
        totals[branches[saddle]] += totals[lower]

    sizes = np.bincount(branches, minlength=count)
    numbers = np.cumsum(sizes > 0) - 1
    tops, sizes = np.flatnonzero(sizes), sizes[sizes > 0]
    # Few branches fit small integers, which numpy sorts by radix.
    upwards = np.argsort(numbers.astype(np.min_scalar_type(len(tops)))[branches], kind="stable")
    starts = np.cumsum(sizes) - sizes
    gained, rising = gained[upwards], levels[upwards]
    extents = np.repeat(np.add.reduceat(gained, starts), sizes) - _sum_before(gained, starts, sizes)
    floors = np.concatenate([[0.0], rising[:-1]])
    floors[starts] = np.where(ends[tops] >= 0, levels[ends[tops]], 0.0)
    steps = extents**EXTENT_POWER * (rising - floors)
    integrals = np.empty(count)
    integrals[upwards] = _sum_before(steps, starts, sizes) + steps

    bases = np.zeros(count)
    for saddle, lower, _ in reversed(merges):
        bases[lower] = integrals[saddle] + bases[branches[saddle]]
    return integrals + bases[branches]


def _sum_before(values: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return, in each segment, the sum of the values before each."""
    sums = np.cumsum(values) - values
    return sums - np.repeat(sums[starts], sizes)
