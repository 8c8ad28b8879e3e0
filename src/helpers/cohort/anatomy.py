"""Draw one torso in CT or MR, and its label map.

Anatomy is drawn in the person's own millimetres (LPS: x to the left, y posterior, z superior) as
super-ellipsoids and tubes, warped by smooth random fields, on a grid twice as fine as the image; the
image and the mask are averages over that grid, which gives true partial volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from helpers.cohort.fields import SmoothField
from helpers.parameters import Phantoms

ORGANS = ("liver", "kidney_right", "kidney_left", "spleen", "lung_right", "lung_left", "aorta")
EMPTY_ORGAN = "empty organ"  # the fault of a person whose spleen is missing from image and mask
_OVERSAMPLING = 2

# Tissue intensities: CT in Hounsfield units (portal-venous contrast), MR as a T1-weighted scale. (mean, sd between people)
_CT = {
    "air": (-1000.0, 0.0), "lung": (-820.0, 25.0), "fat": (-100.0, 6.0), "muscle": (55.0, 6.0), "bone": (320.0, 60.0), "marrow": (180.0, 40.0),
    "liver": (105.0, 12.0), "kidney": (165.0, 20.0), "spleen": (115.0, 12.0), "aorta": (150.0, 20.0), "gas": (-850.0, 60.0), "bowel": (35.0, 12.0),
}  # fmt: skip
_MR = {
    "air": (8.0, 2.0), "lung": (35.0, 8.0), "fat": (560.0, 40.0), "muscle": (210.0, 20.0), "bone": (90.0, 15.0), "marrow": (330.0, 40.0),
    "liver": (310.0, 25.0), "kidney": (235.0, 20.0), "spleen": (180.0, 18.0), "aorta": (70.0, 20.0), "gas": (20.0, 8.0), "bowel": (170.0, 30.0),
}  # fmt: skip
_TISSUES = sorted(_CT)
_TISSUE_OF = {"kidney_right": "kidney", "kidney_left": "kidney", "lung_right": "lung", "lung_left": "lung"}


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


def draw_phantom(person: Person, phantoms: Phantoms, organ_ids: Mapping[str, int]) -> tuple[sitk.Image, sitk.Image]:
    """Draw one person's scan and its mask.

    Parameters
    ----------
    person : Person
    phantoms : Phantoms
        The recipe; `spacing_mm` (x, y, z) is varied by up to 10 % between people.
    organ_ids : mapping of str to int
        The organs to label and their ids; the others are drawn but not labelled.

    Returns
    -------
    image : sitk.Image
        int16: Hounsfield units, or arbitrary units for MR.
    mask : sitk.Image
        uint8 label map on the same grid. About a fifth of the scans are stored in another axis order than LPS.
    """
    rng = np.random.default_rng(person.seed)
    build = _draw_build(person, rng)
    spacing = np.asarray(phantoms.spacing_mm, float) * rng.uniform(0.9, 1.1, 3)
    extent = np.array([2 * build.outer_x + 24, 2 * build.outer_y + 24, rng.uniform(330, 370)])
    size = np.maximum(np.ceil(extent / spacing).astype(int), 16)
    fine_spacing = spacing / _OVERSAMPLING
    axes = [
        (np.arange(n * _OVERSAMPLING) + 0.5) * s - n * _OVERSAMPLING * s / 2
        for n, s in zip(size, fine_spacing, strict=True)
    ]
    x, y, z = (axis.astype(np.float32) for axis in axes)
    tissues, labels = _paint(x[None, None, :], y[None, :, None], z[:, None, None], build, rng, fine_spacing)
    intensity = _colour(tissues, person.modality, rng, fine_spacing)
    image = _average_down(intensity)
    image = ndimage.gaussian_filter(image, rng.uniform(0.25, 0.55))
    noise_sd = rng.uniform(8, 20) if person.modality == "CT" else rng.uniform(6, 16)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape).astype(np.float32), (0, 0.5, 0.5))
    image = image + noise * (noise_sd / noise.std())
    if person.modality == "CT":
        image = np.clip(image, -1024, 3071)
    else:
        image = np.clip(np.hypot(image, noise_sd * rng.standard_normal(image.shape)), 0, 4095)
    names = [name for name in ORGANS if name in organ_ids]
    mask = np.zeros(image.shape, np.uint8)
    for name in names:
        # More than half of the fine voxels: the majority at this resolution.
        mask[_average_down((labels == ORGANS.index(name) + 1).astype(np.float32)) > 0.5] = organ_ids[name]
    origin = tuple(
        float(axis[0]) + (_OVERSAMPLING - 1) * float(step) / 2 for axis, step in zip(axes, fine_spacing, strict=True)
    )
    return tuple(_store(array, spacing, origin, person) for array in (np.round(image).astype(np.int16), mask))  # type: ignore[return-value]


@dataclass(frozen=True)
class _Build:
    """A person's measures: half widths of the trunk in mm, outside and within the skin fat, and organ size."""

    inner_x: float
    inner_y: float
    outer_x: float
    outer_y: float
    power: float
    organ: float
    without_spleen: bool

    @property
    def spine_y(self) -> float:
        return self.inner_y * 0.55


