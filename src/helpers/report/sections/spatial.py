"""Where on the organ groups differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from helpers.figures.spatial import plot_error_maps
from helpers.figures.surface_views import BESIDE
from helpers.report.blocks import Block, Bullets, Figure, Note, ReportSection, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import name_row
from helpers.report.sentences.gaps import Place, Row, find_place
from helpers.report.sentences.places import (
    SMALL_SPOT,
    describe_alone,
    describe_floor,
    describe_place,
    describe_spots,
    read_extent,
    stands_alone,
    tell_certainty,
)
from helpers.spatial import describe_location, describe_places
from helpers.spatial.location import SMALLEST_DIFFERENCE_MM, find_significant
from helpers.spatial.surfaces import Surface, smooth_surface
from helpers.vocabulary.words import POOLED, format_p, format_value, name_group, name_organ, start_sentence

_PLACE = ("spatial", "Where in the organ", "Where")
# Places told in words: the significant ones, or a few where none is.
_FEWEST_PLACES, _MOST_PLACES = 3, 8
_HOW_SURFACE = (
    "The organ's mean shape in 3D: drag to turn it, or choose a side; R and L are the person's right and left. The "
    "menus choose model, organ, attribute and map: a group by itself (red: drawn too large, blue: too small), the "
    "difference of two groups (red: larger in the first one named), what of it is significant, or the change with a "
    "number such as age. White: zero. Grey: no value. A black line runs around the places where the difference is "
    "significant, unless that is the whole surface. Point at a place to read it in mm. The text above the menus tells "
    "what is typical of it, and where."
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


def locate_gap(outputs: Outputs, gap: Row) -> str:
    """Say where on the organ the two groups of a gap differ: its worst against its best group.

    What is significant comes from the test of the pair that was fixed beforehand; where that is
    another one, the difference is that of the two groups' mean maps.
    """
    place = find_place(gap)
    if place[1] == POOLED:
        return "All organs together have no surface: see them one by one."
    part, summary = _find_maps(outputs, place), outputs.spatial_summary
    if part.empty or summary is None:
        return "Not known: this organ was not mapped."
    found = [row for row in summary.to_dict("records") if find_place(row) == place]
    groups = str(gap["worst_group"]), str(gap["best_group"])
    said = _describe_pair(outputs, part, *groups)
    if not found or not said:
        return "Not known: too few people for a map of these two groups."
    tested = str(found[0]["group_a"]), str(found[0]["group_b"])
    if set(tested) == set(groups):
        return f"{start_sentence(said)}{tell_certainty(found[0])}."
    named = " against ".join(name_group(place[2], group) for group in tested)
    certain = "significant" if read_extent(found[0]) else "not significant"
    if stands_alone(found[0], outputs.parameters.fairness.alpha):
        certain += f" in this map by itself, not among all maps ({format_p(found[0]['p_adjusted'])})"
    return f"{start_sentence(said)}, by the two groups' mean maps. The test was of {named}: {certain}."


def tell_where(outputs: Outputs, gap: Row) -> str:
    """Return where masks of a gap's worst group lie further in or out, in a clause; else empty."""
    place, summary = find_place(gap), outputs.spatial_summary
    if summary is None or summary.empty:
        return ""
    found = [row for row in summary.to_dict("records") if find_place(row) == place]
    part = _find_maps(outputs, place)
    if part.empty or not found or (read_extent(found[0]) or 0.0) < SMALL_SPOT:
        return ""
    if stands_alone(found[0], outputs.parameters.fairness.alpha):
        return ""
    said = _describe_pair(outputs, part, str(gap["worst_group"]), str(gap["best_group"]), named=False)
    return said.rpartition(" (")[0] or said  # without the share of the surface


def _find_maps(outputs: Outputs, place: Place) -> pd.DataFrame:
    maps = outputs.maps if outputs.maps is not None else pd.DataFrame(columns=["model", "organ", "attribute"])
    here = np.all([maps[name] == value for name, value in zip(("model", "organ", "attribute"), place, strict=True)], 0)
    return maps[here].sort_values("vertex") if here.any() else maps.iloc[:0]


