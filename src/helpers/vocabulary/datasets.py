"""Public data sets: which a source holds and a kind of model was trained on, under one name."""

from __future__ import annotations

import re
from collections.abc import Iterable

# By the source of scans (``cohort.source``). A table may name its own: ``cohort.dataset``.
HELD: dict[str, str] = {
    "totalsegmentator": "TotalSegmentator", "kits23": "KiTS23", "amos": "AMOS22",
    "flare": "FLARE22", "btcv": "BTCV", "chaos": "CHAOS", "word": "WORD",
}  # fmt: skip

# By the kind of model, as its publication lists them; ``models[].trained_on`` adds to it.
TRAINED_ON: dict[str, tuple[str, ...]] = {
    "sam": ("SA-1B",),
    "sam2": ("SA-1B", "SA-V"),
    # https://github.com/zhaoziheng/SAT-DS: 72 data sets, among them all that have a source here.
    "sat": ("AMOS22", "KiTS23", "TotalSegmentator", "BTCV", "FLARE22", "AbdomenCT-1K", "CHAOS", "WORD"),
    "totalsegmentator": ("TotalSegmentator",),
    "sam_demo": ("slices and torsos drawn by segfair",),
    "nnunet_demo": ("torsos drawn by segfair",),
}

# Kinds that were trained on so many public data sets that no list is kept here.
TRAINED_WIDELY: dict[str, str] = {
    "sat": "72 public data sets (SAT-DS)",
    "medsam": "many public data sets",
    "medsam2": "many public data sets",
    "voxtell": "158 public data sets",
    "nninteractive": "many public data sets",
}


def match_datasets(names: Iterable[str], held: str) -> list[str]:
    """Return those names that mean the data set `held`, in any spelling and of any year."""
    return [name for name in names if _simplify(name) == _simplify(held)]


def _simplify(name: str) -> str:
    """Return "kits" for KiTS23 and KiTS-19: a challenge's later editions hold earlier scans."""
    return re.sub(r"\d+$", "", re.sub(r"[^a-z0-9]", "", name.lower()))
