"""The notebooks' kernel: this very interpreter and package, whatever lies around them.

What other programs keep for theirs does not reach it: a kernelspec ``python3``, IPython's settings,
modules that lie in the working folder under the names of ours, a home that is not there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from helpers.errors import SegfairError
from helpers.storage import SCRATCH, open_scratch

# Where private folders are made: the first with a path short enough for sockets.
_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
_SOCKET = "kernel-5"  # the longest of five
_PACKAGES = str(Path(__file__).resolve().parents[1])
# No module is taken from the working folder (-P), in worker processes neither: they inherit it.
# Texts are UTF-8 whatever the terminal's encoding.
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ipykernel.kernelapp import IPKernelApp as app"
# What means nothing to whoever reads a run: at its end ipykernel leaves tasks behind, of which
# asyncio would warn, and is interrupted, of which it would tell.
_QUIET = (
    "import logging; quiet = lambda word: lambda told: word not in told.getMessage(); "
    "logging.getLogger('asyncio').addFilter(quiet('Task was destroyed')); "
    "logging.getLogger('IPKernelApp').addFilter(quiet('KeyboardInterrupt caught in kernel'))"
)
_COMMAND = (
    "-P",
    "-X",
    "utf8",
    "-c",
    f"{_START}; {_QUIET}; app.launch_instance()",
    _PACKAGES,
    "-f",
    "{connection_file}",
)


_SPEC = KernelSpec(argv=[sys.executable, *_COMMAND], display_name="Python 3", language="python")


class OwnKernelSpecManager(KernelSpecManager):
    """Knows one kernel, this interpreter with this package, by the name that notebooks ask for."""

    def find_kernel_specs(self) -> dict[str, str]:
        """Return its name, and that no folder holds it."""
        return {"python3": ""}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return it, whatever it is called elsewhere."""
        return _SPEC


class OwnKernelManager(AsyncKernelManager):
    """Starts this interpreter with this package, not what ``python3`` means elsewhere."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """How the kernel is started."""
        return _SPEC

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        """Start it with a folder of its own for what IPython and Jupyter keep in the home."""
        folder = str(Path(self.connection_file).parent)
        own = {"IPYTHONDIR": folder, "JUPYTER_RUNTIME_DIR": folder}
        await super().start_kernel(env=os.environ | own, **options)


@contextmanager
def open_private_folder(socket: str = _SOCKET) -> Iterator[str]:
    """Make a folder that other users cannot enter, short enough for sockets; remove it at the end.

    `socket` is the longest of them.

    Raises a SegfairError: no place is short enough and can be written.
    """
    import zmq

    length = len(f"/{SCRATCH}12345678/{socket}")
    for place in dict.fromkeys((tempfile.gettempdir(), *_PLACES)):
        if len(os.fsencode(place)) + length <= zmq.IPC_PATH_MAX_LEN and os.access(place, os.W_OK):
            with open_scratch(Path(place)) as folder:
                yield str(folder)
            return
    raise SegfairError(
        f"TMPDIR ({tempfile.gettempdir()}) is too long for a kernel's sockets, and {', '.join(_PLACES)} cannot be"
        f" written: set TMPDIR to a folder whose path has at most {zmq.IPC_PATH_MAX_LEN - length} letters"
    )


def configure_kernel(folder: str) -> Any:
    """Return the settings by which a kernel is reached over sockets in a private folder.

    TCP ports could be reached by other users of the machine.
    """
    from traitlets.config import Config

    sockets = {"transport": "ipc", "ip": f"{folder}/kernel", "connection_file": f"{folder}/kernel.json"}
    return Config({"KernelManager": sockets})
