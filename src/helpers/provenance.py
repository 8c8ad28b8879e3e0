"""What was run, with what, on what: run.json, and whether a stage is up to date."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from helpers import dicom, programs, storage
from helpers.errors import SegfairError
from helpers.kept import Contents
from helpers.own_code import OwnCode
from helpers.parameters import BIDS, CommandModel
from helpers.schema import STAGES, list_outputs, list_written
from helpers.study import REPOSITORY, SNAPSHOT, Study, choose_checkpoints_folder

_PACKAGES = (
    "dask", "edt", "jupyterlab", "numpy", "pandas", "papermill", "pingouin", "plotly", "pydantic", "scikit-image",
    "scipy", "segment-anything", "SimpleITK", "statsmodels", "surface-distance", "torch",
)  # fmt: skip
_BIDS_TABLES = ("sessions.tsv", "dseg.tsv")  # what is read of a BIDS data set below its top folder


class Fingerprints:
    """The stages' fingerprints, each computed once, and only when asked for.

    A fingerprint is a hash of everything a stage's results depend on: its part of the parameters,
    the source of the notebook and of the helpers that make its results, what the input files hold
    (of weights size and time), and the fingerprints of the stages it works on.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._known: dict[str, dict[str, str]] = {}

    @cached_property
    def contents(self) -> Contents:
        """What the study's files hold, as far as it is known."""
        return Contents(self._study.folder)

    @cached_property
    def _package(self) -> OwnCode:
        return OwnCode.read()

    def find(self, stage: str) -> str:
        """Return a stage's fingerprint as of the first time it was asked for."""
        return storage.hash_value(self.list_parts(stage))

    def list_parts(self, stage: str) -> dict[str, str]:
        """Return what a stage's fingerprint is made of, by the words that say what has changed."""
        if stage not in self._known:
            # What a model's card says changes the report alone.
            cards = [model.card.model_dump() for model in self._study.parameters.models]
            parameters = self._study.parameters.model_dump(mode="json", exclude={"models": {"__all__": {"card"}}})
            parts = {f"parameters ({key})": parameters[key] for key in STAGES[stage].sections}
            if stage == "02_inference":  # of where the work runs, this alone changes masks
                parts["parameters (compute.precision)"] = parameters["compute"]["precision"]
            if stage == "05_report":
                parts["parameters (models.card)"] = cards
            parts["the program"] = self._package.hash_code(STAGES[stage].code)
            parts["the notebook"] = _hash_notebook(stage)
            parts["the input files"] = _stamp_inputs(self._study, stage, self.contents)
            self._known[stage] = {key: storage.hash_value(part) for key, part in parts.items()}
        return self._known[stage] | {f"what {earlier} gives": self.find(earlier) for earlier in STAGES[stage].after}

    def forget(self, stage: str) -> None:
        """Forget a stage that has just run, and those after it: their inputs have changed."""
        self._known.pop(stage, None)
        self.__dict__.pop("contents", None)  # the stage has noted more
        for later in STAGES.values():
            if stage in later.after:
                self.forget(later.name)


def stage_is_current(study: Study, stage: str, fingerprints: Fingerprints | None = None) -> bool:
    """Tell whether nothing is to be explained by :func:`explain_stage`."""
    return not explain_stage(study, stage, fingerprints)


def explain_stage(study: Study, stage: str, fingerprints: Fingerprints | None = None) -> str:
    """Say why a stage is not up to date: it finished otherwise, or its files are not its own.

    Empty where it is. Several stages in a row share their `fingerprints`.
    """
    record = read_run(study.folder).get("stages", {}).get(stage, {})
    fingerprints = fingerprints or Fingerprints(study)
    if record.get("status") != "finished":
        return {"failed": "it stopped with an error", "running": "it was ended half-way"}.get(
            record.get("status"), "it has not run"
        )
    if record.get("passing"):
        return "a fault of the machine left scans undone"
    if changed := _list_changed_outputs(study, stage, record, fingerprints.contents):
        return f"{changed[0]} is missing or not as it was written"
    recorded = record.get("fingerprint")
    if not isinstance(recorded, dict):
        return "an earlier version of segfair ran it"
    parts = fingerprints.list_parts(stage)
    different = [key for key in {**parts, **recorded} if parts.get(key) != recorded.get(key)]
    return f"changed: {', '.join(different)}" if different else ""


