"""The tables of stage 04: their columns, and how maps and tests become rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.schema import TABLES
from helpers.spatial.contrasts import ABSOLUTE, ANY_GROUP, MISS, SIGNED, Design
from helpers.spatial.location import (
    SMALLEST_DIFFERENCE_MM,
    describe_location,
    find_high_part,
    find_peak,
    find_significant,
)
from helpers.spatial.maps import ATTRIBUTE_PREFIX, GroupMaps, list_attributes
from helpers.spatial.template import Template
from helpers.statistics.freedman_lane import SurfaceEffect
from helpers.statistics.hypothesis_tests import adjust_p_values
from helpers.vocabulary.words import name_group

KEY = ("model", "organ", "attribute")
MEASURES = {SIGNED: "error", ABSOLUTE: "absolute", MISS: "miss"}
# Where a missing word says "none" rather than "nothing was written".
_NULLABLE = {"group_a", "group_b"}


@dataclass
class AttributeTests:
    """One model, organ and attribute: its maps, and the tests that are to be made.

    Maps, designs and effects are by measure ("signed", "absolute", "miss"; tests also "any_group").
    An effect is absent until it is made, and where nothing was tested.
    """

    key: tuple[str, str, str]  # model, organ, attribute
    maps: dict[str, GroupMaps]
    missed: dict[str, int]  # per group, how many people have a scan in which the organ was missed
    folder: Path  # holds the people's errors, which the tests read
    content: str = ""  # a hash of these errors
    designs: dict[str, Design] = field(default_factory=dict)
    slope_designs: dict[str, Design] = field(default_factory=dict)
    step: float = 0.0  # what a slope is stated per; 0 for an attribute without numbers
    unit: str = ""
    effects: dict[str, SurfaceEffect] = field(default_factory=dict)
    slopes: dict[str, SurfaceEffect] = field(default_factory=dict)
    drawn: int = 0  # people drawn for the tests; 0 where everybody takes part
    changing: int = 0  # people with scans in several groups, who are in none


def list_map_columns(cohort: pd.DataFrame) -> list[str]:
    """Return the columns of maps.parquet for a cohort."""
    groups = list(
        dict.fromkeys(
            str(group)
            for attribute in list_attributes(cohort)
            for group in cohort[f"{ATTRIBUTE_PREFIX}{attribute}"].astype("category").cat.categories
        )
    )
    per_group = "<group>"
    return [
        name.replace(per_group, group)
        for name in TABLES["maps"].names
        for group in (groups if per_group in name else [""])
    ]


def tabulate_maps(one: AttributeTests, template: Template, columns: Sequence[str]) -> pd.DataFrame:
    """Return one attribute's rows of maps.parquet, in the columns of :func:`list_map_columns`."""
    signed, effects = one.maps[SIGNED], one.effects
    table = _place(one, template)
    for measure, word in MEASURES.items():
        table |= {f"{word}_{group}": mean for group, mean in one.maps[measure].means.items()}
    table |= {"group_a": signed.group_a, "group_b": signed.group_b, "difference": signed.difference}
    table |= _list_test(effects.get(SIGNED), "adjusted_difference")
    for measure in (ABSOLUTE, MISS):
        table[f"{measure}_difference"] = one.maps[measure].difference
        if measure in effects:
            table[f"{measure}_p_fwer"] = effects[measure].p_fwer
    if ANY_GROUP in effects:
        table |= {"f": effects[ANY_GROUP].statistic, "f_p_fwer": effects[ANY_GROUP].p_fwer}
    return type_map(pd.DataFrame(table).reindex(columns=list(columns)), "maps")


def tabulate_slopes(one: AttributeTests, template: Template) -> pd.DataFrame:
    """Return one attribute's rows of slopes.parquet."""
    table = _place(one, template) | {"step": one.step, "unit": one.unit} | _list_test(one.slopes.get(SIGNED), "slope")
    if ABSOLUTE in one.slopes:
        table |= {"absolute_slope": one.slopes[ABSOLUTE].effect, "absolute_p_fwer": one.slopes[ABSOLUTE].p_fwer}
    return type_map(pd.DataFrame(table).reindex(columns=TABLES["slopes"].names), "slopes")


