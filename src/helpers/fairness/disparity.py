"""How far apart group means are: the gap and the field's summary measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# +1: higher is better, −1: lower is better. The volume error is compared by its absolute value.
HIGHER_IS_BETTER: dict[str, bool] = {
    "dice": True,
    "iou": True,
    "nsd": True,
    "precision": True,
    "recall": True,
    "hd95_mm": False,
    "assd_mm": False,
    "volume_error_ml": False,
    "boundary_error_mm": False,
}
UNIT_INTERVAL_METRICS = ("dice", "iou", "nsd", "precision", "recall")


@dataclass(frozen=True)
class Extremes:
    """The two groups between which a gap is stated, by their place among the groups compared."""

    best: int
    worst: int
    gap: float


def sign_metric(metric: str) -> float:
    """Return +1 where higher values of a metric are better, −1 where lower ones are."""
    return 1.0 if HIGHER_IS_BETTER[metric] else -1.0


def find_extremes(means: np.ndarray, metric: str) -> Extremes:
    """Find the best and the worst group by mean, in the metric's own direction.

    Parameters
    ----------
    means : ndarray of float, (groups,)
        At least two, none NaN. Of equal means the first named group is the best, the last the worst.

    Returns
    -------
    Extremes
        The gap is best − worst in the metric's unit, never negative.

    Notes
    -----
    With more than two groups the largest of several differences is larger than zero even where all groups
    are alike: max − min is biased upwards, the more so the more and the smaller the groups. Read it with the
    test over all groups; the interval is that of the difference between these two named groups.
    """
    better = sign_metric(metric) * np.asarray(means, float)
    best = int(np.argmax(better))
    worst = len(better) - 1 - int(np.argmin(better[::-1]))
    return Extremes(best, worst, float(better[best] - better[worst]))


def measure_equity_scaled(overall: float, means: np.ndarray) -> float:
    """Measure equity-scaled performance: overall / (1 + Σ|overall − group mean|).

    For metrics from 0 to 1, higher is better; equal to `overall` where all groups are alike.

    References
    ----------
    Tian et al. 2024, *FairSeg*, ICLR (equity-scaled segmentation performance, ESSP).
    """
    return float(overall / (1.0 + np.abs(overall - np.asarray(means, float)).sum()))


def measure_skewed_error_ratio(means: np.ndarray) -> float:
    """Measure the skewed error ratio: (1 − lowest mean) / (1 − highest mean).

    For metrics from 0 to 1; 1 where all groups are alike, NaN where the best group makes no error.

    References
    ----------
    Puyol-Antón et al. 2021, *Fairness in Cardiac MR Image Analysis*, MICCAI.
    """
    errors = 1.0 - np.asarray(means, float)
    return float(errors.max() / errors.min()) if errors.min() > 0 else float("nan")
