"""Which tests are adjusted together: one family per question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.statistics.hypothesis_tests import adjust_p_values
from helpers.statistics.permuted_means import PermutedTests
from helpers.vocabulary.words import ALL_MODELS

# By which part of a comparison's key (model, organ, metric, attribute) families are told apart.
_PARTS = {"study": (), "attribute": (3,), "attribute_metric": (3, 2), "model_attribute": (0, 3)}


def name_families(keys: Sequence[tuple[str, str, str]], attributes: Sequence[str], family: str) -> np.ndarray:
    """Name the family of every comparison: str, (attributes, columns).

    `keys` are the columns' model, organ and metric; `family` is ``fairness.family``. Rows over all
    models answer a question of their own (do models in general do worse?), so they are apart.
    """
    names = [[name_family((*key, attribute), family) for key in keys] for attribute in attributes]
    return np.array(names, np.str_).reshape(len(attributes), len(keys))


def name_family(key: tuple[str, str, str, str], family: str) -> str:
    """Name the family of one comparison, of a model, organ, metric and attribute."""
    parts = _PARTS[family]
    words = [key[part] for part in parts if part]
    model = [key[0]] if 0 in parts or key[0] == ALL_MODELS else []
    return " · ".join([*model, *words]) or "study"


def adjust_tests(tests: PermutedTests, families: np.ndarray, correction: str) -> np.ndarray:
    """Adjust p-values within each family: float64, (attributes, columns).

    `families` are those of :func:`name_families`. NaN stays NaN.
    """
    adjusted = np.full(tests.p.shape, np.nan)
    for name in np.unique(families):
        chosen = families == name
        if correction == "max_t":
            adjusted[chosen] = tests.adjust(chosen)[chosen]
        else:
            adjusted[chosen] = adjust_p_values(tests.p[chosen], correction)
    return adjusted
