"""What an image file is by its first bytes, and whether all that its header promises is in it."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from helpers.errors import VolumeError

NIFTI, NRRD, META = "NIfTI", "NRRD", "MetaImage"
GZIP = b"\x1f\x8b"
_GZIP_STREAM, _ZLIB_STREAM = 31, 15  # zlib's window bits
_BLOCK = 1 << 16  # bytes read at once: zeros come out a thousand times longer
_LONGEST_FIELD = 1000  # letters of a line of a NRRD header; ITK's reader overruns its memory at some thousand
_HEADER = 1 << 22  # bytes in which the header of a NRRD or MetaImage file must end
# What may follow voxels: a stream is read to its check sum, but not on and on.
_SURPLUS = 1 << 20


def identify(path: Path) -> str:
    """Return which container a file is, whatever its name says.

    Raises a VolumeError: it is none of the three, in words on what it is instead: empty, a pointer,
    a web page.
    """
    head = read_head(path)
    if not head:
        raise VolumeError(f"{path.name}: is empty: copy it again from its source")
    if head.startswith(b"NRRD"):
        return NRRD
    if len(head) >= 348 and any(struct.unpack_from(order + "i", head)[0] in (348, 540) for order in "<>"):
        return NIFTI
    if re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", head):
        return META
    if head.startswith(GZIP):
        raise VolumeError(f"{path.name}: is compressed twice: decompress it once (gunzip)")
    text = head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        raise VolumeError(f"{path.name}: is a pointer of git-lfs, not the file itself: fetch it (git lfs pull)")
    if text.startswith((b"/annex/objects/", b"../.git/annex/objects/", b".git/annex/objects/")):
        raise VolumeError(f"{path.name}: is a pointer of git-annex, not the file itself: fetch it (git annex get)")
    if text.startswith((b"<!doctype html", b"<html")):
        raise VolumeError(f"{path.name}: is a web page, a login perhaps, not an image: download the file again")
    raise VolumeError(f"{path.name}: is not an image that can be opened (NIfTI, NRRD or MetaImage expected)")


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file, gzip or not: a kilobyte, or all of a shorter one.

    A VolumeError where they cannot be had.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(1024)
            if not head.startswith(GZIP):
                return head
            stream.seek(0)
            return next((block for block in _inflate(stream, _GZIP_STREAM) if block), b"")
    except (EOFError, zlib.error):
        raise VolumeError(tell_damaged(path)) from None


@contextmanager
def explain_unreadable(path: Path) -> Iterator[None]:
    """Turn what the system says of a file or folder that may not be read into a sentence."""
    try:
        yield
    except OSError as error:
        raise VolumeError(
            f"{path.name}: cannot be read ({error.strerror or error}): "
            "change its permissions, or copy it again from its source"
        ) from error


def tell_damaged(path: Path) -> str:
    """Say that a file holds less than it promises, or other bytes than those of its check sum."""
    return f"{path.name}: cannot be read, it may be truncated or damaged: copy it again from its source"


def open_bytes(path: Path, start: int, count: int) -> np.ndarray:
    """Return `count` bytes of a file from `start` on, gzip or not: uint8, (count,).

    A gzip file is read to its end, since that is where its check sum stands.

    Raises
    ------
    EOFError
        It holds fewer.
    zlib.error
        A check sum does not agree.
    VolumeError
        A gzip file holds far more.
    """
    with path.open("rb") as stream:
        if stream.read(2) != GZIP:
            stream.seek(0, 2)
            if stream.tell() < start + count:
                raise EOFError
            return np.fromfile(path, np.uint8, count, offset=start)
        stream.seek(0)
        # Memory is taken as it is filled.
        found, place = np.empty(start + count, np.uint8), 0
        for block in _inflate_up_to(path, stream, _GZIP_STREAM, len(found)):
            part = block[: max(len(found) - place, 0)]
            found[place : place + len(part)] = np.frombuffer(part, np.uint8)
            place += len(part)
        if place < len(found):
            raise EOFError
    return found[start:]


@dataclass(frozen=True)
class Stream:
    """Where the voxels of a NRRD or MetaImage file stand."""

    path: Path
    start: int
    encoding: str  # raw, gzip, zlib; or text


def find_stream(path: Path, container: str) -> Stream:
    """Find the voxels of a NRRD or MetaImage file.

    A VolumeError where they are not in one file, it or one beside it, or where the header would
    take ITK's reader, and with it the process, beyond its memory.
    """
    try:
        with path.open("rb") as stream:
            fields, names = _read_nrrd(stream) if container == NRRD else _read_meta(stream)
            start = stream.tell()
    except ValueError as error:
        raise VolumeError(
            f"{path.name}: its {container} header cannot be read: copy it again from its source"
        ) from error
    if len(names) > 1:
        raise VolumeError(f"{path.name}: its voxels lie in several files: store it as one file")
    encoding = _find_encoding(fields, container)
    if not names:
        return Stream(path, start, encoding)
    if len(Path(names[0].replace("\\", "/")).parts) > 1:  # it could be any file of this machine
        raise VolumeError(f"{path.name}: its voxels lie in another folder ({names[0]}): put both files into one")
    if not (path.parent / names[0]).is_file():
        raise VolumeError(f"{path.name}: its voxels are not beside it ({names[0]}): copy both files")
    return Stream(path.parent / names[0], 0, encoding)


def check_stream(voxels: Stream, count: int) -> None:
    """Check that a stream holds `count` bytes of voxels, and its check sums.

    Raises as :func:`open_bytes`; a VolumeError also where ITK cannot read its encoding.
    """
    if voxels.encoding == "bzip2":
        raise VolumeError(f"{voxels.path.name}: its voxels are compressed by bzip2, which is not read: pack it by gzip")
    with voxels.path.open("rb") as stream:
        stream.seek(voxels.start)
        _check_length(voxels.path, stream, voxels.encoding, count)


def _check_length(path: Path, stream: BinaryIO, encoding: str, count: int) -> None:
    """Raise EOFError where fewer than `count` bytes come from here to the end of a stream."""
    if encoding == "raw":
        begin = stream.tell()
        length = stream.seek(0, 2) - begin
    elif encoding in ("gzip", "zlib"):
        bits = _GZIP_STREAM if encoding == "gzip" else _ZLIB_STREAM
        length = sum(map(len, _inflate_up_to(path, stream, bits, count)))
    else:  # text: ITK stops where a number is missing
        return
    if length < count:
        raise EOFError


def _find_encoding(fields: dict[str, str], container: str) -> str:
    if container == META:
        return "zlib" if fields.get("compresseddata", "").lower() in ("true", "1", "yes") else "raw"
    stated = fields.get("encoding", "raw").lower()
    return {"gz": "gzip", "bz2": "bzip2"}.get(stated, stated)


def _read_nrrd(stream: BinaryIO) -> tuple[dict[str, str], list[str]]:
    """Read a NRRD header; return its fields and the files of its voxels, none where they follow."""
    fields: dict[str, str] = {}
    for line in _read_lines(stream):
        text = line.decode("latin-1").strip()
        if not text:
            break
        if text.startswith("#") or ":=" in text.split(": ")[0]:
            continue
        if len(text) > _LONGEST_FIELD:
            raise ValueError
        if ": " in text:
            name, value = text.split(": ", 1)
            fields[name.lower()] = value.strip()
            if name.lower() in ("data file", "datafile") and value.upper().startswith("LIST"):
                break
    data_file = fields.get("data file", fields.get("datafile"))
    return fields, [] if data_file is None else _list_files(data_file)


def _read_meta(stream: BinaryIO) -> tuple[dict[str, str], list[str]]:
    """Read a MetaImage header; return its fields and the files of its voxels."""
    fields: dict[str, str] = {}
    for line in _read_lines(stream):
        name, *rest = (part.strip() for part in re.split("[=:]", line.decode("latin-1"), maxsplit=1))
        fields[name.lower()] = "".join(rest)
        if name.lower() == "ndims" and not re.fullmatch("[1-9]", fields["ndims"]):
            raise ValueError
        if name.lower() == "elementdatafile":  # always the last: voxels may follow
            break
    name = fields.get("elementdatafile", "")
    return fields, [] if name.upper() == "LOCAL" else _list_files(name)


def _read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a header, which voxels may follow, up to the length that one may have."""
    while (left := _HEADER - stream.tell()) > 0 and (line := stream.readline(left)):
        yield line


