"""A tiny study of ellipsoids whose errors are known: what the spatial tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
import yaml

from helpers import volumes
from helpers.study import Study, load_study

SPACING_XYZ_MM = (2.5, 3.0, 4.0)


def draw_ellipsoid(
    radii_xyz_mm: tuple[float, float, float],
    *,
    size_mm: float = 76.0,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    spacing_xyz_mm: tuple[float, float, float] = SPACING_XYZ_MM,
    posterior_erosion_mm: float = 0.0,
    margin_mm: float = 0.0,
) -> sitk.Image:
    """Draw an ellipsoid (label 1, LPS axes) in a cube about the origin.

    `margin_mm` moves the whole surface outwards; `posterior_erosion_mm` moves it inwards where the
    direction from the centre is more than half towards the back.
    """
    spacing = np.asarray(spacing_xyz_mm)
    counts = np.round(size_mm / spacing).astype(int)
    origin = -(counts - 1) / 2 * spacing
    z, y, x = np.meshgrid(*[origin[a] + spacing[a] * np.arange(counts[a]) for a in (2, 1, 0)], indexing="ij")
    x, y, z = x - centre_mm[0], y - centre_mm[1], z - centre_mm[2]
    posterior = y > 0.5 * np.sqrt(x**2 + y**2 + z**2)
    shift = margin_mm - posterior_erosion_mm * posterior
    rx, ry, rz = radii_xyz_mm
    mask = (x / (rx + shift)) ** 2 + (y / (ry + shift)) ** 2 + (z / (rz + shift)) ** 2 <= 1
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_xyz_mm)
    image.SetOrigin(origin.tolist())
    return image


def make_study(folder: Path, **changes: object) -> Study:
    """Write and load the parameters of a study with one organ and two models, run in process."""
    parameters = {
        "name": "ellipsoids",
        "seed": 5,
        "cohort": {
            "source": "table",
            "path": "participants.csv",
            "organs": {"organ": {"labels": [1]}},
            "attributes": {"sex": {"categories": ["female", "male"]}, "age": {"bins": [18, 50, 65, 99]}},
        },
        "models": [
            {"name": "eroded", "kind": "precomputed", "path": "a"},
            {"name": "exact", "kind": "precomputed", "path": "b"},
        ],
        "fairness": {"min_group": 2},
        "spatial": {"organs": ["organ"], "grid_mm": 5.0, "vertices": 400, "permutations": 200},
        "compute": {"workers": 0},
    }
    path = folder / "params" / "ellipsoids.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return load_study(path, dict(changes))


def write_cohort(study: Study, rows: list[dict[str, object]]) -> pd.DataFrame:
    """Write cohort.parquet from rows of subject, sex, age_group, reference (an image), and
    optionally image."""
    folder = study.folder / "scans"
    table = []
    for number, row in enumerate(rows, start=1):
        scan = f"secret{number}"
        reference = folder / f"{scan}.nii.gz"
        volumes.write_volume(row["reference"], reference)
        image = None
        if row.get("image") is not None:
            image = folder / f"{scan}_image.nii.gz"
            volumes.write_volume(row["image"], image)
        table.append(
            {
                "subject": row["subject"], "scan": scan, "number": number, "sex": row["sex"], "age": 40.0, "bmi": 25.0,
                "modality": "CT", "reference": str(reference), "image": None if image is None else str(image),
                "included": row.get("included", True), "reason": "", "note": "",
                "group_sex": row["sex"], "group_age": row.get("age_group", "18 to 50"),
            }
        )  # fmt: skip
    cohort = pd.DataFrame(table)
    cohort["image"] = cohort["image"].astype("str")
    cohort["group_sex"] = pd.Categorical(cohort["group_sex"], ["female", "male"], ordered=True)
    cohort["group_age"] = pd.Categorical(cohort["group_age"], ["18 to 50", "50 to 65", "65 and over"], ordered=True)
    study.folder.mkdir(parents=True, exist_ok=True)
    cohort.to_parquet(study.folder / "cohort.parquet", index=False)
    return cohort


def write_prediction(study: Study, model: str, number: int, image: sitk.Image) -> None:
    """Write a model's label map of a scan."""
    volumes.write_volume(image, study.prediction_path(model, f"secret{number}"))
