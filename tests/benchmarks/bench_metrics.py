"""Time the comparison of two masks next to surface-distance, MONAI and MedPy, on the same masks in
the same run.

``python tests/benchmarks/bench_metrics.py`` prints Markdown tables: five organs of a torso phantom
of 512 × 512 × 300 voxels, the real kidneys of KiTS23 (where the data is at hand), and the cases
that are hardest for us: surfaces far from each other everywhere. All get the masks cropped to the
organ with a margin of two voxels, which favours the others (MedPy does not crop at all); one row
gives the whole volume.

Each side runs in a process of its own, on one core, and computes what it can of Dice, NSD, HD95,
ASSD, volumes and surface. Times are of the processor, not of the clock, the shortest of several
runs; memory is the peak above what the process held with the masks loaded. Before a time counts,
the answers are compared: with surface-distance all numbers to 1e-6, with the others Dice (and
MONAI's NSD, which has the same definition). MONAI and MedPy are optional (``make bench-metrics``
installs them: the extra ``benchmark``); without them their columns are left out.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from helpers.demo.anatomy import ORGANS, Person, draw_phantom
from helpers.demo.fields import SmoothField
from helpers.demo.planting import measure_signed_distance
from helpers.metrics import compare_masks
from helpers.parameters import Phantoms

SIZE_ZYX = (300, 512, 512)
PHANTOM_ORGANS = ("liver", "kidney_right", "spleen", "lung_right", "aorta")
ERROR_MM, SMOOTHNESS_MM = 1.5, 15.0
KITS_CASES, ANNOTATORS = 10, ("annotator1", "annotator2", "annotator3")
TOLERANCE_MM = 2.0
LONGEST_SECONDS, MOST_RUNS = 4.0, 5
SIDES = {"segfair": "helpers", "surface-distance": "surface_distance", "MONAI": "monai", "MedPy": "medpy"}
PACKAGES = {"surface-distance": "surface-distance", "MONAI": "monai", "MedPy": "MedPy"}

Numbers = dict[str, float]


@dataclass(frozen=True)
class Case:
    """Two masks on disk, and their spacing."""

    part: str
    name: str
    folder: Path
    spacing_zyx_mm: tuple[float, float, float]

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        return np.load(self.folder / f"{self.name} reference.npy"), np.load(self.folder / f"{self.name} prediction.npy")


def save_case(part: str, name: str, folder: Path, masks: tuple[np.ndarray, np.ndarray], spacing, *, crop: bool = True):
    if crop:
        box = ndimage.find_objects((masks[0] | masks[1]).view(np.uint8))[0]
        grown = tuple(slice(max(0, side.start - 2), side.stop + 2) for side in box)
        masks = (masks[0][grown], masks[1][grown])
    for kind, mask in zip(("reference", "prediction"), masks, strict=True):
        np.save(folder / f"{name} {kind}.npy", np.ascontiguousarray(mask))
    return Case(part, name, folder, tuple(float(step) for step in spacing))


def draw_phantom_cases(folder: Path) -> list[Case]:
    """Draw a torso coarsely, and put its organs' signed distances, moved by a smooth error, on the
    fine grid."""
    ids = {organ: place for place, organ in enumerate(ORGANS, start=1)}
    person = Person("woman", "woman", "female", age=50, bmi=26, modality="CT", seed=1)
    _, mask = draw_phantom(person, Phantoms(spacing_mm=(2.5, 2.5, 3.0)), ids)
    labels, coarse = sitk.GetArrayFromImage(mask), np.array(mask.GetSpacing()[::-1])
    extent = np.array(labels.shape) * coarse
    fine = extent / SIZE_ZYX
    fine[1:] = fine[1:].max()  # square pixels; what lies beyond the torso is air
    cases = []
    for organ in PHANTOM_ORGANS:
        distance = measure_signed_distance(labels == ids[organ], tuple(coarse))
        places = [(np.arange(count) + 0.5) * step for count, step in zip(SIZE_ZYX, fine, strict=True)]
        distance = ndimage.affine_transform(
            distance, fine / coarse, offset=(0.5 * fine / coarse) - 0.5, output_shape=SIZE_ZYX, order=1, mode="nearest"
        )
        shift = SmoothField(np.random.default_rng(len(cases)), (0, 0, 0), np.multiply(SIZE_ZYX, fine), SMOOTHNESS_MM)
        masks = (distance < 0, distance < ERROR_MM * shift.evaluate(*places))
        cases.append(save_case("phantom", organ.replace("_", " "), folder, masks, fine))
        if organ == "kidney_right":
            cases.append(save_case("whole volume", "right kidney, not cropped", folder, masks, fine, crop=False))
    return cases


def load_kidney_cases(folder: Path) -> list[Case]:
    data = Path(os.environ.get("SEGFAIR_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    cases = []
    for path in sorted((data / "kits23_annotators" / "reference").glob("*.nii.gz"))[:KITS_CASES]:
        image = sitk.ReadImage(str(path))
        reference = sitk.GetArrayFromImage(image) > 0
        for annotator in ANNOTATORS:
            prediction = sitk.GetArrayFromImage(sitk.ReadImage(str(path.parents[1] / annotator / path.name))) > 0
            name = f"{path.name.removesuffix('.nii.gz')} {annotator}"
            cases.append(save_case("kidneys", name, folder, (reference, prediction), image.GetSpacing()[::-1]))
    return cases


def draw_far_cases(folder: Path) -> list[Case]:
    """Draw surfaces that are far from each other everywhere: no lattice step is short enough to
    find the nearest point."""
    z, y, x = (np.arange(-70, 71).reshape([-1 if axis == other else 1 for other in range(3)]) for axis in range(3))
    squared = z**2 + y**2 + x**2
    far = np.zeros((141, 141, 400), bool)
    shifted = far.copy()
    far[:, :, :141], shifted[:, :, 200:341] = squared < 60**2, squared < 60**2
    return [
        save_case("far", "concentric balls, 15 mm apart", folder, (squared < 65**2, squared < 50**2), (1, 1, 1)),
        save_case("far", "concentric balls, 55 mm apart", folder, (squared < 65**2, squared < 10**2), (1, 1, 1)),
        save_case("far", "the same ball, 200 mm away", folder, (far, shifted), (1, 1, 1)),
    ]


def run_segfair(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]) -> Numbers:
    found = compare_masks(reference, prediction, spacing, tolerance_mm=TOLERANCE_MM)
    return {
        name: getattr(found, name)
        for name in ("dice", "nsd", "hd95_mm", "assd_mm", "volume_ref_ml", "volume_pred_ml", "surface_ref_cm2")
    }


def measure_volumes(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]) -> Numbers:
    voxel_ml = float(np.prod(spacing)) / 1000
    return {
        "volume_ref_ml": np.count_nonzero(reference) * voxel_ml,
        "volume_pred_ml": np.count_nonzero(prediction) * voxel_ml,
    }


def run_surface_distance(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]) -> Numbers:
    import surface_distance

    found = surface_distance.compute_surface_distances(reference, prediction, spacing)
    areas = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    averages = surface_distance.compute_average_surface_distance(found)
    return {
        "dice": surface_distance.compute_dice_coefficient(reference, prediction),
        "nsd": surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM),
        "hd95_mm": surface_distance.compute_robust_hausdorff(found, 95),
        "assd_mm": (areas[0] * averages[0] + areas[1] * averages[1]) / sum(areas),
        "surface_ref_cm2": areas[0] / 100,
    } | measure_volumes(reference, prediction, spacing)


def run_monai(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]) -> Numbers:
    import torch
    from monai import metrics

    y, y_pred = (torch.from_numpy(mask)[None, None] for mask in (reference, prediction))
    common = {"y_pred": y_pred, "y": y, "include_background": True}
    return {
        "dice": float(metrics.compute_dice(**common)),
        "nsd": float(
            metrics.compute_surface_dice(**common, class_thresholds=[TOLERANCE_MM], spacing=spacing, use_subvoxels=True)
        ),
        "hd95_mm": float(metrics.compute_hausdorff_distance(**common, percentile=95, spacing=spacing)),
        "assd_mm": float(metrics.compute_average_surface_distance(**common, symmetric=True, spacing=spacing)),
    } | measure_volumes(reference, prediction, spacing)


def run_medpy(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]) -> Numbers:
    from medpy.metric import binary

    return {
        "dice": binary.dc(prediction, reference),
        "hd95_mm": binary.hd95(prediction, reference, spacing),
        "assd_mm": binary.assd(prediction, reference, spacing),
    } | measure_volumes(reference, prediction, spacing)


RUNS = {"segfair": run_segfair, "surface-distance": run_surface_distance, "MONAI": run_monai, "MedPy": run_medpy}


def read_memory_mb(what: str) -> float:
    [line] = [
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(what)
    ]
    return int(line.split()[1]) / 1024


def reset_peak_mb() -> float:
    """Begin the peak of memory (VmHWM) anew and return what is in use: a process would else begin
    with its parent's, or with its imports'."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return read_memory_mb("VmRSS")


