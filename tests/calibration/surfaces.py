"""Planted cohorts of organs for the surface tests: errors on a mesh, and whole studies of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
import yaml

from helpers import volumes
from helpers.demo.planting import _FADE_DEGREES, _FULL_DEGREES, _TOWARDS, plant_errors
from helpers.parameters import Planted, PlantedEffect
from helpers.spatial.correspondence import DistanceField
from helpers.spatial.surfaces import Surface
from helpers.spatial.template import mesh_field
from helpers.study import Study, load_study
from tests.calibration.masks import MaskRun, draw_organ

ORGAN = "organ"
RANDOM_MM, SMOOTHNESS_MM = 1.0, 12.0


def make_ellipsoid_mesh(axes_mm: Sequence[float], *, vertices: int, grid_mm: float = 4.0) -> Surface:
    """Return the mesh that stage 04 would give an ellipsoid of these half axes (x, y, z)."""
    axes = np.asarray(axes_mm, float)
    places = [np.arange(-axis - 24, axis + 24, grid_mm) for axis in axes]
    z, y, x = np.meshgrid(*places[::-1], indexing="ij")
    level = np.sqrt((x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2)
    values = np.clip((level - 1) * axes.min(), -20, 20).astype(np.float32)
    origin = np.array([place[0] for place in places])
    field = DistanceField(values, grid_mm, origin, np.zeros(3), axes / np.sqrt(5), np.zeros((3, 2), bool))
    return mesh_field(field, vertices=vertices)


class SurfaceNoise:
    """Random errors on a mesh: mean 0, sd 1, correlated as exp(−d²/2s²) over distance d in space.

    Parameters
    ----------
    vertices_mm : ndarray, (n, 3)
    smoothness_mm : float
        s.
    """

    def __init__(self, vertices_mm: np.ndarray, smoothness_mm: float) -> None:
        squared = ((vertices_mm[:, None] - vertices_mm[None]) ** 2).sum(axis=2)
        values, vectors = np.linalg.eigh(np.exp(-squared / (2 * smoothness_mm**2)))
        self.modes = (vectors * np.sqrt(np.maximum(values, 0)))[:, values > 1e-6 * values.max()].T

    def draw(self, people: int, generator: np.random.Generator) -> np.ndarray:
        """Return errors, (people, n)."""
        return generator.standard_normal((people, len(self.modes))) @ self.modes


def weigh_direction(points_mm: np.ndarray, region: str) -> np.ndarray:
    """Return how much of a planted effect points of a surface get, as
    :func:`helpers.demo.planting.weigh_region` gives voxels.

    Parameters
    ----------
    points_mm : ndarray, (n, 3)
        LPS, about the organ's middle.
    """
    parts = region.split("_")
    direction = np.sum([_TOWARDS[part] for part in parts], axis=0)[::-1] / np.sqrt(len(parts))
    scaled = points_mm / (np.ptp(points_mm, axis=0) / 2)
    cosine = scaled @ direction / np.linalg.norm(scaled, axis=1)
    angle = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    fade = np.clip((_FULL_DEGREES[len(parts)] + _FADE_DEGREES - angle) / _FADE_DEGREES, 0, 1)
    return fade * fade * (3 - 2 * fade)


@dataclass(frozen=True)
class MaskStudy:
    """A study of masks to draw.

    Attributes
    ----------
    people : int
        Half of them women.
    models : int
        Each draws everybody's organ with random errors of its own.
    kind : str
        "kidney" or "liver": shape and size.
    women_size : float
        Women's organ volumes, as a share of men's.
    erosion_mm : float
        By how much more models erode women's organs in `region`.
    region : str
    vertices : int
        Of the template.
    """

    people: int
    models: int
    kind: str = "kidney"
    women_size: float = 1.0
    erosion_mm: float = 0.0
    region: str = "posterior_inferior"
    spacing_zyx_mm: tuple[float, float, float] = (3.0, 2.5, 2.5)
    vertices: int = 2000


def draw_mask_study(plan: MaskStudy, folder: Path, seed: int, permutations: int) -> Study:
    """Draw references and predictions, and write them as a study that stage 04 can be run on.

    Ages go with sex (women are five years older) and do nothing to the errors.
    """
    generator = np.random.default_rng(seed)
    models = [f"m{number:03d}" for number in range(plan.models)]
    parameters = {
        "name": "planted",
        "seed": seed,
        "cohort": {
            "source": "table",
            "path": "participants.csv",
            "organs": {ORGAN: {"labels": [1]}},
            "attributes": {"sex": {"categories": ["female", "male"]}, "age": {"bins": [18, 50, 99]}},
        },
        "models": [{"name": name, "kind": "precomputed", "path": name} for name in models],
        "spatial": {"organs": [ORGAN], "vertices": plan.vertices, "permutations": permutations},
        "compute": {"workers": 0},
    }
    path = folder / "params" / "planted.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    study = load_study(path)
    sexes = np.array(["female", "male"])[np.arange(plan.people) % 2]
    ages = np.clip(np.where(sexes == "female", 57, 52) + 12 * generator.standard_normal(plan.people), 20, 90)
    effects = []
    if plan.erosion_mm:
        effects = [PlantedEffect(attribute="sex", group="female", erosion_mm=plan.erosion_mm, region=plan.region)]
    planted = Planted(boundary_error_mm=RANDOM_MM, smoothness_mm=SMOOTHNESS_MM, effects=effects)
    rows = []
    for number, (sex, age) in enumerate(zip(sexes, ages, strict=True), start=1):
        organ = draw_organ(MaskRun(plan.kind, plan.spacing_zyx_mm, 0.0, plan.women_size, 0), str(sex), generator)
        labels = organ.astype(np.uint8)
        reference = folder / "references" / f"s{number:03d}.nii.gz"
        _write(labels, plan.spacing_zyx_mm, reference)
        for model in models:
            person = {"sex": str(sex), "age": float(age), "bmi": 25.0}
            drawn = plant_errors(labels, plan.spacing_zyx_mm, {ORGAN: 1}, planted, person, generator)
            _write(drawn, plan.spacing_zyx_mm, study.prediction_path(model, f"s{number:03d}"))
        rows.append(
            {
                "subject": f"p{number}",
                "scan": f"s{number:03d}",
                "number": number,
                "sex": sex,
                "age": age,
                "bmi": 25.0,
                "modality": "CT",
                "reference": str(reference),
                "image": None,
                "included": True,
                "reason": "",
                "note": "",
            }
        )
    cohort = pd.DataFrame(rows).astype({"image": "str"})
    cohort["group_sex"] = pd.Categorical(cohort["sex"], ["female", "male"], ordered=True)
    cohort["group_age"] = pd.cut(cohort["age"], [18, 50, 99], right=False, labels=["18 to 50", "50 and over"])
    study.folder.mkdir(parents=True, exist_ok=True)
    cohort.to_parquet(study.path("cohort"), index=False)
    return study


def _write(labels: np.ndarray, spacing_zyx_mm: Sequence[float], path: Path) -> None:
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing([float(step) for step in spacing_zyx_mm[::-1]])
    volumes.write_volume(image, path)
