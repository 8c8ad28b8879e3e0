"""The one error type that is meant for people."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

_LONGEST, _MOST_LINES = 1500, 60  # letters of a line and lines that somebody reads
_quoting = reprlib.Repr()
_quoting.maxlevel, _quoting.maxlist, _quoting.maxdict = 3, 12, 8
_quoting.maxstring = _quoting.maxother = 100


class SegfairError(ValueError):
    """Something a user can mend: the message says what, where and what to do, in one sentence.

    The command line prints the message alone; in a notebook IPython shows it without the traceback.

    Whatever a message quotes, no line of it is longer than anybody reads.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shorten(message))

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints instead of a traceback (IPython's own hook)."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(SegfairError):
    """A parameter file, or an override of it, that cannot be used."""


class VolumeError(SegfairError):
    """An image or mask that cannot be read, or does not fit its partner."""


class StageError(SegfairError):
    """A stage whose inputs are missing, or that could produce nothing."""


def quote(value: Any) -> str:
    """Return a value that came from outside as Python writes it, cut where it is long."""
    return _quoting.repr(value)


def list_some(names: Iterable[Any], most: int = 5) -> str:
    """Return names with commas between them; of many the first, and an ellipsis."""
    found = list(map(str, names))
    return ", ".join(found[:most]) + (", …" if len(found) > most else "")


def find_likely(name: Any, known: Iterable[str]) -> str | None:
    """Return the known name that an unknown one was most likely meant to be, if any."""
    return next(iter(difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.7)), None)


def suggest(name: Any, known: Iterable[str]) -> str:
    """Return ``" (did you mean x?)"``, to end a message about an unknown name, or nothing."""
    likely = find_likely(name, known)
    return f" (did you mean {likely}?)" if likely else ""


def shorten(message: str, longest: int = _LONGEST) -> str:
    """Cut the middle out of lines longer than anybody reads, and the end off a message of many."""
    lines = message.split("\n")
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], "… and more"]
    # What is wrong stands in front, what to do at the end.
    part = longest // 3
    return "\n".join(line if len(line) <= longest else f"{line[: 2 * part]} … {line[-part:]}" for line in lines)
