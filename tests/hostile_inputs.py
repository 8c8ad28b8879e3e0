"""Inputs that are damaged, absurd or meant to harm, drawn from a seed: images and masks, tables,
parameter files, weights."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from openpyxl import Workbook

from tests.small_volumes import pack_nifti

LABELS = np.zeros((9, 8, 7), np.uint8)
LABELS[1:5, 1:6, 1:6], LABELS[6:8, 2:6, 2:5] = 1, 2
GOOD = pack_nifti(LABELS, np.array([[-2.0, 0, 0, 8], [0, -3, 0, 10], [0, 0, 4, -12]]))
NUMBERS = (-8.0, 0.0, float("nan"), float("inf"), -float("inf"), 1e30, 1e-30, 2.0**31)
NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 9 8 7\nspace directions: (2,0,0) "
    "(0,3,0) (0,0,4)\nkinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (-8,-10,-12)\n"
)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = -8 -10 -12\nElementSpacing = 2 3 4\nDimSize = 9 8 7\n"
    "ElementType = MET_UCHAR\n"
)
TEXTS = [
    "../../etc/x", "..", ".hidden", "CON", "a/b", "a\\b", "x" * 300, "x" * 200_000, " a ", "a\tb", "a\nb", "a\rb",
    "\x00", "$(touch PWNED)", "`touch PWNED`", "{scan}", "{subject.__class__}", "{scan:>99999999999}",
    "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "\u202egnp.exe", "\u200b", "😀", "\x1b[31mred\x1b[0m",
    "%s%n", "null", "NaN",
    "1e400", "-inf",
    "0x10", "٣٠", "9" * 400, "--force", "~", "~nosuchuser/x", "/", "/etc/passwd", "/dev/zero", "/dev/stdin", "masks",
    "file:///etc/passwd", "*", "[a]", "\ufeff", "\ud800", "2024-02-30", "${NOPE}/x", "masks/a.nii.gz/x", "C:\\x\\y.nii",
]  # fmt: skip
VALUES = [
    "2024-13-45", "2024-02-30", "12:30:45", "0o9", "9" * 5000, "1e999", ".nan", "-.inf", "true", "null", "[]", "{}",
    "{a: b}", "[[1]]", "'../x'", '"\\0"', '"\\ud800"', "*missing", "&a [*a]", "|", "%x", "? [a, b]", "- a",
    "x" * 100_000,
    "é",
    "[.nan, .nan]", "2147483648", "!!python/object/apply:os.system ['touch PWNED']",
    "!!python/name:os.system", "!unknown x",
    "!!binary '!!!'", "!!timestamp 2001-99-99", "!!int x", "!!float x", "!!bool maybe", "!!set {a, b}", "[a, a]",
    "~nosuch/x",
    '"<script>"', "'${NOPE}'", "/dev/zero", "'{scan.__class__}'", "'{scan:>500000000}'", "[" * 60 + "]" * 60,
]  # fmt: skip
BOMB = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'x'] * 9)}]\n" for i in range(10))


def draw_images(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield file names and what is in them, for ever: NIfTI, NRRD and MetaImage files."""
    while True:
        data, kind = bytearray(GOOD), int(rng.integers(9))
        if kind <= 2:
            for place in rng.integers(0, 352, rng.integers(1, 9)):
                data[place] = rng.integers(256)
        elif kind == 3:
            sizes = rng.choice([3, 3, 3, 0, -1, 7, 4]), *rng.choice([1, 7, 9, 0, -1, 2048, 32767, 16], 7)
            struct.pack_into("<8h", data, 40, *sizes)
        elif kind == 4:
            offset = rng.choice([76, 80, 84, 88, 108, 112, 116, 256, 260, 268, 280, 300, 320])
            struct.pack_into("<f", data, offset, rng.choice(NUMBERS))
        elif kind == 5:
            code, dtype = ((16, "<f4"), (64, "<f8"), (4, "<i2"), (8, "<i4"), (1024, "<i8"))[rng.integers(5)]
            values = rng.choice([*NUMBERS, 0.5, 65536, 3], LABELS.shape)
            with np.errstate(all="ignore"):
                drawn = np.where(rng.random(LABELS.shape) < 0.5, values, LABELS).astype(dtype)
            struct.pack_into("<2h", data, 70, code, drawn.itemsize * 8)
            data = data[:352] + drawn.tobytes(order="F")
        elif kind == 6:
            data = bytearray(b"\0" * 900 if rng.random() < 0.3 else rng.bytes(int(rng.integers(900))))
        elif kind == 7:  # what a header does not speak of
            data += b"\0" * int(rng.choice([1, 1000, 5_000_000]))
        else:
            text = bytearray((NRRD if rng.random() < 0.5 else META).encode())
            lines = text.split(b"\n")
            for place in rng.integers(1, len(lines) - 1, rng.integers(1, 3)):
                name = lines[place].split(b" ")[0]
                extra = [
                    b"99999 99999 99999",
                    b"-1",
                    b"nan",
                    b"LIST",
                    b"/etc/passwd",
                    b"gzip",
                    b"0",
                    rng.bytes(9),
                    b"x" * 5000,
                ]
                lines[place] = name + rng.choice([b" ", b" = "]) + bytes(extra[rng.integers(len(extra))])
            nrrd = lines[0].startswith(b"NRRD")
            head = b"\n".join(lines) + (b"\n" if nrrd else b"ElementDataFile = LOCAL\n")
            yield ("x.nrrd" if nrrd else "x.mha"), head + LABELS.tobytes(order="F")[: int(rng.integers(600))]
            continue
        packed = rng.random() < 0.6
        found = bytearray(gzip.compress(bytes(data), 1, mtime=0) if packed else data)
        for place in rng.integers(0, max(len(found), 1), rng.integers(0, 3)) if packed and len(found) < 5000 else ():
            found[place] = rng.integers(256)
        cut = len(found) if rng.random() < 0.8 else int(rng.integers(len(found) + 1))
        yield f"x.nii{'.gz' if packed else ''}", bytes(found[:cut])


