"""Registrations made once: kept by content, and found again whatever else of a study changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from helpers.kept import find_file, read_arrays, write_arrays
from helpers.spatial.correspondence import AffineAlignment, DistanceField, guess_alignment, register_affine
from helpers.spatial.deformation import ELASTICITY_STEPS, LEVELS, STORED_MM, DeformableAlignment, deform, quantise
from helpers.spatial.template import Template

# Raised when a registration of the same field to the same template would come out otherwise.
VERSION = 1


def register_organ(template: Template, field: DistanceField, folder: Path | None) -> tuple[DeformableAlignment, str]:
    """Register a template to a scan's organ, or take the registration that was made before.

    Returns the alignment and its key: a hash of template, shape and method, under which it is kept
    in `folder`, the same to the last digit, found or made; without a folder nothing is kept. A
    ValueError where the organ cannot be registered.
    """
    parts = (VERSION, LEVELS, ELASTICITY_STEPS, template.key, field.hash_content())
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    path = None if folder is None else find_file(folder, key)
    kept = None if path is None else _read(path, template, field)
    if kept is not None:
        return kept, key
    start = guess_alignment(field, template.field.scale_mm, template.field.extent_mm)
    alignment = deform(template.field, field, register_affine(template.field, field, start))
    if path is not None:
        affine = alignment.affine
        displacement = quantise(alignment.displacement_mm)
        write_arrays(path, {"matrix": affine.matrix, "offset": affine.offset_mm, "displacement": displacement})
    return alignment, key


def _read(path: Path, template: Template, field: DistanceField) -> DeformableAlignment | None:
    """Return a kept alignment; None where there is none that can be read (it is made again)."""
    stored = read_arrays(path)
    if stored is None or not {"displacement", "matrix", "offset"} <= set(stored):
        return None
    displacement = stored["displacement"] * np.float32(STORED_MM)
    if displacement.shape != (*template.field.values_mm.shape, 3):
        return None
    affine = AffineAlignment(stored["matrix"], stored["offset"], field.centre_mm)
    return DeformableAlignment(affine, displacement, template.field.grid_mm, np.asarray(template.field.origin_mm))
