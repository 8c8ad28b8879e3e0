"""Studies of odd files: each scan is read with the right numbers, or out by one true sentence, and
what the check says of it is what the stages do with it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers import cohort, inference, performance, provenance, storage
from helpers.errors import SegfairError
from helpers.models import list_refused, list_templates
from helpers.report import build_report
from helpers.study import load_study
from tests.checked_study import check_problems
from tests.conftest import REPOSITORY, skip_unless_required

# A word of the reason, and what the sentence says in its place.
SAID = {"text": "web page"}
CASES = (
    "header_axes", "nearly_equal_grids", "containers", "damaged", "binary_folders", "links", "text_tables",
    "typed_parquet", "ages", "places", "meaningful_names", "no_variance", "failures_of_one_group", "odd_shapes",
    "organs_never_drawn",
)  # fmt: skip
# Tables of text that are refused, in words.
REFUSED = {
    "latin": "save it as UTF-8",
    "utf16": "save it as UTF-8",
    "titled": "it has Export of 2 March (line 1)",
    "twice": "two columns named 'age'",
    "upper": "(subject: your column, sex: your column, age: your column, modality: your column",
}


@pytest.fixture(scope="module")
def maker():
    path = Path(os.environ.get("SEGFAIR_INPUTS") or REPOSITORY.parent / "shared" / "inputs") / "make_inputs.py"
    if not path.is_file():
        skip_unless_required(
            "inputs", "the odd inputs are not at hand: set SEGFAIR_INPUTS to the folder that makes them"
        )
    spec = importlib.util.spec_from_file_location("make_inputs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_inputs"] = module
    spec.loader.exec_module(module)
    return module


def load(parameters):
    raw = json.loads(parameters.read_text("utf-8"))
    quick = [model for model in raw["models"] if model["kind"] in ("precomputed", "sam_demo")]
    return load_study(parameters, {"models": quick})


@pytest.mark.parametrize("case", CASES)
def test_every_scan_is_read_right_or_out_in_words(maker, tmp_path, case):
    folder = tmp_path / case
    maker.CASES[case](folder, 16)
    right = json.loads((folder / "right.json").read_text("utf-8"))
    for parameters in sorted(folder.glob("study*.yaml")):
        study = load(parameters)
        found = cohort.check_cohort(study, list_templates(study), list_refused(study))
        if case == "text_tables" and (told := REFUSED.get(study.name.removeprefix("text_tables_"))):
            assert len(found.problems) == 1 and told in found.problems[0]
            with pytest.raises(SegfairError):
                cohort.build_cohort(study)
            continue
        table = cohort.build_cohort(study).table.set_index("scan")
        check_people(table, right, every=study.name == case)
        made = inference.run_inference(study)
        check_problems(found.problems, table, made)
        check_scores(study, right, made)


def check_people(table: pd.DataFrame, right: dict, *, every: bool) -> None:
    for scan in right["in"]:
        assert table.loc[scan, "included"], f"{scan}: {table.loc[scan, 'reason']}"
    for scan, word in right.get("out", {}).items():
        if table.loc[scan, "included"]:
            assert not every, f"{scan} must be out: {word}"
            continue
        assert SAID.get(word, word).lower() in table.loc[scan, "reason"].lower(), scan


def check_scores(study, right: dict, made: pd.DataFrame) -> None:
    ours = made[made["model"] == "ours"].set_index("scan")
    for scan, word in right.get("failed", {}).items():
        if scan in ours.index:
            assert ours.loc[scan, "status"] == "failed" and word.split(",")[0] in ours.loc[scan, "error"], scan
    scores = performance.measure_performance(study)
    scores = scores[scores["model"] == "ours"].set_index(["scan", "organ"])
    for measure, numbers in (("dice", right.get("dice", {})), ("volume_ref_ml", right.get("volume_ref_ml", {}))):
        for scan, by_organ in numbers.items():
            for organ, value in by_organ.items():
                if (scan, organ) in scores.index and scores.loc[(scan, organ), "status"] != "model_failed":
                    assert scores.loc[(scan, organ), measure] == pytest.approx(value, rel=3e-4), (
                        scan,
                        organ,
                    )  # cosines of 3 decimals


def test_failures_of_one_group_are_told_where_its_distances_are(maker, tmp_path):
    """Four women have no mask: wherever the distances of women stand, the four do too."""
    folder = tmp_path / "failures_of_one_group"
    maker.CASES[folder.name](folder, 20)
    study = load(folder / "study.yaml")
    provenance.write_snapshot(study)
    cohort.build_cohort(study)
    inference.run_inference(study)
    performance.measure_performance(study)
    audit = performance.write_audit(study)
    rows = audit.disparity[audit.disparity["attribute"] == "sex"].set_index(["organ", "metric"])
    for metric in ("hd95_mm", "boundary_error_mm"):
        if metric in rows.index.get_level_values("metric"):
            assert rows.loc[("liver", metric), "incomplete"] == "4 of 10 in “female”, 0 of 10 in “male”"
            assert rows.loc[("liver", metric), "verdict"] not in ("equivalent", "negligible")
    # The last man has no spleen in his reference: nobody could draw it.
    assert rows.loc[("spleen", "boundary_error_mm"), "incomplete"] == "4 of 10 in “female”, 0 of 9 in “male”"
    page = build_report(study.folder).read_text("utf-8")
    assert page.count("4 of 10 in “female”, 0 of 10 in “male”") >= 3
    assert "16 people" in page, "the medians of distances have a count of their own"


@pytest.mark.slow
@pytest.mark.parametrize("place", [".", "quiet"])
def test_modules_of_the_users_own_change_nothing(maker, tmp_path, place):
    """A helpers.py that raises, or a package so called, beside the parameter file; as installed."""
    folder, bare = tmp_path / "own" / place, tmp_path / "bare" / place
    for each in (folder, bare):
        maker.CASES["own_modules"](tmp_path / each.relative_to(tmp_path).parts[0], 12)
    for name in ("helpers.py", "random.py", "ipython_config.py", "helpers/__init__.py"):
        (bare / name).unlink(missing_ok=True)
    source = str(Path(storage.__file__).resolve().parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); from helpers.cli import main; main()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    tables = []
    for each in (folder, bare):
        words = [sys.executable, "-P", "-c", code, "run", "study.yaml", "--only", "01"]
        done = subprocess.run(words, cwd=each, env=environment, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        [table] = (each / "outputs").rglob("cohort.parquet")
        tables.append(pd.read_parquet(table).drop(columns=["reference", "image"]))
    pd.testing.assert_frame_equal(*tables)
