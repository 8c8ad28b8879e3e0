"""Where on the organ groups differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from helpers.figures.spatial import plot_error_maps
from helpers.figures.surface_views import BESIDE
from helpers.report.blocks import Block, Bullets, Figure, Note, ReportSection, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import name_row
from helpers.report.sentences.gaps import Place, find_place
from helpers.report.sentences.places import describe_place
from helpers.spatial import describe_location, describe_places
from helpers.spatial.surfaces import Surface, smooth_surface
from helpers.vocabulary.words import format_value, is_known, name_organ

_PLACE = ("spatial", "Where in the organ", "Where")
# Places told in words: every significant one up to the second number, and at least the first.
_FEWEST_PLACES, _MOST_PLACES = 3, 8
_HOW_SURFACE = (
    "The organ's mean shape in 3D: drag to turn it, or choose a side; R and L are the person's right and left. The "
    "menus choose model, organ, attribute and map: a group by itself (red: drawn too large, blue: too small), the "
    "difference of two groups (red: larger in the first one named), what of it is significant, or the change with a "
    "number such as age. White: zero. Grey: no value. A black line runs around the places where the difference is "
    "significant. Point at a place to read it in mm. The text above the menus says where the map is largest."
)


def compose_spatial(outputs: Outputs) -> ReportSection:
    """Compose where on the organ groups differ."""
    if not outputs.has_masks:
        told = "Ready-made scores do not tell where in an organ a model errs: that takes the masks."
        return ReportSection(*_PLACE, (Note(told),))
    if outputs.maps is None or outputs.spatial_summary is None:
        return ReportSection(*_PLACE, (Note("The spatial analysis has not been run (04_spatial)."),))
    if outputs.maps.empty:
        missing = "No organ could be mapped: too few people have it, or no group is large enough."
        return ReportSection(*_PLACE, (Note(missing),))
    return ReportSection(*_PLACE, tuple(_tell_places(outputs)))


def locate_differences(outputs: Outputs) -> dict[Place, tuple[Mapping[str, Any], str]]:
    """Return, by place, a row of spatial/summary.csv and where its groups differ, in words."""
    summary, maps = outputs.spatial_summary, outputs.maps
    if summary is None or summary.empty or maps is None or maps.empty:
        return {}
    rows = summary[summary["peak_difference_mm"].notna()].to_dict("records")
    places = (row["location"] if is_known(row.get("location")) else _locate(outputs, row) for row in rows)
    return {find_place(row): (row, place) for row, place in zip(rows, places, strict=True)}


def _locate(outputs: Outputs, row: Mapping[str, Any]) -> str:
    maps = outputs.maps if outputs.maps is not None else pd.DataFrame()
    part = maps[(maps["model"] == row["model"]) & (maps["organ"] == row["organ"])]
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
    shown, alpha = set(map(find_place, outputs.found)), outputs.parameters.fairness.alpha

    def rank(item: tuple[Mapping[str, Any], str]) -> tuple[bool, bool, float]:
        """Rank what belongs to a difference in the score first, then the significant, by size."""
        row, p = item[0], item[0].get("p_adjusted")
        return find_place(row) not in shown, not (is_known(p) and p <= alpha), -abs(row["peak_difference_mm"])

    rows = sorted(locate_differences(outputs).values(), key=rank)
    told = min(max(_FEWEST_PLACES, sum(not all(rank(item)[:2]) for item in rows)), _MOST_PLACES)
    tested = any(is_known(row.get("significant_fraction")) for row, _ in rows)
    certainty = (
        "“Significant” is adjusted for all the places of the organ at once."
        if tested
        else "Nothing here is tested: where the organ as a whole shows no difference, take a place for a hint at most."
    )
    how = Text(
        "At each place of a common organ shape, the error is how far the model's outline lies outside (+) or inside "
        "(−) the expert's, in mm, averaged over a group. The difference of two groups shows where one of them is drawn "
        f"larger or smaller than the other. {certainty}"
    )
    if not rows:
        few = Note("No two groups were large enough to compare their errors on an organ.")
        return [how, few, *_figures_surface(outputs)]
    frame = pd.DataFrame([_tabulate_place(row, place, tested=tested) for row, place in rows])
    caption, numeric = "Where groups differ on the organ's surface", ("Largest difference",)
    table = ReportTable(caption, frame, numeric=numeric, folded=len(frame) > 12)
    said = Bullets(tuple(describe_place(row, place) for row, place in rows[:told]))
    return [how, said, *_figures_surface(outputs), table]


def _tabulate_place(row: Mapping[str, Any], place: str, *, tested: bool) -> dict[str, str]:
    cells = {
        **name_row(row),
        "Compared (people)": f"“{row['group_a']}” ({row['n_a']:.0f}) against “{row['group_b']}” ({row['n_b']:.0f})",
        "Largest difference": format_value(row["peak_difference_mm"], "boundary_error_mm", signed=True),
        "Where": place,
    }
    if tested:
        fraction = row.get("significant_fraction")
        cells["Significant"] = f"{100 * fraction:.0f} % of the surface" if is_known(fraction) else "not tested"
    return cells


def _figures_surface(outputs: Outputs) -> list[Block]:
    """Return one figure of every model's and organ's surface."""
    if outputs.maps is None:
        return []
    blocks, templates = list[Block](), dict(outputs.templates)
    for organ, part in outputs.maps.groupby("organ", sort=False, observed=True):
        sizes = part.groupby(["model", "attribute"], sort=False, observed=True).size()
        if organ in templates and (sizes != len(templates[organ].vertices_mm)).any():
            del templates[organ]
            misfit = f"The maps of {name_organ(organ)} do not fit its template: run 04_spatial again."
            blocks.append(Note(misfit, "warning"))
    groups, alpha = outputs.spatial_groups, outputs.parameters.fairness.alpha
    places = describe_places(outputs.maps, templates, slopes=outputs.slopes, groups=groups, alpha=alpha)
    if places.empty:
        return blocks
    # Without the creases that registration leaves: a light on them looks like a lesion.
    smooth = {organ: smooth_surface(Surface(one.vertices_mm, one.faces)) for organ, one in templates.items()}
    drawn = {organ: replace(templates[organ], vertices_mm=one.vertices_mm) for organ, one in smooth.items()}
    draw = partial(plot_error_maps, outputs.maps, drawn, slopes=outputs.slopes, groups=groups, places=places)
    mapped = set(outputs.maps[["model", "organ", "attribute"]].itertuples(index=False, name=None))
    first = next(((*find_place(row), BESIDE) for row in outputs.found if find_place(row) in mapped), None)
    return [*blocks, Figure.draw(partial(draw, alpha=alpha, first=first), _HOW_SURFACE)]
