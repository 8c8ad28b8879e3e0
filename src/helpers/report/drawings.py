"""The glossary's drawings: what each measure looks at, as SVG of our own making.

Solid lines are the expert's, dashed ones the model's; hatching and signs repeat what colours say.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from helpers.report.blocks import Drawing

WIDTH, HEIGHT = 220, 120
_INK, _SOFT, _EXPERT, _MODEL, _ERROR = "#1d2329", "#4d5862", "#0b5394", "#a33b00", "#8f2d0b"
_FONT = "Arial, Helvetica, sans-serif"


@lru_cache(maxsize=1)
def draw_all() -> dict[str, Drawing]:
    """Return every drawing by the key of its term."""
    return {
        "dice": _draw_dice(),
        "nsd": _draw_surface_dice(),
        "hd95_mm": _draw_distance(worst=True),
        "assd_mm": _draw_distance(worst=False),
        "boundary_error_mm": _draw_boundary_error(),
        "volume_error_ml": _draw_volume_error(),
        "gap": _draw_gap(),
        "excess_gap": _draw_excess_gap(),
        "adjusted_gap": _draw_adjusted_gap(),
        "verdicts": _draw_verdicts(),
        "interval": _draw_interval(),
    }


def _finish(name: str, parts: Sequence[str], description: str, *, height: int = HEIGHT) -> Drawing:
    hatch = (
        f'<defs><pattern id="hatch-{name}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<line x1="0" y1="0" x2="0" y2="6" stroke="{_ERROR}" stroke-width="2"/></pattern></defs>'
    )
    body = "".join(parts)
    used = hatch if f"#hatch-{name}" in body else ""
    return Drawing(
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{description}">{used}{body}</svg>',
        description,
    )


def _outline(centre: tuple[float, float], radii: tuple[float, float], bump: float = 0.0, at: float = 0.0) -> np.ndarray:
    """Return a closed outline, (points, 2): an ellipse, pushed out by `bump` pixels around the angle `at`."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    away = np.angle(np.exp(1j * (turn - at)))
    push = 1 + bump / np.mean(radii) * np.exp(-((away / 0.45) ** 2))
    return np.column_stack([centre[0] + radii[0] * push * np.cos(turn), centre[1] + radii[1] * push * np.sin(turn)])


def _trace(points: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"


def _path(points: np.ndarray, *, model: bool = False, fill: str = "none", stroke: bool = True) -> str:
    colour = (_MODEL if model else _EXPERT) if stroke else "none"
    dash = ' stroke-dasharray="5 3"' if model and stroke else ""
    return f'<path d="{_trace(points)}" fill="{fill}" stroke="{colour}" stroke-width="2"{dash}/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = _INK, width: float = 1.5, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"{dashed}/>'


def _say(x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, size: int = 11) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-family="{_FONT}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{text}</text>'


def _key(y: float = 114) -> list[str]:
    return [
        _line(6, y - 4, 28, y - 4, _EXPERT, 2), _say(32, y, "expert", colour=_SOFT),
        _line(84, y - 4, 106, y - 4, _MODEL, 2, "5 3"), _say(110, y, "model", colour=_SOFT),
    ]  # fmt: skip


def _draw_dice() -> Drawing:
    expert, model = _outline((92, 50), (48, 38)), _outline((128, 50), (48, 38))
    # The overlap of two equal ellipses: of each the half that lies nearer to the other.
    middle = 110.0
    overlap = np.vstack(
        [
            model[model[:, 0] <= middle][np.argsort(model[model[:, 0] <= middle][:, 1])],
            expert[expert[:, 0] >= middle][np.argsort(-expert[expert[:, 0] >= middle][:, 1])],
        ]
    )
    return _finish(
        "dice",
        [_path(overlap, fill="#cfe0ef", stroke=False), _path(expert), _path(model, model=True), _say(110, 54, "both", anchor="middle"), *_key()],
        "Two outlines that overlap: Dice is twice the part that both share, divided by the sum of the two areas.",
    )  # fmt: skip


def _draw_surface_dice() -> Drawing:
    expert, model = _outline((110, 52), (66, 34)), _outline((110, 52), (66, 34), bump=16, at=0.0)
    band = f'<path d="{_trace(expert)}" fill="none" stroke="#d9e4ee" stroke-width="12"/>'
    far = np.abs(np.angle(np.exp(1j * np.linspace(0, 2 * np.pi, 72, endpoint=False)))) < 0.42
    outside = model[far][np.argsort(model[far][:, 1])]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in outside)
    return _finish(
        "nsd",
        [band, _path(expert), _path(model, model=True), f'<path d="{line}" fill="none" stroke="{_ERROR}" stroke-width="4"/>', _say(212, 20, "too far", anchor="end", colour=_ERROR), _say(110, 56, "pale band: tolerance", anchor="middle", colour=_SOFT), *_key()],
        "An outline with a band of tolerance around it: surface Dice is the share of both outlines that lies within the band of the other.",
    )  # fmt: skip


