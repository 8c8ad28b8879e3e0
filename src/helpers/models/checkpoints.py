"""Published weights of the SAM family: where they come from, fetching and verifying them, reading any such file.

No weights ship with this package except those of ``sam_demo``. The catalogue names the four files a study of SAM
and MedSAM needs, each with its SHA-256, so that a file is either the published one, byte for byte, or refused.
Importing this module does not import torch.
"""

from __future__ import annotations

import difflib
import errno
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from helpers.errors import SegfairError
from helpers.models.torchvision_fix import import_segment_anything
from helpers.storage import hash_file
from helpers.study import choose_checkpoints_folder

if TYPE_CHECKING:
    import torch

# Seconds to wait before each further attempt; the count starts again whenever a megabyte more has arrived.
WAITS_S = (1.0, 2.0, 4.0, 8.0)
# A connection that sends nothing for so long counts as broken.
TIMEOUT_S = 30.0
_PROGRESS_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 18
# Answers of a server that may do better a little later (RFC 9110, sections 15.5 and 15.6; RFC 6585).
_TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})

# Channels of the image encoder, by which the published architectures differ.
_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_PATCH_KERNEL = "image_encoder.patch_embed.proj.weight"
# The beginning of a tensor's name, and the family that names its tensors so.
_RELATIVES = (
    ("image_encoder.layers.", "MobileSAM or LiteMedSAM (a TinyViT encoder)"),
    ("image_encoder.backbone.", "EfficientViT-SAM"),
    ("image_encoder.trunk.", "SAM 2"),
    ("vision_encoder.", "a SAM in the layout of Hugging Face transformers, which names its tensors otherwise"),
    ("patch_embed.", "an image encoder alone, without prompt encoder and mask decoder"),
)
# Where training code keeps the weights beside an optimiser and an epoch, and what wrappers put before each name.
_WRAPPINGS = ("model", "state_dict", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.", "model.", "sam.")


@dataclass(frozen=True)
class Checkpoint:
    """A published file of weights.

    Attributes
    ----------
    name : str
        What it is called here.
    kind, variant : str
        The family (``sam``, ``medsam``) and the architecture of segment-anything.
    file_name : str
        As published, and as kept in the checkpoints folder.
    licence : str
    size : int
        Bytes.
    sha256 : str
        Lower-case hex of the whole file.
    url : str
        The file itself.
    page : str
        Where its publishers describe it.
    """

    name: str
    kind: str
    variant: str
    file_name: str
    licence: str
    size: int
    sha256: str
    url: str
    page: str


# The digits in SAM's file names begin the files' MD5, not their SHA-256; Zenodo states MedSAM's MD5 alone
# (3bb6db55bd0c9ca30b61248bca72f8d6). The SHA-256 below and the sizes are those that independent public copies under
# Git LFS record (Hugging Face: netradrishti/sam, mashb1t/misc; MedSAM: dennistrujillo/MedSAMTest); for SAM they are
# micro_sam's too. MedSAM's authors publish on Google Drive, which offers no address to fetch from, and since
# February 2024 on Zenodo, record 10689643 (bowang-lab/MedSAM, issue 208).
_SAM_PAGE = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
_SAM_FOLDER = "https://dl.fbaipublicfiles.com/segment_anything/"
CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            name="sam_vit_b",
            kind="sam",
            variant="vit_b",
            file_name="sam_vit_b_01ec64.pth",
            licence="Apache-2.0",
            size=375_042_383,
            sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            url=_SAM_FOLDER + "sam_vit_b_01ec64.pth",
            page=_SAM_PAGE,
        ),
        Checkpoint(
            name="sam_vit_l",
            kind="sam",
            variant="vit_l",
            file_name="sam_vit_l_0b3195.pth",
            licence="Apache-2.0",
            size=1_249_524_607,
            sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            url=_SAM_FOLDER + "sam_vit_l_0b3195.pth",
            page=_SAM_PAGE,
        ),
        Checkpoint(
            name="sam_vit_h",
            kind="sam",
            variant="vit_h",
            file_name="sam_vit_h_4b8939.pth",
            licence="Apache-2.0",
            size=2_564_550_879,
            sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            url=_SAM_FOLDER + "sam_vit_h_4b8939.pth",
            page=_SAM_PAGE,
        ),
        Checkpoint(
            name="medsam",
            kind="medsam",
            variant="vit_b",
            file_name="medsam_vit_b.pth",
            licence="CC-BY-4.0 (weights on Zenodo), Apache-2.0 (code)",
            size=375_049_145,
            sha256="34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
            url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
            page="https://github.com/bowang-lab/MedSAM",
        ),
    )
}


