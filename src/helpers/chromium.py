"""A Chromium that is already on this machine, run without a window over one page."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# Chromium and browsers made from it, under the names of Linux, macOS and Windows.
_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
    "brave-browser",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
# Nothing is fetched and nothing is told.
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
)


def find_browser() -> str | None:
    """Return a Chromium on this machine, None without one.

    The one ``SEGFAIR_CHROMIUM`` names, else the first that is found.
    """
    named = os.environ.get("SEGFAIR_CHROMIUM")
    return next((path for name in ((named,) if named else _BROWSERS) if (path := shutil.which(name))), None)


def run_browser(browser: str, page: Path, *flags: str, fragment: str = "", seconds: int) -> bytes:
    """Open a page in a browser without a window and return what it writes to its standard output.

    The page lies in a folder of its own, in which the browser keeps its profile; the browser keeps
    its sandbox except under root, where Chromium refuses to start with one. `fragment` follows
    ``#`` in the address.

    Raises OSError, subprocess.SubprocessError: it does not start, stops with an error, or takes too
    long.
    """
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    sandbox = ("--no-sandbox",) if is_root else ()
    address = page.as_uri() + (f"#{fragment}" if fragment else "")
    command = [browser, *_FLAGS, *sandbox, f"--user-data-dir={page.parent}/profile", *flags, address]
    return subprocess.run(command, capture_output=True, check=True, timeout=seconds).stdout
