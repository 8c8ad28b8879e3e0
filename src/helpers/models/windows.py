"""Which grey window an organ is shown to a model (and to a reader) in."""

from __future__ import annotations

import numpy as np

from helpers import volumes
from helpers.parameters import Windows


def choose_window(organ: str, modality: str, windows: Windows) -> str:
    """Return the name of the window an organ is shown in; on MR there is one for all."""
    if modality != "CT":
        return "soft"
    return windows.organs.get(organ, "lung" if organ.startswith("lung") else "soft")


def find_levels(image: np.ndarray, modality: str, window: str, windows: Windows) -> volumes.Levels:
    """Return what is black and what is white in a whole scan seen in one window."""
    center, width = windows.ct[window]
    return volumes.find_levels(image, modality, center=center, width=width, percentiles=windows.mr_percentiles)
