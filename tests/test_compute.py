"""The same call in process, on local processes and on a cluster; failures are values."""

from __future__ import annotations

import os
import time

import pytest

from helpers import compute as compute_module
from helpers.compute import CaseFailure, close_client, map_cases
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


def test_no_cases_is_no_work(compute):
    assert map_cases(invert, [], ids=[], compute=compute, label="nothing") == []


def test_ids_must_fit():
    with pytest.raises(ValueError, match="ids must name each of the 2 cases; got 1"):
        map_cases(invert, [1, 2], ids=["a"], compute=Compute(workers=0), label="x")


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