def get_checkpoint(name: str) -> Checkpoint:
    """Return the catalogue's entry of a name.

    Raises
    ------
    SegfairError
        There is no such entry.
    """
    if name not in CHECKPOINTS:
        near = difflib.get_close_matches(name, CHECKPOINTS, n=1)
        raise SegfairError(
            f"checkpoint must be one of {', '.join(CHECKPOINTS)}; got {name!r}"
            + (f": did you mean {near[0]}?" if near else "")
        )
    return CHECKPOINTS[name]


def locate(name: str, folder: Path | None = None) -> Path:
    """Return where a published checkpoint lies or would lie.

    Raises
    ------
    SegfairError
        There is no such checkpoint in the catalogue.
    """
    return (folder or choose_checkpoints_folder()) / get_checkpoint(name).file_name


def explain_fetching(name: str, folder: Path | None = None) -> str:
    """Say how to get a published checkpoint, by command and by hand, as the end of a sentence."""
    checkpoint = get_checkpoint(name)
    return (
        f"run `segfair checkpoints fetch {name}`, or download {checkpoint.url} ({_show_size(checkpoint.size)}) "
        f"elsewhere and put it at {locate(name, folder)}"
    )


def list_checkpoints(folder: Path | None = None) -> pd.DataFrame:
    """List the published checkpoints and what of them is here; contents are not read.

    Returns
    -------
    DataFrame
        One row per checkpoint: ``name``, ``kind``, ``variant``, ``licence``, ``size`` (bytes), ``source`` (URL),
        ``present`` (bool), ``path`` (where it lies or would lie) and ``state``: ``missing``, ``part`` (begun),
        ``size fits`` or ``size differs``.
    """
    rows = []
    for name, checkpoint in CHECKPOINTS.items():
        path = locate(name, folder)
        rows.append(
            {
                "name": name,
                "kind": checkpoint.kind,
                "variant": checkpoint.variant,
                "licence": checkpoint.licence,
                "size": checkpoint.size,
                "source": checkpoint.url,
                "present": path.is_file(),
                "path": str(path),
                "state": _judge_by_size(path, checkpoint),
            }
        )
    return pd.DataFrame(rows)


def summarise_checkpoints(folder: Path | None = None) -> dict[str, str]:
    """Return one line of text per published checkpoint: size, licence, source and whether it is here."""
    told = {
        "missing": "not here",
        "part": "begun: fetch it again to go on",
        "size fits": "at {path}",
        "size differs": "damaged or another file at {path}",
    }
    return {
        row.name: f"{_show_size(row.size):>7}  {row.licence}  {row.source}  {told[row.state].format(path=row.path)}"
        for row in list_checkpoints(folder).set_index("name", drop=False).itertuples(index=False)
    }


