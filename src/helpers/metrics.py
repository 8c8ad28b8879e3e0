"""Two masks and a voxel spacing → overlap, surface and size-free measures of one organ.

Surface measures follow Google DeepMind's surface-distance: a surface is made of surfels, one per 2×2×2
neighbourhood that is neither full nor empty, whose area is that of the marching-cubes triangles in
it (Nikolov et al. 2021, *Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy*,
J Med Internet Res 23(7):e26151). The areas are that package's own tables; the distances are exact.

What each measure is when a mask is empty is stated once, in :data:`EMPTY_CASES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree

MEASURES = (
    "dice",
    "iou",
    "nsd",
    "hd95_mm",
    "assd_mm",
    "precision",
    "recall",
    "volume_ref_ml",
    "volume_pred_ml",
    "volume_error_ml",
    "surface_ref_cm2",
    "boundary_error_mm",
)

MEASURED = None  # in :data:`EMPTY_CASES`: the measure is what the masks give

# status -> the measures that have a value all the same, and which; every other one is missing (NaN).
# An organ that is not in the reference cannot be segmented well or badly, so nothing is scored; an organ
# that the prediction misses altogether overlaps by 0, but has no distance: any number would be invented.
# Of two observers, neither is the reference: an organ that one of them alone has drawn is a full disagreement.
EMPTY_CASES: dict[str, dict[str, float | None]] = {
    "reference_empty": {"volume_ref_ml": 0.0, "volume_pred_ml": MEASURED},
    "prediction_empty": {
        "dice": 0.0,
        "iou": 0.0,
        "nsd": 0.0,
        "recall": 0.0,
        "volume_ref_ml": MEASURED,
        "volume_pred_ml": 0.0,
        "volume_error_ml": MEASURED,
        "surface_ref_cm2": MEASURED,
    },
    "both_empty": {"volume_ref_ml": 0.0, "volume_pred_ml": 0.0},
    "one_empty": {"dice": 0.0, "iou": 0.0, "nsd": 0.0, "volume_error_ml": MEASURED},
}

# The measures that do not depend on which of two masks is called the reference.
SYMMETRIC_MEASURES = ("dice", "iou", "nsd", "hd95_mm", "assd_mm", "volume_error_ml", "boundary_error_mm")


# How many of the shortest lattice steps are tried; after the near ones only where most points have found their neighbour.
SEARCHED_OFFSETS = 512
NEAR_OFFSETS = 96
FAR_SHARE = 0.5
# With fewer points than one per so many others, those out of reach are left out of the tree: by blocks of so many voxels a side.
OTHERS_PER_POINT = 16
SAMPLED_OTHERS = 32
BLOCK_SIDE = 8
# A search in the k-d tree takes as long as the transform of so many voxels.
VOXELS_PER_TREE_SEARCH = 100
# Up to this side, in voxels, `edt` computes with whole numbers that float32 holds.
LARGEST_EXACT_SIDE = 1024

_LAYERS_BYTES = 2**17
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MaskComparison:
    """How far a prediction is from its reference; NaN where a measure is not defined.

    Attributes
    ----------
    dice, iou, precision, recall : float
        Overlap, 0 to 1.
    nsd : float
        Surface Dice at the tolerance, 0 to 1 (Nikolov et al. 2021).
    hd95_mm : float
        The larger of the two directed 95th percentiles of surface distance, weighted by surfel area.
    assd_mm : float
        Average symmetric surface distance: the area-weighted mean over both surfaces together.
    volume_ref_ml, volume_pred_ml, volume_error_ml : float
        Volumes, and prediction − reference.
    surface_ref_cm2 : float
        Area of the reference's surface.
    boundary_error_mm : float
        2V(1 − Dice)/S, V and S of the reference: the uniform shift of the boundary that would cost this
        much Dice.
    status : str
        ``"ok"``, or a key of :data:`EMPTY_CASES`.
    """

    dice: float = np.nan
    iou: float = np.nan
    nsd: float = np.nan
    hd95_mm: float = np.nan
    assd_mm: float = np.nan
    precision: float = np.nan
    recall: float = np.nan
    volume_ref_ml: float = np.nan
    volume_pred_ml: float = np.nan
    volume_error_ml: float = np.nan
    surface_ref_cm2: float = np.nan
    boundary_error_mm: float = np.nan
    status: str = "ok"


@dataclass(frozen=True)
class ObserverAgreement:
    """How far two observers' masks of one organ are from each other; NaN where a measure is not defined.

    Attributes
    ----------
    dice, iou, nsd, hd95_mm, assd_mm : float
        As in :class:`MaskComparison`, of which these are the same whichever mask is called the reference.
    volume_error_ml : float
        Second − first: compare its absolute value.
    boundary_error_mm : float
        2V(1 − Dice)/S with the means of both volumes and both surfaces.
    status : str
        ``"ok"``, ``"one_empty"`` or ``"both_empty"`` (:data:`EMPTY_CASES`).
    """

    dice: float = np.nan
    iou: float = np.nan
    nsd: float = np.nan
    hd95_mm: float = np.nan
    assd_mm: float = np.nan
    volume_error_ml: float = np.nan
    boundary_error_mm: float = np.nan
    status: str = "ok"


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, one value per surfel.

    Attributes
    ----------
    reference_to_prediction_mm, prediction_to_reference_mm : ndarray of float64
        Distance of each surfel of the one surface to the nearest surfel of the other.
    reference_areas_mm2, prediction_areas_mm2 : ndarray of float64
        The surfels' areas, in the same order.
    """

    reference_to_prediction_mm: np.ndarray
    prediction_to_reference_mm: np.ndarray
    reference_areas_mm2: np.ndarray
    prediction_areas_mm2: np.ndarray


