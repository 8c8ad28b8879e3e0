"""How far a study is: done, at work, failed or left, from its output folder alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import provenance
from helpers.parameters import SCORES
from helpers.running import Running, read_running
from helpers.schema import STAGES, TABLES
from helpers.storage import read_table
from helpers.study import find_study
from helpers.vocabulary.verdicts import Verdict
from helpers.vocabulary.words import count

DONE, RUNNING, ENDED, STOPPED, NOT_RUN, IDLE = (
    "done", "running", "ended half-way", "stopped with an error", "not run", "nothing to do",
)  # fmt: skip
_MASK_STAGES = ("02_inference", "03_performance")  # where a scan that fails is a failure of the run


@dataclass(frozen=True)
class StageStatus:
    """One stage: what became of it, or how far it is."""

    stage: str
    status: str
    seconds: float | None = None  # of the last whole run; while it runs, since it began
    former_seconds: float | None = None  # while it runs: of the run before
    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # why, by what


@dataclass(frozen=True)
class StudyStatus:
    """A study as its folder shows it."""

    study: str
    folder: str
    running: Running | None
    stages: list[StageStatus]
    failed: list[str]  # a sentence for each model or stage of which scans failed
    disparities: int | None  # comparisons with this verdict; None before 03_performance


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: its exit code, and what is to be told beside the stages."""

    status: StudyStatus
    exit_code: int
    told: list[str]
    stopped: bool = False  # whether a stage did

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"exit_code": self.exit_code, "told": self.told, **asdict(self.status)}


def find_folder(place: Path) -> Path:
    """Return the output folder of a parameter file, or the folder itself.

    Raises a SegfairError: it is neither.
    """
    begun = place / ".lock"  # a run that has not come to its first stage, or an old one
    return place.resolve() if begun.exists() else find_study(place).folder


def read_status(folder: Path) -> StudyStatus:
    """Read how far the study of an output folder is."""
    run, running = provenance.read_run(folder), read_running(folder)
    records = run.get("stages") or {}
    has_masks = run.get("parameters", {}).get("cohort", {}).get("source") != SCORES
    stages = [_read_stage(folder, stage, records.get(stage), running, has_masks=has_masks) for stage in STAGES]
    return StudyStatus(
        study=folder.name,
        folder=str(folder),
        running=running,
        stages=stages,
        failed=_list_failed(folder, stages) if has_masks else [],
        disparities=_count_disparities(folder)
        if records.get("03_performance", {}).get("status") == "finished"
        else None,
    )


def describe_status(status: StudyStatus) -> list[str]:
    """Say how far a study is: who is at work, then a line per stage."""
    lines = []
    if status.running is not None:
        lines.append(f"{status.study}: at work: {status.running}; {describe_work(status.running)}")
    return lines + describe_stages(status.stages)


def describe_stages(stages: Sequence[StageStatus]) -> list[str]:
    """Return one line per stage: what became of it, its time and its counts."""
    width = max(len(stage) for stage in STAGES)
    lines = []
    for one in stages:
        told = [one.status]
        if one.seconds is not None:
            told[0] += f" {'for' if one.status == RUNNING else 'in'} {describe_seconds(one.seconds)}"
        if one.status == RUNNING and one.former_seconds is not None:
            left = max(0.0, one.former_seconds - (one.seconds or 0.0))
            told.append(f"about {describe_seconds(left)} left, by the run before")
        told += [f"{number} {what.removesuffix('s') if number == 1 else what}" for what, number in one.counts.items()]
        lines.append(f"{one.stage:<{width}}  {', '.join(told)}")
    return lines


def describe_work(running: Running) -> str:
    """Say what a running process does: its stage, and how far its step is."""
    if running.progress is None:
        return running.stage or "about to begin"
    step = running.progress
    left = f", about {step.left} left" if step.left else ""
    return f"{running.stage}, {step.step}: {step.done} of {step.total}{left}"


