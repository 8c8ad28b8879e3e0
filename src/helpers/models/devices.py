"""Where a model runs in this process: the device, its precision and its threads."""

from __future__ import annotations

from pathlib import Path

import torch

from helpers.compute import keep_freed_memory
from helpers.errors import SegfairError
from helpers.models.protocol import Spec


def open_device(spec: Spec) -> str:
    """Return the device a spec asks for, this process's threads and memory made ready for it.

    Raises a SegfairError where the wanted device is not there.
    """
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    device = choose_device(spec.device)
    if device == "cpu":
        keep_freed_memory()  # a sixth of the time of a large encoder is page faults otherwise
    return device


def choose_device(wanted: str) -> str:
    """Return the device to use: ``auto`` is the first GPU where torch sees one, else the processor.

    Raises a SegfairError where the wanted device is not there.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = wanted.partition(":")
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[kind]:
        raise SegfairError(f"compute.device {wanted}: torch sees no such device here: use auto or cpu")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """Return the precision: ``auto`` is bfloat16 where that is faster there, else float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if has_fast_bfloat16(device) else "float32"


def has_fast_bfloat16(device: str) -> bool:
    """Tell whether matrix products in bfloat16 are faster than in float32 there."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public question for this; oneDNN's own is what its dispatcher asks.
    return device == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and "bf16" in _read_cpu_flags()


def _read_cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
