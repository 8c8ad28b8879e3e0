"""nnU-Net over ten scans, files to files: ours against the official command, on the processor.

    python tests/benchmarks/bench_nnunet.py [--scans 10] [--shape 40 96 112] [--features 6 12 24]

Each side is a process of its own, from its start to its last file; the masks are compared.
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

from helpers import volumes
from helpers.models import ScanCase, Spec, load_segmenter
from helpers.models.nnunet_folder import NnunetOptions
from helpers.parameters import Organ

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import tiny_nnunet as tiny

SPACING_ZYX_MM = (5.5, 3.0, 3.0)


def make_inputs(folder: Path, scans: int, shape: Sequence[int], features: Sequence[int]) -> Path:
    """Write a model of two folds and the scans; return the model's folder."""
    plans = tiny.make_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = list(features)
    states = {}
    for fold in range(2):
        torch.manual_seed(fold)
        network = tiny.build_network(plans)
        network.apply(network.initialize)
        states[f"fold_{fold}"] = network.state_dict()
    (folder / "images").mkdir()
    for number in range(scans):
        image, _ = tiny.draw_body(np.random.default_rng(number), shape, SPACING_ZYX_MM)
        stored = sitk.GetImageFromArray(image.astype(np.int16))
        stored.SetSpacing(SPACING_ZYX_MM[::-1])
        sitk.WriteImage(stored, str(folder / "images" / f"s{number:02d}_0000.nii.gz"))
    return tiny.write_model(folder / tiny.NAME, states, plans)


def run_ours(images: Path, masks: Path, model: Path) -> None:
    """Segment every scan of a folder with nnU-Net's defaults: all folds, step 0.5, mirroring."""
    organs = {"liver": Organ(labels=[1]), "spleen": Organ(labels=[2])}
    options = NnunetOptions(model, ("fold_0", "fold_1"), 0.5, True)
    segmenter = load_segmenter(Spec("ours", "nnunet", organs, device="cpu", options=options))
    for file in sorted(images.glob("*.nii.gz")):
        stored = volumes.read_volume(file)
        axial, grid = volumes.to_axial(stored), volumes.get_grid(stored)
        case = ScanCase(
            file.name,
            file.name,
            "CT",
            volumes.get_grid(axial),
            {"liver": 1, "spleen": 2},
            image=sitk.GetArrayFromImage(axial),
            stored=grid,
        )
        found = volumes.make_image(segmenter.segment(case).labels, case.grid)
        volumes.write_volume(volumes.from_axial(found, grid), masks / file.name.replace("_0000", ""))


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
    parser.add_argument("--ours", nargs=3, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.ours:
        run_ours(*chosen.ours)
        return
    official = Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = make_inputs(folder, chosen.scans, chosen.shape, chosen.features)
        images, theirs, ours = (str(folder / name) for name in ("images", "theirs", "ours"))
        Path(ours).mkdir()
        one = measure([str(official), "-i", images, "-o", theirs, "-m", str(model), "-f", "0", "1", "-device", "cpu"])
        two = measure([sys.executable, __file__, "--ours", images, ours, str(model)])
        equal = [
            np.array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(Path(side) / name))) for side in (theirs, ours)))
            for name in sorted(path.name for path in Path(ours).glob("*.nii.gz"))
        ]
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
