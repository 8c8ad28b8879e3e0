"""How a scan enters SAT, by the published preprocessing, and how its answer comes back.

SAT sees voxels in the order (x, y, z) that run to the right, to the front and up (RAS), 1 × 1 × 3
mm, cut to the box of what is above 0, as one z-score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from helpers import volumes
from helpers.errors import SegfairError

SPACING_MM = (1.0, 1.0, 3.0)  # (x, y, z)
CT_LEVELS = (-500.0, 1000.0)  # HU; what lies beyond is cut to them
OTHER_PERCENTILES = (0.5, 99.5)
_LEAST = 1 / 510


@dataclass(frozen=True)
class SatScan:
    """A scan as SAT sees it, and what leads back."""

    volume: torch.Tensor  # float32, (x, y, z): RAS, resampled, cropped, a z-score
    box: tuple[slice, ...]  # where it lies in the resampled scan
    resampled_shape: tuple[int, int, int]  # (x, y, z)
    shape: tuple[int, int, int]  # of the scan, (x, y, z)
    spacing_mm: tuple[float, float, float]  # of the scan, (x, y, z)

    def bring_back(self, probability: torch.Tensor) -> np.ndarray:
        """Return a probability on `volume`'s voxels on the scan's, float32, axial (z, y, x).

        It is 0 outside the crop, and interpolated linearly between SAT's voxels. Outside the box of
        what is above 1/510, which no rounding to 255 steps would show, it is left at 0.
        """
        brought = torch.zeros(self.shape)
        if (probability > _LEAST).any():
            whole = torch.zeros(self.resampled_shape)
            whole[self.box] = probability
            read, write, places = [], [], []
            for axis, part in enumerate(_find_box(whole > _LEAST)):
                low, high = max(part.start - 1, 0), part.stop + 1
                wanted = np.arange(self.shape[axis]) * (self.spacing_mm[axis] / SPACING_MM[axis])
                first, last = np.searchsorted(wanted, [part.start - 1, part.stop])
                read.append(slice(low, high))
                write.append(slice(int(first), int(last)))
                places.append(wanted[first:last] - low)
            brought[tuple(write)] = interpolate(whole[tuple(read)], places)
        return _turn_axial(brought.numpy())


def enter_scan(image: np.ndarray, spacing_mm: tuple[float, ...], modality: str) -> SatScan:
    """Bring a scan to what SAT sees.

    Resampling keeps the first voxel's place and takes as many voxels as reach the last one's,
    rounded (the grid of MONAI's Spacing, which SAT was trained through).

    Raises a SegfairError: no voxel of the image is above 0.

    Parameters
    ----------
    image : ndarray
        Intensities, finite, axial (z, y, x): up, to the back, to the left.
    spacing_mm : tuple of float
        Of its voxels, (x, y, z).
    modality : {'CT', 'MR'}
        CT is cut at -500 and 1000 HU, MR at the crop's 0.5th and 99.5th percentiles.
    """
    turned = torch.from_numpy(np.ascontiguousarray(_turn_ras(image), dtype=np.float32))
    spacing = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    ratios = [target / own for own, target in zip(spacing, SPACING_MM, strict=True)]
    counts = [int(np.round((n - 1) / ratio + 1.0)) for n, ratio in zip(turned.shape, ratios, strict=True)]
    resampled = interpolate(turned, [np.arange(n) * ratio for n, ratio in zip(counts, ratios, strict=True)])
    box = find_foreground(resampled)
    crop = resampled[box]
    low, high = CT_LEVELS if modality == "CT" else np.percentile(crop.numpy(), OTHER_PERCENTILES)
    clipped = crop.clamp(float(low), float(high))
    volume = (clipped - clipped.mean()) / clipped.std(correction=0).clamp(min=1e-8)
    x, y, z = turned.shape
    return SatScan(volume, box, (counts[0], counts[1], counts[2]), (x, y, z), spacing)


def interpolate(volume: torch.Tensor, places: list[np.ndarray]) -> torch.Tensor:
    """Interpolate linearly at the grid of `places`, voxel coordinates per axis; edges reach on."""
    for axis in reversed(range(len(places))):  # the axis that lies together in memory, while the array is small
        wanted = places[axis]
        last = volume.shape[axis] - 1
        inside = np.clip(wanted, 0, last)
        below = np.floor(inside).astype(np.int64)
        above = np.minimum(below + 1, last)
        share = torch.from_numpy((inside - below).astype(np.float32)).view(
            [-1 if one == axis else 1 for one in range(volume.ndim)]
        )
        volume = torch.lerp(
            volume.index_select(axis, torch.from_numpy(below)),
            volume.index_select(axis, torch.from_numpy(above)),
            share,
        )
    return volume


def find_foreground(volume: torch.Tensor) -> tuple[slice, ...]:
    """Return the box around the voxels above 0; a SegfairError where there are none."""
    above = volume > 0
    if not above.any():
        raise SegfairError(
            "no voxel of the image is above 0, and SAT looks at nothing else: check that the image holds "
            "Hounsfield units (CT) or signal (MR)"
        )
    return _find_box(above)


def _find_box(mask: torch.Tensor) -> tuple[slice, ...]:
    """Return the box around a mask (x, y, z) that is not empty."""
    return volumes.find_boxes(mask.numpy().view(np.uint8))[1]


def _turn_ras(axial: np.ndarray) -> np.ndarray:
    """Return an axial array (z, y, x) as (x, y, z) to the right, to the front and up."""
    return axial[:, ::-1, ::-1].transpose(2, 1, 0)


def _turn_axial(ras: np.ndarray) -> np.ndarray:
    """Undo :func:`_turn_ras`."""
    return ras.transpose(2, 1, 0)[:, ::-1, ::-1]
