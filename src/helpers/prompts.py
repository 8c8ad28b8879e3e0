"""Prompts simulated from a reference mask: what a careful user would draw, with seeded imprecision.

Every prompt is derived from the expert's mask, so results are an upper bound on what a model does
with prompts drawn in practice. Prompts depend on the mask, the spacing and the generator alone,
never on the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cc3d
import numpy as np
from scipy import ndimage

from helpers.parameters import Prompt

# Negative points lie outside the organ in its box, enlarged on each side by this share of it.
_RING = 0.25


@dataclass(frozen=True)
class Prompts:
    """Prompts of one organ of a scan: each one box at most and points, on one slice."""

    slices: np.ndarray  # int64, (n,): the axial slice (z index) of each prompt, ascending
    # float64, (n, 4): x0, y0, x1, y1 in voxels at pixel edges: voxel i covers [i, i + 1), so the
    # box of voxels 3 to 5 runs from 3.0 to 6.0; (0, 4) where prompts have no box.
    corners: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    # float64, (n, k, 2): x, y as voxel indices (SAM adds the half voxel itself); k = 0: no points.
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 2)))
    # int64, (n, k). 1: the point is in the organ; 0: it is not; −1: no point (SAM's padding).
    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    dropped: int = 0  # components below the smallest area, for which there is no prompt
    # How many a person would draw, a box in space counting once; None: each of them.
    drawn: int | None = None

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def effort(self) -> int:
        """How many prompts a person would draw for these."""
        return len(self) if self.drawn is None else self.drawn

    @property
    def has_boxes(self) -> bool:
        """Whether each prompt has a box."""
        return len(self.corners) == len(self.slices)

    @property
    def has_points(self) -> bool:
        """Whether each prompt has points."""
        return len(self.points) == len(self.slices) and self.points.shape[1] > 0

    def take(self, chosen: slice | np.ndarray) -> Prompts:
        """Return some of the prompts."""
        return Prompts(
            self.slices[chosen],
            self.corners[chosen] if self.has_boxes else self.corners,
            self.points[chosen] if self.has_points else self.points,
            self.labels[chosen] if self.has_points else self.labels,
        )


def join_prompts(parts: Sequence[Prompts]) -> Prompts:
    """Join prompts of one type."""
    columns = zip(*((part.slices, part.corners, part.points, part.labels) for part in parts), strict=True)
    slices, corners, points, labels = map(np.concatenate, columns)
    return Prompts(slices, corners, points, labels)


def draw_prompts(
    mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float], prompt: Prompt, rng: np.random.Generator
) -> Prompts:
    """Simulate the prompts of one organ.

    Parameters
    ----------
    mask : ndarray of bool, (z, y, x)
        One organ, axial slices first.
    prompt : Prompt
        Its ``type``, for every axial slice that holds the organ:

        - ``box``: a box around every connected component (8-connected in the slice).
        - ``box3d``: one box in space around every connected component (26-connected); each slice it
          spans, also one without the organ, is prompted with its rectangle.
        - ``points``: points in every component: the first at its centre (the pixel farthest from
          its border) or all at random; negative ones beside the organ.
        - ``box_points``: both.

        With ``every`` above 1, boxes are drawn on every so-many-th slice of each component in space
        and on its last, and those between are interpolated linearly, side by side.

        With ``per: organ`` the organ's components in a slice (in space, for ``box3d``) share one
        prompt.
    rng : numpy Generator
        Numbers are drawn per component, kept or dropped, in the order of slices and components, so
        a change of ``jitter`` or ``min_area_mm2`` leaves all other boxes in place.

    Returns
    -------
    Prompts
        Empty for an empty mask. A box's sides each move by an independent U(−j, +j), j being
        ``jitter`` × the box's extent along that axis or ``jitter_mm``, but never past the middle of
        the box, and are clipped to the scan.
    """
    if prompt.type == "box3d":
        return _draw_boxes_in_space(mask, spacing_zyx_mm, prompt, rng)
    if prompt.every > 1:
        return _draw_sparsely(mask, spacing_zyx_mm, prompt, rng)
    return _draw_by_slice(mask, spacing_zyx_mm, prompt, rng)


@dataclass(frozen=True)
class _Component:
    """What one prompt is about: its voxels' bounding box, and the box's place in the mask."""

    shape: np.ndarray
    begin: tuple[int, ...]

    @property
    def edges(self) -> np.ndarray:
        """Lower and upper edges per axis of the mask, (2, axes)."""
        begin = np.asarray(self.begin, np.float64)
        return np.stack([begin, begin + self.shape.shape])


def _draw_by_slice(
    mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float], prompt: Prompt, rng: np.random.Generator
) -> Prompts:
    plane_mm = spacing_zyx_mm[1:]
    slices, corners, points, labels = [], [], [], []
    dropped = 0
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        kept, small = _keep_components(mask[z], plane_mm, prompt, rng)
        dropped += small
        for component, moves in kept:
            slices.append(int(z))
            if prompt.type != "points":
                corners.append(_jitter_box(component.edges, moves, mask.shape[1:], plane_mm, prompt))
            if prompt.type != "box":
                placed, signs = _place_points(component, mask[z], prompt, rng)
                points.append(placed)
                labels.append(signs)
    return Prompts(
        np.asarray(slices, np.int64),
        np.asarray(corners, np.float64).reshape(-1, 4),
        np.asarray(points, np.float64) if points else np.zeros((0, 0, 2)),
        np.asarray(labels, np.int64) if labels else np.zeros((0, 0), np.int64),
        dropped,
    )


def _draw_boxes_in_space(
    mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float], prompt: Prompt, rng: np.random.Generator
) -> Prompts:
    kept, dropped = _keep_components(mask, spacing_zyx_mm[1:], prompt, rng)
    found = []
    for component, moves in kept:
        x0, y0, z0, x1, y1, z1 = _jitter_box(component.edges, moves, mask.shape, spacing_zyx_mm, prompt)
        first = min(round(z0), mask.shape[0] - 1)
        found += [(z, (x0, y0, x1, y1)) for z in range(first, max(round(z1), first + 1))]
    return _order_boxes(found, dropped, drawn=len(kept))


def _draw_sparsely(
    mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float], prompt: Prompt, rng: np.random.Generator
) -> Prompts:
    """Draw boxes on some slices of each component in space and interpolate the others."""
    kept, dropped = _keep_components(mask, spacing_zyx_mm[1:], prompt, rng)
    found: list[tuple[int, np.ndarray]] = []
    drawn = 0
    for component, _ in kept:
        occupied = np.flatnonzero(component.shape.any(axis=(1, 2)))
        chosen = sorted({*occupied[:: prompt.every], occupied[-1]})
        boxes = []
        for z in chosen:
            (flat,) = ndimage.find_objects(component.shape[z].astype(np.uint8))
            low = [part.start + start for part, start in zip(flat, component.begin[1:], strict=True)]
            high = [part.stop + start for part, start in zip(flat, component.begin[1:], strict=True)]
            moves = rng.uniform(-1.0, 1.0, size=4)
            edges = np.array([low, high], np.float64)
            boxes.append(_jitter_box(edges, moves, mask.shape[1:], spacing_zyx_mm[1:], prompt))
        drawn += len(chosen)
        between = np.arange(chosen[0], chosen[-1] + 1)
        sides = np.stack([np.interp(between, chosen, side) for side in np.transpose(boxes)], axis=1)
        found += [(int(z) + component.begin[0], box) for z, box in zip(between, sides, strict=True)]
    return _order_boxes(found, dropped, drawn)


def _order_boxes(found: Sequence[tuple[int, Sequence[float] | np.ndarray]], dropped: int, drawn: int) -> Prompts:
    """Return boxes, each with its slice, as prompts in the order of slices."""
    found = sorted(found, key=lambda pair: pair[0])
    return Prompts(
        np.asarray([z for z, _ in found], np.int64),
        np.asarray([box for _, box in found], np.float64).reshape(-1, 4),
        dropped=dropped,
        drawn=drawn,
    )


def _keep_components(
    mask: np.ndarray, plane_mm: tuple[float, ...], prompt: Prompt, rng: np.random.Generator
) -> tuple[list[tuple[_Component, np.ndarray]], int]:
    """Return what gets a prompt, with the moves of its box's sides, and how many are too small.

    In space the widest slice of a component is asked for its area. One that fills less than the
    limit by rounding alone is kept.
    """
    kept, small = [], 0
    for component in _find_components(mask):
        moves = rng.uniform(-1.0, 1.0, size=2 * mask.ndim)
        voxels = component.shape.sum(axis=(-2, -1)).max()
        if voxels * plane_mm[0] * plane_mm[1] < prompt.min_area_mm2 * (1 - 1e-9):
            small += 1
        else:
            kept.append((component, moves))
    if prompt.per == "organ" and kept:
        kept = [(_join([component for component, _ in kept]), kept[0][1])]
    return kept, small


def _find_components(mask: np.ndarray) -> Iterator[_Component]:
    """Yield the components, 8-connected in a slice and 26-connected in space."""
    connectivity: Literal[8, 26] = 8 if mask.ndim == 2 else 26
    components = cc3d.connected_components(np.ascontiguousarray(mask, dtype=np.uint8), connectivity=connectivity)
    statistics = cc3d.statistics(components)
    for label in range(1, len(statistics["voxel_counts"])):
        box = statistics["bounding_boxes"][label][: mask.ndim]
        yield _Component(components[box] == label, tuple(part.start for part in box))


def _join(components: list[_Component]) -> _Component:
    """Return the components as one."""
    begin = np.min([component.begin for component in components], axis=0)
    end = np.max([component.edges[1] for component in components], axis=0).astype(int)
    shape = np.zeros(end - begin, bool)
    for component in components:
        place = tuple(
            slice(start - low, start - low + length)
            for start, low, length in zip(component.begin, begin, component.shape.shape, strict=True)
        )
        shape[place] |= component.shape
    return _Component(shape, tuple(int(part) for part in begin))


def _jitter_box(
    edges: np.ndarray, moves: np.ndarray, limits: tuple[int, ...], spacing_mm: tuple[float, ...], prompt: Prompt
) -> np.ndarray:
    """Return the box (x, y[, z] of the lower, then the upper corner), sides moved and clipped."""
    edges, limits_xyz = edges[:, ::-1], np.asarray(limits, np.float64)[::-1]
    extent = edges[1] - edges[0]
    if prompt.jitter_mm is None:
        reach = prompt.jitter * extent
    else:
        reach = np.minimum(prompt.jitter_mm / np.asarray(spacing_mm, np.float64)[::-1], extent / 2)
    moved = edges.ravel() + np.tile(reach, 2) * moves
    return np.clip(moved, 0, np.tile(limits_xyz, 2))


def _place_points(
    component: _Component, mask: np.ndarray, prompt: Prompt, rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """Return the positive, then the negative points (x, y) of a component, and their labels."""
    inside = np.argwhere(component.shape)
    chosen = inside[rng.integers(len(inside), size=prompt.positive)]
    if prompt.placement == "center" and prompt.positive:
        depth = ndimage.distance_transform_edt(np.pad(component.shape, 1))[1:-1, 1:-1]
        chosen[0] = np.unravel_index(int(np.argmax(depth)), depth.shape)
    chosen = chosen + component.begin
    labels = [1] * prompt.positive
    if prompt.negative:
        beside = _list_beside(component, mask)
        chosen = np.concatenate([chosen, beside[rng.integers(len(beside), size=prompt.negative)]])
        # An organ that fills the slice leaves no place beside it: SAM's label for "no point".
        labels += [-1 if mask.all() else 0] * prompt.negative
    return chosen[:, ::-1].astype(np.float64), labels


def _list_beside(component: _Component, mask: np.ndarray) -> np.ndarray:
    """Return pixels around a component that are not the organ's; anywhere, where none are near."""
    low, high = component.edges
    reach = np.ceil(_RING * (high - low)).clip(min=2)
    start = np.maximum(low - reach, 0).astype(int)
    stop = np.minimum(high + reach, mask.shape).astype(int)
    beside = np.argwhere(~mask[start[0] : stop[0], start[1] : stop[1]]) + start
    if len(beside):
        return beside
    return np.argwhere(~mask) if not mask.all() else np.zeros((1, 2), int)