def measure_side(side: str, cases: list[Case]) -> tuple[list[tuple[float, Numbers]], float]:
    """Return every case's processor seconds and numbers, and the peak of memory in MB above that
    with the masks loaded."""
    warnings.simplefilter("ignore")
    if side == "MONAI":
        import torch

        torch.set_num_threads(1)
    run = RUNS[side]
    small = np.zeros((9, 9, 9), bool)
    small[3:6, 3:6, 3:6] = True
    for spacing in {case.spacing_zyx_mm for case in cases}:
        run(small, np.roll(small, 1, axis=0), spacing)  # imports and tables of areas
    loaded = [case.load() for case in cases]
    before = reset_peak_mb()
    found = []
    for case, masks in zip(cases, loaded, strict=True):
        seconds: list[float] = []
        while not seconds or (sum(seconds) < LONGEST_SECONDS and len(seconds) < MOST_RUNS):
            start = time.process_time()
            numbers = run(*masks, case.spacing_zyx_mm)
            seconds.append(time.process_time() - start)
        found.append((min(seconds), numbers))
    return found, read_memory_mb("VmHWM") - before


def check_same(side: str, case: Case, ours: Numbers, theirs: Numbers) -> None:
    limits = {
        "surface-distance": dict.fromkeys(ours, 1e-6),
        "MONAI": {"dice": 1e-6, "nsd": 1e-4},
        "MedPy": {"dice": 1e-6},
    }
    for name, limit in limits[side].items():
        if not abs(ours[name] - theirs[name]) <= limit:
            raise AssertionError(f"{case.name}: {name} is {ours[name]!r} here and {theirs[name]!r} in {side}")


