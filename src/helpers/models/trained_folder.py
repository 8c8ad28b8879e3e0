"""The folder that nnU-Net's training leaves, as nnInteractive and VoxTell publish theirs.

Read without torch: whether it is whole, and whether its plans name nothing but networks.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.errors import SegfairError
from helpers.models.registry import hash_checkpoint

CHECKPOINT = "checkpoint_final.pth"
# plans.json names classes to be imported: nowhere else than here.
SAFE_PACKAGES = ("dynamic_network_architectures.", "torch.nn.")


@dataclass(frozen=True)
class PublishedFolder:
    """A trained network's files."""

    path: Path
    plans: Mapping[str, Any]
    checkpoint: Path

    def hash_files(self) -> dict[str, str]:
        """Return the SHA-256 of each file that masks are made from."""
        files = [*sorted(self.path.glob("*.json")), self.checkpoint]
        return {str(file.relative_to(self.path)): hash_checkpoint(file) for file in files}


def read_folder(folder: Path) -> PublishedFolder:
    """Read a folder with plans.json and one fold.

    Raises a SegfairError: it was unpacked in part, has several folds, or its plans name a class
    from elsewhere.
    """
    if not folder.is_dir():
        raise SegfairError(f"there is no folder {folder}: name the one that holds plans.json and fold_0")
    plans = read_json(folder / "plans.json")
    checkpoints = sorted(folder.glob(f"fold_*/{CHECKPOINT}"))
    if len(checkpoints) != 1:
        raise SegfairError(
            f"{folder} holds {len(checkpoints)} files fold_…/{CHECKPOINT}, and must hold one: unpack the model again"
        )
    if not zipfile.is_zipfile(checkpoints[0]):
        raise SegfairError(f"{checkpoints[0]} is damaged or cut short: download the model again")
    for configuration in plans.get("configurations", {}).values():
        check_named_classes(configuration.get("architecture", {}), "download the model again from its publishers")
    return PublishedFolder(folder, plans, checkpoints[0])


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the folder's JSON files; a SegfairError where it is missing or holds no keys."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SegfairError(f"{path.parent} holds no {path.name}: it was unpacked in part: unpack it again") from None
    except (OSError, ValueError) as error:
        raise SegfairError(f"{path} cannot be read as JSON ({error}): unpack the model again") from error
    if not isinstance(content, dict):
        raise SegfairError(f"{path} holds no keys: it is not nnU-Net v2's: unpack the model again")
    return content


def check_named_classes(architecture: Mapping[str, Any], advice: str) -> None:
    """Refuse an architecture of plans.json that names a class from elsewhere."""
    keywords = architecture.get("arch_kwargs", {})
    named = [architecture.get("network_class_name")]
    named += [keywords.get(key) for key in architecture.get("_kw_requires_import", ())]
    foreign = [name for name in named if name is not None and not str(name).startswith(SAFE_PACKAGES)]
    if foreign:
        raise SegfairError(
            f"plans.json asks for {foreign[0]}, and only classes of dynamic_network_architectures and torch.nn are "
            f"imported: {advice}"
        )
