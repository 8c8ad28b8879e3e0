"""Checkpoints: fetched whole or not at all from a server that misbehaves, and files that say what
they are."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from helpers.errors import SegfairError
from helpers.models import download, loading
from helpers.models.checkpoints import CHECKPOINTS, explain_fetching, locate, summarise_checkpoints
from helpers.models.download import fetch_checkpoint
from helpers.models.loading import build_sam_from_checkpoint, describe_architecture, load_state, verify_checkpoint
from helpers.models.sam2_network import VARIANTS, build_network
from helpers.models.sam_demo import SmallSam, build_small_sam
from helpers.models.torchvision_fix import import_segment_anything
from helpers.study import choose_checkpoints_folder

TINY = SmallSam(image_size=64, patch_size=8, width=24, depth=2, heads=2, window=4, global_blocks=(1,), prompt_width=32)
CONTENT = hashlib.shake_128(b"segfair").digest(600_000)


# --- a server that can misbehave
# ------------------------------------------------------------------------------


@dataclass
class Server:
    """What the handler does, and the requests it saw (their Range and If-Range)."""

    content: bytes = CONTENT
    etag: str = '"one"'
    modified: str = ""
    ranges: bool = True
    length: str = "right"  # right, none, or a number
    kind: str = "binary/octet-stream"
    drops: list[int] = field(default_factory=list)  # bytes after which each of the next answers breaks off
    statuses: list[int] = field(default_factory=list)  # of the next answers
    pause_s: float = 0.0
    content_range: str = ""
    requests: list[tuple[str | None, str | None]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)  # bytes of each answer
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.requests.append((asked, condition))
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        start, status = 0, 200
        if self.ranges and asked and condition in (None, self.etag, self.modified):
            start, status = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]), 206
            if start >= len(self.content):
                handler.send_error(416)
                return
        body = self.content[start:]
        handler.send_response(status)
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.modified:
            handler.send_header("Last-Modified", self.modified)
        handler.send_header("Content-Type", self.kind)
        if status == 206:
            total = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            handler.send_header("Content-Range", self.content_range or total)
        if self.length != "none":
            handler.send_header("Content-Length", str(len(body)) if self.length == "right" else self.length)
        handler.end_headers()
        body = body[: self.drops.pop(0)] if self.drops else body
        time.sleep(self.pause_s)
        handler.wfile.write(body)
        self.sent.append(len(body))


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.handle_error = lambda *_: None  # clients that hang up are part of the tests
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{listening.server_address[1]}/sam.pth"
    yield state
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoints folder, with a catalogue in which sam_vit_b is the small file of the local
    server."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    entry = replace(
        CHECKPOINTS["sam_vit_b"], size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest(), url=server.url
    )
    monkeypatch.setitem(CHECKPOINTS, "sam_vit_b", entry)
    monkeypatch.setattr(download, "WAITS_S", (0.0, 0.0))
    place = tmp_path / "checkpoints"
    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", str(place))
    return place


def fetch() -> Path:
    return fetch_checkpoint("sam_vit_b")


def list_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


FILE = "sam_vit_b_01ec64.pth"
PART = {FILE + ".part", FILE + ".part.json"}


# --- the catalogue
# --------------------------------------------------------------------------------------------


def test_the_catalogue_is_of_one_piece() -> None:
    hashed = {name for name, entry in CHECKPOINTS.items() if entry.sha256 is not None}
    sam2 = {f"sam2_{variant}" for variant in VARIANTS}
    assert hashed == {"sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam"} | sam2
    for name, entry in CHECKPOINTS.items():
        assert name == entry.name and entry.url.endswith("/" + entry.file_name.rpartition("/")[2])
        assert entry.licence and entry.url.startswith("https://") and entry.page.startswith("https://")
        if name in hashed:
            assert re.fullmatch("[0-9a-f]{64}", entry.sha256) and entry.size and entry.folder is None
        else:  # an archive, whose publishers state neither
            assert entry.sha256 is entry.size is None and entry.file_name == f"{entry.folder}.zip"
    assert len({CHECKPOINTS[name].sha256 for name in hashed}) == 8
    assert len({entry.file_name for entry in CHECKPOINTS.values()}) == len(CHECKPOINTS)


@pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam"])
def test_a_files_size_is_that_of_its_tensors_and_a_little_more(name: str) -> None:
    """The published architectures in float32, without pixel_mean and pixel_std, and the names
    around them."""
    with torch.device("meta"):
        network = import_segment_anything().sam_model_registry[
            "vit_b" if name == "medsam" else name.removeprefix("sam_")
        ]()
    tensors = sum(4 * value.numel() for value in network.state_dict().values())
    assert 0 < CHECKPOINTS[name].size - tensors < 400_000


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_of_sam2_has_the_size_of_its_tensors_and_a_little_more(variant: str) -> None:
    with torch.device("meta"):
        values = build_network(VARIANTS[variant], 1024).state_dict().values()
    assert 0 < CHECKPOINTS[f"sam2_{variant}"].size - sum(4 * value.numel() for value in values) < 400_000


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SEGFAIR_CHECKPOINTS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert choose_checkpoints_folder() == tmp_path / ".cache" / "segfair" / "checkpoints"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert choose_checkpoints_folder() == tmp_path / ".cache" / "segfair" / "checkpoints"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert choose_checkpoints_folder() == tmp_path / "x" / "segfair" / "checkpoints"
    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", "~/weights")
    assert locate("medsam") == tmp_path / "weights" / "medsam_vit_b.pth"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SegfairError, match=r"sam_vit_l.*got 'sam_vitb' \(did you mean sam_vit_b\?\)"):
        locate("sam_vitb")


def test_the_list_tells_what_is_here_by_size_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(bytes(len(CONTENT)))  # the right size, other bytes
    (folder / "medsam_vit_b.pth").write_bytes(b"short")
    (folder / "sam_vit_l_0b3195.pth.part").write_bytes(b"begun")
    lines = {name: line for name, line in summarise_checkpoints().items() if CHECKPOINTS[name].sha256}
    assert [line.rpartition("  ")[2] for line in lines.values()] == [
        f"at {folder / FILE}",
        "begun: fetch it again to go on",
        "not here",
        f"damaged or another file at {folder / 'medsam_vit_b.pth'}",
        *["not here"] * 4,
    ]
    assert list(lines) == [name for name, entry in CHECKPOINTS.items() if entry.sha256]
    assert lines["sam_vit_h"].startswith(
        "2.56 GB  Apache-2.0  https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h"
    )
    assert "CC-BY-4.0" in lines["medsam"]


# --- fetching
# -------------------------------------------------------------------------------------------------


def test_a_file_arrives_under_its_name_and_nothing_else_stays(folder: Path, server: Server) -> None:
    assert fetch() == folder / FILE
    assert (folder / FILE).read_bytes() == CONTENT
    assert list_names(folder) == {FILE}
    assert server.requests == [(None, None)]


def test_a_file_that_is_here_and_right_is_not_fetched_again(folder: Path, server: Server) -> None:
    fetch()
    written = (folder / FILE).stat().st_mtime_ns
    fetch()
    assert len(server.requests) == 1 and (folder / FILE).stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("content", "match"), [(bytes(len(CONTENT)), "is not the published"), (b"short", "has 5 bytes")]
)
def test_a_file_that_is_here_and_wrong_is_left_to_its_owner(
    folder: Path, server: Server, content: bytes, match: str
) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(content)
    with pytest.raises(SegfairError, match=match):
        fetch()
    assert (folder / FILE).read_bytes() == content and not server.requests


def test_an_interrupted_download_goes_on_where_it_broke_off(folder: Path, server: Server) -> None:
    server.drops = [200_000, 0, 0]
    with pytest.raises(SegfairError, match=r"3 times in a row .* kept: run the same command again"):
        fetch()
    assert list_names(folder) == PART
    assert (folder / (FILE + ".part")).read_bytes() == CONTENT[:200_000]
    server.requests.clear()
    server.sent.clear()
    fetch()
    assert server.requests == [("bytes=200000-", '"one"')]
    assert server.sent == [400_000]
    assert (folder / FILE).read_bytes() == CONTENT
    assert list_names(folder) == {FILE}


def test_one_call_survives_a_few_interruptions(folder: Path, server: Server) -> None:
    server.drops = [100_000, 250_000]
    fetch()
    assert [asked for asked, _ in server.requests] == [None, "bytes=100000-", "bytes=350000-"]
    assert sum(server.sent) == len(CONTENT)


def test_interruptions_with_progress_between_them_do_not_count(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_PROGRESS_BYTES", 50_000)
    server.drops = [100_000] * 5  # more than WAITS_S has
    fetch()
    assert len(server.requests) == 6


def test_the_waits_grow(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download, "WAITS_S", (1.0, 2.0, 4.0))
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.statuses = [500, 503, 429, 502]
    with pytest.raises(SegfairError, match=r"4 times in a row .HTTP 502."):
        fetch()
    assert waits == [1.0, 2.0, 4.0]


def test_a_chunk_that_is_slow_to_come_is_kept_when_the_rest_does_not(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.pause_s = 0.6
    with pytest.raises(SegfairError, match="timed out"):
        fetch()


@pytest.mark.parametrize(
    ("etag", "modified", "condition"),
    [
        ('"one"', "Mon, 01 Apr 2024 00:00:00 GMT", '"one"'),
        ('W/"one"', "Mon, 01 Apr 2024 00:00:00 GMT", "Mon, 01 Apr 2024 00:00:00 GMT"),
        ('W/"one"', "", None),  # nothing to ask with: the hash decides in the end
    ],
)
def test_the_validator_is_a_strong_one(
    folder: Path, server: Server, etag: str, modified: str, condition: str | None
) -> None:
    server.etag, server.modified, server.drops = etag, modified, [100_000]
    fetch()
    assert server.requests[1] == ("bytes=100000-", condition)
    assert (folder / FILE).read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_begun_anew(folder: Path, server: Server) -> None:
    server.content, server.drops = bytes(len(CONTENT)), [300_000, 0, 0]
    with pytest.raises(SegfairError, match="run the same command again"):
        fetch()
    server.content, server.etag = CONTENT, '"two"'
    fetch()
    assert server.requests[-1] == ("bytes=300000-", '"one"') and server.sent[-1] == len(CONTENT)
    assert (folder / FILE).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(folder: Path, server: Server) -> None:
    server.ranges, server.drops = False, [300_000]
    fetch()
    assert server.sent == [300_000, len(CONTENT)] and (folder / FILE).read_bytes() == CONTENT


def test_a_part_of_another_source_is_not_continued(folder: Path, server: Server) -> None:
    server.drops = [300_000, 0, 0]
    with pytest.raises(SegfairError):
        fetch()
    fetch_checkpoint("sam_vit_b", url=server.url + "?mirror")
    assert server.requests[-1] == (None, None)
    assert (folder / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize("note", [None, "", "[]", "{}", '{"url": 3}'])
def test_a_part_without_a_sound_note_is_begun_anew(folder: Path, server: Server, note: str | None) -> None:
    folder.mkdir()
    (folder / (FILE + ".part")).write_bytes(b"x" * 1000)
    if note is not None:
        (folder / (FILE + ".part.json")).write_text(note, encoding="utf-8")
    fetch()
    assert server.requests == [(None, None)]


def test_a_part_that_is_whole_needs_no_request(folder: Path, server: Server) -> None:
    server.drops = [300_000, 0, 0]
    with pytest.raises(SegfairError):
        fetch()
    (folder / (FILE + ".part")).write_bytes(CONTENT)
    server.requests.clear()
    fetch()
    assert not server.requests and (folder / FILE).read_bytes() == CONTENT


def test_an_answer_that_does_not_continue_the_part_is_not_appended(folder: Path, server: Server) -> None:
    server.drops, server.content_range = [300_000], f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"
    fetch()
    assert [asked for asked, _ in server.requests] == [None, "bytes=300000-", None]
    assert (folder / FILE).read_bytes() == CONTENT


def test_a_range_past_the_end_begins_anew(folder: Path, server: Server) -> None:
    server.drops = [300_000]
    original = server.answer

    def shrink(handler: BaseHTTPRequestHandler) -> None:
        server.content = CONTENT[:10] if len(server.requests) == 1 else CONTENT
        original(handler)

    server.answer = shrink
    fetch()
    assert [asked for asked, _ in server.requests] == [None, "bytes=300000-", None]


def test_wrong_bytes_are_removed(folder: Path, server: Server) -> None:
    server.content = bytes(len(CONTENT))
    with pytest.raises(SegfairError, match=r"is not the published file .* was removed"):
        fetch()
    assert list_names(folder) == set()
    server.content = CONTENT
    fetch()


def test_a_file_of_another_size_is_refused_before_it_is_sent(folder: Path, server: Server) -> None:
    server.length = "1000"  # shorter than promised and than published
    with pytest.raises(SegfairError, match="offers 1,000 bytes where the published file has 600,000"):
        fetch()
    assert list_names(folder) == set()


@pytest.mark.parametrize("extra", [0, 1000])
def test_a_length_that_is_not_stated(folder: Path, server: Server, extra: int) -> None:
    server.length, server.content = "none", CONTENT + bytes(extra)
    if extra:
        with pytest.raises(SegfairError, match="sends more than the 600,000 bytes"):
            fetch()
        assert list_names(folder) == set()
    else:
        assert fetch().read_bytes() == CONTENT


def test_a_page_in_place_of_the_file(folder: Path, server: Server) -> None:
    server.content, server.kind = b"<html>please log in</html>", "text/html; charset=utf-8"
    with pytest.raises(SegfairError, match="answers with a web page"):
        fetch()
    assert list_names(folder) == set()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_without_the_file_is_not_tried_again(folder: Path, server: Server, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(SegfairError, match=f"answers HTTP {status}") as caught:
        fetch()
    assert len(server.requests) == 1
    assert "--url" in str(caught.value) and str(folder / FILE) in str(caught.value)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_tried_again(folder: Path, server: Server, status: int) -> None:
    server.statuses = [status, status]
    assert fetch().read_bytes() == CONTENT


def test_without_a_network_the_sentence_says_what_to_put_where(folder: Path) -> None:
    url = "http://127.0.0.1:9/sam.pth"  # the discard port: nobody listens
    with pytest.raises(SegfairError) as caught:
        fetch_checkpoint("sam_vit_b", url=url)
    text = str(caught.value)
    assert "cannot be reached" in text and url in text and str(folder / FILE) in text and "\n" not in text
    with pytest.raises(SegfairError, match="cannot be reached"):
        fetch_checkpoint("sam_vit_b", url="http://nonesuch.invalid/sam.pth")


def test_a_certificate_that_cannot_be_verified_is_not_tried_again(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise URLError(error)

    monkeypatch.setattr(download, "urlopen", refuse)
    with pytest.raises(SegfairError, match=r"cannot be verified \(self-signed certificate\): set SSL_CERT_FILE"):
        fetch()


@pytest.mark.parametrize("url", ["ftp://a/b", "file:///etc/passwd", "/a/b", "http://"])
def test_only_http_is_fetched(folder: Path, url: str) -> None:
    with pytest.raises(SegfairError, match="must begin with http"):
        fetch_checkpoint("sam_vit_b", url=url)


def test_a_folder_that_cannot_be_made(
    folder: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", str(tmp_path / "file" / "below"))
    with pytest.raises(SegfairError, match=r"cannot be written .* SEGFAIR_CHECKPOINTS"):
        fetch()
    assert not server.requests


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_folder_that_cannot_be_written(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Told by the system's answer, because root, who runs tests in containers, may write
    everywhere."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, pytest.raises(SegfairError, match=r"checkpoints: cannot be written"):
        patch.setattr(download.FileLock, "acquire", refuse)
        fetch()
    with monkeypatch.context() as patch, pytest.raises(SegfairError, match=r"checkpoints: cannot be written"):
        patch.setattr(Path, "replace", refuse)
        fetch()
    assert not (folder / FILE).exists()
    fetch()
    assert len(server.requests) == 1  # the part was whole


def test_too_little_space_is_said_before_anything_is_sent(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": len(CONTENT) - 1})())
    with pytest.raises(SegfairError, match="600 kB are still to come"):
        fetch()
    assert not server.requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_keeps_what_came(folder: Path, server: Server) -> None:
    server.drops = [200_000, 0, 0]
    with pytest.raises(SegfairError):
        fetch()
    part = folder / (FILE + ".part")
    part.rename(folder / "kept")
    part.symlink_to("/dev/full")
    with pytest.raises(SegfairError, match="the disk is full"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(download._Download, "_count_kept", lambda _: (200_000, '"one"'))
        fetch()
    part.unlink()
    (folder / "kept").rename(part)
    assert fetch().read_bytes() == CONTENT


def test_a_bar_is_shown(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    fetch()
    shown = capsys.readouterr()
    assert "sam_vit_b: 100%" in shown.err and shown.out == ""


def test_the_bar_begins_where_the_part_ends(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.drops = [300_000, 0, 0]
    with pytest.raises(SegfairError):
        fetch()
    fetch()
    assert "sam_vit_b:  50%" in capsys.readouterr().err


def test_threads_that_fetch_at_once_share_one_download(folder: Path, server: Server) -> None:
    server.pause_s = 0.3
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [folder / FILE] * 4 and (folder / FILE).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_waiting_for_another_process_is_said(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    other = download.FileLock(folder / f".{FILE}.lock")
    other.acquire()
    waiting = threading.Thread(target=fetch_checkpoint, args=("sam_vit_b",))
    waiting.start()
    time.sleep(0.2)
    assert not server.requests and "sam_vit_b: another process is fetching it" in capsys.readouterr().err
    other.release()
    waiting.join()
    assert (folder / FILE).read_bytes() == CONTENT


def test_processes_that_fetch_at_once_share_one_download(folder: Path, server: Server) -> None:
    server.pause_s = 1.0
    entry = CHECKPOINTS["sam_vit_b"]
    code = (
        "from dataclasses import replace\nfrom helpers.models import checkpoints, download\nentry ="
        " checkpoints.CHECKPOINTS['sam_vit_b']\ncheckpoints.CHECKPOINTS['sam_vit_b'] = replace(entry,"
        f" size={entry.size}, sha256={entry.sha256!r}, url={entry.url!r})\ndownload.fetch_checkpoint('sam_vit_b')\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, encoding="utf-8") for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert (folder / FILE).read_bytes() == CONTENT and len(server.requests) == 1


def test_a_killed_download_goes_on(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = download.tqdm.update, []

    def interrupt(bar: object, n: int = 1) -> None:
        calls.append(n)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(bar, n)

    with monkeypatch.context() as patch:
        patch.setattr(download.tqdm, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    kept = (folder / (FILE + ".part")).stat().st_size
    assert kept == sum(calls)
    fetch()
    assert server.requests[-1] == (f"bytes={kept}-", '"one"')


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drops=st.lists(st.integers(0, 400_000), max_size=6), ranges=st.booleans(), strong=st.booleans())
def test_whatever_breaks_the_file_is_whole_or_absent(
    folder: Path, server: Server, drops: list[int], ranges: bool, strong: bool
) -> None:
    server.drops, server.ranges, server.etag = list(drops), ranges, '"one"' if strong else ""
    for _ in range(3):
        try:
            fetch()
            break
        except SegfairError:
            assert not (folder / FILE).exists()
    assert (folder / FILE).read_bytes() == CONTENT
    assert list_names(folder) == {FILE}
    (folder / FILE).unlink()


# --- verifying
# ------------------------------------------------------------------------------------------------


def test_verifying_by_name_and_by_path(folder: Path, server: Server, tmp_path: Path) -> None:
    with pytest.raises(SegfairError, match="is not here: run `segfair checkpoints fetch sam_vit_b`"):
        verify_checkpoint("sam_vit_b")
    path = fetch()
    assert "is sam_vit_b as published" in verify_checkpoint("sam_vit_b")
    copy = tmp_path / "renamed.pth"
    copy.write_bytes(CONTENT)
    assert "is sam_vit_b as published" in verify_checkpoint(copy)
    path.write_bytes(CONTENT[:-1] + b"!")
    for what in ("sam_vit_b", path):
        with pytest.raises(SegfairError, match="is not the published sam_vit_b"):
            verify_checkpoint(what)
    with pytest.raises(SegfairError, match="neither a file nor one of sam_vit_b"):
        verify_checkpoint("nonesuch")


def test_verifying_ones_own_weights(tiny_vit_b: Path) -> None:
    assert "is a complete vit_b, none of the published files" in verify_checkpoint(tiny_vit_b)


# --- loading
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A tiny network that stands in for vit_b."""
    torch.manual_seed(7)
    monkeypatch.setitem(import_segment_anything().sam_model_registry, "vit_b", lambda: build_small_sam(TINY))
    return build_small_sam(TINY)


