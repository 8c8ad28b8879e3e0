"""What every notebook does first and last: open its stage, close its stage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers import provenance
from helpers.compute import close_client
from helpers.errors import StageError
from helpers.figures.style import use_safe_renderer
from helpers.figures.tables import use_saved_tables
from helpers.schema import STAGES, TABLES
from helpers.storage import write_atomically
from helpers.study import Study, load_study
from helpers.vocabulary.measures import set_measures

_started: dict[str, float] = {}


def open_stage(stage: str, params: str, overrides: dict[str, Any] | list[str] | None = None) -> Study:
    """Load the study for a stage; what can be known to be wrong fails here, in the first second.

    Parameters
    ----------
    stage : str
        One of :data:`helpers.schema.STAGES`.
    params : str
        The parameter file.
    overrides : dict or list of str, optional
        Laid over the file, as in :func:`helpers.study.load_study`.

    Raises
    ------
    SegfairError
        The parameters are wrong, an earlier stage has not run, or the output folder cannot be
        written.
    """
    if stage not in STAGES:
        raise StageError(f"stage must be one of {', '.join(STAGES)}; got {stage!r}")
    study = open_study(params, overrides, needs=STAGES[stage].needs, masks=STAGES[stage].needs_masks)
    if nothing := study.say_idle(stage):
        raise StageError(nothing)
    check_output_folder(study)
    provenance.write_snapshot(study)
    _started[stage] = time.monotonic()
    return study


def open_study(
    params: str, overrides: dict[str, Any] | list[str] | None = None, *, needs: Sequence[str] = (), masks: bool = False
) -> Study:
    """Load a study to look at what its stages wrote; nothing is written.

    Parameters
    ----------
    params : str
        The parameter file.
    overrides : dict or list of str, optional
        Laid over the file, as in :func:`helpers.study.load_study`.
    needs : sequence of str
        Tables, by their short name in :data:`helpers.schema.TABLES`, that must be there.
    masks : bool
        Whether every model must have gone over the cohort.

    Raises
    ------
    SegfairError
        The parameters are wrong, or a table is missing: the message names the stages to run.
    """
    use_safe_renderer()
    use_saved_tables()
    pd.set_option("display.max_colwidth", 200)  # reasons are sentences; cut off they explain nothing
    study = load_study(params, overrides or {})
    set_measures(study.parameters.fairness.measures)
    files = {TABLES[name].path: TABLES[name].made_by for name in needs}
    if masks and study.parameters.cohort.has_masks:
        paths = [study.inference_path(model.name) for model in study.parameters.models]
        files |= {str(path.relative_to(study.folder)): "02_inference" for path in paths}
    study.require(files)
    return study


def close_stage(study: Study, stage: str, *, failures: dict[str, str] | None = None, **facts: Any) -> None:
    """Record the stage as finished in run.json and let local workers go."""
    seconds = time.monotonic() - _started.get(stage, time.monotonic())
    provenance.record_stage(study, stage, status="finished", seconds=seconds, failures=failures, **facts)
    close_client()


def check_output_folder(study: Study) -> None:
    """Write and remove a file in the study's folder.

    Raises
    ------
    SegfairError
        The folder cannot be made or written, or the disk is full.
    """
    probe = study.folder / ".writable"
    with write_atomically(probe) as temporary:
        temporary.write_bytes(b"\0")
    probe.unlink(missing_ok=True)
