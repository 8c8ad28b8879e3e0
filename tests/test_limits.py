"""What a file's header or size promises is compared with a limit before anything is read by it."""

from __future__ import annotations

import gzip
import json
import zipfile

import numpy as np
import openpyxl
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom import uid

from helpers import dicom, limits, volumes
from helpers.cohort import table_files
from helpers.cohort.table_files import read_table_file
from helpers.dicom import series
from helpers.errors import ParameterError, SegfairError, VolumeError, quote, shorten
from helpers.parameters import read_parameters
from helpers.study import load_study
from helpers.volumes import png_slices
from tests.small_volumes import pack_nifti

LABELS = np.zeros((9, 8, 7), np.uint8)


def test_a_header_that_asks_for_more_than_any_image_has_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(pack_nifti(LABELS, patch={40: ("8h", 3, 2048, 2048, 1536, 1, 1, 1, 1)})))
    with pytest.raises(VolumeError, match=r"asks for 2048 × 2048 × 1536 voxels, 6.4 GB in memory, where 1.25 GB"):
        volumes.read_volume(path)
    (tmp_path / "x.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 20000 20000 99\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n\0"
    )
    with pytest.raises(VolumeError, match=r"39.6 GB in memory"):
        volumes.read_volume(tmp_path / "x.mha")
    monkeypatch.setenv(limits.VARIABLE, "8")
    with pytest.raises(VolumeError, match="truncated or damaged"):
        volumes.read_volume(path)
    monkeypatch.setenv(limits.VARIABLE, "much")
    with pytest.raises(SegfairError, match="must be a number of gigabytes; got 'much': correct or unset it"):
        volumes.read_volume(path)


def test_a_stream_is_read_as_far_as_its_header_promises(tmp_path):
    good = pack_nifti(LABELS)
    for surplus, said in ((1000, ""), (8 << 20, "holds far more than the 856 bytes that its header promises")):
        (tmp_path / "x.nii.gz").write_bytes(gzip.compress(good + bytes(surplus), 1))
        if not said:
            assert volumes.read_volume(tmp_path / "x.nii.gz").GetSize() == (9, 8, 7)
            continue
        with pytest.raises(VolumeError, match=said):
            volumes.read_volume(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.raw", "C:\\\\x.raw"])
def test_voxels_of_another_folder_are_not_read(tmp_path, name):
    head = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = "
    (tmp_path / "x.mhd").write_text(head + name + "\n", encoding="utf-8")
    with pytest.raises(VolumeError, match=r"its voxels lie in another folder .*: put both files into one"):
        volumes.read_volume(tmp_path / "x.mhd")


def test_a_slice_of_another_size_is_not_unpacked(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "x.png")
    assert png_slices._read_slice(tmp_path / "x.png", (30, 20)).shape == (20, 30)
    with pytest.raises(
        VolumeError, match="has PNG slices of 30 × 20 pixels where the DICOM series beside it has 3 × 4"
    ):
        png_slices._read_slice(tmp_path / "x.png", (3, 4))


def test_a_folder_of_very_many_files_and_a_deflated_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "_MOST_FILES", 3)
    for name in "abcd":
        (tmp_path / name).touch()
    with pytest.raises(VolumeError, match="holds more than 3 files: give the folder of one series alone"):
        volumes.read_volume(tmp_path)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = uid.DeflatedExplicitVRLittleEndian, uid.CTImageStorage
    packed = pydicom.Dataset()
    packed.file_meta, packed.SOPClassUID, packed.SOPInstanceUID = meta, uid.CTImageStorage, "1.2.3"
    packed.SeriesInstanceUID, packed.BitsAllocated, packed.PixelData = "1.2", 16, bytes(4_000_000)
    packed.save_as(tmp_path / "x", enforce_file_format=True)
    assert (tmp_path / "x").stat().st_size < 10_000 and len(dicom.read_headers([tmp_path / "x"])[0]) == 1
    monkeypatch.setenv("SEGFAIR_LARGEST_IMAGE_GB", "0.003")
    assert dicom.read_headers([tmp_path / "x"]) == ([], [tmp_path / "x"])
    with pytest.raises(VolumeError, match=r"unpacks to more than 0.003 GB: copy it again .*, or set SEGFAIR_LARGEST"):
        dicom.headers.read_dataset(tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty: copy params/template.yaml"), ("[1]", r"must hold keys and values .* got \[1\]"),
        ("name: 2024-02-30", r"'2024-02-30' is no date: put it in quotes if it is text .*line 1"),
        ("seed: " + "9" * 5000, "is no number: put it in quotes"), ("seed: !!bool maybe", "'maybe' is no yes or no"),
        ("? [a, b]\n: 1", "a key must be one word or number; it is a list or a section"),
        ("a: 1\na: 2", "key 'a' appears twice"), ("a: &a [*a]", "nested more than 50 levels deep, or within itself"),
        ("[" * 5000 + "]" * 5000, "nested more than 50 levels deep"), ("a: \0", "holds NUL characters"),
        ("a: " + "x" * 2_000_001, "is larger than 2 MB, which no list of settings is"),
        ("".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'x'] * 9)}]\n" for i in range(10)),
         r"stands for more than 1,000,000 values once its aliases \(\*name\) are written out"),
        ("".join(f"k{i}: 1\n" for i in range(5000)), "k57: unknown key.*… and more"),
    ],
)  # fmt: skip
def test_parameter_files_that_no_person_wrote_are_one_message(tmp_path, text, said):
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=f"(?s){said}") as caught:
        read_parameters(tmp_path / "x.yaml")
    assert len(str(caught.value)) < 20_000


