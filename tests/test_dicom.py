"""DICOM folders: a series becomes the volume it was made from, and each guard is seen firing."""

from __future__ import annotations

import itertools
import locale

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.dicom import find_series, read_series
from helpers.errors import VolumeError

SHAPE = (5, 8, 9)
SPACING = (0.8, 0.9, 2.5)
PATIENT_NAME = "0010|0010"


def make_volume(rng) -> sitk.Image:
    """A volume turned in space, so that origin, spacing and direction all matter."""
    image = sitk.GetImageFromArray(rng.integers(-1000, 1000, SHAPE).astype(np.int16))
    image.SetSpacing(SPACING)
    image.SetOrigin((-40.5, 12.25, 300.0))
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.1, -0.05, 0.2)
    image.SetDirection(turn.GetMatrix())
    return image


def write_series(
    image: sitk.Image, folder, *, uid="1.2.826.0.1.3680043.2.1125.1", shifts=None, names=None, phase=1
) -> None:
    """Write one file per slice, with the tags that tell a series; `shifts` moves slices by (x, y,
    z) mm."""
    folder.mkdir(parents=True, exist_ok=True)
    # Writing DICOM leaves the process in the C locale, in which Python takes text for ASCII, in
    # every test that follows.
    before = locale.setlocale(locale.LC_ALL)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    turn = image.GetDirection()
    for place in range(image.GetDepth()):
        part = image[:, :, place]
        where = np.array(image.TransformIndexToPhysicalPoint((0, 0, place)))
        where += 0 if shifts is None else np.asarray(shifts[place])
        tags = {
            "0008|0060": "CT",
            PATIENT_NAME: "DOE^JANE",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{phase}.{place + 1}",
            "0020|0032": "\\".join(f"{value:.9g}" for value in where),
            "0020|0037": "\\".join(f"{turn[index]:.9g}" for index in (0, 3, 6, 1, 4, 7)),
            "0020|0013": str(place + 1),
            "0028|0030": f"{SPACING[1]}\\{SPACING[0]}",
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        # Names in another order than the slices: the order must come from their positions.
        name = names[place] if names else f"{(place * 3) % image.GetDepth()}.dcm"
        writer.SetFileName(str(folder / name))
        writer.Execute(part)
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture
def image(rng):
    return make_volume(rng)


def test_a_series_is_the_volume_it_was_made_from(image, tmp_path):
    write_series(image, tmp_path / "ct")
    (tmp_path / "ct" / "notes.txt").write_text("not a slice", encoding="utf-8")
    found = volumes.read_volume(tmp_path / "ct")
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(image))
    assert volumes.get_grid(found).differences(volumes.get_grid(image)) == []
    assert volumes.read_grid(tmp_path / "ct") == volumes.get_grid(found)


def test_no_tag_of_the_patient_comes_along(image, tmp_path):
    write_series(image, tmp_path / "ct")
    assert sitk.ReadImage(str(tmp_path / "ct" / "0.dcm")).GetMetaData(PATIENT_NAME).startswith("DOE")
    assert read_series(tmp_path / "ct").GetMetaDataKeys() == ()


def test_rounded_positions_are_no_fault(image, tmp_path):
    shifts = np.zeros((5, 3))
    shifts[1::2] = 0.004
    write_series(image, tmp_path / "ct", shifts=shifts)
    assert find_series(tmp_path / "ct").spacing == pytest.approx(SPACING, abs=0.01)


def test_folder_without_a_series(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolumeError, match="empty: the folder holds no DICOM series"):
        volumes.read_grid(tmp_path / "empty")


def test_two_series_in_one_folder(image, tmp_path):
    write_series(image, tmp_path / "ct", uid="1.2.3.4", names=[f"a{place}.dcm" for place in range(5)])
    write_series(image, tmp_path / "ct", uid="1.2.3.5", names=[f"b{place}.dcm" for place in range(5)])
    with pytest.raises(VolumeError, match="holds 2 DICOM series: give every series a folder"):
        volumes.read_volume(tmp_path / "ct")


def test_a_missing_slice(image, tmp_path):
    write_series(image, tmp_path / "ct", names=[f"{place}.dcm" for place in range(5)])
    (tmp_path / "ct" / "2.dcm").unlink()
    with pytest.raises(VolumeError, match=r"1 of 5 DICOM slices are missing \(2\.50 to 5\.00 mm apart\)"):
        volumes.read_grid(tmp_path / "ct")


def test_slices_at_uneven_distances(image, tmp_path):
    write_series(image, tmp_path / "ct", shifts=np.outer([0, 0, 1.2, 1.2, 1.2], image.GetDirection()[2::3]))
    with pytest.raises(VolumeError, match=r"unevenly spaced \(2\.50 to 3\.70 mm apart\)"):
        volumes.read_grid(tmp_path / "ct")


