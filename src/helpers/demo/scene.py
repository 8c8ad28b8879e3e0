"""A synthetic slice in the making: pixels, greys and shapes, bent by one warp."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np


@dataclass
class Scene:
    """A drawing in progress: which grey (`ink`) and which target (`owner`) each pixel has.

    Places are in units of the frame's longer side. Background has a negative owner; 0 is none.
    """

    rng: np.random.Generator
    height: int
    width: int
    ink: np.ndarray = field(init=False)
    owner: np.ndarray = field(init=False)
    greys: list[float] = field(default_factory=lambda: [0.0])
    textures: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])
    preferred: list[int] = field(default_factory=list)
    owners: int = 0

    def __post_init__(self) -> None:
        self.ink = np.zeros((self.height, self.width), np.int16)
        self.owner = np.zeros((self.height, self.width), np.int16)
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        cells = int(self.rng.integers(4, 9))
        amplitude = self.rng.uniform(0.0, 0.035)
        # One warp for the whole anatomy, so that neighbours stay neighbours.
        self.x = (x + 0.5) / self.side + amplitude * self.draw_field(cells)
        self.y = (y + 0.5) / self.side + amplitude * self.draw_field(cells)

    @property
    def side(self) -> int:
        """The longer side in pixels."""
        return max(self.height, self.width)

    def draw_field(self, cells: int) -> np.ndarray:
        """Draw a smooth field of about unit variance, `cells` bumps along the longer side."""
        rows, columns = (max(2, round(cells * length / self.side)) + 2 for length in (self.height, self.width))
        values = self.rng.standard_normal((rows, columns)).astype(np.float32)
        return _make_splines(rows, self.height) @ values @ _make_splines(columns, self.width).T

    def paint(
        self,
        inside: np.ndarray,
        grey: float,
        *,
        texture: float = 0.04,
        target: bool = True,
        preferred: bool = False,
        owner: int | None = None,
    ) -> int:
        """Give `inside` a grey, as a target of its own or part of `owner`; return the owner."""
        self.greys.append(grey)
        self.textures.append((self.rng.uniform(0, texture), self.rng.uniform(0, texture)))
        self.ink[inside] = len(self.greys) - 1
        if owner is None:
            self.owners += 1
            owner = self.owners if target else -self.owners
            if target and preferred:
                self.preferred.append(owner)
        self.owner[inside] = owner
        return owner

    def draw_blob(
        self,
        x: float,
        y: float,
        radius: float,
        *,
        elongation: float = 1.0,
        angle: float = 0.0,
        roughness: float = 0.12,
        bend: float = 0.0,
        power: float = 2.0,
    ) -> np.ndarray:
        """Return a bent superellipse whose radius swings with low harmonics of the angle."""
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        long, short = radius * np.sqrt(elongation), radius / np.sqrt(elongation)
        reach = 2.2 * long
        rows = np.flatnonzero((np.abs(dy) < reach).any(axis=1))
        columns = np.flatnonzero((np.abs(dx) < reach).any(axis=0))
        inside = np.zeros(self.ink.shape, bool)
        if not rows.size or not columns.size:
            return inside
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        dx, dy = dx[window], dy[window]
        u = (dx * cosine + dy * sine) / np.float32(long)
        v = (-dx * sine + dy * cosine) / np.float32(short)
        if bend:
            v = v + np.float32(bend * short / long) * (u * u - np.float32(0.4))
        distance = np.sqrt(u * u + v * v) if power == 2.0 else (u**4 + v**4) ** np.float32(0.25)
        if roughness:
            theta = np.arctan2(v, u)
            swing = np.zeros_like(theta)
            for harmonic in (2, 3, 4, 5):
                amplitude = self.rng.normal(0, roughness / harmonic)
                phase = np.float32(self.rng.uniform(0, 2 * np.pi))
                swing += np.float32(amplitude) * np.cos(harmonic * theta + phase)
            distance = distance / np.clip(1 + swing, 0.4, 1.8)
        inside[window] = distance < 1
        return inside


@cache
def _make_splines(knots: int, length: int) -> np.ndarray:
    """Return the (length, knots) matrix of a bump per knot, each row of unit norm."""
    position = (np.arange(length) + 0.5) / length * (knots - 1)
    weights = np.exp(-0.5 * ((np.arange(knots)[None] - position[:, None]) / 0.6) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
