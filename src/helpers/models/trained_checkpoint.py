"""Checkpoints that nnU-Net's training saved, read without running any code in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.errors import SegfairError


def read_trained_checkpoint(path: Path) -> dict[str, Any]:
    """Read tensors, plain values and numpy's scalars, mapped into memory; anything else is refused.

    Raises
    ------
    SegfairError
        The file is damaged, asks for more, or is none of nnU-Net's.
    """
    import numpy._core.multiarray as multiarray

    kinds = {type(np.dtype(code)) for code in "fdlqi?"}
    # By both of its names: files of numpy 1 have the second.
    safe = [multiarray.scalar, (multiarray.scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        asked = sorted(
            name for name in torch.serialization.get_unsafe_globals_in_checkpoint(path) if "numpy" not in name
        )
        raise SegfairError(
            f"{path} asks for {', '.join(asked) or 'more than tensors'} beside tensors, which could run code: "
            "download the model again from its publishers"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise SegfairError(f"{path} cannot be read as a checkpoint: download the model again") from error
    lacking = [key for key in ("network_weights", "init_args") if key not in content]
    if lacking:
        raise SegfairError(f"{path} has no {lacking[0]}: it is no checkpoint of nnU-Net v2")
    return content
