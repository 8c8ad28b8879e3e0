"""`voxtell`: organs asked for by words, without prompts (Rokuss et al., arXiv 2511.11450).

Its package is given every file it needs, so that it downloads none. As published, the scan is seen
in its own voxels, in the order right, anterior, superior. VoxTell answers each text apart: a voxel
that several organs claim goes to the one with the highest logit.
"""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any

import numpy as np
import torch

from helpers.errors import SegfairError
from helpers.models.devices import open_device
from helpers.models.loading import check_finite
from helpers.models.protocol import ScanCase, Segmentation, Spec, get_image
from helpers.models.torchvision_fix import declare_missing_operators
from helpers.models.trained_checkpoint import check_classes, read_trained_checkpoint
from helpers.models.trained_folder import read_folder
from helpers.models.voxtell_setup import VoxtellOptions, read_embeddings


class VoxtellSegmenter:
    """Drives a ``VoxTellPredictor``, all organs at once."""

    def __init__(self, predictor: Any, texts: dict[str, str], device: str) -> None:
        self.predictor = predictor
        self.organs = tuple(texts)
        self.embeddings = predictor.embed_text_prompts(list(texts.values()))
        self.device = device
        self.precision = "float16" if device.startswith("cuda") else "float32"  # the package's own choice

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment the organs of a scan from its image; too little memory is a SegfairError."""
        began = time.monotonic()
        # Axial arrays run to the back and to the left; VoxTell wants the front and the right.
        turned = np.ascontiguousarray(get_image(case)[:, ::-1, ::-1])
        try:
            # A progress bar has no place in a notebook.
            with contextlib.redirect_stderr(io.StringIO()):
                data, box, _ = self.predictor.preprocess(turned)
                logits = self.predictor.predict_sliding_window_return_logits(data, self.embeddings)
        except torch.OutOfMemoryError as error:
            raise SegfairError(
                f"{self.device} has too little memory for this scan and {len(self.organs)} organs: use a larger card "
                "or compute.device cpu"
            ) from error
        labels = np.zeros(case.shape, np.uint8)
        labels[tuple(slice(*side) for side in box)] = self._merge(logits, case)
        seconds = time.monotonic() - began
        return Segmentation(np.ascontiguousarray(labels[:, ::-1, ::-1]), len(labels), 0, encode_seconds=seconds)

    def _merge(self, logits: torch.Tensor, case: ScanCase) -> np.ndarray:
        """Return labels of logits, float16, (organ, z, y, x)."""
        best, places = logits.max(dim=0)
        ids = torch.tensor([case.organ_ids[organ] for organ in self.organs], dtype=torch.uint8, device=logits.device)
        return torch.where(best > 0, ids[places], 0).cpu().numpy()


def load(spec: Spec) -> VoxtellSegmenter:
    """Load the network of a folder by the package, having seen that its files run no code.

    Raises a SegfairError: the folder's files are damaged, unsafe or not of one network.
    """
    options: VoxtellOptions = spec.options
    device = open_device(spec)
    trained = read_folder(options.folder)
    # The package reads the file again, and would run what a pickle says.
    weights = read_trained_checkpoint(trained.checkpoint, ("network_weights",))["network_weights"]
    check_finite(weights, trained.checkpoint.name)
    check_classes(trained.plans["configurations"]["3d_fullres"]["architecture"])
    bank = read_embeddings(options.embeddings)
    texts = dict(options.texts)
    declare_missing_operators()
    from voxtell.inference.predictor import VoxTellPredictor

    vectors = {text: bank[text] for text in texts.values()}
    try:
        predictor = VoxTellPredictor(str(options.folder), torch.device(device), embedding_bank=vectors)
    except (RuntimeError, KeyError, TypeError, FileNotFoundError) as error:
        raise SegfairError(
            f"{options.folder}: the checkpoint does not fit plans.json, or is not VoxTell's: unpack the model again"
        ) from error
    return VoxtellSegmenter(predictor, texts, device)