def main() -> None:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # for the processes: each has one core
    sides = [side for side, package in SIDES.items() if find_spec(package)]
    with tempfile.TemporaryDirectory() as folder:
        cases = draw_phantom_cases(Path(folder)) + load_kidney_cases(Path(folder)) + draw_far_cases(Path(folder))
        parts = list(dict.fromkeys(case.part for case in cases))
        seconds: dict[tuple[str, str], float] = {}
        memory: dict[tuple[str, str], float] = {}
        for part in parts:
            chosen = [case for case in cases if case.part == part]
            answers = {}
            for side in sides:
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    found, memory[part, side] = pool.submit(measure_side, side, chosen).result()
                for case, (spent, numbers) in zip(chosen, found, strict=True):
                    seconds[case.name, side] = spent
                    answers[case.name, side] = numbers
            for case in chosen:
                for side in sides[1:]:
                    check_same(side, case, answers[case.name, "segfair"], answers[case.name, side])
    rows = [(case.name, [case.name]) for case in cases if case.part != "kidneys"]
    kidneys = [case.name for case in cases if case.part == "kidneys"]
    phantom = [case.name for case in cases if case.part == "phantom"]
    rows.insert(len(phantom) + 1, (f"real kidneys, {len(kidneys)} pairs", kidneys)) if kidneys else None
    rows.insert(0, (f"{len(phantom)} organs of the phantom", phantom))
    print(
        f"| masks | {' | '.join(f'{side}, s' for side in sides)} |"
        f" {' | '.join(f'faster than {side}' for side in sides[1:])} |"
    )
    print("|---" * (2 * len(sides)) + "|")
    for label, names in rows:
        spent = [sum(seconds[name, side] for name in names) for side in sides]
        times = [f"{value:.2g}" if value < 10 else f"{value:.0f}" for value in spent]
        print(f"| {label} | {' | '.join(times)} | {' | '.join(f'{value / spent[0]:.1f}×' for value in spent[1:])} |")
    print(f"\n| peak memory, MB | {' | '.join(sides)} |")
    print("|---" * (len(sides) + 1) + "|")
    for part in parts:
        print(f"| {part} | {' | '.join(f'{memory[part, side]:.0f}' for side in sides)} |")
    packages = ["numpy", "scipy", *(PACKAGES[side] for side in sides[1:])]
    print(
        f"\n{platform.machine()}, Python {platform.python_version()},"
        f" {', '.join(f'{name} {version(name)}' for name in packages)}."
    )


if __name__ == "__main__":
    main()
