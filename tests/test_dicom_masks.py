"""DICOM masks: segmentations and structure sets become the masks that were drawn."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.sr.coding import Code
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from helpers import dicom, volumes
from helpers.dicom.structures import fill_contours
from helpers.errors import VolumeError
from helpers.parameters import Organ, read_parameters
from tests.dicom_files import (
    KIDNEY,
    LEFT,
    ORIGIN,
    RIGHT,
    SHAPE,
    SPACING,
    SPLEEN,
    describe_segment,
    make_person,
    make_segmentation,
    make_series,
    make_structures,
    save,
    save_series,
    shuffle_frames,
)

OBLIQUE = (0.97980319, 0.19352464, 0.04997917, -0.19767681, 0.97515835, 0.09936142)
ORGANS = {"liver": Organ(labels=["Liver"]), "spleen": Organ(labels=["Spleen"])}
IDS = {"liver": 1, "spleen": 2}
SEGMENTS = [describe_segment(1, "Liver"), describe_segment(2, "Spleen", SPLEEN)]


@pytest.fixture
def labels():
    """A liver with a gap between its slices, and a spleen on one slice."""
    array = np.zeros(SHAPE, np.uint8)
    array[[1, 4], 2:6, 1:4] = 1
    array[4, 1, 6] = 1
    array[2, 3:5, 5:7] = 2
    return array


@pytest.fixture
def source(rng):
    return make_series(rng.integers(0, 2000, SHAPE).astype(np.uint16), make_person())


@pytest.fixture
def image(source, tmp_path):
    return save_series(source, tmp_path / "ct")


def read(path, image, organs=ORGANS, **options):
    found = volumes.read_label_map(
        path, organs, {name: place for place, name in enumerate(organs, 1)}, image=image, **options
    )
    return sitk.GetArrayFromImage(found.image), found


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_a_segmentation_is_the_mask_it_was_made_from(labels, source, image, tmp_path, rng, kind, sparse):
    pixels = labels if kind != "FRACTIONAL" else np.stack([labels == 1, labels == 2], -1).astype(float)
    one = make_segmentation(source, pixels, SEGMENTS, kind=kind, sparse=sparse)
    save(one, tmp_path / "seg.dcm")
    array, found = read(tmp_path / "seg.dcm", image)
    assert np.array_equal(array, labels)
    assert volumes.get_grid(found.image).differences(volumes.read_grid(image)) == []
    save(shuffle_frames(one, rng), tmp_path / "shuffled.dcm")
    assert np.array_equal(read(tmp_path / "shuffled.dcm", image)[0], labels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_a_compressed_label_map(labels, rng, tmp_path, syntax):
    labels = np.kron(labels, np.ones((1, 5, 5), np.uint8))
    source = make_series(rng.integers(0, 2000, labels.shape).astype(np.uint16), make_person())
    image = save_series(source, tmp_path / "ct")
    save(make_segmentation(source, labels, SEGMENTS, kind="LABELMAP", transfer_syntax_uid=syntax), tmp_path / "seg.dcm")
    assert np.array_equal(read(tmp_path / "seg.dcm", image)[0], labels)


def test_an_oblique_series(labels, rng, tmp_path):
    source = make_series(rng.integers(0, 9, SHAPE).astype(np.uint16), make_person(), orientation=OBLIQUE)
    image = save_series(source, tmp_path / "ct")
    save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm")
    assert np.array_equal(read(tmp_path / "seg.dcm", image)[0], labels)


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flipped", [False, True])
def test_frames_of_another_orientation_lie_where_they_belong(labels, source, image, tmp_path, axes, flipped):
    """Sagittal, coronal and turned frames; highdicom's own geometry says where they are."""
    volume = highdicom.get_volume_from_series(source)
    volume = volume.with_array(labels if volume.affine[2, 0] > 0 else labels[::-1].copy()).permute_spatial_axes(axes)
    if flipped:
        volume = volume.flip_spatial([0, 1])
    one = make_segmentation(source, volume, SEGMENTS)
    save(one, tmp_path / "seg.dcm")
    assert np.array_equal(read(tmp_path / "seg.dcm", image)[0], labels)


