"""What each map says in a sentence: where, on how much of the organ, how much, how surely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from helpers.spatial.location import SMALLEST_DIFFERENCE_MM, describe_location, find_peak, find_significant
from helpers.spatial.template import Template
from helpers.vocabulary.words import format_p, name_group, start_sentence

PLACE_COLUMNS = ["model", "organ", "attribute", "map", "group", "p", "significant", "sentence"]
DIFFERENCE, SLOPE = "difference", "slope"


def describe_places(
    maps: pd.DataFrame,
    templates: Mapping[str, Template],
    *,
    slopes: pd.DataFrame | None = None,
    groups: pd.DataFrame | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Say of every map how large it typically is and where, in a sentence made from the map itself.

    `maps` and `slopes` are rows of maps.parquet and slopes.parquet, `templates` by organ; `groups`,
    rows of spatial/groups.csv, say which groups are suppressed or alone. Up to `alpha` an
    adjusted p is significant (:func:`helpers.spatial.location.find_significant`).

    Returns one row per model, organ, attribute and `map`: "difference", "slope", or a group's name
    (then also in `group`), with the smallest adjusted `p` on the surface (NaN for a group),
    whether it is `significant`, and the `sentence`. Attributes that could not be compared have a
    row "difference" that says why.

    Notes
    -----
    A significant difference is told of the group whose own mean error in that place is larger:
    "under-segmented" where its outline lies further inside the expert's than the other group's,
    "over-segmented" where it lies further outside.
    """
    rows = list(_describe_maps(maps, templates, groups, alpha))
    if slopes is not None:
        rows += _describe_slopes(slopes, templates, alpha)
    return pd.DataFrame(rows, columns=PLACE_COLUMNS).astype({"p": float, "significant": bool})


def _describe_maps(
    maps: pd.DataFrame, templates: Mapping[str, Template], groups: pd.DataFrame | None, alpha: float
) -> Iterator[tuple[Any, ...]]:
    for key, part in maps.groupby(["model", "organ", "attribute"], sort=False, observed=True):
        template = templates.get(str(key[1]))
        if template is None:
            continue
        part = part.sort_values("vertex")
        p, significant, sentence = _describe_difference(part, template, _find_groups(groups, key), alpha)
        yield *key, DIFFERENCE, "", p, significant, sentence
        for column in (str(column) for column in part if str(column).startswith("error_")):
            values = part[column].to_numpy(float)
            if np.isfinite(values).any():
                group = column.removeprefix("error_")
                said = describe_location(template.vertices_mm, values, template.faces, organ=str(key[1]))
                yield *key, group, group, np.nan, False, f"In {name_group(key[2], group)}: {said}."


def _describe_difference(
    part: pd.DataFrame, template: Template, groups: pd.DataFrame | None, alpha: float
) -> tuple[float, bool, str]:
    """Return the smallest adjusted p, whether it is significant, and the sentence."""
    a, b = part["group_a"].iloc[0], part["group_b"].iloc[0]
    values = _read(part, "adjusted_difference")
    if not np.isfinite(values).any():
        values = _read(part, "difference")
    if not (isinstance(a, str) and isinstance(b, str) and np.isfinite(values).any()):
        return np.nan, False, _say_why_not(groups)
    smallest, found = _find_significant(part, values, alpha)
    if found.any():
        words = _name_failure(part, values, found, template, a, b)
        return smallest, True, _tell_significant(part, template, values, found, words, words, smallest)
    named_a, named_b = (name_group(part["attribute"].iloc[0], group) for group in (a, b))
    words_a, words_b = f"larger in {named_a} than in {named_b}", f"larger in {named_b} than in {named_a}"
    said = _locate(part, template, values, words_a, words_b)
    if np.isnan(smallest):
        return smallest, False, f"The difference was not tested. Where it is largest: {said}."
    beyond = f"No place differs significantly (smallest adjusted {format_p(smallest)})."
    return smallest, False, f"{beyond} Where the difference is largest: {said}."


