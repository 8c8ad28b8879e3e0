"""DICOM images as scanners write them, against dcm2niix and dcmtk as independent referees."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless

from helpers import volumes
from helpers.errors import VolumeError
from tests.conftest import skip_unless_required
from tests.dicom_files import SHAPE, SPACING, make_enhanced, make_person, make_series, save, save_series

OBLIQUE = (0.97980319, 0.19352464, 0.04997917, -0.19767681, 0.97515835, 0.09936142)
SCALES = [(1.0 + place / 4, -1024.0 + 10 * place) for place in range(SHAPE[0])]


def find_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        skip_unless_required("dicom", f"{name} is not on this machine: install dcm2niix and dcmtk")
    return str(path)


def run_tool(*words: object) -> None:
    subprocess.run([find_tool(str(words[0])), *map(str, words[1:])], check=True, capture_output=True)


def convert(source: Path, folder: Path) -> sitk.Image:
    """Return what dcm2niix makes of a folder of DICOM files."""
    folder.mkdir()
    run_tool("dcm2niix", "-b", "n", "-z", "n", "-f", "out", "-o", folder, source)
    (made,) = folder.glob("*.nii")
    return volumes.read_volume(made)


def check_same(found: sitk.Image, expected: sitk.Image) -> None:
    found, expected = volumes.to_axial(found), volumes.to_axial(expected)
    assert volumes.get_grid(found).differences(volumes.get_grid(expected)) == []
    np.testing.assert_allclose(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected), atol=0.01)


@pytest.fixture
def stored(rng):
    return rng.integers(0, 3000, SHAPE).astype(np.uint16)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE, (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)])
def test_a_series_is_what_dcm2niix_makes_of_it(stored, tmp_path, orientation):
    save_series(make_series(stored, make_person(), orientation=orientation), tmp_path / "ct")
    check_same(volumes.read_volume(tmp_path / "ct"), convert(tmp_path / "ct", tmp_path / "nifti"))


def test_a_number_that_is_none_is_one_sentence(stored, tmp_path):
    one = make_enhanced(stored, make_person())
    position = one.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    position.ImagePositionPatient = ["1", "2", "3"]
    path = save(one, tmp_path / "odd.dcm")
    written = b"1\\2\\3 "
    data = path.read_bytes()
    assert data.count(written) == 1
    path.write_bytes(data.replace(written, b"-4.\xf5\\3"))
    with pytest.raises(VolumeError, match=r"odd\.dcm: breaks the rules of DICOM: have it written again"):
        volumes.read_volume(path)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE])
def test_a_multi_frame_image_is_what_dcm2niix_makes_of_it(stored, tmp_path, modality, orientation):
    one = make_enhanced(stored, make_person(), modality=modality, orientation=orientation)
    path = save(one, tmp_path / "enhanced" / "a.dcm")
    found = volumes.read_volume(path)
    check_same(found, convert(tmp_path / "enhanced", tmp_path / "nifti"))
    assert np.array_equal(sitk.GetArrayFromImage(found), stored.astype(int) - 1024)
    assert volumes.read_grid(path) == volumes.get_grid(found) == volumes.read_grid(tmp_path / "enhanced")


def test_frames_in_any_order_each_in_its_own_scale(stored, tmp_path, rng):
    order = rng.permutation(SHAPE[0]).tolist()
    path = save(make_enhanced(stored, make_person(), modality="MR", scales=SCALES, order=order), tmp_path / "a.dcm")
    expected = stored * np.array(SCALES)[:, 0, None, None, None][:, 0] + np.array(SCALES)[:, 1, None, None]
    found = volumes.read_volume(path)
    np.testing.assert_allclose(sitk.GetArrayFromImage(found), expected, rtol=1e-6)
    assert found.GetOrigin() == pytest.approx((-40.5, 12.25, 300.0)) and found.GetSpacing() == (0.8, 0.9, 2.5)


def test_slices_each_in_its_own_scale(stored, tmp_path):
    slices = make_series(stored, make_person())
    for one, (slope, intercept) in zip(slices, SCALES, strict=True):
        one.RescaleSlope, one.RescaleIntercept = slope, intercept
    save_series(slices, tmp_path / "ct")
    expected = stored * np.array(SCALES)[:, 0, None, None] + np.array(SCALES)[:, 1, None, None]
    np.testing.assert_allclose(sitk.GetArrayFromImage(volumes.read_volume(tmp_path / "ct")), expected, rtol=1e-6)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_phases_and_missing_frames_are_refused(stored, tmp_path, modality):
    one = make_enhanced(stored, make_person(), modality=modality)
    place = one.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    path = tmp_path / "a.dcm"
    place.ImagePositionPatient = one.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].ImagePositionPatient
    with pytest.raises(VolumeError, match="several DICOM frames lie at one place"):
        volumes.read_grid(save(one, path))
    one = make_enhanced(stored, make_person(), order=[0, 1, 3, 4, 5])
    one.NumberOfFrames = 5
    with pytest.raises(VolumeError, match="1 of 6 DICOM frames are missing"):
        volumes.read_grid(save(one, path))
    del one.PerFrameFunctionalGroupsSequence
    with pytest.raises(VolumeError, match="the frames of the DICOM file do not say how they lie"):
        volumes.read_grid(save(one, path))
    one = make_enhanced(stored, make_person())
    one.PixelData = one.PixelData[:-200]
    with pytest.raises(VolumeError, match=r"cannot be decoded|truncated"):
        volumes.read_volume(save(one, path))


def test_a_tilted_gantry_is_refused(stored, tmp_path):
    slices = make_series(stored, make_person())
    for place, one in enumerate(slices):
        one.ImagePositionPatient[1] += 0.8 * place
    save_series(slices, tmp_path / "ct")
    with pytest.raises(VolumeError, match="tilted gantry"):
        volumes.read_volume(tmp_path / "ct")


@pytest.mark.parametrize(
    "words",
    [("dcmcjpls",), ("dcmcjpeg", "+e1"), ("dcmcrle",), ("dcmconv", "+te"), ("dcmconv", "+tb"), ("dcmconv", "+td")],
)
def test_what_dcmtk_stores_otherwise_is_the_same_image(stored, tmp_path, words):
    slices = make_series(stored, make_person())
    save_series(slices, tmp_path / "ct")
    (tmp_path / "other").mkdir()
    for path in sorted((tmp_path / "ct").iterdir()):
        run_tool(*words, path, tmp_path / "other" / path.name)
    found = volumes.read_volume(tmp_path / "other")
    assert np.array_equal(sitk.GetArrayFromImage(found), stored.astype(int) - 1024)
    cut = tmp_path / "other" / "i002.dcm"
    cut.write_bytes(cut.read_bytes()[:-90])
    with pytest.raises(VolumeError, match=r"cannot be (decoded|read)"):
        volumes.read_volume(tmp_path / "other")


@pytest.mark.parametrize("words", [("dcmcjpls",), ("dcmcrle",)])
def test_a_compressed_multi_frame_image(stored, tmp_path, words):
    path = save(make_enhanced(stored, make_person()), tmp_path / "a.dcm")
    (tmp_path / "other").mkdir()
    run_tool(*words, path, tmp_path / "other" / "b.dcm")
    found = volumes.read_volume(tmp_path / "other" / "b.dcm")
    assert np.array_equal(sitk.GetArrayFromImage(found), stored.astype(int) - 1024)


def test_series_of_other_kinds_are_refused(stored, tmp_path):
    person = make_person()
    for name in "ab":
        one = make_enhanced(stored, person)
        one.SeriesInstanceUID = "1.2.3"
        save(one, tmp_path / "two" / f"{name}.dcm")
    with pytest.raises(VolumeError, match="the series consists of 2 multi-frame DICOM files"):
        volumes.read_volume(tmp_path / "two")
    one = make_enhanced(stored, person)
    one.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence = copy.deepcopy(
        one.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    )
    one.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence[0].PixelSpacing = [1, 1]
    with pytest.raises(VolumeError, match="the DICOM frames differ in size or direction"):
        volumes.read_volume(save(one, tmp_path / "a.dcm"))
    (tmp_path / "bare").mkdir()
    slices = make_series(stored, person)
    for part in slices:
        del part.ImageOrientationPatient
    save_series(slices, tmp_path / "bare")
    with pytest.raises(VolumeError, match="the DICOM slices do not say how they lie in the body"):
        volumes.read_volume(tmp_path / "bare")
    slices[0].Modality = "SR"
    with pytest.raises(VolumeError, match=r"is a DICOM file of another kind \(SR\), not a scan"):
        volumes.read_volume(save(slices[0], tmp_path / "report" / "1.dcm"))
    cut = save(slices[1], tmp_path / "cut" / "1.dcm")
    cut.write_bytes(cut.read_bytes()[:300])
    with pytest.raises(VolumeError, match="its DICOM header cannot be read"):
        volumes.read_volume(cut)


def test_jpeg_2000(stored, tmp_path):
    """Written by SimpleITK's own GDCM."""
    slices = make_series(np.kron(stored, np.ones((1, 6, 6), np.uint16)), make_person())
    save_series(slices, tmp_path / "ct")
    (tmp_path / "j2k").mkdir()
    for path in (tmp_path / "ct").iterdir():
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG2000")
        writer.SetFileName(str(tmp_path / "j2k" / path.name))
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        image = reader.Execute()
        packed = sitk.Cast(image, sitk.sitkInt16)
        for key in image.GetMetaDataKeys():
            packed.SetMetaData(key, image.GetMetaData(key))
        writer.Execute(packed)
    check_same(volumes.read_volume(tmp_path / "j2k"), volumes.read_volume(tmp_path / "ct"))