def test_what_highdicom_reads_is_what_we_read(labels, source, image, tmp_path):
    labels[3] = labels[1]  # without a gap highdicom finds the stack too
    labels[2] = 2
    save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm")
    volume = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    full = volume.match_geometry(highdicom.get_volume_from_series(source))
    ours = sitk.GetArrayFromImage(volumes.read_label_map(tmp_path / "seg.dcm", ORGANS, IDS, image=image).image)
    assert np.array_equal(ours, np.flip(full.array, 0) if full.affine[2, 0] < 0 else full.array)


def test_segments_that_overlap(labels, source, image, tmp_path):
    masks = np.stack([labels == 1, labels == 1, labels == 2], -1)
    masks[1, 2, 1:4, 1] = False
    segments = [
        describe_segment(1, "Liver"),
        describe_segment(2, "Liver tumour"),
        describe_segment(3, "Spleen", SPLEEN),
    ]
    save(make_segmentation(source, masks, segments), tmp_path / "seg.dcm")
    whole = {"liver": Organ(labels=["Liver", "Liver tumour"]), "spleen": Organ(labels=["spleen"])}
    assert np.array_equal(read(tmp_path / "seg.dcm", image, whole)[0], labels)
    parts = {"liver": Organ(labels=["Liver"]), "tumour": Organ(labels=["Liver tumour"])}
    with pytest.raises(VolumeError, match="tumour shares 22 voxels with another organ"):
        read(tmp_path / "seg.dcm", image, parts)


def test_two_overlapping_segments_of_one_name_are_two_readers(labels, source, image, tmp_path):
    masks = np.stack([labels == 1, labels == 1], -1)
    save(
        make_segmentation(source, masks, [describe_segment(1, "Liver"), describe_segment(2, "Liver")]),
        tmp_path / "s.dcm",
    )
    with pytest.raises(VolumeError, match="several overlapping segments are called 'Liver': give the number"):
        read(tmp_path / "s.dcm", image, {"liver": Organ(labels=["Liver"])})
    assert np.array_equal(read(tmp_path / "s.dcm", image, {"liver": Organ(labels=[2])})[0], labels == 1)


@pytest.mark.parametrize(
    ("label", "sides"),
    [
        ("kidney_left", "l"), ("Kidney, Right", "r"), ("Left kidney", "l"), ("kidney", "lr"), (2, "l"),
        ("SCT:64033007", "lr"), ("SCT:64033007+SCT:7771000", "l"), ("SRT:T-71000+SRT:G-A101", "l"),
        ("SCT:10200004", ""),
    ],
)  # fmt: skip
def test_segments_by_label_code_and_number(source, image, tmp_path, label, sides):
    array = np.zeros(SHAPE, np.uint8)
    array[1:3, 1:3, 1:3], array[1:3, 1:3, 5:7] = 1, 2
    segments = [describe_segment(1, "Kidney", KIDNEY, side=RIGHT), describe_segment(2, "Kidney", KIDNEY, side=LEFT)]
    save(make_segmentation(source, array, segments), tmp_path / "seg.dcm")
    organs = {"wanted": Organ(labels=[label]), "other": Organ(labels=[1])}
    if not sides:
        found, organs = read(tmp_path / "seg.dcm", image, organs)[1], organs
        assert found.missing == ("wanted",)
        return
    del organs["other"]
    expected = np.isin(array, [{"r": 1, "l": 2}[side] for side in sides])
    assert np.array_equal(read(tmp_path / "seg.dcm", image, organs)[0], expected)


def test_fractions_are_refused_or_cut_at_one_half(labels, source, image, tmp_path):
    shares = np.zeros((*SHAPE, 1))
    shares[2, 2, :5, 0] = 0.2, 0.49, 0.5, 0.75, 1.0
    one = make_segmentation(source, shares, SEGMENTS[:1], kind="FRACTIONAL", max_fractional_value=200)
    save(one, tmp_path / "seg.dcm")
    liver = {"liver": ORGANS["liver"]}
    with pytest.raises(VolumeError, match="holds fractions"):
        read(tmp_path / "seg.dcm", image, liver)
    assert read(tmp_path / "seg.dcm", image, liver, halve=True)[0][2, 2].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]


def test_a_segmentation_of_another_series_is_refused(labels, source, tmp_path):
    person = make_person(FrameOfReferenceUID=source[0].FrameOfReferenceUID)
    other = save_series(make_series(np.zeros(SHAPE, np.uint16), person), tmp_path / "other")
    path = save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm")
    with pytest.raises(VolumeError, match=r"seg\.dcm: the DICOM mask was drawn on another series"):
        read(path, other)
    stray = pydicom.dcmread(path)
    stray.FrameOfReferenceUID, stray.ReferencedSeriesSequence[0].SeriesInstanceUID = (
        generate_uid(), pydicom.dcmread(next(other.iterdir())).SeriesInstanceUID,
    )  # fmt: skip
    with pytest.raises(VolumeError, match="lies in another frame of reference"):
        read(save(stray, path), other)


