"""Synthetic slices with known shapes: what `sam_demo` is trained on, without a single patient.

In the manner of SynthSeg (Billot et al., Medical Image Analysis 2023): shapes are drawn at random, every
shape gets a random grey, and contrast, texture, blur, resolution, bias field, noise and window are drawn
anew for each slice, so that a network has nothing to learn but outlines. Four kinds of scene: slices of drawn
torsos (:mod:`helpers.demo.torsos`), torso-like arrangements, free shapes, and partitions of the plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import cc3d
import numpy as np
from scipy import ndimage

from helpers.demo.torsos import Torsos, paint_torso_slice

# Components smaller than this are no targets: 4 × 4 pixels.
_MIN_TARGET_PIXELS = 16
# Share of the slices that are of drawn torsos, where there are any.
_TORSOS = 0.45


@dataclass(frozen=True)
class Slice:
    """A synthetic slice in a SAM's own frame: square, the content at the top left, zero elsewhere.

    Attributes
    ----------
    image : ndarray of uint8, (size, size)
    masks : ndarray of bool, (n, size, size)
        One connected target each; n may be 0.
    boxes : ndarray of float32, (n, 4)
        The jittered box of each target: x0, y0, x1, y1 in pixels, at pixel edges.
    clean : ndarray of uint8, (size, size)
        The image before texture, blur and noise: what the encoder learns to see through them.
    edges : ndarray of bool, (size, size)
        Pixels next to another shape.
    owners : ndarray of int16, (size, size)
        Which shape each pixel belongs to, background shapes included; 0 outside of all.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    clean: np.ndarray
    edges: np.ndarray
    owners: np.ndarray


def draw_slice(
    rng: np.random.Generator, size: int, *, targets: int = 6, jitter: float = 0.10, torsos: Torsos | None = None
) -> Slice:
    """Draw a slice and the boxes of up to `targets` of its shapes.

    Parameters
    ----------
    rng : numpy Generator
        The slice depends on nothing else but `torsos`.
    size : int
        Side of the frame in pixels.
    targets : int
        At most this many boxes.
    jitter : float
        Each side of a box moves by up to U(0, jitter) of the box's size, the bound drawn per slice.
    torsos : Torsos, optional
        Drawn torsos that some of the slices are taken from.
    """
    codes = None
    if torsos is not None and rng.random() < _TORSOS:
        codes = torsos.slices[int(rng.integers(len(torsos.slices)))]
        height, width = (max(8, round(size * side / max(codes.shape))) for side in codes.shape)
    else:
        short = size if rng.random() < 0.1 else round(size * rng.uniform(0.55, 1.0))
        height, width = (short, size) if rng.random() < 0.8 else (size, short)
    scene = Scene(rng, height, width)
    kind = rng.random()
    if codes is not None:
        paint_torso_slice(scene, codes, _draw_palette(rng))
    elif kind < 0.6:
        _draw_torso(scene)
    elif kind < 0.85:
        _draw_free_shapes(scene)
    else:
        _draw_partition(scene)
    grey, flat, native = _render(scene)
    image, clean = np.zeros((2, size, size), np.uint8)
    image[:height, :width] = grey
    clean[:height, :width] = flat
    edges = np.zeros((size, size), bool)
    edges[:height, :width] = _find_edges(scene.owner)
    owners = np.zeros((size, size), np.int16)
    owners[:height, :width] = scene.owner
    masks, boxes = _choose_targets(scene, size, native, targets, rng.uniform(0, jitter))
    return Slice(image, masks, boxes, clean, edges, owners)


