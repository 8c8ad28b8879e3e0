"""A seeded cohort of torso phantoms in CT and MR, with real-world faults and a planted disparity.

Everything about the cohort is known, so that what the notebooks find can be checked: who is in it, how
large the organs are, and which group's masks were made worse, by how many millimetres, and where.

Anatomy is drawn in the person's own millimetres (LPS: x to the left, y posterior, z superior) as
super-ellipsoids and tubes, warped by smooth random fields, on a grid twice as fine as the image; the
image and the masks are averages over that grid, which gives true partial volume.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import edt
import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy import ndimage

from helpers import storage
from helpers.compute import CaseFailure, map_cases
from helpers.errors import ParameterError, SegfairError
from helpers.parameters import Phantoms, Planted
from helpers.study import Study
from helpers.volumes import to_axial, write_volume

ORGANS = ("liver", "kidney_right", "kidney_left", "spleen", "lung_right", "lung_left", "aorta")
RECIPE_VERSION = 1
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


@dataclass(frozen=True)
class _Case:
    person: Person
    phantoms: Phantoms
    organ_ids: dict[str, int]
    folder: Path


def draw_people(phantoms: Phantoms, seed: int) -> list[Person]:
    """Draw who is in the cohort: as many women as men, BMI rising mildly with age, modalities alternating.

    With `faults`, fixed members get a real-world fault: a missing age, an organ removed, a mask moved to
    another grid, and one more row for a second scan of one person.

    Parameters
    ----------
    phantoms : Phantoms
        The recipe.
    seed : int
        The study's seed; person k depends on it and on k alone, so a larger cohort starts with the same people.
    """
    people = []
    for number in range(phantoms.subjects):
        rng = np.random.default_rng([seed, number])
        sex = ("female", "male")[number % 2]
        age = float(np.clip(np.round(rng.uniform(20, 86)), 20, 85))
        bmi = float(np.clip(np.round(rng.normal(25.0 + 0.05 * (age - 50), 4.2), 1), 17, 42))
        modality = phantoms.modalities[(number // 2) % len(phantoms.modalities)]
        name = f"phantom_{number + 1:04d}"
        people.append(Person(name, name, sex, age, bmi, modality, int(rng.integers(2**62))))
    if phantoms.faults:
        people = _add_faults(people, phantoms)
    return people


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
    extent = np.array([2 * build["half_x"] + 24, 2 * build["half_y"] + 24, rng.uniform(330, 370)])
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


def plant_errors(
    labels: np.ndarray,
    spacing_zyx_mm: tuple[float, float, float],
    organ_ids: Mapping[str, int],
    planted: Planted,
    person: Mapping[str, Any],
    rng: np.random.Generator,
) -> np.ndarray:
    """Make a mask as a model with known errors would draw it.

    Each organ's boundary is moved along its normal by a smooth random field (sd `boundary_error_mm`,
    correlated over `smoothness_mm`) and by the effects that apply to the person: inwards by
    `erosion_mm`, everywhere or where the outward direction from the organ's centre lies in the region,
    fading over 30° at its border. The shift is exact: it moves the zero level of the signed distance.

    Parameters
    ----------
    labels : ndarray of uint8, (z, y, x), axial orientation
        The reference (axes towards superior, posterior, left).
    spacing_zyx_mm : tuple of float
    organ_ids : mapping of str to int
    planted : Planted
    person : mapping
        With ``sex``, ``age`` (years) and ``bmi`` (kg/m²); a missing value fulfils no condition.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of uint8
        The planted label map; where two organs claim a voxel the one that is deeper there keeps it.
    """
    result = np.zeros_like(labels)
    deepest = np.zeros(labels.shape, np.float32)
    reach = 4 * planted.boundary_error_mm + max((abs(effect.erosion_mm) for effect in planted.effects), default=0.0) + 2
    for name, value in organ_ids.items():
        mask = labels == value
        # Drawn for every organ, present or not, so that one organ's fault does not change the others' errors.
        seed = int(rng.integers(2**62))
        if not mask.any():
            continue
        margins = [int(np.ceil(reach / step)) + 1 for step in spacing_zyx_mm]
        box = tuple(
            slice(max(0, found.start - margin), found.stop + margin)
            for found, margin in zip(ndimage.find_objects(mask.view(np.uint8))[0], margins, strict=True)
        )
        distance = measure_signed_distance(mask[box], spacing_zyx_mm)
        shift = (
            _draw_field(np.random.default_rng(seed), distance.shape, spacing_zyx_mm, planted.smoothness_mm)
            * planted.boundary_error_mm
        )
        for effect in planted.effects:
            if effect.organs and name not in effect.organs or not _applies(effect, person):
                continue
            shift -= effect.erosion_mm * weigh_region(mask[box], spacing_zyx_mm, effect.region)
        depth = shift - distance
        inside = (depth > 0) & (depth > deepest[box])
        result[box][inside] = value
        deepest[box][inside] = depth[inside]
    return result


def measure_signed_distance(mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float]) -> np.ndarray:
    """Return the signed distance to a mask's boundary in mm, negative inside, float32 (z, y, x).

    The boundary runs midway between the centres of inner and outer voxels.
    """
    spacing = tuple(float(step) for step in spacing_zyx_mm)
    inner = edt.edt(mask, anisotropy=spacing, black_border=False)
    outer = edt.edt(~mask, anisotropy=spacing, black_border=False)
    raw = outer - inner
    # Each of the two counts to the nearest voxel centre across the boundary, which is half a voxel too far;
    # how long half a voxel is depends on the direction, and the direction is the distance's own gradient.
    slopes = np.gradient(raw, *spacing)
    length = np.sqrt(sum(slope**2 for slope in slopes)) + 1e-6
    half = 0.5 / np.sqrt(sum((slope / length / step) ** 2 for slope, step in zip(slopes, spacing, strict=True)) + 1e-12)
    half = np.clip(half, 0.5 * min(spacing), 0.5 * max(spacing))
    return np.where(mask, np.minimum(raw + half, 0.0), np.maximum(raw - half, 0.0)).astype(np.float32)


def weigh_region(mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float], region: str) -> np.ndarray:
    """Return how much of a planted effect each voxel gets, 0 to 1, by its direction from the organ's centre.

    Full within 45° of the region's direction (60° for a combined one), none beyond 30° more.
    """
    if region == "everywhere":
        return np.ones(mask.shape, np.float32)
    towards = {
        "superior": (1, 0, 0),
        "inferior": (-1, 0, 0),
        "posterior": (0, 1, 0),
        "anterior": (0, -1, 0),
        "left": (0, 0, 1),
        "right": (0, 0, -1),
    }
    direction = np.sum([towards[part] for part in region.split("_")], axis=0).astype(float)
    direction /= np.linalg.norm(direction)
    points = np.nonzero(mask)
    sides = [(points[axis].max() - points[axis].min() + 1) * spacing_zyx_mm[axis] / 2 for axis in range(3)]
    grids = np.meshgrid(
        *[
            (np.arange(mask.shape[axis]) - points[axis].mean()) * spacing_zyx_mm[axis] / sides[axis]
            for axis in range(3)
        ],
        indexing="ij",
        sparse=True,
    )
    length = np.sqrt(grids[0] ** 2 + grids[1] ** 2 + grids[2] ** 2) + 1e-6
    cosine = sum(part * grid for part, grid in zip(direction, grids, strict=True)) / length
    full = np.deg2rad(60.0 if "_" in region else 45.0)
    angle = np.arccos(np.clip(cosine, -1, 1))
    return np.clip((full + np.deg2rad(30.0) - angle) / np.deg2rad(30.0), 0, 1).astype(np.float32)


def write_phantoms(study: Study) -> Path:
    """Draw the study's cohort into ``<study>/phantoms`` and return its participants table.

    Scans that were drawn by the same recipe are kept. ``truth.json`` says what was planted and which faults there are.

    Raises
    ------
    ParameterError
        An organ that phantoms do not have.
    SegfairError
        A phantom could not be drawn.
    """
    cohort = study.parameters.cohort
    check_recipe(study)
    folder = study.folder / "phantoms"
    people = draw_people(cohort.phantoms, study.seed_for("phantoms"))
    cases = [_Case(person, cohort.phantoms, study.organ_ids, folder) for person in people]
    todo = [case for case in cases if not _is_drawn(case)]
    results = map_cases(
        _draw_case,
        todo,
        ids=[case.person.scan for case in todo],
        compute=study.parameters.compute,
        label="drawing phantoms",
    )
    failed = [result for result in results if isinstance(result, CaseFailure)]
    if failed:
        raise SegfairError(f"phantom {failed[0].case} could not be drawn: {failed[0].error}")
    rows = [
        {
            "subject": person.subject,
            "scan": person.scan,
            "sex": person.sex,
            "age": person.recorded_age,
            "bmi": person.bmi,
            "modality": person.modality,
            "image": f"images/{person.scan}.nii.gz",
            "reference": f"references/{person.scan}.nii.gz",
        }
        for person in people
    ]
    table = folder / "participants.csv"
    storage.write_table(pd.DataFrame(rows), table)
    truth = {
        "planted": cohort.phantoms.planted.model_dump(mode="json"),
        "in_words": describe_planted(cohort.phantoms.planted),
        "faults": {person.scan: person.fault for person in people if person.fault},
    }
    storage.write_json(truth, folder / "truth.json")
    return table


def check_recipe(study: Study) -> None:
    """Raise ParameterError when the recipe asks for an organ that phantoms do not have."""
    unknown = sorted(set(study.organ_ids) - set(ORGANS))
    if unknown:
        raise ParameterError(
            f"{study.source}: cohort.organs: phantoms have no {', '.join(unknown)}; they have {', '.join(ORGANS)}"
        )


def describe_planted(planted: Planted) -> list[str]:
    """Return the planted effects in words."""
    sentences = [f"Everyone's outlines are moved at random by {planted.boundary_error_mm:g} mm (standard deviation)."]
    for effect in planted.effects:
        who = (
            f"{effect.attribute} is {effect.group}"
            if effect.group is not None
            else f"{effect.attribute} is {effect.above:g} or more"
        )
        organs = ", ".join(name.replace("_", " ") for name in effect.organs) or "every organ"
        way = "too small" if effect.erosion_mm > 0 else "too large"
        where = "everywhere" if effect.region == "everywhere" else f"on the {effect.region.replace('_', '-')} side"
        sentences.append(f"Where {who}, {organs} is drawn {abs(effect.erosion_mm):g} mm {way} {where}.")
    return sentences


def _add_faults(people: list[Person], phantoms: Phantoms) -> list[Person]:
    """Give fixed members a fault, as far as the cohort is large enough for it."""
    changed = [_with(person, recorded_age=person.age) for person in people]
    if len(changed) >= 4:
        changed[3] = _with(changed[3], fault="missing age", recorded_age=None)
    if len(changed) >= 6:
        changed[5] = _with(changed[5], fault="empty organ")
    if len(changed) >= 8:
        changed[7] = _with(changed[7], fault="mask on another grid")
    if len(changed) >= 3:
        first = changed[2]
        other = phantoms.modalities[(phantoms.modalities.index(first.modality) + 1) % len(phantoms.modalities)]
        changed.append(_with(first, scan=f"{first.subject}_b", modality=other, fault="repeated subject"))
    return changed


def _with(person: Person, **changes: Any) -> Person:
    return Person(**(asdict(person) | changes))


def _is_drawn(case: _Case) -> bool:
    record = case.folder / "recipes" / f"{case.person.scan}.json"
    files = [case.folder / kind / f"{case.person.scan}.nii.gz" for kind in ("images", "references", "planted")]
    if not all(file.exists() for file in [record, *files]):
        return False
    return json.loads(record.read_text())["recipe"] == _hash_recipe(case)


def _hash_recipe(case: _Case) -> str:
    return storage.hash_value(
        [RECIPE_VERSION, asdict(case.person), case.phantoms.model_dump(mode="json"), case.organ_ids]
    )


def _draw_case(case: _Case) -> None:
    person = case.person
    image, mask = draw_phantom(person, case.phantoms, case.organ_ids)
    axial = to_axial(mask)
    labels = sitk.GetArrayFromImage(axial)
    rng = np.random.default_rng([person.seed, 1])
    spacing = axial.GetSpacing()[::-1]
    planted = sitk.GetImageFromArray(
        plant_errors(labels, spacing, case.organ_ids, case.phantoms.planted, asdict(person), rng)
    )
    planted.CopyInformation(axial)
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(mask.GetDirection())
    planted = sitk.DICOMOrient(planted, code)
    planted.CopyInformation(mask)
    if person.fault == "mask on another grid":
        mask.SetOrigin(tuple(value + shift for value, shift in zip(mask.GetOrigin(), (10.0, 0.0, 0.0), strict=True)))
    write_volume(image, case.folder / "images" / f"{person.scan}.nii.gz")
    write_volume(mask, case.folder / "references" / f"{person.scan}.nii.gz")
    write_volume(planted, case.folder / "planted" / f"{person.scan}.nii.gz")
    storage.write_json({"recipe": _hash_recipe(case)}, case.folder / "recipes" / f"{person.scan}.json")


def _draw_build(person: Person, rng: np.random.Generator) -> dict[str, Any]:
    """Draw a person's measures in mm: size by sex, shrinking a little with age, fat by BMI."""
    stature = (1.0 if person.sex == "male" else 0.92) * rng.normal(1.0, 0.03)
    organ = stature * (1.0 - 0.0012 * max(0.0, person.age - 40))
    fat = np.clip(6 + 1.55 * (person.bmi - 18), 4, 48) * (1.12 if person.sex == "female" else 0.9) * rng.normal(1, 0.08)
    inner_x = 138 * stature * (1 + 0.008 * (person.bmi - 25)) * rng.normal(1, 0.025)
    inner_y = 92 * stature * (1 + 0.012 * (person.bmi - 25)) * rng.normal(1, 0.03)
    return {
        "inner_x": inner_x, "inner_y": inner_y, "fat": fat, "organ": organ, "fault": person.fault,
        "half_x": inner_x + fat, "half_y": inner_y + 0.8 * fat, "power": rng.uniform(2.2, 2.8),
    }  # fmt: skip


