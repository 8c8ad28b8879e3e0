"""A study of four ellipsoids to browse: what the widgets' tests share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import volumes
from tests.spatial_cohort import draw_ellipsoid, make_study, write_cohort, write_prediction

RADII_MM = (20.0, 15.0, 24.0)
DICE = {1: 0.9, 2: 0.5, 3: np.nan, 4: 0.7}


def draw_image():
    image = sitk.Cast(draw_ellipsoid(RADII_MM), sitk.sitkFloat32) * 100.0 - 50.0
    return sitk.Cast(image, sitk.sitkInt16)


def write_study(folder):
    """Scans 1 and 4 have an image, 2 and 4 are stored in another axis order; `eroded` draws all but
    3, 4 mm too large."""
    study = make_study(folder)
    organ = draw_ellipsoid(RADII_MM)
    rows = [
        {
            "subject": f"p{k}",
            "sex": sex,
            "reference": sitk.DICOMOrient(organ, code),
            "image": sitk.DICOMOrient(image, code) if image else None,
        }
        for k, (sex, image, code) in enumerate(
            [
                ("female", draw_image(), "LPS"),
                ("male", None, "PIR"),
                ("female", None, "LPS"),
                ("male", draw_image(), "PIR"),
            ]
        )
    ]
    write_cohort(study, rows)
    bigger = draw_ellipsoid(RADII_MM, margin_mm=4.0)
    for number, row in enumerate(rows, start=1):
        if number != 3:
            grid = volumes.get_grid(row["reference"])
            write_prediction(study, "eroded", number, volumes.from_axial(bigger, grid))
    return study


def write_metrics(study, **changes):
    rows = [
        {
            "number": number, "model": model, "organ": "organ", "status": "ok",
            "dice": dice if model == "eroded" else 1.0, "hd95_mm": number if model == "eroded" else 0.0,
        }
        for model in ("eroded", "exact")
        for number, dice in DICE.items()
    ]  # fmt: skip
    pd.DataFrame(rows).assign(**changes).to_parquet(study.path("metrics"))