def _draw_build(person: Person, rng: np.random.Generator) -> _Build:
    """Draw a person's measures: size by sex, organs shrinking a little with age, fat by BMI."""
    stature = (1.0 if person.sex == "male" else 0.92) * rng.normal(1.0, 0.03)
    organ = stature * (1.0 - 0.0012 * max(0.0, person.age - 40))
    fat = np.clip(6 + 1.55 * (person.bmi - 18), 4, 48)
    fat = fat * (1.12 if person.sex == "female" else 0.9) * rng.normal(1, 0.08)
    inner_x = 138 * stature * (1 + 0.008 * (person.bmi - 25)) * rng.normal(1, 0.025)
    inner_y = 92 * stature * (1 + 0.012 * (person.bmi - 25)) * rng.normal(1, 0.03)
    power = rng.uniform(2.2, 2.8)
    return _Build(inner_x, inner_y, inner_x + fat, inner_y + 0.8 * fat, power, organ, person.fault == EMPTY_ORGAN)


@dataclass
class _Torso:
    """A torso being drawn: the warped coordinates (mm) of every fine voxel, and what is there so far."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    spacing_zyx: tuple[float, ...]
    tissues: np.ndarray
    rng: np.random.Generator

    def paint(self, tissue: str, inside: np.ndarray, box: tuple[slice, ...] = ()) -> None:
        self.tissues[box][inside] = _TISSUES.index(tissue)

    def find_box(self, centre: Sequence[float], radii: Sequence[float], margin_mm: float = 18.0) -> tuple[slice, ...]:
        """Return the part of the grid within `radii` of `centre` (x, y, z), with room for warp and roughness."""
        box = []
        for axis, (count, step) in enumerate(zip(self.tissues.shape, self.spacing_zyx, strict=True)):
            middle = centre[2 - axis] / step + (count - 1) / 2
            reach = (radii[2 - axis] * 1.15 + margin_mm) / step
            box.append(slice(max(0, int(middle - reach)), max(0, int(np.ceil(middle + reach)) + 1)))
        return tuple(box)

    def fill_blob(
        self,
        centre: Sequence[float],
        radii: Sequence[float],
        *,
        power: float = 2.0,
        roughness: float = 0.10,
        tilt: float = 0.0,
    ) -> np.ndarray:
        """Return the voxels of a rough super-ellipsoid, tilted in the coronal plane, varied at random."""
        cx, cy, cz = (value + self.rng.normal(0, 3.0) for value in centre)
        rx, ry, rz = (radius * self.rng.normal(1, 0.06) for radius in radii)
        reach = max(rx, rz) if tilt else 0.0
        box = self.find_box((cx, cy, cz), (max(rx, reach), ry, max(rz, reach)))
        dx, dy, dz = self.x[box] - cx, self.y[box] - cy, self.z[box] - cz
        if tilt:
            dx, dz = dx * np.cos(tilt) - dz * np.sin(tilt), dx * np.sin(tilt) + dz * np.cos(tilt)
        level = sum(_raise(part / radius, power) for part, radius in zip((dx, dy, dz), (rx, ry, rz), strict=True))
        level = level + roughness * _draw_field(self.rng, level.shape, self.spacing_zyx, 16.0)
        inside = np.zeros(self.tissues.shape, bool)
        inside[box] = level < 1
        return inside


def _raise(values: np.ndarray, power: float) -> np.ndarray:
    """Return |values| ** power; squares without the logarithms."""
    return values * values if power == 2.0 else np.abs(values) ** np.float32(power)


def _paint(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    build: _Build,
    rng: np.random.Generator,
    spacing_xyz: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tissue (index into the tissue names) and the organ label of every fine voxel."""
    shape = (z.shape[0], y.shape[1], x.shape[2])
    spacing_zyx = tuple(float(step) for step in spacing_xyz[::-1])
    # One smooth warp of space makes no two outlines alike; organs get roughness of their own on top.
    warp = [4.0 * _draw_field(rng, shape, spacing_zyx, 60.0) for _ in range(3)]
    tissues = np.full(shape, _TISSUES.index("air"), np.uint8)
    torso = _Torso(x + warp[0], y + warp[1], z + warp[2], spacing_zyx, tissues, rng)
    cavity, belly = _paint_wall(torso, build)
    _paint_spine(torso, build)
    _paint_bowel(torso, build, belly)
    heart, organs = _shape_organs(torso, build, cavity)
    torso.paint("muscle", heart)
    labels = np.zeros(shape, np.uint8)
    for name, inside in organs.items():
        inside = inside & (labels == 0)
        if name == "spleen" and build.without_spleen:
            torso.paint("fat", inside)
            continue
        torso.paint(_TISSUE_OF.get(name, name), inside)
        labels[inside] = ORGANS.index(name) + 1
    return tissues, labels


