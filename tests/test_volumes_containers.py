"""A file is believed only where its own lengths and check sums agree, whatever it is called."""

from __future__ import annotations

import bz2
import gzip
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import VolumeError
from tests.hostile_inputs import META, NRRD
from tests.small_volumes import make_image, pack_nifti, save

SIZE = (40, 36, 28)  # x, y, z: longer than one block of a stream


@pytest.fixture
def array(rng):
    return rng.integers(0, 200, SIZE[::-1]).astype(np.uint8)  # z, y, x


def write(folder, name: str, array: np.ndarray):
    """Write an image and return its file, and the file of its voxels."""
    path, plain = folder / name, pack_nifti(array.T)
    lower = name.lower()
    if lower.endswith((".hdr", ".img")):
        head = bytearray(plain[:348])
        head[344:348], head[108:112] = b"ni1\0", bytes(4)
        (folder / (path.stem + (".HDR" if name.isupper() else ".hdr"))).write_bytes(head)
        voxels = folder / (path.stem + (".IMG" if name.isupper() else ".img"))
        voxels.write_bytes(plain[352:])
        return path, voxels
    if lower.endswith(".nii.gz"):
        path.write_bytes(gzip.compress(plain, mtime=0))
    elif lower.endswith(".nii"):
        path.write_bytes(plain)
    else:
        sitk.WriteImage(make_image(array), str(folder / lower), useCompression="raw" not in name)
        if name != lower:
            (folder / lower).rename(path)
        beside = [folder / f"{path.stem}{end}" for end in (".raw", ".zraw", ".raw.gz")]
        return path, next((file for file in beside if file.exists()), path)
    return path, path


