"""The surface tests, tested: planted cohorts with a known truth through stage 04.

``python -m tests.calibration.calibrate_spatial`` writes docs/validity_spatial.md and exits with 1
where a limit is broken beyond Monte-Carlo error. ``--scale 0.1`` draws a tenth of the cohorts,
``--seed`` other ones.
"""

from __future__ import annotations

import datetime
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.spatial import map_errors
from helpers.spatial.contrasts import design_groups
from helpers.spatial.surfaces import measure_vertex_areas
from helpers.statistics.freedman_lane import infer_effect
from helpers.statistics.tfce import link_vertices
from helpers.storage import write_text
from tests.calibration.running import BEYOND, run_command, run_jobs
from tests.calibration.surfaces import (
    ORGAN,
    MaskStudy,
    SurfaceNoise,
    draw_mask_study,
    make_ellipsoid_mesh,
    weigh_direction,
)

REPORT = Path(__file__).resolve().parents[2] / "docs" / "validity_spatial.md"
ALPHA, PERMUTATIONS = 0.05, 499
CHUNK = 20

Seen = dict[str, float]


@dataclass(frozen=True)
class MeshPlan:
    """Errors drawn on a mesh, without masks.

    Attributes
    ----------
    people, women : int
    women_sd : float
        Of women's errors; men's is 1 mm.
    age_mm : float
        Effect of a decade of age on everybody's errors; women are ten years older.
    cut : float
        Share of the women whose scans end above the organ's lower third.
    effect_mm : float
        Women's errors in the posterior-inferior region.
    cohorts : int
    """

    people: int = 60
    women: int = 30
    women_sd: float = 1.0
    age_mm: float = 0.0
    cut: float = 0.0
    effect_mm: float = 0.0
    cohorts: int = 600


