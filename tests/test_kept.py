"""What is kept, and what each change of a study works out again: the table of docs/DESIGN.md."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers import cohort, inference, performance, pipeline, provenance, resuming, spatial, storage, volumes
from helpers.errors import StageError
from helpers.kept import (
    FOLDER,
    Contents,
    Ingredients,
    Journal,
    Kept,
    find_file,
    hash_code,
    load_arrays,
    read_arrays,
    write_arrays,
)
from helpers.own_code import OwnCode
from helpers.resuming import map_kept, read_contents, verify_contents
from helpers.study import Study, load_study
from tests.spatial_cohort import draw_ellipsoid

KINDS = ("checks", "masks", "measures", "shapes", "registrations", "errors", "tests")
PEOPLE = 6  # of whom four make the template
SEED = 1


def test_a_journal_gives_back_what_was_put_and_the_last_of_one_key(tmp_path):
    journal = Journal(tmp_path / "some" / "values.jsonl")
    assert "a" not in journal and journal.get("a") is None
    journal.put("a", {"x": [0.1 + 0.2, float("nan")], "n": np.int64(3)})
    journal.put("b\n\tü ", "line\nbreak")
    journal.put("a", 2)
    for found in (journal, Journal(tmp_path / "some" / "values.jsonl")):
        assert (found.get("a"), found.get("b\n\tü ")) == (2, "line\nbreak")
        assert found.list_keys() == ["a", "b\n\tü "]


def test_what_a_kill_left_of_a_line_is_not_read_and_hurts_no_other(tmp_path):
    path = tmp_path / "values.jsonl"
    journal = Journal(path)
    for name in "abc":
        journal.put(name, [name] * 5)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        torn = Journal(path)
        assert len(torn.list_keys()) == whole[:length].count(b"\n")
        torn.put("d", 4)
        again = Journal(path)
        assert again.get("d") == 4 and set(torn.list_keys()) <= set(again.list_keys())
    path.write_bytes(whole.replace(b'"b"', b'"x"', 1))
    assert Journal(path).list_keys() == ["a", "c"], "a line whose check sum is another's"


def test_two_processes_add_to_one_journal_and_one_sweeps_it(tmp_path):
    path = tmp_path / "values.jsonl"
    one, other = Journal(path), Journal(path)
    one.put("a", 1)
    other.put("b", 2)
    one.put("c", 3)
    assert [Journal(path).get(key) for key in "abc"] == [1, 2, 3] and one.get("c") == 3
    third = Journal(path)
    one.sweep(["a"])  # it does not know of b
    assert Journal(path).list_keys() == ["a"] and one.get("a") == 1
    third.put("d", 4)
    assert third.get("d") == 4 and third.get("a") == 1 and Journal(path).list_keys() == ["a", "d"]


def test_a_file_is_read_again_where_its_stamp_is_new(tmp_path, monkeypatch):
    path, read = tmp_path / "mask.nii.gz", Counter()
    path.write_bytes(b"one")
    hash_file = storage.hash_file
    monkeypatch.setattr(storage, "hash_file", lambda file: read.update([file.name]) or hash_file(file))
    contents = Contents(tmp_path)
    assert contents.recall(path) is None
    first = contents.find(path)
    contents.flush()
    assert Contents(tmp_path).find(path) == first and read.total() == 1
    path.touch()
    assert contents.is_changed(path) and contents.find(path) == first and read.total() == 2
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert contents.find(path) != first, "size and time are equal, the time of change is not"
    path.unlink()
    assert contents.find(path) is None


def test_a_folder_and_a_header_stand_for_their_files(tmp_path):
    folder, header = tmp_path / "masks", tmp_path / "mask.hdr"
    folder.mkdir()
    for file in (folder / "liver.nii.gz", header, tmp_path / "mask.img"):
        file.write_bytes(b"one")
    contents = Contents(tmp_path)
    before = [contents.find(place) for place in (folder, header)]
    (folder / "spleen.nii.gz").write_bytes(b"two")
    (tmp_path / "mask.img").write_bytes(b"two")
    after = [contents.find(place) for place in (folder, header)]
    assert before[0] != after[0] and before[1] != after[1]


def measure(case, missing):
    if case == "broken":
        raise ValueError("no")
    return {name: {"value": case, "name": name} for name in missing}


def test_a_kill_costs_the_cases_at_work_alone(tmp_path, monkeypatch):
    from helpers.parameters import Compute

    cases = [f"case{number}" for number in range(5)]
    files = [tmp_path / f"{name}.bin" for name in cases]
    for file in files:
        file.write_text(file.name, encoding="utf-8")
    worked = []

    def work(function, stop_at=None):
        def guarded(case, missing):
            if case == stop_at:
                raise KeyboardInterrupt  # nothing of Python's comes after a kill either
            worked.append(case)
            return function(case, missing)

        wanted = [{"": Ingredients((file,), "settings")} for file in files]
        kept = Kept(tmp_path / "study", "some")
        how = {"kept": kept, "ids": cases, "compute": Compute(workers=0), "label": "working"}
        return list(map_kept(guarded, cases, wanted, **how))

    with pytest.raises(KeyboardInterrupt):
        work(measure, stop_at="case4")
    assert worked == cases[:4]
    worked.clear()
    assert [one[""]["value"] for one in work(measure)] == cases and worked == cases[4:]
    files[1].touch()
    files[2].write_text("other", encoding="utf-8")
    worked.clear()
    work(measure)
    assert worked == ["case2"], "a touched file holds what it held"
    assert len(Journal(tmp_path / "study" / FOLDER / "some.jsonl").list_keys()) == 5, "what was of the former is swept"


def test_arrays_are_kept_in_folders_that_stay_small(tmp_path):
    kept = Kept(tmp_path, "some")
    keys = [f"{number:032x}" for number in (0, 1 << 120)]
    for key in keys:
        write_arrays(kept.path(key), {"a": np.arange(3)})
    assert kept.path(keys[0]).parent != kept.path(keys[1]).parent
    kept.sweep(keys[:1])
    assert read_arrays(find_file(kept.folder, keys[0]))["a"].tolist() == [0, 1, 2]
    assert read_arrays(kept.path(keys[1])) is None
    with pytest.raises(StageError, match=r"some/01/.*\.npz is missing or damaged: run the same command again"):
        load_arrays(kept.path(keys[1]))


def test_a_large_study_spreads_its_masks_and_a_small_one_stays_as_it_is(tmp_path, monkeypatch):
    from helpers import study as module

    study = write_study(tmp_path, people=3)
    flat = study.prediction_path("first", "p0")
    assert flat == study.folder / "predictions" / "first" / "p0.nii.gz"
    storage.write_table(pd.DataFrame({"scan": ["p0", "p1", "p2"]}), study.path("cohort"))
    storage.write_text("", flat)
    monkeypatch.setattr(module, "_SCANS_IN_FOLDER", 2)
    assert study.prediction_path("first", "p0") == flat, "what lies in one folder stays there"
    apart = study.prediction_path("first", "p1")
    assert apart.parent.parent == flat.parent and len(apart.parent.name) == 2
    storage.write_text("", apart)
    monkeypatch.setattr(module, "_SCANS_IN_FOLDER", 3)
    assert study.prediction_path("first", "p1") == apart and study.prediction_path("first", "p2").parent == flat.parent
    scans = ["p0", "p1", "p2"]
    for many in (2, 3):
        monkeypatch.setattr(module, "_SCANS_IN_FOLDER", many)
        assert study.list_prediction_paths("first", scans) == [study.prediction_path("first", one) for one in scans]


MEASURING = ("cohort.validation", "performance.measuring", "performance.proxies", "spatial.measuring")


@pytest.mark.parametrize(
    ("edited", "stale"),
    [
        ("metrics/masks.py", {"performance.measuring"}),
        ("dicom/segments.py", {*MEASURING, "spatial.contrasts"}),  # masks may be DICOM
        ("cohort/numbers.py", {"cohort.validation"}),
        ("spatial/deformation.py", {"spatial.measuring", "spatial.contrasts"}),
        ("statistics/overlap.py", {"spatial.contrasts"}),
        ("fairness/audit.py", set()),
        ("report/page.py", set()),
        ("compute.py", set()),
    ],
)
def test_what_is_kept_depends_on_the_code_that_its_numbers_come_from(edited, stale):
    code, modules = OwnCode.read(), (*MEASURING, "spatial.contrasts")
    before = {name: code.hash_code([name], numbers=True) for name in modules}
    code.hashes[edited] = f"not {code.hashes[edited]}"
    assert {name for name in modules if code.hash_code([name], numbers=True) != before[name]} == stale
    with pytest.raises(ValueError, match="must be of the package"):
        hash_code("no_such_module")


def write_study(folder: Path, *, people: int = PEOPLE, models=("first", "second"), **changes) -> Study:
    """Write a tiny study of ready-made masks: a person per scan."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(people):
        shape = {"radii_xyz_mm": tuple(rng.uniform(0.9, 1.1, 3) * (20.0, 18.0, 22.0)), "size_mm": 60.0}
        name = f"p{number}"
        masks = {"reference": 0.0, "first": -1.5, "second": 1.5, "third": 0.5}
        for place, margin in masks.items():
            path = folder / "data" / place / f"{name}.nii.gz"
            if not path.exists():
                volumes.write_volume(draw_ellipsoid(**shape, margin_mm=margin), path)
        sex, age = ("female", "male")[number % 2], 30 + number
        rows.append(
            {"subject": name, "sex": sex, "age": age, "modality": "CT", "reference": f"reference/{name}.nii.gz"}
        )
    pd.DataFrame(rows).to_csv(folder / "data" / "people.csv", index=False)
    parameters = {
        "name": "tiny",
        "seed": SEED,
        "cohort": {
            "source": "table", "path": str(folder / "data" / "people.csv"), "organs": {"organ": {"labels": [1]}},
            "attributes": {"sex": {"categories": ["female", "male"]}},
        },
        "models": [
            {"name": name, "kind": "precomputed", "path": f"{name}/{{scan}}.nii.gz"} for name in models
        ],
        "fairness": {"metrics": ["dice"], "min_group": 2, "bootstrap": 100},
        "spatial": {"organs": ["organ"], "grid_mm": 6.0, "vertices": 200, "permutations": 100},
        "compute": {"workers": 0},
    }  # fmt: skip
    path = folder / "params" / "tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return load_study(path, changes)