def summarise_maps(one: AttributeTests, template: Template, *, alpha: float) -> dict[str, object]:
    """Return one attribute's row of summary.csv: how many, how much of the surface, and where.

    ``n`` counts the people in any group, ``n_tested`` those who took part in the test.
    """
    signed, design = one.maps[SIGNED], one.designs.get(SIGNED)
    row: dict[str, object] = _name_key(one) | {"group_a": signed.group_a, "group_b": signed.group_b}
    row |= {
        "n": sum(signed.counts.values()),
        "n_a": signed.counts.get(signed.group_a) if signed.group_a else None,
        "n_b": signed.counts.get(signed.group_b) if signed.group_b else None,
        "n_tested": 0 if design is None or design.note else len(design.rows),
    }
    a, b = (name_group(one.key[2], group) for group in (signed.group_a, signed.group_b))
    words = tuple(f"{size} in {a} than in {b}" for size in ("larger", "smaller"))
    row |= _summarise(template, one, one.effects.get(SIGNED), signed.difference, "difference_mm", words, alpha)
    for measure, name in ((ABSOLUTE, "absolute"), (MISS, "miss"), (ANY_GROUP, "f")):
        row |= _summarise_other(one.effects.get(measure), name, template.areas_mm2, alpha)
    return row | _describe_design(design, one.effects.get(SIGNED))


def summarise_slopes(one: AttributeTests, template: Template, *, alpha: float) -> dict[str, object]:
    """Return one attribute's row of slopes.csv."""
    design, signed = one.slope_designs[SIGNED], one.slopes.get(SIGNED)
    row: dict[str, object] = _name_key(one) | {"step": one.step, "unit": one.unit, "n": len(design.rows)}
    per = f"per {one.step:g} {one.unit}".strip()
    nothing = np.full(len(template.vertices_mm), np.nan)
    row |= _summarise(template, one, signed, nothing, "slope_mm", (f"larger {per}", f"smaller {per}"), alpha)
    row |= _summarise_other(one.slopes.get(ABSOLUTE), "absolute", template.areas_mm2, alpha)
    return row | _describe_design(design, signed)


def list_groups(one: AttributeTests, template: Template) -> list[dict[str, object]]:
    """Return one attribute's rows of groups.csv; means are over the surface, by area."""
    rows = []
    for group, count in one.maps[SIGNED].counts.items():
        means = {
            name: _average(one.maps[measure].means[group], template.areas_mm2)
            for measure, name in ((SIGNED, "error_mm"), (ABSOLUTE, "absolute_mm"), (MISS, "miss_fraction"))
        }
        suppressed = group in one.maps[SIGNED].suppressed
        head = {"group": group, "n": count, "prediction_empty": one.missed[group], "suppressed": suppressed}
        rows.append(_name_key(one) | head | means)
    return rows


