"""What is measured of a predicted mask: one record per measure, from which everything else derives.

Names, units, directions, bounds and default margins are told here alone. To add a measure, add its
record to :data:`MEASURES` and its value to :func:`helpers.metrics.compare_masks`. A study of
ready-made scores may declare measures of its own, known while that study is worked on
(:func:`use_measures`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from helpers.errors import SegfairError


@dataclass(frozen=True)
class Measure:
    """A number per scan, model and organ."""

    key: str  # its column in ``metrics.parquet``
    name: str  # what it is called within a sentence
    long_name: str  # what it is called at the head of an axis or a table
    meaning: str  # its entry in the glossary; ``{tolerance}`` is the study's surface tolerance
    unit: str = ""  # empty for ratios
    # None for sizes of the organ, which are neither good nor bad and never compared as scores.
    higher_is_better: bool | None = None
    bounds: tuple[float, float] = (0.0, math.inf)  # the lowest and the highest value there can be
    symmetric: bool = False  # whether it is the same whichever of two masks is called the reference
    # Whether 0 is best and the sign tells the way; groups are compared by absolute value.
    signed: bool = False
    family: str = "overlap"  # "overlap", "boundary" or "volume", as in Metrics Reloaded
    # The largest difference between groups considered unimportant. A measure that has one is
    # compared unless the study says otherwise.
    default_margin: float | None = None
    aliases: tuple[str, ...] = ()  # what other tables call it, in small letters and digits alone

    @property
    def is_score(self) -> bool:
        """Whether groups can be compared by it."""
        return self.higher_is_better is not None

    @property
    def is_bounded(self) -> bool:
        """Whether it lies between two finite bounds, as Dice does."""
        return math.isfinite(self.bounds[0]) and math.isfinite(self.bounds[1])

    @property
    def sign(self) -> float:
        """+1 where higher is better, −1 where lower is."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def worst(self) -> float:
        """The worst value that there can be: infinite for distances."""
        return self.bounds[0] if self.higher_is_better else self.bounds[1]

    @property
    def worse(self) -> str:
        """What a worse group's value is: ``lower`` or ``higher``."""
        return "lower" if self.higher_is_better else "higher"

    @property
    def scale(self) -> str:
        """The unit, or the range of a bounded ratio."""
        return self.unit or (f"{self.bounds[0]:g}–{self.bounds[1]:g}" if self.is_bounded else "ratio")

    @property
    def remark(self) -> str:
        """The scale and, of a score, the direction: ``0–1, higher is better``."""
        return f"{self.scale}, {self.say_best()}" if self.is_score else self.scale

    @property
    def label(self) -> str:
        """The title of an axis: name, scale and, of a score, direction."""
        return f"{self.long_name} ({self.remark})"

    def say_best(self, best: str = "is better") -> str:
        """Return which way is better: ``higher is better``, ``lower is better``, ``0 is best``."""
        if self.signed:
            return f"0 {best.replace('better', 'best')}"
        return f"{'higher' if self.higher_is_better else 'lower'} {best}"


_UNIT_INTERVAL = (0.0, 1.0)

