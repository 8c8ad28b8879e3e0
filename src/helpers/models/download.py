"""Fetching published weights: resumed where it broke off, verified before it gets its name."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from helpers.errors import SegfairError
from helpers.models import archives
from helpers.models.checkpoints import Checkpoint, check_published, get_checkpoint, locate, show_size
from helpers.storage import hash_file
from helpers.study import choose_checkpoints_folder

# Seconds before each further attempt; the count starts again with every megabyte that arrived.
WAITS_S = (1.0, 2.0, 4.0, 8.0)
# A connection that sends nothing for so long counts as broken.
TIMEOUT_S = 30.0
_PROGRESS_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 18
# Of a server that may do better a little later (RFC 9110, sections 15.5 and 15.6; RFC 6585).
_TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


def fetch_checkpoint(name: str, url: str | None = None) -> Path:
    """Download a published checkpoint unless it is here already, and verify it.

    The file arrives under ``<file>.part`` and gets its name once its length and its SHA-256 are
    those published. An interrupted download is continued where it broke off, by this call for a few
    attempts and by any later one: the part stays, with the server's validator beside it, so that a
    file that changed in between is begun anew (RFC 9110, sections 13.1.5 and 14.2). Processes that
    fetch the same file take turns. A bar is shown on the standard error.

    `name` is one in the catalogue, `url` another source of the same bytes, such as a mirror in the
    own network. Returns the path of the verified file; of an archive, the folder it was unpacked
    to, of which what was first seen is compared (:mod:`helpers.models.archives`).

    Raises a SegfairError: one sentence on what hinders it and what to do: no network, an address
    without the file, too little space, a folder that cannot be written, bytes that are not the
    published ones.
    """
    checkpoint = get_checkpoint(name)
    target = choose_checkpoints_folder() / checkpoint.file_name
    source = url or checkpoint.url
    if urlsplit(source).scheme not in ("http", "https") or not urlsplit(source).hostname:
        raise SegfairError(f"url must begin with http:// or https:// and name a server; got {source!r}")
    with _take_turn(target, name):
        if locate(name).is_dir():
            archives.check_unpacked(checkpoint)
            return locate(name)
        if target.exists():
            check_published(target, checkpoint)
        else:
            _Download(checkpoint, source, target).run()
        if checkpoint.folder is not None:
            tqdm.write(archives.unpack(target, checkpoint), file=sys.stderr)
    return locate(name)


class _Download:
    """One file on its way to its place, in as many requests as it takes."""

    def __init__(self, checkpoint: Checkpoint, url: str, target: Path) -> None:
        self.checkpoint = checkpoint
        self.name = checkpoint.name
        self.url = url
        self.target = target
        self.part = target.with_name(target.name + ".part")
        # What the server said of the part's file; without it the part is not continued.
        self.note = target.with_name(target.name + ".part.json")
        self.size = checkpoint.size  # where it is not published: what the server says
        self.reached = False

    def run(self) -> None:
        """Request the file until it is whole, verify it and put it in its place."""
        self._count_kept()
        self._check_space()
        with tqdm(total=self.size, desc=self.name, unit="B", unit_scale=True, ncols=100) as bar:
            self._request_until_whole(bar)
        found = hash_file(self.part)
        if self.checkpoint.sha256 is not None and found != self.checkpoint.sha256:
            self._discard()
            raise SegfairError(
                f"{self.name}: what {self.url} sent is not the published file (SHA-256 {found[:12]}… in place of "
                f"{self.checkpoint.sha256[:12]}…) and was removed: run the same command again, or see "
                f"{self.checkpoint.page}"
            )
        with _explain_disk(self.target):
            self.part.replace(self.target)
            self.note.unlink(missing_ok=True)

    def _check_space(self) -> None:
        """Refuse to begin what the disk cannot hold, as far as its size is known."""
        missing = (self.size or 0) - self._count_kept()[0]
        free = shutil.disk_usage(self.target.parent).free
        if free < missing:
            raise SegfairError(
                f"{self.name}: {show_size(missing)} are still to come and {self.target.parent} has "
                f"{show_size(free)} free: free some space or set SEGFAIR_CHECKPOINTS to another folder"
            )

    def _request_until_whole(self, bar: tqdm) -> None:
        """Continue after interruptions; those in a row without a megabyte gained are counted."""
        failures, furthest = 0, self._count_kept()[0]
        while True:
            try:
                self._request(bar)
                return
            except (OSError, http.client.HTTPException) as error:
                self._refuse_permanent(error)
                reason = _name_reason(error)
            kept = self._count_kept()[0]
            if kept >= furthest + _PROGRESS_BYTES:
                failures, furthest = 0, kept
            if failures == len(WAITS_S):
                raise SegfairError(
                    f"{self.name}: {urlsplit(self.url).hostname} failed {failures + 1} times in a row ({reason}); "
                    f"{show_size(kept)} of {show_size(self.size or kept)} are kept: run the "
                    "same command again to go on"
                )
            bar.set_postfix_str(f"{reason}: trying again", refresh=True)
            time.sleep(WAITS_S[failures])
            failures += 1

    def _request(self, bar: tqdm) -> None:
        """Ask for what is missing and append it; OSError or HTTPException if that breaks off."""
        kept, validator = self._count_kept()
        bar.n = kept
        bar.refresh()
        if kept == self.size:
            return
        # Compressed on the way, the ranges would be those of other bytes.
        request = Request(self.url, headers={"User-Agent": "segfair", "Accept-Encoding": "identity"})
        if kept:
            request.add_header("Range", f"bytes={kept}-")
            if validator:
                request.add_header("If-Range", validator)
        with urlopen(request, timeout=TIMEOUT_S) as response:
            self.reached = True
            start = self._check_answer(response, kept)
            bar.n, bar.total = start, self.size
            with _explain_disk(self.target), self.part.open("ab", buffering=0) as stream:
                bar.set_postfix_str("", refresh=True)
                self._receive(response, stream, start, bar)

    def _check_answer(self, response: http.client.HTTPResponse, kept: int) -> int:
        """Return the byte at which the answer begins: `kept`, or 0 where the file comes anew."""
        headers = response.headers
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            if match is None or int(match[1]) != kept or match[2] not in ("*", str(self.size)):
                self._discard()
                raise ConnectionError("the answer does not continue the part")
            return kept
        if headers.get_content_type() == "text/html":
            raise SegfairError(
                f"{self.name}: {self.url} answers with a web page, not a file (a login, perhaps): "
                f"open it in a browser and put the file at {self.target}, or name another source with --url"
            )
        length = int(headers.get("Content-Length", self.checkpoint.size or 0))
        if self.checkpoint.size is None:
            if not length:
                raise SegfairError(
                    f"{self.name}: {self.url} does not say how long the file is: name another source with --url"
                )
            self.size = length
        elif length != self.checkpoint.size:
            raise SegfairError(
                f"{self.name}: {self.url} offers {length:,} bytes where the published file has "
                f"{self.checkpoint.size:,}: it is another file; see {self.checkpoint.page} "
                "or name another source with --url"
            )
        validator = headers.get("ETag", "")
        if not validator.startswith('"'):
            # A weak validator may not be used with ranges (RFC 9110, section 13.1.5).
            validator = headers.get("Last-Modified", "")
        with _explain_disk(self.target):
            # The note first: a part is never older than what is said of it.
            self.part.unlink(missing_ok=True)
            note = {"url": self.url, "validator": validator, "size": self.size}
            self.note.write_text(json.dumps(note), encoding="utf-8")
        self._check_space()
        return 0

    def _receive(self, response: http.client.HTTPResponse, stream: Any, start: int, bar: tqdm) -> None:
        """Append the body to the part."""
        received = start
        # read1 gives what is there, so that little is lost when the connection breaks.
        while True:
            try:
                block = response.read1(_BLOCK_BYTES)
            except OSError as error:
                raise ConnectionError(_name_reason(error)) from error
            if not block:
                break
            received += len(block)
            if self.size is not None and received > self.size:
                self._discard()
                raise SegfairError(
                    f"{self.name}: {self.url} sends more than the {self.size:,} bytes of the published "
                    "file; what came was removed: name another source with --url"
                )
            view = memoryview(block)
            while view:
                view = view[stream.write(view) :]
            bar.update(len(block))
        # http.client ends a body that is too short like a whole one.
        if self.size is not None and received < self.size:
            raise ConnectionError("the connection was closed early")
        os.fsync(stream.fileno())

    def _refuse_permanent(self, error: OSError | http.client.HTTPException) -> None:
        """Raise at once where another attempt would end alike."""
        host = urlsplit(self.url).hostname
        size = "" if self.size is None else f" ({show_size(self.size)})"
        by_hand = f"download {self.url}{size} elsewhere and put it at {self.target}"
        if isinstance(error, HTTPError):
            error.close()
            self.reached = True
            if error.code == 416:
                # The part reaches past the file that is there now.
                self._discard()
            elif error.code not in _TEMPORARY_STATUS:
                raise SegfairError(
                    f"{self.name}: {host} answers HTTP {error.code} ({error.reason}) for {self.url}: "
                    f"see {self.checkpoint.page} for its place now and name it with --url, "
                    f"or put the file at {self.target}"
                ) from error
            return
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise SegfairError(
                f"{self.name}: the certificate of {host} cannot be verified ({cause.verify_message}): set "
                f"SSL_CERT_FILE to the certificates of your network, or {by_hand}"
            ) from error
        unreachable = isinstance(cause, socket.gaierror) or getattr(cause, "errno", None) in _UNREACHABLE
        if unreachable and not self.reached:
            raise SegfairError(
                f"{self.name}: {host} cannot be reached ({_name_reason(error)}): "
                f"check the network and run the same command again, or {by_hand}"
            ) from error

    def _count_kept(self) -> tuple[int, str]:
        """Return how many bytes of the part can be continued, and the validator of their file."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            size = self.part.stat().st_size
        except (OSError, ValueError):
            return 0, ""
        if not isinstance(note, dict) or note.get("url") != self.url:
            return 0, ""
        if self.checkpoint.size is None and isinstance(note.get("size"), int):
            self.size = note["size"]
        if self.size is None or size > self.size:
            return 0, ""
        return size, str(note.get("validator", ""))

    def _discard(self) -> None:
        with _explain_disk(self.target):
            self.part.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)


@contextmanager
def _take_turn(target: Path, name: str) -> Iterator[None]:
    """Hold the lock of a file, after whoever holds it now."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with _explain_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tqdm.write(f"{name}: another process is fetching it: waiting", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explain_disk(target: Path) -> Iterator[None]:
    """Turn a disk that is full or cannot be written into a sentence; a broken connection passes."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        advice = "set SEGFAIR_CHECKPOINTS to another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SegfairError(
                f"{target}: the disk is full: free some space and run the same command again; what came so far is "
                f"kept; or {advice}"
            ) from error
        raise SegfairError(
            f"{target.parent}: cannot be written ({error.strerror}): change its permissions or {advice}"
        ) from error


def _name_reason(error: BaseException) -> str:
    """Return the plain words of an error of the network."""
    cause = getattr(error, "reason", error)
    if isinstance(error, HTTPError):
        return f"HTTP {error.code}"
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)
