"""Running notebooks in order, on miniature ones: skipping, forcing, failing, refusing."""

from __future__ import annotations

import errno
import json

import nbformat
import pandas as pd
import pytest
import yaml

from helpers import pipeline, provenance, storage
from helpers.errors import SegfairError, StageError
from helpers.schema import STAGES, list_outputs
from helpers.study import load_study
from tests.test_parameters import SMALL

# jupyter_client and asyncio leave sockets to the garbage collector; not ours to mend.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*kernel.*:RuntimeWarning"
)

TABLE = (
    'pd.DataFrame({"scan": ["a"], "number": [1], "subject": ["a"], "reference": [None], "image": [None], "included":'
    ' [True], "status": ["failed"]})'
)


def write_notebook(path, stage: str, body: str = "") -> None:
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    parameters = nbformat.v4.new_code_cell('params = ""\noverrides = {}', metadata={"tags": ["parameters"]})
    lines = [
        "import pandas as pd",
        "from helpers import storage",
        "from helpers.notebook import close_stage, open_stage",
        f'study = open_stage("{stage}", params, overrides)',
        f'print("in {stage}", study.parameters.fairness.alpha)',
        body,
    ]
    for name in list_outputs(stage, ["ellipse"]):
        write = "write_text('<html>', " if name.endswith((".html", ".tex")) else f"write_table({TABLE}, "
        lines.append(f'storage.{write}study.folder / "{name}")')
    lines.append(f'close_stage(study, "{stage}")')
    notebook.cells = [parameters, nbformat.v4.new_code_cell("\n".join(lines))]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "params" / "small.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    for stage in STAGES:
        write_notebook(tmp_path / "notebooks" / f"{stage}.ipynb", stage)
    return load_study(path)


def run(study, stages=STAGES, *, force=False, overrides=None) -> list[str]:
    said: list[str] = []
    study = load_study(study.source, overrides or {})
    pipeline.run_study(study, overrides=overrides or {}, stages=stages, force=force, say=said.append)
    return said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, list(STAGES)),
        ({"first": "03"}, list(STAGES)[2:]),
        ({"last": "2"}, list(STAGES)[:2]),
        ({"only": "04_spatial"}, ["04_spatial"]),
        ({"first": "02", "last": "report"}, list(STAGES)[1:]),
    ],
)
def test_stages_are_chosen_by_number_or_name(options, expected):
    assert pipeline.select_stages(**options) == expected


def test_impossible_choices_are_refused():
    with pytest.raises(StageError, match="stage '07' is unknown; stages are 01_cohort"):
        pipeline.select_stages(only="07")
    with pytest.raises(StageError, match="--from 04_spatial comes after --until 02_inference"):
        pipeline.select_stages(first="04", last="02")
    with pytest.raises(StageError, match="--only cannot be combined"):
        pipeline.select_stages(only="04", first="02")


@pytest.mark.slow
def test_a_run_skips_what_is_up_to_date_and_reruns_what_a_change_touches(study, capfd):
    first = run(study)
    assert [line for line in first if line.endswith("running")] == [
        f"[{n}/5] {s}: running" for n, s in enumerate(STAGES, 1)
    ]
    assert "in 03_performance 0.05" in capfd.readouterr().out, "what a notebook prints must reach the terminal"
    again = run(study)
    assert again[:5] == [f"[{n}/5] {s}: up to date" for n, s in enumerate(STAGES, 1)]
    assert [line.split()[:2] for line in again[5:]] == [[stage, "done"] for stage in STAGES], "a line per stage ends it"

    changed = run(study, overrides={"fairness.alpha": 0.01})
    assert [line.split()[1] for line in changed if line.endswith("up to date")] == ["01_cohort:", "02_inference:"]
    assert "in 03_performance 0.01" in capfd.readouterr().out

    run(study, overrides={})
    study.path("metrics").unlink()
    assert [line.split()[1] for line in run(study) if line.endswith("running")] == ["03_performance:"]
    assert [line for line in run(study, stages=["01_cohort"], force=True) if line.endswith("running")]

    record = json.loads((study.folder / "run.json").read_text(encoding="utf-8"))
    assert list(record["stages"]) == list(STAGES)
    assert (
        record["stages"]["03_performance"]["status"] == "finished" and record["stages"]["03_performance"]["seconds"] > 0
    )
    assert record["packages"]["papermill"] and record["parameters"]["name"] == "small"
    executed = nbformat.read(study.folder / "notebooks" / "03_performance.ipynb", as_version=4)
    assert str(study.root) not in json.dumps(executed), (
        "an executed notebook is shared: it must not name this machine's folders"
    )
    assert (study.folder / "notebooks" / "03_performance.html").exists()