def verify_checkpoint(name_or_path: str | Path, folder: Path | None = None) -> str:
    """Read a whole file and say what it is.

    Parameters
    ----------
    name_or_path : str or Path
        A name in the catalogue, or any file of weights. A file that is none of the published ones is read as a
        checkpoint and compared with its architecture, tensor by tensor.
    folder : Path, optional
        In place of the checkpoints folder, for names.

    Returns
    -------
    str
        One sentence.

    Raises
    ------
    SegfairError
        It is missing, not what its name promises, or no complete SAM.
    """
    if str(name_or_path) in CHECKPOINTS:
        name = str(name_or_path)
        path = locate(name, folder)
        if not path.is_file():
            raise SegfairError(f"{name}: is not here: {explain_fetching(name, folder)}")
        _check_published(path, get_checkpoint(name))
        return f"{path}: is {name} as published (SHA-256 {get_checkpoint(name).sha256})"
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise SegfairError(
            f"{name_or_path}: is neither a file nor one of {', '.join(CHECKPOINTS)}: correct the name or the path"
        )
    found = hash_file(path)
    for name, checkpoint in CHECKPOINTS.items():
        if found == checkpoint.sha256:
            return f"{path}: is {name} as published (SHA-256 {found})"
        if path.name == checkpoint.file_name:
            _check_published(path, checkpoint)
    variant = _recognise_variant(load_state(path), path.name, None)[0]
    return f"{path}: is a complete {variant}, none of the published files (SHA-256 {found})"


def fetch_checkpoint(name: str, folder: Path | None = None, url: str | None = None, progress: bool = True) -> Path:
    """Download a published checkpoint unless it is here already, and verify it.

    The file arrives under ``<file>.part`` and gets its name once its length and its SHA-256 are those published.
    An interrupted download is continued where it broke off, by this call for a few attempts and by any later
    one: the part stays, with the server's validator beside it, so that a file that changed in between is begun
    anew (RFC 9110, sections 13.1.5 and 14.2). Processes that fetch the same file take turns.

    Parameters
    ----------
    name : str
        A name in the catalogue.
    folder : Path, optional
        In place of the checkpoints folder.
    url : str, optional
        Another source of the same bytes, such as a mirror in the own network.
    progress : bool
        Show a bar on the standard error.

    Returns
    -------
    Path
        The verified file.

    Raises
    ------
    SegfairError
        One sentence on what hinders it and what to do: no network, an address without the file, too little space,
        a folder that cannot be written, bytes that are not the published ones.
    """
    checkpoint = get_checkpoint(name)
    target = locate(name, folder)
    source = url or checkpoint.url
    if urlsplit(source).scheme not in ("http", "https") or not urlsplit(source).hostname:
        raise SegfairError(f"url must begin with http:// or https:// and name a server; got {source!r}")
    with _take_turn(target, name, progress):
        if target.exists():
            _check_published(target, checkpoint)
        else:
            _Download(checkpoint, source, target).run(progress)
    return target