def compare_masks(
    reference: np.ndarray, prediction: np.ndarray, spacing_zyx_mm: tuple[float, float, float], *, tolerance_mm: float
) -> MaskComparison:
    """Measure how far one organ's predicted mask is from its reference.

    Parameters
    ----------
    reference, prediction : ndarray of bool, (z, y, x)
        The masks, on one grid.
    spacing_zyx_mm : tuple of float
        Voxel spacing in mm, in the order of the arrays' axes.
    tolerance_mm : float
        The surface distance that does not count as an error (NSD), in mm.

    Returns
    -------
    MaskComparison
        Measures as in :data:`EMPTY_CASES` where a mask is empty.

    Raises
    ------
    ValueError
        A mask is not a 3D array of bool, the shapes differ, or spacing or tolerance are not positive.

    Notes
    -----
    Dice = 2|R∩P|/(|R|+|P|), IoU = |R∩P|/|R∪P|. Boundary error: a shift of the boundary by a small δ
    changes the volume by about δS, which costs δS/(2V) of Dice (Häntze et al. 2025).

    Examples
    --------
    Two voxels of 1 mm, one of them found: Dice = 2·1/(2 + 1).

    >>> reference = np.array([[[True, True]]])
    >>> prediction = np.array([[[True, False]]])
    >>> round(compare_masks(reference, prediction, (1, 1, 1), tolerance_mm=1).dice, 4)
    0.6667
    """
    spacing = _check_arguments(reference, prediction, spacing_zyx_mm, tolerance_mm)
    voxel_ml = float(np.prod(spacing)) / 1000.0
    box = _find_box(reference, prediction)
    if box is None:
        return MaskComparison(status="both_empty", **_state_empty("both_empty"))
    reference, prediction = reference[box], prediction[box]
    in_reference, in_prediction = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    common = int(np.count_nonzero(reference & prediction))
    if in_reference == 0:
        known = _state_empty("reference_empty", volume_pred_ml=in_prediction * voxel_ml)
        return MaskComparison(status="reference_empty", **known)
    volume_ml = in_reference * voxel_ml
    if in_prediction == 0:
        _, areas = _find_surfels(reference, spacing)
        known = _state_empty(
            "prediction_empty",
            volume_ref_ml=volume_ml,
            volume_error_ml=-volume_ml,
            surface_ref_cm2=float(areas.sum()) / 100.0,
        )
        return MaskComparison(status="prediction_empty", **known)
    surfaces = measure_surface_distances(reference, prediction, spacing)
    dice = 2.0 * common / (in_reference + in_prediction)
    surface_cm2 = float(surfaces.reference_areas_mm2.sum()) / 100.0
    return MaskComparison(
        dice=dice,
        iou=common / (in_reference + in_prediction - common),
        nsd=measure_surface_dice(surfaces, tolerance_mm),
        hd95_mm=measure_robust_hausdorff(surfaces, 95.0),
        assd_mm=measure_average_distance(surfaces),
        precision=common / in_prediction,
        recall=common / in_reference,
        volume_ref_ml=volume_ml,
        volume_pred_ml=in_prediction * voxel_ml,
        volume_error_ml=(in_prediction - in_reference) * voxel_ml,
        surface_ref_cm2=surface_cm2,
        boundary_error_mm=float(convert_dice_to_boundary_error(dice, volume_ml, surface_cm2)),
    )


