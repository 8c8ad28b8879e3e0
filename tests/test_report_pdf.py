"""The report as PDF, through a Chromium where there is one."""

from __future__ import annotations

import re
import stat

import pytest

from helpers.chromium import find_browser
from helpers.errors import StageError
from helpers.report import build_report, print_report
from tests import report_study as study


def write_browser(folder, script: str) -> str:
    path = folder / "browser"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def page(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<!DOCTYPE html><title>t</title>words", encoding="utf-8")
    return page


def test_without_a_browser_the_message_says_what_to_do(page, monkeypatch):
    monkeypatch.setenv("SEGFAIR_CHROMIUM", "no-such-browser")
    assert find_browser() is None
    with pytest.raises(StageError, match=r"no Chromium, Chrome or Edge.*SEGFAIR_CHROMIUM.*print it from there"):
        print_report(page)
    assert page.exists() and not page.with_suffix(".pdf").exists()


@pytest.mark.parametrize(
    ("script", "message"), [("exit 3", "stopped"), ("exit 0", "wrote no file"), ("sleep 5", "took more than 1 s")]
)
def test_a_browser_that_fails_is_told_and_leaves_the_former_file(page, monkeypatch, script, message):
    monkeypatch.setenv("SEGFAIR_CHROMIUM", write_browser(page.parent, script))
    page.with_suffix(".pdf").write_text("former", encoding="utf-8")
    with pytest.raises(StageError, match=message):
        print_report(page, seconds=1)
    assert page.with_suffix(".pdf").read_text(encoding="utf-8") == "former"


def test_the_browser_is_given_a_copy_whose_path_says_nothing(page, monkeypatch):
    script = 'for a in "$@"; do case $a in --print-to-pdf=*) out=${a#--print-to-pdf=};; esac; done; echo "$@" > "$out"'
    monkeypatch.setenv("SEGFAIR_CHROMIUM", write_browser(page.parent, script))
    told = print_report(page).read_text(encoding="utf-8")
    assert str(page.parent) not in told and "--no-pdf-header-footer" in told and "report.html#print\n" in told
    assert "report.html#print-short" in print_report(page, short=True).read_text(encoding="utf-8")


@pytest.mark.browser
@pytest.mark.slow
def test_the_report_is_printed_whole(chromium, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_CHROMIUM", chromium)
    folder = study.write_whole_study(tmp_path / "annalena")
    page = build_report(folder)
    data = print_report(page).read_bytes()
    assert data.startswith(b"%PDF") and len(data) > 100_000
    assert 5 <= count_pages(data) <= 12
    assert all(abs(width - 595) < 2 for width in map(float, re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+)", data))), "A4"
    assert b"annalena" not in data and str(tmp_path).encode() not in data and b"file://" not in data
    assert count_pages(print_report(page, short=True).read_bytes()) <= 2


def count_pages(data: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", data))
