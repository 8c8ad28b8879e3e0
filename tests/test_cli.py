"""The command: what it prints and its exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from helpers import __version__
from helpers.schema import STAGES
from tests import report_study as study
from tests.test_cohort import save
from tests.test_parameters import SMALL


def segfair(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    code = "from helpers.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        capture_output=True,
        timeout=120,
        check=False,
        encoding="utf-8",
    )


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params" / "small.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return path


def test_models_and_sources_are_listed():
    models, sources = segfair("models"), segfair("sources")
    assert models.returncode == sources.returncode == 0
    kinds = {line.split()[0] for line in models.stdout.splitlines()}
    assert {"prompt_only", "precomputed", "sam", "sam_demo", "nnunet_demo"} <= kinds
    assert {"table", "phantoms", "totalsegmentator"} <= {line.split()[0] for line in sources.stdout.splitlines()}


def test_check_of_a_good_study(params, tmp_path):
    done = segfair("check", str(params), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "params/small.yaml: no problem found\n")


def test_check_lists_everything_that_is_wrong_at_once(params, tmp_path):
    (tmp_path / "people.csv").write_text(
        "subject,sex,modality,reference,image\na,female,CT,none.nii.gz,none_ct.nii.gz\nb,male,XX,none.nii.gz,none_ct.nii.gz\n",
        encoding="utf-8",
    )
    models = "models=[{name: a, kind: nonsense}, {name: b, kind: sam, checkpoint: nowhere.pth, variant: vit_b}]"
    done = segfair(
        "check",
        str(params),
        "-o",
        "cohort.source=table",
        "-o",
        f"cohort.path={tmp_path / 'people.csv'}",
        "-o",
        models,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    for expected in ("none.nii.gz", "nonsense", "nowhere.pth", "modality"):
        assert expected in done.stdout
    assert "problems found" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_every_fault_also_beside_an_unknown_key_and_blames_the_override(params, tmp_path):
    overrides = ("fairness.min_grup=3", "cohort.source=tables", "fairness.alpha=3")
    done = segfair("check", str(params), *(part for text in overrides for part in ("-o", text)), cwd=tmp_path)
    assert done.returncode == 2
    for said in (
        "-o fairness.min_grup: unknown key (did you mean min_group?)",
        "-o cohort.source: must be one of table, ",
        "got 'tables' (did you mean table?)",
        "-o fairness.alpha: must be less than 0.5; got 3",
    ):
        assert said in done.stderr, done.stderr
    assert str(params) not in done.stderr, "the file is not to blame"
    text = params.read_text(encoding="utf-8").replace("source: phantoms", "source: fantoms")
    text = text.replace("prompt_only", "prompt_once")
    params.write_text(text + "colour: red\n", encoding="utf-8")
    done = segfair("check", str(params), cwd=tmp_path)
    assert "colour: unknown key" in done.stderr
    assert "got 'fantoms'" in done.stderr and "models.ellipse.kind: must be one of prompt_only, " in done.stderr


def test_check_looks_for_ready_made_masks(params, tmp_path):
    mask = np.zeros((7, 8, 9), np.uint8)
    mask[2:5, 2:6, 2:5] = 1
    for name in "ab":
        save(mask, tmp_path / "masks" / f"{name}.nii.gz")
    save(mask, tmp_path / "ours" / "a.nii.gz")
    (tmp_path / "people.csv").write_text(
        "subject,sex,modality,reference\na,female,CT,masks/a.nii.gz\nb,male,CT,masks/b.nii.gz\n", encoding="utf-8"
    )
    overrides = (
        "cohort.source=table",
        f"cohort.path={tmp_path / 'people.csv'}",
        "models=[{name: ours, kind: precomputed, path: 'ours/{scan}.nii.gz', trained_on: [AMOS22]}]",
        "cohort.dataset=AMOS",
    )
    done = segfair("check", str(params), *(part for text in overrides for part in ("-o", text)), cwd=tmp_path)
    assert done.returncode == 1
    assert "- models.ours: scan 'b' (row 2) would count as failed: there is no mask for this scan" in done.stdout
    assert (
        "worth knowing: ours was trained on AMOS, where these scans come from: its scores are too good" in done.stdout
    )


@pytest.fixture
def masks_alone(tmp_path):
    """Return overrides for a study of two scans with masks and no images."""
    mask = np.zeros((7, 8, 9), np.uint8)
    mask[2:5, 2:6, 2:5] = 1
    for name in "ab":
        save(mask, tmp_path / "masks" / f"{name}.nii.gz")
    (tmp_path / "people.csv").write_text(
        "subject,sex,modality,reference\na,female,CT,masks/a.nii.gz\nb,male,CT,masks/b.nii.gz\n", encoding="utf-8"
    )
    return ["-o", "cohort.source=table", "-o", f"cohort.path={tmp_path / 'people.csv'}"]


def test_a_model_that_needs_images_and_has_none_is_a_problem_and_fails_with_status_3(params, tmp_path, masks_alone):
    models = "models=[{name: demo, kind: sam_demo}, {name: ellipse, kind: prompt_only}]"
    said = "this model needs an image and the scan has none: add an `image` column or leave the model out"
    done = segfair("check", str(params), *masks_alone, "-o", models, cwd=tmp_path)
    assert done.returncode == 1
    assert f"- models.demo: 2 scans ('a', 'b') would count as failed: {said}\n" in done.stdout
    assert "ellipse" not in done.stdout
    done = segfair("run", str(params), *masks_alone, "-o", models, "--until", "02", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert done.stderr == f"segfair: models.demo: failed on all 2 scans, on 2 because: {said}\n"
    assert "\r" not in done.stdout, "no terminal"
    stages = [line for line in done.stdout.splitlines() if re.match(r"0\d_", line)]
    assert re.fullmatch(r"01_cohort +done in \d+ s, 2 scans", stages[0])
    assert re.fullmatch(r"02_inference +done in \d+ s, 2 masks, 2 failed", stages[1])
    assert [line.split() for line in stages[2:]] == [[stage, "not", "run"] for stage in list(STAGES)[2:]]
    assert done.stdout.endswith("outputs: outputs/small\nlog: outputs/small/run.log\n")
    log = (tmp_path / "outputs" / "small" / "run.log").read_text(encoding="utf-8")
    assert f"failed: models.demo: failed on all 2 scans, on 2 because: {said}\n" in log and "\r" not in log

    told = segfair("status", "outputs/small", cwd=tmp_path)
    assert told.returncode == 0 and told.stdout.splitlines()[:5] == stages
    assert told.stdout.splitlines()[5] == done.stderr.removeprefix("segfair: ").rstrip()
    told = json.loads(segfair("status", str(params), "--json", cwd=tmp_path).stdout)
    assert [stage["status"] for stage in told["stages"]] == ["done", "done", "not run", "not run", "not run"]

    options = (*masks_alone, "-o", models, "--until", "02")
    planned = segfair("run", str(params), *options, "-o", "windows.mr_percentiles=[1, 99]", "--dry-run", cwd=tmp_path)
    assert planned.stdout == "01_cohort: up to date\n02_inference: would run: changed: parameters (windows)\n"
    again = segfair("run", str(params), *options, "--json", cwd=tmp_path)
    outcome = json.loads(again.stdout)
    assert (again.returncode, outcome["exit_code"], outcome["told"]) == (3, 3, told["failed"])
    assert "[2/2] 02_inference: up to date" in again.stderr


def test_version_and_completion_are_told(monkeypatch):
    # Else it asks which shell it was started from, which is none where tests run by themselves.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "True")
    assert segfair("--version").stdout == f"segfair {__version__}\n"
    completion = segfair("--show-completion", "bash")
    assert completion.returncode == 0 and "COMPLETE" in completion.stdout


def test_a_stage_that_stops_ends_with_status_1(params, tmp_path, masks_alone):
    for path in (tmp_path / "masks").iterdir():
        path.write_bytes(b"")
    done = segfair("run", str(params), *masks_alone, "--until", "01", cwd=tmp_path)
    assert done.returncode == 1
    assert "segfair: 01_cohort stopped: every one of the 2 scans is excluded" in done.stderr
    assert re.search(r"01_cohort +stopped with an error", done.stdout)
    planned = segfair("run", str(params), *masks_alone, "--until", "01", "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(planned.stdout) == {"study": "small", "would_run": {"01_cohort": "it stopped with an error"}}


def test_weights_that_do_not_load_are_a_problem(params, tmp_path, masks_alone):
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    models = f"models=[{{name: own, kind: sam, variant: vit_b, checkpoint: {tmp_path / 'weights.pth'}}}]"
    done = segfair("check", str(params), *masks_alone, "-o", models, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "- models.own: weights.pth: cannot be read as a checkpoint of tensors" in done.stdout


def test_a_wrong_parameter_is_one_message_and_status_2(params):
    done = segfair("run", str(params), "-o", "fairness.alpa=1")
    assert done.returncode == 2
    assert (
        done.stderr.startswith("segfair: ")
        and "fairness.alpa: unknown key" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_report_of_a_folder_that_is_none(tmp_path):
    done = segfair("report", str(tmp_path / "nothing"))
    assert done.returncode == 2 and "nothing" in done.stderr and "Traceback" not in done.stderr


def test_report_is_written_even_where_it_cannot_be_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_CHROMIUM", "no-such-browser")
    study.write_study(tmp_path)
    done = segfair("report", str(tmp_path), "--pdf")
    assert done.returncode == 2 and "no Chromium, Chrome or Edge" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "report.html").exists() and not (tmp_path / "report.pdf").exists()


def test_checkpoints_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", str(tmp_path / "none"))
    from helpers.models.checkpoints import CHECKPOINTS

    done = segfair("checkpoints")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(CHECKPOINTS)
    assert all("not here" in line and "https://" in line for line in done.stdout.splitlines())


def test_a_checkpoint_that_cannot_be_fetched_or_verified_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", str(tmp_path))
    unknown = segfair("checkpoints", "fetch", "sam_vit_x")
    offline = segfair("checkpoints", "fetch", "medsam", "--url", "http://127.0.0.1:9/medsam.pth")
    absent = segfair("checkpoints", "verify", "medsam")
    for done, said in (
        (unknown, "must be one of"),
        (offline, str(tmp_path / "medsam_vit_b.pth")),
        (absent, "segfair checkpoints fetch medsam"),
    ):
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
