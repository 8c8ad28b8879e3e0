"""Audit the audit: planted cohorts with a known truth through ``helpers.fairness.run_audit``, and
how often it is right.

``python -m tests.calibration.calibrate_fairness`` writes docs/validity.md and exits with 1 where a
limit is broken beyond Monte-Carlo error. ``--scale 0.1`` draws a tenth of the cohorts, ``--seed``
other ones. The same code with few cohorts is tests/test_calibration.py.
"""

from __future__ import annotations

import datetime
import platform
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.fairness import run_audit
from helpers.statistics.bootstrap import make_generator
from helpers.storage import write_text
from tests.calibration.cohorts import Truth, draw_cohort, find_truth
from tests.calibration.failures import list_failure_questions, list_failure_runs
from tests.calibration.few_masks import list_few_masks_questions, list_few_masks_runs, see_few_masks_cohort
from tests.calibration.masks import list_mask_questions, list_mask_runs, see_mask_cohort
from tests.calibration.questions import (
    ALL_METRICS,
    DRAWS,
    EXTREME,
    FAILURES,
    PERMUTATIONS,
    SETTINGS,
    Check,
    Question,
    Run,
    Seen,
    list_questions,
    list_runs,
)
from tests.calibration.real_scores import list_real_questions, list_real_runs, see_dealt_labels
from tests.calibration.running import BEYOND, Job, run_command, run_jobs

REPORT = Path(__file__).resolve().parents[2] / "docs" / "validity.md"
CHUNK = 10


@dataclass(frozen=True)
class Estimate:
    """A mean over cohorts: number of cohorts with a value, the mean, and its Monte-Carlo standard
    error."""

    cohorts: int
    mean: float
    error: float


@lru_cache(maxsize=32)
def list_all_runs() -> dict[str, Run]:
    """Return the runs, made once per process."""
    return list_runs() | list_failure_runs()


def run_cohorts(name: str, truth: Truth, first: int, count: int, seed: int) -> list[Seen]:
    """Draw and audit some of a run's cohorts; cohort k depends on the seed, the plan and k
    alone."""
    warnings.simplefilter("error")
    run = list_all_runs()[name]
    found = []
    for number in range(first, first + count):
        generator = make_generator(seed, f"{run.plan} {number}")
        metrics, cohort = draw_cohort(run.plan, generator)
        # Without an attribute's own numbers no trends are fitted: they are not looked at, and take
        # longest.
        if not run.numbers:
            cohort = cohort.drop(columns=[name for name in run.attributes if name != "sex"])
        audited = run_audit(
            metrics,
            cohort,
            run.settings,
            list(run.attributes),
            int(generator.integers(2**31)),
            confounders=run.confounders,
            cluster=run.cluster,
            ordered=[name for name in run.attributes if name != "sex"],
            # Rows over all models have no truth of their own to be held against.
            pooled_models=None if run.pooled else [],
        )
        found.append(run.observe(audited, truth))
    return found


def summarise(seen: list[Seen]) -> dict[str, Estimate]:
    """Average what was looked at over cohorts. What is seen as a unit ("unit x") divides the rest
    by its spread."""
    table = pd.DataFrame(seen)
    for name in [column for column in table if column.startswith("unit ")]:
        spread = table.pop(name).std()
        numbers = [column for column in table if column != "covered"]
        table[numbers] = table[numbers] / spread
    return {
        name: Estimate(int(column.count()), float(column.mean()), float(column.std() / np.sqrt(max(column.count(), 1))))
        for name, column in table.items()
    }


def calibrate(seed: int, scale: float, workers: int, runs: list[str] | None = None) -> dict[str, dict[str, Estimate]]:
    """Run the cohorts of every run, or of some, and average.

    Parameters
    ----------
    seed : int
    scale : float
        Share of the cohorts of the full calibration; at least two are drawn.
    workers : int
        Processes; 0 runs in this one. Results do not depend on it.
    runs : list of str, optional
        Names of the runs on metrics tables and on masks; all by default.

    Returns
    -------
    dict of dict of Estimate
        By run and by what was looked at.
    """
    chosen = {name: run for name, run in list_all_runs().items() if runs is None or name in runs}
    numbered = [(see_mask_cohort, {name: run.cohorts for name, run in list_mask_runs().items()})]
    numbered += [(see_few_masks_cohort, {name: run.cohorts for name, run in list_few_masks_runs().items()})]
    numbered += [(see_dealt_labels, list_real_runs())]
    jobs: list[Job] = [
        (see, (name, number, seed))
        for see, cohorts in numbered
        for name, count in cohorts.items()
        if runs is None or name in runs
        for number in range(max(2, round(scale * count)))
    ]
    for name, run in chosen.items():
        truth = find_truth(run.plan, run.metrics, run.attributes)
        count = max(2, round(scale * run.cohorts))
        jobs += [
            (run_cohorts, (name, truth, first, min(CHUNK, count - first), seed)) for first in range(0, count, CHUNK)
        ]
    results = run_jobs(jobs, workers)
    seen: dict[str, list[Seen]] = {}
    for (_, given), found in zip(jobs, results, strict=True):
        seen.setdefault(given[0], []).extend(found)
    return {name: summarise(found) for name, found in seen.items()}


