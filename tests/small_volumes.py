"""Small images for the tests of volumes: unequal sides show swapped axes."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

SHAPE = (7, 8, 9)  # z, y, x


def make_image(array: np.ndarray, spacing=(2.0, 3.0, 4.0), origin=(10.0, 20.0, 30.0), direction=None) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    return image


def save(image: sitk.Image, path):
    sitk.WriteImage(image, str(path))
    return path
