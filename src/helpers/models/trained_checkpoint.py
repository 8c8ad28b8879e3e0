"""Checkpoints that nnU-Net's training saved, read without running any code in them.

nnU-Net's own networks, nnInteractive's and VoxTell's are kept so.
"""

from __future__ import annotations

import pickle
import pydoc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.errors import SegfairError
from helpers.models.torchvision_fix import declare_missing_operators
from helpers.models.trained_folder import SAFE_PACKAGES


def read_trained_checkpoint(
    path: Path, keys: Sequence[str], *, trust: bool = False, advice: str = "download it again from its publishers"
) -> dict[str, Any]:
    """Read what nnU-Net saved: tensors, plain values, numpy's scalars; anything if trusted.

    Tensors are mapped into memory. `keys` are those it must have.

    Raises a SegfairError: the file is damaged, asks for more (the sentence ends in `advice`), or
    lacks a key.
    """
    import numpy._core.multiarray as multiarray

    kinds = {type(np.dtype(code)) for code in "fdlqi?"}
    # By both of its names: files of numpy 1 have the second.
    safe: list[Any] = [multiarray.scalar, (multiarray.scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(path, map_location="cpu", weights_only=not trust, mmap=not trust)
    except pickle.UnpicklingError as error:
        asked = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - _name_all(safe))
        raise SegfairError(
            f"{path} asks for {', '.join(asked) or 'more than tensors'} beside tensors, which could run code: {advice}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise SegfairError(f"{path} cannot be read as a checkpoint: unpack or copy the model again") from error
    lacking = [key for key in keys if key not in content]
    if lacking:
        raise SegfairError(f"{path} has no {lacking[0]}: it is no checkpoint of nnU-Net v2")
    return content


def build_planned_network(
    configuration: Any, channels: int, outputs: int, *, initialise: bool = False
) -> torch.nn.Module:
    """Build the network of a configuration of nnU-Net's plans, its classes seen to be networks."""
    declare_missing_operators()  # some architectures import timm, and that torchvision
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    check_classes(configuration.configuration["architecture"])
    return get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        channels,
        outputs,
        allow_init=initialise,
        deep_supervision=False,
    )


def check_classes(architecture: Mapping[str, Any]) -> None:
    """See that an architecture of plans.json leads to layers and networks, and to nothing else."""
    named = [architecture["arch_kwargs"].get(key) for key in architecture.get("_kw_requires_import", ())]
    for name in (architecture["network_class_name"], *named):
        if name is not None:
            check_class(name)


def check_class(text: str | None) -> None:
    """See that a name in plans.json leads to a layer or a network, and to nothing else.

    A module of those packages may itself have imported something else.
    """
    found = None if text is None else pydoc.locate(text)
    if text is None or (
        isinstance(found, type)
        and issubclass(found, torch.nn.Module)
        and f"{found.__module__}.".startswith(SAFE_PACKAGES)
    ):
        return
    raise SegfairError(f"plans.json asks for {text}, which is no network or layer of torch: unpack the model again")


def _name_all(safe: Sequence[Any]) -> set[str]:
    named = {entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in safe}
    return named | {"numpy._core.multiarray.scalar"}