def _describe_slopes(
    slopes: pd.DataFrame, templates: Mapping[str, Template], alpha: float
) -> Iterator[tuple[Any, ...]]:
    for key, part in slopes.groupby(["model", "organ", "attribute"], sort=False, observed=True):
        template = templates.get(str(key[1]))
        values = _read(part := part.sort_values("vertex"), "slope")
        if template is None or not np.isfinite(values).any():
            continue
        step = f"every {part['step'].iloc[0]:g} {part['unit'].iloc[0]}".strip()
        smallest, found = _find_significant(part, values, alpha)
        words = f"further out with {step}", f"further in with {step}"
        if found.any():
            sentence = _tell_significant(part, template, values, found, *words, smallest)
        elif np.isnan(smallest):
            said = _locate(part, template, values, *words)
            sentence = f"The slope was not tested. Where it is steepest: {said}."
        else:
            beyond = f"No place changes significantly (smallest adjusted {format_p(smallest)})."
            sentence = f"{beyond} Where the slope is steepest: {_locate(part, template, values, *words)}."
        yield *key, SLOPE, "", smallest, bool(found.any()), sentence


def _find_significant(part: pd.DataFrame, values: np.ndarray, alpha: float) -> tuple[float, np.ndarray]:
    """Return the smallest adjusted p (NaN without a test), and where it is significant."""
    p_fwer, p_tfce = _read(part, "p_fwer"), _read(part, "p_tfce")
    found = find_significant(p_fwer, p_tfce, alpha)
    p = p_tfce if np.isfinite(p_tfce).any() else p_fwer
    smallest = float(np.nanmin(p)) if np.isfinite(p).any() else np.nan
    return smallest, np.isfinite(values) & (np.zeros(len(values), bool) if found is None else found)


def _tell_significant(
    part: pd.DataFrame,
    template: Template,
    values: np.ndarray,
    found: np.ndarray,
    positive: str,
    negative: str,
    p: float,
) -> str:
    said = _locate(part, template, values, positive, negative, found)
    return f"{start_sentence(said)}; adjusted {format_p(p)}."


def _locate(
    part: pd.DataFrame,
    template: Template,
    values: np.ndarray,
    positive: str,
    negative: str,
    region: np.ndarray | None = None,
) -> str:
    """Say where a difference or a slope is high: in a significant region, else anywhere."""
    return describe_location(
        template.vertices_mm, values, template.faces, region=region, positive=positive, negative=negative,
        smallest_mm=SMALLEST_DIFFERENCE_MM, organ=str(part["organ"].iloc[0]),
    )  # fmt: skip


def _name_failure(part: pd.DataFrame, values: np.ndarray, found: np.ndarray, template: Template, a: str, b: str) -> str:
    """Say for which of two groups a place is drawn too small or too large, against the other."""
    peak = find_peak(values, template.areas_mm2, region=found, prominence=np.abs(values))
    mean_a, mean_b = (_average(_read(part, f"error_{group}"), peak.region) for group in (a, b))
    # a − b < 0: a is drawn too small there or b too large; told of the one further off.
    of_a = not abs(mean_b) > abs(mean_a)
    attribute = part["attribute"].iloc[0]
    worse, other = (name_group(attribute, group) for group in ((a, b) if of_a else (b, a)))
    outwards = (peak.value_mm > 0) == of_a
    return f"{'over' if outwards else 'under'}-segmented in {worse}, compared with {other},"


def _say_why_not(groups: pd.DataFrame | None) -> str:
    """Say why two groups were not compared."""
    if groups is None or groups.empty:
        return "Not compared: fewer than two groups are large enough."
    names, suppressed = groups["group"].astype(str), groups["suppressed"].astype(bool)
    present, hidden = names[~suppressed].tolist(), names[suppressed].tolist()
    few = f" Too few people in {', '.join(f'“{group}”' for group in hidden)}." if hidden else ""
    if not present:
        return f"Not compared: no group is large enough.{few}"
    if len(present) == 1:
        return f"Not compared: only “{present[0]}” is large enough.{few}"
    return f"Not compared: no place has values of both groups.{few}"


def _find_groups(groups: pd.DataFrame | None, key: tuple[Any, ...]) -> pd.DataFrame | None:
    if groups is None or groups.empty:
        return None
    return groups[(groups["model"] == key[0]) & (groups["organ"] == key[1]) & (groups["attribute"] == key[2])]


def _read(part: pd.DataFrame, column: str) -> np.ndarray:
    return part[column].to_numpy(float) if column in part else np.full(len(part), np.nan)


def _average(values: np.ndarray, where: np.ndarray) -> float:
    known = values[where & np.isfinite(values)]
    return float(known.mean()) if known.size else 0.0
