"""JupyterLab on a study's copies of the notebooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from helpers.study import REPOSITORY, Study


def start_lab(study: Study, folder: Path, options: Sequence[str] = ()) -> NoReturn:
    """Become JupyterLab, on this machine's own address; it sees the copies' folder alone.

    ``.jupyter/`` turns off news, look-ups of new versions and the extension store: Lab asks nothing
    of the internet.

    Where the study has been measured, the exploration is opened, else the first notebook. `options`
    are Lab's own.
    """
    opened = "explore" if study.path("metrics").exists() else "01_cohort"
    settings = [str(REPOSITORY / ".jupyter"), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    own = {"JUPYTER_CONFIG_PATH": os.pathsep.join(settings), "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces")}
    command = [
        sys.executable,
        *("-m", "jupyter", "lab", f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1"),
        f"--LabApp.default_url=/lab/tree/{opened}.ipynb",
        "--ServerApp.kernel_spec_manager_class=helpers.kernel.OwnKernelSpecManager",
        *(["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []),
        *options,
    ]
    os.chdir(folder)
    os.execve(sys.executable, command, os.environ | own)
