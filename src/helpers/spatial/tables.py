"""The tables of stage 04: their columns, and how maps and tests become rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.spatial.contrasts import ABSOLUTE, ANY_GROUP, MISS, SIGNED, Design
from helpers.spatial.location import SMALLEST_DIFFERENCE_MM, describe_location, find_high_part, find_peak
from helpers.spatial.maps import ATTRIBUTE_PREFIX, GroupMaps, list_attributes
from helpers.spatial.surfaces import measure_vertex_areas
from helpers.statistics.freedman_lane import SurfaceEffect
from helpers.statistics.hypothesis_tests import adjust_p_values

KEY = ("model", "organ", "attribute")
PLACE = ("vertex", "x", "y", "z")
TEST = ("t", "p", "p_fwer", "p_tfce", "p_fdr", "n")
MEASURES = {SIGNED: "error", ABSOLUTE: "absolute", MISS: "miss"}
SLOPE_COLUMNS = [*KEY, *PLACE, "step", "unit", "slope", *TEST, "absolute_slope", "absolute_p_fwer"]
_FOUND = [
    "significant_fraction", "significant_fraction_tfce", "significant_fraction_fdr", "min_p_fwer", "min_p_tfce",
    "min_p_fdr", "p_adjusted",
]  # fmt: skip
_PLACED = ["peak_x", "peak_y", "peak_z", "region", "location"]
_MADE = ["permutations", "covariates", "left_out", "note"]
SUMMARY_COLUMNS = [
    *KEY, "group_a", "group_b", "n", "n_a", "n_b", "n_tested", "vertices", *_FOUND, "peak_difference_mm", *_PLACED,
    "absolute_significant_fraction", "min_absolute_p_fwer", "miss_significant_fraction", "min_miss_p_fwer",
    "f_significant_fraction", "min_f_p_fwer", *_MADE,
]  # fmt: skip
SLOPE_SUMMARY_COLUMNS = [
    *KEY, "step", "unit", "n", "vertices", *_FOUND, "peak_slope_mm", *_PLACED, "absolute_significant_fraction",
    "min_absolute_p_fwer", *_MADE,
]  # fmt: skip
GROUP_COLUMNS = [
    *KEY, "group", "n", "prediction_empty", "suppressed", "error_mm", "absolute_mm", "miss_fraction",
]  # fmt: skip
QUALITY_COLUMNS = [
    "number", "distance_mm", "status", "reason", "prediction_empty", "prediction_missing", "affine_distance_mm",
    "jacobian_min", "in_view", "cut",
]  # fmt: skip
VOLUME_COLUMNS = ["organ", "model", "attribute", "group", "kind", "n", "file"]
_WORDS = {
    *KEY, "group", "group_a", "group_b", "unit", "region", "location", "covariates", "note", "kind", "file", "status",
    "reason", "prediction_missing",
}  # fmt: skip
_COUNTS = {"n", "n_a", "n_b", "n_tested", "vertices", "permutations", "left_out", "number"}
# Where a missing word says "none" rather than "nothing was written".
_NULLABLE = {"group_a", "group_b"}


def list_map_columns(cohort: pd.DataFrame) -> list[str]:
    """Return the columns of maps.parquet for a cohort."""
    groups = list(
        dict.fromkeys(
            str(group)
            for attribute in list_attributes(cohort)
            for group in cohort[f"{ATTRIBUTE_PREFIX}{attribute}"].astype("category").cat.categories
        )
    )
    return [
        *KEY, *PLACE, *(f"{word}_{group}" for word in MEASURES.values() for group in groups), "group_a", "group_b",
        "difference", "adjusted_difference", *TEST, "absolute_difference", "absolute_p_fwer", "miss_difference",
        "miss_p_fwer", "f", "f_p_fwer",
    ]  # fmt: skip


def tabulate_maps(
    key: tuple[str, str, str],
    vertices_mm: np.ndarray,
    maps: Mapping[str, GroupMaps],
    effects: Mapping[str, SurfaceEffect],
    columns: Sequence[str],
) -> pd.DataFrame:
    """Return one attribute's rows of maps.parquet.

    Parameters
    ----------
    key : tuple of str
        Model, organ, attribute.
    vertices_mm : ndarray, (n, 3)
    maps : mapping of str to GroupMaps
        By measure: signed, absolute, miss.
    effects : mapping of str to SurfaceEffect
        By measure, and "any_group"; absent where nothing was tested.
    columns : sequence of str
        See :func:`list_map_columns`.
    """
    signed = maps[SIGNED]
    table = _place(key, vertices_mm)
    for measure, word in MEASURES.items():
        table |= {f"{word}_{group}": mean for group, mean in maps[measure].means.items()}
    table |= {"group_a": signed.group_a, "group_b": signed.group_b, "difference": signed.difference}
    table |= _list_test(effects.get(SIGNED), "adjusted_difference")
    for measure in (ABSOLUTE, MISS):
        table[f"{measure}_difference"] = maps[measure].difference
        if measure in effects:
            table[f"{measure}_p_fwer"] = effects[measure].p_fwer
    if ANY_GROUP in effects:
        table |= {"f": effects[ANY_GROUP].statistic, "f_p_fwer": effects[ANY_GROUP].p_fwer}
    return type_map(pd.DataFrame(table).reindex(columns=list(columns)))


def tabulate_slopes(
    key: tuple[str, str, str],
    vertices_mm: np.ndarray,
    step: float,
    unit: str,
    effects: Mapping[str, SurfaceEffect],
) -> pd.DataFrame:
    """Return one attribute's rows of slopes.parquet."""
    table = _place(key, vertices_mm) | {"step": step, "unit": unit} | _list_test(effects.get(SIGNED), "slope")
    if ABSOLUTE in effects:
        table |= {"absolute_slope": effects[ABSOLUTE].effect, "absolute_p_fwer": effects[ABSOLUTE].p_fwer}
    return type_map(pd.DataFrame(table).reindex(columns=SLOPE_COLUMNS))


