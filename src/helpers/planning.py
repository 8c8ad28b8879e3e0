"""How large a study must be: tables and a curve, from a pilot study or a stated spread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.io as pio

from helpers import fairness, storage
from helpers.errors import SegfairError
from helpers.figures.plan import plot_plan
from helpers.figures.style import CONFIG
from helpers.parameters import Fairness, RelativeMargin
from helpers.study import find_study
from helpers.vocabulary.measures import find_measure, use_measures
from helpers.vocabulary.words import count, format_value, name_organ

_SHOWN = 12  # comparisons told on the terminal; all are in the table
_QUESTIONS = {"difference": "find a difference of {}", "equivalence": "show that no difference exceeds {}"}


@dataclass(frozen=True)
class Wanted:
    """What is asked of a study that is planned."""

    metric: str = "dice"
    margin: float | None = None  # in the metric's unit; None: the pilot's, else the measure's own
    alpha: float = 0.05
    power: float = 0.8
    tests: int = 1  # differences tested together
    proxy: float | None = None  # correlation with the score, within a group


def write_plan(pilot: Path | None, sd: float | None, wanted: Wanted) -> tuple[list[str], Path]:
    """Write ``plan.csv``, ``plan_masks.csv`` and ``plan.html``; return sentences and the folder.

    With a pilot whose 03_performance has run (:func:`helpers.fairness.plan_from_pilot`) they go to
    ``plan`` in its folder; without one, `sd` is the standard deviation within a group and they go
    to ``plan`` in the working directory.

    Raises a SegfairError: neither a pilot nor a spread is given, or both; a number is impossible;
    the pilot cannot tell.
    """
    if (pilot is None) == (sd is None):
        raise SegfairError("give a pilot study, or --sd with the spread within a group")
    if wanted.proxy is not None and not -1 < wanted.proxy < 1:
        raise SegfairError(f"--proxy is a correlation, between −1 and 1; got {wanted.proxy:g}")
    if wanted.tests < 1:
        raise SegfairError(f"--tests counts tests, from 1 up; got {wanted.tests}")
    study = None if pilot is None else find_study(pilot)
    base = Fairness() if study is None else study.parameters.fairness
    with use_measures(base.measures):
        margin: float | RelativeMargin | None = wanted.margin
        if margin is None:
            margin = base.margin.get(wanted.metric) or find_measure(wanted.metric).default_margin
        absolute = None if isinstance(margin, RelativeMargin) else margin
        if margin is None or (absolute is not None and absolute <= 0):
            raise SegfairError(f"{wanted.metric} has no margin: give --margin, above 0")
        settings = base.model_copy(
            update={
                "metrics": [wanted.metric],
                "margin": {wanted.metric: margin},
                "alpha": wanted.alpha,
                "power": wanted.power,
            }
        )
        if study is None:
            spread = sd or 0.0
            table = fairness.plan_groups((spread, spread), absolute or 0.0, settings, tests=wanted.tests)
            folder = Path("plan")
        else:
            metrics = study.read("metrics")
            if wanted.metric not in metrics:
                raise SegfairError(f"{pilot}: has no {wanted.metric}: choose --metric among its measures")
            table = fairness.plan_from_pilot(
                metrics,
                study.read_included(),
                settings,
                list(study.parameters.cohort.attributes),
                wanted.metric,
                study.seed_for("plan"),
                tests=wanted.tests,
            )
            folder = study.folder / "plan"
        if table.empty:
            raise SegfairError(f"{pilot}: no two groups are large enough and vary: state a spread by --sd")
        masks = fairness.plan_masks(table, *([[wanted.proxy]] if wanted.proxy is not None else []))
        storage.write_table(table, folder / "plan.csv")
        storage.write_table(masks, folder / "plan_masks.csv")
        page = pio.to_html(
            plot_plan(_find_hardest(table), wanted.metric), config=CONFIG, include_plotlyjs=True, include_mathjax=False
        )
        storage.write_text(page, folder / "plan.html")
        return [*_describe(table, wanted.metric), *_describe_masks(masks)], folder


def _find_hardest(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the comparison that needs most people: it is the curve's."""
    if "model" not in table:
        return table
    keys = ["model", "organ", "attribute"]
    hardest = table.loc[table["people_per_group"].astype(float).fillna(float("inf")).idxmax(), keys]
    return table[(table[keys] == hardest).all(axis=1)]


def _describe(table: pd.DataFrame, metric: str) -> list[str]:
    ordered = table.sort_values("people_per_group", ascending=False, na_position="first", kind="stable")
    lines = []
    for row in ordered.head(_SHOWN).to_dict("records"):
        whose = f"{row['model']}, {name_organ(row['organ'])}, {row['attribute']}: " if "model" in row else ""
        needed = row["people_per_group"]
        number = "more than a million people" if pd.isna(needed) else count(int(needed), "person", "people")
        line = (
            f"{whose}to {_QUESTIONS[row['question']].format(format_value(row['margin'], metric))}: {number} per group"
        )
        if not pd.isna(row.get("people_resampled", pd.NA)):
            line += f"; {row['people_resampled']} by resampling the pilot, whose scores are far from normal"
        lines.append(line)
    if len(ordered) > _SHOWN:
        lines.append(f"{len(ordered) - _SHOWN} more, which need no more people than these, are in plan.csv")
    return lines


def _describe_masks(masks: pd.DataFrame) -> list[str]:
    if masks.empty:
        return []
    hardest = masks["people_per_group"].idxmax()
    row = masks.loc[hardest]
    return [
        f"with a proxy that correlates at {row['correlation']:g} with the score, {row['masks_per_group']} masks among "
        f"{row['people_per_group']} people per group are enough (plan_masks.csv has the rest)"
    ]
