"""Workers that a queueing system starts (SLURM and its kin), and the certificates of a cluster."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from helpers.errors import SegfairError
from helpers.parameters import Compute
from helpers.storage import expand_home

_CLASSES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
    "oar": "OARCluster",
    "local": "LocalCluster",
}
# How a system is asked for one card. PBS, SGE and OAR differ by site: there `options` says it.
_ONE_CARD: dict[str, Any] = {"slurm": ["--gres=gpu:1"], "lsf": ['-gpu "num=1"'], "htcondor": {"request_gpus": "1"}}
_LISTS = ("worker_extra_args", "job_script_prologue", "job_extra_directives")
# A worker leaves before its job is ended, so that what it holds goes to the others.
_LEAVE_BEFORE_S, _STAGGER_S = 300, 60
# What is lost with a job is asked for again soon.
_SETTINGS = {"distributed.deploy.lost-worker-timeout": "5s", "distributed.scheduler.allowed-failures": 1}


@contextmanager
def start_jobs(compute: Compute, logs: Path, environment: dict[str, int]) -> Iterator[Any]:
    """Start a scheduler in this process that keeps jobs in the queue; end them all at the end.

    They end too where this process is interrupted, ended (SIGTERM) or loses its terminal (SIGHUP).
    Where it is killed outright its workers find no scheduler any more, and leave.

    What the jobs print goes to `logs`, on a file system that they see too; `environment` is what
    workers start with. The cluster's ``scheduler_address`` is where workers and clients meet.

    Raises a SegfairError: dask-jobqueue is missing, or the system does not take the jobs.
    """
    try:
        module = import_module(f"dask_jobqueue.{compute.cluster}")
    except ImportError as error:
        raise SegfairError(
            "compute.cluster needs dask-jobqueue, which is not installed: `.venv/bin/pip install -c constraints.txt"
            " -e '.[cluster]'`"
        ) from error
    import dask

    make = getattr(module, _CLASSES[str(compute.cluster)])
    refused: list[Exception] = []
    least, most = compute.adapt or (compute.jobs, compute.jobs)
    with dask.config.set(_SETTINGS), _end_by_signals():
        try:
            watched = _watch_submissions(make.job_cls, refused)
            cluster = make(job_cls=watched, **_choose_options(compute, logs, environment))
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            raise SegfairError(
                f"compute.cluster {compute.cluster}: the jobs cannot be described ({_shorten(error)}): "
                "correct compute and its options, which are dask-jobqueue's"
            ) from error
        with cluster:
            cluster.scale(jobs=1)
            cluster.sync(cluster._correct_state)  # waits for the submission, whose failure it only logs
            if refused:
                raise SegfairError(
                    f"compute.cluster {compute.cluster}: the system does not take a job ({_shorten(refused[0])}): "
                    "correct compute (queue, memory, walltime, options), or run this where jobs can be submitted"
                ) from refused[0]
            # Adaptive also with a fixed number: jobs that end or die are asked for again.
            cluster.adapt(minimum_jobs=least, maximum_jobs=most, interval="5s", wait_count=6)
            yield cluster


def make_security(compute: Compute) -> Any:
    """Return what encrypts the traffic with scheduler and workers; None without certificates.

    Raises a SegfairError: a file is not there.
    """
    if compute.security is None:
        return None
    files = {name: expand_home(Path(text)) for name, text in compute.security.model_dump().items()}
    for name, path in files.items():
        if not path.is_file():
            raise SegfairError(f"compute.security.{name}: {path} is not there: give the path of a PEM file")
    from distributed import Security

    pair = {
        f"tls_{role}_{part}": str(files[part]) for role in ("client", "scheduler", "worker") for part in ("cert", "key")
    }
    return Security(tls_ca_file=str(files["ca_file"]), require_encryption=True, **pair)


def _choose_options(compute: Compute, logs: Path, environment: dict[str, int]) -> dict[str, Any]:
    """Return dask-jobqueue's arguments: one thread per worker, one worker per core or card."""
    given = dict(compute.options)
    own: dict[str, Any] = {
        "cores": compute.cores,
        "processes": 1 if compute.gpus else compute.cores,
        "memory": compute.memory,
        "job_name": "segfair",
        "log_directory": str(logs),
        "security": make_security(compute),
        "silence_logs": logging.CRITICAL,
        "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        "job_script_prologue": [f"export {name}={value}" for name, value in environment.items()],
        "worker_extra_args": ["--nthreads", "1", "--no-dashboard"],
        "job_extra_directives": [],
    }
    own |= {name: value for name in ("queue", "walltime") if (value := getattr(compute, name)) is not None}
    if compute.gpus:
        own["worker_extra_args"] += ["--resources", "GPU=1"]
        if compute.cluster in _ONE_CARD:
            own["job_extra_directives"] = _ONE_CARD[compute.cluster]
    if lifetime_s := _find_lifetime_s(compute.walltime):
        own["worker_extra_args"] += ["--lifetime", f"{lifetime_s}s", "--lifetime-stagger", f"{_STAGGER_S}s"]
    if compute.cluster == "htcondor":
        own.setdefault("disk", "1GB")
        own["job_extra_directives"] = own["job_extra_directives"] or {}
    for name in _LISTS:
        if name in given and isinstance(own[name], type(given[name])):
            own[name] = own[name] | given[name] if isinstance(own[name], dict) else own[name] + given[name]
            del given[name]
    own["scheduler_options"] |= given.pop("scheduler_options", {})
    return own | given


def _find_lifetime_s(walltime: str | None) -> int:
    """Return how long a worker stays (s) in a job of this walltime; 0 where that is not said."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", walltime or "")
    if match is None:
        return 0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return max(0, ((days * 24 + hours) * 60 + minutes) * 60 + seconds - _LEAVE_BEFORE_S - _STAGGER_S)


def _watch_submissions(job: Any, refused: list[Exception]) -> Any:
    """Return the class of a system's jobs, which adds what a submission fails of to a list."""
    from distributed.core import Status

    class Watched(job):
        async def _submit_job(self, script_filename: str) -> Any:
            try:
                return await super()._submit_job(script_filename)
            except Exception as error:
                refused.append(error)
                self.status = Status.failed  # else the cluster would not close
                raise

    return Watched


def _shorten(error: Exception) -> str:
    """Return what a system said, in one line."""
    said = str(error).rpartition("stderr:")[2]
    return " ".join(said.split())[:300] or type(error).__name__


@contextmanager
def _end_by_signals() -> Iterator[None]:
    """Leave blocks in order, as after Ctrl-C, where the process is told to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
