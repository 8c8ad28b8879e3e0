"""The catalogue of published weights of the SAM family: their source, and whether they are here.

No weights ship with this package except those of ``sam_demo``. The catalogue names the four files a
study of SAM and MedSAM needs, each with its SHA-256, so that a file is either the published one,
byte for byte, or refused.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.errors import SegfairError
from helpers.storage import hash_file
from helpers.study import choose_checkpoints_folder


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


# The digits in SAM's file names begin the files' MD5, not their SHA-256; Zenodo states MedSAM's MD5
# alone (3bb6db55bd0c9ca30b61248bca72f8d6). The SHA-256 below and the sizes are those that
# independent public copies under Git LFS record (Hugging Face: netradrishti/sam, mashb1t/misc;
# MedSAM: dennistrujillo/MedSAMTest); for SAM they are micro_sam's too. MedSAM's authors publish on
# Google Drive, which offers no address to fetch from, and since February 2024 on Zenodo, record
# 10689643 (bowang-lab/MedSAM, issue 208).
def _name_sam(variant: str, file_name: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(
        name=f"sam_{variant}",
        kind="sam",
        variant=variant,
        file_name=file_name,
        licence="Apache-2.0",
        size=size,
        sha256=sha256,
        url=f"https://dl.fbaipublicfiles.com/segment_anything/{file_name}",
        page="https://github.com/facebookresearch/segment-anything#model-checkpoints",
    )


CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        _name_sam(
            "vit_b",
            "sam_vit_b_01ec64.pth",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        _name_sam(
            "vit_l",
            "sam_vit_l_0b3195.pth",
            1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        _name_sam(
            "vit_h",
            "sam_vit_h_4b8939.pth",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
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
        f"run `segfair checkpoints fetch {name}`, or download {checkpoint.url} ({show_size(checkpoint.size)}) "
        f"elsewhere and put it at {locate(name, folder)}"
    )


def list_checkpoints(folder: Path | None = None) -> pd.DataFrame:
    """List the published checkpoints and what of them is here; contents are not read.

    Returns
    -------
    DataFrame
        One row per checkpoint: ``name``, ``kind``, ``variant``, ``licence``, ``size`` (bytes),
        ``source`` (URL), ``present`` (bool), ``path`` (where it lies or would lie) and ``state``:
        ``missing``, ``part`` (begun), ``size fits`` or ``size differs``.
    """
    paths = {name: locate(name, folder) for name in CHECKPOINTS}
    rows = [
        {
            **{key: getattr(checkpoint, key) for key in ("name", "kind", "variant", "licence", "size")},
            "source": checkpoint.url,
            "present": paths[name].is_file(),
            "path": str(paths[name]),
            "state": _judge_by_size(paths[name], checkpoint),
        }
        for name, checkpoint in CHECKPOINTS.items()
    ]
    return pd.DataFrame(rows)


def summarise_checkpoints(folder: Path | None = None) -> dict[str, str]:
    """Return a line per published checkpoint: size, licence, source and whether it is here."""
    told = {
        "missing": "not here",
        "part": "begun: fetch it again to go on",
        "size fits": "at {path}",
        "size differs": "damaged or another file at {path}",
    }
    return {
        row.name: f"{show_size(row.size):>7}  {row.licence}  {row.source}  {told[row.state].format(path=row.path)}"
        for row in list_checkpoints(folder).set_index("name", drop=False).itertuples(index=False)
    }


def _judge_by_size(path: Path, checkpoint: Checkpoint) -> str:
    if path.is_file():
        return "size fits" if path.stat().st_size == checkpoint.size else "size differs"
    return "part" if path.with_name(path.name + ".part").is_file() else "missing"


def check_published(path: Path, checkpoint: Checkpoint) -> None:
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


def show_size(size: float) -> str:
    """Return bytes in the largest fitting decimal unit."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{int(size)} B"