# What is edited, and the stages whose results it makes. An edit of a figure must not run models
# again.
EDITS = [
    ("figures/style.py", ["05_report"]),
    ("report/calibration.json", ["05_report"]),
    ("widgets/live_figure.js", []),
    ("spatial/template.py", ["04_spatial", "05_report"]),
    ("fairness/audit.py", ["03_performance", "04_spatial", "05_report"]),
    ("models/sam.py", ["02_inference", "03_performance", "04_spatial", "05_report"]),
    ("models/weights/sam_demo.safetensors", ["02_inference", "03_performance", "04_spatial", "05_report"]),
    (
        "models/weights/nnunet_demo/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_all/checkpoint_final.pth",
        ["02_inference", "03_performance", "04_spatial", "05_report"],
    ),
    ("demo/anatomy.py", list(STAGES)),
    ("storage.py", list(STAGES)),
]


@pytest.mark.parametrize(("edited", "stale"), EDITS)
def test_a_stage_depends_on_the_code_that_makes_its_results(study, monkeypatch, edited, stale):
    before, package = provenance.Fingerprints(study), provenance.OwnCode.read()
    known = {stage: before.find(stage) for stage in STAGES}
    package.hashes[edited] = f"not {package.hashes[edited]}"
    monkeypatch.setattr(provenance.OwnCode, "read", lambda: package)
    after = provenance.Fingerprints(study)
    assert [stage for stage in STAGES if after.find(stage) != known[stage]] == stale


def test_everything_that_is_shipped_is_hashed(repository):
    package = provenance.OwnCode.read()
    folder = repository / "src" / "helpers"
    shipped = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.relative_to(folder).as_posix() for path in shipped} == set(package.hashes)
    assert "volumes" in str(package.imports["performance/measuring.py"])


def write_outputs(study, stage: str, value: float = 1.0) -> None:
    """Write what a finished stage must leave, and some of what it may."""
    for name in [*list_outputs(stage, ["ellipse"]), *MAY_WRITE.get(stage, [])]:
        path = study.folder / name
        columns = {"scan": "a", "subject": "a", "status": "ok", "included": True, "reference": None, "image": None}
        table = pd.DataFrame([columns | {"value": value}])
        if path.suffix in (".parquet", ".csv"):
            storage.write_table(table, path)
        else:
            storage.write_text(f"{value}", path)


MAY_WRITE = {
    "02_inference": ["predictions/ellipse/a.nii.gz"],
    "03_performance": ["fairness/few_masks.csv", "fairness/notes.json"],
    "04_spatial": [
        "spatial/liver/template.npz",
        "spatial/liver/errors_ellipse.parquet",
        "spatial/liver/volumes/m/v.nii.gz",
    ],
}


def test_a_report_made_again_by_itself_is_up_to_date(study):
    """`segfair report` writes the stage's own files anew, from the same tables."""
    write_outputs(study, "05_report")
    provenance.note_outputs(study, "05_report")
    assert provenance.explain_stage(study, "05_report") == "it has not run"
    provenance.record_stage(study, "05_report", status="finished", seconds=1.0)
    write_outputs(study, "05_report", "made again")
    assert "not as it was written" in provenance.explain_stage(study, "05_report")
    provenance.note_outputs(study, "05_report")
    assert provenance.stage_is_current(study, "05_report")