def summarise_maps(
    key: tuple[str, str, str],
    vertices_mm: np.ndarray,
    faces: np.ndarray,
    maps: Mapping[str, GroupMaps],
    effects: Mapping[str, SurfaceEffect],
    design: Design | None,
    *,
    alpha: float,
) -> dict[str, object]:
    """Return one attribute's row of summary.csv: how many, how much of the surface, and where.

    ``n`` counts the people in any group, ``n_tested`` those who took part in the test.
    """
    signed = maps[SIGNED]
    row: dict[str, object] = dict(zip(KEY, key, strict=True))
    row |= {"group_a": signed.group_a, "group_b": signed.group_b}
    row |= {
        "n": sum(signed.counts.values()),
        "n_a": signed.counts.get(signed.group_a) if signed.group_a else None,
        "n_b": signed.counts.get(signed.group_b) if signed.group_b else None,
        "n_tested": 0 if design is None or design.note else len(design.rows),
    }
    words = (f"larger in {signed.group_a}", f"smaller in {signed.group_a}")
    row |= _summarise(vertices_mm, faces, effects.get(SIGNED), signed.difference, "peak_difference_mm", words, alpha)
    areas = measure_vertex_areas(vertices_mm, faces)
    for measure, name in ((ABSOLUTE, "absolute"), (MISS, "miss"), (ANY_GROUP, "f")):
        row |= _summarise_other(effects.get(measure), name, areas, alpha)
    return row | _describe_design(design, effects)


def summarise_slopes(
    key: tuple[str, str, str],
    vertices_mm: np.ndarray,
    faces: np.ndarray,
    step: float,
    unit: str,
    effects: Mapping[str, SurfaceEffect],
    design: Design,
    *,
    alpha: float,
) -> dict[str, object]:
    """Return one attribute's row of slopes.csv."""
    row: dict[str, object] = dict(zip(KEY, key, strict=True))
    row |= {"step": step, "unit": unit, "n": len(design.rows)}
    per = f"per {step:g} {unit}".strip()
    words = (f"larger {per}", f"smaller {per}")
    nothing = np.full(len(vertices_mm), np.nan)
    row |= _summarise(vertices_mm, faces, effects.get(SIGNED), nothing, "peak_slope_mm", words, alpha)
    row |= _summarise_other(effects.get(ABSOLUTE), "absolute", measure_vertex_areas(vertices_mm, faces), alpha)
    return row | _describe_design(design, effects)


def list_groups(
    key: tuple[str, str, str],
    areas_mm2: np.ndarray,
    maps: Mapping[str, GroupMaps],
    missed: Mapping[str, int],
    *,
    min_group: int,
) -> list[dict[str, object]]:
    """Return one attribute's rows of groups.csv; means are over the surface, by area."""
    rows = []
    for group, count in maps[SIGNED].counts.items():
        means = {
            name: _average(maps[measure].means[group], areas_mm2)
            for measure, name in ((SIGNED, "error_mm"), (ABSOLUTE, "absolute_mm"), (MISS, "miss_fraction"))
        }
        head = dict(zip(KEY, key, strict=True)) | {"group": group, "n": count}
        rows.append(head | {"prediction_empty": missed[group], "suppressed": count < min_group} | means)
    return rows