def compare_observers(
    first: np.ndarray, second: np.ndarray, spacing_zyx_mm: tuple[float, float, float], *, tolerance_mm: float
) -> ObserverAgreement:
    """Measure how far two observers' masks of one organ are from each other, neither being the reference.

    Parameters
    ----------
    first, second : ndarray of bool, (z, y, x)
        The masks, on one grid.
    spacing_zyx_mm : tuple of float
        Voxel spacing in mm, in the order of the arrays' axes.
    tolerance_mm : float
        The surface distance that does not count as a disagreement (NSD), in mm.

    Returns
    -------
    ObserverAgreement
        Measures as in :data:`EMPTY_CASES` where a mask is empty.

    Raises
    ------
    ValueError
        As :func:`compare_masks`.
    """
    spacing = _check_arguments(first, second, spacing_zyx_mm, tolerance_mm)
    box = _find_box(first, second)
    if box is None:
        return ObserverAgreement(status="both_empty")
    first, second = first[box], second[box]
    in_first, in_second = int(np.count_nonzero(first)), int(np.count_nonzero(second))
    voxel_ml = float(np.prod(spacing)) / 1000.0
    difference_ml = (in_second - in_first) * voxel_ml
    if in_first == 0 or in_second == 0:
        return ObserverAgreement(status="one_empty", **_state_empty("one_empty", volume_error_ml=difference_ml))
    common = int(np.count_nonzero(first & second))
    dice = 2.0 * common / (in_first + in_second)
    surfaces = measure_surface_distances(first, second, spacing)
    surface_cm2 = float(surfaces.reference_areas_mm2.sum() + surfaces.prediction_areas_mm2.sum()) / 200.0
    return ObserverAgreement(
        dice=dice,
        iou=common / (in_first + in_second - common),
        nsd=measure_surface_dice(surfaces, tolerance_mm),
        hd95_mm=measure_robust_hausdorff(surfaces, 95.0),
        assd_mm=measure_average_distance(surfaces),
        volume_error_ml=difference_ml,
        boundary_error_mm=float(
            convert_dice_to_boundary_error(dice, (in_first + in_second) / 2 * voxel_ml, surface_cm2)
        ),
    )


def convert_dice_to_boundary_error(
    dice: np.ndarray | float, volume_ml: np.ndarray | float, surface_cm2: np.ndarray | float
) -> np.ndarray | float:
    """State a Dice as the uniform boundary error that would cause it: 2V(1 − Dice)/S, in mm."""
    # ml / cm² = cm; × 10 = mm
    return 2.0 * volume_ml * (1.0 - dice) / surface_cm2 * 10.0


def predict_dice(
    boundary_error_mm: np.ndarray | float, volume_ml: np.ndarray | float, surface_cm2: np.ndarray | float
) -> np.ndarray:
    """Return the Dice that an organ of this size would get under a uniform boundary error: 1 − δS/(2V), at least 0."""
    return np.maximum(0.0, 1.0 - np.asarray(boundary_error_mm) * surface_cm2 / (2.0 * np.asarray(volume_ml)) / 10.0)


def measure_surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing_zyx_mm: tuple[float, float, float]
) -> SurfaceDistances:
    """Measure the distance of every surfel of each surface to the nearest surfel of the other.

    Parameters
    ----------
    reference, prediction : ndarray of bool, (z, y, x)
        The masks, neither empty.
    spacing_zyx_mm : tuple of float

    Returns
    -------
    SurfaceDistances
        Distances in mm between the centres of 2×2×2 neighbourhoods, exact in float64; unsorted.
    """
    ours, our_areas = _find_surfels(reference, spacing_zyx_mm)
    theirs, their_areas = _find_surfels(prediction, spacing_zyx_mm)
    shape = tuple(side + 1 for side in reference.shape)
    return SurfaceDistances(
        _measure_to_nearest(ours, theirs, shape, spacing_zyx_mm),
        _measure_to_nearest(theirs, ours, shape, spacing_zyx_mm),
        our_areas,
        their_areas,
    )


