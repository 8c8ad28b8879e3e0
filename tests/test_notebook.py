"""A notebook's first call: what is missing is said in one sentence, in the first second, and shown
without a traceback."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell

from helpers import compute, provenance, storage
from helpers.errors import ParameterError, SegfairError, StageError
from helpers.notebook import close_stage, open_stage, open_study
from helpers.parameters import Compute
from helpers.study import load_study
from tests.test_parameters import SMALL

# Per notebook: what the study already has, and the beginning and the end of the sentence.
UNREADY = [
    ("02_inference", [], "cohort.parquet is missing", "run 01_cohort or `segfair run params/small.yaml --until 01`"),
    (
        "03_performance", [], "cohort.parquet is missing",
        "run 01_cohort and 02_inference or `segfair run params/small.yaml --until 02`",
    ),
    (
        "03_performance", ["cohort"], "predictions/ellipse/inference.parquet is missing",
        "run 02_inference or `segfair run params/small.yaml --until 02`",
    ),
    (
        "04_spatial", ["cohort"], "predictions/ellipse/inference.parquet is missing",
        "run 02_inference or `segfair run params/small.yaml --until 02`",
    ),
    (
        "05_report", ["cohort"], "metrics.parquet is missing",
        "run 03_performance or `segfair run params/small.yaml --until 03`",
    ),
]  # fmt: skip


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params" / "small.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return path


@pytest.mark.parametrize(("stage", "present", "begins", "ends"), UNREADY)
def test_notebook_before_its_inputs_names_what_to_run(params, stage, present, begins, ends):
    study = load_study(params)
    for name in present:
        storage.write_text("", study.path(name))
    with pytest.raises(StageError) as raised:
        open_stage(stage, str(params))
    assert str(raised.value) == f"{begins} for study 'small': {ends}"
    assert not (study.folder / "study.yaml").exists(), "nothing is written by a stage that cannot begin"


def test_first_notebook_needs_nothing(params):
    assert open_stage("01_cohort", str(params)).folder.joinpath("study.yaml").exists()


def test_a_stage_is_recorded_as_running_before_anything_is_replaced(params, monkeypatch):
    """A kill after the first file leaves a stage that is not up to date."""
    seen = []
    monkeypatch.setattr(
        provenance,
        "write_snapshot",
        lambda study: seen.append(provenance.read_run(study.folder)["stages"]["01_cohort"]["status"]),
    )
    open_stage("01_cohort", str(params))
    assert seen == ["running"]


def spend(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_processor_time_counts_the_kernel_and_its_workers(params):
    study = open_stage("01_cohort", str(params))
    spend(0.3)
    compute.map_cases(spend, [1.0, 1.0], ids=["a", "b"], compute=Compute(workers=2), label="spending")
    time.sleep(1.0)  # waiting costs seconds, but no processor
    close_stage(study, "01_cohort")
    record = provenance.read_run(study.folder)["stages"]["01_cohort"]
    assert record["processor_seconds"] >= 2.3, "0.3 s here and 1 s in each of two workers"
    assert record["seconds"] >= 1.0


def test_looking_at_a_study_writes_nothing(params):
    study = open_study(str(params))
    assert not study.folder.exists()
    with pytest.raises(StageError, match=r"metrics\.parquet is missing"):
        open_study(str(params), needs=("metrics",))


@pytest.mark.parametrize("kind", [SegfairError, ParameterError, StageError])
def test_error_for_people_is_shown_without_a_traceback(kind, capsys):
    shell = InteractiveShell.instance()
    try:
        shell.run_cell(f"from helpers.errors import {kind.__name__}\nraise {kind.__name__}('do this')")
    finally:
        InteractiveShell.clear_instance()
    shown = capsys.readouterr()
    assert [line for line in (shown.out + shown.err).splitlines() if line.strip()] == [f"{kind.__name__}: do this"]


def test_opening_a_notebook_compiles_no_grammars():
    """A second of every stage's process; plotly's renderers import what would do it."""
    opened = "from helpers.figures.style import use_safe_renderer as use; use(); import sys, nbformat"
    told = subprocess.run(
        [sys.executable, "-c", f"{opened}; print('lark' in sys.modules)"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert told.stdout == "False\n"