def judge(check: Check, estimate: Estimate) -> str:
    """Say whether an estimate keeps its limit: yes, within Monte-Carlo error, or NO."""
    if not (np.isfinite(check.low) or np.isfinite(check.high)):
        return "–"
    if check.low <= estimate.mean <= check.high:
        return "yes"
    distance = max(check.low - estimate.mean, estimate.mean - check.high)  # NaN where nothing was seen: not kept
    error = estimate.error
    if check.percent and error == 0:  # all cohorts agree: the error that a rate would have at the limit
        limit = min((check.low, check.high), key=lambda limit: abs(limit - estimate.mean))
        error = np.sqrt(limit * (1 - limit) / estimate.cohorts)
    return "within Monte-Carlo error" if distance <= BEYOND * error else "**NO**"


def write_report(
    questions: list[Question],
    found: dict[str, dict[str, Estimate]],
    seed: int,
    seconds: float,
    path: Path,
    scale: float = 1.0,
) -> list[str]:
    """Write the tables as Markdown; return the lines whose limit is broken. ``scale`` is the share
    of the full number of cohorts."""
    lines, broken = [], []
    for number, question in enumerate(questions, start=1):
        lines += [f"## {number}. {question.title}", "", question.text, ""]
        lines += ["| what | cohorts | estimate | Monte-Carlo s.e. | limit | kept |", "|---|---:|---:|---:|---|---|"]
        for check in (check for check in question.checks if check.run in found):
            estimate = found[check.run][check.seen]
            verdict = judge(check, estimate)
            error = f"{100 * estimate.error:.1f}" if check.percent else f"{estimate.error:.2g}"
            lines.append(
                f"| {check.text} | {estimate.cohorts} | {check.format(estimate.mean)} | {error} | {check.limit} |"
                f" {verdict} |"
            )
            if verdict == "**NO**":
                broken.append(f"{question.title}: {check.text}: {check.format(estimate.mean)}, limit {check.limit}")
        lines.append("")
    share = "" if scale == 1 else f" with {100 * scale:g} % of the usual number of cohorts"
    packages = ", ".join(f"{name} {version(name)}" for name in ("segfair", "numpy", "scipy", "pandas"))
    many = "1 limit is broken" if len(broken) == 1 else f"{len(broken)} limits are broken"
    kept = many if broken else "every limit is kept"
    spatial = path.with_name("validity_spatial.md")
    also = f" Maps on surfaces are audited in [{spatial.name}]({spatial.name})." if spatial.exists() else ""
    head = [
        "# Validity: the audit, audited",
        "",
        "Cohorts are drawn whose truth is known, and put through the same `helpers.fairness.run_audit` that a study is"
        " put through. The tables say how often it raises a false alarm, how often its intervals hold the truth, what"
        " it finds and what it misses. A limit counts as broken where it is missed by more than 2.6 Monte-Carlo"
        " standard errors; what has no limit is there for comparison. Most cohorts (all but those of 1, 5 and the last)"
        " hold six models whose errors have nothing to do with each other. Written by `make calibrate`, which fails"
        " where a limit is broken." + also,
        "",
        (
            f"Made on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} in {seconds / 60:.0f} minutes{share}: {kept}. Seed"
            f" {seed}; {DRAWS} bootstrap draws where intervals are looked at, {PERMUTATIONS} permutations. Python"
            f" {platform.python_version()}, {packages}."
        ),
        "",
    ]
    write_text("\n".join([*head, *lines]).rstrip() + "\n", path)
    return broken


def write_tables(
    found: dict[str, dict[str, Estimate]], seed: int, seconds: float, path: Path, scale: float
) -> list[str]:
    """Write every question's table; return the lines whose limit is broken."""
    questions = [*list_questions(), *list_mask_questions(), *list_failure_questions(), *list_few_masks_questions()]
    questions += list_real_questions()
    return write_report(questions, found, seed, seconds, path, scale)


def list_numbers(found: dict[str, dict[str, Estimate]]) -> dict[str, float]:
    """Return what reports quote: false alarms, the coverage of intervals of gaps from lowest to
    highest, wrong "equivalent" verdicts."""
    covered = [
        found[f"coverage {name}"][seen].mean
        for name in SETTINGS
        if name not in (*EXTREME, *FAILURES)
        for seen in (*(f"{kind} {metric}" for kind in ("gap", "adjusted") for metric in ALL_METRICS), "excess dice")
    ]
    wrong = [found[run]["inside"].mean for run in ("margin", "margin skewed", "margin three")]
    return {
        "false_alarms": round(found["null"]["any verdict"].mean, 4),
        "covered_least": round(min(covered), 4),
        "covered_most": round(max(covered), 4),
        "wrong_equivalent": round(max(wrong), 4),
    }


if __name__ == "__main__":
    run_command(__doc__.splitlines()[0], REPORT, calibrate, write_tables, "fairness", list_numbers)
