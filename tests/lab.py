"""JupyterLab as `segfair lab` starts it, on a small study, and a page of it in Chromium."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from helpers import cohort, inference, provenance
from helpers.serving import fill_notebooks
from helpers.study import Study, load_study

PARAMETERS = {
    "name": "small",
    "seed": 5,
    "cohort": {
        "source": "phantoms",
        "phantoms": {
            "subjects": 12,
            "spacing_mm": [7.0, 7.0, 9.0],
            "faults": False,
            "planted": {
                "effects": [{"attribute": "sex", "group": "female", "organs": ["liver"], "erosion_mm": 6.0}],
            },
        },
        "organs": {"liver": {"labels": [1]}, "spleen": {"labels": [2]}},
        "attributes": {
            "sex": {"categories": ["female", "male"]},
            "age": {"bins": [18, 45, 65, 120], "unit": "years"},
            "bmi": {"bins": [10, 27, 90], "unit": "kg/m²"},
        },
        "confounders": ["modality"],
    },
    "models": [
        {"name": "prompt_only", "kind": "prompt_only"},
        {"name": "planted", "kind": "precomputed", "path": "planted/{scan}.nii.gz", "planted": True},
    ],
    "fairness": {"bootstrap": 200, "permutations": 200, "min_group": 3, "metrics": ["dice", "boundary_error_mm"]},
    "spatial": {"organs": ["spleen"], "vertices": 300},
    "compute": {"workers": 0},
}


def write_project(folder: Path) -> Study:
    """Write a project of two studies: `small`, whose masks are predicted, and `unrun`; return the
    first.

    A notebook of `unrun` lies beside the copies that `small` gets.
    """
    (folder / "params").mkdir()
    for name in ("small", "unrun"):
        text = yaml.safe_dump(PARAMETERS | {"name": name}, allow_unicode=True, sort_keys=False)
        (folder / "params" / f"{name}.yaml").write_text(text, encoding="utf-8")
    study, unrun = (load_study(folder / "params" / f"{name}.yaml") for name in ("small", "unrun"))
    cohort.build_cohort(study)
    inference.run_inference(study)
    provenance.write_snapshot(study)
    copies = fill_notebooks(unrun, {})
    lab = fill_notebooks(study, {})
    shutil.move(copies / "03_performance.ipynb", lab / "unrun.ipynb")
    return study


@contextmanager
def start_lab(folder: Path, repository: Path, scratch: Path) -> Iterator[str]:
    """Start JupyterLab on a project by the command of `make lab`, and yield its address."""
    printed = subprocess.run(
        ["make", "--no-print-directory", "-n", "lab", "PARAMS=params/small.yaml", "LAB_OPTIONS=--no-browser"],
        cwd=repository, capture_output=True, check=True, encoding="utf-8",
    ).stdout.splitlines()[-1]  # fmt: skip
    words = shlex.split(printed)
    assert words[0].endswith("/segfair"), printed
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-c",
        "from helpers.cli import main; main()",
        *words[1:],
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
    ]
    own = {f"JUPYTER_{name}_DIR": str(scratch / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"IPYTHONDIR": str(scratch / "ipython")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"), "PYTHONPATH": str(repository / "src")}
    with (scratch / "lab.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | own,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(server, address, scratch / "lab.log")
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"{address}/api/status", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8"))


class LabPage:
    """One notebook in Lab, with everything the page asked for and complained of."""

    def __init__(self, browser, address: str, notebook: str) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 1000})
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on(
            "console", lambda message: self.complaints.append(message.text) if message.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{address}/lab/tree/{notebook}?reset", wait_until="load")
        self.page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.context?.path", timeout=60_000)
        self.page.evaluate(
            "async () => { const shown = jupyterapp.shell.currentWidget; await shown.context.ready; await"
            " shown.sessionContext.ready; }"
        )

    def run_all(self) -> None:
        """Run every cell, until the kernel has come to the end or to an error."""
        self.page.set_default_timeout(120_000)
        self.page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.wait_for_function(
            """() => {
              const cells = jupyterapp.shell.currentWidget.content.widgets.filter((cell) => cell.model.type === 'code');
              const failed = cells.some(
                (cell) => cell.model.outputs.toJSON().some((output) => output.output_type === 'error'));
              const waiting = cells.some(
                (cell) => cell.model.executionCount === null || cell.promptNode?.textContent.includes('*'));
              const idle = jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle';
              return idle && (failed || !waiting);
            }""",
            timeout=120_000,
        )

    def read_outputs(self) -> list[list[dict]]:
        """Return the outputs of every code cell."""
        return self.page.evaluate(
            """() => jupyterapp.shell.currentWidget.content.widgets.filter((cell) => cell.model.type === 'code')
                 .map((cell) => cell.model.outputs.toJSON())"""
        )

    def list_foreign_requests(self) -> list[str]:
        """Return what was asked of anyone but this machine."""
        own = ("data", "blob", "about")
        return [
            url
            for url in self.requests
            if urlsplit(url).scheme not in own and urlsplit(url).hostname not in ("127.0.0.1", "localhost")
        ]

    def close(self) -> None:
        """Shut the kernel and leave."""
        self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.context.close()


def list_bars(outputs: list[list[dict]]) -> list[str]:
    """Return the progress bars of a notebook as a reader sees them: the last state of each line."""
    text = "".join("".join(output["text"]) for cell in outputs for output in cell if output["output_type"] == "stream")
    lines = [line.split("\r")[-1] for line in text.split("\n")]
    return [line for line in lines if re.search(r"\d+%\|", line)]


def list_errors(outputs: list[list[dict]]) -> dict[int, str]:
    """Return what the failed cells show, by their place among the code cells, without colours."""
    found = {}
    for place, cell in enumerate(outputs):
        for output in cell:
            if output["output_type"] == "error":
                found[place] = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"]))
    return found


def save(page: LabPage, path: Path) -> None:
    """Keep what the page has complained of, for whoever looks at a failure."""
    path.write_text(json.dumps({"requests": page.requests, "complaints": page.complaints}, indent=2), encoding="utf-8")