def _paint_wall(torso: _Torso, build: _Build) -> tuple[np.ndarray, np.ndarray]:
    """Paint skin fat, muscle and ribs; return the inside of the trunk and its abdominal part."""
    x, y, z, power = torso.x, torso.y, torso.z, build.power
    ax, ay = np.abs(x) ** np.float32(power), np.abs(y) ** np.float32(power)
    torso.paint("fat", ax / build.outer_x**power + ay / build.outer_y**power < 1)
    wall = ax / build.inner_x**power + ay / build.inner_y**power
    torso.paint("muscle", wall < 1)
    cavity = ax / (build.inner_x - 14) ** power + ay / (build.inner_y - 16) ** power < 1
    belly = cavity & (np.abs(z + 60) < 140)
    torso.paint("fat", belly)
    ring = np.abs(wall - 0.86) < 0.055
    slant = np.mod(z + 0.45 * np.abs(x) - 0.35 * y + torso.rng.uniform(0, 26), 26.0)
    torso.paint("bone", ring & (slant < 8.5) & (z > -70) & (np.abs(x) > 25))
    return cavity, belly


def _paint_spine(torso: _Torso, build: _Build) -> None:
    """Paint the back muscles, the vertebrae with marrow and cortex, and the spinous processes."""
    box = torso.find_box((0, build.spine_y + 15, 0), (60, 50, 1000))
    x, y, z = torso.x[box], torso.y[box] - build.spine_y, torso.z[box]
    vertebra = ((x / 21) ** 2 + (y / 17) ** 2 < 1) & (np.mod(z + torso.rng.uniform(0, 30), 32.0) < 27)
    torso.paint("muscle", (x / 58) ** 2 + ((y - 12) / 26) ** 2 < 1, box)
    torso.paint("marrow", vertebra, box)
    torso.paint("bone", vertebra & ((x / 17.5) ** 2 + (y / 13.5) ** 2 > 1), box)
    torso.paint("bone", ((x / 8) ** 2 + ((y - 34) / 13) ** 2 < 1) & vertebra.any(axis=(1, 2))[:, None, None], box)


def _paint_bowel(torso: _Torso, build: _Build, belly: np.ndarray) -> None:
    """Paint loops of bowel, some with gas in their upper (anterior) part."""
    rng = torso.rng
    for _ in range(rng.integers(14, 24)):
        centre = (rng.uniform(-85, 85), rng.uniform(-0.75, 0.05) * build.inner_y, rng.uniform(-170, -55))
        radii = rng.uniform(11, 22, 3)
        gas = rng.random() < 0.45
        box = torso.find_box(centre, radii)
        offsets = (torso.x[box] - centre[0], torso.y[box] - centre[1], torso.z[box] - centre[2])
        loop = sum((offset / radius) ** 2 for offset, radius in zip(offsets, radii, strict=True))
        torso.paint("bowel", (loop < 1) & belly[box], box)
        if gas:
            torso.paint("gas", (loop < 0.35) & belly[box] & (offsets[1] < 0), box)


