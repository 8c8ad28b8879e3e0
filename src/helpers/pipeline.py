"""Run the notebooks in order through papermill, skip what is up to date, keep what was executed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from helpers import __version__, provenance
from helpers.compute import close_client, hold_jobs
from helpers.errors import SegfairError, StageError
from helpers.kept import Contents
from helpers.models import list_overlaps
from helpers.notebook import check_output_folder, find_notebook
from helpers.parameters import CommandModel
from helpers.report import export_notebook, make_scrubber
from helpers.resuming import verify_contents
from helpers.run_log import RunLog
from helpers.running import hold_study
from helpers.schema import STAGES
from helpers.status import describe_stages, read_status
from helpers.storage import write_atomically, write_text
from helpers.study import Study
from helpers.vocabulary.words import count

Say = Callable[[str], None]
# How long a notebook may take to hand over what its last cell printed (s): papermill's 4 s end
# a run on a busy machine.
_OUTPUT_WAIT_S = 600


def select_stages(*, first: str | None = None, last: str | None = None, only: str | None = None) -> list[str]:
    """Return the stages from `first` to `last`, or `only` one; each by number (``"03"``) or name.

    Raises a StageError: a stage is unknown, or `first` comes after `last`.
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


def plan_run(study: Study, stages: Sequence[str], *, force: bool) -> Iterator[tuple[str, str]]:
    """Yield each stage with why it would run, empty where it would not; nothing is written."""
    fingerprints = provenance.Fingerprints(study)
    for stage in stages:
        idle = bool(study.say_idle(stage))
        yield stage, "" if idle else "--force" if force else provenance.explain_stage(study, stage, fingerprints)


def run_study(
    study: Study,
    *,
    overrides: dict[str, Any],
    stages: Sequence[str],
    force: bool,
    say: Say,
    output: TextIO | None = None,
    verify: bool = False,
) -> Path:
    """Run `stages` of a study and return the path of its report (present once 05 has run).

    What is said is kept in ``run.log`` in the study's folder too; it ends with a line per stage.

    `study` is already loaded with `overrides`, so that a wrong one fails before anything runs.
    `say` receives a line per step, `output` what the notebooks print (by default standard output).
    `verify` reads every file again that the study has read or written: what holds other bytes is
    noticed even where size and times say nothing of it.

    Raises
    ------
    StageError
        A stage failed (its half-run notebook is kept).
    SegfairError
        The folder cannot be written, or another process is running this study.
    """
    check_output_folder(study)
    with hold_study(study.folder, study.name) as sign:
        log = RunLog(study.folder, say, output or sys.stdout, sign)
        log.note(f"segfair {__version__}, study {study.name}: {', '.join(stages)}")
        if "02_inference" in stages:
            _say_programs(study, log.say)
        for overlap in list_overlaps(study.parameters.models, study.parameters.cohort):
            log.say(f"worth knowing: {overlap}")
        try:
            if verify:
                _verify(study, log.say)
            _run_stages(study, overrides, stages, force, log)
        except BaseException as error:
            log.note(f"stopped: {error or type(error).__name__}")
            raise
        finally:
            status = read_status(study.folder)
            for line in describe_stages(status.stages):
                log.say(line)
            for line in status.failed:
                log.note(f"failed: {line}")
    return study.folder / "report.html"


def _verify(study: Study, say: Say) -> None:
    contents = Contents(study.folder)
    changed = verify_contents(contents, study.parameters.compute)
    close_client()
    number = len(contents.list_places())
    say(f"verified: {count(number, 'file')} read, {changed or 'none'} changed without another size or time")


