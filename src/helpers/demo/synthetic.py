"""Synthetic slices with known shapes: what `sam_demo` is trained on, without a single patient.

In the manner of SynthSeg (Billot et al., Medical Image Analysis 2023): shapes are drawn at random,
each gets a random grey, and contrast, texture, blur, resolution, bias field, noise and window are
drawn anew for each slice, so that a network has nothing to learn but outlines. Four kinds of scene:
slices of drawn torsos (:mod:`helpers.demo.torsos`), torso-like arrangements, free shapes, and
partitions of the plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cc3d
import numpy as np
from scipy import ndimage

from helpers.demo.scene import Scene
from helpers.demo.torsos import Torsos, paint_torso_slice

_MIN_TARGET_PIXELS = 16  # smaller components are no targets
_TORSOS = 0.45  # share of the slices that are of drawn torsos, where there are any
_TISSUES = ("fat", "muscle", "organ", "bone", "gas", "lung")

Palette = Callable[[str], float]


@dataclass(frozen=True)
class Slice:
    """A synthetic slice in a SAM's own frame: square, content at the top left, zero elsewhere."""

    image: np.ndarray  # uint8, (size, size)
    masks: np.ndarray  # bool, (n, size, size): one connected target each; n may be 0
    boxes: np.ndarray  # float32, (n, 4): a target's jittered x0, y0, x1, y1 in pixels, at pixel edges
    clean: np.ndarray  # uint8, (size, size): before texture, blur and noise, which the encoder learns to see through
    edges: np.ndarray  # bool, (size, size): pixels next to another shape
    owners: np.ndarray  # int16, (size, size): each pixel's shape, background ones too; 0 outside of all


def draw_slice(
    rng: np.random.Generator, size: int, *, targets: int = 6, jitter: float = 0.10, torsos: Torsos | None = None
) -> Slice:
    """Draw a slice of `size` pixels a side and the boxes of up to `targets` of its shapes.

    It depends on `rng` and on `torsos` alone, which some of the slices are taken from. Each side of
    a box moves by up to U(0, `jitter`) of the box's size, the bound drawn per slice.
    """
    codes = None
    if torsos is not None and rng.random() < _TORSOS:
        codes = torsos[int(rng.integers(len(torsos)))]
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

    def frame(content: np.ndarray) -> np.ndarray:
        return np.pad(content, ((0, size - height), (0, size - width)))

    masks, boxes = _choose_targets(scene, size, native, targets, rng.uniform(0, jitter))
    return Slice(frame(grey), masks, boxes, frame(flat), frame(_find_edges(scene.owner)), frame(scene.owner))


@dataclass(frozen=True)
class _Trunk:
    """A torso as far as its cavity: what organs are placed in."""

    scene: Scene
    palette: Palette
    cavity: np.ndarray
    x: float  # the middle
    y: float
    inner_x: float  # half the cavity
    inner_y: float
    spine_x: float
    spine_y: float

    @property
    def unit(self) -> float:
        """The smaller half of the cavity, which sizes follow."""
        return min(self.inner_x, self.inner_y)

    def find(self, across: float, down: float) -> tuple[float, float]:
        """Return a place given from the middle, in halves of the cavity."""
        return self.x + self.inner_x * across, self.y + self.inner_y * down

    def place(self, across: float, down: float, size: float, **options: float) -> np.ndarray:
        """Return a blob as far as it lies in the cavity; its radius is `size` units."""
        return self.scene.draw_blob(*self.find(across, down), self.unit * size, **options) & self.cavity

    def paint_organ(self, inside: np.ndarray, details: int) -> None:
        """Paint an organ with up to so many vessels or lesions."""
        owner = self.scene.paint(inside, self.palette("organ"), preferred=True)
        _add_details(self.scene, inside, owner, int(self.scene.rng.integers(0, details)))


