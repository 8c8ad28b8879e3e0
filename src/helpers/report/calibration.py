"""How often the audit is right where the truth is known: the numbers of `make calibrate`."""

from __future__ import annotations

import json
from pathlib import Path

PATH = Path(__file__).with_name("calibration.json")


def describe_calibration(*, places: bool) -> str:
    """Say how the audit did where the truth was known, with `places` on organs too."""
    kept = json.loads(PATH.read_text(encoding="utf-8"))
    fairness, spatial = kept["fairness"], kept["spatial"]
    said = [
        f"The audit was tried on simulated cohorts whose truth is known (last on {fairness['made']}). Where nobody was "
        f"treated worse, it called something a disparity in {_share(fairness['false_alarms'])} of the cohorts.",
        f"Its 95 % confidence intervals of gaps held the truth "
        f"{_range(fairness['covered_least'], fairness['covered_most'])} of "
        "the time. Where the true gap was just the margin, it wrongly called groups equivalent, or the gap negligible, "
        f"in up to {_share(fairness['wrong_equivalent'])}.",
        "Very uneven groups with very skewed errors are covered less "
        "well. All numbers are in docs/validity.md and docs/validity_spatial.md of the segfair repository.",
    ]
    if places:
        said.insert(
            2,
            f"On organs' surfaces it found a place where there was none in {_share(spatial['false_alarms'])}; a place "
            f"planted in one group it found with an overlap (Dice) of {spatial['overlap']:.2f}.",
        )
    return " ".join(said)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(least: float, most: float) -> str:
    return f"{100 * least:.0f} to {100 * most:.0f} %"
