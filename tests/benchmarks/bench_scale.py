"""How time and memory of every stage grow with the number of scans.

    python tests/benchmarks/bench_scale.py 500 2000 [--folder FOLDER] [--stages 01 02 03 04 05]

Synthetic studies of ready-made masks, 24 voxels a side, all different; two organs, two models, of
which the last draws women's livers too small; one process. Each stage runs in a fork of this
process, without its notebook. Seconds are of the processor (user and system), so that a busy
machine tells much the same; memory is the peak of the process. Prints a Markdown table; the
exponent is that of the last two sizes.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import yaml

from helpers import cohort, inference, performance, provenance, report, spatial
from helpers.notebook import close_stage, open_stage
from helpers.schema import STAGES
from helpers.study import Study, load_study

SIDE, SPACING_MM, MODELS = 24, 8.0, 2
AXES = np.stack(np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 3, indexing="ij"), -1)
ORGANS = (((0.0, 0.0, -0.35), (0.55, 0.5, 0.42)), ((0.05, 0.1, 0.5), (0.35, 0.3, 0.28)))


def write_mask(path: Path, labels: np.ndarray) -> None:
    """Write uint8 (z, y, x) as NIfTI-1, axis-aligned, gzip level 1 without a time stamp."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *labels.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, 1, *[SPACING_MM] * 3, 0, 0, 0, 0)
    struct.pack_into("<2f", header, 108, 352, 1)
    header[123] = 2  # millimetres
    struct.pack_into("<2h", header, 252, 0, 1)
    for row in range(3):
        struct.pack_into("<f", header, 280 + 20 * row, SPACING_MM)
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + labels.tobytes(), 1, mtime=0))


def draw(organs: Sequence[np.ndarray], rng: np.random.Generator, *, grow: float, noise: float) -> np.ndarray:
    """Return the label map of organs, whose outlines lie at 1 + grow (the liver's) and wobble."""
    labels = np.zeros((SIDE,) * 3, np.uint8)
    for label, offset in enumerate(organs, start=1):
        wave = noise * np.sin(offset @ rng.normal(0, 2, 3) + rng.uniform(0, 6))
        radius = np.linalg.norm(offset, axis=-1)
        labels[(radius < 1 + (grow if label == 1 else 0) + wave) & (labels == 0)] = label
    return labels


