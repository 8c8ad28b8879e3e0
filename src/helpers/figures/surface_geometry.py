"""A template surface in 3D: where it is looked from, its sides' names, lines drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Seen from each side; the template's axes are x to the person's left, y posterior, z superior.
CAMERAS = {
    "Anterior": ((0, -1, 0), (0, 0, 1)),
    "Posterior": ((0, 1, 0), (0, 0, 1)),
    "Right": ((-1, 0, 0), (0, 0, 1)),
    "Left": ((1, 0, 0), (0, 0, 1)),
    "Superior": ((0, 0, 1), (0, -1, 0)),
    "Inferior": ((0, 0, -1), (0, -1, 0)),
}
# From the organ to its R, L, A, P, S, I marks, as a part of its length.
MARK_GAP = 0.1
SCENE_ZOOM = 1.9  # the letters at the ends of a tall organ stay within the picture
# How far a line floats above the surface, as a part of the organ's length, lest it sink into it.
LINE_LIFT = 0.006
# Rounds in which each point of a line moves to the mean of itself and its neighbours.
LINE_ROUNDS = 2


def place_camera(side: str) -> dict[str, Any]:
    """Return plotly's camera that looks from a side of :data:`CAMERAS`, without perspective."""
    towards, up = CAMERAS[side]
    return {
        "eye": dict(zip("xyz", (2.0 * part for part in towards), strict=True)),
        "up": dict(zip("xyz", map(float, up), strict=True)),
        "center": {"x": 0.0, "y": 0.0, "z": 0.0},
        "projection": {"type": "orthographic"},
    }


def frame_scene(vertices_mm: np.ndarray) -> dict[str, Any]:
    """Return plotly's scene axes, equally long, that hold an organ and its marks."""
    low, high = vertices_mm.min(axis=0), vertices_mm.max(axis=0)
    half = (0.5 + 1.4 * MARK_GAP) * float((high - low).max())
    return {
        f"{name}axis": {"visible": False, "range": [round(float(end), 1) for end in (middle - half, middle + half)]}
        for name, middle in zip("xyz", (low + high) / 2, strict=True)
    }


def mark_sides(vertices_mm: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return where R, L, A, P, I and S stand, (6, 3) in mm, and these names.

    At the ends of lines through the organ's middle.
    """
    low, high = vertices_mm.min(axis=0), vertices_mm.max(axis=0)
    middle = (low + high) / 2
    gap = MARK_GAP * float((high - low).max())
    points, names = [], []
    for axis, pair in enumerate(("RL", "AP", "IS")):
        for name, end in zip(pair, (low[axis] - gap, high[axis] + gap), strict=True):
            point = middle.copy()
            point[axis] = end
            points.append(point)
            names.append(name)
    return np.asarray(points), names


def outline_region(vertices_mm: np.ndarray, faces: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the line around a region of a mesh, lifted a little off the surface.

    `faces` (m, 3) are wound so that normals point outwards; `inside`, bool (n,), says which
    vertices belong to the region. The line runs through the middles of the triangle sides that
    leave the region: points (k, 3) in order, a row of NaN after each part; no rows where there is
    no border.
    """
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    crossing = inside[sides[:, 0]] != inside[sides[:, 1]]
    owners = np.tile(np.arange(len(faces)), 3)[crossing]
    crossed, number = np.unique(np.sort(sides[crossing], axis=1), axis=0, return_inverse=True)
    # A triangle with one corner apart is crossed on two of its sides: these are linked.
    number = number.ravel()[np.argsort(owners, kind="stable")].reshape(-1, 2)
    normals = _average_normals(vertices_mm, faces)
    lift = LINE_LIFT * float(np.ptp(vertices_mm, axis=0).max())
    middles = vertices_mm[crossed].mean(axis=1) + lift * normals[crossed].mean(axis=1)
    parts = []
    for path in _chain_links(number, len(crossed)):
        points = middles[path]
        for _ in range(LINE_ROUNDS):
            points = _smooth_line(points, closed=path[0] == path[-1])
        parts += [points, np.full((1, 3), np.nan)]
    return np.concatenate(parts) if parts else np.empty((0, 3))


def round_up(value: float) -> float:
    """Return the next of 0.25, 0.5, 1, 1.5, 2, 3, 4, 5 … mm: the end of a colour scale."""
    steps: Sequence[float] = (0.25, 0.5, 1.0, 1.5, 2.0)
    return next((step for step in steps if value <= step), float(np.ceil(value)))


def _average_normals(vertices_mm: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return each vertex's unit normal: the mean of its triangles', weighed by area."""
    a, b, c = vertices_mm[faces].swapaxes(0, 1)
    of_faces = np.cross(b - a, c - a)
    total = np.zeros_like(vertices_mm, dtype=float)
    for corner in range(3):
        np.add.at(total, faces[:, corner], of_faces)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _chain_links(links: np.ndarray, count: int) -> list[list[int]]:
    """Return paths through all links; a path that closes ends where it began."""
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for start, end in links.tolist():
        neighbours[start].append(end)
        neighbours[end].append(start)
    paths = []
    # Open paths first, from their ends, so that what is left is closed.
    for first in sorted(range(count), key=lambda node: len(neighbours[node]) != 1):
        while neighbours[first]:
            path = [first]
            while neighbours[path[-1]]:
                here = path[-1]
                there = neighbours[here].pop()
                neighbours[there].remove(here)
                path.append(there)
            paths.append(path)
    return paths


def _smooth_line(points: np.ndarray, *, closed: bool) -> np.ndarray:
    smoothed = points.copy()
    smoothed[1:-1] = (points[:-2] + points[1:-1] + points[2:]) / 3
    if closed and len(points) > 3:
        smoothed[0] = smoothed[-1] = (points[-2] + points[0] + points[1]) / 3
    return smoothed