def measure_surface_dice(surfaces: SurfaceDistances, tolerance_mm: float) -> float:
    """Return the share of both surfaces' area that lies within the tolerance of the other (NSD)."""
    near = surfaces.reference_areas_mm2[surfaces.reference_to_prediction_mm <= tolerance_mm].sum()
    near += surfaces.prediction_areas_mm2[surfaces.prediction_to_reference_mm <= tolerance_mm].sum()
    return float(near / (surfaces.reference_areas_mm2.sum() + surfaces.prediction_areas_mm2.sum()))


def measure_robust_hausdorff(surfaces: SurfaceDistances, percent: float) -> float:
    """Return the larger of the two directed, area-weighted percentiles of distance, in mm."""
    return max(
        _find_weighted_percentile(surfaces.reference_to_prediction_mm, surfaces.reference_areas_mm2, percent),
        _find_weighted_percentile(surfaces.prediction_to_reference_mm, surfaces.prediction_areas_mm2, percent),
    )


def measure_average_distance(surfaces: SurfaceDistances) -> float:
    """Return the area-weighted mean distance over both surfaces together, in mm (ASSD)."""
    total = (surfaces.reference_to_prediction_mm * surfaces.reference_areas_mm2).sum()
    total += (surfaces.prediction_to_reference_mm * surfaces.prediction_areas_mm2).sum()
    return float(total / (surfaces.reference_areas_mm2.sum() + surfaces.prediction_areas_mm2.sum()))


def mark_missing(status: str) -> MaskComparison:
    """Return a comparison that holds nothing but the reason why it was not made."""
    return MaskComparison(status=status)


def _state_empty(status: str, **measured: float) -> dict[str, float]:
    """Return the measures that a case of :data:`EMPTY_CASES` leaves, with those that the masks give."""
    return {name: measured[name] if value is MEASURED else value for name, value in EMPTY_CASES[status].items()}


def _check_arguments(
    reference: np.ndarray, prediction: np.ndarray, spacing_zyx_mm: tuple[float, float, float], tolerance_mm: float
) -> tuple[float, float, float]:
    for name, mask in (("reference", reference), ("prediction", prediction)):
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 3:
            found = f"{mask.dtype} with {mask.ndim} axes" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise ValueError(f"{name} must be a 3D array of bool (z, y, x); got {found}")
    if reference.shape != prediction.shape:
        raise ValueError(f"reference and prediction must have one shape; got {reference.shape} and {prediction.shape}")
    spacing = tuple(float(value) for value in spacing_zyx_mm)
    if len(spacing) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise ValueError(f"spacing_zyx_mm must be three positive numbers in mm; got {spacing_zyx_mm}")
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm must be at least 0; got {tolerance_mm}")
    return spacing


