"""The header of a DICOM file: what kind of object it is, of which series, whether it is whole."""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom import uid
from pydicom.filereader import _read_file_meta_info, read_partial, read_preamble

from helpers.errors import VolumeError
from helpers.limits import VARIABLE, read_limit
from helpers.storage import open_file

IMAGE, SEGMENTATION, STRUCTURES, OTHER = "image", "segmentation", "structures", "other"
_KINDS: dict[str, str] = {
    uid.SegmentationStorage: SEGMENTATION,
    uid.UID("1.2.840.10008.5.1.4.1.1.66.7"): SEGMENTATION,  # label maps, younger than this pydicom
    uid.RTStructureSetStorage: STRUCTURES,
}
# Classes of many frames, whose places stand in each frame's own part of the header.
ENHANCED = (
    uid.EnhancedCTImageStorage,
    uid.EnhancedMRImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage,
)
# They have pixels with places and are no scans.
_NO_SCANS = ("RTDOSE", "RTIMAGE", "RTPLAN", "REG", "PR", "KO", "SR", "PLAN")
_PIECE = 2**20  # bytes unpacked at once, to see how many there are
_GEOMETRY = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "ImageType", "Rows",
    "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "RescaleSlope", "RescaleIntercept", "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence", "SeriesDescription",
)  # fmt: skip
# What else is read of a series, for whoever asks who was scanned and how.
PERSON = (
    "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate",
    "PatientSize", "PatientWeight", "Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "SliceThickness",
    "ContrastBolusAgent", "ContrastBolusAgentSequence",
)  # fmt: skip
# Behind these stand contours, frames and pixels, which may be long: groups 3006 (past the frame of
# reference), 5200 and 7FE0.
_CONTOURS, _FRAMES, _PIXELS = 0x3006, 0x5200, 0x7FE0
_REFERENCED_FRAME = 0x30060010


@dataclass(frozen=True)
class DicomHeader:
    """What is known of one file without its pixels; lengths in mm, LPS."""

    path: Path
    kind: str  # IMAGE, SEGMENTATION, STRUCTURES or OTHER
    instance: str
    series: str
    frame_of_reference: str
    modality: str
    description: str
    multi_frame: bool
    localizer: bool
    samples: int  # values per pixel
    shape: tuple[int, int]  # rows, columns
    spacing: tuple[float, ...]  # between rows, between columns; empty where it is not said
    position: tuple[float, ...]  # of the first pixel's centre; likewise
    orientation: tuple[float, ...]  # of a row, of a column; likewise
    rescale: tuple[float, float]  # slope, intercept
    refers: tuple[str, ...]  # the series that a mask was drawn on, as far as it says
    whole: bool  # whether all pixels that it promises are there, as far as their number is known
    person: Mapping[str, str] = field(default_factory=dict)