def adjust_over_maps(summary: pd.DataFrame, slopes: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fill `p_adjusted`: each map's smallest family-wise p, by Holm's method over all maps of the study."""
    p = np.concatenate([summary["min_p_fwer"].to_numpy(float), slopes["min_p_fwer"].to_numpy(float)])
    adjusted = adjust_p_values(p, "holm")
    return (
        summary.assign(p_adjusted=adjusted[: len(summary)]),
        slopes.assign(p_adjusted=adjusted[len(summary) :]),
    )


def type_table(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Put a .csv table's columns in order and give them their types, also when it has no rows or a column no word."""
    table = table.reindex(columns=list(columns))
    # groups.csv counts the empty predictions of a group; quality.csv names the models behind those of a scan.
    counts = _COUNTS | ({"prediction_empty"} if "group" in columns else set())
    kinds: dict[str, str] = {}
    for column in columns:
        if column in ("suppressed", "cut"):
            kinds[column] = "bool"
        elif column in counts:
            kinds[column] = "Int64"
        elif column in _WORDS or column == "prediction_empty":
            kinds[column] = "str"
        else:
            kinds[column] = "float64"
    plain = {column: "" for column, kind in kinds.items() if kind == "str" and column not in _NULLABLE}
    words = {column: "object" for column, kind in kinds.items() if kind == "str"}
    table = table.astype(words).fillna(plain)
    # A file says "none" by an empty cell.
    for column in _NULLABLE & set(columns):
        table[column] = table[column].replace("", None)
    return table.astype(kinds)


def type_map(table: pd.DataFrame) -> pd.DataFrame:
    """Give maps.parquet or slopes.parquet its types, also when it has no rows."""
    types = {column: "str" if column in _WORDS else "float32" for column in table.columns}
    whole = {column: "int32" for column in ("vertex", "n") if column in table.columns}
    return table.fillna({"n": 0} if "n" in table.columns else {}).astype(types | whole)


def _place(key: tuple[str, str, str], vertices_mm: np.ndarray) -> dict[str, object]:
    axes = {axis: vertices_mm[:, place] for place, axis in enumerate("xyz")}
    return {**dict(zip(KEY, key, strict=True)), "vertex": np.arange(len(vertices_mm)), **axes}


def _list_test(effect: SurfaceEffect | None, name: str) -> dict[str, object]:
    if effect is None:
        return {}
    return {
        name: effect.effect, "t": effect.statistic, "p": effect.p_uncorrected, "p_fwer": effect.p_fwer,
        "p_tfce": effect.p_tfce, "p_fdr": effect.p_fdr, "n": effect.subjects,
    }  # fmt: skip


def _summarise(
    vertices_mm: np.ndarray,
    faces: np.ndarray,
    effect: SurfaceEffect | None,
    plain: np.ndarray,
    peak_name: str,
    words: tuple[str, str],
    alpha: float,
) -> dict[str, object]:
    """Say how much of the surface is beyond chance, and where and how large the effect is."""
    values = plain if effect is None else effect.effect
    row: dict[str, object] = {"vertices": int(np.isfinite(values).sum()), peak_name: np.nan}
    row |= dict.fromkeys((*_FOUND, "peak_x", "peak_y", "peak_z"), np.nan) | {"region": "", "location": ""}
    if not np.isfinite(values).any():
        return row
    areas = measure_vertex_areas(vertices_mm, faces)
    beyond = np.zeros(len(values), bool)
    if effect is not None:
        for name, p in (("fwer", effect.p_fwer), ("tfce", effect.p_tfce), ("fdr", effect.p_fdr)):
            suffix = "" if name == "fwer" else f"_{name}"
            row[f"significant_fraction{suffix}"] = _measure_share(p, areas, alpha)
            row[f"min_p_{name}"] = float(np.nanmin(p))
        with np.errstate(invalid="ignore"):
            beyond = effect.p_fwer <= alpha
    weights = np.abs(values) if effect is None else np.abs(effect.statistic)
    region = beyond if beyond.any() else find_high_part(values, areas, smallest_mm=SMALLEST_DIFFERENCE_MM)
    peak = find_peak(values, areas, region=region, prominence=weights)
    row |= {
        peak_name: round(peak.value_mm, 3),
        "region": "significant" if beyond.any() else "surface",
        "location": describe_location(
            vertices_mm, values, faces, region=region, positive=words[0], negative=words[1],
            smallest_mm=SMALLEST_DIFFERENCE_MM,
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


def _describe_design(design: Design | None, effects: Mapping[str, SurfaceEffect]) -> dict[str, object]:
    signed = effects.get(SIGNED)
    said = [] if design is None else [design.note, design.dropped and f"not held equal: {design.dropped}"]
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