def test_a_segmentation_on_other_voxels_says_so_by_its_grid(labels, source, image, tmp_path):
    """Moved by half a voxel it is on its own grid, which the checks of grids then refuse."""
    path = save(make_segmentation(source, labels, SEGMENTS, sparse=False), tmp_path / "seg.dcm")
    one = pydicom.dcmread(path)
    for group in one.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient[0] += SPACING[2] / 2
    array, found = read(save(one, path), image)
    assert np.array_equal(array, labels)
    differences = volumes.get_grid(found.image).differences(volumes.read_grid(image))
    assert differences and "origin" in differences[0]


def test_a_segmentation_beyond_the_image(labels, source, tmp_path):
    labels[0] = labels[4]
    path = save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm")
    image = save_series(source[1:], tmp_path / "part")
    with pytest.raises(VolumeError, match="the segment of liver reaches beyond the image"):
        read(path, image)


def test_a_segmentation_cut_short(labels, source, image, tmp_path):
    path = save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm")
    one = pydicom.dcmread(path)
    one.PixelData = one.PixelData[:20]
    with pytest.raises(VolumeError, match="ends before its last frame"):
        read(save(one, path), image)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(VolumeError):
        read(path, image)


def test_none_of_the_organs_names_what_there_is(labels, source, image, tmp_path):
    path = save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm")
    with pytest.raises(VolumeError, match="none of the study's organs; it has Liver, Spleen"):
        read(path, image, {"aorta": Organ(labels=["Aorta"])})
    with pytest.raises(VolumeError, match=r"nothing says which of its parts is aorta: name them under cohort\.organs"):
        read(path, image, {"aorta": Organ(files=["aorta"])})


def square(low, high, z, *, reverse=False):
    """A square contour by indices: corners at (low, low) and (high, high) of slice z, in mm."""
    corners = np.array([(low, low), (high, low), (high, high), (low, high)], float)
    return to_mm(corners[::-1] if reverse else corners, z)


def to_mm(points, z):
    points = np.asarray(points, float)
    return np.column_stack([
        ORIGIN[0] + points[:, 0] * SPACING[2], ORIGIN[1] + points[:, 1] * SPACING[1],
        np.full(len(points), ORIGIN[2] + z * SPACING[0]),
    ])  # fmt: skip


LIVER_ONLY = {"liver": Organ(labels=["Liver"])}


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_contours_with_a_hole_of_their_own(source, image, tmp_path, kind):
    contours = [square(0.5, 6.5, z) for z in (1, 2)] + [square(2.5, 4.5, 2, reverse=True)]
    path = save(make_structures(source, {"Liver": contours}, kind=kind), tmp_path / "rt.dcm")
    expected = np.zeros(SHAPE, np.uint8)
    expected[1:3, 1:7, 1:7] = 1
    expected[2, 3:5, 3:5] = 0
    assert np.array_equal(read(path, image, LIVER_ONLY)[0], expected)


def test_a_hole_by_a_keyhole(source, image, tmp_path):
    ring = [(0.5, 0.5), (6.5, 0.5), (6.5, 6.5), (0.5, 6.5), (0.5, 3.3), (2.5, 3.3), (2.5, 4.5), (4.5, 4.5), (4.5, 2.5),
            (2.5, 2.5), (2.5, 3.3), (0.5, 3.3)]  # fmt: skip
    path = save(make_structures(source, {"Liver": [to_mm(ring, z) for z in (2, 3)]}), tmp_path / "rt.dcm")
    expected = np.zeros(SHAPE, np.uint8)
    expected[2:4, 1:7, 1:7] = 1
    expected[2:4, 3:5, 3:5] = 0
    assert np.array_equal(read(path, image, LIVER_ONLY)[0], expected)


def test_several_contours_on_a_slice_and_copies_of_one(source, image, tmp_path):
    contours = [square(0.5, 2.5, 2), square(4.5, 6.5, 2), square(4.5, 6.5, 2), square(0.5, 2.5, 3)]
    path = save(make_structures(source, {"Liver": contours}), tmp_path / "rt.dcm")
    array = read(path, image, LIVER_ONLY)[0]
    assert array[2].sum() == 8 and array[3].sum() == 4


