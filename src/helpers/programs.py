"""Other programs: started by words, watched, and ended together with all that they started."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from helpers.errors import SegfairError
from helpers.parameters import CommandModel
from helpers.storage import open_scratch
from helpers.study import Study

# What a program is given of this process's environment; what belongs to our own Python is not.
_KEPT = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_PATIENCE_S = 5.0  # between the request to end and the kill
_VERSION_S = 120.0  # for the answer of a version command
_LONGEST = 200  # letters of a program's own words within a sentence
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_SILENT = "it said nothing"


def split_words(command: str) -> list[str]:
    """Take a command apart into words, as a shell would quote them; nothing else of a shell."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SegfairError(f"cannot be taken apart into words ({error}): close the quotes; got {command!r}") from error
    if not words:
        raise SegfairError("is empty: name the program and its words")
    return words


def list_placeholders(words: Sequence[str]) -> list[str]:
    """Return the names that stand in braces; any other braces are a program's own."""
    return list(dict.fromkeys(name for word in words for name in _PLACEHOLDER.findall(word)))


def fill_words(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Fill in placeholders: a word stays one word, whatever the value holds."""
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in words]


def make_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return a clean environment for a program: little of this process's, and `own` laid over."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | dict(own)


def find_program(name: str, environment: Mapping[str, str], folder: Path) -> str | None:
    """Return the file that `name` starts, from `folder` where it is a relative path; else None."""
    return shutil.which(str(folder / name) if "/" in name else name, path=environment.get("PATH"))


def run_program(
    words: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path, timeout_s: float
) -> None:
    """Run a program to its end, without input; what it says goes to `log`.

    It gets a process group of its own. Whatever is left of that group when the program has ended,
    its time is up, or this process is interrupted, is asked to end (SIGTERM) and killed (SIGKILL) 5
    s later.

    No shell reads `words`; `environment` is all of it (:func:`make_environment`).

    Raises a SegfairError: the program is missing, cannot be started, ended with an error or a
    signal, or took longer than `timeout_s`; with its own last words.
    """
    name = Path(words[0]).name
    program = find_program(words[0], environment, folder)
    if program is None:
        raise SegfairError(f"there is no program {name!r} that can be started: install it or give its whole path")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                words,
                executable=program,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise SegfairError(
                f"{name} cannot be started ({error.strerror}): name the interpreter before it (python, bash)"
            ) from error
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise SegfairError(
                f"{name} was ended after {timeout_s / 60:g} minutes: raise timeout_minutes if it needs longer "
                f"(its last words: {read_last_words(log)})"
            ) from None
        finally:
            _end_group(process)
    if code:
        raise SegfairError(f"{name} {_explain_code(code)}: {read_last_words(log)}")


def read_last_words(log: Path) -> str:
    """Return the last line of a log that says something, without colours and control characters."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - (1 << 14)))
        text = stream.read().decode("utf-8", errors="replace")
    lines = [_CONTROLS.sub("", line).strip() for line in re.split(r"[\r\n]+", text)]
    last = next((line for line in reversed(lines) if line), _SILENT)
    return last if len(last) <= _LONGEST else f"{last[: _LONGEST - 1]}…"


def ask_model_version(model: CommandModel, study: Study) -> str:
    """Return what a version command says, empty where a model has none; errors of run_program."""
    if model.version_command is None:
        return ""
    words = [study.expand(word) for word in split_words(model.version_command)]
    own = {name: study.expand(value) for name, value in model.environment.items()}
    return ask_version(words, make_environment(own), study.root)


def ask_version(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    """Return all that a version command says; a SegfairError as by :func:`run_program`."""
    with open_scratch() as place:
        log = place / "version"
        run_program(words, environment=environment, folder=folder, log=log, timeout_s=_VERSION_S)
        return log.read_text(encoding="utf-8", errors="replace").strip()


def _explain_code(code: int) -> str:
    # A shell, or a container's own start, tells of a signal by adding 128 to it.
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return "was killed (signal 9), most likely because memory ran out"
    with suppress(ValueError):
        return f"crashed or was ended ({signal.Signals(number).name})"
    return f"ended with exit code {code}"


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a program's process group, and collect the program."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _PATIENCE_S
        try:
            os.killpg(process.pid, request)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)  # raises where nobody is left
                time.sleep(0.02)
        except (ProcessLookupError, PermissionError):  # the latter: none of it is ours
            break
    process.wait()
