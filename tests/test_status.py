"""How far a study is, what a run says, and who works on it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from helpers import provenance, storage
from helpers.errors import SegfairError
from helpers.run_log import RunLog
from helpers.running import Progress, Running, Sign, hold_study, read_running
from helpers.schema import STAGES
from helpers.status import conclude_run, describe_status, find_folder, read_status
from tests.test_pipeline import study

__all__ = ["study"]  # the fixture


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def bar(done: int, total: int = 40, left: str = "00:12") -> str:
    return f"\rcomparing masks: {100 * done // total:3}%|███   | {done}/{total} [00:10<{left},  3.2scan/s, scan {done}]"


@pytest.fixture
def sign(tmp_path):
    return Sign(tmp_path)


def test_a_pipe_gets_whole_lines_and_the_log_their_times(tmp_path, sign):
    said, pipe = [], io.StringIO()
    log = RunLog(tmp_path, said.append, pipe, sign)
    log.say("[3/5] 03_performance: running")
    for done in range(41):
        log.write(bar(done, left="?" if done == 0 else "00:12"))
    log.write("\n\rcomparing masks: scan 7 fai")
    log.write("led: no such file\n")
    assert pipe.getvalue().splitlines() == [
        "comparing masks: 0 of 40", "comparing masks: 40 of 40", "comparing masks: scan 7 failed: no such file",
    ]  # fmt: skip
    lines = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "\r" not in lines and len(lines.splitlines()) == 4
    for line in lines.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d \S", line), line
    RunLog(tmp_path, said.append, pipe, sign).note("another run")
    assert len((tmp_path / "run.log").read_text(encoding="utf-8").splitlines()) == 5, "it is added to"


def test_a_terminal_gets_its_bars_as_they_come(tmp_path, sign):
    terminal = Terminal()
    RunLog(tmp_path, print, terminal, sign).write(bar(3) + bar(4))
    assert terminal.getvalue() == bar(3) + bar(4)


def test_the_log_names_nobody(tmp_path, sign):
    cohort = pd.DataFrame({
        "number": [1], "scan": ["Huber_Anna"], "subject": ["Anna Huber"], "reference": ["/data/Huber/mask.nii.gz"],
        "image": ["/data/Huber/ct.nii.gz"], "included": [True], "reason": [""], "note": [""], "modality": ["CT"],
    })  # fmt: skip
    storage.write_table(cohort, tmp_path / "cohort.parquet")
    log = RunLog(tmp_path, lambda line: None, io.StringIO(), sign)
    log.say("ours: Huber_Anna failed: /data/Huber/mask.nii.gz: cannot be read")
    log.write("Anna Huber, born 1951-10-22\n")
    text = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "ours: scan 001 failed: the file: cannot be read" in text
    for planted in ("Huber", "Anna", "1951", "/data"):
        assert planted not in text


def test_others_are_told_how_far_a_step_is(tmp_path):
    with hold_study(tmp_path, "small") as sign:
        log = RunLog(tmp_path, print, io.StringIO(), sign)
        log.begin_stage("03_performance")
        log.write(bar(40))
        running = read_running(tmp_path)
        assert running is not None and running.pid == os.getpid()
        assert running.progress == Progress("comparing masks", 40, 40, "00:12")
        with (
            pytest.raises(SegfairError, match=rf"another segfair run is working .*process {os.getpid()}, since 20"),
            hold_study(tmp_path, "small"),
        ):
            pass
        assert read_running(tmp_path) is not None, "the second run leaves the first one's sign"
    assert read_running(tmp_path) is None


def test_a_killed_process_does_not_count_as_running(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    sign = Running(ended.pid, os.uname().nodename, "2026-01-01T00:00:00+00:00")
    storage.write_json(sign.__dict__, tmp_path / ".running.json")
    assert read_running(tmp_path) is None
    storage.write_json({**sign.__dict__, "host": "elsewhere"}, tmp_path / ".running.json")
    assert str(read_running(tmp_path)) == f"process {ended.pid} on elsewhere, since 2026-01-01T00:00:00+00:00"
    storage.write_json({**sign.__dict__, "pid": os.getpid()}, tmp_path / ".running.json")
    assert read_running(tmp_path) is None, "a later process of the same number"
    storage.write_text("{half", tmp_path / ".running.json")
    assert read_running(tmp_path) is None


def write_stage(study, stage: str, **failures: str) -> None:
    provenance.record_stage(
        study,
        stage,
        status="finished",
        seconds=90.0,
        failures={key.replace("__", " / "): value for key, value in failures.items()},
    )


def write_inference(study, *statuses: str) -> None:
    table = pd.DataFrame({"scan": list("abc")[: len(statuses)], "status": list(statuses)})
    storage.write_table(table, study.inference_path("ellipse"))


def test_status_counts_what_is_done_and_what_failed(study):
    assert [one.status for one in read_status(study.folder).stages] == ["not run"] * 5
    storage.write_table(
        pd.DataFrame({"scan": list("abc"), "subject": list("abc"), "included": [True, True, False]}),
        study.path("cohort"),
    )
    write_stage(study, "01_cohort", a="no mask")
    write_inference(study, "ok", "failed")
    write_stage(study, "02_inference", ellipse__b="no image")
    provenance.start_stage(study, "03_performance")
    found = read_status(study.folder)
    assert [line.split(None, 1)[1] for line in describe_status(found)] == [
        "done in 90 s, 2 scans, 1 left out",
        "done in 90 s, 1 mask, 1 failed",
        "ended half-way",
        "not run",
        "not run",
    ]
    assert found.failed == ["models.ellipse: failed on 1 of 2 scans, on 1 because: no image"]
    assert json.loads(json.dumps(asdict(found)))["stages"][1]["counts"] == {"masks": 1, "failed": 1}


def test_status_says_who_is_at_work_and_what_is_left(study):
    storage.write_text("", study.folder / "report.html")
    write_stage(study, "05_report")
    provenance.start_stage(study, "05_report")
    with hold_study(study.folder, "small") as sign:
        sign.show("05_report")
        sign.show(progress=Progress("drawing", 3, 4, "00:05"))
        sign.show(progress=Progress("drawing", 4, 4, "00:00"))
        first, *_, last = describe_status(read_status(study.folder))
        assert first.startswith(f"small: at work: process {os.getpid()}, since 20")
        assert first.endswith("; 05_report, drawing: 4 of 4, about 00:00 left")
        assert re.fullmatch(r"05_report +running for \d s, about \d\d s left, by the run before", last)


def test_a_run_ends_with_the_status_of_what_failed(study):
    stages = list(STAGES)
    write_inference(study, "ok", "ok")
    write_stage(study, "02_inference")
    assert conclude_run(study.folder, stages).exit_code == 0
    write_inference(study, "failed", "ok")
    write_stage(study, "02_inference", ellipse__a="no image")
    end = conclude_run(study.folder, stages)
    assert (end.exit_code, end.told) == (3, ["models.ellipse: failed on 1 of 2 scans, on 1 because: no image"])
    assert conclude_run(study.folder, ["01_cohort"]).exit_code == 0, "it ran nothing that could fail so"
    assert conclude_run(study.folder, stages, stopped="03_performance stopped").exit_code == 1
    write_stage(study, "03_performance", **{"scan 1, ellipse": "no image", "scan 2, ellipse": "cut short"})
    assert conclude_run(study.folder, stages).told[1] == (
        "03_performance: 1 mask could not be compared, on 1 because: cut short"
    )


def test_a_disparity_fails_a_run_that_asks_for_it(study):
    gaps = pd.DataFrame({"model": ["m", "m"], "verdict": ["equivalent", "difference"]})
    storage.write_table(gaps, study.path("disparity"))
    write_stage(study, "03_performance")
    assert conclude_run(study.folder, list(STAGES), fail_on="disparity").exit_code == 0
    storage.write_table(gaps.assign(verdict=["disparity", "difference"]), study.path("disparity"))
    assert conclude_run(study.folder, list(STAGES)).exit_code == 0
    end = conclude_run(study.folder, list(STAGES), fail_on="disparity")
    assert (end.exit_code, end.told) == (4, ["a disparity was found in 1 comparison: see fairness/disparity.csv"])


def test_a_folder_that_is_no_study_is_refused(tmp_path, study):
    assert find_folder(study.source) == study.folder
    with pytest.raises(SegfairError, match="is not the output folder of a study"):
        find_folder(tmp_path)


def test_what_killed_processes_left_is_removed_and_what_is_in_use_stays(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from helpers.storage import open_scratch\n"
        "with open_scratch(Path(sys.argv[1]), '.measured-') as folder:\n"
        "    (folder / 'volume.npz').write_bytes(b'1'); print(folder, flush=True); sys.stdin.read(); os._exit(9)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as other:
        left = Path(other.stdout.readline().strip())
        long_ago = time.time() - 100
        os.utime(left / ".in-use", (long_ago, long_ago))
        with storage.open_scratch(tmp_path, ".measured-"):
            assert (left / "volume.npz").exists(), "it is in use"
        other.stdin.close()
    assert left.exists()
    with storage.open_scratch(tmp_path, ".measured-") as own:
        assert not left.exists() and own.exists()
    assert not list(tmp_path.glob(".measured-*"))


def test_half_written_files_are_removed_when_a_study_is_taken(tmp_path):
    old, new = (tmp_path / "predictions" / "ours" / f".partial-{name}.nii.gz" for name in ("old", "new"))
    for path in (old, new):
        storage.write_text("half", path)
    os.utime(old, (time.time() - 7200,) * 2)
    with hold_study(tmp_path, "small"):
        assert not old.exists() and new.exists(), "a file of this hour may still be written"