def looks_like_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do: by their mark, or by their first group."""
    try:
        with open_file(path) as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or head[:4] in (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00")


def list_files(folder: Path, *, most: float = math.inf) -> list[Path]:
    """List the files below a folder that may be DICOM: not hidden ones, nor a disc's directory.

    Links to folders are followed, none twice. A VolumeError where there are more than `most`.
    """
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += [Path(place, name) for name in names if name[0] != "." and name.upper() != "DICOMDIR"]
        if len(found) > most:
            raise VolumeError(f"{folder}: holds more than {most:,} files: give the folder of one series alone")
    return sorted(path for path in found if path.is_file())


def read_header(path: Path, *, person: bool = False) -> DicomHeader | None:
    """Read a file's header up to its frames, contours or pixels; None where it cannot be read.

    A file that is no DICOM cannot, nor one that ends within its header, nor one whose deflated
    contents are larger than any image may be. With `person`, the tags named in :data:`PERSON` are
    kept too.
    """
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _unpacks_to_too_much(stream):
                return None
            tags: list[Any] = [
                pydicom.tag.Tag(name) for name in ("SpecificCharacterSet", *_GEOMETRY, *(PERSON if person else ()))
            ]
            dataset = read_partial(stream, stop_when=_is_long, specific_tags=tags, force=True)
            end, size = stream.tell(), stream.seek(0, 2)
            return _describe(dataset, path, size - end, person=person)
    except Exception:  # pydicom and zlib raise whatever their parsers meet
        return None


def read_headers(paths: list[Path], *, person: bool = False) -> tuple[list[DicomHeader], list[Path]]:
    """Read the headers of files that look like DICOM; return also those that cannot be read."""
    found, broken = [], []
    for path in filter(looks_like_dicom, paths):
        header = read_header(path, person=person)
        if header is None:
            broken.append(path)
        else:
            found.append(header)
    return found, broken


@contextmanager
def refuse_broken(path: Path) -> Iterator[None]:
    """Raise a VolumeError for whatever pydicom's parsers raise.

    What is missing or of the wrong kind shows only where it is used.
    """
    try:
        yield
    except (VolumeError, MemoryError):
        raise
    except Exception as error:
        raise VolumeError(f"{path.name}: breaks the rules of DICOM: have it written again") from error


def read_dataset(path: Path, *, pixels: bool = True) -> pydicom.Dataset:
    """Read a whole file, or all but its pixels.

    Raises a VolumeError where it is damaged.
    """
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not _unpacks_to_too_much(stream):
                return pydicom.dcmread(path, force=True, stop_before_pixels=not pixels)
    except Exception as error:  # pydicom raises whatever its parsers meet
        raise VolumeError(
            f"{path.name}: the DICOM file cannot be read, it may be truncated or damaged: copy it again from its source"
        ) from error
    raise VolumeError(
        f"{path.name}: the DICOM file unpacks to more than {read_limit():g} GB: copy it again from its source where "
        f"that is wrong, or set {VARIABLE} to more"
    )


def _unpacks_to_too_much(stream: BinaryIO) -> bool:
    """Tell whether a file is deflated as a whole, which pydicom unpacks at once, to too much."""
    deflated = uid.DeflatedExplicitVRLittleEndian.encode() in stream.read(1024)
    stream.seek(0)
    if not deflated:
        return False
    read_preamble(stream, force=True)
    _read_file_meta_info(stream)
    inflater, size, data = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
    while not inflater.eof and (data := inflater.unconsumed_tail or stream.read(_PIECE)):
        size += len(inflater.decompress(data, _PIECE))
        if size > read_limit() * 1e9:
            break
    stream.seek(0)
    return size > read_limit() * 1e9


def _is_long(tag: Any, _vr: str | None, _length: int) -> bool:
    if tag.group == _CONTOURS:
        return bool(tag > _REFERENCED_FRAME)
    return tag.group in (_FRAMES, _PIXELS)


def _describe(dataset: Any, path: Path, rest: int, *, person: bool) -> DicomHeader | None:
    kind_uid = str(dataset.get("SOPClassUID", ""))
    if not kind_uid or not dataset.get("SeriesInstanceUID"):
        return None
    shape = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    samples, frames = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("NumberOfFrames") or 1)
    modality = str(dataset.get("Modality") or "")
    position = _read_numbers(dataset, "ImagePositionPatient", 3)
    multi_frame = kind_uid in ENHANCED or frames > 1
    placed = shape[0] > 0 and (bool(position) or kind_uid in ENHANCED) and modality not in _NO_SCANS
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    plain = syntax is None or not (uid.UID(syntax).is_encapsulated or uid.UID(syntax).is_deflated)
    promised = shape[0] * shape[1] * samples * frames * int(dataset.get("BitsAllocated") or 0) // 8
    return DicomHeader(
        path=path,
        kind=_KINDS.get(kind_uid, IMAGE if placed else OTHER),
        instance=str(dataset.get("SOPInstanceUID", "")),
        series=str(dataset.SeriesInstanceUID),
        frame_of_reference=_find_frame_of_reference(dataset),
        modality=modality,
        description=str(dataset.get("SeriesDescription") or ""),
        multi_frame=multi_frame,
        localizer="LOCALIZER" in (dataset.get("ImageType") or []),
        samples=samples,
        shape=shape,
        spacing=_read_numbers(dataset, "PixelSpacing", 2),
        position=position,
        orientation=_read_numbers(dataset, "ImageOrientationPatient", 6),
        rescale=(float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)),
        refers=tuple(dict.fromkeys(_list_referenced(dataset))),
        whole=not plain or rest >= promised,
        person={name: _write_out(dataset.get(name)) for name in PERSON} if person else {},
    )


def _read_numbers(dataset: Any, name: str, count: int) -> tuple[float, ...]:
    values = dataset.get(name)
    return tuple(map(float, values)) if values is not None and len(values) == count else ()


def _write_out(value: Any) -> str:
    """Return a tag's value as text; several are joined, a sequence counts as being there."""
    if value is None:
        return ""
    if isinstance(value, pydicom.Sequence):
        return "yes" if len(value) else ""
    parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return "/".join(str(part).strip() for part in parts if str(part).strip())


def _find_frame_of_reference(dataset: Any) -> str:
    """Return a file's frame of reference; a structure set may say it where it says its series."""
    places = [dataset, *(dataset.get("ReferencedFrameOfReferenceSequence") or [])]
    return next((str(one.FrameOfReferenceUID) for one in places if one.get("FrameOfReferenceUID")), "")


def _list_referenced(dataset: Any) -> Iterator[str]:
    """Yield the series that a segmentation or a structure set says it was drawn on."""
    for series in dataset.get("ReferencedSeriesSequence") or []:
        yield str(series.SeriesInstanceUID)
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                yield str(series.SeriesInstanceUID)