def describe_seconds(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def conclude_run(folder: Path, stages: Sequence[str], *, stopped: str = "", fail_on: str | None = None) -> RunEnd:
    """Return how a run of `stages` ended.

    `stages` were to be run; `stopped` says why the run did not reach its end; `fail_on` is
    "disparity" where one counts as a failure.
    """
    status = read_status(folder)
    if stopped:
        return RunEnd(status, 1, [stopped], stopped=True)
    failed = [told for told in status.failed if stages[-1] >= _MASK_STAGES[0]]
    if fail_on == Verdict.DISPARITY and status.disparities:
        found = count(status.disparities, "comparison")
        return RunEnd(status, 4, [*failed, f"a disparity was found in {found}: see fairness/disparity.csv"])
    return RunEnd(status, 3 if failed else 0, failed)


def _read_stage(
    folder: Path, stage: str, record: dict[str, Any] | None, running: Running | None, *, has_masks: bool
) -> StageStatus:
    if not has_masks and STAGES[stage].of_masks:
        return StageStatus(stage, IDLE)
    if record is None:
        return StageStatus(stage, NOT_RUN)
    if record.get("status") == "running":
        alive = running is not None and running.stage == stage
        began = datetime.fromisoformat(record["started_at"])
        seconds = (datetime.now(UTC) - began).total_seconds() if alive else None
        return StageStatus(stage, RUNNING if alive else ENDED, seconds, record.get("former_seconds"))
    failures = record.get("failures") or {}
    if record.get("status") != "finished":
        return StageStatus(stage, STOPPED, record.get("seconds"), failures=failures)
    return StageStatus(stage, DONE, record.get("seconds"), None, _count(folder, stage, failures), failures)


def _count(folder: Path, stage: str, failures: dict[str, str]) -> dict[str, int]:
    """Count what a finished stage worked on, by the words that say it."""
    counts: dict[str, int] = {}
    if stage == "01_cohort" and (cohort := _read(folder / TABLES["cohort"].path, ["included"])) is not None:
        counts = {"scans": int(cohort["included"].sum()), "left out": int((~cohort["included"]).sum())}
    elif stage == "02_inference":
        tables = [
            _read(path, ["status"]) for path in sorted(folder.glob(TABLES["inference"].path.replace("<model>", "*")))
        ]
        found = [table["status"] for table in tables if table is not None]
        counts = {"masks": sum(int((statuses == "ok").sum()) for statuses in found), "failed": len(failures)}
    elif stage != "05_report":
        counts = {"failed" if stage in _MASK_STAGES else "left out": len(failures)}
    return {what: number for what, number in counts.items() if number}


def _read(path: Path, columns: list[str]) -> pd.DataFrame | None:
    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError, KeyError):
        return None


def _list_failed(folder: Path, stages: Sequence[StageStatus]) -> list[str]:
    """Say of each model how many scans it failed on, and why; then what 03 could not compare."""
    failures = {one.stage: one.failures for one in stages if one.status == DONE}
    inferred = failures.get("02_inference", {})
    told = []
    for model, reasons in _by_model(inferred).items():
        table = _read(folder / TABLES["inference"].path.replace("<model>", model), ["status"])
        scans = len(table) if table is not None else len(reasons)
        which = (
            "the only scan"
            if scans == 1
            else f"{'all ' if len(reasons) == scans else f'{len(reasons)} of '}{scans} scans"
        )
        reason, number = _find_commonest(reasons)
        told.append(f"models.{model}: failed on {which}, on {number} because: {reason}")
    known = set(inferred.values())
    compared = [reason for reason in failures.get("03_performance", {}).values() if reason not in known]
    if compared:
        reason, number = _find_commonest(compared)
        masks = count(len(compared), "mask")
        told.append(f"03_performance: {masks} could not be compared, on {number} because: {reason}")
    return told


def _by_model(failures: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for what, reason in failures.items():
        found.setdefault(what.partition(" / ")[0], []).append(reason)
    return found


def _find_commonest(reasons: Sequence[str]) -> tuple[str, int]:
    return Counter(reasons).most_common(1)[0]


def _count_disparities(folder: Path) -> int | None:
    """Count the comparisons of groups with the gravest verdict."""
    try:
        table = read_table(folder / TABLES["disparity"].path, TABLES["disparity"])
    except (OSError, ValueError):
        return None
    return int((table["verdict"] == Verdict.DISPARITY).sum()) if "verdict" in table else None
