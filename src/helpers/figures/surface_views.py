"""What the tables of stage 04 say of a surface, map by map: values, names, what is significant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from helpers.figures.framed import Place, escape
from helpers.spatial import Template
from helpers.vocabulary.words import name_for_people

BESIDE, DIFFERENCE, SIGNIFICANCE, SLOPE = "side by side", "difference", "significance", "slope"


@dataclass(frozen=True)
class MapMeasure:
    """What of the errors a map shows."""

    column: str  # what the names of the groups' columns begin with
    label: str  # before a map's name in the menu
    heading: str  # what is averaged, in words
    unit: str
    scale: str  # what the colours of a group's map mean
    pair_scale: str  # what the colours of a difference mean; {a} and {b} are the two groups
    digits: str  # how a group's number is written
    factor: float = 1.0  # from the table's numbers to the unit

    def name(self, key: str) -> str:
        """Return the key of one of this measure's maps."""
        return key if self is SIGNED else f"{self.column}: {key}"


SIGNED = MapMeasure(
    "error", "", "mean signed error", "mm", "mm: + too large, − too small",
    "mm: + larger in “{a}”, − larger in “{b}”", "+.2f",
)  # fmt: skip
OTHERS = (
    MapMeasure(
        "absolute", "size of the error, ", "mean distance, outside or inside", "mm", "mm, outside or inside",
        "mm: + further off in “{a}”, − in “{b}”", ".2f",
    ),
    MapMeasure(
        "miss", "misses, ", "people whose error is beyond the tolerance, or who were missed altogether", "%",
        "% of the people", "percentage points: + more often in “{a}”, − in “{b}”", ".0f", 100.0,
    ),
)  # fmt: skip
_ADJUSTED = ", adjusted for the whole surface"
_OTHERS_TOO = ", adjusted for other characteristics"


@dataclass(frozen=True)
class View:
    """One map on one surface, and what is said about it."""

    model: str
    organ: str
    attribute: str
    key: str
    label: str
    heading: str
    scale: str
    values_mm: np.ndarray
    hover: str
    family: str
    details: np.ndarray | None = None
    significant: np.ndarray | None = None
    sentence: str = ""
    unit: str = "mm"
    beside_mm: np.ndarray | None = None  # the second group's values, where two bodies are drawn
    groups: tuple[str, str] = ("", "")  # whose bodies these are

    @property
    def place(self) -> Place:
        """Where the menus find it."""
        return self.model, self.organ, self.attribute, self.key


def list_views(
    maps: pd.DataFrame,
    templates: Mapping[str, Template],
    groups: pd.DataFrame | None,
    alpha: float,
    measures: Sequence[MapMeasure],
) -> list[View]:
    """Return the groups' maps, their difference and what of it is significant, where known."""
    views = []
    for (model, organ, attribute), rows in maps.groupby(["model", "organ", "attribute"], sort=False, observed=True):
        if organ not in templates:
            continue
        rows = _sort_vertices(rows, templates[organ])
        counts = _count_people(groups, model, organ, attribute)
        for measure in measures:
            views += _list_measure((str(model), str(organ), str(attribute)), rows, counts, alpha, measure)
    return views


def _list_measure(
    words: tuple[str, str, str], rows: pd.DataFrame, counts: Mapping[str, int], alpha: float, measure: MapMeasure
) -> list[View]:
    views, p, prefix = [], _read_p(rows, measure), f"{measure.column}_"
    significant = _find_significant(p, alpha)
    # Its difference and its test have columns that begin alike.
    others = {f"{prefix}difference", f"{prefix}p_fwer"}
    for column in (str(column) for column in rows if str(column).startswith(prefix) and column not in others):
        values = measure.factor * rows[column].to_numpy(float)
        if np.isfinite(values).any():
            group = column.removeprefix(prefix)
            label, hover = _name_group(group, counts), f"%{{intensity:{measure.digits}}} {measure.unit}"
            view = View(
                *words, measure.name(group), f"{measure.label}{label}", f"{label}: {measure.heading}", measure.scale,
                values, hover, measure.column, significant=significant, unit=measure.unit,
            )  # fmt: skip
            views.append(view)
    a, b = rows["group_a"].iloc[0], rows["group_b"].iloc[0]
    if measure is SIGNED:
        views += _put_beside({view.key: view for view in views}, str(a), str(b))
    values, adjusted = _choose_difference(rows, measure)
    if not (isinstance(a, str) and isinstance(b, str) and np.isfinite(values).any()):
        return views
    pair = f"“{a}” minus “{b}”"
    heading = f"{_name_group(a, counts)} minus {_name_group(b, counts)}, {measure.heading}{_OTHERS_TOO * adjusted}"
    hover = f"%{{customdata[0]:+{measure.digits.lstrip('+')}}} {measure.unit}"
    if np.isfinite(p).any():
        hover += f"<br>p = %{{customdata[1]:.3f}}{_ADJUSTED}"
    difference = View(
        *words, measure.name(DIFFERENCE), f"{measure.label}difference: {pair}", heading,
        measure.pair_scale.format(a=a, b=b), values, hover, f"{measure.column} contrast", np.column_stack([values, p]),
        significant, unit=measure.unit,
    )  # fmt: skip
    views.append(difference)
    if significant is not None and measure is SIGNED:
        shown = np.where(np.isfinite(values), np.where(significant, values, 0.0), np.nan)
        about = ", where it is significant" if significant.any() else ": no place is significant"
        label, heading = f"significance: {pair}", f"{pair}{about} (p ≤ {alpha:g}{_ADJUSTED})"
        views.append(replace(difference, key=SIGNIFICANCE, label=label, heading=heading, values_mm=shown))
    return views


