"""A column of the participants table → groups of people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from helpers.parameters import RESERVED_COLUMNS, WHO_AGE_BINS, WHO_BMI_BINS, WHO_BMI_LABELS, Attribute
from helpers.vocabulary.words import name_for_people

# Sex as recorded: who has another value than these stays in the study, without a group for sex.
_DEFAULTS = {
    "sex": Attribute(categories=["female", "male"]),
    "age": Attribute(bins="who", unit="years"),
    "bmi": Attribute(bins="who", unit="kg/m²"),
}


def group_attribute(values: pd.Series, name: str, attribute: Attribute | None) -> pd.Series:
    """Sort people into groups.

    `values` has one per scan: words for `categories`, numbers for `bins`; `name` is for the
    attribute's defaults (None) and the World Health Organization's bands (``bins: who``). Returns
    an ordered category of the same index, missing where the value is, is no listed category, or
    lies outside of all bins. Bins are closed on the left; the last one on both sides.
    """
    attribute = attribute if attribute is not None else _DEFAULTS[name]
    if attribute.categories is not None:
        kind = pd.CategoricalDtype(attribute.categories, ordered=True)
        return values.where(values.isin(attribute.categories)).astype(kind)
    edges, labels = _find_bins(name, attribute)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
    places = np.searchsorted(edges, numbers, side="right") - 1
    places = np.where(numbers == edges[-1], len(labels) - 1, places)
    places = np.where(np.isnan(numbers) | (numbers < edges[0]) | (numbers > edges[-1]), -1, places)
    return pd.Series(pd.Categorical.from_codes(places, labels, ordered=True), index=values.index)


def number_levels(cohort: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return what stands for the values of each column that gives no groups: ``referring 2``.

    Confounders and sites may be names: of a physician, a hospital. Groups are named by the study.
    """
    known = {"sex", "age", "bmi", "modality", "included", "resampled", *RESERVED_COLUMNS}
    levels = {}
    for name in cohort:
        free = name not in known and not name.startswith("group_") and f"group_{name}" not in cohort
        if free and not pd.api.types.is_numeric_dtype(cohort[name]):
            found = sorted(cohort[name].dropna().astype(str).unique())
            levels[name] = {word: f"{name_for_people(name)} {place}" for place, word in enumerate(found, start=1)}
    return levels


def _find_bins(name: str, attribute: Attribute) -> tuple[np.ndarray, list[str]]:
    """Return an attribute's bin edges and the labels of the groups between them."""
    if attribute.bins == "who":
        edges: Sequence[float] = WHO_BMI_BINS if name == "bmi" else WHO_AGE_BINS
        labels = list(WHO_BMI_LABELS) if name == "bmi" else None
    else:
        edges, labels = attribute.bins or [], None
    return np.asarray(edges, float), list(attribute.labels or labels or _name_bins(name, edges))


def _name_bins(name: str, edges: Sequence[float]) -> list[str]:
    """Name bins by what falls in them: ages are whole years, so [18, 45) reads 18–44."""
    labels = []
    for place, (low, high) in enumerate(pairwise(edges)):
        last = place == len(edges) - 2
        if math.isinf(high) or (last and name == "age" and high >= 100):
            labels.append(f"{low:g} and over")
        elif place == 0 and low == 0:
            labels.append(f"under {high:g}")
        elif name == "age" and float(high).is_integer() and not last:
            labels.append(f"{low:g}–{high - 1:g}")
        else:
            labels.append(f"{low:g} to {high:g}" if last else f"{low:g} to under {high:g}")
    return labels
