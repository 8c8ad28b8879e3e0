"""Feed hostile inputs to `segfair check`, and judge what it says: one sentence, and nothing else;
and images among good ones to all five stages.

python -m tests.fuzzing --seed 1 --number 1000        (make fuzz SEED=1 N=1000)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.schema import STAGES
from tests import hostile_dicom
from tests import hostile_inputs as hostile
from tests.benchmarks.bench_scale import run_stage

# Names of Python's errors and of its values, which no sentence for people holds.
PYTHON = re.compile(
    r"\b[A-Z]\w+(?:Error|Exception)\b|object at 0x|\bErrno\b|codec can't|<class '|\bNoneType\b|numpy\.|itk::"
)
_LONGEST, _SECONDS, _GIB, _GOOD = 20_000, 60, 4, 24
STUDY = """name: fuzzed
cohort:
  source: table
  path: {table}
  organs: {{liver: {{labels: [1]}}, spleen: {{labels: [2]}}}}
  attributes:
    sex: {{categories: [female, male]}}
    age: {{bins: [18, 50, 120], unit: years}}
  confounders: []
models:
  - {{name: ours, kind: precomputed, path: "ours/{{scan}}.nii.gz"}}
fairness: {{min_group: 2, bootstrap: 100}}
"""
DICOM_STUDY = """name: fuzzed
cohort:
  source: dicom
  path: tree
  organs: {liver: {labels: [Liver]}, spleen: {labels: [Spleen]}}
  attributes:
    sex: {categories: [female, male]}
    age: {bins: [18, 50, 120], unit: years}
  confounders: [scanner, kernel]
models:
  - {name: ours, kind: precomputed, path: ../ours}
