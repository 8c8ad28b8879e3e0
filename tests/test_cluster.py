"""A Dask cluster started by hand, by the commands of docs/CLUSTER.md, runs a study's scans."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from helpers import cohort, inference
from helpers import compute as compute_module
from helpers.compute import close_client, map_cases, take_passing
from helpers.errors import SegfairError
from helpers.parameters import Compute

from .slurm_node import linger
from .test_cohort import Project


def read_commands(repository) -> dict[str, list[str]]:
    """The words of the page's scheduler and worker commands."""
    text = (repository / "docs" / "CLUSTER.md").read_text("utf-8")
    return {
        name: shlex.split(re.search(rf"^\.venv/bin/dask {name} .*$", text, re.MULTILINE).group())
        for name in ("scheduler", "worker")
    }


def find_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextmanager
def start(folder: Path, commands: list[list[str]]) -> Iterator[list[subprocess.Popen]]:
    """Start processes of `dask` that can import these tests, and end them at the end."""
    here = [str(Path(__file__).resolve().parents[1]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(here), "DASK_TEMPORARY_DIRECTORY": str(folder)}
    dask = str(Path(sys.executable).with_name("dask"))
    with (folder / "log").open("a") as log:
        started = [
            subprocess.Popen([dask, *words], env=environment, cwd=folder, stdout=log, stderr=log) for words in commands
        ]
        try:
            yield started
        finally:
            close_client()
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                process.wait(timeout=30)


@pytest.fixture
def address(repository, tmp_path):
    """A scheduler and two workers as processes of their own, on a free port of this machine."""
    port = find_port()
    own = {"10.0.0.5": "127.0.0.1", "8786": port, "tcp://10.0.0.5:8786": f"tcp://127.0.0.1:{port}", "16": "2"}
    commands = [[own.get(word, word) for word in words[1:]] for words in read_commands(repository).values()]
    with start(tmp_path, commands):
        yield f"tcp://127.0.0.1:{port}"


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


def list_commands(port: str, *workers: list[str], protocol: str = "tcp", options: list[str] | None = None):
    """The words of a scheduler and of workers, as docs/CLUSTER.md has them."""
    words = ["--no-dashboard", *(options or [])]
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", port, "--protocol", protocol, *words]
    address = f"{protocol}://127.0.0.1:{port}"
    return [scheduler, *(["worker", address, "--nworkers", "1", "--nthreads", "1", *words, *own] for own in workers)]


def ask(compute: Compute, number: int = 12, **options) -> list:
    return map_cases(
        linger, list(range(number)), ids=list(map(str, range(number))), compute=compute, label="asking", **options
    )


def test_workers_with_cards_get_the_inference(tmp_path):
    port = find_port()
    compute = Compute(scheduler=f"tcp://127.0.0.1:{port}")
    with start(tmp_path, list_commands(port, ["--resources", "GPU=1"], [])):
        assert len({process for _, process in ask(compute, 12)}) == 2
        with_cards = ask(compute, 6, on_card=True)
        assert len({process for _, process in with_cards}) == 1
        assert [number for number, _ in with_cards] == list(range(6))


def test_a_lost_scheduler_is_one_sentence_and_blames_no_scan(tmp_path):
    take_passing()
    port = find_port()
    compute = Compute(scheduler=f"tcp://127.0.0.1:{port}")
    with start(tmp_path, list_commands(port, [])) as (scheduler, _):
        ask(compute, 1)  # until all are there
        threading.Timer(1.0, scheduler.kill).start()
        with pytest.raises(SegfairError, match=r"the Dask scheduler was lost after \d+ of 500 scans \(asking\): see"):
            ask(compute, 500)
    assert take_passing() == {}


def test_no_worker_is_said_and_has_an_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compute_module, "_WORD_AFTER_S", 1.0)
    monkeypatch.setattr(compute_module, "_WAIT_S", 3.0)
    port = find_port()
    address = f"tcp://127.0.0.1:{port}"
    with (
        start(tmp_path, list_commands(port)),
        pytest.raises(SegfairError, match=r"no worker has been there for 0 minutes: start workers, or see why"),
    ):
        ask(Compute(scheduler=address))
    assert capsys.readouterr().out.count(f"asking: compute.scheduler {address}: no worker is there, waiting") == 1


def make_certificates(folder: Path) -> dict[str, str]:
    """Make an authority and one certificate by the commands of docs/CLUSTER.md."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "CLUSTER.md").read_text("utf-8")
    commands = re.findall(r"^openssl .*$", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)
    return {name: str(folder / f"{file}.pem") for name, file in (("ca_file", "ca"), ("cert", "cert"), ("key", "key"))}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")
def test_an_encrypted_cluster_takes_only_who_has_its_certificates(tmp_path):
    files = make_certificates(tmp_path)
    options = ["--tls-ca-file", files["ca_file"], "--tls-cert", files["cert"], "--tls-key", files["key"]]
    port = find_port()
    address = f"tls://127.0.0.1:{port}"
    with start(tmp_path, list_commands(port, [], protocol="tls", options=options)):
        found = ask(Compute(scheduler=address, security=files), 3)
        assert [number for number, _ in found] == [0, 1, 2]
        close_client()
        with pytest.raises(SegfairError, match=r"correct compute\.security, or those under distributed.comm"):
            ask(Compute(scheduler=address), 3)
