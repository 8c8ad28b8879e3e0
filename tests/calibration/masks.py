"""The same from the masks on: organs are drawn, their outlines moved by a known distance, and
compared as a study compares them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from helpers.demo.fields import SmoothField
from helpers.demo.planting import plant_errors
from helpers.fairness import run_audit
from helpers.metrics import compare_masks
from helpers.parameters import Fairness, Planted, PlantedEffect
from helpers.performance import add_expected_dice
from helpers.statistics.bootstrap import make_generator
from tests.calibration.cohorts import ORGANS
from tests.calibration.questions import BOUNDARY, MARGIN_MM, Check, Question, Seen

PEOPLE = 24  # of a cohort, half of them women
RANDOM_MM, SMOOTHNESS_MM = 1.0, 12.0
HALF_AXES = {"liver": (0.85, 0.9, 1.3), "kidney": (1.9, 1.0, 0.9)}  # z, y, x, before they are scaled to the volume
BEND_MM, BEND_SMOOTHNESS = 0.12, 0.9  # shares of the mean radius


@dataclass(frozen=True)
class MaskRun:
    """Many small cohorts of masks: women's organs and how far their outlines are moved inwards."""

    organ: str
    spacing_zyx_mm: tuple[float, float, float]
    erosion_mm: float
    women_size: float
    cohorts: int

    @property
    def true_gap_mm(self) -> float:
        """By how much further women's outlines are off, on average: a normal displacement's mean
        absolute value (Leone et al. 1961)."""

        def fold(mean_mm: float) -> float:
            return float(stats.foldnorm.mean(mean_mm / RANDOM_MM, scale=RANDOM_MM))

        return fold(self.erosion_mm) - fold(0.0)


def draw_organ(run: MaskRun, sex: str, generator: np.random.Generator) -> np.ndarray:
    """Draw one organ, bool, (z, y, x): an ellipsoid of random size, bent smoothly."""
    volume, volume_sd, _, _ = ORGANS[run.organ]
    size = run.women_size if sex == "female" else 1.0
    volume_mm3 = 1000 * volume * size * np.exp(volume_sd * generator.standard_normal())
    axes = np.array(HALF_AXES[run.organ]) * np.exp(0.05 * generator.standard_normal(3))
    axes *= np.cbrt(volume_mm3 / (4 / 3 * np.pi * np.prod(axes)))
    radius = float(np.cbrt(np.prod(axes)))
    places = [
        np.arange(-1.3 * axis - 8, 1.3 * axis + 8, step) for axis, step in zip(axes, run.spacing_zyx_mm, strict=True)
    ]
    bend = SmoothField(generator, [p[0] for p in places], [p[-1] for p in places], BEND_SMOOTHNESS * radius)
    level = sum(
        ((place / axis) ** 2).reshape([-1 if axis_number == other else 1 for other in range(3)])
        for axis_number, (place, axis) in enumerate(zip(places, axes, strict=True))
    )
    return np.sqrt(level) < 1 + BEND_MM * bend.evaluate(*places)


def draw_mask_cohort(run: MaskRun, generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw people's masks and compare them: metrics.parquet and the included rows of
    cohort.parquet."""
    effects = [PlantedEffect(attribute="sex", group="female", erosion_mm=run.erosion_mm)] if run.erosion_mm else []
    planted = Planted(boundary_error_mm=RANDOM_MM, smoothness_mm=SMOOTHNESS_MM, effects=effects)
    names = [f"p{number:02d}" for number in range(PEOPLE)]
    cohort = pd.DataFrame(
        {"subject": names, "scan": names, "number": range(PEOPLE), "sex": ["female", "male"] * (PEOPLE // 2)}
    )
    rows = []
    for name, sex in zip(names, cohort["sex"], strict=True):
        reference = draw_organ(run, sex, generator)
        labels = reference.view(np.uint8)
        prediction = plant_errors(labels, run.spacing_zyx_mm, {run.organ: 1}, planted, {"sex": sex}, generator) == 1
        compared = compare_masks(reference, prediction, run.spacing_zyx_mm, tolerance_mm=3.0)
        rows.append({"subject": name, "scan": name, "model": "model", "organ": run.organ} | asdict(compared))
    cohort["group_sex"] = pd.Categorical(cohort["sex"], ["female", "male"], ordered=True)
    return add_expected_dice(pd.DataFrame(rows)), cohort


def see_mask_cohort(name: str, number: int, seed: int) -> list[Seen]:
    """Draw and audit one cohort; it depends on the seed, the run and its number alone."""
    run = list_mask_runs()[name]
    generator = make_generator(seed, f"{run} {number}")
    metrics, cohort = draw_mask_cohort(run, generator)
    settings = Fairness(metrics=["dice", BOUNDARY], bootstrap=500)
    found = run_audit(metrics, cohort, settings, ["sex"], int(generator.integers(2**31)))
    means = found.groups[found.groups["metric"] == BOUNDARY].set_index("group")["mean"]
    rows = found.disparity.set_index("metric")
    excess = rows.loc["dice"]
    return [
        {
            "gap": means["female"] - means["male"],
            "bias": means["female"] - means["male"] - run.true_gap_mm,
            "excess": float(not excess["excess_low"] <= 0 <= excess["excess_high"]),
            "found": float(rows.loc[BOUNDARY, "p_adjusted"] <= settings.alpha and means["female"] > means["male"]),
        }
    ]


def list_mask_runs() -> dict[str, MaskRun]:
    """Return the runs by name."""
    liver, kidney = (5.0, 3.5, 3.5), (3.0, 2.0, 2.0)
    return {
        "masks liver": MaskRun("liver", liver, 2.0, 0.85, 16),
        "masks kidney": MaskRun("kidney", kidney, 2.0, 0.85, 16),
        "masks kidney, no erosion": MaskRun("kidney", kidney, 0.0, 0.7, 40),
    }


def list_mask_questions() -> list[Question]:
    """Return the question put to masks, with its limits."""
    runs = list_mask_runs()
    checks = []
    for name, text in (
        ("masks liver", "liver, 2 mm too small in women"),
        ("masks kidney", "kidney, 2 mm too small in women"),
    ):
        run = runs[name]
        checks += [
            Check(name, "gap", f"{text}: gap in boundary error, mm (planted: {run.true_gap_mm:.2f})", percent=False),
            Check(name, "bias", f"{text}: reported − planted, mm", -MARGIN_MM / 2, MARGIN_MM / 2, percent=False),
            Check(name, "found", f"{text}: disparity found, corrected p-value at most 0.05", low=0.8),
        ]
    name, text = "masks kidney, no erosion", "kidney 0.7 times as large in women, equal errors"
    checks += [
        Check(name, "bias", f"{text}: gap in boundary error, mm", -MARGIN_MM / 10, MARGIN_MM / 10, percent=False),
        Check(name, "excess", f"{text}: interval of the excess gap leaves out 0", high=0.05),
    ]
    return [
        Question(
            "From masks to millimetres",
            f"{PEOPLE} drawn organs per cohort; every outline wanders by {RANDOM_MM:g} mm (standard deviation), women's"
            " are moved inwards as well. What is planted is the gap in the mean absolute distance of the outlines. The"
            " boundary error, 2V(1 − Dice)/S, is that distance to first order and on smooth surfaces: half the usual"
            " margin is allowed for voxels and curvature.",
            checks,
        )
    ]