COLUMNS = ["subject", "scan", "sex", "age", "bmi", "modality", "reference"]


def draw_tables(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield tables of people, for ever: texts that no cell should hold, encodings, other files."""
    while True:
        rows = [[s, s, "female", "50", "22", "CT", f"masks/{s}.nii.gz"] for s in "abc"]
        for _ in range(rng.integers(1, 4)):
            rows[rng.integers(3)][rng.integers(7)] = TEXTS[rng.integers(len(TEXTS))]
        kind = int(rng.integers(10))
        if kind == 0:
            book = Workbook()
            for row in ([*COLUMNS], *rows):
                book.active.append([text[:30000] if text.isprintable() else "x" for text in row])
            yield "people.xlsx", _spoil(_save(book), rng)
            continue
        if kind == 1:
            stream = io.BytesIO()
            pd.DataFrame([["x"] * 7] * 3, columns=COLUMNS).to_parquet(stream)
            yield "people.parquet", _spoil(stream.getvalue(), rng)
            continue
        quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in [COLUMNS, *rows]]
        text = "\n".join(map(",".join, quoted)) + "\n"
        if kind == 2:
            text = text.replace('"', "", int(rng.integers(1, 9)))
        if kind == 3:
            text = text.replace("\n", str(rng.choice([",,,,\n", "\r", "\n\n", "\0\n"])))
        if kind == 4:
            text = ",".join(f"c{i}" for i in range(rng.choice([1, 20_000]))) + "," + text
        encoding = "utf-8" if rng.random() < 0.8 else str(rng.choice(["utf-16", "latin-1", "cp500", "utf-32"]))
        end = ".csv" if rng.random() < 0.6 else rng.choice([".tsv", ".txt", ".xlsx", ".xls", ".parquet", ".json", ""])
        yield f"people{end}", text.encode(encoding, "surrogatepass" if encoding == "utf-8" else "replace")


def _save(book: Workbook) -> bytes:
    """Return a workbook without the time at which it was written."""
    stream, again = io.BytesIO(), io.BytesIO()
    book.save(stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), re.sub(rb"\d{4}-\d\d-\d\dT[\d:]+Z", b"", old.read(name)))
    return again.getvalue()


def _spoil(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 6)):
        changed[place] = rng.integers(256)
    return bytes(changed[: len(data) if rng.random() < 0.7 else int(rng.integers(len(data)))])


def draw_parameters(rng: np.random.Generator, good: str) -> Iterator[bytes]:
    """Yield parameter files, for ever: a value, a line or some letters of `good` are another's."""
    while True:
        lines = good.split("\n")
        kind, place = int(rng.integers(10)), int(rng.integers(len(lines) - 1))
        if kind < 5 and ":" in lines[place]:
            lines[place] = lines[place].split(":")[0] + ": " + VALUES[rng.integers(len(VALUES))]
        elif kind == 5:
            lines.insert(place, VALUES[rng.integers(len(VALUES))])
        elif kind == 6:
            lines.insert(0, BOMB)
            lines[place + 1] = lines[place + 1].split(":")[0] + ": *l9"
        elif kind == 7:
            yield _spoil(good.encode(), rng)
            continue
        elif kind == 8:
            lines = [f"k{i}: {i}" for i in range(rng.choice([3, 5000]))] + lines
        else:
            key = rng.choice(
                ["title", "seed", "fairness", "spatial", "compute", "metrics", "windows", "models", "outputs"]
            )
            lines.append(f"{key}: {VALUES[rng.integers(len(VALUES))]}")
        yield "\n".join(lines).encode("utf-8", "surrogatepass")


class _Runs:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.system, ("touch PWNED",)


def draw_weights(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield files of weights, for ever: pickles that run code, headers that lie, cut archives."""
    import torch

    while True:
        kind = int(rng.integers(5))
        if kind == 0:
            yield "w.pth", pickle.dumps(_Runs())
        elif kind == 1:
            stream = io.BytesIO()
            torch.save({"x": _Runs()} if rng.random() < 0.5 else {"x": torch.zeros(9)}, stream)
            yield "w.pth", _spoil(stream.getvalue(), rng) if rng.random() < 0.6 else stream.getvalue()
        elif kind == 2:
            shape = [int(size) for size in rng.choice([-1, 0, 1, 1 << 40, 3], 2)]
            entry = {
                "dtype": str(rng.choice(["F32", "X9", "I8"])),
                "shape": shape,
                "data_offsets": [0, int(rng.choice([4, 1 << 50]))],
            }
            head = json.dumps({"a": entry} if rng.random() < 0.8 else [1]).encode()
            yield (
                "w.safetensors",
                struct.pack("<Q", int(rng.choice([len(head), 1 << 62, 100 << 20, 0]))) + head + bytes(4),
            )
        elif kind == 3:
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as archive:
                archive.writestr(zipfile.ZipInfo("a/data.pkl"), rng.bytes(20))
            yield "w.pt", stream.getvalue()
        else:
            yield f"w{rng.choice(['.pth', '.safetensors', '.bin'])}", rng.bytes(int(rng.integers(0, 5000)))


def write_scans(folder: Path) -> None:
    """Write three good masks, a, b and c."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for scan in "abc":
        (folder / "masks" / f"{scan}.nii.gz").write_bytes(gzip.compress(GOOD, 1))
