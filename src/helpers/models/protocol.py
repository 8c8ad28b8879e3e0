"""What a segmenter is given and gives back; a new family implements :class:`Segmenter`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from helpers.errors import SegfairError
from helpers.parameters import Organ, Windows
from helpers.prompts import Prompts
from helpers.volumes import Grid


@dataclass(frozen=True)
class ScanCase:
    """One scan in the study orientation (axial slices first), without its reference mask."""

    scan: str
    subject: str  # both ids, for the paths of ready-made masks
    modality: str  # CT or MR
    grid: Grid  # where the voxels of the axial-oriented arrays lie
    organ_ids: Mapping[str, int]  # the study's organs and their ids in a label map, in its order
    prompts: Mapping[str, Prompts] = field(default_factory=dict)  # per organ; empty for models that take none
    repeats: Sequence[Mapping[str, Prompts]] = ()  # further draws of the same prompts, to be segmented apart
    image: np.ndarray | None = None  # intensities (z, y, x); None where there is none or the model needs none
    midline_x_mm: float | None = None  # where the reference parts left from right organs (LPS x)
    number: int = 0  # the scan's own within the study: the one name that other programs are told
    image_path: Path | None = None  # where it lies, whose series DICOM masks name; None where the scan has none
    stored: Grid | None = None  # how the image's own file holds its voxels, before they became axial

    @property
    def shape(self) -> tuple[int, ...]:
        """The arrays' shape, (z, y, x)."""
        return self.grid.size[::-1]


@dataclass(frozen=True)
class Segmentation:
    """A segmenter's answer for one scan; seconds are NaN for models without images or prompts."""

    labels: np.ndarray  # uint8, (z, y, x): the study's organ ids in the orientation of the case
    slices: int  # worked on
    prompts: int  # used, those of further draws included
    repeats: Sequence[np.ndarray] = ()  # the labels of each further draw
    encode_seconds: float = math.nan  # spent on images
    decode_seconds: float = math.nan  # spent on prompts
    batch: int | None = None  # images encoded at a time
    earlier_seconds: float = 0.0  # its share of what one start for all scans took
    # The study's organs that were not drawn, and why (the model does not know them, its mask files
    # lack them): they are no missed organs and are not scored.
    not_drawn: Mapping[str, str] = field(default_factory=dict)
    resampled: bool = False  # whether the masks lay on another grid and were brought to the case's
    # Per organ, the prompts of the first draw that a person would have drawn, where the model was
    # shown fewer than the case holds.
    drawn: Mapping[str, int] = field(default_factory=dict)
    remark: str = ""  # what had to be done otherwise than meant, in a sentence
    # Per organ (z, y, x) uint8, 255 times the probability, where the kind gives them.
    probabilities: Mapping[str, np.ndarray] = field(default_factory=dict)


class Segmenter(Protocol):
    """A loaded model. One is kept per worker process and given scan after scan."""

    device: str  # where it runs (cpu, cuda:0)
    precision: str  # the arithmetic it uses (float32); empty where it computes nothing

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment one scan; a :class:`SegfairError` fails that scan alone."""
        ...


class TogetherSegmenter(Segmenter, Protocol):
    """A model that works on all scans in one go, of which ``segment`` then reads the results."""

    def hand_over(self, case: ScanCase) -> None:
        """Keep what the work needs of one scan; called in worker processes."""
        ...

    def work(self) -> None:
        """Work on all scans handed over; called once, and a failure is told by ``segment``."""
        ...

    def clear(self) -> None:
        """Forget what was handed over, and the results; called before and after."""
        ...


@dataclass(frozen=True)
class Spec:
    """Everything needed to load a segmenter in another process."""

    name: str  # in the study
    kind: str  # in the registry
    organs: Mapping[str, Organ]  # where each is found in the model's own masks; others it does not draw
    checkpoint: Path | None = None  # the weights file
    template: str | None = None  # absolute path of ready-made masks, with {scan} and {subject} to be filled in
    variant: str | None = None  # the architecture within the family
    device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
    threads: int | None = None  # of the arithmetic on the processor; None leaves their number as it is
    precision: str = "auto"  # auto, float32, bfloat16 or float16
    batch: int | None = None  # images encoded at a time; None: chosen from free memory
    windows: Windows = field(default_factory=Windows)  # grey windows, and which organ is seen in which
    mask_series: str | None = None  # what the series of DICOM masks are called, where there are several
    halve: bool = False  # whether fractions in DICOM masks are cut at one half
    resample: bool = False  # whether masks on another grid of the scan are brought to the reference's
    together: bool = False  # whether its segmenter is a :class:`TogetherSegmenter`
    options: Any = None  # what a kind's :class:`Setup` found: frozen, and small enough to be sent
    depends_on: Mapping[str, Any] = field(default_factory=dict)  # beside the scan: masks are made anew where it changes
    want_probabilities: bool = False  # whether a fusion averages them

    @property
    def weights(self) -> Path:
        """The weights file, of a kind that has one: the registry makes no other spec of it."""
        return cast(Path, self.checkpoint)


@dataclass(frozen=True)
class Setup:
    """What a kind makes of its keys in the parameter file, in the process that plans the work."""

    options: Any = None  # for Spec.options
    organs: Mapping[str, Organ] | None = None  # for Spec.organs; None: as the parameter file has them
    depends_on: Mapping[str, Any] = field(default_factory=dict)  # masks are made anew where it changes (JSON)
    notes: tuple[str, ...] = ()  # what had to be assumed and which organs it cannot draw, in sentences
    together: bool = False  # for Spec.together


# What fails a scan of its image, by the kind of fault; `segfair check` says it beforehand.
IMAGE_FAULTS = {
    "image_missing": "this model needs an image and the scan has none: add an `image` column or leave the model out",
    "image_not_finite": ("the image holds values that are not finite: replace them, by the value of air for example"),
    "image_flat": "the image has one value throughout: give the scan's own image",
}


def get_image(case: ScanCase, *, refused: Collection[str] = IMAGE_FAULTS) -> np.ndarray:
    """Return a scan's image, (z, y, x).

    Raises a SegfairError: the scan has none, or one of those `refused`: with values that are no
    numbers, or one value.
    """
    if case.image is None:
        raise SegfairError(IMAGE_FAULTS["image_missing"])
    if "image_not_finite" in refused and not np.isfinite(case.image).all():
        raise SegfairError(IMAGE_FAULTS["image_not_finite"])
    if "image_flat" in refused and case.image.min() == case.image.max():
        raise SegfairError(IMAGE_FAULTS["image_flat"])
    return case.image


def merge_scores(scores: Mapping[int, np.ndarray], shape: tuple[int, ...], *, above: float = 0.0) -> np.ndarray:
    """Merge organs' scores into labels: a voxel goes to the organ with the highest.

    Scores are float, of `shape`, per organ id; labels uint8, of `shape`, 0 where no score is above
    `above`. At equal scores the organ that comes first keeps the voxel.
    """
    labels = np.zeros(shape, np.uint8)
    best = np.full(shape, above, np.float32)
    for organ_id, score in scores.items():
        wins = score > best
        labels[wins] = organ_id
        best[wins] = score[wins]
    return labels
