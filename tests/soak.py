"""Kill whole runs of a study at random moments, run them again, and compare all tables with those
of an undisturbed run.

    python -m tests.soak --kills 50 --seed 0        (make soak)

The processes of a run, its kernels and workers among them, are killed together (SIGKILL) after a
random time, a third of an undisturbed run's on average. The next run goes on and is killed too,
until one comes to its end. What that one leaves must be equal to the byte, but for columns that
tell the time; then all starts anew. Prints a table for docs/reliability.md.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from tests.small_volumes import pack_nifti

# What tells the time, or whether something was done again.
_TIMES = ("seconds", "read_seconds", "encode_seconds", "decode_seconds", "write_seconds", "reused")
_SIDE, _SPACING_MM = 20, 9.0
STUDY = {
    "name": "soak",
    "cohort": {
        "source": "table", "path": "data/people.csv", "organs": {"liver": {"labels": [1]}},
        "attributes": {"sex": {"categories": ["female", "male"]}, "age": {"bins": [18, 50, 120]}},
    },
    "models": [{"name": name, "kind": "precomputed", "path": f"{name}/{{scan}}.nii.gz"} for name in ("one", "two")],
    "fairness": {"min_group": 4, "bootstrap": 100, "permutations": 500},
    "spatial": {"grid_mm": 9.0, "vertices": 300, "permutations": 100},
}  # fmt: skip


def write_study(folder: Path, people: int, seed: int) -> Path:
    """Write a study of ready-made masks of wobbling balls; return its parameter file."""
    rng, lines = np.random.default_rng(seed), ["subject,scan,sex,age,bmi,modality,reference"]
    axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, _SIDE)] * 3, indexing="ij"), axis=-1)
    affine = np.column_stack([np.diag([-_SPACING_MM, -_SPACING_MM, _SPACING_MM]), np.zeros(3)])
    for place in range(people):
        radius = np.linalg.norm(axes / rng.normal(0.6, 0.05, 3), axis=-1)
        for name, noise in (("masks", 0.0), ("one", 0.1), ("two", 0.2)):
            wave = noise * np.sin(axes @ rng.normal(0, 3, 3))
            path = folder / "data" / name / f"s{place:03d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(pack_nifti((radius < 1 + wave).astype(np.uint8), affine), 1, mtime=0))
        sex, age = ("female", "male")[place % 2], rng.integers(20, 80)
        lines.append(f"p{place},s{place:03d},{sex},{age},{rng.uniform(18, 35):.1f},CT,masks/s{place:03d}.nii.gz")
    (folder / "data" / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "params" / "soak.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(STUDY), encoding="utf-8")
    return path


def hash_tables(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every table and mask of a study, without what tells the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            data = table.drop(columns=[name for name in _TIMES if name in table]).to_csv(index=False).encode()
        elif path.suffix in (".csv", ".tex", ".gz"):
            data = path.read_bytes()
        else:
            continue
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def run(params: Path, log: Path, *, kill_after: float | None = None) -> tuple[int, float, int]:
    """Run `segfair run`; return its exit status, its seconds and how many processes were killed."""
    start = [sys.executable, "-c", "from helpers.cli import main; main()"]
    command = [*start, "run", str(params), "-o", "compute.workers=2"]
    began = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        try:
            status = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for one in family:
                try:
                    os.kill(one.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()
            return -signal.SIGKILL, time.monotonic() - began, len(family)
    return status, time.monotonic() - began, 0


def main() -> None:
    """Read the command line, run, kill until a run comes to its end, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--people", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        params, log = write_study(Path(scratch), given.people, given.seed), Path(scratch) / "log"
        output = Path(scratch) / "outputs" / "soak"
        status, whole_s, _ = run(params, log)
        if status:
            sys.exit(log.read_text(encoding="utf-8"))
        wanted = hash_tables(output)
        sys.stdout.write(f"undisturbed: {whole_s:.0f} s, {len(wanted)} files compared\n\n")
        sys.stdout.write(
            "| killed while at work | kills | processes killed | studies with another result |\n|---|---|---|---|\n"
        )
        kills: list[tuple[str, int, int]] = []  # stage at work, processes, the study's number
        differing: dict[int, str] = {}
        study = 0
        while len(kills) < given.kills or output.exists():
            last = len(kills) >= given.kills  # the study at work still has to be finished
            status, after_s, killed = run(params, log, kill_after=None if last else rng.exponential(whole_s / 3))
            if status == -signal.SIGKILL and killed:
                lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("[")]
                stage = lines[-1].split("] ")[1].split(":")[0] if lines else "before the first stage"
                kills.append((stage, killed, study))
                sys.stderr.write(f"kill {len(kills)}: {stage} after {after_s:.0f} s, study {study + 1}\n")
                continue
            found = hash_tables(output)
            names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            if status or names:
                differing[study] = ", ".join(names[:3]) or f"exit {status}"
            shutil.rmtree(output, ignore_errors=True)
            study += 1
        for stage in sorted({stage for stage, _, _ in kills}):
            here = [(processes, number) for name, processes, number in kills if name == stage]
            what = "; ".join(sorted({differing[number] for _, number in here if number in differing})) or "none"
            processes = sorted(count for count, _ in here)
            sys.stdout.write(f"| {stage} | {len(here)} | {processes[0]} to {processes[-1]} | {what} |\n")
    sys.stdout.write(f"\n{len(kills)} kills in {study} studies, {len(differing)} with another result\n")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