@dataclass
class Scene:
    """A drawing in progress: which grey (`ink`) and which target (`owner`, 0 none) each pixel has."""

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
        side = max(self.height, self.width)
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        cells = int(self.rng.integers(4, 9))
        amplitude = self.rng.uniform(0.0, 0.035)
        # In units of the frame's side; one warp for the whole anatomy, so that neighbours stay neighbours.
        self.x = (x + 0.5) / side + amplitude * _draw_field(self.rng, self.height, self.width, cells)
        self.y = (y + 0.5) / side + amplitude * _draw_field(self.rng, self.height, self.width, cells)

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
        """Give `inside` a new grey; it becomes a target of its own, or part of `owner`'s. Return the owner."""
        self.greys.append(grey)
        self.textures.append((self.rng.uniform(0, texture), self.rng.uniform(0, texture)))
        self.ink[inside] = len(self.greys) - 1
        if owner is None:
            self.owners += 1
            owner = self.owners
            if not target:
                owner = -owner
            elif preferred:
                self.preferred.append(owner)
        self.owner[inside] = owner
        return owner


def _draw_torso(scene: Scene) -> None:
    """Body, fat, muscle, spine, ribs, large and small organs, gut with gas, sometimes lungs."""
    rng = scene.rng
    centre_x, centre_y = (
        scene.width / max(scene.width, scene.height) / 2,
        scene.height / max(scene.width, scene.height) / 2,
    )
    half_x, half_y = centre_x * rng.uniform(0.75, 1.02), centre_y * rng.uniform(0.72, 1.02)
    palette = _draw_palette(rng)
    power = float(rng.choice([2.0, 2.0, 3.0]))

    def nested(scale_x: float, scale_y: float) -> np.ndarray:
        u, v = np.abs(scene.x - centre_x) / (half_x * scale_x), np.abs(scene.y - centre_y) / (half_y * scale_y)
        return u**power + v**power < 1

    fat = rng.uniform(0.02, 0.28)
    wall = rng.uniform(0.03, 0.1)
    body = nested(1, 1)
    scene.paint(body, palette("fat"), target=False)
    muscle = nested(1 - fat * 0.8, 1 - fat)
    scene.paint(muscle, palette("muscle"), target=False)
    cavity = nested(1 - fat * 0.8 - wall, 1 - fat - wall)
    scene.paint(cavity, palette("fat") if rng.random() < 0.6 else palette("organ"), target=False)
    inner_x, inner_y = half_x * (1 - fat * 0.8 - wall), half_y * (1 - fat - wall)
    unit = min(inner_x, inner_y)

    spine_x, spine_y = centre_x + rng.normal(0, 0.01), centre_y + inner_y * rng.uniform(0.55, 0.85)

    def place(shape: Callable[..., np.ndarray], x: float, y: float, radius: float, **options: float) -> np.ndarray:
        return shape(scene, x, y, radius, **options) & cavity

    chest = rng.random() < 0.3
    if chest:
        for side in (-1, 1):
            if rng.random() < 0.9:
                lung = place(
                    _blob,
                    centre_x + side * inner_x * rng.uniform(0.4, 0.6),
                    centre_y + inner_y * rng.uniform(-0.2, 0.2),
                    unit * rng.uniform(0.45, 0.8),
                    elongation=rng.uniform(1.0, 1.7),
                    angle=rng.normal(np.pi / 2, 0.4),
                    roughness=0.25,
                )
                owner = scene.paint(lung, palette("lung"), preferred=True, texture=0.08)
                _add_details(scene, lung, owner, int(rng.integers(0, 8)), palette, radius=0.012)
    # Gut first, so that organs lie upon it.
    for _ in range(int(rng.integers(0, 6))):
        x, y = centre_x + inner_x * rng.uniform(-0.8, 0.8), centre_y + inner_y * rng.uniform(-0.9, 0.5)
        gut = place(
            _blob, x, y, unit * rng.uniform(0.08, 0.3), elongation=rng.uniform(1, 2.5), angle=rng.uniform(0, np.pi)
        )
        scene.paint(gut, palette("organ"), texture=0.08)
        if rng.random() < 0.5:
            gas = place(_blob, x, y - unit * 0.05, unit * rng.uniform(0.04, 0.15)) & gut
            scene.paint(gas, palette("gas"), target=rng.random() < 0.3, texture=0.01)
    # A large organ of one side with concavities (the liver's place), one on the other (the spleen's).
    flip = 1 if rng.random() < 0.9 else -1
    if rng.random() < 0.85:
        liver = place(
            _blob,
            centre_x - flip * inner_x * rng.uniform(0.3, 0.6),
            centre_y + inner_y * rng.uniform(-0.3, 0.15),
            unit * rng.uniform(0.45, 0.85),
            elongation=rng.uniform(1.0, 1.5),
            angle=rng.normal(0, 0.5),
            roughness=rng.uniform(0.1, 0.35),
        )
        for _ in range(int(rng.integers(0, 3))):
            liver &= ~_blob(
                scene,
                centre_x - flip * inner_x * rng.uniform(-0.3, 0.4),
                centre_y + inner_y * rng.uniform(-0.1, 0.6),
                unit * rng.uniform(0.15, 0.4),
                roughness=0.3,
            )
        if rng.random() < 0.5:  # a left lobe that tapers across the midline
            liver |= place(
                _blob,
                centre_x,
                centre_y - inner_y * rng.uniform(0.2, 0.5),
                unit * rng.uniform(0.2, 0.45),
                elongation=rng.uniform(1.3, 2.5),
                angle=rng.normal(0.2, 0.3),
            )
        owner = scene.paint(liver, palette("organ"), preferred=True)
        _add_details(scene, liver, owner, int(rng.integers(0, 7)), palette)
    if rng.random() < 0.75:
        spleen = place(
            _blob,
            centre_x + flip * inner_x * rng.uniform(0.5, 0.8),
            centre_y + inner_y * rng.uniform(-0.1, 0.5),
            unit * rng.uniform(0.15, 0.4),
            elongation=rng.uniform(1.2, 2.6),
            angle=rng.uniform(0, np.pi),
            bend=rng.uniform(-2, 2),
        )
        owner = scene.paint(spleen, palette("organ"), preferred=True)
        _add_details(scene, spleen, owner, int(rng.integers(0, 3)), palette)
    for side in (-1, 1):
        if rng.random() < 0.7:
            x = spine_x + side * inner_x * rng.uniform(0.3, 0.6)
            y = spine_y - inner_y * rng.uniform(-0.15, 0.4)
            radius = unit * rng.uniform(0.14, 0.3)
            kidney = place(
                _blob,
                x,
                y,
                radius,
                elongation=rng.uniform(1, 1.8),
                angle=rng.uniform(0, np.pi),
                bend=rng.uniform(-1.5, 1.5),
            )
            notch = None
            if rng.random() < 0.65:  # the hilum, open towards the spine
                notch = _blob(
                    scene,
                    x - side * radius * rng.uniform(0.4, 1.1),
                    y - radius * rng.uniform(-0.4, 0.6),
                    radius * rng.uniform(0.2, 0.6),
                )
            if notch is not None and rng.random() < 0.7:
                kidney &= ~notch
            owner = scene.paint(kidney, palette("organ"), preferred=True)
            if rng.random() < 0.5:  # medulla, darker or brighter than the cortex
                medulla = kidney & _blob(
                    scene, x - side * radius * 0.2, y, radius * rng.uniform(0.35, 0.7), roughness=0.4
                )
                scene.paint(medulla, scene.greys[-1] + rng.normal(0, 0.12), owner=owner)
    spine = _blob(scene, spine_x, spine_y, unit * rng.uniform(0.15, 0.27), elongation=rng.uniform(1, 1.4), angle=0.0)
    scene.paint(spine, palette("bone"), texture=0.1)
    canal = _blob(scene, spine_x, spine_y + unit * 0.22, unit * rng.uniform(0.05, 0.09))
    scene.paint(canal, palette("muscle"), target=False)
    for _ in range(int(rng.integers(1, 4))):  # great vessels before the spine
        vessel = _blob(
            scene,
            spine_x + inner_x * rng.uniform(-0.25, 0.25),
            spine_y - unit * rng.uniform(0.2, 0.45),
            unit * rng.uniform(0.055, 0.14),
            elongation=rng.uniform(1, 1.25),
            angle=rng.uniform(0, np.pi),
            roughness=0.04,
        )
        scene.paint(vessel, palette("organ"), preferred=True, texture=0.02)
    for _ in range(int(rng.integers(0, 14))):  # ribs in the wall
        angle = rng.uniform(0, 2 * np.pi)
        rib = _blob(
            scene,
            centre_x + np.cos(angle) * half_x * (1 - fat - wall / 2),
            centre_y + np.sin(angle) * half_y * (1 - fat - wall / 2),
            unit * rng.uniform(0.03, 0.06),
            elongation=rng.uniform(1, 3),
            angle=angle + np.pi / 2,
        )
        scene.paint(rib & body, palette("bone"), target=False)