def run(study: Study) -> None:
    """Do what the notebooks of 01 to 04 do."""
    cohort.build_cohort(study)
    inference.run_inference(study)
    performance.measure_performance(study)
    performance.write_audit(study)
    spatial.map_errors(study)


@pytest.fixture
def calls(monkeypatch):
    """How often each kind of work was done, while a test runs."""
    from helpers.cohort import validation
    from helpers.performance import measuring
    from helpers.spatial import cohort_template, contrasts, registrations
    from helpers.spatial import measuring as surfaces

    found: Counter[str] = Counter()

    def watch(kind, place, name):
        original = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *given, **named: found.update([kind]) or original(*given, **named))

    watch("checks", validation, "_open_files")
    watch("masks", inference.stage, "_segment_scan")
    watch("measures", measuring, "compare_masks")
    watch("shapes", cohort_template, "measure_shapes")
    watch("registrations", registrations, "deform")
    watch("errors", surfaces, "measure_signed_errors")
    watch("tests", contrasts, "infer_effect")
    monkeypatch.setattr(cohort_template, "MAX_TEMPLATE_SUBJECTS", 4)
    return found


TOUCHED, EDITED = "a reference touched", "a reference edited"
LINES = {
    "nothing": {},
    "the title": {"title": "Other"},
    "`fairness.*`, but for the groups": {"fairness.alpha": 0.2, "fairness.bootstrap": 150},
    "`metrics.tolerance_mm`": {"metrics.tolerance_mm": 1.0},
    "`spatial.permutations`": {"spatial.permutations": 120},
    "a model more": {},
    "a person more": {},
    TOUCHED: {},
    EDITED: {},
}


