"""What every notebook does first and last: open its stage, close its stage."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import provenance
from helpers.compute import close_client, take_passing
from helpers.errors import StageError
from helpers.figures.style import use_safe_renderer
from helpers.figures.tables import use_saved_tables
from helpers.schema import STAGES, TABLES
from helpers.storage import write_atomically
from helpers.study import REPOSITORY, Study, find_newest, find_study
from helpers.vocabulary.measures import set_measures

_started: dict[str, tuple[float, float]] = {}  # clock and processor time (s) by stage


def open_stage(stage: str, params: str, overrides: dict[str, Any] | list[str] | None = None) -> Study:
    """Load the study for a stage; what can be known to be wrong fails here, in the first second.

    `overrides` are laid over the parameter file, as in :func:`helpers.study.load_study`.

    Raises a SegfairError: the parameters are wrong, an earlier stage has not run, or the output
    folder cannot be written.
    """
    if stage not in STAGES:
        raise StageError(f"stage must be one of {', '.join(STAGES)}; got {stage!r}")
    study = open_study(params, overrides, needs=STAGES[stage].needs, masks=STAGES[stage].needs_masks)
    if nothing := study.say_idle(stage):
        raise StageError(nothing)
    check_output_folder(study)
    provenance.start_stage(study, stage)  # before anything of the former run is replaced
    provenance.write_snapshot(study)
    take_passing()
    _started[stage] = _read_clocks()
    return study


def open_study(
    params: str, overrides: dict[str, Any] | list[str] | None = None, *, needs: Sequence[str] = (), masks: bool = False
) -> Study:
    """Load a study to look at what its stages wrote; nothing is written.

    `params` is the parameter file or an output folder, or empty for the study that was measured
    last. `needs` are tables of :data:`helpers.schema.TABLES` that must be there; `masks` says that
    every model must have gone over the cohort.

    Raises a SegfairError: the parameters are wrong, a table is missing (the message names the
    stages to run), or no study has been run yet.
    """
    use_safe_renderer()
    use_saved_tables()
    pd.set_option("display.max_colwidth", 200)  # reasons are sentences; cut off they explain nothing
    study = find_study(params, overrides or {}) if params else find_newest()
    set_measures(study.parameters.fairness.measures)
    files = {TABLES[name].path: TABLES[name].made_by for name in needs}
    if masks and study.parameters.cohort.has_masks:
        paths = [study.inference_path(model.name) for model in study.parameters.models]
        files |= {str(path.relative_to(study.folder)): "02_inference" for path in paths}
    study.require(files)
    return study


def close_stage(study: Study, stage: str, *, failures: dict[str, str] | None = None, **facts: Any) -> None:
    """Let local workers go and record the stage as finished in run.json.

    Beside its seconds stands its processor time, of this kernel and of the workers it had on this
    machine: what it costs wherever processors are paid for or shared.
    """
    close_client()  # only of processes that have ended the system tells what they took
    now, processor = _read_clocks()
    began, processor_began = _started.get(stage, (now, processor))
    facts["passing"] = take_passing()  # with any, the stage is not up to date: it is tried again
    facts["processor_seconds"] = round(processor - processor_began, 1)
    provenance.record_stage(study, stage, status="finished", seconds=now - began, failures=failures, **facts)


def check_output_folder(study: Study) -> None:
    """Write and remove a file in the study's folder.

    Raises a SegfairError: the folder cannot be made or written, or the disk is full.
    """
    probe = study.folder / ".writable"
    with write_atomically(probe) as temporary:
        temporary.write_bytes(b"\0")
    probe.unlink(missing_ok=True)


def find_notebook(study: Study, stage: str) -> Path:
    """Return a stage's notebook: the project's own copy, else the repository's.

    Raises a StageError: neither is there.
    """
    for root in (study.root, REPOSITORY):
        path = root / "notebooks" / f"{stage}.ipynb"
        if path.exists():
            return path
    raise StageError(f"notebooks/{stage}.ipynb is not there: run segfair from a clone of its repository")


def _read_clocks() -> tuple[float, float]:
    """Return the clock, and the processor time of this process and its ended children (s)."""
    return time.monotonic(), sum(os.times()[:4])