def _find_box(reference: np.ndarray, prediction: np.ndarray) -> tuple[slice, ...] | None:
    """Return the smallest box that holds both masks, None when both are empty."""
    box: list[slice] = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        # Once an axis is cut, the next looks only at what is left.
        occupied = np.flatnonzero(reference[tuple(box)].any(axis=others) | prediction[tuple(box)].any(axis=others))
        if not len(occupied):
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def _find_surfels(mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat index of a mask's surfels in the grid of voxel corners, increasing, and their areas in mm².

    The grid of corners is one larger than the mask along each axis. The code of a corner has a bit for
    each of its eight voxels, the first voxel in (z, y, x) order being the highest.
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


def _measure_to_nearest(
    points: np.ndarray, others: np.ndarray, shape: tuple[int, int, int], spacing_zyx_mm: tuple[float, float, float]
) -> np.ndarray:
    """Return the distance in mm of each point to the nearest of the others (flat indices of one grid of this shape).

    Most surfels of a fair prediction lie a few voxels from the reference, so the nearest lattice offsets
    are tried in order of their length. Who is left is found by :func:`_search_layers` or a k-d tree. A distance
    transform of the whole box takes longer, and `edt`'s, in float32, was seen to be off by up to 5e-4 mm.
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


def _move_to_grid(flat: np.ndarray, shape: tuple[int, int, int], strides: np.ndarray) -> np.ndarray:
    """Return flat indices of a grid as those of a larger grid, given by its strides, with the same origin."""
    rows, x = np.divmod(flat, shape[2])
    z, y = np.divmod(rows, shape[1])
    return z * strides[0] + y * strides[1] + x


def _measure_far(
    points: np.ndarray, others: np.ndarray, shape: tuple[int, int, int], spacing_zyx_mm: tuple[float, float, float]
) -> np.ndarray:
    """Return the distances of points without a near neighbour: by layers, or by a k-d tree where points are few."""
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
    # From whole steps, not from the tree's own distances: a tolerance that is a multiple of the spacing
    # must not be missed by a rounding error in the coordinates.
    return _measure_lengths((ours - theirs[:, nearest]).T, spacing_zyx_mm)


def _keep_reachable(points: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return those of the others, indices (3, n), that may be the nearest of a point: a tree of all takes longer than few points need.

    The distance to the nearest of every few of the others bounds that to the nearest of all; blocks of voxels that lie within
    that bound of a point are marked, and others in no marked block are left out.
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
    points: np.ndarray, others: np.ndarray, extent: np.ndarray, axis: int, spacing_zyx_mm: tuple[float, float, float]
) -> np.ndarray:
    """Return the distance of each point to the nearest of the others, indices (3, n): a transform within layers, a search across them.

    Pixels of a layer are square, so squared distances within it are whole numbers of pixels, which `edt` gives without
    error. Across layers, none is looked at that is further away than the furthest point of a layer has to look.
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
        furthest = np.hypot(
            np.sqrt(pixels[near - first, places[start:stop]].max()) * pixel_mm, (layer - near) * across_mm
        )
        reach = int(min(furthest / across_mm, layers)) + 1
        looked = np.arange(max(first, layer - reach), min(last, layer + reach) + 1)
        # The root before the spacing: of a straight step it is exact, as in `_measure_lengths`.
        within_mm = (
            np.sqrt(pixels[looked[0] - first : looked[-1] + 1 - first, places[start:stop]], dtype=np.float64) * pixel_mm
        )
        squared[by_layer[start:stop]] = (within_mm**2 + ((looked - layer) * across_mm)[:, None] ** 2).min(axis=0)
    return np.sqrt(squared)


def _measure_lengths(steps_zyx: np.ndarray, spacing_zyx_mm: tuple[float, float, float]) -> np.ndarray:
    z, y, x = (steps_zyx * np.asarray(spacing_zyx_mm)).T
    return np.sqrt(z * z + y * y + x * x)


@lru_cache(maxsize=64)
def _list_offsets(spacing_zyx_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the :data:`SEARCHED_OFFSETS` shortest steps (n, 3) on the voxel lattice, their lengths in mm, and where each new length starts."""
    spacing = np.asarray(spacing_zyx_mm)
    # Along an axis no listed step exceeds the radius of the ball that holds twice as many lattice points.
    radius_mm = (2 * SEARCHED_OFFSETS * float(np.prod(spacing)) * 3 / (4 * np.pi)) ** (1 / 3)
    reach = np.minimum(np.ceil(np.maximum(radius_mm, 2 * spacing.min()) / spacing), SEARCHED_OFFSETS).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    lengths_mm = _measure_lengths(steps, spacing_zyx_mm)
    # A step as long as the first one left out along any axis may have an unlisted equal: stop before it.
    complete_mm = float(((reach + 1) * spacing).min())
    order = np.argsort(lengths_mm, kind="stable")
    order = order[lengths_mm[order] < complete_mm][:SEARCHED_OFFSETS]
    steps, lengths_mm = steps[order], lengths_mm[order]
    starts = np.flatnonzero(np.diff(lengths_mm, prepend=-1.0, append=np.inf))
    return steps, lengths_mm, starts


def _find_weighted_percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    cumulative /= cumulative[-1]
    limits = percent / 100.0 + np.array([-_ROUNDING, _ROUNDING])
    first, last = values[order[np.minimum(np.searchsorted(cumulative, limits), len(order) - 1)]]
    if first == last:
        return float(first)
    # The very order and sums of surface-distance: where the weights add up to `percent` exactly, the last
    # bit of rounding decides which of two distances is the percentile.
    order = np.lexsort((weights, values))
    weights = weights[order]
    place = np.searchsorted(np.cumsum(weights) / np.sum(weights), percent / 100.0)
    return float(values[order[min(int(place), len(order) - 1)]])


@lru_cache(maxsize=64)
def _tabulate_areas(spacing_zyx_mm: tuple[float, float, float]) -> np.ndarray:
    from surface_distance import lookup_tables

    return np.asarray(lookup_tables.create_table_neighbour_code_to_surface_area(spacing_zyx_mm), np.float64)