def write_study(folder: Path, scans: int) -> Path:
    """Write masks, table and parameter file; return the latter."""
    rng, data = np.random.default_rng(scans), folder / "data" / f"n{scans}"
    for name in ("masks", "model1", "model2"):
        (data / name).mkdir(parents=True)
    lines = ["subject,scan,sex,age,bmi,modality,scanner,reference"]
    for place in range(scans):
        scan, female = f"s{place:06d}", bool(rng.integers(2))
        scale = 0.95 if female else 1.05
        organs = [
            (AXES - centre - rng.normal(0, 0.02, 3)) / (np.asarray(radii) * scale * rng.normal(1, 0.06, 3))
            for centre, radii in ORGANS
        ]
        write_mask(data / "masks" / f"{scan}.nii.gz", draw(organs, rng, grow=0.0, noise=0.0))
        for number in range(1, MODELS + 1):
            grow = -0.08 if female and number == MODELS else 0.0
            write_mask(data / f"model{number}" / f"{scan}.nii.gz", draw(organs, rng, grow=grow, noise=0.05))
        sex, age, bmi = "female" if female else "male", rng.uniform(19, 89), rng.uniform(17, 39)
        lines.append(f"p{place:06d},{scan},{sex},{age:.0f},{bmi:.1f},CT,{'AB'[place % 2]},masks/{scan}.nii.gz")
    (data / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    bins = {"age": {"bins": [18, 45, 65, 120], "unit": "years"}, "bmi": {"bins": [10, 25, 30, 90]}}
    parameters = {
        "name": f"n{scans}",
        "cohort": {
            "source": "table",
            "path": str(data / "people.csv"),
            "organs": {"liver": {"labels": [1]}, "spleen": {"labels": [2]}},
            "attributes": {"sex": {"categories": ["female", "male"]}, **bins},
            "confounders": ["scanner"],
        },
        "models": [
            {"name": f"model{number}", "kind": "precomputed", "path": f"model{number}/{{scan}}.nii.gz"}
            for number in range(1, MODELS + 1)
        ],
        "fairness": {"min_group": 10},
        "spatial": {"organs": ["liver"], "grid_mm": 8.0, "vertices": 500, "permutations": 200},
        "compute": {"workers": 0},
    }
    path = folder / "params" / f"n{scans}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return path


def run_stage(params: Path, stage: str, overrides: dict[str, object]) -> None:
    """Do what a stage's notebook does, but for its figures."""
    study = open_stage(stage, str(params), overrides)
    if stage == "01_cohort":
        cohort.build_cohort(study)
    elif stage == "02_inference":
        inference.run_inference(study)
    elif stage == "03_performance":
        performance.measure_performance(study)
        audit = performance.write_audit(study)
        performance.write_agreement(study)
        performance.write_effort(study, audit)
        performance.write_paper(study)
    elif stage == "04_spatial":
        spatial.map_errors(study)
    else:
        report.build_report(study.folder)
    close_stage(study, stage)


def look_up(study: Study) -> None:
    """Ask of every stage whether it is up to date, as `segfair run` does first."""
    prints = provenance.Fingerprints(study)
    for stage in STAGES:
        provenance.explain_stage(study, stage, prints)


def check(params: Path) -> None:
    """Look at table and files as `segfair check` does."""
    cohort.check_cohort(load_study(str(params)))


def time_fork(work: Callable[[], None]) -> tuple[float, float]:
    """Run something in a fork; return its processor seconds and its peak memory (MiB)."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with Path(os.devnull).open("w", encoding="utf-8") as nothing, redirect_stdout(nothing):
                work()
            status = 0
        except BaseException as error:  # it must not go on as a second benchmark
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    _, state, usage = os.wait4(child, 0)
    if state != 0:
        sys.exit("a stage failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(params: Path, stages: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Run the stages of one study, then again after changes; return seconds and memory of each."""
    found = {}
    again = {"fairness.alpha": 0.1}
    for stage in stages:
        found[stage] = time_fork(lambda stage=stage: run_stage(params, stage, {}))
    for stage in stages:
        if stage in ("01_cohort", "02_inference"):
            found[f"{stage}, all kept"] = time_fork(lambda stage=stage: run_stage(params, stage, {}))
        if stage in ("03_performance", "04_spatial"):
            found[f"{stage}, alpha changed"] = time_fork(lambda stage=stage: run_stage(params, stage, again))
    found["all up to date?"] = time_fork(lambda: look_up(load_study(str(params))))
    found["segfair check"] = time_fork(lambda: check(params))
    return found


def describe_sizes(folder: Path) -> str:
    """Return the size of the report and the largest folder of an output folder."""
    page = folder / "report.html"
    files = {place: len(list(place.iterdir())) for place in folder.rglob("*") if place.is_dir()}
    largest = max(files, key=lambda place: files[place])
    size = f"{page.stat().st_size / 1e6:.1f} MB" if page.exists() else "none"
    return f"report {size}; most files in a folder: {files[largest]:,} ({largest.relative_to(folder)})"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=int, nargs="+")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder, removed at the end")
    parser.add_argument("--stages", nargs="+", default=["01", "02", "03", "04", "05"])
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="segfair-scale-"))
    stages = [stage for stage in STAGES if stage[:2] in given.stages]
    found: dict[int, dict[str, tuple[float, float]]] = {}
    said = []
    try:
        for scans in sorted(given.scans):
            params = write_study(folder, scans)
            began = time.monotonic()
            found[scans] = measure(params, stages)
            sizes = describe_sizes(folder / "outputs" / f"n{scans}")
            said.append(f"{scans:,} scans: {sizes}; {(time.monotonic() - began) / 60:.0f} min of clock")
            sys.stderr.write(f"{said[-1]}\n")
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    columns = [f"{scans:,}" for scans in found]
    lines = [f"| processor s (peak MiB) | {' | '.join(columns)} | exponent | ms per scan and model more |"]
    lines.append("|---" * (len(columns) + 3) + "|")
    for what in next(iter(found.values())):
        cells = [f"{one[what][0]:.1f} ({one[what][1]:.0f})" for one in found.values()]
        growth = ["", ""]
        if len(found) > 1:
            (fewer, before), (more, after) = [(scans, one[what][0]) for scans, one in found.items()][-2:]
            exponent = np.log(max(after, 0.01) / max(before, 0.01)) / np.log(more / fewer)
            growth = [f"{exponent:.2f}", f"{1000 * (after - before) / (more - fewer) / MODELS:.2f}"]
        lines.append(f"| {what} | {' | '.join(cells)} | {' | '.join(growth)} |")
    sys.stdout.write("\n".join([*lines, "", *said]) + "\n")


if __name__ == "__main__":
    main()
