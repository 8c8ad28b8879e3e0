"""Why a scan is left out, and what else is told of it: kinds and values, and their sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from helpers.errors import shorten
from helpers.vocabulary.statuses import PROXIED

MISPLACED = "organ_misplaced"
LISTED = "scan_listed"  # its reason is the study's own words
_UNREADABLE = (
    "{name} is not a number: write digits alone, without a unit ({unit}), or map the value under cohort.values "
    "(segfair check shows it)"
)
_IMPLAUSIBLE = "{name} {value:g} {unit} is outside the plausible {low:g} to {high:g}"
# The sentence of each kind, and what scans are counted by: nothing of one person.
_REASONS = {
    "subject_missing": ("subject is missing", "subject is missing"),
    "scan_missing": ("scan is missing", "scan is missing"),
    "scan_no_file_name": (
        "scan name cannot be a file name: use up to 200 letters, digits, - and _ (200 bytes with letters beyond A to "
        "Z), without a slash, a backslash or a line break, and no dot in front",
        "scan name cannot be a file name",
    ),
    "scan_used_twice": (
        "scan name is used by more than one row: give every scan its own",
        "scan name is used by more than one row",
    ),
    "modality_unknown": (
        "modality must be CT or MR; got {got}: map it under cohort.values",
        "modality must be CT or MR",
    ),
    "reference_missing": ("reference is missing: give the path of the expert's mask", "reference is missing"),
    "age_unreadable": (_UNREADABLE, "age is not a number"),
    "bmi_unreadable": (_UNREADABLE, "bmi is not a number"),
    "age_implausible": (_IMPLAUSIBLE, "age is not plausible"),
    "bmi_implausible": (_IMPLAUSIBLE, "bmi is not plausible"),
    "reference_proxied": (PROXIED,) * 2,
    "scores_missing": ("no model has a score for this scan",) * 2,
    "scores_empty": ("every score of this scan is empty",) * 2,
    LISTED: ("{words}", "named under cohort.exclusions.scans"),
    "reference_no_file": ("reference {error}", "there is no such reference"),
    "reference_unusable": ("reference {error}", "the reference cannot be used"),
    "image_no_file": ("image {error}", "there is no such image"),
    "image_unusable": ("image {error}", "the image cannot be used"),
    "image_other_grid": (
        "the image is not on the reference's grid ({differences})",
        "the image is not on the reference's grid",
    ),
    "image_elsewhere": ("{error}", "the reference lies elsewhere than its image"),
    "mask_without_organs": ("the mask holds none of the study's organs",) * 2,
    "mask_unknown_labels": (
        "the mask holds labels that no organ names ({labels}): name them in cohort.organs or in cohort.ignore_labels",
        "the mask holds labels that no organ names",
    ),
    "dicom_no_mask": ("no DICOM mask was drawn on this series",) * 2,
    "dicom_several_masks": (
        "{number} DICOM masks were drawn on this series: choose one by cohort.mask_series (its description)",
        "several DICOM masks were drawn on the series",
    ),
    "dicom_no_series": (
        "the series that this DICOM mask was drawn on is not in the folder, or it does not say which it is",
        "the series that a DICOM mask was drawn on is not there",
    ),
    "dicom_scattered": (
        "the slices of this series lie in several folders, among those of other series: put them into one folder",
        "the slices of the series lie in several folders",
    ),
    "scan_failed": ("{error}", "its files could not be checked"),
}
# What is said of an image's grey values, of one scan and of several.
GREY_FAULTS = {
    "image_flat": "the image is of one grey throughout",
    "image_not_finite": "the image holds values that are no numbers (NaN or infinity)",
    "image_not_hounsfield": "the image is called CT and is not in Hounsfield units (air −1000, water 0)",
}
_NOTES = {
    "value_missing": "{name} is missing",
    "value_unreadable": "{name} is not a number",
    "value_without_group": "{name} is recorded as {value}, which is no group of this study",
    "organs_missing": "not in the mask: {organs}",
    "mask_read": "{words}",
    "reference_resampled": "the reference was not on its image's grid: resampled by nearest neighbours",
    MISPLACED: "{organ} lies on the person's {side}, where {organs} do not lie",
    **GREY_FAULTS,
}
SENTENCES = {kind: sentence for kind, (sentence, _) in _REASONS.items()} | _NOTES


@dataclass(frozen=True)
class Finding:
    """Something told of a scan: a kind of :data:`SENTENCES`, and what its sentence names."""

    kind: str
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """All of it, for whoever mends the table."""
        return shorten(SENTENCES[self.kind].format_map(self.values))


def join_sentences(found: Sequence[Finding]) -> str:
    """Return the sentences of one scan, each once; the columns ``reason`` and ``note``."""
    return "; ".join(dict.fromkeys(one.sentence for one in found))


def join_kinds(found: Sequence[Finding]) -> str:
    """Return the kinds of one scan's reasons; the column ``kind`` of exclusions.csv."""
    return "; ".join(dict.fromkeys(one.kind for one in found))


def name_kinds(kinds: str) -> str:
    """Return in words what :func:`join_kinds` wrote, without anything of one person."""
    return "; ".join(_REASONS.get(kind, ("", kind))[1] for kind in kinds.split("; "))