def test_a_folder_is_no_parameter_file_and_an_impossible_path_is_none(tmp_path):
    with pytest.raises(ParameterError, match="is not a file: give the parameter file"):
        read_parameters(tmp_path)
    study = {
        "name": "s", "models": [{"name": "m", "kind": "prompt_only"}],
        "cohort": {"source": "table", "path": "x", "organs": {"liver": {"labels": [1]}}, "attributes": {"sex": None}},
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(study), encoding="utf-8")
    for path in ("a\0b", "x" * 5000):
        with pytest.raises(ParameterError, match="cannot be the path of a file: correct it"):
            load_study(tmp_path / "s.yaml").resolve(path)


def test_tables_beyond_what_people_fill_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "x" * 1_000_001 + ",1\n", encoding="utf-8")
    with pytest.raises(SegfairError, match="has a cell of more than 1,000,000 letters: close the quotation mark"):
        read_table_file(path)
    path.write_text(",".join(f"c{i}" for i in range(10_001)) + "\n1\n", encoding="utf-8")
    with pytest.raises(SegfairError, match="has 10,001 columns, more than is read: keep the rows and columns"):
        read_table_file(path)
    book = openpyxl.Workbook()
    book.active.append(["a"])
    book.active["XFD1048576"] = 1
    book.save(tmp_path / "x.xlsx")
    with pytest.raises(SegfairError, match="its table reaches to row 1,048,576 and column 16,384: delete what stands"):
        read_table_file(tmp_path / "x.xlsx")
    with zipfile.ZipFile(tmp_path / "y.xlsx", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b" " * 64_000_001)
    with pytest.raises(SegfairError, match="unpacks to 64,000,001 bytes, too many for a workbook: save it as CSV"):
        read_table_file(tmp_path / "y.xlsx")
    monkeypatch.setattr(table_files, "_MOST_CELLS", 5)
    pd.DataFrame({"a": range(6)}).to_parquet(tmp_path / "x.parquet")
    for file in (path, tmp_path / "x.parquet"):
        path.write_text("a,b\n" * 5, encoding="utf-8")
        with pytest.raises(SegfairError, match="more than is read"):
            read_table_file(file)


def test_messages_quote_no_more_than_one_reads():
    assert len(quote(["x" * 1000] * 1000)) < 2000 and quote("short") == "'short'"
    assert len(str(SegfairError("x" * 10_000 + ": mend it"))) < 1600 and str(SegfairError("a" * 9000 + "z")).endswith(
        "z"
    )
    assert shorten("\n".join("abc" for _ in range(100))).count("\n") == 60
