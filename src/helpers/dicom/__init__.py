"""DICOM: series of images → volumes; segmentations and structure sets → masks of organs.

Headers say what a file is (:mod:`helpers.dicom.headers`); nothing of a person is kept beyond them.
"""

from helpers.dicom.headers import looks_like_dicom
from helpers.dicom.lattice import Lattice
from helpers.dicom.masks import OrganMasks, is_mask, read_masks
from helpers.dicom.series import Series, find_series, read_series

__all__ = [
    "Lattice", "OrganMasks", "Series", "find_series", "is_mask", "looks_like_dicom", "read_masks", "read_series",
]  # fmt: skip