def _describe_pair(outputs: Outputs, part: pd.DataFrame, first: str, second: str, *, named: bool = True) -> str:
    """Say where one group is drawn larger or smaller than another; empty without their maps.

    Where the groups are not `named`, the sentence around has them.
    """
    a, b, alpha = part["group_a"].iloc[0], part["group_b"].iloc[0], outputs.parameters.fairness.alpha

    def read(column: str) -> np.ndarray:
        return part[column].to_numpy(float) if column in part else np.full(len(part), np.nan)

    region = find_significant(read("p_fwer"), read("p_tfce"), alpha)
    if {first, second} == {a, b}:
        adjusted = read("adjusted_difference")
        values = adjusted if np.isfinite(adjusted).any() else read("difference")
        values = values if first == a else -values
    else:
        values = read(f"error_{first}") - read(f"error_{second}")
    if not np.isfinite(values).any():
        return ""
    organ, attribute = str(part["organ"].iloc[0]), str(part["attribute"].iloc[0])
    template = outputs.templates.get(organ)
    pair = f" in {name_group(attribute, first)} than in {name_group(attribute, second)}"
    larger, smaller = f"larger{pair}", f"smaller{pair}"
    if not named:
        larger, smaller = (f"further {side} the expert's outline" for side in ("outside", "inside"))
    said = describe_location(
        part[["x", "y", "z"]].to_numpy(float),
        values,
        template.faces if template is not None and len(template.vertices_mm) == len(part) else None,
        region=region,
        positive=larger,
        negative=smaller,
        smallest_mm=SMALLEST_DIFFERENCE_MM,
        organ=organ,
    )
    return f"masks {said}" if said.startswith("typically") else said


def _tell_places(outputs: Outputs) -> list[Block]:
    """Return where groups differ on each organ, in words, then each organ's surface."""
    shown, summary, alpha = (
        set(map(find_place, outputs.found)),
        outputs.spatial_summary,
        outputs.parameters.fairness.alpha,
    )
    known = summary[summary["peak_difference_mm"].notna()] if summary is not None and len(summary) else pd.DataFrame()
    rows = [
        (row, said)
        for row in known.to_dict("records")
        if len(part := _find_maps(outputs, find_place(row)))
        and (said := _describe_pair(outputs, part, str(row["group_a"]), str(row["group_b"])))
    ]

    def rank(item: tuple[Mapping[str, Any], str]) -> tuple[bool, bool, float]:
        """Rank what belongs to a difference in the score first, then by extent."""
        row, extent = item[0], read_extent(item[0]) or 0.0
        return extent < SMALL_SPOT, find_place(row) not in shown, -extent

    rows.sort(key=rank)
    large = [item for item in rows if (read_extent(item[0]) or 0.0) >= SMALL_SPOT]
    spots = [row for row, _ in rows if 0 < (read_extent(row) or 0.0) < SMALL_SPOT]
    tested = any(read_extent(row) is not None for row, _ in rows)
    certainty = (
        "“Significant” is adjusted for all places of the organ at once, by clusters: the extent as a whole is certain, "
        f"its edge is not. {describe_floor([row for row, _ in rows])}"
        if tested
        else "Nothing here is tested: where the organ as a whole shows no difference, take a place for a hint at most."
    )
    how = Text(
        "At each place of a common organ shape, the error is how far the model's outline lies outside (+) or inside "
        "(−) the expert's, in mm, averaged over a group. The difference of two groups shows where one of them is drawn "
        "larger or smaller than the other; “typically” is its median where it is significant (where nothing is, where "
        f"it is largest). {certainty}"
    )
    if not rows:
        few = Note("No two groups were large enough to compare their errors on an organ.")
        return [how, few, *_figures_surface(outputs)]
    alone = [row for row, _ in large if stands_alone(row, alpha)]
    sure = [(row, said) for row, said in large if all(row is not one for one in alone)]
    told = [describe_place(row, said) for row, said in sure[:_MOST_PLACES]]
    if not told and not spots and not alone:
        told = [describe_place(row, said) for row, said in rows[:_FEWEST_PLACES]]
    caption, numeric = "Where groups differ on the organ's surface", ("Typical difference",)
    frame = pd.DataFrame([_tabulate_place(row, said) for row, said in rows])
    table = ReportTable(caption, frame, numeric=numeric, folded=True)
    return [
        how,
        Bullets((*told, *filter(None, [describe_alone(alone), describe_spots(spots)]))),
        *_figures_surface(outputs),
        table,
    ]


def _tabulate_place(row: Mapping[str, Any], place: str) -> dict[str, str]:
    people = (f"{name_group(row['attribute'], row[f'group_{side}'])} ({row[f'n_{side}']:.0f})" for side in "ab")
    median = row.get("median_difference_mm", row["peak_difference_mm"])
    return {
        **name_row(row),
        "Compared (people)": " against ".join(people),
        "Typical difference": format_value(median, "boundary_error_mm", signed=True),
        "Where": f"{place}{tell_certainty(row)}",
    }


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
    shown = [row for row in outputs.found if find_place(row) in mapped]
    told = next((row for row in shown if tell_where(outputs, row)), shown[0] if shown else None)
    first = None if told is None else (*find_place(told), BESIDE)
    return [*blocks, Figure(partial(draw, alpha=alpha, first=first), _HOW_SURFACE)]