def test_regions_that_share_a_border_share_no_voxel(source, image, tmp_path):
    """Contours through the centres of voxels: each centre belongs to one side."""
    regions = {
        "Liver": [to_mm([(1, 1), (4, 1), (4, 5), (1, 5)], 2)],
        "Spleen": [to_mm([(4, 1), (7, 1), (7, 5), (4, 5)], 2)],
    }
    array = read(save(make_structures(source, regions), tmp_path / "rt.dcm"), image)[0]
    assert (array[2] == 1).sum() == (array[2] == 2).sum() == 12
    assert array[2, 1, 1:8].tolist() == [1, 1, 1, 2, 2, 2, 0]


def test_filled_contours_are_those_of_scikit_image(rng):
    from skimage.draw import polygon

    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        points = 15 + rng.uniform(4, 14, (12, 1)) * np.column_stack([np.cos(angles), np.sin(angles)])
        expected = np.zeros((30, 31), bool)
        expected[polygon(points[:, 1], points[:, 0], expected.shape)] = True
        assert np.array_equal(fill_contours([points], expected.shape), expected)


def test_sagittal_contours(source, image, tmp_path):
    """Contours of a plane along x; the image is axial."""
    corners = np.array([(2.5, 1.5), (6.5, 1.5), (6.5, 4.5), (2.5, 4.5)])  # (y, z)
    contours = [
        np.column_stack([
            np.full(4, ORIGIN[0] + x * SPACING[2]), ORIGIN[1] + corners[:, 0] * SPACING[1],
            ORIGIN[2] + corners[:, 1] * SPACING[0],
        ])
        for x in (3, 4)
    ]  # fmt: skip
    expected = np.zeros(SHAPE, np.uint8)
    expected[2:5, 3:7, 3:5] = 1
    path = save(make_structures(source, {"Liver": contours}), tmp_path / "rt.dcm")
    assert np.array_equal(read(path, image, LIVER_ONLY)[0], expected)


@pytest.mark.parametrize(
    ("contours", "sentence"),
    [
        ([square(0.5, 3.5, 1.5)], "contours of liver lie between the slices of the image"),
        ([square(0.5, 3.5, z) for z in (0, 2, 4)], "liver has contours on every 2. slice or fewer"),
        ([square(0.5, 3.5, z) for z in (5, 6)], "the contours of liver reach beyond the image"),
        ([np.add(square(0.5, 3.5, 1), [[0, 0, 0], [0, 0, 2], [0, 0.5, 0], [0, 0, 2]])], "oblique to the image"),
    ],
)
def test_contours_that_are_none_of_the_image(source, image, tmp_path, contours, sentence):
    path = save(make_structures(source, {"Liver": contours}), tmp_path / "rt.dcm")
    with pytest.raises(VolumeError, match=sentence):
        read(path, image, LIVER_ONLY)


def test_a_slice_left_out_is_said(source, image, tmp_path):
    contours = [square(0.5, 3.5, z) for z in (1, 2, 4)]
    found = read(save(make_structures(source, {"Liver": contours}), tmp_path / "rt.dcm"), image, LIVER_ONLY)[1]
    assert found.notes == ("liver: slices between its contours that have none are empty (1)",)


def test_open_contours_and_regions_of_one_name(source, image, tmp_path):
    path = save(make_structures(source, {"Liver": [square(1, 3, 1)]}, kind="OPEN_PLANAR"), tmp_path / "rt.dcm")
    with pytest.raises(VolumeError, match="points or open lines"):
        read(path, image, LIVER_ONLY)
    path = save(make_structures(source, {"Liver": [square(1, 3, 1)], "Liver+": [square(1, 3, 1)]}), path)
    with pytest.raises(VolumeError, match="several regions are called 'Liver': give the number"):
        read(path, image, LIVER_ONLY)
    with pytest.raises(VolumeError, match="contours can be filled on an image alone"):
        read(path, None, LIVER_ONLY)


def test_a_structure_set_of_another_series_is_refused(source, tmp_path):
    other = save_series(make_series(np.zeros(SHAPE, np.uint16), make_person()), tmp_path / "other")
    path = save(make_structures(source, {"Liver": [square(1, 3, 1)]}), tmp_path / "rt.dcm")
    with pytest.raises(VolumeError, match="the DICOM mask was drawn on another series"):
        read(path, other, LIVER_ONLY)


