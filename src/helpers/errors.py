"""The one error type that is meant for people."""

from __future__ import annotations


class SegfairError(ValueError):
    """Something a user can mend: the message says what, where and what to do, in one sentence.

    The command line prints the message alone; in a notebook IPython shows it without the traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints instead of a traceback (IPython's own hook)."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(SegfairError):
    """A parameter file, or an override of it, that cannot be used."""


class VolumeError(SegfairError):
    """An image or mask that cannot be read, or does not fit its partner."""


class StageError(SegfairError):
    """A stage whose inputs are missing, or that could produce nothing."""
