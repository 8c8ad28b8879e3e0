"""Archives of which no hash is published: theirs is recorded at first sight and compared after.

``first_seen.json`` in the checkpoints folder keeps each archive's SHA-256 and those of its files.
That tells a file that changed since; not whether the first one was the publishers' own.
"""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from helpers import storage
from helpers.errors import SegfairError
from helpers.models.checkpoints import Checkpoint, locate, show_size
from helpers.study import choose_checkpoints_folder

RECORD = "first_seen.json"


def unpack(archive: Path, checkpoint: Checkpoint) -> str:
    """Unpack a fetched archive to its folder, remove it, and say what is known of it.

    Raises a SegfairError: it is not the archive that was first seen here, is damaged, holds a path
    that leads out of its folder, or is larger than what the disk has free. Nothing is left of it
    then but itself.
    """
    sha256 = storage.hash_file(archive)
    seen = _read_record().get(checkpoint.name)
    if seen is not None and seen["sha256"] != sha256:
        raise SegfairError(
            f"{archive}: is not the {checkpoint.name} that was first seen here (SHA-256 {sha256[:12]}… in place of "
            f"{seen['sha256'][:12]}…): its publishers state none, so ask them which is right; delete this file, or "
            f"the entry in {_locate_record()} if they have renewed theirs"
        )
    target = locate(checkpoint.name)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as temporary:
        _extract(archive, Path(temporary))
        inner = Path(temporary) / target.name
        if not inner.is_dir():
            raise SegfairError(f"{archive}: holds no folder {target.name}, so is another one: see {checkpoint.page}")
        files = _hash_all(inner)
        inner.replace(target)
    if seen is None:
        entry = {"sha256": sha256, "url": checkpoint.url, "files": files}
        storage.write_json(_read_record() | {checkpoint.name: entry}, _locate_record())
    archive.unlink()
    known = "as first seen here" if seen is not None else f"recorded in {_locate_record()} to be compared from now on"
    return f"{checkpoint.name}: its publishers state no SHA-256; this archive's is {sha256}, {known}"


def check_unpacked(checkpoint: Checkpoint) -> str:
    """Compare an unpacked archive with what was first seen, file by file, and say what it is."""
    target = locate(checkpoint.name)
    seen = _read_record().get(checkpoint.name)
    if seen is None:
        return f"{target}: was unpacked by hand: nothing is recorded to compare it with"
    found = _hash_all(target)
    differing = sorted(name for name in seen["files"] if found.get(name) != seen["files"][name])
    if differing:
        raise SegfairError(
            f"{target}: {differing[0]} is not as in the archive first seen here: delete the folder and fetch "
            f"{checkpoint.name} again"
        )
    return f"{target}: is as in the archive first seen here (SHA-256 {seen['sha256']}; its publishers state none)"


def _extract(archive: Path, folder: Path) -> None:
    """Unpack a zip after a look at every path in it."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for member in members:
                path = PurePosixPath(member.filename)
                link = stat.S_ISLNK(member.external_attr >> 16)
                if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in path.parts[0] or link:
                    raise SegfairError(
                        f"{archive}: holds {member.filename!r}, which leads out of its folder: delete it, and fetch it "
                        "from its publishers"
                    )
            size, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
            if size > free:
                raise SegfairError(
                    f"{archive}: unpacks to {show_size(size)} and {folder.parent} has {show_size(free)} free: free "
                    "some space or set SEGFAIR_CHECKPOINTS to another folder"
                )
            opened.extractall(folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise SegfairError(f"{archive}: is no whole zip archive ({error}): delete it and fetch it again") from error


def _hash_all(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): storage.hash_file(path) for path in files}


def _locate_record() -> Path:
    return choose_checkpoints_folder() / RECORD


def _read_record() -> dict[str, Any]:
    path = _locate_record()
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise SegfairError(f"{path}: cannot be read ({error}): mend it, or delete it to record anew") from error