def adjust_over_maps(summary: pd.DataFrame, slopes: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fill `p_adjusted`: each map's smallest p_tfce, by Holm over all maps of the study."""
    p = np.concatenate([table["min_p_tfce"].to_numpy(float) for table in (summary, slopes)])
    first, rest = np.split(adjust_p_values(p, "holm"), [len(summary)])
    return summary.assign(p_adjusted=first), slopes.assign(p_adjusted=rest)


def type_table(table: pd.DataFrame, key: str, *others: str) -> pd.DataFrame:
    """Order a table's columns as the schema has them and type them, also when it has no rows.

    `others` are columns of words that it has in memory before those of its file.
    """
    types = dict.fromkeys(others, "str") | TABLES[key].dtypes
    table = table.reindex(columns=list(types))
    words = [name for name, kind in types.items() if kind == "str"]
    table = table.astype(dict.fromkeys(words, "object"))
    table = table.fillna(dict.fromkeys([name for name in words if name not in _NULLABLE], ""))
    # A file says "none" by an empty cell.
    for name in _NULLABLE & set(words):
        table[name] = table[name].replace("", None)
    return table.astype(types)


def type_map(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """Give maps.parquet or slopes.parquet its types, also when it has no rows."""
    narrow = {"text": "str", "number": "float32", "count": "int32"}
    types = {name: narrow[TABLES[key].find_kind(name)] for name in table.columns}
    return table.fillna({"n": 0} if "n" in table.columns else {}).astype(types)


def _name_key(one: AttributeTests) -> dict[str, object]:
    return dict(zip(KEY, one.key, strict=True))


def _place(one: AttributeTests, template: Template) -> dict[str, object]:
    axes = {axis: template.vertices_mm[:, place] for place, axis in enumerate("xyz")}
    return {**_name_key(one), "vertex": np.arange(len(template.vertices_mm)), **axes}


def _list_test(effect: SurfaceEffect | None, name: str) -> dict[str, object]:
    if effect is None:
        return {}
    return {
        name: effect.effect, "t": effect.statistic, "p": effect.p_uncorrected, "p_fwer": effect.p_fwer,
        "p_tfce": effect.p_tfce, "p_fdr": effect.p_fdr, "n": effect.subjects,
    }  # fmt: skip


def _summarise(
    template: Template,
    one: AttributeTests,
    effect: SurfaceEffect | None,
    plain: np.ndarray,
    what: str,
    words: Sequence[str],
    alpha: float,
) -> dict[str, object]:
    """Say how much of the surface is significant, where, and how large the effect is."""
    values = plain if effect is None else effect.effect
    row: dict[str, object] = {"vertices": int(np.isfinite(values).sum())}
    row |= {f"median_{what}": np.nan, f"peak_{what}": np.nan}
    row |= {"region": "", "location": ""}
    if not np.isfinite(values).any():
        return row
    vertices_mm, areas = template.vertices_mm, template.areas_mm2
    beyond = np.zeros(len(values), bool)
    if effect is not None:
        for name, p in (("fwer", effect.p_fwer), ("tfce", effect.p_tfce), ("fdr", effect.p_fdr)):
            suffix = "" if name == "fwer" else f"_{name}"
            row[f"significant_fraction{suffix}"] = _measure_share(p, areas, alpha)
            row[f"min_p_{name}"] = float(np.nanmin(p)) if np.isfinite(p).any() else np.nan
        found = find_significant(effect.p_fwer, effect.p_tfce, alpha)
        beyond = beyond if found is None else found
    weights = np.abs(values) if effect is None else np.abs(effect.statistic)
    region = beyond if beyond.any() else find_high_part(values, areas, smallest_mm=SMALLEST_DIFFERENCE_MM)
    peak = find_peak(values, areas, region=region, prominence=weights)
    row |= {
        f"median_{what}": round(peak.median_mm, 3),
        f"peak_{what}": round(peak.value_mm, 3),
        "region": "significant" if beyond.any() else "surface",
        "location": describe_location(
            vertices_mm, values, template.faces, region=region, positive=words[0], negative=words[1],
            smallest_mm=SMALLEST_DIFFERENCE_MM, organ=one.key[1],
        ),
    }  # fmt: skip
    return row | {f"peak_{axis}": round(float(vertices_mm[peak.vertex, place]), 1) for place, axis in enumerate("xyz")}


def _summarise_other(effect: SurfaceEffect | None, name: str, areas: np.ndarray, alpha: float) -> dict[str, object]:
    fraction = f"{name}_significant_fraction"
    if effect is None or not np.isfinite(effect.p_fwer).any():
        return {fraction: np.nan, f"min_{name}_p_fwer": np.nan}
    return {
        fraction: _measure_share(effect.p_fwer, areas, alpha),
        f"min_{name}_p_fwer": float(np.nanmin(effect.p_fwer)),
    }


def _measure_share(p: np.ndarray, areas: np.ndarray, alpha: float) -> float:
    """Return the share of the whole surface where p is at most alpha."""
    with np.errstate(invalid="ignore"):
        return round(float(areas[p <= alpha].sum() / areas.sum()), 4)


def _describe_design(design: Design | None, signed: SurfaceEffect | None) -> dict[str, object]:
    said = [] if design is None else [design.note, design.dropped and f"not adjusted for: {design.dropped}"]
    said += [] if signed is None else list(signed.notes)
    return {
        "permutations": None if signed is None else signed.permutations,
        "covariates": "" if design is None else "; ".join(design.covariates),
        "left_out": None if design is None else design.left_out,
        "note": "; ".join(text for text in said if text),
    }


def _average(values: np.ndarray, areas_mm2: np.ndarray) -> float:
    known = np.isfinite(values)
    return round(float(np.average(values[known], weights=areas_mm2[known])), 4) if known.any() else np.nan
