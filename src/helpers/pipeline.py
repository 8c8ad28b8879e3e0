"""Run the notebooks in order through papermill, skip what is up to date, keep what was executed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from helpers import provenance
from helpers.compute import hold_jobs
from helpers.errors import SegfairError, StageError
from helpers.models import list_overlaps
from helpers.notebook import check_output_folder
from helpers.parameters import CommandModel
from helpers.report import export_notebook, make_scrubber
from helpers.schema import STAGES
from helpers.study import REPOSITORY, Study
from helpers.vocabulary.words import count

Say = Callable[[str], None]
# How long a notebook may take to hand over what its last cell printed (s): papermill's 4 s end
# a run on a busy machine.
_OUTPUT_WAIT_S = 600


def select_stages(*, first: str | None = None, last: str | None = None, only: str | None = None) -> list[str]:
    """Return the stages from `first` to `last`, or `only` one; each by number (``"03"``) or name.

    Raises
    ------
    StageError
        A stage is unknown, or `first` comes after `last`.
    """
    if only is not None:
        if first is not None or last is not None:
            raise StageError("--only cannot be combined with --from or --until")
        first = last = only
    stages = list(STAGES)
    start = _find_stage(first) if first is not None else 0
    end = _find_stage(last) if last is not None else len(stages) - 1
    if start > end:
        raise StageError(f"--from {stages[start]} comes after --until {stages[end]}")
    return stages[start : end + 1]


def run_study(study: Study, *, overrides: dict[str, Any], stages: Sequence[str], force: bool, say: Say) -> Path:
    """Run `stages` of a study and return the path of its report (present once 05 has run).

    Parameters
    ----------
    study : Study
        The study, already loaded with `overrides`, so that a wrong one fails before anything runs.
    overrides : dict
        What the notebooks are to lay over the parameter file.
    stages : sequence of str
        From :func:`select_stages`.
    force : bool
        Run stages that are up to date as well.
    say : callable
        Receives a line per step.

    Raises
    ------
    SegfairError
        A stage failed (its half-run notebook is kept), or another process is running this study.
    """
    check_output_folder(study)
    if "02_inference" in stages:
        _say_programs(study, say)
    fingerprints = provenance.Fingerprints(study)
    for overlap in list_overlaps(study.parameters.models, study.parameters.cohort):
        say(f"worth knowing: {overlap}")
    with _lock_study(study), ExitStack() as jobs:
        held = False
        for place, stage in enumerate(stages, start=1):
            heading = f"[{place}/{len(stages)}] {stage}"
            if nothing := study.say_idle(stage):
                say(f"[{place}/{len(stages)}] {nothing}")
                continue
            if not force and provenance.stage_is_current(study, stage, fingerprints):
                say(f"{heading}: up to date")
                continue
            say(f"{heading}: running")
            started = time.monotonic()
            works_on_scans = study.parameters.cohort.has_masks and stage != "05_report"
            if works_on_scans and not held:
                jobs.enter_context(hold_jobs(study.parameters.compute, study.folder / "jobs"))
            elif not works_on_scans:
                jobs.close()
            held = works_on_scans
            run_notebook(study, stage, overrides=overrides)
            fingerprints.forget(stage)
            say(f"{heading}: finished in {time.monotonic() - started:.0f} s")
            if passing := provenance.read_run(study.folder).get("stages", {}).get(stage, {}).get("passing"):
                say(
                    f"{heading}: {count(len(passing), 'scan')} left undone by a fault of the machine; the next run"
                    f" tries again ({next(iter(passing.values()))})"
                )
    return study.folder / "report.html"


def list_failed_models(study: Study) -> list[str]:
    """Say of each model that has no mask of any scan after 02_inference why that is."""
    told = []
    for model in study.parameters.models:
        if study.parameters.cohort.has_masks and study.inference_path(model.name).exists():
            table = study.read("inference", model=model.name)
            if len(table) and (table["status"] == "failed").all():
                (reason, number), *_ = Counter(table["error"]).most_common(1)
                scans = f"all {len(table)} scans" if len(table) > 1 else "the only scan"
                told.append(f"models.{model.name}: failed on {scans}, on {number} because: {reason}")
    return told


def run_notebook(study: Study, stage: str, *, overrides: dict[str, Any]) -> Path:
    """Execute one stage's notebook and return the executed copy; its HTML lies beside it.

    Raises
    ------
    StageError
        The notebook raised: the message is the error's own, and the half-run notebook is named.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from helpers.kernel import OwnKernelManager, configure_kernel, open_private_folder

    source = find_notebook(study, stage)
    target = study.folder / "notebooks" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    parameters = {"params": study.source_name, "overrides": overrides}
    _refuse_unknown(papermill.inspect_notebook(_quote(source)), parameters, source)
    started = time.monotonic()
    try:
        with _poll_for_messages(), open_private_folder() as folder:
            papermill.execute_notebook(
                _quote(source),
                _quote(target),
                parameters=parameters,
                kernel_name="python3",
                cwd=str(study.root),
                progress_bar=False,
                log_output=False,
                stdout_file=sys.stdout,
                coalesce_streams=True,
                # Else all of it is written twice per cell: 15 s with the maps' megabytes in it.
                # What ran before an error is written nevertheless.
                request_save_on_cell_execute=False,
                iopub_timeout=_OUTPUT_WAIT_S,
                kernel_manager_class=OwnKernelManager,
                config=configure_kernel(folder),
            )
    except PapermillExecutionError as error:
        provenance.record_stage(
            study, stage, status="failed", seconds=time.monotonic() - started, failures={"stage": error.evalue}
        )
        message = (
            error.evalue
            if error.ename.endswith("Error") and error.ename in _own_errors()
            else f"{error.ename}: {error.evalue}"
        )
        raise StageError(f"{stage} stopped: {message}\nThe half-run notebook is kept: {target}") from error
    except (CellTimeoutError, DeadKernelError, TimeoutError, RuntimeError) as error:
        seconds, told = time.monotonic() - started, f"{type(error).__name__}: {_join(error)}"
        provenance.record_stage(study, stage, status="failed", seconds=seconds, failures={"stage": told})
        raise StageError(
            f"{stage} stopped: its notebook's process does not answer ({told}): out of memory, or the machine too busy;"
            " run the same command again"
        ) from error
    finally:
        if target.exists():
            _forget_machine(target)
    export_notebook(target, target.with_suffix(".html"), scrub=make_scrubber(study.folder))
    return target


