"""DICOM files as scanners and annotation tools write them: series, multi-frame images,
segmentations, structure sets."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import highdicom
import numpy as np
from highdicom.seg import SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    generate_uid,
)

ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
LIVER, SPLEEN, KIDNEY = (
    Code("10200004", "SCT", "Liver"), Code("78961009", "SCT", "Spleen"), Code("64033007", "SCT", "Kidney"),
)  # fmt: skip
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
SHAPE, SPACING, ORIGIN = (6, 9, 8), (2.5, 0.9, 0.8), (-40.5, 12.25, 300.0)  # (z, y, x); x, y, z
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def make_person(number: int = 1, **tags) -> Dataset:
    """Return what all objects of one study share; `tags` over it."""
    one = Dataset()
    one.PatientID, one.PatientName, one.PatientBirthDate = f"MRN{number:05}", f"Doe^Jane{number}", "19600203"
    one.PatientSex, one.PatientAge, one.PatientSize, one.PatientWeight = "F", "063Y", "1.70", "68"
    one.StudyInstanceUID, one.StudyDate, one.StudyTime = generate_uid(), "20240105", "101500"
    one.AccessionNumber, one.StudyID, one.ReferringPhysicianName = "A1", "1", "Ref^Erring"
    one.FrameOfReferenceUID, one.PositionReferenceIndicator = generate_uid(), ""
    one.Manufacturer, one.ManufacturerModelName = "ACME", "Scanner 9"
    one.DeviceSerialNumber, one.SoftwareVersions = "7", "1.0"
    for name, value in tags.items():
        setattr(one, name, value)
    return one


def start(person: Dataset, storage: str, modality: str) -> Dataset:
    """Return the beginning of an object of a study."""
    one = Dataset()
    one.update(person)
    one.SOPClassUID, one.SOPInstanceUID, one.Modality = storage, generate_uid(), modality
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = storage, one.SOPInstanceUID
    return one


def describe_pixels(one: Dataset, array: np.ndarray) -> None:
    one.Rows, one.Columns = array.shape[-2:]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, int(array.dtype.kind == "i")
    one.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()


def save(one: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def make_series(
    array: np.ndarray,
    person: Dataset,
    *,
    modality: str = "CT",
    spacing=SPACING,
    origin=ORIGIN,
    orientation=AXIAL,
    rescale=(1.0, -1024.0),
    **tags,
) -> list[Dataset]:
    """Return one object per slice of stored values (z, y, x)."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal, series = np.cross(row, column), generate_uid()
    slices = []
    for place, values in enumerate(array):
        one = start(person, CTImageStorage if modality == "CT" else MRImageStorage, modality)
        one.SeriesInstanceUID, one.SeriesNumber, one.InstanceNumber = series, 2, place + 1
        one.ImageType, one.SeriesDescription = ["ORIGINAL", "PRIMARY", "AXIAL"], "Abdomen"
        one.ImagePositionPatient = [f"{value:.8g}" for value in np.array(origin) + place * spacing[0] * normal]
        one.ImageOrientationPatient = [f"{value:.10g}" for value in orientation]
        one.PixelSpacing, one.SliceThickness = list(spacing[1:]), spacing[0]
        if modality == "CT":
            one.RescaleSlope, one.RescaleIntercept, one.KVP = *rescale, "120"
            one.ConvolutionKernel, one.ContrastBolusAgent = ["Br40f", "3"], "Iomeron"
        else:
            one.ScanningSequence, one.SequenceVariant, one.ScanOptions = "GR", "SP", ""
            one.MRAcquisitionType, one.EchoTime, one.EchoTrainLength = "2D", "4", "1"
        for name, value in tags.items():
            setattr(one, name, value)
        describe_pixels(one, values)
        slices.append(one)
    return slices


def save_series(slices: list[Dataset], folder: Path, prefix: str = "i") -> Path:
    """Write slices under names in another order than their places."""
    for place, one in enumerate(slices):
        save(one, folder / f"{prefix}{len(slices) - place:03}.dcm")
    return folder