def _draw_torso(scene: Scene) -> None:
    """Body, fat, muscle, spine, ribs, large and small organs, gut with gas, sometimes lungs."""
    rng, uniform = scene.rng, scene.rng.uniform
    x, y = scene.width / scene.side / 2, scene.height / scene.side / 2
    half_x, half_y = x * uniform(0.75, 1.02), y * uniform(0.72, 1.02)
    palette = _draw_palette(rng)
    power = float(rng.choice([2.0, 2.0, 3.0]))

    def nest(scale_x: float, scale_y: float) -> np.ndarray:
        u, v = np.abs(scene.x - x) / (half_x * scale_x), np.abs(scene.y - y) / (half_y * scale_y)
        return u**power + v**power < 1

    fat, wall = uniform(0.02, 0.28), uniform(0.03, 0.1)
    body = nest(1, 1)
    scene.paint(body, palette("fat"), target=False)
    scene.paint(nest(1 - fat * 0.8, 1 - fat), palette("muscle"), target=False)
    cavity = nest(1 - fat * 0.8 - wall, 1 - fat - wall)
    scene.paint(cavity, palette("fat") if rng.random() < 0.6 else palette("organ"), target=False)
    inner_x, inner_y = half_x * (1 - fat * 0.8 - wall), half_y * (1 - fat - wall)
    spine_x, spine_y = x + rng.normal(0, 0.01), y + inner_y * uniform(0.55, 0.85)
    trunk = _Trunk(scene, palette, cavity, x, y, inner_x, inner_y, spine_x, spine_y)
    if rng.random() < 0.3:
        _draw_lungs(trunk)
    _draw_gut(trunk)  # first, so that organs lie upon it
    # A large organ of one side (the liver's place), one on the other (the spleen's).
    flip = 1 if rng.random() < 0.9 else -1
    if rng.random() < 0.85:
        _draw_liver(trunk, flip)
    if rng.random() < 0.75:
        across, down, size = flip * uniform(0.5, 0.8), uniform(-0.1, 0.5), uniform(0.15, 0.4)
        long, angle, bend = uniform(1.2, 2.6), uniform(0, np.pi), uniform(-2, 2)
        spleen = trunk.place(across, down, size, elongation=long, angle=angle, bend=bend)
        trunk.paint_organ(spleen, 3)
    for side in (-1, 1):
        if rng.random() < 0.7:
            _draw_kidney(trunk, side)
    _draw_spine(trunk)
    for _ in range(int(rng.integers(0, 14))):  # ribs in the wall
        angle = uniform(0, 2 * np.pi)
        rib_x, rib_y = (half * (1 - fat - wall / 2) for half in (np.cos(angle) * half_x, np.sin(angle) * half_y))
        size, long = trunk.unit * uniform(0.03, 0.06), uniform(1, 3)
        rib = scene.draw_blob(x + rib_x, y + rib_y, size, elongation=long, angle=angle + np.pi / 2)
        scene.paint(rib & body, palette("bone"), target=False)


def _draw_lungs(trunk: _Trunk) -> None:
    rng, uniform = trunk.scene.rng, trunk.scene.rng.uniform
    for side in (-1, 1):
        if rng.random() < 0.9:
            across, down, size = side * uniform(0.4, 0.6), uniform(-0.2, 0.2), uniform(0.45, 0.8)
            long, angle = uniform(1.0, 1.7), rng.normal(np.pi / 2, 0.4)
            lung = trunk.place(across, down, size, elongation=long, angle=angle, roughness=0.25)
            owner = trunk.scene.paint(lung, trunk.palette("lung"), preferred=True, texture=0.08)
            _add_details(trunk.scene, lung, owner, int(rng.integers(0, 8)), radius=0.012)


def _draw_gut(trunk: _Trunk) -> None:
    scene, rng, uniform = trunk.scene, trunk.scene.rng, trunk.scene.rng.uniform
    for _ in range(int(rng.integers(0, 6))):
        across, down, size = uniform(-0.8, 0.8), uniform(-0.9, 0.5), uniform(0.08, 0.3)
        gut = trunk.place(across, down, size, elongation=uniform(1, 2.5), angle=uniform(0, np.pi))
        scene.paint(gut, trunk.palette("organ"), texture=0.08)
        if rng.random() < 0.5:
            x, y = trunk.find(across, down)
            gas = scene.draw_blob(x, y - trunk.unit * 0.05, trunk.unit * uniform(0.04, 0.15)) & gut
            scene.paint(gas, trunk.palette("gas"), target=rng.random() < 0.3, texture=0.01)


def _draw_liver(trunk: _Trunk, flip: int) -> None:
    rng, uniform = trunk.scene.rng, trunk.scene.rng.uniform
    across, down, size = -flip * uniform(0.3, 0.6), uniform(-0.3, 0.15), uniform(0.45, 0.85)
    long, angle, roughness = uniform(1.0, 1.5), rng.normal(0, 0.5), uniform(0.1, 0.35)
    liver = trunk.place(across, down, size, elongation=long, angle=angle, roughness=roughness)
    for _ in range(int(rng.integers(0, 3))):
        across, down, size = -flip * uniform(-0.3, 0.4), uniform(-0.1, 0.6), uniform(0.15, 0.4)
        liver &= ~trunk.place(across, down, size, roughness=0.3)
    if rng.random() < 0.5:  # a left lobe that tapers across the midline
        down, size = -uniform(0.2, 0.5), uniform(0.2, 0.45)
        liver |= trunk.place(0.0, down, size, elongation=uniform(1.3, 2.5), angle=rng.normal(0.2, 0.3))
    trunk.paint_organ(liver, 7)