def test_a_run_with_other_values_that_is_killed_is_not_up_to_date(study):
    """Some tables may be of the killed run, whatever the next one's parameters are."""
    write_outputs(study, "03_performance")
    provenance.record_stage(study, "03_performance", status="finished", seconds=1.0)
    assert provenance.stage_is_current(study, "03_performance")
    other = load_study(study.source, {"fairness.alpha": 0.2})
    provenance.start_stage(other, "03_performance")  # kill -9 from here on
    assert not provenance.stage_is_current(study, "03_performance")
    assert not provenance.stage_is_current(other, "03_performance")
    assert provenance.explain_stage(study, "03_performance") == "it was ended half-way"
    provenance.record_stage(study, "03_performance", status="finished", seconds=1.0)
    assert provenance.stage_is_current(study, "03_performance")


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("01_cohort", "exclusions.csv"),
        ("02_inference", "predictions/ellipse/a.nii.gz"),
        ("03_performance", "metrics.parquet"),
        ("03_performance", "fairness/trends.csv"),
        ("03_performance", "fairness/few_masks.csv"),
        ("03_performance", "fairness/notes.json"),
        ("04_spatial", "spatial/liver/template.npz"),
        ("04_spatial", "spatial/liver/errors_ellipse.parquet"),
        ("04_spatial", "spatial/liver/volumes/m/v.nii.gz"),
        ("05_report", "report.html"),
    ],
)
def test_any_file_that_is_lost_or_holds_other_bytes_makes_its_stage_out_of_date(study, stage, name):
    write_outputs(study, stage)
    provenance.record_stage(study, stage, status="finished", seconds=1.0)
    path = study.folder / name
    whole = path.read_bytes()
    assert provenance.stage_is_current(study, stage)
    path.unlink()
    assert not provenance.stage_is_current(study, stage)
    path.write_bytes(whole[:-1] + b"~")
    assert not provenance.stage_is_current(study, stage), "as many bytes, and others"
    path.write_bytes(whole)
    assert provenance.stage_is_current(study, stage), "its time is another, its bytes are not"


def test_a_stage_that_ran_on_results_of_other_parameters_runs_again(study):
    """With --only: 02 of other values, then 03 on its masks, then everything as before."""
    other = load_study(study.source, {"windows.mr_percentiles": [1, 99]})
    for stage in ("01_cohort", "02_inference"):
        write_outputs(study, stage)
    provenance.record_stage(study, "01_cohort", status="finished", seconds=1.0)
    provenance.record_stage(other, "02_inference", status="finished", seconds=1.0)
    write_outputs(study, "03_performance")
    provenance.record_stage(study, "03_performance", status="finished", seconds=1.0)
    provenance.record_stage(study, "02_inference", status="finished", seconds=1.0)
    assert provenance.explain_stage(study, "03_performance") == "changed: what 02_inference gives"
    provenance.record_stage(study, "03_performance", status="finished", seconds=1.0)
    assert provenance.stage_is_current(study, "03_performance")


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(study):
    assert dict(pipeline.plan_run(study, list(STAGES)[:2], force=False)) == {
        "01_cohort": "it has not run", "02_inference": "it has not run",
    }  # fmt: skip
    assert not study.folder.exists()
    for stage in STAGES:
        write_outputs(study, stage)
        provenance.record_stage(study, stage, status="finished", seconds=1.0)
    changed = load_study(study.source, {"fairness.alpha": 0.2, "title": "New"})
    (study.folder / "fairness" / "tests.csv").unlink()
    said = dict(pipeline.plan_run(study, list(STAGES), force=False))
    assert said == dict.fromkeys(STAGES, "") | {
        "03_performance": "fairness/tests.csv is missing or not as it was written"
    }
    assert dict(pipeline.plan_run(changed, list(STAGES)[3:], force=False)) == {
        "04_spatial": "changed: parameters (fairness)",
        "05_report": "changed: parameters (title), what 03_performance gives, what 04_spatial gives",
    }
    assert set(dict(pipeline.plan_run(study, list(STAGES), force=True)).values()) == {"--force"}
    (study.folder / "cohort.parquet").write_text("damaged", encoding="utf-8")
    assert dict(pipeline.plan_run(study, list(STAGES)[:1], force=False)) == {
        "01_cohort": "cohort.parquet is missing or not as it was written"
    }


