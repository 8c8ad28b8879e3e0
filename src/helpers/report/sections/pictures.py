"""Two people of a group that does worse, in three planes: the typical one and the worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from helpers.errors import SegfairError
from helpers.figures.planes import draw_planes
from helpers.report.blocks import ScanPicture
from helpers.vocabulary.words import POOLED, format_number, name_group, name_organ, start_sentence

if TYPE_CHECKING:
    from helpers.report.outputs import Outputs
    from helpers.report.sentences.gaps import Row


def picture_people(outputs: Outputs, row: Row) -> tuple[ScanPicture, ...]:
    """Return pictures of the worst group's median and lowest Dice, for a row of disparity.csv.

    None where the study shows no pictures. Of all organs pooled, the organ with the largest gap of
    the same model and attribute is shown. A scan that cannot be read any more is said to be so.
    """
    metrics, load, group = outputs.metrics, outputs.load_planes, str(row["worst_group"])
    organ, hidden = _choose_organ(outputs, row), outputs.small.get(str(row["attribute"]), set())
    if load is None or metrics is None or group in hidden or not organ:
        return ()
    members = outputs.included[outputs.included[f"group_{row['attribute']}"].astype(str) == group]["number"]
    mine = (metrics["model"] == row["model"]) & (metrics["organ"] == organ) & metrics["number"].isin(members)
    ranked = metrics[mine & metrics["dice"].notna()].sort_values(["dice", "number"])
    if ranked.empty:
        return ()
    pictures = []
    for label, place in (("typical", (len(ranked) - 1) // 2), ("worst", 0)):
        scan = ranked.iloc[place]
        dice = format_number(scan["dice"], "dice")
        caption = f"{start_sentence(name_organ(organ))}, {label} of {name_group(row['attribute'], group)}, Dice {dice}"
        try:
            svg = draw_planes(load(str(row["model"]), organ, int(scan["number"])))
        except (SegfairError, OSError, RuntimeError, ValueError, MemoryError):
            svg, caption = "", f"{caption}: this scan cannot be read any more."
        pictures.append(ScanPicture(svg, caption))
    return tuple(pictures)


def _choose_organ(outputs: Outputs, row: Row) -> str:
    """Return a row's organ; of all pooled, the one with the largest gap for the same group."""
    if row["organ"] != POOLED:
        return str(row["organ"])
    rows = outputs.comparisons
    same = np.all([rows[name] == row[name] for name in ("model", "attribute", "worst_group")], axis=0)
    gaps = rows[same & (rows["organ"] != POOLED)].set_index("organ")["gap"].dropna()
    return str(gaps.idxmax()) if len(gaps) else ""
