"""What kind `nninteractive` makes of its keys: the folder, what it can be asked, its licence."""

from __future__ import annotations

from pathlib import Path

from helpers.errors import SegfairError
from helpers.models.protocol import Setup
from helpers.models.trained_folder import read_folder, read_json
from helpers.parameters import NninteractiveModel
from helpers.study import Study

PUBLISHED_LICENCE = "CC BY-NC-SA 4.0"


def check(model: NninteractiveModel, study: Study) -> list[str]:
    """Name what keeps a folder from being used."""
    try:
        _read_licence(study.resolve(model.folder))
    except SegfairError as error:
        return [f"models.{model.name}.folder: {error}"]
    return []


def set_up(model: NninteractiveModel, study: Study) -> Setup:
    """Hash the folder, and say what its weights may be used for."""
    folder = study.resolve(model.folder)
    note = f"weights under {_read_licence(folder)}"
    return Setup(folder, depends_on={"files": read_folder(folder).hash_files()}, notes=(note,))


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