def read_design(repository: Path) -> dict[str, dict[str, str]]:
    """Return the table of docs/DESIGN.md: by change and kind what is worked out again."""
    text = (repository / "docs" / "DESIGN.md").read_text(encoding="utf-8")
    rows = re.search(r"<!-- changes -->\n(.*?)<!-- /changes -->", text, re.DOTALL)[1].strip().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


def hash_tables(study: Study) -> dict[str, str]:
    """Hash what 03 and 04 write for others to read."""
    found = [*study.folder.glob("*.parquet"), *study.folder.glob("fairness/*"), *study.folder.rglob("spatial/**/*")]
    return {str(path.relative_to(study.folder)): storage.hash_file(path) for path in found if path.is_file()}


def test_each_change_works_out_what_the_design_says_and_gives_what_a_run_from_nothing_gives(
    tmp_path, calls, repository
):
    """`one`: of the scan, or of the model on every scan; `all`: of every scan and model."""
    study = write_study(tmp_path)
    run(study)
    whole = Counter(calls)
    assert all(whole[kind] for kind in KINDS), whole
    shutil.copytree(study.folder, tmp_path / "first")
    design = read_design(repository)
    assert set(design) == set(LINES)
    names = [f"p{number}" for number in range(PEOPLE)]
    name = max(names, key=lambda one: study.seed_for("spatial", "template", one))  # the template is not made of it
    reference = tmp_path / "data" / "reference" / f"{name}.nii.gz"
    for change, overrides in LINES.items():
        options = {"people": PEOPLE, "models": ("first", "second")}
        if change == "a model more":
            options["models"] = ("first", "second", "third")
        if change == "a person more":
            options["people"] = PEOPLE + 1
        former = reference.read_bytes()
        if change == TOUCHED:
            reference.touch()
        if change == EDITED:
            status = reference.stat()
            other = (tmp_path / "data" / "first" / f"{name}.nii.gz").read_bytes()
            reference.write_bytes(other)
            os.utime(reference, ns=(status.st_atime_ns, status.st_mtime_ns))
        changed = write_study(tmp_path, **options, **overrides)
        calls.clear()
        run(changed)
        scans, models = options["people"], len(options["models"])
        one = {
            "a model more": {"masks": scans, "measures": scans, "errors": scans, "tests": whole["tests"] // 2},
            "a person more": dict.fromkeys(("checks", "registrations"), 1) | dict.fromkeys(
                ("masks", "measures", "errors"), models
            ),
            EDITED: dict.fromkeys(("checks", "registrations"), 1) | dict.fromkeys(
                ("masks", "measures", "errors"), models
            ),
        }  # fmt: skip
        for kind in KINDS:
            said = design[change][kind]
            expected = {"–": 0, "all": whole[kind]}.get(said, one.get(change, {}).get(kind))
            assert calls[kind] == expected, (change, kind, said, calls)
        kept = hash_tables(changed)
        shutil.rmtree(changed.folder)
        if change in one:
            run(changed)
            assert hash_tables(changed) == kept, f"{change}: not what a run from nothing writes"
            shutil.rmtree(changed.folder)
        reference.write_bytes(former)
        shutil.copytree(tmp_path / "first", study.folder)


def test_verify_finds_bytes_that_were_changed_under_every_stamp(tmp_path, monkeypatch):
    from helpers import kept as module

    study = write_study(tmp_path, people=4, models=("first",))
    cohort.build_cohort(study)
    provenance.record_stage(study, "01_cohort", status="finished", seconds=1.0)
    reference = tmp_path / "data" / "reference" / "p1.nii.gz"
    stamp = module._stamp_file(reference)
    monkeypatch.setattr(
        module,
        "_stamp_file",
        lambda path, real=module._stamp_file: stamp if str(path) == str(reference) else real(path),
    )
    reference.write_bytes((tmp_path / "data" / "first" / "p1.nii.gz").read_bytes())
    assert provenance.stage_is_current(study, "01_cohort")
    said: list[str] = []
    pipeline._verify(study, said.append)
    assert said == ["verified: 7 files read, 1 changed without another size or time"]
    assert verify_contents(Contents(study.folder), study.parameters.compute) == 0
    assert provenance.explain_stage(study, "01_cohort") == "changed: the input files"


def test_files_that_are_known_are_not_read_again(tmp_path, monkeypatch):
    from helpers.parameters import Compute

    file = tmp_path / "a.bin"
    file.write_bytes(b"a")
    contents = Contents(tmp_path)
    read_contents(contents, [file, file, tmp_path / "missing"], Compute(workers=0))
    assert contents.recall(file) is not None
    monkeypatch.setattr(resuming, "map_cases", None)
    read_contents(contents, [file], Compute(workers=0))