def _draw_kidney(trunk: _Trunk, side: int) -> None:
    scene, rng, uniform = trunk.scene, trunk.scene.rng, trunk.scene.rng.uniform
    x = trunk.spine_x + side * trunk.inner_x * uniform(0.3, 0.6)
    y = trunk.spine_y - trunk.inner_y * uniform(-0.15, 0.4)
    radius, long = trunk.unit * uniform(0.14, 0.3), uniform(1, 1.8)
    kidney = scene.draw_blob(x, y, radius, elongation=long, angle=uniform(0, np.pi), bend=uniform(-1.5, 1.5))
    kidney &= trunk.cavity
    if rng.random() < 0.65:  # the hilum, open towards the spine
        notch_x, notch_y = x - side * radius * uniform(0.4, 1.1), y - radius * uniform(-0.4, 0.6)
        notch = scene.draw_blob(notch_x, notch_y, radius * uniform(0.2, 0.6))
        if rng.random() < 0.7:
            kidney &= ~notch
    owner = scene.paint(kidney, trunk.palette("organ"), preferred=True)
    if rng.random() < 0.5:  # medulla, darker or brighter than the cortex
        medulla = scene.draw_blob(x - side * radius * 0.2, y, radius * uniform(0.35, 0.7), roughness=0.4)
        scene.paint(kidney & medulla, scene.greys[-1] + rng.normal(0, 0.12), owner=owner)


def _draw_spine(trunk: _Trunk) -> None:
    """Draw the spine, its canal, and the great vessels before it."""
    scene, unit, uniform = trunk.scene, trunk.unit, trunk.scene.rng.uniform
    x, y = trunk.spine_x, trunk.spine_y
    spine = scene.draw_blob(x, y, unit * uniform(0.15, 0.27), elongation=uniform(1, 1.4), angle=0.0)
    scene.paint(spine, trunk.palette("bone"), texture=0.1)
    canal = scene.draw_blob(x, y + unit * 0.22, unit * uniform(0.05, 0.09))
    scene.paint(canal, trunk.palette("muscle"), target=False)
    for _ in range(int(scene.rng.integers(1, 4))):
        place = x + trunk.inner_x * uniform(-0.25, 0.25), y - unit * uniform(0.2, 0.45), unit * uniform(0.055, 0.14)
        vessel = scene.draw_blob(*place, elongation=uniform(1, 1.25), angle=uniform(0, np.pi), roughness=0.04)
        scene.paint(vessel, trunk.palette("organ"), preferred=True, texture=0.02)


def _draw_free_shapes(scene: Scene) -> None:
    """Blobs, bars, crescents, discs and rings anywhere, nested, touching and overlapping."""
    rng, uniform = scene.rng, scene.rng.uniform
    scene.paint(np.ones(scene.ink.shape, bool), uniform(), target=False, texture=0.15)
    for _ in range(int(rng.integers(4, 14))):
        x, y = uniform(0.05, 0.95) * scene.width / scene.side, uniform(0.05, 0.95) * scene.height / scene.side
        radius = float(np.exp(uniform(np.log(0.02), np.log(0.3))))
        long = uniform(1, 5) if rng.random() < 0.3 else uniform(1, 1.8)
        angle, roughness = uniform(0, np.pi), uniform(0, 0.4)
        bend, power = uniform(-3, 3) if rng.random() < 0.4 else 0.0, float(rng.choice([2, 2, 2, 4]))
        shape = scene.draw_blob(x, y, radius, elongation=long, angle=angle, roughness=roughness, bend=bend, power=power)
        if rng.random() < 0.25:
            shape &= ~scene.draw_blob(x + rng.normal(0, radius), y + rng.normal(0, radius), radius * uniform(0.3, 0.8))
        owner = scene.paint(shape, uniform(), preferred=True, texture=rng.choice([0.02, 0.05, 0.15]))
        if rng.random() < 0.4:
            count = int(rng.integers(1, 5))
            _draw_palette(rng)  # unused, but the slices that the weights were learnt from drew it here
            _add_details(scene, shape, owner, count, radius=radius * 0.2)


def _draw_partition(scene: Scene) -> None:
    """Divide the plane by which of several smooth fields is highest: every boundary is shared."""
    cells = int(scene.rng.integers(3, 8))
    fields = [scene.draw_field(cells) for _ in range(int(scene.rng.integers(3, 8)))]
    winner = np.argmax(fields, axis=0)
    for index in range(len(fields)):
        scene.paint(winner == index, scene.rng.uniform(), preferred=True, texture=0.1)


