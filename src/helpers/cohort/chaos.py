"""The CHAOS challenge's layout: a folder per patient, DICOM slices and masks drawn as PNG."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from helpers.errors import SegfairError
from helpers.study import Study

# Per sequence: where its slices and its masks lie in a patient's folder. In-phase and out-of-phase
# T1 are registered and share their masks, so the latter would count each mask twice.
CT = {"": ("DICOM_anon", "Ground")}
MR = {"T1DUAL": ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground"), "T2SPIR": ("T2SPIR/DICOM_anon", "T2SPIR/Ground")}


def read_chaos(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read Train_Sets/CT or Train_Sets/MR: a person per folder, of MR two scans each.

    A row per scan with masks: subject (the patient's folder), scan, modality, sequence, image
    (a folder of DICOM slices), reference (a folder of PNG slices).

    Raises a SegfairError: the folder holds no patient, or both CT and MR, whose masks have other
    codes.
    """
    folder = study.resolve(str(study.parameters.cohort.path))
    if (folder / "CT").is_dir() and (folder / "MR").is_dir():
        raise SegfairError(
            f"{folder}: holds CT and MR: let cohort.path be one of them, for the liver is 255 in masks of CT and 63 in"
            " those of MR"
        )
    patients = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    rows = [
        {
            "subject": patient.name,
            "scan": "_".join(filter(None, (patient.name, sequence))),
            "modality": modality,
            "sequence": sequence or None,
            "image": f"{patient.name}/{image}" if (patient / image).is_dir() else None,
            "reference": f"{patient.name}/{masks}",
        }
        for patient in patients
        for modality, sequences in (("CT", CT), ("MR", MR))
        for sequence, (image, masks) in sequences.items()
        if (patient / masks).is_dir()
    ]
    if not rows:
        raise SegfairError(
            f"{folder}: holds no patient of CHAOS: folders such as 1/Ground (CT) or 1/T2SPIR/Ground (MR) are expected"
        )
    return pd.DataFrame(rows), folder
