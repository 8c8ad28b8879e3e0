"""Scores as arrays, a row per subject, a column per model, organ and metric; and groups on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from helpers.fairness.disparity import find_unseen_failures, sign_metrics
from helpers.fairness.groups import EXPECTED, POOLED, number_groups, read_covariates
from helpers.statistics.bootstrap import Resamples
from helpers.statistics.clustered import LEAST_CLUSTERS, LEAST_OUTSIDE, ClusteredGaps, compare_clustered, find_largest
from helpers.statistics.grouped_values import GroupedValues
from helpers.statistics.unseen_failures import UnseenFailures

BOUNDARY = "boundary_error_mm"


@dataclass(frozen=True)
class Scores:
    """Scores of every subject; NaN where a subject has no value."""

    subjects: np.ndarray  # str, (subjects,), sorted: no draw depends on the order of rows
    matrix: np.ndarray  # float64, (subjects, columns)
    keys: list[tuple[str, str, str]]  # the columns: (model, organ, metric), in this order
    places: list[tuple[str, str]]  # (model, organ): what `expected` and `boundary` are columns of
    # float64, (subjects, places): Dice expected for the organ's size, and the boundary
    # error in mm; None where not measured.
    expected: np.ndarray | None
    boundary: np.ndarray | None
    # int64, (subjects,): each one's cluster (site), −1 where unknown; None where people are no
    # clusters. And the clusters' names.
    clusters: np.ndarray | None = None
    cluster_names: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """Each column's metric."""
        return [metric for _, _, metric in self.keys]

    @property
    def sign(self) -> np.ndarray:
        """+1 for columns in which higher is better, −1 for others: float64, (columns,)."""
        return sign_metrics(self.metrics)

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

    def attach_clusters(self, cohort: pd.DataFrame, cluster: str | None) -> Scores:
        """Return the scores with each subject's cluster, a column of `cohort`, if there is one."""
        if cluster is None:
            return self
        column = read_covariates(cohort, self.subjects, [cluster])[cluster]
        codes, names = pd.factorize(column.astype("str").where(column.notna()), sort=True)
        return replace(self, clusters=codes.astype(np.int64), cluster_names=tuple(map(str, names)))

    def list_organs(self, place: int) -> list[int]:
        """Return the places that one pools: the same model's single organs, or itself."""
        model, organ = self.places[place]
        if organ != POOLED:
            return [place]
        return [number for number, (name, part) in enumerate(self.places) if name == model and part != POOLED]


@dataclass(frozen=True, eq=False)
class AttributeScores:
    """One attribute's groups on the scores: what every comparison starts from, made once."""

    scores: Scores
    attribute: str
    names: list[str]  # the groups, in the attribute's order
    grouped: GroupedValues  # the scores in all groups
    min_group: int  # groups with fewer values in a column are not compared there
    within_people: bool = False  # rows are of a person and a group: an attribute of scans

    @classmethod
    def read(cls, people: pd.DataFrame, attribute: str, scores: Scores, min_group: int) -> AttributeScores:
        """Read the groups from the rows of :func:`helpers.fairness.groups.average_subjects`."""
        first = people.drop_duplicates("subject")
        column = first[f"group_{attribute}"].set_axis(first["subject"].astype(str))
        names, codes = number_groups(column.reindex(scores.subjects))
        return cls(scores, attribute, names, GroupedValues(scores.matrix, codes, len(names)), min_group)

    @property
    def codes(self) -> np.ndarray:
        """Place of each subject's group among the names; −1 where unknown: int64, (subjects,)."""
        return self.grouped.codes

    @property
    def labels(self) -> np.ndarray:
        """Each subject's group by name, None where unknown: object, (subjects,)."""
        return np.array([self.names[code] if code >= 0 else None for code in self.codes], object)

    @cached_property
    def kept(self) -> np.ndarray:
        """Groups with enough values to be compared and shown: bool, (groups, columns)."""
        return self.grouped.moments.n >= self.min_group

    @cached_property
    def number(self) -> np.ndarray:
        """How many groups are compared in each column."""
        return self.kept.sum(axis=0)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Subjects of each group that is compared, 0 for others: int64, (groups, columns)."""
        return np.where(self.kept, self.grouped.moments.n, 0)

    @cached_property
    def compared(self) -> GroupedValues:
        """The scores without those of groups that are not compared in a column."""
        return self.grouped.keep(self.kept)

    @cached_property
    def unseen(self) -> UnseenFailures:
        """The failures of the groups compared, and of whom none was seen."""
        values = self.grouped if self.kept.all() else self.compared
        return find_unseen_failures(values, self.scores.metrics)

    def resample(self, draws: int, seed: int) -> Resamples:
        """Return resamples within groups; subjects without a known group are one more, the last."""
        # They bear on the cohort's mean boundary error.
        strata = np.where(self.codes < 0, len(self.names), self.codes)
        streams = tuple(f"{self.attribute}\x1f{name}" for name in (*self.names, ""))
        return Resamples(strata, draws, seed, streams, self.scores.clusters)

    @cached_property
    def clustered(self) -> ClusteredGaps | None:
        """The groups compared with errors made from clusters; None where people are no clusters."""
        if self.scores.clusters is None:
            return None
        return compare_clustered(self.grouped, self.scores.clusters, self.min_group)

    def explain_confined(self, column: int) -> str:
        """Say which group compared in a column is nearly one cluster; empty where none is."""
        return self._confined[column]

    @cached_property
    def _confined(self) -> list[str]:
        clusters, count = self.scores.clusters, len(self.scores.keys)
        if clusters is None:
            return [""] * count
        said = [""] * count
        for column in range(count):
            for group in np.flatnonzero(self.kept[:, column]):
                here, mine = self.grouped.known[:, column], self.codes == group
                own, rest = clusters[here & mine], clusters[here & ~mine]
                largest, inside, effective = find_largest(own)
                share = inside / len(own)
                alike = (rest == largest).mean() >= share / 2.0
                if len(own) - inside < LEAST_OUTSIDE or (effective < LEAST_CLUSTERS and not alike):
                    name = self.scores.cluster_names[largest] if self.scores.cluster_names else "one cluster"
                    who = f"{inside} of {len(own)} in “{self.names[group]}” are of {name}"
                    said[column] = f"{who}: the group cannot be told from it"
                    break
        return said

    def name_row(self, column: int) -> dict[str, str]:
        """Return the keys of a column's row in any table of the audit."""
        model, organ, metric = self.scores.keys[column]
        return {"model": model, "organ": organ, "metric": metric, "attribute": self.attribute}
