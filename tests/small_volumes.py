"""Small images for the tests of volumes: unequal sides show swapped axes."""

from __future__ import annotations

import struct

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


def pack_nifti(array: np.ndarray, affine: np.ndarray | None = None, *, version=1, order="<", patch=None) -> bytes:
    """Return a NIfTI file of an array (x, y, z) that says `affine` (RAS, (3, 4)) as sform alone.

    `patch` overwrites the header: offset → (format, *values).
    """
    if affine is None:
        affine = np.array([[-2.0, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, 30]])
    code = {"u1": 2, "i2": 4, "f4": 16, "f8": 64, "i8": 1024}[array.dtype.str[1:]]
    pixdim = [1.0, *np.linalg.norm(affine[:, :3], axis=0), 0, 0, 0, 0]
    dim, bits = [array.ndim, *array.shape, *(1,) * (7 - array.ndim)], array.dtype.itemsize * 8
    length = {1: 352, 2: 544}[version]
    head = bytearray(length)
    fields = {
        1: {0: ("i", 348), 40: ("8h", *dim), 70: ("2h", code, bits), 76: ("8f", *pixdim), 108: ("f", length),
            112: ("2f", 1, 0), 123: ("B", 2), 254: ("h", 1), 280: ("12f", *affine.ravel()), 344: ("4s", b"n+1\0")},
        2: {0: ("i", 540), 4: ("8s", b"n+2\0\r\n\x1a\n"), 12: ("2h", code, bits), 16: ("8q", *dim),
            104: ("8d", *pixdim), 168: ("q", length), 176: ("2d", 1, 0), 348: ("i", 1), 400: ("12d", *affine.ravel()),
            500: ("i", 2)},
    }[version]  # fmt: skip
    for offset, (layout, *values) in (fields | (patch or {})).items():
        struct.pack_into(order + layout, head, offset, *values)
    return bytes(head) + array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