def _draw_distance(*, worst: bool) -> Drawing:
    expert, model = _outline((104, 50), (62, 34)), _outline((104, 50), (68, 40), bump=20, at=0.0)
    places = range(0, 72, 6)
    rungs = []
    for place in places:
        (x1, y1), (x2, y2) = expert[place], model[place]
        longest = worst and place == 0
        colour = _ERROR if longest or not worst else "#b8c0c7"
        rungs.append(_line(x1, y1, x2, y2, colour, 3 if longest else 1.5))
    name = "hd95" if worst else "assd"
    said = "red: the worst 5 %" if worst else "mean of all lengths"
    return _finish(
        name,
        [*rungs, _path(expert), _path(model, model=True), _say(104, 54, said, anchor="middle", colour=_ERROR, size=10), *_key()],
        "Lines from each outline to the nearest place of the other: HD95 is the length that 95 of 100 of them do not exceed."
        if worst
        else "Lines from each outline to the nearest place of the other: the average surface distance is their mean length.",
    )  # fmt: skip


def _draw_boundary_error() -> Drawing:
    parts, shift = [], 6.0
    for centre, radii, at in (((64, 50), (46, 38), 54), ((166, 50), (20, 17), 86)):
        inner = (radii[0] - shift, radii[1] - shift)
        parts += [_path(_outline(centre, radii)), _path(_outline(centre, inner), model=True)]
        parts.append(_line(centre[0], centre[1] - radii[1], centre[0], centre[1] - radii[1] + shift, _ERROR, 3))
        outer_area, inner_area = radii[0] * radii[1], inner[0] * inner[1]
        parts.append(_say(centre[0], at, f"Dice {2 * inner_area / (outer_area + inner_area):.2f}", anchor="middle"))
    parts.append(_say(212, 22, "same mm", anchor="end", colour=_ERROR))
    return _finish(
        "boundary_error",
        [*parts, *_key()],
        "A large and a small organ whose outlines are off by the same distance: the small one has the lower Dice, the boundary error is the same.",
    )


def _draw_volume_error() -> Drawing:
    parts = [
        f'<rect x="40" y="20" width="44" height="74" fill="#cfe0ef" stroke="{_EXPERT}" stroke-width="2"/>',
        f'<rect x="110" y="42" width="44" height="52" fill="#f7e3d8" stroke="{_MODEL}" stroke-width="2" stroke-dasharray="5 3"/>',
        f'<rect x="110" y="20" width="44" height="22" fill="url(#hatch-volume_error)" stroke="{_ERROR}"/>',
        _line(160, 20, 160, 42, _ERROR, 2), _say(166, 35, "ml", colour=_ERROR), _line(30, 94, 200, 94, _SOFT),
        _say(62, 108, "expert", anchor="middle", colour=_SOFT), _say(132, 108, "model", anchor="middle", colour=_SOFT),
    ]  # fmt: skip
    return _finish(
        "volume_error",
        parts,
        "Two columns, the expert's volume and the model's: the volume error is the difference between their heights, in ml.",
    )


def _scale(y: float = 96) -> list[str]:
    return [
        _line(14, y, 206, y, _SOFT),
        _say(14, y + 14, "worse", colour=_SOFT),
        _say(206, y + 14, "better", anchor="end", colour=_SOFT),
    ]


