"""Which grey window an organ is shown to a model (and to a reader) in."""

from __future__ import annotations

import numpy as np

from helpers.volumes import window_image

# CT windows (centre, width in HU). Lungs are black in the soft-tissue window, so they get their own.
CT_WINDOWS = {"soft": (40.0, 400.0), "lung": (-600.0, 1500.0)}


def choose_window(organ: str, modality: str) -> str:
    """Return the window an organ is shown in: ``lung`` for lungs on CT, else ``soft`` (on MR there is one)."""
    return "lung" if modality == "CT" and organ.startswith("lung") else "soft"


def apply_window(image: np.ndarray, modality: str, window: str) -> np.ndarray:
    """Return intensities of a whole volume as uint8 in one of :data:`CT_WINDOWS`; MR by its percentiles."""
    center, width = CT_WINDOWS[window]
    return window_image(image, modality, center=center, width=width)
