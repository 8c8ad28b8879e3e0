"""A finished report, printed to PDF by a Chromium that is already on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from helpers import storage
from helpers.errors import StageError

# Chromium and browsers made from it, under the names of Linux, macOS and Windows.
_BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge", "brave-browser",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)  # fmt: skip
# Nothing is fetched, nothing is told, and the page is given time to draw its figures.
_FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--enable-unsafe-swiftshader", "--run-all-compositor-stages-before-draw",
    "--virtual-time-budget=60000",
    # Chromium's own header and footer would print the path of the file.
    "--no-pdf-header-footer",
)  # fmt: skip
_SECONDS = 600


def find_browser() -> str | None:
    """Return a Chromium on this machine: the one ``SEGFAIR_CHROMIUM`` names, else the first that is found; None without one."""
    named = os.environ.get("SEGFAIR_CHROMIUM")
    return next((path for name in ((named,) if named else _BROWSERS) if (path := shutil.which(name))), None)


def print_report(page: Path, *, seconds: int = _SECONDS) -> Path:
    """Print ``report.html`` to ``report.pdf`` beside it and return the path.

    Parameters
    ----------
    page : Path
        From :func:`helpers.report.build_report`.
    seconds : int
        How long the browser may take.

    Raises
    ------
    StageError
        There is no Chromium on this machine, or it failed; the HTML file stays as it is.
    """
    page = Path(page)
    browser = find_browser()
    if browser is None:
        raise StageError(
            f"no Chromium, Chrome or Edge on this machine, so that {page.name} was not printed: install one, name it by SEGFAIR_CHROMIUM, or open "
            f"{page} in any browser and print it from there"
        )
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory(prefix="segfair-", ignore_cleanup_errors=True) as folder:
        # The page under a name that says nothing: a PDF may keep the address that it was printed from.
        shutil.copyfile(page, Path(folder) / "report.html")
        printed = Path(folder) / "report.pdf"
        sandbox = (
            ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        )  # Chromium refuses root otherwise
        address = f"{(Path(folder) / 'report.html').as_uri()}#print"
        command = [
            browser,
            *_FLAGS,
            *sandbox,
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={printed}",
            address,
        ]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise StageError(f"{page.name} was not printed: {Path(browser).name} took more than {seconds} s") from error
        except (OSError, subprocess.CalledProcessError) as error:
            raise StageError(f"{page.name} was not printed: {Path(browser).name} stopped ({error})") from error
        if not printed.is_file():
            raise StageError(f"{page.name} was not printed: {Path(browser).name} wrote no file")
        with storage.write_atomically(target) as temporary:
            shutil.copyfile(printed, temporary)
    return target