@pytest.fixture
def tiny_vit_b(tiny: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loading, "describe_architecture", lambda _: "vit_b")
    path = tmp_path / "own.pth"
    torch.save(tiny.state_dict(), path)
    return path


def same(network: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = network.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


WRAPPED = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best_loss": 0.25, "arch": "sam"},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "DataParallel": lambda state: {"module." + key: value for key, value in state.items()},
    "MedSAM on several GPUs": lambda state: {
        "model": {"module." + key: value for key, value in state.items()},
        "optimizer": {},
        "epoch": 1,
    },
    "compiled and parallel": lambda state: {"module._orig_mod." + key: value for key, value in state.items()},
    "Lightning": lambda state: {"state_dict": {"model." + key: value for key, value in state.items()}},
    "twice": lambda state: {"state_dict": {"model": state}},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_usual_wrappings_come_off(tiny: torch.nn.Module, tmp_path: Path, wrapping: str, zipped: bool) -> None:
    path = tmp_path / "tuned.pth"
    torch.save(WRAPPED[wrapping](dict(tiny.state_dict())), path, _use_new_zipfile_serialization=zipped)
    assert same(build_sam_from_checkpoint(path, "vit_b"), tiny)


def test_safetensors_by_suffix(tiny: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    save_file({key: value.contiguous() for key, value in tiny.state_dict().items()}, path)
    assert same(build_sam_from_checkpoint(path, "vit_b"), tiny)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SegfairError, match=r"tuned.safetensors: cannot be read .* safetensors"):
        load_state(path)


def test_a_built_network_is_whole(tiny: torch.nn.Module, tmp_path: Path) -> None:
    """Nothing is left without memory, the constants outside the file included, and it runs."""
    path = tmp_path / "half.pth"
    torch.save({key: value.half() for key, value in tiny.state_dict().items()}, path)
    sam = build_sam_from_checkpoint(path, "vit_b")
    tensors = [*sam.parameters(), *sam.buffers()]
    assert all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    assert torch.equal(sam.pixel_std, tiny.pixel_std) and not sam.training
    image = torch.zeros(3, 64, 64)
    boxes = torch.tensor([[10.0, 10, 40, 40]])
    call = [{"image": image, "boxes": boxes, "original_size": (64, 64)}]
    with torch.no_grad():
        ours, theirs = sam(call, False)[0], tiny(call, False)[0]
    torch.testing.assert_close(ours["low_res_logits"], theirs["low_res_logits"], rtol=0.05, atol=0.05)


def test_the_file_may_be_replaced_while_its_network_lives(tiny: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "sam.pth"
    torch.save(tiny.state_dict(), path)
    sam = build_sam_from_checkpoint(path, "vit_b")
    with torch.no_grad():
        next(sam.parameters()).add_(0.0)  # memory of its own is written, not the file
    path.unlink()
    assert same(sam, tiny)


def test_the_architecture_is_recognised(tiny_vit_b: Path, tiny: torch.nn.Module) -> None:
    assert same(build_sam_from_checkpoint(tiny_vit_b), tiny)
    with pytest.raises(SegfairError, match="variant must be one of vit_b, vit_l, vit_h; got 'vit_x'"):
        build_sam_from_checkpoint(tiny_vit_b, "vit_x")


def kernel(width: int, patch: int = 16) -> dict[str, torch.Tensor]:
    return {"image_encoder.patch_embed.proj.weight": torch.zeros(width, 3, patch, patch)}


def test_a_checkpoint_of_another_architecture_names_the_one_it_looks_like(
    tiny: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "sam.pth"
    torch.save(kernel(1280), path)
    with pytest.raises(SegfairError, match="does not fit vit_b: it looks like vit_h: correct `variant` or the file"):
        build_sam_from_checkpoint(path, "vit_b")


@pytest.mark.parametrize(
    ("state", "looks"),
    [
        (kernel(768), "vit_b"),
        (kernel(1024), "vit_l"),
        (kernel(1280), "vit_h"),
        (kernel(512), "a SAM of encoder width 512"),
        (kernel(384), "EfficientSAM"),
        (kernel(128, 6), "a small SAM of encoder width 128 and patch 6, like sam_demo"),
        (
            {"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(1), "image_encoder.layers.0.x": torch.zeros(1)},
            "MobileSAM",
        ),
        ({"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(1)}, "SAM 2"),
        ({"image_encoder.backbone.x": torch.zeros(1)}, "EfficientViT-SAM"),
        ({"vision_encoder.patch_embed.projection.weight": torch.zeros(1)}, "Hugging Face transformers"),
        ({"patch_embed.proj.weight": torch.zeros(1)}, "an image encoder alone"),
    ],
)
def test_relatives_are_told_apart(state: dict[str, torch.Tensor], looks: str, tmp_path: Path) -> None:
    assert describe_architecture(state).startswith(looks) or looks in describe_architecture(state)
    path = tmp_path / "a.pth"
    torch.save({"model": state}, path)
    if not looks.startswith("vit"):
        with pytest.raises(SegfairError, match=f"is no SAM of segment-anything: it looks like .*{looks}"):
            build_sam_from_checkpoint(path)


def test_what_is_no_sam_is_shown_by_a_tensor(tmp_path: Path) -> None:
    assert describe_architecture({}) == "no SAM"
    path = tmp_path / "a.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(SegfairError, match=r"is no SAM of segment-anything: its first tensor is 'conv1.weight'"):
        build_sam_from_checkpoint(path)


def test_weights_that_nearly_fit_say_where_they_do_not(tiny_vit_b: Path, tiny: torch.nn.Module) -> None:
    state = dict(tiny.state_dict())
    state["image_encoder.pos_embed"] = torch.zeros(1, 4, 4, 24)
    state["mask_decoder.hf_token.weight"] = torch.zeros(1)
    del state["prompt_encoder.no_mask_embed.weight"]
    torch.save(state, tiny_vit_b)
    with pytest.raises(SegfairError) as caught:
        build_sam_from_checkpoint(tiny_vit_b)
    assert (
        str(caught.value)
        == "own.pth: does not fit vit_b: it looks like one, but prompt_encoder.no_mask_embed.weight and 0 more are"
        " missing and mask_decoder.hf_token.weight and 0 more are unknown and image_encoder.pos_embed and 0 more are"
        " of another shape ((1, 4, 4, 24) in place of (1, 8, 8, 24)): correct the file"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tiny_vit_b: Path, tiny: torch.nn.Module, value: float) -> None:
    state = dict(tiny.state_dict())
    state["image_encoder.pos_embed"] = state["image_encoder.pos_embed"].clone()
    state["image_encoder.pos_embed"][0, 1, 2, 3] = value
    torch.save(state, tiny_vit_b)
    with pytest.raises(SegfairError, match=r"image_encoder.pos_embed holds values that are not finite"):
        build_sam_from_checkpoint(tiny_vit_b)


class Code:
    def __reduce__(self) -> tuple:
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "it is empty"),
        (b"\n <!DOCTYPE html><title>404</title>", "it is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (b"not a checkpoint", "may be damaged or of another format"),
        (b"\x00" * 5000, "may be damaged or of another format"),
        (b"\x80\x02", "may be damaged or of another format"),
        (pickle.dumps({"a": Code()}), "cannot be read as a checkpoint"),
        (pickle.dumps({"a": 1}), "may be damaged or of another format"),
    ],
)
def test_files_that_are_no_checkpoint_say_what_they_are(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "sam.pth"
    path.write_bytes(content)
    with pytest.raises(SegfairError, match=r"sam.pth: cannot be read as a checkpoint of tensors, .*") as caught:
        load_state(path)
    assert re.search(match, str(caught.value)) and "\n" not in str(caught.value)


def test_a_file_cut_short_is_told_by_its_length(tiny: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "medsam_vit_b.pth"
    torch.save(tiny.state_dict(), path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(SegfairError, match="it is cut short at 10,000 of 375,049,145 bytes"):
        load_state(path)
    path = path.rename(tmp_path / "own.pth")
    with pytest.raises(SegfairError, match="it is cut short at 10,000 bytes"):
        load_state(path)


def test_a_file_with_code_in_it_names_the_code_and_does_not_run_it(tmp_path: Path) -> None:
    path = tmp_path / "sam.pth"
    torch.save({"a": Code()}, path)
    with pytest.raises(SegfairError, match=r"it holds \w+\.system beside tensors, which could run code"):
        load_state(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 3}, {1: torch.zeros(1)}, {"model": {}}, torch.zeros(3)])
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "sam.pth"
    torch.save(content, path)
    with pytest.raises(SegfairError, match="must hold a state dict of tensors"):
        load_state(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(SegfairError, match="there is no such file"):
            load_state(path)


def test_a_sentence_on_fetching_names_command_source_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", str(tmp_path))
    text = explain_fetching("medsam")
    assert "segfair checkpoints fetch medsam" in text
    assert "https://zenodo.org/records/10689643/files/medsam_vit_b.pth (375 MB)" in text
    assert str(tmp_path / "medsam_vit_b.pth") in text


@pytest.mark.slow
def test_a_full_vit_b_is_recognised_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = import_segment_anything().sam_model_registry["vit_b"]()
    path = tmp_path / "own.pth"
    torch.save({"model": network.state_dict(), "epoch": 1}, path)
    loaded = build_sam_from_checkpoint(path)
    assert same(loaded, network) and torch.equal(loaded.pixel_mean, network.pixel_mean)


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, helpers.models.checkpoints; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- archives of which no hash is published
# ------------------------------------------------------------------------------


ARCHIVE = "totalsegmentator_291"
INNER = "Dataset291_TotalSegmentator_part1_organs_1559subj"


def zip_files(**files: bytes) -> bytes:
    """Return a zip of files, "__" in their names for "/"."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, content in files.items():
            opened.writestr(zipfile.ZipInfo(name.replace("__", "/")), content)
    return stream.getvalue()


@pytest.fixture
def archive(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The local server with a small archive; what it unpacks to is under `folder`."""
    server.content = zip_files(**{f"{INNER}__a__plans.json": b"{}", f"{INNER}__weights.pth": CONTENT})
    monkeypatch.setitem(CHECKPOINTS, ARCHIVE, replace(CHECKPOINTS[ARCHIVE], url=server.url))
    return server


def test_an_archive_is_unpacked_and_its_hash_recorded(
    folder: Path, archive: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    place = fetch_checkpoint(ARCHIVE)
    assert place == folder / "totalsegmentator" / INNER
    assert (place / "weights.pth").read_bytes() == CONTENT
    assert (place / "a" / "plans.json").read_bytes() == b"{}"
    assert [path.name for path in place.parent.iterdir() if path.suffix != ".lock"] == [INNER]
    sha256 = hashlib.sha256(archive.content).hexdigest()
    assert f"its publishers state no SHA-256; this archive's is {sha256}, recorded in" in capsys.readouterr().err
    assert json.loads((folder / "first_seen.json").read_text(encoding="utf-8"))[ARCHIVE]["sha256"] == sha256
    assert fetch_checkpoint(ARCHIVE) == place and len(archive.requests) == 1
    assert "is as in the archive first seen here" in verify_checkpoint(ARCHIVE)
    assert summarise_checkpoints()[ARCHIVE].endswith(f"at {place}")


def test_an_interrupted_archive_goes_on_where_it_broke_off(folder: Path, archive: Server) -> None:
    archive.drops = [200_000, 0, 0]
    with pytest.raises(SegfairError, match=r"200 kB of 600 kB are kept: run the same command again"):
        fetch_checkpoint(ARCHIVE)
    assert summarise_checkpoints()[ARCHIVE].endswith("begun: fetch it again to go on")
    archive.requests.clear()
    assert (fetch_checkpoint(ARCHIVE) / "weights.pth").read_bytes() == CONTENT
    assert archive.requests == [("bytes=200000-", '"one"')]


def test_another_archive_than_the_first_is_refused(folder: Path, archive: Server) -> None:
    shutil.rmtree(fetch_checkpoint(ARCHIVE))
    assert fetch_checkpoint(ARCHIVE).is_dir()  # the same bytes again
    shutil.rmtree(folder / "totalsegmentator" / INNER)
    archive.content = zip_files(**{f"{INNER}__weights.pth": b"others"})
    with pytest.raises(SegfairError, match=r"is not the totalsegmentator_291 that was first seen here .* ask them"):
        fetch_checkpoint(ARCHIVE)
    assert not (folder / "totalsegmentator" / INNER).exists()


def test_a_changed_file_of_an_archive_is_told(folder: Path, archive: Server) -> None:
    place = fetch_checkpoint(ARCHIVE)
    (place / "weights.pth").write_bytes(b"others")
    for look in (verify_checkpoint, fetch_checkpoint):
        with pytest.raises(SegfairError, match=r"weights.pth is not as in the archive first seen here: delete"):
            look(ARCHIVE)
    (folder / "first_seen.json").unlink()
    assert "nothing is recorded to compare it with" in verify_checkpoint(ARCHIVE)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (zip_files(**{"..__..__escaped": b"x"}), "'../../escaped', which leads out of its folder"),
        (zip_files(__escaped=b"x"), "'/escaped', which leads out of its folder"),
        (zip_files(**{"C:\\escaped": b"x"}), "which leads out of its folder"),
        (zip_files(other=b"x"), f"holds no folder {INNER}, so is another one"),
        (CONTENT, "is no whole zip archive"),
    ],
)
def test_an_archive_leaves_nothing_outside_its_folder(
    tmp_path: Path, folder: Path, archive: Server, content: bytes, says: str
) -> None:
    archive.content = content
    with pytest.raises(SegfairError, match=re.escape(says)):
        fetch_checkpoint(ARCHIVE)
    assert not list(tmp_path.rglob("*escaped*"))
    assert not (folder / "first_seen.json").exists()
    assert {path.suffix for path in (folder / "totalsegmentator").iterdir()} == {".zip", ".lock"}


def test_an_archive_holds_no_links(folder: Path, archive: Server) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        link = zipfile.ZipInfo(f"{INNER}/link")
        link.external_attr = 0o120777 << 16
        opened.writestr(link, "/etc")
    archive.content = stream.getvalue()
    with pytest.raises(SegfairError, match="which leads out of its folder"):
        fetch_checkpoint(ARCHIVE)


def test_a_server_that_does_not_say_how_long_an_archive_is(folder: Path, archive: Server) -> None:
    archive.length = "none"
    with pytest.raises(SegfairError, match="does not say how long the file is"):
        fetch_checkpoint(ARCHIVE)
