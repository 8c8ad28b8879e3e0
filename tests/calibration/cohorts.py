"""Planted cohorts: people, organs and errors of known distribution, as the tables that the audit
reads.

Sizes are those of the organs of grown-ups; a surface is a shape factor times volume^(2/3). An
organ's boundary error is lognormal, with a share that a person's organs and models have in common,
plus what is planted for the person's group. Dice follows from it by 1 − δS/(2V), and a noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from helpers.cohort.grouping import group_attribute
from helpers.fairness.groups import POOLED
from helpers.metrics import convert_dice_to_boundary_error, predict_dice
from helpers.parameters import Attribute
from helpers.performance import add_expected_dice

ATTRIBUTES = {
    "sex": Attribute(categories=["female", "male"]),
    "age": Attribute(bins=[18, 45, 65, 120], labels=["young", "middle", "old"]),
    "bmi": Attribute(bins=[10, 25, 30, 90], labels=["lean", "middle", "heavy"]),
}
# Volume in ml and its log sd, surface in cm² per ml^(2/3), mean boundary error in mm.
ORGANS = {
    "liver": (1500.0, 0.16, 8.2, 1.6),
    "kidney": (155.0, 0.17, 6.6, 1.1),
    "spleen": (200.0, 0.28, 6.9, 1.2),
    "lung": (1650.0, 0.22, 7.5, 1.3),
    "aorta": (110.0, 0.20, 10.2, 0.9),
}
SURFACE_SD = 0.03  # log
DICE_NOISE = 0.004
POPULATION = 400_000


@dataclass(frozen=True)
class Plan:
    """What a cohort is drawn from.

    Attributes
    ----------
    subjects : int
    organs, models : tuple of str
    women_size : float
        Women's organ volumes, as a share of men's.
    correlation : float
        Of age and BMI.
    spread, shared : float
        Log sd of the boundary errors, and the part of their log variance that a person's organs and
        models share.
    distance_spread : float
        Log sd of HD95 around 2.5 times the boundary error.
    women_mm, old_mm : float
        Added to the boundary errors of women, of people of 65 and over.
    bmi_mm : float
        Added for every 10 kg/m² above 15.
    women_share : float
        Of women among all.
    women_spread : float
        Log sd of women's boundary errors, as a multiple of men's: the same mean, other variance and
        skewness.
    errors : float
        All boundary errors, as a multiple of the usual ones.
    dice_step : float
        Dice is rounded to whole multiples of it; 0: not at all.
    failures : float
        Share of the scans in which an organ is missed altogether: Dice 0.
    women_failures : float
        Share added to that of women's scans.
    missing : float
        Share of the scores that are missing, by chance.
    repeated : float
        Share of the people who have a second scan.
    alike : bool
        What a person's errors share, they share over organs and models; else over the organs of
        each model alone: several models are then as good as several cohorts, and cost less.
    sites : int
        People come from so many sites in equal numbers, each with patients of one sex; 0: from one.
    site_ages : float
        Intraclass correlation of age by site.
    site_share : float
        Intraclass correlation of sites: the part of the log variance that a site's people share, at
        most ``shared``.
    scanner : float
        Share of the women, and of the men, who were on the scanner of most of their sex; 0: there
        is one scanner.
    scanner_mm : float
        Added to the boundary errors of everybody on the women's scanner.
    """

    subjects: int
    organs: tuple[str, ...] = ("liver", "kidney")
    models: tuple[str, ...] = ("model",)
    women_size: float = 1.0
    correlation: float = 0.0
    spread: float = 0.4
    shared: float = 0.5
    distance_spread: float = 0.5
    women_mm: float = 0.0
    old_mm: float = 0.0
    bmi_mm: float = 0.0
    women_share: float = 0.5
    women_spread: float = 1.0
    errors: float = 1.0
    dice_step: float = 0.0
    failures: float = 0.0
    women_failures: float = 0.0
    missing: float = 0.0
    repeated: float = 0.0
    alike: bool = True
    sites: int = 0
    site_ages: float = 0.0
    site_share: float = 0.0
    scanner: float = 0.0
    scanner_mm: float = 0.0


Columns = Iterator[tuple[str, str, dict[str, np.ndarray]]]


def draw_people(plan: Plan, subjects: int, generator: np.random.Generator) -> pd.DataFrame:
    """Draw sex, age, BMI and modality: ages from 20 to 85, the cohort's groups attached."""
    first, second = generator.standard_normal((2, subjects))
    if plan.site_ages:
        common = generator.standard_normal(plan.sites)[np.arange(subjects) % plan.sites]
        first = np.sqrt(1 - plan.site_ages) * first + np.sqrt(plan.site_ages) * common
    mixed = plan.correlation * first + np.sqrt(1 - plan.correlation**2) * second
    people = pd.DataFrame(
        {
            "sex": np.where(generator.random(subjects) < plan.women_share, "female", "male"),
            "age": np.clip(54 + 15 * first, 20, 85),
            "bmi": np.clip(27 + 4.5 * mixed, 16, 45),
            "modality": np.where(generator.random(subjects) < 0.5, "CT", "MR"),
        }
    )
    if plan.sites:
        site = np.arange(subjects) % plan.sites
        people = people.assign(site=[f"site {number}" for number in site], sex=np.where(site % 2, "male", "female"))
    if plan.scanner:
        usual = generator.random(subjects) < plan.scanner
        people["scanner"] = np.where((people["sex"] == "female") == usual, "B", "A")
    groups = {f"group_{name}": group_attribute(people[name], name, kind) for name, kind in ATTRIBUTES.items()}
    return people.assign(**groups)


