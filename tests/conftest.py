"""What all tests share: a seeded generator, small grids of unequal sides, the real data where
present."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_nnunet import tiny_nnunet  # noqa: F401
from tests.visiting import FLAGS

REPOSITORY = Path(__file__).resolve().parents[1]


def skip_unless_required(name: str, reason: str) -> None:
    """Skip, except where SEGFAIR_REQUIRE names the resource (CI does): there its absence is a
    failure."""
    if name in os.environ.get("SEGFAIR_REQUIRE", "").split(","):
        pytest.fail(f"SEGFAIR_REQUIRE asks for {name!r}: {reason}")
    pytest.skip(reason)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240618)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data beside the repository; tests that need it are skipped elsewhere."""
    folder = Path(os.environ.get("SEGFAIR_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "kits23_annotators").is_dir():
        skip_unless_required("data", "the real data is not at hand: set SEGFAIR_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a local Chromium; browser tests are skipped where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        skip_unless_required("browser", "no Chromium on this machine: install it to run the browser tests")
    return str(path)


@pytest.fixture(scope="session", autouse=True)
def no_stills():
    """Reports get no still pictures, whose browser takes seconds; tests of these name a browser."""
    with pytest.MonkeyPatch.context() as patch:
        if "SEGFAIR_CHROMIUM" not in os.environ:
            patch.setenv("SEGFAIR_CHROMIUM", "no-browser-in-tests")
        yield


@pytest.fixture(scope="module")
def browser(chromium):
    """A running Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def warm_place(tmp_path_factory):
    """Return a folder in which a good study has been checked; the process comes back from it."""
    from tests import fuzzing

    here, place = os.getcwd(), tmp_path_factory.mktemp("warm")  # noqa: PTH109
    fuzzing.warm_up(place)
    yield place
    os.chdir(here)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
