"""Where on an organ, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helpers.spatial.surfaces import measure_vertex_areas
from helpers.vocabulary.anatomy import find_organ

# LPS axes: x grows to the person's left, y to the back, z to the head.
DIRECTIONS = (("right", "left"), ("anterior", "posterior"), ("inferior", "superior"))
# Where no region is given, it is where the value is at least this part of the map's height ...
REGION_FRACTION = 0.5
# ... which a fiftieth of the surface exceeds: one vertex at a thin edge must not speak for a map.
HEIGHT_QUANTILE = 0.98
# A direction is named when the region's centre lies this far out along it, of the strongest.
NAMED_FRACTION = 0.5
# Below this, relative to the organ's own extent, the region has no side.
MIN_ECCENTRICITY = 0.25
MOST_OF_SURFACE, WHOLE_SURFACE = 0.6, 0.95
# Below this, in mm, a difference or a slope is not worth a place on the organ.
SMALLEST_DIFFERENCE_MM = 0.05
# The height of a map in a region: what a twentieth of its surface exceeds. Words tell the median.
PEAK_QUANTILE = 0.95


@dataclass(frozen=True)
class MapPeak:
    """The height of a map, with its sign; where it stands out most; what the values speak of."""

    value_mm: float
    median_mm: float  # what half of the region exceeds
    vertex: int
    region: np.ndarray  # bool, (n,)


def find_peak(
    values_mm: np.ndarray, areas_mm2: np.ndarray, *, region: np.ndarray | None = None, prominence: np.ndarray
) -> MapPeak:
    """Return how high a map rises in a region (what 5 % of it exceeds), and its median there.

    A ValueError where there is no value in the region.

    `values_mm`, (n,), are NaN where missing; `areas_mm2`, (n,), is what each vertex stands for.
    `region`, bool, (n,), is where to look: of positive and negative values in it, those count that
    cover more of it; without a region, those of the most prominent vertex's sign, anywhere.
    `prominence`, (n,), decides where the map stands out most: the size of the statistic, or of the
    value.
    """
    values = np.asarray(values_mm, float)
    candidates = np.isfinite(values) if region is None else np.isfinite(values) & region
    if not candidates.any():
        raise ValueError("values_mm must have a value in the region")
    rank = np.where(candidates & np.isfinite(prominence), prominence, -np.inf)
    if region is None:
        sign = np.sign(values[int(rank.argmax())])
    else:
        sign = np.sign(np.sum(np.sign(values[candidates]) * areas_mm2[candidates]))
    sign = sign or 1.0
    part = candidates & (np.where(candidates, values, 0.0) * sign > 0)
    part = part if part.any() else candidates
    height_mm, median_mm = (
        float(sign * measure_quantile(np.abs(values[part]), areas_mm2[part], quantile))
        for quantile in (PEAK_QUANTILE, 0.5)
    )
    return MapPeak(
        height_mm,
        median_mm,
        int(np.where(part, rank, -np.inf).argmax()),
        part,
    )


def find_high_part(values_mm: np.ndarray, areas_mm2: np.ndarray, *, smallest_mm: float = 0.1) -> np.ndarray | None:
    """Return where a map (one value or more) is high: at least half of what a fiftieth exceeds.

    None where that height is under `smallest_mm`.
    """
    known = np.isfinite(values_mm)
    sizes = np.abs(np.nan_to_num(values_mm, nan=0.0))
    height_mm = measure_quantile(sizes[known], areas_mm2[known], HEIGHT_QUANTILE)
    return sizes >= REGION_FRACTION * height_mm if height_mm >= smallest_mm else None


def measure_quantile(values: np.ndarray, weights: np.ndarray, quantile: float) -> float:
    """Return the smallest value that at least a share `quantile` of the weight does not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, quantile * reached[-1] * (1 - 1e-12))
    return float(values[order][min(int(place), len(values) - 1)])


def find_significant(p_fwer: np.ndarray, p_tfce: np.ndarray, alpha: float) -> np.ndarray | None:
    """Return where a map is significant, bool, (n,): the one mask of figures, tables and words.

    By the cluster-enhanced p where there is one (signed errors), else by that of single vertices;
    both are adjusted for the whole surface. None where nothing was tested.
    """
    p = p_tfce if np.isfinite(p_tfce).any() else p_fwer
    return np.nan_to_num(p, nan=1.0) <= alpha if np.isfinite(p).any() else None


def describe_location(
    vertices_mm: np.ndarray,
    values_mm: np.ndarray,
    faces: np.ndarray | None = None,
    *,
    region: np.ndarray | None = None,
    positive: str = "too large",
    negative: str = "too small",
    smallest_mm: float = 0.1,
    organ: str = "",
) -> str:
    """Say in words how large a map typically is, where on an organ, and on how much of it.

    `vertices_mm`, (n, 3), are the template's, LPS mm; `values_mm`, (n,), a map: mean signed error,
    or a difference of two; NaN for missing vertices. `faces`, int, (m, 3), weigh vertices by area;
    without them all weigh alike. `region`, bool, (n,), is the part of the surface to describe
    (where a difference is significant, say), by default that of :func:`find_high_part`; there, a
    height below `smallest_mm` is not worth a place. `positive` and `negative` say what values above
    and below zero mean, for example ``"larger in women"``; `organ` names sides by its anatomy.
    Returns for example ``"typically 3.1 mm too small on the posterior-inferior surface (14 % of the
    surface)"``.

    Notes
    -----
    The size is the median by area of the sign that covers more. Their area-weighted centre, each
    axis divided by the organ's extent along it, gives the direction: axes at least half as strong
    as the strongest are named; a centre near the middle has no side.
    """
    values = np.asarray(values_mm, float)
    finite = np.isfinite(values)
    if not finite.any():
        return "no value anywhere on the surface"
    weights = np.ones(len(values)) if faces is None else measure_vertex_areas(vertices_mm, faces)
    if region is None or not (finite & region).any():
        region = find_high_part(values, weights, smallest_mm=smallest_mm)
    if region is None:
        return f"nowhere over {smallest_mm:g} mm"
    found = find_peak(values, weights, region=region, prominence=np.abs(values))
    typical, region = found.median_mm, found.region
    fraction = weights[region].sum() / weights[finite].sum()
    size = f"typically {abs(typical):.1f} mm {positive if typical > 0 else negative}"
    share = f"{f'{100 * fraction:.0f}' if fraction >= 0.01 else 'under 1'} % of the surface"
    if fraction >= WHOLE_SURFACE:
        return f"{size} over the whole surface"
    if fraction >= MOST_OF_SURFACE:
        return f"{size} over most of it ({share})"
    return f"{size} {_name_part(vertices_mm, region, weights, organ)} ({share})"


def _name_part(vertices_mm: np.ndarray, region: np.ndarray, weights: np.ndarray, organ: str) -> str:
    """Return where a region lies: ``on the posterior surface``, ``in the right lobe, inferior``."""
    middle = np.average(vertices_mm, axis=0, weights=weights)
    half_extent = np.maximum(np.ptp(vertices_mm, axis=0) / 2, 1e-9)
    pull = np.average((vertices_mm[region] - middle) / half_extent, axis=0, weights=weights[region])
    strongest = np.abs(pull).max()
    if strongest < MIN_ECCENTRICITY:
        return "in several parts"
    sides = [
        names[int(component > 0)]
        for names, component in zip(DIRECTIONS, pull, strict=True)
        if abs(component) >= NAMED_FRACTION * strongest
    ]
    anatomy = find_organ(organ)
    return anatomy.name_part(sides) if anatomy is not None else f"on the {'-'.join(sides)} surface"