def write_snapshot(study: Study) -> None:
    """Write the resolved parameters to ``study.yaml``: the output folder explains itself."""
    parameters = study.parameters.model_dump(mode="json")
    storage.write_text(yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True), study.folder / SNAPSHOT)


def start_stage(study: Study, stage: str) -> None:
    """Write into run.json that a stage is running: from now on its files may be of two runs.

    Whatever ends it before it has recorded itself, it is not up to date.
    """
    run = read_run(study.folder)
    stages = run.setdefault("stages", {})
    former = stages.get(stage, {})
    stages[stage] = {
        "status": "running",
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "former_seconds": former.get("seconds") if former.get("status") == "finished" else former.get("former_seconds"),
    }
    _write_run(study, run)


def record_stage(
    study: Study, stage: str, *, status: str, seconds: float, failures: dict[str, str] | None = None, **facts: Any
) -> None:
    """Write into run.json what became of a stage.

    `status` is "finished" or "failed", `seconds` its wall-clock time; `failures` say why, by what
    failed within it; `facts` are whatever else is worth keeping.
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
        **facts,
    }
    if status == "finished":
        fingerprints = Fingerprints(study)
        run["stages"][stage] |= {
            "fingerprint": _fingerprint_results(fingerprints, stage, run["stages"]),
            "outputs": _hash_outputs(study, stage, fingerprints.contents),
        }
        fingerprints.contents.flush()
    _write_run(study, run)


def note_outputs(study: Study, stage: str) -> None:
    """Take what a finished stage's files hold now, made again from the same tables, for its own."""
    run, contents = read_run(study.folder), Fingerprints(study).contents
    record = run.get("stages", {}).get(stage, {})
    if record.get("status") == "finished":
        record["outputs"] = _hash_outputs(study, stage, contents)
        contents.flush()
        _write_run(study, run)


def read_run(folder: Path) -> dict[str, Any]:
    """Read run.json of an output folder; an absent or damaged one counts as empty."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return run if isinstance(run, dict) else {}


def _write_run(study: Study, run: dict[str, Any]) -> None:
    run["stages"] = {name: run["stages"][name] for name in STAGES if name in run["stages"]}
    storage.write_json(run, study.folder / "run.json")


def _fingerprint_results(fingerprints: Fingerprints, stage: str, stages: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of a finished stage's fingerprint.

    Of the stages before it count what they were run with, not what they would be run with now: with
    ``--only`` a stage may have worked on results of other parameters.
    """
    parts = fingerprints.list_parts(stage)
    for earlier in STAGES[stage].after:
        record = stages.get(earlier, {})
        if record and (record.get("status") != "finished" or isinstance(record.get("fingerprint"), dict)):
            parts[f"what {earlier} gives"] = storage.hash_value(record.get("fingerprint"))
    return parts


def _hash_outputs(study: Study, stage: str, contents: Contents) -> dict[str, dict[str, Any]]:
    """Return the hashed bytes of what a stage has written, by name or pattern.

    One entry for each, however many files there are.
    """
    return {
        name: {"files": len(files), "bytes": _hash_all(files, contents)}
        for name, files in _list_output_files(study, stage).items()
    }


def _list_changed_outputs(study: Study, stage: str, record: Mapping[str, Any], contents: Contents) -> list[str]:
    """Return what of a stage's files is missing, or holds other bytes than the stage wrote."""
    now, recorded = _list_output_files(study, stage), record.get("outputs")
    models = [model.name for model in study.parameters.models]
    changed = [name for name in list_outputs(stage, models) if not (study.folder / name).exists()]
    if changed or recorded is None:
        return changed
    for name in dict.fromkeys((*recorded, *now)):
        files, was = now.get(name, []), recorded.get(name, {"bytes": None})
        if not files or was.get("bytes") != _hash_all(files, contents):
            changed.append(name)
    return changed


