"""What was run, with what, on what: run.json, and whether a stage is up to date."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from helpers import storage
from helpers.study import REPOSITORY, STAGES, Study, choose_checkpoints_folder

# The parts of the parameter file that a stage's results depend on, and the stages it reads from.
_SECTIONS = {
    "01_cohort": ("name", "seed", "cohort"),
    "02_inference": ("models", "windows"),
    "03_performance": ("metrics", "fairness"),
    "04_spatial": ("spatial", "fairness", "metrics"),
    "05_report": ("title",),
}
_UPSTREAM = {
    "01_cohort": (),
    "02_inference": ("01_cohort",),
    "03_performance": ("02_inference",),
    "04_spatial": ("02_inference",),
    "05_report": ("03_performance", "04_spatial"),
}
_OUTPUTS = {
    "01_cohort": ("cohort.parquet", "exclusions.csv"),
    "02_inference": (),  # one table per model, see _outputs_exist
    "03_performance": ("metrics.parquet", "fairness/groups.csv", "fairness/disparity.csv"),
    "04_spatial": ("spatial/maps.parquet", "spatial/summary.csv", "spatial/slopes.parquet", "spatial/volumes.csv"),
    "05_report": ("report.html",),
}
_PACKAGES = (
    "dask", "edt", "jupyterlab", "numpy", "pandas", "papermill", "pingouin", "plotly", "pydantic", "scikit-image", "scipy",
    "segment-anything", "SimpleITK", "statsmodels", "surface-distance", "tableone", "torch",
)  # fmt: skip


class Fingerprints:
    """The stages' fingerprints, each computed once, and only when asked for.

    A fingerprint is a hash of everything a stage's results depend on: its part of the parameters, the helpers' and the
    notebook's source, the stamps (size and time) of the input files, and the fingerprints of the stages it reads from.

    Parameters
    ----------
    study : Study
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._known: dict[str, str] = {}

    @cached_property
    def _package(self) -> str:
        return _hash_package()

    def find(self, stage: str) -> str:
        """Return a stage's fingerprint as of the first time it was asked for."""
        if stage not in self._known:
            parameters = self._study.parameters.model_dump(mode="json")
            self._known[stage] = storage.hash_value(
                {
                    "parameters": {key: parameters[key] for key in _SECTIONS[stage]},
                    "code": [self._package, _hash_notebook(stage)],
                    "inputs": _stamp_inputs(self._study, stage),
                    # Of where the work runs, this alone changes masks.
                    "precision": parameters["compute"]["precision"] if stage == "02_inference" else None,
                    "upstream": [self.find(upstream) for upstream in _UPSTREAM[stage]],
                }
            )
        return self._known[stage]

    def forget(self, stage: str) -> None:
        """Forget a stage that has just run, and those that read from it: they know more of their inputs now."""
        self._known.pop(stage, None)
        for other, upstream in _UPSTREAM.items():
            if stage in upstream:
                self.forget(other)


def stage_is_current(study: Study, stage: str, fingerprints: Fingerprints | None = None) -> bool:
    """Tell whether a stage finished with exactly what it would run with now, and its files are there.

    Several stages in a row share their `fingerprints`.
    """
    record = read_run(study.folder).get("stages", {}).get(stage, {})
    return (
        record.get("status") == "finished"
        and _outputs_exist(study, stage)
        and record.get("fingerprint") == (fingerprints or Fingerprints(study)).find(stage)
    )


def write_snapshot(study: Study) -> None:
    """Write the resolved parameters to ``study.yaml``, so that the output folder explains itself."""
    parameters = study.parameters.model_dump(mode="json")
    storage.write_text(yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True), study.folder / "study.yaml")