def _draw_free_shapes(scene: Scene) -> None:
    """Blobs, bars, crescents, discs and rings anywhere, nested, touching and overlapping."""
    rng = scene.rng
    side = max(scene.width, scene.height)
    scene.paint(np.ones(scene.ink.shape, bool), rng.uniform(), target=False, texture=0.15)
    for _ in range(int(rng.integers(4, 14))):
        x, y = rng.uniform(0.05, 0.95) * scene.width / side, rng.uniform(0.05, 0.95) * scene.height / side
        radius = float(np.exp(rng.uniform(np.log(0.02), np.log(0.3))))
        shape = _blob(
            scene,
            x,
            y,
            radius,
            elongation=rng.uniform(1, 5) if rng.random() < 0.3 else rng.uniform(1, 1.8),
            angle=rng.uniform(0, np.pi),
            roughness=rng.uniform(0, 0.4),
            bend=rng.uniform(-3, 3) if rng.random() < 0.4 else 0.0,
            power=float(rng.choice([2, 2, 2, 4])),
        )
        if rng.random() < 0.25:
            shape &= ~_blob(scene, x + rng.normal(0, radius), y + rng.normal(0, radius), radius * rng.uniform(0.3, 0.8))
        owner = scene.paint(shape, rng.uniform(), preferred=True, texture=rng.choice([0.02, 0.05, 0.15]))
        if rng.random() < 0.4:
            _add_details(scene, shape, owner, int(rng.integers(1, 5)), _draw_palette(rng), radius=radius * 0.2)


