"""Failures that nobody happened to have: the questions put to the audit about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from helpers.fairness import Audit
from helpers.vocabulary.verdicts import Verdict
from tests.calibration.cohorts import Plan, Truth
from tests.calibration.questions import ALPHA, MANY, Check, Question, Run, Seen, find_true_gaps, lies_in

# Women, men, the share of failures among women and among men.
EQUAL = ((15, 300, 0.05), (15, 300, 0.02), (15, 300, 0.10), (30, 300, 0.05), (50, 300, 0.02), (15, 45, 0.05))
ALONE = ((15, 300, 0.05), (30, 300, 0.03), (50, 300, 0.03), (100, 300, 0.03), (200, 300, 0.025), (300, 300, 0.025))
NOBODY = ((30, 30), (100, 100), (200, 200), (400, 400))
MOST = 0.07  # of intervals that may leave out 0
EXPLAINED = ((15, 300, 0.05), (30, 300, 0.05))
GAPS = {
    "adjusted": "adjusted gap (age and BMI held equal)",
    "adjusted test": "test of the adjusted groups at 0.05",
    "excess": "gap beyond what organ size explains",
    "matched": "gap among matched people",
    "against": "women against everybody else",
    "models": "difference of two models' gaps",
}


def _plan(women: int, men: int, failing_women: float, failing_men: float) -> Plan:
    people = women + men
    return Plan(
        people, ("liver",), MANY, alike=False, women_share=women / people, failures=failing_men,
        women_failures=failing_women - failing_men,
    )  # fmt: skip


def see_failures(audit: Audit, truth: Truth) -> Seen:
    """Return how often the gap's interval leaves out 0 and the truth, and what the verdicts are."""
    rows = audit.disparity[audit.disparity["gap"].notna()]
    if rows.empty:  # too few women in this cohort
        return dict.fromkeys(("leaves out", "misses", "Welch leaves out", "inside", "equivalent", "disparity"), np.nan)
    shown = audit.groups[~audit.groups["suppressed"]]
    welch = [
        stats.ttest_ind_from_stats(*part[["mean", "sd", "n"]].to_numpy(float).ravel(), equal_var=False).pvalue
        for _, part in shown.groupby("model")
        if len(part) == 2
    ]
    gaps = find_true_gaps(rows, truth)
    return {
        "leaves out": 1.0 - lies_in(rows["gap_low"], rows["gap_high"], 0.0),
        "misses": 1.0 - lies_in(rows["gap_low"], rows["gap_high"], gaps),
        "Welch leaves out": float(np.mean(np.array(welch) < ALPHA)) if welch else np.nan,
        "inside": float(rows["verdict"].isin([Verdict.EQUIVALENT, Verdict.NEGLIGIBLE]).mean()),
        "equivalent": float((rows["verdict"] == Verdict.EQUIVALENT).mean()),
        "disparity": float((rows["verdict"] == Verdict.DISPARITY).mean()),
    }


def see_explained_failures(audit: Audit, truth: Truth) -> Seen:
    """Return how often the intervals of what else is compared leave out 0."""
    rows, models = audit.disparity[audit.disparity["gap"].notna()], audit.model_gaps
    if rows.empty:
        return dict.fromkeys(GAPS, np.nan)
    ends = {name: (rows[f"{name}_low"], rows[f"{name}_high"]) for name in ("adjusted", "excess")}
    parts = {"matched": audit.matching, "against": audit.contrasts, "models": models}
    ends |= {name: (table["low"].astype(float), table["high"].astype(float)) for name, table in parts.items()}
    seen = {name: 1.0 - lies_in(low, high, 0.0) for name, (low, high) in ends.items()}
    return seen | {"adjusted test": float((rows["adjusted_p"] <= ALPHA).mean())}


def list_failure_runs() -> dict[str, Run]:
    """Return the runs by name."""
    run = Run(Plan(1), see_failures, 350, ("dice",), draws=500)
    plans = {f"fail {women} {men} {share}": _plan(women, men, share, share) for women, men, share in EQUAL}
    plans |= {f"alone {women} {men} {share}": _plan(women, men, share, 0.0) for women, men, share in ALONE}
    plans |= {f"nobody {women} {men}": _plan(women, men, 0.0, 0.0) for women, men in NOBODY}
    plans["fail three"] = Plan(60, ("liver",), MANY, alike=False, failures=0.05)
    runs = {name: replace(run, plan=plan) for name, plan in plans.items()}
    plans = {f"explained {women} {men} {share}": _plan(women, men, share, share) for women, men, share in EXPLAINED}
    explained = Run(Plan(1), see_explained_failures, 200, ("dice",), confounders=("age", "bmi"), draws=500)
    runs |= {name: replace(explained, plan=plan) for name, plan in plans.items()}
    runs["fail three"] = replace(runs["fail three"], attributes=("age",))
    return runs


def list_failure_questions() -> list[Question]:
    """Return the questions with their limits."""
    checks = []
    for women, men, share in EQUAL:
        run, who = f"fail {women} {men} {share}", f"about {women} women and {men} men, {100 * share:g} % of both fail"
        checks += [
            Check(run, "leaves out", f"{who}: interval of the gap leaves out 0", high=MOST),
            Check(run, "disparity", f'{who}: verdict "disparity"', high=ALPHA),
            Check(run, "Welch leaves out", f"{who}: for comparison: Welch's interval leaves out 0"),
        ]
    who = "16, 30 and 14 people, 5 % of each fail"
    checks.append(Check("fail three", "leaves out", f"{who}: interval of the gap leaves out 0", high=MOST))
    for women, men, share in ALONE:
        run, who = f"alone {women} {men} {share}", f"about {women} women and {men} men"
        who += f", {100 * share:g} % of women alone fail"
        checks.append(Check(run, "inside", f'{who}: said to be "equivalent" or "negligible"', high=ALPHA))
    for women, men, share in EXPLAINED:
        run, who = f"explained {women} {men} {share}", f"about {women} women and {men} men, {100 * share:g} % of both"
        checks += [
            Check(run, seen, f"{who} fail: {text}{'' if 'test' in seen else ': interval leaves out 0'}", high=MOST)
            for seen, text in GAPS.items()
        ]
    for women, men in NOBODY:
        run, who = f"nobody {women} {men}", f"about {women} women and {men} men, nobody fails"
        checks += [
            Check(run, "leaves out", f"{who}: interval of the gap leaves out 0", high=ALPHA),
            Check(run, "equivalent", f'for comparison: {who}: said to be "equivalent"'),
        ]
    return [
        Question(
            "Failures that nobody happened to have",
            "Dice of one organ; a failure has a Dice of 0, and the margin is 0.02. Where women and men fail alike there"
            " is no true gap, yet of 15 women none may have failed. Where women alone fail, the true gap is beyond the"
            " margin. The price: where nobody fails, fewer than about 200 people per group are not shown to be"
            " equivalent.",
            checks,
        )
    ]