def test_an_image_is_no_mask_and_a_label_map_has_no_names(labels, source, image, tmp_path):
    with pytest.raises(VolumeError, match=r"must hold organ ids|an image"):
        read(next(image.iterdir()), image, {"liver": Organ(labels=[1])})
    path = tmp_path / "m.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(path))
    with pytest.raises(VolumeError, match=r"no lookup table \(dseg\.tsv\) that belongs to it names .*; there is none"):
        read(path, None)


def test_an_image_read_as_a_mask_is_refused(source, image):
    file = next(image.iterdir())
    with pytest.raises(VolumeError, match="is no DICOM segmentation or structure set: give one of these"):
        dicom.read_masks(file, {"liver": ["Liver"]}, lattice=None, series=None, halve=False)


def test_frames_without_places_are_refused(labels, source, image, tmp_path):
    path = save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm")
    one = pydicom.dcmread(path)
    for group in one.PerFrameFunctionalGroupsSequence:
        del group.SegmentIdentificationSequence
    with pytest.raises(VolumeError, match=r"of which segment they are \(ReferencedSegmentNumber is missing\)"):
        read(save(one, path), image)
    one = pydicom.dcmread(save(make_segmentation(source, labels, SEGMENTS), path))
    one.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[0] += 0.3
    with pytest.raises(VolumeError, match="are not voxels of the scan's image, nor of one even stack"):
        read(save(one, path), image)


def test_what_breaks_the_rules_is_one_sentence(labels, source, image, tmp_path):
    one = make_structures(source, {"Liver": [square(1, 3, 1)]})
    contour = one.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = contour.ContourData[:-1]
    with pytest.raises(VolumeError, match=r"rt\.dcm: breaks the rules of DICOM: have"):
        read(save(one, tmp_path / "rt.dcm"), image, LIVER_ONLY)
    one = pydicom.dcmread(save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm"))
    del one.Rows
    with pytest.raises(VolumeError, match="breaks the rules of DICOM"):
        read(save(one, tmp_path / "seg.dcm"), image)


def test_segments_as_the_imaging_data_commons_has_them(source, image, tmp_path, repository):
    """TotalSegmentator's masks there: a name and a code each, a side by a modifier."""
    parameters = read_parameters(repository / "params" / "dicom.yaml")
    aorta, gallbladder = Code("15825003", "SCT", "Aorta"), Code("28231008", "SCT", "Gallbladder")
    segments = [
        describe_segment(1, "Spleen", SPLEEN), describe_segment(2, "Right kidney", KIDNEY, side=RIGHT),
        describe_segment(3, "Left kidney", KIDNEY, side=LEFT), describe_segment(4, "Gallbladder", gallbladder),
        describe_segment(5, "Liver"), describe_segment(6, "Aorta", aorta),
    ]  # fmt: skip
    array = np.zeros(SHAPE, np.uint8)
    for number in range(1, 7):
        array[1:3, number, 1:5] = number
    path = save(make_segmentation(source, array, segments), tmp_path / "seg.dcm")
    found, labels = read(path, image, parameters.cohort.organs)[0], dict(enumerate(parameters.cohort.organs, 1))
    numbers = {"liver": 5, "spleen": 1, "kidney_right": 2, "kidney_left": 3, "aorta": 6}
    for place, organ in labels.items():
        assert np.array_equal(found == place, array == numbers[organ]), organ


def test_without_an_image_a_segmentation_has_its_own_grid(labels, source, image, tmp_path):
    path = save(make_segmentation(source, labels, SEGMENTS, sparse=False), tmp_path / "seg.dcm")
    array, found = read(path, None)
    assert np.array_equal(array, labels)
    assert volumes.get_grid(found.image).differences(volumes.read_grid(image)) == []


def test_a_nifti_image_takes_a_dicom_mask_by_place(labels, source, image, tmp_path):
    nifti = tmp_path / "ct.nii.gz"
    volumes.write_volume(sitk.Flip(volumes.read_volume(image), [False, True, False]), nifti)
    path = save(make_segmentation(source, labels, SEGMENTS), tmp_path / "seg.dcm")
    assert np.array_equal(np.flip(read(path, nifti)[0], 1), labels)