NAMES = [
    "a.nii", "a.NII", "a.nii.gz", "a.NII.GZ", "a.Nii.Gz", "a.hdr", "A.HDR", "a.img", "a.mha", "a.MHA", "a_raw.mha",
    "a.mhd", "a_raw.mhd", "a.nrrd", "a.NRRD", "a_raw.nrrd", "a.nhdr", "a_raw.nhdr",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_container_is_read_whole_or_not_at_all(array, tmp_path, name):
    path, voxels = write(tmp_path, name, array)
    image = volumes.read_volume(path)
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    assert image.GetSpacing() == pytest.approx((2, 3, 4))
    whole = voxels.read_bytes()
    for left in (len(whole) // 2, len(whole) - 9):
        voxels.write_bytes(whole[:left])
        with pytest.raises(VolumeError, match=r"cannot be read, it may be truncated or damaged"):
            volumes.read_volume(path)
    if "raw" not in name and not name.lower().endswith((".nii", ".hdr", ".img")):  # there is a check sum
        changed = bytearray(whole)
        changed[-len(whole) // 3] ^= 0x55
        voxels.write_bytes(changed)
        with pytest.raises(VolumeError, match="truncated or damaged"):
            volumes.read_volume(path)
    voxels.write_bytes(whole)
    volumes.read_volume(path)


def test_a_check_sum_alone_can_tell(array, tmp_path):
    """Slices are gone and every length is right: the voxels are stored, not compressed."""
    wrong = array.copy()
    wrong[14:] = 0
    packed = bytearray(gzip.compress(pack_nifti(wrong.T), 0))
    packed[-8:-4] = gzip.compress(pack_nifti(array.T), 0)[-8:-4]
    (tmp_path / "a.nii.gz").write_bytes(packed)
    with pytest.raises(VolumeError, match=r"a\.nii\.gz: cannot be read, it may be truncated or damaged: copy it again"):
        volumes.read_volume(tmp_path / "a.nii.gz")


def test_several_members_and_bytes_behind_them_are_sound(array, tmp_path):
    plain = pack_nifti(array.T)
    for data in (
        gzip.compress(plain[:20000], mtime=0) + gzip.compress(plain[20000:]),
        gzip.compress(plain, mtime=0) + bytes(4096),
        gzip.compress(plain, mtime=0) + b"\x1f",
        gzip.compress(plain + b"more", mtime=0),
        plain,  # not compressed, under the name of one that is
    ):
        (tmp_path / "a.nii.gz").write_bytes(data)
        assert np.array_equal(sitk.GetArrayFromImage(volumes.read_volume(tmp_path / "a.nii.gz")), array)
    (tmp_path / "b.nii").write_bytes(gzip.compress(plain, mtime=0))
    assert np.array_equal(sitk.GetArrayFromImage(volumes.read_volume(tmp_path / "b.nii")), array)


def test_bzip2_within_nrrd(array, tmp_path):
    path, _ = write(tmp_path, "a_raw.nrrd", array)
    head, data = path.read_bytes().split(b"\n\n", 1)
    head = head.replace(b"encoding: raw", b"encoding: bzip2")
    path.write_bytes(head + b"\n\n" + bz2.compress(data))
    with pytest.raises(VolumeError, match="compressed by bzip2, which is not read: pack it by gzip"):
        volumes.read_volume(path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty: copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of git-lfs, not the file itself"),
        (b"/annex/objects/SHA256E-s1--0.nii.gz\n", "is a pointer of git-annex, not the file itself"),
        (b"\n<!DOCTYPE html>\n<html></html>", "is a web page, a login perhaps, not an image"),
        (b"<html><body>Sign in</body></html>", "is a web page, a login perhaps, not an image"),
        (b"Please find the masks attached", "is not an image that can be opened"),
        (gzip.compress(b"Please find the masks attached", mtime=0), "is not an image that can be opened"),
        (b"\x1f\x8b\x08", "cannot be read, it may be truncated or damaged"),
        (pack_nifti(np.zeros((2, 2, 2), np.uint8))[:100], "is not an image that can be opened"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha"])
def test_what_stands_in_an_images_place_is_called_what_it_is(tmp_path, name, data, told):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VolumeError, match=rf"^{name}: {told}"):
        volumes.read_volume(tmp_path / name)


def test_voxels_that_lie_elsewhere(array, tmp_path):
    for name, files in (("a.hdr", ["a.img"]), ("b.mhd", ["b.zraw"]), ("c.nhdr", ["c.raw.gz"])):
        path, voxels = write(tmp_path, name, array)
        assert voxels.name in files
        voxels.unlink()
        with pytest.raises(VolumeError, match=rf"^{name}: its voxels .* not beside it"):
            volumes.read_volume(path)
    path, voxels = write(tmp_path, "d_raw.mhd", array)
    path.write_bytes(path.read_bytes().replace(b"d_raw.raw", b"LIST"))
    with pytest.raises(VolumeError, match="its voxels lie in several files: store it as one file"):
        volumes.read_volume(path)


def test_the_name_of_a_link_counts_and_not_that_of_the_store(array, tmp_path):
    (tmp_path / "store").mkdir()
    for number, name in enumerate(("a.nii.gz", "b.nrrd", "c.mhd", "d.hdr")):
        path, voxels = write(tmp_path, name, array)
        for place, file in enumerate(dict.fromkeys((path, voxels))):
            blob = tmp_path / "store" / f"{number}{place}f00"
            shutil.move(file, blob)
            file.symlink_to(blob)
        assert np.array_equal(sitk.GetArrayFromImage(volumes.read_volume(path)), array)
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    for name in ("loop.nii.gz", "gone.nii.gz", "long" * 100 + ".nii.gz"):
        with pytest.raises(VolumeError, match=rf"{name}: no such file: correct its path"):
            volumes.read_volume(tmp_path / name)
    assert save(make_image(array), tmp_path / "e.nii.gz").is_file()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.mha", META.replace("NDims = 3", "NDims = -1")),
        ("x.mha", META.replace("NDims = 3", "NDims: 99999")),
        ("x.mha", META.replace("NDims = 3", "NDims = 3\nNDims = -1")),
        ("x.nrrd", NRRD.replace("sizes: 9", f"sizes: {'1 ' * 5000}9")),
        ("x.nrrd", NRRD + f"{'k' * 5000}\n"),
    ],
)
def test_a_header_that_would_end_the_process_is_refused(name, text, tmp_path):
    """ITK 5.4 writes beyond its memory; here the test itself would be killed."""
    (tmp_path / name).write_bytes(f"{text}ElementDataFile = LOCAL\n\n".encode() + bytes(504))
    with pytest.raises(VolumeError, match=r"x\.\w+: its (NRRD|MetaImage) header cannot be read: copy it again"):
        volumes.read_volume(tmp_path / name)


def test_a_long_value_of_a_key_is_no_fault(tmp_path):
    (tmp_path / "x.nrrd").write_bytes(f"{NRRD}Segment0_Notes:={'1 ' * 20_000}\n\n".encode() + bytes(504))
    assert volumes.read_volume(tmp_path / "x.nrrd").GetSize() == (9, 8, 7)
