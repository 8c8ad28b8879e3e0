"""A Dask cluster started by hand, by the commands of docs/CLUSTER.md, runs a study's scans."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from helpers import cohort, inference
from helpers.compute import close_client, map_cases
from helpers.parameters import Compute

from .test_cohort import Project


def read_commands(repository) -> dict[str, list[str]]:
    """The words of the page's scheduler and worker commands."""
    text = (repository / "docs" / "CLUSTER.md").read_text("utf-8")
    return {
        name: shlex.split(re.search(rf"^\.venv/bin/dask {name} .*$", text, re.MULTILINE).group())
        for name in ("scheduler", "worker")
    }


@pytest.fixture
def address(repository, tmp_path):
    """A scheduler and two workers as processes of their own, on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    own = {"10.0.0.5": "127.0.0.1", "8786": port, "tcp://10.0.0.5:8786": f"tcp://127.0.0.1:{port}", "16": "2"}
    own[".venv/bin/dask"] = str(Path(sys.executable).with_name("dask"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "DASK_TEMPORARY_DIRECTORY": str(tmp_path)}
    logs = (tmp_path / "log").open("w")
    started = [
        subprocess.Popen(
            [own.get(word, word) for word in words], env=environment, cwd=tmp_path, stdout=logs, stderr=logs
        )
        for words in read_commands(repository).values()
    ]
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        close_client()
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(timeout=30)
        logs.close()


def ask_process(case: int) -> tuple[int, str]:
    time.sleep(0.2)  # long enough for the other worker to take the next one
    return os.getpid(), os.environ.get("OMP_NUM_THREADS", "")


@pytest.mark.slow
def test_a_study_on_a_cluster_started_by_hand(address, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    project = Project(tmp_path)
    for name in ("a", "b", "c"):
        project.add(name)
    study = project.load(**{"compute.workers": 0})
    cohort.build_cohort(study)
    in_process = inference.run_inference(study)
    masks = {scan: study.prediction_path("ellipse", scan).read_bytes() for scan in in_process["scan"]}
    on_cluster = project.load(**{"compute.scheduler": address, "outputs": "elsewhere"})
    cohort.build_cohort(on_cluster)
    table = inference.run_inference(on_cluster)
    assert table["status"].tolist() == ["ok"] * 3
    assert masks == {scan: on_cluster.prediction_path("ellipse", scan).read_bytes() for scan in table["scan"]}
    found = pd.DataFrame(
        map_cases(ask_process, list(range(6)), ids=list("abcdef"), compute=Compute(scheduler=address), label="asking")
    )
    assert found[0].nunique() == 2 and os.getpid() not in set(found[0])
