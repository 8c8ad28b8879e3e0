"""What the two calibrations share: jobs on processes, the command line, and the few numbers that
reports quote."""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from scipy import special

from helpers.report.calibration import PATH
from helpers.storage import write_json

# A limit is broken where 99.5 % of the estimate's own distribution lies beyond it.
BEYOND = float(special.ndtri(0.995))

Job = tuple[Callable[..., Any], tuple[Any, ...]]


def run_jobs(jobs: Sequence[Job], workers: int) -> list[Any]:
    """Run calls on `workers` processes of one core each, or in this one (0); results keep the order
    of the jobs."""
    if not workers:
        return [call(*given) for call, given in jobs]
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(call, *given) for call, given in jobs]]


def run_command(
    description: str,
    report: Path,
    calibrate: Callable[[int, float, int, list[str] | None], Any],
    write: Callable[[Any, int, float, Path, float], list[str]],
    part: str,
    summarise: Callable[[Any], dict[str, Any]],
) -> None:
    """Calibrate as the command line asks, write the report, and exit with 1 where a limit is
    broken.

    The numbers that reports of studies quote are kept where the whole calibration was made, at the
    usual place.

    Parameters
    ----------
    description : str
    report : Path
        Where the tables go by default.
    calibrate : callable
        Of seed, scale, workers and runs; returns what was found.
    write : callable
        Of what was found, seed, seconds, path and scale; returns the broken limits.
    part : str
        Under which name the numbers are kept.
    summarise : callable
        From what was found to the numbers.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=20240618)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of cohorts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=Path, default=report)
    parser.add_argument("--runs", nargs="*", help="only these")
    chosen = parser.parse_args()
    start = time.perf_counter()
    found = calibrate(chosen.seed, chosen.scale, chosen.workers, chosen.runs)
    seconds = time.perf_counter() - start
    broken = write(found, chosen.seed, seconds, chosen.report, chosen.scale)
    if chosen.report == report and chosen.runs is None:
        keep_numbers(part, summarise(found), PATH)
    print(f"{chosen.report}: {seconds / 60:.1f} minutes")
    sys.exit("\n".join(broken) if broken else 0)


def keep_numbers(part: str, numbers: dict[str, Any], path: Path) -> None:
    """Put one calibration's numbers beside the other's in the file that the report reads."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    made = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    write_json(kept | {part: {"made": made} | numbers}, path)