class _Download:
    """One file on its way to its place, in as many requests as it takes."""

    def __init__(self, checkpoint: Checkpoint, url: str, target: Path) -> None:
        self.checkpoint = checkpoint
        self.url = url
        self.target = target
        self.part = target.with_name(target.name + ".part")
        # What the server said of the file the part belongs to; without it the part is not continued.
        self.note = target.with_name(target.name + ".part.json")
        self.reached = False

    def run(self, progress: bool) -> None:
        """Request the file until it is whole, verify it and put it in its place."""
        missing = self.checkpoint.size - self._count_kept()[0]
        free = shutil.disk_usage(self.target.parent).free
        if free < missing:
            raise SegfairError(
                f"{self.checkpoint.name}: {_show_size(missing)} are still to come and {self.target.parent} has "
                f"{_show_size(free)} free: free some space or set SEGFAIR_CHECKPOINTS to another folder"
            )
        with tqdm(
            total=self.checkpoint.size,
            desc=self.checkpoint.name,
            unit="B",
            unit_scale=True,
            ncols=100,
            disable=not progress,
        ) as bar:
            self._request_until_whole(bar)
        found = hash_file(self.part)
        if found != self.checkpoint.sha256:
            self._discard()
            raise SegfairError(
                f"{self.checkpoint.name}: what {self.url} sent is not the published file (SHA-256 {found[:12]}… "
                f"in place of {self.checkpoint.sha256[:12]}…) and was removed: run the same command again, or see "
                f"{self.checkpoint.page}"
            )
        with _explain_disk(self.target):
            self.part.replace(self.target)
            self.note.unlink(missing_ok=True)

    def _request_until_whole(self, bar: tqdm) -> None:
        """Continue after interruptions; those in a row without a megabyte gained are counted."""
        failures, furthest = 0, self._count_kept()[0]
        while True:
            try:
                self._request(bar)
                return
            except (OSError, http.client.HTTPException) as error:
                self._refuse_permanent(error)
                reason = _name_reason(error)
            kept = self._count_kept()[0]
            if kept >= furthest + _PROGRESS_BYTES:
                failures, furthest = 0, kept
            if failures == len(WAITS_S):
                raise SegfairError(
                    f"{self.checkpoint.name}: {urlsplit(self.url).hostname} failed {failures + 1} times in a row "
                    f"({reason}); {_show_size(kept)} of {_show_size(self.checkpoint.size)} are kept: run the same "
                    "command again to go on"
                )
            bar.set_postfix_str(f"{reason}: trying again", refresh=True)
            time.sleep(WAITS_S[failures])
            failures += 1

    def _request(self, bar: tqdm) -> None:
        """Ask for what is missing and append it; raise OSError or HTTPException where the connection breaks."""
        kept, validator = self._count_kept()
        bar.n = kept
        bar.refresh()
        if kept == self.checkpoint.size:
            return
        # Compressed on the way, the ranges would be those of other bytes.
        request = Request(self.url, headers={"User-Agent": "segfair", "Accept-Encoding": "identity"})
        if kept:
            request.add_header("Range", f"bytes={kept}-")
            if validator:
                request.add_header("If-Range", validator)
        with urlopen(request, timeout=TIMEOUT_S) as response:
            self.reached = True
            start = self._check_answer(response, kept)
            bar.n = start
            with _explain_disk(self.target), self.part.open("ab", buffering=0) as stream:
                bar.set_postfix_str("", refresh=True)
                self._receive(response, stream, start, bar)

    def _check_answer(self, response: http.client.HTTPResponse, kept: int) -> int:
        """Return the byte at which the answer begins: `kept`, or 0 where the whole file comes again."""
        headers = response.headers
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            if match is None or int(match[1]) != kept or match[2] not in ("*", str(self.checkpoint.size)):
                self._discard()
                raise ConnectionError("the answer does not continue the part")
            return kept
        if headers.get_content_type() == "text/html":
            raise SegfairError(
                f"{self.checkpoint.name}: {self.url} answers with a web page, not a file (a login, perhaps): "
                f"open it in a browser and put the file at {self.target}, or name another source with --url"
            )
        length = headers.get("Content-Length")
        if length is not None and int(length) != self.checkpoint.size:
            raise SegfairError(
                f"{self.checkpoint.name}: {self.url} offers {int(length):,} bytes where the published file has "
                f"{self.checkpoint.size:,}: it is another file; see {self.checkpoint.page} or name another source with --url"
            )
        validator = headers.get("ETag", "")
        if not validator.startswith('"'):
            # A weak validator may not be used with ranges (RFC 9110, section 13.1.5).
            validator = headers.get("Last-Modified", "")
        with _explain_disk(self.target):
            # The note first: a part is never older than what is said of it.
            self.part.unlink(missing_ok=True)
            self.note.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")
        return 0

    def _receive(self, response: http.client.HTTPResponse, stream: Any, start: int, bar: tqdm) -> None:
        """Append the body to the part."""
        received = start
        # read1 gives what is there, so that little is lost when the connection breaks.
        while True:
            try:
                block = response.read1(_BLOCK_BYTES)
            except OSError as error:
                raise ConnectionError(_name_reason(error)) from error
            if not block:
                break
            received += len(block)
            if received > self.checkpoint.size:
                self._discard()
                raise SegfairError(
                    f"{self.checkpoint.name}: {self.url} sends more than the {self.checkpoint.size:,} bytes of the "
                    "published file; what came was removed: name another source with --url"
                )
            view = memoryview(block)
            while view:
                view = view[stream.write(view) :]
            bar.update(len(block))
        # http.client ends a body that is too short like a whole one.
        if received < self.checkpoint.size:
            raise ConnectionError("the connection was closed early")
        os.fsync(stream.fileno())

    def _refuse_permanent(self, error: OSError | http.client.HTTPException) -> None:
        """Raise at once where another attempt would end alike."""
        checkpoint, host = self.checkpoint, urlsplit(self.url).hostname
        by_hand = f"download {self.url} ({_show_size(checkpoint.size)}) elsewhere and put it at {self.target}"
        if isinstance(error, HTTPError):
            error.close()
            self.reached = True
            if error.code == 416:
                # The part reaches past the file that is there now.
                self._discard()
            elif error.code not in _TEMPORARY_STATUS:
                raise SegfairError(
                    f"{checkpoint.name}: {host} answers HTTP {error.code} ({error.reason}) for {self.url}: see "
                    f"{checkpoint.page} for its place now and name it with --url, or put the file at {self.target}"
                ) from error
            return
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise SegfairError(
                f"{checkpoint.name}: the certificate of {host} cannot be verified ({cause.verify_message}): set "
                f"SSL_CERT_FILE to the certificates of your network, or {by_hand}"
            ) from error
        unreachable = isinstance(cause, socket.gaierror) or getattr(cause, "errno", None) in _UNREACHABLE
        if unreachable and not self.reached:
            raise SegfairError(
                f"{checkpoint.name}: {host} cannot be reached ({_name_reason(error)}): check the network and run "
                f"the same command again, or {by_hand}"
            ) from error

    def _count_kept(self) -> tuple[int, str]:
        """Return how many bytes of the part can be continued, and the validator of the file they belong to."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            size = self.part.stat().st_size
        except (OSError, ValueError):
            return 0, ""
        if not isinstance(note, dict) or note.get("url") != self.url or size > self.checkpoint.size:
            return 0, ""
        return size, str(note.get("validator", ""))

    def _discard(self) -> None:
        with _explain_disk(self.target):
            self.part.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a file: tensors only, no code is run.

    Files of torch (mapped into memory where their format allows it, so that processes share them) and, by their
    suffix, safetensors. The usual wrappings of fine-tuned weights are taken off: an outer ``model``,
    ``state_dict`` or ``model_state_dict`` beside optimiser and epoch, and a prefix that every name bears
    (``module.``, ``_orig_mod.``, ``model.``, ``sam.``).

    Returns
    -------
    dict of str to Tensor
        On the processor, of the file's own precision.

    Raises
    ------
    SegfairError
        The file is missing, damaged, something else, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise SegfairError(f"{path}: there is no such file: correct the path or download the checkpoint")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    import torch

    for _ in range(2):  # a file of Lightning may hold a state_dict in which training code put a model
        if isinstance(content, dict):
            content = next((content[key] for key in _WRAPPINGS if isinstance(content.get(key), dict)), content)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())
    ):
        raise SegfairError(f"{path.name}: must hold a state dict of tensors, as segment-anything's own files do")
    return _strip_prefixes(content)


def build_sam_from_checkpoint(path: Path, variant: str | None = None) -> torch.nn.Module:
    """Build a published architecture of SAM with the weights of a file, every name and shape as expected.

    The network is built without memory or random numbers and takes the file's tensors as its own; other
    precisions become float32.

    Parameters
    ----------
    path : Path
        What :func:`load_state` reads.
    variant : {'vit_b', 'vit_l', 'vit_h'}, optional
        The architecture; recognised from the file where it is left out.

    Returns
    -------
    segment_anything.modeling.Sam
        On the processor, float32, in eval mode.

    Raises
    ------
    SegfairError
        The file cannot be read, is of another architecture (the message says which it looks like), or holds
        weights that are not finite.
    """
    import torch

    path = Path(path)
    state = load_state(path)
    variant, sam = _recognise_variant(state, path.name, variant)
    state = {key: value.to(torch.float32) for key, value in state.items()}
    for key, value in state.items():
        if not torch.isfinite(value.sum()):
            raise SegfairError(f"{path.name}: {key} holds values that are not finite: use another checkpoint")
    sam.load_state_dict(state, strict=True, assign=True)
    return sam.eval()


def describe_architecture(state: dict[str, torch.Tensor]) -> str:
    """Say which architecture a state dict looks like: ``vit_b``, ``vit_l``, ``vit_h``, a relative, or ``no SAM``.

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
    """Return the architecture of a state and an empty network of it; refuse a state that does not fill it."""
    import torch

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
    difference = _describe_difference(sam.state_dict(), state)
    if difference and looks == variant:
        raise SegfairError(
            f"{file_name}: does not fit {variant}: it looks like one, but {difference}: correct the file"
        )
    if difference:
        raise SegfairError(f"{file_name}: does not fit {variant}: it looks like {looks}: correct `variant` or the file")
    return variant, sam


