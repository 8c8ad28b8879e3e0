"""The surfels of masks, and the exact distance of each to the nearest of another surface.

As in Google DeepMind's surface-distance, a surface is made of surfels: one per 2×2×2 neighbourhood
that is neither full nor empty, whose area is that of the marching-cubes triangles in it (Nikolov et
al. 2021, *Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy*, J Med
Internet Res 23(7):e26151). The areas are that package's own tables; the distances are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree

# How many of the shortest lattice steps are tried; after the near ones where most points are done.
SEARCHED_OFFSETS = 512
NEAR_OFFSETS = 96
FAR_SHARE = 0.5
# With fewer points than one per so many others, those out of reach are left out, by blocks.
OTHERS_PER_POINT = 16
SAMPLED_OTHERS = 32
BLOCK_SIDE = 8
# A search in the k-d tree takes as long as the transform of so many voxels.
VOXELS_PER_TREE_SEARCH = 100
# Up to this side, in voxels, `edt` computes with whole numbers that float32 holds.
LARGEST_EXACT_SIDE = 1024

_LAYERS_BYTES = 2**17

Spacing = tuple[float, float, float]
_Shape = tuple[int, int, int]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces; arrays of float64, one value per surfel."""

    reference_to_prediction_mm: np.ndarray  # of each surfel of the one to the nearest surfel of the other
    prediction_to_reference_mm: np.ndarray
    reference_areas_mm2: np.ndarray  # in the same order
    prediction_areas_mm2: np.ndarray


def measure_surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing_zyx_mm: Spacing
) -> SurfaceDistances:
    """Measure the distance of every surfel of each surface to the nearest surfel of the other.

    Of masks of bool, (z, y, x), neither empty: between the centres of 2×2×2 neighbourhoods, in mm,
    exact in float64; unsorted.
    """
    ours, our_areas = find_surfels(reference, spacing_zyx_mm)
    theirs, their_areas = find_surfels(prediction, spacing_zyx_mm)
    shape = tuple(side + 1 for side in reference.shape)
    return SurfaceDistances(
        _measure_to_nearest(ours, theirs, shape, spacing_zyx_mm),
        _measure_to_nearest(theirs, ours, shape, spacing_zyx_mm),
        our_areas,
        their_areas,
    )


