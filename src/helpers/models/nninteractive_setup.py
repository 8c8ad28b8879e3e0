"""What kind `nninteractive` makes of its keys: the folder, what it can be asked, its licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from helpers.errors import SegfairError
from helpers.models.protocol import Setup
from helpers.models.trained_folder import read_folder, read_json
from helpers.parameters import Model, NninteractiveModel
from helpers.study import Study

PUBLISHED_LICENCE = "CC BY-NC-SA 4.0"


@dataclass(frozen=True)
class NninteractiveOptions:
    """Where the network lies."""

    folder: Path


def check(model: Model, study: Study) -> list[str]:
    """Name what keeps a folder from being used."""
    try:
        _read_licence(_find_folder(model, study))
    except SegfairError as error:
        return [f"models.{model.name}.folder: {error}"]
    return []


def set_up(model: Model, study: Study) -> Setup:
    """Hash the folder, and say what its weights may be used for."""
    folder = _find_folder(model, study)
    note = f"weights under {_read_licence(folder)}"
    return Setup(NninteractiveOptions(folder), depends_on={"files": read_folder(folder).hash_files()}, notes=(note,))


def _find_folder(model: Model, study: Study) -> Path:
    if not isinstance(model, NninteractiveModel):
        raise TypeError(f"a section of nninteractive is NninteractiveModel; got {type(model).__name__}")
    return study.resolve(model.folder)


def _read_licence(folder: Path) -> str:
    """Return the licence a whole folder states, else that of the published weights."""
    read_folder(folder)
    read_json(folder / "dataset.json")
    # What the network can be asked; the second is of earlier versions, and may be a bare name.
    if not (folder / "inference_session_class.json").is_file():
        read_json(folder / "inference_info.json")
    try:
        lines = (folder / "LICENSE").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    stated = next((line.strip() for line in lines if line.strip()), None)
    if stated is not None:
        return f"{stated}, as the folder's LICENSE says"
    return f"{PUBLISHED_LICENCE} if they are the published ones (no commercial use); the folder has no LICENSE"
