"""One study in which everybody's mask or prediction lies in another odd file: read right, or said
truly, and by the check as by the stages."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from helpers import cohort, inference, performance
from helpers.models import list_refused, list_templates
from helpers.study import load_study
from tests.checked_study import check_problems
from tests.small_volumes import pack_nifti

SIZE = (9, 8, 7)
AFFINE = np.array([[-2.0, 0, 0, 8], [0, -3, 0, 10], [0, 0, 4, -12]])
LABELS = np.zeros(SIZE, np.uint8)
LABELS[1:5, 1:6, 1:6], LABELS[6:8, 2:6, 2:5] = 1, 2
DRAWN = np.roll(LABELS, 1, axis=2)
DICE = 2 * np.count_nonzero((LABELS == 1) & (DRAWN == 1)) / (2 * np.count_nonzero(LABELS == 1))


def image(labels=LABELS) -> sitk.Image:
    """Return labels as an image on the grid that AFFINE says."""
    made = sitk.GetImageFromArray(np.ascontiguousarray(labels.transpose(2, 1, 0)))
    made.SetSpacing((2, 3, 4))
    made.SetOrigin((-8, -10, -12))
    return made


def nifti(labels=LABELS, **options) -> bytes:
    return pack_nifti(labels, AFFINE, **options)


def typed(kind: str, code: int) -> bytes:
    """Return a NIfTI file of a type that the packer does not know."""
    raw = bytearray(nifti(LABELS, patch={70: ("2h", code, np.dtype(kind).itemsize * 8)})[:352])
    return bytes(raw) + LABELS.astype(kind).tobytes(order="F")


def nrrd(encoding: str, data: bytes, *, name: str = "") -> bytes:
    lines = [
        "NRRD0004", "type: uchar", "dimension: 3", "space: left-posterior-superior", "sizes: 9 8 7",
        "space directions: (2,0,0) (0,3,0) (0,0,4)", "kinds: domain domain domain", "endian: little",
        f"encoding: {encoding}", "space origin: (-8,-10,-12)", *([f"data file: {name}"] if name else []), "", "",
    ]  # fmt: skip
    return "\n".join(lines).encode() + data


RAW = LABELS.tobytes(order="F")
TEXT = " ".join(map(str, LABELS.ravel(order="F"))).encode()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def pair(folder: Path, stem: str, *, magic: bytes = b"ni1\0", packed: bool = False) -> None:
    """Write a header and its voxels as two files, big-endian."""
    whole = bytearray(nifti(LABELS.astype(np.int16), order=">", patch={344: ("4s", magic), 108: ("f", 0.0)}))
    end, turn = (".gz", gzip.compress) if packed else ("", bytes)
    write(folder / f"{stem}.hdr{end}", turn(bytes(whole[:348])))
    write(folder / f"{stem}.img{end}", turn(bytes(whole[352:])))


def detach(folder: Path) -> None:
    write(folder / "detached.nhdr", nrrd("raw", b"", name="detached.raw"))
    write(folder / "detached.raw", RAW)


def itk(folder: Path, name: str, *, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image(), str(folder / name), packed)


EXTENDED = bytearray(nifti(patch={108: ("f", 384.0)})[:352]) + struct.pack("<2i24x", 32, 6) + RAW
EXTENDED[348] = 1
QFORM = {252: ("2h", 1, 0), 256: ("6f", 0, 0, 1, 8, 10, -12)}  # a half turn, and no sform

# By the name in the table: how the file is written (or what is in it), and what its scan's reason
# says; nothing where it is read with its Dice.
REFERENCES: dict[str, tuple[object, str]] = {
    "detached.nhdr": (lambda to: detach(to), ""),
    "alone.nhdr": (nrrd("raw", b"", name="absent.raw"), "its voxels are not beside it (absent.raw)"),
    "raw.nrrd": (nrrd("raw", RAW), ""),
    "short.nrrd": (nrrd("raw", RAW[:-1]), "truncated or damaged"),
    "text.nrrd": (nrrd("ascii", TEXT), ""),
    "short_text.nrrd": (nrrd("ascii", TEXT[:-40]), "truncated or damaged"),
    "bzip2.nrrd": (nrrd("bzip2", bz2.compress(RAW)), "compressed by bzip2, which is not read"),
    "packed.mha": (lambda to: itk(to, "packed.mha", packed=True), ""),
    "plain.mhd": (lambda to: itk(to, "plain.mhd", packed=False), ""),
    "packed.mhd": (lambda to: itk(to, "packed.mhd", packed=True), ""),
    "pair.img": (lambda to: pair(to, "pair"), ""),
    "packed_pair.hdr.gz": (lambda to: pair(to, "packed_pair", packed=True), ""),
    "analyze.img": (lambda to: pair(to, "analyze", magic=b"\0\0\0\0"), "is an Analyze file"),
    "one_volume.nii": (nifti(patch={40: ("8h", 4, 9, 8, 7, 1, 1, 1, 1)}), "has a fourth axis of length 1"),
    "one_of_one.nii": (nifti(patch={40: ("8h", 5, 9, 8, 7, 1, 1, 1, 1)}), "must be a 3D image; it has 5 axes"),
    "one_slice_of_2d.nii": (nifti(patch={40: ("8h", 2, 9, 8, 1, 1, 1, 1, 1)}), "must be a 3D image"),
    "int8.nii": (typed("i1", 256), ""),
    "uint16.nii": (typed("<u2", 512), ""),
    "uint64.nii": (typed("<u8", 1280), ""),
    "int64.nii": (nifti(LABELS.astype(np.int64)), ""),
    "float64.nii.gz": (gzip.compress(nifti(LABELS.astype(np.float64))), ""),
    "bits.nii": (nifti(patch={70: ("2h", 1, 1)}), "its voxels are of a type that is not read (1)"),
    "slope_0.nii": (nifti(patch={112: ("2f", 0.0, 0.0)}), ""),
    "slope_half.nii": (nifti(LABELS * 2, patch={112: ("2f", 0.5, 0.0)}), ""),
    "slope_third.nii": (nifti(LABELS * 3, patch={112: ("2f", 1 / 3, 0.0)}), ""),
    "slope_2.nii": (nifti(patch={112: ("2f", 2.0, 0.0)}), "holds labels that no organ names (4)"),
    "qform_alone.nii": (nifti(patch={**QFORM, 280: ("12f", *[0.0] * 12)}), ""),
    "no_unit.nii": (nifti(patch={123: ("B", 0)}), ""),
    "qfac_0.nii": (nifti(patch={76: ("8f", 0, 2, 3, 4, 0, 0, 0, 0), **QFORM}), ""),
    "extended.nii": (bytes(EXTENDED), ""),
    "nothing.nii": (b"", "is empty"),
    "nothing.mha": (b"", "is empty"),
    "nothing_packed.nii.gz": (gzip.compress(b""), "is empty"),
    "garbage_behind.nii.gz": (gzip.compress(nifti()) + b"not gzip at all", ""),
    "half_a_member.nii.gz": (gzip.compress(nifti()[:500]) + gzip.compress(nifti()[500:])[:-9], "truncated or damaged"),
    "twice_packed.nii.gz": (gzip.compress(gzip.compress(nifti())), "is compressed twice"),
    "folder.nii.gz": (lambda to: write(to / "folder.nii.gz/readme.txt", b""), "the folder holds none of the masks"),
    "absent.nii.gz": (lambda to: None, "no such file"),
    "no_affine.nii": (nifti(patch={280: ("f", np.inf)}), "the axes in its header (sform) are zero, no numbers"),
    "floats.nii": (nifti(np.where(LABELS == 1, np.float32(1.0004), LABELS).astype(np.float32)), ""),
    "fractions.nii": (nifti((LABELS * np.float32(0.4)).astype(np.float32)), "it holds fractions"),
    "nan.nii": (nifti(np.where(LABELS == 0, np.nan, LABELS).astype(np.float32)), "it holds NaN or infinity"),
    "negative.nii": (nifti(np.where(LABELS == 0, np.int16(-1), LABELS)), "it holds -1"),
    "hounsfield.nii": (nifti(LABELS.astype(np.int16) * 100 - 1000), "it holds -1000"),
    "picture.png": (b"\x89PNG\r\n\x1a\n" + bytes(400), "is not an image that can be opened"),
    "slice.dcm": (bytes(128) + b"DICM" + bytes(300), "its DICOM header cannot be read"),
    "~nobody-of-this-name/x.nii": (lambda to: None, "no such file"),
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """Return a study of a person per odd reference, and of sound ones with odd predictions."""
    rows = []
    for number, (name, (content, _)) in enumerate(REFERENCES.items()):
        rows.append({"scan": f"r{number:02d}", "reference": name if name.startswith("~") else f"odd/{name}"})
        if isinstance(content, bytes):
            write(tmp_path / "odd" / name, content)
        else:
            content(tmp_path / "odd")
        write(tmp_path / "ours" / f"r{number:02d}.nii.gz", gzip.compress(nifti(DRAWN)))
    for number, (name, (content, _)) in enumerate(REFERENCES.items()):
        if isinstance(content, bytes) and name.endswith((".nii", ".nii.gz")):
            rows.append({"scan": f"p{number:02d}", "reference": f"sound/{number}.nii"})
            write(tmp_path / "sound" / f"{number}.nii", nifti())
            # Read by what it is, not by its name.
            write(tmp_path / "ours" / f"p{number:02d}.nii.gz", content)
    table = pd.DataFrame(rows).assign(sex=["female", "male"][0], modality="CT")
    table.insert(0, "subject", table["scan"])
    table.to_csv(tmp_path / "people.csv", index=False)
    parameters = {
        "name": "odd",
        "cohort": {
            "source": "table", "path": "people.csv", "attributes": {"sex": None},
            "organs": {"liver": {"labels": [1]}, "spleen": {"labels": [2]}},
        },
        "models": [{"name": "ours", "kind": "precomputed", "path": "ours/{scan}.nii.gz"}],
        "compute": {"workers": 0},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(json.dumps(parameters), encoding="utf-8")
    return load_study(tmp_path / "study.yaml")


def test_each_odd_file_is_read_right_or_said_truly_by_check_and_stages_alike(study):
    found = cohort.check_cohort(study, list_templates(study), list_refused(study))
    told = "\n".join(found.problems)
    table = cohort.build_cohort(study).table.set_index("scan")
    made = inference.run_inference(study).set_index("scan")
    scores = performance.measure_performance(study).set_index(["scan", "organ"])
    for number, (name, (_, said)) in enumerate(REFERENCES.items()):
        row = table.loc[f"r{number:02d}"]
        assert row["included"] == (not said), f"{name}: {row['reason']}"
        assert said in row["reason"], f"{name}: {row['reason']}"
        assert (f"scan 'r{number:02d}'" in told) == bool(said), name
        if said:
            assert f"would be left out: {row['reason']}" in told, name
        else:
            assert scores.loc[(f"r{number:02d}", "liver"), "dice"] == pytest.approx(DICE), name
            assert scores.loc[(f"r{number:02d}", "liver"), "volume_ref_ml"] == pytest.approx(100 * 24 / 1000), name
        if f"p{number:02d}" in made.index:
            prediction = made.loc[f"p{number:02d}"]
            # A label that no organ names is no organ's.
            fine = not said or "labels that no organ names" in said
            assert (prediction["status"] == "ok") == fine, f"{name}: {prediction['error']}"
            assert fine or said in prediction["error"], f"{name}: {prediction['error']}"
    check_problems(found.problems, table, made)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_may_not_be_read_is_said_and_stops_nobody_else(study, monkeypatch):
    """Also where the tests run as a user who may read everything."""
    refused = {str(study.root / "odd" / "raw.nrrd"), str(study.root / "ours" / "r09.nii.gz")}
    opened = Path.open

    def open_file(self, *arguments, **options):
        if str(self) in refused:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_file)
    found = cohort.check_cohort(study, list_templates(study))
    table = cohort.build_cohort(study).table.set_index("scan")
    made = inference.run_inference(study).set_index("scan")
    said = "cannot be read (Permission denied): change its permissions"
    assert said in table.loc["r02", "reason"] and said in made.loc["r09", "error"]
    assert any("'r02'" in text and said in text for text in found.problems)
    assert any("models.ours: scan 'r09'" in text and said in text for text in found.problems)
    assert (made["status"] == "ok").sum() > 20
