"""Slices of drawn torsos as scenes: drawn anatomy in greys of any scanner or of none.

The people drawn here (:mod:`helpers.demo.anatomy`) are other ones than those of any study: their
seeds begin with a word of their own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from helpers.demo.anatomy import PROTOCOLS, TISSUES, Person, draw_tissues
from helpers.demo.scene import Scene

_SEED = zlib.crc32(b"torsos to learn from")
_CODES = len(TISSUES)
_KEEP = 3  # fine slices lie 3 mm apart: every third one is kept
# What the palettes of the other scenes call a tissue, if not an organ.
_KINDS = {
    "air": "gas", "table": "bone", "skin": "muscle", "fat": "fat", "muscle": "muscle", "bone": "bone", "marrow": "bone",
    "disc": "muscle", "lung": "lung", "airway": "gas", "gas": "gas",
}  # fmt: skip

# Axial slices of several torsos, each uint8 (y, x): the organ's label times the number of tissues,
# plus the tissue.
Torsos = list[np.ndarray]


def draw_torsos(people: int, *, report: Callable[[int], object] | None = None) -> Torsos:
    """Draw the slices of a number of people, the same ones each time; a person takes a second.

    `report` is called with the number of people drawn so far.
    """
    slices: Torsos = []
    for number in range(people):
        rng = np.random.default_rng([_SEED, number])
        in_plane = float(rng.uniform(2.4, 4.2))
        codes = draw_torso(rng, ("female", "male")[number % 2], (in_plane, in_plane, 6.0))
        slices += [codes[z].copy() for z in range(int(rng.integers(_KEEP)), len(codes), _KEEP)]
        if report is not None:
            report(number + 1)
    return slices


def draw_torso(rng: np.random.Generator, sex: str, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Draw somebody of any age and build on a grid twice as fine as the spacing (x, y, z).

    Returns an ndarray of uint8, (z, y, x): codes as of :data:`Torsos`, axes towards superior,
    posterior and left.
    """
    age = float(rng.uniform(20, 85))
    bmi = float(np.clip(rng.normal(26.5, 5), 17, 42))
    tissues, labels = draw_tissues(Person("", "", sex, age, bmi, "CT", int(rng.integers(2**62))), spacing_mm)
    return tissues + np.uint8(_CODES) * labels


def split_code(code: int) -> tuple[int, int]:
    """Return the organ's label (0: none) and the place in TISSUES that a code of a torso holds."""
    return divmod(code, _CODES)


def paint_torso_slice(scene: Scene, codes: np.ndarray, palette: Callable[[str], float]) -> None:
    """Paint a slice of :data:`Torsos`: bent with the scene, moved, scaled a little, in any greys.

    Organs become targets. `palette` gives a grey by kind of tissue, as in the other scenes; it is
    taken for a quarter of the slices.
    """
    rng = scene.rng
    rows, columns = codes.shape
    side = max(rows, columns) / rng.uniform(0.95, 1.25)  # up to a fifth is cut off, as by a small field of view
    shift_y, shift_x = rng.uniform(-0.5, 0.5, 2)
    turn = rng.normal(0, 0.08)
    span_y, span_x = scene.height / scene.side, scene.width / scene.side
    y, x = (scene.y - span_y / 2) * side, (scene.x - span_x / 2) * side
    y, x = y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)
    y += rows / 2 + shift_y * max(0.0, rows - span_y * side)
    x += columns / 2 + shift_x * max(0.0, columns - span_x * side)
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    place = (np.clip(y, 0, rows - 1).astype(np.int32), np.clip(x, 0, columns - 1).astype(np.int32))
    seen = np.where(inside, codes[place], 0)
    if rng.random() < 0.5:
        seen = seen[:, ::-1]
    labels, tissues = np.divmod(seen, _CODES)
    greys = _draw_greys(rng, palette)
    owners: dict[int, int] = {}
    for code in np.unique(seen):
        label, tissue = split_code(int(code))
        here = (labels == label) & (tissues == tissue)
        if label:
            owners[label] = scene.paint(here, greys[tissue], preferred=True, owner=owners.get(label))
        else:
            scene.paint(here, greys[tissue], target=TISSUES[tissue] in ("fluid", "bone", "blood"))


def _draw_greys(rng: np.random.Generator, palette: Callable[[str], float]) -> list[float]:
    """Draw a grey per tissue, 0 black and 1 white: a protocol's, the palette's, or any."""
    kind = rng.random()
    if kind < 0.2:
        return [float(rng.uniform()) for _ in TISSUES]
    if kind < 0.45:
        return [palette(_KINDS.get(name, "organ")) for name in TISSUES]
    return draw_protocol_greys(rng)


def draw_protocol_greys(rng: np.random.Generator) -> list[float]:
    """Draw a grey per tissue as a CT phase or MR sequence has it, up to its window."""
    protocol = str(rng.choice(list(PROTOCOLS)))
    means = np.array([PROTOCOLS[protocol][name] for name in TISSUES], float)
    if protocol.startswith("CT"):
        means += rng.normal(0, 12, len(means))
        low, width = (-160.0, 400.0) if rng.random() < 0.7 else (-1350.0, 1500.0)
        return list((means - low) / width)
    means *= np.exp(rng.normal(0, 0.12, len(means)))
    return list(means / (rng.uniform(0.75, 1.1) * means.max()))
