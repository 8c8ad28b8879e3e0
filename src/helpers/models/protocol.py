"""What a segmenter is given and gives back; a new family implements :class:`Segmenter`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from helpers.parameters import Organ, Windows
from helpers.prompts import Prompts
from helpers.volumes import Grid


@dataclass(frozen=True)
class ScanCase:
    """One scan in the study orientation (axial slices first), without its reference mask.

    Attributes
    ----------
    scan, subject : str
        Ids, for the paths of ready-made masks.
    modality : {"CT", "MR"}
    grid : Grid
        Where the voxels of the axial-oriented arrays lie; its size reversed is their shape (z, y,
        x).
    organ_ids : mapping of str to int
        The study's organs and their ids in a label map, in the study's order.
    prompts : mapping of str to Prompts
        Prompts per organ, empty for models that take none.
    repeats : sequence of mapping of str to Prompts
        Further draws of the same prompts, to be segmented apart.
    image : ndarray or None
        Intensities (z, y, x); None where the scan has no image or the model needs none.
    midline_x_mm : float or None
        Where the reference parts left from right organs (LPS x, mm).
    """

    scan: str
    subject: str
    modality: str
    grid: Grid
    organ_ids: Mapping[str, int]
    prompts: Mapping[str, Prompts] = field(default_factory=dict)
    repeats: Sequence[Mapping[str, Prompts]] = ()
    image: np.ndarray | None = None
    midline_x_mm: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The arrays' shape, (z, y, x)."""
        return self.grid.size[::-1]


@dataclass(frozen=True)
class Segmentation:
    """A segmenter's answer for one scan.

    Attributes
    ----------
    labels : ndarray of uint8, (z, y, x)
        The study's organ ids in the orientation of the case.
    slices : int
        Slices worked on.
    prompts : int
        Prompts used, those of further draws included.
    repeats : sequence of ndarray of uint8, (z, y, x)
        The labels of each further draw.
    encode_seconds, decode_seconds : float
        Spent on images and on prompts; NaN for models that do neither.
    batch : int or None
        Images encoded at a time.
    """

    labels: np.ndarray
    slices: int
    prompts: int
    repeats: Sequence[np.ndarray] = ()
    encode_seconds: float = math.nan
    decode_seconds: float = math.nan
    batch: int | None = None


class Segmenter(Protocol):
    """A loaded model. One is kept per worker process and given scan after scan.

    Attributes
    ----------
    device : str
        Where it runs (``cpu``, ``cuda:0``).
    precision : str
        The arithmetic it uses (``float32``); empty where it computes nothing.
    """

    device: str
    precision: str

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment one scan; a :class:`SegfairError` fails that scan alone."""
        ...


@dataclass(frozen=True)
class Spec:
    """Everything needed to load a segmenter in another process.

    Attributes
    ----------
    name, kind : str
        The model's name in the study, and its kind in the registry.
    organs : mapping of str to Organ
        Where each organ is found in ready-made masks.
    checkpoint : Path or None
        The weights file.
    template : str or None
        Absolute path of ready-made masks, with ``{scan}`` and ``{subject}`` to be filled in.
    variant : str or None
        The architecture within the family.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    threads : int or None
        How many threads the arithmetic may use on the processor; None leaves it as it is.
    precision : str
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    batch : int or None
        Images encoded at a time; None: chosen from free memory.
    windows : Windows
        Grey windows, and which organ is seen in which.
    """

    name: str
    kind: str
    organs: Mapping[str, Organ]
    checkpoint: Path | None = None
    template: str | None = None
    variant: str | None = None
    device: str = "auto"
    threads: int | None = None
    precision: str = "auto"
    batch: int | None = None
    windows: Windows = field(default_factory=Windows)


def merge_scores(scores: Mapping[int, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Merge organs' scores in one slice into labels: a pixel goes to the organ with the highest.

    Parameters
    ----------
    scores : mapping of int to ndarray of float, (y, x)
        Per organ id; a pixel belongs to the organ where its score is above 0. At equal scores the
        organ that comes first keeps it.
    shape : tuple of int
        (y, x) of the slice.

    Returns
    -------
    ndarray of uint8, (y, x)
        0 where no score is above 0.
    """
    labels = np.zeros(shape, np.uint8)
    best = np.zeros(shape, np.float32)
    for organ_id, score in scores.items():
        wins = score > best
        labels[wins] = organ_id
        best[wins] = score[wins]
    return labels