def _put_beside(views: Mapping[str, View], a: str, b: str) -> list[View]:
    """Return the view of two groups' bodies side by side, where both have the same places."""
    if not {a, b} <= set(views) or (np.isfinite(views[a].values_mm) != np.isfinite(views[b].values_mm)).any():
        return []
    label, heading = f"side by side: “{a}” and “{b}”", f"Left: {views[a].label}, right: {views[b].heading}"
    first = replace(views[a], key=BESIDE, label=label, heading=heading)
    return [replace(first, beside_mm=views[b].values_mm, groups=(a, b))]


def list_slopes(slopes: pd.DataFrame, templates: Mapping[str, Template], alpha: float) -> list[View]:
    """Return the slope along each attribute that is a number."""
    views = []
    for (model, organ, attribute), rows in slopes.groupby(["model", "organ", "attribute"], sort=False, observed=True):
        if organ not in templates:
            continue
        rows = _sort_vertices(rows, templates[organ])
        values = rows["slope"].to_numpy(float)
        if not np.isfinite(values).any():
            continue
        step = f"{rows['step'].iloc[0]:g} {rows['unit'].iloc[0]}".strip()
        p = _read_p(rows, SIGNED)
        hover = f"%{{customdata[0]:+.2f}} mm per {escape(step)}"
        if np.isfinite(p).any():
            hover += f"<br>p = %{{customdata[1]:.3f}}{_ADJUSTED}"
        heading = f"change of the signed error with every {step} of {name_for_people(str(attribute))}"
        view = View(
            str(model), str(organ), str(attribute), SLOPE, f"slope: per {step}",
            f"{heading}{_OTHERS_TOO}", f"mm per {step}: + outwards, − inwards", values, hover,
            "slope", np.column_stack([values, p]), _find_significant(p, alpha),
        )  # fmt: skip
        views.append(view)
    return views


def _sort_vertices(rows: pd.DataFrame, template: Template) -> pd.DataFrame:
    if len(rows) != len(template.vertices_mm):
        model, organ, attribute = rows[["model", "organ", "attribute"]].iloc[0]
        has = f"{len(rows)} vertices, the template has {len(template.vertices_mm)}"
        raise ValueError(f"maps of {model}, {organ}, {attribute} have {has}")
    return rows.sort_values("vertex")


def _count_people(groups: pd.DataFrame | None, model: str, organ: str, attribute: str) -> dict[str, int]:
    if groups is None or groups.empty:
        return {}
    here = (groups["model"] == model) & (groups["organ"] == organ) & (groups["attribute"] == attribute)
    known = groups[here & groups["n"].notna()]
    return dict(zip(known["group"].astype(str), known["n"].astype(int), strict=True))


def _name_group(group: str, counts: Mapping[str, int]) -> str:
    return f"“{group}” (n = {counts[group]})" if group in counts else f"“{group}”"


def _choose_difference(rows: pd.DataFrame, measure: MapMeasure) -> tuple[np.ndarray, bool]:
    """Return the difference that was tested, and whether it is adjusted for covariates."""
    if measure is not SIGNED:  # of these the tables hold the plain difference
        return measure.factor * rows[f"{measure.column}_difference"].to_numpy(float), False
    plain = rows["difference"].to_numpy(float)
    if "adjusted_difference" not in rows:
        return plain, False
    adjusted = rows["adjusted_difference"].to_numpy(float)
    if not np.isfinite(adjusted).any():
        return plain, False
    return adjusted, not np.allclose(adjusted, plain, atol=5e-4, equal_nan=True)


def _read_p(rows: pd.DataFrame, measure: MapMeasure) -> np.ndarray:
    """Return the p that decides what is significant, adjusted for the surface; NaN without one."""
    columns = ("p_tfce", "p_fwer") if measure is SIGNED else (f"{measure.column}_p_fwer",)
    known = (column for column in columns if column in rows and rows[column].notna().any())
    column = next(known, None)
    return np.full(len(rows), np.nan) if column is None else rows[column].to_numpy(float)


def _find_significant(p: np.ndarray, alpha: float) -> np.ndarray | None:
    """Return where p is up to `alpha`; None where nothing was tested."""
    return np.nan_to_num(p, nan=1.0) <= alpha if np.isfinite(p).any() else None


def order_views(views: Sequence[View]) -> list[View]:
    """Bring views of one model, organ and attribute together, differences first."""
    order: dict[Place, list[View]] = {}
    for view in views:
        order.setdefault(view.place[:3], []).append(view)
    ranks = {DIFFERENCE: 0, SIGNIFICANCE: 1, BESIDE: 1, SLOPE: 3}
    last = {measure.column: 4 + place for place, measure in enumerate(OTHERS)}

    def rank(view: View) -> int:
        return ranks.get(view.key, last.get(view.family.removesuffix(" contrast"), 2))

    return [view for part in order.values() for view in sorted(part, key=rank)]


def add_sentences(views: Sequence[View], places: pd.DataFrame | None) -> list[View]:
    """Return the views with what is said of where they lie."""
    if places is None or places.empty:
        return list(views)
    columns = places[["model", "organ", "attribute", "map"]].astype(str).itertuples(index=False, name=None)
    said = dict(zip(columns, places["sentence"], strict=True))
    return [
        replace(
            view,
            sentence=said.get((*view.place[:3], DIFFERENCE if view.key in (BESIDE, SIGNIFICANCE) else view.key), ""),
        )
        for view in views
    ]
