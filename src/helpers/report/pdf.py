"""A finished report, printed to PDF by a Chromium that is already on this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from helpers import storage
from helpers.chromium import find_browser, run_browser
from helpers.errors import StageError

# The page is given time to draw its figures, and no header that would print the file's path.
_FLAGS = (
    "--hide-scrollbars", "--enable-unsafe-swiftshader", "--run-all-compositor-stages-before-draw",
    "--virtual-time-budget=60000", "--no-pdf-header-footer",
)  # fmt: skip
_SECONDS = 600


def print_report(page: Path, *, short: bool = False, seconds: int = _SECONDS) -> Path:
    """Print ``report.html`` to ``report.pdf`` beside it and return the path.

    `page` is from :func:`helpers.report.build_report`; `short` prints the answers alone, on two
    pages; the browser may take so many `seconds`.

    Raises
    ------
    StageError
        There is no Chromium on this machine, or it failed; the HTML file stays as it is.
    """
    page = Path(page)
    browser = find_browser()
    if browser is None:
        raise StageError(
            f"no Chromium, Chrome or Edge on this machine, so that {page.name} was not printed: install one, "
            f"name it by SEGFAIR_CHROMIUM, or open {page} in any browser and print it from there"
        )
    name = Path(browser).name
    target, fragment = page.with_suffix(".pdf"), "print-short" if short else "print"
    with storage.open_scratch() as folder:
        # Under a name that says nothing: a PDF may keep the address that it was printed from.
        copy, printed = folder / "report.html", folder / "report.pdf"
        shutil.copyfile(page, copy)
        try:
            run_browser(browser, copy, *_FLAGS, f"--print-to-pdf={printed}", fragment=fragment, seconds=seconds)
        except subprocess.TimeoutExpired as error:
            raise StageError(f"{page.name} was not printed: {name} took more than {seconds} s") from error
        except (OSError, subprocess.CalledProcessError) as error:
            raise StageError(f"{page.name} was not printed: {name} stopped ({error})") from error
        if not printed.is_file():
            raise StageError(f"{page.name} was not printed: {name} wrote no file")
        with storage.write_atomically(target) as temporary:
            shutil.copyfile(printed, temporary)
    return target