def test_a_coding_that_nobody_reads_is_said(stored, tmp_path):
    one = make_enhanced(stored, make_person())
    one.file_meta.TransferSyntaxUID = HTJ2KLossless
    one.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)] * SHAPE[0])
    one["PixelData"].VR = "OB"
    with pytest.raises(VolumeError, match=r"pixels cannot be decoded \(stored as High-Throughput JPEG 2000"):
        volumes.read_volume(save(one, tmp_path / "a.dcm"))
    slices = make_series(stored, make_person())
    for part in slices:
        part.file_meta.TransferSyntaxUID = HTJ2KLossless
        part.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        part["PixelData"].VR = "OB"
    save_series(slices, tmp_path / "ct")
    with pytest.raises(VolumeError, match=r"pixels cannot be decoded \(stored as High-Throughput JPEG 2000"):
        volumes.read_volume(tmp_path / "ct")


def test_what_else_lies_in_a_folder_is_passed_over(stored, tmp_path):
    person = make_person()
    save_series(make_series(stored, person), tmp_path / "ct")
    scout = make_series(
        stored[:2], person, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], orientation=(1, 0, 0, 0, 0, -1)
    )
    save_series(scout, tmp_path / "ct", "scout")
    capture = make_series(stored[:1], person)[0]
    del capture.ImagePositionPatient, capture.ImageOrientationPatient
    capture.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    save(capture, tmp_path / "ct" / "capture.dcm")
    (tmp_path / "ct" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "ct" / ".DS_Store").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "ct" / "report.pdf").write_bytes(b"%PDF-1.4")
    assert np.array_equal(sitk.GetArrayFromImage(volumes.read_volume(tmp_path / "ct")), stored.astype(int) - 1024)


def test_a_file_without_preamble_is_dicom(stored, tmp_path):
    """As some archives send them: no 128 bytes and no mark before the first tag."""
    for place, one in enumerate(make_series(stored, make_person())):
        del one.file_meta
        one.save_as(tmp_path / f"{place}", enforce_file_format=False, implicit_vr=True, little_endian=True)
    found = volumes.read_volume(tmp_path)
    assert volumes.get_spacing_zyx_mm(found) == SPACING
