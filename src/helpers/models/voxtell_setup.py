"""What kind `voxtell` makes of its keys: the folder, and which words each organ is asked by."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.errors import SegfairError
from helpers.models.protocol import Setup
from helpers.models.registry import hash_checkpoint
from helpers.models.trained_folder import read_folder
from helpers.parameters import TextModel
from helpers.study import Study

# Numbers in a text's vector: those of the text model that VoxTell was trained with.
WIDTH = 2560


@dataclass(frozen=True)
class VoxtellOptions:
    """Where the network and the words' vectors lie, and what is asked for."""

    folder: Path
    embeddings: Path
    texts: tuple[tuple[str, str], ...]  # an organ and its text, in lower case, in the study's order


def check(model: TextModel, study: Study) -> list[str]:
    """Name what keeps the folder, the file of vectors or the texts from being used."""
    where = f"models.{model.name}"
    problems = []
    try:
        if "3d_fullres" not in read_folder(study.resolve(model.folder)).plans.get("configurations", {}):
            problems.append(f"{where}.folder: plans.json has no configuration 3d_fullres: it is not VoxTell's")
    except SegfairError as error:
        problems.append(f"{where}.folder: {error}")
    try:
        known = read_embeddings(study.resolve(model.embeddings))
    except SegfairError as error:
        return [*problems, f"{where}.embeddings: {error}"]
    problems += [
        f"{where}.texts.{name}: the study has no such organ: remove it"
        for name in model.texts
        if name not in study.organ_ids
    ]
    for organ in study.organ_ids:
        if _choose_text(organ, model, known) is None:
            asked = model.texts.get(organ) or " or ".join(_name_organ(organ))
            near = difflib.get_close_matches(asked.lower(), known, n=3)
            problems.append(
                f"{where}.texts.{organ}: the file of embeddings has no {asked!r}: name one of its {len(known)} texts"
                + (f", such as {', '.join(near)}" if near else "")
            )
    return problems


def set_up(model: TextModel, study: Study) -> Setup:
    """Choose each organ's text, and hash the files."""
    folder, embeddings = study.resolve(model.folder), study.resolve(model.embeddings)
    known = read_embeddings(embeddings)
    chosen = {organ: _choose_text(organ, model, known) for organ in study.organ_ids}
    texts = tuple((organ, text) for organ, text in chosen.items() if text is not None)
    files = read_folder(folder).hash_files() | {"embeddings": hash_checkpoint(embeddings)}
    asked = ", ".join(organ if organ == text else f"{organ} as {text!r}" for organ, text in texts)
    return Setup(
        VoxtellOptions(folder, embeddings, texts),
        depends_on={"files": files, "texts": dict(texts)},
        notes=(f"asked for {asked}",),
    )


def read_embeddings(path: Path) -> Mapping[str, np.ndarray]:
    """Read the file of vectors: text in lower case → float16, (2560,).

    Raises a SegfairError: it is missing, damaged, or of another text model.
    """
    if not path.is_file():
        raise SegfairError(
            f"there is no file {path}: download embeddings/voxtell_v1.1/text_embeddings.npz of "
            "https://huggingface.co/mrokuss/VoxTell and name it"
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            labels, vectors = content["labels"], content["embeddings"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SegfairError(f"{path} is no file of embeddings (labels and embeddings in an .npz)") from error
    if vectors.shape != (len(labels), WIDTH):
        raise SegfairError(
            f"{path}: must hold {WIDTH} numbers for each of its {len(labels)} texts; it has the shape {vectors.shape}: "
            "use the file that belongs to the model"
        )
    return {str(label).lower(): vector for label, vector in zip(labels, vectors, strict=True)}


def _choose_text(organ: str, model: TextModel, known: Mapping[str, np.ndarray]) -> str | None:
    """Return what an organ is asked by; None where the file has no vector of it."""
    wanted = [model.texts[organ]] if organ in model.texts else _name_organ(organ)
    return next((text.lower() for text in wanted if text.lower() in known), None)


def _name_organ(organ: str) -> list[str]:
    """Return an organ's name in words: kidney_left is "left kidney" or "kidney left"."""
    words = organ.split("_")
    spoken = [" ".join([words[-1], *words[:-1]])] if words[-1] in ("left", "right") else []
    return [*spoken, " ".join(words)]