def _add_details(scene: Scene, organ: np.ndarray, owner: int, count: int, *, radius: float = 0.02) -> None:
    """Paint vessels or lesions into an organ; they stay part of it."""
    places = np.argwhere(organ)
    if not len(places):
        return
    rng, uniform, base = scene.rng, scene.rng.uniform, scene.greys[-1]
    for _ in range(count):
        row, column = places[rng.integers(len(places))]
        x, y, size = (column + 0.5) / scene.side, (row + 0.5) / scene.side, radius * uniform(0.4, 1.6)
        detail = scene.draw_blob(x, y, size, elongation=uniform(1, 5), angle=uniform(0, np.pi))
        scene.paint(detail & organ, base + rng.normal(0, 0.12), owner=owner)


def _draw_palette(rng: np.random.Generator) -> Palette:
    """Draw a grey per tissue: like a CT window, an MR, or anything at all."""
    kind = rng.random()
    spans: tuple[tuple[float, float], ...] = ((0.0, 1.0),) * len(_TISSUES)
    if kind < 0.35:  # soft-tissue window
        spans = ((0.08, 0.3), (0.45, 0.62), (0.45, 0.95), (0.7, 1.2), (-0.3, 0.0), (-0.3, 0.0))
    elif kind < 0.5:  # lung window
        spans = ((0.75, 0.9), (0.88, 1.0), (0.88, 1.1), (1.0, 1.2), (0.1, 0.3), (0.15, 0.55))
    elif kind < 0.7:  # MR, fat bright or suppressed
        fat = rng.uniform(0.1, 1.0)
        spans = ((fat - 0.05, fat + 0.05), (0.1, 0.5), (0.1, 0.9), (0.05, 0.6), (0.0, 0.08), (0.0, 0.15))
    ranges = dict(zip(_TISSUES, spans, strict=True))
    fixed = {tissue: rng.uniform(*ranges[tissue]) for tissue in ("fat", "muscle", "bone", "lung")}

    def pick(tissue: str) -> float:
        if tissue == "organ" and rng.random() < 0.12:  # hardly told from its surroundings
            return fixed[rng.choice(["fat", "muscle"])] + rng.choice([-1, 1]) * rng.uniform(0.04, 0.12)
        return fixed[tissue] + rng.normal(0, 0.01) if tissue in fixed else rng.uniform(*ranges[tissue])

    return pick


def _find_edges(owner: np.ndarray) -> np.ndarray:
    edges = np.zeros(owner.shape, bool)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = owner[here] != owner[there]
        edges[here] |= differs
        edges[there] |= differs
    return edges


def _render(scene: Scene) -> tuple[np.ndarray, np.ndarray, int]:
    """Turn inks into 8-bit greys as a scanner of random resolution and window would show them.

    Returns image, the same without texture, blur and noise, and the longer side before resizing.
    """
    rng = scene.rng
    height, width = scene.ink.shape
    cells = int(rng.integers(24, 60)), int(rng.integers(6, 20))
    fine, coarse = map(scene.draw_field, cells)
    textures = np.asarray(scene.textures, np.float32)
    flat = np.asarray(scene.greys, np.float32)[scene.ink]
    image = flat + textures[scene.ink, 0] * fine + textures[scene.ink, 1] * coarse
    if rng.random() < 0.6:
        image *= np.exp(rng.uniform(0, 0.25) * scene.draw_field(int(rng.integers(2, 5))))
    native = round(scene.side * rng.uniform(0.45, 1.0)) if rng.random() < 0.7 else scene.side
    scale = native / scene.side
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
    places, keys = statistics["bounding_boxes"], {}
    for label, pixels in enumerate(statistics["voxel_counts"]):
        if label and pixels >= _MIN_TARGET_PIXELS:
            owner = scene.owner[places[label][:2]][components[places[label][:2]] == label][0]
            keys[label] = rng.random() ** (0.25 if owner in scene.preferred else 1.0)
    chosen = sorted(keys, key=lambda label: keys[label], reverse=True)[:count]
    masks = np.zeros((len(chosen), size, size), bool)
    boxes = np.zeros((len(chosen), 4), np.float32)
    pixel = size / native
    for place, label in enumerate(chosen):
        rows, columns = places[label][:2]
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
    """Return the (target, source) matrix of linear interpolation, wider when shrinking."""
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    support = max(1.0, source / target)
    weights = np.clip(1 - np.abs(np.arange(source)[None] - centres[:, None]) / support, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
