"""The people's scores as arrays: a row per subject, a column per model, organ and metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.fairness.disparity import sign_metric
from helpers.fairness.groups import EXPECTED, POOLED, list_groups

BOUNDARY = "boundary_error_mm"


@dataclass(frozen=True)
class Scores:
    """Scores of every subject.

    Attributes
    ----------
    subjects : ndarray of str, (subjects,)
        Sorted: no draw depends on the order of rows.
    matrix : ndarray of float64, (subjects, columns)
        NaN where a subject has no value.
    keys : list of (model, organ, metric)
        The columns, in order of model, organ and metric.
    places : list of (model, organ)
        What `expected` and `boundary` are columns of.
    expected, boundary : ndarray of float64, (subjects, places), or None
        Dice to be expected for the organ's size, and the uniform boundary error in mm; None where not measured.
    """

    subjects: np.ndarray
    matrix: np.ndarray
    keys: list[tuple[str, str, str]]
    places: list[tuple[str, str]]
    expected: np.ndarray | None
    boundary: np.ndarray | None

    @property
    def metrics(self) -> list[str]:
        """Each column's metric."""
        return [metric for _, _, metric in self.keys]

    @property
    def sign(self) -> np.ndarray:
        """+1 for columns in which higher is better, −1 for others: float64, (columns,)."""
        return np.array([sign_metric(metric) for metric in self.metrics], np.float64)

    @classmethod
    def spread(cls, people: pd.DataFrame, metrics: Sequence[str]) -> Scores:
        """Arrange the rows of :func:`helpers.fairness.groups.average_subjects`."""
        # By name: the draws must not depend on the order of rows.
        subjects, rows = np.unique(people["subject"].to_numpy(str), return_inverse=True)
        pairs = people[["model", "organ"]].drop_duplicates()
        places = list(pairs.itertuples(index=False, name=None))
        column = pd.MultiIndex.from_frame(pairs).get_indexer(pd.MultiIndex.from_frame(people[["model", "organ"]]))

        def arrange(names: list[str]) -> np.ndarray:
            spread = np.full((len(subjects), len(places), len(names)), np.nan)
            spread[rows, column] = people[names].to_numpy(float)
            return spread

        keys = [(model, organ, name) for model, organ in places for name in metrics]
        others = [arrange([name])[:, :, 0] if name in people else None for name in (EXPECTED, BOUNDARY)]
        matrix = arrange(list(metrics)).reshape(len(subjects), len(keys))
        return cls(subjects, matrix, keys, places, others[0] if "dice" in metrics else None, others[1])

    def list_organs(self, place: int) -> list[int]:
        """Return the places that one place pools: those of the same model's single organs, or itself alone."""
        model, organ = self.places[place]
        if organ != POOLED:
            return [place]
        return [number for number, (name, part) in enumerate(self.places) if name == model and part != POOLED]


@dataclass(frozen=True)
class Groups:
    """One attribute's groups.

    Attributes
    ----------
    attribute : str
    names : list of str
        In the attribute's order.
    codes : ndarray of int64, (subjects,)
        Place of each subject's group among the names; −1 where unknown.
    """

    attribute: str
    names: list[str]
    codes: np.ndarray

    @classmethod
    def read(cls, people: pd.DataFrame, attribute: str, subjects: np.ndarray) -> Groups:
        """Read the groups of the subjects from the rows of :func:`helpers.fairness.groups.average_subjects`."""
        first = people.drop_duplicates("subject")
        column = pd.Series(first[f"group_{attribute}"].to_numpy(object), index=first["subject"].astype(str))
        names = list_groups(first[f"group_{attribute}"])
        number = {name: code for code, name in enumerate(names)}
        codes = [number[str(name)] if pd.notna(name) else -1 for name in column.reindex(subjects)]
        return cls(attribute, names, np.array(codes, np.int64))

    @property
    def labels(self) -> np.ndarray:
        """Each subject's group by name, None where unknown: object, (subjects,)."""
        return np.array([self.names[code] if code >= 0 else None for code in self.codes], object)
