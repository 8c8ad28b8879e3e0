"""The catalogue of published weights: their source, and whether they are here.

No weights ship with this package except those of ``sam_demo``. The files of SAM, SAM 2.1 and
MedSAM are named with their SHA-256, so that a file is either the published one, byte for byte, or
refused. TotalSegmentator publishes no hash of its archives: theirs is recorded when they first
arrive, and compared ever after (:mod:`helpers.models.archives`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from helpers.errors import SegfairError, suggest
from helpers.storage import hash_file
from helpers.study import choose_checkpoints_folder


@dataclass(frozen=True)
class Checkpoint:
    """A published file of weights."""

    name: str  # what it is called here
    file_name: str  # as published, and as kept in the checkpoints folder
    licence: str
    size: int | None  # bytes; None where its publishers do not state them
    sha256: str | None  # lower-case hex of the whole file; None likewise
    url: str  # the file itself
    page: str  # where its publishers describe it
    folder: str | None = None  # what an archive unpacks to in the checkpoints folder; it is not kept itself


# The digits in SAM's file names begin the files' MD5, not their SHA-256; Zenodo states MedSAM's MD5
# alone (3bb6db55bd0c9ca30b61248bca72f8d6). The SHA-256 below and the sizes are those that
# independent public copies under Git LFS record (Hugging Face: netradrishti/sam, mashb1t/misc;
# MedSAM: dennistrujillo/MedSAMTest); for SAM they are micro_sam's too. MedSAM's authors publish on
# Google Drive, which offers no address to fetch from, and since February 2024 on Zenodo, record
# 10689643 (bowang-lab/MedSAM, issue 208).
def _name_sam(variant: str, md5: str, size: int, sha256: str) -> Checkpoint:
    page = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
    return _name_meta(f"sam_{variant}", f"sam_{variant}_{md5}.pth", size, sha256, "segment_anything", page)


# Meta publishes no hashes of SAM 2.1's files either; sizes and SHA-256 are those that several users
# of the files record independently (micro_sam among them).
def _name_sam2(variant: str, size: int, sha256: str) -> Checkpoint:
    page = "https://github.com/facebookresearch/sam2#sam-21-checkpoints"
    file_name = f"sam2.1_hiera_{variant}.pt"
    return _name_meta(f"sam2_{variant}", file_name, size, sha256, "segment_anything_2/092824", page)


def _name_meta(name: str, file_name: str, size: int, sha256: str, folder: str, page: str) -> Checkpoint:
    url = f"https://dl.fbaipublicfiles.com/{folder}/{file_name}"
    return Checkpoint(name, file_name, "Apache-2.0", size, sha256, url, page)


# By number: the release, and the folder in the archive of its name. A release's files have no hash.
TOTALSEGMENTATOR = {
    291: ("v2.0.0-weights", "Dataset291_TotalSegmentator_part1_organs_1559subj"),
    292: ("v2.0.0-weights", "Dataset292_TotalSegmentator_part2_vertebrae_1532subj"),
    293: ("v2.0.0-weights", "Dataset293_TotalSegmentator_part3_cardiac_1559subj"),
    294: ("v2.0.0-weights", "Dataset294_TotalSegmentator_part4_muscles_1559subj"),
    295: ("v2.0.0-weights", "Dataset295_TotalSegmentator_part5_ribs_1559subj"),
    297: ("v2.0.0-weights", "Dataset297_TotalSegmentator_total_3mm_1559subj"),
    850: ("v2.5.0-weights", "Dataset850_TotalSegMRI_part1_organs_1088subj"),
    851: ("v2.5.0-weights", "Dataset851_TotalSegMRI_part2_muscles_1088subj"),
    852: ("v2.5.0-weights", "Dataset852_TotalSegMRI_total_3mm_1088subj"),
}


def _name_totalsegmentator(number: int, release: str, folder: str) -> Checkpoint:
    return Checkpoint(
        name=f"totalsegmentator_{number}",
        file_name=f"totalsegmentator/{folder}.zip",
        licence="Apache-2.0",
        size=None,
        sha256=None,
        url=f"https://github.com/wasserth/TotalSegmentator/releases/download/{release}/{folder}.zip",
        page="https://github.com/wasserth/TotalSegmentator/releases",
        folder=f"totalsegmentator/{folder}",
    )


CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        _name_sam("vit_b", "01ec64", 375_042_383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
        _name_sam("vit_l", "0b3195", 1_249_524_607, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
        _name_sam("vit_h", "4b8939", 2_564_550_879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
        Checkpoint(
            name="medsam",
            file_name="medsam_vit_b.pth",
            licence="CC-BY-4.0 (weights on Zenodo), Apache-2.0 (code)",
            size=375_049_145,
            sha256="34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
            url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
            page="https://github.com/bowang-lab/MedSAM",
        ),
        _name_sam2("tiny", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
        _name_sam2("small", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
        _name_sam2("base_plus", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
        _name_sam2("large", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
        *(_name_totalsegmentator(number, *where) for number, where in TOTALSEGMENTATOR.items()),
    )
}


def get_checkpoint(name: str) -> Checkpoint:
    """Return the catalogue's entry of a name; a SegfairError where there is none."""
    if name not in CHECKPOINTS:
        raise SegfairError(
            f"checkpoint must be one of {', '.join(CHECKPOINTS)}; got {name!r}{suggest(name, CHECKPOINTS)}"
        )
    return CHECKPOINTS[name]


def locate(name: str) -> Path:
    """Return where a published checkpoint lies or would lie; as :func:`get_checkpoint`."""
    checkpoint = get_checkpoint(name)
    return choose_checkpoints_folder() / (checkpoint.folder or checkpoint.file_name)


def explain_fetching(name: str) -> str:
    """Say how to get a published checkpoint, by command and by hand, as the end of a sentence."""
    checkpoint = get_checkpoint(name)
    size = "" if checkpoint.size is None else f" ({show_size(checkpoint.size)})"
    put = "put it at" if checkpoint.folder is None else "unpack it to"
    return (
        f"run `segfair checkpoints fetch {name}`, or download {checkpoint.url}{size} elsewhere and {put} {locate(name)}"
    )


def summarise_checkpoints() -> dict[str, str]:
    """Return a line per published checkpoint: size, licence, source and whether it is here.

    What is here is told by its size; contents are not read.
    """
    return {
        name: f"{'' if entry.size is None else show_size(entry.size):>7}  {entry.licence}  {entry.url}  "
        f"{_say_presence(locate(name), entry)}"
        for name, entry in CHECKPOINTS.items()
    }


def _say_presence(path: Path, checkpoint: Checkpoint) -> str:
    if checkpoint.folder is not None and path.is_dir():
        return f"at {path}"
    if path.is_file():
        fits = path.stat().st_size == checkpoint.size
        return f"at {path}" if fits else f"damaged or another file at {path}"
    begun = (choose_checkpoints_folder() / f"{checkpoint.file_name}.part").is_file()
    return "begun: fetch it again to go on" if begun else "not here"


def check_published(path: Path, checkpoint: Checkpoint) -> None:
    """Refuse a file that is not, byte for byte, the published one."""
    size = path.stat().st_size
    advice = "delete it or move it away, then fetch it again"
    if checkpoint.size is not None and size != checkpoint.size:
        raise SegfairError(
            f"{path}: has {size:,} bytes where the published {checkpoint.name} has {checkpoint.size:,}: {advice}"
        )
    found = hash_file(path)
    if checkpoint.sha256 is not None and found != checkpoint.sha256:
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
