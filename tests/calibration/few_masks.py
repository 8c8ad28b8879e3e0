"""Few masks, many scans: how often prediction-powered intervals hold the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.fairness import compare_few_masks
from helpers.parameters import Fairness
from helpers.statistics.bootstrap import make_generator
from tests.calibration.questions import ALPHA, DRAWS, Check, Question, Seen

MODELS = 40  # cohorts of the same people, whose scores and proxies have nothing to do with each other
GAP, SPREAD = 0.02, 0.04


@dataclass(frozen=True)
class FewMasksRun:
    """Many cohorts of two groups alike in size, of whom few have a mask."""

    masks: int  # per group
    others: int
    noise: float  # of the proxy about the score; at infinity the proxy is all noise
    bias: float = 0.0  # of the proxy in the worse group
    skewed: bool = False
    chosen: bool = False  # whether the people with masks are the best of their group
    cohorts: int = 25  # times MODELS


def draw_few_masks(run: FewMasksRun, generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Draw metrics, people and who has a mask, bool, (people, models); the true gap is GAP."""
    number = 2 * (run.masks + run.others)
    women = np.arange(number) % 2 == 0
    shape = (number, MODELS)
    error = (1.0 - generator.gamma(1.0, size=shape)) if run.skewed else generator.standard_normal(shape)
    scores = 0.85 - GAP * women[:, None] + SPREAD * error
    noise = generator.standard_normal(shape)
    proxy = 0.9 + SPREAD * noise if np.isinf(run.noise) else scores + run.noise * noise
    proxy = proxy + run.bias * women[:, None]
    masked = np.zeros(shape, bool)
    for group in (women, ~women):
        places = np.flatnonzero(group)
        first = np.argsort(-scores[places], axis=0) if run.chosen else np.arange(len(places))[:, None]
        for model in range(MODELS):
            masked[places[np.broadcast_to(first, (len(places), MODELS))[: run.masks, model]], model] = True
    names = [f"p{place:04d}" for place in range(number)]
    people = pd.DataFrame({"subject": names, "scan": names, "number": np.arange(number) + 1})
    people["group_sex"] = pd.Categorical(np.where(women, "female", "male"), ["female", "male"])
    rows = [
        people[["subject", "scan", "number"]].assign(
            model=f"m{model:02d}",
            organ="liver",
            dice=np.where(masked[:, model], scores[:, model], np.nan),
            dice_proxy=proxy[:, model],
        )
        for model in range(MODELS)
    ]
    return pd.concat(rows, ignore_index=True), people, masked


def see_few_masks_cohort(name: str, number: int, seed: int) -> list[Seen]:
    """Draw and compare MODELS cohorts; they depend on the seed, the run and the number alone."""
    run = list_few_masks_runs()[name]
    generator = make_generator(seed, f"{run} {number}")
    metrics, people, _ = draw_few_masks(run, generator)
    # Each cohort is a study of its own: nothing is adjusted for the others.
    seen = []
    settings = Fairness(metrics=["dice"], bootstrap=DRAWS, margin={"dice": 0.02})
    for model, part in metrics.groupby("model", sort=False):
        if run.chosen and model != "m00":
            continue
        seen.append(_see(part, people, settings, int(generator.integers(2**31))))
    return seen


def _see(metrics: pd.DataFrame, people: pd.DataFrame, settings: Fairness, seed: int) -> Seen:
    found = compare_few_masks(metrics, people, settings, ["sex"], seed)
    [row] = found.gaps.to_dict("records")
    truth = GAP if row["worst_group"] == "female" else -GAP
    means = found.means.set_index("group")
    return {
        "covered": float(row["gap_low"] <= truth <= row["gap_high"]),
        "mean covered": float(means.loc["male", "ci_low"] <= 0.85 <= means.loc["male", "ci_high"]),
        "width": (row["gap_high"] - row["gap_low"]) / (row["gap_masked_high"] - row["gap_masked_low"]),
        "worth": means.loc["male", "worth"] / means.loc["male", "masks"],
        "refused": float((found.randomness["p_adjusted"] <= ALPHA).any()),
    }


def list_few_masks_runs() -> dict[str, FewMasksRun]:
    """Return the runs by name."""
    return {
        "few good": FewMasksRun(20, 180, 0.015),
        "few useless": FewMasksRun(20, 180, np.inf),
        "few biased": FewMasksRun(20, 180, 0.015, bias=-0.1),
        "few ten": FewMasksRun(10, 190, 0.015),
        "few skewed": FewMasksRun(30, 270, 0.015, skewed=True),
        "few chosen": FewMasksRun(20, 180, 0.015, chosen=True, cohorts=60),
    }


def list_few_masks_questions() -> list[Question]:
    """Return the question put to few masks, with its limits."""
    texts = {
        "few good": "20 masks and 180 proxies per group, proxy correlates at 0.94",
        "few useless": "the same, the proxy is noise",
        "few biased": "the same good proxy, 0.1 too low in women",
        "few ten": "10 masks and 190 good proxies per group",
        "few skewed": "30 masks and 270 good proxies per group, very skewed scores",
    }
    checks = []
    for run, text in texts.items():
        checks += [
            Check(run, "covered", f"{text}: interval of the gap holds the truth", 0.93, 0.97),
            Check(run, "mean covered", f"{text}: interval of a group's mean holds the truth", 0.93, 0.97),
            Check(run, "refused", f"{text}: masks said to be no random part", high=ALPHA),
            Check(run, "width", f"for comparison: {text}: width of the gap's interval, of that of masks alone"),
            Check(run, "worth", f"for comparison: {text}: masks it is worth, per mask", percent=False),
        ]
    checks.append(
        Check("few chosen", "refused", "masks of each group's best 20 of 200: said to be no random part", low=0.95)
    )
    return [
        Question(
            "Few masks and a proxy of everybody",
            "Dice of one organ in two groups of people, a true gap of 0.02. Masks are of a random part of each group"
            " but in the last line; everybody has a proxy.",
            checks,
        )
    ]
