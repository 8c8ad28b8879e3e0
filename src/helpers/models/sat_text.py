"""Words to SAT's vectors, once: the published text encoder on this machine, through transformers.

The tower is BioLORD-2023-C (Remy et al., JAMIA 2024) as SAT fine-tuned it: the mean over a word's
tokens, a projection of two layers, and a learned vector of the modality added.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from helpers.errors import SegfairError
from helpers.models.loading import check_finite, describe_difference, load_state
from helpers.models.sat_setup import MODALITIES, write_embeddings
from helpers.models.torchvision_fix import declare_missing_operators
from helpers.storage import hash_file

# The rows of the table of modalities.
_ROWS = {"ct": 0, "mri": 1, "us": 2, "pet": 3}
_TOWER_KEY = "embeddings.word_embeddings.weight"


def embed_texts(texts: Sequence[str], encoder: Path, weights: Path, output: Path) -> Path:
    """Write the vectors of words for CT and MR.

    `texts` are what SAT will be asked; in lower case, as it was trained. `encoder` is the folder of
    BioLORD-2023-C as published, of which ``config.json`` and tokenizer are read; `weights` is SAT's
    text encoder, the one that belongs to the checkpoint: tensors only. `output` is a ``.npz`` file
    (:func:`helpers.models.sat_setup.read_embeddings`).

    Raises a SegfairError: transformers is not installed, a file is missing, or the two do not fit
    each other.
    """
    if output.suffix != ".npz":
        raise SegfairError(f"{output}: the file of words' vectors must end in .npz")
    if find_spec("transformers") is None:
        raise SegfairError("embedding words needs transformers: run pip install 'segfair[sat]'")
    tower, tokenizer = _open_encoder(encoder)
    state = load_state(weights)
    check_finite(state, weights.name)
    projection, modalities = _fill_tower(tower, state, weights.name)
    vectors: dict[tuple[str, str], np.ndarray] = {}
    with torch.inference_mode():
        for text in dict.fromkeys(text.strip().lower() for text in texts):
            # One at a time: no padding enters the mean.
            tokens = tokenizer(text, return_tensors="pt")
            if tokenizer.unk_token_id in tokens["input_ids"]:
                raise SegfairError(
                    f"{encoder}: its tokenizer does not know {text!r}: download the whole folder again or ask otherwise"
                )
            projected = _project(tower(**tokens).last_hidden_state[0].mean(dim=0), projection)
            for modality in MODALITIES.values():
                vectors[text, modality] = (projected + modalities[_ROWS[modality]]).numpy()
    write_embeddings(output, vectors, text_checkpoint_sha256=hash_file(weights))
    return output


def _open_encoder(folder: Path) -> tuple[Any, Any]:
    """Return the encoder of a folder without weights, and its tokenizer; nothing is downloaded."""
    tokenizers = [folder / name for name in ("tokenizer.json", "vocab.txt")]
    if not (folder / "config.json").is_file() or not any(path.is_file() for path in tokenizers):
        raise SegfairError(
            f"{folder}: must be the folder of BioLORD-2023-C, with config.json and the tokenizer's files: "
            "download FremyCompany/BioLORD-2023-C from Hugging Face and name its folder"
        )
    declare_missing_operators()
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tower = AutoModel.from_config(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SegfairError(f"{folder}: cannot be opened as a text encoder: download the whole folder again") from error
    return tower.eval(), tokenizer


def _fill_tower(
    tower: torch.nn.Module, state: dict[str, torch.Tensor], file_name: str
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Fill the tower; return the projection's (weight, bias, weight, bias), and the modalities'.

    Published descriptions name no tensors beside the tower's own: the rest is known by its shapes,
    and anything left over is refused.
    """
    # Left out: what older transformers kept (position_ids), and single numbers (a temperature).
    state = {key: value.float() for key, value in state.items() if value.is_floating_point() and value.ndim}
    prefix = next((key.removesuffix(_TOWER_KEY) for key in state if key.endswith(_TOWER_KEY)), None)
    if prefix is None:
        raise SegfairError(
            f"{file_name}: is no text encoder of SAT (its first tensor is {next(iter(state), '')!r}): "
            "give the text_encoder.pth that belongs to the checkpoint"
        )
    expected = tower.state_dict()
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.removeprefix(prefix) in expected}
    rest = {key: value for key, value in state.items() if key.removeprefix(prefix) not in expected}
    width = state[prefix + _TOWER_KEY].shape[1]
    modalities = [key for key, value in rest.items() if value.shape == (len(_ROWS), width)]
    layers = sorted((key for key in rest if key not in modalities), key=_sort_naturally)
    shapes = [tuple(rest[key].shape) for key in layers]
    wanted = [(width,), (width, width)] * 2
    difference = describe_difference(expected, own)
    if difference or len(modalities) != 1 or shapes != wanted:
        beside = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(rest.items())[:6])
        reason = difference or (
            f"beside its tower it must hold two linear layers and a vector for each of {len(_ROWS)} modalities, "
            f"and it holds {beside or 'nothing'}"
        )
        raise SegfairError(f"{file_name}: does not fit the encoder's folder: {reason}: correct one of the two")
    tower.load_state_dict(own, strict=True)
    first_bias, first, second_bias, second = (rest[key] for key in layers)
    return [first, first_bias, second, second_bias], rest[modalities[0]]


def _project(vector: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    first, first_bias, second, second_bias = weights
    hidden = functional.gelu(functional.linear(vector, first, first_bias))
    return functional.linear(hidden, second, second_bias)


def _sort_naturally(key: str) -> list[tuple[int, str]]:
    """Sort numbers in names as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[.]", key)]