def _shape_organs(torso: _Torso, build: _Build, cavity: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the heart, and each organ's voxels in the order in which they claim space. Right is −x, left is +x."""
    x, y, z, rng, size, spine_y = torso.x, torso.y, torso.z, torso.rng, build.organ, build.spine_y

    def blob(centre: Sequence[float], radii: Sequence[float], **shape: float) -> np.ndarray:
        return torso.fill_blob(centre, [radius * size for radius in radii], **shape)

    radius = 11.5 * size * rng.normal(1, 0.08)
    sway = 5 * np.sin(z / 60 + rng.uniform(0, 6))
    aorta = ((x - 11 - sway) ** 2 + (y - (spine_y - 17 - radius)) ** 2 < radius**2) & (y < spine_y - 8)
    kidneys = {}
    for name, side in (("kidney_right", -1), ("kidney_left", 1)):
        centre = (side * 62 * size, spine_y - 4, -78 + 6 * side)
        hilum = (x - (centre[0] - side * 30 * size)) ** 2 + ((z - centre[2]) * 0.75) ** 2 < (14 * size) ** 2
        kidneys[name] = blob(centre, (31, 28, 58), tilt=side * 0.18) & ~hilum & cavity
    dome = -8 + 22 * np.exp(-(((np.abs(x) - 70) / 45) ** 2))  # height of the diaphragm over each side
    below = z < dome
    lobes = blob((-68 * size, -8, -48), (66, 70, 78), power=2.4) | blob((4, -34, -22), (72, 34, 34), power=2.2)
    notch = blob((-38 * size, -2, -118), (26, 42, 46), roughness=0.05)
    spleen = blob((88 * size, 22, -46), (30, 42, 52), tilt=0.25) & ~blob(
        (58 * size, 4, -52), (26, 30, 44), roughness=0.04
    )
    heart = blob((14, -32, 34), (56, 44, 58), roughness=0.05) & ~below
    # The chest narrows towards its top; what lies above the field of view is cut off, as in real scans.
    taper = np.clip(1.05 - ((z - 30) / 150) ** 2 * 0.55, 0, None)
    power = np.float32(build.power)
    chest = np.abs(x / (build.inner_x - 16)) ** power + np.abs((y + 2) / (build.inner_y - 12)) ** power < taper
    middle = (np.abs(x - 4) < 24 * size) | ((x / 40) ** 2 + ((y - spine_y) / 30) ** 2 < 1)
    lungs = chest & (z > dome + 6) & ~heart & ~middle
    return heart, {
        "aorta": aorta,
        **kidneys,
        "liver": lobes & ~notch & below & cavity & (y < spine_y - 6),
        "spleen": spleen & below & cavity,
        "lung_right": lungs & (x < 0),
        "lung_left": lungs & (x > 0),
    }


def _colour(tissues: np.ndarray, modality: str, rng: np.random.Generator, spacing_xyz: np.ndarray) -> np.ndarray:
    """Return the intensity of every fine voxel: tissue means, texture, and a bias field in MR."""
    table = _CT if modality == "CT" else _MR
    means = np.array([rng.normal(*table[name]) for name in _TISSUES], np.float32)
    intensity = means[tissues]
    spacing_zyx = tuple(spacing_xyz[::-1])
    texture = _draw_field(rng, tissues.shape, spacing_zyx, 7.0)
    intensity += texture * (7.0 if modality == "CT" else 0.05 * intensity)
    if modality == "MR":
        intensity *= np.exp(0.18 * _draw_field(rng, tissues.shape, spacing_zyx, 120.0))
    return intensity


def _draw_field(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_zyx: tuple[float, ...], smoothness_mm: float
) -> np.ndarray:
    """Draw a smooth random field of sd 1 on a whole grid."""
    axes = [np.arange(count) * step for count, step in zip(shape, spacing_zyx, strict=True)]
    return SmoothField(rng, (0, 0, 0), [axis[-1] for axis in axes], smoothness_mm).evaluate(*axes)


def _average_down(array: np.ndarray) -> np.ndarray:
    z, y, x = (count // _OVERSAMPLING for count in array.shape)
    blocks = array.reshape(z, _OVERSAMPLING, y, _OVERSAMPLING, x, _OVERSAMPLING)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def _store(array: np.ndarray, spacing: np.ndarray, origin: tuple[float, ...], person: Person) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(step) for step in spacing])
    image.SetOrigin(origin)
    return sitk.DICOMOrient(image, "RAS") if person.seed % 5 == 0 else image
