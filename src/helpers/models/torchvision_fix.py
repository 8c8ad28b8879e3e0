"""Import segment-anything and transformers beside any build of torch.

Both import torchvision, for resizing and for `batched_nms`. torchvision's compiled
operators are built against one build of torch; beside another (a CPU-only torch, say) they do not
load, and torchvision then fails on import with ``operator torchvision::nms does not exist``,
because it registers shape rules for operators it could not load. Nothing in this project calls
those operators, so declaring their signatures is enough. It is done here and nowhere else: import
segment-anything through this module, and call :func:`declare_missing_operators` before
transformers.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# The declarations live as long as this object, so the module keeps it.
_library: Any = None


def import_segment_anything() -> ModuleType:
    """Return ``segment_anything``, importable whatever the build of torch and torchvision."""
    declare_missing_operators()
    import segment_anything

    return segment_anything


def declare_missing_operators() -> None:
    """Make torchvision importable whatever the build of torch.

    Where torchvision's compiled operators load, nothing is changed. Where they do not, the missing
    schemas ``torchvision::nms`` and ``torchvision::qnms`` are declared without an implementation:
    calling them still fails, importing does not.
    """
    global _library
    if _library is not None or _operators_load():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not _is_declared(name):
            library.define(name + _SIGNATURE)
    _library = library


def _operators_load() -> bool:
    """Tell whether torchvision's own compiled operators load beside this torch."""
    if "torchvision" in sys.modules:
        return True
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # segment-anything's own import then says that torchvision is missing
    libraries = [path for path in Path(spec.origin).parent.glob("_C*") if path.suffix in (".so", ".pyd", ".dylib")]
    for path in libraries:
        try:
            torch.ops.load_library(str(path))
        except OSError:
            continue
        return _is_declared("nms")
    return False


def _is_declared(name: str) -> bool:
    try:
        torch._C._get_schema(f"torchvision::{name}", "")
    except RuntimeError:
        return False
    return True
