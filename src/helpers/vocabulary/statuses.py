"""What can become of an organ in a scan, and what that leaves of its measures.

An organ that is not in the reference cannot be segmented well or badly, so nothing is scored. An
organ that the prediction misses altogether overlaps by 0 but has no distance: any number would be
invented. Of two annotators neither is the reference: an organ that only one of them drew is a full
disagreement.
"""

from __future__ import annotations

from dataclasses import dataclass

from helpers.vocabulary.measures import MEASURES

MEASURED = None  # in :data:`EMPTY_CASES`: the measure is what the masks give

# status -> the measures that have a value all the same, and which; every other one is NaN.
EMPTY_CASES: dict[str, dict[str, float | None]] = {
    "reference_empty": {"volume_ref_ml": 0.0, "volume_pred_ml": MEASURED},
    "prediction_empty": {
        "dice": 0.0,
        "iou": 0.0,
        "nsd": 0.0,
        "recall": 0.0,
        "volume_ref_ml": MEASURED,
        "volume_pred_ml": 0.0,
        "volume_error_ml": MEASURED,
        "volume_error_relative": 1.0,
        "surface_ref_cm2": MEASURED,
    },
    "both_empty": {"volume_ref_ml": 0.0, "volume_pred_ml": 0.0},
    "one_empty": {"dice": 0.0, "iou": 0.0, "nsd": 0.0, "volume_error_ml": MEASURED},
}


@dataclass(frozen=True)
class Status:
    """What one status of ``metrics.parquet`` means."""

    key: str
    meaning: str  # what happened
    counts_as: str  # what it counts as in means and gaps
    of_scores: bool | None = False  # of ready-made scores (True), of masks (False), or of both (None)

    def describe(self) -> str:
        """Return both, as tables hold them."""
        return f"{self.meaning}: {self.counts_as}"


def _say_scores(key: str) -> str:
    """Say what an empty mask leaves of the scores, from :data:`EMPTY_CASES`."""
    known = EMPTY_CASES[key]
    fixed: dict[float, list[str]] = {}
    for name, value in known.items():
        if MEASURES[name].is_score and value is not MEASURED:
            fixed.setdefault(value, []).append(MEASURES[name].name)
    if not fixed:
        return "nothing is scored: left out of every mean"
    told = [
        f"{', '.join(names[:-1])} and {names[-1]} are {value:g}" if len(names) > 1 else f"{names[0]} is {value:g}"
        for value, names in fixed.items()
    ]
    return f"{'; '.join(told)}; distances are not defined"


# The statuses in the order in which they are counted and told.
STATUSES: dict[str, Status] = {
    status.key: status
    for status in (
        Status("ok", "the organ has a result", "everything is measured", of_scores=None),
        Status(
            "prediction_empty",
            "the model drew nothing where the expert drew the organ",
            _say_scores("prediction_empty"),
        ),
        Status(
            "reference_empty",
            "the organ is not in the expert's mask, but in the model's",
            _say_scores("reference_empty"),
        ),
        Status("both_empty", "the organ is in neither mask", _say_scores("both_empty")),
        Status(
            "prediction_missing",
            "there is no mask: the model failed on the scan",
            "left out of every mean, never counted as 0",
        ),
        Status(
            "not_drawn",
            "the model does not draw this organ, or was not asked for it",
            "left out of every mean, never counted as 0",
        ),
        Status(
            "no_reference",
            "the scan has no expert's mask, only a proxy",
            "counted where few masks are made the most of, in no other mean",
            of_scores=None,
        ),
        Status("trained_on", "the model was trained on this scan", "left out of every mean"),
        Status("failed", "the masks could not be compared", "left out of every mean, never counted as 0"),
        Status(
            "scored_zero",
            "the model's overlap is 0: it missed the organ",
            "scores of overlap are 0, as given; distances count only where they are given",
            of_scores=True,
        ),
        Status(
            "empty_as_zero",
            "the cell is empty, which this study declares to be a missed organ (empty: zero)",
            "scores of overlap are 0; distances are not defined",
            of_scores=True,
        ),
        Status(
            "score_missing",
            "the model has no score, where another model has one",
            "left out of every mean, never counted as 0",
            of_scores=True,
        ),
        Status(
            "not_scored",
            "no model has a score: the organ is not in the reference, or was not scored",
            "nothing is scored: left out of every mean",
            of_scores=True,
        ),
        Status(
            "zero_unconfirmed",
            "the model has a 0 where no other model has a score: the organ is taken not to be in the reference",
            "nothing is scored: left out of every mean",
            of_scores=True,
        ),
    )
}


# In these the model drew nothing of an organ that the reference has.
MISSED = ("prediction_empty", "scored_zero", "empty_as_zero")
# Why a scan without an expert's mask is not among those studied, where it counts by its proxy.
PROXIED = "no expert's mask: counts by its proxy alone"
# In these the model has no result for an organ that can be scored.
LACKING = ("prediction_missing", "failed", "score_missing")
NOT_DRAWN = "not_drawn"  # such a one too, where the model draws the organ in other scans
# In these the model was not to draw the organ in this scan, or saw it in training.
UNASKED = (NOT_DRAWN, "trained_on")
# In these the organ cannot be scored for any model.
UNSCORED = ("reference_empty", "both_empty", "no_reference", "not_scored", "zero_unconfirmed")


def say_measures(status: str) -> str:
    """Say which measures have a value in a case, and which value where it is by convention."""
    if status in ("ok", "scored_zero"):
        return "all"
    if status == "empty_as_zero":
        return "scores of overlap = 0"
    known = EMPTY_CASES.get(status, {})
    said = [f"{name} = {value:g}" if value is not MEASURED else f"{name} measured" for name, value in known.items()]
    return ", ".join(said) or "none"
