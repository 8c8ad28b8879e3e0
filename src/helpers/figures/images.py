"""Figures as pictures, drawn by a local Chromium without a network."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from plotly.offline import get_plotlyjs

from helpers import storage
from helpers.chromium import find_browser, run_browser

_FLAGS = ("--enable-unsafe-swiftshader", "--virtual-time-budget=60000", "--dump-dom")
_PAGE = """\
<!DOCTYPE html><meta charset="utf-8"><body><script>{library}</script><script>
(async function () {{
  for (const [figure, look] of {wanted}) {{
    const drawn = document.createElement("pre");
    drawn.textContent = await Plotly.toImage(figure, look);
    document.body.appendChild(drawn);
  }}
}})();
</script></body>
"""
_DRAWN = re.compile(r"<pre>(data:image/[^<]+)</pre>")


def draw_images(wanted: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], *, seconds: int) -> list[str]:
    """Return the address, ``data:image/…``, of each figure's picture.

    `wanted` are figures as JSON takes them, and how each is drawn (``format``, ``width``,
    ``height`` and ``scale`` of Plotly.toImage). None at all where there is no Chromium, or where it
    fails or takes more than so many `seconds`.
    """
    browser = find_browser()
    if browser is None or not wanted:
        return []
    with storage.open_scratch() as folder:
        page = folder / "images.html"
        told = json.dumps(wanted, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        storage.write_text(_PAGE.format(library=get_plotlyjs(), wanted=told), page)
        try:
            shown = run_browser(browser, page, *_FLAGS, seconds=seconds)
        except (OSError, subprocess.SubprocessError):
            return []
    drawn = _DRAWN.findall(shown.decode("utf-8"))
    return drawn if len(drawn) == len(wanted) else []