def _describe_difference(expected: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> str:
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
    """Read a file of torch.save, whatever it holds of tensors and plain values."""
    import pickle

    import torch

    _refuse_by_first_bytes(path)
    try:
        with warnings.catch_warnings():
            # Remarks on the format, addressed to torch's own authors.
            warnings.simplefilter("ignore", UserWarning)
            # Only files of the zip format can be mapped; torch before 1.6 wrote another.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global:?) ([\w.]+\.[\w.]+)", str(error))
        if named is None:
            _refuse(path, "it may be damaged or of another format: download it again", error)
        _refuse(
            path,
            f"it holds {named[1]} beside tensors, which could run code: save the state dict alone in the training code",
            error,
        )
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        _refuse(path, "it may be damaged or of another format: download it again", error)


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


def _judge_by_size(path: Path, checkpoint: Checkpoint) -> str:
    if path.is_file():
        return "size fits" if path.stat().st_size == checkpoint.size else "size differs"
    return "part" if path.with_name(path.name + ".part").is_file() else "missing"


def _check_published(path: Path, checkpoint: Checkpoint) -> None:
    """Refuse a file that is not, byte for byte, the published one."""
    size = path.stat().st_size
    advice = "delete it or move it away, then fetch it again"
    if size != checkpoint.size:
        raise SegfairError(
            f"{path}: has {size:,} bytes where the published {checkpoint.name} has {checkpoint.size:,}: {advice}"
        )
    found = hash_file(path)
    if found != checkpoint.sha256:
        raise SegfairError(
            f"{path}: is not the published {checkpoint.name} (SHA-256 {found[:12]}… in place of "
            f"{checkpoint.sha256[:12]}…): {advice}"
        )


@contextmanager
def _take_turn(target: Path, name: str, progress: bool) -> Iterator[None]:
    """Hold the lock of a file, after whoever holds it now."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with _explain_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if progress:
                tqdm.write(f"{name}: another process is fetching it: waiting", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explain_disk(target: Path) -> Iterator[None]:
    """Turn a disk that is full or cannot be written into a sentence; a broken connection passes."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        advice = "set SEGFAIR_CHECKPOINTS to another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SegfairError(
                f"{target}: the disk is full: free some space and run the same command again; what came so far is "
                f"kept; or {advice}"
            ) from error
        raise SegfairError(
            f"{target.parent}: cannot be written ({error.strerror}): change its permissions or {advice}"
        ) from error


def _name_reason(error: BaseException) -> str:
    """Return the plain words of an error of the network."""
    cause = getattr(error, "reason", error)
    if isinstance(error, HTTPError):
        return f"HTTP {error.code}"
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)


def _show_size(size: float) -> str:
    """Return bytes in the largest fitting decimal unit."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{int(size)} B"
