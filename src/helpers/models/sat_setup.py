"""What SAT is asked, without torch: the words of the organs and the file of their vectors.

SAT's text encoder depends on nothing but a word and a modality, so its vectors are made once, by
``segfair checkpoints embed`` (:mod:`helpers.models.sat_text`), and kept as a small file. They
belong to the checkpoint whose text encoder made them.
"""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers import storage
from helpers.errors import SegfairError
from helpers.models.protocol import Setup
from helpers.parameters import SatModel
from helpers.study import Study
from helpers.vocabulary.words import list_words

MODALITIES = {"CT": "ct", "MR": "mri"}  # the study's names and SAT's
WIDTH = 768  # numbers of a word's vector

# By the SHA-256 that Hugging Face lists (zzh99/SAT): a text encoder, and checkpoints not its own.
_ENCODER_OF_2025 = "592f6fd9ebe9e524b577657a1d3ea3afd7f04009104df724062a889c0af1150c"
_CHECKPOINTS_BEFORE = {
    "383aba6ed3a273f8b0df42d8915c599cada29f7cc3e86070becadb173a34f51b": "nano.pth",
    "1a83dcbfc10c2c66e78e88cd8a89e633da8a1f9c507f9164f122dca2ad01f377": "SAT_Nano_UNET.pth",
}


@dataclass(frozen=True)
class Embeddings:
    """The vectors of words."""

    vectors: Mapping[tuple[str, str], np.ndarray]  # float32, (WIDTH,), per word and modality
    text_checkpoint_sha256: str  # of the text encoder that made them


@dataclass(frozen=True)
class SatOptions:
    """What a worker needs beside the checkpoint."""

    embeddings: Path
    texts: Mapping[str, str]  # per organ


def read_embeddings(path: Path) -> Embeddings:
    """Read the file that ``segfair checkpoints embed`` makes.

    It holds ``names`` and ``modalities`` (text, (n,)), ``embeddings`` (float32, (n, width)) and
    ``text_checkpoint_sha256``. Raises a SegfairError where it is missing, damaged or another file.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            names, modalities = content["names"].tolist(), content["modalities"].tolist()
            vectors = content["embeddings"].astype(np.float32)
            source = str(content["text_checkpoint_sha256"])
        if vectors.ndim != 2 or not len(names) == len(modalities) == len(vectors) or not np.isfinite(vectors).all():
            raise ValueError
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise SegfairError(
            f"{path}: is missing, damaged or no file of words' vectors: make it with `segfair checkpoints embed`"
        ) from error
    return Embeddings(dict(zip(zip(names, modalities, strict=True), vectors, strict=True)), source)


def write_embeddings(path: Path, vectors: Mapping[tuple[str, str], np.ndarray], *, text_checkpoint_sha256: str) -> None:
    """Write what :func:`read_embeddings` reads."""
    names, modalities = zip(*vectors, strict=True)
    with storage.write_atomically(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            names=np.array(names),
            modalities=np.array(modalities),
            embeddings=np.stack(list(vectors.values())).astype(np.float32),
            text_checkpoint_sha256=np.array(text_checkpoint_sha256),
        )


def explain_unknown(text: str, modality: str) -> str:
    """Say why SAT cannot be asked for a word in a modality (``ct``, ``mri``); empty where it can.

    Of the study's organs only lungs are concerned: SAT-DS, which it was trained on, has none in MR.
    """
    if modality == "mri" and "lung" in text:
        return "SAT was not trained on lungs in MR"
    return ""


def list_texts(model: SatModel, study: Study) -> dict[str, str]:
    """Return what SAT is asked for each organ: as named, else the organ's own name as words."""
    return {organ: model.texts.get(organ, organ.replace("_", " ")).lower() for organ in study.organ_ids}


def check(model: SatModel, study: Study) -> list[str]:
    """List what is wrong with a SAT's texts and vectors, in sentences."""
    where = f"models.{model.name}"
    unknown = sorted(set(model.texts) - set(study.organ_ids))
    if unknown:
        return [
            f"{where}.texts: {list_words(unknown)}: no organ of the study; it has {', '.join(study.organ_ids)}: "
            "correct the name"
        ]
    texts = list_texts(model, study)
    try:
        path = study.resolve(model.embeddings)
        found = read_embeddings(path)
    except SegfairError as error:
        return [f"{where}.embeddings: {error}: {_show_command(model, texts)}"]
    lacking = [pair for pair in _list_pairs(texts) if pair not in found.vectors]
    if lacking:
        named = ", ".join(f"{text!r} ({modality})" for text, modality in lacking)
        return [
            f"{where}.embeddings: {path.name} lacks {named}; it holds "
            f"{', '.join(sorted({name for name, _ in found.vectors}))}: correct {where}.texts, or make the file anew: "
            f"{_show_command(model, texts)}"
        ]
    if any(found.vectors[pair].shape != (WIDTH,) for pair in _list_pairs(texts)):
        return [f"{where}.embeddings: {path.name} must hold {WIDTH} numbers a word: make it with SAT's text encoder"]
    return _check_pair(model, study, found, path)


def set_up(model: SatModel, study: Study) -> Setup:
    """Return the words, where their vectors lie, and what a mask depends on."""
    texts = list_texts(model, study)
    path = study.resolve(model.embeddings)
    vectors = read_embeddings(path).vectors
    asked = {" ".join(pair): vectors[pair].tolist() for pair in _list_pairs(texts)}
    digest = storage.hash_value(asked)
    lungs = [organ for organ, text in texts.items() if explain_unknown(text, "mri")]
    notes = [f"{list_words(lungs)}: not drawn on MR scans and not scored there: {explain_unknown('lung', 'mri')}"]
    return Setup(
        options=SatOptions(path, texts),
        depends_on={"texts": texts, "vectors": digest},
        notes=tuple(notes if lungs else ()),
    )


def _list_pairs(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """List the words and modalities whose vectors a study may need."""
    pairs = [(text, modality) for text in texts.values() for modality in MODALITIES.values()]
    return [pair for pair in pairs if not explain_unknown(*pair)]


def _show_command(model: SatModel, texts: Mapping[str, str]) -> str:
    words = " ".join(shlex.quote(text) for text in dict.fromkeys(texts.values()))
    return (
        f"`segfair checkpoints embed {shlex.quote(model.embeddings)} {words} "
        "--encoder BIOLORD_FOLDER --weights TEXT_ENCODER.pth`"
    )


def _check_pair(model: SatModel, study: Study, found: Embeddings, path: Path) -> list[str]:
    """Refuse vectors of a text encoder that is known to belong to another checkpoint."""
    if found.text_checkpoint_sha256 != _ENCODER_OF_2025 or model.checkpoint is None:
        return []
    checkpoint = study.resolve(model.checkpoint)
    other = _CHECKPOINTS_BEFORE.get(storage.hash_file(checkpoint)) if checkpoint.is_file() else None
    if other is None:
        return []
    return [
        f"models.{model.name}.embeddings: {path.name} was made with the text encoder of nano_cvpr25_v0.pth, and the "
        f"checkpoint is {other}: make it with the text encoder that belongs to the checkpoint"
    ]
