"""Make the README's picture from the demo's own report: `make images`, after `make demo`."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

REPOSITORY = Path(__file__).resolve().parents[1]
REPORT = REPOSITORY / "outputs" / "demo" / "report.html"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def main() -> None:
    """Photograph the first screen and the first error map, and put them one above the other."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 870})
        page.goto(REPORT.as_uri())
        page.wait_for_timeout(4000)
        parts = [page.screenshot()]
        surface = page.locator("section#spatial figure.plot").first  # figures are drawn when they come into sight
        surface.scroll_into_view_if_needed()
        page.wait_for_timeout(2500)
        parts.append(surface.screenshot())
        browser.close()
    pictures = [Image.open(io.BytesIO(part)).convert("RGB") for part in parts]
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures) + 16), "white")
    height = 0
    for picture in pictures:
        sheet.paste(picture, (0, height))
        height += picture.height + 16
    target = REPOSITORY / "docs" / "images" / "demo.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    main()
