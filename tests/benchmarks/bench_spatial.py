"""Time permutation inference on surfaces next to nilearn, on the same data in the same run.

``python tests/benchmarks/bench_spatial.py [permutations]`` prints a Markdown table. Each
measurement is made in a fresh process. nilearn is timed at fewer permutations, its workers started
before, and scaled linearly. Its enhancement (TFCE) needs voxels, so for it the 4,096 vertices are
those of a 16 x 16 x 16 grid, for both. White noise has the most clusters and is the slowest for
ours; errors on an organ are smooth.
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

import numpy as np
from scipy.ndimage import gaussian_filter

from helpers.statistics.freedman_lane import infer_effect
from helpers.statistics.tfce import MeshGraph, link_vertices

SUBJECTS, VERTICES, SIDE, WORKERS = 1056, 4000, 16, 2


def draw_cohort(
    vertices: int, *, missing: float = 0.0, smooth: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    covariates = generator.standard_normal((SUBJECTS, 2))
    group = (generator.random(SUBJECTS) < 0.5).astype(float)
    errors = generator.standard_normal((SUBJECTS, vertices), dtype=np.float32)
    if smooth:
        grids = gaussian_filter(errors.reshape(-1, SIDE, SIDE, SIDE), (0, smooth, smooth, smooth))
        errors = grids.reshape(SUBJECTS, -1) / grids.std()
    errors[:, : vertices // 20] += 0.3 * group[:, None].astype(np.float32)
    # Scans end somewhere: everybody lacks the vertices above a height of their own.
    heights = np.linspace(0, 1, vertices)
    errors[heights > 1 - missing * generator.random((SUBJECTS, 1))] = np.nan
    return errors, group, covariates


def link_grid(side: int) -> MeshGraph:
    numbers = np.arange(side**3).reshape(side, side, side)
    pairs = [
        np.stack([numbers.take(range(side - 1), axis).ravel(), numbers.take(range(1, side), axis).ravel()], axis=1)
        for axis in range(3)
    ]
    edges = np.concatenate(pairs)
    return link_vertices(edges[:, [0, 1, 1]], np.ones(side**3))


def time_ours(
    permutations: int, missing: float, smooth: float, *, enhance: bool, vary: bool = False
) -> tuple[float, float]:
    errors, group, covariates = draw_cohort(SIDE**3 if enhance else VERTICES, missing=missing, smooth=smooth)
    mesh = link_grid(SIDE) if enhance else None
    start = time.perf_counter()
    infer_effect(
        errors, group, covariates=covariates, variance_groups=group if vary else None, mesh=mesh,
        permutations=permutations, seed=0,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def time_nilearn(permutations: int, timed: int, smooth: float, *, enhance: bool) -> float:
    warnings.simplefilter("ignore")
    from joblib.externals.loky import get_reusable_executor
    from nibabel import Nifti1Image
    from nilearn.maskers import NiftiMasker
    from nilearn.mass_univariate import permuted_ols

    errors, group, covariates = draw_cohort(SIDE**3 if enhance else VERTICES, smooth=smooth)
    masker = NiftiMasker(Nifti1Image(np.ones((SIDE,) * 3, np.int8), np.eye(4))).fit() if enhance else None
    for count in (WORKERS, timed):
        start = time.perf_counter()
        permuted_ols(
            group[:, None], errors, covariates, n_perm=count, n_jobs=WORKERS, random_state=0,
            tfce=enhance, masker=masker, output_type="dict",
        )  # fmt: skip
        seconds = time.perf_counter() - start
    # Idle workers would keep this process alive for minutes.
    get_reusable_executor().shutdown(wait=True)
    return seconds * permutations / timed


def run_alone(function, *arguments, **options):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **options).result()


def main(permutations: int) -> None:
    print(f"{SUBJECTS} subjects, 2 covariates, {permutations} permutations; nilearn {version('nilearn')}, ", end="")
    print(f"n_jobs={WORKERS}, scaled from fewer permutations; numpy {version('numpy')}, {platform.machine()}.\n")
    print("| what | vertices | nilearn (s) | timed at | ours (s) | times faster | our peak memory (MiB) |")
    print("|---|---|---|---|---|---|---|")
    rows = [
        ("max-T", False, 0.0, 500),
        ("max-T and TFCE, smooth errors", True, 1.5, 200),
        ("max-T and TFCE, white noise", True, 0.0, 200),
    ]
    for name, enhance, smooth, timed in rows:
        ours, memory = run_alone(time_ours, permutations, 0.0, smooth, enhance=enhance)
        theirs = run_alone(time_nilearn, permutations, timed, smooth, enhance=enhance)
        print(f"| {name} | {SIDE**3 if enhance else VERTICES} | {theirs:.1f} | {timed} | ", end="")
        print(f"{ours:.1f} | {theirs / ours:.1f} | {memory:.0f} |", flush=True)
    for name, missing, vary in (
        ("max-T, a variance per group", 0.0, True),
        ("max-T, up to 30 % of a scan missing", 0.3, False),
        ("the same, a variance per group", 0.3, True),
    ):
        ours, memory = run_alone(time_ours, permutations, missing, 0.0, enhance=False, vary=vary)
        print(f"| {name} | {VERTICES} | cannot | | {ours:.1f} | | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
