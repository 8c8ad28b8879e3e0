"""Map a function over cases: in process, on local processes, or on a Dask cluster.

One call for every per-scan job of the project. A case that raises becomes a value
(:class:`CaseFailure`) in its place, so one broken scan never stops a study.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import logging
import os
import ssl
import sys
import time
import traceback
from asyncio import CancelledError
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from tqdm import tqdm

from helpers.errors import SegfairError
from helpers.jobs import make_security, start_jobs
from helpers.parameters import Compute

Case = TypeVar("Case")

# One thread per worker, as many workers as cores. And large arrays come and go with every scan:
# glibc is to keep their memory instead of giving it back each time (Dask's own setting trims at 64
# KiB), which halves the time (measured: 65 s to 34 s).
_TRIM_BYTES, _MMAP_BYTES = 1 << 30, 1 << 28
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "MALLOC_TRIM_THRESHOLD_": _TRIM_BYTES,
    "MALLOC_MMAP_THRESHOLD_": _MMAP_BYTES,
}
# Dask looks every 10 ms at what a worker does and at its clocks every 20 ms, which nobody asks for:
# half of what the waiting process takes.
_QUIET = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}
# Whose worker died twice runs alone.
_OWN_SETTINGS = {
    "distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT,
    "distributed.scheduler.allowed-failures": 1,
    **_QUIET,
}
# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# At most so many cases are with the scheduler: it keeps each in memory, and so does the client.
_WINDOW, _CHUNK = 1000, 250
# One line for each of so many failures of one reason; the others are counted.
_TOLD = 3
# A word where no worker is there after so long (s), and the end of waiting for those of a cluster
# that runs already, and for jobs, which may wait in a queue.
_WORD_AFTER_S, _WAIT_S, _WAIT_IN_QUEUE_S = 20.0, 600.0, 24 * 3600.0
_WORD_AGAIN_S = 1800.0
# Where the processes that a run starts find the jobs that it holds.
_HELD = "SEGFAIR_HELD_SCHEDULER"
# What an operating system says of itself and its disks, never of the file that is read.
_MACHINE_FAULTS = {
    getattr(errno, name)
    for name in (
        "EIO", "ENOSPC", "EDQUOT", "EROFS", "ESTALE", "ETIMEDOUT", "EMFILE", "ENFILE", "EAGAIN", "EBUSY", "ENODEV",
        "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ECONNRESET", "ECONNREFUSED", "EREMOTEIO",
    )
    if hasattr(errno, name)
}  # fmt: skip

_client: Any = None
_resources = ExitStack()  # the client, its cluster and their settings, left in this order
_client_settings: tuple[Compute, tuple[str, ...]] | None = None
_passing: dict[str, str] = {}  # by case, since take_passing was called last


@dataclass(frozen=True)
class CaseFailure:
    """What is known of a case that failed."""

    case: str  # its id
    error: str  # one sentence: for a SegfairError its message, else the type and message
    details: str = ""  # the traceback, empty for a SegfairError
    of_machine: bool = False  # a disk or network failed, not the case
    killed: bool = False  # its process died, and again when it ran alone


def keep_freed_memory() -> None:
    """Tell this process's glibc what workers are told by their environment; elsewhere nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def map_cases(
    function: Callable[[Case], Any],
    cases: Sequence[Case],
    *,
    ids: Sequence[str],
    compute: Compute,
    label: str,
    cards: Sequence[str] = (),
    on_card: bool = False,
    receive: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """Call `function` on every case and return the results in the order of `cases`.

    Cases that a fault of the machine met (a killed worker, a disk that was full) run once more when
    all others are through, those of killed workers one at a time: who only ran beside the culprit
    is not blamed. What then still fails is kept for :func:`take_passing`.

    Raises a SegfairError: the scheduler was lost, or no worker came: no case is to blame, so none
    fails.

    Parameters
    ----------
    function : callable
        Takes one case; it and the cases must pickle when work leaves this process: pass paths, not
        pixels. A case may run twice, so writes must be idempotent.
    ids : sequence of str
        A name per case for progress and failures.
    label : str
        What the progress bar says.
    cards : sequence of str
        The graphics cards that the work is for, as ``CUDA_VISIBLE_DEVICES`` names them. Each local
        process sees one alone, and with ``workers: cores`` there is one process per card. Processes
        of a scheduler see what they were started with.
    on_card : bool
        Of a cluster's workers only those that say they have a card (Dask's resource ``GPU``) get
        the cases; where none says so, all do.
    receive : callable, optional
        Gets each case's place and result as soon as there is one, to keep it whatever becomes of
        the others; what is returned are then no results.

    Returns
    -------
    list
        One result per case; a :class:`CaseFailure` where the case raised or killed its worker.
    """
    results: list[Any] = [None] * len(cases)
    in_process = count_workers(compute, cards) == 0 or (len(cases) < 2 and not compute.is_remote)
    work = _Work(function, cases, [str(name) for name in ids], compute, tuple(cards), label, on_card)
    run = _run_in_process if in_process else _run_on_dask
    told: Counter[str] = Counter()
    look: dict[str, Any] = {"desc": label, "file": sys.stdout, "unit": "scan", "mininterval": 0.5, "ncols": 100}
    with tqdm(total=len(cases), disable=not cases, **look) as bar:

        def keep(found: Iterator[tuple[int, Any]], *, last: bool) -> list[tuple[int, CaseFailure]]:
            again = []
            for index, result in found:
                failed = isinstance(result, CaseFailure)
                if failed and not last and (result.of_machine or result.killed):
                    again.append((index, result))
                    continue
                if receive is None:
                    results[index] = result
                else:
                    receive(index, result)
                if failed:
                    told[result.error] += 1
                    if told[result.error] <= _TOLD:
                        bar.write(f"{label}: {result.case} failed: {result.error}", file=sys.stdout)
                    if result.of_machine or result.killed:
                        _passing[result.case] = result.error
                bar.set_postfix_str(work.ids[index], refresh=False)
                bar.update()
            return again

        again = keep(run(work, range(len(cases)), bar), last=False)
        keep(run(work, [index for index, failure in again if not failure.killed], bar), last=True)
        keep(run(work, [index for index, failure in again if failure.killed], bar, window=1), last=True)
        for reason, number in told.items():
            if number > _TOLD:
                bar.write(f"{label}: {number - _TOLD} more failed: {reason}", file=sys.stdout)
    return results


