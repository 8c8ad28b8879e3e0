"""Which intensities of a scan are shown as black and as white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Voxels beyond which percentiles are taken of evenly spaced ones: a copy of every voxel of a long
# scan would be the largest thing in memory.
_SAMPLE = 2**24
_FAT_HU, _RARE = -50.0, 0.01


@dataclass(frozen=True)
class Levels:
    """Intensities shown as black (`low`) and white (`high`), and what NaN counts as (`lowest`)."""

    low: float
    high: float
    lowest: float = 0.0

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return intensities as uint8 of the same shape; all 0 where `low` and `high` agree."""
        if self.high <= self.low:
            return np.zeros(array.shape, np.uint8)
        grey = np.nan_to_num(np.asarray(array, np.float32), nan=self.lowest)
        return np.clip((grey - self.low) * (255.0 / (self.high - self.low)) + 0.5, 0, 255).astype(np.uint8)


def find_levels(
    array: np.ndarray,
    modality: str,
    *,
    center: float = 40.0,
    width: float = 400.0,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> Levels:
    """Find the intensities between which a whole scan is shown.

    CT by a window in Hounsfield units, soft tissue by default; MR by percentiles of the voxels
    above the background (over 5 % of the 99th percentile).

    NaN counts as the lowest value. Of more than 16.8 million voxels, percentiles are those of every
    k-th.
    """
    sample = array.reshape(-1)[:: -(-array.size // _SAMPLE)]
    finite = np.isfinite(sample) if sample.dtype.kind == "f" else np.ones(sample.shape, bool)
    lowest = float(sample[finite].min()) if finite.any() else 0.0
    if modality == "CT":
        return Levels(center - width / 2, center + width / 2, lowest)
    known = np.where(finite, sample, lowest).astype(np.float32)
    foreground = known[known > 0.05 * np.percentile(known, 99)]
    low, high = np.percentile(foreground if foreground.size else known, percentiles)
    return Levels(float(low), float(high), lowest)


def find_grey_faults(array: np.ndarray, modality: str) -> list[str]:
    """Find why an image's grey values cannot be what they should be.

    Returns keys: "image_flat" (one grey), "image_not_finite" (some voxels are no numbers) and, of a
    CT, "image_not_hounsfield".

    Notes
    -----
    In Hounsfield units air is −1000, fat −100, soft tissue over 0: a scan of a body has at least
    1 % of its voxels on either side of −50. None are below it where values were shifted by 1024,
    cut to 8 bits or scaled to 0…1, and hardly any above where an intercept was subtracted twice.
    """
    low, high = array.min(), array.max()
    if not np.isfinite([low, high]).all():
        faults = ["image_not_finite"]
        known = array[np.isfinite(array)]
        low, high = (known.min(), known.max()) if known.size else (0, 0)
    else:
        faults = []
    if low == high:
        return [*faults, "image_flat"]
    sample = array.reshape(-1)[:: -(-array.size // _SAMPLE)]
    finite = sample[np.isfinite(sample)]
    if modality == "CT" and not _RARE <= np.mean(finite < _FAT_HU) <= 1 - _RARE:
        faults += ["image_not_hounsfield"]
    return faults
