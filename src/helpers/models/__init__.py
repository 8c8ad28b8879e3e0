"""Segmenters behind one protocol, a module per family; importing this imports no torch."""

from helpers.models.cards import list_cards
from helpers.models.description import (
    BLOCKS,
    find_mode,
    label_models,
    label_table,
    list_blocks,
    list_overlaps,
    list_pooled,
    needs_reference,
    tabulate_models,
    tell_training,
)
from helpers.models.protocol import IMAGE_FAULTS, ScanCase, Segmentation, Segmenter, Spec, TogetherSegmenter
from helpers.models.registry import (
    KINDS,
    Kind,
    check_model,
    describe_model,
    find_checkpoint,
    find_kind,
    hash_checkpoint,
    list_refused,
    list_templates,
    load_segmenter,
    make_spec,
    try_model,
)
from helpers.models.windows import choose_window, find_levels
