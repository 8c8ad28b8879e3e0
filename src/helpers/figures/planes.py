"""An organ of one scan in three planes, as SVG: grey values with the outlines over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from helpers.figures.slices import OUTLINES, SIDES

if TYPE_CHECKING:
    from helpers.inference import OrganPlane

# A plane's longer side, in pixels: with JPEG of this quality two people take less than 100 kB.
_MOST_PIXELS, _QUALITY = 224, 75
_GAP = 0.012  # between planes, as a part of the width of all
# A letter's height, as a part of the width of all and of their height, whichever is more: at least
# 11 pixels on a screen, and 7 points in print (25 mm high or 87 mm wide).
_LETTER, _PRINTED = (0.024, 0.046), (0.03, 0.103)


def draw_planes(planes: Sequence[OrganPlane]) -> str:
    """Return planes side by side, all to one scale, as an SVG element as wide as there is room.

    `planes` are from :func:`helpers.inference.load_planes`. Solid line: reference; dashed:
    prediction. No text but the letters of the sides; it has no title: it needs a caption.
    """
    sizes = [np.multiply(plane.image.shape, plane.spacing_mm) for plane in planes]
    gap = _GAP * sum(size[1] for size in sizes)
    width, height = sum(size[1] for size in sizes) + gap * (len(planes) - 1), max(size[0] for size in sizes)
    letter, printed = (max(across * width, down * height) for across, down in (_LETTER, _PRINTED))
    parts, left = [], 0.0
    for plane, size in zip(planes, sizes, strict=True):
        parts.append(_draw_plane(plane, size, left, (height - size[0]) / 2, letter, printed))
        left += size[1] + gap
    box = f"0 0 {width:.1f} {height:.1f}"
    return (
        f'<svg class="planes" style="--printed: {printed:.1f}px" viewBox="{box}" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}</svg>"
    )


def _draw_plane(plane: OrganPlane, size_mm: np.ndarray, left: float, top: float, letter: float, printed: float) -> str:
    height, width = size_mm
    lines = []
    for which, (_, colour, dash) in OUTLINES.items():
        path = "".join(_write_path(line) for line in getattr(plane, which))
        look = f'fill="none" stroke="{colour}" stroke-width="2" vector-effect="non-scaling-stroke"'
        dashes = "" if dash == "solid" else f' stroke-dasharray="{dash.replace("px", "")}"'
        lines.append(f'<path d="{path}" {look}{dashes}/>' if path else "")
    near, far = 0.6 * printed, 0.35 * printed  # the larger one keeps off the edge too
    places = (
        (near, height / 2 + far),
        (width - near, height / 2 + far),
        (width / 2, near + far),
        (width / 2, height - far),
    )
    letters = "".join(
        f'<text x="{x:.1f}" y="{y:.1f}">{side}</text>' for side, (x, y) in zip(SIDES[plane.name], places, strict=True)
    )
    look = f'font-family="Arial, Helvetica, sans-serif" font-size="{letter:.1f}" font-weight="700" text-anchor="middle"'
    edge = f'fill="#fff" stroke="#000" stroke-width="{letter / 8:.2f}" paint-order="stroke"'
    return (
        f'<g transform="translate({left:.1f} {top:.1f})"><image width="{width:.1f}" height="{height:.1f}" '
        f'preserveAspectRatio="none" href="{_encode(plane.image)}"/>{"".join(lines)}<g {look} {edge}>{letters}</g></g>'
    )


def _write_path(line: np.ndarray) -> str:
    """Return a closed outline as a path, to a tenth of a millimetre."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) + "Z"


def _encode(image: np.ndarray) -> str:
    """Return grey values as a JPEG within an address, made smaller where they are many."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = min(1.0, _MOST_PIXELS / max(picture.size))
    if scale < 1:
        picture = picture.resize([max(1, round(scale * side)) for side in picture.size], Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
