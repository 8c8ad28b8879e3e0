"""Files are whole or absent."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pandas as pd
import pytest

from helpers import storage
from helpers.errors import SegfairError, StageError
from helpers.schema import TABLES, Column, Table


def test_a_failed_write_leaves_the_former_file_and_no_debris(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("former", encoding="utf-8")
    with pytest.raises(RuntimeError), storage.write_atomically(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError("killed half-way")
    assert path.read_text(encoding="utf-8") == "former"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_temporary_file_keeps_the_suffixes_image_writers_go_by(tmp_path):
    with storage.write_atomically(tmp_path / "a" / "scan.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"x")
    assert (tmp_path / "a" / "scan.nii.gz").read_bytes() == b"x"


def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        storage.write_text("x", tmp_path / "x.txt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.txt").stat().st_mode) == 0o644


def test_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    storage.write_json({"kept": 1}, path)

    def fail(self, *arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(SegfairError, match=r"run\.json: the disk is full: free some space"):
        storage.write_json({"new": 2}, path)
    monkeypatch.undo()
    assert path.read_text(encoding="utf-8") == '{\n  "kept": 1\n}\n'


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EDQUOT, "the disk is full: free some space"),
        (errno.ESTALE, r"cannot be written \(.*\): look after the disk or its network and run the same command again"),
    ],
)
def test_a_quota_and_a_lost_network_are_one_sentence(tmp_path, monkeypatch, number, said):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "table.csv"
    path.write_text("former", encoding="utf-8")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(SegfairError, match=said):
        storage.write_text("new", path)
    assert path.read_text(encoding="utf-8") == "former" and len(list(tmp_path.iterdir())) == 1


def test_really_full_device_is_reported(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(SegfairError, match="disk is full"),
        storage.write_atomically(tmp_path / "x.txt"),
        Path("/dev/full").open("w", encoding="utf-8") as stream,
    ):
        stream.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(SegfairError, match="cannot be written"):
        storage.write_text("x", tmp_path / "file" / "x.txt")


def test_missing_table_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(
        StageError, match=r"metrics\.parquet is missing .* run 03_performance or `segfair run PARAMS --until 03`"
    ):
        storage.read_table(tmp_path / "metrics.parquet", TABLES["metrics"])


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_tables_come_back_as_written(tmp_path, name):
    table = pd.DataFrame({"scan": ["00007", "b"], "dice": [0.5, None]})
    storage.write_table(table, tmp_path / name)
    read = storage.read_table(tmp_path / name, TABLE)
    assert read["dice"].tolist()[0] == 0.5 and read["dice"].isna().tolist() == [False, True]
    with pytest.raises(ValueError, match=r"path must end in \.parquet or \.csv"):
        storage.write_table(table, tmp_path / "table.txt")


def test_hash_of_a_value_ignores_key_order_and_sees_changes():
    assert storage.hash_value({"a": 1, "b": 2}) == storage.hash_value({"b": 2, "a": 1})
    assert storage.hash_value({"a": 1}) != storage.hash_value({"a": 2})


TABLE = Table(
    "table",
    "table.csv",
    "03_performance",
    "scan",
    (
        Column("scan", "text", ""),
        Column("n", "count", ""),
        Column("few", "count", ""),
        Column("dice", "number", ""),
        Column("suppressed", "flag", ""),
        Column("group_<attribute>", "text", ""),
    ),
)


def test_a_csv_table_is_read_as_it_was_written(tmp_path):
    table = pd.DataFrame(
        {
            "scan": ["001", "2", "NA"],
            "group_site": ["1", "NA", ""],
            "theirs": ["1", "", "2"],
            "n": [3, 4, 5],
            "few": [3, None, 5],
            "dice": [1.0, float("nan"), 2.0],
            "suppressed": [True, False, True],
        }
    )
    storage.write_table(table, tmp_path / "table.csv")
    read = storage.read_table(tmp_path / "table.csv", TABLE)
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert read["group_site"].tolist() == ["1", "NA", ""], "a group keeps its name, whatever it is"
    assert read["theirs"].tolist() == ["1", "", "2"], "a column that we do not know is text"
    assert [str(read[name].dtype) for name in ("n", "few", "dice", "suppressed")] == ["int64", *["float64"] * 2, "bool"]


def test_a_table_without_rows_keeps_its_types(tmp_path):
    storage.write_table(pd.DataFrame(columns=TABLE.names), tmp_path / "table.csv")
    read = storage.read_table(tmp_path / "table.csv", TABLE)
    assert [str(read[name].dtype) for name in ("n", "dice", "suppressed")] == ["int64", "float64", "bool"]


@pytest.mark.parametrize(
    ("column", "cell", "wanted"), [("dice", "high", "numbers"), ("suppressed", "maybe", "True or False")]
)
def test_a_cell_of_the_wrong_kind_is_one_sentence(tmp_path, column, cell, wanted):
    storage.write_table(pd.DataFrame({column: [cell]}), tmp_path / "table.csv")
    with pytest.raises(StageError, match=rf"column {column} must hold {wanted}; it holds '{cell}': run 03_performance"):
        storage.read_table(tmp_path / "table.csv", TABLE)