def test_full_disk_under_the_notebook_is_one_sentence(study, monkeypatch):
    from pathlib import Path

    import papermill

    def fill(*arguments, **options):
        Path(arguments[1]).write_text('{"half": ', encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", fill)
    target = study.folder / "notebooks" / "01_cohort.ipynb"
    storage.write_text("the former one", target)
    with pytest.raises(StageError, match=r"01_cohort stopped: .*01_cohort\.ipynb: the disk is full: free some space"):
        run(study, stages=["01_cohort"])
    assert target.read_text(encoding="utf-8") == "the former one"
    assert not list(target.parent.glob(".partial-*"))


def test_a_machine_that_is_too_busy_is_one_sentence(study, monkeypatch):
    import papermill
    from nbclient.exceptions import CellTimeoutError

    def wait(*_, **options):
        assert options["iopub_timeout"] >= 600, "papermill's own 4 s end runs on a busy machine"
        raise CellTimeoutError("A cell timed out while it was being executed, after 4 seconds")

    monkeypatch.setattr(papermill, "execute_notebook", wait)
    with pytest.raises(
        StageError,
        match=r"01_cohort stopped: its process did not answer \(A cell timed out .*\): this machine is too busy",
    ):
        run(study, stages=["01_cohort"])
    assert provenance.explain_stage(study, "01_cohort") == "it stopped with an error"


@pytest.mark.slow
def test_a_notebook_whose_process_is_killed_is_one_sentence(study):
    write_notebook(study.root / "notebooks" / "01_cohort.ipynb", "01_cohort", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(
        StageError, match="01_cohort stopped: its process was killed, most likely because memory ran out"
    ):
        run(study, stages=["01_cohort"])
    assert not provenance.stage_is_current(study, "01_cohort")


@pytest.mark.slow
def test_a_failing_stage_is_one_sentence_and_keeps_its_half_run_notebook(study):
    write_notebook(
        study.root / "notebooks" / "01_cohort.ipynb",
        "01_cohort",
        'from helpers.errors import StageError; raise StageError("no scan is left: look at the reasons")',
    )
    with pytest.raises(StageError, match="01_cohort stopped: no scan is left: look at the reasons") as caught:
        run(study, stages=["01_cohort"])
    assert "half-run notebook is kept" in str(caught.value)
    assert (study.folder / "notebooks" / "01_cohort.ipynb").exists()
    assert provenance.read_run(study.folder)["stages"]["01_cohort"]["status"] == "failed"
    assert not provenance.stage_is_current(study, "01_cohort")


@pytest.mark.slow
def test_a_scan_that_a_fault_of_the_machine_left_undone_is_tried_again(study):
    path = study.root / "notebooks" / "01_cohort.ipynb"
    work = [
        "import errno",
        "from helpers.compute import map_cases",
        "def work(case): raise OSError(errno.EIO, 'Input/output error')",
        "map_cases(work, [1], ids=['scan 1'], compute=study.parameters.compute, label='working')",
    ]
    write_notebook(path, "01_cohort", "\n".join(work))
    reason = "OSError: [Errno 5] Input/output error"
    said = run(study, stages=["01_cohort"], overrides={"compute.workers": 0})
    told = "[1/1] 01_cohort: 1 scan left undone by a fault of the machine; the next run tries again"
    assert f"{told} ({reason})" in said
    record = provenance.read_run(study.folder)["stages"]["01_cohort"]
    assert (record["status"], record["passing"]) == ("finished", {"scan 1": reason})
    assert not provenance.stage_is_current(study, "01_cohort")


def test_a_parameter_that_the_notebook_lacks_is_refused(study):
    path = study.root / "notebooks" / "01_cohort.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = 'parameters_file = ""'
    nbformat.write(notebook, path)
    with pytest.raises(
        StageError, match=r"01_cohort\.ipynb has no parameter overrides, params; it has parameters_file"
    ):
        run(study, stages=["01_cohort"])


def test_two_runs_of_one_study_do_not_meet(study):
    from filelock import FileLock

    study.folder.mkdir(parents=True)
    with (
        FileLock(study.folder / ".lock"),
        pytest.raises(SegfairError, match="another segfair run is working on study 'small'"),
    ):
        run(study, stages=["01_cohort"])


def test_output_folder_that_cannot_be_written_fails_before_anything_runs(study):
    (study.root / "outputs").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(SegfairError, match="cannot be written"):
        run(study)


def test_changed_input_makes_the_cohort_out_of_date(study, tmp_path):
    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(b"one")
    table = pd.DataFrame(
        {"scan": ["a"], "subject": ["a"], "reference": [str(mask)], "image": [None], "included": [True]}
    )
    storage.write_table(table, study.path("cohort"))
    storage.write_table(table, study.path("exclusions"))
    provenance.record_stage(study, "01_cohort", status="finished", seconds=1.0)
    assert provenance.stage_is_current(study, "01_cohort")
    mask.write_bytes(b"another")
    assert not provenance.stage_is_current(study, "01_cohort")


@pytest.mark.parametrize(
    ("override", "current"),
    [
        ({"windows.mr_percentiles": [1, 99]}, False),
        ({"compute.precision": "float32"}, False),
        ({"compute.workers": 1, "fairness.alpha": 0.01}, True),
    ],
)
def test_what_changes_masks_makes_inference_out_of_date(study, override, current):
    for name in list_outputs("02_inference", ["ellipse"]):
        storage.write_table(pd.DataFrame({"scan": ["a"], "status": ["failed"]}), study.folder / name)
    provenance.record_stage(study, "02_inference", status="finished", seconds=1.0)
    assert provenance.stage_is_current(study, "02_inference")
    assert provenance.stage_is_current(load_study(study.source, override), "02_inference") == current


def test_a_program_is_named_before_it_is_started_for_the_first_time(study):
    def say_all(command: str) -> list[str]:
        model = {"name": "theirs", "kind": "command", "command": command, "version_command": "echo 2.1"}
        overrides = {"models": [model]}
        said: list[str] = []
        changed = load_study(study.source, overrides)
        pipeline._say_programs(changed, said.append)
        provenance.record_stage(changed, "01_cohort", status="finished", seconds=1.0)
        return said

    command = "/opt/ours/segment -i {image} -o {output}"
    assert say_all(command) == [
        f"this study starts another program (models.theirs): {command}",
        "this study starts another program (models.theirs): echo 2.1",
    ]
    assert say_all(command) == []
    assert say_all("rm {image} {output}") == ["this study starts another program (models.theirs): rm {image} {output}"]


def test_what_a_program_depends_on_makes_inference_out_of_date(study, tmp_path):
    weights = tmp_path / "weights" / "fold_0" / "a.pth"
    weights.parent.mkdir(parents=True)
    weights.write_text("1", encoding="utf-8")
    version = tmp_path / "version"
    version.write_text("1.0", encoding="utf-8")
    model = {
        "name": "theirs", "kind": "command", "command": "sh {image} {output}", "depends_on": ["weights"],
        "version_command": "cat version",
    }  # fmt: skip
    changed = load_study(study.source, {"models": [model]})
    storage.write_table(
        pd.DataFrame({"scan": ["a"], "subject": ["a"], "reference": [None], "image": [None]}), study.path("cohort")
    )
    found = [provenance.Fingerprints(changed).find("02_inference") for _ in range(2)]
    weights.write_text("22", encoding="utf-8")
    found.append(provenance.Fingerprints(changed).find("02_inference"))
    version.write_text("1.1", encoding="utf-8")
    found.append(provenance.Fingerprints(changed).find("02_inference"))
    assert found[0] == found[1] and len(set(found)) == 3


def test_each_stage_is_fingerprinted_once_until_it_has_run(study, monkeypatch):
    asked, stamp = [], provenance._stamp_inputs
    monkeypatch.setattr(
        provenance, "_stamp_inputs", lambda study, stage, known: asked.append(stage) or stamp(study, stage, known)
    )
    fingerprints = provenance.Fingerprints(study)
    before = {stage: fingerprints.find(stage) for stage in reversed(list(STAGES))}
    assert sorted(asked) == sorted(STAGES), "05 reads from 03 and 04, both from 02: still each is asked for once"
    asked.clear()
    fingerprints.forget("03_performance")
    assert {stage: fingerprints.find(stage) for stage in STAGES} == before
    assert asked == ["03_performance", "05_report"], "what was run and what reads from it, nothing before it"


def test_damaged_run_record_counts_as_none(tmp_path):
    (tmp_path / "run.json").write_text("{half", encoding="utf-8")
    assert provenance.read_run(tmp_path) == {}
