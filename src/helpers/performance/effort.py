"""Accuracy and gaps against effort: how many prompts a person would have drawn for them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers import fairness, storage
from helpers.fairness.groups import average_groups
from helpers.models import find_mode
from helpers.models.description import AUTOMATIC, PROMPTED
from helpers.schema import TABLES
from helpers.study import Study
from helpers.vocabulary.words import POOLED


def write_effort(study: Study, audit: fairness.Audit) -> pd.DataFrame:
    """Set each model's mean score and gaps beside its prompts, and write ``fairness/effort.csv``.

    Prompts are counted as a person would draw them (:attr:`helpers.prompts.Prompts.effort`), over
    all organs of a scan; an automatic model needs none. Models whose masks were made elsewhere,
    annotators and fusions are left out: their effort is not known here.

    Returns one row per model, metric and attribute (``effort`` of :mod:`helpers.schema`).
    """
    models = study.parameters.models
    drawn = {}
    for model in models:
        mode = find_mode(model, models)
        if model.kind != "fusion" and mode in (PROMPTED, AUTOMATIC):
            organs = study.read("organs", model=model.name)
            per_scan = organs.groupby("scan")["drawn"].sum(min_count=1)
            drawn[model.name] = float(per_scan.mean()) if mode == PROMPTED else 0.0
    pooled = POOLED if (audit.disparity["organ"] == POOLED).any() else next(iter(study.organ_ids))
    rows = audit.disparity[(audit.disparity["organ"] == pooled) & audit.disparity["model"].isin(list(drawn))]
    people = average_groups(audit.groups).rename(columns={"overall": "mean"})
    keys = ["model", "organ", "metric", "attribute"]
    effort = rows.drop(columns="n").merge(people, on=keys, how="left", validate="one_to_one")
    effort["drawn"] = effort["model"].map(drawn).astype(np.float64)
    effort = effort[list(TABLES["effort"].dtypes)]
    storage.write_table(effort, study.path("effort"))
    return effort
