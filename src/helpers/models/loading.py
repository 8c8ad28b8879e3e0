"""Reading files of SAM weights, published or fine-tuned: tensors only, names and shapes checked."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from helpers.errors import SegfairError
from helpers.models.archives import check_unpacked
from helpers.models.checkpoints import CHECKPOINTS, check_published, explain_fetching, get_checkpoint, locate
from helpers.models.torchvision_fix import import_segment_anything
from helpers.storage import expand_home, hash_file

# Channels of the image encoder, by which the published architectures differ.
_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_PATCH_KERNEL = "image_encoder.patch_embed.proj.weight"
_SAM2 = "SAM 2"
# The beginning of a tensor's name, and the family that names its tensors so.
_RELATIVES = (
    ("image_encoder.layers.", "MobileSAM or LiteMedSAM (a TinyViT encoder)"),
    ("image_encoder.backbone.", "EfficientViT-SAM"),
    ("image_encoder.trunk.", _SAM2),
    ("vision_encoder.", "a SAM in the layout of Hugging Face transformers, which names its tensors otherwise"),
    ("patch_embed.", "an image encoder alone, without prompt encoder and mask decoder"),
)
# Where training code keeps the weights beside optimiser and epoch; what wrappers put before names.
_WRAPPINGS = ("model", "state_dict", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.", "model.", "sam.")
_DAMAGED = "it may be damaged or of another format: download it again"


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a file: tensors only, no code is run.

    Files of torch (mapped into memory where their format allows it, so that processes share them)
    and, by their suffix, safetensors. The usual wrappings of fine-tuned weights are taken off
    (:data:`_WRAPPINGS`, and a prefix that every name bears, :data:`_PREFIXES`). Tensors lie on the
    processor, in the file's own precision.

    Raises a SegfairError: the file is missing, damaged, something else, or holds more than tensors
    and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise SegfairError(f"{path}: there is no such file: correct the path or download the checkpoint")
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for _ in range(2):  # a file of Lightning may hold a state_dict in which training code put a model
        if isinstance(content, dict):
            content = next((content[key] for key in _WRAPPINGS if isinstance(content.get(key), dict)), content)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())
    ):
        raise SegfairError(f"{path.name}: must hold a state dict of tensors, as the published files do")
    return _strip_prefixes(content)


def build_sam_from_checkpoint(path: Path, variant: str | None = None) -> torch.nn.Module:
    """Build a published architecture of SAM with the weights of a file, names and shapes checked.

    The network is built without memory or random numbers and takes the file's tensors as its own;
    other precisions become float32.

    `variant` is recognised from the file where it is left out. The network is on the processor, in
    eval mode.

    Raises a SegfairError: the file cannot be read, is of another architecture (the message says
    which it looks like), or holds weights that are not finite.
    """
    path = Path(path)
    state = load_state(path)
    variant, sam = _recognise_variant(state, path.name, variant)
    state = {key: value.to(torch.float32) for key, value in state.items()}
    check_finite(state, path.name)
    sam.load_state_dict(state, strict=True, assign=True)
    return sam.eval()


def check_finite(state: dict[str, torch.Tensor], file_name: str) -> None:
    """Refuse weights that are not finite."""
    for key, value in state.items():
        if not torch.isfinite(value.sum()):
            raise SegfairError(f"{file_name}: {key} holds values that are not finite: use another checkpoint")


def verify_checkpoint(name_or_path: str | Path) -> str:
    """Read a whole file, by a name in the catalogue or a path, and say in a sentence what it is.

    A file that is none of the published ones is read as a checkpoint and compared with its
    architecture, tensor by tensor.

    Raises a SegfairError: it is missing, not what its name promises, or no complete SAM.
    """
    if str(name_or_path) in CHECKPOINTS:
        name = str(name_or_path)
        path = locate(name)
        if not path.exists():
            raise SegfairError(f"{name}: is not here: {explain_fetching(name)}")
        if path.is_dir():
            return check_unpacked(get_checkpoint(name))
        check_published(path, get_checkpoint(name))
        return f"{path}: is {name} as published (SHA-256 {get_checkpoint(name).sha256})"
    path = expand_home(Path(name_or_path))
    if not path.is_file():
        raise SegfairError(
            f"{name_or_path}: is neither a file nor one of {', '.join(CHECKPOINTS)}: correct the name or the path"
        )
    found = hash_file(path)
    for name, checkpoint in CHECKPOINTS.items():
        if found == checkpoint.sha256:
            return f"{path}: is {name} as published (SHA-256 {found})"
        if path.name == checkpoint.file_name:
            check_published(path, checkpoint)
    state = load_state(path)
    looks = describe_architecture(state)
    if looks == _SAM2:
        from helpers.models.sam2_network import load_network

        load_network(path, None, side=1024)
    else:
        looks = _recognise_variant(state, path.name, None)[0]
    return f"{path}: is a complete {looks}, none of the published files (SHA-256 {found})"


def describe_architecture(state: dict[str, torch.Tensor]) -> str:
    """Say what a state dict looks like: ``vit_b``, ``vit_l``, ``vit_h``, a relative, ``no SAM``.

    segment-anything's own are told by the width of the patch embedding and its patch of 16 pixels.
    """
    kernel = state.get(_PATCH_KERNEL)
    if kernel is None or kernel.ndim != 4:
        for beginning, family in _RELATIVES:
            if any(key.startswith(beginning) for key in state):
                return family
        return "no SAM"
    width, patch = int(kernel.shape[0]), int(kernel.shape[-1])
    if patch != 16:
        return f"a small SAM of encoder width {width} and patch {patch}, like sam_demo"
    if width in (192, 384):
        return "EfficientSAM"
    return _WIDTHS.get(width, f"a SAM of encoder width {width}")


def _recognise_variant(
    state: dict[str, torch.Tensor], file_name: str, variant: str | None
) -> tuple[str, torch.nn.Module]:
    """Return the architecture of a state and an empty network that the state is known to fill."""
    looks = describe_architecture(state)
    published = tuple(_WIDTHS.values())
    if variant is None:
        if looks not in published:
            likeness = f"it looks like {looks}" if looks != "no SAM" else f"its first tensor is {next(iter(state))!r}"
            raise SegfairError(
                f"{file_name}: is no SAM of segment-anything: {likeness}: use a checkpoint of {', '.join(published)}"
            )
        variant = looks
    if variant not in published:
        raise SegfairError(f"variant must be one of {', '.join(published)}; got {variant!r}")
    with torch.device("meta"):
        sam = import_segment_anything().sam_model_registry[variant]()
    difference = describe_difference(sam.state_dict(), state)
    if difference and looks == variant:
        raise SegfairError(
            f"{file_name}: does not fit {variant}: it looks like one, but {difference}: correct the file"
        )
    if difference:
        raise SegfairError(f"{file_name}: does not fit {variant}: it looks like {looks}: correct `variant` or the file")
    return variant, sam


def describe_difference(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """Name what keeps a state from filling a network; empty where nothing does."""
    parts = []
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    shapes = [key for key in expected if key in state and expected[key].shape != state[key].shape]
    if missing:
        parts.append(f"{missing[0]} and {len(missing) - 1} more are missing")
    if unknown:
        parts.append(f"{unknown[0]} and {len(unknown) - 1} more are unknown")
    if shapes:
        have, want = (tuple(of[shapes[0]].shape) for of in (state, expected))
        parts.append(f"{shapes[0]} and {len(shapes) - 1} more are of another shape ({have} in place of {want})")
    return " and ".join(parts)


def _read_torch(path: Path) -> Any:
    """Read a file of torch.save: tensors and plain values."""
    import pickle

    _refuse_by_first_bytes(path)
    try:
        with warnings.catch_warnings():
            # Remarks on the format, addressed to torch's own authors.
            warnings.simplefilter("ignore", UserWarning)
            # Only files of the zip format can be mapped; torch before 1.6 wrote another.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL |global:? (?=[\w.]+\.))([\w.]+)", str(error))
        if named is None:
            _refuse(path, _DAMAGED, error)
        _refuse(
            path,
            f"it holds {named[1]} beside tensors, which could run code: save the state dict alone in the training code",
            error,
        )
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        _refuse(path, _DAMAGED, error)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        _refuse(path, "it may be damaged or no safetensors file: download it again", error)


def _refuse_by_first_bytes(path: Path) -> None:
    """Name the files that are saved under the name of a checkpoint by mistake."""
    with path.open("rb") as stream:
        first = stream.read(512)
    size = path.stat().st_size
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not first:
        _refuse(path, "it is empty: download it again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        _refuse(path, "it is a web page (an error or a login in place of the file): download it again")
    if text.startswith(b"version https://git-lfs"):
        _refuse(path, "it is a pointer of Git LFS: fetch the file itself with `git lfs pull`")
    if first.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        whole = next((entry.size for entry in CHECKPOINTS.values() if entry.file_name == path.name), None)
        of = "" if whole is None else f" of {whole:,}"
        _refuse(path, f"it is cut short at {size:,}{of} bytes: download it again")


def _refuse(path: Path, reason: str, error: Exception | None = None) -> NoReturn:
    raise SegfairError(f"{path.name}: cannot be read as a checkpoint of tensors, {reason}") from error


def _strip_prefixes(state: dict[str, Any]) -> dict[str, Any]:
    """Take off what wrappers of networks put before every name."""
    while True:
        prefix = next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in state)), None)
        if prefix is None:
            return state
        state = {key.removeprefix(prefix): value for key, value in state.items()}