def find_surfels(mask: np.ndarray, spacing_zyx_mm: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask's surfels: flat index in the grid of voxel corners, increasing; area in mm².

    The grid of corners is one larger than the mask along each axis. The code of a corner has a bit
    for each of its eight voxels, the first voxel in (z, y, x) order being the highest.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    layer = (padded.shape[1] - 1) * (padded.shape[2] - 1)
    # A few layers at a time, which stay in the processor's cache.
    step = max(1, _LAYERS_BYTES // layer)
    found, codes_found = [], []
    for start in range(0, len(padded) - 1, step):
        part = padded[start : start + step + 1]
        pairs_x = (part[:, :, :-1] << 1) | part[:, :, 1:]
        quads_yx = (pairs_x[:, :-1] << 2) | pairs_x[:, 1:]
        codes = ((quads_yx[:-1] << 4) | quads_yx[1:]).ravel()
        # 0 and 255 are no surface; adding one wraps 255 to 0, which saves a pass over the grid.
        flat = np.flatnonzero((codes + np.uint8(1)) > 1)
        found.append(flat + start * layer)
        codes_found.append(codes[flat])
    return np.concatenate(found), _tabulate_areas(spacing_zyx_mm)[np.concatenate(codes_found)]


def _measure_to_nearest(points: np.ndarray, others: np.ndarray, shape: _Shape, spacing_zyx_mm: Spacing) -> np.ndarray:
    """Return the distance (mm) of each point to the nearest other, flat indices of one grid.

    Most surfels of a good prediction lie a few voxels from the reference, so the nearest lattice
    offsets are tried in order of their length; :func:`_measure_far` finds the rest. A distance
    transform of the whole box takes longer, and `edt`'s, in float32, was off by up to 5e-4 mm.
    """
    offsets, lengths_mm, starts = _list_offsets(spacing_zyx_mm)
    margin = np.abs(offsets).max(axis=0)
    padded = tuple(int(side + 2 * more) for side, more in zip(shape, margin, strict=True))
    strides = np.array([padded[1] * padded[2], padded[2], 1])
    # Where the grid begins in the padded one, and where it would begin one step away.
    origins = margin @ strides + offsets @ strides
    taken = np.zeros(int(np.prod(padded)), bool)
    taken[margin @ strides :][_move_to_grid(others, shape, strides)] = True
    distances = np.empty(len(points))
    places, left = _move_to_grid(points, shape, strides), np.arange(len(points))
    for start, stop in pairwise(starts):
        if start >= NEAR_OFFSETS and len(left) > FAR_SHARE * len(points):
            break
        found = taken[origins[start] :][places]
        for origin in origins[start + 1 : stop]:
            found |= taken[origin:][places]
        distances[left[found]] = lengths_mm[start]
        rest = np.flatnonzero(~found)
        places, left = places[rest], left[rest]
        if not len(left):
            return distances
    distances[left] = _measure_far(points[left], others, shape, spacing_zyx_mm)
    return distances


def _move_to_grid(flat: np.ndarray, shape: _Shape, strides: np.ndarray) -> np.ndarray:
    """Return flat indices of a grid as those of a larger one with these strides, same origin."""
    rows, x = np.divmod(flat, shape[2])
    z, y = np.divmod(rows, shape[1])
    return z * strides[0] + y * strides[1] + x


def _measure_far(points: np.ndarray, others: np.ndarray, shape: _Shape, spacing_zyx_mm: Spacing) -> np.ndarray:
    """Return the distances of points far away: by layers, or by a tree where points are few."""
    ours, theirs = (np.stack(np.unravel_index(flat, shape)) for flat in (points, others))
    low = np.minimum(ours.min(axis=1), theirs.min(axis=1))
    extent = np.maximum(ours.max(axis=1), theirs.max(axis=1)) + 1 - low
    # The share of the box in layers that hold any of the others, by the axis across the layers.
    shares = (np.ptp(theirs, axis=1) + 1) / extent
    square = [axis for axis in range(3) if len({spacing_zyx_mm[other] for other in range(3) if other != axis}) == 1]
    if square and extent.max() <= LARGEST_EXACT_SIDE:
        axis = min(square, key=lambda axis: shares[axis])
        if len(points) * VOXELS_PER_TREE_SEARCH > np.prod(extent) * shares[axis]:
            return _search_layers(ours - low[:, None], theirs - low[:, None], extent, axis, spacing_zyx_mm)
    spacing = np.asarray(spacing_zyx_mm)
    if len(points) * OTHERS_PER_POINT < len(others):
        theirs = _keep_reachable(ours, theirs, spacing)
    tree = cKDTree(theirs.T * spacing, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(ours.T * spacing)[1]
    # From whole steps, not from the tree's own distances: a tolerance that is a multiple of the
    # spacing must not be missed by a rounding error in the coordinates.
    return _measure_lengths((ours - theirs[:, nearest]).T, spacing_zyx_mm)


def _keep_reachable(points: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return those of the others, indices (3, n), that may be the nearest of a point.

    A tree of all takes longer than few points need. The distance to the nearest of every few of the
    others bounds that to the nearest of all; blocks of voxels within that bound of a point are
    marked, and others in no marked block are left out.
    """
    some = cKDTree(others[:, ::SAMPLED_OTHERS].T * spacing, balanced_tree=False, compact_nodes=False)
    bound_mm = some.query(points.T * spacing)[0]
    reach = np.ceil(bound_mm / spacing[:, None]).astype(np.int64) + 1
    first, last = np.maximum(points - reach, 0) // BLOCK_SIDE, (points + reach) // BLOCK_SIDE + 1
    blocks = others // BLOCK_SIDE
    near = np.zeros(blocks.max(axis=1) + 1, bool)
    for (z, y, x), (z_end, y_end, x_end) in zip(first.T.tolist(), last.T.tolist(), strict=True):
        near[z:z_end, y:y_end, x:x_end] = True
    return others[:, near[tuple(blocks)]]


def _search_layers(
    points: np.ndarray, others: np.ndarray, extent: np.ndarray, axis: int, spacing_zyx_mm: Spacing
) -> np.ndarray:
    """Return the distances of points to others, (3, n): transform within layers, search across.

    Pixels of a layer are square, so squared distances within it are whole numbers of pixels, which
    `edt` gives without error. Across layers, none is looked at that is further away than the
    furthest point of a layer has to look.
    """
    import edt

    across_mm, pixel_mm = spacing_zyx_mm[axis], spacing_zyx_mm[axis - 1]
    order = [axis, *(other for other in range(3) if other != axis)]
    layers, rows, columns = (int(extent[place]) for place in order)
    there, *place = others[order]
    first, last = int(there.min()), int(there.max())
    empty = np.ones((last + 1 - first, rows, columns), bool)
    empty[there - first, *place] = False
    pixels: np.ndarray = np.full(empty.shape, np.inf, np.float32)
    for layer in np.unique(there - first):
        pixels[layer] = edt.edt2dsq(empty[layer])
    pixels = pixels.reshape(len(pixels), -1)

    here, *place = points[order]
    by_layer = np.argsort(here, kind="stable")
    places = (place[0] * columns + place[1])[by_layer]
    bounds = np.searchsorted(here[by_layer], np.arange(layers + 1))
    squared = np.empty(points.shape[1])
    for layer, (start, stop) in enumerate(pairwise(bounds)):
        if start == stop:
            continue
        near = min(max(layer, first), last)
        widest = np.sqrt(pixels[near - first, places[start:stop]].max())
        furthest = np.hypot(widest * pixel_mm, (layer - near) * across_mm)
        reach = int(min(furthest / across_mm, layers)) + 1
        looked = np.arange(max(first, layer - reach), min(last, layer + reach) + 1)
        within = pixels[looked[0] - first : looked[-1] + 1 - first, places[start:stop]]
        # The root before the spacing: of a straight step it is exact, as in `_measure_lengths`.
        within_mm = np.sqrt(within, dtype=np.float64) * pixel_mm
        squared[by_layer[start:stop]] = (within_mm**2 + ((looked - layer) * across_mm)[:, None] ** 2).min(axis=0)
    return np.sqrt(squared)


def _measure_lengths(steps_zyx: np.ndarray, spacing_zyx_mm: Spacing) -> np.ndarray:
    z, y, x = (steps_zyx * np.asarray(spacing_zyx_mm)).T
    return np.sqrt(z * z + y * y + x * x)


@lru_cache(maxsize=64)
def _list_offsets(spacing_zyx_mm: Spacing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the shortest lattice steps (n, 3), their mm, and where each new length starts."""
    spacing = np.asarray(spacing_zyx_mm)
    # No listed step exceeds the radius of the ball that holds twice as many lattice points.
    radius_mm = (2 * SEARCHED_OFFSETS * float(np.prod(spacing)) * 3 / (4 * np.pi)) ** (1 / 3)
    reach = np.minimum(np.ceil(np.maximum(radius_mm, 2 * spacing.min()) / spacing), SEARCHED_OFFSETS).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    lengths_mm = _measure_lengths(steps, spacing_zyx_mm)
    # A step as long as the first left out along an axis may have an unlisted equal: stop before.
    complete_mm = float(((reach + 1) * spacing).min())
    order = np.argsort(lengths_mm, kind="stable")
    order = order[lengths_mm[order] < complete_mm][:SEARCHED_OFFSETS]
    steps, lengths_mm = steps[order], lengths_mm[order]
    starts = np.flatnonzero(np.diff(lengths_mm, prepend=-1.0, append=np.inf))
    return steps, lengths_mm, starts


@lru_cache(maxsize=64)
def _tabulate_areas(spacing_zyx_mm: Spacing) -> np.ndarray:
    from surface_distance import lookup_tables

    return np.asarray(lookup_tables.create_table_neighbour_code_to_surface_area(spacing_zyx_mm), np.float64)