def make_enhanced(
    array: np.ndarray,
    person: Dataset,
    *,
    modality: str = "CT",
    scales=None,
    order=None,
    spacing=SPACING,
    origin=ORIGIN,
    orientation=AXIAL,
) -> Dataset:
    """Return a multi-frame object of stored values (z, y, x), its frames stored in an `order`."""
    order = list(range(len(array))) if order is None else order
    scales = scales or [(1.0, -1024.0)] * len(array)
    storage = EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage
    one = start(person, storage, modality)
    one.SeriesInstanceUID, one.SeriesNumber, one.InstanceNumber = generate_uid(), 3, 1
    one.ImageType, one.NumberOfFrames = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], len(array)
    one.ContentDate, one.ContentTime = "20240105", "101500"
    one.AcquisitionDateTime = "20240105101500"
    normal = np.cross(orientation[:3], orientation[3:])
    shared, turn, measures = Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient = [f"{value:.10g}" for value in orientation]
    measures.PixelSpacing, measures.SliceThickness = list(spacing[1:]), spacing[0]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([turn]), Sequence([measures])
    one.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for number, place in enumerate(order):
        group, position, content, values = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{value:.8g}" for value in np.array(origin) + place * spacing[0] * normal]
        content.StackID, content.InStackPositionNumber = "1", place + 1
        content.DimensionIndexValues = [1, place + 1]
        content.FrameAcquisitionDateTime, content.FrameReferenceDateTime = "20240105101500", "20240105101500"
        content.FrameAcquisitionNumber, content.FrameAcquisitionDuration = number + 1, 1.0
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = *map(str, scales[place]), "HU"
        group.PlanePositionSequence, group.FrameContentSequence = Sequence([position]), Sequence([content])
        group.PixelValueTransformationSequence = Sequence([values])
        groups.append(group)
    one.PerFrameFunctionalGroupsSequence = Sequence(groups)
    describe_pixels(one, array[order])
    return one


def describe_segment(number: int, label: str, kind: Code = LIVER, *, side: Code | None = None) -> SegmentDescription:
    segment = SegmentDescription(number, label, ANATOMY, kind, "MANUAL")
    if side is not None:
        modifier = Dataset()
        modifier.CodeValue, modifier.CodingSchemeDesignator, modifier.CodeMeaning = (
            side.value,
            side.scheme_designator,
            side.meaning,
        )
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = Sequence([modifier])
    return segment


def make_segmentation(
    source: list[Dataset],
    pixels: np.ndarray,
    segments: list[SegmentDescription],
    *,
    kind: str = "BINARY",
    description: str = "Expert",
    sparse: bool = True,
    **options,
) -> Dataset:
    """Return a segmentation of a series: `pixels` are ids (z, y, x), or one mask per segment
    (z, y, x, segment)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return highdicom.seg.Segmentation(
            source_images=source,
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=segments,
            series_instance_uid=generate_uid(),
            series_number=50,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="ACME",
            manufacturer_model_name="Annotator",
            software_versions="1",
            device_serial_number="1",
            omit_empty_frames=sparse,
            series_description=description,
            **options,
        )


def shuffle_frames(one: Dataset, rng: np.random.Generator) -> Dataset:
    """Return the same object with its frames stored in another order."""
    frames = one.pixel_array.reshape(-1, one.Rows, one.Columns)
    order = rng.permutation(len(frames))
    one = copy.deepcopy(one)
    groups = list(one.PerFrameFunctionalGroupsSequence)
    one.PerFrameFunctionalGroupsSequence = Sequence([groups[place] for place in order])
    if one.BitsAllocated == 1:
        data = np.packbits(frames[order].ravel(), bitorder="little").tobytes()
        one.PixelData = data + b"\0" * (len(data) % 2)
    else:
        one.PixelData = np.ascontiguousarray(frames[order]).tobytes()
    return one


def make_structures(
    source: list[Dataset], regions: dict[str, list[np.ndarray]], *, kind: str = "CLOSED_PLANAR", description: str = "RT"
) -> Dataset:
    """Return a structure set: for each region its contours, (points, 3) in mm."""
    one = start(Dataset(), RTStructureSetStorage, "RTSTRUCT")
    for tag in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        setattr(one, tag, source[0].get(tag))
    one.SeriesInstanceUID, one.SeriesNumber, one.SeriesDescription = generate_uid(), 60, description
    one.StructureSetLabel = "RT"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = source[0].SeriesInstanceUID
    study.ReferencedSOPInstanceUID, study.RTReferencedSeriesSequence = one.StudyInstanceUID, Sequence([series])
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = source[0].FrameOfReferenceUID, Sequence([study])
    one.ReferencedFrameOfReferenceSequence = Sequence([frame])
    rois, contours = [], []
    for number, (name, polygons) in enumerate(regions.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name.strip("+"), "MANUAL"
        roi.ReferencedFrameOfReferenceUID = source[0].FrameOfReferenceUID
        drawn.ReferencedROINumber, items = number, []
        for polygon in polygons:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(polygon)
            item.ContourData = [f"{value:.6f}" for value in np.asarray(polygon, float).ravel()]
            items.append(item)
        drawn.ContourSequence = Sequence(items)
        rois.append(roi)
        contours.append(drawn)
    one.StructureSetROISequence, one.ROIContourSequence = Sequence(rois), Sequence(contours)
    return one