def _list_files(name: str) -> list[str]:
    """Return the one file of voxels; two names where a list or a pattern stands in its place."""
    return [name, name] if name.upper().startswith("LIST") or re.search(r"%\d*d", name) else [name]


def _inflate_up_to(path: Path, stream: BinaryIO, window_bits: int, count: int) -> Iterator[bytes]:
    """Yield what a stream holds as :func:`_inflate`; a VolumeError where that is far more."""
    length = 0
    for block in _inflate(stream, window_bits):
        length += len(block)
        if length > 2 * count + _SURPLUS:
            raise VolumeError(
                f"{path.name}: holds far more than the {count:,} bytes that its header promises, so one of the two is "
                "damaged: copy it again from its source"
            )
        yield block


def _inflate(stream: BinaryIO, window_bits: int) -> Iterator[bytes]:
    """Yield what a gzip or zlib stream holds, in blocks; zlib compares its check sum and length.

    Several gzip members are one stream (RFC 1952, 2.2). What follows the last one is passed over.
    Raises EOFError where the stream ends early, zlib.error where a check sum does not agree.
    """
    rest = stream.read(_BLOCK)
    while True:
        decoder = zlib.decompressobj(window_bits)
        while not decoder.eof:
            if not rest:
                raise EOFError
            yield decoder.decompress(rest)
            rest = decoder.unused_data if decoder.eof else stream.read(_BLOCK)
        rest += stream.read(2) if len(rest) < 2 else b""
        if not rest.startswith(GZIP):
            return
