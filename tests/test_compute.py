"""The same call in process, on local processes and on a cluster; failures are values."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from helpers import compute as compute_module
from helpers import jobs
from helpers.compute import CaseFailure, close_client, hold_jobs, map_cases
from helpers.errors import SegfairError
from helpers.parameters import Compute

# distributed closes sockets after the event loop is gone; its own business, not ours.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def invert(number: float) -> float:
    time.sleep(0.05 if number == 1 else 0)  # the first case ends last: order must not follow completion
    if number == 3:
        raise SegfairError("3 is broken: mend it")
    return 1 / number


def leave(number: int) -> int:
    if number == 2:
        os._exit(1)
    return os.getpid()


@pytest.fixture(params=[0, 2], ids=["in process", "two workers"])
def compute(request):
    yield Compute(workers=request.param)
    close_client()


def test_results_come_in_order_and_failures_in_their_place(compute, capsys):
    results = map_cases(invert, [1, 0, 3, 4], ids=["one", "zero", "three", "four"], compute=compute, label="inverting")
    assert results[0] == 1 and results[3] == 0.25
    assert (
        results[1].case == "zero"
        and results[1].error.startswith("ZeroDivisionError: ")
        and "division by zero" in results[1].error
    )
    assert "Traceback" in results[1].details
    assert results[2] == CaseFailure("three", "3 is broken: mend it")
    shown = capsys.readouterr().out
    assert "inverting: three failed: 3 is broken: mend it" in shown
    assert "4/4" in shown


def test_no_cases_is_no_work_and_no_bar(compute, capsys):
    assert map_cases(invert, [], ids=[], compute=compute, label="nothing") == []
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_a_worker_that_is_slow_to_end_is_no_news_and_one_that_is_lost_is(caplog):
    map_cases(invert, [1.0, 2.0], ids=["a", "b"], compute=Compute(workers=2), label="inverting")
    told = logging.getLogger("distributed.nanny")
    told.warning("Worker process still alive after %s seconds, killing", 4.0)
    told.warning("Restarting worker")
    warned = [one.getMessage() for one in caplog.records if one.name == told.name and one.levelno >= logging.WARNING]
    assert warned == ["Restarting worker"]


@pytest.mark.slow
def test_a_killed_worker_costs_its_case_alone():
    try:
        results = map_cases(leave, [1, 2, 3], ids=["a", "b", "c"], compute=Compute(workers=2), label="leaving")
    finally:
        close_client()
    assert isinstance(results[1], CaseFailure) and "did not survive" in results[1].error
    assert isinstance(results[0], int) and isinstance(results[2], int)


def tell_card(number: int) -> tuple[int, str]:
    time.sleep(0.2)  # long enough for every worker to get some
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


def test_every_process_sees_one_card():
    options = {"ids": list("abcdef"), "compute": Compute(), "label": "x", "cards": ["2", "GPU-5f3a"]}
    try:
        first = set(map_cases(tell_card, range(6), **options))
        compute_module._client.restart()  # as workers are that died
        later = set(map_cases(tell_card, range(6), **options))
    finally:
        close_client()
    assert first.isdisjoint(later)
    assert sorted(card for _, card in first) == sorted(card for _, card in later) == ["2", "GPU-5f3a"]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") not in ("2", "GPU-5f3a")


@pytest.mark.parametrize(
    ("settings", "cards", "workers"),
    [({}, [], 16), ({}, ["0", "1"], 2), ({"workers": 4}, ["0", "1"], 4), ({"workers": 0}, ["0"], 0)],
)
def test_a_process_per_card_else_per_core(monkeypatch, settings, cards, workers):
    monkeypatch.setattr(compute_module, "count_cores", lambda: 16)
    assert compute_module.count_workers(Compute(**settings), cards) == workers


def test_an_existing_scheduler_is_used():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, host="127.0.0.1", protocol="tcp"
    ) as cluster:
        try:
            results = map_cases(
                leave, [1, 3], ids=["a", "c"], compute=Compute(scheduler=cluster.scheduler_address), label="there"
            )
        finally:
            close_client()
    assert results == [os.getpid()] * 2


def test_settings_that_do_not_fit_a_scheduler_are_one_sentence():
    import dask

    with (
        dask.config.set({"distributed.comm.tls.ca-file": "/none/ca.pem", "distributed.comm.require-encryption": True}),
        pytest.raises(SegfairError, match=r"cannot be reached with the settings of Dask on this machine \(.*: correct"),
    ):
        map_cases(invert, [1], ids=["a"], compute=Compute(scheduler="tcp://127.0.0.1:9"), label="x")


def test_no_scheduler_is_one_sentence(monkeypatch):
    import distributed

    def refuse(*arguments, **options):
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(SegfairError, match=r"compute.scheduler tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        map_cases(invert, [1], ids=["a"], compute=Compute(scheduler="tcp://127.0.0.1:9"), label="x")


@pytest.fixture
def passing():
    """Nothing is left over of earlier tests, and nothing for later ones."""
    compute_module.take_passing()
    yield compute_module.take_passing
    compute_module.take_passing()


def meet_faults(case: tuple[str, Path]) -> str:
    """Fail as a disk fails once, as one that stays full, and as a broken file does."""
    kind, seen = case
    first = not seen.exists()
    seen.touch()
    if kind == "once" and first:
        raise OSError(errno.EIO, "Input/output error")
    if kind == "full":
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise SegfairError("the disk is full: make room") from error
    if kind == "broken":
        raise SegfairError("is no mask: mend it") from FileNotFoundError(errno.ENOENT, "No such file")
    return kind


def test_a_fault_of_the_machine_is_tried_again_and_kept_apart(compute, passing, tmp_path):
    kinds = ["once", "full", "broken", "well"]
    cases = [(kind, tmp_path / kind) for kind in kinds]
    found = map_cases(meet_faults, cases, ids=kinds, compute=compute, label="x")
    assert [found[0], found[3]] == ["once", "well"]
    assert found[1] == CaseFailure("full", "the disk is full: make room", of_machine=True)
    assert found[2] == CaseFailure("broken", "is no mask: mend it")
    assert passing() == {"full": "the disk is full: make room"}
    assert passing() == {}


def refuse(number: int) -> None:
    raise SegfairError("no: ask otherwise")


def test_one_reason_is_not_told_for_every_scan(capsys):
    map_cases(refuse, range(40), ids=[str(n) for n in range(40)], compute=Compute(workers=0), label="asking")
    lines = [line.split("\r")[-1].strip() for line in capsys.readouterr().out.splitlines() if "failed" in line]
    assert lines == [
        *(f"asking: {n} failed: no: ask otherwise" for n in range(3)),
        "asking: 37 more failed: no: ask otherwise",
    ]


@pytest.mark.slow
def test_only_who_kills_its_worker_alone_is_blamed(passing):
    """With one worker the next case waits beside the killer each time."""
    try:
        found = map_cases(leave, [2, 1, 3], ids=["killer", "a", "b"], compute=Compute(workers=1), label="leaving")
    finally:
        close_client()
    assert found[0].killed and all(isinstance(one, int) for one in found[1:])
    assert list(passing()) == ["killer"]


def double(number: int) -> int:
    return number * 2


def test_only_a_window_of_cases_is_with_the_scheduler(monkeypatch):
    monkeypatch.setattr(compute_module, "_WINDOW", 20)
    monkeypatch.setattr(compute_module._run_on_dask, "__defaults__", (20,))
    monkeypatch.setattr(compute_module, "_CHUNK", 5)
    held, look = [], compute_module._Watch.look

    def spy(watch, done, sent):
        held.append(len(sent))
        return look(watch, done, sent)

    monkeypatch.setattr(compute_module._Watch, "look", spy)
    try:
        numbers = list(range(90))
        found = map_cases(double, numbers, ids=[str(n) for n in numbers], compute=Compute(workers=1), label="x")
    finally:
        close_client()
    assert found == [2 * number for number in numbers]
    assert max(held) == 20


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"queue": "gpu"}, "is for jobs of a queueing system"),
        ({"security": {"ca_file": "/a", "cert": "/b", "key": "/c"}}, "security is for a cluster"),
        ({"scheduler": "tcp://a:1", "cluster": "slurm"}, "is a cluster that runs already"),
        ({"cluster": "slurm", "memory": "2GB"}, "cluster needs either `jobs`"),
        ({"cluster": "slurm", "memory": "2GB", "adapt": [3, 1]}, "adapt must be the fewest and the most jobs"),
        ({"cluster": "slurm", "jobs": 1}, "cluster needs `memory`"),
        ({"cluster": "slurm", "jobs": 1, "memory": "2GB", "options": {"cores": 2}}, "options holds cores, which is"),
        ({"cluster": "pbs", "jobs": 1, "memory": "2GB", "gpus": 1}, "has its own words for cards"),
        (
            {"scheduler": "tls://a:1", "security": {"ca_file": "a.pem", "cert": "/b", "key": "/c"}},
            "must be an absolute path, which means the same",
        ),
    ],
)
def test_what_does_not_fit_a_cluster_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Compute(**settings)


def test_a_certificate_that_is_not_there_is_one_sentence(tmp_path):
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca_file", "cert", "key")}
    with pytest.raises(SegfairError, match=r"compute.security.ca_file: .* is not there: give the path of a PEM file"):
        map_cases(invert, [1], ids=["a"], compute=Compute(scheduler="tls://127.0.0.1:9", security=files), label="x")


def test_what_a_job_is_asked_for(tmp_path):
    from dask_jobqueue.slurm import SLURMJob

    settings = {"cluster": "slurm", "jobs": 8, "queue": "gpu", "cores": 4, "memory": "32GB", "walltime": "04:00:00"}
    options = {"account": "ours", "worker_extra_args": ["--local-directory", "/scratch"]}
    compute = Compute(**settings, gpus=1, options=options)
    asked = jobs._choose_options(compute, tmp_path, {"SOME": 1})
    of_cluster = ("scheduler_options", "silence_logs")
    script = SLURMJob(
        "tcp://10.0.0.1:8786", name="w", **{name: asked[name] for name in asked if name not in of_cluster}
    ).job_script()
    for line in ("-p gpu", "-A ours", "--cpus-per-task=4", "--mem=30G", "-t 04:00:00", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in script
    assert "export SOME=1" in script
    assert "--resources GPU=1" in script and "--local-directory /scratch" in script
    assert script.rindex("--nthreads 1") > script.index("--nthreads 4")  # the last counts
    assert "--lifetime 14040s --lifetime-stagger 60s" in script  # six minutes before the end, or less


def test_an_option_that_a_system_does_not_have_is_one_sentence(tmp_path):
    options = {"interface": "lo", "colour": "red"}
    compute = Compute(cluster="slurm", jobs=1, memory="2GB", options=options)
    with (
        pytest.raises(SegfairError, match=r"compute.cluster slurm: the jobs cannot be described \(.*colour"),
        hold_jobs(compute, tmp_path),
    ):
        pass


def test_a_cluster_without_dask_jobqueue_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with (
        pytest.raises(SegfairError, match=r"compute\.cluster needs dask-jobqueue, which is not installed"),
        hold_jobs(Compute(cluster="slurm", jobs=1, memory="2GB"), tmp_path),
    ):
        pass


def test_processes_that_do_not_start_get_a_second_try_and_a_sentence(monkeypatch):
    import distributed

    tried = []

    def refuse_to_start(**options):
        tried.append(options["n_workers"])
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(distributed, "LocalCluster", refuse_to_start)
    with pytest.raises(SegfairError, match=r"2 worker processes cannot be started on this machine \(Runtime"):
        map_cases(invert, [1, 2], ids=["a", "b"], compute=Compute(workers=2), label="x")
    assert tried == [2, 2]