def _paint(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    build: dict[str, Any],
    rng: np.random.Generator,
    spacing_xyz: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tissue (index into the sorted tissue names) and the organ label of every fine voxel."""
    shape = (z.shape[0], y.shape[1], x.shape[2])
    spacing_zyx = tuple(spacing_xyz[::-1])
    names = sorted(_CT)
    tissues = np.full(shape, names.index("air"), np.uint8)
    labels = np.zeros(shape, np.uint8)
    # One smooth warp of space makes no two outlines alike; organs get another of their own below.
    warp = [_draw_field(rng, shape, spacing_zyx, 60.0) * 4.0 for _ in range(3)]
    wx, wy, wz = x + warp[0], y + warp[1], z + warp[2]

    def paint(tissue: str, inside: np.ndarray) -> None:
        tissues[inside] = names.index(tissue)

    power = build["power"]
    body = np.abs(wx / build["half_x"]) ** power + np.abs(wy / build["half_y"]) ** power
    paint("fat", body < 1)
    wall = np.abs(wx / build["inner_x"]) ** power + np.abs(wy / build["inner_y"]) ** power
    paint("muscle", wall < 1)
    cavity = (np.abs(wx / (build["inner_x"] - 14)) ** power + np.abs((wy + 4) / (build["inner_y"] - 16)) ** power) < 1
    visceral = cavity & (np.abs(wz + 60) < 140)
    paint("fat", visceral)

    spine_y = build["inner_y"] * 0.55
    vertebra = (np.hypot(wx / 21, (wy - spine_y) / 17) < 1) & (np.mod(z + rng.uniform(0, 30) + 0 * wx, 32.0) < 27)
    paint("muscle", np.hypot(wx / 58, (wy - spine_y - 12) / 26) < 1)
    paint("marrow", vertebra)
    paint("bone", vertebra & (np.hypot(wx / 17.5, (wy - spine_y) / 13.5) > 1))
    paint("bone", (np.hypot(wx / 8, (wy - spine_y - 34) / 13) < 1) & vertebra.any(axis=(1, 2))[:, None, None])
    ring = np.abs(wall - 0.86) < 0.055
    ribs = (
        ring
        & (np.mod(wz + 0.45 * np.abs(wx) - 0.35 * wy + rng.uniform(0, 26), 26.0) < 8.5)
        & (wz > -70)
        & (np.abs(wx) > 25)
    )
    paint("bone", ribs)

    for _ in range(rng.integers(14, 24)):
        centre = np.array([rng.uniform(-85, 85), rng.uniform(-0.75, 0.05) * build["inner_y"], rng.uniform(-170, -55)])
        radii = rng.uniform(11, 22, 3)
        loop = (
            ((wx - centre[0]) / radii[0]) ** 2 + ((wy - centre[1]) / radii[1]) ** 2 + ((wz - centre[2]) / radii[2]) ** 2
        )
        paint("bowel", (loop < 1) & visceral)
        if rng.random() < 0.45:
            paint("gas", (loop < 0.35) & visceral & (wy < centre[1]))

    heart, organs = _shape_organs(wx, wy, wz, build, rng, cavity, spine_y, spacing_zyx)
    paint("muscle", heart)
    for place, (name, inside) in enumerate(organs.items(), start=1):
        inside = inside & (labels == 0)
        if name == "spleen" and build["fault"] == "empty organ":
            paint("fat", inside)
            continue
        paint(_TISSUE_OF.get(name, name), inside)
        labels[inside] = ORGANS.index(name) + 1
        if name.startswith("kidney"):
            core = ndimage.binary_erosion(inside, iterations=max(1, int(round(11 / float(np.mean(spacing_zyx))))))
            paint("muscle" if place % 2 else "bowel", core & (rng.random() < 0.7))
    return tissues, labels


def _shape_organs(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    build: dict[str, Any],
    rng: np.random.Generator,
    cavity: np.ndarray,
    spine_y: float,
    spacing_zyx: tuple[float, ...],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the heart, and each organ's voxels in the order in which they claim space. Right is −x, left is +x."""
    size = build["organ"]
    reach_x, reach_y = build["inner_x"] - 16, build["inner_y"] - 18

    def blob(
        centre: Sequence[float], radii: Sequence[float], power: float = 2.0, roughness: float = 0.10, tilt: float = 0.0
    ) -> np.ndarray:
        cx, cy, cz = (value + rng.normal(0, 3.0) for value in centre)
        rx, ry, rz = (radius * size * rng.normal(1, 0.06) for radius in radii)
        dx, dy, dz = x - cx, y - cy, z - cz
        dx, dz = dx * np.cos(tilt) - dz * np.sin(tilt), dx * np.sin(tilt) + dz * np.cos(tilt)
        level = np.abs(dx / rx) ** power + np.abs(dy / ry) ** power + np.abs(dz / rz) ** power
        return level + roughness * _draw_field(rng, level.shape, spacing_zyx, 16.0)

    sway = 5 * np.sin(z / 60 + rng.uniform(0, 6))
    radius = 11.5 * size * rng.normal(1, 0.08)
    aorta = np.hypot(x - (11 + sway), y - (spine_y - 17 - radius)) < radius
    kidneys = {}
    for name, side in (("kidney_right", -1), ("kidney_left", 1)):
        centre = (side * 62 * size, spine_y - 4, -78 + 6 * side)
        kidney = blob(centre, (31, 28, 58), tilt=side * 0.18) < 1
        hilum = np.hypot(x - (centre[0] - side * 30 * size), (z - centre[2]) * 0.75) < 14 * size
        kidneys[name] = kidney & ~hilum & cavity
    dome = -8 + 22 * np.exp(-(((np.abs(x) - 70) / 45) ** 2))  # height of the diaphragm over each side
    right_lobe = blob((-68 * size, -8, -48), (66, 70, 78), power=2.4) < 1
    left_lobe = blob((4, -34, -22), (72, 34, 34), power=2.2) < 1
    notch = blob((-38 * size, -2, -118), (26, 42, 46), roughness=0.05) < 1
    liver = (right_lobe | left_lobe) & ~notch & (z < dome) & cavity & (y < spine_y - 6)
    spleen = (
        (blob((88 * size, 22, -46), (30, 42, 52), tilt=0.25) < 1)
        & ~(blob((58 * size, 4, -52), (26, 30, 44), roughness=0.04) < 1)
        & (z < dome)
        & cavity
    )
    heart = blob((14, -32, 34), (56, 44, 58), roughness=0.05) < 1
    mediastinum = np.abs(x - 4) < 24 * size
    lung_wall = (np.abs(x / reach_x) ** build["power"] + np.abs((y + 2) / (reach_y + 6)) ** build["power"]) < np.clip(
        1.05 - ((z - 30) / 150) ** 2 * 0.55, 0, None
    )
    lungs = lung_wall & (z > dome + 6) & ~heart & ~mediastinum & (np.hypot(x / 40, (y - spine_y) / 30) > 1)
    organs = {
        "aorta": aorta & (y < spine_y - 8),
        **kidneys,
        "liver": liver,
        "spleen": spleen,
        "lung_right": lungs & (x < 0),
        "lung_left": lungs & (x > 0),
    }
    return heart & (z > dome), organs


def _colour(tissues: np.ndarray, modality: str, rng: np.random.Generator, spacing_xyz: np.ndarray) -> np.ndarray:
    """Return the intensity of every fine voxel: tissue means, texture, and a bias field in MR."""
    table = _CT if modality == "CT" else _MR
    means = np.array([rng.normal(*table[name]) for name in sorted(table)], np.float32)
    intensity = means[tissues]
    spacing_zyx = tuple(spacing_xyz[::-1])
    texture = _draw_field(rng, tissues.shape, spacing_zyx, 7.0)
    intensity += texture * (7.0 if modality == "CT" else 0.05 * intensity)
    if modality == "MR":
        intensity *= np.exp(0.18 * _draw_field(rng, tissues.shape, spacing_zyx, 120.0))
    return intensity


def _draw_field(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_zyx_mm: tuple[float, ...], smoothness_mm: float
) -> np.ndarray:
    """Draw a smooth random field of mean 0 and sd 1, correlated over about `smoothness_mm`, float32.

    Normal numbers on a grid of that step, interpolated by cubic splines: the cost does not grow with smoothness.
    """
    coarse = [
        max(4, int(np.ceil(count * step / smoothness_mm)) + 3)
        for count, step in zip(shape, spacing_zyx_mm, strict=True)
    ]
    field = rng.standard_normal(coarse).astype(np.float32)
    for axis, (count, step) in enumerate(zip(shape, spacing_zyx_mm, strict=True)):
        places = 1 + np.arange(count) * step / smoothness_mm
        field = _interpolate_axis(field, axis, places)
    # Cubic B-splines of white noise have this sd on average; dividing by it, not by the sample's own, keeps people independent.
    return field / np.float32(_SPLINE_SD**3)


def _interpolate_axis(field: np.ndarray, axis: int, places: np.ndarray) -> np.ndarray:
    """Evaluate uniform cubic B-splines with coefficients `field` at fractional `places` along one axis."""
    base = np.clip(np.floor(places).astype(int), 1, field.shape[axis] - 3)
    t = places - base
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    matrix = np.zeros((len(places), field.shape[axis]), np.float32)
    for offset in range(4):
        matrix[np.arange(len(places)), base - 1 + offset] = weights[offset]
    return np.moveaxis(np.tensordot(matrix, field, axes=(1, axis)), 0, axis)


# Root of the mean, over the place between two knots, of the sum of squared cubic B-spline weights (151/315).
_SPLINE_SD = float(np.sqrt(151 / 315))


def _average_down(array: np.ndarray) -> np.ndarray:
    z, y, x = (count // _OVERSAMPLING for count in array.shape)
    blocks = array.reshape(z, _OVERSAMPLING, y, _OVERSAMPLING, x, _OVERSAMPLING)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def _store(array: np.ndarray, spacing: np.ndarray, origin: tuple[float, ...], person: Person) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(step) for step in spacing])
    image.SetOrigin(origin)
    return sitk.DICOMOrient(image, "RAS") if person.seed % 5 == 0 else image


def _applies(effect: Any, person: Mapping[str, Any]) -> bool:
    value = person.get(effect.attribute)
    if value is None or value != value:
        return False
    return value == effect.group if effect.group is not None else value >= effect.above
