"""How much of what a header promises is believed: it may be a slip of one digit, or a trap."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

from helpers.errors import SegfairError, VolumeError

_LARGEST_GB = 1.25  # 2,300 slices of 512 x 512 as CT is stored; reading takes up to three times that
VARIABLE = "SEGFAIR_LARGEST_IMAGE_GB"


def check_extent(name: str, size: Iterable[int], bytes_per_voxel: int) -> int:
    """Return how many bytes voxels take in memory.

    Raises a VolumeError: they take more than any image may.
    """
    size = tuple(size)
    wanted, most_gb = math.prod(size) * bytes_per_voxel, read_limit()
    if wanted > most_gb * 1e9:
        raise VolumeError(
            f"{name}: its header asks for {' × '.join(map(str, size))} voxels, {wanted / 1e9:,.1f} GB in memory, where "
            f"{most_gb:g} GB are the most: copy it again where that is wrong, or set {VARIABLE} to more"
        )
    return wanted


def read_limit() -> float:
    """Return how many gigabytes are read; a SegfairError where that is set to no number."""
    text = os.environ.get(VARIABLE, "")
    try:
        value = float(text or _LARGEST_GB)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise SegfairError(f"{VARIABLE} must be a number of gigabytes; got {text!r}: correct or unset it")
    return value
