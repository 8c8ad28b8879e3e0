"""The calibration of the surface tests, with few cohorts: that it measures what it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.demo.planting import weigh_region
from tests.calibration import calibrate_spatial
from tests.calibration.calibrate_spatial import Check, MeshPlan, calibrate, judge, overlap, write_report
from tests.calibration.surfaces import MaskStudy, SurfaceNoise, make_ellipsoid_mesh, weigh_direction


def test_overlap_is_dice_by_area():
    found, truth = np.array([True, True, False, False]), np.array([False, True, True, False])
    assert overlap(found, truth, np.array([1.0, 2.0, 3.0, 9.0])) == 2 * 2 / (3 + 5)
    assert overlap(np.zeros(4, bool), truth, np.ones(4)) == 0


def test_noise_has_the_spread_and_the_likeness_it_says():
    points = np.array([[0.0, 0, 0], [12, 0, 0], [300, 0, 0]])
    drawn = SurfaceNoise(points, 12.0).draw(40_000, np.random.default_rng(1))
    np.testing.assert_allclose(drawn.std(axis=0), 1.0, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(drawn.T)[0], [1.0, np.exp(-0.5), 0.0], atol=0.02)


@pytest.mark.parametrize("region", ["posterior_inferior", "left"])
def test_planted_region_on_the_mesh_is_the_voxels(region):
    mask = np.zeros((41, 31, 25), bool)  # z, y, x at 2 mm: an ellipsoid of half axes 36, 26, 20 mm
    z, y, x = np.meshgrid(*[2.0 * (np.arange(size) - size // 2) for size in mask.shape], indexing="ij")
    mask = (z / 36) ** 2 + (y / 26) ** 2 + (x / 20) ** 2 <= 1
    voxels = weigh_region(mask, (2.0, 2.0, 2.0), region)
    surface = make_ellipsoid_mesh((20.0, 26.0, 36.0), vertices=300)
    here = weigh_direction(surface.vertices_mm, region)
    place = np.rint(surface.vertices_mm[:, ::-1] / 2).astype(int) + np.array(mask.shape) // 2
    np.testing.assert_allclose(here, voxels[tuple(place.T)], atol=0.2)
    assert 0.2 < (here >= 0.5).mean() < 0.6


def test_limits_are_judged_with_their_monte_carlo_error():
    check = Check("run", "fwer", "text", high=0.05)
    assert judge(check, pd.Series([0.0] * 99 + [1.0]))[0] == "yes"
    assert judge(check, pd.Series([0.0] * 94 + [1.0] * 6))[0] == "within Monte-Carlo error"
    assert judge(check, pd.Series([0.0] * 80 + [1.0] * 20))[0] == "**NO**"
    assert judge(Check("run", "dice", "text", low=0.6, percent=False), pd.Series([0.5, 0.52]))[0] == "**NO**"


def test_a_planted_effect_on_the_mesh_is_found_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate_spatial, "PERMUTATIONS", 99)
    monkeypatch.setattr(
        calibrate_spatial, "MESH_PLANS", {"effect": MeshPlan(people=60, women=30, effect_mm=-2.0, cohorts=200)}
    )
    found = calibrate(seed=3, scale=0.01, workers=0, runs=["effect"])
    assert len(found["effect"]) == 2 and (found["effect"]["dice"] > 0.6).all()
    again = calibrate(seed=3, scale=0.01, workers=0, runs=["effect"])
    pd.testing.assert_frame_equal(found["effect"], again["effect"])
    broken = write_report(found, 3, 1.0, tmp_path / "validity.md")
    text = (tmp_path / "validity.md").read_text(encoding="utf-8")
    assert "on the mesh" in text and "every limit is kept" in text and not broken


def test_a_planted_region_of_masks_is_found(monkeypatch):
    plan = MaskStudy(people=20, models=1, erosion_mm=6.0, spacing_zyx_mm=(8.0, 5.0, 5.0), vertices=300)
    monkeypatch.setattr(calibrate_spatial, "PERMUTATIONS", 100)
    monkeypatch.setattr(calibrate_spatial, "MASK_PLANS", {"eroded": (plan, 1)})
    (seen,) = calibrate(seed=3, scale=1.0, workers=0, runs=["eroded"])["eroded"].to_dict("records")
    assert seen["fwer"] == 1 and seen["dice"] > 0.5 and seen["peak_mm"] < -2