def _draw_partition(scene: Scene) -> None:
    """Divide the plane by whichever of several smooth fields is highest: every boundary is shared."""
    rng = scene.rng
    cells = int(rng.integers(3, 8))
    fields = [_draw_field(rng, scene.height, scene.width, cells) for _ in range(int(rng.integers(3, 8)))]
    winner = np.argmax(fields, axis=0)
    for index in range(len(fields)):
        scene.paint(winner == index, rng.uniform(), preferred=True, texture=0.1)


def _blob(
    scene: Scene,
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
    """Return a smooth shape: a bent superellipse whose radius swings with low harmonics of the angle."""
    rng = scene.rng
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = scene.x - np.float32(x), scene.y - np.float32(y)
    long, short = radius * np.sqrt(elongation), radius / np.sqrt(elongation)
    reach = 2.2 * long
    rows = np.flatnonzero((np.abs(dy) < reach).any(axis=1))
    columns = np.flatnonzero((np.abs(dx) < reach).any(axis=0))
    inside = np.zeros(scene.ink.shape, bool)
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
            amplitude = rng.normal(0, roughness / harmonic)
            swing += np.float32(amplitude) * np.cos(harmonic * theta + np.float32(rng.uniform(0, 2 * np.pi)))
        distance = distance / np.clip(1 + swing, 0.4, 1.8)
    inside[window] = distance < 1
    return inside


def _add_details(
    scene: Scene, organ: np.ndarray, owner: int, count: int, palette: Callable[[str], float], *, radius: float = 0.02
) -> None:
    """Paint vessels or lesions into an organ; they stay part of it."""
    places = np.argwhere(organ)
    if not len(places):
        return
    side = max(scene.width, scene.height)
    base = scene.greys[-1]
    for _ in range(int(count)):
        row, column = places[scene.rng.integers(len(places))]
        detail = _blob(
            scene,
            (column + 0.5) / side,
            (row + 0.5) / side,
            radius * scene.rng.uniform(0.4, 1.6),
            elongation=scene.rng.uniform(1, 5),
            angle=scene.rng.uniform(0, np.pi),
        )
        scene.paint(detail & organ, base + scene.rng.normal(0, 0.12), owner=owner)


def _draw_palette(rng: np.random.Generator) -> Callable[[str], float]:
    """Return a grey per tissue: like a soft-tissue CT window, a lung window, an MR, or anything at all."""
    kind = rng.random()
    if kind < 0.35:  # soft-tissue window
        ranges = {
            "fat": (0.08, 0.3),
            "muscle": (0.45, 0.62),
            "organ": (0.45, 0.95),
            "bone": (0.7, 1.2),
            "gas": (-0.3, 0.0),
            "lung": (-0.3, 0.0),
        }
    elif kind < 0.5:  # lung window
        ranges = {
            "fat": (0.75, 0.9),
            "muscle": (0.88, 1.0),
            "organ": (0.88, 1.1),
            "bone": (1.0, 1.2),
            "gas": (0.1, 0.3),
            "lung": (0.15, 0.55),
        }
    elif kind < 0.7:  # MR, fat bright or suppressed
        fat = rng.uniform(0.1, 1.0)
        ranges = {
            "fat": (fat - 0.05, fat + 0.05),
            "muscle": (0.1, 0.5),
            "organ": (0.1, 0.9),
            "bone": (0.05, 0.6),
            "gas": (0.0, 0.08),
            "lung": (0.0, 0.15),
        }
    else:
        ranges = dict.fromkeys(("fat", "muscle", "organ", "bone", "gas", "lung"), (0.0, 1.0))
    fixed = {tissue: rng.uniform(*ranges[tissue]) for tissue in ("fat", "muscle", "bone", "lung")}

    def pick(tissue: str) -> float:
        if tissue == "organ" and rng.random() < 0.12:  # hardly told from its surroundings
            return fixed[rng.choice(["fat", "muscle"])] + rng.choice([-1, 1]) * rng.uniform(0.04, 0.12)
        return fixed[tissue] + rng.normal(0, 0.01) if tissue in fixed else rng.uniform(*ranges[tissue])

    return pick


def _find_edges(owner: np.ndarray) -> np.ndarray:
    edges = np.zeros(owner.shape, bool)
    down, right = owner[1:] != owner[:-1], owner[:, 1:] != owner[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges


def _render(scene: Scene) -> tuple[np.ndarray, np.ndarray, int]:
    """Turn inks into an 8-bit image as a scanner of random resolution and a random window would show it.

    Returns the image, the same without texture, blur and noise, and the number of pixels the scan's longer
    side had before it was resized.
    """
    rng = scene.rng
    height, width = scene.ink.shape
    size = max(height, width)
    fine, coarse = (
        _draw_field(rng, height, width, cells) for cells in (int(rng.integers(24, 60)), int(rng.integers(6, 20)))
    )
    textures = np.asarray(scene.textures, np.float32)
    flat = np.asarray(scene.greys, np.float32)[scene.ink]
    image = flat + textures[scene.ink, 0] * fine + textures[scene.ink, 1] * coarse
    if rng.random() < 0.6:
        image *= np.exp(rng.uniform(0, 0.25) * _draw_field(rng, height, width, int(rng.integers(2, 5))))
    native = round(size * rng.uniform(0.45, 1.0)) if rng.random() < 0.7 else size
    scale = native / size
    blur = rng.uniform(0.0, 0.8) / scale + (0.35 / scale if scale < 1 else 0.0)
    image = ndimage.gaussian_filter(image, blur, mode="nearest")
    noise = rng.uniform(0, 0.06) if rng.random() < 0.8 else rng.uniform(0.06, 0.12)
    if scale < 1:
        image = _resize(image, max(8, round(height * scale)), max(8, round(width * scale)))
    image = image + rng.normal(0, noise, image.shape).astype(np.float32)
    if rng.random() < 0.3:
        image = np.abs(image)  # magnitude images have no negative noise
    if scale < 1:
        image = _resize(image, height, width)
    low, high = rng.uniform(-0.15, 0.1), rng.uniform(0.85, 1.2)
    gamma = np.float32(np.exp(rng.normal(0, 0.25))) if rng.random() < 0.5 else np.float32(1)
    inverted = rng.random() < 0.05

    def show(values: np.ndarray) -> np.ndarray:
        shown = np.clip((values - low) / (high - low), 0, 1) ** gamma
        return ((1 - shown if inverted else shown) * 255 + 0.5).astype(np.uint8)

    return show(image), show(flat), native


def _choose_targets(scene: Scene, size: int, native: int, count: int, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """Return masks and jittered boxes of up to `count` components, organs before other shapes."""
    rng = scene.rng
    components = cc3d.connected_components(np.maximum(scene.owner, 0).astype(np.uint16), connectivity=8)
    statistics = cc3d.statistics(components)
    found = [
        label
        for label in range(1, len(statistics["voxel_counts"]))
        if statistics["voxel_counts"][label] >= _MIN_TARGET_PIXELS
    ]
    preferred = set(scene.preferred)
    weights = {}
    for label in found:
        rows, columns = statistics["bounding_boxes"][label][:2]
        first = np.argmax(components[rows, columns] == label)
        owner = scene.owner[rows, columns].ravel()[first]
        weights[label] = 4.0 if int(owner) in preferred else 1.0
    order = sorted(found, key=lambda label: rng.random() ** (1 / weights[label]), reverse=True)[:count] if found else []
    masks = np.zeros((len(order), size, size), bool)
    boxes = np.zeros((len(order), 4), np.float32)
    pixel = size / native
    for place, label in enumerate(order):
        rows, columns = statistics["bounding_boxes"][label][:2]
        masks[place, : scene.height, : scene.width] = components == label
        edges: np.ndarray = np.array([columns.start, rows.start, columns.stop, rows.stop], np.float32)
        edges = np.round(edges / pixel) * pixel  # boxes are drawn on the scan's own pixels
        extent = np.maximum(edges[2:] - edges[:2], pixel)
        edges[2:] = edges[:2] + extent
        edges += np.tile(extent, 2) * rng.uniform(-jitter, jitter, 4)
        boxes[place] = np.clip(edges, 0, [scene.width, scene.height] * 2)
    return masks, boxes


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return (_resize_matrix(image.shape[0], height) @ image @ _resize_matrix(image.shape[1], width).T).astype(np.float32)


@cache
def _resize_matrix(source: int, target: int) -> np.ndarray:
    """Return the (target, source) matrix of linear interpolation, with a wider kernel when shrinking."""
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    support = max(1.0, source / target)
    weights = np.clip(1 - np.abs(np.arange(source)[None] - centres[:, None]) / support, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _draw_field(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Return a smooth random field of about unit variance, `cells` bumps along the longer side."""
    side = max(height, width)
    rows, columns = max(2, round(cells * height / side)) + 2, max(2, round(cells * width / side)) + 2
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    return _spline_matrix(rows, height) @ values @ _spline_matrix(columns, width).T


@cache
def _spline_matrix(knots: int, length: int) -> np.ndarray:
    """Return the (length, knots) matrix of a bump per knot, each row of unit norm."""
    position = (np.arange(length) + 0.5) / length * (knots - 1)
    weights = np.exp(-0.5 * ((np.arange(knots)[None] - position[:, None]) / 0.6) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