def test_copies_of_slices_are_one_slice(image, tmp_path):
    for name in "ab":
        write_series(image, tmp_path / "ct" / name, names=[f"{name}{place}.dcm" for place in range(5)])
    assert volumes.get_grid(volumes.read_volume(tmp_path / "ct")).differences(volumes.get_grid(image)) == []
    (tmp_path / "ct" / "b" / "b1.dcm").write_bytes((tmp_path / "ct" / "b" / "b1.dcm").read_bytes() + b"more")
    with pytest.raises(VolumeError, match=r"two DICOM files \(a1.dcm, b1.dcm\) are called the same slice and differ"):
        volumes.read_grid(tmp_path / "ct")


def test_slices_at_one_place(image, tmp_path):
    write_series(image, tmp_path / "ct", names=[f"a{place}.dcm" for place in range(5)])
    write_series(image, tmp_path / "ct", names=[f"b{place}.dcm" for place in range(5)], phase=2)
    with pytest.raises(VolumeError, match="several DICOM slices lie at one place"):
        volumes.read_grid(tmp_path / "ct")


def test_a_tilted_gantry(image, tmp_path):
    image.SetDirection(np.eye(3).ravel().tolist())
    write_series(image, tmp_path / "ct", shifts=[(0, 0.2 * place, 0) for place in range(5)])
    with pytest.raises(VolumeError, match="tilted gantry"):
        volumes.read_grid(tmp_path / "ct")


def test_a_scout_among_the_slices(image, tmp_path):
    write_series(image, tmp_path / "ct")
    scout = sitk.Image([12, 12, 1], sitk.sitkInt16)
    scout.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    write_series(scout, tmp_path / "ct", names=["scout.dcm"], phase=2)
    with pytest.raises(VolumeError, match="differ in size or direction"):
        volumes.read_grid(tmp_path / "ct")


def test_a_single_slice_as_folder_and_as_file(image, tmp_path):
    write_series(image[:, :, :1], tmp_path / "ct")
    with pytest.raises(VolumeError, match="a single DICOM slice"):
        volumes.read_grid(tmp_path / "ct")
    with pytest.raises(VolumeError, match=r"0\.dcm: a single DICOM slice is no volume: give the folder"):
        volumes.read_grid(tmp_path / "ct" / "0.dcm")


def test_a_slice_stands_for_its_series(image, tmp_path):
    """Two series in one folder are told apart by a file of either."""
    write_series(image, tmp_path / "ct", uid="1.2.3.4", names=[f"a{place}.dcm" for place in range(5)])
    write_series(image + 1, tmp_path / "ct", uid="1.2.3.5", names=[f"b{place}.dcm" for place in range(5)])
    for name, more in (("a3.dcm", 0), ("b0.dcm", 1)):
        found = volumes.read_volume(tmp_path / "ct" / name)
        assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(image) + more)


@pytest.mark.parametrize("name", ["0.dcm", "3.dcm", "2.dcm"])  # the first, one within and the last slice
def test_a_truncated_slice(image, tmp_path, name):
    write_series(image, tmp_path / "ct")
    file = tmp_path / "ct" / name
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(VolumeError, match="1 DICOM file cannot be read, being truncated"):
        volumes.read_volume(tmp_path / "ct")


def test_what_gdcm_fails_on_is_read_by_pydicom(image, tmp_path, monkeypatch):
    write_series(image, tmp_path / "ct")

    def fail(reader):
        raise RuntimeError("no codec")

    monkeypatch.setattr(sitk.ImageSeriesReader, "Execute", fail)
    found = volumes.read_volume(tmp_path / "ct")
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(image))


def test_a_mask_in_the_other_row_order_fits_a_dicom_image(image, tmp_path):
    """dcm2niix turns rows round; the voxels are the same."""
    write_series(image, tmp_path / "ct")
    turned = sitk.Flip(image, [False, True, False])
    found, other = volumes.read_grid(tmp_path / "ct"), volumes.get_grid(turned)
    assert found.differences(other)
    assert volumes.orient_grid(found).differences(volumes.orient_grid(other)) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_orient_grid_is_the_grid_of_to_axial(order, signs):
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.1, 0.15, -0.05)
    axes = np.zeros((3, 3))
    axes[list(order), range(3)] = signs
    image = sitk.Image([4, 5, 6], sitk.sitkUInt8)
    image.SetSpacing((1, 2, 3))
    image.SetOrigin((10, 20, 30))
    image.SetDirection((np.reshape(turn.GetMatrix(), (3, 3)) @ axes).ravel().tolist())
    expected = volumes.get_grid(volumes.to_axial(image))
    assert volumes.orient_grid(volumes.get_grid(image)).differences(expected) == []
