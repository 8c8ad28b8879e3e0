"""Who works on a study at the moment, and how far it is."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from helpers import storage
from helpers.errors import SegfairError

_FILE = ".running.json"
_NOTE_SECONDS = 1.0  # how often progress is written down


@dataclass(frozen=True)
class Progress:
    """How far the step at work is."""

    step: str
    done: int
    total: int
    left: str  # as tqdm tells it, such as 01:48; empty where it cannot be known yet


@dataclass(frozen=True)
class Running:
    """The process that works on a study."""

    pid: int
    host: str
    started_at: str  # ISO 8601, UTC
    stage: str = ""
    progress: Progress | None = None
    last_word_at: str = ""  # ISO 8601, UTC

    def __str__(self) -> str:
        """Return who it is, for people."""
        where = "" if self.host == platform.node() else f" on {self.host}"
        return f"process {self.pid}{where}, since {self.started_at}"


class Sign:
    """What a running process lets others know of itself."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._running = Running(os.getpid(), platform.node(), _now())
        self._noted = 0.0

    def show(self, stage: str = "", progress: Progress | None = None) -> None:
        """Write down the stage, or how far its step is; the latter once a second at most."""
        now = time.monotonic()
        if progress is not None and now - self._noted < _NOTE_SECONDS and progress.done < progress.total:
            return
        self._noted = now
        known = self._running
        self._running = Running(known.pid, known.host, known.started_at, stage or known.stage, progress, _now())
        with suppress(SegfairError):  # a full disk stops the stage itself, in its own words
            storage.write_json(asdict(self._running), self._path)

    def remove(self) -> None:
        """Take it away."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


@contextmanager
def hold_study(folder: Path, name: str) -> Iterator[Sign]:
    """Keep other runs away from a study's folder; what killed ones left half-written is removed.

    Raises a SegfairError: another process is at work on it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = f": {running}" if (running := read_running(folder)) else ""
        raise SegfairError(
            f"another segfair run is working on study {name!r} ({folder}{who}): wait for it, or end it first"
        ) from None
    sign = Sign(folder)
    try:
        storage.remove_partial(folder)
        sign.show()
        yield sign
    finally:
        sign.remove()
        lock.release()


def read_running(folder: Path) -> Running | None:
    """Return the process that works on a study; None where none does.

    A process of this machine that is no more does not count. Of other machines that cannot be
    told: its last word says how long it has been silent.
    """
    try:
        record: dict[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        progress = Progress(**record["progress"]) if record["progress"] else None
        running = Running(**{**record, "progress": progress})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return running if running.host != platform.node() or _is_alive(running) else None


def _is_alive(running: Running) -> bool:
    """Tell whether a process of this machine runs, and is not a later one of the same number."""
    import psutil

    try:
        began = psutil.Process(running.pid).create_time()
    except psutil.Error:
        return False
    return began <= datetime.fromisoformat(running.started_at).timestamp() + 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