def _dots(mean: float, y: float, colour: str, shape: str) -> list[str]:
    shifts = (-38, -24, -15, -8, -3, 4, 9, 17, 25, 34)
    parts = []
    for place, shift in enumerate(shifts):
        x, height = mean + shift, y + (place % 3 - 1) * 5
        parts.append(
            f'<circle cx="{x:g}" cy="{height:g}" r="3" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            if shape == "circle"
            else f'<rect x="{x - 2.7:g}" y="{height - 2.7:g}" width="5.4" height="5.4" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
    return [*parts, _line(mean, y - 14, mean, y + 14, colour, 3)]


def _draw_gap() -> Drawing:
    parts = [
        *_dots(84, 30, _MODEL, "circle"), *_dots(138, 68, _EXPERT, "square"), _line(84, 44, 84, 92, _MODEL, 1, "2 3"),
        _line(84, 90, 138, 90, _ERROR, 3), _line(138, 82, 138, 92, _EXPERT, 1, "2 3"), _say(111, 86, "gap", anchor="middle", colour=_ERROR),
        _say(14, 14, "group A", colour=_MODEL), _say(206, 54, "group B", anchor="end", colour=_EXPERT), *_scale(),
    ]  # fmt: skip
    return _finish(
        "gap", parts, "Two groups of people as dots, a line at each mean: the gap is the distance between the means."
    )


def _bar(y: float, start: float, width: float, label: str, colour: str, *, hatch: str = "") -> str:
    fill = f"url(#hatch-{hatch})" if hatch else colour
    return f'<rect x="{start:g}" y="{y:g}" width="{width:g}" height="18" fill="{fill}" stroke="{_INK}"/>' + _say(
        8, y + 13, label
    )


def _draw_excess_gap() -> Drawing:
    parts = [
        _bar(12, 78, 120, "gap", "#c5ccd2"), _bar(44, 78, 78, "size alone", "#e9eef2"), _bar(76, 156, 42, "excess", "", hatch="excess_gap"),
        _line(156, 40, 156, 98, _SOFT, 1, "2 3"), _say(8, 114, "gap = size alone + excess", colour=_SOFT),
    ]  # fmt: skip
    return _finish(
        "excess_gap",
        parts,
        "Three bars: the gap, the part of it that organ size alone would give, and the rest, which is the excess gap.",
    )


def _draw_adjusted_gap() -> Drawing:
    parts = [
        _bar(14, 78, 120, "gap", "#c5ccd2"), _bar(46, 78, 48, "adjusted", "", hatch="adjusted_gap"),
        _say(8, 86, "the same two groups, as if they were", colour=_SOFT), _say(8, 100, "alike in age, BMI and so on", colour=_SOFT),
    ]  # fmt: skip
    return _finish(
        "adjusted_gap",
        parts,
        "Two bars: the gap as found, and a shorter one, the gap with other differences between the groups held equal.",
    )


def _draw_interval() -> Drawing:
    parts = [
        _line(60, 12, 60, 92, _INK), _say(60, 108, "no gap", anchor="middle", colour=_SOFT),
        _line(96, 32, 180, 32, _EXPERT, 3), f'<circle cx="136" cy="32" r="5" fill="{_EXPERT}"/>', _say(136, 20, "shown", anchor="middle"),
        _line(40, 70, 150, 70, _MODEL, 3), f'<circle cx="94" cy="70" r="5" fill="{_MODEL}"/>', _say(94, 58, "not shown", anchor="middle"),
        _line(150, 76, 150, 96, _ERROR, 1, "2 3"), _say(150, 108, "not ruled out", anchor="middle", colour=_ERROR),
    ]  # fmt: skip
    return _finish(
        "interval",
        parts,
        "Two intervals beside a line of no gap: one leaves the line out, the other crosses it, and its far end is the gap that cannot be ruled out.",
    )


def _draw_verdicts() -> Drawing:
    rows = (
        ("▲ disparity", 150, 196),
        ("▽ negligible", 112, 128),
        ("= equivalent", 92, 118),
        ("? inconclusive", 84, 178),
    )
    parts = ['<rect x="80" y="6" width="56" height="106" fill="#e4e8eb"/>', _line(108, 6, 108, 112, _INK)]
    for place, (name, low, high) in enumerate(rows):
        y = 24 + 28 * place
        parts += [
            _line(low, y, high, y, _EXPERT, 3),
            f'<circle cx="{(low + high) / 2:g}" cy="{y}" r="4" fill="{_EXPERT}"/>',
            _say(2, y + 4, name, size=10),
        ]
    parts.append(_say(108, 128, "grey: within the margin", anchor="middle", colour=_SOFT))
    return _finish(
        "verdicts",
        parts,
        "Four intervals beside a grey band, the margin: beyond it is a disparity; inside it and off zero negligible; inside it and across zero equivalent; across its edge inconclusive.",
        height=134,
    )