def record_stage(
    study: Study, stage: str, *, status: str, seconds: float, failures: dict[str, str] | None = None, **facts: Any
) -> None:
    """Write into run.json what became of a stage.

    Parameters
    ----------
    status : {"finished", "failed"}
    seconds : float
        Wall-clock time of the stage.
    failures : dict of str to str, optional
        What failed within it, by scan, with the reason.
    facts
        Whatever else is worth keeping (checkpoint hashes, for one).
    """
    run = read_run(study.folder)
    parameters = study.parameters.model_dump(mode="json")
    run |= {
        "study": study.name,
        "git_commit": _read_commit(),
        "parameters_hash": storage.hash_value(parameters),
        "parameters": parameters,
        "packages": {name: _read_version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "hardware": {
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": _read_memory_gib(),
        },
    }
    run.setdefault("stages", {})[stage] = {
        "status": status,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "failures": failures or {},
        "fingerprint": Fingerprints(study).find(stage) if status == "finished" else None,
        **facts,
    }
    run["stages"] = {name: run["stages"][name] for name in STAGES if name in run["stages"]}
    storage.write_json(run, study.folder / "run.json")


def read_run(folder: Path) -> dict[str, Any]:
    """Read run.json of an output folder; an absent or damaged one counts as empty (stages then run again)."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return run if isinstance(run, dict) else {}


def _outputs_exist(study: Study, stage: str) -> bool:
    files = [study.folder / name for name in _OUTPUTS[stage]]
    if stage == "02_inference":
        files = [study.inference_path(model.name) for model in study.parameters.models]
        files += [study.prediction_path(model, scan) for model, scan in _list_predicted(files)]
    return all(file.exists() for file in files)


def _list_predicted(tables: list[Path]) -> list[tuple[str, str]]:
    """Return (model, scan) of every prediction that the inference tables call finished."""
    found = []
    for path in tables:
        if path.exists():
            table = pd.read_parquet(path, columns=["scan", "status"])
            found += [(path.parent.name, scan) for scan in table.loc[table["status"] == "ok", "scan"]]
    return found


def _stamp_inputs(study: Study, stage: str) -> str:
    """Hash size and time of the files a stage reads from outside, as far as they are known now."""
    paths: list[Path] = []
    cohort = study.parameters.cohort
    if stage == "01_cohort":
        if cohort.path is not None:
            source = study.resolve(cohort.path)
            paths += [source, source / "meta.csv"] if source.is_dir() else [source]
        if study.path("cohort").exists():
            table = pd.read_parquet(study.path("cohort"), columns=["reference", "image"])
            for column in ("reference", "image"):
                paths += [Path(text) for text in table[column].dropna()]
    if stage == "02_inference" and study.path("cohort").exists():
        table = pd.read_parquet(study.path("cohort"), columns=["scan", "subject"])
        for model in study.parameters.models:
            if model.path is not None:
                paths += [
                    study.table_folder / model.path.format(scan=row.scan, subject=row.subject)
                    for row in table.itertuples()
                ]
            if model.checkpoint is not None:
                paths.append(study.resolve(model.checkpoint))
            elif model.path is None:  # it may use published weights
                paths.append(choose_checkpoints_folder())
    template = study.parameters.spatial.template
    if stage == "04_spatial" and template is not None:
        paths += sorted(study.resolve(template).glob("*/template.npz"))
    return storage.hash_value([_stamp(path) for path in paths])


def _stamp(path: Path) -> list[Any]:
    try:
        if path.is_dir():
            return [
                str(path),
                sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in path.iterdir()),
            ]
        status = path.stat()
    except OSError:
        return [str(path), None]
    return [str(path), status.st_size, status.st_mtime_ns]


def _hash_package() -> str:
    """Hash the helpers' source: an edit makes results out of date."""
    package = Path(__file__).parent
    files = [file for kind in ("*.py", "*.safetensors", "*.j2", "*.css") for file in sorted(package.rglob(kind))]
    return storage.hash_value([storage.hash_file(file) for file in files])


def _hash_notebook(stage: str) -> str | None:
    """Hash what a stage's notebook says."""
    notebook = REPOSITORY / "notebooks" / f"{stage}.ipynb"
    if not notebook.exists():
        return None
    return storage.hash_value([cell["source"] for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]])


def _read_commit() -> str | None:
    """Return the repository's commit, with ``+changes`` when the tree differs; None outside git."""

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, check=True, timeout=10, encoding="utf-8"
        ).stdout.strip()

    try:
        return ask("rev-parse", "HEAD") + ("+changes" if ask("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _read_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read_memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
