"""What a host or a disk that is gone leaves behind keeps nobody from going on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers import storage
from helpers.errors import SegfairError
from helpers.running import Progress, Running, hold_study, read_running
from tests import soak


def test_the_lock_of_a_host_that_died_is_taken(tmp_path):
    """The system lets go of a dead process's lock; its file and its last words stay."""
    (tmp_path / ".lock").write_text("", encoding="utf-8")
    sign = Running(4711, "gone", "2026-01-01T00:00:00+00:00", "03_performance", Progress("x", 1, 2, ""))
    storage.write_json({**sign.__dict__, "progress": sign.progress.__dict__}, tmp_path / ".running.json")
    assert read_running(tmp_path).host == "gone"
    with hold_study(tmp_path, "small"):
        assert read_running(tmp_path).pid == os.getpid()


def test_the_lock_of_a_killed_process_is_taken(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from helpers.running import hold_study\n"
        "with hold_study(Path(sys.argv[1]), 'small'): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    with hold_study(tmp_path, "small"):
        pass


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EBUSY, errno.EIO])
def test_a_rename_that_a_network_refuses_keeps_the_former_table(tmp_path, monkeypatch, number):
    path = tmp_path / "table.csv"
    storage.write_table(pd.DataFrame({"a": [1]}), path)

    def replace(self, target):
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(SegfairError, match="look after the disk or its network and run the same command again"):
        storage.write_table(pd.DataFrame({"a": [2]}), path)
    assert path.read_text(encoding="utf-8") == "a\n1\n" and [one.name for one in tmp_path.iterdir()] == ["table.csv"]


def test_the_soak_sees_a_changed_and_a_missing_table_and_not_the_time(tmp_path):
    params = soak.write_study(tmp_path, 4, 0)
    assert len(list((params.parent.parent / "data" / "one").iterdir())) == 4
    table = pd.DataFrame({"scan": ["a"], "seconds": [1.0]})
    for name, changed, equal in (
        ("again", {"seconds": 2.0}, True),
        ("other", {"scan": "b"}, False),
        ("less", None, False),
    ):
        for place, one in (("first", table), ("second", table if changed is None else table.assign(**changed))):
            storage.write_table(one, tmp_path / name / place / "inference.parquet")
        if changed is None:
            (tmp_path / name / "second" / "inference.parquet").unlink()
        hashes = [soak.hash_tables(tmp_path / name / place) for place in ("first", "second")]
        assert (hashes[0] == hashes[1]) == equal
