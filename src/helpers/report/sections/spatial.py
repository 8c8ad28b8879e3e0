"""Where on the organ groups differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.figures.spatial import plot_error_maps
from helpers.figures.style import name_for_people
from helpers.report import sentences
from helpers.report.blocks import Block, Bullets, Figure, Note, Section, Table, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import list_found, make_missing, make_section
from helpers.spatial import describe_location, describe_places

_PLACE = ("spatial", "Where in the organ", "Where")
# Places told in words: every one beyond chance up to the second number, and at least the first.
_FEWEST_PLACES, _MOST_PLACES = 3, 8
_HOW_SURFACE = (
    "The organ's mean shape in 3D: drag to turn it, or choose a side; R and L are the person's right and left. The menus choose model, organ, "
    "attribute and map: a group by itself (red: drawn too large, blue: too small), the difference of two groups (red: larger in the first one "
    "named), what of it is significant, or the change with a number such as age. White: zero. Grey: no value. A black line runs around the places "
    "where the difference is significant. Point at a place to read it in mm. The text above the menus says where the map is largest."
)


def compose_spatial(outputs: Outputs) -> Section:
    """Compose where on the organ groups differ."""
    if outputs.maps is None or outputs.spatial_summary is None:
        return make_missing(_PLACE, "The spatial analysis has not been run (04_spatial).")
    if outputs.maps.empty:
        return make_missing(_PLACE, "No organ could be mapped: too few people have it, or no group is large enough.")
    return make_section(_PLACE, _tell_places(outputs))


def locate_differences(outputs: Outputs) -> dict[tuple[str, str, str], tuple[Mapping[str, Any], str]]:
    """Return, by (model, organ, attribute), the row of spatial/summary.csv and where the two groups differ, in words."""
    summary, maps = outputs.spatial_summary, outputs.maps
    if summary is None or summary.empty or maps is None or maps.empty:
        return {}
    found = {}
    for row in summary[summary["peak_difference_mm"].notna()].to_dict("records"):
        told = row.get("location")
        found[_place(row)] = row, told if isinstance(told, str) and told else _locate(outputs, row)
    return found


def _locate(outputs: Outputs, row: Mapping[str, Any]) -> str:
    part = _select_map(outputs.maps, row["model"], row["organ"])
    part = part[part["attribute"] == row["attribute"]].sort_values("vertex")
    template = outputs.templates.get(row["organ"])
    return describe_location(
        part[["x", "y", "z"]].to_numpy(float),
        part["difference"].to_numpy(float),
        template.faces if template is not None and len(template.vertices_mm) == len(part) else None,
        positive=f"larger for “{row['group_a']}”",
        negative=f"smaller for “{row['group_a']}”",
    )


def _tell_places(outputs: Outputs) -> list[Block]:
    """Return where groups differ on each organ, in words, then each organ's surface."""
    shown, alpha = {_place(row) for row in list_found(outputs)}, outputs.parameters.fairness.alpha

    def rank(item: tuple[Mapping[str, Any], str]) -> tuple[bool, bool, float]:
        """First what belongs to a difference in the score, then what is beyond chance over all maps, the largest first."""
        row, p = item[0], item[0].get("p_adjusted")
        beyond = sentences.is_known(p) and float(p) <= alpha
        return _place(row) not in shown, not beyond, -abs(row["peak_difference_mm"])

    rows = sorted(locate_differences(outputs).values(), key=rank)
    told = min(max(_FEWEST_PLACES, sum(not all(rank(item)[:2]) for item in rows)), _MOST_PLACES)
    tested = any(sentences.is_known(row.get("significant_fraction")) for row, _ in rows)
    blocks: list[Block] = [
        Text(
            "At each place of a common organ shape, the error is how far the model's outline lies outside (+) or inside (−) the expert's, in mm, "
            "averaged over a group. The difference of two groups shows where one of them is drawn larger or smaller than the other. "
            + (
                "“Beyond chance” is corrected for all the places of the organ at once."
                if tested
                else "Nothing here is tested: where the organ as a whole shows no difference, take a place for a hint at most."
            )
        )
    ]
    if rows:
        blocks.append(Bullets(tuple(sentences.describe_place(row, place) for row, place in rows[:told])))
    else:
        blocks.append(Note("No two groups were large enough to compare their errors on an organ."))
    blocks += _figures_surface(outputs)
    if rows:
        table = pd.DataFrame([_tabulate_place(row, place, tested=tested) for row, place in rows])
        blocks.append(
            Table(
                "Where groups differ on the organ's surface",
                table,
                numeric=("Largest difference",),
                folded=len(table) > 12,
            )
        )
    return blocks


def _tabulate_place(row: Mapping[str, Any], place: str, *, tested: bool) -> dict[str, str]:
    cells = {
        "Model": row["model"],
        "Organ": sentences.name_organ(row["organ"]),
        "By": name_for_people(row["attribute"]),
        "Compared (people)": f"“{row['group_a']}” ({row['n_a']:.0f}) against “{row['group_b']}” ({row['n_b']:.0f})",
        "Largest difference": sentences.format_size(row["peak_difference_mm"], "boundary_error_mm", signed=True),
        "Where": place,
    }
    if tested:
        fraction = row.get("significant_fraction")
        cells["Beyond chance"] = (
            f"{100 * float(fraction):.0f} % of the surface" if sentences.is_known(fraction) else "not tested"
        )
    return cells


def _figures_surface(outputs: Outputs) -> list[Block]:
    """Return one figure of every model's and organ's surface."""
    if outputs.maps is None:
        return []
    blocks: list[Block] = []
    templates = dict(outputs.templates)
    for organ, part in outputs.maps.groupby("organ", sort=False, observed=True):
        sizes = part.groupby(["model", "attribute"], sort=False, observed=True).size()
        if organ in templates and (sizes != len(templates[organ].vertices_mm)).any():
            del templates[organ]
            blocks.append(
                Note(
                    f"The maps of {sentences.name_organ(organ)} do not fit its template: run 04_spatial again.",
                    "warning",
                )
            )
    groups, alpha = outputs.spatial_groups, outputs.parameters.fairness.alpha
    places = describe_places(outputs.maps, templates, slopes=outputs.slopes, groups=groups, alpha=alpha)
    if places.empty:
        return blocks
    figure = plot_error_maps(outputs.maps, templates, slopes=outputs.slopes, groups=groups, places=places, alpha=alpha)
    return [*blocks, Figure(figure, _HOW_SURFACE)]


def _select_map(table: pd.DataFrame, model: str, organ: str) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["organ"] == organ)]


def _place(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["model"], row["organ"], row["attribute"]
