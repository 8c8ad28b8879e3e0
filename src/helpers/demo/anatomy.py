"""One person's torso: anatomy in millimetres, seen by a CT or MR scanner.

Anatomy is drawn in the person's own millimetres (LPS: x to the left, y posterior, z superior; z = 0
at the diaphragm) as ellipsoids and tubes joined smoothly, bent by smooth random fields and cut by
their neighbours, on a grid twice as fine as the image. Image and mask are averages over that grid:
true partial volume. Nothing here is taken from a person; sizes follow textbooks, and a model that
works on phantoms may not work on people.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from helpers.demo.fields import SmoothField
from helpers.parameters import Phantoms

ORGANS = ("liver", "kidney_right", "kidney_left", "spleen", "lung_right", "lung_left", "aorta")
EMPTY_ORGAN = "empty organ"  # the fault of a person whose spleen is missing from image and mask
OVERSAMPLING = 2

TISSUES = (
    "air", "table", "skin", "fat", "muscle", "bone", "marrow", "disc", "csf", "lung", "airway", "blood", "vein",
    "liver", "spleen", "cortex", "medulla", "bowel", "fluid", "gas",
)  # fmt: skip
_INDEX = {name: place for place, name in enumerate(TISSUES)}

# Mean intensities by protocol. CT in Hounsfield units; MR in arbitrary units, of the order in which
# clinical sequences show the tissues.
_COMMON_CT = {
    "air": -1000, "table": -350, "skin": 20, "fat": -100, "muscle": 55, "bone": 480, "marrow": 200, "disc": 85,
    "csf": 15, "lung": -810, "airway": -990, "bowel": 35, "fluid": 8, "gas": -900,
}  # fmt: skip
PROTOCOLS = {
    "CT native": _COMMON_CT | {"blood": 42, "vein": 42, "liver": 58, "spleen": 50, "cortex": 34, "medulla": 30},
    "CT arterial": _COMMON_CT | {"blood": 290, "vein": 80, "liver": 75, "spleen": 135, "cortex": 190, "medulla": 85},
    "CT portal": _COMMON_CT | {"blood": 150, "vein": 150, "liver": 108, "spleen": 120, "cortex": 185, "medulla": 165},
    "MR T1": {
        "air": 6, "table": 6, "skin": 330, "fat": 520, "muscle": 200, "bone": 60, "marrow": 340, "disc": 150, "csf": 75,
        "lung": 30, "airway": 8, "blood": 85, "vein": 110, "liver": 300, "spleen": 175, "cortex": 225, "medulla": 150,
        "bowel": 190, "fluid": 100, "gas": 12,
    },
    "MR T1 contrast": {
        "air": 6, "table": 6, "skin": 160, "fat": 115, "muscle": 195, "bone": 50, "marrow": 130, "disc": 130, "csf": 70,
        "lung": 28, "airway": 8, "blood": 440, "vein": 420, "liver": 350, "spleen": 330, "cortex": 430, "medulla": 350,
        "bowel": 230, "fluid": 95, "gas": 12,
    },
    "MR T2": {
        "air": 6, "table": 6, "skin": 230, "fat": 400, "muscle": 85, "bone": 30, "marrow": 210, "disc": 190, "csf": 620,
        "lung": 22, "airway": 8, "blood": 30, "vein": 60, "liver": 140, "spleen": 265, "cortex": 260, "medulla": 340,
        "bowel": 260, "fluid": 640, "gas": 10,
    },
}  # fmt: skip

_LOW_MM, _HIGH_MM = (-330.0, -270.0, -330.0), (330.0, 270.0, 330.0)


@dataclass(frozen=True)
class Person:
    """One scan of one person: who is drawn, in which modality, and what went wrong with it."""

    subject: str
    scan: str
    sex: str
    age: float
    bmi: float
    modality: str
    seed: int
    fault: str = ""
    recorded_age: float | None = None


@dataclass(frozen=True)
class _Build:
    """A person's measures in mm (volumes in ml)."""

    stature: float
    half_x: float
    half_y: float
    fat: float
    belly: float
    waist: float
    squareness: float
    spine_y: float
    aorta: float
    volumes_ml: Mapping[str, float]
    visceral_fat: float


