"""How a slice enters a SAM and how its answer comes back: SAM's own way, MedSAM's and SAM 2's.

All are exact renderings of the published preprocessing; they differ in what the weights were
trained on.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn import functional


class SliceFrame(Protocol):
    """The way in and the way back for slices of any size."""

    def prepare(self, grey: np.ndarray) -> torch.Tensor:
        """Return a slice (uint8, (y, x)) as the encoder's input, float32, (3, side, side)."""
        ...

    def scale(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the factors (x, y), float64, from pixels of a slice (y, x) to the input's."""
        ...

    def enlarge(self, low: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Bring logits (n, 1, a, a) to a slice: scores (n, y, x), inside where above 0."""
        ...


class SamFrame:
    """Segment Anything: longest side to the input's, ImageNet's mean and SD, zeros right and below.

    The numbers of ``SamPredictor.set_image`` and ``predict_torch`` (Kirillov et al., ICCV 2023).
    """

    def __init__(self, sam: Any) -> None:
        self.side = sam.image_encoder.img_size
        self.threshold = float(sam.mask_threshold)
        self.mean, self.deviation = sam.pixel_mean.cpu(), sam.pixel_std.cpu()

    def prepare(self, grey: np.ndarray) -> torch.Tensor:
        """Resize as ResizeLongestSide, one channel for three equal ones; normalise and pad."""
        height, width = self._fit(grey.shape)
        resized = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR))
        out = torch.zeros(3, self.side, self.side)
        pixels = torch.from_numpy(resized.copy()).float()
        out[:, :height, :width] = (pixels - self.mean) / self.deviation
        return out

    def scale(self, shape: tuple[int, int]) -> np.ndarray:
        """As ``ResizeLongestSide.apply_coords``: new over old size, per axis."""
        height, width = self._fit(shape)
        return np.array([width / shape[1], height / shape[0]])

    def enlarge(self, low: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """As ``Sam.postprocess_masks``: to the input's size, no padding, to the slice's size."""
        height, width = self._fit(shape)
        large = functional.interpolate(low, (self.side, self.side), mode="bilinear", align_corners=False)
        large = large[..., :height, :width]
        return functional.interpolate(large, shape, mode="bilinear", align_corners=False)[:, 0] - self.threshold

    def _fit(self, shape: tuple[int, ...]) -> tuple[int, int]:
        scale = self.side / max(shape)
        return int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5)


class _StretchedFrame:
    """The slice stretched to the input's square."""

    def __init__(self, side: int) -> None:
        self.side = side

    def scale(self, shape: tuple[int, int]) -> np.ndarray:
        """Each axis by its own factor."""
        return np.array([self.side / shape[1], self.side / shape[0]])


class MedSamFrame(_StretchedFrame):
    """MedSAM: the slice stretched to the input's square, scaled to [0, 1] by its own extremes.

    The published inference script of Ma et al. (Segment anything in medical images, Nature
    Communications 2024): bicubic resize of the 8-bit image, sigmoid of the logits enlarged to the
    slice before 0.5 is asked.
    """

    def prepare(self, grey: np.ndarray) -> torch.Tensor:
        """Resize by cubic splines as scikit-image does, cut to whole greys, stretch to [0, 1]."""
        from skimage import transform

        resized = transform.resize(
            grey, (self.side, self.side), order=3, preserve_range=True, anti_aliasing=True
        ).astype(np.uint8)
        low, high = int(resized.min()), int(resized.max())
        scaled = (resized - low) / max(high - low, 1e-8)
        return torch.from_numpy(scaled).float().expand(3, -1, -1)

    def enlarge(self, low: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Enlarge probabilities, not logits."""
        return functional.interpolate(low.sigmoid(), shape, mode="bilinear", align_corners=False)[:, 0] - 0.5


class Sam2Frame(_StretchedFrame):
    """SAM 2: the slice stretched to the input's square, ImageNet's mean and SD.

    The numbers of ``SAM2Transforms`` (Ravi et al., ICLR 2025): bilinear resize of the image in
    [0, 1] with antialiasing, logits enlarged to the slice at once.
    """

    MEAN = (0.485, 0.456, 0.406)
    DEVIATION = (0.229, 0.224, 0.225)

    def prepare(self, grey: np.ndarray) -> torch.Tensor:
        """Stretch one channel for three equal ones, then normalise."""
        pixels = torch.from_numpy(grey.astype(np.float32) / 255)[None, None]
        size = (self.side, self.side)
        resized = functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)[0]
        return (resized - torch.tensor(self.MEAN)[:, None, None]) / torch.tensor(self.DEVIATION)[:, None, None]

    def enlarge(self, low: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """Enlarge logits."""
        return functional.interpolate(low.float(), shape, mode="bilinear", align_corners=False)[:, 0]


class MedSam2Frame(Sam2Frame):
    """MedSAM2: as SAM 2, but the 8-bit image is resized by Pillow (Ma et al., arXiv 2504.03600)."""

    def prepare(self, grey: np.ndarray) -> torch.Tensor:
        """Resize by cubic splines, cut to whole greys; normalise."""
        resized = Image.fromarray(grey).resize((self.side, self.side), Image.Resampling.BICUBIC)
        return super().prepare(np.asarray(resized))