def take_passing() -> dict[str, str]:
    """Return what faults of the machine left undone since the last call, by case, and forget it."""
    found = dict(_passing)
    _passing.clear()
    return found


def is_of_machine(error: BaseException | None) -> bool:
    """Tell whether a disk, network or limit of the system is what an error comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
            return True
        error = error.__cause__ or error.__context__
    return False


def close_client() -> None:
    """Stop the local workers or leave the cluster; the next call starts anew."""
    global _client, _client_settings
    _client, _client_settings = None, None
    _resources.close()


@contextmanager
def hold_jobs(compute: Compute, logs: Path) -> Iterator[None]:
    """Start the jobs of ``compute.cluster`` and keep them for all processes that this one starts.

    Without `cluster` nothing is done.

    What the jobs print goes to `logs`.
    """
    if compute.cluster is None or _HELD in os.environ:
        yield
        return
    with start_jobs(compute, logs, _WORKER_ENVIRONMENT) as cluster:
        os.environ[_HELD] = cluster.scheduler_address
        try:
            yield
        finally:
            del os.environ[_HELD]


@dataclass(frozen=True)
class _Work:
    """What `map_cases` was called with."""

    function: Callable[[Any], Any]
    cases: Sequence[Any]
    ids: list[str]
    compute: Compute
    cards: tuple[str, ...]
    label: str
    on_card: bool


def _run_in_process(work: _Work, indexes: Sequence[int], bar: Any, window: int = 1) -> Iterator[tuple[int, Any]]:
    for index in indexes:
        yield index, _guard(work.function, work.cases[index], work.ids[index])


def _run_on_dask(work: _Work, indexes: Sequence[int], bar: Any, window: int = _WINDOW) -> Iterator[tuple[int, Any]]:
    """Yield results as they come, with at most `window` cases on their way."""
    if not indexes:
        return
    client = _open_client(work.compute, work.cards)
    watch = _Watch(client, work, bar)
    waiting, sent, ready = deque(indexes), dict[Any, int](), SimpleQueue[Any]()
    options: dict[str, Any] = {"pure": False}
    if watch.needs_card:
        options["resources"] = {"GPU": 1}
    while waiting or sent:
        if waiting and len(sent) <= window - min(window, _CHUNK):
            chunk = [waiting.popleft() for _ in range(min(window - len(sent), len(waiting)))]
            names = [work.ids[index] for index in chunk]
            with watch.say_lost():
                futures = client.map(
                    _guard, [work.function] * len(chunk), [work.cases[index] for index in chunk], names, **options
                )
            for future, index in zip(futures, chunk, strict=True):
                sent[future] = index
                future.add_done_callback(ready.put)
            del futures
        done = _take_ready(ready)
        watch.look(done, sent)
        with watch.say_lost():
            finished = client.gather([future for future in done if future.status == "finished"])
        for future in done:
            index = sent.pop(future)
            if future.status == "finished":
                yield index, finished.pop(0)
            else:
                yield index, _explain(future.exception(), work.ids[index])


def _take_ready(ready: SimpleQueue[Any]) -> list[Any]:
    """Return the futures that are done; none after a second without."""
    try:
        done = [ready.get(timeout=1)]
    except Empty:
        return []
    with suppress(Empty):
        while len(done) < _CHUNK:
            done.append(ready.get_nowait())
    return done


def _explain(error: BaseException, name: str) -> CaseFailure:
    """Say what the guard could not catch: a killed worker, or what does not pickle."""
    killed = type(error).__name__ == "KilledWorker"
    if not killed:
        return CaseFailure(name, f"{type(error).__name__}: {_join(error)}")
    text = "the worker process did not survive it (KilledWorker): out of memory or a crash in compiled code"
    return CaseFailure(name, text, killed=True)


class _Watch:
    """Looks after scheduler and workers while cases are on their way."""

    def __init__(self, client: Any, work: _Work, bar: Any) -> None:
        self._client, self._work, self._bar = client, work, bar
        self._done = 0
        self._seen = time.monotonic()  # when a worker was there last
        self._word = self._seen + _WORD_AFTER_S  # when to say so again
        has_card = any("GPU" in worker["resources"] for worker in self._list_workers())
        self.needs_card = work.on_card and (has_card or work.compute.gpus > 0)

    def look(self, done: Sequence[Any], sent: Iterable[Any]) -> None:
        """Raise where the scheduler is lost or no worker came; say it where none is there yet."""
        self._done += len(done)
        if any(future.status in ("cancelled", "lost") for future in (done or sent)) or self._client.status != "running":
            raise self._make_error()
        now = time.monotonic()
        if done or now - self._seen < 1:
            self._seen = now if done else self._seen
            return
        if self._count_workers():
            self._seen, self._word = now, now + _WORD_AFTER_S
            return
        where = self._say_where()
        kind = " with a graphics card" if self.needs_card else ""
        waited_s = now - self._seen
        limit_s = _WAIT_S if self._work.compute.cluster is None else _WAIT_IN_QUEUE_S
        if waited_s > limit_s:
            raise SegfairError(
                f"{where}: no worker{kind} has been there for {waited_s / 60:.0f} minutes: start workers, or see why"
                " their jobs do not start, and run the same command again"
            )
        if now >= self._word:
            self._word = now + _WORD_AGAIN_S
            self._bar.write(f"{self._work.label}: {where}: no worker{kind} is there, waiting", file=sys.stdout)

    @contextmanager
    def say_lost(self) -> Iterator[None]:
        """Turn what Dask raises where its scheduler does not answer into one sentence."""
        from distributed.client import FuturesCancelledError

        try:
            yield
        except (FuturesCancelledError, CancelledError, OSError, TimeoutError) as error:
            raise self._make_error() from error

    def _make_error(self) -> SegfairError:
        total = len(self._work.cases)
        return SegfairError(
            f"{self._say_where()}: the Dask scheduler was lost after {self._done} of {total} scans"
            f" ({self._work.label}): see that it runs, and run the same command again; what was finished is kept"
        )

    def _say_where(self) -> str:
        compute = self._work.compute
        if compute.scheduler is not None:
            return f"compute.scheduler {compute.scheduler}"
        return f"compute.cluster {compute.cluster}" if compute.cluster is not None else "the workers of this machine"

    def _count_workers(self) -> int:
        workers = self._list_workers()
        return sum("GPU" in worker["resources"] for worker in workers) if self.needs_card else len(workers)

    def _list_workers(self) -> list[dict[str, Any]]:
        with self.say_lost():
            return list(self._client.scheduler_info(n_workers=-1)["workers"].values())


def _guard(function: Callable[[Case], Any], case: Case, name: str) -> Any:
    try:
        return function(case)
    except SegfairError as error:
        return CaseFailure(name, str(error), of_machine=is_of_machine(error))
    except Exception as error:
        return CaseFailure(
            name, f"{type(error).__name__}: {_join(error)}", traceback.format_exc(), of_machine=is_of_machine(error)
        )


def _join(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"


def count_workers(compute: Compute, cards: Sequence[str] = ()) -> int:
    """Return how many local processes work at a time; 0: in this one, 1 where a cluster decides."""
    if compute.is_remote:
        return 1
    return (len(cards) or count_cores()) if compute.workers == "cores" else compute.workers


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _open_client(compute: Compute, cards: tuple[str, ...]) -> Any:
    """Return a client for these settings, kept for the next call of this process."""
    global _client, _client_settings
    cards = () if compute.is_remote else cards  # those of this machine
    if _client is not None and _client_settings == (compute, cards) and _client.status == "running":
        return _client
    close_client()
    _check_settings()
    if compute.is_remote:
        address = compute.scheduler
        if address is None:
            _resources.enter_context(hold_jobs(compute, Path.cwd() / "jobs"))
            address = os.environ[_HELD]
        _client = _resources.enter_context(_reach_scheduler(address, compute))
    else:
        import distributed  # noqa: F401  # its defaults must be there before ours are laid over them

        _resources.enter_context(_use_own_settings())
        _client = _start_local(count_workers(compute, cards))
        if cards:
            _client.register_plugin(_make_card_plugin(cards))
    _client_settings = (compute, cards)
    return _client


def _start_local(workers: int) -> Any:
    """Return a client of worker processes on this machine; a busy one gets a second try."""
    from distributed import Client, LocalCluster

    logging.getLogger("distributed.nanny").addFilter(_is_news)
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    try:
        try:
            cluster = LocalCluster(n_workers=workers, **options)
        except (OSError, RuntimeError):
            cluster = LocalCluster(n_workers=workers, **options)
        return _resources.enter_context(Client(_resources.enter_context(cluster)))
    except (OSError, RuntimeError) as error:
        raise SegfairError(
            f"{workers} worker processes cannot be started on this machine ({type(error).__name__}: {_join(error)}):"
            " use fewer compute.workers, or run the same command when it is less busy"
        ) from error


def _is_news(told: logging.LogRecord) -> bool:
    """Tell whether a line is worth showing: a worker slow to end on a busy machine is not."""
    return "still alive after" not in told.getMessage()


def _check_settings() -> None:
    """Say it in a sentence where Dask cannot even be imported for the settings it finds."""
    try:
        import dask  # noqa: F401
    except ValueError as error:
        raise SegfairError(
            f"the settings of Dask cannot be read ({' '.join(str(error).split())}): correct that file, or move it away"
        ) from error


def _reach_scheduler(address: str, compute: Compute) -> Any:
    """Return a client of a cluster, by its `security` or the settings that Dask finds."""
    from distributed import Client

    security = make_security(compute)
    for timeout_s in (20, 60):  # a busy machine gets a second try
        try:
            return Client(address, timeout=timeout_s, security=security)
        # Certificates that are not there, encryption that only one side wants, an unknown protocol.
        except (FileNotFoundError, PermissionError, ssl.SSLError, ValueError, TypeError, RuntimeError) as error:
            raise SegfairError(
                f"compute.scheduler {address}: cannot be reached with the settings of Dask on this machine ({error}): "
                "correct compute.security, or those under distributed.comm"
            ) from error
        except OSError as error:
            failure = error
    raise SegfairError(
        f"compute.scheduler {address}: no Dask scheduler answers there: "
        "start one (`dask scheduler`) or leave the key out to use this machine's cores"
    ) from failure


def _use_own_settings() -> Any:
    """Lay Dask's own defaults and ours over a site's settings, until what is returned is left.

    A site's (encryption, preloads, limits) are for its cluster; here the workers are this
    machine's.
    """
    import dask

    defaults = dask.config.merge(*dask.config.defaults)
    return dask.config.set({**defaults, **_OWN_SETTINGS})


def _make_card_plugin(cards: tuple[str, ...]) -> Any:
    """Return what shows each worker one card, before anything in it asks for cards."""
    from distributed import WorkerPlugin

    class OneCard(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            # Local workers are numbered, and one that is started again keeps its number.
            os.environ["CUDA_VISIBLE_DEVICES"] = cards[worker.name % len(cards)]

    return OneCard()


atexit.register(close_client)
