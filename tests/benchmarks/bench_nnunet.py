"""nnU-Net over ten scans, files to files: ours against the official command, on the processor.

    python tests/benchmarks/bench_nnunet.py [--scans 10] [--shape 40 96 112] [--features 6 12 24]

Each side is a command of its own, from its start to its last file: the second stage of a study,
with a worker a core as in any run, and nnU-Net's own with its defaults. The masks are compared.
Prints a Markdown table: seconds, processor seconds and the largest memory of all its processes.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import SimpleITK as sitk
import torch
import yaml

from helpers import cohort, volumes
from helpers.inference import run_inference
from helpers.study import Study, load_study

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import tiny_nnunet as tiny

SPACING_ZYX_MM = (5.5, 3.0, 3.0)


def make_inputs(folder: Path, scans: int, shape: Sequence[int], features: Sequence[int]) -> tuple[Path, Study]:
    """Write a model of two folds, the scans and a study of both; return the model and the study."""
    plans = tiny.make_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = list(features)
    states = {}
    for fold in range(2):
        torch.manual_seed(fold)
        network = tiny.build_network(plans)
        network.apply(network.initialize)
        states[f"fold_{fold}"] = network.state_dict()
    model = tiny.write_model(folder / tiny.NAME, states, plans)
    people = ["subject,sex,modality,image,reference"]
    for kind in ("images", "references"):
        (folder / kind).mkdir()
    for number in range(scans):
        name = f"s{number:02d}"
        drawn = tiny.draw_body(np.random.default_rng(number), shape, SPACING_ZYX_MM)
        for kind, voxels, dtype in zip(("images", "references"), drawn, (np.int16, np.uint8), strict=True):
            stored = sitk.GetImageFromArray(voxels.astype(dtype))
            stored.SetSpacing(SPACING_ZYX_MM[::-1])
            sitk.WriteImage(stored, str(folder / kind / f"{name}_0000.nii.gz"))
        people.append(f"{name},{'FM'[number % 2]},CT,images/{name}_0000.nii.gz,references/{name}_0000.nii.gz")
    (folder / "people.csv").write_text("\n".join(people), encoding="utf-8")
    parameters = {
        "name": "study",
        "seed": 1,
        "cohort": {
            "source": "table",
            "path": "people.csv",
            "organs": {"liver": {"labels": [1]}, "spleen": {"labels": [2]}},
            "attributes": {"sex": {"categories": ["F", "M"]}},
        },
        "models": [{"name": "ours", "kind": "nnunet", "folder": tiny.NAME}],
        "compute": {"device": "cpu"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    study = open_study(folder)
    cohort.build_cohort(study)
    return model, study


def open_study(folder: Path) -> Study:
    """Open the benchmark's study."""
    return load_study(folder / "study.yaml", {"outputs": str(folder / "outputs")})


def run_ours(folder: Path) -> None:
    """Segment every scan as a study does, with nnU-Net's defaults: all folds, mirroring."""
    run_inference(open_study(folder))


def measure(words: Sequence[str]) -> tuple[float, float, float]:
    """Run a program; return seconds, processor seconds and peak memory (GB) of its processes."""
    began, peak = time.monotonic(), 0.0
    process = psutil.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    spent: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.2):
            held = 0.0
            try:
                together = [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:  # it has just ended
                return
            for one in together:
                try:
                    held += one.memory_full_info().pss
                    times = one.cpu_times()
                    spent[one.pid] = times.user + times.system
                except psutil.Error:
                    continue
            peak = max(peak, held)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"{words[0]} ended with {code}")
    return time.monotonic() - began, sum(spent.values()), peak / 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--shape", type=int, nargs=3, default=[40, 96, 112], help="of a scan, z y x")
    parser.add_argument("--features", type=int, nargs=3, default=[6, 12, 24])
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.ours:
        run_ours(chosen.ours)
        return
    official = Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, study = make_inputs(folder, chosen.scans, chosen.shape, chosen.features)
        images, theirs = str(folder / "images"), folder / "theirs"
        words = [str(official), "-i", images, "-o", str(theirs), "-m", str(model), "-f", "0", "1", "-device", "cpu"]
        one, two = measure(words), measure([sys.executable, __file__, "--ours", temporary])
        equal = []
        for file in sorted(theirs.glob("*.nii.gz")):
            ours = study.prediction_path("ours", file.name.removesuffix(".nii.gz"))
            masks = (volumes.to_axial(volumes.read_volume(path)) for path in (file, ours))
            equal.append(np.array_equal(*map(sitk.GetArrayFromImage, masks)))
    print("| what | s | processor s | peak memory, GB | times faster |\n|---|---|---|---|---|")
    for name, (seconds, spent, peak) in (("nnUNetv2_predict_from_modelfolder", one), ("ours", two)):
        print(f"| {name} | {seconds:.0f} | {spent:.0f} | {peak:.2f} | {one[0] / seconds:.1f} |")
    size = " × ".join(map(str, chosen.shape))
    print(
        f"\n{chosen.scans} scans of {size}, two folds, step 0.5, mirroring on two axes; network of "
        f"{', '.join(map(str, chosen.features))} features; masks equal: {sum(equal)} of {len(equal)}. "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    sys.exit(main())
