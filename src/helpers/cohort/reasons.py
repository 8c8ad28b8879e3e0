"""Why a scan is left out, and what else is told of it: kinds and values, and their sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LISTED = "scan_listed"  # its reason is the study's own words
_ASK_FOR_NUMBER = (
    ": write digits alone, without a unit ({unit}), or map the value under cohort.values (segfair check shows it)"
)
_IMPLAUSIBLE = "{name} {value:g} {unit} is outside the plausible {low:g} to {high:g}"
# What scans are counted by, nothing of one person, and what the sentence of one scan adds to it.
_REASONS = {
    "subject_missing": ("subject is missing", ""),
    "scan_missing": ("scan is missing", ""),
    "scan_no_file_name": ("scan name cannot be a file name", ": use letters, digits, - and _"),
    "scan_used_twice": ("scan name is used by more than one row", ": give every scan its own"),
    "modality_unknown": ("modality must be CT or MR", "; got {got}: map it under cohort.values"),
    "reference_missing": ("reference is missing", ": give the path of the expert's mask"),
    "age_unreadable": ("age is not a number", _ASK_FOR_NUMBER),
    "bmi_unreadable": ("bmi is not a number", _ASK_FOR_NUMBER),
    "image_other_grid": ("the image lies on another grid than the reference", " ({differences})"),
    "mask_without_organs": ("the mask holds none of the study's organs", ""),
    "mask_unknown_labels": (
        "the mask holds labels that no organ names",
        " ({labels}): name them in cohort.organs or in cohort.ignore_labels",
    ),
}
# What scans are counted by, and a sentence of its own.
_OTHER_REASONS = {
    "age_implausible": ("age is not plausible", _IMPLAUSIBLE),
    "bmi_implausible": ("bmi is not plausible", _IMPLAUSIBLE),
    LISTED: ("named under cohort.exclusions.scans", "{words}"),
    "reference_no_file": ("there is no such reference", "reference {error}"),
    "reference_unusable": ("the reference cannot be used", "reference {error}"),
    "image_no_file": ("there is no such image", "image {error}"),
    "image_unusable": ("the image cannot be used", "image {error}"),
    "scan_failed": ("its files could not be checked", "{error}"),
}
_NOTES = {
    "value_missing": "{name} is missing",
    "value_unreadable": "{name} is not a number",
    "value_without_group": "{name} is recorded as {value!r}, which is no group of this study",
    "organs_missing": "not in the mask: {organs}",
    "mask_read": "{words}",
}
SENTENCES = {kind: "".join(parts) for kind, parts in _REASONS.items()} | _NOTES
SENTENCES |= {kind: sentence for kind, (_, sentence) in _OTHER_REASONS.items()}
_COUNTED_BY = {kind: told for kind, (told, _) in (_REASONS | _OTHER_REASONS).items()}


@dataclass(frozen=True)
class Finding:
    """Something told of a scan: a kind of :data:`SENTENCES`, and what its sentence names."""

    kind: str
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """All of it, for whoever mends the table."""
        return SENTENCES[self.kind].format_map(self.values)


def join_sentences(found: Sequence[Finding]) -> str:
    """Return the sentences of one scan, each once; the columns ``reason`` and ``note``."""
    return "; ".join(dict.fromkeys(one.sentence for one in found))


def join_kinds(found: Sequence[Finding]) -> str:
    """Return the kinds of one scan's reasons; the column ``kind`` of exclusions.csv."""
    return "; ".join(dict.fromkeys(one.kind for one in found))


def name_kinds(kinds: str) -> str:
    """Return in words what :func:`join_kinds` wrote, without anything of one person."""
    return "; ".join(_COUNTED_BY.get(kind, kind) for kind in kinds.split("; "))
