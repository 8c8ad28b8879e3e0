"""A study on a real SLURM: jobs start, work, die, are replaced, and none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helpers.compute import close_client, hold_jobs, map_cases
from helpers.errors import SegfairError
from helpers.parameters import Compute

from .conftest import skip_unless_required
from .slurm_node import list_jobs, say_missing, start_slurm, wait_until, work
from .test_cluster import make_certificates
from .test_cohort import Project

# distributed closes sockets after the event loop is gone; its own business, not ours.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
JOBS = {
    "cluster": "slurm",
    "queue": "main",
    "memory": "2GB",
    "walltime": "01:00:00",
    "options": {"interface": "lo", "job_directives_skip": ["--mem"]},
}


@pytest.fixture(scope="module")
def slurm():
    if reason := say_missing():
        skip_unless_required("slurm", reason)
    with pytest.MonkeyPatch.context() as patch, start_slurm() as environment:
        here = [str(Path(__file__).resolve().parents[1]), *sys.path]
        for name, value in (environment | {"PYTHONPATH": os.pathsep.join(here)}).items():
            patch.setenv(name, value)
        yield
        close_client()


def strike(folder: Path, struck: list[str]) -> None:
    """Kill a worker process, and when it has work again end a whole job, as SLURM does."""
    _, _, process = wait_until(lambda: [path.name.split("-") for path in folder.iterdir()])[0]
    os.kill(int(process), signal.SIGKILL)
    _, job, _ = wait_until(
        lambda: [parts for path in folder.glob("*-*-*") if (parts := path.name.split("-"))[2] != process]
    )[0]
    subprocess.run(["scancel", job], check=True)
    struck += [process, job]


def list_logs(folder: Path) -> list[str]:
    """Return the ids of all jobs that ever started."""
    return [path.stem.removeprefix("segfair-") for path in (folder / "jobs").glob("segfair-*.err")]


def test_a_worker_and_a_job_killed_in_the_middle(slurm, tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    striker = threading.Thread(target=strike, args=(folder, struck := []))
    compute = Compute(jobs=2, security=make_certificates(tmp_path), **JOBS)
    numbers = list(range(30))
    with hold_jobs(compute, tmp_path / "jobs"):
        striker.start()
        found = map_cases(
            work, [(number, folder) for number in numbers], ids=list(map(str, numbers)), compute=compute, label="x"
        )
        striker.join()
        close_client()
    assert [one[0] for one in found] == numbers  # all of them, in order
    process, job = struck
    assert int(process) not in {one[2] for one in found}
    assert job in set(list_logs(tmp_path)) and len(list_logs(tmp_path)) >= 3  # two, and one for the one that ended
    assert wait_until(lambda: not list_jobs())


def test_a_queue_that_is_not_there_is_one_sentence(slurm, tmp_path):
    compute = Compute(jobs=2, **JOBS | {"queue": "nowhere"})
    with (
        pytest.raises(SegfairError, match=r"compute.cluster slurm: the system does not take a job \(.*nvalid part"),
        hold_jobs(compute, tmp_path),
    ):
        pass


def test_segfair_run_starts_jobs_and_ends_them_also_when_it_is_ended(slurm, tmp_path, repository):
    project = Project(tmp_path)
    for name in ("a", "b", "c"):
        project.add(name)
    study = project.load()
    compute = JOBS | {"adapt": [0, 2]}
    study.source.write_text(
        study.source.read_text("utf-8").replace("compute:\n  workers: 0", f"compute: {json.dumps(compute)}"), "utf-8"
    )
    command = [sys.executable, "-c", "from helpers.cli import main; main()", "run", str(study.source), "--until", "02"]
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    first = subprocess.Popen(command, **options)
    wait_until(list_jobs)
    first.send_signal(signal.SIGTERM)
    told, _ = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM, told
    assert "Traceback" not in told
    assert wait_until(lambda: not list_jobs())

    second = subprocess.run(command, **options, timeout=120)
    assert second.returncode == 0, second.stdout
    record = json.loads((study.folder / "run.json").read_text("utf-8"))["stages"]
    assert {stage: record[stage]["status"] for stage in record} == {"01_cohort": "finished", "02_inference": "finished"}
    assert study.read("inference", model="ellipse")["status"].tolist() == ["ok"] * 3
    assert wait_until(lambda: not list_jobs())