def find_notebook(study: Study, stage: str) -> Path:
    """Return a stage's notebook: the project's own copy, else the repository's.

    Raises
    ------
    StageError
        Neither is there.
    """
    for root in (study.root, REPOSITORY):
        path = root / "notebooks" / f"{stage}.ipynb"
        if path.exists():
            return path
    raise StageError(f"notebooks/{stage}.ipynb is not there: run segfair from a clone of its repository")


def _join(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or "no message"


def _quote(path: Path) -> str:
    """Return a path as papermill wants it, which fills in braces as `str.format` does."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _say_programs(study: Study, say: Say) -> None:
    """Say which other programs a study starts, before the first time: the file may be another's."""
    recorded = provenance.read_run(study.folder).get("parameters", {}).get("models", [])
    known = {model.get(key) for model in recorded for key in ("command", "version_command")}
    for model in study.parameters.models:
        if isinstance(model, CommandModel):
            for command in model.commands:
                if command not in known:
                    say(f"this study starts another program (models.{model.name}): {command}")


def _find_stage(text: str) -> int:
    matches = [place for place, stage in enumerate(STAGES) if text in (stage, stage[:2], stage[1:2], stage[3:])]
    if not matches:
        raise StageError(f"stage {text!r} is unknown; stages are {', '.join(STAGES)} (or 01 to 05)")
    return matches[0]


def _refuse_unknown(known: dict[str, Any], parameters: dict[str, Any], notebook: Path) -> None:
    """Refuse what papermill would only warn about: a parameter the notebook does not have."""
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise StageError(
            f"{notebook.name} has no parameter {', '.join(unknown)}; it has"
            f" {', '.join(sorted(known)) or 'none (no cell is tagged parameters)'}"
        )


def _own_errors() -> set[str]:
    """Return the names of the errors whose message stands for itself."""
    found, kinds = set(), [SegfairError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.__name__)
        kinds += kind.__subclasses__()
    return found


def _forget_machine(executed: Path) -> None:
    """Take paths and megabytes of JavaScript out of a notebook's metadata."""
    import nbformat

    from helpers.storage import write_text

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    write_text(nbformat.writes(notebook), executed)


@contextmanager
def _lock_study(study: Study) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(study.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SegfairError(
            f"another segfair run is working on study {study.name!r} ({study.folder}): wait for it, or end it first"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _poll_for_messages() -> Iterator[None]:
    """Keep nbclient from hanging on a lost wake-up of the kernel's shell socket.

    With widgets about one run in four never saw the kernel's reply (nbclient issue 312, papermill
    issue 723). Asking every 0.1 s, instead of waiting for one event, is immune to a lost one.
    """
    from queue import Empty

    from jupyter_client.channels import AsyncZMQSocketChannel

    original = AsyncZMQSocketChannel.get_msg

    async def get_msg(self: Any, timeout: float | None = None) -> dict[str, Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 0.1 if deadline is None else min(0.1, max(0.0, deadline - time.monotonic()))
            if await self.socket.poll(int(left * 1000)):
                return await self._recv()
            if deadline is not None and time.monotonic() >= deadline:
                raise Empty

    AsyncZMQSocketChannel.get_msg = get_msg  # type: ignore[method-assign]
    try:
        yield
    finally:
        AsyncZMQSocketChannel.get_msg = original  # type: ignore[method-assign]
