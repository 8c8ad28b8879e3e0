"""Segmentation errors of known size, in millimetres, put into masks.

The surface of each organ is moved along its normal: everywhere by a smooth random field, and for
the people an effect applies to by a known distance, everywhere or on one side of the organ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import edt
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from helpers.demo.fields import SmoothField
from helpers.parameters import Planted, PlantedEffect
from helpers.volumes import grow_box

# Directions of the regions in array order: z superior, y posterior, x to the person's left.
_TOWARDS = {
    "superior": (1, 0, 0), "inferior": (-1, 0, 0), "posterior": (0, 1, 0), "anterior": (0, -1, 0),
    "left": (0, 0, 1), "right": (0, 0, -1),
}  # fmt: skip
_FULL_DEGREES = {1: 45.0, 2: 60.0}  # by how many directions a region combines
_FADE_DEGREES = 30.0
_ANTIALIAS_VOXELS = 0.9


def plant_errors(
    labels: np.ndarray,
    spacing_zyx_mm: tuple[float, float, float],
    organ_ids: Mapping[str, int],
    planted: Planted,
    person: Mapping[str, Any],
    rng: np.random.Generator,
) -> np.ndarray:
    """Make a mask as a model with known errors would draw it.

    Parameters
    ----------
    labels : ndarray of uint8, (z, y, x), study orientation
        The reference, axes towards superior, posterior and left (``volumes.to_axial``).
    spacing_zyx_mm : tuple of float
    organ_ids : mapping of str to int
        The organs to move and their ids; others are dropped.
    person : mapping
        With ``sex``, ``age`` (years) and ``bmi`` (kg/m²); a missing value fulfils no condition.

    Returns
    -------
    ndarray of uint8, (z, y, x)
        The moved organs: the reference itself without error and effect. Where two organs claim a
        voxel, the one whose surface is further away keeps it. An organ that is cut by the edge of
        the image is not moved there.

    Notes
    -----
    A voxel belongs to the moved organ where its signed distance to the reference's surface (mm,
    negative inside; :func:`measure_signed_distance`) is less than the displacement. Effects add up.
    """
    result = np.zeros_like(labels)
    deepest = np.zeros(labels.shape, np.float32)
    effects = [effect for effect in planted.effects if is_meant_for(effect, person)]
    for name, value in organ_ids.items():
        # Drawn whether it is there or not, so that its absence does not change the others' errors.
        own = np.random.default_rng(rng.integers(2**62))
        found = ndimage.find_objects((labels == value).view(np.uint8))
        if not found:
            continue
        mine = [effect for effect in effects if not effect.organs or name in effect.organs]
        reach_mm = 4.5 * planted.boundary_error_mm + sum(abs(effect.erosion_mm) for effect in mine) + 1.0
        margins = [int(np.ceil(reach_mm / step)) + 1 for step in spacing_zyx_mm]
        box = grow_box(found[0], margins, labels.shape)
        mask = labels[box] == value
        extent = np.multiply(mask.shape, spacing_zyx_mm)
        axes = [np.arange(count) * step for count, step in zip(mask.shape, spacing_zyx_mm, strict=True)]
        shift = SmoothField(own, (0, 0, 0), extent, planted.smoothness_mm).evaluate(*axes)
        shift *= np.float32(planted.boundary_error_mm)
        for effect in mine:
            shift -= np.float32(effect.erosion_mm) * weigh_region(mask, spacing_zyx_mm, effect.region)
        depth = shift - measure_signed_distance(mask, spacing_zyx_mm, reach_mm=reach_mm)
        claimed = (depth > 0) & (depth > deepest[box])
        result[box][claimed] = value
        deepest[box][claimed] = depth[claimed]
    return result


def is_meant_for(effect: PlantedEffect, person: Mapping[str, Any]) -> bool:
    """Return whether an effect is meant for a person: of the group or above the threshold."""
    value = person.get(effect.attribute)
    if value is None or value != value:
        return False
    return bool(value == effect.group if effect.group is not None else value >= effect.above)


def measure_signed_distance(
    mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float], *, reach_mm: float = 12.0
) -> np.ndarray:
    """Return the signed distance from voxel centres to a mask's surface, to a fraction of a voxel.

    Distance transforms of a binary mask measure to the corners of its stairs: an erosion by 1 mm
    would do nothing at 3 mm voxels, and one by 3 mm would take off 4. Here the surface is the half
    level of the slightly smoothed mask, found by interpolation along the grid's edges, and a
    distance is the one to the tangent planes of the four nearest of these points.

    Parameters
    ----------
    mask : ndarray of bool, (z, y, x)
        Where it reaches the edge of the array it is taken to go on beyond.
    spacing_zyx_mm : tuple of float
    reach_mm : float
        Up to here it is accurate; further away it is that of the plain distance transform.

    Returns
    -------
    ndarray of float32, (z, y, x)
        mm; negative inside, positive outside, never 0. An empty mask gives +inf, a full one −inf.
    """
    if not mask.any() or mask.all():
        return np.full(mask.shape, -np.inf if mask.any() else np.inf, np.float32)
    spacing = np.asarray(spacing_zyx_mm, float)
    points, normals = _find_surface(mask, spacing)
    anisotropy = tuple(spacing)
    distance = edt.edt(~mask, anisotropy=anisotropy) - edt.edt(mask, anisotropy=anisotropy)
    near = np.nonzero(np.abs(distance) < reach_mm + spacing.max())
    centres = np.stack(near, axis=1) * spacing
    nearest_mm, which = KDTree(points).query(centres, k=min(4, len(points)))
    nearest_mm, which = nearest_mm.reshape(len(centres), -1), which.reshape(len(centres), -1)
    to_planes_mm = np.einsum("nkc,nkc->nk", centres[:, None] - points[which], normals[which])
    weights = 1.0 / (nearest_mm**2 + 0.5)
    distance[near] = (to_planes_mm * weights).sum(axis=1) / weights.sum(axis=1)
    # A voxel stays on its side: without displacement the mask comes back unchanged.
    return np.where(mask, np.minimum(distance, -1e-3), np.maximum(distance, 1e-3)).astype(np.float32)


def weigh_region(mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float], region: str) -> np.ndarray:
    """Return how much of an effect each voxel gets, 0 to 1, by direction from the organ's centre.

    Directions are taken in the organ's own proportions (each axis divided by its extent), so that
    a long organ has an equal share on each side. The weight is 1 within 45° of the region's
    direction (60° for a combined one such as ``posterior_inferior``) and falls to 0 over 30° more.

    Parameters
    ----------
    mask : ndarray of bool, (z, y, x), study orientation
        Not empty; the weights are float32 on its grid.
    region : str
        One of :class:`helpers.parameters.PlantedEffect`'s regions.
    """
    if region == "everywhere":
        return np.ones(mask.shape, np.float32)
    parts = region.split("_")
    direction = np.sum([_TOWARDS[part] for part in parts], axis=0) / np.sqrt(len(parts))
    offsets = []
    for axis, indices in enumerate(np.nonzero(mask)):
        half_mm = (indices.max() - indices.min() + 1) * spacing_zyx_mm[axis] / 2
        along = (np.arange(mask.shape[axis]) - indices.mean()) * spacing_zyx_mm[axis] / half_mm
        offsets.append(along.astype(np.float32).reshape([-1 if axis == other else 1 for other in range(3)]))
    length = np.sqrt(sum(offset**2 for offset in offsets)) + 1e-6
    cosine = sum(part * offset for part, offset in zip(direction, offsets, strict=True)) / length
    angle = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    fade = np.clip((_FULL_DEGREES[len(parts)] + _FADE_DEGREES - angle) / _FADE_DEGREES, 0, 1)
    return (fade * fade * (3 - 2 * fade)).astype(np.float32)


def describe_planted(planted: Planted) -> list[str]:
    """Return in sentences what is planted."""
    by, over = f"{planted.boundary_error_mm:g} mm (standard deviation)", f"{planted.smoothness_mm:g} mm"
    wandering = f"Every outline wanders at random by {by}, smoothly over {over}."
    return [wandering, *map(describe_effect, planted.effects)]


def describe_effect(effect: PlantedEffect) -> str:
    """Return in a sentence what one effect does to whom."""
    name, unit = {"age": ("age", "years"), "bmi": ("BMI", "kg/m²"), "sex": ("sex", "")}[effect.attribute]
    who = f"{name} is {effect.group}" if effect.group is not None else f"{name} is {effect.above:g} {unit} or more"
    organs = " and ".join(name.replace("_", " ") for name in effect.organs) or "every organ"
    way = "inwards" if effect.erosion_mm > 0 else "outwards"
    where = "everywhere" if effect.region == "everywhere" else f"on its {effect.region.replace('_', '-')} side"
    return f"Where {who}, the surface of {organs} is moved {abs(effect.erosion_mm):g} mm {way} {where}."


def _find_surface(mask: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points on the surface (n, 3; mm) and outward unit normals there, both (z, y, x)."""

    def smooth(array: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(array, _ANTIALIAS_VOXELS, mode="nearest")

    solid = mask.astype(np.float32)
    level = smooth(solid)
    level += smooth(solid - level)  # once more on what was lost: or convex surfaces would shrink
    level = 0.5 - level
    level = np.where(mask, np.minimum(level, -0.02), np.maximum(level, 0.02))
    # np.gradient needs two samples along an axis; a flat mask has no slope there.
    slopes = [
        np.gradient(level, step, axis=axis) if level.shape[axis] > 1 else np.zeros_like(level)
        for axis, step in enumerate(spacing)
    ]
    points, normals = [], []
    for axis in range(3):
        here = np.nonzero(np.diff(mask, axis=axis))
        there = tuple(index + (axis == other) for other, index in enumerate(here))
        share = level[here] / (level[here] - level[there])
        point = np.stack(here, axis=1).astype(float)
        point[:, axis] += share
        slope = np.stack([part[here] * (1 - share) + part[there] * share for part in slopes], axis=1)
        # Where a thin sheet's slopes cancel, the edge that crosses the surface tells its direction.
        flat = np.linalg.norm(slope, axis=1) < 1e-6
        slope[flat] = 0.0
        slope[flat, axis] = np.where(mask[here][flat], 1.0, -1.0)
        points.append(point * spacing)
        normals.append(slope / np.linalg.norm(slope, axis=1, keepdims=True))
    return np.concatenate(points), np.concatenate(normals)
