"""DICOM: series of images → volumes; segmentations and structure sets → masks of organs.

Headers say what a file is (:mod:`helpers.dicom.headers`); nothing of a person is kept beyond them.
"""

from helpers.dicom.headers import IMAGE, OTHER, DicomHeader, list_files, looks_like_dicom, read_headers
from helpers.dicom.lattice import Lattice
from helpers.dicom.masks import OrganMasks, is_mask, read_masks
from helpers.dicom.series import find_series, read_series
from helpers.dicom.tree import choose_masks, find_scan_mask, hash_name, match_masks, name_series, names_scans