@dataclass(frozen=True)
class Check:
    """One line of the report: what of which run, and its limit."""

    run: str
    seen: str
    text: str
    low: float = -np.inf
    high: float = np.inf
    percent: bool = True

    def format(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.percent else f"{value:.2f}"

    @property
    def limit(self) -> str:
        if np.isfinite(self.high):
            return f"at most {self.format(self.high)}"
        return f"at least {self.format(self.low)}" if np.isfinite(self.low) else "–"


MESH_PLANS = {
    "plain": MeshPlan(),
    "small": MeshPlan(people=24, women=12),
    "confounded": MeshPlan(age_mm=0.8),
    "cut": MeshPlan(cut=0.4),
    "unequal": MeshPlan(people=60, women=20, women_sd=1.5),
    "effect": MeshPlan(people=100, women=50, effect_mm=-0.7, cohorts=200),
}
# Name: what is drawn, and how many studies of it.
MASK_PLANS = {
    "masks, same size": (MaskStudy(people=48, models=20), 16),
    "masks, smaller women": (MaskStudy(people=48, models=20, women_size=0.7), 4),
    "erosion, kidney": (MaskStudy(people=100, models=4, women_size=0.85, erosion_mm=3.0), 2),
    "erosion, liver": (
        MaskStudy(
            people=100, models=3, kind="liver", women_size=0.85, erosion_mm=3.0, region="superior",
            spacing_zyx_mm=(5.0, 3.5, 3.5),
        ),
        1,
    ),
}  # fmt: skip
NULL_MASKS = tuple(name for name, (plan, _) in MASK_PLANS.items() if not plan.erosion_mm)
ERODED_MASKS = tuple(name for name, (plan, _) in MASK_PLANS.items() if plan.erosion_mm)
CHECKS = [
    (
        "False alarms on a mesh",
        (
            "Smooth random errors (sd 1 mm, 12 mm) at the vertices of an ellipsoid, nothing planted. How often is"
            " anything called significant?"
        ),
        [
            Check("plain", "fwer", "60 people: max-T", high=ALPHA),
            Check("plain", "tfce", "60 people: TFCE", high=ALPHA),
            Check("plain", "fdr", "60 people: false discovery rate", high=ALPHA),
            Check("small", "fwer", "24 people: max-T", high=ALPHA),
            Check("small", "tfce", "24 people: TFCE", high=ALPHA),
            Check("confounded", "fwer", "age moves errors and women are older, age held equal: max-T", high=ALPHA),
            Check("confounded", "tfce", "the same: TFCE", high=ALPHA),
            Check("cut", "fwer", "the field of view cuts the organ in 40 % of women: max-T", high=ALPHA),
            Check("cut", "tfce", "the same: TFCE", high=ALPHA),
            Check("unequal", "fwer", "20 women whose errors spread 1.5 times as wide, 40 men: max-T", high=ALPHA),
            Check("unequal", "tfce", "the same: TFCE", high=ALPHA),
        ],
    ),
    (
        "False alarms from masks",
        (
            "References are drawn and random errors (1 mm, smooth over 12 mm) planted in copies; template,"
            " registration, errors and tests are stage 04's own."
        ),
        [
            Check("masks, same size", "fwer", "48 people: max-T", high=ALPHA),
            Check("masks, same size", "tfce", "48 people: TFCE", high=ALPHA),
            Check("masks, smaller women", "fwer", "women's organs 0.7 times as large, equal errors: max-T", high=ALPHA),
            Check("masks, smaller women", "tfce", "the same: TFCE", high=ALPHA),
            Check("masks, smaller women", "slope", "slope of age: max-T", high=ALPHA),
        ],
    ),
    (
        "A planted region is found",
        (
            "Women's masks are eroded by 3 mm in one region, on top of the random errors; 100 people, organs 0.85 times"
            " as large in women. Planted is the part of the surface where at least half of the erosion applies. On the"
            " mesh the effect is 0.7 mm."
        ),
        [
            Check(
                "erosion, kidney",
                "dice",
                "kidney, posterior-inferior: overlap (Dice, by area) of the significant region (max-T)",
                low=0.6,
                percent=False,
            ),
            Check("erosion, kidney", "dice_tfce", "the same: TFCE", low=0.6, percent=False),
            Check("erosion, kidney", "peak_mm", "kidney: stated peak difference, mm (planted: −3)", percent=False),
            Check("erosion, liver", "dice", "liver, superior: overlap, max-T", low=0.6, percent=False),
            Check("erosion, liver", "dice_tfce", "the same: TFCE", low=0.6, percent=False),
            Check("erosion, liver", "peak_mm", "liver: stated peak difference, mm (planted: −3)", percent=False),
            Check("effect", "dice", "on the mesh, −0.7 mm: overlap, max-T", percent=False),
            Check("effect", "dice_tfce", "the same: TFCE", percent=False),
            Check(
                "effect",
                "outside",
                "the same: something significant where nothing at all is planted, max-T",
                high=ALPHA,
            ),
        ],
    ),
]


@lru_cache(maxsize=1)
def prepare_mesh() -> tuple:
    """Return the ellipsoid's mesh, graph, areas, noise and planted region."""
    surface = make_ellipsoid_mesh((28, 25, 50), vertices=600)
    areas = measure_vertex_areas(surface.vertices_mm, surface.faces)
    weight = weigh_direction(surface.vertices_mm, "posterior_inferior")
    return surface, link_vertices(surface.faces, areas), areas, SurfaceNoise(surface.vertices_mm, 12.0), weight


def see_mesh_cohorts(name: str, first: int, count: int, seed: int) -> list[Seen]:
    """Draw and test some of a plan's cohorts; cohort k depends on the seed, the plan and k
    alone."""
    plan = MESH_PLANS[name]
    surface, graph, areas, noise, weight = prepare_mesh()
    found = []
    for number in range(first, first + count):
        generator = np.random.default_rng([seed, number, *name.encode()])
        women = np.arange(plan.people) < plan.women
        age = np.where(women, 60, 50) + 12 * generator.standard_normal(plan.people)
        errors = noise.draw(plan.people, generator) * np.where(women, plan.women_sd, 1.0)[:, None]
        errors += plan.age_mm * (age[:, None] / 10) + plan.effect_mm * women[:, None] * weight
        ends = women & (generator.random(plan.people) < plan.cut)
        below = surface.vertices_mm[:, 2] < np.quantile(surface.vertices_mm[:, 2], 1 / 3)
        errors[np.ix_(ends, below)] = np.nan
        groups = pd.Series(pd.Categorical(np.where(women, "female", "male"), ["female", "male"]))
        covariates = pd.DataFrame({"age": age})
        design = design_groups(np.ones(plan.people, bool), groups, ("female", "male"), covariates, min_group=10)
        effect = infer_effect(
            errors[design.rows], design.tested, seed=int(generator.integers(2**31)), covariates=design.others,
            variance_groups=design.groups, mesh=graph, permutations=PERMUTATIONS,
        )  # fmt: skip
        seen: Seen = {
            "fwer": float((effect.p_fwer <= ALPHA).any()),
            "tfce": float((effect.p_tfce <= ALPHA).any()),
            "fdr": float((effect.p_fdr <= ALPHA).any()),
        }
        if plan.effect_mm:
            seen |= {
                "dice": overlap(effect.p_fwer <= ALPHA, weight >= 0.5, areas),
                "dice_tfce": overlap(effect.p_tfce <= ALPHA, weight >= 0.5, areas),
                "outside": float(((effect.p_fwer <= ALPHA) & (weight == 0)).any()),
            }
        found.append(seen)
    return found


def see_mask_study(name: str, number: int, seed: int, scale: float) -> list[Seen]:
    """Draw a study of masks and run stage 04 on it; one entry per model."""
    plan = MASK_PLANS[name][0]
    plan = MaskStudy(**(vars(plan) | {"models": max(1, round(scale * plan.models))}))
    own = int(np.random.default_rng([seed, number, *name.encode()]).integers(2**31))
    with tempfile.TemporaryDirectory() as folder:
        study = draw_mask_study(plan, Path(folder), own, PERMUTATIONS)
        result = map_errors(study)
    template = result.templates[ORGAN]
    found = []
    for model in study.parameters.models:
        rows = result.maps[(result.maps["model"] == model.name) & (result.maps["attribute"] == "sex")]
        slope = result.slope_summary[result.slope_summary["model"] == model.name]
        seen: Seen = {
            "fwer": float((rows["p_fwer"] <= ALPHA).any()),
            "tfce": float((rows["p_tfce"] <= ALPHA).any()),
            "slope": float(slope["min_p_fwer"].iloc[0] <= ALPHA),
        }
        if plan.erosion_mm:
            truth = weigh_direction(template.vertices_mm, plan.region) >= 0.5
            summary = result.summary[(result.summary["model"] == model.name) & (result.summary["attribute"] == "sex")]
            seen |= {
                "dice": overlap(rows["p_fwer"].to_numpy() <= ALPHA, truth, template.areas_mm2),
                "dice_tfce": overlap(rows["p_tfce"].to_numpy() <= ALPHA, truth, template.areas_mm2),
                "peak_mm": float(summary["peak_difference_mm"].iloc[0]),
            }
        found.append(seen)
    return found


def overlap(found: np.ndarray, truth: np.ndarray, areas: np.ndarray) -> float:
    """Return twice the common area over the sum of both."""
    total = areas[found].sum() + areas[truth].sum()
    return float(2 * areas[found & truth].sum() / total)


def calibrate(seed: int, scale: float, workers: int, runs: list[str] | None = None) -> dict[str, pd.DataFrame]:
    """Draw the cohorts of every run, or of some; one row per cohort (of masks: per model)."""
    jobs: list[tuple[str, Callable, tuple]] = []
    for name, (_, studies) in MASK_PLANS.items():
        jobs += [
            (name, see_mask_study, (name, number, seed, scale)) for number in range(max(1, round(scale * studies)))
        ]
    for name, plan in MESH_PLANS.items():
        count = max(2, round(scale * plan.cohorts))
        jobs += [
            (name, see_mesh_cohorts, (name, first, min(CHUNK, count - first), seed)) for first in range(0, count, CHUNK)
        ]
    jobs = [job for job in jobs if runs is None or job[0] in runs]
    results = run_jobs([(call, given) for _, call, given in jobs], workers)
    seen: dict[str, list[Seen]] = {}
    for (name, _, _), found in zip(jobs, results, strict=True):
        seen.setdefault(name, []).extend(found)
    return {name: pd.DataFrame(found) for name, found in seen.items()}


def judge(check: Check, values: pd.Series) -> tuple[str, float]:
    """Say whether a mean keeps its limit (yes, within Monte-Carlo error, NO), and its Monte-Carlo
    standard error."""
    error = float(values.std() / np.sqrt(max(len(values), 1))) if len(values) > 1 else np.nan
    if not (np.isfinite(check.low) or np.isfinite(check.high)):
        return "–", error
    mean = float(values.mean())
    if check.low <= mean <= check.high:
        return "yes", error
    if check.percent:  # a rate: the error it would have at the limit, which does not vanish when the rate does
        error = max(error, float(np.sqrt(check.high * (1 - check.high) / len(values))))
    distance = max(check.low - mean, mean - check.high)
    return ("within Monte-Carlo error" if distance <= BEYOND * error else "**NO**"), error


def write_report(
    found: dict[str, pd.DataFrame], seed: int, seconds: float, path: Path, scale: float = 1.0
) -> list[str]:
    """Write the tables as Markdown; return the lines whose limit is broken."""
    lines, broken = [], []
    for number, (title, text, checks) in enumerate(CHECKS, start=1):
        lines += [f"## {number}. {title}", "", text, ""]
        lines += ["| what | cohorts | estimate | Monte-Carlo s.e. | limit | kept |", "|---|---:|---:|---:|---|---|"]
        for check in (check for check in checks if check.run in found):
            values = found[check.run][check.seen].dropna()
            verdict, error = judge(check, values)
            said = f"{100 * error:.1f}" if check.percent else f"{error:.2g}"
            lines.append(
                f"| {check.text} | {len(values)} | {check.format(float(values.mean()))} | {said} | {check.limit} |"
                f" {verdict} |"
            )
            if verdict == "**NO**":
                broken.append(f"{title}: {check.text}: {check.format(float(values.mean()))}, limit {check.limit}")
        lines.append("")
    packages = ", ".join(f"{name} {version(name)}" for name in ("segfair", "numpy", "scipy", "SimpleITK"))
    share = "" if scale == 1 else f" with {100 * scale:g} % of the usual number of cohorts"
    kept = "every limit is kept" if not broken else f"{len(broken)} limits are broken"
    head = [
        "# Validity: the surface tests, tested",
        "",
        (
            "Cohorts whose truth is known are put through the tests of stage 04. How often does it see a difference"
            " where there is none, and does it find a planted one where it was planted? A limit counts as broken where"
            " it is missed by more than 2.6 Monte-Carlo standard errors; what has no limit is there for comparison."
            " Written by `make calibrate`, which fails where a limit is broken."
        ),
        "",
        (
            f"Made on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} in {seconds / 60:.0f} minutes{share}: {kept}. Seed"
            f" {seed}; {PERMUTATIONS} permutations. Python {platform.python_version()}, {packages}."
        ),
        "",
    ]
    write_text("\n".join([*head, *lines]).rstrip() + "\n", path)
    return broken


def list_numbers(found: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Return what reports quote, of clusters, by which places are told: false alarms from masks,
    and how much of a planted place is found (Dice)."""
    return {
        "false_alarms": round(float(max(found[run]["tfce"].mean() for run in NULL_MASKS)), 4),
        "overlap": round(float(min(found[run]["dice_tfce"].mean() for run in ERODED_MASKS)), 4),
    }


if __name__ == "__main__":
    run_command(__doc__.splitlines()[0], REPORT, calibrate, write_report, "spatial", list_numbers)