def _run_stages(study: Study, overrides: dict[str, Any], stages: Sequence[str], force: bool, log: RunLog) -> None:
    fingerprints = provenance.Fingerprints(study)
    with ExitStack() as jobs:
        held = False
        for place, stage in enumerate(stages, start=1):
            heading = f"[{place}/{len(stages)}] {stage}"
            if nothing := study.say_idle(stage):
                log.say(f"[{place}/{len(stages)}] {nothing}")
                continue
            if not force and provenance.stage_is_current(study, stage, fingerprints):
                log.say(f"{heading}: up to date")
                continue
            log.begin_stage(stage)
            log.say(f"{heading}: running")
            started = time.monotonic()
            works_on_scans = study.parameters.cohort.has_masks and stage != "05_report"
            if works_on_scans and not held:
                jobs.enter_context(hold_jobs(study.parameters.compute, study.folder / "jobs"))
            elif not works_on_scans:
                jobs.close()
            held = works_on_scans
            run_notebook(study, stage, overrides=overrides, output=log)
            fingerprints.forget(stage)
            log.say(f"{heading}: finished in {time.monotonic() - started:.0f} s")
            if passing := provenance.read_run(study.folder).get("stages", {}).get(stage, {}).get("passing"):
                log.say(
                    f"{heading}: {count(len(passing), 'scan')} left undone by a fault of the machine; the next run"
                    f" tries again ({next(iter(passing.values()))})"
                )
    fingerprints.contents.flush()


def run_notebook(study: Study, stage: str, *, overrides: dict[str, Any], output: RunLog | TextIO | None = None) -> Path:
    """Execute one stage's notebook and return the executed copy; its HTML lies beside it.

    Raises a StageError: the notebook raised (the message is the error's own, and the half-run
    notebook is named), its process died, or its copy cannot be written.
    """
    import papermill

    source = find_notebook(study, stage)
    target = study.folder / "notebooks" / source.name
    parameters = {"params": study.source_name, "overrides": overrides}
    _refuse_unknown(papermill.inspect_notebook(_quote(source)), parameters, source)
    started, raised = time.monotonic(), None
    try:
        with write_atomically(target) as executed:
            raised = _execute(source, executed, parameters, study, output or sys.stdout)
            _forget_machine(executed)
        if raised is not None:
            raise raised
        export_notebook(target, target.with_suffix(".html"), scrub=make_scrubber(study.folder))
    except SegfairError as error:
        with suppress(SegfairError):  # a full disk: it stays recorded as running
            seconds = time.monotonic() - started
            provenance.record_stage(study, stage, status="failed", seconds=seconds, failures={"stage": str(error)})
        if raised is None:
            raise StageError(f"{stage} stopped: {error}") from error
        raise StageError(f"{stage} stopped: {error}\nThe half-run notebook is kept: {target}") from error
    return target


def _execute(
    source: Path, executed: Path, parameters: dict[str, Any], study: Study, output: RunLog | TextIO
) -> StageError | None:
    """Run a notebook, write what came of it, and return what it raised, if anything.

    A StageError where its process ended, and nothing came of it.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from helpers.kernel import OwnKernelManager, configure_kernel, open_private_folder

    try:
        with _poll_for_messages(), open_private_folder() as folder:
            papermill.execute_notebook(
                _quote(source),
                _quote(executed),
                parameters=parameters,
                kernel_name="python3",
                cwd=str(study.root),
                progress_bar=False,
                log_output=False,
                stdout_file=output,
                coalesce_streams=True,
                # Else all of it is written twice per cell: 15 s with the maps' megabytes in it.
                # What ran before an error is written nevertheless.
                request_save_on_cell_execute=False,
                iopub_timeout=_OUTPUT_WAIT_S,
                kernel_manager_class=OwnKernelManager,
                config=configure_kernel(folder),
            )
    except PapermillExecutionError as error:
        own = error.ename.endswith("Error") and error.ename in _own_errors()
        return StageError(error.evalue if own else f"{error.ename}: {error.evalue}")
    except DeadKernelError as error:
        raise StageError(
            "its process was killed, most likely because memory ran out: use fewer compute.workers"
        ) from error
    except (CellTimeoutError, TimeoutError, RuntimeError) as error:
        raise StageError(
            f"its process did not answer ({_join(error)}): this machine is too busy; run the same command again"
        ) from error
    return None


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

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    write_text(nbformat.writes(notebook), executed)


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
