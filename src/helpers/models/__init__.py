"""Segmenters behind one protocol, a module per family; importing this imports no torch."""

from helpers.models.cards import list_cards
from helpers.models.description import (
    BLOCKS,
    NO_RANKING,
    find_mode,
    is_mixed,
    label_models,
    label_table,
    list_blocks,
    list_overlaps,
    tabulate_models,
    tell_training,
)
from helpers.models.protocol import ScanCase, Segmentation, Segmenter, Setup, Spec, TogetherSegmenter
from helpers.models.registry import (
    KINDS,
    Kind,
    check_model,
    describe_model,
    find_checkpoint,
    find_kind,
    hash_checkpoint,
    list_templates,
    load_segmenter,
    make_spec,
)
from helpers.models.windows import choose_window, find_levels

__all__ = [
    "BLOCKS",
    "KINDS",
    "NO_RANKING",
    "Kind",
    "ScanCase",
    "Segmentation",
    "Segmenter",
    "Setup",
    "Spec",
    "TogetherSegmenter",
    "check_model",
    "choose_window",
    "describe_model",
    "find_checkpoint",
    "find_kind",
    "find_levels",
    "find_mode",
    "hash_checkpoint",
    "is_mixed",
    "label_models",
    "label_table",
    "list_blocks",
    "list_cards",
    "list_overlaps",
    "list_templates",
    "load_segmenter",
    "make_spec",
    "tabulate_models",
    "tell_training",
]