def draw_scores(
    plan: Plan, people: pd.DataFrame, generator: np.random.Generator, who: np.ndarray | None = None
) -> Columns:
    """Yield model, organ and the measures of every scan, one array each; ``who`` is the person of
    each scan, each person once by default."""
    who = np.arange(len(people)) if who is None else who
    women, old = (people["sex"] == "female").to_numpy(), (people["age"] >= 65).to_numpy()
    planted = plan.women_mm * women + plan.old_mm * old + plan.bmi_mm * (people["bmi"].to_numpy() - 15.0) / 10.0
    if plan.scanner:
        planted = planted + plan.scanner_mm * (people["scanner"] == "B").to_numpy()
    spread = plan.spread * np.where(women, plan.women_spread, 1.0)[who]
    persons = generator.standard_normal((len(plan.models), len(people)))[:, who]
    if plan.sites:
        share = plan.site_share / plan.shared
        common = generator.standard_normal((len(plan.models), plan.sites))[:, np.arange(len(people)) % plan.sites]
        persons = np.sqrt(1 - share) * persons + np.sqrt(share) * common[:, who]
    for organ in plan.organs:
        volume, volume_sd, shape, error_mm = ORGANS[organ]
        sizes = np.where(women, plan.women_size, 1.0) * np.exp(volume_sd * generator.standard_normal(len(people)))
        volumes = volume * sizes[who]
        surfaces = shape * volumes ** (2 / 3) * np.exp(SURFACE_SD * generator.standard_normal(len(people)))[who]
        for number, model in enumerate(plan.models):
            person = persons[0 if plan.alike else number]
            own = generator.standard_normal(len(who))
            log = spread * (np.sqrt(plan.shared) * person + np.sqrt(1 - plan.shared) * own)
            errors = plan.errors * (error_mm * np.exp(log - spread**2 / 2) + planted[who])
            dice = predict_dice(errors, volumes, surfaces) + DICE_NOISE * generator.standard_normal(len(who))
            if plan.dice_step:
                dice = plan.dice_step * np.round(dice / plan.dice_step)
            dice = np.clip(dice, 0.0, 1.0)
            if plan.failures or plan.women_failures:
                dice[generator.random(len(who)) < plan.failures + plan.women_failures * women[who]] = 0.0
            yield model, organ, {
                "dice": dice,
                "hd95_mm": 2.5 * errors * np.exp(plan.distance_spread * generator.standard_normal(len(who))),
                "boundary_error_mm": convert_dice_to_boundary_error(dice, volumes, surfaces),
                "volume_ref_ml": volumes,
                "surface_ref_cm2": surfaces,
            }  # fmt: skip


def draw_cohort(plan: Plan, generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw metrics.parquet and the included rows of cohort.parquet."""
    people = draw_people(plan, plan.subjects, generator)
    again = np.flatnonzero(generator.random(plan.subjects) < plan.repeated)
    who = np.concatenate([np.arange(plan.subjects), again])
    scans = [f"s{number:05d}" for number in range(len(who))]
    subjects = [f"p{number:05d}" for number in who]
    cohort = people.iloc[who].assign(subject=subjects, scan=scans, number=range(1, len(who) + 1)).reset_index(drop=True)
    parts = [
        pd.DataFrame({"subject": subjects, "scan": scans, "model": model, "organ": organ} | measures)
        for model, organ, measures in draw_scores(plan, people, generator, who)
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table[generator.random(len(table)) >= plan.missing].reset_index(drop=True)
    return add_expected_dice(table), cohort


Truth = dict[tuple[str, str, str, str], dict[str, float]]


def find_truth(plan: Plan, metrics: tuple[str, ...], attributes: tuple[str, ...], subjects: int = POPULATION) -> Truth:
    """Return the mean of each group in a population: by (model, organ, metric, attribute) and
    group.

    The metric ``excess`` is Dice less the Dice to be expected at the population's mean boundary
    error. ``all`` is the plain mean over organs: nobody lacks one. Its error is a fiftieth of that
    of a cohort of 200.
    """
    generator = np.random.default_rng(20240618)
    people = draw_people(plan, subjects, generator)
    codes = {name: people[f"group_{name}"].cat.codes.to_numpy() for name in attributes}
    groups = {name: people[f"group_{name}"].cat.categories for name in attributes}
    truth: Truth = {}
    for _, organ, measures in draw_scores(replace(plan, models=plan.models[:1]), people, generator):
        expected = predict_dice(
            measures["boundary_error_mm"].mean(), measures["volume_ref_ml"], measures["surface_ref_cm2"]
        )
        measures["excess"] = measures["dice"] - expected
        for metric in (*metrics, "excess"):
            for attribute in attributes:
                means = {
                    str(name): float(measures[metric][codes[attribute] == code].mean())
                    for code, name in enumerate(groups[attribute])
                }
                # All models are drawn from the same distribution.
                truth |= {(model, organ, metric, attribute): means for model in plan.models}
    if len(plan.organs) > 1:
        for model in plan.models:
            for metric in (*metrics, "excess"):
                for attribute in attributes:
                    parts = [truth[model, organ, metric, attribute] for organ in plan.organs]
                    truth[model, POOLED, metric, attribute] = {
                        name: float(np.mean([part[name] for part in parts])) for name in parts[0]
                    }
    return truth
