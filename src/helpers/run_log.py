"""What a run says: to the terminal, and as plain lines with the time to ``run.log``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from helpers.report import make_scrubber
from helpers.running import Progress, Sign

FILE = "run.log"
_BAR = re.compile(r"^(?P<step>.*?):\s+\d+%\|.*\| (?P<done>\d+)/(?P<total>\d+) \[[\d:]+<(?P<left>[\d:?]+).*\]\s*$")
_PROGRESS_SECONDS = 30.0  # how often the lines of a log say how far a step is
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class RunLog:
    """Takes what a run and its notebooks say.

    A terminal gets it as it comes. A file or pipe in its place, and ``run.log``, get whole lines:
    no carriage returns, and of a progress bar a line every 30 s. ``run.log`` is added to by every
    run, and holds no ids, paths or dates of people.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], output: TextIO, sign: Sign) -> None:
        self._folder, self._say, self._output, self._sign = folder, say, output, sign
        self._scrub = make_scrubber(folder)
        self._rest = ""
        self._step, self._told = "", 0.0

    def say(self, line: str) -> None:
        """Say a line of the run's own."""
        self.end_line()
        self._say(line)
        self.note(line)

    def note(self, line: str) -> None:
        """Write a line to ``run.log`` alone."""
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        with suppress(OSError), (self._folder / FILE).open("a", encoding="utf-8") as log:  # it must not stop a run
            for part in line.splitlines():
                log.write(f"{stamp} {self._scrub.clean(part)}\n")

    def begin_stage(self, stage: str) -> None:
        """Let others know the stage; ids are known once 01_cohort has run."""
        self._scrub = make_scrubber(self._folder)
        self._sign.show(stage)

    def write(self, text: str) -> None:
        """Take a piece of what a notebook prints."""
        if self._output.isatty():
            self._output.write(text)
        *lines, self._rest = re.split(r"[\r\n]", self._rest + text)
        for line in lines:
            self._take(line)
        if _BAR.match(self._rest):  # a bar is shown before its line ends
            self._take(self._rest)
            self._rest = ""

    def flush(self) -> None:
        """Pass on what was written."""
        self._output.flush()

    def end_line(self) -> None:
        """Take what was printed without an end of line."""
        self._take(self._rest)
        self._rest = ""

    def _take(self, line: str) -> None:
        line = _ESCAPES.sub("", line).rstrip()
        bar = _BAR.match(line)
        if bar:
            left = "" if "?" in bar["left"] else bar["left"]
            progress = Progress(bar["step"], int(bar["done"]), int(bar["total"]), left)
            self._sign.show(progress=progress)
            if not self._is_due(progress):
                return
            line = f"{progress.step}: {progress.done} of {progress.total}"
            line += f", about {left} left" if left and progress.done < progress.total else ""
        if line:
            if not self._output.isatty():
                self._output.write(f"{line}\n")
            self.note(line)

    def _is_due(self, progress: Progress) -> bool:
        """Tell whether it is time for a line on a step: each one's end, and every 30 s."""
        whole = f"{progress.step} {progress.total}"
        ended = progress.done == progress.total
        if self._step == whole if ended else time.monotonic() - self._told < _PROGRESS_SECONDS:
            return False
        self._step, self._told = whole if ended else "", time.monotonic()
        return True
