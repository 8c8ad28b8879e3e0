"""Map a function over cases: in process, on local processes, or on a Dask cluster.

One call for every per-scan job of the project. A case that raises becomes a value
(:class:`CaseFailure`) in its place, so one broken scan never stops a study.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from helpers.errors import SegfairError
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
# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_client: Any = None
_client_settings: tuple[Compute, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class CaseFailure:
    """What is known of a case that failed."""

    case: str  # its id
    error: str  # one sentence: for a SegfairError its message, else the type and message
    details: str = ""  # the traceback, empty for a SegfairError


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
) -> list[Any]:
    """Call `function` on every case and return the results in the order of `cases`.

    Parameters
    ----------
    function : callable
        Takes one case; it and the cases must pickle when work leaves this process: pass paths, not
        pixels. A case may run twice (a worker that dies is restarted and its case run again), so
        writes must be idempotent.
    ids : sequence of str
        A name per case for progress and failures.
    label : str
        What the progress bar says.
    cards : sequence of str
        The graphics cards that the work is for, as ``CUDA_VISIBLE_DEVICES`` names them. Each local
        process sees one alone, and with ``workers: cores`` there is one process per card. Processes
        of a scheduler see what they were started with.

    Returns
    -------
    list
        One result per case; a :class:`CaseFailure` where the case raised or killed its worker.
    """
    if len(ids) != len(cases):
        raise ValueError(f"ids must name each of the {len(cases)} cases; got {len(ids)}")
    results: list[Any] = [None] * len(cases)
    in_process = count_workers(compute, cards) == 0 or (len(cases) < 2 and compute.scheduler is None)
    run = _run_in_process if in_process else _run_on_dask
    with tqdm(total=len(cases), desc=label, file=sys.stdout, unit="scan", mininterval=0.5, ncols=100) as bar:
        for index, result in run(function, cases, ids, compute, tuple(cards)):
            results[index] = result
            if isinstance(result, CaseFailure):
                bar.write(f"{label}: {result.case} failed: {result.error}", file=sys.stdout)
            bar.set_postfix_str(str(ids[index]), refresh=False)
            bar.update()
    return results


def close_client() -> None:
    """Stop the local workers or leave the cluster; the next call starts anew."""
    global _client, _client_settings
    if _client is not None:
        cluster = _client.cluster
        _client.close()
        if cluster is not None:
            cluster.close()
    _client, _client_settings = None, None


def _run_in_process(
    function: Callable[[Case], Any], cases: Sequence[Case], ids: Sequence[str], *_: Any
) -> Iterator[tuple[int, Any]]:
    for index, (case, name) in enumerate(zip(cases, ids, strict=True)):
        yield index, _guard(function, case, str(name))


def _run_on_dask(
    function: Callable[[Case], Any],
    cases: Sequence[Case],
    ids: Sequence[str],
    compute: Compute,
    cards: tuple[str, ...],
) -> Iterator[tuple[int, Any]]:
    from distributed import as_completed

    client = _open_client(compute, cards)
    futures = client.map(_guard, [function] * len(cases), cases, [str(name) for name in ids], pure=False)
    places = {future.key: index for index, future in enumerate(futures)}
    for future in as_completed(futures):
        index = places[future.key]
        # Only what the guard cannot catch is an error: a killed worker, a result that won't pickle.
        if future.status == "finished":
            yield index, future.result()
        else:
            text = (
                f"the worker process did not survive it ({type(future.exception()).__name__}): "
                "out of memory or a crash in compiled code"
            )
            yield index, CaseFailure(str(ids[index]), text)
        future.release()


def _guard(function: Callable[[Case], Any], case: Case, name: str) -> Any:
    try:
        return function(case)
    except SegfairError as error:
        return CaseFailure(name, str(error))
    except Exception as error:
        message = " ".join(str(error).split()) or "no message"
        return CaseFailure(name, f"{type(error).__name__}: {message}", traceback.format_exc())


def count_workers(compute: Compute, cards: Sequence[str] = ()) -> int:
    """Return how many local processes work at a time; 0: in this one, 1 where a cluster decides."""
    if compute.scheduler is not None:
        return 1
    return (len(cards) or count_cores()) if compute.workers == "cores" else compute.workers


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _open_client(compute: Compute, cards: tuple[str, ...]) -> Any:
    """Return a client for these settings, kept for the next call of this process."""
    global _client, _client_settings
    if _client is not None and _client_settings == (compute, cards) and _client.status == "running":
        return _client
    close_client()
    import dask
    from distributed import Client, LocalCluster

    if compute.scheduler is not None:
        try:
            _client = Client(compute.scheduler, timeout=20)
        except OSError as error:
            raise SegfairError(
                f"compute.scheduler {compute.scheduler}: no Dask scheduler answers there: "
                "start one (`dask scheduler`) or leave the key out to use this machine's cores"
            ) from error
    else:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT, **_QUIET}):
            cluster = LocalCluster(
                n_workers=count_workers(compute, cards),
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                host="127.0.0.1",
            )
        _client = Client(cluster)
        if cards:
            _client.register_plugin(_make_card_plugin(cards))
    _client_settings = (compute, cards)
    return _client


def _make_card_plugin(cards: tuple[str, ...]) -> Any:
    """Return what shows each worker one card, before anything in it asks for cards."""
    from distributed import WorkerPlugin

    class OneCard(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            # Local workers are numbered, and one that is started again keeps its number.
            os.environ["CUDA_VISIBLE_DEVICES"] = cards[worker.name % len(cards)]

    return OneCard()


atexit.register(close_client)
