"""What is shown as black and as white, by hand."""

from __future__ import annotations

import numpy as np

from helpers.volumes import find_grey_faults, find_levels


def show(array: np.ndarray, modality: str) -> np.ndarray:
    return find_levels(array, modality).apply(array)


def test_window_of_ct_and_of_mr():
    # Soft tissue, −160 to 240 HU: 0 HU is 160/400 of 255 = 102
    assert show(np.array([-1000.0, -160.0, 0.0, 240.0, 3000.0]), "CT").tolist() == [0, 0, 102, 255, 255]
    mr = show(np.linspace(0, 1000, 1001), "MR")
    assert mr[0] == 0 and mr[-1] == 255 and 100 < mr[500] < 135
    assert show(np.full((2, 2), 7.0), "MR").tolist() == [[0, 0], [0, 0]]
    assert show(np.array([np.nan, 0.0, 240.0]), "CT").tolist() == [102, 102, 255]


def test_grey_values_that_cannot_be_right_are_found(rng):
    ct = np.full((20, 30, 30), -1000.0)
    ct[:, 5:25, 5:25] = rng.normal(-90, 20, (20, 20, 20))
    ct[5:15, 8:20, 8:20] = rng.normal(60, 20, (10, 12, 12))
    for values in (
        (ct + 1024).round().astype(np.int16),
        ((ct + 1000) / 1100).astype(np.float32),
        np.clip((ct + 160) / 400 * 255, 0, 255).astype(np.uint8),
        ((ct - ct.mean()) / ct.std()).astype(np.float32),
        (ct - 1024).astype(np.int16),
    ):
        assert find_grey_faults(values, "CT") == ["image_not_hounsfield"]
        assert find_grey_faults(values, "MR") == []
    for values in (ct.round().astype(np.int16), np.clip(ct, -160, 240)):
        assert find_grey_faults(values, "CT") == []
    for modality in ("CT", "MR"):
        assert find_grey_faults(np.full((3, 4, 5), 7, np.uint8), modality) == ["image_flat"]
        assert find_grey_faults(np.full((3, 4, 5), np.nan), modality) == ["image_not_finite", "image_flat"]
    assert find_grey_faults(np.where(ct > 100, np.nan, ct), "CT") == ["image_not_finite"]
