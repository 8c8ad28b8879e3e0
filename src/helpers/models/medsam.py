"""`medsam`: vit_b with MedSAM's weights and preprocessing (Ma et al., Nat Commun 2024)."""

from __future__ import annotations

from typing import Any

from helpers.models.loading import build_sam_from_checkpoint
from helpers.models.protocol import Spec
from helpers.models.sam import SamSegmenter, make_segmenter
from helpers.models.sam_frames import MedSamFrame


def load(spec: Spec) -> SamSegmenter:
    """Load MedSAM from its checkpoint."""
    sam: Any = build_sam_from_checkpoint(spec.weights, "vit_b")
    return make_segmenter(sam, spec, frame=MedSamFrame(sam.image_encoder.img_size))
