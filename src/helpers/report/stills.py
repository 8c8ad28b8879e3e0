"""Still pictures of figures, for print and for where no script runs, by a local Chromium."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Sequence
from urllib.parse import unquote

from plotly.offline import get_plotlyjs

from helpers import storage
from helpers.chromium import find_browser, run_browser
from helpers.report.escaping import dump_json
from helpers.report.live import PageFigure

# On the 180 mm of an A4 page, and on half of it, letters of 12 pixels have 7 points or more.
_WIDE, _HALF = 820, 440
_SECONDS = 600  # a busy machine takes minutes
_FLAGS = ("--enable-unsafe-swiftshader", "--virtual-time-budget=60000", "--dump-dom")
_PAGE = """\
<!DOCTYPE html><meta charset="utf-8"><body><script>{library}</script><script>
(async function () {{
  for (const figure of {figures}) {{
    const drawn = document.createElement("pre");
    drawn.textContent = await Plotly.toImage(
      {{data: figure.data, layout: figure.layout}},
      {{format: "svg", width: figure.width, height: figure.layout.height}});
    document.body.appendChild(drawn);
  }}
}})();
</script></body>
"""
_DRAWN = re.compile(rb"<pre>data:image/svg\+xml,([^<]+)</pre>")
_CHANCE = re.compile(r'id="(?:topdefs|defs)-([0-9a-f]+)"')  # what plotly calls a figure, another each time


def draw_stills(figures: Sequence[PageFigure]) -> list[str]:
    """Return an address (``data:image/svg+xml;base64,…``) for each figure, as it is at first.

    None at all where there is no Chromium on this machine, or where it fails: a page without stills
    shows its figures to scripts alone, and says so.
    """
    browser = find_browser()
    if browser is None or not figures:
        return []
    with storage.open_scratch() as folder:
        page = folder / "stills.html"
        wanted = [
            {"data": one.data["data"], "layout": one.data["layout"], "width": _HALF if one.half else _WIDE}
            for one in figures
        ]
        storage.write_text(_PAGE.format(library=get_plotlyjs(), figures=dump_json(wanted)), page)
        try:
            shown = run_browser(browser, page, *_FLAGS, seconds=_SECONDS)
        except (OSError, subprocess.SubprocessError):
            return []
    drawn = [unquote(found.decode()) for found in _DRAWN.findall(shown)]
    return [_write_address(svg) for svg in drawn] if len(drawn) == len(figures) else []


def _write_address(svg: str) -> str:
    for place, name in enumerate(dict.fromkeys(_CHANCE.findall(svg))):
        svg = svg.replace(name, f"f{place}")
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