def _list_output_files(study: Study, stage: str) -> dict[str, list[Path]]:
    """Return the files that a stage has written, by name or pattern, as far as there are any."""
    found = {
        pattern: sorted(path for path in study.folder.glob(pattern) if not path.name.startswith("."))
        for pattern in list_written(stage, [model.name for model in study.parameters.models])
    }
    if stage == "02_inference":
        for model in study.parameters.models:
            scans = _list_predicted(study.inference_path(model.name))
            found[f"predictions/{model.name}/*.nii.gz"] = study.list_prediction_paths(model.name, scans)
    return {pattern: files for pattern, files in found.items() if files}


def _hash_all(files: Sequence[Path], contents: Contents) -> str:
    """Hash the bytes of files; one that cannot be read counts as another file."""
    return storage.hash_value([[path.name, contents.find(path)] for path in files])


def _list_predicted(table: Path) -> list[str]:
    """Return the scans that an inference table calls finished."""
    with suppress(OSError, ValueError):  # absent or damaged: as such a table it is told
        found = pd.read_parquet(table, columns=["scan", "status"])
        return list(found.loc[found["status"] == "ok", "scan"])
    return []


def _stamp_inputs(study: Study, stage: str, contents: Contents) -> str:
    """Hash what the files hold that a stage reads from outside, as far as they are known now.

    Of folders that are only looked through, and of weights, size and time count.
    """
    read: list[Path | str] = []  # those of every scan as text: a Path of each would take seconds
    stamped: list[Path] = []
    said: list[str] = []
    cohort = study.parameters.cohort
    if stage == "01_cohort":
        for pattern in cohort.scores.path if cohort.scores is not None else ():
            read += [path for path, _ in study.find_score_files(pattern)]
        if cohort.path is not None:
            source = study.resolve(cohort.path)
            read += [source / "meta.csv"] if source.is_dir() else [source]
            stamped += [source] if source.is_dir() else []
            if cohort.source == BIDS:
                read += sorted(file for file in source.rglob("*.tsv") if file.name.endswith(_BIDS_TABLES))
            if cohort.source == "dicom":
                stamped += dicom.list_files(source)
        if cohort.people is not None:
            read.append(study.resolve(cohort.people))
        table = _read_cohort(study)
        if table is not None:
            for column in table.columns.intersection(["reference", "reference_recorded", "image"]):
                read += [text for text in table[column].dropna() if text]
    if stage == "02_inference" and (table := _read_cohort(study)) is not None:
        for model in study.parameters.models:
            if model.path is not None:
                masks = study.template_masks(model.path)
                people = zip(table["scan"], table["subject"], strict=True)
                found = [masks.format(scan=scan, subject=subject) for scan, subject in people]
                read += found if dicom.names_scans(masks) else []
                stamped += [] if dicom.names_scans(masks) else dicom.list_files(Path(found[0]))
            for place in map(study.resolve, model.files):
                stamped += [place, *sorted(place.rglob("*"))]
            if isinstance(model.trained_on_scans, str):
                read.append(study.resolve(model.trained_on_scans))
            if isinstance(model, CommandModel):
                said.append(_ask_version(study, model))
            elif model.path is None and not model.files:  # it may use published weights
                stamped.append(choose_checkpoints_folder())
    template = study.parameters.spatial.template
    if stage == "04_spatial" and template is not None:
        read += sorted(study.resolve(template).glob("*/template.npz"))
    held = [[str(path), contents.find(path)] for path in read]
    return storage.hash_value([held, [_stamp(path) for path in stamped], *said])


def _read_cohort(study: Study) -> pd.DataFrame | None:
    """Return the cohort; None where it is not there or damaged, so that 01_cohort runs first."""
    try:
        return pd.read_parquet(study.path("cohort"))
    except (OSError, ValueError):
        return None


def _ask_version(study: Study, model: CommandModel) -> str:
    """Return what a program says of its version; its failure too is told by the stage."""
    try:
        return programs.ask_model_version(model, study)
    except SegfairError as error:
        return str(error)


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
