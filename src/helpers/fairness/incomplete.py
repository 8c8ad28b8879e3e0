"""Measures that some people have no value of: counted per group, and never called equivalent.

A missed organ has no distance, and a failed scan no measure at all. The mean of a group is then
that of its better scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.fairness.groups import POOLED, group_subjects
from helpers.parameters import Fairness
from helpers.vocabulary.statuses import LACKING, UNASKED, UNSCORED
from helpers.vocabulary.verdicts import Verdict

if TYPE_CHECKING:
    from helpers.fairness.audit import Audit

_KEYS = ["model", "organ", "metric", "attribute"]
# What is said of groups that are alike but for those of whom nothing is known.
_WITHHELD = (Verdict.EQUIVALENT.value, Verdict.NEGLIGIBLE.value)


def count_lacking(
    metrics: pd.DataFrame, cohort: pd.DataFrame, attributes: Sequence[str], names: Sequence[str]
) -> pd.DataFrame:
    """Count the people of each group who lack a value although the organ could be measured.

    `metrics` is metrics.parquet, with its ``status`` (without one nobody is counted), `cohort` the
    included scans, with ``group_<attribute>``; `names` are metrics. Returns a row per model, organ
    (``"all"``: any organ of the person), metric, attribute and group in which anybody lacks one:
    ``people`` (with an organ to be measured), ``lacking`` (without a value for a scan of theirs)
    and ``missed`` (because the model missed the organ there).
    """
    rows = [pd.DataFrame(columns=[*_KEYS, "group", "people", "lacking", "missed"])]
    known = metrics[~metrics["status"].isin((*UNSCORED, *UNASKED))] if "status" in metrics else metrics.iloc[:0]
    groups, _ = group_subjects(cohort, attributes)
    keys, several = ["model", "organ", "subject"], len(metrics["organ"].unique()) > 1
    for metric in (name for name in names if name in known and known[name].isna().any()):
        lacking = known[metric].isna()
        missed = lacking & ~known["status"].isin(LACKING)
        people = known[keys].assign(lacking=lacking, missed=missed)
        people = pd.concat([people, people.assign(organ=POOLED)]) if several else people
        people = people.groupby(keys, sort=False, observed=True)[["lacking", "missed"]].any().reset_index()
        people = people[people.groupby(["model", "organ"])["lacking"].transform("any")]
        people = people.merge(groups, on="subject", how="left", validate="many_to_one").assign(people=1)
        for attribute in attributes:
            by = ["model", "organ", f"group_{attribute}"]
            counts = people.groupby(by, sort=False, observed=True)[["people", "lacking", "missed"]].sum().reset_index()
            counts = counts.rename(columns={by[-1]: "group"}).astype({"group": "str"})
            rows.append(counts.assign(metric=metric, attribute=attribute))
    return pd.concat(rows, ignore_index=True).astype({"people": int, "lacking": int, "missed": int})


def mark_incomplete(
    audit: Audit, metrics: pd.DataFrame, cohort: pd.DataFrame, settings: Fairness, attributes: Sequence[str]
) -> Audit:
    """Return an audit whose rows say who of each group lacks a value.

    ``groups`` gets ``lacking``, ``disparity`` gets ``incomplete``, which counts them by group (of
    ``min_group`` people and more). Where an organ was missed, "equivalent" and "negligible" become
    "inconclusive": the means say nothing of the people who fared worst.
    """
    counts = count_lacking(metrics, cohort, attributes, settings.metrics)
    by_group = {tuple(row[:5]): row.lacking for row in counts.itertuples(index=False)}
    keys = audit.groups[[*_KEYS, "group"]].astype(str).itertuples(index=False, name=None)
    groups = audit.groups.assign(lacking=[by_group.get(key, 0) for key in keys])
    told: dict[tuple[str, ...], str] = {}
    missed: set[tuple[str, ...]] = set()
    for key, part in counts.groupby(_KEYS, sort=False):
        if part["missed"].any():
            missed.add(key)
        large = part[part["people"] >= settings.min_group]
        if large["lacking"].any():
            told[key] = ", ".join(f"{row.lacking} of {row.people} in “{row.group}”" for row in large.itertuples())
    places = list(audit.disparity[_KEYS].itertuples(index=False, name=None))
    disparity = audit.disparity.assign(incomplete=[told.get(place, "") for place in places])
    unsafe = disparity["verdict"].isin(_WITHHELD) & np.array([place in missed for place in places], bool)
    disparity["verdict"] = disparity["verdict"].mask(unsafe, Verdict.INCONCLUSIVE.value)
    return replace(audit, groups=groups, disparity=disparity)
