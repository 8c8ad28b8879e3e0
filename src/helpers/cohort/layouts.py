"""Data sets of one image file and one label map per scan, each told by where it keeps them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.errors import SegfairError
from helpers.study import Study
from helpers.volumes import SUFFIXES

_SUFFIX = "(?:" + "|".join(map(re.escape, SUFFIXES)) + ")"


@dataclass(frozen=True)
class Layout:
    """Folders of images and label maps; ``{id}`` in names stands for what tells scans apart.

    Such a data set says nothing of its people: every scan is a person's of its own.
    """

    name: str
    folders: tuple[tuple[str, str], ...]  # images, labels; one pair or several
    image: str  # names without suffix
    label: str
    scan: str
    modality: str = "CT"

    def read(self, study: Study) -> tuple[pd.DataFrame, Path]:
        """Read the scans of all folders that have labels.

        A row per scan: subject, modality, image, reference; also where one of the files is
        not there.

        Raises a SegfairError: there is no scan.
        """
        folder = study.resolve(str(study.parameters.cohort.path))
        rows = [row for images, labels in self.folders for row in self._list_scans(folder, images, labels)]
        if not rows:
            example = f"{self.folders[0][1]}/{self.label.format(id='…')}.nii.gz"
            raise SegfairError(f"{folder}: holds no scan of {self.name}: {example} and so on is expected")
        return pd.DataFrame(rows), folder

    def _list_scans(self, folder: Path, images: str, labels: str) -> list[dict[str, str | None]]:
        drawn = _list_files(folder, labels, self.label)
        scans = _list_files(folder, images, self.image) if drawn else {}
        return [
            {
                "subject": self.scan.format(id=key),
                "modality": self.modality,
                "image": scans.get(key),
                "reference": drawn.get(key, f"{labels}/{self.label.format(id=key)}.nii.gz"),
            }
            for key in sorted({*drawn, *scans})
        ]


def _list_files(folder: Path, part: str, name: str) -> dict[str, str]:
    """Return a part's files by what stands for ``{id}`` in their names, relative to `folder`."""
    if not (folder / part).is_dir():
        return {}
    pattern = re.compile(re.escape(name).replace(r"\{id\}", r"(\w[\w.-]*?)") + _SUFFIX, re.IGNORECASE)
    found = {file.name: pattern.fullmatch(file.name) for file in (folder / part).iterdir()}
    return {match.group(1): f"{part}/{file}" for file, match in found.items() if match}


# The layouts as the archives unpack (zenodo.org/records/7860267, synapse.org syn3193805,
# github.com/HiLab-git/WORD), and FLARE22's under nnU-Net's names.
FLARE = Layout("FLARE22", (("images", "labels"), ("imagesTr", "labelsTr")), "{id}_0000", "{id}", "{id}")
BTCV = Layout("BTCV", (("Training/img", "Training/label"), ("img", "label")), "img{id}", "label{id}", "img{id}")
WORD = Layout(
    "WORD",
    (("imagesTr", "labelsTr"), ("imagesVal", "labelsVal"), ("imagesTs", "labelsTs")),
    "word_{id}",
    "word_{id}",
    "word_{id}",
)
