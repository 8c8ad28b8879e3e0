"""Where a study's files lie."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from helpers import storage
from helpers.errors import ParameterError, StageError
from helpers.study import load_study
from tests.test_parameters import SMALL


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "project" / "params" / "small.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return load_study(path)


def test_folders_follow_the_parameter_file(study, tmp_path):
    assert study.root == tmp_path / "project"
    assert study.folder == tmp_path / "project" / "outputs" / "small"
    assert study.prediction_path("sam", "s1") == study.folder / "predictions" / "sam" / "s1.nii.gz"


def test_paths_expand_the_data_folder(study, tmp_path, monkeypatch):
    monkeypatch.delenv("SEGFAIR_DATA", raising=False)
    assert study.resolve("${SEGFAIR_DATA}/x.csv") == tmp_path / "shared" / "data" / "x.csv"
    monkeypatch.setenv("SEGFAIR_DATA", str(tmp_path / "elsewhere"))
    assert study.resolve("${SEGFAIR_DATA}/x.csv") == tmp_path / "elsewhere" / "x.csv"
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(ParameterError, match=r"\$\{NOT_SET_HERE\} .* is not set"):
        study.resolve("${NOT_SET_HERE}/x.csv")


def test_relative_parameter_paths_are_found_from_root_and_from_the_notebooks_folder(study, monkeypatch):
    (study.root / "notebooks").mkdir()
    for folder in (study.root, study.root / "notebooks"):
        monkeypatch.chdir(folder)
        assert load_study("params/small.yaml").folder == study.folder


def test_reading_what_is_not_there_names_the_stage(study):
    with pytest.raises(
        StageError,
        match=r"metrics\.parquet is missing for study 'small': run 03_performance or `segfair run .* --until 03`",
    ):
        study.read("metrics")


def test_every_scan_excluded_is_one_sentence(study):
    storage.write_table(pd.DataFrame({"scan": ["a"], "included": [False]}), study.path("cohort"))
    with pytest.raises(StageError, match=r"every one of the 1 scans .* is excluded: see the reasons"):
        study.read_included()


def test_seeds_depend_on_study_seed_and_keys_only(study):
    assert study.seed_for("scan", 1) == load_study(study.source).seed_for("scan", 1)
    other = load_study(study.source, {"seed": 9})
    assert (
        len({study.seed_for("scan", 1), study.seed_for("scan", 2), study.seed_for("scan1"), other.seed_for("scan", 1)})
        == 4
    )
    assert 0 <= study.seed_for("x") < 2**63
