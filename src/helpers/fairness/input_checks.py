"""What the audit is given, checked: scans named twice, other kinds of id, infinite values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.errors import SegfairError
from helpers.parameters import RESERVED_ORGAN
from helpers.vocabulary.words import ALL_MODELS


def check_keys(metrics: pd.DataFrame, cohort: pd.DataFrame) -> None:
    """Refuse tables whose rows cannot be matched scan by scan.

    A SegfairError where ids are numbers in one table and text in the other, a scan has two rows in
    `cohort`, or an organ or a model has the name of the pooled rows.
    """
    for column in ("subject", "scan"):
        kinds = ["numbers" if pd.api.types.is_numeric_dtype(table[column]) else "text" for table in (metrics, cohort)]
        if kinds[0] != kinds[1]:
            raise SegfairError(
                f"{column} holds {kinds[0]} in metrics and {kinds[1]} in cohort: "
                "read it as text in both (dtype str), which keeps leading zeros"
            )
    _refuse_repeated(cohort, ["subject", "scan"], "cohort", "scan")
    if (metrics["organ"] == RESERVED_ORGAN).any():
        raise SegfairError(
            f"metrics has an organ called {RESERVED_ORGAN!r}, which names all organs pooled: call it otherwise"
        )
    if (metrics["model"] == ALL_MODELS).any():
        raise SegfairError(
            f"metrics has a model called {ALL_MODELS!r}, which names all models pooled: call it otherwise"
        )


def refuse_repeated_scores(metrics: pd.DataFrame) -> None:
    """Refuse a table that scores a scan, model and organ twice: their mean is of no one thing."""
    _refuse_repeated(metrics, ["subject", "scan", "model", "organ"], "metrics", "scan, model and organ")


def drop_infinite(metrics: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Make infinite values missing: some programs write them for the distance to an empty mask.

    Returns the table, a copy where there were any in the columns `names`, and in sentences how many
    in each.
    """
    infinite = metrics[list(names)].isin([np.inf, -np.inf])
    counts = infinite.sum()
    notes = [
        f"{name}: {count} infinite value{'s count' if count > 1 else ' counts'} as missing"
        for name, count in counts[counts > 0].items()
    ]
    if not notes:
        return metrics, notes
    return metrics.assign(**{name: metrics[name].mask(infinite[name]) for name in names}), notes


def _refuse_repeated(table: pd.DataFrame, keys: list[str], name: str, what: str) -> None:
    again = table.duplicated(keys)
    if again.any():
        first = ", ".join(str(value) for value in table.loc[again, keys[1:]].iloc[0])
        raise SegfairError(
            f"{name} has more than one row for a {what} ({int(again.sum())} too many; the first: {first}): "
            "keep one row for each"
        )