fairness: {min_group: 2, bootstrap: 100}
"""
Case = tuple[str, Callable[[Path], list[str]]]  # what it is, and what makes it and returns the command


def _write_study(folder: Path, table: Path) -> list[str]:
    path = folder / "study.yaml"
    path.write_text(STUDY.format(table=json.dumps(str(table))), encoding="utf-8")
    return ["check", str(path), "-o", "compute.workers=0"]


def list_cases(seed: int, number: int, *, together: int = 1) -> Iterator[Case]:
    """Yield `number` inputs; so many images `together` in one study, each a scan of its own."""
    rng = np.random.default_rng(seed)
    images, tables, weights = hostile.draw_images(rng), hostile.draw_tables(rng), hostile.draw_weights(rng)
    parameters = hostile.draw_parameters(rng, STUDY.format(table="people.csv"))
    shares = {"images": 0.42, "tables": 0.2, "parameters": 0.35, "weights": 0.03}
    counts = {kind: round(number * share) for kind, share in shares.items()}
    for first in range(0, counts["images"], together):
        some = list(islice(images, min(together, counts["images"] - first)))
        yield f"images {first}", lambda folder, some=some: _write_images(folder, some)
    for place, (name, data) in enumerate(islice(tables, counts["tables"])):
        yield f"table {place} {name}", lambda folder, name=name, data=data: _write_table(folder, name, data)
    for place, text in enumerate(islice(parameters, counts["parameters"])):
        yield f"parameters {place}", lambda folder, text=text: _write_parameters(folder, text)
    for place, (name, data) in enumerate(islice(weights, counts["weights"])):
        yield f"weights {place} {name}", lambda folder, name=name, data=data: _write_weights(folder, name, data)
    people, abreast = hostile_dicom.draw_people(rng), min(together, 4)
    for first in range(0, number // 10, abreast):
        some = list(islice(people, min(abreast, number // 10 - first)))
        yield f"dicom {first}", lambda folder, some=some: _write_people(folder, some)


def _write_images(folder: Path, images: list[tuple[str, bytes]]) -> list[str]:
    lines = ["subject,scan,sex,age,bmi,modality,reference,image"]
    (folder / "ours").mkdir()
    for place, (name, data) in enumerate(images):
        own, role = f"{place:03d}{name[1:]}", ("odd", "image", "ours")[place % 3]
        for one in ("odd", "image"):
            (folder / one).mkdir(exist_ok=True)
        target = folder / (f"ours/{place:03d}.nii.gz" if role == "ours" else f"{role}/{own}")
        target.write_bytes(data)
        reference = f"odd/{own}" if role == "odd" else "masks/a.nii.gz"
        lines.append(f"p{place},{place:03d},female,50,22,CT,{reference},{f'image/{own}' if role == 'image' else ''}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return _write_study(folder, folder / "people.csv")


def _write_table(folder: Path, name: str, data: bytes) -> list[str]:
    (folder / name).write_bytes(data)
    return _write_study(folder, folder / name)


def _write_people(folder: Path, people: list[hostile_dicom.Files]) -> list[str]:
    for name in ("tree", "ours"):
        (folder / name).mkdir()
    for files in people:
        hostile_dicom.write(folder, files)
    (folder / "study.yaml").write_text(DICOM_STUDY, encoding="utf-8")
    return ["check", str(folder / "study.yaml"), "-o", "compute.workers=0"]


def _write_parameters(folder: Path, text: bytes) -> list[str]:
    (folder / "people.csv").write_text(
        "subject,scan,sex,age,bmi,modality,reference\na,a,female,50,22,CT,masks/a.nii.gz\n", encoding="utf-8"
    )
    (folder / "study.yaml").write_bytes(text)
    return ["check", str(folder / "study.yaml"), "-o", "compute.workers=0"]


def _write_weights(folder: Path, name: str, data: bytes) -> list[str]:
    (folder / name).write_bytes(data)
    return ["checkpoints", "verify", str(folder / name)]


def judge(code: int, said: str) -> str:
    """Return what is wrong with how a command ended; empty where nothing is."""
    if code not in (0, 1, 2):
        return f"it ended with {code}"
    if code and not said.strip():
        return "it said nothing"
    if "Traceback (most recent call last)" in said:
        return "a traceback"
    if len(said) > _LONGEST:
        return f"{len(said)} letters"
    found = PYTHON.search(said)
    return f"words of Python's: {found[0]}" if found else ""


def run_here(case: Case, place: Path) -> str:
    """Run a case in this process; return what is wrong."""
    from helpers.cli import app
    from helpers.errors import SegfairError

    folder = place / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    hostile.write_scans(folder)
    before, said, code = set(), io.StringIO(), 0
    os.chdir(folder)
    try:
        command = case[1](folder)
        before = set(place.rglob("*"))
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            ended = app(command, standalone_mode=False)
        code = ended if isinstance(ended, int) else 0
    except SegfairError as error:
        code = 2
        said.write(f"segfair: {error}\n")
    except Exception as error:  # what would be a traceback
        return f"{type(error).__name__}: {str(error)[:300]}"
    strays = sorted(str(path) for path in set(place.rglob("*")) - before if "outputs" not in path.parts)
    fault = f"written: {strays[:3]}" if strays else judge(code, said.getvalue())
    return fault and f"{fault}: {said.getvalue()[-400:]}"


def warm_up(place: Path) -> None:
    """Check a good study, so that forks inherit what is imported late."""
    fault = run_here(("good", lambda folder: _write_images(folder, [("x.nii", hostile.GOOD)] * 3)), place)
    if fault:
        raise RuntimeError(fault)


def run_apart(cases: list[Case], place: Path, *, seconds: float = _SECONDS) -> list[str]:
    """Run cases one after the other in a fork with little memory; return what is wrong.

    `seconds` of the processor's are for each case.
    """
    told = place / "told.jsonl"
    told.write_text("", encoding="utf-8")
    child = os.fork()
    if child == 0:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _GIB * 2**30,) * 2)
        with told.open("a", encoding="utf-8") as stream, contextlib.suppress(BaseException):
            for name, make in cases:
                stream.write(json.dumps([name, run_here((name, make), place)]) + "\n")
                stream.flush()
        os._exit(0)
    began, done = time.monotonic(), 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        finished = told.read_text(encoding="utf-8").count("\n")
        if finished > done:
            began, done = time.monotonic(), finished
        if time.monotonic() - began > 6 * seconds:  # the machine may be busy
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.02)
    outcomes = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
    faults = [f"{name}: {fault}" for name, fault in outcomes if fault]
    if len(outcomes) < len(cases):
        faults.append(f"{cases[len(outcomes)][0]}: it hung, or the process died of it")
    return faults


_SPATIAL = "spatial: {organs: [liver], grid_mm: 9.0, vertices: 100, permutations: 100}\n"


def run_study(seed: int, number: int, folder: Path) -> list[str]:
    """Put hostile images among 24 good scans, run all stages; return what is wrong."""
    hostile.write_scans(folder)
    _write_images(folder, list(islice(hostile.draw_images(np.random.default_rng(seed)), number)))
    lines = []
    for place in range(_GOOD):
        shutil.copy(folder / "masks" / "a.nii.gz", folder / "ours" / f"good{place}.nii.gz")
        sex, reference = ("female", "male")[place % 2], f"masks/{'abc'[place % 3]}.nii.gz"
        lines.append(f"good{place},good{place},{sex},{30 + 2 * place},22,CT,{reference},")
    with (folder / "people.csv").open("a", encoding="utf-8") as table:
        table.write("\n".join(lines) + "\n")
    wrong, cohort, metrics = _run_stages(folder)
    if cohort is not None:
        good = metrics["scan"].str.startswith("good")
        if metrics.loc[good, "dice"].isna().any() or good.sum() != 2 * _GOOD:
            wrong.append("good scans not measured")
        if len(cohort) != number + _GOOD:
            wrong.append("scans lost")
        if (~cohort["included"]).sum() < number / 4:
            wrong.append("nothing hostile")
    return wrong


def run_dicom_study(seed: int, number: int, folder: Path) -> list[str]:
    """Put people with hostile DICOM files among 24 good ones, run all stages; return what is
    wrong."""
    rng = np.random.default_rng(seed)
    people = list(islice(hostile_dicom.draw_people(rng), number))
    folder.mkdir(exist_ok=True)
    _write_people(folder, [*people, *(hostile_dicom.draw_person(rng, number + place) for place in range(_GOOD))])
    wrong, cohort, metrics = _run_stages(folder)
    if cohort is not None:
        measured = metrics[metrics["dice"].notna()].groupby("scan").size()
        if (measured == 2).sum() < _GOOD:
            wrong.append("good scans not measured")
        if (~cohort["included"]).sum() < number / 6:
            wrong.append("nothing hostile")
    return wrong


def _run_stages(folder: Path) -> tuple[list[str], pd.DataFrame | None, pd.DataFrame | None]:
    """Run all stages; return what is wrong with any study, its people and its measures.

    Every scan must be left out with a reason, failed or measured, and none have a score without a
    mask.
    """
    with (folder / "study.yaml").open("a", encoding="utf-8") as parameters:
        parameters.write(_SPATIAL)
    before = set(folder.rglob("*"))
    for stage in STAGES:
        try:
            run_stage(folder / "study.yaml", stage, {"compute.workers": 0})
        except Exception as error:
            return [f"{stage}: {type(error).__name__}: {error}"], None, None
    output = folder / "outputs" / "fuzzed"
    cohort, metrics = pd.read_parquet(output / "cohort.parquet"), pd.read_parquet(output / "metrics.parquet")
    drawn = pd.read_parquet(output / "predictions" / "ours" / "inference.parquet").set_index("scan")["status"]
    included, left_out = cohort.loc[cohort["included"], "scan"], cohort.loc[~cohort["included"], "reason"]
    unmeasured = metrics["scan"].map(drawn) != "ok"
    wrong = {
        "scans lost": set(included) != set(drawn.index) or set(included) != set(metrics["scan"]),
        "left out without a reason": (left_out.fillna("") == "").any(),
        "a score without a mask": metrics.loc[unmeasured, "dice"].notna().any(),
        "no model's mask failed": not unmeasured.any(),
        "written elsewhere": any("outputs" not in path.parts for path in set(folder.rglob("*")) - before),
        "no report": not (output / "report.html").exists(),
    }
    return [name for name, found in wrong.items() if found], cohort, metrics


def main() -> None:
    """Run the long form: each input in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=1000)
    given = parser.parse_args()
    import torch  # noqa: F401  once, for every fork

    import helpers.notebook  # noqa: F401

    faults, number = [], 0
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder))
        for case in list_cases(given.seed, given.number):
            faults += run_apart([case], Path(folder))
            number += 1
        faults += run_study(given.seed, max(20, given.number // 4), Path(folder) / "study")
        faults += run_dicom_study(given.seed, max(20, given.number // 10), Path(folder) / "dicom_study")
    sys.stdout.write("\n".join([*faults, f"seed {given.seed}: {number} inputs, {len(faults)} faults"]) + "\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
