"""Segmenters behind one small protocol, one module per family. Importing this package does not import torch."""

from helpers.models.protocol import ScanCase, Segmentation, Segmenter, Spec
from helpers.models.registry import (
    KINDS,
    Kind,
    check_model,
    find_checkpoint,
    find_kind,
    hash_checkpoint,
    load_segmenter,
    make_spec,
)
from helpers.models.windows import CT_WINDOWS, apply_window, choose_window

__all__ = [
    "CT_WINDOWS",
    "KINDS",
    "Kind",
    "ScanCase",
    "Segmentation",
    "Segmenter",
    "Spec",
    "apply_window",
    "check_model",
    "choose_window",
    "find_checkpoint",
    "find_kind",
    "hash_checkpoint",
    "load_segmenter",
    "make_spec",
]