class _Canvas:
    """The fine grid: coordinates bent by the person's own warp, and what is painted so far.

    A part of a larger canvas (`parent`, at its place `spot`) shares its memory.
    """

    def __init__(
        self, axes: Sequence[np.ndarray], person: Person, parent: _Canvas | None = None, spot: tuple[slice, ...] = ()
    ) -> None:
        self.z, self.y, self.x = z, y, x = axes
        self.person, self.spot = person, spot
        if parent is None:
            bends = [self.field(f"warp {axis}", 75.0) for axis in "zyx"]
            self.wz = z[:, None, None] + 5.0 * bends[0]
            self.wy = y[None, :, None] + 4.0 * bends[1]
            self.wx = x[None, None, :] + 4.0 * bends[2]
            self.tissues = np.zeros((len(z), len(y), len(x)), np.uint8)
            self.labels = np.zeros_like(self.tissues)
            self.dome = np.zeros((1, len(y), len(x)), np.float32)  # height of the diaphragm, z in mm
            self.cavity = np.zeros(self.tissues.shape, np.float32)  # below 1 inside the ribs and the wall of the belly
            self.free = np.zeros(self.tissues.shape, bool)  # inside, and not spine
            self.vessels = np.zeros(self.tissues.shape, bool)  # what organs keep away from
        else:
            self.dome = parent.dome[(slice(None), *spot[1:])]
            for name in ("wz", "wy", "wx", "tissues", "labels", "cavity", "free", "vessels"):
                setattr(self, name, getattr(parent, name)[spot])

    def draw(self, name: str) -> np.random.Generator:
        """Return a generator of the person's own for one structure, whatever else is drawn."""
        return np.random.default_rng([self.person.seed, zlib.crc32(name.encode())])

    def field(self, name: str, smoothness_mm: float) -> np.ndarray:
        """Return the person's smooth random field of this name on this grid."""
        return SmoothField(self.draw(name), _LOW_MM, _HIGH_MM, smoothness_mm).evaluate(self.z, self.y, self.x)

    def crop(self, low_mm: Sequence[float], high_mm: Sequence[float]) -> _Canvas:
        """Return the part of the grid within a box (z, y, x); painting on it paints here."""
        axes = self.z, self.y, self.x
        box = tuple(
            slice(int(np.searchsorted(axis, low - 15)), int(np.searchsorted(axis, high + 15)))
            for axis, low, high in zip(axes, low_mm, high_mm, strict=True)
        )
        return _Canvas([axis[part] for axis, part in zip(axes, box, strict=True)], self.person, self, box)

    def paint(self, tissue: str, inside: np.ndarray) -> None:
        self.tissues[inside] = _INDEX[tissue]

    def claim(self, name: str, inside: np.ndarray, tissue: str) -> None:
        """Give an organ its free voxels, unless it was taken out of this person."""
        if name == "spleen" and self.person.fault == EMPTY_ORGAN:
            return
        inside = inside & (self.labels == 0)
        self.paint(tissue, inside)
        self.labels[inside] = ORGANS.index(name) + 1

    def ellipsoid(
        self, centre_xyz: np.ndarray, radii_xyz: np.ndarray, *, lean: float = 0.0, turn: float = 0.0
    ) -> np.ndarray:
        """Return roughly the distance (mm, negative inside) to an ellipsoid.

        It leans in the coronal plane and is turned in the axial one.
        """
        x, y, z = self.wx - centre_xyz[0], self.wy - centre_xyz[1], self.wz - centre_xyz[2]
        if lean:
            x, z = _rotate(x, z, lean)
        if turn:
            x, y = _rotate(x, y, turn)
        a, b, c = (np.float32(1.0 / radius) for radius in radii_xyz)
        squared = (x * a) ** 2
        squared = squared + (y * b) ** 2
        squared = squared + (z * c) ** 2
        return (np.sqrt(squared) - 1.0) * np.float32(np.cbrt(np.prod(radii_xyz)))

    def grow(
        self, shape: np.ndarray, allowed: np.ndarray, volume_ml: float, limit_mm: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move a surface by up to `limit_mm` so that its allowed part has the volume asked for.

        Returns the moved level (mm, negative inside) and the voxels inside.
        """
        voxel_ml = float(self.z[1] - self.z[0]) * float(self.y[1] - self.y[0]) * float(self.x[1] - self.x[0]) / 1000
        wanted = int(volume_ml / max(voxel_ml, 1e-9))
        levels = shape[allowed]
        cut = limit_mm if wanted >= levels.size else float(np.partition(levels, wanted)[wanted]) if levels.size else 0.0
        moved = shape - np.float32(np.clip(cut, -limit_mm, limit_mm))
        return moved, allowed & (moved < 0)


def draw_phantom(person: Person, phantoms: Phantoms, organ_ids: Mapping[str, int]) -> tuple[sitk.Image, sitk.Image]:
    """Draw one person's scan and its mask.

    Equal seeds are one person; that person's scans differ by name in field of view, protocol
    (contrast phase, sequence), voxel size (`spacing_mm`, x, y, z, varied by up to 10 %) and noise.
    Organs without an id are drawn but not labelled.

    Returns
    -------
    image : sitk.Image
        int16: Hounsfield units, or arbitrary units for MR.
    mask : sitk.Image
        uint8 label map on the same grid. About a fifth of the scans are stored in another axis
        order than LPS.
    """
    canvas, build, spacing, low, rng = _paint_torso(person, phantoms.spacing_mm)
    protocol = str(rng.choice([name for name in PROTOCOLS if name.startswith(person.modality)]))
    grey = _scan(canvas, build, protocol, rng, spacing)
    labels = np.zeros(grey.shape, np.uint8)
    for name, value in organ_ids.items():
        # The majority of the fine voxels; crumbs that a bend cut off are no organ.
        mask = _average_down(canvas.labels == ORGANS.index(name) + 1) > 0.5
        if mask.any():
            labels[cc3d.largest_k(mask, k=1, connectivity=26) > 0] = value
    stored = []
    for array in (grey, labels):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin((low + spacing / 2).tolist())
        stored.append(sitk.DICOMOrient(image, ("RAS", "SRP")[person.seed % 2]) if person.seed % 5 == 0 else image)
    return stored[0], stored[1]


def draw_tissues(person: Person, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Draw what a torso is made of, without a scanner; the spacing (x, y, z) varies by up to 10 %.

    Returns
    -------
    tissues : ndarray of uint8, (z, y, x)
        Places in :data:`TISSUES`, on a grid :data:`OVERSAMPLING` times as fine, axes towards
        superior, posterior and left.
    labels : ndarray of uint8, (z, y, x)
        1 + the organ's place in :data:`ORGANS`; 0 outside of all.
    """
    canvas = _paint_torso(person, spacing_mm)[0]
    return canvas.tissues, canvas.labels


def _paint_torso(
    person: Person, spacing_mm: tuple[float, float, float]
) -> tuple[_Canvas, _Build, np.ndarray, np.ndarray, np.random.Generator]:
    """Return canvas, build, spacing and low corner (x, y, z; mm), and the scan's generator."""
    # The person's own scan draws from the person's seed alone, another one from its name too.
    again = 0 if person.scan == person.subject else zlib.crc32(person.scan.encode())
    rng = np.random.default_rng([person.seed ^ again, 1])
    build = _measure_build(person, np.random.default_rng([person.seed, 0]))
    spacing = np.asarray(spacing_mm, float) * rng.uniform([0.93, 0.93, 0.9], [1.07, 1.07, 1.1])
    spacing[1] = spacing[0] * spacing_mm[1] / spacing_mm[0]
    low, high = _frame(build, rng)
    size = np.maximum(np.ceil((high - low) / spacing).astype(int), 8)
    axes = [
        (start + (np.arange(count * OVERSAMPLING) + 0.5) * step / OVERSAMPLING).astype(np.float32)
        for start, count, step in zip(low[::-1], size[::-1], spacing[::-1], strict=True)
    ]
    canvas = _Canvas(axes, person)
    _paint_body(canvas, build, table=person.modality == "CT" and rng.random() < 0.7)
    _paint_vessels(canvas, build)
    for name, side, height in (("kidney_right", -1, -88.0), ("kidney_left", 1, -74.0)):
        _paint_kidney(canvas, build, name, side, height)
    _paint_liver(canvas, build)
    _paint_spleen(canvas, build)
    _paint_chest(canvas, build)
    return canvas, build, spacing, low, rng


def _measure_build(person: Person, rng: np.random.Generator) -> _Build:
    """Draw measures: size by sex, organs shrinking with age, the aorta widening, fat by BMI."""
    female, age, bmi = person.sex == "female", person.age, person.bmi
    stature = float((0.94 if female else 1.0) * np.clip(rng.normal(1.0, 0.03), 0.92, 1.08))
    fat = float(np.clip(5 + 1.35 * (bmi - 18) + (4 if female else 0), 4, 46) * rng.normal(1, 0.1))
    half_x = 145 * stature * (1 + 0.006 * (bmi - 25)) * rng.normal(1, 0.025)
    half_y = 101 * stature * (1 + 0.006 * (bmi - 25)) * rng.normal(1, 0.03)
    shrink = 1 - 0.004 * max(0.0, age - 45)
    liver = (1380 if female else 1620) * (1 + 0.012 * (bmi - 25))
    volumes = {
        "liver": liver * (1 - 0.003 * max(0.0, age - 50)) * _scatter(rng, 0.13),
        "kidney_right": (138 if female else 165) * shrink * _scatter(rng, 0.12),
        "kidney_left": (142 if female else 172) * shrink * _scatter(rng, 0.12),
        "spleen": (165 if female else 220) * (1 - 0.005 * max(0.0, age - 45)) * _scatter(rng, 0.25),
    }
    visceral = 0.30 + 0.022 * (bmi - 22) + (-0.08 if female else 0.04)
    return _Build(
        stature=stature,
        half_x=float(half_x),
        half_y=float(half_y),
        fat=fat,
        belly=float(max(0.0, 0.012 * (bmi - 22) + rng.normal(0, 0.02))),
        waist=float(np.clip((0.11 if female else 0.03) - 0.008 * (bmi - 22) + rng.normal(0, 0.02), -0.05, 0.15)),
        squareness=float(rng.uniform(0.25, 0.5)),
        spine_y=float(half_y - 63 * stature),
        aorta=float(((9.3 if female else 10.6) + 0.045 * (age - 40)) * rng.normal(1, 0.06)),
        volumes_ml={name: float(volume) for name, volume in volumes.items()},
        visceral_fat=float(np.clip(visceral + rng.normal(0, 0.06), 0.15, 0.8)),
    )


def _scatter(rng: np.random.Generator, spread: float) -> float:
    return float(np.exp(np.clip(rng.normal(0, spread), -2.2 * spread, 2.2 * spread)))


def _frame(build: _Build, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners (x, y, z) of the field of view; the very obese are cut at the sides."""
    side = min(build.half_x * (1 + 0.4 * build.belly) + build.fat, 222.0) + rng.uniform(8, 18)
    front = min(build.half_y * (1 + 1.5 * build.belly) + build.fat, 190.0) + rng.uniform(8, 16)
    back = build.half_y + 0.9 * build.fat + rng.uniform(18, 30)
    top, bottom = rng.uniform(125, 175) * build.stature, rng.uniform(-205, -175) * build.stature
    return np.array([-side, -front, bottom]), np.array([side, back, top])


def _paint_body(canvas: _Canvas, build: _Build, *, table: bool) -> None:
    """Paint what is no organ: outline, fat, muscle, bones, and the contents of chest and belly."""
    wx, wy, wz, s = canvas.wx, canvas.wy, canvas.wz, build.stature
    z = canvas.z
    slim = 1 - build.waist * np.exp(-(((z + 95 * s) / (50 * s)) ** 2))
    bulge = 1 + build.belly * np.exp(-(((z + 115 * s) / (75 * s)) ** 2))
    fat = build.fat * (0.6 + 0.55 / (1 + np.exp((z + 20) / 25)))
    if table:
        distance = canvas.y[None, :, None] - (build.half_y + 0.8 * build.fat + 9 - (canvas.x[None, None, :] / 60) ** 2)
        canvas.paint("table", np.broadcast_to(np.abs(distance) < 3, canvas.tissues.shape))

    def ring(half_x: np.ndarray, front: np.ndarray, back: np.ndarray) -> np.ndarray:
        """Return the level (1 on the outline) of a box, rounded, its front unlike its back."""
        per_x, per_front, per_back = ((1 / half).astype(np.float32)[:, None, None] for half in (half_x, front, back))
        across = (wx * per_x) ** 2
        deep = (wy * np.where(wy < 0, per_front, per_back)) ** 2
        return across + deep - np.float32(build.squareness) * across * deep

    wall_x, wall_front, wall_back = build.half_x * slim, build.half_y * slim * bulge, build.half_y * np.ones_like(z)
    outline = ring(wall_x + fat, wall_front + 0.95 * fat, wall_back + 0.75 * fat)
    body = outline < 1
    canvas.paint("skin", body)
    canvas.paint("fat", outline < (1 - 5.0 / (build.half_x + build.fat)))
    wall = ring(wall_x, wall_front, wall_back)
    canvas.paint("muscle", (wall < 1) & body)
    # The chest narrows towards its top.
    taper = np.sqrt(np.clip(1 - np.clip((z - 45 * s) / (195 * s), 0, 1) ** 2, 0.02, 1))
    cavity_x, cavity_front, cavity_back = (wall_x - 13) * taper, (wall_front - 12) * taper, (wall_back - 17) * taper
    cavity = ring(cavity_x, cavity_front, cavity_back)
    # A little fat between the layers of muscle of the chest wall.
    canvas.paint("fat", (wall < 0.93) & (cavity > 1.28) & (wz > 25) & (np.abs(wx) > 30))
    _paint_skeleton(canvas, build, cavity)

    free = (cavity < 1) & (((wx / (46 * s)) ** 2 + ((wy - build.spine_y - 16) / (34 * s)) ** 2) > 1)
    canvas.dome = _draw_dome(canvas, build, float(np.median(cavity_x)), float(np.median(cavity_back)))
    above = canvas.wz > canvas.dome
    canvas.cavity, canvas.free = cavity, free
    belly = free & ~above
    canvas.paint("fat", belly)
    loops = canvas.crop((z[0], -build.half_y * 1.5, -200), (-40 * s, build.spine_y - 12, 200))
    place = loops.spot
    tangle = loops.field("bowel", 21.0)
    edge = np.float32(np.clip(0.95 - 1.3 * build.visceral_fat, 0.08, 0.8))
    gut = belly[place] & (np.abs(tangle) > 1 - edge) & (loops.wy < build.spine_y - 16) & (cavity[place] < 0.9)
    loops.paint("bowel", gut)
    gas = loops.field("gas", 30.0) - 0.012 * (loops.wy + 20) > 1.35
    loops.paint("gas", gut & gas & (np.abs(tangle) > 1.25 - edge))
    loops.paint("fluid", gut & (loops.field("content", 34.0) > 1.5) & (np.abs(tangle) > 1.25 - edge))
    canvas.paint("muscle", free & above & (canvas.wz < canvas.dome + 4))
    for side in (-1, 1):
        psoas = canvas.crop((z[0], build.spine_y - 40, side * 38 - 40), (-30 * s, build.spine_y + 45, side * 38 + 40))
        width = np.clip(6 - 0.13 * (psoas.wz + 40 * s), 6, 22) * s
        inside = np.hypot(psoas.wx - side * (26 * s + 0.55 * width), psoas.wy - build.spine_y - 2) < width
        psoas.paint("muscle", inside & (psoas.wz < -35 * s))


def _paint_skeleton(canvas: _Canvas, build: _Build, cavity: np.ndarray) -> None:
    wx, wy, wz, s, spine_y = canvas.wx, canvas.wy, canvas.wz, build.stature, build.spine_y
    rng = canvas.draw("skeleton")
    pitch, phase = 27.0 * s, rng.uniform(0, 27)
    hoop = np.mod(wz - 0.42 * wy + 0.10 * np.abs(wx) + phase, pitch)
    rib = (cavity > 1.02) & (cavity < 1.21) & (hoop < 9.0 * s) & (wz - 0.42 * wy > -118 * s)
    rib &= (wy > -0.66 * build.half_y) | (np.abs(wx) > 0.62 * build.half_x)  # cartilage further to the front
    canvas.paint("bone", rib)
    canvas.paint("marrow", rib & (np.abs(hoop - 4.5 * s) < 2.2 * s) & (np.abs(cavity - 1.11) < 0.045))
    canvas.paint("bone", (np.abs(wx) < 17 * s) & (cavity > 1.05) & (cavity < 1.22) & (wy < 0) & (wz > 5 * s))
    back = canvas.crop((canvas.z[0], spine_y - 30, -70), (canvas.z[-1], build.half_y + 10, 70))
    wx, wy, wz = back.wx, back.wy, back.wz
    level = np.mod(wz + rng.uniform(0, 33), 33.0 * s)
    body = np.hypot(wx / (21 * s), (wy - spine_y) / (16.5 * s))
    muscle = np.hypot((np.abs(wx) - 27 * s) / (25 * s), (wy - spine_y - 33 * s) / (17 * s)) < 1
    back.paint("muscle", muscle | (body < 1.2))
    canal = np.hypot(wx, wy - spine_y - 24 * s)
    back.paint("bone", (canal < 13 * s) & (level > 5 * s))
    spinous = (np.abs(wx) < 3.5 * s) & (wy > spine_y + 30 * s) & (wy < spine_y + 52 * s)
    back.paint("bone", spinous & (level > 12 * s) & (level < 27 * s))
    arm = np.abs(wy - spine_y - 22 * s - 0.12 * np.abs(wx)) < 5 * s
    back.paint("bone", arm & (np.abs(wx) < 36 * s) & (np.abs(level - 20 * s) < 5 * s))
    back.paint("csf", canal < 8.5 * s)
    back.paint("disc", (body < 1) & (level <= 7.5 * s))
    back.paint("bone", (body < 1) & (level > 7.5 * s))
    back.paint("marrow", (body < 0.87) & (level > 10 * s) & (level < 30.5 * s))


def _draw_dome(canvas: _Canvas, build: _Build, half_x: float, back: float) -> np.ndarray:
    """Return the diaphragm's height (z, mm) over each place (1, y, x): two domes and the tendon."""
    s, rng = build.stature, canvas.draw("diaphragm")
    x, y = canvas.x[None, None, :], canvas.y[None, :, None]
    heights = rng.normal([6.0, -6.0], 5.0) * s
    drop = rng.normal(64, 6) * s
    domes = []
    for side, height in zip((-1, 1), heights, strict=True):
        spread = ((x - side * 0.46 * half_x) / (0.56 * half_x)) ** 2 + ((y + 0.14 * back) / (0.98 * back)) ** 2
        domes.append(height - drop * spread)
    tendon = -15 * s - 26 * s * ((y + 25) / 80) ** 2 - 12 * s * (x / 60) ** 2
    surface = -_join(_join(-domes[0], -domes[1], 12.0), -tendon, 12.0)
    wobble = SmoothField(rng, _LOW_MM, _HIGH_MM, 45.0).evaluate(np.zeros(1), canvas.y, canvas.x)
    return (surface + 2.5 * wobble).astype(np.float32)


def _paint_vessels(canvas: _Canvas, build: _Build) -> None:
    """Paint aorta and vena cava along the spine."""
    s, spine_y = build.stature, build.spine_y
    column = canvas.crop((canvas.z[0], spine_y - 75, -60), (canvas.z[-1], spine_y + 10, 60))
    rng = column.draw("aorta")
    sway = 4 * np.sin(column.z / rng.uniform(45, 70) + rng.uniform(0, 6)) + np.clip(column.z * 0.06, -8, 8)
    radius = build.aorta * (1 + 0.0009 * np.clip(column.z, -150, 150))
    sway, radius = sway.astype(np.float32)[:, None, None], radius.astype(np.float32)[:, None, None]
    x_mm = 9 * s + sway
    aorta = np.hypot(column.wx - x_mm, column.wy - (spine_y - 16.5 * s - build.aorta - 2)) - radius
    cava = np.hypot((column.wx + 19 * s) / 1.25, column.wy - (spine_y - 17 * s - 12)) - 9.5 * s
    column.paint("vein", (cava < 0) & (column.wz < 12))
    column.claim("aorta", aorta < 0, "blood")
    column.vessels |= (aorta < 3.5) | ((cava < 2) & (column.wz < 12))


def _paint_kidney(canvas: _Canvas, build: _Build, name: str, side: int, height: float) -> None:
    """Paint a kidney, bent around its hilum, its upper pole leaning to the spine."""
    s, rng = build.stature, canvas.draw(name)
    scale = np.cbrt(build.volumes_ml[name] / 155)
    x = side * (58 * s + 0.12 * (build.half_x - 145) + rng.normal(0, 3))
    centre = np.array([x, build.spine_y + rng.normal(1, 3), height * s + rng.normal(0, 8)])
    reach = np.array([75, 50, 50])
    part = canvas.crop(centre[::-1] - reach, centre[::-1] + reach)
    lean, turn = side * rng.normal(0.24, 0.07), -side * rng.normal(0.5, 0.12)
    radii = np.array([25.5, 29.5, 54.0]) * scale * rng.normal(1, 0.04, 3)
    bend = -side * 0.0042 * (part.wz - centre[2]) ** 2 / scale
    straight, part.wx = part.wx, part.wx - bend
    shape = part.ellipsoid(centre, radii, lean=lean, turn=turn) + 1.6 * part.field(name, 22.0)
    core = part.ellipsoid(centre, radii * (0.66, 0.66, 0.78), lean=lean, turn=turn) + 2.5 * part.field(name + "c", 10.0)
    part.wx = straight
    hollow = centre + np.array([-side * 20 * scale, -11 * scale, 0])
    hilum = part.ellipsoid(hollow, np.array([15, 12, 19]) * scale)
    shape = _cut(shape, hilum, 5.0)
    allowed = part.free & (part.cavity < 0.93) & ~part.vessels & (part.wz < part.dome - 4)
    grown, inside = part.grow(shape, allowed, build.volumes_ml[name], 5.0)
    part.claim(name, inside, "cortex")
    sinus = part.ellipsoid(hollow + np.array([side * 7 * scale, 3 * scale, 0]), np.array([14, 10, 24]) * scale)
    part.paint("medulla", inside & (core < 0) & (grown < -5))
    part.paint("fluid" if rng.random() < 0.3 else "fat", (sinus < 0) & (core < -3) & inside)
    part.vessels |= grown < 4.0  # the fat around the kidney keeps its neighbours away


def _paint_liver(canvas: _Canvas, build: _Build) -> None:
    """Paint liver, a right and a left lobe hollowed by porta and right kidney, and gallbladder."""
    s, rng = build.stature, canvas.draw("liver")
    part = canvas.crop((-175 * s, -build.half_y * 1.3, -build.half_x), (35, build.half_y, 100))
    move = rng.normal(0, 4, 3)
    centre = np.array([-(build.half_x - 13 - 62 * s), 4, -52 * s]) + move
    right = part.ellipsoid(centre, np.array([66, 88, 84]) * s * rng.normal(1, 0.05, 3))
    centre = np.array([0 + rng.normal(0, 14), -0.50 * build.half_y, -32 * s]) + move
    left = part.ellipsoid(centre, np.array([70, 36, 36]) * s * rng.normal(1, 0.08, 3), lean=rng.normal(0.15, 0.1))
    porta = part.ellipsoid(np.array([-8, 22, -84 * s]) + rng.normal(0, 5, 3), np.array([38, 46, 46]) * s)
    shape = _cut(_join(right, left, 22.0), porta, 14.0)
    centre = np.array([-42, -0.45 * build.half_y, -102 * s]) + move + rng.normal(0, 4, 3)
    gallbladder = part.ellipsoid(centre, np.array([14, 15, 27]) * s * rng.normal(1, 0.1), lean=0.3)
    shape = _cut(shape, gallbladder, 4.0) + 3.0 * part.field("liver", 34.0)
    allowed = part.free & (part.cavity < 0.97) & (part.wz < part.dome - 2) & ~part.vessels & (gallbladder > 1.5)
    part.paint("fluid", (gallbladder < 0) & part.free)
    grown, inside = part.grow(shape, allowed, build.volumes_ml["liver"], 25.0)
    part.claim("liver", inside, "liver")
    veins = np.abs(part.field("hepatic veins a", 26.0)) + np.abs(part.field("hepatic veins b", 26.0))
    part.paint("vein", inside & (veins < 0.17) & (grown < -9))


def _paint_spleen(canvas: _Canvas, build: _Build) -> None:
    """Paint spleen, a curved wedge between ribs, stomach and left kidney, and stomach before it."""
    s, rng, wide = build.stature, canvas.draw("spleen"), build.half_x - 13
    part = canvas.crop((-150 * s, -60, 20), (30, build.half_y, build.half_x + 10))
    scale = np.cbrt(build.volumes_ml["spleen"] / 200) * rng.normal(1, 0.03)
    centre = np.array([wide - 25 * scale, 26 + rng.normal(0, 5), -46 * s + rng.normal(0, 6)])
    turn = rng.normal(0.45, 0.1)
    shape = part.ellipsoid(centre, np.array([29, 52, 50]) * scale, lean=-rng.normal(0.22, 0.08), turn=turn)
    dent = part.ellipsoid(centre + np.array([-37, -14, 2]) * scale, np.array([31, 48, 52]) * scale, turn=turn)
    shape = _cut(shape, dent, 7.0) + 2.2 * part.field("spleen", 26.0)
    allowed = part.free & (part.cavity < 0.96) & (part.wz < part.dome - 2) & ~part.vessels & (part.labels == 0)
    grown, inside = part.grow(shape, allowed, build.volumes_ml["spleen"], 12.0)
    part.claim("spleen", inside, "spleen")

    rng = canvas.draw("stomach")
    centre = np.array([wide - 62 * s, -0.22 * build.half_y, -44 * s]) + rng.normal(0, 5, 3)
    stomach = part.ellipsoid(centre, np.array([38, 42, 46]) * s * rng.normal(1, 0.1), lean=-0.35)
    stomach = stomach + 3 * part.field("stomach", 30.0)
    room = part.free & (part.wz < part.dome - 3) & (part.cavity < 0.95) & (grown >= 2.5)
    room &= (part.labels == 0) & ~part.vessels & (stomach < 0)
    part.paint("muscle", room)
    part.paint("bowel" if rng.random() < 0.6 else "fluid", room & (stomach < -4))
    # Its gas is at the front, because people lie on their backs.
    part.paint("gas", room & (stomach < -4) & (part.wy < -0.22 * build.half_y - rng.uniform(-12, 22)))


def _paint_chest(canvas: _Canvas, build: _Build) -> None:
    """Paint heart, mediastinum and lungs above the diaphragm."""
    s, spine_y = build.stature, build.spine_y
    rng = canvas.draw("chest")
    start = int(np.searchsorted(canvas.z, -130 * s))
    spot = (slice(start, None), slice(None), slice(None))
    part = _Canvas((canvas.z[start:], canvas.y, canvas.x), canvas.person, canvas, spot)
    inside = part.free & (part.wz > part.dome + 3)
    centre = np.array([20 * s, -0.26 * build.half_y, 34 * s]) + rng.normal(0, 4, 3)
    heart = part.ellipsoid(centre, np.array([57, 44, 52]) * s * rng.normal(1, 0.05, 3), lean=-0.35, turn=-0.35)
    heart = heart + 2.5 * part.field("heart", 40.0)
    narrow = np.float32(26 * s) - 0.05 * np.clip(part.wz - 40, 0, 150)
    middle = np.abs(part.wx - 3) - narrow * (0.62 + 0.38 * np.clip((part.wy + build.half_y) / build.half_y, 0, 1))
    middle = middle + 3.0 * part.field("mediastinum", 32.0)
    kept_out = _join(heart - 5.0, middle, 10.0)
    part.paint("fat", inside)
    clumps = inside & (part.field("great vessels", 18.0) > 0.55) & (part.wz > 55 * s) & (middle < -4)
    part.paint("vein", clumps)
    part.paint("muscle", inside & (heart < 0))
    part.paint("blood", inside & (heart < -9) & (np.abs(part.field("septum", 60.0)) > 0.09))
    gullet = np.hypot(part.wx - 1, part.wy - spine_y + 38 * s)
    part.paint("muscle", inside & (gullet < 8 * s))
    part.paint("airway", inside & (np.hypot(part.wx + 2, part.wy - spine_y + 52 * s) < 8 * s) & (part.wz > 85 * s))
    lungs = inside & (kept_out > 0) & (part.cavity < 0.985) & (part.labels == 0)
    part.paint("blood", part.labels == ORGANS.index("aorta") + 1)
    for name, side in (("lung_right", -1), ("lung_left", 1)):
        half = lungs & ((part.wx < 0) if side < 0 else (part.wx > 0))
        part.claim(name, half, "lung")
        central = np.exp(-(((part.wx - side * 42 * s) / 30) ** 2)) * np.exp(-(((part.wz - 45 * s) / 45) ** 2))
        branches = part.field("pulmonary vessels", 11.0) + 0.8 * central
        part.paint("vein", half & (branches > 1.95) & (kept_out > 3))


def _scan(
    canvas: _Canvas, build: _Build, protocol: str, rng: np.random.Generator, spacing_xyz: np.ndarray
) -> np.ndarray:
    """Return the image, int16: tissue means averaged, texture, blur, bias field (MR) and noise."""
    modality = protocol.split()[0]
    means = {name: float(value) for name, value in PROTOCOLS[protocol].items()}
    if modality == "CT":
        spreads = {"fat": 5, "muscle": 5, "bone": 70, "marrow": 35, "lung": 35, "gas": 30, "bowel": 15}
        contrast = rng.normal(1, 0.12)
        for name in ("blood", "vein", "liver", "spleen", "cortex", "medulla"):
            means[name] = 45 + (means[name] - 45) * contrast + rng.normal(0, 5)
        bmi = canvas.person.bmi
        means["liver"] -= max(0.0, rng.normal(0.9 * (bmi - 24), 8)) if bmi > 24 else 0.0  # fatty liver
        for name, spread in spreads.items():
            means[name] += rng.normal(0, spread)
    else:
        gain = rng.uniform(0.75, 1.3)
        means = {name: value * gain * float(np.exp(rng.normal(0, 0.08))) for name, value in means.items()}
    lookup = np.array([means[name] for name in TISSUES], np.float32)
    image = _average_down(lookup[canvas.tissues])
    step = OVERSAMPLING
    coarse = [axis.reshape(-1, step).mean(axis=1) for axis in (canvas.z, canvas.y, canvas.x)]

    def field(smoothness_mm: float) -> np.ndarray:
        return SmoothField(rng, _LOW_MM, _HIGH_MM, smoothness_mm).evaluate(*coarse)

    solid = image > -400 if modality == "CT" else image > 0.12 * lookup.max()
    texture = field(9.0)
    image = image + np.where(solid, texture * 6.0, 0.0) if modality == "CT" else image * (1 + 0.045 * texture)
    blur_mm = rng.uniform(0.35, 0.75) * spacing_xyz[0]
    blur = 0.3 * rng.uniform(0.6, 1.2), blur_mm / spacing_xyz[1], blur_mm / spacing_xyz[0]
    image = ndimage.gaussian_filter(image, blur)
    noise = rng.standard_normal((2, *image.shape), np.float32)
    if modality == "CT":
        grain = ndimage.gaussian_filter(noise[0], (0, 0.55, 0.55))
        level = rng.uniform(7, 15) * (build.half_x + build.fat) / 160
        # Rays through the middle of a thick body lose most photons.
        radial = (coarse[1][:, None] / (build.half_y + build.fat)) ** 2 + (coarse[2] / (build.half_x + build.fat)) ** 2
        image = image + grain / grain.std() * level * np.clip(1.25 - 0.5 * radial, 0.5, None)
        return np.round(np.clip(image, -1024, 3071)).astype(np.int16)
    image = image * np.exp(0.17 * field(160.0))
    level = rng.uniform(5, 14)
    image = np.hypot(image + level * noise[0], level * noise[1])
    return np.round(np.clip(image, 0, 4095)).astype(np.int16)


def _rotate(first: np.ndarray, second: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return first * cosine - second * sine, first * sine + second * cosine


def _join(a: np.ndarray, b: np.ndarray, width_mm: float) -> np.ndarray:
    """Return the union of two shapes (negative inside), its crease rounded over `width_mm`."""
    share = np.clip(0.5 + (b - a) * np.float32(0.5 / width_mm), 0, 1)
    return b + (a - b) * share - np.float32(width_mm) * share * (1 - share)


def _cut(a: np.ndarray, b: np.ndarray, width_mm: float) -> np.ndarray:
    """Return shape `a` without shape `b`, the new edge rounded."""
    return -_join(-a, b, width_mm)


def _average_down(array: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 2 × 2 × 2 fine voxels, float32."""
    z, y, x = (count // OVERSAMPLING for count in array.shape)
    blocks = array.reshape(z, OVERSAMPLING, y, OVERSAMPLING, x, OVERSAMPLING)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)
