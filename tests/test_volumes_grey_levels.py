"""What is shown as black and as white, by hand."""

from __future__ import annotations

import numpy as np

from helpers.volumes import find_levels


def show(array: np.ndarray, modality: str) -> np.ndarray:
    return find_levels(array, modality).apply(array)


def test_window_of_ct_and_of_mr():
    # Soft tissue, −160 to 240 HU: 0 HU is 160/400 of 255 = 102
    assert show(np.array([-1000.0, -160.0, 0.0, 240.0, 3000.0]), "CT").tolist() == [0, 0, 102, 255, 255]
    mr = show(np.linspace(0, 1000, 1001), "MR")
    assert mr[0] == 0 and mr[-1] == 255 and 100 < mr[500] < 135
    assert show(np.full((2, 2), 7.0), "MR").tolist() == [[0, 0], [0, 0]]
    assert show(np.array([np.nan, 0.0, 240.0]), "CT").tolist() == [102, 102, 255]