MEASURES: dict[str, Measure] = {
    measure.key: measure
    for measure in (
        Measure(
            "dice",
            "Dice",
            "Dice",
            "How much two masks overlap: 1 is identical, 0 is no overlap. Dice = 2 × both ÷ "
            "(expert + model). Small organs score lower under the same error.",
            higher_is_better=True,
            bounds=_UNIT_INTERVAL,
            symmetric=True,
            default_margin=0.02,
            aliases=("dsc", "dicescore", "dicecoefficient", "dicesimilaritycoefficient", "f1"),
        ),
        Measure(
            "iou",
            "IoU",
            "IoU",
            "Intersection over union, another way to state overlap: both ÷ either. IoU = Dice ÷ (2 − Dice).",
            higher_is_better=True,
            bounds=_UNIT_INTERVAL,
            symmetric=True,
            aliases=("jaccard", "jaccardindex", "intersectionoverunion"),
        ),
        Measure(
            "nsd",
            "surface Dice (NSD)",
            "Surface Dice, NSD",
            "The share of the two outlines that lies within a tolerance of the other: here {tolerance}. 1 is best.",
            higher_is_better=True,
            bounds=_UNIT_INTERVAL,
            symmetric=True,
            family="boundary",
            default_margin=0.02,
            aliases=(
                "surfacedice",
                "normalisedsurfacedice",
                "normalizedsurfacedice",
                "normalisedsurfacedistance",
                "normalizedsurfacedistance",
            ),
        ),
        Measure(
            "hd95_mm",
            "95 % Hausdorff distance",
            "95 % Hausdorff distance",
            "From 95 of 100 places of the outlines the other one is no further away than this (HD95). "
            "It tells of the worst places.",
            "mm",
            higher_is_better=False,
            symmetric=True,
            family="boundary",
            default_margin=1.0,
            aliases=("hd95", "hausdorff95", "95hd", "hausdorffdistance95"),
        ),
        Measure(
            "assd_mm",
            "average surface distance",
            "Average surface distance",
            "How far apart the outlines are, averaged over all their places (ASSD).",
            "mm",
            higher_is_better=False,
            symmetric=True,
            family="boundary",
            aliases=("assd", "averagesymmetricsurfacedistance"),
        ),
        Measure(
            "precision",
            "precision",
            "Precision",
            "The share of the model's mask that the expert drew too.",
            higher_is_better=True,
            bounds=_UNIT_INTERVAL,
            aliases=("ppv", "positivepredictivevalue"),
        ),
        Measure(
            "recall",
            "recall",
            "Recall",
            "The share of the expert's mask that the model found.",
            higher_is_better=True,
            bounds=_UNIT_INTERVAL,
            aliases=("sensitivity", "tpr"),
        ),
        Measure(
            "volume_ref_ml",
            "reference volume",
            "Reference volume",
            "The volume of the expert's mask.",
            "ml",
            family="volume",
            aliases=("volumeml", "referencevolumeml", "gtvolumeml"),
        ),
        Measure(
            "volume_pred_ml",
            "predicted volume",
            "Predicted volume",
            "The volume of the model's mask.",
            "ml",
            family="volume",
            aliases=("predictedvolumeml", "predvolumeml"),
        ),
        Measure(
            "volume_error_ml",
            "volume error",
            "Volume error",
            "The model's volume less the expert's. Where people are averaged, its size without the "
            "sign, so that too large and too small do not cancel.",
            "ml",
            higher_is_better=False,
            bounds=(-math.inf, math.inf),
            symmetric=True,
            signed=True,
            family="volume",
        ),
        Measure(
            "volume_error_relative",
            "relative volume error",
            "Relative volume error",
            "How far the model's volume is from the expert's, without the sign, as a share of the expert's: 0 where "
            "they are equal, 1 where the organ was missed.",
            higher_is_better=False,
            family="volume",
            aliases=("relativevolumeerror", "relativevolumedifference", "rvd"),
        ),
        Measure(
            "surface_ref_cm2",
            "reference surface",
            "Reference surface",
            "The area of the expert's outline.",
            "cm²",
            family="volume",
            aliases=("surfacecm2", "surfaceareacm2", "referencesurfacecm2", "surfacearearefcm2"),
        ),
        Measure(
            "boundary_error_mm",
            "boundary error",
            "Boundary error",
            "The shift of the whole outline that would cause the Dice seen: 2 × volume × (1 − Dice) ÷ "
            "surface. It does not depend on organ size.",
            "mm",
            higher_is_better=False,
            symmetric=True,
            family="boundary",
            default_margin=0.5,
            aliases=("boundaryerror",),
        ),
        Measure(
            "dice_proxy",
            "agreement with the proxy",
            "Agreement with the proxy",
            "The Dice of the model's mask and that of another model, which every scan has: a stand-in "
            "for the Dice with an expert's mask, never a score of its own.",
            bounds=_UNIT_INTERVAL,
            aliases=("diceproxy", "proxydice", "proxy"),
        ),
    )
}


# Declared by the study that is worked on at this moment.
_declared: dict[str, Measure] = {}


def set_measures(declared: Iterable[Measure]) -> None:
    """Make a study's own measures known, and those of any other study unknown.

    For a notebook's kernel, in which one study is worked on; elsewhere :func:`use_measures`.
    """
    global _declared
    _declared = {measure.key: measure for measure in declared}


@contextmanager
def use_measures(declared: Iterable[Measure]) -> Iterator[None]:
    """Make a study's own measures known within a block."""
    before = _declared
    set_measures(declared)
    try:
        yield
    finally:
        set_measures(before.values())


def list_measures() -> Mapping[str, Measure]:
    """Return every measure that is known now by its key: ours, then those the study declares."""
    return MEASURES | _declared


def find_measure(key: str) -> Measure:
    """Return the record of a measure.

    Raises
    ------
    SegfairError
        There is no such measure.
    """
    known = list_measures()
    if key not in known:
        check_score(key)  # which refuses it
    return known[key]


def find_alias(name: str, declared: Iterable[str] = ()) -> str | None:
    """Return the key of the measure that a table calls `name`; None where it is no measure.

    Capitals, spaces and marks make no difference: ``DSC`` and ``Dice score`` are ``dice``. The keys
    in `declared` are known too.
    """
    plain = spell_plainly(name)
    for key in declared:
        if spell_plainly(key) == plain:
            return key
    return next((key for key, one in MEASURES.items() if plain in (spell_plainly(key), *one.aliases)), None)


def spell_plainly(name: str) -> str:
    """Return a name's letters and digits alone, in small letters."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def check_score(key: str, declared: Iterable[str] = ()) -> str:
    """Return the key of a score, ours or one in `declared`; a SegfairError for any other."""
    known = [*(name for name, measure in MEASURES.items() if measure.is_score), *declared]
    if key not in known:
        raise SegfairError(f"metrics must be among {', '.join(known)}; got {key!r}")
    return key


def list_scores() -> list[str]:
    """Return the measures by which groups can be compared."""
    return [key for key, measure in list_measures().items() if measure.is_score]


def list_symmetric() -> list[str]:
    """Return the scores that do not depend on which of two masks is called the reference."""
    return [key for key, measure in MEASURES.items() if measure.is_score and measure.symmetric]


def list_default_margins() -> dict[str, float]:
    """Return the margins of the measures that are compared by default."""
    return {key: measure.default_margin for key, measure in MEASURES.items() if measure.default_margin is not None}
